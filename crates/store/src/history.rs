//! The recent changes, from which watches are served and older states are rebuilt.
//!
//! Every change keeps what was there before it, so a state of the past is the current one with the changes since undone.
//! That costs a write nothing, where keeping a snapshot for each revision would make every write copy tree nodes; reads
//! of the past are rare, for the API server pages through snapshots of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::{KeyValue, Revision};

/// How much history is kept. Whichever limit is reached first ends the window; the newest batch is always kept.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    pub changes: usize,
    /// Counts keys, values and replaced values. Most of these are alive anyway, in the state or in the API server's cache.
    pub bytes: usize,
}

/// A reader in the same process which is this far behind (seconds of the fastest writing) has to read anew; and an idle
/// cluster, whose history fills with lease renewals of half a kilobyte, keeps a few megabytes at most.
const DEFAULT_CHANGES: usize = 8_192;
/// Bounds the window where objects are large, such as ConfigMaps of a megabyte: some sixteen writes of those.
const DEFAULT_BYTES: usize = 16 << 20;
/// What a change costs beside its key and values: the structures and allocation headers around them.
const CHANGE_OVERHEAD: usize = 256;

impl Default for HistoryLimits {
    fn default() -> Self {
        HistoryLimits { changes: DEFAULT_CHANGES, bytes: DEFAULT_BYTES }
    }
}

/// All changes of one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

/// One key's step from one state to the next.
#[derive(Debug)]
pub(crate) struct Change {
    pub key: Bytes,
    pub before: Option<Arc<KeyValue>>,
    pub after: Option<Arc<KeyValue>>,
}

/// A window of batches that ends with the newest.
pub(crate) struct History {
    batches: VecDeque<Arc<Batch>>,
    limits: HistoryLimits,
    changes: usize,
    bytes: usize,
    /// Every change at or after this revision is here.
    first: Revision,
}

impl History {
    /// An empty history in which the next change can be at `first` at the earliest.
    pub fn starting_at(first: Revision, limits: HistoryLimits) -> Self {
        History { batches: VecDeque::new(), limits, changes: 0, bytes: 0, first }
    }

    pub fn first(&self) -> Revision {
        self.first
    }

    /// Adds the newest batch; older ones leave if the limits say so.
    pub fn push(&mut self, batch: Arc<Batch>) {
        self.changes += batch.changes.len();
        self.bytes += size(&batch);
        self.batches.push_back(batch);
        while self.batches.len() > 1 && (self.changes > self.limits.changes || self.bytes > self.limits.bytes) {
            self.drop_oldest();
        }
    }

    /// Forgets every batch before `revision`.
    pub fn compact(&mut self, revision: Revision) {
        while self.batches.front().is_some_and(|batch| batch.revision < revision) {
            self.drop_oldest();
        }
        self.first = self.first.max(revision);
    }

    /// The batches at or after `revision`, oldest first.
    pub fn since(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Arc<Batch>> {
        let start = self.batches.partition_point(|batch| batch.revision < revision);
        self.batches.range(start..)
    }

    fn drop_oldest(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.changes -= batch.changes.len();
            self.bytes -= size(&batch);
            self.first = batch.revision + 1;
        }
    }
}

fn size(batch: &Batch) -> usize {
    let value = |kv: &Option<Arc<KeyValue>>| kv.as_ref().map_or(0, |kv| kv.value.len());
    let change = |change: &Change| CHANGE_OVERHEAD + change.key.len() + value(&change.before) + value(&change.after);
    batch.changes.iter().map(change).sum()
}
