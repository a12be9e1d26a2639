//! Claims grow only where their class lets them: upstream's PersistentVolumeClaimResize.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use xebec_api::Quantity;
use xebec_api::status::StatusError;

use super::default_class::CLAIM_CLASS;
use super::{AdmissionRequest, Operation, Validating};
use crate::registry::Registry;

pub struct ClaimResize;

#[async_trait]
impl Validating for ClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Update || !request.is_of::<PersistentVolumeClaim>() {
            return Ok(());
        }
        let claims = (request.object_as::<PersistentVolumeClaim>(), request.old_as::<PersistentVolumeClaim>());
        let (Some(new), Some(old)) = claims else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let (now, before) = (class(new), class(old));
        let grows = |name: &str| {
            registry.get::<StorageClass>("", name).is_some_and(|class| class.allow_volume_expansion == Some(true))
        };
        if now.is_empty() || now != before || !grows(now) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                       support resize";
            return Err(request.forbidden(why));
        }
        Ok(())
    }
}

fn size(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    Quantity::of(resources.and_then(|resources| resources.requests.as_ref()).and_then(|all| all.get("storage")))
}

fn class(claim: &PersistentVolumeClaim) -> &str {
    let annotation = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLAIM_CLASS));
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotation.or(field).map_or("", String::as_str)
}
