//! On the way back to the application: exits, stops, and signals with their handlers.

use std::sync::atomic::Ordering;

use syscalls::Errno;
use syscalls::abi::signal::{
    SIG_DFL, SIG_IGN, SIGKILL, SIGSEGV, SIGSTOP, SaFlags, SigSet, Sigaction, Siginfo,
};
use syscalls::abi::wait as status;
use syscalls::arch::x86_64::nr;

use super::{DefaultAction, default_action, frame};
use crate::task::{CurrentTask, Restart, coredump, exit, ptrace};

/// What a task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Goes to the application.
    Application,
    /// Stays stopped until it is woken.
    Stopped,
    /// Stays stopped for its tracer.
    Traced,
    /// Is gone.
    Exited,
}

/// Returns whether the thread ends before it next runs application code.
pub(crate) fn is_leaving(current: &CurrentTask) -> bool {
    let group = current.group.signals.lock();
    group.exit_status.is_some() || group.exec_tid.is_some()
}

/// Returns whether [`before_return`] has something to do.
pub(crate) fn is_due(current: &CurrentTask) -> bool {
    let has_stopped = current.group.signals.lock().stop.is_some();
    is_leaving(current)
        || has_stopped
        || current.ptrace.is_on()
        || current.container().is_frozen()
        || current.has_attention()
        || current.signals.lock().saved_mask.is_some()
}

/// Handles everything that is pending before a task returns to the application.
pub(crate) fn before_return(current: &CurrentTask) -> Next {
    let mut handled = false;
    loop {
        let (exit_status, exec_tid, stop) = {
            let group = current.group.signals.lock();
            (group.exit_status, group.exec_tid, group.stop)
        };
        if let Some(status) = exit_status {
            exit::exit_task(current, status);
            return Next::Exited;
        }
        if exec_tid.is_some_and(|tid| tid != current.tid()) {
            exit::exit_task(current, 0);
            return Next::Exited;
        }
        if current.ptrace.is_on() {
            if ptrace::stop::trap(current) {
                return Next::Traced;
            }
        } else if let Some(signo) = stop {
            count_stop(current, signo);
            return Next::Stopped;
        }
        if current.container().is_frozen() {
            return Next::Stopped;
        }
        let delivery = ptrace::stop::take_delivery(current);
        if delivery.is_none() && !current.has_attention() {
            break;
        }
        let info = match delivery {
            Some(info) => info,
            None => {
                let Some(info) = take_signal(current) else { break };
                if info.si_signo != SIGKILL && current.ptrace.is_on() {
                    ptrace::stop::deliver(current, info);
                    return Next::Traced;
                }
                info
            }
        };
        match handle(current, info, &mut handled) {
            Some(next) => return next,
            None => continue,
        }
    }
    if !handled {
        restart_without_handler(current);
        if !current.has_saved_mask.load(Ordering::Relaxed) {
            return Next::Application;
        }
        current.has_saved_mask.store(false, Ordering::Relaxed);
        let mut signals = current.signals.lock();
        if let Some(mask) = signals.saved_mask.take() {
            signals.mask = mask;
            drop(signals);
            super::recheck(current);
            if current.has_attention() {
                return before_return(current);
            }
        }
    }
    Next::Application
}

fn take_signal(current: &CurrentTask) -> Option<Siginfo> {
    let mut group = current.group.signals.lock();
    let mut signals = current.signals.lock();
    let wanted = signals.mask.complement();
    let mut info = signals.pending.take(wanted).or_else(|| group.pending.take(wanted));
    drop(signals);
    drop(group);
    if let Some(info) = &mut info {
        current.group.timers.signal_delivered(info);
    }
    info
}

/// Acts on one signal. Returns `None` to go on with the next one.
fn handle(current: &CurrentTask, info: Siginfo, handled: &mut bool) -> Option<Next> {
    let signo = info.si_signo;
    let action = {
        let actions = current.group.actions.lock().clone();
        let mut actions = actions.lock();
        let action = actions.get(signo);
        let caught = action.handler != SIG_DFL && action.handler != SIG_IGN;
        if caught && SaFlags::from_bits_retain(action.flags).contains(SaFlags::RESETHAND) {
            actions.set(signo, Sigaction { handler: SIG_DFL, ..action });
        }
        action
    };
    match action.handler {
        SIG_IGN => None,
        SIG_DFL => default(current, &info),
        _ => {
            let restart = current.restart.take();
            if let Some(restart) = restart {
                let restarts = match restart {
                    Restart::NoIntr => true,
                    Restart::Sys => {
                        SaFlags::from_bits_retain(action.flags).contains(SaFlags::RESTART)
                    }
                    Restart::NoHand | Restart::RestartBlock => false,
                };
                if restarts {
                    rewind(current, None);
                } else {
                    current.context().set_return(Errno::EINTR.to_return());
                }
            }
            *handled = true;
            if frame::push(current, &action, &info).is_err() {
                force_sigsegv(current, signo);
            } else if ptrace::stop::enter_handler(current) {
                return Some(Next::Traced);
            }
            None
        }
    }
}

/// A frame that cannot be written raises SIGSEGV, which kills where it was SIGSEGV's own frame.
pub(crate) fn force_sigsegv(current: &CurrentTask, signo: i32) {
    if signo == SIGSEGV {
        let actions = current.group.actions.lock().clone();
        actions.lock().set(SIGSEGV, Sigaction::default());
    }
    super::force(current, Siginfo::new(SIGSEGV, syscalls::abi::signal::SI_KERNEL));
}

fn default(current: &CurrentTask, info: &Siginfo) -> Option<Next> {
    let signo = info.si_signo;
    match default_action(signo) {
        DefaultAction::Ignore | DefaultAction::Continue => None,
        _ if signo != SIGKILL && super::post::is_protected(&current.group, info) => None,
        DefaultAction::Stop => {
            if signo != SIGSTOP && current.group.process_group().is_orphaned(None) {
                return None;
            }
            let mut group = current.group.signals.lock();
            if group.exit_status.is_none() {
                let is_new = group.stop.is_none();
                if is_new {
                    group.stop = Some(signo);
                    group.n_stopped = 0;
                }
                drop(group);
                // Whom its tracer has let go on all the same stops again.
                let tasks = current.group.live_tasks();
                tasks.iter().for_each(|task| task.ptrace.heed_stops());
                if is_new {
                    super::wake_all(&tasks);
                }
                super::recheck(current);
            }
            None
        }
        DefaultAction::Core => {
            coredump::end_process(current, info);
            Some(Next::Exited)
        }
        DefaultAction::Terminate => {
            exit::exit_group(current, status::signaled(signo, false));
            Some(Next::Exited)
        }
    }
}

/// Counts a thread as stopped; the last one tells the parent.
pub(crate) fn count_stop(current: &CurrentTask, signo: i32) {
    let n_live = current.group.live_tasks().len();
    let all = {
        let mut group = current.group.signals.lock();
        group.n_stopped += 1;
        group.n_stopped == n_live
    };
    if all {
        ptrace::stop::tell_parent_of_stop(current, signo);
    }
}

/// Makes an interrupted call that met no handler run again.
fn restart_without_handler(current: &CurrentTask) {
    let Some(restart) = current.restart.take() else { return };
    match restart {
        Restart::RestartBlock => rewind(current, Some(nr::RESTART_SYSCALL)),
        Restart::Sys | Restart::NoIntr | Restart::NoHand => rewind(current, None),
    }
}

/// Sets the registers so that the application executes its `syscall` instruction once more.
fn rewind(current: &CurrentTask, number: Option<u64>) {
    let mut regs = current.context().regs();
    regs.rax = number.unwrap_or(regs.orig_rax);
    regs.rip = regs.rip.wrapping_sub(2);
    current.context().set_regs(&regs);
}

/// Returns the mask that a handler's frame saves: the one from before `sigsuspend(2)`, if any.
pub(crate) fn frame_mask(current: &CurrentTask, action: &Sigaction, signo: i32) -> SigSet {
    let mut signals = current.signals.lock();
    let before = signals.saved_mask.take().unwrap_or(signals.mask);
    let mut mask = signals.mask.union(action.mask);
    if !SaFlags::from_bits_retain(action.flags).contains(SaFlags::NODEFER) {
        mask.insert(signo);
    }
    signals.mask = mask.difference(SigSet::UNBLOCKABLE);
    before
}
