//! Pods that nobody will ever finish: bound to a node that is gone, deleted before they had one, or ended and too many.
//!
//! Behaviour: upstream's `pkg/controller/podgc`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use xebec_api::{ObjectKey, pod};
use xebec_base::Chain;
use xebec_client::{DeleteOptions, Error, Patch};
use xebec_runtime::{Context, Informer};

const NAME: &str = "pod-garbage-collector";
/// Upstream looks every 20 s, and waits 40 s before it believes that a node is gone.
const PERIOD: Duration = Duration::from_secs(20);
/// Upstream's `--terminated-pod-gc-threshold`.
const KEPT_TERMINATED: usize = 12_500;

#[derive(Debug, PartialEq)]
enum Reason {
    /// Its node is gone: it is marked failed first, so that its owner counts it so.
    NodeGone,
    Unscheduled,
    TooMany,
}

/// Looks over all Pods every so often until shutdown.
pub async fn run(context: Context) {
    let context = Context { client: context.client.named(NAME), ..context };
    let (pods, nodes) = (context.informers.of::<Pod>(), context.informers.of::<Node>());
    context.informers.synced().await;
    context.shutdown.clone().spawn(async move {
        let mut suspects: Vec<String> = Vec::new();
        loop {
            context.clock.sleep(PERIOD).await;
            let found = doomed(&pods, &nodes);
            // A Pod of a missing node goes when it was seen so twice.
            let mut next = Vec::new();
            for (pod, reason) in found {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if reason == Reason::NodeGone && !suspects.contains(&uid) {
                    next.push(uid);
                    continue;
                }
                if let Err(error) = remove(&context, &pod, &reason).await
                    && !error.is_not_found()
                {
                    tracing::warn!(pod = %ObjectKey::of(&*pod), error = %Chain(&error), "cannot collect");
                }
            }
            suspects = next;
        }
    });
}

fn doomed(pods: &Informer<Pod>, nodes: &Informer<Node>) -> Vec<(Arc<Pod>, Reason)> {
    let mut found = Vec::new();
    let mut terminated = Vec::new();
    for pod in pods.list() {
        match pod::node_name(&pod) {
            Some(node) if nodes.object(&ObjectKey::new("", node)).is_none() => found.push((pod, Reason::NodeGone)),
            None if pod::is_deleting(&pod) => found.push((pod, Reason::Unscheduled)),
            _ if pod::is_terminal(&pod) && !pod::is_deleting(&pod) => terminated.push(pod),
            _ => {}
        }
    }
    let surplus = terminated.len().saturating_sub(KEPT_TERMINATED);
    terminated.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    found.extend(terminated.into_iter().take(surplus).map(|pod| (pod, Reason::TooMany)));
    found
}

async fn remove(context: &Context, pod: &Pod, reason: &Reason) -> Result<(), Error> {
    let pods = context.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or(""));
    let name = pod.metadata.name.as_deref().unwrap_or("");
    if *reason == Reason::NodeGone && !pod::is_terminal(pod) {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": Time(context.clock.now())});
        let patch = Patch::Strategic(json!({"status": {"phase": "Failed", "conditions": [condition]}}));
        pods.patch_status(name, &patch).await?;
    }
    let options = DeleteOptions::now().only(pod.metadata.uid.clone().unwrap_or_default());
    pods.delete(name, &options).await.map(|_| ())
}
