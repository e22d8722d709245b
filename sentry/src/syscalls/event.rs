//! eventfd, timerfd and signalfd.

use std::sync::Arc;

use sentry_host::clock::Clock;
use syscalls::abi::capability::CAP_WAKE_ALARM;
use syscalls::abi::poll::EventfdFlags;
use syscalls::abi::signal::{SigSet, SignalfdFlags};
use syscalls::abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_REALTIME_ALARM,
    Itimerspec, TimerfdFlags,
};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserPtr};

use super::fd::install;
use super::time::{on_host, read_itimerspec, to_itimerspec};
use crate::fs::eventfd::EventFd;
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::{TimerFd, TimerFdClock};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;

/// `O_RDWR`
const READ_WRITE: u32 = 2;

/// Implements `eventfd(2)`.
pub(super) fn sys_eventfd(task: &CurrentTask, initval: u32) -> HandlerResult<Fd> {
    sys_eventfd2(task, initval, EventfdFlags::empty())
}

/// Implements `eventfd2(2)`.
///
/// <https://man7.org/linux/man-pages/man2/eventfd.2.html>
pub(super) fn sys_eventfd2(
    task: &CurrentTask,
    initval: u32,
    flags: EventfdFlags,
) -> HandlerResult<Fd> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let file = EventFd::new(task, initval, flags.contains(EventfdFlags::SEMAPHORE));
    let kept = (flags & EventfdFlags::NONBLOCK).bits() | READ_WRITE;
    let file = OpenFile::new(file, None, kept);
    Ok(install(task, file, flags.contains(EventfdFlags::CLOEXEC))?)
}

/// Implements `timerfd_create(2)`.
///
/// <https://man7.org/linux/man-pages/man2/timerfd_create.2.html>
pub(super) fn sys_timerfd_create(
    task: &CurrentTask,
    clockid: i32,
    flags: TimerfdFlags,
) -> HandlerResult<Fd> {
    let clock = match clockid {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM => TimerFdClock::Realtime,
        CLOCK_MONOTONIC => TimerFdClock::Monotonic,
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => TimerFdClock::Boottime,
        _ => return Err(Errno::EINVAL.into()),
    };
    if flags.intersects(!(TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)) {
        return Err(Errno::EINVAL.into());
    }
    let is_alarm = matches!(clockid, CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM);
    if is_alarm && !task.creds().has_capability(CAP_WAKE_ALARM) {
        return Err(Errno::EPERM.into());
    }
    let kept = (flags & TimerfdFlags::NONBLOCK).bits() | READ_WRITE;
    let file = OpenFile::new(TimerFd::new(task, clock, clockid), None, kept);
    Ok(install(task, file, flags.contains(TimerfdFlags::CLOEXEC))?)
}

fn timerfd(task: &CurrentTask, fd: Fd) -> SysResult<Arc<TimerFd>> {
    downcast(&task.file(fd.0)?.file).ok_or(Errno::EINVAL)
}

/// Implements `timerfd_settime(2)`. The clock is never set here, so nothing is ever cancelled.
pub(super) fn sys_timerfd_settime(
    task: &CurrentTask,
    fd: Fd,
    flags: TimerfdFlags,
    new_value: UserPtr<Itimerspec>,
    old_value: UserPtr<Itimerspec>,
) -> HandlerResult<()> {
    let mut setting = read_itimerspec(task, new_value)?;
    if flags.intersects(!(TimerfdFlags::TIMER_ABSTIME | TimerfdFlags::TIMER_CANCEL_ON_SET)) {
        return Err(Errno::EINVAL.into());
    }
    let timer = timerfd(task, fd)?;
    let is_absolute = flags.contains(TimerfdFlags::TIMER_ABSTIME);
    if is_absolute {
        let clock = match timer.clock() {
            TimerFdClock::Realtime => Clock::Realtime,
            TimerFdClock::Monotonic => Clock::Monotonic,
            TimerFdClock::Boottime => Clock::Boottime,
        };
        setting.value_ns = on_host(task, clock, setting.value_ns);
    }
    let previous = timer.set(setting, flags);
    if !old_value.is_null() {
        task.write_obj(old_value, &to_itimerspec(previous))?;
    }
    Ok(())
}

/// Implements `timerfd_gettime(2)`.
pub(super) fn sys_timerfd_gettime(
    task: &CurrentTask,
    fd: Fd,
    curr_value: UserPtr<Itimerspec>,
) -> HandlerResult<()> {
    let setting = timerfd(task, fd)?.get();
    Ok(task.write_obj(curr_value, &to_itimerspec(setting))?)
}

/// Implements `signalfd(2)`.
pub(super) fn sys_signalfd(
    task: &CurrentTask,
    fd: Fd,
    mask: UserPtr<SigSet>,
    sizemask: usize,
) -> HandlerResult<Fd> {
    sys_signalfd4(task, fd, mask, sizemask, SignalfdFlags::empty())
}

/// Implements `signalfd4(2)`.
///
/// <https://man7.org/linux/man-pages/man2/signalfd.2.html>
pub(super) fn sys_signalfd4(
    task: &CurrentTask,
    fd: Fd,
    mask: UserPtr<SigSet>,
    sizemask: usize,
    flags: SignalfdFlags,
) -> HandlerResult<Fd> {
    if sizemask != size_of::<SigSet>() {
        return Err(Errno::EINVAL.into());
    }
    let mask = task.read_obj(mask)?.difference(SigSet::UNBLOCKABLE);
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    if fd.0 != -1 {
        let file = task.file(fd.0)?;
        downcast::<SignalFd>(&file.file).ok_or(Errno::EINVAL)?.set_mask(mask);
        return Ok(fd);
    }
    let kept = (flags & SignalfdFlags::NONBLOCK).bits() | READ_WRITE;
    let file = OpenFile::new(SignalFd::new(task, mask), None, kept);
    Ok(install(task, file, flags.contains(SignalfdFlags::CLOEXEC))?)
}
