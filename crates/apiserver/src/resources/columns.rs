//! What Table cells of several kinds show: names, ages, labels, selectors, containers and images.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::registry::strategy::{Column, column, wide};
use crate::registry::table;

pub const CONTAINERS: Column = wide("Containers", "string", "Names of the template's containers.");
pub const IMAGES: Column = wide("Images", "string", "Images of the template's containers.");
pub const SELECTOR: Column = wide("Selector", "string", "Which Pods belong to it.");
pub const READY: Column = column("Ready", "string", "How many of the wanted Pods are ready.");

pub fn name(meta: &ObjectMeta) -> Value {
    Value::from(meta.name.as_deref().unwrap_or(""))
}

pub fn age(meta: &ObjectMeta, now: Timestamp) -> Value {
    table::age(meta.creation_timestamp.as_ref(), now)
}

/// A text, or what is shown in its place.
pub fn or(value: Option<&str>, placeholder: &str) -> Value {
    Value::from(value.filter(|value| !value.is_empty()).unwrap_or(placeholder))
}

/// `a=b,c=d`, `<none>` for no labels.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let parts: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    Value::from(if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") })
}

/// A selector, `<none>` for one that selects everything.
pub fn selector(selector: Option<&LabelSelector>) -> Value {
    let text = selector_text(selector);
    Value::from(if text.is_empty() { "<none>".to_owned() } else { text })
}

/// A selector in its query form, keys in order, as `/scale` has it too.
pub fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push((key, format!("{key}={value}")));
    }
    for expression in selector.match_expressions.iter().flatten() {
        let key = expression.key.as_str();
        let mut values: Vec<&str> = expression.values.iter().flatten().map(String::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key, text));
    }
    parts.sort_by_key(|(key, _)| *key);
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// A plain map in its query form.
pub fn map_text(labels: Option<&BTreeMap<String, String>>) -> String {
    labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The cells of [`CONTAINERS`] and [`IMAGES`].
pub fn containers(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    pod_containers(template.and_then(|template| template.spec.as_ref()))
}

pub fn pod_containers(spec: Option<&PodSpec>) -> [Value; 2] {
    let list = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
    let images: Vec<&str> = list.iter().map(|one| one.image.as_deref().unwrap_or("")).collect();
    [Value::from(names.join(",")), Value::from(images.join(","))]
}

pub fn count_or_percent(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}

/// The first three, and how many more there are.
pub fn first_three(list: &[String], when_empty: &str) -> String {
    if list.is_empty() {
        return when_empty.to_owned();
    }
    let shown = list.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(",");
    if list.len() > 3 { format!("{shown} + {} more...", list.len() - 3) } else { shown }
}
