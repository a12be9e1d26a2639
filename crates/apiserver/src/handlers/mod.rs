//! What the server does for each verb and subresource, once the chain has let a request through.
//!
//! A handler translates between HTTP and the registry: it reads options and bodies, asks the registry, and writes the answer
//! in the form the client accepts. Rules about objects are not here.

mod apply;
mod components;
mod connect;
mod create;
mod decode;
mod delete;
mod get;
mod links;
mod log_socket;
mod meta;
pub mod page;
mod patch;
mod pods;
mod protobuf;
pub mod render;
pub mod review;
mod scale;
pub mod session;
mod update;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use xebec_api::object::Object;
use xebec_api::status::StatusError;

use crate::authn::User;
use crate::body::{self, Body};
use crate::negotiation::{self, Accepted, Encoding, Shown};
use crate::options::{self, Options};
use crate::registry::{Call, Served};
use crate::request_info::RequestInfo;
use crate::server_state::ServerState;
use render::{Renderer, RowObject};

pub use meta::Documents;

/// A request's body in JSON, for audit records; `None` if it is of a form that has none.
pub fn recordable(server: &ServerState, info: &RequestInfo<'_>, headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    if decode::media_type(headers).ends_with("+json") {
        return Some(body.clone());
    }
    let served = server.registry.index.find(info.group, info.version, info.resource);
    let schema = served.filter(|_| info.subresource.is_empty()).and_then(|served| served.schema);
    let json = decode::as_json(headers, body.clone(), schema).ok()?;
    let served = served.filter(|_| info.subresource.is_empty() && info.verb != "delete" && info.verb != "patch");
    let Some(resource) = served.map(|served| served.resource()) else { return Some(json) };
    // A body may leave its type to the path; a record names it.
    let rest = json.trim_ascii_start().strip_prefix(b"{").filter(|_| !names_kind(&json));
    let Some(rest) = rest else { return Some(json) };
    let comma = if rest.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\"{comma}", resource.kind, resource.api_version());
    Some([head.as_bytes(), rest].concat().into())
}

fn names_kind(json: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        #[serde(rename = "kind")]
        _kind: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Named>(json).is_ok()
}

/// One request on its way through a handler.
pub struct Context<'a> {
    pub server: &'a Arc<ServerState>,
    pub parts: &'a mut Parts,
    pub info: &'a RequestInfo<'a>,
    pub user: &'a Arc<User>,
    pub options: Options,
    /// Taken by the one handler that reads it. Behind a lock only because a body cannot be shared between threads.
    pub body: Mutex<Body>,
    /// Texts of `Warning` headers.
    pub warnings: Vec<String>,
}

/// In which forms a collection can be had.
const COLLECTION: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

type Answer = Result<Response<Body>, StatusError>;

/// Answers a request that may be made. Warnings gathered on the way go with any answer.
pub async fn handle(mut context: Context<'_>) -> Response<Body> {
    let answer = if context.info.is_resource { resource(&mut context).await } else { meta::handle(&context).await };
    let mut response = answer.unwrap_or_else(|error| body::status(&error));
    add_warnings(&mut response, &context.warnings);
    response
}

/// Resources whose every use is answered with a warning: version, plural, text.
const DEPRECATED: &[(&str, &str, &str)] = &[
    ("v1", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    ("v1", COMPONENTS, "v1 ComponentStatus is deprecated in v1.19+"),
];
const COMPONENTS: &str = "componentstatuses";

async fn resource(context: &mut Context<'_>) -> Answer {
    let info = context.info;
    if let Some(review) = review::find(info) {
        return review::handle(context, review).await;
    }
    if (info.group, info.version, info.resource, info.namespace) == ("", "v1", COMPONENTS, "") {
        context.warnings.extend(DEPRECATED.iter().filter(|row| row.1 == COMPONENTS).map(|row| row.2.to_owned()));
        return components::handle(context).await;
    }
    let found = context.server.registry.index.find(info.group, info.version, info.resource).cloned();
    let Some(served) = found else {
        if info.group.is_empty() && info.resource == "bindings" && info.verb == "create" {
            return pods::binding(context).await;
        }
        if !context.server.registry.index.has_group_version(info.group, info.version) {
            return Ok(nothing_there());
        }
        return Err(StatusError::no_such_path());
    };
    if !served.resource().namespaced && !info.namespace.is_empty() && served.resource().plural != "namespaces" {
        return Err(StatusError::no_such_path());
    }
    let resource = served.resource();
    let deprecated =
        DEPRECATED.iter().find(|(version, plural, _)| *version == resource.api_version() && *plural == resource.plural);
    context.warnings.extend(deprecated.map(|(_, _, text)| (*text).to_owned()));
    if !info.subresource.is_empty() {
        return subresource(context, &served).await;
    }
    // Across namespaces a collection can only be read.
    let placed = !served.resource().namespaced || !info.namespace.is_empty();
    match info.verb {
        "get" => get::get(context, &served).await,
        "list" => get::list(context, &served).await,
        "watch" => watch::watch(context, &served).await,
        "create" if info.name.is_empty() && placed => create::create(context, &served).await,
        "update" if !info.name.is_empty() => update::update(context, &served).await,
        "patch" if !info.name.is_empty() => patch::patch(context, &served).await,
        "delete" => delete::delete(context, &served).await,
        "deletecollection" if placed => delete::delete_collection(context, &served).await,
        _ => Err(method_not_allowed()),
    }
}

async fn subresource(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let info = context.info;
    if !served.has_subresource(info.subresource) {
        return Err(StatusError::no_such_path());
    }
    match (info.subresource, info.verb) {
        ("status" | "ephemeralcontainers" | "resize" | "approval", "get") => get::get(context, served).await,
        ("status" | "ephemeralcontainers" | "resize" | "approval" | "finalize", "update") => {
            update::update(context, served).await
        }
        ("status" | "ephemeralcontainers" | "resize" | "approval", "patch") => patch::patch(context, served).await,
        ("scale", "get") => scale::get(context, served).await,
        ("scale", "update") => scale::update(context, served).await,
        ("scale", "patch") => scale::patch(context, served).await,
        ("binding", "create") => pods::binding(context).await,
        ("eviction", "create") => pods::eviction(context, served).await,
        ("token", "create") => review::token(context, served).await,
        ("log", "get") => connect::log(context).await,
        ("exec" | "attach" | "portforward", "get" | "create") => connect::stream(context).await,
        ("proxy", _) => connect::proxy(context).await,
        _ => Err(method_not_allowed()),
    }
}

impl Context<'_> {
    fn take_body(&self) -> Body {
        std::mem::replace(&mut *self.body.lock(), body::empty())
    }

    /// The encoding of an answer that is nobody's object: it has neither a Table nor metadata to show.
    fn accepted_plain(&self) -> Result<Encoding, StatusError> {
        negotiation::plain(&self.parts.headers)
    }

    fn accepted(&self) -> Result<Accepted, StatusError> {
        negotiation::accepted(&self.parts.headers).map_err(|error| match self.info.verb {
            // Collections can be watched, too.
            "list" | "watch" | "deletecollection" if self.info.name.is_empty() => {
                negotiation::not_acceptable(&self.parts.headers, COLLECTION)
            }
            _ => error,
        })
    }

    /// Who writes and how. Its warnings are moved back with [`Context::finish`].
    fn call<'u>(&mut self, user: &'u Arc<User>, dry_run: bool, subresource: &'u str) -> Call<'u> {
        let manager = self.manager();
        Call { user, dry_run, subresource, manager, warnings: std::mem::take(&mut self.warnings) }
    }

    /// Who comes to own what the request changes.
    fn manager(&self) -> String {
        if !self.options.field_manager.is_empty() {
            return self.options.field_manager.clone();
        }
        let agent = self.parts.headers.get(http::header::USER_AGENT);
        options::manager_of_agent(&String::from_utf8_lossy(agent.map_or(&[], |agent| agent.as_bytes())))
    }

    fn finish<T>(&mut self, call: Call<'_>, result: Result<T, StatusError>) -> Result<T, StatusError> {
        self.warnings = call.warnings;
        result
    }

    /// The namespace of the objects: the URL's, but for Namespaces themselves, which lie in none.
    fn namespace(&self, served: &Served) -> &str {
        if served.resource().namespaced { self.info.namespace } else { "" }
    }

    fn renderer(&self, served: &Arc<Served>, accepted: Accepted) -> Result<Renderer, StatusError> {
        let row_object = match accepted.shown {
            Shown::Table(_) => RowObject::parse(&self.options.include_object)?,
            _ => RowObject::Metadata,
        };
        let now = self.server.registry.clock.now();
        Ok(Renderer { served: served.clone(), shown: accepted.shown, row_object, now })
    }

    fn object(&self, served: &Arc<Served>, code: StatusCode, object: &Object) -> Answer {
        let accepted = self.accepted()?;
        let renderer = self.renderer(served, accepted)?;
        if accepted.encoding == Encoding::Protobuf {
            let bytes = protobuf::object(&renderer, object)?;
            return Ok(body::typed(code, body::full(bytes), accepted.encoding.content_type()));
        }
        self.encoded(code, renderer.object(object), accepted.encoding)
    }

    /// Objects as a list that is no part of a collection.
    fn objects(&self, served: &Arc<Served>, objects: Vec<Arc<Object>>, revision: u64) -> Answer {
        let accepted = self.accepted()?;
        let renderer = self.renderer(served, accepted)?;
        if accepted.encoding == Encoding::Protobuf {
            let meta = serde_json::json!({ "resourceVersion": revision.to_string() });
            let pieces = protobuf::pieces(&renderer, &meta, objects.into_iter())?;
            return Ok(body::typed(StatusCode::OK, body::pieces(pieces), accepted.encoding.content_type()));
        }
        self.encoded(StatusCode::OK, renderer.objects(&objects, revision), accepted.encoding)
    }

    /// Whether the bytes of objects go out as they are.
    fn plain(&self, encoding: Encoding) -> bool {
        encoding == Encoding::Json && !self.options.pretty
    }

    /// Sends a JSON document in the encoding that was accepted. For protobuf it must name its kind.
    fn encoded(&self, code: StatusCode, bytes: Vec<u8>, encoding: Encoding) -> Answer {
        if self.plain(encoding) {
            return Ok(body::json(code, bytes));
        }
        let bytes = if encoding == Encoding::Json {
            let tree: serde_json::Value = serde_json::from_slice(&bytes).map_err(StatusError::internal)?;
            serde_json::to_vec_pretty(&tree).map_err(StatusError::internal)?
        } else {
            render::document(&bytes, encoding)?
        };
        Ok(body::typed(code, body::full(bytes), encoding.content_type()))
    }
}

/// An error whose details say nothing, as upstream's generic ones.
fn bare(mut error: StatusError) -> StatusError {
    error.0.details.get_or_insert_default();
    error
}

/// What upstream says of paths that no part of it knows.
fn nothing_there() -> Response<Body> {
    body::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn method_not_allowed() -> StatusError {
    bare(StatusError::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"))
}

/// RFC 7234's form with the code that stands for a persistent warning of an unspecified kind.
fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for (index, text) in warnings.iter().enumerate() {
        if warnings[..index].contains(text) {
            continue;
        }
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let clean: String = quoted.chars().filter(|c| !c.is_control()).collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{clean}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
