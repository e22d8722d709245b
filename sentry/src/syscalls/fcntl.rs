//! `fcntl(2)`, `flock(2)` and the requests of `ioctl(2)` that any file has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::fs::{
    F_ADD_SEALS, F_CREATED_QUERY, F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_GET_SEALS, F_GETFD,
    F_GETFL, F_GETLEASE, F_GETLK, F_GETOWN, F_GETOWN_EX, F_GETPIPE_SZ, F_GETSIG, F_NOTIFY,
    F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_RDLCK,
    F_SETFD, F_SETFL, F_SETLEASE, F_SETLK, F_SETLKW, F_SETOWN, F_SETOWN_EX, F_SETPIPE_SZ, F_SETSIG,
    F_UNLCK, F_WRLCK, FD_CLOEXEC, FOwnerEx, Flock, LockFlags, OpenFlags, SEEK_CUR, SEEK_END,
    SEEK_SET, SealFlags,
};
use syscalls::abi::ioctl::{
    FICLONE, FICLONERANGE, FIDEDUPERANGE, FIFREEZE, FIGETBSZ, FIOASYNC, FIOCLEX, FIOGETOWN,
    FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE, FIOSETOWN, FITHAW, FS_IOC_FIEMAP, SIOCGPGRP, SIOCSPGRP,
};
use syscalls::abi::landlock::AccessFs;
use syscalls::abi::signal::SIGRTMAX;
use syscalls::arg::{Fd, FromArg};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::{async_io, fd, lease};
use crate::net::SocketFile;
use crate::sync::Events;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};
use crate::vfs::file::{FileOwner, downcast};
use crate::vfs::lock::{self, Owner, Record};
use crate::vfs::{FileFlags, FileType, Inode, OpenFile, permission};

/// The flags that `F_SETFL` can change.
const SETFL_FLAGS: OpenFlags = OpenFlags::APPEND
    .union(OpenFlags::ASYNC)
    .union(OpenFlags::DIRECT)
    .union(OpenFlags::NOATIME)
    .union(OpenFlags::NONBLOCK);

/// Implements `fcntl(2)`.
///
/// <https://man7.org/linux/man-pages/man2/fcntl.2.html>
pub(super) fn sys_fcntl(task: &CurrentTask, fd: Fd, op: u32, arg: u64) -> HandlerResult {
    let files = task.files();
    let file = files.get_any(fd.0)?;
    match op {
        F_DUPFD | F_DUPFD_CLOEXEC => return dup_from(task, file, arg, op == F_DUPFD_CLOEXEC),
        F_GETFD => return Ok(if files.is_cloexec(fd.0)? { FD_CLOEXEC.into() } else { 0 }),
        F_SETFD => {
            files.set_cloexec(fd.0, u32::from_arg(arg) & FD_CLOEXEC != 0)?;
            return Ok(0);
        }
        F_GETFL => return Ok(file.flags().into()),
        F_DUPFD_QUERY => {
            let other = files.get_any(i32::from_arg(arg))?;
            return Ok(Arc::ptr_eq(&file, &other).into());
        }
        F_CREATED_QUERY => return Ok(file.is_created.load(Ordering::Relaxed).into()),
        _ if file.is_path() => return Err(Errno::EBADF.into()),
        _ => {}
    }
    match op {
        F_SETFL => set_flags(task, fd, &file, OpenFlags::from_bits_retain(u32::from_arg(arg))),
        F_GETLK | F_OFD_GETLK => get_lock(task, &file, UserPtr::from_arg(arg), op == F_OFD_GETLK),
        F_SETLK | F_SETLKW => {
            set_lock(task, fd, &file, UserPtr::from_arg(arg), false, op == F_SETLKW)
        }
        F_OFD_SETLK | F_OFD_SETLKW => {
            set_lock(task, fd, &file, UserPtr::from_arg(arg), true, op == F_OFD_SETLKW)
        }
        F_SETOWN | F_GETOWN | F_SETSIG | F_GETSIG | F_SETOWN_EX | F_GETOWN_EX => {
            let result = owner(task, &file, op, arg)?;
            if matches!(op, F_SETOWN | F_SETOWN_EX) {
                async_io::owner_changed(task, fd, &file);
            }
            Ok(result)
        }
        F_SETLEASE => lease::set(task, fd, &file, i32::from_arg(arg)),
        F_GETLEASE => lease::get(&file),
        F_NOTIFY => lease::notify(task, fd, &file, u32::from_arg(arg)),
        F_GETPIPE_SZ => Ok(file.file.pipe_size(task, None)?.into()),
        F_SETPIPE_SZ => Ok(file.file.pipe_size(task, Some(u32::from_arg(arg)))?.into()),
        F_GET_SEALS => Ok(file.file.seals()?.into()),
        F_ADD_SEALS => add_seals(&file, u32::from_arg(arg)),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn dup_from(task: &CurrentTask, file: Arc<OpenFile>, from: u64, cloexec: bool) -> HandlerResult {
    let limit = fd::limit(task);
    let from = u32::from_arg(from);
    if u64::from(from) >= limit {
        return Err(Errno::EINVAL.into());
    }
    let from = usize::try_from(from).map_err(|_| Errno::EINVAL)?;
    let fd = task.files().install_from(from, file, cloexec, limit)?;
    Ok(u64::try_from(fd).unwrap_or(0))
}

fn set_flags(task: &CurrentTask, fd: Fd, file: &Arc<OpenFile>, flags: OpenFlags) -> HandlerResult {
    let old = file.flags_set();
    if flags.contains(OpenFlags::NOATIME)
        && !old.contains(OpenFlags::NOATIME)
        && !permission::is_owner(&task.creds(), &file.file.attr()?)
    {
        return Err(Errno::EPERM.into());
    }
    if old.contains(OpenFlags::APPEND)
        && !flags.contains(OpenFlags::APPEND)
        && file.file.attr().is_ok_and(|attr| attr.flags.contains(FileFlags::APPEND))
    {
        return Err(Errno::EPERM.into());
    }
    file.set_flags(((old & !SETFL_FLAGS) | (flags & SETFL_FLAGS)).bits());
    async_io::update(task, fd, file);
    Ok(0)
}

fn add_seals(file: &OpenFile, seals: u32) -> HandlerResult {
    let seals = SealFlags::from_bits_retain(seals);
    if !file.is_writable() {
        return Err(Errno::EPERM.into());
    }
    if seals.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    file.file.add_seals(seals.bits())?;
    Ok(0)
}

/// Who gets SIGIO, and which signal that is.
fn owner(task: &CurrentTask, file: &OpenFile, op: u32, arg: u64) -> HandlerResult {
    let exists = |pid: i32| pid == 0 || task.pid_namespace().has(pid.unsigned_abs());
    let mut owner = file.owner.lock();
    match op {
        F_SETOWN => {
            let pid = i32::from_arg(arg);
            if pid == i32::MIN {
                return Err(Errno::EINVAL.into());
            }
            if !exists(pid) {
                return Err(Errno::ESRCH.into());
            }
            let kind = if pid < 0 { F_OWNER_PGRP } else { F_OWNER_PID };
            *owner = FileOwner { pid: pid.abs(), kind, ..*owner };
        }
        F_GETOWN => {
            let pid = if owner.kind == F_OWNER_PGRP { -owner.pid } else { owner.pid };
            return Ok(i64::from(pid).cast_unsigned());
        }
        F_SETSIG => {
            let signo = i32::from_arg(arg);
            if !(0..=SIGRTMAX).contains(&signo) {
                return Err(Errno::EINVAL.into());
            }
            owner.signo = signo;
        }
        F_GETSIG => return Ok(u64::from(owner.signo.unsigned_abs())),
        F_SETOWN_EX => {
            let new = task.read_obj::<FOwnerEx>(UserPtr::from_arg(arg))?;
            if !(F_OWNER_TID..=F_OWNER_PGRP).contains(&new.kind) {
                return Err(Errno::EINVAL.into());
            }
            if new.pid < 0 || !exists(new.pid) {
                return Err(Errno::ESRCH.into());
            }
            *owner = FileOwner { pid: new.pid, kind: new.kind, ..*owner };
        }
        _ => {
            let current = FOwnerEx { kind: owner.kind, pid: owner.pid };
            task.write_obj(UserPtr::from_arg(arg), &current)?;
        }
    }
    Ok(0)
}

/// The range of a `struct flock`: first and last byte.
fn lock_range(file: &OpenFile, flock: &Flock) -> SysResult<(u64, u64)> {
    let whence = u32::try_from(flock.l_whence).map_err(|_| Errno::EINVAL)?;
    let base = match whence {
        SEEK_SET => 0,
        SEEK_CUR => i64::try_from(*file.offset.lock()).map_err(|_| Errno::EOVERFLOW)?,
        SEEK_END => i64::try_from(file.file.attr()?.size).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(flock.l_start).ok_or(Errno::EOVERFLOW)?;
    let (start, last) = match flock.l_len {
        0 => (start, None),
        len @ 1.. => (start, Some(start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?)),
        len => {
            let first = start.checked_add(len).ok_or(Errno::EINVAL)?;
            (first, Some(start - 1))
        }
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    // A range that ends at the largest offset reaches to the end of any file.
    let last = match last {
        None | Some(i64::MAX) => u64::MAX,
        Some(last) => u64::try_from(last).map_err(|_| Errno::EINVAL)?,
    };
    Ok((start, last))
}

fn record(task: &CurrentTask, file: &OpenFile, flock: &Flock, is_ofd: bool) -> SysResult<Record> {
    if is_ofd && flock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let (start, last) = lock_range(file, flock)?;
    let pid = i32::try_from(task.group.pid_in(&task.pid_namespace())).unwrap_or(0);
    Ok(Record {
        start,
        last,
        is_write: flock.l_type == F_WRLCK,
        owner: if is_ofd { Owner::open_file(file) } else { Owner::Process(task.files().id) },
        pid: if is_ofd { -1 } else { pid },
    })
}

fn inode_of(file: &OpenFile) -> SysResult<Arc<dyn Inode>> {
    file.file.inode().ok_or(Errno::EINVAL)
}

fn get_lock(
    task: &CurrentTask,
    file: &OpenFile,
    ptr: UserPtr<Flock>,
    is_ofd: bool,
) -> HandlerResult {
    let mut flock = task.read_obj(ptr)?;
    let asks_for_own = is_ofd && flock.l_type == F_UNLCK;
    if flock.l_type != F_RDLCK && flock.l_type != F_WRLCK && !asks_for_own {
        return Err(Errno::EINVAL.into());
    }
    let wanted = record(task, file, &flock, is_ofd)?;
    let inode = inode_of(file)?;
    let extras = inode.extras();
    let held = if asks_for_own { lock::own(extras, &wanted) } else { lock::test(extras, &wanted) };
    match held {
        None => flock.l_type = F_UNLCK,
        Some(held) => {
            flock.l_type = if held.is_write { F_WRLCK } else { F_RDLCK };
            flock.l_whence = 0;
            flock.l_start = i64::try_from(held.start).unwrap_or(i64::MAX);
            flock.l_len = match held.last {
                u64::MAX => 0,
                last => i64::try_from(last - held.start + 1).unwrap_or(i64::MAX),
            };
            flock.l_pid = held.pid;
        }
    }
    task.write_obj(ptr, &flock)?;
    Ok(0)
}

fn set_lock(
    task: &CurrentTask,
    fd: Fd,
    file: &Arc<OpenFile>,
    ptr: UserPtr<Flock>,
    is_ofd: bool,
    will_wait: bool,
) -> HandlerResult {
    let flock = task.read_obj(ptr)?;
    let wanted = record(task, file, &flock, is_ofd)?;
    let inode = inode_of(file)?;
    match flock.l_type {
        F_UNLCK => {
            lock::unset(inode.extras(), &wanted);
            return Ok(0);
        }
        F_RDLCK if file.is_readable() => {}
        F_WRLCK if file.is_writable() => {}
        F_RDLCK | F_WRLCK => return Err(Errno::EBADF.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    if is_ofd {
        lock::mark(file);
    }
    let waits = will_wait && !is_ofd;
    let attempt = || lock::set(inode.extras(), wanted, waits);
    let result = wait_for_lock(task, inode.as_ref(), will_wait, attempt);
    if waits && !matches!(result, Err(Control::Block)) {
        lock::stop_waiting(wanted.owner);
    }
    result?;
    // Another thread may have closed the descriptor meanwhile; its locks would stay for good.
    let is_open = task.files().get_any(fd.0).is_ok_and(|now| Arc::ptr_eq(&now, file));
    if !is_open && !is_ofd {
        lock::unset(inode.extras(), &wanted);
        return Err(Errno::EBADF.into());
    }
    Ok(0)
}

fn wait_for_lock(
    task: &CurrentTask,
    inode: &dyn Inode,
    will_wait: bool,
    attempt: impl Fn() -> SysResult<()>,
) -> HandlerResult<()> {
    if !will_wait {
        return Ok(attempt()?);
    }
    task.wait_for(
        None,
        Restart::Sys,
        |waiter| vec![inode.extras().lock_waiters.register(waiter, Events::IN, 0)],
        || match attempt() {
            Ok(()) => Ok(Some(())),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        },
    )?;
    Ok(())
}

/// Implements `flock(2)`.
///
/// <https://man7.org/linux/man-pages/man2/flock.2.html>
pub(super) fn sys_flock(task: &CurrentTask, fd: Fd, operation: u32) -> HandlerResult<()> {
    let operation = LockFlags::from_bits_retain(operation);
    let will_wait = !operation.contains(LockFlags::NB);
    let kind = operation & !LockFlags::NB;
    let is_exclusive = kind == LockFlags::EX;
    if !is_exclusive && kind != LockFlags::SH && kind != LockFlags::UN {
        return Err(Errno::EINVAL.into());
    }
    let file = task.file(fd.0)?;
    let inode = inode_of(&file)?;
    let owner = Owner::open_file(&file);
    if kind == LockFlags::UN {
        lock::unflock(inode.extras(), owner);
        return Ok(());
    }
    lock::mark(&file);
    wait_for_lock(task, inode.as_ref(), will_wait, || {
        lock::flock(inode.extras(), owner, is_exclusive)
    })
}

/// Implements `ioctl(2)`: the requests that every file has; the others are the file's.
///
/// <https://man7.org/linux/man-pages/man2/ioctl.2.html>
pub(super) fn sys_ioctl(task: &CurrentTask, fd: Fd, request: u32, arg: u64) -> HandlerResult {
    let files = task.files();
    let file = files.get(fd.0)?;
    check_device(&file, request)?;
    let read_int = || task.read_obj::<i32>(UserPtr::new(UserAddr(arg)));
    let write_int = |value: i32| task.write_obj(UserPtr::new(UserAddr(arg)), &value);
    let set = |flag: OpenFlags, on: bool| {
        let flags = file.flags_set();
        file.set_flags(if on { flags | flag } else { flags & !flag }.bits());
    };
    match request {
        FIOCLEX => files.set_cloexec(fd.0, true)?,
        FIONCLEX => files.set_cloexec(fd.0, false)?,
        FIONBIO => set(OpenFlags::NONBLOCK, read_int()? != 0),
        FIOASYNC => {
            set(OpenFlags::ASYNC, read_int()? != 0);
            async_io::update(task, fd, &file);
        }
        FIONREAD if is_regular(&file) => {
            let size = file.file.attr()?.size;
            let left = size.saturating_sub(*file.offset.lock());
            write_int(i32::try_from(left).unwrap_or(i32::MAX))?;
        }
        FIOQSIZE if is_regular(&file) => {
            let size = i64::try_from(file.file.attr()?.size).map_err(|_| Errno::EOVERFLOW)?;
            task.write_obj(UserPtr::new(UserAddr(arg)), &size)?;
        }
        FIGETBSZ if file.path.is_some() => {
            let size = file.file.attr()?.blksize;
            write_int(i32::try_from(size).unwrap_or(4096))?;
        }
        FIOSETOWN | SIOCSPGRP if is_socket(&file) => {
            owner(task, &file, F_SETOWN, i64::from(read_int()?).cast_unsigned())?;
            async_io::owner_changed(task, fd, &file);
        }
        FIOGETOWN | SIOCGPGRP if is_socket(&file) => {
            let pid = owner(task, &file, F_GETOWN, 0)?;
            write_int(i32::from_arg(pid))?;
        }
        _ => return file.file.ioctl(task, &file, request, arg),
    }
    Ok(0)
}

/// Fails where a request is for a device's driver, and whoever opened the device may not make such
/// (`landlock(7)`).
fn check_device(file: &OpenFile, request: u32) -> SysResult<()> {
    let is_general = matches!(
        request,
        FIOCLEX
            | FIONCLEX
            | FIONBIO
            | FIOASYNC
            | FIOQSIZE
            | FIGETBSZ
            | FIFREEZE
            | FITHAW
            | FICLONE
            | FICLONERANGE
            | FIDEDUPERANGE
            | FS_IOC_FIEMAP
    );
    let kind = file.path.as_ref().map(|path| path.inode().file_type());
    let is_device = matches!(kind, Some(FileType::CharDevice | FileType::BlockDevice));
    if is_device && !is_general { file.check_not_refused(AccessFs::IOCTL_DEV) } else { Ok(()) }
}

fn is_socket(file: &OpenFile) -> bool {
    downcast::<SocketFile>(&file.file).is_some()
}

fn is_regular(file: &OpenFile) -> bool {
    file.path.as_ref().is_some_and(|path| path.inode().file_type() == FileType::Regular)
}
