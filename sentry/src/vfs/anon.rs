//! Attributes of files that belong to no file system: pipes, sockets, eventfds and their like.

use std::sync::atomic::{AtomicU64, Ordering};

use sentry_host::clock::{self, Clock};

use super::attr::{Attr, Timestamp};
use crate::task::CurrentTask;

/// The internal mounts of Linux that such files are on, by the minor number of their device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonMount {
    /// `anon_inodefs`
    Inode = 14,
    /// `pipefs`
    Pipe = 13,
    /// `sockfs`
    Socket = 8,
    /// `pidfs`
    Pid = 15,
}

/// Returns an inode number for a file without a file system.
pub fn next_ino() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 16);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the attributes of a new file; `mode` is type and permissions.
pub fn attr(task: &CurrentTask, mount: AnonMount, mode: u32) -> Attr {
    let creds = task.creds();
    let ns = clock::now_ns(Clock::RealtimeCoarse);
    let now = Timestamp {
        sec: ns.div_euclid(1_000_000_000),
        nsec: u32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or(0),
    };
    // The inodes of `anon_inodefs` are one and the same on Linux, and root's.
    let is_shared = mount == AnonMount::Inode;
    Attr {
        dev: mount as u64,
        ino: if is_shared { 1 << 10 } else { next_ino() },
        mode,
        nlink: 1,
        uid: if is_shared { 0 } else { creds.fsuid },
        gid: if is_shared { 0 } else { creds.fsgid },
        blksize: 4096,
        atime: now,
        mtime: now,
        ctime: now,
        ..Attr::default()
    }
}
