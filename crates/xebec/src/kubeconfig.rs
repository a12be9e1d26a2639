//! The kubeconfig of the administrator: the server's address, its authority, a client certificate.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// What a kubeconfig says, all certificates and keys in PEM.
pub struct Kubeconfig<'a> {
    pub server: &'a str,
    pub authority: &'a str,
    pub certificate: &'a str,
    pub key: &'a str,
}

impl Kubeconfig<'_> {
    /// Writes the file readable by its owner only, replacing the old one in one step.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let encoded = |pem: &str| STANDARD.encode(pem);
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "xebec", "cluster": {"server": self.server, "certificate-authority-data": encoded(self.authority)}}],
            "users": [{"name": "admin", "user": {
                "client-certificate-data": encoded(self.certificate), "client-key-data": encoded(self.key)}}],
            "contexts": [{"name": "xebec", "context": {"cluster": "xebec", "user": "admin"}}],
            "current-context": "xebec",
        });
        let temporary = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(format!("{content:#}\n").as_bytes())?;
            std::fs::rename(&temporary, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}
