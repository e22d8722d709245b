//! Scheduling (`linux/sched.h`, `linux/sched/types.h`, `linux/ioprio.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Policies.
    SCHED_NAMES: i32 {
        SCHED_NORMAL = 0;
        SCHED_FIFO = 1;
        SCHED_RR = 2;
        SCHED_BATCH = 3;
        SCHED_IDLE = 5;
        SCHED_DEADLINE = 6;
    }
}
/// Or'ed to a policy: children do not inherit it.
pub const SCHED_RESET_ON_FORK: i32 = 0x4000_0000;

flags! {
    /// Flags of `struct sched_attr`.
    pub struct SchedFlags: u64 as "SCHED_FLAG_" {
        RESET_ON_FORK = 1;
        RECLAIM = 2;
        DL_OVERRUN = 4;
        KEEP_POLICY = 8;
        KEEP_PARAMS = 0x10;
        UTIL_CLAMP_MIN = 0x20;
        UTIL_CLAMP_MAX = 0x40;
    }
}

/// Corresponds to `struct sched_param`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SchedParam {
    pub sched_priority: i32,
}

/// Corresponds to `struct sched_attr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SchedAttr {
    pub size: u32,
    pub sched_policy: u32,
    pub sched_flags: u64,
    pub sched_nice: i32,
    pub sched_priority: u32,
    pub sched_runtime: u64,
    pub sched_deadline: u64,
    pub sched_period: u64,
    pub sched_util_min: u32,
    pub sched_util_max: u32,
}

/// The size of the first version of `struct sched_attr`.
pub const SCHED_ATTR_SIZE_VER0: usize = 48;

constants! {
    /// Whom `ioprio_set(2)` concerns.
    IOPRIO_WHO_NAMES: i32 {
        IOPRIO_WHO_PROCESS = 1;
        IOPRIO_WHO_PGRP = 2;
        IOPRIO_WHO_USER = 3;
    }
}
/// Where the class of an I/O priority starts.
pub const IOPRIO_CLASS_SHIFT: u32 = 13;
