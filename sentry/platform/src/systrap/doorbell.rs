//! The doorbell: how the sentry hears that a stub has a request, and how descriptors reach stubs.
//!
//! It is only an edge. What is asked lies in the slot of the thread that rings, and a ring for which
//! there is nothing new there does no harm.
//!
//! - [`listener`]: a call that the stubs' filter answers with a notification.

mod listener;

use std::os::fd::{BorrowedFd, OwnedFd};

use sentry_host::Rule;
use syscalls::{Errno, SysResult};

use self::listener::Listener;

/// Says that no process can ring any more.
pub(super) const GONE: Errno = Errno::ENOENT;

/// The doorbell that all stubs of a zygote share.
#[derive(Debug)]
pub(super) enum Doorbell {
    /// Whoever rings waits for an answer to the ring.
    Notify(Listener),
}

/// Somebody rings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// What waits for an answer.
    pub(super) id: u64,
    /// The host id of the thread.
    pub(super) caller: u32,
    /// What it says: `layout::RING_*`, a token, and the index of a thread.
    pub(super) what: u64,
    pub(super) token: u64,
    pub(super) index: u64,
}

impl Doorbell {
    /// Takes over a listener.
    pub(super) fn notify(listener: OwnedFd) -> Self {
        Self::Notify(Listener::new(listener))
    }

    /// Returns the host calls that it makes.
    pub(super) fn rules(&self) -> &'static [Rule] {
        match self {
            Self::Notify(_) => listener::RULES,
        }
    }

    /// Chooses whether threads that are woken from now on take over the CPU of who wakes them, where
    /// that can be chosen.
    pub(super) fn set_sync(&self, sync: bool) {
        match self {
            Self::Notify(listener) => listener.set_sync(sync),
        }
    }

    /// Returns whether somebody rings.
    pub(super) fn has_ring(&self) -> bool {
        match self {
            Self::Notify(listener) => listener.has_ring(),
        }
    }

    /// Waits for a ring.
    ///
    /// # Errors
    /// [`GONE`] where nobody is left who could ring, `EINTR` after a signal.
    pub(super) fn receive(&self) -> SysResult<Ring> {
        match self {
            Self::Notify(listener) => listener.receive().map(|notification| {
                let [what, token, index, ..] = notification.args;
                Ring { id: notification.id, caller: notification.tid, what, token, index }
            }),
        }
    }

    /// Answers a ring. It does not matter if who rang is gone.
    pub(super) fn answer(&self, id: u64, value: i64) {
        match self {
            Self::Notify(listener) => listener.answer(id, value),
        }
    }

    /// Installs `source` as descriptor `number` of the process whose thread rang.
    pub(super) fn add_fd(&self, id: u64, source: BorrowedFd<'_>, number: i32) -> SysResult<()> {
        match self {
            Self::Notify(listener) => listener.add_fd(id, source, number),
        }
    }
}
