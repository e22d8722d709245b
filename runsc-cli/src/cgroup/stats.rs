//! What `events` shows of a container's groups, in runc's form.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Cgroup;

/// Returns the statistics of a container, without what its host does not count.
pub(crate) fn stats(cgroup: &Cgroup) -> Value {
    let mut data = json!({ "cpu": cpu(cgroup), "memory": memory(cgroup) });
    let pids = cgroup.controller("pids").or(cgroup.unified());
    if let Some(current) = pids.and_then(|dir| number(&dir.join("pids.current"))) {
        data["pids"] = json!({ "current": current });
        if let Some(limit) = pids.and_then(|dir| number(&dir.join("pids.max"))) {
            data["pids"]["limit"] = limit.into();
        }
    }
    data
}

/// Returns how many processes of a container have been killed for memory, where the host counts.
pub(crate) fn oom_kills(cgroup: &Cgroup) -> Option<u64> {
    let file = match cgroup.controller("memory") {
        Some(dir) => dir.join("memory.oom_control"),
        None => cgroup.unified()?.join("memory.events"),
    };
    pairs(&file).get("oom_kill").copied()
}

fn cpu(cgroup: &Cgroup) -> Value {
    if let Some(dir) = cgroup.controller("cpuacct") {
        let list = |file: &str| -> Vec<u64> {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let throttled = pairs(&cgroup.controller("cpu").unwrap_or(dir).join("cpu.stat"));
        return json!({
            "usage": {
                "total": number(&dir.join("cpuacct.usage")),
                "percpu": list("cpuacct.usage_percpu"),
                "kernel": number(&dir.join("cpuacct.usage_sys")),
                "user": number(&dir.join("cpuacct.usage_user")),
            },
            "throttling": throttling(&throttled, "throttled_time", 1),
        });
    }
    let stat = cgroup.unified().map(|dir| pairs(&dir.join("cpu.stat"))).unwrap_or_default();
    // Version 2 counts in microseconds, runc shows nanoseconds.
    let ns = |key: &str| stat.get(key).map(|usec| usec.saturating_mul(1000));
    json!({
        "usage": {
            "total": ns("usage_usec"), "kernel": ns("system_usec"), "user": ns("user_usec"),
        },
        "throttling": throttling(&stat, "throttled_usec", 1000),
    })
}

fn throttling(stat: &BTreeMap<String, u64>, time: &str, ns: u64) -> Value {
    json!({
        "periods": stat.get("nr_periods"),
        "throttledPeriods": stat.get("nr_throttled"),
        "throttledTime": stat.get(time).map(|value| value.saturating_mul(ns)),
    })
}

fn memory(cgroup: &Cgroup) -> Value {
    if let Some(dir) = cgroup.controller("memory") {
        let entry = |prefix: &str| {
            json!({
                "limit": number(&dir.join(format!("{prefix}.limit_in_bytes"))),
                "usage": number(&dir.join(format!("{prefix}.usage_in_bytes"))),
                "max": number(&dir.join(format!("{prefix}.max_usage_in_bytes"))),
                "failcnt": number(&dir.join(format!("{prefix}.failcnt"))),
            })
        };
        let raw = pairs(&dir.join("memory.stat"));
        return json!({
            "cache": raw.get("cache"),
            "usage": entry("memory"),
            "swap": entry("memory.memsw"),
            "kernel": entry("memory.kmem"),
            "kernelTCP": entry("memory.kmem.tcp"),
            "raw": raw,
        });
    }
    let Some(dir) = cgroup.unified() else { return json!({}) };
    let raw = pairs(&dir.join("memory.stat"));
    json!({
        "cache": raw.get("file"),
        "usage": {
            "limit": number(&dir.join("memory.max")).unwrap_or(u64::MAX),
            "usage": number(&dir.join("memory.current")),
            "max": number(&dir.join("memory.peak")),
            "failcnt": pairs(&dir.join("memory.events")).get("max"),
        },
        "raw": raw,
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Reads a file of lines with a name and a number.
fn pairs(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}
