//! `runsc start`.

use anyhow::bail;
use sentry::control::Request;

use super::create;
use crate::cli::{GlobalOptions, IdArgs};
use crate::container::{Container, Status};
use crate::hooks::{self, Point};

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

/// Lets the program of a created container run, between the hooks before and after.
pub(super) fn start(container: &Container) -> anyhow::Result<()> {
    hooks::run(container, Point::StartContainer, Status::Created)?;
    {
        // The hooks take their time, and may themselves ask for a lock.
        let Some(_lock) = container.lock()? else {
            bail!("cannot start a container that has stopped")
        };
        check_status(container)?;
        create::expect_done(container, &Request::Start)?;
    }
    hooks::run_all(container, Point::Poststart, Status::Running);
    Ok(())
}
