//! ReplicationController and ReplicaSet: as many Pods of a template as are wanted, by one controller over both kinds.
//!
//! Pods are adopted when the selector matches and nobody owns them, released when it no longer does. Which Pods go first on
//! scaling down, the burst limit and the slow start of creations are upstream's (`pkg/controller/replicaset`).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde_json::json;
use xebec_api::{Kind, LabelSelector, ObjectKey, pod};
use xebec_client::{DeleteOptions, Error, Patch};
use xebec_runtime::{Change, Context, Controller, Expectations, Informer, Plan, ReconcileError, Wiring, reference};

/// At most this many Pods are made or deleted in one round, as upstream.
const BURST: usize = 500;

/// The `ReplicaFailure` condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    pub since: Option<Time>,
}

/// The status both kinds share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    /// Only ReplicaSets tell it.
    pub terminating: Option<i32>,
    pub observed_generation: Option<i64>,
    pub failure: Option<Failure>,
}

/// What the two kinds have in common.
pub trait Replicated: Kind {
    fn wanted(&self) -> usize;
    fn selector(&self) -> LabelSelector;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready_seconds(&self) -> i32;
    fn counts(&self) -> Counts;
    fn set_counts(&mut self, counts: Counts);
    fn tells_terminating() -> bool;
}

pub struct Replicas<K> {
    context: Context,
    name: &'static str,
    owners: Informer<K>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations>,
    /// Why the last round of an owner failed, until one succeeds.
    failures: parking_lot::Mutex<HashMap<ObjectKey, Failure>>,
    queue: OnceLock<xebec_runtime::WorkQueue<ObjectKey>>,
}

pub struct Observed<K> {
    owner: Arc<K>,
    /// Pods that the owner owns or might adopt.
    pods: Vec<Arc<Pod>>,
    /// Everything written before has come back.
    settled: bool,
    failure: Option<Failure>,
}

#[derive(Debug)]
pub enum Action {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(usize),
    Delete(Vec<Arc<Pod>>),
    UpdateStatus(Counts),
}

const BY_OWNER: &str = "owner";

/// The index values of a Pod: its controller's uid, or its namespace among the orphans.
fn owner_index(pod: &Pod) -> Vec<String> {
    match controller_of(pod) {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![format!("orphan/{}", pod.metadata.namespace.as_deref().unwrap_or(""))],
    }
}

pub fn controller_of<K: Kind>(object: &K) -> Option<&OwnerReference> {
    object.metadata().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The reference by which `owner` controls what it makes.
pub fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: owner.metadata().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

impl<K: Replicated> Replicas<K> {
    pub fn new(context: &Context, name: &'static str) -> Self {
        Replicas {
            context: Context {
                events: context.events.named(name),
                client: context.client.named(name),
                ..context.clone()
            },
            name,
            owners: context.informers.of(),
            pods: context.informers.of(),
            expectations: Arc::new(Expectations::new(context.clock.clone())),
            failures: parking_lot::Mutex::default(),
            queue: OnceLock::new(),
        }
    }

    async fn create(&self, owner: &Arc<K>, key: &ObjectKey, count: usize) -> Result<(), Error> {
        let Some(template) = owner.template() else { return Ok(()) };
        let pod = pod_of_template(template, controller_reference(&**owner));
        let pods = self.context.client.namespaced::<Pod>(&key.namespace);
        let about = reference(&**owner);
        let (mut batch, mut left) = (1, count);
        // Slow start: if the first creation is refused (a quota), the other 499 are not tried.
        while left > 0 {
            let now = batch.min(left);
            self.expectations.expect_creations(key, now);
            let results = join_all((0..now).map(|_| pods.create(&pod))).await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(created) => {
                        let name = created.metadata.name.unwrap_or_default();
                        self.context.events.normal(&about, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(error) => {
                        self.expectations.creation_observed(key);
                        self.context.events.warning(&about, "FailedCreate", format!("Error creating: {error}"));
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                self.note_failure(key, "FailedCreate", &error);
                return Err(error);
            }
            left -= now;
            batch *= 2;
        }
        self.failures.lock().remove(key);
        Ok(())
    }

    async fn delete(&self, owner: &Arc<K>, key: &ObjectKey, victims: &[Arc<Pod>]) -> Result<(), Error> {
        let pods = self.context.client.namespaced::<Pod>(&key.namespace);
        let about = reference(&**owner);
        let deletions = victims.iter().map(|victim| async {
            let (name, uid) =
                (victim.metadata.name.as_deref().unwrap_or(""), victim.metadata.uid.clone().unwrap_or_default());
            self.expectations.expect_deletion(key, &uid);
            match pods.delete(name, &DeleteOptions::default().only(uid.as_str())).await {
                Ok(_) => {
                    self.context.events.normal(&about, "SuccessfulDelete", format!("Deleted pod: {name}"));
                    Ok(())
                }
                Err(error) => {
                    self.expectations.deletion_observed(key, &uid);
                    if error.is_not_found() {
                        return Ok(());
                    }
                    self.context.events.warning(&about, "FailedDelete", format!("Error deleting: {error}"));
                    Err(error)
                }
            }
        });
        let failure = join_all(deletions).await.into_iter().find_map(Result::err);
        match failure {
            Some(error) => {
                self.note_failure(key, "FailedDelete", &error);
                Err(error)
            }
            None => {
                self.failures.lock().remove(key);
                Ok(())
            }
        }
    }

    fn note_failure(&self, key: &ObjectKey, reason: &str, error: &Error) {
        let failure = Failure { reason: reason.to_owned(), message: error.to_string(), since: None };
        self.failures.lock().insert(key.clone(), failure);
    }

    async fn write_counts(&self, owner: &K, counts: Counts) -> Result<(), Error> {
        let mut changed = owner.clone();
        changed.set_counts(counts);
        let namespace = owner.metadata().namespace.clone().unwrap_or_default();
        self.context.client.namespaced::<K>(&namespace).replace_status(&changed).await.map(|_| ())
    }
}

/// The Pod that a template describes, owned by `owner`, its name made from the owner's.
pub fn pod_of_template(template: &PodTemplateSpec, owner: OwnerReference) -> Pod {
    let mut metadata = template.metadata.clone().unwrap_or_default();
    (metadata.name, metadata.namespace) = (None, None);
    metadata.generate_name = Some(format!("{}-", owner.name));
    metadata.owner_references = Some(vec![owner]);
    Pod { metadata, spec: template.spec.clone(), status: None }
}

#[async_trait]
impl<K: Replicated> Controller for Replicas<K> {
    type Observed = Observed<K>;
    type Action = Action;

    fn name(&self) -> &'static str {
        self.name
    }

    fn workers(&self) -> usize {
        5
    }

    fn wire(&self, wiring: &Wiring) {
        let _ = self.queue.set(wiring.queue().clone());
        self.pods.index(BY_OWNER, owner_index);
        let expectations = self.expectations.clone();
        self.owners.on_change(move |change| {
            if let Change::Deleted(owner) = change {
                expectations.forget(&ObjectKey::of(&**owner));
            }
        });
        wiring.own::<K>();
        let (expectations, owners, queue) = (self.expectations.clone(), self.owners.clone(), wiring.queue().clone());
        self.pods.on_change(move |change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            let previous =
                if let Change::Applied { old: Some(old), .. } = &change { controller_of(&***old) } else { None };
            for owner in controller_of(&**pod).into_iter().chain(previous).filter(|owner| owner.kind == K::KIND) {
                let key = ObjectKey::new(namespace, owner.name.as_str());
                observe_expected(&expectations, &key, &change);
                queue.add(key);
            }
            if controller_of(&**pod).is_none() && !matches!(change, Change::Deleted(_)) {
                let labels = pod.metadata.labels.as_ref();
                let matching =
                    owners.list_in(namespace).into_iter().filter(|owner| owner.selector().matches_map(labels));
                matching.for_each(|owner| queue.add(ObjectKey::of(&*owner)));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed<K>> {
        let owner = self.owners.get(key)?;
        let mut pods = self.pods.by_index(BY_OWNER, owner.metadata().uid.as_deref().unwrap_or(""));
        let selector = owner.selector();
        let orphans = self.pods.by_index(BY_OWNER, &format!("orphan/{}", key.namespace));
        pods.extend(orphans.into_iter().filter(|pod| selector.matches_map(pod.metadata.labels.as_ref())));
        let settled = self.expectations.satisfied(key);
        let failure = self.failures.lock().get(key).cloned();
        Some(Observed { owner, pods, settled, failure })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed<K>, now: Timestamp) -> Plan<Action> {
        plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed<K>, action: Action) -> Result<(), ReconcileError> {
        let pods = self.context.client.namespaced::<Pod>(&key.namespace);
        let name = |pod: &Arc<Pod>| pod.metadata.name.clone().unwrap_or_default();
        match action {
            Action::Adopt(pod) => {
                let owner = controller_reference(&*observed.owner);
                let patch =
                    Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [owner]}}));
                pods.patch(&name(&pod), &patch).await?;
            }
            Action::Release(pod) => {
                let owner = json!({"$patch": "delete", "uid": observed.owner.metadata().uid});
                let patch =
                    Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [owner]}}));
                match pods.patch(&name(&pod), &patch).await {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
            Action::Create(count) => self.create(&observed.owner, key, count).await?,
            Action::Delete(victims) => self.delete(&observed.owner, key, &victims).await?,
            Action::UpdateStatus(counts) => {
                if counts.failure.is_none() {
                    self.failures.lock().remove(key);
                }
                self.write_counts(&observed.owner, counts).await?
            }
        }
        Ok(())
    }
}

fn observe_expected(expectations: &Expectations, key: &ObjectKey, change: &Change<'_, Pod>) {
    let pod = change.object();
    match change {
        Change::Applied { old: None, .. } => expectations.creation_observed(key),
        Change::Applied { .. } if !pod::is_deleting(pod) => {}
        _ => expectations.deletion_observed(key, pod.metadata.uid.as_deref().unwrap_or("")),
    }
}

fn plan<K: Replicated>(observed: &Observed<K>, now: Timestamp) -> Plan<Action> {
    let owner = &observed.owner;
    let (selector, uid) = (owner.selector(), owner.metadata().uid.as_deref().unwrap_or(""));
    let deleting = owner.metadata().deletion_timestamp.is_some();
    let mut actions = Vec::new();
    let mut active = Vec::new();
    let mut terminating = 0;
    for pod in &observed.pods {
        let owned = controller_of(&**pod).is_some_and(|owner| owner.uid == uid);
        let matches = selector.matches_map(pod.metadata.labels.as_ref());
        if owned && !matches {
            if !deleting {
                actions.push(Action::Release(pod.clone()));
            }
            continue;
        }
        if !owned && (deleting || pod::is_deleting(pod) || pod::is_terminal(pod)) {
            continue;
        }
        if !owned {
            actions.push(Action::Adopt(pod.clone()));
        }
        match (pod::is_terminal(pod), pod::is_deleting(pod)) {
            (false, false) => active.push(pod.clone()),
            (false, true) => terminating += 1,
            _ => {}
        }
    }
    let (counts, again) = counts(observed, &active, terminating, now);
    if counts != owner.counts() {
        actions.push(Action::UpdateStatus(counts));
    }
    if observed.settled && !deleting {
        let wanted = owner.wanted();
        if active.len() < wanted {
            actions.push(Action::Create((wanted - active.len()).min(BURST)));
        } else if active.len() > wanted {
            let count = (active.len() - wanted).min(BURST);
            actions.push(Action::Delete(victims(active, count)));
        }
    }
    Plan { actions, again }
}

/// What the status should say, and when it changes by the mere passing of time (`minReadySeconds`).
fn counts<K: Replicated>(
    observed: &Observed<K>,
    active: &[Arc<Pod>],
    terminating: i32,
    now: Timestamp,
) -> (Counts, Option<Duration>) {
    let owner = &observed.owner;
    let template =
        owner.template().and_then(|template| template.metadata.as_ref()).and_then(|meta| meta.labels.clone());
    let labels = LabelSelector::from_map(&template.unwrap_or_default());
    let mut counts = Counts {
        replicas: active.len() as i32,
        terminating: K::tells_terminating().then_some(terminating),
        observed_generation: owner.metadata().generation,
        ..Counts::default()
    };
    let mut again = None;
    for pod in active {
        counts.fully_labeled += i32::from(labels.matches_map(pod.metadata.labels.as_ref()));
        if pod::is_ready(pod) {
            counts.ready += 1;
            match until_available(pod, owner.min_ready_seconds(), now) {
                None => counts.available += 1,
                Some(left) => again = Some(again.map_or(left, |standing: Duration| standing.min(left))),
            }
        }
    }
    let standing = owner.counts().failure;
    // With as many Pods as are wanted there is nothing left that failed.
    let failed = observed.failure.clone().filter(|_| active.len() != owner.wanted());
    // A failure that is told already stays as it is: its text names a Pod that is another one with each try.
    counts.failure = failed.map(|failure| standing.unwrap_or(Failure { since: Some(Time(now)), ..failure }));
    (counts, again)
}

/// How long a ready Pod still has to stay ready to count as available; `None` when it does.
pub fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 {
        return None;
    }
    let since = ready_since(pod)?;
    let left = since.as_second() + i64::from(min_ready_seconds) - now.as_second();
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// The Pods whose end hurts least, in upstream's order.
pub fn victims(mut active: Vec<Arc<Pod>>, count: usize) -> Vec<Arc<Pod>> {
    let mut ready_on: HashMap<String, usize> = HashMap::new();
    for pod in active.iter().filter(|pod| pod::is_ready(pod)) {
        *ready_on.entry(pod::node_name(pod).unwrap_or("").to_owned()).or_default() += 1;
    }
    active.sort_by_cached_key(|pod| {
        let annotations = pod.metadata.annotations.as_ref();
        let cost = annotations.and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"));
        let phase = match pod::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0);
        let crowd = pod::node_name(pod).and_then(|node| ready_on.get(node)).copied().unwrap_or(0);
        let newest = |time: Option<Timestamp>| std::cmp::Reverse(time.map_or(i64::MAX, Timestamp::as_second));
        let ready_since = if pod::is_ready(pod) { ready_since(pod) } else { None };
        (
            (pod::node_name(pod).is_some(), phase, pod::is_ready(pod)),
            cost.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0),
            std::cmp::Reverse(crowd),
            newest(ready_since),
            std::cmp::Reverse(restarts),
            newest(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        )
    });
    active.truncate(count);
    active
}

const REPLICA_FAILURE: &str = "ReplicaFailure";

impl Replicated for ReplicationController {
    fn wanted(&self) -> usize {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0) as usize
    }

    fn selector(&self) -> LabelSelector {
        let selector = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // An empty selector would take every Pod; upstream's matches nothing.
        selector.filter(|labels| !labels.is_empty()).map_or_else(LabelSelector::nothing, LabelSelector::from_map)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation,
            failure: conditions.find(|condition| condition.type_ == REPLICA_FAILURE).map(|condition| Failure {
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
                since: condition.last_transition_time,
            }),
        }
    }

    fn set_counts(&mut self, counts: Counts) {
        let status = self.status.get_or_insert_default();
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = Some(counts.fully_labeled);
        status.ready_replicas = Some(counts.ready);
        status.available_replicas = Some(counts.available);
        status.observed_generation = counts.observed_generation;
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        conditions.extend(counts.failure.map(|failure| ReplicationControllerCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
    }

    fn tells_terminating() -> bool {
        false
    }
}

impl Replicated for ReplicaSet {
    fn wanted(&self) -> usize {
        self.spec.replicas.unwrap_or(1).max(0) as usize
    }

    fn selector(&self) -> LabelSelector {
        LabelSelector::from_object(Some(&self.spec.selector)).unwrap_or_else(|_| LabelSelector::nothing())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn counts(&self) -> Counts {
        let status = self.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation,
            failure: conditions.find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)).map(
                |condition| Failure {
                    reason: condition.reason.unwrap_or_default(),
                    message: condition.message.unwrap_or_default(),
                    since: condition.last_transition_time,
                },
            ),
        }
    }

    fn set_counts(&mut self, counts: Counts) {
        let status = self.status.get_or_insert_default();
        status.replicas = counts.replicas;
        status.fully_labeled_replicas = Some(counts.fully_labeled);
        status.ready_replicas = Some(counts.ready);
        status.available_replicas = Some(counts.available);
        status.terminating_replicas = counts.terminating;
        status.observed_generation = counts.observed_generation;
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE));
        conditions.extend(counts.failure.map(|failure| ReplicaSetCondition {
            type_: Some(REPLICA_FAILURE.to_owned()),
            status: Some("True".to_owned()),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
    }

    fn tells_terminating() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn owner(replicas: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "r", "namespace": "n", "uid": "u"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}},
            "status": {"replicas": replicas}}))
            .unwrap(),
        )
    }

    fn pod(name: &str, more: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"a": "b"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]},
            "spec": {"containers": [], "nodeName": "x"}, "status": {"phase": "Running"}});
        json_patch::merge(&mut pod, &more);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn check(wanted: i32, pods: Vec<Arc<Pod>>, settled: bool, expected: &str) {
        let observed = Observed { owner: owner(wanted), pods, settled, failure: None };
        let plan = plan(&observed, Timestamp::UNIX_EPOCH);
        let told: Vec<String> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Create(count) => Some(format!("create {count}")),
                Action::Delete(pods) => Some(format!(
                    "delete {}",
                    pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect::<Vec<_>>().join(",")
                )),
                Action::Adopt(pod) => Some(format!("adopt {}", pod.metadata.name.as_ref().unwrap())),
                Action::Release(pod) => Some(format!("release {}", pod.metadata.name.as_ref().unwrap())),
                Action::UpdateStatus(_) => None,
            })
            .collect();
        assert_eq!(told.join("; "), expected);
    }

    #[test]
    fn plans() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        check(3, vec![pod("p", json!({}))], true, "create 2");
        check(3, vec![pod("p", json!({}))], false, "");
        check(1, vec![pod("p", ready), pod("q", json!({}))], true, "delete q");
        check(1, vec![pod("p", json!({"metadata": {"ownerReferences": null}}))], true, "adopt p");
        check(1, vec![pod("p", json!({"metadata": {"labels": {"a": "c"}}}))], true, "release p; create 1");
        check(1, vec![pod("p", json!({"status": {"phase": "Failed"}}))], true, "create 1");
    }
}
