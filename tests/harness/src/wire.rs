//! Two network namespaces and a wire between them: containers in one, programs of the host in the other.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::{self, Bundle, Rootfs};
use crate::cmd::Cmd;
use crate::temp_dir::{TempDir, unique};

/// The namespaces; removed when dropped.
#[derive(Debug)]
pub struct Wire {
    inside: String,
    outside: String,
}

/// A program that ends with its owner.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// How the runtime is called, and the name of the container.
    runtime: Option<(Vec<OsString>, String)>,
    _dirs: Vec<TempDir>,
    _bundle: Option<Bundle>,
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("cannot run ip");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Wire {
    /// Makes the namespaces: `eth9` within, `out0` outside.
    ///
    /// # Panics
    ///
    /// If this user may not.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
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

    /// Returns the container's address.
    #[must_use]
    pub fn v4(&self) -> &'static str {
        "10.87.0.2"
    }

    /// Returns the container's address of IPv6.
    #[must_use]
    pub fn v6(&self) -> &'static str {
        "fd87::2"
    }

    fn enter(netns: &str, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "300", "nsenter", &format!("--net=/run/netns/{netns}")]);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn enter_outside(&self, args: &[&str]) -> Command {
        Self::enter(&self.outside, args)
    }

    /// Runs a program outside, which has to succeed; returns what it prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[must_use]
    #[track_caller]
    pub fn outside(&self, args: &[&str]) -> String {
        match self.ask_outside(args) {
            Ok(text) => text,
            Err(text) => panic!("{}: {text}", args.join(" ")),
        }
    }

    /// Runs a program outside; returns what it prints.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn ask_outside(&self, args: &[&str]) -> Result<String, String> {
        Self::ask(self.enter_outside(args))
    }

    /// Runs a program in the container's network namespace, but not in the container; returns what it
    /// prints.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn ask_inside(&self, args: &[&str]) -> Result<String, String> {
        Self::ask(Self::enter(&self.inside, args))
    }

    fn ask(mut command: Command) -> Result<String, String> {
        let output = command.output().map_err(|error| error.to_string())?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(stdout) } else { Err(stdout + &stderr) }
    }

    /// Returns the addresses and routes of the container's interface, as the host's kernel has them.
    ///
    /// # Panics
    ///
    /// If it does not tell.
    #[must_use]
    #[track_caller]
    pub fn network(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (family, what) in [("-4", "addr"), ("-6", "addr"), ("-4", "route"), ("-6", "route")] {
            let args = ["ip", family, "-o", what, "show", "dev", "eth9"];
            let text = self.ask_inside(&args).expect("cannot ask for the network");
            // Whether a conflict was looked for is of the past.
            lines.extend(text.lines().map(|line| format!("{what} {}", line.replace(" nodad", ""))));
        }
        lines.sort();
        lines
    }

    /// Starts a program outside and waits until it says that it is ready.
    #[must_use]
    #[track_caller]
    pub fn server_outside(&self, args: &[&str]) -> Running {
        Running::program(self.enter_outside(args))
    }

    /// Starts a program in the container's network namespace, without a container.
    #[must_use]
    #[track_caller]
    pub fn server_inside(&self, args: &[&str]) -> Running {
        Running::program(Self::enter(&self.inside, args))
    }

    /// Returns the `config.json` of a container in the namespace.
    #[must_use]
    pub fn config(&self, rootfs: &Rootfs, program: &Cmd) -> Value {
        let mut config = bundle::config(rootfs, program);
        for entry in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
            if entry["type"] == "network" {
                entry["path"] = format!("/run/netns/{}", self.inside).into();
            }
        }
        config["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "0 0"});
        config["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "hard": 20_000, "soft": 1024}]);
        config["linux"]["cgroupsPath"] = format!("/{}", unique("network")).into();
        config
    }

    /// Starts a container. `argv` is the runtime with its global flags, `state` what it keeps its
    /// state in.
    ///
    /// # Panics
    ///
    /// If the runtime cannot be started.
    #[must_use]
    #[track_caller]
    pub fn start(&self, argv: Vec<OsString>, state: TempDir, config: &Value) -> Running {
        let mut running = self.start_as(argv, "c", config);
        running._dirs.push(state);
        running
    }

    /// As [`Wire::start`], for a container of that name in a state directory of somebody else.
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    #[track_caller]
    pub fn start_as(&self, argv: Vec<OsString>, id: &str, config: &Value) -> Running {
        let bundle = Bundle::with_config(config);
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "400"]).args(&argv).args(["run", id]);
        command.current_dir(bundle.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().expect("cannot start the runtime");
        let runtime = Some((argv, id.to_owned()));
        Running { child, runtime, _dirs: Vec::new(), _bundle: Some(bundle) }
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
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
    #[track_caller]
    fn program(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().expect("cannot start a program");
        Self { child, runtime: None, _dirs: Vec::new(), _bundle: None }.ready()
    }

    /// Returns a command of the runtime that has started this.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        let argv = self.runtime.iter().flat_map(|(argv, _)| argv);
        command.args(["-k", "5", "100"]).args(argv).args(args).stdin(Stdio::null());
        command
    }

    /// Kills the runtime and the container's process on the host, as nobody should.
    ///
    /// # Panics
    ///
    /// If the container lives on.
    #[track_caller]
    pub fn crash(&mut self) {
        let Some((_, id)) = &self.runtime else { return };
        let state = || -> Value {
            let output = self.command(&["state", id]).output().expect("cannot start the runtime");
            serde_json::from_slice(&output.stdout).expect("the runtime knows no state")
        };
        let pid = state()["pid"].to_string();
        // `timeout` leads a group, in which the runtime is.
        for target in [format!("-{}", self.child.id()), pid] {
            let _ = Command::new("kill").args(["-KILL", "--", &target]).status();
        }
        let limit = Instant::now() + Duration::from_secs(60);
        while state()["status"] != "stopped" {
            assert!(Instant::now() < limit, "{id} lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn stdout(&mut self) -> File {
        let stdout = self.child.stdout.take().expect("the output has been taken");
        File::from(OwnedFd::from(stdout))
    }

    /// Waits until the program says that it is ready.
    ///
    /// # Panics
    ///
    /// If it says anything else.
    #[must_use]
    #[track_caller]
    pub fn ready(self) -> Self {
        self.ready_if_any().expect("the program says")
    }

    /// Waits until the program says `ready`, and returns what it says else.
    ///
    /// # Errors
    ///
    /// Where it says anything else, or ends.
    pub fn ready_if_any(mut self) -> Result<Self, String> {
        let mut line = String::new();
        let mut stdout = BufReader::new(self.stdout());
        stdout.read_line(&mut line).map_err(|error| error.to_string())?;
        if line == "ready\n" { Ok(self) } else { Err(line) }
    }

    /// Waits for the end of the program, which has to succeed; returns what it prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[must_use]
    #[track_caller]
    pub fn all(mut self) -> String {
        let mut text = String::new();
        self.stdout().read_to_string(&mut text).expect("cannot read what the program says");
        let status = self.child.wait().expect("cannot wait for the program");
        assert!(status.success(), "{text}");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((_, id)) = &self.runtime {
            let _ = self.command(&["delete", "--force", id]).stderr(Stdio::null()).status();
        }
        // `timeout` passes it on.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}
