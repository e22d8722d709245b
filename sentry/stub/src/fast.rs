//! Calls from patched sites that the stub answers without the sentry: where that is allowed, and where
//! they concern this process alone.
//!
//! Nobody waits for a private futex whose count is zero, so there is nobody to wake; and where the word
//! has changed already, there is nothing to wait for. Who sleeps does so in the sentry. The mask of blocked
//! signals is the stub's to change as long as no signal is pending.
//!
//! # Safety
//! The shared pages are mapped in every process that runs stub code; the routines that read the
//! application's memory survive any address.
#![expect(unsafe_code, reason = "reads shared pages and the application's memory")]

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::fence;

use sentry_sysmsg::layout;
use sentry_sysmsg::process::{self, Process};
use sentry_sysmsg::slot::Slot;

use crate::{entry, host};

const SYS_RT_SIGPROCMASK: u64 = 14;
const SYS_SCHED_YIELD: u64 = 24;
const SYS_FUTEX: u64 = 202;

/// The operations of private futexes.
const FUTEX_WAIT: u32 = 128;
const FUTEX_WAKE: u32 = 128 | 1;
const FUTEX_WAIT_BITSET: u32 = 128 | 9;
const FUTEX_WAIT_BITSET_REALTIME: u32 = 128 | 256 | 9;
const FUTEX_WAKE_BITSET: u32 = 128 | 10;

const SIG_BLOCK: u32 = 0;
const SIG_UNBLOCK: u32 = 1;
const SIG_SETMASK: u32 = 2;
const SIGSET_LEN: u64 = 8;
/// SIGKILL and SIGSTOP.
const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;

const EAGAIN: i64 = -11;
const EFAULT: i64 = -14;
/// What lies from here up is not the application's.
const APPLICATION_END: u64 = 0x7e00_0000_0000;

/// Returns what a call returns, where the sentry need not be asked.
#[inline]
pub(crate) fn answer(slot: &Slot, number: u64, args: [u64; 6]) -> Option<i64> {
    match number {
        SYS_FUTEX if slot.fast.load(Relaxed) != 0 => futex(args),
        SYS_RT_SIGPROCMASK if slot.fast.load(Relaxed) != 0 => sigprocmask(slot, args),
        SYS_SCHED_YIELD if slot.fast.load(Relaxed) != 0 => {
            host::sched_yield();
            Some(0)
        }
        _ => None,
    }
}

#[inline]
fn futex(args: [u64; 6]) -> Option<i64> {
    let [addr, operation, value, timeout, _, bitset] = args;
    if addr & 3 != 0 || addr >= APPLICATION_END {
        return None;
    }
    match operation as u32 {
        FUTEX_WAKE => wake(addr),
        FUTEX_WAKE_BITSET if bitset as u32 != 0 => wake(addr),
        // The errors of a time-out come first.
        FUTEX_WAIT if timeout == 0 => refuse(addr, value),
        FUTEX_WAIT_BITSET | FUTEX_WAIT_BITSET_REALTIME if timeout == 0 && bitset as u32 != 0 => {
            refuse(addr, value)
        }
        _ => None,
    }
}

/// Changes the mask of blocked signals, as long as none is pending: those are for the sentry to deliver.
fn sigprocmask(slot: &Slot, [how, set, old_set, len, ..]: [u64; 6]) -> Option<i64> {
    let is_far = |addr: u64| addr > APPLICATION_END - SIGSET_LEN;
    if len != SIGSET_LEN || is_far(set) || is_far(old_set) {
        return None;
    }
    if slot.signals_pending.load(Relaxed) != 0 {
        return None;
    }
    let before = slot.signal_mask.load(Relaxed);
    let mut after = before;
    if set != 0 {
        let given = read_set(set)?;
        after = match how as u32 {
            SIG_BLOCK => before | given,
            SIG_UNBLOCK => before & !given,
            SIG_SETMASK => given,
            _ => return None,
        };
        after &= !UNBLOCKABLE;
    }
    if after != before {
        slot.signal_mask.store(after, SeqCst);
        // Who posts a signal says so first and looks at the mask then.
        if slot.signals_pending.load(SeqCst) != 0 {
            slot.signal_mask.store(before, SeqCst);
            return None;
        }
    }
    // Last: the sentry reads the set again, which may lie in the same place.
    if old_set != 0 {
        let from = (&raw const before).expose_provenance() as u64;
        // SAFETY: the routine survives any address.
        if unsafe { entry::stub_copy(old_set, from, SIGSET_LEN) } != 0 {
            return Some(EFAULT);
        }
    }
    Some(0)
}

/// Reads a set of signals of the application.
fn read_set(addr: u64) -> Option<u64> {
    let mut set = 0_u64;
    let to = (&raw mut set).expose_provenance() as u64;
    // SAFETY: the destination is a local of that size; the routine survives any source.
    if unsafe { entry::stub_copy(to, addr, SIGSET_LEN) } != 0 {
        return None;
    }
    // SAFETY: a local, written behind the compiler's back.
    Some(unsafe { (&raw const set).read_volatile() })
}

/// Wakes nobody, where there is nobody.
#[inline]
fn wake(addr: u64) -> Option<i64> {
    fence(SeqCst);
    let process = core::ptr::with_exposed_provenance::<Process>(layout::PROCESS_BASE as usize);
    // SAFETY: see the module; all fields are atomics.
    let counts = unsafe { &(*process).futex_waiters };
    let count = counts.get(process::futex_count(addr))?;
    (count.load(Relaxed) == 0).then_some(0)
}

/// Refuses to wait for a word that has another value, and can be read.
#[inline]
fn refuse(addr: u64, expected: u64) -> Option<i64> {
    // SAFETY: the routine survives any address.
    let found = unsafe { entry::stub_load(addr) };
    (found != u64::MAX && found as u32 != expected as u32).then_some(EAGAIN)
}
