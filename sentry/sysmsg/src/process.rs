//! What the sentry shares with a process as a whole, behind its slots.
//!
//! A futex has no waiter as long as the count for its word is zero, so whoever wakes it need not ask
//! the sentry. Who waits counts itself first and looks at the word then; who wakes has changed the word
//! and looks at the count then: one of them sees the other. The counts are of words that share a
//! number, hence never too low. A process that changes them fools only itself.

use core::sync::atomic::AtomicU32;

/// How many counts there are.
pub const N_FUTEX_COUNTS: usize = 1024;

/// The memory that a process and the sentry share besides the slots.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Process {
    /// How many threads wait in the sentry for private futexes, by [`futex_count`].
    pub futex_waiters: [AtomicU32; N_FUTEX_COUNTS],
}

/// Returns the number of the count for the futex at `addr`.
#[inline]
pub const fn futex_count(addr: u64) -> usize {
    // Multiplicative hashing: the upper bits are those that depend on all of the address.
    ((addr >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
}

const _: () = assert!(size_of::<Process>() as u64 == crate::layout::PROCESS_LEN);
const _: () = assert!(futex_count(u64::MAX) < N_FUTEX_COUNTS && futex_count(0) == 0);
