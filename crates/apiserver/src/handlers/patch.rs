//! PATCH in the three formats that change an object in place, tried again on the newest state when another write comes between.

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
use super::{Answer, Context, apply};
use crate::body;
use crate::cache::Item;
use crate::options::{FieldValidation, Write, WriteOptions};
use crate::registry::{Edit, Served};

pub async fn patch(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    if is_apply(context) {
        return apply::apply(context, served).await;
    }
    let (patch, WriteOptions { dry_run, validation }) = read(context).await?;

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

/// Whether the body is a configuration to be applied, and no patch.
pub fn is_apply(context: &Context<'_>) -> bool {
    decode::media_type(&context.parts.headers) == apply::MEDIA_TYPE
}

/// The patch in the body, by its media type, and the options of the request.
pub async fn read(context: &mut Context<'_>) -> Result<(Patch, WriteOptions), StatusError> {
    let media_type = decode::media_type(&context.parts.headers).to_owned();
    let Some(kind) = PatchType::of(&media_type) else {
        return Err(super::bare(StatusError::unsupported_media_type("415: Unsupported Media Type")));
    };
    context.accepted()?;
    let bytes = body::read(context.take_body()).await?;
    let write = context.options.write(Write::Patch)?;
    let (patch, strict) = Patch::parse(kind, &bytes).map_err(|error| refused(&error))?;
    decode::strict(strict, write.validation, &mut context.warnings)?;
    Ok((patch, write))
}

/// The object in the served form after the patch, checked.
fn patched(
    served: &Served,
    item: &Item,
    patch: &Patch,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, StatusError> {
    // Owners that the patch does not look at are not worth their cost.
    let tree = if patch.reads_owners() { item.object.value() } else { item.object.plain_value() };
    let tree = tree.map_err(StatusError::internal)?;
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
