//! `down`: stops what `up` or `agent` started and removes what it made in the kernel: processes, mounts, network namespaces,
//! links, routes, rules, cgroups. The data (objects, images) stays unless `--purge` is given.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xebec_base::{Chain, Shutdown};
use xebec_cri::Runtime;
use xebec_cri::containerd::Containerd;
use xebec_netfilter::Nft;

use crate::cgroup_claim::{Claim, MOUNT};
use crate::data_dir::{self, DataDir};
use crate::node;

/// How long the agent is given to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks whether a process is gone.
const POLL: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub struct Options {
    /// The data directory of 'up' or 'agent'
    #[arg(long, default_value = data_dir::DEFAULT, value_name = "DIR")]
    data_dir: PathBuf,
    /// Remove the data directory too: all objects and images
    #[arg(long)]
    purge: bool,
}

pub async fn run(options: Options) -> anyhow::Result<i32> {
    let data = DataDir::new(&options.data_dir);
    stop_agent(&data).await?;
    if let Some(config) = node::Config::recorded(&data)? {
        // Whoever uses the cgroups at this moment is another node: what lies there is not ours to end.
        let _claim = Claim::take(&config.cgroup_root)?;
        if config.runtime_endpoint.is_none() {
            stop_containers(&config).await;
            end_shims(&config).await;
        }
        sweep_cgroups(&config.cgroup_root).await?;
        remove_network(&config).await?;
        unmount_below(data.root())?;
        absent(&data.node_record())?;
    }
    unmount_below(data.root())?;
    if options.purge {
        match std::fs::remove_dir_all(data.root()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", data.root().display()));
            }
            _ => {}
        }
    }
    Ok(0)
}

/// Ends the process that the pid file names, if it is one of ours.
async fn stop_agent(data: &DataDir) -> anyhow::Result<()> {
    let path = data.pid_file();
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let number: i32 = text.trim().parse().with_context(|| format!("{} holds no process number", path.display()))?;
    let ours = std::fs::read_link(format!("/proc/{number}/exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xebec")));
    if ours {
        end_process(number).await?;
    }
    absent(&path)
}

async fn end_process(number: i32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(number);
    for (signal, patience) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, PATIENCE)] {
        if kill(pid, signal).is_err() {
            return Ok(());
        }
        let began = Instant::now();
        while began.elapsed() < patience {
            if kill(pid, None).is_err() || is_zombie(number) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    anyhow::bail!("the process {number} does not end")
}

fn is_zombie(number: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Removes every sandbox through the runtime, which knows best what belongs to it; what resists is swept up afterwards.
async fn stop_containers(config: &node::Config) {
    let shutdown = Shutdown::new();
    let containerd = match Containerd::start(config.containerd(), shutdown.clone()).await {
        Ok(containerd) => containerd,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot reach containerd; its containers are ended one by one");
            return;
        }
    };
    let runtime = containerd.remote();

    match runtime.list_pod_sandboxes(Default::default()).await {
        Ok(sandboxes) => {
            let removals = sandboxes.iter().map(|sandbox| async {
                if let Err(error) = runtime.stop_pod_sandbox(&sandbox.id).await {
                    tracing::warn!(error = %Chain(&error), "cannot stop a sandbox");
                }
                if let Err(error) = runtime.remove_pod_sandbox(&sandbox.id).await {
                    tracing::warn!(error = %Chain(&error), "cannot remove a sandbox");
                }
            });
            join_all(removals).await;
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "cannot list the sandboxes"),
    }
    containerd.stop().await;
    shutdown.trigger();
}

/// Ends the shims that containerd left, as where it could not remove a sandbox: they lie in no cgroup of ours. A shim bears the
/// socket of its containerd among its arguments.
async fn end_shims(config: &node::Config) {
    let socket = config.containerd().socket();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let is_shim = arguments.next().is_some_and(|program| program.contains("containerd-shim"));
        if is_shim
            && arguments.any(|argument| Path::new(&*argument) == socket)
            && let Err(error) = end_process(number).await
        {
            tracing::warn!(error = %Chain(&*error), "cannot end a shim");
        }
    }
}

async fn remove_network(config: &node::Config) -> anyhow::Result<()> {
    let netfilter = Nft::default();
    // The range does not matter for removal; the names do.
    let network = config.network(config.net.pods)?;
    xebec_network::remove_all(&network, &netfilter).await.context("cannot remove the Pod network")?;
    xebec_netfilter::remove_all(&netfilter).await.context("cannot remove the packet filter rules")?;
    Ok(())
}

/// Ends what still runs below the cgroup and removes the cgroups, in every hierarchy.
async fn sweep_cgroups(root: &str) -> anyhow::Result<()> {
    let relative = root.trim_matches('/');
    if relative.is_empty() {
        return Ok(());
    }
    let mut places = vec![Path::new(MOUNT).join(relative)];
    for entry in std::fs::read_dir(MOUNT).into_iter().flatten().flatten() {
        places.push(entry.path().join(relative));
    }
    for place in places.iter().filter(|place| place.join("cgroup.procs").exists()) {
        let began = Instant::now();
        while !remove_cgroup(place) && began.elapsed() < PATIENCE {
            tokio::time::sleep(POLL).await;
        }
        if place.exists() {
            anyhow::bail!("cannot remove the cgroup {}", place.display());
        }
    }
    Ok(())
}

/// One attempt: kills, then removes from the leaves up. Whether it is gone.
fn remove_cgroup(place: &Path) -> bool {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let processes = std::fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
    for number in processes.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
    }
    std::fs::remove_dir(place).is_ok() || !place.exists()
}

/// Unmounts everything below a folder, the innermost first.
fn unmount_below(folder: &Path) -> anyhow::Result<()> {
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(&folder) && *point != folder)
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    for point in points {
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

fn absent(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
