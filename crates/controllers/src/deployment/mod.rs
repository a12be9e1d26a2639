//! Deployments: one ReplicaSet a template, rolled from old to new, with history, pause and roll-back.
//!
//! [`plan`] holds the decisions, [`rolling`] the arithmetic of a rolling update, [`status`] what is told. Behaviour:
//! upstream's `pkg/controller/deployment`. A roll-back is nothing special: the client writes an old template, whose
//! ReplicaSet is found again and gets a new revision.

mod plan;
mod rolling;
mod status;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use xebec_api::{LabelSelector, ObjectKey, pod};
use xebec_client::{DeleteOptions, Error, Patch, Propagation};
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring, reference};

use crate::replicas::{controller_of, controller_reference};
pub use plan::{Action, Observed};

const NAME: &str = "deployment-controller";

pub struct Deployments {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

impl Deployments {
    pub fn new(context: &Context) -> Self {
        Deployments {
            context: Context {
                events: context.events.named(NAME),
                client: context.client.named(NAME),
                ..context.clone()
            },
            deployments: context.informers.of(),
            sets: context.informers.of(),
            pods: context.informers.of(),
        }
    }

    async fn create_set(&self, observed: &Observed, set: &ReplicaSet) -> Result<(), Error> {
        let deployment = &*observed.deployment;
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let about = reference(deployment);
        let replicas = set.spec.replicas.unwrap_or(0);
        match self.context.client.namespaced::<ReplicaSet>(namespace).create(set).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.context.events.normal(&about, "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.collide(observed, set, error).await,
            Err(error) => {
                let name = set.metadata.name.as_deref().unwrap_or("");
                let message = format!("Failed to create new replica set {name:?}: {error}");
                self.context.events.warning(&about, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    /// Another template hashes to the same name: the collision count goes into the hash from now on. If the set is our own,
    /// the cache was merely late.
    async fn collide(&self, observed: &Observed, set: &ReplicaSet, error: Error) -> Result<(), Error> {
        let deployment = &observed.deployment;
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        let name = set.metadata.name.as_deref().unwrap_or("");
        let standing = self.context.client.namespaced::<ReplicaSet>(namespace).get(name).await?;
        let ours = controller_of(&standing).is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
        if ours && plan::same_template(&standing, deployment) {
            return Ok(());
        }
        let count = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
        let patch = Patch::Merge(json!({"status": {"collisionCount": count}}));
        let own = deployment.metadata.name.as_deref().unwrap_or("");
        self.context.client.namespaced::<Deployment>(namespace).patch_status(own, &patch).await?;
        Err(error)
    }

    async fn scale(&self, observed: &Observed, set: &ReplicaSet, to: i32) -> Result<(), Error> {
        let deployment = &*observed.deployment;
        let mut changed = set.clone();
        let from = changed.spec.replicas.replace(to).unwrap_or(1);
        plan::annotate_sizes(&mut changed, deployment);
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
        self.context.client.namespaced::<ReplicaSet>(namespace).replace(&changed).await?;
        if from != to {
            let direction = if from < to { "up" } else { "down" };
            let name = set.metadata.name.as_deref().unwrap_or("");
            let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
            self.context.events.normal(&reference(deployment), "ScalingReplicaSet", message);
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for Deployments {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn workers(&self) -> usize {
        5
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<Deployment>();
        wiring.owned::<ReplicaSet>("Deployment");
        let deployments = self.deployments.clone();
        wiring.mapped::<ReplicaSet>(move |set, wake| {
            if controller_of(set).is_some() {
                return;
            }
            for deployment in deployments.list_in(set.metadata.namespace.as_deref().unwrap_or("")) {
                if selector(&deployment).matches_map(set.metadata.labels.as_ref()) {
                    wake(ObjectKey::of(&*deployment));
                }
            }
        });
        // Recreate waits for the last old Pod to be gone.
        let sets = self.sets.clone();
        wiring.mapped::<Pod>(move |pod, wake| {
            if !(pod::is_deleting(pod) || pod::is_terminal(pod)) {
                return;
            }
            let Some(owner) = controller_of(pod).filter(|owner| owner.kind == "ReplicaSet") else { return };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            let set = sets.get(&ObjectKey::new(namespace, owner.name.as_str()));
            if let Some(owner) = set.as_deref().and_then(controller_of) {
                wake(ObjectKey::new(namespace, owner.name.as_str()));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let deployment = self.deployments.get(key)?;
        let (uid, selector) = (deployment.metadata.uid.as_deref().unwrap_or(""), selector(&deployment));
        let mut sets = Vec::new();
        let mut orphans = Vec::new();
        for set in self.sets.list_in(&key.namespace) {
            let matches = selector.matches_map(set.metadata.labels.as_ref());
            match controller_of(&*set) {
                Some(owner) if owner.uid == uid => sets.push(set),
                None if matches && set.metadata.deletion_timestamp.is_none() => orphans.push(set),
                _ => {}
            }
        }
        let recreate = plan::is_recreate(&deployment);
        let pods = if recreate { self.pods.select(&key.namespace, &selector) } else { Vec::new() };
        Some(Observed { deployment, sets, orphans, pods })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan::plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, action: Action) -> Result<(), ReconcileError> {
        let deployments = self.context.client.namespaced::<Deployment>(&key.namespace);
        let sets = self.context.client.namespaced::<ReplicaSet>(&key.namespace);
        match action {
            Action::Adopt(set) => {
                let owner = controller_reference(&*observed.deployment);
                let patch =
                    Patch::Strategic(json!({"metadata": {"uid": set.metadata.uid, "ownerReferences": [owner]}}));
                sets.patch(set.metadata.name.as_deref().unwrap_or(""), &patch).await?;
            }
            Action::CreateSet(set) => self.create_set(observed, &set).await?,
            Action::UpdateSet(set) => {
                sets.replace(&set).await?;
            }
            Action::Scale { set, to } => self.scale(observed, &set, to).await?,
            Action::DeleteSet(set) => {
                let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
                sets.delete(set.metadata.name.as_deref().unwrap_or(""), &options).await?;
            }
            Action::SetRevision(revision) => {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {plan::REVISION: revision}}}));
                deployments.patch(&key.name, &patch).await?;
            }
            Action::UpdateStatus(status) => {
                let mut changed = (*observed.deployment).clone();
                changed.status = Some(*status);
                deployments.replace_status(&changed).await?;
            }
        }
        Ok(())
    }
}

fn selector(deployment: &Deployment) -> LabelSelector {
    LabelSelector::from_object(Some(&deployment.spec.selector)).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Shared by tests of the siblings.
#[cfg(test)]
fn set_named(name: &str, replicas: i32, available: i32) -> std::sync::Arc<ReplicaSet> {
    std::sync::Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {}},
        "status": {"replicas": replicas, "availableReplicas": available}}))
        .unwrap(),
    )
}
