//! File locks: POSIX record locks, open-file-description locks and `flock(2)`.
//!
//! All of them are kept with the inode. Who waits is woken by `InodeExtras::lock_waiters`, and
//! tries again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use syscalls::{Errno, SysResult};

use super::file::OpenFile;
use super::inode::InodeExtras;
use crate::sync::{Events, Mutex};

/// Who holds a record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A process, by its descriptor table's id.
    Process(u64),
    /// An open file description, by its address.
    OpenFile(usize),
}

impl Owner {
    /// Returns the owner of open-file-description locks and of `flock(2)` locks.
    pub fn open_file(file: &OpenFile) -> Self {
        Self::OpenFile(std::ptr::from_ref(file).addr())
    }
}

/// A record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The first byte.
    pub start: u64,
    /// The last byte; `u64::MAX` reaches to the end of any file.
    pub last: u64,
    /// Whether the lock is exclusive.
    pub is_write: bool,
    /// Who holds it.
    pub owner: Owner,
    /// The process, as `F_GETLK` reports it; -1 for an open-file-description lock.
    pub pid: i32,
}

impl Record {
    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && (self.is_write || other.is_write) && self.overlaps(other)
    }
}

/// The locks on one inode.
#[derive(Debug, Default)]
pub struct FileLocks {
    records: Vec<Record>,
    /// Holders of `flock(2)` locks, and whether theirs is exclusive.
    flocks: Vec<(Owner, bool)>,
}

/// Which owner waits for which: for `EDEADLK`.
static WAITS: Mutex<BTreeMap<Owner, Owner>> = Mutex::new(BTreeMap::new());

impl FileLocks {
    /// Returns a lock that stands in the way of `wanted`.
    fn conflict(&self, wanted: &Record) -> Option<Record> {
        self.records.iter().find(|held| held.conflicts(wanted)).copied()
    }

    /// Takes the owner's locks off a range, splitting those that reach beyond it. Returns where the
    /// first of them was.
    fn clear(&mut self, range: &Record) -> Option<usize> {
        let mut kept = Vec::with_capacity(self.records.len() + 1);
        let mut first = None;
        for held in self.records.drain(..) {
            if held.owner != range.owner || !held.overlaps(range) {
                kept.push(held);
                continue;
            }
            first.get_or_insert(kept.len());
            if held.start < range.start {
                kept.push(Record { last: range.start - 1, ..held });
            }
            if held.last > range.last {
                kept.push(Record { start: range.last + 1, ..held });
            }
        }
        self.records = kept;
        first
    }

    /// Adds a lock to a range that has none of the owner's, joining it with its neighbours. The
    /// list is kept as Linux keeps it, since `F_GETLK` tells of the first that is in the way: each
    /// owner's by their start, the owners in the order in which they came. `hint` is where locks
    /// of the owner's have just been.
    fn add(&mut self, mut new: Record, hint: Option<usize>) {
        let mut hint = hint;
        let mut at = 0_usize;
        self.records.retain(|held| {
            let is_adjacent = held.owner == new.owner
                && held.is_write == new.is_write
                && held.start <= new.last.saturating_add(1)
                && new.start <= held.last.saturating_add(1);
            if is_adjacent {
                new.start = new.start.min(held.start);
                new.last = new.last.max(held.last);
            }
            if is_adjacent {
                hint = Some(hint.map_or(at, |hint| hint.min(at)));
            } else {
                at += 1;
            }
            !is_adjacent
        });
        let is_own = |held: &Record| held.owner == new.owner;
        let next = self.records.iter().position(|held| is_own(held) && held.start > new.start);
        let last = self.records.iter().rposition(is_own);
        let at = next.or(last.map(|last| last + 1)).or(hint).unwrap_or(usize::MAX);
        self.records.insert(at.min(self.records.len()), new);
    }
}

/// Returns the lock that would stand in the way of `wanted`: `F_GETLK`.
pub fn test(extras: &InodeExtras, wanted: &Record) -> Option<Record> {
    extras.locks.lock().as_ref()?.conflict(wanted)
}

/// Returns the first lock in a range that its own owner has: `F_OFD_GETLK` with `F_UNLCK`.
pub fn own(extras: &InodeExtras, range: &Record) -> Option<Record> {
    let guard = extras.locks.lock();
    let mut records = guard.as_ref()?.records.iter();
    records.find(|held| held.owner == range.owner && held.overlaps(range)).copied()
}

/// Takes a record lock.
///
/// # Errors
/// `EAGAIN` where another owner's is in the way; `EDEADLK` where `will_wait` and waiting would
/// never end; `ENOLCK` for too many locks.
pub fn set(extras: &InodeExtras, wanted: Record, will_wait: bool) -> SysResult<()> {
    const MAX_RECORDS: usize = 1 << 16;
    let mut guard = extras.locks.lock();
    let locks = guard.get_or_insert_default();
    if let Some(held) = locks.conflict(&wanted) {
        drop(guard);
        if will_wait {
            wait_on(wanted.owner, held.owner)?;
        }
        return Err(Errno::EAGAIN);
    }
    if locks.records.len() >= MAX_RECORDS {
        return Err(Errno::ENOLCK);
    }
    let replaced = locks.clear(&wanted);
    locks.add(wanted, replaced);
    drop(guard);
    stop_waiting(wanted.owner);
    if replaced.is_some() {
        extras.lock_waiters.notify(Events::IN);
    }
    Ok(())
}

/// Gives up the record locks on a range.
pub fn unset(extras: &InodeExtras, range: &Record) {
    let is_changed = match extras.locks.lock().as_mut() {
        Some(locks) => locks.clear(range).is_some(),
        None => false,
    };
    if is_changed {
        extras.lock_waiters.notify(Events::IN);
    }
}

fn wait_on(waiter: Owner, holder: Owner) -> SysResult<()> {
    // Only processes can be blamed: an open file description may be used by anybody.
    let (Owner::Process(_), Owner::Process(_)) = (waiter, holder) else { return Ok(()) };
    let mut waits = WAITS.lock();
    let mut at = holder;
    for _ in 0..waits.len().saturating_add(1) {
        if at == waiter {
            waits.remove(&waiter);
            return Err(Errno::EDEADLK);
        }
        let Some(next) = waits.get(&at) else { break };
        at = *next;
    }
    waits.insert(waiter, holder);
    Ok(())
}

/// Is told that an owner does not wait for a lock any more.
pub fn stop_waiting(owner: Owner) {
    if matches!(owner, Owner::Process(_)) {
        WAITS.lock().remove(&owner);
    }
}

/// Takes a `flock(2)` lock, or changes the one held.
///
/// # Errors
/// `EAGAIN` where another holder's is in the way; a lock held before is then lost, as on Linux.
pub fn flock(extras: &InodeExtras, owner: Owner, is_exclusive: bool) -> SysResult<()> {
    let mut guard = extras.locks.lock();
    let locks = guard.get_or_insert_default();
    if locks.flocks.contains(&(owner, is_exclusive)) {
        return Ok(());
    }
    let n_before = locks.flocks.len();
    locks.flocks.retain(|(holder, _)| *holder != owner);
    let is_changed = locks.flocks.len() != n_before;
    let is_free = locks.flocks.iter().all(|(_, exclusive)| !exclusive && !is_exclusive);
    if is_free {
        locks.flocks.push((owner, is_exclusive));
    }
    drop(guard);
    if is_changed {
        extras.lock_waiters.notify(Events::IN);
    }
    if is_free { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// Gives up a `flock(2)` lock.
pub fn unflock(extras: &InodeExtras, owner: Owner) {
    let is_changed = match extras.locks.lock().as_mut() {
        Some(locks) => {
            let n_before = locks.flocks.len();
            locks.flocks.retain(|(holder, _)| *holder != owner);
            locks.flocks.len() != n_before
        }
        None => false,
    };
    if is_changed {
        extras.lock_waiters.notify(Events::IN);
    }
}

/// Notes that an open file description has taken a lock of its own.
pub fn mark(file: &OpenFile) {
    file.may_have_locks.store(true, Ordering::Relaxed);
}

/// Gives up what an open file description that goes away still holds.
pub(super) fn release_open_file(file: &OpenFile) {
    if let Some(inode) = file.file.inode() {
        let owner = Owner::open_file(file);
        super::lease::release_open_file(inode.extras(), file);
        unflock(inode.extras(), owner);
        unset(inode.extras(), &whole(owner));
    }
}

/// Gives up the record locks of the process with descriptor table `table`: it has closed one of its
/// descriptors of the file.
pub(super) fn release_process(file: &OpenFile, table: u64) {
    if let Some(inode) = file.file.inode() {
        unset(inode.extras(), &whole(Owner::Process(table)));
    }
}

fn whole(owner: Owner) -> Record {
    Record { start: 0, last: u64::MAX, is_write: true, owner, pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(owner: u64, start: u64, last: u64, is_write: bool) -> Record {
        Record { start, last, is_write, owner: Owner::Process(owner), pid: 0 }
    }

    #[test]
    fn unlocking_the_middle_splits_a_lock() {
        let extras = InodeExtras::default();
        set(&extras, record(1, 0, 99, true), false).unwrap();
        unset(&extras, &record(1, 40, 59, true));
        assert_eq!(test(&extras, &record(2, 40, 59, true)), None);
        assert_eq!(
            test(&extras, &record(2, 59, 60, false)).map(|r| (r.start, r.last)),
            Some((60, 99))
        );
        set(&extras, record(1, 40, 59, true), false).unwrap();
        let joined = test(&extras, &record(2, 0, 0, false));
        assert_eq!(joined.map(|r| (r.start, r.last)), Some((0, 99)));
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let extras = InodeExtras::default();
        set(&extras, record(1, 0, 9, false), false).unwrap();
        set(&extras, record(2, 5, 14, false), false).unwrap();
        assert_eq!(set(&extras, record(2, 5, 14, true), false), Err(Errno::EAGAIN));
        assert_eq!(set(&extras, record(2, 10, 14, true), false), Ok(()));
    }

    #[test]
    fn waiting_in_a_circle_is_a_deadlock() {
        let (a, b) = (InodeExtras::default(), InodeExtras::default());
        set(&a, record(101, 0, 0, true), true).unwrap();
        set(&b, record(102, 0, 0, true), true).unwrap();
        assert_eq!(set(&b, record(101, 0, 0, true), true), Err(Errno::EAGAIN));
        assert_eq!(set(&a, record(102, 0, 0, true), true), Err(Errno::EDEADLK));
        stop_waiting(Owner::Process(101));
    }

    #[test]
    fn flock_conversion_keeps_one_lock_per_holder() {
        let extras = InodeExtras::default();
        let (a, b) = (Owner::OpenFile(1), Owner::OpenFile(2));
        flock(&extras, a, false).unwrap();
        flock(&extras, b, false).unwrap();
        assert_eq!(flock(&extras, a, true), Err(Errno::EAGAIN));
        assert_eq!(flock(&extras, b, true), Ok(()));
        unflock(&extras, b);
        assert_eq!(flock(&extras, a, true), Ok(()));
    }
}
