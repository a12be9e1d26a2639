//! Pods of one owner spread over the nodes: what upstream's default constraints of topology spread come to on node level.

use super::Prepared;
use crate::snapshot::{NodeState, PodFacts};

pub fn score(prepared: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    if prepared.most_siblings == 0 {
        return 0.0;
    }
    let most = prepared.most_siblings as f64;
    100.0 * (most - siblings(pod, node) as f64) / most
}

/// How many Pods of the same owner the node runs.
pub fn siblings(pod: &PodFacts, node: &NodeState) -> usize {
    let Some(owner) = &pod.owner else { return 0 };
    node.pods.values().filter(|other| other.owner.as_ref() == Some(owner)).count()
}
