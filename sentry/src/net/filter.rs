//! The filter of a socket (`SO_ATTACH_FILTER` of `socket(7)`): a program of classic BPF that says of each
//! message how much of it is received.
//!
//! DEVIATION: what a connection of TCP receives within the sandbox is no packet, and passes any filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syscalls::abi::prctl::{SockFilter, SockFprog};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use crate::bpf::{Input, MAX_INSTRUCTIONS, Program, Size};
use crate::sync::Mutex;
use crate::task::CurrentTask;

/// Where a load finds what belongs to a message and is not in it (`SKF_AD_OFF`).
const ANCILLARY: u32 = 0xffff_f000;
/// Where a load finds the message from its network header on (`SKF_NET_OFF`), and from that of its link
/// (`SKF_LL_OFF`).
const NETWORK: u32 = 0xfff0_0000;
const LINK: u32 = 0xffe0_0000;

/// What a filter sees of a message.
#[derive(Clone, Copy)]
pub(in crate::net) struct Seen<'a> {
    /// What the offsets count from.
    pub(in crate::net) data: &'a [u8],
    /// The message from the header of the link on, and where in it the network's begins.
    pub(in crate::net) link: &'a [u8],
    pub(in crate::net) network_at: usize,
    /// The number of what is in a frame.
    pub(in crate::net) ethertype: u16,
    /// `PACKET_HOST` and so on.
    pub(in crate::net) kind: u8,
    /// The number and the type of the interface.
    pub(in crate::net) interface: i32,
    pub(in crate::net) hardware: u16,
}

impl<'a> Seen<'a> {
    /// Returns a message of which nothing is known but the data.
    pub(in crate::net) fn plain(data: &'a [u8]) -> Self {
        let (ethertype, kind, interface, hardware) = (0, 0, 0, 0);
        Self { data, link: &[], network_at: 0, ethertype, kind, interface, hardware }
    }

    fn load(&self, size: Size, offset: u32) -> Option<u32> {
        if offset >= ANCILLARY {
            return self.ancillary(offset - ANCILLARY);
        }
        if offset >= NETWORK {
            return read(self.link.get(self.network_at..)?, size, offset - NETWORK);
        }
        if offset >= LINK {
            return read(self.link, size, offset - LINK);
        }
        read(self.data, size, offset)
    }

    fn ancillary(&self, offset: u32) -> Option<u32> {
        Some(match offset {
            0 => self.ethertype.into(),
            4 => self.kind.into(),
            8 => self.interface.cast_unsigned(),
            28 => self.hardware.into(),
            // No mark, queue, hash or processor, and no tag of a virtual network.
            20 | 24 | 32 | 36 | 44 | 48 | 60 => 0,
            _ => return None,
        })
    }
}

fn read(bytes: &[u8], size: Size, offset: u32) -> Option<u32> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    Some(match size {
        Size::Word => u32::from_be_bytes(*rest.first_chunk()?),
        Size::Half => u16::from_be_bytes(*rest.first_chunk()?).into(),
        Size::Byte => (*rest.first()?).into(),
    })
}

/// The filter of a socket, where it has one.
#[derive(Default)]
pub struct Attached {
    /// Whether there is one: looked at first.
    is_set: AtomicBool,
    is_locked: AtomicBool,
    program: Mutex<Option<Arc<Program>>>,
}

impl Attached {
    /// Returns a copy: what a connection inherits from the socket that listened.
    pub(super) fn inherit(&self) -> Self {
        let program = self.program.lock().clone();
        Self {
            is_set: AtomicBool::new(program.is_some()),
            is_locked: AtomicBool::new(self.is_locked()),
            program: Mutex::new(program),
        }
    }

    /// Returns whether there is one.
    pub(in crate::net) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Returns whether the filter cannot be changed any more (`SO_LOCK_FILTER`).
    pub(crate) fn is_locked(&self) -> bool {
        self.is_locked.load(Ordering::Relaxed)
    }

    /// Locks the filter for good.
    ///
    /// # Errors
    /// `EPERM` for what would unlock it.
    pub(crate) fn lock(&self, on: bool) -> SysResult<()> {
        if self.is_locked() && !on {
            return Err(Errno::EPERM);
        }
        self.is_locked.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Implements `SO_ATTACH_FILTER`.
    ///
    /// # Errors
    /// `EPERM` for one that is locked; `EINVAL`, `EFAULT`.
    pub(crate) fn attach(&self, task: &CurrentTask, optval: UserAddr, len: usize) -> SysResult<()> {
        if len != size_of::<SockFprog>() {
            return Err(Errno::EINVAL);
        }
        let given: SockFprog = task.read_obj(UserPtr::new(optval))?;
        if self.is_locked() {
            return Err(Errno::EPERM);
        }
        let n = usize::from(given.len);
        if n == 0 || n > MAX_INSTRUCTIONS {
            return Err(Errno::EINVAL);
        }
        let instructions = task.read_array(UserPtr::new(UserAddr(given.filter)), n)?;
        let program = Arc::new(Program::new(instructions, Input::Message)?);
        *self.program.lock() = Some(program);
        self.is_set.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Implements `SO_DETACH_FILTER`.
    ///
    /// # Errors
    /// `EPERM` for one that is locked, `ENOENT` where there is none.
    pub(crate) fn detach(&self) -> SysResult<()> {
        if self.is_locked() {
            return Err(Errno::EPERM);
        }
        self.is_set.store(false, Ordering::Relaxed);
        let old = self.program.lock().take();
        old.map(drop).ok_or(Errno::ENOENT)
    }

    /// Returns the instructions (`SO_GET_FILTER`).
    pub(crate) fn instructions(&self) -> Vec<SockFilter> {
        let program = self.program.lock().clone();
        program.map_or(Vec::new(), |program| program.instructions().to_vec())
    }

    /// Returns how many bytes of a message are received, at least `least`: none where it is dropped.
    pub(in crate::net) fn admits(&self, seen: &Seen<'_>, least: usize) -> Option<usize> {
        let all = seen.data.len();
        if !self.is_set() {
            return Some(all);
        }
        let Some(program) = self.program.lock().clone() else { return Some(all) };
        let len = u32::try_from(all).unwrap_or(u32::MAX);
        // A load from behind the end drops the message.
        match program.run(len, |size, offset| seen.load(size, offset)) {
            None | Some(0) => None,
            Some(n) => Some(usize::try_from(n).unwrap_or(usize::MAX).max(least).min(all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ANCILLARY, LINK, NETWORK, Seen};
    use crate::bpf::Size;

    #[test]
    fn loads_find_headers_and_what_is_not_in_them() {
        let frame = b"\x01\x02\x03\x04\x05\x06";
        let seen = Seen {
            link: frame,
            network_at: 2,
            ethertype: 0x806,
            kind: 4,
            interface: 7,
            ..Seen::plain(&frame[4..])
        };
        assert_eq!(seen.load(Size::Half, 0), Some(0x0506));
        assert_eq!(seen.load(Size::Byte, 2), None);
        assert_eq!(seen.load(Size::Word, LINK), Some(0x0102_0304));
        assert_eq!(seen.load(Size::Byte, NETWORK), Some(3));
        assert_eq!(seen.load(Size::Word, ANCILLARY), Some(0x806));
        assert_eq!(seen.load(Size::Byte, ANCILLARY + 4), Some(4));
        assert_eq!(seen.load(Size::Word, ANCILLARY + 8), Some(7));
        assert_eq!(seen.load(Size::Word, u32::MAX), None);
    }
}
