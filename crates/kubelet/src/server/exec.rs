//! `/exec`, `/attach` and `/run`: commands in containers.
//!
//! The runtime's streaming server is asked for a connection of its own first, so that what it refuses becomes an answer
//! in HTTP; only then is the client's connection upgraded, and the two are joined.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use xebec_base::Chain;
use xebec_cri::v1::{AttachRequest, ContainerFilter, ContainerState, ContainerStateValue, ExecRequest};
use xebec_streaming::remote_command::{Options, Outcome, accept, client, relay};
use xebec_streaming::upgrade::is_upgrade;

use super::NodeServer;
use super::answer::{Answer, error, json, runtime_error, upgrade};

/// The labels by which the agent's containers are found in the runtime.
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The container that a path names.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    /// Where it stands in the path, the Pod has to have it.
    pub uid: Option<&'a str>,
    pub container: &'a str,
}

/// Runs a command and joins its streams with the client's.
pub async fn exec(server: &NodeServer, request: Request<Incoming>, target: Target<'_>) -> Response<Answer> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (options, pod) = match prepare(server, request.headers(), &query, target) {
        Ok(prepared) => prepared,
        Err(refusal) => return *refusal,
    };
    let container_id = match running_container(server, &pod, target).await {
        Ok(Some(id)) => id,
        Ok(None) => return error(StatusCode::INTERNAL_SERVER_ERROR, not_found(target)),
        Err(failure) => return runtime_error(&failure),
    };
    let Options { stdin, stdout, stderr, tty } = options;
    let cmd = values(&query, "command");
    let url = server.containers.exec(ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }).await;
    stream(server, request, url, options)
}

/// Joins the client's streams with those of the container's first process.
pub async fn attach(server: &NodeServer, request: Request<Incoming>, target: Target<'_>) -> Response<Answer> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (options, pod) = match prepare(server, request.headers(), &query, target) {
        Ok(prepared) => prepared,
        Err(refusal) => return *refusal,
    };
    let missing = || {
        let Target { namespace, pod, container, .. } = target;
        let text = format!("container {container} not found in pod {pod}_{namespace}");
        error(StatusCode::INTERNAL_SERVER_ERROR, text)
    };
    let container_id = match running_container(server, &pod, target).await {
        Ok(Some(id)) => id,
        Ok(None) => return missing(),
        Err(failure) => return runtime_error(&failure),
    };
    // Whether there is a terminal was settled when the container was started, whatever the client thinks.
    let Some(tty) = has_terminal(&pod, target.container) else { return missing() };
    let options = Options { tty, ..options };
    let Ok(options) = options.validated() else { return missing() };
    let Options { stdin, stdout, stderr, tty } = options;
    let url = server.containers.attach(AttachRequest { container_id, stdin, tty, stdout, stderr }).await;
    stream(server, request, url, options)
}

/// Runs a command to its end and answers with what it wrote.
pub async fn run(server: &NodeServer, request: &Request<Incoming>, target: Target<'_>) -> Response<Answer> {
    let Some(pod) = server.node.pod(target.namespace, target.pod) else {
        return error(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let query = request.uri().query().unwrap_or_default();
    // For reasons of its own past, this path has its command in one parameter, cut at every space.
    let command = values(query, "cmd").into_iter().next().unwrap_or_default();
    let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let id = match running_container(server, &pod, target).await {
        Ok(Some(id)) => id,
        Ok(None) => return error(StatusCode::INTERNAL_SERVER_ERROR, not_found(target)),
        Err(failure) => return error(StatusCode::INTERNAL_SERVER_ERROR, failure),
    };
    match server.containers.exec_sync(&id, &command, None).await {
        Ok(done) if done.exit_code == 0 => json([done.stdout, done.stderr].concat()),
        Ok(done) => {
            let (command, code) = (command.join(" "), done.exit_code);
            let stderr = String::from_utf8_lossy(&done.stderr);
            error(StatusCode::INTERNAL_SERVER_ERROR, format!("command '{command}' exited with {code}: {stderr}"))
        }
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

/// What exec and attach check before they ask the runtime.
fn prepare(
    server: &NodeServer,
    headers: &HeaderMap,
    query: &str,
    target: Target<'_>,
) -> Result<(Options, Arc<Pod>), Box<Response<Answer>>> {
    let asked = |name: &str| values(query, name).first().is_some_and(|value| value == "1");
    let options = Options { stdin: asked("input"), stdout: asked("output"), stderr: asked("error"), tty: asked("tty") };
    let options = options.validated().map_err(|failure| Box::new(error(StatusCode::BAD_REQUEST, failure)))?;
    let pod = server.node.pod(target.namespace, target.pod);
    let pod = pod.ok_or_else(|| Box::new(error(StatusCode::NOT_FOUND, "pod does not exist")))?;
    if !is_upgrade(headers) {
        // Upstream's kubelet gives this code, for it passes the refusal on as a failure of its proxy.
        return Err(Box::new(error(StatusCode::INTERNAL_SERVER_ERROR, "Upgrade request required\n")));
    }
    Ok((options, pod))
}

/// Upgrades the client's connection and joins it with the runtime's.
fn stream(
    server: &NodeServer,
    mut request: Request<Incoming>,
    url: xebec_cri::Result<String>,
    options: Options,
) -> Response<Answer> {
    let url = match url {
        Ok(url) => url,
        Err(failure) => return runtime_error(&failure),
    };
    let accepted = match accept(&mut request, options) {
        Ok(accepted) => accepted,
        Err(refusal) => return upgrade(*refusal),
    };
    server.shutdown.spawn(async move {
        let (session, runtime) = tokio::join!(accepted.session, client::connect(&url, options));
        let session = match session {
            Ok(session) => session,
            Err(failure) => return tracing::debug!(error = %Chain(&failure), "client's streams"),
        };
        match runtime {
            Ok(runtime) => relay(session, runtime).await,
            Err(failure) => {
                tracing::warn!(error = %Chain(&failure), "runtime's streams");
                session.finish(&Outcome::internal(Chain(&failure))).await;
            }
        }
    });
    upgrade(accepted.reply)
}

/// The id of the target's running container.
async fn running_container(server: &NodeServer, pod: &Pod, target: Target<'_>) -> xebec_cri::Result<Option<String>> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if target.uid.is_some_and(|wanted| wanted != uid) {
        return Ok(None);
    }
    let labels = [(POD_UID, uid), (CONTAINER_NAME, target.container)];
    let filter = ContainerFilter {
        state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
        label_selector: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..ContainerFilter::default()
    };
    let found = server.containers.list_containers(filter).await?;
    Ok(found.into_iter().max_by_key(|container| container.created_at).map(|container| container.id))
}

fn not_found(target: Target<'_>) -> String {
    format!("container not found ({:?})", target.container)
}

fn has_terminal(pod: &Pod, container: &str) -> Option<bool> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut containers = containers.map(|container| (&container.name, container.tty));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let mut ephemeral = ephemeral.map(|container| (&container.name, container.tty));
    let found =
        containers.find(|(name, _)| *name == container).or_else(|| ephemeral.find(|(name, _)| *name == container));
    found.map(|(_, tty)| tty == Some(true))
}

/// Every value of a query parameter.
pub(super) fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}
