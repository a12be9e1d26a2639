//! What else steers where a Pod goes: tolerations and taints, topology spread, gates and readiness gates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodReadinessGate, PodSchedulingGate, Taint, Toleration, TopologySpreadConstraint};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{affinity, dns, labels, numbers, one_of, report, text};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn tolerations(errors: &mut FieldErrors, path: &Path, tolerations: Option<&[Toleration]>) {
    for (index, toleration) in tolerations.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            labels::label_name(errors, &path.child("key"), key);
        } else if operator != "Exists" {
            let about = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, about));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let about = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), effect, about));
        }
        let at = path.child("operator");
        match operator {
            "" | "Equal" => {
                let messages = dns::label_value(value);
                if !messages.is_empty() {
                    errors.push(FieldError::invalid(&at, value, messages.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.push(FieldError::invalid(&at, value, "value must be empty when `operator` is 'Exists'"));
                }
            }
            // Numeric comparison is behind a gate that is off; only then are its operators named.
            "Lt" | "Gt" => errors.push(super::unsupported(&at, operator, &["Equal", "Exists", "Lt", "Gt"])),
            other => errors.push(FieldError::not_supported(&at, other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            one_of(errors, &path.child("effect"), effect, &EFFECTS);
        }
    }
}

pub fn taints(errors: &mut FieldErrors, path: &Path, taints: Option<&[Taint]>) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        labels::label_name(errors, &path.child("key"), &taint.key);
        let messages = dns::label_value(text(&taint.value));
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&path.child("value"), text(&taint.value), messages.join(";")));
        }
        super::required_one_of(errors, &path.child("effect"), &taint.effect, &EFFECTS);
        if !seen.insert((taint.effect.as_str(), taint.key.as_str())) {
            let mut error = FieldError::duplicate(&path, super::shown_in_go("Taint", taint));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

pub fn topology_spread(errors: &mut FieldErrors, path: &Path, constraints: Option<&[TopologySpreadConstraint]>) {
    let constraints = constraints.unwrap_or_default();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let (key, action) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
        numbers::positive(errors, &path.child("maxSkew"), constraint.max_skew);
        if key.is_empty() {
            errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
        }
        one_of(errors, &path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same = |other: &TopologySpreadConstraint| other.topology_key == key && other.when_unsatisfiable == action;
        if constraints[index + 1..].iter().any(same) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            numbers::positive(errors, &path, domains);
            if action != "DoNotSchedule" {
                let about = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(&path, domains, about));
            }
        }
        let policies = [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ];
        for (name, policy) in policies {
            if let Some(policy) = policy {
                one_of(errors, &path.child(name), policy, &["Honor", "Ignore"]);
            }
        }
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        affinity::match_label_keys(errors, &path, [keys, &[]], constraint.label_selector.as_ref());
        labels::selector(errors, &path.child("labelSelector"), constraint.label_selector.as_ref());
    }
}

pub fn scheduling_gates(errors: &mut FieldErrors, path: &Path, gates: Option<&[PodSchedulingGate]>) {
    let mut seen = BTreeSet::new();
    for (index, gate) in gates.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        report(errors, &path, &gate.name, dns::label_key(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            errors.push(FieldError::duplicate(&path, gate.name.as_str()));
        }
    }
}

pub fn readiness_gates(errors: &mut FieldErrors, path: &Path, gates: Option<&[PodReadinessGate]>) {
    for (index, gate) in gates.unwrap_or_default().iter().enumerate() {
        let name = gate.condition_type.as_str();
        report(errors, &path.index(index).child("conditionType"), name, dns::label_key(name));
    }
}
