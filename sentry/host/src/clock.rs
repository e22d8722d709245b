//! The host's clocks, through its vDSO.
#![expect(unsafe_code, reason = "host calls")]

use crate::Rule;

/// The vDSO serves these clocks; the calls behind it are in the runtime's list.
pub(crate) const RULES: &[Rule] = &[Rule::any(libc::SYS_clock_getres)];

/// A clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `CLOCK_REALTIME`
    Realtime,
    /// `CLOCK_MONOTONIC`
    Monotonic,
    /// `CLOCK_MONOTONIC_RAW`
    MonotonicRaw,
    /// `CLOCK_REALTIME_COARSE`
    RealtimeCoarse,
    /// `CLOCK_MONOTONIC_COARSE`
    MonotonicCoarse,
    /// `CLOCK_BOOTTIME`
    Boottime,
    /// `CLOCK_TAI`
    Tai,
}

impl Clock {
    fn id(self) -> libc::clockid_t {
        match self {
            Self::Realtime => libc::CLOCK_REALTIME,
            Self::Monotonic => libc::CLOCK_MONOTONIC,
            Self::MonotonicRaw => libc::CLOCK_MONOTONIC_RAW,
            Self::RealtimeCoarse => libc::CLOCK_REALTIME_COARSE,
            Self::MonotonicCoarse => libc::CLOCK_MONOTONIC_COARSE,
            Self::Boottime => libc::CLOCK_BOOTTIME,
            Self::Tai => libc::CLOCK_TAI,
        }
    }
}

/// Returns the time of a clock in nanoseconds.
pub fn now_ns(clock: Clock) -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; clock_gettime(2) writes nothing else.
    unsafe { libc::clock_gettime(clock.id(), &raw mut now) };
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Returns the resolution of a clock in nanoseconds.
pub fn resolution_ns(clock: Clock) -> i64 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 1 };
    // SAFETY: `resolution` is a valid timespec; clock_getres(2) writes nothing else.
    unsafe { libc::clock_getres(clock.id(), &raw mut resolution) };
    resolution.tv_sec.saturating_mul(1_000_000_000).saturating_add(resolution.tv_nsec)
}

/// The kinds of processor clocks (`CPUCLOCK_*`): user and system time by ticks, user time by ticks,
/// exact run time.
const CPUCLOCK_PROF: i32 = 0;
const CPUCLOCK_VIRT: i32 = 1;
const CPUCLOCK_SCHED: i32 = 2;

/// Returns user and system time of a process in nanoseconds, or `None` where there is none: its
/// exact run time, divided in the proportion that the host's ticks saw, as Linux itself does
/// (`cputime_adjust`).
pub fn process_time_ns(pid: i32) -> Option<(u64, u64)> {
    let total = process_clock(pid, CPUCLOCK_SCHED)?;
    let user_ticks = process_clock(pid, CPUCLOCK_VIRT)?;
    let all_ticks = process_clock(pid, CPUCLOCK_PROF)?;
    if all_ticks == 0 {
        return Some((total, 0));
    }
    let user = u128::from(total) * u128::from(user_ticks.min(all_ticks)) / u128::from(all_ticks);
    let user = u64::try_from(user).unwrap_or(total);
    Some((user, total.saturating_sub(user)))
}

/// Reads a processor clock of a process, in nanoseconds.
fn process_clock(pid: i32, which: i32) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result is a local.
    if unsafe { libc::clock_gettime(!pid << 3 | which, &raw mut time) } < 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).ok()?))
}

/// Returns the processor's time stamp counter.
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user code execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
