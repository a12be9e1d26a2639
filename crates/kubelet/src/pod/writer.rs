//! Writes a Pod's status to the API: the newest one only, one write at a time, as a patch of what differs.
//!
//! The worker never waits for a write, except for the last one before the Pod's object is deleted. A write that fails is tried
//! again; an object that is gone, or has another UID, ends the writing.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use xebec_base::{Backoff, Chain, SharedClock};
use xebec_client::{Client, Patch};

use super::{conditions, identity};

const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10)).with_jitter(0.3);

/// The writing end of one Pod. Dropping it ends the task once the newest status has been tried.
pub struct Writer {
    wanted: watch::Sender<Option<Value>>,
    done: watch::Receiver<Progress>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Progress {
    written: Option<Value>,
    gone: bool,
}

impl Writer {
    /// `pod` is the object as the API has it now.
    pub fn start(client: &Client, clock: SharedClock, pod: &Pod) -> Writer {
        let (wanted, wishes) = watch::channel(None);
        let known = essence(pod.status.as_ref().unwrap_or(&PodStatus::default()));
        let (progress, done) = watch::channel(Progress { written: Some(known), gone: false });
        let task = Task {
            client: client.clone(),
            clock,
            namespace: identity::namespace(pod).to_owned(),
            name: identity::name(pod).to_owned(),
            uid: identity::uid(pod).to_owned(),
            progress,
        };
        tokio::spawn(task.run(wishes));
        Writer { wanted, done }
    }

    pub fn post(&self, status: &PodStatus) {
        let value = essence(status);
        self.wanted.send_if_modified(|wanted| {
            let news = wanted.as_ref() != Some(&value);
            if news {
                *wanted = Some(value);
            }
            news
        });
    }

    /// Returns when the newest status has been written, or there is no object to write to.
    pub async fn flush(&self) {
        let wanted = self.wanted.borrow().clone();
        if wanted.is_none() {
            return;
        }
        let mut done = self.done.clone();
        let _ = done.wait_for(|progress| progress.gone || progress.written == wanted).await;
    }
}

struct Task {
    client: Client,
    clock: SharedClock,
    namespace: String,
    name: String,
    uid: String,
    progress: watch::Sender<Progress>,
}

impl Task {
    async fn run(self, mut wishes: watch::Receiver<Option<Value>>) {
        let mut retry = RETRY;
        while wishes.changed().await.is_ok() {
            loop {
                let Some(wanted) = wishes.borrow_and_update().clone() else { break };
                let written = self.progress.borrow().written.clone().unwrap_or(Value::Null);
                if written == wanted {
                    break;
                }
                match self.write(&written, &wanted).await {
                    Ok(()) => {
                        retry.reset();
                        self.progress.send_modify(|progress| progress.written = Some(wanted));
                        break;
                    }
                    Err(error) if error.is_not_found() || error.is_conflict() => {
                        self.progress.send_modify(|progress| progress.gone = true);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(pod = %self.name, error = %Chain(&error), "cannot write the status of a Pod");
                        self.clock.sleep(retry.next_delay()).await;
                    }
                }
            }
        }
    }

    async fn write(&self, written: &Value, wanted: &Value) -> Result<(), xebec_client::Error> {
        let body = json!({"metadata": {"uid": self.uid}, "status": difference(written, wanted)});
        let pods = self.client.namespaced::<Pod>(&self.namespace);
        pods.patch_status(&self.name, &Patch::Strategic(body)).await.map(drop)
    }
}

/// The status as JSON, without conditions that belong to others.
fn essence(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(list) = value.get_mut("conditions").and_then(Value::as_array_mut) {
        list.retain(|condition| condition["type"].as_str().is_some_and(conditions::is_owned));
    }
    value
}

/// A strategic merge patch from one status to the other.
fn difference(old: &Value, new: &Value) -> Value {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key).unwrap_or(&Value::Null);
        if before == value {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => changed_conditions(before, value),
            "podIPs" => merged_by(before, value, "ip"),
            "hostIPs" => merged_by(before, value, "ip"),
            _ => value.clone(),
        };
        patch.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key) && OWN_FIELDS.contains(&key.as_str())) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// What the node may also take away; fields of others (a nominated node, say) are left alone.
const OWN_FIELDS: [&str; 7] = [
    "message",
    "reason",
    "podIP",
    "podIPs",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
];

/// Conditions are merged by their type: only the changed ones, and what a changed one lost is named as null.
fn changed_conditions(old: &Value, new: &Value) -> Value {
    let (none, none_too) = (Vec::new(), Vec::new());
    let (old, new) = (old.as_array().unwrap_or(&none), new.as_array().unwrap_or(&none_too));
    let mut changed = Vec::new();
    for condition in new {
        let before = old.iter().find(|before| before["type"] == condition["type"]);
        if before == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        for key in before.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if condition.get(key).is_none() {
                condition[key] = Value::Null;
            }
        }
        changed.push(condition);
    }
    Value::Array(changed)
}

/// A list that is merged by a key: what is not in the new one is deleted by name.
fn merged_by(old: &Value, new: &Value, key: &str) -> Value {
    let mut list = new.as_array().cloned().unwrap_or_default();
    for gone in old.as_array().into_iter().flatten() {
        if !list.iter().any(|entry| entry[key] == gone[key]) {
            list.push(json!({"$patch": "delete", key: gone[key]}));
        }
    }
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value, expected: Value) {
        assert_eq!(difference(&old, &new), expected);
    }

    #[test]
    fn only_what_differs_is_sent() {
        check(json!({"phase": "Pending"}), json!({"phase": "Pending"}), json!({}));
        check(
            json!({"phase": "Pending", "reason": "x", "nominatedNodeName": "n"}),
            json!({"phase": "Running"}),
            json!({"phase": "Running", "reason": null}),
        );
        check(
            json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "PodScheduled", "status": "True"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": null}]}),
        );
        check(
            json!({"podIPs": [{"ip": "a"}]}),
            json!({"podIPs": [{"ip": "b"}]}),
            json!({"podIPs": [{"ip": "b"}, {"$patch": "delete", "ip": "a"}]}),
        );
    }
}
