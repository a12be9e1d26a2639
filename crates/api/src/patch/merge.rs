//! JSON merge patch (RFC 7386) with the two departures of upstream's library: a `null` below an array item stays where the
//! array replaces an object, and goes where it replaces anything else.

use serde_json::{Map, Value};

pub(super) fn apply(target: &mut Value, patch: Value) {
    if let (Value::Object(target), Value::Object(patch)) = (target, patch) {
        merge(target, patch);
    }
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, mut value) in patch {
        if value.is_null() {
            target.shift_remove(&key);
            continue;
        }
        match target.get_mut(&key) {
            Some(Value::Object(current)) => match value {
                Value::Object(value) => merge(current, value),
                value => drop(target.insert(key, value)),
            },
            _ => {
                prune_nulls(&mut value);
                target.insert(key, value);
            }
        }
    }
}

fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches() {
        let check = |target: Value, patch: Value, expected: Value| {
            let mut target = target;
            apply(&mut target, patch);
            assert_eq!(target, expected);
        };
        check(
            json!({"a": 1, "b": {"c": 2, "d": 3}}),
            json!({"a": null, "b": {"c": 4}}),
            json!({"b": {"c": 4, "d": 3}}),
        );
        check(json!({}), json!({"a": {"b": null, "c": {"d": null}}}), json!({"a": {"c": {}}}));
        check(json!({"a": [1]}), json!({"a": [{"b": null}]}), json!({"a": [{}]}));
        check(json!({"a": {}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]}));
        check(json!({"a": {"b": 1}}), json!({"a": "c"}), json!({"a": "c"}));
    }
}
