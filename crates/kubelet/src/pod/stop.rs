//! Stopping containers: `preStop` first, then the stop signal, then, after the grace, SIGKILL by the runtime.
//!
//! Containers of a Pod are stopped side by side; sidecars after them, the last one first, with what is left of the grace.
//! Source: "Termination of Pods" in the Kubernetes documentation.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use xebec_cri::v1::PodSandboxState;

use super::identity;
use super::observed::{Observed, Seen};
use super::plan::{Kill, Why};
use crate::context::Context;
use crate::hook;
use crate::probe::action::Place;
use crate::qos::{self, is_sidecar};

/// Every container is given at least this long, so that a grace of 0 does not lose what a moment would save.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// One Pod's stopping. It remembers whose `preStop` has run, so that a shortened grace does not run it again.
#[derive(Default)]
pub struct Stopping {
    begun: Mutex<HashSet<String>>,
}

/// What a stop needs to know.
pub struct Stop<'a> {
    pub context: &'a Context,
    pub pod: &'a Pod,
    pub ips: &'a [String],
}

/// The grace that the Pod's deletion or specification gives.
pub fn grace_of(pod: &Pod) -> Duration {
    let deleted = pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds);
    let given = deleted.or(pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
    Duration::from_secs(u64::try_from(given.unwrap_or(30)).unwrap_or_default())
}

/// A probe may have a grace of its own for the container that failed it.
fn grace_for(pod: &Pod, container: &Container, why: Why) -> Duration {
    let probe = match why {
        Why::Liveness => container.liveness_probe.as_ref(),
        Why::Startup => container.startup_probe.as_ref(),
        Why::Other => None,
    };
    let own =
        probe.and_then(|probe| probe.termination_grace_period_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    match (pod.metadata.deletion_timestamp.is_some(), own) {
        (false, Some(seconds)) => Duration::from_secs(seconds),
        _ => grace_of(pod),
    }
}

/// A container that is being stopped.
struct Target<'a> {
    id: &'a str,
    spec: &'a Container,
}

impl Stopping {
    /// Stops one container for a reason of its own.
    pub async fn container(&self, stop: &Stop<'_>, kill: &Kill) -> Result<(), xebec_cri::Error> {
        let runtime = &stop.context.runtime;
        let Some(spec) = spec_of(stop.pod, &kill.name) else {
            return runtime.stop_container(&kill.id, LEAST_GRACE).await;
        };
        let target = Target { id: &kill.id, spec };
        self.announce(stop, &target, &kill.message);
        let left = self.pre_stop(stop, &target, grace_for(stop.pod, spec, kill.why)).await;
        runtime.stop_container(&kill.id, left).await
    }

    /// Stops everything that runs, then the sandboxes.
    pub async fn pod(&self, stop: &Stop<'_>, observed: &Observed, grace: Duration) -> Result<(), xebec_cri::Error> {
        let runtime = &stop.context.runtime;
        let (sidecars, others): (Vec<&Seen>, Vec<&Seen>) =
            observed.running().partition(|seen| spec_of(stop.pod, &seen.name).is_some_and(is_sidecar));
        let began = stop.context.clock.elapsed();
        let ordinary = try_join_all(others.iter().map(|seen| self.within(stop, seen, grace)));
        let hooks = join_all(sidecars.iter().map(|seen| self.prepared(stop, seen, grace)));
        let (ordinary, _) = futures::join!(ordinary, hooks);
        ordinary?;
        let order = |seen: &&&Seen| {
            let init = stop.pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
            init.iter().position(|container| container.name == seen.name)
        };
        let mut sidecars: Vec<&&Seen> = sidecars.iter().collect();
        sidecars.sort_by_key(|seen| std::cmp::Reverse(order(seen)));
        for seen in sidecars {
            let left = grace.saturating_sub(stop.context.clock.elapsed().saturating_sub(began)).max(LEAST_GRACE);
            runtime.stop_container(&seen.id, left).await?;
        }
        let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady);
        try_join_all(ready.map(|sandbox| runtime.stop_pod_sandbox(&sandbox.id))).await.map(drop)
    }

    async fn within(&self, stop: &Stop<'_>, seen: &Seen, grace: Duration) -> Result<(), xebec_cri::Error> {
        let left = self.prepared(stop, seen, grace).await;
        stop.context.runtime.stop_container(&seen.id, left).await
    }

    /// Announces and runs the hook; returns what is left of the grace.
    async fn prepared(&self, stop: &Stop<'_>, seen: &Seen, grace: Duration) -> Duration {
        let Some(spec) = spec_of(stop.pod, &seen.name) else { return grace.max(LEAST_GRACE) };
        let target = Target { id: &seen.id, spec };
        self.announce(stop, &target, &format!("Stopping container {}", seen.name));
        self.pre_stop(stop, &target, grace).await
    }

    fn announce(&self, stop: &Stop<'_>, target: &Target<'_>, message: &str) {
        if !self.begun.lock().contains(target.id) {
            let about = identity::reference(stop.pod, Some(&target.spec.name));
            stop.context.events.normal(&about, "Killing", message);
        }
    }

    async fn pre_stop(&self, stop: &Stop<'_>, target: &Target<'_>, grace: Duration) -> Duration {
        let first = self.begun.lock().insert(target.id.to_owned());
        let container = target.spec;
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let Some(handler) = handler.filter(|_| first && !grace.is_zero()) else { return grace.max(LEAST_GRACE) };
        let place = Place {
            runtime: &*stop.context.runtime,
            pod: stop.pod,
            container,
            container_id: target.id,
            pod_ip: stop.ips.first().map(String::as_str).unwrap_or_default(),
        };
        let clock = &stop.context.clock;
        let began = clock.elapsed();
        tokio::select! {
            result = hook::run(&place, &**clock, handler) => {
                if let Err(error) = result {
                    tracing::info!(error, container = container.name, "a preStop hook failed");
                    let about = identity::reference(stop.pod, Some(&container.name));
                    stop.context.events.warning(&about, "FailedPreStopHook", "PreStopHook failed");
                }
            }
            () = clock.sleep(grace) => {}
        }
        grace.saturating_sub(clock.elapsed().saturating_sub(began)).max(LEAST_GRACE)
    }
}

fn spec_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    qos::containers(pod).find(|container| container.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(metadata: serde_json::Value, why: Why, expected: u64) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": {"terminationGracePeriodSeconds": 20, "containers": [
                {"name": "c", "livenessProbe": {"terminationGracePeriodSeconds": 5}},
            ]},
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(grace_for(&pod, container, why).as_secs(), expected, "{metadata} {why:?}");
    }

    #[test]
    fn graces() {
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 3});
        check(json!({}), Why::Other, 20);
        check(json!({}), Why::Liveness, 5);
        check(json!({}), Why::Startup, 20);
        check(deleted.clone(), Why::Other, 3);
        check(deleted, Why::Liveness, 3);
    }
}
