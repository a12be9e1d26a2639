//! Starting one container: image, configuration, creation, start, `postStart`. Each way to fail has upstream's reason.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use xebec_cri::v1::PodSandboxConfig;

use super::observed::Observed;
use super::status::Failure;
use super::{container, ephemeral, files, identity};
use crate::context::Context;
use crate::env::Lookup;
use crate::hook;
use crate::image::{Absent, Present, Wanted};
use crate::probe::action::Place;
use crate::volume::Mounted;

/// Why it does not run, and when to try again where that is known.
#[derive(Clone, Debug)]
pub struct Failed {
    pub failure: Failure,
    pub retry: Option<Timestamp>,
}

impl Failed {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Failed {
        Failed { failure: Failure { reason, message: message.into() }, retry: None }
    }
}

/// One start.
pub struct Start<'a> {
    pub context: &'a Context,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub sandbox_id: &'a str,
    pub sandbox: &'a PodSandboxConfig,
    pub observed: &'a Observed,
    pub ips: &'a [String],
    pub volumes: &'a Mounted,
}

impl Start<'_> {
    /// Creates and starts; returns the container's id.
    pub async fn run(&self, image: Result<Present, Absent>) -> Result<String, Failed> {
        let about = identity::reference(self.pod, Some(&self.container.name));
        let events = &self.context.events;
        let fail = |failed: Failed, shown: &str| {
            events.warning(&about, "Failed", format!("Error: {shown}"));
            failed
        };
        let image = image.map_err(|absent| {
            let reason = absent.failure.reason;
            let failed = Failed { failure: absent.failure, retry: absent.retry };
            if absent.told { failed } else { fail(failed, reason) }
        })?;
        let moment = container::Moment {
            image: &image,
            restart_count: self.restart_count(),
            ips: self.ips,
            volumes: self.volumes,
            target: self
                .target()
                .map_err(|message| fail(Failed::new("CreateContainerConfigError", message.as_str()), &message))?,
        };
        let config = container::config(self.context, self.pod, self.container, &moment).await;
        let config =
            config.map_err(|message| fail(Failed::new("CreateContainerConfigError", message.as_str()), &message))?;
        let runtime = &self.context.runtime;
        let id = runtime.create_container(self.sandbox_id, config, self.sandbox.clone()).await.map_err(|error| {
            let message = error.message();
            fail(Failed::new("CreateContainerError", message.as_str()), &message)
        })?;
        events.normal(&about, "Created", "Container created");
        runtime.start_container(&id).await.map_err(|error| {
            let message = error.message();
            fail(Failed::new("RunContainerError", message.as_str()), &message)
        })?;
        events.normal(&about, "Started", "Container started");
        Ok(id)
    }

    /// Runs the `postStart` hook of the container that has just been started.
    pub async fn post_start(&self, id: &str) -> Result<(), Failed> {
        let handler = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(handler) = handler else { return Ok(()) };
        let place = Place {
            runtime: &*self.context.runtime,
            pod: self.pod,
            container: self.container,
            container_id: id,
            pod_ip: self.ips.first().map(String::as_str).unwrap_or_default(),
        };
        hook::run(&place, &*self.context.clock, handler).await.map_err(|message| {
            // The message may hold what the command printed, which an event must not show.
            let about = identity::reference(self.pod, Some(&self.container.name));
            self.context.events.warning(&about, "FailedPostStartHook", "PostStartHook failed");
            Failed::new("PostStartHookError", message)
        })
    }

    /// The container that an ephemeral one wants to look into.
    fn target(&self) -> Result<Option<&str>, String> {
        let Some(name) = ephemeral::target(self.pod, &self.container.name) else { return Ok(None) };
        let found = self.observed.running().find(|seen| seen.name == name);
        found.map(|seen| Some(seen.id.as_str())).ok_or_else(|| format!("unable to find target container {name:?}"))
    }

    fn restart_count(&self) -> u32 {
        match self.observed.container(&self.container.name) {
            Some(newest) => newest.restart_count + 1,
            None => {
                let logs = identity::log_directory(&self.context.config.logs_dir, self.pod);
                files::restart_count_by_logs(&logs.join(&self.container.name))
            }
        }
    }
}

/// Makes sure of a container's image.
pub async fn image(
    context: &Context,
    pod: &Pod,
    container: &Container,
    sandbox: &PodSandboxConfig,
) -> Result<Present, Absent> {
    let regarding = identity::reference(pod, Some(&container.name));
    let secrets = pull_secrets(context, pod).await;
    context.puller.ensure(&Wanted { pod, container, regarding: &regarding, sandbox, secrets: &secrets }).await
}

async fn pull_secrets(context: &Context, pod: &Pod) -> Vec<Arc<Secret>> {
    let named = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
    let objects = context.objects.of(identity::uid(pod));
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for reference in named {
        match objects.secret(identity::namespace(pod), &reference.name).await {
            Ok(Some(secret)) => found.push(secret),
            _ => missing.push(reference.name.as_str()),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        context.events.warning(&identity::reference(pod, None), "FailedToRetrieveImagePullSecret", message);
    }
    found
}
