//! The way to an API server: plain calls, streams and upgrades, and reading collections as shared objects.
//!
//! `list` and `watch` have bodies that work over any HTTP transport; the in-process one overrides them, so that nothing is
//! encoded or decoded on the way.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http::{Method, Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use xebec_api::object::Object;
use xebec_api::{ResourceType, StatusError};

use crate::error::Error;
use crate::options::{ListOptions, WatchOptions};

pub type Body = BoxStream<'static, Result<Bytes, Error>>;
pub type WatchStream = BoxStream<'static, Result<ObjectEvent, Error>>;

/// A connection that was upgraded to another protocol.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
    /// Nothing changed up to the object's revision.
    Bookmark,
}

#[derive(Clone, Debug)]
pub struct ObjectEvent {
    pub kind: EventKind,
    /// For a bookmark, an object that has nothing but its revision.
    pub object: Arc<Object>,
}

#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    pub items: Vec<Arc<Object>>,
    pub resource_version: String,
    pub continue_token: Option<String>,
}

/// The longest line of a watch: as long as the largest object that a server takes, and room for its wrapping.
const WATCH_LINE_LIMIT: usize = 16 << 20;

#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// A request whose answer is read whole. An answer of any code is `Ok`.
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error>;

    /// A request whose answer is read as it comes (logs, watches).
    async fn open(&self, request: Request<Bytes>) -> Result<Response<Body>, Error>;

    /// A request that becomes another protocol (exec, attach, port-forward). The request bears the upgrade headers.
    async fn upgrade(&self, request: Request<Bytes>) -> Result<(Response<()>, Box<dyn Io>), Error>;

    async fn list(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Error> {
        let path = with_query(resource.collection_path(namespace), options.query());
        let response = self.call(get(&path)).await?;
        decode_list(checked(response)?)
    }

    async fn watch(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<WatchStream, Error> {
        let path = with_query(resource.collection_path(namespace), options.query());
        let response = self.open(get(&path)).await?;
        if !response.status().is_success() {
            let body = collect(response.into_body()).await?;
            return Err(status_of(&body, "watch").into());
        }
        Ok(decode_watch(response.into_body()))
    }
}

fn get(path: &str) -> Request<Bytes> {
    Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Bytes::new())
        .expect("a path of names and an encoded query is a valid URI")
}

pub(crate) fn with_query(path: String, query: String) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// The body of a successful answer; the `Status` of any other.
pub fn checked(response: Response<Bytes>) -> Result<Bytes, Error> {
    let success = response.status().is_success();
    let code = response.status();
    let body = response.into_body();
    if success { Ok(body) } else { Err(status_of(&body, code.as_str()).into()) }
}

fn status_of(body: &[u8], what: &str) -> StatusError {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.code.is_some() || status.message.is_some() => StatusError(Box::new(status)),
        _ => {
            let code = what.parse().unwrap_or(500);
            StatusError::new(code, "", String::from_utf8_lossy(body).trim())
        }
    }
}

/// Reads a stream to its end.
pub async fn collect(mut body: Body) -> Result<Bytes, Error> {
    let mut all = BytesMut::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireList<'a> {
    #[serde(default)]
    metadata: WireListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(rename = "continue", default)]
    continue_token: Option<String>,
}

fn decode_list(body: Bytes) -> Result<ObjectList, Error> {
    let list: WireList<'_> = serde_json::from_slice(&body).map_err(|e| Error::decode("a list", e))?;
    let items = list.items.unwrap_or_default();
    let objects: Result<Vec<_>, _> =
        items.iter().map(|item| Object::from_wire(body.slice_ref(item.get().as_bytes())).map(Arc::new)).collect();
    let continue_token = list.metadata.continue_token.filter(|token| !token.is_empty());
    Ok(ObjectList { items: objects?, resource_version: list.metadata.resource_version, continue_token })
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn decode_watch(body: Body) -> WatchStream {
    let state = (body, BytesMut::new());
    futures::stream::unfold(Some(state), |state| async move {
        let (mut body, mut buffer) = state?;
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1).freeze();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let event = decode_event(&line);
                let next = event.is_ok().then_some((body, buffer));
                return Some((event, next));
            }
            if buffer.len() > WATCH_LINE_LIMIT {
                return Some((Err(Error::decode("a watch event", "the line is longer than 16 MiB")), None));
            }
            match body.next().await? {
                Ok(chunk) => buffer.extend_from_slice(&chunk),
                Err(error) => return Some((Err(error), None)),
            }
        }
    })
    .boxed()
}

fn decode_event(line: &Bytes) -> Result<ObjectEvent, Error> {
    let event: WireEvent<'_> = serde_json::from_slice(line).map_err(|e| Error::decode("a watch event", e))?;
    let raw = event.object.get().as_bytes();
    let kind = match event.kind {
        "ADDED" => EventKind::Added,
        "MODIFIED" => EventKind::Modified,
        "DELETED" => EventKind::Deleted,
        "BOOKMARK" => EventKind::Bookmark,
        "ERROR" => return Err(status_of(raw, "watch").into()),
        other => return Err(Error::decode("a watch event", format!("unknown type {other:?}"))),
    };
    // An event of its own keeps only its own line alive.
    Ok(ObjectEvent { kind, object: Arc::new(Object::from_wire(Bytes::copy_from_slice(raw))?) })
}
