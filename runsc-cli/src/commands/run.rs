//! `runsc run`.

use sentry::control::Request;

use super::create;
use crate::cli::{GlobalOptions, RunArgs};
use crate::sandbox::foreground;

/// Creates and starts a container; unless detached, waits for it and returns its exit status.
pub(crate) fn run(global: &GlobalOptions, args: &RunArgs) -> anyhow::Result<i32> {
    let (plan, container) = create::prepare(global, &args.create, !args.detach)?;
    let pid_file = args.create.pid_file.as_deref();
    if !args.detach {
        return foreground::run(&plan, container, |container| {
            create::write_pid_file(container, pid_file)
        });
    }
    let container = create::launch_detached(&plan, container, pid_file)?;
    if let Err(error) = create::expect_done(&container, &Request::Start) {
        container.destroy()?;
        return Err(error);
    }
    Ok(0)
}
