//! What a stopped tracee's own host thread does for its tracer.

use std::sync::Arc;

use sentry_platform::{Context, HostCall, HostCallResults};
use syscalls::{Errno, SysResult};

use super::Tracee;
use crate::sync::{Events, Registration, Waiter};
use crate::task::block::Wait;
use crate::task::{CurrentTask, HandlerResult, Restart, Task, run};

/// Something to be done.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    /// Host calls.
    HostCalls(Vec<HostCall>),
    /// The extended state is wanted.
    FetchXstate,
    /// The extended state is replaced.
    LoadXstate(Vec<u8>),
}

/// Tells one request of a tracer from another, so that it recognises the answer when its call runs
/// again.
pub(crate) type Key = (u64, u64, u64);

/// The errand of a tracee.
#[derive(Default)]
pub(super) enum Slot {
    #[default]
    Idle,
    Wanted(Key, Errand),
    /// Under way: the tracer's, or one of its own.
    Running(Option<Key>),
    Done(Key, HostCallResults),
}

impl Errand {
    /// Starts it; the task is not to be touched before the event that follows.
    pub(crate) fn start(self, context: &dyn Context) {
        match self {
            Self::HostCalls(calls) => context.start_host_calls(&calls),
            Self::FetchXstate => context.start_fetch_xstate(),
            Self::LoadXstate(frame) => context.start_load_xstate(&frame),
        }
    }
}

/// Looks whether an errand has been done; asks for it where it has not been asked for.
///
/// # Errors
/// `ESRCH` where the tracee is not stopped for the caller any more.
pub(crate) fn poll(
    current: &CurrentTask,
    tracee: &Arc<Task>,
    key: Key,
    make: impl FnOnce() -> Errand,
) -> SysResult<Option<HostCallResults>> {
    {
        let mut state = tracee.ptrace.state.lock();
        if !state.is_of(current.task()) || !state.is_at_rest() {
            return Err(Errno::ESRCH);
        }
        match std::mem::take(&mut state.errand) {
            Slot::Done(done, results) if done == key => return Ok(Some(results)),
            Slot::Idle | Slot::Done(..) => state.errand = Slot::Wanted(key, make()),
            other => {
                state.errand = other;
                return Ok(None);
            }
        }
    }
    run::wake(tracee);
    Ok(None)
}

/// Registers for the end of an errand.
pub(crate) fn register(tracee: &Task, waiter: &Arc<dyn Waiter>, key: u64) -> Vec<Registration> {
    vec![tracee.ptrace.events.register(waiter, Events::IN, key)]
}

/// Has an errand done.
///
/// # Errors
/// `ESRCH` where the tracee ends; `EIO` where something of it failed.
pub(crate) fn run(
    current: &CurrentTask,
    tracee: &Tracee,
    key: Key,
    make: impl Fn() -> Errand,
) -> HandlerResult<HostCallResults> {
    let waited = current.wait_for(
        None,
        Restart::NoIntr,
        |waiter| register(tracee, waiter, 0),
        || poll(current, tracee, key, &make),
    )?;
    match waited {
        Wait::Ready(results) if results.values.iter().all(Result::is_ok) => Ok(results),
        _ => Err(Errno::EIO.into()),
    }
}
