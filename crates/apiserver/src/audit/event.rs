//! The record of one request on its way: what is known of it so far, written down at each stage that the policy wants.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Audit;
use super::policy::{Level, Stage, Verdict};
use crate::authn::User;
use crate::request_info::RequestInfo;

/// A longer name of a client's program is cut off, as upstream does.
const MAX_USER_AGENT: usize = 1024;

/// What is known of a request when it comes in.
pub struct Request<'a> {
    pub id: &'a str,
    pub user: Arc<User>,
    pub info: &'a RequestInfo<'a>,
    pub uri: &'a http::Uri,
    pub headers: &'a HeaderMap,
    /// The other end of the connection; empty for a request from within the process.
    pub address: &'a str,
    pub received: Timestamp,
}

/// The object that a request is about. In the order in which it is written.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    extra: &'a std::collections::BTreeMap<String, Vec<String>>,
}

/// The event as it is written, in upstream's order of fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: UserInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<UserInfo<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    annotations: &'a Map<String, Value>,
}

pub struct Trail {
    audit: Arc<Audit>,
    rule: Verdict,
    id: String,
    uri: String,
    verb: &'static str,
    user: Arc<User>,
    impersonated: Option<Arc<User>>,
    source_ips: Vec<String>,
    user_agent: String,
    object: Option<ObjectRef>,
    status: Option<Value>,
    request: Option<Value>,
    response: Option<Value>,
    received: Timestamp,
    annotations: Map<String, Value>,
}

/// The part of an object that says which one it is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    kind: String,
    metadata: NamedMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NamedMeta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

impl Trail {
    pub(super) fn new(audit: Arc<Audit>, rule: Verdict, request: &Request<'_>) -> Self {
        let info = request.info;
        let object = info.is_resource.then(|| ObjectRef {
            resource: info.resource.to_owned(),
            namespace: info.namespace.to_owned(),
            name: info.name.to_owned(),
            api_group: info.group.to_owned(),
            api_version: info.version.to_owned(),
            subresource: info.subresource.to_owned(),
            ..ObjectRef::default()
        });
        Trail {
            audit,
            rule,
            id: request.id.to_owned(),
            uri: request.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            verb: info.verb,
            user: request.user.clone(),
            impersonated: None,
            source_ips: source_ips(request.headers, request.address),
            user_agent: user_agent(request.headers),
            object,
            status: None,
            request: None,
            response: None,
            received: request.received,
            annotations: Map::new(),
        }
    }

    /// Whether the bodies of requests are wanted.
    pub fn wants_request(&self) -> bool {
        self.rule.level >= Level::Request
    }

    pub fn wants_response(&self) -> bool {
        self.rule.level >= Level::RequestResponse
    }

    pub fn impersonates(&mut self, user: Arc<User>) {
        self.impersonated = Some(user);
    }

    /// What the policies said of the request.
    pub fn decided(&mut self, allowed: bool, reason: &str) {
        self.annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
        self.annotate("authorization.k8s.io/reason", reason);
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.insert(key.to_owned(), Value::from(value));
    }

    /// The request's body in JSON. It also tells more of the object.
    pub fn request(&mut self, body: &[u8]) {
        let named: Named = serde_json::from_slice(body).unwrap_or_default();
        if let Some(object) = self.object.as_mut().filter(|_| named.kind != "DeleteOptions") {
            let fill = |field: &mut String, value: String| {
                if field.is_empty() {
                    *field = value;
                }
            };
            fill(&mut object.namespace, named.metadata.namespace);
            fill(&mut object.name, named.metadata.name);
            fill(&mut object.uid, named.metadata.uid);
            fill(&mut object.resource_version, named.metadata.resource_version);
        }
        if self.wants_request() {
            self.request = self.tree(body);
        }
    }

    /// The answer's code and, if it is in JSON, its body.
    pub fn answered(&mut self, code: u16, body: Option<&[u8]>) {
        let mut status = json!({ "metadata": {}, "code": code });
        if code >= 400
            && let Some(Ok(mut told)) = body.map(serde_json::from_slice::<Map<String, Value>>)
            && told.get("kind").is_some_and(|kind| kind == "Status")
        {
            told.retain(|key, _| {
                matches!(key.as_str(), "metadata" | "status" | "message" | "reason" | "details" | "code")
            });
            status = Value::Object(told);
        }
        self.status = Some(status);
        if self.wants_response() {
            self.response = body.and_then(|body| self.tree(body));
        }
    }

    /// Writes the record as it is now, if the policy wants this stage.
    pub fn reach(&mut self, stage: Stage) {
        if self.rule.omit_stages.contains(&stage) {
            return;
        }
        let now = self.audit.clock.now();
        let complete = stage == Stage::ResponseComplete;
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: self.rule.level.name(),
            audit_id: &self.id,
            stage: stage.name(),
            request_uri: &self.uri,
            verb: self.verb,
            user: info(&self.user),
            impersonated_user: self.impersonated.as_deref().map(info),
            source_ips: &self.source_ips,
            user_agent: &self.user_agent,
            object_ref: self.object.as_ref(),
            response_status: self.status.as_ref(),
            request_object: self.request.as_ref(),
            response_object: self.response.as_ref().filter(|_| complete),
            request_received_timestamp: micros(self.received),
            stage_timestamp: micros(now),
            annotations: &self.annotations,
        };
        match serde_json::to_vec(&event) {
            Ok(event) => self.audit.record(&event),
            Err(error) => tracing::error!(%error, "an audit record cannot be written"),
        }
    }

    fn tree(&self, body: &[u8]) -> Option<Value> {
        let mut tree: Value = serde_json::from_slice(body).ok()?;
        if self.rule.omit_managed_fields {
            drop_managed_fields(&mut tree);
            let items = tree.get_mut("items").and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(drop_managed_fields);
            let rows = tree.get_mut("rows").and_then(Value::as_array_mut);
            rows.into_iter().flatten().filter_map(|row| row.get_mut("object")).for_each(drop_managed_fields);
        }
        Some(tree)
    }
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

fn info(user: &User) -> UserInfo<'_> {
    UserInfo { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra }
}

/// Upstream's MicroTime: always six digits.
fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}

fn user_agent(headers: &HeaderMap) -> String {
    let told = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    match told.get(..MAX_USER_AGENT) {
        Some(start) if told.len() > MAX_USER_AGENT => format!("{start}...TRUNCATED"),
        _ => told.to_owned(),
    }
}

/// Those whom proxies name and the other end of the connection, as upstream gathers them.
fn source_ips(headers: &HeaderMap, address: &str) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut all: Vec<String> = Vec::new();
    let mut add = |ip: &str| {
        if ip.parse::<std::net::IpAddr>().is_ok() && all.last().is_none_or(|last| last != ip) {
            all.push(ip.to_owned());
        }
    };
    text("x-forwarded-for").split(',').map(str::trim).for_each(&mut add);
    add(text("x-real-ip"));
    add(address);
    all
}
