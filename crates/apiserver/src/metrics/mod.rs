//! The server's own measurements under upstream's names, in the Prometheus text format.
//!
//! What is counted for every request has its place looked up once and is an atomic number from then on. What can be read
//! off when somebody asks (objects, memory) is not counted at all.

pub mod flow;
mod process;
mod requests;
mod store;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as Collectors;
use xebec_api::resource::ResourceType;

use crate::registry::Registry;
use crate::request_info::RequestInfo;
use flow::FlowMetrics;
pub use requests::Measured;
use requests::Requests;
pub use store::{MeasuredStore, StoreMetrics};

/// Upstream's bounds of latencies, in seconds.
const DURATION_BOUNDS: [f64; 24] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0, 120.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LongLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    group: String,
    version: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    group: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    name: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckedLabels {
    name: String,
    r#type: &'static str,
    status: &'static str,
}

/// Writes further families in the text format, for parts of the process that this crate does not know.
pub type Source = Box<dyn Fn(&mut String) + Send + Sync>;

pub struct Metrics {
    collectors: Collectors,
    requests: Requests,
    pub flow: FlowMetrics,
    inflight: Family<KindLabels, Gauge>,
    long_running: Family<LongLabels, Gauge<i64, AtomicI64>>,
    events: Family<WatchLabels, Counter>,
    objects: Family<ObjectLabels, Gauge>,
    resource_objects: Family<ResourceLabels, Gauge>,
    resource_sizes: Family<ResourceLabels, Gauge>,
    checks: Collectors,
    check_results: Family<CheckLabels, Gauge>,
    check_totals: Family<CheckedLabels, Counter>,
    sources: Mutex<Vec<Source>>,
    registry: Weak<Registry>,
}

/// An open long-running request; dropping it counts it out.
pub struct OpenRequest {
    gauge: Gauge<i64, AtomicI64>,
    events: Option<Counter>,
}

impl OpenRequest {
    /// Counts events that a watch has written.
    pub fn sent(&self, events: usize) {
        if let Some(counter) = &self.events {
            counter.inc_by(events as u64);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Metrics {
    pub fn new(registry: &Arc<Registry>, store: Option<StoreMetrics>) -> Self {
        let mut collectors = Collectors::default();
        let requests = Requests::new(&mut collectors);
        let flow = FlowMetrics::new(&mut collectors);
        let metrics = Metrics {
            requests,
            flow,
            inflight: Family::default(),
            long_running: Family::default(),
            events: Family::default(),
            objects: Family::default(),
            resource_objects: Family::default(),
            resource_sizes: Family::default(),
            checks: Collectors::default(),
            check_results: Family::default(),
            check_totals: Family::default(),
            sources: Mutex::default(),
            registry: Arc::downgrade(registry),
            collectors,
        };
        metrics.registered(store)
    }

    fn registered(mut self, store: Option<StoreMetrics>) -> Self {
        let all = &mut self.collectors;
        all.register("apiserver_current_inflight_requests", "Requests in flight", self.inflight.clone());
        let help = "Requests that a client holds open, watches among them";
        all.register("apiserver_longrunning_requests", help, self.long_running.clone());
        all.register("apiserver_watch_events", "Events sent to watches", self.events.clone());
        all.register("apiserver_storage_objects", "Stored objects", self.objects.clone());
        all.register("apiserver_resource_objects", "Stored objects", self.resource_objects.clone());
        let help = "Bytes that the stored objects of a resource take, estimated from a few of them";
        all.register("apiserver_resource_size_estimate_bytes", help, self.resource_sizes.clone());
        if let Some(store) = store {
            store.register(all);
        }
        let help = "The last result of a health check";
        self.checks.register("kubernetes_healthcheck", help, self.check_results.clone());
        self.checks.register("kubernetes_healthchecks", "Results of health checks", self.check_totals.clone());
        self
    }

    /// Has the text of another part of the process go out with this one.
    pub fn add_source(&self, source: Source) {
        self.sources.lock().push(source);
    }

    pub fn count(&self, measured: &Measured<'_>) {
        self.requests.count(measured);
    }

    pub fn set_inflight(&self, (reading, writing): (i64, i64)) {
        self.inflight.get_or_create(&KindLabels { request_kind: "readOnly" }).set(reading);
        self.inflight.get_or_create(&KindLabels { request_kind: "mutating" }).set(writing);
    }

    pub fn watch_opened(&self, resource: &ResourceType, scope: &'static str) -> OpenRequest {
        let labels = WatchLabels {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
        };
        let events = self.events.get_or_create(&labels).clone();
        let WatchLabels { group, version, resource } = labels;
        let subresource = String::new();
        self.opened(
            LongLabels { verb: "WATCH", group, version, resource, subresource, scope, component: COMPONENT },
            Some(events),
        )
    }

    /// A stream that is no watch: a log, a terminal, a proxied request.
    pub fn stream_opened(&self, verb: &'static str, info: &RequestInfo<'_>) -> OpenRequest {
        let labels = LongLabels {
            verb,
            group: info.group.to_owned(),
            version: info.version.to_owned(),
            resource: info.resource.to_owned(),
            subresource: info.subresource.to_owned(),
            scope: scope(info),
            component: COMPONENT,
        };
        self.opened(labels, None)
    }

    fn opened(&self, labels: LongLabels, events: Option<Counter>) -> OpenRequest {
        let gauge = self.long_running.get_or_create(&labels).clone();
        gauge.inc();
        OpenRequest { gauge, events }
    }

    /// The result of one health check of `healthz`, `livez` or `readyz`.
    pub fn checked(&self, name: &str, of: &'static str, ok: bool) {
        let labels = CheckLabels { name: name.to_owned(), r#type: of };
        self.check_results.get_or_create(&labels).set(i64::from(ok));
        let status = if ok { "success" } else { "error" };
        let labels = CheckedLabels { name: name.to_owned(), r#type: of, status };
        self.check_totals.get_or_create(&labels).inc();
    }

    /// The text of `/metrics`: that of OpenMetrics, or of the older Prometheus format.
    pub fn text(&self, open: bool) -> String {
        if let Some(registry) = self.registry.upgrade() {
            for served in registry.index.iter().filter(|served| served.row.conversion.is_none()) {
                let (resource, cache) = (served.resource(), &served.cache);
                let (number, size) = (cache.len() as i64, (cache.len() * cache.typical_size()) as i64);
                self.objects.get_or_create(&ObjectLabels { resource: resource.group_resource() }).set(number);
                let labels =
                    ResourceLabels { group: resource.group.to_string(), resource: resource.plural.to_string() };
                self.resource_objects.get_or_create(&labels).set(number);
                self.resource_sizes.get_or_create(&labels).set(size);
            }
        }
        let mut out = String::new();
        let _ = encode(&mut out, &self.collectors);
        out = classic(&out);
        process::write(&mut out);
        for source in self.sources.lock().iter() {
            source(&mut out);
        }
        finished(out, open)
    }

    /// The text of `/metrics/slis`: the results of health checks.
    pub fn checks_text(&self, open: bool) -> String {
        let mut out = String::new();
        let _ = encode(&mut out, &self.checks);
        let mut out = classic(&out);
        process::write_start_time(&mut out);
        finished(out, open)
    }
}

const COMPONENT: &str = "apiserver";

/// `resource`, `namespace` or `cluster`; nothing for requests that are not about resources.
pub fn scope(info: &RequestInfo<'_>) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}

/// The older format names a counter's family as its samples are named, and knows no end mark.
fn classic(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            continue;
        }
        let heads = |line: &str, what: &str| {
            let (name, rest) = line.strip_prefix(what)?.split_once(' ')?;
            Some((name.to_owned(), rest.to_owned()))
        };
        if let Some((name, help)) = heads(line, "# HELP ") {
            let counts = lines.peek().is_some_and(|next| *next == format!("# TYPE {name} counter"));
            let total = if counts { "_total" } else { "" };
            out.push_str(&format!("# HELP {name}{total} {}\n", help.trim_end_matches('.')));
        } else if let Some((name, kind)) = heads(line, "# TYPE ") {
            let total = if kind == "counter" { "_total" } else { "" };
            out.push_str(&format!("# TYPE {name}{total} {kind}\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// OpenMetrics again: what the other parts wrote has no end of its own either.
fn finished(classic: String, open: bool) -> String {
    if !open {
        return classic;
    }
    let mut out = String::with_capacity(classic.len());
    for line in classic.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, "counter"] => {
                out.push_str(&format!("# TYPE {} counter\n", name.trim_end_matches("_total")));
            }
            ["#", "HELP", name, help] if name.ends_with("_total") => {
                out.push_str(&format!("# HELP {} {help}\n", name.trim_end_matches("_total")));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

/// When this process began, for what tells its age.
fn started() -> jiff::Timestamp {
    static STARTED: OnceLock<jiff::Timestamp> = OnceLock::new();
    *STARTED.get_or_init(process::start_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_name_counters_their_own_way() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n# HELP c Depth.\n# TYPE c gauge\nc 1\n# EOF\n";
        let expected = "# HELP a_b_total Things\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n# HELP c Depth\n# TYPE c gauge\nc 1\n";
        assert_eq!(classic(open), expected);
        assert_eq!(finished(expected.to_owned(), true), open.replace("Things.", "Things").replace("Depth.", "Depth"));
    }

    #[tokio::test]
    async fn the_text_tells_what_is_stored_and_used() {
        let registry = crate::testing::registry().await;
        let metrics = Metrics::new(&registry, None);
        let pods = ResourceType::new("", "v1", "Pod", "pods", true);
        let open = metrics.watch_opened(&pods, "cluster");
        open.sent(3);
        let text = metrics.text(false);
        let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        has("apiserver_storage_objects{resource=\"secrets\"} 0");
        has("apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 0");
        has("apiserver_watch_events_total{group=\"\",version=\"v1\",resource=\"pods\"} 3");
        let watch = "apiserver_longrunning_requests{verb=\"WATCH\",group=\"\",version=\"v1\",resource=\"pods\",subresource=\"\",scope=\"cluster\",component=\"apiserver\"}";
        has(&format!("{watch} 1"));
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        drop(open);
        assert!(metrics.text(true).lines().any(|one| one == format!("{watch} 0")));
        metrics.checked("ping", "livez", true);
        assert!(metrics.checks_text(false).contains("kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1\n"));
    }
}
