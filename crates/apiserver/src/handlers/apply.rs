//! Server-side apply: PATCH with a configuration, which creates the object or takes over the fields that it names.
//!
//! Texts, codes and the order of the checks are those of upstream's `applyPatcher` and its field manager.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use serde_json::Value;
use xebec_api::fields::{Applied, Conflicts, FieldsError, Managed, Owners};
use xebec_api::schema;
use xebec_api::status::StatusError;

use super::render::with_type;
use super::update::{check_name, limited, part_of};
use super::{Answer, Context, decode};
use crate::body;
use crate::cache::Item;
use crate::chain;
use crate::options::{FieldValidation, Write, WriteOptions};
use crate::registry::{Part, Served, unreadable_owners};
use crate::request_info::RequestInfo;

pub const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// A configuration as it was sent.
pub struct Configuration {
    pub tree: Value,
    /// The first key that is given twice, with its line.
    strict: Option<String>,
    pub force: bool,
    validation: FieldValidation,
}

pub async fn apply(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let (config, dry_run) = read(context).await?;
    let (user, info) = (context.user, context.info);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, info.subresource);
    let registry = &context.server.registry;
    let manager = call.manager.clone();
    let now = registry.clock.now();
    let edit = |item: Option<&Item>, warnings: &mut Vec<String>| {
        let writer = registry.writer(served, info.subresource, &manager);
        let live = writer.live(item).map_err(StatusError::internal)?;
        let live = with_metadata(with_type(live, served.resource()), item);
        let text = item.and_then(|item| item.object.managed_fields());
        let managed = text.map(Managed::parse).transpose().map_err(|error| unreadable_owners(&error))?;
        let applied = config.apply(&writer.owners(), served, managed.unwrap_or_default(), &live)?;
        config.check_strict(warnings)?;
        let tree = finished(served, info, applied.object, item)?;
        let tree = match item {
            Some(item) => limited(info.subresource, tree, item, now)?,
            None => tree,
        };
        Ok((tree, applied.managed))
    };
    let part = part_of(info.subresource);
    let exists = served.cache.get(&namespace, info.name).is_some();
    if !exists && part == Part::Main {
        // An apply may become a creation, which is another right.
        let creation = RequestInfo { verb: "create", ..info.clone() };
        if let Err(error) = chain::authorize(context.server, &creation, user, &context.options).await {
            registry.catch_up().await?;
            if served.cache.get(&namespace, info.name).is_none() {
                return Err(error);
            }
        }
    }
    let result = registry.apply(served, (&namespace, info.name), part, &edit, &mut call).await;
    let outcome = context.finish(call, result)?;
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    context.object(served, code, &outcome.object)
}

/// The configuration in the body, and whether nothing is to be stored.
pub async fn read(context: &mut Context<'_>) -> Result<(Configuration, bool), StatusError> {
    context.accepted()?;
    let bytes = body::read(context.take_body()).await?;
    let WriteOptions { dry_run, validation } = context.options.write(Write::Apply)?;
    let (tree, strict) = parse(&bytes)?;
    let force = context.options.force.unwrap_or(false);
    Ok((Configuration { tree, strict, force, validation }, dry_run))
}

/// A YAML or JSON document, of keys given twice the last; and what is to be said of those.
fn parse(bytes: &Bytes) -> Result<(Value, Option<String>), StatusError> {
    let refused = |text: &str| StatusError::bad_request(format!("error encoding patch: {text}"));
    let text = std::str::from_utf8(bytes).map_err(|error| refused(&error.to_string()))?;
    if let Ok(decoded) = schema::parse_json(bytes)
        && decoded.strict.is_empty()
    {
        return object(decoded.value, None);
    }
    let error = match decode::yaml(text, decode::Duplicates::Refused) {
        Ok(tree) => return object(tree, None),
        Err(error) => error,
    };
    let strict = match error {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            format!("line {}: key {:?} already set in map", location.line(), key.as_deref().unwrap_or(""))
        }
        error => return Err(refused(&format!("yaml: {error}"))),
    };
    let tree = decode::yaml(text, decode::Duplicates::LastWins).map_err(|error| refused(&format!("yaml: {error}")))?;
    object(tree, Some(strict))
}

fn object(tree: Value, strict: Option<String>) -> Result<(Value, Option<String>), StatusError> {
    let found = match &tree {
        Value::Object(_) => return Ok((tree, strict)),
        Value::Null => return Ok((Value::Object(Default::default()), strict)),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Err(StatusError::bad_request(format!(
        "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type \
         map[string]interface {{}}"
    )))
}

impl Configuration {
    /// Applies it to a live object in the form of the request.
    pub fn apply(
        &self,
        owners: &Owners<'_>,
        served: &Served,
        managed: Managed,
        live: &Value,
    ) -> Result<Applied, StatusError> {
        let resource = served.resource();
        self.apply_as(owners, (&resource.api_version(), &resource.kind), managed, live)
    }

    /// The same for an object of a type that is no resource.
    pub fn apply_as(
        &self,
        owners: &Owners<'_>,
        (api_version, kind): (&str, &str),
        managed: Managed,
        live: &Value,
    ) -> Result<Applied, StatusError> {
        let text = |key: &str| self.tree.get(key).and_then(Value::as_str).unwrap_or("");
        let shown = shown_kind(text("apiVersion"), text("kind"));
        if (text("apiVersion"), text("kind")) != (api_version, kind) {
            return Err(StatusError::bad_request(format!("invalid object type: {shown}")));
        }
        if self.tree.pointer("/metadata/managedFields").is_some_and(Value::is_array) {
            return Err(StatusError::bad_request("metadata.managedFields must be nil"));
        }
        owners.apply(managed, live, &self.tree, self.force).map_err(|error| match error {
            FieldsError::Conflicts(conflicts) => conflict(&conflicts),
            FieldsError::Configuration(text) => {
                let meta = |key: &str| self.tree.pointer(key).and_then(Value::as_str).unwrap_or("");
                let (namespace, name) = (meta("/metadata/namespace"), meta("/metadata/name"));
                let text = format!("failed to create typed patch object ({namespace}/{name}; {shown}): {text}");
                StatusError::new(500, "", text)
            }
            FieldsError::Trees(text) => StatusError::new(500, "", text),
        })
    }

    /// What becomes of keys given twice, once all else is well.
    pub fn check_strict(&self, warnings: &mut Vec<String>) -> Result<(), StatusError> {
        match (&self.strict, self.validation) {
            (Some(strict), FieldValidation::Strict) => {
                let text = "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:";
                Err(StatusError::bad_request(format!("{text}\n  {strict}")))
            }
            (Some(strict), FieldValidation::Warn) => {
                warnings.push(strict.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The live object's revision is part of what a configuration is merged into: one that names another is in conflict.
fn with_metadata(mut live: Value, item: Option<&Item>) -> Value {
    if let Some(item) = item {
        live["metadata"]["resourceVersion"] = Value::from(item.object.revision().to_string());
    }
    live
}

/// What an apply made, checked and in the stored form.
fn finished(served: &Served, info: &RequestInfo<'_>, tree: Value, item: Option<&Item>) -> Result<Value, StatusError> {
    let tree = match served.schema {
        Some(ty) => schema::decode_value(tree, ty).map_err(|error| inconvertible(served, info, &error))?.value,
        None => tree,
    };
    if item.is_none() {
        let uid = tree.pointer("/metadata/uid").and_then(Value::as_str).filter(|uid| !uid.is_empty());
        if let Some(uid) = uid {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(StatusError::conflict(served.resource(), info.name, why));
        }
    }
    check_name(info, &tree)?;
    let mut tree = decode::to_stored(served, tree);
    if item.is_none()
        && let Some(metadata) = tree.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.shift_remove("resourceVersion");
    }
    Ok(tree)
}

fn inconvertible(served: &Served, info: &RequestInfo<'_>, error: &schema::DecodeError) -> StatusError {
    let resource = served.resource();
    let (kind, name) = (shown_kind(&resource.api_version(), &resource.kind), info.name);
    let text = format!(
        "failed to convert new object (/{name}; {kind}) to proper version: unable to convert unstructured object to {kind}: {error}"
    );
    StatusError::new(500, "", text)
}

fn conflict(conflicts: &Conflicts) -> StatusError {
    let causes = conflicts.0.iter().map(|conflict| StatusCause {
        reason: Some("FieldManagerConflict".to_owned()),
        message: Some(format!("conflict with {}", conflict.manager)),
        field: Some(conflict.path.to_string()),
    });
    let mut error = StatusError::new(409, "Conflict", conflicts.to_string());
    error.0.details = Some(StatusDetails { causes: Some(causes.collect()), ..StatusDetails::default() });
    error
}

/// `apps/v1, Kind=Deployment`
fn shown_kind(api_version: &str, kind: &str) -> String {
    let version: Cow<'_, str> =
        if api_version.contains('/') { api_version.into() } else { format!("/{api_version}").into() };
    format!("{version}, Kind={kind}")
}
