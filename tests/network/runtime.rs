//! Containers on a wire, under every runtime.

use std::ffi::OsString;

use test_harness::wire::{Running, Wire};
use test_harness::{Cmd, Platform, Rootfs, TempDir, mode};

/// What is tested, or shows how it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runc,
    Runsc(Platform),
}

impl Runtime {
    fn argv(self, state: &TempDir) -> Vec<OsString> {
        match self {
            Self::Runc => vec!["runc".into(), "--root".into(), state.path().into()],
            Self::Runsc(platform) => {
                let argv = mode::runsc_argv(platform, state);
                argv.into_iter().filter(|word| word != "--network=none").collect()
            }
        }
    }

    fn start(self, wire: &Wire, args: &[&str]) -> Running {
        let state = TempDir::new();
        let config = wire.config(&Rootfs::services(), &Cmd::new(args));
        wire.start(self.argv(&state), state, &config)
    }

    /// Starts a container of that name among those of a state directory.
    pub(crate) fn start_as(self, wire: &Wire, args: &[&str], state: &TempDir, id: &str) -> Running {
        let config = wire.config(&Rootfs::services(), &Cmd::new(args));
        wire.start_as(self.argv(state), id, &config)
    }

    /// Starts a container and waits until it says that it is ready.
    pub(crate) fn container(self, wire: &Wire, args: &[&str]) -> Running {
        self.start(wire, args).ready()
    }

    /// Runs a container to its end; returns what it prints.
    pub(crate) fn run(self, wire: &Wire, args: &[&str]) -> String {
        self.start(wire, args).all()
    }

    /// Runs a container in the network of this process.
    pub(crate) fn run_shared(self, wire: &Wire, program: &Cmd) -> String {
        let mut config = test_harness::bundle::config(&Rootfs::services(), program);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "network");
        let state = TempDir::new();
        wire.start(self.argv(&state), state, &config).all()
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
