//! Cluster DNS, in the agent of every node.
//!
//! Answers follow the specification "Kubernetes DNS-Based Service Discovery", version 1.1.0, and where it leaves room,
//! what CoreDNS does. [`zone::lookup`] is a pure function from a question and a [`Directory`] to an answer; the directory
//! is the informers' own view, so a name is true as soon as the node knows of the object. Questions about other names go
//! to the node's own name servers ([`Forwarder`]), with a small cache.
//!
//! Relies on: EndpointSlices whose controller has judged readiness; somebody else (`network`) has put the cluster DNS
//! address on the node. Does not do: DNSSEC, zone transfers, names of Pods by anything but their address.

mod directory;
mod forward;
mod server;
pub mod zone;

use std::net::IpAddr;
use std::path::PathBuf;

pub use directory::{Directory, InformerDirectory};
pub use forward::Forwarder;
pub use server::{Error, NameServer, Sockets};

/// What the name server wants to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// The addresses Pods ask; they are what the zone's own name server's name stands for.
    pub addresses: Vec<IpAddr>,
    /// The file that names the servers for all other names, by custom `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}
