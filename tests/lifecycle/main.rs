//! The life of containers as managers drive it: every case gives the same under runc and on each platform.
//!
//! A case returns what can be seen, as lines; runc's are what is expected.

#[cfg(test)]
mod lifecycle {
    use std::fmt::Write as _;
    use std::fs::{self, File};
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};
    use test_harness::{Bundle, Cmd, Platform, Rootfs, TempDir, mode};

    /// How long whatever happens by itself may take, on a loaded machine.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A root file system with busybox, which containers share.
    static ROOTFS: OnceLock<Rootfs> = OnceLock::new();

    /// What is tested, or shows how it has to be.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Runtime {
        Runc,
        Runsc(Platform),
    }

    /// A bundle, a state directory and a directory for files, of one case under one runtime.
    struct Case {
        runtime: Runtime,
        state: TempDir,
        dir: TempDir,
        bundle: Bundle,
        has_cgroups: bool,
    }

    /// What a command left.
    struct Done {
        code: i32,
        stdout: String,
        stderr: String,
    }

    fn rootfs() -> &'static Rootfs {
        ROOTFS.get_or_init(|| {
            let rootfs = Rootfs::with_programs(&[]);
            let bin = rootfs.path().join("bin");
            fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
            for name in [
                "cat", "echo", "env", "false", "id", "kill", "ls", "pwd", "sh", "sleep", "true",
                "touch",
            ] {
                std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
            }
            fs::write(bin.join("text"), "no program\n").unwrap();
            rootfs
        })
    }

    impl Case {
        fn new(runtime: Runtime, args: &[&str]) -> Case {
            Case::with(runtime, args, |_| ())
        }

        fn with(runtime: Runtime, args: &[&str], change: impl FnOnce(&mut Value)) -> Case {
            let dir = TempDir::new();
            let mut config = test_harness::bundle::config(rootfs(), &Cmd::new(args));
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/shared", "type": "bind", "source": dir.path(), "options": ["bind"]
            }));
            // Without one, containers of the same name share a group, and its freezer.
            config["linux"]["cgroupsPath"] =
                format!("/{}", test_harness::temp_dir::unique("lifecycle")).into();
            change(&mut config);
            Case {
                runtime,
                state: TempDir::new(),
                dir,
                bundle: Bundle::with_config(&config),
                has_cgroups: false,
            }
        }

        fn command(&self, args: &[&str]) -> Command {
            let argv = match self.runtime {
                Runtime::Runc => vec!["runc".into(), "--root".into(), self.state.path().into()],
                Runtime::Runsc(platform) => mode::runsc_argv(platform, &self.state),
            };
            let argv: Vec<_> = argv
                .into_iter()
                .filter(|word| !self.has_cgroups || word != "--ignore-cgroups")
                .collect();
            // No command of a manager waits for ever.
            let mut command = Command::new("timeout");
            command.args(["-k", "5", "60"]).args(argv).args(args);
            command.current_dir(self.bundle.path()).stdin(Stdio::null());
            command.env_clear().env("PATH", test_harness::cmd::PATH);
            command
        }

        /// Runs a command. Its output goes to files, since containers inherit it.
        #[track_caller]
        fn call(&self, args: &[&str]) -> Done {
            static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = |name: &str| self.dir.join(&format!("{name}.{serial}"));
            let mut command = self.command(args);
            command.stdout(File::create(path("stdout")).unwrap());
            command.stderr(File::create(path("stderr")).unwrap());
            let status = command.status().unwrap();
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            assert_ne!(code, 124, "{:?}: {args:?} hangs", self.runtime);
            let read = |name| fs::read_to_string(path(name)).unwrap_or_default();
            let done = Done { code, stdout: read("stdout"), stderr: read("stderr") };
            for name in ["stdout", "stderr"] {
                fs::remove_file(path(name)).unwrap();
            }
            done
        }

        #[track_caller]
        fn succeed(&self, args: &[&str]) -> String {
            let done = self.call(args);
            assert_eq!(done.code, 0, "{:?}: {args:?}: {}", self.runtime, done.stderr);
            done.stdout
        }

        /// Returns the exit code of a command and which of the words its message holds.
        #[track_caller]
        fn fail(&self, args: &[&str], words: &str) -> String {
            let done = self.call(args);
            let says = if done.stderr.contains(words) { words } else { &done.stderr };
            format!("{} {}: {says}", args[0], done.code)
        }

        #[track_caller]
        fn state(&self, id: &str) -> Value {
            serde_json::from_str(&self.succeed(&["state", id])).unwrap()
        }

        #[track_caller]
        fn status(&self, id: &str) -> String {
            self.state(id)["status"].as_str().unwrap().to_owned()
        }

        #[track_caller]
        fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
            let started = Instant::now();
            while !condition() {
                assert!(started.elapsed() < DEADLINE, "{:?}: never: {what}", self.runtime);
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        #[track_caller]
        fn wait_for_status(&self, id: &str, status: &str) {
            self.wait_until(status, || self.status(id) == status);
        }

        /// Returns a path in the directory that the container sees as `/shared`.
        fn shared(&self, name: &str) -> PathBuf {
            self.dir.join(name)
        }

        /// Returns a file's text, once it is there with a line's end.
        #[track_caller]
        fn line_of(&self, name: &str) -> String {
            let read = || fs::read_to_string(self.shared(name)).unwrap_or_default();
            self.wait_until(name, || read().ends_with('\n'));
            read().trim().to_owned()
        }

        fn kill(&self, pid: &str, signal: &str) {
            let killed = Command::new("kill").args([&format!("-{signal}"), pid]).status().unwrap();
            assert!(killed.success());
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            for entry in fs::read_dir(self.state.path()).into_iter().flatten().flatten() {
                let _ = self
                    .command(&["delete", "--force", &entry.file_name().to_string_lossy()])
                    .status();
            }
        }
    }

    /// Runs a case under every runtime and compares.
    #[track_caller]
    fn compare(case: impl Fn(Runtime) -> Vec<String>) {
        let expected = case(Runtime::Runc);
        for platform in [Platform::Systrap, Platform::Ptrace] {
            if platform.is_wanted() {
                assert_eq!(case(Runtime::Runsc(platform)), expected, "{platform:?}");
            }
        }
    }

    fn is_alive(pid: &str) -> bool {
        fs::read_to_string(Path::new("/proc").join(pid).join("stat")).is_ok_and(|stat| {
            !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        })
    }

    #[test]
    fn commands_have_the_states_and_failures_of_runc() {
        compare(|runtime| {
            let case = Case::new(runtime, &["sleep", "1000"]);
            let mut seen = Vec::new();
            seen.push(case.fail(&["state", "c"], "container does not exist"));
            case.succeed(&["create", "--pid-file", "pid", "c"]);
            let state = case.state("c");
            seen.push(format!("{} {} {}", state["id"], state["status"], state["rootfs"]));
            assert_eq!(
                state["bundle"].as_str(),
                case.bundle.path().canonicalize().unwrap().to_str()
            );
            let pid = fs::read_to_string(case.bundle.path().join("pid")).unwrap();
            assert!(state["pid"].as_u64() == pid.trim().parse().ok() && is_alive(&pid));
            seen.push(case.fail(&["create", "c"], "container with given ID already exists"));
            seen.push(case.fail(&["resume", "c"], "container not paused"));
            case.succeed(&["start", "c"]);
            seen.push(case.status("c"));
            seen.push(case.fail(&["start", "c"], "cannot start an already running container"));
            seen.push(
                case.fail(
                    &["delete", "c"],
                    "cannot delete container c that is not stopped: running",
                ),
            );
            case.succeed(&["pause", "c"]);
            seen.push(case.status("c"));
            let refusal = "cannot exec in a paused container (use --ignore-paused to override)";
            seen.push(case.fail(&["exec", "c", "true"], refusal));
            case.succeed(&["resume", "c"]);
            seen.push(case.status("c"));
            case.succeed(&["exec", "c", "true"]);
            seen.push(case.succeed(&["list", "-q"]));
            case.succeed(&["kill", "c", "KILL"]);
            case.wait_for_status("c", "stopped");
            seen.push(case.state("c")["pid"].to_string());
            seen.push(case.fail(&["kill", "c", "9"], "not running"));
            seen.push(case.fail(&["pause", "c"], "container not running"));
            seen.push(case.fail(&["start", "c"], "cannot start a container that has stopped"));
            seen.push(case.fail(&["exec", "c", "true"], "cannot exec in a stopped container"));
            case.succeed(&["delete", "c"]);
            seen.push(case.fail(&["delete", "c"], "container does not exist"));
            case.succeed(&["delete", "--force", "c"]);
            assert!(!is_alive(&pid));
            seen
        });
    }

    #[test]
    fn exit_status_is_that_of_the_program() {
        compare(|runtime| {
            let mut seen = Vec::new();
            for script in ["exit 0", "exit 7", "exec kill -9 $$", "sh -c 'kill -TERM $$'"] {
                let case = Case::new(runtime, &["sh", "-c", script]);
                seen.push(format!("{script}: {}", case.call(&["run", "c"]).code));
                assert_eq!(case.succeed(&["list", "-q"]), "");
            }
            seen
        });
    }

    #[test]
    fn programs_that_cannot_run_are_reported_at_create_and_exec() {
        compare(|runtime| {
            let case = Case::new(runtime, &["sleep", "1000"]);
            case.succeed(&["run", "--detach", "c"]);
            let mut seen = Vec::new();
            for (program, words) in [
                ("nothing", r#"exec: \"nothing\": executable file not found in $PATH"#),
                (
                    "/bin/nothing",
                    r#"exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory"#,
                ),
                ("/bin/text", r#"exec: \"/bin/text\": permission denied"#),
                ("/bin", r#"exec: \"/bin\": "#),
            ] {
                let bad = Case::new(runtime, &[program]);
                for command in ["create", "run"] {
                    seen.push(bad.fail(&[command, "c"], words));
                    assert_eq!(bad.succeed(&["list", "-q"]), "");
                }
                seen.push(case.fail(&["exec", "c", program], words));
            }
            seen
        });
    }

    #[test]
    fn exec_takes_its_process_from_flags_or_a_file() {
        compare(|runtime| {
            let case = Case::new(runtime, &["sleep", "1000"]);
            case.succeed(&["run", "--detach", "c"]);
            let mut seen = Vec::new();
            let script =
                "echo $A; pwd; id -u; id -g; cat /proc/self/status | grep -e CapEff -e NoNewPrivs";
            seen.push(case.succeed(&[
                "exec",
                "--env",
                "A=b c",
                "--cwd",
                "/tmp",
                "--user",
                "5:6",
                "--cap",
                "CAP_SYS_TIME",
                "--no-new-privs",
                "c",
                "sh",
                "-c",
                script,
            ]));
            for script in ["exit 5", "kill -9 $$", "kill -HUP $$"] {
                seen.push(format!(
                    "{script}: {}",
                    case.call(&["exec", "c", "sh", "-c", script]).code
                ));
            }
            let process = json!({
                "args": ["sh", "-c", "echo $X; id -G; umask; exit 3"],
                "env": ["PATH=/bin", "X=1"],
                "cwd": "/",
                "user": {"uid": 1, "gid": 2, "additionalGids": [3, 4]},
            });
            fs::write(case.bundle.path().join("process.json"), process.to_string()).unwrap();
            let done = case.call(&["exec", "--process", "process.json", "c"]);
            seen.push(format!("{} {}", done.code, done.stdout));
            seen.push(case.fail(&["exec", "--cwd", "/nothing", "c", "true"], "chdir to cwd (\\\"/nothing\\\") set in config.json failed: no such file or directory"));
            seen.push(case.fail(&["exec", "none", "true"], "container does not exist"));
            seen
        });
    }

    #[test]
    fn every_process_has_a_pid_that_stands_for_it() {
        compare(|runtime| {
            let script = "trap 'echo init >/shared/init; exit 0' USR1; echo up >/shared/up; while :; do sleep 0.05; done";
            let case = Case::new(runtime, &["sh", "-c", script]);
            case.succeed(&["run", "--detach", "c"]);
            case.line_of("up");
            let pids = ["a", "b"].map(|name| {
                let script = format!(
                    "trap 'echo {name} >/shared/{name}; exit 0' TERM; echo up >/shared/{name}.up; while :; do sleep 0.05; done"
                );
                case.succeed(&["exec", "--detach", "--pid-file", name, "c", "sh", "-c", &script]);
                case.line_of(&format!("{name}.up"));
                fs::read_to_string(case.bundle.path().join(name)).unwrap()
            });
            let init = case.state("c")["pid"].to_string();
            assert!(pids[0] != pids[1] && !pids.contains(&init));
            assert!(pids.iter().chain([&init]).all(|pid| is_alive(pid)));
            // A signal to the one reaches its process alone.
            case.kill(&pids[0], "TERM");
            let mut seen = vec![case.line_of("a")];
            case.wait_until("the end of a", || !is_alive(&pids[0]));
            assert!(is_alive(&pids[1]) && case.status("c") == "running");
            // So does one that cannot be handled.
            case.kill(&pids[1], "KILL");
            case.wait_until("the end of b", || !is_alive(&pids[1]));
            case.wait_until("one process", || {
                case.succeed(&[
                    "exec",
                    "c",
                    "sh",
                    "-c",
                    "grep -l [b].up /proc/[0-9]*/cmdline | wc -l",
                ])
                .trim()
                    == "0"
            });
            case.kill(&init, "USR1");
            seen.push(case.line_of("init"));
            case.wait_for_status("c", "stopped");
            seen
        });
    }

    #[test]
    fn death_of_the_pid_is_the_death_of_the_container() {
        compare(|runtime| {
            let case = Case::new(
                runtime,
                &["sh", "-c", "while :; do echo up >/shared/up; sleep 0.02; done"],
            );
            case.succeed(&["run", "--detach", "--pid-file", "pid", "c"]);
            case.line_of("up");
            case.succeed(&["exec", "--detach", "--pid-file", "exec", "c", "sleep", "1000"]);
            let read = |name: &str| fs::read_to_string(case.bundle.path().join(name)).unwrap();
            case.kill(&read("pid"), "KILL");
            case.wait_for_status("c", "stopped");
            case.wait_until("the end of exec", || !is_alive(&read("exec")));
            // Once it is gone, nobody writes any more.
            fs::remove_file(case.shared("up")).unwrap();
            case.succeed(&["delete", "c"]);
            vec![format!("{}", case.shared("up").exists())]
        });
    }

    #[test]
    fn pause_keeps_every_process_from_running() {
        compare(|runtime| {
            let script = "i=0; while :; do i=$((i+1)); echo $i >/shared/count; done & \
                          while :; do echo x >/shared/beat; sleep 0.01; done";
            let case = Case::new(runtime, &["sh", "-c", script]);
            case.succeed(&["run", "--detach", "c"]);
            case.line_of("count");
            case.line_of("beat");
            case.succeed(&["pause", "c"]);
            fs::remove_file(case.shared("beat")).unwrap();
            let count = || fs::read_to_string(case.shared("count")).unwrap();
            let before = count();
            std::thread::sleep(Duration::from_millis(100));
            let seen = vec![format!("{} {}", count() == before, case.shared("beat").exists())];
            case.succeed(&["resume", "c"]);
            case.line_of("beat");
            case.wait_until("counting", || count() != before && !count().is_empty());
            seen
        });
    }

    #[test]
    fn hooks_run_in_order_with_the_state() {
        compare(|runtime| {
            let log = TempDir::new();
            let path = log.join("log");
            let hook = |name: &str| {
                let script = format!(
                    "s=$(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/'); echo {name} $s $X >>{}",
                    path.display()
                );
                json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["X=y", "PATH=/bin:/usr/bin"], "timeout": 30}])
            };
            let case = Case::with(runtime, &["true"], |config| {
                for name in ["prestart", "createRuntime", "createContainer", "poststop"] {
                    config["hooks"][name] = hook(name);
                }
                config["hooks"]["startContainer"] = json!([{
                    "path": "/bin/sh", "args": ["sh", "-c", "cat >/dev/null; echo inside >/shared/inside"],
                    "env": ["PATH=/bin"]
                }]);
            });
            case.succeed(&["create", "c"]);
            let mut seen = vec![
                fs::read_to_string(&path).unwrap(),
                case.shared("inside").exists().to_string(),
            ];
            case.succeed(&["start", "c"]);
            case.wait_for_status("c", "stopped");
            seen.push(case.line_of("inside"));
            case.succeed(&["delete", "c"]);
            seen.push(fs::read_to_string(&path).unwrap());
            // A failure ends the container, and its message is shown.
            for name in ["prestart", "createRuntime", "createContainer"] {
                let case = Case::with(runtime, &["true"], |config| {
                    config["hooks"][name] =
                        json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}]);
                });
                seen.push(case.fail(&["create", "c"], "exit status 3, stdout: , stderr: why"));
                seen.push(case.fail(&["state", "c"], "container does not exist"));
            }
            seen
        });
    }

    #[test]
    fn descriptors_are_handed_down() {
        compare(|runtime| {
            let case = Case::new(runtime, &["sh", "-c", "cat <&3; ls /proc/self/fd | wc -l"]);
            fs::write(case.shared("three"), "third\n").unwrap();
            let mut script = String::from("exec 3<three;");
            let command = case.command(&["run", "--preserve-fds", "1", "c"]);
            for word in std::iter::once(command.get_program()).chain(command.get_args()) {
                write!(script, " '{}'", word.to_string_lossy()).unwrap();
            }
            write!(script, " --bundle '{}'", case.bundle.path().display()).unwrap();
            let script = script.replace(" 'c' --bundle", " --bundle") + " c";
            let output = Command::new("sh")
                .args(["-c", &script])
                .current_dir(case.dir.path())
                .output()
                .unwrap();
            // Not what it says: runc warns of a group that it removes at the second attempt.
            assert!(output.status.success(), "{:?}: {output:?}", case.runtime);
            vec![String::from_utf8(output.stdout).unwrap()]
        });
    }

    /// Returns what the files of a name say in a container's groups, of every hierarchy.
    fn control_files(group: &str, name: &str) -> Vec<String> {
        let root = Path::new("/sys/fs/cgroup");
        let mut mounts: Vec<PathBuf> = vec![root.into()];
        mounts.extend(fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()));
        let read = |mount: &PathBuf| fs::read_to_string(mount.join(group).join(name)).ok();
        mounts.iter().filter_map(read).collect()
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
                    assert!(
                        members.iter().all(|list| list.iter().any(|it| it == child)),
                        "{child}"
                    );
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
            for mount in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
                let _ = fs::remove_dir(mount.path().join(&parent));
            }
            let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&parent));
            seen
        });
    }

    #[test]
    fn many_containers_live_and_leave_nothing() {
        let number: usize =
            std::env::var("LIFECYCLE_CONTAINERS").map_or(12, |text| text.parse().unwrap());
        for platform in [Platform::Systrap, Platform::Ptrace] {
            if !platform.is_wanted() {
                continue;
            }
            let case = Case::new(Runtime::Runsc(platform), &["sleep", "1000"]);
            let ids: Vec<String> = (0..number).map(|index| format!("c{index}")).collect();
            let live = |id: &String| {
                case.succeed(&["create", id]);
                case.succeed(&["start", id]);
                let done = case.call(&["exec", id, "sh", "-c", "exit 4"]);
                assert_eq!(done.code, 4, "{}", done.stderr);
                case.succeed(&["kill", id, "KILL"]);
                case.succeed(&["delete", "--force", id]);
            };
            std::thread::scope(|scope| {
                for part in ids.chunks(number.div_ceil(4)) {
                    scope.spawn(move || part.iter().for_each(live));
                }
            });
            assert_eq!(fs::read_dir(case.state.path()).unwrap().count(), 0);
            let state = case.state.path().to_string_lossy().into_owned();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(&state));
        }
    }
}
