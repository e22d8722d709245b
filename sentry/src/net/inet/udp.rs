//! UDP sockets (`udp(7)`), and those of UDP-Lite (`udplite(7)`), which have ports of their own.
//!
//! A datagram goes straight into the queue of whoever gets it; where that is full it is lost, as on
//! a network. Where nobody has the port, a connected sender is told, as ICMP would tell it.
//!
//! Locks: `UdpSocket::state` of one socket at a time; below it the ports. The queue's lock is a leaf.

mod options;
mod queue;
mod send;
mod wishes;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::socket::{
    AF_UNSPEC, IPPROTO_UDP, IPPROTO_UDPLITE, IPV6_V6ONLY, MsgFlags, SO_BROADCAST, SOCK_DGRAM,
    SOL_IPV6,
};
use syscalls::{Errno, SysResult};

use self::queue::{Complaint, Queue};
pub(in crate::net) use self::send::Arrival;
use super::addr::{self, Endpoint, Family, FamilyCell};
use super::ip_options::{About, IpOptions};
use super::ports::{Claim, ClaimState, Place, Ports};
use super::{Inet, interface};
use crate::kernel::Kernel;
use crate::net::options::{DEFAULT_BUFFER, Options};
use crate::net::{Incoming, Outgoing, Shutdown, Socket};
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{IoSink, IoSource};

struct State {
    local: Option<Endpoint>,
    place: Option<Place>,
    /// Whether the address or the port was given by `bind(2)`.
    is_ip_bound: bool,
    is_port_bound: bool,
    peer: Option<Endpoint>,
    error: Option<Errno>,
    is_receive_shut: bool,
    is_send_shut: bool,
    /// What `UDP_CORK` and `MSG_MORE` have collected, and where it goes.
    corked: Option<send::Corked>,
}

/// A UDP socket.
pub struct UdpSocket {
    this: Weak<UdpSocket>,
    kernel: Arc<Kernel>,
    inet: Arc<Inet>,
    family: FamilyCell,
    is_lite: bool,
    uid: u32,
    ino: AtomicU64,
    options: Arc<Options>,
    ip: IpOptions,
    knobs: options::Knobs,
    state: Mutex<State>,
    inbox: Mutex<Queue>,
    queue: WaitQueue,
}

/// A line of `/proc/net/udp`.
#[derive(Clone, Copy, Debug)]
pub struct UdpEntry {
    /// The own address and port.
    pub local: (IpAddr, u16),
    /// The peer's.
    pub remote: (IpAddr, u16),
    /// As Linux numbers the states.
    pub state: u8,
    /// Bytes that wait to be read.
    pub n_bytes: usize,
    /// Datagrams that were lost.
    pub n_dropped: u64,
    /// The owner.
    pub uid: u32,
    /// The inode number of the socket's file.
    pub ino: u64,
}

impl UdpSocket {
    /// Creates a socket.
    pub fn create(task: &CurrentTask, family: Family, is_lite: bool) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            kernel: task.kernel.clone(),
            inet: task.inet(),
            family: FamilyCell::new(family),
            is_lite,
            uid: task.creds().fsuid,
            ino: AtomicU64::new(0),
            options: Arc::new(Options::with_buffers(DEFAULT_BUFFER, DEFAULT_BUFFER)),
            ip: IpOptions::default(),
            knobs: options::Knobs::default(),
            state: Mutex::new(State {
                local: None,
                place: None,
                is_ip_bound: false,
                is_port_bound: false,
                peer: None,
                error: None,
                is_receive_shut: false,
                is_send_shut: false,
                corked: None,
            }),
            inbox: Mutex::new(Queue::default()),
            queue: WaitQueue::new(),
        })
    }

    fn receive_limit(&self) -> usize {
        usize::try_from(self.options.receive_buffer.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn ports(&self) -> &Ports<Weak<Self>> {
        if self.is_lite { &self.inet.udplite } else { &self.inet.udp }
    }

    fn family(&self) -> Family {
        self.family.get()
    }

    fn is_v6only(&self) -> bool {
        self.family() == Family::V6 && self.ip.flag(SOL_IPV6, IPV6_V6ONLY)
    }

    /// Returns whether `bind(2)` has given the socket an address that only IPv6 has.
    fn is_bound_v6(&self) -> bool {
        let state = self.state.lock();
        state.is_ip_bound && state.local.is_some_and(|local| local.ip.is_ipv6())
    }

    fn about(&self) -> About {
        let state = self.state.lock();
        About {
            is_v6: self.family() == Family::V6,
            is_stream: false,
            is_raw: false,
            is_bound: state.place.is_some(),
            is_connected: state.peer.is_some(),
        }
    }

    fn claim(&self, ip: IpAddr) -> Claim {
        Claim {
            ip,
            v6only: self.is_v6only(),
            options: self.options.clone(),
            uid: self.uid,
            state: ClaimState::Bound,
        }
    }

    /// Takes a port.
    fn take_port(&self, state: &mut State, endpoint: Endpoint) -> SysResult<()> {
        let place = self.ports().bind(
            endpoint.port,
            self.claim(endpoint.ip),
            self.this.clone(),
            super::port_range(&self.kernel),
            self.kernel.clock.monotonic_ns(),
        )?;
        state.local = Some(Endpoint { ip: endpoint.ip, port: place.port });
        state.place = Some(place);
        Ok(())
    }

    /// Takes some port, where there is none.
    fn autobind(&self, state: &mut State) -> SysResult<()> {
        if state.place.is_some() {
            return Ok(());
        }
        let ip = state.local.map_or(self.family().any(), |local| local.ip);
        self.take_port(state, Endpoint { ip, port: 0 }).map_err(|_| Errno::EAGAIN)
    }

    fn set_local_ip(&self, state: &mut State, ip: IpAddr) {
        if let Some(local) = &mut state.local {
            local.ip = ip;
        }
        if let Some(place) = state.place {
            self.ports().update(place, |claim| claim.ip = ip);
        }
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        state.peer = None;
        if !state.is_ip_bound {
            self.set_local_ip(&mut state, self.family().any());
        }
        if !state.is_port_bound
            && let Some(place) = state.place.take()
        {
            self.ports().release(place);
            if let Some(local) = &mut state.local {
                local.port = 0;
            }
        }
    }

    /// Is told that nobody has the port that a datagram was sent to.
    fn complain(&self, complaint: Complaint) {
        let errno = complaint.errno;
        let wants_all = self.wants_complaints();
        {
            let mut state = self.state.lock();
            // The message names both addresses: it finds a connected socket by its own peer only.
            match state.peer {
                Some(peer) if peer != complaint.to => return,
                None if !wants_all => return,
                _ => {}
            }
            state.error = Some(errno);
        }
        if wants_all {
            self.inbox.lock().add_returned(complaint, self.receive_limit());
        }
        self.queue.notify(Events::all());
    }

    /// Returns the socket as `/proc/net/udp` shows it.
    pub fn entry(&self) -> Option<UdpEntry> {
        let state = self.state.lock();
        let local = state.local?;
        let peer = state.peer.unwrap_or(Endpoint { ip: self.family().any(), port: 0 });
        let inbox = self.inbox.lock();
        Some(UdpEntry {
            local: (local.ip, local.port),
            remote: (peer.ip, peer.port),
            state: if state.peer.is_some() { 1 } else { 7 },
            n_bytes: inbox.n_bytes(),
            n_dropped: inbox.n_dropped,
            uid: self.uid,
            ino: self.ino.load(Ordering::Relaxed),
        })
    }

    /// Returns whether the socket is one of IPv6.
    pub fn is_v6(&self) -> bool {
        self.family() == Family::V6
    }
}

impl Socket for UdpSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        let protocol = if self.is_lite { IPPROTO_UDPLITE } else { IPPROTO_UDP };
        (self.family().number(), SOCK_DGRAM, protocol)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn bind(&self, task: &CurrentTask, given: &[u8]) -> SysResult<()> {
        let endpoint = super::parse_bind(self.family(), given, self.is_v6only())?;
        if !self.inet.can_bind(endpoint.ip) && !self.ip.is_free_to_bind() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        super::check_port(task, endpoint.port)?;
        let mut state = self.state.lock();
        if state.place.is_some() {
            return Err(Errno::EINVAL);
        }
        self.take_port(&mut state, endpoint)?;
        state.is_ip_bound = !endpoint.ip.is_unspecified();
        state.is_port_bound = endpoint.port != 0;
        drop(state);
        self.ip.note_bound(self.family(), endpoint.ip);
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
            self.disconnect();
            return Ok(());
        }
        let is_mapped =
            self.family() == Family::V6 && addr::family_of(given) == Ok(Family::V4.number());
        let family = if is_mapped { Family::V4 } else { self.family() };
        let to = addr::parse(family, given)?;
        if to.ip.is_ipv4()
            && self.family() == Family::V6
            && (self.is_v6only() || self.is_bound_v6())
        {
            return Err(if is_mapped { Errno::EAFNOSUPPORT } else { Errno::ENETUNREACH });
        }
        let ip = self.route(to.ip)?;
        if self.inet.is_broadcast(ip) && self.options.switch(SO_BROADCAST) != Some(true) {
            return Err(Errno::EACCES);
        }
        let mut state = self.state.lock();
        self.autobind(&mut state)?;
        let bound = state.local.map(|local| local.ip).filter(|ip| !ip.is_unspecified());
        let is_other = bound.is_some_and(|bound| bound.is_ipv4() != ip.is_ipv4());
        if is_other && state.is_ip_bound {
            return Err(Errno::ENETUNREACH);
        }
        if is_other && ip.is_ipv6() {
            return Err(Errno::EAFNOSUPPORT);
        }
        if bound.is_none() || is_other {
            self.set_local_ip(&mut state, self.inet.source_for(ip));
        }
        state.peer = Some(Endpoint { ip, port: to.port });
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let is_connected = {
            let mut state = self.state.lock();
            state.is_receive_shut |= how.receive;
            state.is_send_shut |= how.send;
            state.peer.is_some()
        };
        self.queue.notify(Events::all());
        if is_connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn local_addr(&self) -> Vec<u8> {
        let local = self.state.lock().local;
        local.unwrap_or(Endpoint { ip: self.family().any(), port: 0 }).encode(self.family())
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        let peer = self.state.lock().peer.filter(|peer| peer.port != 0);
        Ok(peer.ok_or(Errno::ENOTCONN)?.encode(self.family()))
    }

    fn send(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        message: &Outgoing,
    ) -> SysResult<usize> {
        self.do_send(src, message)
    }

    fn recv(
        &self,
        _task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return self.recv_complaint(dst);
        }
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        let is_peek = flags.contains(MsgFlags::PEEK);
        let skip = if is_peek { self.options.peek_at().unwrap_or(0) } else { 0 };
        let datagram = self.inbox.lock().recv(dst, is_peek, skip)?;
        self.options.has_received(if is_peek { datagram.n } else { datagram.full }, is_peek);
        Ok(Incoming {
            n: datagram.n,
            full: datagram.full,
            addr: datagram.about.from.encode(self.family()),
            ancillary: self.ancillary(&datagram.about),
            ..Incoming::default()
        })
    }

    fn has_ended(&self) -> bool {
        self.state.lock().is_receive_shut
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        self.get_option(level, name)
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        self.change_option(task, level, name, value)
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        interface::ioctl(task, request, arg)
    }

    fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn n_pending(&self) -> (usize, usize) {
        (self.inbox.lock().n_first(), 0)
    }

    fn poll(&self) -> Events {
        let mut ready = Events::WRITABLE | Events::WRBAND;
        {
            let state = self.state.lock();
            if state.error.is_some() {
                ready |= Events::ERR;
            }
            if state.is_receive_shut {
                ready |= Events::READABLE | Events::RDHUP;
                if state.is_send_shut {
                    ready |= Events::HUP;
                }
            }
        }
        let inbox = self.inbox.lock();
        if !inbox.is_empty() {
            ready |= Events::READABLE;
        }
        if inbox.has_returned() {
            ready |= Events::ERR;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn close(&self) {
        let place = self.state.lock().place.take();
        if let Some(place) = place {
            self.ports().release(place);
        }
        let unread = std::mem::take(&mut *self.inbox.lock());
        drop(unread);
        self.queue.notify(Events::all());
    }
}
