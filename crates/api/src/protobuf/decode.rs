//! A message into JSON text, in the form and order in which upstream's encoder would write the same object.
//!
//! The values of a message are listed once; then the fields of the type are written in the order of their declaration, each
//! from what the list has under its number. Fields that the table does not know are passed over, as upstream's decoder does.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::DecodeError;
use super::raw::put_compact;
use super::wire::{Reader, Wire, utf8};
use crate::schema::{Alternative, ElementId, Field, Member, Shape, Type, format, json_schema, zero};

type Result<T> = std::result::Result<T, DecodeError>;

/// As deep as the JSON reader goes, which reads what is written here.
const MAX_DEPTH: usize = 60;
/// JSON is longer than its message by the names of the fields.
const LONGER: usize = 2;

pub(super) fn object(ty: &'static Type, message: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>> {
    let mut decoder =
        Decoder { out: Vec::with_capacity(message.len() * LONGER + 64), values: Vec::new(), depth: 0, first: true };
    decoder.out.push(b'{');
    for (name, text) in [("kind", kind), ("apiVersion", api_version)] {
        if !text.is_empty() {
            decoder.name(name);
            decoder.text(text);
        }
    }
    decoder.object(ty, message)?;
    decoder.out.push(b'}');
    Ok(decoder.out)
}

struct Decoder<'a> {
    out: Vec<u8>,
    /// The values of all messages that are open; each message knows where its own begin.
    values: Vec<(u64, Wire<'a>)>,
    depth: usize,
    /// No field of the open object has been written yet.
    first: bool,
}

impl<'a> Decoder<'a> {
    fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        self.text(name);
        self.out.push(b':');
    }

    fn text(&mut self, text: &str) {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    fn plain(&mut self, value: &Value) {
        let _ = serde_json::to_writer(&mut self.out, value);
    }

    /// The fields of an object, without its braces.
    fn object(&mut self, ty: &'static Type, message: &'a [u8]) -> Result<()> {
        if self.depth >= MAX_DEPTH {
            return Err(DecodeError::Depth);
        }
        self.depth += 1;
        let own = self.values.len();
        for value in Reader(message) {
            self.values.push(value?);
        }
        for member in &ty.members {
            match member {
                Member::Field(index) => self.field(&ty.fields[usize::from(*index)], own)?,
                // A struct that is no level of its own in JSON.
                Member::Embedded(embedded) if embedded.number != 0 => {
                    let message = match self.last(own, embedded.number) {
                        Some(wire) => bytes(wire, embedded.ty.get().name)?,
                        None => &[],
                    };
                    self.object(embedded.ty.get(), message)?;
                }
                Member::Embedded(_) => {}
            }
        }
        self.values.truncate(own);
        self.depth -= 1;
        Ok(())
    }

    /// Of a field that is given several times the last one counts.
    fn last(&self, own: usize, number: u16) -> Option<Wire<'a>> {
        let found = self.values[own..].iter().rev().find(|(found, _)| *found == u64::from(number));
        found.map(|(_, wire)| *wire)
    }

    fn field(&mut self, field: &'static Field, own: usize) -> Result<()> {
        let Some(wire) = self.last(own, field.number).filter(|_| field.number != 0) else {
            return self.absent(field);
        };
        match field.shape {
            Shape::List(element) => {
                self.name(field.name);
                return self.list(field, element, own);
            }
            Shape::Map(element) => {
                self.name(field.name);
                return self.map(field, element, own);
            }
            _ => {}
        }
        if !field.pointer && is_left_out(field, wire) {
            return Ok(());
        }
        self.name(field.name);
        self.value(field.name, field.shape, wire)
    }

    fn absent(&mut self, field: &'static Field) -> Result<()> {
        let always = !field.pointer
            && match field.shape {
                Shape::Object(_)
                | Shape::Quantity
                | Shape::IntOrString
                | Shape::RawExtension
                | Shape::FieldsV1
                | Shape::Json
                | Shape::SchemaOr(_) => true,
                Shape::Time | Shape::MicroTime => !field.omit_zero,
                _ => false,
            };
        if field.omit_empty && !always || field.omit_zero && !always {
            return Ok(());
        }
        self.name(field.name);
        if field.pointer {
            self.out.extend_from_slice(b"null");
        } else {
            self.plain(&zero(field.shape));
        }
        Ok(())
    }

    fn list(&mut self, field: &'static Field, element: ElementId, own: usize) -> Result<()> {
        self.out.push(b'[');
        let mut first = true;
        let shape = element.get();
        for at in own..self.values.len() {
            let (number, wire) = self.values[at];
            if number != u64::from(field.number) {
                continue;
            }
            match (shape, wire) {
                // Numbers may stand side by side in one value.
                (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(packed)) => {
                    let mut packed = Reader(packed);
                    while !packed.0.is_empty() {
                        let number = packed.varint()?;
                        self.comma(&mut first);
                        self.value(field.name, shape, Wire::Varint(number))?;
                    }
                }
                _ => {
                    self.comma(&mut first);
                    self.value(field.name, shape, wire)?;
                }
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn comma(&mut self, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
    }

    /// Go writes maps sorted by key.
    fn map(&mut self, field: &'static Field, element: ElementId, own: usize) -> Result<()> {
        let mut entries: Vec<(&'a str, Option<Wire<'a>>)> = Vec::new();
        for (number, wire) in &self.values[own..] {
            if *number != u64::from(field.number) {
                continue;
            }
            let (mut key, mut value) = ("", None);
            for part in Reader(bytes(*wire, field.name)?) {
                match part? {
                    (1, wire) => key = utf8(bytes(wire, field.name)?, field.name)?,
                    (2, wire) => value = Some(wire),
                    _ => {}
                }
            }
            entries.push((key, value));
        }
        entries.sort_by_key(|(key, _)| *key);
        self.out.push(b'{');
        let mut first = true;
        for (at, (key, value)) in entries.iter().enumerate() {
            if entries.get(at + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            self.comma(&mut first);
            self.text(key);
            self.out.push(b':');
            match (value, element.get()) {
                (Some(wire), shape) => self.value(field.name, shape, *wire)?,
                (None, Shape::Bytes) => self.out.extend_from_slice(b"null"),
                (None, shape) => self.plain(&zero(shape)),
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(&mut self, name: &'static str, shape: Shape, wire: Wire<'a>) -> Result<()> {
        match (shape, wire) {
            (Shape::Bool, Wire::Varint(number)) => self.plain(&Value::Bool(number != 0)),
            (Shape::Int32, Wire::Varint(number)) => self.plain(&Value::from(number as i32)),
            (Shape::Int64, Wire::Varint(number)) => self.plain(&Value::from(number as i64)),
            (Shape::Double, Wire::Fixed64(bits)) => self.double(f64::from_bits(bits)),
            (Shape::String, Wire::Bytes(text)) => self.text(utf8(text, name)?),
            (Shape::Bytes, Wire::Bytes(bytes)) => {
                let encoded = STANDARD.encode(bytes);
                self.text(&encoded);
            }
            (Shape::IntOrString, Wire::Bytes(message)) => self.int_or_string(name, message)?,
            (Shape::Quantity, Wire::Bytes(message)) => match utf8(only_bytes(message, name)?, name)? {
                "" => self.text("0"),
                text => self.text(text),
            },
            (Shape::Time, Wire::Bytes(message)) => self.time(name, message, false)?,
            (Shape::MicroTime, Wire::Bytes(message)) => self.time(name, message, true)?,
            (Shape::RawExtension | Shape::FieldsV1 | Shape::Json, Wire::Bytes(message)) => {
                match only_bytes(message, name)? {
                    [] => self.out.extend_from_slice(b"null"),
                    json => {
                        serde_json::from_slice::<IgnoredAny>(json).map_err(|_| DecodeError::Raw(name))?;
                        put_compact(json, &mut self.out);
                    }
                }
            }
            (Shape::Object(ty), Wire::Bytes(message)) => self.braced(ty.get(), message)?,
            (Shape::WrappedList(element), Wire::Bytes(message)) => self.items(name, element.get(), 1, message)?,
            (Shape::SchemaOr(alternative), Wire::Bytes(message)) => self.schema_or(name, alternative, message)?,
            (_, wire) => return Err(DecodeError::WireType { found: wire.wire_type(), field: name }),
        }
        Ok(())
    }

    fn braced(&mut self, ty: &'static Type, message: &'a [u8]) -> Result<()> {
        self.out.push(b'{');
        self.first = true;
        self.object(ty, message)?;
        self.first = false;
        self.out.push(b'}');
        Ok(())
    }

    /// A list that is a message of its own.
    fn items(&mut self, name: &'static str, element: Shape, number: u64, message: &'a [u8]) -> Result<()> {
        self.out.push(b'[');
        let mut first = true;
        for value in Reader(message) {
            let (found, wire) = value?;
            if found == number {
                self.comma(&mut first);
                self.value(name, element, wire)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn schema_or(&mut self, name: &'static str, alternative: Alternative, message: &'a [u8]) -> Result<()> {
        let (mut allows, mut schema, mut listed) = (false, None, false);
        for value in Reader(message) {
            match (alternative, value?) {
                (Alternative::Bool, (1, Wire::Varint(flag))) => allows = flag != 0,
                (Alternative::Bool, (2, wire)) => schema = Some(bytes(wire, name)?),
                (Alternative::Array | Alternative::Strings, (1, wire)) => schema = Some(bytes(wire, name)?),
                (Alternative::Array | Alternative::Strings, (2, _)) => listed = true,
                _ => {}
            }
        }
        match (alternative, schema) {
            (Alternative::Array, _) if listed => self.items(name, Shape::Object(json_schema().id), 2, message),
            (Alternative::Strings, _) if listed => self.items(name, Shape::String, 2, message),
            (_, Some(schema)) => self.braced(json_schema(), schema),
            (Alternative::Bool, None) => {
                self.plain(&Value::Bool(allows));
                Ok(())
            }
            (_, None) => {
                self.out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    /// Go writes a float without a fraction as an integer; JSON has no infinities.
    fn double(&mut self, value: f64) {
        let whole = value.fract() == 0.0 && value.abs() < 1e15;
        let value = if whole { Value::from(value as i64) } else { Value::from(value) };
        self.plain(&value);
    }

    fn int_or_string(&mut self, name: &'static str, message: &'a [u8]) -> Result<()> {
        let (mut is_text, mut number, mut text) = (false, 0, "");
        for value in Reader(message) {
            match value? {
                (1, Wire::Varint(kind)) => is_text = kind == 1,
                (2, Wire::Varint(value)) => number = value as i32,
                (3, Wire::Bytes(value)) => text = utf8(value, name)?,
                _ => {}
            }
        }
        if is_text {
            self.text(text);
        } else {
            self.plain(&Value::from(number));
        }
        Ok(())
    }

    /// An empty message is the zero time, which is no time.
    fn time(&mut self, name: &'static str, message: &'a [u8], micro: bool) -> Result<()> {
        if message.is_empty() {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        let (mut seconds, mut nanos) = (0, 0);
        for value in Reader(message) {
            match value? {
                (1, Wire::Varint(value)) => seconds = value as i64,
                (2, Wire::Varint(value)) => nanos = value as i32,
                _ => {}
            }
        }
        let time = Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|_| DecodeError::Time(name))?;
        let _ = write!(self.out, "\"{}\"", format(time, micro));
        Ok(())
    }
}

/// Go leaves a value out when it is empty and the field says so; structs are written all the same.
fn is_left_out(field: &Field, wire: Wire<'_>) -> bool {
    match (field.shape, wire) {
        (Shape::Time | Shape::MicroTime, Wire::Bytes(message)) => field.omit_zero && message.is_empty(),
        (_, _) if !field.omit_empty => false,
        (Shape::Bool | Shape::Int32 | Shape::Int64, Wire::Varint(number)) => number == 0,
        (Shape::Double, Wire::Fixed64(bits)) => f64::from_bits(bits) == 0.0,
        (Shape::String | Shape::Bytes | Shape::WrappedList(_), Wire::Bytes(bytes)) => bytes.is_empty(),
        _ => false,
    }
}

fn bytes<'a>(wire: Wire<'a>, field: &'static str) -> Result<&'a [u8]> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(DecodeError::WireType { found: other.wire_type(), field }),
    }
}

/// The contents of field 1 of a message that has no other.
fn only_bytes<'a>(message: &'a [u8], field: &'static str) -> Result<&'a [u8]> {
    let mut found = &[][..];
    for value in Reader(message) {
        if let (1, wire) = value? {
            found = bytes(wire, field)?;
        }
    }
    Ok(found)
}
