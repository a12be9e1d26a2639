//! Pods get the number that their PriorityClass stands for.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation, Validating};
use crate::registry::Registry;

const LOWER: &str = "PreemptLowerPriority";

pub struct Priorities;

#[async_trait]
impl Mutating for Priorities {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if !request.is_of::<Pod>() {
            return Ok(());
        }
        match request.operation {
            Operation::Create => on_create(request, registry).await,
            Operation::Update => {
                on_update(request);
                Ok(())
            }
            Operation::Delete | Operation::Connect => Ok(()),
        }
    }
}

async fn on_create(request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
    let refuse = request.refuse();
    let Some(spec) = request.object_as_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else { return Ok(()) };
    let name = spec.priority_class_name.clone().filter(|name| !name.is_empty());
    let class = match &name {
        None => default_class(registry),
        Some(name) => Some(
            class(registry, name)
                .await?
                .ok_or_else(|| refuse(format!("no PriorityClass with name {name} was found")))?,
        ),
    };
    let (value, policy) = match &class {
        Some(class) => (class.value.unwrap_or(0), class.preemption_policy.as_deref()),
        None => (0, Some(LOWER)),
    };
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        return Err(refuse(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        )));
    }
    spec.priority = Some(value);
    if let (None, Some(class)) = (&name, &class) {
        spec.priority_class_name = class.metadata.name.clone();
    }
    let Some(policy) = policy else { return Ok(()) };
    if let Some(given) = spec.preemption_policy.as_deref().filter(|given| *given != policy) {
        return Err(refuse(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        )));
    }
    spec.preemption_policy = Some(policy.to_owned());
    Ok(())
}

/// Clients that do not know the fields do not send them back.
fn on_update(request: &mut AdmissionRequest<'_>) {
    let old = request.old_as::<Pod>().and_then(|pod| pod.spec.as_ref());
    let Some((priority, policy)) = old.map(|spec| (spec.priority, spec.preemption_policy.clone())) else { return };
    if let Some(spec) = request.object_as_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
        spec.priority = spec.priority.or(priority);
        spec.preemption_policy = spec.preemption_policy.take().or(policy);
    }
}

async fn class(registry: &Registry, name: &str) -> Result<Option<Arc<PriorityClass>>, StatusError> {
    if let Some(found) = registry.get::<PriorityClass>("", name) {
        return Ok(Some(found));
    }
    registry.catch_up().await?;
    Ok(registry.get::<PriorityClass>("", name))
}

/// If several are marked, which a race can lead to, the one with the lowest value.
fn default_class(registry: &Registry) -> Option<Arc<PriorityClass>> {
    let all = registry.list::<PriorityClass>("");
    all.into_iter().filter(|class| class.global_default == Some(true)).min_by_key(|class| class.value)
}

#[async_trait]
impl Validating for Priorities {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if !request.is_of::<PriorityClass>() || !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let wants = request.object_as::<PriorityClass>().is_some_and(|class| class.global_default == Some(true));
        let Some(default) = default_class(registry).filter(|_| wants) else { return Ok(()) };
        let name = default.metadata.name.as_deref().unwrap_or("");
        if request.operation == Operation::Update && name == request.name {
            return Ok(());
        }
        Err(request.forbidden(format!("PriorityClass {name} is already marked as default. Only one default can exist")))
    }
}
