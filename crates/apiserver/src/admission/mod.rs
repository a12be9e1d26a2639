//! Policies on the content of a request: plugins that change an object, then plugins that refuse it, in one table.
//!
//! They run inside the registry, after authorisation and defaults and before validation and storage, and read other
//! objects from the caches. They never call the API.

mod claim_resize;
mod default_class;
mod default_tolerations;
mod device_admin;
mod device_taints;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
pub mod node_restriction;
mod node_taint;
mod pod_resize;
mod pod_security;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod signers;
pub mod topology_labels;
mod volume_protection;

use std::sync::Arc;

use async_trait::async_trait;
use xebec_api::resource::{Kind, ResourceType};
use xebec_api::status::StatusError;

use crate::authn::User;
use crate::registry::Registry;
use crate::registry::erased::AnyObject;
use crate::registry::metadata::SUFFIX_LENGTH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach, port-forward and proxy.
    Connect,
}

/// One request as admission sees it.
pub struct AdmissionRequest<'a> {
    pub operation: Operation,
    pub resource: &'a ResourceType,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// What `generateName` begins with, while mutating plugins look at an object that is to get its name from there.
    pub name: &'a str,
    pub user: &'a Arc<User>,
    pub dry_run: bool,
    /// The object as it would be stored. `None` for deletions and connects.
    pub object: Option<&'a mut dyn AnyObject>,
    /// The object as it is stored. `None` for creations.
    pub old: Option<&'a dyn AnyObject>,
    /// Texts of `Warning` headers, shown to the client whatever the outcome.
    pub warnings: &'a mut Vec<String>,
}

impl<'a> AdmissionRequest<'a> {
    /// Whether it is about a kind's own objects and none of their subresources.
    pub fn is_of<K: Kind>(&self) -> bool {
        self.subresource.is_empty() && self.is_about::<K>()
    }

    /// Whether it is about a kind's objects, subresources included.
    pub fn is_about<K: Kind>(&self) -> bool {
        self.resource.plural == K::URL_PATH_SEGMENT && self.resource.group == K::GROUP
    }

    /// Makes refusals while the object is being changed.
    pub fn refuse(&self) -> impl Fn(String) -> StatusError + use<'a> {
        let (resource, name) = (self.resource, self.name);
        move |why| StatusError::forbidden(resource, name, why)
    }

    /// Refusals of an object without a name of its own show what its name was to begin with: upstream generates names
    /// after these plugins.
    fn forget_generated_name(&mut self) {
        if self.operation != Operation::Create {
            return;
        }
        let base = self.object.as_ref().and_then(|object| object.meta().generate_name.as_deref()).unwrap_or("");
        let kept = self.name.len().saturating_sub(SUFFIX_LENGTH);
        if kept > 0 && self.name.get(..kept).is_some_and(|kept| base.starts_with(kept)) {
            self.name = &self.name[..kept];
        }
    }

    /// The new object, if it is of that kind.
    pub fn object_as<K: Kind>(&self) -> Option<&K> {
        self.object.as_ref().and_then(|object| object.as_any().downcast_ref())
    }

    pub fn object_as_mut<K: Kind>(&mut self) -> Option<&mut K> {
        self.object.as_mut().and_then(|object| object.as_any_mut().downcast_mut())
    }

    pub fn old_as<K: Kind>(&self) -> Option<&K> {
        self.old.and_then(|old| old.as_any().downcast_ref())
    }

    /// The refusal of this request with the plugin's reason.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> StatusError {
        StatusError::forbidden(self.resource, self.name, why)
    }
}

/// A plugin that may change the object.
#[async_trait]
pub trait Mutating: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError>;
}

/// A plugin that may only refuse; it sees the object after all mutating plugins and the kind's own validation.
#[async_trait]
pub trait Validating: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError>;
}

/// One line of the table: a plugin and in which phases it takes part.
struct Row {
    mutating: Option<fn() -> Arc<dyn Mutating>>,
    validating: Option<fn() -> Arc<dyn Validating>>,
}

const fn mutates(plugin: fn() -> Arc<dyn Mutating>) -> Row {
    Row { mutating: Some(plugin), validating: None }
}

const fn validates(plugin: fn() -> Arc<dyn Validating>) -> Row {
    Row { mutating: None, validating: Some(plugin) }
}

const fn both(mutating: fn() -> Arc<dyn Mutating>, validating: fn() -> Arc<dyn Validating>) -> Row {
    Row { mutating: Some(mutating), validating: Some(validating) }
}

/// Every plugin, in upstream's order. The check of roles and bindings, which upstream's storage makes after its plugins,
/// comes last.
const PLUGINS: &[Row] = &[
    mutates(|| Arc::new(namespace_lifecycle::NamespaceLifecycle::default())),
    both(|| Arc::new(limit_ranger::LimitRanger), || Arc::new(limit_ranger::LimitRanger)),
    both(|| Arc::new(service_account::ServiceAccounts), || Arc::new(service_account::ServiceAccounts)),
    mutates(|| Arc::new(node_restriction::NodeRestriction)),
    mutates(|| Arc::new(node_taint::NodeTaint)),
    validates(|| Arc::new(pod_security::PodSecurity)),
    both(|| Arc::new(priority::Priorities), || Arc::new(priority::Priorities)),
    mutates(|| Arc::new(default_tolerations::DefaultTolerations)),
    mutates(|| Arc::new(default_class::DefaultStorageClass)),
    mutates(|| Arc::new(volume_protection::VolumeProtection)),
    validates(|| Arc::new(claim_resize::ClaimResize)),
    both(|| Arc::new(runtime_class::RuntimeClasses), || Arc::new(runtime_class::RuntimeClasses)),
    validates(|| Arc::new(signers::Signers::default())),
    mutates(|| Arc::new(default_class::DefaultIngressClass)),
    mutates(|| Arc::new(topology_labels::TopologyLabels)),
    validates(|| Arc::new(pod_resize::PodResize)),
    mutates(|| Arc::new(device_taints::DeviceTaints)),
    validates(|| Arc::new(device_admin::DeviceAdmin)),
    validates(|| Arc::new(resource_quota::ResourceQuotas::default())),
    mutates(|| Arc::new(escalation::Escalation::default())),
];

/// The plugins in their order.
#[derive(Clone, Default)]
pub struct Plugins {
    pub mutating: Vec<Arc<dyn Mutating>>,
    pub validating: Vec<Arc<dyn Validating>>,
}

impl Plugins {
    /// Those of the table.
    pub fn standard() -> Self {
        Plugins {
            mutating: PLUGINS.iter().filter_map(|row| row.mutating).map(|make| make()).collect(),
            validating: PLUGINS.iter().filter_map(|row| row.validating).map(|make| make()).collect(),
        }
    }

    pub async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        request.forget_generated_name();
        for plugin in &self.mutating {
            plugin.admit(request, registry).await?;
        }
        Ok(())
    }

    pub async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        for plugin in &self.validating {
            plugin.validate(request, registry).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
