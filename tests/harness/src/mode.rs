//! Where a program runs: natively, in a sandbox, or under runc.

use std::ffi::OsString;
use std::fmt;

use crate::bundle::{Bundle, Rootfs};
use crate::cmd::{self, Cmd, Output};
use crate::locate;
use crate::temp_dir::TempDir;

/// How the sandbox runs application code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Seccomp traps; the default.
    Systrap,
    /// The same without notifications: stubs ring by messages and sleep on futexes.
    SystrapFutex,
    /// The same without a fast path: the sentry answers every call.
    SystrapSlow,
    /// The portable fallback.
    Ptrace,
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// On the host.
    Native,
    /// `runsc do`: on the host's root file system below an overlay.
    Do(Platform),
    /// `runsc do` with the host's network passed through.
    DoHost(Platform),
    /// `runsc run` of an OCI bundle.
    Bundle(Platform),
    /// The same on the host's own files, without an overlay above them.
    BundleOnHost(Platform),
    /// `runc run` of the same OCI bundle.
    Runc,
}

impl Platform {
    /// Returns the name in lists and of files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Platform::Systrap => "systrap",
            Platform::SystrapFutex => "systrap-futex",
            Platform::SystrapSlow => "systrap-slow",
            Platform::Ptrace => "ptrace",
        }
    }

    /// Returns the flags of the command line.
    #[must_use]
    fn flags(self) -> &'static [&'static str] {
        match self {
            Platform::Systrap => &["--platform=systrap"],
            Platform::SystrapFutex => &["--platform=systrap", "--doorbell=futex"],
            Platform::SystrapSlow => &["--platform=systrap", "--fast-path=off"],
            Platform::Ptrace => &["--platform=ptrace"],
        }
    }

    /// Tells whether this run covers the platform (`TEST_PLATFORMS`).
    #[must_use]
    pub fn is_wanted(self) -> bool {
        std::env::var("TEST_PLATFORMS")
            .map_or(true, |wanted| wanted.split(',').any(|name| name == self.name()))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Native => f.write_str("native"),
            Mode::Do(platform) => write!(f, "do-{}", platform.name()),
            Mode::DoHost(platform) => write!(f, "host-network-{}", platform.name()),
            Mode::Bundle(platform) => write!(f, "bundle-{}", platform.name()),
            Mode::BundleOnHost(platform) => write!(f, "bundle-on-host-{}", platform.name()),
            Mode::Runc => f.write_str("runc"),
        }
    }
}

impl Mode {
    /// Returns the platform, if the program runs on one.
    #[must_use]
    pub fn platform(self) -> Option<Platform> {
        match self {
            Mode::Do(platform)
            | Mode::DoHost(platform)
            | Mode::Bundle(platform)
            | Mode::BundleOnHost(platform) => Some(platform),
            Mode::Native | Mode::Runc => None,
        }
    }

    /// Runs a program here. `rootfs` is the container's root file system where the mode has one.
    #[must_use]
    #[track_caller]
    pub fn run(self, program: &Cmd, rootfs: &Rootfs) -> Output {
        match self {
            Mode::Native => program.run(),
            Mode::Do(platform) | Mode::DoHost(platform) => {
                let state = TempDir::new();
                let mut argv = runsc_argv(platform, &state);
                if matches!(self, Mode::DoHost(_)) {
                    argv.retain(|word| word != "--network=none");
                    argv.push("--network=host".into());
                }
                argv.push("do".into());
                if !matches!(rootfs, Rootfs::Host) {
                    argv.extend(["--root".into(), rootfs.path().into()]);
                    let cwd = program.dir().map_or("/".into(), |dir| dir.into());
                    argv.extend(["--cwd".into(), cwd]);
                }
                argv.extend_from_slice(program.argv());
                program.with_argv(argv).run()
            }
            Mode::Bundle(platform) | Mode::BundleOnHost(platform) => {
                let state = TempDir::new();
                let mut argv = runsc_argv(platform, &state);
                if matches!(self, Mode::BundleOnHost(_)) {
                    argv.push("--overlay2=none".into());
                }
                argv.push("run".into());
                Bundle::new(rootfs, program).run(argv, program)
            }
            Mode::Runc => {
                let state = TempDir::new();
                let argv = vec!["runc".into(), "--root".into(), state.path().into(), "run".into()];
                let output = Bundle::new(rootfs, program).run(argv, program);
                let stderr = match String::from_utf8(output.stderr) {
                    Ok(text) => cmd::without_retries_of_runc(&text).into_bytes(),
                    Err(error) => error.into_bytes(),
                };
                Output { stderr, ..output }
            }
        }
    }
}

/// Returns `runsc` and the global flags that every test uses.
#[must_use]
pub fn runsc_argv(platform: Platform, state: &TempDir) -> Vec<OsString> {
    let mut argv: Vec<OsString> =
        vec![locate::runsc().into(), "--root".into(), state.path().into()];
    let flags = platform.flags().iter().chain(&["--network=none", "--ignore-cgroups"]);
    argv.extend(flags.map(OsString::from));
    argv
}
