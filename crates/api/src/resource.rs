//! Names of resources: group, version, kind, plural and scope, and the URL paths that follow from them.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource, ResourceScope};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A built-in kind with its Rust type. Implemented for every top-level type of `k8s-openapi`.
pub trait Kind:
    Resource<Scope: ScopeFact>
    + Metadata<Ty = ObjectMeta>
    + DeserializeOwned
    + Serialize
    + Clone
    + fmt::Debug
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<Scope: ScopeFact>
        + Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Serialize
        + Clone
        + fmt::Debug
        + Default
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// Whether a scope of `k8s-openapi` means that objects lie in namespaces.
pub trait ScopeFact: ResourceScope {
    const NAMESPACED: bool;
}

impl ScopeFact for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl ScopeFact for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// A resource in one of its versions, as a URL names it. Static for built-in kinds, owned for those of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub namespaced: bool,
}

impl ResourceType {
    pub const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        ResourceType {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    pub fn of<K: Kind>() -> Self {
        ResourceType::new(K::GROUP, K::VERSION, K::KIND, K::URL_PATH_SEGMENT, <K::Scope as ScopeFact>::NAMESPACED)
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`: how messages and RBAC name it.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `/api/v1/namespaces/NS/pods`; without a namespace the collection over all of them.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => {
                format!("{root}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    pub fn object_path(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{name}", self.collection_path(namespace))
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Node};

    use super::*;

    #[test]
    fn paths() {
        let deployments = ResourceType::of::<Deployment>();
        assert_eq!(deployments.object_path(Some("a"), "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(deployments.collection_path(None), "/apis/apps/v1/deployments");
        assert_eq!(ResourceType::of::<Node>().object_path(None, "n"), "/api/v1/nodes/n");
        assert_eq!(deployments.group_resource(), "deployments.apps");
    }
}
