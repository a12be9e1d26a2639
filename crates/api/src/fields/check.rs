//! Whether an applied configuration fits the type: declared fields only, the right kinds of values, no item twice.

use serde_json::Value;

use super::node::{Kind, List, Map, Node};
use crate::patch::go_format;
use crate::schema::Shape;

/// What does not fit, as upstream lists it.
pub fn check(node: Node, value: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    visit(node, value, "", &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        all => Err(format!("errors:\n  {}", all.join("\n  "))),
    }
}

fn visit(node: Node, value: &Value, path: &str, errors: &mut Vec<String>) {
    match (node.kind(Some(value)), value) {
        (_, Value::Null) => {}
        (Kind::Scalar, value) => errors.extend(wrong_scalar(node.shape(), value).map(|text| at(path, &text))),
        (Kind::List(list), Value::Array(items)) => visit_items(list, items, path, errors),
        (Kind::List(_), other) => errors.push(at(path, &format!("expected list, got &{{{}}}", go_format(other)))),
        (Kind::Map(map), Value::Object(entries)) => visit_entries(map, entries, path, errors),
        (Kind::Map(_), other) => errors.push(at(path, &format!("expected map, got &{{{}}}", go_format(other)))),
    }
}

fn at(path: &str, text: &str) -> String {
    if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") }
}

fn visit_entries(map: Map, entries: &serde_json::Map<String, Value>, path: &str, errors: &mut Vec<String>) {
    for (name, value) in entries {
        match map.entry(name) {
            Some((node, step)) => visit(node, value, &format!("{path}{step}"), errors),
            None => return errors.push(at(&format!("{path}.{name}"), "field not declared in schema")),
        }
    }
}

fn visit_items(list: List, items: &[Value], path: &str, errors: &mut Vec<String>) {
    let mut seen = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if list.atomic {
            visit(list.element, item, &format!("{path}[{index}]"), errors);
            continue;
        }
        let step = match list.step(item) {
            Ok(step) => step,
            Err(error) => return errors.push(at(path, &format!("element {index}: {error}"))),
        };
        if seen.contains(&step) {
            errors.push(at(path, &format!("duplicate entries for key {step}")));
        }
        visit(list.element, item, &format!("{path}{step}"), errors);
        seen.push(step);
    }
}

fn wrong_scalar(shape: Shape, value: &Value) -> Option<String> {
    let go = |value: &Value| format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value));
    match shape {
        Shape::Int32 | Shape::Int64 | Shape::Double if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Shape::String | Shape::Bytes if !value.is_string() => Some(format!("expected string, got {}", go(value))),
        Shape::Bool if !value.is_boolean() => Some(format!("expected boolean, got &{{{}}}", go_format(value))),
        _ if value.is_array() || value.is_object() => {
            Some(format!("expected any scalar, got &{{{}}}", go_format(value)))
        }
        _ => None,
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go writes it in source code.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let shown: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", shown.join(", "))
        }
        Value::Object(map) => {
            let mut shown: Vec<String> =
                map.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            shown.sort();
            format!("map[string]interface {{}}{{{}}}", shown.join(", "))
        }
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{text:?}"),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::table;

    #[test]
    fn what_does_not_fit_is_named() {
        let node = Node::of(table().type_of("apps", "v1", "Deployment").unwrap());
        let test =
            |value: Value, expected: &str| assert_eq!(check(node, &value).err().as_deref().unwrap_or(""), expected);
        test(json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "a"}]}}}}), "");
        test(json!({"spec": {"nope": 1}}), ".spec.nope: field not declared in schema");
        test(json!({"spec": {"replicas": "3"}}), ".spec.replicas: expected numeric (int or float), got string");
        test(
            json!({"metadata": {"labels": {"a": 1}}}),
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        );
        test(
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}, {"x": 1}]}}}}),
            "errors:\n  .spec.template.spec.containers: duplicate entries for key [name=\"a\"]\n  \
             .spec.template.spec.containers[name=\"\"].x: field not declared in schema",
        );
        test(
            json!({"spec": {"template": {"spec": {"containers": [1]}}}}),
            ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
        );
        test(
            json!({"spec": {"template": {"spec": {"containers": 1}}}}),
            ".spec.template.spec.containers: expected list, got &{1}",
        );
    }
}
