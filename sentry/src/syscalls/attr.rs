//! Changing attributes: mode, owner, times, size.

use syscalls::abi::fs::{
    AT_FDCWD, AtFlags, FallocFlags, OpenFlags, UTIME_NOW, UTIME_OMIT, Utimbuf,
};
use syscalls::abi::landlock::AccessFs;
use syscalls::abi::resource::RLIMIT_FSIZE;
use syscalls::abi::signal::SIGXFSZ;
use syscalls::abi::time::{Timespec, Timeval};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::at::{self, Target};
use super::lease;
use crate::task::{CurrentTask, HandlerResult, signal};
use crate::vfs::path::Path;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{FileType, SetAttr, SetTime, Timestamp, change, notify};

const CWD: Fd = Fd(AT_FDCWD);

/// Implements `chmod(2)`.
pub(super) fn sys_chmod(task: &CurrentTask, pathname: UserAddr, mode: u32) -> HandlerResult<()> {
    do_chmod(task, CWD, pathname, mode, AtFlags::empty())
}

/// Implements `fchmod(2)`.
pub(super) fn sys_fchmod(task: &CurrentTask, fd: Fd, mode: u32) -> HandlerResult<()> {
    task.file(fd.0)?;
    match Target::of_fd(task, fd)? {
        Target::Path(path) => Ok(change::chmod(&task.creds(), &path, mode)?),
        Target::File(file) => {
            let inode = file.file.inode().ok_or(Errno::EINVAL)?;
            let change = SetAttr { mode: Some(mode & 0o7777), ..SetAttr::default() };
            Ok(inode.set_attr(&change)?)
        }
    }
}

/// Implements `fchmodat(2)` as the system call has it: without flags.
pub(super) fn sys_fchmodat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
) -> HandlerResult<()> {
    do_chmod(task, dirfd, pathname, mode, AtFlags::empty())
}

/// Implements `fchmodat2(2)`.
pub(super) fn sys_fchmodat2(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
    flags: u32,
) -> HandlerResult<()> {
    let flags = at::check_flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    do_chmod(task, dirfd, pathname, mode, flags)
}

fn do_chmod(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
    flags: AtFlags,
) -> HandlerResult<()> {
    let path = at::resolve(task, dirfd, pathname, flags)?.path()?;
    Ok(change::chmod(&task.creds(), &path, mode)?)
}

/// Implements `chown(2)`.
pub(super) fn sys_chown(
    task: &CurrentTask,
    pathname: UserAddr,
    owner: u32,
    group: u32,
) -> HandlerResult<()> {
    sys_fchownat(task, CWD, pathname, owner, group, 0)
}

/// Implements `lchown(2)`.
pub(super) fn sys_lchown(
    task: &CurrentTask,
    pathname: UserAddr,
    owner: u32,
    group: u32,
) -> HandlerResult<()> {
    sys_fchownat(task, CWD, pathname, owner, group, AtFlags::SYMLINK_NOFOLLOW.bits())
}

/// Implements `fchown(2)`.
pub(super) fn sys_fchown(task: &CurrentTask, fd: Fd, owner: u32, group: u32) -> HandlerResult<()> {
    task.file(fd.0)?;
    let path = Target::of_fd(task, fd)?.path()?;
    Ok(change_owner(task, &path, owner, group)?)
}

/// Implements `fchownat(2)`.
pub(super) fn sys_fchownat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    owner: u32,
    group: u32,
    flags: u32,
) -> HandlerResult<()> {
    let flags = at::check_flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let path = at::resolve(task, dirfd, pathname, flags)?.path()?;
    Ok(change_owner(task, &path, owner, group)?)
}

/// Checks that the ids exist in the caller's user namespace, then changes those that are given.
fn change_owner(task: &CurrentTask, path: &Path, owner: u32, group: u32) -> SysResult<()> {
    let creds = task.creds();
    let kuid = |uid| creds.user_ns.kuid(uid).ok_or(Errno::EINVAL);
    let kgid = |gid| creds.user_ns.kgid(gid).ok_or(Errno::EINVAL);
    let owner = id(owner).map(kuid).transpose()?;
    let group = id(group).map(kgid).transpose()?;
    change::chown(&creds, path, owner, group)
}

/// -1 leaves an id as it is.
fn id(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

/// Access and modification time as a call gives them; `None` is a null pointer: both now.
type Times = Option<[Timespec; 2]>;

/// Implements `utime(2)`.
pub(super) fn sys_utime(
    task: &CurrentTask,
    filename: UserAddr,
    times: UserPtr<Utimbuf>,
) -> HandlerResult<()> {
    let times = if times.is_null() {
        None
    } else {
        let times = task.read_obj(times)?;
        let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        Some([at(times.actime), at(times.modtime)])
    };
    do_utimes(task, CWD, filename, times, AtFlags::empty())
}

/// Implements `utimes(2)`.
pub(super) fn sys_utimes(
    task: &CurrentTask,
    filename: UserAddr,
    times: UserPtr<[Timeval; 2]>,
) -> HandlerResult<()> {
    sys_futimesat(task, CWD, filename, times)
}

/// Implements `futimesat(2)`. A null path is the descriptor itself.
pub(super) fn sys_futimesat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    times: UserPtr<[Timeval; 2]>,
) -> HandlerResult<()> {
    let times = if times.is_null() {
        None
    } else {
        let times = task.read_obj(times)?;
        if times.iter().any(|time| !(0..1_000_000).contains(&time.tv_usec)) {
            return Err(Errno::EINVAL.into());
        }
        Some(times.map(|time| Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_usec * 1000 }))
    };
    let flags = if pathname.is_null() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
    do_utimes(task, dirfd, pathname, times, flags)
}

/// Implements `utimensat(2)`. A null path is the descriptor itself: `futimens(3)`.
///
/// <https://man7.org/linux/man-pages/man2/utimensat.2.html>
pub(super) fn sys_utimensat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> HandlerResult<()> {
    let times = if times.is_null() { None } else { Some(task.read_obj(times)?) };
    if let Some(times) = &times {
        let is_special = |nsec| nsec == UTIME_NOW || nsec == UTIME_OMIT;
        let is_valid = |nsec| is_special(nsec) || (0..1_000_000_000).contains(&nsec);
        if times.iter().any(|time| !is_valid(time.tv_nsec)) {
            return Err(Errno::EINVAL.into());
        }
        if times.iter().all(|time| time.tv_nsec == UTIME_OMIT) {
            return Ok(());
        }
    }
    if pathname.is_null() && dirfd != CWD {
        if flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        task.file(dirfd.0)?;
        return do_utimes(task, dirfd, pathname, times, AtFlags::EMPTY_PATH);
    }
    let flags = at::check_flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    do_utimes(task, dirfd, pathname, times, flags)
}

fn do_utimes(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    times: Times,
    flags: AtFlags,
) -> HandlerResult<()> {
    let path = at::resolve(task, dirfd, pathname, flags)?.path()?;
    let set = |time: Timespec| match time.tv_nsec {
        UTIME_NOW => Some(SetTime::Now),
        UTIME_OMIT => None,
        nsec => Some(SetTime::At(Timestamp {
            sec: time.tv_sec,
            nsec: u32::try_from(nsec).unwrap_or(0),
        })),
    };
    let (atime, mtime) = match times {
        None => (Some(SetTime::Now), Some(SetTime::Now)),
        Some([atime, mtime]) => (set(atime), set(mtime)),
    };
    let is_now = atime == Some(SetTime::Now) && mtime == Some(SetTime::Now);
    Ok(change::set_times(&task.creds(), &path, atime, mtime, is_now)?)
}

/// Implements `truncate(2)`.
///
/// <https://man7.org/linux/man-pages/man2/truncate.2.html>
pub(super) fn sys_truncate(
    task: &CurrentTask,
    pathname: UserAddr,
    length: i64,
) -> HandlerResult<()> {
    let size = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let path = task.read_path(pathname)?;
    let path = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(&path)?;
    check_size(task, size)?;
    lease::wait(task, path.inode().as_ref(), true, false)?;
    Ok(change::truncate_path(&task.creds(), &path, size)?)
}

/// Implements `ftruncate(2)`.
pub(super) fn sys_ftruncate(task: &CurrentTask, fd: Fd, length: i64) -> HandlerResult<()> {
    let size = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let file = task.file(fd.0)?;
    let path = file.path.as_ref().filter(|path| path.inode().file_type() == FileType::Regular);
    let (Some(path), true) = (path, file.is_writable()) else {
        return Err(Errno::EINVAL.into());
    };
    check_size(task, size)?;
    file.check_not_refused(AccessFs::TRUNCATE)?;
    Ok(change::truncate(&task.creds(), path, size)?)
}

fn check_size(task: &CurrentTask, size: u64) -> SysResult<()> {
    if size > task.group.limits.lock().soft(RLIMIT_FSIZE) {
        signal::send_to_self(task, SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

/// Implements `fallocate(2)`.
///
/// <https://man7.org/linux/man-pages/man2/fallocate.2.html>
pub(super) fn sys_fallocate(
    task: &CurrentTask,
    fd: Fd,
    mode: u32,
    offset: i64,
    len: i64,
) -> HandlerResult<()> {
    let file = task.file(fd.0)?;
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(len).ok().filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
    let mode = FallocFlags::from_bits_retain(mode);
    let is_punch = mode.contains(FallocFlags::PUNCH_HOLE);
    if mode.has_unknown_bits()
        || (is_punch && mode.contains(FallocFlags::ZERO_RANGE))
        || (is_punch && !mode.contains(FallocFlags::KEEP_SIZE))
    {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if !file.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let Some(path) = &file.path else { return Err(Errno::ESPIPE.into()) };
    match path.inode().file_type() {
        FileType::Regular => {}
        FileType::Fifo => return Err(Errno::ESPIPE.into()),
        FileType::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    if end > i64::MAX.unsigned_abs() {
        return Err(Errno::EFBIG.into());
    }
    if !mode.contains(FallocFlags::KEEP_SIZE) {
        check_size(task, end)?;
    }
    let appends = file.flags_set().contains(OpenFlags::APPEND);
    if appends && mode.intersects(!FallocFlags::KEEP_SIZE) {
        return Err(Errno::EPERM.into());
    }
    file.file.allocate(mode.bits(), offset, len)?;
    notify::file(&path.dentry, notify::IN_MODIFY);
    Ok(())
}
