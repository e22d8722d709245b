//! `runsc boot`: what a sentry process runs. Started by [`crate::sandbox::launch`] only.

use std::env::Args;
use std::fs::File;

use anyhow::Context as _;
use sentry::config::{Config, Descriptors};

use crate::sandbox::sentry_fd;
use crate::sys;

/// Runs the sentry. Arguments: the container's id, the number of gofer connections, whether there
/// is a log, the number of descriptors handed down.
pub(crate) fn run(args: Args) -> anyhow::Result<i32> {
    let args: Vec<String> = args.collect();
    let [_id, gofers, log, preserved] = &args[..] else {
        anyhow::bail!("boot is started by runsc itself")
    };
    let config =
        File::from(sys::take_descriptor(sentry_fd::CONFIG).context("taking the configuration")?);
    let log_fd = sys::take_descriptor(sentry_fd::LOG).context("taking the log")?;
    let n_gofers: i32 = gofers.parse().context("reading the number of gofer connections")?;
    let n_preserved: i32 = preserved.parse().context("reading the number of descriptors")?;
    let take = |number| {
        sys::take_descriptor(number).with_context(|| format!("taking descriptor {number}"))
    };
    let descriptors = Descriptors {
        stdio: [take(0)?, take(1)?, take(2)?],
        gofer: (0..n_gofers)
            .map(|index| take(sentry_fd::FIRST_GOFER + index))
            .collect::<Result<_, _>>()?,
        preserved: (0..n_preserved)
            .map(|index| take(sentry_fd::FIRST_GOFER + n_gofers + index))
            .collect::<Result<_, _>>()?,
        control: take(sentry_fd::CONTROL)?,
        log: (log == "log").then_some(log_fd),
        proc_self_fd: take(sentry_fd::PROC_SELF_FD)?,
        oom_score_adj: take(sentry_fd::OOM_SCORE_ADJ)?,
        proc: take(sentry_fd::PROC)?,
    };
    Ok(sentry::boot(read_config(config)?, descriptors))
}

/// Reads the configuration from its start, wherever the writer has left the position, and closes it.
fn read_config(file: File) -> anyhow::Result<Config> {
    use std::os::unix::fs::FileExt as _;
    let len = usize::try_from(file.metadata()?.len())?;
    let mut text = vec![0; len];
    file.read_exact_at(&mut text, 0).context("reading the configuration")?;
    drop(file);
    serde_json::from_slice(&text).context("reading the configuration")
}
