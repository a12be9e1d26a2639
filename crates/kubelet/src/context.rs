//! What every Pod of a node shares: the way to the API and to the runtime, the node's facts, the seams to the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use xebec_api::Quantity;
use xebec_base::{SharedClock, Shutdown};
use xebec_client::Client;
use xebec_cri::Runtime;
use xebec_runtime::{EventRecorder, Informer};

use crate::cgroup::PodCgroups;
use crate::config::Config;
use crate::dns::Resolvers;
use crate::env::downward::Facts;
use crate::image::Puller;
use crate::kernel::Kernel;
use crate::objects::Objects;

pub struct Context {
    pub config: Config,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    /// The scheme of container ids: `containerd`.
    pub runtime_name: String,
    pub puller: Puller,
    pub kernel: Arc<dyn Kernel>,
    pub cgroups: PodCgroups,
    pub clock: SharedClock,
    pub events: EventRecorder,
    pub objects: Objects,
    pub services: Informer<Service>,
    pub resolvers: Resolvers,
    /// In bytes.
    pub memory_capacity: i64,
    pub allocatable: BTreeMap<String, Quantity>,
    pub shutdown: Shutdown,
}

impl Context {
    pub fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    pub fn facts<'a>(&self, pod: &'a Pod, pod_ips: Vec<String>) -> Facts<'a> {
        Facts { pod, pod_ips, host_ips: self.host_ips(), allocatable: self.allocatable.clone() }
    }
}
