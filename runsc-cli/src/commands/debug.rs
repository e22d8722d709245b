//! `runsc debug`.

use std::fs;

use anyhow::{Context as _, bail};
use sentry::control::{Request, Response, ThreadInfo};

use super::ps;
use crate::cli::{DebugArgs, GlobalOptions};
use crate::container::Container;
use crate::sandbox::control_client::ControlClient;

/// Prints what a sandbox is doing.
pub(crate) fn run(global: &GlobalOptions, args: &DebugArgs) -> anyhow::Result<i32> {
    if !args.stacks && !args.ps && !args.unsupported {
        bail!("nothing to print: give --stacks, --ps or --unsupported");
    }
    let container = Container::find(&super::state_root(global), &args.id)?;
    let connect = || {
        ControlClient::connect(&container)
            .with_context(|| format!("container {} is not running", args.id))
    };
    let mut text = String::new();
    if args.ps {
        let Response::Processes { processes } = connect()?.call_promptly(&Request::Processes)?
        else {
            bail!("unexpected answer of the sentry");
        };
        text += &ps::table(&processes);
    }
    if args.unsupported {
        let answer = connect()?.call_promptly(&Request::Unsupported)?;
        let Response::Unsupported { counts } = answer else {
            bail!("unexpected answer of the sentry");
        };
        let header = ["UNSUPPORTED", "COUNT"].map(str::to_owned).to_vec();
        let rows = counts.into_iter().map(|(what, count)| vec![what, count.to_string()]);
        text += &super::align(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
    }
    if args.stacks {
        // First the sentry itself: it can be looked at where it does not answer.
        if let Some(sentry) = container.state.sentry {
            text += &host_threads(sentry.pid);
        }
        super::print(&text)?;
        let Response::Threads { threads } = connect()?.call_promptly(&Request::Threads)? else {
            bail!("unexpected answer of the sentry");
        };
        text = guest_threads(&threads);
    }
    super::print(&text)?;
    Ok(0)
}

fn guest_threads(threads: &[ThreadInfo]) -> String {
    let header = ["PID", "TID", "STATE", "CMD", "CALL"].map(str::to_owned).to_vec();
    let row = |thread: &ThreadInfo| {
        vec![
            thread.pid.to_string(),
            thread.tid.to_string(),
            thread.state.to_string(),
            thread.command.clone(),
            thread.call.clone().unwrap_or_default(),
        ]
    };
    super::align(&std::iter::once(header).chain(threads.iter().map(row)).collect::<Vec<_>>())
}

/// Returns what the host knows of the threads of a process.
fn host_threads(pid: i32) -> String {
    let mut rows = vec![["SENTRY", "STATE", "NAME", "WAITS IN"].map(str::to_owned).to_vec()];
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        // What ends meanwhile, or may not be read, is left blank.
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.get(..1)).unwrap_or_default();
        rows.push(vec![
            task.file_name().to_string_lossy().into_owned(),
            state.to_owned(),
            read("comm").trim_end().to_owned(),
            read("wchan"),
        ]);
    }
    super::align(&rows)
}
