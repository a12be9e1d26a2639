//! Informers: one list and watch a kind, a view that listers read, and callbacks that turn changes into queue keys.
//!
//! The view holds the same `Arc<Object>`s that the transport yields; in the server's own process those are the API server's
//! cache entries, so a kind costs its map and no second copy. All users of one [`Informers`] share one watch a kind. A broken
//! watch is taken up where it ended; a compacted revision lists anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use xebec_api::{Kind, LabelSelector, Object, ObjectKey, ResourceType};
use xebec_base::{Backoff, Chain, SharedClock, Shutdown};
use xebec_client::{Client, Error, EventKind, ListOptions, ObjectEvent, WatchOptions};

/// A change as a callback sees it. `old` is absent when the object is new to this informer.
pub enum Change<'a, K> {
    Applied { old: Option<&'a Arc<K>>, new: &'a Arc<K> },
    Deleted(&'a Arc<K>),
}

impl<'a, K> Change<'a, K> {
    /// The object's latest known state.
    pub fn object(&self) -> &'a Arc<K> {
        match self {
            Change::Applied { new, .. } => new,
            Change::Deleted(old) => old,
        }
    }
}

/// All informers of one component set over one client.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    clock: SharedClock,
    shutdown: Shutdown,
    running: Mutex<HashMap<(ResourceType, Selection), Arc<Shared>>>,
}

/// Which part of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Selection {
    namespace: Option<String>,
    fields: Option<String>,
}

impl Informers {
    pub fn new(client: Client, clock: SharedClock, shutdown: Shutdown) -> Self {
        Informers { inner: Arc::new(Inner { client, clock, shutdown, running: Mutex::default() }) }
    }

    /// The informer over all objects of a kind, started on first use.
    pub fn of<K: Kind>(&self) -> Informer<K> {
        self.start(Selection::default())
    }

    /// The informer over the objects that a field selector selects, as `spec.nodeName=a`.
    pub fn selecting<K: Kind>(&self, fields: &str) -> Informer<K> {
        self.start(Selection { namespace: None, fields: Some(fields.to_owned()) })
    }

    /// The informer over one namespace.
    pub fn within<K: Kind>(&self, namespace: &str) -> Informer<K> {
        self.start(Selection { namespace: Some(namespace.to_owned()), fields: None })
    }

    /// Returns when every informer started so far has listed once.
    pub async fn synced(&self) {
        let running: Vec<_> = self.inner.running.lock().values().cloned().collect();
        for shared in running {
            shared.synced().await;
        }
    }

    /// The informer over a kind that is only known by name, as the garbage collector needs.
    pub fn objects(&self, resource: &ResourceType) -> ObjectInformer {
        ObjectInformer { shared: self.shared(resource, Selection::default()) }
    }

    fn start<K: Kind>(&self, selection: Selection) -> Informer<K> {
        Informer { shared: self.shared(&ResourceType::of::<K>(), selection), kind: PhantomData }
    }

    fn shared(&self, resource: &ResourceType, selection: Selection) -> Arc<Shared> {
        let mut running = self.inner.running.lock();
        let entry = running.entry((resource.clone(), selection.clone()));
        let start = || {
            let shared = Arc::new(Shared::default());
            let reflector = Reflector {
                client: self.inner.client.clone(),
                clock: self.inner.clock.clone(),
                resource: resource.clone(),
                selection,
                shared: shared.clone(),
            };
            self.inner.shutdown.spawn(reflector.run());
            shared
        };
        entry.or_insert_with(start).clone()
    }
}

/// The view of one kind as undecoded objects; it shares its watch with the typed informer of the same kind.
#[derive(Clone)]
pub struct ObjectInformer {
    shared: Arc<Shared>,
}

impl ObjectInformer {
    /// Calls back with the old and the new state, first for every object that is already there. It must not block.
    pub fn on_change(&self, handler: impl Fn(Option<&Arc<Object>>, Option<&Arc<Object>>) + Send + Sync + 'static) {
        self.shared.subscribe(Box::new(handler));
    }

    /// Returns when the first list is in the view.
    pub async fn synced(&self) {
        self.shared.synced().await
    }
}

/// The view of one kind; cheap to clone. An object whose bytes do not decode as `K` is logged and left out.
pub struct Informer<K> {
    shared: Arc<Shared>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { shared: self.shared.clone(), kind: PhantomData }
    }
}

type Handler = Box<dyn Fn(Option<&Arc<Object>>, Option<&Arc<Object>>) + Send + Sync>;
type IndexKeys = Box<dyn Fn(&Arc<Object>) -> Vec<String> + Send + Sync>;

struct Index {
    keys: IndexKeys,
    entries: HashMap<String, BTreeSet<ObjectKey>>,
}

#[derive(Default)]
struct View {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    indexes: HashMap<&'static str, Index>,
}

struct Shared {
    view: RwLock<View>,
    /// Held while a change is applied and told, so that a late subscriber misses and repeats nothing.
    handlers: Mutex<Vec<Handler>>,
    synced: watch::Sender<bool>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared { view: RwLock::default(), handlers: Mutex::default(), synced: watch::Sender::new(false) }
    }
}

impl<K: Kind> Informer<K> {
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.object(key).and_then(|object| typed(&object))
    }

    /// The shared object itself.
    pub fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.shared.view.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.objects().iter().filter_map(typed).collect()
    }

    pub fn objects(&self) -> Vec<Arc<Object>> {
        self.shared.view.read().objects.values().cloned().collect()
    }

    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.objects_in(namespace).iter().filter_map(typed).collect()
    }

    /// Those of a namespace whose labels match; only the matching ones are decoded.
    pub fn select(&self, namespace: &str, selector: &LabelSelector) -> Vec<Arc<K>> {
        let objects = self.objects_in(namespace);
        objects.iter().filter(|object| selector.matches(object.meta())).filter_map(typed).collect()
    }

    pub fn objects_in(&self, namespace: &str) -> Vec<Arc<Object>> {
        let view = self.shared.view.read();
        let from = ObjectKey::new(namespace, "");
        view.objects.range(from..).take_while(|(key, _)| &*key.namespace == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// Keeps an index from now on. The same name must always come with the same function; a second call changes nothing.
    pub fn index(&self, name: &'static str, keys: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        let mut view = self.shared.view.write();
        if view.indexes.contains_key(name) {
            return;
        }
        let keys: IndexKeys = Box::new(move |object| typed::<K>(object).map_or_else(Vec::new, |typed| keys(&typed)));
        let mut index = Index { keys, entries: HashMap::new() };
        for object in view.objects.values() {
            index.insert(object);
        }
        view.indexes.insert(name, index);
    }

    /// The objects that an index lists under a value. An index that was never asked for lists nothing.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let objects: Vec<Arc<Object>> = {
            let view = self.shared.view.read();
            let keys = view.indexes.get(name).and_then(|index| index.entries.get(value));
            keys.into_iter().flatten().filter_map(|key| view.objects.get(key).cloned()).collect()
        };
        objects.iter().filter_map(typed).collect()
    }

    /// Calls back for every change, first for every object that is already there. It must be quick and must not block: it
    /// adds a key to a queue.
    pub fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        let handler: Handler = Box::new(move |old, new| {
            let (old, new) = (old.and_then(typed::<K>), new.and_then(typed::<K>));
            match (&old, &new) {
                (_, Some(new)) => handler(Change::Applied { old: old.as_ref(), new }),
                (Some(old), None) => handler(Change::Deleted(old)),
                (None, None) => {}
            }
        });
        self.shared.subscribe(handler);
    }

    /// Returns when the first list is in the view.
    pub async fn synced(&self) {
        self.shared.synced().await
    }

    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }
}

fn typed<K: Kind>(object: &Arc<Object>) -> Option<Arc<K>> {
    object
        .typed::<K>()
        .inspect_err(|error| tracing::error!(error = %Chain(error), kind = K::KIND, "an object does not decode"))
        .ok()
}

impl Index {
    fn insert(&mut self, object: &Arc<Object>) {
        for value in (self.keys)(object) {
            self.entries.entry(value).or_default().insert(object.key().clone());
        }
    }

    fn remove(&mut self, object: &Arc<Object>) {
        for value in (self.keys)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(object.key());
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

impl View {
    fn put(&mut self, object: &Arc<Object>) -> Option<Arc<Object>> {
        let old = self.objects.insert(object.key().clone(), object.clone());
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(object);
        }
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(&old);
        }
        Some(old)
    }
}

impl Shared {
    fn subscribe(&self, handler: Handler) {
        let mut handlers = self.handlers.lock();
        let present: Vec<Arc<Object>> = self.view.read().objects.values().cloned().collect();
        for object in &present {
            handler(None, Some(object));
        }
        handlers.push(handler);
    }

    async fn synced(&self) {
        let mut receiver = self.synced.subscribe();
        let _ = receiver.wait_for(|synced| *synced).await;
    }

    fn apply(&self, object: &Arc<Object>) {
        let handlers = self.handlers.lock();
        let old = self.view.write().put(object);
        if old.as_ref().is_some_and(|old| old.revision() == object.revision() && old.meta().uid == object.meta().uid) {
            return;
        }
        for handler in handlers.iter() {
            handler(old.as_ref(), Some(object));
        }
    }

    fn delete(&self, last: &Arc<Object>) {
        let handlers = self.handlers.lock();
        if self.view.write().remove(last.key()).is_none() {
            return;
        }
        for handler in handlers.iter() {
            handler(Some(last), None);
        }
    }

    /// Makes the view equal to a fresh list.
    fn replace(&self, items: &[Arc<Object>]) {
        let listed: BTreeSet<&ObjectKey> = items.iter().map(|object| object.key()).collect();
        let gone: Vec<Arc<Object>> = {
            let view = self.view.read();
            view.objects.iter().filter(|(key, _)| !listed.contains(key)).map(|(_, object)| object.clone()).collect()
        };
        gone.iter().for_each(|object| self.delete(object));
        items.iter().for_each(|object| self.apply(object));
    }
}

/// The loop behind one informer.
struct Reflector {
    client: Client,
    clock: SharedClock,
    resource: ResourceType,
    selection: Selection,
    shared: Arc<Shared>,
}

/// Between tries after an error: quick at first, for a server that is just starting, at most 10 s apart.
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10)).with_jitter(0.5);

impl Reflector {
    async fn run(self) {
        let mut retry = RETRY;
        loop {
            match self.list_and_watch(&mut retry).await {
                Ok(()) => {}
                Err(error) if error.is_expired() => {
                    tracing::debug!(resource = %self.resource, "the watched revision is gone, listing anew");
                }
                Err(error) => {
                    tracing::warn!(resource = %self.resource, error = %Chain(&error), "cannot list and watch");
                }
            }
            self.clock.sleep(retry.next_delay()).await;
        }
    }

    /// Lists, then watches until the server says that the revision is too old.
    async fn list_and_watch(&self, retry: &mut Backoff) -> Result<(), Error> {
        let options = ListOptions { field_selector: self.selection.fields.clone(), ..ListOptions::default() };
        let list = self.client.transport().list(&self.resource, self.selection.namespace.as_deref(), &options).await?;
        self.shared.replace(&list.items);
        self.shared.synced.send_replace(true);
        let mut revision = list.resource_version;
        loop {
            match self.watch(&mut revision, retry).await {
                Ok(()) => {}
                Err(error) if error.is_expired() => return Err(error),
                Err(error) => {
                    tracing::debug!(resource = %self.resource, error = %Chain(&error), "the watch broke");
                    self.clock.sleep(retry.next_delay()).await;
                }
            }
        }
    }

    async fn watch(&self, revision: &mut String, retry: &mut Backoff) -> Result<(), Error> {
        let options = WatchOptions {
            field_selector: self.selection.fields.clone(),
            resource_version: revision.clone(),
            ..WatchOptions::default()
        };
        let namespace = self.selection.namespace.as_deref();
        let mut events = self.client.transport().watch(&self.resource, namespace, &options).await?;
        let started = self.clock.elapsed();
        while let Some(event) = events.next().await {
            let ObjectEvent { kind, object } = event?;
            match kind {
                EventKind::Added | EventKind::Modified => self.shared.apply(&object),
                EventKind::Deleted => self.shared.delete(&object),
                EventKind::Bookmark => {}
            }
            *revision = object.revision().to_string();
            retry.reset();
        }
        // A server that ends watches at once must not be asked in a tight loop.
        if self.clock.elapsed().saturating_sub(started) < Duration::from_secs(1) {
            self.clock.sleep(retry.next_delay()).await;
        }
        Ok(())
    }
}
