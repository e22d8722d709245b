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

/// Deadlines, in order. One thread waits for the earliest; with none, it sleeps for good.
pub struct TimerQueue {
    /// The lock of a condition variable has to be the standard library's.
    entries: std::sync::Mutex<BTreeMap<Key, Entry>>,
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
            entries: std::sync::Mutex::new(BTreeMap::new()),
            changed: Condvar::new(),
            next_id: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notifies `waiter` when the monotonic clock reaches `deadline_ns`.
    pub fn schedule(&self, deadline_ns: u64, waiter: &Arc<dyn Waiter>, key: u64) -> TimerHandle {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { waiter: Arc::downgrade(waiter), key };
        let mut entries = self.lock();
        let is_first = entries.first_key_value().is_none_or(|(first, _)| deadline_ns < first.0);
        entries.insert((deadline_ns, id), entry);
        drop(entries);
        if is_first {
            self.changed.notify_one();
        }
        TimerHandle { queue: self.this.clone(), key: (deadline_ns, id) }
    }

    /// Serves deadlines for ever: the body of the timer thread.
    pub fn serve(&self, clock: &Clock) {
        let mut entries = self.lock();
        loop {
            let now = clock.monotonic_ns();
            let first = entries.first_key_value().map(|(key, _)| *key);
            match first {
                None => {
                    entries = self
                        .changed
                        .wait(entries)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                Some((deadline_ns, _)) if deadline_ns > now => {
                    let timeout = Duration::from_nanos(deadline_ns - now);
                    entries = self
                        .changed
                        .wait_timeout(entries, timeout)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0;
                }
                Some(key) => {
                    let entry = entries.remove(&key);
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
            let removed = queue.lock().remove(&self.key);
            drop(removed);
        }
    }
}
