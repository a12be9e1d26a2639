//! PATCH in its three formats, tried again on the newest state when another write comes between.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;
use xebec_api::field::{FieldError, Path};
use xebec_api::patch::{Patch, PatchError, PatchType};
use xebec_api::schema;
use xebec_api::status::StatusError;

use super::decode;
use super::render::with_type;
use super::update::{check_name, limited, part_of};
use super::{Answer, Context};
use crate::body;
use crate::cache::Item;
use crate::options::FieldValidation;
use crate::registry::{Edit, Served};

const APPLY: [&str; 2] = ["application/apply-patch+yaml", "application/apply-patch+cbor"];

pub async fn patch(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.accepted()?;
    let dry_run = context.options.is_dry_run("PatchOptions")?;
    let validation = context.options.field_validation("PatchOptions")?;
    let patch = read(context, validation).await?;

    let (user, info) = (context.user, context.info);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, info.subresource);
    let now = context.server.registry.clock.now();
    let edit = |item: &Item, warnings: &mut Vec<String>| {
        let tree = patched(served, item, &patch, validation, warnings)?;
        check_name(info, &tree)?;
        limited(info.subresource, decode::to_stored(served, tree), item, now)
    };
    let registry = &context.server.registry;
    let part = part_of(info.subresource);
    let result = registry.update(served, (&namespace, info.name), part, Edit::Tree(&edit), &mut call).await;
    let outcome = context.finish(call, result)?;
    context.object(served, StatusCode::OK, &outcome.object)
}

/// The patch in the body, by its media type.
pub async fn read(context: &mut Context<'_>, validation: FieldValidation) -> Result<Patch, StatusError> {
    let media_type = decode::media_type(&context.parts.headers).to_owned();
    let Some(kind) = PatchType::of(&media_type) else {
        let supported = [PatchType::Json, PatchType::Merge, PatchType::Strategic].map(PatchType::media_type);
        let text = if APPLY.contains(&media_type.as_str()) {
            format!("server-side apply is not served; the supported patch types are: {}", supported.join(", "))
        } else {
            "415: Unsupported Media Type".to_owned()
        };
        return Err(super::bare(StatusError::unsupported_media_type(text)));
    };
    let bytes = body::read(context.take_body()).await?;
    let (patch, strict) = Patch::parse(kind, &bytes).map_err(|error| refused(&error))?;
    decode::strict(strict, validation, &mut context.warnings)?;
    Ok(patch)
}

/// The object in the served form after the patch, checked.
fn patched(
    served: &Served,
    item: &Item,
    patch: &Patch,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, StatusError> {
    let tree = item.object.value().map_err(StatusError::internal)?;
    let tree = match served.row.conversion {
        Some(conversion) => (conversion.from_stored)(tree),
        None => tree,
    };
    let mut tree = with_type(tree, served.resource());
    patch.apply(&mut tree, served.schema).map_err(|error| refused(&error))?;
    let Some(ty) = served.schema else { return Ok(tree) };
    let shown = |tree: &Value| patch.quoted().unwrap_or_else(|| tree.to_string());
    let before = tree.clone();
    let decoded =
        schema::decode_value(tree, ty).map_err(|error| invalid_outcome(&shown(&before), &error.to_string()))?;
    if validation == FieldValidation::Strict && !decoded.strict.is_empty() {
        return Err(invalid_outcome(&shown(&before), &schema::strict_error(&decoded.strict)));
    }
    decode::strict(decoded.strict, validation, warnings)?;
    Ok(decoded.value)
}

/// What the patch has made is no object of the kind.
fn invalid_outcome(shown: &str, why: &str) -> StatusError {
    let error = FieldError::invalid(&Path::new("patch"), shown, why);
    let cause = StatusCause {
        field: Some(error.field.clone()),
        message: Some(error.body()),
        reason: Some(error.kind.reason().to_owned()),
    };
    StatusError::new(422, "Invalid", format!(" \"\" is invalid: {error}")).with_causes(vec![cause])
}

/// The answer to a patch that cannot be applied.
pub fn refused(error: &PatchError) -> StatusError {
    match error {
        PatchError::BadRequest(text) => StatusError::bad_request(text.clone()),
        PatchError::TooLarge(text) => StatusError::too_large(text.clone()),
        // Upstream keeps what exactly went wrong to itself.
        PatchError::Unprocessable(_) => super::bare(StatusError::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )),
        PatchError::Other(text) => StatusError::new(500, "", text.clone()),
    }
}
