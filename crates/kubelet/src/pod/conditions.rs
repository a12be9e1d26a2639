//! The conditions of a Pod that its node owns. Reasons and messages are upstream's; clients print and compare them. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::phase;
use crate::qos::is_sidecar;

/// What the conditions are made from.
pub struct Basis<'a> {
    pub pod: &'a Pod,
    pub old: &'a [PodCondition],
    pub init: &'a [ContainerStatus],
    pub containers: &'a [ContainerStatus],
    pub phase: &'a str,
    /// Why containers cannot be started yet; `None` when sandbox and volumes stand.
    pub not_ready_to_start: Option<String>,
    pub now: Timestamp,
}

const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// All conditions: those of others as they are, then the node's own.
pub fn conditions(basis: &Basis<'_>) -> Vec<PodCondition> {
    let mut all: Vec<PodCondition> =
        basis.old.iter().filter(|condition| !is_owned(&condition.type_)).cloned().collect();
    let verdicts =
        [ready_to_start(basis), initialized(basis), ready(basis, &all), containers_ready(basis), Verdict::yes()];
    for (name, verdict) in OWNED.iter().zip(verdicts) {
        all.push(condition(basis, name, verdict));
    }
    all
}

/// Whether the node owns conditions of this type; those of all others are left as they are.
pub fn is_owned(name: &str) -> bool {
    OWNED.contains(&name)
}

/// Whether a condition holds, and why it does not.
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Verdict {
        Verdict { holds: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict { holds: false, reason, message: message.into() }
    }
}

fn condition(basis: &Basis<'_>, name: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let old = basis.old.iter().find(|old| old.type_ == name && old.status == status);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: some(verdict.reason),
        message: some(&verdict.message),
        last_probe_time: None,
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(basis.now))),
        observed_generation: basis.pod.metadata.generation,
    }
}

fn ready_to_start(basis: &Basis<'_>) -> Verdict {
    match &basis.not_ready_to_start {
        None => Verdict::yes(),
        Some(message) => Verdict::no("PodSandboxNotReady", message),
    }
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

fn initialized(basis: &Basis<'_>) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init_containers(basis.pod) {
        match basis.init.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) => {
                let complete = if is_sidecar(container) { status.started == Some(true) } else { status.ready };
                if !complete {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if basis.phase == phase::SUCCEEDED && unknown.is_empty() {
        return Verdict { reason: "PodCompleted", ..Verdict::yes() };
    }
    let begun = basis.containers.iter().filter_map(|status| status.state.as_ref());
    if begun.into_iter().any(|state| state.running.is_some() || state.terminated.is_some()) {
        return Verdict::yes();
    }
    let message = join(&[("unknown", &unknown), ("incomplete", &incomplete)]);
    if message.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotInitialized", message) }
}

fn containers_ready(basis: &Basis<'_>) -> Verdict {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = init_containers(basis.pod).iter().filter(|container| is_sidecar(container));
    for container in sidecars.chain(containers(basis.pod)) {
        match basis.init.iter().chain(basis.containers).find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if basis.phase == phase::SUCCEEDED && unknown.is_empty() {
        return Verdict::no("PodCompleted", "");
    }
    if basis.phase == phase::FAILED {
        return Verdict::no("PodFailed", "");
    }
    let message = join(&[("unknown", &unknown), ("unready", &unready)]);
    if message.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotReady", message) }
}

fn ready(basis: &Basis<'_>, others: &[PodCondition]) -> Verdict {
    let containers = containers_ready(basis);
    if !containers.holds {
        return containers;
    }
    let gates = basis.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let missing = gates.iter().filter_map(|gate| {
        let name = &gate.condition_type;
        match others.iter().find(|condition| condition.type_ == *name) {
            None => Some(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(found) if found.status != "True" => {
                Some(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", found.status))
            }
            Some(_) => None,
        }
    });
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() { Verdict::yes() } else { Verdict::no("ReadinessGatesNotReady", missing.join(", ")) }
}

/// `containers with unready status: [a b], …`, without the empty lists.
fn join(lists: &[(&str, &[&str])]) -> String {
    let parts = lists.iter().filter(|(_, names)| !names.is_empty());
    let parts = parts.map(|(what, names)| format!("containers with {what} status: [{}]", names.join(" ")));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(gates: &[&str], ready: bool, phase: &str, expected: &[&str]) {
        let gates: Vec<_> = gates.iter().map(|name| json!({"conditionType": name})).collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"readinessGates": gates, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]},
        }))
        .unwrap();
        let old: Vec<PodCondition> = serde_json::from_value(json!([
            {"type": "mine", "status": "True"},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]))
        .unwrap();
        let status = |name: &str, ready: bool| -> ContainerStatus {
            let whole = json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0});
            serde_json::from_value(whole).unwrap()
        };
        let basis = Basis {
            pod: &pod,
            old: &old,
            init: &[status("i", true)],
            containers: &[status("a", ready)],
            phase,
            not_ready_to_start: None,
            now: "2026-02-01T00:00:00Z".parse().unwrap(),
        };
        let all = conditions(&basis);
        let lines: Vec<String> = all
            .iter()
            .map(|it| {
                format!(
                    "{}={} {}",
                    it.type_,
                    it.status,
                    it.message.as_ref().or(it.reason.as_ref()).map_or("", |text| text)
                )
            })
            .collect();
        assert_eq!(lines, expected);
        assert_eq!(all[5].last_transition_time.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn conditions_follow_the_containers() {
        let unready = "containers with unready status: [a]";
        let start = ["mine=True ", "PodReadyToStartContainers=True ", "Initialized=True "];
        let with = |rest: [&str; 3]| {
            start.iter().map(|it| (*it).to_owned()).chain(rest.map(str::to_owned)).collect::<Vec<_>>()
        };
        let check_with = |gates: &[&str], ready: bool, phase: &str, rest: [&str; 3]| {
            let lines = with(rest);
            check(gates, ready, phase, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        };
        check_with(&[], true, "Running", ["Ready=True ", "ContainersReady=True ", "PodScheduled=True "]);
        let (ready, containers) = (format!("Ready=False {unready}"), format!("ContainersReady=False {unready}"));
        check_with(&[], false, "Running", [&ready, &containers, "PodScheduled=True "]);
        check_with(&["mine"], true, "Running", ["Ready=True ", "ContainersReady=True ", "PodScheduled=True "]);
        let gate = "Ready=False corresponding condition of pod readiness gate \"gate\" does not exist.";
        check_with(&["gate"], true, "Running", [gate, "ContainersReady=True ", "PodScheduled=True "]);
        check_with(
            &[],
            false,
            "Failed",
            ["Ready=False PodFailed", "ContainersReady=False PodFailed", "PodScheduled=True "],
        );
    }
}
