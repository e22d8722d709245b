//! Watching the slots of many threads that call again and again.
//!
//! Where more threads call than there are CPUs, none of them can have a CPU for its worker. What their
//! calls then cost is mostly that everybody sleeps and is woken: a thread that waits for its answer, and
//! the worker between two rings. So where rings come thick and fast from several threads, the worker
//! looks at all their slots in turn, and yields where it finds nothing; and a thread in the crowd yields
//! until its answer is there, for a while. Each gets the CPU when the others have nothing to do with it.
//! A thread whose call was blocked and is answered by another's call goes on as soon.
//!
//! As with a single thread ([`super::spin`]), nothing depends on it: who has waited too long rings, and is
//! then left out for some time. Where others want the CPUs, so that to yield is to lose it for long, or
//! where calls become rare, the crowd is dissolved, and not gathered again too soon.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use sentry_sysmsg::slot::LOST_TICKS;

use super::context::SystrapContext;
use super::spin::{self, Found, Taken};
use super::{Inner, Job, serve};

/// A crowd gathers when so many rings, of which so many did not come from the thread that rang before,
/// have taken no longer than so many ticks of the time-stamp counter each: about 20 µs.
const RINGS: u32 = 32;
const MIN_CHANGES: u32 = 8;
const RING_TICKS: u64 = 50_000;
/// How many threads it has at most.
const MAX_MEMBERS: usize = 64;
/// How long the worker looks without a find: about 48 µs, and about 240 µs before so many finds, when threads
/// still are on their way into the crowd.
const PATIENCE_TICKS: u64 = 120_000;
const START_PATIENCE_TICKS: u64 = 600_000;
const START_HITS: u32 = 64;
/// After how many finds in a row of the same thread this is no crowd.
const MAX_SAME: u32 = 128;
/// How often it looks for rings: where it finds nothing, and after so many finds.
const MAX_UNPOLLED: u32 = 8;
const POLL_TICKS: u64 = 20_000;
/// How long it serves before it yields to those that wait for its CPU with an answer: about 20 µs.
const TURN_TICKS: u64 = 50_000;
/// How long there is no other crowd after one that was not worth it: from about 4 ms to about 1 s.
const MIN_REST_TICKS: u64 = 10_000_000;
const MAX_REST_TICKS: u64 = 2_500_000_000;
/// After how many finds a crowd was worth it, and how many make up for one loss of a CPU.
const GOOD_HITS: u32 = 256;
const HITS_PER_LOSS: u32 = 2048;

/// What a worker knows of those that ring, and whom it watches.
#[derive(Debug)]
pub(super) struct Crowd {
    members: Vec<Arc<SystrapContext>>,
    is_active: bool,
    /// The number of rings since that time, how many were not of who rang before, and who that was.
    rings: u32,
    since: u64,
    changes: u32,
    last: usize,
    /// Whose turn it is to be looked at.
    next: usize,
    found_at: u64,
    yielded_at: u64,
    polled_at: u64,
    /// How many finds there were since it looked for rings.
    unpolled: u32,
    hits: u32,
    /// How many of the last ones were of the same thread.
    same: u32,
    /// How often the worker has lost the CPU to who is not in the crowd.
    losses: u32,
    rest: u64,
    rests_until: u64,
}

impl Crowd {
    /// Nobody.
    pub(super) fn new() -> Self {
        Self {
            members: Vec::new(),
            is_active: false,
            rings: 0,
            since: 0,
            changes: 0,
            last: 0,
            next: 0,
            found_at: 0,
            yielded_at: 0,
            polled_at: 0,
            unpolled: 0,
            hits: 0,
            same: 0,
            losses: 0,
            rest: MIN_REST_TICKS,
            rests_until: 0,
        }
    }

    /// Returns whether there is one.
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Notes that a thread has rung, and whether another one alone is watched meanwhile; returns whether that
    /// begins a crowd.
    pub(super) fn rang(
        &mut self,
        inner: &Inner,
        context: &Arc<SystrapContext>,
        is_second: bool,
    ) -> bool {
        if self.is_active {
            self.found_at = spin::ticks();
            let is_member = context.is_announced() && context.is_in_crowd_of(serve::own_tid());
            if is_member && self.hits >= START_HITS {
                context.note_vain();
                self.remove(inner, context);
            }
            return false;
        }
        let who = Arc::as_ptr(context).addr();
        self.changes += u32::from(is_second || who != self.last);
        self.last = who;
        self.rings += 1;
        if self.rings < RINGS {
            return false;
        }
        let now = spin::ticks();
        let quick = now.saturating_sub(self.since) < u64::from(RINGS) * RING_TICKS;
        let mixed = self.changes >= MIN_CHANGES;
        (self.since, self.rings, self.changes) = (now, 0, 0);
        // Without a number of its CPU a stub does not watch either.
        self.is_active = quick && mixed && now > self.rests_until && context.cpu() != 0;
        (self.found_at, self.hits, self.same, self.losses) = (now, 0, 0, 0);
        self.is_active
    }

    /// Takes in a thread whose call has been served.
    pub(super) fn served(&mut self, context: &Arc<SystrapContext>) {
        if self.members.len() < MAX_MEMBERS && context.join_crowd(serve::own_tid()) {
            self.members.push(Arc::clone(context));
        }
    }

    /// Looks at everybody until there is something to do; the caller has the lead.
    pub(super) fn look(&mut self, inner: &Inner) -> Found {
        let is_starting = self.hits < START_HITS;
        let patience = if is_starting { START_PATIENCE_TICKS } else { PATIENCE_TICKS };
        loop {
            let now = spin::ticks();
            if self.unpolled >= MAX_UNPOLLED {
                self.unpolled = 0;
                if inner.doorbell.has_ring() {
                    return Found::Other;
                }
            }
            if let Some((context, event)) = self.find() {
                self.unpolled += 1;
                self.found_at = now;
                if context.has_lost_cpu() {
                    context.note_vain();
                    self.remove(inner, &context);
                }
                if self.same > MAX_SAME {
                    self.dissolve(inner);
                } else if now.saturating_sub(self.yielded_at) > TURN_TICKS {
                    self.give_way(now);
                }
                return Found::Event((context, event));
            }
            if inner.has_jobs() {
                return Found::Other;
            }
            if self.is_costly() || now.saturating_sub(self.found_at) > patience {
                self.dissolve(inner);
                return Found::Nothing;
            }
            let poll = is_starting || inner.n_waiting.load(SeqCst) != 0;
            if poll || now.saturating_sub(self.polled_at) > POLL_TICKS {
                (self.polled_at, self.unpolled) = (now, 0);
                if inner.doorbell.has_ring() {
                    return Found::Other;
                }
            }
            self.give_way(now);
        }
    }

    /// Lets others run.
    fn give_way(&mut self, now: u64) {
        std::thread::yield_now();
        self.yielded_at = spin::ticks();
        if self.yielded_at.saturating_sub(now) > LOST_TICKS {
            self.losses += 1;
        }
    }

    /// Returns the next request that is there.
    fn find(&mut self) -> Option<Taken> {
        let n = self.members.len();
        let start = if self.next < n { self.next } else { 0 };
        for i in (start..n).chain(0..start) {
            let Some(context) = self.members.get(i) else { continue };
            if context.is_announced()
                && context.has_posted()
                && let Some(event) = context.posted()
            {
                context.note_hit();
                self.hits = self.hits.saturating_add(1);
                self.same = if self.next == i + 1 { self.same + 1 } else { 0 };
                self.next = i + 1;
                return Some((Arc::clone(context), event));
            }
        }
        None
    }

    fn remove(&mut self, inner: &Inner, context: &Arc<SystrapContext>) {
        self.members.retain(|member| !Arc::ptr_eq(member, context));
        leave(inner, context);
    }

    /// Returns whether to yield costs more than to sleep would.
    fn is_costly(&self) -> bool {
        self.losses.saturating_mul(HITS_PER_LOSS) > self.hits
    }

    /// Watches nobody any more.
    pub(super) fn dissolve(&mut self, inner: &Inner) {
        if !std::mem::take(&mut self.is_active) {
            return;
        }
        for context in std::mem::take(&mut self.members) {
            leave(inner, &context);
        }
        if self.hits >= GOOD_HITS && !self.is_costly() {
            self.rest = MIN_REST_TICKS;
        } else {
            self.rests_until = spin::ticks().saturating_add(self.rest);
            self.rest = (self.rest * 2).min(MAX_REST_TICKS);
        }
    }
}

/// Lets a thread ring again; what it has posted meanwhile is left for who serves next.
fn leave(inner: &Inner, context: &Arc<SystrapContext>) {
    if context.is_in_crowd_of(serve::own_tid())
        && let Some(event) = context.unwatch()
    {
        inner.queue(Job::Event(Arc::clone(context), event));
    }
}
