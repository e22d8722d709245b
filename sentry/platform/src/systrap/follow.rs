//! Keeping to the CPU of a thread that rings again and again by messages.
//!
//! A notification wakes the receiver on the CPU of who rings, and the answer brings that thread back
//! there: two switches. A message and a futex wake each other's sleeper wherever a CPU is idle, which
//! costs many times as much. So a receiver whose rings come from one thread alone moves to that
//! thread's CPU and says so, and the thread then does not sleep, but yields. Only time depends on it:
//! the thread sleeps after a while, and tells by that that it does not help.

use std::sync::{Arc, Weak};

use super::Inner;
use super::context::SystrapContext;
use super::doorbell::Kind;

/// After how many rings of one thread alone the receiver follows it, and after how many where that
/// has not helped.
const MIN_RINGS: u32 = 4;
const MAX_RINGS: u32 = 256;

/// What a worker knows of who rang last.
#[derive(Debug)]
pub(super) struct Follower {
    last: Weak<SystrapContext>,
    /// How many rings have come from it in turn, and how many it takes.
    rings: u32,
    needed: u32,
    /// The CPU that this thread keeps to, plus one, or zero.
    cpu: u32,
}

impl Follower {
    /// A worker that follows nobody.
    pub(super) fn new() -> Self {
        Self { last: Weak::new(), rings: 0, needed: MIN_RINGS, cpu: 0 }
    }

    /// Notes that `context` has rung.
    pub(super) fn rang(&mut self, inner: &Inner, context: &Arc<SystrapContext>) {
        if inner.doorbell.kind() != Kind::Futex {
            return;
        }
        if self.last.as_ptr() != Arc::as_ptr(context) {
            self.stop(inner);
            self.last = Arc::downgrade(context);
            return;
        }
        if self.cpu != 0 && !context.is_followed() {
            self.stop(inner);
            self.needed = (self.needed * 2).min(MAX_RINGS);
        }
        self.rings = self.rings.saturating_add(1);
        let cpu = context.cpu();
        if self.rings < self.needed || cpu == 0 {
            return;
        }
        if self.rings > 4 * MAX_RINGS {
            self.needed = MIN_RINGS;
        }
        if self.cpu != cpu {
            inner.cpus.join(cpu);
            self.cpu = cpu;
            context.follow(cpu);
        }
    }

    /// Follows nobody any more.
    pub(super) fn stop(&mut self, inner: &Inner) {
        self.rings = 0;
        if self.cpu != 0 {
            self.cpu = 0;
            inner.cpus.settle();
            if let Some(context) = self.last.upgrade() {
                context.follow(0);
            }
        }
    }
}
