//! `runsc update`.

use std::fs;
use std::io::{self, Read as _};

use anyhow::{Context as _, bail};
use sentry::control::Request;
use serde_json::{Value, json};

use super::create;
use crate::cgroup;
use crate::cli::{GlobalOptions, UpdateArgs};
use crate::container::{Container, Status};
use crate::log;

/// Changes the limits of a container.
pub(crate) fn run(global: &GlobalOptions, args: &UpdateArgs) -> anyhow::Result<i32> {
    let container = Container::find(&super::state_root(global), &args.id)?;
    if container.status() == Status::Stopped {
        bail!("container not running");
    }
    let text = match &args.resources {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text).context("--resources: reading standard input")?;
            text
        }
        Some(path) => {
            fs::read(path).with_context(|| format!("--resources: reading {}", path.display()))?
        }
        None => serde_json::to_vec(&of_flags(args))?,
    };
    let mut warnings = Vec::new();
    let limits = cgroup::parse_limits(&text, &mut warnings).context("--resources")?;
    for warning in warnings {
        log::warning(&format!("--resources: {warning}"));
    }
    match &container.state.cgroup {
        Some(cgroup) => cgroup.update(&limits)?,
        None => {
            log::warning("the container has no cgroup of its own: its limits are the guest's only");
        }
    }
    let request = Request::Limit { memory: limits.memory, tasks: limits.pids };
    create::expect_done(&container, &request)?;
    Ok(0)
}

/// Returns the flags in the form of the file.
fn of_flags(args: &UpdateArgs) -> Value {
    json!({
        "blockIO": { "weight": args.blkio_weight },
        "cpu": {
            "period": args.cpu_period,
            "quota": args.cpu_quota,
            "shares": args.cpu_share,
            "realtimePeriod": args.cpu_rt_period,
            "realtimeRuntime": args.cpu_rt_runtime,
            "cpus": args.cpuset_cpus,
            "mems": args.cpuset_mems,
        },
        "memory": {
            "limit": args.memory,
            "reservation": args.memory_reservation,
            "swap": args.memory_swap,
        },
        "pids": { "limit": args.pids_limit },
    })
}
