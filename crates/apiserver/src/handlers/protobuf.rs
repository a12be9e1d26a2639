//! Answers in Kubernetes' protobuf form: objects, lists in pieces, the frames of a watch, and any other document.
//!
//! The transcoder of `xebec_api::protobuf` does the encoding; each stored object keeps its message, so that lists and
//! watches copy bytes. What is shown in another form than the stored one is encoded for the request.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};
use xebec_api::object::Object;
use xebec_api::protobuf::{self, Revised, put_tag, put_varint, varint_len};
use xebec_api::schema::{Type, table};
use xebec_api::status::StatusError;

use super::page::Page;
use super::render::{PIECE, Renderer};
use crate::cache::Change;
use crate::negotiation::Shown;

pub const WATCH: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta<'a> {
    #[serde(default, borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    api_version: Cow<'a, str>,
}

/// A JSON document that names its kind, in its envelope.
pub fn document(json: &[u8]) -> Result<Vec<u8>, StatusError> {
    let TypeMeta { kind, api_version } = serde_json::from_slice(json).map_err(StatusError::internal)?;
    let ty = type_of(&api_version, &kind).ok_or_else(|| no_form(&kind))?;
    let message = protobuf::encode(ty, json).map_err(|error| internal(&error))?;
    Ok(protobuf::wrap(&api_version, &kind, &message))
}

/// The JSON of an enveloped document, for records of what was answered.
pub fn as_json(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = protobuf::unwrap(bytes).ok()?;
    let ty = type_of(envelope.api_version, envelope.kind)?;
    protobuf::decode(ty, envelope.message, envelope.api_version, envelope.kind).ok()
}

fn type_of(api_version: &str, kind: &str) -> Option<&'static Type> {
    // The oldest discovery documents do not name their version.
    let version = if api_version.is_empty() { "v1" } else { api_version };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    // Partial objects look alike in both versions; the table has one.
    table().type_of(group, if group == "meta.k8s.io" { "v1" } else { version }, kind)
}

fn no_form(kind: &str) -> StatusError {
    let text = format!(
        "object {kind} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    );
    StatusError::not_acceptable(text)
}

fn internal(error: &protobuf::EncodeError) -> StatusError {
    StatusError::internal(format!("{error}: {}", error.source))
}

fn meta_type(name: &str) -> Result<&'static Type, StatusError> {
    table().type_named(META, name).ok_or_else(|| no_form(name))
}

/// An object's message in the form asked for.
enum Message {
    /// Kept by the object.
    Stored(Arc<Object>),
    Made(Vec<u8>),
}

/// What the renderer's objects are in protobuf.
struct Form {
    api_version: String,
    kind: String,
    /// The type of stored objects, where they are shown as they are.
    stored: Option<&'static Type>,
}

impl Form {
    fn of(renderer: &Renderer) -> Result<Self, StatusError> {
        let resource = renderer.served.resource();
        match renderer.shown {
            Shown::Objects => {
                let ty = renderer.served.schema.ok_or_else(|| no_form(&resource.kind))?;
                Ok(Form {
                    api_version: resource.api_version(),
                    kind: resource.kind.to_string(),
                    stored: renderer.served.row.conversion.is_none().then_some(ty),
                })
            }
            Shown::Metadata(version) | Shown::MetadataList(version) => Ok(Form {
                api_version: format!("meta.k8s.io/{version}"),
                kind: "PartialObjectMetadata".to_owned(),
                stored: None,
            }),
            Shown::Table(_) => Err(no_form("Table")),
        }
    }

    /// Hands the object's message to `with`.
    fn with<T>(
        &self,
        renderer: &Renderer,
        object: &Object,
        with: impl FnOnce(Revised<'_>) -> T,
    ) -> Result<T, StatusError> {
        if let Some(ty) = self.stored {
            return Ok(with(object.protobuf(ty).map_err(|error| internal(&error))?));
        }
        Ok(with(Revised::plain(&self.made(renderer, object)?)))
    }

    fn made(&self, renderer: &Renderer, object: &Object) -> Result<Vec<u8>, StatusError> {
        let mut out = Vec::new();
        if renderer.shown == Shown::Objects {
            let mut json = Vec::new();
            renderer.write_full(object, &mut json);
            let ty = renderer.served.schema.ok_or_else(|| no_form(&self.kind))?;
            protobuf::encode_to(ty, &json, &mut out).map_err(|error| internal(&error))?;
        } else {
            let message = protobuf::encode(meta_type("PartialObjectMetadata")?, object.raw());
            object.revised(&message.map_err(|error| internal(&error))?).write(&mut out);
        }
        Ok(out)
    }

    fn message(&self, renderer: &Renderer, object: Arc<Object>) -> Result<(Message, usize), StatusError> {
        if let Some(ty) = self.stored {
            let length = object.protobuf(ty).map_err(|error| internal(&error))?.len();
            return Ok((Message::Stored(object), length));
        }
        let made = self.made(renderer, &object)?;
        let length = made.len();
        Ok((Message::Made(made), length))
    }
}

/// One object as the answer to a request about it.
pub fn object(renderer: &Renderer, object: &Object) -> Result<Vec<u8>, StatusError> {
    let form = Form::of(renderer)?;
    form.with(renderer, object, |message| {
        let mut out = Vec::with_capacity(message.len() + 64);
        protobuf::open_envelope(&form.api_version, &form.kind, message.len(), &mut out);
        message.write(&mut out);
        protobuf::close_envelope(&mut out);
        out
    })
}

/// The bytes of a list, one piece after the other.
pub struct Pieces {
    head: Vec<u8>,
    form: Form,
    items: std::vec::IntoIter<(Message, usize)>,
    ended: bool,
}

/// `items` in a list of the type that number 2 of all lists holds.
const ITEMS: u16 = 2;

pub fn page(renderer: &Renderer, page: Page) -> Result<Pieces, StatusError> {
    let mut meta = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(token) = &page.continue_token {
        meta["continue"] = Value::from(token.as_str());
    }
    if let Some(remaining) = page.remaining {
        meta["remainingItemCount"] = Value::from(remaining);
    }
    let objects = page.items.iter().map(|item| item.object.clone());
    pieces(renderer, &meta, objects)
}

/// Objects as a list with this metadata. All of them are encoded before the first piece, because the length stands first.
pub fn pieces(
    renderer: &Renderer,
    meta: &Value,
    objects: impl Iterator<Item = Arc<Object>>,
) -> Result<Pieces, StatusError> {
    let form = Form::of(renderer)?;
    let items: Vec<(Message, usize)> =
        objects.map(|object| form.message(renderer, object)).collect::<Result<_, _>>()?;
    let meta = protobuf::encode(meta_type("ListMeta")?, meta.to_string().as_bytes());
    let meta = meta.map_err(|error| internal(&error))?;
    let field = |length: usize| 1 + varint_len(length) + length;
    let length = field(meta.len()) + items.iter().map(|(_, length)| field(*length)).sum::<usize>();
    let mut head = Vec::new();
    protobuf::open_envelope(&form.api_version, &format!("{}List", form.kind), length, &mut head);
    put_tag(1, 2, &mut head);
    put_varint(meta.len() as u64, &mut head);
    head.extend_from_slice(&meta);
    Ok(Pieces { head, form, items: items.into_iter(), ended: false })
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = std::mem::take(&mut self.head);
        out.reserve(PIECE + PIECE / 8);
        while let Some((message, length)) = self.items.as_slice().first() {
            // An object larger than a piece makes a piece of its own.
            if !out.is_empty() && out.len() + length > PIECE {
                return Some(out.into());
            }
            put_tag(ITEMS, 2, &mut out);
            put_varint(*length as u64, &mut out);
            match message {
                // It has been encoded when the length was counted.
                Message::Stored(object) => {
                    if let Some(Ok(message)) = self.form.stored.map(|ty| object.protobuf(ty)) {
                        message.write(&mut out);
                    }
                }
                Message::Made(made) => out.extend_from_slice(made),
            }
            self.items.next();
        }
        protobuf::close_envelope(&mut out);
        self.ended = true;
        Some(out.into())
    }
}

/// Appends a change as a frame of a watch.
pub fn event(renderer: &Renderer, change: Change, object: &Object, out: &mut Vec<u8>) -> Result<(), StatusError> {
    let form = Form::of(renderer)?;
    form.with(renderer, object, |message| {
        open_frame(change.name(), protobuf::wrapped_len(&form.api_version, &form.kind, message.len()), out);
        protobuf::open_envelope(&form.api_version, &form.kind, message.len(), out);
        message.write(out);
        protobuf::close_envelope(out);
    })
}

/// Appends a JSON document as the object of a watch's event.
pub fn event_of(kind: &str, json: &[u8], out: &mut Vec<u8>) -> Result<(), StatusError> {
    let document = document(json)?;
    open_frame(kind, document.len(), out);
    out.extend_from_slice(&document);
    Ok(())
}

/// A frame is its length in four bytes and a `WatchEvent` without an envelope, in which the object, which follows, has one.
fn open_frame(kind: &str, length: usize, out: &mut Vec<u8>) {
    let object = 1 + varint_len(length) + length;
    let event = 1 + varint_len(kind.len()) + kind.len() + 1 + varint_len(object) + object;
    // An object is limited to a few megabytes, so its frame fits.
    out.extend_from_slice(&(event as u32).to_be_bytes());
    put_tag(1, 2, out);
    put_varint(kind.len() as u64, out);
    out.extend_from_slice(kind.as_bytes());
    put_tag(2, 2, out);
    put_varint(object as u64, out);
    put_tag(1, 2, out);
    put_varint(length as u64, out);
}
