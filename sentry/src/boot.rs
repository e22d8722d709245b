//! From the configuration to a running sandbox: open everything, lock down, serve.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sentry_host::filter::{self, Violation};
use sentry_host::startup;

use crate::config::{Config, Descriptors};
use crate::control::{ControlServer, ControlTarget, StartError};

/// Runs a sandbox to its end and returns the exit status for the process.
pub fn boot(config: Config, descriptors: Descriptors) -> i32 {
    startup::set_process_name(c"runsc-sandbox");
    match lock_down(&config) {
        Ok(()) => serve(descriptors.control, &Err(unfinished())),
        Err(error) => serve(descriptors.control, &Err(error)),
    }
}

/// Gives up, for good, every host call that the sentry does not need from here on.
fn lock_down(config: &Config) -> Result<(), StartError> {
    let failure = |step: &str, errno: ::syscalls::Errno| StartError {
        message: format!("locking down the sentry: {step}: {}", errno.text()),
        exit_code: 1,
    };
    startup::make_undumpable().map_err(|errno| failure("prctl", errno))?;
    let violation = if config.seccomp_log_only { Violation::Log } else { Violation::Kill };
    filter::install(&sentry_host::rules(), violation).map_err(|errno| failure("seccomp", errno))
}

fn serve(control: OwnedFd, target: &Result<Arc<dyn ControlTarget>, StartError>) -> i32 {
    match ControlServer::new(control) {
        Ok((server, _notifier)) => server.run(target),
        Err(_) => 1,
    }
}

fn unfinished() -> StartError {
    StartError { message: "the sentry cannot run programs yet".into(), exit_code: 1 }
}
