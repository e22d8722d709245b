//! What `MSG_MORE` and `TCP_CORK` hold back: bytes at the end of an inbox that nobody sees until a
//! segment is full, more is sent without holding it back, or some time has passed.

use std::sync::{Arc, Weak};

use super::{Conn, End, Side};
use crate::kernel::Kernel;
use crate::sync::{Events, Waiter};
use crate::time::TimerHandle;

/// How much makes a segment: over loopback half of the first window, as long as that is the largest.
const SEGMENT: usize = 32_767;

/// How long anything is held back.
const PATIENCE_NS: u64 = 200_000_000;

/// The bytes at the end of an inbox that are not to be seen yet.
#[derive(Default)]
pub(super) struct Held {
    n: usize,
    /// Whether it is an option that holds them: then an acknowledgement does not send them.
    is_corked: bool,
    /// How often bytes have begun to be held: the key of the timer, which may come too late.
    n_times: u64,
    timer: Option<TimerHandle>,
}

impl Held {
    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// Lets them be seen. Returns whether there were any.
    pub(super) fn release(&mut self) -> bool {
        self.timer = None;
        std::mem::take(&mut self.n) > 0
    }

    /// Never lets them be seen: the connection is over before they have left.
    pub(super) fn lose(&mut self) {
        self.timer = None;
        self.n_times = self.n_times.wrapping_add(1);
    }
}

impl End {
    /// Returns how many bytes can be seen.
    pub(super) fn n_visible(&self) -> usize {
        self.inbox.len().saturating_sub(self.held.len())
    }

    /// Lets be seen what an acknowledgement would send.
    pub(super) fn acknowledge(&mut self) -> bool {
        !self.held.is_corked && self.held.release()
    }
}

impl Conn {
    /// Holds back the `n` bytes that have just come into the inbox of the end `index`, where they and
    /// those before them make no segment. Returns whether there is anything new to be seen.
    pub(super) fn hold(&self, to: &mut End, index: usize, n: usize, is_corked: bool) -> bool {
        let had_any = to.held.n > 0;
        let n = to.held.n + n;
        if n >= SEGMENT {
            to.held.release();
            return true;
        }
        to.held.n = n;
        to.held.is_corked = is_corked;
        if had_any {
            return false;
        }
        let timer = self.kernel.upgrade().zip(self.this.upgrade()).map(|(kernel, this)| {
            let waiter: Arc<dyn Waiter> = this;
            to.held.n_times = to.held.n_times.wrapping_add(1);
            let key = to.held.n_times << 1 | u64::from(index == 1);
            let at_ns = kernel.clock.monotonic_ns().saturating_add(PATIENCE_NS);
            kernel.timers.schedule(at_ns, &waiter, key)
        });
        to.held.timer = timer;
        false
    }

    /// Sends what is held back: the option is off, or others ask for promptness.
    pub(in crate::net::inet::tcp) fn push(&self, side: Side) {
        let is_new = self.with(side, |own, peer| peer.unwrap_or(own).held.release());
        if is_new {
            self.notify(self.index(side).1, Events::READABLE);
        }
    }

    /// Returns what a connection of `kernel` remembers of it.
    pub(super) fn of(kernel: Option<&Arc<Kernel>>) -> Weak<Kernel> {
        kernel.map(Arc::downgrade).unwrap_or_default()
    }
}

impl Waiter for Conn {
    fn notify(&self, key: u64, _events: Events) {
        let index = usize::from(key & 1 == 1);
        let is_new = self.ends.lock().get_mut(index).is_some_and(|end| {
            // What began to be held later has a timer of its own.
            end.held.n_times == key >> 1 && end.held.release()
        });
        if is_new {
            Conn::notify(self, index, Events::READABLE);
        }
    }
}
