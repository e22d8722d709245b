//! Control groups, and what many containers leave.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use test_harness::Platform;

use crate::case::{Case, Runtime, compare};

/// Returns what the files of a name say in a container's groups, of every hierarchy.
fn control_files(group: &str, name: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let mut mounts: Vec<PathBuf> = vec![root.into()];
    mounts.extend(fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()));
    let read = |mount: &PathBuf| fs::read_to_string(mount.join(group).join(name)).ok();
    mounts.iter().filter_map(read).collect()
}

/// Removes an empty group of every hierarchy.
fn remove_groups(name: &str) {
    for mount in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(mount.path().join(name));
    }
    let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(name));
}

#[test]
fn control_groups_hold_every_process_and_go_with_the_container() {
    compare(|runtime| {
        let parent = test_harness::temp_dir::unique("lifecycle");
        let group = format!("{parent}/c");
        let mut case = Case::with(runtime, &["sleep", "1000"], |config| {
            config["linux"]["cgroupsPath"] = format!("/{group}").into();
            config["linux"]["resources"] = json!({
                "memory": {"limit": 134_217_728},
                "cpu": {"shares": 512, "period": 100_000, "quota": 50_000},
            });
        });
        case.has_cgroups = true;
        case.succeed(&["create", "--pid-file", "pid", "c"]);
        case.succeed(&["start", "c"]);
        let pid = fs::read_to_string(case.bundle.path().join("pid")).unwrap();
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let mut seen = vec![own.lines().all(|line| line.ends_with(&group)).to_string()];
        let limits = [
            "memory.limit_in_bytes",
            "memory.max",
            "cpu.shares",
            "cpu.weight",
            "cpu.cfs_quota_us",
            "cpu.max",
        ];
        let values = || limits.map(|name| control_files(&group, name).concat()).to_vec();
        seen.extend(values());
        // Nobody of the container's is anywhere else.
        let members: Vec<Vec<String>> = control_files(&group, "cgroup.procs")
            .iter()
            .map(|text| text.lines().map(str::to_owned).collect())
            .collect();
        let children = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
        };
        for member in members.first().unwrap() {
            for child in children(member).split_whitespace() {
                assert!(members.iter().all(|list| list.iter().any(|it| it == child)), "{child}");
            }
        }
        case.succeed(&["update", "--memory", "268435456", "--cpu-share", "256", "c"]);
        seen.extend(values());
        let stats: Value =
            serde_json::from_str(&case.succeed(&["events", "--stats", "c"])).unwrap();
        seen.push(format!(
            "{} {} {}",
            stats["type"], stats["id"], stats["data"]["memory"]["usage"]["limit"]
        ));
        assert!(stats["data"]["cpu"]["usage"]["total"].as_u64() > Some(0), "{stats}");
        case.succeed(&["delete", "--force", "c"]);
        seen.push(control_files(&group, "cgroup.procs").len().to_string());
        remove_groups(&parent);
        seen
    });
}

#[test]
fn a_container_sees_its_own_groups() {
    compare(|runtime| {
        let script = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes cpu.max \
             cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids.max pids/pids.max 2>/dev/null; \
             cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo | cut -d' ' -f4,5; \
             grep -c -e ' - cgroup cgroup rw,memory' -e ' - cgroup2 ' /proc/self/mountinfo";
        let parent = test_harness::temp_dir::unique("lifecycle");
        let mut case = Case::with(runtime, &["sh", "-c", script], |config| {
            config["linux"]["cgroupsPath"] = format!("/{parent}/c").into();
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            config["linux"]["resources"] = json!({
                "memory": {"limit": 134_217_728},
                "cpu": {"period": 100_000, "quota": 50_000},
                "pids": {"limit": 500},
            });
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            }));
        });
        case.has_cgroups = true;
        let done = case.call(&["run", "c"]);
        remove_groups(&parent);
        let mut seen: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
        seen.retain(|line| !line.contains("name="));
        seen
    });
}

/// Managers let the first container of a pod have next to no processor time: the sentry, which works for all, is not
/// in its groups.
#[test]
fn the_sentry_of_a_pod_has_groups_beside_those_of_the_first_container() {
    for platform in [Platform::Systrap, Platform::Ptrace] {
        let parent = test_harness::temp_dir::unique("lifecycle");
        let mut case = Case::with(Runtime::Runsc(platform), &["sleep", "1000"], |config| {
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-id": "pod",
            });
            config["linux"]["cgroupsPath"] = format!("/{parent}/pod").into();
            config["linux"]["resources"] = json!({"cpu": {"shares": 2}});
        });
        case.has_cgroups = true;
        case.succeed(&["create", "pod"]);
        let names = |group: &str| {
            let mut names = std::collections::BTreeSet::new();
            for pid in control_files(&format!("{parent}/{group}"), "cgroup.procs").concat().lines()
            {
                names.insert(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
            }
            names.into_iter().map(|name| name.trim().to_owned()).collect::<Vec<_>>()
        };
        // It takes its name when `create` has ended.
        case.wait_until("the monitor alone", || names("pod") == ["runsc-monitor"]);
        assert!(names("pod.sentry").contains(&"runsc-sandbox".to_owned()));
        let shares =
            |group: &str| control_files(&format!("{parent}/{group}"), "cpu.shares").concat();
        let weights =
            |group: &str| control_files(&format!("{parent}/{group}"), "cpu.weight").concat();
        assert!(shares("pod") == "2\n" || weights("pod") == "1\n");
        assert!(shares("pod.sentry") == "262144\n" || weights("pod.sentry") == "10000\n");
        case.succeed(&["delete", "--force", "pod"]);
        assert!(control_files(&format!("{parent}/pod"), "cgroup.procs").is_empty());
        assert!(control_files(&format!("{parent}/pod.sentry"), "cgroup.procs").is_empty());
        remove_groups(&parent);
    }
}

/// Without runc, which knows the fields only since 1.2.
#[test]
fn processes_have_the_priorities_of_the_file() {
    for platform in [Platform::Systrap, Platform::Ptrace] {
        let script = "cut -d' ' -f18,19,41 </proc/self/stat >/shared/seen; busybox ionice -p $$ >>/shared/seen";
        let case = Case::with(Runtime::Runsc(platform), &["sh", "-c", script], |config| {
            config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
            config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        });
        case.succeed(&["run", "c"]);
        let seen = fs::read_to_string(case.shared("seen")).unwrap();
        assert_eq!(seen, "25 5 3\nbest-effort: prio 6\n");
    }
}

#[test]
fn events_tell_of_processes_killed_for_memory() {
    compare(|runtime| {
        let parent = test_harness::temp_dir::unique("lifecycle");
        let script = "while ! [ -e /shared/go ]; do sleep 0.05; done; \
             busybox awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }' 2>/dev/null; \
             echo $? >/shared/status; sleep 1000";
        let mut case = Case::with(runtime, &["sh", "-c", script], |config| {
            config["linux"]["cgroupsPath"] = format!("/{parent}/c").into();
            config["linux"]["resources"] = json!({"memory": {"limit": 134_217_728}});
        });
        case.has_cgroups = true;
        case.succeed(&["run", "--detach", "c"]);
        let events = case.shared("events");
        let mut listener = case
            .command(&["events", "--interval", "200ms", "c"])
            .stdout(fs::File::create(&events).unwrap())
            .spawn()
            .unwrap();
        let has = |kind: &str| fs::read_to_string(&events).unwrap().contains(kind);
        case.wait_until("statistics", || has(r#""type":"stats""#));
        fs::write(case.shared("go"), "").unwrap();
        let seen = vec![case.line_of("status")];
        case.wait_until("the event", || has(r#""type":"oom""#));
        case.succeed(&["delete", "--force", "c"]);
        listener.wait().unwrap();
        remove_groups(&parent);
        seen
    });
}

/// Returns the processes whose command line has a word in it.
fn processes_of(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(word)).collect()
}

#[test]
fn many_containers_live_at_once_and_leave_nothing() {
    let number: usize =
        std::env::var("LIFECYCLE_CONTAINERS").map_or(48, |text| text.parse().unwrap());
    for platform in [Platform::Systrap, Platform::Ptrace] {
        if !platform.is_wanted() {
            continue;
        }
        let mut case = Case::with(Runtime::Runsc(platform), &["sleep", "1000"], |config| {
            // Each has a group of its own name.
            config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        });
        case.has_cgroups = true;
        let case = &case;
        let prefix = test_harness::temp_dir::unique("many");
        let ids: Vec<String> = (0..number).map(|index| format!("{prefix}-{index}")).collect();
        let for_each = |step: &(dyn Fn(&String) + Sync)| {
            std::thread::scope(|scope| {
                for part in ids.chunks(number.div_ceil(8)) {
                    scope.spawn(move || part.iter().for_each(step));
                }
            });
        };
        for_each(&|id| {
            case.succeed(&["create", id]);
            case.succeed(&["start", id]);
        });
        assert_eq!(case.succeed(&["list", "-q"]).lines().count(), number);
        for_each(&|id| {
            let done = case.call(&["exec", id, "sh", "-c", "exit 4"]);
            assert_eq!(done.code, 4, "{}", done.stderr);
        });
        for_each(&|id| {
            case.succeed(&["kill", id, "KILL"]);
            case.succeed(&["delete", "--force", id]);
        });
        assert_eq!(fs::read_dir(case.state.path()).unwrap().count(), 0);
        let state = case.state.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&state));
        // Those that a manager has not waited for yet have no command line.
        assert_eq!(processes_of(&prefix), [""; 0]);
        for id in &ids {
            assert_eq!(control_files(id, "cgroup.procs"), [""; 0], "{id}");
        }
    }
}

#[test]
fn a_profile_filters_the_calls_of_every_process() {
    compare(|runtime| {
        let case = Case::with(runtime, &["sleep", "1000"], |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
                "syscalls": [
                    { "names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO",
                      "errnoRet": 28 },
                    { "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
                        { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
                        { "index": 1, "value": 10, "valueTwo": 0, "op": "SCMP_CMP_GE" },
                    ] },
                    { "names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS" },
                ],
            });
        });
        case.succeed(&["run", "--detach", "c"]);
        let mut seen = vec![case.succeed(&["exec", "c", "grep", "Seccomp", "/proc/1/status"])];
        for script in [
            "grep Seccomp /proc/self/status",
            "busybox mkdir /tmp/made 2>&1",
            "kill -12 1 2>&1",
            "kill -1 1 2>&1",
            "kill -12 $$ 2>&1",
            "busybox hostname name",
        ] {
            let done = case.call(&["exec", "c", "sh", "-c", script]);
            seen.push(format!("{script}: {} {}", done.code, done.stdout));
        }
        seen
    });
}
