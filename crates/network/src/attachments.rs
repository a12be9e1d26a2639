//! Records of what was given to which container, one small file each.
//!
//! A record is written before anything is made and removed after everything is gone, so nothing exists without one. The
//! files need not survive a power cut: the interfaces they speak of do not either, and a record without its interface is
//! dropped.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::links::Link;
use crate::protocol::{AttachmentKey, PortMapping};
use crate::{Error, Result};

/// What one interface of one container got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub key: AttachmentKey,
    /// `namespace/name`, for people; empty where the runtime did not say.
    pub pod: String,
    pub address: Ipv4Addr,
    pub host_interface: String,
    pub ports: Vec<PortMapping>,
    /// The file of the Pod's network namespace; empty in records of an older version.
    #[serde(default)]
    pub namespace: PathBuf,
}

/// The folder of the records.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| Error::File {
            operation: "make the folder",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self { folder: folder.to_owned() })
    }

    pub fn write(&self, attachment: &Attachment) -> Result<()> {
        let json =
            serde_json::to_vec(attachment).map_err(|source| Error::Record { address: attachment.address, source })?;
        let path = self.path(&attachment.key);
        let unfinished = path.with_extension("new");
        let failed = |source| Error::File { operation: "write", path: path.clone(), source };
        fs::write(&unfinished, json).map_err(failed)?;
        fs::rename(&unfinished, &path).map_err(failed)
    }

    pub fn remove(&self, key: &AttachmentKey) -> Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::File { operation: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// All records that can be read; an unreadable file is an unfinished write and is removed.
    pub fn all(&self) -> Result<Vec<Attachment>> {
        let failed = |source| Error::File { operation: "read the folder", path: self.folder.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let content =
                fs::read(&path).map_err(|source| Error::File { operation: "read", path: path.clone(), source })?;
            match serde_json::from_slice(&content) {
                Ok(attachment) => all.push(attachment),
                Err(_) => fs::remove_file(&path).map_err(|source| Error::File { operation: "remove", path, source })?,
            }
        }
        Ok(all)
    }

    fn path(&self, key: &AttachmentKey) -> PathBuf {
        self.folder.join(format!("{}@{}.json", key.container, key.interface))
    }
}

/// The prefix of the node's end of every Pod's cable.
pub const HOST_INTERFACE_PREFIX: &str = "xeb";

/// The name of the node's end: the prefix and twelve hexadecimal digits that follow from the key (FNV-1a, 48 bits of
/// it), which makes the 15 bytes that an interface name may have.
pub fn host_interface(key: &AttachmentKey) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.container.bytes().chain([0]).chain(key.interface.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{HOST_INTERFACE_PREFIX}{:012x}", (hash ^ (hash >> 48)) & 0xffff_ffff_ffff)
}

/// Whether an interface is the node's end of a Pod's cable on this bridge: another agent's have another bridge.
pub fn is_ours(link: &Link, bridge: u32) -> bool {
    link.controller == Some(bridge) && link.name.starts_with(HOST_INTERFACE_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container: &str) -> AttachmentKey {
        AttachmentKey { container: container.into(), interface: "eth0".into() }
    }

    #[test]
    fn records_survive_and_unfinished_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let attachment = Attachment {
            key: key("c1"),
            pod: "default/a".into(),
            address: Ipv4Addr::new(10, 244, 0, 2),
            host_interface: host_interface(&key("c1")),
            ports: vec![],
            namespace: "/run/netns/a".into(),
        };
        records.write(&attachment).unwrap();
        fs::write(folder.path().join("c2@eth0.new"), b"{\"key\"").unwrap();
        assert_eq!(Records::open(folder.path()).unwrap().all().unwrap(), [attachment]);
        records.remove(&key("c1")).unwrap();
        records.remove(&key("c1")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn interface_names_fit_and_differ() {
        let (a, b) = (host_interface(&key("c1")), host_interface(&key("c2")));
        assert_ne!(a, b);
        assert_eq!(a.len(), 15);
        let link = |name: &str, controller| Link { index: 9, name: name.into(), controller, mac: vec![], mtu: 1500 };
        assert!(is_ours(&link(&a, Some(4)), 4));
        assert!(!is_ours(&link(&a, Some(5)), 4) && !is_ours(&link(&a, None), 4) && !is_ours(&link("eth0", Some(4)), 4));
    }
}
