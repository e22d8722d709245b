#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod attr;
mod fid_table;
mod ops;
mod place;
mod reopen;
mod sandbox;
mod server;
mod session;

use std::io;
use std::os::fd::OwnedFd;

use reopen::Reopener;
use server::Server;

/// What a gofer serves: everything that it will ever reach.
#[derive(Debug)]
pub struct Config {
    /// One entry for each connection of the sentry: the root and every bind mount.
    pub mounts: Vec<MountConfig>,
    /// A descriptor of this process's own `/proc/self/fd`, for callers that know where a procfs is.
    /// Without one, the gofer mounts a private procfs, or opens `/proc/self/fd`.
    pub proc_self_fd: Option<OwnedFd>,
}

/// One mount: a connection and the host file or directory that it serves.
#[derive(Debug)]
pub struct MountConfig {
    /// The gofer's end of a `SOCK_SEQPACKET` socket pair.
    pub socket: OwnedFd,
    /// The root of the mount (`O_PATH` is enough): a directory, or a file for a bind mount of one.
    pub root: OwnedFd,
    /// What the client may do.
    pub options: MountOptions,
}

/// What the client of one connection may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountOptions {
    /// Refuses whatever would change the host's files with `EROFS`.
    pub readonly: bool,
    /// Permits connecting to unix sockets below the root.
    pub connect_unix_sockets: bool,
    /// Permits binding new unix sockets below the root.
    pub bind_unix_sockets: bool,
    /// Permits unlinked backing files (`O_TMPFILE`) below the root although it is read-only: where an
    /// overlay keeps its upper files beside the image.
    pub tmpfiles: bool,
    /// Permits descending into pseudo file systems (procfs, sysfs, …) mounted below the root. The
    /// root itself may always be on one.
    pub pseudo_filesystems: bool,
}

/// Locks this process down and serves until every connection is closed.
///
/// Call it last, from a process with a single thread, in the namespaces in which it is to stay. It
/// changes the working directory and the file creation mask of the process.
///
/// # Errors
/// A failure to lock down, in which case nothing was served, or of the poll loop itself.
pub fn run(config: Config) -> io::Result<()> {
    let Config { mounts, proc_self_fd } = config;
    let options: Vec<MountOptions> = mounts.iter().map(|mount| mount.options).collect();
    let reopener = Reopener::new(proc_self_fd)?;
    let max_fids = sandbox::raise_descriptor_limit();
    let mut server = Server::new(mounts, reopener, max_fids)?;
    sandbox::enter(&options)?;
    server.serve()
}

#[cfg(test)]
mod tests;
