//! Claims that are being deleted are let go when no Pod uses them, volumes when no claim does, and classes of attributes
//! when no claim or volume has them.
//!
//! Admission holds all of them with a finalizer from the start. Behaviour: upstream's `pkg/controller/volume/pvcprotection`,
//! `pvprotection` and `vacprotection`.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use xebec_api::{ObjectKey, pod};
use xebec_client::Patch;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";

#[derive(Debug, PartialEq)]
pub struct LetGo;

pub struct ClaimProtection {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

impl ClaimProtection {
    pub fn new(context: &Context) -> Self {
        ClaimProtection {
            context: Context {
                client: context.client.named("persistentvolumeclaim-protection-controller"),
                ..context.clone()
            },
            claims: context.informers.of(),
            pods: context.informers.of(),
        }
    }
}

#[async_trait]
impl Controller for ClaimProtection {
    /// Whether a Pod uses the claim.
    type Observed = (Arc<PersistentVolumeClaim>, bool);
    type Action = LetGo;

    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<PersistentVolumeClaim>();
        wiring.mapped::<Pod>(|pod, wake| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
            claims_of(pod).for_each(|claim| wake(ObjectKey::new(namespace, claim)));
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Observed> {
        let claim = self.claims.get(key).filter(|claim| is_held(&claim.metadata, CLAIM_FINALIZER))?;
        let pods = self.pods.list_in(&key.namespace);
        let used = pods.iter().any(|pod| uses(pod, &key.name));
        Some((claim, used))
    }

    fn plan(&self, _: &ObjectKey, (_, used): &Self::Observed, _: Timestamp) -> Plan<LetGo> {
        if *used { Plan::nothing() } else { Plan::of(vec![LetGo]) }
    }

    async fn apply(&self, key: &ObjectKey, (claim, _): &Self::Observed, _: LetGo) -> Result<(), ReconcileError> {
        let patch = without(&claim.metadata, CLAIM_FINALIZER);
        let claims = self.context.client.namespaced::<PersistentVolumeClaim>(&key.namespace);
        claims.patch(&key.name, &patch).await.map(drop)?;
        Ok(())
    }
}

pub struct VolumeProtection {
    context: Context,
    volumes: Informer<PersistentVolume>,
}

impl VolumeProtection {
    pub fn new(context: &Context) -> Self {
        VolumeProtection {
            context: Context {
                client: context.client.named("persistentvolume-protection-controller"),
                ..context.clone()
            },
            volumes: context.informers.of(),
        }
    }
}

#[async_trait]
impl Controller for VolumeProtection {
    type Observed = Arc<PersistentVolume>;
    type Action = LetGo;

    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<PersistentVolume>();
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Observed> {
        self.volumes.get(key).filter(|volume| is_held(&volume.metadata, VOLUME_FINALIZER))
    }

    fn plan(&self, _: &ObjectKey, volume: &Self::Observed, _: Timestamp) -> Plan<LetGo> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Bound") { Plan::nothing() } else { Plan::of(vec![LetGo]) }
    }

    async fn apply(&self, key: &ObjectKey, volume: &Self::Observed, _: LetGo) -> Result<(), ReconcileError> {
        let patch = without(&volume.metadata, VOLUME_FINALIZER);
        self.context.client.all::<PersistentVolume>().patch(&key.name, &patch).await.map(drop)?;
        Ok(())
    }
}

pub struct ClassProtection {
    context: Context,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl ClassProtection {
    pub fn new(context: &Context) -> Self {
        ClassProtection {
            context: Context {
                client: context.client.named("volumeattributesclass-protection-controller"),
                ..context.clone()
            },
            classes: context.informers.of(),
            claims: context.informers.of(),
            volumes: context.informers.of(),
        }
    }
}

#[async_trait]
impl Controller for ClassProtection {
    /// Whether a claim or a volume has the class.
    type Observed = (Arc<VolumeAttributesClass>, bool);
    type Action = LetGo;

    fn name(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<VolumeAttributesClass>();
        wiring.mapped::<PersistentVolumeClaim>(|claim, wake| {
            classes_of(claim).for_each(|class| wake(ObjectKey::new("", class.as_str())));
        });
        wiring.mapped::<PersistentVolume>(|volume, wake| {
            class_of(volume).into_iter().for_each(|class| wake(ObjectKey::new("", class.as_str())));
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Observed> {
        let class = self.classes.get(key).filter(|class| is_held(&class.metadata, CLASS_FINALIZER))?;
        let used = self.claims.list().iter().any(|claim| classes_of(claim).any(|name| **name == *key.name))
            || self.volumes.list().iter().any(|volume| class_of(volume).is_some_and(|name| **name == *key.name));
        Some((class, used))
    }

    fn plan(&self, _: &ObjectKey, (_, used): &Self::Observed, _: Timestamp) -> Plan<LetGo> {
        if *used { Plan::nothing() } else { Plan::of(vec![LetGo]) }
    }

    async fn apply(&self, key: &ObjectKey, (class, _): &Self::Observed, _: LetGo) -> Result<(), ReconcileError> {
        let patch = without(&class.metadata, CLASS_FINALIZER);
        self.context.client.all::<VolumeAttributesClass>().patch(&key.name, &patch).await.map(drop)?;
        Ok(())
    }
}

/// The class that a claim asks for, has, and is on its way to.
fn classes_of(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &String> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_ref());
    let change = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = change.and_then(|change| change.target_volume_attributes_class_name.as_ref());
    [wanted, current, target].into_iter().flatten()
}

fn class_of(volume: &PersistentVolume) -> Option<&String> {
    volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_ref())
}

fn is_held(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() && meta.finalizers.iter().flatten().any(|one| one == finalizer)
}

fn without(meta: &ObjectMeta, finalizer: &str) -> Patch {
    let metadata = json!({ "uid": meta.uid, "$deleteFromPrimitiveList/finalizers": [finalizer] });
    Patch::Strategic(json!({ "metadata": metadata }))
}

/// The claims that a Pod names, or gets of its own.
fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let own = pod.metadata.name.clone().unwrap_or_default();
    let claim = move |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{own}-{}", volume.name)),
        (None, None) => None,
    };
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(claim)
}

/// No kubelet starts a Pod whose claim is being deleted, so one without a node does not count.
fn uses(pod: &Pod, claim: &str) -> bool {
    let placed = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    placed && !pod::is_terminal(pod) && claims_of(pod).any(|one| one == claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_used_by_pods_that_run() {
        let check = |node: &str, phase: &str, volume: serde_json::Value, expected: bool| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "p" }, "status": { "phase": phase },
                "spec": { "nodeName": node, "containers": [], "volumes": [volume] }
            }))
            .unwrap();
            assert_eq!(uses(&pod, "p-v"), expected, "{node} {phase}");
        };
        let named = || json!({ "name": "a", "persistentVolumeClaim": { "claimName": "p-v" } });
        check("n", "Running", named(), true);
        check("n", "Pending", json!({ "name": "v", "ephemeral": {} }), true);
        check("", "Pending", named(), false);
        check("n", "Succeeded", named(), false);
        check("n", "Running", json!({ "name": "v", "emptyDir": {} }), false);
    }

    #[test]
    fn classes_are_used_by_claims_that_have_or_want_them() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": { "volumeAttributesClassName": "a" },
            "status": {
                "currentVolumeAttributesClassName": "b",
                "modifyVolumeStatus": { "targetVolumeAttributesClassName": "c", "status": "Pending" }
            }
        }))
        .unwrap();
        assert_eq!(classes_of(&claim).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
