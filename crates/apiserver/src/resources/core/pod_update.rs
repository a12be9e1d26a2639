//! What may change in a Pod once it exists: images, deadlines, more tolerations, fewer gates; ephemeral containers and
//! resources through subresources of their own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, Toleration};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod::metadata_and_spec;
use crate::resources::validation::security::APPARMOR_CONTAINER;
use crate::resources::validation::{numbers, required, scheduling, semantically_equal, shown, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DEADLINE: (i64, i64) = (0, i32::MAX as i64);
const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn validate(new: &Pod, old: &Pod) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("spec");
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return vec![FieldError::required(&path.child("containers"), "")];
    };
    metadata_and_spec(&mut errors, new, spec);
    annotations(&mut errors, new, old);
    let (init, old_init) = (spec.init_containers.as_deref(), old_spec.init_containers.as_deref());
    let same_containers = images(&mut errors, &path.child("containers"), &spec.containers, &old_spec.containers)
        && images(&mut errors, &path.child("initContainers"), init.unwrap_or_default(), old_init.unwrap_or_default());
    if !same_containers {
        return errors;
    }
    deadline(&mut errors, &path.child("activeDeadlineSeconds"), spec, old_spec);
    let (now, before) =
        (spec.tolerations.as_deref().unwrap_or_default(), old_spec.tolerations.as_deref().unwrap_or_default());
    tolerations(&mut errors, &path.child("tolerations"), now, before);
    gates(&mut errors, &path.child("schedulingGates"), spec, old_spec);
    if !semantically_equal(spec, old_spec) {
        let allowed = without_allowed_changes(&mut errors, &path, spec, old_spec);
        if !semantically_equal(&allowed, old_spec) {
            let about = format!("{MAY_CHANGE}\n{}", difference(&shown(old_spec), &shown(&allowed)));
            errors.push(FieldError::forbidden(&path, about));
        }
    }
    errors
}

/// Ephemeral containers, through their own subresource: none may go, none may change.
pub fn validate_ephemeral_containers(new: &Pod, old: &Pod) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("spec.ephemeralContainers");
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    if annotation(old, MIRROR).is_some() {
        return vec![FieldError::forbidden(&Path::root(), "static pods do not support ephemeral containers")];
    }
    metadata_and_spec(&mut errors, new, spec);
    annotations(&mut errors, new, old);
    for before in old_spec.ephemeral_containers.iter().flatten() {
        let name = &before.name;
        match spec.ephemeral_containers.iter().flatten().find(|one| one.name == *name) {
            None => {
                let about = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(&path, about));
            }
            Some(now) if !semantically_equal(now, before) => {
                let diff = difference(&shown(before), &shown(now));
                let about = format!("existing ephemeral containers {name:?} may not be changed\n{diff}");
                errors.push(FieldError::forbidden(&path, about));
            }
            Some(_) => {}
        }
    }
    errors
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Annotations that the kubelet took for good.
fn annotations(errors: &mut FieldErrors, new: &Pod, old: &Pod) {
    let path = Path::new("metadata.annotations");
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APPARMOR_CONTAINER) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in old.metadata.annotations.iter().flatten() {
        if let Some(what) = fixed(key).filter(|_| annotation(new, key) != Some(value.as_str())) {
            errors.push(FieldError::forbidden(&path.key(key), format!("may not remove or update {what}")));
        }
    }
    for key in new.metadata.annotations.iter().flatten().map(|(key, _)| key) {
        if let Some(what) = fixed(key).filter(|_| annotation(old, key).is_none()) {
            errors.push(FieldError::forbidden(&path.key(key), format!("may not add {what}")));
        }
    }
}

fn images(errors: &mut FieldErrors, path: &Path, new: &[Container], old: &[Container]) -> bool {
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        let (path, image) = (path.index(index).child("image"), text(&container.image));
        required(errors, &path, image);
        if image.trim() != image {
            errors.push(FieldError::invalid(&path, image, "must not have leading or trailing whitespace"));
        }
    }
    true
}

fn deadline(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, old: &PodSpec) {
    match (spec.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(now), before) => {
            numbers::in_range(errors, path, now, DEADLINE);
            if before.is_some_and(|before| before < now) {
                errors.push(FieldError::invalid(path, now, "must be less than or equal to previous value"));
            }
        }
        (None, Some(_)) => {
            let about = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, about));
        }
        (None, None) => {}
    }
}

fn tolerations(errors: &mut FieldErrors, path: &Path, new: &[Toleration], old: &[Toleration]) {
    let about = "existing toleration can not be modified except its tolerationSeconds";
    for before in old {
        let same = |now: &Toleration| {
            let timeless = |one: &Toleration| Toleration { toleration_seconds: None, ..one.clone() };
            semantically_equal(&timeless(now), &timeless(before))
        };
        if !new.iter().any(same) {
            errors.push(FieldError::forbidden(path, about));
        }
    }
    scheduling::tolerations(errors, path, Some(new));
}

fn gates(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, old: &PodSpec) {
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        if !old.scheduling_gates.iter().flatten().any(|before| before.name == gate.name) {
            let about = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(FieldError::forbidden(&path.index(index).child("name"), about));
        }
    }
}

/// The new specification with everything that may change put back, so that what remains different may not be.
fn without_allowed_changes(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = spec.clone();
    let pairs = spec.containers.iter_mut().zip(&old.containers);
    let init = spec.init_containers.iter_mut().flatten().zip(old.init_containers.iter().flatten());
    for (container, before) in pairs.chain(init) {
        container.image = before.image.clone();
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.scheduling_gates = old.scheduling_gates.clone();
    spec.tolerations = old.tolerations.clone();
    let was_negative = old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if was_negative && spec.termination_grace_period_seconds == Some(1) {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        gated_changes(errors, path, &mut spec, old);
    }
    spec
}

/// A Pod that waits at a gate may still be told more narrowly where to go.
fn gated_changes(errors: &mut FieldErrors, path: &Path, spec: &mut PodSpec, old: &PodSpec) {
    if !semantically_equal(&spec.node_selector, &old.node_selector) {
        let empty = BTreeMap::new();
        let now = spec.node_selector.as_ref().unwrap_or(&empty);
        for _ in old.node_selector.iter().flatten().filter(|(key, value)| now.get(*key) != Some(value)) {
            let about = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&path.child("nodeSelector"), shown(now), about));
        }
        spec.node_selector = old.node_selector.clone();
    }
    let before = old.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let now = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    if semantically_equal(&now, &before) {
        return;
    }
    narrowed(errors, &path.child("affinity.nodeAffinity"), now.as_ref(), before.as_ref());
    match (&mut spec.affinity, before) {
        (None, None) => {}
        (affinity @ None, before) => affinity.get_or_insert_default().node_affinity = before,
        (Some(affinity), before) => affinity.node_affinity = before,
    }
    if old.affinity.is_none() && spec.affinity == Some(Default::default()) {
        spec.affinity = None;
    }
}

fn narrowed(errors: &mut FieldErrors, path: &Path, new: Option<&NodeAffinity>, old: Option<&NodeAffinity>) {
    let terms = |affinity: Option<&NodeAffinity>| -> Vec<NodeSelectorTerm> {
        let required = affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
        required.map(|selector| selector.node_selector_terms.clone()).unwrap_or_default()
    };
    let (now, before) = (terms(new), terms(old));
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if before.is_empty() {
        return;
    }
    if before.len() != now.len() {
        let about = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let value = if now.is_empty() { Value::Null } else { shown(&now) };
        return errors.push(FieldError::invalid(&path, value, about));
    }
    for (index, (now, before)) in now.iter().zip(&before).enumerate() {
        if !only_adds(now, before) {
            let about = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(&path.index(index), shown(now), about));
        }
    }
}

fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let lists = [(&new.match_expressions, &old.match_expressions), (&new.match_fields, &old.match_fields)];
    let is_empty = |term: &NodeSelectorTerm| {
        term.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && term.match_fields.as_ref().is_none_or(Vec::is_empty)
    };
    // An empty term matches nothing; adding to it would widen.
    if is_empty(old) {
        return is_empty(new);
    }
    lists.iter().all(|(new, old)| {
        let (new, old) = (new.as_deref().unwrap_or_default(), old.as_deref().unwrap_or_default());
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| semantically_equal(new, old))
    })
}

/// The fields that differ, one a line, old value first.
fn difference(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    collect(&mut lines, &Path::root(), old, new);
    lines.join("\n")
}

fn collect(lines: &mut Vec<String>, path: &Path, old: &Value, new: &Value) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                collect(lines, &path.child(key), a, b);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                collect(lines, &path.index(index), a, b);
            }
        }
        _ if old == new => {}
        _ => lines.push(format!("- {path}: {old}\n+ {path}: {new}")),
    }
}
