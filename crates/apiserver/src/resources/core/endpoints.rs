//! Endpoints, the older form of EndpointSlices.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod_defaults::default_text;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::containers::PROTOCOLS;
use crate::resources::validation::{address, dns, numbers, report, required_one_of, semantically_equal, text};

#[derive(Default)]
pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    type Object = Endpoints;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, endpoints: &mut Endpoints) {
        let ports = endpoints.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten());
        ports.for_each(|port| default_text(&mut port.protocol, "TCP"));
    }

    fn validate(&self, endpoints: &Endpoints) -> FieldErrors {
        let mut errors = FieldErrors::new();
        for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
            validate_subset(&mut errors, &Path::new("subsets").index(index), subset);
        }
        errors
    }

    fn validate_update(&self, new: &Endpoints, old: &Endpoints) -> FieldErrors {
        // What was let in once may stay as it is.
        if semantically_equal(&new.subsets, &old.subsets) { FieldErrors::new() } else { self.validate(new) }
    }

    fn warnings(&self, endpoints: &Endpoints, _old: Option<&Endpoints>) -> Vec<String> {
        let manager = endpoints.metadata.labels.as_ref().and_then(|all| all.get("endpoints.kubernetes.io/managed-by"));
        if manager.is_some_and(|manager| manager == "endpoint-controller") {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let path = Path::new("subsets").index(index);
            for (name, list) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)] {
                for (index, one) in list.iter().flatten().enumerate() {
                    warnings.extend(address::ip_warning(&path.child(name).index(index).child("ip"), &one.ip));
                }
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("Endpoints", "string", "Addresses and ports that are ready."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        let subsets = endpoints.subsets.as_deref().unwrap_or_default();
        let list: Vec<String> = subsets.iter().flat_map(ready).collect();
        // No subset and a subset without addresses look different upstream.
        let text = columns::first_three(&list, if subsets.is_empty() { "<none>" } else { "" });
        vec![columns::name(&endpoints.metadata), Value::from(text), columns::age(&endpoints.metadata, now)]
    }
}

fn ready(subset: &EndpointSubset) -> Vec<String> {
    let addresses = subset.addresses.as_deref().unwrap_or_default();
    let ports = subset.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        return addresses.iter().map(|one| one.ip.clone()).collect();
    }
    let host = |ip: &str| if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let each = |port: &EndpointPort| {
        addresses.iter().map(|one| format!("{}:{}", host(&one.ip), port.port)).collect::<Vec<_>>()
    };
    ports.iter().flat_map(each).collect()
}

fn validate_subset(errors: &mut FieldErrors, path: &Path, subset: &EndpointSubset) {
    let lists = [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)];
    if lists.iter().all(|(_, list)| list.as_ref().is_none_or(Vec::is_empty)) {
        errors.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (name, list) in lists {
        for (index, one) in list.iter().flatten().enumerate() {
            validate_address(errors, &path.child(name).index(index), one);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let (path, name) = (path.child("ports").index(index), text(&port.name));
        if !name.is_empty() {
            report(errors, &path.child("name"), name, dns::label(name));
        } else if ports.len() > 1 {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        numbers::port(errors, &path.child("port"), port.port);
        required_one_of(errors, &path.child("protocol"), text(&port.protocol), &PROTOCOLS);
        if let Some(protocol) = &port.app_protocol {
            report(errors, &path.child("appProtocol"), protocol, dns::label_key(protocol));
        }
    }
}

fn validate_address(errors: &mut FieldErrors, path: &Path, one: &EndpointAddress) {
    address::ip(errors, &path.child("ip"), &one.ip);
    let hostname = text(&one.hostname);
    if !hostname.is_empty() {
        report(errors, &path.child("hostname"), hostname, dns::label(hostname));
    }
    if let Some(node) = &one.node_name {
        report(errors, &path.child("nodeName"), node, dns::subdomain(node));
    }
    address::endpoint_ip(errors, &path.child("ip"), &one.ip);
}
