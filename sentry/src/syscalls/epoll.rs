//! `epoll(7)`.

use std::sync::Arc;

use syscalls::abi::poll::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EpollCreateFlags, EpollEvent,
};
use syscalls::abi::signal::SigSet;
use syscalls::abi::time::Timespec;
use syscalls::arg::Fd;
use syscalls::{Errno, UserPtr};
use zerocopy::IntoBytes;

use super::fd::install;
use super::lend;
use super::poll::{deadline_after_ms, read_deadline, set_mask};
use super::read_write::one;
use crate::fs::epoll::{Change, Epoll};
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart};
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;

/// `EP_MAX_EVENTS`
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<EpollEvent>();

/// Implements `epoll_create(2)`: the size is of no use any more.
pub(super) fn sys_epoll_create(task: &CurrentTask, size: i32) -> HandlerResult<Fd> {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    sys_epoll_create1(task, EpollCreateFlags::empty())
}

/// Implements `epoll_create1(2)`.
pub(super) fn sys_epoll_create1(task: &CurrentTask, flags: EpollCreateFlags) -> HandlerResult<Fd> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let file = OpenFile::new(Epoll::new(task), None, 2);
    Ok(install(task, file, flags.contains(EpollCreateFlags::CLOEXEC))?)
}

/// Implements `epoll_ctl(2)`.
///
/// <https://man7.org/linux/man-pages/man2/epoll_ctl.2.html>
pub(super) fn sys_epoll_ctl(
    task: &CurrentTask,
    epfd: Fd,
    op: i32,
    fd: Fd,
    event: UserPtr<EpollEvent>,
) -> HandlerResult<()> {
    let event = if op == EPOLL_CTL_DEL { EpollEvent::default() } else { task.read_obj(event)? };
    let files = task.files();
    let epoll_file = files.get(epfd.0)?;
    let target = files.get(fd.0)?;
    if !target.file.is_pollable() {
        return Err(Errno::EPERM.into());
    }
    let epoll = downcast::<Epoll>(&epoll_file.file).ok_or(Errno::EINVAL)?;
    let change = match op {
        EPOLL_CTL_ADD => Change::Add(event),
        EPOLL_CTL_MOD => Change::Modify(event),
        EPOLL_CTL_DEL => Change::Delete,
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(epoll.control(fd.0, &target, change)?)
}

/// Implements `epoll_wait(2)`.
///
/// <https://man7.org/linux/man-pages/man2/epoll_wait.2.html>
pub(super) fn sys_epoll_wait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    maxevents: i32,
    timeout: i32,
) -> HandlerResult<usize> {
    let found = do_wait(task, epfd, events, maxevents, deadline_after_ms(task, timeout))?;
    if found == 0
        && timeout == 0
        && let Ok(file) = task.file(epfd.0)
        && let Some(epoll) = downcast::<Epoll>(&file.file)
    {
        epoll.note_idle();
        lend::offer(task, epfd, &file);
    }
    Ok(found)
}

/// Implements `epoll_pwait(2)`.
pub(super) fn sys_epoll_pwait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    maxevents: i32,
    timeout: i32,
    sigmask: UserPtr<SigSet>,
    sigsetsize: usize,
) -> HandlerResult<usize> {
    set_mask(task, sigmask, sigsetsize)?;
    sys_epoll_wait(task, epfd, events, maxevents, timeout)
}

/// Implements `epoll_pwait2(2)`.
pub(super) fn sys_epoll_pwait2(
    task: &CurrentTask,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    maxevents: i32,
    timeout: UserPtr<Timespec>,
    sigmask: UserPtr<SigSet>,
    sigsetsize: usize,
) -> HandlerResult<usize> {
    let deadline_ns = read_deadline(task, timeout)?;
    set_mask(task, sigmask, sigsetsize)?;
    do_wait(task, epfd, events, maxevents, deadline_ns)
}

fn do_wait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    maxevents: i32,
    deadline_ns: Option<u64>,
) -> HandlerResult<usize> {
    let max = usize::try_from(maxevents).map_err(|_| Errno::EINVAL)?;
    if max == 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL.into());
    }
    one(events.addr(), max * size_of::<EpollEvent>())?;
    let file = task.file(epfd.0)?;
    let epoll: Arc<Epoll> = downcast(&file.file).ok_or(Errno::EINVAL)?;
    let attempt = || {
        let found = epoll.harvest(max);
        Ok((!found.is_empty()).then_some(found))
    };
    let register = |waiter: &_| {
        epoll.note_wait();
        vec![epoll.register_wait(waiter)]
    };
    match task.wait_for(deadline_ns, Restart::NoHand, register, attempt) {
        Ok(Wait::Ready(found)) => {
            task.write_bytes(events.addr(), found.as_bytes())?;
            lend::offer(task, epfd, &file);
            Ok(found.len())
        }
        Ok(Wait::TimedOut) => Ok(0),
        // Never restarted, with a handler or without.
        Err(Control::Restart(_)) => Err(Errno::EINTR.into()),
        Err(control) => Err(control),
    }
}
