//! The control plane in this process: store, API server, controllers, scheduler, and the certificates that hold them together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use xebec_apiserver::flow_control::FlowControl;
use xebec_apiserver::handlers::Documents;
use xebec_apiserver::metrics::Metrics;
use xebec_apiserver::registry::RegistryConfig;
use xebec_apiserver::{
    ApiServer, Listener, Registry, ServerState, User, admission, allocator, authn, authz, bootstrap, resources,
};
use xebec_base::{Chain, SharedClock, Shutdown};
use xebec_client::Client;
use xebec_pki::{Authority, ClientTrust, Identity, Profile, RotatingIdentity, ServiceAccountKey};
use xebec_runtime::{EventRecorder, Informers};
use xebec_store::{Embedded, EmbeddedOptions, Store};

use crate::commands::agent::serving_profile;
use crate::data_dir::DataDir;
use crate::in_process::InProcess;
use crate::kubeconfig::Kubeconfig;
use crate::node::{self, ClusterNet, Surroundings};

/// Between looks at the certificates' ends; they are renewed when a third of their life is left.
const ROTATION_CHECK: Duration = Duration::from_secs(12 * 60 * 60);

pub struct Config {
    pub data: DataDir,
    pub bind_address: IpAddr,
    pub advertise_address: Option<IpAddr>,
    pub secure_port: u16,
    pub token_auth_file: Option<PathBuf>,
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
    trust: ClientTrust,
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
        let trust = ClientTrust::new(&authority.pem(), clock.clone())?;
        Ok(Credentials { authority, trust, server, admin, node_client, service_accounts })
    }
}

impl ControlPlane {
    /// Returns once requests are answered.
    pub async fn start(config: Config, clock: SharedClock, shutdown: Shutdown) -> anyhow::Result<Self> {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(EmbeddedOptions::new(config.data.store()))?);
        let credentials = Credentials::load(&config, &clock)?;
        let rotating = RotatingIdentity::new(&credentials.server)?;
        let tls = Arc::new(xebec_pki::server_config(rotating.clone(), Some(&credentials.trust))?);

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
        let state = server_state(&config, &credentials, registry.clone())?;
        let address = SocketAddr::new(config.bind_address, config.secure_port);
        let listener = Listener::bind(address, Some(tls), state.clone()).await.with_context(|| {
            format!("cannot serve on {address}: choose another address or port with --bind-address and --secure-port")
        })?;
        let port = listener.local_address()?.port();
        bootstrap::run(&registry, SocketAddr::new(config.advertised(), port)).await?;
        if let Some(aggregation) = bootstrap::Aggregation::of(&registry) {
            shutdown.spawn(aggregation.run());
        }
        state.ready.store(true, Ordering::Release);
        shutdown.spawn_draining(listener.run(shutdown.clone()));

        let kubeconfig = config.data.admin_kubeconfig();
        Kubeconfig {
            server: &format!("https://{}", SocketAddr::new(config.local(), port)),
            authority: &credentials.authority.pem(),
            certificate: &credentials.admin.certificate_pem,
            key: &credentials.admin.key_pem,
        }
        .write(&kubeconfig)?;

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
        plane.keep_certificate_fresh(config, rotating);
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

    /// Renews the serving certificate while the server runs.
    fn keep_certificate_fresh(&self, config: Config, rotating: Arc<RotatingIdentity>) {
        let clock = self.clock.clone();
        self.shutdown.spawn(async move {
            loop {
                clock.sleep(ROTATION_CHECK).await;
                let renewed = Credentials::load(&config, &clock)
                    .and_then(|credentials| Ok(rotating.replace(&credentials.server)?));
                if let Err(error) = renewed {
                    tracing::error!(error = %Chain(&*error), "cannot renew the serving certificate");
                }
            }
        });
    }

    /// What a node in this process shares with the control plane.
    pub fn node(&self, config: &node::Config) -> anyhow::Result<Surroundings> {
        let folder = config.data.pki();
        let identity = self.authority.load_or_issue(&folder, "kubelet-server", &serving_profile(config))?;
        let trust = ClientTrust::new(&self.authority.pem(), self.clock.clone())?;
        let tls = Arc::new(xebec_pki::server_config(RotatingIdentity::new(&identity)?, Some(&trust))?);
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

fn server_state(
    config: &Config,
    credentials: &Credentials,
    registry: Arc<Registry>,
) -> anyhow::Result<Arc<ServerState>> {
    let advertised = SocketAddr::new(config.advertised(), config.secure_port).to_string();
    let settings = authn::TokenSettings {
        issuer: format!("https://kubernetes.default.svc.{}", config.net.domain),
        audiences: vec![format!("https://kubernetes.default.svc.{}", config.net.domain)],
        ..authn::TokenSettings::default_for(&advertised)
    };
    let audiences = settings.audiences.clone();
    let accounts = Arc::new(authn::ServiceAccounts::new(registry.clone(), &credentials.service_accounts, settings)?);
    let mut ways: Vec<Arc<dyn authn::Authenticator>> =
        vec![Arc::new(authn::Certificates::new(credentials.trust.clone())), accounts.clone()];
    if let Some(path) = &config.token_auth_file {
        ways.push(Arc::new(authn::TokenFile::read(path, audiences)?));
    }
    let policies: Vec<Arc<dyn authz::Authorizer>> = vec![
        Arc::new(authz::Masters),
        Arc::new(authz::node::Node::new(registry.clone())),
        Arc::new(authz::rbac::Rbac::new(registry.clone())),
    ];
    let node_identity = RotatingIdentity::new(&credentials.node_client)?;
    let mut node_tls = xebec_pki::client_config(&credentials.authority.pem(), Some(node_identity))?;
    // Streams are upgraded connections, which HTTP/2 has not.
    node_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(ServerState {
        metrics: Metrics::new(&registry),
        registry,
        authenticator: Arc::new(authn::Union(ways)),
        authorizer: Arc::new(authz::Union(policies)),
        token_issuer: Some(accounts),
        audit: None,
        node_tls: Some(Arc::new(node_tls)),
        advertised,
        flow_control: FlowControl::default(),
        documents: Documents::default(),
        ready: AtomicBool::new(false),
        ending: AtomicBool::new(false),
    }))
}
