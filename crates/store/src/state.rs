//! The state in memory that both engines share: the live keys, the recent history, and who watches.
//!
//! A write happens in two steps: a [`Draft`] works out what transactions would change, on top of the state and of each
//! other, and [`State::publish`] makes that visible. What happens in between, such as waiting for a disk, is the
//! engine's business.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use imbl::OrdMap;

use crate::history::{Batch, Change, History, HistoryLimits};
use crate::key::{KeyRange, KeyValue, Revision};
use crate::store::{Error, Got, Range, RangeResult, Result, Select};
use crate::txn::{Op, OpResult, Txn, TxnResult};
use crate::watch::{Reading, WatchBatch, WatchId, WatchRequest, Watcher, Watchers};

/// The live keys. Persistent: a clone is free, and a reader iterates its clone without holding any lock.
pub(crate) type Keys = OrdMap<Bytes, Arc<KeyValue>>;

/// An empty store is at revision 1, as etcd's is, so that zero can mean "no revision" on the wire.
pub(crate) const FIRST_REVISION: Revision = 1;

pub(crate) struct State {
    keys: Keys,
    revision: Revision,
    /// Reads of a state before this revision are refused.
    compacted: Revision,
    history: History,
    watchers: Watchers,
    closed: bool,
}

impl State {
    /// A state without a past, at `revision`.
    pub fn new(keys: Keys, revision: Revision, limits: HistoryLimits) -> Self {
        State {
            keys,
            revision,
            compacted: revision,
            history: History::starting_at(revision + 1, limits),
            watchers: Watchers::default(),
            closed: false,
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn key(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.keys.get(key)
    }

    pub fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Got> {
        let revision = self.readable(revision)?;
        let since = self.history.since(revision + 1);
        let undone = since.flat_map(|batch| &batch.changes).find(|change| change.key == key);
        let kv = match undone {
            Some(change) => change.before.as_ref(),
            None => self.key(key),
        };
        Ok(Got { revision, kv: kv.map(|kv| KeyValue::clone(kv)) })
    }

    /// Takes what is needed to answer a range read, so that the answer itself is worked out without the lock.
    pub fn snapshot(&self, revision: Option<Revision>) -> Result<Snapshot> {
        let revision = self.readable(revision)?;
        let since = self.history.since(revision + 1).cloned().collect();
        Ok(Snapshot { keys: self.keys.clone(), revision, since })
    }

    fn readable(&self, requested: Option<Revision>) -> Result<Revision> {
        match requested {
            None => Ok(self.revision),
            Some(requested) if requested > self.revision => Err(Error::Future { requested, current: self.revision }),
            Some(requested) if requested < self.compacted => Err(Error::Compacted { compact_revision: self.compacted }),
            Some(requested) => Ok(requested),
        }
    }

    /// Makes what was drafted on this very state visible. The wakers are to be woken once the lock is released.
    #[must_use]
    pub fn publish(&mut self, draft: Draft) -> Vec<Waker> {
        let mut woken = Vec::new();
        for batch in draft.batches {
            for change in &batch.changes {
                match &change.after {
                    Some(kv) => self.keys.insert(change.key.clone(), kv.clone()),
                    None => self.keys.remove(&change.key),
                };
            }
            assert!(batch.revision > self.revision, "revisions grow");
            self.revision = batch.revision;
            self.watchers.published(&batch, &mut woken);
            self.history.push(Arc::new(batch));
        }
        self.compacted = self.compacted.max(self.history.first() - 1);
        woken
    }

    pub fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        if revision > self.compacted {
            self.compacted = revision;
            self.history.compact(revision);
        }
        Ok(())
    }

    pub fn add_watch(&mut self, request: WatchRequest) -> Result<WatchId> {
        if self.closed {
            return Err(Error::Closed);
        }
        let next = request.from.unwrap_or(self.revision + 1);
        if next < self.history.first() {
            return Err(Error::Compacted { compact_revision: self.history.first() });
        }
        let progress_due = request.progress;
        Ok(self.watchers.add(Watcher { request, next, behind: next <= self.revision, progress_due, waker: None }))
    }

    pub fn remove_watch(&mut self, id: WatchId) {
        self.watchers.remove(id);
    }

    #[must_use]
    pub fn request_progress(&mut self) -> Vec<Waker> {
        self.watchers.request_progress()
    }

    /// What a watch has not seen yet, at most `limit` batches of it; failing that, keeps its waker.
    pub fn read_watch(&mut self, id: WatchId, limit: usize, waker: &Waker) -> Reading {
        let Some(watcher) = self.watchers.get_mut(id) else { return Reading::Ended(None) };
        if watcher.behind {
            if watcher.next < self.history.first() {
                return Reading::Ended(Some(Error::Compacted { compact_revision: self.history.first() }));
            }
            let mut batches = VecDeque::new();
            let mut unread = self.history.since(watcher.next);
            watcher.behind = loop {
                let Some(batch) = unread.next() else { break false };
                if batches.len() == limit {
                    break true;
                }
                watcher.next = batch.revision + 1;
                batches.extend(watcher.request.view(batch));
            };
            if !batches.is_empty() {
                return Reading::Batches(batches);
            }
        }
        if watcher.progress_due {
            watcher.progress_due = false;
            return Reading::Batches([WatchBatch { revision: self.revision, events: Vec::new() }].into());
        }
        if self.closed {
            return Reading::Ended(None);
        }
        watcher.waker = Some(waker.clone());
        Reading::Wait
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Ends every watch once it has read what there is.
    #[must_use]
    pub fn close(&mut self) -> Vec<Waker> {
        self.closed = true;
        self.watchers.take_wakers()
    }
}

/// The state at one revision, on its own.
pub(crate) struct Snapshot {
    keys: Keys,
    revision: Revision,
    /// What has happened since; to be undone.
    since: Vec<Arc<Batch>>,
}

impl Snapshot {
    pub fn range(mut self, range: &Range) -> RangeResult {
        for change in self.since.iter().rev().flat_map(|batch| &batch.changes) {
            if range.keys.contains(&change.key) {
                match &change.before {
                    Some(kv) => self.keys.insert(change.key.clone(), kv.clone()),
                    None => self.keys.remove(&change.key),
                };
            }
        }
        let limit = match range.select {
            Select::Count => 0,
            Select::Keys | Select::KeysAndValues => range.limit.unwrap_or(usize::MAX),
        };
        let mut found = in_range(&self.keys, &range.keys);
        let take = |kv: &Arc<KeyValue>| match range.select {
            Select::KeysAndValues => KeyValue::clone(kv),
            Select::Keys | Select::Count => KeyValue { key: kv.key.clone(), value: Bytes::new(), ..**kv },
        };
        let kvs: Vec<KeyValue> = found.by_ref().take(limit).map(take).collect();
        let rest = found.count();
        RangeResult { revision: self.revision, count: kvs.len() + rest, more: rest > 0, kvs }
    }
}

fn in_range<'a>(keys: &'a Keys, range: &KeyRange) -> impl Iterator<Item = &'a Arc<KeyValue>> + use<'a> {
    let end = match &range.end[..] {
        [] => Bound::Unbounded,
        end => Bound::Excluded(end),
    };
    // The map does not take bounds in descending order, and such a range holds nothing anyway.
    let bounds = (Bound::Included(&range.start[..]), end);
    (!range.is_empty()).then(|| keys.range::<_, [u8]>(bounds)).into_iter().flatten().map(|(_, kv)| kv)
}

/// What some transactions, one after the other, would change in a state.
pub(crate) struct Draft {
    revision: Revision,
    /// The keys touched so far, with their last drafted state.
    touched: BTreeMap<Bytes, Option<Arc<KeyValue>>>,
    batches: Vec<Batch>,
    /// What the transaction that is being added has changed so far.
    changes: Vec<Change>,
}

impl Draft {
    pub fn on(state: &State) -> Self {
        Draft { revision: state.revision, touched: BTreeMap::new(), batches: Vec::new(), changes: Vec::new() }
    }

    /// The revision that the state would be at.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Every key touched, with what it would hold.
    pub fn touched(&self) -> &BTreeMap<Bytes, Option<Arc<KeyValue>>> {
        &self.touched
    }

    /// Adds a transaction, of which [`Txn::check`] has been passed.
    pub fn add(&mut self, state: &State, txn: &Txn) -> TxnResult {
        let succeeded = txn.compare.iter().all(|compare| compare.holds(self.key(state, &compare.key).map(|kv| &**kv)));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let responses = ops.iter().map(|op| self.apply(state, op)).collect();
        if !self.changes.is_empty() {
            self.revision += 1;
            self.batches.push(Batch { revision: self.revision, changes: std::mem::take(&mut self.changes) });
        }
        TxnResult { succeeded, revision: self.revision, responses }
    }

    fn apply(&mut self, state: &State, op: &Op) -> OpResult {
        match op {
            Op::Get { key } => OpResult::Get { kv: self.key(state, key).map(|kv| KeyValue::clone(kv)) },
            Op::Put { key, value } => OpResult::Put { prev: self.put(state, key, value) },
            Op::Delete { key } => {
                let doomed = self.key(state, key).cloned();
                OpResult::Delete { prev: self.delete(doomed.into_iter().collect()) }
            }
            Op::DeleteRange(range) => {
                let doomed = self.in_range(state, range);
                OpResult::Delete { prev: self.delete(doomed) }
            }
        }
    }

    fn put(&mut self, state: &State, key: &Bytes, value: &Bytes) -> Option<KeyValue> {
        let before = self.key(state, key).cloned();
        let revision = self.revision + 1;
        let after = Arc::new(KeyValue {
            // The key that is stored already goes on, so that a new one for each write does not pile up in the history.
            key: before.as_ref().map_or(key, |kv| &kv.key).clone(),
            value: value.clone(),
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
        });
        let prev = before.as_deref().cloned();
        self.touched.insert(after.key.clone(), Some(after.clone()));
        self.changes.push(Change { key: after.key.clone(), before, after: Some(after) });
        prev
    }

    fn delete(&mut self, doomed: Vec<Arc<KeyValue>>) -> Vec<KeyValue> {
        for kv in &doomed {
            self.touched.insert(kv.key.clone(), None);
            self.changes.push(Change { key: kv.key.clone(), before: Some(kv.clone()), after: None });
        }
        doomed.iter().map(|kv| KeyValue::clone(kv)).collect()
    }

    fn key<'a>(&'a self, state: &'a State, key: &[u8]) -> Option<&'a Arc<KeyValue>> {
        match self.touched.get(key) {
            Some(drafted) => drafted.as_ref(),
            None => state.key(key),
        }
    }

    fn in_range(&self, state: &State, range: &KeyRange) -> Vec<Arc<KeyValue>> {
        let untouched = in_range(&state.keys, range).filter(|kv| !self.touched.contains_key(&kv.key));
        let drafted = self.touched.iter().filter(|(key, _)| range.contains(key)).filter_map(|(_, kv)| kv.as_ref());
        let mut found: Vec<_> = untouched.chain(drafted).cloned().collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found
    }
}
