//! The files that the agent itself puts into containers: `/etc/hosts` and the termination log.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use xebec_cri::v1::Mount;

use crate::hosts;

pub const HOSTS: &str = "/etc/hosts";
const NODE_HOSTS: &str = "/etc/hosts";

/// Where the files lie, and what they are made for.
pub struct Place<'a> {
    pub pod_dir: &'a Path,
    pub cluster_domain: &'a str,
}

/// Writes the Pod's hosts file and returns its mount, unless the container brings a file of its own.
pub fn hosts_mount(place: &Place<'_>, pod: &Pod, container: &Container, ips: &[String]) -> io::Result<Option<Mount>> {
    let pod_dir = place.pod_dir;
    let own = container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == HOSTS);
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    if own || (ips.is_empty() && !host_network) {
        return Ok(None);
    }
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref());
    let text = if host_network {
        hosts::file_of_node(&fs::read_to_string(NODE_HOSTS)?, aliases)
    } else {
        let (name, domain) = hosts::name_and_domain(pod, place.cluster_domain);
        hosts::file_of_pod(ips, &name, &domain, aliases)
    };
    fs::create_dir_all(pod_dir)?;
    let path = pod_dir.join("etc-hosts");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(Some(Mount {
        container_path: HOSTS.into(),
        host_path: path.to_string_lossy().into_owned(),
        selinux_relabel: true,
        ..Mount::default()
    }))
}

/// A fresh file for what the container has to say when it ends.
pub fn termination_mount(container: &Container, pod_dir: &Path) -> io::Result<Option<Mount>> {
    let Some(inside) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let directory = container_dir(pod_dir, &container.name);
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{:08x}", rand::random::<u32>()));
    fs::write(&path, "")?;
    // Whatever user the container runs as must be able to write here.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(Some(Mount {
        container_path: inside.into(),
        host_path: path.to_string_lossy().into_owned(),
        selinux_relabel: true,
        ..Mount::default()
    }))
}

fn container_dir(pod_dir: &Path, container: &str) -> PathBuf {
    pod_dir.join("containers").join(container)
}

/// The next restart count after what the logs tell, for a runtime that has forgotten the containers.
pub fn restart_count_by_logs(directory: &Path) -> u32 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.split('.').next().and_then(|number| number.parse::<u32>().ok())
    });
    numbers.max().map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_counted_on_from_the_logs() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(restart_count_by_logs(directory.path()), 0);
        for name in ["0.log", "7.log", "7.log.20260101-000000.gz", "x"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(restart_count_by_logs(directory.path()), 8);
    }
}
