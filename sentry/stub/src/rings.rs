//! Reading and writing streams and counters that are lent to the process (`sentry_sysmsg::ring`).
//!
//! What cannot be done at once, or after a short look for what other threads do, is the sentry's, and so is
//! everything that would be an error.
//!
//! # Safety
//! The pages of streams are mapped in every process that has application code, the copy routine survives
//! any address of the application, and what is in the streams is masked and checked before it is used.
#![expect(unsafe_code, reason = "reads and writes shared pages and the application's memory")]

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64};

use sentry_sysmsg::layout;
use sentry_sysmsg::ring::{
    Descriptor, ENTRY_COUNTER, ENTRY_FILE, ENTRY_NONBLOCK, ENTRY_RING, ENTRY_SEMAPHORE,
    ENTRY_SOCKET, End, LEASE_SHIFT, Mirror, N_RINGS, POSITION, RING_LEN, Ring, TAKEN_BACK,
};
use sentry_sysmsg::slot::Slot;

use crate::fast::{self, APPLICATION_END, EAGAIN, EFAULT};
use crate::{entry, serve};

/// How often a lock that is held is tried once more: as long as a short copy may take. And a counter that others
/// change meanwhile.
const TRIES: u32 = 64;
const LEN: u64 = RING_LEN as u64;
/// What is read from a counter and written to it.
const COUNTER_LEN: u64 = 8;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_NOSIGNAL: u32 = 0x4000;

/// A lent stream and the entry by which it was found.
#[derive(Clone, Copy)]
struct Lent {
    ring: &'static Ring,
    entry: u64,
}

/// What came of an attempt.
enum Attempt {
    Done(u64),
    Failed(i64),
    /// There is nothing to read, or no room.
    Wait,
    /// The sentry is to be asked.
    Forward,
}

impl Attempt {
    /// Returns what the call returns, unless the sentry is to say.
    #[inline]
    fn result(self) -> Option<i64> {
        match self {
            Self::Done(n) => Some(n.cast_signed()),
            Self::Failed(errno) => Some(errno),
            Self::Wait | Self::Forward => None,
        }
    }
}

/// The lock of an end or a file, held.
pub(crate) struct Held(&'static AtomicU32);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

/// `read`.
#[inline]
pub(crate) fn read(slot: &Slot, [fd, addr, len, ..]: [u64; 6]) -> Option<i64> {
    read_from(slot, find(slot, fd, |of| &of.reads, addr, len)?, addr, len)
}

/// `write`.
#[inline]
pub(crate) fn write(slot: &Slot, [fd, addr, len, ..]: [u64; 6]) -> Option<i64> {
    write_to(slot, find(slot, fd, |of| &of.writes, addr, len)?, addr, len)
}

/// `recvfrom`, of a stream from nowhere else.
pub(crate) fn receive(slot: &Slot, [fd, addr, len, flags, from, _]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.reads, addr, len)?;
    read_from(slot, lent.as_socket(flags, from)?, addr, len)
}

/// `sendto`, to nowhere else.
pub(crate) fn send(slot: &Slot, [fd, addr, len, flags, to, _]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.writes, addr, len)?;
    write_to(slot, lent.as_socket(flags, to)?, addr, len)
}

fn read_from(slot: &Slot, lent: Lent, addr: u64, len: u64) -> Option<i64> {
    let attempt = || if lent.is_counter() { lent.take(addr, len) } else { lent.read(addr, len) };
    let result = attempt();
    if matches!(result, Attempt::Wait) && lent.entry & ENTRY_NONBLOCK != 0 {
        // Somebody has the other end open as long as the stream is lent.
        return Some(EAGAIN);
    }
    // The reading end of a counter stays where it is.
    finish(slot, lent, result, |written, read| written != read, attempt)
}

fn write_to(slot: &Slot, lent: Lent, addr: u64, len: u64) -> Option<i64> {
    // The rest of what is longer is best copied once only.
    if len > LEN / 2 {
        return None;
    }
    if lent.is_counter() {
        return lent.add(addr, len).result();
    }
    let result = lent.write(addr, len);
    if matches!(result, Attempt::Wait) && lent.entry & ENTRY_NONBLOCK != 0 {
        return None;
    }
    let has_room = |written: u64, read: u64| room(written, read).is_none_or(|room| room >= len);
    finish(slot, lent, result, has_room, || lent.write(addr, len))
}

/// Returns what is known of a descriptor, where the thread may use it here.
#[inline]
pub(crate) fn mirrored(
    slot: &Slot,
    fd: u64,
    use_of: impl FnOnce(&Descriptor) -> &AtomicU64,
) -> Option<u64> {
    if slot.fast.load(Relaxed) == 0 {
        return None;
    }
    let mirror = core::ptr::with_exposed_provenance::<Mirror>(layout::MIRROR_BASE as usize);
    // SAFETY: see the module; all fields are atomics.
    let mirror = unsafe { &*mirror };
    // Descriptors are ints; the upper half of the register means nothing.
    let entry = use_of(mirror.entries.get(fd as u32 as usize)?).load(Acquire);
    // After the entry, which is that of another table only later.
    let is_its = mirror.table.load(Acquire) == slot.table.load(Relaxed);
    (entry != 0 && is_its).then_some(entry)
}

/// Returns the stream that the descriptor is an end of, where the thread may use it here.
#[inline]
fn find(
    slot: &Slot,
    fd: u64,
    use_of: impl FnOnce(&Descriptor) -> &AtomicU64,
    addr: u64,
    len: u64,
) -> Option<Lent> {
    let entry = mirrored(slot, fd, use_of)?;
    let index = entry & ENTRY_RING;
    let is_possible = entry & ENTRY_FILE == 0 && index < N_RINGS as u64;
    if !is_possible || len == 0 || addr.checked_add(len)? > APPLICATION_END {
        return None;
    }
    let at = layout::RINGS_BASE + index * size_of::<Ring>() as u64;
    // SAFETY: see the module; all fields are atomics.
    let ring = unsafe { &*core::ptr::with_exposed_provenance::<Ring>(at as usize) };
    Some(Lent { ring, entry })
}

/// Waits for a moment where there is reason to, and tries once more.
#[inline]
fn finish(
    slot: &Slot,
    lent: Lent,
    first: Attempt,
    is_ready: impl Fn(u64, u64) -> bool,
    again: impl Fn() -> Attempt,
) -> Option<i64> {
    let mut result = first;
    if matches!(result, Attempt::Wait) && watch(slot, lent, is_ready)? {
        result = again();
    }
    result.result()
}

/// Looks for a moment whether the other end does something; returns whether it has.
#[inline(never)]
fn watch(slot: &Slot, lent: Lent, is_ready: impl Fn(u64, u64) -> bool) -> Option<bool> {
    // Zero where nobody else runs meanwhile.
    let started = serve::now();
    if started == 0 {
        return None;
    }
    let unwatched = slot.unwatched_waits.load(Relaxed);
    if unwatched != 0 {
        slot.unwatched_waits.store(unwatched - 1, Relaxed);
        return None;
    }
    let (is_ready, waited) = fast::look_for(started, fast::FIRST_WATCH_TICKS, || {
        if slot.interrupt.load(Relaxed) != 0 {
            return None;
        }
        let (written, read) =
            (lent.position(&lent.ring.writer)?, lent.position(&lent.ring.reader)?);
        Some(is_ready(written, read))
    })?;
    fast::note_watch(slot, is_ready, waited);
    Some(is_ready)
}

/// Returns how many bytes there are, where the positions are credible.
#[inline]
fn filled(written: u64, read: u64) -> Option<u64> {
    Some(written.wrapping_sub(read) & POSITION).filter(|n| *n <= LEN)
}

/// Returns for how many bytes there is room, where the positions are credible.
#[inline]
fn room(written: u64, read: u64) -> Option<u64> {
    Some(LEN - filled(written, read)?)
}

/// Takes the lock of an end or a file, where it is free soon.
#[inline]
pub(crate) fn hold(lock: &'static AtomicU32) -> Option<Held> {
    for _ in 0..TRIES {
        if lock.compare_exchange(0, 1, SeqCst, Relaxed).is_ok() {
            return Some(Held(lock));
        }
        core::hint::spin_loop();
    }
    None
}

impl Lent {
    /// Returns the stream as a call on a socket uses it that has these flags, where it names no address.
    #[inline]
    fn as_socket(mut self, flags: u64, addr: u64) -> Option<Self> {
        let flags = flags as u32;
        let is_plain = flags & !(MSG_DONTWAIT | MSG_NOSIGNAL) == 0 && addr == 0;
        if self.entry & ENTRY_SOCKET == 0 || !is_plain {
            return None;
        }
        if flags & MSG_DONTWAIT != 0 {
            self.entry |= ENTRY_NONBLOCK;
        }
        Some(self)
    }

    #[inline]
    fn is_counter(&self) -> bool {
        self.entry & ENTRY_COUNTER != 0
    }

    /// Takes the value of a counter, or one of it.
    #[inline]
    fn take(&self, addr: u64, len: u64) -> Attempt {
        if len < COUNTER_LEN {
            return Attempt::Forward;
        }
        let end = &self.ring.writer;
        for _ in 0..TRIES {
            let Some(value) = self.position(end) else { return Attempt::Forward };
            if value == 0 {
                return Attempt::Wait;
            }
            let taken = if self.entry & ENTRY_SEMAPHORE != 0 { 1 } else { value };
            if self.advance(end, value, taken.wrapping_neg()) {
                return self.hand_out(addr, taken);
            }
        }
        Attempt::Forward
    }

    /// Copies what has been taken from a counter to the application.
    #[inline]
    fn hand_out(&self, addr: u64, taken: u64) -> Attempt {
        if fast::write_word(addr, taken) {
            return Attempt::Done(COUNTER_LEN);
        }
        // The sentry may know better, and where it does not nothing is gained but the number lost, as on
        // Linux.
        match self.add_number(taken) {
            Attempt::Done(_) => Attempt::Forward,
            _ => Attempt::Failed(EFAULT),
        }
    }

    /// Adds to a counter.
    #[inline]
    fn add(&self, addr: u64, len: u64) -> Attempt {
        if len != COUNTER_LEN {
            return Attempt::Forward;
        }
        match fast::read_word(addr) {
            Some(number) => self.add_number(number),
            None => Attempt::Forward,
        }
    }

    /// Adds a number to a counter, as far as it holds that while it is lent.
    #[inline]
    fn add_number(&self, number: u64) -> Attempt {
        let end = &self.ring.writer;
        for _ in 0..TRIES {
            let Some(value) = self.position(end) else { return Attempt::Forward };
            if number > POSITION - value {
                return Attempt::Forward;
            }
            if self.advance(end, value, number) {
                return Attempt::Done(COUNTER_LEN);
            }
        }
        Attempt::Forward
    }

    /// Returns the position of an end, as long as the stream is lent as the entry says.
    #[inline]
    fn position(&self, end: &End) -> Option<u64> {
        let word = end.word.load(SeqCst);
        let is_lent = (word ^ self.entry) >> LEASE_SHIFT == 0 && word & TAKEN_BACK == 0;
        is_lent.then_some(word & POSITION)
    }

    /// Moves an end from the position `from` on by `n`; returns whether the stream was lent until then.
    #[inline]
    fn advance(&self, end: &End, from: u64, n: u64) -> bool {
        let lease = self.entry >> LEASE_SHIFT << LEASE_SHIFT;
        let to = from.wrapping_add(n) & POSITION;
        let moved = end.word.compare_exchange(lease | from, lease | to, SeqCst, Relaxed);
        if moved.is_ok() {
            end.n_calls.store(end.n_calls.load(Relaxed).wrapping_add(1), Relaxed);
        }
        moved.is_ok()
    }

    #[inline]
    fn read(&self, addr: u64, len: u64) -> Attempt {
        let Some(_held) = hold(&self.ring.reader.lock) else { return Attempt::Forward };
        let (Some(read), Some(written)) =
            (self.position(&self.ring.reader), self.position(&self.ring.writer))
        else {
            return Attempt::Forward;
        };
        let n = match filled(written, read) {
            Some(0) => return Attempt::Wait,
            Some(n) => n.min(len),
            None => return Attempt::Forward,
        };
        if !self.copy(addr, read, n, false) || !self.advance(&self.ring.reader, read, n) {
            return Attempt::Forward;
        }
        Attempt::Done(n)
    }

    #[inline]
    fn write(&self, addr: u64, len: u64) -> Attempt {
        let Some(_held) = hold(&self.ring.writer.lock) else { return Attempt::Forward };
        let (Some(written), Some(read)) =
            (self.position(&self.ring.writer), self.position(&self.ring.reader))
        else {
            return Attempt::Forward;
        };
        match room(written, read) {
            Some(room) if room >= len => {}
            Some(_) => return Attempt::Wait,
            None => return Attempt::Forward,
        }
        if !self.copy(addr, written, len, true) || !self.advance(&self.ring.writer, written, len) {
            return Attempt::Forward;
        }
        Attempt::Done(len)
    }

    /// Copies `n` bytes between the application and the stream, at most as many as that has; returns
    /// whether that went without a fault.
    #[inline]
    fn copy(&self, addr: u64, position: u64, n: u64, to_stream: bool) -> bool {
        let at = position % LEN;
        let first = n.min(LEN - at);
        self.copy_part(addr, at, first, to_stream)
            && (first == n || self.copy_part(addr + first, 0, n - first, to_stream))
    }

    #[inline]
    fn copy_part(&self, addr: u64, at: u64, n: u64, to_stream: bool) -> bool {
        let place = self.ring.data.as_ptr().expose_provenance() as u64 + at;
        let (to, from) = if to_stream { (place, addr) } else { (addr, place) };
        // SAFETY: the routine survives any address of the application; `at` and `n` lie within the
        // stream, whose bytes are atomics that nobody relies on.
        unsafe { entry::stub_copy(to, from, n) == 0 }
    }
}
