//! `runsc gofer`: what a gofer process runs. Started by [`crate::sandbox::launch`] only.

use std::env::Args;

use anyhow::Context as _;
use gofer::{Config, MountConfig, MountOptions};

use crate::sandbox::gofer_fd;
use crate::sys;

/// Runs the gofer. Arguments: the container's id, then the options of each connection in the form
/// of [`crate::sandbox::GoferMount::to_argument`].
pub(crate) fn run(args: Args) -> anyhow::Result<i32> {
    sys::set_process_name(c"runsc-gofer");
    let proc_self_fd =
        sys::take_descriptor(gofer_fd::PROC_SELF_FD).context("gofer is started by runsc itself")?;
    let mut mounts = Vec::new();
    for (number, options) in (gofer_fd::FIRST_MOUNT..).step_by(2).zip(args.skip(1)) {
        mounts.push(MountConfig {
            socket: sys::take_descriptor(number).context("taking a socket")?,
            root: sys::take_descriptor(number + 1).context("taking the root of a mount")?,
            options: MountOptions {
                readonly: options.contains('r'),
                connect_unix_sockets: options.contains('u'),
                bind_unix_sockets: options.contains('u') && !options.contains('r'),
                tmpfiles: options.contains('t'),
                pseudo_filesystems: options.contains('p'),
            },
        });
    }
    // Most of what it took to come here is not needed any more.
    sentry_host::text::release();
    gofer::run(Config { mounts, proc_self_fd: Some(proc_self_fd) }).context("serving files")?;
    Ok(0)
}
