//! An agent by itself against any API server: `agent KUBECONFIG NAME DIRECTORY`.

use std::path::Path;

use xebec_base::{Shutdown, SystemClock};
use xebec_client::Client;
use xebec_client::https::Https;
use xebec_kubelet::server::{Attributes, AuthError, Authority, Credentials, NodeServer};
use xebec_kubelet::{Agent, Config, RuntimeSource};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

struct Anyone;
#[async_trait::async_trait]
impl Authority for Anyone {
    async fn authenticate(&self, _: Credentials<'_>) -> Result<Option<k8s_openapi::api::authentication::v1::UserInfo>, AuthError> {
        Ok(Some(Default::default()))
    }
    async fn authorize(&self, _: &k8s_openapi::api::authentication::v1::UserInfo, _: &Attributes) -> Result<bool, AuthError> {
        Ok(true)
    }
    fn node_name(&self) -> &str {
        "kt1"
    }
}

#[tokio::main]
async fn main() {
    xebec_base::telemetry::init("info,xebec_kubelet=debug,xebec_cri=debug");
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("KUBECONFIG NAME DIRECTORY");
    let (kubeconfig, name, directory) = (next(), next(), next());
    let directory = Path::new(&directory).to_owned();
    let client = Client::new(Https::from_file(Path::new(&kubeconfig), None).await.unwrap());
    let runtime = RuntimeSource::Own(xebec_cri::containerd::Config {
        directory: directory.join("containerd"),
        program: std::env::var_os("CONTAINERD").map(Into::into),
        pause_image: "registry.k8s.io/pause:3.10.2".into(),
        cni_bin_dir: "/usr/lib/cni".into(),
        cni_conf_dir: directory.join("cni"),
        restrict_oom_score_adj: true,
    });
    let mut config = Config::new(name, vec!["10.78.0.1".parse().unwrap()], directory.join("kubelet"), runtime);
    config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
    config.cgroup_root = "/xkt".into();
    config.port = 20250;
    let shutdown = Shutdown::new();
    let agent = Agent::start(config, client, SystemClock::shared(), shutdown.clone()).await.unwrap();
    for archive in std::env::var("IMAGES").unwrap_or_default().split(',').filter(|it| !it.is_empty()) {
        let socket = agent.containerd().unwrap().socket();
        println!("{}", xebec_cri::containerd::import_images(socket, Path::new(archive)).await.unwrap());
    }
    let agent = std::sync::Arc::new(agent);
    let pki = std::env::var("PKI").unwrap();
    let chain: Vec<_> = CertificateDer::pem_file_iter(format!("{pki}/api.crt")).unwrap().map(|it| it.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(format!("{pki}/api.key")).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let server = NodeServer { node: agent.clone(), containers: agent.runtime(), authority: std::sync::Arc::new(Anyone), clock: SystemClock::shared(), shutdown: shutdown.clone() };
    let listener = tokio::net::TcpListener::bind("0.0.0.0:20250").await.unwrap();
    shutdown.spawn(server.serve(listener, std::sync::Arc::new(tls)));
    tokio::signal::ctrl_c().await.unwrap();
    shutdown.trigger();
    shutdown.drain().await;
}
