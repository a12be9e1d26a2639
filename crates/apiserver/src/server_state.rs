//! What all requests share: the registry, the policies and the documents about the server itself.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;

use crate::audit::Audit;
use crate::authn::{Anonymous, Authenticator, TokenIssuer};
use crate::authz::Authorizer;
use crate::flow_control::{FlowControl, Limits};
use crate::handlers::Documents;
use crate::metrics::{Metrics, StoreMetrics};
use crate::registry::Registry;

/// What a server is made of besides its registry.
pub struct ServerParts {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub token_issuer: Option<Arc<dyn TokenIssuer>>,
    pub audit: Option<Arc<Audit>>,
    /// Which requests may come without credentials; may be exchanged while the server runs.
    pub anonymous: Arc<ArcSwap<Anonymous>>,
    pub limits: Limits,
    /// Of the store that the registry was loaded from, if it is measured.
    pub store_metrics: Option<StoreMetrics>,
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
    pub audit: Option<Arc<Audit>>,
    pub anonymous: Arc<ArcSwap<Anonymous>>,
    pub node_tls: Option<Arc<rustls::ClientConfig>>,
    pub advertised: String,
    pub metrics: Metrics,
    pub flow_control: Arc<FlowControl>,
    pub documents: Documents,
    /// Set once what has to exist from the first moment (namespaces, roles) exists.
    pub ready: AtomicBool,
    /// Set when the server begins to end.
    pub ending: AtomicBool,
}

impl ServerState {
    pub fn new(registry: Arc<Registry>, parts: ServerParts) -> Arc<ServerState> {
        let metrics = Metrics::new(&registry, parts.store_metrics);
        let flow_control = FlowControl::new(parts.limits, &registry, metrics.flow.clone());
        Arc::new(ServerState {
            registry,
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            token_issuer: parts.token_issuer,
            audit: parts.audit,
            anonymous: parts.anonymous,
            node_tls: parts.node_tls,
            advertised: parts.advertised,
            metrics,
            flow_control,
            documents: Documents::default(),
            ready: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        })
    }
}
