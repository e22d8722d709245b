//! Host calls that are under way, and what they must not be mixed with.
//!
//! An operation changes the areas at once, while the host follows when the task goes on. For a
//! process with one thread nothing can come between. Where an address space is shared, the ranges
//! of an operation are *in flight* until the task's next event proves that its calls have been
//! made: new mappings are placed elsewhere, and an operation of another task that names such a
//! range waits, after interrupting the task that it waits for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::MemoryManager;
use super::space::{Plan, Undo};
use super::vma::AddrRange;
use crate::sync::Mutex;
use crate::task::Task;

/// The part of a task that memory operations need.
#[derive(Default)]
pub(crate) struct TaskMemory {
    /// Whether `undo` or the address space's list holds something of this task.
    dirty: AtomicBool,
    /// How to undo the host calls that are queued or under way.
    pub(super) undo: Mutex<Vec<Undo>>,
}

/// A range on which a task's host calls are under way.
pub(super) struct InFlight {
    /// The task.
    pub(super) task: Weak<Task>,
    /// The range.
    pub(super) range: AddrRange,
}

impl InFlight {
    pub(super) fn belongs_to(&self, task: &Arc<Task>) -> bool {
        std::ptr::eq(self.task.as_ptr(), Arc::as_ptr(task))
    }
}

impl TaskMemory {
    pub(super) fn mark(&self) {
        self.dirty.store(true, Ordering::Relaxed);
    }
}

/// Is told that an event of `task` has arrived, so that its host calls have been made.
pub(crate) fn retire(task: &Arc<Task>) {
    if !task.memory.dirty.load(Ordering::Relaxed) {
        return;
    }
    task.memory.dirty.store(false, Ordering::Relaxed);
    let done = {
        let mut undo = task.memory.undo.lock();
        if undo.iter().all(|entry| entry.old.is_empty()) {
            undo.clear();
            Vec::new()
        } else {
            std::mem::take(&mut *undo)
        }
    };
    // Areas are dropped without the lock: the last user of a file closes it.
    drop(done);
    let mm = task.mm();
    mm.retire(task);
}

/// Takes the memory from a task that ends. What its last call has planned, the host will not do.
pub(crate) fn leave(task: &Arc<Task>) {
    let undo = std::mem::take(&mut *task.memory.undo.lock());
    let mm = std::mem::replace(&mut *task.mm.lock(), MemoryManager::new());
    if !undo.is_empty() {
        let mut state = mm.state.lock();
        let mut plan = Plan { calls: &mut Vec::new(), undo: &mut Vec::new() };
        state.space.recover(0, false, undo, &mut plan);
    }
    mm.retire(task);
}

impl MemoryManager {
    /// Forgets what is in flight of `task`, whose host calls have been made or never will be.
    pub(crate) fn retire(&self, task: &Arc<Task>) {
        let mut state = self.state.lock();
        if state.in_flight.is_empty() {
            return;
        }
        state.in_flight.retain(|entry| !entry.belongs_to(task) && entry.task.strong_count() > 0);
        drop(state);
        self.retired.notify(crate::sync::Events::IN);
    }
}
