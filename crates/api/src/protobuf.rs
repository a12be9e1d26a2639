//! Kubernetes' protobuf form of objects, transcoded from and to JSON by the schema table: no second set of types.
//!
//! [`encode`] and [`decode`] turn an object's JSON into its message and back, byte for byte as upstream's generated code
//! writes them: fields by ascending number, fields that are no pointer also when they are zero, maps sorted by key. [`wrap`]
//! and [`unwrap`] put the message into the envelope that names its type; that is the form on the wire and in etcd.
//! [`Revised`] writes a message with its `resourceVersion`, which stored ones lack, so that one encoding serves all.
//! It relies on JSON that [`crate::schema::decode_json`] has checked; whether an object makes sense is not its business.
//! Source: the API concepts, "Kubernetes Protobuf encoding"; the field numbers are those of the `generated.proto` files.

mod decode;
mod encode;
mod raw;
mod revised;
mod wire;

use crate::schema::Type;
pub use revised::Revised;
use wire::{Reader, Wire};
pub use wire::{put_tag, put_varint, varint_len};

/// What an enveloped message begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// Why JSON has no protobuf form: it is not JSON, or not of the type.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a {kind} as protobuf")]
pub struct EncodeError {
    pub kind: &'static str,
    #[source]
    pub source: serde_json::Error,
}

/// Why bytes are no message of the type. Where upstream's decoder says the same, it says it in these words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    #[error("proto: wrong wireType = {found} for field {field}")]
    WireType { found: u8, field: &'static str },
    #[error("proto: field {0} is not valid UTF-8")]
    Text(&'static str),
    #[error("proto: field {0} holds no JSON")]
    Raw(&'static str),
    #[error("proto: field {0} holds a time that cannot be written")]
    Time(&'static str),
    #[error("proto: the message is nested too deeply")]
    Depth,
}

/// Appends the message of `json`, an object of type `ty`. `kind` and `apiVersion` have no place in it: see [`wrap`].
pub fn encode_to(ty: &'static Type, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode::object(ty, json, out).map_err(|source| EncodeError { kind: ty.name, source })
}

/// The message of `json`, an object of type `ty`.
pub fn encode(ty: &'static Type, json: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(json.len());
    encode_to(ty, json, &mut out)?;
    Ok(out)
}

/// The JSON of a message, in upstream's form and order of fields. `kind` and `apiVersion` come first where they are not
/// empty; the store's form has neither.
pub fn decode(ty: &'static Type, message: &[u8], api_version: &str, kind: &str) -> Result<Vec<u8>, DecodeError> {
    decode::object(ty, message, api_version, kind)
}

/// A message with what the envelope says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub message: &'a [u8],
    /// Empty: neither compressed nor otherwise encoded.
    pub content_encoding: &'a str,
    /// Empty: protobuf.
    pub content_type: &'a str,
}

/// The enveloped form of a message.
pub fn wrap(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(wrapped_len(api_version, kind, message.len()));
    open_envelope(api_version, kind, message.len(), &mut out);
    out.extend_from_slice(message);
    close_envelope(&mut out);
    out
}

/// Appends what precedes a message of `length` bytes, so that it can follow in pieces.
pub fn open_envelope(api_version: &str, kind: &str, length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    put_tag(1, 2, out);
    put_varint(type_meta_len(api_version, kind) as u64, out);
    for (number, text) in [(1, api_version), (2, kind)] {
        put_tag(number, 2, out);
        put_varint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
    put_tag(2, 2, out);
    put_varint(length as u64, out);
}

/// Appends what follows the message: an empty encoding and an empty content type.
pub fn close_envelope(out: &mut Vec<u8>) {
    out.extend_from_slice(ENVELOPE_END);
}

const ENVELOPE_END: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

fn type_meta_len(api_version: &str, kind: &str) -> usize {
    [api_version, kind].iter().map(|text| 1 + varint_len(text.len()) + text.len()).sum()
}

/// The length of the enveloped form of a message of `length` bytes.
pub fn wrapped_len(api_version: &str, kind: &str, length: usize) -> usize {
    let meta = type_meta_len(api_version, kind);
    MAGIC.len() + 1 + varint_len(meta) + meta + 1 + varint_len(length) + length + ENVELOPE_END.len()
}

/// Reads an envelope.
pub fn unwrap(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
    let mut envelope = Envelope::default();
    for entry in Reader(unknown) {
        match entry? {
            (1, Wire::Bytes(meta)) => {
                for entry in Reader(meta) {
                    match entry? {
                        (1, Wire::Bytes(text)) => envelope.api_version = wire::utf8(text, "apiVersion")?,
                        (2, Wire::Bytes(text)) => envelope.kind = wire::utf8(text, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => envelope.message = message,
            (3, Wire::Bytes(text)) => envelope.content_encoding = wire::utf8(text, "contentEncoding")?,
            (4, Wire::Bytes(text)) => envelope.content_type = wire::utf8(text, "contentType")?,
            _ => {}
        }
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests;
