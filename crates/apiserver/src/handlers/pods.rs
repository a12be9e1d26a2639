//! What only Pods have: binding to a node, eviction within disruption budgets, and the parts with subresources of their own.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, StatusCause, Time};
use serde_json::Value;
use xebec_api::field::{FieldError, Path};
use xebec_api::resource::ResourceType;
use xebec_api::selector::LabelSelector;
use xebec_api::status::StatusError;

use super::decode::Expected;
use super::{Answer, Context};
use crate::admission::topology_labels;
use crate::body;
use crate::cache::Item;
use crate::registry::erased::AnyObject;
use crate::registry::{Call, DeleteRequest, Edit, Part, Served};

const BINDING: ResourceType = ResourceType::new("", "v1", "Pod", "pods/binding", true);
const SUCCESS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#;

async fn read<T: serde::de::DeserializeOwned>(
    context: &mut Context<'_>,
    expected: Expected<'_>,
) -> Result<T, StatusError> {
    let validation = context.options.field_validation("CreateOptions")?;
    let bytes = body::read(context.take_body()).await?;
    let tree = expected.read(&context.parts.headers, bytes, validation, &mut context.warnings)?;
    serde_json::from_value(tree).map_err(|error| StatusError::bad_request(error.to_string()))
}

/// `pods/binding` and `bindings`: gives a Pod its node, once.
pub async fn binding(context: &mut Context<'_>) -> Answer {
    let dry_run = context.options.is_dry_run("CreateOptions")?;
    let served = context.server.registry.index.find("", "v1", "pods").cloned().ok_or_else(StatusError::no_such_path)?;
    let binding: Binding = read(context, Expected::named("", "v1", "Binding")).await?;
    let name = binding.metadata.name.clone().unwrap_or_default();
    let on_url = if context.info.subresource.is_empty() { &name } else { context.info.name };
    if name != *on_url {
        return Err(StatusError::bad_request("name in URL does not match name in Binding object"));
    }
    check_binding(&binding)?;
    let now = Time(context.server.registry.clock.now());
    let node = binding.target.name.as_deref().unwrap_or("");
    let labels = topology_labels::of_node(&context.server.registry, node);
    let edit = |object: &mut dyn AnyObject| match object.as_any_mut().downcast_mut::<Pod>() {
        Some(pod) => {
            bind(pod, &binding, now.clone())?;
            if !labels.is_empty() {
                pod.metadata.labels.get_or_insert_default().extend(labels.clone());
            }
            Ok(())
        }
        None => Err(StatusError::internal("a binding names something that is no Pod")),
    };
    let (user, namespace) = (context.user, context.info.namespace);
    let mut call = context.call(user, dry_run, "binding");
    let registry = &context.server.registry;
    let result = registry.update(&served, (namespace, &name), Part::Direct, Edit::Typed(&edit), &mut call).await;
    context.finish(call, result)?;
    context.encoded(StatusCode::CREATED, SUCCESS.to_vec(), context.accepted_plain()?)
}

fn check_binding(binding: &Binding) -> Result<(), StatusError> {
    let path = Path::new("target");
    let mut errors = Vec::new();
    match binding.target.kind.as_deref().unwrap_or("") {
        "" | "Node" => {}
        other => errors.push(FieldError::not_supported(&path.child("kind"), other, &["Node", "<empty>"])),
    }
    if binding.target.name.as_deref().unwrap_or("").is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    // Upstream answers with the bare errors.
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let text = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
    Err(StatusError::new(500, "", text))
}

fn bind(pod: &mut Pod, binding: &Binding, now: Time) -> Result<(), StatusError> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let conflict = |why: String| StatusError::conflict(&BINDING, &name, why);
    if let Some(uid) = binding.metadata.uid.as_ref().filter(|uid| !uid.is_empty()) {
        pod.metadata.uid = Some(uid.clone());
    }
    if let Some(version) = binding.metadata.resource_version.as_ref().filter(|version| !version.is_empty()) {
        pod.metadata.resource_version = Some(version.clone());
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_ref().filter(|node| !node.is_empty()) {
        return Err(conflict(format!("pod {name} is already assigned to node {node:?}")));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    spec.node_name = binding.target.name.clone();
    if let Some(annotations) = binding.metadata.annotations.clone().filter(|annotations| !annotations.is_empty()) {
        pod.metadata.annotations.get_or_insert_default().extend(annotations);
    }
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now),
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|condition| condition.type_ == "PodScheduled") {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    Ok(())
}

/// `pods/eviction`: a deletion that disruption budgets may refuse for now.
pub async fn eviction(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let eviction: Eviction = read(context, Expected::named("policy", "v1", "Eviction")).await?;
    let name = context.info.name;
    if eviction.metadata.name.as_deref().is_some_and(|own| own != name) {
        let own = eviction.metadata.name.unwrap_or_default();
        let text = format!("name in URL does not match name in Eviction object: {name} != {own}");
        return Err(StatusError::bad_request(text));
    }
    let options = eviction.delete_options.unwrap_or_default();
    let asked = options.dry_run.as_ref().is_some_and(|all| !all.is_empty());
    let dry_run = asked || context.options.is_dry_run("CreateOptions")?;
    let (user, namespace) = (context.user, context.info.namespace);
    let registry = &context.server.registry;
    let item = registry.fresh(served, namespace, name).await?;
    let pod: Arc<Pod> = item.object.typed().map_err(StatusError::internal)?;
    if !ignores_budgets(&pod)
        && let Some(budget) = budget_of(context, &pod)?
    {
        take_from_budget(context, &budget, name, dry_run).await?;
    }
    let mut call = context.call(user, dry_run, "");
    let options = DeleteOptions { dry_run: None, ..options };
    let request = DeleteRequest { namespace, name, options: &options };
    let result = context.server.registry.delete(served, &request, &mut call).await;
    context.finish(call, result)?;
    context.encoded(StatusCode::CREATED, SUCCESS.to_vec(), context.accepted_plain()?)
}

/// Nothing is disrupted by the end of a Pod that has ended, has not begun, or is ending.
fn ignores_budgets(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn budget_of(context: &Context<'_>, pod: &Pod) -> Result<Option<Arc<PodDisruptionBudget>>, StatusError> {
    let mut matching = Vec::new();
    for budget in context.server.registry.list::<PodDisruptionBudget>(context.info.namespace) {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = LabelSelector::from_object(selector).map_err(StatusError::internal)?;
        if selector.matches_map(pod.metadata.labels.as_ref()) {
            matching.push(budget);
        }
    }
    if matching.len() > 1 {
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(StatusError::new(500, "", text));
    }
    Ok(matching.pop())
}

async fn take_from_budget(
    context: &Context<'_>,
    budget: &PodDisruptionBudget,
    pod: &str,
    dry_run: bool,
) -> Result<(), StatusError> {
    let registry = &context.server.registry;
    let served = registry.index.find("policy", "v1", "poddisruptionbudgets").ok_or_else(StatusError::no_such_path)?;
    let (namespace, name) = (context.info.namespace, budget.metadata.name.clone().unwrap_or_default());
    let now = Time(registry.clock.now());
    let edit = |object: &mut dyn AnyObject| match object.as_any_mut().downcast_mut::<PodDisruptionBudget>() {
        Some(budget) => disrupt(budget, pod, now.clone()),
        None => Err(StatusError::internal("a disruption budget is of another kind")),
    };
    let mut call = Call { dry_run, ..Call::new(context.user) };
    registry.update(served, (namespace, &name), Part::Direct, Edit::Typed(&edit), &mut call).await.map(drop)
}

fn disrupt(budget: &mut PodDisruptionBudget, pod: &str, now: Time) -> Result<(), StatusError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let refused = |message: String| {
        let cause = StatusCause {
            reason: Some("DisruptionBudget".to_owned()),
            message: Some(message),
            ..StatusCause::default()
        };
        let text = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut error = StatusError::too_many_requests(text, 0);
        error.0.details = Some(Default::default());
        error.with_causes(vec![cause])
    };
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        let text = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(text).with_retry_after(10));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed <= 0 {
        return Err(refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        )));
    }
    status.disruptions_allowed = Some(allowed - 1);
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), now);
    Ok(())
}

/// A tree with the current object's everything but `spec.ephemeralContainers`.
pub fn only_ephemeral_containers(tree: Value, item: &Item) -> Result<Value, StatusError> {
    let mut current = item.object.value().map_err(StatusError::internal)?;
    if let Some(wanted) = tree.pointer("/spec/ephemeralContainers") {
        current["spec"]["ephemeralContainers"] = wanted.clone();
    }
    keep_precondition(&tree, &mut current);
    Ok(current)
}

fn keep_precondition(tree: &Value, current: &mut Value) {
    if let Some(wanted) = tree.pointer("/metadata/resourceVersion") {
        current["metadata"]["resourceVersion"] = wanted.clone();
    }
}
