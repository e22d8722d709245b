//! Who traces whom.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::CAP_SYS_PTRACE;
use syscalls::abi::clone::CloneFlags;
use syscalls::abi::ptrace::{
    PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PtraceOptions,
};
use syscalls::abi::signal::{SI_KERNEL, SI_USER, SIGCHLD, SIGKILL, SIGSTOP, Siginfo};
use syscalls::abi::wait as status;
use syscalls::{Errno, SysResult};

use super::{Run, Tracee};
use crate::landlock;
use crate::sync::Events;
use crate::task::clone::Clone as CloneRequest;
use crate::task::{CurrentTask, Task, ThreadGroup, exit, run, signal, wait};

/// How a tracer takes a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// `PTRACE_ATTACH`.
    Attach,
    /// `PTRACE_SEIZE` with these options.
    Seize(PtraceOptions),
}

/// Makes the caller a tracee of its parent.
///
/// # Errors
/// `EPERM` where it is traced already.
pub(crate) fn trace_me(current: &CurrentTask) -> SysResult<()> {
    let _guard = current.kernel.tree.lock();
    if current.ptrace.is_on() {
        return Err(Errno::EPERM);
    }
    let (parent, parent_tid) = {
        let tree = current.group.tree.lock();
        (tree.parent.upgrade(), tree.parent_tid)
    };
    let Some(parent) = parent else { return Ok(()) };
    let tasks = parent.tasks();
    let alive = |task: &&Arc<Task>| !has_ended(task);
    let maker = tasks.iter().filter(alive).find(|task| task.tid() == parent_tid);
    if let Some(tracer) = maker.or_else(|| tasks.iter().find(alive)) {
        let own = current.creds();
        if !landlock::may_trace(tracer.creds().landlock.as_ref(), own.landlock.as_ref()) {
            return Err(Errno::EPERM);
        }
        link(tracer, current.task(), false, PtraceOptions::empty());
    }
    Ok(())
}

/// Makes a thread a tracee of the caller, which has the right to that; returns whether its process was stopped,
/// so that it will soon be stopped for its tracer.
///
/// # Errors
/// `EPERM` where it is of the same process, traced already, or has ended.
pub(crate) fn attach(current: &CurrentTask, task: &Arc<Task>, how: How) -> SysResult<bool> {
    if Arc::ptr_eq(&current.group, &task.group) {
        return Err(Errno::EPERM);
    }
    let guard = current.kernel.tree.lock();
    if task.ptrace.is_on() || task.exiting.load(Ordering::SeqCst) || has_ended(current) {
        return Err(Errno::EPERM);
    }
    match how {
        How::Attach => link(current.task(), task, false, PtraceOptions::empty()),
        How::Seize(options) => link(current.task(), task, true, options),
    }
    drop(guard);
    if how == How::Attach {
        // A standard signal always finds room.
        let _ = signal::send_to_task(task, Siginfo::new(SIGSTOP, SI_KERNEL));
    }
    let is_stopped = task.group.signals.lock().stop.is_some();
    if is_stopped {
        task.ptrace.wants_trap.store(true, Ordering::SeqCst);
    }
    run::retreat(task);
    run::interrupt(task);
    Ok(is_stopped)
}

/// Implements `PTRACE_INTERRUPT`.
///
/// # Errors
/// `EIO` where the tracee is not seized.
pub(crate) fn interrupt(task: &Arc<Task>) -> SysResult<()> {
    if !task.ptrace.state.lock().is_seized {
        return Err(Errno::EIO);
    }
    task.ptrace.wants_trap.store(true, Ordering::SeqCst);
    run::interrupt(task);
    Ok(())
}

/// Is told that a stopped process goes on: who is seized is to tell.
pub(crate) fn tell_of_continue(task: &Arc<Task>) {
    task.ptrace.heed_stops();
    if task.ptrace.is_on() && task.ptrace.state.lock().is_seized {
        task.ptrace.wants_trap.store(true, Ordering::SeqCst);
        run::interrupt(task);
    }
}

impl Tracee {
    /// Gives the tracee up; it goes on, with a signal.
    pub(crate) fn detach(self, current: &CurrentTask, signal: i32) {
        let guard = current.kernel.tree.lock();
        self.ptrace.state.lock().signal = signal;
        let task = self.0;
        unlink(&task);
        drop(guard);
        run::wake(&task);
    }
}

/// Returns whether a task is not part of its process any more.
pub(crate) fn has_ended(task: &Task) -> bool {
    task.has_left.load(Ordering::SeqCst)
}

fn link(tracer: &Arc<Task>, task: &Arc<Task>, is_seized: bool, options: PtraceOptions) {
    {
        let mut state = task.ptrace.state.lock();
        // What it does on its way from an earlier stop stays.
        state.tracer = Some(Arc::downgrade(tracer));
        state.is_seized = is_seized;
        state.options = options;
        state.message = 0;
        state.run = Run::Cont;
        state.has_told_exit = false;
        task.ptrace.was_on.store(true, Ordering::SeqCst);
        task.ptrace.is_on.store(true, Ordering::SeqCst);
    }
    task.facts_changed.store(true, Ordering::SeqCst);
    tracer.ptrace.tracees.lock().push(Arc::clone(task));
}

/// Ends the tracing of a task. It goes on when it is woken. The caller holds `Kernel::tree`.
pub(crate) fn unlink(task: &Arc<Task>) {
    let tracer = {
        let mut state = task.ptrace.state.lock();
        task.ptrace.is_on.store(false, Ordering::SeqCst);
        task.ptrace.wants_trap.store(false, Ordering::SeqCst);
        task.ptrace.heed_stops();
        state.resumed_with = state.stop.take().and_then(|stop| stop.info);
        state.is_listening = false;
        state.run = Run::Cont;
        state.options = PtraceOptions::empty();
        state.is_in_call = false;
        state.event = None;
        state.tracer.take()
    };
    task.facts_changed.store(true, Ordering::SeqCst);
    task.ptrace.events.notify(Events::IN);
    if let Some(tracer) = tracer.and_then(|tracer| tracer.upgrade()) {
        tracer.ptrace.tracees.lock().retain(|other| !Arc::ptr_eq(other, task));
    }
}

/// Gives up whatever a task traces that ends. The caller holds `Kernel::tree`.
pub(crate) fn release_tracees(tracer: &Arc<Task>) {
    let tracees = std::mem::take(&mut *tracer.ptrace.tracees.lock());
    for task in tracees {
        let is_killed = task.ptrace.has_option(PtraceOptions::EXITKILL);
        if is_killed {
            signal::post::kill_group(&task.group, status::signaled(SIGKILL, false));
        }
        if end_zombie(&task, &tracer.group) {
            continue;
        }
        unlink(&task);
        run::wake(&task);
    }
}

/// Lets go of a tracee that has ended, so that its parent learns of that. Returns whether it had. The
/// caller holds `Kernel::tree`.
pub(crate) fn end_zombie(task: &Arc<Task>, tracer: &Arc<ThreadGroup>) -> bool {
    let is_thread = task.ptrace.state.lock().zombie.take().is_some();
    if is_thread {
        unlink(task);
        exit::leave_namespaces(task);
        task.container().task_gone(&task.kernel);
        return true;
    }
    let zombie = task.group.tree.lock().zombie;
    let Some(exit) = zombie.filter(|_| task.is_leader()) else { return false };
    unlink(task);
    let is_child = task.group.parent().is_some_and(|parent| Arc::ptr_eq(&parent, tracer));
    if !is_child && wait::notify_parent_of_exit(&task.group, exit) {
        wait::reap(&task.group);
    }
    true
}

/// Returns the event that a clone of the caller is to its tracer.
pub(crate) fn clone_event(current: &CurrentTask, clone: &CloneRequest) -> Option<i32> {
    if !current.ptrace.is_on() || clone.flags.contains(CloneFlags::UNTRACED) {
        return None;
    }
    let (event, option) = if clone.flags.contains(CloneFlags::VFORK) {
        (PTRACE_EVENT_VFORK, PtraceOptions::TRACEVFORK)
    } else if clone.exit_signal != SIGCHLD {
        (PTRACE_EVENT_CLONE, PtraceOptions::TRACECLONE)
    } else {
        (PTRACE_EVENT_FORK, PtraceOptions::TRACEFORK)
    };
    current.ptrace.has_option(option).then_some(event)
}

/// Gives a new task its maker's tracer, where that wants it. The caller holds `Kernel::tree`.
pub(crate) fn inherit(current: &CurrentTask, child: &Arc<Task>, clone: &CloneRequest) {
    let wants = clone.flags.contains(CloneFlags::PTRACE) || clone_event(current, clone).is_some();
    let Some(tracer) = current.ptrace.tracer().filter(|_| wants) else { return };
    let (is_seized, options, clean_mm) = {
        let state = current.ptrace.state.lock();
        (state.is_seized, state.options, state.clean_mm)
    };
    link(&tracer, child, is_seized, options);
    if Arc::ptr_eq(&current.mm(), &child.mm()) {
        child.ptrace.state.lock().clean_mm = clean_mm;
    }
    if is_seized {
        child.ptrace.wants_trap.store(true, Ordering::SeqCst);
    } else {
        child.signals.lock().pending.push(Siginfo::new(SIGSTOP, SI_USER), 1);
    }
    signal::recheck(child);
}

/// Returns whether a program that the task executes gets no more rights than the task has, because
/// of its tracer.
pub(crate) fn is_held_back(current: &CurrentTask) -> bool {
    let tracer = current.ptrace.tracer();
    tracer.is_some_and(|tracer| {
        !tracer.creds().is_capable_in(&current.creds().user_ns, CAP_SYS_PTRACE)
    })
}
