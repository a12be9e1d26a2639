//! The garbage collector: objects whose owners are gone go too; foreground deletion waits for dependents; orphaning lets them
//! stay.
//!
//! [`graph`] is the pure picture of who owns whom; this file feeds it from watches on every deletable kind and works off what
//! it points out. The picture may be late, so the API is asked before anything is deleted. Behaviour: upstream's
//! `pkg/controller/garbagecollector`, reference section "Garbage Collection".

mod graph;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use xebec_api::object::Owner;
use xebec_api::{Object, ResourceType};
use xebec_base::Chain;
use xebec_client::{DeleteOptions, Error, Patch, Propagation};
use xebec_runtime::{Context, WorkQueue};

use crate::discovered;
use graph::{FOREGROUND, Graph, ORPHAN, Place};

const NAME: &str = "generic-garbage-collector";
/// How often discovery is asked for kinds that are new.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// Kinds that own nothing, are owned by nothing, and change all the time.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
const WORKERS: usize = 10;

struct Collector {
    context: Context,
    graph: Mutex<Graph>,
    queue: WorkQueue<String>,
}

/// Collects until shutdown.
pub async fn run(context: Context) {
    let context = Context { client: context.client.named(NAME), ..context };
    let queue = WorkQueue::named(NAME, context.clock.clone());
    let collector = Arc::new(Collector { context: context.clone(), graph: Mutex::default(), queue });
    context.shutdown.clone().spawn(async move {
        collector.follow().await;
        for _ in 0..WORKERS {
            let collector = collector.clone();
            collector.context.shutdown.clone().spawn(async move { collector.work().await });
        }
        loop {
            collector.context.clock.sleep(DISCOVERY_PERIOD).await;
            collector.follow().await;
        }
    });
}

impl Collector {
    /// Watches every deletable kind that is not watched yet.
    async fn follow(self: &Arc<Self>) {
        let served = match discovered::resources(&self.context.client).await {
            Ok(served) => served,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot discover what to collect");
                return;
            }
        };
        for one in served {
            let ignored = IGNORED.contains(&(&*one.resource.group, &*one.resource.plural));
            let usable = ["list", "watch", "delete"].iter().all(|verb| one.has(verb));
            if ignored || !usable || !self.graph.lock().add_kind(&one.resource) {
                continue;
            }
            let informer = self.context.informers.objects(&one.resource);
            let (collector, resource) = (Arc::downgrade(self), Arc::new(one.resource));
            informer.on_change(move |old, new| {
                if let Some(collector) = collector.upgrade() {
                    collector.changed(&resource, old, new);
                }
            });
            informer.synced().await;
        }
    }

    fn changed(&self, resource: &Arc<ResourceType>, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let woken = {
            let mut graph = self.graph.lock();
            match (old, new) {
                (_, Some(new)) => {
                    // The same name with another uid is another object: the old one is gone.
                    let replaced = old.filter(|old| old.meta().uid != new.meta().uid);
                    let mut woken = replaced.map(|old| graph.remove(&old.meta().uid)).unwrap_or_default();
                    woken.extend(graph.put(resource, new));
                    woken
                }
                (Some(old), None) => graph.remove(&old.meta().uid),
                (None, None) => Vec::new(),
            }
        };
        woken.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn work(&self) {
        loop {
            let uid = self.queue.next().await;
            match self.attend(&uid).await {
                Ok(()) => self.queue.forget(&uid),
                Err(error) => {
                    if !(error.is_conflict() || error.is_not_found()) {
                        tracing::warn!(uid, error = %Chain(&error), "cannot collect");
                    }
                    self.queue.add_rate_limited(uid.clone());
                }
            }
            self.queue.done(&uid);
        }
    }

    /// Brings one object on: orphaning, foreground deletion, or deletion because its owners are gone.
    async fn attend(&self, uid: &str) -> Result<(), Error> {
        let Some(place) = self.graph.lock().place(uid) else { return Ok(()) };
        let Some(live) = self.fetch(&place).await? else {
            // The watch will say so too; until then it must not be looked at again and again.
            return Ok(());
        };
        if &*live.meta().uid != uid {
            return Ok(());
        }
        if live.meta().deleting {
            if has(&live, ORPHAN) {
                return self.orphan(&place, &live).await;
            }
            if has(&live, FOREGROUND) {
                return self.finish_foreground(&place, &live).await;
            }
            return Ok(());
        }
        self.judge(&place, &live).await
    }

    async fn orphan(&self, place: &Place, live: &Object) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(&live.meta().uid);
        for dependent in dependents {
            self.drop_owners(&dependent, &[live.meta().uid.to_string()]).await?;
        }
        self.drop_finalizer(place, live, ORPHAN).await
    }

    async fn finish_foreground(&self, place: &Place, live: &Object) -> Result<(), Error> {
        let (blocking, dependents) = {
            let graph = self.graph.lock();
            (graph.has_blocking_dependents(&live.meta().uid), graph.dependents(&live.meta().uid))
        };
        if !blocking {
            return self.drop_finalizer(place, live, FOREGROUND).await;
        }
        dependents.into_iter().for_each(|dependent| self.queue.add(dependent.uid));
        Ok(())
    }

    /// Whether the object's owners still justify it.
    async fn judge(&self, place: &Place, live: &Object) -> Result<(), Error> {
        let owners = &live.meta().owners;
        if owners.is_empty() {
            return Ok(());
        }
        let (mut solid, mut waiting, mut dangling) = (0, 0, Vec::new());
        for owner in owners.iter() {
            match self.owner_state(place, owner).await? {
                OwnerState::Gone => dangling.push(owner.uid.to_string()),
                OwnerState::DeletingInForeground => waiting += 1,
                _ => solid += 1,
            }
        }
        if solid > 0 {
            let mut drop = dangling;
            if waiting > 0 {
                let graph = self.graph.lock();
                let deleting = owners.iter().filter(|owner| graph.is_deleting_in_foreground(&owner.uid));
                drop.extend(deleting.map(|owner| owner.uid.to_string()));
            }
            return if drop.is_empty() { Ok(()) } else { self.drop_owners(place, &drop).await };
        }
        let dependents = self.graph.lock().dependents(&live.meta().uid);
        let has_dependents = !dependents.is_empty();
        if waiting > 0 && self.closes_a_circle(&dependents) && live.meta().owners.iter().any(|o| o.block_owner_deletion)
        {
            // Its owner waits for it, it would wait for its dependent, and that one waits for its owner: nobody may wait.
            return self.unblock(place, live).await;
        }
        let propagation = if waiting > 0 && has_dependents || has(live, FOREGROUND) {
            Propagation::Foreground
        } else if has(live, ORPHAN) {
            Propagation::Orphan
        } else {
            Propagation::Background
        };
        self.delete(place, live, propagation).await
    }

    /// What has become of an owner; one that the picture lacks is looked up.
    async fn owner_state(&self, dependent: &Place, owner: &Owner) -> Result<OwnerState, Error> {
        let known = {
            let graph = self.graph.lock();
            graph.state(&owner.uid)
        };
        if let Some((deleting_in_foreground, namespace)) = known {
            // An owner in another namespace is none (reference section "Owners and dependents").
            if !namespace.is_empty() && namespace != dependent.key.namespace.as_ref() {
                return Ok(OwnerState::Gone);
            }
            return Ok(if deleting_in_foreground { OwnerState::DeletingInForeground } else { OwnerState::There });
        }
        let Some(resource) = self.graph.lock().kind(&owner.api_version, &owner.kind) else {
            // A kind that is not served (any more, or yet): its objects may come back.
            return Ok(OwnerState::There);
        };
        let path = resource.object_path(Some(&dependent.key.namespace), &owner.name);
        match self.context.client.call(Method::GET, &path, "", Bytes::new()).await {
            Ok(body) => {
                let found = Object::from_wire(body)?;
                let same = found.meta().uid == owner.uid;
                Ok(if same { OwnerState::There } else { OwnerState::Gone })
            }
            Err(error) if error.is_not_found() => Ok(OwnerState::Gone),
            Err(error) => Err(error),
        }
    }

    async fn fetch(&self, place: &Place) -> Result<Option<Object>, Error> {
        match self.context.client.call(Method::GET, &place.path(), "", Bytes::new()).await {
            Ok(body) => Ok(Some(Object::from_wire(body)?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, place: &Place, live: &Object, propagation: Propagation) -> Result<(), Error> {
        let options = DeleteOptions {
            propagation: Some(propagation),
            uid: Some(live.meta().uid.to_string()),
            // Somebody may have changed the owners meanwhile.
            resource_version: Some(live.revision().to_string()),
            ..DeleteOptions::default()
        };
        let body = serde_json::to_vec(&options.body()).unwrap_or_default();
        match self.context.client.call(Method::DELETE, &place.path(), "application/json", body.into()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn closes_a_circle(&self, dependents: &[Place]) -> bool {
        let graph = self.graph.lock();
        dependents.iter().any(|dependent| graph.is_deleting_in_foreground(&dependent.uid))
    }

    /// Lets the object's owners go without waiting for it; the change itself brings the object back here.
    async fn unblock(&self, place: &Place, live: &Object) -> Result<(), Error> {
        let mut owners = live.value()?["metadata"]["ownerReferences"].take();
        for owner in owners.as_array_mut().into_iter().flatten() {
            owner["blockOwnerDeletion"] = json!(false);
        }
        let patch = json!({"metadata": {"uid": live.meta().uid, "resourceVersion": live.revision().to_string(), "ownerReferences": owners}});
        self.patch(place, Patch::Merge(patch)).await
    }

    async fn drop_owners(&self, place: &Place, uids: &[String]) -> Result<(), Error> {
        let Some(live) = self.fetch(place).await? else { return Ok(()) };
        let value = live.value()?;
        let owners = value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let kept: Vec<Value> =
            owners.into_iter().filter(|owner| !uids.iter().any(|uid| owner["uid"] == uid.as_str())).collect();
        let patch = json!({"metadata": {"uid": live.meta().uid, "resourceVersion": live.revision().to_string(), "ownerReferences": kept}});
        self.patch(place, Patch::Merge(patch)).await
    }

    async fn drop_finalizer(&self, place: &Place, live: &Object, finalizer: &str) -> Result<(), Error> {
        let kept: Vec<&str> = live.meta().finalizers.iter().map(|one| &**one).filter(|one| *one != finalizer).collect();
        let patch = json!({"metadata": {"uid": live.meta().uid, "resourceVersion": live.revision().to_string(), "finalizers": kept}});
        self.patch(place, Patch::Merge(patch)).await
    }

    async fn patch(&self, place: &Place, patch: Patch) -> Result<(), Error> {
        let body = serde_json::to_vec(patch.body()).unwrap_or_default();
        match self.context.client.call(Method::PATCH, &place.path(), patch.content_type(), body.into()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

enum OwnerState {
    There,
    DeletingInForeground,
    Gone,
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.meta().finalizers.iter().any(|one| &**one == finalizer)
}
