//! Volumes of a Pod: set up before its containers start, kept up to date while they run, taken away when they have ended.
//!
//! Present: emptyDir, hostPath, configMap, secret, downwardAPI and projected. A Pod that asks for another kind waits, and its events say
//! so. Directories have upstream's names (`volumes/kubernetes.io~empty-dir/NAME`), so that tools that look there find them.
//! What is secret lies in memory (tmpfs) and never on disk.

pub mod atomic;
mod host_path;
mod payload;
pub mod sub_path;
mod token;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, ProjectedVolumeSource, Volume};
use xebec_api::Quantity;
use xebec_client::Client;

use crate::env::downward::Facts;
use crate::env::{EnvError, Lookup};
use crate::kernel::Kernel;
use crate::qos;
use atomic::Payload;
use payload::{Choice, DEFAULT_MODE};
use token::Asker;
pub use token::Tokens;

/// Why one volume cannot be set up; the text goes into the Pod's event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{0}")]
    Content(String),
    #[error("cannot {operation} {path}: {source}")]
    File { operation: &'static str, path: PathBuf, source: io::Error },
}

impl VolumeError {
    fn file(operation: &'static str, path: &Path, source: io::Error) -> VolumeError {
        VolumeError::File { operation, path: path.to_owned(), source }
    }
}

impl From<EnvError> for VolumeError {
    fn from(error: EnvError) -> Self {
        VolumeError::Content(error.to_string())
    }
}

/// What setting up needs from outside.
pub struct Surroundings<'a> {
    pub kernel: &'a dyn Kernel,
    pub client: &'a Client,
    pub objects: &'a dyn Lookup,
    pub facts: &'a Facts<'a>,
    /// `ROOT/pods/UID`.
    pub pod_dir: PathBuf,
    pub now: Timestamp,
}

/// Where the volumes are, and when to look after them again although nothing has changed.
#[derive(Clone, Debug, Default)]
pub struct Mounted {
    pub paths: HashMap<String, PathBuf>,
    pub renew: Option<Timestamp>,
}

/// Sets up every volume, or brings it up to date. All failures are told, with the volume's name.
pub async fn set_up(around: &Surroundings<'_>, tokens: &mut Tokens) -> Result<Mounted, Vec<(String, VolumeError)>> {
    let mut mounted = Mounted::default();
    let mut failures = Vec::new();
    let pod = around.facts.pod;
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        match set_up_one(around, volume, tokens, &mut mounted.renew).await {
            Ok(path) => drop(mounted.paths.insert(volume.name.clone(), path)),
            Err(error) => failures.push((volume.name.clone(), error)),
        }
    }
    if failures.is_empty() { Ok(mounted) } else { Err(failures) }
}

async fn set_up_one(
    around: &Surroundings<'_>,
    volume: &Volume,
    tokens: &mut Tokens,
    renew: &mut Option<Timestamp>,
) -> Result<PathBuf, VolumeError> {
    if let Some(source) = &volume.host_path {
        return host_path::prepare(source);
    }
    if let Some(source) = &volume.empty_dir {
        return empty_dir(around, &volume.name, source);
    }
    if let Some(source) = &volume.config_map {
        let choice = Choice {
            items: source.items.as_deref(),
            default_mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional == Some(true),
        };
        let payload = config_map(around, &source.name, &choice).await?;
        return write(around, &volume.name, CONFIG_MAP, &payload);
    }
    if let Some(source) = &volume.secret {
        let choice = Choice {
            items: source.items.as_deref(),
            default_mode: source.default_mode.unwrap_or(DEFAULT_MODE),
            optional: source.optional == Some(true),
        };
        let payload = secret(around, source.secret_name.as_deref().unwrap_or_default(), &choice).await?;
        return write(around, &volume.name, SECRET, &payload);
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let payload = payload::of_downward(source.items.as_deref().unwrap_or_default(), mode, around.facts)?;
        return write(around, &volume.name, DOWNWARD_API, &payload);
    }
    if let Some(source) = &volume.projected {
        let payload = projected(around, source, tokens, renew).await?;
        return write(around, &volume.name, PROJECTED, &payload);
    }
    Err(VolumeError::Content("no volume plugin matched".into()))
}

async fn config_map(around: &Surroundings<'_>, name: &str, choice: &Choice<'_>) -> Result<Payload, VolumeError> {
    match around.objects.config_map(around.facts.namespace(), name).await? {
        Some(map) => payload::of_config_map(&map, choice),
        None if choice.optional => Ok(Payload::new()),
        None => Err(EnvError::NoObject { kind: "configmap", name: name.to_owned() }.into()),
    }
}

async fn secret(around: &Surroundings<'_>, name: &str, choice: &Choice<'_>) -> Result<Payload, VolumeError> {
    match around.objects.secret(around.facts.namespace(), name).await? {
        Some(secret) => payload::of_secret(&secret, choice),
        None if choice.optional => Ok(Payload::new()),
        None => Err(EnvError::NoObject { kind: "secret", name: name.to_owned() }.into()),
    }
}

async fn projected(
    around: &Surroundings<'_>,
    source: &ProjectedVolumeSource,
    tokens: &mut Tokens,
    renew: &mut Option<Timestamp>,
) -> Result<Payload, VolumeError> {
    let default_mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut all = Payload::new();
    for part in source.sources.iter().flatten() {
        if let Some(part) = &part.config_map {
            let optional = part.optional == Some(true);
            let choice = Choice { items: part.items.as_deref(), default_mode, optional };
            all.extend(config_map(around, &part.name, &choice).await?);
        }
        if let Some(part) = &part.secret {
            let optional = part.optional == Some(true);
            let choice = Choice { items: part.items.as_deref(), default_mode, optional };
            all.extend(secret(around, &part.name, &choice).await?);
        }
        if let Some(part) = &part.downward_api {
            let items = part.items.as_deref().unwrap_or_default();
            all.extend(payload::of_downward(items, default_mode, around.facts)?);
        }
        if let Some(part) = &part.service_account_token {
            let (token, next) =
                tokens.get(&Asker { client: around.client, pod: around.facts.pod, now: around.now }, part).await?;
            *renew = Some(renew.map_or(next, |earlier| earlier.min(next)));
            let ownership = Ownership::of(around.facts.pod);
            let user = common_user(around.facts.pod);
            // A token that can be given to its reader alone is readable by nobody else.
            let mode = if user.is_some() || ownership.group.is_some() { 0o600 } else { default_mode };
            let mut content = payload::file(token.into_bytes(), mode);
            content.user = user;
            all.insert(payload::checked(&part.path)?, content);
        }
        if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
            return Err(VolumeError::Content("this kind of projected source is not supported".into()));
        }
    }
    Ok(all)
}

enum Medium {
    Disk,
    /// With a limit in bytes.
    Memory(Option<u64>),
}

/// A kind of volume that the agent fills: how its directory is named, and where its content lies.
struct Plugin {
    name: &'static str,
    medium: Medium,
}

const CONFIG_MAP: Plugin = Plugin { name: "configmap", medium: Medium::Disk };
const SECRET: Plugin = Plugin { name: "secret", medium: Medium::Memory(None) };
const DOWNWARD_API: Plugin = Plugin { name: "downward-api", medium: Medium::Memory(None) };
const PROJECTED: Plugin = Plugin { name: "projected", medium: Medium::Memory(None) };

fn directory(around: &Surroundings<'_>, name: &str, kind: &str) -> PathBuf {
    around.pod_dir.join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
}

/// Makes the volume's directory, open to all as upstream has it: the files inside bear the modes that matter.
fn make(kernel: &dyn Kernel, path: &Path, medium: Medium) -> Result<bool, VolumeError> {
    let new = !path.exists();
    fs::create_dir_all(path).map_err(|error| VolumeError::file("create", path, error))?;
    if let Medium::Memory(limit) = medium
        && (new || !kernel.is_mounted(path))
    {
        kernel.mount_tmpfs(path, limit).map_err(|error| VolumeError::file("mount tmpfs on", path, error))?;
    }
    if new {
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(path, open).map_err(|error| VolumeError::file("open", path, error))?;
    }
    Ok(new)
}

/// Writes the content of a volume of that name into its directory.
fn write(around: &Surroundings<'_>, name: &str, plugin: Plugin, payload: &Payload) -> Result<PathBuf, VolumeError> {
    let path = directory(around, name, plugin.name);
    make(around.kernel, &path, plugin.medium)?;
    let ownership = Ownership { writable: false, ..Ownership::of(around.facts.pod) };
    let target = atomic::Target { kernel: around.kernel, path: &path, ownership };
    atomic::write(&target, payload, around.now).map_err(|error| VolumeError::file("write", &path, error))?;
    Ok(path)
}

fn empty_dir(around: &Surroundings<'_>, name: &str, source: &EmptyDirVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = directory(around, name, "empty-dir");
    let medium = match source.medium.as_deref().unwrap_or_default() {
        "" => Medium::Disk,
        "Memory" => Medium::Memory(memory_limit(around.facts.pod, source)),
        other => return Err(VolumeError::Content(format!("unknown storage medium {other:?}"))),
    };
    if make(around.kernel, &path, medium)? {
        let ownership = Ownership::of(around.facts.pod);
        ownership.apply(around.kernel, &path).map_err(|error| VolumeError::file("give", &path, error))?;
    }
    Ok(path)
}

/// The smaller of the volume's own limit and what the Pod may hold in memory at all.
fn memory_limit(pod: &Pod, source: &EmptyDirVolumeSource) -> Option<u64> {
    let own = Quantity::of(source.size_limit.as_ref()).value();
    let of_pod = qos::CgroupLimits::of_pod(pod).memory.unwrap_or(0);
    [own, of_pod].into_iter().filter(|limit| *limit > 0).min().map(|limit| limit as u64)
}

/// To whom a volume's files belong, after `fsGroup`.
#[derive(Clone, Debug, Default)]
pub struct Ownership {
    pub group: Option<u32>,
    pub writable: bool,
}

impl Ownership {
    pub fn of(pod: &Pod) -> Ownership {
        let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        Ownership { group: context.and_then(|it| it.fs_group).map(|group| group as u32), writable: true }
    }

    /// Gives everything below `path` to the group, with the rights that upstream adds: `rw` or `r` on files, also `x` and
    /// set-group-id on directories.
    pub fn apply(&self, kernel: &dyn Kernel, path: &Path) -> io::Result<()> {
        let Some(group) = self.group else { return Ok(()) };
        let metadata = fs::symlink_metadata(path)?;
        if metadata.file_type().is_symlink() {
            return kernel.set_group(path, group);
        }
        kernel.set_group(path, group)?;
        let mut mode = metadata.permissions().mode() | if self.writable { 0o660 } else { 0o440 };
        if metadata.is_dir() {
            mode |= 0o2110;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(path)? {
                self.apply(kernel, &entry?.path())?;
            }
        }
        Ok(())
    }
}

/// The user as whom every container of the Pod runs, if it is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.as_ref()?.security_context.as_ref().and_then(|context| context.run_as_user);
    let user = |container: &k8s_openapi::api::core::v1::Container| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    };
    let mut users = qos::containers(pod).map(user);
    let first = users.next()??;
    users.all(|other| other == Some(first)).then_some(first as u32)
}

/// Takes a Pod's directory away with every mount below it.
pub fn tear_down(kernel: &dyn Kernel, pod_dir: &Path) -> io::Result<()> {
    for mount in mounts_below(pod_dir) {
        kernel.unmount(&mount)?;
    }
    match fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Deepest first.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let paths = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = paths.map(PathBuf::from).filter(|path| path.starts_with(directory)).collect();
    below.reverse();
    below
}

/// The mount table writes blanks and the like as `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}
