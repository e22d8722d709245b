//! `runsc wait`.

use anyhow::Context as _;
use sentry::control::{ContainerStatus, Request, Response};

use crate::cli::{GlobalOptions, IdArgs};
use crate::container::Container;
use crate::sandbox::control_client::ControlClient;

/// Waits for a container to stop; prints its id and exit status as JSON, as gVisor's does.
pub(crate) fn run(global: &GlobalOptions, args: &IdArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    let status = wait(&container)?;
    let code = ContainerStatus::Stopped { wait_status: status }
        .exit_code()
        .context("the sentry answered before the container had stopped")?;
    super::print(&format!("{}\n", serde_json::json!({ "id": args.id, "exitStatus": code })))?;
    Ok(0)
}

/// Returns the container's wait status, as the sentry tells it or as the monitor has left it.
fn wait(container: &Container) -> anyhow::Result<u32> {
    if let Ok(mut control) = ControlClient::connect(container)
        && let Ok(Response::Status { status: ContainerStatus::Stopped { wait_status } }) =
            control.call(&Request::Wait)
    {
        return Ok(wait_status);
    }
    if let Some(monitor) = container.state.monitor {
        monitor.wait_for_end()?;
    }
    let id = &container.state.id;
    container.exit_status().with_context(|| format!("container {id} is not running"))
}
