//! Small values of a process, some of which can be written.

use std::sync::atomic::Ordering;

use syscalls::abi::capability::{CAP_SYS_NICE, CAP_SYS_RESOURCE};
use syscalls::{Errno, SysResult};

use super::Look;
use crate::config::IdRange;

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

/// A file that may be written on Linux only where namespaces are set up.
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

pub(super) fn coredump_filter(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    line("00000033")
}

pub(super) fn uid_map(look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(id_map(&look.task.container().id_maps.uids))
}

pub(super) fn gid_map(look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(id_map(&look.task.container().id_maps.gids))
}

pub(super) fn projid_map(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    Ok(id_map(&[]))
}

/// Renders a map as its reader outside the namespace sees it.
fn id_map(ranges: &[IdRange]) -> Vec<u8> {
    let every = [IdRange { inside: 0, outside: 0, size: u32::MAX }];
    let ranges = if ranges.is_empty() { &every } else { ranges };
    let row = |range: &IdRange| {
        format!("{:>10} {:>10} {:>10}\n", range.inside, range.outside, range.size)
    };
    ranges.iter().map(row).collect::<String>().into_bytes()
}

pub(super) fn setgroups(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    line("allow")
}

pub(super) fn timens_offsets(_look: &Look<'_>) -> SysResult<Vec<u8>> {
    line(format_args!(
        "{:<10} {:>10} {:>9}\n{:<10} {:>10} {:>9}",
        "monotonic", 0, 0, "boottime", 0, 0
    ))
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
