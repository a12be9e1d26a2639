//! What waits to be scheduled: ready by priority and age, backing off after a failure, or parked until the cluster changes.
//!
//! Pure: the time is an argument. Figures are upstream's: back-off of 1 s doubling to 10 s, parked Pods retried after five
//! minutes even if nothing changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use xebec_api::ObjectKey;
use xebec_base::Backoff;

use crate::snapshot::PodFacts;

const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
const PARKED_LIMIT: Duration = Duration::from_secs(300);

type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    facts: Arc<PodFacts>,
    rank: Rank,
    attempts: u32,
    /// Not to be tried again before this.
    earliest: Duration,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Ready,
    BackingOff(Duration),
    Parked(Duration),
    /// Taken by [`Queue::pop`] and being decided or bound.
    Out,
}

#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<ObjectKey, Entry>,
    ready: BTreeSet<(Rank, ObjectKey)>,
    /// By the time at which they become ready: both those backing off and those parked.
    timed: BTreeMap<(Duration, u64), ObjectKey>,
    arrivals: u64,
    /// Raised by every change that may help; a decision older than the last change is retried at once.
    changes: u64,
}

impl Queue {
    /// A Pod that waits, new or changed. A change of one that is parked makes it ready.
    pub fn put(&mut self, facts: Arc<PodFacts>, now: Duration) {
        let key = facts.key.clone();
        if let Some(entry) = self.entries.get_mut(&key) {
            let recreated = entry.facts.uid != facts.uid;
            entry.facts = facts;
            if !recreated {
                return;
            }
            self.remove(&key);
            let facts = self.entries.remove(&key).map(|entry| entry.facts);
            if let Some(facts) = facts {
                self.put(facts, now);
            }
            return;
        }
        self.arrivals += 1;
        let rank = (Reverse(facts.priority), self.arrivals);
        self.ready.insert((rank, key.clone()));
        self.entries.insert(key, Entry { facts, rank, attempts: 0, earliest: now, place: Place::Ready });
    }

    /// The Pod is bound or gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.unlink(key, &entry);
    }

    fn unlink(&mut self, key: &ObjectKey, entry: &Entry) {
        match entry.place {
            Place::Ready => {
                self.ready.remove(&(entry.rank, key.clone()));
            }
            Place::BackingOff(at) | Place::Parked(at) => {
                self.timed.remove(&(at, entry.rank.1));
            }
            Place::Out => {}
        }
    }

    /// The most important Pod that may be tried now, and the change count that its decision is based on.
    pub fn pop(&mut self, now: Duration) -> Option<(Arc<PodFacts>, u64)> {
        self.promote(now);
        let (_, key) = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::Out;
        entry.attempts += 1;
        Some((entry.facts.clone(), self.changes))
    }

    /// No node fits: parked until the cluster changes, or backing off if it has changed since `seen`.
    pub fn park(&mut self, key: &ObjectKey, seen: u64, now: Duration) {
        let changed = self.changes != seen;
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.earliest = now + BACKOFF.delay_after(entry.attempts.saturating_sub(1));
        let at = if changed { entry.earliest } else { now + PARKED_LIMIT };
        entry.place = if changed { Place::BackingOff(at) } else { Place::Parked(at) };
        self.timed.insert((at, entry.rank.1), key.clone());
    }

    /// Binding failed: tried again after its back-off.
    pub fn retry(&mut self, key: &ObjectKey, now: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let at = now + BACKOFF.delay_after(entry.attempts.saturating_sub(1));
        (entry.earliest, entry.place) = (at, Place::BackingOff(at));
        self.timed.insert((at, entry.rank.1), key.clone());
    }

    /// Something changed that may let parked Pods fit.
    pub fn cluster_changed(&mut self, now: Duration) {
        self.changes += 1;
        let parked = self.entries.iter_mut().filter(|(_, entry)| matches!(entry.place, Place::Parked(_)));
        for (key, entry) in parked {
            let Place::Parked(at) = entry.place else { continue };
            self.timed.remove(&(at, entry.rank.1));
            if entry.earliest <= now {
                entry.place = Place::Ready;
                self.ready.insert((entry.rank, key.clone()));
            } else {
                entry.place = Place::BackingOff(entry.earliest);
                self.timed.insert((entry.earliest, entry.rank.1), key.clone());
            }
        }
    }

    fn promote(&mut self, now: Duration) {
        while let Some(first) = self.timed.first_entry() {
            if first.key().0 > now {
                break;
            }
            let key = first.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Ready;
                self.ready.insert((entry.rank, key));
            }
        }
    }

    /// When something becomes ready by itself.
    pub fn next_due(&self) -> Option<Duration> {
        self.timed.keys().next().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(name: &str, priority: i32) -> Arc<PodFacts> {
        let pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"containers": [], "priority": priority}});
        Arc::new(PodFacts::of(&Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn names(queue: &mut Queue, now: u64) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(Duration::from_secs(now)))
            .map(|(facts, _)| facts.key.name.to_string())
            .collect()
    }

    #[test]
    fn priority_then_age() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 0), ("c", 10)] {
            queue.put(facts(name, priority), Duration::ZERO);
        }
        assert_eq!(names(&mut queue, 0), ["c", "a", "b"]);
    }

    #[test]
    fn a_parked_pod_waits_for_a_change_and_its_backoff() {
        let mut queue = Queue::default();
        queue.put(facts("a", 0), Duration::ZERO);
        let (a, seen) = queue.pop(Duration::ZERO).unwrap();
        queue.park(&a.key, seen, Duration::ZERO);
        assert!(names(&mut queue, 100).is_empty());
        queue.cluster_changed(Duration::ZERO);
        assert!(names(&mut queue, 0).is_empty(), "the back-off is not over");
        assert_eq!(names(&mut queue, 1), ["a"]);
    }

    #[test]
    fn a_change_during_the_decision_is_not_lost() {
        let mut queue = Queue::default();
        queue.put(facts("a", 0), Duration::ZERO);
        let (a, seen) = queue.pop(Duration::ZERO).unwrap();
        queue.cluster_changed(Duration::ZERO);
        queue.park(&a.key, seen, Duration::ZERO);
        assert_eq!(names(&mut queue, 1), ["a"]);
    }
}
