//! When something is to be done about a connection: a heap of moments, and who waits for the first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use super::link::Link;
use crate::sync::Mutex;

/// The moment that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// How many moments there may be for nothing before they are thrown out.
const MAX_STALE: usize = 4096;

struct Entry {
    at_ns: u64,
    link: Weak<Link>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at_ns == other.at_ns
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The first moment is the greatest entry of the heap.
        other.at_ns.cmp(&self.at_ns)
    }
}

#[derive(Default)]
struct Inner {
    heap: BinaryHeap<Entry>,
    /// How many entries there were after the last clearing.
    n_kept: usize,
    /// When the thread wakes by itself.
    wakes_at_ns: u64,
}

/// The moments of all connections. The lock is a leaf.
#[derive(Default)]
pub(super) struct Timers(Mutex<Inner>);

impl Timers {
    /// Adds a moment. Returns whether the thread is to be woken to learn of it.
    pub(super) fn add(&self, at_ns: u64, link: &Arc<Link>) -> bool {
        let mut inner = self.0.lock();
        if inner.heap.len() > inner.n_kept * 2 + MAX_STALE {
            let is_valid = |entry: &Entry| {
                entry.link.upgrade().is_some_and(|link| link.waits_for(entry.at_ns))
            };
            inner.heap.retain(is_valid);
            inner.n_kept = inner.heap.len();
        }
        inner.heap.push(Entry { at_ns, link: Arc::downgrade(link) });
        let is_first = at_ns < inner.wakes_at_ns;
        if is_first {
            inner.wakes_at_ns = at_ns;
        }
        is_first
    }

    /// Takes the connections whose moment has come.
    pub(super) fn due(&self, now_ns: u64) -> Vec<Arc<Link>> {
        let mut due = Vec::new();
        let mut inner = self.0.lock();
        while let Some(entry) = inner.heap.peek()
            && entry.at_ns <= now_ns
        {
            let Some(entry) = inner.heap.pop() else { break };
            due.extend(entry.link.upgrade().filter(|link| link.waits_for(entry.at_ns)));
        }
        due
    }

    /// Says that the thread is about to wait, no longer than until `limit_ns`; returns until when.
    pub(super) fn sleep_until(&self, limit_ns: u64) -> u64 {
        let mut inner = self.0.lock();
        let first = inner.heap.peek().map_or(NEVER, |entry| entry.at_ns);
        inner.wakes_at_ns = first.min(limit_ns);
        inner.wakes_at_ns
    }
}
