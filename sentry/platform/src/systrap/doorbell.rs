//! The doorbell: how the sentry hears that a stub has a request, and how descriptors reach stubs.
//!
//! It is only an edge. What is asked lies in the slot of the thread that rings, and a ring for which
//! there is nothing new there does no harm.
//!
//! - [`listener`]: a call that the stubs' filter answers with a notification.
//! - [`socket`]: where there are none: messages, and futexes for the way back.

mod listener;
mod socket;

use std::os::fd::{BorrowedFd, OwnedFd};

use sentry_host::Rule;
use sentry_sysmsg::layout::{DOORBELL_FUTEX, DOORBELL_NOTIFY};
use syscalls::{Errno, SysResult};

use self::listener::Listener;
pub(super) use self::socket::Channel;
use self::socket::{Received, RingSocket};

/// Says that no process can ring any more.
pub(super) const GONE: Errno = Errno::ENOENT;

/// The ways to ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Notify,
    Futex,
}

impl Kind {
    /// Returns its number in `layout::Config`.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Notify => DOORBELL_NOTIFY,
            Self::Futex => DOORBELL_FUTEX,
        }
    }

    /// Creates the channel of a process to be, with its end, where there are channels.
    pub(super) fn channel(self) -> SysResult<Option<(Channel, OwnedFd)>> {
        match self {
            Self::Notify => Ok(None),
            Self::Futex => Channel::new().map(Some),
        }
    }
}

/// The doorbell that all stubs of a zygote share.
#[derive(Debug)]
pub(super) enum Doorbell {
    /// Whoever rings waits for an answer to the ring.
    Notify(Listener),
    /// Whoever rings sleeps on the futex of its slot's `done` word.
    Futex(RingSocket),
}

/// Somebody rings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ring {
    /// By a notification that waits for an answer.
    Notification {
        id: u64,
        /// The host id of the thread.
        tid: u32,
        words: [u64; 3],
    },
    /// By a message.
    Message {
        /// The process.
        pid: u32,
        /// `layout::RING_*`, the token of a space, and the index of a thread.
        words: [u64; 3],
    },
    /// Not a ring, but a thread that is about to write to a file, and waits to be permitted to.
    Write {
        id: u64,
        /// The host id of the thread.
        tid: u32,
        /// The arguments of `pwrite64`.
        args: [u64; 4],
    },
    /// Not a ring, but what follows all earlier ones: see [`Doorbell::fence`].
    Fence,
}

impl Doorbell {
    /// Takes over a listener.
    pub(super) fn notify(listener: OwnedFd) -> Self {
        Self::Notify(Listener::new(listener))
    }

    /// Creates a doorbell that needs none.
    pub(super) fn futex() -> SysResult<Self> {
        RingSocket::new().map(Self::Futex)
    }

    /// Returns which way it is.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Notify(_) => Kind::Notify,
            Self::Futex(_) => Kind::Futex,
        }
    }

    /// Returns the host calls that it makes.
    pub(super) fn rules(&self) -> &'static [Rule] {
        match self {
            Self::Notify(_) => listener::RULES,
            Self::Futex(_) => socket::RULES,
        }
    }

    /// Returns the descriptor that all stubs inherit.
    pub(super) fn far_end(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Notify(_) => None,
            Self::Futex(socket) => Some(socket.far_end()),
        }
    }

    /// Chooses whether threads that are woken from now on take over the CPU of who wakes them, where
    /// that can be chosen.
    pub(super) fn set_sync(&self, sync: bool) {
        if let Self::Notify(listener) = self {
            listener.set_sync(sync);
        }
    }

    /// Returns whether somebody rings.
    pub(super) fn has_ring(&self) -> bool {
        match self {
            Self::Notify(listener) => listener.has_ring(),
            Self::Futex(socket) => socket.has_ring(),
        }
    }

    /// Waits for a ring.
    ///
    /// # Errors
    /// [`GONE`] where nobody is left who could ring, `EINTR` after a signal, `EAGAIN` for what is
    /// none.
    pub(super) fn receive(&self) -> SysResult<Ring> {
        match self {
            Self::Notify(listener) => listener.receive().map(|notification| {
                let (id, tid) = (notification.id, notification.tid);
                let [a, b, c, d, ..] = notification.args;
                if i64::from(notification.nr) == libc::SYS_pwrite64 {
                    return Ring::Write { id, tid, args: [a, b, c, d] };
                }
                Ring::Notification { id, tid, words: [a, b, c] }
            }),
            Self::Futex(socket) => match socket.receive()? {
                Some(Received::Ring { pid, words }) => Ok(Ring::Message { pid, words }),
                Some(Received::Fence) => Ok(Ring::Fence),
                Some(Received::Nothing) => Err(Errno::EAGAIN),
                None => Err(GONE),
            },
        }
    }

    /// Answers a notification. It does not matter if who rang is gone.
    pub(super) fn answer(&self, id: u64, value: i64) {
        if let Self::Notify(listener) = self {
            listener.answer(id, value);
        }
    }

    /// Lets the host make the call of which a notification has told.
    pub(super) fn permit(&self, id: u64) {
        if let Self::Notify(listener) = self {
            listener.permit(id);
        }
    }

    /// Installs `source` as descriptor `number` of the process whose thread has sent a notification.
    pub(super) fn add_fd(&self, id: u64, source: BorrowedFd<'_>, number: i32) -> SysResult<()> {
        match self {
            Self::Notify(listener) => listener.add_fd(id, source, number),
            Self::Futex(_) => Err(Errno::EINVAL),
        }
    }

    /// Lets [`Ring::Fence`] come after all messages so far; returns whether it will. Who sends a
    /// notification waits, hence its id cannot come to mean another process; who sends a message
    /// does not.
    pub(super) fn fence(&self) -> bool {
        match self {
            Self::Notify(_) => false,
            Self::Futex(socket) => {
                socket.fence();
                true
            }
        }
    }

    /// Says that nobody is left who could ring, where the kernel cannot know.
    pub(super) fn close(&self) {
        if let Self::Futex(socket) = self {
            socket.close();
        }
    }
}
