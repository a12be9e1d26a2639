//! A Pod grows no larger than its node: upstream's PodResizeValidator.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use xebec_api::Quantity;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Operation, Validating};
use crate::registry::Registry;

pub struct PodResize;

#[async_trait]
impl Validating for PodResize {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Update || !request.is_about::<Pod>() || request.subresource != "resize" {
            return Ok(());
        }
        let (Some(pod), Some(old)) = (request.object_as::<Pod>(), request.old_as::<Pod>()) else { return Ok(()) };
        let Some(spec) = pod.spec.as_ref().filter(|_| pod.spec != old.spec) else { return Ok(()) };
        let name = spec.node_name.as_deref().unwrap_or("");
        if name.is_empty() {
            return Ok(());
        }
        let Some(node) = registry.get::<Node>("", name) else {
            return Err(request.forbidden(format!("node {name:?} not found")));
        };
        let system = node.metadata.labels.as_ref().and_then(|all| all.get("kubernetes.io/os"));
        if let Some(system) = system.filter(|system| *system != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(caused(request.forbidden(why), "UnsupportedPlatform"));
        }
        let room = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let room = |resource: &str| Quantity::of(room.and_then(|all| all.get(resource)));
        let requests = xebec_api::pod::requests(spec);
        let wanted = |resource: &str| requests.get(resource).copied().unwrap_or(Quantity::from_integer(0));
        let mut lacking = Vec::new();
        let (cpu, memory) = (wanted("cpu"), wanted("memory"));
        if cpu > room("cpu") {
            let (cpu, room) = (cpu.milli_value(), room("cpu").milli_value());
            lacking.push(format!("cpu, requested: {cpu}, allocatable: {room}"));
        }
        if memory > room("memory") {
            let (memory, room) = (memory.value(), room("memory").value());
            lacking.push(format!("memory, requested: {memory}, allocatable: {room}"));
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
        Err(caused(request.forbidden(why), "NodeCapacity"))
    }
}

fn caused(mut error: StatusError, reason: &str) -> StatusError {
    let cause = StatusCause { reason: Some(reason.to_owned()), ..StatusCause::default() };
    error.0.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
    error
}
