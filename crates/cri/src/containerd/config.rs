//! The configuration file of our containerd, in the two layouts that its versions read: 2 for 1.x, 3 for 2.x.
//!
//! Options whose default is right are left out. What is switched off: AppArmor, the NRI plugin (its socket has one fixed
//! place on a machine), the tracing plugins and the snapshotters that only write a warning where their file system is not there.

use std::path::{Path, PathBuf};

/// What differs between agents.
#[derive(Clone, Debug)]
pub struct Config {
    /// Root, state, socket, log and registry hosts lie here; a short path, since sockets have short names.
    pub directory: PathBuf,
    /// `None`: `containerd` on PATH.
    pub program: Option<PathBuf>,
    /// The image of each sandbox's first process; it must be present or pullable.
    pub pause_image: String,
    pub cni_bin_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
    /// Set where the machine forbids lowering `oom_score_adj` (no `CAP_SYS_RESOURCE`); harmless elsewhere.
    pub restrict_oom_score_adj: bool,
}

/// `containerd <package> <version> <revision>`, where the version may begin with a `v`.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_whitespace().nth(2)?;
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Config {
    /// Where this containerd listens; its shims bear the path among their arguments.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("c.sock")
    }
}

pub(super) fn render(config: &Config, socket: &Path, version: (u32, u32)) -> String {
    let base = base(config, socket);
    if version.0 < 2 {
        format!("version = 2\n{base}{}", layout_2(config))
    } else {
        format!("version = 3\n{base}{}", layout_3(config, version))
    }
}

fn base(config: &Config, socket: &Path) -> String {
    let directory = &config.directory;
    let disabled = [
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.erofs",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.tracing",
        "io.containerd.tracing.processor.v1.otlp",
    ];
    let disabled = disabled.map(|plugin| format!("\"{plugin}\"")).join(", ");
    let (root, state) = (quote(directory.join("root")), quote(directory.join("state")));
    let socket = quote(socket);
    format!(
        "root = {root}\nstate = {state}\ndisabled_plugins = [{disabled}]\n\n\
         [grpc]\naddress = {socket}\n\n[debug]\nlevel = \"warn\"\n\n"
    )
}

fn layout_2(config: &Config) -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "[{cri}]\nsandbox_image = {pause}\nrestrict_oom_score_adj = {restrict}\ndisable_apparmor = true\n\
         enable_unprivileged_ports = true\nenable_unprivileged_icmp = true\n\n\
         [{cri}.registry]\nconfig_path = {hosts}\n\n\
         [{cri}.cni]\nbin_dir = {bin}\nconf_dir = {conf}\n\n\
         [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
         [{cri}.containerd.runtimes.runc.options]\nSystemdCgroup = false\n",
        pause = quote(&config.pause_image),
        restrict = config.restrict_oom_score_adj,
        hosts = quote(config.directory.join("certs.d")),
        bin = quote(&config.cni_bin_dir),
        conf = quote(&config.cni_conf_dir),
    )
}

fn layout_3(config: &Config, version: (u32, u32)) -> String {
    let (runtime, images) = ("plugins.\"io.containerd.cri.v1.runtime\"", "plugins.\"io.containerd.cri.v1.images\"");
    let bin = quote(&config.cni_bin_dir);
    // 2.1 made a list of the directory.
    let bin = if version < (2, 1) { format!("bin_dir = {bin}") } else { format!("bin_dirs = [{bin}]") };
    format!(
        "[{images}.pinned_images]\nsandbox = {pause}\n\n\
         [{images}.registry]\nconfig_path = {hosts}\n\n\
         [{runtime}]\nrestrict_oom_score_adj = {restrict}\ndisable_apparmor = true\n\n\
         [{runtime}.cni]\n{bin}\nconf_dir = {conf}\n\n\
         [{runtime}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
         [{runtime}.containerd.runtimes.runc.options]\nSystemdCgroup = false\n\n\
         [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
        pause = quote(&config.pause_image),
        restrict = config.restrict_oom_score_adj,
        hosts = quote(config.directory.join("certs.d")),
        conf = quote(&config.cni_conf_dir),
    )
}

/// A TOML basic string.
fn quote(text: impl AsRef<Path>) -> String {
    let text = text.as_ref().to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_version(text: &str, expected: Option<(u32, u32)>) {
        assert_eq!(parse_version(text), expected, "{text}");
    }

    #[test]
    fn versions_are_read() {
        check_version("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Some((1, 6)));
        check_version("containerd github.com/containerd/containerd/v2 v2.3.7 deadbeef", Some((2, 3)));
        check_version("containerd", None);
    }

    #[test]
    fn each_version_gets_its_layout() {
        let config = Config {
            directory: "/d".into(),
            program: None,
            pause_image: "pause:1".into(),
            cni_bin_dir: "/b".into(),
            cni_conf_dir: "/c".into(),
            restrict_oom_score_adj: true,
        };
        let old = render(&config, Path::new("/d/c.sock"), (1, 6));
        assert!(old.starts_with("version = 2\n") && old.contains("sandbox_image = \"pause:1\""), "{old}");
        let new = render(&config, Path::new("/d/c.sock"), (2, 0));
        assert!(new.starts_with("version = 3\n") && new.contains("bin_dir = \"/b\""), "{new}");
        assert!(render(&config, Path::new("/d/c.sock"), (2, 3)).contains("bin_dirs = [\"/b\"]"));
    }
}
