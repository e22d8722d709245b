//! Pending signals: one record per standard signal, a queue per real-time signal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use syscalls::abi::signal::{SigSet, Siginfo};

/// The first signal of which several can be pending.
const FIRST_QUEUED: i32 = 32;

/// What `pad0` of a record holds that a timer has sent. The application can send records that look
/// like those of a timer, but never with this mark.
pub const OF_TIMER: u32 = 1;

/// The most real-time records that all queues together hold; a process's limit is below it, but there
/// can be many threads.
const MAX_QUEUED: usize = 1 << 17;

/// How many real-time records all queues together hold, and at most as many more as there are
/// standard signals pending.
static N_QUEUED: AtomicUsize = AtomicUsize::new(0);

/// Pending signals of a thread or process.
#[derive(Default)]
pub struct SignalQueue {
    set: SigSet,
    records: VecDeque<Siginfo>,
    /// How many of the real-time records are counted in `N_QUEUED`.
    n_counted: usize,
}

impl SignalQueue {
    /// Returns the pending signals as a set.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Returns how many records are pending.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the records, oldest first.
    pub fn records(&self) -> Vec<Siginfo> {
        self.records.iter().copied().collect()
    }

    /// Adds a signal. A standard signal that is already pending is lost. Returns false where a
    /// real-time signal exceeds `limit` records; it then stays pending without its record, if at
    /// all, as on Linux. A timer has a record of its own from the start: its signal is never lost.
    pub fn push(&mut self, info: Siginfo, limit: u64) -> bool {
        let signo = info.si_signo;
        if info.pad0 == OF_TIMER {
            self.set.insert(signo);
            self.records.push_back(info);
            return true;
        }
        if signo < FIRST_QUEUED {
            if !self.set.contains(signo) {
                self.set.insert(signo);
                self.records.push_back(info);
            }
            return true;
        }
        if u64::try_from(self.records.len()).unwrap_or(u64::MAX) >= limit {
            return false;
        }
        if N_QUEUED.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED {
            N_QUEUED.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.n_counted += 1;
        self.set.insert(signo);
        self.records.push_back(info);
        true
    }

    /// Is told that records have been taken out.
    fn recount(&mut self) {
        let n_gone = self.n_counted.saturating_sub(self.records.len());
        self.n_counted -= n_gone;
        N_QUEUED.fetch_sub(n_gone, Ordering::Relaxed);
    }

    /// Adds a signal in front of all others: the synchronous ones.
    pub fn push_forced(&mut self, info: Siginfo) {
        let signo = info.si_signo;
        if signo < FIRST_QUEUED && self.set.contains(signo) {
            self.records.retain(|record| record.si_signo != signo);
        }
        self.set.insert(signo);
        self.records.push_front(info);
    }

    /// Takes the next signal of `wanted`: forced and synchronous ones first, then the lowest number.
    pub fn take(&mut self, wanted: SigSet) -> Option<Siginfo> {
        let candidates = self.set.intersection(wanted);
        let synchronous = SigSet::of(syscalls::abi::signal::SIGSEGV)
            .union(SigSet::of(syscalls::abi::signal::SIGBUS))
            .union(SigSet::of(syscalls::abi::signal::SIGILL))
            .union(SigSet::of(syscalls::abi::signal::SIGTRAP))
            .union(SigSet::of(syscalls::abi::signal::SIGFPE))
            .union(SigSet::of(syscalls::abi::signal::SIGSYS));
        let signo = candidates.intersection(synchronous).first().or_else(|| candidates.first())?;
        self.take_one(signo)
    }

    fn take_one(&mut self, signo: i32) -> Option<Siginfo> {
        let at = self.records.iter().position(|record| record.si_signo == signo)?;
        let info = self.records.remove(at);
        self.recount();
        if !self.records.iter().any(|record| record.si_signo == signo) {
            self.set.remove(signo);
        }
        info
    }

    /// Forgets the signals of `set`.
    pub fn discard(&mut self, set: SigSet) {
        if self.set.intersection(set).is_empty() {
            return;
        }
        self.set = self.set.difference(set);
        self.records.retain(|record| !set.contains(record.si_signo));
        self.recount();
    }

    /// Returns whether the signal of the timer `id` is pending.
    pub fn has_timer(&self, id: i32) -> bool {
        self.records.iter().any(|record| is_of_timer(record, id))
    }

    /// Forgets the signal of the timer `id`.
    pub fn discard_timer(&mut self, id: i32) {
        let Some(at) = self.records.iter().position(|record| is_of_timer(record, id)) else {
            return;
        };
        let Some(old) = self.records.remove(at) else { return };
        self.recount();
        if !self.records.iter().any(|record| record.si_signo == old.si_signo) {
            self.set.remove(old.si_signo);
        }
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        self.records.clear();
        self.recount();
    }
}

fn is_of_timer(record: &Siginfo, id: i32) -> bool {
    record.pad0 == OF_TIMER && record.timer_id() == id
}

#[cfg(test)]
mod tests {
    use syscalls::abi::signal::{SIGINT, SIGSEGV, SIGTERM, SigSet, Siginfo};

    use super::{OF_TIMER, SignalQueue};

    #[test]
    fn standard_signals_coalesce_and_real_time_ones_queue() {
        let mut queue = SignalQueue::default();
        assert!(queue.push(Siginfo::new(SIGTERM, 0), 10));
        assert!(queue.push(Siginfo::new(SIGTERM, 0), 10));
        assert!(queue.push(Siginfo::queue(40, -1, 1, 0, 1), 10));
        assert!(queue.push(Siginfo::queue(40, -1, 1, 0, 2), 10));
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.take(SigSet::FULL).map(|info| info.si_signo), Some(SIGTERM));
        assert_eq!(queue.take(SigSet::FULL).map(|info| info.value()), Some(1));
        assert_eq!(queue.take(SigSet::FULL).map(|info| info.value()), Some(2));
        assert!(queue.is_empty() && queue.set().is_empty());
    }

    #[test]
    fn timer_signals_are_told_apart() {
        let timer = |id| Siginfo { pad0: OF_TIMER, ..Siginfo::timer(SIGTERM, id, 0, 0) };
        let mut queue = SignalQueue::default();
        queue.push(timer(1), 0);
        queue.push(timer(2), 0);
        assert!(queue.has_timer(1) && queue.has_timer(2) && !queue.has_timer(3));
        queue.discard_timer(1);
        assert!(!queue.has_timer(1) && queue.set().contains(SIGTERM));
        queue.discard_timer(2);
        assert!(queue.is_empty() && queue.set().is_empty());
    }

    #[test]
    fn synchronous_signals_come_first() {
        let mut queue = SignalQueue::default();
        queue.push(Siginfo::new(SIGINT, 0), 10);
        queue.push_forced(Siginfo::new(SIGSEGV, 1));
        assert_eq!(queue.take(SigSet::FULL).map(|info| info.si_signo), Some(SIGSEGV));
    }

    #[test]
    fn real_time_queue_is_bounded() {
        let mut queue = SignalQueue::default();
        assert!(queue.push(Siginfo::new(40, 0), 1));
        assert!(!queue.push(Siginfo::new(40, 0), 1));
    }
}
