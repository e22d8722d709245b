//! `runsc ps`.

use anyhow::{Context as _, bail};
use sentry::control::{ProcessInfo, Request, Response};

use crate::cli::{GlobalOptions, ListFormat, PsArgs};
use crate::container::Container;
use crate::sandbox::control_client::ControlClient;
use crate::sandbox::stubs;

/// Prints the processes of a container: as a table with the ids that they have inside, as JSON the
/// ids of the host's processes that stand for them, which managers look up and signal.
pub(crate) fn run(global: &GlobalOptions, args: &PsArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    let mut control = ControlClient::connect(&container)
        .with_context(|| format!("container {} is not running", args.id))?;
    let Response::Processes { processes } = control.call_promptly(&Request::Processes)? else {
        bail!("unexpected answer of the sentry");
    };
    let text = match args.format {
        ListFormat::Json => serde_json::to_string(&host_pids(&container, &processes))? + "\n",
        ListFormat::Table => table(&processes),
    };
    super::print(&text)?;
    Ok(0)
}

/// Returns the monitor's pid for the first process, and for the others those of the processes that
/// run their code. One that several share is there once.
fn host_pids(container: &Container, processes: &[ProcessInfo]) -> Vec<i32> {
    let sentry = container.state.sentry.map_or(0, |sentry| sentry.pid);
    let on_host = stubs::by_own_pid(sentry);
    let pids = processes.iter().filter_map(|process| match process.is_first {
        true => Some(container.pid()),
        false => on_host.get(&process.host_pid?).copied(),
    });
    let mut seen = Vec::new();
    for pid in pids {
        if !seen.contains(&pid) {
            seen.push(pid);
        }
    }
    seen
}

pub(super) fn table(processes: &[ProcessInfo]) -> String {
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
