//! The ResourceQuotas of a namespace: nothing is created that would use more than they allow, and what is created is charged
//! to their status at once.
//!
//! The status alone is not trusted: the controller that counts anew may have looked before an object that was charged came to
//! be. So what stands in the caches is counted as well, together with what was let through and is not there yet, and the larger
//! amount holds. One request of a namespace is judged at a time. The rules of counting are those of [`xebec_api::quota`];
//! the rest is upstream's `plugin/resourcequota`, without its limits for namespaces that have no quota.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use parking_lot::Mutex;
use xebec_api::pod::Amounts;
use xebec_api::quantity::Quantity;
use xebec_api::quota::{self, Subject};
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Operation, Validating};
use crate::authn::User;
use crate::registry::erased::AnyObject;
use crate::registry::{Call, Edit, Part, Registry};

/// How often a charge is tried again when the controller wrote the same quota meanwhile; upstream tries three times.
const ATTEMPTS: usize = 8;
/// After so long an object that was let through and did not come to be is taken for failed.
const IN_FLIGHT: Duration = Duration::from_secs(10);
/// Events never counted.
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];

/// What was let through and may not be in the caches yet.
struct Charge {
    resource: String,
    name: String,
    /// Of the object when it was changed; 0 for a new one.
    revision: u64,
    /// On the server's clock.
    at: Duration,
    /// By the quota's name.
    amounts: HashMap<String, Amounts>,
}

/// The requests of one namespace queue here.
type Lane = Arc<tokio::sync::Mutex<Vec<Charge>>>;

#[derive(Default)]
pub struct ResourceQuotas {
    lanes: Mutex<HashMap<String, Lane>>,
}

/// What one quota is to be charged with.
struct Demand {
    quota: Arc<ResourceQuota>,
    amounts: Amounts,
    /// With the amounts added.
    used: Amounts,
}

impl ResourceQuotas {
    fn lane(&self, namespace: &str) -> Lane {
        let mut lanes = self.lanes.lock();
        // Whoever waits for a lane holds a second reference.
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || lane.try_lock().is_ok_and(|charges| !charges.is_empty()));
        lanes.entry(namespace.to_owned()).or_default().clone()
    }

    /// What is being deleted was there, so it is in flight no more.
    async fn forget(&self, namespace: &str, resource: &str, name: &str) {
        let lane = self.lanes.lock().get(namespace).cloned();
        if let Some(lane) = lane {
            lane.lock().await.retain(|charge| charge.resource != resource || charge.name != name);
        }
    }
}

#[async_trait]
impl Validating for ResourceQuotas {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let (namespace, resource) = (request.namespace, request.resource.group_resource());
        if namespace.is_empty() || request.is_about::<Namespace>() || IGNORED.contains(&&*resource) {
            return Ok(());
        }
        if request.operation == Operation::Delete {
            self.forget(namespace, &resource, request.name).await;
            return Ok(());
        }
        if !concerns(request) || registry.list::<ResourceQuota>(namespace).is_empty() {
            return Ok(());
        }
        let lane = self.lane(namespace);
        let mut charges = lane.lock().await;
        for _ in 0..ATTEMPTS {
            registry.catch_up().await?;
            drop_landed(&mut charges, namespace, registry);
            let demands = demands(request, registry, &charges)?;
            if demands.is_empty() || request.dry_run {
                return Ok(());
            }
            let standing = revision(registry, namespace, &resource, request.name);
            if request.operation == Operation::Create && standing > 0 {
                return Err(StatusError::already_exists(request.resource, request.name));
            }
            match charge(registry, request.user, namespace, &demands).await {
                Err(error) if error.is_conflict() || error.is_not_found() => continue,
                result => result?,
            }
            charges.retain(|charge| charge.resource != resource || charge.name != request.name);
            let name = |demand: &Demand| demand.quota.metadata.name.clone().unwrap_or_default();
            charges.push(Charge {
                resource,
                name: request.name.to_owned(),
                revision: standing,
                at: registry.clock.elapsed(),
                amounts: demands.into_iter().map(|demand| (name(&demand), demand.amounts)).collect(),
            });
            return Ok(());
        }
        Err(StatusError::stale(&ResourceType::of::<ResourceQuota>(), request.name))
    }
}

fn subject(object: &dyn AnyObject) -> Subject<'_> {
    let any = object.as_any();
    if let Some(pod) = any.downcast_ref() {
        Subject::Pod(pod)
    } else if let Some(service) = any.downcast_ref() {
        Subject::Service(service)
    } else if let Some(claim) = any.downcast_ref() {
        Subject::Claim(claim)
    } else {
        Subject::Other
    }
}

/// Whether a request can change what is used.
fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let (creates, updates) = (request.operation == Operation::Create, request.operation == Operation::Update);
    let Some(new) = request.object.as_deref() else { return false };
    match (subject(new), request.old.map(subject), request.subresource) {
        (Subject::Pod(new), Some(Subject::Pod(old)), "") if updates => {
            quota::has_deadline(new) != quota::has_deadline(old)
        }
        (Subject::Pod(_), _, "resize") => updates,
        (Subject::Service(_) | Subject::Claim(_), _, "") => creates || updates,
        (Subject::Claim(new), Some(Subject::Claim(old)), "status") => {
            let allocated =
                |claim: &PersistentVolumeClaim| claim.status.as_ref().and_then(|one| one.allocated_resources.clone());
            let class = |claim: &PersistentVolumeClaim| {
                claim.status.as_ref().and_then(|one| one.current_volume_attributes_class_name.clone())
            };
            allocated(new) != allocated(old) || class(new) != class(old)
        }
        (_, _, "") => creates,
        _ => false,
    }
}

/// Forgets what the caches show by now, and what is overdue.
fn drop_landed(charges: &mut Vec<Charge>, namespace: &str, registry: &Registry) {
    let now = registry.clock.elapsed();
    charges.retain(|charge| {
        let landed = revision(registry, namespace, &charge.resource, &charge.name) > charge.revision;
        !landed && now.saturating_sub(charge.at) < IN_FLIGHT
    });
}

/// The revision of a cached object; 0 if there is none.
fn revision(registry: &Registry, namespace: &str, resource: &str, name: &str) -> u64 {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let item = registry.index.find_resource(group, plural).and_then(|served| served.cache.get(namespace, name));
    item.map_or(0, |item| item.object.revision())
}

/// What the quotas of the namespace are to be charged with for this request, or why one of them refuses.
fn demands(
    request: &AdmissionRequest<'_>,
    registry: &Registry,
    charges: &[Charge],
) -> Result<Vec<Demand>, StatusError> {
    let Some(object) = request.object.as_deref() else { return Ok(Vec::new()) };
    let (subject_now, resource) = (subject(object), request.resource.group_resource());
    let now = registry.clock.now();
    let mut concerned = Vec::new();
    for quota in registry.list::<ResourceQuota>(request.namespace) {
        let hard = quota::parsed(quota.status.as_ref().and_then(|status| status.hard.as_ref()));
        let recorded = quota::parsed(quota.status.as_ref().and_then(|status| status.used.as_ref()));
        let names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| quota::tracks(&resource, name)).collect();
        if names.is_empty() || !is_in_scope(&quota, subject_now) {
            continue;
        }
        let name = quota.metadata.name.as_deref().unwrap_or("");
        if let Subject::Pod(pod) = subject_now
            && let Some(missing) = quota::unspecified(pod, names.iter().copied())
        {
            return Err(request.forbidden(format!("failed quota: {name}: must specify {missing}")));
        }
        if names.iter().any(|name| !recorded.contains_key(*name)) {
            return Err(request.forbidden(format!("status unknown for quota: {name}, resources: {}", names.join(","))));
        }
        concerned.push((quota, hard, recorded));
    }
    let mut demands = Vec::new();
    for (quota, hard, recorded) in concerned {
        let mut amounts = quota::usage(&resource, subject_now, now);
        if let Some(old) = request.old.map(subject).filter(|old| is_in_scope(&quota, *old)) {
            let before = quota::usage(&resource, old, now);
            for (name, amount) in &mut amounts {
                *amount = amount.minus(before.get(name).copied().unwrap_or(Quantity::ZERO));
            }
        }
        amounts.retain(|name, amount| *amount > Quantity::ZERO && hard.contains_key(name));
        if amounts.is_empty() {
            continue;
        }
        let used = used(request, registry, &quota, recorded, charges);
        let used = within(request, &quota, &hard, used, &amounts)?;
        demands.push(Demand { quota, amounts, used });
    }
    Ok(demands)
}

fn is_in_scope(quota: &ResourceQuota, subject: Subject<'_>) -> bool {
    quota.spec.as_ref().is_none_or(|spec| quota::in_scope(spec, subject))
}

/// What is used now: what the status says, or what stands and is under way if that is more.
fn used(
    request: &AdmissionRequest<'_>,
    registry: &Registry,
    quota: &ResourceQuota,
    recorded: Amounts,
    charges: &[Charge],
) -> Amounts {
    let resource = request.resource.group_resource();
    let mut live = standing(request, registry, quota, &resource, registry.clock.now());
    let name = quota.metadata.name.as_deref().unwrap_or("");
    for charge in charges.iter().filter(|charge| charge.resource != resource || charge.name != request.name) {
        if let Some(amounts) = charge.amounts.get(name) {
            quota::add(&mut live, amounts);
        }
    }
    let mut used = recorded;
    for (name, amount) in &mut used {
        *amount = live.get(name).copied().map_or(*amount, |live| live.max(*amount));
    }
    used
}

/// What the cached objects of one resource use.
fn standing(
    request: &AdmissionRequest<'_>,
    registry: &Registry,
    quota: &ResourceQuota,
    resource: &str,
    now: Timestamp,
) -> Amounts {
    let mut total = Amounts::new();
    let mut count = |subject: Subject<'_>| {
        if is_in_scope(quota, subject) {
            quota::add(&mut total, &quota::usage(resource, subject, now));
        }
    };
    match resource {
        "pods" => registry.list::<Pod>(request.namespace).iter().for_each(|pod| count(Subject::Pod(pod))),
        "services" => registry.list::<Service>(request.namespace).iter().for_each(|one| count(Subject::Service(one))),
        "persistentvolumeclaims" => {
            let claims = registry.list::<PersistentVolumeClaim>(request.namespace);
            claims.iter().for_each(|claim| count(Subject::Claim(claim)));
        }
        _ => {
            if let Some(served) = registry.index.find_resource(&request.resource.group, &request.resource.plural) {
                served.cache.snapshot().scan(request.namespace, None).for_each(|_| count(Subject::Other));
            }
        }
    }
    total
}

/// What is used with the amounts added, if the quota has room for them.
fn within(
    request: &AdmissionRequest<'_>,
    quota: &ResourceQuota,
    hard: &Amounts,
    mut used: Amounts,
    amounts: &Amounts,
) -> Result<Amounts, StatusError> {
    let before = used.clone();
    quota::add(&mut used, amounts);
    let over: Vec<&String> = amounts.keys().filter(|name| used[*name] > hard[*name]).collect();
    if over.is_empty() || request.subresource == "status" {
        return Ok(used);
    }
    let shown = |list: &Amounts| {
        let amount = |name: &&String| format!("{name}={}", list.get(*name).copied().unwrap_or(Quantity::ZERO));
        over.iter().map(amount).collect::<Vec<_>>().join(",")
    };
    let name = quota.metadata.name.as_deref().unwrap_or("");
    let (requested, used, limited) = (shown(amounts), shown(&before), shown(hard));
    Err(request.forbidden(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}")))
}

/// Writes the new amounts into the quotas, each only if it is still what was judged.
async fn charge(registry: &Registry, user: &Arc<User>, namespace: &str, demands: &[Demand]) -> Result<(), StatusError> {
    let resource = ResourceType::of::<ResourceQuota>();
    let served = registry.index.find(&resource.group, &resource.version, &resource.plural);
    let served = served.ok_or_else(StatusError::no_such_path)?;
    for demand in demands {
        let name = demand.quota.metadata.name.as_deref().unwrap_or("");
        let used = quota::to_api(&demand.used);
        let version = demand.quota.metadata.resource_version.clone();
        let edit = |object: &mut dyn AnyObject| {
            object.meta_mut().resource_version = version.clone();
            match object.as_any_mut().downcast_mut::<ResourceQuota>() {
                Some(quota) => quota.status.get_or_insert_default().used = Some(used.clone()),
                None => return Err(StatusError::internal("a quota is of another kind")),
            }
            Ok(())
        };
        let mut call = Call::new(user);
        registry.update(served, (namespace, name), Part::Direct, Edit::Typed(&edit), &mut call).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
