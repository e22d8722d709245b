//! Host calls in the form in which the stub makes them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::file::N_FILES;
use sentry_sysmsg::layout;
use sentry_sysmsg::ring::{N_OWN, N_RINGS, Ring};
use sentry_sysmsg::slot::{
    CALL_ATOMIC_UPDATE, CALL_CHAINED, CALL_COMPARE_EXCHANGE, CALL_COPY_OUT, CALL_QUIET,
    CALL_REFUSED, CALL_WHOLE, CallEntry, DATA_LEN, MAX_CALLS, Renew as _, Slot,
};
use syscalls::{Errno, SysResult};

use super::doorbell::Doorbell;
use super::lent_files::FIRST_WINDOW;
use super::patch::QuietCall;
use super::space::Space;
use crate::{HostCall, USER_ADDRESS_LIMIT};

const NO_FD: u64 = u64::MAX;
const PAGE: u64 = 4096;
/// How many calls one reply gets; one entry stays free for the error of a clone.
const BATCH: usize = MAX_CALLS - 1;
/// How many pages one `mincore` may ask for.
const MINCORE_MAX: u64 = 4096;

/// What [`fill`] has put into a slot.
pub(super) struct Batch {
    /// How many calls.
    pub(super) n_calls: usize,
    /// How many bytes of data the calls bring.
    pub(super) data_len: usize,
    /// Whether the next call needs a descriptor, and the thread must ring for it.
    pub(super) needs_ring: bool,
    /// The pinned descriptors that the calls name.
    pub(super) pins: Vec<i32>,
    /// Those that the calls close.
    pub(super) closes: Vec<i32>,
    /// The arguments of each `pwrite64`, for which the thread is going to ask.
    pub(super) permits: Vec<[u64; 4]>,
}

/// Moves calls from `todo` into the slot, as many as fit. Stops before a call that needs a
/// descriptor which only a ring could bring where there is none: the empty or short batch makes
/// the stub ring.
pub(super) fn fill(
    slot: &Slot,
    first: usize,
    space: &Space,
    doorbell: &Doorbell,
    ring: Option<u64>,
    todo: &mut VecDeque<HostCall>,
) -> Batch {
    let mut batch = Batch {
        n_calls: first,
        data_len: 0,
        needs_ring: false,
        pins: Vec::new(),
        closes: Vec::new(),
        permits: Vec::new(),
    };
    while let Some(entry) = slot.calls.0.get(batch.n_calls).filter(|_| batch.n_calls < BATCH) {
        let Some(call) = todo.front() else { break };
        if batch.data_len != 0 {
            break;
        }
        let flags = match call {
            HostCall::Pread { whole: true, .. } => CALL_WHOLE,
            HostCall::Pwrite { .. }
            | HostCall::MapStream { .. }
            | HostCall::KeepStream { .. }
            | HostCall::CloseStream { .. }
            | HostCall::HoldFile { .. } => CALL_QUIET,
            _ => 0,
        };
        match encode(call, slot, space, doorbell, ring, &mut batch) {
            Encoded::Call(nr, args) => write(entry, nr, flags, args),
            Encoded::NeedsRing => {
                batch.needs_ring = true;
                break;
            }
            Encoded::Refused => write(entry, CALL_REFUSED, flags & CALL_QUIET, [0; 6]),
        }
        if let HostCall::Mincore { len, .. } = call {
            batch.data_len = usize::try_from(len.div_ceil(PAGE).min(MINCORE_MAX)).unwrap_or(0);
        }
        batch.n_calls += 1;
        todo.pop_front();
    }
    if !batch.pins.is_empty() {
        slot.fds_sent.store(space.fds().sent(), Relaxed);
    }
    batch
}

/// Writes the platform's own calls to the start of the slot's list; returns how many there are.
pub(super) fn fill_quiet(slot: &Slot, quiet: &mut Vec<QuietCall>) -> usize {
    let n = quiet.len().min(BATCH);
    for (entry, (nr, args)) in slot.calls.0.iter().zip(quiet.drain(..)) {
        // Results are independent of each other; a patch is all or nothing, and the text's protection
        // comes back.
        let is_alone =
            nr == CALL_COPY_OUT || [libc::SYS_mprotect, libc::SYS_membarrier].contains(&nr.into());
        let chained = if is_alone { 0 } else { CALL_CHAINED };
        write(entry, nr, CALL_QUIET | chained, args);
    }
    n
}

enum Encoded {
    Call(u32, [u64; 6]),
    NeedsRing,
    /// Would reach memory that is not the application's.
    Refused,
}

fn encode(
    call: &HostCall,
    slot: &Slot,
    space: &Space,
    doorbell: &Doorbell,
    ring: Option<u64>,
    batch: &mut Batch,
) -> Encoded {
    let pins = &mut batch.pins;
    if !ranges(call).iter().all(|(addr, len)| guest_range(*addr, *len).is_ok()) {
        return Encoded::Refused;
    }
    if let HostCall::Mmap { addr, len, .. } | HostCall::Munmap { addr, len } = *call {
        space.sites().forget(addr..addr.saturating_add(len));
    }
    let (nr, args) = match *call {
        HostCall::Mmap { addr, len, prot, flags, ref file, offset } => {
            let fd = match file {
                None => NO_FD,
                Some(file) => match donate(file, space, doorbell, ring, pins) {
                    Some(fd) => fd,
                    None => return Encoded::NeedsRing,
                },
            };
            let anonymous = if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
            let flags = u64::from((flags | libc::MAP_FIXED | anonymous).cast_unsigned());
            (libc::SYS_mmap, [addr, len, u64::from(prot.cast_unsigned()), flags, fd, offset])
        }
        HostCall::Pread { addr, len, ref file, offset, whole: _ } => {
            let Some(fd) = donate(file, space, doorbell, ring, pins) else {
                return Encoded::NeedsRing;
            };
            (libc::SYS_pread64, [fd, addr, len, offset, 0, 0])
        }
        HostCall::Pwrite { addr, len, ref file, offset } => {
            let Some(fd) = donate(file, space, doorbell, ring, pins) else {
                return Encoded::NeedsRing;
            };
            batch.permits.push([fd, addr, len, offset]);
            (libc::SYS_pwrite64, [fd, addr, len, offset, 0, 0])
        }
        HostCall::Munmap { addr, len } => (libc::SYS_munmap, [addr, len, 0, 0, 0, 0]),
        HostCall::Mprotect { addr, len, prot } => {
            (libc::SYS_mprotect, [addr, len, u64::from(prot.cast_unsigned()), 0, 0, 0])
        }
        HostCall::Mremap { addr, old_len, new_len, new_addr, flags } => {
            let moving =
                if addr == new_addr { 0 } else { libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED };
            (
                libc::SYS_mremap,
                [addr, old_len, new_len, u64::from((flags | moving).cast_unsigned()), new_addr, 0],
            )
        }
        HostCall::Madvise { addr, len, advice } => {
            (libc::SYS_madvise, [addr, len, u64::from(advice.cast_unsigned()), 0, 0, 0])
        }
        HostCall::Msync { addr, len, flags } => {
            (libc::SYS_msync, [addr, len, u64::from(flags.cast_unsigned()), 0, 0, 0])
        }
        HostCall::Mincore { addr, len } => {
            (libc::SYS_mincore, [addr, len, data_addr(space, slot), 0, 0, 0])
        }
        HostCall::MapStream { place, ref file } => {
            let Some(fd) = donate(file, space, doorbell, ring, pins) else {
                return Encoded::NeedsRing;
            };
            let Some((addr, len)) = stream_range(place) else { return Encoded::Refused };
            let prot = u64::from((libc::PROT_READ | libc::PROT_WRITE).cast_unsigned());
            let flags = u64::from((libc::MAP_SHARED | libc::MAP_FIXED).cast_unsigned());
            (libc::SYS_mmap, [addr, len, prot, flags, fd, 0])
        }
        HostCall::HoldFile { ref file } => {
            if donate(file, space, doorbell, ring, pins).is_none() {
                return Encoded::NeedsRing;
            }
            // Nothing else is to be done.
            (libc::SYS_getcpu, [0; 6])
        }
        HostCall::CloseStream { ref file } => {
            let Some(number) = space.fds().get(file) else { return Encoded::Refused };
            pins.push(number);
            batch.closes.push(number);
            (libc::SYS_close, [u64::from(number.cast_unsigned()), 0, 0, 0, 0, 0])
        }
        HostCall::KeepStream { place } => {
            let Some((addr, len)) = stream_range(place) else { return Encoded::Refused };
            let advice = u64::from(libc::MADV_DONTFORK.cast_unsigned());
            (libc::SYS_madvise, [addr, len, advice, 0, 0, 0])
        }
        HostCall::Membarrier { command } => {
            (libc::SYS_membarrier, [u64::from(command), 0, 0, 0, 0, 0])
        }
        HostCall::AtomicUpdate { addr, and, xor, add } => {
            let args = [addr, u64::from(and), u64::from(xor), u64::from(add), 0, 0];
            return Encoded::Call(CALL_ATOMIC_UPDATE, args);
        }
        HostCall::CompareExchange { addr, old, new } => {
            return Encoded::Call(
                CALL_COMPARE_EXCHANGE,
                [addr, u64::from(old), u64::from(new), 0, 0, 0],
            );
        }
        HostCall::Rseq { addr, len, flags, signature } => {
            let args = [
                addr,
                u64::from(len),
                u64::from(flags.cast_unsigned()),
                u64::from(signature),
                0,
                0,
            ];
            (libc::SYS_rseq, args)
        }
    };
    Encoded::Call(u32::try_from(nr).unwrap_or(u32::MAX), args)
}

/// Returns the number under which the process holds `file`, pinned, after handing it over where that
/// is needed; `None` where that needs a ring or takes others to finish with theirs first. A
/// descriptor that the host refuses gets a number that is none.
fn donate(
    file: &Arc<OwnedFd>,
    space: &Space,
    doorbell: &Doorbell,
    ring: Option<u64>,
    pins: &mut Vec<i32>,
) -> Option<u64> {
    let mut fds = space.fds();
    let number = match fds.get(file) {
        Some(number) => number,
        None => {
            let Ok(number) = fds.hand_over(file, doorbell, ring)? else { return Some(NO_FD) };
            number
        }
    };
    pins.push(number);
    Some(u64::from(number.cast_unsigned()))
}

/// Returns where a process maps a stream that is not its own alone, or a window.
fn stream_range(place: u64) -> Option<(u64, u64)> {
    if let Some(window) = place.checked_sub(FIRST_WINDOW).filter(|window| *window < N_FILES as u64)
    {
        return Some((layout::WINDOWS_BASE + window * layout::WINDOW_LEN, layout::WINDOW_LEN));
    }
    let len = size_of::<Ring>() as u64;
    let is_linked = (N_OWN as u64..N_RINGS as u64).contains(&place);
    is_linked.then_some((layout::RINGS_BASE + place * len, len))
}

/// Returns the memory that a call is about. The sentry has chosen or checked it; this is the last
/// line that keeps the stub's own pages out of its reach.
fn ranges(call: &HostCall) -> [(u64, u64); 2] {
    match *call {
        HostCall::Mmap { addr, len, .. }
        | HostCall::Pread { addr, len, .. }
        | HostCall::Pwrite { addr, len, .. }
        | HostCall::Munmap { addr, len }
        | HostCall::Mprotect { addr, len, .. }
        | HostCall::Madvise { addr, len, .. }
        | HostCall::Msync { addr, len, .. }
        | HostCall::Mincore { addr, len } => [(addr, len), (0, 0)],
        HostCall::Mremap { addr, old_len, new_len, new_addr, .. } => {
            [(addr, old_len), (new_addr, new_len)]
        }
        HostCall::AtomicUpdate { addr, .. } | HostCall::CompareExchange { addr, .. } => {
            [(addr, 4), (0, 0)]
        }
        HostCall::Rseq { addr, len, .. } => [(addr, u64::from(len)), (0, 0)],
        HostCall::MapStream { .. }
        | HostCall::KeepStream { .. }
        | HostCall::CloseStream { .. }
        | HostCall::HoldFile { .. }
        | HostCall::Membarrier { .. } => [(0, 0), (0, 0)],
    }
}

/// Returns where the stub sees the slot's data area. The index is the sentry's own.
fn data_addr(_space: &Space, slot: &Slot) -> u64 {
    let offset = u64::try_from(std::mem::offset_of!(Slot, data)).unwrap_or(0);
    layout::slot_addr(slot.index.load(Relaxed).min(layout::MAX_THREADS - 1)) + offset
}

fn write(entry: &CallEntry, nr: u32, flags: u32, args: [u64; 6]) {
    entry.nr.renew(nr);
    entry.flags.renew(flags);
    for (place, arg) in entry.args.iter().zip(args) {
        place.renew(arg);
    }
}

/// Copies bytes to the data area, to an offset that is a multiple of eight.
pub(super) fn write_data(slot: &Slot, offset: usize, bytes: &[u8]) {
    let data = slot.data.get(offset / 8..).unwrap_or_default();
    let (words, rest) = bytes.as_chunks();
    for (place, word) in data.iter().zip(words) {
        place.store(u64::from_le_bytes(*word), Relaxed);
    }
    if let Some(place) = data.get(words.len()).filter(|_| !rest.is_empty()) {
        let mut word = [0; 8];
        word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        place.store(u64::from_le_bytes(word), Relaxed);
    }
}

/// Fills `dst` with what the data area has from `offset` on.
pub(super) fn copy_data(slot: &Slot, offset: usize, dst: &mut [u8]) {
    let mut words = slot.data.get(offset / 8..).unwrap_or_default().iter();
    let mut next = || words.next().map_or(0, |word| word.load(Relaxed)).to_le_bytes();
    let skipped = offset % 8;
    let (head, dst) = dst.split_at_mut(dst.len().min((8 - skipped) % 8));
    if skipped != 0 {
        head.iter_mut().zip(next().iter().skip(skipped)).for_each(|(to, from)| *to = *from);
    }
    let (whole, tail) = dst.as_chunks_mut();
    for place in whole {
        *place = next();
    }
    if !tail.is_empty() {
        tail.iter_mut().zip(next()).for_each(|(to, from)| *to = from);
    }
}

/// Copies the first `len` bytes of the data area.
pub(super) fn read_data(slot: &Slot, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.min(DATA_LEN)];
    copy_data(slot, 0, &mut bytes);
    bytes
}

/// Checks that `len` bytes at `addr` are the application's.
pub(super) fn guest_range(addr: u64, len: u64) -> SysResult<u64> {
    match addr.checked_add(len) {
        Some(end) if end <= USER_ADDRESS_LIMIT => Ok(addr),
        _ => Err(Errno::EFAULT),
    }
}
