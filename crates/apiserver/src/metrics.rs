//! The server's own measurements under upstream's names, in the Prometheus text format.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Collectors;
use xebec_api::resource::ResourceType;

use crate::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
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

/// Upstream's bounds, in seconds.
const DURATION_BOUNDS: [f64; 21] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0];

fn durations() -> Histogram {
    Histogram::new(DURATION_BOUNDS)
}

pub struct Metrics {
    collectors: Collectors,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    inflight: Family<KindLabels, Gauge>,
    watches: Family<WatchLabels, Gauge<i64, AtomicI64>>,
    objects: Family<ObjectLabels, Gauge>,
    registry: Weak<Registry>,
}

/// What of a request is counted.
pub struct Measured<'a> {
    pub verb: &'static str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub scope: &'static str,
    pub code: u16,
    pub took: Duration,
}

/// An open watch; dropping it counts it out.
pub struct OpenWatch(Gauge<i64, AtomicI64>);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub fn new(registry: &Arc<Registry>) -> Self {
        let mut collectors = Collectors::default();
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<DurationLabels, Histogram, fn() -> Histogram>::new_with_constructor(durations);
        let (inflight, watches, objects) = (Family::default(), Family::default(), Family::default());
        let help = "Requests by verb, resource, scope and code";
        collectors.register("apiserver_request", help, requests.clone());
        let help = "Seconds that requests took, watches aside";
        collectors.register("apiserver_request_duration_seconds", help, durations.clone());
        let help = "Requests in flight";
        collectors.register("apiserver_current_inflight_requests", help, inflight.clone());
        collectors.register("apiserver_longrunning_requests", "Open watches", watches.clone());
        collectors.register("apiserver_storage_objects", "Stored objects", objects.clone());
        let registry = Arc::downgrade(registry);
        Metrics { collectors, requests, durations, inflight, watches, objects, registry }
    }

    pub fn count(&self, measured: &Measured<'_>) {
        let labels = RequestLabels {
            verb: measured.verb,
            group: measured.group.to_owned(),
            version: measured.version.to_owned(),
            resource: measured.resource.to_owned(),
            subresource: measured.subresource.to_owned(),
            scope: measured.scope,
            code: measured.code,
        };
        self.requests.get_or_create(&labels).inc();
        if measured.verb == "WATCH" {
            return;
        }
        let RequestLabels { verb, group, version, resource, subresource, scope, .. } = labels;
        let labels = DurationLabels { verb, group, version, resource, subresource, scope };
        self.durations.get_or_create(&labels).observe(measured.took.as_secs_f64());
    }

    pub fn set_inflight(&self, request_kind: &'static str, number: usize) {
        self.inflight.get_or_create(&KindLabels { request_kind }).set(number as i64);
    }

    pub fn watch_opened(&self, resource: &ResourceType) -> OpenWatch {
        let labels = WatchLabels {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
        };
        let gauge = self.watches.get_or_create(&labels).clone();
        gauge.inc();
        OpenWatch(gauge)
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        if let Some(registry) = self.registry.upgrade() {
            for served in registry.index.iter().filter(|served| served.row.conversion.is_none()) {
                let resource = served.resource().group_resource();
                self.objects.get_or_create(&ObjectLabels { resource }).set(served.cache.len() as i64);
            }
        }
        let mut out = String::new();
        let _ = encode(&mut out, &self.collectors);
        out
    }
}
