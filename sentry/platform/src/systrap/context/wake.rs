//! Where a thread goes on that has slept: on the CPU of the worker that answers it, or wherever the host
//! finds an idle one.
//!
//! A thread whose own call is answered had that CPU before. One that goes on because of another's call would
//! have to wait there until that other, which goes on as well, sleeps or has had its time: milliseconds, in
//! which the two could run side by side. But to wake up an idle CPU takes many microseconds: too long where
//! who has woken the thread is about to sleep, as those that hand something to and fro are. What a thread
//! did after it had woken others before tells which it will be.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::SystrapContext;
use crate::systrap::{serve, spin};

/// How soon a thread must block after it has woken another for that one to wait, in ticks of the time-stamp
/// counter: about 20 µs.
const SOON_TICKS: u64 = 50_000;
/// Of how much of the past a thread is judged by.
const MAX_SOON: u32 = 7;
const MIN_SOON: u32 = 4;
/// A thread that has wanted to wait for futexes so many times in quick succession wants a lock that others
/// want as much: it had better not want it at the same time.
const MANY_WAITS: u32 = 16;

/// What a thread does after it has woken another.
#[derive(Debug)]
pub(super) struct WakeRecord {
    /// When it last did, zero where it has blocked since.
    woke_at: AtomicU64,
    /// How often it then blocked soon, against how often it did not.
    soon: AtomicU32,
}

impl Default for WakeRecord {
    fn default() -> Self {
        Self { woke_at: AtomicU64::new(0), soon: AtomicU32::new(MIN_SOON) }
    }
}

impl SystrapContext {
    /// Returns whether the thread, which sleeps, had better go on on the CPU of this worker.
    pub(super) fn goes_on_here(&self) -> bool {
        if self.is_announced() && !self.is_in_crowd() {
            // Who watches wants that CPU.
            return false;
        }
        serve::is_serving(self)
            || self.slot.quick_waits.load(Relaxed) >= MANY_WAITS
            || serve::with_waker(|waker| waker.is_none_or(Self::wakes))
    }

    /// Notes that this thread wakes another; returns whether it will soon sleep itself.
    fn wakes(&self) -> bool {
        if self.wakes.woke_at.swap(spin::ticks(), Relaxed) != 0 {
            self.judge(false);
        }
        self.wakes.soon.load(Relaxed) >= MIN_SOON
    }

    /// Notes that the call of this thread blocks.
    pub(in crate::systrap) fn note_blocked(&self) {
        let woke_at = self.wakes.woke_at.load(Relaxed);
        if woke_at != 0 {
            self.wakes.woke_at.store(0, Relaxed);
            self.judge(spin::ticks().saturating_sub(woke_at) < SOON_TICKS);
        }
    }

    fn judge(&self, soon: bool) {
        let before = self.wakes.soon.load(Relaxed);
        let after = if soon { (before + 1).min(MAX_SOON) } else { before.saturating_sub(1) };
        self.wakes.soon.store(after, Relaxed);
    }
}
