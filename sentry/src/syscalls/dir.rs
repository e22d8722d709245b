//! Directories: listing them, and the working and root directories.

use syscalls::abi::capability::CAP_SYS_CHROOT;
use syscalls::abi::fs::{DIRENT_NAME_OFFSET, DIRENT64_NAME_OFFSET};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::lend;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::{DirEntry, DirSink};
use crate::vfs::permission::{self, MAY_EXEC};
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{Path, host_io, touch_atime};

/// Entries as one of the two calls lays them out, in a buffer that bounds what one call returns.
struct Entries<'a> {
    buffer: &'a mut [u8],
    used: usize,
    is_64: bool,
    next_offset: Option<u64>,
    is_too_small: bool,
}

impl DirSink for Entries<'_> {
    fn entry(&mut self, entry: &DirEntry<'_>) -> bool {
        let name_offset = if self.is_64 { DIRENT64_NAME_OFFSET } else { DIRENT_NAME_OFFSET };
        // The old layout has the type behind the name's NUL.
        let extra = if self.is_64 { 1 } else { 2 };
        let reclen = (name_offset + entry.name.len() + extra).next_multiple_of(8);
        let Ok(reclen16) = u16::try_from(reclen) else { return false };
        let Some(place) = self.buffer.get_mut(self.used..self.used + reclen) else {
            self.is_too_small = self.used == 0;
            return false;
        };
        // What pads the name is less than this.
        if let Some(end) = place.last_chunk_mut() {
            *end = [0; 16];
        }
        if let Some(head) = place.first_chunk_mut() {
            *head = self::head(entry, reclen16);
        }
        let file_type = entry.file_type.dirent_type();
        let type_at = if self.is_64 { DIRENT64_NAME_OFFSET - 1 } else { reclen - 1 };
        if let Some(byte) = place.get_mut(type_at) {
            *byte = file_type;
        }
        if let Some(name) = place.get_mut(name_offset..name_offset + entry.name.len()) {
            copy_name(name, entry.name);
        }
        self.used += reclen;
        self.next_offset = Some(entry.next_offset);
        true
    }
}

/// Returns what both layouts begin with.
fn head(entry: &DirEntry<'_>, reclen: u16) -> [u8; DIRENT_NAME_OFFSET] {
    let mut head = [0; DIRENT_NAME_OFFSET];
    let (ino, rest) = head.split_at_mut(8);
    let (next, len) = rest.split_at_mut(8);
    ino.copy_from_slice(&entry.ino.to_ne_bytes());
    next.copy_from_slice(&entry.next_offset.to_ne_bytes());
    len.copy_from_slice(&reclen.to_ne_bytes());
    head
}

/// Copies a name, which is mostly so short that a call of `memcpy` is most of the work.
fn copy_name(to: &mut [u8], from: &[u8]) {
    /// Copies the first `N` bytes and the last, which may be the same in part.
    fn ends<const N: usize>(to: &mut [u8], from: &[u8]) -> Option<()> {
        *to.first_chunk_mut::<N>()? = *from.first_chunk::<N>()?;
        *to.last_chunk_mut::<N>()? = *from.last_chunk::<N>()?;
        Some(())
    }
    let _ = match from.len() {
        8..=16 => ends::<8>(to, from),
        4..8 => ends::<4>(to, from),
        2 | 3 => ends::<2>(to, from),
        1 => ends::<1>(to, from),
        _ => {
            to.copy_from_slice(from);
            None
        }
    };
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
    let file = task.file(fd.0)?;
    let room = usize::try_from(count).unwrap_or(usize::MAX);
    let mut offset = file.offset.lock();
    if let Some(path) = &file.path
        && path.dentry.is_dir()
        && path.dentry.is_removed()
    {
        return Err(Errno::ENOENT.into());
    }
    let used = host_io::with_buffer(|buffer| {
        let room = room.min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let mut entries =
            Entries { buffer, used: 0, is_64, next_offset: None, is_too_small: false };
        file.file.readdir(task, *offset, &mut entries)?;
        if entries.is_too_small {
            return Err(Errno::EINVAL);
        }
        task.write_bytes(dirp, entries.buffer.get(..entries.used).unwrap_or_default())?;
        if let Some(next) = entries.next_offset {
            *offset = next;
        }
        Ok(entries.used)
    })?;
    drop(offset);
    if let Some(path) = &file.path {
        touch_atime(path);
    }
    Ok(used)
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
    let fs = task.fs();
    let old = fs.set_umask(mask);
    lend::offer_umask(task, &fs);
    Ok(old)
}
