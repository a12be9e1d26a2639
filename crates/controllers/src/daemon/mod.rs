//! DaemonSets: one Pod on every node that takes it, rolled from template to template.
//!
//! Pods are bound to their node by an affinity and go through the scheduler. [`plan`] holds the decisions. Behaviour:
//! upstream's `pkg/controller/daemon`.

mod plan;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;
use xebec_api::{LabelSelector, ObjectKey};
use xebec_client::{DeleteOptions, Error, Patch};
use xebec_runtime::{Change, Context, Controller, Informer, Plan, ReconcileError, Wiring, reference};

use crate::pod_writer::{self, PodWriter};
use crate::replicas::{controller_of, controller_reference};
pub use plan::{Action, Observed};

const NAME: &str = "daemonset-controller";
const KIND: &str = "DaemonSet";
const BY_SET: &str = "daemonset";
/// Between two replacements of a failed Pod on one node; doubled each time, up to the second.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Until when failed Pods of one set on one node stay, and how long that was.
type Backoffs = HashMap<(ObjectKey, String), (Timestamp, Duration)>;

pub struct DaemonSets {
    context: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    writer: PodWriter,
    backoffs: Mutex<Backoffs>,
}

impl DaemonSets {
    pub fn new(context: &Context) -> Self {
        let context =
            Context { events: context.events.named(NAME), client: context.client.named(NAME), ..context.clone() };
        DaemonSets {
            sets: context.informers.of(),
            pods: context.informers.of(),
            nodes: context.informers.of(),
            revisions: context.informers.of(),
            writer: PodWriter::new(&context),
            backoffs: Mutex::default(),
            context,
        }
    }

    /// Another template may hash to the same name: the collision count goes into the hash from now on.
    async fn remember(&self, set: &DaemonSet, revision: &ControllerRevision) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let revisions = self.context.client.namespaced::<ControllerRevision>(namespace);
        let Err(error) = revisions.create(revision).await else { return Ok(()) };
        if !error.is_already_exists() {
            return Err(error);
        }
        let standing = revisions.get(revision.metadata.name.as_deref().unwrap_or("")).await?;
        if standing.data == revision.data {
            return Ok(());
        }
        let count = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
        let patch = Patch::Merge(json!({"status": {"collisionCount": count}}));
        let name = set.metadata.name.as_deref().unwrap_or("");
        self.context.client.namespaced::<DaemonSet>(namespace).patch_status(name, &patch).await?;
        Err(error)
    }

    fn note_failure(&self, key: &ObjectKey, node: &str) {
        let now = self.context.clock.now();
        let mut backoffs = self.backoffs.lock();
        // One that has been quiet for long starts anew.
        backoffs.retain(|_, (until, _)| now.duration_since(*until) < SignedDuration::from_secs(2 * 900));
        let entry = backoffs.entry((key.clone(), node.to_owned())).or_insert((now, BACKOFF / 2));
        entry.1 = (entry.1 * 2).min(MAX_BACKOFF);
        entry.0 = now + SignedDuration::try_from(entry.1).unwrap_or_default();
    }

    async fn write_owner(&self, pod: &Pod, metadata: serde_json::Value) -> Result<(), Error> {
        let pods = self.context.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or(""));
        let patch = Patch::Strategic(json!({"metadata": metadata}));
        match pods.patch(pod.metadata.name.as_deref().unwrap_or(""), &patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn set_index(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    match controller_of(pod) {
        Some(owner) if owner.kind == KIND => vec![format!("set/{}", owner.uid)],
        Some(_) => Vec::new(),
        None => vec![format!("orphan/{namespace}")],
    }
}

fn selector(set: &DaemonSet) -> LabelSelector {
    LabelSelector::from_object(Some(&set.spec.selector)).unwrap_or_else(|_| LabelSelector::nothing())
}

#[async_trait]
impl Controller for DaemonSets {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        self.pods.index(BY_SET, set_index);
        let expectations = self.writer.expectations();
        self.sets.on_change(move |change| {
            if let Change::Deleted(set) = change {
                expectations.forget(&ObjectKey::of(&**set));
            }
        });
        wiring.own::<DaemonSet>();
        wiring.owned::<ControllerRevision>(KIND);
        let (expectations, sets, queue) = (self.writer.expectations(), self.sets.clone(), wiring.queue().clone());
        self.pods.on_change(move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            let before =
                if let Change::Applied { old: Some(old), .. } = &change { controller_of(&***old) } else { None };
            for owner in controller_of(&**pod).into_iter().chain(before).filter(|owner| owner.kind == KIND) {
                let key = ObjectKey::new(namespace, owner.name.as_str());
                pod_writer::observe(&expectations, &key, &change);
                queue.add(key);
            }
            if controller_of(&**pod).is_none() && !matches!(change, Change::Deleted(_)) {
                let labels = pod.metadata.labels.as_ref();
                let matching = sets.list_in(namespace).into_iter().filter(|set| selector(set).matches_map(labels));
                matching.for_each(|set| queue.add(ObjectKey::of(&*set)));
            }
        });
        let (sets, queue) = (self.sets.clone(), wiring.queue().clone());
        self.nodes.on_change(move |change| {
            if let Change::Applied { old: Some(old), new } = &change
                && old.metadata.labels == new.metadata.labels
                && old.spec == new.spec
            {
                return;
            }
            sets.objects().iter().for_each(|set| queue.add(set.key().clone()));
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let set = self.sets.get(key)?;
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let selector = selector(&set);
        let orphans = self.pods.by_index(BY_SET, &format!("orphan/{}", key.namespace));
        let ours = |one: &Arc<ControllerRevision>| controller_of(&**one).is_some_and(|owner| owner.uid == uid);
        let backoffs = self.backoffs.lock();
        let held: BTreeMap<String, Timestamp> = backoffs
            .iter()
            .filter(|((set, _), _)| set == key)
            .map(|((_, node), (until, _))| (node.clone(), *until))
            .collect();
        Some(Observed {
            pods: self.pods.by_index(BY_SET, &format!("set/{uid}")),
            orphans: orphans.into_iter().filter(|pod| selector.matches_map(pod.metadata.labels.as_ref())).collect(),
            nodes: self.nodes.list(),
            revisions: self.revisions.list_in(&key.namespace).into_iter().filter(ours).collect(),
            settled: self.writer.expectations().satisfied(key),
            held,
            selector,
            set,
        })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan::plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, action: Action) -> Result<(), ReconcileError> {
        let (set, about) = (&*observed.set, reference(&*observed.set));
        let revisions = self.context.client.namespaced::<ControllerRevision>(&key.namespace);
        match action {
            Action::Adopt(pod) => {
                let owner = controller_reference(set);
                self.write_owner(&pod, json!({"uid": pod.metadata.uid, "ownerReferences": [owner]})).await?;
            }
            Action::Disown(pod) => {
                let owner = json!({"$patch": "delete", "uid": set.metadata.uid});
                self.write_owner(&pod, json!({"uid": pod.metadata.uid, "ownerReferences": [owner]})).await?;
            }
            Action::Remember(revision) => self.remember(set, &revision).await?,
            Action::Renumber(revision) => revisions.replace(&revision).await.map(drop)?,
            Action::Forget(name) => match revisions.delete(&name, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            },
            Action::Create(pods) => self.writer.create(&about, key, &pods).await?,
            Action::Delete(pods) => {
                let deletions = pods.iter().map(|pod| self.writer.delete(&about, key, pod));
                join_all(deletions).await.into_iter().collect::<Result<(), Error>>()?;
            }
            Action::Replace(pod, node, failed) => {
                let name = ObjectKey::of(&*pod);
                if failed {
                    self.note_failure(key, &node);
                    let text = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                    self.context.events.warning(&about, "FailedDaemonPod", text);
                } else {
                    let text = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                    self.context.events.normal(&about, "SucceededDaemonPod", text);
                }
                self.writer.delete(&about, key, &pod).await?;
            }
            Action::Write(status) => {
                let changed = DaemonSet { status: Some(*status), ..set.clone() };
                self.context.client.namespaced::<DaemonSet>(&key.namespace).replace_status(&changed).await?;
            }
        }
        Ok(())
    }
}
