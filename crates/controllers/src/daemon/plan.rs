//! The decisions about one DaemonSet: where its Pods belong, which go, and which of an old template are replaced. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::{LabelSelector, node, pod};
use xebec_runtime::Plan;

use crate::history::{self, HASH, History};
use crate::replicas::{controller_reference, pod_of_template, until_available};

const GENERATION: &str = "pod-template-generation";
const SET_GENERATION: &str = "deprecated.daemonset.template.generation";
/// At most this many Pods are made or deleted in one round, as upstream.
const BURST: usize = 250;
/// Daemons are for nodes in trouble too.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub struct Observed {
    pub set: Arc<DaemonSet>,
    /// Those that the set owns.
    pub pods: Vec<Arc<Pod>>,
    /// Those that nobody owns and the set selects.
    pub orphans: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Node>>,
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Everything written before has come back.
    pub settled: bool,
    /// Until when failed Pods stay, by node.
    pub held: BTreeMap<String, Timestamp>,
    pub selector: LabelSelector,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<Pod>),
    Disown(Arc<Pod>),
    Remember(Box<ControllerRevision>),
    Renumber(Box<ControllerRevision>),
    Forget(String),
    Create(Vec<Pod>),
    Delete(Vec<Arc<Pod>>),
    /// A Pod that ended is deleted so that another takes its place: on which node, and whether it failed.
    Replace(Arc<Pod>, String, bool),
    Write(Box<DaemonSetStatus>),
}

/// What a node does to a set's Pods.
#[derive(Clone, Copy, PartialEq)]
enum Fit {
    Runs,
    /// No new Pod, but one that is there stays.
    Stays,
    Goes,
}

struct Facts<'a> {
    observed: &'a Observed,
    hash: String,
    /// The set's Pods by the node they are meant for, the oldest first.
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    fits: BTreeMap<String, Fit>,
    now: Timestamp,
}

pub fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let set = &observed.set;
    if set.metadata.deletion_timestamp.is_some() || observed.selector.is_everything() {
        return Plan::nothing();
    }
    let orphans = observed.orphans.iter().filter(|pod| !pod::is_deleting(pod) && !pod::is_terminal(pod));
    let adopted: Vec<Action> = orphans.cloned().map(Action::Adopt).collect();
    if !adopted.is_empty() {
        return Plan::of(adopted);
    }
    let matches = |pod: &&Arc<Pod>| observed.selector.matches_map(pod.metadata.labels.as_ref());
    let mut actions: Vec<Action> =
        observed.pods.iter().filter(|pod| !matches(pod)).cloned().map(Action::Disown).collect();
    let history = History::of(&observed.revisions, &set.spec.template);
    let number = history.number();
    let Some(current) = &history.current else {
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let revision = history::revision(&**set, &set.spec.template, collisions, number);
        actions.push(Action::Remember(Box::new(revision)));
        return Plan::of(actions);
    };
    if current.revision.unwrap_or(0) < number {
        let renumbered = ControllerRevision { revision: Some(number), ..(**current).clone() };
        actions.push(Action::Renumber(Box::new(renumbered)));
    }
    let facts = Facts::new(observed, history::hash(current).to_owned(), now);
    let mut again = None;
    if observed.settled {
        let before = actions.len();
        again = facts.manage(&mut actions);
        if actions.len() == before {
            facts.roll(&mut actions);
        }
    }
    let bears = |pod: &Arc<Pod>| pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH).cloned());
    let live: BTreeSet<String> = observed.pods.iter().filter_map(bears).collect();
    let surplus = history.surplus(set.spec.revision_history_limit, &live.iter().map(String::as_str).collect());
    actions.extend(surplus.iter().filter_map(|one| one.metadata.name.clone()).map(Action::Forget));
    let status = facts.status();
    if status.number_available.unwrap_or(0) < status.number_ready {
        let least = Duration::from_secs(set.spec.min_ready_seconds.unwrap_or(0).max(0) as u64);
        again = Some(again.map_or(least, |standing: Duration| standing.min(least)));
    }
    if normal(status.clone()) != normal(set.status.clone().unwrap_or_default()) {
        actions.push(Action::Write(Box::new(status)));
    }
    Plan { actions, again }
}

/// Absent numbers are zero.
fn normal(mut status: DaemonSetStatus) -> DaemonSetStatus {
    for number in [&mut status.number_available, &mut status.number_unavailable, &mut status.updated_number_scheduled] {
        number.get_or_insert(0);
    }
    status
}

/// The node that a Pod is on, or meant for.
fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(node) = pod::node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

fn tolerations(set: &DaemonSet) -> Vec<Toleration> {
    let spec = set.spec.template.spec.as_ref();
    let mut all = spec.and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let host = spec.is_some_and(|spec| spec.host_network == Some(true));
    let network = host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let one = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

fn fit(set: &DaemonSet, node: &Node, tolerations: &[Toleration]) -> Fit {
    let name = node.metadata.name.as_deref().unwrap_or("");
    let Some(spec) = &set.spec.template.spec else { return Fit::Goes };
    let elsewhere = spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name);
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if elsewhere || !node::meets_pod(name, &labels, spec) {
        return Fit::Goes;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let repelled = |effects: &[&str]| pod::untolerated(taints, tolerations, effects).is_some();
    match (repelled(&["NoExecute"]), repelled(&["NoSchedule"])) {
        (true, _) => Fit::Goes,
        (false, true) => Fit::Stays,
        (false, false) => Fit::Runs,
    }
}

/// A number, or a percentage of the whole, rounded up.
fn share(of: Option<&IntOrString>, whole: usize) -> usize {
    match of {
        None => 0,
        Some(IntOrString::Int(number)) => (*number).max(0) as usize,
        Some(IntOrString::String(text)) => {
            let percent: usize = text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            (whole * percent).div_ceil(100)
        }
    }
}

impl<'a> Facts<'a> {
    fn new(observed: &'a Observed, hash: String, now: Timestamp) -> Self {
        let tolerations = tolerations(&observed.set);
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        let matching = observed.pods.iter().filter(|pod| observed.selector.matches_map(pod.metadata.labels.as_ref()));
        for pod in matching.filter(|pod| !(pod::is_deleting(pod) && pod::is_terminal(pod))) {
            if let Some(node) = node_of(pod) {
                by_node.entry(node.to_owned()).or_default().push(pod.clone());
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by_cached_key(|pod| {
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (pod::node_name(pod).is_none(), created, pod.metadata.name.clone())
            });
        }
        let name = |node: &Arc<Node>| node.metadata.name.clone().unwrap_or_default();
        let fits = observed.nodes.iter().map(|node| (name(node), fit(&observed.set, node, &tolerations))).collect();
        Facts { observed, hash, by_node, fits, now }
    }

    fn set(&self) -> &DaemonSet {
        &self.observed.set
    }

    fn is_new(&self, pod: &Pod) -> bool {
        let label = |name: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let generation = self.set().metadata.annotations.as_ref().and_then(|all| all.get(SET_GENERATION));
        label(HASH) == Some(&self.hash) || (generation.is_some() && label(GENERATION) == generation)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let least = self.set().spec.min_ready_seconds.unwrap_or(0);
        pod::is_ready(pod) && until_available(pod, least, self.now).is_none()
    }

    /// How many nodes want a Pod.
    fn wanted(&self) -> usize {
        self.fits.values().filter(|fit| **fit == Fit::Runs).count()
    }

    /// How many Pods there may be too many and too few during a roll-out; `None` when Pods are replaced by hand.
    fn margins(&self) -> Option<(usize, usize)> {
        let strategy = self.set().spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = self.wanted();
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), wanted);
        let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), wanted);
        // Both may come out as zero of few nodes; then it could never go on.
        Some(if surge == 0 { (0, unavailable.max(1)) } else { (surge, unavailable) })
    }

    fn surges(&self) -> bool {
        self.margins().is_some_and(|(surge, _)| surge > 0)
    }

    /// Puts Pods where they are missing and takes them from where they do not belong.
    fn manage(&self, actions: &mut Vec<Action>) -> Option<Duration> {
        let (mut missing, mut gone) = (Vec::new(), Vec::new());
        let mut again: Option<Duration> = None;
        for (node, fit) in &self.fits {
            let pods = self.by_node.get(node).map(Vec::as_slice).unwrap_or_default();
            let living = || pods.iter().filter(|pod| !pod::is_deleting(pod));
            if *fit == Fit::Goes {
                gone.extend(living().cloned());
                continue;
            }
            if *fit == Fit::Runs && pods.is_empty() {
                missing.push(node.as_str());
                continue;
            }
            let mut running = Vec::new();
            for pod in living() {
                let failed = pod::phase(pod) == "Failed";
                let until = self.observed.held.get(node).filter(|until| failed && **until > self.now);
                match until {
                    Some(until) => {
                        let left = Duration::try_from(until.duration_since(self.now)).unwrap_or_default();
                        again = Some(again.map_or(left, |standing| standing.min(left)));
                    }
                    None if pod::is_terminal(pod) => {
                        actions.push(Action::Replace(pod.clone(), node.clone(), failed));
                    }
                    None => running.push(pod.clone()),
                }
            }
            if !self.surges() {
                gone.extend(running.into_iter().skip(1));
            } else if running.is_empty() && *fit == Fit::Runs {
                missing.push(node.as_str());
            } else {
                gone.extend(self.surplus(running));
            }
        }
        let nowhere = self.by_node.iter().filter(|(node, _)| !self.fits.contains_key(*node));
        gone.extend(nowhere.flat_map(|(_, pods)| pods).filter(|pod| pod::node_name(pod).is_none()).cloned());
        self.change(&missing, gone, actions);
        again
    }

    /// With surge a node may have one Pod of each template, until the new one does its work.
    fn surplus(&self, running: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        let (mut new, mut old) = (None, None);
        let mut gone = Vec::new();
        for pod in running {
            let place = if self.is_new(&pod) { &mut new } else { &mut old };
            if place.is_none() { *place = Some(pod) } else { gone.push(pod) }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!pod::is_ready(&old) || self.is_available(&new))
        {
            gone.push(old);
        }
        gone
    }

    fn change(&self, missing: &[&str], mut gone: Vec<Arc<Pod>>, actions: &mut Vec<Action>) {
        if !missing.is_empty() {
            actions.push(Action::Create(missing.iter().take(BURST).map(|node| self.pod(node)).collect()));
        }
        gone.truncate(BURST);
        if !gone.is_empty() {
            actions.push(Action::Delete(gone));
        }
    }

    /// Replaces Pods of an old template, as many as may be missing or too many at once.
    fn roll(&self, actions: &mut Vec<Action>) {
        let Some((surge, unavailable)) = self.margins() else { return };
        let (mut lacking, mut surging) = (0, 0);
        let (mut at_once, mut one_by_one) = (Vec::new(), Vec::new());
        let (mut new_at_once, mut new_one_by_one): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for (node, pods) in &self.by_node {
            let living = pods.iter().filter(|pod| !pod::is_deleting(pod));
            let (new, old): (Vec<_>, Vec<_>) = living.partition(|pod| self.is_new(pod));
            match (&new[..], &old[..]) {
                ([new], []) => lacking += usize::from(!self.is_available(new)),
                ([], [old]) if surge > 0 => match (self.is_available(old), self.fits.get(node)) {
                    (false, Some(Fit::Runs)) => new_at_once.push(node),
                    (true, Some(Fit::Runs)) => new_one_by_one.push(node),
                    _ => at_once.push((*old).clone()),
                },
                ([], [old]) if self.is_available(old) => one_by_one.push((*old).clone()),
                ([], [old]) => {
                    at_once.push((*old).clone());
                    lacking += 1;
                }
                ([new], [old]) if surge > 0 => {
                    if self.is_available(new) {
                        at_once.push((*old).clone());
                    } else {
                        surging += 1;
                    }
                }
                _ => {
                    lacking += 1;
                    surging += 1;
                }
            }
        }
        if surge > 0 {
            new_at_once.extend(new_one_by_one.into_iter().take(surge.saturating_sub(surging)));
        } else {
            at_once.extend(one_by_one.into_iter().take(unavailable.saturating_sub(lacking)));
        }
        self.change(&new_at_once, at_once, actions);
    }

    fn pod(&self, node: &str) -> Pod {
        let mut pod = pod_of_template(&self.set().spec.template, controller_reference(self.set()));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH.to_owned(), self.hash.clone());
        if let Some(generation) = self.set().metadata.annotations.as_ref().and_then(|all| all.get(SET_GENERATION)) {
            labels.insert(GENERATION.to_owned(), generation.clone());
        }
        let spec = pod.spec.get_or_insert_default();
        spec.tolerations = Some(tolerations(self.set()));
        let field = NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        };
        let term = NodeSelectorTerm { match_fields: Some(vec![field]), ..NodeSelectorTerm::default() };
        let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
        affinity.required_during_scheduling_ignored_during_execution =
            Some(NodeSelector { node_selector_terms: vec![term] });
        pod
    }

    fn status(&self) -> DaemonSetStatus {
        let standing = self.set().status.clone().unwrap_or_default();
        let generation = self.set().metadata.generation;
        let (mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0);
        for (node, fit) in &self.fits {
            let Some(pod) = self.by_node.get(node).and_then(|pods| pods.first()) else { continue };
            if *fit != Fit::Runs {
                misplaced += 1;
                continue;
            }
            current += 1;
            ready += i32::from(pod::is_ready(pod));
            available += i32::from(self.is_available(pod));
            updated += i32::from(self.is_new(pod));
        }
        let desired = self.wanted() as i32;
        DaemonSetStatus {
            desired_number_scheduled: desired,
            current_number_scheduled: current,
            number_misscheduled: misplaced,
            number_ready: ready,
            number_available: Some(available).filter(|number| *number != 0),
            number_unavailable: Some(desired - available).filter(|number| *number != 0),
            updated_number_scheduled: Some(updated).filter(|number| *number != 0),
            observed_generation: if self.observed.settled { generation } else { standing.observed_generation },
            ..standing
        }
    }
}

#[cfg(test)]
mod tests;
