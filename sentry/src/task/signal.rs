//! Signals: what is pending, what is to be done about it, and who is told.
//!
//! [`queue`] holds pending signals, [`post`] puts them there, [`deliver`] takes them out on the
//! way back to the application, [`frame`] is the stack frame of a handler, [`lent`] the mask of a thread
//! that may change it by itself.

pub mod deliver;
pub mod frame;
pub(crate) mod lent;
pub mod post;
pub mod queue;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::Fault;
use syscalls::abi::signal::{self, SigSet, Sigaction, Siginfo, Stackt};
use syscalls::arch::x86_64::Regs;

use self::queue::SignalQueue;
use super::{CurrentTask, Task};

pub use post::{send_to_group, send_to_process_group, send_to_self, send_to_task};

/// The part of a thread's signal state.
#[derive(Default)]
pub struct TaskSignals {
    /// Signals directed to the thread.
    pub(crate) pending: SignalQueue,
    /// Blocked signals.
    pub(crate) mask: SigSet,
    /// The mask to go back to after `sigsuspend(2)`, `ppoll(2)` and the like.
    pub(crate) saved_mask: Option<SigSet>,
    /// What `rt_sigtimedwait(2)` waits for: not blocked as far as waking the thread goes.
    pub(crate) waiting_for: SigSet,
    /// The alternate stack.
    pub(crate) altstack: Stackt,
    /// The fault behind the synchronous signal that is delivered next.
    pub(crate) fault: Fault,
    /// The call that `restart_syscall(2)` goes on with, and its deadline.
    pub(crate) restart_block: Option<(sentry_platform::SyscallArgs, Option<u64>)>,
}

/// The part of a process's signal state.
#[derive(Default)]
pub struct GroupSignals {
    /// Signals directed to the process.
    pub(crate) pending: SignalQueue,
    /// The stop signal, while the process is stopped or about to be.
    pub(crate) stop: Option<i32>,
    /// How many threads have stopped.
    pub(crate) n_stopped: usize,
    /// The wait status with which all threads are to exit.
    pub(crate) exit_status: Option<i32>,
    /// Whether it ends by a fatal signal: nothing holds it up.
    pub(crate) is_killed: bool,
    /// The thread that executes a program: all others exit.
    pub(crate) exec_tid: Option<u32>,
}

/// The actions of all signals.
#[derive(Clone)]
pub struct SignalActions([Sigaction; signal::NSIG]);

impl Default for SignalActions {
    fn default() -> Self {
        Self([Sigaction::default(); signal::NSIG])
    }
}

impl SignalActions {
    /// Returns the action of a signal; the default one for a number that is none.
    pub fn get(&self, signo: i32) -> Sigaction {
        index(signo).and_then(|i| self.0.get(i)).copied().unwrap_or_default()
    }

    /// Sets the action of a signal.
    pub fn set(&mut self, signo: i32, action: Sigaction) {
        if let Some(entry) = index(signo).and_then(|i| self.0.get_mut(i)) {
            *entry = action;
        }
    }

    /// Resets handlers as exec does: caught signals to the default, ignored ones stay.
    pub fn reset_for_exec(&mut self) {
        for action in &mut self.0 {
            if action.handler != signal::SIG_IGN {
                *action = Sigaction::default();
            } else {
                *action = Sigaction { handler: signal::SIG_IGN, ..Sigaction::default() };
            }
        }
    }

    /// Resets handlers as `CLONE_CLEAR_SIGHAND` does.
    pub fn clear_handlers(&mut self) {
        self.reset_for_exec();
    }
}

fn index(signo: i32) -> Option<usize> {
    usize::try_from(signo).ok()?.checked_sub(1)
}

/// Returns whether `signo` is a signal's number.
pub fn is_valid(signo: i32) -> bool {
    (1..=signal::SIGRTMAX).contains(&signo)
}

/// What a signal does where it is not caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process with a core dump.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Continues the process.
    Continue,
}

/// Returns the default action of a signal (`signal(7)`).
pub fn default_action(signo: i32) -> DefaultAction {
    match signo {
        signal::SIGCHLD | signal::SIGURG | signal::SIGWINCH => DefaultAction::Ignore,
        signal::SIGCONT => DefaultAction::Continue,
        signal::SIGSTOP | signal::SIGTSTP | signal::SIGTTIN | signal::SIGTTOU => {
            DefaultAction::Stop
        }
        signal::SIGQUIT
        | signal::SIGILL
        | signal::SIGTRAP
        | signal::SIGABRT
        | signal::SIGBUS
        | signal::SIGFPE
        | signal::SIGSEGV
        | signal::SIGXCPU
        | signal::SIGXFSZ
        | signal::SIGSYS => DefaultAction::Core,
        _ => DefaultAction::Terminate,
    }
}

/// Raises the signal of a synchronous exception; it cannot be blocked or ignored.
pub(crate) fn raise_fault(current: &CurrentTask, fault: &Fault) {
    let info = Siginfo::fault(fault.signo, fault.code, fault.addr);
    current.signals.lock().fault = *fault;
    if crate::log::is_debug() {
        log_fault(current, fault);
    }
    force(current, info);
}

/// Writes a debug line about an exception that ends the process: where, on what, and in which areas
/// of its memory both lie.
fn log_fault(current: &CurrentTask, fault: &Fault) {
    let action = current.group.actions.lock().lock().get(fault.signo);
    let is_caught = action.handler != signal::SIG_DFL && action.handler != signal::SIG_IGN;
    if is_caught && !current.signals.lock().mask.contains(fault.signo) {
        return;
    }
    let Regs { rip, rsp, rax, rcx, rdx, fs_base, .. } = current.context().regs();
    let mm = current.mm();
    let [at, on, stack] = [rip, fault.addr, rsp].map(|addr| mm.describe(addr));
    crate::log::debug(format_args!(
        "task {}: signal {} code {} error {:#x} at {rip:#x} [{at}] on {:#x} [{on}] stack {rsp:#x} [{stack}] \
         rax {rax:#x} rcx {rcx:#x} rdx {rdx:#x} fs {fs_base:#x}",
        current.tid(),
        fault.signo,
        fault.code,
        fault.error_code,
        fault.addr,
    ));
}

/// Sends a signal to the current thread that it can neither block nor ignore: where it tries, the
/// action becomes the default one.
pub(crate) fn force(current: &CurrentTask, info: Siginfo) {
    let signo = info.si_signo;
    {
        let actions = current.group.actions.lock().clone();
        let mut actions = actions.lock();
        let mut signals = current.signals.lock();
        let action = actions.get(signo);
        if signals.mask.contains(signo) || action.handler == signal::SIG_IGN {
            actions.set(signo, Sigaction::default());
            signals.mask.remove(signo);
        }
        signals.pending.push_forced(info);
    }
    lent::announce(current);
    current.attention.store(true, Ordering::SeqCst);
}

impl Task {
    /// Returns whether there is a signal to deliver, a stop or an exit.
    pub(crate) fn wants_attention(&self) -> bool {
        self.attention.store(false, Ordering::SeqCst);
        let wants = {
            let group = self.group.signals.lock();
            let signals = self.signals.lock();
            let deliverable = signals.mask.difference(signals.waiting_for).complement();
            group.exit_status.is_some()
                || group.exec_tid.is_some_and(|tid| tid != self.tid())
                || (group.stop.is_some() && !self.ptrace.ignores_stop())
                || self.ptrace.wants_trap()
                || !signals.pending.set().intersection(deliverable).is_empty()
                || !group.pending.set().intersection(deliverable).is_empty()
        };
        if wants {
            self.attention.store(true, Ordering::SeqCst);
        }
        wants
    }

    /// Returns the blocked signals.
    pub fn signal_mask(&self) -> SigSet {
        self.signals.lock().mask
    }
}

/// Makes a thread look at its signals after its mask or its surroundings have changed.
pub(crate) fn recheck(task: &Task) {
    task.attention.store(true, Ordering::SeqCst);
}

impl CurrentTask {
    /// Blocks the signals of `mask` until the present call returns; a later run of the same call
    /// changes nothing.
    pub(crate) fn set_temporary_mask(&self, mask: SigSet) {
        let mut signals = self.signals.lock();
        if signals.saved_mask.is_none() {
            signals.saved_mask = Some(signals.mask);
            signals.mask = mask.difference(SigSet::UNBLOCKABLE);
            self.has_saved_mask.store(true, Ordering::Relaxed);
        }
        drop(signals);
        recheck(self);
    }

    /// Sets the mask for good.
    pub(crate) fn set_signal_mask(&self, mask: SigSet) {
        self.signals.lock().mask = mask.difference(SigSet::UNBLOCKABLE);
        recheck(self);
    }
}

/// Returns the processes and threads that a stopped or continued process consists of, woken.
pub(crate) fn wake_all(tasks: &[Arc<Task>]) {
    for task in tasks {
        super::run::interrupt(task);
    }
}
