//! Blocking: the one primitive.
//!
//! A handler tries, registers with the wait queues that may change the answer, tries again, and
//! returns [`Control::Block`]. The serving thread then leaves the task alone, so a blocked guest
//! thread costs no thread of the sentry. When an event, the deadline or a signal comes, the same
//! handler runs again from its beginning with the same arguments; what it must remember between
//! runs (the absolute deadline, bytes already transferred) stands in the task's [`Block`], never
//! on a stack. That is also what makes every blocked call visible to pause and checkpoint.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::SysResult;

use super::{Control, CurrentTask, Restart, Task, run};
use crate::sync::{Events, Registration, Waiter};
use crate::time::TimerHandle;

/// What a blocked task waits for and remembers.
#[derive(Default)]
pub(crate) struct Block {
    registrations: Vec<Registration>,
    /// The deadline on the host's monotonic clock, in nanoseconds; fixed by the first run.
    deadline_ns: Option<u64>,
    timer: Option<TimerHandle>,
    /// What the handler remembers between runs.
    memory: Option<Box<dyn Any + Send>>,
}

/// The end of a wait that was not interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait<T> {
    /// The attempt succeeded.
    Ready(T),
    /// The deadline passed first.
    TimedOut,
}

impl CurrentTask {
    /// Waits until `attempt` returns something.
    ///
    /// `deadline_ns` (host monotonic clock) counts on the first run only; later runs of the same
    /// call keep it. `register` puts the task's waiter into the queues that announce a change.
    /// `restart` says what a signal does to the call.
    ///
    /// # Errors
    /// What `attempt` fails with; `Control::Block`, which the handler passes on; and
    /// `Control::Restart` where a signal is pending.
    pub fn wait_for<T>(
        &self,
        deadline_ns: Option<u64>,
        restart: Restart,
        register: impl FnOnce(&Arc<dyn Waiter>) -> Vec<Registration>,
        mut attempt: impl FnMut() -> SysResult<Option<T>>,
    ) -> Result<Wait<T>, Control> {
        // Registrations of an earlier run are dropped outside the lock: they take queue locks.
        if self.block.is_set() {
            let old = std::mem::take(&mut self.block.lock().registrations);
            drop(old);
        }
        if let Some(value) = attempt()? {
            return Ok(Wait::Ready(value));
        }
        let deadline_ns = {
            let mut block = self.block.lock();
            if block.deadline_ns.is_none() {
                block.deadline_ns = deadline_ns;
            }
            block.deadline_ns
        };
        if let Some(deadline_ns) = deadline_ns
            && self.kernel.clock.monotonic_ns() >= deadline_ns
        {
            return Ok(Wait::TimedOut);
        }
        if self.has_attention() {
            return Err(Control::Restart(restart));
        }
        let waiter: Arc<dyn Waiter> = self.task().clone();
        let registrations = register(&waiter);
        if let Some(value) = attempt()? {
            return Ok(Wait::Ready(value));
        }
        let mut block = self.block.lock();
        block.registrations = registrations;
        if let Some(deadline_ns) = deadline_ns
            && block.timer.is_none()
        {
            block.timer = Some(self.kernel.timers.schedule(deadline_ns, &waiter, 0));
        }
        drop(block);
        self.n_waits.fetch_add(1, Ordering::Relaxed);
        self.kernel.n_waits.fetch_add(1, Ordering::Relaxed);
        Err(Control::Block)
    }

    /// Returns the deadline that the first run of the present call set.
    pub fn block_deadline_ns(&self) -> Option<u64> {
        self.block.is_set().then(|| self.block.lock().deadline_ns).flatten()
    }

    /// Gives the present call its deadline, for `restart_syscall(2)`.
    pub(crate) fn set_block_deadline(&self, deadline_ns: Option<u64>) {
        self.block.lock().deadline_ns = deadline_ns;
    }

    /// Remembers a value for the next run of the same call.
    pub fn remember<T: Any + Send>(&self, value: T) {
        self.block.lock().memory = Some(Box::new(value));
    }

    /// Takes back what an earlier run of the same call remembered.
    pub fn recall<T: Any + Send>(&self) -> Option<T> {
        if !self.block.is_set() {
            return None;
        }
        let mut block = self.block.lock();
        let memory = block.memory.take()?;
        match memory.downcast() {
            Ok(value) => Some(*value),
            Err(memory) => {
                block.memory = Some(memory);
                None
            }
        }
    }

    /// Forgets everything about a call that has ended.
    pub(crate) fn end_block(&self) {
        drop(self.block.take());
    }

    /// Returns whether a signal, a stop or a kill is waiting to be handled.
    pub fn has_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst) && self.wants_attention()
    }
}

impl Waiter for Task {
    fn notify(&self, _key: u64, _events: Events) {
        if let Some(task) = self.this.upgrade() {
            run::wake(&task);
        }
    }
}
