//! The patch that leads from the live object to the wanted one and removes what was applied last and is wanted no more.
//!
//! It is the sum of two differences: from live to wanted without what is only in live, and from last to wanted with nothing but
//! what is only in last. How lists and maps merge stands in the schema table; a kind that is not in it, as those of custom
//! resources, gets a JSON merge patch, in which lists are replaced. The directives are those of upstream's strategic merge patch
//! (`$patch`, `$retainKeys`, `$setElementOrder`, `$deleteFromPrimitiveList`).

use serde_json::{Map, Value, json};
use xebec_api::ResourceType;
use xebec_api::schema::{self, PatchStrategy, Shape};
use xebec_client::Patch;

type Object = Map<String, Value>;

pub fn patch(resource: &ResourceType, last: &Value, wanted: &Value, live: &Value) -> Patch {
    let empty = Object::new();
    let object = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let (last, wanted, live) = (object(last), object(wanted), object(live));
    let Some(ty) = schema::table().type_of(&resource.group, &resource.version, &resource.kind) else {
        return Patch::Merge(Value::Object(merge_patch(&last, &wanted, &live)));
    };
    let schema = Schema { shape: Some(Shape::Object(ty.id)), strategy: PatchStrategy::default() };
    let changes = Pass::Changes.maps(&live, &wanted, schema);
    let deletions = Pass::Deletions.maps(&last, &wanted, schema);
    Patch::Strategic(Value::Object(joined(deletions, changes, schema)))
}

/// What is known of a value: its members, and how it merges where it stands.
#[derive(Clone, Copy)]
struct Schema {
    shape: Option<Shape>,
    strategy: PatchStrategy,
}

impl Schema {
    fn member(self, name: &str) -> Schema {
        let unknown = Schema { shape: None, strategy: PatchStrategy::default() };
        match self.shape {
            Some(Shape::Object(ty)) => match ty.get().field(name) {
                Some(field) => Schema { shape: Some(field.shape), strategy: field.patch_strategy() },
                None => unknown,
            },
            Some(shape @ Shape::Map(_)) => Schema { shape: shape.element(), ..unknown },
            _ => unknown,
        }
    }

    /// An item of a list merges by the list's strategy.
    fn element(self) -> Schema {
        Schema { shape: self.shape.and_then(Shape::element), ..self }
    }
}

/// Which half of a difference is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// What the second state adds or has otherwise.
    Changes,
    /// What only the first state has.
    Deletions,
}

/// The difference of two lists that merge.
#[derive(Default)]
struct ListDifference {
    items: Vec<Value>,
    /// Scalars to remove; objects to remove are items with a directive.
    removed: Vec<Value>,
    order: Vec<Value>,
}

impl Pass {
    fn maps(self, from: &Object, to: &Object, schema: Schema) -> Object {
        let mut patch = Object::new();
        for (name, wanted) in to {
            match from.get(name) {
                Some(had) => patch.extend(self.member(name, (had, wanted), schema.member(name))),
                None if self == Pass::Changes => drop(patch.insert(name.clone(), wanted.clone())),
                None => {}
            }
        }
        if self == Pass::Deletions {
            let gone = from.keys().filter(|name| !to.contains_key(*name));
            patch.extend(gone.map(|name| (name.clone(), Value::Null)));
        }
        if schema.strategy.retain_keys {
            let mut kept: Vec<&String> =
                to.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name).collect();
            kept.sort();
            let others = from.iter().any(|(name, value)| !value.is_null() && !to.contains_key(name));
            if !kept.is_empty() && (others || !patch.is_empty()) {
                patch.insert("$retainKeys".to_owned(), json!(kept));
            }
        }
        patch
    }

    /// The difference of a member that both states have: under its name, and for a list under directives beside it.
    fn member(self, name: &str, (had, wanted): (&Value, &Value), schema: Schema) -> Vec<(String, Value)> {
        match (had, wanted) {
            (Value::Object(from), Value::Object(to)) if !schema.strategy.replace => {
                let change = self.maps(from, to, schema);
                if change.is_empty() { Vec::new() } else { vec![(name.to_owned(), Value::Object(change))] }
            }
            (Value::Array(from), Value::Array(to)) if schema.strategy.merge => {
                let difference = self.lists(from, to, schema.element());
                let parts = [
                    (name.to_owned(), difference.items),
                    (format!("$deleteFromPrimitiveList/{name}"), difference.removed),
                    (format!("$setElementOrder/{name}"), difference.order),
                ];
                let parts = parts.into_iter().filter(|(_, list)| !list.is_empty());
                parts.map(|(name, list)| (name, Value::Array(list))).collect()
            }
            _ if self == Pass::Changes && had != wanted => vec![(name.to_owned(), wanted.clone())],
            _ => Vec::new(),
        }
    }

    fn lists(self, from: &[Value], to: &[Value], element: Schema) -> ListDifference {
        if from.is_empty() {
            let items = if self == Pass::Changes { to.to_vec() } else { Vec::new() };
            return ListDifference { items, ..ListDifference::default() };
        }
        if from.iter().chain(to).any(Value::is_object) {
            self.lists_of_maps(from, to, element)
        } else {
            self.lists_of_scalars(from, to)
        }
    }

    fn lists_of_maps(self, from: &[Value], to: &[Value], element: Schema) -> ListDifference {
        let key = element.strategy.merge_key;
        let id = |item: &Value| plain(&item[key]);
        let (had, wanted) = (sorted_by(from, id), sorted_by(to, id));
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        let (mut had, mut wanted) = (had.into_iter().peekable(), wanted.into_iter().peekable());
        // Both go in the order of their keys, so that items which share one, as the ports 53 of UDP and TCP, meet in pairs.
        loop {
            let order = match (had.peek(), wanted.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((_, a)), Some((_, b))) => id(a).cmp(&id(b)),
            };
            let a = if order.is_le() { had.next() } else { None };
            let b = if order.is_ge() { wanted.next() } else { None };
            match (a, b) {
                (Some((_, a)), Some((at, b))) => {
                    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { continue };
                    let mut change = self.maps(a, b, element);
                    if !change.is_empty() {
                        change.insert(key.to_owned(), b.get(key).cloned().unwrap_or_default());
                        changed.push((at, Value::Object(change)));
                    }
                }
                (None, Some((at, b))) if self == Pass::Changes => changed.push((at, b.clone())),
                (Some((_, a)), None) if self == Pass::Deletions => {
                    removed.push(json!({"$patch": "delete", key: a[key]}))
                }
                _ => {}
            }
        }
        changed.sort_by_key(|(at, _)| *at);
        let items: Vec<Value> = changed.into_iter().map(|(_, item)| item).chain(removed).collect();
        let same_order = from.iter().map(|item| &item[key]).eq(to.iter().map(|item| &item[key]));
        let ordered = !items.is_empty() || (self == Pass::Changes && !same_order);
        let order = if ordered { to.iter().map(|item| json!({key: item[key]})).collect() } else { Vec::new() };
        ListDifference { items, removed: Vec::new(), order }
    }

    fn lists_of_scalars(self, from: &[Value], to: &[Value]) -> ListDifference {
        let missing = |from: &[Value], to: &[Value]| -> Vec<Value> {
            let mut rest = to.to_vec();
            let mut missing = Vec::new();
            for item in from {
                match rest.iter().position(|other| other == item) {
                    Some(at) => drop(rest.remove(at)),
                    None => missing.push(item.clone()),
                }
            }
            missing
        };
        match self {
            Pass::Changes if from != to => {
                ListDifference { items: missing(to, from), removed: Vec::new(), order: to.to_vec() }
            }
            Pass::Changes => ListDifference::default(),
            Pass::Deletions => {
                let mut removed = missing(from, to);
                removed.sort_by_key(plain);
                removed.dedup();
                let order = if removed.is_empty() { Vec::new() } else { to.to_vec() };
                ListDifference { items: Vec::new(), removed, order }
            }
        }
    }
}

/// Items with their places, in the order of their keys.
fn sorted_by(items: &[Value], id: impl Fn(&Value) -> String) -> Vec<(usize, &Value)> {
    let mut sorted: Vec<(usize, &Value)> = items.iter().enumerate().collect();
    sorted.sort_by_key(|(_, item)| id(item));
    sorted
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Deletions and changes as one patch; nothing stands in both but what leads on to members.
fn joined(deletions: Object, changes: Object, schema: Schema) -> Object {
    let mut patch = deletions;
    for (name, change) in changes {
        let inner = schema.member(&name);
        let value = match (patch.remove(&name), change) {
            (Some(Value::Object(deleted)), Value::Object(change)) => Value::Object(joined(deleted, change, inner)),
            (Some(Value::Array(deleted)), Value::Array(change)) if !name.starts_with('$') => {
                Value::Array(joined_lists(deleted, change, inner.element()))
            }
            (_, change) => change,
        };
        patch.insert(name, value);
    }
    patch
}

fn joined_lists(mut deleted: Vec<Value>, changes: Vec<Value>, element: Schema) -> Vec<Value> {
    let key = element.strategy.merge_key;
    let mut items = Vec::new();
    for change in changes {
        let same = deleted.iter().position(|item| item["$patch"].is_null() && item[key] == change[key]);
        items.push(match (same.map(|at| deleted.remove(at)), change) {
            (Some(Value::Object(deleted)), Value::Object(change)) => Value::Object(joined(deleted, change, element)),
            (_, change) => change,
        });
    }
    items.extend(deleted);
    items
}

/// The same in RFC 7386, where a null removes.
fn merge_patch(last: &Object, wanted: &Object, live: &Object) -> Object {
    let empty = Object::new();
    let mut patch = Object::new();
    for (name, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
        match (value, live.get(name)) {
            (Value::Object(value), Some(Value::Object(now))) => {
                let before = last.get(name).and_then(Value::as_object).unwrap_or(&empty);
                let change = merge_patch(before, value, now);
                if !change.is_empty() {
                    patch.insert(name.clone(), Value::Object(change));
                }
            }
            (value, now) if now != Some(value) => drop(patch.insert(name.clone(), value.clone())),
            _ => {}
        }
    }
    let gone = last.iter().filter(|(name, value)| !value.is_null() && !wanted.contains_key(*name));
    patch.extend(gone.map(|(name, _)| (name.clone(), Value::Null)));
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &'static str, [last, wanted, live]: [Value; 3], expected: Value) {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let resource = ResourceType::new(group, "v1", kind, "x", true);
        assert_eq!(*patch(&resource, &last, &wanted, &live).body(), expected);
    }

    fn pod(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn patches_hold_only_what_differs() {
        let meta = |labels: Value| json!({"metadata": {"labels": labels}});
        check("Pod", [json!({}), meta(json!({"a": "1"})), meta(json!({"a": "1", "b": "2"}))], json!({}));
        check(
            "Pod",
            [meta(json!({"a": "1", "b": "2"})), meta(json!({"a": "3"})), meta(json!({"a": "1", "b": "2", "c": "4"}))],
            meta(json!({"b": null, "a": "3"})),
        );
    }

    #[test]
    fn lists_merge_by_their_key() {
        let x = |image: &str| json!({"name": "x", "image": image});
        check(
            "Pod",
            [
                pod(json!([x("1"), {"name": "y", "image": "1"}])),
                pod(json!([x("2")])),
                pod(json!([{"name": "x", "image": "1", "imagePullPolicy": "Always"}, {"name": "y", "image": "1"}])),
            ],
            json!({"spec": {
                "containers": [x("2"), {"$patch": "delete", "name": "y"}],
                "$setElementOrder/containers": [{"name": "x"}]}}),
        );
        let (a, b) = (json!({"name": "a"}), json!({"name": "b"}));
        check(
            "Pod",
            [pod(json!([a, b])), pod(json!([b, a])), pod(json!([a, b]))],
            json!({"spec": {"$setElementOrder/containers": [b, a]}}),
        );
        let removed = |command: Value| pod(json!([{"name": "x", "command": command}]));
        check(
            "Pod",
            [removed(json!(["a"])), pod(json!([{"name": "x"}])), removed(json!(["a"]))],
            json!({"spec": {
                "containers": [{"name": "x", "command": null}],
                "$setElementOrder/containers": [{"name": "x"}]}}),
        );
    }

    #[test]
    fn items_that_share_a_key_meet_in_pairs() {
        let ports = |udp: u16| {
            json!({"spec": {"ports": [
                {"name": "tcp", "port": 53, "protocol": "TCP", "targetPort": 1},
                {"name": "udp", "port": 53, "protocol": "UDP", "targetPort": udp}]}})
        };
        check("Service", [ports(2), ports(2), ports(2)], json!({}));
    }

    #[test]
    fn lists_of_scalars_merge_where_the_table_says_so() {
        let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
        check(
            "Pod",
            [finalizers(json!(["a", "b"])), finalizers(json!(["b", "c"])), finalizers(json!(["a", "b", "d"]))],
            json!({"metadata": {
                "finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["b", "c"]}}),
        );
        let command = |list: Value| pod(json!([{"name": "x", "command": list}]));
        check(
            "Pod",
            [command(json!(["a"])), command(json!(["a", "b"])), command(json!(["a"]))],
            json!({"spec": {
                "containers": [{"name": "x", "command": ["a", "b"]}],
                "$setElementOrder/containers": [{"name": "x"}]}}),
        );
    }

    #[test]
    fn a_union_names_the_keys_it_retains() {
        let strategy = |value: Value| json!({"spec": {"strategy": value}});
        check(
            "Deployment",
            [
                strategy(json!({"type": "RollingUpdate"})),
                strategy(json!({"type": "Recreate"})),
                strategy(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})),
            ],
            strategy(json!({"type": "Recreate", "$retainKeys": ["type"]})),
        );
    }

    #[test]
    fn kinds_outside_the_table_get_a_merge_patch() {
        let spec = |value: Value| json!({"spec": value});
        check(
            "Unknown",
            [spec(json!({"a": 1, "b": [1]})), spec(json!({"b": [2], "c": {"d": 1}})), spec(json!({"a": 1, "b": [1]}))],
            spec(json!({"b": [2], "c": {"d": 1}, "a": null})),
        );
    }
}
