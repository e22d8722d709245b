//! Clocks, sleeping, timers.

use std::sync::Arc;

use sentry_host::clock::{self, Clock as HostClock};
use syscalls::abi::signal::{
    SIGALRM, SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID, Sigevent, Siginfo,
};
use syscalls::abi::time::{Itimerspec, Itimerval, TimerFlags, Timespec, Timeval, Timex, Timezone};
use syscalls::{Errno, SysResult, UserPtr};
use zerocopy::FromZeros;

use super::ids::target;
use crate::task::block::Wait;
use crate::task::signal::is_valid;
use crate::task::signal::queue::OF_TIMER;
use crate::task::{Control, CurrentTask, HandlerResult, Restart, Task};
use crate::time::posix_timer::{Notify, Setting, TimerClock};

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_REALTIME_ALARM: i32 = 8;
const CLOCK_BOOTTIME_ALARM: i32 = 9;
const CLOCK_TAI: i32 = 11;

/// What a clock id names.
enum Clock {
    Host(HostClock),
    Process(Arc<Task>, CpuPart),
    Thread(Arc<Task>, CpuPart),
}

/// Which part of CPU time a dynamic clock id shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CpuPart {
    All,
    User,
}

fn find_clock(task: &CurrentTask, id: i32) -> SysResult<Clock> {
    Ok(match id {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM => Clock::Host(HostClock::Realtime),
        CLOCK_MONOTONIC => Clock::Host(HostClock::Monotonic),
        CLOCK_PROCESS_CPUTIME_ID => Clock::Process(task.task().clone(), CpuPart::All),
        CLOCK_THREAD_CPUTIME_ID => Clock::Thread(task.task().clone(), CpuPart::All),
        CLOCK_MONOTONIC_RAW => Clock::Host(HostClock::MonotonicRaw),
        CLOCK_REALTIME_COARSE => Clock::Host(HostClock::RealtimeCoarse),
        CLOCK_MONOTONIC_COARSE => Clock::Host(HostClock::MonotonicCoarse),
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => Clock::Host(HostClock::Boottime),
        CLOCK_TAI => Clock::Host(HostClock::Tai),
        // Dynamic ids (`MAKE_PROCESS_CPUCLOCK`): the inverted pid, bit 2 for a thread, two bits
        // for the part.
        id if id < 0 => {
            let part = match id & 3 {
                0 | 2 => CpuPart::All,
                1 => CpuPart::User,
                _ => return Err(Errno::EINVAL),
            };
            let pid = !(id >> 3);
            let of = target(task, pid).map_err(|_| Errno::EINVAL)?;
            if id & 4 != 0 {
                if !Arc::ptr_eq(&of.group, &task.group) {
                    return Err(Errno::EINVAL);
                }
                Clock::Thread(of, part)
            } else {
                Clock::Process(of, part)
            }
        }
        _ => return Err(Errno::EINVAL),
    })
}

fn read_clock(task: &CurrentTask, clock: &Clock) -> i64 {
    let pick = |(user, system): (u64, u64), part: CpuPart| {
        let ns = if part == CpuPart::User { user } else { user.saturating_add(system) };
        i64::try_from(ns).unwrap_or(i64::MAX)
    };
    match clock {
        Clock::Host(clock) => clock::now_ns(*clock).saturating_add(task.clock_offset_ns(*clock)),
        Clock::Process(task, part) => pick(task.group.cpu_ns(), *part),
        Clock::Thread(task, part) => pick(task.cpu_ns(), *part),
    }
}

/// Implements `clock_gettime(2)`.
pub(super) fn sys_clock_gettime(
    task: &CurrentTask,
    id: i32,
    tp: UserPtr<Timespec>,
) -> HandlerResult<()> {
    let now = read_clock(task, &find_clock(task, id)?);
    Ok(task.write_obj(tp, &Timespec::from_ns(now))?)
}

/// Implements `clock_getres(2)`.
pub(super) fn sys_clock_getres(
    task: &CurrentTask,
    id: i32,
    res: UserPtr<Timespec>,
) -> HandlerResult<()> {
    let resolution = match find_clock(task, id)? {
        Clock::Host(clock) => clock::resolution_ns(clock),
        Clock::Process(..) | Clock::Thread(..) => 1,
    };
    if !res.is_null() {
        task.write_obj(res, &Timespec::from_ns(resolution))?;
    }
    Ok(())
}

/// Implements `clock_settime(2)`: the clocks are the host's.
pub(super) fn sys_clock_settime(
    task: &CurrentTask,
    id: i32,
    tp: UserPtr<Timespec>,
) -> HandlerResult<()> {
    let new = task.read_obj(tp)?;
    if id != CLOCK_REALTIME || !new.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    Err(Errno::EPERM.into())
}

/// Implements `gettimeofday(2)`.
pub(super) fn sys_gettimeofday(
    task: &CurrentTask,
    tv: UserPtr<Timeval>,
    tz: UserPtr<Timezone>,
) -> HandlerResult<()> {
    if !tv.is_null() {
        task.write_obj(tv, &Timeval::from_ns(task.kernel.clock.realtime_ns()))?;
    }
    if !tz.is_null() {
        task.write_obj(tz, &Timezone::new_zeroed())?;
    }
    Ok(())
}

/// Implements `settimeofday(2)`: the clocks are the host's.
pub(super) fn sys_settimeofday(
    _task: &CurrentTask,
    _tv: UserPtr<Timeval>,
    _tz: UserPtr<Timezone>,
) -> HandlerResult<()> {
    Err(Errno::EPERM.into())
}

/// Implements `time(2)`.
pub(super) fn sys_time(task: &CurrentTask, tloc: UserPtr<i64>) -> HandlerResult<i64> {
    let seconds = task.kernel.clock.realtime_ns() / 1_000_000_000;
    if !tloc.is_null() {
        task.write_obj(tloc, &seconds)?;
    }
    Ok(seconds)
}

/// Implements `adjtimex(2)`: reads only, the clocks are the host's.
pub(super) fn sys_adjtimex(task: &CurrentTask, buf: UserPtr<Timex>) -> HandlerResult<i32> {
    const TIME_ERROR: i32 = 5;
    let given = task.read_obj(buf)?;
    if given.modes != 0 {
        // Nobody may set the host's clock, whatever capability the guest has.
        return Err(Errno::EPERM.into());
    }
    let mut out = Timex::new_zeroed();
    out.time = Timeval::from_ns(task.kernel.clock.realtime_ns());
    out.tick = 10_000;
    out.tolerance = 32_768_000;
    out.precision = 1;
    out.maxerror = 16_000_000;
    out.esterror = 16_000_000;
    // STA_UNSYNC
    out.status = 0x40;
    task.write_obj(buf, &out)?;
    Ok(TIME_ERROR)
}

/// Implements `clock_adjtime(2)`: reads only, and of the real-time clock only.
pub(super) fn sys_clock_adjtime(
    task: &CurrentTask,
    id: i32,
    buf: UserPtr<Timex>,
) -> HandlerResult<i32> {
    match find_clock(task, id)? {
        Clock::Host(HostClock::Realtime) => sys_adjtimex(task, buf),
        Clock::Host(_) | Clock::Process(..) | Clock::Thread(..) => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn read_timespec(task: &CurrentTask, ptr: UserPtr<Timespec>) -> SysResult<u64> {
    let time = task.read_obj(ptr)?;
    if !time.is_valid() {
        return Err(Errno::EINVAL);
    }
    Ok(u64::try_from(time.to_ns()).unwrap_or(u64::MAX))
}

/// Implements `nanosleep(2)`.
pub(super) fn sys_nanosleep(
    task: &CurrentTask,
    req: UserPtr<Timespec>,
    rem: UserPtr<Timespec>,
) -> HandlerResult<()> {
    sys_clock_nanosleep(task, CLOCK_MONOTONIC, 0, req, rem)
}

/// Implements `clock_nanosleep(2)`.
pub(super) fn sys_clock_nanosleep(
    task: &CurrentTask,
    id: i32,
    flags: u32,
    request: UserPtr<Timespec>,
    remain: UserPtr<Timespec>,
) -> HandlerResult<()> {
    let clock = find_clock(task, id)?;
    if matches!(id, CLOCK_MONOTONIC_RAW | CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE)
        || matches!(clock, Clock::Process(..) | Clock::Thread(..))
    {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let absolute = TimerFlags::from_bits_retain(flags).contains(TimerFlags::ABSTIME);
    let deadline_ns = match task.block_deadline_ns() {
        Some(deadline_ns) => deadline_ns,
        None => {
            let wanted = read_timespec(task, request)?;
            let relative = if absolute {
                wanted.saturating_sub(u64::try_from(read_clock(task, &clock)).unwrap_or(0))
            } else {
                wanted
            };
            task.kernel.clock.monotonic_ns().saturating_add(relative)
        }
    };
    let restart = if absolute { Restart::NoHand } else { Restart::RestartBlock };
    let waited = task.wait_for(Some(deadline_ns), restart, |_| Vec::new(), || Ok(None::<()>));
    match waited {
        Ok(Wait::TimedOut | Wait::Ready(())) => Ok(()),
        Err(Control::Restart(restart)) => {
            if !absolute && !remain.is_null() {
                let left = deadline_ns.saturating_sub(task.kernel.clock.monotonic_ns());
                let left = Timespec::from_ns(i64::try_from(left).unwrap_or(i64::MAX));
                task.write_obj(remain, &left)?;
            }
            Err(Control::Restart(restart))
        }
        Err(control) => Err(control),
    }
}

fn to_setting(spec: &Itimerval) -> SysResult<Setting> {
    let ns = |time: Timeval| {
        if !time.is_valid() {
            return Err(Errno::EINVAL);
        }
        Ok(u64::try_from(time.to_ns()).unwrap_or(u64::MAX))
    };
    Ok(Setting { value_ns: ns(spec.it_value)?, interval_ns: ns(spec.it_interval)? })
}

fn to_itimerval(setting: Setting) -> Itimerval {
    let time = |ns: u64| Timeval::from_ns(i64::try_from(ns).unwrap_or(i64::MAX));
    // A timer that is still to expire never shows as disarmed.
    let value_ns = if setting.value_ns == 0 { 0 } else { setting.value_ns.max(1_000) };
    Itimerval { it_interval: time(setting.interval_ns), it_value: time(value_ns) }
}

/// Implements `getitimer(2)`.
pub(super) fn sys_getitimer(
    task: &CurrentTask,
    which: u32,
    curr: UserPtr<Itimerval>,
) -> HandlerResult<()> {
    let which = usize::try_from(which).map_err(|_| Errno::EINVAL)?;
    let timer = task.group.timers.interval(&task.group, which)?;
    Ok(task.write_obj(curr, &to_itimerval(timer.get()))?)
}

/// Implements `setitimer(2)`.
pub(super) fn sys_setitimer(
    task: &CurrentTask,
    which: u32,
    new: UserPtr<Itimerval>,
    old: UserPtr<Itimerval>,
) -> HandlerResult<()> {
    let which = usize::try_from(which).map_err(|_| Errno::EINVAL)?;
    let setting =
        if new.is_null() { Setting::default() } else { to_setting(&task.read_obj(new)?)? };
    let timer = task.group.timers.interval(&task.group, which)?;
    let previous = timer.set(setting, false);
    if !old.is_null() {
        task.write_obj(old, &to_itimerval(previous))?;
    }
    Ok(())
}

/// Implements `alarm(2)`.
pub(super) fn sys_alarm(task: &CurrentTask, seconds: u32) -> HandlerResult<u64> {
    const SECOND_NS: u64 = 1_000_000_000;
    let timer = task.group.timers.interval(&task.group, 0)?;
    let value_ns = u64::from(seconds).saturating_mul(SECOND_NS);
    let previous = timer.set(Setting { value_ns, interval_ns: 0 }, false);
    // Rounded to the nearest second, but never to zero for a timer that was armed.
    let seconds = previous.value_ns.saturating_add(SECOND_NS / 2) / SECOND_NS;
    Ok(if previous.value_ns == 0 { 0 } else { seconds.max(1) })
}

/// Implements `timer_create(2)`.
pub(super) fn sys_timer_create(
    task: &CurrentTask,
    id: i32,
    sevp: UserPtr<Sigevent>,
    timerid: UserPtr<i32>,
) -> HandlerResult<()> {
    let clock = match find_clock(task, id)? {
        Clock::Host(HostClock::Realtime) => TimerClock::Realtime,
        Clock::Host(
            HostClock::MonotonicRaw | HostClock::RealtimeCoarse | HostClock::MonotonicCoarse,
        ) => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        Clock::Host(HostClock::Monotonic) => TimerClock::Monotonic,
        Clock::Host(of) => TimerClock::Host(of),
        Clock::Process(..) => TimerClock::ProcessCpu,
        Clock::Thread(of, _) => TimerClock::ThreadCpu(Arc::downgrade(&of)),
    };
    let event = if sevp.is_null() { None } else { Some(task.read_obj(sevp)?) };
    let mut thread = None;
    if let Some(event) = &event {
        match event.sigev_notify {
            SIGEV_NONE => {}
            SIGEV_SIGNAL | SIGEV_THREAD if is_valid(event.sigev_signo) => {}
            SIGEV_THREAD_ID if is_valid(event.sigev_signo) => {
                let of = target(task, event.sigev_tid).map_err(|_| Errno::EINVAL)?;
                if event.sigev_tid <= 0 || !Arc::ptr_eq(&of.group, &task.group) {
                    return Err(Errno::EINVAL.into());
                }
                thread = Some(Arc::downgrade(&of));
            }
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    let id = task.group.timers.create(&task.group, clock, |id| match &event {
        None => {
            let value = u64::from(id.cast_unsigned());
            Notify::Process(Siginfo { pad0: OF_TIMER, ..Siginfo::timer(SIGALRM, id, 0, value) })
        }
        Some(event) if event.sigev_notify == SIGEV_NONE => Notify::None,
        Some(event) => {
            let info = Siginfo::timer(event.sigev_signo, id, 0, event.sigev_value);
            let info = Siginfo { pad0: OF_TIMER, ..info };
            match thread {
                Some(thread) => Notify::Thread(thread, info),
                None => Notify::Process(info),
            }
        }
    })?;
    if let Err(errno) = task.write_obj(timerid, &id) {
        // The timer was never armed.
        let _ = task.group.timers.delete(id);
        return Err(errno.into());
    }
    Ok(())
}

pub(super) fn to_itimerspec(setting: Setting) -> Itimerspec {
    let time = |ns: u64| Timespec::from_ns(i64::try_from(ns).unwrap_or(i64::MAX));
    Itimerspec { it_interval: time(setting.interval_ns), it_value: time(setting.value_ns) }
}

/// Reads a setting as `timer_settime(2)` and `timerfd_settime(2)` take it.
pub(crate) fn read_itimerspec(task: &CurrentTask, ptr: UserPtr<Itimerspec>) -> SysResult<Setting> {
    let spec = task.read_obj(ptr)?;
    if !spec.it_value.is_valid() || !spec.it_interval.is_valid() {
        return Err(Errno::EINVAL);
    }
    let ns = |time: Timespec| u64::try_from(time.to_ns()).unwrap_or(u64::MAX);
    Ok(Setting { value_ns: ns(spec.it_value), interval_ns: ns(spec.it_interval) })
}

/// Returns which time of the host's clock a time of the caller's is, which arms a timer still.
pub(super) fn on_host(task: &CurrentTask, clock: HostClock, ns: u64) -> u64 {
    match task.clock_offset_ns(clock) {
        0 => ns,
        _ if ns == 0 => 0,
        ahead if ahead < 0 => ns.saturating_add(ahead.unsigned_abs()),
        ahead => ns.saturating_sub(ahead.unsigned_abs()).max(1),
    }
}

/// Implements `timer_settime(2)`.
pub(super) fn sys_timer_settime(
    task: &CurrentTask,
    timerid: i32,
    flags: u32,
    new_value: UserPtr<Itimerspec>,
    old_value: UserPtr<Itimerspec>,
) -> HandlerResult<()> {
    if new_value.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let mut setting = read_itimerspec(task, new_value)?;
    let timer = task.group.timers.get(timerid)?;
    let absolute = TimerFlags::from_bits_retain(flags).contains(TimerFlags::ABSTIME);
    if absolute && let Some(clock) = timer.host_clock() {
        setting.value_ns = on_host(task, clock, setting.value_ns);
    }
    let previous = timer.set(setting, absolute);
    if !old_value.is_null() {
        task.write_obj(old_value, &to_itimerspec(previous))?;
    }
    Ok(())
}

/// Implements `timer_gettime(2)`.
pub(super) fn sys_timer_gettime(
    task: &CurrentTask,
    timerid: i32,
    curr_value: UserPtr<Itimerspec>,
) -> HandlerResult<()> {
    let setting = task.group.timers.get(timerid)?.get();
    Ok(task.write_obj(curr_value, &to_itimerspec(setting))?)
}

/// Implements `timer_getoverrun(2)`.
pub(super) fn sys_timer_getoverrun(task: &CurrentTask, timerid: i32) -> HandlerResult<i32> {
    Ok(task.group.timers.get(timerid)?.overrun())
}

/// Implements `timer_delete(2)`.
pub(super) fn sys_timer_delete(task: &CurrentTask, timerid: i32) -> HandlerResult<()> {
    Ok(task.group.timers.delete(timerid)?)
}
