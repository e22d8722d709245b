//! Sending datagrams, and who gets them.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use syscalls::abi::socket::{
    IP_MULTICAST_ALL, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_TOS, IP_TTL, IPV6_MULTICAST_HOPS,
    IPV6_MULTICAST_LOOP, IPV6_TCLASS, IPV6_UNICAST_HOPS, MsgFlags, SO_BROADCAST, SO_NO_CHECK,
    SO_REUSEPORT, SOL_IP, SOL_IPV6, StampFlags,
};
use syscalls::{Errno, SysResult};

use super::queue::{About, Complaint, Stamp};
use super::wishes::Wishes;
use super::{Endpoint, Family, State, UdpSocket};
use crate::kernel::Kernel;
use crate::net::filter::Seen;
use crate::net::inet::addr::{self, Given};
use crate::net::inet::local::Parcel;
use crate::net::inet::ports::Ports;
use crate::net::inet::{Inet, LOOPBACK_INDEX};
use crate::net::stack::Quality;
use crate::net::stack::wire::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_UDP};
use crate::net::{Outgoing, packet, read_all};
use crate::sync::Events;
use crate::vfs::IoSource;

/// The most bytes of a datagram, by the family that carries it.
const MAX_V4: usize = 65_507;
const MAX_V6: usize = 65_527;

/// The size of the header of UDP.
const UDP_HEADER: usize = 8;

/// The most datagrams that one is cut into.
const MAX_SEGMENTS: usize = 128;

/// A datagram that is being collected.
pub(super) struct Corked {
    data: Vec<u8>,
    from: Endpoint,
    to: Endpoint,
    wishes: Wishes,
}

impl Corked {
    /// Returns whether it goes to an address that only IPv6 has.
    pub(super) fn is_v6(&self) -> bool {
        self.to.ip.is_ipv6()
    }
}

impl State {
    /// Adds to the datagram that is being collected, or begins one.
    fn collect(
        &mut self,
        inet: &Inet,
        data: SysResult<Vec<u8>>,
        to: Option<Endpoint>,
        wishes: Wishes,
    ) -> SysResult<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.is_send_shut {
            return Err(Errno::EPIPE);
        }
        let max = |to: Endpoint| if to.ip.is_ipv4() { MAX_V4 } else { MAX_V6 };
        let data = data?;
        if let Some(corked) = &mut self.corked {
            if corked.data.len() + data.len() > max(corked.to) {
                return Err(Errno::EMSGSIZE);
            }
            corked.data.extend_from_slice(&data);
            return Ok(());
        }
        // What was being collected has left meanwhile.
        let to = to.ok_or(Errno::EDESTADDRREQ)?;
        if data.len() > max(to) {
            return Err(Errno::EMSGSIZE);
        }
        let from = source(inet, self, to, wishes)?;
        self.corked = Some(Corked { data, from, to, wishes });
        Ok(())
    }
}

impl UdpSocket {
    /// Returns where what is sent to `ip` arrives.
    pub(super) fn route(&self, ip: IpAddr) -> SysResult<IpAddr> {
        if ip.is_multicast() {
            let is_reachable = self.ip.has_multicast_interface(ip.is_ipv6())
                || self.options.is_bound_to_device()
                || self.inet.stack().is_some_and(|stack| stack.interface_for(ip).is_some());
            return if is_reachable { Ok(ip) } else { Err(Errno::ENETUNREACH) };
        }
        self.inet.route(ip)
    }

    /// Sends a datagram, or adds to one that is being collected, whose address and wishes are those of
    /// its first part.
    pub(super) fn do_send(&self, src: &mut dyn IoSource, message: &Outgoing) -> SysResult<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let total = src.remaining();
        if total > usize::from(u16::MAX) {
            return Err(Errno::EMSGSIZE);
        }
        let goes_on =
            message.flags.contains(MsgFlags::MORE) || self.knobs.cork.load(Ordering::Relaxed);
        let is_begun = self.state.lock().corked.is_some();
        let (to, wishes) = if is_begun {
            // As on Linux, only one of IPv6 is looked at.
            if self.family() == Family::V6 {
                self.given(message)?;
            }
            (None, Wishes::default())
        } else {
            let (to, wishes) = self.prepare(message)?;
            (Some(to), wishes)
        };
        let data = read_all(src);
        let whole = {
            let mut state = self.state.lock();
            let result = state.collect(&self.inet, data, to, wishes);
            if result.is_err() {
                // As on Linux nothing of it is left.
                state.corked = None;
            }
            result?;
            if goes_on {
                return Ok(total);
            }
            state.corked.take()
        };
        if let Some(Corked { data, from, to, wishes }) = whole {
            self.transmit(data, from, to, wishes)?;
        }
        Ok(total)
    }

    /// Finds out where a datagram goes, and how.
    fn prepare(&self, message: &Outgoing) -> SysResult<(Endpoint, Wishes)> {
        self.autobind(&mut self.state.lock())?;
        let to = self.destination(message)?;
        if to.port == 0 {
            return Err(Errno::EINVAL);
        }
        let to = Endpoint { ip: self.route(to.ip)?, port: to.port };
        if self.inet.is_broadcast(to.ip) && self.options.switch(SO_BROADCAST) != Some(true) {
            return Err(Errno::EACCES);
        }
        let mut wishes = Wishes::read(&self.inet, to.ip, &message.ancillary)?;
        wishes.segment.get_or_insert_with(|| self.knobs.segment.load(Ordering::Relaxed));
        Ok((to, wishes))
    }

    /// Sends what has been collected.
    pub(super) fn uncork(&self) {
        let collected = self.state.lock().corked.take();
        if let Some(Corked { data, from, to, wishes }) = collected {
            // As on Linux nobody is told.
            let _ = self.transmit(data, from, to, wishes);
        }
    }

    /// Returns the address that a message comes with.
    fn given(&self, message: &Outgoing) -> SysResult<Given> {
        let Some(given) = &message.addr else { return Ok(Given::Unspecified) };
        // An address of IPv6 is only good for its own kind.
        let is_v6only = self.is_v6only() || (self.family() == Family::V6 && self.is_bound_v6());
        match addr::parse_destination(self.family(), given, is_v6only)? {
            Given::Endpoint(to) if to.ip.is_ipv4() && is_v6only => Err(Errno::ENETUNREACH),
            given => Ok(given),
        }
    }

    fn destination(&self, message: &Outgoing) -> SysResult<Endpoint> {
        match self.given(message)? {
            Given::Endpoint(to) => Ok(to),
            Given::Unspecified => self.state.lock().peer.ok_or(Errno::EDESTADDRREQ),
        }
    }

    fn transmit(
        &self,
        data: Vec<u8>,
        from: Endpoint,
        to: Endpoint,
        wishes: Wishes,
    ) -> SysResult<()> {
        let inet = &self.inet;
        let segment = self.segment(data.len(), to.ip, wishes)?;
        let is_group = to.ip.is_multicast();
        let knob = |v4, v6| {
            let (level, name) = if to.ip.is_ipv4() { (SOL_IP, v4) } else { (SOL_IPV6, v6) };
            self.ip.value(level, name)
        };
        let ttl = if is_group {
            knob(IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS)
        } else {
            knob(IP_TTL, IPV6_UNICAST_HOPS)
        };
        let ttl = wishes.ttl.unwrap_or(ttl);
        let tos = wishes.tos.unwrap_or_else(|| knob(IP_TOS, IPV6_TCLASS));
        let time_ns = self.kernel.clock.realtime_ns();
        let coverage = self.coverage(data.len());
        let interface = LOOPBACK_INDEX;
        let about = About { from, to, ttl, tos, time_ns, interface, coverage, segment };
        let is_to_many = is_group || inet.is_broadcast(to.ip);
        let is_loopback = addr::is_broadcast(to.ip) && from.ip.is_loopback();
        if let Some(stack) = inet.stack().filter(|_| !inet.is_local(to.ip) && !is_loopback) {
            let quality = Quality {
                ttl: u8::try_from(ttl).unwrap_or(64),
                tos: u8::try_from(tos).unwrap_or(0),
                is_whole: false,
            };
            // DEVIATION: UDP-Lite stays within the sandbox.
            if self.is_lite {
                return Err(Errno::ENETUNREACH);
            }
            for piece in pieces(&data, segment) {
                stack.send_datagram(from, to, piece, quality)?;
            }
        }
        self.stamp(&data, &about, wishes.record);
        let is_here = is_to_many || inet.is_local(to.ip);
        if is_here && !self.is_lite && inet.is_watched() {
            let ttl_and_tos = |n: i32, default| u8::try_from(n).unwrap_or(default);
            let quality =
                Quality { ttl: ttl_and_tos(ttl, 64), tos: ttl_and_tos(tos, 0), is_whole: false };
            for piece in pieces(&data, segment) {
                let segment = summed_segment(from, to, piece);
                let parcel = Parcel::new((from.ip, to.ip), PROTOCOL_UDP, quality, &segment);
                inet.show_datagram(&parcel);
                if !is_to_many && inet.receiver(self.ports(), from, to).is_none() {
                    inet.refuse(&parcel, if to.ip.is_ipv4() { [3, 3] } else { [1, 4] });
                }
            }
        }
        if is_to_many {
            if is_group && knob(IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP) == 0 {
                return Ok(());
            }
            for receiver in inet.receivers_of_all(self.ports(), from, to) {
                receiver.take(data.clone(), about);
            }
            return Ok(());
        }
        if !inet.is_local(to.ip) {
            return Ok(());
        }
        match inet.receiver(self.ports(), from, to) {
            Some(receiver) => receiver.take(data, about),
            None if !self.is_lite
                && inet.stack().is_some_and(|stack| stack.ask_resolver(&data, from, to)) => {}
            None => {
                let (offender, errno) = (to.ip, Errno::ECONNREFUSED);
                self.complain(Complaint { data, to, offender, errno, stamp: None });
            }
        }
        Ok(())
    }

    /// Returns into how long datagrams one is to be cut, where it is longer.
    ///
    /// # Errors
    /// `EMSGSIZE` where these are too long, `EINVAL` where they are too many or come without a sum, `EIO` of
    /// UDP-Lite.
    fn segment(&self, len: usize, to: IpAddr, wishes: Wishes) -> SysResult<Option<u16>> {
        let Some(size) = wishes.segment.filter(|size| *size != 0) else { return Ok(None) };
        let n_headers = UDP_HEADER + if to.is_ipv4() { 20 } else { 40 };
        let mtu = usize::try_from(self.inet.loopback().limits().0).unwrap_or(usize::MAX);
        // DEVIATION: what goes elsewhere is cut further instead.
        if self.inet.is_local(to) && n_headers + len.min(size.into()) > mtu {
            return Err(Errno::EMSGSIZE);
        }
        let has_no_sum = if to.is_ipv4() {
            self.options.switch(SO_NO_CHECK) == Some(true)
        } else {
            self.knobs.no_check_send.load(Ordering::Relaxed)
        };
        if len > usize::from(size) * MAX_SEGMENTS || has_no_sum {
            return Err(Errno::EINVAL);
        }
        if self.is_lite {
            return Err(Errno::EIO);
        }
        Ok((len > size.into()).then_some(size))
    }

    /// Tells the sender when a datagram has left, where that is asked for.
    fn stamp(&self, data: &[u8], about: &About, record: Option<StampFlags>) {
        const SCHEDULED: u32 = 1;
        const SENT: u32 = 0;
        let (record, number) = self.options.stamping.sends(record);
        let events = [(StampFlags::TX_SCHED, SCHEDULED), (StampFlags::TX_SOFTWARE, SENT)];
        let events = events.into_iter().filter(|(flag, _)| record.contains(*flag));
        let mut is_any = false;
        for (_, event) in events {
            is_any = true;
            let is_time_only = self.options.stamping.flags().contains(StampFlags::OPT_TSONLY);
            let complaint = Complaint {
                data: if is_time_only { Vec::new() } else { frame(data, about) },
                to: about.to,
                offender: about.from.ip,
                errno: Errno::ENOMSG,
                stamp: Some(Stamp { time_ns: about.time_ns, event, number }),
            };
            self.inbox.lock().add_returned(complaint, self.receive_limit());
        }
        if is_any {
            self.queue.notify(Events::ERR);
        }
    }

    /// Returns how much of a datagram the checksum covers, where that is not all.
    fn coverage(&self, len: usize) -> Option<i32> {
        const HEADER: usize = 8;
        let coverage = self.knobs.send_coverage.load(Ordering::Relaxed);
        let is_partial = usize::try_from(coverage).is_ok_and(|covered| covered < len + HEADER);
        (coverage != 0 && is_partial).then_some(coverage)
    }

    /// Takes datagrams that have been sent as one: as one where that is asked for.
    fn take(&self, data: Vec<u8>, about: About) {
        if about.segment.is_none() || self.knobs.takes_many.load(Ordering::Relaxed) {
            return self.deliver(data, about);
        }
        for piece in pieces(&data, about.segment) {
            self.deliver(piece.to_vec(), About { segment: None, ..about });
        }
    }

    fn deliver(&self, data: Vec<u8>, about: About) {
        if let Some(coverage) = about.coverage
            && self.knobs.checks_coverage.load(Ordering::Relaxed)
        {
            // Zero asks for all of it.
            let least = self.knobs.receive_coverage.load(Ordering::Relaxed);
            if least == 0 || coverage < least {
                return;
            }
        }
        let mut data = data;
        if self.options.filter.is_set() {
            // The filter sees the datagram from its header on.
            let segment = segment(about.from, about.to, &data);
            match self.options.filter.admits(&Seen::plain(&segment), UDP_HEADER) {
                None => return,
                Some(n) => data.truncate(n.saturating_sub(UDP_HEADER)),
            }
        }
        if self.inbox.lock().add(data, about, self.receive_limit()) {
            self.queue.notify(Events::READABLE);
        }
    }
}

/// What comes with a datagram from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Arrival {
    pub(in crate::net) from: Endpoint,
    pub(in crate::net) to: Endpoint,
    pub(in crate::net) ttl: u8,
    pub(in crate::net) tos: u8,
    /// The number of the interface.
    pub(in crate::net) interface: i32,
}

impl Inet {
    /// Gives a datagram from elsewhere to whoever gets it. Returns whether there is anybody.
    pub(in crate::net) fn deliver_datagram(
        &self,
        kernel: &Kernel,
        data: &[u8],
        arrival: Arrival,
        is_to_many: bool,
    ) -> bool {
        let Arrival { from, to, ttl, tos, interface } = arrival;
        let time_ns = kernel.clock.realtime_ns();
        let (ttl, tos) = (ttl.into(), tos.into());
        let (coverage, segment) = (None, None);
        let about = About { from, to, ttl, tos, time_ns, interface, coverage, segment };
        let receivers = if is_to_many {
            self.receivers_of_all(&self.udp, from, to)
        } else {
            self.receiver(&self.udp, from, to).into_iter().collect()
        };
        for receiver in &receivers {
            receiver.deliver(data.to_vec(), about);
        }
        !receivers.is_empty()
    }

    /// Tells whoever has sent a datagram from `from` to `to` that it has not arrived.
    pub(in crate::net) fn complain(
        &self,
        from: Endpoint,
        to: Endpoint,
        data: Vec<u8>,
        offender: IpAddr,
        errno: Errno,
    ) {
        // The sender is who would get the answer.
        if let Some(sender) = self.receiver(&self.udp, to, from) {
            sender.complain(Complaint { data, to, offender, errno, stamp: None });
        }
    }

    /// Returns everybody with a port.
    fn on_port(
        ports: &Ports<Weak<UdpSocket>>,
        to: Endpoint,
    ) -> Vec<(Option<u32>, IpAddr, bool, Arc<UdpSocket>)> {
        let mut found: Vec<(Option<u32>, IpAddr, bool, Weak<UdpSocket>)> = Vec::new();
        ports.visit(to.port, &mut |claim, socket| {
            let shares = claim.options.switch(SO_REUSEPORT) == Some(true);
            found.push((claim.score(to.ip), claim.ip, shares, socket.clone()));
        });
        let upgrade = |(score, ip, shares, socket): (_, _, _, Weak<UdpSocket>)| {
            Some((score, ip, shares, socket.upgrade()?))
        };
        found.into_iter().filter_map(upgrade).collect()
    }

    /// Returns who gets a datagram: of those who fit best the last one that was bound, or where they
    /// share the port on purpose, the one that the sender's port chooses.
    fn receiver(
        &self,
        ports: &Ports<Weak<UdpSocket>>,
        from: Endpoint,
        to: Endpoint,
    ) -> Option<Arc<UdpSocket>> {
        let mut best = 0;
        let mut found: Vec<(bool, Arc<UdpSocket>)> = Vec::new();
        for (score, _, shares, socket) in Self::on_port(ports, to) {
            let Some(score) = score else { continue };
            let peer = socket.state.lock().peer;
            let score = match peer {
                Some(peer) if peer != from => continue,
                Some(_) => score + 8,
                None => score,
            };
            if score > best {
                best = score;
                found.clear();
            }
            if score == best {
                found.push((shares, socket));
            }
        }
        let n = found.len();
        if n > 1 && found.iter().all(|(shares, _)| *shares) {
            return found.get(usize::from(from.port) % n).map(|(_, socket)| socket.clone());
        }
        found.pop().map(|(_, socket)| socket)
    }

    /// Returns everybody who gets a datagram to a group or to all.
    fn receivers_of_all(
        &self,
        ports: &Ports<Weak<UdpSocket>>,
        from: Endpoint,
        to: Endpoint,
    ) -> Vec<Arc<UdpSocket>> {
        let candidates: Vec<_> = Self::on_port(ports, to)
            .into_iter()
            .filter(|(_, ip, _, socket)| {
                let is_family = ip.is_ipv4() == to.ip.is_ipv4()
                    || (ip.is_unspecified() && ip.is_ipv6() && !socket.is_v6only());
                let is_wildcard = ip.is_unspecified();
                let peer = socket.state.lock().peer;
                is_family && (is_wildcard || *ip == to.ip) && peer.is_none_or(|peer| peer == from)
            })
            .map(|(.., socket)| socket)
            .collect();
        if !to.ip.is_multicast() {
            return candidates;
        }
        let sockets = ports.all();
        let mut sockets = sockets.iter().filter_map(Weak::upgrade);
        let any_joined = sockets.any(|socket| socket.ip.has_joined(to.ip));
        let gets = |socket: &Arc<UdpSocket>| {
            let takes_all = to.ip.is_ipv4() && socket.ip.flag(SOL_IP, IP_MULTICAST_ALL);
            socket.ip.has_joined(to.ip) || (any_joined && takes_all)
        };
        candidates.into_iter().filter(gets).collect()
    }
}

/// Cuts data into datagrams of a length, of which the last one may be shorter.
fn pieces(data: &[u8], size: Option<u16>) -> impl Iterator<Item = &[u8]> {
    let size = size.map_or(data.len(), usize::from).max(1);
    let n = data.len().div_ceil(size).max(1);
    (0..n).map(move |index| {
        let start = index * size;
        data.get(start..data.len().min(start + size)).unwrap_or_default()
    })
}

/// Returns a datagram with all its headers, as the loopback interface has it.
fn frame(data: &[u8], about: &About) -> Vec<u8> {
    let About { from, to, ttl, tos, .. } = *about;
    let number = |n: i32, default| u8::try_from(n).unwrap_or(default);
    let quality = Quality { ttl: number(ttl, 64), tos: number(tos, 0), is_whole: false };
    let segment = summed_segment(from, to, data);
    let parcel = Parcel::new((from.ip, to.ip), PROTOCOL_UDP, quality, &segment);
    let ethertype = if to.ip.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    packet::frame_of([0; 6], [0; 6], ethertype, &parcel.packet())
}

/// Returns a datagram with its header.
fn segment(from: Endpoint, to: Endpoint, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len().saturating_add(UDP_HEADER)).unwrap_or(u16::MAX);
    let numbers = [from.port, to.port, len, 0].map(u16::to_be_bytes);
    [numbers.as_flattened(), data].concat()
}

/// Returns a datagram with its header and checksum.
fn summed_segment(from: Endpoint, to: Endpoint, data: &[u8]) -> Vec<u8> {
    let mut segment = segment(from, to, data);
    let sum = match wire::checksum(from.ip, to.ip, PROTOCOL_UDP, &segment) {
        // Zero would say that there is none.
        0 => 0xffff,
        sum => sum,
    };
    wire::put(&mut segment, 6, &sum.to_be_bytes());
    segment
}

/// Returns the source address of a datagram.
fn source(inet: &Inet, state: &State, to: Endpoint, wishes: Wishes) -> SysResult<Endpoint> {
    let local = state.local.ok_or(Errno::EINVAL)?;
    let ip = wishes.source.unwrap_or(local.ip);
    let is_usable = !ip.is_unspecified() && !ip.is_multicast() && ip.is_ipv4() == to.ip.is_ipv4();
    let ip = if is_usable { ip } else { inet.source_for(to.ip) };
    Ok(Endpoint { ip, port: local.port })
}
