//! Two network namespaces and a wire between them; containers in one, programs in the other.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use test_harness::{Bundle, Cmd, Platform, Rootfs, TempDir, mode};

/// What is tested, or shows how it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runc,
    Runsc(Platform),
}

/// The namespaces; removed when dropped.
pub(crate) struct Wire {
    inside: String,
    outside: String,
}

/// A program that ends with its owner.
pub(crate) struct Running {
    child: Child,
    delete: Option<Vec<std::ffi::OsString>>,
    _dirs: Vec<TempDir>,
    _bundle: Option<Bundle>,
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Wire {
    pub(crate) fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("runsc-{side}-{}-{serial}", std::process::id());
        let wire = Self { inside: name("in"), outside: name("out") };
        let (inside, outside) = (wire.inside.as_str(), wire.outside.as_str());
        ip(&["netns", "add", inside]);
        ip(&["netns", "add", outside]);
        ip(&[
            "link", "add", "eth9", "netns", inside, "type", "veth", "peer", "name", "out0",
            "netns", outside,
        ]);
        for (netns, device, host) in [(inside, "eth9", "2"), (outside, "out0", "1")] {
            ip(&["-n", netns, "link", "set", "lo", "up"]);
            ip(&["-n", netns, "addr", "add", &format!("10.87.0.{host}/24"), "dev", device]);
            ip(&["-n", netns, "addr", "add", &format!("fd87::{host}/64"), "dev", device, "nodad"]);
            ip(&["-n", netns, "link", "set", device, "up"]);
        }
        wire
    }

    pub(crate) fn v4(&self) -> &'static str {
        "10.87.0.2"
    }

    pub(crate) fn v6(&self) -> &'static str {
        "fd87::2"
    }

    fn enter(netns: &str, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "100", "nsenter", &format!("--net=/run/netns/{netns}")]);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn enter_outside(&self, args: &[&str]) -> Command {
        Self::enter(&self.outside, args)
    }

    /// Runs a program outside, which has to succeed; returns what it prints.
    #[track_caller]
    pub(crate) fn outside(&self, args: &[&str]) -> String {
        let output = self.enter_outside(args).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stdout}{stderr}", args[0]);
        stdout
    }

    /// Runs a program outside; returns whether it succeeds.
    pub(crate) fn try_outside(&self, args: &[&str]) -> bool {
        self.enter_outside(args).output().is_ok_and(|output| output.status.success())
    }

    /// Starts a program outside and waits until it says that it is ready.
    pub(crate) fn server_outside(&self, args: &[&str]) -> Running {
        Running::program(self.enter_outside(args))
    }

    /// Starts a program in the container's network namespace, before the container.
    pub(crate) fn server_inside(&self, args: &[&str]) -> Running {
        Running::program(Self::enter(&self.inside, args))
    }

    fn config(&self, args: &[&str]) -> Value {
        let mut config = test_harness::bundle::config(&Rootfs::services(), &Cmd::new(args));
        for entry in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if entry["type"] == "network" {
                entry["path"] = format!("/run/netns/{}", self.inside).into();
            }
        }
        config["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "0 0"});
        config["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "hard": 20_000, "soft": 1024}]);
        config["linux"]["cgroupsPath"] =
            format!("/{}", test_harness::temp_dir::unique("network")).into();
        config
    }

    fn start(&self, runtime: Runtime, config: &Value) -> Running {
        let state = TempDir::new();
        let argv = match runtime {
            Runtime::Runc => vec!["runc".into(), "--root".into(), state.path().into()],
            Runtime::Runsc(platform) => {
                let argv = mode::runsc_argv(platform, &state);
                argv.into_iter().filter(|word| word != "--network=none").collect()
            }
        };
        let bundle = Bundle::with_config(config);
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "150"]).args(&argv).args(["run", "c"]);
        command.current_dir(bundle.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut delete = argv;
        delete.extend(["delete".into(), "--force".into(), "c".into()]);
        Running { child, delete: Some(delete), _dirs: vec![state], _bundle: Some(bundle) }
    }

    /// Starts a container and waits until it says that it is ready.
    pub(crate) fn container(&self, runtime: Runtime, args: &[&str]) -> Running {
        self.start(runtime, &self.config(args)).ready()
    }

    /// Runs a container to its end; returns what it prints.
    pub(crate) fn run(&self, runtime: Runtime, args: &[&str]) -> String {
        self.start(runtime, &self.config(args)).all()
    }

    /// Runs a container in the network of this process.
    pub(crate) fn run_shared(&self, program: &Cmd) -> String {
        let mut config = test_harness::bundle::config(&Rootfs::services(), program);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "network");
        self.start(Runtime::Runsc(Platform::Systrap), &config).all()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for netns in [&self.inside, &self.outside] {
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}

impl Running {
    fn program(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        Self { child, delete: None, _dirs: Vec::new(), _bundle: None }.ready()
    }

    fn stdout(&mut self) -> File {
        let stdout = self.child.stdout.take().unwrap();
        File::from(std::os::fd::OwnedFd::from(stdout))
    }

    fn ready(mut self) -> Self {
        let mut line = String::new();
        let mut stdout = BufReader::new(self.stdout());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        self
    }

    fn all(&mut self) -> String {
        let mut text = String::new();
        self.stdout().read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(delete) = &self.delete {
            let _ = Command::new(&delete[0]).args(&delete[1..]).stderr(Stdio::null()).status();
        }
        // `timeout` passes it on.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Runs a case under every runtime and compares.
#[track_caller]
pub(crate) fn each_runtime(case: impl Fn(&Wire, Runtime) -> String) {
    let expected = case(&Wire::new(), Runtime::Runc);
    for platform in [Platform::Systrap, Platform::Ptrace] {
        if platform.is_wanted() {
            assert_eq!(case(&Wire::new(), Runtime::Runsc(platform)), expected, "{platform:?}");
        }
    }
}
