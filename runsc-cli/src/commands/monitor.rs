//! `runsc monitor`: what a monitor process runs. Started by [`crate::sandbox::monitor`] only.

use std::env::Args;

use anyhow::bail;

use crate::sandbox::monitor;
use crate::sys;

/// Runs the monitor. Arguments: what it stands for, the container's id.
pub(crate) fn run(args: Args) -> anyhow::Result<i32> {
    sys::set_process_name(c"runsc-monitor");
    let args: Vec<String> = args.collect();
    match args.first().map(String::as_str) {
        Some("container") => monitor::attend_container().map(|never| match never {}),
        Some("exec") => monitor::attend_execution().map(|never| match never {}),
        _ => bail!("monitor is started by runsc itself"),
    }
}
