//! The filters and scores, each a pure function over one Pod and one node, in two ordered tables.
//!
//! Order and weights are upstream's default profile. A filter's reason is what `FailedScheduling` counts.

use std::borrow::Cow;

use crate::snapshot::{NodeState, PodFacts};

mod affinity;
mod image_locality;
mod node;
mod ports;
mod resources;
mod spread;
mod taints;

pub use affinity::Peers;

/// Why a node does not take a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether fewer Pods on the node could change it.
    pub resolvable: bool,
}

impl Misfit {
    fn of(reason: &'static str, resolvable: bool) -> Option<Self> {
        Some(Misfit { reasons: vec![Cow::Borrowed(reason)], resolvable })
    }
}

/// Cluster-wide facts that some plugins need, computed once for a Pod before the nodes are gone through.
#[derive(Debug, Default)]
pub struct Prepared {
    pub peers: Peers,
    /// For each node (by its place), how many Pods of the same owner it runs, and the most that any runs.
    pub most_siblings: usize,
}

pub struct Filter {
    pub name: &'static str,
    pub check: fn(&Prepared, &PodFacts, &NodeState) -> Option<Misfit>,
}

pub struct Score {
    pub name: &'static str,
    pub weight: f64,
    /// 0 to 100.
    pub score: fn(&Prepared, &PodFacts, &NodeState) -> f64,
}

/// The first that objects decides.
pub const FILTERS: &[Filter] = &[
    Filter { name: "NodeUnschedulable", check: node::unschedulable },
    Filter { name: "NodeName", check: node::name },
    Filter { name: "TaintToleration", check: taints::filter },
    Filter { name: "NodeAffinity", check: node::affinity },
    Filter { name: "NodePorts", check: ports::filter },
    Filter { name: "NodeResourcesFit", check: resources::filter },
    Filter { name: "PodTopologySpread", check: affinity::spread },
    Filter { name: "InterPodAffinity", check: affinity::filter },
];

pub const SCORES: &[Score] = &[
    Score { name: "TaintToleration", weight: 3.0, score: taints::score },
    Score { name: "NodeAffinity", weight: 2.0, score: node::affinity_score },
    Score { name: "PodTopologySpread", weight: 2.0, score: spread::score },
    Score { name: "NodeResourcesFit", weight: 1.0, score: resources::least_allocated },
    Score { name: "NodeResourcesBalancedAllocation", weight: 1.0, score: resources::balanced },
    Score { name: "ImageLocality", weight: 1.0, score: image_locality::score },
];

/// What the first objecting filter says of this node.
pub fn filter(prepared: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    FILTERS.iter().find_map(|filter| (filter.check)(prepared, pod, node))
}

pub fn total_score(prepared: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    SCORES.iter().map(|plugin| plugin.weight * (plugin.score)(prepared, pod, node)).sum()
}

/// Computes what the plugins need to know of the whole cluster.
pub fn prepare(pod: &PodFacts, nodes: &[NodeState]) -> Prepared {
    let siblings = |node: &NodeState| spread::siblings(pod, node);
    let most_siblings = if pod.owner.is_some() { nodes.iter().map(siblings).max().unwrap_or(0) } else { 0 };
    Prepared { peers: affinity::prepare(pod, nodes), most_siblings }
}
