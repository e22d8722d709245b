//! The runtimes that are compared, and how each runs the guest program.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use test_harness::{Bundle, Cmd, End, Rootfs, TempDir};

/// Something that can run a program.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// Name in the table.
    pub(crate) name: String,
    /// The runtime and its global flags; empty for the host itself.
    pub(crate) argv: Vec<OsString>,
}

impl Runtime {
    /// Returns every runtime that is on this machine, native first.
    pub(crate) fn all(runsc: &Path, gvisor: Option<&Path>) -> Vec<Runtime> {
        let with = |name: &str, program: OsString, flags: &[&str]| Runtime {
            name: name.to_owned(),
            argv: std::iter::once(program).chain(flags.iter().map(OsString::from)).collect(),
        };
        let mut all = vec![Runtime { name: "native".to_owned(), argv: Vec::new() }];
        for name in ["runc", "crun"] {
            let is_there =
                ["/usr/bin", "/usr/sbin"].iter().any(|dir| Path::new(dir).join(name).exists());
            if is_there {
                // crun gives up on machines with both versions of cgroups; they are not measured here.
                let flags: &[&str] =
                    if name == "crun" { &["--cgroup-manager=disabled"] } else { &[] };
                all.push(with(name, name.into(), flags));
            }
        }
        let flags = |platform: &str| {
            [platform.to_owned(), "--network=none".into(), "--ignore-cgroups".into()]
        };
        let mut sandboxes = Vec::new();
        if let Some(gvisor) = gvisor {
            sandboxes.push(("gvisor", gvisor, "--platform=systrap"));
        }
        sandboxes.push(("ours-systrap", runsc, "--platform=systrap"));
        sandboxes.push(("ours-ptrace", runsc, "--platform=ptrace"));
        for (name, program, platform) in sandboxes {
            let flags = flags(platform);
            all.push(with(name, program.into(), &flags.each_ref().map(String::as_str)));
        }
        all
    }

    /// Tells whether the program runs on the host itself.
    pub(crate) fn is_native(&self) -> bool {
        self.argv.is_empty()
    }

    /// Runs the guest program with arguments; returns what it printed, and why it failed if it did.
    pub(crate) fn run(
        &self,
        guest: &Path,
        rootfs: &Rootfs,
        words: &[&str],
        deadline: Duration,
    ) -> Result<String, (String, String)> {
        let program = self.program(guest, words).deadline(deadline);
        let output = if self.is_native() {
            program.run()
        } else {
            let state = TempDir::new();
            Bundle::new(rootfs, &program).run(self.command(&state), &program)
        };
        if output.end == End::Code(0) {
            Ok(output.text())
        } else {
            let why =
                format!("{:?} {}", output.end, String::from_utf8_lossy(&output.stderr).trim());
            Err((output.text(), why))
        }
    }

    /// Describes the guest program with arguments.
    pub(crate) fn program(&self, guest: &Path, words: &[&str]) -> Cmd {
        let path = if self.is_native() { guest } else { Path::new("/bin/bench-guest") };
        let words = words.iter().map(OsString::from);
        Cmd::new(std::iter::once(path.as_os_str().to_owned()).chain(words))
    }

    /// Returns the runtime's command up to `run`.
    pub(crate) fn command(&self, state: &TempDir) -> Vec<OsString> {
        let mut argv = self.argv.clone();
        argv.splice(1..1, ["--root".into(), state.path().into()]);
        argv.push("run".into());
        argv
    }
}

/// Makes the root file system that holds the guest program.
pub(crate) fn rootfs(guest: &Path) -> Rootfs {
    let rootfs = Rootfs::with_programs(&[]);
    if let Err(error) = std::fs::copy(guest, rootfs.path().join("bin/bench-guest")) {
        crate::report::fail(&format!("cannot copy {}: {error}", guest.display()));
    }
    rootfs
}
