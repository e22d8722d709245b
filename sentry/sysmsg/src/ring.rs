//! Streams of bytes, and counters, that are lent to a process: its threads read and write them without the sentry.
//!
//! The sentry lends a stream when it is empty and takes it back whenever anybody wants something of it
//! that is not done here. Each end has a word ([`End::word`]): the number of the lease and the position,
//! which only grows. Whoever reads or writes holds the lock of its end, copies, and moves the position by
//! one compare-and-exchange; that is when it has happened. The sentry takes the stream back by setting
//! [`TAKEN_BACK`] in the word of the writing end and then in that of the reading end, after which neither
//! moves; it waits for nobody. It lends the place again only where both locks are free: a thread that
//! still copies is disturbed by nobody, and one that never ends costs the place.
//!
//! A counter is a stream of which only the word of the writing end is used: its position is the value, which
//! one compare-and-exchange adds to or takes. It needs no lock.
//!
//! A process that changes all this fools only itself: what it could put into the stream so, it may also
//! write, because it has both ends. So it is with two processes to which a stream is lent together: each may
//! open the end that it does not have, or could do anything else in the other process. They map a memory of its own, which is never that of other streams.
//! The numbers of leases are never the same for two streams.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// How many streams may be lent to a process alone at a time.
pub const N_OWN: usize = 16;
/// How many streams may be lent to a process together with another one, in all its life: what it has mapped
/// for one is never mapped for another.
pub const N_LINKED: usize = 48;
/// How many streams a process can have mapped: first those of its own.
pub const N_RINGS: usize = N_OWN + N_LINKED;
/// How many bytes a stream holds while it is lent; a power of two.
pub const RING_LEN: usize = 16384;
/// The descriptors below this number can be those of lent streams.
pub const N_MIRRORED: usize = 511;

/// In [`End::word`]: the position, or the value of a counter.
pub const POSITION: u64 = 0xffff_ffff;
/// In [`End::word`]: the stream is lent no longer.
pub const TAKEN_BACK: u64 = 1 << 32;
/// In [`End::word`] and in an entry of [`Mirror`]: by how much the number of the lease is shifted.
pub const LEASE_SHIFT: u32 = 33;

/// In an entry of [`Mirror`]: which of the process's streams.
pub const ENTRY_RING: u64 = 0xff;
/// In an entry of [`Mirror`]: the descriptor is a socket.
pub const ENTRY_SOCKET: u64 = 1 << 8;
/// In an entry of [`Mirror`]: nobody waits for the descriptor.
pub const ENTRY_NONBLOCK: u64 = 1 << 9;
/// In an entry of [`Mirror`]: the stream is a counter.
pub const ENTRY_COUNTER: u64 = 1 << 10;
/// In an entry of [`Mirror`]: who reads the counter takes only one.
pub const ENTRY_SEMAPHORE: u64 = 1 << 11;
/// In an entry of [`Mirror`]: this is no stream, but the file with that number (`crate::file`).
pub const ENTRY_FILE: u64 = 1 << 12;
/// In an entry of [`Mirror`]: the file is a device that takes whatever is written to it, and of which there is
/// nothing to read.
pub const ENTRY_DEVICE: u64 = 1 << 13;
/// In an entry of [`Mirror`]: what is read of the device are zeros, as many as are wanted.
pub const ENTRY_ZEROS: u64 = 1 << 14;
/// In an entry of [`Mirror`]: the file is a set of files (`epoll`), of which are ready as long as it is lent those that it tells.
pub const ENTRY_SET: u64 = 1 << 15;

/// Which descriptors of a process are those of lent streams and files.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Mirror {
    /// The number of the descriptor table that this is about, zero for none.
    pub table: AtomicU64,
    /// The descriptors.
    pub entries: [Descriptor; N_MIRRORED],
}

/// What a descriptor is: for each of the two the number of the lease, which is never zero, and `ENTRY_*`; zero where it
/// is nothing that is lent. What is about a lease that has ended means nothing.
#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    /// What is read from.
    pub reads: AtomicU64,
    /// What is written to, which of a socket is another stream.
    pub writes: AtomicU64,
}

/// One end of a stream.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct End {
    /// The number of the lease, [`TAKEN_BACK`] and the position.
    pub word: AtomicU64,
    /// Not zero while a thread uses this end.
    pub lock: AtomicU32,
    /// How many calls have been answered here since the stream was lent.
    pub n_calls: AtomicU32,
}

/// A stream.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Ring {
    /// Where it is read from.
    pub reader: End,
    /// Where it is written to.
    pub writer: End,
    /// The bytes, each at its position modulo [`RING_LEN`].
    pub data: [AtomicU64; RING_LEN / 8],
}

const _: () = assert!(size_of::<Mirror>() == 8192);
const _: () = assert!(size_of::<Ring>() == 2 * 4096 + RING_LEN);
const _: () = assert!(RING_LEN.is_power_of_two() && N_RINGS as u64 <= ENTRY_RING + 1);
