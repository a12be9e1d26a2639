//! The node server over a connection in memory, on a runtime in memory.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::json;
use xebec_base::SystemClock;
use xebec_cri::Runtime;
use xebec_cri::fake::Fake;
use xebec_cri::v1::*;
use xebec_streaming::remote_command::{Options, Outcome, V5, client};
use xebec_streaming::upgrade::websocket_request_headers;

use super::*;

const UID: &str = "6e1f";

struct Node {
    pod: Arc<Pod>,
}

impl NodeRuntime for Node {
    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![self.pod.clone()]
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        ((namespace, name) == ("default", "web")).then(|| self.pod.clone())
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    fn metrics(&self) -> String {
        "kubelet_node_name 1\n".to_owned()
    }
}

/// Knows two users by their tokens: one may do everything, the other only read metrics.
struct Tokens;

#[async_trait]
impl Authority for Tokens {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<UserInfo>, AuthError> {
        let known = credentials.token.filter(|token| ["admin", "metrics"].contains(token));
        Ok(known.map(|token| UserInfo { username: Some(token.to_owned()), ..UserInfo::default() }))
    }

    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, AuthError> {
        Ok(user.username.as_deref() == Some("admin") || attributes.subresource == "metrics")
    }

    fn node_name(&self) -> &str {
        "node"
    }
}

/// A server with the Pod `web` of one container `app`, which runs and whose log lies in `logs`.
async fn server(logs: &Path) -> Arc<NodeServer> {
    let clock = SystemClock::shared();
    let runtime = Fake::new(clock.clone());
    runtime.add_image("app");
    runtime.on_exec(|_, command| {
        let (stdout, stderr, exit_code) = (command.join("+").into_bytes(), b"!".to_vec(), command.len() as i32 - 2);
        Ok(ExecSyncResponse { stdout, stderr, exit_code })
    });
    let metadata = PodSandboxMetadata { name: "web".into(), uid: UID.into(), namespace: "default".into(), attempt: 0 };
    let labels = [("io.kubernetes.pod.uid", UID), ("io.kubernetes.container.name", "app")];
    let labels: std::collections::HashMap<_, _> = labels.map(|(name, value)| (name.into(), value.into())).into();
    let sandbox = PodSandboxConfig { metadata: Some(metadata), labels: labels.clone(), ..PodSandboxConfig::default() };
    let sandbox_id = runtime.run_pod_sandbox(sandbox.clone(), "").await.unwrap();
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "app".into(), ..ImageSpec::default() }),
        labels,
        log_path: logs.join("0.log").to_string_lossy().into(),
        ..ContainerConfig::default()
    };
    let id = runtime.create_container(&sandbox_id, container, sandbox).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let status = json!({"name": "app", "image": "app", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("fake://{id}"), "state": {"running": {}}});
    let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": UID},
        "spec": {"containers": [{"name": "app", "image": "app"}]}, "status": {"containerStatuses": [status]}});
    Arc::new(NodeServer {
        node: Arc::new(Node { pod: Arc::new(serde_json::from_value(pod).unwrap()) }),
        containers: runtime,
        authority: Arc::new(Tokens),
        clock,
        shutdown: Shutdown::new(),
    })
}

async fn send(server: &Arc<NodeServer>, request: Request<Empty<Bytes>>) -> Response<Incoming> {
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(server.clone().http(far, Arc::new([])));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.unwrap()
}

fn request(method: &str, path: &str, token: &str) -> Request<Empty<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", "node");
    builder.header("authorization", format!("Bearer {token}")).body(Empty::new()).unwrap()
}

async fn check(server: &Arc<NodeServer>, method: &str, path: &str, token: &str, status: u16, text: &str) {
    let response = send(server, request(method, path, token)).await;
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body);
    assert_eq!((code.as_u16(), &*body), (status, text), "{method} {path}");
}

#[tokio::test]
async fn every_request_is_authenticated_and_authorised() {
    let server = server(Path::new("/nonexistent")).await;
    check(&server, "GET", "/healthz", "", 401, "Unauthorized").await;
    check(&server, "GET", "/healthz", "admin", 200, "ok").await;
    let forbidden = |subresources: &str, verb: &str| {
        format!("Forbidden (user=metrics, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n")
    };
    check(&server, "GET", "/pods", "metrics", 403, &forbidden("pods proxy", "get")).await;
    check(&server, "POST", "/exec/default/web/app", "metrics", 403, &forbidden("proxy", "create")).await;
    check(&server, "GET", "/metrics", "metrics", 200, "kubelet_node_name 1\n").await;
}

#[tokio::test]
async fn pods_are_listed() {
    let server = server(Path::new("/nonexistent")).await;
    for path in ["/pods", "/runningpods/"] {
        let response = send(&server, request("GET", path, "admin")).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(list["kind"], "PodList", "{path}");
        assert_eq!(list["items"][0]["metadata"]["uid"], UID, "{path}");
        assert_eq!(list["items"][0]["spec"]["containers"][0]["name"], "app", "{path}");
    }
    check(&server, "POST", "/pods", "admin", 405, "Method Not Allowed").await;
    check(&server, "GET", "/nothing", "admin", 404, "404: Page Not Found").await;
    check(&server, "DELETE", "/exec/default/web/app", "admin", 405, "405: Method Not Allowed").await;
}

#[tokio::test]
async fn logs_are_served() {
    let directory = std::env::temp_dir().join(format!("xebec-node-server-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let log = directory.join("0.log");
    std::fs::write(&log, "2026-01-02T03:04:05Z stdout F one\n2026-01-02T03:04:06Z stderr F two\n").unwrap();
    let server = server(&directory).await;
    let path = "/containerLogs/default/web/app";
    check(&server, "GET", path, "admin", 200, "one\ntwo\n").await;
    check(&server, "GET", &format!("{path}?tailLines=1"), "admin", 200, "two\n").await;
    let stamped = "2026-01-02T03:04:05.000000000Z one\n";
    check(&server, "GET", &format!("{path}?timestamps=true&stream=Stdout"), "admin", 200, stamped).await;
    check(&server, "GET", &format!("{path}?tailLines=x"), "admin", 400, r#"{"message": "Unable to decode query."}"#)
        .await;
    check(&server, "GET", &format!("{path}?tailLines=-1"), "admin", 422, r#"{"message": "Invalid request."}"#).await;
    check(&server, "GET", "/containerLogs/default/db/app", "admin", 404, "pod \"db\" does not exist").await;
    let missing = "container \"sidecar\" not found in pod \"web\"";
    check(&server, "GET", "/containerLogs/default/web/sidecar", "admin", 404, missing).await;
    let previous = "previous terminated container \"app\" in pod \"web\" not found";
    check(&server, "GET", &format!("{path}?previous=true"), "admin", 400, previous).await;
    check(&server, "POST", path, "admin", 405, "Method Not Allowed").await;
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn commands_run_and_say_what_they_wrote() {
    let server = server(Path::new("/nonexistent")).await;
    check(&server, "POST", "/run/default/web/app?cmd=ls+-l", "admin", 200, "ls+-l!").await;
    check(&server, "POST", "/run/default/web/6e1f/app?cmd=ls+-l", "admin", 200, "ls+-l!").await;
    let failed = "command 'ls' exited with -1: !";
    check(&server, "POST", "/run/default/web/app?cmd=ls", "admin", 500, failed).await;
    let missing = "container not found (\"app\")";
    check(&server, "POST", "/run/default/web/other/app?cmd=ls", "admin", 500, missing).await;
    check(&server, "POST", "/run/default/db/app?cmd=ls", "admin", 404, "pod does not exist").await;
}

#[tokio::test]
async fn streams_that_cannot_be_opened_are_refused_in_http() {
    let server = server(Path::new("/nonexistent")).await;
    let no_streams = "you must specify at least 1 of stdin, stdout, stderr";
    check(&server, "POST", "/exec/default/web/app?command=ls", "admin", 400, no_streams).await;
    check(&server, "POST", "/exec/default/db/app?output=1", "admin", 404, "pod does not exist").await;
    let plain = "Upgrade request required\n";
    check(&server, "POST", "/exec/default/web/app?output=1", "admin", 500, plain).await;
    check(&server, "POST", "/portForward/default/web", "admin", 500, plain).await;
    check(&server, "POST", "/portForward/default/db", "admin", 404, "pod does not exist").await;
    check(&server, "POST", "/portForward/default/web/other", "admin", 404, "pod not found").await;
    let upgrade = async |path: &str| {
        let mut request = request("GET", path, "admin");
        request.headers_mut().extend(websocket_request_headers(&[V5]));
        send(&server, request).await
    };
    assert_eq!(upgrade("/exec/default/web/other?output=1").await.status(), 500);
    assert_eq!(upgrade("/portForward/default/web").await.status(), 400);
    assert_eq!(upgrade("/portForward/default/web?port=80").await.status(), 500);
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_told_on_the_error_stream() {
    let server = server(Path::new("/nonexistent")).await;
    for path in ["/exec/default/web/app?command=ls&output=1", "/attach/default/web/6e1f/app?output=1"] {
        let mut request = request("GET", path, "admin");
        request.headers_mut().extend(websocket_request_headers(&[V5]));
        let response = send(&server, request).await;
        assert_eq!(response.status(), 101, "{path}");
        let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let options = Options { stdout: true, ..Options::default() };
        let outcome = client::over_websocket(io, options).await.outcome().await;
        let Outcome::Failed { message, code: 500, .. } = outcome else { panic!("{path}: {outcome:?}") };
        assert!(message.starts_with("Internal error occurred: connect to 127.0.0.1:0"), "{message}");
    }
}
