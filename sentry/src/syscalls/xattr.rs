//! Extended attributes.

use syscalls::abi::fs::{AT_FDCWD, AtFlags, XATTR_NAME_MAX, XATTR_SIZE_MAX};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::at;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::inode::XattrFlags;
use crate::vfs::{Path, change};

fn follow(task: &CurrentTask, path: UserAddr) -> SysResult<Path> {
    at::resolve(task, Fd(AT_FDCWD), path, AtFlags::empty())?.path()
}

fn nofollow(task: &CurrentTask, path: UserAddr) -> SysResult<Path> {
    at::resolve(task, Fd(AT_FDCWD), path, AtFlags::SYMLINK_NOFOLLOW)?.path()
}

/// Files without a place have no attributes of this kind.
fn of_fd(task: &CurrentTask, fd: Fd) -> SysResult<Path> {
    task.file(fd.0)?.path.clone().ok_or(Errno::EOPNOTSUPP)
}

fn read_name(task: &CurrentTask, name: UserAddr) -> SysResult<Vec<u8>> {
    match task.read_cstr(name, XATTR_NAME_MAX + 1) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        Ok(name) if name.is_empty() => Err(Errno::ERANGE),
        result => result,
    }
}

/// Implements `setxattr(2)`.
///
/// <https://man7.org/linux/man-pages/man2/setxattr.2.html>
pub(super) fn sys_setxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> HandlerResult<()> {
    set(task, || follow(task, path), name, value, size, flags)
}

/// Implements `lsetxattr(2)`.
pub(super) fn sys_lsetxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> HandlerResult<()> {
    set(task, || nofollow(task, path), name, value, size, flags)
}

/// Implements `fsetxattr(2)`.
pub(super) fn sys_fsetxattr(
    task: &CurrentTask,
    fd: Fd,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> HandlerResult<()> {
    set(task, || of_fd(task, fd), name, value, size, flags)
}

fn set(
    task: &CurrentTask,
    find: impl FnOnce() -> SysResult<Path>,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> HandlerResult<()> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let name = read_name(task, name)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; size];
    task.read_bytes(value, &mut bytes)?;
    Ok(change::set_xattr(&task.creds(), &find()?, &name, &bytes, flags)?)
}

/// Implements `getxattr(2)`.
///
/// <https://man7.org/linux/man-pages/man2/getxattr.2.html>
pub(super) fn sys_getxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    get(task, &follow(task, path)?, name, value, size)
}

/// Implements `lgetxattr(2)`.
pub(super) fn sys_lgetxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    get(task, &nofollow(task, path)?, name, value, size)
}

/// Implements `fgetxattr(2)`.
pub(super) fn sys_fgetxattr(
    task: &CurrentTask,
    fd: Fd,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    get(task, &of_fd(task, fd)?, name, value, size)
}

fn get(
    task: &CurrentTask,
    path: &Path,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    let name = read_name(task, name)?;
    let bytes = change::get_xattr(&task.creds(), path, &name)?;
    give(task, &bytes, value, size)
}

/// Copies a result out; with a size of zero only its length is wanted.
fn give(task: &CurrentTask, bytes: &[u8], to: UserAddr, size: usize) -> HandlerResult<usize> {
    if size > 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE.into());
        }
        task.write_bytes(to, bytes)?;
    }
    Ok(bytes.len())
}

/// Implements `listxattr(2)`.
///
/// <https://man7.org/linux/man-pages/man2/listxattr.2.html>
pub(super) fn sys_listxattr(
    task: &CurrentTask,
    path: UserAddr,
    list: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    do_list(task, &follow(task, path)?, list, size)
}

/// Implements `llistxattr(2)`.
pub(super) fn sys_llistxattr(
    task: &CurrentTask,
    path: UserAddr,
    list: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    do_list(task, &nofollow(task, path)?, list, size)
}

/// Implements `flistxattr(2)`.
pub(super) fn sys_flistxattr(
    task: &CurrentTask,
    fd: Fd,
    list: UserAddr,
    size: usize,
) -> HandlerResult<usize> {
    do_list(task, &of_fd(task, fd)?, list, size)
}

fn do_list(task: &CurrentTask, path: &Path, list: UserAddr, size: usize) -> HandlerResult<usize> {
    let names = change::list_xattr(&task.creds(), path)?;
    give(task, &names, list, size)
}

/// Implements `removexattr(2)`.
pub(super) fn sys_removexattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
) -> HandlerResult<()> {
    remove(task, &follow(task, path)?, name)
}

/// Implements `lremovexattr(2)`.
pub(super) fn sys_lremovexattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
) -> HandlerResult<()> {
    remove(task, &nofollow(task, path)?, name)
}

/// Implements `fremovexattr(2)`.
pub(super) fn sys_fremovexattr(task: &CurrentTask, fd: Fd, name: UserAddr) -> HandlerResult<()> {
    remove(task, &of_fd(task, fd)?, name)
}

fn remove(task: &CurrentTask, path: &Path, name: UserAddr) -> HandlerResult<()> {
    let name = read_name(task, name)?;
    Ok(change::remove_xattr(&task.creds(), path, &name)?)
}
