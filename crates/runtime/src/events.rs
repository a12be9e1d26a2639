//! The event recorder: components tell what they did and why something failed, and it becomes Events without their waiting.
//!
//! The same thing said again raises the count of the Event that stands instead of making another; an object about which too much is
//! said is throttled, with upstream's limits. Losing an Event is no error: it is logged and forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;
use xebec_api::Kind;
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_client::{Client, Error, Patch};

/// Records that may wait to be written; more are dropped, so that a flood of events never holds memory or a component up.
const QUEUE_LIMIT: usize = 1000;
/// Upstream's spam filter: so many Events at once for one object from one source …
const BURST: f64 = 25.0;
/// … and then one in five minutes.
const REFILL: Duration = Duration::from_secs(300);
/// How many different Events are remembered for counting repeats, as upstream's cache.
const REMEMBERED: usize = 4096;

#[derive(Clone)]
pub struct EventRecorder {
    component: Arc<str>,
    host: Option<Arc<str>>,
    /// Set for Events of the newer form (KEP-383): they have an `eventTime`, an action and a series instead of a count.
    action: Option<&'static str>,
    queue: mpsc::Sender<Record>,
}

struct Record {
    component: Arc<str>,
    host: Option<Arc<str>>,
    action: Option<&'static str>,
    regarding: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
}

impl EventRecorder {
    pub fn new(client: Client, clock: SharedClock, shutdown: &Shutdown, component: &str) -> Self {
        let (queue, records) = mpsc::channel(QUEUE_LIMIT);
        let writer = Writer { client, clock, known: HashMap::new(), budgets: HashMap::new(), sequence: 0 };
        shutdown.spawn(writer.run(records));
        EventRecorder { component: component.into(), host: None, action: None, queue }
    }

    /// The same recorder in another component's name.
    pub fn named(&self, component: &str) -> Self {
        EventRecorder { component: component.into(), ..self.clone() }
    }

    /// The same recorder for a component of a node.
    pub fn on_host(&self, host: &str) -> Self {
        EventRecorder { host: Some(host.into()), ..self.clone() }
    }

    /// The same recorder for Events of the newer form about one kind of action.
    pub fn acting(&self, action: &'static str) -> Self {
        EventRecorder { action: Some(action), ..self.clone() }
    }

    pub fn normal(&self, regarding: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(regarding, false, reason, message.into());
    }

    pub fn warning(&self, regarding: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(regarding, true, reason, message.into());
    }

    fn record(&self, regarding: &ObjectReference, warning: bool, reason: &str, message: String) {
        let record = Record {
            component: self.component.clone(),
            host: self.host.clone(),
            action: self.action,
            regarding: regarding.clone(),
            warning,
            reason: reason.to_owned(),
            message,
        };
        if self.queue.try_send(record).is_err() {
            tracing::warn!(reason, "an event was dropped, too many are waiting");
        }
    }
}

/// The reference that an Event bears to an object.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    clock: SharedClock,
    /// What was said about what, and the Event that says it.
    known: HashMap<String, Known>,
    budgets: HashMap<String, Budget>,
    sequence: u64,
}

struct Known {
    namespace: String,
    name: String,
    count: i32,
}

struct Budget {
    tokens: f64,
    at: Duration,
}

impl Writer {
    async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            if !self.admit(&record) {
                continue;
            }
            if let Err(error) = self.write(&record).await {
                tracing::debug!(reason = record.reason, error = %Chain(&error), "an event was not written");
            }
        }
    }

    fn admit(&mut self, record: &Record) -> bool {
        let now = self.clock.elapsed();
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
        let key = format!("{}/{}", record.component, record.regarding.uid.as_deref().unwrap_or(""));
        let budget = self.budgets.entry(key).or_insert(Budget { tokens: BURST, at: now });
        let refilled = now.saturating_sub(budget.at).as_secs_f64() / REFILL.as_secs_f64();
        budget.tokens = (budget.tokens + refilled).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    async fn write(&mut self, record: &Record) -> Result<(), Error> {
        let now = self.clock.now();
        let key = record.identity();
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            let last = serde_json::to_value(Time(now)).unwrap_or_default();
            let patch = match record.action {
                None => json!({"count": known.count, "lastTimestamp": last}),
                Some(_) => json!({"series": {"count": known.count, "lastObservedTime": MicroTime(now)}}),
            };
            let patch = Patch::Strategic(patch);
            match self.client.namespaced::<Event>(&known.namespace).patch(&known.name, &patch).await {
                Err(error) if error.is_not_found() => {}
                result => return result.map(|_| ()),
            }
        }
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        self.sequence += 1;
        let event = record.to_event(now, self.sequence);
        let created = self.client.namespaced::<Event>(record.namespace()).create(&event).await?;
        let name = created.metadata.name.unwrap_or_default();
        self.known.insert(key, Known { namespace: record.namespace().to_owned(), name, count: 1 });
        Ok(())
    }
}

impl Record {
    /// Events about objects without a namespace lie in `default`.
    fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
    }

    fn identity(&self) -> String {
        let about = &self.regarding;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            &*self.component,
            self.host.as_deref().unwrap_or(""),
            &part(&about.kind),
            &part(&about.namespace),
            &part(&about.name),
            &part(&about.uid),
            &part(&about.field_path),
            if self.warning { "W" } else { "N" },
            &self.reason,
            &self.message,
        ]
        .join("\u{1f}")
    }

    fn to_event(&self, now: Timestamp, sequence: u64) -> Event {
        let subject = self.regarding.name.as_deref().unwrap_or("unknown");
        // Unique as upstream's are: the time, made distinct for records of the same instant.
        let stamp = now.as_nanosecond() as u64 ^ (sequence << 1);
        let host = self.host.as_deref().map(str::to_owned);
        let source = EventSource { component: Some(self.component.to_string()), host: host.clone() };
        let classic = self.action.is_none();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{subject}.{stamp:016x}")),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: self.regarding.clone(),
            type_: Some(if self.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(self.reason.clone()),
            message: Some(self.message.clone()),
            action: self.action.map(str::to_owned),
            source: classic.then_some(source),
            reporting_component: Some(self.component.to_string()),
            reporting_instance: Some(
                host.unwrap_or_else(|| if classic { String::new() } else { self.component.to_string() }),
            ),
            count: classic.then_some(1),
            first_timestamp: classic.then_some(Time(now)),
            last_timestamp: classic.then_some(Time(now)),
            event_time: (!classic).then_some(MicroTime(now)),
            ..Event::default()
        }
    }
}
