//! A connection: two ends, and what is on its way to each.
//!
//! There are no packets, so whatever one end sends the other has at once; the states in which TCP
//! waits for an acknowledgement do not exist. Of those that are left, an end that has sent its FIN
//! first is in `FinWait`, one that has received it in `CloseWait`.
//!
//! One lock guards both ends; below it is only the queue of timers. Wait queues are notified without it.

mod held;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::socket::{MsgFlags, SO_OOBINLINE};
use syscalls::{Errno, SysResult};

use self::held::Held;
use super::super::addr::Endpoint;
use super::super::pairs::Pair;
use crate::kernel::Kernel;
use crate::net::options::Options;
use crate::sync::{Events, Mutex, WaitQueue};
use crate::vfs::ring::Ring;
use crate::vfs::{IoSink, IoSource, LimitedSink};

/// How much is on its way in one direction at most, where nobody has set the size of a buffer.
const AUTO_CAPACITY: usize = 2 << 20;

/// The most that goes over loopback as one packet.
const MAX_SEGMENT: usize = 65_483;

/// What a direction can always hold, however much memory the others take.
const MIN_CAPACITY: usize = 16 << 10;

/// How much can be on its way in all connections together before each is held to the least.
const MAX_MEMORY: usize = 256 << 20;

/// The size from which on an empty buffer is given back.
const LARGE: usize = 256 << 10;

/// How much is on its way in all connections together.
static MEMORY: AtomicUsize = AtomicUsize::new(0);

/// The state of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Established,
    /// The own FIN is sent, the peer's is not here.
    FinWait,
    /// The peer's FIN is here, the own one is not sent.
    CloseWait,
    Closed,
}

/// The one urgent byte.
struct Urgent {
    /// How many bytes of the stream come before it.
    at: u64,
    /// The byte, until it is read; never for one that is in the stream.
    byte: Option<u8>,
    /// Whether it is in the stream (`SO_OOBINLINE`).
    is_inline: bool,
}

impl Urgent {
    /// Returns whether it has not been read; one in the stream is forgotten when it is.
    fn is_unread(&self) -> bool {
        self.is_inline || self.byte.is_some()
    }
}

/// One end.
struct End {
    phase: Phase,
    options: Arc<Options>,
    inbox: Ring,
    /// What of it is not to be seen yet.
    held: Held,
    /// How many bytes have been taken out of the inbox.
    n_read: u64,
    /// The most that the inbox has held since it was allocated.
    peak: usize,
    urgent: Option<Urgent>,
    is_receive_shut: bool,
    is_send_shut: bool,
    /// The peer's FIN has come: the stream has a proper end.
    is_done: bool,
    error: Option<Errno>,
    /// The socket is closed.
    is_orphan: bool,
    /// Somebody waits for room in the peer's inbox.
    is_blocked: bool,
    /// Whether this end sent the first FIN.
    is_active_closer: bool,
    pair: Arc<Pair>,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// A connection.
pub(super) struct Conn {
    this: Weak<Conn>,
    /// Whose timers end what is held back.
    kernel: Weak<Kernel>,
    ends: Mutex<[End; 2]>,
    queues: [WaitQueue; 2],
    /// A socket that has been connected to itself has one end.
    is_self: bool,
    /// The addresses of the two ends.
    pub(super) addrs: [Endpoint; 2],
    /// What the tables say of the two ends.
    pairs: [Arc<Pair>; 2],
    /// Whether nobody need keep the ports: an end was reset, or one that was remembered is forgotten.
    pub(super) was_reset: Arc<AtomicBool>,
}

/// What one end looks like to `poll(2)`, `TCP_INFO` and `/proc/net/tcp`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) phase: Phase,
    pub(super) n_readable: usize,
    pub(super) n_unsent: usize,
    pub(super) has_urgent: bool,
    pub(super) is_at_mark: bool,
    pub(super) is_receive_shut: bool,
    pub(super) is_send_shut: bool,
    pub(super) has_error: bool,
    pub(super) is_writable: bool,
}

/// What has come of a send, and who is to be told without the lock.
struct Sent {
    result: SysResult<usize>,
    /// For the peer.
    events: Events,
    /// What the peer holds back has left.
    acknowledges: bool,
    /// The connection is over.
    is_reset: bool,
}

impl Default for Sent {
    fn default() -> Self {
        Self { result: Ok(0), events: Events::empty(), acknowledges: false, is_reset: false }
    }
}

impl End {
    fn new(options: &Arc<Options>, pair: &Arc<Pair>) -> Self {
        Self {
            phase: Phase::Established,
            options: options.clone(),
            inbox: Ring::new(0),
            held: Held::default(),
            n_read: 0,
            peak: 0,
            urgent: None,
            is_receive_shut: false,
            is_send_shut: false,
            is_done: false,
            error: None,
            is_orphan: false,
            is_blocked: false,
            is_active_closer: false,
            pair: pair.clone(),
        }
    }

    fn finish(&mut self) {
        self.phase = Phase::Closed;
        self.is_receive_shut = true;
        self.is_send_shut = true;
        if self.is_active_closer {
            self.pair.remember();
        } else {
            self.pair.end();
        }
    }

    /// The peer has given the connection up.
    fn receive_reset(&mut self) {
        self.error = match self.phase {
            Phase::Closed => return,
            Phase::CloseWait => Some(Errno::EPIPE),
            Phase::Established | Phase::FinWait => Some(Errno::ECONNRESET),
        };
        self.held.lose();
        self.is_active_closer = false;
        self.finish();
    }

    fn receive_fin(&mut self) {
        self.held.release();
        self.is_receive_shut = true;
        self.is_done = true;
        match self.phase {
            Phase::Established => self.phase = Phase::CloseWait,
            Phase::FinWait => self.finish(),
            Phase::CloseWait | Phase::Closed => {}
        }
    }

    fn take_inbox(&mut self) -> Ring {
        MEMORY.fetch_sub(self.inbox.len(), Ordering::Relaxed);
        self.held.release();
        self.urgent = None;
        self.peak = 0;
        std::mem::replace(&mut self.inbox, Ring::new(0))
    }

    fn consume(&mut self, n: usize) {
        self.inbox.consume(n);
        MEMORY.fetch_sub(n, Ordering::Relaxed);
        self.n_read = self.n_read.wrapping_add(n as u64);
        if self.inbox.is_empty() && self.peak > LARGE {
            self.peak = 0;
            self.inbox = Ring::new(0);
        }
    }

    /// Returns how many bytes there are up to the urgent mark, if that is ahead.
    fn n_to_mark(&self) -> Option<usize> {
        let at = self.urgent.as_ref()?.at;
        usize::try_from(at.checked_sub(self.n_read)?).ok()
    }

    fn is_at_mark(&self) -> bool {
        self.n_to_mark() == Some(0)
    }

    fn n_readable(&self) -> usize {
        match self.n_to_mark() {
            Some(n) if n > 0 && self.urgent.as_ref().is_some_and(|urgent| !urgent.is_inline) => {
                n.min(self.n_visible())
            }
            _ => self.n_visible(),
        }
    }

    fn recv_urgent(&mut self, dst: &mut dyn IoSink, peek: bool) -> SysResult<(usize, MsgFlags)> {
        let is_over = self.is_receive_shut || self.phase == Phase::Closed;
        let urgent = self.urgent.as_mut().filter(|urgent| !urgent.is_inline);
        let byte = urgent.as_ref().and_then(|urgent| urgent.byte).ok_or(Errno::EINVAL)?;
        if is_over && !self.is_done && self.phase == Phase::Closed {
            return Err(Errno::ENOTCONN);
        }
        if dst.remaining() == 0 {
            return Ok((0, MsgFlags::OOB | MsgFlags::TRUNC));
        }
        dst.put(&[byte])?;
        if let Some(urgent) = urgent.filter(|_| !peek) {
            urgent.byte = None;
        }
        Ok((1, MsgFlags::OOB))
    }

    fn recv(&mut self, dst: &mut dyn IoSink, flags: MsgFlags) -> SysResult<usize> {
        let peek = flags.contains(MsgFlags::PEEK);
        let n_visible = self.n_visible();
        if n_visible == 0 {
            if self.is_at_mark() && !peek {
                self.urgent = None;
            }
            if self.is_done {
                return Ok(0);
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            return match self.phase {
                _ if self.is_receive_shut => Ok(0),
                Phase::Closed => Err(Errno::ENOTCONN),
                _ => Err(Errno::EAGAIN),
            };
        }
        // A read that begins at the mark goes beyond it; one that comes to it stops there.
        let left = match self.n_to_mark() {
            None | Some(0) => n_visible,
            Some(n) => n.min(n_visible),
        };
        let n = if flags.contains(MsgFlags::TRUNC) && !peek {
            left.min(dst.remaining())
        } else {
            self.inbox.peek(&mut LimitedSink::new(dst, left))?.0
        };
        if !peek {
            if n > 0 && self.is_at_mark() {
                self.urgent = None;
            }
            self.consume(n);
        }
        Ok(n)
    }
}

/// Returns how much can be on its way from one end to another.
fn capacity(from: &End, to: &End) -> usize {
    if MEMORY.load(Ordering::Relaxed) > MAX_MEMORY {
        return MIN_CAPACITY;
    }
    // The sizes that calls show are twice those that are used.
    let half = |size: u32| usize::try_from(size / 2).unwrap_or(MIN_CAPACITY);
    let sent = from.options.set_send_buffer().map(half);
    let received = to.options.set_receive_buffer().map(half);
    match (sent, received) {
        (None, None) => AUTO_CAPACITY,
        (Some(sent), None) => sent.saturating_add(64 << 10),
        (None, Some(received)) => received.saturating_add(AUTO_CAPACITY / 4),
        (Some(sent), Some(received)) => sent.saturating_add(received),
    }
}

fn has_room(from: &End, to: &End) -> bool {
    to.is_orphan || to.inbox.len() <= capacity(from, to) / 3 * 2
}

impl Conn {
    /// Creates an established connection.
    pub(super) fn new(
        kernel: Option<&Arc<Kernel>>,
        addrs: [Endpoint; 2],
        options: [&Arc<Options>; 2],
        queues: [WaitQueue; 2],
        is_self: bool,
    ) -> Arc<Self> {
        let [client, server] = options;
        let was_reset = Arc::<AtomicBool>::default();
        let pairs = [(); 2].map(|()| Pair::new(Self::of(kernel), was_reset.clone()));
        let [client_pair, server_pair] = &pairs;
        let ends = Mutex::new([End::new(client, client_pair), End::new(server, server_pair)]);
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            kernel: Self::of(kernel),
            ends,
            queues,
            is_self,
            addrs,
            pairs,
            was_reset,
        })
    }

    /// Returns the indices of an end and of its peer.
    fn index(&self, side: Side) -> (usize, usize) {
        let own = usize::from(side == Side::Server);
        (own, if self.is_self { own } else { 1 - own })
    }

    /// Returns what the tables say of an end.
    pub(super) fn pair(&self, side: Side) -> &Arc<Pair> {
        let [client, server] = &self.pairs;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    fn with<T>(&self, side: Side, look: impl FnOnce(&mut End, Option<&mut End>) -> T) -> T {
        let mut ends = self.ends.lock();
        let [client, server] = &mut *ends;
        let (own, peer) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        look(own, if self.is_self { None } else { Some(peer) })
    }

    fn notify(&self, index: usize, events: Events) {
        if let Some(queue) = self.queues.get(index) {
            queue.notify(events);
        }
    }

    fn notify_both(&self) {
        self.notify(0, Events::all());
        self.notify(1, Events::all());
    }

    /// Sends what there is room for.
    pub(super) fn send(
        &self,
        side: Side,
        src: &mut dyn IoSource,
        flags: MsgFlags,
    ) -> SysResult<usize> {
        let (index, peer_index) = self.index(side);
        let sent = self.with(side, |own, peer| {
            if let Some(error) = own.error.take() {
                return Err(error);
            }
            if own.is_send_shut {
                return Err(Errno::EPIPE);
            }
            let total = src.remaining();
            if total == 0 {
                return Ok(Sent::default());
            }
            let Some(peer) = peer else {
                let (limit, is_corked) = (capacity(own, own), own.options.is_corked());
                let sent = self.put(own, index, src, (limit, flags), is_corked);
                own.is_blocked |= sent.result == Err(Errno::EAGAIN);
                return Ok(sent);
            };
            let is_deaf = peer.is_receive_shut && peer.phase == Phase::FinWait;
            if peer.is_orphan || is_deaf {
                own.receive_reset();
                peer.receive_reset();
                self.was_reset.store(true, Ordering::Relaxed);
                // What would have gone before the answer came.
                let result = Ok(total.min(MAX_SEGMENT));
                return Ok(Sent { result, is_reset: true, ..Sent::default() });
            }
            let (limit, is_corked) = (capacity(own, peer), own.options.is_corked());
            let mut sent = self.put(peer, peer_index, src, (limit, flags), is_corked);
            own.is_blocked |= sent.result == Err(Errno::EAGAIN);
            // The segment acknowledges what has come before it.
            sent.acknowledges = !sent.events.is_empty() && own.acknowledge();
            Ok(sent)
        })?;
        if sent.is_reset {
            self.notify_both();
            return sent.result;
        }
        if !sent.events.is_empty() {
            self.notify(peer_index, sent.events);
        }
        if sent.acknowledges {
            self.notify(index, Events::READABLE);
        }
        sent.result
    }

    /// Puts into the inbox of the end `index` what there is room for, and holds it back where that is
    /// asked for.
    fn put(
        &self,
        to: &mut End,
        index: usize,
        src: &mut dyn IoSource,
        (limit, flags): (usize, MsgFlags),
        is_corked: bool,
    ) -> Sent {
        let total = src.remaining();
        let written = write(to, src, limit, flags);
        let (n, is_urgent) = written.unwrap_or((0, false));
        // Whoever has to wait for room waits for what is held back as well.
        let goes_on = (flags.contains(MsgFlags::MORE) || is_corked) && n == total && !is_urgent;
        let is_new =
            if goes_on { self.hold(to, index, n, is_corked) } else { to.held.release() || n > 0 };
        let readable = if is_new { Events::READABLE } else { Events::empty() };
        let urgent = if is_urgent { Events::PRI } else { Events::empty() };
        let result = written.map(|(n, _)| n);
        Sent { result, events: readable | urgent, ..Sent::default() }
    }

    /// Receives what is there.
    pub(super) fn recv(
        &self,
        side: Side,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<(usize, MsgFlags)> {
        let peek = flags.contains(MsgFlags::PEEK);
        let (received, wakes) = self.with(side, |own, peer| {
            if flags.contains(MsgFlags::OOB) {
                return own.recv_urgent(dst, peek).map(|received| (received, false));
            }
            let n = own.recv(dst, flags)?;
            let wakes = match peer {
                _ if peek || n == 0 => false,
                Some(peer) => {
                    let goes_on = peer.is_blocked && has_room(peer, own);
                    peer.is_blocked &= !goes_on;
                    goes_on
                }
                None => std::mem::take(&mut own.is_blocked),
            };
            Ok(((n, MsgFlags::empty()), wakes))
        })?;
        if wakes {
            self.notify(self.index(side).1, Events::WRITABLE);
        }
        Ok(received)
    }

    /// Implements `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN` where the connection is over.
    pub(super) fn shutdown(&self, side: Side, receive: bool, send: bool) -> SysResult<()> {
        let result = self.with(side, |own, peer| {
            if own.phase == Phase::Closed {
                return Err(Errno::ENOTCONN);
            }
            own.is_receive_shut |= receive;
            if send && !own.is_send_shut {
                send_fin(own, peer);
            }
            Ok(())
        });
        self.notify_both();
        result
    }

    /// Closes an end for good. Returns whether TCP would remember the connection for a while.
    pub(super) fn close(&self, side: Side, resets: bool) -> bool {
        let (unread, lingers) = self.with(side, |own, peer| {
            let has_unread = own.n_visible() > 0;
            let unread = own.take_inbox();
            if own.phase != Phase::Closed {
                if resets || has_unread {
                    own.is_active_closer = false;
                    own.finish();
                    if let Some(peer) = peer {
                        peer.receive_reset();
                    }
                    self.was_reset.store(true, Ordering::Relaxed);
                } else if own.is_send_shut {
                    own.is_receive_shut = true;
                } else {
                    send_fin(own, peer);
                }
            }
            own.is_orphan = true;
            if own.phase == Phase::FinWait {
                own.pair.outlive_socket();
            }
            (unread, own.is_active_closer)
        });
        drop(unread);
        self.notify_both();
        lingers
    }

    /// Returns and clears the pending error.
    pub(super) fn take_error(&self, side: Side) -> Option<Errno> {
        self.with(side, |own, _| own.error.take())
    }

    /// Returns what an end looks like. `waits`: the caller wants to be told of room.
    pub(super) fn look(&self, side: Side, waits: bool) -> Look {
        self.with(side, |own, peer| {
            let (is_writable, n_unsent) = match peer {
                Some(peer) => {
                    let limit = peer.options.receive_buffer.load(Ordering::Relaxed);
                    let held = usize::try_from(limit).unwrap_or(0);
                    let n_unsent = peer.inbox.len().saturating_sub(held).max(peer.held.len());
                    (has_room(own, peer), n_unsent)
                }
                None => (has_room(own, own), own.held.len()),
            };
            let is_writable = is_writable || own.is_send_shut;
            if !is_writable && waits {
                own.is_blocked = true;
            }
            Look {
                phase: own.phase,
                n_readable: own.n_readable(),
                n_unsent,
                has_urgent: own.urgent.as_ref().is_some_and(Urgent::is_unread),
                is_at_mark: own.is_at_mark(),
                is_receive_shut: own.is_receive_shut,
                is_send_shut: own.is_send_shut,
                has_error: own.error.is_some(),
                is_writable,
            }
        })
    }
}

/// Ends the stream of `own`.
fn send_fin(own: &mut End, peer: Option<&mut End>) {
    own.is_send_shut = true;
    match own.phase {
        Phase::Established => {
            own.phase = Phase::FinWait;
            own.is_active_closer = true;
        }
        // The last acknowledgement is here at once.
        Phase::CloseWait => own.finish(),
        Phase::FinWait | Phase::Closed => {}
    }
    match peer {
        Some(peer) => peer.receive_fin(),
        None => own.receive_fin(),
    }
}

/// Adds bytes to an inbox. Returns how many, and whether the last one is urgent.
fn write(
    to: &mut End,
    src: &mut dyn IoSource,
    limit: usize,
    flags: MsgFlags,
) -> SysResult<(usize, bool)> {
    to.inbox.set_capacity(limit.max(to.inbox.len()));
    let room = to.inbox.room();
    let total = src.remaining();
    if room == 0 {
        return Err(Errno::EAGAIN);
    }
    let is_urgent = flags.contains(MsgFlags::OOB) && total <= room;
    let is_inline = to.options.switch(SO_OOBINLINE) == Some(true);
    let n_plain = if is_urgent && !is_inline { total - 1 } else { total.min(room) };
    let mut n = 0;
    if n_plain > 0 {
        n = to.inbox.write(src, n_plain, false)?;
        MEMORY.fetch_add(n, Ordering::Relaxed);
        to.peak = to.peak.max(to.inbox.len());
        if n < n_plain {
            return Ok((n, false));
        }
    }
    if !is_urgent {
        return Ok((n, false));
    }
    let end = to.n_read.wrapping_add(to.inbox.len() as u64);
    if is_inline {
        to.urgent = Some(Urgent { at: end.saturating_sub(1), byte: None, is_inline });
    } else {
        let mut byte = [0];
        n += src.get(&mut byte)?;
        let [byte] = byte;
        to.urgent = Some(Urgent { at: end, byte: Some(byte), is_inline });
    }
    Ok((n, true))
}

impl Drop for Conn {
    fn drop(&mut self) {
        for end in self.ends.lock().iter_mut() {
            drop(end.take_inbox());
        }
    }
}

#[cfg(test)]
mod tests;
