//! A configuration merged into a live object: what it sets wins, what it does not name stays.

use serde_json::{Map as Object, Value};

use super::element::Element;
use super::node::{Kind, List, Map, Node};

/// The live object with what `config` sets. An error says which list cannot be merged.
pub(super) fn merge(node: Node, live: &Value, config: &Value) -> Result<Value, String> {
    Ok(visit(node, Some(live), Some(config))?.unwrap_or(Value::Null))
}

/// `None`: nothing is left at this place.
fn visit(node: Node, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, String> {
    let kind = node.kind(config.or(live));
    let leaf = || Ok(config.or(live).cloned());
    match kind {
        Kind::Scalar => leaf(),
        Kind::List(list) => {
            let (a, b) = (live.and_then(Value::as_array), config.and_then(Value::as_array));
            if list.atomic || (a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty)) {
                return leaf();
            }
            let merged = visit_items(list, a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice))?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
        Kind::Map(map) => {
            let (a, b) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if map.atomic || (a.is_none_or(Object::is_empty) && b.is_none_or(Object::is_empty)) {
                return leaf();
            }
            let merged = visit_entries(map, a, b)?;
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
    }
}

type Entries = Object<String, Value>;

fn visit_entries(map: Map, live: Option<&Entries>, config: Option<&Entries>) -> Result<Entries, String> {
    let mut out = Object::new();
    let mut put = |name: &String, live: Option<&Value>, config: Option<&Value>| {
        let Some((node, _)) = map.entry(name) else { return Ok(()) };
        if let Some(value) = visit(node, live, config)? {
            out.insert(name.clone(), value);
        }
        Ok::<(), String>(())
    };
    for (name, value) in live.into_iter().flatten() {
        put(name, Some(value), config.and_then(|config| config.get(name)))?;
    }
    for (name, value) in config.into_iter().flatten() {
        if live.is_none_or(|live| !live.contains_key(name)) {
            put(name, None, Some(value))?;
        }
    }
    Ok(out)
}

/// The items of one list by their steps.
struct Indexed<'a> {
    steps: Vec<Element>,
    items: Vec<(Element, &'a Value)>,
}

impl<'a> Indexed<'a> {
    /// Live lists may have items that cannot be told apart; a configuration may not.
    fn of(list: List, items: &'a [Value], may_repeat: bool) -> Result<Self, String> {
        const NOTHING: &Value = &Value::Null;
        let mut indexed = Indexed { steps: Vec::with_capacity(items.len()), items: Vec::with_capacity(items.len()) };
        for (at, item) in items.iter().enumerate() {
            let step = list.step(item).map_err(|error| format!("element {at}: {error}"))?;
            match indexed.items.iter_mut().find(|(own, _)| *own == step) {
                Some(_) if !may_repeat => return Err(format!("duplicate entries for key {step}")),
                Some((_, item)) => *item = NOTHING,
                None => indexed.items.push((step.clone(), item)),
            }
            indexed.steps.push(step);
        }
        Ok(indexed)
    }

    fn get(&self, step: &Element) -> Option<&'a Value> {
        self.items.iter().find(|(own, _)| own == step).map(|(_, item)| *item)
    }
}

/// Items of both in the configuration's order, the live list's own items kept where they were among them.
fn visit_items(list: List, live: &[Value], config: &[Value]) -> Result<Vec<Value>, String> {
    let (right, left) = (Indexed::of(list, config, false)?, Indexed::of(list, live, true)?);
    let mut shared = right.steps.iter().filter(|step| left.get(step).is_some());
    let mut next_shared = shared.next();
    let mut merged: Vec<&Element> = Vec::with_capacity(right.steps.len());
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.steps.len() || r < right.steps.len() {
        if let (Some(step), Some(wanted)) = (left.steps.get(l), right.steps.get(r)) {
            if step == wanted {
                merged.push(step);
                out.extend(visit(list.element, left.get(step), right.get(step))?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if right.get(step).is_some() && next_shared.is_some_and(|next| next != step) {
                // Both have it, but it is not its turn.
                l += 1;
                continue;
            }
        }
        if let Some(step) = left.steps.get(l) {
            if right.get(step).is_none() {
                out.extend(visit(list.element, Some(&live[l]), None)?);
                l += 1;
                continue;
            }
            if merged.contains(&step) {
                l += 1;
            }
        }
        if let Some(step) = right.steps.get(r) {
            merged.push(step);
            out.extend(visit(list.element, left.get(step), right.get(step))?);
            r += 1;
            if next_shared == Some(step) {
                next_shared = shared.next();
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::table;

    fn check(kind: &str, live: Value, config: Value, expected: Value) {
        let node = Node::of(table().type_of("", "v1", kind).unwrap());
        assert_eq!(merge(node, &live, &config).unwrap(), expected);
    }

    #[test]
    fn a_configuration_wins_where_it_speaks() {
        check(
            "ConfigMap",
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"b": "3"}, "immutable": false}),
            json!({"data": {"a": "1", "b": "3"}, "immutable": false}),
        );
        check("ConfigMap", json!({"data": {"a": "1"}}), json!({"data": null}), json!({"data": {"a": "1"}}));
    }

    #[test]
    fn lists_follow_the_order_of_the_configuration() {
        let finalizers = |names: &str| json!({"metadata": {"finalizers": names.split(' ').collect::<Vec<_>>()}});
        let check = |live, config, expected| check("Pod", finalizers(live), finalizers(config), finalizers(expected));
        check("a b c", "c a", "b c a");
        check("a b c d", "d x b", "a c d x b");
        check("a b", "c", "a b c");
        check("1 2 3", "2 9 3", "1 2 9 3");
    }

    #[test]
    fn a_configuration_may_not_repeat_items() {
        let node = Node::of(table().type_of("", "v1", "Pod").unwrap());
        let twice = json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
        let error = merge(node, &json!({}), &twice).unwrap_err();
        assert_eq!(error, r#"duplicate entries for key [name="a"]"#);
    }
}
