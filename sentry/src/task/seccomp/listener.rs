//! Who decides about calls in place of the kernel: `SECCOMP_RET_USER_NOTIF` (`seccomp_unotify(2)`).
//!
//! A filter has a [`Listener`]. A call that the filter passes on becomes a [`Notice`]: its task waits as in any
//! other call until somebody has answered. Locks, from the outside inwards: a listener's list, a notice's
//! state. Tasks are woken without either.

use std::sync::{Arc, Weak};

use syscalls::abi::prctl::{SECCOMP_USER_NOTIF_FLAG_CONTINUE, SeccompData, SeccompNotifResp};
use syscalls::{Errno, SysResult};

use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::block::Wait;
use crate::task::{Control, CurrentTask, HandlerResult, Restart, Task, run};

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is served.
    Serve,
    /// It is not, and returns this.
    Return(u64),
}

/// How far a notice has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Received,
    Answered(Answer),
}

/// A call that waits for an answer.
pub(crate) struct Notice {
    pub(crate) id: u64,
    pub(crate) data: SeccompData,
    task: Weak<Task>,
    state: Mutex<State>,
}

struct Inner {
    notices: Vec<Arc<Notice>>,
    next_id: u64,
    /// Nobody listens any more.
    is_closed: bool,
    /// No task has the filter any more.
    is_alone: bool,
}

/// Where a filter's calls go.
pub(crate) struct Listener {
    inner: Mutex<Inner>,
    queue: WaitQueue,
    /// Whether a call that has been received is interrupted by fatal signals only.
    is_killable: bool,
}

impl Notice {
    /// Returns whose call it is.
    pub(crate) fn task(&self) -> Option<Arc<Task>> {
        self.task.upgrade()
    }

    fn state(&self) -> State {
        *self.state.lock()
    }

    fn answer(&self, answer: Answer) {
        *self.state.lock() = State::Answered(answer);
    }

    fn wake(&self) {
        if let Some(task) = self.task.upgrade() {
            run::wake(&task);
        }
    }
}

impl Listener {
    /// Creates a listener.
    pub(crate) fn new(is_killable: bool) -> Arc<Self> {
        let mut seed = [0; 8];
        // Where there is no randomness the numbers are merely easy to guess.
        let _ = sentry_host::random::fill(&mut seed);
        let inner = Inner {
            notices: Vec::new(),
            next_id: u64::from_ne_bytes(seed),
            is_closed: false,
            is_alone: false,
        };
        Arc::new(Self { inner: Mutex::new(inner), queue: WaitQueue::new(), is_killable })
    }

    /// Asks about a call of the caller; nothing where nobody listens.
    pub(super) fn ask(&self, current: &CurrentTask, data: &SeccompData) -> Option<Arc<Notice>> {
        let notice = {
            let mut inner = self.inner.lock();
            if inner.is_closed {
                return None;
            }
            let notice = Arc::new(Notice {
                id: inner.next_id,
                data: *data,
                task: Arc::downgrade(current.task()),
                state: Mutex::new(State::Asked),
            });
            inner.next_id = inner.next_id.wrapping_add(1);
            inner.notices.push(notice.clone());
            notice
        };
        self.queue.notify(Events::READABLE);
        Some(notice)
    }

    /// Waits for the answer: what the caller's call returns, or nothing where it is served.
    pub(super) fn wait(&self, current: &CurrentTask, notice: &Notice) -> Option<HandlerResult> {
        let answer = || match notice.state() {
            State::Answered(answer) => Ok(Some(answer)),
            State::Asked | State::Received => Ok(None),
        };
        match current.wait_for(None, Restart::Sys, |_| Vec::new(), answer) {
            Ok(Wait::Ready(Answer::Serve)) => None,
            Ok(Wait::Ready(Answer::Return(value))) => Some(Ok(value)),
            Ok(Wait::TimedOut) => Some(Err(Errno::ENOSYS.into())),
            Err(Control::Restart(_))
                if self.is_killable
                    && notice.state() == State::Received
                    && current.group.signals.lock().exit_status.is_none() =>
            {
                Some(Err(Control::Block))
            }
            Err(control) => Some(Err(control)),
        }
    }

    /// Removes a call that has been answered, or does not wait any more.
    pub(super) fn forget(&self, notice: &Arc<Notice>) {
        self.inner.lock().notices.retain(|known| !Arc::ptr_eq(known, notice));
    }

    /// Is told that no task has the filter any more.
    pub(super) fn be_alone(&self) {
        self.inner.lock().is_alone = true;
        self.queue.notify(Events::all());
    }

    /// Returns whether nobody listens any more.
    pub(super) fn is_closed(&self) -> bool {
        self.inner.lock().is_closed
    }

    /// Is told that nobody listens any more: calls do not exist from now on.
    pub(crate) fn close(&self) {
        let notices = {
            let mut inner = self.inner.lock();
            inner.is_closed = true;
            inner.notices.clone()
        };
        for notice in notices {
            if !matches!(notice.state(), State::Answered(_)) {
                notice.answer(Answer::Return(Errno::ENOSYS.to_return()));
                notice.wake();
            }
        }
    }

    /// Receives the oldest call that nobody has received, if there is one.
    ///
    /// # Errors
    /// `ENOENT` where there will never be one.
    pub(crate) fn receive(&self) -> SysResult<Option<Arc<Notice>>> {
        let notice = {
            let inner = self.inner.lock();
            let asked = inner.notices.iter().find(|notice| notice.state() == State::Asked);
            let Some(notice) = asked else {
                return if inner.is_alone { Err(Errno::ENOENT) } else { Ok(None) };
            };
            *notice.state.lock() = State::Received;
            notice.clone()
        };
        self.queue.notify(Events::WRITABLE);
        Ok(Some(notice))
    }

    /// Puts back a call that could not be told of.
    pub(crate) fn put_back(&self, notice: &Notice) {
        let is_received = {
            let _inner = self.inner.lock();
            let mut state = notice.state.lock();
            let is_received = *state == State::Received;
            if is_received {
                *state = State::Asked;
            }
            is_received
        };
        if is_received {
            self.queue.notify(Events::READABLE);
        }
    }

    /// Returns a call that has been received.
    ///
    /// # Errors
    /// `ENOENT` where there is none, `EINPROGRESS` where it has not been received or is answered.
    pub(crate) fn received(&self, id: u64) -> SysResult<Arc<Notice>> {
        let inner = self.inner.lock();
        let notice = inner.notices.iter().find(|notice| notice.id == id).ok_or(Errno::ENOENT)?;
        if notice.state() == State::Received { Ok(notice.clone()) } else { Err(Errno::EINPROGRESS) }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// `EINVAL` for flags that there are not, or a result besides `CONTINUE`; those of
    /// [`Listener::received`].
    pub(crate) fn send(&self, response: &SeccompNotifResp) -> SysResult<()> {
        let serves = response.flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE != 0;
        let has_result = response.error != 0 || response.val != 0;
        if response.flags & !SECCOMP_USER_NOTIF_FLAG_CONTINUE != 0 || (serves && has_result) {
            return Err(Errno::EINVAL);
        }
        let value = match response.error {
            0 => response.val,
            error => error.into(),
        };
        let answer = if serves { Answer::Serve } else { Answer::Return(value.cast_unsigned()) };
        let notice = {
            let inner = self.inner.lock();
            let notice = inner.notices.iter().find(|notice| notice.id == response.id);
            let notice = notice.ok_or(Errno::ENOENT)?;
            if notice.state() != State::Received {
                return Err(Errno::EINPROGRESS);
            }
            notice.answer(answer);
            notice.clone()
        };
        notice.wake();
        Ok(())
    }

    /// Returns what can be done: a call can be received, one can be answered, there will be none.
    pub(crate) fn poll(&self) -> Events {
        let inner = self.inner.lock();
        let mut ready = Events::empty();
        for notice in &inner.notices {
            ready |= match notice.state() {
                State::Asked => Events::READABLE,
                State::Received => Events::WRITABLE,
                State::Answered(_) => Events::empty(),
            };
        }
        if inner.is_alone {
            ready |= Events::HUP;
        }
        ready
    }

    /// Registers a waiter for what [`Listener::poll`] returns.
    pub(crate) fn register(
        &self,
        waiter: &Arc<dyn Waiter>,
        mask: Events,
        key: u64,
    ) -> Registration {
        self.queue.register(waiter, mask, key)
    }
}
