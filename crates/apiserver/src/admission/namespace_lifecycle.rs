//! Nothing is created in a namespace that does not exist or is going away, and some namespaces never go away.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use parking_lot::Mutex;
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// For so long after a namespace's deletion the cache alone is not trusted with its phase, as upstream has it.
const WATCHFUL: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct NamespaceLifecycle {
    /// When each of the namespaces was asked to be deleted, on the server's clock.
    deleted: Mutex<HashMap<String, Duration>>,
}

impl NamespaceLifecycle {
    fn note_deletion(&self, name: &str, registry: &Registry) {
        let now = registry.clock.elapsed();
        let mut deleted = self.deleted.lock();
        deleted.retain(|_, at| now.saturating_sub(*at) < WATCHFUL);
        deleted.insert(name.to_owned(), now);
    }

    fn was_deleted(&self, name: &str, registry: &Registry) -> bool {
        let deleted = self.deleted.lock();
        deleted.get(name).is_some_and(|at| registry.clock.elapsed().saturating_sub(*at) < WATCHFUL)
    }
}

#[async_trait]
impl Mutating for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.is_about::<Namespace>() {
            if request.operation == Operation::Delete && request.subresource.is_empty() {
                if IMMORTAL.contains(&request.name) {
                    return Err(request.forbidden("this namespace may not be deleted"));
                }
                self.note_deletion(request.name, registry);
            }
            return Ok(());
        }
        let namespace = request.namespace;
        if namespace.is_empty() || request.operation != Operation::Create {
            return Ok(());
        }
        let mut found = registry.get::<Namespace>("", namespace);
        if found.is_none() || self.was_deleted(namespace, registry) {
            registry.catch_up().await?;
            found = registry.get::<Namespace>("", namespace);
        }
        let Some(found) = found else {
            return Err(StatusError::not_found(&ResourceType::of::<Namespace>(), namespace));
        };
        let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Terminating") {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        Err(request.forbidden(why).with_causes(vec![StatusCause {
            reason: Some("NamespaceTerminating".to_owned()),
            message: Some(format!("namespace {namespace} is being terminated")),
            field: Some("metadata.namespace".to_owned()),
        }]))
    }
}
