//! The server as other parts of the same process use it: without sockets, and for lists and watches without encoding.
//!
//! The chain is the same but for authentication: who calls is known.

use std::sync::Arc;

use futures::{Stream, stream};
use http::{Request, Response};
use xebec_api::object::Object;
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use crate::authn::User;
use crate::body::Body;
use crate::cache::{Change, Seen};
use crate::chain::{self, Origin};
use crate::handlers::page;
use crate::handlers::session::{Session, Step};
use crate::options::Options;
use crate::registry::Served;
use crate::request_info::RequestInfo;
use crate::server_state::ServerState;

/// A handle on the server; cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    pub state: Arc<ServerState>,
}

/// Which objects are wanted.
#[derive(Clone, Debug)]
pub struct Query {
    pub resource: ResourceType,
    /// `None` for all.
    pub namespace: Option<String>,
    pub options: Options,
}

/// A list's objects, shared with the cache.
pub struct ObjectList {
    pub objects: Vec<Arc<Object>>,
    pub revision: u64,
    pub continue_token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectEventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// A watch's event, its object shared with the cache.
#[derive(Clone, Debug)]
pub struct ObjectEvent {
    pub kind: ObjectEventKind,
    /// For a bookmark an object with nothing but the revision and, after the initial objects, the annotation that says so.
    pub object: Arc<Object>,
}

impl ApiServer {
    pub fn new(state: Arc<ServerState>) -> Self {
        ApiServer { state }
    }

    /// Answers a request as the HTTP server would, for a user who is known.
    pub async fn call(&self, request: Request<Body>, user: Arc<User>) -> Response<Body> {
        chain::serve(&self.state, request, Origin::Known(user)).await
    }

    /// LIST without encoding.
    pub async fn list_objects(&self, user: &Arc<User>, query: &Query) -> Result<ObjectList, StatusError> {
        let served = self.allowed(user, query, "list").await?;
        query.options.check_list()?;
        let namespace = query.namespace.as_deref().unwrap_or("");
        let selection = page::selection(&served, &query.options, namespace, "")?;
        let page = page::page(&self.state.registry, &served, &query.options, &selection).await?;
        let objects: Result<Vec<_>, _> = page.items.iter().map(|item| in_form(&served, item.object.clone())).collect();
        Ok(ObjectList { objects: objects?, revision: page.revision, continue_token: page.continue_token })
    }

    /// WATCH without encoding. An error ends the stream.
    pub async fn watch_objects(
        &self,
        user: &Arc<User>,
        query: &Query,
    ) -> Result<impl Stream<Item = Result<ObjectEvent, StatusError>> + Send + 'static, StatusError> {
        let served = self.allowed(user, query, "watch").await?;
        let mut options = query.options.clone();
        options.watch = true;
        options.check_list()?;
        let namespace = query.namespace.as_deref().unwrap_or("");
        let selection = page::selection(&served, &options, namespace, "")?;
        let session = Session::open(&self.state.registry, &served, &options, selection).await?;
        let watch = Box::new(ObjectWatch { session, ready: Vec::new().into_iter(), seen: Vec::new() });
        Ok(stream::unfold(watch, |mut watch| async move {
            let event = watch.next().await?;
            Some((event, watch))
        }))
    }

    async fn allowed(&self, user: &Arc<User>, query: &Query, verb: &'static str) -> Result<Arc<Served>, StatusError> {
        let resource = &query.resource;
        let info = RequestInfo {
            is_resource: true,
            verb,
            group: &resource.group,
            version: &resource.version,
            namespace: query.namespace.as_deref().unwrap_or(""),
            resource: &resource.plural,
            ..RequestInfo::default()
        };
        chain::authorize(&self.state, &info, user, &query.options).await?;
        let index = &self.state.registry.index;
        index.find(&resource.group, &resource.version, &resource.plural).cloned().ok_or_else(StatusError::no_such_path)
    }
}

/// The object in the served form: the shared one, but for views of another kind.
fn in_form(served: &Served, object: Arc<Object>) -> Result<Arc<Object>, StatusError> {
    let Some(conversion) = served.row.conversion else { return Ok(object) };
    let tree = object.value().map_err(StatusError::internal)?;
    let tree = crate::handlers::render::with_type((conversion.from_stored)(tree), served.resource());
    let raw = serde_json::to_vec(&tree).map_err(StatusError::internal)?;
    Object::from_wire(raw.into()).map(Arc::new).map_err(StatusError::internal)
}

struct ObjectWatch {
    session: Session,
    ready: std::vec::IntoIter<(ObjectEventKind, Arc<Object>)>,
    seen: Vec<Seen>,
}

impl ObjectWatch {
    async fn next(&mut self) -> Option<Result<ObjectEvent, StatusError>> {
        loop {
            if let Some((kind, object)) = self.ready.next() {
                return Some(in_form(&self.session.served, object).map(|object| ObjectEvent { kind, object }));
            }
            match self.session.next(&mut self.seen).await? {
                Step::Initial(objects) => {
                    let added: Vec<_> = objects.into_iter().map(|object| (ObjectEventKind::Added, object)).collect();
                    self.ready = added.into_iter();
                }
                Step::Changes => {
                    let changes: Vec<_> = self.seen.drain(..).map(|one| (kind_of(one.change), one.object)).collect();
                    self.ready = changes.into_iter();
                }
                Step::Bookmark { revision, initial_end } => {
                    let object = bookmark(self.session.served.resource(), revision, initial_end);
                    return Some(object.map(|object| ObjectEvent { kind: ObjectEventKind::Bookmark, object }));
                }
                Step::End => return None,
                Step::Failed(error) => return Some(Err(error)),
            }
        }
    }
}

fn kind_of(change: Change) -> ObjectEventKind {
    match change {
        Change::Added => ObjectEventKind::Added,
        Change::Modified => ObjectEventKind::Modified,
        Change::Deleted => ObjectEventKind::Deleted,
    }
}

fn bookmark(resource: &ResourceType, revision: u64, initial_end: bool) -> Result<Arc<Object>, StatusError> {
    let annotations = if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
    let raw = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{revision}"{annotations}}}}}"#,
        resource.kind,
        resource.api_version()
    );
    Object::from_wire(raw.into_bytes().into()).map(Arc::new).map_err(StatusError::internal)
}
