//! Debian packages as image content. apt's own solver names the packages, as for a machine on which nothing is
//! installed; their files are taken straight from the archives. No maintainer script runs, so what only those need (perl,
//! debconf, adduser) is left out, and the few files that scripts would make are written here.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::layer::{Layer, merged_links};
use crate::workspace::output;

/// Libraries in the closure that serve installing only.
const INSTALLERS: [&str; 9] =
    ["libperl", "libpam", "libsemanage", "libsepol", "libaudit", "libcap-ng", "libdb5", "libgdbm", "libdebconf"];
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:999::/data:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUPS: &str = "root:x:0:\nredis:x:999:\nnogroup:x:65534:\n";

/// The packages, with their versions, that an image of `packages` holds: those and the shared libraries they need.
///
/// # Errors
/// apt is missing, or it knows no such package (its lists are fetched first where there are none).
pub fn closure(packages: &[&str]) -> Result<Vec<String>> {
    let solved = solve(packages).or_else(|_| {
        output(Command::new("apt-get").args(["update", "-qq"]))?;
        solve(packages)
    })?;
    let mut names: Vec<String> = solved
        .lines()
        .filter_map(|line| line.split('\'').nth(2)?.split_whitespace().next())
        .filter(|file| {
            let name = file.split('_').next().unwrap_or_default();
            let library = (name.starts_with("lib") || name.starts_with("zlib")) && !name.ends_with("-perl");
            packages.contains(&name) || library && !INSTALLERS.iter().any(|prefix| name.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "apt names no packages for {packages:?}");
    Ok(names)
}

/// Puts the files of the packages' closure into `layer`; archives are kept in `cache`.
///
/// # Errors
/// A package cannot be fetched or read.
pub fn install(layer: &mut Layer, packages: &[&str], cache: &Path) -> Result<()> {
    for (name, to) in merged_links() {
        layer.symlink(name, &to);
    }
    for file in closure(packages)? {
        let archive = fetch(&file, cache).with_context(|| format!("fetching {file}"))?;
        let mut unpack = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&archive).stdout(Stdio::piped()).spawn()?;
        let stream = unpack.stdout.take().context("dpkg-deb has no output")?;
        layer.unpack(stream).with_context(|| format!("unpacking {file}"))?;
        ensure!(unpack.wait()?.success(), "dpkg-deb cannot read {}", archive.display());
    }
    layer.file("etc/passwd", 0o644, USERS.into());
    layer.file("etc/group", 0o644, GROUPS.into());
    layer.file("etc/nsswitch.conf", 0o644, b"passwd: files\ngroup: files\nhosts: files dns\n".to_vec());
    layer.folder("root", 0o700);
    layer.folder("tmp", 0o1777);
    layer.folder("run", 0o755);
    Ok(())
}

/// apt's answer to what it would install: one line `'URI' FILE SIZE DIGEST` a package.
fn solve(packages: &[&str]) -> Result<String> {
    let nothing = tempfile::NamedTempFile::new()?;
    let status = format!("Dir::State::status={}", nothing.path().display());
    let options = ["install", "--print-uris", "-y", "-qq", "-o", "APT::Install-Recommends=0", "-o", &status];
    output(Command::new("apt-get").args(options).args(packages))
}

/// `file` is apt's name for the archive: `NAME_VERSION_ARCH.deb`, the version's colon written as `%3a`.
fn fetch(file: &str, cache: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(cache)?;
    let archive = cache.join(file);
    if archive.exists() {
        return Ok(archive);
    }
    let mut parts = file.split('_');
    let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default().replace("%3a", ":"));
    let partial = tempfile::tempdir_in(cache)?;
    let package = format!("{name}={version}");
    output(
        Command::new("apt-get")
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root", &package])
            .current_dir(partial.path()),
    )?;
    std::fs::rename(partial.path().join(file), &archive)?;
    Ok(archive)
}
