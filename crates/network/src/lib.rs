//! The Pod network of one node.
//!
//! The container runtime starts our binary as its CNI plugin ([`plugin::main`]); the plugin asks the node's agent over
//! a unix socket ([`PodNetwork`]), and the agent does the work: an address out of the node's range, a veth pair from
//! the Pod's network namespace to a bridge, addresses and routes by rtnetlink, host ports and masquerading in nftables.
//!
//! The bridge carries the first address of the range as the Pods' gateway. A Pod has its address as a `/32` with a route
//! to the gateway only, so even Pods of one node speak through the node's IP layer: replies to a Service pass the
//! connection tracking that rewrote the request, with or without the `br_netfilter` module, and a network policy sees
//! every packet in the `forward` hook. A Pod's MAC address follows from its IP address, so no neighbour entry is ever
//! stale.
//!
//! What was given out is recorded in one small file per attachment; after a restart the agent keeps the records whose
//! veth still exists, so it needs nobody to tell it what runs.
//!
//! Does not do: Services (`proxy`), names (`dns`). Routes to other nodes and VXLAN get a module beside `links`, network
//! policy a table of its own beside `rules`; neither exists yet.

mod addresses;
mod agent;
mod attachments;
mod install;
mod links;
mod namespace;
pub mod plugin;
mod protocol;
mod rules;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

pub use agent::PodNetwork;
pub use install::remove_all;

/// The name under which the plugin is installed; a binary that is started by this name is the plugin.
pub const PLUGIN_NAME: &str = "xebec-cni";

/// The name of the second plugin, which older runtimes look for by themselves.
pub const LOOPBACK_NAME: &str = "loopback";

/// What the agent wants to know of its node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own range (`Node.spec.podCIDR`).
    pub pod_cidr: Ipv4Net,
    /// The range of all nodes; traffic that leaves it is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// Maximum packet size in bytes; by default that of the interface with the default route.
    pub mtu: Option<u32>,
    /// Addresses that the node itself answers on, such as the cluster DNS address; they are put on the bridge.
    pub local_addresses: Vec<Ipv4Addr>,
    /// The agent's folder for its records.
    pub state_dir: PathBuf,
    /// The socket on which the plugin reaches the agent.
    pub socket: PathBuf,
    /// The container runtime's folder for network configurations.
    pub cni_conf_dir: PathBuf,
    /// The container runtime's folder for plugins.
    pub cni_bin_dir: PathBuf,
    /// The program that the plugin is a link to.
    pub program: PathBuf,
    /// The network namespace that is the node's, where it is not the agent's own.
    pub namespace: Option<PathBuf>,
}

impl Config {
    /// The Pods' gateway: the first address of the node's range.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).saturating_add(1))
    }
}

/// Why the network of a node or of a Pod could not be made or unmade.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation}")]
    Netlink { operation: String, source: rtnetlink::Error },
    #[error("enter the network namespace {path}")]
    Namespace { path: String, source: std::io::Error },
    #[error("{operation} {path}")]
    File { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("write down what the address {address} is for")]
    Record { address: Ipv4Addr, source: serde_json::Error },
    #[error("change the packet filter rules of the Pod network")]
    Rules(#[from] xebec_netfilter::Error),
    #[error("write a packet filter rule for the Pod network")]
    RuleText(#[from] xebec_netfilter::InvalidText),
    #[error("no address is left in {range}: all {size} are in use")]
    Exhausted { range: Ipv4Net, size: usize },
    #[error("there is no interface {name}")]
    NoLink { name: String },
    #[error("{0}")]
    Request(String),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
