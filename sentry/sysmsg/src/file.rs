//! Files that are lent to a process: its threads read them without the sentry, by the descriptors that the
//! process holds on the host for mappings, or read and write them through a *window*, where the host's file
//! is mapped ([`layout::WINDOWS_BASE`](crate::layout::WINDOWS_BASE)).
//!
//! The sentry lends the content and the offset of an open file together ([`Place::word`]): the number of
//! the lease and the offset. Whoever reads asks the host, and then moves the offset by one
//! compare-and-exchange, or looks whether the word still says that the file is lent; that is when it has
//! happened. The sentry takes the file back by setting [`TAKEN_BACK`](crate::ring::TAKEN_BACK), after which
//! neither succeeds; it waits for nobody. A read that comes too late has brought bytes that are read again.
//!
//! Who writes through a window holds the lock of the place meanwhile, and does it only over what is there
//! already, at an offset of its own. A write that comes too late has happened, and is made once more by the
//! sentry: as if it had been slow. A place whose lock is held is not lent again, and its window stays what it is.
//!
//! A device that takes whatever is written, and gives nothing or zeros, is lent in the same way, so that it can be
//! taken back; it has no descriptor, and its offset stays as it is.
//!
//! So is a set of files of which it is known which are ready: whatever becomes ready, or may not be any more, takes it
//! back. [`Files::events`] has what there is to tell of them, [`Place::number`] how many that are.
//!
//! So is the mask for the permissions of new files, to the threads of a process that share one: [`Files::umask`] is the
//! number of the lease, [`TAKEN_BACK`](crate::ring::TAKEN_BACK), how often it has been changed so, and the mask.
//!
//! A process that changes all this reads what it may read anyway, moves an offset and sets a mask as it may, and
//! writes to a file that it may map for writing.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// How many files may be lent to a process at a time.
pub const N_FILES: usize = 8;
/// Of how many ready files a set can tell.
pub const N_EVENTS: usize = 16;
/// The size of an event, in words.
pub const EVENT_WORDS: usize = 3;

/// In [`Files::umask`]: the mask.
pub const UMASK: u64 = 0o777;
/// In [`Files::umask`]: by how much the number of changes is shifted, which starts again when it is too large.
pub const CHANGES_SHIFT: u32 = 9;

/// A file.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Place {
    /// The number of the lease, `TAKEN_BACK` and the offset, as in [`crate::ring::End::word`].
    pub word: AtomicU64,
    /// The host's descriptor in the process; of a set of files how many are ready; of a device nothing.
    pub number: AtomicU32,
    /// How many calls have been answered since the file was lent; not counted to the end.
    pub n_calls: AtomicU32,
    /// How much of the file its window shows: all of it, or nothing where there is no window.
    pub window: AtomicU64,
    /// When somebody began to write last, by the time-stamp counter; zero for never.
    pub written: AtomicU64,
    /// Not zero while a thread writes.
    pub lock: AtomicU32,
}

/// All files of a process.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Files {
    /// The index is that in an entry of [`crate::ring::Mirror`].
    pub places: [Place; N_FILES],
    /// The mask for the permissions of new files, of the threads with this lease ([`crate::slot::Slot::umask`]).
    pub umask: AtomicU64,
    /// Of each place that is a set of files the events: the first ones are `struct epoll_event`s.
    pub events: [[AtomicU32; N_EVENTS * EVENT_WORDS]; N_FILES],
}

const _: () = assert!(size_of::<Files>() == 4096);
