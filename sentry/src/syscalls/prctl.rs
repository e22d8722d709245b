//! `prctl(2)` and `arch_prctl(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::{CAP_LAST_CAP, CAP_SETPCAP};
use syscalls::abi::prctl::{
    PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_LOWER,
    PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, PR_CAPBSET_READ, PR_GET_CHILD_SUBREAPER,
    PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_GET_PDEATHSIG,
    PR_GET_SECCOMP, PR_GET_SECUREBITS, PR_GET_THP_DISABLE, PR_GET_TID_ADDRESS, PR_GET_TIMERSLACK,
    PR_GET_TIMING, PR_GET_TSC, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_MM,
    PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, PR_SET_PTRACER, PR_SET_SECCOMP,
    PR_SET_SECUREBITS, PR_SET_THP_DISABLE, PR_SET_TIMERSLACK, PR_SET_TIMING, PR_SET_TSC,
    PR_SET_VMA, PR_TSC_ENABLE, Securebits, TASK_COMM_LEN,
};
use syscalls::arg::FromArg;
use syscalls::{Errno, UserAddr, UserPtr};

use crate::task::{Credentials, CurrentTask, HandlerResult, signal};

/// The default timer slack of Linux.
const DEFAULT_TIMER_SLACK_NS: u64 = 50_000;

fn update(task: &CurrentTask, change: impl FnOnce(&mut Credentials)) {
    let mut slot = task.creds.lock();
    let mut creds = (**slot).clone();
    change(&mut creds);
    *slot = Arc::new(creds);
}

/// Implements `prctl(2)`.
pub(super) fn sys_prctl(
    task: &CurrentTask,
    option: i32,
    arg2: u64,
    arg3: u64,
    arg4: u64,
    arg5: u64,
) -> HandlerResult {
    let unused =
        |used: &[u64]| if used.iter().any(|arg| *arg != 0) { Err(Errno::EINVAL) } else { Ok(()) };
    match option {
        PR_SET_PDEATHSIG => {
            let signo = i32::try_from(arg2).map_err(|_| Errno::EINVAL)?;
            if signo != 0 && !signal::is_valid(signo) {
                return Err(Errno::EINVAL.into());
            }
            task.parent_death_signal.store(signo.unsigned_abs(), Ordering::Relaxed);
        }
        PR_GET_PDEATHSIG => {
            let signo = task.parent_death_signal.load(Ordering::Relaxed);
            task.write_obj(UserPtr::new(UserAddr(arg2)), &signo)?;
        }
        PR_GET_DUMPABLE => return Ok(task.group.is_dumpable.load(Ordering::Relaxed).into()),
        PR_SET_DUMPABLE => {
            if arg2 > 1 {
                return Err(Errno::EINVAL.into());
            }
            task.group.is_dumpable.store(arg2 == 1, Ordering::Relaxed);
        }
        PR_GET_KEEPCAPS => {
            let bits = Securebits::from_bits_retain(task.creds().securebits);
            return Ok(bits.contains(Securebits::KEEP_CAPS).into());
        }
        PR_SET_KEEPCAPS => {
            if arg2 > 1 {
                return Err(Errno::EINVAL.into());
            }
            if Securebits::from_bits_retain(task.creds().securebits)
                .contains(Securebits::KEEP_CAPS_LOCKED)
            {
                return Err(Errno::EPERM.into());
            }
            update(task, |creds| {
                let mut bits = Securebits::from_bits_retain(creds.securebits);
                bits.set(Securebits::KEEP_CAPS, arg2 == 1);
                creds.securebits = bits.bits();
            });
        }
        PR_SET_NAME => {
            let name = match task.read_cstr(UserAddr(arg2), TASK_COMM_LEN) {
                Ok(name) => name,
                Err(Errno::ENAMETOOLONG) => {
                    let mut name = vec![0; TASK_COMM_LEN - 1];
                    task.read_bytes(UserAddr(arg2), &mut name)?;
                    name
                }
                Err(errno) => return Err(errno.into()),
            };
            *task.comm.lock() = name;
        }
        PR_GET_NAME => {
            let mut name = task.comm.lock().clone();
            name.resize(TASK_COMM_LEN, 0);
            task.write_bytes(UserAddr(arg2), &name)?;
        }
        PR_SET_VMA => return super::prctl_mm::set_vma(task, arg2, arg3, arg4, arg5),
        PR_SET_MM => return super::prctl_mm::set_mm(task, arg2, arg3, arg4),
        PR_GET_SECCOMP => {
            let (mode, _) = task.seccomp.mode().describe();
            return Ok(u64::from(mode.unsigned_abs()));
        }
        PR_SET_SECCOMP => super::seccomp::set_mode(task, arg2, arg3)?,
        PR_CAPBSET_READ => {
            let capability = u32::try_from(arg2).ok().filter(|cap| *cap <= CAP_LAST_CAP);
            let capability = capability.ok_or(Errno::EINVAL)?;
            return Ok(task.creds().bounding >> capability & 1);
        }
        PR_CAPBSET_DROP => {
            let capability = u32::try_from(arg2).ok().filter(|cap| *cap <= CAP_LAST_CAP);
            let capability = capability.ok_or(Errno::EINVAL)?;
            if !task.creds().has_own_capability(CAP_SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            update(task, |creds| creds.bounding &= !(1 << capability));
        }
        PR_GET_SECUREBITS => return Ok(task.creds().securebits.into()),
        PR_SET_SECUREBITS => {
            let bits = u32::try_from(arg2).map_err(|_| Errno::EPERM)?;
            let old = task.creds().securebits;
            let locks = Securebits::from_bits_retain(old).bits() & LOCKS;
            let changed = old ^ bits;
            if bits & !Securebits::all().bits() != 0
                || !task.creds().has_own_capability(CAP_SETPCAP)
                || changed & (locks >> 1) != 0
                || locks & !bits != 0
            {
                return Err(Errno::EPERM.into());
            }
            update(task, |creds| creds.securebits = bits);
        }
        PR_SET_TIMERSLACK => {
            let mut misc = task.misc.lock();
            misc.timer_slack_ns = if arg2 == 0 { misc.default_timer_slack_ns } else { arg2 };
        }
        PR_GET_TIMERSLACK => {
            let slack = task.misc.lock().timer_slack_ns;
            return Ok(if slack == 0 { DEFAULT_TIMER_SLACK_NS } else { slack });
        }
        PR_GET_TIMING => {}
        PR_SET_TIMING if arg2 == 0 => {}
        // DEVIATION: the counter can always be read.
        PR_SET_TSC if arg2 == PR_TSC_ENABLE => {}
        PR_GET_TSC => {
            let enabled = u32::from_arg(PR_TSC_ENABLE);
            task.write_obj(UserPtr::new(UserAddr(arg2)), &enabled)?;
        }
        PR_SET_CHILD_SUBREAPER => task.group.is_subreaper.store(arg2 != 0, Ordering::Relaxed),
        PR_GET_CHILD_SUBREAPER => {
            let is_subreaper = u32::from(task.group.is_subreaper.load(Ordering::Relaxed));
            task.write_obj(UserPtr::new(UserAddr(arg2)), &is_subreaper)?;
        }
        PR_SET_NO_NEW_PRIVS => {
            if arg2 != 1 {
                return Err(Errno::EINVAL.into());
            }
            unused(&[arg3, arg4, arg5])?;
            update(task, |creds| creds.no_new_privs = true);
        }
        PR_GET_NO_NEW_PRIVS => {
            unused(&[arg2, arg3, arg4, arg5])?;
            return Ok(task.creds().no_new_privs.into());
        }
        PR_GET_TID_ADDRESS => {
            let addr = task.clear_child_tid.load(Ordering::Relaxed);
            task.write_obj(UserPtr::new(UserAddr(arg2)), &addr)?;
        }
        PR_SET_THP_DISABLE => {
            unused(&[arg3, arg4, arg5])?;
            task.misc.lock().thp_disable = arg2 != 0;
        }
        PR_GET_THP_DISABLE => {
            unused(&[arg2, arg3, arg4, arg5])?;
            return Ok(task.misc.lock().thp_disable.into());
        }
        PR_CAP_AMBIENT => return ambient(task, arg2, arg3),
        // Yama is compiled out.
        PR_SET_PTRACER => return Err(Errno::EINVAL.into()),
        _ => {
            crate::unsupported::note(
                "prctl",
                &[u64::from(option.unsigned_abs()), arg2, arg3, arg4, arg5, 0],
            );
            return Err(Errno::EINVAL.into());
        }
    }
    Ok(0)
}

/// The lock bits among the securebits.
const LOCKS: u32 = Securebits::NOROOT_LOCKED.bits()
    | Securebits::NO_SETUID_FIXUP_LOCKED.bits()
    | Securebits::KEEP_CAPS_LOCKED.bits()
    | Securebits::NO_CAP_AMBIENT_RAISE_LOCKED.bits();

fn ambient(task: &CurrentTask, operation: u64, capability: u64) -> HandlerResult {
    if operation == PR_CAP_AMBIENT_CLEAR_ALL {
        if capability != 0 {
            return Err(Errno::EINVAL.into());
        }
        update(task, |creds| creds.ambient = 0);
        return Ok(0);
    }
    let capability = u32::try_from(capability).ok().filter(|cap| *cap <= CAP_LAST_CAP);
    let bit = 1u64 << capability.ok_or(Errno::EINVAL)?;
    let creds = task.creds();
    match operation {
        PR_CAP_AMBIENT_IS_SET => return Ok((creds.ambient & bit != 0).into()),
        PR_CAP_AMBIENT_RAISE => {
            let forbidden = Securebits::from_bits_retain(creds.securebits)
                .contains(Securebits::NO_CAP_AMBIENT_RAISE);
            if creds.permitted & creds.inheritable & bit == 0 || forbidden {
                return Err(Errno::EPERM.into());
            }
            update(task, |creds| creds.ambient |= bit);
        }
        PR_CAP_AMBIENT_LOWER => update(task, |creds| creds.ambient &= !bit),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const ARCH_GET_CPUID: i32 = 0x1011;
const ARCH_SET_CPUID: i32 = 0x1012;

/// Implements `arch_prctl(2)`.
pub(super) fn sys_arch_prctl(task: &CurrentTask, code: i32, addr: u64) -> HandlerResult<u32> {
    let mut regs = task.context().regs();
    match code {
        ARCH_SET_FS | ARCH_SET_GS => {
            if addr >= sentry_platform::USER_ADDRESS_LIMIT {
                return Err(Errno::EPERM.into());
            }
            if code == ARCH_SET_FS {
                regs.fs_base = addr;
            } else {
                regs.gs_base = addr;
            }
            task.context().set_regs(&regs);
            Ok(0)
        }
        ARCH_GET_FS | ARCH_GET_GS => {
            let base = if code == ARCH_GET_FS { regs.fs_base } else { regs.gs_base };
            task.write_obj(UserPtr::new(UserAddr(addr)), &base)?;
            Ok(0)
        }
        // No processor here has CPUID faulting.
        ARCH_SET_CPUID => Err(Errno::ENODEV.into()),
        ARCH_GET_CPUID => Ok(1),
        // Shadow stacks and dynamic XSTATE are compiled out.
        _ => Err(Errno::EINVAL.into()),
    }
}
