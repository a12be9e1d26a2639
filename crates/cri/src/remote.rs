//! CRI over a unix socket. One HTTP/2 connection serves all calls and is made anew after the runtime restarted; a call that
//! meets no runtime fails with `Unavailable` at once, and its caller decides when to try again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::runtime::gone_is_fine;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::{Error, Event, Images, Result, Runtime, events};

/// Upstream's `--runtime-request-timeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Setting up a sandbox may wait for a network plugin: twice the usual limit, as upstream gives it.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(240);
/// Listing a node of a few hundred Pods passes gRPC's default of 4 MiB; upstream allows 16 MiB.
const MESSAGE_LIMIT: usize = 16 << 20;
/// Events buffered for a reader that is busy; beyond that the runtime's stream waits.
const EVENT_BUFFER: usize = 1024;

/// A client of the runtime that listens on a unix socket. Cloning shares the connection.
#[derive(Clone)]
pub struct Remote {
    socket: PathBuf,
    channel: Channel,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Remote {
    /// `endpoint` is a path or `unix://PATH`. No connection is made before the first call; must be called within tokio.
    pub fn new(endpoint: &str) -> Remote {
        let socket = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let channel = connect_lazily(&socket);
        Remote {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            socket,
            channel,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn runtime_client(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }
}

/// The authority in the URI is only a placeholder that HTTP/2 asks for.
fn connect_lazily(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

fn request<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// tonic's own limit on a call ends it with `Cancelled`; Go's clients call the same thing `DeadlineExceeded`.
pub(crate) fn failed(call: &'static str) -> impl Fn(Status) -> Error {
    move |status| {
        let timed_out = status.code() == Code::Cancelled && status.message().contains("Timeout expired");
        let code = if timed_out { Code::DeadlineExceeded } else { status.code() };
        Error::call(call, code, status.message())
    }
}

fn present<T>(value: Option<T>, call: &'static str, field: &'static str) -> Result<T> {
    value.ok_or(Error::Incomplete { call, field })
}

/// Sends one request of the runtime service and returns the whole answer.
macro_rules! call {
    ($client:expr, $method:ident, $name:literal, $message:expr) => {
        call!($client, $method, $name, $message, CALL_TIMEOUT)
    };
    ($client:expr, $method:ident, $name:literal, $message:expr, $timeout:expr) => {
        $client
            .clone()
            .$method(request($message, $timeout))
            .await
            .map(|answer| answer.into_inner())
            .map_err(failed($name))
    };
}

#[async_trait]
impl Runtime for Remote {
    async fn version(&self) -> Result<VersionResponse> {
        call!(self.runtime, version, "Version", VersionRequest { version: "v1".into() })
    }

    async fn status(&self) -> Result<StatusResponse> {
        call!(self.runtime, status, "Status", StatusRequest { verbose: false })
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        match call!(self.runtime, runtime_config, "RuntimeConfig", RuntimeConfigRequest {}) {
            Ok(answer) => Ok(answer.linux.map(|linux| linux.cgroup_driver())),
            Err(error) if error.code() == Some(Code::Unimplemented) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let message = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        call!(self.runtime, run_pod_sandbox, "RunPodSandbox", message, SANDBOX_TIMEOUT)
            .map(|answer| answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let message = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, stop_pod_sandbox, "StopPodSandbox", message).map(drop))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let message = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, remove_pod_sandbox, "RemovePodSandbox", message).map(drop))
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus> {
        let message = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = call!(self.runtime, pod_sandbox_status, "PodSandboxStatus", message)?;
        present(answer.status, "PodSandboxStatus", "status")
    }

    async fn pod_sandbox_info(&self, id: &str) -> Result<HashMap<String, String>> {
        let message = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        call!(self.runtime, pod_sandbox_status, "PodSandboxStatus", message).map(|answer| answer.info)
    }

    async fn list_pod_sandboxes(&self, filter: PodSandboxFilter) -> Result<Vec<PodSandbox>> {
        let message = ListPodSandboxRequest { filter: Some(filter) };
        call!(self.runtime, list_pod_sandbox, "ListPodSandbox", message).map(|answer| answer.items)
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig, pod: PodSandboxConfig) -> Result<String> {
        let message = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod),
        };
        call!(self.runtime, create_container, "CreateContainer", message).map(|answer| answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let message = StartContainerRequest { container_id: id.to_owned() };
        call!(self.runtime, start_container, "StartContainer", message).map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let message = StopContainerRequest { container_id: id.to_owned(), timeout: grace.as_secs() as i64 };
        gone_is_fine(call!(self.runtime, stop_container, "StopContainer", message, CALL_TIMEOUT + grace).map(drop))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let message = RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(call!(self.runtime, remove_container, "RemoveContainer", message).map(drop))
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let message = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = call!(self.runtime, container_status, "ContainerStatus", message)?;
        present(answer.status, "ContainerStatus", "status")
    }

    async fn list_containers(&self, filter: ContainerFilter) -> Result<Vec<Container>> {
        let message = ListContainersRequest { filter: Some(filter) };
        call!(self.runtime, list_containers, "ListContainers", message).map(|answer| answer.containers)
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let message = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            annotations: HashMap::new(),
        };
        call!(self.runtime, update_container_resources, "UpdateContainerResources", message).map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let message = ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime, reopen_container_log, "ReopenContainerLog", message).map(drop)
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Option<Duration>) -> Result<ExecSyncResponse> {
        let seconds = timeout.map_or(0, |timeout| timeout.as_secs() as i64);
        let message = ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout: seconds };
        // Without a limit of its own the command may run as long as it likes.
        let limit = timeout.map_or(Duration::from_secs(24 * 3600), |timeout| timeout + CALL_TIMEOUT);
        call!(self.runtime, exec_sync, "ExecSync", message, limit)
    }

    async fn exec(&self, message: ExecRequest) -> Result<String> {
        call!(self.runtime, exec, "Exec", message).map(|answer| answer.url)
    }

    async fn attach(&self, message: AttachRequest) -> Result<String> {
        call!(self.runtime, attach, "Attach", message).map(|answer| answer.url)
    }

    async fn port_forward(&self, message: PortForwardRequest) -> Result<String> {
        call!(self.runtime, port_forward, "PortForward", message).map(|answer| answer.url)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let message = ContainerStatsRequest { container_id: id.to_owned() };
        let answer = call!(self.runtime, container_stats, "ContainerStats", message)?;
        present(answer.stats, "ContainerStats", "stats")
    }

    async fn list_container_stats(&self, filter: ContainerStatsFilter) -> Result<Vec<ContainerStats>> {
        let message = ListContainerStatsRequest { filter: Some(filter) };
        call!(self.runtime, list_container_stats, "ListContainerStats", message).map(|answer| answer.stats)
    }

    async fn list_pod_sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>> {
        let message = ListPodSandboxStatsRequest { filter: Some(filter) };
        call!(self.runtime, list_pod_sandbox_stats, "ListPodSandboxStats", message).map(|answer| answer.stats)
    }

    fn watch(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(EVENT_BUFFER);
        tokio::spawn(events::follow(self.clone(), sender));
        receiver
    }
}

#[async_trait]
impl Images for Remote {
    async fn pull(&self, image: ImageSpec, auth: Option<AuthConfig>, pod: PodSandboxConfig) -> Result<String> {
        let message = PullImageRequest { image: Some(image), auth, sandbox_config: Some(pod) };
        // A pull has no limit of its own: containerd ends one that makes no progress.
        let answer = self.images.clone().pull_image(Request::new(message)).await;
        answer.map(|answer| answer.into_inner().image_ref).map_err(failed("PullImage"))
    }

    async fn list(&self) -> Result<Vec<Image>> {
        let message = ListImagesRequest { filter: None };
        call!(self.images, list_images, "ListImages", message).map(|answer| answer.images)
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        let message = ImageStatusRequest { image: Some(spec(image)), verbose: false };
        call!(self.images, image_status, "ImageStatus", message).map(|answer| answer.image)
    }

    async fn remove(&self, image: &str) -> Result<()> {
        let message = RemoveImageRequest { image: Some(spec(image)) };
        gone_is_fine(call!(self.images, remove_image, "RemoveImage", message).map(drop))
    }

    async fn fs_info(&self) -> Result<Vec<FilesystemUsage>> {
        call!(self.images, image_fs_info, "ImageFsInfo", ImageFsInfoRequest {}).map(|answer| answer.image_filesystems)
    }
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}
