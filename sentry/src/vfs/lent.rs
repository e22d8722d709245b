//! Lending regular files that are read again and again, and devices that take and give nothing, to the processes
//! that use them: the offset of an open file, and what takes it back.
//!
//! Who locks the offset has it back. The content stays where it is, on the host; who lets a file have its content
//! somewhere else, or changes its times, takes back what has been lent of it ([`Mark::recall`]). A file is lent
//! only where reading it tells nobody: with no watches anywhere, and no time of access to be kept. Adding a
//! watch or changing the flags of a mount takes everything back.
//!
//! DEVIATION: what is read of a lent file, or written to a device, is not counted in `/proc/PID/io`, and its time of
//! access may be older than a day.
//!
//! Locks, outermost first: `Offset::state`, those of the inode; `LENT`.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use sentry_platform::lent::{FileSource, LentFile};
use sentry_platform::{HostCall, StreamEnd};
use syscalls::abi::fs::OpenFlags;
use syscalls::abi::mount::MountFlags;

use super::file::StreamUser;
use super::{OpenFile, notify, touch_atime};
use crate::sync::{Mutex, MutexGuard};

/// After how many reads in a row a file is lent for the first time.
const FIRST: u32 = 32;
/// After how many where it has been worth it the last time.
const AGAIN: u32 = 8;
/// The most, where it was not several times in a row.
const MAX: u32 = 1 << 16;
/// Never.
const NEVER: u32 = u32::MAX;
/// How many calls its process must have answered for it to have been worth it.
const WORTH: u32 = 16;
/// How many files are lent at most.
const MAX_LENT: usize = 4096;

/// All that is lent, and of which inodes: the addresses of their marks.
static LENT: Mutex<Vec<(usize, Weak<dyn LentFile>)>> = Mutex::new(Vec::new());

/// The offset of an open file.
pub struct Offset {
    state: Mutex<State>,
    /// Whether the offset is lent, or has been and is the process's still.
    is_lent: AtomicBool,
    /// How many reads there were in a row, or uses of a device.
    n_reads: AtomicU32,
    /// How many there must be.
    wanted: AtomicU32,
}

#[derive(Default)]
struct State {
    offset: u64,
    lent: Option<Arc<dyn LentFile>>,
}

/// The offset of an open file, locked, and the sentry's.
pub struct OffsetGuard<'a>(MutexGuard<'a, State>);

impl Deref for OffsetGuard<'_> {
    type Target = u64;

    fn deref(&self) -> &u64 {
        &self.0.offset
    }
}

impl DerefMut for OffsetGuard<'_> {
    fn deref_mut(&mut self) -> &mut u64 {
        &mut self.0.offset
    }
}

impl Offset {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::default()),
            is_lent: AtomicBool::new(false),
            n_reads: AtomicU32::new(0),
            wanted: AtomicU32::new(FIRST),
        }
    }

    /// Locks the offset.
    pub fn lock(&self) -> OffsetGuard<'_> {
        self.taken_back(self.state.lock())
    }

    /// Locks the offset, unless it is locked.
    pub fn try_lock(&self) -> Option<OffsetGuard<'_>> {
        Some(self.taken_back(self.state.try_lock()?))
    }

    fn taken_back<'a>(&'a self, mut state: MutexGuard<'a, State>) -> OffsetGuard<'a> {
        if let Some(lent) = state.lent.take() {
            let (offset, n_calls) = lent.take_back();
            state.offset = offset;
            self.is_lent.store(false, Ordering::SeqCst);
            self.n_reads.store(0, Ordering::Relaxed);
            if n_calls >= WORTH {
                self.wanted.store(AGAIN, Ordering::Relaxed);
            } else {
                self.want_more();
            }
        }
        OffsetGuard(state)
    }

    /// Takes the file back where it is lent.
    pub(super) fn recall(&self) {
        if self.is_lent.load(Ordering::SeqCst) {
            drop(self.lock());
        }
    }

    /// Notes that the file has been read, or the device used; returns whether it may be worth lending.
    pub fn note_read(&self) -> bool {
        let n_reads = self.n_reads.load(Ordering::Relaxed).saturating_add(1);
        self.n_reads.store(n_reads, Ordering::Relaxed);
        n_reads != NEVER && n_reads >= self.wanted.load(Ordering::Relaxed)
    }

    /// Lets there be more reads until the file is lent.
    fn want_more(&self) {
        self.n_reads.store(0, Ordering::Relaxed);
        let wanted = self.wanted.load(Ordering::Relaxed).saturating_mul(2).min(MAX);
        self.wanted.store(wanted, Ordering::Relaxed);
    }
}

/// Says of an inode whether open files of it may be lent.
#[derive(Debug, Default)]
pub struct Mark(AtomicBool);

impl Mark {
    /// Takes back what is lent of the inode. For after a change that readers would see.
    pub fn recall(&self) {
        if self.0.load(Ordering::SeqCst) && self.0.swap(false, Ordering::SeqCst) {
            recall_where(|mark| mark == self.key());
        }
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Takes back everything.
pub(super) fn recall_all() {
    recall_where(|_| true);
}

fn recall_where(is_meant: impl Fn(usize) -> bool) {
    // Given up only when the lock is: they may be the last ones.
    let mut meant = Vec::new();
    LENT.lock().retain(|(mark, lent)| {
        let is_meant = is_meant(*mark);
        if is_meant {
            meant.extend(lent.upgrade());
        }
        !is_meant && lent.strong_count() != 0
    });
    for lent in meant {
        lent.take_back();
    }
}

/// Notes what is lent of the inode with this mark; returns whether there is room.
fn note(mark: Option<&Mark>, lent: &Arc<dyn LentFile>) -> bool {
    let mut all = LENT.lock();
    if all.len() >= all.capacity() || all.len() >= MAX_LENT {
        all.retain(|(_, lent)| lent.strong_count() != 0);
    }
    if all.len() >= MAX_LENT {
        return false;
    }
    all.push((mark.map_or(0, Mark::key), Arc::downgrade(lent)));
    drop(all);
    if let Some(mark) = mark {
        mark.0.store(true, Ordering::SeqCst);
    }
    true
}

/// Returns whether nobody is to know that the file is read.
fn is_silent(open: &OpenFile) -> bool {
    let keeps_time = open.path.as_ref().is_some_and(|path| {
        let flags = path.mount.flags();
        let keeps_none = MountFlags::NOATIME | MountFlags::RDONLY | MountFlags::RELATIME;
        !flags.intersects(keeps_none) && !open.flags_set().contains(OpenFlags::NOATIME)
    });
    !keeps_time && !notify::is_watched()
}

/// Returns whether a file that is read again and again can be lent.
pub fn can_be_lent(open: &OpenFile) -> bool {
    let source = open.file.lend_source();
    // Of a device, whose descriptors have an end, those to write are as good.
    let is_possible = source.is_some_and(|source| {
        source.is_device() || open.is_readable() && !open.flags_set().contains(OpenFlags::DIRECT)
    });
    let can_be = is_possible && is_silent(open);
    if !can_be {
        open.offset.want_more();
    }
    can_be
}

/// Lends the file that `user` has just used, and that can be, where that is possible. Returns what its process must do for it to be
/// possible later.
pub fn lend(user: &StreamUser) -> Vec<HostCall> {
    let open = &user.file;
    let offset = &open.offset;
    if offset.is_lent.load(Ordering::SeqCst) {
        // To somebody else, or no longer.
        offset.recall();
        return Vec::new();
    }
    let Some(source) = open.file.lend_source() else { return Vec::new() };
    let mut state = offset.lock();
    let lent = match user.streams.lend_file(&source, *state) {
        Ok(lent) => lent,
        Err(calls) => {
            if calls.is_empty() {
                offset.want_more();
            }
            return calls;
        }
    };
    // What has changed until here is seen below; what changes later takes it back.
    let is_noted = note(open.file.lend_mark(), &lent);
    let is_same = |other: FileSource| other.is_same(&source);
    if !is_noted || !open.file.lend_source().is_some_and(is_same) || !is_silent(open) {
        offset.want_more();
        return Vec::new();
    }
    if let Some(path) = &open.path
        && !source.is_device()
        && !open.flags_set().contains(OpenFlags::NOATIME)
    {
        touch_atime(path);
    }
    let id = lent.id();
    state.0.lent = Some(lent);
    offset.is_lent.store(true, Ordering::SeqCst);
    offset.n_reads.store(0, Ordering::Relaxed);
    drop(state);
    let streams = Arc::downgrade(&user.streams);
    let end =
        StreamEnd { stream: id, reads: true, writes: true, is_file: true, ..StreamEnd::default() };
    if !user.table.teller().tell(&streams, user.fd, open, end) {
        offset.recall();
    }
    Vec::new()
}
