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

/// Returns the processor's time stamp counter.
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user code execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
