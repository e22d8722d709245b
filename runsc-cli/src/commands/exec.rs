//! `runsc exec`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sentry::config::ProcessConfig;

use crate::cli::{ExecArgs, GlobalOptions};
use crate::container::{Container, Status};
use crate::sandbox::monitor::{self, Console, Execution};
use crate::{ExitError, log, spec, sys};

/// How long a terminal is held after the end of the program. CRI-O looks for no output any more when this
/// process has ended, be there some that it has not read; and nothing tells what has been read.
const LINGER: Duration = Duration::from_millis(20);

/// The exit status where there is no process whose status it could be: runc's.
const FAILURE: i32 = 255;

/// Starts a further process in a container; unless detached, waits for it and returns its exit
/// status.
pub(crate) fn run(global: &GlobalOptions, args: &ExecArgs) -> anyhow::Result<i32> {
    execute(global, args).map_err(|error| {
        ExitError { message: format!("exec failed: {error:#}"), code: FAILURE }.into()
    })
}

fn execute(global: &GlobalOptions, args: &ExecArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    match container.status() {
        Status::Created | Status::Running => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        Status::Creating | Status::Stopped => bail!("cannot exec in a stopped container"),
    }
    let (process, console_size) = process(args, &container)?;
    let socket = super::create::check_terminal(
        process.terminal,
        args.detach,
        args.console_socket.as_deref(),
    )?;
    let has_terminal = process.terminal;
    let execution = Execution {
        is_detached: args.detach,
        console: socket.map(|socket| Console {
            socket: socket.to_owned(),
            size: console_size,
            uid: process.uid,
            gid: process.gid,
        }),
        preserved: sys::inherited_descriptors(args.preserve_fds)
            .context("--preserve-fds: not that many descriptors")?,
        process,
    };
    if !args.detach {
        // Before there is anything to pass them on to.
        sys::block_signals().context("blocking signals")?;
    }
    let child = monitor::execute(&container, execution)?;
    let written = monitor::write_pid_file(child.pid, args.pid_file.as_deref());
    if let Err(error) = written {
        child.kill(libc::SIGKILL)?;
        child.wait()?;
        return Err(error);
    }
    if args.detach {
        return Ok(0);
    }
    let code = monitor::attend_child(&child)?;
    if has_terminal {
        std::thread::sleep(LINGER);
    }
    Ok(code)
}

/// Returns the process that the file of `--process` describes, or the container's own with what
/// the flags say, and the size of its terminal.
fn process(
    args: &ExecArgs,
    container: &Container,
) -> anyhow::Result<(ProcessConfig, Option<(u16, u16)>)> {
    let mut warnings = Vec::new();
    let (mut process, size) = match &args.process {
        Some(path) => {
            let text =
                fs::read(path).with_context(|| format!("--process: reading {}", path.display()))?;
            spec::process(&text, &mut warnings)
                .with_context(|| format!("--process: {}", path.display()))?
        }
        None => {
            let path = container.state.bundle.join(spec::CONFIG_FILE);
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            // What is wrong with the rest of the file has been said at `create`.
            spec::process_of_bundle(&text, &mut Vec::new())
                .with_context(|| path.display().to_string())?
        }
    };
    for warning in warnings {
        log::warning(&format!("--process: {warning}"));
    }
    if args.process.is_none() {
        if args.command.is_empty() {
            bail!("process args cannot be empty: give a command or --process");
        }
        process.args = args.command.iter().map(|arg| arg.clone().into_bytes()).collect();
        process.terminal = args.tty;
        apply_flags(args, &mut process)?;
    }
    Ok((process, size))
}

fn apply_flags(args: &ExecArgs, process: &mut ProcessConfig) -> anyhow::Result<()> {
    if let Some(cwd) = &args.cwd {
        if !Path::new(cwd).is_absolute() {
            bail!("--cwd: {cwd:?} is not absolute");
        }
        process.cwd.clone_from(cwd);
    }
    process.env.extend(args.env.iter().map(|variable| variable.clone().into_bytes()));
    process.additional_gids.extend(&args.additional_gids);
    process.no_new_privs |= args.no_new_privs;
    if let Some(user) = &args.user {
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (user.as_str(), None),
        };
        process.uid = uid.parse().with_context(|| format!("--user: {uid:?} is no user id"))?;
        if let Some(gid) = gid {
            process.gid = gid.parse().with_context(|| format!("--user: {gid:?} is no group id"))?;
        }
    }
    let added = spec::capabilities::parse(&args.cap, "--cap")?;
    let sets = &mut process.capabilities;
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        *set |= added;
    }
    Ok(())
}
