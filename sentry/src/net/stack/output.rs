//! Sending: which way a packet goes, and to whom on the link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use syscalls::{Errno, SysResult};

use super::neighbor::{Answer, Key};
use super::wire::{self, BROADCAST_MAC, FRAME_HEAD, Mac, Manner, VNET_HEADER};
use super::{Nic, Stack, broadcast_of, is_to_many};
use crate::net::inet::Endpoint;
use crate::net::inet::interface::ARPHRD_ETHER;
use crate::net::packet::{Direction, PacketSocket, Wire};

/// The header of ARP for Ethernet and IPv4.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

const ARP_REQUEST: u16 = 1;
pub(super) const ARP_REPLY: u16 = 2;

/// The messages of neighbour discovery.
pub(super) const NEIGHBOR_SOLICITATION: u8 = 135;
pub(super) const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// What a sender asks for besides the data.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Whether a packet that is too long is refused and not cut.
    pub is_whole: bool,
}

impl Nic {
    /// Sends a frame; where there is no room it is lost, as on a wire.
    fn transmit(&self, frame: &[u8]) {
        self.show(frame, Direction::Outgoing, None);
        self.put_on_wire(frame);
    }

    /// Sends a frame of a packet socket, from the header of Ethernet on.
    pub(in crate::net) fn send_frame(&self, frame: &[u8], sender: &PacketSocket) {
        let frame = [&[0; VNET_HEADER], frame].concat();
        self.show(&frame, Direction::Outgoing, Some(sender));
        self.put_on_wire(&frame);
    }

    /// Shows packet sockets a frame that has arrived.
    pub(super) fn show_arrived(&self, frame: &[u8]) {
        let mac = |at: usize| frame.get(VNET_HEADER + at..).and_then(<[u8]>::first_chunk::<6>);
        let (Some(to), Some(from)) = (mac(0), mac(6)) else { return };
        // The host shows what it has sent for us as well.
        if *from == self.config.mac {
            return;
        }
        let direction = match to {
            &BROADCAST_MAC => Direction::Broadcast,
            [first, ..] if first & 1 != 0 => Direction::Multicast,
            _ => Direction::Host,
        };
        self.show(frame, direction, None);
    }

    fn show(&self, frame: &[u8], direction: Direction, sender: Option<&PacketSocket>) {
        if self.taps.is_empty() {
            return;
        }
        let wire = Wire {
            interface: self.config.index,
            hardware: ARPHRD_ETHER,
            is_summed: !wire::is_unsummed(frame),
        };
        let frame = frame.get(VNET_HEADER..).unwrap_or_default();
        self.taps.show(wire, frame, direction, sender);
    }

    fn put_on_wire(&self, frame: &[u8]) {
        let [n_bytes, n_packets, n_lost] = &self.counters.sent;
        if sentry_host::nic::send(self.socket.as_fd(), frame).is_ok() {
            let len = frame.len().saturating_sub(VNET_HEADER);
            n_bytes.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
            n_packets.fetch_add(1, Ordering::Relaxed);
        } else {
            n_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn transmit_to(&self, frame: &mut [u8], to: Mac) {
        let ethertype = match wire::byte(frame, FRAME_HEAD).unwrap_or(0) >> 4 {
            4 => wire::ETHERTYPE_IPV4,
            _ => wire::ETHERTYPE_IPV6,
        };
        wire::address_frame(frame, to, self.config.mac, ethertype);
        self.transmit(frame);
    }
}

/// Returns where on the link whatever goes to many goes.
fn group_mac(to: IpAddr) -> Mac {
    match to {
        IpAddr::V4(ip) if ip.is_multicast() => {
            let [_, b, c, d] = ip.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V4(_) => BROADCAST_MAC,
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// Returns the group in which whoever has an address is asked for it.
fn solicited_group(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

impl Stack {
    /// Sends a packet that is complete but for what is before it.
    ///
    /// # Errors
    /// `ENETUNREACH`.
    pub(in crate::net) fn output(
        &self,
        frame: &mut [u8],
        from: IpAddr,
        to: IpAddr,
    ) -> SysResult<()> {
        let (place, hop) = self.next_hop(to, Some(from))?;
        let nic = self.nics.get(place).ok_or(Errno::ENETUNREACH)?;
        if is_to_many(to) || self.is_broadcast(to) {
            nic.transmit_to(frame, group_mac(to));
            return Ok(());
        }
        let key = (place, hop);
        match self.neighbors.find(key, frame, self.now_ns()) {
            Answer::Known { mac, asks } => {
                nic.transmit_to(frame, mac);
                if asks {
                    self.ask_for(key);
                }
            }
            Answer::Waits { asks } => {
                if asks {
                    self.ask_for(key);
                    // The thread asks again, or gives up.
                    self.wake();
                }
            }
        }
        Ok(())
    }

    /// Learns where a neighbour is, and sends what has waited for it.
    pub(super) fn meet(&self, place: usize, ip: IpAddr, mac: Mac, is_wanted: bool) {
        let Some(nic) = self.nics.get(place) else { return };
        for mut frame in self.neighbors.learn((place, ip), mac, is_wanted, self.now_ns()) {
            nic.transmit_to(&mut frame, mac);
        }
    }

    /// Asks a link for a neighbour.
    pub(super) fn ask_for(&self, (place, ip): Key) {
        let Some(nic) = self.nics.get(place) else { return };
        let own = nic.config.addrs.iter().filter(|addr| addr.ip.is_ipv4() == ip.is_ipv4());
        let in_network = own.clone().find(|addr| super::route::is_in(ip, addr.ip, addr.prefix));
        let Some(own) = in_network.or(own.clone().next()) else { return };
        match (own.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                self.send_arp(nic, ARP_REQUEST, own, (BROADCAST_MAC, [0; 6]), ip);
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let to = IpAddr::V6(solicited_group(ip));
                let body = [&[0; 4], &ip.octets()[..], &[1, 1], &nic.config.mac].concat();
                let from = IpAddr::V6(own);
                self.send_discovery(nic, NEIGHBOR_SOLICITATION, (from, to), group_mac(to), &body);
            }
            _ => {}
        }
    }

    /// Sends a message of ARP: `to` is where the frame goes, and whom the message names.
    pub(super) fn send_arp(
        &self,
        nic: &Nic,
        operation: u16,
        own: Ipv4Addr,
        (to, named): (Mac, Mac),
        ip: Ipv4Addr,
    ) {
        let body = [
            &ARP_HEAD[..],
            &operation.to_be_bytes(),
            &nic.config.mac,
            &own.octets(),
            &named,
            &ip.octets(),
        ]
        .concat();
        let mut frame = wire::frame(&[], &body);
        wire::address_frame(&mut frame, to, nic.config.mac, wire::ETHERTYPE_ARP);
        nic.transmit(&frame);
    }

    /// Sends a message of neighbour discovery.
    pub(super) fn send_discovery(
        &self,
        nic: &Nic,
        kind: u8,
        (from, to): (IpAddr, IpAddr),
        mac: Mac,
        body: &[u8],
    ) {
        let mut message = [&[kind, 0, 0, 0], body].concat();
        let sum = wire::checksum(from, to, wire::PROTOCOL_ICMPV6, &message);
        wire::put(&mut message, 2, &sum.to_be_bytes());
        let manner = Manner { ttl: 255, ..Manner::DEFAULT };
        let head = wire::header(from, to, wire::PROTOCOL_ICMPV6, message.len(), manner);
        nic.transmit_to(&mut wire::frame(&head, &message), mac);
    }

    /// Tells the links where the own addresses are now: others may remember who had them before.
    pub(super) fn announce(&self) {
        for nic in &self.nics {
            for addr in &nic.config.addrs {
                match addr.ip {
                    IpAddr::V4(ip) => {
                        self.send_arp(nic, ARP_REQUEST, ip, (BROADCAST_MAC, [0; 6]), ip);
                    }
                    IpAddr::V6(ip) => {
                        let to = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
                        let body =
                            [&[0x20, 0, 0, 0], &ip.octets()[..], &[2, 1], &nic.config.mac].concat();
                        let pair = (addr.ip, to);
                        self.send_discovery(
                            nic,
                            NEIGHBOR_ADVERTISEMENT,
                            pair,
                            group_mac(to),
                            &body,
                        );
                    }
                }
            }
        }
    }

    /// Sends a segment whose checksum is right or not needed, in as many packets as it takes.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EMSGSIZE`.
    pub(in crate::net) fn send_segment(
        &self,
        (from, to): (IpAddr, IpAddr),
        protocol: u8,
        segment: &[u8],
        quality: Quality,
    ) -> SysResult<()> {
        let mtu = self.mtu_to(to);
        let header_len = if to.is_ipv4() { 20 } else { 40 };
        let mut manner =
            Manner { ttl: quality.ttl, tos: quality.tos, id: self.new_id(), ..Manner::DEFAULT };
        if segment.len() + header_len <= mtu {
            let head = wire::header(from, to, protocol, segment.len(), manner);
            return self.output(&mut wire::frame(&head, segment), from, to);
        }
        if quality.is_whole {
            return Err(Errno::EMSGSIZE);
        }
        // `IP6F_*`: the header of a part of a packet of IPv6 has eight bytes more.
        let extension = if to.is_ipv4() { 0 } else { 8 };
        let size = mtu.saturating_sub(header_len + extension).max(8) & !7;
        let id = u32::from(manner.id) << 16 | u32::from(self.new_id());
        for (index, piece) in segment.chunks(size).enumerate() {
            let offset = index * size;
            let goes_on = offset + piece.len() < segment.len();
            let bytes = if to.is_ipv4() {
                let units = u16::try_from(offset / 8).map_err(|_| Errno::EMSGSIZE)?;
                manner.fragment = units | if goes_on { 0x2000 } else { 0 };
                let head = wire::header(from, to, protocol, piece.len(), manner);
                wire::frame(&head, piece)
            } else {
                const FRAGMENT: u8 = 44;
                let head = wire::header(from, to, FRAGMENT, piece.len() + 8, manner);
                let place =
                    u16::try_from(offset).map_err(|_| Errno::EMSGSIZE)? | u16::from(goes_on);
                let [a, b] = place.to_be_bytes();
                let [i, j, k, l] = id.to_be_bytes();
                let head = [&head[..], &[protocol, 0, a, b, i, j, k, l]].concat();
                wire::frame(&head, piece)
            };
            let mut bytes = bytes;
            self.output(&mut bytes, from, to)?;
        }
        Ok(())
    }

    /// Sends a datagram of UDP.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EMSGSIZE`.
    pub(in crate::net) fn send_datagram(
        &self,
        from: Endpoint,
        to: Endpoint,
        data: &[u8],
        quality: Quality,
    ) -> SysResult<()> {
        let mut segment = Vec::with_capacity(8 + data.len());
        segment.extend_from_slice(&from.port.to_be_bytes());
        segment.extend_from_slice(&to.port.to_be_bytes());
        let len = u16::try_from(8 + data.len()).map_err(|_| Errno::EMSGSIZE)?;
        segment.extend_from_slice(&len.to_be_bytes());
        segment.extend_from_slice(&[0; 2]);
        segment.extend_from_slice(data);
        let sum = match wire::checksum(from.ip, to.ip, wire::PROTOCOL_UDP, &segment) {
            // Zero would say that there is none.
            0 => 0xffff,
            sum => sum,
        };
        wire::put(&mut segment, 6, &sum.to_be_bytes());
        self.send_segment((from.ip, to.ip), wire::PROTOCOL_UDP, &segment, quality)
    }

    /// Returns whether an address is one to which everybody on the interface's link listens.
    pub(super) fn is_for_all(nic: &Nic, ip: IpAddr) -> bool {
        is_to_many(ip)
            || nic.config.addrs.iter().any(|addr| broadcast_of(addr.ip, addr.prefix) == Some(ip))
    }
}
