//! A container in the sandbox of another one: what its monitor does instead of starting a sentry.
//!
//! The gofer is this container's own. The stubs are the sentry's, but in this container's control
//! groups: the sentry, which cannot fork any more, makes a process of which it will clone them, and
//! the monitor puts that into the groups. Whatever the sentry does for the container ends with the
//! connection over which it was created, and so with the monitor.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, bail};
use sentry::control::{Request, Response};

use super::control_client::ControlClient;
use super::monitor::{self, Surroundings};
use super::{Plan, jail, launch_gofer, stubs};
use crate::container::{Container, ProcessRef};
use crate::oom_score_adj;

/// The numbers at which such a monitor finds its descriptors, after three of `/dev/null`.
pub(super) mod monitor_fd {
    /// The connection on which the end of the container is told.
    pub(in crate::sandbox) const CONTROL: i32 = 3;
    pub(in crate::sandbox) const GOFER: i32 = 4;
    pub(in crate::sandbox) const STATE_DIR: i32 = 5;
}

/// In the monitor: creates the container in its sandbox, and becomes `runsc monitor`.
pub(super) fn watch_over(
    plan: &Plan,
    surroundings: &Surroundings,
    container: &mut Container,
    stdio: [BorrowedFd<'_>; 3],
    reports: BorrowedFd<'_>,
) -> anyhow::Result<Infallible> {
    let id = container.state.sandbox.clone().context("no sandbox")?;
    let sandbox = Container::find(container.root(), &id)?;
    let stopped = || format!("sandbox {id} is not running any more");
    let sentry = sandbox.state.sentry.with_context(stopped)?;
    let executable = sandbox.state.monitor.unwrap_or(sentry).open("exe").with_context(stopped)?;
    // Nothing of the container works without its gofer: where its memory runs out, the stubs go first.
    oom_score_adj::set_like(sentry.pid).context("setting oom_score_adj")?;
    let (gofer, sockets) = launch_gofer(plan, executable.as_fd(), |gofer| {
        container.set_processes(sentry.pid, gofer.pid)
    })?;
    let mut control = ControlClient::connect_unbuffered(container)
        .with_context(|| format!("connecting to the sentry of sandbox {id}"))?;
    prepare(plan, container, &sentry, &mut control)?;
    let config = Box::new(plan.config.container.clone());
    let mut fds: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    fds.extend(stdio);
    fds.extend(plan.preserved.iter().map(|fd| fd.as_fd()));
    control.send_with(&Request::Create { config, n_gofers: sockets.len() }, &fds)?;
    monitor::expect_done(control.receive()?)?;
    drop(sockets);
    control.send(&Request::Wait)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let state_dir = File::open(&container.dir).context("opening the state directory")?;
    monitor::settle(plan, surroundings, gofer.pidfd.as_fd(), reports)?;
    let fds = [
        null.as_fd(),
        null.as_fd(),
        null.as_fd(),
        control.as_fd(),
        gofer.pidfd.as_fd(),
        state_dir.as_fd(),
    ];
    let args = ["runsc-monitor", "monitor", "member", &container.state.id].map(str::to_owned);
    jail::exec(executable.as_fd(), reports, &fds, &args)
}

/// Has the sentry make the process of which the container's others will be clones, and puts it where
/// they belong.
fn prepare(
    plan: &Plan,
    container: &Container,
    sentry: &ProcessRef,
    control: &mut ControlClient,
) -> anyhow::Result<()> {
    let own_pid = match control.call(&Request::Prepare)? {
        Response::Prepared { host_pid } => host_pid,
        other => {
            monitor::expect_done(other)?;
            bail!("unexpected answer of the sentry")
        }
    };
    let pid = stubs::find(sentry.pid, own_pid)
        .context("the container's first host process was killed")?;
    if let Some(cgroup) = &container.state.cgroup {
        cgroup.add(pid)?;
    }
    let adj = plan.config.container.process.oom_score_adj;
    match oom_score_adj::set_of(pid, adj, sentry.pid) {
        // As for the monitor itself: managers ask for more than they may.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            Err(error).context("setting oom_score_adj")
        }
        _ => Ok(()),
    }
}
