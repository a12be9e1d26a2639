//! Taints and tolerations: hard effects filter, `PreferNoSchedule` scores.

use xebec_api::pod;

use super::{Misfit, Prepared};
use crate::snapshot::{NodeState, PodFacts};

pub fn filter(_: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    let taints = node.node.spec.as_ref()?.taints.as_deref()?;
    let tolerations = pod.spec()?.tolerations.as_deref().unwrap_or_default();
    pod::untolerated(taints, tolerations, &["NoSchedule", "NoExecute"])?;
    Misfit::of("node(s) had untolerated taint(s)", false)
}

/// Fewer intolerable soft taints are better.
pub fn score(_: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let bad = soft.filter(|taint| !tolerations.iter().any(|one| pod::tolerates(one, taint))).count();
    100.0 / (1.0 + bad as f64)
}
