//! What `server`, `agent` and `up` have in common: ending on a signal, and the options of control plane and node.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use ipnet::Ipv4Net;
use tokio::signal::unix::{SignalKind, signal};
use xebec_base::Shutdown;

use crate::node::ClusterNet;

/// Everything ends within this long after a signal, or is cut off.
pub const END_LIMIT: Duration = Duration::from_millis(1800);

/// The addresses of the cluster.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct NetOptions {
    /// The network that Pods' addresses come from
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub cluster_cidr: Ipv4Net,
    /// The network that Services' addresses come from
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    pub service_cluster_ip_range: Ipv4Net,
    /// The domain of the cluster's names
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
}

impl NetOptions {
    pub fn net(&self) -> ClusterNet {
        ClusterNet {
            pods: self.cluster_cidr,
            services: self.service_cluster_ip_range,
            domain: self.cluster_domain.clone(),
        }
    }
}

/// What makes this node differ from others.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct NodeOptions {
    /// The Node's name; by default the machine's
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The Node's address; by default that of the interface with the default route
    #[arg(long, value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,
    /// The port of the node's own server
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    pub kubelet_port: u16,
    /// The bridge that Pods are attached to
    #[arg(long, default_value = "xebec0", value_name = "NAME")]
    pub bridge: String,
    /// The cgroup below which Pods run
    #[arg(long, default_value = "/xebec", value_name = "PATH")]
    pub cgroup_root: String,
    /// The socket of a running container runtime (containerd, CRI-O); by default a containerd of our own is started
    #[arg(long, value_name = "SOCKET")]
    pub runtime_endpoint: Option<String>,
    /// The containerd program to start; by default the one on PATH
    #[arg(long, value_name = "PROGRAM", conflicts_with = "runtime_endpoint")]
    pub containerd: Option<PathBuf>,
}

/// Waits for SIGTERM or SIGINT.
pub async fn until_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Ends everything in an orderly way, within [`END_LIMIT`].
pub async fn end(shutdown: &Shutdown) {
    shutdown.trigger();
    if tokio::time::timeout(END_LIMIT, shutdown.drain()).await.is_err() {
        tracing::warn!("some parts did not end in time");
    }
}
