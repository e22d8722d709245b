//! A guest thread: its slot, its registers, and the conversation with its stub.
//!
//! A context is *running* from the moment its reply is published until the next request is taken,
//! and *stopped* in between; `State` says which, and a request is only taken from a running one,
//! whatever its slot claims. What a request needs is copied out of the slot once, when it is taken.
//!
//! Lock order: a context's `state`, then its space's locks, then the platform's tables.

mod end;
mod interface;
mod sites;
mod wake;
mod watch;
mod xcopy;

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};

use sentry_host::schedule::Schedule;
use sentry_sysmsg::slot::{self, MAX_CALLS, N_REGS, Renew as _, reg};
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult, UserAddr};

pub(super) use self::end::Finish;
use self::xcopy::XCopy;
use super::messages::Messages;
use super::patch::{QuietCall, Site};
use super::region::SlotMapping;
use super::space::Space;
use super::{Inner, calls, lock, spin};
use crate::{AddressSpace, ContextOwner, Event, Fault, HostCall, HostCallResults};
use sentry_sysmsg::layout;

/// The processor's number of the exception of `int3`.
const TRAP_BREAKPOINT: u64 = 3;
/// How many host threads may wait for the answer to their ring.
const MAX_RINGS: usize = 32;
/// How many before a thread that nobody owns may not, which can last.
const MAX_UNOWNED_RINGS: usize = 4;

/// What comes after a list of host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The application.
    Resume,
    /// `Event::HostCallsDone`.
    Report,
    /// Somebody waits in `call_now`.
    Wake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopped,
    Dead,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The ring that waits for an answer.
    ring: Option<u64>,
    /// Whether the host thread sleeps on the slot's `done` word instead.
    parked: bool,
    /// The last request that was taken.
    taken: u32,
    /// Whether a reply without return to the application is out, so that only its outcome can follow.
    expects_outcome: bool,
    /// Whether the owner has ended the thread.
    told_to_exit: bool,
    regs: Regs,
    /// Whether all registers must be loaded, or only `rax`.
    regs_dirty: bool,
    ret_dirty: bool,
    /// Whether `regs` describes a system call.
    in_syscall: bool,
    xsave: Vec<u64>,
    xrestore: Option<u64>,
    /// What the next list of host calls does with the extended state.
    xcopy: Option<XCopy>,
    /// The contexts to be born with the next replies, one with each.
    births: VecDeque<Arc<SystrapContext>>,
    /// The one that is born with the current reply.
    birth: Option<Arc<SystrapContext>>,
    todo: VecDeque<HostCall>,
    then: Then,
    /// How many calls the current reply has, and the data that the last of them brings.
    sent: usize,
    /// How many of them are the platform's own and come first.
    quiet_sent: usize,
    data_len: usize,
    /// The descriptors that the current reply names.
    pins: Vec<i32>,
    /// Those of them that it closes.
    closes: Vec<i32>,
    /// The arguments of the `pwrite64` that it asks for, until the thread has been permitted to make it.
    permits: Vec<[u64; 4]>,
    /// The one that the thread closes when it has made the process that is born with the reply.
    birth_channel: Option<i32>,
    results: HostCallResults,
    /// The site that should be patched, and the calls that do it.
    site: Option<Site>,
    /// The sites that the current reply changes.
    patching: Vec<u64>,
    messages: Messages,
    quiet: Vec<QuietCall>,
}

/// A guest thread.
pub(super) struct SystrapContext {
    inner: Arc<Inner>,
    pub(super) space: Arc<Space>,
    pub(super) index: u32,
    slot: SlotMapping,
    owner: Mutex<Option<Arc<dyn ContextOwner>>>,
    /// The host thread, zero until it is known.
    tid: AtomicU32,
    /// How the host thread is to be scheduled when it is known. A leaf among the locks.
    schedule: Mutex<Option<Schedule>>,
    /// Whether the application may be running; only a hint for `interrupt`.
    running: AtomicBool,
    /// When the host thread was last sent a signal that it has not answered by an event, in
    /// nanoseconds; zero where there is none.
    pub(super) interrupted_ns: AtomicU64,
    /// What the slot says of being watched from the next reply on, and whether a reply has said so.
    watch: AtomicU32,
    announced: AtomicBool,
    crowd: watch::CrowdRecord,
    wakes: wake::WakeRecord,
    /// `State::taken`, and the last request that has been answered.
    taken: AtomicU32,
    answered: AtomicU32,
    /// When the application was last resumed, and how many calls in turn came soon after that.
    resumed_at: AtomicU64,
    /// When its last request was taken.
    taken_at: AtomicU64,
    /// For how many ticks its thread has watched for answers: what the host takes for its own work.
    spun: AtomicU64,
    streak: AtomicU32,
    state: Mutex<State>,
}

impl std::fmt::Debug for SystrapContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "thread {} of process {}", self.tid(), self.space.pid())
    }
}

impl SystrapContext {
    /// Creates a context that is stopped, and whose host thread is still to be born.
    pub(super) fn new(
        inner: &Arc<Inner>,
        space: &Arc<Space>,
        index: u32,
        owner: Option<Arc<dyn ContextOwner>>,
        regs: Regs,
    ) -> SysResult<Arc<Self>> {
        let slot = SlotMapping::new(&space.region, index)?;
        slot.space.store(space.token, Relaxed);
        slot.index.store(index, Relaxed);
        slot.interrupt.store(0, Relaxed);
        slot.fast.store(0, Relaxed);
        slot.table.store(0, Relaxed);
        slot.umask.store(0, Relaxed);
        // Until the owner has looked.
        slot.signals_pending.store(1, Relaxed);
        slot.in_use.store(1, Relaxed);
        slot.turn.watched.store(0, Relaxed);
        slot.followed.store(0, Relaxed);
        slot.seq.store(1, Relaxed);
        slot.turn.done.store(0, Release);
        Ok(Arc::new(Self {
            inner: Arc::clone(inner),
            space: Arc::clone(space),
            index,
            slot,
            owner: Mutex::new(owner),
            tid: AtomicU32::new(0),
            schedule: Mutex::new(None),
            running: AtomicBool::new(false),
            interrupted_ns: AtomicU64::new(0),
            watch: AtomicU32::new(0),
            announced: AtomicBool::new(false),
            crowd: watch::CrowdRecord::default(),
            wakes: wake::WakeRecord::default(),
            taken: AtomicU32::new(1),
            answered: AtomicU32::new(0),
            resumed_at: AtomicU64::new(0),
            taken_at: AtomicU64::new(0),
            spun: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            state: Mutex::new(State {
                phase: Phase::Stopped,
                ring: None,
                parked: false,
                taken: 1,
                expects_outcome: false,
                told_to_exit: false,
                regs,
                regs_dirty: true,
                ret_dirty: false,
                in_syscall: true,
                xsave: Vec::new(),
                xrestore: None,
                xcopy: None,
                births: VecDeque::new(),
                birth: None,
                todo: VecDeque::new(),
                then: Then::Resume,
                sent: 0,
                quiet_sent: 0,
                data_len: 0,
                pins: Vec::new(),
                closes: Vec::new(),
                permits: Vec::new(),
                birth_channel: None,
                results: HostCallResults::default(),
                site: None,
                patching: Vec::new(),
                messages: Messages::default(),
                quiet: Vec::new(),
            }),
        }))
    }

    /// Returns the host thread, zero where it is not known yet.
    pub(super) fn tid(&self) -> u32 {
        self.tid.load(SeqCst)
    }

    /// Returns what all contexts share.
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Returns the slot.
    pub(super) fn slot(&self) -> &SlotMapping {
        &self.slot
    }

    /// Marks the zygote as started: its first request will be taken.
    pub(super) fn start_zygote(&self, tid: u32) {
        self.slot.seq.store(0, Relaxed);
        self.tid.store(tid, SeqCst);
        let mut state = lock(&self.state);
        state.taken = 0;
        self.taken.store(0, Relaxed);
        state.phase = Phase::Running;
        state.expects_outcome = true;
        state.then = Then::Wake;
    }

    /// Returns whether the context is stopped with a ring to answer, or a thread to wake.
    pub(super) fn is_waiting(&self) -> bool {
        let state = lock(&self.state);
        state.phase == Phase::Stopped && (state.ring.is_some() || state.parked)
    }

    /// Returns what the stub said about the last clone.
    pub(super) fn last_birth(&self) -> i32 {
        self.slot.birth.load(Relaxed).cast_signed()
    }

    /// Gives an owner to a context that has none.
    pub(super) fn set_owner(&self, owner: Arc<dyn ContextOwner>) {
        *lock(&self.owner) = Some(owner);
    }

    /// Gives up a context that nobody will hear of.
    pub(super) fn abandon(&self) {
        lock(&self.owner).take();
        lock(&self.state).phase = Phase::Dead;
    }

    /// Returns whether the host thread is gone.
    pub(super) fn is_dead(&self) -> bool {
        lock(&self.state).phase == Phase::Dead
    }

    /// Takes a ring of this thread: returns the event that its new request is, if it is one.
    pub(super) fn ring(&self, id: u64) -> Option<Event> {
        let mut state = lock(&self.state);
        if state.ring.replace(id).is_none() {
            self.inner.n_rings.fetch_add(1, Relaxed);
        }
        state.parked = false;
        let event = self.look(&mut state);
        let is_crowded = self.inner.n_rings.load(Relaxed) > MAX_UNOWNED_RINGS;
        if is_crowded && event.is_none() && lock(&self.owner).is_none() {
            self.park_stopped(&mut state);
        }
        event
    }

    /// Returns whether the current reply asks for this `pwrite64`, which it does only once.
    pub(super) fn takes_permit(&self, args: [u64; 4]) -> bool {
        let mut state = lock(&self.state);
        let found = state.permits.iter().position(|permit| *permit == args);
        let is_good = state.phase == Phase::Running && found.is_some();
        if let Some(found) = found.filter(|_| is_good) {
            state.permits.swap_remove(found);
        }
        is_good
    }

    /// Lets the thread make its call.
    pub(super) fn permit_write(&self, id: u64) {
        let doorbell = &self.inner.doorbell;
        doorbell.set_sync(self.goes_on_here());
        doorbell.permit(id);
        doorbell.set_sync(true);
    }

    /// Takes a message of this thread, which sleeps or is about to: returns the event that its new
    /// request is, if it is one.
    pub(super) fn message(&self) -> Option<Event> {
        let mut state = lock(&self.state);
        state.parked = true;
        self.look(&mut state)
    }

    /// Returns the event that there is for somebody who rings.
    fn look(&self, state: &mut State) -> Option<Event> {
        if state.phase != Phase::Running {
            return None;
        }
        let seq = self.slot.seq.load(Acquire);
        if seq == state.taken {
            // The answer came between the thread's look and its ring.
            self.answer_ring(state);
            return None;
        }
        self.accept(seq, state)
    }

    /// Takes a new request: returns the event that it is, if it is one.
    fn accept(&self, seq: u32, state: &mut State) -> Option<Event> {
        state.taken = seq;
        self.taken.store(seq, Relaxed);
        state.phase = Phase::Stopped;
        if self.set_running(false) {
            let gap = self.gap();
            let streak = self.streak();
            let streak = if gap < spin::WORTH_TICKS { streak + 1 } else { streak / 4 };
            self.streak.store(streak.min(spin::MAX_STREAK), Relaxed);
        }
        state.permits.clear();
        if !state.pins.is_empty() {
            let mut fds = self.space.fds();
            state.pins.drain(..).for_each(|number| fds.unpin(number));
            state.closes.drain(..).for_each(|number| fds.forget(number));
        }
        if let Some(number) = state.birth_channel.take() {
            self.space.fds().remove(number);
        }
        if !state.patching.is_empty() {
            let mut sites = self.space.sites();
            state.patching.drain(..).for_each(|site| sites.done(site));
        }
        self.take(state)
    }

    /// Returns for how long the application has run, as far as the stub's word for when it began and
    /// ended is credible: what the host takes to wake threads is not the application's.
    fn gap(&self) -> u64 {
        let (resumed, now) = (self.resumed_at.load(Relaxed), spin::ticks());
        self.taken_at.store(now, Relaxed);
        let end = Some(self.slot.rang.load(Relaxed)).filter(|at| (resumed..now).contains(at));
        let end = end.unwrap_or(now);
        let woke = Some(self.slot.woke.load(Relaxed)).filter(|at| (resumed..end).contains(at));
        end.saturating_sub(woke.unwrap_or(resumed))
    }

    /// Notes whether the application runs; returns whether it did.
    fn set_running(&self, now: bool) -> bool {
        let before = self.running.swap(now, SeqCst);
        match (before, now) {
            (false, true) => self.inner.n_running.fetch_add(1, Relaxed),
            (true, false) => self.inner.n_running.fetch_sub(1, Relaxed),
            _ => 0,
        };
        before
    }

    /// Returns how many calls in turn came soon after the application was resumed.
    pub(super) fn streak(&self) -> u32 {
        self.streak.load(Relaxed)
    }

    /// Returns the CPU of the last request plus one, as the stub says.
    pub(super) fn cpu(&self) -> u32 {
        self.slot.cpu.load(Relaxed)
    }

    /// Tells the stub to which CPU the receiver of rings keeps, plus one; zero for none.
    pub(super) fn follow(&self, cpu: u32) {
        self.slot.followed.store(cpu, Relaxed);
    }

    /// Returns whether the stub still believes so.
    pub(super) fn is_followed(&self) -> bool {
        self.slot.followed.load(Relaxed) != 0
    }

    /// Hands an event to the owner.
    pub(super) fn deliver(&self, event: Event) {
        let owner = match event {
            Event::Exited { .. } => lock(&self.owner).take(),
            _ => lock(&self.owner).clone(),
        };
        if let Some(owner) = owner {
            owner.on_event(event);
            if self.inner.n_rings.load(Relaxed) > MAX_RINGS {
                self.park();
            }
        }
    }

    /// Lets a host thread whose event is not answered yet sleep without a ring: the host kernel
    /// searches a list of all that wait for an answer.
    pub(super) fn park(&self) {
        self.park_stopped(&mut lock(&self.state));
    }

    fn park_stopped(&self, state: &mut State) {
        if state.phase == Phase::Stopped
            && let Some(id) = self.take_ring(state)
        {
            state.parked = true;
            self.inner.doorbell.answer(id, layout::RUNG_PARK);
        }
    }

    /// Takes the ring that is to be answered.
    fn take_ring(&self, state: &mut State) -> Option<u64> {
        let id = state.ring.take()?;
        self.inner.n_rings.fetch_sub(1, Relaxed);
        Some(id)
    }

    /// Copies a request out of the slot.
    fn take(&self, state: &mut State) -> Option<Event> {
        let kind = self.slot.kind.load(Relaxed);
        let outcome = kind == slot::KIND_CALLS_DONE || kind == slot::KIND_CALL_FAILED;
        let expected = if state.expects_outcome { outcome } else { kind != slot::KIND_CALLS_DONE };
        if !expected {
            return self.violation();
        }
        self.take_birth(state, kind);
        if outcome {
            return self.take_outcome(state, kind == slot::KIND_CALL_FAILED);
        }
        // In this order: an interrupt that comes in between sends its signal.
        if self.interrupted_ns.load(SeqCst) != 0 {
            self.interrupted_ns.store(0, SeqCst);
        }
        let is_interrupted = self.slot.interrupt.load(SeqCst) != 0;
        if is_interrupted {
            self.slot.interrupt.store(0, SeqCst);
        }
        let mut values = [0; N_REGS];
        for (value, place) in values.iter_mut().zip(self.slot.regs.iter()) {
            *value = place.load(Relaxed);
        }
        state.regs = zerocopy::transmute!(values);
        state.regs.rip = self.space.sites().to_text(state.regs.rip);
        state.regs_dirty = false;
        state.ret_dirty = false;
        state.in_syscall = kind == slot::KIND_SYSCALL || kind == slot::KIND_PATCHED_SYSCALL;
        state.site = None;
        match kind {
            slot::KIND_SYSCALL | slot::KIND_PATCHED_SYSCALL => {
                state.messages.take(&self.slot);
                if kind == slot::KIND_SYSCALL && self.inner.can_patch {
                    self.find_site(state);
                }
                state.regs.rax = Errno::ENOSYS.to_return();
                Some(Event::Syscall)
            }
            slot::KIND_INTERRUPTED => Some(Event::Interrupted),
            slot::KIND_FAULT => {
                let fault = Fault {
                    signo: self.slot.fault_signo.load(Relaxed).cast_signed(),
                    code: self.slot.fault_code.load(Relaxed).cast_signed(),
                    addr: self.slot.fault_addr.load(Relaxed),
                    trap_no: self.slot.fault_trap_no.load(Relaxed),
                    error_code: self.slot.fault_error_code.load(Relaxed),
                };
                if fault.trap_no != TRAP_BREAKPOINT || !self.pass_breakpoint(state) {
                    Some(Event::Fault(fault))
                } else if is_interrupted {
                    Some(Event::Interrupted)
                } else {
                    self.send(state);
                    None
                }
            }
            _ => self.violation(),
        }
    }

    /// Stores what waits for the way back, now.
    fn flush(&self, state: &mut State) {
        state.messages.flush(&self.slot, |addr, bytes| {
            // The memory was writable when the owner asked; what it is now is the application's.
            let _ = self.space.write(UserAddr(addr), bytes);
        });
    }

    /// Kills a process whose stub does not keep to the protocol.
    fn violation(&self) -> Option<Event> {
        self.space.kill();
        None
    }

    /// Learns what became of a clone that the last reply asked for.
    fn take_birth(&self, state: &mut State, kind: u32) {
        let Some(child) = state.birth.take() else { return };
        let born = self.slot.birth.load(Relaxed).cast_signed();
        if kind == slot::KIND_CALL_FAILED || born <= 0 {
            self.inner.stillborn(&child);
        } else {
            child.space.set_stack(child.index);
            self.inner.announced(&child, born);
        }
    }

    /// Collects the results of host calls and goes on with what is left to do.
    fn take_outcome(&self, state: &mut State, failed: bool) -> Option<Event> {
        let n = usize::try_from(self.slot.n_results.load(Relaxed))
            .unwrap_or(0)
            .min(state.sent + usize::from(failed));
        for call in self.slot.calls.0.iter().take(n).skip(state.quiet_sent) {
            let raw = call.result.load(Relaxed);
            state.results.values.push(Errno::from_return(raw));
        }
        if failed {
            state.todo.clear();
            for child in state.births.drain(..) {
                self.inner.stillborn(&child);
            }
            let errno = match state.results.values.last() {
                Some(Err(errno)) => *errno,
                // Not the whole of what was to be read.
                Some(Ok(_)) => Errno::EIO,
                None => return self.violation(),
            };
            if state.then == Then::Resume {
                return Some(Event::HostCallFailed {
                    index: state.results.values.len() - 1,
                    errno,
                });
            }
        } else {
            if state.data_len != 0 {
                state.results.data = calls::read_data(&self.slot, state.data_len);
            }
            if !state.todo.is_empty() || !state.births.is_empty() || state.then == Then::Resume {
                self.send(state);
                return None;
            }
        }
        match state.then {
            Then::Resume | Then::Report => Some(Event::HostCallsDone),
            Then::Wake => None,
        }
    }

    /// Starts a list of host calls.
    fn start(&self, calls: &[HostCall], then: Then) {
        let mut state = lock(&self.state);
        if state.phase != Phase::Stopped {
            return;
        }
        state.todo.extend(calls.iter().cloned());
        state.then = then;
        state.results = HostCallResults::default();
        self.send(&mut state);
    }

    /// Publishes the next reply: as many calls as fit, and after the last ones what comes then.
    fn send(&self, state: &mut State) {
        let slot = &self.slot;
        if state.then == Then::Resume {
            self.space.unmap_windows(self.index, &mut state.quiet);
        }
        if state.then == Then::Resume
            && state.births.is_empty()
            && state.todo.is_empty()
            && state.quiet.is_empty()
        {
            state.messages.fill(&mut state.quiet);
        } else {
            self.flush(state);
        }
        state.messages.forget_inputs();
        let quiet = calls::fill_quiet(slot, &mut state.quiet);
        let doorbell = &self.inner.doorbell;
        let batch = calls::fill(slot, quiet, &self.space, doorbell, state.ring, &mut state.todo);
        state.quiet_sent = quiet;
        state.sent = batch.n_calls;
        state.data_len = batch.data_len;
        state.pins = batch.pins;
        state.closes = batch.closes;
        state.permits = batch.permits;
        slot.n_calls.renew(u32::try_from(batch.n_calls.min(MAX_CALLS)).unwrap_or(0));
        let mut reply = 0;
        if state.todo.is_empty()
            && let Some(child) = state.births.pop_front()
        {
            if self.hand_over_channel(&child, state) {
                slot.birth.store(0, Relaxed);
                reply |= child.fill_birth(self);
                state.birth = Some(child);
            } else {
                state.births.push_front(child);
            }
        }
        let last = state.todo.is_empty() && state.births.is_empty();
        if last && let Some(copy) = state.xcopy.take() {
            reply |= self.fill_xcopy(copy, state);
        } else if last {
            reply |= self.fill_xsave(state);
        }
        state.expects_outcome = !(last && state.then == Then::Resume);
        if last && state.then == Then::Resume {
            reply |= self.fill_resume(state);
            self.note_resumed(state.ring.is_none());
            self.set_running(true);
        }
        slot.reply.renew(reply);
        state.phase = Phase::Running;
        // Where only a ring can bring what comes next, nobody may take the request without it; and who is about
        // to ask for a permit rings as well.
        let rings = batch.needs_ring || !state.permits.is_empty();
        let watch = if rings { 0 } else { self.watch.load(Relaxed) };
        self.announced.store(watch != 0, Relaxed);
        slot.turn.watched.renew(watch);
        self.publish(state);
        self.answer_ring(state);
    }

    /// Fills the fields for the way back to the application.
    fn fill_resume(&self, state: &mut State) -> u32 {
        let slot = &self.slot;
        let mut reply = slot::REPLY_RESUME;
        if state.regs_dirty {
            let rip = self.space.sites().to_trampoline(state.regs.rip);
            let values: [u64; N_REGS] = zerocopy::transmute!(Regs { rip, ..state.regs });
            for (place, value) in slot.regs.iter().zip(values) {
                place.store(value, Relaxed);
            }
            reply |= slot::REPLY_REGS;
        } else if state.ret_dirty || state.in_syscall {
            slot.ret.renew(state.regs.rax);
            reply |= slot::REPLY_RET;
        }
        if let Some(addr) = state.xrestore.take() {
            slot.xrestore_addr.store(addr, Relaxed);
            reply |= slot::REPLY_XRESTORE;
        }
        reply
    }

    /// Lets the thread have the end of the channel of a process that it is to make; returns false where
    /// that must wait until others have finished with their descriptors.
    fn hand_over_channel(&self, child: &Self, state: &mut State) -> bool {
        let slot = &self.slot;
        slot.birth_channel.store(0, Relaxed);
        let mut far_end = child.space.far_end();
        let Some(end) = far_end.take().filter(|_| !Arc::ptr_eq(&child.space, &self.space)) else {
            return true;
        };
        let mut fds = self.space.fds();
        let Some(given) = fds.hand_over(&end, &self.inner.doorbell, None) else {
            *far_end = Some(end);
            return false;
        };
        state.birth_channel = given.ok();
        let number = given.map_or(slot::NO_CHANNEL, i32::cast_unsigned);
        slot.birth_channel.store(number, Relaxed);
        slot.fds_sent.store(fds.sent(), Relaxed);
        true
    }

    /// Fills the parent's slot for the birth of this context.
    fn fill_birth(&self, parent: &Self) -> u32 {
        if Arc::ptr_eq(&self.space, &parent.space) {
            parent.slot.birth_index.store(self.index, Relaxed);
            let map = if self.space.has_stack(self.index) { 0 } else { slot::REPLY_MAP_STACK };
            slot::REPLY_THREAD | map
        } else {
            parent.slot.birth_token.store(self.space.token, Relaxed);
            slot::REPLY_FORK
        }
    }

    fn answer_ring(&self, state: &mut State) {
        let sync = state.ring.is_some() && self.goes_on_here();
        self.answer_ring_with(state, sync);
    }

    /// Lets the thread see its answer: at once and on this CPU, where that is wanted (`sync`).
    fn answer_ring_with(&self, state: &mut State, sync: bool) {
        if let Some(id) = self.take_ring(state) {
            self.inner.doorbell.set_sync(sync);
            self.inner.doorbell.answer(id, layout::RUNG_LOOK);
            self.inner.doorbell.set_sync(true);
        } else if std::mem::take(&mut state.parked) {
            super::zygote::futex_wake(&self.slot.turn.done);
        }
    }

    /// Lets the stopped zygote fork `child`; it reports afterwards.
    pub(super) fn fork_from_zygote(&self, child: &Arc<Self>) -> SysResult<()> {
        let mut state = lock(&self.state);
        self.prepare_zygote(child, &mut state)?;
        self.answer_ring_with(&mut state, true);
        Ok(())
    }

    /// Does the same for a child for which nobody waits: it becomes known with the zygote's report.
    pub(super) fn fork_spare_from_zygote(&self, child: &Arc<Self>) -> SysResult<()> {
        let mut state = lock(&self.state);
        self.prepare_zygote(child, &mut state)?;
        state.birth = Some(Arc::clone(child));
        self.answer_ring_with(&mut state, false);
        Ok(())
    }

    fn prepare_zygote(&self, child: &Arc<Self>, state: &mut State) -> SysResult<()> {
        if state.phase != Phase::Stopped || !self.hand_over_channel(child, state) {
            return Err(Errno::EAGAIN);
        }
        self.slot.birth.store(0, Relaxed);
        self.slot.n_calls.store(0, Relaxed);
        let reply = child.fill_birth(self);
        self.slot.reply.store(reply, Relaxed);
        state.then = Then::Wake;
        state.sent = 0;
        state.quiet_sent = 0;
        state.expects_outcome = true;
        state.results = HostCallResults::default();
        state.phase = Phase::Running;
        self.publish(state);
        Ok(())
    }

    /// Prepares a context that is born when this one is resumed.
    fn prepare(
        &self,
        owner: Arc<dyn ContextOwner>,
        space: &Arc<Space>,
        index: u32,
    ) -> SysResult<Arc<Self>> {
        let mut state = lock(&self.state);
        if state.phase == Phase::Dead {
            return Err(Errno::ESRCH);
        }
        let regs = state.regs;
        let child = space
            .add_thread(index, |index| Self::new(&self.inner, space, index, Some(owner), regs))?;
        {
            let mut child_state = lock(&child.state);
            child_state.in_syscall = state.in_syscall;
        }
        self.inner.add_space(space);
        state.births.push_back(Arc::clone(&child));
        Ok(child)
    }
}

const _: () = assert!(reg::ORIG_RAX == 15 && size_of::<Regs>() == N_REGS * 8);
