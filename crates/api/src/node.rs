//! Pure predicates on Nodes: which Pods' selectors and affinities they meet, and whether they are ready.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready") == Some("True")
}

/// The status of a condition, if the node bears it.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

type Labels = BTreeMap<String, String>;

/// Whether a Pod's `nodeSelector` and its required node affinity allow this node.
pub fn meets_pod(name: &str, labels: &Labels, spec: &PodSpec) -> bool {
    let selector = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selector && required.is_none_or(|terms| terms.node_selector_terms.iter().any(|term| meets_term(name, labels, term)))
}

/// Whether one term allows the node; a term that says nothing allows none.
pub fn meets_term(name: &str, labels: &Labels, term: &NodeSelectorTerm) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(name);
    expressions.iter().all(|one| meets(labels.get(&one.key).map(String::as_str), one))
        && fields.iter().all(|one| meets(field(&one.key), one))
}

fn meets(value: Option<&str>, requirement: &NodeSelectorRequirement) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let limit = || number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.iter().any(|one| one == value)),
        "NotIn" => value.is_none_or(|value| values.iter().all(|one| one != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((number(value), limit()), (Some(a), Some(b)) if a > b),
        "Lt" => matches!((number(value), limit()), (Some(a), Some(b)) if a < b),
        _ => false,
    }
}
