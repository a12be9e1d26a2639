//! A runtime in memory, for tests: containers run until they are stopped or told to exit, failures are scripted, and every
//! changing call is recorded as one line (`CreateContainer web/app#0`).
//!
//! It keeps the rules that the agent relies on: a container needs a ready sandbox and a present image, names are unique
//! per attempt, removal wants nothing running. It runs no process and knows no network beyond an address per sandbox.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use xebec_base::SharedClock;

use crate::runtime::gone_is_fine;
use crate::v1::*;
use crate::{Code, Error, Event, Images, Result, Runtime};

/// What a started container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Runs,
    /// Ends at once with this code.
    Exits(i32),
}

type Exec = dyn Fn(&str, &[String]) -> Result<ExecSyncResponse> + Send + Sync;

pub struct Fake {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, Running>,
    present: HashSet<String>,
    pullable: HashSet<String>,
    behaviours: HashMap<String, VecDeque<Behaviour>>,
    failures: HashMap<&'static str, VecDeque<Error>>,
    exec: Option<Arc<Exec>>,
    calls: Vec<String>,
    watchers: Vec<mpsc::Sender<Event>>,
}

struct Running {
    sandbox: String,
    status: ContainerStatus,
    config: ContainerConfig,
}

impl Fake {
    pub fn new(clock: SharedClock) -> Arc<Fake> {
        Arc::new(Fake { clock, state: Mutex::default() })
    }

    /// An image that is there already.
    pub fn add_image(&self, name: &str) {
        self.state.lock().present.insert(name.to_owned());
    }

    /// An image that a pull will find; all others cannot be pulled.
    pub fn add_pullable(&self, name: &str) {
        self.state.lock().pullable.insert(name.to_owned());
    }

    /// The next starts of the container of this name, in order; after them it runs.
    pub fn behave(&self, container: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.state.lock().behaviours.entry(container.to_owned()).or_default().extend(behaviours);
    }

    /// The next call of this CRI method fails with `error`; several failures queue up.
    pub fn fail_next(&self, method: &'static str, error: Error) {
        self.state.lock().failures.entry(method).or_default().push_back(error);
    }

    /// Answers `ExecSync`; by default every command succeeds silently. The arguments: container name, command.
    pub fn on_exec(&self, exec: impl Fn(&str, &[String]) -> Result<ExecSyncResponse> + Send + Sync + 'static) {
        self.state.lock().exec = Some(Arc::new(exec));
    }

    /// Ends the running container of this name in the sandbox of the Pod of that name.
    pub fn exit(&self, pod: &str, container: &str, code: i32) {
        let mut state = self.state.lock();
        let found = state.containers.iter().find(|(_, running)| {
            running.status.state() == ContainerState::ContainerRunning
                && name_of(&running.status) == container
                && state.sandboxes.get(&running.sandbox).is_some_and(|sandbox| pod_name(sandbox) == pod)
        });
        let id =
            found.map(|(id, _)| id.clone()).unwrap_or_else(|| panic!("no running container {container} in Pod {pod}"));
        state.end(&id, code, self.now());
    }

    /// The lines recorded so far.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// The configuration of the newest container of this name.
    pub fn config_of(&self, container: &str) -> Option<ContainerConfig> {
        let state = self.state.lock();
        let newest = state.containers.values().filter(|running| name_of(&running.status) == container);
        newest.max_by_key(|running| running.status.created_at).map(|running| running.config.clone())
    }

    fn now(&self) -> i64 {
        self.clock.now().as_nanosecond() as i64
    }

    /// Records the call and takes its scripted failure, if any.
    fn enter(&self, method: &'static str, subject: &str) -> Result<()> {
        let mut state = self.state.lock();
        state.calls.push(format!("{method} {subject}"));
        state.failures.get_mut(method).and_then(VecDeque::pop_front).map_or(Ok(()), Err)
    }

    fn subject(&self, id: &str) -> String {
        let state = self.state.lock();
        let Some(running) = state.containers.get(id) else { return id.to_owned() };
        let pod = state.sandboxes.get(&running.sandbox).map(pod_name).unwrap_or_default();
        let attempt = running.status.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        format!("{pod}/{}#{attempt}", name_of(&running.status))
    }
}

impl State {
    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}-{}", self.next)
    }

    fn tell(&mut self, event: Event) {
        self.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
    }

    fn end(&mut self, id: &str, code: i32, now: i64) {
        let Some(running) = self.containers.get_mut(id) else { return };
        running.status.set_state(ContainerState::ContainerExited);
        running.status.exit_code = code;
        running.status.finished_at = now;
        running.status.reason = if code == 0 { "Completed".into() } else { "Error".into() };
        self.tell(Event::Exited { id: id.to_owned() });
    }

    fn end_all_of(&mut self, sandbox: &str, now: i64) {
        let running = self.containers.iter().filter(|(_, container)| {
            container.sandbox == sandbox && container.status.state() == ContainerState::ContainerRunning
        });
        let ids: Vec<String> = running.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.end(&id, 137, now);
        }
    }
}

fn name_of(status: &ContainerStatus) -> &str {
    status.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

fn pod_name(status: &PodSandboxStatus) -> String {
    status.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default()
}

fn not_found(call: &'static str, id: &str) -> Error {
    Error::call(call, Code::NotFound, format!("{id}: not found"))
}

fn matches(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl Runtime for Fake {
    async fn version(&self) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self) -> Result<StatusResponse> {
        let ready = |kind: &str| RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let conditions = vec![ready("RuntimeReady"), ready("NetworkReady")];
        Ok(StatusResponse { status: Some(RuntimeStatus { conditions }), ..Default::default() })
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        Ok(Some(CgroupDriver::Cgroupfs))
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let metadata = config.metadata.clone().unwrap_or_default();
        self.enter("RunPodSandbox", &metadata.name)?;
        let now = self.now();
        let mut state = self.state.lock();
        let id = state.id("sandbox");
        let options =
            config.linux.and_then(|linux| linux.security_context).and_then(|context| context.namespace_options);
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: PodSandboxState::SandboxReady as i32,
            created_at: now,
            network: Some(PodSandboxNetworkStatus { ip: format!("10.0.0.{}", state.next), ..Default::default() }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: handler.to_owned(),
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.enter("StopPodSandbox", id)?;
        let now = self.now();
        let mut state = self.state.lock();
        state.end_all_of(id, now);
        if let Some(sandbox) = state.sandboxes.get_mut(id)
            && sandbox.state() == PodSandboxState::SandboxReady
        {
            sandbox.set_state(PodSandboxState::SandboxNotready);
            state.tell(Event::Exited { id: id.to_owned() });
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.enter("RemovePodSandbox", id)?;
        let mut state = self.state.lock();
        state.containers.retain(|_, container| container.sandbox != id);
        if state.sandboxes.remove(id).is_some() {
            state.tell(Event::Deleted { id: id.to_owned() });
        }
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let state = self.state.lock();
        state.sandboxes.get(id).cloned().ok_or_else(|| not_found("PodSandboxStatus", id))
    }

    async fn pod_sandbox_info(&self, id: &str) -> Result<HashMap<String, String>> {
        self.pod_sandbox_status(id).await.map(|_| HashMap::new())
    }

    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let state = self.state.lock();
        let selected = state.sandboxes.values().filter(|sandbox| {
            (filter.id.is_empty() || sandbox.id == filter.id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox.state)
                && matches(&sandbox.labels, &filter.label_selector)
        });
        Ok(selected.cloned().map(listed_sandbox).collect())
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig, _: PodSandboxConfig) -> Result<String> {
        const CALL: &str = "CreateContainer";
        let metadata = config.metadata.clone().unwrap_or_default();
        let pod = self.state.lock().sandboxes.get(sandbox).map(pod_name).unwrap_or_default();
        self.enter(CALL, &format!("{pod}/{}#{}", metadata.name, metadata.attempt))?;
        let now = self.now();
        let mut state = self.state.lock();
        let ready = state.sandboxes.get(sandbox).is_some_and(|it| it.state() == PodSandboxState::SandboxReady);
        if !ready {
            return Err(Error::call(CALL, Code::Unknown, format!("sandbox {sandbox} is not running")));
        }
        let image = config.image.clone().unwrap_or_default();
        if !state.present.contains(&image.image) && !state.present.contains(image.image.trim_start_matches("id-of-")) {
            return Err(not_found(CALL, &image.image));
        }
        let taken = state.containers.values().any(|it| it.sandbox == sandbox && it.config.metadata == config.metadata);
        if taken {
            return Err(Error::call(CALL, Code::AlreadyExists, format!("name {} is reserved", metadata.name)));
        }
        let id = state.id("container");
        let status = ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: ContainerState::ContainerCreated as i32,
            created_at: now,
            image_ref: image.image.clone(),
            image_id: image.image.clone(),
            image: Some(image),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: config.log_path.clone(),
            ..Default::default()
        };
        state.containers.insert(id.clone(), Running { sandbox: sandbox.to_owned(), status, config });
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.enter("StartContainer", &self.subject(id))?;
        let now = self.now();
        let mut state = self.state.lock();
        let Some(running) = state.containers.get_mut(id) else { return Err(not_found("StartContainer", id)) };
        running.status.set_state(ContainerState::ContainerRunning);
        running.status.started_at = now;
        let name = name_of(&running.status).to_owned();
        let behaviour = state.behaviours.get_mut(&name).and_then(VecDeque::pop_front).unwrap_or(Behaviour::Runs);
        if let Behaviour::Exits(code) = behaviour {
            state.end(id, code, now);
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        self.enter("StopContainer", &format!("{} {}s", self.subject(id), grace.as_secs()))?;
        let now = self.now();
        let mut state = self.state.lock();
        if state.containers.get(id).is_some_and(|it| it.status.state() == ContainerState::ContainerRunning) {
            state.end(id, 143, now);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.enter("RemoveContainer", &self.subject(id))?;
        let mut state = self.state.lock();
        let running = state.containers.get(id).is_some_and(|it| it.status.state() == ContainerState::ContainerRunning);
        if running {
            return Err(Error::call("RemoveContainer", Code::Unknown, "container is running"));
        }
        if state.containers.remove(id).is_some() {
            state.tell(Event::Deleted { id: id.to_owned() });
        }
        gone_is_fine(Ok(()))
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let state = self.state.lock();
        state.containers.get(id).map(|it| it.status.clone()).ok_or_else(|| not_found("ContainerStatus", id))
    }

    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>> {
        let state = self.state.lock();
        let selected = state.containers.iter().filter(|(id, running)| {
            (filter.id.is_empty() || **id == filter.id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == running.status.state)
                && (filter.pod_sandbox_id.is_empty() || running.sandbox == filter.pod_sandbox_id)
                && matches(&running.status.labels, &filter.label_selector)
        });
        Ok(selected.map(|(_, running)| listed_container(running)).collect())
    }

    async fn update_container_resources(&self, id: &str, _: LinuxContainerResources) -> Result<()> {
        self.enter("UpdateContainerResources", &self.subject(id))
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        self.enter("ReopenContainerLog", &self.subject(id))
    }

    async fn exec_sync(&self, id: &str, command: &[String], _: Option<Duration>) -> Result<ExecSyncResponse> {
        self.enter("ExecSync", &format!("{} {}", self.subject(id), command.join(" ")))?;
        let (name, exec) = {
            let state = self.state.lock();
            let running = state.containers.get(id).ok_or_else(|| not_found("ExecSync", id))?;
            (name_of(&running.status).to_owned(), state.exec.clone())
        };
        exec.map_or_else(|| Ok(ExecSyncResponse::default()), |exec| exec(&name, command))
    }

    async fn exec(&self, request: ExecRequest) -> Result<String> {
        self.enter("Exec", &self.subject(&request.container_id)).map(|()| "http://127.0.0.1:0/exec".into())
    }

    async fn attach(&self, request: AttachRequest) -> Result<String> {
        self.enter("Attach", &self.subject(&request.container_id)).map(|()| "http://127.0.0.1:0/attach".into())
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<String> {
        self.enter("PortForward", &request.pod_sandbox_id).map(|()| "http://127.0.0.1:0/portforward".into())
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let state = self.state.lock();
        state.containers.get(id).map(stats).ok_or_else(|| not_found("ContainerStats", id))
    }

    async fn list_container_stats(&self, filter: ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let state = self.state.lock();
        let selected = state.containers.values().filter(|it| matches(&it.status.labels, &filter.label_selector));
        Ok(selected.map(stats).collect())
    }

    async fn list_pod_sandbox_stats(&self, _: PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        Ok(Vec::new())
    }

    fn watch(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(1024);
        let mut state = self.state.lock();
        state.watchers.push(sender);
        state.tell(Event::Resync);
        receiver
    }
}

fn listed_sandbox(status: PodSandboxStatus) -> PodSandbox {
    PodSandbox {
        id: status.id,
        metadata: status.metadata,
        state: status.state,
        created_at: status.created_at,
        labels: status.labels,
        annotations: status.annotations,
        runtime_handler: status.runtime_handler,
    }
}

fn listed_container(running: &Running) -> Container {
    let status = running.status.clone();
    Container {
        id: status.id,
        pod_sandbox_id: running.sandbox.clone(),
        metadata: status.metadata,
        image: status.image,
        image_ref: status.image_ref,
        state: status.state,
        created_at: status.created_at,
        labels: status.labels,
        annotations: status.annotations,
        image_id: status.image_id,
    }
}

fn stats(running: &Running) -> ContainerStats {
    let attributes = ContainerAttributes {
        id: running.status.id.clone(),
        metadata: running.status.metadata.clone(),
        labels: running.status.labels.clone(),
        annotations: running.status.annotations.clone(),
    };
    ContainerStats { attributes: Some(attributes), ..Default::default() }
}

#[async_trait]
impl Images for Fake {
    async fn pull(&self, image: ImageSpec, _: Option<AuthConfig>, _: PodSandboxConfig) -> Result<String> {
        self.enter("PullImage", &image.image)?;
        let mut state = self.state.lock();
        if !state.pullable.contains(&image.image) {
            let message = format!("failed to resolve reference \"{0}\": {0}: not found", image.image);
            return Err(Error::call("PullImage", Code::NotFound, message));
        }
        state.present.insert(image.image.clone());
        Ok(format!("id-of-{}", image.image))
    }

    async fn list(&self) -> Result<Vec<Image>> {
        Ok(self.state.lock().present.iter().map(|name| image(name)).collect())
    }

    async fn image_status(&self, name: &str) -> Result<Option<Image>> {
        let name = name.trim_start_matches("id-of-");
        Ok(self.state.lock().present.get(name).map(|name| image(name)))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.enter("RemoveImage", name)?;
        self.state.lock().present.remove(name);
        Ok(())
    }

    async fn fs_info(&self) -> Result<Vec<FilesystemUsage>> {
        Ok(Vec::new())
    }
}

fn image(name: &str) -> Image {
    Image { id: format!("id-of-{name}"), repo_tags: vec![name.to_owned()], size: 1 << 20, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_container_lives_and_dies() {
        let fake = Fake::new(xebec_base::SystemClock::shared());
        let mut events = fake.watch();
        fake.add_image("app:1");
        let metadata =
            PodSandboxMetadata { name: "web".into(), uid: "u".into(), namespace: "default".into(), attempt: 0 };
        let pod = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        let sandbox = fake.run_pod_sandbox(pod.clone(), "").await.unwrap();
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(ImageSpec { image: "app:1".into(), ..Default::default() }),
            ..Default::default()
        };
        let id = fake.create_container(&sandbox, config.clone(), pod.clone()).await.unwrap();
        let again = fake.create_container(&sandbox, config, pod).await.unwrap_err();
        assert_eq!(again.code(), Some(Code::AlreadyExists));
        fake.start_container(&id).await.unwrap();
        fake.exit("web", "app", 3);
        assert_eq!(fake.container_status(&id).await.unwrap().exit_code, 3);
        assert_eq!(events.recv().await, Some(Event::Resync));
        assert_eq!(events.recv().await, Some(Event::Exited { id }));
        let calls =
            ["RunPodSandbox web", "CreateContainer web/app#0", "CreateContainer web/app#0", "StartContainer web/app#0"];
        assert_eq!(fake.calls(), calls);
    }
}
