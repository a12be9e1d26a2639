//! What an agent is told about its node and its surroundings. Pure data: nothing here looks at the machine.

use std::net::IpAddr;
use std::path::PathBuf;

/// Where the container runtime comes from.
#[derive(Clone, Debug)]
pub enum RuntimeSource {
    /// A containerd that the agent starts and supervises.
    Own(xebec_cri::containerd::Config),
    /// The unix socket of a running CRI v1 runtime.
    Endpoint(String),
}

/// How one agent is set up.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// The addresses of the node, the preferred one first; at most one of each family.
    pub node_ips: Vec<IpAddr>,
    /// Pod directories lie in `root_dir/pods`.
    pub root_dir: PathBuf,
    /// Container logs; upstream's is `/var/log/pods`.
    pub logs_dir: PathBuf,
    pub runtime: RuntimeSource,
    pub cluster_dns: Vec<IpAddr>,
    /// Without a dot at either end: `cluster.local`.
    pub cluster_domain: String,
    /// The cgroup below which the Pods' cgroups lie, from the root of the hierarchy: `/xebec` makes `/xebec/kubepods`.
    pub cgroup_root: String,
    pub max_pods: u32,
    /// The resolver configuration that Pods of the policy `Default` inherit; `None` for an empty one.
    pub resolv_conf: Option<PathBuf>,
    /// The port of the node's HTTPS server, told in the Node's status.
    pub port: u16,
    /// Further labels and taints of a node that registers itself.
    pub labels: Vec<(String, String)>,
    pub taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// Where the names of images stand that were loaded by hand.
    pub imported_images: crate::image::imported::Record,
    /// Held back from what Pods may request, in bytes.
    pub reserved_memory: u64,
}

impl Config {
    /// Everything that has a usual value; the node's name, addresses and runtime have none.
    pub fn new(
        node_name: impl Into<String>,
        node_ips: Vec<IpAddr>,
        root_dir: PathBuf,
        runtime: RuntimeSource,
    ) -> Config {
        Config {
            node_name: node_name.into(),
            node_ips,
            logs_dir: root_dir.join("logs"),
            root_dir,
            runtime,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            cgroup_root: "/xebec".to_owned(),
            max_pods: 110,
            resolv_conf: Some("/etc/resolv.conf".into()),
            port: 10250,
            labels: Vec::new(),
            taints: Vec::new(),
            imported_images: Default::default(),
            reserved_memory: 100 << 20,
        }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }
}
