//! Keeps the Node object there and its status true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::sync::Notify;
use xebec_base::{Backoff, Chain, SharedClock};
use xebec_client::{Client, Error, Patch};
use xebec_cri::{Images, Runtime};
use xebec_runtime::{EventRecorder, reference};

use super::facts::Facts;
use super::status::{self, Findings};
use crate::config::Config;
use crate::image::collect::Fullness;

/// How often the node is looked at, and how often its status is written although nothing has changed; upstream's intervals.
const LOOK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
/// Until the node is ready for the first time, so that a cluster comes up without a pause.
const LOOK_UNREADY: Duration = Duration::from_millis(200);
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(7)).with_jitter(0.2);

/// What keeping a node registered takes.
pub struct Registration {
    pub config: Config,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub facts: Facts,
    pub clock: SharedClock,
    pub events: EventRecorder,
    /// Set while the runtime answers.
    pub healthy: Arc<AtomicBool>,
    /// Rung when something about the node has changed.
    pub look_now: Arc<Notify>,
}

/// Runs as long as the agent.
pub async fn keep_registered(registration: Registration) {
    let mut retry = RETRY;
    let mut reported = None;
    loop {
        let pause = match registration.round(&mut reported).await {
            Ok(ready) => {
                retry.reset();
                if ready { LOOK } else { LOOK_UNREADY }
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot tell the API about this node");
                retry.next_delay()
            }
        };
        tokio::select! {
            () = registration.clock.sleep(pause) => {}
            () = registration.look_now.notified() => {}
        }
    }
}

impl Registration {
    /// One look; returns whether the node is ready.
    async fn round(&self, reported: &mut Option<(NodeStatus, Duration)>) -> Result<bool, Error> {
        let findings = self.look().await;
        self.healthy.store(findings.runtime.is_ok(), Ordering::Relaxed);
        let old = reported.as_ref().map(|(status, _)| status);
        let mut new = status::status(&self.config, &self.facts, &findings, old);
        let elapsed = self.clock.elapsed();
        let due = reported.as_ref().is_none_or(|(old, at)| status::differs(old, &new) || elapsed >= *at + REPORT);
        if due {
            let node = self.ensure(&new).await?;
            // What others say of the node has to be kept: lists are replaced as a whole.
            new = status::status(&self.config, &self.facts, &findings, node.status.as_ref());
            self.announce(&node, reported.is_none(), &new);
            let nodes = self.client.all::<Node>();
            let patch = Patch::Merge(json!({"status": new}));
            let written = nodes.patch_status(&self.config.node_name, &patch).await?;
            *reported = Some((written.status.unwrap_or(new.clone()), elapsed));
        }
        Ok(is_ready(&new))
    }

    async fn look(&self) -> Findings {
        let (conditions, version, images) =
            tokio::join!(self.runtime.status(), self.runtime.version(), self.images.list());
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let available = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Findings {
            at: self.clock.now(),
            runtime: conditions
                .map(|answer| answer.status.unwrap_or_default().conditions)
                .map_err(|error| error.to_string()),
            version: version.ok(),
            images: images.unwrap_or_default(),
            storage: Fullness::of(&self.config.root_dir).ok(),
            memory_available: available.map(|kibibytes| kibibytes * 1024),
        }
    }

    /// The Node object, made or brought up to date in its labels.
    async fn ensure(&self, status: &NodeStatus) -> Result<Node, Error> {
        let nodes = self.client.all::<Node>();
        let labels = self.labels();
        let Some(node) = nodes.get_opt(&self.config.node_name).await? else {
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(self.config.node_name.clone()),
                    labels: Some(labels),
                    annotations: Some(BTreeMap::from([(
                        "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                        "true".to_owned(),
                    )])),
                    ..ObjectMeta::default()
                },
                spec: Some(NodeSpec {
                    taints: (!self.config.taints.is_empty()).then(|| self.config.taints.clone()),
                    ..NodeSpec::default()
                }),
                status: Some(status.clone()),
            };
            return match nodes.create(&node).await {
                Err(error) if error.is_already_exists() => nodes.get(&self.config.node_name).await,
                other => other,
            };
        };
        let present = node.metadata.labels.as_ref();
        let missing: BTreeMap<_, _> =
            labels.iter().filter(|(key, value)| present.and_then(|it| it.get(*key)) != Some(*value)).collect();
        if missing.is_empty() {
            return Ok(node);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": missing}}));
        nodes.patch(&self.config.node_name, &patch).await
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let architecture = self.facts.architecture;
        let usual = [
            ("kubernetes.io/hostname", self.config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture),
        ];
        let usual = usual.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        usual.chain(self.config.labels.iter().cloned()).collect()
    }

    /// Says in events which conditions have changed; of a node that is new, all.
    fn announce(&self, node: &Node, first: bool, new: &NodeStatus) {
        let (name, mut about) = (&self.config.node_name, reference(node));
        // Upstream's agent refers to its node by name in place of the UID.
        about.uid = Some(name.clone());
        if first {
            self.events.normal(&about, "Starting", "Starting kubelet.");
        }
        let old = node.status.as_ref().filter(|_| !first);
        for (condition, held, not_held) in ANNOUNCED {
            let (before, now) = (old.map(|old| holds(old, condition)), holds(new, condition));
            if before != Some(now) {
                let reason = if now { held } else { not_held };
                self.events.normal(&about, reason, format!("Node {name} status is now: {reason}"));
            }
        }
    }
}

/// Conditions, and the reasons of the events that tell of their change.
const ANNOUNCED: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

fn holds(status: &NodeStatus, condition: &str) -> bool {
    status.conditions.iter().flatten().any(|it| it.type_ == condition && it.status == "True")
}

fn is_ready(status: &NodeStatus) -> bool {
    holds(status, "Ready")
}
