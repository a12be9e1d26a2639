//! The decisions about one Job: which Pods to make and to end, what to count, and whether it is over. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::{LabelSelector, pod};
use xebec_runtime::Plan;

use super::indexes::{self, INDEX, Index};
use super::policy::{self, Verdict};
use crate::replicas::{controller_reference, pod_of_template, victims};

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const MANAGER: &str = "kubernetes.io/job-controller";
/// At most this many Pods are made or ended in one round, as upstream.
const BURST: usize = 500;
/// At most this many uids wait in the status, which has to fit into an object.
const MAX_UNCOUNTED: usize = 500;
/// Between a failure and the next try; doubled with each failure, up to the second.
const BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_secs(600);
/// What names may be at most before their random end.
const MAX_PREFIX: usize = 58;

pub struct Observed {
    /// Absent when only its Pods are left.
    pub job: Option<Arc<Job>>,
    /// Those that the Job owns.
    pub pods: Vec<Arc<Pod>>,
    /// Those that nobody owns and the Job selects.
    pub orphans: Vec<Arc<Pod>>,
    /// Those that wait to be counted by a Job that is gone.
    pub strays: Vec<Arc<Pod>>,
    /// Everything written before has come back.
    pub settled: bool,
    pub selector: LabelSelector,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Adopt(Arc<Pod>),
    Disown(Arc<Pod>),
    /// They are counted, or never will be: their finalizer goes.
    Release(Vec<Arc<Pod>>),
    Delete(Vec<Arc<Pod>>),
    /// Ended without being counted.
    Discard(Vec<Arc<Pod>>),
    Create(Vec<Pod>),
    Write(Box<JobStatus>),
    /// A warning, or not; its reason and text.
    Tell(bool, String, String),
    DeleteJob,
}

/// How a Job ends.
#[derive(Clone, Debug)]
struct End {
    failed: bool,
    reason: String,
    message: String,
}

pub fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let mut actions = Vec::new();
    if !observed.strays.is_empty() {
        actions.push(Action::Release(observed.strays.clone()));
    }
    let Some((job, spec)) = observed.job.as_ref().and_then(|job| Some((job, job.spec.as_ref()?))) else {
        return Plan::of(actions);
    };
    if spec.managed_by.as_ref().is_some_and(|manager| manager != MANAGER) {
        return Plan::of(actions);
    }
    if let Some(condition) = condition(job, "Complete").or(condition(job, "Failed")) {
        return finished(observed, job, condition, actions, now);
    }
    let orphans = observed.orphans.iter().filter(|pod| !pod::is_deleting(pod));
    let adopted: Vec<_> = orphans.cloned().map(Action::Adopt).collect();
    if !adopted.is_empty() {
        // They are counted with the others when they are the Job's own.
        actions.extend(adopted);
        return Plan::of(actions);
    }
    let deleting = job.metadata.deletion_timestamp.is_some();
    let (pods, strangers): (Vec<_>, Vec<_>) = observed
        .pods
        .iter()
        .cloned()
        .partition(|pod| deleting || observed.selector.matches_map(pod.metadata.labels.as_ref()));
    actions.extend(strangers.into_iter().map(Action::Disown));
    let mut round = Round::new(job, spec, pods, now);
    round.run(observed.settled && !deleting, observed.settled);
    let Round { actions: more, again, .. } = round;
    actions.extend(more);
    Plan { actions, again }
}

/// A finished Job keeps its Pods, and goes itself when its time is over.
fn finished(
    observed: &Observed,
    job: &Job,
    condition: &JobCondition,
    mut actions: Vec<Action>,
    now: Timestamp,
) -> Plan<Action> {
    let held: Vec<_> = observed.pods.iter().filter(|pod| is_held(pod)).cloned().collect();
    if !held.is_empty() {
        actions.push(Action::Release(held));
    }
    let kept = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let since = condition.last_transition_time.as_ref();
    let (Some(kept), Some(since), None) = (kept, since, &job.metadata.deletion_timestamp) else {
        return Plan::of(actions);
    };
    match until(since.0 + SignedDuration::from_secs(kept.into()), now) {
        Some(left) => Plan::of(actions).again_after(left),
        None => {
            actions.push(Action::DeleteJob);
            Plan::of(actions)
        }
    }
}

/// How long it is until then; `None` when it is past.
fn until(then: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|left| !left.is_zero())
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether a Pod waits to be counted.
pub fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

fn number(pod: &Pod, annotation: &str) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(annotation));
    text.and_then(|text| text.parse().ok()).unwrap_or(0).max(0)
}

/// One look at a Job that is not finished.
struct Round<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
    indexed: bool,
    status: JobStatus,
    /// Uids in the status that are not numbers yet.
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
    active: Vec<Arc<Pod>>,
    terminating: i32,
    done: BTreeSet<Index>,
    lost: BTreeSet<Index>,
    /// The last failed Pod of an index that has no other yet: it is held until there is one.
    replaceable: BTreeMap<Index, Arc<Pod>>,
    later: Vec<Action>,
    actions: Vec<Action>,
    told: Vec<Action>,
    again: Option<Duration>,
}

impl<'a> Round<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, mut pods: Vec<Arc<Pod>>, now: Timestamp) -> Self {
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let completions = spec.completions.unwrap_or(0);
        pods.sort_by_cached_key(|pod| (indexes::of(pod, completions), pod.metadata.name.clone()));
        let status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let is_running = |pod: &&Arc<Pod>| !pod::is_terminal(pod);
        let (terminating, active): (Vec<_>, Vec<_>) =
            pods.iter().filter(is_running).cloned().partition(|pod| pod::is_deleting(pod));
        let text = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or(""), completions);
        Round {
            done: text(&status.completed_indexes),
            lost: text(&status.failed_indexes),
            job,
            spec,
            pods,
            now,
            indexed,
            status,
            succeeded: uncounted.succeeded.into_iter().flatten().collect(),
            failed: uncounted.failed.into_iter().flatten().collect(),
            active,
            terminating: terminating.len() as i32,
            replaceable: BTreeMap::new(),
            later: Vec::new(),
            actions: Vec::new(),
            told: Vec::new(),
            again: None,
        }
    }

    fn run(&mut self, may_manage: bool, settled: bool) {
        self.absorb();
        if self.status.start_time.is_none() && !self.is_suspended() {
            self.status.start_time = Some(Time(self.now));
        }
        let (succeeded, failed) = self.totals();
        let counted = self.done.clone();
        let mut end = self.end(failed);
        let succeeded = if self.indexed {
            self.note_indexes();
            end = end.or_else(|| self.end_by_indexes());
            self.done.len() as i32
        } else {
            succeeded
        };
        if end.is_some() {
            if !self.active.is_empty() {
                self.actions.push(Action::Delete(self.active.clone()));
            }
            self.terminating += self.active.len() as i32;
            self.active.clear();
            end = end.filter(|_| settled);
        } else {
            if may_manage {
                self.manage(succeeded);
            }
            let complete = match self.spec.completions {
                None => succeeded > 0 && settled,
                Some(completions) => succeeded >= completions,
            };
            if complete && self.active.is_empty() {
                let message = "Reached expected number of succeeded pods".to_owned();
                end = Some(End { failed: false, reason: "CompletionsReached".to_owned(), message });
            } else if may_manage {
                self.note_suspension();
            }
        }
        let released = self.count(end.as_ref(), &counted);
        self.write(end);
        if !released.is_empty() {
            self.actions.push(Action::Release(released));
        }
        self.actions.append(&mut self.later);
    }

    /// Uids whose Pods are not held any more become numbers.
    fn absorb(&mut self) {
        let held: BTreeSet<&str> = self.pods.iter().filter(|pod| is_held(pod)).map(|pod| uid(pod)).collect();
        for (uids, number) in
            [(&mut self.succeeded, &mut self.status.succeeded), (&mut self.failed, &mut self.status.failed)]
        {
            let before = uids.len();
            uids.retain(|uid| held.contains(uid.as_str()));
            *number = Some(number.unwrap_or(0) + (before - uids.len()) as i32);
        }
    }

    fn completions(&self) -> Index {
        self.spec.completions.unwrap_or(0)
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Whether only Pods that ended are replaced, and not those that are about to (KEP-3939).
    fn waits_for_ends(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn is_failed(&self, pod: &Pod) -> bool {
        match pod::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pod::is_deleting(pod) && !self.waits_for_ends(),
        }
    }

    fn index(&self, pod: &Pod) -> Option<Index> {
        indexes::of(pod, self.completions())
    }

    /// Whether a Pod is to be counted and has not been.
    fn is_new(&self, pod: &Pod) -> bool {
        is_held(pod)
            && !self.succeeded.contains(uid(pod))
            && !self.failed.contains(uid(pod))
            && (!self.indexed || self.index(pod).is_some())
    }

    /// How many succeeded and failed, those that are not in the status yet included.
    fn totals(&self) -> (i32, i32) {
        let new = || self.pods.iter().filter(|pod| self.is_new(pod));
        let succeeded = new().filter(|pod| pod::phase(pod) == "Succeeded").count() + self.succeeded.len();
        let counts = |pod: &&Arc<Pod>| self.is_failed(pod) && policy::verdict(self.job, pod) != Verdict::Ignored;
        let failed = new().filter(counts).count() + self.failed.len();
        let status = |number: Option<i32>| number.unwrap_or(0);
        (status(self.status.succeeded) + succeeded as i32, status(self.status.failed) + failed as i32)
    }

    fn end(&mut self, failed: i32) -> Option<End> {
        let standing = |condition: &JobCondition| End {
            failed: condition.type_ == "FailureTarget",
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        };
        let target = condition(self.job, "SuccessCriteriaMet").or(condition(self.job, "FailureTarget"));
        if let Some(condition) = target {
            return Some(standing(condition));
        }
        let failure = |reason: &str, message: &str| {
            Some(End { failed: true, reason: reason.to_owned(), message: message.to_owned() })
        };
        for pod in self.pods.iter().filter(|pod| self.is_failed(pod)) {
            if let Verdict::FailsJob(why) = policy::verdict(self.job, pod) {
                return failure("PodFailurePolicy", &why);
            }
        }
        if failed > self.spec.backoff_limit.unwrap_or(6) || self.restarted_too_often() {
            return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let (deadline, start) = (self.spec.active_deadline_seconds?, self.status.start_time.as_ref()?);
        if self.is_suspended() {
            return None;
        }
        match until(start.0 + SignedDuration::from_secs(deadline), self.now) {
            Some(left) => self.look_again(left),
            None => return failure("DeadlineExceeded", "Job was active longer than specified deadline"),
        }
        None
    }

    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |standing| standing.min(after)));
    }

    /// Containers that are started again in place count towards the limit too.
    fn restarted_too_often(&self) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pod::phase(pod), "Running" | "Pending"));
        let statuses = running.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        restarts >= self.spec.backoff_limit.unwrap_or(6).max(1)
    }

    /// Notes the indexes that are done and those that are lost for good, with the Pods of others that are to be replaced.
    fn note_indexes(&mut self) {
        let held = || self.pods.iter().filter(|pod| is_held(pod)).filter_map(|pod| Some((self.index(pod)?, pod)));
        let done: Vec<_> = held().filter(|(_, pod)| pod::phase(pod) == "Succeeded").map(|(index, _)| index).collect();
        let Some(limit) = self.spec.backoff_limit_per_index else {
            self.done.extend(done);
            return;
        };
        let is_lost = |pod: &Pod| match policy::verdict(self.job, pod) {
            Verdict::FailsIndex => true,
            Verdict::Ignored => false,
            _ => number(pod, FAILURES) >= limit,
        };
        let failed = || held().filter(|(_, pod)| self.is_failed(pod));
        let lost: Vec<_> = failed().filter(|(_, pod)| is_lost(pod)).map(|(index, _)| index).collect();
        let running: BTreeSet<Index> = self.active.iter().filter_map(|pod| self.index(pod)).collect();
        let mut replaceable: BTreeMap<Index, Arc<Pod>> = BTreeMap::new();
        let known = |index: &Index| {
            self.done.contains(index) || self.lost.contains(index) || done.contains(index) || lost.contains(index)
        };
        for (index, pod) in failed().filter(|(index, _)| !known(index) && !running.contains(index)) {
            let later = |pod: &Pod| (tries(pod), ended_at(pod));
            if replaceable.get(&index).is_none_or(|standing| later(standing) <= later(pod)) {
                replaceable.insert(index, pod.clone());
            }
        }
        self.done.extend(done);
        self.lost.extend(lost);
        self.replaceable = replaceable;
    }

    fn end_by_indexes(&self) -> Option<End> {
        let failure = |reason: &str, message: &str| {
            Some(End { failed: true, reason: reason.to_owned(), message: message.to_owned() })
        };
        if self.spec.backoff_limit_per_index.is_some() {
            let lost = self.lost.len() as i32;
            if self.spec.max_failed_indexes.is_some_and(|most| lost > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return failure("MaxFailedIndexesExceeded", message);
            }
            if lost > 0 && lost + self.done.len() as i32 >= self.completions() {
                return failure("FailedIndexes", "Job has failed indexes");
            }
        }
        let message = policy::success(self.job, &self.done, self.completions())?;
        Some(End { failed: false, reason: "SuccessPolicy".to_owned(), message })
    }

    /// Makes and ends Pods so that as many run as should.
    fn manage(&mut self, succeeded: i32) {
        if self.is_suspended() {
            self.discard(self.active.clone());
            return;
        }
        let active = self.active.len();
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.spec.completions {
            None if succeeded > 0 => active,
            None => parallelism as usize,
            Some(completions) => (completions - succeeded).clamp(0, parallelism) as usize,
        };
        let surplus = self.surplus(active.saturating_sub(wanted));
        if !surplus.is_empty() {
            self.discard(surplus);
            return;
        }
        let ending = if self.waits_for_ends() { self.terminating as usize } else { 0 };
        let missing = wanted.saturating_sub(ending + active).min(BURST);
        if missing == 0 {
            return;
        }
        if self.spec.backoff_limit_per_index.is_none()
            && let Some(left) = self.backoff()
        {
            self.look_again(left);
            return;
        }
        let pods: Vec<Pod> = if self.indexed {
            let indexes = self.pending(missing);
            indexes.into_iter().map(|index| self.pod(Some(index))).collect()
        } else {
            (0..missing).map(|_| self.pod(None)).collect()
        };
        if !pods.is_empty() {
            self.later.push(Action::Create(pods));
        }
    }

    fn discard(&mut self, pods: Vec<Arc<Pod>>) {
        if pods.is_empty() {
            return;
        }
        let gone: BTreeSet<&str> = pods.iter().map(|pod| uid(pod)).collect();
        self.active.retain(|pod| !gone.contains(uid(pod)));
        self.terminating += pods.len() as i32;
        self.later.push(Action::Discard(pods));
    }

    /// Pods to be ended: those whose index is another's or nobody's, then as many as are too many.
    fn surplus(&self, count: usize) -> Vec<Arc<Pod>> {
        let mut left = self.active.clone();
        let mut surplus = Vec::new();
        if self.indexed {
            let mut seen: BTreeMap<Index, Arc<Pod>> = BTreeMap::new();
            for pod in std::mem::take(&mut left) {
                let Some(index) = self.index(&pod) else {
                    surplus.push(pod);
                    continue;
                };
                if let Some(other) = seen.remove(&index) {
                    let worse = victims(vec![other.clone(), pod.clone()], 1).remove(0);
                    seen.insert(index, if uid(&worse) == uid(&pod) { other } else { pod });
                    surplus.push(worse);
                } else {
                    seen.insert(index, pod);
                }
            }
            left = seen.into_values().collect();
        }
        if surplus.len() < count {
            let more = count - surplus.len();
            surplus.extend(victims(left, more));
        }
        surplus.truncate(BURST);
        surplus
    }

    /// The first indexes that nobody works on, has done or has lost, and that need not wait after a failure.
    fn pending(&mut self, count: usize) -> Vec<Index> {
        let mut taken: BTreeSet<Index> = self.done.union(&self.lost).copied().collect();
        let works = |pod: &&Arc<Pod>| !pod::is_terminal(pod) && (self.waits_for_ends() || !pod::is_deleting(pod));
        taken.extend(self.pods.iter().filter(works).filter_map(|pod| self.index(pod)));
        let free: Vec<Index> = (0..self.completions()).filter(|index| !taken.contains(index)).take(count).collect();
        let (mut now, mut waiting) = (Vec::new(), None);
        for index in free {
            let failed = self.replaceable.get(&index);
            match failed.and_then(|pod| until(ended_at(pod) + backoff_after(tries(pod) + 1), self.now)) {
                None => now.push(index),
                Some(left) => waiting = Some(waiting.map_or(left, |least: Duration| least.min(left))),
            }
        }
        if let Some(left) = waiting {
            self.look_again(left);
        }
        now
    }

    /// How long to wait after the failures since the last success; `None` when it is over.
    fn backoff(&self) -> Option<Duration> {
        let times = |wanted: &dyn Fn(&Pod) -> bool| -> Vec<Timestamp> {
            self.pods.iter().filter(|pod| wanted(pod)).map(|pod| ended_at(pod)).collect()
        };
        let success = times(&|pod| pod::phase(pod) == "Succeeded").into_iter().max();
        // A Pod that was discarded is being deleted too, and did not fail.
        let mut failures = times(&|pod| self.is_failed(pod) && (pod::phase(pod) == "Failed" || is_held(pod)));
        failures.retain(|time| success.is_none_or(|success| *time > success));
        let last = failures.iter().max()?;
        until(*last + backoff_after(failures.len() as i32), self.now)
    }

    fn pod(&self, index: Option<Index>) -> Pod {
        let name = self.job.metadata.name.as_deref().unwrap_or("");
        let mut pod = pod_of_template(&self.spec.template, controller_reference(self.job));
        let finalizers = pod.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|one| one == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        let Some(index) = index else { return pod };
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.to_owned(), index.to_string());
        if self.spec.backoff_limit_per_index.is_some() {
            let (failures, ignored) = self.replaceable.get(&index).map_or((0, 0), |failed| {
                let counts = policy::verdict(self.job, failed) != Verdict::Ignored;
                let (failures, ignored) = (number(failed, FAILURES), number(failed, IGNORED_FAILURES));
                (failures + i32::from(counts), ignored + i32::from(!counts))
            });
            annotations.insert(FAILURES.to_owned(), failures.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
            }
        }
        pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
        let end = format!("-{index}-");
        let kept = name.len().min(MAX_PREFIX - end.len());
        pod.metadata.generate_name = Some(format!("{}{end}", &name[..kept]));
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{name}-{index}"));
            spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell_index);
        }
        pod
    }

    fn note_suspension(&mut self) {
        let standing = self.status.conditions.iter().flatten().find(|condition| condition.type_ == "Suspended");
        let was = standing.map(|condition| condition.status == "True");
        let (status, reason, event, message) = match (self.is_suspended(), was) {
            (true, None | Some(false)) => ("True", "JobSuspended", "Suspended", "Job suspended"),
            (false, Some(true)) => ("False", "JobResumed", "Resumed", "Job resumed"),
            _ => return,
        };
        self.status.start_time = (!self.is_suspended()).then_some(Time(self.now));
        self.set_condition("Suspended", status, reason, message);
        self.told.push(Action::Tell(false, event.to_owned(), message.to_owned()));
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }

    /// Notes the uids of Pods that ended; returns those that need not be held after that.
    fn count(&mut self, end: Option<&End>, counted: &BTreeSet<Index>) -> Vec<Arc<Pod>> {
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        let mut released = Vec::new();
        let mut done = counted.clone();
        for pod in self.pods.iter().filter(|pod| is_held(pod)) {
            let (succeeded, failed) = (pod::phase(pod) == "Succeeded", self.is_failed(pod));
            let replaceable = self.index(pod).and_then(|index| self.replaceable.get(&index));
            let waits = replaceable.is_some_and(|other| uid(other) == uid(pod));
            if !(deleting || end.is_some() || succeeded || (failed && !waits)) {
                continue;
            }
            released.push(pod.clone());
            let (known, fits) = (self.failed.contains(uid(pod)), !self.indexed || self.index(pod).is_some());
            if succeeded && !known {
                match self.index(pod).filter(|_| self.indexed) {
                    Some(index) => drop(done.insert(index)),
                    None if !self.indexed => drop(self.succeeded.insert(uid(pod).to_owned())),
                    None => {}
                }
            } else if (failed || end.is_some_and(|end| end.failed)) && !known && fits {
                let ignored = failed && policy::verdict(self.job, pod) == Verdict::Ignored;
                if !ignored {
                    self.failed.insert(uid(pod).to_owned());
                }
            }
            if self.succeeded.len() + self.failed.len() >= MAX_UNCOUNTED {
                break;
            }
        }
        if self.indexed {
            self.status.succeeded = Some(done.len() as i32);
            self.status.completed_indexes = Some(indexes::format(&done)).filter(|text| !text.is_empty());
            let lost = self.spec.backoff_limit_per_index.map(|_| indexes::format(&self.lost));
            self.status.failed_indexes = lost;
        }
        released
    }

    /// Writes the status if it changed. The Job is finished when everything is counted and no Pod is left.
    fn write(&mut self, end: Option<End>) {
        if let Some(End { failed, reason, message }) = end {
            let target = if failed { "FailureTarget" } else { "SuccessCriteriaMet" };
            if condition(self.job, target).is_none() {
                self.set_condition(target, "True", &reason, &message);
            }
            if self.succeeded.is_empty() && self.failed.is_empty() && self.terminating == 0 {
                self.set_condition(if failed { "Failed" } else { "Complete" }, "True", &reason, &message);
                self.status.completion_time = (!failed).then_some(Time(self.now));
                self.told.push(match failed {
                    true => Action::Tell(true, reason, message),
                    false => Action::Tell(false, "Completed".to_owned(), "Job completed".to_owned()),
                });
            }
        }
        let list = |uids: &BTreeSet<String>| (!uids.is_empty()).then(|| uids.iter().cloned().collect());
        let uncounted = UncountedTerminatedPods { succeeded: list(&self.succeeded), failed: list(&self.failed) };
        let mut status = self.status.clone();
        status.uncounted_terminated_pods = Some(uncounted);
        status.active = Some(self.active.len() as i32);
        status.ready = Some(self.active.iter().filter(|pod| pod::is_ready(pod)).count() as i32);
        status.terminating = Some(self.terminating);
        let standing = self.job.status.clone().unwrap_or_default();
        if normal(status.clone()) != normal(standing) {
            self.actions.push(Action::Write(Box::new(normal(status))));
            self.actions.append(&mut self.told);
        }
    }
}

/// A status in the one form that is written and compared: what Go leaves out when empty is left out.
fn normal(mut status: JobStatus) -> JobStatus {
    for number in [&mut status.active, &mut status.succeeded, &mut status.failed] {
        *number = number.filter(|number| *number != 0);
    }
    status.uncounted_terminated_pods.get_or_insert_default();
    status.conditions = status.conditions.filter(|conditions| !conditions.is_empty());
    status
}

/// How often an index was tried in vain before this Pod.
fn tries(pod: &Pod) -> i32 {
    number(pod, FAILURES) + number(pod, IGNORED_FAILURES)
}

fn backoff_after(failures: i32) -> SignedDuration {
    let doubled = BACKOFF.saturating_mul(1 << (failures - 1).clamp(0, 16));
    SignedDuration::from_secs(doubled.min(MAX_BACKOFF).as_secs() as i64)
}

/// When a Pod ended, as well as its status tells.
fn ended_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ends: Option<Vec<Timestamp>> =
        containers.iter().map(|one| Some(one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)).collect();
    let unready = || {
        let mut conditions = status?.conditions.iter().flatten();
        let condition = conditions.find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref().map(|time| time.0 - grace)
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let ended = ends.and_then(|ends| ends.into_iter().max());
    ended.or_else(unready).or_else(deleted).or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Containers learn their index from an environment variable, unless they have one of that name.
fn tell_index(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let env = container.env.get_or_insert_default();
    if env.iter().any(|one| one.name == NAME) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: NAME.to_owned(), value_from: Some(source), ..EnvVar::default() });
}

#[cfg(test)]
mod tests;
