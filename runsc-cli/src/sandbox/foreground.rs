//! Running a sandbox without a monitor, for `runsc do`: signals are passed on, the exit status
//! comes back.

use std::io;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use sentry::control::{Request, Response};

use super::control_client::ControlClient;
use super::{Plan, Sandbox};
use crate::container::Container;
use crate::sys::{self, ExitStatus};
use crate::{ExitError, log};

/// Starts a sandbox, starts the program, waits for it and removes the container. Returns the exit
/// status.
pub(crate) fn run(plan: &Plan, mut container: Container) -> anyhow::Result<i32> {
    let result = run_until_exit(plan, &mut container);
    let removed = container.destroy();
    let code = result?;
    removed?;
    Ok(code)
}

fn run_until_exit(plan: &Plan, container: &mut Container) -> anyhow::Result<i32> {
    sys::block_signals().context("blocking signals")?;
    let signals = sys::signal_descriptor().context("creating a signal descriptor")?;
    let stdio = (io::stdin(), io::stdout(), io::stderr());
    let stdio = [stdio.0.as_fd(), stdio.1.as_fd(), stdio.2.as_fd()];
    let sandbox = super::launch(plan, stdio, |sandbox| {
        container.set_processes(sandbox.sentry.pid, sandbox.gofer.pid)
    })?;
    container.is_created();
    let result = start(container).and_then(|control| attend(&sandbox, control, signals.as_fd()));
    match result {
        Ok(()) => exit_status(sandbox.wait()?),
        Err(error) => match sandbox.kill() {
            // What ended it says more than that it does not answer.
            Some(status @ ExitStatus::Signaled(signo))
                if signo != libc::SIGKILL && !error.is::<ExitError>() =>
            {
                exit_status(status)
            }
            _ => Err(error),
        },
    }
}

fn start(container: &Container) -> anyhow::Result<ControlClient> {
    let mut control =
        ControlClient::connect_unbuffered(container).context("connecting to the sentry")?;
    control.send(&Request::Start)?;
    Ok(control)
}

/// Passes signals on until the sentry ends.
fn attend(
    sandbox: &Sandbox,
    mut control: ControlClient,
    signals: std::os::fd::BorrowedFd<'_>,
) -> anyhow::Result<()> {
    let mut started = false;
    let mut control_open = true;
    loop {
        let mut fds = vec![sandbox.sentry.pidfd.as_fd(), signals];
        if control_open {
            fds.push(control.as_fd());
        }
        let ready = sys::poll(&fds, None).context("waiting for the sentry")?;
        if ready.get(2) == Some(&true) {
            match control.receive() {
                Ok(Response::Failed { message, exit_code }) if !started => {
                    return Err(ExitError { message, code: exit_code }.into());
                }
                Ok(_) => started = true,
                // How it ended is in its exit status.
                Err(_) => control_open = false,
            }
        }
        if ready.get(1) == Some(&true) {
            let signo = sys::read_signal(signals).context("reading a signal")?;
            if let Some(request) = forwarded(signo) {
                if !started {
                    if matches!(signo, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
                    {
                        sandbox.sentry.kill(libc::SIGKILL)?;
                    }
                } else if let Err(error) = control.send(&request) {
                    log::debug(&format!("signal {signo} came too late: {error:#}"));
                }
            }
        }
        if ready.first() == Some(&true) {
            return Ok(());
        }
    }
}

/// Returns what a signal to this process asks of the sentry, if anything.
pub(super) fn forwarded(signo: i32) -> Option<Request> {
    match signo {
        // Ours; and a pipe or a timer of ours is none of the container's business.
        libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU => None,
        // Those that a terminal sends to its foreground process group.
        libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGWINCH => {
            Some(Request::ForegroundSignal { signo })
        }
        _ => Some(Request::Signal { signo, all: false }),
    }
}

fn exit_status(status: ExitStatus) -> anyhow::Result<i32> {
    match status {
        ExitStatus::Exited(code) => Ok(code),
        ExitStatus::Signaled(signo) => {
            let hint = if signo == libc::SIGSYS {
                ": it made a host call that its seccomp filter forbids"
            } else {
                ""
            };
            let message =
                format!("the sentry was killed by signal {signo}{hint} (see --debug-log)");
            Err(ExitError { message, code: 128 + signo }.into())
        }
    }
}
