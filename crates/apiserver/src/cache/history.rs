//! Past states of a resource: pinned ones for lists that are read in pages, others rebuilt by undoing the newest changes.
//!
//! Keeping every snapshot would keep every version of every object alive; pins keep only those which a client is reading.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::log::{Change, Lagged, Log};
use super::resource::Snapshot;

/// How many past states are kept at hand. More lists than this may be read in pages at once; theirs are rebuilt.
const MAX_PINS: usize = 32;
/// After how long a past state may no longer be read, once there are newer changes: etcd's history under upstream's
/// compaction interval. Clients count on continue tokens ending.
const HORIZON: Duration = Duration::from_secs(300);
/// How closely the passing of time is noted.
const MARK_EVERY: Duration = Duration::from_secs(15);

/// Which past states are too old to be read, found from when which revision was current. Needs no timer.
#[derive(Default)]
pub struct Horizon {
    /// Oldest first.
    marks: VecDeque<(Duration, u64)>,
    expired: u64,
}

impl Horizon {
    /// Notes that `revision` was reached at `now`. Every now and then it tells the revision before which all is too old.
    pub fn mark(&mut self, revision: u64, now: Duration) -> Option<u64> {
        if self.marks.back().is_some_and(|(at, _)| now < *at + MARK_EVERY) {
            return None;
        }
        self.marks.push_back((now, revision));
        Some(self.revision(now))
    }

    /// States before this revision are too old.
    pub fn revision(&mut self, now: Duration) -> u64 {
        while let Some((at, revision)) = self.marks.front().copied()
            && now >= at + HORIZON
        {
            self.marks.pop_front();
            self.expired = revision;
        }
        self.expired
    }
}

/// The past states of one resource.
#[derive(Default)]
pub struct History {
    pins: VecDeque<(u64, Arc<Snapshot>)>,
}

impl History {
    /// Keeps the state at `revision`; forgets those before `horizon`.
    pub fn pin(&mut self, revision: u64, snapshot: Arc<Snapshot>, horizon: u64) {
        self.pins.retain(|(pinned, _)| *pinned >= horizon);
        if self.pins.iter().any(|(pinned, _)| *pinned == revision) {
            return;
        }
        if self.pins.len() >= MAX_PINS {
            self.pins.pop_front();
        }
        self.pins.push_back((revision, snapshot));
    }

    pub fn at(&self, revision: u64, horizon: u64, current: &Arc<Snapshot>, log: &Log) -> Result<Arc<Snapshot>, Lagged> {
        if revision < horizon {
            return Err(Lagged { requested: revision, oldest: horizon });
        }
        if revision >= current.revision {
            return Ok(current.clone());
        }
        if let Some((_, snapshot)) = self.pins.iter().find(|(pinned, _)| *pinned == revision) {
            return Ok(snapshot.clone());
        }
        let mut items = current.items.clone();
        let events = log.read_after(revision)?;
        for event in events.iter().rev().filter(|event| event.revision <= current.revision) {
            let key = event.item.object.key();
            match (&event.change, &event.prev) {
                (Change::Added, _) | (_, None) => items.remove(key),
                (_, Some(prev)) => items.insert(key.clone(), prev.clone()),
            };
        }
        Ok(Arc::new(Snapshot { revision, items }))
    }
}
