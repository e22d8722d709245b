//! What a tracer learns by waiting: stops, and the ends of threads.

use std::sync::Arc;

use syscalls::abi::signal::{CLD_TRAPPED, SIGCHLD, SaFlags, Siginfo};
use syscalls::abi::wait as status;
use syscalls::abi::wait::WaitFlags;

use super::link;
use crate::sync::Events;
use crate::task::account::Usage;
use crate::task::wait::{Found, Which, exit_code, si_status};
use crate::task::{CurrentTask, Task, ThreadGroup, signal};

/// A tracee that a wait is for.
pub(crate) struct Report {
    /// What there is to tell.
    pub(crate) found: Found,
    /// The thread whose end has been told.
    pub(crate) ended: Option<Arc<Task>>,
}

/// Returns the tracees of the caller's process that `which` selects; with `__WNOTHREAD`, of the
/// caller.
pub(crate) fn tracees(current: &CurrentTask, which: &Which, flags: WaitFlags) -> Vec<Arc<Task>> {
    let tracers = if flags.contains(WaitFlags::__WNOTHREAD) {
        vec![current.task().clone()]
    } else {
        current.group.tasks()
    };
    let mut tracees: Vec<Arc<Task>> = Vec::new();
    for tracer in tracers {
        tracees.extend(tracer.ptrace.tracees.lock().iter().cloned());
    }
    let namespace = current.pid_namespace();
    let own_group = current.group.process_group().id;
    tracees.retain(|tracee| match which {
        Which::Any => true,
        Which::Pid(pid) => tracee.tid_in(&namespace) == *pid,
        Which::ProcessGroup(id) => tracee.group.process_group().id_in(&namespace) == *id,
        Which::OwnProcessGroup => tracee.group.process_group().id == own_group,
        Which::Group(group) => Arc::ptr_eq(group, &tracee.group) && tracee.is_leader(),
    });
    tracees
}

/// Returns what there is to tell of a tracee. The caller holds `Kernel::tree`.
pub(crate) fn look(current: &CurrentTask, tracee: &Arc<Task>, flags: WaitFlags) -> Option<Report> {
    let namespace = current.pid_namespace();
    let pid = tracee.tid_in(&namespace);
    let uid = tracee.creds().uid;
    let group = &tracee.group;
    let usage = || if tracee.is_leader() { group.usage() } else { Usage::default() };
    let ended = if tracee.is_leader() {
        group.tree.lock().zombie
    } else {
        tracee.ptrace.state.lock().zombie
    };
    if let Some(exit) = ended {
        if !flags.contains(WaitFlags::WEXITED) {
            return None;
        }
        let found = Found { pid, uid, status: exit, code: exit_code(exit), usage: usage() };
        return Some(Report { found, ended: Some(Arc::clone(tracee)) });
    }
    let keep = flags.contains(WaitFlags::WNOWAIT);
    let code = {
        let mut state = tracee.ptrace.state.lock();
        let is_listening = state.is_listening;
        match &mut state.stop {
            Some(stop) if stop.is_announced && !stop.is_seen && !is_listening => {
                stop.is_seen = !keep;
                Some(stop.code)
            }
            _ => None,
        }
    };
    if let Some(code) = code {
        let status = status::stopped(code);
        let found = Found { pid, uid, status, code: CLD_TRAPPED, usage: usage() };
        return Some(Report { found, ended: None });
    }
    if flags.contains(WaitFlags::WCONTINUED) && tracee.is_leader() {
        let mut tree = group.tree.lock();
        if tree.has_unseen_continue {
            tree.has_unseen_continue = keep;
            drop(tree);
            let code = syscalls::abi::signal::CLD_CONTINUED;
            let found = Found { pid, uid, status: status::CONTINUED, code, usage: usage() };
            return Some(Report { found, ended: None });
        }
    }
    None
}

/// Returns whether the process is traced by another one than its parent. The caller holds
/// `Kernel::tree`.
pub(crate) fn is_traced_elsewhere(group: &ThreadGroup) -> bool {
    let Some(leader) = group.leader() else { return false };
    let Some(tracer) = leader.ptrace.tracer() else { return false };
    !group.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.group))
}

/// Returns whether the process is traced by its parent.
pub(crate) fn is_traced_by_parent(group: &ThreadGroup) -> bool {
    let tracer = group.leader().and_then(|leader| leader.ptrace.tracer());
    tracer.is_some_and(|tracer| {
        group.parent().is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.group))
    })
}

/// Tells the tracer of a stop.
pub(crate) fn tell_tracer_of_stop(task: &Arc<Task>, code: i32) {
    let Some(tracer) = task.ptrace.tracer() else { return };
    let actions = tracer.group.actions.lock().clone();
    let flags = SaFlags::from_bits_retain(actions.lock().get(SIGCHLD).flags);
    if !flags.contains(SaFlags::NOCLDSTOP) {
        tell(&tracer, task, CLD_TRAPPED, code & 0x7f);
    }
    tracer.group.child_events.notify(Events::READABLE);
}

/// Tells the tracer of the end of a thread, or of a process that is not its child.
pub(crate) fn tell_tracer_of_exit(tracer: &Arc<Task>, task: &Arc<Task>, exit: i32) {
    let code = exit_code(exit);
    tell(tracer, task, code, si_status(exit, code));
    tracer.group.child_events.notify(Events::READABLE);
}

fn tell(tracer: &Arc<Task>, task: &Arc<Task>, code: i32, status: i32) {
    let pid = i32::try_from(task.tid_in(&tracer.pid_namespace())).unwrap_or(0);
    let info = Siginfo::child(code, pid, task.creds().uid, status, 0, 0);
    // A standard signal always finds room.
    let _ = signal::send_to_group(&tracer.group, info);
}

/// Is told that a non-leader thread has ended. Returns whether its number stays in use until its
/// tracer has seen that. The caller holds `Kernel::tree`.
pub(crate) fn keep_zombie(task: &Arc<Task>, exit: i32) -> bool {
    let Some(tracer) = task.ptrace.tracer().filter(|tracer| !link::has_ended(tracer)) else {
        link::unlink(task);
        return false;
    };
    let exit = task.group.signals.lock().exit_status.unwrap_or(exit);
    {
        let mut state = task.ptrace.state.lock();
        state.stop = None;
        state.phase = None;
        state.zombie = Some(exit);
    }
    task.ptrace.events.notify(Events::IN);
    tell_tracer_of_exit(&tracer, task, exit);
    true
}
