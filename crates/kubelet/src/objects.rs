//! The ConfigMaps and Secrets that the node's Pods refer to, each watched by its name while a Pod uses it.
//!
//! One watch an object and not one a kind: a node may read only what its Pods name, and that is how upstream's authoriser
//! grants it. A change is told to the Pods that use the object, so that it reaches their volumes at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use tokio::sync::watch;
use xebec_api::{Kind, ObjectKey, ResourceType};
use xebec_base::{Backoff, SharedClock, Shutdown};
use xebec_client::{Client, EventKind, ListOptions, WatchOptions};

use crate::env::{EnvError, Lookup};

/// How long a Pod waits for an object's first answer before it says that it cannot read it.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10)).with_jitter(0.5);

/// Told the UIDs of the Pods that use a changed object.
pub type Changed = Arc<dyn Fn(&[String]) + Send + Sync>;

/// The objects of both kinds.
pub struct Objects {
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
}

impl Objects {
    pub fn new(client: Client, clock: SharedClock, shutdown: Shutdown, changed: Changed) -> Objects {
        Objects {
            config_maps: Watched::new(client.clone(), clock.clone(), shutdown.clone(), changed.clone()),
            secrets: Watched::new(client, clock, shutdown, changed),
        }
    }

    /// Reads on behalf of one Pod.
    pub fn of<'a>(&'a self, uid: &'a str) -> ObjectsOf<'a> {
        ObjectsOf { objects: self, uid }
    }

    /// The Pod is gone: what only it used is watched no longer.
    pub fn release(&self, uid: &str) {
        self.config_maps.release(uid);
        self.secrets.release(uid);
    }
}

pub struct ObjectsOf<'a> {
    objects: &'a Objects,
    uid: &'a str,
}

#[async_trait]
impl Lookup for ObjectsOf<'_> {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, EnvError> {
        self.objects.config_maps.get(self.uid, namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, EnvError> {
        self.objects.secrets.get(self.uid, namespace, name).await
    }
}

/// What is known of an object: nothing yet, its state (absent is a state), or why it cannot be read.
type Known<K> = Option<Result<Option<Arc<K>>, String>>;

struct Watched<K> {
    client: Client,
    clock: SharedClock,
    shutdown: Shutdown,
    changed: Changed,
    entries: Mutex<HashMap<ObjectKey, Entry<K>>>,
}

struct Entry<K> {
    users: Arc<Mutex<HashSet<String>>>,
    known: watch::Receiver<Known<K>>,
    follower: Shutdown,
}

impl<K: Kind> Watched<K> {
    fn new(client: Client, clock: SharedClock, shutdown: Shutdown, changed: Changed) -> Self {
        Watched { client, clock, shutdown, changed, entries: Mutex::default() }
    }

    async fn get(&self, uid: &str, namespace: &str, name: &str) -> Result<Option<Arc<K>>, EnvError> {
        let mut known = self.subscribe(uid, ObjectKey::new(namespace, name));
        let failed = |message: String| EnvError::Lookup {
            kind: K::KIND,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            message,
        };
        let answered = tokio::time::timeout(FIRST_ANSWER, known.wait_for(Option::is_some)).await;
        match answered {
            Ok(Ok(known)) => known.clone().unwrap_or(Ok(None)).map_err(failed),
            Ok(Err(_)) => Err(failed("the agent is stopping".into())),
            Err(_) => Err(failed(format!("no answer within {} s", FIRST_ANSWER.as_secs()))),
        }
    }

    fn subscribe(&self, uid: &str, key: ObjectKey) -> watch::Receiver<Known<K>> {
        let mut entries = self.entries.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let (sender, known) = watch::channel(None);
            let (users, follower) = (Arc::<Mutex<HashSet<String>>>::default(), self.shutdown.child());
            let task = Follower {
                client: self.client.clone(),
                clock: self.clock.clone(),
                key,
                users: users.clone(),
                changed: self.changed.clone(),
                known: sender,
            };
            follower.spawn(task.run());
            Entry { users, known, follower }
        });
        entry.users.lock().insert(uid.to_owned());
        entry.known.clone()
    }

    fn release(&self, uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(uid);
            if users.is_empty() {
                entry.follower.trigger();
            }
            !users.is_empty()
        });
    }
}

/// Keeps one object's state up to date.
struct Follower<K> {
    client: Client,
    clock: SharedClock,
    key: ObjectKey,
    users: Arc<Mutex<HashSet<String>>>,
    changed: Changed,
    known: watch::Sender<Known<K>>,
}

impl<K: Kind> Follower<K> {
    async fn run(self) {
        let mut retry = RETRY;
        loop {
            match self.list_and_watch(&mut retry).await {
                Ok(()) => {}
                // A broken watch keeps what is known; only an object that could never be read shows the error.
                Err(error) => self.tell_if_unknown(error.to_string()),
            }
            self.clock.sleep(retry.next_delay()).await;
        }
    }

    async fn list_and_watch(&self, retry: &mut Backoff) -> Result<(), xebec_client::Error> {
        let resource = ResourceType::of::<K>();
        let selector = Some(format!("metadata.name={}", self.key.name));
        let options = ListOptions { field_selector: selector.clone(), ..ListOptions::default() };
        let list = self.client.transport().list(&resource, Some(&self.key.namespace), &options).await?;
        self.tell(list.items.first().map(|object| object.typed::<K>()).transpose()?);
        let options = WatchOptions {
            field_selector: selector,
            resource_version: list.resource_version,
            ..WatchOptions::default()
        };
        let mut events = self.client.transport().watch(&resource, Some(&self.key.namespace), &options).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            retry.reset();
            match event.kind {
                EventKind::Added | EventKind::Modified => self.tell(Some(event.object.typed::<K>()?)),
                EventKind::Deleted => self.tell(None),
                EventKind::Bookmark => {}
            }
        }
        Ok(())
    }

    fn tell(&self, state: Option<Arc<K>>) {
        let version = |state: &Option<Arc<K>>| state.as_ref().map(|object| object.metadata().resource_version.clone());
        let before = self.known.borrow().clone();
        let news = match &before {
            Some(Ok(before)) => version(before) != version(&state),
            _ => true,
        };
        if news {
            self.known.send_replace(Some(Ok(state)));
            if before.is_some() {
                let users: Vec<String> = self.users.lock().iter().cloned().collect();
                (self.changed)(&users);
            }
        }
    }

    fn tell_if_unknown(&self, error: String) {
        self.known.send_if_modified(|known| {
            let unknown = !matches!(known, Some(Ok(_)));
            if unknown {
                *known = Some(Err(error));
            }
            unknown
        });
    }
}
