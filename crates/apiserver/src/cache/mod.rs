//! The state of every resource in memory, as snapshots that readers share with one another and with the watch history.
//!
//! One feed follows the store and applies its changes in the order of their revisions; what it publishes is immutable. A
//! reader takes a snapshot and never waits for a writer, except that a consistent read first awaits the revision that the
//! store has reached ([`Cache::reach`]). Nothing here writes to the store.

mod history;
mod log;
mod resource;
mod selection;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use xebec_api::object::DecodeError;
use xebec_base::{SharedClock, Shutdown};
use xebec_store::{EventKind, KeyRange, KeyValue, Range, Store, WatchBatch, WatchRequest, WatchStream};

pub use log::{Change, Event, EventKindSeen, Lagged, Seen, Watcher};
pub use resource::{Item, ItemMap, ResourceCache, Snapshot, key_ref};
pub use selection::{Selection, UnknownField};

/// Under which every object's key begins.
pub const ROOT: &str = "/registry/";
/// How many store batches are applied before their snapshots are published, when so many are waiting: readers see bursts
/// in steps, and a burst costs one wake-up a watcher and step.
const APPLY_AT_ONCE: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the store")]
    Store(#[from] xebec_store::Error),
    #[error("the store holds an object at {key} that cannot be read")]
    Object { key: String, source: DecodeError },
}

/// All resources' caches, and how far they are.
pub struct Cache {
    directories: HashMap<String, Arc<ResourceCache>>,
    /// Every change up to this revision is in the snapshots.
    applied: AtomicU64,
    progressed: Notify,
    horizon: Mutex<history::Horizon>,
    clock: SharedClock,
}

impl Cache {
    /// Reads everything from the store and follows it until shutdown. A store that loses the feed ends the server: what it
    /// would serve from then on could not be trusted.
    pub async fn load(
        store: Arc<dyn Store>,
        caches: Vec<Arc<ResourceCache>>,
        clock: SharedClock,
        shutdown: &Shutdown,
    ) -> Result<Arc<Cache>, LoadError> {
        let directories = caches.into_iter().map(|cache| (cache.directory().to_owned(), cache)).collect();
        let cache = Arc::new(Cache {
            directories,
            applied: AtomicU64::new(0),
            progressed: Notify::new(),
            horizon: Mutex::default(),
            clock,
        });
        let all = store.range(Range::prefix(ROOT)).await?;
        cache.fill(&all.kvs, all.revision)?;
        let request = WatchRequest::of(KeyRange::prefix(ROOT)).from(all.revision + 1).with_progress();
        let stream = store.watch(request).await?;
        let feed = Feed { cache: cache.clone(), stream, shutdown: shutdown.clone() };
        shutdown.spawn(feed.run());
        Ok(cache)
    }

    /// The revision up to which the snapshots hold everything.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Returns once every change up to `revision` is in the snapshots.
    pub async fn reach(&self, revision: u64) {
        if self.applied() >= revision {
            return;
        }
        loop {
            let progressed = self.progressed.notified();
            tokio::pin!(progressed);
            progressed.as_mut().enable();
            if self.applied() >= revision {
                return;
            }
            progressed.await;
        }
    }

    /// The current state of a resource and the revision at which it holds.
    pub fn current(&self, resource: &ResourceCache) -> (Arc<Snapshot>, u64) {
        // In this order: what is published after the first line can only make the snapshot newer.
        let applied = self.applied();
        let snapshot = resource.snapshot();
        let revision = applied.max(snapshot.revision);
        (snapshot, revision)
    }

    /// The state of a resource as it was at `revision`, which must have been reached.
    pub fn at(&self, resource: &ResourceCache, revision: u64) -> Result<Arc<Snapshot>, Lagged> {
        resource.at(revision, self.horizon.lock().revision(self.clock.elapsed()))
    }

    /// Keeps a snapshot at hand for the pages of a list that is read in parts.
    pub fn pin(&self, resource: &ResourceCache, revision: u64, snapshot: Arc<Snapshot>) {
        resource.pin(revision, snapshot, self.horizon.lock().revision(self.clock.elapsed()));
    }

    fn fill(&self, kvs: &[KeyValue], revision: u64) -> Result<(), LoadError> {
        let mut states: HashMap<&str, resource::Loading> = HashMap::new();
        for kv in kvs {
            let Some((resource, key)) = self.find(&kv.key) else { continue };
            let loading = states.entry(resource.directory()).or_insert_with(|| resource.loading());
            loading
                .put(key, kv)
                .map_err(|source| LoadError::Object { key: kv.key.escape_ascii().to_string(), source })?;
        }
        for resource in self.directories.values() {
            let loading = states.remove(resource.directory()).unwrap_or_else(|| resource.loading());
            resource.publish_loaded(loading, revision);
        }
        self.applied.store(revision, Ordering::Release);
        Ok(())
    }

    /// The resource that a key belongs to, and the rest of the key behind the directory.
    fn find<'k>(&self, key: &'k [u8]) -> Option<(&Arc<ResourceCache>, &'k str)> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
        let first = path.find('/')?;
        if let Some(resource) = self.directories.get(&path[..first]) {
            return Some((resource, &path[first + 1..]));
        }
        let second = first + 1 + path[first + 1..].find('/')?;
        self.directories.get(&path[..second]).map(|resource| (resource, &path[second + 1..]))
    }

    /// Applies batches in order and publishes what they changed.
    fn apply(&self, batches: &[WatchBatch]) {
        let mut touched: Vec<(Arc<ResourceCache>, resource::Applying)> = Vec::new();
        for batch in batches {
            for event in &batch.events {
                let Some((resource, key)) = self.find(&event.kv.key) else { continue };
                let at = touched.iter().position(|(one, _)| Arc::ptr_eq(one, resource)).unwrap_or_else(|| {
                    touched.push((resource.clone(), resource.applying()));
                    touched.len() - 1
                });
                let applied = match event.kind {
                    EventKind::Put => touched[at].1.put(key, &event.kv),
                    EventKind::Delete => touched[at].1.delete(key, batch.revision),
                };
                if let Err(error) = applied {
                    let error = xebec_base::Chain(&error).to_string();
                    tracing::error!(key = %event.kv.key.escape_ascii(), error, "an object in the store cannot be read");
                }
            }
        }
        for (resource, applying) in touched {
            resource.publish(applying);
        }
        if let Some(last) = batches.last() {
            self.applied.fetch_max(last.revision, Ordering::Release);
            let expired = self.horizon.lock().mark(last.revision, self.clock.elapsed());
            if let Some(expired) = expired {
                self.directories.values().for_each(|resource| resource.forget_before(expired));
            }
            self.progressed.notify_waiters();
        }
    }
}

struct Feed {
    cache: Arc<Cache>,
    stream: WatchStream,
    shutdown: Shutdown,
}

impl Feed {
    async fn run(mut self) {
        let mut batches = Vec::with_capacity(APPLY_AT_ONCE);
        loop {
            match self.stream.next().await {
                Some(Ok(batch)) => batches.push(batch),
                ended => return self.lost(ended.and_then(Result::err)),
            }
            while batches.len() < APPLY_AT_ONCE {
                match self.stream.next().now_or_never() {
                    Some(Some(Ok(batch))) => batches.push(batch),
                    Some(ended) => {
                        self.cache.apply(&batches);
                        return self.lost(ended.and_then(Result::err));
                    }
                    None => break,
                }
            }
            self.cache.apply(&batches);
            batches.clear();
        }
    }

    fn lost(&self, error: Option<xebec_store::Error>) {
        if self.shutdown.is_triggered() {
            return;
        }
        let error = error.map_or_else(|| "it was closed".to_owned(), |error| xebec_base::Chain(&error).to_string());
        tracing::error!(error, "the store's change feed has ended; the server stops");
        self.shutdown.trigger();
    }
}
