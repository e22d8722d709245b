//! `wait4(2)` and `waitid(2)` (`linux/wait.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// Flags of `wait4(2)` and `waitid(2)`.
    pub struct WaitFlags: u32 as "" {
        WNOHANG = 1;
        WUNTRACED = 2;
        WEXITED = 4;
        WCONTINUED = 8;
        WNOWAIT = 0x0100_0000;
        __WNOTHREAD = 0x2000_0000;
        __WALL = 0x4000_0000;
        __WCLONE = 0x8000_0000;
    }
}

impl WaitFlags {
    /// The same bit as [`WaitFlags::WUNTRACED`].
    pub const WSTOPPED: Self = Self::WUNTRACED;
}

constants! {
    /// What the id of `waitid(2)` names.
    IDTYPE_NAMES: i32 {
        P_ALL = 0;
        P_PID = 1;
        P_PGID = 2;
        P_PIDFD = 3;
    }
}

/// Returns the wait status of a process that exited.
pub const fn exited(code: i32) -> i32 {
    (code & 0xff) << 8
}

/// Returns the wait status of a process that a signal killed.
pub const fn signaled(signo: i32, core_dumped: bool) -> i32 {
    (signo & 0x7f) | if core_dumped { 0x80 } else { 0 }
}

/// Returns the wait status of a process that a signal stopped.
pub const fn stopped(signo: i32) -> i32 {
    (signo << 8) | 0x7f
}

/// The wait status of a process that was continued.
pub const CONTINUED: i32 = 0xffff;
