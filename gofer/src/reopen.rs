//! [`Reopener`]: a second descriptor, with other access, of the inode that a descriptor names.
//!
//! Linux offers this through `/proc/self/fd/N` alone. The gofer keeps one descriptor of that
//! directory, which is its working directory too, because extended attributes and unix sockets are
//! reached by path and not by descriptor. The paths that go there are decimal numbers of
//! descriptors that the gofer holds; nothing that a client sends becomes part of one, except the
//! [`Name`](gofer_wire::Name) of a socket that is bound.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

/// Access to this process's own descriptors by path.
#[derive(Debug)]
pub(crate) struct Reopener {
    proc_self_fd: OwnedFd,
}

/// The path of a descriptor, relative to the working directory or to [`Reopener::dir`].
#[derive(Debug)]
pub(crate) struct FdPath(String);

impl FdPath {
    pub(crate) fn new(fd: &impl AsFd) -> Self {
        Self(fd.as_fd().as_raw_fd().to_string())
    }

    /// The path of a name below a directory.
    pub(crate) fn child(fd: &impl AsFd, name: gofer_wire::Name<'_>) -> Vec<u8> {
        let mut path = String::new();
        // Writing to a String cannot fail.
        let _ = write!(path, "{}/", fd.as_fd().as_raw_fd());
        let mut path = path.into_bytes();
        path.extend_from_slice(name.as_bytes());
        path
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reopener {
    /// Takes the caller's descriptor of `/proc/self/fd`, or finds one, and makes it the working
    /// directory.
    ///
    /// # Errors
    /// Without a descriptor from the caller: that no procfs can be mounted and none is at `/proc`.
    pub(crate) fn new(proc_self_fd: Option<OwnedFd>) -> io::Result<Self> {
        let proc_self_fd = match proc_self_fd {
            Some(fd) => fd,
            None => match mount_private_procfs() {
                Ok(fd) => fd,
                Err(_) => open_mounted_procfs()?,
            },
        };
        rustix::process::fchdir(&proc_self_fd)?;
        Ok(Self { proc_self_fd })
    }

    /// Returns the directory in which an [`FdPath`] is to be looked up.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.proc_self_fd.as_fd()
    }

    /// Opens the inode of `fd` once more.
    pub(crate) fn open(&self, fd: &impl AsFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        fs::openat(self.dir(), FdPath::new(fd).as_str(), flags, Mode::empty())
    }
}

/// Mounts a procfs that shows processes only, nowhere, and opens this process's directory of
/// descriptors on it.
fn mount_private_procfs() -> io::Result<OwnedFd> {
    let context = mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Known since Linux 5.8. Older kernels show the rest of procfs too, to the gofer alone.
    let _ = mount::fsconfig_set_string(context.as_fd(), "subset", "pid");
    mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let procfs = mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    open_directory(procfs.as_fd(), "self/fd")
}

/// Opens `/proc/self/fd`, as the root of a mount of its own where that is permitted: from there
/// `..` leads nowhere.
fn open_mounted_procfs() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match mount::open_tree(fs::CWD, "/proc/self/fd", flags) {
        Ok(tree) => open_directory(tree.as_fd(), "."),
        Err(_) => open_directory(fs::CWD, "/proc/self/fd"),
    }
}

fn open_directory(dir: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat(dir, path, flags, Mode::empty())?)
}
