//! Volumes, claims and classes of attributes stay until nobody uses them: upstream's StorageObjectInUseProtection. The finalizers are taken away
//! by a controller.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;

pub struct VolumeProtection;

#[async_trait]
impl Mutating for VolumeProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, _registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        let finalizer = match () {
            () if request.is_of::<PersistentVolumeClaim>() => "kubernetes.io/pvc-protection",
            () if request.is_of::<PersistentVolume>() => "kubernetes.io/pv-protection",
            () if request.is_of::<VolumeAttributesClass>() => "kubernetes.io/vac-protection",
            () => return Ok(()),
        };
        if let Some(object) = &mut request.object {
            let finalizers = object.meta_mut().finalizers.get_or_insert_default();
            if !finalizers.iter().any(|one| one == finalizer) {
                finalizers.push(finalizer.to_owned());
            }
        }
        Ok(())
    }
}
