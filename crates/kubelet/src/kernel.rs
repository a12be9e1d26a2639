//! The kernel's side of volumes behind a small seam: mounts, owners and safe paths.
//!
//! Ordinary file operations are done where they are needed. What needs privileges or differs between machines stands here, so
//! that a test runs without root on [`Unprivileged`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::{MountFlags, UnmountFlags};

/// Every call is synchronous and quick.
pub trait Kernel: Send + Sync + 'static {
    /// Mounts a tmpfs of at most `limit` bytes; `None` leaves the kernel's own limit.
    fn mount_tmpfs(&self, target: &Path, limit: Option<u64>) -> io::Result<()>;
    /// Makes what `source` names visible at `target` too.
    fn bind(&self, source: &Path, target: &Path) -> io::Result<()>;
    /// Removes a mount; where nothing is mounted it does nothing.
    fn unmount(&self, target: &Path) -> io::Result<()>;
    /// Turns a mount into one whose mounts are seen on both sides.
    fn share(&self, target: &Path) -> io::Result<()>;
    fn is_mounted(&self, target: &Path) -> bool;
    fn set_group(&self, path: &Path, group: u32) -> io::Result<()>;
    fn set_owner(&self, path: &Path, user: u32) -> io::Result<()>;
}

/// The machine's kernel.
pub struct Linux;

impl Kernel for Linux {
    fn mount_tmpfs(&self, target: &Path, limit: Option<u64>) -> io::Result<()> {
        let size = limit.map_or(String::new(), |bytes| format!("size={bytes}"));
        let options = std::ffi::CString::new(size)?;
        Ok(rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))?)
    }

    fn bind(&self, source: &Path, target: &Path) -> io::Result<()> {
        Ok(rustix::mount::mount_bind(source, target)?)
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        // Detached: a process that still holds a file open must not keep a deleted Pod's directory for ever.
        match rustix::mount::unmount(target, UnmountFlags::DETACH) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn share(&self, target: &Path) -> io::Result<()> {
        use rustix::mount::MountPropagationFlags as Flags;
        Ok(rustix::mount::mount_change(target, Flags::SHARED | Flags::REC)?)
    }

    fn is_mounted(&self, target: &Path) -> bool {
        let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
        let target = target.to_string_lossy();
        table.lines().any(|line| line.split(' ').nth(4) == Some(&target))
    }

    fn set_group(&self, path: &Path, group: u32) -> io::Result<()> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(CWD, path, None, Some(Gid::from_raw(group)), flags)?)
    }

    fn set_owner(&self, path: &Path, user: u32) -> io::Result<()> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(CWD, path, Some(Uid::from_raw(user)), None, flags)?)
    }
}

/// A kernel for tests: directories stand in for mounts and owners stay as they are.
pub struct Unprivileged;

impl Kernel for Unprivileged {
    fn mount_tmpfs(&self, target: &Path, _: Option<u64>) -> io::Result<()> {
        std::fs::create_dir_all(target)
    }

    fn bind(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn unmount(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn share(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn is_mounted(&self, _: &Path) -> bool {
        false
    }

    fn set_group(&self, _: &Path, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn set_owner(&self, _: &Path, _: u32) -> io::Result<()> {
        Ok(())
    }
}

/// Opens `path` below `root` without ever leaving it, whatever links lie on the way.
pub fn open_beneath(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)?)
}

/// A path by which this process reaches an open descriptor.
pub fn descriptor_path(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}
