//! One resource's objects: the published snapshot, the changes being applied, and the history of changes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
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

/// Logs by a selectable field's place in the strategy's list and the value it must have.
type KeyedLogs = BTreeMap<usize, HashMap<Box<str>, Weak<Log>>>;

/// One resource's cache. Shared by all forms under which the resource is served.
pub struct ResourceCache {
    pub resource: ResourceType,
    pub strategy: Arc<dyn AnyStrategy>,
    directory: String,
    state: ArcSwap<Snapshot>,
    log: Arc<Log>,
    /// Logs of their own for watchers that want one value of one field (`spec.nodeName` of each kubelet), so that an event
    /// wakes whom it concerns and not all of a thousand nodes.
    keyed: RwLock<KeyedLogs>,
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

    /// About how many bytes an object has: the mean of the first and the last by name. Good for estimates of work.
    pub fn typical_size(&self) -> usize {
        let state = self.state.load();
        let size = |pair: Option<&(ObjectKey, Arc<Item>)>| pair.map_or(0, |(_, item)| item.object.raw().len());
        (size(state.items.get_min()) + size(state.items.get_max())) / 2
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
        let of_field = keyed.entry(field).or_default();
        let log = of_field.get(value).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Now and then is often enough to forget those whom nobody reads.
            if of_field.len().is_power_of_two() {
                of_field.retain(|_, log| log.strong_count() > 0);
            }
            let log = Arc::new(Log::new());
            of_field.insert(Box::from(value), Arc::downgrade(&log));
            log
        });
        let cursor = log.end();
        Ok(Watcher::new(self.clone(), selection, log, cursor, backlog))
    }

    /// The current state and a watcher of what changes it. What happens meanwhile may be in both.
    pub fn follow(self: &Arc<Self>) -> (Watcher, Arc<Snapshot>) {
        // In this order: a snapshot is published before its changes enter the log.
        let watcher = Watcher::new(self.clone(), Selection::default(), self.log.clone(), self.log.end(), Vec::new());
        (watcher, self.snapshot())
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
        let grown = self.distribute(&keyed, &applying.events);
        self.log.append(&applying.events);
        self.log.wake();
        for log in grown {
            log.wake();
        }
    }

    /// Lets go of changes that nobody may ask for any more.
    pub(super) fn forget_before(&self, revision: u64) {
        self.log.forget_before(revision);
        for log in self.keyed.read().values().flat_map(HashMap::values).filter_map(Weak::upgrade) {
            log.forget_before(revision);
        }
    }

    /// Appends events to the logs of those who want one value of a field; returns the logs that have grown.
    fn distribute(&self, keyed: &KeyedLogs, events: &[Arc<Event>]) -> Vec<Arc<Log>> {
        let mut grown: Vec<Arc<Log>> = Vec::new();
        for (field, logs) in keyed {
            for event in events {
                let now = event.item.fields(&*self.strategy).get(*field);
                let before = event.prev.as_ref().and_then(|prev| prev.fields(&*self.strategy).get(*field));
                for value in now.into_iter().chain(before.filter(|before| Some(*before) != now)) {
                    let Some(log) = logs.get(value).and_then(Weak::upgrade) else { continue };
                    log.append(std::slice::from_ref(event));
                    if !grown.iter().any(|one| Arc::ptr_eq(one, &log)) {
                        grown.push(log);
                    }
                }
            }
        }
        grown
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
