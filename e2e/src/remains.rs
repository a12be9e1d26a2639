//! What a cluster could leave behind on a host, as sorted lines that are compared before and after: processes, mounts,
//! network namespaces, links, routes, rules of nftables, control groups. Links, routes and rules are those of the host's
//! own namespace; processes, mounts and control groups are the machine's, told apart by what belongs to the cluster.
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::{Host, capture};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    lines: BTreeSet<String>,
}

impl Remains {
    /// Reads the state of `host`, for a cluster whose data lie in `data`.
    ///
    /// # Errors
    /// `ip` or `nft` fails.
    pub fn read(host: &Host, data: &Path) -> Result<Self> {
        let mut remains = Self::default();
        remains.processes(data)?;
        let data = data.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        remains.add("mount", mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.contains(&*data)));
        let mut tool = |kind: &str, words: &[&str]| -> Result<()> {
            let text = capture(host.command(words[0]).args(&words[1..]))?.success()?;
            remains.add(kind, text.lines());
            Ok(())
        };
        // A Pod's namespace has a number here as long as a mount or a process keeps it, and other clusters' have none.
        tool("namespace", &["ip", "netns", "list-id"])?;
        tool("link", &["ip", "-brief", "link"])?;
        tool("address", &["ip", "-brief", "address"])?;
        tool("route", &["ip", "route", "show", "table", "all"])?;
        tool("rule", &["ip", "rule"])?;
        tool("nft", &["nft", "--stateless", "list", "ruleset"])?;
        remains.groups(Path::new("/sys/fs/cgroup"), 0);
        Ok(remains)
    }

    /// What is there now and was not before, and what was there and is no longer.
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let more = self.lines.difference(&before.lines).map(|line| format!("+ {line}"));
        let less = before.lines.difference(&self.lines).map(|line| format!("- {line}"));
        more.chain(less).collect()
    }

    fn add<'a>(&mut self, kind: &str, lines: impl Iterator<Item = &'a str>) {
        self.lines.extend(lines.map(|line| format!("{kind} {}", line.trim_end())));
    }

    /// Processes that name the data folder: the server itself, its containerd, and the shims of its containers.
    fn processes(&mut self, data: &Path) -> Result<()> {
        let data = data.to_string_lossy();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Ok(id) = name.parse::<u32>() else { continue };
            let Ok(command) = std::fs::read(format!("/proc/{id}/cmdline")) else { continue };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let inside = std::fs::read_to_string(format!("/proc/{id}/mountinfo"));
            if id != std::process::id()
                && (command.contains(&*data) || inside.is_ok_and(|mounts| roots_in(&mounts, &data)))
            {
                self.lines.insert(format!("process {id} {command}"));
            }
        }
        Ok(())
    }

    /// Control groups down to the third level: those of Pods lie there, those of other programs come and go deeper.
    fn groups(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            if path.to_string_lossy().contains("pod") || path.to_string_lossy().contains("xebec") {
                self.lines.insert(format!("group {}", path.display()));
            }
            if depth < 3 {
                self.groups(&path, depth + 1);
            }
        }
    }
}

/// Whether the root of the process is an overlay whose layers lie below `data`: a container's process.
fn roots_in(mounts: &str, data: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(4) == Some("/") && line.contains(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_go_both_ways() {
        let state = |lines: &[&str]| Remains { lines: lines.iter().map(|line| (*line).to_owned()).collect() };
        assert_eq!(state(&["a", "b"]).difference(&state(&["b", "c"])), ["+ a", "- c"]);
        assert!(state(&["a"]).difference(&state(&["a"])).is_empty());
    }

    #[test]
    fn a_container_is_known_by_its_root() {
        let line = "36 35 0:30 / / rw - overlay overlay rw,lowerdir=/data/x/fs,upperdir=/data/y/fs";
        assert!(roots_in(line, "/data/"));
        assert!(!roots_in(line, "/other/"));
        assert!(!roots_in("36 35 0:30 / /mnt rw - overlay overlay rw,lowerdir=/data/x/fs", "/data/"));
    }
}
