//! Lending regular files that are used again and again, and devices that take and give nothing, to the processes that
//! use them: the offset of an open file, and what takes it back.
//!
//! Who locks the offset has it back. The content stays where it is, on the host; who lets a file have its content
//! somewhere else, or changes its times, takes back what has been lent of it ([`Mark::recall`]). A file is lent
//! only where using it tells nobody: with no watches anywhere, and no time of access to be kept. Adding a
//! watch or changing the flags of a mount takes everything back, and so does changing a limit of sizes.
//!
//! A file that is written over in place by `pwrite(2)` can be lent for that, too, to one process at a time, where it
//! could as well be mapped for writing ([`File::lend_to_write`](super::File::lend_to_write)). Whoever changes its content or its size takes it
//! back before, holding the lock by which the content is lent: a write of the process has happened then, or is made
//! by the sentry later. When it was written is asked where the times are ([`Mark::written`]).
//!
//! DEVIATION: what is read of a lent file and written to it is not counted in `/proc/PID/io`, and its time of
//! access may be older than a day, or than the last write where it is lent for writing.
//!
//! Locks, outermost first: `Offset::state`, those of the inode; `LENT`, `Mark::writer`.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use sentry_platform::lent::{FileSource, FileToLend, Lending, LentFile, ToWrite, Written};
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
    /// How many writes there were meanwhile.
    n_writes: AtomicU32,
    /// How many of either there must be.
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
            n_writes: AtomicU32::new(0),
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
            self.begin_again();
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
        self.note(&self.n_reads)
    }

    /// Notes that the file has been written to somewhere; returns whether it may be worth lending for that.
    pub fn note_write(&self) -> bool {
        self.note(&self.n_writes)
    }

    fn note(&self, count: &AtomicU32) -> bool {
        let n = count.load(Ordering::Relaxed).saturating_add(1);
        count.store(n, Ordering::Relaxed);
        n != NEVER && n >= self.wanted.load(Ordering::Relaxed)
    }

    fn begin_again(&self) {
        self.n_reads.store(0, Ordering::Relaxed);
        self.n_writes.store(0, Ordering::Relaxed);
    }

    /// Lets there be more reads or writes until the file is lent.
    fn want_more(&self) {
        self.begin_again();
        let wanted = self.wanted.load(Ordering::Relaxed).saturating_mul(2).min(MAX);
        self.wanted.store(wanted, Ordering::Relaxed);
    }
}

/// Says of an inode whether open files of it may be lent.
#[derive(Debug, Default)]
pub struct Mark {
    is_lent: AtomicBool,
    /// Who writes, once somebody has.
    writer: OnceLock<Box<Writer>>,
}

/// To whom an inode is lent for writing.
#[derive(Default)]
struct Writer {
    lent: Mutex<Option<Weak<dyn LentFile>>>,
    written: Arc<Written>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.written.fmt(f)
    }
}

impl Mark {
    /// Takes back what is lent of the inode. For after a change that readers would see, and before one of what is
    /// written.
    pub fn recall(&self) {
        if self.is_lent.load(Ordering::SeqCst) && self.is_lent.swap(false, Ordering::SeqCst) {
            recall_where(|mark| mark == self.key());
        }
    }

    /// Returns the time of the last write by a process to which the inode was lent, in nanoseconds since the
    /// epoch, where there was one since this was last asked.
    pub fn written(&self) -> Option<i64> {
        let writer = self.writer.get()?;
        let lent = writer.lent.lock().as_ref().and_then(Weak::upgrade);
        if let Some(lent) = lent {
            lent.note_written();
        }
        writer.written.take()
    }

    /// Makes somebody the only one who writes.
    fn set_writer(&self, lent: &Arc<dyn LentFile>) {
        let Some(writer) = self.writer.get() else { return };
        let before = writer.lent.lock().replace(Arc::downgrade(lent));
        if let Some(before) = before.and_then(|before| before.upgrade()) {
            before.take_back();
        }
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Takes back everything.
pub(crate) fn recall_all() {
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
        mark.is_lent.store(true, Ordering::SeqCst);
    }
    true
}

/// Returns whether nobody is to know that the file is used.
fn is_silent(open: &OpenFile) -> bool {
    let keeps_time = open.path.as_ref().is_some_and(|path| {
        let flags = path.mount.flags();
        let keeps_none = MountFlags::NOATIME | MountFlags::RDONLY | MountFlags::RELATIME;
        !flags.intersects(keeps_none) && !open.flags_set().contains(OpenFlags::NOATIME)
    });
    !keeps_time && !notify::is_watched()
}

/// Returns from where a file can be used that is used again and again, and how long it is where it may be written;
/// the same as long as nobody takes it back.
fn source(open: &OpenFile, use_: Use) -> Option<(FileSource, Option<u64>)> {
    if !is_silent(open) {
        return None;
    }
    let is_possible = open.is_readable() && !open.flags_set().contains(OpenFlags::DIRECT);
    let refused = OpenFlags::APPEND | OpenFlags::DSYNC;
    let may_write = open.is_writable() && !open.flags_set().intersects(refused);
    if use_ != Use::Read
        && is_possible
        && may_write
        && let Some((file, size)) = open.file.lend_to_write()
    {
        return Some((FileSource::Host(file), Some(size)));
    }
    if use_ == Use::Write {
        return None;
    }
    // Of a device, whose descriptors have an end, those to write are as good.
    let source = open.file.lend_source().filter(|source| source.is_device() || is_possible)?;
    Some((source, None))
}

/// For what a file is to be lent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is read, and must not be written.
    Read,
    /// It is read, and perhaps written.
    Both,
    /// It is written.
    Write,
}

/// Returns whether a file that is used again and again can be lent. `may_write` is whether it may be written there.
pub fn can_be_lent(open: &OpenFile, writes: bool, may_write: bool) -> Option<Use> {
    let has_written = open.offset.n_writes.load(Ordering::Relaxed) != 0;
    let use_ = match (writes, may_write && has_written) {
        (true, true) => Use::Write,
        (true, false) => return None,
        (false, true) => Use::Both,
        (false, false) => Use::Read,
    };
    if source(open, use_).is_some() {
        return Some(use_);
    }
    if writes {
        // What there is to say of reads stays as it is.
        open.offset.n_writes.store(0, Ordering::Relaxed);
    } else {
        open.offset.want_more();
    }
    None
}

/// Lends the file that `user` has just used, and that can be, where that is possible. Returns what the thread must do for it
/// to be possible later.
pub fn lend(user: &StreamUser, use_: Use) -> Vec<HostCall> {
    let open = &user.file;
    let offset = &open.offset;
    if offset.is_lent.load(Ordering::SeqCst) {
        // To somebody else, or no longer.
        offset.recall();
        return Vec::new();
    }
    let Some((source, size)) = source(open, use_) else { return Vec::new() };
    let mut state = offset.lock();
    let mark = open.file.lend_mark();
    let written = mark.map(|mark| mark.writer.get_or_init(Box::default).written.clone());
    let to_write =
        size.zip(written).map(|(size, written)| ToWrite { size, written, thread: user.thread });
    let Lending { lent, calls } =
        user.streams.lend_file(&FileToLend { source: &source, offset: *state, to_write });
    let Some(lent) = lent else {
        if calls.is_empty() {
            offset.want_more();
        }
        return calls;
    };
    // What has changed until here is seen below; what changes later takes it back.
    let is_noted = note(mark, &lent);
    if let (Some(mark), Some(_)) = (mark, size) {
        mark.set_writer(&lent);
    }
    let is_same = |(now, now_size): (FileSource, _)| now.is_same(&source) && now_size == size;
    if !is_noted || !self::source(open, use_).is_some_and(is_same) {
        offset.want_more();
        return Vec::new();
    }
    if let Some(path) = open.path.as_ref().filter(|_| {
        use_ != Use::Write && !source.is_device() && !open.flags_set().contains(OpenFlags::NOATIME)
    }) {
        touch_atime(path);
    }
    let id = lent.id();
    state.0.lent = Some(lent);
    offset.is_lent.store(true, Ordering::SeqCst);
    offset.begin_again();
    drop(state);
    let streams = Arc::downgrade(&user.streams);
    let end =
        StreamEnd { stream: id, reads: true, writes: true, is_file: true, ..StreamEnd::default() };
    if !user.table.teller().tell(&streams, user.fd, open, end) {
        offset.recall();
    }
    Vec::new()
}
