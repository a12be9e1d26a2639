//! JSON text into a message, in one pass over the text and without a tree between.
//!
//! The fields of an object are encoded in the order of the text, each remembered as a piece of the output; when the object
//! ends, the pieces are put into the order of the field numbers, and what upstream writes although it was not set is added.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::raw::put_compact;
use super::wire::{put_tag, put_varint, varint_len};
use crate::quantity::Quantity;
use crate::schema::{Alternative, Member, Shape, Type, instant, json_schema};

pub(super) fn object(ty: &'static Type, json: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let mut encoder = Encoder { out: std::mem::take(out), pieces: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let message = Message { encoder: &mut encoder, ty };
    let result = deserializer.deserialize_map(message).and_then(|()| deserializer.end());
    *out = encoder.out;
    result
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

/// The encoding of one field or of one entry of a map: a range of the output.
struct Piece {
    /// Position of the field in its type; of an entry, where its key begins in the output.
    id: u32,
    /// Where an entry's key ends.
    key_end: u32,
    start: u32,
    end: u32,
}

struct Encoder {
    out: Vec<u8>,
    /// The pieces of all objects that are open; each object knows where its own begin.
    pieces: Vec<Piece>,
}

impl Encoder {
    fn varint(&mut self, number: u16, value: u64) {
        put_tag(number, VARINT, &mut self.out);
        put_varint(value, &mut self.out);
    }

    fn bytes(&mut self, number: u16, bytes: &[u8]) {
        put_tag(number, BYTES, &mut self.out);
        put_varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    fn double(&mut self, number: u16, value: f64) {
        put_tag(number, FIXED64, &mut self.out);
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// A message of which the length is known only when it has been written.
    fn nested<T>(&mut self, number: u16, write: impl FnOnce(&mut Self) -> T) -> T {
        put_tag(number, BYTES, &mut self.out);
        let at = self.out.len();
        self.out.push(0);
        let result = write(self);
        let length = self.out.len() - at - 1;
        let width = varint_len(length);
        if width > 1 {
            let end = self.out.len();
            self.out.resize(end + width - 1, 0);
            self.out.copy_within(at + 1..end, at + width);
        }
        let mut rest = length;
        for byte in &mut self.out[at..at + width] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.out[at + width - 1] &= 0x7f;
        result
    }

    fn int_or_string(&mut self, number: u16, value: Result<i64, &str>) {
        self.nested(number, |encoder| {
            encoder.varint(1, u64::from(value.is_err()));
            encoder.varint(2, value.unwrap_or_default() as u64);
            encoder.bytes(3, value.err().unwrap_or_default().as_bytes());
        });
    }

    fn quantity(&mut self, number: u16, text: &str) {
        // What the server stores is canonical already; what its own components made may not be.
        let canonical: Cow<'_, str> = match text.parse::<Quantity>() {
            Ok(quantity) => quantity.to_string().into(),
            Err(_) => text.into(),
        };
        self.nested(number, |encoder| encoder.bytes(1, canonical.as_bytes()));
    }

    /// The zero time is the empty message.
    fn time(&mut self, number: u16, text: &str, micro: bool) -> Result<(), String> {
        let at = instant(text)?;
        self.nested(number, |encoder| {
            if let Some((seconds, nanos)) = at {
                encoder.varint(1, seconds as u64);
                encoder.varint(2, if micro { u64::from(nanos) / 1000 * 1000 } else { 0 });
            }
        });
        Ok(())
    }

    /// The text of a JSON value in a message of its own.
    fn raw(&mut self, number: u16, json: &str) {
        self.nested(number, |encoder| {
            if json != "null" {
                encoder.nested(1, |encoder| put_compact(json.as_bytes(), &mut encoder.out));
            }
        });
    }

    /// What upstream writes for a value that was never set, where it writes one.
    fn zero(&mut self, number: u16, shape: Shape) {
        match shape {
            Shape::String => self.bytes(number, &[]),
            Shape::Bool | Shape::Int32 | Shape::Int64 => self.varint(number, 0),
            Shape::Double => self.double(number, 0.0),
            Shape::IntOrString => self.int_or_string(number, Ok(0)),
            Shape::Quantity => self.quantity(number, "0"),
            Shape::Time | Shape::MicroTime | Shape::RawExtension | Shape::FieldsV1 | Shape::Json => {
                self.bytes(number, &[]);
            }
            Shape::SchemaOr(Alternative::Bool) => self.nested(number, |encoder| encoder.varint(1, 0)),
            Shape::SchemaOr(_) => self.bytes(number, &[]),
            Shape::Object(ty) => {
                let own = self.pieces.len();
                self.nested(number, |encoder| encoder.members(ty.get(), 0, own));
            }
            Shape::Bytes | Shape::List(_) | Shape::WrappedList(_) | Shape::Map(_) => {}
        }
    }

    /// Puts the pieces from `own` on into order, as the whole of what was written since `start`.
    fn arrange(&mut self, start: usize, own: usize, append: impl FnOnce(&mut Self)) {
        let end = self.out.len();
        append(self);
        let length = self.out.len() - end;
        self.out.copy_within(end.., start);
        self.out.truncate(start + length);
        self.pieces.truncate(own);
    }

    /// Appends the members of `ty` by their numbers. `first` is where its fields begin among those of the type that embeds it.
    fn members(&mut self, ty: &'static Type, first: u16, own: usize) {
        for at in &ty.numbered {
            match ty.members[usize::from(*at)] {
                Member::Field(index) => {
                    let field = &ty.fields[usize::from(index)];
                    let id = u32::from(first + index);
                    let found = self.pieces[own..].iter().rev().find(|piece| piece.id == id);
                    match found.filter(|piece| piece.start < piece.end) {
                        Some(piece) => self.out.extend_from_within(piece.start as usize..piece.end as usize),
                        None if field.pointer => {}
                        None => self.zero(field.number, field.shape),
                    }
                }
                Member::Embedded(embedded) => self.nested(embedded.number, |encoder| {
                    encoder.members(embedded.ty.get(), first + embedded.first, own);
                }),
            }
        }
    }

    /// Puts the entries of a map into the order of their keys; of the same key the last one stays.
    fn sort_entries(&mut self, start: usize, own: usize) {
        let Encoder { out, pieces } = self;
        let key = |piece: &Piece| &out[piece.id as usize..piece.key_end as usize];
        if pieces[own..].is_sorted_by(|a, b| key(a) < key(b)) {
            pieces.truncate(own);
            return;
        }
        pieces[own..].sort_by(|a, b| key(a).cmp(key(b)));
        self.arrange(start, own, |encoder| {
            for at in own..encoder.pieces.len() {
                let Encoder { out, pieces } = &mut *encoder;
                let key = |piece: &Piece| &out[piece.id as usize..piece.key_end as usize];
                if pieces.get(at + 1).is_some_and(|next| key(next) == key(&pieces[at])) {
                    continue;
                }
                out.extend_from_within(pieces[at].start as usize..pieces[at].end as usize);
            }
        });
    }
}

/// A whole object.
struct Message<'e> {
    encoder: &'e mut Encoder,
    ty: &'static Type,
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of type {}", self.ty.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Message { encoder, ty } = self;
        let (start, own) = (encoder.out.len(), encoder.pieces.len());
        while let Some(position) = access.next_key_seed(FieldName(ty))? {
            let Some(position) = position else {
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = &ty.fields[position];
            let from = encoder.out.len();
            let value = Value { encoder: &mut *encoder, number: field.number, shape: field.shape, element: false };
            access.next_value_seed(value)?;
            let (start, end) = (from as u32, encoder.out.len() as u32);
            encoder.pieces.push(Piece { id: position as u32, key_end: 0, start, end });
        }
        encoder.arrange(start, own, |encoder| encoder.members(ty, 0, own));
        Ok(())
    }
}

/// The position of a field by its name, `None` for one that the type does not have.
struct FieldName(&'static Type);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.position(name))
    }
}

/// A value that is written with its number, as often as it has elements.
struct Value<'e> {
    encoder: &'e mut Encoder,
    number: u16,
    shape: Shape,
    /// An element of a list or a map is written also when it is `null`.
    element: bool,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.shape {
            Shape::RawExtension | Shape::FieldsV1 | Shape::Json => {
                let raw = <&RawValue>::deserialize(deserializer)?;
                // A pointer that is null is not there; a value that is null is written without its text, as one never set.
                if raw.get() != "null" || self.element {
                    self.encoder.raw(self.number, raw.get());
                }
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", self.shape.go_name())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        if self.element {
            match self.shape {
                Shape::Bytes => self.encoder.bytes(self.number, &[]),
                shape => self.encoder.zero(self.number, shape),
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.shape {
            Shape::Bool => self.encoder.varint(self.number, u64::from(value)),
            Shape::SchemaOr(Alternative::Bool) => {
                self.encoder.nested(self.number, |encoder| encoder.varint(1, u64::from(value)));
            }
            shape => return Err(wrong(Unexpected::Bool(value), shape)),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.shape {
            // Negative numbers are written as their two's complement in 64 bits.
            Shape::Int32 | Shape::Int64 => self.encoder.varint(self.number, value as u64),
            Shape::Double => self.encoder.double(self.number, value as f64),
            Shape::IntOrString => self.encoder.int_or_string(self.number, Ok(value)),
            Shape::Quantity => self.encoder.quantity(self.number, &value.to_string()),
            shape => return Err(wrong(Unexpected::Signed(value), shape)),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.shape {
            Shape::Double => self.encoder.double(self.number, value),
            Shape::Quantity => self.encoder.quantity(self.number, &value.to_string()),
            shape => return Err(wrong(Unexpected::Float(value), shape)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let Value { encoder, number, shape, .. } = self;
        match shape {
            Shape::String => encoder.bytes(number, text.as_bytes()),
            Shape::Bytes => encoder.bytes(number, &STANDARD.decode(text).map_err(E::custom)?),
            Shape::IntOrString => encoder.int_or_string(number, Err(text)),
            Shape::Quantity => encoder.quantity(number, text),
            Shape::Time => encoder.time(number, text, false).map_err(E::custom)?,
            Shape::MicroTime => encoder.time(number, text, true).map_err(E::custom)?,
            shape => return Err(wrong(Unexpected::Str(text), shape)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Value { encoder, number, shape, .. } = self;
        let mut elements = |encoder: &mut Encoder, number: u16, shape: Shape| -> Result<(), A::Error> {
            while let Some(()) =
                access.next_element_seed(Value { encoder: &mut *encoder, number, shape, element: true })?
            {}
            Ok(())
        };
        match shape {
            Shape::List(element) => elements(encoder, number, element.get()),
            Shape::WrappedList(element) => encoder.nested(number, |encoder| elements(encoder, 1, element.get())),
            Shape::SchemaOr(Alternative::Array) => {
                encoder.nested(number, |encoder| elements(encoder, 2, Shape::Object(json_schema().id)))
            }
            Shape::SchemaOr(Alternative::Strings) => {
                encoder.nested(number, |encoder| elements(encoder, 2, Shape::String))
            }
            shape => Err(wrong(Unexpected::Seq, shape)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Value { encoder, number, shape, .. } = self;
        match shape {
            Shape::Object(ty) => encoder.nested(number, |encoder| Message { encoder, ty: ty.get() }.visit_map(access)),
            Shape::Map(element) => {
                let (start, own) = (encoder.out.len(), encoder.pieces.len());
                let mut key = String::new();
                while let Some(()) = access.next_key_seed(Key(&mut key))? {
                    let from = encoder.out.len();
                    let mut length = 0;
                    encoder.nested(number, |encoder| {
                        let begin = encoder.out.len();
                        encoder.bytes(1, key.as_bytes());
                        let shape = element.get();
                        access.next_value_seed(Value { encoder: &mut *encoder, number: 2, shape, element: true })?;
                        length = encoder.out.len() - begin;
                        Ok(())
                    })?;
                    let end = encoder.out.len();
                    let key_at = end - length + 1 + varint_len(key.len());
                    let (id, key_end) = (key_at as u32, (key_at + key.len()) as u32);
                    encoder.pieces.push(Piece { id, key_end, start: from as u32, end: end as u32 });
                }
                encoder.sort_entries(start, own);
                Ok(())
            }
            Shape::SchemaOr(alternative) => encoder.nested(number, |encoder| {
                let number = if alternative == Alternative::Bool {
                    encoder.varint(1, 1);
                    2
                } else {
                    1
                };
                encoder.nested(number, |encoder| Message { encoder, ty: json_schema() }.visit_map(access))
            }),
            shape => Err(wrong(Unexpected::Map, shape)),
        }
    }
}

fn wrong<E: Error>(found: Unexpected<'_>, shape: Shape) -> E {
    E::invalid_type(found, &&*shape.go_name())
}

/// Reads a key into a string that is used again.
struct Key<'k>(&'k mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(())
    }
}
