//! Node selectors, node affinity and Pod affinity.

use k8s_openapi::api::core::v1::{Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{dns, labels, report};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn affinity(errors: &mut FieldErrors, path: &Path, affinity: Option<&Affinity>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(errors, &path.child(REQUIRED), selector);
        }
        let terms = node.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default();
        for (index, term) in terms.iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(errors, &path, term.weight);
            // Values of preferences are let through as they are; such a preference matches nothing.
            node_selector_term(errors, &path.child("preference"), &term.preference, false);
        }
    }
    let pods = affinity.pod_affinity.as_ref().map(|one| {
        let (required, preferred) = (
            &one.required_during_scheduling_ignored_during_execution,
            &one.preferred_during_scheduling_ignored_during_execution,
        );
        ("podAffinity", required, preferred)
    });
    let others = affinity.pod_anti_affinity.as_ref().map(|one| {
        let (required, preferred) = (
            &one.required_during_scheduling_ignored_during_execution,
            &one.preferred_during_scheduling_ignored_during_execution,
        );
        ("podAntiAffinity", required, preferred)
    });
    for (name, required, preferred) in pods.into_iter().chain(others) {
        let path = path.child(name);
        for (index, term) in required.iter().flatten().enumerate() {
            pod_term(errors, &path.child(REQUIRED).index(index), term);
        }
        for (index, term) in preferred.iter().flatten().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(errors, &path, term.weight);
            pod_term(errors, &path.child("podAffinityTerm"), &term.pod_affinity_term);
        }
    }
}

fn weight(errors: &mut FieldErrors, path: &Path, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

pub fn node_selector(errors: &mut FieldErrors, path: &Path, selector: &NodeSelector) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(errors, &path.index(index), term, true);
    }
}

fn node_selector_term(errors: &mut FieldErrors, path: &Path, term: &NodeSelectorTerm, check_values: bool) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        node_requirement(errors, &path, requirement);
        let values = requirement.values.iter().flatten().enumerate().filter(|_| check_values);
        for (index, value) in values {
            report(errors, &path.child("values").index(index), value, dns::label_value(value));
        }
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        field_requirement(errors, &path.child("matchFields").index(index), requirement);
    }
}

fn node_requirement(errors: &mut FieldErrors, path: &Path, requirement: &NodeSelectorRequirement) {
    let count = requirement.values.as_ref().map_or(0, Vec::len);
    let values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if count == 0 => {
            errors.push(FieldError::required(&values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let about = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&values, about));
        }
        "Gt" | "Lt" if count != 1 => {
            let about = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&values, about));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    labels::label_name(errors, &path.child("key"), &requirement.key);
}

fn field_requirement(errors: &mut FieldErrors, path: &Path, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let about = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(&path.child("values"), about));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    if requirement.key != "metadata.name" {
        let about = "not a valid field selector key";
        return errors.push(FieldError::invalid(&path.child("key"), requirement.key.as_str(), about));
    }
    for (index, value) in values.iter().enumerate() {
        report(errors, &path.child("values").index(index), value, dns::subdomain(value));
    }
}

fn pod_term(errors: &mut FieldErrors, path: &Path, term: &PodAffinityTerm) {
    labels::selector(errors, &path.child("labelSelector"), term.label_selector.as_ref());
    labels::selector(errors, &path.child("namespaceSelector"), term.namespace_selector.as_ref());
    for name in term.namespaces.iter().flatten() {
        report(errors, &path.child("namespace"), name, dns::label(name));
    }
    let matched = term.match_label_keys.as_deref().unwrap_or_default();
    let mismatched = term.mismatch_label_keys.as_deref().unwrap_or_default();
    match_label_keys(errors, path, [matched, mismatched], term.label_selector.as_ref());
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    labels::label_name(errors, &path.child("topologyKey"), &term.topology_key);
}

/// Keys whose values come from the Pod itself: only beside a selector, each in one list, and not in the selector too.
pub fn match_label_keys(
    errors: &mut FieldErrors,
    path: &Path,
    [matched, mismatched]: [&[String]; 2],
    selector: Option<&LabelSelector>,
) {
    for (name, keys) in [("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)] {
        let path = path.child(name);
        if !keys.is_empty() && selector.is_none() {
            errors.push(FieldError::forbidden(&path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            labels::label_name(errors, &path.index(index), key);
        }
    }
    // A key that the selector names once was merged into it on creation; named twice, the user named it.
    let mut named: Vec<&str> =
        selector.iter().flat_map(|one| one.match_labels.iter().flatten()).map(|(key, _)| key.as_str()).collect();
    for expression in selector.iter().flat_map(|one| one.match_expressions.iter().flatten()) {
        let at = matched.iter().rposition(|key| *key == expression.key);
        if let Some(at) = at.filter(|_| named.contains(&expression.key.as_str())) {
            let about = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&path.index(at), expression.key.as_str(), about));
        }
        named.push(&expression.key);
    }
    for (index, key) in matched.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let about = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&path.child("matchLabelKeys").index(index), key.as_str(), about));
    }
}
