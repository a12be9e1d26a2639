//! What a controller has written and not yet seen come back through its informer.
//!
//! A controller that creates Pods and then counts them in its cache would create too many if the cache lags behind its own
//! writes. So it notes how many creations and which deletions it is waiting for, and plans anew only when they have been
//! seen, or when so much time has passed that the events must be lost. Modelled on upstream's `ControllerExpectations`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use xebec_api::ObjectKey;
use xebec_base::SharedClock;

/// After this long unseen writes are taken as lost, as upstream does.
const EXPIRY: Duration = Duration::from_secs(300);

pub struct Expectations {
    clock: SharedClock,
    pending: Mutex<HashMap<ObjectKey, Pending>>,
}

#[derive(Default)]
struct Pending {
    creations: usize,
    /// Uids of the objects whose deletion was asked for.
    deletions: HashSet<String>,
    since: Duration,
}

impl Expectations {
    pub fn new(clock: SharedClock) -> Self {
        Expectations { clock, pending: Mutex::default() }
    }

    /// Whether everything written for this owner has been seen.
    pub fn satisfied(&self, owner: &ObjectKey) -> bool {
        let mut pending = self.pending.lock();
        let Some(entry) = pending.get(owner) else { return true };
        let seen = entry.creations == 0 && entry.deletions.is_empty();
        let expired = self.clock.elapsed().saturating_sub(entry.since) > EXPIRY;
        if seen || expired {
            pending.remove(owner);
            return true;
        }
        false
    }

    /// Before creating that many.
    pub fn expect_creations(&self, owner: &ObjectKey, count: usize) {
        self.with(owner, |entry| entry.creations += count);
    }

    /// Before deleting the object with this uid.
    pub fn expect_deletion(&self, owner: &ObjectKey, uid: &str) {
        self.with(owner, |entry| {
            entry.deletions.insert(uid.to_owned());
        });
    }

    /// A creation was seen, or failed and will not be.
    pub fn creation_observed(&self, owner: &ObjectKey) {
        if let Some(entry) = self.pending.lock().get_mut(owner) {
            entry.creations = entry.creations.saturating_sub(1);
        }
    }

    /// A deletion was seen (also as a `deletionTimestamp`), or failed and will not be.
    pub fn deletion_observed(&self, owner: &ObjectKey, uid: &str) {
        if let Some(entry) = self.pending.lock().get_mut(owner) {
            entry.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &ObjectKey) {
        self.pending.lock().remove(owner);
    }

    fn with(&self, owner: &ObjectKey, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock();
        let entry = pending.entry(owner.clone()).or_default();
        entry.since = self.clock.elapsed();
        change(entry);
    }
}
