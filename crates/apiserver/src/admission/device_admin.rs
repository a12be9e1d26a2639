//! Access to devices that others use: only in Namespaces that are labelled for it.
//!
//! Upstream's strategies of ResourceClaims ask for the Namespace; ours have no registry.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::resource::v1::{
    DeviceRequest, DeviceRequestAllocationResult, ResourceClaim, ResourceClaimSpec, ResourceClaimTemplate,
};
use xebec_api::field::{FieldError, Path};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Operation, Validating};
use crate::registry::Registry;

const LABEL: &str = "resource.kubernetes.io/admin-access";

pub struct DeviceAdmin;

#[async_trait]
impl Validating for DeviceAdmin {
    fn name(&self) -> &'static str {
        "DeviceAdminAccess"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let Some(path) = asked_for(request) else { return Ok(()) };
        let namespace = registry.get::<Namespace>("", request.namespace);
        let labels = namespace.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default();
        if labels.get(LABEL).is_some_and(|value| value == "true") {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        Err(StatusError::invalid(request.resource, request.name, vec![FieldError::forbidden(&path, why)]))
    }
}

/// Where the access is asked for, if it was not before.
fn asked_for(request: &AdmissionRequest<'_>) -> Option<Path> {
    let claim = request.object_as::<ResourceClaim>();
    if request.operation == Operation::Create {
        let template = request.object_as::<ResourceClaimTemplate>().and_then(|template| template.spec.as_ref());
        let spec = claim.and_then(|claim| claim.spec.as_ref()).or(template.and_then(|spec| spec.spec.as_ref()));
        return requested(spec?).map(|index| Path::new("spec.devices.requests").index(index).child("adminAccess"));
    }
    let before = request.old_as::<ResourceClaim>().and_then(granted);
    let index = claim.and_then(granted).filter(|_| before.is_none())?;
    Some(Path::new("status.allocation.devices.results").index(index).child("adminAccess"))
}

fn requested(spec: &ResourceClaimSpec) -> Option<usize> {
    let is_admin =
        |request: &DeviceRequest| request.exactly.as_ref().is_some_and(|exactly| exactly.admin_access == Some(true));
    spec.devices.as_ref()?.requests.as_ref()?.iter().position(is_admin)
}

fn granted(claim: &ResourceClaim) -> Option<usize> {
    let is_admin = |result: &DeviceRequestAllocationResult| result.admin_access == Some(true);
    claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref()?.results.as_ref()?.iter().position(is_admin)
}
