//! Packets that stay here: what raw and packet sockets have put together themselves, and what they are
//! shown of the datagrams that others send.
//!
//! DEVIATION: a connection of TCP within the sandbox is no packets: neither are any shown, nor does a
//! segment that a raw socket sends reach it.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::raw::RawSocket;
use super::udp::{Arrival, UdpEntry};
use super::{Endpoint, Inet, LOOPBACK_INDEX};
use crate::kernel::Kernel;
use crate::net::packet::{self, Direction, PacketEntry, Wire};
use crate::net::stack::wire::{
    self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, Packet,
};
use crate::net::stack::{Quality, message};

/// The most of a packet that a message about it quotes.
const MAX_QUOTE: usize = 528;

/// What is in a packet, and where it goes.
#[derive(Clone, Copy)]
pub(in crate::net) struct Parcel<'a> {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// The number of the interface over which it has come.
    pub(super) interface: i32,
    pub(super) payload: &'a [u8],
    /// The whole packet, where it is at hand.
    pub(super) whole: &'a [u8],
}

impl<'a> Parcel<'a> {
    /// Returns what a socket sends over the loopback interface.
    pub(super) fn new(
        (from, to): (IpAddr, IpAddr),
        protocol: u8,
        quality: Quality,
        payload: &'a [u8],
    ) -> Self {
        let Quality { ttl, tos, .. } = quality;
        Self { from, to, protocol, ttl, tos, interface: LOOPBACK_INDEX, payload, whole: &[] }
    }

    /// Returns what has come over an interface.
    pub(in crate::net) fn arrived(packet: &Packet<'a>, interface: i32) -> Self {
        let Packet { from, to, protocol, ttl, tos, payload, whole, .. } = *packet;
        Self { from, to, protocol, ttl, tos, interface, payload, whole }
    }

    /// Returns the packet, header and all.
    pub(super) fn packet(&self) -> Vec<u8> {
        if !self.whole.is_empty() {
            return self.whole.to_vec();
        }
        let ttl_and_tos = (self.ttl, self.tos);
        message::with_header(self.from, self.to, self.protocol, ttl_and_tos, self.payload)
    }
}

impl Inet {
    /// Adds a raw socket.
    pub(super) fn add_raw(&self, socket: &Arc<RawSocket>) {
        let mut sockets = self.raws.lock();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    fn raw_sockets(&self) -> Vec<Arc<RawSocket>> {
        self.raws.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the raw sockets of a family as `/proc/net/raw` shows them.
    pub(crate) fn raw_entries(&self, is_v6: bool) -> Vec<UdpEntry> {
        self.raw_sockets().iter().filter_map(|socket| socket.entry(is_v6)).collect()
    }

    /// Returns the packet sockets as `/proc/net/packet` shows them.
    pub(crate) fn packet_entries(&self) -> Vec<PacketEntry> {
        self.taps.entries()
    }

    /// Returns whether anybody looks at packets.
    pub(super) fn is_watched(&self) -> bool {
        !self.taps.is_empty() || self.raws.lock().iter().any(|socket| socket.strong_count() > 0)
    }

    /// Gives a packet to the raw sockets that want it. Returns whether there are any.
    pub(in crate::net) fn deliver_raw(&self, parcel: &Parcel<'_>) -> bool {
        let mut is_taken = false;
        for socket in self.raw_sockets() {
            is_taken |= socket.take(parcel);
        }
        is_taken
    }

    /// Shows the packet sockets what goes over the loopback interface.
    fn show(&self, parcel: &Parcel<'_>) {
        if self.taps.is_empty() {
            return;
        }
        let ethertype = if parcel.to.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let frame = packet::frame_of([0; 6], [0; 6], ethertype, &parcel.packet());
        let wire = Wire { interface: LOOPBACK_INDEX, hardware: interface_type(), is_summed: true };
        self.taps.show(wire, &frame, Direction::Outgoing, None);
        self.taps.show(wire, &frame, Direction::Host, None);
    }

    /// Shows whoever looks at packets one that a raw socket has put together.
    pub(super) fn show_bytes(&self, bytes: &[u8]) {
        if let Some(packet) = wire::parse(bytes) {
            self.show(&Parcel::arrived(&packet, LOOPBACK_INDEX));
        }
    }

    /// Shows a datagram that goes straight from socket to socket to whoever looks at packets.
    pub(super) fn show_datagram(&self, parcel: &Parcel<'_>) {
        self.show(parcel);
        self.deliver_raw(parcel);
    }

    /// Sends a packet over the loopback interface.
    pub(super) fn loop_back(&self, kernel: &Kernel, parcel: &Parcel<'_>) {
        self.show(parcel);
        self.input(kernel, parcel);
    }

    /// Takes in a packet of the loopback interface.
    pub(in crate::net) fn input(&self, kernel: &Kernel, parcel: &Parcel<'_>) {
        let is_taken = self.deliver_raw(parcel);
        let Parcel { from, to, protocol, ttl, tos, interface, payload, .. } = *parcel;
        let is_icmp = protocol == if to.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        if is_icmp {
            self.deliver_icmp(from, to, ttl, payload);
            if let Some(reply) = message::reply_to(payload, from, to) {
                let quality = Quality { ttl: 64, tos, is_whole: false };
                let reply = Parcel::new((to, from), protocol, quality, &reply);
                self.show(&reply);
                self.deliver_raw(&reply);
                self.deliver_icmp(to, from, 64, reply.payload);
            }
        } else if protocol == PROTOCOL_UDP {
            let number = |at| wire::number16(payload, at);
            let (Some(from_port), Some(to_port), Some(len)) = (number(0), number(2), number(4))
            else {
                return;
            };
            let Some(data) = payload.get(8..len.into()) else { return };
            let arrival = Arrival {
                from: Endpoint { ip: from, port: from_port },
                to: Endpoint { ip: to, port: to_port },
                ttl,
                tos,
                interface,
            };
            let is_to_many = to.is_multicast() || self.is_broadcast(to);
            if !self.deliver_datagram(kernel, data, arrival, is_to_many) && !is_to_many {
                self.refuse(parcel, if to.is_ipv4() { [3, 3] } else { [1, 4] });
            }
        } else if !is_taken && to.is_ipv4() && protocol != wire::PROTOCOL_TCP {
            self.refuse(parcel, [3, 2]);
        }
    }

    /// Tells the raw sockets of the sender that nobody has taken a packet.
    pub(super) fn refuse(&self, parcel: &Parcel<'_>, kind: [u8; 2]) {
        let protocol = if parcel.to.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        let packet = parcel.packet();
        let quote = packet.get(..MAX_QUOTE.min(packet.len())).unwrap_or_default();
        let mut bytes = [&kind[..], &[0; 6], quote].concat();
        message::complete(&mut bytes, parcel.to, parcel.from);
        let quality = Quality { ttl: 64, tos: 0xc0, is_whole: false };
        let message = Parcel::new((parcel.to, parcel.from), protocol, quality, &bytes);
        self.show(&message);
        self.deliver_raw(&message);
    }

    /// Takes in a packet that a packet socket has sent over the loopback interface.
    pub(in crate::net) fn input_bytes(&self, kernel: &Kernel, bytes: &[u8]) {
        let Some(packet) = wire::parse(bytes) else { return };
        if packet.part.is_none() && self.is_local(packet.to) {
            self.input(kernel, &Parcel::arrived(&packet, LOOPBACK_INDEX));
        }
    }
}

fn interface_type() -> u16 {
    super::interface::ARPHRD_LOOPBACK
}
