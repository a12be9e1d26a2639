//! What the work queues of this process do, under upstream's names (`workqueue_*`) in the Prometheus text format.
//!
//! A queue that has a name is counted from its making on. The list of them is the process's, as its metrics are.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of durations: ten nanoseconds and on by tens, as upstream's.
const BOUNDS: [f64; 12] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0];

static QUEUES: Mutex<Vec<Arc<QueueStats>>> = Mutex::new(Vec::new());

/// The numbers of one queue.
#[derive(Default)]
pub struct QueueStats {
    name: String,
    pub depth: AtomicI64,
    pub adds: AtomicU64,
    pub retries: AtomicU64,
    pub waited: Durations,
    pub worked: Durations,
}

/// A histogram.
#[derive(Default)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl QueueStats {
    /// Queues of the same name share their numbers.
    pub fn of(name: &str) -> Arc<Self> {
        let mut queues = QUEUES.lock();
        if let Some(known) = queues.iter().find(|one| one.name == name) {
            return known.clone();
        }
        let stats = Arc::new(QueueStats { name: name.to_owned(), ..QueueStats::default() });
        queues.push(stats.clone());
        stats
    }
}

impl Durations {
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn write(&self, metric: &str, name: &str, out: &mut String) {
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{metric}_bucket{{name={name:?},le=\"{bound:e}\"}} {below}");
        }
        let count = self.count.load(Ordering::Relaxed);
        let _ = writeln!(out, "{metric}_bucket{{name={name:?},le=\"+Inf\"}} {count}");
        let seconds = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{metric}_sum{{name={name:?}}} {seconds}\n{metric}_count{{name={name:?}}} {count}");
    }
}

/// Appends the numbers of all queues.
pub fn write(out: &mut String) {
    let queues = QUEUES.lock().clone();
    let mut family = |name: &str, kind: &str, help: &str, write: &dyn Fn(&QueueStats, &mut String)| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        queues.iter().for_each(|queue| write(queue, out));
    };
    family("workqueue_depth", "gauge", "Keys that wait", &|queue, out| {
        let _ = writeln!(out, "workqueue_depth{{name={:?}}} {}", queue.name, queue.depth.load(Ordering::Relaxed));
    });
    family("workqueue_adds_total", "counter", "Keys that were added", &|queue, out| {
        let _ = writeln!(out, "workqueue_adds_total{{name={:?}}} {}", queue.name, queue.adds.load(Ordering::Relaxed));
    });
    family("workqueue_retries_total", "counter", "Keys that were added after a failure", &|queue, out| {
        let number = queue.retries.load(Ordering::Relaxed);
        let _ = writeln!(out, "workqueue_retries_total{{name={:?}}} {number}", queue.name);
    });
    family("workqueue_queue_duration_seconds", "histogram", "Seconds that keys waited", &|queue, out| {
        queue.waited.write("workqueue_queue_duration_seconds", &queue.name, out);
    });
    family("workqueue_work_duration_seconds", "histogram", "Seconds that keys were worked on", &|queue, out| {
        queue.worked.write("workqueue_work_duration_seconds", &queue.name, out);
    });
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use xebec_base::SimulatedClock;

    use super::*;
    use crate::WorkQueue;

    #[tokio::test]
    async fn a_named_queue_is_counted() {
        let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
        let queue = WorkQueue::named("counted", clock.clone());
        queue.add("a");
        queue.add("b");
        queue.add("a");
        clock.advance(Duration::from_millis(500));
        let key = queue.next().await;
        clock.advance(Duration::from_secs(5));
        queue.add_rate_limited("c");
        queue.done(&key);
        let mut out = String::new();
        write(&mut out);
        for line in [
            "workqueue_depth{name=\"counted\"} 1",
            "workqueue_adds_total{name=\"counted\"} 2",
            "workqueue_retries_total{name=\"counted\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"counted\",le=\"1e-1\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"counted\",le=\"1e0\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"counted\"} 5",
        ] {
            assert!(out.lines().any(|one| one == line), "{line} is not in {out}");
        }
    }
}
