//! Contexts: one host thread each, stopped or running.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use sentry_host::schedule::{self, Schedule};
use sentry_host::usage::ThreadUsage;
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult, UserAddr};

use super::space::Space;
use super::tracer::{Job, SYSCALL_STOP, Tracer, lock, user_regs};
use super::{calls, rseq, sys};
use crate::{
    AddressSpace, Context, ContextOwner, Event, FastPathFacts, Fault, HostCall, HostCallResults,
    SyscallArgs, xstate,
};

/// Bits of [`Thread::flow`]: whether the host thread runs, and whether it shall stop.
const RUNNING: u8 = 1;
const INTERRUPT: u8 = 2;

/// More than any processor's extended state in the standard format.
const XSTATE_MAX: usize = 16384;

/// How far a context has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its host thread is cloned when its parent goes on.
    Unborn,
    Stopped,
    Running,
    /// Ended, but its host thread leads a process that others still run in, and stays stopped.
    Parked,
    /// On its way out.
    Exiting,
    Gone,
}

/// What an unborn context does as soon as it exists.
enum AtBirth {
    Write(UserAddr, Vec<u8>),
    SaveXstate(UserAddr),
    RestoreXstate(UserAddr),
    Resume(Vec<HostCall>),
    Start(Vec<HostCall>),
    FetchXstate,
    LoadXstate(Vec<u8>),
    Exit,
}

struct State {
    phase: Phase,
    regs: Regs,
    syscall: SyscallArgs,
    /// Contexts to be cloned from this one.
    births: Vec<Arc<Thread>>,
    at_birth: Vec<AtBirth>,
    results: HostCallResults,
    rseq: Option<rseq::Area>,
}

/// A context. Its locks are leaves.
pub(super) struct Thread {
    me: Weak<Thread>,
    tracer: Arc<Tracer>,
    space: Arc<Space>,
    /// None once it has been told the end: it may be all that keeps this context.
    owner: Mutex<Option<Arc<dyn ContextOwner>>>,
    /// Whether its host thread leads its process.
    leader: bool,
    tid: AtomicI32,
    /// How the host thread is to be scheduled once it exists.
    schedule: Mutex<Option<Schedule>>,
    flow: AtomicU8,
    /// Set before the host thread is reaped.
    gone: RwLock<bool>,
    state: Mutex<State>,
}

impl Thread {
    /// Creates a context without a host thread.
    pub(super) fn new(
        tracer: &Arc<Tracer>,
        space: Arc<Space>,
        owner: Arc<dyn ContextOwner>,
        leader: bool,
        regs: Regs,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            tracer: Arc::clone(tracer),
            space,
            owner: Mutex::new(Some(owner)),
            leader,
            tid: AtomicI32::new(0),
            schedule: Mutex::new(None),
            flow: AtomicU8::new(0),
            gone: RwLock::new(false),
            state: Mutex::new(State {
                phase: Phase::Unborn,
                regs,
                syscall: SyscallArgs::default(),
                births: Vec::new(),
                at_birth: Vec::new(),
                results: HostCallResults::default(),
                rseq: None,
            }),
        })
    }

    /// Tells the owner.
    pub(super) fn deliver(&self, event: Event) {
        let owner = match event {
            Event::Exited { .. } => lock(&self.owner).take(),
            _ => lock(&self.owner).clone(),
        };
        if let Some(owner) = owner {
            owner.on_event(event);
        }
    }

    pub(super) fn kill_space(&self) {
        self.space.kill();
    }

    fn tid(&self) -> i32 {
        self.tid.load(Ordering::Acquire)
    }

    /// Has the host thread scheduled like this; returns whether there is or has been one.
    fn schedule_now(&self, schedule: &Schedule) -> bool {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        let tid = self.tid();
        if !*gone {
            schedule::apply(tid, schedule);
        }
        tid != 0
    }

    fn phase(&self) -> Phase {
        lock(&self.state).phase
    }

    /// Queues an event for the owner.
    fn push_event(&self, event: Event) {
        if let Some(me) = self.me.upgrade() {
            self.tracer.push_event(me, event);
        }
    }

    /// Takes over the stopped host thread `tid`, and does what was waiting for it.
    pub(super) fn attach(&self, tid: i32) {
        self.tid.store(tid, Ordering::Release);
        if let Some(schedule) = lock(&self.schedule).take() {
            self.schedule_now(&schedule);
        }
        self.space.n_live.fetch_add(1, Ordering::Relaxed);
        if let Some(me) = self.me.upgrade() {
            self.tracer.register(tid, me);
        }
        if self.leader {
            self.space.set_pid(tid);
        }
        let waiting = {
            let mut state = lock(&self.state);
            state.phase = Phase::Stopped;
            std::mem::take(&mut state.at_birth)
        };
        for action in waiting {
            // Memory that cannot be written here could not be written after the resume either.
            let _ = match action {
                AtBirth::Write(addr, bytes) => self.space.write(addr, &bytes).map(drop),
                AtBirth::SaveXstate(addr) => self.save_xstate_now(addr),
                AtBirth::RestoreXstate(addr) => self.restore_xstate_now(addr),
                AtBirth::Resume(calls) => {
                    self.resume_now(&calls);
                    Ok(())
                }
                AtBirth::Start(calls) => {
                    self.start_now(&calls);
                    Ok(())
                }
                AtBirth::FetchXstate => {
                    self.fetch_xstate_now();
                    Ok(())
                }
                AtBirth::LoadXstate(frame) => {
                    self.load_xstate_now(&frame);
                    Ok(())
                }
                AtBirth::Exit => {
                    self.exit_now();
                    Ok(())
                }
            };
        }
    }

    /// Reports the end of a context that its parent could not or did not clone.
    fn never_born(&self, signal: i32) {
        lock(&self.state).phase = Phase::Gone;
        self.push_event(Event::Exited { signal });
    }

    /// Handles a stop of the running host thread.
    pub(super) fn on_stop(&self, status: i32) {
        let tid = self.tid();
        match self.phase() {
            Phase::Running => {}
            Phase::Exiting => {
                let _ = sys::cont(tid);
                return;
            }
            // The host may report one stop twice.
            _ => return,
        }
        match self.classify(tid, status) {
            Ok(Some(event)) => {
                self.flow.store(0, Ordering::SeqCst);
                lock(&self.state).phase = Phase::Stopped;
                self.push_event(event);
            }
            Ok(None) => {
                let _ = sys::sysemu(tid);
            }
            // Killed meanwhile: the end is reported when it is reaped.
            Err(_) => {}
        }
    }

    /// Finds out what a stop means, and stores the registers where it is an event. The status may
    /// be that of an earlier stop: the host sometimes reports one twice.
    fn classify(&self, tid: i32, status: i32) -> SysResult<Option<Event>> {
        let mut regs = sys::regs(tid)?;
        if status == SYSCALL_STOP && regs.orig_rax != u64::MAX {
            return self.classify_syscall(tid, regs).map(Some);
        }
        let info = sys::siginfo(tid)?;
        let event = match info.signo {
            _ if info.code == SYSCALL_STOP => {
                return self.classify_syscall(tid, regs).map(Some);
            }
            // `PTRACE_EVENT_STOP` and its like.
            _ if info.code > 0xff => return Ok(None),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP
                if info.code > 0 =>
            {
                Event::Fault(describe(&info))
            }
            sys::KICK_SIGNAL if self.flow.load(Ordering::SeqCst) & INTERRUPT != 0 => {
                Event::Interrupted
            }
            _ => return Ok(None),
        };
        regs.orig_rax = u64::MAX;
        let area = lock(&self.state).rseq;
        if let Some(area) = area {
            rseq::abort_critical_section(&self.space, area, &mut regs);
        }
        lock(&self.state).regs = regs;
        Ok(Some(event))
    }

    /// Stores the registers and arguments of a system call.
    fn classify_syscall(&self, tid: i32, mut regs: Regs) -> SysResult<Event> {
        // The `syscall` instruction copies `rip` and the flags; `int 0x80` does not.
        let plain = regs.rcx == regs.rip && regs.r11 == regs.eflags;
        let mut state = lock(&self.state);
        if !plain && !sys::is_64_bit_syscall(tid)? {
            // What Linux does where the 32-bit entries are compiled out: a general protection
            // fault at the two bytes of `int 0x80`.
            regs.rip = regs.rip.wrapping_sub(2);
            regs.rax = regs.orig_rax;
            regs.orig_rax = u64::MAX;
            state.regs = regs;
            return Ok(Event::Fault(Fault {
                signo: libc::SIGSEGV,
                code: 0x80,
                addr: 0,
                trap_no: 13,
                error_code: 0x402,
            }));
        }
        state.syscall = SyscallArgs {
            // Linux looks at 32 bits.
            number: regs.orig_rax & 0xffff_ffff,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        state.regs = regs;
        Ok(Event::Syscall)
    }

    /// Handles the end of the host thread; `reap` gives its number back to the host.
    pub(super) fn on_end(&self, signal: i32, reap: impl FnOnce()) {
        {
            let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
            *gone = true;
            if self.leader {
                self.space.end(reap);
            } else {
                reap();
            }
        }
        let (phase, births) = {
            let mut state = lock(&self.state);
            let phase = std::mem::replace(&mut state.phase, Phase::Gone);
            (phase, std::mem::take(&mut state.births))
        };
        for child in births {
            child.never_born(0);
        }
        if phase != Phase::Parked {
            self.left();
            let signal = if phase == Phase::Exiting { 0 } else { signal };
            self.push_event(Event::Exited { signal });
        }
    }

    /// Counts a context out of its address space; the last one takes the process along, whose
    /// leader may be parked.
    fn left(&self) {
        if self.space.n_live.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.space.kill();
        }
    }

    /// Makes calls in the stopped host thread, then clones what waits to be born.
    ///
    /// Returns `None` where the thread has been killed meanwhile: its end is reported when it is
    /// reaped, and no other event.
    fn run_calls(&self, calls: &[HostCall]) -> Option<HostCallResults> {
        let tid = self.tid();
        let mut results = calls::run(&self.tracer, tid, &self.space, calls);
        for (call, value) in calls.iter().zip(&results.values) {
            if let (HostCall::Rseq { addr, len, flags, signature }, Ok(_)) = (call, value) {
                let registered = *len != 0 && flags & rseq::UNREGISTER == 0;
                lock(&self.state).rseq =
                    registered.then_some(rseq::Area { addr: *addr, signature: *signature });
            }
        }
        // None of these calls fails so by itself.
        if results.values.last() == Some(&Err(Errno::ESRCH)) {
            return None;
        }
        if results.values.iter().any(Result::is_err) {
            return Some(results);
        }
        let births = std::mem::take(&mut lock(&self.state).births);
        let mut failed = None;
        for child in births {
            if failed.is_none() {
                failed = self.give_birth(&child).err();
            }
            if failed.is_some() {
                child.never_born(0);
            }
        }
        if failed == Some(Errno::ESRCH) {
            return None;
        }
        results.values.extend(failed.map(Err));
        Some(results)
    }

    fn give_birth(&self, child: &Thread) -> SysResult<()> {
        let flags = if child.leader {
            libc::CLONE_PARENT | libc::SIGCHLD
        } else {
            libc::CLONE_VM
                | libc::CLONE_FS
                | libc::CLONE_FILES
                | libc::CLONE_SIGHAND
                | libc::CLONE_THREAD
                | libc::CLONE_SYSVSEM
        };
        let Some(tid) = self.tracer.clone_host_thread(self.tid(), flags)? else {
            child.never_born(libc::SIGKILL);
            return Ok(());
        };
        if child.leader {
            let area = lock(&self.state).rseq;
            lock(&child.state).rseq = area;
        }
        child.attach(tid);
        Ok(())
    }

    /// Clones the host thread of a context that stays stopped.
    pub(super) fn clone_stopped(&self, flags: i32) -> SysResult<Option<i32>> {
        if self.phase() != Phase::Stopped {
            return Err(Errno::EAGAIN);
        }
        self.tracer.clone_host_thread(self.tid(), flags)
    }

    fn resume_now(&self, calls: &[HostCall]) {
        if self.phase() != Phase::Stopped {
            return;
        }
        let Some(results) = self.run_calls(calls) else { return };
        let failed = results.values.iter().enumerate().find_map(|(i, v)| v.err().map(|e| (i, e)));
        lock(&self.state).results = results;
        if let Some((index, errno)) = failed {
            self.push_event(Event::HostCallFailed { index, errno });
            return;
        }
        self.run_guest();
    }

    /// Lets the application run, unless it has been asked to stop.
    fn run_guest(&self) {
        let mut state = lock(&self.state);
        if self.flow.fetch_or(RUNNING, Ordering::SeqCst) & INTERRUPT != 0 {
            self.flow.store(0, Ordering::SeqCst);
            state.regs.orig_rax = u64::MAX;
            drop(state);
            self.push_event(Event::Interrupted);
            return;
        }
        let tid = self.tid();
        // Without a call's number the host restarts nothing, whatever `rax` holds.
        let regs = Regs { orig_rax: u64::MAX, ..state.regs };
        self.tracer.forget_stops(tid);
        match sys::set_regs(tid, &regs).and_then(|()| sys::sysemu(tid)) {
            // A killed thread will be reported as ended.
            Ok(()) | Err(Errno::ESRCH) => state.phase = Phase::Running,
            // A segment base that no application can have.
            Err(_) => {
                self.flow.store(0, Ordering::SeqCst);
                drop(state);
                let fault =
                    Fault { signo: libc::SIGSEGV, code: 0x80, trap_no: 13, ..Fault::default() };
                self.push_event(Event::Fault(fault));
            }
        }
    }

    fn start_now(&self, calls: &[HostCall]) {
        if self.phase() != Phase::Stopped {
            return;
        }
        let Some(results) = self.run_calls(calls) else { return };
        lock(&self.state).results = results;
        self.push_event(Event::HostCallsDone);
    }

    fn exit_now(&self) {
        if self.phase() != Phase::Stopped {
            return;
        }
        if self.leader && self.space.n_live.load(Ordering::Relaxed) > 1 {
            // The host would report the end of a leader only after all others.
            let births = {
                let mut state = lock(&self.state);
                state.phase = Phase::Parked;
                std::mem::take(&mut state.births)
            };
            for child in births {
                child.never_born(0);
            }
            self.left();
            self.push_event(Event::Exited { signal: 0 });
            return;
        }
        lock(&self.state).phase = Phase::Exiting;
        let tid = self.tid();
        let number = u64::try_from(libc::SYS_exit).unwrap_or(0);
        let regs = Regs {
            rax: number,
            rip: super::stub::address(super::stub::Piece::Syscall),
            ..user_regs()
        };
        // Fails only where the thread has been killed, which ends it as well.
        let _ = sys::set_regs(tid, &regs).and_then(|()| sys::cont(tid));
    }

    fn save_xstate_now(&self, addr: UserAddr) -> SysResult<()> {
        let mut area = vec![0; XSTATE_MAX];
        let len = sys::xstate(self.tid(), &mut area)?;
        let frame = xstate::to_frame(area.get(..len).unwrap_or_default(), xstate::layout());
        if self.space.write(addr, &frame)? == frame.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    fn fetch_xstate_now(&self) {
        if self.phase() != Phase::Stopped {
            return;
        }
        let mut area = vec![0; XSTATE_MAX];
        let mut results = HostCallResults::default();
        match sys::xstate(self.tid(), &mut area) {
            Ok(len) => {
                let area = area.get(..len).unwrap_or_default();
                results.data = xstate::to_frame(area, xstate::layout());
            }
            Err(errno) => results.values.push(Err(errno)),
        }
        self.report(results);
    }

    fn load_xstate_now(&self, frame: &[u8]) {
        if self.phase() != Phase::Stopped {
            return;
        }
        let mut area = vec![0; XSTATE_MAX];
        let loaded = sys::xstate(self.tid(), &mut area).and_then(|len| {
            let area = area.get_mut(..len).unwrap_or_default();
            xstate::from_frame(area, frame, xstate::layout())?;
            sys::set_xstate(self.tid(), area)
        });
        self.report(HostCallResults { values: vec![loaded.map(|()| 0)], data: Vec::new() });
    }

    /// Reports that something has been done without going back to the application.
    fn report(&self, results: HostCallResults) {
        if results.values.last() == Some(&Err(Errno::ESRCH)) {
            // Its end is reported when it is reaped.
            return;
        }
        lock(&self.state).results = results;
        self.push_event(Event::HostCallsDone);
    }

    fn restore_xstate_now(&self, addr: UserAddr) -> SysResult<()> {
        let layout = xstate::layout();
        let mut area = vec![0; XSTATE_MAX];
        let len = sys::xstate(self.tid(), &mut area)?;
        let area = area.get_mut(..len).unwrap_or_default();
        if addr.is_null() {
            xstate::reset(area, layout);
        } else {
            let mut frame = vec![0; usize::try_from(layout.size).unwrap_or(0) + 4];
            let len = self.space.read(addr, &mut frame)?;
            xstate::from_frame(area, frame.get(..len).unwrap_or_default(), layout)?;
        }
        sys::set_xstate(self.tid(), area).map_err(|_| Errno::EFAULT)
    }

    /// Runs `f` on the tracer thread now, or when the context is born, or soon.
    fn act(&self, action: AtBirth) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Unborn {
            state.at_birth.push(action);
            return;
        }
        drop(state);
        let Some(me) = self.me.upgrade() else { return };
        let run = move || match action {
            AtBirth::Resume(calls) => me.resume_now(&calls),
            AtBirth::Start(calls) => me.start_now(&calls),
            AtBirth::FetchXstate => me.fetch_xstate_now(),
            AtBirth::LoadXstate(frame) => me.load_xstate_now(&frame),
            AtBirth::Exit => me.exit_now(),
            AtBirth::Write(..) | AtBirth::SaveXstate(_) | AtBirth::RestoreXstate(_) => {}
        };
        if self.tracer.is_current() {
            run();
        } else {
            self.tracer.post(Job::Call(Box::new(run)));
        }
    }

    /// Puts off what an unborn context cannot do yet; returns whether it was put off.
    fn put_off(&self, action: impl FnOnce() -> AtBirth) -> bool {
        let mut state = lock(&self.state);
        let unborn = state.phase == Phase::Unborn;
        if unborn {
            state.at_birth.push(action());
        }
        unborn
    }

    fn prepare_child(
        &self,
        space: Arc<Space>,
        owner: Arc<dyn ContextOwner>,
        leader: bool,
    ) -> SysResult<Arc<dyn Context>> {
        let mut state = lock(&self.state);
        if state.phase != Phase::Stopped {
            return Err(Errno::EAGAIN);
        }
        let child = Self::new(&self.tracer, space, owner, leader, state.regs);
        state.births.push(Arc::clone(&child));
        Ok(child)
    }
}

/// Describes a fault. Ptrace does not show the exception's number and error code, so these are
/// what usually lies behind such a signal.
fn describe(info: &sys::SigInfo) -> Fault {
    let (trap_no, error_code) = match (info.signo, info.code) {
        (libc::SIGSEGV | libc::SIGBUS, 0x80) => (13, 0),
        (libc::SIGSEGV, 2) => (14, 7), // SEGV_ACCERR: user, present, most often a write
        (libc::SIGSEGV, _) => (14, 4),
        (libc::SIGBUS, 1) => (17, 0), // BUS_ADRALN
        (libc::SIGBUS, _) => (14, 4),
        (libc::SIGFPE, 1) => (0, 0), // FPE_INTDIV
        (libc::SIGFPE, _) => (19, 0),
        (libc::SIGILL, _) => (6, 0),
        (libc::SIGTRAP, 0x80) => (3, 0),
        _ => (1, 0),
    };
    Fault { signo: info.signo, code: info.code, addr: info.addr, trap_no, error_code }
}

impl Context for Thread {
    fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::<Space>::clone(&self.space)
    }

    fn syscall(&self) -> SyscallArgs {
        lock(&self.state).syscall
    }

    fn regs(&self) -> Regs {
        lock(&self.state).regs
    }

    fn set_regs(&self, regs: &Regs) {
        /// Carry, parity, adjust, zero, sign, trap, direction, overflow, resume, alignment check.
        const SETTABLE_FLAGS: u64 = 0x5_0dd5;
        let mut state = lock(&self.state);
        let old = state.regs;
        let eflags = regs.eflags & SETTABLE_FLAGS | old.eflags & !SETTABLE_FLAGS;
        state.regs = Regs {
            eflags,
            cs: old.cs,
            ss: old.ss,
            ds: old.ds,
            es: old.es,
            fs: old.fs,
            gs: old.gs,
            ..*regs
        };
    }

    fn set_return(&self, value: u64) {
        lock(&self.state).regs.rax = value;
    }

    fn read(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize> {
        self.space.read(addr, dst)
    }

    fn write(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        if self.put_off(|| AtBirth::Write(addr, src.to_vec())) {
            return Ok(src.len());
        }
        self.space.write(addr, src)
    }

    fn save_xstate(&self, addr: UserAddr) -> SysResult<()> {
        if self.put_off(|| AtBirth::SaveXstate(addr)) {
            return Ok(());
        }
        let me = self.me.upgrade().ok_or(Errno::ESRCH)?;
        self.tracer.call(move || me.save_xstate_now(addr))
    }

    fn restore_xstate(&self, addr: UserAddr) -> SysResult<()> {
        if self.put_off(|| AtBirth::RestoreXstate(addr)) {
            return Ok(());
        }
        let me = self.me.upgrade().ok_or(Errno::ESRCH)?;
        self.tracer.call(move || me.restore_xstate_now(addr))
    }

    fn resume(&self, calls: &[HostCall]) {
        self.act(AtBirth::Resume(calls.to_vec()));
    }

    fn start_host_calls(&self, calls: &[HostCall]) {
        self.act(AtBirth::Start(calls.to_vec()));
    }

    fn start_fetch_xstate(&self) {
        self.act(AtBirth::FetchXstate);
    }

    fn start_load_xstate(&self, frame: &[u8]) {
        self.act(AtBirth::LoadXstate(frame.to_vec()));
    }

    fn host_call_results(&self) -> HostCallResults {
        lock(&self.state).results.clone()
    }

    fn call_now(&self, calls: &[HostCall]) -> SysResult<()> {
        let me = self.me.upgrade().ok_or(Errno::ESRCH)?;
        let calls = calls.to_vec();
        self.tracer.call(move || {
            if me.phase() != Phase::Stopped {
                return Err(Errno::ESRCH);
            }
            let results = me.run_calls(&calls).ok_or(Errno::ESRCH)?;
            let failed = results.values.into_iter().find_map(Result::err);
            failed.map_or(Ok(()), Err)
        })
    }

    fn fork(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        self.prepare_child(Arc::default(), owner, true)
    }

    fn clone_thread(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        self.prepare_child(Arc::clone(&self.space), owner, false)
    }

    fn interrupt(&self) {
        if self.flow.fetch_or(INTERRUPT, Ordering::SeqCst) == RUNNING {
            let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
            if !*gone {
                // A thread that has been killed needs no signal.
                let _ = self.space.signal_thread(self.tid(), sys::KICK_SIGNAL);
            }
        }
    }

    fn exit(&self) {
        self.act(AtBirth::Exit);
    }

    fn usage(&self) -> Option<ThreadUsage> {
        self.space.thread_usage(self.tid())
    }

    fn set_schedule(&self, schedule: &Schedule) {
        let mut wanted = lock(&self.schedule);
        if !self.schedule_now(schedule) {
            *wanted = Some(schedule.clone());
        }
    }

    fn set_fast_path(&self, _facts: Option<FastPathFacts>) {}
}
