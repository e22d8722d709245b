//! What the cases share: a bundle, commands, and the comparison of runtimes.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_harness::{Bundle, Cmd, Platform, Rootfs, TempDir, cmd, mode};

/// How long whatever happens by itself may take, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A root file system with busybox, which containers share.
static ROOTFS: OnceLock<Rootfs> = OnceLock::new();

/// What is tested, or shows how it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runc,
    Runsc(Platform),
}

/// A bundle, a state directory and a directory for files, of one case under one runtime.
pub(crate) struct Case {
    pub(crate) runtime: Runtime,
    pub(crate) state: TempDir,
    pub(crate) dir: TempDir,
    pub(crate) bundle: Bundle,
    pub(crate) has_cgroups: bool,
}

/// What a command left.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn rootfs() -> &'static Rootfs {
    ROOTFS.get_or_init(new_rootfs)
}

/// Makes a root file system with busybox.
pub(crate) fn new_rootfs() -> Rootfs {
    let rootfs = Rootfs::with_programs(&["neighbour"]);
    let bin = rootfs.path().join("bin");
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for name in [
        "cat", "cut", "echo", "env", "false", "grep", "id", "kill", "ls", "pwd", "sh", "sleep",
        "true", "touch",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    fs::write(bin.join("text"), "no program\n").unwrap();
    // Where a container's root is nobody on the host, it cannot make a mount point.
    fs::create_dir(rootfs.path().join("shared")).unwrap();
    rootfs
}

/// Makes the `config.json` of a container that sees a directory as `/shared`.
pub(crate) fn config(rootfs: &Rootfs, shared: &TempDir, args: &[&str]) -> Value {
    let mut config = test_harness::bundle::config(rootfs, &Cmd::new(args));
    config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/shared", "type": "bind", "source": shared.path(), "options": ["bind"]
    }));
    // Without one, containers of the same name share a group, and its freezer.
    config["linux"]["cgroupsPath"] =
        format!("/{}", test_harness::temp_dir::unique("lifecycle")).into();
    config
}

impl Case {
    pub(crate) fn new(runtime: Runtime, args: &[&str]) -> Case {
        Case::with(runtime, args, |_| ())
    }

    pub(crate) fn with(runtime: Runtime, args: &[&str], change: impl FnOnce(&mut Value)) -> Case {
        let dir = TempDir::new();
        let mut config = config(rootfs(), &dir, args);
        change(&mut config);
        Case {
            runtime,
            state: TempDir::new(),
            dir,
            bundle: Bundle::with_config(&config),
            has_cgroups: false,
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
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
        command.args(["-k", "5", "100"]).args(argv).args(args);
        command.current_dir(self.bundle.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", cmd::PATH);
        command
    }

    /// Runs a command. Its output goes to files, since containers inherit it.
    #[track_caller]
    pub(crate) fn call(&self, args: &[&str]) -> Done {
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
        let stderr = match self.runtime {
            Runtime::Runc => cmd::without_retries_of_runc(&read("stderr")),
            Runtime::Runsc(_) => read("stderr"),
        };
        let done = Done { code, stdout: read("stdout"), stderr };
        for name in ["stdout", "stderr"] {
            fs::remove_file(path(name)).unwrap();
        }
        done
    }

    #[track_caller]
    pub(crate) fn succeed(&self, args: &[&str]) -> String {
        let done = self.call(args);
        assert_eq!(done.code, 0, "{:?}: {args:?}: {}", self.runtime, done.stderr);
        done.stdout
    }

    /// Returns the exit code of a command and which of the words its message holds.
    #[track_caller]
    pub(crate) fn fail(&self, args: &[&str], words: &str) -> String {
        let done = self.call(args);
        let says = if done.stderr.contains(words) { words } else { &done.stderr };
        format!("{} {}: {says}", args[0], done.code)
    }

    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.succeed(&["state", id])).unwrap()
    }

    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < DEADLINE, "{:?}: never: {what}", self.runtime);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_status(&self, id: &str, status: &str) {
        self.wait_until(status, || self.status(id) == status);
    }

    /// Returns a path in the directory that the container sees as `/shared`.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns a file's text, once it is there with a line's end.
    #[track_caller]
    pub(crate) fn line_of(&self, name: &str) -> String {
        let read = || fs::read_to_string(self.shared(name)).unwrap_or_default();
        self.wait_until(name, || read().ends_with('\n'));
        read().trim().to_owned()
    }

    pub(crate) fn kill(&self, pid: &str, signal: &str) {
        let killed = Command::new("kill").args([&format!("-{signal}"), pid]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.state.path()).into_iter().flatten().flatten() {
            let _ =
                self.command(&["delete", "--force", &entry.file_name().to_string_lossy()]).status();
        }
    }
}

/// Runs a case under every runtime and compares.
#[track_caller]
pub(crate) fn compare(case: impl Fn(Runtime) -> Vec<String>) {
    let expected = case(Runtime::Runc);
    for platform in [Platform::Systrap, Platform::Ptrace] {
        if platform.is_wanted() {
            assert_eq!(case(Runtime::Runsc(platform)), expected, "{platform:?}");
        }
    }
}

pub(crate) fn is_alive(pid: &str) -> bool {
    fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
