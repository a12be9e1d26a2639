//! PUT of an object or of one of its parts.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use xebec_api::status::StatusError;

use super::decode::{self, Expected};
use super::{Answer, Context, pods};
use crate::body;
use crate::options::{Write, WriteOptions};
use crate::registry::{Edit, Part, Served};
use crate::request_info::RequestInfo;

pub async fn update(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.accepted()?;
    let WriteOptions { dry_run, validation } = context.options.write(Write::Update)?;
    let bytes = body::read(context.take_body()).await?;
    let tree = Expected::of(served).read(&context.parts.headers, bytes, validation, &mut context.warnings)?;
    check_name(context.info, &tree)?;
    let tree = decode::to_stored(served, tree);

    let (user, info) = (context.user, context.info);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, info.subresource);
    let registry = &context.server.registry;
    let now = registry.clock.now();
    let edit = |item: &crate::cache::Item, _: &mut Vec<String>| {
        same_uid(served, &tree, item)?;
        limited(info.subresource, tree.clone(), item, now)
    };
    let part = part_of(info.subresource);
    let mut result = registry.update(served, (&namespace, info.name), part, Edit::Tree(&edit), &mut call).await;
    let creates = info.subresource.is_empty() && served.strategy.allow_create_on_update();
    if creates && result.as_ref().is_err_and(StatusError::is_not_found) {
        let mut tree = tree.clone();
        if let Some(metadata) = tree.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        result = registry.create(served, &namespace, tree, &mut call).await;
    }
    let outcome = context.finish(call, result)?;
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    context.object(served, code, &outcome.object)
}

/// Which part a subresource writes.
pub fn part_of(subresource: &str) -> Part {
    match subresource {
        "status" => Part::Status,
        "ephemeralcontainers" => Part::Subresource("ephemeralcontainers"),
        "resize" => Part::Subresource("resize"),
        "approval" => Part::Subresource("approval"),
        "finalize" => Part::Subresource("finalize"),
        _ => Part::Main,
    }
}

/// What a subresource lets through of a new tree: everything for the resource itself and its status, and where the kind's
/// strategy drops what may not change.
pub fn limited(
    subresource: &str,
    tree: Value,
    item: &crate::cache::Item,
    now: Timestamp,
) -> Result<Value, StatusError> {
    match subresource {
        "ephemeralcontainers" => pods::only_ephemeral_containers(tree, item),
        "finalize" => only_finalizers(tree, item),
        "approval" => only_conditions(tree, item, now),
        _ => Ok(tree),
    }
}

/// A Namespace's `/finalize` changes nothing but `spec.finalizers`.
fn only_finalizers(tree: Value, item: &crate::cache::Item) -> Result<Value, StatusError> {
    let mut current = item.object.value().map_err(StatusError::internal)?;
    current["spec"] = tree.get("spec").cloned().unwrap_or_else(|| Value::Object(Default::default()));
    if let Some(wanted) = tree.pointer("/metadata/resourceVersion") {
        current["metadata"]["resourceVersion"] = wanted.clone();
    }
    Ok(current)
}

/// A decision on a CertificateSigningRequest is a condition; new ones get their times here.
fn only_conditions(tree: Value, item: &crate::cache::Item, now: Timestamp) -> Result<Value, StatusError> {
    let mut current = item.object.value().map_err(StatusError::internal)?;
    let mut conditions = tree.pointer("/status/conditions").cloned().unwrap_or(Value::Array(Vec::new()));
    let before = current.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let now = serde_json::to_value(Time(now)).map_err(StatusError::internal)?;
    for condition in conditions.as_array_mut().into_iter().flatten() {
        let same = before.iter().find(|one| one["type"] == condition["type"] && one["status"] == condition["status"]);
        let since = same.map(|same| same["lastTransitionTime"].clone()).filter(Value::is_string);
        for (field, time) in [("lastUpdateTime", now.clone()), ("lastTransitionTime", since.unwrap_or(now.clone()))] {
            if !condition[field].is_string() {
                condition[field] = time;
            }
        }
    }
    current["status"]["conditions"] = conditions;
    current["metadata"] = tree.get("metadata").cloned().unwrap_or_default();
    Ok(current)
}

/// A PUT that names a uid is meant for that object alone.
fn same_uid(served: &Served, tree: &Value, item: &crate::cache::Item) -> Result<(), StatusError> {
    let wanted = tree.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or("");
    let uid = &*item.object.meta().uid;
    if wanted.is_empty() || wanted == uid {
        return Ok(());
    }
    let key = served.cache.store_key(item.object.namespace(), item.object.name());
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID \
         in precondition: {wanted}, UID in object meta: {uid}"
    );
    Err(StatusError::conflict(served.resource(), item.object.name(), why))
}

/// The name and namespace of an object are those of the URL.
pub fn check_name(info: &RequestInfo<'_>, tree: &Value) -> Result<(), StatusError> {
    let text = |path: &str| tree.pointer(path).and_then(Value::as_str).unwrap_or("");
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    if !info.namespace.is_empty() && !namespace.is_empty() && namespace != info.namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(StatusError::bad_request(text));
    }
    if name.is_empty() {
        let url = info.name;
        let text = format!("the name of the object ({url} based on URL) was undeterminable: name must be provided");
        return Err(StatusError::bad_request(text));
    }
    if name != info.name {
        let url = info.name;
        let text = format!("the name of the object ({name}) does not match the name on the URL ({url})");
        return Err(StatusError::bad_request(text));
    }
    Ok(())
}
