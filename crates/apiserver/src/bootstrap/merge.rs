//! Default roles and bindings held against the stored ones: what the defaults have and the stored object lacks is added.
//!
//! Behaviour: upstream's reconciliation of its bootstrap policy, without confirmation of removals. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::policy::AUTO_UPDATE;
use crate::authz::rules;

/// The stored role with what it lacks; `None` if it lacks nothing or its owner wants it left alone.
pub fn cluster_role(stored: &ClusterRole, wanted: &ClusterRole) -> Option<ClusterRole> {
    let mut merged = stored.clone();
    if !metadata(&mut merged.metadata, &wanted.metadata) {
        return None;
    }
    let selectors = |role: &ClusterRole| {
        role.aggregation_rule.as_ref().and_then(|rule| rule.cluster_role_selectors.clone()).unwrap_or_default()
    };
    let have = selectors(stored);
    let missing: Vec<_> = selectors(wanted).into_iter().filter(|selector| !have.contains(selector)).collect();
    if !missing.is_empty() {
        merged.aggregation_rule.get_or_insert_default().cluster_role_selectors.get_or_insert_default().extend(missing);
    }
    // The rules of an aggregated role follow from others.
    if selectors(wanted).is_empty() {
        add_rules(&mut merged.rules, &wanted.rules);
    }
    (merged != *stored).then_some(merged)
}

pub fn role(stored: &Role, wanted: &Role) -> Option<Role> {
    let mut merged = stored.clone();
    if !metadata(&mut merged.metadata, &wanted.metadata) {
        return None;
    }
    add_rules(&mut merged.rules, &wanted.rules);
    (merged != *stored).then_some(merged)
}

pub fn cluster_role_binding(stored: &ClusterRoleBinding, wanted: &ClusterRoleBinding) -> Option<ClusterRoleBinding> {
    let mut merged = stored.clone();
    if !metadata(&mut merged.metadata, &wanted.metadata) {
        return None;
    }
    add_subjects(&mut merged.subjects, &wanted.subjects);
    (merged != *stored).then_some(merged)
}

pub fn role_binding(stored: &RoleBinding, wanted: &RoleBinding) -> Option<RoleBinding> {
    let mut merged = stored.clone();
    if !metadata(&mut merged.metadata, &wanted.metadata) {
        return None;
    }
    add_subjects(&mut merged.subjects, &wanted.subjects);
    (merged != *stored).then_some(merged)
}

/// Adds labels and annotations; `false` if the object is to be left alone. A binding that has been pointed at another role
/// keeps it: the reference cannot be changed, and upstream's way of deleting the binding takes rights away meanwhile.
fn metadata(stored: &mut ObjectMeta, wanted: &ObjectMeta) -> bool {
    let auto = stored.annotations.as_ref().and_then(|all| all.get(AUTO_UPDATE));
    if auto.is_some_and(|value| value != "true") {
        return false;
    }
    let add = |stored: &mut Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<String, String>>| {
        for (key, value) in wanted.iter().flatten() {
            stored.get_or_insert_default().insert(key.clone(), value.clone());
        }
    };
    add(&mut stored.labels, &wanted.labels);
    add(&mut stored.annotations, &wanted.annotations);
    true
}

fn add_rules(stored: &mut Option<Vec<PolicyRule>>, wanted: &Option<Vec<PolicyRule>>) {
    let wanted = wanted.as_deref().unwrap_or_default();
    let held: Vec<&PolicyRule> = stored.iter().flatten().collect();
    // Almost always nothing is missing, and equal rules say so without taking them apart.
    let unlike: Vec<PolicyRule> = wanted.iter().filter(|rule| !held.contains(rule)).cloned().collect();
    let missing = rules::missing(&held, &unlike);
    if !missing.is_empty() {
        stored.get_or_insert_default().extend(missing);
    }
}

fn add_subjects(stored: &mut Option<Vec<Subject>>, wanted: &Option<Vec<Subject>>) {
    let same = |a: &Subject, b: &Subject| {
        a.kind == b.kind
            && a.name == b.name
            && a.namespace.as_deref().unwrap_or("") == b.namespace.as_deref().unwrap_or("")
    };
    for subject in wanted.iter().flatten() {
        if !stored.iter().flatten().any(|one| same(one, subject)) {
            stored.get_or_insert_default().push(subject.clone());
        }
    }
}
