//! `runsc ps`.

use anyhow::{Context as _, bail};
use sentry::control::{ProcessInfo, Request, Response};

use crate::cli::{GlobalOptions, ListFormat, PsArgs};
use crate::container::Container;
use crate::sandbox::control_client::ControlClient;

/// Prints the processes of a container, with the ids that they have inside.
pub(crate) fn run(global: &GlobalOptions, args: &PsArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    let mut control = ControlClient::connect(&container.dir)
        .with_context(|| format!("container {} is not running", args.id))?;
    let Response::Processes { processes } = control.call_promptly(&Request::Processes)? else {
        bail!("unexpected answer of the sentry");
    };
    let text = match args.format {
        ListFormat::Json => {
            let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
            serde_json::to_string(&pids)? + "\n"
        }
        ListFormat::Table => table(&processes),
    };
    super::print(&text)?;
    Ok(0)
}

fn table(processes: &[ProcessInfo]) -> String {
    let header = ["UID", "PID", "PPID", "THREADS", "TIME", "CMD"].map(str::to_owned).to_vec();
    let row = |process: &ProcessInfo| {
        let seconds = process.cpu_time_ns / 1_000_000_000;
        vec![
            process.uid.to_string(),
            process.pid.to_string(),
            process.ppid.to_string(),
            process.n_threads.to_string(),
            format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
            process.command.clone(),
        ]
    };
    super::align(&std::iter::once(header).chain(processes.iter().map(row)).collect::<Vec<_>>())
}
