//! Scheduling, limits and usage.

use std::sync::OnceLock;

use syscalls::abi::capability::{CAP_SYS_NICE, CAP_SYS_RESOURCE};
use syscalls::abi::resource::{
    PRIO_PGRP, PRIO_PROCESS, PRIO_USER, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NOFILE, RUSAGE_CHILDREN,
    RUSAGE_SELF, RUSAGE_THREAD, Rlimit, Rusage,
};
use syscalls::abi::sched::{
    SCHED_ATTR_SIZE_VER0, SCHED_BATCH, SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL,
    SCHED_RESET_ON_FORK, SCHED_RR, SchedAttr, SchedParam,
};
use syscalls::abi::time::{Timespec, Tms};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::{FromZeros, IntoBytes};

use super::ids::target;
use crate::task::limits::N_LIMITS;
use crate::task::{CurrentTask, HandlerResult, Task};
use crate::vfs::lent;

/// Implements `sched_yield(2)`.
pub(super) fn sys_sched_yield(_task: &CurrentTask) -> HandlerResult<()> {
    Ok(())
}

/// The number of processors that the sandbox may use. The standard library looks at files for it,
/// so the first call is made before the sentry is locked down.
static N_CPUS: OnceLock<usize> = OnceLock::new();

/// Returns the number of processors that the guest sees.
pub(crate) fn n_cpus() -> usize {
    *N_CPUS.get_or_init(host_cpus)
}

/// Lets the guest see no more than `most` processors. Only before anybody has counted them.
pub(crate) fn limit_cpus(most: usize) {
    let _ = N_CPUS.set(host_cpus().min(most).max(1));
}

fn host_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn all_cpus() -> Vec<u8> {
    let n = n_cpus();
    let mut mask = vec![0; n.div_ceil(64) * 8];
    for cpu in 0..n {
        if let Some(byte) = mask.get_mut(cpu / 8) {
            *byte |= 1 << (cpu % 8);
        }
    }
    mask
}

/// Implements `sched_getaffinity(2)`.
pub(super) fn sys_sched_getaffinity(
    task: &CurrentTask,
    pid: i32,
    len: usize,
    mask: UserAddr,
) -> HandlerResult<usize> {
    let all = all_cpus();
    if len < all.len() || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    let target = target(task, pid)?;
    let own = target.misc.lock().affinity.clone();
    let shown = if own.is_empty() { all } else { own };
    task.write_bytes(mask, &shown)?;
    Ok(shown.len())
}

/// Implements `sched_setaffinity(2)`.
pub(super) fn sys_sched_setaffinity(
    task: &CurrentTask,
    pid: i32,
    len: usize,
    mask: UserAddr,
) -> HandlerResult<()> {
    let all = all_cpus();
    let mut wanted = vec![0; all.len()];
    let n = len.min(all.len());
    if let Some(head) = wanted.get_mut(..n) {
        task.read_bytes(mask, head)?;
    }
    for (byte, existing) in wanted.iter_mut().zip(&all) {
        *byte &= existing;
    }
    if wanted.iter().all(|byte| *byte == 0) {
        return Err(Errno::EINVAL.into());
    }
    let target = target(task, pid)?;
    if !may_schedule(task, &target) {
        return Err(Errno::EPERM.into());
    }
    let is_all = wanted == all;
    target.misc.lock().affinity = if is_all { Vec::new() } else { wanted };
    target.reschedule();
    Ok(())
}

fn may_schedule(task: &CurrentTask, target: &Task) -> bool {
    let own = task.creds();
    let theirs = target.creds();
    own.euid == theirs.uid
        || own.euid == theirs.euid
        || own.is_capable_in(&theirs.user_ns, CAP_SYS_NICE)
}

/// Implements `sched_getscheduler(2)`.
pub(super) fn sys_sched_getscheduler(task: &CurrentTask, pid: i32) -> HandlerResult<u32> {
    if pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(target(task, pid)?.misc.lock().sched_policy)
}

fn is_priority_valid(policy: i32, priority: i32) -> bool {
    match policy {
        SCHED_FIFO | SCHED_RR => (1..=99).contains(&priority),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE => priority == 0,
        _ => false,
    }
}

/// Implements `sched_setscheduler(2)`: real-time policies are kept and shown but not honoured by
/// the host; an unprivileged caller is refused as on Linux.
pub(super) fn sys_sched_setscheduler(
    task: &CurrentTask,
    pid: i32,
    policy: i32,
    param: UserPtr<SchedParam>,
) -> HandlerResult<()> {
    if pid < 0 || policy < 0 || param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let param = task.read_obj(param)?;
    let kind = policy & !SCHED_RESET_ON_FORK;
    if !is_priority_valid(kind, param.sched_priority) {
        return Err(Errno::EINVAL.into());
    }
    set_policy(task, pid, policy.unsigned_abs(), kind, param.sched_priority)
}

/// The least and the most that a period of `SCHED_DEADLINE` can be: `sched_dl_period_min_us` and
/// `sched_dl_period_max_us`.
const DEADLINE_PERIOD_NS: std::ops::RangeInclusive<u64> = 100_000..=(1 << 22) * 1000;

/// The shortest run time of `SCHED_DEADLINE`.
const DEADLINE_MIN_RUNTIME_NS: u64 = 1024;

/// Checks run time, deadline and period as `__checkparam_dl()` of Linux.
fn check_deadline(attr: &SchedAttr) -> SysResult<[u64; 3]> {
    let [runtime, deadline] = [attr.sched_runtime, attr.sched_deadline];
    let period = if attr.sched_period == 0 { deadline } else { attr.sched_period };
    let is_valid = runtime >= DEADLINE_MIN_RUNTIME_NS
        && runtime <= deadline
        && deadline <= period
        && DEADLINE_PERIOD_NS.contains(&period);
    if !is_valid {
        return Err(Errno::EINVAL);
    }
    // What all processors together have for these: 95 %.
    let n_cpus = u64::try_from(n_cpus()).unwrap_or(1);
    let share = runtime.saturating_mul(100) / period;
    if share > n_cpus.saturating_mul(95) {
        Err(Errno::EBUSY)
    } else {
        Ok([runtime, deadline, attr.sched_period])
    }
}

fn set_policy(
    task: &CurrentTask,
    pid: i32,
    policy: u32,
    kind: i32,
    priority: i32,
) -> HandlerResult<()> {
    let target = target(task, pid)?;
    let realtime = matches!(kind, SCHED_FIFO | SCHED_RR | SCHED_DEADLINE);
    if !may_schedule(task, &target) || (realtime && !task.creds().has_capability(CAP_SYS_NICE)) {
        return Err(Errno::EPERM.into());
    }
    let mut misc = target.misc.lock();
    misc.sched_policy = policy;
    misc.sched_priority = priority;
    misc.deadline = None;
    drop(misc);
    target.reschedule();
    Ok(())
}

/// Implements `sched_setparam(2)`.
pub(super) fn sys_sched_setparam(
    task: &CurrentTask,
    pid: i32,
    param: UserPtr<SchedParam>,
) -> HandlerResult<()> {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let param = task.read_obj(param)?;
    let policy = target(task, pid)?.misc.lock().sched_policy;
    let kind = i32::try_from(policy).map_err(|_| Errno::EINVAL)? & !SCHED_RESET_ON_FORK;
    if !is_priority_valid(kind, param.sched_priority) {
        return Err(Errno::EINVAL.into());
    }
    set_policy(task, pid, policy, kind, param.sched_priority)
}

/// Implements `sched_getparam(2)`.
pub(super) fn sys_sched_getparam(
    task: &CurrentTask,
    pid: i32,
    param: UserPtr<SchedParam>,
) -> HandlerResult<()> {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let sched_priority = target(task, pid)?.misc.lock().sched_priority;
    Ok(task.write_obj(param, &SchedParam { sched_priority })?)
}

/// Implements `sched_setattr(2)`.
pub(super) fn sys_sched_setattr(
    task: &CurrentTask,
    pid: i32,
    attr: UserPtr<SchedAttr>,
    flags: u32,
) -> HandlerResult<()> {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let size: u32 = task.read_obj(attr.cast())?;
    let size = usize::try_from(size).map_err(|_| Errno::E2BIG)?;
    // Zero means the first version of the structure.
    let size = if size == 0 { SCHED_ATTR_SIZE_VER0 } else { size };
    if !(SCHED_ATTR_SIZE_VER0..=4096).contains(&size) {
        task.write_obj(attr.cast(), &SIZE_OF_ATTR)?;
        return Err(Errno::E2BIG.into());
    }
    let mut new = SchedAttr::new_zeroed();
    let known = size.min(size_of::<SchedAttr>());
    if let Some(bytes) = new.as_mut_bytes().get_mut(..known) {
        task.read_bytes(attr.addr(), bytes)?;
    }
    let policy = i32::try_from(new.sched_policy).map_err(|_| Errno::EINVAL)?;
    let priority = i32::try_from(new.sched_priority).map_err(|_| Errno::EINVAL)?;
    let is_deadline = policy == SCHED_DEADLINE && priority == 0;
    if !is_deadline && !is_priority_valid(policy, priority) {
        return Err(Errno::EINVAL.into());
    }
    let target = target(task, pid)?;
    let deadline = if is_deadline { Some(check_deadline(&new)?) } else { None };
    let nice = new.sched_nice.clamp(-20, 19);
    let lowers = nice < target.misc.lock().nice;
    if lowers && !task.creds().has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    set_policy(task, pid, new.sched_policy, policy, priority)?;
    let mut misc = target.misc.lock();
    misc.nice = nice;
    misc.deadline = deadline;
    drop(misc);
    target.reschedule();
    Ok(())
}

/// Implements `sched_getattr(2)`.
pub(super) fn sys_sched_getattr(
    task: &CurrentTask,
    pid: i32,
    attr: UserPtr<SchedAttr>,
    size: u32,
    flags: u32,
) -> HandlerResult<()> {
    let len = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if attr.is_null() || pid < 0 || flags != 0 || !(SCHED_ATTR_SIZE_VER0..=4096).contains(&len) {
        return Err(Errno::EINVAL.into());
    }
    let target = target(task, pid)?;
    let mut out = SchedAttr::new_zeroed();
    {
        let misc = target.misc.lock();
        out.sched_policy = misc.sched_policy;
        out.sched_priority = misc.sched_priority.unsigned_abs();
        out.sched_nice = misc.nice;
        let [runtime, deadline, period] = misc.deadline.unwrap_or_default();
        (out.sched_runtime, out.sched_deadline, out.sched_period) = (runtime, deadline, period);
    }
    out.size = size.min(SIZE_OF_ATTR);
    let known = len.min(size_of::<SchedAttr>());
    Ok(task.write_bytes(attr.addr(), out.as_bytes().get(..known).unwrap_or_default())?)
}

/// The size of the structure that this kernel knows.
const SIZE_OF_ATTR: u32 = 56;

/// Implements `sched_get_priority_max(2)`.
pub(super) fn sys_sched_get_priority_max(_task: &CurrentTask, policy: i32) -> HandlerResult<u32> {
    priority_bound(policy, 99)
}

/// Implements `sched_get_priority_min(2)`.
pub(super) fn sys_sched_get_priority_min(_task: &CurrentTask, policy: i32) -> HandlerResult<u32> {
    priority_bound(policy, 1)
}

fn priority_bound(policy: i32, realtime: u32) -> HandlerResult<u32> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(realtime),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Implements `sched_rr_get_interval(2)`.
pub(super) fn sys_sched_rr_get_interval(
    task: &CurrentTask,
    pid: i32,
    tp: UserPtr<Timespec>,
) -> HandlerResult<()> {
    if pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    target(task, pid)?;
    Ok(task.write_obj(tp, &Timespec::from_ns(100_000_000))?)
}

/// Returns `fs.nr_open`.
fn nr_open(task: &CurrentTask) -> i128 {
    task.kernel.sysctls.number("fs/nr_open", 0).unwrap_or(1 << 20).into()
}

fn priority_targets(
    task: &CurrentTask,
    which: i32,
    who: i32,
) -> SysResult<Vec<std::sync::Arc<Task>>> {
    let namespace = task.pid_namespace();
    let all = || namespace.tasks().into_iter().map(|(_, task)| task);
    Ok(match which {
        PRIO_PROCESS => vec![target(task, who)?],
        PRIO_PGRP => {
            let id = match who {
                0 => task.group.process_group().id_in(&namespace),
                who => u32::try_from(who).map_err(|_| Errno::ESRCH)?,
            };
            all().filter(|task| task.group.process_group().id_in(&namespace) == id).collect()
        }
        PRIO_USER => {
            let own = task.creds();
            let uid = match who {
                0 => own.uid,
                who => own.user_ns.kuid(who.cast_unsigned()).ok_or(Errno::ESRCH)?,
            };
            all().filter(|task| task.creds().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    })
}

/// Implements `getpriority(2)`: returns 20 minus the nice value.
pub(super) fn sys_getpriority(task: &CurrentTask, which: i32, who: i32) -> HandlerResult<i32> {
    let targets = priority_targets(task, which, who)?;
    let best = targets.iter().map(|target| 20 - target.misc.lock().nice).max();
    Ok(best.ok_or(Errno::ESRCH)?)
}

/// Implements `setpriority(2)`.
pub(super) fn sys_setpriority(
    task: &CurrentTask,
    which: i32,
    who: i32,
    prio: i32,
) -> HandlerResult<()> {
    let targets = priority_targets(task, which, who)?;
    if targets.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    let nice = prio.clamp(-20, 19);
    for target in targets {
        if !may_schedule(task, &target) {
            return Err(Errno::EPERM.into());
        }
        let mut misc = target.misc.lock();
        if nice < misc.nice && !task.creds().has_capability(CAP_SYS_NICE) {
            return Err(Errno::EACCES.into());
        }
        misc.nice = nice;
        drop(misc);
        target.reschedule();
    }
    Ok(())
}

/// Implements `ioprio_get(2)`.
pub(super) fn sys_ioprio_get(task: &CurrentTask, which: i32, who: i32) -> HandlerResult<i32> {
    let targets = priority_targets(task, which.wrapping_sub(1), who)?;
    let first = targets.first().ok_or(Errno::ESRCH)?;
    let ioprio = first.misc.lock().ioprio;
    Ok(ioprio)
}

/// Implements `ioprio_set(2)`: kept and shown.
pub(super) fn sys_ioprio_set(
    task: &CurrentTask,
    which: i32,
    who: i32,
    ioprio: i32,
) -> HandlerResult<()> {
    let class = ioprio >> syscalls::abi::sched::IOPRIO_CLASS_SHIFT;
    if !(0..=3).contains(&class) {
        return Err(Errno::EINVAL.into());
    }
    if class == 1 && !task.creds().has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    for target in priority_targets(task, which.wrapping_sub(1), who)? {
        target.misc.lock().ioprio = ioprio;
    }
    Ok(())
}

/// Implements `getrlimit(2)`.
pub(super) fn sys_getrlimit(
    task: &CurrentTask,
    resource: u32,
    rlim: UserPtr<Rlimit>,
) -> HandlerResult<()> {
    let limit = task.group.limits.lock().get(resource).ok_or(Errno::EINVAL)?;
    Ok(task.write_obj(rlim, &Rlimit { rlim_cur: limit.0, rlim_max: limit.1 })?)
}

/// Implements `setrlimit(2)`.
pub(super) fn sys_setrlimit(
    task: &CurrentTask,
    resource: u32,
    rlim: UserPtr<Rlimit>,
) -> HandlerResult<()> {
    sys_prlimit64(task, 0, resource, rlim, UserPtr::new(UserAddr::NULL))
}

/// Implements `prlimit64(2)`.
pub(super) fn sys_prlimit64(
    task: &CurrentTask,
    pid: i32,
    resource: u32,
    new_limit: UserPtr<Rlimit>,
    old_limit: UserPtr<Rlimit>,
) -> HandlerResult<()> {
    if usize::try_from(resource).unwrap_or(usize::MAX) >= N_LIMITS {
        return Err(Errno::EINVAL.into());
    }
    let new = if new_limit.is_null() { None } else { Some(task.read_obj(new_limit)?) };
    let target = target(task, pid)?;
    let own = task.creds();
    let theirs = target.creds();
    let same = own.uid == theirs.uid && own.uid == theirs.euid && own.uid == theirs.suid;
    if !std::sync::Arc::ptr_eq(&target.group, &task.group)
        && !same
        && !own.is_capable_in(&theirs.user_ns, CAP_SYS_RESOURCE)
    {
        return Err(Errno::EPERM.into());
    }
    let old = {
        let mut limits = target.group.limits.lock();
        let old = limits.get(resource).ok_or(Errno::EINVAL)?;
        if let Some(new) = new {
            if new.rlim_cur > new.rlim_max {
                return Err(Errno::EINVAL.into());
            }
            if i32::try_from(resource).unwrap_or(-1) == i32::try_from(RLIMIT_NOFILE).unwrap_or(7)
                && i128::from(new.rlim_max) > nr_open(task)
            {
                return Err(Errno::EPERM.into());
            }
            if new.rlim_max > old.1 && !own.has_capability(CAP_SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            limits.set(resource, (new.rlim_cur, new.rlim_max));
        }
        old
    };
    if let Some(new) = new
        && resource == RLIMIT_CPU
    {
        target.group.timers.set_cpu_limit(&target.group, (new.rlim_cur, new.rlim_max));
    }
    if new.is_some() && resource == RLIMIT_FSIZE {
        // What is lent for writing is so without a limit.
        lent::recall_all();
    }
    if !old_limit.is_null() {
        task.write_obj(old_limit, &Rlimit { rlim_cur: old.0, rlim_max: old.1 })?;
    }
    Ok(())
}

/// Implements `getrusage(2)`.
pub(super) fn sys_getrusage(
    task: &CurrentTask,
    who: i32,
    usage: UserPtr<Rusage>,
) -> HandlerResult<()> {
    let used = match who {
        RUSAGE_SELF => task.group.usage(),
        RUSAGE_THREAD => task.usage(),
        RUSAGE_CHILDREN => task.group.account.children(),
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(task.write_obj(usage, &used.to_rusage())?)
}

/// Implements `times(2)`: clock ticks of 10 ms.
pub(super) fn sys_times(task: &CurrentTask, buf: UserPtr<Tms>) -> HandlerResult {
    let ticks = |ns: u64| i64::try_from(ns / 10_000_000).unwrap_or(i64::MAX);
    if !buf.is_null() {
        let (user, system) = task.group.cpu_ns();
        let children = task.group.account.children().cpu_ns;
        let tms = Tms {
            tms_utime: ticks(user),
            tms_stime: ticks(system),
            tms_cutime: ticks(children.0),
            tms_cstime: ticks(children.1),
        };
        task.write_obj(buf, &tms)?;
    }
    Ok(task.kernel.clock.monotonic_ns() / 10_000_000)
}
