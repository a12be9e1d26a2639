//! Typed calls: an [`Api`] is a client bound to a kind and, where it has one, a namespace.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use xebec_api::{Kind, ResourceType};

use crate::error::Error;
use crate::options::{DeleteOptions, ListOptions, Patch, WatchOptions};
use crate::transport::{Body, Io, ObjectList, Transport, WatchStream, checked, with_query};

/// Cheap to clone; all clones share one transport.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: Arc<str>,
}

impl Client {
    pub fn new(transport: impl Transport) -> Self {
        Self::shared(Arc::new(transport))
    }

    pub fn shared(transport: Arc<dyn Transport>) -> Self {
        Client { transport, user_agent: concat!("xebec/", env!("CARGO_PKG_VERSION")).into() }
    }

    /// The same client under a component's name, which becomes its field manager and stands in the audit log.
    pub fn named(&self, component: &str) -> Self {
        let user_agent = format!("{component}/{}", env!("CARGO_PKG_VERSION"));
        Client { transport: self.transport.clone(), user_agent: user_agent.into() }
    }

    /// Every object of the kind; the calls that need a namespace are on [`Client::namespaced`].
    pub fn all<K: Kind>(&self) -> Api<K> {
        Api { client: self.clone(), resource: ResourceType::of::<K>(), namespace: None, kind: PhantomData }
    }

    pub fn namespaced<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api { namespace: Some(namespace.to_owned()), ..self.all() }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Any request whose answer is read whole; an answer that is no success becomes an error.
    pub async fn call(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> Result<Bytes, Error> {
        checked(self.transport.call(self.request(method, path, content_type, body)).await?)
    }

    /// A GET whose answer is read as it comes.
    pub async fn open(&self, path: &str) -> Result<Response<Body>, Error> {
        self.transport.open(self.request(Method::GET, path, "", Bytes::new())).await
    }

    /// A request with upgrade headers of its own.
    pub async fn upgrade(&self, mut request: Request<Bytes>) -> Result<(Response<()>, Box<dyn Io>), Error> {
        if let Ok(agent) = self.user_agent.parse() {
            request.headers_mut().insert(http::header::USER_AGENT, agent);
        }
        self.transport.upgrade(request).await
    }

    fn request(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> Request<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, &*self.user_agent);
        if !content_type.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        request.body(body).expect("paths are made of checked names and encoded queries")
    }

    /// GET of any path as JSON.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        decode(path, &self.call(Method::GET, path, "", Bytes::new()).await?)
    }

    /// A JSON body sent to any path.
    pub async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = encode(path, body)?;
        decode(path, &self.call(method, path, "application/json", body).await?)
    }
}

fn encode(what: &str, body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| Error::decode(format!("the body for {what}"), e))
}

fn decode<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|e| Error::decode(format!("the answer of {what}"), e))
}

/// Calls on one kind, in one namespace or over all.
#[derive(Clone)]
pub struct Api<K> {
    client: Client,
    resource: ResourceType,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Api<K> {
    fn collection(&self) -> String {
        self.resource.collection_path(self.namespace.as_deref())
    }

    fn path(&self, name: &str) -> String {
        self.resource.object_path(self.namespace.as_deref(), name)
    }

    pub async fn get(&self, name: &str) -> Result<K, Error> {
        self.client.get_json(&self.path(name)).await
    }

    /// Absent is `None`, not an error.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, Error> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn list(&self, options: &ListOptions) -> Result<ObjectList, Error> {
        self.client.transport.list(&self.resource, self.namespace.as_deref(), options).await
    }

    /// The list, decoded.
    pub async fn list_typed(&self, options: &ListOptions) -> Result<Vec<Arc<K>>, Error> {
        let list = self.list(options).await?;
        list.items.iter().map(|object| object.typed::<K>().map_err(Error::from)).collect()
    }

    pub async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, Error> {
        self.client.transport.watch(&self.resource, self.namespace.as_deref(), options).await
    }

    pub async fn create(&self, object: &K) -> Result<K, Error> {
        self.client.send_json(Method::POST, &self.collection(), object).await
    }

    pub async fn replace(&self, object: &K) -> Result<K, Error> {
        self.client.send_json(Method::PUT, &self.path(name_of(object)), object).await
    }

    pub async fn replace_status(&self, object: &K) -> Result<K, Error> {
        self.client.send_json(Method::PUT, &format!("{}/status", self.path(name_of(object))), object).await
    }

    pub async fn patch(&self, name: &str, patch: &Patch) -> Result<K, Error> {
        self.send_patch(self.path(name), patch).await
    }

    pub async fn patch_status(&self, name: &str, patch: &Patch) -> Result<K, Error> {
        self.send_patch(format!("{}/status", self.path(name)), patch).await
    }

    async fn send_patch(&self, path: String, patch: &Patch) -> Result<K, Error> {
        let body = encode(&path, patch.body())?;
        decode(&path, &self.client.call(Method::PATCH, &path, patch.content_type(), body).await?)
    }

    /// Creates what a subresource takes (`binding`, `eviction`, `token`) and reads what it answers.
    pub async fn create_subresource<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.client.send_json(Method::POST, &format!("{}/{subresource}", self.path(name)), body).await
    }

    pub async fn replace_subresource<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.client.send_json(Method::PUT, &format!("{}/{subresource}", self.path(name)), body).await
    }

    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<Value, Error> {
        self.client.send_json(Method::DELETE, &self.path(name), &options.body()).await
    }

    pub async fn delete_collection(&self, selection: &ListOptions, options: &DeleteOptions) -> Result<Value, Error> {
        let path = with_query(self.collection(), selection.query());
        self.client.send_json(Method::DELETE, &path, &options.body()).await
    }
}

fn name_of<K: Kind>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or("")
}
