//! The language of schemas: what upstream leaves out of JSON Schema, and its own additions to it.
//!
//! Whether the types are said as they must be is asked in `structural`. Rules in CEL are not compiled here, and defaults
//! are not held against their schemas.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::structural::{self, is, items_of, others_of, place, restrictions_of};
use crate::resources::validation::{text, unsupported};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// In the order in which upstream tells them, and under the names of its fields.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// The schema of whole objects; `has_status` where their status is written apart.
pub fn root(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, has_status: bool) {
    if has_status {
        status_can_be_cut_out(errors, path, schema);
    }
    if is(schema.nullable) {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let mut convertible = true;
    visit(schema, &mut |one| convertible &= !has_unknown_parts(one));
    if convertible {
        structural::root(errors, path, schema);
    }
    level(errors, path, schema, Within { root: true, ..Within::default() });
}

/// Calls `see` with the schema and all within.
pub fn visit<'a>(schema: &'a JSONSchemaProps, see: &mut impl FnMut(&'a JSONSchemaProps)) {
    see(schema);
    let nested = restrictions_of(schema).map(|(_, _, one)| one);
    let nested = nested.chain(schema.properties.iter().flat_map(BTreeMap::values));
    nested.chain(items_of(schema)).chain(others_of(schema)).for_each(|one| visit(one, see));
    if let Some(JSONSchemaPropsOrArray::Schemas(all)) = &schema.items {
        all.iter().for_each(|one| visit(one, see));
    }
}

fn has_unknown_parts(schema: &JSONSchemaProps) -> bool {
    unknown_parts(schema).iter().any(|(_, set)| *set)
        || matches!(&schema.items, Some(JSONSchemaPropsOrArray::Schemas(_)))
        || schema.x_kubernetes_preserve_unknown_fields == Some(false)
}

fn unknown_parts(schema: &JSONSchemaProps) -> [(&'static str, bool); 6] {
    let is_full = |map: &Option<BTreeMap<String, JSONSchemaProps>>| map.as_ref().is_some_and(|all| !all.is_empty());
    [
        ("id", !text(&schema.id).is_empty()),
        ("additionalItems", schema.additional_items.is_some()),
        ("patternProperties", is_full(&schema.pattern_properties)),
        ("definitions", is_full(&schema.definitions)),
        ("dependencies", schema.dependencies.is_some()),
        ("$ref", schema.ref_path.is_some()),
    ]
}

/// Objects' status is held against the part of the schema that is for it, so the root must not ask for more.
fn status_can_be_cut_out(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps) {
    let kind = text(&schema.type_);
    if !kind.is_empty() && kind != "object" {
        let about =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.push(FieldError::invalid(&path.child("type"), kind, about));
    }
    let tree = serde_json::to_value(schema).unwrap_or_default();
    let is_set = |value: &Value| !matches!(value, Value::Bool(false)) && *value != json!("");
    let mut fields = tree.as_object().into_iter().flatten().filter(|(_, value)| is_set(value));
    if fields.any(|(field, _)| AT_ROOT.iter().all(|(known, _)| known != field)) {
        let known: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let about = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            known.join(" ")
        );
        errors.push(FieldError::invalid(path, tree, about));
    }
}

/// What is known of where a schema stands.
#[derive(Clone, Default)]
struct Within {
    root: bool,
    /// Of an object's own fields, at the root or of an object within the object.
    metadata: bool,
    /// Why there may be no defaults.
    no_defaults: Option<String>,
}

fn level(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, within: Within) {
    let inner = Within { root: false, ..within.clone() };
    language(errors, path, schema, &within);
    if let Some(more) = others_of(schema) {
        let mut within = inner.clone();
        if within.metadata {
            within.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        level(errors, &path.child("additionalProperties"), more, within);
    }
    for (name, field) in schema.properties.iter().flatten() {
        let mut inner = inner.clone();
        let is_object = within.root || is(schema.x_kubernetes_embedded_resource);
        if is_object && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.metadata = true;
            if within.root {
                inner.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        level(errors, &path.child("properties").key(name), field, inner);
    }
    for (field, index, one) in restrictions_of(schema) {
        level(errors, &place(path, field, index), one, inner.clone());
    }
    for (name, one) in schema.definitions.iter().flatten() {
        level(errors, &path.child("definitions").key(name), one, inner.clone());
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => level(errors, &path.child("items"), items, inner),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => {
            all.iter().enumerate().for_each(|(index, one)| {
                level(errors, &path.child("items").index(index), one, inner.clone());
            });
        }
        None => {}
    }
    additions(errors, path, schema);
    for (index, rule) in schema.x_kubernetes_validations.iter().flatten().enumerate() {
        validation_rule(errors, &path.child("x-kubernetes-validations").index(index), rule);
    }
}

fn language(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, within: &Within) {
    let kind = text(&schema.type_);
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(unsupported(&path.child("type"), kind, &TYPES));
    }
    let mut forbid = |is: bool, field: &str, about: &str| {
        if is {
            errors.push(FieldError::forbidden(&path.child(field), about));
        }
    };
    if let Some(why) = &within.no_defaults {
        forbid(schema.default.is_some(), "default", &format!("must not be set {why}"));
    }
    for (field, set) in unknown_parts(schema) {
        forbid(set, field, &format!("{field} is not supported"));
    }
    forbid(kind == "null", "type", "type cannot be set to null, use nullable as an alternative");
    let listed = matches!(&schema.items, Some(JSONSchemaPropsOrArray::Schemas(all)) if !all.is_empty());
    forbid(listed, "items", "items must be a schema object and not an array");
    let embedded = within.metadata && is(schema.x_kubernetes_embedded_resource);
    forbid(embedded, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    let about = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
    forbid(is(schema.unique_items), "uniqueItems", about);
    let both = schema.properties.as_ref().is_some_and(|all| !all.is_empty())
        && !matches!(&schema.additional_properties, None | Some(JSONSchemaPropsOrBool::Bool(true)));
    forbid(both, "additionalProperties", "additionalProperties and properties are mutual exclusive");
}

fn additions(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps) {
    if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&path, false, "must be true or undefined"));
    }
    if let Some(kind) = schema.x_kubernetes_map_type.as_deref() {
        is_of_type(errors, path, schema, "object", "must be object if x-kubernetes-map-type is specified");
        if !["atomic", "granular"].contains(&kind) {
            errors.push(unsupported(&path.child("x-kubernetes-map-type"), kind, &["atomic", "granular"]));
        }
    }
    let keys = schema.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let at = path.child("x-kubernetes-list-type");
    let about = "must be map if x-kubernetes-list-map-keys is non-empty";
    let Some(kind) = schema.x_kubernetes_list_type.as_deref() else {
        if !keys.is_empty() {
            errors.push(FieldError::required(&at, about));
        }
        return;
    };
    let is_list = is_of_type(errors, path, schema, "array", "must be array if x-kubernetes-list-type is specified");
    if is_list && kind == "set" {
        set(errors, path, schema);
    }
    if !["atomic", "set", "map"].contains(&kind) {
        errors.push(unsupported(&at, kind, &["atomic", "set", "map"]));
    }
    if !keys.is_empty() && kind != "map" {
        errors.push(FieldError::invalid(&at, kind, about));
    }
    if kind == "map" {
        map(errors, path, schema, keys);
    }
    if matches!(kind, "set" | "map") && items_of(schema).is_some_and(|items| is(items.nullable)) {
        let about = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.push(FieldError::forbidden(&path.child("items.nullable"), about));
    }
}

fn is_of_type(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, wanted: &str, about: &str) -> bool {
    let (at, kind) = (path.child("type"), text(&schema.type_));
    match kind {
        "" => errors.push(FieldError::required(&at, about)),
        kind if kind != wanted => errors.push(FieldError::invalid(&at, kind, about)),
        _ => {}
    }
    kind == wanted
}

/// The items of a set are told apart by their value, so they are written as a whole.
fn set(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps) {
    let Some(items) = items_of(schema) else { return };
    let (list, object) = (items.x_kubernetes_list_type.as_deref(), items.x_kubernetes_map_type.as_deref());
    let about = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let field = match text(&items.type_) {
        "array" if !matches!(list, None | Some("atomic")) => "x-kubernetes-list-type",
        "object" if object != Some("atomic") => "x-kubernetes-map-type",
        _ => return,
    };
    // Upstream shows the type of list for both.
    errors.push(FieldError::invalid(&path.child("items").child(field), json!(list), about));
}

/// Lists that are merged item by item say how items are told apart.
fn map(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, keys: &[String]) {
    let (at_items, at_keys) = (path.child("items"), path.child("x-kubernetes-list-map-keys"));
    if keys.is_empty() {
        let about = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&at_keys, about));
    }
    if schema.items.is_none() {
        let about = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&at_items, about));
    }
    let Some(items) = items_of(schema) else { return };
    let kind = text(&items.type_);
    if kind != "object" {
        let about = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.push(FieldError::invalid(&at_items.child("type"), kind, about));
    }
    let mut seen = BTreeSet::new();
    for key in keys {
        let path = at_items.child("properties").key(key);
        match items.properties.as_ref().and_then(|all| all.get(key)) {
            None => {
                let about = "entries must all be names of item properties";
                errors.push(FieldError::invalid(&at_keys, json!(keys), about));
            }
            Some(field) => map_key(errors, &path, field, items.required.iter().flatten().any(|one| one == key)),
        }
        if !seen.insert(key) {
            errors.push(FieldError::invalid(&at_keys, json!(keys), "must not contain duplicate entries"));
        }
    }
}

fn map_key(errors: &mut FieldErrors, path: &Path, field: &JSONSchemaProps, required: bool) {
    if matches!(text(&field.type_), "array" | "object") {
        let about = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        // Upstream shows the type of the items, which is always this.
        errors.push(FieldError::invalid(&path.child("type"), "object", about));
    }
    let what = "this property is in x-kubernetes-list-map-keys, so it";
    if !required && field.default.is_none() {
        let about = format!("{what} must have a default or be a required property");
        errors.push(FieldError::required(&path.child("default"), about));
    }
    if is(field.nullable) {
        errors.push(FieldError::forbidden(&path.child("nullable"), format!("{what} cannot be nullable")));
    }
}

/// What a rule says beside its expression.
fn validation_rule(errors: &mut FieldErrors, path: &Path, rule: &ValidationRule) {
    let is_broken = |text: &str| text.contains(['\n', '\r']);
    let (message, field) = (text(&rule.message), text(&rule.field_path));
    let at = path.child("message");
    if rule.rule.trim().is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&at, message, "must be non-empty if specified"));
    } else if is_broken(message.trim()) {
        errors.push(FieldError::invalid(&at, message, "must not contain line breaks"));
    } else if is_broken(rule.rule.trim()) && message.is_empty() {
        errors.push(FieldError::required(&at, "message must be specified if rule contains line breaks"));
    }
    let expression = text(&rule.message_expression);
    if !expression.is_empty() && expression.trim().is_empty() {
        let about = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.child("messageExpression"), about));
    }
    if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
        errors.push(unsupported(&path.child("reason"), reason, &REASONS));
    }
    let at = path.child("fieldPath");
    if !field.is_empty() && field.trim().is_empty() {
        errors.push(FieldError::invalid(&at, field, "must be non-empty if specified"));
    }
    if is_broken(field) {
        errors.push(FieldError::invalid(&at, field, "must not contain line breaks"));
    }
}
