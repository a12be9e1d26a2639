//! Host ports that are taken already.

use super::{Misfit, Prepared};
use crate::snapshot::{NodeState, PodFacts};

pub fn filter(_: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    if pod.ports.is_empty() {
        return None;
    }
    let mut taken = node.pods.values().flat_map(|other| &other.ports);
    if taken.any(|theirs| pod.ports.iter().any(|ours| ours.clashes(theirs))) {
        return Misfit::of("node(s) didn't have free ports for the requested pod ports", true);
    }
    None
}
