//! `runsc start`.

use std::os::fd::AsFd;

use anyhow::{Context as _, bail};
use sentry::config::NetworkMode;
use sentry::control::Request;

use super::create;
use crate::cli::{GlobalOptions, IdArgs};
use crate::container::{Container, Status};
use crate::hooks::{self, Point};
use crate::sandbox::control_client::ControlClient;
use crate::sandbox::monitor;
use crate::sandbox::network::{self, Network};

/// Lets the program of a created container run.
pub(crate) fn run(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    check_status(&container)?;
    start(&container)?;
    Ok(0)
}

fn check_status(container: &Container) -> anyhow::Result<()> {
    match container.status() {
        Status::Created => Ok(()),
        // In runc's words.
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Creating => bail!("cannot start a container that is still being created"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
    }
}

/// Gives the sandbox the interfaces that are in the container's network namespace by now: managers put
/// them there as late as this.
fn connect_network(container: &Container) -> anyhow::Result<()> {
    let Some(monitor) = container.state.monitor else { return Ok(()) };
    // That of a pod comes with its first container.
    if container.state.network != NetworkMode::Sandbox || container.state.sandbox.is_some() {
        return Ok(());
    }
    let Some(Network { config, sockets }) = network::take_over(monitor.pid)? else { return Ok(()) };
    if config.interfaces.is_empty() {
        return Ok(());
    }
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut control = ControlClient::connect(container).context("connecting to the sentry")?;
    control.send_with(&Request::Network { network: config }, &sockets)?;
    monitor::expect_done(control.receive()?)
}

/// Lets the program of a created container run, between the hooks before and after.
pub(super) fn start(container: &Container) -> anyhow::Result<()> {
    hooks::run(container, Point::StartContainer, Status::Created)?;
    {
        // The hooks take their time, and may themselves ask for a lock.
        let Some(_lock) = container.lock()? else {
            bail!("cannot start a container that has stopped")
        };
        check_status(container)?;
        connect_network(container)?;
        create::expect_done(container, &Request::Start)?;
    }
    hooks::run_all(container, Point::Poststart, Status::Running);
    Ok(())
}
