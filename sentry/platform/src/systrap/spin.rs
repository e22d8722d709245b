//! Watching the slot of a thread that calls again and again, instead of waiting for its rings.
//!
//! A worker that spins on another CPU than the stub sees a request after a cache miss, where a ring
//! takes two context switches. It costs a CPU, so it is a budget: only for a thread whose last
//! calls came in quick succession, only while fewer threads run than there are CPUs, for a short time
//! after each reply, and less readily each time that it did not pay. A synchronous ring has put
//! the worker on the stub's own CPU, so the worker moves away before it spins, and while it does
//! its answers to rings leave the stub where it is.
//!
//! Nothing depends on it. The stub rings where its slot is not watched, and where it gets no answer
//! for as long as it would spin. Who stops to watch looks at the request number once more
//! afterwards, and the stub looks at `watched` after it has changed that number: one sees the other.
//!
//! # Safety
//! The instructions that read the processor's clock touch no memory but a local.
#![expect(unsafe_code, reason = "reads the processor's clock")]

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use sentry_host::clock::{self, Clock};
use sentry_sysmsg::slot::{LOST_TICKS, START_SPINS, Slot, WATCHED_ANYWHERE};

use super::context::SystrapContext;
use super::crowd::Crowd;
use super::{Inner, Job, serve};
use crate::Event;

/// How long both sides wait at most, in ticks of the time-stamp counter: about 20 µs.
const SPIN_TICKS: u64 = 50_000;
/// A thread whose next call comes later than this is not worth it.
pub(super) const WORTH_TICKS: u64 = 20_000;
/// How often a spinning worker looks for rings of other threads.
const POLL_TICKS: u64 = 10_000;
/// A call that is served for this long may have made its thread ring.
const RING_TICKS: u64 = 30_000;
/// How long it then leaves the CPUs to others: about 4 ms.
const REST_TICKS: u64 = 10_000_000;
/// How many calls must have come in quick succession.
const MIN_STREAK: u32 = 8;
pub(super) const MAX_STREAK: u32 = 128;
/// After how many hits a session has paid.
const GOOD_SESSION: u32 = 64;
/// The part of what the processor says that is the number of the CPU.
pub(super) const CPU_NUMBER: u32 = 0xfff;

/// Returns how long stubs spin: not at all where the processor cannot tell time and CPU at once, or
/// where there is only one CPU.
pub(super) fn stub_ticks() -> u64 {
    if has_rdtscp() && Cpus::of_this_process().n > 1 { SPIN_TICKS } else { 0 }
}

fn has_rdtscp() -> bool {
    const EXTENDED: u32 = 0x8000_0001;
    std::arch::x86_64::__cpuid(0x8000_0000).eax >= EXTENDED
        && std::arch::x86_64::__cpuid(EXTENDED).edx & 1 << 27 != 0
}

/// Returns the time-stamp counter.
pub(super) fn ticks() -> u64 {
    // SAFETY: no memory is involved.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Returns for how long a stub whose request was taken at `taken` has watched for the answer of now.
pub(super) fn watched_since(taken: u64, now: u64) -> u64 {
    now.saturating_sub(taken).min(SPIN_TICKS)
}

/// Counts what a thread has spent watching for answers as system time, which it is to the application:
/// the host cannot tell.
pub(super) fn as_system((user, system): (u64, u64), spun_ns: u64) -> (u64, u64) {
    let spun_ns = spun_ns.min(user);
    (user - spun_ns, system.saturating_add(spun_ns))
}

/// The rate of the time-stamp counter, measured over the life of the sandbox.
#[derive(Debug)]
pub(super) struct Rate {
    ticks: u64,
    ns: i64,
}

impl Rate {
    /// Begins to measure.
    pub(super) fn new() -> Self {
        Self { ticks: ticks(), ns: clock::now_ns(Clock::Monotonic) }
    }

    /// Returns how many nanoseconds a number of ticks is.
    pub(super) fn to_ns(&self, n: u64) -> u64 {
        let ticks = ticks().saturating_sub(self.ticks).max(1);
        let ns = clock::now_ns(Clock::Monotonic).saturating_sub(self.ns).unsigned_abs();
        u64::try_from(u128::from(n) * u128::from(ns) / u128::from(ticks)).unwrap_or(u64::MAX)
    }
}

/// Starts to fetch what the stub's CPU has of a request, all at once and not line by line as the
/// request is taken.
pub(super) fn fetch_request(slot: &Slot) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let end = offset_of!(Slot, turn);
    for offset in (offset_of!(Slot, kind)..end).step_by(64).chain([offset_of!(Slot, data)]) {
        let line = std::ptr::from_ref(slot).cast::<i8>().wrapping_byte_add(offset);
        // SAFETY: a hint about memory of the slot.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
}

/// Returns the CPU that the thread runs on, plus one, as stubs publish theirs: what Linux keeps in
/// the processor for this is the CPU's number, and its memory node above that. And the time-stamp counter.
fn cpu_and_ticks() -> (u32, u64) {
    let mut cpu = 0;
    // SAFETY: only called where the processor has the instruction; the pointer is a local's.
    let ticks = unsafe { std::arch::x86_64::__rdtscp(&raw mut cpu) };
    (cpu.wrapping_add(1), ticks)
}

/// The CPUs that the process may use.
#[derive(Clone, Copy)]
pub(super) struct Cpus {
    set: libc::cpu_set_t,
    n: u32,
}

impl std::fmt::Debug for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} CPUs", self.n)
    }
}

impl Cpus {
    /// Asks the host; before the sentry's filter is installed.
    pub(super) fn of_this_process() -> Self {
        // SAFETY: all zeroes are the empty set; the size is that of the set.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
            Self { set, n: u32::try_from(libc::CPU_COUNT(&set)).unwrap_or(1) }
        }
    }

    /// Moves this thread to any of the CPUs but the one that stubs publish as `cpu`.
    fn leave(&self, cpu: u32) {
        let mut set = self.set;
        let cpu = usize::try_from(cpu.wrapping_sub(1) & CPU_NUMBER).unwrap_or(usize::MAX);
        if cpu < size_of_val(&set) * 8 {
            // SAFETY: the number is within the set.
            unsafe { libc::CPU_CLR(cpu, &mut set) };
        }
        set_affinity(&set);
    }

    /// Moves this thread to the CPU that stubs publish as `cpu`.
    pub(super) fn join(&self, cpu: u32) {
        let cpu = usize::try_from(cpu.wrapping_sub(1) & CPU_NUMBER).unwrap_or(usize::MAX);
        // SAFETY: the number is within the set, which is empty before.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            if cpu < size_of_val(&set) * 8 && libc::CPU_ISSET(cpu, &self.set) {
                libc::CPU_SET(cpu, &mut set);
                set_affinity(&set);
            }
        }
    }

    /// Lets this thread run on all of them again.
    pub(super) fn settle(&self) {
        set_affinity(&self.set);
    }
}

fn set_affinity(set: &libc::cpu_set_t) {
    // SAFETY: the set is a live structure of that size. A failure leaves the thread where it was.
    unsafe { libc::sched_setaffinity(0, size_of_val(set), std::ptr::from_ref(set)) };
}

/// A request that has been taken.
pub(super) type Taken = (Arc<SystrapContext>, Event);

/// What a worker has found.
pub(super) enum Found {
    /// A request of the watched thread.
    Event(Taken),
    /// Something else to do: jobs, or rings.
    Other,
    /// Nothing; nobody is watched any more.
    Nothing,
}

/// A worker's spinning.
#[derive(Debug)]
pub(super) struct Spinner {
    watched: Option<Arc<SystrapContext>>,
    /// Whether this thread keeps off a CPU.
    moved: bool,
    /// When its last request was taken without a ring.
    taken_at: u64,
    /// How many quick calls it takes to begin.
    needed: u32,
    /// Requests seen since.
    hits: u32,
    /// How long each took on average.
    average: u64,
    /// No spinning before that time.
    rests_until: u64,
    /// Those that are watched together, where one thread alone is not worth it.
    crowd: Crowd,
}

impl Spinner {
    /// A worker that has not spun yet.
    pub(super) fn new() -> Self {
        let needed = MIN_STREAK;
        Self {
            watched: None,
            moved: false,
            taken_at: 0,
            needed,
            hits: 0,
            average: 0,
            rests_until: 0,
            crowd: Crowd::new(),
        }
    }

    /// Returns whether a thread is watched.
    pub(super) fn is_watching(&self) -> bool {
        self.watched.is_some() || self.crowd.is_active()
    }

    /// Notes that a thread has rung.
    pub(super) fn rang(&mut self, inner: &Inner, context: &Arc<SystrapContext>) {
        if self.crowd.rang(inner, context, self.watched.is_some())
            && let Some((context, event)) = self.stop_watching(inner)
        {
            inner.queue(Job::Event(context, event));
        }
    }

    /// Looks at a thread whose event has been served: whether to watch it from now on, or no more.
    /// Returns a request that came in between.
    pub(super) fn served(&mut self, inner: &Inner, context: &Arc<SystrapContext>) -> Option<Taken> {
        if self.watched.as_ref().is_some_and(|watched| Arc::ptr_eq(watched, context)) {
            return if context.is_conversing() { None } else { self.stop_watching(inner) };
        }
        let is_ours = self.crowd.is_active() && context.is_in_crowd_of(serve::own_tid());
        if context.is_watched() && !is_ours {
            // By another worker, which finds out.
            return context.unwatch().map(|event| (Arc::clone(context), event));
        }
        if self.crowd.is_active() {
            if !is_ours {
                self.crowd.served(context);
            }
        } else if self.watched.is_none()
            && context.streak() >= self.needed
            && context.cpu() != 0
            && ticks() > self.rests_until
        {
            context.watch(WATCHED_ANYWHERE);
            self.watched = Some(Arc::clone(context));
            self.hits = 0;
            self.average = 0;
        }
        None
    }

    /// Watches for a while; the caller has the lead.
    pub(super) fn spin(&mut self, inner: &Inner) -> Found {
        if self.crowd.is_active() {
            return self.crowd.look(inner);
        }
        let Some(context) = self.watched.clone() else { return Found::Nothing };
        if !context.is_announced() {
            // Its next reply will say that it is watched; until then it rings.
            return if context.is_watched() {
                Found::Nothing
            } else {
                self.stop_watching(inner).map_or(Found::Nothing, Found::Event)
            };
        }
        let (mut own, mut started) = cpu_and_ticks();
        if own == context.cpu() {
            inner.cpus.leave(own);
            self.moved = true;
            (own, started) = cpu_and_ticks();
            self.taken_at = 0;
        }
        context.announce(own);
        if started.wrapping_sub(self.taken_at) > RING_TICKS && inner.doorbell.has_ring() {
            // Perhaps this one's, which has waited too long.
            return Found::Other;
        }
        let patience = match self.hits {
            // Both may still be on their way to their CPUs.
            0 => START_SPINS * SPIN_TICKS,
            1..GOOD_SESSION => SPIN_TICKS,
            // Where it has paid, a thread that is held up for a moment is worth the wait.
            _ => 5 * SPIN_TICKS,
        };
        let (mut last, mut polled) = (started, started);
        loop {
            if context.has_posted() {
                let event = context.posted();
                self.taken_at = context.taken_at().max(started);
                let waited = self.taken_at.saturating_sub(started);
                // The first wait includes the wake-up.
                if self.hits != 0 {
                    self.average = self.average - self.average / 32 + waited / 32;
                }
                self.hits = self.hits.saturating_add(1);
                return event.map_or(Found::Other, |event| Found::Event((context, event)));
            }
            if inner.has_jobs() {
                return Found::Other;
            }
            let now = ticks();
            if now.wrapping_sub(last) > LOST_TICKS {
                self.rests_until = now.saturating_add(REST_TICKS);
                break;
            }
            let crowded =
                inner.n_running.load(Relaxed) >= inner.cpus.n || inner.n_waiting.load(SeqCst) != 0;
            if crowded || self.average > WORTH_TICKS || now.wrapping_sub(started) > patience {
                break;
            }
            if now.wrapping_sub(polled) > POLL_TICKS {
                polled = now;
                if inner.doorbell.has_ring() {
                    return Found::Other;
                }
            }
            last = now;
            std::hint::spin_loop();
        }
        self.stop_watching(inner).map_or(Found::Nothing, Found::Event)
    }

    /// Watches nobody any more. Returns a request that came in between; others are left as jobs.
    pub(super) fn stop(&mut self, inner: &Inner) -> Option<Taken> {
        self.crowd.dissolve(inner);
        self.stop_watching(inner)
    }

    fn stop_watching(&mut self, inner: &Inner) -> Option<Taken> {
        let context = self.watched.take()?;
        self.needed =
            if self.hits >= GOOD_SESSION { MIN_STREAK } else { (self.needed * 2).min(MAX_STREAK) };
        if std::mem::take(&mut self.moved) {
            inner.cpus.settle();
        }
        context.unwatch().map(|event| (context, event))
    }
}
