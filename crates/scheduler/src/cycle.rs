//! The loop: informers fill queue and snapshot, one Pod after the other is decided, and binding runs in the background.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use xebec_api::{ObjectKey, pod};
use xebec_base::Chain;
use xebec_client::{DeleteOptions, Error, Patch};
use xebec_runtime::{Change, Context, reference};

use crate::NAME;
use crate::decide::{Unfit, decide};
use crate::preempt::{Preemption, preempt};
use crate::queue::Queue;
use crate::snapshot::{PodFacts, Snapshot};

/// Bindings under way at the same time: enough to hide the API's latency, few enough not to flood it.
const BINDINGS: usize = 64;

#[derive(Default)]
struct State {
    queue: Queue,
    snapshot: Snapshot,
    /// Where the next search begins.
    start: usize,
}

struct Scheduler {
    context: Context,
    state: Mutex<State>,
    wake: Notify,
    bindings: Arc<Semaphore>,
}

/// Schedules until shutdown.
pub async fn run(context: Context) {
    let context = Context { events: context.events.named(NAME), client: context.client.named(NAME), ..context };
    let scheduler = Arc::new(Scheduler {
        context: context.clone(),
        state: Mutex::default(),
        wake: Notify::new(),
        bindings: Arc::new(Semaphore::new(BINDINGS)),
    });
    // Nodes first: otherwise every waiting Pod fails once at the start.
    let nodes = context.informers.of::<Node>();
    let weak = Arc::downgrade(&scheduler);
    nodes.on_change(move |change| {
        if let Some(scheduler) = weak.upgrade() {
            scheduler.node_changed(&change);
        }
    });
    nodes.synced().await;
    let pods = context.informers.of::<Pod>();
    let weak = Arc::downgrade(&scheduler);
    pods.on_change(move |change| {
        if let Some(scheduler) = weak.upgrade() {
            scheduler.pod_changed(&change);
        }
    });
    pods.synced().await;
    context.shutdown.clone().spawn(async move { scheduler.work().await });
}

/// Whether the Pod is one that waits for this scheduler.
fn waits(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let ours = spec.and_then(|spec| spec.scheduler_name.as_deref()).is_none_or(|name| name == NAME);
    let gated = spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
    ours && !gated && pod::node_name(pod).is_none() && !pod::is_terminal(pod) && !pod::is_deleting(pod)
}

impl Scheduler {
    fn node_changed(&self, change: &Change<'_, Node>) {
        let now = self.context.clock.elapsed();
        let mut state = self.state.lock();
        match change {
            Change::Applied { old, new } => {
                state.snapshot.set_node(new);
                if old.is_none_or(|old| matters(old, new)) {
                    state.queue.cluster_changed(now);
                }
            }
            Change::Deleted(node) => state.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or("")),
        }
        drop(state);
        self.wake.notify_one();
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        let now = self.context.clock.elapsed();
        let pod = change.object();
        let gone = matches!(change, Change::Deleted(_)) || pod::is_terminal(pod);
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        let mut state = self.state.lock();
        if gone {
            state.queue.remove(&ObjectKey::of(&**pod));
            state.snapshot.displace(uid);
            state.queue.cluster_changed(now);
        } else if let Some(node) = pod::node_name(pod) {
            state.queue.remove(&ObjectKey::of(&**pod));
            state.snapshot.place(Arc::new(PodFacts::of(pod)), node);
            // Its arrival may be what another Pod's affinity waits for.
            state.queue.cluster_changed(now);
        } else if waits(pod) {
            if !state.snapshot.is_placed(uid) {
                state.queue.put(Arc::new(PodFacts::of(pod)), now);
            }
        } else {
            state.queue.remove(&ObjectKey::of(&**pod));
        }
        drop(state);
        self.wake.notify_one();
    }

    async fn work(self: Arc<Self>) {
        loop {
            let woken = self.wake.notified();
            let now = self.context.clock.elapsed();
            let (next, due) = {
                let mut state = self.state.lock();
                (state.queue.pop(now), state.queue.next_due())
            };
            if let Some((facts, seen)) = next {
                self.schedule(facts, seen).await;
                continue;
            }
            let wait = due.map_or(Duration::from_secs(3600), |due| due.saturating_sub(now));
            tokio::select! {
                () = woken => {}
                () = self.context.clock.sleep(wait) => {}
            }
        }
    }

    async fn schedule(self: &Arc<Self>, facts: Arc<PodFacts>, seen: u64) {
        let decision = {
            let mut state = self.state.lock();
            let start = state.start;
            match decide(&state.snapshot, &facts, start) {
                Ok(at) => {
                    let node = state.snapshot.nodes[at].name.to_string();
                    state.start = at + 1;
                    state.snapshot.place(facts.clone(), &node);
                    Ok(node)
                }
                Err(unfit) => {
                    let preemption = preempt(&state.snapshot, &facts, &unfit);
                    Err((unfit, preemption))
                }
            }
        };
        match decision {
            Ok(node) => {
                let permit = self.bindings.clone().acquire_owned().await;
                let scheduler = self.clone();
                self.context.shutdown.spawn(async move {
                    scheduler.bind(&facts, &node).await;
                    drop(permit);
                });
            }
            Err((unfit, preemption)) => self.fail(&facts, seen, &unfit, preemption).await,
        }
    }

    async fn bind(&self, facts: &PodFacts, node: &str) {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(facts.key.name.to_string()),
                namespace: Some(facts.key.namespace.to_string()),
                uid: Some(facts.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let pods = self.context.client.namespaced::<Pod>(&facts.key.namespace);
        let result: Result<Value, Error> = pods.create_subresource(&facts.key.name, "binding", &binding).await;
        match result {
            Ok(_) => {
                let message = format!("Successfully assigned {} to {node}", facts.key);
                self.context.events.acting("Binding").normal(&reference(&*facts.pod), "Scheduled", message);
            }
            Err(error) => {
                if !error.is_not_found() {
                    tracing::warn!(pod = %facts.key, node, error = %Chain(&error), "cannot bind");
                }
                let now = self.context.clock.elapsed();
                let mut state = self.state.lock();
                state.snapshot.displace(&facts.uid);
                state.queue.retry(&facts.key, now);
                drop(state);
                self.wake.notify_one();
            }
        }
    }

    async fn fail(&self, facts: &PodFacts, seen: u64, unfit: &Unfit, preemption: Result<Preemption, String>) {
        let message = match &preemption {
            _ if unfit.nodes == 0 => unfit.to_string(),
            Ok(found) => format!(
                "{unfit} preemption: found a potential placement for pod on node {}, preempting {} victims",
                found.node,
                found.victims.len()
            ),
            Err(why) => format!("{unfit} {why}"),
        };
        self.state.lock().queue.park(&facts.key, seen, self.context.clock.elapsed());
        self.context.events.acting("Scheduling").warning(&reference(&*facts.pod), "FailedScheduling", message.clone());
        let nominated = preemption.as_ref().ok().map(|found| found.node.as_str());
        if let Err(error) = self.tell(facts, &message, nominated).await
            && !error.is_not_found()
        {
            tracing::warn!(pod = %facts.key, error = %Chain(&error), "cannot write the scheduling condition");
        }
        if let Ok(preemption) = preemption {
            self.evict(facts, &preemption).await;
        }
    }

    async fn tell(&self, facts: &PodFacts, message: &str, nominated: Option<&str>) -> Result<(), Error> {
        let Some(status) = unschedulable(&facts.pod, message, nominated, self.context.clock.now()) else {
            return Ok(());
        };
        let pods = self.context.client.namespaced::<Pod>(&facts.key.namespace);
        let patch = Patch::Strategic(json!({"metadata": {"uid": facts.uid}, "status": status}));
        pods.patch_status(&facts.key.name, &patch).await.map(|_| ())
    }

    async fn evict(&self, facts: &PodFacts, preemption: &Preemption) {
        for victim in &preemption.victims {
            let pods = self.context.client.namespaced::<Pod>(&victim.key.namespace);
            let now = Time(self.context.clock.now());
            let message = format!("{NAME}: preempting to accommodate a higher priority pod");
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": message, "lastTransitionTime": now});
            let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
            let told = pods.patch_status(&victim.key.name, &patch).await;
            let options = DeleteOptions::default().only(victim.uid.as_str());
            if let Err(error) = told.map(|_| ()).and(pods.delete(&victim.key.name, &options).await.map(|_| ())) {
                tracing::warn!(pod = %victim.key, error = %Chain(&error), "cannot preempt");
                continue;
            }
            let message = format!("Preempted by pod {} on node {}", facts.uid, preemption.node);
            self.context.events.acting("Preempting").normal(&reference(&*victim.pod), "Preempted", message);
        }
    }
}

/// Whether a change of a node may make room or lift an objection; heartbeats do neither.
fn matters(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || allocatable(old) != allocatable(new)
}

/// The status that says so, unless the Pod says the same already.
fn unschedulable(pod: &Pod, message: &str, nominated: Option<&str>, now: Timestamp) -> Option<Value> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let standing = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let same = standing.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message));
    let same_node = status.and_then(|status| status.nominated_node_name.as_deref()) == nominated;
    if same && (same_node || nominated.is_none()) {
        return None;
    }
    let since =
        standing.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(now));
    let mut patch = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": message, "lastTransitionTime": since, "lastProbeTime": null,
        "observedGeneration": pod.metadata.generation}]});
    if let Some(node) = nominated {
        patch["nominatedNodeName"] = json!(node);
    }
    Some(patch)
}
