//! The end of a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sentry_sysmsg::slot;
use syscalls::{Errno, SysResult};

use super::{Phase, SystrapContext};
use crate::systrap::{Job, lock};

/// How a context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::systrap) enum Finish {
    /// Some time ago.
    Before,
    /// Now, because its owner wanted it to.
    AsTold,
    /// Now, and its owner does not know.
    ByItself,
}

impl SystrapContext {
    /// Ends the context: `Exited` is delivered soon. Idempotent.
    pub(in crate::systrap) fn die(self: &Arc<Self>, signal: i32) {
        if self.finish() != Finish::Before {
            self.inner.post(Job::Exited(Arc::clone(self), signal));
        }
    }

    /// Ends the context but for the delivery of `Exited`, which the caller sees to.
    pub(in crate::systrap) fn finish(self: &Arc<Self>) -> Finish {
        let (births, how) = {
            let mut state = lock(&self.state);
            if state.phase == Phase::Dead {
                return Finish::Before;
            }
            state.phase = Phase::Dead;
            self.set_running(false);
            self.take_ring(&mut state);
            let sent = state.birth.take();
            let births = state.births.drain(..).chain(sent).collect::<Vec<_>>();
            (births, if state.told_to_exit { Finish::AsTold } else { Finish::ByItself })
        };
        for child in births {
            self.inner.stillborn(&child);
        }
        self.inner.forget(self);
        how
    }

    /// Tells the stub to end the thread: `last` with the process. The first thread sleeps until then: the
    /// host forgets the memory of a process under the id of a thread that has ended.
    pub(in crate::systrap) fn send_exit(&self, last: bool) -> SysResult<()> {
        let reply = match last {
            true => slot::REPLY_EXIT_GROUP,
            false if self.tid().cast_signed() == self.space.pid() => slot::REPLY_SLEEP,
            false => slot::REPLY_EXIT,
        };
        let mut state = lock(&self.state);
        if state.phase != Phase::Stopped {
            return Err(Errno::ESRCH);
        }
        self.slot.n_calls.store(0, Relaxed);
        self.slot.reply.store(reply, Relaxed);
        state.phase = Phase::Running;
        state.expects_outcome = true;
        state.told_to_exit = true;
        self.publish(&state);
        // Nobody waits for what the host still has to do, least of all on this CPU.
        self.answer_ring_with(&mut state, false);
        Ok(())
    }
}
