//! The jail of a running sandbox, seen from the host: what gofer and sentry have of it.

#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module as a whole"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A sandbox that sleeps, ended with the value.
struct Sandbox {
    runsc: Child,
    root: PathBuf,
    sentry: i64,
    gofer: i64,
}

impl Sandbox {
    fn start(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("runsc-jail-{name}-{}", std::process::id()));
        let runsc = Command::new(env!("CARGO_BIN_EXE_runsc"))
            .args(["--root".as_ref(), root.as_os_str()])
            .args(["do", "sleep", "60"])
            .env("RUNSC_TEST_SECRET", "x")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let state = root.join(format!("do-{}", runsc.id())).join("state.json");
        let mut sandbox = Self { runsc, root, sentry: 0, gofer: 0 };
        sandbox.wait_until(|sandbox| {
            let Some(state) =
                fs::read(&state).ok().and_then(|text| serde_json::from_slice(&text).ok())
            else {
                return false;
            };
            let state: serde_json::Value = state;
            sandbox.sentry = state["sentry"]["pid"].as_i64().unwrap_or(0);
            sandbox.gofer = state["gofer"]["pid"].as_i64().unwrap_or(0);
            let locked = |pid| sandbox.status(pid, "Seccomp").as_deref() == Some("2");
            sandbox.sentry != 0 && locked(sandbox.sentry) && locked(sandbox.gofer)
        });
        sandbox
    }

    /// Waits for a condition, for so long as the sandbox lives and no longer than a test may take.
    #[track_caller]
    fn wait_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(self) {
            if let Some(status) = self.runsc.try_wait().unwrap() {
                panic!("runsc ended: {status}");
            }
            assert!(Instant::now() < deadline, "the sandbox does not get that far");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn status(&self, pid: i64, field: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find(|line| line.split(':').next() == Some(field))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    }

    fn links(&self, pid: i64, dir: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(format!("/proc/{pid}/{dir}")).unwrap();
        entries
            .filter_map(|entry| {
                Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// The process that tells the sentry what the host counts, once it has locked itself down: the sentry
    /// does not wait for that.
    #[track_caller]
    fn clerk(&mut self) -> i64 {
        let mut clerk = None;
        self.wait_until(|sandbox| {
            let is = |pid: i64, field, value| sandbox.status(pid, field).as_deref() == Some(value);
            let is_clerk = |pid: &i64| is(*pid, "Name", "runsc-clerk") && is(*pid, "Seccomp", "2");
            clerk = sandbox.processes().into_iter().find(is_clerk);
            clerk.is_some()
        });
        clerk.unwrap()
    }

    /// Every process of the sentry's pid namespace, the sentry included.
    fn processes(&self) -> Vec<i64> {
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", self.sentry)).unwrap();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i64| {
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == namespace)
        })
        .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.runsc.kill();
        let _ = self.runsc.wait();
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn sentry_and_stubs_have_no_privileges() {
    let sandbox = Sandbox::start("privileges");
    for pid in sandbox.processes() {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(
                sandbox.status(pid, set).as_deref(),
                Some("0000000000000000"),
                "{set} of {pid}"
            );
        }
        assert_eq!(sandbox.status(pid, "NoNewPrivs").as_deref(), Some("1"));
        assert_eq!(sandbox.status(pid, "Seccomp").as_deref(), Some("2"));
        if is_root() {
            assert_eq!(sandbox.status(pid, "Groups").as_deref(), Some(""));
            let uids = sandbox.status(pid, "Uid").unwrap();
            assert!(
                uids.split_whitespace().all(|uid| uid.parse::<u32>().unwrap() >= 1000),
                "{uids}"
            );
        }
    }
}

#[test]
fn sentry_shares_no_namespace_with_the_host() {
    let sandbox = Sandbox::start("namespaces");
    for pid in sandbox.processes() {
        for kind in ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
        }
    }
    for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(&sandbox.gofer.to_string()), of("self"), "{kind} of the gofer");
    }
}

#[test]
fn both_have_an_empty_readonly_root() {
    let sandbox = Sandbox::start("root");
    for pid in [sandbox.sentry, sandbox.gofer] {
        assert_eq!(fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0);
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), PathBuf::from("/"));
    }
}

#[test]
fn sentry_sees_no_file_nor_environment_of_the_host() {
    let sandbox = Sandbox::start("files");
    for pid in [sandbox.sentry, sandbox.gofer] {
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        // A sealed copy, or the root of a mount that is nowhere.
        let is_hidden = exe == Path::new("/") || exe.to_string_lossy().starts_with("/memfd:");
        assert!(is_hidden, "{exe:?}");
    }
    let known = ["socket:", "anon_inode:", "/memfd:", "pipe:", "/dev/null"];
    for link in sandbox.links(sandbox.sentry, "fd") {
        // Files donated by the gofer are of the root that it was given, and read-only.
        let own_stderr = fs::read_link("/proc/self/fd/2").unwrap();
        let donated = link.starts_with('/');
        assert!(
            known.iter().any(|prefix| link.starts_with(prefix))
                || own_stderr.as_os_str() == &*link
                || donated
        );
    }
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", sandbox.sentry)).unwrap().flatten() {
        let number = entry.file_name();
        let link =
            fs::read_link(format!("/proc/{}/fd/{}", sandbox.sentry, number.to_string_lossy()));
        let (Ok(link), Ok(info)) = (link, fs::read_to_string(entry.path())) else { continue };
        let is_host_file = link.starts_with("/")
            && !link.starts_with("/dev")
            && !link.to_string_lossy().starts_with("/memfd:");
        let is_stdio = number.to_str().is_some_and(|number| matches!(number, "0" | "1" | "2"));
        if is_host_file && !is_stdio {
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .unwrap()
                .trim()
                .to_owned();
            let flags = u32::from_str_radix(&flags, 8).unwrap();
            assert_eq!(flags & 3, 0, "{} is open for writing", link.display());
        }
    }
}

#[test]
fn stubs_have_no_descriptor_of_the_host() {
    let mut sandbox = Sandbox::start("stubs");
    let clerk = sandbox.clerk();
    let stubs = sandbox.processes();
    for pid in stubs.into_iter().filter(|pid| *pid != sandbox.sentry && *pid != clerk) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let link = link.to_string_lossy().into_owned();
            assert!(!link.starts_with("socket:"), "{link}");
            if !link.starts_with('/') || link.starts_with("/memfd:") {
                continue;
            }
            // A file of the container that the program has mapped: donated for reading only.
            let number = entry.file_name().to_string_lossy().into_owned();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let access = u32::from_str_radix(flags.trim(), 8).unwrap() & 3;
            assert_eq!(access, 0, "{link} is open for writing");
        }
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap_or_default(), b"");
    }
}

#[test]
fn clerk_has_its_socket_and_the_processes_of_the_sandbox_only() {
    let mut sandbox = Sandbox::start("clerk");
    let clerk = sandbox.clerk();
    let fds: Vec<_> = fs::read_dir(format!("/proc/{clerk}/fd")).unwrap().flatten().collect();
    assert_eq!(fds.len(), 2, "{fds:?}");
    let socket = fs::read_link(format!("/proc/{clerk}/fd/0")).unwrap();
    assert!(socket.to_string_lossy().starts_with("socket:"), "{socket:?}");
    let names: BTreeSet<String> = fs::read_dir(format!("/proc/{clerk}/fd/1/"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.parse::<u32>().is_err())
        .collect();
    assert_eq!(names, ["self", "thread-self"].map(str::to_owned).into(), "{names:?}");
}

#[test]
fn death_of_any_process_leaves_none_behind() {
    for victim in ["runsc", "sentry"] {
        let mut sandbox = Sandbox::start(victim);
        let all = [sandbox.processes(), vec![sandbox.gofer]].concat();
        let pid = if victim == "runsc" { i64::from(sandbox.runsc.id()) } else { sandbox.sentry };
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
        sandbox.runsc.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_running = |pid: &i64| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
            })
        };
        while all.iter().any(is_running) {
            assert!(
                Instant::now() < deadline,
                "left behind after {victim}: {:?}",
                all.iter().filter(|pid| is_running(pid)).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let id = format!("do-{}", sandbox.runsc.id());
        let deleted = Command::new(env!("CARGO_BIN_EXE_runsc"))
            .args(["--root".as_ref(), sandbox.root.as_os_str()])
            .args(["delete", "--force", &id])
            .status()
            .unwrap();
        assert!(deleted.success());
        assert_eq!(fs::read_dir(&sandbox.root).unwrap().count(), 0);
    }
}
