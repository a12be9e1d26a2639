//! An API server in memory that knows how to be listed and watched, and nothing else.
//!
//! Used by the tests of several crates (by `#[path]`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Request, Response};
use serde_json::{Value, json};
use xebec_api::{Kind, Object, ObjectKey, ResourceType};
use xebec_base::{Shutdown, SystemClock};
use xebec_client::transport::{Body, Io};
use xebec_client::{
    Client, Error, EventKind, ListOptions, ObjectEvent, ObjectList, Transport, WatchOptions, WatchStream,
};
use xebec_runtime::Informers;

#[derive(Clone, Default)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(String, ObjectKey), Arc<Object>>,
    watchers: Vec<(String, UnboundedSender<Result<ObjectEvent, Error>>)>,
}

impl Cluster {
    pub fn informers(&self, shutdown: &Shutdown) -> Informers {
        Informers::new(Client::new(self.clone()), SystemClock::shared(), shutdown.clone())
    }

    /// Creates or replaces an object; it names its namespace, its name and what it is made of.
    pub fn put<K: Kind>(&self, namespace: &str, name: &str, mut content: Value) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        content["metadata"]["namespace"] = json!(namespace);
        content["metadata"]["name"] = json!(name);
        content["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let object = Arc::new(Object::from_wire(Bytes::from(content.to_string())).unwrap());
        let resource = ResourceType::of::<K>().to_string();
        let old = state.objects.insert((resource.clone(), object.key().clone()), object.clone());
        state.tell(&resource, if old.is_some() { EventKind::Modified } else { EventKind::Added }, &object);
    }

    #[allow(dead_code)]
    pub fn delete<K: Kind>(&self, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let resource = ResourceType::of::<K>().to_string();
        let object = state.objects.remove(&(resource.clone(), ObjectKey::new(namespace, name))).unwrap();
        state.tell(&resource, EventKind::Deleted, &object);
    }
}

impl State {
    fn tell(&mut self, resource: &str, kind: EventKind, object: &Arc<Object>) {
        let event = || ObjectEvent { kind, object: object.clone() };
        self.watchers.retain(|(wanted, sender)| wanted != resource || sender.unbounded_send(Ok(event())).is_ok());
    }
}

#[async_trait]
impl Transport for Cluster {
    async fn call(&self, _: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        unreachable!("the component under test only lists and watches")
    }

    async fn open(&self, _: Request<Bytes>) -> Result<Response<Body>, Error> {
        unreachable!("the component under test only lists and watches")
    }

    async fn upgrade(&self, _: Request<Bytes>) -> Result<(Response<()>, Box<dyn Io>), Error> {
        unreachable!("the component under test only lists and watches")
    }

    async fn list(&self, resource: &ResourceType, _: Option<&str>, _: &ListOptions) -> Result<ObjectList, Error> {
        let state = self.state.lock().unwrap();
        let of_kind = state.objects.iter().filter(|((kind, _), _)| *kind == resource.to_string());
        let items = of_kind.map(|(_, object)| object.clone()).collect();
        Ok(ObjectList { items, resource_version: state.revision.to_string(), continue_token: None })
    }

    /// Tells first what changed since the revision, then what changes.
    async fn watch(
        &self,
        resource: &ResourceType,
        _: Option<&str>,
        options: &WatchOptions,
    ) -> Result<WatchStream, Error> {
        let mut state = self.state.lock().unwrap();
        let since: u64 = options.resource_version.parse().unwrap_or(0);
        let (sender, receiver) = unbounded();
        for ((kind, _), object) in &state.objects {
            if *kind == resource.to_string() && object.revision() > since {
                let _ = sender.unbounded_send(Ok(ObjectEvent { kind: EventKind::Modified, object: object.clone() }));
            }
        }
        state.watchers.push((resource.to_string(), sender));
        Ok(receiver.boxed())
    }
}
