//! Removal of objects whose time has passed (Events): one task that sleeps until the next one is due.
//!
//! Objects read at start count from then. Every write of an object starts its time anew, as upstream's leases do.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use xebec_api::object::ObjectKey;
use xebec_store::{Durability, Txn};

use super::Registry;
use crate::cache::{Change, ResourceCache, Watcher};

struct Due {
    at: Duration,
    key: ObjectKey,
    revision: u64,
}

pub struct Expiry {
    registry: Weak<Registry>,
    cache: Arc<ResourceCache>,
    watcher: Watcher,
    time_to_live: Duration,
    /// In the order of their time, since all live equally long.
    due: VecDeque<Due>,
}

impl Expiry {
    /// For a resource whose objects expire.
    pub fn of(registry: &Arc<Registry>, cache: &Arc<ResourceCache>) -> Option<Expiry> {
        let time_to_live = cache.time_to_live?;
        let (watcher, snapshot) = cache.follow();
        let at = registry.clock.elapsed() + time_to_live;
        let due = snapshot
            .scan("", None)
            .map(|item| Due { at, key: item.object.key().clone(), revision: item.object.revision() })
            .collect();
        Some(Expiry { registry: Arc::downgrade(registry), cache: cache.clone(), watcher, time_to_live, due })
    }

    pub async fn run(mut self) {
        let mut seen = Vec::new();
        loop {
            let Some(registry) = self.registry.upgrade() else { return };
            let clock = registry.clock.clone();
            drop(registry);
            let next = self.due.front().map(|due| due.at.saturating_sub(clock.elapsed()));
            let sleep = async {
                match next {
                    Some(duration) => clock.sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = self.watcher.seen(&mut seen) => if result.is_err() { return },
                () = sleep => {}
            }
            let now = clock.elapsed();
            for one in seen.drain(..).filter(|one| one.change != Change::Deleted) {
                let (key, revision) = (one.object.key().clone(), one.object.revision());
                self.due.push_back(Due { at: now + self.time_to_live, key, revision });
            }
            self.remove_due(now).await;
        }
    }

    async fn remove_due(&mut self, now: Duration) {
        let Some(registry) = self.registry.upgrade() else { return };
        while let Some(due) = self.due.pop_front_if(|due| due.at <= now) {
            // One that was written again has a later entry.
            let key = self.cache.store_key(&due.key.namespace, &due.key.name);
            let txn = Txn::delete(key, due.revision).durability(Durability::Deferred);
            if let Err(error) = registry.store.txn(txn).await {
                tracing::warn!(object = %due.key, error = %xebec_base::Chain(&error), "an expired object stays");
            }
        }
    }
}
