//! `agent`: a node alone, against any API server that a kubeconfig names.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use xebec_base::{Shutdown, SystemClock};
use xebec_client::Client;
use xebec_client::https::Https;
use xebec_pki::{Authority, ClientTrust, Profile, RotatingIdentity};
use xebec_runtime::Informers;

use super::control::{self, NetOptions, NodeOptions};
use crate::data_dir::{self, DataDir};
use crate::node::{self, ClusterNet, Surroundings};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The folder that the node keeps its things in
    #[arg(long, default_value = data_dir::DEFAULT, value_name = "DIR")]
    data_dir: PathBuf,
    /// The authority in PEM by which the node's server knows the API server's client certificate; by default the data directory's own
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    #[command(flatten)]
    net: NetOptions,
    #[command(flatten)]
    node: NodeOptions,
}

pub async fn run(options: Options, global: &xebec_cli::Global) -> anyhow::Result<i32> {
    let data = DataDir::new(&options.data_dir);
    let kubeconfig = global.kubeconfig.clone().unwrap_or_else(|| data.admin_kubeconfig());
    let clock = SystemClock::shared();
    let shutdown = Shutdown::new();
    let client = Client::new(Https::from_file(&kubeconfig, global.context.as_deref()).await?);
    let config = node_config(&options.node, data.clone(), options.net.net());

    let authority = Authority::load_or_create(&data.pki(), "node-ca", clock.clone())?;
    let identity = authority.load_or_issue(&data.pki(), "kubelet-server", &serving_profile(&config))?;
    let client_ca = options.client_ca_file.unwrap_or_else(|| data.pki().join("ca.crt"));
    let client_ca = std::fs::read_to_string(&client_ca).with_context(|| {
        format!("cannot read the client authority {}: name the cluster's with --client-ca-file", client_ca.display())
    })?;
    let trust = ClientTrust::new(&client_ca, clock.clone())?;
    let tls = Arc::new(xebec_pki::server_config(RotatingIdentity::new(&identity)?, Some(&trust))?);
    let pid_file = write_pid(&data)?;
    let informers = Informers::new(client.clone(), clock.clone(), shutdown.clone());
    let around = Surroundings { client, informers, clock, shutdown: shutdown.clone(), tls, trust };
    let name = config.name.clone();
    node::start(config, around).await?;
    println!("node {name} started, kubeconfig {}", kubeconfig.display());
    control::until_signal().await?;
    control::end(&shutdown).await;
    drop(pid_file);
    Ok(0)
}

/// What the options say, completed by what the machine says.
pub fn node_config(options: &NodeOptions, data: DataDir, net: ClusterNet) -> node::Config {
    node::Config {
        name: options.node_name.clone().unwrap_or_else(node::own_name),
        ip: options.node_ip.unwrap_or_else(node::own_address),
        port: options.kubelet_port,
        data,
        net,
        bridge: options.bridge.clone(),
        cgroup_root: options.cgroup_root.clone(),
        runtime_endpoint: options.runtime_endpoint.clone(),
        containerd: options.containerd.clone(),
    }
}

/// The certificate of the node's own server.
pub fn serving_profile(config: &node::Config) -> Profile {
    let addresses: [IpAddr; 2] = [config.ip, IpAddr::from([127, 0, 0, 1])];
    Profile::server(format!("system:node:{}", config.name), [config.name.clone()], addresses)
}

/// The file that tells `xebec down` whom to stop; it goes with this value.
pub struct PidFile(PathBuf);

pub fn write_pid(data: &DataDir) -> anyhow::Result<PidFile> {
    let path = data.pid_file();
    std::fs::create_dir_all(data.root()).with_context(|| format!("cannot make {}", data.root().display()))?;
    std::fs::write(&path, format!("{}\n", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(PidFile(path))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Left behind it would only name a process that is gone, which 'down' notices.
        let _ = std::fs::remove_file(&self.0);
    }
}
