//! Sockets of ICMP (`icmp(7)`): echoes for the groups of `net.ipv4.ping_group_range`. Whole messages are
//! for raw sockets ([`raw`]).
//!
//! [`raw`]: super::raw
//!
//! DEVIATION: errors that are reported about a message are not told.
//!
//! Locks: `PingSocket::state` and the table of sockets are leaves.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use syscalls::abi::socket::{
    AF_UNSPEC, IP_RECVTTL, IP_TOS, IP_TTL, IPPROTO_ICMP, IPPROTO_ICMPV6, IPV6_HOPLIMIT,
    IPV6_RECVHOPLIMIT, IPV6_TCLASS, IPV6_UNICAST_HOPS, MsgFlags, SOCK_DGRAM, SOL_IP, SOL_IPV6,
    SOL_SOCKET,
};
use syscalls::{Errno, SysResult};

use super::addr::{self, Endpoint, Family, Given};
use super::ip_options::{About, IpOptions};
use super::local::Parcel;
use super::{Inet, common_option, interface};
use crate::kernel::Kernel;
use crate::net::filter::Seen;
use crate::net::options::{DEFAULT_BUFFER, Options};
use crate::net::stack::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use crate::net::stack::{Quality, message};
use crate::net::{Ancillary, Incoming, Outgoing, Shutdown, Socket};
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{IoSink, IoSource};

/// The most bytes of a message.
const MAX_LEN: usize = 65_507;

/// What a message counts for besides its bytes.
const OVERHEAD: usize = 512;

struct Received {
    data: Vec<u8>,
    from: IpAddr,
    ttl: u8,
    time_ns: i64,
}

#[derive(Default)]
struct State {
    /// By what the answers to this socket's echoes are known.
    ident: u16,
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
    is_shut: bool,
    inbox: VecDeque<Received>,
    n_bytes: usize,
}

/// A socket of ICMP.
pub struct PingSocket {
    kernel: Arc<Kernel>,
    inet: Arc<Inet>,
    family: Family,
    options: Options,
    ip: IpOptions,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// Returns whether the caller may send echoes without a raw socket.
pub(super) fn may_echo(task: &CurrentTask) -> bool {
    let limit = |index| task.kernel.sysctls.number("net/ipv4/ping_group_range", index);
    let (Some(first), Some(last)) = (limit(0), limit(1)) else { return false };
    let creds = task.creds();
    let is_in = |gid: u32| (first..=last).contains(&i64::from(gid));
    is_in(creds.egid) || creds.groups.iter().any(|gid| is_in(*gid))
}

/// Returns how a socket is addressed by a name without a port.
fn nameless(ip: IpAddr, family: Family) -> Vec<u8> {
    Endpoint { ip, port: 0 }.encode(family)
}

impl PingSocket {
    /// Creates a socket.
    pub fn create(task: &CurrentTask, family: Family) -> Arc<Self> {
        let socket = Arc::new(Self {
            kernel: task.kernel.clone(),
            inet: task.inet(),
            family,
            options: Options::with_buffers(DEFAULT_BUFFER, DEFAULT_BUFFER),
            ip: IpOptions::default(),
            state: Mutex::new(State::default()),
            queue: WaitQueue::new(),
        });
        let inet = task.inet();
        let mut sockets = inet.pings.lock();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(&socket));
        socket
    }

    fn is_v6(&self) -> bool {
        self.family == Family::V6
    }

    fn about(&self) -> About {
        let state = self.state.lock();
        About {
            is_v6: self.is_v6(),
            is_stream: false,
            is_raw: false,
            is_bound: state.ident != 0,
            is_connected: state.peer.is_some(),
        }
    }

    /// Returns the number by which answers are known, which is found where there is none.
    fn ident(&self) -> SysResult<u16> {
        let ident = self.state.lock().ident;
        if ident != 0 {
            return Ok(ident);
        }
        loop {
            let mut bytes = [0; 2];
            sentry_host::random::fill(&mut bytes).map_err(|_| Errno::EAGAIN)?;
            let ident = u16::from_ne_bytes(bytes);
            if ident != 0 && !self.inet.has_ident(ident, self.family) {
                self.state.lock().ident = ident;
                return Ok(ident);
            }
        }
    }

    /// Takes a message in, where it is one for this socket.
    fn take(&self, from: IpAddr, to: IpAddr, ttl: u8, data: &[u8]) {
        if from.is_ipv6() != self.is_v6() {
            return;
        }
        let kind = data.first().copied().unwrap_or(0);
        let ident =
            data.get(4..).and_then(<[u8]>::first_chunk).map(|bytes| u16::from_be_bytes(*bytes));
        let is_reply = kind == if self.is_v6() { 129 } else { 0 };
        let limit = usize::try_from(self.options.receive_buffer.load(Ordering::Relaxed));
        let mut state = self.state.lock();
        let is_for_us = is_reply && ident == Some(state.ident);
        let is_other = state.peer.is_some_and(|peer| peer != from)
            || state.local.is_some_and(|local| local != to && !local.is_unspecified());
        if !is_for_us || is_other || state.n_bytes > limit.unwrap_or(0) {
            return;
        }
        let mut data = data.to_vec();
        match self.options.filter.admits(&Seen::plain(&data), 1) {
            Some(n) => data.truncate(n),
            None => return,
        }
        state.n_bytes += data.len() + OVERHEAD;
        let time_ns = self.kernel.clock.realtime_ns();
        state.inbox.push_back(Received { data, from, ttl, time_ns });
        drop(state);
        self.queue.notify(Events::READABLE);
    }

    fn destination(&self, message: &Outgoing) -> SysResult<IpAddr> {
        let given = match &message.addr {
            Some(given) => addr::parse_destination(self.family, given, false)?,
            None => Given::Unspecified,
        };
        match given {
            Given::Endpoint(to) if to.ip.is_ipv6() != self.is_v6() => Err(Errno::EINVAL),
            Given::Endpoint(to) => Ok(to.ip),
            Given::Unspecified => self.state.lock().peer.ok_or(Errno::EDESTADDRREQ),
        }
    }

    fn ancillary(&self, received: &Received) -> Vec<Ancillary> {
        let mut messages = self.options.stamping.messages(received.time_ns, false);
        let mut add = |level, kind, data: &[u8]| {
            messages.push(Ancillary { level, kind, data: data.to_vec() });
        };
        let ttl = i32::from(received.ttl).to_ne_bytes();
        if !self.is_v6() && self.ip.flag(SOL_IP, IP_RECVTTL) {
            add(SOL_IP, IP_TTL, &ttl);
        }
        if self.is_v6() && self.ip.flag(SOL_IPV6, IPV6_RECVHOPLIMIT) {
            add(SOL_IPV6, IPV6_HOPLIMIT, &ttl);
        }
        messages
    }
}

impl Inet {
    fn ping_sockets(&self) -> Vec<Arc<PingSocket>> {
        self.pings.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn has_ident(&self, ident: u16, family: Family) -> bool {
        self.ping_sockets()
            .iter()
            .any(|socket| socket.family == family && socket.state.lock().ident == ident)
    }

    /// Gives a message to every socket that wants it.
    pub(in crate::net) fn deliver_icmp(&self, from: IpAddr, to: IpAddr, ttl: u8, data: &[u8]) {
        for socket in self.ping_sockets() {
            socket.take(from, to, ttl, data);
        }
    }
}

impl Socket for PingSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        let protocol = if self.is_v6() { IPPROTO_ICMPV6 } else { IPPROTO_ICMP };
        (self.family.number(), SOCK_DGRAM, protocol)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn bind(&self, _task: &CurrentTask, given: &[u8]) -> SysResult<()> {
        let endpoint = super::parse_bind(self.family, given, true)?;
        if !self.inet.can_bind(endpoint.ip) && !self.ip.is_free_to_bind() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if endpoint.port != 0 {
            if self.inet.has_ident(endpoint.port, self.family) {
                return Err(Errno::EADDRINUSE);
            }
            self.state.lock().ident = endpoint.port;
        }
        self.state.lock().local = Some(endpoint.ip).filter(|ip| !ip.is_unspecified());
        Ok(())
    }

    fn listen(&self, _task: &CurrentTask, _backlog: i32) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self, _task: &CurrentTask) -> SysResult<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn connect(&self, _task: &CurrentTask, given: &[u8], _may_wait: bool) -> SysResult<()> {
        if addr::family_of(given)? == AF_UNSPEC {
            self.state.lock().peer = None;
            return Ok(());
        }
        let to = addr::parse(self.family, given)?;
        let ip = self.inet.route(to.ip)?;
        self.ident()?;
        let mut state = self.state.lock();
        state.peer = Some(ip);
        if state.local.is_none() {
            state.local = Some(self.inet.source_for(ip));
        }
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let is_connected = {
            let mut state = self.state.lock();
            state.is_shut |= how.receive;
            state.peer.is_some()
        };
        self.queue.notify(Events::all());
        if is_connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn local_addr(&self) -> Vec<u8> {
        let state = self.state.lock();
        let ip = state.local.unwrap_or(self.family.any());
        Endpoint { ip, port: state.ident }.encode(self.family)
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        let peer = self.state.lock().peer.ok_or(Errno::ENOTCONN)?;
        Ok(nameless(peer, self.family))
    }

    fn send(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        outgoing: &Outgoing,
    ) -> SysResult<usize> {
        if outgoing.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let total = src.remaining();
        if total > MAX_LEN {
            return Err(Errno::EMSGSIZE);
        }
        let mut data = vec![0; total];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match src.get(rest)? {
                0 => return Err(Errno::EFAULT),
                n => done += n,
            }
        }
        let inet = &self.inet;
        let to = inet.route(self.destination(outgoing)?)?;
        let local = self.state.lock().local;
        let from = local.unwrap_or_else(|| inet.source_for(to));
        let request = if self.is_v6() { 128 } else { 8 };
        if data.len() < 8 || data.first_chunk() != Some(&[request, 0]) {
            return Err(Errno::EINVAL);
        }
        let ident = self.ident()?;
        if let Some(place) = data.get_mut(4..6) {
            place.copy_from_slice(&ident.to_be_bytes());
        }
        message::complete(&mut data, from, to);
        let value = |v4, v6| {
            let (level, name) = if self.is_v6() { (SOL_IPV6, v6) } else { (SOL_IP, v4) };
            u8::try_from(self.ip.value(level, name)).unwrap_or(64)
        };
        let ttl = value(IP_TTL, IPV6_UNICAST_HOPS);
        let quality = Quality { ttl, tos: value(IP_TOS, IPV6_TCLASS), is_whole: false };
        match inet.stack() {
            Some(stack) if !inet.is_local(to) => stack.send_message(from, to, &data, quality)?,
            _ => {
                let protocol = if self.is_v6() { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
                inet.loop_back(&self.kernel, &Parcel::new((from, to), protocol, quality, &data));
            }
        }
        Ok(total)
    }

    fn recv(
        &self,
        _task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let received = {
            let mut state = self.state.lock();
            let received = state.inbox.pop_front().ok_or(Errno::EAGAIN)?;
            state.n_bytes = state.n_bytes.saturating_sub(received.data.len() + OVERHEAD);
            received
        };
        let full = received.data.len();
        let n = full.min(dst.remaining());
        let result = dst.put(received.data.get(..n).unwrap_or_default());
        let incoming = Incoming {
            n,
            full,
            addr: nameless(received.from, self.family),
            ancillary: self.ancillary(&received),
            ..Incoming::default()
        };
        if flags.contains(MsgFlags::PEEK) {
            let mut state = self.state.lock();
            state.n_bytes += full + OVERHEAD;
            state.inbox.push_front(received);
        }
        if n > 0 && result? < n { Err(Errno::EFAULT) } else { Ok(incoming) }
    }

    fn has_ended(&self) -> bool {
        self.state.lock().is_shut
    }

    fn take_error(&self) -> Option<Errno> {
        None
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        match level {
            SOL_SOCKET => {
                interface::device_option(&self.options, name).unwrap_or_else(|| common_option(name))
            }
            SOL_IP | SOL_IPV6 => self.ip.get(self.about(), level, name),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        match level {
            SOL_SOCKET => interface::set_device_option(task, &self.options, name, value),
            SOL_IP | SOL_IPV6 => self.ip.set(task, self.about(), level, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        interface::ioctl(task, request, arg)
    }

    fn n_pending(&self) -> (usize, usize) {
        (self.state.lock().inbox.front().map_or(0, |first| first.data.len()), 0)
    }

    fn poll(&self) -> Events {
        let state = self.state.lock();
        let mut ready = Events::WRITABLE | Events::WRBAND;
        if !state.inbox.is_empty() || state.is_shut {
            ready |= Events::READABLE;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn close(&self) {
        let unread = std::mem::take(&mut *self.state.lock());
        drop(unread);
        self.queue.notify(Events::all());
    }
}
