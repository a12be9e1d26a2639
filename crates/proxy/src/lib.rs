//! Service load balancing on one node.
//!
//! `table` turns Services and EndpointSlices into a model that knows nothing of rules; a [`Backend`] makes the kernel
//! follow the model; [`Proxy::run`] looks at the informers and tells the backend which Services changed, so that a change costs
//! what changed. Flows of UDP clients that still lead to an endpoint which is gone are cut ([`Conntrack`]).
//!
//! What is balanced: ClusterIP, NodePort, external and load-balancer addresses, over TCP, UDP and SCTP, in IPv4 and IPv6;
//! session affinity; traffic policies; topology hints; endpoints that end their service gracefully.
//!
//! Relies on: the cluster's EndpointSlices, whose controller has already judged readiness. Does not do: addresses of
//! Services (API server), the health-check node port of load balancers, iptables and IPVS (each is one more file in
//! `backend`).

pub mod backend;
pub mod conntrack;
mod run;
pub mod table;

pub use backend::{Backend, Scope};
pub use conntrack::Conntrack;
pub use run::Proxy;

use std::net::IpAddr;

use ipnet::IpNet;

/// What the proxy wants to know of its node.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The node's name: endpoints that carry it are local.
    pub node_name: String,
    /// The node's zone (`topology.kubernetes.io/zone`), for topology hints.
    pub zone: String,
    /// The addresses of Pods in the whole cluster, one range a family; clients from elsewhere are masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// Cluster IPs that the node answers on by itself (cluster DNS): Services with these are left alone.
    pub own_addresses: Vec<IpAddr>,
}
