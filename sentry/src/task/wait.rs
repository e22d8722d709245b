//! Waiting for children, and telling parents.

use std::sync::Arc;

use syscalls::abi::signal::{
    self, CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_TRAPPED, SIG_IGN,
    SIGCHLD, SaFlags, Siginfo,
};
use syscalls::abi::wait::{self as status, WaitFlags};
use syscalls::{Errno, SysResult};

use super::account::Usage;
use super::ptrace::link;
use super::ptrace::report::{self, Report};
use super::{CurrentTask, ThreadGroup};
use crate::sync::Events;

/// Which children a wait is for.
#[derive(Clone)]
pub enum Which {
    /// Any child.
    Any,
    /// The child with this pid in the caller's pid namespace.
    Pid(u32),
    /// Children in the process group with this id in the caller's pid namespace.
    ProcessGroup(u32),
    /// Children in the caller's process group.
    OwnProcessGroup,
    /// The child that a pidfd refers to.
    Group(Arc<ThreadGroup>),
}

/// What a wait found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The child's pid in the caller's pid namespace.
    pub pid: u32,
    /// The child's real user id.
    pub uid: u32,
    /// The wait status of `wait4(2)`.
    pub status: i32,
    /// `CLD_*`.
    pub code: i32,
    /// What the child and those that it has waited for have used.
    pub usage: Usage,
}

/// Looks for a child that has something to report. `Ok(None)`: there are such children, but none
/// of them has.
///
/// # Errors
/// `ECHILD` without such children.
pub fn poll_children(
    current: &CurrentTask,
    which: &Which,
    flags: WaitFlags,
) -> SysResult<Option<Found>> {
    let namespace = current.pid_namespace();
    let tree_guard = current.kernel.tree.lock();
    let mut any = false;
    for tracee in report::tracees(current, which, flags) {
        any = true;
        let Some(Report { found, ended }) = report::look(current, &tracee, flags) else { continue };
        if let Some(task) = ended.filter(|_| !flags.contains(WaitFlags::WNOWAIT)) {
            link::end_zombie(&task, &current.group);
            let parent = task.group.parent();
            let is_child = parent.is_some_and(|parent| Arc::ptr_eq(&parent, &current.group));
            if is_child && task.is_leader() {
                account(&current.group, &task.group);
                reap(&task.group);
            }
        }
        return Ok(Some(found));
    }
    let children = current.group.children();
    for child in &children {
        if !matches(current, child, which, flags) {
            continue;
        }
        // A zombie is only there for those who wait for an exit.
        any |= flags.contains(WaitFlags::WEXITED) || !child.is_zombie();
        if report::is_traced_by_parent(child) {
            continue;
        }
        let found = look_at(child, &namespace, flags);
        let Some(found) = found else { continue };
        let is_exit = matches!(found.code, CLD_EXITED | CLD_KILLED | CLD_DUMPED);
        if is_exit && !flags.contains(WaitFlags::WNOWAIT) {
            account(&current.group, child);
            reap(child);
        }
        drop(tree_guard);
        return Ok(Some(found));
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

fn matches(
    current: &CurrentTask,
    child: &Arc<ThreadGroup>,
    which: &Which,
    flags: WaitFlags,
) -> bool {
    let namespace = current.pid_namespace();
    let selected = match which {
        Which::Any => true,
        Which::Pid(pid) => child.pid_in(&namespace) == *pid,
        Which::ProcessGroup(id) => child.process_group().id_in(&namespace) == *id,
        Which::OwnProcessGroup => child.process_group().id == current.group.process_group().id,
        Which::Group(group) => Arc::ptr_eq(group, child),
    };
    if !selected {
        return false;
    }
    let tree = child.tree.lock();
    if flags.contains(WaitFlags::__WNOTHREAD) && tree.parent_tid != current.tid() {
        return false;
    }
    if flags.contains(WaitFlags::__WALL) {
        return true;
    }
    let is_clone_child = tree.exit_signal != SIGCHLD;
    is_clone_child == flags.contains(WaitFlags::__WCLONE)
}

fn look_at(
    child: &Arc<ThreadGroup>,
    namespace: &Arc<super::pid_namespace::PidNamespace>,
    flags: WaitFlags,
) -> Option<Found> {
    let pid = child.pid_in(namespace);
    let uid = child.leader().map_or(0, |leader| leader.creds().uid);
    let mut tree = child.tree.lock();
    let keep = flags.contains(WaitFlags::WNOWAIT);
    if let Some(exit) = tree.zombie {
        if !flags.contains(WaitFlags::WEXITED) || tree.is_reaped {
            return None;
        }
        drop(tree);
        if report::is_traced_elsewhere(child) {
            return None;
        }
        let code = exit_code(exit);
        let usage = child.usage().and(child.account.children());
        return Some(Found { pid, uid, status: exit, code, usage });
    }
    if flags.contains(WaitFlags::WSTOPPED)
        && let Some(signo) = tree.unseen_stop
    {
        if !keep {
            tree.unseen_stop = None;
        }
        let status = status::stopped(signo);
        drop(tree);
        let usage = child.usage().and(child.account.children());
        return Some(Found { pid, uid, status, code: CLD_STOPPED, usage });
    }
    if flags.contains(WaitFlags::WCONTINUED) && tree.has_unseen_continue {
        if !keep {
            tree.has_unseen_continue = false;
        }
        let status = status::CONTINUED;
        drop(tree);
        let usage = child.usage().and(child.account.children());
        return Some(Found { pid, uid, status, code: CLD_CONTINUED, usage });
    }
    None
}

/// Returns the `CLD_*` code of a wait status of an exit.
pub fn exit_code(exit: i32) -> i32 {
    if exit & 0x7f == 0 {
        CLD_EXITED
    } else if exit & 0x80 != 0 {
        CLD_DUMPED
    } else {
        CLD_KILLED
    }
}

/// Returns what `si_status` shows for a wait status.
pub fn si_status(found: i32, code: i32) -> i32 {
    match code {
        CLD_EXITED => (found >> 8) & 0xff,
        CLD_KILLED | CLD_DUMPED => found & 0x7f,
        CLD_CONTINUED => signal::SIGCONT,
        CLD_TRAPPED => found >> 8,
        _ => (found >> 8) & 0xff,
    }
}

fn account(parent: &ThreadGroup, child: &ThreadGroup) {
    parent.account.add_child(child.usage().and(child.account.children()));
}

/// Removes a zombie. The caller holds `Kernel::tree`.
pub(crate) fn reap(group: &Arc<ThreadGroup>) {
    let (parent, tasks, process_group) = {
        let mut tree = group.tree.lock();
        tree.is_reaped = true;
        (tree.parent.upgrade(), std::mem::take(&mut tree.tasks), tree.process_group.clone())
    };
    process_group.remove(group);
    for task in tasks.iter().filter(|task| task.ptrace.is_on()) {
        link::unlink(task);
    }
    if let Some(parent) = parent {
        parent.tree.lock().children.retain(|child| !Arc::ptr_eq(child, group));
    }
    for task in tasks {
        super::exit::leave_namespaces(&task);
        task.container().task_gone(&task.kernel);
    }
}

/// Tells the parent of an exit. Returns whether nobody will wait for the child, which is then to
/// be reaped at once. The caller holds `Kernel::tree`.
pub(crate) fn notify_parent_of_exit(group: &Arc<ThreadGroup>, exit: i32) -> bool {
    let (parent, exit_signal) = {
        let tree = group.tree.lock();
        (tree.parent.upgrade(), tree.exit_signal)
    };
    let leader = group.leader();
    let tracer = leader.as_ref().and_then(|leader| leader.ptrace.tracer());
    if let (Some(leader), Some(tracer)) = (&leader, &tracer)
        && report::is_traced_elsewhere(group)
    {
        // The parent learns of it when the tracer has.
        report::tell_tracer_of_exit(tracer, leader, exit);
        return false;
    }
    let Some(parent) = parent else { return true };
    let mut ignored = false;
    if exit_signal == SIGCHLD && tracer.is_none() {
        let actions = parent.actions.lock().clone();
        let action = actions.lock().get(SIGCHLD);
        ignored = action.handler == SIG_IGN
            || SaFlags::from_bits_retain(action.flags).contains(SaFlags::NOCLDWAIT);
    }
    if exit_signal != 0 {
        let code = exit_code(exit);
        let info = child_info(group, &parent, exit_signal, code, si_status(exit, code));
        let _ = signal_parent(&parent, info);
    }
    parent.child_events.notify(Events::READABLE);
    ignored
}

/// Tells the parent of a stop.
pub(crate) fn notify_parent_of_stop(group: &Arc<ThreadGroup>, signo: i32) {
    notify_parent(group, CLD_STOPPED, signo);
}

/// Tells the parent of a continuation.
pub(crate) fn notify_parent_of_continue(group: &Arc<ThreadGroup>) {
    notify_parent(group, CLD_CONTINUED, signal::SIGCONT);
}

fn notify_parent(group: &Arc<ThreadGroup>, code: i32, si_status: i32) {
    let Some(parent) = group.parent() else { return };
    let actions = parent.actions.lock().clone();
    let flags = SaFlags::from_bits_retain(actions.lock().get(SIGCHLD).flags);
    if !flags.contains(SaFlags::NOCLDSTOP) {
        let info = child_info(group, &parent, SIGCHLD, code, si_status);
        let _ = signal_parent(&parent, info);
    }
    parent.child_events.notify(Events::READABLE);
}

fn signal_parent(parent: &Arc<ThreadGroup>, info: Siginfo) -> SysResult<()> {
    super::signal::send_to_group(parent, info)
}

fn child_info(
    group: &Arc<ThreadGroup>,
    parent: &ThreadGroup,
    signo: i32,
    code: i32,
    si_status: i32,
) -> Siginfo {
    let pid = i32::try_from(group.pid_in(&parent.pid_namespace)).unwrap_or(0);
    let uid = group.leader().map_or(0, |leader| leader.creds().uid);
    let uid = parent.leader().map_or(uid, |parent| parent.creds().user_ns.shown_uid(uid));
    let (user, system) = group.cpu_ns();
    let ticks = |ns: u64| i64::try_from(ns / 10_000_000).unwrap_or(i64::MAX);
    let mut info = Siginfo::child(code, pid, uid, si_status, ticks(user), ticks(system));
    info.si_signo = signo;
    info
}
