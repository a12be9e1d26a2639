//! Pure predicates on Pods: what they ask for, whether they are ready, done, and allowed on a node's taints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements, Taint, Toleration};

use crate::quantity::Quantity;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Whether the condition of that type is `True`.
pub fn has_condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

pub fn is_ready(pod: &Pod) -> bool {
    has_condition(pod, "Ready")
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// `Succeeded` or `Failed`: no container of it will ever run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// An init container that keeps running beside the others (KEP-753).
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// What a Pod needs of its node: containers and sidecars together, or the largest moment of its initialisation if that is
/// more, plus overhead; Pod-level requests win where they are given (KEP-2837).
pub fn requests(spec: &PodSpec) -> Amounts {
    sum(spec, |resources| resources.requests.as_ref())
}

/// The limits, summed by the same rule.
pub fn limits(spec: &PodSpec) -> Amounts {
    sum(spec, |resources| resources.limits.as_ref())
}

type ApiAmounts = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn sum(spec: &PodSpec, of: impl Fn(&ResourceRequirements) -> Option<&ApiAmounts>) -> Amounts {
    let amounts = |container: &Container| parsed(container.resources.as_ref().and_then(&of));
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &amounts(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for init in spec.init_containers.iter().flatten() {
        let own = amounts(init);
        if is_sidecar(init) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut moment = own;
            add(&mut moment, &sidecars);
            raise(&mut peak, &moment);
        }
    }
    raise(&mut total, &peak);
    if let Some(pod_level) = &spec.resources {
        total.extend(parsed(of(pod_level)));
    }
    add(&mut total, &parsed(spec.overhead.as_ref()));
    total
}

fn parsed(amounts: Option<&ApiAmounts>) -> Amounts {
    amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), Quantity::of(Some(amount)))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.plus(*amount);
    }
}

fn raise(total: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let entry = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = (*entry).max(*amount);
    }
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or("");
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        "Exists" => true,
        "Gt" => compare(taint, toleration).is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compare(taint, toleration).is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

fn compare(taint: &Taint, toleration: &Toleration) -> Option<std::cmp::Ordering> {
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<i64>().ok());
    Some(number(&taint.value)?.cmp(&number(&toleration.value)?))
}

/// The first taint with one of these effects that no toleration covers.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value, cpu: i64) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(requests(&spec)["cpu"].milli_value(), cpu);
    }

    #[test]
    fn requests_cover_the_largest_moment() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        check(json!({"containers": [container("100m"), container("1")]}), 1100);
        check(json!({"containers": [container("100m")], "initContainers": [container("2")]}), 2000);
        check(json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("2")]}), 3000);
        check(json!({"containers": [container("1")], "initContainers": [container("2"), sidecar("1")]}), 2000);
        check(json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250);
    }

    #[test]
    fn tolerations() {
        let check = |toleration: serde_json::Value, expected: bool| {
            let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), time_added: None };
            let toleration: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        };
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "k", "value": "v"}), true);
        check(json!({"key": "k", "value": "w"}), false);
    }
}
