//! Claims and Ingresses that name no class get the one that is marked as the default: upstream's DefaultStorageClass and
//! DefaultIngressClass.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::storage::v1::StorageClass;
use xebec_api::resource::Kind;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;

const STORAGE_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS_DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// How a claim named its class before there was a field for it.
pub const CLAIM_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultStorageClass;

#[async_trait]
impl Mutating for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<PersistentVolumeClaim>() {
            return Ok(());
        }
        let Some(claim) = request.object_as_mut::<PersistentVolumeClaim>() else { return Ok(()) };
        let named = claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CLAIM_CLASS));
        let spec = claim.spec.get_or_insert_default();
        if spec.storage_class_name.is_none() && !named {
            spec.storage_class_name = newest::<StorageClass>(registry, &STORAGE_DEFAULT);
        }
        Ok(())
    }
}

pub struct DefaultIngressClass;

#[async_trait]
impl Mutating for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Ingress>() {
            return Ok(());
        }
        let Some(ingress) = request.object_as_mut::<Ingress>() else { return Ok(()) };
        let named = ingress.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(INGRESS_CLASS));
        let spec = ingress.spec.get_or_insert_default();
        if spec.ingress_class_name.is_none() && !named {
            spec.ingress_class_name = newest::<IngressClass>(registry, &INGRESS_DEFAULT);
        }
        Ok(())
    }
}

/// The name of the class that was marked last; of those of one second the first by name.
fn newest<K: Kind>(registry: &Registry, marks: &[&str]) -> Option<String> {
    let all = registry.list::<K>("");
    let marked = all.iter().map(|class| class.metadata()).filter(|meta| {
        let annotation = |mark| meta.annotations.as_ref().and_then(|all| all.get(mark));
        marks.iter().any(|mark| annotation(*mark).is_some_and(|value| value == "true"))
    });
    let age = |since: Option<jiff::Timestamp>| std::cmp::Reverse(since);
    let newest =
        marked.min_by_key(|meta| (age(meta.creation_timestamp.as_ref().map(|time| time.0)), meta.name.clone()));
    newest.and_then(|meta| meta.name.clone())
}
