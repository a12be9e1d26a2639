//! Priority and fairness: how many requests run at the same time, and whose turn it is when there are more.
//!
//! Every request falls under a FlowSchema, which names its priority level; each level has seats of its own, borrows those
//! that others do not need, and keeps its flows apart in queues, so that a flood from one user holds up nobody else. The
//! objects are read from the cache and compiled when one of them has changed; without any, the built-in ones count.
//! Behaviour: upstream's API priority and fairness (KEP-1040). Nothing runs here by itself: limits are adjusted by the
//! requests that come in. Long-running requests are not counted, watches only until they have told what there is.

pub mod allocation;
pub mod classify;
pub mod defaults;
mod demand;
mod level;
mod queues;
mod retry;
mod width;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use parking_lot::Mutex;
use xebec_base::SharedClock;

use crate::authn::User;
use crate::metrics::flow::{FlowMetrics, LevelSeries, SchemaSeries};
use crate::options::Options;
use crate::registry::Registry;
use crate::request_info::RequestInfo;

use allocation::Claim;
pub use demand::Seen;
use level::{Entry, Level, Seat};
pub use queues::Refusal;
pub use width::begins_with_objects;

const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
/// How often seats move between levels.
const ADJUSTMENT: Duration = Duration::from_secs(10);
/// No request waits longer: a quarter of upstream's request timeout of a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// No list takes more than this part of its level's seats.
const WIDEST_PART: f64 = 0.15;

/// What the server's operator decides: upstream's `--max-requests-inflight`, `--max-mutating-requests-inflight` and
/// `--enable-priority-and-fairness`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub reading: usize,
    pub writing: usize,
    /// Without it the two limits count each for itself, and nobody waits.
    pub fair: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { reading: 400, writing: 200, fair: true }
    }
}

impl Limits {
    fn seats(&self) -> usize {
        self.reading + self.writing
    }
}

pub struct FlowControl {
    limits: Limits,
    registry: Weak<Registry>,
    clock: SharedClock,
    metrics: FlowMetrics,
    reading: AtomicI64,
    writing: AtomicI64,
    compiled: ArcSwap<Compiled>,
    /// Held by whoever compiles or adjusts.
    changing: Mutex<Duration>,
}

/// The objects at one state of their caches.
#[derive(Default)]
struct Compiled {
    /// `None` before the first look.
    revisions: Option<(u64, u64)>,
    /// By precedence; the last one catches all.
    schemas: Vec<Schema>,
    levels: HashMap<String, Arc<Level>>,
}

struct Schema {
    object: Arc<FlowSchema>,
    level: Arc<Level>,
    headers: [(HeaderName, HeaderValue); 2],
    series: Arc<SchemaSeries>,
}

/// A request's place among the running ones. Dropping it lets the next one run.
pub struct Permit {
    control: Arc<FlowControl>,
    writes: bool,
    /// `None` for a request that is not subject to fairness.
    place: Option<Place>,
}

struct Place {
    seat: Seat,
    headers: [(HeaderName, HeaderValue); 2],
}

/// The request may not run now.
pub struct Refused {
    /// The client is to come back after so many seconds.
    pub retry_after: i64,
    headers: Option<[(HeaderName, HeaderValue); 2]>,
}

impl Refused {
    pub fn headers(&self, out: &mut HeaderMap) {
        out.insert(http::header::RETRY_AFTER, HeaderValue::from(self.retry_after));
        out.extend(self.headers.iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    }
}

impl Permit {
    /// Which schema and level the request fell under.
    pub fn headers(&self, out: &mut HeaderMap) {
        let headers = self.place.iter().flat_map(|place| &place.headers);
        out.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.control.counter(self.writes).fetch_sub(1, Ordering::Relaxed);
        if let Some(place) = self.place.take() {
            place.seat.leave(self.control.clock.elapsed());
        }
    }
}

/// What is counted differently from the others: streams that a client holds open.
pub fn is_long_running(info: &RequestInfo<'_>) -> bool {
    info.verb == "watch"
        || info.verb == "proxy"
        || matches!(info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
        || (!info.is_resource && info.path.starts_with("/debug/pprof/"))
}

impl FlowControl {
    pub fn new(limits: Limits, registry: &Arc<Registry>, metrics: FlowMetrics) -> Arc<Self> {
        Arc::new(FlowControl {
            limits,
            registry: Arc::downgrade(registry),
            clock: registry.clock.clone(),
            metrics,
            reading: AtomicI64::new(0),
            writing: AtomicI64::new(0),
            compiled: ArcSwap::default(),
            changing: Mutex::new(Duration::ZERO),
        })
    }

    /// Waits for a place among the running requests; `None` for a request that needs none.
    pub async fn enter(
        self: &Arc<Self>,
        user: &User,
        info: &RequestInfo<'_>,
        options: &Options,
    ) -> Result<Option<Permit>, Refused> {
        if is_long_running(info) && info.verb != "watch" {
            return Ok(None);
        }
        let writes = !matches!(info.verb, "get" | "list" | "watch");
        if !self.limits.fair {
            return self.enter_unfairly(writes, info).transpose();
        }
        let Some(registry) = self.registry.upgrade() else { return Ok(None) };
        let compiled = self.current(&registry);
        let found = compiled.schemas.iter().find(|schema| schema.covers(user, info)).or(compiled.schemas.last());
        let Some(schema) = found else { return Ok(None) };
        let level = &schema.level;
        let entry = if level.is_exempt() {
            Entry { hash: 0, seats: 1 }
        } else {
            let cache = registry.index.find(info.group, info.version, info.resource).map(|served| &*served.cache);
            Entry {
                hash: classify::flow(schema.name(), &schema.object.spec, user, info),
                seats: width::seats(info, options, cache, level.widest()),
            }
        };
        schema.series.seats.observe(entry.seats as f64);
        match level.enter(entry, &schema.series, &self.clock, LONGEST_WAIT).await {
            Ok(seat) => {
                self.counter(writes).fetch_add(1, Ordering::Relaxed);
                let place = Place { seat, headers: schema.headers.clone() };
                Ok(Some(Permit { control: self.clone(), writes, place: Some(place) }))
            }
            Err(why) => {
                self.metrics.refuse(level.name(), schema.name(), why.name());
                let retry_after = level.retry_after(self.clock.now().as_second());
                Err(Refused { retry_after, headers: Some(schema.headers.clone()) })
            }
        }
    }

    /// How many requests run that only read, and how many that write.
    pub fn running(&self) -> (i64, i64) {
        (self.reading.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }

    fn enter_unfairly(self: &Arc<Self>, writes: bool, info: &RequestInfo<'_>) -> Option<Result<Permit, Refused>> {
        if info.verb == "watch" {
            return None;
        }
        let limit = if writes { self.limits.writing } else { self.limits.reading };
        let before = self.counter(writes).fetch_add(1, Ordering::Relaxed);
        if before < limit as i64 {
            return Some(Ok(Permit { control: self.clone(), writes, place: None }));
        }
        self.counter(writes).fetch_sub(1, Ordering::Relaxed);
        Some(Err(Refused { retry_after: 1, headers: None }))
    }

    fn counter(&self, writes: bool) -> &AtomicI64 {
        if writes { &self.writing } else { &self.reading }
    }

    /// The compiled objects, anew if one of them has changed; seats are moved when their time has come.
    fn current(&self, registry: &Registry) -> Arc<Compiled> {
        let revision = |one: Option<u64>| one.unwrap_or(0);
        let schemas = registry.cache_of::<FlowSchema>().map(|cache| cache.snapshot().revision);
        let levels = registry.cache_of::<PriorityLevelConfiguration>().map(|cache| cache.snapshot().revision);
        let revisions = (revision(schemas), revision(levels));
        let known = self.compiled.load_full();
        let now = self.clock.elapsed();
        if known.revisions == Some(revisions) {
            if let Some(mut adjusted) = self.changing.try_lock()
                && now.saturating_sub(*adjusted) >= ADJUSTMENT
            {
                *adjusted = now;
                self.adjust(&known.levels, now);
            }
            return known;
        }
        let mut adjusted = self.changing.lock();
        let known = self.compiled.load_full();
        if known.revisions == Some(revisions) {
            return known;
        }
        let compiled = Arc::new(self.compile(registry, &known, revisions, now));
        *adjusted = now;
        self.adjust(&compiled.levels, now);
        self.compiled.store(compiled.clone());
        compiled
    }

    fn compile(&self, registry: &Registry, known: &Compiled, revisions: (u64, u64), now: Duration) -> Compiled {
        let mut levels: Vec<Arc<PriorityLevelConfiguration>> = registry.list("");
        let mut schemas: Vec<Arc<FlowSchema>> = registry.list("");
        // The two that always have to be there, or all as long as there is none.
        let every = levels.is_empty() && schemas.is_empty();
        let wanted = |name: Option<&str>| every || matches!(name, Some(EXEMPT | CATCH_ALL));
        for level in defaults::priority_levels() {
            if wanted(level.metadata.name.as_deref())
                && levels.iter().all(|one| one.metadata.name != level.metadata.name)
            {
                levels.push(Arc::new(level));
            }
        }
        for schema in defaults::flow_schemas() {
            let missing = schemas.iter().all(|one| one.metadata.name != schema.metadata.name);
            if wanted(schema.metadata.name.as_deref()) && missing {
                schemas.push(Arc::new(schema));
            }
        }
        let shares: f64 = levels.iter().map(|level| level::shares(level)).sum();
        let seats = self.limits.seats();
        let mut compiled = Compiled { revisions: Some(revisions), ..Compiled::default() };
        for object in levels {
            let name = object.metadata.name.clone().unwrap_or_default();
            let Some(config) = level::Config::of(&object, seats, shares) else { continue };
            let old = known.levels.get(&name).filter(|old| old.is_exempt() == config.exempt);
            let level = match old {
                Some(old) => old.clone(),
                None => Arc::new(Level::new(&name, &config, self.metrics.level(&name), now)),
            };
            level.configure(&config, now);
            compiled.levels.insert(name, level);
        }
        schemas.sort_by(|a, b| order(a).cmp(&order(b)));
        for object in schemas {
            compiled.schemas.extend(self.schema(object, &compiled.levels));
        }
        // What no schema covers goes the way of the last.
        compiled.schemas.sort_by_key(|schema| schema.name() == CATCH_ALL);
        compiled
    }

    /// A schema that names a level which is not there does not count.
    fn schema(&self, object: Arc<FlowSchema>, levels: &HashMap<String, Arc<Level>>) -> Option<Schema> {
        let level = levels.get(&object.spec.priority_level_configuration.name)?.clone();
        let name = object.metadata.name.as_deref().unwrap_or("");
        let uid = object.metadata.uid.as_deref().unwrap_or("");
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        let headers = [(LEVEL_UID, header(&level.uid())), (SCHEMA_UID, header(uid))];
        let series = Arc::new(self.metrics.schema(level.name(), name));
        Some(Schema { level, headers, series, object })
    }

    /// Gives each level seats by what it could have used since the last time.
    fn adjust(&self, levels: &HashMap<String, Arc<Level>>, now: Duration) {
        let mut total = levels.values().map(|level| level.nominal()).sum::<usize>() as f64;
        let (mut claims, mut limited) = (Vec::new(), Vec::new());
        for level in levels.values() {
            let seen = level.take_demand(now);
            let lower = level.lower_bound(seen.highest);
            level.series().note(&seen, f64::max(lower as f64, seen.smoothed));
            if level.is_exempt() {
                total -= lower as f64;
                level.set_limit(lower, now);
                continue;
            }
            let target = f64::max(lower as f64, seen.smoothed);
            claims.push(Claim { lower: lower as f64, upper: level.most() as f64, target });
            limited.push(level);
        }
        let least: usize = limited.iter().map(|level| level.least()).sum();
        let wanted: f64 = claims.iter().map(|claim| claim.lower).sum();
        let (given, fraction) = if total <= least as f64 {
            (limited.iter().map(|level| level.least() as f64).collect(), 0.0)
        } else if total <= wanted {
            let part = (total - least as f64) / (wanted - least as f64);
            let lower = |level: &Arc<Level>| level.least() as f64;
            let all = limited.iter().zip(&claims);
            (all.map(|(level, claim)| lower(level) + (claim.lower - lower(level)) * part).collect(), 0.0)
        } else {
            allocation::divide(total, &claims)
        };
        self.metrics.set_fair_fraction(fraction);
        for (level, seats) in limited.iter().zip(given as Vec<f64>) {
            level.set_limit(seats.round() as usize, now);
        }
    }
}

fn order(schema: &FlowSchema) -> (i32, &str) {
    let precedence = schema.spec.matching_precedence.unwrap_or(i32::MAX);
    (precedence, schema.metadata.name.as_deref().unwrap_or(""))
}

impl Schema {
    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or("")
    }

    fn covers(&self, user: &User, info: &RequestInfo<'_>) -> bool {
        classify::matches(&self.object.spec, user, info)
    }
}

#[cfg(test)]
mod tests;
