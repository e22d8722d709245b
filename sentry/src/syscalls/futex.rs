//! Futexes.

use sentry_host::clock::Clock;
use sentry_platform::HostCall;
use syscalls::abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_CMD_MASK, FUTEX_CMP_REQUEUE, FUTEX_CMP_REQUEUE_PI, FUTEX_LOCK_PI,
    FUTEX_LOCK_PI2, FUTEX_OP_ADD, FUTEX_OP_ANDN, FUTEX_OP_CMP_EQ, FUTEX_OP_CMP_GE, FUTEX_OP_CMP_GT,
    FUTEX_OP_CMP_LE, FUTEX_OP_CMP_LT, FUTEX_OP_CMP_NE, FUTEX_OP_OPARG_SHIFT, FUTEX_OP_OR,
    FUTEX_OP_SET, FUTEX_OP_XOR, FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT,
    FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_WAITV_MAX, FUTEX_WAKE, FUTEX_WAKE_BITSET,
    FUTEX_WAKE_OP, Futex2Flags, FutexFlags, FutexWaitv, RobustListHead,
};
use syscalls::abi::time::{CLOCK_MONOTONIC, CLOCK_REALTIME, Timespec};
use syscalls::arg::FromArg;
use syscalls::{Errno, UserAddr, UserPtr};

use super::ids::target;
use crate::mm::futex::vector::{self, Entry};
use crate::mm::futex::{self, pi};
use crate::task::{Control, CurrentTask, HandlerResult, Restart};

/// Implements `futex(2)`.
pub(super) fn sys_futex(
    task: &CurrentTask,
    uaddr: UserAddr,
    futex_op: u32,
    val: u32,
    timeout: u64,
    uaddr2: UserAddr,
    val3: u32,
) -> HandlerResult<u32> {
    let flags = FutexFlags::from_bits_retain(futex_op & !FUTEX_CMD_MASK);
    let private = flags.contains(FutexFlags::PRIVATE_FLAG);
    let command = futex_op & FUTEX_CMD_MASK;
    if flags.contains(FutexFlags::CLOCK_REALTIME)
        && !matches!(command, FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2)
    {
        return Err(Errno::ENOSYS.into());
    }
    let n_second = u32::from_arg(timeout);
    let absolute =
        if flags.contains(FutexFlags::CLOCK_REALTIME) { Timer::Realtime } else { Timer::Monotonic };
    match command {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => {
            let bitset = if command == FUTEX_WAIT { FUTEX_BITSET_MATCH_ANY } else { val3 };
            let timer = if command == FUTEX_WAIT { Timer::Relative } else { absolute };
            let deadline_ns = deadline(task, UserAddr(timeout), timer)?;
            let restart = if deadline_ns.is_some() { Restart::RestartBlock } else { Restart::Sys };
            futex::wait(task, uaddr, private, val, bitset, deadline_ns, restart)?;
            Ok(0)
        }
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => {
            let timer = if command == FUTEX_LOCK_PI { Timer::Realtime } else { absolute };
            let deadline_ns = deadline(task, UserAddr(timeout), timer)?;
            pi::lock(task, uaddr, private, deadline_ns, false)?;
            Ok(0)
        }
        FUTEX_TRYLOCK_PI => {
            pi::lock(task, uaddr, private, None, true)?;
            Ok(0)
        }
        FUTEX_UNLOCK_PI => {
            pi::unlock(task, uaddr, private)?;
            Ok(0)
        }
        FUTEX_WAIT_REQUEUE_PI => {
            let deadline_ns = deadline(task, UserAddr(timeout), absolute)?;
            pi::wait_requeue(task, uaddr, private, val, deadline_ns, uaddr2)?;
            Ok(0)
        }
        FUTEX_CMP_REQUEUE_PI => {
            // What is not given the lock must wait for it: more than one cannot be woken.
            if val != 1 || i32::from_arg(timeout) < 0 {
                return Err(Errno::EINVAL.into());
            }
            pi::requeue(task, uaddr, uaddr2, private, n_second, val3)
        }
        FUTEX_WAKE => Ok(futex::wake(task, uaddr, private, val.max(1), FUTEX_BITSET_MATCH_ANY)?),
        FUTEX_WAKE_BITSET => Ok(futex::wake(task, uaddr, private, val, val3)?),
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            if i32::from_arg(val.into()) < 0 || i32::from_arg(timeout) < 0 {
                return Err(Errno::EINVAL.into());
            }
            let expected = (command == FUTEX_CMP_REQUEUE).then_some(val3);
            let (from, to) = ((uaddr, private), (uaddr2, private));
            let (n_woken, n_moved) = futex::requeue(task, from, to, val, n_second, expected)?;
            let moved = if expected.is_some() { n_moved } else { 0 };
            Ok(n_woken.saturating_add(moved))
        }
        FUTEX_WAKE_OP => wake_op(task, uaddr, uaddr2, private, val, n_second, val3),
        _ => {
            let args = [uaddr.0, futex_op.into(), val.into(), timeout, uaddr2.0, val3.into()];
            crate::unsupported::note("futex", &args);
            Err(Errno::ENOSYS.into())
        }
    }
}

/// How a time-out is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// From now on.
    Relative,
    /// On the monotonic clock.
    Monotonic,
    /// On the clock that can be set.
    Realtime,
}

impl Timer {
    /// Returns the clock of an absolute time-out.
    fn of_clock(clockid: i32) -> Result<Self, Errno> {
        match clockid {
            CLOCK_MONOTONIC => Ok(Self::Monotonic),
            CLOCK_REALTIME => Ok(Self::Realtime),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// Returns the deadline on the monotonic clock.
fn deadline(task: &CurrentTask, timeout: UserAddr, timer: Timer) -> HandlerResult<Option<u64>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let timeout = task.read_obj::<Timespec>(UserPtr::new(timeout))?;
    if !timeout.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    let clock = &task.kernel.clock;
    let ns = match timer {
        Timer::Realtime => timeout.to_ns().saturating_sub(clock.realtime_ns()).max(0),
        Timer::Relative => timeout.to_ns(),
        Timer::Monotonic => timeout.to_ns().saturating_sub(task.clock_offset_ns(Clock::Monotonic)),
    };
    let ns = u64::try_from(ns).unwrap_or(0);
    let now = if timer == Timer::Monotonic { 0 } else { clock.monotonic_ns() };
    Ok(Some(now.saturating_add(ns)))
}

/// Checks the flags of the calls after `futex(2)`; returns whether the futex is a private one.
/// Only words of 32 bits are served, as on Linux.
fn is_private(flags: u32) -> Result<bool, Errno> {
    let private = Futex2Flags::PRIVATE.bits();
    if flags & !private != Futex2Flags::SIZE_U32.bits() {
        return Err(Errno::EINVAL);
    }
    Ok(flags & private != 0)
}

/// Checks one futex of a vector.
fn entry(given: &FutexWaitv) -> Result<Entry, Errno> {
    let private = is_private(given.flags)?;
    let expected = u32::try_from(given.val).map_err(|_| Errno::EINVAL)?;
    if given.reserved != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Entry { addr: UserAddr(given.uaddr), private, expected })
}

/// Implements `futex_waitv(2)`.
pub(super) fn sys_futex_waitv(
    task: &CurrentTask,
    waiters: UserPtr<FutexWaitv>,
    nr_futexes: u32,
    flags: u32,
    timeout: UserAddr,
    clockid: i32,
) -> HandlerResult<usize> {
    let n = usize::try_from(nr_futexes).unwrap_or(usize::MAX);
    if flags != 0 || n == 0 || n > FUTEX_WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let timer = if timeout.is_null() { Timer::Relative } else { Timer::of_clock(clockid)? };
    let deadline_ns = deadline(task, timeout, timer)?;
    let given = task.read_array(waiters, n)?;
    let entries = given.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    vector::wait_any(task, &entries, deadline_ns)
}

/// Implements `futex_wake(2)`.
pub(super) fn sys_futex_wake(
    task: &CurrentTask,
    uaddr: UserAddr,
    mask: u64,
    nr: i32,
    flags: u32,
) -> HandlerResult<u32> {
    let private = is_private(flags)?;
    let mask = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    // Less than one wakes nobody here, other than for futex(2).
    Ok(futex::wake(task, uaddr, private, u32::try_from(nr).unwrap_or(0), mask)?)
}

/// Implements `futex_wait(2)`.
pub(super) fn sys_futex_wait(
    task: &CurrentTask,
    uaddr: UserAddr,
    val: u64,
    mask: u64,
    flags: u32,
    timeout: UserAddr,
    clockid: i32,
) -> HandlerResult<()> {
    let private = is_private(flags)?;
    let mask = u32::try_from(mask).map_err(|_| Errno::EINVAL)?;
    let expected = u32::try_from(val).map_err(|_| Errno::EINVAL)?;
    let timer = if timeout.is_null() { Timer::Relative } else { Timer::of_clock(clockid)? };
    let deadline_ns = deadline(task, timeout, timer)?;
    futex::wait(task, uaddr, private, expected, mask, deadline_ns, Restart::Sys)
}

/// Implements `futex_requeue(2)`.
pub(super) fn sys_futex_requeue(
    task: &CurrentTask,
    waiters: UserPtr<[FutexWaitv; 2]>,
    flags: u32,
    nr_wake: i32,
    nr_requeue: i32,
) -> HandlerResult<u32> {
    if flags != 0 || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let [from, to] = task.read_obj(waiters)?;
    let (from, to) = (entry(&from)?, entry(&to)?);
    let n_wake = u32::try_from(nr_wake).map_err(|_| Errno::EINVAL)?;
    let n_requeue = u32::try_from(nr_requeue).map_err(|_| Errno::EINVAL)?;
    let (source, target) = ((from.addr, from.private), (to.addr, to.private));
    let (n_woken, n_moved) =
        futex::requeue(task, source, target, n_wake, n_requeue, Some(from.expected))?;
    Ok(n_woken.saturating_add(n_moved))
}

/// Marks that the word of a `FUTEX_WAKE_OP` has been updated by the host call before this run.
struct WordUpdated;

fn wake_op(
    task: &CurrentTask,
    uaddr: UserAddr,
    uaddr2: UserAddr,
    private: bool,
    n_first: u32,
    n_second: u32,
    encoded: u32,
) -> HandlerResult<u32> {
    let sign_extend = |bits: u32| i32::from_arg((u64::from(bits) << 20) & 0xffff_ffff) >> 20;
    let op = encoded >> 28 & 7;
    let comparison = encoded >> 24 & 15;
    let operand = sign_extend(encoded >> 12 & 0xfff);
    let with = sign_extend(encoded & 0xfff);
    let operand = if encoded >> 28 & FUTEX_OP_OPARG_SHIFT != 0 {
        1u32.wrapping_shl(operand.cast_unsigned())
    } else {
        operand.cast_unsigned()
    };
    if task.recall::<WordUpdated>().is_none() {
        let (and, xor, add) = match op {
            FUTEX_OP_SET => (0, operand, false),
            FUTEX_OP_ADD => (0, operand, true),
            FUTEX_OP_OR => (!operand, operand, false),
            FUTEX_OP_ANDN => (!operand, 0, false),
            FUTEX_OP_XOR => (!0, operand, false),
            _ => return Err(Errno::ENOSYS.into()),
        };
        if !uaddr2.0.is_multiple_of(4) || !uaddr.0.is_multiple_of(4) {
            return Err(Errno::EINVAL.into());
        }
        task.queue_host_call(HostCall::AtomicUpdate { addr: uaddr2.0, and, xor, add });
        task.remember(WordUpdated);
        return Err(Control::HostCalls);
    }
    let results = task.context().host_call_results();
    let old = match results.values.last() {
        Some(Ok(old)) => i32::from_arg(*old),
        Some(Err(errno)) => return Err((*errno).into()),
        None => return Err(Errno::EFAULT.into()),
    };
    let holds = match comparison {
        FUTEX_OP_CMP_EQ => old == with,
        FUTEX_OP_CMP_NE => old != with,
        FUTEX_OP_CMP_LT => old < with,
        FUTEX_OP_CMP_LE => old <= with,
        FUTEX_OP_CMP_GT => old > with,
        FUTEX_OP_CMP_GE => old >= with,
        _ => return Err(Errno::ENOSYS.into()),
    };
    let mut n = futex::wake(task, uaddr, private, n_first, FUTEX_BITSET_MATCH_ANY)?;
    if holds {
        n = n.saturating_add(futex::wake(task, uaddr2, private, n_second, FUTEX_BITSET_MATCH_ANY)?);
    }
    Ok(n)
}

/// Implements `set_robust_list(2)`.
pub(super) fn sys_set_robust_list(
    task: &CurrentTask,
    head: UserAddr,
    len: usize,
) -> HandlerResult<()> {
    if len != size_of::<RobustListHead>() {
        return Err(Errno::EINVAL.into());
    }
    task.robust_list.store(head.0, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// Implements `get_robust_list(2)`.
pub(super) fn sys_get_robust_list(
    task: &CurrentTask,
    pid: i32,
    head: UserPtr<u64>,
    len: UserPtr<u64>,
) -> HandlerResult<()> {
    let target = target(task, pid)?;
    let own = task.creds();
    let theirs = target.creds();
    if own.euid != theirs.uid && own.euid != 0 {
        return Err(Errno::EPERM.into());
    }
    task.write_obj(len, &(size_of::<RobustListHead>() as u64))?;
    let addr = target.robust_list.load(std::sync::atomic::Ordering::Relaxed);
    Ok(task.write_obj(head, &addr)?)
}

/// Implements `rseq(2)`: the registration is the host thread's.
pub(super) fn sys_rseq(
    task: &CurrentTask,
    rseq: UserAddr,
    len: u32,
    flags: u32,
    signature: u32,
) -> HandlerResult<()> {
    const UNREGISTER: u32 = 1;
    if flags & !UNREGISTER != 0 {
        return Err(Errno::EINVAL.into());
    }
    let registered = task.misc.lock().rseq;
    let call = |flags| HostCall::Rseq { addr: rseq.0, len, flags, signature };
    if flags == UNREGISTER {
        match registered {
            Some((addr, old_len, old_signature)) if addr == rseq.0 && old_len == len => {
                if old_signature != signature {
                    return Err(Errno::EPERM.into());
                }
            }
            _ => return Err(Errno::EINVAL.into()),
        }
        task.misc.lock().rseq = None;
        task.queue_host_call(call(1));
        return Ok(());
    }
    if let Some((addr, old_len, old_signature)) = registered {
        if addr != rseq.0 || old_len != len {
            return Err(Errno::EINVAL.into());
        }
        let errno = if old_signature == signature { Errno::EBUSY } else { Errno::EPERM };
        return Err(errno.into());
    }
    if !rseq.0.is_multiple_of(32) || len < 32 {
        return Err(Errno::EINVAL.into());
    }
    task.misc.lock().rseq = Some((rseq.0, len, signature));
    task.queue_host_call(call(0));
    Ok(())
}
