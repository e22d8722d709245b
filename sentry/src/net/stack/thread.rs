//! The thread of the stack: receives, and does what is due. It sleeps while there is nothing to do.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use sentry_host::control::event_clear;
use sentry_host::nic::{self, BATCH, Frames};

use super::Stack;
use super::link::Link;
use super::resolver::Resolver;
use super::timers::NEVER;

/// How many batches are received from one interface before the timers are looked at.
const MAX_BATCHES: usize = 16;

impl Stack {
    /// Serves the interfaces for ever.
    pub(super) fn serve(self: &Arc<Self>) {
        let mut frames = Frames::default();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.event.as_fd()];
        fds.extend(self.nics.iter().map(|nic| nic.socket.as_fd()));
        fds.extend(self.resolver.iter().map(Resolver::as_fd));
        loop {
            let Ok(ready) = nic::wait(&fds, self.timeout_ms()) else { continue };
            let mut ready = ready.into_iter();
            if ready.next() == Some(true) {
                event_clear(self.event.as_fd());
            }
            for (place, _) in ready.enumerate().filter(|(_, is_ready)| *is_ready) {
                if place < self.nics.len() {
                    self.receive(place, &mut frames);
                } else {
                    self.hear_resolver(&mut frames);
                }
            }
            self.do_what_is_due();
        }
    }

    fn timeout_ms(&self) -> i32 {
        let neighbors = self.neighbors.due_at_ns().unwrap_or(NEVER);
        match self.timers.sleep_until(neighbors) {
            NEVER => -1,
            at_ns => {
                let left_ns = at_ns.saturating_sub(self.now_ns());
                i32::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX)
            }
        }
    }

    fn receive(&self, place: usize, frames: &mut Frames) {
        let Some(nic) = self.nics.get(place) else { return };
        let mut touched: Vec<Arc<Link>> = Vec::new();
        for _ in 0..MAX_BATCHES {
            // An interface that is down has nothing to say.
            let Ok(n) = frames.receive(nic.socket.as_fd()) else { return };
            for frame in frames.iter_mut() {
                self.input(place, frame, &mut touched);
            }
            for link in touched.drain(..) {
                link.answer();
            }
            if n < BATCH {
                return;
            }
        }
    }

    fn do_what_is_due(&self) {
        let now_ns = self.now_ns();
        for link in self.timers.due(now_ns) {
            link.tick();
        }
        let due = self.neighbors.due(now_ns);
        for key in due.questions {
            self.ask_for(key);
        }
        for frame in due.lost {
            self.report_unreachable(&frame);
        }
    }
}
