//! What travels with requests and replies: memory that the arguments of a call point to, and small
//! results, which the stub stores on its way back to the application.

use std::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::layout::{INPUT_COUNTED, INPUT_FIXED, INPUT_SHIFT, INPUT_STRING, N_CALLS};
use sentry_sysmsg::slot::{CALL_COPY_OUT, DATA_LEN, N_INPUTS, Slot};
use syscalls::info::Kind;

use super::calls;
use super::patch::QuietCall;

/// How many results wait for the way back.
const OUTPUTS: usize = 16;

/// How long an input may be that is copied when its request is taken. What is longer is data, which is
/// copied once, when it is asked for.
const COPIED_MAX: usize = 2048;

/// How much a reader of strings asks for at most, which is content with less. Whoever reads more
/// (a page of arguments, say) wants what lies behind the string as well.
const STRING_READ: usize = 256;

/// One piece of the application's memory that has come with a request.
#[derive(Debug)]
struct Piece {
    addr: u64,
    start: usize,
    len: usize,
    /// Whether it ends with its terminator, and a reader of more gets only that far.
    is_string: bool,
    /// Whether it starts there in the slot's data, and not in a copy.
    is_in_slot: bool,
}

/// A result that is in the slot's data, and where it belongs. What the data is when it is stored is the
/// application's affair, as the place is.
#[derive(Debug)]
struct Output {
    addr: u64,
    start: usize,
    len: usize,
}

/// Copies of memory; emptied and used again for each request.
#[derive(Debug, Default)]
pub(super) struct Messages {
    inputs: Vec<Piece>,
    input_bytes: Vec<u8>,
    outputs: Vec<Output>,
}

impl Messages {
    /// Copies the inputs of a request out of its slot.
    pub(super) fn take(&mut self, slot: &Slot) {
        self.forget_inputs();
        let n = usize::try_from(slot.n_inputs.load(Relaxed)).unwrap_or(0).min(N_INPUTS);
        for input in slot.inputs.iter().take(n) {
            let len = usize::try_from(input.len.load(Relaxed)).unwrap_or(0);
            let offset = usize::try_from(input.offset.load(Relaxed)).unwrap_or(0);
            if offset % 8 != 0 || offset > DATA_LEN || len > DATA_LEN - offset || len == 0 {
                continue;
            }
            let addr = input.addr.load(Relaxed);
            if len > COPIED_MAX {
                let piece = Piece { addr, start: offset, len, is_string: false, is_in_slot: true };
                self.inputs.push(piece);
                continue;
            }
            let start = self.input_bytes.len();
            self.input_bytes.resize(start + len.next_multiple_of(8), 0);
            calls::copy_data(slot, offset, self.input_bytes.get_mut(start..).unwrap_or_default());
            let is_string = self.input_bytes.get(start + len - 1) == Some(&0);
            self.inputs.push(Piece { addr, start, len, is_string, is_in_slot: false });
        }
    }

    /// Drops what a call has brought.
    pub(super) fn forget_inputs(&mut self) {
        self.inputs.clear();
        self.input_bytes.clear();
    }

    /// Fills `dst` with memory at `addr` that the request in `slot` has brought; returns how much, or
    /// `None` where it has not.
    pub(super) fn read(&self, slot: &Slot, addr: u64, dst: &mut [u8]) -> Option<usize> {
        for piece in &self.inputs {
            let Ok(offset) = usize::try_from(addr.wrapping_sub(piece.addr)) else { continue };
            if offset >= piece.len {
                continue;
            }
            let left = piece.len - offset;
            let n = left.min(dst.len());
            if n < dst.len() && !(piece.is_string && dst.len() <= STRING_READ) {
                continue;
            }
            let dst = dst.get_mut(..n)?;
            if piece.is_in_slot {
                calls::copy_data(slot, piece.start + offset, dst);
            } else {
                let start = piece.start + offset;
                dst.copy_from_slice(self.input_bytes.get(start..start + n)?);
            }
            return Some(n);
        }
        None
    }

    /// Keeps a result for the way back, in the slot's data, where inputs are no longer needed; returns
    /// whether there is room for it.
    pub(super) fn write(&mut self, slot: &Slot, addr: u64, src: &[u8]) -> bool {
        let end = self.outputs.last().map_or(0, |last| last.start + last.len);
        let start = end.next_multiple_of(8);
        if start + src.len() > DATA_LEN {
            return false;
        }
        if let Some(last) = self.outputs.last_mut()
            && last.addr.wrapping_add(last.len as u64) == addr
            && start == end
        {
            calls::write_data(slot, start, src);
            last.len += src.len();
            return true;
        }
        if self.outputs.len() >= OUTPUTS {
            return false;
        }
        calls::write_data(slot, start, src);
        self.outputs.push(Output { addr, start, len: src.len() });
        true
    }

    /// Keeps a result that is at the start of the slot's data already, where there is no other.
    pub(super) fn filled(&mut self, addr: u64, len: usize) {
        self.outputs.push(Output { addr, start: 0, len });
    }

    /// Returns whether results wait.
    pub(super) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Hands every result to `store`, and drops it.
    pub(super) fn flush(&mut self, slot: &Slot, mut store: impl FnMut(u64, &[u8])) {
        for output in self.outputs.drain(..) {
            let mut bytes = vec![0; output.len];
            calls::copy_data(slot, output.start, &mut bytes);
            store(output.addr, &bytes);
        }
    }

    /// Appends the calls that store the results.
    pub(super) fn fill(&mut self, quiet: &mut Vec<QuietCall>) {
        for output in self.outputs.drain(..) {
            let [start, len] = [output.start, output.len].map(|n| u64::try_from(n).unwrap_or(0));
            quiet.push((CALL_COPY_OUT, [output.addr, start, len, 0, 0, 0]));
        }
    }
}

/// Returns whether the call `number` only asks: nobody is woken by it who might look for its results in
/// memory that is shared.
pub(super) fn wakes_nobody(number: u64) -> bool {
    use syscalls::arch::x86_64::nr;
    matches!(
        number,
        nr::STAT
            | nr::FSTAT
            | nr::LSTAT
            | nr::NEWFSTATAT
            | nr::STATX
            | nr::STATFS
            | nr::FSTATFS
            | nr::GETDENTS
            | nr::GETDENTS64
            | nr::GETCWD
            | nr::READLINK
            | nr::READLINKAT
            | nr::PREAD64
            | nr::POLL
            | nr::PPOLL
            | nr::SELECT
            | nr::PSELECT6
            | nr::EPOLL_WAIT
            | nr::EPOLL_PWAIT
            | nr::EPOLL_PWAIT2
            | nr::CLOCK_GETTIME
            | nr::GETTIMEOFDAY
            | nr::GETRUSAGE
            | nr::UNAME
            | nr::SYSINFO
            | nr::GETRANDOM
            | nr::GETSOCKNAME
            | nr::GETPEERNAME
            | nr::GETSOCKOPT
            | nr::GETRLIMIT
            | nr::PRLIMIT64
            | nr::SCHED_GETAFFINITY
            | nr::RT_SIGACTION
            | nr::RT_SIGPROCMASK
            | nr::SIGALTSTACK
    )
}

/// Returns the parts of the configuration that say which memory travels with which call, as they
/// lie in memory.
pub(super) fn configuration() -> Vec<u8> {
    let mut masks = vec![0_u8; N_CALLS];
    let mut inputs = vec![0_u8; N_CALLS * 12];
    for (number, mask) in masks.iter_mut().enumerate() {
        let Some(info) = u64::try_from(number).ok().and_then(syscalls::table::lookup) else {
            continue;
        };
        for (i, arg) in info.args.iter().enumerate().take(6) {
            let Some(input) = input(arg.kind) else { continue };
            *mask |= 1 << i;
            let place = number * 12 + i * 2;
            if let Some(bytes) = inputs.get_mut(place..place + 2) {
                bytes.copy_from_slice(&input.to_ne_bytes());
            }
        }
    }
    [masks, inputs].concat()
}

/// Encodes what an argument points to, where that is an input.
fn input(kind: Kind) -> Option<u16> {
    let counted = |index: u8, size: usize| {
        let size = u16::try_from(size).ok().filter(|size| *size < 1 << 11)?;
        Some(INPUT_COUNTED | (size << 3 | u16::from(index & 7)) << INPUT_SHIFT)
    };
    match kind {
        Kind::InStr => Some(INPUT_STRING),
        Kind::InBuf(index) => counted(index, 1),
        Kind::InSized(_, index) => counted(index, 1),
        Kind::InStruct(what) | Kind::InOutStruct(what) => {
            let size = u16::try_from(what.size()).ok().filter(|size| *size < 1 << 13)?;
            Some(INPUT_FIXED | size << INPUT_SHIFT)
        }
        Kind::InArray(what, index) | Kind::InOutArray(what, index) => counted(index, what.size()),
        Kind::InIovec(index) | Kind::OutIovec(index) => counted(index, 16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sentry_sysmsg::layout;

    use super::*;
    use crate::systrap::region::{self, SlotMapping};

    #[test]
    fn inputs_come_from_the_table() {
        assert_eq!(input(Kind::InStr), Some(1));
        let bytes = configuration();
        // write(fd, buf, count): the second argument, counted by the third.
        assert_eq!(bytes[1], 1 << 1);
        let place = N_CALLS + 12 + 2;
        assert_eq!(u16::from_ne_bytes([bytes[place], bytes[place + 1]]), 3 | (1 << 3 | 2) << 2);
    }

    fn slot() -> SlotMapping {
        let region = region::memory_file(c"test", layout::SLOT_SIZE).unwrap();
        SlotMapping::new(&region, 0).unwrap()
    }

    #[test]
    fn results_lie_one_behind_the_other() {
        let (slot, mut messages) = (slot(), Messages::default());
        assert!(messages.write(&slot, 0x1000, b"abc"));
        assert!(messages.write(&slot, 0x2000, b"12345678-"));
        assert!(!messages.write(&slot, 0x3000, &[0; DATA_LEN]));
        let mut stored = Vec::new();
        messages.flush(&slot, |addr, bytes| stored.push((addr, bytes.to_vec())));
        assert_eq!(stored, [(0x1000, b"abc".to_vec()), (0x2000, b"12345678-".to_vec())]);
        let (half, rest) = ([7; DATA_LEN / 2], [7; DATA_LEN / 2 + 1]);
        assert!(messages.write(&slot, 0x3000, &half) && !messages.write(&slot, 0x5000, &rest));
        assert!(messages.write(&slot, 0x3000 + half.len() as u64, &half));
        assert_eq!(messages.outputs.len(), 1);
        let mut part = [0; 11];
        calls::copy_data(&slot, DATA_LEN - 11, &mut part);
        assert_eq!(part, [7; 11]);
    }

    #[test]
    fn reads_are_served_from_what_has_come() {
        let mut messages =
            Messages { input_bytes: b"abc\0....12345678".to_vec(), ..Messages::default() };
        let piece =
            |addr, start, len, is_string| Piece { addr, start, len, is_string, is_in_slot: false };
        messages.inputs.push(piece(0x1000, 0, 4, true));
        messages.inputs.push(piece(0x2000, 8, 8, false));
        let slot = slot();
        let mut dst = [0; 8];
        assert_eq!(messages.read(&slot, 0x1000, &mut dst), Some(4));
        assert_eq!(&dst[..4], b"abc\0");
        assert_eq!(messages.read(&slot, 0x1000, &mut [0; 4096]), None);
        assert_eq!(messages.read(&slot, 0x2000, &mut dst), Some(8));
        assert_eq!(messages.read(&slot, 0x2004, &mut dst), None);
        assert_eq!(messages.read(&slot, 0x2004, &mut dst[..4]), Some(4));
        assert_eq!(messages.read(&slot, 0x3000, &mut dst), None);
    }
}
