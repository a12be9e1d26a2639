//! How long the store takes: upstream's `etcd_request_duration_seconds` and its siblings, whatever the engine.
//!
//! A store around another one; what the cache follows is counted as events.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Collectors;
use xebec_store::{
    Compare, Got, Op, Range, RangeResult, Result, Revision, Store, Target, Txn, TxnResult, WatchRequest, WatchStream,
};

use super::{DURATION_BOUNDS, ResourceLabels};
use crate::cache::ROOT;
use crate::registry::erased::Row;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
    group: String,
    resource: String,
}

fn durations() -> Histogram {
    Histogram::new(DURATION_BOUNDS)
}

/// The families; made before the store that feeds them, and shown by the server's metrics.
#[derive(Clone)]
pub struct StoreMetrics {
    durations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    requests: Family<OperationLabels, Counter>,
    errors: Family<OperationLabels, Counter>,
    events: Family<ResourceLabels, Counter>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        StoreMetrics {
            durations: Family::new_with_constructor(durations),
            requests: Family::default(),
            errors: Family::default(),
            events: Family::default(),
        }
    }
}

impl StoreMetrics {
    pub fn register(&self, collectors: &mut Collectors) {
        collectors.register("etcd_request_duration_seconds", "Seconds that the store took", self.durations.clone());
        collectors.register("etcd_requests", "Requests to the store", self.requests.clone());
        collectors.register("etcd_request_errors", "Failed requests to the store", self.errors.clone());
        collectors.register("apiserver_storage_events_received", "Changes seen in the store", self.events.clone());
    }
}

const OPERATIONS: [&str; 5] = ["get", "list", "create", "update", "delete"];

struct Series {
    duration: Histogram,
    requests: Counter,
    errors: Counter,
}

/// The series of one resource. They come into being with the first thing that they count, as elsewhere.
struct ResourceSeries {
    metrics: StoreMetrics,
    group: String,
    resource: String,
    operations: [OnceLock<Series>; OPERATIONS.len()],
    events: OnceLock<Counter>,
}

pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    known: Arc<Directories>,
}

/// Series by the directory of the stored keys.
struct Directories {
    all: HashMap<String, ResourceSeries>,
    others: ResourceSeries,
}

impl MeasuredStore {
    pub fn new(inner: Arc<dyn Store>, metrics: &StoreMetrics, rows: &[Row]) -> Self {
        let all = rows.iter().map(|row| {
            let prefix = row.prefix();
            let directory = prefix.strip_prefix(ROOT).unwrap_or(&prefix).trim_end_matches('/').to_owned();
            (directory, ResourceSeries::new(metrics, &row.stored.group, &row.stored.plural))
        });
        let known = Directories { all: all.collect(), others: ResourceSeries::new(metrics, "", "") };
        MeasuredStore { inner, known: Arc::new(known) }
    }

    fn done<T>(&self, operation: &'static str, key: &[u8], began: Instant, result: &Result<T>) {
        let series = self.known.of(key).operation(operation);
        series.duration.observe(began.elapsed().as_secs_f64());
        series.requests.inc();
        if result.is_err() {
            series.errors.inc();
        }
    }
}

impl ResourceSeries {
    fn new(metrics: &StoreMetrics, group: &str, resource: &str) -> Self {
        let (metrics, group, resource) = (metrics.clone(), group.to_owned(), resource.to_owned());
        ResourceSeries { metrics, group, resource, operations: Default::default(), events: OnceLock::new() }
    }

    fn operation(&self, operation: &'static str) -> &Series {
        let place = OPERATIONS.iter().position(|one| *one == operation).unwrap_or(0);
        self.operations[place].get_or_init(|| {
            let labels = OperationLabels { operation, group: self.group.clone(), resource: self.resource.clone() };
            Series {
                duration: self.metrics.durations.get_or_create(&labels).clone(),
                requests: self.metrics.requests.get_or_create(&labels).clone(),
                errors: self.metrics.errors.get_or_create(&labels).clone(),
            }
        })
    }

    fn events(&self) -> &Counter {
        self.events.get_or_init(|| {
            let labels = ResourceLabels { group: self.group.clone(), resource: self.resource.clone() };
            self.metrics.events.get_or_create(&labels).clone()
        })
    }
}

impl Directories {
    fn of(&self, key: &[u8]) -> &ResourceSeries {
        self.find(key).unwrap_or(&self.others)
    }

    fn find(&self, key: &[u8]) -> Option<&ResourceSeries> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
        let first = path.find('/')?;
        let second = || path[first + 1..].find('/').map(|at| &path[..first + 1 + at]);
        self.all.get(&path[..first]).or_else(|| self.all.get(second()?))
    }
}

/// What a transaction does, by the first operation that changes something.
fn operation(txn: &Txn) -> (&'static str, Bytes) {
    match txn.success.first() {
        Some(Op::Put { key, .. }) => {
            let absent = |compare: &Compare| compare.key == *key && matches!(compare.target, Target::ModRevision(0));
            (if txn.compare.iter().any(absent) { "create" } else { "update" }, key.clone())
        }
        Some(Op::Delete { key }) => ("delete", key.clone()),
        Some(Op::DeleteRange(range)) => ("delete", range.start.clone()),
        Some(Op::Get { key }) => ("get", key.clone()),
        None => ("get", Bytes::new()),
    }
}

#[async_trait]
impl Store for MeasuredStore {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Got> {
        let began = Instant::now();
        let result = self.inner.get(key, revision).await;
        self.done("get", key, began, &result);
        result
    }

    async fn range(&self, range: Range) -> Result<RangeResult> {
        let (began, key) = (Instant::now(), range.keys.start.clone());
        let result = self.inner.range(range).await;
        self.done("list", &key, began, &result);
        result
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult> {
        let (operation, key) = operation(&txn);
        let began = Instant::now();
        let result = self.inner.txn(txn).await;
        self.done(operation, &key, began, &result);
        result
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        let (stream, known) = (self.inner.watch(request).await?, self.known.clone());
        Ok(WatchStream::new(stream.inspect(move |batch| {
            for event in batch.iter().flat_map(|batch| &batch.events) {
                known.of(&event.kv.key).events().inc();
            }
        })))
    }

    async fn request_progress(&self) -> Result<()> {
        self.inner.request_progress().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use xebec_store::Memory;

    use super::*;

    #[tokio::test]
    async fn operations_are_counted_by_what_they_do() {
        let metrics = StoreMetrics::default();
        let rows = crate::resources::rows();
        let store = MeasuredStore::new(Arc::new(Memory::default()), &metrics, &rows);
        let key = "/registry/secrets/a/b";
        store.txn(Txn::create(key, "x")).await.unwrap();
        let revision = store.get(key.as_bytes(), None).await.unwrap().revision;
        store.txn(Txn::update(key, revision, "y")).await.unwrap();
        store.range(Range::prefix("/registry/secrets/")).await.unwrap();
        assert!(store.range(Range::prefix("/registry/secrets/").at(9_999)).await.is_err());
        store.txn(Txn::delete(key, revision + 1)).await.unwrap();
        let mut collectors = Collectors::default();
        metrics.register(&mut collectors);
        let mut text = String::new();
        encode(&mut text, &collectors).unwrap();
        for (operation, count) in [("create", 1), ("get", 1), ("update", 1), ("list", 2), ("delete", 1)] {
            let labels = format!("{{operation=\"{operation}\",group=\"\",resource=\"secrets\"}}");
            for family in ["etcd_requests_total", "etcd_request_duration_seconds_count"] {
                let line = format!("{family}{labels} {count}");
                assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
            }
        }
        let failed = "etcd_request_errors_total{operation=\"list\",group=\"\",resource=\"secrets\"} 1";
        assert!(text.lines().any(|one| one == failed), "{text}");
        assert!(!text.contains("configmaps"), "what nobody asked for is not shown");
    }
}
