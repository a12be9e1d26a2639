//! The Pods' cgroups: one for each quality-of-service class below `…/kubepods`, one for each Pod below its class.
//!
//! The runtime makes the containers' own cgroups inside. Here only what holds for a Pod as a whole is written: CPU weight, CPU
//! quota and memory limit. Version 1 (a directory in each controller's hierarchy) and version 2 (one tree) lie behind one trait.

mod v1;
mod v2;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::qos::{self, CgroupLimits, Class};

const MOUNT: &str = "/sys/fs/cgroup";

/// One layout of the kernel's control groups. Paths are from the root of the hierarchy and begin with a slash.
pub trait Hierarchy: Send + Sync + 'static {
    fn ensure(&self, path: &str, limits: &CgroupLimits) -> io::Result<()>;
    /// Removes the cgroup and those below it; processes that are still inside are killed.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The names of the cgroups directly below, as far as the accounting of memory knows them.
    fn children(&self, path: &str) -> Vec<String>;
}

/// The layout that this machine has.
pub fn detect() -> Arc<dyn Hierarchy> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.controllers").exists() {
        Arc::new(v2::Unified::at(root))
    } else {
        Arc::new(v1::Split::at(root))
    }
}

/// Keeps nothing; for tests and for nodes whose cgroups somebody else looks after.
pub struct Nowhere;

impl Hierarchy for Nowhere {
    fn ensure(&self, _: &str, _: &CgroupLimits) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn children(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// The tree of one agent.
pub struct PodCgroups {
    hierarchy: Arc<dyn Hierarchy>,
    base: String,
    /// CPU requests of the burstable Pods, in thousandths, by UID: their sum is the class's weight.
    burstable: Mutex<HashMap<String, i64>>,
}

impl PodCgroups {
    pub fn new(hierarchy: Arc<dyn Hierarchy>, root: &str) -> PodCgroups {
        let base = format!("{}/kubepods", root.trim_end_matches('/'));
        PodCgroups { hierarchy, base, burstable: Mutex::default() }
    }

    /// Makes the classes' cgroups; `milli_cpu` is the node's capacity.
    pub fn prepare(&self, milli_cpu: i64) -> io::Result<()> {
        self.hierarchy.ensure(&self.base, &CgroupLimits::shares(qos::shares(milli_cpu)))?;
        self.hierarchy.ensure(&format!("{}/burstable", self.base), &CgroupLimits::shares(2))?;
        self.hierarchy.ensure(&format!("{}/besteffort", self.base), &CgroupLimits::shares(2))
    }

    /// Where a Pod's containers go; the runtime is given this as the parent.
    pub fn path_of(&self, pod: &Pod) -> String {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match Class::of(pod) {
            Class::Guaranteed => format!("{}/pod{uid}", self.base),
            Class::Burstable => format!("{}/burstable/pod{uid}", self.base),
            Class::BestEffort => format!("{}/besteffort/pod{uid}", self.base),
        }
    }

    pub fn ensure(&self, pod: &Pod) -> io::Result<()> {
        if Class::of(pod) == Class::Burstable {
            let request = qos::pod_total(pod, false, "cpu").milli_value();
            let before = self.burstable.lock().insert(pod.metadata.uid.clone().unwrap_or_default(), request);
            if before != Some(request) {
                self.weigh_burstable()?;
            }
        }
        self.hierarchy.ensure(&self.path_of(pod), &CgroupLimits::of_pod(pod))
    }

    pub fn remove(&self, pod: &Pod) -> io::Result<()> {
        self.hierarchy.remove(&self.path_of(pod))?;
        if self.burstable.lock().remove(pod.metadata.uid.as_deref().unwrap_or_default()).is_some() {
            self.weigh_burstable()?;
        }
        Ok(())
    }

    /// Removes the cgroups of Pods that this agent does not know.
    pub fn remove_unknown(&self, known: impl Fn(&str) -> bool) {
        for class in ["", "/burstable", "/besteffort"] {
            let parent = format!("{}{class}", self.base);
            for child in self.hierarchy.children(&parent) {
                let Some(uid) = child.strip_prefix("pod") else { continue };
                if !known(uid)
                    && let Err(error) = self.hierarchy.remove(&format!("{parent}/{child}"))
                {
                    tracing::warn!(%error, uid, "cannot remove the cgroup of a Pod that is gone");
                }
            }
        }
    }

    fn weigh_burstable(&self) -> io::Result<()> {
        let total: i64 = self.burstable.lock().values().sum();
        self.hierarchy.ensure(&format!("{}/burstable", self.base), &CgroupLimits::shares(qos::shares(total)))
    }
}

/// Writes a control file. One that does not exist belongs to a controller that this machine lacks; the kernel answers the
/// attempt to make it with EACCES, even to root.
fn write(path: &Path, value: impl ToString) -> io::Result<()> {
    match std::fs::write(path, value.to_string()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

/// Removes a cgroup directory with those inside it, deepest first, killing what still runs there.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // The kernel lets go of a killed process's cgroup a moment after its death.
    const TRIES: u32 = 20;
    for attempt in 0..TRIES {
        match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if attempt + 1 == TRIES => return Err(error),
            Err(_) => kill_members(directory),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

fn kill_members(directory: &Path) {
    let members = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn child_names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
