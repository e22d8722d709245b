//! Raw sockets (`raw(7)`): packets of one protocol, with the header of IPv4 and without that of IPv6.
//!
//! DEVIATION: what ICMP reports about a packet is received as a packet, and never as an error.
//!
//! The lock of a socket is a leaf.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::abi::socket::{
    AF_UNSPEC, IP_HDRINCL, IP_PKTINFO, IP_RECVTOS, IP_RECVTTL, IP_TOS, IP_TTL, IPPROTO_ICMP,
    IPPROTO_ICMPV6, IPPROTO_RAW, IPV6_CHECKSUM, IPV6_HDRINCL, IPV6_HOPLIMIT, IPV6_PKTINFO,
    IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO, IPV6_RECVTCLASS, IPV6_TCLASS, IPV6_UNICAST_HOPS, MsgFlags,
    SO_BROADCAST, SOCK_RAW, SOL_ICMPV6, SOL_IP, SOL_IPV6, SOL_RAW, SOL_SOCKET,
};
use syscalls::{Errno, SysResult};
use zerocopy::IntoBytes;

use super::addr::{self, Endpoint, Family, Given};
use super::ip_options::{About, IpOptions};
use super::local::Parcel;
use super::udp::UdpEntry;
use super::{Inet, common_option, interface};
use crate::kernel::Kernel;
use crate::net::filter::Seen;
use crate::net::options::{DEFAULT_BUFFER, Options};
use crate::net::stack::{Quality, wire};
use crate::net::{Ancillary, Incoming, Outgoing, Shutdown, Socket, read_all};
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{IoSink, IoSource};

/// The options that say which messages of ICMP are not wanted: `ICMP_FILTER`, `ICMP6_FILTER`.
const ICMP_FILTER: i32 = 1;

/// The most bytes of a packet.
const MAX_LEN: usize = 65_535;

/// What a packet counts for besides its bytes.
const OVERHEAD: usize = 512;

struct Received {
    data: Vec<u8>,
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
    tos: u8,
    interface: i32,
    time_ns: i64,
}

#[derive(Default)]
struct State {
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
    /// The port that was given with it, which means nothing.
    peer_port: u16,
    is_receive_shut: bool,
    /// Whether what is sent has its header already.
    has_header: bool,
    /// Where the checksum is (IPv6).
    checksum_at: Option<usize>,
    /// What `MSG_MORE` has collected, and whence and whereto it goes.
    corked: Option<(Vec<u8>, IpAddr, IpAddr)>,
    /// The messages of ICMP that are not wanted.
    filter: [u32; 8],
    inbox: VecDeque<Received>,
    n_bytes: usize,
    n_dropped: u64,
}

/// A raw socket.
pub(super) struct RawSocket {
    kernel: Arc<Kernel>,
    inet: Arc<Inet>,
    family: Family,
    /// The protocol: no packet has one beyond a byte.
    protocol: u16,
    options: Options,
    ip: IpOptions,
    uid: u32,
    ino: AtomicU64,
    state: Mutex<State>,
    queue: WaitQueue,
}

impl RawSocket {
    /// Creates a socket.
    pub(super) fn create(task: &CurrentTask, family: Family, protocol: u16) -> Arc<Self> {
        let is_icmpv6 = family == Family::V6 && i32::from(protocol) == IPPROTO_ICMPV6;
        let state = State {
            has_header: i32::from(protocol) == IPPROTO_RAW,
            checksum_at: is_icmpv6.then_some(2),
            ..State::default()
        };
        let socket = Arc::new(Self {
            kernel: task.kernel.clone(),
            inet: task.inet(),
            family,
            protocol,
            options: Options::with_buffers(DEFAULT_BUFFER, DEFAULT_BUFFER),
            ip: IpOptions::default(),
            uid: task.creds().fsuid,
            ino: AtomicU64::new(0),
            state: Mutex::new(state),
            queue: WaitQueue::new(),
        });
        socket.inet.add_raw(&socket);
        socket
    }

    fn is_v6(&self) -> bool {
        self.family == Family::V6
    }

    fn is_icmp(&self) -> bool {
        let icmp = if self.is_v6() { IPPROTO_ICMPV6 } else { IPPROTO_ICMP };
        i32::from(self.protocol) == icmp
    }

    fn about(&self) -> About {
        let state = self.state.lock();
        About {
            is_v6: self.is_v6(),
            is_stream: false,
            is_raw: true,
            is_bound: state.local.is_some(),
            is_connected: state.peer.is_some(),
        }
    }

    /// Takes a packet in, where it is one for this socket.
    pub(super) fn take(&self, parcel: &Parcel<'_>) -> bool {
        let Parcel { from, to, protocol, ttl, tos, interface, payload, .. } = *parcel;
        let is_other_interface =
            self.options.is_bound_to_device() && interface != super::LOOPBACK_INDEX;
        if to.is_ipv6() != self.is_v6()
            || u16::from(protocol) != self.protocol
            || is_other_interface
        {
            return false;
        }
        let limit = usize::try_from(self.options.receive_buffer.load(Ordering::Relaxed));
        let mut state = self.state.lock();
        let is_other = state.peer.is_some_and(|peer| peer != from)
            || state.local.is_some_and(|local| local != to && !local.is_unspecified());
        if is_other || state.is_receive_shut {
            return false;
        }
        if self.is_icmp() && state.is_unwanted(payload, self.is_v6()) {
            return true;
        }
        if state.n_bytes > limit.unwrap_or(0) {
            state.n_dropped += 1;
            return true;
        }
        let mut data = if self.is_v6() { payload.to_vec() } else { parcel.packet() };
        match self.options.filter.admits(&Seen::plain(&data), 1) {
            Some(n) => data.truncate(n),
            None => return true,
        }
        state.n_bytes += data.len() + OVERHEAD;
        let time_ns = self.kernel.clock.realtime_ns();
        state.inbox.push_back(Received { data, from, to, ttl, tos, interface, time_ns });
        drop(state);
        self.queue.notify(Events::READABLE);
        true
    }

    /// Returns the socket as `/proc/net/raw` shows it.
    pub(super) fn entry(&self, is_v6: bool) -> Option<UdpEntry> {
        if self.is_v6() != is_v6 {
            return None;
        }
        let state = self.state.lock();
        let any = self.family.any();
        Some(UdpEntry {
            local: (state.local.unwrap_or(any), self.protocol),
            remote: (state.peer.unwrap_or(any), 0),
            state: if state.peer.is_some() { 1 } else { 7 },
            n_bytes: state.n_bytes,
            n_dropped: state.n_dropped,
            uid: self.uid,
            ino: self.ino.load(Ordering::Relaxed),
        })
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

    /// Sends a packet to whose header the sender has seen.
    fn send_whole(&self, from: IpAddr, to: IpAddr, packet: &mut [u8]) -> SysResult<()> {
        let inet = &self.inet;
        let stack = inet.stack().filter(|_| !inet.is_local(to));
        if self.is_v6() {
            if packet.len() < 40 {
                return Err(Errno::EINVAL);
            }
        } else {
            complete_header(packet, from, stack.map(|stack| stack.mtu_to(to)))?;
        }
        let Some(stack) = stack else {
            inet.show_bytes(packet);
            inet.input_bytes(&self.kernel, packet);
            return Ok(());
        };
        let from = wire::parse(packet).map_or(from, |packet| packet.from);
        // A source that is not ours says nothing about the way.
        let from = if inet.is_local(from) { from } else { inet.source_for(to) };
        stack.output(&mut wire::frame(&[], packet), from, to)
    }

    /// Sends what goes behind a header.
    fn send_payload(
        &self,
        (mut data, from, to): (Vec<u8>, IpAddr, IpAddr),
        checksum_at: Option<usize>,
    ) -> SysResult<()> {
        let inet = &self.inet;
        let [protocol, _] = self.protocol.to_le_bytes();
        if let Some(at) = checksum_at.filter(|_| self.is_v6()) {
            if at.checked_add(2).is_none_or(|end| end > data.len()) {
                return Err(Errno::EINVAL);
            }
            wire::put(&mut data, at, &[0; 2]);
            let sum = wire::checksum(from, to, protocol, &data);
            wire::put(&mut data, at, &sum.to_be_bytes());
        }
        let value = |v4, v6| {
            let (level, name) = if self.is_v6() { (SOL_IPV6, v6) } else { (SOL_IP, v4) };
            u8::try_from(self.ip.value(level, name)).unwrap_or(64)
        };
        let ttl = value(IP_TTL, IPV6_UNICAST_HOPS);
        let quality = Quality { ttl, tos: value(IP_TOS, IPV6_TCLASS), is_whole: false };
        match inet.stack() {
            Some(stack) if !inet.is_local(to) => {
                stack.send_segment((from, to), protocol, &data, quality)?;
            }
            _ => {
                let parcel = Parcel::new((from, to), protocol, quality, &data);
                inet.loop_back(&self.kernel, &parcel);
            }
        }
        Ok(())
    }

    fn ancillary(&self, received: &Received) -> Vec<Ancillary> {
        let mut messages = self.options.stamping.messages(received.time_ns, false);
        let mut add = |level, kind, data: &[u8]| {
            messages.push(Ancillary { level, kind, data: data.to_vec() });
        };
        let index = received.interface.to_ne_bytes();
        let (ttl, tos) = (i32::from(received.ttl), i32::from(received.tos));
        match received.to {
            IpAddr::V4(to) => {
                if self.ip.flag(SOL_IP, IP_PKTINFO) {
                    add(SOL_IP, IP_PKTINFO, &[index, to.octets(), to.octets()].concat());
                }
                if self.ip.flag(SOL_IP, IP_RECVTTL) {
                    add(SOL_IP, IP_TTL, &ttl.to_ne_bytes());
                }
                if self.ip.flag(SOL_IP, IP_RECVTOS) {
                    add(SOL_IP, IP_TOS, &[received.tos]);
                }
            }
            IpAddr::V6(to) => {
                if self.ip.flag(SOL_IPV6, IPV6_RECVPKTINFO) {
                    add(SOL_IPV6, IPV6_PKTINFO, &[&to.octets()[..], &index].concat());
                }
                if self.ip.flag(SOL_IPV6, IPV6_RECVHOPLIMIT) {
                    add(SOL_IPV6, IPV6_HOPLIMIT, &ttl.to_ne_bytes());
                }
                if self.ip.flag(SOL_IPV6, IPV6_RECVTCLASS) {
                    add(SOL_IPV6, IPV6_TCLASS, &tos.to_ne_bytes());
                }
            }
        }
        messages
    }

    fn get_own_option(&self, level: i32, name: i32) -> Option<SysResult<Vec<u8>>> {
        let state = self.state.lock();
        let number = |value: i32| Some(Ok(value.to_ne_bytes().to_vec()));
        match (level, name) {
            (SOL_IP, IP_HDRINCL) | (SOL_IPV6, IPV6_HDRINCL)
                if (level == SOL_IPV6) == self.is_v6() =>
            {
                number(state.has_header.into())
            }
            (SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if self.is_v6() => {
                let at = state.checksum_at.and_then(|at| i32::try_from(at).ok());
                number(at.unwrap_or(-1))
            }
            (SOL_RAW, ICMP_FILTER) if !self.is_v6() => {
                if !self.is_icmp() {
                    return Some(Err(Errno::EOPNOTSUPP));
                }
                Some(Ok(state.filter.first().copied().unwrap_or(0).to_ne_bytes().to_vec()))
            }
            (SOL_ICMPV6, ICMP_FILTER) if self.is_v6() && self.is_icmp() => {
                Some(Ok(state.filter.as_bytes().to_vec()))
            }
            (SOL_RAW | SOL_ICMPV6, _) => Some(Err(Errno::ENOPROTOOPT)),
            _ => None,
        }
    }

    fn set_own_option(&self, level: i32, name: i32, value: &[u8]) -> Option<SysResult<()>> {
        let number = value.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
        let mut state = self.state.lock();
        match (level, name) {
            (SOL_IP, IP_HDRINCL) | (SOL_IPV6, IPV6_HDRINCL)
                if (level == SOL_IPV6) == self.is_v6() =>
            {
                let byte = value.first().filter(|_| !self.is_v6()).map(|byte| i32::from(*byte));
                let Some(number) = number.or(byte) else { return Some(Err(Errno::EINVAL)) };
                state.has_header = number != 0;
            }
            (SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if self.is_v6() => {
                let Some(number) = number else { return Some(Err(Errno::EINVAL)) };
                // That of ICMP is where it is.
                let is_fixed = self.is_icmp() && level == SOL_IPV6;
                if is_fixed || (number > 0 && number % 2 != 0) {
                    return Some(Err(Errno::EINVAL));
                }
                state.checksum_at = usize::try_from(number).ok();
            }
            (SOL_RAW, ICMP_FILTER) if !self.is_v6() => {
                if !self.is_icmp() {
                    return Some(Err(Errno::EOPNOTSUPP));
                }
                fill(&mut state.filter, value.get(..4).unwrap_or(value));
            }
            (SOL_ICMPV6, ICMP_FILTER) if self.is_v6() && self.is_icmp() => {
                fill(&mut state.filter, value);
            }
            (SOL_RAW | SOL_ICMPV6, _) => return Some(Err(Errno::ENOPROTOOPT)),
            _ => return None,
        }
        Some(Ok(()))
    }
}

/// Stores as much of a filter as there is.
fn fill(filter: &mut [u32; 8], value: &[u8]) {
    let bytes = filter.as_mut_bytes();
    let n = value.len().min(bytes.len());
    if let (Some(to), Some(from)) = (bytes.get_mut(..n), value.get(..n)) {
        to.copy_from_slice(from);
    }
}

impl State {
    /// Returns whether a message of ICMP is not wanted.
    fn is_unwanted(&self, payload: &[u8], is_v6: bool) -> bool {
        let Some(kind) = payload.first() else { return false };
        // Those of IPv4 have 32 kinds that can be left out.
        let word = self.filter.get(usize::from(kind / 32)).filter(|_| is_v6 || *kind < 32);
        word.is_some_and(|word| word >> (kind % 32) & 1 != 0)
    }
}

/// Fills in what the sender of a whole packet of IPv4 leaves to the kernel.
fn complete_header(packet: &mut [u8], from: IpAddr, mtu: Option<usize>) -> SysResult<()> {
    let first = wire::byte(packet, 0).filter(|_| packet.len() >= 20).ok_or(Errno::EINVAL)?;
    let header_len = usize::from(first & 0xf) * 4;
    if header_len > packet.len() {
        return Err(Errno::EINVAL);
    }
    if mtu.is_some_and(|mtu| packet.len() > mtu) {
        return Err(Errno::EMSGSIZE);
    }
    if header_len < 20 {
        return Ok(());
    }
    let len = u16::try_from(packet.len()).map_err(|_| Errno::EMSGSIZE)?;
    wire::put(packet, 2, &len.to_be_bytes());
    if wire::number32(packet, 12) == Some(0)
        && let IpAddr::V4(from) = from
    {
        wire::put(packet, 12, &from.octets());
    }
    if wire::number16(packet, 4) == Some(0) {
        let mut id = [0; 2];
        sentry_host::random::fill(&mut id).map_err(|_| Errno::EAGAIN)?;
        wire::put(packet, 4, &id);
    }
    wire::put(packet, 10, &[0; 2]);
    let header = packet.get(..header_len).ok_or(Errno::EINVAL)?;
    let sum = !wire::fold(wire::add_to_sum(0, header));
    wire::put(packet, 10, &sum.to_be_bytes());
    Ok(())
}

impl Socket for RawSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        (self.family.number(), SOCK_RAW, self.protocol.into())
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
        if self.inet.is_broadcast(ip) && self.options.switch(SO_BROADCAST) != Some(true) {
            return Err(Errno::EACCES);
        }
        let mut state = self.state.lock();
        (state.peer, state.peer_port) = (Some(ip), to.port);
        if state.local.is_none() {
            state.local = Some(self.inet.source_for(ip));
        }
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let is_connected = {
            let mut state = self.state.lock();
            state.is_receive_shut |= how.receive;
            state.peer.is_some()
        };
        self.queue.notify(Events::all());
        if is_connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn local_addr(&self) -> Vec<u8> {
        let ip = self.state.lock().local.unwrap_or(self.family.any());
        // As on Linux the protocol is where others have the port.
        Endpoint { ip, port: self.protocol }.encode(self.family)
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        let state = self.state.lock();
        let ip = state.peer.ok_or(Errno::ENOTCONN)?;
        Ok(Endpoint { ip, port: state.peer_port }.encode(self.family))
    }

    fn send(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        outgoing: &Outgoing,
    ) -> SysResult<usize> {
        if src.remaining() > MAX_LEN {
            return Err(Errno::EMSGSIZE);
        }
        if outgoing.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let inet = &self.inet;
        let to = inet.route(self.destination(outgoing)?)?;
        if inet.is_broadcast(to) && self.options.switch(SO_BROADCAST) != Some(true) {
            return Err(Errno::EACCES);
        }
        let (local, has_header, checksum_at) = {
            let state = self.state.lock();
            (state.local, state.has_header, state.checksum_at)
        };
        let from = local.unwrap_or_else(|| inet.source_for(to));
        let mut data = read_all(src)?;
        let total = data.len();
        if has_header {
            self.send_whole(from, to, &mut data)?;
            return Ok(total);
        }
        let collected = {
            let mut state = self.state.lock();
            let (mut collected, from, to) = state.corked.take().unwrap_or((Vec::new(), from, to));
            // As on Linux nothing is left of what gets too long.
            if collected.len() + total > if self.is_v6() { MAX_LEN } else { MAX_LEN - 20 } {
                return Err(Errno::EMSGSIZE);
            }
            collected.append(&mut data);
            if outgoing.flags.contains(MsgFlags::MORE) {
                state.corked = Some((collected, from, to));
                return Ok(total);
            }
            (collected, from, to)
        };
        self.send_payload(collected, checksum_at)?;
        Ok(total)
    }

    fn recv(
        &self,
        _task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let is_peek = flags.contains(MsgFlags::PEEK);
        let mut state = self.state.lock();
        let received = state.inbox.front().ok_or(Errno::EAGAIN)?;
        let full = received.data.len();
        let n = full.min(dst.remaining());
        let stored = match received.data.get(..n) {
            Some(data) if n > 0 => dst.put(data),
            _ => Ok(0),
        };
        let incoming = Incoming {
            n,
            full,
            addr: Endpoint { ip: received.from, port: 0 }.encode(self.family),
            ancillary: self.ancillary(received),
            ..Incoming::default()
        };
        if !is_peek {
            state.inbox.pop_front();
            state.n_bytes = state.n_bytes.saturating_sub(full + OVERHEAD);
        }
        if stored? < n { Err(Errno::EFAULT) } else { Ok(incoming) }
    }

    fn has_ended(&self) -> bool {
        self.state.lock().is_receive_shut
    }

    fn take_error(&self) -> Option<Errno> {
        None
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        if let Some(result) = self.get_own_option(level, name) {
            return result;
        }
        match level {
            SOL_SOCKET => {
                interface::device_option(&self.options, name).unwrap_or_else(|| common_option(name))
            }
            SOL_IP | SOL_IPV6 => self.ip.get(self.about(), level, name),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        if let Some(result) = self.set_own_option(level, name, value) {
            return result;
        }
        match level {
            SOL_SOCKET => interface::set_device_option(task, &self.options, name, value),
            SOL_IP | SOL_IPV6 => self.ip.set(task, self.about(), level, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        interface::ioctl(task, request, arg)
    }

    fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn n_pending(&self) -> (usize, usize) {
        (self.state.lock().inbox.front().map_or(0, |first| first.data.len()), 0)
    }

    fn poll(&self) -> Events {
        let state = self.state.lock();
        let mut ready = Events::WRITABLE | Events::WRBAND;
        if !state.inbox.is_empty() || state.is_receive_shut {
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
