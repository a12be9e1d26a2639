//! The Pods of the node: one worker each, found by UID and by the ids of their containers.
//!
//! It relies on being told of every change; what was missed is made good when the runtime is listed anew ([`Pods::reconcile`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use xebec_base::Chain;
use xebec_cri::Event;
use xebec_cri::v1::{ContainerFilter, PodSandboxFilter};

use crate::context::Context;
use crate::pod::identity;
use crate::pod::worker::{Assignment, Bell, Worker, remove_files, remove_from_runtime};

pub struct Pods {
    context: Arc<Context>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    workers: HashMap<String, Handle>,
    /// Containers and sandboxes, to the UID of their Pod.
    owners: HashMap<String, String>,
    /// Pods that nobody assigned to us and that are being removed.
    strays: HashSet<String>,
}

struct Handle {
    assignment: watch::Sender<Assignment>,
    bell: Arc<Bell>,
    status: Arc<Mutex<PodStatus>>,
}

impl Pods {
    pub fn new(context: Arc<Context>) -> Arc<Pods> {
        Arc::new(Pods { context, state: Mutex::default() })
    }

    /// The API's newest word on a Pod.
    pub fn assign(self: &Arc<Self>, pod: &Arc<Pod>, removed: bool) {
        let uid = identity::uid(pod).to_owned();
        let mut state = self.state.lock();
        if let Some(handle) = state.workers.get(&uid) {
            let before = handle.assignment.borrow().pod.clone();
            let described = before.metadata.labels != pod.metadata.labels
                || before.metadata.annotations != pod.metadata.annotations;
            handle.assignment.send_if_modified(|assignment| {
                // A change of nothing but what we wrote ourselves need not wake the worker.
                let news = removed != assignment.removed || worth_waking(&assignment.pod, pod);
                *assignment = Assignment { pod: pod.clone(), removed };
                news
            });
            if described {
                handle.bell.ring_for_volumes();
            }
            return;
        }
        if removed {
            return;
        }
        let (assignment, receiver) = watch::channel(Assignment { pod: pod.clone(), removed });
        let bell = Arc::<Bell>::default();
        let (pods, owner) = (Arc::downgrade(self), uid.clone());
        let claim = Arc::new(move |id: &str| {
            if let Some(pods) = pods.upgrade() {
                pods.state.lock().owners.entry(id.to_owned()).or_insert_with(|| owner.clone());
            }
        });
        let worker = Worker::new(self.context.clone(), receiver, bell.clone(), claim);
        state.workers.insert(uid.clone(), Handle { assignment, bell, status: worker.status() });
        let pods = self.clone();
        self.context.shutdown.spawn(async move {
            worker.run().await;
            pods.forget(&uid);
        });
    }

    fn forget(&self, uid: &str) {
        let mut state = self.state.lock();
        state.workers.remove(uid);
        state.owners.retain(|_, owner| owner != uid);
    }

    /// ConfigMaps or Secrets of these Pods have changed.
    pub fn volumes_changed(&self, uids: &[String]) {
        let state = self.state.lock();
        uids.iter().filter_map(|uid| state.workers.get(uid)).for_each(|handle| handle.bell.ring_for_volumes());
    }

    pub async fn runtime_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Resync => self.reconcile().await,
            // The exit that follows bears the reason.
            Event::OutOfMemory { .. } => {}
            Event::Exited { id } | Event::Deleted { id } => {
                let state = self.state.lock();
                if let Some(handle) = state.owners.get(&id).and_then(|uid| state.workers.get(uid)) {
                    handle.bell.ring();
                }
            }
        }
    }

    /// Has every worker look, and removes what belongs to no Pod of ours.
    pub async fn reconcile(self: &Arc<Self>) {
        self.state.lock().workers.values().for_each(|handle| handle.bell.ring());
        match self.uids_in_runtime().await {
            Ok(uids) => uids.into_iter().for_each(|uid| self.remove_stray(uid)),
            Err(error) => tracing::debug!(error = %Chain(&error), "cannot list what the runtime holds"),
        }
        let directory = self.context.config.root_dir.join("pods");
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            self.remove_stray(entry.file_name().to_string_lossy().into_owned());
        }
        self.context.cgroups.remove_unknown(|uid| {
            let state = self.state.lock();
            state.workers.contains_key(uid) || state.strays.contains(uid)
        });
    }

    async fn uids_in_runtime(&self) -> Result<HashSet<String>, xebec_cri::Error> {
        let runtime = &self.context.runtime;
        let sandboxes = runtime.list_pod_sandboxes(PodSandboxFilter::default()).await?;
        let containers = runtime.list_containers(ContainerFilter::default()).await?;
        let labels = sandboxes.into_iter().map(|it| it.labels).chain(containers.into_iter().map(|it| it.labels));
        Ok(labels.filter_map(|mut labels| labels.remove(identity::POD_UID)).collect())
    }

    /// Removes a Pod that the API does not know, with all it left.
    fn remove_stray(self: &Arc<Self>, uid: String) {
        {
            let mut state = self.state.lock();
            if state.workers.contains_key(&uid) || !state.strays.insert(uid.clone()) {
                return;
            }
        }
        let pods = self.clone();
        self.context.shutdown.spawn(async move {
            match remove_from_runtime(&pods.context, &uid).await {
                Ok(()) => remove_files(&pods.context, &uid),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), uid, "cannot remove a Pod that is gone from the API")
                }
            }
            pods.state.lock().strays.remove(&uid);
        });
    }

    /// A Pod's status as the worker last computed it; the API's may be older.
    pub fn newest(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let status = self.state.lock().workers.get(identity::uid(pod)).map(|handle| handle.status.lock().clone());
        match status {
            Some(status) => Arc::new(Pod { status: Some(status), ..Pod::clone(pod) }),
            None => pod.clone(),
        }
    }

    /// How many Pods and containers run.
    pub fn running(&self) -> (usize, usize) {
        let state = self.state.lock();
        let containers = |handle: &Handle| {
            let status = handle.status.lock();
            let running = status.container_statuses.iter().flatten();
            running.filter(|it| it.state.as_ref().is_some_and(|state| state.running.is_some())).count()
        };
        let counts: Vec<usize> = state.workers.values().map(containers).collect();
        (counts.iter().filter(|count| **count > 0).count(), counts.iter().sum())
    }
}

/// Whether a Pod's object differs in more than what its own node writes.
fn worth_waking(old: &Pod, new: &Pod) -> bool {
    let foreign = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let foreign = conditions.into_iter().filter(|it| !crate::pod::conditions::is_owned(&it.type_));
        foreign.map(|it| (it.type_, it.status)).collect::<Vec<_>>()
    };
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.deletion_grace_period_seconds != new.metadata.deletion_grace_period_seconds
        || foreign(old) != foreign(new)
}
