//! What the kinds' validations share, one file a vocabulary.
//!
//! Every check appends to one list of errors and never stops at the first. Paths, error types and texts are upstream's
//! (`pkg/apis/core/validation`), because clients show them and tests match on them. A rule that upstream relaxes only for
//! objects stored by older servers is held strictly here: no such object exists in our stores.

pub mod address;
pub mod affinity;
pub mod claims;
pub mod cloud_volumes;
pub mod conditions;
pub mod containers;
pub mod dns;
pub mod environment;
pub mod labels;
pub mod mounts;
pub mod numbers;
pub mod pod_spec;
pub mod pod_template;
pub mod probes;
pub mod projected;
pub mod quantities;
pub mod scheduling;
pub mod security;
pub mod volumes;
pub mod windows;

use serde::Serialize;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::schema::{self, Field, Shape, Type};

pub const IMMUTABLE: &str = "field is immutable";
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// The text of an optional field; absent and empty are the same in the API.
pub fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("")
}

/// A bad value as an error shows it.
pub fn shown<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// A bad value of a core type as errors show it where upstream's internal types have no JSON names: Go's names of the
/// fields, and all of them.
pub fn shown_in_go<T: Serialize>(type_name: &str, value: &T) -> Value {
    let shape = schema::table().type_named("io.k8s.api.core.v1", type_name);
    shape.map_or(Value::Null, |shape| in_go(&shown(value), shape))
}

fn in_go(value: &Value, shape: &Type) -> Value {
    let field = |field: &Field| {
        let mut name = field.name.replace("seLinux", "SELinux");
        name[..1].make_ascii_uppercase();
        let given = value.get(field.name).filter(|value| !value.is_null());
        let value = match (given, field.shape) {
            (Some(value), Shape::Object(_)) => field.shape.object().map_or(Value::Null, |shape| in_go(value, shape)),
            (Some(value), _) => value.clone(),
            (None, Shape::String) if !field.pointer => Value::from(""),
            (None, Shape::Bool) if !field.pointer => Value::from(false),
            (None, Shape::Int32 | Shape::Int64) if !field.pointer => Value::from(0),
            (None, _) => Value::Null,
        };
        (name, value)
    };
    Value::Object(shape.fields.iter().map(field).collect())
}

/// One `Invalid` for each message of a name rule.
pub fn report(errors: &mut FieldErrors, path: &Path, value: &str, messages: Vec<String>) {
    errors.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
}

/// `Required` where the text is empty; says whether there is one.
pub fn required(errors: &mut FieldErrors, path: &Path, value: &str) -> bool {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    !value.is_empty()
}

/// `Unsupported value`, naming what is supported in that order. Upstream sorts some of these lists and not others.
pub fn unsupported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> FieldError {
    let listed: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
    let mut error = FieldError::not_supported(path, value, &[]);
    error.detail = format!("supported values: {}", listed.join(", "));
    error
}

/// `Unsupported value` unless the value is one of those.
pub fn one_of(errors: &mut FieldErrors, path: &Path, value: &str, supported: &[&str]) {
    if !supported.contains(&value) {
        errors.push(unsupported(path, value, supported));
    }
}

/// `one_of`, and `Required` for the empty text.
pub fn required_one_of(errors: &mut FieldErrors, path: &Path, value: &str, supported: &[&str]) {
    if required(errors, path, value) {
        one_of(errors, path, value, supported);
    }
}

/// Refuses any change.
pub fn immutable<T: Serialize + PartialEq>(errors: &mut FieldErrors, path: &Path, new: &T, old: &T) {
    if !semantically_equal(new, old) {
        // Nothing is more often absent than empty.
        let is_empty =
            |value: &Value| *value == Value::Object(Default::default()) || *value == Value::Array(Vec::new());
        let value = Some(shown(new)).filter(|value| !is_empty(value));
        errors.push(FieldError::invalid(path, value.unwrap_or_default(), IMMUTABLE));
    }
}

/// `immutable` of the kinds whose declared rules say so; those do not show the value.
pub fn declared_immutable<T: Serialize + PartialEq>(errors: &mut FieldErrors, path: &Path, new: &T, old: &T) {
    if !semantically_equal(new, old) {
        errors.push(FieldError::invalid(path, Value::Null, IMMUTABLE));
    }
}

/// Equal, where absent and empty lists, maps and texts count as the same, and quantities compare by their amount.
pub fn semantically_equal<T: Serialize + PartialEq>(a: &T, b: &T) -> bool {
    a == b || same_value(&shown(a), &shown(b))
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let absent = Value::Null;
            let covers = |one: &serde_json::Map<String, Value>, other: &serde_json::Map<String, Value>| {
                one.iter().all(|(key, value)| same_value(value, other.get(key).unwrap_or(&absent)))
            };
            covers(a, b) && covers(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::Null, other) | (other, Value::Null) => match other {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        },
        _ => a == b,
    }
}
