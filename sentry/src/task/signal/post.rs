//! Posting signals: who gets one, and what it does at once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use syscalls::abi::resource;
use syscalls::abi::signal::{
    SI_KERNEL, SIG_DFL, SIG_IGN, SIGCONT, SIGKILL, SIGPROF, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGVTALRM, SigSet, Siginfo,
};
use syscalls::{Errno, SysResult};

use super::{DefaultAction, default_action, lent, wake_all};
use crate::sync::{Events, Waiter};
use crate::task::job::ProcessGroup;
use crate::task::{CurrentTask, Task, ThreadGroup, ptrace, run, wait};

/// Among how many threads the busiest is looked for: each costs a question to the host.
const MAX_PROFILED: usize = 32;

fn stop_signals() -> SigSet {
    SigSet::of(SIGSTOP)
        .union(SigSet::of(SIGTSTP))
        .union(SigSet::of(SIGTTIN))
        .union(SigSet::of(SIGTTOU))
}

/// Sends a signal to one thread.
///
/// # Errors
/// `EAGAIN` where a real-time signal exceeds `RLIMIT_SIGPENDING`.
pub fn send_to_task(task: &Arc<Task>, info: Siginfo) -> SysResult<()> {
    if task.exiting.load(Ordering::SeqCst) {
        return Ok(());
    }
    let group = task.group.clone();
    if !prepare(&group, Some(task), &info) {
        return Ok(());
    }
    let limit = group.limits.lock().soft(resource::RLIMIT_SIGPENDING);
    if !task.signals.lock().pending.push(info, limit) {
        return queue_full(&info);
    }
    complete(&group, Some(task), &info);
    Ok(())
}

/// Sends a signal to a process: to whichever of its threads does not block it.
///
/// # Errors
/// As [`send_to_task`].
pub fn send_to_group(group: &Arc<ThreadGroup>, info: Siginfo) -> SysResult<()> {
    if group.is_zombie() || !prepare(group, None, &info) {
        return Ok(());
    }
    let limit = group.limits.lock().soft(resource::RLIMIT_SIGPENDING);
    if !group.signals.lock().pending.push(info, limit) {
        return queue_full(&info);
    }
    complete(group, None, &info);
    Ok(())
}

/// Sends a signal to every member of a process group, as the terminal does.
pub fn send_to_process_group(process_group: &ProcessGroup, info: Siginfo) {
    for group in process_group.members() {
        // A full queue of one member is no reason to spare the others.
        let _ = send_to_group(&group, info);
    }
}

/// Sends a signal of the kernel to the calling thread: SIGPIPE, SIGXFSZ.
pub fn send_to_self(current: &CurrentTask, signo: i32) {
    let info = Siginfo::new(signo, SI_KERNEL);
    // Standard signals always find room.
    let _ = send_to_task(current.task(), info);
}

/// `kill(2)` never fails for want of room; `sigqueue(3)` does.
fn queue_full(info: &Siginfo) -> SysResult<()> {
    if info.si_code == syscalls::abi::signal::SI_USER { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// Does what a signal does when it is sent, whether or not it is blocked, and returns whether it
/// is to become pending.
fn prepare(group: &Arc<ThreadGroup>, task: Option<&Arc<Task>>, info: &Siginfo) -> bool {
    let signo = info.si_signo;
    if signo == SIGKILL {
        return !is_protected(group, info);
    }
    if signo == SIGCONT {
        resume_group(group);
    } else if default_action(signo) == DefaultAction::Stop {
        let tasks = group.tasks();
        let mut signals = group.signals.lock();
        signals.pending.discard(SigSet::of(SIGCONT));
        for task in &tasks {
            task.signals.lock().pending.discard(SigSet::of(SIGCONT));
        }
    }
    !is_ignored(group, task, info)
}

/// Returns whether a process is the init of a pid namespace and as such spared the default action
/// of a signal (`pid_namespaces(7)`): whatever its members send, and all but SIGKILL and SIGSTOP of
/// what comes from outside. Not its own faults.
pub(super) fn is_protected(group: &ThreadGroup, info: &Siginfo) -> bool {
    let is_from_inside = info.pid() != 0;
    let is_forced = match info.si_signo {
        SIGKILL | SIGSTOP => !is_from_inside,
        _ => info.si_code > 0 && !is_from_inside,
    };
    group.is_namespace_init() && !is_forced && !group.is_ordinary_init()
}

fn is_ignored(group: &ThreadGroup, task: Option<&Arc<Task>>, info: &Siginfo) -> bool {
    let signo = info.si_signo;
    let is_traced = match task {
        Some(task) => task.ptrace.is_on(),
        None => group.live_tasks().iter().any(|task| task.ptrace.is_on()),
    };
    if is_traced {
        return false;
    }
    let blocked = match task {
        Some(task) => is_blocked(task, signo),
        None => group.live_tasks().iter().all(|task| is_blocked(task, signo)),
    };
    if blocked {
        return false;
    }
    let actions = group.actions.lock().clone();
    let handler = actions.lock().get(signo).handler;
    match handler {
        SIG_IGN => true,
        SIG_DFL => {
            matches!(default_action(signo), DefaultAction::Ignore | DefaultAction::Continue)
                || is_protected(group, info)
        }
        _ => false,
    }
}

fn is_blocked(task: &Task, signo: i32) -> bool {
    lent::mask_of(task).contains(signo) || task.signals.lock().waiting_for.contains(signo)
}

/// Wakes whoever should handle the signal.
fn complete(group: &Arc<ThreadGroup>, task: Option<&Arc<Task>>, info: &Siginfo) {
    let signo = info.si_signo;
    if signo == SIGKILL {
        kill_group(group, syscalls::abi::wait::signaled(SIGKILL, false));
        return;
    }
    group.signal_events.notify(Events::READABLE);
    if let Some(task) = task {
        lent::announce(task);
        run::interrupt(task);
        return;
    }
    let tasks = group.live_tasks();
    tasks.iter().for_each(|task| lent::announce(task));
    let wants = |task: &&Arc<Task>| !lent::mask_of(task).contains(signo);
    let is_profile = matches!(signo, SIGPROF | SIGVTALRM) && info.si_code == SI_KERNEL;
    let busiest = if is_profile { busiest(&tasks) } else { None };
    if let Some(task) = busiest.filter(wants).or_else(|| tasks.iter().find(wants)) {
        run::interrupt(task);
    }
    for task in &tasks {
        if task.signals.lock().waiting_for.contains(signo) {
            run::interrupt(task);
        }
    }
}

/// Returns the thread that has used most of the processor since this was last asked: the one that Linux
/// finds running when a timer of the process's time expires.
fn busiest(tasks: &[Arc<Task>]) -> Option<&Arc<Task>> {
    if tasks.len() < 2 {
        return None;
    }
    let used = |task: &&Arc<Task>| {
        let (user, system) = task.cpu_ns();
        let now = user.saturating_add(system);
        now.saturating_sub(std::mem::replace(&mut task.misc.lock().profiled_ns, now))
    };
    tasks.iter().take(MAX_PROFILED).max_by_key(used)
}

/// Makes every thread of a process exit with this wait status.
pub(crate) fn kill_group(group: &Arc<ThreadGroup>, status: i32) {
    {
        let mut signals = group.signals.lock();
        if signals.exit_status.is_none() {
            signals.exit_status = Some(status);
        }
        signals.is_killed = true;
        signals.stop = None;
    }
    let tasks = group.tasks();
    wake_all(&tasks);
    watch_end(group);
}

/// How long a process that is to end may take before its host processes are killed.
const GRACE_NS: u64 = 2_000_000_000;

/// Sees to the end of a process whose threads do not come back to be told to exit: a hostile
/// application may have destroyed what its stub needs for that.
struct KillWatch(Weak<ThreadGroup>);

impl Waiter for KillWatch {
    fn notify(&self, _key: u64, _events: Events) {
        let Some(group) = self.0.upgrade() else { return };
        for task in group.live_tasks() {
            let context = task.context.lock().clone();
            context.address_space().kill();
        }
    }
}

fn watch_end(group: &Arc<ThreadGroup>) {
    let mut slot = group.kill_watch.lock();
    if slot.is_some() {
        return;
    }
    let watch: Arc<dyn Waiter> = Arc::new(KillWatch(Arc::downgrade(group)));
    let deadline_ns = group.kernel.clock.monotonic_ns().saturating_add(GRACE_NS);
    let timer = group.kernel.timers.schedule(deadline_ns, &watch, 0);
    *slot = Some((watch, timer));
}

/// Continues a stopped process.
fn resume_group(group: &Arc<ThreadGroup>) {
    let tasks = group.tasks();
    let was_stopped = {
        let mut signals = group.signals.lock();
        signals.pending.discard(stop_signals());
        for task in &tasks {
            task.signals.lock().pending.discard(stop_signals());
        }
        signals.n_stopped = 0;
        signals.stop.take()
    };
    for task in &tasks {
        ptrace::link::tell_of_continue(task);
    }
    if was_stopped.is_some() {
        wake_all(&tasks);
        {
            let mut tree = group.tree.lock();
            tree.unseen_stop = None;
            tree.has_unseen_continue = true;
        }
        wait::notify_parent_of_continue(group);
    }
}
