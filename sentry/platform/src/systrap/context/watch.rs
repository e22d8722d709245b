//! What a worker that watches slots needs of a context: see [`crate::systrap::spin`].

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use sentry_sysmsg::slot;

use super::{Phase, SystrapContext};
use crate::Event;
use crate::systrap::{lock, spin};

/// A thread that has waited in vain so many times more than it has not is left out for 2^this calls.
const MAX_VAIN: u32 = 10;
/// So many calls that were answered in time make up for all that were not.
const GOOD_HITS: u32 = 1024;

/// How a thread has fared in crowds.
#[derive(Debug, Default)]
pub(super) struct CrowdRecord {
    /// The worker whose crowd it is in, by its host id.
    worker: AtomicU32,
    /// How many of its requests have been seen since it joined.
    hits: AtomicU32,
    /// How often it has rung all the same.
    vain: AtomicU32,
    /// How many calls it is left out for that.
    left_out: AtomicU32,
}

impl SystrapContext {
    /// Returns whether the slot is watched, or will be.
    pub(in crate::systrap) fn is_watched(&self) -> bool {
        self.watch.load(Relaxed) != 0
    }

    /// Returns whether the stub knows that its slot is watched.
    pub(in crate::systrap) fn is_announced(&self) -> bool {
        self.announced.load(Relaxed)
    }

    /// Returns whether the stub has the word, as far as the thread knows that has served it last.
    pub(in crate::systrap) fn is_conversing(&self) -> bool {
        self.answered.load(Relaxed) == self.taken.load(Relaxed)
    }

    /// Lets the next reply say that the slot is watched, in the way that `how` says.
    pub(in crate::systrap) fn watch(&self, how: u32) {
        let _state = lock(&self.state);
        self.watch.store(how, Relaxed);
    }

    /// Tells the stub on which CPU its watcher spins.
    pub(in crate::systrap) fn announce(&self, cpu: u32) {
        if self.watch.load(Relaxed) != cpu {
            self.watch.store(cpu, Relaxed);
            self.slot.turn.watched.store(cpu, SeqCst);
        }
    }

    /// Stops to watch the slot. Returns a request that its thread may not ring for.
    pub(in crate::systrap) fn unwatch(&self) -> Option<Event> {
        let mut state = lock(&self.state);
        self.watch.store(0, Relaxed);
        self.slot.turn.watched.store(0, SeqCst);
        let seq = self.slot.seq.load(SeqCst);
        let posted = state.phase == Phase::Running && seq != state.taken;
        (self.announced.swap(false, Relaxed) && posted).then(|| self.accept(seq, &mut state))?
    }

    /// Returns whether there seems to be a request.
    pub(in crate::systrap) fn has_posted(&self) -> bool {
        self.slot.seq.load(Acquire) != self.taken.load(Relaxed)
    }

    /// Takes a request without a ring: returns the event that it is, if it is one.
    pub(in crate::systrap) fn posted(&self) -> Option<Event> {
        spin::fetch_request(&self.slot);
        let mut state = lock(&self.state);
        let seq = self.slot.seq.load(Acquire);
        if state.phase != Phase::Running || seq == state.taken {
            return None;
        }
        self.accept(seq, &mut state)
    }

    /// Returns whether the slot is watched together with others.
    pub(in crate::systrap) fn is_in_crowd(&self) -> bool {
        self.watch.load(Relaxed) == slot::WATCHED_CROWD
    }

    /// Returns whether the slot is in the crowd of this worker.
    pub(in crate::systrap) fn is_in_crowd_of(&self, worker: u32) -> bool {
        self.is_in_crowd() && self.crowd.worker.load(Relaxed) == worker
    }

    /// Lets the next reply say that the slot is watched by a worker together with others, unless the thread
    /// has waited for that in vain too often; returns whether it will.
    pub(in crate::systrap) fn join_crowd(&self, worker: u32) -> bool {
        let record = &self.crowd;
        let left_out = record.left_out.load(Relaxed);
        if left_out != 0 {
            record.left_out.store(left_out - 1, Relaxed);
            return false;
        }
        record.worker.store(worker, Relaxed);
        record.hits.store(0, Relaxed);
        self.slot.lost_cpu.store(0, Relaxed);
        self.watch(slot::WATCHED_CROWD);
        true
    }

    /// Returns whether the thread has lost its CPU for long when it yielded.
    pub(in crate::systrap) fn has_lost_cpu(&self) -> bool {
        self.slot.lost_cpu.load(Relaxed) != 0 && self.slot.lost_cpu.swap(0, Relaxed) != 0
    }

    /// Notes that a request was seen in a crowd.
    pub(in crate::systrap) fn note_hit(&self) {
        let hits = self.crowd.hits.load(Relaxed);
        self.crowd.hits.store(hits.saturating_add(1), Relaxed);
    }

    /// Notes that a thread in a crowd has rung because its answer took too long.
    pub(in crate::systrap) fn note_vain(&self) {
        let record = &self.crowd;
        let before =
            if record.hits.load(Relaxed) >= GOOD_HITS { 0 } else { record.vain.load(Relaxed) };
        let vain = (before + 1).min(MAX_VAIN);
        record.vain.store(vain, Relaxed);
        record.left_out.store(1 << vain, Relaxed);
    }
}
