//! Signals: actions, masks, sending, waiting.

use std::sync::Arc;

use syscalls::abi::capability::CAP_KILL;
use syscalls::abi::landlock::Scopes;
use syscalls::abi::signal::{
    SI_TKILL, SI_USER, SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, SIGCONT, SIGKILL, SIGSTOP, SigSet,
    Sigaction, Siginfo, Stackt,
};
use syscalls::abi::time::Timespec;
use syscalls::{Errno, SysResult, UserPtr};

use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::signal::{DefaultAction, default_action, frame, is_valid};
use crate::task::{Control, CurrentTask, HandlerResult, Restart, Task, ThreadGroup, signal};

const SIGSET_SIZE: usize = 8;

fn check_size(size: usize) -> SysResult<()> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Implements `rt_sigaction(2)`.
pub(super) fn sys_rt_sigaction(
    task: &CurrentTask,
    signum: i32,
    act: UserPtr<Sigaction>,
    oldact: UserPtr<Sigaction>,
    sigsetsize: usize,
) -> HandlerResult<()> {
    check_size(sigsetsize)?;
    let new = if act.is_null() { None } else { Some(task.read_obj(act)?) };
    if !is_valid(signum) || (new.is_some() && (signum == SIGKILL || signum == SIGSTOP)) {
        return Err(Errno::EINVAL.into());
    }
    let actions = task.group.actions.lock().clone();
    let old = {
        let mut actions = actions.lock();
        let old = actions.get(signum);
        if let Some(mut new) = new {
            new.mask = new.mask.difference(SigSet::UNBLOCKABLE);
            new.flags &= syscalls::abi::signal::SaFlags::all().bits()
                & !syscalls::abi::signal::SaFlags::UNSUPPORTED.bits();
            actions.set(signum, new);
        }
        old
    };
    if let Some(new) = new
        && (new.handler == syscalls::abi::signal::SIG_IGN
            || new.handler == syscalls::abi::signal::SIG_DFL
                && matches!(default_action(signum), DefaultAction::Ignore))
    {
        // Pending signals that are now ignored are forgotten, even blocked ones (POSIX).
        let set = SigSet::of(signum);
        task.group.signals.lock().pending.discard(set);
        for thread in task.group.tasks() {
            thread.signals.lock().pending.discard(set);
        }
    }
    if !oldact.is_null() {
        task.write_obj(oldact, &old)?;
    }
    Ok(())
}

/// Implements `rt_sigprocmask(2)`.
pub(super) fn sys_rt_sigprocmask(
    task: &CurrentTask,
    how: i32,
    set: UserPtr<SigSet>,
    oldset: UserPtr<SigSet>,
    sigsetsize: usize,
) -> HandlerResult<()> {
    check_size(sigsetsize)?;
    let old = task.signal_mask();
    if !set.is_null() {
        let set = task.read_obj(set)?;
        let new = match how {
            SIG_BLOCK => old.union(set),
            SIG_UNBLOCK => old.difference(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        task.set_signal_mask(new);
    }
    if !oldset.is_null() {
        task.write_obj(oldset, &old)?;
    }
    Ok(())
}

/// Implements `rt_sigpending(2)`.
pub(super) fn sys_rt_sigpending(
    task: &CurrentTask,
    set: UserPtr<SigSet>,
    sigsetsize: usize,
) -> HandlerResult<()> {
    if sigsetsize > SIGSET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let pending = {
        let group = task.group.signals.lock();
        let signals = task.signals.lock();
        group.pending.set().union(signals.pending.set()).intersection(signals.mask)
    };
    let bytes = pending.0.to_ne_bytes();
    task.write_bytes(set.addr(), bytes.get(..sigsetsize).unwrap_or_default())?;
    Ok(())
}

/// Implements `rt_sigsuspend(2)`.
pub(super) fn sys_rt_sigsuspend(
    task: &CurrentTask,
    set: UserPtr<SigSet>,
    sigsetsize: usize,
) -> HandlerResult<()> {
    check_size(sigsetsize)?;
    let mask = task.read_obj(set)?;
    task.set_temporary_mask(mask);
    task.wait_for(None, Restart::NoHand, |_| Vec::new(), || Ok(None::<()>)).map(|_| ())
}

/// Implements `rt_sigtimedwait(2)`.
pub(super) fn sys_rt_sigtimedwait(
    task: &CurrentTask,
    set: UserPtr<SigSet>,
    info: UserPtr<Siginfo>,
    timeout: UserPtr<Timespec>,
    sigsetsize: usize,
) -> HandlerResult<i32> {
    check_size(sigsetsize)?;
    let wanted = task.read_obj(set)?.difference(SigSet::UNBLOCKABLE);
    let deadline_ns = if timeout.is_null() {
        None
    } else {
        let timeout = task.read_obj(timeout)?;
        if !timeout.is_valid() {
            return Err(Errno::EINVAL.into());
        }
        let ns = u64::try_from(timeout.to_ns()).unwrap_or(u64::MAX);
        Some(task.kernel.clock.monotonic_ns().saturating_add(ns))
    };
    let take = || {
        let mut group = task.group.signals.lock();
        let mut signals = task.signals.lock();
        signals.waiting_for = SigSet::EMPTY;
        let mut taken = signals.pending.take(wanted).or_else(|| group.pending.take(wanted));
        drop(signals);
        drop(group);
        if let Some(info) = &mut taken {
            task.group.timers.signal_delivered(info);
        }
        Ok(taken)
    };
    let waited = task.wait_for(
        deadline_ns,
        Restart::NoHand,
        |waiter| {
            task.signals.lock().waiting_for = wanted;
            vec![task.group.signal_events.register(waiter, Events::IN, 0)]
        },
        take,
    );
    match waited {
        Ok(Wait::Ready(found)) => {
            if !info.is_null() {
                task.write_obj(info, &found)?;
            }
            Ok(found.si_signo)
        }
        Ok(Wait::TimedOut) => Err(Errno::EAGAIN.into()),
        Err(Control::Block) => {
            task.signals.lock().waiting_for = wanted;
            Err(Control::Block)
        }
        Err(Control::Restart(_)) => Err(Errno::EINTR.into()),
        Err(control) => Err(control),
    }
}

/// Implements `sigaltstack(2)`.
pub(super) fn sys_sigaltstack(
    task: &CurrentTask,
    ss: UserPtr<Stackt>,
    old_ss: UserPtr<Stackt>,
) -> HandlerResult<()> {
    let sp = task.context().regs().rsp;
    let old = task.signals.lock().altstack;
    if !ss.is_null() {
        let new = task.read_obj(ss)?;
        frame::set_altstack(task, &new, sp)?;
    }
    if !old_ss.is_null() {
        let ss_flags = old.ss_flags | frame::altstack_flags(&old, sp);
        task.write_obj(old_ss, &Stackt { ss_flags, ..old })?;
    }
    Ok(())
}

/// Returns whether the caller may send `signo` to the process.
fn may_signal(task: &CurrentTask, group: &Arc<ThreadGroup>, signo: i32) -> bool {
    let own = task.creds();
    let Some(leader) = group.leader() else { return true };
    let target = leader.creds();
    if let Some(domain) = &own.landlock
        && !Arc::ptr_eq(&task.group, group)
        && domain.is_scoped_from(target.landlock.as_ref(), Scopes::SIGNAL)
    {
        return false;
    }
    own.euid == target.suid
        || own.euid == target.uid
        || own.uid == target.suid
        || own.uid == target.uid
        || own.is_capable_in(&target.user_ns, CAP_KILL)
        || (signo == SIGCONT && task.group.session().id == group.session().id)
}

fn sender_info(task: &CurrentTask, target: &ThreadGroup, signo: i32, code: i32) -> Siginfo {
    let pid = i32::try_from(task.group.pid_in(&target.pid_namespace)).unwrap_or(0);
    let uid = task.creds().uid;
    let shown = target.leader().map_or(uid, |leader| leader.creds().user_ns.shown_uid(uid));
    Siginfo::kill(signo, code, pid, shown)
}

fn kill_one(task: &CurrentTask, group: &Arc<ThreadGroup>, signo: i32) -> SysResult<()> {
    if !may_signal(task, group, signo) {
        return Err(Errno::EPERM);
    }
    if signo == 0 {
        return Ok(());
    }
    signal::send_to_group(group, sender_info(task, group, signo, SI_USER))
}

/// Sends to each of `groups`; succeeds where one of them could be signalled.
fn kill_many(
    task: &CurrentTask,
    groups: impl Iterator<Item = Arc<ThreadGroup>>,
    signo: i32,
) -> SysResult<()> {
    let mut result = Err(Errno::ESRCH);
    for group in groups {
        match kill_one(task, &group, signo) {
            Ok(()) => result = Ok(()),
            Err(errno) if result == Err(Errno::ESRCH) => result = Err(errno),
            Err(_) => {}
        }
    }
    result
}

/// Implements `kill(2)`.
pub(super) fn sys_kill(task: &CurrentTask, pid: i32, sig: i32) -> HandlerResult<()> {
    if sig != 0 && !is_valid(sig) {
        return Err(Errno::EINVAL.into());
    }
    let namespace = task.pid_namespace();
    match pid {
        i32::MIN => Err(Errno::ESRCH.into()),
        -1 => {
            let own = task.group.clone();
            let all = namespace.tasks();
            let groups = all
                .into_iter()
                .filter(|(tid, task)| *tid > 1 && task.is_leader())
                .map(|(_, task)| task.group.clone())
                .filter(|group| !Arc::ptr_eq(group, &own));
            Ok(kill_many(task, groups, sig)?)
        }
        0 => {
            let members = task.group.process_group().members();
            Ok(kill_many(task, members.into_iter(), sig)?)
        }
        pid if pid > 0 => {
            let target = namespace.task(pid.unsigned_abs()).ok_or(Errno::ESRCH)?;
            Ok(kill_one(task, &target.group, sig)?)
        }
        group => {
            let id = group.unsigned_abs();
            let members: Vec<_> = namespace
                .tasks()
                .into_iter()
                .filter(|(_, task)| task.is_leader())
                .map(|(_, task)| task.group.clone())
                .filter(|group| group.process_group().id_in(&namespace) == id)
                .collect();
            Ok(kill_many(task, members.into_iter(), sig)?)
        }
    }
}

fn find_thread(task: &CurrentTask, tgid: Option<i32>, tid: i32) -> SysResult<Arc<Task>> {
    if tid <= 0 || tgid.is_some_and(|tgid| tgid <= 0) {
        return Err(Errno::EINVAL);
    }
    let namespace = task.pid_namespace();
    let target = namespace.task(tid.unsigned_abs()).ok_or(Errno::ESRCH)?;
    match tgid {
        Some(tgid) if target.group.pid_in(&namespace) != tgid.unsigned_abs() => Err(Errno::ESRCH),
        _ => Ok(target),
    }
}

fn send_to_thread(task: &CurrentTask, target: &Arc<Task>, info: Siginfo) -> SysResult<()> {
    if !may_signal(task, &target.group, info.si_signo) {
        return Err(Errno::EPERM);
    }
    if info.si_signo == 0 {
        return Ok(());
    }
    signal::send_to_task(target, info)
}

/// Implements `tgkill(2)`.
pub(super) fn sys_tgkill(task: &CurrentTask, tgid: i32, tid: i32, sig: i32) -> HandlerResult<()> {
    if tid <= 0 || tgid <= 0 || (sig != 0 && !is_valid(sig)) {
        return Err(Errno::EINVAL.into());
    }
    let target = find_thread(task, Some(tgid), tid)?;
    let info = sender_info(task, &target.group, sig, SI_TKILL);
    Ok(send_to_thread(task, &target, info)?)
}

/// Implements `tkill(2)`.
pub(super) fn sys_tkill(task: &CurrentTask, tid: i32, sig: i32) -> HandlerResult<()> {
    if tid <= 0 || (sig != 0 && !is_valid(sig)) {
        return Err(Errno::EINVAL.into());
    }
    let target = find_thread(task, None, tid)?;
    let info = sender_info(task, &target.group, sig, SI_TKILL);
    Ok(send_to_thread(task, &target, info)?)
}

/// Checks that a record given by the guest does not pretend to come from the kernel or `kill(2)`.
fn check_queued(
    task: &CurrentTask,
    target: &ThreadGroup,
    sig: i32,
    info: &mut Siginfo,
) -> SysResult<()> {
    info.si_signo = sig;
    // The sentry's own mark.
    info.pad0 = 0;
    if (info.si_code >= 0 || info.si_code == SI_TKILL)
        && !std::ptr::eq(target, &raw const *task.group)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Whom a signal to a pidfd reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PidfdScope {
    Process,
    Thread,
    ProcessGroup,
}

/// Sends to the process behind a pidfd: the body of `pidfd_send_signal(2)`.
///
/// # Errors
/// `EINVAL` for a wrong signal; `ESRCH`, `EPERM`, `EAGAIN`.
pub(super) fn send_to_pidfd(
    task: &CurrentTask,
    group: &Arc<ThreadGroup>,
    sig: i32,
    info: Option<Siginfo>,
    scope: PidfdScope,
) -> SysResult<()> {
    let info = match info {
        Some(info) if info.si_signo != sig => return Err(Errno::EINVAL),
        Some(mut info) => {
            check_queued(task, group, sig, &mut info)?;
            info
        }
        None => {
            let code = if scope == PidfdScope::Thread { SI_TKILL } else { SI_USER };
            sender_info(task, group, sig, code)
        }
    };
    if sig != 0 && !is_valid(sig) {
        return Err(Errno::EINVAL);
    }
    let leader = group.leader().ok_or(Errno::ESRCH)?;
    match scope {
        PidfdScope::ProcessGroup => {
            kill_many(task, group.process_group().members().into_iter(), sig)
        }
        PidfdScope::Thread => send_to_thread(task, &leader, info),
        PidfdScope::Process if !may_signal(task, group, sig) => Err(Errno::EPERM),
        PidfdScope::Process if sig == 0 => Ok(()),
        PidfdScope::Process => signal::send_to_group(group, info),
    }
}

/// Implements `rt_sigqueueinfo(2)`.
pub(super) fn sys_rt_sigqueueinfo(
    task: &CurrentTask,
    tgid: i32,
    sig: i32,
    info: UserPtr<Siginfo>,
) -> HandlerResult<()> {
    let mut info = task.read_obj(info)?;
    if sig != 0 && !is_valid(sig) {
        return Err(Errno::EINVAL.into());
    }
    let pid = u32::try_from(tgid).map_err(|_| Errno::ESRCH)?;
    let target = task.pid_namespace().task(pid).ok_or(Errno::ESRCH)?.group.clone();
    check_queued(task, &target, sig, &mut info)?;
    if !may_signal(task, &target, sig) {
        return Err(Errno::EPERM.into());
    }
    if sig == 0 {
        return Ok(());
    }
    Ok(signal::send_to_group(&target, info)?)
}

/// Implements `rt_tgsigqueueinfo(2)`.
pub(super) fn sys_rt_tgsigqueueinfo(
    task: &CurrentTask,
    tgid: i32,
    tid: i32,
    sig: i32,
    info: UserPtr<Siginfo>,
) -> HandlerResult<()> {
    let mut info = task.read_obj(info)?;
    if sig != 0 && !is_valid(sig) {
        return Err(Errno::EINVAL.into());
    }
    let target = find_thread(task, Some(tgid), tid)?;
    check_queued(task, &target.group, sig, &mut info)?;
    Ok(send_to_thread(task, &target, info)?)
}
