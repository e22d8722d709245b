//! `runsc wait`.

use anyhow::{Context as _, bail};
use sentry::control::{Request, Response};

use crate::cli::{GlobalOptions, IdArgs};
use crate::container::Container;
use crate::sandbox::control_client::ControlClient;

/// Waits for a container to stop; prints its id and exit status as JSON, as gVisor's does.
pub(crate) fn run(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    let mut control = ControlClient::connect(&container.dir)
        .with_context(|| format!("container {} is not running", args.id))?;
    let Response::Status { status } = control.call(&Request::Wait)? else {
        bail!("unexpected answer of the sentry");
    };
    let code =
        status.exit_code().context("the sentry answered before the container had stopped")?;
    super::print(&format!("{}\n", serde_json::json!({ "id": args.id, "exitStatus": code })))?;
    Ok(0)
}
