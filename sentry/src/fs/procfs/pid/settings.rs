//! Small values of a process, some of which can be written.

use std::sync::atomic::Ordering;

use sentry_host::clock::Clock;
use syscalls::abi::capability::{CAP_SYS_NICE, CAP_SYS_RESOURCE};
use syscalls::{Errno, SysResult};

use super::Look;
use crate::task::Credentials;
use crate::task::time_namespace::NewOffset;

const NS_PER_SECOND: i64 = 1_000_000_000;

/// The longest name of a thread.
const COMM_LEN: usize = 15;

const OOM_SCORE_ADJ_MAX: i32 = 1000;

/// The number that stands for "disabled" in the older scale.
const OOM_DISABLE: i32 = -17;

/// The other end of the older scale.
const OOM_ADJUST_MAX: i32 = 15;

fn line(text: impl std::fmt::Display) -> SysResult<Vec<u8>> {
    Ok(format!("{text}\n").into_bytes())
}

/// A file that nobody may write.
pub(super) fn refuse(_look: &Look<'_>, _data: &[u8]) -> SysResult<()> {
    Err(Errno::EPERM)
}

pub(super) fn comm(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let mut name = look.task.comm.lock().clone();
    name.push(b'\n');
    Ok(name)
}

pub(super) fn set_comm(look: &Look<'_>, data: &[u8]) -> SysResult<()> {
    if !std::sync::Arc::ptr_eq(&look.task.group, &look.current.group) {
        return Err(Errno::EINVAL);
    }
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len()).min(COMM_LEN);
    *look.task.comm.lock() = data.get(..end).unwrap_or_default().to_vec();
    Ok(())
}

/// The bits of `coredump_filter`.
const FILTER_MASK: u32 = 0x1ff;

fn parse_i32(data: &[u8]) -> SysResult<i32> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    text.trim_matches(['\n', ' ', '\0']).parse().map_err(|_| Errno::EINVAL)
}

pub(super) fn oom_score_adj(look: &Look<'_>) -> SysResult<Vec<u8>> {
    line(look.task.group.oom_score_adj.load(Ordering::Relaxed))
}

fn change_oom_score(look: &Look<'_>, value: i32) -> SysResult<()> {
    let group = &look.task.group;
    let is_lower = value < group.oom_score_adj.load(Ordering::Relaxed);
    if is_lower && !look.current.creds().has_capability(CAP_SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    group.oom_score_adj.store(value, Ordering::Relaxed);
    Ok(())
}

pub(super) fn set_oom_score_adj(look: &Look<'_>, data: &[u8]) -> SysResult<()> {
    let value = parse_i32(data)?;
    if !(-OOM_SCORE_ADJ_MAX..=OOM_SCORE_ADJ_MAX).contains(&value) {
        return Err(Errno::EINVAL);
    }
    change_oom_score(look, value)
}

pub(super) fn oom_adj(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let value = look.task.group.oom_score_adj.load(Ordering::Relaxed);
    let shown = if value == OOM_SCORE_ADJ_MAX {
        OOM_ADJUST_MAX
    } else {
        value.saturating_mul(-OOM_DISABLE) / OOM_SCORE_ADJ_MAX
    };
    line(shown)
}

pub(super) fn set_oom_adj(look: &Look<'_>, data: &[u8]) -> SysResult<()> {
    let value = parse_i32(data)?;
    if !(OOM_DISABLE..=OOM_ADJUST_MAX).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let scaled = if value == OOM_ADJUST_MAX {
        OOM_SCORE_ADJ_MAX
    } else {
        value.saturating_mul(OOM_SCORE_ADJ_MAX) / -OOM_DISABLE
    };
    change_oom_score(look, scaled)
}

pub(super) fn oom_score(look: &Look<'_>) -> SysResult<Vec<u8>> {
    // As `oom_badness()` scaled by `proc_oom_score()`: share of memory plus adjustment, in 0..=2000.
    let adj = i64::from(look.task.group.oom_score_adj.load(Ordering::Relaxed));
    let Some(mm) = look.mm() else { return line(0) };
    let total = i64::try_from(look.task.container().total_memory()).unwrap_or(i64::MAX).max(1);
    let resident = i64::try_from(mm.usage().resident.resident()).unwrap_or(i64::MAX);
    let points = resident.saturating_mul(1000) / total + adj;
    line((1000 + points).max(0).saturating_mul(2) / 3)
}

/// `loginuid`, `sessionid`: no audit session.
pub(super) fn unset_id(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(u32::MAX.to_string().into_bytes())
}

pub(super) fn coredump_filter(look: &Look<'_>) -> SysResult<Vec<u8>> {
    line(format_args!("{:08x}", look.task.group.core_filter.load(Ordering::Relaxed)))
}

pub(super) fn set_coredump_filter(look: &Look<'_>, data: &[u8]) -> SysResult<()> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_matches(['\n', ' ', '\0']);
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None if text.starts_with('0') => u32::from_str_radix(text, 8),
        None => text.parse(),
    };
    let value = value.map_err(|_| Errno::EINVAL)?;
    look.task.group.core_filter.store(value & FILTER_MASK, Ordering::Relaxed);
    Ok(())
}

pub(super) fn timens_offsets(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let clocks = look.task.namespaces().time_for_children.clone();
    let parts = |clock| {
        let ns = clocks.of(clock);
        (ns.div_euclid(NS_PER_SECOND), ns.rem_euclid(NS_PER_SECOND))
    };
    let (monotonic, boottime) = (parts(Clock::Monotonic), parts(Clock::Boottime));
    line(format_args!(
        "{:<10} {:>10} {:>9}\n{:<10} {:>10} {:>9}",
        "monotonic", monotonic.0, monotonic.1, "boottime", boottime.0, boottime.1
    ))
}

pub(super) fn set_timens_offsets(
    look: &Look<'_>,
    data: &[u8],
    opener: &Credentials,
) -> SysResult<()> {
    let offsets = parse_offsets(data)?;
    let clocks = look.task.namespaces().time_for_children.clone();
    clocks.set_offsets(&offsets, opener)
}

/// Reads one or two lines: a clock, seconds, nanoseconds.
fn parse_offsets(data: &[u8]) -> SysResult<Vec<NewOffset>> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let is_boottime = match words.next()? {
            "monotonic" | "1" => false,
            "boottime" | "7" => true,
            _ => return None,
        };
        let seconds = words.next()?.parse().ok()?;
        let ns = words.next()?.parse().ok().filter(|ns| (0..NS_PER_SECOND).contains(ns))?;
        words.next().is_none().then_some(NewOffset { is_boottime, seconds, ns })
    };
    let offsets: Option<Vec<NewOffset>> = text.split('\n').map(parse).collect();
    offsets.filter(|offsets| offsets.len() <= 2).ok_or(Errno::EINVAL)
}

/// Timers are shown where checkpointing is compiled in; what is shown otherwise is nothing.
pub(super) fn timers(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(Vec::new())
}

pub(super) fn timer_slack(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let slack = look.task.misc.lock().timer_slack_ns;
    line(if slack == 0 { 50_000 } else { slack })
}

pub(super) fn set_timer_slack(look: &Look<'_>, data: &[u8]) -> SysResult<()> {
    let is_own = std::sync::Arc::ptr_eq(&look.task.group, &look.current.group);
    if !is_own && !look.current.creds().has_capability(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let slack = text.trim_end_matches(['\n', '\0']).parse().map_err(|_| Errno::EINVAL)?;
    look.task.misc.lock().timer_slack_ns = slack;
    Ok(())
}
