//! Connecting.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use super::conn::{Phase, Side};
use super::{CONNECTED_SEND_BUFFER, Conn, Role, Stream, TcpSocket};
use crate::net::inet::addr::{self, Endpoint, Family};
use crate::net::inet::ports::ClaimState;
use crate::sync::{Events, Waiter};
use crate::time::TimerHandle;

/// After how long Linux sends a SYN again; each further time it takes twice as long.
const FIRST_SYN_NS: u64 = 1_000_000_000;

/// After how long Linux sends one again that an end in `TIME_WAIT` has answered (`TCP_TIMEOUT_MIN`).
const CHALLENGED_SYN_NS: u64 = 8_000_000;

/// A further attempt that is to come.
pub(super) struct Again {
    _knock: Arc<dyn Waiter>,
    _timer: TimerHandle,
}

struct Knock(Weak<TcpSocket>);

impl Waiter for Knock {
    fn notify(&self, _key: u64, _events: Events) {
        if let Some(client) = self.0.upgrade() {
            client.retry_connect();
        }
    }
}

impl TcpSocket {
    /// Implements `connect(2)`. As on Linux, a call that may not wait is never told at once how the
    /// attempt has gone.
    pub(super) fn do_connect(&self, given: &[u8], may_wait: bool) -> SysResult<()> {
        {
            let mut state = self.state.lock();
            if state.is_stuck {
                return Err(Errno::EINVAL);
            }
            match &mut state.role {
                Role::Idle => {}
                Role::Listening { .. } | Role::Connected { is_announced: true, .. } => {
                    return Err(Errno::EISCONN);
                }
                Role::Connected { stream, is_announced } => {
                    if stream.look(false).phase != Phase::Closed {
                        *is_announced = true;
                        return Ok(());
                    }
                    let error = stream.take_error().unwrap_or(Errno::ECONNABORTED);
                    drop(state);
                    self.disconnect();
                    return Err(error);
                }
                Role::Connecting { .. } if may_wait => return Err(Errno::EAGAIN),
                Role::Connecting { .. } => return Err(Errno::EALREADY),
                Role::Failed => {
                    state.role = Role::Idle;
                    state.shut = (false, false);
                    let error = state.error.take().unwrap_or(Errno::ECONNABORTED);
                    self.unbind(&mut state);
                    state.peer = None;
                    return Err(error);
                }
            }
        }
        self.start_connect(given)?;
        let result = self.try_connect();
        let mut state = self.state.lock();
        match (&mut state.role, result) {
            (Role::Connected { is_announced, .. }, Ok(())) if may_wait => {
                *is_announced = true;
                Ok(())
            }
            // Whatever has been answered meanwhile, the next attempt tells it.
            (_, Err(Errno::EAGAIN)) if may_wait => Err(Errno::EAGAIN),
            (Role::Failed, Err(error)) if may_wait => {
                state.role = Role::Idle;
                state.shut = (false, false);
                state.error = None;
                self.unbind(&mut state);
                state.peer = None;
                Err(error)
            }
            _ => Err(Errno::EINPROGRESS),
        }
    }

    /// Checks the address and takes a port.
    fn start_connect(&self, given: &[u8]) -> SysResult<()> {
        let given = addr::parse(self.family(), given)?;
        if self.family() == Family::V6 && given.ip.is_ipv4() && self.is_v6only() {
            return Err(Errno::ENETUNREACH);
        }
        let ip = self.inet().route(given.ip)?;
        if ip.is_multicast() {
            return Err(Errno::ENETUNREACH);
        }
        if self.inet().is_broadcast(ip) {
            return Err(Errno::EACCES);
        }
        let to = Endpoint { ip, port: given.port };
        let mut state = self.state.lock();
        if !matches!(state.role, Role::Idle) {
            return Err(Errno::EALREADY);
        }
        let bound = state.local.map(|local| local.ip).filter(|ip| !ip.is_unspecified());
        if bound.is_some_and(|bound| bound.is_ipv4() != ip.is_ipv4()) {
            return Err(Errno::ENETUNREACH);
        }
        let from_ip = bound.unwrap_or_else(|| self.inet().source_for(ip));
        if from_ip.is_loopback() && !self.inet().is_local(ip) {
            return Err(Errno::EINVAL);
        }
        let tcp = &self.inet().tcp;
        let now_ns = self.kernel.clock.monotonic_ns();
        let port = match state.place {
            Some(place) => {
                tcp.update(place, |claim| claim.ip = from_ip);
                place.port
            }
            None => {
                let claim = self.claim(from_ip, ClaimState::Connected);
                let range = crate::net::inet::port_range(&self.kernel);
                let place = tcp.connect(claim, to, (self.this.clone(), now_ns), range)?;
                state.place = Some(place);
                place.port
            }
        };
        let from = Endpoint { ip: from_ip, port };
        if let Err(error) = tcp.enter_pair(from, to, now_ns) {
            self.unbind(&mut state);
            return Err(error);
        }
        state.local = Some(from);
        state.peer = Some(to);
        state.error = None;
        state.role = Role::Connecting { link: None };
        Ok(())
    }

    /// Makes a connection, or says why there is none and leaves the socket as one that has failed.
    fn try_connect(&self) -> SysResult<()> {
        let (from, to) = {
            let state = self.state.lock();
            match (&state.role, state.local, state.peer) {
                // The answer comes from elsewhere.
                (Role::Connecting { link: Some(_) }, ..) => return Err(Errno::EAGAIN),
                (Role::Connecting { link: None }, Some(from), Some(to)) => (from, to),
                _ => return Err(Errno::ECONNABORTED),
            }
        };
        if !self.inet().is_local(to.ip) {
            return self.call_out(from, to);
        }
        let result = match self.inet().find_listener(from, to) {
            Some(listener) => match self.this.upgrade() {
                Some(this) => listener.admit(&this, [from, to]),
                None => Err(Errno::ECONNABORTED),
            },
            None if from == to => Ok(self.connect_to_self(from)),
            None if self.is_challenged(from, to) => return Err(Errno::EAGAIN),
            None => Err(Errno::ECONNREFUSED),
        };
        let mut cut = None;
        let mut state = self.state.lock();
        let is_current = matches!(state.role, Role::Connecting { .. })
            && (state.local, state.peer) == (Some(from), Some(to));
        let result = match result {
            Ok(conn) if is_current => {
                cut = state.shut.0.then(|| conn.clone());
                if let Some(place) = state.place.filter(|_| !state.is_port_bound) {
                    self.inet().tcp.end_with(place, conn.was_reset.clone());
                }
                let stream = Stream::Local(conn, Side::Client);
                state.role = Role::Connected { stream, is_announced: false };
                Ok(())
            }
            Ok(conn) => {
                // The socket was disconnected meanwhile.
                drop(state);
                conn.close(Side::Client, true);
                self.leave(&Stream::Local(conn, Side::Client));
                return Err(Errno::ECONNABORTED);
            }
            Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
            Err(error) => {
                if is_current {
                    state.role = Role::Failed;
                    state.error = Some(error);
                    self.inet().tcp.leave_pair(from, to);
                    // The port is free again, unless it was asked for.
                    self.unbind(&mut state);
                }
                Err(error)
            }
        };
        drop(state);
        if let Some(conn) = cut {
            // What was shut down before stays so; a connection that has ended meanwhile is as well.
            let _ = conn.shutdown(Side::Client, true, false);
        }
        self.queue.notify(Events::all());
        result
    }

    /// Tries again for a client that has waited for room.
    pub(super) fn retry_connect(&self) {
        // Whoever waits looks at the socket itself.
        let _ = self.try_connect();
    }

    /// Tries again when a client that waits for room since then would send its SYN again: nobody tells it that who
    /// has listened is gone, and somebody else may listen by then.
    pub(super) fn retry_connect_later(&self, since_ns: u64) {
        let waited_ns = self.kernel.clock.monotonic_ns().saturating_sub(since_ns);
        let mut at_ns = FIRST_SYN_NS;
        while at_ns <= waited_ns {
            at_ns = at_ns.saturating_mul(2).saturating_add(FIRST_SYN_NS);
        }
        self.retry_connect_at(since_ns.saturating_add(at_ns));
    }

    /// Returns whether there still is the other end of a connection that was between just these two. It answers a SYN
    /// with what it has acknowledged last; the client answers that with a RST, at which it goes (RFC 1337, section
    /// 2), and tries again soon.
    fn is_challenged(&self, from: Endpoint, to: Endpoint) -> bool {
        let now_ns = self.kernel.clock.monotonic_ns();
        let is_challenged = self.inet().tcp.forget_remembered(to, from, now_ns);
        if is_challenged {
            self.retry_connect_at(now_ns.saturating_add(CHALLENGED_SYN_NS));
        }
        is_challenged
    }

    fn retry_connect_at(&self, at_ns: u64) {
        let knock: Arc<dyn Waiter> = Arc::new(Knock(self.this.clone()));
        let timer = self.kernel.timers.schedule(at_ns, &knock, 0);
        *self.again.lock() = Some(Again { _knock: knock, _timer: timer });
    }

    fn connect_to_self(&self, addr: Endpoint) -> Arc<Conn> {
        self.show_connected_buffers();
        let queues = [self.queue.clone(), self.queue.clone()];
        let options = [&self.options, &self.options];
        let conn = Conn::new(Some(&self.kernel), [addr, addr], options, queues, true);
        self.inet().tcp.set_pair(addr, addr, conn.pair(Side::Client).clone());
        conn
    }

    /// Makes the sizes of the buffers those that Linux shows of a connection.
    pub(super) fn show_connected_buffers(&self) {
        if self.options.set_send_buffer().is_none() {
            self.options.send_buffer.store(CONNECTED_SEND_BUFFER, Ordering::Relaxed);
        }
    }
}
