//! Wait queues: how whatever becomes ready finds whoever waits for it.
//!
//! A [`Waiter`] (a blocked task, an epoll instance) registers with any number of [`WaitQueue`]s
//! and is notified from the thread that changed something. Registering does not block and waiting
//! is not done on a host thread: a blocked task is simply not resumed (see `task::block`).

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use syscalls::SysResult;

use super::Mutex;

bitflags! {
    /// What a file is ready for: the `POLL*` bits of `poll(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Events: u32 {
        /// `POLLIN`
        const IN = 0x1;
        /// `POLLPRI`
        const PRI = 0x2;
        /// `POLLOUT`
        const OUT = 0x4;
        /// `POLLERR`
        const ERR = 0x8;
        /// `POLLHUP`
        const HUP = 0x10;
        /// `POLLRDNORM`
        const RDNORM = 0x40;
        /// `POLLRDBAND`
        const RDBAND = 0x80;
        /// `POLLWRNORM`
        const WRNORM = 0x100;
        /// `POLLWRBAND`
        const WRBAND = 0x200;
        /// `POLLMSG`
        const MSG = 0x400;
        /// `POLLRDHUP`
        const RDHUP = 0x2000;
    }
}

impl Events {
    /// Readable, in both spellings.
    pub const READABLE: Self = Self::IN.union(Self::RDNORM);
    /// Writable, in both spellings.
    pub const WRITABLE: Self = Self::OUT.union(Self::WRNORM);
}

/// Who waits for descriptors of the host, and tells wait queues.
pub trait HostReadiness: Send + Sync {
    /// Tells `queue` of every change of `fd`, until [`HostReadiness::forget`]. Returns the key.
    ///
    /// # Errors
    /// `ENOMEM`, `ENOSPC`.
    fn follow(self: Arc<Self>, fd: BorrowedFd<'_>, queue: &WaitQueue) -> SysResult<u64>;

    /// Tells nobody of a descriptor any more.
    fn forget(&self, key: u64, fd: BorrowedFd<'_>);
}

/// Somebody who waits.
pub trait Waiter: Send + Sync {
    /// Is told that one of the events for which it registered under `key` has happened. Runs on
    /// the thread that made it happen, without any wait-queue lock; must be quick.
    fn notify(&self, key: u64, events: Events);

    /// Returns whether one such waiter is enough for an event (`EPOLLEXCLUSIVE`). Asked once, on
    /// registering.
    fn takes_turns(&self) -> bool {
        false
    }

    /// As `notify` for a waiter that takes turns; returns whether anybody will act on it. Where not,
    /// the next such waiter is told as well.
    fn notify_in_turn(&self, key: u64, events: Events) -> bool {
        self.notify(key, events);
        true
    }
}

struct Entry {
    id: u64,
    key: u64,
    mask: Events,
    exclusive: bool,
    takes_turns: bool,
    waiter: Weak<dyn Waiter>,
}

#[derive(Default)]
struct Inner {
    /// Length of `entries`, so that `notify` on a queue without waiters costs one load.
    len: AtomicUsize,
    next_id: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

/// A list of waiters. Cloning gives another handle to the same list.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<Inner>);

/// A place in a wait queue, given up when dropped.
pub struct Registration {
    queue: Weak<Inner>,
    id: u64,
}

impl WaitQueue {
    /// Creates an empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `waiter` for any event of `mask`; `key` is passed back to it. Errors and hang-ups
    /// are always reported.
    pub fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Registration {
        self.insert(waiter, mask, key, false)
    }

    /// As [`WaitQueue::register`], but [`WaitQueue::notify_one`] wakes only the first of the
    /// exclusive waiters.
    pub fn register_exclusive(
        &self,
        waiter: &Arc<dyn Waiter>,
        mask: Events,
        key: u64,
    ) -> Registration {
        self.insert(waiter, mask, key, true)
    }

    /// Returns whether somebody is registered.
    pub fn has_waiters(&self) -> bool {
        self.0.len.load(Ordering::SeqCst) > 0
    }

    /// Returns everything that somebody is registered for.
    pub fn wanted(&self) -> Events {
        if self.0.len.load(Ordering::SeqCst) == 0 {
            return Events::empty();
        }
        self.0.entries.lock().iter().fold(Events::empty(), |all, entry| all | entry.mask)
    }

    fn insert(
        &self,
        waiter: &Arc<dyn Waiter>,
        mask: Events,
        key: u64,
        exclusive: bool,
    ) -> Registration {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.0.entries.lock();
        entries.push(Entry {
            id,
            key,
            mask: mask | Events::ERR | Events::HUP,
            exclusive,
            takes_turns: waiter.takes_turns(),
            waiter: Arc::downgrade(waiter),
        });
        self.0.len.store(entries.len(), Ordering::SeqCst);
        Registration { queue: Arc::downgrade(&self.0), id }
    }

    /// Tells everybody who registered for one of `events`.
    pub fn notify(&self, events: Events) {
        self.notify_up_to(events, usize::MAX);
    }

    /// Tells all waiters that are not exclusive and the first exclusive one.
    pub fn notify_one(&self, events: Events) {
        self.notify_up_to(events, 1);
    }

    fn notify_up_to(&self, events: Events, mut n_exclusive: usize) {
        // Pairs with the store in `insert`: a waiter registers, then looks at the state again;
        // whoever changes the state does so before it calls this.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.0.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        // Most queues have one waiter: only a second one costs an allocation.
        let mut first = None;
        let mut others = Vec::new();
        for entry in self.0.entries.lock().iter() {
            if !entry.mask.intersects(events) {
                continue;
            }
            if entry.exclusive {
                if n_exclusive == 0 {
                    continue;
                }
                n_exclusive -= 1;
            }
            if let Some(waiter) = entry.waiter.upgrade() {
                let place = (waiter, entry.key, entry.takes_turns);
                if first.is_none() {
                    first = Some(place);
                } else {
                    others.push(place);
                }
            }
        }
        let mut is_taken = false;
        for (waiter, key, takes_turns) in first.into_iter().chain(others) {
            if !takes_turns {
                waiter.notify(key, events);
            } else if !is_taken {
                is_taken = waiter.notify_in_turn(key, events);
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            let mut entries = queue.entries.lock();
            entries.retain(|entry| entry.id != self.id);
            queue.len.store(entries.len(), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Waiter for Counter {
        fn notify(&self, _key: u64, _events: Events) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn notify_wakes_matching_waiters_only_while_registered() {
        let queue = WaitQueue::new();
        let counter = Arc::new(Counter::default());
        let waiter: Arc<dyn Waiter> = counter.clone();
        let registration = queue.register(&waiter, Events::IN, 0);
        queue.notify(Events::OUT);
        assert_eq!(counter.0.load(Ordering::Relaxed), 0);
        queue.notify(Events::IN);
        queue.notify(Events::HUP);
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        drop(registration);
        queue.notify(Events::IN);
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn notify_one_wakes_a_single_exclusive_waiter() {
        let queue = WaitQueue::new();
        let counter = Arc::new(Counter::default());
        let waiter: Arc<dyn Waiter> = counter.clone();
        let _held: Vec<_> =
            (0..3).map(|key| queue.register_exclusive(&waiter, Events::IN, key)).collect();
        queue.notify_one(Events::IN);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    }
}
