//! Filters on the node itself: its name, whether it takes Pods at all, and the Pod's node selector and affinity.

use k8s_openapi::api::core::v1::Taint;
use xebec_api::{node, pod};

use super::{Misfit, Prepared};
use crate::snapshot::{NodeState, PodFacts};

pub fn name(_: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    let wanted = pod::node_name(&pod.pod)?;
    if wanted == &*node.name { None } else { Misfit::of("node(s) didn't match the requested node name", false) }
}

pub fn unschedulable(_: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    if !node.node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        return None;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let mut tolerations = pod.spec()?.tolerations.iter().flatten();
    if tolerations.any(|toleration| pod::tolerates(toleration, &taint)) {
        return None;
    }
    Misfit::of("node(s) were unschedulable", false)
}

pub fn affinity(_: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    let empty = Default::default();
    let labels = node.node.metadata.labels.as_ref().unwrap_or(&empty);
    if node::meets_pod(&node.name, labels, pod.spec()?) {
        return None;
    }
    Misfit::of("node(s) didn't match Pod's node affinity/selector", false)
}

/// The share of the preferred terms' weights that the node meets.
pub fn affinity_score(_: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    let affinity = pod.spec().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let Some(terms) = preferred.filter(|terms| !terms.is_empty()) else { return 0.0 };
    let empty = Default::default();
    let labels = node.node.metadata.labels.as_ref().unwrap_or(&empty);
    let all: i32 = terms.iter().map(|term| term.weight).sum();
    let met = terms.iter().filter(|term| node::meets_term(&node.name, labels, &term.preference));
    100.0 * f64::from(met.map(|term| term.weight).sum::<i32>()) / f64::from(all.max(1))
}
