//! Directories: listing them, and the working and root directories.

use syscalls::abi::capability::CAP_SYS_CHROOT;
use syscalls::abi::fs::{DIRENT_NAME_OFFSET, DIRENT64_NAME_OFFSET};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::{DirEntry, DirSink};
use crate::vfs::permission::{self, MAY_EXEC};
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{Path, touch_atime};

/// The most bytes of entries that one call returns: a bound for the sentry's buffer.
const MAX_ENTRIES_BYTES: usize = 256 * 1024;

/// Entries as one of the two calls lays them out.
struct Entries {
    bytes: Vec<u8>,
    room: usize,
    is_64: bool,
    next_offset: Option<u64>,
    is_too_small: bool,
}

impl DirSink for Entries {
    fn entry(&mut self, entry: &DirEntry<'_>) -> bool {
        let name_offset = if self.is_64 { DIRENT64_NAME_OFFSET } else { DIRENT_NAME_OFFSET };
        // The old layout has the type behind the name's NUL.
        let extra = if self.is_64 { 1 } else { 2 };
        let reclen = (name_offset + entry.name.len() + extra).next_multiple_of(8);
        let Ok(reclen16) = u16::try_from(reclen) else { return false };
        if reclen > self.room - self.bytes.len() {
            self.is_too_small = self.bytes.is_empty();
            return false;
        }
        let end = self.bytes.len() + reclen;
        self.bytes.extend_from_slice(&entry.ino.to_ne_bytes());
        self.bytes.extend_from_slice(&entry.next_offset.to_ne_bytes());
        self.bytes.extend_from_slice(&reclen16.to_ne_bytes());
        if self.is_64 {
            self.bytes.push(entry.file_type.dirent_type());
        }
        self.bytes.extend_from_slice(entry.name);
        self.bytes.resize(end, 0);
        if !self.is_64
            && let Some(last) = self.bytes.last_mut()
        {
            *last = entry.file_type.dirent_type();
        }
        self.next_offset = Some(entry.next_offset);
        true
    }
}

/// Implements `getdents64(2)`.
///
/// <https://man7.org/linux/man-pages/man2/getdents.2.html>
pub(super) fn sys_getdents64(
    task: &CurrentTask,
    fd: Fd,
    dirp: UserAddr,
    count: u32,
) -> HandlerResult<usize> {
    do_getdents(task, fd, dirp, count, true)
}

/// Implements `getdents(2)`.
pub(super) fn sys_getdents(
    task: &CurrentTask,
    fd: Fd,
    dirp: UserAddr,
    count: u32,
) -> HandlerResult<usize> {
    do_getdents(task, fd, dirp, count, false)
}

fn do_getdents(
    task: &CurrentTask,
    fd: Fd,
    dirp: UserAddr,
    count: u32,
    is_64: bool,
) -> HandlerResult<usize> {
    let file = task.files().get(fd.0)?;
    let room = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_ENTRIES_BYTES);
    let mut entries =
        Entries { bytes: Vec::new(), room, is_64, next_offset: None, is_too_small: false };
    let mut offset = file.offset.lock();
    if let Some(path) = &file.path
        && path.dentry.is_dir()
        && path.dentry.is_removed()
    {
        return Err(Errno::ENOENT.into());
    }
    file.file.readdir(task, *offset, &mut entries)?;
    if entries.is_too_small {
        return Err(Errno::EINVAL.into());
    }
    task.write_bytes(dirp, &entries.bytes)?;
    if let Some(next) = entries.next_offset {
        *offset = next;
    }
    drop(offset);
    if let Some(path) = &file.path {
        touch_atime(path);
    }
    Ok(entries.bytes.len())
}

/// Implements `getcwd(2)`.
///
/// <https://man7.org/linux/man-pages/man2/getcwd.2.html>
pub(super) fn sys_getcwd(task: &CurrentTask, buf: UserAddr, size: usize) -> HandlerResult<usize> {
    let (root, cwd) = task.fs().root_and_cwd();
    let name = cwd.name_from(&root);
    if name.is_removed {
        return Err(Errno::ENOENT.into());
    }
    let mut bytes = Vec::new();
    if !name.is_reachable {
        bytes.extend_from_slice(b"(unreachable)");
    }
    bytes.extend_from_slice(&name.name);
    bytes.push(0);
    if bytes.len() > size {
        return Err(Errno::ERANGE.into());
    }
    if bytes.len() > syscalls::abi::fs::PATH_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    task.write_bytes(buf, &bytes)?;
    Ok(bytes.len())
}

fn directory(task: &CurrentTask, path: UserAddr) -> SysResult<Path> {
    let path = task.read_path(path)?;
    let dir = Walk::from_cwd(task, WalkFlags::FOLLOW | WalkFlags::DIRECTORY).resolve(&path)?;
    permission::check(&task.creds(), &**dir.inode(), &dir.inode().attr()?, MAY_EXEC)?;
    Ok(dir)
}

/// Implements `chdir(2)`.
pub(super) fn sys_chdir(task: &CurrentTask, path: UserAddr) -> HandlerResult<()> {
    task.fs().set_cwd(directory(task, path)?);
    Ok(())
}

/// Implements `fchdir(2)`.
pub(super) fn sys_fchdir(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    let file = task.files().get_any(fd.0)?;
    let dir = file.path.clone().filter(|path| path.dentry.is_dir()).ok_or(Errno::ENOTDIR)?;
    permission::check(&task.creds(), &**dir.inode(), &dir.inode().attr()?, MAY_EXEC)?;
    task.fs().set_cwd(dir);
    Ok(())
}

/// Implements `chroot(2)`.
pub(super) fn sys_chroot(task: &CurrentTask, path: UserAddr) -> HandlerResult<()> {
    let dir = directory(task, path)?;
    if !task.creds().has_own_capability(CAP_SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    task.fs().set_root(dir);
    Ok(())
}

/// Implements `umask(2)`.
pub(super) fn sys_umask(task: &CurrentTask, mask: u32) -> HandlerResult<u32> {
    Ok(task.fs().set_umask(mask))
}
