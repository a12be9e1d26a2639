//! The history of one resource's changes, from which every watcher reads at its own pace.
//!
//! A watcher owns a cursor and no queue: a slow one holds nobody up and is cut off only when the history has moved past its
//! cursor. The history is bounded by number and by size.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Notify;
use xebec_api::object::Object;
use xebec_api::resource::ResourceType;

use super::resource::{Item, ResourceCache};
use super::selection::Selection;

/// So many changes can be replayed; upstream's watch cache grows to the same order of magnitude.
const MAX_EVENTS: usize = 100_000;
/// So many bytes of objects the history may keep alive: several minutes of a busy cluster.
const MAX_BYTES: usize = 48 << 20;
/// Having dropped so many events, the window gives its space back.
const SHRINK_FROM: usize = 1024;
/// How many events a watcher takes under one lock.
const READ_AT_ONCE: usize = 256;

/// What happened to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// What a watcher is told of it.
pub type EventKindSeen = Change;

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by the history and all watchers.
pub struct Event {
    pub change: Change,
    pub revision: u64,
    /// The new state; for a deletion the last one, with the deletion's revision.
    pub item: Arc<Item>,
    pub prev: Option<Arc<Item>>,
    /// The state before with this event's revision: what those see out of whose selection the object moved.
    left: OnceLock<Arc<Object>>,
    line: OnceLock<Bytes>,
}

impl Event {
    pub fn new(change: Change, revision: u64, item: Arc<Item>, prev: Option<Arc<Item>>) -> Self {
        Event { change, revision, item, prev, left: OnceLock::new(), line: OnceLock::new() }
    }

    /// The event as a line of a watch in the stored form, encoded once for all watchers.
    pub fn line(&self, resource: &ResourceType) -> &Bytes {
        self.line.get_or_init(|| {
            let mut line = Vec::with_capacity(self.item.object.raw().len() + 128);
            write_line(self.change, &self.item.object, resource, &mut line);
            line.into()
        })
    }

    fn weight(&self) -> usize {
        const OVERHEAD: usize = 512;
        self.item.object.raw().len() + self.prev.as_ref().map_or(0, |prev| prev.object.raw().len()) + OVERHEAD
    }

    fn left(&self) -> Arc<Object> {
        let make = || match &self.prev {
            Some(prev) => {
                let raw = prev.object.raw().clone();
                Object::from_store(raw, self.revision).map_or_else(|_| prev.object.clone(), Arc::new)
            }
            None => self.item.object.clone(),
        };
        self.left.get_or_init(make).clone()
    }
}

/// Appends `{"type":…,"object":…}` and a line feed.
pub fn write_line(change: Change, object: &Object, resource: &ResourceType, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(change.name().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object.write_full(resource, out);
    out.extend_from_slice(b"}\n");
}

/// An event as one selection sees it.
pub struct Seen {
    pub change: EventKindSeen,
    pub object: Arc<Object>,
    event: Arc<Event>,
}

impl Seen {
    /// Appends the line of a watch in the form `resource`, using the shared encoding where it fits.
    pub fn write(&self, resource: &ResourceType, stored: &ResourceType, out: &mut Vec<u8>) {
        match self.shared_line(resource, stored) {
            Some(line) => out.extend_from_slice(line),
            None => write_line(self.change, &self.object, resource, out),
        }
    }

    /// The shared encoding, if this watcher sees the event as it happened and in the stored form.
    pub fn shared_line(&self, resource: &ResourceType, stored: &ResourceType) -> Option<&Bytes> {
        (self.change == self.event.change && std::ptr::eq(resource, stored)).then(|| self.event.line(resource))
    }

    pub fn revision(&self) -> u64 {
        self.event.revision
    }
}

/// The history no longer holds what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {requested} ({oldest})")]
pub struct Lagged {
    pub requested: u64,
    /// The oldest revision from which changes can be replayed.
    pub oldest: u64,
}

#[derive(Default)]
struct Window {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event in the window, counted from the log's beginning.
    first: u64,
    bytes: usize,
    /// Changes at or before this revision are gone.
    gone: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn drop_first(&mut self) -> Option<Arc<Event>> {
        let event = self.events.pop_front()?;
        self.bytes -= event.weight();
        self.first += 1;
        self.gone = event.revision;
        Some(event)
    }

    /// The number of the first event after `revision`.
    fn number_after(&self, revision: u64) -> Result<u64, Lagged> {
        if revision < self.gone {
            return Err(Lagged { requested: revision, oldest: self.gone });
        }
        Ok(self.first + self.events.partition_point(|event| event.revision <= revision) as u64)
    }
}

/// A window of events with a wake-up.
pub struct Log {
    window: RwLock<Window>,
    grown: Notify,
}

impl Log {
    pub fn new() -> Self {
        Log { window: RwLock::default(), grown: Notify::new() }
    }

    /// Says that what happened up to `revision` is not in the log.
    pub fn start_after(&self, revision: u64) {
        self.window.write().gone = revision;
    }

    pub fn append(&self, events: &[Arc<Event>]) {
        let mut dropped = Vec::new();
        {
            let mut window = self.window.write();
            for event in events {
                window.bytes += event.weight();
                window.events.push_back(event.clone());
            }
            while window.events.len() > MAX_EVENTS || (window.bytes > MAX_BYTES && window.events.len() > 1) {
                dropped.extend(window.drop_first());
            }
        }
        // Freed outside the lock.
        drop(dropped);
    }

    /// Drops events before `revision`, so that a burst does not stay in memory for as long as nothing follows it. Watchers
    /// that have not read them by then, minutes later, are cut off.
    pub fn forget_before(&self, revision: u64) {
        let mut dropped = Vec::new();
        {
            let mut window = self.window.write();
            while window.events.front().is_some_and(|event| event.revision < revision) {
                dropped.extend(window.drop_first());
            }
            if dropped.len() > SHRINK_FROM {
                window.events.shrink_to_fit();
            }
        }
        drop(dropped);
    }

    pub fn wake(&self) {
        self.grown.notify_waiters();
    }

    pub fn end(&self) -> u64 {
        self.window.read().end()
    }

    pub fn cursor_after(&self, revision: u64) -> Result<u64, Lagged> {
        self.window.read().number_after(revision)
    }

    pub fn read_after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Lagged> {
        let window = self.window.read();
        let start = (window.number_after(revision)? - window.first) as usize;
        Ok(window.events.range(start..).cloned().collect())
    }

    /// Moves up to a bounded number of events to `out` and the cursor past them.
    fn read(&self, cursor: &mut u64, out: &mut Vec<Arc<Event>>) -> Result<(), Lagged> {
        let window = self.window.read();
        let Some(start) = cursor.checked_sub(window.first) else {
            return Err(Lagged { requested: 0, oldest: window.gone });
        };
        let start = start as usize;
        let end = window.events.len().min(start + READ_AT_ONCE);
        out.extend(window.events.range(start..end).cloned());
        *cursor += (end - start) as u64;
        Ok(())
    }
}

/// A reader of one resource's changes. Dropping it ends the watch.
pub struct Watcher {
    pub cache: Arc<ResourceCache>,
    selection: Selection,
    log: Arc<Log>,
    cursor: u64,
    /// Events before the cursor of a keyed log, to be read first.
    backlog: Vec<Arc<Event>>,
    taken: Vec<Arc<Event>>,
}

impl Watcher {
    pub(super) fn new(
        cache: Arc<ResourceCache>,
        selection: Selection,
        log: Arc<Log>,
        cursor: u64,
        backlog: Vec<Arc<Event>>,
    ) -> Self {
        Watcher { cache, selection, log, cursor, backlog, taken: Vec::new() }
    }

    /// Appends what has happened since the last call, as the selection sees it; possibly nothing. Never waits.
    ///
    /// `false` says that the log holds no more for now.
    pub fn poll_seen(&mut self, out: &mut Vec<Seen>) -> Result<bool, Lagged> {
        let mut taken = std::mem::take(&mut self.taken);
        if self.backlog.is_empty() {
            self.log.read(&mut self.cursor, &mut taken)?;
        } else {
            taken = std::mem::take(&mut self.backlog);
        }
        let any = !taken.is_empty();
        for event in taken.drain(..) {
            out.extend(self.see(event));
        }
        self.taken = taken;
        Ok(any)
    }

    /// Waits until something selected has happened, and appends it.
    pub async fn seen(&mut self, out: &mut Vec<Seen>) -> Result<(), Lagged> {
        let log = self.log.clone();
        loop {
            let grown = log.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            while self.poll_seen(out)? {
                if !out.is_empty() {
                    return Ok(());
                }
            }
            grown.await;
        }
    }

    fn see(&self, event: Arc<Event>) -> Option<Seen> {
        let strategy = &*self.cache.strategy;
        let is = self.selection.matches(&event.item, strategy);
        let (change, object) = match event.change {
            Change::Added => (is.then_some(Change::Added)?, event.item.object.clone()),
            Change::Deleted => (is.then_some(Change::Deleted)?, event.item.object.clone()),
            Change::Modified => {
                let was = event.prev.as_ref().is_some_and(|prev| self.selection.matches(prev, strategy));
                match (was, is) {
                    (true, true) => (Change::Modified, event.item.object.clone()),
                    (false, true) => (Change::Added, event.item.object.clone()),
                    (true, false) => (Change::Deleted, event.left()),
                    (false, false) => return None,
                }
            }
        };
        Some(Seen { change, object, event })
    }
}
