//! The worker's side of probes: it has each running container followed, and says in events what a probe found.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::Worker;
use xebec_cri::v1::ContainerState;

use crate::context::Context;
use crate::pod::identity;
use crate::pod::observed::Observed;
use crate::probe::action::{self, Answer, Outcome, Place};
use crate::probe::{Kind, Prober, Target};
use crate::qos;

impl Worker {
    /// Starts the probing of containers that run, ends that of the others.
    pub(super) fn follow_probes(&self, observed: &Observed) {
        let pod = self.pod();
        let mut probes = self.probes.lock();
        probes.retain(|id| observed.running().any(|seen| seen.id == id));
        let pod_ip = if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
            self.context.host_ips().first().cloned()
        } else {
            observed.ips().first().cloned()
        };
        for seen in observed.running() {
            if probes.is_followed(&seen.id) {
                continue;
            }
            let Some(container) = qos::containers(&pod).find(|container| container.name == seen.name) else { continue };
            let known = self.known_status(&seen.id);
            let target = Target {
                id: seen.id.clone(),
                container: container.clone(),
                started_at: seen.started_at.unwrap_or(seen.created_at),
                was_ready: known.as_ref().is_some_and(|status| status.ready),
                was_started: known.as_ref().is_some_and(|status| status.started == Some(true)),
            };
            let prober = PodProber {
                context: self.context.clone(),
                pod: pod.clone(),
                name: seen.name.clone(),
                id: seen.id.clone(),
                pod_ip: pod_ip.clone().unwrap_or_default(),
            };
            probes.follow(target, prober);
        }
    }

    /// What was last said of this very container: an agent that starts anew must not take a ready container out of service.
    fn known_status(&self, id: &str) -> Option<ContainerStatus> {
        let status = self.status.lock();
        let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let is = |status: &&ContainerStatus| status.container_id.as_deref().is_some_and(|known| known.ends_with(id));
        all.into_iter().find(is).cloned()
    }
}

/// Probes one container and reports in events.
struct PodProber {
    context: Arc<Context>,
    pod: Arc<Pod>,
    name: String,
    id: String,
    pod_ip: String,
}

impl Prober for PodProber {
    async fn probe(&self, kind: Kind) -> Outcome {
        let Some(container) = qos::containers(&self.pod).find(|container| container.name == self.name) else {
            return Outcome::Unknown;
        };
        let Some(probe) = kind.of(container) else { return Outcome::Unknown };
        let place = Place {
            runtime: &*self.context.runtime,
            pod: &self.pod,
            container,
            container_id: &self.id,
            pod_ip: &self.pod_ip,
        };
        let about = identity::reference(&self.pod, Some(&self.name));
        let (events, what) = (&self.context.events, kind.as_str());
        match action::probe(&place, probe).await {
            Answer::Success => Outcome::Success,
            Answer::Warning(text) => {
                events.warning(&about, "ProbeWarning", format!("{what} probe warning: {text}"));
                Outcome::Success
            }
            Answer::Failure(text) => {
                events.warning(&about, "Unhealthy", format!("{what} probe failed: {text}"));
                Outcome::Failure
            }
            Answer::Error(text) => {
                // A container that has ended meanwhile could not answer, and that is no news.
                let status = self.context.runtime.container_status(&self.id).await;
                if !status.is_ok_and(|status| status.state() == ContainerState::ContainerRunning) {
                    return Outcome::Unknown;
                }
                let message = format!("{what} probe errored and resulted in unknown state: {text}");
                events.warning(&about, "Unhealthy", message);
                Outcome::Unknown
            }
        }
    }
}
