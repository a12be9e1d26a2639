//! The way of every request: what it is about, who sends it, whether there is room, whether it may, and then the handler.
//!
//! The order of the steps is the order of the lines of [`serve`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use percent_encoding::percent_decode_str;
use tracing::Instrument;
use xebec_api::selector::FieldSelector;
use xebec_api::status::StatusError;

use crate::audit::Record;
use crate::authn::{Credentials, PeerCertificate, User, impersonation};
use crate::authz::{Attributes, Decision};
use crate::body::{self, Body};
use crate::handlers::{self, Context};
use crate::metrics::Measured;
use crate::options::Options;
use crate::request_info::{QueryHints, RequestInfo};
use crate::server_state::ServerState;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Where a request comes from.
pub enum Origin<'a> {
    /// Over a connection: who sends it is yet to be proved.
    Connection { certificate: Option<&'a PeerCertificate>, address: &'a str },
    /// From within the process, by someone known.
    Known(Arc<User>),
}

pub async fn serve(server: &Arc<ServerState>, request: Request<Body>, origin: Origin<'_>) -> Response<Body> {
    let started = (server.registry.clock.now(), server.registry.clock.elapsed());
    let (mut parts, body) = request.into_parts();
    let uri = parts.uri.clone();
    let path = decoded(uri.path());
    let Some(path) = path else { return body::status(&StatusError::bad_request("the path is not UTF-8")) };
    let options = match Options::parse(uri.query()) {
        Ok(options) => options,
        Err(error) => return body::status(&error),
    };
    let name = single_name(&options);
    let hints = QueryHints { watch: options.watch, name: name.as_deref() };
    let Some(info) = RequestInfo::parse(&parts.method, &path, hints) else {
        return body::status(&StatusError::no_such_path());
    };

    let span = tracing::debug_span!("request", verb = info.verb, path = info.path);
    let answer = steps(server, &mut parts, &info, options, body, &origin);
    let (mut response, user) = answer.instrument(span).await;
    finish(server, &info, &uri, user, &origin, &mut response, started);
    response
}

async fn steps(
    server: &Arc<ServerState>,
    parts: &mut Parts,
    info: &RequestInfo<'_>,
    options: Options,
    body: Body,
    origin: &Origin<'_>,
) -> (Response<Body>, Arc<User>) {
    let user = match authenticate(server, parts, origin).await {
        Ok(user) => user,
        Err(error) => return (body::status(&error), User::anonymous()),
    };
    let asked = attributes(info, &user, &options.field_selector);
    let user = match impersonation::act_as(&*server.authorizer, &asked, &mut parts.headers).await {
        Ok(None) => user,
        Ok(Some(other)) => other,
        Err(error) => return (body::status(&error), user),
    };
    let slot = match server.flow_control.enter(info) {
        Ok(slot) => slot,
        Err(error) => return (body::status(&error), user),
    };
    if let Err(error) = authorize(server, info, &user, &options.field_selector).await {
        return (body::status(&error), user);
    }
    let context = Context { server, parts, info, user: &user, options, body: body.into(), warnings: Vec::new() };
    let response = handlers::handle(context).await;
    drop(slot);
    (response, user)
}

fn decoded(path: &str) -> Option<Cow<'_, str>> {
    if path.contains('%') { percent_decode_str(path).decode_utf8().ok() } else { Some(Cow::Borrowed(path)) }
}

/// The one name that a field selector allows: upstream authorises such a list as one of that name.
fn single_name(options: &Options) -> Option<String> {
    if options.field_selector.is_empty() {
        return None;
    }
    let fields = FieldSelector::parse(&options.field_selector).ok()?;
    fields.required("metadata.name").filter(|name| !name.contains(['/', '%'])).map(str::to_owned)
}

async fn authenticate(server: &ServerState, parts: &Parts, origin: &Origin<'_>) -> Result<Arc<User>, StatusError> {
    let certificate = match origin {
        Origin::Known(user) => return Ok(user.clone()),
        Origin::Connection { certificate, .. } => *certificate,
    };
    let credentials = Credentials { headers: &parts.headers, uri: &parts.uri, certificate };
    match server.authenticator.authenticate(&credentials).await {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Ok(User::anonymous()),
        Err(error) => {
            tracing::debug!(%error, "credentials were refused");
            Err(StatusError::unauthorized())
        }
    }
}

/// Whether the user may do this; the refusal reads as upstream's.
pub async fn authorize(
    server: &ServerState,
    info: &RequestInfo<'_>,
    user: &User,
    field_selector: &str,
) -> Result<(), StatusError> {
    let attributes = attributes(info, user, field_selector);
    let verdict = server.authorizer.authorize(&attributes).await;
    if verdict.decision == Decision::Allow {
        return Ok(());
    }
    Err(attributes.refusal(&verdict.reason))
}

fn attributes<'a>(info: &RequestInfo<'a>, user: &'a User, field_selector: &'a str) -> Attributes<'a> {
    Attributes {
        user,
        verb: info.verb,
        namespace: info.namespace,
        group: info.group,
        version: info.version,
        resource: info.resource,
        subresource: info.subresource,
        name: info.name,
        is_resource: info.is_resource,
        path: info.path,
        field_selector,
    }
}

fn finish(
    server: &ServerState,
    info: &RequestInfo<'_>,
    uri: &http::Uri,
    user: Arc<User>,
    origin: &Origin<'_>,
    response: &mut Response<Body>,
    (received, began): (jiff::Timestamp, Duration),
) {
    let code = response.status().as_u16();
    let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    };
    server.metrics.count(&Measured {
        verb: metric_verb(info.verb),
        group: info.group,
        version: info.version,
        resource: info.resource,
        subresource: info.subresource,
        scope,
        code,
        took: server.registry.clock.elapsed().saturating_sub(began),
    });
    let Some(audit) = &server.audit else { return };
    let id = uuid::Uuid::new_v4().to_string();
    let source = match origin {
        Origin::Connection { address, .. } => address,
        Origin::Known(_) => "",
    };
    let finished = server.registry.clock.now();
    audit.record(&Record { id: &id, user: &user, info, uri: &uri.to_string(), source, code, received, finished });
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, value);
    }
}

fn metric_verb(verb: &'static str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        other => other,
    }
}
