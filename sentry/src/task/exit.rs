//! The end of threads and processes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::HostCall;
use syscalls::abi::signal::{SI_USER, SIGCONT, SIGHUP, SIGKILL, Siginfo};
use syscalls::abi::wait as status;
use syscalls::{UserAddr, UserPtr};

use super::job::ProcessGroup;
use super::pid_namespace::CONTAINER_LEVEL;
use super::{CurrentTask, Task, ThreadGroup, coredump, identity, ptrace, run, signal, wait};
use crate::sync::Events;
use crate::vfs::fs_context::FsContext;

/// `RSEQ_FLAG_UNREGISTER`.
const RSEQ_FLAG_UNREGISTER: i32 = 1;

/// Ends the calling process: every thread exits with this wait status.
pub(crate) fn exit_group(current: &CurrentTask, status: i32) {
    let status = {
        let mut signals = current.group.signals.lock();
        *signals.exit_status.get_or_insert(status)
    };
    let others: Vec<_> = current
        .group
        .live_tasks()
        .into_iter()
        .filter(|task| !Arc::ptr_eq(task, current.task()))
        .collect();
    signal::wake_all(&others);
    exit_task(current, status);
}

/// Ends the calling thread, perhaps only after its next event. `status` counts where it is the last
/// one.
pub(crate) fn exit_task(current: &CurrentTask, status: i32) {
    let task = current.task();
    if coredump::holds(current, status) {
        return;
    }
    if task.ptrace.is_on() && ptrace::stop::exits(current, status) {
        // It ends when its tracer lets it.
        run::stay(current);
        return;
    }
    if let_go_of_memory(current, status) {
        return;
    }
    if task.exiting.swap(true, Ordering::SeqCst) {
        return;
    }
    current.end_block();
    current.context().sync_memory();
    crate::mm::futex::exit_robust_list(current);
    clear_child_tid(current);
    if Arc::strong_count(&current.mm()) <= 2 {
        // Nobody else uses the memory.
        current.mm().aio.clear();
    }
    leave(task, status);
    task.run_state.store(run::DEAD, Ordering::SeqCst);
    current.context().exit();
}

/// Takes the restartable sequences from the host thread of a task that ends while others use its
/// memory: the host writes to their area whenever it has preempted the thread, until that is gone,
/// while who waits for the guest thread may unmap its stack or use it again before. Returns whether
/// the caller must leave the rest to [`go_on_exiting`].
fn let_go_of_memory(current: &CurrentTask, status: i32) -> bool {
    let registered = current.misc.lock().rseq.take();
    let Some((addr, len, signature)) = registered else { return false };
    if current.exiting.load(Ordering::SeqCst) || Arc::strong_count(&current.mm()) <= 2 {
        return false;
    }
    *current.letting_go.lock() = Some(status);
    current.run_state.store(run::GUEST, Ordering::SeqCst);
    let call = HostCall::Rseq { addr, len, flags: RSEQ_FLAG_UNREGISTER, signature };
    current.context().start_host_calls(&[call]);
    true
}

/// Goes on with [`exit_task`] at the task's next event. Returns whether the task is exiting.
pub(crate) fn go_on_exiting(current: &CurrentTask) -> bool {
    let status = current.letting_go.take();
    if let Some(status) = status {
        exit_task(current, status);
    }
    status.is_some()
}

/// Is told that a task's context has ended. Where the task had not exited, its host process was
/// killed from outside: the guest process died of SIGKILL.
pub(crate) fn context_ended(task: &Arc<Task>, signo: i32) {
    if task.exiting.swap(true, Ordering::SeqCst) {
        return;
    }
    crate::log::debug(format_args!(
        "task {}: its host process has ended with signal {signo}",
        task.tid()
    ));
    let killer = if signo == 0 { SIGKILL } else { signo };
    let group_status = status::signaled(killer, false);
    signal::post::kill_group(&task.group, group_status);
    leave(task, group_status);
}

/// Removes a child that the host refused to make, as if it had never been.
pub(crate) fn undo_clone(child: &Arc<Task>) {
    let is_thread = !child.is_leader();
    if !is_thread {
        child.group.tree.lock().exit_signal = 0;
    }
    *child.vfork_parent.lock() = None;
    {
        let _guard = child.kernel.tree.lock();
        ptrace::link::unlink(child);
    }
    if !child.exiting.swap(true, Ordering::SeqCst) {
        leave(child, status::signaled(SIGKILL, false));
    }
    child.run_state.store(run::DEAD, Ordering::SeqCst);
    if !is_thread {
        let _guard = child.kernel.tree.lock();
        wait::reap(&child.group);
    }
}

/// Writes zero to the address that `set_tid_address(2)` named and wakes one waiter there, where
/// somebody else still uses the memory.
pub(crate) fn clear_child_tid(current: &CurrentTask) {
    let addr = current.clear_child_tid.swap(0, Ordering::Relaxed);
    if addr == 0 || Arc::strong_count(&current.mm()) <= 2 {
        return;
    }
    let ptr = UserPtr::<u32>::new(UserAddr(addr));
    if current.write_obj(ptr, &0).is_ok() {
        current.context().sync_memory();
        crate::mm::futex::wake_address(current, UserAddr(addr), 1);
    }
}

/// Removes an exiting thread from its process; the last one makes it a zombie.
fn leave(task: &Arc<Task>, status: i32) {
    release_vfork_parent(task);
    crate::mm::futex::pi::release_all(task, true);
    if task.group.live_tasks().is_empty() {
        let context = task.context.lock().clone();
        task.group.account.close(&*context);
    }
    task.ipc().sem.leave_undo_list(task);
    task.seccomp.release();
    // Descriptors are closed before the parent learns of the exit, as on Linux.
    let files = std::mem::replace(&mut *task.files.lock(), crate::vfs::fd_table::FdTable::empty());
    drop(files);
    // So are root and working directory given up: a zombie keeps no mount busy.
    let root = FsContext::new(task.fs().namespace());
    let fs = std::mem::replace(&mut *task.fs.lock(), root);
    fs.recall_umask();
    drop(fs);
    crate::mm::in_flight::leave(task);
    let guard = task.kernel.tree.lock();
    ptrace::link::release_tracees(task);
    // Of threads that exit at the same time exactly one is the last.
    task.has_left.store(true, Ordering::SeqCst);
    let is_last = task.group.tasks().iter().all(|other| other.has_left.load(Ordering::SeqCst));
    if !task.is_leader() {
        task.group.tree.lock().tasks.retain(|other| !Arc::ptr_eq(other, task));
        if !ptrace::report::keep_zombie(task, status) {
            leave_namespaces(task);
            task.container().task_gone(&task.kernel);
        }
    }
    if is_last {
        end_group(&task.group, status);
    } else {
        hand_over_children(task);
    }
    drop(guard);
    super::exec::thread_has_left(&task.group);
    coredump::thread_has_left(&task.group);
    task.group.thread_events.notify(Events::READABLE);
}

/// Lets a parent that waits for its vfork child go on.
pub(crate) fn release_vfork_parent(task: &Arc<Task>) {
    let parent = task.vfork_parent.lock().take();
    if let Some(parent) = parent {
        *parent.vfork_child.lock() = None;
        run::wake(&parent);
    }
}

/// Makes a process without threads a zombie. The caller holds `Kernel::tree`.
fn end_group(group: &Arc<ThreadGroup>, status: i32) {
    let status = group.signals.lock().exit_status.unwrap_or(status);
    group.timers.clear();
    let watch = group.kill_watch.lock().take();
    drop(watch);
    if group.is_namespace_init() {
        kill_namespace(group);
        reparent_children(group);
        // As `zap_pid_ns_processes()`: what the parent learns is that all are gone.
        let namespace = &group.pid_namespace;
        if namespace.level > CONTAINER_LEVEL && namespace.end_with_last(group, status) {
            return;
        }
    }
    become_zombie(group, status);
}

/// Takes a thread's numbers from it, and ends the namespaces whose init has waited for that. The
/// caller holds `Kernel::tree`.
pub(super) fn leave_namespaces(task: &Task) {
    let pids = task.pids.lock().clone();
    for (namespace, pid) in pids {
        if let Some((init, status)) = namespace.leave(pid) {
            become_zombie(&init, status);
        }
    }
}

/// The second half of [`end_group`].
fn become_zombie(group: &Arc<ThreadGroup>, status: i32) {
    reparent_children(group);
    let process_group = group.process_group();
    disassociate_terminal(group);
    {
        let mut tree = group.tree.lock();
        tree.zombie = Some(status);
        tree.unseen_stop = None;
        tree.has_unseen_continue = false;
    }
    if let Some(parent) = group.parent() {
        hang_up_orphans(&process_group, &parent, Some(group));
    }
    group.kernel.process_exited(group, status);
    let unwanted = wait::notify_parent_of_exit(group, status);
    group.exit_events.notify(Events::READABLE | Events::HUP);
    if unwanted {
        wait::reap(group);
    }
}

/// The end of a namespace's init kills everybody in the namespace.
fn kill_namespace(group: &Arc<ThreadGroup>) {
    group.pid_namespace.kill();
    let mut killed = BTreeSet::from([Arc::as_ptr(group).addr()]);
    let tasks = group.pid_namespace.tasks();
    for (_, task) in &tasks {
        if killed.insert(Arc::as_ptr(&task.group).addr()) {
            signal::post::kill_group(&task.group, status::signaled(SIGKILL, false));
        }
    }
}

/// Gives the children to the nearest subreaper or the namespace's init.
fn reparent_children(group: &Arc<ThreadGroup>) {
    let children = std::mem::take(&mut group.tree.lock().children);
    if children.is_empty() {
        return;
    }
    let new_parent = find_reaper(group);
    for child in children {
        let is_zombie = {
            let mut tree = child.tree.lock();
            tree.parent = new_parent.as_ref().map(Arc::downgrade).unwrap_or_default();
            tree.parent_tid = new_parent.as_ref().and_then(living_thread).unwrap_or_default();
            // A child given to another process reports with SIGCHLD, whatever it was made with.
            tree.exit_signal = syscalls::abi::signal::SIGCHLD;
            tree.zombie
        };
        identity::changed_for_all(&child);
        send_death_signals(&child, group);
        match &new_parent {
            Some(parent) => {
                parent.tree.lock().children.push(child.clone());
                if let Some(status) = is_zombie
                    && wait::notify_parent_of_exit(&child, status)
                {
                    wait::reap(&child);
                }
            }
            None if is_zombie.is_some() => wait::reap(&child),
            None => {}
        }
        hang_up_orphans(&child.process_group(), group, None);
    }
}

/// Gives the children that an exiting thread has made to another of its process.
fn hand_over_children(task: &Task) {
    let Some(heir) = living_thread(&task.group) else { return };
    let mut children = task.group.children();
    children.retain(|child| child.tree.lock().parent_tid == task.tid());
    for child in children {
        child.tree.lock().parent_tid = heir;
        send_death_signals(&child, &task.group);
    }
}

/// Returns the number of a thread that has not exited: the leader's, if it can be.
fn living_thread(group: &Arc<ThreadGroup>) -> Option<u32> {
    let tasks = group.live_tasks();
    let leader = tasks.iter().find(|task| task.is_leader());
    leader.or(tasks.first()).map(|task| task.tid())
}

/// Sends the signals that threads of a process want when their parent, a thread, has ended
/// (`PR_SET_PDEATHSIG`): to the process.
fn send_death_signals(child: &Arc<ThreadGroup>, parent: &ThreadGroup) {
    for task in child.live_tasks() {
        let signo = task.parent_death_signal.load(Ordering::Relaxed);
        if signo != 0 {
            let pid = i32::try_from(parent.pid_in(&child.pid_namespace)).unwrap_or(0);
            let uid = parent.leader().map_or(0, |leader| leader.creds().uid);
            let shown = task.creds().user_ns.shown_uid(uid);
            let info = Siginfo::kill(i32::try_from(signo).unwrap_or(0), SI_USER, pid, shown);
            let _ = signal::send_to_group(child, info);
        }
    }
}

fn find_reaper(group: &Arc<ThreadGroup>) -> Option<Arc<ThreadGroup>> {
    let mut ancestor = group.parent();
    while let Some(candidate) = ancestor {
        let same = Arc::ptr_eq(&candidate.pid_namespace, &group.pid_namespace);
        if !same {
            break;
        }
        if candidate.is_subreaper.load(Ordering::Relaxed) && !candidate.is_zombie() {
            return Some(candidate);
        }
        ancestor = candidate.parent();
    }
    let init = group.pid_namespace.group(1)?;
    let may_reap = !init.is_zombie() && !group.pid_namespace.is_dead();
    (!Arc::ptr_eq(&init, group) && may_reap).then_some(init)
}

/// The end of a session leader hangs up its terminal.
fn disassociate_terminal(group: &Arc<ThreadGroup>) {
    let session = group.session();
    if session.id != group.pid() {
        return;
    }
    let terminal = session.terminal.lock().take();
    if let Some(foreground) = terminal.and_then(|terminal| terminal.disassociate()) {
        let hangup = Siginfo::new(SIGHUP, syscalls::abi::signal::SI_KERNEL);
        let resume = Siginfo::new(SIGCONT, syscalls::abi::signal::SI_KERNEL);
        signal::send_to_process_group(&foreground, hangup);
        signal::send_to_process_group(&foreground, resume);
    }
}

/// A process group that has just become orphaned and has stopped members gets SIGHUP and SIGCONT. What
/// has ended is the tie to `parent`: of `exiting`, which was its child, or else it is `parent` that exits.
fn hang_up_orphans(
    process_group: &ProcessGroup,
    parent: &ThreadGroup,
    exiting: Option<&ThreadGroup>,
) {
    let theirs = parent.process_group();
    let was_tied = theirs.id != process_group.id && theirs.session.id == process_group.session.id;
    if !was_tied || !process_group.is_orphaned(exiting) {
        return;
    }
    let stopped = process_group.members().iter().any(|member| member.signals.lock().stop.is_some());
    if stopped {
        let hangup = Siginfo::new(SIGHUP, syscalls::abi::signal::SI_KERNEL);
        let resume = Siginfo::new(SIGCONT, syscalls::abi::signal::SI_KERNEL);
        signal::send_to_process_group(process_group, hangup);
        signal::send_to_process_group(process_group, resume);
    }
}
