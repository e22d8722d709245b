//! `seccomp(2)`.

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::prctl::{
    SECCOMP_GET_ACTION_AVAIL, SECCOMP_GET_NOTIF_SIZES, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT,
    SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_STRICT, SeccompData, SeccompFlags, SeccompNotif,
    SeccompNotifResp, SeccompNotifSizes, SockFilter, SockFprog,
};
use syscalls::arg::FromArg;
use syscalls::{Errno, UserAddr, UserPtr};

use crate::bpf::MAX_INSTRUCTIONS;
use crate::fs::seccomp_listener::SeccompListener;
use crate::task::seccomp::listener::Listener;
use crate::task::{CurrentTask, HandlerResult, seccomp};

use super::fd::install;

/// Implements `seccomp(2)`.
///
/// <https://man7.org/linux/man-pages/man2/seccomp.2.html>
pub(super) fn sys_seccomp(
    task: &CurrentTask,
    operation: u32,
    flags: u32,
    args: UserAddr,
) -> HandlerResult<u32> {
    match operation {
        SECCOMP_SET_MODE_STRICT if flags == 0 && args.is_null() => {
            seccomp::be_strict(task)?;
            Ok(0)
        }
        SECCOMP_SET_MODE_FILTER => set_filter(task, SeccompFlags::from_bits_retain(flags), args),
        SECCOMP_GET_ACTION_AVAIL if flags == 0 => {
            let action = task.read_obj(UserPtr::new(args))?;
            if seccomp::is_action(action) { Ok(0) } else { Err(Errno::EOPNOTSUPP.into()) }
        }
        SECCOMP_GET_NOTIF_SIZES if flags == 0 => {
            let size = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
            let sizes = SeccompNotifSizes {
                seccomp_notif: size(size_of::<SeccompNotif>()),
                seccomp_notif_resp: size(size_of::<SeccompNotifResp>()),
                seccomp_data: size(size_of::<SeccompData>()),
            };
            task.write_obj(UserPtr::new(args), &sizes)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Implements `prctl(PR_SET_SECCOMP)`.
pub(super) fn set_mode(task: &CurrentTask, mode: u64, filter: u64) -> HandlerResult<()> {
    match i32::from_arg(mode) {
        SECCOMP_MODE_STRICT => seccomp::be_strict(task)?,
        SECCOMP_MODE_FILTER => {
            set_filter(task, SeccompFlags::empty(), UserAddr(filter))?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(())
}

fn set_filter(task: &CurrentTask, flags: SeccompFlags, args: UserAddr) -> HandlerResult<u32> {
    let listens = flags.contains(SeccompFlags::NEW_LISTENER);
    let for_all = flags.contains(SeccompFlags::TSYNC);
    // A descriptor and a thread could not be told apart.
    let is_unclear = listens && for_all && !flags.contains(SeccompFlags::TSYNC_ESRCH);
    let is_killable = flags.contains(SeccompFlags::WAIT_KILLABLE_RECV);
    if flags.has_unknown_bits() || is_unclear || (is_killable && !listens) {
        return Err(Errno::EINVAL.into());
    }
    let given: SockFprog = task.read_obj(UserPtr::new(args))?;
    let len = usize::from(given.len);
    if len == 0 || len > MAX_INSTRUCTIONS {
        return Err(Errno::EINVAL.into());
    }
    // Else a program with more rights could be made to fail halfway.
    let creds = task.creds();
    if !creds.no_new_privs && !creds.has_own_capability(CAP_SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    let instructions = task.read_array::<SockFilter>(UserPtr::new(UserAddr(given.filter)), len)?;
    let program = seccomp::program(instructions)?;
    let mut fd = None;
    let mut listener = None;
    if listens {
        let new = Listener::new(is_killable);
        let file = SeccompListener::open(task, &new);
        fd = Some(install(task, file, true)?);
        listener = Some(new);
    }
    let added = seccomp::add(task, program, listener, for_all);
    if let Some(fd) = fd {
        if let Ok(Ok(())) = added {
            return Ok(fd.0.cast_unsigned());
        }
        drop(task.files().remove(fd.0));
    }
    match added? {
        Ok(()) => Ok(0),
        Err(_) if flags.contains(SeccompFlags::TSYNC_ESRCH) => Err(Errno::ESRCH.into()),
        Err(thread) => Ok(thread.tid_in(&task.pid_namespace())),
    }
}
