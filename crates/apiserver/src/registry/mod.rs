//! The registry: one generic store of objects for every kind, and the strategies that make the kinds differ.
//!
//! It turns the intents of requests into transactions on the store: names, uids, timestamps, generations, status isolation,
//! preconditions, dry run, finalizers and graceful deletion stand here once for all kinds. It reads from the caches. It
//! knows nothing of HTTP.

mod addresses;
pub mod batch;
mod delete;
pub mod deletion;
pub mod erased;
mod expiry;
pub mod metadata;
pub mod ownership;
mod served;
pub mod store;
pub mod strategy;
pub mod table;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use xebec_api::resource::{Kind, ResourceType};
use xebec_api::status::StatusError;
use xebec_base::{SharedClock, Shutdown};
use xebec_store::{Durability, Store};

pub use delete::{DeleteRequest, Deleted};
pub use served::{Index, Served};
pub use store::{Call, Edit, Outcome, Part, unreadable_owners};

use crate::admission::Plugins;
use crate::allocator::Allocator;
use crate::cache::{Cache, Item, LoadError, ResourceCache};
use erased::Row;

/// All objects of a cluster, behind their rules.
pub struct Registry {
    store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    pub index: Index,
    pub clock: SharedClock,
    /// Watches end with the server.
    pub shutdown: Shutdown,
    plugins: Plugins,
    allocator: Allocator,
}

/// What a registry is made of.
pub struct RegistryConfig {
    pub store: Arc<dyn Store>,
    pub rows: Vec<Row>,
    pub plugins: Plugins,
    pub service_ranges: crate::allocator::Ranges,
    pub clock: SharedClock,
}

impl Registry {
    /// Reads the store and follows it until shutdown.
    pub async fn load(config: RegistryConfig, shutdown: &Shutdown) -> Result<Arc<Registry>, LoadError> {
        let RegistryConfig { store, rows, plugins, service_ranges, clock } = config;
        let index = Index::new(rows);
        let cache = Cache::load(store.clone(), index.caches(), clock.clone(), shutdown).await?;
        let allocator = Allocator::new(service_ranges, &index);
        let registry =
            Arc::new(Registry { store, cache, index, clock, shutdown: shutdown.clone(), plugins, allocator });
        for served in registry.index.iter().filter(|served| served.row.conversion.is_none()) {
            if let Some(expiry) = expiry::Expiry::of(&registry, &served.cache) {
                shutdown.spawn(expiry.run());
            }
        }
        Ok(registry)
    }

    /// The objects of a built-in kind, if it is served.
    pub fn cache_of<K: Kind>(&self) -> Option<&Arc<ResourceCache>> {
        self.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT).map(|served| &served.cache)
    }

    /// An object as the cache has it, for admission and authorisation.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.cache_of::<K>()?.get(namespace, name)?.object.typed().ok()
    }

    /// All objects of a kind in a namespace (empty: in all), as the cache has them.
    pub fn list<K: Kind>(&self, namespace: &str) -> Vec<Arc<K>> {
        let Some(cache) = self.cache_of::<K>() else { return Vec::new() };
        cache.snapshot().scan(namespace, None).filter_map(|item| item.object.typed().ok()).collect()
    }

    /// The Pods of a node in a namespace (empty: in all), as the cache has them.
    pub fn pods_on(&self, node: &str, namespace: &str) -> Vec<Arc<Pod>> {
        let Some(cache) = self.cache_of::<Pod>() else { return Vec::new() };
        let Some(field) = cache.strategy.selectable_fields().iter().position(|field| *field == "spec.nodeName") else {
            return Vec::new();
        };
        let snapshot = cache.snapshot();
        let there = snapshot.scan(namespace, None).filter(|item| &*item.fields(&*cache.strategy)[field] == node);
        there.filter_map(|item| item.object.typed().ok()).collect()
    }

    /// Waits until the caches hold every write that was acknowledged before this call.
    pub async fn catch_up(&self) -> Result<(), StatusError> {
        let revision = self.store.current_revision().await.map_err(store_error)?;
        self.cache.reach(revision).await;
        Ok(())
    }

    /// An object as it is now, every acknowledged write included.
    pub async fn fresh(&self, served: &Served, namespace: &str, name: &str) -> Result<Arc<Item>, StatusError> {
        self.catch_up().await?;
        served.cache.get(namespace, name).ok_or_else(|| StatusError::not_found(served.resource(), name))
    }

    /// Whether the store answers.
    pub async fn is_healthy(&self) -> Result<(), StatusError> {
        self.store.current_revision().await.map(drop).map_err(store_error)
    }

    /// From which Services get their addresses and ports.
    pub fn service_ranges(&self) -> &crate::allocator::Ranges {
        self.allocator.ranges()
    }

    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }
}

fn durability(served: &Served) -> Durability {
    if served.row.deferred { Durability::Deferred } else { Durability::Immediate }
}

fn store_error(error: xebec_store::Error) -> StatusError {
    match error {
        xebec_store::Error::Overloaded { .. } => StatusError::too_many_requests("the store is busy, try again", 1),
        error => StatusError::internal(xebec_base::Chain(&error)),
    }
}

fn broken(resource: &ResourceType, error: &xebec_api::object::DecodeError) -> StatusError {
    StatusError::internal(format!("{}: {}", resource.group_resource(), xebec_base::Chain(error)))
}
