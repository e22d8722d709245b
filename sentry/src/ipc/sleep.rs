//! Who waits at an object of System V IPC, and what comes of it.
//!
//! Whoever makes the awaited thing happen also finishes the sleeper's call, under the lock of the object's
//! table, and stores the [`outcome`](Sleeper::outcome): so a call that has slept is never made a second time
//! although its handler runs again, and calls end in the order of Linux.

use std::sync::{Arc, Weak};

use crate::sync::Mutex;
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, Restart, Task, run};
use std::sync::atomic::Ordering;

/// An object at which one sleeps.
pub(crate) trait Bed: Clone + Send + Sync + Sized + 'static {
    /// What a sleeper waits for.
    type Wish: Send + Sync;
    /// What it is given.
    type Outcome: Send;

    /// Forgets a sleeper.
    fn forget(&self, sleeper: &Arc<Sleeper<Self>>);
}

/// One who waits.
pub(crate) struct Sleeper<B: Bed> {
    task: Weak<Task>,
    pub(super) wish: B::Wish,
    pub(super) outcome: Mutex<Option<B::Outcome>>,
}

/// A sleeper's place at an object, left when dropped.
pub(crate) struct Place<B: Bed> {
    bed: B,
    sleeper: Arc<Sleeper<B>>,
}

/// The tasks to be woken as soon as no lock is held, and those to be let go of only then: the last reference
/// to a task gives up its place, which takes the lock.
#[derive(Default)]
pub(crate) struct ToWake {
    woken: Vec<Arc<Task>>,
    others: Vec<Arc<Task>>,
}

/// How a sleep ended.
pub(crate) enum End<O> {
    /// Somebody finished the call.
    Outcome(O),
    /// The deadline passed.
    TimedOut,
    /// A signal came.
    Interrupted,
}

impl<B: Bed> Sleeper<B> {
    /// Creates a sleeper for the caller.
    pub(super) fn new(task: &CurrentTask, wish: B::Wish) -> Arc<Self> {
        Arc::new(Self { task: Arc::downgrade(task.task()), wish, outcome: Mutex::new(None) })
    }

    /// Returns whether nobody will ever see the outcome.
    pub(super) fn is_dead(&self, to_wake: &mut ToWake) -> bool {
        let Some(task) = self.task.upgrade() else { return true };
        let is_dead = task.exiting.load(Ordering::SeqCst);
        to_wake.others.push(task);
        is_dead
    }

    /// Finishes the sleeper's call.
    pub(super) fn finish(&self, outcome: B::Outcome, to_wake: &mut ToWake) {
        *self.outcome.lock() = Some(outcome);
        to_wake.woken.extend(self.task.upgrade());
    }
}

impl<B: Bed> Place<B> {
    /// Returns the place of a sleeper that has been put there.
    pub(super) fn new(bed: B, sleeper: Arc<Sleeper<B>>) -> Self {
        Self { bed, sleeper }
    }

    /// Returns who sleeps here.
    pub(super) fn sleeper(&self) -> &Arc<Sleeper<B>> {
        &self.sleeper
    }
}

impl<B: Bed> Drop for Place<B> {
    fn drop(&mut self) {
        if self.sleeper.outcome.lock().is_none() {
            self.bed.forget(&self.sleeper);
        }
    }
}

impl ToWake {
    /// Wakes them. No lock is held.
    pub(super) fn wake(self) {
        for task in self.woken {
            run::wake(&task);
        }
    }
}

/// Sleeps at a place until the deadline, which counts in the first run of a call only.
///
/// # Errors
/// `Control::Block`, after which the next run finds the place with [`CurrentTask::recall`].
pub(crate) fn sleep<B: Bed>(
    task: &CurrentTask,
    place: Place<B>,
    deadline_ns: Option<u64>,
) -> Result<End<B::Outcome>, Control> {
    let sleeper = place.sleeper.clone();
    let waited = task.wait_for(
        deadline_ns,
        Restart::NoHand,
        |_| Vec::new(),
        || Ok(sleeper.outcome.lock().is_some().then_some(())),
    );
    if let Err(Control::Block) = waited {
        task.remember(place);
        return Err(Control::Block);
    }
    // From here on nobody finishes the call any more, unless it has been finished.
    drop(place);
    let outcome = sleeper.outcome.lock().take();
    match (outcome, waited) {
        (Some(outcome), _) => Ok(End::Outcome(outcome)),
        (None, Ok(Wait::TimedOut)) => Ok(End::TimedOut),
        (None, Ok(Wait::Ready(())) | Err(Control::Restart(_))) => Ok(End::Interrupted),
        (None, Err(control)) => Err(control),
    }
}
