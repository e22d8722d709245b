//! `runsc run`.

use anyhow::Context as _;

use super::{create, delete, start};
use crate::cli::{GlobalOptions, RunArgs};
use crate::sandbox::monitor;
use crate::sys;

/// Creates and starts a container; unless detached, waits for it and returns its exit status.
pub(crate) fn run(global: &GlobalOptions, args: &RunArgs) -> anyhow::Result<i32> {
    let prepared = create::prepare(global, &args.create, args.detach)?;
    if !args.detach {
        // Before there is anything to pass them on to.
        sys::block_signals().context("blocking signals")?;
    }
    let (container, monitor) = prepared.create(&args.create)?;
    let result = start::start(&container)
        .and_then(|()| if args.detach { Ok(0) } else { monitor::attend_child(&monitor) });
    if result.is_err() || !(args.detach || args.keep) {
        delete::destroy(&container)?;
    }
    result
}
