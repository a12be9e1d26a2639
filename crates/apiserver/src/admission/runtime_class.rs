//! What a Pod's RuntimeClass says of overhead and placement becomes the Pod's own.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use k8s_openapi::api::node::v1::{RuntimeClass, Scheduling};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation, Validating};
use crate::registry::Registry;
use crate::resources::validation::semantically_equal;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub struct RuntimeClasses;

#[async_trait]
impl Mutating for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Pod>() {
            return Ok(());
        }
        let Some(class) = class_of(request, registry).await? else { return Ok(()) };
        let refuse = request.refuse();
        let Some(spec) = request.object_as_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else { return Ok(()) };
        if let Some(overhead) = &class.overhead {
            let given = spec.overhead.as_ref().is_some_and(|overhead| !overhead.is_empty());
            if given && !semantically_equal(&spec.overhead, &overhead.pod_fixed) {
                return Err(refuse(MISMATCH.to_owned()));
            }
            spec.overhead = overhead.pod_fixed.clone();
        }
        match &class.scheduling {
            Some(scheduling) => place(spec, scheduling).map_err(refuse),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Validating for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Pod>() {
            return Ok(());
        }
        let class = class_of(request, registry).await?;
        let Some(spec) = request.object_as::<Pod>().and_then(|pod| pod.spec.as_ref()) else { return Ok(()) };
        let why = match class.as_ref().and_then(|class| class.overhead.as_ref()) {
            Some(overhead) if !semantically_equal(&overhead.pod_fixed, &spec.overhead) => MISMATCH,
            None if spec.overhead.is_some() => {
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            }
            _ => return Ok(()),
        };
        Err(request.forbidden(why))
    }
}

async fn class_of(
    request: &AdmissionRequest<'_>,
    registry: &Registry,
) -> Result<Option<Arc<RuntimeClass>>, StatusError> {
    let spec = request.object_as::<Pod>().and_then(|pod| pod.spec.as_ref());
    let Some(name) = spec.and_then(|spec| spec.runtime_class_name.as_deref()) else { return Ok(None) };
    if let Some(class) = registry.get::<RuntimeClass>("", name) {
        return Ok(Some(class));
    }
    registry.catch_up().await?;
    match registry.get::<RuntimeClass>("", name) {
        Some(class) => Ok(Some(class)),
        None => Err(request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn place(spec: &mut PodSpec, scheduling: &Scheduling) -> Result<(), String> {
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let own = spec.node_selector.get_or_insert_default();
        if let Some(given) = own.get(key).filter(|given| *given != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
            ));
        }
        own.insert(key.clone(), value.clone());
    }
    if let Some(more) = scheduling.tolerations.as_ref().filter(|more| !more.is_empty()) {
        let own = spec.tolerations.take().unwrap_or_default();
        spec.tolerations = Some(merged(own.into_iter().chain(more.iter().cloned()).collect()));
    }
    Ok(())
}

/// All tolerations but those that another one makes superfluous.
fn merged(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut kept: Vec<Toleration> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let before = kept.iter().any(|other| covers(other, one));
        let after = all[index + 1..].iter().any(|other| !semantically_equal(other, one) && covers(other, one));
        if !before && !after {
            kept.push(one.clone());
        }
    }
    kept
}

/// Whether what the second tolerates the first tolerates too.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if semantically_equal(wide, narrow) {
        return true;
    }
    let exists = text(&wide.operator) == "Exists";
    let same_key = text(&wide.key) == text(&narrow.key) || (text(&wide.key).is_empty() && exists);
    let same_effect = text(&wide.effect) == text(&narrow.effect) || text(&wide.effect).is_empty();
    let lasts = text(&wide.effect) != "NoExecute"
        || match (wide.toleration_seconds, narrow.toleration_seconds) {
            (None, _) => true,
            (Some(wide), Some(narrow)) => wide >= narrow,
            (Some(_), None) => false,
        };
    // As upstream: an operator that is left out is the default only on the wider side.
    let equal = matches!(text(&wide.operator).as_str(), "" | "Equal") && text(&narrow.operator) == "Equal";
    let same_value = exists || (equal && text(&wide.value) == text(&narrow.value));
    same_key && same_effect && lasts && same_value
}
