//! `runsc monitor`: what a monitor process runs. Started by [`crate::sandbox::monitor`] only.

use std::env::Args;

use anyhow::bail;

use crate::sandbox::monitor;
use crate::sys;

/// Runs the monitor. Arguments: what it stands for, the container's id, and whether it listens for
/// the sandbox.
pub(crate) fn run(args: Args) -> anyhow::Result<i32> {
    sys::set_process_name(c"runsc-monitor");
    // What is left to do is to wait.
    sentry_host::text::release();
    let args: Vec<String> = args.collect();
    match &args[..] {
        [kind, id, doors] if kind == "container" => {
            match monitor::attend_container(id.clone(), doors == monitor::DOORS)? {}
        }
        [kind, id] if kind == "member" => match monitor::attend_member(id.clone())? {},
        [kind, id, doors] if kind == "sandbox" => {
            match monitor::attend_sandbox(id.clone(), doors == monitor::DOORS)? {}
        }
        [kind, id] if kind == "exec" => match monitor::attend_execution(id.clone())? {},
        _ => bail!("monitor is started by runsc itself"),
    }
}
