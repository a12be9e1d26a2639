//! A node in this process: kubelet, Pod network, Service proxy and cluster DNS, over any client.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xebec_api::ObjectKey;
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_client::Client;
use xebec_dns::{NameServer, Sockets};
use xebec_kubelet::image::imported::Record;
use xebec_kubelet::server::{ApiAuthority, NodeServer};
use xebec_kubelet::{Agent, RuntimeSource};
use xebec_netfilter::Nft;
use xebec_network::PodNetwork;
use xebec_proxy::Proxy;
use xebec_proxy::backend::Nftables;
use xebec_proxy::conntrack::Program;
use xebec_runtime::Informers;

use crate::cgroup_claim::Claim;
use crate::data_dir::DataDir;

/// The image of the container that holds a Pod's namespaces.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";
const DNS_PORT: u16 = 53;

/// The addresses that a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterNet {
    /// Where Pods' addresses come from.
    pub pods: Ipv4Net,
    /// Where Services' addresses come from.
    pub services: Ipv4Net,
    pub domain: String,
}

impl ClusterNet {
    /// The address of the `kubernetes` Service: the first of the range.
    pub fn api_service(&self) -> Ipv4Addr {
        nth(self.services, 1)
    }

    /// The address of the cluster DNS: the tenth of the range, by old custom.
    pub fn dns(&self) -> Ipv4Addr {
        nth(self.services, 10)
    }
}

fn nth(net: Ipv4Net, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(number))
}

/// What makes one node differ from another on the same machine.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub ip: IpAddr,
    pub port: u16,
    pub data: DataDir,
    pub net: ClusterNet,
    pub bridge: String,
    pub cgroup_root: String,
    /// The socket of a running runtime; `None` for a containerd of our own.
    pub runtime_endpoint: Option<String>,
    /// That containerd's program, where it is not the one on PATH.
    pub containerd: Option<PathBuf>,
}

impl Config {
    pub fn network(&self, pod_cidr: Ipv4Net) -> anyhow::Result<xebec_network::Config> {
        Ok(xebec_network::Config {
            pod_cidr,
            cluster_cidr: self.net.pods,
            bridge: self.bridge.clone(),
            mtu: None,
            local_addresses: vec![self.net.dns()],
            state_dir: self.data.network(),
            socket: self.data.network_socket(),
            cni_conf_dir: self.data.cni_conf(),
            cni_bin_dir: self.data.cni_bin(),
            program: std::env::current_exe().context("cannot find our own program")?,
            namespace: None,
        })
    }

    pub fn containerd(&self) -> xebec_cri::containerd::Config {
        xebec_cri::containerd::Config {
            directory: self.data.containerd(),
            program: self.containerd.clone(),
            pause_image: PAUSE_IMAGE.to_owned(),
            cni_bin_dir: self.data.cni_bin(),
            cni_conf_dir: self.data.cni_conf(),
            restrict_oom_score_adj: true,
        }
    }

    fn kubelet(&self) -> xebec_kubelet::config::Config {
        let runtime = match &self.runtime_endpoint {
            Some(endpoint) => RuntimeSource::Endpoint(endpoint.clone()),
            None => RuntimeSource::Own(self.containerd()),
        };
        let mut config = xebec_kubelet::config::Config::new(&self.name, vec![self.ip], self.data.kubelet(), runtime);
        config.cluster_dns = vec![IpAddr::V4(self.net.dns())];
        config.cluster_domain = self.net.domain.clone();
        config.cgroup_root = self.cgroup_root.clone();
        config.port = self.port;
        config.imported_images = Record::at(self.data.imported_images());
        config
    }

    /// What `xebec down` has to know to undo this node.
    pub fn record(&self) -> Value {
        json!({"bridge": self.bridge, "cgroupRoot": self.cgroup_root, "podNetwork": self.net.pods.to_string(),
            "serviceNetwork": self.net.services.to_string(), "domain": self.net.domain, "name": self.name,
            "ip": self.ip.to_string(), "port": self.port, "runtimeEndpoint": self.runtime_endpoint, "containerd": self.containerd})
    }

    /// Reads the record of the node that last ran on this data directory, if any did.
    pub fn recorded(data: &DataDir) -> anyhow::Result<Option<Self>> {
        let path = data.node_record();
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let damaged = || format!("{} is damaged", path.display());
        let value: Value = serde_json::from_slice(&text).with_context(damaged)?;
        let text = |name: &str| value[name].as_str().map(str::to_owned).with_context(damaged);
        let net = ClusterNet {
            pods: text("podNetwork")?.parse().with_context(damaged)?,
            services: text("serviceNetwork")?.parse().with_context(damaged)?,
            domain: text("domain")?,
        };
        Ok(Some(Config {
            name: text("name")?,
            ip: text("ip")?.parse().with_context(damaged)?,
            port: value["port"].as_u64().and_then(|port| u16::try_from(port).ok()).with_context(damaged)?,
            data: data.clone(),
            net,
            bridge: text("bridge")?,
            cgroup_root: text("cgroupRoot")?,
            runtime_endpoint: text("runtimeEndpoint").ok(),
            containerd: text("containerd").ok().map(PathBuf::from),
        }))
    }
}

/// What the node's parts share.
pub struct Surroundings {
    pub client: Client,
    pub informers: Informers,
    pub clock: SharedClock,
    pub shutdown: Shutdown,
    /// The node server's certificate, and whose clients it believes.
    pub tls: Arc<rustls::ServerConfig>,
    pub trust: xebec_pki::ClientTrust,
}

/// Starts the node; it runs until shutdown. An error is one of setting up, such as a taken port or a missing program.
pub async fn start(config: Config, around: Surroundings) -> anyhow::Result<()> {
    let claim = Claim::take(&config.cgroup_root)?;
    let record = config.data.node_record();
    std::fs::create_dir_all(config.data.root())
        .with_context(|| format!("cannot make {}", config.data.root().display()))?;
    std::fs::write(&record, format!("{:#}\n", config.record()))
        .with_context(|| format!("cannot write {}", record.display()))?;
    let port = std::net::SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), config.port);
    let listener = TcpListener::bind(port)
        .await
        .with_context(|| format!("cannot serve on {port}: choose another port with --kubelet-port"))?;
    let (client, clock, shutdown) = (around.client.clone(), around.clock.clone(), around.shutdown.clone());
    let agent = Agent::start(config.kubelet(), client.clone(), clock.clone(), shutdown.clone()).await?;
    let agent = Arc::new(agent);
    let server = NodeServer {
        node: agent.clone(),
        containers: agent.runtime(),
        authority: Arc::new(ApiAuthority::new(&config.name, around.trust.clone(), client, clock.clone())),
        clock,
        shutdown: shutdown.clone(),
    };
    shutdown.spawn(server.serve(listener, around.tls.clone()));
    around.shutdown.clone().spawn_draining(async move {
        let (_claim, shutdown) = (claim, around.shutdown.clone());
        tokio::select! {
            () = shutdown.triggered() => {}
            result = network(config, around, agent) => if let Err(error) = result {
                tracing::error!(error = %Chain(&*error), "the node's network failed");
            },
        }
    });
    Ok(())
}

/// Waits for the node's part of the Pod network, then runs network, proxy and DNS.
async fn network(config: Config, around: Surroundings, agent: Arc<Agent>) -> anyhow::Result<()> {
    let pod_cidr = pod_cidr(&config, &around).await?;
    let netfilter = Arc::new(Nft::default());
    let network_config = config.network(pod_cidr)?;
    // Another agent that ends at this moment, or a kernel that is busy, must not leave the node without a network.
    let network = loop {
        match PodNetwork::start(network_config.clone(), netfilter.clone()).await {
            Ok(network) => break network,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot set up the Pod network, trying again");
                around.clock.sleep(Duration::from_secs(2)).await;
            }
        }
    };
    around.shutdown.spawn_draining(network.serve(around.shutdown.clone()));
    agent.look_now();

    let dns = IpAddr::V4(config.net.dns());
    let cluster: Vec<IpNet> = vec![config.net.pods.into()];
    let proxy = Proxy {
        config: xebec_proxy::Config {
            node_name: config.name.clone(),
            zone: String::new(),
            cluster_cidrs: cluster.clone(),
            own_addresses: vec![dns],
        },
        informers: around.informers.clone(),
        backend: Box::new(Nftables::new(netfilter, &cluster)?),
        conntrack: Arc::new(Program::default()),
        clock: around.clock.clone(),
    };
    around.shutdown.spawn_draining(proxy.run(around.shutdown.clone()));

    let server = NameServer {
        config: xebec_dns::Config {
            domain: config.net.domain.clone(),
            addresses: vec![dns],
            resolv_conf: "/etc/resolv.conf".into(),
        },
        sockets: Sockets::bind(&[dns], DNS_PORT).await?,
        informers: around.informers.clone(),
        clock: around.clock.clone(),
    };
    server.run(around.shutdown.clone()).await?;
    Ok(())
}

async fn pod_cidr(config: &Config, around: &Surroundings) -> anyhow::Result<Ipv4Net> {
    let nodes = around.informers.selecting::<Node>(&format!("metadata.name={}", config.name));
    let (found, mut waiting) = tokio::sync::watch::channel(None::<String>);
    nodes.on_change(move |change| {
        let cidr = change.object().spec.as_ref().and_then(|spec| spec.pod_cidr.clone()).filter(|cidr| !cidr.is_empty());
        if cidr.is_some() {
            found.send_replace(cidr);
        }
    });
    let cidr = waiting.wait_for(Option::is_some).await?.clone().unwrap_or_default();
    let key = ObjectKey::new("", config.name.as_str());
    cidr.parse().with_context(|| format!("the Node {key} has the Pod network {cidr:?}, which is no IPv4 network"))
}

/// The address by which this machine is reached from others: that of the interface with the default route.
pub fn own_address() -> IpAddr {
    // Nothing is sent: connecting a datagram socket only asks the kernel for the route.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("203.0.113.1:9")?;
        socket.local_addr()
    });
    probe.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// The name of this machine, as Nodes are named: in lower case.
pub fn own_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
