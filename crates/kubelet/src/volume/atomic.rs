//! Files that change all at once: a volume whose content lies in a dated directory, reached through the link `..data`, which
//! is replaced by one rename. The layout is upstream's, since programs watch `..data` to learn of updates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Ownership;
use crate::kernel::Kernel;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// The file belongs to this user, not to root.
    pub user: Option<u32>,
}

/// Relative paths without `..`, and what is to be read there.
pub type Payload = BTreeMap<PathBuf, Content>;

/// The volume that is written.
pub struct Target<'a> {
    pub kernel: &'a dyn Kernel,
    pub path: &'a Path,
    pub ownership: Ownership,
}

/// Makes the volume show exactly `payload`. Returns whether anything changed.
pub fn write(target: &Target<'_>, payload: &Payload, now: Timestamp) -> io::Result<bool> {
    let Target { kernel, path: volume, ownership } = target;
    let old = fs::read_link(volume.join(DATA)).ok();
    if let Some(old) = &old
        && shows(&volume.join(old), payload)
    {
        link_entries(volume, payload)?;
        return Ok(false);
    }
    let name = now.strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let directory = volume.join(&name);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    for (path, content) in payload {
        write_file(*kernel, &directory, path, content)?;
    }
    // The whole volume: its own directory belongs to the group too.
    ownership.apply(*kernel, volume)?;
    let next = volume.join(NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, volume.join(DATA))?;
    link_entries(volume, payload)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(volume.join(old));
    }
    Ok(true)
}

fn write_file(kernel: &dyn Kernel, directory: &Path, path: &Path, content: &Content) -> io::Result<()> {
    let file = directory.join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&file, &content.bytes)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(content.mode))?;
    match content.user {
        Some(user) => kernel.set_owner(&file, user),
        None => Ok(()),
    }
}

fn shows(directory: &Path, payload: &Payload) -> bool {
    let mut present = BTreeSet::new();
    collect_files(directory, Path::new(""), &mut present);
    present.len() == payload.len()
        && payload.iter().all(|(path, content)| {
            present.contains(path) && fs::read(directory.join(path)).is_ok_and(|bytes| bytes == content.bytes)
        })
}

fn collect_files(directory: &Path, prefix: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = prefix.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_files(&entry.path(), &path, into);
        } else {
            into.insert(path);
        }
    }
}

/// The names that the container sees are links through `..data`; names that are not in the payload any more go.
fn link_entries(volume: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<PathBuf> = payload
        .keys()
        .filter_map(|path| path.components().next())
        .map(|first| PathBuf::from(first.as_os_str()))
        .collect();
    for name in &wanted {
        let (link, target) = (volume.join(name), Path::new(DATA).join(name));
        if fs::read_link(&link).ok().as_deref() != Some(&target) {
            let _ = fs::remove_file(&link);
            symlink(target, link)?;
        }
    }
    for entry in fs::read_dir(volume)?.flatten() {
        let name = PathBuf::from(entry.file_name());
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Unprivileged;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| Content { bytes: text.into(), mode: 0o644, user: None };
        files.iter().map(|(path, text)| (PathBuf::from(path), content(text))).collect()
    }

    fn check(steps: &[(&[(&str, &str)], bool)]) {
        let volume = tempfile::tempdir().unwrap();
        for (step, (files, changes)) in steps.iter().enumerate() {
            let now = Timestamp::from_second(step as i64).unwrap();
            let target = Target { kernel: &Unprivileged, path: volume.path(), ownership: Ownership::default() };
            let changed = write(&target, &payload(files), now).unwrap();
            assert_eq!(changed, *changes, "step {step}");
            for (path, text) in *files {
                assert_eq!(fs::read_to_string(volume.path().join(path)).unwrap(), *text);
            }
            let visible = fs::read_dir(volume.path()).unwrap().flatten();
            let visible = visible.filter(|entry| !entry.file_name().to_string_lossy().starts_with("..")).count();
            let wanted: BTreeSet<_> = files.iter().map(|(path, _)| path.split('/').next()).collect();
            assert_eq!(visible, wanted.len(), "step {step}");
            let dated = fs::read_dir(volume.path()).unwrap().flatten();
            assert_eq!(dated.filter(|entry| entry.file_name().to_string_lossy().starts_with("..1970")).count(), 1);
        }
    }

    #[test]
    fn content_changes_at_once_and_old_names_go() {
        check(&[
            (&[("a", "1"), ("d/b", "2")], true),
            (&[("a", "1"), ("d/b", "2")], false),
            (&[("a", "3"), ("c", "4")], true),
            (&[], true),
        ]);
    }
}
