//! POSIX message queues.

use std::sync::Arc;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::ipc::MqAttr;
use syscalls::abi::signal::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, Sigevent};
use syscalls::abi::socket::AF_NETLINK;
use syscalls::abi::time::Timespec;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::{fd, socket};
use crate::fs::mqueue::{self, QueueFile};
use crate::ipc::mqueue::{At, COOKIE_LEN, MAX_PRIORITY, Notify, Queue, wait};
use crate::ipc::sleep::Place;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::downcast;
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{OpenFile, names, open};

/// The longest name.
const NAME_MAX: usize = 255;
/// The highest signal.
const MAX_SIGNAL: i32 = 64;

/// Finds an open queue.
fn lookup(task: &CurrentTask, mqdes: Fd) -> SysResult<(Arc<OpenFile>, Arc<Queue>)> {
    let open = task.file(mqdes.0)?;
    let file = downcast::<QueueFile>(&open.file).ok_or(Errno::EBADF)?;
    Ok((open, file.queue().clone()))
}

/// Returns a walk in the file system of queues.
fn walk(task: &CurrentTask) -> Walk<'_> {
    let root = mqueue::root(&task.ipc());
    Walk::new(Some(task), task.creds(), root.clone(), root, WalkFlags::empty())
}

/// Reads the name of a queue, which the C library has given without its slash.
fn read_name(task: &CurrentTask, name: UserAddr) -> SysResult<Vec<u8>> {
    let name = task.read_path(name)?;
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::EACCES);
    }
    if name.len() > NAME_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(name) }
}

/// Reads a time-out on the clock that can be set.
///
/// # Errors
/// `EFAULT`, `EINVAL`.
fn read_timeout(task: &CurrentTask, ptr: UserPtr<Timespec>) -> SysResult<Option<Timespec>> {
    if ptr.is_null() {
        return Ok(None);
    }
    let timeout = task.read_obj(ptr)?;
    if timeout.is_valid() { Ok(Some(timeout)) } else { Err(Errno::EINVAL) }
}

fn deadline(task: &CurrentTask, timeout: Option<Timespec>) -> Option<u64> {
    let clock = &task.kernel.clock;
    let left = timeout?.to_ns().saturating_sub(clock.realtime_ns());
    Some(clock.monotonic_ns().saturating_add(u64::try_from(left).unwrap_or(0)))
}

/// Implements `mq_open(2)`.
///
/// <https://man7.org/linux/man-pages/man3/mq_open.3.html>
pub(super) fn sys_mq_open(
    task: &CurrentTask,
    name: UserAddr,
    oflag: u32,
    mode: u32,
    attr: UserPtr<MqAttr>,
) -> HandlerResult<Fd> {
    let attr = if attr.is_null() { None } else { Some(task.read_obj(attr)?) };
    let name = read_name(task, name)?;
    let flags = OpenFlags::from_bits_retain(oflag);
    let (found, is_created) = loop {
        match walk(task).resolve(&name) {
            Ok(_) if flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) => {
                return Err(Errno::EEXIST.into());
            }
            Ok(_) if flags.access_mode() == 3 => return Err(Errno::EINVAL.into()),
            Ok(found) => break (found, false),
            Err(Errno::ENOENT) if flags.contains(OpenFlags::CREAT) => {
                let mode = mode & !task.fs().umask();
                match mqueue::create(task, &name, attr.as_ref(), mode) {
                    Ok(()) => break (walk(task).resolve(&name)?, true),
                    // Somebody else has just made it.
                    Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    };
    let kept = flags & (OpenFlags::RDWR | OpenFlags::WRONLY | OpenFlags::NONBLOCK);
    let file = open::open_path(task, found, kept, is_created)?;
    Ok(fd::install(task, file, true)?)
}

/// Implements `mq_unlink(2)`.
pub(super) fn sys_mq_unlink(task: &CurrentTask, name: UserAddr) -> HandlerResult<()> {
    let name = read_name(task, name)?;
    Ok(names::unlink(&mut walk(task), &name)?)
}

/// Implements `mq_timedsend(2)`.
///
/// <https://man7.org/linux/man-pages/man3/mq_send.3.html>
pub(super) fn sys_mq_timedsend(
    task: &CurrentTask,
    mqdes: Fd,
    msg_ptr: UserAddr,
    msg_len: usize,
    msg_prio: u32,
    abs_timeout: UserPtr<Timespec>,
) -> HandlerResult<()> {
    if let Some(place) = task.recall::<Place<At>>() {
        return wait(task, place, None).map(drop);
    }
    let timeout = read_timeout(task, abs_timeout)?;
    if msg_prio >= MAX_PRIORITY {
        return Err(Errno::EINVAL.into());
    }
    let (open, queue) = lookup(task, mqdes)?;
    if !open.is_writable() {
        return Err(Errno::EBADF.into());
    }
    let read = || {
        let mut text = vec![0; msg_len];
        task.read_bytes(msg_ptr, &mut text)?;
        Ok(text)
    };
    let may_wait = !open.is_nonblocking();
    queue.send(task, msg_len, msg_prio, may_wait, || deadline(task, timeout), read)
}

/// Implements `mq_timedreceive(2)`.
///
/// <https://man7.org/linux/man-pages/man3/mq_receive.3.html>
pub(super) fn sys_mq_timedreceive(
    task: &CurrentTask,
    mqdes: Fd,
    msg_ptr: UserAddr,
    msg_len: usize,
    msg_prio: UserPtr<u32>,
    abs_timeout: UserPtr<Timespec>,
) -> HandlerResult<usize> {
    let message = if let Some(place) = task.recall::<Place<At>>() {
        wait(task, place, None)?.ok_or(Errno::EAGAIN)?
    } else {
        let timeout = read_timeout(task, abs_timeout)?;
        let (open, queue) = lookup(task, mqdes)?;
        if !open.is_readable() {
            return Err(Errno::EBADF.into());
        }
        queue.receive(task, msg_len, !open.is_nonblocking(), || deadline(task, timeout))?
    };
    if !msg_prio.is_null() {
        task.write_obj(msg_prio, &message.priority)?;
    }
    task.write_bytes(msg_ptr, &message.text)?;
    Ok(message.text.len())
}

/// Implements `mq_notify(2)`.
///
/// <https://man7.org/linux/man-pages/man3/mq_notify.3.html>
pub(super) fn sys_mq_notify(
    task: &CurrentTask,
    mqdes: Fd,
    sevp: UserPtr<Sigevent>,
) -> HandlerResult<()> {
    let event = if sevp.is_null() { None } else { Some(task.read_obj(sevp)?) };
    let notify = match event {
        None => None,
        Some(event) => Some(match event.sigev_notify {
            SIGEV_NONE => Notify::Nothing,
            SIGEV_SIGNAL if (0..=MAX_SIGNAL).contains(&event.sigev_signo) => {
                Notify::Signal { signo: event.sigev_signo, value: event.sigev_value }
            }
            SIGEV_THREAD => {
                let mut cookie = [0; COOKIE_LEN];
                task.read_bytes(UserAddr(event.sigev_value), &mut cookie)?;
                let socket = socket::lookup(task, Fd(event.sigev_signo))?.socket;
                if socket.identity().0 != AF_NETLINK {
                    return Err(Errno::EINVAL.into());
                }
                Notify::Thread { socket, cookie }
            }
            _ => return Err(Errno::EINVAL.into()),
        }),
    };
    let (_, queue) = lookup(task, mqdes)?;
    match notify {
        Some(notify) => queue.register(task, notify)?,
        None => queue.unregister(task),
    }
    Ok(())
}

/// Implements `mq_getsetattr(2)`.
pub(super) fn sys_mq_getsetattr(
    task: &CurrentTask,
    mqdes: Fd,
    newattr: UserPtr<MqAttr>,
    oldattr: UserPtr<MqAttr>,
) -> HandlerResult<()> {
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    let new = if newattr.is_null() { None } else { Some(task.read_obj(newattr)?) };
    if new.is_some_and(|new| new.mq_flags & !nonblock != 0) {
        return Err(Errno::EINVAL.into());
    }
    let (open, queue) = lookup(task, mqdes)?;
    let mq_flags = if open.is_nonblocking() { nonblock } else { 0 };
    if let Some(new) = new {
        let mut flags = open.flags_set();
        flags.set(OpenFlags::NONBLOCK, new.mq_flags != 0);
        open.set_flags(flags.bits());
    }
    if !oldattr.is_null() {
        task.write_obj(oldattr, &MqAttr { mq_flags, ..queue.attr() })?;
    }
    Ok(())
}
