//! What is measured: our server, or upstream's API server and etcd (with its controllers and scheduler where a phase wants
//! the whole control plane), each started on an empty folder on loopback, with TLS and RBAC on.
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use xebec_e2e::{Api, Process, TOKEN, Usage, capture, free_port};

const READY: Duration = Duration::from_secs(60);
/// Between two tries to reach a server that is starting.
const PAUSE: Duration = Duration::from_millis(2);

pub enum Target {
    Xebec(PathBuf),
    /// The folder of upstream's programs.
    Upstream(PathBuf),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// API and store alone.
    Api,
    /// Controllers and scheduler too.
    All,
}

/// Servers that run; they are killed when dropped.
pub struct Running {
    pub address: SocketAddr,
    /// From the start of the first program until `/readyz` said ok.
    pub started: Duration,
    /// Processor time used until then, in seconds.
    pub start_cpu: f64,
    processes: Vec<Process>,
    // Removed after the processes are gone.
    _folder: TempDir,
}

impl Target {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Xebec(_) => "Xebec",
            Self::Upstream(_) => "upstream",
        }
    }

    pub async fn start(&self, parts: Parts) -> Result<Running> {
        let folder = tempfile::Builder::new().prefix("xebec-bench-").tempdir()?;
        std::fs::write(folder.path().join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let commands = match self {
            Self::Xebec(binary) => vec![server(binary, folder.path(), port, parts)],
            Self::Upstream(programs) => upstream(programs, folder.path(), port)?,
        };
        let began = Instant::now();
        let mut processes = Vec::new();
        for (name, mut command) in commands {
            processes.push(Process::start(&mut command, &folder.path().join(format!("{name}.log")))?);
        }
        if let Err(error) = ready(address, &mut processes).await {
            bail!("{error:#}\n{}", logs(folder.path()));
        }
        let started = began.elapsed();
        let start_cpu = Usage::of_all(processes.iter().map(Process::id))?.cpu;
        if let (Self::Upstream(programs), Parts::All) = (self, parts) {
            for (name, mut command) in loops(programs, folder.path(), port)? {
                processes.push(Process::start(&mut command, &folder.path().join(format!("{name}.log")))?);
            }
        }
        Ok(Running { address, started, start_cpu, processes, _folder: folder })
    }
}

impl Running {
    /// What all processes use together.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of_all(self.processes.iter().map(Process::id))
    }

    pub async fn connect(&self) -> Result<Api> {
        Api::connect(self.address, TOKEN).await
    }
}

async fn ready(address: SocketAddr, processes: &mut [Process]) -> Result<()> {
    let began = Instant::now();
    loop {
        if let Ok(mut api) = Api::connect(address, TOKEN).await
            && let Ok(answer) = api.get("/readyz").await
            && answer.status.is_success()
        {
            return Ok(());
        }
        for process in &mut *processes {
            ensure!(!process.has_ended()?, "a server has ended");
        }
        ensure!(began.elapsed() < READY, "no server was ready within {READY:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn server(binary: &Path, folder: &Path, port: u16, parts: Parts) -> (&'static str, Command) {
    let mut command = Command::new(binary);
    command.arg("server").arg("--data-dir").arg(folder.join("data")).args(["--bind-address", "127.0.0.1"]);
    command.args(["--secure-port", &port.to_string()]).arg("--token-auth-file").arg(folder.join("tokens.csv"));
    if parts == Parts::Api {
        command.args(["--disable", "controllers,scheduler"]);
    }
    ("xebec", command)
}

fn upstream(programs: &Path, folder: &Path, port: u16) -> Result<Vec<(&'static str, Command)>> {
    let key = folder.join("sa.key");
    let public = folder.join("sa.pub");
    capture(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?.success()?;
    capture(Command::new("openssl").args(["rsa", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))?.success()?;
    let (client, peer) = (free_port()?, free_port()?);
    let at = |port: u16| format!("http://127.0.0.1:{port}");
    let mut etcd = Command::new(programs.join("etcd"));
    etcd.arg("--data-dir").arg(folder.join("etcd"));
    for (flag, port) in [
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
    ] {
        etcd.args([flag, &at(port)]);
    }
    etcd.args(["--initial-cluster", &format!("default={}", at(peer))]);
    let mut api = Command::new(programs.join("kube-apiserver"));
    api.arg(format!("--etcd-servers={}", at(client))).arg(format!("--secure-port={port}"));
    api.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]);
    api.args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"]);
    api.arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local");
    for (flag, file) in [
        ("service-account-key-file", &public),
        ("service-account-signing-key-file", &key),
        ("token-auth-file", &folder.join("tokens.csv")),
        ("cert-dir", &folder.join("certs")),
    ] {
        api.arg(format!("--{flag}={}", file.display()));
    }
    Ok(vec![("etcd", etcd), ("kube-apiserver", api)])
}

fn loops(programs: &Path, folder: &Path, port: u16) -> Result<Vec<(&'static str, Command)>> {
    let kubeconfig = folder.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{port}\", \
         insecure-skip-tls-verify: true}}}}]\nusers: [{{name: u, user: {{token: {TOKEN}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
    );
    std::fs::write(&kubeconfig, text).context("writing the kubeconfig")?;
    let mut commands = Vec::new();
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let mut command = Command::new(programs.join(name));
        command.arg(format!("--kubeconfig={}", kubeconfig.display())).arg("--leader-elect=false");
        // As shipped they wait for their own limits on calls most of the time.
        command.args(["--kube-api-qps=5000", "--kube-api-burst=5000"]);
        command.args(["--bind-address=127.0.0.1", &format!("--secure-port={}", free_port()?)]);
        if name == "kube-controller-manager" {
            command.arg(format!("--service-account-private-key-file={}", folder.join("sa.key").display()));
        }
        // They write certificates of their own into the folder they are started in.
        command.current_dir(folder);
        commands.push((name, command));
    }
    Ok(commands)
}

/// The last lines of every log in `folder`.
fn logs(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            text += &format!("{}:\n{}\n", entry.path().display(), lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }
    text
}
