//! From the statistics of `runsc events --stats` to the message in which containerd takes them.

use serde_json::Value;

use super::wire::{Writer, any};

/// The fields of `io.containerd.cgroups.v1.MemoryStat` from number 1 on, as memory.stat names them,
/// and the names for the same in version 2.
const MEMORY: [(&str, &str); 32] = [
    ("cache", "file"),
    ("rss", "anon"),
    ("rss_huge", "anon_thp"),
    ("mapped_file", "file_mapped"),
    ("dirty", "file_dirty"),
    ("writeback", "file_writeback"),
    ("pgpgin", ""),
    ("pgpgout", ""),
    ("pgfault", "pgfault"),
    ("pgmajfault", "pgmajfault"),
    ("inactive_anon", "inactive_anon"),
    ("active_anon", "active_anon"),
    ("inactive_file", "inactive_file"),
    ("active_file", "active_file"),
    ("unevictable", "unevictable"),
    ("hierarchical_memory_limit", ""),
    ("hierarchical_memsw_limit", ""),
    ("total_cache", "file"),
    ("total_rss", "anon"),
    ("total_rss_huge", "anon_thp"),
    ("total_mapped_file", "file_mapped"),
    ("total_dirty", "file_dirty"),
    ("total_writeback", "file_writeback"),
    ("total_pgpgin", ""),
    ("total_pgpgout", ""),
    ("total_pgfault", "pgfault"),
    ("total_pgmajfault", "pgmajfault"),
    ("total_inactive_anon", "inactive_anon"),
    ("total_active_anon", "active_anon"),
    ("total_inactive_file", "inactive_file"),
    ("total_active_file", "active_file"),
    ("total_unevictable", "unevictable"),
];

/// Returns the statistics of a line of JSON, as `google.protobuf.Any`.
pub(crate) fn metrics(json: &[u8]) -> serde_json::Result<Writer> {
    let event: Value = serde_json::from_slice(json)?;
    let data = &event["data"];
    let mut message = Writer::new();
    if data["pids"].is_object() {
        let pids = numbers(&data["pids"], &["current", "limit"]);
        message = message.message(2, &pids);
    }
    let usage = &data["cpu"]["usage"];
    let per_cpu = usage["percpu"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let cpu = Writer::new()
        .message(1, &numbers(usage, &["total", "kernel", "user"]).numbers(4, per_cpu))
        .message(2, &throttling(&data["cpu"]["throttling"]));
    message = message.message(3, &cpu);
    if data["memory"].is_object() {
        message = message.message(4, &memory(&data["memory"]));
    }
    Ok(any("io.containerd.cgroups.v1.Metrics", message.into_bytes()))
}

fn throttling(value: &Value) -> Writer {
    numbers(value, &["periods", "throttledPeriods", "throttledTime"])
}

fn memory(value: &Value) -> Writer {
    let raw = &value["raw"];
    let mut message = Writer::new();
    for (field, (name, unified)) in (1..).zip(MEMORY) {
        let number = raw[name].as_u64().or(raw[unified].as_u64()).unwrap_or(0);
        message = message.number(field, number);
    }
    for (field, name) in (33..).zip(["usage", "swap", "kernel", "kernelTCP"]) {
        if value[name].is_object() {
            let entry = numbers(&value[name], &["limit", "usage", "max", "failcnt"]);
            message = message.message(field, &entry);
        }
    }
    message
}

/// Returns a message of the numbers of an object, from field 1 on.
fn numbers(value: &Value, names: &[&str]) -> Writer {
    (1..).zip(names).fold(Writer::new(), |message, (field, name)| {
        message.number(field, value[*name].as_u64().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::metrics;
    use crate::wire::Message;

    #[test]
    fn statistics_keep_their_meaning() {
        let json = br#"{"type":"stats","id":"a","data":{
            "cpu":{"usage":{"total":70,"kernel":20,"user":50,"percpu":[30,40]}},
            "memory":{"usage":{"limit":1000,"usage":400},"raw":{"total_inactive_file":100}},
            "pids":{"current":3}}}"#;

        let bytes = metrics(json).unwrap().into_bytes();

        let any = Message::parse(&bytes).unwrap();
        assert_eq!(any.text(1).unwrap(), "io.containerd.cgroups.v1.Metrics");
        let metrics = any.message(2).unwrap();
        assert_eq!(metrics.message(2).unwrap().number(1), 3);
        let usage = metrics.message(3).unwrap().message(1).unwrap();
        assert_eq!((usage.number(1), usage.number(3), usage.bytes(4)), (70, 50, &[30, 40][..]));
        let memory = metrics.message(4).unwrap();
        assert_eq!(memory.number(30), 100);
        assert_eq!(memory.message(33).unwrap().number(2), 400);
    }

    #[test]
    fn statistics_of_the_unified_hierarchy_have_the_same_places() {
        let json = br#"{"data":{"memory":{"raw":{"file":5,"inactive_file":7}}}}"#;
        let bytes = metrics(json).unwrap().into_bytes();
        let memory = Message::parse(&bytes).unwrap().message(2).unwrap().message(4).unwrap();
        assert_eq!((memory.number(18), memory.number(30)), (5, 7));
    }
}
