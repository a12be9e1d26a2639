//! Nodes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use regex::Regex;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod_defaults;
use super::pod_resources::Amounts;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column, wide};
use crate::resources::columns;
use crate::resources::validation::{address, numbers, quantities, scheduling, shown, text};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

#[derive(Default)]
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    type Object = Node;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, node: &mut Node) {
        let spec = node.spec.get_or_insert_default();
        // The single field and the list are kept in step; the single one is what old writers know.
        let first = spec.pod_cidrs.as_ref().and_then(|list| list.first().cloned());
        match (text(&spec.pod_cidr).is_empty(), first) {
            (true, Some(first)) => spec.pod_cidr = Some(first),
            (false, first) if first != spec.pod_cidr => spec.pod_cidrs = spec.pod_cidr.clone().map(|cidr| vec![cidr]),
            _ => {}
        }
        spec.pod_preemption_policy = None;
        let status = node.status.get_or_insert_default();
        status.allocatable = status.allocatable.take().or_else(|| status.capacity.clone());
        pod_defaults::amounts(status.capacity.as_mut());
        pod_defaults::amounts(status.allocatable.as_mut());
        status.daemon_endpoints.get_or_insert_default().kubelet_endpoint.get_or_insert_default();
        status.node_info.get_or_insert_default();
    }

    fn prepare_create(&self, node: &mut Node) {
        if let Some(spec) = &mut node.spec {
            spec.config_source = None;
        }
        if let Some(status) = &mut node.status {
            status.config = None;
        }
    }

    fn prepare_update(&self, new: &mut Node, _old: &Node) {
        if let Some(spec) = &mut new.spec {
            spec.config_source = None;
        }
    }

    fn validate(&self, node: &Node) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.clone().unwrap_or_default());
        // Upstream reports taints under `metadata`.
        scheduling::taints(&mut errors, &Path::new("metadata.taints"), spec.taints.as_deref());
        resources(&mut errors, &status);
        let swap = status.node_info.as_ref().and_then(|info| info.swap.as_ref()?.capacity);
        if let Some(capacity) = swap {
            numbers::positive(&mut errors, &Path::new("metadata.nodeSwapStatus.capacity"), capacity);
        }
        declared_features(&mut errors, &status);
        let (path, list) = (Path::new("spec.podCIDRs"), spec.pod_cidrs.as_deref().unwrap_or_default());
        for (index, cidr) in list.iter().enumerate() {
            address::cidr(&mut errors, &path.index(index), cidr);
        }
        let broken = list.iter().enumerate().find(|(_, cidr)| address::lenient_cidr(cidr).is_none());
        if let Some((index, cidr)) = broken.filter(|_| list.len() > 1) {
            let what = format!("invalid CIDR[{index}]: <nil> (invalid CIDR address: {cidr})");
            let about = format!("invalid PodCIDRs. failed to check with dual stack with error:{what}");
            errors.push(FieldError::internal(&path, about));
        }
        if list.len() > 2 || (list.len() == 2 && !address::is_dual_stack(list.iter().map(String::as_str))) {
            let about = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid(&path, shown(&list), about));
        }
        errors
    }

    fn validate_update(&self, new: &Node, old: &Node) -> FieldErrors {
        let mut errors = self.validate(new);
        errors.extend(changes(new, old));
        errors
    }

    fn validate_status_update(&self, new: &Node, old: &Node) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let status = new.status.clone().unwrap_or_default();
        resources(&mut errors, &status);
        declared_features(&mut errors, &status);
        errors.extend(changes(new, old));
        errors
    }

    fn warnings(&self, node: &Node, _old: Option<&Node>) -> Vec<String> {
        let Some(spec) = &node.spec else { return Vec::new() };
        let mut warnings = Vec::new();
        if spec.config_source.is_some() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if !text(&spec.external_id).is_empty() {
            let about = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
            warnings.push(about.to_owned());
        }
        warnings
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field<'a>(&self, node: &'a Node, _field: &str) -> Cow<'a, str> {
        let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        Cow::Borrowed(if unschedulable { "true" } else { "false" })
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Status", "string", "Whether it is ready and takes Pods."),
            column("Roles", "string", "The roles that its labels give it."),
            AGE_COLUMN,
            column("Version", "string", "The version of its agent."),
            wide("Internal-IP", "string", "Its address within the cluster's network."),
            wide("External-IP", "string", "Its address from outside."),
            wide("OS-Image", "string", "Its operating system."),
            wide("Kernel-Version", "string", "Its kernel."),
            wide("Container-Runtime", "string", "Its container runtime."),
        ];
        COLUMNS
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let status = node.status.clone().unwrap_or_default();
        let info = status.node_info.clone().unwrap_or_default();
        let mut state = match xebec_api::node::condition(node, "Ready") {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
            state.push_str(",SchedulingDisabled");
        }
        let address = |kind: &str| {
            let found = status.addresses.iter().flatten().find(|one| one.type_ == kind);
            columns::or(found.map(|one| one.address.as_str()), "<none>")
        };
        let mut kernel =
            if info.kernel_version.is_empty() { "<unknown>".to_owned() } else { info.kernel_version.clone() };
        if !info.architecture.is_empty() {
            kernel.push_str(&format!(" ({})", info.architecture));
        }
        vec![
            columns::name(&node.metadata),
            Value::from(state),
            columns::or(Some(&roles(node)), "<none>"),
            columns::age(&node.metadata, now),
            Value::from(info.kubelet_version.clone()),
            address("InternalIP"),
            address("ExternalIP"),
            columns::or(Some(&info.os_image), "<unknown>"),
            Value::from(kernel),
            columns::or(Some(&info.container_runtime_version), "<unknown>"),
        ]
    }
}

fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let role = |(key, value): (&String, &String)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => Some(role.to_owned()).filter(|role| !role.is_empty()),
        None => (key == ROLE && !value.is_empty()).then(|| value.clone()),
    };
    labels.filter_map(role).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

fn resources(errors: &mut FieldErrors, status: &NodeStatus) {
    let mut check = |name: &str, list: &Option<Amounts>| {
        for (resource, value) in list.iter().flatten() {
            quantities::amount(errors, &Path::new("status").child(name).child(resource), resource, value);
        }
    };
    check("capacity", &status.capacity);
    check("allocatable", &status.allocatable);
}

fn declared_features(errors: &mut FieldErrors, status: &NodeStatus) {
    static FORMAT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$").expect("a constant"));
    let path = Path::new("status.declaredFeatures");
    let list = status.declared_features.as_deref().unwrap_or_default();
    for (index, feature) in list.iter().enumerate() {
        if !FORMAT.is_match(feature) {
            let about = format!(
                "invalid feature name {feature:?}: must start with an UpperCamelCase segment, with subsequent segments \
                 separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and \
                 slashes"
            );
            errors.push(FieldError::invalid(&path.index(index), feature.as_str(), about));
        }
        let Some(next) = list.get(index + 1) else { continue };
        if feature == next {
            errors.push(FieldError::duplicate(&path.index(index + 1), next.as_str()));
        } else if feature > next {
            errors.push(FieldError::invalid(
                &path.index(index + 1),
                next.as_str(),
                "list must be sorted alphabetically",
            ));
        }
    }
}

fn changes(new: &Node, old: &Node) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    let mut seen = BTreeSet::new();
    let addresses = new.status.iter().flat_map(|status| status.addresses.iter().flatten());
    for (index, one) in addresses.enumerate() {
        if !seen.insert((one.type_.as_str(), one.address.as_str())) {
            errors.push(FieldError::duplicate(&Path::new("status.addresses").index(index), shown(one)));
        }
    }
    let (now, then) = (spec.pod_cidrs.unwrap_or_default(), before.pod_cidrs.unwrap_or_default());
    if !then.is_empty() {
        let changed = if now.len() == then.len() { now.iter().zip(&then).filter(|(a, b)| a != b).count() } else { 1 };
        let about = "node updates may not change podCIDR except from \"\" to valid";
        errors.extend((0..changed).map(|_| FieldError::forbidden(&Path::new("spec.podCIDRs"), about)));
    }
    let (now, then) = (text(&spec.provider_id), text(&before.provider_id));
    if !then.is_empty() && now != then {
        let about =
            if now.is_empty() { "field cannot be cleared once set" } else { "field cannot be modified once set" };
        errors.push(FieldError::invalid(&Path::new("spec.providerID"), Value::Null, about));
    }
    scheduling::taints(&mut errors, &Path::new("metadata.taints"), spec.taints.as_deref());
    if text(&spec.external_id) != text(&before.external_id) {
        errors.push(FieldError::forbidden(&Path::new("spec.externalID"), "may not be updated"));
    }
    errors
}
