//! What travels with requests and replies: memory that the arguments of a call point to, and small
//! results, which the stub stores on its way back to the application.

use std::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::layout::{INPUT_COUNTED, INPUT_FIXED, INPUT_SHIFT, INPUT_STRING, N_CALLS};
use sentry_sysmsg::slot::{CALL_COPY_OUT, DATA_LEN, N_INPUTS, Slot};
use syscalls::info::Kind;

use super::calls;
use super::patch::QuietCall;

/// How many bytes of results wait for the way back: the host's copying of less costs more than the stub's
/// of all. And how many results.
const OUTPUTS_MAX: usize = DATA_LEN;
const OUTPUTS: usize = 16;

/// How long an input may be that is copied when its request is taken. What is longer is data, which is
/// copied once, when it is asked for.
const COPIED_MAX: usize = 2048;

/// How much a reader of strings asks for at most, which is content with less. Whoever reads more
/// (a page of arguments, say) wants what lies behind the string as well.
const STRING_READ: usize = 256;

/// One piece of the application's memory.
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

/// Copies of memory; emptied and used again for each request.
#[derive(Debug, Default)]
pub(super) struct Messages {
    inputs: Vec<Piece>,
    input_bytes: Vec<u8>,
    outputs: Vec<Piece>,
    output_bytes: Vec<u8>,
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

    /// Keeps a result for the way back; returns whether there is room for it.
    pub(super) fn write(&mut self, addr: u64, src: &[u8]) -> bool {
        let start = self.output_bytes.len().next_multiple_of(8);
        if start + src.len() > OUTPUTS_MAX
            || self.outputs.len() >= OUTPUTS
            || self.outputs.iter().any(|piece| piece.is_in_slot)
        {
            return false;
        }
        self.output_bytes.resize(start, 0);
        self.output_bytes.extend_from_slice(src);
        let len = src.len();
        self.outputs.push(Piece { addr, start, len, is_string: false, is_in_slot: false });
        true
    }

    /// Keeps a result that is at the start of the slot's data already, where there is no other.
    pub(super) fn filled(&mut self, addr: u64, len: usize) {
        self.outputs.push(Piece { addr, start: 0, len, is_string: false, is_in_slot: true });
    }

    /// Returns whether results wait.
    pub(super) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Hands every result to `store`, and drops it.
    pub(super) fn flush(&mut self, slot: &Slot, mut store: impl FnMut(u64, &[u8])) {
        for piece in self.outputs.drain(..) {
            if piece.is_in_slot {
                store(piece.addr, &calls::read_data(slot, piece.len));
                continue;
            }
            let bytes = self.output_bytes.get(piece.start..piece.start + piece.len);
            store(piece.addr, bytes.unwrap_or_default());
        }
        self.output_bytes.clear();
    }

    /// Puts the results into the slot and appends the calls that store them.
    pub(super) fn fill(&mut self, slot: &Slot, quiet: &mut Vec<QuietCall>) {
        calls::write_data(slot, &self.output_bytes);
        for piece in self.outputs.drain(..) {
            let [start, len] = [piece.start, piece.len].map(|n| u64::try_from(n).unwrap_or(0));
            quiet.push((CALL_COPY_OUT, [piece.addr, start, len, 0, 0, 0]));
        }
        self.output_bytes.clear();
    }
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
    use crate::systrap::region::SlotMapping;

    #[test]
    fn inputs_come_from_the_table() {
        assert_eq!(input(Kind::InStr), Some(1));
        let bytes = configuration();
        // write(fd, buf, count): the second argument, counted by the third.
        assert_eq!(bytes[1], 1 << 1);
        let place = N_CALLS + 12 + 2;
        assert_eq!(u16::from_ne_bytes([bytes[place], bytes[place + 1]]), 3 | (1 << 3 | 2) << 2);
    }

    #[test]
    fn reads_are_served_from_what_has_come() {
        let mut messages =
            Messages { input_bytes: b"abc\0....12345678".to_vec(), ..Messages::default() };
        let piece =
            |addr, start, len, is_string| Piece { addr, start, len, is_string, is_in_slot: false };
        messages.inputs.push(piece(0x1000, 0, 4, true));
        messages.inputs.push(piece(0x2000, 8, 8, false));
        let region = super::super::region::memory_file(c"test", layout::SLOT_SIZE).unwrap();
        let slot = SlotMapping::new(&region, 0).unwrap();
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
