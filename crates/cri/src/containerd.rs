//! A containerd of our own: found on PATH, run with a generated configuration under one directory, restarted when it dies.
//!
//! It shares nothing with another containerd or Docker on the machine: root, state, socket, registry hosts and network
//! configuration lie in our directory. It runs in a process group of its own and is not killed with the agent, and containers are
//! children of their shims: neither `kill -9` of the agent nor of containerd ends a container. An agent that finds its
//! containerd still running, with the same configuration, takes it over.
//!
//! Relies on `runc` being on PATH beside containerd. It does not rotate containerd's log beyond starting it anew when large.

mod config;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use xebec_base::{Backoff, Chain, Shutdown};

use crate::{Error, Remote, Result, Runtime};
pub use config::Config;

/// containerd is ready in a fraction of a second; a busy machine with many containers to take up needs longer.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(15);
/// It stops within a second; past this it is killed, which it survives well.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The kernel's `sockaddr_un` holds 108 bytes with the closing zero.
const SOCKET_PATH_LIMIT: usize = 107;
const LOG_LIMIT: u64 = 8 << 20;
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running, supervised containerd.
pub struct Containerd {
    socket: PathBuf,
    remote: Remote,
    /// Set before containerd is stopped on purpose, so that the supervisor does not start it again.
    stopping: Arc<AtomicBool>,
}

impl Containerd {
    /// Returns once containerd answers CRI calls; then keeps it running until `shutdown`, which leaves it running.
    pub async fn start(config: Config, shutdown: Shutdown) -> Result<Containerd> {
        let place = Place::prepare(config)?;
        let remote = Remote::new(&place.socket.to_string_lossy());
        let changed = place.write_configuration().await?;
        if changed && let Some(pid) = listener(&place.socket).await {
            tracing::info!(pid, "restarting containerd: its configuration has changed");
            end(pid).await;
        }
        let process = place.take_up_or_spawn(&remote).await?;
        let stopping = Arc::new(AtomicBool::new(false));
        let containerd =
            Containerd { socket: place.socket.clone(), remote: remote.clone(), stopping: stopping.clone() };
        shutdown.spawn(supervise(place, process, remote, stopping));
        Ok(containerd)
    }

    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends containerd itself; its containers go on, and the next `start` takes them up.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(pid) = listener(&self.socket).await {
            end(pid).await;
        }
    }
}

/// Where things lie, and which program runs.
struct Place {
    config: Config,
    program: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    configuration: PathBuf,
}

/// The process behind the socket: our child, or one that an earlier agent left us.
enum Process {
    Child(Child),
    Foreign(i32),
}

impl Place {
    fn prepare(config: Config) -> Result<Place> {
        let directory = &config.directory;
        let socket = config.socket();
        // containerd derives a second socket's name from the first.
        let length = socket.as_os_str().len() + ".ttrpc".len();
        if length > SOCKET_PATH_LIMIT {
            return Err(Error::SocketPath { path: socket, length });
        }
        let program = match &config.program {
            Some(program) => program.clone(),
            None => find_on_path("containerd").ok_or_else(|| Error::NotOnPath("containerd".into()))?,
        };
        if find_on_path("runc").is_none() {
            return Err(Error::NotOnPath("runc".into()));
        }
        for path in [directory, &config.cni_conf_dir, &directory.join("certs.d")] {
            std::fs::create_dir_all(path).map_err(file("create directory", path))?;
        }
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711))
            .map_err(file("restrict", directory))?;
        let (log, configuration) = (directory.join("containerd.log"), directory.join("config.toml"));
        Ok(Place { program, socket, log, configuration, config })
    }

    /// Returns whether the file on disk said something else.
    async fn write_configuration(&self) -> Result<bool> {
        let version = version(&self.program).await?;
        let text = config::render(&self.config, &self.socket, version);
        if std::fs::read_to_string(&self.configuration).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        std::fs::write(&self.configuration, text).map_err(file("write", &self.configuration))?;
        Ok(true)
    }

    async fn take_up_or_spawn(&self, remote: &Remote) -> Result<Process> {
        let mut process = match listener(&self.socket).await {
            Some(pid) => Process::Foreign(pid),
            None => Process::Child(self.spawn()?),
        };
        let began = Instant::now();
        while began.elapsed() < START_LIMIT {
            if remote.status().await.is_ok() {
                return Ok(process);
            }
            let ended = match &mut process {
                Process::Child(child) => matches!(child.try_wait(), Ok(Some(_)) | Err(_)),
                Process::Foreign(_) => listener(&self.socket).await.is_none(),
            };
            if ended {
                process = Process::Child(self.spawn()?);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            tokio::time::sleep(POLL).await;
        }
        let (socket, log) = (self.socket.clone(), self.log.clone());
        Err(Error::NotAnswering { socket, seconds: START_LIMIT.as_secs(), log })
    }

    fn spawn(&self) -> Result<Child> {
        let log = open_log(&self.log).map_err(file("open log", &self.log))?;
        let errors = log.try_clone().map_err(file("open log", &self.log))?;
        let start = |source| Error::Start { program: self.program.clone(), source };
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(&self.configuration)
            .env("PATH", search_path(&self.program))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(start)?;
        tracing::debug!(pid = child.id(), program = %self.program.display(), "started containerd");
        Ok(child)
    }
}

/// Starts containerd again whenever it ends.
async fn supervise(place: Place, mut process: Process, remote: Remote, stopping: Arc<AtomicBool>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let began = Instant::now();
        match &mut process {
            Process::Child(child) => drop(child.wait().await),
            Process::Foreign(pid) => ended(*pid).await,
        }
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        tracing::warn!("containerd has ended; starting it again");
        if began.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        process = loop {
            tokio::time::sleep(backoff.next_delay()).await;
            match place.take_up_or_spawn(&remote).await {
                Ok(process) => break process,
                Err(error) => tracing::error!(error = %Chain(&error), "cannot start containerd"),
            }
        };
    }
}

/// Imports an image archive (docker or OCI layout in a tar file) for the CRI side, by `ctr`; returns what it printed.
///
/// CRI has no call for this: images come from registries there.
pub async fn import_images(socket: &Path, archive: &Path) -> Result<String> {
    let program = find_on_path("ctr").ok_or_else(|| Error::NotOnPath("ctr".into()))?;
    let start = |source| Error::Start { program: program.clone(), source };
    let output = Command::new(&program)
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(start)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Import { archive: archive.to_owned(), message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The process that listens on the socket: the kernel keeps its id with the connection.
async fn listener(socket: &Path) -> Option<i32> {
    UnixStream::connect(socket).await.ok()?.peer_cred().ok()?.pid()
}

/// Returns once the process has ended; at once where it does not exist.
async fn ended(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) else { return };
    // SAFETY: the descriptor is owned, and nothing closes or replaces it before the registration is dropped with it.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register(descriptor) };
    if let Ok(descriptor) = registered {
        let _ = descriptor.readable().await;
    }
}

async fn end(pid: i32) {
    let Some(id) = Pid::from_raw(pid) else { return };
    let _ = rustix::process::kill_process(id, Signal::TERM);
    if tokio::time::timeout(STOP_LIMIT, ended(pid)).await.is_err() {
        let _ = rustix::process::kill_process(id, Signal::KILL);
        ended(pid).await;
    }
}

/// The first two numbers of `containerd --version`.
async fn version(program: &Path) -> Result<(u32, u32)> {
    let start = |source| Error::Start { program: program.to_owned(), source };
    let output = Command::new(program).arg("--version").output().await.map_err(start)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    config::parse_version(&text)
        .ok_or_else(|| start(io::Error::new(io::ErrorKind::InvalidData, format!("its version reads {text:?}"))))
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::split_paths(&format!("{path}:{SYSTEM_PATH}"))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// containerd looks for its shim on PATH: the one beside the program comes first.
fn search_path(program: &Path) -> String {
    let own = program.parent().map(|directory| directory.to_string_lossy().into_owned()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    [own.as_str(), path.as_str(), SYSTEM_PATH]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(":")
}

fn open_log(path: &Path) -> io::Result<File> {
    let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_LIMIT);
    if large {
        std::fs::rename(path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}
