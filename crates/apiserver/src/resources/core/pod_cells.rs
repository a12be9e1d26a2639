//! What a Pod's row shows: how many containers are ready, the one word for its state, restarts.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
use serde_json::Value;
use xebec_api::pod::is_sidecar;

use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, column, wide};
use crate::registry::table::human_duration;
use crate::resources::columns;
use crate::resources::validation::text;

pub const COLUMNS: &[Column] = &[
    NAME_COLUMN,
    column("Ready", "string", "How many of the Pod's containers are ready for traffic."),
    column("Status", "string", "The state of the containers in one word."),
    column("Restarts", "string", "How often its containers were restarted, and when last."),
    AGE_COLUMN,
    wide("IP", "string", "The Pod's address."),
    wide("Node", "string", "The node it runs on."),
    wide("Nominated Node", "string", "The node on which room is being made for it."),
    wide("Readiness Gates", "string", "How many of the further conditions of its readiness hold."),
];

pub fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let status = pod.status.as_ref();
    let spec = pod.spec.as_ref();
    let address = status.and_then(|status| status.pod_ips.as_ref()?.first()).map(|one| one.ip.as_str());
    vec![
        columns::name(&pod.metadata),
        Value::from(format!("{}/{}", summary.ready, summary.containers)),
        Value::from(summary.reason),
        Value::from(summary.restarts.text(now)),
        columns::age(&pod.metadata, now),
        columns::or(address, "<none>"),
        columns::or(spec.and_then(|spec| spec.node_name.as_deref()), "<none>"),
        columns::or(status.and_then(|status| status.nominated_node_name.as_deref()), "<none>"),
        Value::from(readiness_gates(spec, status)),
    ]
}

#[derive(Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += container.restart_count;
        let finished = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()?.finished_at.as_ref());
        self.last = self.last.max(finished.map(|time| time.0));
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, human_duration(now.as_second() - last.as_second()))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    containers: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Pod) -> Summary {
        let (status, spec) = (pod.status.clone().unwrap_or_default(), pod.spec.clone().unwrap_or_default());
        let phase = text(&status.phase).to_owned();
        let mut reason = if text(&status.reason).is_empty() { phase.clone() } else { text(&status.reason).to_owned() };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let gated = |reason: &Option<String>| text(reason) == "SchedulingGated";
        if conditions.iter().any(|one| one.type_ == "PodScheduled" && gated(&one.reason)) {
            reason = "SchedulingGated".to_owned();
        }
        let sidecars = spec.init_containers.iter().flatten().filter(|one| is_sidecar(one)).count();
        let mut summary =
            Summary { ready: 0, containers: spec.containers.len() + sidecars, reason, restarts: Restarts::default() };
        let mut sidecar_restarts = Restarts::default();
        let initializing = summary.init_containers(&spec, &status, &mut sidecar_restarts);
        let initialized = conditions.iter().any(|one| one.type_ == "Initialized" && one.status == "True");
        if !initializing || initialized {
            summary.restarts = sidecar_restarts;
            summary.regular_containers(&status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if text(&status.reason) == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if phase != "Succeeded" && phase != "Failed" {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Whether an init container still holds the Pod up.
    fn init_containers(&mut self, spec: &PodSpec, status: &PodStatus, sidecar_restarts: &mut Restarts) -> bool {
        let init = spec.init_containers.as_deref().unwrap_or_default();
        for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
            self.restarts.add(container);
            let sidecar = init.iter().any(|one| one.name == container.name && is_sidecar(one));
            if sidecar {
                sidecar_restarts.add(container);
            }
            let state = container.state.clone().unwrap_or_default();
            match (&state.terminated, waiting_reason(&state)) {
                (Some(ended), _) if ended.exit_code == 0 => continue,
                _ if sidecar && container.started == Some(true) => {
                    self.ready += usize::from(container.ready);
                    continue;
                }
                (Some(ended), _) => self.reason = format!("Init:{}", ending(ended)),
                (None, reason) if !reason.is_empty() && reason != "PodInitializing" => {
                    self.reason = format!("Init:{reason}");
                }
                _ => self.reason = format!("Init:{index}/{}", init.len()),
            }
            return true;
        }
        false
    }

    fn regular_containers(&mut self, status: &PodStatus) {
        let (mut running, mut failure) = (false, None);
        for container in status.container_statuses.iter().flatten().rev() {
            self.restarts.add(container);
            let state = container.state.clone().unwrap_or_default();
            match (&state.terminated, waiting_reason(&state)) {
                (_, reason) if !reason.is_empty() => self.reason = reason.to_owned(),
                (Some(ended), _) => {
                    self.reason = ending(ended);
                    if ended.exit_code != 0 {
                        failure = Some(self.reason.clone());
                    }
                }
                _ if container.ready && state.running.is_some() => {
                    running = true;
                    self.ready += 1;
                }
                _ => {}
            }
        }
        // A Pod with a finished container beside others is told by those others.
        if self.reason == "Completed" {
            let conditions = status.conditions.as_deref().unwrap_or_default();
            let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
            match failure {
                _ if running && ready => self.reason = "Running".to_owned(),
                Some(failure) => self.reason = failure,
                None if running => self.reason = "NotReady".to_owned(),
                None => {}
            }
        }
    }
}

fn waiting_reason(state: &ContainerState) -> &str {
    state.waiting.as_ref().map_or("", |waiting| text(&waiting.reason))
}

fn ending(ended: &ContainerStateTerminated) -> String {
    match (text(&ended.reason), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(spec: Option<&PodSpec>, status: Option<&PodStatus>) -> String {
    let gates = spec.and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let holds = |kind: &str| conditions.iter().find(|one| one.type_ == kind).is_some_and(|one| one.status == "True");
    format!("{}/{}", gates.iter().filter(|gate| holds(&gate.condition_type)).count(), gates.len())
}
