//! `runsc pause` and `runsc resume`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sentry::control::{ContainerStatus, Request, Response};

use super::create;
use crate::cli::{GlobalOptions, IdArgs};
use crate::container::{Container, Status};
use crate::sandbox::control_client::ControlClient;

/// How long the processes of a container may take to stop.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps every process of a container from running; returns when none does.
pub(crate) fn pause(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    match container.status() {
        Status::Running | Status::Created => {}
        // In runc's words.
        _ => bail!("container not running"),
    }
    let mut control = ControlClient::connect(&container).context("connecting to the sentry")?;
    let started = Instant::now();
    loop {
        match control.call_promptly(&Request::Pause)? {
            Response::Status { status: ContainerStatus::Paused } => return Ok(0),
            Response::Status { status: ContainerStatus::Stopped { .. } } => {
                bail!("container not running")
            }
            _ if started.elapsed() > TIMEOUT => {
                create::expect_done(&container, &Request::Resume)?;
                bail!("the container's processes do not stop");
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Ends a pause.
pub(crate) fn resume(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    if container.status() != Status::Paused {
        bail!("container not paused");
    }
    create::expect_done(&container, &Request::Resume)?;
    Ok(0)
}
