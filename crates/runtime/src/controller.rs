//! The controller harness: it owns the queue, the workers, retries, spans and logging; a controller owns only its decisions.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use xebec_api::{Kind, ObjectKey};
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_client::{Client, Error};

use crate::events::EventRecorder;
use crate::informer::{Change, Informer, Informers};
use crate::queue::WorkQueue;

/// What every controller is made from.
#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub informers: Informers,
    pub clock: SharedClock,
    pub shutdown: Shutdown,
    pub events: EventRecorder,
}

/// What `plan` decided for a key.
#[derive(Debug, PartialEq)]
pub struct Plan<A> {
    /// Written one after the other; the first failure ends the round and the key is tried again.
    pub actions: Vec<A>,
    /// Look at this key again after so long, even if nothing changes.
    pub again: Option<Duration>,
}

impl<A> Plan<A> {
    pub fn nothing() -> Self {
        Plan { actions: Vec::new(), again: None }
    }

    pub fn of(actions: Vec<A>) -> Self {
        Plan { actions, again: None }
    }

    pub fn again_after(mut self, delay: Duration) -> Self {
        self.again = Some(delay);
        self
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Client(#[from] Error),
    /// The key cannot be brought about now; it is tried again with growing delays.
    #[error("{0}")]
    Blocked(String),
}

/// One controller: `observe` reads caches, `plan` is pure, `apply` writes one action.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    type Observed: Send + Sync;
    type Action: Debug + Send;

    fn name(&self) -> &'static str;

    /// How many keys are worked on at the same time.
    fn workers(&self) -> usize {
        2
    }

    /// Says which objects' changes wake which keys. Called once, before any key is worked on.
    fn wire(&self, wiring: &Wiring);

    /// What the caches say about the key; `None` when there is nothing to do for it.
    fn observe(&self, key: &ObjectKey) -> Option<Self::Observed>;

    fn plan(&self, key: &ObjectKey, observed: &Self::Observed, now: Timestamp) -> Plan<Self::Action>;

    async fn apply(
        &self,
        key: &ObjectKey,
        observed: &Self::Observed,
        action: Self::Action,
    ) -> Result<(), ReconcileError>;
}

/// Connects informers to a controller's queue.
pub struct Wiring {
    informers: Informers,
    queue: WorkQueue<ObjectKey>,
}

impl Wiring {
    /// Every change of an object of this kind wakes the key of the object itself.
    pub fn own<K: Kind>(&self) -> Informer<K> {
        self.mapped::<K>(|object, wake| wake(ObjectKey::of(object)))
    }

    /// Every change of an object wakes the key of its controlling owner, if that is of the given kind.
    pub fn owned<K: Kind>(&self, owner_kind: &'static str) -> Informer<K> {
        self.mapped::<K>(move |object, wake| {
            let owners = object.metadata().owner_references.iter().flatten();
            for owner in owners.filter(|owner| owner.controller == Some(true) && owner.kind == owner_kind) {
                wake(ObjectKey::new(object.metadata().namespace.as_deref().unwrap_or(""), owner.name.as_str()));
            }
        })
    }

    /// Every change of an object wakes the keys that `keys` gives for its old and its new state.
    pub fn mapped<K: Kind>(&self, keys: impl Fn(&K, &mut dyn FnMut(ObjectKey)) + Send + Sync + 'static) -> Informer<K> {
        let informer = self.informers.of::<K>();
        let queue = self.queue.clone();
        informer.on_change(move |change| {
            let mut wake = |key| queue.add(key);
            if let Change::Applied { old: Some(old), .. } = &change {
                keys(old, &mut wake);
            }
            keys(change.object(), &mut wake);
        });
        informer
    }

    pub fn informers(&self) -> &Informers {
        &self.informers
    }

    pub fn queue(&self) -> &WorkQueue<ObjectKey> {
        &self.queue
    }
}

/// Runs a controller until shutdown: waits for its caches, then works its queue.
pub async fn run<C: Controller>(controller: Arc<C>, context: Context) {
    let queue = WorkQueue::named(controller.name(), context.clock.clone());
    let wiring = Wiring { informers: context.informers.clone(), queue: queue.clone() };
    controller.wire(&wiring);
    context.informers.synced().await;
    for _ in 0..controller.workers() {
        let (controller, queue, clock) = (controller.clone(), queue.clone(), context.clock.clone());
        context.shutdown.spawn(async move {
            loop {
                let key = queue.next().await;
                work(&*controller, &queue, &key, &clock).await;
                queue.done(&key);
            }
        });
    }
}

async fn work<C: Controller>(controller: &C, queue: &WorkQueue<ObjectKey>, key: &ObjectKey, clock: &SharedClock) {
    match reconcile(controller, key, clock).await {
        Ok(again) => {
            queue.forget(key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            let expected = matches!(&error, ReconcileError::Client(e) if e.is_conflict() || e.is_not_found());
            if expected {
                tracing::debug!(controller = controller.name(), %key, error = %Chain(&error), "trying again");
            } else {
                tracing::warn!(controller = controller.name(), %key, error = %Chain(&error), "cannot reconcile");
            }
            queue.add_rate_limited(key.clone());
        }
    }
}

async fn reconcile<C: Controller>(
    controller: &C,
    key: &ObjectKey,
    clock: &SharedClock,
) -> Result<Option<Duration>, ReconcileError> {
    let Some(observed) = controller.observe(key) else { return Ok(None) };
    let plan = controller.plan(key, &observed, clock.now());
    for action in plan.actions {
        tracing::debug!(controller = controller.name(), %key, ?action, "applying");
        controller.apply(key, &observed, action).await?;
    }
    Ok(plan.again)
}
