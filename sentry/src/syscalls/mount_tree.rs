//! Mounts by descriptor: `open_tree(2)`, `move_mount(2)`.

use syscalls::abi::fs::{AtFlags, OpenFlags};
use syscalls::abi::mount::{MoveMountFlags, OpenTreeFlags};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::{at, fd, mount};
use crate::fs::nsfs;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{Path, open};

const RECURSIVE: u32 = AtFlags::RECURSIVE.bits();

/// Gives a place a descriptor as `open(2)` does with `O_PATH`.
pub(super) fn install_place(task: &CurrentTask, path: Path, is_cloexec: bool) -> SysResult<Fd> {
    let file = open::open_path(task, path, OpenFlags::PATH, false)?;
    fd::install(task, file, is_cloexec)
}

/// Implements `open_tree(2)`.
///
/// <https://man7.org/linux/man-pages/man2/open_tree.2.html>
pub(super) fn sys_open_tree(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: OpenTreeFlags,
) -> HandlerResult<Fd> {
    let known = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let is_clone = flags.contains(OpenTreeFlags::OPEN_TREE_CLONE);
    let is_cloexec = flags.contains(OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let walk = flags.bits() & !known.bits();
    let is_recursive = walk & RECURSIVE != 0;
    let walk_flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let walk = at::check_flags(walk & !RECURSIVE, walk_flags)?;
    if is_recursive && !is_clone {
        return Err(Errno::EINVAL.into());
    }
    if is_clone {
        mount::check_privilege(task)?;
    }
    let path = at::resolve(task, dirfd, pathname, walk)?.path()?;
    if !is_clone {
        return Ok(install_place(task, path, is_cloexec)?);
    }
    let path = path.topmost();
    let copy = if nsfs::namespace_at(&path).is_some() {
        path.mount.copy_of(&path.dentry)?
    } else {
        task.fs().namespace().clone_tree(&path, is_recursive)?
    };
    let dentry = copy.root.clone();
    Ok(install_place(task, Path { mount: copy, dentry }, is_cloexec)?)
}

/// Implements `move_mount(2)`.
///
/// <https://man7.org/linux/man-pages/man2/move_mount.2.html>
pub(super) fn sys_move_mount(
    task: &CurrentTask,
    from_dirfd: Fd,
    from_pathname: UserAddr,
    to_dirfd: Fd,
    to_pathname: UserAddr,
    flags: MoveMountFlags,
) -> HandlerResult<()> {
    mount::check_privilege(task)?;
    let refused = MoveMountFlags::SET_GROUP | MoveMountFlags::BENEATH;
    if flags.has_unknown_bits() || flags.intersects(refused) {
        return Err(Errno::EINVAL.into());
    }
    let walk = |follow, empty| {
        let mut walk = AtFlags::empty();
        walk.set(AtFlags::SYMLINK_NOFOLLOW, !flags.contains(follow));
        walk.set(AtFlags::EMPTY_PATH, flags.contains(empty));
        walk
    };
    let from_walk = walk(MoveMountFlags::F_SYMLINKS, MoveMountFlags::F_EMPTY_PATH);
    let to_walk = walk(MoveMountFlags::T_SYMLINKS, MoveMountFlags::T_EMPTY_PATH);
    let from = at::resolve(task, from_dirfd, from_pathname, from_walk)?.path()?;
    let to = at::resolve(task, to_dirfd, to_pathname, to_walk)?.path()?;
    Ok(task.fs().namespace().place(&from, &to)?)
}
