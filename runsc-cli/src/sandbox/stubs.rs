//! The host processes that run a sandbox's applications, as the host numbers them.

use std::collections::HashMap;
use std::fs;

/// Returns the children of a sentry by the pid that each has in its own namespace.
pub(crate) fn by_own_pid(sentry: i32) -> HashMap<u32, i32> {
    of(sentry, candidates(sentry))
}

fn of(sentry: i32, pids: Vec<i32>) -> HashMap<u32, i32> {
    let child = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        if field("PPid:")?.trim().parse() != Ok(sentry) {
            return None;
        }
        Some((field("NSpid:")?.split_whitespace().last()?.parse().ok()?, pid))
    };
    pids.into_iter().filter_map(child).collect()
}

/// Returns the child of a sentry with this pid in its own namespace.
pub(super) fn find(sentry: i32, own_pid: u32) -> Option<i32> {
    // The kernel's list leaves some out where others end meanwhile.
    by_own_pid(sentry).remove(&own_pid).or_else(|| of(sentry, all_processes()).remove(&own_pid))
}

/// Returns all processes among which the children are: where the kernel lists them (they are those
/// of the first thread, which has made the one of which the others are clones) they alone.
fn candidates(sentry: i32) -> Vec<i32> {
    if let Ok(list) = fs::read_to_string(format!("/proc/{sentry}/task/{sentry}/children"))
        && !list.is_empty()
    {
        return list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    all_processes()
}

fn all_processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect()
}
