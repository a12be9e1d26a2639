//! One resource's objects: the published snapshot, the changes being applied, and the history of changes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use xebec_api::object::{DecodeError, Object, ObjectKey};
use xebec_api::resource::ResourceType;
use xebec_store::KeyValue;

use super::history::History;
use super::log::{Change, Event, Log};
use super::selection::Selection;
use super::{Lagged, Watcher};
use crate::registry::erased::AnyStrategy;

pub type ItemMap = OrdMap<ObjectKey, Arc<Item>>;

/// An object in the cache with the values of its selectable fields, found at most once.
pub struct Item {
    pub object: Arc<Object>,
    fields: OnceLock<Box<[Box<str>]>>,
}

impl Item {
    pub fn new(object: Object) -> Arc<Self> {
        Arc::new(Item { object: Arc::new(object), fields: OnceLock::new() })
    }

    /// In the order of the strategy's `selectable_fields`. An object that cannot be decoded has empty fields.
    pub fn fields(&self, strategy: &dyn AnyStrategy) -> &[Box<str>] {
        self.fields.get_or_init(|| {
            strategy
                .fields(&self.object)
                .unwrap_or_else(|_| vec![Box::from(""); strategy.selectable_fields().len()].into_boxed_slice())
        })
    }
}

/// The state of one resource at one revision.
pub struct Snapshot {
    /// Of the last change in it.
    pub revision: u64,
    pub items: ItemMap,
}

impl Snapshot {
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Item>> {
        self.items.get(key_ref(&(namespace, name)))
    }

    /// The items of a namespace (empty: of all), in the order of their keys, beginning behind `after`.
    pub fn scan<'s>(
        &'s self,
        namespace: &'s str,
        after: Option<(&'s str, &'s str)>,
    ) -> impl Iterator<Item = &'s Arc<Item>> {
        let first = (namespace, "");
        let start: Bound<(&str, &str)> = after.map_or(Bound::Included(first), Bound::Excluded);
        let range = match &start {
            Bound::Included(pair) => (Bound::Included(key_ref(pair)), Bound::Unbounded),
            Bound::Excluded(pair) => (Bound::Excluded(key_ref(pair)), Bound::Unbounded),
            Bound::Unbounded => (Bound::Unbounded, Bound::Unbounded),
        };
        self.items
            .range::<_, dyn KeyParts>(range)
            .take_while(move |(key, _)| namespace.is_empty() || *key.namespace == *namespace)
            .map(|(_, item)| item)
    }
}

/// A key that need not be allocated to be looked up.
pub trait KeyParts {
    fn parts(&self) -> (&str, &str);
}

impl KeyParts for ObjectKey {
    fn parts(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl KeyParts for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

impl<'k> Borrow<dyn KeyParts + 'k> for ObjectKey {
    fn borrow(&self) -> &(dyn KeyParts + 'k) {
        self
    }
}

impl PartialEq for dyn KeyParts + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn KeyParts + '_ {}

impl PartialOrd for dyn KeyParts + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn KeyParts + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

/// A namespace and a name as the key of a look-up.
pub fn key_ref<'k>(pair: &'k (&'k str, &'k str)) -> &'k (dyn KeyParts + 'k) {
    pair
}

/// A selectable field, by its place in the strategy's list, and the value it must have.
type Trigger = (usize, Box<str>);

/// One resource's cache. Shared by all forms under which the resource is served.
pub struct ResourceCache {
    pub resource: ResourceType,
    pub strategy: Arc<dyn AnyStrategy>,
    directory: String,
    state: ArcSwap<Snapshot>,
    log: Arc<Log>,
    /// Logs of their own for watchers that want one value of one field (`spec.nodeName` of each kubelet), so that an event
    /// wakes whom it concerns and not all of a thousand nodes.
    keyed: RwLock<HashMap<Trigger, Weak<Log>>>,
    history: Mutex<History>,
    /// Objects vanish that long after their last write.
    pub time_to_live: Option<Duration>,
}

impl ResourceCache {
    pub fn new(row: &crate::registry::erased::Row, strategy: Arc<dyn AnyStrategy>) -> Self {
        let prefix = row.prefix();
        let directory = prefix.strip_prefix(super::ROOT).unwrap_or(&prefix).trim_end_matches('/').to_owned();
        ResourceCache {
            resource: row.stored.clone(),
            strategy,
            directory,
            state: ArcSwap::from_pointee(Snapshot { revision: 0, items: ItemMap::new() }),
            log: Arc::new(Log::new()),
            keyed: RwLock::default(),
            history: Mutex::new(History::default()),
            time_to_live: row.time_to_live.map(|seconds| Duration::from_secs(u64::from(seconds))),
        }
    }

    /// The part of the stored keys between the root and the namespace.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    pub fn store_key(&self, namespace: &str, name: &str) -> String {
        let mut key =
            String::with_capacity(super::ROOT.len() + self.directory.len() + namespace.len() + name.len() + 2);
        key.push_str(super::ROOT);
        key.push_str(&self.directory);
        key.push('/');
        if self.resource.namespaced {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        key
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state.load_full()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Item>> {
        self.state.load().get(namespace, name).cloned()
    }

    pub fn len(&self) -> usize {
        self.state.load().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state as it was at `revision`, which must not be in the future; not before `horizon`.
    pub(super) fn at(&self, revision: u64, horizon: u64) -> Result<Arc<Snapshot>, Lagged> {
        self.history.lock().at(revision, horizon, &self.snapshot(), &self.log)
    }

    pub(super) fn pin(&self, revision: u64, snapshot: Arc<Snapshot>, horizon: u64) {
        self.history.lock().pin(revision, snapshot, horizon);
    }

    /// A watcher of all changes after `revision`.
    pub fn watch(self: &Arc<Self>, revision: u64, selection: Selection) -> Result<Watcher, Lagged> {
        let Some((field, value)) = selection.trigger() else {
            let cursor = self.log.cursor_after(revision)?;
            return Ok(Watcher::new(self.clone(), selection, self.log.clone(), cursor, Vec::new()));
        };
        // Under the lock that publishing takes too: no event falls between the backlog and the keyed log.
        let mut keyed = self.keyed.write();
        let backlog = self.log.read_after(revision)?;
        let trigger = (field, Box::from(value));
        let log = keyed.get(&trigger).and_then(Weak::upgrade).unwrap_or_else(|| {
            keyed.retain(|_, log| log.strong_count() > 0);
            let log = Arc::new(Log::new());
            keyed.insert(trigger, Arc::downgrade(&log));
            log
        });
        let cursor = log.end();
        Ok(Watcher::new(self.clone(), selection, log, cursor, backlog))
    }

    pub(super) fn loading(&self) -> Loading {
        Loading { namespaced: self.resource.namespaced, items: Vec::new(), revision: 0 }
    }

    pub(super) fn publish_loaded(&self, loading: Loading, revision: u64) {
        let items = loading.items.into_iter().collect();
        self.state.store(Arc::new(Snapshot { revision: loading.revision, items }));
        self.log.start_after(revision);
    }

    pub(super) fn applying(&self) -> Applying {
        let items = self.state.load().items.clone();
        Applying { namespaced: self.resource.namespaced, items, revision: 0, events: Vec::new() }
    }

    pub(super) fn publish(&self, applying: Applying) {
        if applying.events.is_empty() {
            return;
        }
        let keyed = self.keyed.read();
        self.state.store(Arc::new(Snapshot { revision: applying.revision, items: applying.items }));
        if !keyed.is_empty() {
            self.distribute(&keyed, &applying.events);
        }
        self.log.append(&applying.events);
        self.log.wake();
        for log in keyed.values().filter_map(Weak::upgrade) {
            log.wake_if_grown();
        }
    }

    fn distribute(&self, keyed: &HashMap<Trigger, Weak<Log>>, events: &[Arc<Event>]) {
        let mut wanted: Vec<usize> = keyed.keys().map(|(field, _)| *field).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for event in events {
            for field in &wanted {
                let value = |item: &Arc<Item>| item.fields(&*self.strategy).get(*field).cloned();
                let now = value(&event.item);
                let before = event.prev.as_ref().and_then(value);
                for value in [now.clone(), before.filter(|before| Some(before) != now.as_ref())].into_iter().flatten() {
                    if let Some(log) = keyed.get(&(*field, value)).and_then(Weak::upgrade) {
                        log.append(std::slice::from_ref(event));
                    }
                }
            }
        }
    }
}

/// The objects read at start.
pub(super) struct Loading {
    namespaced: bool,
    items: Vec<(ObjectKey, Arc<Item>)>,
    revision: u64,
}

impl Loading {
    pub fn put(&mut self, _key: &str, kv: &KeyValue) -> Result<(), DecodeError> {
        let object = Object::from_store(kv.value.clone(), kv.mod_revision)?;
        debug_assert_eq!(self.namespaced, !object.namespace().is_empty(), "{}", object.key());
        self.revision = self.revision.max(kv.mod_revision);
        self.items.push((object.key().clone(), Item::new(object)));
        Ok(())
    }
}

/// Changes on their way into the next snapshot.
pub(super) struct Applying {
    namespaced: bool,
    items: ItemMap,
    revision: u64,
    events: Vec<Arc<Event>>,
}

impl Applying {
    pub fn put(&mut self, _key: &str, kv: &KeyValue) -> Result<(), DecodeError> {
        let object = Object::from_store(kv.value.clone(), kv.mod_revision)?;
        self.revision = kv.mod_revision;
        let key = object.key().clone();
        let item = Item::new(object);
        let prev = self.items.insert(key, item.clone());
        let change = if prev.is_some() { Change::Modified } else { Change::Added };
        self.events.push(Arc::new(Event::new(change, kv.mod_revision, item, prev)));
        Ok(())
    }

    pub fn delete(&mut self, key: &str, revision: u64) -> Result<(), DecodeError> {
        let (namespace, name) = if self.namespaced { key.split_once('/').unwrap_or(("", key)) } else { ("", key) };
        let Some(prev) = self.items.remove(key_ref(&(namespace, name))) else { return Ok(()) };
        // Upstream shows the last state of a deleted object with the revision of the deletion.
        let last = Item::new(Object::from_store(prev.object.raw().clone(), revision)?);
        self.revision = revision;
        self.events.push(Arc::new(Event::new(Change::Deleted, revision, last, Some(prev))));
        Ok(())
    }
}
