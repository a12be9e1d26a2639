//! Who did what: one record a request that changes something, for whoever keeps them.
//!
//! Records follow the shape of `audit.k8s.io/v1` events at the Metadata level. Bodies are never recorded.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

use crate::authn::User;
use crate::request_info::RequestInfo;

/// Where records go.
pub trait Sink: Send + Sync + 'static {
    fn record(&self, record: &Record<'_>);
}

/// One finished request.
pub struct Record<'a> {
    pub id: &'a str,
    pub user: &'a User,
    pub info: &'a RequestInfo<'a>,
    pub uri: &'a str,
    pub source: &'a str,
    pub code: u16,
    pub received: Timestamp,
    pub finished: Timestamp,
}

impl Record<'_> {
    /// Whether the request asked for a change, of which alone records are kept.
    pub fn is_change(&self) -> bool {
        !matches!(self.info.verb, "get" | "list" | "watch" | "head" | "options")
    }

    fn line(&self) -> String {
        let info = self.info;
        let event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": self.id,
            "stage": "ResponseComplete", "requestURI": self.uri, "verb": info.verb,
            "user": { "username": self.user.name, "uid": self.user.uid, "groups": self.user.groups },
            "sourceIPs": [self.source],
            "objectRef": {
                "resource": info.resource, "namespace": info.namespace, "name": info.name, "apiGroup": info.group,
                "apiVersion": info.version, "subresource": info.subresource
            },
            "responseStatus": { "metadata": {}, "code": self.code },
            "requestReceivedTimestamp": self.received.to_string(),
            "stageTimestamp": self.finished.to_string(),
        });
        event.to_string() + "\n"
    }
}

/// Appends records to a file, one a line.
pub struct File(Mutex<std::fs::File>);

impl File {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(File(Mutex::new(file)))
    }
}

impl Sink for File {
    fn record(&self, record: &Record<'_>) {
        if record.is_change()
            && let Err(error) = self.0.lock().write_all(record.line().as_bytes())
        {
            tracing::warn!(%error, "cannot write the audit log");
        }
    }
}
