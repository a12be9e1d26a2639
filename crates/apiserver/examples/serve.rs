//! Serves the API over plain HTTP on loopback.
use std::sync::Arc;
use xebec_apiserver::authn::Fixed;
use xebec_apiserver::authz::Masters;
use xebec_apiserver::registry::RegistryConfig;
use xebec_apiserver::{Listener, Registry, ServerParts, ServerState, User, admission, bootstrap, resources};
use xebec_base::{Shutdown, SystemClock};

#[tokio::main]
async fn main() {
    xebec_base::telemetry::init("info");
    let shutdown = Shutdown::new();
    let mut plugins = admission::Plugins::standard();
    plugins.mutating.retain(|plugin| plugin.name() != "ServiceAccount");
    plugins.validating.retain(|plugin| plugin.name() != "ServiceAccount");
    let config = RegistryConfig {
        store: Arc::new(xebec_store::Memory::default()),
        rows: resources::rows(),
        plugins,
        service_ranges: Default::default(),
        clock: SystemClock::shared(),
    };
    let registry = Registry::load(config, &shutdown).await.unwrap();
    bootstrap::run(&registry, "127.0.0.1:18080".parse().unwrap()).await.unwrap();
    let parts = ServerParts {
        authenticator: Arc::new(Fixed(User::master("admin"))),
        authorizer: Arc::new(Masters),
        token_issuer: None,
        audit: None,
        node_tls: None,
        advertised: "127.0.0.1:18080".to_owned(),
    };
    let state = ServerState::new(registry, parts);
    state.ready.store(true, std::sync::atomic::Ordering::Release);
    let listener = Listener::bind("127.0.0.1:18080".parse().unwrap(), None, state).await.unwrap();
    listener.run(shutdown).await;
}
