//! The claim of one node on its part of the control-group tree.
//!
//! Two nodes on one machine with the same cgroup root would take each other's Pods for strays and end them. The claim is an
//! advisory lock on the root's own directory: it leaves no file behind and ends with the process, however that ends.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Where control groups are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Held as long as the node runs.
#[derive(Debug)]
pub struct Claim {
    _lock: Flock<File>,
}

impl Claim {
    /// Claims the cgroup, which is made if it is missing.
    pub fn take(root: &str) -> anyhow::Result<Claim> {
        Claim::take_at(&directory(Path::new(MOUNT), root))
    }

    fn take_at(directory: &Path) -> anyhow::Result<Claim> {
        let shown = directory.display();
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make the cgroup {shown}"))?;
        let file = File::open(directory).with_context(|| format!("cannot open the cgroup {shown}"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Claim { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!("another node uses the cgroup {shown}: give this one a root of its own with --cgroup-root")
            }
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock the cgroup {shown}")),
        }
    }
}

/// The root's directory in the one tree of version 2, or in the memory controller's of version 1.
fn directory(mount: &Path, root: &str) -> PathBuf {
    let tree = if mount.join("cgroup.controllers").exists() { mount.to_owned() } else { mount.join("memory") };
    tree.join(root.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_at_a_time() {
        let mount = tempfile::tempdir().unwrap();
        let place = directory(mount.path(), "/xebec/");
        assert_eq!(place, mount.path().join("memory/xebec"));
        let first = Claim::take_at(&place).unwrap();
        let refused = Claim::take_at(&place).unwrap_err().to_string();
        assert!(refused.contains("--cgroup-root"), "{refused}");
        drop(first);
        Claim::take_at(&place).unwrap();
    }
}
