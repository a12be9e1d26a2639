//! Decoding with the table: type checks, unknown and duplicate fields, in upstream's words.
//!
//! One pass over the input, JSON text or a value, as upstream's decoder makes it: the first wrong type is the error, unknown and
//! duplicate fields are gathered with their paths, `null` is a field that is not there, and times, quantities and base64 come out as
//! upstream would write them back. Whether unknown fields matter is the caller's: that is `fieldValidation`.
//! Source of the behaviour: `sigs.k8s.io/json` and the `UnmarshalJSON` methods of the meta types.

use std::{borrow::Cow, fmt};

use base64::{DecodeError as Base64Error, Engine, engine::general_purpose::STANDARD};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    canonical::zero,
    table::{Alternative, Field, Shape, Type, json_schema},
    time,
};
use crate::quantity::Quantity;

/// Upstream gathers at most so many strict errors of one object.
const MAX_STRICT_ERRORS: usize = 100;

#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.x"`, in the order of the input.
    pub strict: Vec<String>,
}

/// It displays as upstream's decoder words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, but not a value of the type.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON text into an object of type `ty`.
pub fn decode_json(bytes: &[u8], ty: &Type) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let decoded = decode(&mut deserializer, Shape::Object(ty.id))?;
    deserializer.end().map_err(|error| DecodeError::Syntax(error.to_string()))?;
    Ok(decoded)
}

/// Decodes a value that has been parsed already, such as the outcome of a patch.
pub fn decode_value(value: Value, ty: &Type) -> Result<Decoded, DecodeError> {
    decode(value, Shape::Object(ty.id))
}

/// Parses JSON whose shape no table knows, finding duplicate fields only: the body of a custom resource.
pub fn parse_json(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let decoded = decode(&mut deserializer, Shape::Json)?;
    deserializer.end().map_err(|error| DecodeError::Syntax(error.to_string()))?;
    Ok(decoded)
}

/// The message of a request that `fieldValidation=Strict` refuses.
pub fn strict_error(strict: &[String]) -> String {
    format!("strict decoding error: {}", strict.join(", "))
}

fn decode<'de, D: Deserializer<'de, Error = serde_json::Error>>(from: D, shape: Shape) -> Result<Decoded, DecodeError> {
    let mut context = Context::default();
    let value = Seed { context: &mut context, shape, go: None };
    let value = value.deserialize(from).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    match context.fatal.or(context.first) {
        Some(error) => Err(DecodeError::Type(error)),
        // A document that is `null` sets nothing.
        None if value.is_null() && shape != Shape::Json => {
            Ok(Decoded { value: Value::Object(Map::new()), strict: context.strict })
        }
        None => Ok(Decoded { value, strict: context.strict }),
    }
}

#[derive(Default)]
struct Context {
    /// The path with indices that strict errors give.
    path: String,
    /// The path of struct fields alone that type errors give.
    stack: Vec<&'static str>,
    owner: &'static str,
    strict: Vec<String>,
    /// Above zero inside types that upstream decodes by themselves, where strictness does not reach.
    lenient: usize,
    /// A value's own decoding method failed, which beats a wrong type.
    fatal: Option<String>,
    first: Option<String>,
}

impl Context {
    fn mismatch(&self, found: &str, expected: &str) -> String {
        if self.stack.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {expected}");
        }
        let path = self.stack.join(".");
        format!("json: cannot unmarshal {found} into Go struct field {}.{path} of type {expected}", self.owner)
    }

    fn fail(&mut self, error: impl FnOnce(&Self) -> String) {
        if self.fatal.is_none() {
            self.fatal = Some(error(self));
        }
    }

    fn strict_error(&mut self, what: &str, name: &str) {
        if self.lenient > 0 || self.strict.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let error = format!("{what} field {:?}", format!("{}{dot}{name}", self.path));
        if !self.strict.contains(&error) {
            self.strict.push(error);
        }
    }

    fn push_key(&mut self, key: &str) -> usize {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        before
    }

    fn push_index(&mut self, index: usize) -> usize {
        use fmt::Write;
        let before = self.path.len();
        let _ = write!(self.path, "[{index}]");
        before
    }
}

struct Seed<'a> {
    context: &'a mut Context,
    shape: Shape,
    /// Go's name of the type where the table gives it.
    go: Option<&'static str>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    /// The value has the wrong type: remembered, and the value is gone.
    fn wrong(&mut self, found: &str) -> Value {
        match self.shape {
            Shape::IntOrString => self.context.fail(|context| context.mismatch(found, "int32")),
            Shape::Time | Shape::MicroTime => self.context.fail(|context| context.mismatch(found, "string")),
            Shape::Quantity => self.context.fail(|_| crate::quantity::QuantityError.to_string()),
            Shape::SchemaOr(Alternative::Bool) => self.context.fail(|_| "boolean or JSON schema expected".into()),
            _ if self.context.first.is_none() => {
                let expected = self.go.map_or_else(|| self.shape.go_name(), Cow::Borrowed);
                self.context.first = Some(self.context.mismatch(found, &expected));
            }
            _ => {}
        }
        Value::Null
    }

    fn integer(&mut self, number: Number) -> Value {
        let Some(integer) = number.as_i64() else { return self.wrong(&format!("number {number}")) };
        if self.shape != Shape::Int64 && i32::try_from(integer).is_err() {
            return self.wrong(&format!("number {number}"));
        }
        Value::Number(number)
    }

    fn number(&mut self, number: Number) -> Value {
        match self.shape {
            Shape::Int32 | Shape::Int64 | Shape::IntOrString => self.integer(number),
            Shape::Double => whole(number),
            Shape::Quantity => self.quantity(&number.to_string()),
            Shape::Json | Shape::RawExtension | Shape::FieldsV1 => Value::Number(number),
            Shape::SchemaOr(Alternative::Array | Alternative::Strings) => Value::Null,
            _ => self.wrong("number"),
        }
    }

    fn quantity(&mut self, text: &str) -> Value {
        match text.trim().parse::<Quantity>() {
            Ok(quantity) => Value::String(quantity.to_string()),
            Err(error) => {
                self.context.fail(|_| error.to_string());
                Value::Null
            }
        }
    }

    fn text(&mut self, text: Cow<'_, str>) -> Value {
        match self.shape {
            Shape::String | Shape::IntOrString | Shape::Json | Shape::RawExtension | Shape::FieldsV1 => {
                text.into_owned().into()
            }
            Shape::Quantity => self.quantity(&text),
            Shape::Time | Shape::MicroTime => match time::normalize(&text, self.shape == Shape::MicroTime) {
                Ok(time) => time.into(),
                Err(error) => {
                    self.context.fail(|_| error);
                    Value::Null
                }
            },
            Shape::Bytes => self.base64(text),
            Shape::SchemaOr(Alternative::Array | Alternative::Strings) => Value::Null,
            _ => self.wrong("string"),
        }
    }

    fn base64(&mut self, text: Cow<'_, str>) -> Value {
        // Go skips line breaks inside base64.
        let text = if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text };
        let at = match STANDARD.decode(&*text) {
            Ok(_) => return text.into_owned().into(),
            Err(Base64Error::InvalidByte(at, _) | Base64Error::InvalidLastSymbol(at, _)) => at,
            Err(Base64Error::InvalidLength(length)) => length / 4 * 4,
            Err(Base64Error::InvalidPadding) => text.len(),
        };
        if self.context.first.is_none() {
            self.context.first = Some(format!("illegal base64 data at input byte {at}"));
        }
        Value::Null
    }

    fn object<'de, A: MapAccess<'de>>(self, ty: &'static Type, mut access: A) -> Result<Value, A::Error> {
        let Seed { context, .. } = self;
        let mut out = Map::new();
        let mut seen = 0u128;
        let (owner, depth) = (context.owner, context.stack.len());
        while let Some(key) = access.next_key_seed(KeySeed(ty))? {
            let at = match key {
                Key::Known(at) => at,
                Key::Unknown(name) => {
                    context.strict_error("unknown", &name);
                    access.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let field: &'static Field = &ty.fields[at];
            if seen & (1 << at) != 0 {
                context.strict_error("duplicate", field.name);
            }
            seen |= 1 << at;
            context.owner = ty.name;
            if let Some(through) = &field.through {
                context.stack.push(through);
            }
            context.stack.push(field.name);
            let before = context.push_key(field.name);
            let seed = Seed { context: &mut *context, shape: field.shape, go: field.declared_go_name() };
            let value = access.next_value_seed(seed)?;
            context.path.truncate(before);
            context.stack.truncate(depth);
            context.owner = owner;
            if value.is_null() {
                out.remove(field.name);
            } else {
                out.insert(field.name.to_owned(), value);
            }
        }
        Ok(Value::Object(out))
    }

    fn map<'de, A: MapAccess<'de>>(self, element: Shape, mut access: A) -> Result<Value, A::Error> {
        let Seed { context, go, .. } = self;
        let go = go.and_then(|go| go.strip_prefix("map[")?.split_once(']')).map(|(_, value)| value);
        let mut out = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if out.contains_key(&key) {
                context.strict_error("duplicate", &key);
            }
            let before = context.push_key(&key);
            let value = access.next_value_seed(Seed { context: &mut *context, shape: element, go })?;
            context.path.truncate(before);
            out.insert(key, element_value(value, element));
        }
        Ok(Value::Object(out))
    }

    fn list<'de, A: SeqAccess<'de>>(self, element: Shape, mut access: A) -> Result<Value, A::Error> {
        let Seed { context, go, .. } = self;
        let go = go.and_then(|go| go.strip_prefix("[]")).map(|go| go.trim_start_matches('*'));
        let mut out = Vec::new();
        loop {
            let before = context.push_index(out.len());
            let value = access.next_element_seed(Seed { context: &mut *context, shape: element, go })?;
            context.path.truncate(before);
            let Some(value) = value else { return Ok(Value::Array(out)) };
            out.push(element_value(value, element));
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<Value, E> {
        Ok(match self.shape {
            Shape::Bool | Shape::Json | Shape::RawExtension | Shape::FieldsV1 | Shape::SchemaOr(Alternative::Bool) => {
                value.into()
            }
            Shape::SchemaOr(_) => Value::Null,
            _ => self.wrong("bool"),
        })
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(self.number(number))
    }

    fn visit_str<E>(mut self, value: &str) -> Result<Value, E> {
        Ok(self.text(Cow::Borrowed(value)))
    }

    fn visit_string<E>(mut self, value: String) -> Result<Value, E> {
        Ok(self.text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        match self.shape {
            Shape::List(element) | Shape::WrappedList(element) => self.list(element.get(), access),
            Shape::Json => self.list(Shape::Json, access),
            Shape::RawExtension | Shape::FieldsV1 => untracked(self.context, |context| {
                Seed { context, shape: self.shape, go: None }.list(Shape::Json, access)
            }),
            Shape::SchemaOr(alternative @ (Alternative::Array | Alternative::Strings)) => {
                let element = if alternative == Alternative::Strings { Shape::String } else { schema() };
                untracked(self.context, |context| Seed { context, shape: element, go: None }.list(element, access))
            }
            _ => {
                let value = self.wrong("array");
                while access.next_element::<IgnoredAny>()?.is_some() {}
                Ok(value)
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        match self.shape {
            Shape::Object(ty) => self.object(ty.get(), access),
            Shape::Map(element) => self.map(element.get(), access),
            Shape::Json => self.map(Shape::Json, access),
            Shape::RawExtension | Shape::FieldsV1 => untracked(self.context, |context| {
                Seed { context, shape: Shape::Json, go: None }.map(Shape::Json, access)
            }),
            Shape::SchemaOr(_) => {
                untracked(self.context, |context| Seed { context, shape: schema(), go: None }.visit_map(access))
            }
            _ => {
                let value = self.wrong("object");
                while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(value)
            }
        }
    }
}

/// Runs `inner` where upstream calls a type's own decoding method, which knows nothing of strictness.
fn untracked<T>(context: &mut Context, inner: impl FnOnce(&mut Context) -> T) -> T {
    context.lenient += 1;
    let out = inner(context);
    context.lenient -= 1;
    out
}

fn schema() -> Shape {
    Shape::Object(json_schema().id)
}

/// A `null` among elements is the zero value of the element in Go.
fn element_value(value: Value, element: Shape) -> Value {
    match element {
        _ if !value.is_null() => value,
        Shape::Object(_) => Value::Object(Map::new()),
        Shape::Bytes => Value::String(String::new()),
        element => zero(element),
    }
}

/// Go writes a float without a fraction as an integer.
fn whole(number: Number) -> Value {
    match number.as_f64() {
        Some(float) if !number.is_i64() && float.fract() == 0.0 && float.abs() < 1e15 => Value::from(float as i64),
        _ => Value::Number(number),
    }
}

enum Key {
    Known(usize),
    Unknown(String),
}

/// Looks a key up without making a string of it.
struct KeySeed(&'static Type);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(self.0.position(name).map_or_else(|| Key::Unknown(name.to_owned()), Key::Known))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::table;
    use super::*;

    fn ty(kind: &str) -> &'static Type {
        let groups = ["", "apps", "apiextensions.k8s.io"];
        groups.iter().find_map(|group| table().type_of(group, "v1", kind)).expect("a kind")
    }

    #[test]
    fn strict_errors_have_upstreams_paths_and_order() {
        let check = |kind: &str, json: &str, expected: &[&str]| {
            let decoded = decode_json(json.as_bytes(), ty(kind)).expect(json);
            assert_eq!(decoded.strict, expected, "{json}");
        };
        check(
            "Pod",
            r#"{"spec":{"foo":1,"containers":[{"name":"a","bar":{}},{"name":"b","name":"c"}]}}"#,
            &[
                r#"unknown field "spec.foo""#,
                r#"unknown field "spec.containers[0].bar""#,
                r#"duplicate field "spec.containers[1].name""#,
            ],
        );
        check(
            "Pod",
            r#"{"Spec":{},"metadata":{"labels":{"a":"1","a":"2"}}}"#,
            &[r#"unknown field "Spec""#, r#"duplicate field "metadata.labels.a""#],
        );
        check("ControllerRevision", r#"{"data":{"x":1,"x":2},"revision":1}"#, &[]);
        check("Pod", r#"{"x":{"y":1,"y":2}}"#, &[r#"unknown field "x""#]);
    }

    #[test]
    fn wrong_types_are_worded_as_upstream_does() {
        let check = |kind: &str, json: &str, expected: &str| {
            let error = decode_json(json.as_bytes(), ty(kind)).expect_err(json);
            assert_eq!(error, DecodeError::Type(expected.to_owned()), "{json}");
        };
        let field = |found: &str, path: &str, expected: &str| {
            format!("json: cannot unmarshal {found} into Go struct field {path} of type {expected}")
        };
        check("Deployment", r#"{"spec":{"replicas":"2"}}"#, &field("string", "DeploymentSpec.spec.replicas", "int32"));
        check(
            "Deployment",
            r#"{"spec":{"replicas":3000000000}}"#,
            &field("number 3000000000", "DeploymentSpec.spec.replicas", "int32"),
        );
        check("Pod", r#"{"spec":{"containers":{}}}"#, &field("object", "PodSpec.spec.containers", "[]v1.Container"));
        check(
            "Pod",
            r#"{"spec":{"containers":[{"env":[{"value":1}]}]}}"#,
            &field("number", "EnvVar.spec.containers.env.value", "string"),
        );
        check(
            "Pod",
            r#"{"spec":{"volumes":[{"hostPath":1}]}}"#,
            &field("number", "Volume.spec.volumes.VolumeSource.hostPath", "v1.HostPathVolumeSource"),
        );
        check(
            "Pod",
            r#"{"spec":{"restartPolicy":1}}"#,
            &field("number", "PodSpec.spec.restartPolicy", "v1.RestartPolicy"),
        );
        check(
            "Service",
            r#"{"spec":{"ports":[{"targetPort":{}}]}}"#,
            &field("object", "ServicePort.spec.ports.targetPort", "int32"),
        );
        check("ConfigMap", r#"{"data":{"a":1}}"#, &field("number", "ConfigMap.data", "string"));
        check("ConfigMap", "[]", "json: cannot unmarshal array into Go value of type v1.ConfigMap");
        check("Secret", r#"{"data":{"a":"%"}}"#, "illegal base64 data at input byte 0");
        check(
            "Pod",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
        assert!(matches!(decode_json(b"{\"a\"", ty("Pod")), Err(DecodeError::Syntax(_))));
    }

    #[test]
    fn values_come_out_as_upstream_writes_them() {
        let check = |kind: &str, json: &str, expected: &str| {
            let decoded = decode_json(json.as_bytes(), ty(kind)).expect(json);
            assert_eq!(decoded.value.to_string(), expected);
            let again = decode_value(decoded.value, ty(kind)).expect(json);
            assert_eq!(again.value.to_string(), expected);
        };
        check(
            "Pod",
            r#"{"metadata":{"creationTimestamp":null,"annotations":null},"spec":{"x":1,"containers":[null]}}"#,
            r#"{"metadata":{},"spec":{"containers":[{}]}}"#,
        );
        check(
            "Pod",
            r#"{"spec":{"overhead":{"cpu":0.5,"memory":"1024Ki"}},"status":{"startTime":"2024-01-01T01:00:00+01:00"}}"#,
            r#"{"spec":{"overhead":{"cpu":"500m","memory":"1Mi"}},"status":{"startTime":"2024-01-01T00:00:00Z"}}"#,
        );
        check(
            "CustomResourceDefinition",
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"maximum":1.0,"items":{"type":"string","no":1},"default":{"b":null}}}}]}}"#,
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"maximum":1,"items":{"type":"string"},"default":{"b":null}}}}]}}"#,
        );
    }

    #[test]
    fn unstructured_json_reports_duplicates_only() {
        let decoded = parse_json(br#"{"a":{"b":[{"c":1,"c":2}]},"a":1}"#).unwrap();
        assert_eq!(decoded.strict, [r#"duplicate field "a.b[0].c""#, r#"duplicate field "a""#]);
        assert_eq!(decoded.value.to_string(), r#"{"a":1}"#);
    }
}
