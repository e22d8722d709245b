//! Connections that come from the host past the sandbox's own network ([`super::super::forward`]): a
//! stream socket of the host is the connection, and its other end is outside. So the host keeps what
//! is on its way, and half-closed connections, resets and slow readers are as on the host.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use sentry_host::forward;
use sentry_host::poll::ready_now;
use sentry_host::stream::{GetRequest, terminal_get};
use syscalls::abi::socket::{MsgFlags, SHUT_RD, SHUT_RDWR, SHUT_WR};
use syscalls::{Errno, SysResult};

use super::conn::{Look, Phase};
use super::remote::Stream;
use super::{Role, TcpSocket};
use crate::fs::host_fd::HostPoller;
use crate::kernel::Kernel;
use crate::net::inet::addr::Endpoint;
use crate::net::inet::forward::Door;
use crate::net::inet::ports::ClaimState;
use crate::sync::{Events, Registration, WaitQueue, Waiter};
use crate::vfs::{IoSink, IoSource};

/// The most bytes that one host call moves.
const CHUNK: usize = 64 << 10;

/// What a descriptor is asked for: `POLLIN | POLLPRI | POLLOUT | POLLRDHUP`.
const ASKED: i16 = 0x2007;

/// A connected socket of the host, and what the two ends are called here.
pub(in crate::net::inet) struct HostConnection {
    pub(in crate::net::inet) socket: OwnedFd,
    pub(in crate::net::inet) from: Endpoint,
    pub(in crate::net::inet) to: Endpoint,
}

/// A connection whose other end is a program on the host.
pub(super) struct HostStream {
    socket: OwnedFd,
    poller: Arc<HostPoller>,
    key: u64,
    /// The own address and the peer's.
    pub(super) ends: (Endpoint, Endpoint),
    is_receive_shut: AtomicBool,
    is_send_shut: AtomicBool,
}

impl HostStream {
    fn new(
        poller: &Arc<HostPoller>,
        socket: OwnedFd,
        ends: (Endpoint, Endpoint),
        queue: &WaitQueue,
    ) -> SysResult<Arc<Self>> {
        let key = poller.follow(socket.as_fd(), queue)?;
        Ok(Arc::new(Self {
            socket,
            poller: poller.clone(),
            key,
            ends,
            is_receive_shut: AtomicBool::new(false),
            is_send_shut: AtomicBool::new(false),
        }))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn look(&self) -> Look {
        let ready = ready_now(self.fd(), ASKED);
        let ready = Events::from_bits_truncate(u32::from(ready.cast_unsigned()));
        let is_send_shut = self.is_send_shut.load(Ordering::Relaxed);
        let has_fin = ready.intersects(Events::RDHUP | Events::HUP);
        let phase = match (has_fin, is_send_shut) {
            _ if ready.contains(Events::HUP) => Phase::Closed,
            (true, true) => Phase::Closed,
            (true, false) => Phase::CloseWait,
            (false, true) => Phase::FinWait,
            (false, false) => Phase::Established,
        };
        let mut number = [0; 36];
        let n_readable = match terminal_get(self.fd(), GetRequest::Pending, &mut number) {
            Ok(()) => number.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes)),
            Err(_) => 0,
        };
        Look {
            phase,
            n_readable: usize::try_from(n_readable).unwrap_or(0),
            // DEVIATION: what is still on its way is the host's secret, and so is the urgent mark.
            n_unsent: 0,
            has_urgent: ready.contains(Events::PRI),
            is_at_mark: false,
            is_receive_shut: has_fin || self.is_receive_shut.load(Ordering::Relaxed),
            is_send_shut: is_send_shut || ready.contains(Events::HUP),
            has_error: ready.contains(Events::ERR),
            is_writable: is_send_shut || ready.intersects(Events::OUT | Events::HUP),
        }
    }

    pub(super) fn send(&self, src: &mut dyn IoSource, flags: MsgFlags) -> SysResult<usize> {
        let total = src.remaining();
        let mut data = vec![0; total.min(CHUNK)];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match src.get(rest) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        let mut passed = flags & (MsgFlags::OOB | MsgFlags::MORE);
        if done < total {
            // The urgent byte is the last one of all.
            passed = passed & !MsgFlags::OOB | MsgFlags::MORE;
        }
        let data = data.get(..done).unwrap_or_default();
        forward::send(self.fd(), data, passed.bits().cast_signed())
    }

    pub(super) fn recv(
        &self,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<(usize, MsgFlags)> {
        let passed = (flags & (MsgFlags::OOB | MsgFlags::PEEK)).bits().cast_signed();
        let mut buffer = vec![0; dst.remaining().min(CHUNK)];
        let (n, received) = forward::receive(self.fd(), &mut buffer, passed)?;
        let data = buffer.get(..n).ok_or(Errno::EIO)?;
        let is_thrown_away = flags.contains(MsgFlags::TRUNC);
        if !is_thrown_away && n > 0 && dst.put(data)? < n {
            return Err(Errno::EFAULT);
        }
        Ok((n, MsgFlags::from_bits_retain(received.cast_unsigned()) & MsgFlags::OOB))
    }

    pub(super) fn shutdown(&self, receive: bool, send: bool) -> SysResult<()> {
        let how = match (receive, send) {
            (true, true) => SHUT_RDWR,
            (true, false) => SHUT_RD,
            (false, true) => SHUT_WR,
            (false, false) => return Ok(()),
        };
        forward::shutdown(self.fd(), how)?;
        self.is_receive_shut.fetch_or(receive, Ordering::Relaxed);
        self.is_send_shut.fetch_or(send, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the connection, which is over with the last reference to it.
    pub(super) fn close(&self, resets: bool) {
        self.poller.forget(self.key);
        if resets {
            // A unix socket has no resets: the end is all that there is.
            let _ = forward::reset_on_close(self.fd());
        }
    }

    pub(super) fn take_error(&self) -> Option<Errno> {
        forward::take_error(self.fd())
    }
}

/// A listening socket of the host: connections to it are connections to a socket here.
pub(super) struct HostListener {
    kernel: Weak<Kernel>,
    poller: Arc<HostPoller>,
    socket: Option<OwnedFd>,
    door: Door,
    /// Of the socket here.
    queue: WaitQueue,
    /// Whether there may be a connection.
    is_ready: AtomicBool,
    watch: OnceLock<(u64, Registration)>,
}

impl HostListener {
    fn new(
        socket: &TcpSocket,
        poller: &Arc<HostPoller>,
        listener: OwnedFd,
        door: Door,
    ) -> SysResult<Arc<Self>> {
        let this = Arc::new(Self {
            kernel: Arc::downgrade(&socket.kernel),
            poller: poller.clone(),
            socket: Some(listener),
            door,
            queue: socket.queue.clone(),
            is_ready: AtomicBool::new(false),
            watch: OnceLock::new(),
        });
        let changes = WaitQueue::new();
        let waiter: Arc<dyn Waiter> = this.clone();
        let registration = changes.register(&waiter, Events::READABLE, 0);
        if let Some(listener) = &this.socket {
            let key = poller.follow(listener.as_fd(), &changes)?;
            // Nobody else has it yet.
            let _ = this.watch.set((key, registration));
        }
        Ok(this)
    }

    /// Returns whether a connection waits.
    pub(super) fn has_pending(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        self.is_ready.load(Ordering::SeqCst) && ready_now(socket.as_fd(), 1) != 0
    }

    /// Takes the first connection that waits.
    fn accept(&self) -> SysResult<HostConnection> {
        let listener = self.socket.as_ref().ok_or(Errno::EAGAIN)?;
        // Before the look: what comes behind it says so itself.
        if !self.is_ready.swap(false, Ordering::SeqCst) {
            return Err(Errno::EAGAIN);
        }
        let result = forward::accept(listener.as_fd());
        if !matches!(result, Err(Errno::EAGAIN)) {
            self.is_ready.store(true, Ordering::SeqCst);
        }
        let (socket, peer) = result?;
        let to = self.door.endpoint();
        let from = peer.map(|peer| Endpoint { ip: peer.ip(), port: peer.port() });
        Ok(HostConnection { socket, from: from.unwrap_or(Endpoint { port: 0, ..to }), to })
    }
}

impl Waiter for HostListener {
    fn notify(&self, _key: u64, _events: Events) {
        self.is_ready.store(true, Ordering::SeqCst);
        self.queue.notify(Events::READABLE);
    }
}

impl Drop for HostListener {
    fn drop(&mut self) {
        if let Some((key, _)) = self.watch.get() {
            self.poller.forget(*key);
        }
        // Before the next one is asked for, which cannot be made beside it.
        drop(self.socket.take());
        if let Some(kernel) = self.kernel.upgrade() {
            // One that could not be watched would fail again.
            kernel.inet.lose_door(self.door, self.watch.get().is_some());
        }
    }
}

impl TcpSocket {
    /// Takes connections from a listening socket of the host as well, as long as this one listens.
    pub(in crate::net::inet) fn open_door(
        &self,
        poller: &Arc<HostPoller>,
        listener: OwnedFd,
        door: Door,
    ) {
        let Ok(host) = HostListener::new(self, poller, listener, door) else {
            // It is shut by now.
            return;
        };
        let unused = match &mut self.state.lock().role {
            Role::Listening { doors, .. } => {
                doors.push(host);
                None
            }
            _ => Some(host),
        };
        // Its end takes locks.
        drop(unused);
    }

    /// Takes the first connection that waits at the host.
    pub(super) fn accept_from_host(&self) -> SysResult<Arc<Self>> {
        let doors = match &self.state.lock().role {
            Role::Listening { doors, .. } if !doors.is_empty() => doors.clone(),
            Role::Listening { .. } => return Err(Errno::EAGAIN),
            _ => return Err(Errno::EINVAL),
        };
        let mut result = Err(Errno::EAGAIN);
        for door in doors {
            match door.accept() {
                Ok(connection) => return self.adopt(&door.poller, connection),
                Err(Errno::EAGAIN) => {}
                Err(errno) => result = Err(errno),
            }
        }
        result
    }

    /// Puts a connection of the host's into the queue of this socket.
    ///
    /// # Errors
    /// `ECONNREFUSED` where nobody listens, or there is no room; `ENOMEM`.
    pub(in crate::net::inet) fn admit_from_host(
        &self,
        poller: &Arc<HostPoller>,
        connection: HostConnection,
    ) -> SysResult<()> {
        let server = self.adopt(poller, connection)?;
        let refused = match &mut self.state.lock().role {
            Role::Listening { backlog, pending, .. } if pending.len() <= *backlog => {
                pending.push_back(server);
                None
            }
            _ => Some(server),
        };
        if let Some(server) = refused {
            super::Socket::close(&*server);
            return Err(Errno::ECONNREFUSED);
        }
        self.queue.notify(Events::READABLE);
        Ok(())
    }

    /// Returns a socket for a connection of the host's.
    fn adopt(&self, poller: &Arc<HostPoller>, connection: HostConnection) -> SysResult<Arc<Self>> {
        let HostConnection { socket, from, to } = connection;
        let tcp = &self.inet().tcp;
        // Numbers of the host's, or of nobody's: somebody here may have the same.
        let range = crate::net::inet::port_range(&self.kernel);
        let given = Some(from.port).filter(|port| *port != 0);
        let now_ns = self.kernel.clock.monotonic_ns();
        let is_new =
            |port: &u16| tcp.enter_pair(to, Endpoint { port: *port, ..from }, now_ns).is_ok();
        let port = given.into_iter().chain(range.ports()).find(is_new);
        let from = Endpoint { port: port.ok_or(Errno::EADDRNOTAVAIL)?, ..from };
        let server = self.offspring();
        let stream = HostStream::new(poller, socket, (to, from), &server.queue)
            .inspect_err(|_| tcp.leave_pair(to, from))?;
        {
            // Nobody else knows the new socket yet.
            let claim = server.claim(to.ip, ClaimState::Connected);
            let mut new = server.state.lock();
            new.role = Role::Connected { stream: Stream::Host(stream), is_announced: true };
            new.local = Some(to);
            new.peer = Some(from);
            new.place = Some(tcp.share(to.port, claim, server.this.clone()));
        }
        Ok(server)
    }
}
