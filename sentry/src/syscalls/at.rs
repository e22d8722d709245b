//! What the `*at(2)` calls have in common: where a path starts and what an empty one means.

use std::sync::Arc;

use syscalls::abi::fs::{AT_FDCWD, AtFlags};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use crate::task::CurrentTask;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{Attr, OpenFile, Path};

/// Creates a walk of `path` that starts in the directory `dirfd`.
///
/// # Errors
/// `EBADF`, `ENOTDIR` for a descriptor without a path.
pub(super) fn walk<'a>(
    task: &'a CurrentTask,
    dirfd: Fd,
    path: &[u8],
    flags: WalkFlags,
) -> SysResult<Walk<'a>> {
    let is_scoped = flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT | WalkFlags::NO_XDEV);
    if dirfd.0 == AT_FDCWD || (path.first() == Some(&b'/') && !is_scoped) {
        return Ok(Walk::from_cwd(task, flags));
    }
    let start = task.files().get_any(dirfd.0)?.path.clone().ok_or(Errno::ENOTDIR)?;
    if !start.dentry.is_dir() && !path.is_empty() {
        return Err(Errno::ENOTDIR);
    }
    Ok(Walk::new(Some(task), task.creds(), task.fs().root(), start, flags))
}

/// What a path, or an empty path under `AT_EMPTY_PATH`, refers to.
pub(super) enum Target {
    /// A place in the mount tree.
    Path(Path),
    /// An open file that has no place.
    File(Arc<OpenFile>),
}

impl Target {
    /// Returns the attributes.
    pub(super) fn attr(&self) -> SysResult<Attr> {
        match self {
            Self::Path(path) => path.inode().attr(),
            Self::File(file) => file.file.attr(),
        }
    }

    /// Returns the place.
    ///
    /// # Errors
    /// `EINVAL` for a file without one, such as a pipe: what its attributes are is not stored.
    pub(super) fn path(self) -> SysResult<Path> {
        match self {
            Self::Path(path) => Ok(path),
            Self::File(_) => Err(Errno::EINVAL),
        }
    }

    /// Returns what an open descriptor refers to.
    ///
    /// # Errors
    /// `EBADF`.
    pub(super) fn of_fd(task: &CurrentTask, fd: Fd) -> SysResult<Self> {
        let file = task.files().get_any(fd.0)?;
        Ok(Self::of_file(file))
    }

    fn of_file(file: Arc<OpenFile>) -> Self {
        match &file.path {
            Some(path) => Self::Path(path.clone()),
            None => Self::File(file),
        }
    }
}

/// Finds what `path`, a string in guest memory, refers to; a null pointer is an empty path under
/// `AT_EMPTY_PATH`. Of `flags`, `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH` count.
///
/// # Errors
/// Those of the walk; `EBADF`, `EFAULT`.
pub(super) fn resolve(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    flags: AtFlags,
) -> SysResult<Target> {
    let allows_empty = flags.contains(AtFlags::EMPTY_PATH);
    let path = if path.is_null() && allows_empty { Vec::new() } else { task.read_path(path)? };
    if path.is_empty() && allows_empty {
        if dirfd.0 == AT_FDCWD {
            return Ok(Target::Path(task.fs().cwd()));
        }
        return Target::of_fd(task, dirfd);
    }
    let follow = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
    let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    Ok(Target::Path(walk(task, dirfd, &path, flags)?.resolve(&path)?))
}

/// Fails for flags that a call does not know.
///
/// # Errors
/// `EINVAL`.
pub(super) fn check_flags(flags: u32, known: AtFlags) -> SysResult<AtFlags> {
    if flags & !known.bits() != 0 {
        Err(Errno::EINVAL)
    } else {
        Ok(AtFlags::from_bits_retain(flags))
    }
}
