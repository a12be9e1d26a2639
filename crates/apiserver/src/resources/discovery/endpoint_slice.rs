//! EndpointSlices.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::containers::PROTOCOLS;
use crate::resources::validation::{
    address, declared_immutable, dns, labels, one_of, report, required, required_one_of, text,
};

/// Upstream's limits: they bound what every node's proxy has to hold.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;

#[derive(Default)]
pub struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    type Object = EndpointSlice;

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        for endpoint in slice.endpoints.iter_mut().flatten() {
            endpoint.conditions.get_or_insert_default();
        }
        slice.endpoints.get_or_insert_default();
        slice.ports.get_or_insert_default();
    }

    fn prepare_create(&self, slice: &mut EndpointSlice) {
        drop_topology(slice);
    }

    fn prepare_update(&self, new: &mut EndpointSlice, old: &EndpointSlice) {
        if new.endpoints != old.endpoints {
            drop_topology(new);
        }
        // Labels say whose slice it is: a change of them is a new generation too.
        if new.metadata.labels != old.metadata.labels {
            new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
        }
    }

    fn validate(&self, slice: &EndpointSlice) -> FieldErrors {
        let mut errors = FieldErrors::new();
        address_type(&mut errors, slice);
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        let path = Path::new("endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(FieldError::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        }
        for (index, endpoint) in endpoints.iter().enumerate().take(MAX_ENDPOINTS) {
            validate_endpoint(&mut errors, &path.index(index), endpoint, &slice.address_type);
        }
        ports(&mut errors, &Path::new("ports"), slice);
        errors
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if new.address_type == old.address_type {
            errors.extend(self.validate(new));
        } else {
            address_type(&mut errors, new);
        }
        declared_immutable(&mut errors, &Path::new("addressType"), &new.address_type, &old.address_type);
        errors
    }

    fn warnings(&self, slice: &EndpointSlice, old: Option<&EndpointSlice>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && slice.address_type == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let manager = slice.metadata.labels.as_ref().and_then(|all| all.get("endpointslice.kubernetes.io/managed-by"));
        let controllers = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
        if manager.is_some_and(|manager| controllers.contains(&manager.as_str())) {
            return warnings;
        }
        for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
            let path = Path::new("endpoints").index(index).child("addresses");
            for (index, one) in endpoint.addresses.iter().enumerate() {
                warnings.extend(address::ip_warning(&path.index(index), one));
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("AddressType", "string", "What its addresses are."),
            column("Ports", "string", "The ports of its endpoints."),
            column("Endpoints", "string", "The addresses of its endpoints."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| match (port.port, &port.name) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.clone(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> =
            slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone()).collect();
        let first_three = |list: &[String]| columns::or(Some(&columns::first_three(list, "")), "<unset>");
        vec![
            columns::name(&slice.metadata),
            Value::from(slice.address_type.clone()),
            first_three(&ports),
            first_three(&addresses),
            columns::age(&slice.metadata, now),
        ]
    }
}

/// The field is of an older version; zone and node name took its place.
fn drop_topology(slice: &mut EndpointSlice) {
    slice.endpoints.iter_mut().flatten().for_each(|endpoint| endpoint.deprecated_topology = None);
}

fn address_type(errors: &mut FieldErrors, slice: &EndpointSlice) {
    let families = ["FQDN", "IPv4", "IPv6"];
    required_one_of(errors, &Path::new("addressType"), &slice.address_type, &families);
}

fn validate_endpoint(errors: &mut FieldErrors, path: &Path, endpoint: &Endpoint, kind: &str) {
    let at = path.child("addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(&at, endpoint.addresses.len(), MAX_ADDRESSES));
    }
    for (index, value) in endpoint.addresses.iter().enumerate() {
        let item = at.index(index);
        let before = errors.len();
        match kind {
            "IPv4" => address::ip(errors, &item, value),
            "IPv6" => address::canonical_ip(errors, &item, value),
            "FQDN" => domain_name(errors, &item, value),
            _ => {}
        }
        if errors.len() == before && matches!(kind, "IPv4" | "IPv6") {
            if address::is_ipv6(value) != (kind == "IPv6") {
                errors.push(FieldError::invalid(&at, value.as_str(), format!("must be an {kind} address")));
            }
            address::endpoint_ip(errors, &item, value);
        }
    }
    if let Some(name) = &endpoint.node_name {
        report(errors, &path.child("nodeName"), name, dns::subdomain(name));
    }
    let at = path.child("deprecatedTopology");
    let topology = endpoint.deprecated_topology.as_ref();
    if let Some(count) = topology.map(|topology| topology.len()).filter(|count| *count > MAX_TOPOLOGY) {
        errors.push(FieldError::too_many(&at, count, MAX_TOPOLOGY));
    }
    labels::labels(errors, &at, topology);
    if let Some(name) = &endpoint.hostname {
        report(errors, &path.child("hostname"), name, dns::label(name));
    }
    if let Some(given) = &endpoint.hints {
        hints(errors, &path.child("hints"), given);
    }
}

fn domain_name(errors: &mut FieldErrors, path: &Path, value: &str) {
    if !required(errors, path, value) {
        return;
    }
    let name = value.strip_suffix('.').unwrap_or(value);
    let messages = dns::subdomain(name);
    if !messages.is_empty() {
        errors.push(FieldError::invalid(path, name, messages.join(",")));
    } else if !name.contains('.') {
        let about = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, name, about));
    } else if let Some(part) = name.split('.').find(|part| !dns::label(part).is_empty()) {
        errors.push(FieldError::invalid(path, part, dns::label(part).join(",")));
    }
}

fn ports(errors: &mut FieldErrors, path: &Path, slice: &EndpointSlice) {
    let list = slice.ports.as_deref().unwrap_or_default();
    if list.len() > MAX_PORTS {
        return errors.push(FieldError::too_many(path, list.len(), MAX_PORTS));
    }
    let mut names = BTreeSet::new();
    for (index, port) in list.iter().enumerate() {
        let (path, name) = (path.index(index), text(&port.name));
        if !name.is_empty() {
            report(errors, &path.child("name"), name, dns::label(name));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        match &port.protocol {
            None => errors.push(FieldError::required(&path.child("protocol"), "")),
            Some(protocol) => one_of(errors, &path.child("protocol"), protocol, &PROTOCOLS),
        }
        if let Some(protocol) = &port.app_protocol {
            report(errors, &path.child("appProtocol"), protocol, dns::label_key(protocol));
        }
    }
}

fn hints(errors: &mut FieldErrors, path: &Path, hints: &EndpointHints) {
    let mut check = |field: &str, names: Vec<&str>, rule: fn(&str) -> dns::Messages| {
        let path = path.child(field);
        if names.len() > MAX_HINTS {
            return errors.push(FieldError::too_many(&path, names.len(), MAX_HINTS));
        }
        let mut seen = BTreeSet::new();
        for (index, name) in names.into_iter().enumerate() {
            let path = path.index(index).child("name");
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path, name));
            }
            report(errors, &path, name, rule(name));
        }
    };
    check("forZones", hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect(), dns::label_value);
    check("forNodes", hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect(), dns::subdomain);
}
