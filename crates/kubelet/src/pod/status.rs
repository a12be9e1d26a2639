//! A Pod's status as the API shows it, from what the runtime holds, what the probes say and what could not be started. Pure.
//!
//! The old status matters in three places, as upstream has it: restart counts and last states of containers that the runtime has
//! forgotten, a phase that is terminal already, and transition times.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{Observed, Seen, State};
use super::phase::{self, Circumstances};
use super::{conditions, ephemeral, restart};
use crate::probe::{Kind, Verdicts};
use crate::qos::{Class, is_sidecar};

/// Why a container does not run: what its waiting state says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

/// Everything that a status is made from.
pub struct Basis<'a> {
    pub pod: &'a Pod,
    /// The status last written, or the API's.
    pub old: &'a PodStatus,
    pub observed: &'a Observed,
    pub probes: &'a Verdicts,
    pub failures: &'a HashMap<String, Failure>,
    pub runtime_name: &'a str,
    pub host_ips: &'a [String],
    /// No container will be started any more.
    pub ending: bool,
    /// Why containers cannot be started yet.
    pub not_ready_to_start: Option<String>,
    /// The node has ended the Pod for a reason of its own: reason and message.
    pub ended_by_node: Option<(&'a str, &'a str)>,
    pub now: Timestamp,
}

pub fn status(basis: &Basis<'_>) -> PodStatus {
    let pod = basis.pod;
    let Some(spec) = &pod.spec else { return PodStatus::default() };
    let init_specs = spec.init_containers.as_deref().unwrap_or_default();
    let mut init = of_containers(basis, init_specs, basis.old.init_container_statuses.as_deref(), true);
    let mut containers = of_containers(basis, &spec.containers, basis.old.container_statuses.as_deref(), false);
    let ephemeral = ephemeral::containers(pod);
    let ephemeral = of_containers(basis, &ephemeral, basis.old.ephemeral_container_statuses.as_deref(), false);
    mark_ready(basis, init_specs, &mut init);
    mark_ready(basis, &spec.containers, &mut containers);
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let all: Vec<ContainerStatus> = init.iter().chain(&containers).cloned().collect();
    let ready = basis.observed.ready_sandbox().map(|sandbox| sandbox.id.as_str());
    let initialised = spec.containers.iter().any(|container| {
        let seen = ready.and_then(|sandbox| basis.observed.container_in(sandbox, &container.name));
        seen.is_some_and(|seen| matches!(seen.state, State::Running | State::Exited))
    });
    let computed = phase::phase(pod, &all, Circumstances { ending: basis.ending, initialised });
    let (phase, reason, message) = settle_phase(basis, computed);
    let conditions = conditions::conditions(&conditions::Basis {
        pod,
        old: known_conditions(basis).as_slice(),
        init: &init,
        containers: &containers,
        phase: &phase,
        not_ready_to_start: basis.not_ready_to_start.clone(),
        now: basis.now,
    });
    let ips = pod_ips(basis);
    PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(containers),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        host_ip: basis.host_ips.first().cloned(),
        host_ips: Some(basis.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(Class::of(pod).as_str().to_owned()),
        start_time: basis.old.start_time.clone().or(Some(Time(basis.now))),
        observed_generation: pod.metadata.generation,
        phase: Some(phase),
        reason,
        message,
        ..PodStatus::default()
    }
}

/// Others write conditions of theirs into the API's object; the node's own are newest in what it wrote last.
fn known_conditions(basis: &Basis<'_>) -> Vec<k8s_openapi::api::core::v1::PodCondition> {
    let of_api = basis.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let own = basis.old.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<_> = own.to_vec();
    for condition in of_api {
        match all.iter_mut().find(|known| known.type_ == condition.type_) {
            Some(known) if !conditions::is_owned(&condition.type_) => *known = condition.clone(),
            Some(_) => {}
            None => all.push(condition.clone()),
        }
    }
    // What others took away again is not kept from the last write.
    all.retain(|known| conditions::is_owned(&known.type_) || of_api.iter().any(|it| it.type_ == known.type_));
    all
}

/// A terminal phase never changes, and keeps its reason.
fn settle_phase(basis: &Basis<'_>, computed: &str) -> (String, Option<String>, Option<String>) {
    let old = basis.old.phase.as_deref();
    if let Some((reason, message)) = basis.ended_by_node
        && !phase::is_terminal(old)
    {
        return (phase::FAILED.to_owned(), Some(reason.to_owned()), Some(message.to_owned()));
    }
    let phase = if phase::is_terminal(old) { old.unwrap_or_default() } else { computed };
    if Some(phase) == old {
        return (phase.to_owned(), basis.old.reason.clone(), basis.old.message.clone());
    }
    (phase.to_owned(), None, None)
}

fn pod_ips(basis: &Basis<'_>) -> Vec<String> {
    if basis.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return basis.host_ips.to_vec();
    }
    if basis.observed.ready_sandbox().is_some() {
        return basis.observed.ips();
    }
    // A Pod that has ended keeps showing where it was.
    basis.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect()
}

fn of_containers(
    basis: &Basis<'_>,
    specs: &[Container],
    old: Option<&[ContainerStatus]>,
    init: bool,
) -> Vec<ContainerStatus> {
    let old_of = |name: &str| old.unwrap_or_default().iter().find(|status| status.name == name);
    specs.iter().map(|container| of_container(basis, container, old_of(&container.name), init)).collect()
}

fn of_container(
    basis: &Basis<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    init: bool,
) -> ContainerStatus {
    let mut instances = basis.observed.containers.iter().filter(|seen| seen.name == container.name);
    let newest = instances.next();
    let mut status = match newest {
        Some(seen) => {
            let mut status = of_seen(basis, container, seen);
            status.last_state = match instances.next().map(|previous| state_of(basis, previous)) {
                Some(previous) if previous.terminated.is_some() => Some(previous),
                _ => old.and_then(|old| last_of_old(old, &status)),
            };
            status
        }
        None => never_seen(basis, container, old),
    };
    if newest.is_none() && init && !is_sidecar(container) && regular_created(basis) && is_waiting(&status) {
        status.state = Some(ended(ContainerStateTerminated {
            reason: Some("Completed".into()),
            message: Some(
                "Unable to get init container status from container runtime and pod has been initialized, treat it as exited \
                 normally"
                    .into(),
            ),
            ..ContainerStateTerminated::default()
        }));
        return status;
    }
    if init && newest.is_some_and(|seen| seen.state == State::Exited && seen.exit_code == 0 && !is_sidecar(container)) {
        return status;
    }
    if !basis.ending
        && restart::wanted(basis.pod, container, newest)
        && let Some(failure) = basis.failures.get(&container.name)
    {
        if let Some(state) = status.state.take().filter(|state| state.terminated.is_some()) {
            status.last_state = Some(state);
        }
        status.state = Some(waiting(failure.reason, &failure.message));
    }
    status
}

fn regular_created(basis: &Basis<'_>) -> bool {
    let containers = basis.pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    containers.iter().any(|container| basis.observed.container(&container.name).is_some())
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

/// The runtime holds no instance of it: it was not created yet, or it was removed.
fn never_seen(basis: &Basis<'_>, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let init = basis.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let default_reason =
        if init.is_some_and(|init| !init.is_empty()) { "PodInitializing" } else { "ContainerCreating" };
    if let Some(old) = old
        && old.state.as_ref().is_some_and(|state| state.terminated.is_some())
    {
        return old.clone();
    }
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(default_reason, "")),
        restart_count: old.map_or(0, |old| old.restart_count),
        last_state: old.and_then(|old| old.last_state.clone()),
        volume_mounts: mount_statuses(container),
        ..ContainerStatus::default()
    };
    let ran = old.is_some_and(|old| old.state.as_ref().is_some_and(|state| state.running.is_some()));
    let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    if ran && !ended_before {
        status.last_state = Some(ended(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(
                "The container could not be located when the pod was deleted.  The container used to be Running".into(),
            ),
            exit_code: 137,
            ..ContainerStateTerminated::default()
        }));
        if basis.pod.metadata.deletion_timestamp.is_none() {
            status.restart_count += 1;
        }
    }
    status
}

fn of_seen(basis: &Basis<'_>, container: &Container, seen: &Seen) -> ContainerStatus {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.clone());
    ContainerStatus {
        name: seen.name.clone(),
        state: Some(state_of(basis, seen)),
        image: seen.image.clone(),
        image_id: seen.image_ref.clone(),
        container_id: Some(container_id(basis, seen)),
        restart_count: seen.restart_count as i32,
        allocated_resources: requests.filter(|requests| !requests.is_empty()),
        resources: container.resources.clone(),
        volume_mounts: mount_statuses(container),
        user: seen.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone()),
            }),
        }),
        ..ContainerStatus::default()
    }
}

fn container_id(basis: &Basis<'_>, seen: &Seen) -> String {
    format!("{}://{}", basis.runtime_name, seen.id)
}

fn state_of(basis: &Basis<'_>, seen: &Seen) -> ContainerState {
    let time = |at: Option<Timestamp>| at.map(|at| Time(whole_second(at)));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match seen.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(seen.started_at) }),
            ..ContainerState::default()
        },
        State::Exited => ended(ContainerStateTerminated {
            container_id: Some(container_id(basis, seen)),
            exit_code: seen.exit_code,
            reason: some(&seen.reason),
            message: some(&seen.message),
            started_at: time(seen.started_at.or(Some(Timestamp::UNIX_EPOCH))),
            finished_at: time(seen.finished_at),
            ..ContainerStateTerminated::default()
        }),
        State::Created | State::Unknown => waiting("", ""),
    }
}

/// The API's times have whole seconds; a comparison with what the API gives back must not see a difference.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The end of the instance before this one, where only the API still knows it.
fn last_of_old(old: &ContainerStatus, new: &ContainerStatus) -> Option<ContainerState> {
    let terminated = |state: &Option<ContainerState>| state.clone().filter(|state| state.terminated.is_some());
    if old.container_id != new.container_id
        && let Some(state) = terminated(&old.state)
    {
        return Some(state);
    }
    terminated(&old.last_state)
}

fn ended(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let waiting = ContainerStateWaiting { reason: some(reason), message: some(message) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn mount_statuses(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref().filter(|mounts| !mounts.is_empty())?;
    let statuses = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    });
    Some(statuses.collect())
}

/// Started and ready, by what runs and what the probes have found.
fn mark_ready(basis: &Basis<'_>, specs: &[Container], statuses: &mut [ContainerStatus]) {
    let by_name: BTreeMap<&str, &Container> =
        specs.iter().map(|container| (container.name.as_str(), container)).collect();
    for status in statuses {
        let Some(container) = by_name.get(status.name.as_str()) else { continue };
        let is_init = basis.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
        let is_plain_init =
            is_init.is_some_and(|init| init.iter().any(|it| it.name == status.name)) && !is_sidecar(container);
        let state = status.state.clone().unwrap_or_default();
        let id =
            status.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id).unwrap_or_default();
        let verdict = |kind| basis.probes.verdict(id, kind) == Some(true);
        let started =
            state.running.is_some() && (container.startup_probe.is_none() || is_plain_init || verdict(Kind::Startup));
        status.started = Some(started);
        status.ready = if is_plain_init {
            state.terminated.is_some_and(|ended| ended.exit_code == 0)
        } else {
            started && (container.readiness_probe.is_none() || verdict(Kind::Readiness))
        };
    }
}

/// The last status of a Pod whose containers have all been stopped: nothing stays without an end, and the phase is terminal.
pub fn terminated(mut status: PodStatus) -> PodStatus {
    let lost = || {
        ended(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            exit_code: 137,
            ..ContainerStateTerminated::default()
        })
    };
    let without_end = |status: &ContainerStatus| status.state.as_ref().is_none_or(|state| state.terminated.is_none());
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let initialised = init.iter().all(|it| !without_end(it) || it.started == Some(true));
    if initialised {
        for container in status.container_statuses.iter_mut().flatten().filter(|it| without_end(it)) {
            container.state = Some(lost());
            container.ready = false;
            container.started = Some(false);
        }
    }
    // Init containers before the last one that left a trace have run; the rest never began.
    if let Some(init) = &mut status.init_container_statuses {
        let traced = |it: &ContainerStatus| {
            !without_end(it)
                || it.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
                || it.started == Some(true)
        };
        let reached = init.iter().rposition(traced).map_or(0, |last| last + 1);
        for container in init[..reached].iter_mut().filter(|it| without_end(it)) {
            container.state = Some(lost());
            container.started = Some(false);
        }
    }
    if !phase::is_terminal(status.phase.as_deref()) {
        status.phase = Some(phase::FAILED.to_owned());
    }
    status
}

#[cfg(test)]
mod tests;
