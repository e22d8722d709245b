//! OCI bundles: a root file system, a `config.json` made for one program, and containers that end with
//! their owner.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cmd::{Cmd, Output};
use crate::locate;
use crate::temp_dir::{TempDir, unique};

/// A root file system for containers.
#[derive(Debug)]
pub enum Rootfs {
    /// None: for modes that use the host's.
    Host,
    /// A few directories and guest programs; removed when dropped. Containers may write to it.
    Small(TempDir),
    /// A directory that is shared and therefore mounted read-only, with a tmpfs where programs write.
    Shared(PathBuf),
}

/// A bundle's directory; removed when dropped.
#[derive(Debug)]
pub struct Bundle {
    dir: TempDir,
}

/// A container; deleted by force when dropped.
#[derive(Debug)]
pub struct Container {
    /// `runsc` (or runc) with its global flags.
    runtime: Vec<OsString>,
    /// Container id.
    pub id: String,
}

impl Rootfs {
    /// Makes a small root file system that holds the named programs of the workspace in `/bin`.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    #[track_caller]
    pub fn with_programs(names: &[&str]) -> Rootfs {
        let dir = TempDir::new();
        for name in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var"] {
            std::fs::create_dir(dir.join(name)).expect("cannot make a root file system");
        }
        std::fs::set_permissions(dir.join("tmp"), Permissions::from_mode(0o1777))
            .expect("cannot open /tmp to all");
        for name in names {
            std::fs::copy(locate::binary(name), dir.join("bin").join(name))
                .expect("cannot copy a guest program");
        }
        std::fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
            .expect("cannot write passwd");
        Rootfs::Small(dir)
    }

    /// Returns the Debian root file system that the set-up command made.
    #[must_use]
    #[track_caller]
    pub fn debian() -> Rootfs {
        Rootfs::Shared(locate::debian())
    }

    /// Returns the Debian root file system with servers and tools that the set-up command made.
    #[must_use]
    #[track_caller]
    pub fn services() -> Rootfs {
        Rootfs::Shared(locate::services())
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Rootfs::Host => Path::new("/"),
            Rootfs::Small(dir) => dir.path(),
            Rootfs::Shared(dir) => dir,
        }
    }
}

impl Bundle {
    /// Makes a bundle that runs one program in a root file system.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    #[track_caller]
    pub fn new(rootfs: &Rootfs, program: &Cmd) -> Bundle {
        Bundle::with_config(&config(rootfs, program))
    }

    /// Makes a bundle with the given `config.json`.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    #[track_caller]
    pub fn with_config(config: &Value) -> Bundle {
        let dir = TempDir::new();
        std::fs::write(dir.join("config.json"), config.to_string())
            .expect("cannot write config.json");
        Bundle { dir }
    }

    /// Returns the bundle's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the bundle to its end. `argv` is the runtime up to its `run`.
    #[must_use]
    #[track_caller]
    pub fn run(&self, mut argv: Vec<OsString>, program: &Cmd) -> Output {
        let mut runtime = argv.clone();
        runtime.pop();
        let container = Container { runtime, id: unique("test") };
        argv.extend(["--bundle".into(), self.dir.path().into(), OsString::from(&container.id)]);
        program.with_argv(argv).run()
    }
}

impl Container {
    /// Names a container of the runtime `runtime` (with its global flags).
    #[must_use]
    pub fn new(runtime: Vec<OsString>) -> Container {
        Container { runtime, id: unique("test") }
    }

    /// Runs a command of the runtime that ends with the container's id: `state`, `kill ID SIGNAL`…
    #[must_use]
    #[track_caller]
    pub fn command(&self, before: &[&str], after: &[&str]) -> Output {
        let mut argv = self.runtime.clone();
        argv.extend(before.iter().map(OsString::from));
        argv.push(OsString::from(&self.id));
        argv.extend(after.iter().map(OsString::from));
        Cmd::new(argv).deadline(Duration::from_secs(60)).run()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force"], &[]);
    }
}

/// Makes the `config.json` that the tests share.
#[must_use]
pub fn config(rootfs: &Rootfs, program: &Cmd) -> Value {
    let text = |value: &OsString| value.to_string_lossy().into_owned();
    let args: Vec<String> = program.argv().iter().map(text).collect();
    let env: Vec<String> = program
        .envs()
        .iter()
        .map(|(name, value)| format!("{}={}", text(name), text(value)))
        .collect();
    let cwd = program.dir().map_or("/".into(), |dir| dir.to_string_lossy());
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
               "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    let is_shared = matches!(rootfs, Rootfs::Shared(_));
    if is_shared {
        for dir in ["/tmp", "/root", "/run", "/var/tmp"] {
            mounts.push(json!({"destination": dir, "type": "tmpfs", "source": "tmpfs",
                               "options": ["nosuid", "nodev", "mode=1777"]}));
        }
    }
    let all = capabilities();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": env,
            "cwd": cwd,
            "capabilities": {"bounding": all, "effective": all, "permitted": all},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}],
            "noNewPrivileges": false
        },
        "root": {"path": rootfs.path(), "readonly": is_shared},
        "hostname": "guest",
        "mounts": mounts,
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}
            ]
        }
    })
}

/// The capabilities that docker gives a container, and those that the cases themselves use.
fn capabilities() -> Vec<&'static str> {
    vec![
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
        "CAP_SYS_NICE",
        "CAP_IPC_LOCK",
        "CAP_SYS_PTRACE",
        "CAP_DAC_READ_SEARCH",
        "CAP_SYS_ADMIN",
    ]
}
