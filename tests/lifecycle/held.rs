//! Pods without a container that holds them, as CRI-O makes them: it keeps their namespaces, and names a
//! sandbox that no container is.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use test_harness::{Bundle, Platform, Rootfs, TempDir};

use crate::case::{self, Case, Runtime, compare, is_alive};
use crate::pods::set_namespace;

/// A pod of which nothing exists but its namespaces, as CRI-O makes them: each kept by a mount.
struct Pinned {
    case: Case,
    namespaces: TempDir,
}

/// What a runtime has at work for a sandbox, in the order of `state.json`.
const OF_SANDBOX: [&str; 2] = ["monitor", "sentry"];

impl Pinned {
    fn new(runtime: Runtime) -> Pinned {
        let case = Case::new(runtime, &["true"]);
        let namespaces = TempDir::new();
        for name in ["net", "ipc", "uts"] {
            fs::write(namespaces.join(name), "").unwrap();
        }
        let at = |name| format!("--{name}={}", namespaces.join(name).display());
        let pinned = Command::new("unshare")
            .args([at("net"), at("ipc"), at("uts")])
            .args(["sh", "-c", "busybox hostname pinned; busybox ip link set lo up"])
            .status();
        assert!(pinned.unwrap().success());
        Pinned { case, namespaces }
    }

    /// Makes the bundle of a container.
    fn bundle(&self, args: &[&str]) -> (Bundle, Rootfs) {
        let rootfs = case::new_rootfs();
        let mut config = case::config(&rootfs, &self.case.dir, args);
        config["annotations"] = json!({
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.SandboxID": "pod",
        });
        config.as_object_mut().unwrap().remove("hostname");
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            set_namespace(&mut config, kind, self.namespaces.join(name).to_str());
        }
        (Bundle::with_config(&config), rootfs)
    }

    /// Creates and starts a container, and returns what has to stay as long as it is there.
    #[track_caller]
    fn start(&self, id: &str, args: &[&str]) -> (Bundle, Rootfs) {
        let files = self.bundle(args);
        self.case.succeed(&["create", "--bundle", files.0.path().to_str().unwrap(), id]);
        self.case.succeed(&["start", id]);
        files
    }

    #[track_caller]
    fn exec(&self, id: &str, command: &[&str]) -> String {
        self.case.succeed(&[&["exec", id], command].concat()).trim().to_owned()
    }

    fn pid(&self, id: &str) -> String {
        self.case.state(id)["pid"].to_string()
    }

    /// Returns a process of the sandbox, by its name in the state directory.
    fn process(&self, id: &str, name: &str) -> String {
        let text = fs::read(self.case.state.join(id).join("state.json")).unwrap();
        let state: Value = serde_json::from_slice(&text).unwrap();
        state[name]["pid"].to_string()
    }

    /// Asserts that nothing is left of the pod once its containers are deleted.
    #[track_caller]
    fn has_ended(&self, processes: &[String]) {
        for pid in processes {
            self.case.wait_until("the end of the sandbox", || !is_alive(pid));
        }
        assert_eq!(fs::read_dir(self.case.state.path()).unwrap().count(), 0);
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for name in ["net", "ipc", "uts"] {
            let _ = Command::new("umount").arg(self.namespaces.join(name)).status();
        }
    }
}

#[test]
fn a_pod_that_nobody_has_made_is_made_by_its_first_container() {
    compare(|runtime| {
        let pod = Pinned::new(runtime);
        let _a = pod.start("a", &["sleep", "1000"]);
        let _b = pod.start("b", &["sleep", "1000"]);
        let mut seen = ["a", "b"].map(|id| pod.exec(id, &["busybox", "hostname"])).to_vec();
        let call = |id: &str, file: &str, words: &str| {
            let script = format!(
                "{words} >/shared/{file}.new && busybox mv /shared/{file}.new /shared/{file}"
            );
            pod.case.succeed(&["exec", "--detach", id, "sh", "-c", &script]);
        };
        call("a", "tcp", "neighbour call-tcp 4000");
        pod.exec("b", &["neighbour", "serve-tcp", "4000"]);
        seen.push(pod.case.line_of("tcp"));
        pod.exec("a", &["neighbour", "shm-put", "77", "from a"]);
        seen.push(pod.exec("b", &["neighbour", "shm-get", "77"]));
        // Without the first one the others live on, and it can come again.
        pod.case.kill(&pod.pid("a"), "KILL");
        pod.case.wait_for_status("a", "stopped");
        pod.case.succeed(&["delete", "a"]);
        seen.push(pod.case.status("b"));
        let _again = pod.start("a", &["sleep", "1000"]);
        call("b", "again", "neighbour call-tcp 4001");
        pod.exec("a", &["neighbour", "serve-tcp", "4001"]);
        seen.push(pod.case.line_of("again"));
        // With all of them stopped it is still the same pod.
        for id in ["a", "b"] {
            pod.case.succeed(&["kill", id, "KILL"]);
            pod.case.wait_for_status(id, "stopped");
        }
        pod.case.succeed(&["delete", "a"]);
        let _last = pod.start("c", &["sleep", "1000"]);
        seen.push(pod.exec("c", &["neighbour", "shm-get", "77"]));
        for id in ["b", "c"] {
            pod.case.succeed(&["delete", "--force", id]);
        }
        pod.has_ended(&[]);
        seen
    });
}

#[test]
fn a_pod_that_nobody_has_made_survives_any_kill() {
    for platform in [Platform::Systrap, Platform::Ptrace].into_iter().filter(|it| it.is_wanted()) {
        let pod = Pinned::new(Runtime::Runsc(platform));
        for victim in OF_SANDBOX {
            let _files = ["a", "b"].map(|id| pod.start(id, &["sleep", "1000"]));
            let own = ["a", "b"].map(|id| pod.pid(id));
            let of_sandbox = OF_SANDBOX.map(|name| pod.process("pod", name));
            assert_eq!(pod.process("a", "sentry"), pod.process("b", "sentry"));
            // The end of the sandbox is that of its containers.
            pod.case.kill(&pod.process("pod", victim), "KILL");
            for id in ["a", "b"] {
                pod.case.wait_for_status(id, "stopped");
            }
            // The next one makes it anew.
            let _c = pod.start("c", &["sleep", "1000"]);
            assert_ne!(pod.process("pod", "sentry"), of_sandbox[1]);
            let anew = OF_SANDBOX.map(|name| pod.process("pod", name));
            for id in ["a", "b", "c"] {
                pod.case.succeed(&["delete", "--force", id]);
            }
            pod.has_ended(&[&own[..], &of_sandbox, &anew].concat());
        }
        // That of a container is its own alone.
        let _files = ["a", "b"].map(|id| pod.start(id, &["sleep", "1000"]));
        pod.case.kill(&pod.process("a", "gofer"), "KILL");
        pod.case.kill(&pod.pid("a"), "KILL");
        pod.case.wait_for_status("a", "stopped");
        assert_eq!(pod.exec("b", &["echo", "here"]), "here");
        let processes = OF_SANDBOX.map(|name| pod.process("pod", name));
        pod.case.succeed(&["delete", "a"]);
        assert!(processes.iter().all(|pid| is_alive(pid)));
        // One that is never started holds the pod as well.
        let created = pod.bundle(&["sleep", "1000"]);
        pod.case.succeed(&["create", "--bundle", created.0.path().to_str().unwrap(), "created"]);
        pod.case.succeed(&["delete", "--force", "b"]);
        assert!(processes.iter().all(|pid| is_alive(pid)));
        pod.case.succeed(&["delete", "created"]);
        pod.has_ended(&processes);
    }
}

#[test]
fn containers_of_a_pod_that_nobody_has_made_come_and_go_at_once() {
    for platform in [Platform::Systrap, Platform::Ptrace].into_iter().filter(|it| it.is_wanted()) {
        let pod = Pinned::new(Runtime::Runsc(platform));
        let bundles: Vec<_> = (0..4).map(|_| pod.bundle(&["sleep", "1000"])).collect();
        for _ in 0..3 {
            let all = |args: &dyn Fn(usize) -> Vec<String>| {
                std::thread::scope(|scope| {
                    for n in 0..bundles.len() {
                        let (args, case) = (args(n), &pod.case);
                        scope.spawn(move || {
                            case.succeed(&args.iter().map(String::as_str).collect::<Vec<_>>());
                        });
                    }
                });
            };
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            all(&|n| {
                let path = bundles[n].0.path().to_str().unwrap();
                words(&["create", "--bundle", path, &format!("c{n}")])
            });
            all(&|n| words(&["start", &format!("c{n}")]));
            let sentries: BTreeSet<_> =
                (0..bundles.len()).map(|n| pod.process(&format!("c{n}"), "sentry")).collect();
            assert_eq!(sentries.len(), 1);
            all(&|n| words(&["delete", "--force", &format!("c{n}")]));
            pod.has_ended(&sentries.into_iter().collect::<Vec<_>>());
        }
    }
}
