//! Rings (`PACKET_RX_RING`): memory that the kernel fills with frames and the application reads and gives back.
//!
//! The memory is a file that the application maps. Nothing in it is trusted: of what the application
//! writes, only whether a status is zero is looked at.
//!
//! DEVIATION: a block of the third version is handed over when it is full, or when the application
//! asks whether there is anything (`poll(2)`), and not after a time. There are no rings for sending.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use syscalls::abi::socket::SockaddrLl;
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use super::{STATUS_CHECKSUM_NOT_READY, STATUS_USER};
use crate::vfs::file::{MapMode, Mappable, Mapping};

/// What the parts of a frame in a ring are aligned to (`TPACKET_ALIGNMENT`), and those of a block.
const ALIGNMENT: usize = 16;
const BLOCK_ALIGNMENT: usize = 8;

/// The size of a `struct tpacket_block_desc`.
const BLOCK_HEADER: usize = 48;

/// The largest ring: its memory is not the application's.
const MAX_SIZE: u64 = 64 << 20;

/// The versions of the headers (`TPACKET_V1` and so on).
pub(super) const V1: i32 = 0;
pub(super) const V2: i32 = 1;
pub(super) const V3: i32 = 2;

/// Returns the size of the header that a version puts before each frame.
pub(crate) fn header_len(version: i32) -> Option<usize> {
    match version {
        V1 | V2 => Some(32),
        V3 => Some(48),
        _ => None,
    }
}

/// A frame for a ring.
pub(super) struct Captured<'a> {
    /// What is received of it, and how long it was.
    pub(super) data: &'a [u8],
    pub(super) len: usize,
    /// Where in `data` the packet begins.
    pub(super) network_at: usize,
    pub(super) addr: SockaddrLl,
    pub(super) is_summed: bool,
    pub(super) time_ns: i64,
}

/// A block that is being filled.
struct Block {
    n_packets: u32,
    /// Where the next frame goes, and where the last one is.
    next_at: usize,
    last_at: usize,
    first: [u32; 2],
    last: [u32; 2],
}

/// The memory of a ring.
pub(super) struct Memory {
    file: Arc<OwnedFd>,
    read_only: Arc<OwnedFd>,
    size: u64,
    id: u64,
}

/// A ring.
pub(super) struct Ring {
    memory: Arc<Memory>,
    version: i32,
    reserve: usize,
    block_size: usize,
    n_blocks: u64,
    frame_size: usize,
    frames_per_block: u64,
    /// What the application keeps at the beginning of each block.
    private: usize,
    /// The frame, or the block, that is next.
    head: u64,
    block: Option<Block>,
    n_blocks_filled: u64,
}

fn number(value: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    value.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

impl Ring {
    /// Reads a `struct tpacket_req`, or a `struct tpacket_req3`; `None` where it asks for no ring.
    ///
    /// # Errors
    /// `EINVAL`; `ENOMEM` for one that is too large.
    pub(super) fn new(value: &[u8], version: i32, reserve: u32) -> SysResult<Option<Self>> {
        let n_fields = if version == V3 { 7 } else { 4 };
        let field = |index| number(value, index).ok_or(Errno::EINVAL);
        field(n_fields - 1)?;
        let (block_size, n_blocks) = (field(0)?, field(1)?);
        let (frame_size, n_frames) = (field(2)?, field(3)?);
        if n_blocks == 0 {
            return if n_frames == 0 { Ok(None) } else { Err(Errno::EINVAL) };
        }
        let private = if version == V3 { field(5)? } else { 0 };
        let size = |n: u32| usize::try_from(n).map_err(|_| Errno::EINVAL);
        let min_frame = tp_hdrlen(version)
            .checked_add(size(reserve)?)
            .filter(|min| *min <= size(frame_size).unwrap_or(0))
            .ok_or(Errno::EINVAL)?;
        let begin = size(private)?
            .checked_next_multiple_of(BLOCK_ALIGNMENT)
            .and_then(|private| private.checked_add(BLOCK_HEADER))
            .ok_or(Errno::EINVAL)?;
        let needed = if version == V3 { begin.checked_add(min_frame) } else { Some(0) };
        let is_fine = block_size > 0
            && i32::try_from(block_size).is_ok()
            && block_size.is_multiple_of(4096)
            && needed.is_some_and(|needed| needed <= size(block_size).unwrap_or(0))
            && size(frame_size)?.is_multiple_of(ALIGNMENT);
        let frames_per_block = block_size.checked_div(frame_size).unwrap_or(0);
        if !is_fine
            || frames_per_block == 0
            || frames_per_block.checked_mul(n_blocks) != Some(n_frames)
        {
            return Err(Errno::EINVAL);
        }
        let total = u64::from(block_size) * u64::from(n_blocks);
        if total > MAX_SIZE {
            return Err(Errno::ENOMEM);
        }
        let file = sentry_host::memfd::create()?;
        sentry_host::file::truncate(file.as_fd(), total)?;
        let read_only = sentry_host::memfd::reopen_read_only(file.as_fd())?;
        let memory = Memory {
            file: Arc::new(file),
            read_only: Arc::new(read_only),
            size: total,
            id: crate::mm::next_id(),
        };
        Ok(Some(Self {
            memory: Arc::new(memory),
            version,
            reserve: size(reserve)?,
            block_size: size(block_size)?,
            n_blocks: n_blocks.into(),
            frame_size: size(frame_size)?,
            frames_per_block: frames_per_block.into(),
            private: size(private)?,
            head: 0,
            block: None,
            n_blocks_filled: 0,
        }))
    }

    /// Returns what the application maps.
    pub(super) fn mappable(&self) -> Arc<dyn Mappable> {
        self.memory.clone()
    }

    /// Returns where a block, or a frame, is.
    fn place(&self, index: u64) -> u64 {
        let block_size = u64::try_from(self.block_size).unwrap_or(0);
        let frame_size = u64::try_from(self.frame_size).unwrap_or(0);
        match self.version {
            V3 => index.saturating_mul(block_size),
            _ => {
                let block = index.checked_div(self.frames_per_block).unwrap_or(0);
                let within = index.checked_rem(self.frames_per_block).unwrap_or(0);
                block.saturating_mul(block_size).saturating_add(within.saturating_mul(frame_size))
            }
        }
    }

    fn count(&self) -> u64 {
        match self.version {
            V3 => self.n_blocks,
            _ => self.n_blocks.saturating_mul(self.frames_per_block),
        }
    }

    /// Where the status of a frame, or a block, is.
    fn status_at(&self, index: u64) -> u64 {
        self.place(index).saturating_add(if self.version == V3 { 8 } else { 0 })
    }

    /// Returns whether a frame, or a block, is the kernel's.
    fn is_free(&self, index: u64) -> bool {
        let mut status = [0; 4];
        let read = sentry_host::file::read_at(
            self.memory.file.as_fd(),
            &mut status,
            self.status_at(index),
        );
        read == Ok(4) && status == [0; 4]
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        // Memory that cannot be had is a frame that is lost.
        let _ = sentry_host::file::write_at(self.memory.file.as_fd(), bytes, at);
    }

    fn advance(&mut self) {
        self.head = self.head.saturating_add(1).checked_rem(self.count()).unwrap_or(0);
    }

    /// Returns whether there is anything for the application to read.
    pub(super) fn is_readable(&mut self) -> bool {
        if self.version == V3 && self.is_free(self.head) {
            self.close_block();
        }
        let last = self.head.checked_sub(1).unwrap_or(self.count().saturating_sub(1));
        !self.is_free(last)
    }

    /// Adds a frame. Returns false where there is no room.
    pub(super) fn add(&mut self, frame: &Captured<'_>) -> bool {
        let align = |n: usize| n.next_multiple_of(ALIGNMENT);
        let header = tp_hdrlen(self.version);
        let network = if frame.network_at == 0 {
            align(header).saturating_add(16)
        } else {
            align(header.saturating_add(frame.network_at.max(16)))
        };
        let network = network.saturating_add(self.reserve);
        let link = network.saturating_sub(frame.network_at);
        let (Ok(tp_net), Ok(tp_mac)) = (u16::try_from(network), u16::try_from(link)) else {
            return false;
        };
        let room = match self.version {
            V3 => self.block_size.saturating_sub(self.begin()),
            _ => self.frame_size,
        };
        let n = frame.data.len().min(room.saturating_sub(link));
        let data = frame.data.get(..n).unwrap_or_default();
        let mut status = STATUS_USER;
        if !frame.is_summed {
            status |= STATUS_CHECKSUM_NOT_READY;
        }
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let time = [
            u32::try_from(frame.time_ns.div_euclid(1_000_000_000)).unwrap_or(0),
            u32::try_from(frame.time_ns.rem_euclid(1_000_000_000)).unwrap_or(0),
        ];
        let places = u32::from(tp_mac) | u32::from(tp_net) << 16;
        let mut bytes = Vec::with_capacity(link.saturating_add(n));
        let (len, snaplen) = (length(frame.len), length(n));
        // The status comes last, when all is there.
        let words: &[u32] = match self.version {
            V1 => &[0, 0, len, snaplen, places, time[0], time[1] / 1000],
            V2 => &[0, len, snaplen, places, time[0], time[1], 0],
            _ => &[0, time[0], time[1], snaplen, len, status, places],
        };
        bytes.extend_from_slice(words.as_bytes());
        bytes.resize(header_len(self.version).unwrap_or(0), 0);
        bytes.extend_from_slice(frame.addr.as_bytes());
        bytes.resize(link.max(bytes.len()), 0);
        bytes.extend_from_slice(data);
        if self.version == V3 {
            return self.add_to_block(&mut bytes, time);
        }
        if !self.is_free(self.head) {
            return false;
        }
        let at = self.place(self.head);
        self.write(at, &bytes);
        self.write(at, &status.to_ne_bytes());
        self.advance();
        true
    }

    /// Where the first frame of a block is.
    fn begin(&self) -> usize {
        BLOCK_HEADER.saturating_add(self.private.next_multiple_of(BLOCK_ALIGNMENT))
    }

    fn add_to_block(&mut self, bytes: &mut [u8], time: [u32; 2]) -> bool {
        let len = bytes.len().next_multiple_of(BLOCK_ALIGNMENT);
        let is_full = |block: &Block| block.next_at.saturating_add(len) > self.block_size;
        if self.block.as_ref().is_some_and(is_full) {
            self.close_block();
        }
        if self.block.is_none() && !self.is_free(self.head) {
            return false;
        }
        let start = self.place(self.head);
        let begin = self.begin();
        let block = self.block.get_or_insert(Block {
            n_packets: 0,
            next_at: begin,
            last_at: begin,
            first: time,
            last: time,
        });
        // How far it is to the next frame; the last one says zero.
        let next = u32::try_from(len).unwrap_or(0).to_ne_bytes();
        if let Some(to) = bytes.get_mut(..4) {
            to.copy_from_slice(&next);
        }
        let at = block.next_at;
        block.n_packets = block.n_packets.saturating_add(1);
        block.last_at = at;
        block.next_at = at.saturating_add(len);
        block.last = time;
        let offset = u64::try_from(at).unwrap_or(0);
        self.write(start.saturating_add(offset), bytes);
        true
    }

    /// Hands over the block that is being filled, where there is one.
    fn close_block(&mut self) {
        let Some(block) = self.block.take() else { return };
        let start = self.place(self.head);
        let last = u64::try_from(block.last_at).unwrap_or(0);
        self.write(start.saturating_add(last), &[0; 4]);
        self.n_blocks_filled = self.n_blocks_filled.saturating_add(1);
        let length = |n: usize| u32::try_from(n).unwrap_or(0);
        let version = V3.cast_unsigned();
        let head = [version, length(BLOCK_HEADER), 0, block.n_packets];
        let rest = [length(self.begin()), length(block.next_at)];
        let times = [block.first, block.last];
        let bytes =
            [head.as_bytes(), rest.as_bytes(), self.n_blocks_filled.as_bytes(), times.as_bytes()]
                .concat();
        self.write(start, &bytes);
        self.write(self.status_at(self.head), &STATUS_USER.to_ne_bytes());
        self.advance();
    }
}

/// Returns what Linux counts as the header: `TPACKET_HDRLEN` and so on.
fn tp_hdrlen(version: i32) -> usize {
    header_len(version).unwrap_or(0).saturating_add(size_of::<SockaddrLl>())
}

impl Mappable for Memory {
    fn map(&self, mode: MapMode, offset: u64, len: u64) -> SysResult<Mapping> {
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(Errno::EINVAL);
        }
        let fd = match mode {
            MapMode::Private | MapMode::SharedRead => &self.read_only,
            MapMode::SharedWrite => &self.file,
        };
        Ok(Mapping { fd: fd.clone(), delta: 0 })
    }

    fn identity(&self) -> (u64, u64) {
        (0, self.id)
    }
}
