//! PUT of an object or of one of its parts.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use xebec_api::status::StatusError;

use super::decode::{self, Expected};
use super::{Answer, Context, pods};
use crate::body;
use crate::registry::{Edit, Part, Served};

pub async fn update(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.accepted()?;
    let dry_run = context.options.is_dry_run("UpdateOptions")?;
    let validation = context.options.field_validation("UpdateOptions")?;
    let bytes = body::read(context.take_body()).await?;
    let tree = Expected::of(served).read(&context.parts.headers, bytes, validation, &mut context.warnings)?;
    check_name(context, &tree)?;
    let tree = decode::to_stored(served, tree);

    let (user, info) = (context.user, context.info);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, info.subresource);
    let registry = &context.server.registry;
    let edit = |item: &crate::cache::Item, _: &mut Vec<String>| limited(info.subresource, tree.clone(), item);
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
        "finalize" => Part::Subresource("finalize"),
        _ => Part::Main,
    }
}

/// What a subresource lets through of a new tree: everything for the resource itself and its status.
pub fn limited(subresource: &str, tree: Value, item: &crate::cache::Item) -> Result<Value, StatusError> {
    match subresource {
        "ephemeralcontainers" => pods::only_ephemeral_containers(tree, item),
        "resize" => pods::only_resources(tree, item),
        "finalize" => only_finalizers(tree, item),
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

fn check_name(context: &Context<'_>, tree: &Value) -> Result<(), StatusError> {
    let name = tree.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
    if name.is_empty() {
        return Err(StatusError::bad_request("name must be provided"));
    }
    if name != context.info.name {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            context.info.name
        )));
    }
    Ok(())
}
