//! A queue of keys: each waits at most once, is worked on by one worker at a time, and comes back later when it failed.
//!
//! Modelled on upstream's rate-limited work queue. It relies on the clock seam for delays and holds no task of its own: who
//! waits in [`WorkQueue::next`] also waits for the earliest delayed key.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use xebec_base::{Backoff, SharedClock};

use crate::queue_metrics::QueueStats;

/// Upstream's per-item limits: 5 ms doubling up to 1000 s.
const RETRY: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1000));

pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        WorkQueue { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    clock: SharedClock,
}

struct State<T> {
    /// With the time since which they wait.
    ready: VecDeque<(T, Duration)>,
    /// Waiting in `ready`, or changed again while worked on.
    dirty: HashSet<T>,
    /// With the time since which they are worked on.
    working: HashMap<T, Duration>,
    delayed: BTreeMap<(Duration, u64), T>,
    due: HashMap<T, (Duration, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    stats: Option<Arc<QueueStats>>,
}

impl<T: Hash + Eq + Clone> WorkQueue<T> {
    pub fn new(clock: SharedClock) -> Self {
        Self::with(clock, None)
    }

    /// A queue that the process's metrics show under this name.
    pub fn named(name: &str, clock: SharedClock) -> Self {
        Self::with(clock, Some(QueueStats::of(name)))
    }

    fn with(clock: SharedClock, stats: Option<Arc<QueueStats>>) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashMap::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            stats,
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), clock }) }
    }

    pub fn add(&self, key: T) {
        let now = self.shared.clock.elapsed();
        self.shared.state.lock().add(key, now);
        self.shared.changed.notify_one();
    }

    /// Adds the key after a delay; an earlier time that already stands wins.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let due = self.shared.clock.elapsed() + delay;
        self.shared.state.lock().add_at(key, due);
        self.shared.changed.notify_one();
    }

    /// Adds the key after a delay that doubles with each failure since the last [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            let failures = *failures - 1;
            state.count(|stats| stats.retries.fetch_add(1, Ordering::Relaxed));
            failures
        };
        self.add_after(key, RETRY.delay_after(failures));
    }

    /// The key succeeded: its next failure is its first.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// The next key, which nobody else is given until [`WorkQueue::done`].
    pub async fn next(&self) -> T {
        loop {
            let changed = self.shared.changed.notified();
            let earliest = {
                let mut state = self.shared.state.lock();
                let now = self.shared.clock.elapsed();
                state.promote(now);
                if let Some(key) = state.take(now) {
                    if !state.ready.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(due, _)| due.saturating_sub(now))
            };
            match earliest {
                None => changed.await,
                Some(delay) => tokio::select! {
                    () = changed => {}
                    () = self.shared.clock.sleep(delay) => {}
                },
            }
        }
    }

    /// Work on the key ended; if it was added meanwhile it is ready again.
    pub fn done(&self, key: &T) {
        let now = self.shared.clock.elapsed();
        let mut state = self.shared.state.lock();
        if let Some(began) = state.working.remove(key) {
            state.count(|stats| stats.worked.observe(now.saturating_sub(began)));
        }
        if state.dirty.contains(key) {
            state.push(key.clone(), now);
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Hash + Eq + Clone> State<T> {
    fn add(&mut self, key: T, now: Duration) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        self.count(|stats| stats.adds.fetch_add(1, Ordering::Relaxed));
        if !self.working.contains_key(&key) {
            self.push(key, now);
        }
    }

    fn push(&mut self, key: T, now: Duration) {
        self.count(|stats| stats.depth.fetch_add(1, Ordering::Relaxed));
        self.ready.push_back((key, now));
    }

    fn count<R>(&self, change: impl FnOnce(&QueueStats) -> R) {
        if let Some(stats) = &self.stats {
            change(stats);
        }
    }

    fn add_at(&mut self, key: T, due: Duration) {
        if let Some(standing) = self.due.get(&key) {
            if standing.0 <= due {
                return;
            }
            self.delayed.remove(standing);
        }
        self.sequence += 1;
        self.delayed.insert((due, self.sequence), key.clone());
        self.due.insert(key, (due, self.sequence));
    }

    fn promote(&mut self, now: Duration) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key, now);
        }
    }

    fn take(&mut self, now: Duration) -> Option<T> {
        let (key, since) = self.ready.pop_front()?;
        self.count(|stats| {
            stats.depth.fetch_sub(1, Ordering::Relaxed);
            stats.waited.observe(now.saturating_sub(since));
        });
        self.dirty.remove(&key);
        self.working.insert(key.clone(), now);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use jiff::Timestamp;
    use xebec_base::SimulatedClock;

    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_worked_on_by_one() {
        let queue = WorkQueue::new(SimulatedClock::starting_at(Timestamp::UNIX_EPOCH));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(queue.next().now_or_never().is_none(), "it is being worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn failures_come_back_later_and_the_earliest_time_wins() {
        let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
        let queue = WorkQueue::new(clock.clone());
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_rate_limited("b");
        clock.advance(Duration::from_millis(5));
        assert_eq!(queue.next().await, "b");
        assert!(queue.next().now_or_never().is_none());
        clock.advance(Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
    }
}
