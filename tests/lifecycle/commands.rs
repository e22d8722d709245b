//! The commands: their states, exit codes and messages.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use test_harness::{Platform, TempDir};

use crate::case::{Case, Runtime, compare, is_alive};

#[test]
fn commands_have_the_states_and_failures_of_runc() {
    compare(|runtime| {
        let case = Case::new(runtime, &["sleep", "1000"]);
        let mut seen = Vec::new();
        seen.push(case.fail(&["state", "c"], "container does not exist"));
        case.succeed(&["create", "--pid-file", "pid", "c"]);
        let state = case.state("c");
        seen.push(format!("{} {} {}", state["id"], state["status"], state["rootfs"]));
        assert_eq!(state["bundle"].as_str(), case.bundle.path().canonicalize().unwrap().to_str());
        let pid = fs::read_to_string(case.bundle.path().join("pid")).unwrap();
        assert!(state["pid"].as_u64() == pid.trim().parse().ok() && is_alive(&pid));
        seen.push(case.fail(&["create", "c"], "container with given ID already exists"));
        seen.push(case.fail(&["resume", "c"], "container not paused"));
        case.succeed(&["start", "c"]);
        seen.push(case.status("c"));
        seen.push(case.fail(&["start", "c"], "cannot start an already running container"));
        seen.push(
            case.fail(&["delete", "c"], "cannot delete container c that is not stopped: running"),
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
            seen.push(format!("{script}: {}", case.call(&["exec", "c", "sh", "-c", script]).code));
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
        seen.push(case.fail(
            &["exec", "--cwd", "/nothing", "c", "true"],
            "chdir to cwd (\\\"/nothing\\\") set in config.json failed: no such file or directory",
        ));
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
            case.succeed(&["exec", "c", "sh", "-c", "grep -l [b].up /proc/[0-9]*/cmdline | wc -l"])
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
        let case =
            Case::new(runtime, &["sh", "-c", "while :; do echo up >/shared/up; sleep 0.02; done"]);
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
        let mut seen =
            vec![fs::read_to_string(&path).unwrap(), case.shared("inside").exists().to_string()];
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
        let output =
            Command::new("sh").args(["-c", &script]).current_dir(case.dir.path()).output().unwrap();
        // Not what it says: runc warns of a group that it removes at the second attempt.
        assert!(output.status.success(), "{:?}: {output:?}", case.runtime);
        vec![String::from_utf8(output.stdout).unwrap()]
    });
}

#[test]
fn a_terminal_comes_from_one_place_only() {
    compare(|runtime| {
        let tty = Case::with(runtime, &["sleep", "1000"], |config| {
            config["process"]["terminal"] = true.into();
        });
        let case = Case::new(runtime, &["sleep", "1000"]);
        case.succeed(&["run", "--detach", "c"]);
        // In a session without a terminal, wherever the test runs.
        let refused = |case: &Case, args: &[&str], words: &str| {
            let command = case.command(args);
            let mut apart = Command::new("setsid");
            apart.arg("--wait").arg(command.get_program()).args(command.get_args());
            apart.current_dir(case.bundle.path()).stdin(std::process::Stdio::null());
            let output = apart.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let says = if stderr.contains(words) { words } else { &stderr };
            format!("{args:?} {:?}: {says}", output.status.code())
        };
        let no_tty = "open /dev/tty: no such device or address";
        let no_socket = "without setting console socket";
        let not_both = "cannot use console socket if runc will not detach or allocate tty";
        let not_both = &not_both[..not_both.find("runc").unwrap()];
        let no_file = "dial unix /nothing: connect: no such file or directory";
        vec![
            refused(&tty, &["run", "t"], no_tty),
            refused(&tty, &["create", "t"], no_socket),
            refused(&tty, &["run", "--detach", "t"], no_socket),
            refused(&tty, &["run", "--console-socket", "/nothing", "t"], not_both),
            refused(&tty, &["create", "--console-socket", "/nothing", "t"], no_file),
            refused(&case, &["create", "--console-socket", "/nothing", "t"], not_both),
            refused(&case, &["exec", "--tty", "c", "true"], no_tty),
            refused(&case, &["exec", "--tty", "--detach", "c", "true"], no_socket),
            refused(&case, &["exec", "--console-socket", "/nothing", "c", "true"], not_both),
            tty.succeed(&["list", "-q"]),
        ]
    });
}

#[test]
fn ps_gives_pids_of_the_host() {
    compare(|runtime| {
        let script = "sleep 1000 & sleep 1000 & echo up >/shared/up; wait";
        let case = Case::new(runtime, &["sh", "-c", script]);
        case.succeed(&["run", "--detach", "c"]);
        case.line_of("up");
        let pids = || -> Vec<u32> {
            serde_json::from_str(&case.succeed(&["ps", "--format", "json", "c"])).unwrap()
        };
        case.wait_until("three processes", || pids().len() == 3);
        let listed = pids();
        assert_eq!(case.state("c")["pid"].as_u64(), Some(u64::from(listed[0])));
        assert!(listed.iter().all(|pid| is_alive(&pid.to_string())));
        // They are those processes: the end of one is the end of the other.
        case.kill(&listed[2].to_string(), "KILL");
        case.wait_until("two processes", || pids().len() == 2);
        vec![(pids() == listed[..2]).to_string()]
    });
}

#[test]
fn hooks_need_not_read_the_state() {
    compare(|runtime| {
        let state = TempDir::new();
        let copy = state.join("state");
        let bulk = "x".repeat(300_000);
        let case = Case::with(runtime, &["true"], |config| {
            config["annotations"]["bulk"] = bulk.clone().into();
            config["hooks"]["prestart"] = json!([{
                "path": "/bin/sh", "args": ["sh", "-c", format!("cat >{}", copy.display())]
            }]);
            config["hooks"]["poststop"] = json!([{"path": "/bin/true"}]);
            config["hooks"]["startContainer"] = json!([{
                "path": "/bin/busybox", "args": ["busybox", "grep", "-q", "bulk"],
            }]);
        });
        case.succeed(&["create", "c"]);
        case.succeed(&["start", "c"]);
        case.wait_for_status("c", "stopped");
        case.succeed(&["delete", "c"]);
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
        let mut seen = vec![(read["annotations"]["bulk"] == bulk.as_str()).to_string()];
        // One that reads nothing and does not end.
        let case = Case::with(runtime, &["true"], |config| {
            config["annotations"]["bulk"] = bulk.clone().into();
            config["hooks"]["prestart"] =
                json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
        });
        seen.push(case.fail(&["create", "c"], "hook ran past specified timeout of 1"));
        seen
    });
}

#[test]
fn one_of_start_and_delete_comes_first() {
    for platform in [Platform::Systrap, Platform::Ptrace] {
        if !platform.is_wanted() {
            continue;
        }
        let case = Case::new(Runtime::Runsc(platform), &["sleep", "1000"]);
        for round in 0..6 {
            let id = format!("c{round}");
            case.succeed(&["create", &id]);
            let (started, deleted) = std::thread::scope(|scope| {
                let started = scope.spawn(|| case.call(&["start", &id]).code);
                let deleted = scope.spawn(|| case.call(&["delete", &id]).code);
                (started.join().unwrap(), deleted.join().unwrap())
            });
            // A container that runs is not deleted, and one that is deleted does not run.
            assert_ne!(started == 0, deleted == 0, "{started} {deleted}");
            if deleted != 0 {
                assert_eq!(case.status(&id), "running");
                case.succeed(&["delete", "--force", &id]);
            }
        }
        assert_eq!(case.succeed(&["list", "-q"]), "");
    }
}

#[test]
fn debug_shows_processes_and_threads() {
    for platform in [Platform::Systrap, Platform::Ptrace] {
        if !platform.is_wanted() {
            continue;
        }
        // What it cannot unload is a call that is not served.
        let script = "busybox rmmod nothing; sleep 1000; true";
        let case = Case::new(Runtime::Runsc(platform), &["sh", "-c", script]);
        case.succeed(&["run", "--detach", "c"]);
        let debug = || case.succeed(&["debug", "--stacks", "--ps", "c"]);
        case.wait_until("a thread that sleeps", || debug().contains("nanosleep("));
        let text = debug();
        assert!(text.contains("wait4(") && text.contains("runsc-sandbox"), "{text}");
        let text = case.succeed(&["debug", "--unsupported", "c"]);
        assert_eq!(text, "UNSUPPORTED    COUNT\ndelete_module  1\n");
    }
}
