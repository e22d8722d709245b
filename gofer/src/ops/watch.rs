//! Watches: `Notify`, `Watch`, `Unwatch`.
//!
//! Events go from the host's kernel to the client, which has the descriptor; the gofer reads none of them. What nobody
//! reads is bounded by the host (`fs.inotify.max_queued_events`).

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use gofer_wire::{Fid, MAX_WATCHES};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::fcntl_dupfd_cloexec;
use syscalls::{Errno, SysResult};

use crate::attr::errno;
use crate::reopen::FdPath;
use crate::session::{Outcome, Session};

/// What is watched on a connection.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// Made when it is first asked for: a user of the host has few.
    inotify: Option<OwnedFd>,
    numbers: BTreeSet<i32>,
}

/// What is told of a file. The gofer's own opens and the client's reads are nobody's business.
fn interest() -> WatchFlags {
    WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MODIFY
        | WatchFlags::MOVE_SELF
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
}

/// Donates the descriptor from which events are read.
///
/// # Errors
/// `EMFILE` where the host's user has as many as there may be.
pub(crate) fn notify(session: &mut Session) -> SysResult<Outcome> {
    let watches = &mut session.watches;
    let inotify = match watches.inotify.take() {
        Some(inotify) => inotify,
        None => inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(errno)?,
    };
    let inotify = watches.inotify.insert(inotify);
    Ok(Outcome::Descriptors(vec![fcntl_dupfd_cloexec(inotify.as_fd(), 0).map_err(errno)?]))
}

/// Watches a file.
///
/// # Errors
/// `EINVAL` before the first `Notify`; `ENOSPC` where there are too many, here or on the host; `EACCES` where the gofer may
/// not read the file, or for the root of a pseudo file system.
pub(crate) fn watch(session: &mut Session, fid: Fid) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    if node.is_pseudo {
        return Err(Errno::EACCES);
    }
    let watches = &mut session.watches;
    let inotify = watches.inotify.as_ref().ok_or(Errno::EINVAL)?;
    if watches.numbers.len() >= MAX_WATCHES {
        return Err(Errno::ENOSPC);
    }
    // By way of the working directory, which is that of the gofer's descriptors: there is no call
    // that takes the file's.
    let path = FdPath::new(&node.fd);
    let number = inotify::add_watch(inotify, path.as_str(), interest()).map_err(errno)?;
    watches.numbers.insert(number);
    Ok(Outcome::Watch(u32::try_from(number).map_err(|_| Errno::EOVERFLOW)?))
}

/// Ends the watch of a file.
///
/// # Errors
/// `EINVAL` for a number that is none.
pub(crate) fn unwatch(session: &mut Session, number: u32) -> SysResult<Outcome> {
    let watches = &mut session.watches;
    let inotify = watches.inotify.as_ref().ok_or(Errno::EINVAL)?;
    let number = i32::try_from(number).map_err(|_| Errno::EINVAL)?;
    if !watches.numbers.remove(&number) {
        return Err(Errno::EINVAL);
    }
    // Where the file has gone for good, so has the watch.
    let _ = inotify::remove_watch(inotify, number);
    Ok(Outcome::Done)
}
