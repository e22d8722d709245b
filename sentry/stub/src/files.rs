//! Reading and writing files that are lent to the process (`sentry_sysmsg::file`): by calls of the host, or
//! through windows on them; and devices, which need neither.
//!
//! And the mask for the permissions of new files.
//!
//! What is an error, or may not be all that there is to read, is the sentry's.
//!
//! # Safety
//! The pages are mapped in every process that has application code; what is in them is checked before it is
//! used, and the host checks the rest.
#![expect(unsafe_code, reason = "reads shared pages")]

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use sentry_sysmsg::file::{CHANGES_SHIFT, EVENT_WORDS, Files, Place, UMASK};
use sentry_sysmsg::layout;
use sentry_sysmsg::ring::{
    Descriptor, ENTRY_DEVICE, ENTRY_FILE, ENTRY_RING, ENTRY_SET, ENTRY_ZEROS, LEASE_SHIFT,
    POSITION, TAKEN_BACK,
};
use sentry_sysmsg::slot::Slot;

use crate::fast::APPLICATION_END;
use crate::{entry, host, rings, serve};

/// The longest read, or write through a window: it is not interrupted.
const MAX_LEN: u64 = 2 << 20;
/// The host maps so much of a file that is in memory when it is first read there, but only a page when it is first
/// written to.
const MAPPED_TOGETHER: u64 = 64 << 10;
/// The longest write to a device.
const MAX_WRITE: u64 = 1 << 30;
/// The most events that are asked for here, and the size of one.
const MAX_EVENTS: u64 = 1 << 16;
const EVENT_LEN: u64 = (EVENT_WORDS * size_of::<u32>()) as u64;
/// So many calls are counted.
const COUNTED: u32 = 1 << 10;

const SEEK_SET: u32 = 0;
const SEEK_CUR: u32 = 1;

/// A lent file and the entry by which it was found.
#[derive(Clone, Copy)]
struct Lent {
    place: &'static Place,
    entry: u64,
}

/// `read`.
pub(crate) fn read(slot: &Slot, [fd, addr, len, ..]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.reads)?;
    let offset = lent.offset()?;
    if lent.is_device() {
        return lent.take(addr, len);
    }
    let n = lent.fetch(addr, len, offset)?;
    lent.set_offset(offset, offset + n)?;
    Some(n.cast_signed())
}

/// `pread64`.
pub(crate) fn pread(slot: &Slot, [fd, addr, len, offset, ..]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.reads)?;
    lent.offset()?;
    if lent.is_device() {
        return None;
    }
    let n = lent.fetch(addr, len, offset)?;
    // What has been read was the file's then.
    lent.offset()?;
    lent.count();
    Some(n.cast_signed())
}

/// `write` to a device.
pub(crate) fn write(slot: &Slot, [fd, addr, len, ..]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.writes)?;
    if !lent.is_device() {
        return None;
    }
    if len == 0 || len > MAX_WRITE || addr.checked_add(len)? > APPLICATION_END {
        return None;
    }
    lent.offset()?;
    lent.count();
    Some(len.cast_signed())
}

/// `pwrite64`. (`write` is not done here: one that comes too late would have changed what lies at an offset which is
/// another's by then.)
pub(crate) fn pwrite(slot: &Slot, [fd, addr, len, offset, ..]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.writes)?;
    if lent.is_device() {
        return None;
    }
    lent.offset()?;
    let _held = rings::hold(&lent.place.lock)?;
    // From here on the place is not lent once more, and the window stays what it is.
    lent.offset()?;
    lent.put(addr, len, offset)?;
    // What has been written was the file's then.
    lent.offset()?;
    lent.count();
    Some(len.cast_signed())
}

/// `lseek`, but for what depends on the size of the file.
pub(crate) fn seek(slot: &Slot, [fd, by, whence, ..]: [u64; 6]) -> Option<i64> {
    let lent = find(slot, fd, |of| &of.reads)?;
    let offset = lent.offset()?;
    if lent.is_device() {
        return None;
    }
    let target = match whence as u32 {
        SEEK_SET => Some(by),
        SEEK_CUR => offset.checked_add_signed(by.cast_signed()),
        _ => None,
    }?;
    lent.set_offset(offset, target)?;
    Some(target.cast_signed())
}

/// `epoll_wait` that does not wait: by what the sentry has said is ready.
pub(crate) fn epoll_wait(slot: &Slot, [fd, addr, max, timeout, ..]: [u64; 6]) -> Option<i64> {
    let max = u64::from(max as u32);
    if max == 0 || max > MAX_EVENTS {
        return None;
    }
    if addr.checked_add(max * EVENT_LEN)? > APPLICATION_END {
        return None;
    }
    let lent = find_any(slot, fd, |of| &of.reads)?;
    if lent.entry & ENTRY_SET == 0 {
        return None;
    }
    lent.offset()?;
    let n = u64::from(lent.place.number.load(Acquire));
    if n == 0 {
        if timeout as u32 != 0 {
            return None;
        }
    } else {
        let events = files().events.get((lent.entry & ENTRY_RING) as usize)?;
        if n > max || n * EVENT_LEN > size_of_val(events) as u64 {
            return None;
        }
        let from = events.as_ptr().expose_provenance() as u64;
        // SAFETY: the routine survives any destination; so many events are there.
        if unsafe { entry::stub_copy(addr, from, n * EVENT_LEN) } != 0 {
            return None;
        }
        // What has been told was so then.
        lent.offset()?;
    }
    lent.count();
    Some(n.cast_signed())
}

/// `umask`.
pub(crate) fn umask(slot: &Slot, [mask, ..]: [u64; 6]) -> Option<i64> {
    if slot.fast.load(Relaxed) == 0 {
        return None;
    }
    let lease = slot.umask.load(Relaxed);
    let place = &files().umask;
    let word = place.load(SeqCst);
    if (word ^ lease) >> LEASE_SHIFT != 0 || word & TAKEN_BACK != 0 {
        return None;
    }
    let counted = (word & POSITION & !UMASK).wrapping_add(1 << CHANGES_SHIFT) & POSITION;
    place.compare_exchange(word, lease | counted | mask & UMASK, SeqCst, Relaxed).ok()?;
    Some((word & UMASK).cast_signed())
}

/// Returns what is lent to the process besides streams.
#[inline]
fn files() -> &'static Files {
    let files = core::ptr::with_exposed_provenance::<Files>(layout::FILES_BASE as usize);
    // SAFETY: see the module; all fields are atomics.
    unsafe { &*files }
}

/// Returns the lent file that the descriptor refers to, where the thread may read or write it here.
#[inline]
fn find(slot: &Slot, fd: u64, use_of: impl FnOnce(&Descriptor) -> &AtomicU64) -> Option<Lent> {
    find_any(slot, fd, use_of).filter(|lent| lent.entry & ENTRY_SET == 0)
}

/// Returns what is lent as a file and the descriptor refers to, where the thread may use it here.
#[inline]
fn find_any(slot: &Slot, fd: u64, use_of: impl FnOnce(&Descriptor) -> &AtomicU64) -> Option<Lent> {
    let entry = rings::mirrored(slot, fd, use_of)?;
    if entry & ENTRY_FILE == 0 {
        return None;
    }
    let place = files().places.get((entry & ENTRY_RING) as usize)?;
    Some(Lent { place, entry })
}

impl Lent {
    #[inline]
    fn is_device(&self) -> bool {
        self.entry & ENTRY_DEVICE != 0
    }

    /// Takes what a device has that is lent.
    #[inline]
    fn take(&self, addr: u64, len: u64) -> Option<i64> {
        let is_possible = len != 0 && len <= MAX_LEN;
        if !is_possible || addr.checked_add(len)? > APPLICATION_END {
            return None;
        }
        let n = if self.entry & ENTRY_ZEROS != 0 { len } else { 0 };
        // The call has found its file: what becomes of the descriptor from here on does not concern it.
        // SAFETY: the routine survives any destination.
        if n != 0 && unsafe { entry::stub_clear(addr, n) } != 0 {
            return None;
        }
        self.count();
        Some(n.cast_signed())
    }

    /// Returns the offset, as long as the file is lent as the entry says.
    #[inline]
    fn offset(&self) -> Option<u64> {
        let word = self.place.word.load(SeqCst);
        let is_lent = (word ^ self.entry) >> LEASE_SHIFT == 0 && word & TAKEN_BACK == 0;
        is_lent.then_some(word & POSITION)
    }

    /// Moves the offset, where the file was lent until then and nobody else has moved it.
    #[inline]
    fn set_offset(&self, from: u64, to: u64) -> Option<()> {
        if to > POSITION {
            return None;
        }
        let lease = self.entry >> LEASE_SHIFT << LEASE_SHIFT;
        let (from, to) = (lease | from, lease | to);
        self.place.word.compare_exchange(from, to, SeqCst, Relaxed).ok()?;
        self.count();
        Some(())
    }

    #[inline]
    fn count(&self) {
        let n_calls = self.place.n_calls.load(Relaxed);
        if n_calls < COUNTED {
            self.place.n_calls.store(n_calls + 1, Relaxed);
        }
    }

    /// Reads what the file has from `offset` on; returns how much that is.
    #[inline(never)]
    fn fetch(&self, addr: u64, len: u64, offset: u64) -> Option<u64> {
        if len == 0 || len > MAX_LEN || addr.checked_add(len)? > APPLICATION_END {
            return None;
        }
        // Linux has no offset beyond, and says so of one that is too large.
        let end = offset.checked_add(len)?;
        i64::try_from(end).ok()?;
        let size = self.place.window.load(Acquire);
        if size != 0 {
            return self.fetch_here(addr, len, offset, size.min(layout::WINDOW_LEN));
        }
        let number = u64::from(self.place.number.load(Acquire));
        let n = u64::try_from(host::pread(number, addr, len, offset)).ok()?;
        if n == 0 || n >= len {
            return Some(n);
        }
        // Less may be all that there is, or all that there is memory for: the file's end tells.
        let rest = host::pread(number, addr + n, len - n, offset + n);
        (rest == 0).then_some(n)
    }

    /// Returns where its window lies.
    #[inline]
    fn window(&self) -> u64 {
        layout::WINDOWS_BASE + (self.entry & ENTRY_RING) * layout::WINDOW_LEN
    }

    /// Does the same through the window, which shows `size` bytes.
    #[inline]
    fn fetch_here(&self, addr: u64, len: u64, offset: u64, size: u64) -> Option<u64> {
        let n = size.saturating_sub(offset).min(len);
        // SAFETY: the routine survives any address; the source lies in the window, or nowhere where
        // nothing is to be copied.
        let is_copied = n == 0 || unsafe { entry::stub_copy(addr, self.window() + offset, n) == 0 };
        is_copied.then_some(n)
    }

    /// Writes over what the file has from `offset` on, through the window; returns nothing where that is not
    /// possible, or has been so only in part. The lock is held.
    #[inline(never)]
    fn put(&self, addr: u64, len: u64, offset: u64) -> Option<()> {
        if len == 0 || len > MAX_LEN || addr.checked_add(len)? > APPLICATION_END {
            return None;
        }
        let end = offset.checked_add(len)?;
        let now = serve::now();
        if now == 0 || end > self.place.window.load(Acquire).min(layout::WINDOW_LEN) {
            return None;
        }
        // Before the bytes, as long as nobody may look at them without the time.
        self.place.written.store(now, SeqCst);
        let to = self.window() + offset;
        let mut at = to;
        while at < to + len {
            // SAFETY: the routine survives any address.
            unsafe { entry::stub_load(at) };
            at += MAPPED_TOGETHER;
        }
        // SAFETY: as above; the destination lies in the window.
        (unsafe { entry::stub_copy(to, addr, len) } == 0).then_some(())
    }
}
