//! Watches: what is asked for, what arrives, and the registry that knows who has to be woken.
//!
//! A watch has no buffer of its own that a slow reader could fill: it is a cursor into the one history, and whoever
//! falls behind the history's window gets [`Error::Compacted`]. A watch is woken only by changes in its range.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use crate::history::{Batch, Change};
use crate::key::{KeyRange, KeyValue, Revision};
use crate::state::State;
use crate::store::{Error, Result};

/// What to follow.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    pub keys: KeyRange,
    /// The first revision of interest, included. `None`: whatever happens after this call.
    pub from: Option<Revision>,
    /// Whether to say so when the watch has caught up: once at its start, and after [`crate::Store::request_progress`].
    pub progress: bool,
    /// Whether events carry what was there before.
    pub prev_kv: bool,
}

impl WatchRequest {
    pub fn of(keys: KeyRange) -> Self {
        WatchRequest { keys, from: None, progress: false, prev_kv: false }
    }

    pub fn from(mut self, revision: Revision) -> Self {
        self.from = Some(revision);
        self
    }

    pub fn with_progress(mut self) -> Self {
        self.progress = true;
        self
    }

    pub fn with_prev_kv(mut self) -> Self {
        self.prev_kv = true;
        self
    }
}

/// All changes of one transaction within the watched range. One without events is progress: everything up to and
/// including its revision has been delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    /// The new state; for a deletion only the key and the revision of the deletion.
    pub kv: KeyValue,
    /// The state before, if the watch asked for it and there was one.
    pub prev: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// The changes in their order. It ends after an error, and when the store is closed.
pub struct WatchStream(Pin<Box<dyn Stream<Item = Result<WatchBatch>> + Send>>);

impl WatchStream {
    pub fn new(stream: impl Stream<Item = Result<WatchBatch>> + Send + 'static) -> Self {
        WatchStream(Box::pin(stream))
    }

    pub async fn next(&mut self) -> Option<Result<WatchBatch>> {
        StreamExt::next(&mut self.0).await
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// How many batches a watch takes from the history under one lock: enough to make the lock cheap in a burst, few enough
/// that a slow reader does not keep much of the history alive.
const READ_AHEAD: usize = 64;

/// Registers a watch with the state and returns its stream.
pub(crate) fn open(state: &Arc<Mutex<State>>, request: WatchRequest) -> Result<WatchStream> {
    let id = state.lock().add_watch(request)?;
    Ok(WatchStream::new(Follower { state: state.clone(), id, ready: VecDeque::new(), ended: false }))
}

/// The reading end of a watch over an in-memory state.
struct Follower {
    state: Arc<Mutex<State>>,
    id: WatchId,
    ready: VecDeque<WatchBatch>,
    ended: bool,
}

impl Stream for Follower {
    type Item = Result<WatchBatch>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(batch) = this.ready.pop_front() {
            return Poll::Ready(Some(Ok(batch)));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let reading = this.state.lock().read_watch(this.id, READ_AHEAD, context.waker());
        match reading {
            Reading::Batches(batches) => {
                this.ready = batches;
                Poll::Ready(this.ready.pop_front().map(Ok))
            }
            Reading::Wait => Poll::Pending,
            Reading::Ended(error) => {
                this.ended = true;
                Poll::Ready(error.map(Err))
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.state.lock().remove_watch(self.id);
    }
}

pub(crate) type WatchId = u64;

/// What a watch finds when it looks.
pub(crate) enum Reading {
    /// Never empty.
    Batches(VecDeque<WatchBatch>),
    /// Nothing yet; the waker has been kept.
    Wait,
    Ended(Option<Error>),
}

/// Everyone who watches.
#[derive(Default)]
pub(crate) struct Watchers {
    next_id: WatchId,
    by_id: BTreeMap<WatchId, Watcher>,
}

/// One watch's place in the history.
pub(crate) struct Watcher {
    pub request: WatchRequest,
    /// The next revision to deliver. While the watch is not behind, nothing in its range has happened from here on.
    pub next: Revision,
    /// Whether the history holds, or held, changes from `next` on which the reader has not taken.
    pub behind: bool,
    pub progress_due: bool,
    pub waker: Option<Waker>,
}

impl Watchers {
    pub fn add(&mut self, watcher: Watcher) -> WatchId {
        self.next_id += 1;
        self.by_id.insert(self.next_id, watcher);
        self.next_id
    }

    pub fn get_mut(&mut self, id: WatchId) -> Option<&mut Watcher> {
        self.by_id.get_mut(&id)
    }

    pub fn remove(&mut self, id: WatchId) {
        self.by_id.remove(&id);
    }

    /// Tells every watch of a new batch. Those whom it does not concern move past it without being woken, so that an
    /// idle watch does not fall out of the history's window.
    pub fn published(&mut self, batch: &Batch, woken: &mut Vec<Waker>) {
        for watcher in self.by_id.values_mut() {
            if watcher.behind || batch.revision < watcher.next {
                continue;
            }
            if batch.changes.iter().any(|change| watcher.request.keys.contains(&change.key)) {
                watcher.behind = true;
                watcher.next = batch.revision;
                woken.extend(watcher.waker.take());
            } else {
                watcher.next = batch.revision + 1;
            }
        }
    }

    pub fn request_progress(&mut self) -> Vec<Waker> {
        let wanting = self.by_id.values_mut().filter(|watcher| watcher.request.progress);
        wanting
            .filter_map(|watcher| {
                watcher.progress_due = true;
                watcher.waker.take()
            })
            .collect()
    }

    pub fn take_wakers(&mut self) -> Vec<Waker> {
        self.by_id.values_mut().filter_map(|watcher| watcher.waker.take()).collect()
    }
}

impl WatchRequest {
    /// What this watch sees of a batch, if anything.
    pub(crate) fn view(&self, batch: &Batch) -> Option<WatchBatch> {
        let seen = batch.changes.iter().filter(|change| self.keys.contains(&change.key));
        let events: Vec<Event> = seen.map(|change| self.event(change, batch.revision)).collect();
        (!events.is_empty()).then_some(WatchBatch { revision: batch.revision, events })
    }

    fn event(&self, change: &Change, revision: Revision) -> Event {
        let prev = if self.prev_kv { change.before.as_deref().cloned() } else { None };
        match &change.after {
            Some(kv) => Event { kind: EventKind::Put, kv: KeyValue::clone(kv), prev },
            None => {
                let key = change.key.clone();
                let kv =
                    KeyValue { key, value: Default::default(), create_revision: 0, mod_revision: revision, version: 0 };
                Event { kind: EventKind::Delete, kv, prev }
            }
        }
    }
}
