//! What is to be done for a Pod, from its specification and what the runtime holds. Pure: no calls, no clock.
//!
//! The rules are upstream's: one ready sandbox; init containers one after the other, sidecars among them staying; then the
//! containers, each restarted by its policy; a container whose image was changed or whose liveness or startup probe failed is
//! stopped and started again; when no container runs and none is wanted, the sandbox is stopped.

use k8s_openapi::api::core::v1::{Container, Pod};
use xebec_cri::v1::PodSandboxState;

use super::identity;
use super::observed::{Observed, Seen, State};
use super::restart;
use crate::probe::{Kind, Verdicts};
use crate::qos::is_sidecar;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    Keep {
        id: String,
        attempt: u32,
    },
    /// `replaces` says that there was one before, whose remains are stopped first.
    Create {
        attempt: u32,
        replaces: bool,
    },
    /// Nothing will run any more.
    None,
}

/// Why a container is stopped; it decides about the grace it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Liveness,
    Startup,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub sandbox: Sandbox,
    /// Everything that runs is stopped, the sandbox too.
    pub kill_pod: bool,
    pub kill: Vec<Kill>,
    /// Names, in order. The first init container that does not come up ends the round.
    pub start_init: Vec<String>,
    pub start: Vec<String>,
}

impl Plan {
    fn keeping(sandbox: Sandbox) -> Plan {
        Plan { sandbox, kill_pod: false, kill: Vec::new(), start_init: Vec::new(), start: Vec::new() }
    }
}

/// Whether a new sandbox is needed: the next attempt, whether one stands in the way, and what upstream says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub attempt: u32,
    pub replaces: bool,
    pub message: &'static str,
}

pub fn sandbox_changed(pod: &Pod, observed: &Observed) -> Option<Changed> {
    let Some(newest) = observed.sandboxes.first() else {
        return Some(Changed {
            attempt: 0,
            replaces: false,
            message: "No sandbox for pod can be found. Need to start a new one",
        });
    };
    let next = newest.metadata.as_ref().map_or(0, |metadata| metadata.attempt) + 1;
    let changed = |message| Some(Changed { attempt: next, replaces: true, message });
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady).count();
    if ready > 1 {
        return changed("Multiple sandboxes are ready for Pod. Need to reconcile them");
    }
    if newest.state() != PodSandboxState::SandboxReady {
        return changed("No ready sandbox for pod can be found. Need to start a new one");
    }
    let options = newest.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()).and_then(|it| it.options.as_ref());
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    if options.is_some_and(|options| options.network != crate::security::namespaces(pod).network) {
        return Some(Changed {
            attempt: next,
            replaces: false,
            message: "Sandbox for pod has changed. Need to start a new one",
        });
    }
    if !host_network && newest.network.as_ref().is_some_and(|network| network.ip.is_empty()) {
        return changed("Sandbox for pod has no IP address. Need to start a new one");
    }
    None
}

pub fn plan(pod: &Pod, observed: &Observed, probes: &Verdicts) -> Plan {
    let Some(spec) = &pod.spec else { return Plan::keeping(Sandbox::None) };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    match sandbox_changed(pod, observed) {
        Some(changed) => with_new_sandbox(pod, observed, init, &spec.containers, changed),
        None => in_sandbox(pod, observed, probes, init, &spec.containers),
    }
}

fn with_new_sandbox(
    pod: &Pod,
    observed: &Observed,
    init: &[Container],
    containers: &[Container],
    changed: Changed,
) -> Plan {
    let replaces = changed.replaces;
    let mut plan = Plan::keeping(Sandbox::Create { attempt: changed.attempt, replaces });
    plan.kill_pod = !observed.sandboxes.is_empty();
    let wanted = |container: &&Container| {
        let ended = observed.container(&container.name).filter(|seen| seen.state == State::Exited);
        // In a new sandbox everything starts anew that has not come to its end.
        ended.is_none_or(|seen| restart::after_exit(pod, container, seen.exit_code))
    };
    let start: Vec<String> = containers.iter().filter(wanted).map(|container| container.name.clone()).collect();
    if start.is_empty() || failed_for_good(pod, observed, init) {
        plan.sandbox = Sandbox::None;
        return plan;
    }
    match init.first() {
        Some(first) => plan.start_init.push(first.name.clone()),
        None => plan.start = start,
    }
    plan
}

/// An init container has failed and none of the policies lets it try again.
fn failed_for_good(pod: &Pod, observed: &Observed, init: &[Container]) -> bool {
    init.iter().filter(|container| !is_sidecar(container)).any(|container| {
        observed.container(&container.name).is_some_and(|seen| {
            seen.state == State::Exited && seen.exit_code != 0 && !restart::after_exit(pod, container, seen.exit_code)
        })
    })
}

fn in_sandbox(pod: &Pod, observed: &Observed, probes: &Verdicts, init: &[Container], containers: &[Container]) -> Plan {
    let sandbox = &observed.sandboxes[0];
    let attempt = sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    let mut plan = Plan::keeping(Sandbox::Keep { id: sandbox.id.clone(), attempt });
    let initialised = initialise(pod, observed, probes, init, containers, &mut plan);
    if plan.kill_pod || !initialised {
        return plan;
    }
    let mut keeping = 0;
    for container in containers {
        let newest = observed.container(&container.name);
        match newest.filter(|seen| seen.state == State::Running) {
            Some(seen) => match reason_to_stop(container, seen, probes) {
                Some((message, why, again)) => {
                    plan.kill.push(Kill { id: seen.id.clone(), name: seen.name.clone(), message, why });
                    if again || restart::after_exit(pod, container, 1) {
                        plan.start.push(container.name.clone());
                    }
                }
                None => keeping += 1,
            },
            None => {
                if restart::wanted(pod, container, newest) {
                    kill_unknown(newest, &mut plan);
                    plan.start.push(container.name.clone());
                }
            }
        }
    }
    if keeping == 0 && plan.start.is_empty() {
        // Sidecars alone keep no Pod alive.
        plan.kill_pod = true;
        plan.kill.clear();
        plan.start_init.clear();
    }
    plan
}

/// Nobody knows whether it runs, so it is stopped before another takes its place.
fn kill_unknown(newest: Option<&Seen>, plan: &mut Plan) {
    if let Some(seen) = newest.filter(|seen| seen.state == State::Unknown) {
        let message = format!("Container is in {:?} state, try killing it before restart", "unknown");
        plan.kill.push(Kill { id: seen.id.clone(), name: seen.name.clone(), message, why: Why::Other });
    }
}

/// The message, the reason, and whether it starts again whatever the policy says.
fn reason_to_stop(container: &Container, seen: &Seen, probes: &Verdicts) -> Option<(String, Why, bool)> {
    let name = &container.name;
    if seen.hash != identity::hash(container) {
        return Some((format!("Container {name} definition changed, will be restarted"), Why::Other, true));
    }
    if probes.verdict(&seen.id, Kind::Liveness) == Some(false) {
        return Some((format!("Container {name} failed liveness probe, will be restarted"), Why::Liveness, false));
    }
    if probes.verdict(&seen.id, Kind::Startup) == Some(false) {
        return Some((format!("Container {name} failed startup probe, will be restarted"), Why::Startup, false));
    }
    None
}

/// Whether the containers may start. Only what happened in the present sandbox counts.
fn initialise(
    pod: &Pod,
    observed: &Observed,
    probes: &Verdicts,
    init: &[Container],
    containers: &[Container],
    plan: &mut Plan,
) -> bool {
    let sandbox = &observed.sandboxes[0].id;
    let seen = |container: &Container| observed.container_in(sandbox, &container.name);
    let begun = containers.iter().any(|container| seen(container).is_some());
    // The runtime may have been rid of old init containers: those before the last one that is left have done their work.
    let reached = if begun { init.len() } else { init.iter().rposition(|it| seen(it).is_some()).unwrap_or(0) };
    for (index, container) in init.iter().enumerate() {
        let newest = seen(container);
        let decided = if is_sidecar(container) {
            sidecar(pod, container, newest, probes, plan)
        } else if index < reached {
            Next::Go
        } else {
            plain(pod, container, newest, plan)
        };
        match decided {
            Next::Go => {}
            Next::Wait if index < reached => {}
            Next::Wait => return false,
            Next::Fail => {
                plan.kill_pod = true;
                return false;
            }
        }
    }
    true
}

enum Next {
    Go,
    Wait,
    Fail,
}

fn plain(pod: &Pod, container: &Container, newest: Option<&Seen>, plan: &mut Plan) -> Next {
    match newest {
        Some(seen) if seen.state == State::Running => Next::Wait,
        Some(seen) if seen.state == State::Exited && seen.exit_code == 0 => Next::Go,
        Some(seen) if seen.state == State::Exited && !restart::after_exit(pod, container, seen.exit_code) => Next::Fail,
        other => {
            kill_unknown(other, plan);
            plan.start_init.push(container.name.clone());
            Next::Wait
        }
    }
}

fn sidecar(pod: &Pod, container: &Container, newest: Option<&Seen>, probes: &Verdicts, plan: &mut Plan) -> Next {
    let Some(seen) = newest.filter(|seen| seen.state == State::Running) else {
        if restart::wanted(pod, container, newest) {
            kill_unknown(newest, plan);
            plan.start_init.push(container.name.clone());
        }
        return Next::Wait;
    };
    if let Some((message, why, _)) = reason_to_stop(container, seen, probes) {
        plan.kill.push(Kill { id: seen.id.clone(), name: seen.name.clone(), message, why });
        plan.start_init.push(container.name.clone());
        return Next::Wait;
    }
    let started = container.startup_probe.is_none() || probes.verdict(&seen.id, Kind::Startup) == Some(true);
    if started { Next::Go } else { Next::Wait }
}

#[cfg(test)]
mod tests;
