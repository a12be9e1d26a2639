//! One round of a worker: observe, plan, carry out. Each failure leaves a reason in the status, an event, and a time to try again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use xebec_base::{Backoff, Chain};
use xebec_cri::v1::PodSandboxConfig;

use super::{Next, RETRY_RUNTIME, Worker};
use crate::image::{Absent, Present};
use crate::pod::backoff::go_seconds;
use crate::pod::observed::{Observed, State, sandbox_ips};
use crate::pod::plan::{self, Kill, Plan, Sandbox, Why};
use crate::pod::start::{self, Failed, Start};
use crate::pod::stop::{self, Stop};
use crate::pod::{ephemeral, identity, phase, sandbox};
use crate::qos::{self, is_sidecar};
use crate::volume::{self, Mounted, Surroundings};

/// A container whose configuration or creation failed.
const RETRY_START: Duration = Duration::from_secs(10);
/// Volumes that could not be set up: upstream's delays. What they wait for usually announces itself.
const RETRY_VOLUMES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(122));
const RETRY_SANDBOX: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// One dead instance of each container is kept, so that its log can be read.
const INSTANCES_KEPT: usize = 2;

/// The earliest of the times at which something is to be tried again.
#[derive(Default)]
struct Agenda(Option<Timestamp>);

impl Agenda {
    fn at(&mut self, time: Timestamp) {
        self.0 = Some(self.0.map_or(time, |earlier| earlier.min(time)));
    }
}

/// What a round has seen and decided.
#[derive(Clone, Copy)]
struct Round<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    plan: &'a Plan,
}

/// What containers are started in.
struct Ready {
    sandbox_id: String,
    config: PodSandboxConfig,
    ips: Vec<String>,
    volumes: Mounted,
    /// The image of the first container, looked for while the sandbox was made.
    first_image: Option<(String, Result<Present, Absent>)>,
    /// When what could not be started is tried again.
    agenda: Agenda,
}

impl Worker {
    pub(super) async fn sync(&self) -> Next {
        let pod = self.pod();
        let observed = match self.observe().await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(pod = identity::format(&pod), error = %Chain(&error), "cannot observe a Pod");
                return self.after(RETRY_RUNTIME);
            }
        };
        self.follow_probes(&observed);
        let verdicts = self.probes.lock().verdicts().clone();
        let plan = plan::plan(&pod, &observed, &verdicts);
        let status = self.publish(&observed, false);
        if phase::is_terminal(status.phase.as_deref()) {
            return Next::Finished;
        }
        let next = self.carry_out(Round { pod: &pod, observed: &observed, plan: &plan }).await;
        self.prune(&observed).await;
        next
    }

    fn after(&self, delay: Duration) -> Next {
        Next::At(Some(self.context.clock.now() + delay))
    }

    async fn carry_out(&self, round: Round<'_>) -> Next {
        let Round { pod, observed, plan } = round;
        let ips = observed.ips();
        let stop = Stop { context: &self.context, pod, ips: &ips };
        if plan.kill_pod {
            if matches!(plan.sandbox, Sandbox::Create { replaces: true, .. }) {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.context.events.normal(&identity::reference(pod, None), "SandboxChanged", message);
            }
            if let Err(error) = self.stopping.pod(&stop, observed, stop::grace_of(pod)).await {
                return self.stop_failed(pod, &error);
            }
        }
        for kill in &plan.kill {
            if let Err(error) = self.stopping.container(&stop, kill).await {
                return self.stop_failed(pod, &error);
            }
        }
        match &plan.sandbox {
            Sandbox::None => return Next::Finished,
            Sandbox::Keep { .. } if plan.kill_pod => return Next::Now,
            _ => {}
        }
        let mut agenda = Agenda::default();
        if let Some(renew) = self.volumes.lock().as_ref().and_then(|mounted| mounted.renew) {
            agenda.at(renew);
        }
        let starting = !plan.start_init.is_empty() || !plan.start.is_empty() || !plan.start_ephemeral.is_empty();
        if starting || matches!(plan.sandbox, Sandbox::Create { .. }) {
            match self.prepare(round).await {
                Ok(mut ready) => {
                    self.start_all(round, &mut ready).await;
                    ready.agenda.0.into_iter().for_each(|time| agenda.at(time));
                }
                Err(retry) => agenda.at(retry),
            }
        } else if self.volumes_are_stale() {
            match self.set_up_volumes(pod, ips.clone()).await {
                Ok(mounted) => mounted.renew.into_iter().for_each(|renew| agenda.at(renew)),
                Err(retry) => agenda.at(retry),
            }
        }
        Next::At(agenda.0)
    }

    fn stop_failed(&self, pod: &Pod, error: &xebec_cri::Error) -> Next {
        let message = format!("error killing pod: {error}");
        self.context.events.warning(&identity::reference(pod, None), "FailedKillPod", message);
        self.after(RETRY_RUNTIME)
    }

    /// The sandbox on one side, volumes and the first image on the other, at the same time: neither needs the other.
    async fn prepare(&self, round: Round<'_>) -> Result<Ready, Timestamp> {
        let Round { pod, observed, plan } = round;
        let attempt = match plan.sandbox {
            Sandbox::Keep { attempt, .. } | Sandbox::Create { attempt, .. } => attempt,
            Sandbox::None => 0,
        };
        let place = sandbox::Place {
            resolvers: &self.context.resolvers,
            logs_dir: &self.context.config.logs_dir,
            cgroup_parent: self.context.cgroups.path_of(pod),
        };
        let config = sandbox::config(pod, attempt, &place).map_err(|message| self.sandbox_failed(pod, &message))?;
        let new = matches!(plan.sandbox, Sandbox::Create { .. });
        let outfit = async {
            let volumes = self.set_up_volumes(pod, observed.ips()).await?;
            // The image is looked for only when nothing else is missing, as users know it from the order of events.
            Ok::<_, Timestamp>((volumes, self.first_image(round, &config, new).await))
        };
        let (sandbox, outfit) = tokio::join!(self.sandbox(round, config.clone()), outfit);
        let ((sandbox_id, ips), (volumes, first_image)) = (sandbox?, outfit?);
        if new {
            self.refresh().await;
        }
        Ok(Ready { sandbox_id, config, ips, volumes, first_image, agenda: Agenda::default() })
    }

    /// The id and the addresses of the Pod's sandbox, made if need be.
    async fn sandbox(&self, round: Round<'_>, config: PodSandboxConfig) -> Result<(String, Vec<String>), Timestamp> {
        let Round { pod, observed, plan } = round;
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let node = |ips: Vec<String>| if host_network { self.context.host_ips() } else { ips };
        if let Sandbox::Keep { id, .. } = &plan.sandbox {
            return Ok((id.clone(), node(observed.ips())));
        }
        if let Err(error) = self.context.cgroups.ensure(pod) {
            let message = format!("unable to ensure pod container exists: {error}");
            self.context.events.warning(&identity::reference(pod, None), "FailedCreatePodContainer", message);
            return Err(self.context.clock.now() + RETRY_START);
        }
        let logs = &config.log_directory;
        std::fs::create_dir_all(logs).map_err(|error| self.sandbox_failed(pod, &format!("create {logs}: {error}")))?;
        let runtime = &self.context.runtime;
        let handler = self.runtime_handler(pod).await.map_err(|message| self.sandbox_failed(pod, &message))?;
        let made = runtime.run_pod_sandbox(config, &handler).await;
        let id = made.map_err(|error| self.sandbox_failed(pod, &error.to_string()))?;
        (self.claim)(&id);
        let status = runtime.pod_sandbox_status(&id).await.map_err(|error| {
            let message = format!("Unable to get pod sandbox status: {error}");
            self.context.events.warning(&identity::reference(pod, None), "FailedPodSandBoxStatus", message);
            self.context.clock.now() + RETRY_RUNTIME
        })?;
        self.backoffs.lock().forget(SANDBOX);
        Ok((id, node(sandbox_ips(&status))))
    }

    /// The handler that the Pod's RuntimeClass names; an empty one is the runtime's default.
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(class) = class.filter(|name| !name.is_empty()) else { return Ok(String::new()) };
        let found = self.context.client.all::<RuntimeClass>().get(class).await;
        found.map(|class| class.handler).map_err(|error| format!("failed to get sandbox runtime: {error}"))
    }

    fn sandbox_failed(&self, pod: &Pod, message: &str) -> Timestamp {
        let message = format!("Failed to create pod sandbox: {message}");
        self.context.events.warning(&identity::reference(pod, None), "FailedCreatePodSandBox", message);
        self.next_try(SANDBOX, &RETRY_SANDBOX)
    }

    /// A delay that grows from failure to failure of the same thing.
    fn next_try(&self, what: &'static str, delays: &Backoff) -> Timestamp {
        let failures = self.backoffs.lock().count(what);
        self.context.clock.now() + delays.delay_after(failures)
    }

    fn volumes_are_stale(&self) -> bool {
        let renew = self.volumes.lock().as_ref().and_then(|mounted| mounted.renew);
        self.bell.volumes.load(Ordering::SeqCst) || renew.is_some_and(|renew| renew <= self.context.clock.now())
    }

    async fn set_up_volumes(&self, pod: &Pod, ips: Vec<String>) -> Result<Mounted, Timestamp> {
        let stale = self.volumes_are_stale();
        if let Some(mounted) = self.volumes.lock().clone().filter(|_| !stale) {
            return Ok(mounted);
        }
        self.bell.volumes.store(false, Ordering::SeqCst);
        let facts = self.context.facts(pod, ips);
        let objects = self.context.objects.of(&self.uid);
        let around = Surroundings {
            kernel: &*self.context.kernel,
            client: &self.context.client,
            objects: &objects,
            facts: &facts,
            pod_dir: self.context.config.pod_dir(&self.uid),
            now: self.context.clock.now(),
        };
        let mut tokens = self.tokens.lock().await;
        match volume::set_up(&around, &mut tokens).await {
            Ok(mounted) => {
                *self.volumes.lock() = Some(mounted.clone());
                self.backoffs.lock().forget(VOLUMES);
                Ok(mounted)
            }
            Err(failures) => {
                for (name, error) in failures {
                    let message = format!("MountVolume.SetUp failed for volume {name:?} : {error}");
                    self.context.events.warning(&identity::reference(pod, None), "FailedMount", message);
                }
                Err(self.next_try(VOLUMES, &RETRY_VOLUMES))
            }
        }
    }

    /// Only with a new sandbox: its making leaves the time.
    async fn first_image(
        &self,
        round: Round<'_>,
        config: &PodSandboxConfig,
        new: bool,
    ) -> Option<(String, Result<Present, Absent>)> {
        let Round { pod, observed, plan } = round;
        let name = plan.start_init.first().or(plan.start.first()).filter(|_| new)?;
        let container = qos::containers(pod).find(|container| container.name == *name)?;
        if self.in_backoff(pod, container, observed).is_some() {
            return None;
        }
        Some((name.clone(), start::image(&self.context, pod, container, config).await))
    }

    async fn start_all(&self, round: Round<'_>, ready: &mut Ready) {
        let Round { pod, plan, .. } = round;
        for container in ephemeral::containers(pod).iter().filter(|it| plan.start_ephemeral.contains(&it.name)) {
            self.start(round, container, ready).await;
        }
        for name in &plan.start_init {
            let Some(container) = qos::containers(pod).find(|container| container.name == *name) else { continue };
            let started = self.start(round, container, ready).await;
            if !started && !is_sidecar(container) {
                return;
            }
        }
        for name in &plan.start {
            if let Some(container) = qos::containers(pod).find(|container| container.name == *name) {
                self.start(round, container, ready).await;
            }
        }
    }

    /// Starts one container, or notes why not. Returns whether it was started.
    async fn start(&self, round: Round<'_>, container: &Container, ready: &mut Ready) -> bool {
        let Round { pod, observed, .. } = round;
        let name = &container.name;
        let waiting = self.in_backoff(pod, container, observed);
        let result = match waiting {
            Some(failed) => Err(failed),
            None => {
                self.note_try(container, observed);
                self.start_now(round, container, ready).await
            }
        };
        let started = result.is_ok();
        match result {
            Ok(()) => drop(self.failures.lock().remove(name)),
            Err(failed) => {
                ready.agenda.at(failed.retry.unwrap_or(self.context.clock.now() + RETRY_START));
                self.failures.lock().insert(name.clone(), failed.failure);
            }
        }
        self.refresh().await;
        started
    }

    async fn start_now(&self, round: Round<'_>, container: &Container, ready: &mut Ready) -> Result<(), Failed> {
        let Round { pod, observed, .. } = round;
        let prefetched = ready.first_image.take_if(|(of, _)| *of == container.name).map(|(_, image)| image);
        let image = match prefetched {
            Some(image) => image,
            None => start::image(&self.context, pod, container, &ready.config).await,
        };
        let start = Start {
            context: &self.context,
            pod,
            container,
            sandbox_id: &ready.sandbox_id,
            sandbox: &ready.config,
            observed,
            ips: &ready.ips,
            volumes: &ready.volumes,
        };
        let id = start.run(image).await?;
        (self.claim)(&id);
        if container.lifecycle.as_ref().is_none_or(|lifecycle| lifecycle.post_start.is_none()) {
            return Ok(());
        }
        self.failures.lock().remove(&container.name);
        self.refresh().await;
        if let Err(failed) = start.post_start(&id).await {
            let stop = Stop { context: &self.context, pod, ips: &ready.ips };
            let (name, message) = (container.name.clone(), "FailedPostStartHook".to_owned());
            let kill = Kill { id, name, message, why: Why::Other };
            if let Err(error) = self.stopping.container(&stop, &kill).await {
                tracing::warn!(error = %Chain(&error), "cannot stop a container whose postStart hook failed");
            }
            return Err(failed);
        }
        Ok(())
    }

    /// Whether the container's last end is still to be waited out; says so in an event.
    fn in_backoff(&self, pod: &Pod, container: &Container, observed: &Observed) -> Option<Failed> {
        let failed = last_end(container, observed)?;
        let key = crash_key(container);
        let (delay, until) = self.backoffs.lock().waiting(&key, failed, self.context.clock.now())?;
        let (name, whole) = (&container.name, identity::format(pod));
        let text = format!("Back-off restarting failed container {name} in pod {whole}");
        self.context.events.warning(&identity::reference(pod, Some(name)), "BackOff", text);
        let message = format!("back-off {} restarting failed container={name} pod={whole}", go_seconds(delay));
        Some(Failed { retry: Some(until), ..Failed::new("CrashLoopBackOff", message) })
    }

    fn note_try(&self, container: &Container, observed: &Observed) {
        if let Some(failed) = last_end(container, observed) {
            self.backoffs.lock().advance(&crash_key(container), failed, self.context.clock.now());
        }
    }

    /// Removes instances and sandboxes that nobody will ask for any more.
    async fn prune(&self, observed: &Observed) {
        let mut kept: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
        let mut left: std::collections::HashSet<&str> = std::collections::HashSet::new();
        for seen in &observed.containers {
            let count = kept.entry(&seen.name).or_default();
            *count += 1;
            let dead = matches!(seen.state, State::Exited | State::Created);
            if *count <= INSTANCES_KEPT || !dead {
                left.insert(&seen.sandbox);
                continue;
            }
            match self.context.runtime.remove_container(&seen.id).await {
                Ok(()) if !seen.log_path.is_empty() => drop(std::fs::remove_file(&seen.log_path)),
                Ok(()) => {}
                Err(error) => tracing::debug!(error = %Chain(&error), "cannot remove an old container yet"),
            }
        }
        for sandbox in observed.sandboxes.iter().skip(1).filter(|sandbox| !left.contains(sandbox.id.as_str())) {
            let runtime = &self.context.runtime;
            let removed = async {
                runtime.stop_pod_sandbox(&sandbox.id).await?;
                runtime.remove_pod_sandbox(&sandbox.id).await
            };
            if let Err(error) = removed.await {
                tracing::debug!(error = %Chain(&error), "cannot remove an old sandbox yet");
            }
        }
    }
}

/// Keys of the worker's own delays beside those of containers.
const SANDBOX: &str = "the sandbox";
const VOLUMES: &str = "the volumes";

/// A changed image starts without a past.
fn crash_key(container: &Container) -> String {
    format!("{} {}", container.name, identity::hash(container))
}

fn last_end(container: &Container, observed: &Observed) -> Option<Timestamp> {
    let of_name = observed.containers.iter().filter(|seen| seen.name == container.name);
    of_name.into_iter().find(|seen| seen.state == State::Exited)?.finished_at
}
