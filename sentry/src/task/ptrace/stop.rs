//! The stops of a tracee: how they begin, and how the task goes on from them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::{Event, Fault, SyscallArgs};
use syscalls::abi::ptrace::{
    PTRACE_EVENT_EXIT, PTRACE_EVENT_SECCOMP, PTRACE_EVENT_STOP, PTRACE_EVENTMSG_SYSCALL_ENTRY,
    PTRACE_EVENTMSG_SYSCALL_EXIT, PtraceOptions,
};
use syscalls::abi::signal::{SI_KERNEL, SI_USER, SIGTRAP, Siginfo, TRAP_BRKPT};

use super::errand::{Errand, Slot};
use super::report;
use crate::mm::in_flight;
use crate::task::run::Step;
use crate::task::{Control, CurrentTask, Restart, Task, signal, wait};

/// The trap flag of `eflags`.
const TRAP_FLAG: u64 = 0x100;
/// What tells a stop at a system call from a signal.
const SYSCALL_MARK: i32 = 0x80;

/// A stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// What `wait4(2)` shows above the lowest byte: the signal, and the event above that.
    pub(crate) code: i32,
    /// The record of `PTRACE_GETSIGINFO`, which a stop of the process has not.
    pub(crate) info: Option<Siginfo>,
    /// The system call of a stop at one.
    pub(crate) call: Option<CallStop>,
    /// Whether the tracer may know.
    pub(crate) is_announced: bool,
    /// Whether a wait has shown it.
    pub(crate) is_seen: bool,
}

/// Where in a system call a tracee stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallStop {
    Entry,
    Exit,
    /// By a filter, with its data.
    Seccomp(u32),
}

/// What a tracee does when its stop ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// Goes on with its way back to the application.
    Return,
    /// The same, after a stop on the way out of a system call.
    CallDone,
    /// Makes the call that it has entered, or not (`PTRACE_SYSEMU`).
    Entry { is_emulated: bool },
    /// Makes the call about which a filter has asked.
    Seccomp,
    /// Runs the handler of the present call again.
    Call,
    /// Has the signal that its tracer lets it have.
    Signal(Siginfo),
    /// Ends with this status.
    Leave(i32),
}

/// What comes after a look at a stopped tracee.
pub(crate) enum GoOn {
    /// It stays.
    Stay,
    /// It does something meanwhile.
    Errand(Errand),
    /// It goes on.
    Next(Step),
    /// It goes on with a system call that its filters have not seen.
    Admit,
    /// It ends.
    Leave(i32),
}

impl Stop {
    fn new(code: i32, info: Option<Siginfo>, call: Option<CallStop>) -> Self {
        Self { code, info, call, is_announced: false, is_seen: false }
    }

    /// The stop of `ptrace_notify` in Linux.
    fn notice(current: &CurrentTask, code: i32, call: Option<CallStop>) -> Self {
        let pid = current.tid_in(&current.pid_namespace());
        let pid = i32::try_from(pid).unwrap_or(0);
        let info = Siginfo::kill(code & 0x7f, code, pid, current.creds().uid);
        Self::new(code, Some(info), call)
    }

    /// Returns whether this is a `PTRACE_EVENT_STOP`.
    pub(crate) fn is_event_stop(&self) -> bool {
        self.code >> 8 == PTRACE_EVENT_STOP
    }
}

/// Begins a stop: the task is not to go on before [`go_on`] says so.
fn begin(current: &CurrentTask, stop: Stop, phase: Phase, message: Option<u64>) {
    current.context().sync_memory();
    let restart = *current.restart.lock();
    if let Some(restart) = restart {
        current.context().set_return(restart.to_return());
    }
    let mut state = current.ptrace.state.lock();
    if let Some(message) = message {
        state.message = message;
    }
    state.stop = Some(stop);
    state.phase = Some(phase);
    state.signal = 0;
    state.is_listening = false;
}

/// Stops at an event in the middle of the present call, whose handler then runs again.
pub(crate) fn event(current: &CurrentTask, event: i32, message: u64) -> Control {
    let stop = Stop::notice(current, SIGTRAP | event << 8, None);
    begin(current, stop, Phase::Call, Some(message));
    Control::Traced
}

/// Is told of the entry to a system call. Returns whether the task stops there.
pub(crate) fn enter_call(current: &CurrentTask) -> bool {
    let (run, is_marked) = {
        let mut state = current.ptrace.state.lock();
        state.is_in_call = true;
        (state.run, state.options.contains(PtraceOptions::TRACESYSGOOD))
    };
    let is_emulated = matches!(run, super::Run::Sysemu | super::Run::SysemuStep);
    if !is_emulated && run != super::Run::Syscall {
        return false;
    }
    let code = SIGTRAP | if is_marked { SYSCALL_MARK } else { 0 };
    let stop = Stop::notice(current, code, Some(CallStop::Entry));
    begin(current, stop, Phase::Entry { is_emulated }, Some(PTRACE_EVENTMSG_SYSCALL_ENTRY));
    true
}

/// Asks the tracer about a call for a filter. Returns false where nobody wants to be asked.
pub(crate) fn ask(current: &CurrentTask, data: u32) -> bool {
    if !current.ptrace.has_option(PtraceOptions::TRACESECCOMP) {
        return false;
    }
    let code = SIGTRAP | PTRACE_EVENT_SECCOMP << 8;
    let stop = Stop::notice(current, code, Some(CallStop::Seccomp(data)));
    begin(current, stop, Phase::Seccomp, Some(data.into()));
    true
}

/// Is told of the way out of a system call, and of every other way back. Returns whether the task
/// stops.
pub(crate) fn leave_call(current: &CurrentTask) -> bool {
    let mut state = current.ptrace.state.lock();
    if let Some((event, message)) = state.event.take() {
        drop(state);
        let stop = Stop::notice(current, SIGTRAP | event << 8, None);
        begin(current, stop, Phase::Return, Some(message));
        return true;
    }
    if !std::mem::take(&mut state.is_in_call) {
        return false;
    }
    let run = state.run;
    let is_marked = state.options.contains(PtraceOptions::TRACESYSGOOD);
    drop(state);
    if run == super::Run::Syscall {
        let code = SIGTRAP | if is_marked { SYSCALL_MARK } else { 0 };
        let stop = Stop::notice(current, code, Some(CallStop::Exit));
        begin(current, stop, Phase::CallDone, Some(PTRACE_EVENTMSG_SYSCALL_EXIT));
        return true;
    }
    if run.is_step() {
        let rip = current.context().regs().rip;
        let fault = Fault { signo: SIGTRAP, code: TRAP_BRKPT, addr: rip, ..Fault::default() };
        signal::raise_fault(current, &fault);
    }
    false
}

/// Stops where the tracer has asked for it, or where the process stops. Returns whether it does.
pub(crate) fn trap(current: &CurrentTask) -> bool {
    let process_stop = current.group.signals.lock().stop;
    let wants_trap = current.ptrace.wants_trap.swap(false, Ordering::SeqCst);
    let group_stop = process_stop.filter(|_| !current.ptrace.ignores_stop());
    if !wants_trap && group_stop.is_none() {
        return false;
    }
    let is_seized = current.ptrace.state.lock().is_seized;
    let stop = if is_seized {
        let signo = process_stop.unwrap_or(SIGTRAP);
        Stop::notice(current, signo | PTRACE_EVENT_STOP << 8, None)
    } else {
        Stop::new(process_stop.unwrap_or(SIGTRAP), None, None)
    };
    begin(current, stop, Phase::Return, Some(0));
    if let Some(signo) = group_stop {
        signal::deliver::count_stop(current, signo);
    }
    true
}

/// Stops with a signal that is about to be delivered.
pub(crate) fn deliver(current: &CurrentTask, info: Siginfo) {
    begin(current, Stop::new(info.si_signo, Some(info), None), Phase::Signal(info), Some(0));
}

/// Takes the signal that is to be delivered next, whatever else is pending.
pub(crate) fn take_delivery(current: &CurrentTask) -> Option<Siginfo> {
    if !current.ptrace.was_on.load(Ordering::Relaxed) {
        return None;
    }
    current.ptrace.state.lock().delivery.take()
}

/// Is told that the registers are those of a handler. Returns whether the task stops there, being
/// single-stepped.
pub(crate) fn enter_handler(current: &CurrentTask) -> bool {
    if !current.ptrace.is_on() || !current.ptrace.state.lock().run.is_step() {
        return false;
    }
    let stop = Stop::notice(current, SIGTRAP, None);
    begin(current, stop, Phase::Return, Some(0));
    true
}

/// Is told that the task is about to end. Returns whether it stops first, and ends later.
pub(crate) fn exits(current: &CurrentTask, status: i32) -> bool {
    let is_killed = current.group.signals.lock().is_killed;
    {
        let mut state = current.ptrace.state.lock();
        let is_wanted = state.options.contains(PtraceOptions::TRACEEXIT);
        if !is_wanted || is_killed || std::mem::replace(&mut state.has_told_exit, true) {
            return false;
        }
    }
    current.set_restart(None);
    current.end_block();
    let group_status = current.group.signals.lock().exit_status;
    let message = u64::from(group_status.unwrap_or(status).cast_unsigned());
    let stop = Stop::notice(current, SIGTRAP | PTRACE_EVENT_EXIT << 8, None);
    begin(current, stop, Phase::Leave(status), Some(message));
    true
}

/// Is told that a program has been executed; `old_tid` is what the tracer knew the thread by.
pub(crate) fn executed(task: &Arc<Task>, old_tid: u32) {
    if !task.ptrace.is_on() {
        return;
    }
    let mut state = task.ptrace.state.lock();
    state.clean_mm = None;
    if state.options.contains(PtraceOptions::TRACEEXEC) {
        state.event = Some((syscalls::abi::ptrace::PTRACE_EVENT_EXEC, old_tid.into()));
    } else if !state.is_seized {
        drop(state);
        let pid = i32::try_from(task.tid_in(&task.pid_namespace())).unwrap_or(0);
        let info = Siginfo::kill(SIGTRAP, SI_USER, pid, task.creds().uid);
        // A standard signal always finds room.
        let _ = signal::send_to_task(task, info);
    }
}

/// Decides what a task does that is or was stopped.
pub(crate) fn go_on(current: &CurrentTask) -> GoOn {
    let (is_ending, is_killed, process_stop) = {
        let group = current.group.signals.lock();
        let is_other = group.exec_tid.is_some_and(|tid| tid != current.tid());
        (group.exit_status.is_some() || is_other, group.is_killed, group.stop)
    };
    let mut state = current.ptrace.state.lock();
    let is_over = match state.phase {
        Some(Phase::Leave(_)) => is_killed,
        _ => is_ending,
    };
    if is_over {
        let phase = state.phase.take();
        state.stop = None;
        state.errand = Slot::Idle;
        drop(state);
        current.ptrace.events.notify(crate::sync::Events::IN);
        return match phase {
            Some(Phase::Leave(status)) => GoOn::Leave(status),
            _ => GoOn::Next(Step::Return),
        };
    }
    match std::mem::take(&mut state.errand) {
        Slot::Wanted(key, errand) => {
            state.errand = Slot::Running(Some(key));
            return GoOn::Errand(errand);
        }
        other => state.errand = other,
    }
    if let Some(stop) = &state.stop {
        if !stop.is_announced && needs_flush(current, state.clean_mm) {
            drop(state);
            return GoOn::Errand(flush(current));
        }
        if state.is_listening && current.ptrace.wants_trap.swap(false, Ordering::SeqCst) {
            state.is_listening = false;
            drop(state);
            let code = process_stop.unwrap_or(SIGTRAP) | PTRACE_EVENT_STOP << 8;
            begin(current, Stop::notice(current, code, None), Phase::Return, None);
        }
        return GoOn::Stay;
    }
    let phase = state.phase.take();
    let (signal, info) = (state.signal, state.resumed_with.take());
    state.is_listening = false;
    drop(state);
    match phase {
        None | Some(Phase::Return) => {
            reconsider_restart(current);
            GoOn::Next(Step::Return)
        }
        Some(Phase::CallDone) => {
            inject(current, signal);
            reconsider_restart(current);
            GoOn::Next(Step::Return)
        }
        Some(Phase::Signal(original)) => {
            reconsider_restart(current);
            let delivery = injected(current, info.unwrap_or(original), signal);
            current.ptrace.state.lock().delivery = delivery;
            signal::recheck(current);
            GoOn::Next(Step::Return)
        }
        Some(Phase::Call) => GoOn::Next(Step::Call),
        Some(Phase::Leave(status)) => GoOn::Leave(status),
        Some(Phase::Entry { is_emulated }) => {
            inject(current, signal);
            if is_emulated {
                current.ptrace.state.lock().is_in_call = false;
                return GoOn::Next(Step::Return);
            }
            adopt_call(current, GoOn::Admit)
        }
        Some(Phase::Seccomp) => adopt_call(current, GoOn::Next(Step::Call)),
    }
}

/// Takes the call from the registers, which the tracer may have changed. A number below zero is no
/// call: `rax` stays.
fn adopt_call(current: &CurrentTask, next: GoOn) -> GoOn {
    let regs = current.context().regs();
    let number = regs.orig_rax & u64::from(u32::MAX);
    let call =
        SyscallArgs { number, args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] };
    *current.call.lock() = call;
    let is_none = u32::try_from(number).is_ok_and(|number| number.cast_signed() < 0);
    if is_none { GoOn::Next(Step::Return) } else { next }
}

/// Restarts the interrupted call, or not, as the registers say: the tracer may have changed them.
fn reconsider_restart(current: &CurrentTask) {
    let regs = current.context().regs();
    let is_in_call = regs.orig_rax.cast_signed() >= 0;
    current.set_restart(Restart::from_return(regs.rax).filter(|_| is_in_call));
}

/// Returns the record of the signal that the tracer lets a tracee have, where that is now delivered.
fn injected(current: &CurrentTask, info: Siginfo, signo: i32) -> Option<Siginfo> {
    if signo == 0 {
        return None;
    }
    let info = if signo == info.si_signo { info } else { from_tracer(current, signo) };
    if current.signals.lock().mask.contains(signo) {
        let _ = signal::send_to_task(current.task(), info);
        return None;
    }
    Some(info)
}

/// Sends a signal that a tracer has given at a system call: it looks like the kernel's own.
fn inject(current: &CurrentTask, signo: i32) {
    if signo != 0 {
        let _ = signal::send_to_task(current.task(), Siginfo::new(signo, SI_KERNEL));
    }
}

fn from_tracer(current: &CurrentTask, signo: i32) -> Siginfo {
    let tracer = current.ptrace.tracer();
    let (pid, uid) = tracer.map_or((0, 0), |tracer| {
        (tracer.group.pid_in(&current.pid_namespace()), tracer.creds().uid)
    });
    Siginfo::kill(signo, SI_USER, i32::try_from(pid).unwrap_or(0), uid)
}

/// Returns whether something of the tracee's is still to be done before others look at it.
fn needs_flush(current: &CurrentTask, clean_mm: Option<u64>) -> bool {
    clean_mm != Some(current.mm().id())
        || !current.host_calls.lock().is_empty()
        || current.pending_clone.lock().is_some()
}

/// Has the host calls made that wait for the way back, children born, and the text put back.
fn flush(current: &CurrentTask) -> Errand {
    let mm = current.mm();
    let has_more = current.context().unpatch(&|addr| mm.text_prot(addr));
    let calls = std::mem::take(&mut *current.host_calls.lock());
    let mut state = current.ptrace.state.lock();
    if !has_more {
        state.clean_mm = Some(mm.id());
    }
    state.errand = Slot::Running(None);
    Errand::HostCalls(calls)
}

/// Is told of an event of the context. Returns whether it is the end of an errand.
pub(crate) fn end_errand(current: &CurrentTask, event: &Event) -> bool {
    if !matches!(event, Event::HostCallsDone | Event::HostCallFailed { .. }) {
        return false;
    }
    let key = {
        let state = current.ptrace.state.lock();
        let Slot::Running(key) = state.errand else { return false };
        key
    };
    let results = current.context().host_call_results();
    let Some(key) = key else {
        let failed = results.values.iter().enumerate().find_map(|(i, v)| Some((i, v.err()?)));
        match failed {
            Some((index, errno)) => {
                crate::task::run::host_call_failed(current, index, errno);
            }
            None => *current.pending_clone.lock() = None,
        }
        in_flight::retire(current.task());
        current.ptrace.state.lock().errand = Slot::Idle;
        return true;
    };
    current.ptrace.state.lock().errand = Slot::Done(key, results);
    current.ptrace.events.notify(crate::sync::Events::IN);
    true
}

/// Tells the tracer of a stop, once nobody works on the tracee.
pub(crate) fn announce(task: &Arc<Task>) {
    let code = {
        let mut state = task.ptrace.state.lock();
        match &mut state.stop {
            Some(stop) if !stop.is_announced => {
                stop.is_announced = true;
                stop.code
            }
            _ => return,
        }
    };
    report::tell_tracer_of_stop(task, code);
}

/// Sets the trap flag where the application is to make one step.
pub(crate) fn arm(current: &CurrentTask) {
    {
        let mut state = current.ptrace.state.lock();
        if !state.run.is_step() {
            return;
        }
        state.is_armed = true;
    }
    let mut regs = current.context().regs();
    regs.eflags |= TRAP_FLAG;
    current.context().set_regs(&regs);
}

/// Takes the trap flag away.
pub(crate) fn disarm(current: &CurrentTask) {
    if !std::mem::take(&mut current.ptrace.state.lock().is_armed) {
        return;
    }
    let mut regs = current.context().regs();
    regs.eflags &= !TRAP_FLAG;
    current.context().set_regs(&regs);
}

impl Restart {
    /// Returns what a tracer sees in `rax`.
    pub(crate) fn to_return(self) -> u64 {
        let code: i64 = match self {
            Self::Sys => -512,
            Self::NoIntr => -513,
            Self::NoHand => -514,
            Self::RestartBlock => -516,
        };
        code.cast_unsigned()
    }

    fn from_return(value: u64) -> Option<Self> {
        match value.cast_signed() {
            -512 => Some(Self::Sys),
            -513 => Some(Self::NoIntr),
            -514 => Some(Self::NoHand),
            -516 => Some(Self::RestartBlock),
            _ => None,
        }
    }
}

/// Tells whoever waits for the parent's sake that the process has stopped, unless that is the tracer.
pub(crate) fn tell_parent_of_stop(current: &CurrentTask, signo: i32) {
    let is_tracer = current.ptrace.tracer().is_some_and(|tracer| {
        current.group.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.group))
    });
    if !is_tracer {
        {
            let mut tree = current.group.tree.lock();
            tree.unseen_stop = Some(signo);
            tree.has_unseen_continue = false;
        }
        wait::notify_parent_of_stop(&current.group, signo);
    }
}
