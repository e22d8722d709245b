//! `runsc create`.

use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use sentry::control::{Request, Response};

use crate::cli::{CreateArgs, GlobalOptions};
use crate::container::{Container, State};
use crate::sandbox::control_client::ControlClient;
use crate::sandbox::{self, Plan};
use crate::{ExitError, log, spec};

/// Creates a container whose program waits for `start`.
pub(crate) fn run(global: &GlobalOptions, args: &CreateArgs) -> anyhow::Result<i32> {
    let (plan, container) = prepare(global, args, false)?;
    launch_detached(&plan, container, args.pid_file.as_deref())?;
    Ok(0)
}

/// Reads the bundle and claims the id.
pub(super) fn prepare(
    global: &GlobalOptions,
    args: &CreateArgs,
    foreground: bool,
) -> anyhow::Result<(Plan, Container)> {
    if args.console_socket.is_some() {
        bail!("--console-socket is not supported yet: set process.terminal to false");
    }
    if global.systemd_cgroup {
        log::warning("--systemd-cgroup: cgroups are not supported yet");
    }
    let dir = args
        .bundle
        .canonicalize()
        .with_context(|| format!("--bundle: {}", args.bundle.display()))?;
    let bundle = spec::load(&dir, &args.id, global)?;
    for warning in &bundle.warnings {
        log::warning(&format!("config.json: {warning}"));
    }
    if bundle.container.process.terminal && !(foreground && std::io::stdin().is_terminal()) {
        bail!("process.terminal: standard input is not a terminal: set the field to false");
    }
    let state = State::new(&args.id, &dir, &bundle.rootfs, bundle.annotations);
    let container = Container::claim(&super::state_root(global), state)?;
    match spec::plan(global, bundle.container, bundle.gofer_mounts, &container.dir, foreground) {
        Ok(plan) => Ok((plan, container)),
        Err(error) => {
            container.destroy()?;
            Err(error)
        }
    }
}

/// Starts a sandbox that outlives this process and waits until its container is created.
pub(super) fn launch_detached(
    plan: &Plan,
    mut container: Container,
    pid_file: Option<&Path>,
) -> anyhow::Result<Container> {
    let result = sandbox::launch(plan, |sandbox| container.set_processes(sandbox)).and_then(|_| {
        container.is_created();
        expect_done(&container, &Request::Created)?;
        write_pid_file(&container, pid_file)
    });
    match result {
        Ok(()) => Ok(container),
        Err(error) => {
            container.destroy()?;
            Err(error)
        }
    }
}

/// Sends a request whose only good answer is `Done`.
pub(super) fn expect_done(container: &Container, request: &Request) -> anyhow::Result<()> {
    let mut control = ControlClient::connect(&container.dir).context("connecting to the sentry")?;
    match control.call(request)? {
        Response::Done => Ok(()),
        Response::Failed { message, .. } => Err(ExitError { message, code: 1 }.into()),
        other => bail!("unexpected answer of the sentry: {other:?}"),
    }
}

/// Writes the container's process id, atomically.
pub(super) fn write_pid_file(container: &Container, path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().context("--pid-file: not a file name")?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    fs::write(&temporary, container.pid().to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("--pid-file: writing {}", path.display()))
}
