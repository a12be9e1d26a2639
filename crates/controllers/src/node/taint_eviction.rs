//! Evicts Pods from nodes with `NoExecute` taints that they do not tolerate, or no longer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use xebec_api::{ObjectKey, pod};
use xebec_client::{DeleteOptions, Patch};
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring, reference};

use super::lifecycle::by_node;

const NAME: &str = "taint-eviction-controller";

pub struct TaintEviction {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

pub struct Observed {
    pod: Arc<Pod>,
    taints: Vec<Taint>,
}

#[derive(Debug)]
pub struct Evict;

impl TaintEviction {
    pub fn new(context: &Context) -> Self {
        TaintEviction {
            context: Context {
                client: context.client.named(NAME),
                events: context.events.named(NAME),
                ..context.clone()
            },
            nodes: context.informers.of(),
            pods: context.informers.of(),
        }
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

#[async_trait]
impl Controller for TaintEviction {
    type Observed = Observed;
    type Action = Evict;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        self.pods.index("node", by_node);
        wiring.own::<Pod>();
        let pods = self.pods.clone();
        wiring.mapped::<Node>(move |node, wake| {
            if no_execute(node).is_empty() {
                return;
            }
            for pod in pods.by_index("node", node.metadata.name.as_deref().unwrap_or("")) {
                wake(ObjectKey::of(&*pod));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let pod = self.pods.get(key).filter(|pod| !pod::is_deleting(pod))?;
        let node = self.nodes.get(&ObjectKey::new("", pod::node_name(&pod)?))?;
        let taints = no_execute(&node);
        (!taints.is_empty()).then_some(Observed { pod, taints })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Evict> {
        let tolerations = observed.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
        match tolerated_for(&observed.taints, tolerations.unwrap_or_default(), now) {
            None => Plan::nothing(),
            Some(left) if left.is_zero() => Plan::of(vec![Evict]),
            Some(left) => Plan::nothing().again_after(left),
        }
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, _: Evict) -> Result<(), ReconcileError> {
        let pods = self.context.client.namespaced::<Pod>(&key.namespace);
        let message = format!("Marking for deletion Pod {key}");
        self.context.events.normal(&reference(&*observed.pod), "TaintManagerEviction", message);
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(self.context.clock.now())});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        pods.patch_status(&key.name, &patch).await?;
        let options = DeleteOptions::default().only(observed.pod.metadata.uid.clone().unwrap_or_default());
        pods.delete(&key.name, &options).await?;
        Ok(())
    }
}

/// How long the Pod may still stay: nothing means for ever, zero means not at all.
fn tolerated_for(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Duration> {
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|one| pod::tolerates(one, taint)).collect();
        if matching.is_empty() {
            return Some(Duration::ZERO);
        }
        let Some(seconds) = matching.iter().filter_map(|one| one.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let left = since.as_second() + seconds - now.as_second();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        shortest = Some(shortest.map_or(left, |standing| standing.min(left)));
    }
    shortest
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(tolerations: Value, expected: Option<u64>) {
        let taint = Taint {
            key: "k".into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: Some(Time(Timestamp::UNIX_EPOCH)),
        };
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(tolerated_for(&[taint], &tolerations, now), expected.map(Duration::from_secs));
    }

    #[test]
    fn tolerations_run_out() {
        check(json!([]), Some(0));
        check(json!([{"key": "k", "operator": "Exists"}]), None);
        check(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]), Some(200));
        check(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 30}]), Some(0));
    }
}
