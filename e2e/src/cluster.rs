//! A whole cluster, `xebec up`, on a host of its own. Commands run on that host with the cluster's kubeconfig.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Host, Output, Process, Remains, binary, capture, images, wait_for};

const READY: Duration = Duration::from_secs(60);
const DOWN: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub host: Host,
    data: TempDir,
    process: Option<Process>,
    before: Remains,
}

impl Cluster {
    /// Starts a cluster and waits until its node is ready.
    ///
    /// # Errors
    /// It did not become ready; the end of its log is the message.
    pub fn up() -> Result<Self> {
        let host = Host::new()?;
        let data = tempfile::Builder::new().prefix("xebec-e2e-").tempdir()?;
        let before = Remains::read(&host, data.path())?;
        let mut cluster = Self { host, data, process: None, before };
        cluster.start()?;
        Ok(cluster)
    }

    /// Starts the process anew, on the same data.
    ///
    /// # Errors
    /// The node did not become ready.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.host.command(binary());
        command.arg("up").arg("--data-dir").arg(self.data());
        // Control groups are the machine's: those of another cluster on it are not to be touched.
        command.args(["--cgroup-root", &format!("/xebec-e2e-{}", std::process::id())]);
        self.process = Some(Process::start(&mut command, &self.log_file())?);
        let ready = wait_for("a ready node", READY, || {
            let ended = self.process.as_mut().map(Process::has_ended).transpose()?;
            ensure!(ended == Some(false), "the cluster has ended");
            let nodes = self.xebec(&["get", "nodes"])?.success()?;
            Ok(nodes.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("Ready")).then_some(()))
        });
        ready.with_context(|| format!("the end of the log:\n{}", self.log(60)))
    }

    /// Loads archives of `cargo xtask images` into the node.
    ///
    /// # Errors
    /// An archive is missing or refused.
    pub fn import(&self, names: &[&str]) -> Result<()> {
        let mut command = self.host.command(binary());
        command.args(["images", "import", "--data-dir"]).arg(self.data());
        command.args(names.iter().map(|name| images().join(format!("{name}.tar"))));
        capture(&mut command)?.success().with_context(|| format!("importing {names:?}"))?;
        Ok(())
    }

    /// Runs a verb of ours.
    ///
    /// # Errors
    /// The binary cannot be started; a failing verb is no error here.
    pub fn xebec(&self, arguments: &[&str]) -> Result<Output> {
        capture(self.verb(binary()).args(arguments))
    }

    /// Runs kubectl where there is one (`KUBECTL`), otherwise our verb of the same name.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let program = std::env::var_os("KUBECTL").filter(|path| !path.is_empty());
        capture(self.verb(program.map_or_else(binary, PathBuf::from)).args(arguments))
    }

    /// A command on the host with the cluster's kubeconfig, for those who want to start it themselves.
    pub fn verb(&self, program: PathBuf) -> Command {
        let mut command = self.host.command(program);
        command.env("KUBECONFIG", self.data().join("admin.kubeconfig"));
        command
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The process of `xebec up`.
    ///
    /// # Errors
    /// It was crashed and not started again.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the cluster was not started")
    }

    /// The process id of the cluster's own containerd.
    ///
    /// # Errors
    /// It does not run.
    pub fn containerd(&self) -> Result<u32> {
        let data = self.data().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            if name.trim() == "containerd" && String::from_utf8_lossy(&command).contains(&data) {
                return Ok(id);
            }
        }
        anyhow::bail!("the cluster's containerd does not run")
    }

    /// The last `count` lines of the log.
    pub fn log(&self, count: usize) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Takes the cluster down and compares the host with what it was before.
    ///
    /// # Errors
    /// Something was left behind; each thing is a line of the message.
    pub fn down(mut self) -> Result<()> {
        self.take_down()?;
        let left = wait_for("the last remains' end", Duration::from_secs(10), || {
            let left = Remains::read(&self.host, self.data())?.difference(&self.before);
            ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
            Ok(Some(()))
        });
        left.context("comparing the host before and after")
    }

    fn take_down(&mut self) -> Result<()> {
        capture(self.host.command(binary()).args(["down", "--data-dir"]).arg(self.data.path()))?
            .success()
            .context("xebec down")?;
        if let Some(mut process) = self.process.take() {
            process.end(DOWN)?;
        }
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.data().join("up.log")
    }
}

impl Drop for Cluster {
    /// A test that failed still leaves the machine as it was; what it failed of is what counts.
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            if std::thread::panicking() {
                eprintln!("the end of the cluster's log:\n{}", self.log(80));
            }
            let id = process.id();
            if let Err(error) = self.take_down() {
                eprintln!("taking down the cluster of process {id}: {error:#}");
            }
        }
    }
}
