//! The control plane in this process: store, API server, controllers, scheduler, and the certificates that hold them together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use xebec_apiserver::metrics::{MeasuredStore, StoreMetrics};
use xebec_apiserver::registry::RegistryConfig;
use xebec_apiserver::{
    ApiServer, Listener, Registry, ServerParts, ServerState, User, admission, allocator, authn, authz, bootstrap,
    resources,
};
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_client::Client;
use xebec_pki::{Authority, ClientTrust, Identity, Profile, RotatingIdentity, ServiceAccountKey};
use xebec_runtime::{EventRecorder, Informers};
use xebec_store::{Embedded, EmbeddedOptions, Store};

use crate::access::options::AccessOptions;
use crate::access::{self, Reloads};
use crate::commands::agent::serving_profile;
use crate::data_dir::DataDir;
use crate::in_process::InProcess;
use crate::kubeconfig::Kubeconfig;
use crate::node::{self, ClusterNet, Surroundings};

/// Between looks at the certificates' ends; they are renewed when a third of their life is left.
const ROTATION_CHECK: Duration = Duration::from_secs(12 * 60 * 60);

/// The file of the certificate that the node in this process serves with.
const KUBELET_SERVER: &str = "kubelet-server";

pub struct Config {
    pub data: DataDir,
    pub bind_address: IpAddr,
    pub advertise_address: Option<IpAddr>,
    pub secure_port: u16,
    pub access: AccessOptions,
    pub controllers: bool,
    pub scheduler: bool,
    pub net: ClusterNet,
}

impl Config {
    /// The address that clients on other machines and in Pods are told.
    fn advertised(&self) -> IpAddr {
        let bound = Some(self.bind_address).filter(|address| !address.is_unspecified());
        self.advertise_address.or(bound).unwrap_or_else(node::own_address)
    }

    /// The address that clients on this machine use.
    fn local(&self) -> IpAddr {
        if self.bind_address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.bind_address }
    }
}

/// A running control plane.
pub struct ControlPlane {
    pub kubeconfig: PathBuf,
    pub server: ApiServer,
    store: Arc<dyn Store>,
    authority: Arc<Authority>,
    clock: SharedClock,
    shutdown: Shutdown,
    informers: Informers,
}

/// The keys and certificates of one control plane.
struct Credentials {
    authority: Authority,
    server: Identity,
    admin: Identity,
    /// Shown to nodes by the API server.
    node_client: Identity,
    service_accounts: ServiceAccountKey,
}

impl Credentials {
    fn load(config: &Config, clock: &SharedClock) -> anyhow::Result<Self> {
        let folder = config.data.pki();
        let authority = Authority::load_or_create(&folder, "ca", clock.clone())?;
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        let qualified = format!("kubernetes.default.svc.{}", config.net.domain);
        let names = names.into_iter().chain([qualified, node::own_name()]);
        let mut addresses = vec![config.local(), config.advertised(), IpAddr::V4(config.net.api_service())];
        addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        addresses.sort();
        addresses.dedup();
        let server =
            authority.load_or_issue(&folder, "apiserver", &Profile::server("kube-apiserver", names, addresses))?;
        let admin =
            authority.load_or_issue(&folder, "admin", &Profile::client("kubernetes-admin", ["system:masters"]))?;
        let node_client = Profile::client("kube-apiserver-kubelet-client", ["system:masters"]);
        let node_client = authority.load_or_issue(&folder, "apiserver-kubelet-client", &node_client)?;
        let service_accounts = ServiceAccountKey::load_or_create(&folder, "service-accounts")?;
        Ok(Credentials { authority, server, admin, node_client, service_accounts })
    }

    /// The administrator's way in.
    fn write_kubeconfig(&self, config: &Config, port: u16) -> anyhow::Result<PathBuf> {
        let kubeconfig = config.data.admin_kubeconfig();
        Kubeconfig {
            server: &format!("https://{}", SocketAddr::new(config.local(), port)),
            authority: &self.authority.pem(),
            certificate: &self.admin.certificate_pem,
            key: &self.admin.key_pem,
        }
        .write(&kubeconfig)?;
        Ok(kubeconfig)
    }
}

/// Identities in use, which are exchanged before they end.
struct InUse {
    /// `None` where the operator brings the certificate.
    server: Option<Arc<RotatingIdentity>>,
    node_client: Arc<RotatingIdentity>,
    port: u16,
}

impl ControlPlane {
    /// Returns once requests are answered.
    pub async fn start(config: Config, clock: SharedClock, shutdown: Shutdown) -> anyhow::Result<Self> {
        let mut reloads = Reloads::default();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(EmbeddedOptions::new(config.data.store()))?);
        let store_metrics = StoreMetrics::default();
        let store: Arc<dyn Store> = Arc::new(MeasuredStore::new(store, &store_metrics, &resources::rows()));
        let store = access::encrypted(store, &config.access, &mut reloads)?;
        let credentials = Credentials::load(&config, &clock)?;
        let rotating = access::serving(&config.access, &credentials.server, &mut reloads)?;
        let trust = access::client_trust(&config.access, credentials.authority.pem(), &clock, &mut reloads)?;
        let node_client = RotatingIdentity::new(&credentials.node_client)?;
        let tls = Arc::new(xebec_pki::server_config(rotating.clone(), Some(&trust))?);

        let ranges = allocator::Ranges { cluster_ips: config.net.services, ..allocator::Ranges::default() };
        let registry = Registry::load(
            RegistryConfig {
                store: store.clone(),
                rows: resources::rows(),
                plugins: admission::Plugins::standard(),
                service_ranges: ranges,
                clock: clock.clone(),
            },
            &shutdown,
        )
        .await?;
        let making = Making { config: &config, credentials: &credentials, trust: &trust, node_client: &node_client };
        let state = making.server_state(registry.clone(), store_metrics, &mut reloads)?;
        let address = SocketAddr::new(config.bind_address, config.secure_port);
        let listener = Listener::bind(address, Some(tls), state.clone()).await.with_context(|| {
            format!("cannot serve on {address}: choose another address or port with --bind-address and --secure-port")
        })?;
        let port = listener.local_address()?.port();
        bootstrap::run(&registry, SocketAddr::new(config.advertised(), port)).await?;
        access::publish_trust(&config.access, credentials.authority.pem(), &registry, &mut reloads).await?;
        if let Some(aggregation) = bootstrap::Aggregation::of(&registry) {
            shutdown.spawn(aggregation.run());
        }
        state.ready.store(true, Ordering::Release);
        shutdown.spawn_draining(listener.run(shutdown.clone()));

        let kubeconfig = credentials.write_kubeconfig(&config, port)?;
        reloads.start(clock.clone(), &shutdown);
        let server = ApiServer { state };
        let client = Client::new(InProcess::new(server.clone(), User::master("system:kube-controller-manager")));
        let informers = Informers::new(client.clone(), clock.clone(), shutdown.clone());
        let plane = ControlPlane {
            kubeconfig,
            server,
            store,
            authority: Arc::new(credentials.authority),
            clock,
            shutdown,
            informers,
        };
        plane.start_components(&config, client);
        let own = config.access.tls_cert_file.is_none().then_some(rotating);
        plane.keep_certificates_fresh(config, InUse { server: own, node_client, port });
        Ok(plane)
    }

    /// Controllers and scheduler start in the background: the server answers before they have looked at everything.
    fn start_components(&self, config: &Config, client: Client) {
        let context = xebec_runtime::Context {
            events: EventRecorder::new(client.clone(), self.clock.clone(), &self.shutdown, "xebec"),
            client,
            informers: self.informers.clone(),
            clock: self.clock.clone(),
            shutdown: self.shutdown.clone(),
        };
        if config.scheduler {
            self.shutdown.spawn(xebec_scheduler::run(context.clone()));
        }
        if config.controllers {
            let told = xebec_controllers::Config { root_ca: self.authority.pem(), cluster_cidr: config.net.pods };
            self.shutdown.spawn(async move { xebec_controllers::run(&context, &told).await });
        }
    }

    /// Renews the server's own certificates while it runs, and the administrator's with its kubeconfig.
    fn keep_certificates_fresh(&self, config: Config, in_use: InUse) {
        let clock = self.clock.clone();
        self.shutdown.spawn(async move {
            let mut admin = None;
            loop {
                clock.sleep(ROTATION_CHECK).await;
                let renewed = Credentials::load(&config, &clock).and_then(|credentials| {
                    if let Some(server) = &in_use.server {
                        server.replace(&credentials.server)?;
                    }
                    in_use.node_client.replace(&credentials.node_client)?;
                    // Written only when it says something else: someone may have it open.
                    let certificate = Some(credentials.admin.certificate_pem.clone());
                    if admin != certificate {
                        credentials.write_kubeconfig(&config, in_use.port)?;
                        admin = certificate;
                    }
                    Ok(())
                });
                if let Err(error) = renewed {
                    tracing::error!(error = %Chain(&*error), "cannot renew the server's certificates");
                }
            }
        });
    }

    /// What a node in this process shares with the control plane.
    pub fn node(&self, config: &node::Config) -> anyhow::Result<Surroundings> {
        let (folder, profile) = (config.data.pki(), serving_profile(config));
        let identity = self.authority.load_or_issue(&folder, KUBELET_SERVER, &profile)?;
        let rotating = RotatingIdentity::new(&identity)?;
        let trust = ClientTrust::new(&self.authority.pem(), self.clock.clone())?;
        let tls = Arc::new(xebec_pki::server_config(rotating.clone(), Some(&trust))?);
        let (authority, clock) = (self.authority.clone(), self.clock.clone());
        self.shutdown.spawn(async move {
            loop {
                clock.sleep(ROTATION_CHECK).await;
                let renewed = authority.load_or_issue(&folder, KUBELET_SERVER, &profile);
                if let Err(error) = renewed.and_then(|identity| rotating.replace(&identity)) {
                    tracing::error!(error = %Chain(&error), "cannot renew the kubelet's serving certificate");
                }
            }
        });
        let user = User::new(
            format!("system:node:{}", config.name),
            &["system:nodes", authn::GROUP_MASTERS, authn::GROUP_AUTHENTICATED],
        );
        Ok(Surroundings {
            client: Client::new(InProcess::new(self.server.clone(), user)),
            informers: self.informers.clone(),
            clock: self.clock.clone(),
            shutdown: self.shutdown.clone(),
            tls,
            trust,
        })
    }

    /// Writes down what is still in memory only. Call it when everything else has ended.
    pub async fn close(&self) {
        if let Err(error) = self.store.close().await {
            tracing::error!(error = %Chain(&error), "cannot close the store");
        }
    }
}

/// What the server's state is made of.
struct Making<'a> {
    config: &'a Config,
    credentials: &'a Credentials,
    trust: &'a ClientTrust,
    node_client: &'a Arc<RotatingIdentity>,
}

impl Making<'_> {
    fn server_state(
        &self,
        registry: Arc<Registry>,
        store_metrics: StoreMetrics,
        reloads: &mut Reloads,
    ) -> anyhow::Result<Arc<ServerState>> {
        let Making { config, credentials, trust, node_client } = *self;
        let options = &config.access;
        let advertised = SocketAddr::new(config.advertised(), config.secure_port).to_string();
        let settings = access::token_settings(options, &advertised, &config.net.domain);
        let (own_key, clock) = (&credentials.service_accounts, &registry.clock);
        let parts = access::Parts { registry: &registry, trust, own_key, settings, clock };
        let proofs = access::authentication(options, parts, reloads)?;
        let policies: Vec<Arc<dyn authz::Authorizer>> = vec![
            Arc::new(authz::Masters),
            Arc::new(authz::node::Node::new(registry.clone())),
            Arc::new(authz::rbac::Rbac::new(registry.clone())),
        ];
        let mut node_tls = xebec_pki::client_config(&credentials.authority.pem(), Some(node_client.clone()))?;
        // Streams are upgraded connections, which HTTP/2 has not.
        node_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let parts = ServerParts {
            authenticator: proofs.authenticator,
            authorizer: Arc::new(authz::Union(policies)),
            token_issuer: Some(proofs.accounts),
            audit: access::audit(&options.audit, &registry.clock)?,
            anonymous: proofs.anonymous,
            limits: access::limits(options),
            store_metrics: Some(store_metrics),
            node_tls: Some(Arc::new(node_tls)),
            advertised,
        };
        let state = ServerState::new(registry, parts);
        // The controllers' queues are this process's too.
        state.metrics.add_source(Box::new(xebec_runtime::queue_metrics::write));
        Ok(state)
    }
}
