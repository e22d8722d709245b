//! What processes and threads have used: processor time, page faults, the most resident memory.
//!
//! The host counts for a host process, which is an address space of ours. A process leaves its
//! address space behind when it executes a program, so what it used there is added up here; what it
//! uses in the present one is asked of the host.
//!
//! DEVIATION: what a child of `vfork(2)` uses in its parent's address space before it executes a
//! program is counted as its parent's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_platform::Context;
use syscalls::abi::resource::Rusage;
use syscalls::abi::time::Timeval;
use zerocopy::FromZeros;

use super::{Task, ThreadGroup};
use crate::sync::Mutex;

/// What has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time in nanoseconds.
    pub cpu_ns: (u64, u64),
    /// Page faults without and with input.
    pub faults: (u64, u64),
    /// The most bytes that were resident at once.
    pub peak: u64,
}

impl Usage {
    /// Returns both together: the larger peak, the sums of all else.
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu_ns: add(self.cpu_ns, other.cpu_ns),
            faults: add(self.faults, other.faults),
            peak: self.peak.max(other.peak),
        }
    }

    /// Returns the form of `getrusage(2)`.
    pub fn to_rusage(self) -> Rusage {
        let time = |ns: u64| Timeval::from_ns(i64::try_from(ns).unwrap_or(i64::MAX));
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Rusage {
            ru_utime: time(self.cpu_ns.0),
            ru_stime: time(self.cpu_ns.1),
            ru_maxrss: number(self.peak / 1024),
            ru_minflt: number(self.faults.0),
            ru_majflt: number(self.faults.1),
            ..Rusage::new_zeroed()
        }
    }

    /// Returns what the host process of a stopped context has used.
    fn of_process(context: &dyn Context) -> Self {
        let space = context.address_space();
        let usage = context.told_usage().unwrap_or_else(|| space.usage());
        Self { cpu_ns: space.cpu_time_ns(), faults: usage.faults, peak: usage.peak }
    }

    /// Returns what a host thread has used.
    fn of_thread(context: &dyn Context) -> Self {
        let usage = context.usage().unwrap_or_default();
        Self { cpu_ns: usage.cpu_ns, faults: usage.faults, peak: 0 }
    }
}

fn add(left: (u64, u64), right: (u64, u64)) -> (u64, u64) {
    (left.0.saturating_add(right.0), left.1.saturating_add(right.1))
}

/// How much a process has read and written, in how many calls.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) n_reads: AtomicU64,
    pub(crate) n_writes: AtomicU64,
}

impl Transfers {
    /// Counts a read of `n` bytes.
    pub(crate) fn note_read(&self, n: usize) {
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        self.n_reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a write of `n` bytes.
    pub(crate) fn note_write(&self, n: usize) {
        self.written.fetch_add(n as u64, Ordering::Relaxed);
        self.n_writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// The account of a process.
#[derive(Debug, Default)]
pub(crate) struct Account {
    state: Mutex<State>,
    /// Of children that have been waited for, and theirs.
    children: Mutex<Usage>,
    pub(crate) transfers: Transfers,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// In address spaces that the process has left.
    earlier: Usage,
    /// Whether the address space is another process's, until exec.
    borrows: bool,
    /// Whether there has been a second thread since the last exec.
    was_threaded: bool,
    /// Whether the process has ended: `earlier` is all.
    has_ended: bool,
}

impl Account {
    /// Returns the account of a new process; `borrows` tells whether it runs in the address space
    /// of the one that made it.
    pub(crate) fn new(borrows: bool) -> Self {
        let state = State { borrows, ..State::default() };
        let (children, transfers) = (Mutex::default(), Transfers::default());
        Self { state: Mutex::new(state), children, transfers }
    }

    /// Records that the process gets another thread.
    pub(crate) fn add_thread(&self) {
        self.state.lock().was_threaded = true;
    }

    /// Adds what a child that has been waited for used.
    pub(crate) fn add_child(&self, usage: Usage) {
        let mut children = self.children.lock();
        *children = children.and(usage);
    }

    /// Returns what the children that have been waited for used.
    pub(crate) fn children(&self) -> Usage {
        *self.children.lock()
    }

    /// Calls `replace`, which gives the process's only thread a fresh context, with an address space
    /// of its own, instead of `old`.
    pub(crate) fn change_space(&self, old: &dyn Context, replace: impl FnOnce()) {
        let borrows = self.state.lock().borrows;
        let left = if borrows { Usage::default() } else { Usage::of_process(old) };
        let mut state = self.state.lock();
        state.earlier = state.earlier.and(left);
        replace();
        state.borrows = false;
        state.was_threaded = false;
    }

    /// Closes the account at the end of the process's last thread.
    pub(crate) fn close(&self, last: &dyn Context) {
        let State { borrows, has_ended, .. } = *self.state.lock();
        if has_ended {
            return;
        }
        let left = if borrows { Usage::of_thread(last) } else { Usage::of_process(last) };
        let mut state = self.state.lock();
        if !state.has_ended {
            state.earlier = state.earlier.and(left);
            state.has_ended = true;
        }
    }
}

impl ThreadGroup {
    /// Returns user and system time of all threads, gone ones included, in nanoseconds.
    pub fn cpu_ns(&self) -> (u64, u64) {
        let present = self.present();
        let state = self.account.state.lock();
        let of_space = |task: &Arc<Task>| task.context.lock().address_space().cpu_time_ns();
        let now = match present.first() {
            Some(task) if !state.has_ended && !state.borrows => of_space(task),
            _ => (0, 0),
        };
        let (earlier, borrows) = (state.earlier.cpu_ns, state.borrows && !state.has_ended);
        drop(state);
        if borrows {
            return present.iter().fold(earlier, |sum, task| {
                let context = task.context.lock().clone();
                add(sum, Usage::of_thread(&*context).cpu_ns)
            });
        }
        add(earlier, now)
    }

    /// Returns what all threads, gone ones included, have used.
    pub fn usage(&self) -> Usage {
        let State { earlier, borrows, has_ended, .. } = *self.account.state.lock();
        let present = self.present();
        let now = match present.first() {
            Some(task) if !has_ended && !borrows => {
                let context = task.context.lock().clone();
                let usage = context.address_space().usage();
                Usage { cpu_ns: (0, 0), faults: usage.faults, peak: usage.peak }
            }
            _ => Usage::default(),
        };
        Usage { cpu_ns: self.cpu_ns(), ..earlier.and(now) }
    }

    /// Returns the threads that are still part of the process.
    fn present(&self) -> Vec<Arc<Task>> {
        let tree = self.tree.lock();
        let is_present = |task: &&Arc<Task>| !task.has_left.load(Ordering::SeqCst);
        tree.tasks.iter().filter(is_present).cloned().collect()
    }
}

impl Task {
    /// Returns user and system time in nanoseconds.
    pub fn cpu_ns(&self) -> (u64, u64) {
        match self.own_usage() {
            Some(usage) => usage.cpu_ns,
            None => self.group.cpu_ns(),
        }
    }

    /// Returns what the thread has used; the peak is the process's, as on Linux.
    pub fn usage(&self) -> Usage {
        let group = self.group.usage();
        match self.own_usage() {
            Some(usage) => Usage { peak: group.peak, ..usage },
            None => group,
        }
    }

    /// Returns what the thread has used where that is not what its process has, and known.
    fn own_usage(&self) -> Option<Usage> {
        let State { earlier, borrows, was_threaded, has_ended } = *self.group.account.state.lock();
        if has_ended || borrows || !was_threaded {
            return None;
        }
        if self.has_left.load(Ordering::SeqCst) {
            return Some(Usage::default());
        }
        let context = self.context.lock().clone();
        let usage = context.usage()?;
        let now = Usage { cpu_ns: usage.cpu_ns, faults: usage.faults, peak: 0 };
        Some(if self.is_leader() { earlier.and(now) } else { now })
    }
}
