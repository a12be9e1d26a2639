//! Gives every node a part of the cluster's Pod network (`spec.podCIDR`).

use async_trait::async_trait;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use xebec_api::ObjectKey;
use xebec_client::Patch;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring, reference};

const NAME: &str = "node-ipam-controller";
/// Upstream's `--node-cidr-mask-size`: 254 addresses a node.
const NODE_PREFIX: u8 = 24;

pub struct NodeIpam {
    context: Context,
    cluster: Ipv4Net,
    nodes: Informer<Node>,
}

#[derive(Debug)]
pub enum Action {
    Assign(Ipv4Net),
    Exhausted,
}

impl NodeIpam {
    pub fn new(context: &Context, cluster: Ipv4Net) -> Self {
        NodeIpam {
            context: Context {
                client: context.client.named(NAME),
                events: context.events.named(NAME),
                ..context.clone()
            },
            cluster,
            nodes: context.informers.of(),
        }
    }
}

fn cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty())
}

#[async_trait]
impl Controller for NodeIpam {
    /// The networks that are taken.
    type Observed = Vec<Ipv4Net>;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    /// One at a time, so that no two nodes are given the same network.
    fn workers(&self) -> usize {
        1
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<Node>();
    }

    fn observe(&self, key: &ObjectKey) -> Option<Vec<Ipv4Net>> {
        let node = self.nodes.get(key)?;
        if cidr(&node).is_some() || node.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(self.nodes.list().iter().filter_map(|node| cidr(node)?.parse().ok()).collect())
    }

    fn plan(&self, _: &ObjectKey, taken: &Vec<Ipv4Net>, _: Timestamp) -> Plan<Action> {
        let prefix = NODE_PREFIX.max(self.cluster.prefix_len());
        let mut subnets = self.cluster.subnets(prefix).into_iter().flatten();
        let free = subnets.find(|net| !taken.iter().any(|other| other.contains(net) || net.contains(other)));
        Plan::of(vec![free.map_or(Action::Exhausted, Action::Assign)])
    }

    async fn apply(&self, key: &ObjectKey, _: &Vec<Ipv4Net>, action: Action) -> Result<(), ReconcileError> {
        let Some(node) = self.nodes.get(key) else { return Ok(()) };
        match action {
            Action::Assign(net) => {
                let net = net.to_string();
                let patch = Patch::Strategic(json!({"spec": {"podCIDR": net, "podCIDRs": [net]}}));
                self.context.client.all::<Node>().patch(&key.name, &patch).await?;
                // The cache must show it before the next node is looked at.
                while self.nodes.get(key).is_some_and(|node| cidr(&node).is_none()) {
                    self.context.clock.sleep(std::time::Duration::from_millis(2)).await;
                }
                Ok(())
            }
            Action::Exhausted => {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                self.context.events.normal(&reference(&*node), "CIDRNotAvailable", message);
                Err(ReconcileError::Blocked(format!("no network is left in {} for the node", self.cluster)))
            }
        }
    }
}
