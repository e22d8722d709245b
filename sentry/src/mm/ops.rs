//! The operations on an address space as system calls use them: limits are read, conflicting
//! operations of other threads are waited for, host calls are queued on the current task.

use std::sync::Arc;

use sentry_platform::HostCall;
use syscalls::abi::{capability, resource, signal, wait};
use syscalls::{Errno, SysResult};

use super::in_flight::InFlight;
use super::space::recover::Recovered;
use super::space::{Avoid, MemoryLimits, Plan, Space};
use super::vma::AddrRange;
use super::{MemoryManager, State};
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::{CurrentTask, HandlerResult, Restart, Task, run};

/// What an operation may not overlap.
#[derive(Clone, Debug)]
pub(crate) enum Conflicts<'a> {
    /// Nothing but operations on the whole address space: it finds a free place itself.
    Whole,
    /// Operations that concern these ranges.
    Ranges(&'a [AddrRange]),
    /// Any operation: it concerns the whole address space.
    Everything,
}

/// All addresses.
const EVERYWHERE: AddrRange = 0..u64::MAX;

impl Conflicts<'_> {
    fn with(&self, other: &AddrRange) -> bool {
        match self {
            Self::Whole => *other == EVERYWHERE,
            Self::Ranges(ranges) => {
                ranges.iter().any(|range| range.start < other.end && other.start < range.end)
            }
            Self::Everything => true,
        }
    }
}

impl CurrentTask {
    /// Returns the limits that memory operations obey.
    pub(crate) fn memory_limits(&self) -> MemoryLimits {
        let limits = self.group.limits.lock();
        MemoryLimits {
            address_space: limits.soft(resource::RLIMIT_AS),
            data: limits.soft(resource::RLIMIT_DATA),
            memlock: limits.soft(resource::RLIMIT_MEMLOCK),
            may_lock: self.creds().has_capability(capability::CAP_IPC_LOCK),
        }
    }
}

impl MemoryManager {
    /// Runs an operation, once nothing that it conflicts with is under way.
    ///
    /// # Errors
    /// Those of the operation; `Control::Block` and `Control::Restart` while it must wait.
    pub(crate) fn operate<T>(
        self: &Arc<Self>,
        current: &CurrentTask,
        conflicts: &Conflicts<'_>,
        mut operation: impl FnMut(&mut Space, &Avoid<'_>, &mut Plan<'_>) -> SysResult<T>,
    ) -> HandlerResult<T> {
        if let Some(value) = self.try_operate(current, conflicts, &mut operation)? {
            return Ok(value);
        }
        let waited = current.wait_for(
            None,
            Restart::NoIntr,
            |waiter| vec![self.retired.register(waiter, Events::IN, 0)],
            || self.try_operate(current, conflicts, &mut operation),
        )?;
        match waited {
            Wait::Ready(value) => Ok(value),
            Wait::TimedOut => Err(Errno::EAGAIN.into()),
        }
    }

    /// Runs an operation, or returns `None` where something that it conflicts with is under way;
    /// those who are in the way are then asked to hurry.
    pub(super) fn try_operate<T>(
        self: &Arc<Self>,
        current: &CurrentTask,
        conflicts: &Conflicts<'_>,
        operation: &mut impl FnMut(&mut Space, &Avoid<'_>, &mut Plan<'_>) -> SysResult<T>,
    ) -> SysResult<Option<T>> {
        let me = current.task();
        let mut state = self.state.lock();
        let mut others = Vec::new();
        if !state.in_flight.is_empty() {
            let blockers = blockers(&state, me, |range| conflicts.with(range));
            if !blockers.is_empty() {
                drop(state);
                hurry(&blockers);
                return Ok(None);
            }
            others = others_ranges(&state, me);
        }
        let avoid = Avoid { ranges: &others };
        let mut calls = current.host_calls.lock();
        let mut undo = me.memory.undo.lock();
        let before = undo.len();
        let mut plan = Plan { calls: &mut calls, undo: &mut undo };
        let result = operation(&mut state.space, &avoid, &mut plan);
        drop(calls);
        if matches!(&result, Err(errno) if *errno == Errno::ENOMEM)
            && !others.is_empty()
            && undo.len() == before
        {
            // Room may be hidden by what others are about to unmap.
            let blockers = blockers(&state, me, |_| true);
            drop((state, undo));
            hurry(&blockers);
            return Ok(None);
        }
        let everywhere = matches!(conflicts, Conflicts::Everything);
        if undo.len() > before || everywhere {
            me.memory.mark();
            // The task's own reference and the caller's: nobody else can come in between.
            if Arc::strong_count(self) > 2 {
                let task = Arc::downgrade(me);
                let entry = |range| InFlight { task: task.clone(), range };
                if everywhere {
                    state.in_flight.push(entry(EVERYWHERE));
                }
                for done in undo.iter().skip(before) {
                    state.in_flight.push(entry(done.range.clone()));
                    if let super::space::Purpose::Remap(source) = &done.purpose {
                        state.in_flight.push(entry(source.clone()));
                    }
                }
            }
        }
        drop(state);
        result.map(Some)
    }

    /// Waits until the address space may be copied, and keeps others from changing it until the
    /// copy has been made.
    ///
    /// # Errors
    /// `Control::Block` and `Control::Restart` while something is under way.
    pub(crate) fn before_fork(self: &Arc<Self>, current: &CurrentTask) -> HandlerResult<()> {
        self.operate(current, &Conflicts::Everything, |_, _, _| Ok(()))
    }

    /// Makes areas and host agree again after the host has refused call number `index`.
    /// Returns what the system call answers instead of the error, where it does.
    pub(crate) fn host_call_failed(
        self: &Arc<Self>,
        current: &CurrentTask,
        index: usize,
        errno: Errno,
    ) -> Option<u64> {
        let me = current.task();
        let undo = std::mem::take(&mut *me.memory.undo.lock());
        let is_brk = undo.iter().any(|entry| entry.old_brk.is_some());
        let mut state = self.state.lock();
        let mut calls = current.host_calls.lock();
        let mut new_undo = me.memory.undo.lock();
        let mut plan = Plan { calls: &mut calls, undo: &mut new_undo };
        let recovered = state.space.recover(index, true, undo, &mut plan);
        let brk = state.space.layout.brk;
        // What is in flight stays so until the recovery's calls have been made.
        me.memory.mark();
        drop((state, calls, new_undo));
        if recovered == Recovered::No {
            crate::log::warn(format_args!(
                "task {}: the host refused to undo a mapping: {errno}",
                current.tid()
            ));
            let status = wait::signaled(signal::SIGKILL, false);
            crate::task::signal::post::kill_group(&current.group, status);
        }
        is_brk.then_some(brk)
    }

    /// Runs an operation on an address space that nobody uses yet, and returns its host calls.
    ///
    /// # Errors
    /// Those of the operation.
    pub(crate) fn prepare<T>(
        &self,
        calls: &mut Vec<HostCall>,
        operation: impl FnOnce(&mut Space, &Avoid<'_>, &mut Plan<'_>) -> SysResult<T>,
    ) -> SysResult<T> {
        let mut undo = Vec::new();
        let mut state = self.state.lock();
        let mut plan = Plan { calls, undo: &mut undo };
        operation(&mut state.space, &Avoid { ranges: &[] }, &mut plan)
    }

    /// Reads something from the areas.
    pub(crate) fn inspect<T>(&self, read: impl FnOnce(&Space) -> T) -> T {
        read(&self.state.lock().space)
    }
}

/// Returns the other tasks with something under way on a range that `matches`.
fn blockers(state: &State, me: &Arc<Task>, matches: impl Fn(&AddrRange) -> bool) -> Vec<Arc<Task>> {
    state
        .in_flight
        .iter()
        .filter(|entry| !entry.belongs_to(me) && matches(&entry.range))
        .filter_map(|entry| entry.task.upgrade())
        .collect()
}

pub(super) fn others_ranges(state: &State, me: &Arc<Task>) -> Vec<AddrRange> {
    state
        .in_flight
        .iter()
        .filter(|entry| !entry.belongs_to(me) && entry.task.strong_count() > 0)
        .map(|entry| entry.range.clone())
        .collect()
}

fn hurry(tasks: &[Arc<Task>]) {
    for task in tasks {
        run::hurry(task);
    }
}
