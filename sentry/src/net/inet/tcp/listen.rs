//! Listening, and taking connections.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use syscalls::abi::socket::SO_REUSEADDR;
use syscalls::{Errno, SysResult};

use super::conn::{Phase, Side};
use super::{Role, State, Stream, TIME_WAIT_NS, TcpSocket};
use crate::net::Socket;
use crate::net::inet::addr::Endpoint;
use crate::net::inet::ports::ClaimState;
use crate::sync::Events;

/// The longest queue of connections: `net.core.somaxconn` unless changed.
const MAX_BACKLOG: i64 = 4096;

/// A client that waits for room, and since when.
pub(super) struct Waiting {
    client: Weak<TcpSocket>,
    since_ns: u64,
}

impl TcpSocket {
    /// Implements `listen(2)`.
    pub(super) fn do_listen(&self, backlog: i32) -> SysResult<()> {
        let max = self.kernel.sysctls.number("net/core/somaxconn", 0).unwrap_or(MAX_BACKLOG);
        let max = u32::try_from(max.clamp(0, 65_535)).unwrap_or(0);
        // A negative backlog is the largest.
        let backlog = usize::try_from(backlog.cast_unsigned().min(max)).unwrap_or(0);
        let mut state = self.state.lock();
        if state.is_stuck {
            return Err(Errno::EINVAL);
        }
        let State { role, local, place, remembered, .. } = &mut *state;
        match role {
            Role::Listening { backlog: old, .. } => {
                *old = backlog;
                drop(state);
                self.admit_waiting();
                return Ok(());
            }
            Role::Idle => {}
            Role::Connecting { .. } | Role::Failed | Role::Connected { .. } => {
                return Err(Errno::EINVAL);
            }
        }
        let now_ns = self.kernel.clock.monotonic_ns();
        let tcp = &self.inet().tcp;
        if place.is_none() {
            let ip = local.map_or(self.family().any(), |local| local.ip);
            let claim = self.claim(ip, ClaimState::Bound);
            let range = crate::net::inet::port_range(&self.kernel);
            let new = tcp.bind(0, claim, self.this.clone(), range, now_ns)?;
            *local = Some(Endpoint { ip, port: new.port });
            *place = Some(new);
        }
        // What the socket was before has the port as well.
        let is_kept = remembered.as_ref().is_some_and(|(until_ns, is_over)| {
            let is_over = is_over.as_ref().is_some_and(|over| over.load(Ordering::Relaxed));
            now_ns < *until_ns && !is_over
        });
        if is_kept && place.is_some() && self.options.switch(SO_REUSEADDR) != Some(true) {
            return Err(Errno::EADDRINUSE);
        }
        if let Some(place) = *place {
            tcp.listen(place, now_ns)?;
        }
        let port = place.map(|place| place.port);
        *role = Role::Listening {
            backlog,
            pending: VecDeque::new(),
            deferred: Vec::new(),
            waiting: VecDeque::new(),
            doors: Vec::new(),
        };
        drop(state);
        if let Some(port) = port {
            self.inet().want_doors(port);
        }
        self.queue.notify(Events::all());
        Ok(())
    }

    /// Takes the first connection that waits.
    pub(super) fn do_accept(&self) -> SysResult<Arc<Self>> {
        let first = match &mut self.state.lock().role {
            Role::Listening { pending, .. } => pending.pop_front(),
            _ => return Err(Errno::EINVAL),
        };
        let Some(socket) = first else { return self.accept_from_host() };
        self.admit_waiting();
        Ok(socket)
    }

    /// Lets clients in for which there is room now.
    pub(super) fn admit_waiting(&self) {
        loop {
            let client = {
                let mut state = self.state.lock();
                let Role::Listening { backlog, pending, deferred, waiting, .. } = &mut state.role
                else {
                    return;
                };
                if pending.len() + deferred.len() > *backlog {
                    return;
                }
                let Some(next) = waiting.pop_front() else { return };
                next.client.upgrade()
            };
            if let Some(client) = client {
                client.retry_connect();
            }
        }
    }

    /// Ends what a socket that is closed, or listens no more, has to do with others.
    pub(super) fn close_listener(&self, role: Role) {
        let Role::Listening { pending, deferred, waiting, doors, .. } = role else { return };
        drop(doors);
        let deferred = deferred.iter().map(|entry| entry.server.clone());
        for socket in deferred.chain(pending) {
            if let Some(stream) = socket.stream() {
                stream.close(true);
            }
            socket.close();
        }
        for Waiting { client, since_ns } in waiting {
            if let Some(client) = client.upgrade() {
                client.retry_connect_later(since_ns);
            }
        }
    }

    /// Implements `connect(2)` with `AF_UNSPEC`, and `shutdown(2)` of a listening socket: whatever
    /// there was is over, and the socket can be used anew.
    pub(super) fn disconnect(&self) {
        let (role, freed) = {
            let mut state = self.state.lock();
            let role = std::mem::replace(&mut state.role, Role::Idle);
            let place = state.place;
            self.leave_attempt(&role, &state);
            if let (Role::Listening { .. }, Some(place)) = (&role, place) {
                self.inet().tcp.update(place, |claim| claim.state = ClaimState::Bound);
            }
            let freed = if state.is_port_bound { None } else { state.place.take() };
            self.unbind(&mut state);
            state.peer = None;
            let is_cut = match &role {
                Role::Connected { stream, .. } => stream.look(false).phase != Phase::Closed,
                Role::Connecting { .. } => true,
                Role::Idle | Role::Failed | Role::Listening { .. } => false,
            };
            if is_cut {
                state.error = Some(Errno::ECONNRESET);
            } else if let Role::Connected { stream, .. } = &role {
                state.error = stream.take_error();
            }
            state.shut = (false, false);
            state.is_stuck = false;
            (role, freed)
        };
        let mut remembered = None;
        let now_ns = self.kernel.clock.monotonic_ns();
        if let Role::Connected { stream, .. } = &role {
            if stream.close(true) {
                remembered = Some((now_ns + TIME_WAIT_NS, stream.reset_flag()));
            }
            self.leave(stream);
        }
        let tcp = &self.inet().tcp;
        match (freed, remembered) {
            (None, None) => {}
            (None, remembered) => self.state.lock().remembered = remembered,
            (Some(place), None) => tcp.release(place),
            (Some(place), Some(until)) => tcp.release_later(place, until, now_ns, Weak::new()),
        }
        if let Role::Connecting { link: Some(link) } = &role {
            link.close(true);
        }
        self.close_listener(role);
        self.queue.notify(Events::all());
    }

    /// Returns a socket for a connection that this one takes.
    pub(super) fn offspring(&self) -> Arc<Self> {
        let server = Self::new(
            &self.kernel,
            &self.inet,
            self.family(),
            self.uid,
            self.options.inherit(),
            self.ip.inherit(),
            self.tcp.inherit(),
        );
        server.show_connected_buffers();
        server
    }

    /// Returns the connection's other end for `client`, in the queue of this socket.
    ///
    /// # Errors
    /// `ECONNREFUSED` where nobody listens any more; `EAGAIN` without room, in which case the client
    /// is called again.
    pub(super) fn admit(
        &self,
        client: &Arc<Self>,
        addrs: [Endpoint; 2],
    ) -> SysResult<Arc<super::Conn>> {
        let [from, to] = addrs;
        let mut state = self.state.lock();
        let is_ip_bound = state.is_ip_bound;
        let Role::Listening { backlog, pending, deferred, waiting, .. } = &mut state.role else {
            return Err(Errno::ECONNREFUSED);
        };
        if pending.len() + deferred.len() > *backlog {
            if waiting.len() == waiting.capacity() {
                forget_gone(waiting);
            }
            let since_ns = self.kernel.clock.monotonic_ns();
            waiting.push_back(Waiting { client: client.this.clone(), since_ns });
            return Err(Errno::EAGAIN);
        }
        let server = self.offspring();
        client.show_connected_buffers();
        let conn = super::Conn::new(
            Some(&self.kernel),
            addrs,
            [&client.options, &server.options],
            [client.queue.clone(), server.queue.clone()],
            false,
        );
        let claim = server.claim(to.ip, ClaimState::Connected);
        let stream = Stream::Local(conn.clone(), Side::Server);
        {
            // Nobody else knows the new socket yet.
            let mut new = server.state.lock();
            new.role = Role::Connected { stream: stream.clone(), is_announced: true };
            new.local = Some(to);
            new.is_ip_bound = is_ip_bound;
            new.peer = Some(from);
            let place = self.inet().tcp.share(to.port, claim, server.this.clone());
            // Nobody has asked for the port for this one.
            self.inet().tcp.end_with(place, conn.was_reset.clone());
            new.place = Some(place);
        }
        self.inet().tcp.set_pair(from, to, conn.pair(Side::Client).clone());
        self.inet().tcp.set_pair(to, from, conn.pair(Side::Server).clone());
        // Before the client has the connection nothing can be sent over it.
        let waits = self.defer(&server, &stream);
        let is_ready = waits.is_none();
        match waits {
            Some(waits) => deferred.push(waits),
            None => pending.push_back(server),
        }
        drop(state);
        if is_ready {
            self.queue.notify(Events::READABLE);
        }
        Ok(conn)
    }
}

/// Forgets clients that are closed, and those that are there twice.
fn forget_gone(waiting: &mut VecDeque<Waiting>) {
    let mut known = BTreeSet::new();
    waiting.retain(|Waiting { client, .. }| {
        client.strong_count() > 0 && known.insert(client.as_ptr().addr())
    });
}
