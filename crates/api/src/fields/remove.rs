//! A tree without the fields of a set.

use serde_json::{Map as Object, Value};

use super::element::Element;
use super::node::{Kind, List, Map, Node};
use super::set::Set;

/// `None`: nothing is left. Atoms and scalars are taken by whoever holds them, so they stay whole here.
pub(super) fn remove(node: Node, value: &Value, fields: &Set) -> Option<Value> {
    match (node.kind(Some(value)), value) {
        (Kind::List(List { atomic: true, .. }), _) | (Kind::Map(Map { atomic: true, .. }), _) => None,
        (Kind::Scalar, _) => Some(value.clone()),
        (Kind::List(list), Value::Array(items)) => {
            let kept = items.iter().filter_map(|item| {
                let Ok(step) = list.step(item) else { return Some(item.clone()) };
                if fields.has_member(&step) {
                    return None;
                }
                Some(below(list.element, item, fields, &step))
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Kind::Map(map), Value::Object(entries)) => {
            let kept = entries.iter().filter_map(|(name, value)| {
                let (node, step) = match map.entry(name) {
                    Some((node, step)) => (Some(node), step),
                    None => (None, Element::field(name.clone())),
                };
                if fields.has_member(&step) {
                    return None;
                }
                Some((name.clone(), node.map_or_else(|| value.clone(), |node| below(node, value, fields, &step))))
            });
            let kept: Object<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        _ => None,
    }
}

/// What loses all that is below it is null from then on.
fn below(node: Node, value: &Value, fields: &Set, step: &Element) -> Value {
    match fields.child(step).filter(|below| !below.is_empty()) {
        Some(fields) => remove(node, value, fields).unwrap_or(Value::Null),
        None => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::table;

    #[test]
    fn fields_and_items_go() {
        let node = Node::of(table().type_of("", "v1", "Pod").unwrap());
        let check = |value: Value, fields: &str, expected: Option<Value>| {
            assert_eq!(remove(node, &value, &Set::parse(fields).unwrap()), expected);
        };
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
        check(
            pod.clone(),
            r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{"f:image":{}},"k:{\"name\":\"b\"}":{}}}}"#,
            Some(json!({"metadata": {"labels": null}, "spec": {"containers": [{"name": "a"}]}})),
        );
        check(pod, r#"{"f:metadata":{},"f:spec":{}}"#, None);
    }
}
