//! The descriptors of a stub: which files it holds for mappings, under which numbers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use syscalls::SysResult;

use super::doorbell::{Channel, Doorbell};

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
    /// The way to the process from its birth on, where notifications do not carry descriptors, and
    /// how many have gone that way.
    channel: Option<Channel>,
    sent: u64,
}

#[derive(Debug)]
struct FdEntry {
    file: Option<Arc<OwnedFd>>,
    used: u64,
    pins: u32,
}

impl FdCache {
    /// Lets descriptors go through `channel` from now on.
    pub(super) fn open(&mut self, channel: Channel) {
        self.channel = Some(channel);
    }

    /// Returns whether the process has what is handed over to it as soon as it is said to have it.
    pub(super) fn is_prompt(&self) -> bool {
        self.channel.is_none()
    }

    /// Returns how many descriptors the process must have taken from its channel to have all.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Hands `file` to the process, which has sent the notification `ring`; returns the number that it
    /// has there, pinned, or `None` where that must wait for a ring, or for others to finish with
    /// theirs.
    pub(super) fn hand_over(
        &mut self,
        file: &Arc<OwnedFd>,
        doorbell: &Doorbell,
        ring: Option<u64>,
    ) -> Option<SysResult<i32>> {
        if ring.is_none() && self.channel.is_none() {
            return None;
        }
        let number = self.insert(file)?;
        let given = match (&self.channel, ring) {
            (Some(channel), _) => channel.send(file.as_fd(), number),
            (None, Some(id)) => doorbell.add_fd(id, file.as_fd(), number),
            (None, None) => return None,
        };
        match given {
            Ok(()) if self.channel.is_some() => self.sent += 1,
            Ok(()) => {}
            Err(_) => self.remove(number),
        }
        Some(given.map(|()| number))
    }

    /// Pins and returns the number under which the process holds `file`.
    pub(super) fn get(&mut self, file: &Arc<OwnedFd>) -> Option<i32> {
        self.clock += 1;
        let clock = self.clock;
        let (i, entry) = self.entries.iter_mut().enumerate().find(|(_, entry)| entry.is(file))?;
        entry.used = clock;
        entry.pins += 1;
        number(i)
    }

    /// Makes it that the process holds `file`, as far as this knows.
    #[cfg(test)]
    pub(super) fn hold_for_test(&mut self, file: &Arc<OwnedFd>) -> i32 {
        self.insert(file).unwrap()
    }

    /// Chooses and pins a number for `file`, whose former file is no longer held.
    fn insert(&mut self, file: &Arc<OwnedFd>) -> Option<i32> {
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

    /// Forgets and unpins a number that the process does not hold, or is about to close.
    pub(super) fn remove(&mut self, number: i32) {
        self.unpin(number);
        self.forget(number);
    }

    /// Forgets what a number is that the process has closed. It is that of another file only when no
    /// call names it any more: another thread's may, which has not been made yet.
    pub(super) fn forget(&mut self, number: i32) {
        if let Some(entry) = self.entry(number) {
            entry.file = None;
            entry.used = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(sentry_host::memfd::create().unwrap())
    }

    #[test]
    fn a_number_that_is_closed_means_nothing_else_while_a_call_names_it() {
        let mut fds = FdCache::default();
        let (file, other) = (file(), file());
        let number = fds.hold_for_test(&file);
        // Another thread's call names it as well, before this one's has closed it.
        assert_eq!(fds.get(&file), Some(number));
        fds.unpin(number);
        fds.forget(number);
        assert_eq!(fds.get(&file), None);
        for _ in 0..CACHED_FDS + 1 {
            assert_ne!(fds.hold_for_test(&other), number);
        }
        fds.unpin(number);
        assert_eq!(fds.hold_for_test(&other), number);
    }

    #[test]
    fn a_number_that_was_not_handed_over_is_free() {
        let mut fds = FdCache::default();
        let number = fds.hold_for_test(&file());
        fds.remove(number);
        for _ in 0..CACHED_FDS - 1 {
            fds.hold_for_test(&file());
        }
        assert_eq!(fds.hold_for_test(&file()), number);
    }
}
