//! The form in which upstream's encoder writes an object: which fields are present, and in what order.
//!
//! Go writes the fields of a struct as declared and the keys of a map sorted; `omitempty` leaves out what is empty, except
//! that a struct which is not behind a pointer is always written (`status: {}`), and a field without `omitempty` is
//! written even when it was never set (`containers: null`). An empty list that was set is written as one that was not,
//! because upstream's storage format cannot tell them apart. It relies on a value that [`super::decode_value`] has checked
//! or that the server made itself; unknown fields go.

use serde_json::{Map, Value};

use super::table::{Alternative, Field, Shape, Type, json_schema};

/// Rebuilds `value`, an object of type `ty`, in upstream's form. What is not an object is left alone.
pub fn canonical(value: &mut Value, ty: &Type) {
    if let Value::Object(map) = value {
        let rebuilt = object(std::mem::take(map), ty);
        *map = rebuilt;
    }
}

fn object(mut from: Map<String, Value>, ty: &Type) -> Map<String, Value> {
    let mut out = Map::with_capacity(from.len().max(4));
    for field in &ty.fields {
        // With ordered maps, `remove` swaps: order does not matter any more here.
        let value = if from.is_empty() { None } else { from.remove(field.name) };
        let value = value.filter(|value| !value.is_null()).map(|value| shaped(value, field.shape));
        if let Some(value) = present(field, value) {
            out.insert(field.name.to_owned(), value);
        }
    }
    out
}

fn present(field: &Field, value: Option<Value>) -> Option<Value> {
    if field.pointer {
        return value.or(if field.omit_empty { None } else { Some(Value::Null) });
    }
    match field.shape {
        Shape::Object(ty) => Some(value.unwrap_or_else(|| Value::Object(object(Map::new(), ty.get())))),
        Shape::Time | Shape::MicroTime => match value {
            Some(value) if value != "" => Some(value),
            _ if field.omit_zero => None,
            _ => Some(Value::Null),
        },
        Shape::Quantity
        | Shape::IntOrString
        | Shape::RawExtension
        | Shape::FieldsV1
        | Shape::Json
        | Shape::SchemaOr(_) => Some(value.unwrap_or_else(|| zero(field.shape))),
        _ => match value {
            Some(value) if !is_empty(&value) => Some(value),
            _ if field.omit_empty => None,
            _ => Some(zero(field.shape)),
        },
    }
}

/// Go's `omitempty` on what is neither a pointer nor a struct.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// What upstream writes for a value of this shape that was never set.
pub(crate) fn zero(shape: Shape) -> Value {
    match shape {
        Shape::String => Value::String(String::new()),
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::from(0),
        Shape::Quantity => Value::from("0"),
        Shape::Object(ty) => Value::Object(object(Map::new(), ty.get())),
        _ => Value::Null,
    }
}

fn shaped(value: Value, shape: Shape) -> Value {
    match (shape, value) {
        (Shape::Object(ty), Value::Object(map)) => Value::Object(object(map, ty.get())),
        (Shape::List(element) | Shape::WrappedList(element), Value::Array(mut items)) => {
            let element = element.get();
            for item in &mut items {
                *item = shaped(item.take(), element);
            }
            Value::Array(items)
        }
        (Shape::Map(element), Value::Object(mut map)) => {
            let element = element.get();
            for (_, value) in map.iter_mut() {
                *value = shaped(value.take(), element);
            }
            map.sort_keys();
            Value::Object(map)
        }
        (Shape::SchemaOr(alternative), value) => schema_or(value, alternative),
        (_, value) => value,
    }
}

fn schema_or(value: Value, alternative: Alternative) -> Value {
    let schema = json_schema();
    match (value, alternative) {
        (Value::Object(map), _) => Value::Object(object(map, schema)),
        (Value::Array(items), Alternative::Array) => {
            Value::Array(items.into_iter().map(|item| shaped(item, Shape::Object(schema.id))).collect())
        }
        (value, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::table::table;
    use super::*;

    fn check(group: &str, version: &str, kind: &str, value: Value, expected: &str) {
        let mut value = value;
        canonical(&mut value, table().type_of(group, version, kind).unwrap());
        assert_eq!(value.to_string(), expected);
    }

    #[test]
    fn presence_and_order_are_upstreams() {
        check(
            "apps",
            "v1",
            "Deployment",
            json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"b": "1", "a": "2"}}, "paused": false},
                   "metadata": {"name": "x", "creationTimestamp": null, "labels": {}}, "kind": "Deployment", "apiVersion": "apps/v1"}),
            concat!(
                r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"x"},"spec":{"replicas":0,"#,
                r#""selector":{"matchLabels":{"a":"2","b":"1"}},"template":{"metadata":{},"spec":{"containers":null}},"#,
                r#""strategy":{}},"status":{}}"#
            ),
        );
        check(
            "rbac.authorization.k8s.io",
            "v1",
            "Role",
            json!({"rules": [], "metadata": {"name": "x"}, "bogus": 1}),
            r#"{"metadata":{"name":"x"},"rules":null}"#,
        );
        check(
            "",
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 1}]}}),
            r#"{"metadata":{},"spec":{"ports":[{"port":1,"targetPort":0}]},"status":{"loadBalancer":{}}}"#,
        );
    }
}
