//! What the control server has done on threads beside its own.

use std::sync::Arc;

use super::message::StartError;
use super::server::{ContainerTarget, ControlTarget, ExecProcess, StatusNotifier};
use crate::sync::Mutex;

/// What is done for a client on a thread of its own: file systems have a part in it, which may be slow,
/// and only this client and this container shall wait for them.
pub(super) struct Job {
    target: Arc<dyn ControlTarget>,
    notifier: StatusNotifier,
    state: Mutex<JobState>,
}

enum JobState {
    Running,
    Done(Outcome),
    /// Done and taken, or of a client that is gone.
    Over,
}

/// What a job has made.
pub(super) enum Outcome {
    Container(Result<Arc<dyn ContainerTarget>, StartError>),
    Process(Result<Arc<dyn ExecProcess>, StartError>),
}

impl Job {
    /// Creates a job that is not done.
    pub(super) fn new(target: Arc<dyn ControlTarget>, notifier: StatusNotifier) -> Self {
        Self { target, notifier, state: Mutex::new(JobState::Running) }
    }

    /// Leaves what has been made for the client, where there still is one.
    pub(super) fn finish(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        if let JobState::Over = *state {
            drop(state);
            self.undo(outcome);
            return;
        }
        *state = JobState::Done(outcome);
        drop(state);
        self.notifier.notify();
    }

    /// Takes what has been made, once it has.
    pub(super) fn take(&self) -> Option<Outcome> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, JobState::Over) {
            JobState::Done(outcome) => Some(outcome),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Wants nothing any more.
    pub(super) fn abandon(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), JobState::Over);
        if let JobState::Done(outcome) = state {
            self.undo(outcome);
        }
    }

    fn undo(&self, outcome: Outcome) {
        match outcome {
            Outcome::Container(Ok(container)) => self.target.remove(&container),
            Outcome::Process(Ok(process)) => process.kill(),
            Outcome::Container(Err(_)) | Outcome::Process(Err(_)) => {}
        }
    }
}
