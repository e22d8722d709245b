//! Connections over packets, and what they have in common with those that stay here and those that
//! come from the host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use smoltcp::socket::tcp::State as Stage;
use syscalls::abi::socket::MsgFlags;
use syscalls::{Errno, SysResult};

use super::conn::{Conn, Look, Phase, Side};
use super::from_host::HostStream;
use super::options::LOOPBACK_MSS;
use super::{Inet, Role, TcpSocket, phase_number};
use crate::net::inet::addr::Endpoint;
use crate::net::inet::ports::ClaimState;
use crate::net::stack::Stack;
use crate::net::stack::link::{Link, Owner};
use crate::sync::Events;
use crate::vfs::{IoSink, IoSource, VecSink};

/// The most connections that may be on their way to one socket, besides its backlog.
const MAX_EMBRYOS: usize = 1024;

/// One end of a connection.
#[derive(Clone)]
pub(super) enum Stream {
    /// Both ends are here.
    Local(Arc<Conn>, Side),
    /// The other one is elsewhere.
    Remote(Arc<Link>),
    /// The other one is a program on the host.
    Host(Arc<HostStream>),
}

impl Stream {
    /// Returns the own address and the peer's.
    pub(super) fn ends(&self) -> (Endpoint, Endpoint) {
        match self {
            Self::Local(conn, side) => {
                let [client, server] = conn.addrs;
                if *side == Side::Client { (client, server) } else { (server, client) }
            }
            Self::Remote(link) => (link.local, link.remote),
            Self::Host(stream) => stream.ends,
        }
    }

    pub(super) fn look(&self, waits: bool) -> Look {
        let link = match self {
            Self::Local(conn, side) => return conn.look(*side, waits),
            Self::Host(stream) => return stream.look(),
            Self::Remote(link) => link,
        };
        let view = link.look(waits);
        let phase = match view.state {
            Stage::Closed | Stage::TimeWait | Stage::Listen | Stage::Closing | Stage::LastAck => {
                Phase::Closed
            }
            Stage::CloseWait => Phase::CloseWait,
            Stage::FinWait1 | Stage::FinWait2 => Phase::FinWait,
            Stage::SynSent | Stage::SynReceived | Stage::Established => Phase::Established,
        };
        Look {
            phase,
            n_readable: view.n_readable,
            n_unsent: view.n_unsent,
            has_urgent: false,
            is_at_mark: false,
            is_receive_shut: view.is_receive_shut,
            is_send_shut: view.is_send_shut,
            has_error: view.has_error,
            is_writable: view.is_writable,
        }
    }

    /// Returns the number that Linux gives the state.
    pub(super) fn number(&self, look: &Look) -> u8 {
        let Self::Remote(link) = self else { return phase_number(look.phase) };
        match link.look(false).state {
            Stage::Established => 1,
            Stage::SynSent => 2,
            Stage::SynReceived => 3,
            Stage::FinWait1 => 4,
            Stage::FinWait2 => 5,
            Stage::TimeWait => 6,
            Stage::Closed => 7,
            Stage::CloseWait => 8,
            Stage::LastAck => 9,
            Stage::Listen => 10,
            Stage::Closing => 11,
        }
    }

    /// Returns the largest segment.
    pub(super) fn mss(&self) -> i32 {
        match self {
            Self::Local(..) | Self::Host(_) => LOOPBACK_MSS,
            Self::Remote(link) => i32::try_from(link.look(false).mss).unwrap_or(LOOPBACK_MSS),
        }
    }

    pub(super) fn send(&self, src: &mut dyn IoSource, flags: MsgFlags) -> SysResult<usize> {
        match self {
            Self::Local(conn, side) => conn.send(*side, src, flags),
            Self::Remote(link) => link.send(src, flags),
            Self::Host(stream) => stream.send(src, flags),
        }
    }

    pub(super) fn recv(
        &self,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<(usize, MsgFlags)> {
        match self {
            Self::Local(conn, side) => conn.recv(*side, dst, flags),
            Self::Remote(link) => link.recv(dst, flags).map(|n| (n, MsgFlags::empty())),
            Self::Host(stream) => stream.recv(dst, flags),
        }
    }

    /// Copies what is behind the next `skip` bytes.
    pub(super) fn look_ahead(
        &self,
        dst: &mut dyn IoSink,
        skip: usize,
    ) -> SysResult<(usize, MsgFlags)> {
        let look = self.look(false);
        if look.n_readable == 0 {
            return self.recv(dst, MsgFlags::PEEK);
        }
        if look.n_readable <= skip {
            let is_over = look.is_receive_shut;
            return if is_over { Ok((0, MsgFlags::empty())) } else { Err(Errno::EAGAIN) };
        }
        let mut sink = VecSink::new(dst.remaining().saturating_add(skip).min(look.n_readable));
        let (_, flags) = self.recv(&mut sink, MsgFlags::PEEK)?;
        Ok((dst.put(sink.data.get(skip..).unwrap_or_default())?, flags))
    }

    /// Sends what is held back.
    pub(super) fn push(&self) {
        match self {
            Self::Local(conn, side) => conn.push(*side),
            Self::Remote(link) => link.push(),
            // DEVIATION: the host holds nothing back but what `MSG_MORE` says.
            Self::Host(_) => {}
        }
    }

    pub(super) fn shutdown(&self, receive: bool, send: bool) -> SysResult<()> {
        match self {
            Self::Local(conn, side) => conn.shutdown(*side, receive, send),
            Self::Remote(link) => link.shutdown(receive, send),
            Self::Host(stream) => stream.shutdown(receive, send),
        }
    }

    /// Closes the end for good. Returns whether TCP remembers the connection for a while.
    pub(super) fn close(&self, resets: bool) -> bool {
        match self {
            Self::Local(conn, side) => conn.close(*side, resets),
            Self::Remote(link) => link.close(resets),
            Self::Host(stream) => {
                stream.close(resets);
                // The host's kernel remembers.
                false
            }
        }
    }

    /// Returns what is set once the connection is reset after it was closed.
    pub(super) fn reset_flag(&self) -> Option<Arc<AtomicBool>> {
        match self {
            Self::Local(conn, _) => Some(conn.was_reset.clone()),
            Self::Remote(_) | Self::Host(_) => None,
        }
    }

    pub(super) fn take_error(&self) -> Option<Errno> {
        match self {
            Self::Local(conn, side) => conn.take_error(*side),
            Self::Remote(link) => link.take_error(),
            Self::Host(stream) => stream.take_error(),
        }
    }
}

impl TcpSocket {
    fn owner(&self) -> Owner<'_> {
        Owner { socket: self.this.clone(), queue: self.queue.clone(), options: &self.options }
    }

    /// Begins a connection to elsewhere. `EAGAIN`: the answer is still to come.
    pub(super) fn call_out(&self, from: Endpoint, to: Endpoint) -> SysResult<()> {
        let result = match self.inet().stack() {
            Some(stack) => Link::connect(stack, from, to, self.owner()),
            None => Err(Errno::ENETUNREACH),
        };
        let mut state = self.state.lock();
        let is_current = matches!(state.role, Role::Connecting { .. })
            && (state.local, state.peer) == (Some(from), Some(to));
        match result {
            Ok(link) if is_current => {
                state.role = Role::Connecting { link: Some(link.clone()) };
                drop(state);
                // What has become of it before anybody could be told.
                link.report();
                Err(Errno::EAGAIN)
            }
            Ok(link) => {
                drop(state);
                link.close(true);
                Err(Errno::ECONNABORTED)
            }
            Err(error) => {
                if is_current {
                    state.role = Role::Failed;
                    state.error = Some(error);
                    self.inet().tcp.leave_pair(from, to);
                    self.unbind(&mut state);
                }
                Err(error)
            }
        }
    }

    /// Is told that a connection has come about.
    pub(in crate::net) fn link_is_up(&self, link: &Arc<Link>) {
        self.show_connected_buffers();
        let is_cut = {
            let mut state = self.state.lock();
            match &state.role {
                Role::Connecting { link: Some(own) } if Arc::ptr_eq(own, link) => {}
                _ => return,
            }
            let stream = Stream::Remote(link.clone());
            state.role = Role::Connected { stream, is_announced: false };
            state.shut.0
        };
        if is_cut {
            // What was shut down before stays so; a connection that has ended meanwhile is as well.
            let _ = link.shutdown(true, false);
        }
        self.queue.notify(Events::all());
    }

    /// Is told that a connection has not come about.
    pub(in crate::net) fn link_has_failed(&self, link: &Arc<Link>, errno: Errno) {
        {
            let mut state = self.state.lock();
            match &state.role {
                Role::Connecting { link: Some(own) } if Arc::ptr_eq(own, link) => {}
                _ => return,
            }
            state.role = Role::Failed;
            state.error = Some(errno);
            self.inet().tcp.leave_pair(link.local, link.remote);
            // The port is free again, unless it was asked for.
            self.unbind(&mut state);
        }
        self.queue.notify(Events::all());
    }

    /// Lets a connection from elsewhere begin, where there is room for it.
    pub(in crate::net) fn welcome(
        self: &Arc<Self>,
        stack: &Arc<Stack>,
        local: Endpoint,
        remote: Endpoint,
    ) -> Option<Arc<Link>> {
        {
            let state = self.state.lock();
            let Role::Listening { backlog, pending, deferred, .. } = &state.role else {
                return None;
            };
            if pending.len() + deferred.len() > *backlog {
                return None;
            }
        }
        if self.n_embryos.load(Ordering::Relaxed) >= MAX_EMBRYOS {
            return None;
        }
        let server = self.offspring();
        let link = Link::welcome(stack, local, remote, server.owner(), self, &server)?;
        self.n_embryos.fetch_add(1, Ordering::Relaxed);
        Some(link)
    }

    /// Is told that a connection that was welcome has not come about.
    pub(in crate::net) fn lose_embryo(&self) {
        self.n_embryos.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes a connection that has come about into the queue.
    pub(in crate::net) fn admit_link(&self, server: Arc<Self>, link: &Arc<Link>) {
        self.n_embryos.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        let stream = Stream::Remote(link.clone());
        let Role::Listening { pending, deferred, .. } = &mut state.role else {
            drop(state);
            link.close(true);
            return;
        };
        {
            // Nobody else knows the new socket yet.
            let claim = server.claim(link.local.ip, ClaimState::Connected);
            let mut new = server.state.lock();
            new.role = Role::Connected { stream: stream.clone(), is_announced: true };
            new.local = Some(link.local);
            new.peer = Some(link.remote);
            let place = self.inet().tcp.share(link.local.port, claim, server.this.clone());
            new.place = Some(place);
        }
        // The pair is new as the link is.
        let now_ns = self.kernel.clock.monotonic_ns();
        let _ = self.inet().tcp.enter_pair(link.local, link.remote, now_ns);
        let waits = self.defer(&server, &stream);
        let is_ready = waits.is_none();
        match waits {
            Some(waits) => deferred.push(waits),
            None => pending.push_back(server),
        }
        drop(state);
        if is_ready {
            self.queue.notify(Events::READABLE);
        } else {
            self.admit_deferred();
        }
    }
}

impl Inet {
    /// Finds who listens where a connection goes. Of several that share the port, the client's port
    /// chooses one.
    pub(in crate::net) fn find_listener(
        &self,
        from: Endpoint,
        to: Endpoint,
    ) -> Option<Arc<TcpSocket>> {
        let mut best = 0;
        let mut found: Vec<Weak<TcpSocket>> = Vec::new();
        self.tcp.visit(to.port, &mut |claim, socket| {
            if claim.state != ClaimState::Listening {
                return;
            }
            let Some(score) = claim.score(to.ip) else { return };
            if score > best {
                best = score;
                found.clear();
            }
            if score == best {
                found.push(socket.clone());
            }
        });
        let n = found.len().max(1);
        found.get(usize::from(from.port) % n).and_then(Weak::upgrade)
    }
}
