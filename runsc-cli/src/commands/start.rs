//! `runsc start`.

use anyhow::bail;
use sentry::control::Request;

use super::create;
use crate::cli::{GlobalOptions, IdArgs};
use crate::container::{Container, Status};

/// Lets the program of a created container run.
pub(crate) fn run(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    match container.status() {
        Status::Created => create::expect_done(&container, &Request::Start)?,
        Status::Running => bail!("cannot start a container that is running already: {}", args.id),
        other => bail!("cannot start a container that is {}: {}", other.name(), args.id),
    }
    Ok(0)
}
