//! Labels, annotations and label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{dns, report, shown};

/// The sum of keys and values of all annotations, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub fn label_name(errors: &mut FieldErrors, path: &Path, name: &str) {
    report(errors, path, name, dns::label_key(name));
}

/// Keys and values; both are reported on the map itself, as upstream does.
pub fn labels(errors: &mut FieldErrors, path: &Path, labels: Option<&BTreeMap<String, String>>) {
    for (key, value) in labels.into_iter().flatten() {
        label_name(errors, path, key);
        report(errors, path, value, dns::label_value(value));
    }
}

pub fn annotations(errors: &mut FieldErrors, path: &Path, annotations: Option<&BTreeMap<String, String>>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        // Keys are compared in lower case for compatibility with those written before the rule.
        report(errors, path, key, dns::label_key(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

pub fn selector(errors: &mut FieldErrors, path: &Path, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    labels(errors, &path.child("matchLabels"), selector.match_labels.as_ref());
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        label_name(errors, &path.child("key"), &expression.key);
        for (index, value) in values.iter().enumerate() {
            report(errors, &path.child("values").index(index), value, dns::label_value(value));
        }
    }
}

/// Whether a selector in its object form is one.
pub fn is_sound(one: &LabelSelector) -> bool {
    let mut errors = FieldErrors::new();
    selector(&mut errors, &Path::root(), Some(one));
    errors.is_empty()
}

/// Whether a selector in its object form selects everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A selector as errors show it: what is said about labels first.
pub fn shown_selector(selector: &LabelSelector) -> Value {
    let mut fields = serde_json::Map::new();
    if let Some(all) = &selector.match_labels {
        fields.insert("matchLabels".to_owned(), shown(all));
    }
    if let Some(all) = &selector.match_expressions {
        fields.insert("matchExpressions".to_owned(), shown(all));
    }
    Value::Object(fields)
}
