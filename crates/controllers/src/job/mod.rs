//! Jobs: Pods that run until enough of them succeeded, each counted exactly once.
//!
//! Every Pod bears a finalizer until it has been counted: first its uid goes into the status, then the finalizer goes, then
//! the uid becomes a number (KEP-2307). [`plan`] holds the decisions, [`policy`] what failures and successes mean, [`indexes`]
//! the sets of indexes. Finished Jobs that say so are deleted after their time. Pod groups for scheduling are not made.
//! Behaviour: upstream's `pkg/controller/job` and `pkg/controller/ttlafterfinished`.

mod indexes;
mod plan;
mod policy;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use xebec_api::{LabelSelector, ObjectKey};
use xebec_client::{DeleteOptions, Error, Patch, Propagation};
use xebec_runtime::{Change, Context, Controller, Informer, Plan, ReconcileError, Wiring, reference};

use crate::pod_writer::{self, PodWriter};
use crate::replicas::{controller_of, controller_reference};
pub use plan::{Action, FINALIZER, Observed};

const NAME: &str = "job-controller";
const KIND: &str = "Job";
/// The index of Pods by the Job that owns them, or by namespace if nobody does.
const BY_JOB: &str = "job";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

pub struct Jobs {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    writer: PodWriter,
}

impl Jobs {
    pub fn new(context: &Context) -> Self {
        let context =
            Context { events: context.events.named(NAME), client: context.client.named(NAME), ..context.clone() };
        Jobs { writer: PodWriter::new(&context), jobs: context.informers.of(), pods: context.informers.of(), context }
    }

    async fn release(&self, pod: &Pod) -> Result<(), Error> {
        let finalizers = pod.metadata.finalizers.iter().flatten();
        if !finalizers.into_iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        self.patch(pod, patch).await
    }

    async fn patch(&self, pod: &Pod, patch: serde_json::Value) -> Result<(), Error> {
        let pods = self.context.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or(""));
        let name = pod.metadata.name.as_deref().unwrap_or("");
        unless_gone(pods.patch(name, &Patch::Strategic(patch)).await.map(drop))
    }
}

fn unless_gone(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

async fn all<F: Future<Output = Result<(), Error>>>(writes: impl Iterator<Item = F>) -> Result<(), Error> {
    join_all(writes).await.into_iter().collect()
}

fn job_index(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    match controller_of(pod) {
        Some(owner) if owner.kind == KIND => vec![format!("job/{namespace}/{}", owner.name)],
        Some(_) => Vec::new(),
        None => vec![format!("orphan/{namespace}")],
    }
}

fn selector(job: &Job) -> LabelSelector {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

#[async_trait]
impl Controller for Jobs {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn workers(&self) -> usize {
        5
    }

    fn wire(&self, wiring: &Wiring) {
        self.pods.index(BY_JOB, job_index);
        let expectations = self.writer.expectations();
        self.jobs.on_change(move |change| {
            if let Change::Deleted(job) = change {
                expectations.forget(&ObjectKey::of(&**job));
            }
        });
        wiring.own::<Job>();
        let (expectations, jobs, queue) = (self.writer.expectations(), self.jobs.clone(), wiring.queue().clone());
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
                let matching = jobs.list_in(namespace).into_iter().filter(|job| selector(job).matches_map(labels));
                matching.for_each(|job| queue.add(ObjectKey::of(&*job)));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let job = self.jobs.get(key);
        let uid = job.as_ref().and_then(|job| job.metadata.uid.clone());
        let named = self.pods.by_index(BY_JOB, &format!("job/{}/{}", key.namespace, key.name));
        let (pods, mut strays): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|pod| controller_of(&**pod).map(|owner| &owner.uid) == uid.as_ref());
        let ownerless = self.pods.by_index(BY_JOB, &format!("orphan/{}", key.namespace));
        let living = job.as_ref().filter(|job| job.metadata.deletion_timestamp.is_none());
        let orphans = match living {
            Some(job) => {
                let selector = selector(job);
                ownerless.into_iter().filter(|pod| selector.matches_map(pod.metadata.labels.as_ref())).collect()
            }
            None => {
                let was_ours = |pod: &Arc<Pod>| {
                    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(JOB_NAME));
                    label.is_some_and(|name| **name == *key.name)
                };
                strays.extend(ownerless.into_iter().filter(was_ours));
                Vec::new()
            }
        };
        strays.retain(|pod| plan::is_held(pod));
        let settled = self.writer.expectations().satisfied(key);
        let matching = job.as_ref().map_or_else(LabelSelector::nothing, |job| selector(job));
        Some(Observed { job, pods, orphans, strays, settled, selector: matching })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan::plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, action: Action) -> Result<(), ReconcileError> {
        if let Action::Release(pods) = action {
            all(pods.iter().map(|pod| self.release(pod))).await?;
            return Ok(());
        }
        let Some(job) = observed.job.as_deref() else { return Ok(()) };
        let (jobs, about) = (self.context.client.namespaced::<Job>(&key.namespace), reference(job));
        match action {
            Action::Release(_) => {}
            Action::Adopt(pod) => {
                let owner = controller_reference(job);
                let metadata = json!({"uid": pod.metadata.uid, "ownerReferences": [owner], "finalizers": [FINALIZER]});
                self.patch(&pod, json!({"metadata": metadata})).await?;
            }
            Action::Disown(pod) => {
                let owner = json!({"$patch": "delete", "uid": job.metadata.uid});
                let metadata = json!({"uid": pod.metadata.uid, "ownerReferences": [owner],
                    "$deleteFromPrimitiveList/finalizers": [FINALIZER]});
                self.patch(&pod, json!({"metadata": metadata})).await?;
            }
            Action::Delete(pods) => all(pods.iter().map(|pod| self.writer.delete(&about, key, pod))).await?,
            Action::Discard(pods) => {
                let about = &about;
                let discard = |pod: Arc<Pod>| async move {
                    self.release(&pod).await?;
                    self.writer.delete(about, key, &pod).await
                };
                all(pods.into_iter().map(discard)).await?;
            }
            Action::Create(pods) => self.writer.create(&about, key, &pods).await?,
            Action::Write(status) => {
                let changed = Job { status: Some(*status), ..job.clone() };
                jobs.replace_status(&changed).await?;
            }
            Action::Tell(true, reason, text) => self.context.events.warning(&about, &reason, text),
            Action::Tell(false, reason, text) => self.context.events.normal(&about, &reason, text),
            Action::DeleteJob => {
                // What is known of the Job may be late: it goes only if it is still the same.
                let options = DeleteOptions {
                    propagation: Some(Propagation::Foreground),
                    resource_version: job.metadata.resource_version.clone(),
                    ..DeleteOptions::default().only(job.metadata.uid.clone().unwrap_or_default())
                };
                unless_gone(jobs.delete(&key.name, &options).await.map(drop))?;
            }
        }
        Ok(())
    }
}
