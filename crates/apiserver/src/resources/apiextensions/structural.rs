//! Whether a schema is structural: every field has one type, said once, outside of what only restricts values.
//!
//! Source: upstream's "Structural schemas" (KEP-1979) and its `schema` package. What the language leaves out is in
//! `schema`.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::text;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

pub fn root(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps) {
    structure(errors, path, schema, Level::Root);
    // Upstream asks this of the root's restrictions alone.
    complete(errors, (path, schema), (path, schema));
}

pub fn is(flag: Option<bool>) -> bool {
    flag == Some(true)
}

pub fn items_of(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

/// The schema of values under names that are not known beforehand.
pub fn others_of(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(more)) => Some(more),
        _ => None,
    }
}

/// The schemas that restrict values beyond the structure, and where they are.
pub fn restrictions_of(
    schema: &JSONSchemaProps,
) -> impl Iterator<Item = (&'static str, Option<usize>, &JSONSchemaProps)> {
    let lists = [("allOf", &schema.all_of), ("anyOf", &schema.any_of), ("oneOf", &schema.one_of)];
    let of_lists = lists
        .into_iter()
        .flat_map(|(field, list)| list.iter().flatten().enumerate().map(move |(index, one)| (field, Some(index), one)));
    of_lists.chain(schema.not.iter().map(|not| ("not", None, &**not)))
}

pub fn place(path: &Path, field: &str, index: Option<usize>) -> Path {
    let path = path.child(field);
    index.map_or_else(|| path.clone(), |index| path.index(index))
}

fn structure(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, level: Level) {
    match items_of(schema) {
        Some(items) => structure(errors, &path.child("items"), items, Level::Item),
        None if text(&schema.type_) == "array" => {
            errors.push(FieldError::required(&path.child("items"), "must be specified"));
        }
        None => {}
    }
    for (name, field) in schema.properties.iter().flatten() {
        structure(errors, &path.child("properties").key(name), field, Level::Field);
    }
    let at = path.child("additionalProperties");
    if schema.additional_properties.is_some() && level == Level::Root {
        errors.push(FieldError::forbidden(&at, "must not be used at the root"));
    }
    if let Some(more) = others_of(schema) {
        structure(errors, &at, more, Level::Field);
    }
    extensions(errors, path, schema);
    kind_is_said(errors, path, schema, level);
    restrictions(errors, path, schema);
    type_meta(errors, path, schema, level);
}

/// Where the type may be left open, and where it may not be another one.
fn kind_is_said(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, level: Level) {
    let (at, kind) = (path.child("type"), text(&schema.type_));
    let embedded = is(schema.x_kubernetes_embedded_resource);
    let open = is(schema.x_kubernetes_int_or_string) || is(schema.x_kubernetes_preserve_unknown_fields);
    let about = "must be object if x-kubernetes-embedded-resource is true";
    match kind {
        "" if embedded => errors.push(FieldError::required(&at, about)),
        "" if open => {}
        "" => {
            let about = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            errors.push(FieldError::required(&at, about));
        }
        "object" => {}
        kind if embedded => errors.push(FieldError::invalid(&at, kind, about)),
        kind if level == Level::Root => {
            errors.push(FieldError::invalid(&at, kind, "must be object at the root"));
        }
        _ => {}
    }
}

fn extensions(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps) {
    let embedded = is(schema.x_kubernetes_embedded_resource);
    let keeps = is(schema.x_kubernetes_preserve_unknown_fields);
    if is(schema.x_kubernetes_int_or_string) {
        let about = "must be false if x-kubernetes-int-or-string is true";
        for (field, set) in [("preserve-unknown-fields", keeps), ("embedded-resource", embedded)] {
            if set {
                errors.push(FieldError::invalid(&path.child(&format!("x-kubernetes-{field}")), true, about));
            }
        }
    }
    if embedded && schema.additional_properties.is_some() {
        let about = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&path.child("additionalProperties"), about));
    }
    if embedded && !keeps && schema.properties.as_ref().is_none_or(BTreeMap::is_empty) {
        let about = "must not be empty if x-kubernetes-embedded-resource is true without \
                     x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&path.child("properties"), about));
    }
}

/// Of the fields that every object has, only names may be restricted.
fn type_meta(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps, level: Level) {
    let path = path.child("properties");
    let is_object = level == Level::Root || is(schema.x_kubernetes_embedded_resource);
    let properties = schema.properties.iter().flatten();
    for (name, field) in properties.filter(|(name, _)| matches!(name.as_str(), "kind" | "apiVersion" | "metadata")) {
        let (path, kind) = (path.key(name), text(&field.type_));
        let wanted = if name == "metadata" { "object" } else { "string" };
        if is_object && kind != wanted {
            errors.push(FieldError::invalid(&path.child("type"), kind, format!("must be {wanted}")));
        }
        if name == "metadata" && level == Level::Root && !restricts_names_only(field) {
            let about =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&path, about));
        }
    }
}

fn restricts_names_only(metadata: &JSONSchemaProps) -> bool {
    let named = |name: &String| name == "name" || name == "generateName";
    let rest = JSONSchemaProps { type_: None, default: None, properties: None, ..metadata.clone() };
    metadata.properties.iter().flatten().all(|(name, _)| named(name)) && rest == JSONSchemaProps::default()
}

/// What restricts values says nothing of types.
fn restrictions(errors: &mut FieldErrors, path: &Path, schema: &JSONSchemaProps) {
    for (field, index, one) in restrictions_of(schema) {
        let excepted = match field {
            "anyOf" => says_int_or_string(schema.any_of.as_deref()),
            "allOf" => index == Some(0) && says_int_or_string(one.any_of.as_deref()),
            _ => false,
        };
        match (excepted, field) {
            (false, _) => restriction(errors, &place(path, field, index), one, false),
            (true, "allOf") => restriction(errors, &place(path, field, index), one, true),
            (true, _) => {}
        }
    }
    if let Some(pattern) = schema.pattern.as_deref().filter(|pattern| !pattern.is_empty())
        && let Err(why) = Regex::new(pattern)
    {
        let about = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(&path.child("pattern"), pattern, about));
    }
}

/// The one way to write "a number or a text".
fn says_int_or_string(any_of: Option<&[JSONSchemaProps]>) -> bool {
    let of_type = |name: &str| JSONSchemaProps { type_: Some(name.to_owned()), ..JSONSchemaProps::default() };
    any_of == Some(&[of_type("integer"), of_type("string")])
}

fn restriction(errors: &mut FieldErrors, path: &Path, one: &JSONSchemaProps, without_any_of: bool) {
    if without_any_of {
        restrictions(errors, path, &JSONSchemaProps { any_of: None, ..one.clone() });
    } else {
        restrictions(errors, path, one);
    }
    if let Some(items) = items_of(one) {
        restriction(errors, &path.child("items"), items, false);
    }
    for (name, field) in one.properties.iter().flatten() {
        restriction(errors, &path.child("properties").key(name), field, false);
    }
    let (empty, unset, off) =
        ("must be empty to be structural", "must be undefined to be structural", "must be false to be structural");
    let is_said = |value: &Option<String>| !text(value).is_empty();
    let other_properties = match &one.additional_properties {
        Some(JSONSchemaPropsOrBool::Bool(allowed)) => *allowed,
        more => more.is_some(),
    };
    let said = [
        ("type", is_said(&one.type_), empty),
        ("additionalProperties", other_properties, unset),
        ("default", one.default.is_some(), unset),
        ("title", is_said(&one.title), empty),
        ("description", is_said(&one.description), empty),
        ("nullable", is(one.nullable), off),
        ("x-kubernetes-preserve-unknown-fields", is(one.x_kubernetes_preserve_unknown_fields), off),
        ("x-kubernetes-embedded-resource", is(one.x_kubernetes_embedded_resource), off),
        ("x-kubernetes-int-or-string", is(one.x_kubernetes_int_or_string), off),
        ("x-kubernetes-list-map-keys", one.x_kubernetes_list_map_keys.iter().flatten().next().is_some(), empty),
        ("x-kubernetes-list-type", one.x_kubernetes_list_type.is_some(), unset),
        ("x-kubernetes-map-type", one.x_kubernetes_map_type.is_some(), unset),
        ("x-kubernetes-validations", one.x_kubernetes_validations.iter().flatten().next().is_some(), empty),
    ];
    for (field, _, about) in said.iter().filter(|(_, said, _)| *said) {
        errors.push(FieldError::forbidden(&path.child(field), *about));
    }
    if one.properties.as_ref().is_some_and(|all| all.contains_key("metadata")) {
        let path = path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Whether all that the restrictions speak of is in the structure.
fn complete(
    errors: &mut FieldErrors,
    (path, structure): (&Path, &JSONSchemaProps),
    (from, schema): (&Path, &JSONSchemaProps),
) {
    for (field, index, one) in restrictions_of(schema) {
        complete_within(errors, (path, structure), (&place(from, field, index), one));
    }
}

fn complete_within(
    errors: &mut FieldErrors,
    (path, structure): (&Path, &JSONSchemaProps),
    (from, one): (&Path, &JSONSchemaProps),
) {
    complete(errors, (path, structure), (from, one));
    let mut also = |known: Option<&JSONSchemaProps>, path: Path, from: Path, one: &JSONSchemaProps| match known {
        Some(known) => complete_within(errors, (&path, known), (&from, one)),
        None => errors.push(FieldError::required(&path, format!("because it is defined in {}", from.as_str()))),
    };
    if let Some(items) = items_of(one) {
        also(items_of(structure), path.child("items"), from.child("items"), items);
    }
    for (name, field) in one.properties.iter().flatten() {
        let known = structure.properties.as_ref().and_then(|all| all.get(name));
        also(known, path.child("properties").key(name), from.child("properties").key(name), field);
    }
}
