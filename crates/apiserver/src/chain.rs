//! The way of every request: what it is about, who sends it, whether there is room, whether it may, and then the handler.
//!
//! The order of the steps is the order of the lines of [`steps`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tracing::Instrument;
use xebec_api::selector::FieldSelector;
use xebec_api::status::StatusError;

use crate::audit::{self, Audit, Stage, Trail};
use crate::authn::{Credentials, PeerCertificate, User, impersonation};
use crate::authz::{Attributes, Decision, Verdict};
use crate::body::{self, Body};
use crate::flow_control::{self, Permit, Refused};
use crate::following::Following;
use crate::handlers::{self, Context};
use crate::metrics::{self, Measured};
use crate::options::Options;
use crate::request_info::{QueryHints, RequestInfo};
use crate::server_state::ServerState;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A longer name that a client gives its request is cut off, as upstream does.
const MAX_AUDIT_ID: usize = 64;

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

    let id = audit_id(&parts.headers);
    let passage = Passage { server, info: &info, origin: &origin, id: &id, received: started.0 };
    let dry_run = if options.dry_run.is_empty() { "" } else { "All" };
    let span = tracing::debug_span!("request", verb = info.verb, path = info.path);
    let response = passage.steps(&mut parts, options, body).instrument(span).await;
    let mut response = handlers::render::status_as_accepted(&parts.headers, response);
    passage.count(response.status(), dry_run, started.1);
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    headers.extend(HeaderValue::from_str(&id).ok().map(|id| (AUDIT_ID, id)));
    response
}

/// One request on its way.
struct Passage<'a> {
    server: &'a Arc<ServerState>,
    info: &'a RequestInfo<'a>,
    origin: &'a Origin<'a>,
    /// The request's name in audit records.
    id: &'a str,
    received: jiff::Timestamp,
}

impl Passage<'_> {
    async fn steps(&self, parts: &mut Parts, options: Options, body: Body) -> Response<Body> {
        let user = match self.authenticate(parts).await {
            Ok(user) => user,
            Err(error) => return self.unauthenticated(parts, &error),
        };
        let recording = self.recording(parts, user.clone());
        let mut trail = recording.and_then(|(audit, request)| audit.begin(&request));
        let user = match self.impersonate(parts, &options, user).await {
            Ok((user, false)) => user,
            Ok((user, true)) => {
                trail.iter_mut().for_each(|trail| trail.impersonates(user.clone()));
                user
            }
            Err(error) => return answered(trail, body::status(&error)),
        };
        let permit = match self.server.flow_control.enter(&user, self.info, &options).await {
            Ok(permit) => permit,
            Err(refused) => return answered(trail, too_many(&refused)),
        };
        let verdict = self.server.authorizer.authorize(&attributes(self.info, &user, &options)).await;
        let allowed = verdict.decision == Decision::Allow;
        trail.iter_mut().for_each(|trail| trail.decided(allowed, &verdict.reason));
        let response = if allowed {
            let body = match self.recorded(trail.as_mut(), &parts.headers, body).await {
                Ok(body) => body,
                Err(error) => return answered(trail, body::status(&error)),
            };
            let (server, info, user) = (self.server, self.info, &user);
            let context = Context { server, parts, info, user, options, body: body.into(), warnings: Vec::new() };
            handlers::handle(context).await
        } else {
            body::status(&refusal(self.info, &user, &options, &verdict))
        };
        self.leave(response, permit, trail)
    }

    /// The answer goes out; what a client keeps open takes its permit and its record along.
    fn leave(&self, mut response: Response<Body>, permit: Option<Permit>, trail: Option<Trail>) -> Response<Body> {
        permit.iter().for_each(|permit| permit.headers(response.headers_mut()));
        if !flow_control::is_long_running(self.info) || !response.status().is_success() {
            return answered(trail, response);
        }
        let mut trail = trail;
        if let Some(trail) = &mut trail {
            trail.answered(response.status().as_u16(), None);
            trail.reach(Stage::ResponseStarted);
        }
        let stream = (self.info.verb != "watch").then(|| {
            let verb = if self.info.subresource == "log" { "GET" } else { "CONNECT" };
            self.server.metrics.stream_opened(verb, self.info)
        });
        response.map(|body| Following::new(body, permit, trail, stream))
    }

    async fn authenticate(&self, parts: &mut Parts) -> Result<Arc<User>, StatusError> {
        let certificate = match self.origin {
            Origin::Known(user) => return Ok(user.clone()),
            Origin::Connection { certificate, .. } => *certificate,
        };
        let server = self.server;
        let credentials = Credentials { headers: &parts.headers, uri: &parts.uri, certificate };
        match server.authenticator.authenticate(&credentials).await {
            Ok(Some(user)) => {
                server.authenticator.take_credentials(&mut parts.headers);
                Ok(user)
            }
            Ok(None) if server.anonymous.load().allows(self.info.path) => Ok(User::anonymous()),
            Ok(None) => Err(StatusError::unauthorized()),
            Err(error) => {
                tracing::debug!(%error, "credentials were refused");
                Err(StatusError::unauthorized())
            }
        }
    }

    /// No user is known; the record says that, and ends with the answer's head as upstream's does.
    fn unauthenticated(&self, parts: &Parts, error: &StatusError) -> Response<Body> {
        let begun = self.recording(parts, Arc::default());
        if let Some(mut trail) = begun.and_then(|(audit, request)| audit.begin_silently(&request)) {
            trail.answered(error.code(), Some(&body::status_bytes(error)));
            trail.reach(Stage::ResponseStarted);
        }
        body::status(error)
    }

    /// What a record says of the request; `None` if there are no records.
    fn recording<'r>(&'r self, parts: &'r Parts, user: Arc<User>) -> Option<(&'r Arc<Audit>, audit::Request<'r>)> {
        let audit = self.server.audit.as_ref()?;
        let address = match self.origin {
            Origin::Connection { address, .. } => address,
            Origin::Known(_) => "",
        };
        let (id, info, received) = (self.id, self.info, self.received);
        Some((audit, audit::Request { id, user, info, uri: &parts.uri, headers: &parts.headers, address, received }))
    }

    /// Whom the request acts as, and whether that is somebody else than who sends it.
    async fn impersonate(
        &self,
        parts: &mut Parts,
        options: &Options,
        user: Arc<User>,
    ) -> Result<(Arc<User>, bool), StatusError> {
        let asked = attributes(self.info, &user, options);
        let other = impersonation::act_as(&*self.server.authorizer, &asked, &mut parts.headers).await?;
        Ok(match other {
            Some(other) => (other, true),
            None => (user, false),
        })
    }

    /// Shows the record the request's body, if it is one that a record can hold, and gives the body back.
    async fn recorded(&self, trail: Option<&mut Trail>, headers: &HeaderMap, body: Body) -> Result<Body, StatusError> {
        let holds = self.info.is_resource && !flow_control::is_long_running(self.info);
        let Some(trail) = trail.filter(|_| holds) else { return Ok(body) };
        let bytes = body::read(body).await?;
        if !bytes.is_empty()
            && let Some(json) = handlers::recordable(self.server, self.info, headers, &bytes)
        {
            trail.request(&json);
        }
        Ok(body::full(bytes))
    }

    fn count(&self, status: StatusCode, dry_run: &'static str, began: Duration) {
        let info = self.info;
        // Only what is served is told apart: the rest of a path is whatever a client wrote.
        let served = self.server.registry.index.find(info.group, info.version, info.resource);
        let known = served.is_some() || handlers::review::find(info).is_some();
        let subresource = match &served {
            Some(served) if served.has_subresource(info.subresource) => info.subresource,
            _ => "",
        };
        let (group, version, resource) =
            if known { (info.group, info.version, info.resource) } else { Default::default() };
        self.server.metrics.count(&Measured {
            verb: metric_verb(info),
            group,
            version,
            resource,
            subresource,
            scope: metrics::scope(info),
            dry_run,
            code: status.as_u16(),
            took: self.server.registry.clock.elapsed().saturating_sub(began),
        });
    }
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

/// The client's own name for its request, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok()).filter(|given| !given.is_empty());
    match given {
        Some(given) => given.get(..MAX_AUDIT_ID).unwrap_or(given).to_owned(),
        None => uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
    }
}

/// Whether the user may do this; the refusal reads as upstream's.
pub async fn authorize(
    server: &ServerState,
    info: &RequestInfo<'_>,
    user: &User,
    options: &Options,
) -> Result<(), StatusError> {
    let verdict = server.authorizer.authorize(&attributes(info, user, options)).await;
    if verdict.decision == Decision::Allow { Ok(()) } else { Err(refusal(info, user, options, &verdict)) }
}

fn refusal(info: &RequestInfo<'_>, user: &User, options: &Options, verdict: &Verdict) -> StatusError {
    attributes(info, user, options).refusal(&verdict.reason)
}

fn attributes<'a>(info: &RequestInfo<'a>, user: &'a User, options: &'a Options) -> Attributes<'a> {
    // Selectors narrow what many objects are read or deleted, and nothing else.
    let selects = matches!(info.verb, "list" | "watch" | "deletecollection");
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
        field_selector: if selects { &options.field_selector } else { "" },
        label_selector: if selects { &options.label_selector } else { "" },
    }
}

fn too_many(refused: &Refused) -> Response<Body> {
    let mut response = body::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    refused.headers(headers);
    response
}

/// Writes the record of a finished request.
fn answered(trail: Option<Trail>, response: Response<Body>) -> Response<Body> {
    let Some(mut trail) = trail else { return response };
    let (code, failed) = (response.status().as_u16(), !response.status().is_success());
    if !failed && !trail.wants_response() {
        trail.answered(code, None);
        trail.reach(Stage::ResponseComplete);
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = body.gathered();
    let json = body.bytes().and_then(|bytes| handlers::render::as_json(parts.headers.get(CONTENT_TYPE), bytes));
    trail.answered(code, json.as_deref());
    trail.reach(Stage::ResponseComplete);
    Response::from_parts(parts, body)
}

fn metric_verb(info: &RequestInfo<'_>) -> &'static str {
    if matches!(info.subresource, "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
    match info.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "other",
    }
}
