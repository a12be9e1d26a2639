//! Objects in the form a client asked for: themselves, rows of a Table, or their metadata alone.
//!
//! Objects in their stored form are copied from bytes that are encoded already; everything else is built for the request.
//! Here they are JSON; `protobuf` writes the same forms in the other encoding.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xebec_api::object::Object;
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use super::page::Page;
use super::protobuf;
use crate::body::{self, Body};
use crate::cache::{Change, Item, Seen};
use crate::negotiation::{self, Encoding, Shown};
use crate::registry::Served;

/// How much of an object a Table's row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowObject {
    None,
    Metadata,
    Object,
}

impl RowObject {
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        match text {
            "" | "Metadata" => Ok(RowObject::Metadata),
            "None" => Ok(RowObject::None),
            "Object" => Ok(RowObject::Object),
            other => Err(StatusError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// Writes objects of one resource in one form.
pub struct Renderer {
    pub served: Arc<Served>,
    pub shown: Shown,
    pub row_object: RowObject,
    pub now: jiff::Timestamp,
}

const TYPICAL_OBJECT: usize = 2048;
const LIST_TAIL: &[u8] = b"]}\n";

/// A list is written in pieces of this size, each when the connection has room for it: a list of many megabytes then needs no
/// memory of its own, and the allocator hands the same few pages out again.
pub(super) const PIECE: usize = 96 << 10;

/// The bytes of a list, one piece after the other.
pub struct Pieces {
    head: Option<String>,
    renderer: Renderer,
    items: Vec<Arc<Item>>,
    next: usize,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.next > self.items.len() {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE + PIECE / 8);
        out.extend_from_slice(self.head.take().unwrap_or_default().as_bytes());
        while let Some(item) = self.items.get(self.next) {
            // An object larger than a piece makes a piece of its own.
            if !out.is_empty() && out.len() + item.object.raw().len() > PIECE {
                return Some(out.into());
            }
            if self.next > 0 {
                out.push(b',');
            }
            self.renderer.write_item(&item.object, &mut out);
            self.next += 1;
        }
        out.extend_from_slice(LIST_TAIL);
        self.next += 1;
        Some(out.into())
    }
}

impl Renderer {
    /// One object as the answer to a request about it.
    pub fn object(&self, object: &Object) -> Vec<u8> {
        let mut out = Vec::with_capacity(object.raw().len() + 192);
        match self.shown {
            Shown::Objects => self.write_full(object, &mut out),
            Shown::Metadata(version) | Shown::MetadataList(version) => write_metadata(object, version, &mut out),
            Shown::Table(version) => {
                let meta = json!({ "resourceVersion": object.revision().to_string() });
                self.write_table(version, &meta, true, object, &mut out);
            }
        }
        out.push(b'\n');
        out
    }

    pub fn page(self, page: Page) -> Pieces {
        let mut meta = json!({ "resourceVersion": page.revision.to_string() });
        if let Some(token) = &page.continue_token {
            meta["continue"] = Value::from(token.as_str());
        }
        if let Some(remaining) = page.remaining {
            meta["remainingItemCount"] = Value::from(remaining);
        }
        Pieces { head: Some(self.list_head(&meta)), renderer: self, items: page.items, next: 0 }
    }

    /// Objects as a list that is no part of a collection.
    pub fn objects(&self, objects: &[Arc<Object>], revision: u64) -> Vec<u8> {
        let meta = json!({ "resourceVersion": revision.to_string() });
        let mut out = Vec::with_capacity(objects.len() * TYPICAL_OBJECT + 256);
        out.extend_from_slice(self.list_head(&meta).as_bytes());
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_item(object, &mut out);
        }
        out.extend_from_slice(LIST_TAIL);
        out
    }

    /// What comes before the first item of a list.
    fn list_head(&self, meta: &Value) -> String {
        let resource = self.served.resource();
        match self.shown {
            Shown::Table(version) => self.table_head(version, meta, true),
            Shown::Metadata(version) | Shown::MetadataList(version) => format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{meta},\"items\":["
            ),
            Shown::Objects => format!(
                "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
                resource.kind,
                resource.api_version()
            ),
        }
    }

    fn write_item(&self, object: &Object, out: &mut Vec<u8>) {
        match self.shown {
            Shown::Table(version) => self.write_row(version, object, out),
            Shown::Metadata(version) | Shown::MetadataList(version) => write_metadata(object, version, out),
            Shown::Objects if self.served.row.conversion.is_none() => object.write_item(out),
            Shown::Objects => self.write_full(object, out),
        }
    }

    /// One line of a watch. `first` says whether a Table shows its columns.
    pub fn seen(&self, seen: &Seen, first: bool, out: &mut Vec<u8>) {
        if self.shown == Shown::Objects && self.served.row.conversion.is_none() {
            let form = self.served.line_form();
            seen.write(form, &self.served.cache.resource, out);
            return;
        }
        self.event(seen.change, &seen.object, first, out);
    }

    pub fn event(&self, change: Change, object: &Object, first: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(change.name().as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match self.shown {
            Shown::Objects => self.write_full(object, out),
            Shown::Metadata(version) | Shown::MetadataList(version) => write_metadata(object, version, out),
            Shown::Table(version) => {
                let meta = json!({ "resourceVersion": object.revision().to_string() });
                self.write_table(version, &meta, first, object, out);
            }
        }
        out.extend_from_slice(b"}\n");
    }

    /// The line of a bookmark.
    pub fn bookmark(&self, revision: u64, initial_end: bool, out: &mut Vec<u8>) {
        let line = json!({ "type": "BOOKMARK", "object": self.bookmarked(revision, initial_end) });
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
    }

    /// The object of a bookmark, which says nothing but the revision.
    pub fn bookmarked(&self, revision: u64, initial_end: bool) -> Value {
        let mut meta = json!({ "resourceVersion": revision.to_string() });
        if initial_end {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let resource = self.served.resource();
        match self.shown {
            Shown::Objects => json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta }),
            Shown::Metadata(version) | Shown::MetadataList(version) => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta })
            }
            Shown::Table(version) => {
                let api_version = format!("meta.k8s.io/{version}");
                let partial = json!({ "kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": meta });
                let row = json!({ "cells": self.empty_cells(), "object": partial });
                let list_meta = json!({ "resourceVersion": revision.to_string() });
                json!({
                    "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": list_meta,
                    "columnDefinitions": null, "rows": [row]
                })
            }
        }
    }

    /// The cells of an object that says nothing.
    fn empty_cells(&self) -> Vec<Value> {
        let nothing = Object::from_store(bytes::Bytes::from_static(b"{\"metadata\":{}}"), 0);
        let cells = nothing.and_then(|nothing| self.served.strategy.cells(&nothing, self.now));
        cells.unwrap_or_default()
    }

    pub(super) fn write_full(&self, object: &Object, out: &mut Vec<u8>) {
        let resource = self.served.resource();
        let Some(conversion) = self.served.row.conversion else {
            return object.write_full(resource, out);
        };
        let Ok(tree) = object.value() else { return object.write_full(resource, out) };
        let converted = with_type((conversion.from_stored)(tree), resource);
        let _ = serde_json::to_writer(out, &converted);
    }

    /// A Table of one object.
    fn write_table(&self, version: &str, meta: &Value, columns: bool, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(self.table_head(version, meta, columns).as_bytes());
        self.write_row(version, object, out);
        out.extend_from_slice(b"]}");
    }

    fn table_head(&self, version: &str, meta: &Value, columns: bool) -> String {
        let definitions = if columns { self.columns() } else { Value::Null };
        format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{meta},\"columnDefinitions\":{definitions},\"rows\":["
        )
    }

    fn write_row(&self, version: &str, object: &Object, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"cells\":");
        let cells = self.served.strategy.cells(object, self.now).unwrap_or_default();
        let _ = serde_json::to_writer(&mut *out, &cells);
        match self.row_object {
            RowObject::None => out.extend_from_slice(b",\"object\":null"),
            RowObject::Metadata => {
                out.extend_from_slice(b",\"object\":");
                write_metadata(object, version, out);
            }
            RowObject::Object => {
                out.extend_from_slice(b",\"object\":");
                self.write_full(object, out);
            }
        }
        out.push(b'}');
    }

    fn columns(&self) -> Value {
        let definition = |column: &crate::registry::strategy::Column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority
            })
        };
        self.served.strategy.columns().iter().map(definition).collect()
    }
}

/// A document, given as JSON, in an encoding. For protobuf it must name its kind.
pub fn document(json: &[u8], encoding: Encoding) -> Result<Vec<u8>, StatusError> {
    match encoding {
        Encoding::Json => Ok(json.to_vec()),
        Encoding::Protobuf => protobuf::document(json),
        Encoding::Yaml => {
            let mut tree: Value = serde_json::from_slice(json).map_err(StatusError::internal)?;
            // As upstream writes YAML.
            tree.sort_all_objects();
            serde_saphyr::to_string(&tree).map(String::into_bytes).map_err(StatusError::internal)
        }
    }
}

/// The JSON of a document that goes out, for records of it.
pub fn as_json<'b>(content_type: Option<&HeaderValue>, bytes: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    let starts = |encoding: Encoding| {
        content_type.is_some_and(|value| value.as_bytes().starts_with(encoding.media_type().as_bytes()))
    };
    if starts(Encoding::Json) {
        return Some(Cow::Borrowed(bytes));
    }
    if starts(Encoding::Protobuf) { protobuf::as_json(bytes).map(Cow::Owned) } else { None }
}

/// A response that tells of an error, in the encoding that the client likes best. Where there is none it stays JSON.
pub fn status_as_accepted(headers: &HeaderMap, response: Response<Body>) -> Response<Body> {
    let failed = response.extensions().get::<body::Failed>().is_some();
    let encoding = if failed { negotiation::plain(headers).unwrap_or(Encoding::Json) } else { Encoding::Json };
    if encoding == Encoding::Json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = match body {
        Body::Whole(Some(json)) => match document(&json, encoding) {
            Ok(bytes) => {
                parts.headers.insert(CONTENT_TYPE, encoding.content_type());
                body::full(bytes)
            }
            Err(_) => body::full(json),
        },
        other => other,
    };
    Response::from_parts(parts, body)
}

/// A tree with its type in front.
pub fn with_type(tree: Value, resource: &ResourceType) -> Value {
    let mut map = serde_json::Map::new();
    map.insert("kind".to_owned(), Value::from(&*resource.kind));
    map.insert("apiVersion".to_owned(), Value::from(resource.api_version()));
    if let Value::Object(fields) = tree {
        map.extend(fields.into_iter().filter(|(key, _)| key != "kind" && key != "apiVersion"));
    }
    Value::Object(map)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn write_metadata(object: &Object, version: &str, out: &mut Vec<u8>) {
    use std::io::Write;
    let _ = write!(out, "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":");
    let metadata =
        serde_json::from_slice::<Envelope<'_>>(object.raw()).map_or("{}", |envelope| envelope.metadata.get());
    if object.revision() == 0 {
        // The answer to a dry run: it has no revision.
        out.extend_from_slice(metadata.as_bytes());
        out.push(b'}');
        return;
    }
    let inner = metadata.strip_prefix('{').unwrap_or("}");
    let comma = if inner.trim_start().starts_with('}') { "" } else { "," };
    let _ = write!(out, "{{\"resourceVersion\":\"{}\"{comma}{inner}}}", object.revision());
}
