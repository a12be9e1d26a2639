//! Preemption: which Pods of lower priority would have to go so that a Pod fits somewhere. Pure.
//!
//! As upstream: on each node all Pods of lower priority are taken off; if the Pod then fits, as many as possible are put back,
//! the most important first. The node whose most important victim matters least wins, then the one with fewest victims.

use std::sync::Arc;

use crate::decide::{Unfit, counted};
use crate::plugins;
use crate::snapshot::{NodeState, PodFacts, Snapshot};

#[derive(Debug)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodFacts>>,
}

/// The best preemption, or upstream's text on why there is none.
pub fn preempt(snapshot: &Snapshot, pod: &PodFacts, unfit: &Unfit) -> Result<Preemption, String> {
    let never = pod.spec().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never");
    if never {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let mut best: Option<Preemption> = None;
    let mut reasons = Vec::new();
    for (name, misfit) in &unfit.misfits {
        if !misfit.resolvable {
            reasons.push("Preemption is not helpful for scheduling");
            continue;
        }
        let victims = snapshot.node(name).and_then(|node| victims(snapshot, node, pod));
        let Some(victims) = victims else {
            reasons.push("No preemption victims found for incoming pod");
            continue;
        };
        let candidate = Preemption { node: name.clone(), victims };
        if best.as_ref().is_none_or(|standing| cost(&candidate) < cost(standing)) {
            best = Some(candidate);
        }
    }
    best.ok_or_else(|| format!("preemption: {}", counted(unfit.nodes, reasons.into_iter())))
}

fn cost(preemption: &Preemption) -> (i32, i64, usize) {
    let highest = preemption.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    let sum = preemption.victims.iter().map(|victim| i64::from(victim.priority)).sum();
    (highest, sum, preemption.victims.len())
}

fn victims(snapshot: &Snapshot, node: &NodeState, pod: &PodFacts) -> Option<Vec<Arc<PodFacts>>> {
    let mut sketch = node.sketch();
    let mut lower: Vec<Arc<PodFacts>> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for other in &lower {
        sketch.take(&other.uid);
    }
    let fits = |sketch: &NodeState| {
        let others = snapshot.nodes.iter().filter(|other| other.name != node.name).map(NodeState::sketch);
        let nodes: Vec<NodeState> = others.chain([sketch.sketch()]).collect();
        plugins::filter(&plugins::prepare(pod, &nodes), pod, sketch).is_none()
    };
    if !fits(&sketch) {
        return None;
    }
    lower.sort_by_key(|other| std::cmp::Reverse(other.priority));
    let mut victims = Vec::new();
    for other in lower {
        sketch.put(other.clone());
        if !fits(&sketch) {
            sketch.take(&other.uid);
            victims.push(other);
        }
    }
    Some(victims)
}
