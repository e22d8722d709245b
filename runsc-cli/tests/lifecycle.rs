//! The life of containers through the command line: states, exit status, messages, what is left.

#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module as a whole"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A bundle whose root file system is the host's, and a state directory; removed with the value.
struct Bundle {
    dir: PathBuf,
}

impl Bundle {
    fn new(name: &str, args: &[&str]) -> Self {
        let dir =
            std::env::temp_dir().join(format!("runsc-lifecycle-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let bundle = Self { dir };
        let spec = bundle.runsc(&[&["spec", "--"], args].concat());
        assert!(spec.status.success(), "{spec:?}");
        bundle.change(|config| {
            config["root"] = serde_json::json!({ "path": "/", "readonly": false });
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
        });
        bundle
    }

    fn change(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.dir.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(&path, config.to_string()).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runsc"));
        command
            .args(["--root", self.path("state").to_str().unwrap(), "--ignore-cgroups"])
            .args(args);
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Runs a command that ends by itself. Its output goes to files: a pipe would stay open for as
    /// long as a container that has it.
    fn runsc(&self, args: &[&str]) -> Output {
        let (stdout, stderr) = (self.path("stdout"), self.path("stderr"));
        let file = |path| fs::File::create(path).unwrap();
        let status =
            self.command(args).stdout(file(&stdout)).stderr(file(&stderr)).status().unwrap();
        Output { status, stdout: fs::read(stdout).unwrap(), stderr: fs::read(stderr).unwrap() }
    }

    #[track_caller]
    fn succeed(&self, args: &[&str]) -> String {
        let output = self.runsc(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fail(&self, args: &[&str]) -> String {
        let output = self.runsc(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn status(&self, id: &str) -> String {
        let state: serde_json::Value = serde_json::from_str(&self.succeed(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn wait_for_status(&self, id: &str, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.status(id) != status {
            assert!(Instant::now() < deadline, "{id} does not become {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal until the container has stopped: as the first process, its program is spared the default
    /// action for as long as it has no handler yet.
    #[track_caller]
    fn kill_until_stopped(&self, id: &str, signal: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.status(id) != "stopped" {
            assert!(Instant::now() < deadline, "{id} does not stop");
            // It may have stopped in between.
            let _ = self.runsc(&["kill", id, signal]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("state")).into_iter().flatten().flatten() {
            let _ = self.runsc(&["delete", "--force", &entry.file_name().to_string_lossy()]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn container_goes_through_the_states_of_the_specification() {
    let bundle = Bundle::new("states", &["sleep", "60"]);
    bundle.succeed(&["create", "--pid-file", "pid", "c"]);
    let state: serde_json::Value = serde_json::from_str(&bundle.succeed(&["state", "c"])).unwrap();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "c");
    assert_eq!(state["pid"].to_string(), fs::read_to_string(bundle.path("pid")).unwrap());
    assert_eq!(state["bundle"].as_str(), bundle.dir.canonicalize().unwrap().to_str());

    bundle.succeed(&["start", "c"]);
    assert_eq!(bundle.status("c"), "running");
    assert!(bundle.fail(&["start", "c"]).contains("already running"));
    assert!(bundle.fail(&["delete", "c"]).contains("not stopped"));
    assert!(bundle.fail(&["create", "c"]).contains("already exists"));
    let processes = bundle.succeed(&["ps", "--format", "json", "c"]);
    assert_eq!(processes.trim(), format!("[{}]", state["pid"]));
    assert_eq!(bundle.succeed(&["list", "-q"]).trim(), "c");

    bundle.succeed(&["kill", "c", "KILL"]);
    bundle.wait_for_status("c", "stopped");
    assert!(bundle.fail(&["kill", "c"]).contains("container not running"));
    bundle.succeed(&["delete", "c"]);
    assert!(bundle.fail(&["state", "c"]).contains("container does not exist"));
    assert!(bundle.fail(&["delete", "c"]).contains("container does not exist"));
    bundle.succeed(&["delete", "--force", "c"]);
}

#[test]
fn run_returns_the_exit_status_of_the_program() {
    let bundle = Bundle::new("status", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let output = bundle.runsc(&["run", "c"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"));
    assert_eq!(bundle.succeed(&["list", "-q"]), "");
}

#[test]
fn first_process_is_spared_default_actions() {
    let bundle =
        Bundle::new("init", &["sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done"]);
    bundle.succeed(&["run", "--detach", "c"]);
    bundle.succeed(&["kill", "c", "TERM"]);
    bundle.kill_until_stopped("c", "USR1");
    assert_eq!(bundle.succeed(&["wait", "c"]).trim(), r#"{"exitStatus":5,"id":"c"}"#);
}

#[test]
fn handlers_of_the_first_process_get_signals() {
    let bundle =
        Bundle::new("handler", &["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"]);
    bundle.succeed(&["run", "--detach", "c"]);
    bundle.kill_until_stopped("c", "TERM");
    assert_eq!(bundle.succeed(&["wait", "c"]).trim(), r#"{"exitStatus":3,"id":"c"}"#);
}

#[test]
fn missing_program_fails_create() {
    let bundle = Bundle::new("missing", &["no-such-program"]);
    let expected = r#"exec: \"no-such-program\": executable file not found in $PATH"#;
    assert!(bundle.fail(&["create", "c"]).contains(expected));
    assert!(bundle.fail(&["run", "--detach", "c"]).contains(expected));
    assert_eq!(bundle.succeed(&["list", "-q"]), "");
}

#[test]
fn log_is_json_for_managers() {
    let bundle = Bundle::new("log", &["true"]);
    let _ = bundle.runsc(&["--log", "log", "--log-format", "json", "state", "none"]);
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().starts_with("container does not exist"));
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn leftovers_of_a_crash_can_be_deleted() {
    let bundle = Bundle::new("leftover", &["true"]);
    fs::create_dir_all(bundle.path("state/empty")).unwrap();
    fs::create_dir_all(bundle.path("state/torn")).unwrap();
    fs::write(bundle.path("state/torn/state.json"), "{").unwrap();
    assert_eq!(bundle.status("empty"), "stopped");
    assert!(bundle.succeed(&["list"]).contains("empty"));
    bundle.succeed(&["delete", "empty"]);
    bundle.succeed(&["delete", "--force", "torn"]);
    assert_eq!(fs::read_dir(bundle.path("state")).unwrap().count(), 0);
}

#[test]
fn unsupported_fields_are_named() {
    let bundle = Bundle::new("fields", &["true"]);
    bundle.change(|config| {
        config["hooks"] = serde_json::json!({ "prestart": [{ "path": "true" }] });
    });
    let refusal = "config.json: hooks.prestart[0].path: \\\"true\\\" is not absolute";
    assert!(bundle.fail(&["run", "c"]).contains(refusal));
    bundle.change(|config| {
        config["hooks"].take();
        config["linux"]["mountLabel"] = "x".into();
    });
    let output = bundle.runsc(&["run", "c"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("linux.mountLabel: not supported, ignored")
    );
}
