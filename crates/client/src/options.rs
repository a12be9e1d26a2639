//! The options of calls, and how they stand in a URL's query or a body.

use form_urlencoded::Serializer;
use serde_json::{Value, json};

/// Options of LIST. Selectors are in their query form.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub limit: Option<u32>,
    pub continue_token: Option<String>,
    pub resource_version: Option<String>,
    pub resource_version_match: Option<String>,
}

impl ListOptions {
    pub fn labels(selector: impl ToString) -> Self {
        ListOptions { label_selector: Some(selector.to_string()), ..Self::default() }
    }

    pub fn fields(selector: impl ToString) -> Self {
        ListOptions { field_selector: Some(selector.to_string()), ..Self::default() }
    }

    pub fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        let mut pair = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        };
        pair("labelSelector", &self.label_selector);
        pair("fieldSelector", &self.field_selector);
        pair("limit", &self.limit.map(|limit| limit.to_string()));
        pair("continue", &self.continue_token);
        pair("resourceVersion", &self.resource_version);
        pair("resourceVersionMatch", &self.resource_version_match);
        query.finish()
    }
}

/// Options of WATCH. Bookmarks are always asked for.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Events after this one; empty means "from now, with the present state first".
    pub resource_version: String,
    pub timeout_seconds: Option<u32>,
}

impl WatchOptions {
    pub fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("watch", "true").append_pair("allowWatchBookmarks", "true");
        let mut pair = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        };
        pair("labelSelector", &self.label_selector);
        pair("fieldSelector", &self.field_selector);
        pair("timeoutSeconds", &self.timeout_seconds.map(|seconds| seconds.to_string()));
        if !self.resource_version.is_empty() {
            query.append_pair("resourceVersion", &self.resource_version);
        }
        query.finish()
    }
}

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Options of DELETE.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Without waiting for anything.
    pub fn now() -> Self {
        DeleteOptions { grace_period_seconds: Some(0), ..Self::default() }
    }

    pub fn only(mut self, uid: impl Into<String>) -> Self {
        self.uid = Some(uid.into());
        self
    }

    pub fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = json!(version);
        }
        body
    }
}

/// A change described by what differs.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Upstream's merge by keys.
    Strategic(Value),
}

impl Patch {
    pub fn content_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
        }
    }

    pub fn body(&self) -> &Value {
        match self {
            Patch::Json(body) | Patch::Merge(body) | Patch::Strategic(body) => body,
        }
    }
}
