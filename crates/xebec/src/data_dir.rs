//! Where things lie below the data directory. Everything that Xebec keeps on a machine is here or is named here.

use std::path::{Path, PathBuf};

pub const DEFAULT: &str = "/var/lib/xebec";

/// One data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        DataDir { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    /// The process number of `xebec up` or `xebec agent`.
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("xebec.pid")
    }

    /// What the agent had to be told, for `xebec down` to undo it.
    pub fn node_record(&self) -> PathBuf {
        self.root.join("node.json")
    }

    /// The kubelet's folder.
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// The names of the images that were loaded by hand.
    pub fn imported_images(&self) -> PathBuf {
        self.root.join("imported-images")
    }

    /// containerd's folder; short, for unix sockets' paths are limited to 107 bytes.
    pub fn containerd(&self) -> PathBuf {
        self.root.join("c")
    }

    pub fn cni_conf(&self) -> PathBuf {
        self.root.join("cni/net.d")
    }

    pub fn cni_bin(&self) -> PathBuf {
        self.root.join("cni/bin")
    }

    pub fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    pub fn network_socket(&self) -> PathBuf {
        self.root.join("network.sock")
    }
}
