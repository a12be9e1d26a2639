//! `subPath`: one file or directory of a volume, mounted in its place.
//!
//! The path is opened without following any link out of the volume, and what was opened is bound to a place of our own; the
//! container is given that place. A program that swaps a link afterwards gains nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::kernel::{Kernel, descriptor_path, open_beneath};

/// What is asked for: the volume's path, the part of it, and where the bound place lies
/// (`ROOT/pods/UID/volume-subpaths/VOLUME/CONTAINER/INDEX`).
pub struct SubPath<'a> {
    pub volume: &'a Path,
    pub path: &'a str,
    pub place: PathBuf,
}

/// Binds and returns the place. A part that does not exist is made as a directory with the volume's own mode.
pub fn bind(kernel: &dyn Kernel, wanted: &SubPath<'_>) -> io::Result<PathBuf> {
    let path = Path::new(wanted.path);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {:?} leaves its volume", wanted.path),
        ));
    }
    let opened = match open_beneath(wanted.volume, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(wanted.volume, path)?;
            open_beneath(wanted.volume, path)?
        }
        other => other?,
    };
    let source = descriptor_path(&opened);
    let directory = fs::metadata(&source)?.is_dir();
    if kernel.is_mounted(&wanted.place) {
        kernel.unmount(&wanted.place)?;
    }
    if let Some(parent) = wanted.place.parent() {
        fs::create_dir_all(parent)?;
    }
    if directory {
        fs::create_dir_all(&wanted.place)?;
    } else {
        fs::write(&wanted.place, "")?;
    }
    kernel.bind(&source, &wanted.place)?;
    Ok(wanted.place.clone())
}

/// Makes the missing directories one by one, each below what was opened before it.
fn create(volume: &Path, path: &Path) -> io::Result<()> {
    let mode = fs::metadata(volume)?.mode() & 0o7777;
    let mut reached = PathBuf::new();
    for part in path.components() {
        reached.push(part);
        match open_beneath(volume, &reached) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(volume, &reached, mode)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn make_directory(volume: &Path, path: &Path, mode: u32) -> io::Result<()> {
    let parent = open_beneath(volume, path.parent().unwrap_or(Path::new("")))?;
    let name = path.file_name().unwrap_or_default();
    let place = descriptor_path(&parent).join(name);
    fs::DirBuilder::new().mode(mode).create(&place)?;
    // The process's umask must not narrow what the volume allows.
    fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Unprivileged;

    #[test]
    fn a_part_stays_inside_its_volume() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("present")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("present", volume.join("in")).unwrap();
        let check = |path: &str, fine: bool| {
            let wanted =
                SubPath { volume: &volume, path, place: root.path().join("place").join(path.replace('/', "-")) };
            assert_eq!(bind(&Unprivileged, &wanted).is_ok(), fine, "{path}");
        };
        check("present", true);
        check("in", true);
        check("new/deep", true);
        assert!(volume.join("new/deep").is_dir());
        check("out", false);
        check("out/passwd", false);
        check("../x", false);
        check("/etc", false);
    }
}
