//! The Pod's phase, from the statuses of its containers. Source: "Pod phase" in the Kubernetes documentation; the corner cases are
//! upstream's. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use super::restart;
use crate::qos::is_sidecar;

pub const PENDING: &str = "Pending";
pub const RUNNING: &str = "Running";
pub const SUCCEEDED: &str = "Succeeded";
pub const FAILED: &str = "Failed";

pub fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some(SUCCEEDED | FAILED))
}

/// What else decides beside the statuses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// No container will be started any more, whatever the restart policy says.
    pub ending: bool,
    /// A container has been started, so that a restarting sidecar does not make the Pod pending again.
    pub initialised: bool,
}

/// `statuses` holds those of init containers and containers.
pub fn phase(pod: &Pod, statuses: &[ContainerStatus], circumstances: Circumstances) -> &'static str {
    let Some(spec) = &pod.spec else { return PENDING };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let status = |container: &Container| statuses.iter().find(|status| status.name == container.name);
    let mut counts = Counts::default();
    for container in init {
        if is_sidecar(container) {
            counts.sidecar(status(container));
        } else {
            counts.init(pod, container, status(container));
        }
    }
    for container in &spec.containers {
        counts.container(pod, container, status(container));
    }
    counts.phase(circumstances)
}

#[derive(Default)]
struct Counts {
    init_pending: u32,
    init_failed_for_good: u32,
    sidecars_pending: u32,
    unknown: u32,
    running: u32,
    waiting: u32,
    stopped: u32,
    stopped_for_good: u32,
    succeeded: u32,
}

/// A container's state as far as the phase cares.
enum Now<'a> {
    Running,
    Ended(&'a ContainerStateTerminated),
    /// Waiting to run again after this end.
    Again(&'a ContainerStateTerminated),
    Waiting,
    Unknown,
}

fn now(status: Option<&ContainerStatus>) -> Now<'_> {
    let Some(status) = status else { return Now::Unknown };
    let Some(state) = &status.state else { return Now::Unknown };
    if state.running.is_some() {
        return Now::Running;
    }
    if let Some(ended) = &state.terminated {
        return Now::Ended(ended);
    }
    if state.waiting.is_none() {
        return Now::Unknown;
    }
    match status.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
        Some(ended) => Now::Again(ended),
        None => Now::Waiting,
    }
}

impl Counts {
    fn init(&mut self, pod: &Pod, container: &Container, status: Option<&ContainerStatus>) {
        match now(status) {
            Now::Ended(ended) | Now::Again(ended) if ended.exit_code != 0 => {
                self.init_failed_for_good += u32::from(!restart::after_exit(pod, container, ended.exit_code));
            }
            Now::Ended(_) | Now::Again(_) => {}
            Now::Running | Now::Waiting | Now::Unknown => self.init_pending += 1,
        }
    }

    fn sidecar(&mut self, status: Option<&ContainerStatus>) {
        match now(status) {
            Now::Running => {
                self.running += 1;
                self.sidecars_pending += u32::from(status.and_then(|it| it.started) != Some(true));
            }
            Now::Ended(_) | Now::Again(_) => {}
            Now::Waiting => {
                self.waiting += 1;
                self.sidecars_pending += 1;
            }
            Now::Unknown => self.unknown += 1,
        }
    }

    fn container(&mut self, pod: &Pod, container: &Container, status: Option<&ContainerStatus>) {
        match now(status) {
            Now::Running => self.running += 1,
            Now::Ended(ended) => {
                self.stopped += 1;
                self.stopped_for_good += u32::from(!restart::after_exit(pod, container, ended.exit_code));
                self.succeeded += u32::from(ended.exit_code == 0);
            }
            Now::Again(ended) => {
                self.stopped += 1;
                self.stopped_for_good += u32::from(!restart::after_exit(pod, container, ended.exit_code));
            }
            Now::Waiting => self.waiting += 1,
            Now::Unknown => self.unknown += 1,
        }
    }

    fn phase(&self, circumstances: Circumstances) -> &'static str {
        if self.init_failed_for_good > 0 {
            return FAILED;
        }
        let initialising = self.init_pending > 0 || (self.sidecars_pending > 0 && !circumstances.initialised);
        if initialising || self.waiting > 0 {
            return PENDING;
        }
        if self.running > 0 && self.unknown == 0 {
            return RUNNING;
        }
        if self.running > 0 || self.stopped == 0 || self.unknown > 0 {
            return PENDING;
        }
        if !circumstances.ending && self.stopped != self.stopped_for_good {
            return RUNNING;
        }
        if self.stopped == self.succeeded { SUCCEEDED } else { FAILED }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// States as `run`, `wait`, `again` (waiting after exit 1), an exit code, or `none`.
    fn status(name: &str, state: &str) -> Option<ContainerStatus> {
        let state = match state {
            "none" => return None,
            "run" => json!({"state": {"running": {}}}),
            "started" => json!({"state": {"running": {}}, "started": true}),
            "wait" => json!({"state": {"waiting": {}}}),
            "again" => json!({"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}}),
            code => json!({"state": {"terminated": {"exitCode": code.parse::<i32>().unwrap()}}}),
        };
        let mut whole = json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0});
        for (key, value) in state.as_object().unwrap() {
            whole[key] = value.clone();
        }
        Some(serde_json::from_value(whole).unwrap())
    }

    fn check(policy: &str, init: &[(&str, &str)], containers: &[&str], expected: &str) {
        let spec = |name: &str| match name.strip_prefix("side") {
            Some(_) => json!({"name": name, "restartPolicy": "Always"}),
            None => json!({"name": name}),
        };
        let init_specs: Vec<Value> = init.iter().map(|(name, _)| spec(name)).collect();
        let names: Vec<String> = (0..containers.len()).map(|index| format!("c{index}")).collect();
        let specs: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {}, "spec": {"restartPolicy": policy, "initContainers": init_specs, "containers": specs},
        }))
        .unwrap();
        let statuses: Vec<ContainerStatus> = init
            .iter()
            .filter_map(|(name, state)| status(name, state))
            .chain(names.iter().zip(containers).filter_map(|(name, state)| status(name, state)))
            .collect();
        let (ending, expected) = expected.strip_prefix("ending ").map_or((false, expected), |rest| (true, rest));
        let initialised = containers.iter().any(|state| !matches!(*state, "none" | "wait"));
        let found = phase(&pod, &statuses, Circumstances { ending, initialised });
        assert_eq!(found, expected, "{policy} {init:?} {containers:?}");
    }

    #[test]
    fn phases() {
        check("Always", &[], &["none"], PENDING);
        check("Always", &[], &["wait"], PENDING);
        check("Always", &[], &["run", "wait"], PENDING);
        check("Always", &[], &["run", "again"], RUNNING);
        check("Always", &[], &["again"], RUNNING);
        check("Always", &[], &["0"], RUNNING);
        check("Always", &[], &["0"], "ending Succeeded");
        check("Always", &[], &["0", "137"], "ending Failed");
        check("OnFailure", &[], &["0", "0"], SUCCEEDED);
        check("OnFailure", &[], &["0", "1"], RUNNING);
        check("Never", &[], &["0", "1"], FAILED);
        check("Never", &[], &["run", "1"], RUNNING);
        check("Always", &[("i", "run")], &["wait"], PENDING);
        check("Always", &[("i", "again")], &["wait"], PENDING);
        check("Never", &[("i", "1")], &["wait"], FAILED);
        check("Always", &[("i", "0")], &["run"], RUNNING);
        check("Always", &[("side", "run")], &["wait"], PENDING);
        check("Always", &[("side", "run")], &["run"], RUNNING);
        check("OnFailure", &[("side", "0")], &["0"], SUCCEEDED);
    }
}
