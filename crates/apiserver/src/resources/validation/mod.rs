//! What the kinds' validations share, one file a vocabulary.
//!
//! Every check appends to one list of errors and never stops at the first. Paths, error types and texts are upstream's
//! (`pkg/apis/core/validation`), because clients show them and tests match on them. A rule that upstream relaxes only for
//! objects stored by older servers is held strictly here: no such object exists in our stores.

pub mod address;
pub mod affinity;
pub mod claims;
pub mod cloud_volumes;
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

/// `Unsupported value` unless the value is one of those.
pub fn one_of(errors: &mut FieldErrors, path: &Path, value: &str, supported: &[&str]) {
    if !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, value, supported));
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
        errors.push(FieldError::invalid(path, shown(new), IMMUTABLE));
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
