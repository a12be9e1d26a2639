//! What is not about objects: discovery, OpenAPI, version, metrics; health and profiles stand in modules of their own.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use xebec_api::discovery::{self, AggregatedVersion, Discovery};
use xebec_api::openapi::{OpenApi, V2_PROTOBUF};
use xebec_api::schema::{self, SubresourceRow};
use xebec_api::status::StatusError;

use super::{Answer, Context, render};
use crate::authz::reviews::REVIEWS;
use crate::body::{self, Body};
use crate::negotiation::{self, Encoding, Transform};
use crate::registry::{Index, Served};
use crate::server_state::ServerState;
use crate::{health, profile};

/// The release whose API is served.
pub const VERSION: &str = "v1.37.2";

/// Discovery and OpenAPI documents, each built when it is first asked for.
#[derive(Default)]
pub struct Documents {
    discovery: OnceLock<Discovery>,
    built: Mutex<HashMap<String, Document>>,
}

#[derive(Clone)]
struct Document {
    bytes: Bytes,
    etag: HeaderValue,
}

impl Documents {
    fn discovery(&self, index: &Index) -> &Discovery {
        self.discovery.get_or_init(|| Discovery::new(served(index)))
    }

    fn get(&self, key: &str, build: impl FnOnce() -> Option<Vec<u8>>) -> Option<Document> {
        if let Some(found) = self.built.lock().get(key) {
            return Some(found.clone());
        }
        let bytes = Bytes::from(build()?);
        let etag = HeaderValue::from_str(&discovery::etag(&bytes)).ok()?;
        let document = Document { bytes, etag };
        self.built.lock().insert(key.to_owned(), document.clone());
        Some(document)
    }
}

/// The facts of discovery for what is served, and no more than that.
fn served(index: &Index) -> Vec<discovery::Served> {
    let table = schema::table();
    let mut all: Vec<discovery::Served> = index.iter().filter_map(|served| facts(served)).collect();
    let reviews = REVIEWS.iter().filter_map(|row| table.resource(row.group, row.version, row.plural));
    all.extend(reviews.map(discovery::Served::from));
    if index.find("", "v1", "pods").is_some() {
        let virtual_ones = ["bindings", "componentstatuses"].map(|plural| table.resource("", "v1", plural));
        all.extend(virtual_ones.into_iter().flatten().map(discovery::Served::from));
    }
    all
}

fn facts(served: &Served) -> Option<discovery::Served> {
    let resource = served.resource();
    let row = schema::table().resource(&resource.group, &resource.version, &resource.plural)?;
    let mut facts = discovery::Served::from(row);
    let kept = |row: &&SubresourceRow| {
        // A longer name is a part of its subresource (`proxy/{path}`).
        served.has_subresource(row.name.split('/').next().unwrap_or(row.name))
    };
    facts.subresources = row.subresources.iter().filter(kept).map(Into::into).collect();
    Some(facts)
}

pub async fn handle(context: &Context<'_>) -> Answer {
    let path = context.info.path;
    let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|part| !part.is_empty()).collect();
    let reads = matches!(context.info.verb, "get" | "head");
    match parts[..] {
        ["version" | "healthz" | "livez" | "readyz" | "metrics" | "api" | "apis" | "openapi", ..] | [] if !reads => {
            Err(super::method_not_allowed())
        }
        [] => Ok(paths(context)),
        ["version"] => version(context),
        ["metrics"] => Ok(metrics(context, false)),
        ["metrics", "slis"] => Ok(metrics(context, true)),
        ["healthz" | "livez" | "readyz", ..] => {
            let answer = health::answer(context.server, &parts, context.parts.uri.query().unwrap_or("")).await;
            Ok(answer.unwrap_or_else(super::nothing_there))
        }
        ["debug", "pprof", ref rest @ ..] => profile::answer(context.parts, rest).await,
        ["api" | "apis", ..] => discover(context, &parts),
        ["openapi", "v2"] => openapi_v2(context),
        ["openapi", "v3"] => openapi_v3(context, None),
        ["openapi", "v3", ref rest @ ..] => openapi_v3(context, Some(rest)),
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => openid(context, &parts),
        _ => Ok(super::nothing_there()),
    }
}

fn openid(context: &Context<'_>, parts: &[&str]) -> Answer {
    let issuer = context.server.token_issuer.as_ref().ok_or_else(StatusError::no_such_path)?;
    let (document, media_type) = if parts[0] == "openid" {
        (issuer.key_set(), "application/jwk-set+json")
    } else {
        (issuer.configuration(), "application/json")
    };
    let mut response = body::json(StatusCode::OK, document.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

fn json_document(context: &Context<'_>, document: Option<Document>) -> Answer {
    let Some(document) = document else { return Ok(super::nothing_there()) };
    Ok(tagged(context, &document, Encoding::Json.content_type()))
}

/// The document under `key` in an encoding. It is built as JSON, and out of that in every other encoding.
fn encoded(
    documents: &Documents,
    key: &str,
    encoding: Encoding,
    build: impl FnOnce() -> Option<Value>,
) -> Result<Option<Document>, StatusError> {
    let json = documents.get(key, || build().map(|tree| tree.to_string().into_bytes()));
    let Some(json) = json else { return Ok(None) };
    if encoding == Encoding::Json {
        return Ok(Some(json));
    }
    let bytes = render::document(&json.bytes, encoding)?;
    Ok(documents.get(&format!("{key} {}", encoding.media_type()), || Some(bytes)))
}

/// A document with its tag; only the tag if the client has it.
fn tagged(context: &Context<'_>, document: &Document, content_type: HeaderValue) -> Response<Body> {
    let same = context.parts.headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == document.etag);
    let (code, bytes) =
        if same { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, document.bytes.clone()) };
    let mut response = body::json(code, bytes);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(ETAG, document.etag.clone());
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn discover(context: &Context<'_>, parts: &[&str]) -> Answer {
    let server = context.server;
    let documents = &server.documents;
    let discovery = documents.discovery(&server.registry.index);
    let offered = negotiation::best(&context.parts.headers, |encoding, transform| {
        Some((encoding, form(transform).filter(|form| form.is_none() || parts.len() == 1)?))
    });
    let Some((encoding, aggregated)) = offered else {
        return Err(negotiation::not_acceptable(&context.parts.headers, negotiation::OFFERED));
    };
    if let ([root], Some(version)) = (parts, aggregated) {
        let key = format!("aggregated {root} {}", version.as_str());
        let document = encoded(documents, &key, encoding, || Some(discovery.aggregated(*root == "api", version)))?;
        let document = document.ok_or_else(StatusError::no_such_path)?;
        let content_type = format!("{};{}", encoding.media_type(), version.parameters());
        let content_type = HeaderValue::from_str(&content_type).map_err(StatusError::internal)?;
        return Ok(tagged(context, &document, content_type));
    }
    let build = || -> Option<Value> {
        match *parts {
            ["api"] => Some(discovery.api_versions(&server.advertised)),
            ["apis"] => Some(discovery.group_list()),
            ["api", version] => discovery.resource_list("", version),
            ["apis", group] => discovery.group(group),
            ["apis", group, version] => discovery.resource_list(group, version),
            _ => None,
        }
    };
    match encoded(documents, &parts.join("/"), encoding, build)? {
        Some(document) => Ok(tagged(context, &document, encoding.content_type())),
        None => Ok(super::nothing_there()),
    }
}

/// The form of discovery that a clause asks for: the plain one (`Some(None)`), an aggregated one, or one that there is not.
fn form(transform: &Transform<'_>) -> Option<Option<AggregatedVersion>> {
    match (transform.group, transform.version, transform.kind) {
        ("", "", "") => Some(None),
        ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => Some(Some(AggregatedVersion::V2)),
        ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => Some(Some(AggregatedVersion::V2Beta1)),
        _ => None,
    }
}

fn open_api(server: &ServerState) -> OpenApi<'_> {
    OpenApi { discovery: server.documents.discovery(&server.registry.index), version: VERSION }
}

fn openapi_v2(context: &Context<'_>) -> Answer {
    let server = context.server;
    let Some(media_type) = negotiation::best_of(&context.parts.headers, &[JSON, V2_PROTOBUF_OF_OLD, V2_PROTOBUF])
    else {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
        return Ok(response);
    };
    if media_type != JSON {
        let document = server.documents.get("openapi/v2 protobuf", || Some(open_api(server).v2_protobuf()));
        let document = document.ok_or_else(StatusError::no_such_path)?;
        return Ok(tagged(context, &document, HeaderValue::from_static(V2_PROTOBUF)));
    }
    json_document(context, server.documents.get("openapi/v2", || Some(open_api(server).v2().to_string().into_bytes())))
}

const JSON: &str = "application/json";

/// As clients up to 1.23 spell it, with a character that media types do not have.
const V2_PROTOBUF_OF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

fn openapi_v3(context: &Context<'_>, rest: Option<&[&str]>) -> Answer {
    let server = context.server;
    let key = context.info.path.trim_matches('/');
    let document = server.documents.get(key, || {
        let api = open_api(server);
        let tree = match rest {
            None => Some(api.v3_index()),
            Some(["api", version]) => api.v3("", version),
            Some(["apis", group, version]) => api.v3(group, version),
            Some(_) => None,
        };
        tree.map(|tree| tree.to_string().into_bytes())
    });
    json_document(context, document)
}

fn version(context: &Context<'_>) -> Answer {
    if negotiation::best_of(&context.parts.headers, &[JSON]).is_none() {
        return Err(negotiation::not_acceptable(&context.parts.headers, JSON));
    }
    let document = json!({
        "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", architecture())
    });
    Ok(body::json(StatusCode::OK, document.to_string()))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The measurements, or the results of the health checks alone.
fn metrics(context: &Context<'_>, checks: bool) -> Response<Body> {
    let server = context.server;
    let accept = context.parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let open = accept.contains("application/openmetrics-text");
    server.metrics.set_inflight(server.flow_control.running());
    let text = if checks { server.metrics.checks_text(open) } else { server.metrics.text(open) };
    let media_type = if open {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    body::typed(StatusCode::OK, body::full(text), HeaderValue::from_static(media_type))
}

fn paths(context: &Context<'_>) -> Response<Body> {
    let discovery = context.server.documents.discovery(&context.server.registry.index);
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, version) in discovery.group_versions() {
        if group.is_empty() {
            paths.push(format!("/api/{version}"));
        } else {
            paths.push(format!("/apis/{group}"));
            paths.push(format!("/apis/{group}/{version}"));
        }
    }
    paths.extend(
        [
            "/.well-known/openid-configuration",
            "/debug/pprof",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/version",
        ]
        .map(String::from),
    );
    paths.extend(health::paths());
    paths.sort();
    paths.dedup();
    body::json(StatusCode::OK, json!({ "paths": paths }).to_string())
}
