//! Hooks: programs that the specification names and that run at given points of a container's life.
//!
//! `prestart`, `createRuntime` and `createContainer` run before the sandbox starts, so that what
//! they mount below the root file system is there; the last in the container's network namespace,
//! the only one of its own that a host process can be in. `startContainer` runs in the container.
//! A failure of these four ends the container, one of `poststart` and `poststop` is a warning.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sentry::config::{Capabilities, ProcessConfig};
use sentry::control::{ContainerStatus, Request, Response};
use serde::{Deserialize, Serialize};

use crate::container::{Container, Status};
use crate::sandbox::control_client::ControlClient;
use crate::{log, sys};

/// How much of a hook's output is shown.
const MAX_OUTPUT: usize = 4096;

/// The points of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// One program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hook {
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    /// That of `runsc` where there is none.
    pub(crate) env: Option<Vec<String>>,
    /// Seconds.
    pub(crate) timeout: Option<u64>,
}

/// The hooks of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hooks {
    pub(crate) lists: BTreeMap<Point, Vec<Hook>>,
    /// The capabilities of hooks inside the container.
    pub(crate) capabilities: u64,
}

impl Point {
    pub(crate) const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Returns the name in config.json.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// Runs the hooks of one point in order, up to the first that fails.
pub(crate) fn run(container: &Container, point: Point, status: Status) -> anyhow::Result<()> {
    let Some(hooks) = container.state.hooks.lists.get(&point) else { return Ok(()) };
    let state = state(container, status)?;
    for (index, hook) in hooks.iter().enumerate() {
        let result = match point {
            Point::StartContainer => {
                run_inside(container, hook, container.state.hooks.capabilities, &state)
            }
            _ => run_outside(hook, &container.state.bundle, &state),
        };
        result.with_context(|| format!("error running {} hook #{index}", point.name()))?;
    }
    Ok(())
}

/// Runs the hooks of a point at which a failure changes nothing: every one of them, with a warning
/// where it fails.
pub(crate) fn run_all(container: &Container, point: Point, status: Status) {
    let Some(hooks) = container.state.hooks.lists.get(&point) else { return };
    for (index, hook) in hooks.iter().enumerate() {
        let result = state(container, status)
            .and_then(|state| run_outside(hook, &container.state.bundle, &state));
        if let Err(error) = result {
            log::warning(&format!("error running {} hook #{index}: {error:#}", point.name()));
        }
    }
}

/// Returns what a hook finds on its standard input.
fn state(container: &Container, status: Status) -> anyhow::Result<Vec<u8>> {
    let state = crate::commands::state::for_hooks(container, status);
    serde_json::to_vec(&state).context("writing the state")
}

fn run_outside(hook: &Hook, bundle: &Path, state: &[u8]) -> anyhow::Result<()> {
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    if let Some(env) = &hook.env {
        command.env_clear();
        command.envs(env.iter().filter_map(|variable| variable.split_once('=')));
    }
    command.current_dir(bundle).stdin(state_file(state)?);
    // To files: a pipe would have to be read meanwhile, and may stay open in whoever the hook
    // leaves behind.
    let output = [sys::memfd(c"stdout", false)?, sys::memfd(c"stderr", false)?];
    command.stdout(output[0].try_clone()?).stderr(output[1].try_clone()?);
    let mut child = command.spawn().with_context(|| hook.path.clone())?;
    let pid = i32::try_from(child.id()).context("process id")?;
    let pidfd = sys::pidfd_open(pid).context("opening a pidfd")?;
    if !sys::poll(&[pidfd.as_fd()], hook.timeout.map(Duration::from_secs))?.contains(&true) {
        child.kill()?;
        child.wait()?;
        bail!("hook ran past specified timeout of {}s", hook.timeout.unwrap_or_default());
    }
    let status = child.wait().context("waiting for the hook")?;
    if !status.success() {
        let [stdout, stderr] = output.map(|file| text_of(file.into()));
        let status = match status.code() {
            Some(code) => format!("exit status {code}"),
            None => format!("signal {}", status.signal().unwrap_or_default()),
        };
        bail!("{status}, stdout: {stdout}, stderr: {stderr}");
    }
    Ok(())
}

/// Returns the standard input of a hook. Not a pipe: a hook need not read it, and nobody is to wait
/// for one that does not.
fn state_file(state: &[u8]) -> anyhow::Result<File> {
    use io::Seek as _;
    let mut file = File::from(sys::memfd(c"state", false)?);
    file.write_all(state).and_then(|()| file.rewind()).context("writing the state")?;
    sys::seal(file.as_fd()).context("writing the state")?;
    Ok(file)
}

fn text_of(mut file: File) -> String {
    use io::Seek as _;
    let mut text = Vec::new();
    // An unreadable message is none.
    let _ = file.rewind();
    let _ = file.take(MAX_OUTPUT as u64).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// Runs a hook as a process of the created container.
fn run_inside(
    container: &Container,
    hook: &Hook,
    capabilities: u64,
    state: &[u8],
) -> anyhow::Result<()> {
    let bytes = |strings: &[String]| {
        strings.iter().map(|string| string.clone().into_bytes()).collect::<Vec<_>>()
    };
    let mut args = bytes(&hook.args);
    // The path is what is executed, whatever the program is told that its name is.
    match args.first_mut() {
        Some(name) => *name = hook.path.clone().into_bytes(),
        None => args.push(hook.path.clone().into_bytes()),
    }
    let process = ProcessConfig {
        args,
        env: bytes(hook.env.as_deref().unwrap_or_default()),
        cwd: "/".into(),
        umask: 0o022,
        capabilities: Capabilities {
            bounding: capabilities,
            effective: capabilities,
            permitted: capabilities,
            ..Capabilities::default()
        },
        ..ProcessConfig::default()
    };
    let stdin = state_file(state)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut control =
        ControlClient::connect_unbuffered(container).context("connecting to the sentry")?;
    let request = Request::Execute { process: Box::new(process) };
    control.send_with(&request, &[stdin.as_fd(), null.as_fd(), null.as_fd()])?;
    match control.receive()? {
        Response::Executed { .. } => {}
        Response::Failed { message, .. } => bail!("{message}"),
        other => bail!("unexpected answer of the sentry: {other:?}"),
    }
    let deadline = hook.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if !sys::poll(&[control.as_fd()], left)?.contains(&true) {
        // The process ends with the connection.
        bail!("hook ran past specified timeout of {}s", hook.timeout.unwrap_or_default());
    }
    match control.receive()? {
        Response::Status { status: ContainerStatus::Stopped { wait_status: 0 } } => Ok(()),
        Response::Status { status } => {
            bail!("exit status {}", status.exit_code().unwrap_or_default())
        }
        other => bail!("unexpected answer of the sentry: {other:?}"),
    }
}
