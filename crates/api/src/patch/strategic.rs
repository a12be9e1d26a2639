//! Strategic merge patch: a merge patch that merges lists by the keys the table knows, and understands directives.
//!
//! `$patch: replace|delete` in a map or a list item, `$deleteFromPrimitiveList/<list>`, `$setElementOrder/<list>`, `$retainKeys`.
//! Source of the behaviour: `k8s.io/apimachinery/pkg/util/strategicpatch` as the API server calls it, that is with
//! unmatched nulls ignored and parallel lists merged.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{PatchStrategy, Shape, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVES: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ELEMENT_ORDER: &str = "invalid patch format of setElementOrder list";

pub(super) fn apply(target: &mut Value, patch: Value, ty: &Type) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else { return Err(bad_argument("map[string]interface {}", &patch)) };
    match target {
        Value::Object(target) => merge_map(target, patch, Shape::Object(ty.id)),
        other => Err(bad_argument("map[string]interface {}", other)),
    }
}

fn merge_map(original: &mut Map<String, Value>, mut patch: Map<String, Value>, shape: Shape) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => {
            patch.shift_remove(DIRECTIVE);
            *original = patch;
            return Ok(());
        }
        Some(directive) if directive == "delete" => {
            original.clear();
            return Ok(());
        }
        Some(directive) => return Err(bad_directive(&directive.clone(), patch)),
    }
    retain_keys(original, &mut patch)?;
    let ordered: Vec<_> = patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for key in ordered {
        set_element_order(original, &mut patch, &key, shape)?;
    }
    for (key, value) in patch {
        if key.starts_with(DELETE_FROM_PRIMITIVES) {
            let name = list_name(&key, DELETE_FROM_PRIMITIVES, BAD_PRIMITIVE_LIST)?.to_owned();
            merge_field(original, Change { name, value, deletes: true }, shape)?;
        } else {
            merge_field(original, Change { name: key, value, deletes: false }, shape)?;
        }
    }
    Ok(())
}

/// What a patch says of one field.
struct Change {
    name: String,
    value: Value,
    /// The value lists what goes from a list of scalars.
    deletes: bool,
}

fn merge_field(original: &mut Map<String, Value>, change: Change, shape: Shape) -> Result<(), PatchError> {
    let Change { name: key, value, deletes } = change;
    if value.is_null() {
        original.shift_remove(&key);
        return Ok(());
    }
    match (original.get_mut(&key), value) {
        (Some(Value::Object(current)), Value::Object(value)) => {
            let (shape, strategy) = lookup(shape, &key)?;
            if !strategy.replace {
                return merge_map(current, value, shape);
            }
            *current = value;
        }
        (Some(Value::Array(current)), Value::Array(value)) => {
            let (element, strategy) = lookup_list(shape, &key)?;
            if strategy.merge || deletes {
                let list = List { element, merge_key: strategy.merge_key, deletes };
                *current = list.merge(std::mem::take(current), value)?;
            } else {
                *current = value;
            }
        }
        _ if deletes => {}
        (_, mut value) => {
            discard_nulls(&mut value);
            match remove_directives(value) {
                Some(value) => drop(original.insert(key, value)),
                None => drop(original.shift_remove(&key)),
            }
        }
    }
    Ok(())
}

/// `$retainKeys` names every field that the map keeps; the patch may set no other.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(listed) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(listed) = listed else { return Err(PatchError::BadRequest(BAD_RETAIN_KEYS.into())) };
    let kept = |key: &str| listed.iter().any(|one| one == key);
    let directive = |key: &str| key.starts_with(DELETE_FROM_PRIMITIVES) || key.starts_with(SET_ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !kept(key)) {
        return Err(PatchError::BadRequest(BAD_RETAIN_KEYS.into()));
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// Merges the list that `$setElementOrder/<list>` orders, and takes both out of the patch.
fn set_element_order(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    key: &str,
    shape: Shape,
) -> Result<(), PatchError> {
    let order = patch.shift_remove(key).unwrap_or_default();
    let order = into_list(order)?;
    let name = list_name(key, SET_ELEMENT_ORDER, BAD_ELEMENT_ORDER)?;
    let current = original.get(name).cloned().map(into_list).transpose()?;
    let changes = patch.get(name).cloned().map(into_list).transpose()?;
    let (element, strategy) = lookup_list(shape, name)?;
    let list = List { element, merge_key: strategy.merge_key, deletes: false };
    list.check_order(changes.as_deref().unwrap_or_default(), &order)?;
    let kind = element_kind(current.iter().chain(&changes).flatten());
    let server_order =
        list.server_order(current.as_deref().unwrap_or_default(), changes.as_deref().unwrap_or_default());
    let merged = match (current, changes) {
        (None, None) => return Ok(()),
        (Some(current), None) => current,
        (None, Some(changes)) => changes.into_iter().filter_map(remove_directives).collect(),
        (Some(current), Some(changes)) if strategy.merge => list.merge(current, changes)?,
        (Some(_), Some(changes)) => changes,
    };
    let merged = list.ordered(merged, &Order { patch: list.keys(&order), server: server_order }, kind?)?;
    original.insert(name.to_owned(), Value::Array(merged));
    patch.shift_remove(name);
    Ok(())
}

/// A list that is merged: of scalars where there is no merge key, of maps where there is one.
struct List {
    element: Shape,
    merge_key: &'static str,
    deletes: bool,
}

/// The keys of a list's items as the patch and as the server order them.
struct Order {
    patch: Vec<String>,
    server: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ElementKind {
    Map,
    Bool,
    Number,
    Text,
}

impl List {
    fn merge(&self, original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        let kind = element_kind(original.iter().chain(&patch))?;
        if kind != ElementKind::Map {
            if self.deletes {
                return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
            }
            let order = Order { server: self.keys(&original), patch: self.keys(&patch) };
            let mut merged = original;
            for item in patch {
                if !merged.contains(&item) {
                    merged.push(item);
                }
            }
            return self.ordered(merged, &order, kind);
        }
        if self.merge_key.is_empty() {
            let name = if matches!(self.element, Shape::Map(_)) { "map" } else { "struct" };
            return Err(PatchError::Other(format!("cannot merge lists without merge key for {name}")));
        }
        let (mut merged, patch) = self.apply_directives(original, patch)?;
        let order = Order { server: self.keys(&merged), patch: self.keys(&patch) };
        for item in patch {
            let Value::Object(item) = item else { continue };
            let key = item.get(self.merge_key).ok_or_else(|| self.no_merge_key(&item))?;
            match merged.iter_mut().find(|other| other.get(self.merge_key) == Some(key)) {
                Some(Value::Object(current)) => merge_map(current, item, self.element)?,
                _ => merged.push(Value::Object(item)),
            }
        }
        self.ordered(merged, &order, kind)
    }

    /// Carries out the items with a `$patch`; returns what is left of the list and of the patch.
    fn apply_directives(
        &self,
        mut original: Vec<Value>,
        patch: Vec<Value>,
    ) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
        let mut rest = Vec::with_capacity(patch.len());
        let mut replace = false;
        for item in patch {
            let Some(directive) = item.get(DIRECTIVE) else {
                rest.push(item);
                continue;
            };
            let Value::Object(map) = &item else { continue };
            match directive.as_str() {
                Some("delete") => {
                    let key = map.get(self.merge_key).ok_or_else(|| self.no_merge_key(map))?;
                    original.retain(|other| other.get(self.merge_key) != Some(key));
                }
                // The other items are still looked through for directives of their own.
                Some("replace") => replace = true,
                Some("merge") => {
                    return Err(PatchError::Other("merging lists cannot yet be specified in the patch".into()));
                }
                _ => return Err(bad_directive(&directive.clone(), map.clone())),
            }
        }
        Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
    }

    /// Orders the items that the patch names as it names them, and puts the others between them as the server had them.
    fn ordered(&self, merged: Vec<Value>, order: &Order, kind: ElementKind) -> Result<Vec<Value>, PatchError> {
        if kind == ElementKind::Map && !self.merge_key.is_empty() {
            for item in &merged {
                let Value::Object(map) = item else { return Err(bad_argument("map[string]interface {}", item)) };
                map.get(self.merge_key).ok_or_else(|| self.no_merge_key(map))?;
            }
        }
        let (in_patch, on_server) = (positions(&order.patch), positions(&order.server));
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for item in merged {
            let key = self.key(&item);
            let server = on_server.get(key.as_str()).copied();
            match in_patch.get(key.as_str()) {
                Some(at) => named.push((*at, server, item)),
                None => others.push((server.unwrap_or(usize::MAX), server, item)),
            }
        }
        named.sort_by_key(|(at, ..)| *at);
        others.sort_by_key(|(at, ..)| *at);
        let mut out = Vec::with_capacity(named.len() + others.len());
        let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
        loop {
            let other_first = match (others.peek(), named.peek()) {
                (None, None) => return Ok(out),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((_, other, _)), Some((_, named, _))) => matches!((other, named), (Some(o), Some(n)) if o < n),
            };
            out.extend(if other_first { others.next() } else { named.next() }.map(|(_, _, item)| item));
        }
    }

    /// The items of the patch must come in the order that `$setElementOrder` gives.
    fn check_order(&self, patch: &[Value], order: &[Value]) -> Result<(), PatchError> {
        if patch.is_empty() || order.is_empty() {
            return Ok(());
        }
        let deletes = |item: &Value| item.get(DIRECTIVE).is_some_and(|directive| directive == "delete");
        let named: Vec<_> = patch.iter().filter(|item| self.merge_key.is_empty() || !deletes(item)).collect();
        let (mut at, mut wanted) = (0, 0);
        while at < named.len() && wanted < order.len() {
            if named[at].get(DIRECTIVE).is_some() {
                at += 1;
                continue;
            }
            if self.checked_key(named[at])? == self.checked_key(&order[wanted])? {
                at += 1;
            }
            wanted += 1;
        }
        if at < named.len() && wanted >= order.len() {
            return Err(PatchError::Other(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                go_list(patch),
                go_list(order)
            )));
        }
        Ok(())
    }

    /// The server's order as upstream sees it after the merge: it deletes in place, and what it adds takes the freed places.
    fn server_order(&self, current: &[Value], changes: &[Value]) -> Vec<String> {
        let deletes = |item: &Value| item.get(DIRECTIVE).is_some_and(|directive| directive == "delete");
        let deleted: Vec<_> = changes.iter().filter(|item| deletes(item)).map(|item| self.key(item)).collect();
        let mut order = self.keys(current);
        order.retain(|key| !deleted.contains(key));
        let added = changes.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(|item| self.key(item));
        for key in added {
            if order.len() < current.len() && !order.contains(&key) {
                order.push(key);
            }
        }
        order
    }

    fn checked_key<'a>(&self, item: &'a Value) -> Result<&'a Value, PatchError> {
        if self.merge_key.is_empty() {
            return Ok(item);
        }
        let Value::Object(map) = item else { return Err(bad_argument("map[string]interface {}", item)) };
        map.get(self.merge_key).ok_or_else(|| self.no_merge_key(map))
    }

    fn keys(&self, items: &[Value]) -> Vec<String> {
        items.iter().map(|item| self.key(item)).collect()
    }

    /// What tells the item apart, as text that differs for values that differ.
    fn key(&self, item: &Value) -> String {
        match item {
            Value::Object(map) => map.get(self.merge_key).unwrap_or(&Value::Null).to_string(),
            scalar => scalar.to_string(),
        }
    }

    fn no_merge_key(&self, map: &Map<String, Value>) -> PatchError {
        let key = self.merge_key;
        PatchError::Other(format!("map: {} does not contain declared merge key: {key}", go_map(map)))
    }
}

fn positions(order: &[String]) -> HashMap<&str, usize> {
    let mut positions = HashMap::with_capacity(order.len());
    for (at, key) in order.iter().enumerate() {
        positions.entry(key.as_str()).or_insert(at);
    }
    positions
}

fn list_name<'a>(key: &'a str, prefix: &str, error: &str) -> Result<&'a str, PatchError> {
    let found = key.split_once('/').filter(|(found, _)| *found == prefix);
    found.map(|(_, name)| name).ok_or_else(|| PatchError::BadRequest(error.into()))
}

/// Shape and patch strategy of the field `key` of a value.
fn lookup(shape: Shape, key: &str) -> Result<(Shape, PatchStrategy), PatchError> {
    let name = match shape {
        Shape::Object(id) => match id.get().field(key) {
            Some(field) => return Ok((field.shape, field.patch_strategy())),
            None => id.get().name.to_owned(),
        },
        Shape::Map(_) => {
            let text = "merging an object in json but data type is not struct, instead is: map";
            return Err(PatchError::Other(text.into()));
        }
        other => other.go_name().rsplit('.').next().unwrap_or_default().to_owned(),
    };
    Err(PatchError::Other(format!("unable to find api field in struct {name} for the json field {key:?}")))
}

fn lookup_list(shape: Shape, key: &str) -> Result<(Shape, PatchStrategy), PatchError> {
    let (found, strategy) = lookup(shape, key)?;
    match found.element().filter(|_| found.is_list()) {
        Some(element) => Ok((element, strategy)),
        None => {
            let kind = if matches!(shape, Shape::Map(_)) { "map" } else { "struct" };
            Err(PatchError::Other(format!("expected slice or array type, but got: {kind}")))
        }
    }
}

fn element_kind<'a>(items: impl Iterator<Item = &'a Value> + Clone) -> Result<ElementKind, PatchError> {
    let mut found = None;
    for item in items.clone() {
        let kind = match item {
            Value::Object(_) => ElementKind::Map,
            Value::Array(_) => return Err(PatchError::Unprocessable("lists of lists are not supported".into())),
            Value::Bool(_) => ElementKind::Bool,
            Value::Number(_) => ElementKind::Number,
            Value::String(_) => ElementKind::Text,
            Value::Null => continue,
        };
        if *found.get_or_insert(kind) != kind {
            let items: Vec<_> = items.cloned().collect();
            return Err(PatchError::Other(format!("list element types are not identical: [{}]", go_list(&items))));
        }
    }
    found.ok_or_else(|| PatchError::Other("no elements in any of the given slices".into()))
}

fn into_list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(bad_argument("[]interface {}", &other)),
    }
}

/// What is new must not bring nulls: they would delete what is not there.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// `None` for a map that is a directive itself.
fn remove_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(key, value)| Some((key, remove_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(remove_directives).collect())),
        other => Some(other),
    }
}

fn bad_argument(expected: &str, actual: &Value) -> PatchError {
    let actual = match actual {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    PatchError::Other(format!("expected a {expected}, but received a {actual}"))
}

fn bad_directive(directive: &Value, map: Map<String, Value>) -> PatchError {
    PatchError::Other(format!("unknown patch type: {} in map: {}", go_format(directive), go_map(&map)))
}

/// A value as Go's `%v` prints it, which some messages quote.
pub(crate) fn go_format(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => go_list(items),
        Value::Object(map) => go_map(map),
        scalar => scalar.to_string(),
    }
}

fn go_list(items: &[Value]) -> String {
    let items: Vec<_> = items.iter().map(go_format).collect();
    format!("[{}]", items.join(" "))
}

fn go_map(map: &Map<String, Value>) -> String {
    let mut entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", go_format(value))).collect();
    entries.sort();
    format!("map[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::table;

    fn patched(kind: &str, target: Value, patch: Value) -> Result<Value, String> {
        let ty = ["", "apps"].iter().find_map(|group| table().type_of(group, "v1", kind)).expect("a kind");
        let mut target = target;
        apply(&mut target, patch, ty).map_err(|error| error.to_string())?;
        Ok(target)
    }

    fn check_pod(target: Value, patch: Value, expected: Value) {
        let outcome = patched("Pod", json!({"spec": target}), json!({"spec": patch})).map(|mut pod| pod["spec"].take());
        assert_eq!(outcome.map(|v| v.to_string()), Ok(expected.to_string()));
    }

    #[test]
    fn lists_merge_by_key() {
        let two = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]});
        check_pod(
            two.clone(),
            json!({"containers": [{"name": "b", "image": "y"}, {"name": "c"}]}),
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}, {"name": "c"}]}),
        );
        check_pod(
            two.clone(),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        );
        check_pod(
            two.clone(),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        );
        check_pod(
            two.clone(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "x"}]}),
        );
        check_pod(
            two,
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}], "containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "x"}, {"name": "b"}]}),
        );
        check_pod(
            json!({"containers": [{"name": "a", "args": ["1", "2"], "command": ["s"]}]}),
            json!({"containers": [{"name": "a", "args": ["3"], "command": null}]}),
            json!({"containers": [{"name": "a", "args": ["3"]}]}),
        );
    }

    #[test]
    fn maps_nulls_and_directives() {
        check_pod(
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"a": null, "c": "3"}}),
            json!({"nodeSelector": {"b": "2", "c": "3"}}),
        );
        check_pod(
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
            json!({"nodeSelector": {"c": "3"}}),
        );
        check_pod(
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "delete"}}),
            json!({"nodeSelector": {}}),
        );
        check_pod(
            json!({}),
            json!({"containers": [{"name": "a", "image": null}, {"name": "b", "$patch": "delete"}]}),
            json!({"containers": [{"name": "a"}]}),
        );
        check_pod(
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        );
        let merged = patched(
            "Deployment",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        );
        assert_eq!(merged, Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    }

    #[test]
    fn lists_of_scalars() {
        let check = |patch: Value, expected: Value| {
            let outcome =
                patched("Pod", json!({"metadata": {"finalizers": ["a", "b", "c"]}}), json!({"metadata": patch}));
            assert_eq!(outcome.map(|mut pod| pod["metadata"]["finalizers"].take()), Ok(expected));
        };
        check(json!({"finalizers": ["d", "a"]}), json!(["d", "a", "b", "c"]));
        check(json!({"$deleteFromPrimitiveList/finalizers": ["b"]}), json!(["a", "c"]));
        check(
            json!({"$setElementOrder/finalizers": ["c", "e", "a"], "finalizers": ["e"], "$deleteFromPrimitiveList/finalizers": ["b"]}),
            json!(["c", "e", "a"]),
        );
    }

    #[test]
    fn errors_are_upstreams() {
        let check = |patch: Value, expected: &str| {
            let target = json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}, "metadata": {"labels": {}}});
            assert_eq!(patched("Pod", target, patch), Err(expected.to_owned()));
        };
        check(
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
        );
        check(json!({"spec": {"$patch": "boil"}}), "unknown patch type: boil in map: map[$patch:boil]");
        check(
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}}),
            "invalid patch format of retainKeys",
        );
        check(
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        );
        check(json!({"spec": {"containers": ["a"]}}), "list element types are not identical: [[map[name:a] a]]");
        check(json!({"spec": {"$setElementOrder": []}}), "invalid patch format of setElementOrder list");
    }
}
