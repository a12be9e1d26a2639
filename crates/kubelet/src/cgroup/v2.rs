//! cgroup version 2: one tree, whose inner nodes delegate the controllers to their children.

use std::io;
use std::path::{Path, PathBuf};

use super::{Hierarchy, child_names, remove_tree, write};
use crate::qos::CgroupLimits;

const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

pub(super) struct Unified {
    root: PathBuf,
}

impl Unified {
    pub(super) fn at(root: &Path) -> Unified {
        Unified { root: root.to_owned() }
    }

    /// Makes the directory and, on the way down, hands on the controllers that the parent has.
    fn create(&self, path: &str) -> io::Result<PathBuf> {
        let mut directory = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let present = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
            for controller in CONTROLLERS.iter().filter(|name| present.split_whitespace().any(|it| it == **name)) {
                // A controller that cannot be handed on (the root of a container, say) is one that the Pod lives without.
                let _ = write(&directory.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            directory.push(part);
            if let Err(error) = std::fs::create_dir(&directory)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error);
            }
        }
        Ok(directory)
    }
}

impl Hierarchy for Unified {
    fn ensure(&self, path: &str, limits: &CgroupLimits) -> io::Result<()> {
        let directory = self.create(path)?;
        write(&directory.join("cpu.weight"), weight(limits.shares))?;
        if let Some(quota) = limits.quota {
            write(&directory.join("cpu.max"), format!("{quota} {}", CgroupLimits::PERIOD))?;
        }
        if let Some(memory) = limits.memory {
            write(&directory.join("memory.max"), memory)?;
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let directory = self.root.join(path.trim_start_matches('/'));
        let _ = write(&directory.join("cgroup.kill"), 1);
        remove_tree(&directory)
    }

    fn children(&self, path: &str) -> Vec<String> {
        child_names(&self.root.join(path.trim_start_matches('/')))
    }
}

/// Shares (2 to 262144) on the scale of weights (1 to 10000), as KEP-2254 maps them.
fn weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_weights() {
        let root = tempfile::tempdir().unwrap();
        let unified = Unified::at(root.path());
        unified.ensure("/a/pod1", &CgroupLimits { shares: 1024, quota: Some(50_000), memory: None }).unwrap();
        let read = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("a/pod1/cpu.weight"), "39");
        assert_eq!(read("a/pod1/cpu.max"), "50000 100000");
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }
}
