//! Puts the plugin where the container runtime looks for it, and takes the whole Pod network away again.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::json;
use xebec_netfilter::{Change, Netfilter};

use crate::attachments::{Records, is_ours};
use crate::links::Links;
use crate::protocol::OWN_VERSION;
use crate::{Config, Error, LOOPBACK_NAME, PLUGIN_NAME, Result, rules};

/// The runtime takes the first file in the order of names; ours comes before most.
const CONF_FILE: &str = "10-xebec.conflist";

/// Where runtimes keep network namespaces.
const KEPT: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// Installs the plugin, then the configuration that names it: a runtime may read the latter at once.
pub fn install(config: &Config) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { operation: "install the CNI plugin as", path, source }
    };
    fs::create_dir_all(&config.cni_bin_dir).map_err(failed(&config.cni_bin_dir))?;
    for name in [PLUGIN_NAME, LOOPBACK_NAME] {
        let plugin = config.cni_bin_dir.join(name);
        if fs::read_link(&plugin).ok().as_deref() != Some(config.program.as_path()) {
            absent(&plugin).map_err(failed(&plugin))?;
            std::os::unix::fs::symlink(&config.program, &plugin).map_err(failed(&plugin))?;
        }
    }
    let conf = config.cni_conf_dir.join(CONF_FILE);
    fs::create_dir_all(&config.cni_conf_dir).map_err(failed(&conf))?;
    let content = format!("{:#}\n", conf_list(config));
    if fs::read(&conf).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(());
    }
    // The runtime watches the folder and would read half a file; it ignores names that do not end in .conflist.
    let unfinished = config.cni_conf_dir.join(format!(".{CONF_FILE}.new"));
    fs::write(&unfinished, content).map_err(failed(&unfinished))?;
    fs::rename(&unfinished, &conf).map_err(failed(&conf))
}

fn conf_list(config: &Config) -> serde_json::Value {
    json!({
        "cniVersion": OWN_VERSION,
        "name": "xebec",
        "plugins": [{"type": PLUGIN_NAME, "socket": config.socket, "capabilities": {"portMappings": true}}],
    })
}

/// Takes away everything that [`crate::PodNetwork`] made on this node: interfaces with their addresses and routes, the
/// rules, the plugin with its configuration, the namespaces that a runtime left behind, the records and the socket. What is
/// gone already is no error.
pub async fn remove_all(config: &Config, netfilter: &dyn Netfilter) -> Result<()> {
    let links = Links::open(config.namespace.as_deref()).await?;
    if let Some(bridge) = links.find(&config.bridge).await? {
        for link in links.all().await?.iter().filter(|link| is_ours(link, bridge.index)) {
            links.delete(&link.name).await?;
        }
        links.delete(&bridge.name).await?;
    }
    netfilter.apply(&Change::DeleteTable(rules::table_id()).into()).await?;
    if config.state_dir.exists() {
        for attachment in Records::open(&config.state_dir)?.all()? {
            remove_namespace(&attachment.namespace)?;
        }
    }
    let files: [PathBuf; 4] = [
        config.cni_conf_dir.join(CONF_FILE),
        config.cni_bin_dir.join(PLUGIN_NAME),
        config.cni_bin_dir.join(LOOPBACK_NAME),
        config.socket.clone(),
    ];
    for path in files {
        absent(&path).map_err(|source| Error::File { operation: "remove", path, source })?;
    }
    match fs::remove_dir_all(&config.state_dir) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::File { operation: "remove", path: config.state_dir.clone(), source })
        }
        _ => Ok(()),
    }
}

/// A namespace that a runtime keeps is a file with the namespace mounted on it.
fn remove_namespace(path: &Path) -> Result<()> {
    if !KEPT.iter().any(|folder| path.starts_with(folder)) {
        return Ok(());
    }
    // It is no mount point any more where the runtime ended while it removed the namespace.
    let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
    absent(path).map_err(|source| Error::File { operation: "remove", path: path.to_owned(), source })
}

fn absent(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
