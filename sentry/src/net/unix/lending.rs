//! Lending the two directions of a connection to the processes that use it ([`crate::vfs::lending`]), each by
//! itself: what one socket has been sent is read by who receives there, and written by who sends at its peer.
//!
//! Only an empty stream is lent, about which nothing is to be told but its bytes. Two processes have one
//! together only where they have the same rights: nothing leads from one end of a connection to the other.
//! What is asked of a socket in any other way than by plain reads and writes takes back what is lent.
//!
//! DEVIATION: what is transferred while it is lent is not counted in `/proc/PID/io`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sentry_platform::{HostCall, LENT_MAX};
use syscalls::abi::socket::MsgFlags;

use super::inbox::Inbox;
use super::{Kind, UnixSocket};
use crate::sync::{Events, Mutex, MutexGuard};
use crate::vfs::OpenFile;
use crate::vfs::file::StreamUser;
use crate::vfs::lending::{self, End, Lending, OneWay, Side, User};

/// What a plain call may say besides.
const PLAIN: MsgFlags = MsgFlags::DONTWAIT.union(MsgFlags::NOSIGNAL);

/// Whether a socket's directions may be worth lending: those that have just been used.
#[derive(Default)]
pub(super) struct Lively {
    pub(super) receives: AtomicBool,
    pub(super) sends: AtomicBool,
}

/// What a socket has been sent, which may be lent.
pub(super) struct SharedInbox(Mutex<Inbox>);

/// What goes from one socket to the other.
struct Direction<'a> {
    from: &'a UnixSocket,
    to: &'a UnixSocket,
}

impl Lively {
    pub(super) fn is_any(&self) -> bool {
        self.receives.load(Ordering::Relaxed) || self.sends.load(Ordering::Relaxed)
    }
}

impl SharedInbox {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self(Mutex::new(inbox))
    }

    /// Locks it for anything but a plain transfer.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inbox> {
        let mut inbox = self.lock_to_transfer();
        inbox.lending.note_other();
        inbox
    }

    /// Locks it.
    pub(super) fn lock_to_transfer(&self) -> MutexGuard<'_, Inbox> {
        let mut inbox = self.0.lock();
        if let Some(back) = inbox.lending.take_back() {
            inbox.put_back(&back.data);
        }
        inbox
    }
}

impl Inbox {
    /// Notes that `n` bytes have been sent or received by a call with these flags, and whether nothing went with
    /// them.
    pub(super) fn note_transfer(
        &mut self,
        n: usize,
        is_plain: bool,
        flags: MsgFlags,
        is_lively: &AtomicBool,
    ) {
        if is_plain && PLAIN.contains(flags) {
            self.lending.note_transfer(n, is_lively);
        } else {
            self.lending.note_other();
        }
    }
}

impl Direction<'_> {
    /// Returns whether the direction can be lent now.
    fn can_be_lent(&self, inbox: &mut Inbox) -> bool {
        let is_awaited = self.to.queue.wanted().intersects(Events::READABLE)
            || self.from.queue.wanted().intersects(Events::WRITABLE);
        let tells_senders = |socket: &UnixSocket| {
            socket.options.passes_credentials() || socket.options.passes_pidfd()
        };
        let is_plain = !tells_senders(self.from)
            && !tells_senders(self.to)
            && self.to.options.peek_at().is_none()
            && self.from.send_limit() >= LENT_MAX;
        if !is_plain {
            // It is not soon asked again.
            inbox.lending.note_other();
        }
        is_plain && inbox.lending.is_due(is_awaited) && inbox.is_plain()
    }
}

impl OneWay for Direction<'_> {
    fn end(side: Side) -> End {
        if side == Side::First { End::SocketReads } else { End::SocketWrites }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Lending) -> T) -> T {
        act(&mut self.to.inbox.0.lock().lending)
    }

    fn where_possible<T>(
        &self,
        _files: [&OpenFile; 2],
        act: impl FnOnce(&mut Lending) -> T,
    ) -> Option<T> {
        let mut inbox = self.to.inbox.0.lock();
        self.can_be_lent(&mut inbox).then(|| act(&mut inbox.lending))
    }
}

impl UnixSocket {
    fn connected_peer(&self) -> Option<Arc<Self>> {
        if self.kind != Kind::Stream {
            return None;
        }
        let peer = self.state.lock().peer.clone()?;
        peer.upgrade()
    }

    /// Lends what has just been used by `user`.
    pub(super) fn lend_to(&self, user: &StreamUser) -> Vec<HostCall> {
        let receives = self.lively.receives.swap(false, Ordering::Relaxed);
        let sends = self.lively.sends.swap(false, Ordering::Relaxed);
        let Some(peer) = self.connected_peer() else { return Vec::new() };
        let own = User::among_equals(user);
        let mut calls = Vec::new();
        if receives {
            let incoming = Direction { from: &peer, to: self };
            calls.extend(lending::lend_bytes(&incoming, Side::First, user, &own));
        }
        if sends {
            let outgoing = Direction { from: self, to: &peer };
            calls.extend(lending::lend_bytes(&outgoing, Side::Second, user, &own));
        }
        calls
    }

    /// Takes back what somebody is to be told of who waits for these events, which a process to which it is lent
    /// does not do.
    pub(super) fn take_back_for(&self, events: Events) {
        if self.kind == Kind::Stream && events.intersects(Events::READABLE) {
            drop(self.inbox.lock_to_transfer());
        }
        if events.intersects(Events::WRITABLE)
            && let Some(peer) = self.connected_peer()
        {
            drop(peer.inbox.lock_to_transfer());
        }
    }

    /// Takes back both directions.
    pub(super) fn take_back_all(&self) {
        if let Some(peer) = self.connected_peer() {
            drop(self.inbox.lock());
            drop(peer.inbox.lock());
        }
    }
}
