//! Jobs played through: every plan is carried out on the objects at hand until nothing is left to do.

use serde_json::{Value, json};

use super::*;

struct World {
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    made: usize,
    told: Vec<String>,
    again: Option<Duration>,
    deleted: bool,
}

fn world(spec: Value) -> World {
    let mut full = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {"matchLabels": {"j": "x"}},
        "template": {"metadata": {"labels": {"j": "x"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let job = json!({"metadata": {"name": "job", "namespace": "n", "uid": "ju"}, "spec": full});
    let job = serde_json::from_value(job).unwrap();
    let now = "2030-01-01T00:00:00Z".parse().unwrap();
    World { job, pods: Vec::new(), now, made: 0, told: Vec::new(), again: None, deleted: false }
}

impl World {
    fn observed(&self) -> Observed {
        let selector = self.job.spec.as_ref().unwrap().selector.as_ref();
        Observed {
            job: Some(Arc::new(self.job.clone())),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            orphans: Vec::new(),
            strays: Vec::new(),
            settled: true,
            selector: LabelSelector::from_object(selector).unwrap(),
        }
    }

    /// Plans and carries out until nothing changes.
    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = plan(&self.observed(), self.now);
            self.again = plan.again;
            if plan.actions.is_empty() {
                return;
            }
            plan.actions.into_iter().for_each(|action| self.carry_out(action));
        }
        panic!("the Job does not settle: {:?}", self.job.status);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Create(pods) => {
                for mut pod in pods {
                    self.made += 1;
                    pod.metadata.name = Some(format!("p{}", self.made));
                    pod.metadata.uid = Some(format!("u{}", self.made));
                    self.pods.push(pod);
                }
            }
            Action::Write(status) => self.job.status = Some(*status),
            Action::Tell(_, reason, _) => self.told.push(reason),
            Action::Release(pods) => pods.iter().for_each(|pod| self.release(uid(pod))),
            Action::Delete(pods) => pods.iter().for_each(|pod| self.delete(uid(pod))),
            Action::Discard(pods) => {
                for pod in pods {
                    self.release(uid(&pod));
                    self.delete(uid(&pod));
                }
            }
            Action::DeleteJob => {
                self.deleted = true;
                self.job.metadata.deletion_timestamp = Some(Time(self.now));
            }
            Action::Adopt(_) | Action::Disown(_) => unreachable!("every Pod is the Job's own"),
        }
    }

    fn release(&mut self, which: &str) {
        let pod = self.pods.iter_mut().find(|pod| uid(pod) == which);
        if let Some(pod) = pod {
            pod.metadata.finalizers = None;
            self.sweep();
        }
    }

    fn delete(&mut self, which: &str) {
        let now = Time(self.now);
        if let Some(pod) = self.pods.iter_mut().find(|pod| uid(pod) == which) {
            pod.metadata.deletion_timestamp = Some(now);
        }
        self.sweep();
    }

    /// Without a kubelet, Pods that are deleted and not held are gone.
    fn sweep(&mut self) {
        self.pods.retain(|pod| is_held(pod) || !pod::is_deleting(pod));
    }

    fn end(&mut self, name: &str, phase: &str, code: i32) {
        let pod = self.pods.iter_mut().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
        let terminated = json!({"exitCode": code, "finishedAt": self.now});
        let container = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated}});
        pod.status = Some(serde_json::from_value(json!({"phase": phase, "containerStatuses": [container]})).unwrap());
    }

    fn status(&self) -> Value {
        serde_json::to_value(self.job.status.as_ref().unwrap()).unwrap()
    }

    fn number(&self, name: &str) -> i64 {
        self.status()[name].as_i64().unwrap_or(0)
    }

    fn reason(&self, kind: &str) -> Option<String> {
        condition(&self.job, kind).and_then(|condition| condition.reason.clone())
    }

    fn active(&self) -> usize {
        self.pods.iter().filter(|pod| !pod::is_terminal(pod) && !pod::is_deleting(pod)).count()
    }
}

#[test]
fn a_job_runs_to_completion() {
    let mut world = world(json!({"completions": 3, "parallelism": 2}));
    world.settle();
    assert_eq!((world.active(), world.number("active")), (2, 2));
    assert!(world.pods.iter().all(is_held));
    world.end("p1", "Succeeded", 0);
    world.settle();
    assert_eq!((world.active(), world.number("succeeded")), (2, 1));
    for name in ["p2", "p3"] {
        world.end(name, "Succeeded", 0);
    }
    world.settle();
    assert_eq!((world.active(), world.number("succeeded"), world.number("active")), (0, 3, 0));
    assert_eq!(world.reason("Complete").as_deref(), Some("CompletionsReached"));
    assert!(condition(&world.job, "SuccessCriteriaMet").is_some() && world.told == ["Completed"]);
    assert!(world.status()["completionTime"].is_string() && !world.pods.iter().any(is_held));
}

#[test]
fn failures_wait_and_then_end_the_job() {
    let mut world = world(json!({"backoffLimit": 1}));
    world.settle();
    world.end("p1", "Failed", 1);
    world.settle();
    assert_eq!((world.active(), world.number("failed"), world.again), (0, 1, Some(BACKOFF)));
    world.now += SignedDuration::from_secs(11);
    world.settle();
    assert_eq!(world.active(), 1);
    world.end("p2", "Failed", 1);
    world.settle();
    assert_eq!(world.number("failed"), 2);
    assert_eq!(world.reason("Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(world.reason("FailureTarget").as_deref(), Some("BackoffLimitExceeded"));
}

#[test]
fn a_deadline_ends_what_runs() {
    let mut world = world(json!({"activeDeadlineSeconds": 60}));
    world.settle();
    assert_eq!(world.again, Some(Duration::from_secs(60)));
    world.now += SignedDuration::from_secs(60);
    world.settle();
    assert_eq!((world.active(), world.number("failed"), world.number("terminating")), (0, 1, 0));
    assert_eq!(world.reason("Failed").as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn indexes_are_worked_on_once_each() {
    let mut world = world(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}));
    world.settle();
    let hostnames: Vec<_> = world.pods.iter().filter_map(|pod| pod.spec.as_ref()?.hostname.clone()).collect();
    assert_eq!(hostnames, ["job-0", "job-1", "job-2"]);
    let environment = &world.pods[0].spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0];
    assert_eq!(environment.name, "JOB_COMPLETION_INDEX");
    world.end("p1", "Succeeded", 0);
    world.end("p3", "Succeeded", 0);
    world.end("p2", "Failed", 1);
    world.settle();
    assert_eq!((&world.status()["completedIndexes"], world.number("failed")), (&json!("0,2"), 1));
    world.now += SignedDuration::from_secs(11);
    world.settle();
    assert_eq!(world.pods.last().unwrap().metadata.annotations.as_ref().unwrap()[INDEX], "1");
    world.end("p4", "Succeeded", 0);
    world.settle();
    assert_eq!((&world.status()["completedIndexes"], world.number("succeeded")), (&json!("0-2"), 3));
    assert_eq!(world.reason("Complete").as_deref(), Some("CompletionsReached"));
}

#[test]
fn indexes_fail_by_themselves() {
    let mut world = world(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}));
    world.settle();
    world.end("p1", "Failed", 1);
    world.end("p2", "Succeeded", 0);
    world.settle();
    assert_eq!((world.active(), world.again), (0, Some(BACKOFF)));
    world.now += SignedDuration::from_secs(11);
    world.settle();
    let annotations = world.pods.last().unwrap().metadata.annotations.clone().unwrap();
    assert_eq!((annotations[INDEX].as_str(), annotations[FAILURES].as_str()), ("0", "1"));
    world.end("p3", "Failed", 1);
    world.settle();
    assert_eq!((&world.status()["failedIndexes"], &world.status()["completedIndexes"]), (&json!("0"), &json!("1")));
    assert_eq!((world.reason("Failed").as_deref(), world.number("failed")), (Some("FailedIndexes"), 2));
}

#[test]
fn policies_decide() {
    let rule = |action: &str| {
        json!({"podFailurePolicy": {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [7]}}]},
            "podReplacementPolicy": "Failed"})
    };
    let mut failing = world(rule("FailJob"));
    failing.settle();
    failing.end("p1", "Failed", 7);
    failing.settle();
    assert_eq!((failing.reason("Failed").as_deref(), failing.number("failed")), (Some("PodFailurePolicy"), 1));
    let mut lenient = world(rule("Ignore"));
    lenient.settle();
    lenient.end("p1", "Failed", 7);
    lenient.settle();
    lenient.now += SignedDuration::from_secs(11);
    lenient.settle();
    assert_eq!((lenient.active(), lenient.number("failed")), (1, 0));
    let mut content = world(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]}}));
    content.settle();
    content.end("p2", "Succeeded", 0);
    content.settle();
    assert_eq!((content.reason("Complete").as_deref(), content.active()), (Some("SuccessPolicy"), 0));
    assert_eq!((content.number("succeeded"), content.number("failed")), (1, 0));
}

#[test]
fn suspended_jobs_have_no_pods() {
    let mut world = world(json!({"suspend": true, "completions": 2, "parallelism": 2}));
    world.settle();
    assert_eq!((world.active(), world.reason("Suspended").as_deref()), (0, Some("JobSuspended")));
    assert!(world.status()["startTime"].is_null());
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!((world.active(), world.reason("Suspended")), (2, None));
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.settle();
    assert_eq!((world.active(), world.pods.len(), world.number("failed")), (0, 0, 0));
    assert_eq!(world.told, ["Suspended", "Resumed", "Suspended"]);
}

#[test]
fn finished_jobs_go_after_their_time() {
    let mut world = world(json!({"ttlSecondsAfterFinished": 5}));
    world.settle();
    world.end("p1", "Succeeded", 0);
    world.settle();
    assert_eq!((world.again, world.deleted), (Some(Duration::from_secs(5)), false));
    world.now += SignedDuration::from_secs(5);
    world.settle();
    assert!(world.deleted);
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "finalizers": [FINALIZER]}})).unwrap();
    let strays = vec![Arc::new(pod)];
    let observed = Observed {
        job: None,
        pods: Vec::new(),
        orphans: Vec::new(),
        strays: strays.clone(),
        settled: true,
        selector: LabelSelector::nothing(),
    };
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH).actions, [Action::Release(strays)]);
}
