//! The one in-memory form of an object: its bytes as the store holds them, the few parsed fields that selection needs,
//! and the typed value, decoded at most once and shared.
//!
//! The stored bytes bear no `resourceVersion` (the store knows it as the revision) and no `apiVersion` or `kind` (the
//! resource knows them); both are spliced in while writing, so that cache, history and lists share one allocation.
//! The protobuf form is made of the same bytes when a client first asks for it.
//! An object read over HTTP has them in its bytes already. An `Object` is immutable; everything holds `Arc<Object>`.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::protobuf::{self, Revised};
use crate::resource::{Kind, ResourceType};
use crate::schema::Type;

/// Namespace and name. The namespace of a cluster-scoped object is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a typed object.
    pub fn of<K: Kind>(object: &K) -> Self {
        let meta = object.metadata();
        ObjectKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What selection, garbage collection and the registry ask of every object, parsed once.
#[derive(Clone, Debug)]
pub struct Meta {
    pub key: ObjectKey,
    pub uid: Box<str>,
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub generation: i64,
    /// `metadata.deletionTimestamp` is set: the object waits for its finalizers or its grace period.
    pub deleting: bool,
    pub finalizers: Box<[Box<str>]>,
    pub owners: Box<[Owner]>,
}

impl Meta {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    }

    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    #[serde(default)]
    pub controller: bool,
    #[serde(default)]
    pub block_owner_deletion: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}")]
pub struct DecodeError {
    pub what: String,
    #[source]
    pub source: serde_json::Error,
}

type Typed = Arc<dyn Any + Send + Sync>;

/// See the module's essay.
pub struct Object {
    raw: Bytes,
    /// Where `"resourceVersion":"N",` goes; `None` when the bytes came over the wire and have it.
    splice: Option<u32>,
    managed: Option<ManagedAt>,
    revision: u64,
    meta: Meta,
    typed: OnceLock<Typed>,
    message: OnceLock<Box<[u8]>>,
}

/// Where the bytes hold `metadata.managedFields`.
struct ManagedAt {
    /// The list itself.
    list: Range<usize>,
    /// With its name and a comma: without it the rest is the same object.
    field: Range<usize>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParsedMeta<'a> {
    #[serde(default, borrow)]
    managed_fields: Option<&'a RawValue>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<Box<str>>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
    #[serde(default)]
    finalizers: Option<Vec<Box<str>>>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

impl ParsedMeta<'_> {
    fn into_meta(self) -> Meta {
        Meta {
            key: ObjectKey::new(self.namespace.unwrap_or_default(), self.name.unwrap_or_default()),
            uid: self.uid.unwrap_or_default(),
            labels: self.labels.unwrap_or_default().into_iter().collect(),
            generation: self.generation.unwrap_or_default(),
            deleting: self.deletion_timestamp.is_some(),
            finalizers: self.finalizers.unwrap_or_default().into(),
            owners: self.owner_references.unwrap_or_default().into(),
        }
    }
}

impl Object {
    /// Reads bytes as the store holds them: without `resourceVersion`, `apiVersion` and `kind`.
    pub fn from_store(raw: Bytes, revision: u64) -> Result<Object, DecodeError> {
        let (parsed, metadata_at) = parse(&raw)?;
        let splice = Some(metadata_at as u32 + 1);
        let managed = ManagedAt::find(&raw, &parsed);
        let meta = parsed.into_meta();
        Ok(Object { raw, splice, managed, revision, meta, typed: OnceLock::new(), message: OnceLock::new() })
    }

    /// Reads bytes as an API server sends them. `resourceVersion` becomes the revision; one that is no number becomes 0.
    pub fn from_wire(raw: Bytes) -> Result<Object, DecodeError> {
        let (mut parsed, _) = parse(&raw)?;
        let revision = parsed.resource_version.take().and_then(|rv| rv.parse().ok()).unwrap_or(0);
        let managed = ManagedAt::find(&raw, &parsed);
        let meta = parsed.into_meta();
        Ok(Object { raw, splice: None, managed, revision, meta, typed: OnceLock::new(), message: OnceLock::new() })
    }

    /// An object of a typed value, as tests and local caches make it.
    pub fn from_typed<K: Kind>(value: K) -> Object {
        let raw = Bytes::from(serde_json::to_vec(&value).expect("API types encode to JSON"));
        let object = Object::from_wire(raw).expect("an encoded API type decodes");
        let _ = object.typed.set(Arc::new(value));
        object
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn key(&self) -> &ObjectKey {
        &self.meta.key
    }

    pub fn name(&self) -> &str {
        &self.meta.key.name
    }

    pub fn namespace(&self) -> &str {
        &self.meta.key.namespace
    }

    /// The store revision of the object's last change, which is its `resourceVersion`.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bytes as held, without what [`Object::write_item`] splices in.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The JSON text of `metadata.managedFields`.
    pub fn managed_fields(&self) -> Option<&str> {
        let list = self.managed.as_ref()?.list.clone();
        std::str::from_utf8(&self.raw[list]).ok()
    }

    /// The bytes without `metadata.managedFields`, which is about the fields and none of them.
    pub fn plain(&self) -> Cow<'_, [u8]> {
        match &self.managed {
            None => Cow::Borrowed(&self.raw),
            Some(at) => Cow::Owned([&self.raw[..at.field.start], &self.raw[at.field.end..]].concat()),
        }
    }

    /// Appends the object as an item of a list: with `resourceVersion`, without `kind` and `apiVersion`.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        self.write_from(0, out);
    }

    /// Appends the object with `kind` and `apiVersion`, as a GET or a watch event shows it.
    pub fn write_full(&self, resource: &ResourceType, out: &mut Vec<u8>) {
        if self.splice.is_none() {
            // The wire's bytes bear their own type where the server gave one.
            out.extend_from_slice(&self.raw);
            return;
        }
        out.extend_from_slice(b"{\"kind\":\"");
        out.extend_from_slice(resource.kind.as_bytes());
        out.extend_from_slice(b"\",\"apiVersion\":\"");
        if !resource.group.is_empty() {
            out.extend_from_slice(resource.group.as_bytes());
            out.push(b'/');
        }
        out.extend_from_slice(resource.version.as_bytes());
        out.extend_from_slice(b"\",");
        self.write_from(1, out);
    }

    fn write_from(&self, start: usize, out: &mut Vec<u8>) {
        use std::io::Write;
        let Some(splice) = self.splice else {
            out.extend_from_slice(&self.raw[start..]);
            return;
        };
        let splice = splice as usize;
        out.reserve(self.raw.len() + 48);
        out.extend_from_slice(&self.raw[start..splice]);
        let _ = write!(out, "\"resourceVersion\":\"{}\"", self.revision);
        if self.raw[splice] != b'}' {
            out.push(b',');
        }
        out.extend_from_slice(&self.raw[splice..]);
    }

    /// The object's protobuf message, encoded on first use and shared from then on. `ty` is the object's own type.
    pub fn protobuf(&self, ty: &'static Type) -> Result<Revised<'_>, protobuf::EncodeError> {
        let message = match self.message.get() {
            Some(message) => message,
            None => {
                let message = protobuf::encode(ty, &self.raw)?.into_boxed_slice();
                self.message.get_or_init(|| message)
            }
        };
        Ok(self.revised(message))
    }

    /// A message made of the object's bytes, as the wire shows it: with the revision that stored bytes lack.
    pub fn revised<'a>(&self, message: &'a [u8]) -> Revised<'a> {
        if self.splice.is_some() { Revised::new(message, self.revision) } else { Revised::plain(message) }
    }

    /// The object as a JSON tree with `resourceVersion`; `kind` and `apiVersion` only if the bytes have them.
    pub fn value(&self) -> Result<Value, DecodeError> {
        let mut value: Value = serde_json::from_slice(&self.raw).map_err(|e| self.decode_error(e))?;
        if self.splice.is_some() {
            value["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        }
        Ok(value)
    }

    /// The tree of [`Object::value`] without `metadata.managedFields`.
    pub fn plain_value(&self) -> Result<Value, DecodeError> {
        let mut value: Value = serde_json::from_slice(&self.plain()).map_err(|e| self.decode_error(e))?;
        if self.splice.is_some() {
            value["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        }
        Ok(value)
    }

    /// The object as its Rust type, decoded on first use and shared from then on. It has no `managed_fields`: whoever reads
    /// typed objects has no use for them, and they would double the cost.
    pub fn typed<K: Kind>(&self) -> Result<Arc<K>, DecodeError> {
        if let Some(shared) = self.typed.get() {
            if let Ok(typed) = shared.clone().downcast::<K>() {
                return Ok(typed);
            }
            return self.decode::<K>().map(Arc::new);
        }
        let typed = Arc::new(self.decode::<K>()?);
        let _ = self.typed.set(typed.clone());
        Ok(typed)
    }

    fn decode<K: Kind>(&self) -> Result<K, DecodeError> {
        let mut typed: K = serde_json::from_slice(&self.plain()).map_err(|e| self.decode_error(e))?;
        if self.splice.is_some() {
            typed.metadata_mut().resource_version = Some(self.revision.to_string());
        }
        Ok(typed)
    }

    fn decode_error(&self, source: serde_json::Error) -> DecodeError {
        DecodeError { what: self.meta.key.to_string(), source }
    }
}

impl ManagedAt {
    fn find(raw: &[u8], parsed: &ParsedMeta<'_>) -> Option<ManagedAt> {
        const NAME: &[u8] = b"\"managedFields\":";
        let text = parsed.managed_fields?.get();
        let start = text.as_ptr() as usize - raw.as_ptr() as usize;
        let list = start..start + text.len();
        let name = raw[..list.start].ends_with(NAME).then(|| list.start - NAME.len())?;
        let field = match (raw[name - 1], raw[list.end]) {
            (_, b',') => name..list.end + 1,
            (b',', _) => name - 1..list.end,
            _ => name..list.end,
        };
        Some(ManagedAt { list, field })
    }
}

/// The stored bytes of an object with the JSON text of its `metadata.managedFields`, in an allocation of exactly their size.
pub fn with_managed_fields(plain: Vec<u8>, managed: &str) -> Bytes {
    const FIRST: &[u8] = b"{\"metadata\":{";
    // Most kinds have it in front, where it need not be looked for.
    let at = if managed.is_empty() {
        None
    } else if plain.starts_with(FIRST) {
        Some(FIRST.len())
    } else {
        let envelope = serde_json::from_slice::<Envelope<'_>>(&plain).ok();
        envelope.map(|envelope| envelope.metadata.get().as_ptr() as usize - plain.as_ptr() as usize + 1)
    };
    let Some(at) = at else { return Bytes::from(plain.into_boxed_slice()) };
    let comma: &[u8] = if plain[at] == b'}' { b"" } else { b"," };
    let pieces = [&plain[..at], b"\"managedFields\":", managed.as_bytes(), comma, &plain[at..]];
    Bytes::from(pieces.concat().into_boxed_slice())
}

fn parse(raw: &Bytes) -> Result<(ParsedMeta<'_>, usize), DecodeError> {
    let error = |source| DecodeError { what: "object metadata".to_owned(), source };
    let envelope: Envelope<'_> = serde_json::from_slice(raw).map_err(error)?;
    let text = envelope.metadata.get();
    let at = text.as_ptr() as usize - raw.as_ptr() as usize;
    Ok((serde_json::from_str(text).map_err(error)?, at))
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}@{})", self.meta.key, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    const STORED: &str = r#"{"metadata":{"name":"a","namespace":"n","uid":"u","labels":{"x":"y"}},"data":{"k":"v"}}"#;

    #[test]
    fn the_revision_is_spliced_in() {
        let object = Object::from_store(Bytes::from_static(STORED.as_bytes()), 42).unwrap();
        let mut out = Vec::new();
        object.write_full(&ResourceType::of::<ConfigMap>(), &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["kind"], "ConfigMap");
        assert_eq!(value["apiVersion"], "v1");
        assert_eq!(value["metadata"]["resourceVersion"], "42");
        assert_eq!(value["data"]["k"], "v");
        assert_eq!(object.meta().label("x"), Some("y"));
    }

    #[test]
    fn the_typed_value_is_decoded_once() {
        let object = Object::from_store(Bytes::from_static(STORED.as_bytes()), 42).unwrap();
        let first = object.typed::<ConfigMap>().unwrap();
        let second = object.typed::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(first.metadata.resource_version.as_deref(), Some("42"));
    }

    #[test]
    fn managed_fields_are_beside_the_object() {
        let check = |raw: &'static str| {
            let object = Object::from_wire(Bytes::from_static(raw.as_bytes())).unwrap();
            assert_eq!(object.managed_fields(), Some("[{}]"), "{raw}");
            let plain = r#"{"metadata":{"name":"a"},"data":{}}"#;
            assert_eq!(object.plain(), plain.as_bytes(), "{raw}");
            assert_eq!(object.typed::<ConfigMap>().unwrap().metadata.managed_fields, None);
            let again = with_managed_fields(plain.as_bytes().to_vec(), "[{}]");
            assert_eq!(again, r#"{"metadata":{"managedFields":[{}],"name":"a"},"data":{}}"#);
        };
        check(r#"{"metadata":{"managedFields":[{}],"name":"a"},"data":{}}"#);
        check(r#"{"metadata":{"name":"a","managedFields":[{}]},"data":{}}"#);
        assert_eq!(with_managed_fields(STORED.into(), ""), STORED);
    }

    #[test]
    fn wire_bytes_keep_their_revision() {
        let raw = Bytes::from_static(
            br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7"}}"#,
        );
        let object = Object::from_wire(raw.clone()).unwrap();
        assert_eq!(object.revision(), 7);
        let mut out = Vec::new();
        object.write_item(&mut out);
        assert_eq!(out, raw);
    }
}
