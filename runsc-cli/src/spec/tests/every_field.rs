//! Every field of the runtime specification for Linux, one at a time: of a wrong type it is refused
//! or warned about by name, and an unknown one beside it as well. Nothing is silently dropped.

use serde_json::{Value, json};

use super::Request;

/// Fields without a meaning in a sandbox, whose value is not looked at.
const IGNORED: [&str; 3] = [
    // Of a terminal, which the file may not ask for here.
    "/process/consoleSize",
    // Of the host's devices, of which a sandbox has none.
    "/linux/resources/devices",
    // A name for people.
    "/process/user/username",
];

/// A file with every field that version 1.2 defines for Linux.
fn full() -> Value {
    let hook = json!([{
        "path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5
    }]);
    let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let throttle = json!([{ "major": 8, "minor": 0, "rate": 600 }]);
    json!({
        "ociVersion": "1.2.1",
        "hostname": "host",
        "domainname": "domain",
        "root": { "path": "/", "readonly": true },
        "process": {
            "terminal": true,
            "consoleSize": { "height": 25, "width": 80 },
            "user": {
                "uid": 1, "gid": 1, "umask": 63, "additionalGids": [5], "username": "name"
            },
            "args": ["sh"],
            "env": ["A=b"],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"],
                "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
            "apparmorProfile": "profile",
            "oomScoreAdj": 100,
            "scheduler": {
                "policy": "SCHED_RR", "nice": 1, "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
                "runtime": 1, "deadline": 1, "period": 1
            },
            "selinuxLabel": "label",
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 4 },
            "execCPUAffinity": { "initial": "0", "final": "0" }
        },
        "mounts": [{
            "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"],
            "uidMappings": mapping, "gidMappings": mapping
        }],
        "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook,
            "startContainer": hook, "poststart": hook, "poststop": hook
        },
        "annotations": { "key": "value" },
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "sysctl": { "kernel.shmmax": "1" },
            "resources": {
                "devices": [{
                    "allow": true, "type": "c", "major": 1, "minor": 1, "access": "rwm"
                }],
                "memory": {
                    "limit": 1, "reservation": 1, "swap": 1, "kernel": 1, "kernelTCP": 1,
                    "swappiness": 1, "disableOOMKiller": true, "useHierarchy": true,
                    "checkBeforeUpdate": true
                },
                "cpu": {
                    "shares": 1, "quota": 1, "burst": 1, "period": 1, "realtimeRuntime": 1,
                    "realtimePeriod": 1, "cpus": "0", "mems": "0", "idle": 1
                },
                "pids": { "limit": 1 },
                "blockIO": {
                    "weight": 10, "leafWeight": 10,
                    "weightDevice": [{ "major": 8, "minor": 0, "weight": 10, "leafWeight": 10 }],
                    "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                    "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle
                },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }],
                "network": { "classID": 1, "priorities": [{ "name": "lo", "priority": 1 }] },
                "rdma": { "mlx5_1": { "hcaHandles": 1, "hcaObjects": 1 } },
                "unified": { "memory.high": "1" }
            },
            "cgroupsPath": "/group",
            "namespaces": [{ "type": "network", "path": "/proc/self/ns/net" }],
            "devices": [{
                "path": "/dev/x", "type": "c", "major": 1, "minor": 1, "fileMode": 420, "uid": 0,
                "gid": 0
            }],
            "netDevices": { "eth0": { "name": "eth1" } },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1,
                "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{
                    "names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                    "args": [{ "index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ" }]
                }]
            },
            "rootfsPropagation": "private",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "label",
            "intelRdt": { "closID": "c", "l3CacheSchema": "x", "memBwSchema": "x" },
            "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] },
            "personality": { "domain": "LINUX", "flags": [] },
            "timeOffsets": { "boottime": { "secs": 1, "nanosecs": 1 } }
        }
    })
}

/// Every place of a value, as JSON pointers, the deepest last.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, child)| (key.clone(), child)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect()
        }
        _ => Vec::new(),
    };
    for (key, child) in children {
        let key = key.replace('~', "~0").replace('/', "~1");
        let place = format!("{at}/{key}");
        found.push(place.clone());
        places(child, &place, found);
    }
}

/// The specification of `runsc spec` with one field of the full one: what else a file may need
/// stays valid.
fn with_field(place: &str, change: impl FnOnce(&mut Value)) -> Request {
    let top = place.split('/').nth(1).unwrap().to_owned();
    let member = place.split('/').nth(2).map(str::to_owned);
    Request::new(&[], |spec| match (top.as_str(), member) {
        // One member at a time, so that the error is its own.
        ("process" | "linux" | "root", None) => change(&mut spec[&top]),
        ("process" | "linux" | "root", Some(member)) => {
            let mut full = full();
            change(full.pointer_mut(place).unwrap());
            spec[&top][&member] = full[&top][&member].clone();
        }
        _ => {
            let mut full = full();
            change(full.pointer_mut(place).unwrap());
            spec[&top] = full[&top].clone();
        }
    })
}

/// Whether a text names the field at `place` or one that it is a part of.
fn names(text: &str, place: &str) -> bool {
    let mut dotted = String::new();
    place.split('/').skip(1).any(|part| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            dotted += &format!("[{part}]");
        } else if dotted.is_empty() {
            dotted += part;
        } else {
            dotted += &format!(".{part}");
        }
        text.strip_prefix(&dotted).is_some_and(|rest| rest.starts_with([':', ' ']))
    })
}

fn is_ignored(place: &str) -> bool {
    IGNORED.iter().any(|ignored| place == *ignored || place.starts_with(&format!("{ignored}/")))
}

/// What is said about a file: the error, or every warning.
fn said(request: &Request) -> Vec<String> {
    match request.translate() {
        Ok(bundle) => bundle.warnings,
        Err(error) => vec![format!("{error:#}")],
    }
}

#[test]
fn a_wrong_type_is_refused_by_name() {
    let mut found = Vec::new();
    places(&full(), "", &mut found);
    assert!(found.len() > 200);
    let mut silent = Vec::new();
    for place in found.iter().filter(|place| !is_ignored(place)) {
        let request = with_field(place, |value| {
            *value = match value {
                Value::String(_) => 5.into(),
                _ => "x".into(),
            };
        });
        let said = said(&request);
        if !said.iter().any(|line| names(line, place)) {
            silent.push(format!("{place}: {said:?}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn an_unknown_field_is_named() {
    let mut found = Vec::new();
    places(&full(), "", &mut found);
    let objects = found.iter().filter(|place| full().pointer(place).unwrap().is_object());
    let mut silent = Vec::new();
    // Maps with keys of the user's.
    let free = ["/annotations", "/linux/sysctl"];
    for place in objects.filter(|place| !is_ignored(place) && !free.contains(&place.as_str())) {
        let request = with_field(place, |value| value["newField"] = 1.into());
        let said = said(&request);
        let field = format!("{place}/newField");
        if !said.iter().any(|line| names(line, &field)) {
            silent.push(format!("{field}: {said:?}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
