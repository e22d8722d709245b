//! `runsc events`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sentry::control::{Request, Response};
use serde_json::{Value, json};

use crate::cgroup;
use crate::cli::{EventsArgs, GlobalOptions};
use crate::container::{Container, Status};
use crate::sandbox::control_client::ControlClient;

/// How often it is looked whether processes were killed for memory.
const OOM_INTERVAL: Duration = Duration::from_millis(250);

/// Prints statistics as lines of JSON, in runc's form, and an event whenever
/// processes were killed for memory, until the container stops.
pub(crate) fn run(global: &GlobalOptions, args: &EventsArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    if container.status() == Status::Stopped {
        bail!("container with id {} is not running", args.id);
    }
    let oom_kills = || container.state.cgroup.as_ref().and_then(cgroup::oom_kills);
    let mut known_kills = oom_kills();
    loop {
        let event = json!({ "type": "stats", "id": args.id, "data": data(&container)? });
        super::print(&format!("{event}\n"))?;
        if args.stats {
            return Ok(0);
        }
        let next = Instant::now() + args.interval;
        while let left @ 1.. = next.saturating_duration_since(Instant::now()).as_nanos() {
            let left = Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX));
            std::thread::sleep(left.min(OOM_INTERVAL));
            let kills = oom_kills();
            // The group goes with the container, and its counts with it.
            if kills.is_some() && kills > known_kills {
                super::print(&format!("{}\n", json!({ "type": "oom", "id": args.id })))?;
            }
            known_kills = kills.or(known_kills);
            if container.status() == Status::Stopped {
                return Ok(0);
            }
        }
    }
}

/// Returns what the host counts; without a group of the container's own, what the sentry does.
fn data(container: &Container) -> anyhow::Result<Value> {
    if let Some(cgroup) = &container.state.cgroup {
        return Ok(cgroup::stats(cgroup));
    }
    let mut control = ControlClient::connect(container).context("connecting to the sentry")?;
    let Response::Processes { processes } = control.call_promptly(&Request::Processes)? else {
        bail!("unexpected answer of the sentry");
    };
    let total: u64 = processes.iter().map(|process| process.cpu_time_ns).sum();
    let tasks: u32 = processes.iter().map(|process| process.n_threads).sum();
    Ok(json!({ "cpu": { "usage": { "total": total } }, "pids": { "current": tasks } }))
}
