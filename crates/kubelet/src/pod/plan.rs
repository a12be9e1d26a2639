//! What is to be done for a Pod, from its specification and what the runtime holds. Pure: no calls, no clock.
//!
//! The rules are upstream's: one ready sandbox; init containers one after the other, sidecars among them staying; then the
//! containers, each restarted by its policy; a container whose image was changed or whose liveness or startup probe failed is
//! stopped and started again; when no container runs and none is wanted, the sandbox is stopped.

use k8s_openapi::api::core::v1::{Container, Pod};
use xebec_cri::v1::PodSandboxState;

use super::ephemeral;
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
    pub start_ephemeral: Vec<String>,
}

impl Plan {
    fn keeping(sandbox: Sandbox) -> Plan {
        Plan {
            sandbox,
            kill_pod: false,
            kill: Vec::new(),
            start_init: Vec::new(),
            start: Vec::new(),
            start_ephemeral: Vec::new(),
        }
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
    let view = View { pod, observed, probes };
    match sandbox_changed(pod, observed) {
        Some(changed) => view.with_new_sandbox(changed),
        None => view.in_sandbox(),
    }
}

/// What a plan is made from.
#[derive(Clone, Copy)]
struct View<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    probes: &'a Verdicts,
}

impl<'a> View<'a> {
    fn init_containers(self) -> &'a [Container] {
        self.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
    }

    fn containers(self) -> &'a [Container] {
        self.pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
    }

    fn with_new_sandbox(self, changed: Changed) -> Plan {
        let mut plan = Plan::keeping(Sandbox::Create { attempt: changed.attempt, replaces: changed.replaces });
        plan.kill_pod = !self.observed.sandboxes.is_empty();
        let wanted = |container: &&Container| {
            let ended = self.observed.container(&container.name).filter(|seen| seen.state == State::Exited);
            // In a new sandbox everything starts anew that has not come to its end.
            ended.is_none_or(|seen| restart::after_exit(self.pod, container, seen.exit_code))
        };
        let start: Vec<String> = self.containers().iter().filter(wanted).map(|it| it.name.clone()).collect();
        if start.is_empty() || self.failed_for_good() {
            plan.sandbox = Sandbox::None;
            return plan;
        }
        match self.init_containers().first() {
            Some(first) => plan.start_init.push(first.name.clone()),
            None => plan.start = start,
        }
        plan
    }

    /// An init container has failed and none of the policies lets it try again.
    fn failed_for_good(self) -> bool {
        self.init_containers().iter().filter(|container| !is_sidecar(container)).any(|container| {
            self.observed.container(&container.name).is_some_and(|seen| {
                seen.state == State::Exited
                    && seen.exit_code != 0
                    && !restart::after_exit(self.pod, container, seen.exit_code)
            })
        })
    }

    fn in_sandbox(self) -> Plan {
        let sandbox = &self.observed.sandboxes[0];
        let attempt = sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        let mut plan = Plan::keeping(Sandbox::Keep { id: sandbox.id.clone(), attempt });
        let ephemeral = ephemeral::containers(self.pod).into_iter().map(|container| container.name);
        plan.start_ephemeral = ephemeral.filter(|name| self.observed.container(name).is_none()).collect();
        let initialised = self.initialise(&mut plan);
        if plan.kill_pod || !initialised {
            return plan;
        }
        let keeping = self.containers().iter().filter(|container| self.keep_or_start(container, &mut plan)).count();
        if keeping == 0 && plan.start.is_empty() {
            // Sidecars alone keep no Pod alive.
            plan = Plan { kill_pod: true, ..Plan::keeping(plan.sandbox) };
        }
        plan
    }

    /// Whether the container runs and shall go on.
    fn keep_or_start(self, container: &Container, plan: &mut Plan) -> bool {
        let newest = self.observed.container(&container.name);
        if let Some(seen) = newest.filter(|seen| seen.state == State::Running) {
            let Some((message, why, again)) = self.reason_to_stop(container, seen) else { return true };
            plan.kill.push(Kill { id: seen.id.clone(), name: seen.name.clone(), message, why });
            if again || restart::after_exit(self.pod, container, 1) {
                plan.start.push(container.name.clone());
            }
        } else if restart::wanted(self.pod, container, newest) {
            kill_unknown(newest, plan);
            plan.start.push(container.name.clone());
        }
        false
    }

    /// The message, the reason, and whether it starts again whatever the policy says.
    fn reason_to_stop(self, container: &Container, seen: &Seen) -> Option<(String, Why, bool)> {
        let name = &container.name;
        if seen.hash != identity::hash(container) {
            return Some((format!("Container {name} definition changed, will be restarted"), Why::Other, true));
        }
        if self.probes.verdict(&seen.id, Kind::Liveness) == Some(false) {
            return Some((format!("Container {name} failed liveness probe, will be restarted"), Why::Liveness, false));
        }
        if self.probes.verdict(&seen.id, Kind::Startup) == Some(false) {
            return Some((format!("Container {name} failed startup probe, will be restarted"), Why::Startup, false));
        }
        None
    }

    /// Whether the containers may start. Only what happened in the present sandbox counts.
    fn initialise(self, plan: &mut Plan) -> bool {
        let sandbox = &self.observed.sandboxes[0].id;
        let seen = |container: &Container| self.observed.container_in(sandbox, &container.name);
        let init = self.init_containers();
        let begun = self.containers().iter().any(|container| seen(container).is_some());
        // The runtime may have been rid of old init containers: those before the last one that is left have done their work.
        let reached = if begun { init.len() } else { init.iter().rposition(|it| seen(it).is_some()).unwrap_or(0) };
        for (index, container) in init.iter().enumerate() {
            let newest = seen(container);
            let decided = if is_sidecar(container) {
                self.sidecar(container, newest, plan)
            } else if index < reached {
                Next::Go
            } else {
                self.plain(container, newest, plan)
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

    fn plain(self, container: &Container, newest: Option<&Seen>, plan: &mut Plan) -> Next {
        match newest {
            Some(seen) if seen.state == State::Running => Next::Wait,
            Some(seen) if seen.state == State::Exited && seen.exit_code == 0 => Next::Go,
            Some(seen) if seen.state == State::Exited && !restart::after_exit(self.pod, container, seen.exit_code) => {
                Next::Fail
            }
            other => {
                kill_unknown(other, plan);
                plan.start_init.push(container.name.clone());
                Next::Wait
            }
        }
    }

    fn sidecar(self, container: &Container, newest: Option<&Seen>, plan: &mut Plan) -> Next {
        let Some(seen) = newest.filter(|seen| seen.state == State::Running) else {
            if restart::wanted(self.pod, container, newest) {
                kill_unknown(newest, plan);
                plan.start_init.push(container.name.clone());
            }
            return Next::Wait;
        };
        if let Some((message, why, _)) = self.reason_to_stop(container, seen) {
            plan.kill.push(Kill { id: seen.id.clone(), name: seen.name.clone(), message, why });
            plan.start_init.push(container.name.clone());
            return Next::Wait;
        }
        let started = container.startup_probe.is_none() || self.probes.verdict(&seen.id, Kind::Startup) == Some(true);
        if started { Next::Go } else { Next::Wait }
    }
}

enum Next {
    Go,
    Wait,
    Fail,
}

/// Nobody knows whether it runs, so it is stopped before another takes its place.
fn kill_unknown(newest: Option<&Seen>, plan: &mut Plan) {
    if let Some(seen) = newest.filter(|seen| seen.state == State::Unknown) {
        let message = format!("Container is in {:?} state, try killing it before restart", "unknown");
        plan.kill.push(Kill { id: seen.id.clone(), name: seen.name.clone(), message, why: Why::Other });
    }
}

#[cfg(test)]
mod tests;
