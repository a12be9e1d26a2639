//! cgroup version 1, also in the hybrid layout: each controller has a hierarchy of its own below one mount point.

use std::io;
use std::path::{Path, PathBuf};

use super::{Hierarchy, child_names, remove_tree, write};
use crate::qos::CgroupLimits;

pub(super) struct Split {
    /// The hierarchies, without symbolic links (`cpu` -> `cpu,cpuacct` on other systems).
    controllers: Vec<PathBuf>,
}

impl Split {
    pub(super) fn at(root: &Path) -> Split {
        let mut controllers: Vec<PathBuf> = child_names(root).into_iter().map(|name| root.join(name)).collect();
        controllers.sort();
        Split { controllers }
    }

    fn having(&self, controller: &str) -> Option<&Path> {
        let named = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|part| part == controller))
        };
        self.controllers.iter().find(named).map(PathBuf::as_path)
    }
}

impl Hierarchy for Split {
    fn ensure(&self, path: &str, limits: &CgroupLimits) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for controller in ["cpu", "memory", "pids"] {
            if let Some(root) = self.having(controller) {
                std::fs::create_dir_all(root.join(path))?;
            }
        }
        if let Some(root) = self.having("cpu") {
            let directory = root.join(path);
            write(&directory.join("cpu.shares"), limits.shares)?;
            if let Some(quota) = limits.quota {
                write(&directory.join("cpu.cfs_period_us"), CgroupLimits::PERIOD)?;
                write(&directory.join("cpu.cfs_quota_us"), quota)?;
            }
        }
        if let (Some(root), Some(memory)) = (self.having("memory"), limits.memory) {
            write(&root.join(path).join("memory.limit_in_bytes"), memory)?;
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        // Every hierarchy, since the runtime made the path in all of them.
        self.controllers.iter().try_for_each(|root| remove_tree(&root.join(path)))
    }

    fn children(&self, path: &str) -> Vec<String> {
        self.having("memory").map(|root| child_names(&root.join(path.trim_start_matches('/')))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_where_the_controller_is() {
        let root = tempfile::tempdir().unwrap();
        for controller in ["cpu,cpuacct", "memory", "freezer"] {
            std::fs::create_dir(root.path().join(controller)).unwrap();
        }
        let split = Split::at(root.path());
        let limits = CgroupLimits { shares: 512, quota: Some(50_000), memory: Some(1 << 20) };
        split.ensure("/a/pod1", &limits).unwrap();
        let read = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("cpu,cpuacct/a/pod1/cpu.shares"), "512");
        assert_eq!(read("cpu,cpuacct/a/pod1/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/a/pod1/memory.limit_in_bytes"), "1048576");
        assert_eq!(split.children("/a"), ["pod1"]);
    }
}
