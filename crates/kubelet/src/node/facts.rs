//! What the machine is: read once at the start. Files that a machine lacks leave their facts empty.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use xebec_api::Quantity;

use crate::config::Config;

#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub cpus: u32,
    /// In bytes.
    pub memory: u64,
    pub storage: u64,
    pub huge_pages: BTreeMap<String, u64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// Go's name of it: `amd64`.
    pub architecture: &'static str,
}

impl Facts {
    pub fn read(root_dir: &Path) -> Facts {
        let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let storage = rustix::fs::statvfs(root_dir).map(|stat| stat.f_blocks * stat.f_frsize).unwrap_or_default();
        Facts {
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            memory: memory_total(&line("/proc/meminfo")),
            storage,
            huge_pages: huge_pages(),
            machine_id: line("/etc/machine-id"),
            system_uuid: Some(line("/sys/class/dmi/id/product_uuid"))
                .filter(|uuid| !uuid.is_empty())
                .unwrap_or_else(|| line("/etc/machine-id")),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                "powerpc64" => "ppc64le",
                other => other,
            },
        }
    }

    /// What the node has.
    pub fn capacity(&self, config: &Config) -> BTreeMap<String, Quantity> {
        let mut all = BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_integer(i64::from(self.cpus))),
            ("memory".to_owned(), kibibytes(self.memory)),
            ("ephemeral-storage".to_owned(), kibibytes(self.storage)),
            ("pods".to_owned(), Quantity::from_integer(i64::from(config.max_pods))),
        ]);
        all.extend(self.huge_pages.iter().map(|(name, bytes)| (name.clone(), Quantity::from_bytes(*bytes as i64))));
        all
    }

    /// What Pods may have of it.
    pub fn allocatable(&self, config: &Config) -> BTreeMap<String, Quantity> {
        let mut all = self.capacity(config);
        let memory = self.memory.saturating_sub(config.reserved_memory);
        all.insert("memory".to_owned(), kibibytes(memory));
        // Upstream keeps back the tenth at which it would evict.
        all.insert("ephemeral-storage".to_owned(), Quantity::from_integer((self.storage / 10 * 9) as i64));
        all
    }
}

fn kibibytes(bytes: u64) -> Quantity {
    format!("{}Ki", bytes / 1024).parse().unwrap_or(Quantity::ZERO)
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

fn os_image(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
}

/// `hugepages-2Mi` and its like, in bytes.
fn huge_pages() -> BTreeMap<String, u64> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let size = Quantity::from_bytes((kibibytes * 1024) as i64);
        Some((format!("hugepages-{size}"), count * kibibytes * 1024))
    });
    sizes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        assert_eq!(memory_total("MemTotal:       24689332 kB\nMemFree: 1 kB"), 24_689_332 * 1024);
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\""),
            "Debian GNU/Linux 12 (bookworm)"
        );
    }
}
