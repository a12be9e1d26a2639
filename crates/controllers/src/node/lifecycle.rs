//! Node health: a node whose kubelet falls silent becomes `Unknown`, its conditions become taints, and its Pods are marked
//! not ready.
//!
//! Behaviour: upstream's `pkg/controller/nodelifecycle`, with its figures. Eviction itself is [`super::taint_eviction`]'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::{Value, json};
use xebec_api::{ObjectKey, node, pod};
use xebec_client::{Error, Patch};
use xebec_runtime::{Change, Context, Controller, Informer, Plan, ReconcileError, Wiring};

const NAME: &str = "node-lifecycle-controller";
/// A node that has not been heard of for this long is unknown (`--node-monitor-grace-period`; upstream 1.32 raised it to 50 s).
const GRACE: Duration = Duration::from_secs(50);
/// A node that never reported gets this long (`--node-startup-grace-period`).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
const LEASES: &str = "kube-node-lease";
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Condition, its status, the taint that follows.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub struct NodeLifecycle {
    context: Context,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    /// When each node was last seen to renew its lease or write its status, on this process's clock: clocks of nodes differ.
    heard: Arc<Mutex<HashMap<String, (Heartbeat, Duration)>>>,
}

#[derive(Clone, PartialEq)]
struct Heartbeat {
    renewed: Option<Timestamp>,
    reported: Option<Timestamp>,
}

pub struct Observed {
    node: Arc<Node>,
    /// How long ago it was last heard of.
    silent: Duration,
    ready_pods: Vec<Arc<Pod>>,
}

#[derive(Debug)]
pub enum Action {
    /// The conditions that become `Unknown`.
    Silence(Vec<Value>),
    Taint(Vec<Taint>),
    MarkNotReady(Arc<Pod>),
}

const BY_NODE: &str = "node";

impl NodeLifecycle {
    pub fn new(context: &Context) -> Self {
        NodeLifecycle {
            context: Context {
                client: context.client.named(NAME),
                events: context.events.named("node-controller"),
                ..context.clone()
            },
            nodes: context.informers.of(),
            leases: context.informers.within(LEASES),
            pods: context.informers.of(),
            heard: Arc::default(),
        }
    }

    fn silent_for(&self, node: &Node) -> Duration {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = self.leases.get(&ObjectKey::new(LEASES, name.as_str()));
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let mut ready = conditions.into_iter().flatten().filter(|condition| condition.type_ == "Ready");
        let reported = ready.next().and_then(|condition| condition.last_heartbeat_time.as_ref().map(|time| time.0));
        let beat = Heartbeat { renewed, reported };
        let now = self.context.clock.elapsed();
        let mut heard = self.heard.lock();
        let entry = heard.entry(name).or_insert_with(|| (beat.clone(), now));
        if entry.0 != beat {
            *entry = (beat, now);
        }
        now.saturating_sub(entry.1)
    }
}

/// Pods by the node that they are bound to.
pub fn by_node(pod: &Pod) -> Vec<String> {
    pod::node_name(pod).map(str::to_owned).into_iter().collect()
}

#[async_trait]
impl Controller for NodeLifecycle {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        self.pods.index(BY_NODE, by_node);
        wiring.own::<Node>();
        let (queue, events, heard) = (wiring.queue().clone(), self.context.events.clone(), self.heard.clone());
        self.nodes.on_change(move |change| {
            let (node, reason, verb, whither) = match change {
                Change::Applied { old: None, new } => (new, "RegisteredNode", "Registered", "in"),
                Change::Deleted(old) => (old, "RemovingNode", "Removing", "from"),
                Change::Applied { .. } => return,
            };
            let name = node.metadata.name.clone().unwrap_or_default();
            if reason == "RemovingNode" {
                heard.lock().remove(&name);
            }
            let about = node_reference(node);
            events.normal(&about, reason, format!("Node {name} event: {verb} Node {name} {whither} Controller"));
        });
        // Leases wake nobody each time; a node is looked at when its grace would be over.
        let nodes = self.nodes.clone();
        self.leases.on_change(move |change| {
            let key = ObjectKey::new("", change.object().metadata.name.as_deref().unwrap_or(""));
            let unknown = nodes.get(&key).is_some_and(|node| node::condition(&node, "Ready") == Some("Unknown"));
            if unknown {
                queue.add(key);
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let node = self.nodes.get(key)?;
        let silent = self.silent_for(&node);
        let mut ready_pods = self.pods.by_index(BY_NODE, &key.name);
        ready_pods.retain(|pod| pod::is_ready(pod));
        Some(Observed { node, silent, ready_pods })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, action: Action) -> Result<(), ReconcileError> {
        let nodes = self.context.client.all::<Node>();
        match action {
            Action::Silence(conditions) => {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                self.context.events.normal(&node_reference(&observed.node), "NodeNotReady", message);
                nodes.patch_status(&key.name, &Patch::Strategic(json!({"status": {"conditions": conditions}}))).await?;
            }
            Action::Taint(taints) => {
                let version = &observed.node.metadata.resource_version;
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
                nodes.patch(&key.name, &Patch::Merge(patch)).await?;
            }
            Action::MarkNotReady(pod) => match mark_not_ready(&self.context, &pod).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {
                    let message = "Node is not ready";
                    self.context.events.warning(&xebec_runtime::reference(&*pod), "NodeNotReady", message);
                }
            },
        }
        Ok(())
    }
}

/// Events about nodes name the node as their uid, as upstream's controller does.
fn node_reference(node: &Node) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        api_version: Some("v1".to_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

async fn mark_not_ready(context: &Context, pod: &Pod) -> Result<(), Error> {
    let pods = context.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or(""));
    let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(context.clock.now())});
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    pods.patch_status(pod.metadata.name.as_deref().unwrap_or(""), &Patch::Strategic(patch)).await.map(|_| ())
}

fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let node = &observed.node;
    let ever_reported = node::condition(node, "Ready").is_some();
    let grace = if ever_reported { GRACE } else { STARTUP_GRACE };
    if observed.silent >= grace && node::condition(node, "Ready") != Some("Unknown") {
        return Plan::of(vec![Action::Silence(silence(node, now))]).again_after(Duration::from_secs(1));
    }
    let mut actions = Vec::new();
    if let Some(taints) = taints(node, now) {
        actions.push(Action::Taint(taints));
    }
    if matches!(node::condition(node, "Ready"), Some("False" | "Unknown")) {
        actions.extend(observed.ready_pods.iter().cloned().map(Action::MarkNotReady));
    }
    Plan::of(actions).again_after(grace.saturating_sub(observed.silent).max(Duration::from_secs(5)))
}

fn silence(node: &Node, now: Timestamp) -> Vec<Value> {
    let unknown = CONDITIONS.iter().filter(|kind| node::condition(node, kind) != Some("Unknown"));
    let entry = |kind: &&str| match node::condition(node, kind) {
        Some(_) => json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": Time(now)}),
        None => json!({"type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.", "lastTransitionTime": Time(now),
            "lastHeartbeatTime": node.metadata.creation_timestamp}),
    };
    unknown.map(entry).collect()
}

/// The taints that the node should bear, if they differ from those it bears. Others' taints stay.
fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let standing = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in CONDITION_TAINTS {
        if node::condition(node, kind) == Some(status) {
            wanted.push((key, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((key, "NoExecute"));
            }
        }
    }
    if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed =
        |taint: &Taint| taint.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key);
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    // A kubelet registers itself as not ready before it has reported; that taint is its own until then.
    let unreported = node::condition(node, "Ready").is_none();
    let mut result: Vec<Taint> = standing
        .iter()
        .filter(|taint| !managed(taint) || is_wanted(taint) || (unreported && taint.key == NOT_READY))
        .cloned()
        .collect();
    for (key, effect) in &wanted {
        if !result.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            result.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    (result != standing).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(node: Value, silent: u64, expected: &str) {
        let node = Arc::new(serde_json::from_value(node).unwrap());
        let observed = Observed { node, silent: Duration::from_secs(silent), ready_pods: Vec::new() };
        let told = plan(&observed, Timestamp::UNIX_EPOCH).actions.into_iter().map(|action| match action {
            Action::Silence(conditions) => format!("silence {}", conditions.len()),
            Action::Taint(taints) => {
                taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect::<Vec<_>>().join(" ")
            }
            Action::MarkNotReady(_) => "mark".to_owned(),
        });
        assert_eq!(told.collect::<Vec<_>>().join("; "), expected);
    }

    #[test]
    fn plans() {
        let ready = |status: &str| json!({"metadata": {"name": "n"}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        check(ready("True"), 0, "");
        check(ready("True"), 60, "silence 4");
        check(
            ready("Unknown"),
            60,
            "node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute",
        );
        let mut cordoned = ready("True");
        cordoned["spec"] = json!({"unschedulable": true, "taints": [{"key": "mine", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoSchedule"}]});
        check(cordoned, 0, "mine:NoSchedule node.kubernetes.io/unschedulable:NoSchedule");
    }
}
