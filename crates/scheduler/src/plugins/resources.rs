//! Whether a node has what a Pod requests, and how full and how even it would be.

use std::borrow::Cow;

use super::{Misfit, Prepared};
use crate::snapshot::{NodeState, PodFacts};

pub fn filter(_: &Prepared, pod: &PodFacts, node: &NodeState) -> Option<Misfit> {
    let mut misfit = Misfit { reasons: Vec::new(), resolvable: true };
    if node.pods.len() as i64 + 1 > node.allowed_pods {
        misfit.reasons.push(Cow::Borrowed("Too many pods"));
    }
    let mut compare = |name: &'static str, wanted: i64, taken: i64, there: i64| {
        if wanted > 0 && wanted > there - taken {
            misfit.reasons.push(Cow::Borrowed(name));
            misfit.resolvable &= wanted <= there;
        }
    };
    let (wanted, taken, there) = (&pod.requests, &node.requested, &node.allocatable);
    compare("Insufficient cpu", wanted.milli_cpu, taken.milli_cpu, there.milli_cpu);
    compare("Insufficient memory", wanted.memory, taken.memory, there.memory);
    compare("Insufficient ephemeral-storage", wanted.ephemeral, taken.ephemeral, there.ephemeral);
    for (name, wanted) in &wanted.extended {
        let amount = |of: &std::collections::BTreeMap<String, i64>| of.get(name).copied().unwrap_or(0);
        if *wanted > 0 && *wanted > amount(&there.extended) - amount(&taken.extended) {
            misfit.reasons.push(Cow::Owned(format!("Insufficient {name}")));
            misfit.resolvable &= *wanted <= amount(&there.extended);
        }
    }
    (!misfit.reasons.is_empty()).then_some(misfit)
}

/// The share of a resource that would be taken with this Pod, capped at all of it.
fn fraction(taken: i64, wanted: i64, there: i64) -> f64 {
    if there <= 0 { 1.0 } else { ((taken + wanted) as f64 / there as f64).min(1.0) }
}

fn fractions(pod: &PodFacts, node: &NodeState) -> (f64, f64) {
    let cpu = fraction(node.weighed.milli_cpu, pod.weighed.milli_cpu, node.allocatable.milli_cpu);
    let memory = fraction(node.weighed.memory, pod.weighed.memory, node.allocatable.memory);
    (cpu, memory)
}

/// The emptier the better.
pub fn least_allocated(_: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    let (cpu, memory) = fractions(pod, node);
    100.0 * ((1.0 - cpu) + (1.0 - memory)) / 2.0
}

/// The more evenly processor and memory are used the better.
pub fn balanced(_: &Prepared, pod: &PodFacts, node: &NodeState) -> f64 {
    let (cpu, memory) = fractions(pod, node);
    100.0 * (1.0 - (cpu - memory).abs() / 2.0)
}
