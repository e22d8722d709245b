//! `runsc start`.

use std::os::fd::AsFd;

use anyhow::{Context as _, bail};
use sentry::config::NetworkMode;
use sentry::control::Request;

use super::create;
use crate::cli::{GlobalOptions, IdArgs};
use crate::container::{Container, Status};
use crate::hooks::{self, Point};
use crate::log;
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

/// Gives the sandbox the interfaces that are in its network namespace by now: managers put them there
/// as late as this.
fn connect_network(container: &Container) -> anyhow::Result<()> {
    let Some(sandbox) = &container.state.sandbox else {
        return take_over_network(container).map(drop);
    };
    // That of a pod comes with its first container, or with the first of those that hold it.
    let mut sandbox = Container::find(container.root(), sandbox)?;
    if !sandbox.state.is_held {
        return Ok(());
    }
    let Some(_lock) = sandbox.lock()? else { bail!("sandbox is gone: {}", sandbox.state.id) };
    sandbox.reload()?;
    if !sandbox.state.has_network && take_over_network(&sandbox)? {
        sandbox.set_connected()?;
    }
    Ok(())
}

/// Gives a sandbox the interfaces of its monitor's network namespace. Returns whether there are any.
fn take_over_network(sandbox: &Container) -> anyhow::Result<bool> {
    let Some(monitor) = sandbox.state.monitor else { return Ok(false) };
    if sandbox.state.network != NetworkMode::Sandbox {
        return Ok(false);
    }
    let Some(Network { config, sockets }) = network::take_over(sandbox, monitor.pid)? else {
        return Ok(false);
    };
    if config.interfaces.is_empty() {
        return Ok(false);
    }
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let hand_over = || {
        let mut control = ControlClient::connect(sandbox).context("connecting to the sentry")?;
        control.send_with(&Request::Network { network: config }, &sockets)?;
        monitor::expect_done(control.receive()?)
    };
    hand_over().inspect_err(|_| {
        if let Err(error) = network::give_back(sandbox) {
            log::warning(&format!("{error:#}"));
        }
    })?;
    Ok(true)
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
