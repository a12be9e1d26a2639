//! What objects use up of a ResourceQuota: which names of a quota a resource counts towards, how much, and in which scopes.
//!
//! Both the admission that charges quotas and the controller that counts them go by these rules, which are those of upstream's
//! `pkg/quota/v1/evaluator/core`. Claims for devices count as objects only, not by their device classes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec, ResourceRequirements,
    ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::pod::{self, Amounts};
use crate::quantity::Quantity;

/// An object as quotas see it. Objects of all other kinds are merely counted.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
    Claim(&'a PersistentVolumeClaim),
    Other,
}

/// Resources that have a name of their own beside `count/…`.
const ALIASED: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
const POD_NAMES: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const SERVICE_NAMES: [&str; 3] = ["services", "services.nodeports", "services.loadbalancers"];
const CLAIM_NAMES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Stands between a storage class and one of `CLAIM_NAMES`.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const REQUESTS: &str = "requests.";
const HUGE_PAGES: &str = "hugepages-";
/// Where a quota has one of these, every container of a Pod has to say how much it wants.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Whether a resource (`pods`, `deployments.apps`) counts towards a quota's name (`requests.cpu`, `count/deployments.apps`).
pub fn tracks(resource: &str, name: &str) -> bool {
    if name.strip_prefix("count/") == Some(resource) {
        return true;
    }
    match resource {
        "pods" => {
            let huge = name.strip_prefix(REQUESTS).unwrap_or(name).starts_with(HUGE_PAGES);
            POD_NAMES.contains(&name) || huge || (name.starts_with(REQUESTS) && is_extended(name))
        }
        "services" => SERVICE_NAMES.contains(&name),
        "persistentvolumeclaims" => {
            let of_class = name.split_once(OF_CLASS).map_or("", |(_, name)| name);
            CLAIM_NAMES.contains(&name) || CLAIM_NAMES.contains(&of_class)
        }
        _ => name == resource && ALIASED.contains(&name),
    }
}

/// Not one of Kubernetes' own resources, like `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// How much an object of a resource uses, by the names that quotas have for it.
pub fn usage(resource: &str, subject: Subject<'_>, now: Timestamp) -> Amounts {
    let one = Quantity::from_integer(1);
    let mut used = Amounts::from([(format!("count/{resource}"), one)]);
    match subject {
        Subject::Pod(pod) if is_live(pod, now) => use_pod(pod, &mut used),
        Subject::Pod(_) => {}
        Subject::Service(service) => use_service(service, &mut used),
        Subject::Claim(claim) => use_claim(claim, &mut used),
        Subject::Other if ALIASED.contains(&resource) => {
            used.insert(resource.to_owned(), one);
        }
        Subject::Other => {}
    }
    used
}

/// Whether a Pod holds compute resources: not when it ended, nor when its node failed to end it in twice its time.
fn is_live(pod: &Pod, now: Timestamp) -> bool {
    let meta = &pod.metadata;
    let grace = meta.deletion_grace_period_seconds.map(SignedDuration::from_secs);
    let overdue = match (&meta.deletion_timestamp, grace) {
        (Some(deletion), Some(grace)) => now > deletion.0 + grace,
        _ => false,
    };
    !pod::is_terminal(pod) && !overdue
}

fn use_pod(pod: &Pod, used: &mut Amounts) {
    used.insert("pods".to_owned(), Quantity::from_integer(1));
    let Some(spec) = &pod.spec else { return };
    used.extend(named(pod::requests(spec), pod::limits(spec)));
}

/// Requests and limits under the names of quotas.
fn named(requests: Amounts, limits: Amounts) -> Amounts {
    let mut names = Amounts::new();
    for (name, amount) in requests {
        let basic = matches!(&*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGE_PAGES);
        if basic || is_extended(&name) {
            names.insert(format!("{REQUESTS}{name}"), amount);
        }
        if basic {
            names.insert(name, amount);
        }
    }
    for (name, amount) in limits {
        if matches!(&*name, "cpu" | "memory" | "ephemeral-storage") {
            names.insert(format!("limits.{name}"), amount);
        }
    }
    names
}

fn use_service(service: &Service, used: &mut Amounts) {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let balanced = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    let allocated = spec.and_then(|spec| spec.allocate_load_balancer_node_ports) != Some(false);
    let node_ports = match spec.and_then(|spec| spec.type_.as_deref()) {
        Some("LoadBalancer") if !allocated => ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0).count(),
        Some("NodePort" | "LoadBalancer") => ports.len(),
        _ => 0,
    };
    let amounts = [1, node_ports as i64, i64::from(balanced)].map(Quantity::from_integer);
    used.extend(SERVICE_NAMES.map(str::to_owned).into_iter().zip(amounts));
}

fn use_claim(claim: &PersistentVolumeClaim, used: &mut Amounts) {
    let spec = claim.spec.as_ref();
    let annotations = claim.metadata.annotations.as_ref();
    let older = annotations.and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"));
    let class = older.or(spec.and_then(|spec| spec.storage_class_name.as_ref())).filter(|class| !class.is_empty());
    let requests = spec.and_then(|spec| spec.resources.as_ref()).and_then(|resources| resources.requests.as_ref());
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let storage = |list: Option<&BTreeMap<String, ApiQuantity>>| {
        list.and_then(|list| list.get("storage")).map(|amount| Quantity::of(Some(amount)))
    };
    let storage = storage(requests).map(|wanted| wanted.max(storage(allocated).unwrap_or(Quantity::ZERO)));
    for (name, amount) in CLAIM_NAMES.into_iter().zip([Some(Quantity::from_integer(1)), storage]) {
        let Some(amount) = amount else { continue };
        if let Some(class) = class {
            used.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
        used.insert(name.to_owned(), amount);
    }
}

/// Whether a quota's scopes let it count an object. Objects that know no scopes are in none of a scoped quota.
pub fn in_scope(spec: &ResourceQuotaSpec, subject: Subject<'_>) -> bool {
    let plain = spec.scopes.iter().flatten().map(|scope| (scope.as_str(), "Exists", &[][..]));
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let selected = selected.map(|requirement: &ScopedResourceSelectorRequirement| {
        let values = requirement.values.as_deref().unwrap_or_default();
        (requirement.scope_name.as_str(), requirement.operator.as_str(), values)
    });
    plain.chain(selected).all(|(scope, operator, values)| match subject {
        Subject::Pod(pod) => pod_in_scope(pod, scope, operator, values),
        Subject::Claim(claim) => {
            scope == "VolumeAttributesClass" && selects(operator, values, &attributes_classes(claim))
        }
        Subject::Service(_) | Subject::Other => false,
    })
}

fn pod_in_scope(pod: &Pod, scope: &str, operator: &str, values: &[String]) -> bool {
    match scope {
        "Terminating" => has_deadline(pod),
        "NotTerminating" => !has_deadline(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref());
            selects(operator, values, &class.filter(|class| !class.is_empty()).into_iter().collect())
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn selects(operator: &str, values: &[String], present: &BTreeSet<&str>) -> bool {
    let listed = |one: &&str| values.iter().any(|value| value == one);
    match operator {
        "In" => present.iter().any(listed),
        "NotIn" => present.is_empty() || !present.iter().all(listed),
        "Exists" => !present.is_empty(),
        "DoesNotExist" => present.is_empty(),
        _ => false,
    }
}

/// Whether a Pod ends by itself. Quotas call that terminating.
pub fn has_deadline(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let asks = |resources: &ResourceRequirements| {
        let amounts = resources.requests.iter().flatten().chain(resources.limits.iter().flatten());
        amounts
            .into_iter()
            .any(|(name, amount)| matches!(&**name, "cpu" | "memory") && !Quantity::of(Some(amount)).is_zero())
    };
    !containers.filter_map(|container| container.resources.as_ref()).chain(spec.resources.as_ref()).any(asks)
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_deref());
    let also_required = far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_deref());
    let preferred = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_deref());
    let also_preferred = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_deref());
    let weighted = preferred.into_iter().chain(also_preferred).flatten().map(|one| &one.pod_affinity_term);
    required.into_iter().chain(also_required).flatten().chain(weighted).any(crosses)
}

fn attributes_classes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let modifying = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = modifying.and_then(|modifying| modifying.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

/// What a Pod has to say about its containers for quotas with these names and does not: `cpu for: a,b; memory for: a`.
pub fn unspecified<'a>(pod: &Pod, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let has_own_amounts = |resources: &ResourceRequirements| {
        let mut names = resources.requests.iter().flatten().chain(resources.limits.iter().flatten());
        names.any(|(name, _)| matches!(&**name, "cpu" | "memory") || name.starts_with(HUGE_PAGES))
    };
    if spec.resources.as_ref().is_some_and(has_own_amounts) {
        return None;
    }
    let required: Vec<&str> = names.filter(|name| REQUIRED.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let given = given(container);
        for name in required.iter().filter(|name| !given.contains_key(**name)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    let told = missing.iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.iter().copied().collect();
        format!("{name} for: {}", containers.join(","))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn given(container: &Container) -> Amounts {
    let list = |list: Option<&BTreeMap<String, ApiQuantity>>| -> Amounts {
        list.into_iter().flatten().map(|(name, amount)| (name.clone(), Quantity::of(Some(amount)))).collect()
    };
    let resources = container.resources.as_ref();
    let requests = list(resources.and_then(|resources| resources.requests.as_ref()));
    named(requests, list(resources.and_then(|resources| resources.limits.as_ref())))
}

/// The sum, name by name.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.plus(*amount);
    }
}

/// Amounts as an object's status has them.
pub fn parsed(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), Quantity::of(Some(amount)))).collect()
}

pub fn to_api(amounts: &Amounts) -> BTreeMap<String, ApiQuantity> {
    amounts.iter().map(|(name, amount)| (name.clone(), amount.to_api())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check_usage(spec: Value, expected: Value) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let used = usage("pods", Subject::Pod(&pod), Timestamp::UNIX_EPOCH);
        assert_eq!(serde_json::to_value(to_api(&used)).unwrap(), expected, "{spec}");
    }

    #[test]
    fn pods_use_what_they_ask_for() {
        let container = |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
        check_usage(container(json!({})), json!({"count/pods": "1", "pods": "1"}));
        let resources =
            json!({"requests": {"cpu": "100m", "example.com/a": "2"}, "limits": {"cpu": "1", "example.com/a": "2"}});
        let expected = json!({"count/pods": "1", "pods": "1", "cpu": "100m", "requests.cpu": "100m", "limits.cpu": "1",
            "requests.example.com/a": "2"});
        check_usage(container(resources), expected);
    }

    #[test]
    fn ended_pods_only_count() {
        let pod: Pod = serde_json::from_value(json!({"status": {"phase": "Failed"}})).unwrap();
        let used = usage("pods", Subject::Pod(&pod), Timestamp::UNIX_EPOCH);
        assert_eq!(used.keys().collect::<Vec<_>>(), ["count/pods"]);
    }

    #[test]
    fn services_use_ports() {
        let check = |spec: Value, node_ports: i64, balancers: i64| {
            let service: Service = serde_json::from_value(json!({"spec": spec})).unwrap();
            let used = usage("services", Subject::Service(&service), Timestamp::UNIX_EPOCH);
            let found = (used["services.nodeports"].value(), used["services.loadbalancers"].value());
            assert_eq!(found, (node_ports, balancers), "{spec}");
        };
        let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
        check(json!({"ports": ports}), 0, 0);
        check(json!({"type": "NodePort", "ports": ports}), 2, 0);
        check(json!({"type": "LoadBalancer", "ports": ports}), 2, 1);
        check(json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}), 1, 1);
    }

    #[test]
    fn names_belong_to_resources() {
        let check = |resource: &str, name: &str, expected: bool| {
            assert_eq!(tracks(resource, name), expected, "{resource} {name}")
        };
        check("pods", "requests.cpu", true);
        check("pods", "requests.hugepages-2Mi", true);
        check("pods", "requests.example.com/a", true);
        check("pods", "requests.storage", false);
        check("persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true);
        check("configmaps", "configmaps", true);
        check("deployments.apps", "count/deployments.apps", true);
        check("deployments.apps", "deployments.apps", false);
    }

    #[test]
    fn scopes_select() {
        let check = |quota: Value, pod: Value, expected: bool| {
            let spec: ResourceQuotaSpec = serde_json::from_value(quota.clone()).unwrap();
            let object: Pod = serde_json::from_value(json!({"spec": pod})).unwrap();
            assert_eq!(in_scope(&spec, Subject::Pod(&object)), expected, "{quota} {pod}");
        };
        let plain = json!({"containers": [{"name": "c"}]});
        let classed = json!({"containers": [], "priorityClassName": "high"});
        let priority = |operator: &str, values: Value| {
            let requirement = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            json!({"scopeSelector": {"matchExpressions": [requirement]}})
        };
        check(json!({"scopes": ["BestEffort", "NotTerminating"]}), plain.clone(), true);
        check(json!({"scopes": ["NotBestEffort"]}), plain.clone(), false);
        check(json!({"scopes": ["Terminating"]}), json!({"containers": [], "activeDeadlineSeconds": 5}), true);
        check(priority("In", json!(["high"])), classed.clone(), true);
        check(priority("In", json!(["low"])), classed.clone(), false);
        check(priority("NotIn", json!(["low"])), plain.clone(), true);
        check(priority("DoesNotExist", json!(null)), plain.clone(), true);
        check(priority("Exists", json!(null)), plain, false);
        let config = Subject::Other;
        assert!(!in_scope(&serde_json::from_value(json!({"scopes": ["BestEffort"]})).unwrap(), config));
    }

    #[test]
    fn what_is_not_said_is_named() {
        let spec = json!({"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]});
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let told = unspecified(&pod, ["requests.cpu", "limits.memory", "pods"].into_iter());
        assert_eq!(told.as_deref(), Some("limits.memory for: a,b; requests.cpu for: b"));
    }
}
