//! The two traits that the agent is written against. They carry the protocol's own messages and no policy: what to create,
//! when to stop and what to retry is the caller's business.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::v1::*;
use crate::{Error, Result};

/// Something happened to a container or a sandbox; ids are the runtime's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Events may have been missed, or the runtime has come back: list everything again.
    Resync,
    /// A container's first process, or a sandbox, has ended, and the runtime's status says so.
    Exited { id: String },
    /// The kernel killed a process of the container for want of memory.
    OutOfMemory { id: String },
    /// The container or sandbox is gone from the runtime.
    Deleted { id: String },
}

/// Sandboxes and containers. Every call may be repeated; stopping or removing what is gone succeeds.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    async fn version(&self) -> Result<VersionResponse>;
    /// The conditions `RuntimeReady` and `NetworkReady`, handlers and features.
    async fn status(&self) -> Result<StatusResponse>;
    /// `None` where the runtime does not tell (containerd before 2.0).
    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>>;

    /// Returns the sandbox's id once its network stands.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String>;
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus>;
    /// The runtime's own details of a sandbox (JSON texts by key); the `info` entry holds the process id, for example.
    async fn pod_sandbox_info(&self, id: &str) -> Result<HashMap<String, String>>;
    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>>;

    async fn create_container(&self, sandbox: &str, config: ContainerConfig, pod: PodSandboxConfig) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Sends the stop signal, and SIGKILL after `grace`; returns once the container has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus>;
    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>>;
    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()>;
    async fn reopen_container_log(&self, id: &str) -> Result<()>;

    /// Runs `command` and gathers its output; a `timeout` that passes is [`crate::Code::DeadlineExceeded`].
    async fn exec_sync(&self, id: &str, command: &[String], timeout: Option<Duration>) -> Result<ExecSyncResponse>;
    /// The URL of the runtime's streaming server for this exec.
    async fn exec(&self, request: ExecRequest) -> Result<String>;
    async fn attach(&self, request: AttachRequest) -> Result<String>;
    async fn port_forward(&self, request: PortForwardRequest) -> Result<String>;

    async fn container_stats(&self, id: &str) -> Result<ContainerStats>;
    async fn list_container_stats(&self, filter: ContainerStatsFilter) -> Result<Vec<ContainerStats>>;
    async fn list_pod_sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>>;

    /// Begins to follow the runtime; the stream lasts until the receiver is dropped, and starts with a `Resync`.
    fn watch(&self) -> mpsc::Receiver<Event>;
}

/// The runtime's images.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Returns the reference to give to containers: the image's id.
    async fn pull(&self, image: ImageSpec, auth: Option<AuthConfig>, pod: PodSandboxConfig) -> Result<String>;
    async fn list(&self) -> Result<Vec<Image>>;
    /// `None` where the image is not present.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;
    async fn remove(&self, image: &str) -> Result<()>;
    async fn fs_info(&self) -> Result<Vec<FilesystemUsage>>;
}

/// Stopping or removing what is already gone is success: the caller wanted it gone.
pub(crate) fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Call { code: crate::Code::NotFound, .. }) => Ok(()),
        other => other,
    }
}
