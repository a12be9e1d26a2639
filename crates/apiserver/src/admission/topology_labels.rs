//! Pods carry the zone and region of their node: upstream's PodTopologyLabels. A binding asks here too.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;

const COPIED: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct TopologyLabels;

#[async_trait]
impl Mutating for TopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Pod>() {
            return Ok(());
        }
        let Some(pod) = request.object_as_mut::<Pod>() else { return Ok(()) };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
        let labels = of_node(registry, node);
        if !labels.is_empty() {
            pod.metadata.labels.get_or_insert_default().extend(labels);
        }
        Ok(())
    }
}

/// What a Pod on that node is labelled with.
pub fn of_node(registry: &Registry, node: &str) -> BTreeMap<String, String> {
    if node.is_empty() {
        return BTreeMap::new();
    }
    let labels = registry.get::<Node>("", node).and_then(|node| node.metadata.labels.clone()).unwrap_or_default();
    labels.into_iter().filter(|(key, _)| COPIED.contains(&key.as_str())).collect()
}
