//! Time: `timespec`, `timeval`, clocks and timers (`linux/time.h`, `linux/time_types.h`, `linux/timex.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const NSEC_PER_SEC: i64 = 1_000_000_000;
pub const NSEC_PER_USEC: i64 = 1000;
pub const USEC_PER_SEC: i64 = 1_000_000;
/// The unit of `times(2)`: `USER_HZ`.
pub const CLK_TCK: i64 = 100;

constants! {
    /// Clocks.
    CLOCK_NAMES: i32 {
        CLOCK_REALTIME = 0;
        CLOCK_MONOTONIC = 1;
        CLOCK_PROCESS_CPUTIME_ID = 2;
        CLOCK_THREAD_CPUTIME_ID = 3;
        CLOCK_MONOTONIC_RAW = 4;
        CLOCK_REALTIME_COARSE = 5;
        CLOCK_MONOTONIC_COARSE = 6;
        CLOCK_BOOTTIME = 7;
        CLOCK_REALTIME_ALARM = 8;
        CLOCK_BOOTTIME_ALARM = 9;
        CLOCK_TAI = 11;
    }
}

flags! {
    /// Flags of `clock_nanosleep(2)` and `timer_settime(2)`.
    pub struct TimerFlags: u32 as "TIMER_" {
        ABSTIME = 1;
    }
}

flags! {
    /// Flags of `timerfd_create(2)` and `timerfd_settime(2)`.
    pub struct TimerfdFlags: u32 as "TFD_" {
        TIMER_ABSTIME = 1;
        TIMER_CANCEL_ON_SET = 2;
        NONBLOCK = 0o4000;
        CLOEXEC = 0o2000000;
    }
}

constants! {
    /// Timers of `setitimer(2)`.
    ITIMER_NAMES: i32 {
        ITIMER_REAL = 0;
        ITIMER_VIRTUAL = 1;
        ITIMER_PROF = 2;
    }
}

flags! {
    /// Bits of `modes` of `struct timex`.
    pub struct AdjFlags: u32 as "ADJ_" {
        OFFSET = 1;
        FREQUENCY = 2;
        MAXERROR = 4;
        ESTERROR = 8;
        STATUS = 0x10;
        TIMECONST = 0x20;
        TAI = 0x80;
        SETOFFSET = 0x100;
        MICRO = 0x1000;
        NANO = 0x2000;
        TICK = 0x4000;
    }
}

/// Corresponds to `struct timespec`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Timespec {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

impl Timespec {
    /// Returns whether Linux takes this for a point in time or a duration (`timespec64_valid`).
    pub const fn is_valid(self) -> bool {
        self.tv_sec >= 0 && self.tv_nsec >= 0 && self.tv_nsec < NSEC_PER_SEC
    }

    /// Converts from nanoseconds.
    pub const fn from_ns(ns: i64) -> Self {
        Self { tv_sec: ns.div_euclid(NSEC_PER_SEC), tv_nsec: ns.rem_euclid(NSEC_PER_SEC) }
    }

    /// Converts to nanoseconds; times too far away become the end of the range, as in Linux's `ktime_t`.
    pub const fn to_ns(self) -> i64 {
        self.tv_sec.saturating_mul(NSEC_PER_SEC).saturating_add(self.tv_nsec)
    }
}

/// Corresponds to `struct timeval`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Timeval {
    pub tv_sec: i64,
    pub tv_usec: i64,
}

impl Timeval {
    /// Returns whether Linux takes this for a duration.
    pub const fn is_valid(self) -> bool {
        self.tv_sec >= 0 && self.tv_usec >= 0 && self.tv_usec < USEC_PER_SEC
    }

    /// Converts from nanoseconds, rounding down.
    pub const fn from_ns(ns: i64) -> Self {
        Self {
            tv_sec: ns.div_euclid(NSEC_PER_SEC),
            tv_usec: ns.rem_euclid(NSEC_PER_SEC) / NSEC_PER_USEC,
        }
    }

    /// Converts to nanoseconds; times too far away become the end of the range.
    pub const fn to_ns(self) -> i64 {
        self.tv_sec
            .saturating_mul(NSEC_PER_SEC)
            .saturating_add(self.tv_usec.saturating_mul(NSEC_PER_USEC))
    }
}

/// Corresponds to `struct itimerspec`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Itimerspec {
    pub it_interval: Timespec,
    pub it_value: Timespec,
}

/// Corresponds to `struct itimerval`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Itimerval {
    pub it_interval: Timeval,
    pub it_value: Timeval,
}

/// Corresponds to `struct timezone`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Timezone {
    pub tz_minuteswest: i32,
    pub tz_dsttime: i32,
}

/// Corresponds to `struct tms`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Tms {
    pub tms_utime: i64,
    pub tms_stime: i64,
    pub tms_cutime: i64,
    pub tms_cstime: i64,
}

/// Corresponds to `struct timex`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Timex {
    pub modes: u32,
    pub pad0: u32,
    pub offset: i64,
    pub freq: i64,
    pub maxerror: i64,
    pub esterror: i64,
    pub status: i32,
    pub pad1: u32,
    pub constant: i64,
    pub precision: i64,
    pub tolerance: i64,
    pub time: Timeval,
    pub tick: i64,
    pub ppsfreq: i64,
    pub jitter: i64,
    pub shift: i32,
    pub pad2: u32,
    pub stabil: i64,
    pub jitcnt: i64,
    pub calcnt: i64,
    pub errcnt: i64,
    pub stbcnt: i64,
    pub tai: i32,
    pub pad3: [u32; 11],
}
