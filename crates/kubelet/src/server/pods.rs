//! `/pods` and `/runningpods/`: the Pods that should run here, and those that the runtime has.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use xebec_cri::v1::{ContainerFilter, ContainerState, ContainerStateValue, PodSandboxFilter};

use super::NodeServer;
use super::answer::{Answer, error, json, runtime_error};

/// The Pods bound to the node.
pub fn bound(server: &NodeServer) -> Response<Answer> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct PodList<'a> {
        kind: &'static str,
        api_version: &'static str,
        metadata: BTreeMap<(), ()>,
        items: Vec<&'a Pod>,
    }
    let pods = server.node.pods();
    let items = pods.iter().map(Arc::as_ref).collect();
    encode(&PodList { kind: "PodList", api_version: "v1", metadata: BTreeMap::new(), items })
}

/// The Pods that have a container running, as far as the runtime knows them.
pub async fn running(server: &NodeServer) -> Response<Answer> {
    let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() });
    let containers = server.containers.list_containers(ContainerFilter { state, ..ContainerFilter::default() });
    let sandboxes = server.containers.list_pod_sandboxes(PodSandboxFilter::default());
    let (containers, sandboxes) = match tokio::try_join!(containers, sandboxes) {
        Ok(listed) => listed,
        Err(failure) => return runtime_error(&failure),
    };
    let mut pods = BTreeMap::new();
    for container in containers {
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == container.pod_sandbox_id);
        let Some(metadata) = sandbox.and_then(|sandbox| sandbox.metadata.clone()) else { continue };
        let pod = pods.entry(metadata.uid.clone()).or_insert_with(|| Pod {
            metadata: ObjectMeta {
                name: Some(metadata.name),
                namespace: Some(metadata.namespace),
                uid: Some(metadata.uid),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec::default()),
            status: None,
        });
        if let Some(spec) = &mut pod.spec {
            let name = container.metadata.map(|metadata| metadata.name).unwrap_or_default();
            let image = container.image.map(|image| image.image);
            spec.containers.push(Container { name, image, ..Container::default() });
        }
    }
    encode(&List::<Pod> { items: pods.into_values().collect(), ..List::default() })
}

fn encode(pods: &impl Serialize) -> Response<Answer> {
    match serde_json::to_vec(pods) {
        Ok(body) => json(body),
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}
