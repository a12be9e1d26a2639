//! What all requests share: the registry, the policies and the documents about the server itself.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::audit;
use crate::authn::{Authenticator, TokenIssuer};
use crate::authz::Authorizer;
use crate::flow_control::FlowControl;
use crate::handlers::Documents;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// What a server is made of besides its registry.
pub struct ServerParts {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub token_issuer: Option<Arc<dyn TokenIssuer>>,
    pub audit: Option<Arc<dyn audit::Sink>>,
    /// How the server reaches nodes; without it their subresources are not served.
    pub node_tls: Option<Arc<rustls::ClientConfig>>,
    /// `host:port` under which clients reach the server, as discovery tells them.
    pub advertised: String,
}

pub struct ServerState {
    pub registry: Arc<Registry>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub token_issuer: Option<Arc<dyn TokenIssuer>>,
    pub audit: Option<Arc<dyn audit::Sink>>,
    pub node_tls: Option<Arc<rustls::ClientConfig>>,
    pub advertised: String,
    pub metrics: Metrics,
    pub flow_control: FlowControl,
    pub documents: Documents,
    /// Set once what has to exist from the first moment (namespaces, roles) exists.
    pub ready: AtomicBool,
    /// Set when the server begins to end.
    pub ending: AtomicBool,
}

impl ServerState {
    pub fn new(registry: Arc<Registry>, parts: ServerParts) -> Arc<ServerState> {
        let ServerParts { authenticator, authorizer, token_issuer, audit, node_tls, advertised } = parts;
        let metrics = Metrics::new(&registry);
        Arc::new(ServerState {
            registry,
            authenticator,
            authorizer,
            token_issuer,
            audit,
            node_tls,
            advertised,
            metrics,
            flow_control: FlowControl::default(),
            documents: Documents::default(),
            ready: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        })
    }
}
