//! What priority and fairness does: upstream's `apiserver_flowcontrol_*`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Collectors;

use crate::flow_control::Seen;

const WAIT_BOUNDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEAT_BOUNDS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

type FloatGauge = Gauge<f64, AtomicU64>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    priority_level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SchemaLabels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExecutionLabels {
    priority_level: String,
    flow_schema: String,
    r#type: &'static str,
}

/// All families. Whoever counts takes the series of its level and schema once.
#[derive(Clone)]
pub struct FlowMetrics {
    refused: Family<RefusalLabels, Counter>,
    dispatched: Family<SchemaLabels, Counter>,
    waiting: Family<SchemaLabels, Gauge>,
    executing: Family<SchemaLabels, Gauge>,
    seats: Family<SchemaLabels, Gauge>,
    waits: Histograms<WaitLabels>,
    executions: Histograms<ExecutionLabels>,
    widths: Histograms<SchemaLabels>,
    limits: [Family<LevelLabels, Gauge>; 5],
    demands: [Family<LevelLabels, FloatGauge>; 4],
    fair_fraction: FloatGauge,
}

/// The series of one schema in its level.
pub struct SchemaSeries {
    pub dispatched: Counter,
    pub waiting: Gauge,
    pub executing: Gauge,
    pub seats_taken: Gauge,
    pub executed: Histogram,
    /// Seats that requests were thought to need.
    pub seats: Histogram,
    waited: Histogram,
    waited_in_vain: Histogram,
}

/// The series of one level.
pub struct LevelSeries {
    nominal: Gauge,
    least: Gauge,
    most: Gauge,
    pub limit: Gauge,
    highest: Gauge,
    average: FloatGauge,
    deviation: FloatGauge,
    smoothed: FloatGauge,
    target: FloatGauge,
}

fn waits() -> Histogram {
    Histogram::new(WAIT_BOUNDS)
}

fn widths() -> Histogram {
    Histogram::new(SEAT_BOUNDS)
}

/// Families of numbers by level: those of seats, and the measured ones.
const LIMITS: [(&str, &str); 5] = [
    ("nominal_limit_seats", "Seats that a level has by its shares"),
    ("lower_limit_seats", "Seats that a level keeps"),
    ("upper_limit_seats", "Seats that a level may have with all that it borrows"),
    ("current_limit_seats", "Seats that a level has now"),
    ("demand_seats_high_watermark", "Most seats that a level could have used in the last period"),
];
const DEMANDS: [(&str, &str); 4] = [
    ("demand_seats_average", "Seats that a level could have used in the last period, on average"),
    ("demand_seats_stdev", "The spread of the seats that a level could have used in the last period"),
    ("demand_seats_smoothed", "Seats that a level could use, smoothed over periods"),
    ("target_seats", "Seats that the division of the server's seats aims at"),
];

impl FlowMetrics {
    pub fn new(collectors: &mut Collectors) -> Self {
        let metrics = FlowMetrics {
            refused: Family::default(),
            dispatched: Family::default(),
            waiting: Family::default(),
            executing: Family::default(),
            seats: Family::default(),
            waits: Family::new_with_constructor(waits),
            executions: Family::new_with_constructor(waits),
            widths: Family::new_with_constructor(widths),
            limits: std::array::from_fn(|_| Family::default()),
            demands: std::array::from_fn(|_| Family::default()),
            fair_fraction: FloatGauge::default(),
        };
        let all = collectors.sub_registry_with_prefix("apiserver_flowcontrol");
        all.register("rejected_requests", "Requests that were refused", metrics.refused.clone());
        all.register("dispatched_requests", "Requests that began to run", metrics.dispatched.clone());
        all.register("current_inqueue_requests", "Requests that wait", metrics.waiting.clone());
        all.register("current_executing_requests", "Requests that run", metrics.executing.clone());
        all.register("current_executing_seats", "Seats of the requests that run", metrics.seats.clone());
        all.register("request_wait_duration_seconds", "Seconds that requests waited", metrics.waits.clone());
        all.register("request_execution_seconds", "Seconds that requests ran", metrics.executions.clone());
        all.register("work_estimated_seats", "Seats that requests were thought to need", metrics.widths.clone());
        for ((name, help), family) in LIMITS.iter().zip(&metrics.limits) {
            all.register(*name, *help, family.clone());
        }
        for ((name, help), family) in DEMANDS.iter().zip(&metrics.demands) {
            all.register(*name, *help, family.clone());
        }
        let help = "The share of its target that a level gets whose bounds do not matter";
        all.register("seat_fair_frac", help, metrics.fair_fraction.clone());
        metrics
    }

    pub fn refuse(&self, level: &str, schema: &str, reason: &'static str) {
        let labels = RefusalLabels { priority_level: level.to_owned(), flow_schema: schema.to_owned(), reason };
        self.refused.get_or_create(&labels).inc();
    }

    pub fn set_fair_fraction(&self, fraction: f64) {
        self.fair_fraction.set(fraction);
    }

    pub fn schema(&self, level: &str, schema: &str) -> SchemaSeries {
        let (priority_level, flow_schema) = (level.to_owned(), schema.to_owned());
        let labels = SchemaLabels { priority_level: priority_level.clone(), flow_schema: flow_schema.clone() };
        let waited = |execute| {
            let labels =
                WaitLabels { priority_level: priority_level.clone(), flow_schema: flow_schema.clone(), execute };
            self.waits.get_or_create(&labels).clone()
        };
        let (waited, waited_in_vain) = (waited("true"), waited("false"));
        let execution = ExecutionLabels { priority_level, flow_schema, r#type: "regular" };
        SchemaSeries {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            waiting: self.waiting.get_or_create(&labels).clone(),
            executing: self.executing.get_or_create(&labels).clone(),
            seats_taken: self.seats.get_or_create(&labels).clone(),
            executed: self.executions.get_or_create(&execution).clone(),
            seats: self.widths.get_or_create(&labels).clone(),
            waited,
            waited_in_vain,
        }
    }

    pub fn level(&self, name: &str) -> LevelSeries {
        let labels = LevelLabels { priority_level: name.to_owned() };
        let [nominal, least, most, limit, highest] =
            self.limits.each_ref().map(|one| one.get_or_create(&labels).clone());
        let [average, deviation, smoothed, target] =
            self.demands.each_ref().map(|one| one.get_or_create(&labels).clone());
        LevelSeries { nominal, least, most, limit, highest, average, deviation, smoothed, target }
    }
}

impl SchemaSeries {
    /// The end of a request's wait: it runs, or its time is over.
    pub fn waited(&self, time: Duration, runs: bool) {
        let series = if runs { &self.waited } else { &self.waited_in_vain };
        series.observe(time.as_secs_f64());
    }
}

impl LevelSeries {
    pub fn configure(&self, nominal: usize, least: usize, most: usize) {
        self.nominal.set(nominal as i64);
        self.least.set(least as i64);
        self.most.set(most as i64);
    }

    pub fn note(&self, seen: &Seen, target: f64) {
        self.highest.set(seen.highest as i64);
        self.average.set(seen.average);
        self.deviation.set(seen.deviation);
        self.smoothed.set(seen.smoothed);
        self.target.set(target);
    }
}
