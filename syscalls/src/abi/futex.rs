//! `futex(2)` and robust lists (`linux/futex.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Commands of `futex(2)`.
    FUTEX_OP_NAMES: u32 {
        FUTEX_WAIT = 0;
        FUTEX_WAKE = 1;
        FUTEX_FD = 2;
        FUTEX_REQUEUE = 3;
        FUTEX_CMP_REQUEUE = 4;
        FUTEX_WAKE_OP = 5;
        FUTEX_LOCK_PI = 6;
        FUTEX_UNLOCK_PI = 7;
        FUTEX_TRYLOCK_PI = 8;
        FUTEX_WAIT_BITSET = 9;
        FUTEX_WAKE_BITSET = 10;
        FUTEX_WAIT_REQUEUE_PI = 11;
        FUTEX_CMP_REQUEUE_PI = 12;
        FUTEX_LOCK_PI2 = 13;
    }
}

flags! {
    /// Flags beside the command of `futex(2)`.
    pub struct FutexFlags: u32 as "FUTEX_" {
        PRIVATE_FLAG = 0x80;
        CLOCK_REALTIME = 0x100;
    }
}

/// The bits of the command.
pub const FUTEX_CMD_MASK: u32 = !(128 | 256);
/// The bitset that matches every waiter.
pub const FUTEX_BITSET_MATCH_ANY: u32 = u32::MAX;
/// Set in the word of a PI or robust futex that has waiters.
pub const FUTEX_WAITERS: u32 = 0x8000_0000;
/// Set in the word of a robust futex whose owner has died.
pub const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
/// The owner's thread id in the word.
pub const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
/// How many entries of a robust list are walked.
pub const ROBUST_LIST_LIMIT: usize = 2048;

constants! {
    /// Operations in bits 28 to 30 of `val3` of `FUTEX_WAKE_OP`.
    FUTEX_WAKE_OP_NAMES: u32 {
        FUTEX_OP_SET = 0;
        FUTEX_OP_ADD = 1;
        FUTEX_OP_OR = 2;
        FUTEX_OP_ANDN = 3;
        FUTEX_OP_XOR = 4;
    }
}
/// Shift the operand of a wake operation: bit 31 of `val3`.
pub const FUTEX_OP_OPARG_SHIFT: u32 = 8;
constants! {
    /// Comparisons in bits 24 to 27 of `val3` of `FUTEX_WAKE_OP`.
    FUTEX_WAKE_CMP_NAMES: u32 {
        FUTEX_OP_CMP_EQ = 0;
        FUTEX_OP_CMP_NE = 1;
        FUTEX_OP_CMP_LT = 2;
        FUTEX_OP_CMP_LE = 3;
        FUTEX_OP_CMP_GT = 4;
        FUTEX_OP_CMP_GE = 5;
    }
}

flags! {
    /// Flags of `futex_wait(2)`, `futex_wake(2)` and `futex_waitv(2)`; the low two bits are the size.
    pub struct Futex2Flags: u32 as "FUTEX2_" {
        SIZE_U16 = 1;
        SIZE_U32 = 2;
        NUMA = 4;
        PRIVATE = 0x80;
    }
}
/// The most futexes of one `futex_waitv(2)`.
pub const FUTEX_WAITV_MAX: usize = 128;

/// Corresponds to `struct futex_waitv`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FutexWaitv {
    pub val: u64,
    pub uaddr: u64,
    pub flags: u32,
    pub reserved: u32,
}

/// Corresponds to `struct robust_list_head`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RobustListHead {
    pub list: u64,
    pub futex_offset: i64,
    pub list_op_pending: u64,
}
