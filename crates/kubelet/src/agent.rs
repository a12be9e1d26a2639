//! The agent put together: the runtime, the informers, the Pods, the node's registration. Wiring only.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::Mutex;
use tokio::sync::Notify;
use xebec_api::ObjectKey;
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_client::Client;
use xebec_cri::containerd::Containerd;
use xebec_cri::{Images, Remote, Runtime};
use xebec_runtime::{Change, EventRecorder, Informer, Informers};

use crate::cgroup::{self, PodCgroups};
use crate::config::{Config, RuntimeSource};
use crate::context::Context;
use crate::dns::{self, Resolvers};
use crate::image::Puller;
use crate::image::collect::{Collector, Fullness, Round};
use crate::kernel::{Kernel, Linux};
use crate::log_rotation;
use crate::node::facts::Facts;
use crate::node::{Registration, keep_lease, keep_registered};
use crate::objects::{Changed, Objects};
use crate::pods::Pods;
use crate::server::NodeRuntime;

/// How often unused images are looked for.
const COLLECT_IMAGES: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("start the container runtime")]
    Runtime(#[source] xebec_cri::Error),
    #[error("ask the container runtime on {endpoint} for its version")]
    Version { endpoint: String, source: xebec_cri::Error },
    #[error("prepare the cgroups below {root}")]
    Cgroups { root: String, source: std::io::Error },
    #[error("create {path}")]
    Directory { path: PathBuf, source: std::io::Error },
}

/// A running agent; its tasks end with the shutdown signal, its containers do not.
pub struct Agent {
    context: Arc<Context>,
    pods: Arc<Pods>,
    assigned: Informer<Pod>,
    healthy: Arc<AtomicBool>,
    containerd: Option<Containerd>,
    look_now: Arc<Notify>,
}

/// Runs an agent until shutdown.
pub async fn run(config: Config, client: Client, clock: SharedClock, shutdown: Shutdown) -> Result<(), StartError> {
    let _agent = Agent::start(config, client, clock, shutdown.clone()).await?;
    shutdown.triggered().await;
    Ok(())
}

impl Agent {
    /// Returns once the runtime answers and the Pods are being looked after.
    pub async fn start(
        config: Config,
        client: Client,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Result<Agent, StartError> {
        for path in [&config.root_dir, &config.logs_dir, &config.root_dir.join("pods")] {
            std::fs::create_dir_all(path).map_err(|source| StartError::Directory { path: path.clone(), source })?;
        }
        let (containerd, remote) = runtime(&config, &shutdown).await?;
        let seams = Seams {
            containerd,
            runtime: Arc::new(remote.clone()),
            images: Arc::new(remote),
            kernel: Arc::new(Linux),
            hierarchy: cgroup::detect(),
        };
        Agent::over(seams, config, Surroundings { client, clock, shutdown }).await
    }

    /// The same over any runtime and kernel.
    pub async fn over(seams: Seams, config: Config, around: Surroundings) -> Result<Agent, StartError> {
        let Surroundings { client, clock, shutdown } = around;
        let client = client.named("kubelet");
        let endpoint = || format!("{:?}", config.runtime);
        let version =
            seams.runtime.version().await.map_err(|source| StartError::Version { endpoint: endpoint(), source })?;
        let facts = Facts::read(&config.root_dir);
        let cgroups = PodCgroups::new(seams.hierarchy, &config.cgroup_root);
        let root = || config.cgroup_root.clone();
        cgroups.prepare(i64::from(facts.cpus) * 1000).map_err(|source| StartError::Cgroups { root: root(), source })?;
        let events = EventRecorder::new(client.clone(), clock.clone(), &shutdown, "kubelet").on_host(&config.node_name);
        let informers = Informers::new(client.clone(), clock.clone(), shutdown.clone());
        // Objects tell the Pods of changes, and the Pods are made after them.
        let listener: Arc<Mutex<Option<Arc<Pods>>>> = Arc::default();
        let changed: Changed = {
            let listener = listener.clone();
            Arc::new(move |uids| {
                if let Some(pods) = &*listener.lock() {
                    pods.volumes_changed(uids);
                }
            })
        };
        let context = Arc::new(Context {
            runtime: seams.runtime.clone(),
            runtime_name: version.runtime_name,
            puller: Puller::new(seams.images.clone(), config.imported_images.clone(), clock.clone(), events.clone()),
            kernel: seams.kernel,
            cgroups,
            objects: Objects::new(client.clone(), clock.clone(), shutdown.clone(), changed),
            services: informers.of::<Service>(),
            resolvers: resolvers(&config),
            memory_capacity: facts.memory as i64,
            allocatable: facts.allocatable(&config),
            client: client.clone(),
            clock: clock.clone(),
            events: events.clone(),
            shutdown: shutdown.clone(),
            config: config.clone(),
        });
        let pods = Pods::new(context.clone());
        *listener.lock() = Some(pods.clone());
        let assigned = informers.selecting::<Pod>(&format!("spec.nodeName={}", config.node_name));
        let (healthy, look_now) = (Arc::new(AtomicBool::new(true)), Arc::<Notify>::default());
        let registration = Registration {
            config,
            client: client.clone(),
            runtime: seams.runtime,
            images: seams.images,
            facts,
            clock: clock.clone(),
            events,
            healthy: healthy.clone(),
            look_now: look_now.clone(),
        };
        let node = context.config.node_name.clone();
        shutdown.spawn(keep_registered(registration));
        shutdown.spawn(keep_lease(client, clock, node));
        shutdown.spawn(look_after(pods.clone(), assigned.clone(), context.clone()));
        shutdown.spawn(collect_images(context.clone()));
        let logs = context.config.logs_dir.clone();
        shutdown.spawn(log_rotation::keep_small(logs, context.runtime.clone(), context.clock.clone()));
        Ok(Agent { context, pods, assigned, healthy, containerd: seams.containerd, look_now })
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.context.runtime.clone()
    }

    pub fn images(&self) -> Arc<dyn Images> {
        self.context.puller.images().clone()
    }

    /// The containerd that the agent started, if it did.
    pub fn containerd(&self) -> Option<&Containerd> {
        self.containerd.as_ref()
    }

    /// Has the node's state told at once: the network has come up, say.
    pub fn look_now(&self) {
        self.look_now.notify_one();
    }
}

/// The way to the API, the time, and the end.
pub struct Surroundings {
    pub client: Client,
    pub clock: SharedClock,
    pub shutdown: Shutdown,
}

/// The places where an agent touches the machine.
pub struct Seams {
    /// The containerd behind `runtime`, where the agent has started it.
    pub containerd: Option<Containerd>,
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub kernel: Arc<dyn Kernel>,
    pub hierarchy: Arc<dyn cgroup::Hierarchy>,
}

async fn runtime(config: &Config, shutdown: &Shutdown) -> Result<(Option<Containerd>, Remote), StartError> {
    match &config.runtime {
        RuntimeSource::Endpoint(endpoint) => Ok((None, Remote::new(endpoint))),
        RuntimeSource::Own(own) => {
            let containerd = Containerd::start(own.clone(), shutdown.clone()).await.map_err(StartError::Runtime)?;
            let remote = containerd.remote();
            Ok((Some(containerd), remote))
        }
    }
}

fn resolvers(config: &Config) -> Resolvers {
    let mut host = dns::read(config.resolv_conf.as_deref());
    // A resolver on the node's loopback cannot be reached from a Pod's network.
    host.servers.retain(|server| !server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
    Resolvers { cluster: config.cluster_dns.clone(), domain: config.cluster_domain.clone(), host }
}

/// Hands the API's and the runtime's news to the Pods.
async fn look_after(pods: Arc<Pods>, assigned: Informer<Pod>, context: Arc<Context>) {
    let receiver = pods.clone();
    assigned.on_change(move |change| match change {
        Change::Applied { old, new } => {
            // A name that was given to another object: the old one is gone although nobody said so.
            if let Some(old) = old.filter(|old| old.metadata.uid != new.metadata.uid) {
                receiver.assign(old, true);
            }
            receiver.assign(new, false);
        }
        Change::Deleted(old) => receiver.assign(old, true),
    });
    // What the runtime holds is judged only when it is known what it should hold.
    assigned.synced().await;
    let mut events = context.runtime.watch();
    while let Some(event) = events.recv().await {
        pods.runtime_event(event).await;
    }
}

async fn collect_images(context: Arc<Context>) {
    let mut collector = Collector::default();
    loop {
        context.clock.sleep(COLLECT_IMAGES).await;
        let Ok(fullness) = Fullness::of(&context.config.root_dir) else { continue };
        let images = context.puller.images();
        let sandbox_image = match &context.config.runtime {
            RuntimeSource::Own(own) => Some(own.pause_image.as_str()),
            RuntimeSource::Endpoint(_) => None,
        };
        let round = Round {
            images: &**images,
            runtime: &*context.runtime,
            imported: &context.config.imported_images,
            sandbox_image,
            fullness,
            now: context.clock.now(),
        };
        match collector.collect(round).await {
            Ok(removed) if !removed.is_empty() => tracing::info!(count = removed.len(), "removed unused images"),
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot look for unused images"),
        }
    }
}

impl NodeRuntime for Agent {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.assigned.list().iter().map(|pod| self.pods.newest(pod)).collect()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.assigned.get(&ObjectKey::new(namespace, name)).map(|pod| self.pods.newest(&pod))
    }

    fn health(&self) -> Result<(), String> {
        let healthy = self.healthy.load(Ordering::Relaxed);
        if healthy { Ok(()) } else { Err("the container runtime does not answer".into()) }
    }

    fn metrics(&self) -> String {
        let (pods, containers) = self.pods.running();
        format!(
            "# HELP kubelet_running_pods Number of pods that have a running container\n\
             # TYPE kubelet_running_pods gauge\n\
             kubelet_running_pods {pods}\n\
             # HELP kubelet_running_containers Number of containers currently running\n\
             # TYPE kubelet_running_containers gauge\n\
             kubelet_running_containers{{container_state=\"running\"}} {containers}\n"
        )
    }
}
