//! Futexes.

use sentry_platform::HostCall;
use syscalls::abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_CMD_MASK, FUTEX_CMP_REQUEUE, FUTEX_OP_ADD, FUTEX_OP_ANDN,
    FUTEX_OP_CMP_EQ, FUTEX_OP_CMP_GE, FUTEX_OP_CMP_GT, FUTEX_OP_CMP_LE, FUTEX_OP_CMP_LT,
    FUTEX_OP_CMP_NE, FUTEX_OP_OPARG_SHIFT, FUTEX_OP_OR, FUTEX_OP_SET, FUTEX_OP_XOR, FUTEX_REQUEUE,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, FutexFlags,
    RobustListHead,
};
use syscalls::abi::time::Timespec;
use syscalls::arg::FromArg;
use syscalls::{Errno, UserAddr, UserPtr};

use super::ids::target;
use crate::mm::futex;
use crate::task::{Control, CurrentTask, HandlerResult};

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
        && !matches!(command, FUTEX_WAIT | FUTEX_WAIT_BITSET)
    {
        return Err(Errno::ENOSYS.into());
    }
    let n_second = u32::from_arg(timeout);
    match command {
        FUTEX_WAIT | FUTEX_WAIT_BITSET => {
            let bitset = if command == FUTEX_WAIT { FUTEX_BITSET_MATCH_ANY } else { val3 };
            let absolute = command == FUTEX_WAIT_BITSET;
            let realtime = flags.contains(FutexFlags::CLOCK_REALTIME);
            let deadline_ns = deadline(task, UserAddr(timeout), absolute, realtime)?;
            futex::wait(task, uaddr, private, val, bitset, deadline_ns)?;
            Ok(0)
        }
        FUTEX_WAKE => Ok(futex::wake(task, uaddr, private, val.max(1), FUTEX_BITSET_MATCH_ANY)?),
        FUTEX_WAKE_BITSET => Ok(futex::wake(task, uaddr, private, val, val3)?),
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            if i32::from_arg(val.into()) < 0 || i32::from_arg(timeout) < 0 {
                return Err(Errno::EINVAL.into());
            }
            let expected = (command == FUTEX_CMP_REQUEUE).then_some(val3);
            let (n_woken, n_moved) =
                futex::requeue(task, uaddr, uaddr2, private, val, n_second, expected)?;
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

/// Returns the deadline on the monotonic clock.
fn deadline(
    task: &CurrentTask,
    timeout: UserAddr,
    absolute: bool,
    realtime: bool,
) -> HandlerResult<Option<u64>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let timeout = task.read_obj::<Timespec>(UserPtr::new(timeout))?;
    if !timeout.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    let clock = &task.kernel.clock;
    let ns = timeout.to_ns();
    let ns = if absolute && realtime { ns.saturating_sub(clock.realtime_ns()).max(0) } else { ns };
    let ns = u64::try_from(ns).unwrap_or(0);
    Ok(Some(if absolute && !realtime { ns } else { clock.monotonic_ns().saturating_add(ns) }))
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
