//! What every cluster has from the first moment: namespaces, default roles and bindings, system priorities, flow control,
//! the APIServices of the built-in groups, the range of Service addresses, and the `kubernetes` Service with the server's
//! own address.
//!
//! A first start writes all of it in two or three transactions. Later starts compare and mend: as with upstream's
//! auto-update, default rules and subjects that are missing come back, additions of the operators stay.

mod aggregation;
mod api_services;
mod endpoint;
mod flow_control;
mod merge;
pub mod policy;
mod service_range;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use xebec_api::resource::{Kind, ResourceType};
use xebec_api::status::StatusError;

use crate::authn::User;
use crate::cache::Item;
use crate::registry::batch::NewObject;
use crate::registry::erased::AnyObject;
use crate::registry::{Call, Edit, Part, Registry};
use crate::resources::flowcontrol::standard;
use policy::Policy;

pub use aggregation::Aggregation;
pub use trust::{PublishedTrust, publish};

const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Name, value and description of the priorities that only the cluster's own Pods have.
pub const SYSTEM_PRIORITIES: &[(&str, i32, &str)] = &[
    (
        "system-cluster-critical",
        2_000_000_000,
        "For Pods that the cluster cannot do without; they may move to another node.",
    ),
    ("system-node-critical", 2_000_001_000, "For Pods that their node cannot do without."),
];

/// How often the whole is planned again when another server writes the same at the same time.
const ATTEMPTS: usize = 5;

/// Makes what is missing. `advertised` is where clients inside the cluster reach the server; a loopback address is of no use
/// to them, so it makes a Service without endpoints.
pub async fn run(registry: &Registry, advertised: SocketAddr) -> Result<(), StatusError> {
    for _ in 0..ATTEMPTS {
        let plan = Plan::make(registry, advertised);
        if registry.create_all(plan.creations).await? {
            for update in plan.updates {
                update.apply(registry).await?;
            }
            return endpoint::ensure_service(registry, advertised.port()).await;
        }
    }
    Err(StatusError::internal("other servers keep changing what every cluster begins with"))
}

/// Who writes here.
fn server_user() -> Arc<User> {
    User::master("system:apiserver")
}

/// A change of an object that exists.
struct Update {
    resource: ResourceType,
    namespace: String,
    name: String,
    /// Puts the wanted object in the place of the stored one.
    replacement: Box<dyn AnyObject>,
}

impl Update {
    async fn apply(self, registry: &Registry) -> Result<(), StatusError> {
        let resource = &self.resource;
        let Some(served) = registry.index.find(&resource.group, &resource.version, &resource.plural).cloned() else {
            return Ok(());
        };
        let user = server_user();
        let replacement = &self.replacement;
        let edit = |_: &Item, _: &mut Vec<String>| {
            serde_json::from_slice(&replacement.encode()).map_err(StatusError::internal)
        };
        let key = (self.namespace.as_str(), self.name.as_str());
        let outcome = registry.update(&served, key, Part::Main, Edit::Tree(&edit), &mut Call::new(&user)).await;
        outcome.map(drop)
    }
}

/// What a start has to write.
#[derive(Default)]
struct Plan {
    creations: Vec<NewObject>,
    updates: Vec<Update>,
}

impl Plan {
    fn make(registry: &Registry, advertised: SocketAddr) -> Plan {
        let mut plan = Plan::default();
        plan.ensure(registry, NAMESPACES.iter().map(|name| namespace(name)).collect(), |_, _| None);
        plan.ensure(registry, SYSTEM_PRIORITIES.iter().map(priority).collect(), |_, _| None);
        let policy = Policy::default_policy();
        plan.cluster_roles(registry, policy.cluster_roles);
        plan.ensure(registry, policy.cluster_role_bindings, merge::cluster_role_binding);
        plan.ensure(registry, policy.roles, merge::role);
        plan.ensure(registry, policy.role_bindings, merge::role_binding);
        plan.flow_control(registry);
        plan.ensure(registry, api_services::wanted(registry), api_services::merge);
        let status = service_range::range_status(registry.clock.now());
        plan.ensure_with(registry, service_range::range(registry), status, |_, _| None);
        plan.ensure(registry, service_range::missing_addresses(registry), |_, _| None);
        if let Some(endpoints) = endpoint::endpoints(advertised) {
            plan.ensure(registry, vec![endpoints], endpoint::merge_endpoints);
        }
        if let Some(slice) = endpoint::slice(advertised) {
            plan.ensure(registry, vec![slice], endpoint::merge_slice);
        }
        plan
    }

    /// Creates what is missing and changes what `merge` says, which is given the stored and the wanted object.
    fn ensure<K: Kind>(&mut self, registry: &Registry, wanted: Vec<K>, merge: impl Fn(&K, &K) -> Option<K>) {
        for object in wanted {
            match stored(registry, &object) {
                None => self.create(registry, object),
                Some(found) => {
                    if let Some(merged) = merge(&found, &object) {
                        self.update(merged);
                    }
                }
            }
        }
    }

    /// `ensure` of one object that comes with a status of the server's.
    fn ensure_with<K: Kind>(
        &mut self,
        registry: &Registry,
        wanted: K,
        status: Value,
        merge: impl Fn(&K, &K) -> Option<K>,
    ) {
        let before = self.creations.len();
        self.ensure(registry, vec![wanted], merge);
        self.creations.iter_mut().skip(before).for_each(|new| new.status = Some(status.clone()));
    }

    fn flow_control(&mut self, registry: &Registry) {
        self.ensure(registry, standard::levels(), flow_control::merge_level);
        for schema in standard::schemas() {
            let status = flow_control::schema_status(&schema, registry.clock.now());
            self.ensure_with(registry, schema, status, flow_control::merge_schema);
        }
    }

    /// ClusterRoles depend on one another: aggregated ones hold the rules of others, stored or yet to be written.
    fn cluster_roles(&mut self, registry: &Registry, wanted: Vec<ClusterRole>) {
        let mut merged: Vec<(ClusterRole, Option<Arc<ClusterRole>>)> = wanted
            .into_iter()
            .map(|role| match stored(registry, &role) {
                None => (role, None),
                Some(found) => (merge::cluster_role(&found, &role).unwrap_or_else(|| (*found).clone()), Some(found)),
            })
            .collect();
        let known = |role: &ClusterRole| merged.iter().any(|(one, _)| one.metadata.name == role.metadata.name);
        let others: Vec<_> = registry.list::<ClusterRole>("").into_iter().filter(|role| !known(role)).collect();
        let mut roles: Vec<ClusterRole> = merged.iter().map(|(role, _)| role.clone()).collect();
        roles.extend(others.iter().map(|role| (**role).clone()));
        aggregation::settle(&mut roles);
        for (index, (role, found)) in merged.iter_mut().enumerate() {
            role.rules = roles[index].rules.take();
            match found {
                None => self.create(registry, role.clone()),
                Some(found) if **found != *role => self.update(role.clone()),
                Some(_) => {}
            }
        }
    }

    fn create<K: Kind>(&mut self, registry: &Registry, object: K) {
        // Kinds that are not served have no use here.
        if let Some(served) = registry.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT) {
            self.creations.push(NewObject { served: served.clone(), object: Box::new(object), status: None });
        }
    }

    fn update<K: Kind>(&mut self, object: K) {
        let meta = object.metadata();
        self.updates.push(Update {
            resource: ResourceType::of::<K>(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            replacement: Box::new(object),
        });
    }
}

fn stored<K: Kind>(registry: &Registry, wanted: &K) -> Option<Arc<K>> {
    let meta = wanted.metadata();
    registry.get::<K>(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
}

fn namespace(name: &str) -> Namespace {
    Namespace { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() }
}

fn priority((name, value, description): &(&str, i32, &str)) -> PriorityClass {
    PriorityClass {
        metadata: ObjectMeta { name: Some((*name).to_owned()), ..ObjectMeta::default() },
        value: Some(*value),
        description: Some((*description).to_owned()),
        preemption_policy: Some("PreemptLowerPriority".to_owned()),
        global_default: None,
    }
}

#[cfg(test)]
mod tests;
