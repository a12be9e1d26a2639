//! A registry on the memory store with all kinds and plugins, for the tests of this crate.

use std::sync::Arc;

use serde_json::Value;
use xebec_api::object::Object;
use xebec_api::resource::Kind;
use xebec_api::status::StatusError;
use xebec_base::{Shutdown, SystemClock};
use xebec_store::Memory;

use crate::admission::Plugins;
use crate::allocator::Ranges;
use crate::authn::User;
use crate::registry::{Call, Registry, RegistryConfig};
use crate::resources::RESOURCES;

pub async fn registry() -> Arc<Registry> {
    let config = RegistryConfig {
        store: Arc::new(Memory::default()),
        rows: RESOURCES.to_vec(),
        plugins: Plugins::standard(),
        service_ranges: Ranges::default(),
        clock: SystemClock::shared(),
    };
    // The tasks end with the test's runtime.
    Registry::load(config, &Shutdown::new()).await.unwrap()
}

/// Creates an object as a master.
pub async fn create<K: Kind>(registry: &Registry, tree: Value) -> Result<Arc<Object>, StatusError> {
    create_as::<K>(registry, &User::master("admin"), tree).await
}

pub async fn create_as<K: Kind>(
    registry: &Registry,
    user: &Arc<User>,
    tree: Value,
) -> Result<Arc<Object>, StatusError> {
    let served = registry.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT).unwrap();
    let namespace = tree["metadata"]["namespace"].as_str().unwrap_or("").to_owned();
    let outcome = registry.create(served, &namespace, tree, &mut Call::new(user)).await?;
    registry.catch_up().await?;
    Ok(outcome.object)
}
