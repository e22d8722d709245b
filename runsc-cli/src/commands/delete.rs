//! `runsc delete`.

use anyhow::bail;

use crate::cli::{DeleteArgs, GlobalOptions};
use crate::container::{Container, Status};
use crate::hooks::{self, Point};
use crate::log;

/// Deletes containers; with `--force` also running ones, and no error where there is none.
pub(crate) fn run(global: &GlobalOptions, args: &DeleteArgs) -> anyhow::Result<i32> {
    let root = super::state_root(global);
    let mut failure = None;
    for id in &args.ids {
        if let Err(error) = delete(&root, id, args.force)
            && let Some(earlier) = failure.replace(error)
        {
            log::error(&format!("{earlier:#}"));
        }
    }
    failure.map_or(Ok(0), Err)
}

fn delete(root: &std::path::Path, id: &str, force: bool) -> anyhow::Result<()> {
    let container = if force {
        match Container::find_if_any(root, id)? {
            Some(container) => container,
            None => return Ok(()),
        }
    } else {
        Container::find(root, id)?
    };
    let check = |container: &Container, is_locked: bool| match container.status() {
        // Whoever waits for the monitor is to see how the container ended.
        Status::Stopped => container.state.monitor.map_or(Ok(()), |it| it.wait_for_end()),
        _ if force => Ok(()),
        // As runc: nobody has seen the program of such a container.
        Status::Created => Ok(()),
        // The lock that says so is this call's own.
        Status::Creating if is_locked && container.state.monitor.is_none() => Ok(()),
        other => bail!(
            "cannot delete container {id} that is not stopped: {} (see --force)",
            other.name()
        ),
    };
    // Without the lock first, which a creator may hold for long.
    check(&container, false)?;
    destroy_if(&container, |container| check(container, true))
}

/// Removes a container whatever its status is, and tells its hooks.
pub(super) fn destroy(container: &Container) -> anyhow::Result<()> {
    destroy_if(container, |_| Ok(()))
}

/// Removes a container for which `check` passes, and tells its hooks.
fn destroy_if(
    container: &Container,
    check: impl FnOnce(&Container) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if container.destroy_if(check)? {
        hooks::run_all(container, Point::Poststop, Status::Stopped);
    }
    Ok(())
}
