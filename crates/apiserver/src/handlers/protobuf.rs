//! Request bodies in Kubernetes' protobuf form, transcoded to JSON by the schema table.
//!
//! Wire format: the magic number, then a `runtime.Unknown` with the type and the object's message (API conventions,
//! "Alternate representations of resources"). Only reading is here; answers go out as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use xebec_api::schema::{Field, Member, Shape, Type};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Deeper than any object of the API, and shallow enough for the stack.
const MAX_DEPTH: usize = 64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: {0} is not valid UTF-8")]
    Text(&'static str),
    #[error("proto: the field {0} cannot be read in this form; send JSON")]
    Unsupported(&'static str),
    #[error("proto: the message is nested too deeply")]
    Depth,
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// The type that the envelope names.
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    message: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
        let mut envelope = Envelope { api_version: "", kind: "", message: &[] };
        for entry in Reader(unknown) {
            match entry? {
                (1, Wire::Bytes(meta)) => {
                    for entry in Reader(meta) {
                        match entry? {
                            (1, Wire::Bytes(text)) => envelope.api_version = utf8(text, "apiVersion")?,
                            (2, Wire::Bytes(text)) => envelope.kind = utf8(text, "kind")?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(message)) => envelope.message = message,
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object as JSON, of type `ty`.
    pub fn tree(&self, ty: &Type) -> Result<Value> {
        let mut out = Map::new();
        for (key, value) in [("kind", self.kind), ("apiVersion", self.api_version)] {
            if !value.is_empty() {
                out.insert(key.to_owned(), Value::from(value));
            }
        }
        message(self.message, ty, &mut out, 0)?;
        Ok(Value::Object(out))
    }
}

fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Text(field))
}

/// One value as it stands on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The numbered values of a message, in their order.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.0.len() {
            return Err(ProtobufError::Truncated);
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    fn entry(&mut self) -> Result<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match (tag & 7) as u8 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| ProtobufError::Truncated)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(usize::try_from(length).map_err(|_| ProtobufError::Truncated)?)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| ProtobufError::Truncated)?)),
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

fn message(bytes: &[u8], ty: &Type, out: &mut Map<String, Value>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    for entry in Reader(bytes) {
        let (number, wire) = entry?;
        for member in &ty.members {
            match member {
                Member::Field(index) => {
                    let field = &ty.fields[usize::from(*index)];
                    if u64::from(field.number) == number {
                        add(field, wire, out, depth)?;
                    }
                }
                Member::Embedded(embedded) if embedded.number != 0 && u64::from(embedded.number) == number => {
                    if let Wire::Bytes(bytes) = wire {
                        message(bytes, embedded.ty.get(), out, depth + 1)?;
                    }
                }
                Member::Embedded(_) => {}
            }
        }
    }
    Ok(())
}

fn add(field: &Field, wire: Wire<'_>, out: &mut Map<String, Value>, depth: usize) -> Result<()> {
    match field.shape {
        Shape::List(element) => {
            let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            list.push(value(field.name, element.get(), wire, depth)?);
        }
        Shape::Map(element) => {
            let Wire::Bytes(entry) = wire else { return Ok(()) };
            let (mut key, mut found) = (String::new(), None);
            for part in Reader(entry) {
                match part? {
                    (1, Wire::Bytes(text)) => key = utf8(text, field.name)?.to_owned(),
                    (2, wire) => found = Some(value(field.name, element.get(), wire, depth)?),
                    _ => {}
                }
            }
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, found.unwrap_or_else(|| empty(element.get())));
            }
        }
        shape => {
            let value = value(field.name, shape, wire, depth)?;
            if !value.is_null() {
                out.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// The value of a map's entry that was left out because it is the zero value.
fn empty(shape: Shape) -> Value {
    match shape {
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 => Value::from(0),
        Shape::Object(_) => Value::Object(Map::new()),
        Shape::WrappedList(_) | Shape::List(_) => Value::Array(Vec::new()),
        _ => Value::from(""),
    }
}

fn value(name: &'static str, shape: Shape, wire: Wire<'_>, depth: usize) -> Result<Value> {
    Ok(match (shape, wire) {
        (Shape::Bool, Wire::Varint(number)) => Value::Bool(number != 0),
        // Negative numbers are written as their two's complement in 64 bits.
        (Shape::Int32 | Shape::Int64, Wire::Varint(number)) => Value::from(number as i64),
        (Shape::Double, Wire::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
        (Shape::Double, Wire::Fixed32(bits)) => Value::from(f32::from_bits(bits)),
        (Shape::String, Wire::Bytes(text)) => Value::from(utf8(text, name)?),
        (Shape::Bytes, Wire::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(name, bytes)?,
        (Shape::Quantity, Wire::Bytes(bytes)) => Value::from(utf8(first_bytes(bytes)?, name)?),
        (Shape::Time, Wire::Bytes(bytes)) => time(bytes, false)?,
        (Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, true)?,
        (Shape::RawExtension | Shape::FieldsV1 | Shape::Json, Wire::Bytes(bytes)) => {
            let raw = first_bytes(bytes)?;
            if raw.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(raw).map_err(|_| ProtobufError::Unsupported(name))?
            }
        }
        (Shape::Object(ty), Wire::Bytes(bytes)) => {
            let mut out = Map::new();
            message(bytes, ty.get(), &mut out, depth + 1)?;
            Value::Object(out)
        }
        (Shape::WrappedList(element), Wire::Bytes(bytes)) => {
            let mut list = Vec::new();
            for entry in Reader(bytes) {
                if let (1, wire) = entry? {
                    list.push(value(name, element.get(), wire, depth + 1)?);
                }
            }
            Value::Array(list)
        }
        _ => return Err(ProtobufError::Unsupported(name)),
    })
}

/// The contents of field 1 of a message that has no other.
fn first_bytes(message: &[u8]) -> Result<&[u8]> {
    for entry in Reader(message) {
        if let (1, Wire::Bytes(bytes)) = entry? {
            return Ok(bytes);
        }
    }
    Ok(&[])
}

fn int_or_string(name: &'static str, bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for entry in Reader(bytes) {
        match entry? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value as i64,
            (3, Wire::Bytes(value)) => text = utf8(value, name)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(text) } else { Value::from(number) })
}

/// An empty message is the zero time, which is no time.
fn time(bytes: &[u8], micro: bool) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for entry in Reader(bytes) {
        match entry? {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    let time =
        Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|_| ProtobufError::Unsupported("time"))?;
    Ok(Value::from(if micro { format!("{time:.6}") } else { format!("{time:.0}") }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use xebec_api::schema::table;

    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    fn check(kind: &str, message: Vec<u8>, expected: Value) {
        let meta = [bytes(1, b"v1"), bytes(2, kind.as_bytes())].concat();
        let body = [MAGIC.to_vec(), bytes(1, &meta), bytes(2, &message)].concat();
        let envelope = Envelope::read(&body).unwrap();
        let mut expected = expected;
        expected["kind"] = json!(kind);
        expected["apiVersion"] = json!("v1");
        assert_eq!(envelope.tree(table().type_of("", "v1", kind).unwrap()).unwrap(), expected);
    }

    #[test]
    fn messages_become_json() {
        let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
        let created = bytes(8, &[1 << 3, 60]);
        let metadata = [bytes(1, b"a"), created].concat();
        check(
            "ConfigMap",
            [bytes(1, &metadata), bytes(2, &entry)].concat(),
            json!({ "metadata": { "name": "a", "creationTimestamp": "1970-01-01T00:01:00Z" }, "data": { "k": "v" } }),
        );
        let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
        check(
            "Secret",
            [bytes(2, &entry), bytes(3, b"Opaque")].concat(),
            json!({ "data": { "k": "dg==" }, "type": "Opaque" }),
        );
        // Port 80 with a named target port, in a Service's specification.
        let target = [vec![1 << 3, 1], bytes(3, b"http")].concat();
        let port = [vec![3 << 3, 80], bytes(4, &target)].concat();
        check(
            "Service",
            bytes(2, &bytes(1, &port)),
            json!({ "spec": { "ports": [{ "port": 80, "targetPort": "http" }] } }),
        );
        // An embedded struct is a message of its own on the wire and no level of its own in JSON.
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &[]))].concat();
        check("Pod", bytes(2, &bytes(1, &volume)), json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }] } }));
    }

    #[test]
    fn broken_messages_are_refused() {
        assert_eq!(Envelope::read(b"{}").err(), Some(ProtobufError::Magic));
        assert_eq!(Envelope::read(b"k8s\0\x0a\x05a").err(), Some(ProtobufError::Truncated));
    }
}
