//! NetworkPolicies.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{address, dns, labels, numbers, one_of, report, required, shown};

const TYPES: [&str; 2] = ["Ingress", "Egress"];

#[derive(Default)]
pub struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    type Object = NetworkPolicy;

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn validate(&self, policy: &NetworkPolicy) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), policy.spec.clone().unwrap_or_default());
        labels::selector(&mut errors, &path.child("podSelector"), spec.pod_selector.as_ref());
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = path.child("ingress").index(index);
            ports(&mut errors, &path, rule.ports.as_deref());
            peers(&mut errors, &path.child("from"), rule.from.as_deref());
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = path.child("egress").index(index);
            ports(&mut errors, &path, rule.ports.as_deref());
            peers(&mut errors, &path.child("to"), rule.to.as_deref());
        }
        let types = spec.policy_types.unwrap_or_default();
        let at = path.child("policyTypes");
        if types.len() > TYPES.len() {
            errors.push(FieldError::invalid(&at, shown(&types), "may not specify more than two policyTypes"));
            return errors;
        }
        for (index, kind) in types.iter().enumerate() {
            one_of(&mut errors, &at.index(index), kind, &TYPES);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("Pod-Selector", "string", "Which Pods it applies to."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
        let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        vec![columns::name(&policy.metadata), columns::selector(selector), columns::age(&policy.metadata, now)]
    }
}

fn ports(errors: &mut FieldErrors, path: &Path, ports: Option<&[NetworkPolicyPort]>) {
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = path.child("ports").index(index);
        if let Some(protocol) = &port.protocol {
            one_of(errors, &path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
        }
        let (at, end_at) = (path.child("port"), path.child("endPort"));
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(number)), end) => {
                numbers::port(errors, &at, *number);
                if let Some(end) = end {
                    if end < *number {
                        errors.push(FieldError::invalid(&end_at, end, "must be greater than or equal to `port`"));
                    }
                    numbers::port(errors, &end_at, end);
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if let Some(end) = end {
                    let about = "may not be specified when `port` is non-numeric";
                    errors.push(FieldError::invalid(&end_at, end, about));
                }
                report(errors, &at, name, dns::port_name(name));
            }
            (None, Some(end)) => {
                let about = "may not be specified when `port` is not specified";
                errors.push(FieldError::invalid(&end_at, end, about));
            }
            (None, None) => {}
        }
    }
}

fn peers(errors: &mut FieldErrors, path: &Path, peers: Option<&[NetworkPolicyPeer]>) {
    for (index, peer) in peers.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        labels::selector(errors, &path.child("podSelector"), peer.pod_selector.as_ref());
        labels::selector(errors, &path.child("namespaceSelector"), peer.namespace_selector.as_ref());
        if let Some(block) = &peer.ip_block {
            ip_block(errors, &path.child("ipBlock"), block);
        }
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match (selects, peer.ip_block.is_some()) {
            (false, false) => errors.push(FieldError::required(&path, "must specify a peer")),
            (true, true) => {
                errors.push(FieldError::forbidden(&path, "may not specify both ipBlock and another peer"));
            }
            _ => {}
        }
    }
}

fn ip_block(errors: &mut FieldErrors, path: &Path, block: &IPBlock) {
    let at = path.child("cidr");
    if !required(errors, &at, &block.cidr) {
        return;
    }
    address::cidr(errors, &at, &block.cidr);
    let Some((network, length)) = address::network_of(&block.cidr) else { return };
    for (index, except) in block.except.iter().flatten().enumerate() {
        let at = path.child("except").index(index);
        address::cidr(errors, &at, except);
        let Some((inner, inner_length)) = address::network_of(except) else { continue };
        let within = address::network_of(&format!("{inner}/{length}")).is_some_and(|(outer, _)| outer == network);
        if !within || length >= inner_length {
            errors.push(FieldError::invalid(&at, except.as_str(), "must be a strict subset of `cidr`"));
        }
    }
}
