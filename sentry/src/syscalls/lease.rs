//! Leases and directory notification, as `fcntl(2)` gives them, and the wait of those who open a
//! file with a lease.

use std::sync::Arc;

use syscalls::abi::capability::CAP_LEASE;
use syscalls::abi::fs::{DnFlags, F_RDLCK, F_UNLCK, F_WRLCK, OpenFlags};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult};

use super::{async_io, at};
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::{CurrentTask, HandlerResult, Restart};
use crate::vfs::permission::{self, MAY_READ, MAY_WRITE};
use crate::vfs::walk::WalkFlags;
use crate::vfs::{FileType, Inode, OpenFile, lease};

/// `F_SETLEASE`
pub(super) fn set(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>, kind: i32) -> HandlerResult {
    let is_write = match kind {
        kind if kind == i32::from(F_WRLCK) => Some(true),
        kind if kind == i32::from(F_RDLCK) => Some(false),
        kind if kind == i32::from(F_UNLCK) => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let inode = file.file.inode().ok_or(Errno::EINVAL)?;
    let creds = task.creds();
    if creds.fsuid != inode.attr()?.uid && !creds.has_capability(CAP_LEASE) {
        return Err(Errno::EACCES.into());
    }
    if inode.file_type() != FileType::Regular {
        return Err(Errno::EINVAL.into());
    }
    let extras = inode.extras();
    match is_write {
        None => lease::unset(extras, file)?,
        Some(is_write) => {
            let messenger = async_io::messenger(task, fd, file);
            lease::set(extras, file, is_write, messenger)?;
            async_io::own(task, file);
        }
    }
    Ok(0)
}

/// `F_GETLEASE`
pub(super) fn get(file: &OpenFile) -> HandlerResult {
    let inode = file.file.inode();
    let kind = match inode.and_then(|inode| lease::get(inode.extras(), file)) {
        Some(true) => F_WRLCK,
        Some(false) => F_RDLCK,
        None => F_UNLCK,
    };
    Ok(u64::from(kind.unsigned_abs()))
}

/// `F_NOTIFY`
pub(super) fn notify(
    task: &CurrentTask,
    fd: Fd,
    file: &Arc<OpenFile>,
    events: u32,
) -> HandlerResult {
    let events = DnFlags::from_bits_retain(events);
    let inode = file.file.inode();
    let is_dir = inode.as_ref().is_some_and(|inode| inode.file_type() == FileType::Directory);
    let is_end = (events & !DnFlags::MULTISHOT).is_empty();
    match inode {
        Some(inode) if is_dir => {
            let messenger = async_io::messenger(task, fd, file);
            lease::set_notify(inode.extras(), file, events, messenger);
            if !is_end {
                async_io::own(task, file);
            }
            Ok(0)
        }
        _ if is_end => Ok(0),
        _ => Err(Errno::ENOTDIR.into()),
    }
}

/// Waits until no lease keeps the caller from opening `path`.
///
/// # Errors
/// `EWOULDBLOCK` under `O_NONBLOCK`.
pub(super) fn before_open(
    task: &CurrentTask,
    dirfd: Fd,
    path: &[u8],
    flags: OpenFlags,
    walk_flags: WalkFlags,
) -> HandlerResult<()> {
    if !lease::is_any() || flags.contains(OpenFlags::PATH) {
        return Ok(());
    }
    let follow =
        if flags.contains(OpenFlags::NOFOLLOW) { WalkFlags::empty() } else { WalkFlags::FOLLOW };
    let walk = at::walk(task, dirfd, path, walk_flags | follow);
    let Ok(found) = walk.and_then(|mut walk| walk.resolve(path)) else { return Ok(()) };
    let is_write = flags.access_mode() != 0 || flags.contains(OpenFlags::TRUNC);
    let is_new = flags.contains(OpenFlags::CREAT | OpenFlags::EXCL);
    if is_new || !may_open(task, found.inode(), is_write)? {
        return Ok(());
    }
    wait(task, found.inode().as_ref(), is_write, flags.contains(OpenFlags::NONBLOCK))
}

fn may_open(task: &CurrentTask, inode: &Arc<dyn Inode>, is_write: bool) -> SysResult<bool> {
    let wanted = if is_write { MAY_WRITE } else { MAY_READ };
    Ok(inode.file_type() == FileType::Regular
        && permission::check(&task.creds(), &**inode, &inode.attr()?, wanted).is_ok())
}

/// Waits until no lease keeps the caller from reading, or writing, a file.
///
/// # Errors
/// `EWOULDBLOCK` where `is_nonblocking`.
pub(super) fn wait(
    task: &CurrentTask,
    inode: &dyn Inode,
    is_write: bool,
    is_nonblocking: bool,
) -> HandlerResult<()> {
    if !lease::is_any() {
        return Ok(());
    }
    let extras = inode.extras();
    if is_nonblocking {
        let is_broken = lease::is_broken(extras, is_write);
        return if is_broken { Ok(()) } else { Err(Errno::EWOULDBLOCK.into()) };
    }
    let seconds = task.kernel.sysctls.number("fs/lease-break-time", 0).unwrap_or(0);
    let time = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
    let deadline = task.kernel.clock.monotonic_ns().saturating_add(time);
    let waited = task.wait_for(
        (time != 0).then_some(deadline),
        Restart::Sys,
        |waiter| vec![extras.lock_waiters.register(waiter, Events::IN, 0)],
        || Ok(lease::is_broken(extras, is_write).then_some(())),
    )?;
    if waited == Wait::TimedOut {
        lease::force(extras, is_write);
    }
    Ok(())
}
