//! Counts and durations of requests, by what they are about.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{Equivalent, HashMap};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Collectors;

use super::{COMPONENT, DURATION_BOUNDS};

/// So many kinds of requests are told apart: all of a full cluster's, and no end of memory for whoever makes some up.
const MOST_SERIES: usize = 20_000;

/// What of a request is counted. The strings are names that the server knows, never merely what a client wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Measured<'a> {
    pub verb: &'static str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub scope: &'static str,
    pub dry_run: &'static str,
    pub code: u16,
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SliLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

/// Owned by the table of series; looked up by what was measured, without a copy of it.
struct Key(RequestLabels);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let RequestLabels { verb, dry_run, group, version, resource, subresource, scope, code, .. } = &self.0;
        (*verb, *dry_run, &**group, &**version, &**resource, &**subresource, *scope, *code).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Measured<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Measured { verb, group, version, resource, subresource, scope, dry_run, code, .. } = self;
        (*verb, *dry_run, *group, *version, *resource, *subresource, *scope, *code).hash(state);
    }
}

impl Equivalent<Key> for Measured<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let key = &key.0;
        (self.code, self.verb, self.scope, self.dry_run) == (key.code, key.verb, key.scope, key.dry_run)
            && (self.resource, self.subresource, self.group, self.version)
                == (&*key.resource, &*key.subresource, &*key.group, &*key.version)
    }
}

struct Series {
    requests: Counter,
    duration: Option<Histogram>,
    sli: Option<Histogram>,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

pub struct Requests {
    known: RwLock<HashMap<Key, Arc<Series>, std::hash::RandomState>>,
    requests: Family<RequestLabels, Counter>,
    durations: Durations<DurationLabels>,
    slis: Durations<SliLabels>,
}

fn durations() -> Histogram {
    Histogram::new(DURATION_BOUNDS)
}

impl Requests {
    pub fn new(collectors: &mut Collectors) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let all = Durations::<DurationLabels>::new_with_constructor(durations);
        let slis = Durations::<SliLabels>::new_with_constructor(durations);
        collectors.register("apiserver_request", "Requests by verb, resource, scope and code", requests.clone());
        let help = "Seconds that requests took, watches aside";
        collectors.register("apiserver_request_duration_seconds", help, all.clone());
        let help = "Seconds that requests took, watches and waiting for a turn aside";
        collectors.register("apiserver_request_sli_duration_seconds", help, slis.clone());
        Requests { known: RwLock::default(), requests, durations: all, slis }
    }

    pub fn count(&self, measured: &Measured<'_>) {
        let known = self.known.read().get(measured).cloned();
        let Some(series) = known.or_else(|| self.add(measured)) else { return };
        series.requests.inc();
        let seconds = measured.took.as_secs_f64();
        for histogram in series.duration.iter().chain(&series.sli) {
            histogram.observe(seconds);
        }
    }

    fn add(&self, measured: &Measured<'_>) -> Option<Arc<Series>> {
        let mut known = self.known.write();
        if known.len() >= MOST_SERIES {
            return None;
        }
        let labels = RequestLabels {
            verb: measured.verb,
            dry_run: measured.dry_run,
            group: measured.group.to_owned(),
            version: measured.version.to_owned(),
            resource: measured.resource.to_owned(),
            subresource: measured.subresource.to_owned(),
            scope: measured.scope,
            component: COMPONENT,
            code: measured.code,
        };
        let requests = self.requests.get_or_create(&labels).clone();
        let key = Key(labels.clone());
        let RequestLabels { verb, dry_run, group, version, resource, subresource, scope, component, .. } = labels;
        let mut series = Series { requests, duration: None, sli: None };
        // How long a client watches says nothing about the server.
        if !matches!(verb, "WATCH" | "CONNECT") {
            let labels = SliLabels {
                verb,
                group: group.clone(),
                version: version.clone(),
                resource: resource.clone(),
                subresource: subresource.clone(),
                scope,
                component,
            };
            series.sli = Some(self.slis.get_or_create(&labels).clone());
            let labels = DurationLabels { verb, dry_run, group, version, resource, subresource, scope, component };
            series.duration = Some(self.durations.get_or_create(&labels).clone());
        }
        let series = Arc::new(series);
        known.insert(key, series.clone());
        Some(series)
    }
}
