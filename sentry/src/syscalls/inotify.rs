//! `inotify(7)`.

use syscalls::abi::inotify::{InotifyInitFlags, InotifyMask};
use syscalls::arg::Fd;
use syscalls::{Errno, UserAddr};

use super::fd::install;
use crate::fs::inotify::Inotify;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;
use crate::vfs::permission::{self, MAY_READ};
use crate::vfs::walk::{Walk, WalkFlags};

/// Implements `inotify_init(2)`.
pub(super) fn sys_inotify_init(task: &CurrentTask) -> HandlerResult<Fd> {
    sys_inotify_init1(task, InotifyInitFlags::empty())
}

/// Implements `inotify_init1(2)`.
pub(super) fn sys_inotify_init1(task: &CurrentTask, flags: InotifyInitFlags) -> HandlerResult<Fd> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let kept = (flags & InotifyInitFlags::NONBLOCK).bits();
    let file = OpenFile::new(Inotify::new(task)?, None, kept);
    Ok(install(task, file, flags.contains(InotifyInitFlags::CLOEXEC))?)
}

/// Implements `inotify_add_watch(2)`.
///
/// <https://man7.org/linux/man-pages/man2/inotify_add_watch.2.html>
pub(super) fn sys_inotify_add_watch(
    task: &CurrentTask,
    fd: Fd,
    pathname: UserAddr,
    mask: InotifyMask,
) -> HandlerResult<i32> {
    let valid = InotifyMask::all();
    if !mask.intersects(valid) {
        return Err(Errno::EINVAL.into());
    }
    let file = task.file(fd.0)?;
    if mask.contains(InotifyMask::MASK_ADD | InotifyMask::MASK_CREATE) {
        return Err(Errno::EINVAL.into());
    }
    let inotify = downcast::<Inotify>(&file.file).ok_or(Errno::EINVAL)?;
    let path = task.read_path(pathname)?;
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::FOLLOW, !mask.contains(InotifyMask::DONT_FOLLOW));
    flags.set(WalkFlags::DIRECTORY, mask.contains(InotifyMask::ONLYDIR));
    let found = Walk::from_cwd(task, flags).resolve(&path)?;
    let inode = found.inode();
    permission::check(&task.creds(), &**inode, &inode.attr()?, MAY_READ)?;
    Ok(inotify.add(&found.dentry, mask)?)
}

/// Implements `inotify_rm_watch(2)`.
pub(super) fn sys_inotify_rm_watch(task: &CurrentTask, fd: Fd, wd: i32) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    let inotify = downcast::<Inotify>(&file.file).ok_or(Errno::EINVAL)?;
    Ok(inotify.remove(wd)?)
}
