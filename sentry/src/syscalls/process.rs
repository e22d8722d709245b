//! Processes: creation, end, waiting.

use syscalls::abi::clone::{CLONE_ARGS_SIZE_VER0, CloneArgs, CloneFlags};
use syscalls::abi::resource::Rusage;
use syscalls::abi::signal::{SIGCHLD, Siginfo};
use syscalls::abi::wait::{self as status, P_ALL, P_PGID, P_PID, P_PIDFD, WaitFlags};
use syscalls::arg::FromArg;
use syscalls::{Errno, UserAddr, UserPtr};
use zerocopy::{FromZeros, IntoBytes};

use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::clone::{Clone, do_clone};
use crate::task::wait::{Found, Which, poll_children, si_status};
use crate::task::{Control, CurrentTask, HandlerResult, Restart, exit, signal};

/// Implements `_exit(2)`: ends the calling thread.
pub(super) fn sys_exit(task: &CurrentTask, code: i32) -> HandlerResult<()> {
    exit::exit_task(task, status::exited(code));
    Err(Control::Detached)
}

/// Implements `exit_group(2)`.
pub(super) fn sys_exit_group(task: &CurrentTask, code: i32) -> HandlerResult<()> {
    exit::exit_group(task, status::exited(code));
    Err(Control::Detached)
}

/// Implements `fork(2)`.
pub(super) fn sys_fork(task: &CurrentTask) -> HandlerResult {
    do_clone(task, &plain(CloneFlags::empty()))
}

/// Implements `vfork(2)`.
pub(super) fn sys_vfork(task: &CurrentTask) -> HandlerResult {
    do_clone(task, &plain(CloneFlags::VM | CloneFlags::VFORK))
}

fn plain(flags: CloneFlags) -> Clone {
    Clone {
        flags,
        exit_signal: SIGCHLD,
        stack: 0,
        parent_tid: UserAddr::NULL,
        child_tid: UserAddr::NULL,
        pidfd: UserAddr::NULL,
        tls: 0,
        set_tid: Vec::new(),
    }
}

/// Implements `clone(2)`.
pub(super) fn sys_clone(
    task: &CurrentTask,
    flags: u64,
    stack: u64,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: u64,
) -> HandlerResult {
    // The call takes 32 bits of flags, of which the lowest eight are the exit signal.
    let low = u64::from(u32::from_arg(flags));
    let clone_flags = CloneFlags::from_bits_retain(low & !CloneFlags::CSIGNAL);
    if clone_flags.contains(CloneFlags::PIDFD | CloneFlags::PARENT_SETTID) {
        return Err(Errno::EINVAL.into());
    }
    let clone = Clone {
        flags: clone_flags,
        exit_signal: i32::from_arg(low & CloneFlags::CSIGNAL),
        stack,
        parent_tid,
        child_tid,
        pidfd: parent_tid,
        tls,
        set_tid: Vec::new(),
    };
    do_clone(task, &clone)
}

/// Implements `clone3(2)`.
pub(super) fn sys_clone3(task: &CurrentTask, args: UserAddr, size: usize) -> HandlerResult {
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    if size < CLONE_ARGS_SIZE_VER0 {
        return Err(Errno::EINVAL.into());
    }
    let mut raw = vec![0; size];
    task.read_bytes(args, &mut raw)?;
    let mut parsed = CloneArgs::new_zeroed();
    let known = size_of::<CloneArgs>().min(size);
    let (head, tail) = raw.split_at(known);
    if tail.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    if let Some(bytes) = parsed.as_mut_bytes().get_mut(..known) {
        bytes.copy_from_slice(head);
    }
    let flags = CloneFlags::from_bits_retain(parsed.flags);
    let max_set_tid = 32;
    if parsed.set_tid_size > max_set_tid
        || (parsed.set_tid == 0) != (parsed.set_tid_size == 0)
        || parsed.exit_signal > 64
        || !CloneFlags::all().contains(flags)
        || flags.intersects(CloneFlags::DETACHED)
        || parsed.flags & CloneFlags::CSIGNAL & !CloneFlags::NEWTIME.bits() != 0
        || flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && parsed.exit_signal != 0
        || (parsed.stack == 0) != (parsed.stack_size == 0)
    {
        return Err(Errno::EINVAL.into());
    }
    let n_set_tid = usize::try_from(parsed.set_tid_size).map_err(|_| Errno::EINVAL)?;
    let set_tid = task.read_array::<u32>(UserPtr::new(UserAddr(parsed.set_tid)), n_set_tid)?;
    let stack = parsed.stack.checked_add(parsed.stack_size).ok_or(Errno::EINVAL)?;
    let clone = Clone {
        flags,
        exit_signal: i32::try_from(parsed.exit_signal).map_err(|_| Errno::EINVAL)?,
        stack,
        parent_tid: UserAddr(parsed.parent_tid),
        child_tid: UserAddr(parsed.child_tid),
        pidfd: UserAddr(parsed.pidfd),
        tls: parsed.tls,
        set_tid,
    };
    do_clone(task, &clone)
}

/// Implements `set_tid_address(2)`.
pub(super) fn sys_set_tid_address(task: &CurrentTask, tidptr: UserAddr) -> HandlerResult {
    task.clear_child_tid.store(tidptr.0, std::sync::atomic::Ordering::Relaxed);
    Ok(task.tid_in(&task.pid_namespace()).into())
}

/// Waits for a child that `which` and `flags` select; `None` under `WNOHANG`.
fn wait_child(task: &CurrentTask, which: &Which, flags: WaitFlags) -> HandlerResult<Option<Found>> {
    if flags.contains(WaitFlags::WNOHANG) {
        return Ok(poll_children(task, which, flags)?);
    }
    let waited = task.wait_for(
        None,
        Restart::Sys,
        |waiter| vec![task.group.child_events.register(waiter, Events::IN, 0)],
        || poll_children(task, which, flags),
    )?;
    Ok(match waited {
        Wait::Ready(found) => Some(found),
        Wait::TimedOut => None,
    })
}

/// Implements `wait4(2)`.
pub(super) fn sys_wait4(
    task: &CurrentTask,
    pid: i32,
    wstatus: UserPtr<i32>,
    options: u32,
    rusage: UserPtr<Rusage>,
) -> HandlerResult<u32> {
    let flags = WaitFlags::from_bits_retain(options);
    let allowed = WaitFlags::WNOHANG
        | WaitFlags::WUNTRACED
        | WaitFlags::WCONTINUED
        | WaitFlags::__WNOTHREAD
        | WaitFlags::__WCLONE
        | WaitFlags::__WALL;
    if !allowed.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let which = match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => Which::Any,
        0 => Which::OwnProcessGroup,
        pid if pid > 0 => Which::Pid(pid.unsigned_abs()),
        group => Which::ProcessGroup(group.unsigned_abs()),
    };
    let Some(found) = wait_child(task, &which, flags | WaitFlags::WEXITED)? else { return Ok(0) };
    if !wstatus.is_null() {
        task.write_obj(wstatus, &found.status)?;
    }
    if !rusage.is_null() {
        task.write_obj(rusage, &found.usage.to_rusage())?;
    }
    Ok(found.pid)
}

/// Implements `waitid(2)`.
pub(super) fn sys_waitid(
    task: &CurrentTask,
    idtype: i32,
    id: i32,
    infop: UserPtr<Siginfo>,
    options: u32,
    rusage: UserPtr<Rusage>,
) -> HandlerResult<()> {
    let flags = WaitFlags::from_bits_retain(options);
    let events = WaitFlags::WEXITED | WaitFlags::WSTOPPED | WaitFlags::WCONTINUED;
    let allowed = events
        | WaitFlags::WNOHANG
        | WaitFlags::WNOWAIT
        | WaitFlags::__WNOTHREAD
        | WaitFlags::__WCLONE
        | WaitFlags::__WALL;
    if !allowed.contains(flags) || !flags.intersects(events) {
        return Err(Errno::EINVAL.into());
    }
    let mut flags = flags;
    let which = match idtype {
        P_ALL => Which::Any,
        P_PID if id > 0 => Which::Pid(id.unsigned_abs()),
        P_PGID if id == 0 => Which::OwnProcessGroup,
        P_PGID if id > 0 => Which::ProcessGroup(id.unsigned_abs()),
        P_PIDFD if id >= 0 => {
            let (group, nonblocking) = crate::fs::pidfd::group_of(task, id)?;
            if nonblocking {
                flags |= WaitFlags::WNOHANG;
            }
            let found = wait_child(task, &Which::Group(group), flags)?;
            if found.is_none() && nonblocking {
                return Err(Errno::EAGAIN.into());
            }
            return report(task, found.as_ref(), infop, rusage);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let found = wait_child(task, &which, flags)?;
    report(task, found.as_ref(), infop, rusage)
}

fn report(
    task: &CurrentTask,
    found: Option<&Found>,
    infop: UserPtr<Siginfo>,
    rusage: UserPtr<Rusage>,
) -> HandlerResult<()> {
    if let Some(found) = found
        && !rusage.is_null()
    {
        task.write_obj(rusage, &found.usage.to_rusage())?;
    }
    if infop.is_null() {
        return Ok(());
    }
    let info = match found {
        Some(found) => {
            let pid = i32::from_arg(found.pid.into());
            let si_status = si_status(found.status, found.code);
            let uid = task.creds().user_ns.shown_uid(found.uid);
            Siginfo::child(found.code, pid, uid, si_status, 0, 0)
        }
        None => Siginfo::new(0, 0),
    };
    // Linux leaves the time fields alone: it writes up to si_status.
    let len = 28;
    task.write_bytes(infop.addr(), info.as_bytes().get(..len).unwrap_or_default())?;
    Ok(())
}

/// Implements `pause(2)`.
pub(super) fn sys_pause(task: &CurrentTask) -> HandlerResult<()> {
    task.wait_for(None, Restart::NoHand, |_| Vec::new(), || Ok(None::<()>)).map(|_| ())
}

/// Implements `restart_syscall(2)`: goes on with a call that a stop or an uncaught signal
/// interrupted.
pub(super) fn sys_restart_syscall(task: &CurrentTask) -> HandlerResult {
    let saved = task.signals.lock().restart_block.take();
    let Some((call, deadline_ns)) = saved else { return Err(Errno::EINTR.into()) };
    *task.call.lock() = call;
    task.set_block_deadline(deadline_ns);
    super::dispatch::call(task)
}

/// Implements `rt_sigreturn(2)`.
pub(super) fn sys_rt_sigreturn(task: &CurrentTask) -> HandlerResult {
    signal::frame::pop(task)
}
