//! Calls that the stub answers without the sentry, mostly from patched sites: where that is allowed, and
//! where they concern this process alone.
//!
//! Nobody waits for a private futex whose count is zero, so there is nobody to wake; and where the word
//! has changed already, there is nothing to wait for. Who sleeps does so in the sentry. A thread that waits
//! again and again looks at the word for a moment first, and lets others use its CPU meanwhile: two threads
//! that hand something over in turn need no sentry then. That is as if the call had come later, so nobody can
//! tell; and it is less readily tried each time that it was in vain. The mask of blocked signals is the stub's
//! to change as long as no signal is pending.
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

use crate::{entry, files, host, rings, serve};

const SYS_READ: u64 = 0;
const SYS_WRITE: u64 = 1;
const SYS_LSEEK: u64 = 8;
const SYS_RT_SIGPROCMASK: u64 = 14;
const SYS_PREAD64: u64 = 17;
const SYS_PWRITE64: u64 = 18;
const SYS_SCHED_YIELD: u64 = 24;
const SYS_SENDTO: u64 = 44;
const SYS_RECVFROM: u64 = 45;
const SYS_UMASK: u64 = 95;
const SYS_FUTEX: u64 = 202;
const SYS_EPOLL_WAIT: u64 = 232;
const SYS_EPOLL_PWAIT: u64 = 281;

/// The operations of private futexes.
const FUTEX_WAIT: u32 = 128;
const FUTEX_WAKE: u32 = 128 | 1;
const FUTEX_WAIT_BITSET: u32 = 128 | 9;
const FUTEX_WAIT_BITSET_REALTIME: u32 = 128 | 256 | 9;
const FUTEX_WAKE_BITSET: u32 = 128 | 10;

const SIG_BLOCK: u32 = 0;
const SIG_UNBLOCK: u32 = 1;
const SIG_SETMASK: u32 = 2;
const SIGSET_LEN: u64 = WORD_LEN;
const WORD_LEN: u64 = 8;
/// SIGKILL and SIGSTOP.
const UNBLOCKABLE: u64 = 1 << 8 | 1 << 18;

/// For how long a futex is watched before the sentry is asked to wait, in ticks of the time-stamp counter:
/// about 8 µs where that was not in vain the last time, else for as long as it may take to wake up the other
/// thread, which then finds this one awake: about 60 µs.
const WATCH_TICKS: u64 = 20_000;
pub(crate) const FIRST_WATCH_TICKS: u64 = 150_000;
/// Only a thread that wants to wait so many times, each within so many ticks (about 100 µs) of the time
/// before, watches.
const MIN_QUICK: u32 = 16;
const QUICK_TICKS: u64 = 250_000;
/// How long a thread that is refused to wait stands back, doubled so many times where it was refused as often within
/// [`QUICK_TICKS`] each: from about 2 µs to about 2 ms, and never longer than it has been refused already.
const STAND_BACK_TICKS: u64 = 2_500;
const STAND_BACK_NANOSECONDS: u64 = 1_000;
const MAX_REFUSALS: u32 = 11;
/// From so many on it sleeps meanwhile.
const SLEEP_REFUSALS: u32 = 3;
/// How many calls about futexes of a thread trap to the sentry, before it is only one in so many.
const FIRST_TRAPS: u32 = 64;
const SHOWN_TRAPS: u32 = 256;
/// How often the watch looks at the word before it lets others run.
const LOOKS: u32 = 4;
/// After so many watches in vain only one in 2^this waits begins with another.
const MAX_VAIN: u32 = 6;

pub(crate) const EAGAIN: i64 = -11;
pub(crate) const EFAULT: i64 = -14;
/// What lies from here up is not the application's.
pub(crate) const APPLICATION_END: u64 = 0x7e00_0000_0000;

/// Returns what a call returns, where the sentry need not be asked.
#[inline]
pub(crate) fn answer(slot: &Slot, number: u64, args: [u64; 6]) -> Option<i64> {
    match number {
        SYS_READ if slot.table.load(Relaxed) != 0 => {
            rings::read(slot, args).or_else(|| files::read(slot, args))
        }
        SYS_PREAD64 if slot.table.load(Relaxed) != 0 => files::pread(slot, args),
        SYS_LSEEK if slot.table.load(Relaxed) != 0 => files::seek(slot, args),
        SYS_WRITE if slot.table.load(Relaxed) != 0 => {
            rings::write(slot, args).or_else(|| files::write(slot, args))
        }
        SYS_EPOLL_WAIT if slot.table.load(Relaxed) != 0 => files::epoll_wait(slot, args),
        SYS_EPOLL_PWAIT if slot.table.load(Relaxed) != 0 && args[4] == 0 => {
            files::epoll_wait(slot, args)
        }
        SYS_PWRITE64 if slot.table.load(Relaxed) != 0 => files::pwrite(slot, args),
        SYS_UMASK if slot.umask.load(Relaxed) != 0 => files::umask(slot, args),
        SYS_SENDTO if slot.table.load(Relaxed) != 0 => rings::send(slot, args),
        SYS_RECVFROM if slot.table.load(Relaxed) != 0 => rings::receive(slot, args),
        SYS_FUTEX if slot.fast.load(Relaxed) != 0 => futex(slot, args),
        SYS_RT_SIGPROCMASK if slot.fast.load(Relaxed) != 0 => sigprocmask(slot, args),
        SYS_SCHED_YIELD if slot.fast.load(Relaxed) != 0 => {
            host::sched_yield();
            Some(0)
        }
        _ => None,
    }
}

/// Returns what a call returns that has trapped, where the sentry need not be asked: only what is worth it
/// at sites that stay as they are, as some do that were first used when the process had several threads.
pub(crate) fn answer_trapped(slot: &Slot, number: u64, args: [u64; 6]) -> Option<i64> {
    if number != SYS_FUTEX || slot.fast.load(Relaxed) == 0 {
        return None;
    }
    let n_traps = slot.futex_traps.load(Relaxed);
    slot.futex_traps.store(n_traps.wrapping_add(1), Relaxed);
    // The sentry sees enough of them to patch the other sites.
    if n_traps < FIRST_TRAPS || n_traps.is_multiple_of(SHOWN_TRAPS) {
        None
    } else {
        futex(slot, args)
    }
}

#[inline]
fn futex(slot: &Slot, args: [u64; 6]) -> Option<i64> {
    let [addr, operation, value, timeout, _, bitset] = args;
    if addr & 3 != 0 || addr >= APPLICATION_END {
        return None;
    }
    match operation as u32 {
        FUTEX_WAKE => wake(addr),
        FUTEX_WAKE_BITSET if bitset as u32 != 0 => wake(addr),
        // The errors of a time-out come first.
        FUTEX_WAIT if timeout == 0 => refuse(slot, addr, value),
        FUTEX_WAIT_BITSET | FUTEX_WAIT_BITSET_REALTIME if timeout == 0 && bitset as u32 != 0 => {
            refuse(slot, addr, value)
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
        let given = read_word(set)?;
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
    if old_set != 0 && !write_word(old_set, before) {
        return Some(EFAULT);
    }
    Some(0)
}

/// Reads eight bytes of the application.
#[inline]
pub(crate) fn read_word(addr: u64) -> Option<u64> {
    let mut word = 0_u64;
    let to = (&raw mut word).expose_provenance() as u64;
    // SAFETY: the destination is a local of that size; the routine survives any source.
    if unsafe { entry::stub_copy(to, addr, WORD_LEN) } != 0 {
        return None;
    }
    // SAFETY: a local, written behind the compiler's back.
    Some(unsafe { (&raw const word).read_volatile() })
}

/// Gives the application eight bytes; returns whether it has a place for them there.
#[inline]
pub(crate) fn write_word(addr: u64, word: u64) -> bool {
    let from = (&raw const word).expose_provenance() as u64;
    // SAFETY: the source is a local of that size; the routine survives any destination.
    unsafe { entry::stub_copy(addr, from, WORD_LEN) == 0 }
}

/// Wakes nobody, where there is nobody.
#[inline]
fn wake(addr: u64) -> Option<i64> {
    fence(SeqCst);
    (n_asleep(addr)? == 0).then_some(0)
}

/// Returns how many sleep on this word, or on others with the same number.
#[inline]
fn n_asleep(addr: u64) -> Option<u32> {
    let process = core::ptr::with_exposed_provenance::<Process>(layout::PROCESS_BASE as usize);
    // SAFETY: see the module; all fields are atomics.
    let counts = unsafe { &(*process).futex_waiters };
    Some(counts.get(process::futex_count(addr))?.load(Relaxed))
}

/// Refuses to wait for a word that has another value, and can be read, or gets one soon.
#[inline]
fn refuse(slot: &Slot, addr: u64, expected: u64) -> Option<i64> {
    match other_value(addr, expected) {
        Some(true) => {
            stand_back(slot);
            Some(EAGAIN)
        }
        Some(false) => watch(slot, addr, expected),
        None => None,
    }
}

/// Leaves the word to others for a moment, where this thread is refused again and again: it would only take the
/// cache line from those that get something done. As if the call had come later.
fn stand_back(slot: &Slot) {
    // Zero where nobody else runs meanwhile.
    let started = serve::now();
    if started == 0 {
        return;
    }
    let is_again = started.wrapping_sub(slot.refused.load(Relaxed)) < QUICK_TICKS;
    let n =
        if is_again { slot.refusals.load(Relaxed).saturating_add(1).min(MAX_REFUSALS) } else { 0 };
    slot.refusals.store(n, Relaxed);
    if n >= SLEEP_REFUSALS {
        let interrupt = (&raw const slot.interrupt).expose_provenance() as u64;
        // Whoever sets it sends a signal, too.
        let _ = host::futex_wait_for(interrupt, 0, STAND_BACK_NANOSECONDS << n);
    } else if n != 0 {
        let ticks = STAND_BACK_TICKS << n;
        while serve::now().wrapping_sub(started) < ticks && slot.interrupt.load(Relaxed) == 0 {
            core::hint::spin_loop();
        }
    }
    slot.refused.store(serve::now(), Relaxed);
}

/// Returns whether a word that can be read has another value.
#[inline]
fn other_value(addr: u64, expected: u64) -> Option<bool> {
    // SAFETY: the routine survives any address.
    let found = unsafe { entry::stub_load(addr) };
    (found != u64::MAX).then_some(found as u32 != expected as u32)
}

/// Waits for a moment until the word has another value, where that may be worth it.
fn watch(slot: &Slot, addr: u64, expected: u64) -> Option<i64> {
    // Zero where nobody else runs meanwhile.
    let started = serve::now();
    let quick = started.wrapping_sub(slot.wanted_wait.load(Relaxed)) < QUICK_TICKS;
    let n_quick = if quick { slot.quick_waits.load(Relaxed) } else { 0 };
    slot.wanted_wait.store(started, Relaxed);
    slot.quick_waits.store(n_quick.saturating_add(1), Relaxed);
    // Where others sleep already, more want the word than can hand it over.
    if started == 0 || n_quick < MIN_QUICK || n_asleep(addr)? != 0 {
        return None;
    }
    let unwatched = slot.unwatched_waits.load(Relaxed);
    if unwatched != 0 {
        slot.unwatched_waits.store(unwatched - 1, Relaxed);
        return None;
    }
    let vain = slot.vain_watches.load(Relaxed);
    let ticks = if n_quick > MIN_QUICK && vain == 0 { WATCH_TICKS } else { FIRST_WATCH_TICKS };
    let (has_changed, waited) = look_for(started, ticks, || other_value(addr, expected))?;
    let result = has_changed.then_some(EAGAIN);
    note_watch(slot, has_changed, waited);
    result
}

/// Notes what came of a watch of so many ticks: for how many waits there is none, after one in vain.
pub(crate) fn note_watch(slot: &Slot, has_happened: bool, waited: u64) {
    // What comes so late has cost the CPU, which others want more.
    if has_happened && waited < QUICK_TICKS {
        slot.vain_watches.store(0, Relaxed);
        return;
    }
    let vain = slot.vain_watches.load(Relaxed).wrapping_add(1).min(MAX_VAIN);
    slot.vain_watches.store(vain, Relaxed);
    slot.unwatched_waits.store((1_u32 << vain).wrapping_sub(1), Relaxed);
}

/// Looks for so many ticks from `started` on whether something has happened, and lets others use the CPU
/// meanwhile; returns whether it has, and how many ticks that took.
pub(crate) fn look_for(
    started: u64,
    ticks: u64,
    mut has_happened: impl FnMut() -> Option<bool>,
) -> Option<(bool, u64)> {
    let mut waited = 0;
    while waited < ticks {
        for _ in 0..LOOKS {
            core::hint::spin_loop();
            if has_happened()? {
                return Some((true, serve::now().wrapping_sub(started)));
            }
        }
        waited = serve::now().wrapping_sub(started);
        // The other thread may be waiting for this CPU.
        host::sched_yield();
    }
    Some((false, waited))
}
