//! The descriptors of a stub: which files it holds for mappings, under which numbers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How many descriptors a process keeps for mappings to come.
const CACHED_FDS: usize = 16;
/// How many where that many are pinned. There is room for them below the zygote's limit.
const MAX_CACHED_FDS: usize = 56;
/// The first of their numbers.
const FIRST_CACHED_FD: i32 = 3;

/// Which files the process holds under which descriptor.
///
/// A descriptor that a host call under way names is *pinned*: another thread's call must not make it
/// that of another file.
#[derive(Debug, Default)]
pub(super) struct FdCache {
    entries: Vec<FdEntry>,
    clock: u64,
}

#[derive(Debug)]
struct FdEntry {
    file: Option<Arc<OwnedFd>>,
    used: u64,
    pins: u32,
}

impl FdCache {
    /// Pins and returns the number under which the process holds `file`.
    pub(super) fn get(&mut self, file: &Arc<OwnedFd>) -> Option<i32> {
        self.clock += 1;
        let clock = self.clock;
        let (i, entry) = self.entries.iter_mut().enumerate().find(|(_, entry)| entry.is(file))?;
        entry.used = clock;
        entry.pins += 1;
        number(i)
    }

    /// Chooses and pins a number for `file`, whose former file is no longer held.
    pub(super) fn insert(&mut self, file: &Arc<OwnedFd>) -> Option<i32> {
        self.clock += 1;
        let new = FdEntry { file: Some(Arc::clone(file)), used: self.clock, pins: 1 };
        let n = self.entries.len();
        let unpinned = self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.pins == 0);
        let i = match unpinned.min_by_key(|(_, entry)| entry.used) {
            Some((i, oldest)) if n >= CACHED_FDS => {
                *oldest = new;
                i
            }
            _ if n < MAX_CACHED_FDS => {
                self.entries.push(new);
                n
            }
            _ => return None,
        };
        number(i)
    }

    /// Forgets `file`, which could not be handed over.
    pub(super) fn remove(&mut self, number: i32) {
        if let Some(entry) = self.entry(number) {
            *entry = FdEntry { file: None, used: 0, pins: 0 };
        }
    }

    /// Unpins a number: the call that named it has been made.
    pub(super) fn unpin(&mut self, number: i32) {
        if let Some(entry) = self.entry(number) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    fn entry(&mut self, number: i32) -> Option<&mut FdEntry> {
        self.entries.get_mut(usize::try_from(number.checked_sub(FIRST_CACHED_FD)?).ok()?)
    }
}

impl FdEntry {
    fn is(&self, file: &Arc<OwnedFd>) -> bool {
        self.file.as_ref().is_some_and(|held| Arc::ptr_eq(held, file))
    }
}

fn number(index: usize) -> Option<i32> {
    i32::try_from(index).ok()?.checked_add(FIRST_CACHED_FD)
}
