//! hostPath volumes: the path itself, once it is what its type says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

pub fn prepare(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = Path::new(&source.path);
    let failed =
        |what: &str| VolumeError::Content(format!("hostPath type check failed: {} is not {what}", source.path));
    let kind = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let is = |test: fn(&fs::FileType) -> bool| kind.as_ref().is_some_and(test);
    match source.type_.as_deref().unwrap_or_default() {
        "" => {}
        "DirectoryOrCreate" if kind.is_none() => {
            fs::create_dir_all(path).map_err(|error| VolumeError::file("create", path, error))?;
            restrict(path, 0o755)?;
        }
        "FileOrCreate" if kind.is_none() => {
            // The parent must exist already: only the file itself is made.
            fs::write(path, "").map_err(|error| VolumeError::file("create", path, error))?;
            restrict(path, 0o644)?;
        }
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => return Err(failed("a directory")),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => return Err(failed("a file")),
        "Socket" if !is(FileTypeExt::is_socket) => return Err(failed("a socket file")),
        "CharDevice" if !is(FileTypeExt::is_char_device) => return Err(failed("a character device")),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => return Err(failed("a block device")),
        _ => {}
    }
    Ok(path.to_owned())
}

fn restrict(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| VolumeError::file("restrict", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(root: &Path, path: &str, kind: &str, error: &str) {
        let path = root.join(path).to_string_lossy().into_owned();
        let source = HostPathVolumeSource { path: path.clone(), type_: Some(kind.into()) };
        match prepare(&source) {
            Ok(_) => assert_eq!(error, "", "{path} {kind}"),
            Err(found) => assert_eq!(found.to_string(), format!("hostPath type check failed: {path} is not {error}")),
        }
    }

    #[test]
    fn types_are_checked() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        check(root, "none", "", "");
        check(root, "none", "Directory", "a directory");
        check(root, "made/deep", "DirectoryOrCreate", "");
        check(root, "made", "Directory", "");
        check(root, "made/file", "FileOrCreate", "");
        check(root, "made/file", "File", "");
        check(root, "made/file", "Directory", "a directory");
        check(root, "made", "FileOrCreate", "a file");
        check(root, "made/file", "Socket", "a socket file");
    }
}
