//! The set of all fields that a tree sets: what an applied configuration owns.

use serde_json::Value;

use super::node::{Kind, List, Map, Node};
use super::set::{Found, Set};

/// The fields of `value`. An item that is twice in a list is owned as a whole.
pub fn extract(node: Node, value: &Value) -> Set {
    visit(node, value).1
}

/// Whether the place itself is a member, and what lies below it.
fn visit(node: Node, value: &Value) -> (bool, Set) {
    match (node.kind(Some(value)), value) {
        (Kind::Scalar, _) => (true, Set::new()),
        (Kind::List(List { atomic: true, .. }) | Kind::Map(Map { atomic: true, .. }), _) => (true, Set::new()),
        (Kind::List(list), Value::Array(items)) => (false, visit_items(list, items)),
        (Kind::Map(map), Value::Object(entries)) => {
            let mut found = Found::default();
            for (name, value) in entries {
                let Some((node, element)) = map.entry(name) else { continue };
                let (member, below) = visit(node, value);
                let empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                found.add(element, member || empty || !map.declares(name), below);
            }
            (false, found.set())
        }
        _ => (false, Set::new()),
    }
}

fn visit_items(list: List, items: &[Value]) -> Set {
    let steps: Vec<_> = items.iter().map(|item| list.step(item).ok()).collect();
    let mut found = Found::default();
    for (item, step) in items.iter().zip(&steps) {
        let Some(step) = step else { continue };
        let duplicate = steps.iter().flatten().filter(|other| *other == step).nth(1).is_some();
        let below = if duplicate { Set::new() } else { visit(list.element, item).1 };
        found.add(step.clone(), true, below);
    }
    found.set()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table;

    fn check(group: &str, kind: &str, value: Value, expected: &str) {
        let node = Node::of(table().type_of(group, "v1", kind).unwrap());
        assert_eq!(extract(node, &value).to_json(), expected);
    }

    #[test]
    fn each_kind_of_list_and_map_has_its_paths() {
        check(
            "",
            "Service",
            serde_json::json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b"},
                "externalIPs": ["1.2.3.4"]}}),
            concat!(
                r#"{"f:spec":{"f:externalIPs":{},"f:ports":{"k:{\"port\":53,\"protocol\":\"UDP\"}":{".":{},"f:port":{},"#,
                r#""f:protocol":{}},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}},"f:selector":{}}}"#
            ),
        );
        check(
            "",
            "Pod",
            serde_json::json!({"metadata": {"finalizers": ["x"], "labels": {}}, "spec": {"containers": [
                {"name": "a", "env": [{"name": "E"}, {"name": "E"}], "resources": {"limits": {"cpu": "1"}}}],
                "volumes": null}}),
            concat!(
                r#"{"f:metadata":{"f:finalizers":{"v:\"x\"":{}},"f:labels":{}},"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":"#,
                r#"{".":{},"f:env":{"k:{\"name\":\"E\"}":{}},"f:name":{},"f:resources":{"f:limits":{"f:cpu":{}}}}},"#,
                r#""f:volumes":{}}}"#
            ),
        );
    }
}
