//! `/portForward`: connections to a Pod's ports.
//!
//! The agent connects by itself inside the Pod's network namespace, which every CRI runtime tells of a sandbox, and so
//! needs neither the runtime's streaming server nor a program beside it.

use std::path::PathBuf;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use xebec_base::Chain;
use xebec_cri::v1::{PodSandboxFilter, PodSandboxState, PodSandboxStateValue};
use xebec_streaming::port_forward::{accept, needs_ports, ports};
use xebec_streaming::upgrade::is_upgrade;

use super::answer::{Answer, error, runtime_error, upgrade};
use super::exec::{POD_UID, values};
use super::{NodeServer, namespace};

/// The Pod that a path names.
pub struct PodPath<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Where it stands in the path, the Pod has to have it.
    pub uid: Option<&'a str>,
}

/// Forwards connections to the Pod until the client goes.
pub async fn serve(
    server: &NodeServer,
    mut request: Request<Incoming>,
    PodPath { namespace, name, uid }: PodPath<'_>,
) -> Response<Answer> {
    let mut asked = Vec::new();
    if needs_ports(&request) {
        let values = values(request.uri().query().unwrap_or_default(), "port");
        match ports(values.iter().map(String::as_str)) {
            Ok(ports) => asked = ports,
            Err(failure) => return error(StatusCode::BAD_REQUEST, failure),
        }
    }
    let Some(pod) = server.node.pod(namespace, name) else {
        return error(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let pod_uid = pod.metadata.uid.clone().unwrap_or_default();
    if uid.is_some_and(|uid| uid != pod_uid) {
        return error(StatusCode::NOT_FOUND, "pod not found");
    }
    if !is_upgrade(request.headers()) {
        // Upstream's kubelet gives this code, for it passes the refusal on as a failure of its proxy.
        return error(StatusCode::INTERNAL_SERVER_ERROR, "Upgrade request required\n");
    }
    let path = match network_namespace(server, &pod, &pod_uid).await {
        Ok(Some(path)) => path,
        Ok(None) => return error(StatusCode::INTERNAL_SERVER_ERROR, format!("pod not found (\"{name}_{namespace}\")")),
        Err(failure) => return runtime_error(&failure),
    };
    let accepted = match accept(&mut request, asked) {
        Ok(accepted) => accepted,
        Err(refusal) => return upgrade(*refusal),
    };
    let target = format!("pod {name}, uid {pod_uid}");
    let connect = move |port| namespace::connect(path.clone().into_path(), port);
    server.shutdown.spawn(async move {
        if let Err(failure) = accepted.forwarder.run(target, connect).await {
            tracing::debug!(error = %Chain(&failure), "port forwarding broken");
        }
    });
    upgrade(accepted.reply)
}

/// Where a Pod's ports are.
#[derive(Clone)]
enum Network {
    Host,
    Own(PathBuf),
}

impl Network {
    fn into_path(self) -> Option<PathBuf> {
        match self {
            Network::Host => None,
            Network::Own(path) => Some(path),
        }
    }
}

/// The network of the Pod's ready sandbox.
async fn network_namespace(server: &NodeServer, pod: &Pod, uid: &str) -> xebec_cri::Result<Option<Network>> {
    let filter = PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() }),
        label_selector: [(POD_UID.to_owned(), uid.to_owned())].into(),
        ..PodSandboxFilter::default()
    };
    let sandboxes = server.containers.list_pod_sandboxes(filter).await?;
    let Some(sandbox) = sandboxes.into_iter().max_by_key(|sandbox| sandbox.created_at) else { return Ok(None) };
    if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
        return Ok(Some(Network::Host));
    }
    let info = server.containers.pod_sandbox_info(&sandbox.id).await?;
    Ok(info.get("info").and_then(|json| path_in(json)).map(Network::Own))
}

/// The path in the details that containerd and CRI-O give of a sandbox: a file that the namespace is bound to, or else
/// the sandbox's own process.
fn path_in(json: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        #[serde(default)]
        pid: u32,
        #[serde(default)]
        runtime_spec: Option<RuntimeSpec>,
    }
    #[derive(Deserialize)]
    struct RuntimeSpec {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    struct Linux {
        #[serde(default)]
        namespaces: Vec<Namespace>,
    }
    #[derive(Deserialize)]
    struct Namespace {
        r#type: String,
        #[serde(default)]
        path: PathBuf,
    }
    let info: Info = serde_json::from_str(json).ok()?;
    let namespaces = info.runtime_spec.and_then(|spec| spec.linux).map(|linux| linux.namespaces).unwrap_or_default();
    let network = namespaces.into_iter().find(|namespace| namespace.r#type == "network");
    let bound = network.map(|network| network.path).filter(|path| !path.as_os_str().is_empty());
    bound.or_else(|| (info.pid > 0).then(|| PathBuf::from(format!("/proc/{}/ns/net", info.pid))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_found_in_what_runtimes_tell() {
        fn check(json: &str, expect: Option<&str>) {
            assert_eq!(path_in(json).as_deref(), expect.map(std::path::Path::new), "{json}");
        }
        let containerd = r#"{"pid":71,"runtimeSpec":{"ociVersion":"1.1.0","linux":{"namespaces":[{"type":"pid"},
            {"type":"network","path":"/var/run/netns/cni-1"}]}}}"#;
        check(containerd, Some("/var/run/netns/cni-1"));
        check(r#"{"pid":71,"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}"#, Some("/proc/71/ns/net"));
        check(r#"{"pid":71}"#, Some("/proc/71/ns/net"));
        check(r#"{"pid":0}"#, None);
        check("", None);
    }
}
