//! Making, removing and moving names.

use syscalls::abi::capability::CAP_DAC_READ_SEARCH;
use syscalls::abi::fs::{AT_FDCWD, AtFlags, RenameFlags};
use syscalls::arg::Fd;
use syscalls::{Errno, UserAddr};

use super::at;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::inode::NodeKind;
use crate::vfs::walk::WalkFlags;
use crate::vfs::{FileType, names, touch_atime};

const CWD: Fd = Fd(AT_FDCWD);

/// Implements `mkdir(2)`.
pub(super) fn sys_mkdir(task: &CurrentTask, pathname: UserAddr, mode: u32) -> HandlerResult<()> {
    sys_mkdirat(task, CWD, pathname, mode)
}

/// Implements `mkdirat(2)`.
pub(super) fn sys_mkdirat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
) -> HandlerResult<()> {
    // Set-id bits are ignored; only the sticky bit is not.
    create(task, dirfd, pathname, NodeKind::Directory, mode & 0o1777)
}

/// Implements `mknod(2)`.
pub(super) fn sys_mknod(
    task: &CurrentTask,
    pathname: UserAddr,
    mode: u32,
    dev: u32,
) -> HandlerResult<()> {
    sys_mknodat(task, CWD, pathname, mode, dev)
}

/// Implements `mknodat(2)`.
pub(super) fn sys_mknodat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
    dev: u32,
) -> HandlerResult<()> {
    let kind = names::node_kind(mode, dev.into())?;
    create(task, dirfd, pathname, kind, mode & 0o7777)
}

fn create(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    kind: NodeKind,
    mode: u32,
) -> HandlerResult<()> {
    let path = task.read_path(pathname)?;
    let mut walk = at::walk(task, dirfd, &path, WalkFlags::empty())?;
    names::create(&mut walk, &path, kind, mode)?;
    Ok(())
}

/// Implements `symlink(2)`.
pub(super) fn sys_symlink(
    task: &CurrentTask,
    target: UserAddr,
    linkpath: UserAddr,
) -> HandlerResult<()> {
    sys_symlinkat(task, target, CWD, linkpath)
}

/// Implements `symlinkat(2)`.
pub(super) fn sys_symlinkat(
    task: &CurrentTask,
    target: UserAddr,
    newdirfd: Fd,
    linkpath: UserAddr,
) -> HandlerResult<()> {
    let target = task.read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let path = task.read_path(linkpath)?;
    let mut walk = at::walk(task, newdirfd, &path, WalkFlags::empty())?;
    names::create(&mut walk, &path, NodeKind::Symlink(target), 0o777)?;
    Ok(())
}

/// Implements `link(2)`.
pub(super) fn sys_link(
    task: &CurrentTask,
    oldpath: UserAddr,
    newpath: UserAddr,
) -> HandlerResult<()> {
    sys_linkat(task, CWD, oldpath, CWD, newpath, 0)
}

/// Implements `linkat(2)`.
pub(super) fn sys_linkat(
    task: &CurrentTask,
    olddirfd: Fd,
    oldpath: UserAddr,
    newdirfd: Fd,
    newpath: UserAddr,
    flags: u32,
) -> HandlerResult<()> {
    let flags = at::check_flags(flags, AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH)?;
    let is_privileged = task.creds().has_capability(CAP_DAC_READ_SEARCH);
    if flags.contains(AtFlags::EMPTY_PATH) && !is_privileged {
        return Err(Errno::ENOENT.into());
    }
    let follow = flags.contains(AtFlags::SYMLINK_FOLLOW);
    let nofollow = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let flags = (flags & AtFlags::EMPTY_PATH) | nofollow;
    let target = match at::resolve(task, olddirfd, oldpath, flags)? {
        at::Target::Path(path) => path,
        at::Target::File(_) => return Err(Errno::EXDEV.into()),
    };
    let path = task.read_path(newpath)?;
    let mut walk = at::walk(task, newdirfd, &path, WalkFlags::empty())?;
    Ok(names::link(&mut walk, &target, &path)?)
}

/// Implements `unlink(2)`.
pub(super) fn sys_unlink(task: &CurrentTask, pathname: UserAddr) -> HandlerResult<()> {
    sys_unlinkat(task, CWD, pathname, 0)
}

/// Implements `rmdir(2)`.
pub(super) fn sys_rmdir(task: &CurrentTask, pathname: UserAddr) -> HandlerResult<()> {
    sys_unlinkat(task, CWD, pathname, AtFlags::REMOVEDIR.bits())
}

/// Implements `unlinkat(2)`.
pub(super) fn sys_unlinkat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: u32,
) -> HandlerResult<()> {
    let flags = at::check_flags(flags, AtFlags::REMOVEDIR)?;
    let path = task.read_path(pathname)?;
    let mut walk = at::walk(task, dirfd, &path, WalkFlags::empty())?;
    if flags.contains(AtFlags::REMOVEDIR) {
        names::rmdir(&mut walk, &path)?;
    } else {
        names::unlink(&mut walk, &path)?;
    }
    Ok(())
}

/// Implements `rename(2)`.
///
/// <https://man7.org/linux/man-pages/man2/rename.2.html>
pub(super) fn sys_rename(
    task: &CurrentTask,
    oldpath: UserAddr,
    newpath: UserAddr,
) -> HandlerResult<()> {
    sys_renameat2(task, CWD, oldpath, CWD, newpath, 0)
}

/// Implements `renameat(2)`.
pub(super) fn sys_renameat(
    task: &CurrentTask,
    olddirfd: Fd,
    oldpath: UserAddr,
    newdirfd: Fd,
    newpath: UserAddr,
) -> HandlerResult<()> {
    sys_renameat2(task, olddirfd, oldpath, newdirfd, newpath, 0)
}

/// Implements `renameat2(2)`. `RENAME_WHITEOUT` fails as on a file system that cannot be the upper
/// layer of an overlay.
pub(super) fn sys_renameat2(
    task: &CurrentTask,
    olddirfd: Fd,
    oldpath: UserAddr,
    newdirfd: Fd,
    newpath: UserAddr,
    flags: u32,
) -> HandlerResult<()> {
    let flags = RenameFlags::from_bits_retain(flags);
    let contradicts = flags.contains(RenameFlags::EXCHANGE)
        && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT);
    if flags.has_unknown_bits() || contradicts || flags.contains(RenameFlags::WHITEOUT) {
        return Err(Errno::EINVAL.into());
    }
    let old = task.read_path(oldpath)?;
    let new = task.read_path(newpath)?;
    let mut old_walk = at::walk(task, olddirfd, &old, WalkFlags::empty())?;
    let mut new_walk = at::walk(task, newdirfd, &new, WalkFlags::empty())?;
    Ok(names::rename(&mut old_walk, &old, &mut new_walk, &new, flags)?)
}

/// Implements `readlink(2)`.
pub(super) fn sys_readlink(
    task: &CurrentTask,
    pathname: UserAddr,
    buf: UserAddr,
    bufsiz: i32,
) -> HandlerResult<usize> {
    sys_readlinkat(task, CWD, pathname, buf, bufsiz)
}

/// Implements `readlinkat(2)`. An empty path is the descriptor itself.
pub(super) fn sys_readlinkat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    buf: UserAddr,
    bufsiz: i32,
) -> HandlerResult<usize> {
    let room = usize::try_from(bufsiz).ok().filter(|room| *room > 0).ok_or(Errno::EINVAL)?;
    let path = task.read_path(pathname)?;
    let link = if path.is_empty() {
        if dirfd == CWD {
            return Err(Errno::ENOENT.into());
        }
        let file = task.files().get_any(dirfd.0)?;
        file.path.clone().ok_or(Errno::ENOENT)?
    } else {
        at::walk(task, dirfd, &path, WalkFlags::empty())?.resolve(&path)?
    };
    if link.inode().file_type() != FileType::Symlink {
        return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL }.into());
    }
    let target = link.inode().readlink(Some(task))?;
    touch_atime(&link);
    let n = target.len().min(room);
    task.write_bytes(buf, target.get(..n).unwrap_or_default())?;
    Ok(n)
}
