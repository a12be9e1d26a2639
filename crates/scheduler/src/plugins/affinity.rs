//! Required affinity and anti-affinity between Pods, and hard topology spread constraints.
//!
//! The terms are counted by topology domain once for a Pod ([`prepare`]); each node is then a look-up. Namespace selectors
//! other than "all namespaces" are not evaluated here: such a term selects the Pod's own namespace and those it lists.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use xebec_api::LabelSelector;

use super::{Misfit, Prepared};
use crate::snapshot::{NodeState, PodFacts};

/// Matching Pods by topology domain, for every term that matters to the Pod being placed.
#[derive(Debug, Default)]
pub struct Peers {
    affinity: Vec<Counted>,
    anti_affinity: Vec<Counted>,
    /// Domains (key, value) that existing Pods' anti-affinity keeps this Pod out of.
    excluded: Vec<(String, String)>,
    spread: Vec<SpreadCounts>,
}

#[derive(Debug)]
struct Counted {
    key: String,
    domains: HashMap<String, usize>,
    /// The Pod matches its own term: the first of a group may go anywhere.
    matches_itself: bool,
}

#[derive(Debug)]
struct SpreadCounts {
    key: String,
    max_skew: usize,
    own: usize,
    domains: HashMap<String, usize>,
}

fn domain<'a>(node: &'a NodeState, key: &str) -> Option<&'a str> {
    node.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether a term that belongs to `holder` selects `other`.
fn selects(term: &PodAffinityTerm, holder: &PodFacts, other: &PodFacts) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let everywhere = term.namespace_selector.as_ref().is_some_and(|selector| {
        selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
            && selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty())
    });
    let own = listed.is_empty() && other.key.namespace == holder.key.namespace;
    let in_scope = everywhere || own || listed.iter().any(|name| **name == *other.key.namespace);
    let selector =
        LabelSelector::from_object(term.label_selector.as_ref()).unwrap_or_else(|_| LabelSelector::nothing());
    in_scope && selector.matches_map(other.pod.metadata.labels.as_ref())
}

fn required(pod: &PodFacts, anti: bool) -> &[PodAffinityTerm] {
    let affinity = pod.spec().and_then(|spec| spec.affinity.as_ref());
    let terms = match anti {
        false => affinity
            .and_then(|a| a.pod_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()),
        true => affinity
            .and_then(|a| a.pod_anti_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()),
    };
    terms.unwrap_or_default()
}

pub fn prepare(pod: &PodFacts, nodes: &[NodeState]) -> Peers {
    let count = |term: &PodAffinityTerm| {
        let mut domains = HashMap::new();
        for node in nodes {
            let Some(value) = domain(node, &term.topology_key) else { continue };
            let matching = node.pods.values().filter(|other| selects(term, pod, other)).count();
            *domains.entry(value.to_owned()).or_default() += matching;
        }
        Counted { key: term.topology_key.clone(), domains, matches_itself: selects(term, pod, pod) }
    };
    Peers {
        affinity: required(pod, false).iter().map(count).collect(),
        anti_affinity: required(pod, true).iter().map(count).collect(),
        excluded: excluded(pod, nodes),
        spread: hard_constraints(pod).map(|constraint| spread_counts(pod, constraint, nodes)).collect(),
    }
}

fn excluded(pod: &PodFacts, nodes: &[NodeState]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for node in nodes {
        for other in node.pods.values() {
            for term in required(other, true).iter().filter(|term| selects(term, other, pod)) {
                if let Some(value) = domain(node, &term.topology_key) {
                    found.push((term.topology_key.clone(), value.to_owned()));
                }
            }
        }
    }
    found
}

pub fn filter(prepared: &Prepared, _: &PodFacts, node: &NodeState) -> Option<Misfit> {
    let peers = &prepared.peers;
    let there =
        |counted: &Counted| domain(node, &counted.key).map(|value| counted.domains.get(value).copied().unwrap_or(0));
    let lone = peers.affinity.iter().all(|c| c.matches_itself && c.domains.values().all(|count| *count == 0));
    let near = |counted: &Counted| there(counted).is_some_and(|count| count > 0 || lone);
    if !peers.affinity.iter().all(near) {
        return Misfit::of("node(s) didn't match pod affinity rules", false);
    }
    if peers.anti_affinity.iter().any(|counted| there(counted).is_some_and(|count| count > 0)) {
        return Misfit::of("node(s) didn't match pod anti-affinity rules", true);
    }
    if peers.excluded.iter().any(|(key, value)| domain(node, key) == Some(value)) {
        return Misfit::of("node(s) didn't satisfy existing pods anti-affinity rules", true);
    }
    None
}

fn hard_constraints(pod: &PodFacts) -> impl Iterator<Item = &TopologySpreadConstraint> {
    let constraints = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
    constraints.iter().filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
}

fn spread_counts(pod: &PodFacts, constraint: &TopologySpreadConstraint, nodes: &[NodeState]) -> SpreadCounts {
    let selector =
        LabelSelector::from_object(constraint.label_selector.as_ref()).unwrap_or_else(|_| LabelSelector::nothing());
    let matches = |other: &PodFacts| {
        other.key.namespace == pod.key.namespace && selector.matches_map(other.pod.metadata.labels.as_ref())
    };
    let mut domains = HashMap::new();
    for node in nodes {
        // As upstream's default policy, nodes that the Pod's node affinity excludes do not count.
        if super::node::affinity(&Prepared::default(), pod, node).is_some() {
            continue;
        }
        if let Some(value) = domain(node, &constraint.topology_key) {
            *domains.entry(value.to_owned()).or_default() += node.pods.values().filter(|other| matches(other)).count();
        }
    }
    let max_skew = usize::try_from(constraint.max_skew).unwrap_or(1);
    let own = usize::from(selector.matches_map(pod.pod.metadata.labels.as_ref()));
    SpreadCounts { key: constraint.topology_key.clone(), max_skew, own, domains }
}

pub fn spread(prepared: &Prepared, _: &PodFacts, node: &NodeState) -> Option<Misfit> {
    for counts in &prepared.peers.spread {
        let Some(value) = domain(node, &counts.key) else {
            return Misfit::of("node(s) didn't match pod topology spread constraints (missing required label)", false);
        };
        let fewest = counts.domains.values().min().copied().unwrap_or(0);
        let here = counts.domains.get(value).copied().unwrap_or(0);
        if here + counts.own > fewest + counts.max_skew {
            return Misfit::of("node(s) didn't match pod topology spread constraints", true);
        }
    }
    None
}
