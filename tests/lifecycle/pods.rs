//! Pods: containers that share a sandbox, described as containerd describes them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use test_harness::{Bundle, Platform, Rootfs};

use crate::case::{self, Case, Runtime, compare, is_alive};

/// A pod with its first container, which only sleeps.
struct Pod {
    case: Case,
    /// The first container's process.
    pid: String,
}

/// A container of a pod.
struct Member<'a> {
    pod: &'a Pod,
    id: String,
    bundle: Bundle,
    /// Removed with it.
    _rootfs: Rootfs,
}

/// Returns the annotations of containerd.
fn annotations(kind: &str, sandbox: &str) -> Value {
    json!({
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.sandbox-id": sandbox,
        "io.kubernetes.cri.sandbox-namespace": "default",
    })
}

/// Gives a container a namespace of the first one's, or one of its own.
pub(crate) fn set_namespace(config: &mut Value, kind: &str, path: Option<&str>) {
    let list = config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != kind);
    list.push(path.map_or(json!({"type": kind}), |path| json!({"type": kind, "path": path})));
}

impl Pod {
    fn new(runtime: Runtime) -> Pod {
        let case = Case::with(runtime, &["sleep", "100000"], |config| {
            config["annotations"] = annotations("sandbox", "pod");
            config["hostname"] = "pod".into();
        });
        case.succeed(&["create", "--pid-file", "pid", "pod"]);
        case.succeed(&["start", "pod"]);
        let pid = fs::read_to_string(case.bundle.path().join("pid")).unwrap();
        // What a network plug-in does.
        let up = ["-t", &pid, "-n", "busybox", "ip", "link", "set", "lo", "up"];
        assert!(Command::new("nsenter").args(up).status().unwrap().success());
        Pod { case, pid }
    }

    fn namespace(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.pid)
    }

    /// Makes the bundle of a container that shares what those of Kubernetes share.
    fn member(&self, id: &str, args: &[&str]) -> Member<'_> {
        self.member_with(id, args, |_| ())
    }

    fn member_with(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Member<'_> {
        let rootfs = case::new_rootfs();
        fs::write(rootfs.path().join("etc/name"), format!("{id}\n")).unwrap();
        let mut config = case::config(&rootfs, &self.case.dir, args);
        config["annotations"] = annotations("container", "pod");
        config.as_object_mut().unwrap().remove("hostname");
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            set_namespace(&mut config, kind, Some(&self.namespace(name)));
        }
        change(&mut config);
        Member {
            pod: self,
            id: id.to_owned(),
            bundle: Bundle::with_config(&config),
            _rootfs: rootfs,
        }
    }
}

impl Member<'_> {
    #[track_caller]
    fn create(&self) {
        let path = self.bundle.path().to_str().unwrap();
        let pid_file = format!("{path}/pid");
        self.pod.case.succeed(&["create", "--bundle", path, "--pid-file", &pid_file, &self.id]);
    }

    #[track_caller]
    fn start(&self) {
        self.create();
        self.pod.case.succeed(&["start", &self.id]);
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.bundle.path().join("pid")).unwrap()
    }

    #[track_caller]
    fn exec(&self, command: &[&str]) -> String {
        self.pod.case.succeed(&[&["exec", &self.id], command].concat()).trim().to_owned()
    }

    /// Runs a command in the background whose output goes to a file in `/shared`.
    #[track_caller]
    fn exec_to(&self, file: &str, command: &str) {
        let script =
            format!("{command} >/shared/{file}.new && mv /shared/{file}.new /shared/{file}");
        let script = script.replace(" && mv ", " && busybox mv ");
        self.pod.case.succeed(&["exec", "--detach", &self.id, "sh", "-c", &script]);
    }

    #[track_caller]
    fn wait_until_stopped(&self) {
        self.pod.case.wait_for_status(&self.id, "stopped");
    }

    fn delete(&self) {
        self.pod.case.succeed(&["delete", &self.id]);
    }
}

/// Returns what lies in a container's root.
fn root_files(member: &Member<'_>) -> String {
    member.exec(&["sh", "-c", "cat /etc/name; ls /tmp"]).replace('\n', " ")
}

#[test]
fn members_share_network_ipc_and_names_but_no_files_and_processes() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        let members = ["a", "b", "c"].map(|id| pod.member(id, &["sleep", "1000"]));
        let [a, b, c] = &members;
        members.iter().for_each(Member::start);
        let mut seen = Vec::new();
        for member in &members {
            member.exec(&["touch", &format!("/tmp/of-{}", member.id)]);
            seen.push(root_files(member));
            seen.push(member.exec(&["busybox", "hostname"]));
            // Its own processes only: the first one and this shell's.
            let script = "cat /proc/1/comm; set -- /proc/[0-9]*; echo $#";
            seen.push(member.exec(&["sh", "-c", script]));
        }
        a.exec_to("unix", "neighbour call-unix name");
        b.exec(&["neighbour", "serve-unix", "name"]);
        seen.push(pod.case.line_of("unix"));
        // In a volume, as proxies have it.
        c.exec_to("path", "neighbour call-unix /shared/socket");
        b.exec(&["neighbour", "serve-unix", "/shared/socket"]);
        seen.push(pod.case.line_of("path"));
        c.exec_to("tcp", "neighbour call-tcp 4000");
        a.exec(&["neighbour", "serve-tcp", "4000"]);
        seen.push(pod.case.line_of("tcp"));
        a.exec(&["neighbour", "shm-put", "77", "from a"]);
        seen.push(b.exec(&["neighbour", "shm-get", "77"]));
        // Files of the host's memory, as the pod's /dev/shm is.
        b.exec_to("futex", "neighbour futex-wait /shared/word");
        c.exec(&["neighbour", "futex-wake", "/shared/word"]);
        seen.push(pod.case.line_of("futex"));
        seen
    });
}

#[test]
fn a_member_may_have_names_and_ipc_of_its_own() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        let shared = pod.member("shared", &["sleep", "1000"]);
        let own = pod.member_with("own", &["sleep", "1000"], |config| {
            config["hostname"] = "mine".into();
            set_namespace(config, "ipc", None);
            set_namespace(config, "uts", None);
        });
        shared.start();
        own.start();
        shared.exec(&["neighbour", "shm-put", "7", "of the pod"]);
        let mut seen = vec![own.exec(&["neighbour", "shm-get", "7"])];
        own.exec(&["neighbour", "shm-put", "7", "mine"]);
        let inode = |member: &Member<'_>, kind: &str| {
            member.exec(&["busybox", "readlink", &format!("/proc/self/ns/{kind}")])
        };
        for kind in ["ipc", "uts", "pid", "net"] {
            seen.push(format!("{kind} {}", inode(&shared, kind) == inode(&own, kind)));
        }
        for member in [&shared, &own] {
            seen.push(member.exec(&["neighbour", "shm-get", "7"]));
            seen.push(member.exec(&["busybox", "hostname"]));
        }
        seen
    });
}

#[test]
fn members_may_share_their_processes() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        let share = |config: &mut Value| {
            set_namespace(config, "pid", Some(&pod.namespace("pid")));
        };
        let script = "sleep 1001 & sleep 1002 & wait";
        let a = pod.member_with("a", &["sh", "-c", script], share);
        let b = pod.member_with("b", &["sleep", "1003"], share);
        a.start();
        b.start();
        let case = &pod.case;
        // As an argument of its own: in a path it may be anybody's process.
        let sleepers = || {
            let script = r"cat /proc/[0-9]*/cmdline 2>/dev/null | busybox tr '\0' '\n' |
                 grep -c '^100[0-9]*$'; true";
            b.exec(&["sh", "-c", script])
        };
        // What the shell has started, the first container's and its own.
        case.wait_until("four", || sleepers() == "4");
        let mut seen = vec![b.exec(&["cat", "/proc/1/comm"])];
        // A member's root is its own nevertheless.
        seen.push(b.exec(&[
            "sh",
            "-c",
            "for i in /proc/[0-9]*/root/etc/name; do cat $i; done | busybox sort -u",
        ]));
        // Signals for all of a container's are for no other one's.
        case.succeed(&["kill", "--all", "a", "KILL"]);
        a.wait_until_stopped();
        case.wait_until("two", || sleepers() == "2");
        seen.push(case.status("b"));
        a.delete();
        // Nobody of a is left on the host either, and it can come again.
        let again = pod.member_with("a", &["sh", "-c", script], share);
        again.start();
        case.wait_until("four again", || sleepers() == "4");
        case.succeed(&["kill", "pod", "KILL"]);
        // The end of the first process of a namespace is that of all in it.
        for id in ["pod", "a", "b"] {
            case.wait_for_status(id, "stopped");
            case.succeed(&["delete", id]);
        }
        seen
    });
}

#[test]
fn a_member_may_share_the_processes_of_another() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        let a = pod.member("a", &["sleep", "1001"]);
        a.start();
        let pids = format!("/proc/{}/ns/pid", a.pid());
        let b = pod.member_with("b", &["sleep", "1002"], |config| {
            set_namespace(config, "pid", Some(&pids));
        });
        b.start();
        // Both programs; not that of the first container.
        let script = "grep -l ^sleep$ /proc/[0-9]*/comm 2>/dev/null; true";
        let seen_by = |member: &Member<'_>| member.exec(&["sh", "-c", script]).lines().count();
        pod.case.wait_until("both", || seen_by(&b) == 2 && seen_by(&a) == 2);
        let mut seen = vec![b.exec(&["cat", "/proc/1/cmdline"]), b.exec(&["cat", "/etc/name"])];
        let inode = |member: &Member<'_>| member.exec(&["busybox", "readlink", "/proc/1/ns/pid"]);
        seen.push((inode(&a) == inode(&b)).to_string());
        // A namespace ends with its first process.
        pod.case.succeed(&["kill", "a", "KILL"]);
        b.wait_until_stopped();
        a.wait_until_stopped();
        seen.push(pod.case.status("pod"));
        seen
    });
}

#[test]
fn processes_of_nobody_in_the_sandbox_cannot_be_shared() {
    let mut other = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "sleep", "1000"])
        .spawn()
        .unwrap();
    for platform in [Platform::Systrap, Platform::Ptrace].into_iter().filter(|it| it.is_wanted()) {
        let pod = Pod::new(Runtime::Runsc(platform));
        let path = format!("/proc/{}/ns/pid_for_children", other.id());
        pod.case.wait_until("the namespace", || fs::metadata(&path).is_ok());
        let member = pod.member_with("a", &["true"], |config| {
            set_namespace(config, "pid", Some(&path));
        });
        let bundle = member.bundle.path().to_str().unwrap();
        let words = "is of no container of sandbox pod";
        let said = pod.case.fail(&["create", "--bundle", bundle, "a"], words);
        assert_eq!(said, format!("create 1: {words}"));
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_member_with_another_network_has_it() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        let shared = pod.member("shared", &["busybox", "nc", "-l", "-p", "4000"]);
        let own = pod.member_with("own", &["sleep", "1000"], |config| {
            set_namespace(config, "network", None);
        });
        shared.start();
        own.start();
        // 4000 in the notation of the table.
        let listens = |member: &Member<'_>| {
            let script = "cat /proc/net/tcp /proc/net/tcp6 | grep -c :0FA0; true";
            member.exec(&["sh", "-c", script])
        };
        pod.case.wait_until("a listener", || listens(&shared) == "1");
        let seen = vec![listens(&own), own.exec(&["cat", "/etc/name"])];
        own.pod.case.succeed(&["delete", "--force", "own"]);
        seen
    });
}

#[test]
fn members_end_and_come_again_without_the_others() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        let script = "i=0; while :; do i=$((i+1)); echo $i >/shared/beat; sleep 0.02; done";
        let other = pod.member("other", &["sh", "-c", script]);
        other.start();
        let mut seen = Vec::new();
        for (round, script) in ["exit 0", "exit 7", "kill -9 $$", "sleep 1000", "sleep 1000 & wait"]
            .into_iter()
            .enumerate()
        {
            let member = pod.member("again", &["sh", "-c", script]);
            member.create();
            seen.push(pod.case.status("again"));
            pod.case.succeed(&["start", "again"]);
            match round {
                3 => drop(pod.case.succeed(&["kill", "again", "KILL"])),
                4 => pod.case.kill(&member.pid(), "KILL"),
                _ => {}
            }
            member.wait_until_stopped();
            seen.push(pod.case.fail(&["exec", "again", "true"], "stopped container"));
            member.delete();
            seen.push(pod.case.fail(&["state", "again"], "does not exist"));
        }
        // Never started.
        let member = pod.member("again", &["sleep", "1000"]);
        member.create();
        member.delete();
        // Cannot be started.
        let member = pod.member("again", &["/bin/none"]);
        let path = member.bundle.path().to_str().unwrap();
        seen.push(pod.case.fail(&["create", "--bundle", path, "again"], "no such file"));
        seen.push(pod.case.status("other"));
        seen.push(pod.case.status("pod"));
        let beat = || pod.case.line_of("beat");
        let before = beat();
        pod.case.wait_until("beats", || beat() != before);
        seen
    });
}

#[test]
fn commands_are_for_the_member_that_they_name() {
    compare(|runtime| {
        let pod = Pod::new(runtime);
        // Appends, so that a pause finds no file that has just been emptied.
        let script = |file: &str| {
            format!(
                "trap 'echo term >/shared/{file}.term' TERM; \
                 while :; do echo beat >>/shared/{file}; sleep 0.02; done"
            )
        };
        let a = pod.member("a", &["sh", "-c", &script("a")]);
        let b = pod.member("b", &["sh", "-c", &script("b")]);
        a.start();
        b.start();
        let beat = |name: &str| pod.case.line_of(name);
        beat("a");
        beat("b");
        let mut seen = Vec::new();
        // Pids of the host: of each container its own.
        let pids = |id: &str| -> BTreeSet<i64> {
            serde_json::from_str(&pod.case.succeed(&["ps", "--format", "json", id])).unwrap()
        };
        let (of_a, of_b) = (pids("a"), pids("b"));
        assert!(of_a.is_disjoint(&of_b) && !of_a.is_empty() && !of_b.is_empty());
        assert!(of_a.contains(&a.pid().parse().unwrap()));
        pod.case.succeed(&["kill", "a", "TERM"]);
        seen.push(beat("a.term"));
        seen.push(pod.case.shared("b.term").exists().to_string());
        pod.case.succeed(&["pause", "a"]);
        seen.extend(["a", "b", "pod"].map(|id| pod.case.status(id)));
        let (of_a, of_b) = (beat("a"), beat("b"));
        pod.case.wait_until("beats of b", || beat("b") != of_b);
        seen.push((beat("a") == of_a).to_string());
        pod.case.succeed(&["resume", "a"]);
        pod.case.wait_until("beats of a", || beat("a") != of_a);
        // An exec'd process ends with its own container only.
        for member in [&a, &b] {
            let path = format!("{}/exec", member.bundle.path().display());
            let args = ["exec", "--detach", "--pid-file", &path, &member.id, "sleep", "1000"];
            pod.case.succeed(&args);
        }
        let execed =
            |member: &Member<'_>| fs::read_to_string(member.bundle.path().join("exec")).unwrap();
        pod.case.succeed(&["kill", "a", "KILL"]);
        a.wait_until_stopped();
        pod.case.wait_until("the end of exec", || !is_alive(&execed(&a)));
        assert!(is_alive(&execed(&b)));
        pod.case.kill(&execed(&b), "KILL");
        pod.case.wait_until("the other end of exec", || !is_alive(&execed(&b)));
        seen.push(pod.case.status("b"));
        seen
    });
}

#[test]
fn the_end_of_the_first_container_is_that_of_the_sandbox() {
    for platform in [Platform::Systrap, Platform::Ptrace].into_iter().filter(|it| it.is_wanted()) {
        let pod = Pod::new(Runtime::Runsc(platform));
        let case = &pod.case;
        let members = ["a", "b"].map(|id| pod.member(id, &["sleep", "1000"]));
        members.iter().for_each(Member::start);
        case.succeed(&["delete", "--force", "pod"]);
        for member in &members {
            case.wait_until("the end of a member", || !is_alive(&member.pid()));
            member.wait_until_stopped();
        }
        // A name that nobody has is not one of a sandbox, so this container gets its own.
        let late = pod.member_with("late", &["true"], |config| {
            for kind in ["network", "ipc", "uts"] {
                set_namespace(config, kind, None);
            }
        });
        case.succeed(&["run", "--bundle", late.bundle.path().to_str().unwrap(), "late"]);
        // One whose sandbox has ended cannot run.
        case.succeed(&["create", "pod"]);
        case.kill(&case.state("pod")["pid"].to_string(), "KILL");
        case.wait_for_status("pod", "stopped");
        let late = pod.member("late", &["true"]);
        let path = late.bundle.path().to_str().unwrap();
        assert!(
            case.fail(&["create", "--bundle", path, "late"], "sandbox pod is not running")
                .ends_with("sandbox pod is not running")
        );
        for id in ["a", "b", "pod"] {
            case.succeed(&["delete", id]);
        }
        assert_eq!(fs::read_dir(case.state.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_pod_may_have_many_members() {
    for platform in [Platform::Systrap, Platform::Ptrace].into_iter().filter(|it| it.is_wanted()) {
        let pod = Pod::new(Runtime::Runsc(platform));
        let members: Vec<_> = (0..20)
            .map(|n| {
                let script = format!("while ! [ -e /shared/go ]; do sleep 0.05; done; exit {n}");
                let member = pod.member(&format!("m{n}"), &["sh", "-c", &script]);
                member.start();
                member
            })
            .collect();
        for (n, member) in members.iter().enumerate() {
            assert_eq!(member.exec(&["cat", "/etc/name"]), format!("m{n}"));
        }
        fs::write(pod.case.shared("go"), "").unwrap();
        for (n, member) in members.iter().enumerate() {
            let answer: Value =
                serde_json::from_str(&pod.case.succeed(&["wait", &member.id])).unwrap();
            assert_eq!(answer["exitStatus"], n, "{answer}");
            member.delete();
        }
        assert_eq!(pod.case.status("pod"), "running");
        // No host process is left of them but those of the first container.
        let children = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
        };
        let of_monitor = children(&pod.pid);
        let n_stubs = || {
            of_monitor
                .split_whitespace()
                .map(|pid| children(pid).split_whitespace().count())
                .sum::<usize>()
        };
        // Those are: the one of which the others are made, the sleeper's, and the one that counts.
        pod.case.wait_until("three processes", || n_stubs() <= 3);
    }
}
