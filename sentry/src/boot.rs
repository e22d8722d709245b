//! From the configuration to a running sandbox: start the platform's first process, lock down,
//! create the container, serve.
//!
//! Architecture Invariant: nothing of the container (its files, its program) is looked at before
//! the seccomp filter stands.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ::syscalls::Errno;
use sentry_host::Rule;
use sentry_host::filter::{self, Violation};
use sentry_host::startup;
use sentry_platform::Platform;
use sentry_platform::ptrace::{self, Ptrace};
use sentry_platform::systrap::{self, Systrap};

use crate::config::{Config, Descriptors, PlatformKind};
use crate::control::{ControlServer, ControlTarget, StartError};

/// Runs a sandbox to its end and returns the exit status for the process.
pub fn boot(config: Config, descriptors: Descriptors) -> i32 {
    startup::set_process_name(c"runsc-sandbox");
    let prepared = start_platform(&config).and_then(|(platform, rules)| {
        lock_down(&config, &rules)?;
        Ok(platform)
    });
    let target = prepared.and_then(|_platform| Err(unfinished()));
    serve(descriptors.control, &target)
}

/// Starts the platform, which takes fork and exec, and returns it with the host calls that it
/// makes from then on.
fn start_platform(config: &Config) -> Result<(Arc<dyn Platform>, Vec<Rule>), StartError> {
    match config.platform {
        PlatformKind::Systrap => {
            let platform = Systrap::new(systrap::Options::default())
                .map_err(|errno| failure("starting systrap (see --platform)", errno))?;
            Ok((Arc::new(platform), systrap::rules()))
        }
        PlatformKind::Ptrace => {
            let platform = Ptrace::new().map_err(|errno| failure("starting ptrace", errno))?;
            Ok((Arc::new(platform), ptrace::rules()))
        }
    }
}

/// Gives up, for good, every host call that the sentry does not need from here on.
fn lock_down(config: &Config, platform_rules: &[Rule]) -> Result<(), StartError> {
    startup::make_undumpable().map_err(|errno| failure("locking down the sentry: prctl", errno))?;
    let violation = if config.seccomp_log_only { Violation::Log } else { Violation::Kill };
    let rules = [&sentry_host::rules(), platform_rules].concat();
    filter::install(&rules, violation)
        .map_err(|errno| failure("locking down the sentry: seccomp", errno))
}

fn serve(control: OwnedFd, target: &Result<Arc<dyn ControlTarget>, StartError>) -> i32 {
    match ControlServer::new(control) {
        Ok((server, _notifier)) => server.run(target),
        Err(_) => 1,
    }
}

fn failure(step: &str, errno: Errno) -> StartError {
    StartError { message: format!("{step}: {}", errno.text()), exit_code: 1 }
}

fn unfinished() -> StartError {
    StartError { message: "the sentry cannot run programs yet".into(), exit_code: 1 }
}
