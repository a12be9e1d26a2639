//! What a change adds, removes and modifies.

use serde_json::{Map as Object, Value};

use super::element::{Element, same};
use super::node::{Kind, List, Map, Node};
use super::set::{Found, Set};

#[derive(Clone, Debug, Default)]
pub struct Diff {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

/// What became of a place itself.
#[derive(Clone, Copy, Default)]
struct Itself {
    removed: bool,
    modified: bool,
    added: bool,
}

#[derive(Default)]
struct Gathered {
    removed: Found,
    modified: Found,
    added: Found,
}

impl Gathered {
    fn add(&mut self, element: Element, (itself, below): (Itself, Diff)) {
        self.removed.add(element.clone(), itself.removed, below.removed);
        self.modified.add(element.clone(), itself.modified, below.modified);
        self.added.add(element, itself.added, below.added);
    }

    fn diff(self) -> Diff {
        Diff { removed: self.removed.set(), modified: self.modified.set(), added: self.added.set() }
    }
}

/// Compares two trees of one type. An error says which list cannot be told apart.
pub fn compare(node: Node, old: &Value, new: &Value) -> Result<Diff, String> {
    visit(node, Some(old), Some(new)).map(|(_, below)| below)
}

type Visited = Result<(Itself, Diff), String>;

fn visit(node: Node, old: Option<&Value>, new: Option<&Value>) -> Visited {
    let kind = node.kind(new.or(old));
    if node.is_open()
        && let (Some(old), Some(new)) = (old, new)
        && std::mem::discriminant(&node.kind(Some(old))) != std::mem::discriminant(&kind)
    {
        // What was of another kind is modified as a whole, and what is new below it is added.
        let (_, below) = if matches!(kind, Kind::Map(_)) { visit(node, None, Some(new))? } else { Default::default() };
        return Ok((Itself { modified: true, ..Itself::default() }, below));
    }
    match kind {
        Kind::Scalar => Ok(leaf(old, new)),
        Kind::List(list) => {
            let (a, b) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if list.atomic || (a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty)) {
                return Ok(leaf(old, new));
            }
            Ok((branch(old, new), visit_items(list, items(a), items(b))?))
        }
        Kind::Map(map) => {
            let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if map.atomic || (a.is_none_or(Object::is_empty) && b.is_none_or(Object::is_empty)) {
                return Ok(leaf(old, new));
            }
            Ok((branch(old, new), visit_entries(map, a, b)?))
        }
    }
}

fn items(list: Option<&Vec<Value>>) -> &[Value] {
    list.map_or(&[], Vec::as_slice)
}

fn branch(old: Option<&Value>, new: Option<&Value>) -> Itself {
    Itself { added: old.is_none(), removed: new.is_none(), modified: false }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> (Itself, Diff) {
    let modified = matches!((old, new), (Some(old), Some(new)) if !same(old, new));
    (Itself { modified, ..branch(old, new) }, Diff::default())
}

fn visit_entries(
    map: Map,
    old: Option<&Object<String, Value>>,
    new: Option<&Object<String, Value>>,
) -> Result<Diff, String> {
    let mut gathered = Gathered::default();
    for (name, value) in old.into_iter().flatten() {
        let Some((node, element)) = map.entry(name) else { continue };
        gathered.add(element, visit(node, Some(value), new.and_then(|new| new.get(name)))?);
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_some_and(|old| old.contains_key(name)) {
            continue;
        }
        let Some((node, element)) = map.entry(name) else { continue };
        gathered.add(element, visit(node, None, Some(value))?);
    }
    Ok(gathered.diff())
}

/// The items of a list by their steps, in the order of their first appearance.
type Steps<'a> = Vec<(Element, Vec<&'a Value>)>;

fn steps(list: List, items: &[Value]) -> Result<Steps<'_>, String> {
    let mut out: Steps<'_> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let step = list.step(item).map_err(|error| format!("element {at}: {error}"))?;
        match out.iter_mut().find(|(own, _)| *own == step) {
            Some((_, same)) => same.push(item),
            None => out.push((step, vec![item])),
        }
    }
    Ok(out)
}

fn visit_items(list: List, old: &[Value], new: &[Value]) -> Result<Diff, String> {
    let (old, mut new) = (steps(list, old)?, steps(list, new)?);
    let mut gathered = Gathered::default();
    for (step, before) in old {
        let at = new.iter().position(|(other, _)| *other == step);
        let after = at.map(|at| new.swap_remove(at).1).unwrap_or_default();
        visit_item(list, step, (&before, &after), &mut gathered)?;
    }
    for (step, after) in new {
        visit_item(list, step, (&[], &after), &mut gathered)?;
    }
    Ok(gathered.diff())
}

/// The items of one step before and after. Where there are several, they are compared as a whole.
fn visit_item(list: List, step: Element, items: (&[&Value], &[&Value]), gathered: &mut Gathered) -> Result<(), String> {
    let node = list.element;
    match items {
        (old @ ([] | [_]), new @ ([] | [_])) => {
            gathered.add(step, visit(node, old.first().copied(), new.first().copied())?);
        }
        (old @ [_, _, ..], new @ [_, _, ..]) => {
            let equal = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new));
            let itself = Itself { modified: !equal, ..Itself::default() };
            gathered.add(step, (itself, Diff::default()));
        }
        ([_, _, ..], new) => {
            let (mut itself, below) =
                new.first().map(|new| visit(node, None, Some(new))).transpose()?.unwrap_or_default();
            itself.removed = true;
            gathered.add(step, (itself, below));
        }
        (old, _) => {
            let (mut itself, below) =
                old.first().map(|old| visit(node, Some(old), None)).transpose()?.unwrap_or_default();
            itself.added = true;
            gathered.add(step, (itself, below));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{canonical, table};

    fn check(kind: (&str, &str), old: Value, new: Value, [removed, modified, added]: [&str; 3]) {
        let ty = table().type_of(kind.0, "v1", kind.1).unwrap();
        let [old, new] = [old, new].map(|mut value| {
            canonical(&mut value, ty);
            value
        });
        let diff = compare(Node::of(ty), &old, &new).unwrap();
        let shown = [diff.removed, diff.modified, diff.added].map(|set| set.to_json());
        assert_eq!(shown, [removed, modified, added]);
    }

    #[test]
    fn changes_are_found_where_they_are() {
        check(
            ("", "ConfigMap"),
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"b": "3", "c": "4"}, "immutable": true}),
            [r#"{"f:data":{"f:a":{}}}"#, r#"{"f:data":{"f:b":{}}}"#, r#"{"f:data":{"f:c":{}},"f:immutable":{}}"#],
        );
        check(
            ("apps", "Deployment"),
            json!({}),
            json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "c"}]}}}}),
            [
                "{}",
                r#"{"f:spec":{"f:selector":{}}}"#,
                r#"{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{},"f:resources":{}}}}}}}"#,
            ],
        );
    }

    #[test]
    fn duplicates_are_compared_as_a_whole() {
        let env = |values: &[&str]| {
            let env: Vec<Value> = values.iter().map(|value| json!({"name": "E", "value": value})).collect();
            json!({"spec": {"containers": [{"name": "c", "env": env}]}})
        };
        let item = |inner: &str| {
            format!(
                r#"{{"f:spec":{{"f:containers":{{"k:{{\"name\":\"c\"}}":{{"f:env":{{"k:{{\"name\":\"E\"}}":{inner}}}}}}}}}}}"#
            )
        };
        check(("", "Pod"), env(&["1", "2"]), env(&["1", "3"]), ["{}", &item("{}"), "{}"]);
        let one = item(r#"{".":{},"f:name":{},"f:value":{}}"#);
        check(("", "Pod"), env(&["1"]), env(&["1", "3"]), [&one, "{}", &item("{}")]);
        check(("", "Pod"), env(&["1", "3"]), env(&["1"]), [&item("{}"), "{}", &one]);
    }
}
