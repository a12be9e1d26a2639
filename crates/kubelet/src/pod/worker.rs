//! The one task of a Pod on its node: from the first sight of it to the removal of its last trace.
//!
//! It runs the Pod until it must end (deleted, finished, out of time), stops it, writes the last status, deletes the object if it was
//! deleted, and clears up. What happens meanwhile only wakes it: it looks at the runtime and plans anew. While a step takes long
//! (a pull, a hook) the status still follows what happens, and a deletion interrupts the step.

mod probing;
mod sync;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use xebec_base::Chain;
use xebec_client::DeleteOptions;

use super::backoff::Backoffs;
use super::observed::{Memory, Observed};
use super::status::{self, Failure};
use super::stop::{self, Stop, Stopping};
use super::writer::Writer;
use super::{identity, phase, plan};
use crate::context::Context;
use crate::probe::Probes;
use crate::volume::{self, Mounted, Tokens};

/// However quiet it is, a Pod is looked at this often: events can be lost.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// After an error of the runtime that no event will announce the end of.
const RETRY_RUNTIME: Duration = Duration::from_secs(1);
const RETRY_STOPPING: Duration = Duration::from_secs(2);

/// What the outside says of a Pod.
#[derive(Clone)]
pub struct Assignment {
    pub pod: Arc<Pod>,
    /// The API has no such object any more.
    pub removed: bool,
}

/// Wakes a worker; any number of knocks before it looks are one.
#[derive(Default)]
pub struct Bell {
    notify: Notify,
    volumes: AtomicBool,
}

impl Bell {
    /// Something about its containers has changed.
    pub fn ring(&self) {
        self.notify.notify_one();
    }

    /// Something that its volumes show has changed.
    pub fn ring_for_volumes(&self) {
        self.volumes.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

/// Told which containers and sandboxes belong to the Pod, so that the runtime's events find their way.
pub type Claim = Arc<dyn Fn(&str) + Send + Sync>;

pub struct Worker {
    context: Arc<Context>,
    uid: String,
    assignment: watch::Receiver<Assignment>,
    bell: Arc<Bell>,
    claim: Claim,
    memory: tokio::sync::Mutex<Memory>,
    tokens: tokio::sync::Mutex<Tokens>,
    volumes: Mutex<Option<Mounted>>,
    failures: Mutex<HashMap<String, Failure>>,
    backoffs: Mutex<Backoffs>,
    probes: Mutex<Probes>,
    stopping: Stopping,
    status: Arc<Mutex<PodStatus>>,
    ended_by_node: Mutex<Option<(&'static str, &'static str)>>,
    writer: Writer,
}

/// Why a Pod stops running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Deleted,
    Finished,
    OutOfTime,
}

/// When to look again.
enum Next {
    Finished,
    Now,
    At(Option<Timestamp>),
}

impl Worker {
    pub fn new(
        context: Arc<Context>,
        assignment: watch::Receiver<Assignment>,
        bell: Arc<Bell>,
        claim: Claim,
    ) -> Worker {
        let pod = assignment.borrow().pod.clone();
        let ring = bell.clone();
        let probes = Probes::new(context.clock.clone(), Arc::new(move || ring.ring()));
        let writer = Writer::start(&context.client, context.clock.clone(), &pod);
        Worker {
            uid: identity::uid(&pod).to_owned(),
            status: Arc::new(Mutex::new(pod.status.clone().unwrap_or_default())),
            context,
            assignment,
            bell,
            claim,
            memory: tokio::sync::Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
            volumes: Mutex::default(),
            failures: Mutex::default(),
            backoffs: Mutex::default(),
            probes: Mutex::new(probes),
            stopping: Stopping::default(),
            ended_by_node: Mutex::default(),
            writer,
        }
    }

    /// The status as last computed; it stays readable while the worker runs.
    pub fn status(&self) -> Arc<Mutex<PodStatus>> {
        self.status.clone()
    }

    /// Returns when nothing of the Pod is left on the node.
    pub async fn run(self) {
        let ending = self.keep_running().await;
        if ending == Ending::OutOfTime {
            let text = "Pod was active on the node longer than the specified deadline";
            *self.ended_by_node.lock() = Some(("DeadlineExceeded", text));
            self.context.events.normal(&identity::reference(&self.pod(), None), "DeadlineExceeded", text);
        }
        self.stop().await;
        self.conclude().await;
        self.until(|assignment| assignment.removed || assignment.pod.metadata.deletion_timestamp.is_some()).await;
        self.delete_object().await;
        self.until(|assignment| assignment.removed).await;
        self.clear_up().await;
    }

    fn pod(&self) -> Arc<Pod> {
        self.assignment.borrow().pod.clone()
    }

    async fn until(&self, condition: impl Fn(&Assignment) -> bool) {
        let mut assignment = self.assignment.clone();
        let _ = assignment.wait_for(|assignment| condition(assignment)).await;
    }

    /// Keeps the Pod running until there is a reason to stop.
    async fn keep_running(&self) -> Ending {
        let terminal = |status: &PodStatus| phase::is_terminal(status.phase.as_deref());
        if terminal(&self.status.lock()) {
            return Ending::Finished;
        }
        let mut assignment = self.assignment.clone();
        loop {
            assignment.mark_unchanged();
            let next = tokio::select! {
                biased;
                ending = self.must_end() => return ending,
                next = self.sync_while_watching() => next,
            };
            let until = match next {
                Next::Finished => return Ending::Finished,
                Next::Now => continue,
                Next::At(until) => until,
            };
            let now = self.context.clock.now();
            // A time that has passed already means at once.
            let left = |until: Timestamp| Duration::try_from(until.duration_since(now)).unwrap_or_default();
            let wait = until.map_or(LONGEST_WAIT, left);
            tokio::select! {
                biased;
                ending = self.must_end() => return ending,
                () = self.bell.notify.notified() => {}
                _ = assignment.changed() => {}
                () = self.context.clock.sleep(wait.min(LONGEST_WAIT)) => {}
            }
        }
    }

    /// One round of planning and doing; what happens meanwhile goes into the status at once.
    async fn sync_while_watching(&self) -> Next {
        let round = self.sync();
        tokio::pin!(round);
        let knocked = AtomicBool::new(false);
        // Both are polled side by side: a step may hold what the other waits for.
        let watch = async {
            loop {
                self.bell.notify.notified().await;
                knocked.store(true, Ordering::Relaxed);
                self.refresh().await;
            }
        };
        tokio::select! {
            next = &mut round => if knocked.load(Ordering::Relaxed) { Next::Now } else { next },
            () = watch => Next::Now,
        }
    }

    /// Returns when the Pod is deleted or its time is over.
    async fn must_end(&self) -> Ending {
        let deleted = self.until(|it| it.removed || it.pod.metadata.deletion_timestamp.is_some());
        let pod = self.pod();
        let seconds = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let started = self.status.lock().start_time.clone();
        let deadline = async {
            match (seconds, started) {
                (Some(seconds), started) => {
                    let from = started.map_or(self.context.clock.now(), |time| time.0);
                    let left = from + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
                    let left = Duration::try_from(left.duration_since(self.context.clock.now())).unwrap_or_default();
                    self.context.clock.sleep(left).await;
                }
                (None, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = deleted => Ending::Deleted,
            () = deadline => Ending::OutOfTime,
        }
    }

    async fn observe(&self) -> Result<Observed, xebec_cri::Error> {
        let observed = self.memory.lock().await.observe(&*self.context.runtime, &self.uid).await?;
        observed.sandboxes.iter().for_each(|sandbox| (self.claim)(&sandbox.id));
        observed.containers.iter().for_each(|seen| (self.claim)(&seen.id));
        Ok(observed)
    }

    /// Brings the status up to date with what the runtime says now.
    async fn refresh(&self) {
        match self.observe().await {
            Ok(observed) => {
                self.follow_probes(&observed);
                self.publish(&observed, false);
            }
            Err(error) => tracing::debug!(error = %Chain(&error), "cannot observe a Pod"),
        }
    }

    /// Computes the status and hands it to the writer.
    fn publish(&self, observed: &Observed, ending: bool) -> PodStatus {
        let pod = self.pod();
        let old = self.status.lock().clone();
        let failures = self.failures.lock().clone();
        let verdicts = self.probes.lock().verdicts().clone();
        let sandbox = plan::sandbox_changed(&pod, observed).map(|changed| changed.message.to_owned());
        let volumes_stand = self.volumes.lock().is_some() || !observed.containers.is_empty();
        let not_ready = sandbox.or((!volumes_stand).then(|| "Volumes of pod are not mounted yet".to_owned()));
        let new = status::status(&status::Basis {
            pod: &pod,
            old: &old,
            observed,
            probes: &verdicts,
            failures: &failures,
            runtime_name: &self.context.runtime_name,
            host_ips: &self.context.host_ips(),
            ending,
            not_ready_to_start: not_ready,
            ended_by_node: *self.ended_by_node.lock(),
            now: self.context.clock.now(),
        });
        let new = if ending { status::terminated(new) } else { new };
        *self.status.lock() = new.clone();
        self.writer.post(&new);
        new
    }

    /// Stops everything; a grace that is shortened meanwhile counts at once.
    async fn stop(&self) {
        self.probes.lock().pod_is_ending();
        // What ends the Pod is told before its containers are given their grace.
        self.refresh().await;
        let mut assignment = self.assignment.clone();
        loop {
            let pod = assignment.borrow_and_update().pod.clone();
            let grace = stop::grace_of(&pod);
            let shortened = async {
                let shorter = |assignment: &Assignment| stop::grace_of(&assignment.pod) < grace;
                if assignment.wait_for(shorter).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let follow = async {
                loop {
                    self.bell.notify.notified().await;
                    self.refresh().await;
                }
            };
            let result = tokio::select! {
                result = self.stop_with(&pod, grace) => Some(result),
                () = shortened => None,
                () = follow => None,
            };
            match result {
                Some(Ok(())) => return,
                Some(Err(error)) => {
                    let message = format!("error killing pod: {error}");
                    self.context.events.warning(&identity::reference(&pod, None), "FailedKillPod", message);
                    self.context.clock.sleep(RETRY_STOPPING).await;
                }
                None => {}
            }
        }
    }

    async fn stop_with(&self, pod: &Pod, grace: Duration) -> Result<(), xebec_cri::Error> {
        let observed = self.observe().await?;
        let ips = observed.ips();
        self.stopping.pod(&Stop { context: &self.context, pod, ips: &ips }, &observed, grace).await
    }

    /// The last status, and what the containers do not need any more.
    async fn conclude(&self) {
        let observed = loop {
            match self.observe().await {
                Ok(observed) => break observed,
                Err(error) => tracing::warn!(error = %Chain(&error), "cannot observe a Pod that has ended"),
            }
            self.context.clock.sleep(RETRY_RUNTIME).await;
        };
        self.probes.lock().retain(|_| false);
        let pod_dir = self.context.config.pod_dir(&self.uid);
        for part in ["volume-subpaths", "volumes"] {
            if let Err(error) = volume::tear_down(&*self.context.kernel, &pod_dir.join(part)) {
                tracing::warn!(%error, part, "cannot take away the volumes of a Pod");
            }
        }
        *self.volumes.lock() = None;
        self.context.objects.release(&self.uid);
        if let Err(error) = self.context.cgroups.remove(&self.pod()) {
            tracing::warn!(%error, "cannot remove the cgroup of a Pod");
        }
        self.publish(&observed, true);
        tokio::select! {
            () = self.writer.flush() => {}
            () = self.until(|assignment| assignment.removed) => {}
        }
    }

    /// The object goes when its containers have: this is the node's word that they have.
    async fn delete_object(&self) {
        let pod = self.pod();
        let pods = self.context.client.namespaced::<Pod>(identity::namespace(&pod));
        loop {
            if self.assignment.borrow().removed {
                return;
            }
            match pods.delete(identity::name(&pod), &DeleteOptions::now().only(&self.uid)).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot delete the object of a Pod that has ended")
                }
            }
            self.context.clock.sleep(RETRY_STOPPING).await;
        }
    }

    /// Removes containers, sandboxes, logs and the Pod's directory.
    async fn clear_up(&self) {
        let pod = self.pod();
        loop {
            match remove_from_runtime(&self.context, &self.uid).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(error = %Chain(&error), "cannot remove what is left of a Pod"),
            }
            self.context.clock.sleep(RETRY_STOPPING).await;
        }
        self.context.puller.forget(&self.uid);
        remove_files(&self.context, &self.uid);
        let logs = identity::log_directory(&self.context.config.logs_dir, &pod);
        let _ = std::fs::remove_dir_all(logs);
    }
}

/// Stops and removes every sandbox that bears the UID, with its containers.
pub async fn remove_from_runtime(context: &Context, uid: &str) -> Result<(), xebec_cri::Error> {
    let observed = Memory::default().observe(&*context.runtime, uid).await?;
    let runtime = &context.runtime;
    for sandbox in &observed.sandboxes {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
    }
    for seen in &observed.containers {
        runtime.remove_container(&seen.id).await?;
    }
    for sandbox in &observed.sandboxes {
        runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Takes away the Pod's directory with all its mounts.
pub fn remove_files(context: &Context, uid: &str) {
    if let Err(error) = volume::tear_down(&*context.kernel, &context.config.pod_dir(uid)) {
        tracing::warn!(%error, uid, "cannot remove the directory of a Pod");
    }
}

#[cfg(test)]
mod tests;
