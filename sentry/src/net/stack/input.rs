//! What arrives. Everything here is hostile: a packet that is not understood is dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::link::Link;
use super::output::{ARP_REPLY, NEIGHBOR_ADVERTISEMENT, NEIGHBOR_SOLICITATION, Quality};
use super::wire::{self, FRAME_HEAD, Mac, Packet, Segment, VNET_HEADER};
use super::{Stack, is_unicast};
use crate::net::inet::{Arrival, Endpoint, Parcel};

const ARP_REQUEST: u16 = 1;

impl Stack {
    /// Takes a frame in. Connections that have something to say are added to `touched`.
    pub(super) fn input(&self, place: usize, frame: &[u8], touched: &mut Vec<Arc<Link>>) {
        let Some(nic) = self.nics.get(place) else { return };
        let [n_bytes, n_packets, n_useless] = &nic.counters.received;
        let len = frame.len().saturating_sub(VNET_HEADER);
        n_bytes.fetch_add(u64::try_from(len).unwrap_or(0), Ordering::Relaxed);
        n_packets.fetch_add(1, Ordering::Relaxed);
        nic.show_arrived(frame);
        if self.try_input(place, frame, touched).is_none() {
            n_useless.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_input(&self, place: usize, frame: &[u8], touched: &mut Vec<Arc<Link>>) -> Option<()> {
        let nic = self.nics.get(place)?;
        let to: Mac = *frame.get(VNET_HEADER..)?.first_chunk()?;
        let from: Mac = *frame.get(VNET_HEADER + 6..)?.first_chunk()?;
        let is_to_group = wire::byte(&to, 0)? & 1 != 0;
        if (to != nic.config.mac && !is_to_group) || from == nic.config.mac {
            return None;
        }
        let body = frame.get(FRAME_HEAD..)?;
        match wire::number16(frame, VNET_HEADER + 12)? {
            wire::ETHERTYPE_ARP => self.input_arp(place, body),
            wire::ETHERTYPE_IPV4 | wire::ETHERTYPE_IPV6 => {
                let packet = wire::parse(body)?;
                self.input_packet(place, packet, wire::is_verified(frame), touched)
            }
            _ => None,
        }
    }

    fn input_arp(&self, place: usize, message: &[u8]) -> Option<()> {
        let nic = self.nics.get(place)?;
        if message.get(..6)? != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let operation = wire::number16(message, 6)?;
        let mac: Mac = *message.get(8..)?.first_chunk()?;
        let sender = Ipv4Addr::from(wire::number32(message, 14)?);
        let target = Ipv4Addr::from(wire::number32(message, 24)?);
        let is_own = nic.config.addrs.iter().any(|addr| addr.ip == IpAddr::V4(target));
        let is_valid = is_unicast(IpAddr::V4(sender)) && wire::byte(&mac, 0)? & 1 == 0;
        let is_request = operation == ARP_REQUEST && is_own;
        if is_valid && !self.has_addr(IpAddr::V4(sender)) {
            self.meet(place, IpAddr::V4(sender), mac, is_request);
        }
        // A sender without an address wants to know whether this one is taken.
        if is_request && (is_valid || sender.is_unspecified()) {
            self.send_arp(nic, ARP_REPLY, target, (mac, mac), sender);
        }
        Some(())
    }

    fn input_packet(
        &self,
        place: usize,
        packet: Packet<'_>,
        is_verified: bool,
        touched: &mut Vec<Arc<Link>>,
    ) -> Option<()> {
        let nic = self.nics.get(place)?;
        let is_own = self.has_addr(packet.to);
        if !is_own && !Self::is_for_all(nic, packet.to) {
            return None;
        }
        let is_discovery = packet.protocol == wire::PROTOCOL_ICMPV6;
        let is_nobody = packet.from.is_unspecified() && is_discovery;
        if !(is_unicast(packet.from) || is_nobody)
            || self.is_broadcast(packet.from)
            || self.has_addr(packet.from)
        {
            return None;
        }
        if let Some(part) = packet.part {
            let whole = self.fragments.lock().add(&packet, part, self.now_ns())?;
            let packet = Packet { part: None, payload: &whole, whole: &[], ..packet };
            return self.input_whole(place, &packet, is_own, false, touched);
        }
        self.input_whole(place, &packet, is_own, is_verified, touched)
    }

    fn input_whole(
        &self,
        place: usize,
        packet: &Packet<'_>,
        is_own: bool,
        is_verified: bool,
        touched: &mut Vec<Arc<Link>>,
    ) -> Option<()> {
        if !is_verified && !wire::is_intact(packet) {
            return None;
        }
        if let (Some(nic), Some(kernel)) = (self.nics.get(place), self.kernel.upgrade()) {
            kernel.inet.deliver_raw(&Parcel::arrived(packet, nic.config.index));
        }
        match packet.protocol {
            wire::PROTOCOL_TCP if is_own => self.input_tcp(packet, touched),
            wire::PROTOCOL_UDP => self.input_udp(place, packet, is_own),
            wire::PROTOCOL_ICMP if packet.from.is_ipv4() => self.input_icmp(packet, is_own),
            wire::PROTOCOL_ICMPV6 if packet.from.is_ipv6() => {
                let kind = wire::byte(packet.payload, 0)?;
                if matches!(kind, NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT) {
                    self.input_discovery(place, packet)
                } else {
                    self.input_icmp(packet, is_own)
                }
            }
            _ => None,
        }
    }

    fn input_discovery(&self, place: usize, packet: &Packet<'_>) -> Option<()> {
        let nic = self.nics.get(place)?;
        // Only from the link itself.
        if packet.ttl != 255 || wire::byte(packet.payload, 1)? != 0 {
            return None;
        }
        let octets: [u8; 16] = *packet.payload.get(8..)?.first_chunk()?;
        let target = Ipv6Addr::from(octets);
        let is_solicitation = wire::byte(packet.payload, 0)? == NEIGHBOR_SOLICITATION;
        let wanted = if is_solicitation { 1 } else { 2 };
        let mac = link_layer_option(packet.payload.get(24..)?, wanted);
        if !is_solicitation {
            let target = IpAddr::V6(target);
            if let Some(mac) = mac.filter(|_| is_unicast(target) && !self.has_addr(target)) {
                self.meet(place, target, mac, false);
            }
            return Some(());
        }
        if !nic.config.addrs.iter().any(|addr| addr.ip == IpAddr::V6(target)) {
            return None;
        }
        let (to, mac) = if packet.from.is_unspecified() {
            // Somebody wants to know whether the address is taken.
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            (IpAddr::V6(all), [0x33, 0x33, 0, 0, 0, 1])
        } else {
            let mac = mac?;
            self.meet(place, packet.from, mac, true);
            (packet.from, mac)
        };
        // Solicited, and in place of what was known.
        let flags = if packet.from.is_unspecified() { 0x20 } else { 0x60 };
        let body = [&[flags, 0, 0, 0], &target.octets()[..], &[2, 1], &nic.config.mac].concat();
        self.send_discovery(nic, NEIGHBOR_ADVERTISEMENT, (IpAddr::V6(target), to), mac, &body);
        Some(())
    }

    fn input_udp(&self, place: usize, packet: &Packet<'_>, is_own: bool) -> Option<()> {
        let len = usize::from(wire::number16(packet.payload, 4)?);
        let data = packet.payload.get(8..len)?;
        let from = Endpoint { ip: packet.from, port: wire::number16(packet.payload, 0)? };
        let to = Endpoint { ip: packet.to, port: wire::number16(packet.payload, 2)? };
        let interface = self.nics.get(place)?.config.index;
        let arrival = Arrival { from, to, ttl: packet.ttl, tos: packet.tos, interface };
        let kernel = self.kernel.upgrade()?;
        let is_taken = kernel.inet.deliver_datagram(&kernel, data, arrival, !is_own);
        if !is_taken && is_own {
            self.refuse(packet);
        }
        Some(())
    }

    fn input_tcp(&self, packet: &Packet<'_>, touched: &mut Vec<Arc<Link>>) -> Option<()> {
        let segment = Segment::parse(packet.payload)?;
        let local = Endpoint { ip: packet.to, port: segment.to_port };
        let remote = Endpoint { ip: packet.from, port: segment.from_port };
        let is_opening = segment.has(wire::SYN) && !segment.has(wire::ACK | wire::RST);
        let known = self.links.lock().get(&(local, remote)).cloned();
        let link = match known {
            Some(link) if is_opening && link.is_over() => {
                link.forget();
                self.open(local, remote, &segment)
            }
            None if is_opening => self.open(local, remote, &segment),
            known => known.map(Ok).unwrap_or(Err(true)),
        };
        let link = match link {
            Ok(link) => link,
            Err(is_refused) => {
                if is_refused && !segment.has(wire::RST) {
                    let refusal = segment.refusal(packet.to, packet.from);
                    let quality = Quality { ttl: 64, tos: 0, is_whole: true };
                    let pair = (packet.to, packet.from);
                    let _ = self.send_segment(pair, wire::PROTOCOL_TCP, &refusal, quality);
                }
                return Some(());
            }
        };
        if link.take_in(packet, &segment) {
            touched.push(link);
        }
        Some(())
    }

    /// Makes a connection for whoever listens. `Err`: there is none, and whether that is said.
    fn open(
        &self,
        local: Endpoint,
        remote: Endpoint,
        segment: &Segment,
    ) -> Result<Arc<Link>, bool> {
        let kernel = self.kernel.upgrade().ok_or(false)?;
        if segment.from_port == 0 || segment.to_port == 0 {
            return Err(false);
        }
        let listener = kernel.inet.find_listener(remote, local).ok_or(true)?;
        let stack = self.this.upgrade().ok_or(false)?;
        // A listener without room says nothing: the client tries again.
        listener.welcome(&stack, local, remote).ok_or(false)
    }

    pub(super) fn enter(&self, link: &Arc<Link>) -> bool {
        let mut links = self.links.lock();
        let pair = (link.local, link.remote);
        if links.contains_key(&pair) {
            return false;
        }
        links.insert(pair, link.clone());
        true
    }

    pub(super) fn leave(&self, link: &Link) {
        let mut links = self.links.lock();
        let pair = (link.local, link.remote);
        if links.get(&pair).is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), link)) {
            links.remove(&pair);
        }
    }
}

/// Returns the link-layer address among the options of a message.
fn link_layer_option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let (Some(kind), Some(len)) = (wire::byte(options, 0), wire::byte(options, 1)) {
        let len = usize::from(len) * 8;
        let option = options.get(..len).filter(|option| !option.is_empty())?;
        if kind == wanted {
            let mac: Mac = *option.get(2..)?.first_chunk()?;
            return Some(mac).filter(|mac| mac.first().is_some_and(|first| first & 1 == 0));
        }
        options = options.get(len..)?;
    }
    None
}
