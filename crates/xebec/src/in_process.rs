//! The in-process transport: the client's calls go straight into the API server's request chain, and lists and watches share the
//! cache's objects without encoding.
//!
//! It has the semantics of the HTTPS transport, with one exception: a connection cannot become another protocol, for there is
//! none. exec, attach and port-forward are for clients with a socket.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use xebec_api::ResourceType;
use xebec_apiserver::{ApiServer, ObjectEventKind, Options, Query, User, body};
use xebec_client::{
    Body, Error, EventKind, Io, ListOptions, ObjectEvent, ObjectList, Transport, WatchOptions, WatchStream,
};

/// Calls as one user.
pub struct InProcess {
    server: ApiServer,
    user: Arc<User>,
}

impl InProcess {
    pub fn new(server: ApiServer, user: Arc<User>) -> Self {
        InProcess { server, user }
    }

    async fn send(&self, request: Request<Bytes>) -> Response<xebec_apiserver::Body> {
        self.server.call(request.map(body::full), self.user.clone()).await
    }
}

fn query(resource: &ResourceType, namespace: Option<&str>, text: &str) -> Result<Query, Error> {
    let options = Options::parse(Some(text))?;
    let namespace = namespace.filter(|namespace| !namespace.is_empty() && resource.namespaced).map(str::to_owned);
    Ok(Query { resource: resource.clone(), namespace, options })
}

#[async_trait]
impl Transport for InProcess {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let (parts, body) = self.send(request).await.into_parts();
        let body = body.collect().await.map_err(|e| Error::transport("read the answer", e))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    async fn open(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let (parts, body) = self.send(request).await.into_parts();
        let chunks = http_body_util::BodyDataStream::new(body);
        let body = chunks.map(|chunk| chunk.map_err(|e| Error::transport("read the answer", e))).boxed();
        Ok(Response::from_parts(parts, body))
    }

    async fn upgrade(&self, request: Request<Bytes>) -> Result<(Response<()>, Box<dyn Io>), Error> {
        let operation = format!("upgrade {}", request.uri().path());
        Err(Error::transport(operation, "the in-process transport has no connection to upgrade"))
    }

    async fn list(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Error> {
        let query = query(resource, namespace, &options.query())?;
        let list = self.server.list_objects(&self.user, &query).await?;
        let resource_version = list.revision.to_string();
        Ok(ObjectList { items: list.objects, resource_version, continue_token: list.continue_token })
    }

    async fn watch(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<WatchStream, Error> {
        let query = query(resource, namespace, &options.query())?;
        let events = self.server.watch_objects(&self.user, &query).await?;
        let events = events.map(|event| {
            let event = event?;
            let kind = match event.kind {
                ObjectEventKind::Added => EventKind::Added,
                ObjectEventKind::Modified => EventKind::Modified,
                ObjectEventKind::Deleted => EventKind::Deleted,
                ObjectEventKind::Bookmark => EventKind::Bookmark,
            };
            Ok(ObjectEvent { kind, object: event.object })
        });
        Ok(events.boxed())
    }
}
