//! What the sentry's tasks do with a context.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use sentry_host::clock::{self, Clock};
use sentry_host::schedule::{self, Schedule};
use sentry_host::usage::{ProcessUsage, ThreadUsage};
use sentry_host::window::Part;
use sentry_sysmsg::slot::Renew as _;
use sentry_sysmsg::{layout, slot};
use syscalls::arch::x86_64::Regs;
use syscalls::{Errno, SysResult, UserAddr};

use super::xcopy::XCopy;
use super::{Phase, State, SystrapContext, Then};
use crate::systrap::space::Space;
use crate::systrap::spin::{CPU_NUMBER, ticks, watched_since};
use crate::systrap::{calls, lock, messages};
use crate::{
    AddressSpace, Context, ContextOwner, FastPathFacts, HostCall, HostCallResults, PatchPermit,
    PatchWish, SyscallArgs, USER_ADDRESS_LIMIT,
};

/// Where in `struct rusage` these fields are, in words.
const RU_MAXRSS: usize = 4;
const RU_MINFLT: usize = 8;
const RU_MAJFLT: usize = 9;
/// When a thread that has not answered an interrupt is sent another signal, in nanoseconds.
const INTERRUPT_AGAIN_NS: u64 = 20_000_000;

/// More than any process can have.
const MAX_RESIDENT_KIB: u64 = USER_ADDRESS_LIMIT / 1024;

impl Context for SystrapContext {
    fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::<Space>::clone(&self.space)
    }

    fn syscall(&self) -> SyscallArgs {
        let regs = lock(&self.state).regs;
        SyscallArgs {
            number: regs.orig_rax & u64::from(u32::MAX),
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        }
    }

    fn regs(&self) -> Regs {
        let mut regs = lock(&self.state).regs;
        regs.cs = if regs.cs == USER32_CS { USER32_CS } else { USER_CS };
        regs.ss = USER_DS;
        regs
    }

    fn set_regs(&self, regs: &Regs) {
        let mut state = lock(&self.state);
        state.regs = *regs;
        state.regs_dirty = true;
    }

    fn set_return(&self, value: u64) {
        let mut state = lock(&self.state);
        state.regs.rax = value;
        state.ret_dirty = true;
    }

    fn read(&self, addr: UserAddr, dst: &mut [u8]) -> SysResult<usize> {
        {
            let mut state = lock(&self.state);
            if state.messages.has_outputs() {
                self.flush(&mut state);
            }
            if let Some(n) = state.messages.read(&self.slot, addr.0, dst) {
                return Ok(n);
            }
        }
        self.space.read(addr, dst)
    }

    fn write(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        if self.space.write_at_birth(addr, src) {
            return Ok(src.len());
        }
        let mut state = lock(&self.state);
        // What has come with the request may be what is overwritten.
        state.messages.forget_inputs();
        // Where others share the memory, they may look as soon as they are woken.
        let later = state.phase == Phase::Stopped
            && guest_end(addr, src)
            && (state.in_syscall && messages::wakes_nobody(state.regs.orig_rax)
                || self.space.is_alone());
        if later && state.messages.write(&self.slot, addr.0, src) {
            return Ok(src.len());
        }
        self.flush(&mut state);
        // Where there was no more room, the next pieces are stored together as well.
        if later && state.messages.write(&self.slot, addr.0, src) {
            return Ok(src.len());
        }
        drop(state);
        self.space.write(addr, src)
    }

    fn write_now(&self, addr: UserAddr, src: &[u8]) -> SysResult<usize> {
        if self.space.write_at_birth(addr, src) {
            return Ok(src.len());
        }
        let mut state = lock(&self.state);
        state.messages.forget_inputs();
        self.flush(&mut state);
        drop(state);
        self.space.write(addr, src)
    }

    fn fill(
        &self,
        addr: UserAddr,
        len: usize,
        fill: &mut dyn FnMut(&Part<'_>) -> SysResult<usize>,
    ) -> Option<SysResult<usize>> {
        calls::guest_range(addr.0, u64::try_from(len).ok()?).ok()?;
        {
            let mut state = lock(&self.state);
            if state.phase != Phase::Stopped || len > slot::DATA_LEN || self.space.pid() == 0 {
                return None;
            }
            self.flush(&mut state);
            // What came with the request is there, and may be what is overwritten.
            state.messages.forget_inputs();
        }
        // The slot is this side's until the answer.
        let result = fill(&self.slot.data_part(len)?);
        if let Ok(n @ 1..) = result {
            lock(&self.state).messages.filled(addr.0, n.min(len));
        }
        Some(result)
    }

    fn sync_memory(&self) {
        let mut state = lock(&self.state);
        state.messages.forget_inputs();
        self.flush(&mut state);
    }

    fn save_xstate(&self, addr: UserAddr) -> SysResult<()> {
        let addr = calls::guest_range(addr.0, u64::from(self.inner.xsave.size) + 4)?;
        let mut state = lock(&self.state);
        if state.xsave.len() >= slot::MAX_XSAVES {
            return Err(Errno::EFAULT);
        }
        state.xsave.push(addr);
        Ok(())
    }

    fn restore_xstate(&self, addr: UserAddr) -> SysResult<()> {
        lock(&self.state).xrestore = Some(calls::guest_range(addr.0, 0)?);
        Ok(())
    }

    fn resume(&self, calls: &[HostCall]) {
        self.start(calls, Then::Resume);
    }

    fn start_host_calls(&self, calls: &[HostCall]) {
        self.start(calls, Then::Report);
    }

    fn host_call_results(&self) -> HostCallResults {
        lock(&self.state).results.clone()
    }

    fn start_fetch_xstate(&self) {
        self.start_xcopy(XCopy::Fetch);
    }

    fn start_load_xstate(&self, frame: &[u8]) {
        self.start_xcopy(XCopy::Load(frame.to_vec()));
    }

    fn unpatch(&self, prot: &dyn Fn(u64) -> Option<i32>) -> bool {
        let mut state = lock(&self.state);
        state.site = None;
        let (calls, sites, has_more) = self.space.sites().unpatch(self.space.is_alone(), prot);
        state.quiet.extend(calls);
        state.patching.extend(sites);
        has_more
    }

    fn call_now(&self, calls: &[HostCall]) -> SysResult<()> {
        self.inner.wait_for(|| self.is_dead() || self.is_waiting());
        self.start(calls, Then::Wake);
        self.inner.wait_for(|| self.is_dead() || self.is_waiting());
        let state = lock(&self.state);
        if state.phase == Phase::Dead {
            return Err(Errno::ESRCH);
        }
        match state.results.values.last() {
            Some(Err(errno)) => Err(*errno),
            _ => Ok(()),
        }
    }

    fn fork(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        let space = Arc::new(self.inner.new_space()?);
        space.inherit(&self.space);
        let child = self.prepare(owner, &space, self.index)?;
        Ok(child)
    }

    fn clone_thread(&self, owner: Arc<dyn ContextOwner>) -> SysResult<Arc<dyn Context>> {
        let child = self.prepare(owner, &self.space, 0)?;
        Ok(child)
    }

    fn interrupt(&self) {
        // Remembered in any case: a stopped context sees it when it is resumed, so an owner that
        // looks for reasons before it resumes loses none. The flag goes with the next event.
        self.slot.interrupt.store(1, SeqCst);
        // A thread that has not rung yet has been told its id by the host, where it is not the first.
        let tid = Some(self.tid()).filter(|tid| *tid != 0).or_else(|| self.told_tid());
        // One signal is enough until the thread has answered, and each one that comes while the
        // handler of another still runs takes a frame of its own on its stack.
        let now_ns = clock::now_ns(Clock::Monotonic).cast_unsigned();
        let sent_ns = self.interrupted_ns.load(SeqCst);
        if sent_ns != 0 && now_ns.saturating_sub(sent_ns) < INTERRUPT_AGAIN_NS {
            return;
        }
        if self.running.load(SeqCst)
            && let Some(tid) = tid
        {
            self.interrupted_ns.store(now_ns, SeqCst);
            let _ = self.space.signal_thread(tid, layout::INTERRUPT_SIGNAL);
        }
    }

    fn exit(&self) {
        self.inner.exit(self);
    }

    fn told_usage(&self) -> Option<ProcessUsage> {
        let state = lock(&self.state);
        // The slot is this side's until the answer; what it says is the application's word.
        let is_told = state.phase == Phase::Stopped
            && state.in_syscall
            && slot::tells_usage(state.regs.orig_rax);
        drop(state);
        let word = |index: usize| {
            let place = self.slot.data.get(slot::USAGE_OFFSET / 8 + index);
            place.map_or(0, |word| word.load(Relaxed))
        };
        is_told.then(|| ProcessUsage {
            peak: word(RU_MAXRSS).min(MAX_RESIDENT_KIB) * 1024,
            faults: (word(RU_MINFLT), word(RU_MAJFLT)),
            ..ProcessUsage::default()
        })
    }

    fn wants_patch(&self) -> Option<PatchWish> {
        let state = lock(&self.state);
        state.site.as_ref().map(|site| self.space.sites().wish(site))
    }

    fn patch(&self, permit: Option<&PatchPermit>) {
        let mut state = lock(&self.state);
        let Some(site) = state.site.take() else { return };
        let alone = self.space.is_alone();
        let mut sites = self.space.sites();
        match permit {
            Some(permit) => {
                state.quiet = sites.patch(&site, permit, alone);
                state.patching.push(site.addr());
                // The way back leads through the trampoline already.
                state.regs_dirty |= site.needs_solitude();
            }
            None => sites.refuse(site.end()),
        }
    }

    fn usage(&self) -> Option<ThreadUsage> {
        self.space.thread_usage(self.tid(), self.spun.load(Relaxed))
    }

    fn cpu(&self) -> Option<u32> {
        // Above the number is that of the memory node.
        self.slot.cpu.load(Relaxed).checked_sub(1).map(|cpu| cpu & CPU_NUMBER)
    }

    fn set_schedule(&self, schedule: &Schedule) {
        let mut wanted = lock(&self.schedule);
        *wanted = Some(schedule.clone());
        wanted.take_if(|schedule| self.schedule_now(schedule));
    }

    fn set_fast_path(&self, facts: Option<FastPathFacts>) {
        let values = facts.map(|f| [f.pid, f.tid, f.ppid, f.uid, f.euid, f.gid, f.egid, f.pgid]);
        for (i, place) in self.slot.facts.iter().enumerate() {
            let value = values.and_then(|values| values.get(i).copied());
            place.store(value.map_or(0, |value| u64::from(value) | slot::FACT_VALID), Relaxed);
        }
        self.slot.fast.store(u32::from(facts.is_some()), Relaxed);
    }

    fn set_table(&self, table: u64) {
        self.slot.table.renew(table);
    }

    fn set_umask(&self, mask: u64) {
        self.slot.umask.renew(mask);
    }

    fn set_signal_mask(&self, mask: u64) {
        self.slot.signal_mask.renew(mask);
    }

    fn signal_mask(&self) -> Option<u64> {
        Some(self.slot.signal_mask.load(SeqCst))
    }

    fn set_signals_pending(&self, pending: bool) {
        self.slot.signals_pending.store(pending.into(), SeqCst);
    }

    fn has_signals_pending(&self) -> bool {
        self.slot.signals_pending.load(SeqCst) != 0
    }
}

/// Returns whether a write stays within the application's part.
fn guest_end(addr: UserAddr, src: &[u8]) -> bool {
    calls::guest_range(addr.0, u64::try_from(src.len()).unwrap_or(u64::MAX)).is_ok()
}

/// The code and data segments of applications.
const USER32_CS: u64 = 0x23;
const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;

impl SystrapContext {
    /// Returns the host thread that the slot names, where that is one of the process.
    pub(in crate::systrap) fn told_tid(&self) -> Option<u32> {
        let tid = self.slot.in_use.load(SeqCst);
        (tid > 1 && self.space.signal_thread(tid, 0).is_ok()).then_some(tid)
    }

    /// Records the host thread; an interrupt that came before is sent on.
    pub(in crate::systrap) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, SeqCst);
        if self.slot.interrupt.load(SeqCst) != 0 {
            let _ = self.space.signal_thread(tid, layout::INTERRUPT_SIGNAL);
        }
        self.schedule_wanted();
    }

    /// Has the host thread scheduled as was asked for when it was not known, where it is now.
    pub(in crate::systrap) fn schedule_wanted(&self) {
        let mut wanted = lock(&self.schedule);
        wanted.take_if(|schedule| self.schedule_now(schedule));
    }

    /// Has the host thread scheduled like this; returns whether it and its process are known.
    fn schedule_now(&self, schedule: &Schedule) -> bool {
        let tid = Some(self.tid()).filter(|tid| *tid != 0).or_else(|| self.told_tid());
        // One that has ended by itself must not have given its number to another process's.
        let tid = tid.filter(|tid| self.space.signal_thread(*tid, 0).is_ok());
        if let Some(tid) = tid {
            schedule::apply(tid.cast_signed(), schedule);
        }
        tid.is_some()
    }

    /// Says that the last request that was taken is answered.
    pub(super) fn publish(&self, state: &State) {
        self.answered.store(state.taken, Relaxed);
        self.slot.turn.done.store(state.taken, SeqCst);
    }

    /// Returns when the last request was taken that was not about host calls.
    pub(in crate::systrap) fn taken_at(&self) -> u64 {
        self.taken_at.load(Relaxed)
    }

    /// Notes that the application goes on, and for how long its thread has watched for that.
    pub(super) fn note_resumed(&self, has_watched: bool) {
        let now = ticks();
        self.resumed_at.store(now, Relaxed);
        if has_watched {
            let spun = watched_since(self.taken_at.load(Relaxed), now);
            self.spun.store(self.spun.load(Relaxed).saturating_add(spun), Relaxed);
            self.space.note_spun(spun);
        }
    }
}
