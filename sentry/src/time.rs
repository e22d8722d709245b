//! Clocks and timers.
//!
//! Guest clocks are the host's, so that what the vDSO answers without the sentry and what the
//! sentry answers agree.

pub mod posix_timer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Weak};
use std::time::Duration;

use sentry_host::clock::{self, Clock as HostClock};

use crate::sync::{Events, Waiter};

/// The clocks that the sentry itself uses.
pub struct Clock {
    boot_monotonic_ns: u64,
    /// The processor's time stamp counter at the same moment.
    boot_cycles: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { boot_monotonic_ns: read(HostClock::Monotonic), boot_cycles: clock::cycles() }
    }
}

fn read(clock: HostClock) -> u64 {
    u64::try_from(clock::now_ns(clock)).unwrap_or(0)
}

impl Clock {
    /// Returns `CLOCK_MONOTONIC` in nanoseconds: the clock of all deadlines.
    pub fn monotonic_ns(&self) -> u64 {
        read(HostClock::Monotonic)
    }

    /// Returns `CLOCK_REALTIME` in nanoseconds since the epoch.
    pub fn realtime_ns(&self) -> i64 {
        clock::now_ns(HostClock::Realtime)
    }

    /// Returns the rate of the processor's time stamp counter in kilohertz, as it has been since
    /// the sandbox booted.
    pub fn cpu_khz(&self) -> u64 {
        let cycles = u128::from(clock::cycles().saturating_sub(self.boot_cycles));
        let ns = u128::from(self.boot_ns().max(1));
        u64::try_from(cycles * 1_000_000 / ns).unwrap_or(0)
    }

    /// Returns the time since the sandbox booted in nanoseconds.
    pub fn boot_ns(&self) -> u64 {
        self.monotonic_ns().saturating_sub(self.boot_monotonic_ns)
    }
}

type Key = (u64, u64);

struct Entry {
    waiter: Weak<dyn Waiter>,
    key: u64,
}

struct Entries {
    map: BTreeMap<Key, Entry>,
    /// When the thread looks at them next, whatever happens: zero while it is awake. To wake it costs
    /// far more than a look for nothing, and most deadlines are cancelled before they come.
    looks_at_ns: u64,
}

impl Entries {
    /// Adds a deadline. Returns whether the thread is to be woken for it.
    fn add(&mut self, key: Key, entry: Entry) -> bool {
        self.map.insert(key, entry);
        let is_too_late = key.0 < self.looks_at_ns;
        if is_too_late {
            self.looks_at_ns = 0;
        }
        is_too_late
    }
}

/// Deadlines, in order. One thread waits for the earliest; with none, it sleeps for good.
pub struct TimerQueue {
    /// The lock of a condition variable has to be the standard library's.
    entries: std::sync::Mutex<Entries>,
    changed: Condvar,
    next_id: AtomicU64,
    this: Weak<TimerQueue>,
}

/// A scheduled deadline, cancelled when dropped.
pub struct TimerHandle {
    queue: Weak<TimerQueue>,
    key: Key,
}

impl TimerQueue {
    /// Creates an empty queue.
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            entries: std::sync::Mutex::new(Entries { map: BTreeMap::new(), looks_at_ns: 0 }),
            changed: Condvar::new(),
            next_id: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notifies `waiter` when the monotonic clock reaches `deadline_ns`.
    pub fn schedule(&self, deadline_ns: u64, waiter: &Arc<dyn Waiter>, key: u64) -> TimerHandle {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { waiter: Arc::downgrade(waiter), key };
        if self.lock().add((deadline_ns, id), entry) {
            self.changed.notify_one();
        }
        TimerHandle { queue: self.this.clone(), key: (deadline_ns, id) }
    }

    /// Serves deadlines for ever: the body of the timer thread.
    pub fn serve(&self, clock: &Clock) {
        let mut entries = self.lock();
        loop {
            let now = clock.monotonic_ns();
            let first = entries.map.first_key_value().map(|(key, _)| *key);
            match first {
                None => {
                    entries.looks_at_ns = u64::MAX;
                    entries = self
                        .changed
                        .wait(entries)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                Some((deadline_ns, _)) if deadline_ns > now => {
                    let timeout = Duration::from_nanos(deadline_ns - now);
                    entries.looks_at_ns = deadline_ns;
                    entries = self
                        .changed
                        .wait_timeout(entries, timeout)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0;
                }
                Some(key) => {
                    entries.looks_at_ns = 0;
                    let entry = entries.map.remove(&key);
                    drop(entries);
                    if let Some(entry) = entry
                        && let Some(waiter) = entry.waiter.upgrade()
                    {
                        waiter.notify(entry.key, Events::empty());
                    }
                    entries = self.lock();
                }
            }
        }
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            let removed = queue.lock().map.remove(&self.key);
            drop(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Waiter for Nobody {
        fn notify(&self, _key: u64, _events: Events) {}
    }

    #[test]
    fn thread_is_woken_only_for_what_it_would_miss() {
        let waiter: Arc<dyn Waiter> = Arc::new(Nobody);
        let entry = || Entry { waiter: Arc::downgrade(&waiter), key: 0 };
        let mut entries = Entries { map: BTreeMap::new(), looks_at_ns: 100 };
        // What it waits for has been cancelled, but it looks then all the same.
        assert!(!entries.add((200, 1), entry()));
        assert!(entries.add((50, 2), entry()));
        // It is awake, and looks before it sleeps.
        assert!(!entries.add((40, 3), entry()));
        entries.looks_at_ns = u64::MAX;
        assert!(entries.add((300, 4), entry()));
    }
}
