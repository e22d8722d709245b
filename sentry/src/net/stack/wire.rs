//! Packets as bytes: what of them the stack reads and writes itself. Segments of TCP are read and
//! written by smoltcp.
//!
//! No input makes these functions fail but by `None`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(in crate::net) const PROTOCOL_ICMP: u8 = 1;
pub(in crate::net) const PROTOCOL_TCP: u8 = 6;
pub(in crate::net) const PROTOCOL_UDP: u8 = 17;
pub(in crate::net) const PROTOCOL_ICMPV6: u8 = 58;

pub(in crate::net) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(in crate::net) const ETHERTYPE_ARP: u16 = 0x0806;
pub(in crate::net) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The size of a `struct virtio_net_hdr`.
pub(in crate::net) const VNET_HEADER: usize = 10;

/// What is before a packet: a `struct virtio_net_hdr` and the header of Ethernet.
pub(in crate::net) const FRAME_HEAD: usize = VNET_HEADER + 14;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_F_DATA_VALID`
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The most headers between that of IPv6 and what the packet carries.
const MAX_EXTENSIONS: usize = 8;

pub(in crate::net) type Mac = [u8; 6];

pub(in crate::net) const BROADCAST_MAC: Mac = [0xff; 6];

pub(in crate::net) fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(in crate::net) fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

pub(in crate::net) fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Stores bytes where there is room for all of them.
pub(in crate::net) fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = at.checked_add(bytes.len()).and_then(|end| to.get_mut(at..end)) {
        to.copy_from_slice(bytes);
    }
}

/// Adds bytes to a sum of 16-bit words.
pub(in crate::net) fn add_to_sum(sum: u64, bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let mut sum = sum;
    for chunk in chunks {
        sum = sum.wrapping_add(u64::from(u32::from_be_bytes(*chunk)));
    }
    match *rest {
        [a] => sum.wrapping_add(u64::from(a) << 24),
        [a, b] => sum.wrapping_add(u64::from(u32::from_be_bytes([a, b, 0, 0]))),
        [a, b, c] => sum.wrapping_add(u64::from(u32::from_be_bytes([a, b, c, 0]))),
        _ => sum,
    }
}

/// Returns a sum in 16 bits.
pub(in crate::net) fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// Returns the sum over what a checksum covers besides the segment.
pub(in crate::net) fn pseudo_sum(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u64 {
    let len = u64::try_from(len).unwrap_or(0) & 0xffff_ffff;
    let sum = u64::from(protocol) + len;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            add_to_sum(add_to_sum(sum, &from.octets()), &to.octets())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            add_to_sum(add_to_sum(sum, &from.octets()), &to.octets())
        }
        _ => sum,
    }
}

/// Returns the checksum of a segment whose own field is zero.
pub(in crate::net) fn checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    !fold(add_to_sum(pseudo_sum(from, to, protocol, segment.len()), segment))
}

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) struct Part {
    pub(in crate::net) id: u32,
    pub(in crate::net) offset: usize,
    pub(in crate::net) goes_on: bool,
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Packet<'a> {
    pub(in crate::net) from: IpAddr,
    pub(in crate::net) to: IpAddr,
    pub(in crate::net) protocol: u8,
    pub(in crate::net) ttl: u8,
    pub(in crate::net) tos: u8,
    pub(in crate::net) part: Option<Part>,
    pub(in crate::net) payload: &'a [u8],
    /// All of it, and nothing behind it.
    pub(in crate::net) whole: &'a [u8],
}

/// Reads a packet.
pub(in crate::net) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    match byte(bytes, 0)? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header_len = usize::from(byte(bytes, 0)? & 0xf) * 4;
    let total = usize::from(number16(bytes, 2)?);
    let header = bytes.get(..header_len).filter(|header| header.len() >= 20)?;
    if fold(add_to_sum(0, header)) != 0xffff {
        return None;
    }
    let whole = bytes.get(..total)?;
    let fragment = number16(bytes, 6)?;
    let (goes_on, offset) = (fragment & 0x2000 != 0, usize::from(fragment & 0x1fff) * 8);
    let id = u32::from(number16(bytes, 4)?);
    let part = (goes_on || offset > 0).then_some(Part { id, offset, goes_on });
    let addr = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(number32(bytes, at)?)));
    Some(Packet {
        from: addr(12)?,
        to: addr(16)?,
        protocol: byte(bytes, 9)?,
        ttl: byte(bytes, 8)?,
        tos: byte(bytes, 1)?,
        part,
        payload: whole.get(header_len..)?,
        whole,
    })
}

fn parse_v6(bytes: &[u8]) -> Option<Packet<'_>> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    let head = number16(bytes, 0)?;
    let total = 40_usize.checked_add(usize::from(number16(bytes, 4)?))?;
    let whole = bytes.get(..total)?;
    let addr = |at: usize| {
        let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let mut packet = Packet {
        from: addr(8)?,
        to: addr(24)?,
        protocol: byte(bytes, 6)?,
        ttl: byte(bytes, 7)?,
        tos: u8::try_from(head >> 4 & 0xff).ok()?,
        part: None,
        payload: whole.get(40..)?,
        whole,
    };
    for _ in 0..MAX_EXTENSIONS {
        let rest = packet.payload;
        match packet.protocol {
            HOP_BY_HOP | DESTINATION | ROUTING => {
                // A router on the way is not what we are.
                if packet.protocol == ROUTING && byte(rest, 3)? != 0 {
                    return None;
                }
                let len = (usize::from(byte(rest, 1)?) + 1) * 8;
                packet.protocol = byte(rest, 0)?;
                packet.payload = rest.get(len..)?;
            }
            FRAGMENT => {
                let fragment = number16(rest, 2)?;
                let (goes_on, offset) = (fragment & 1 != 0, usize::from(fragment & 0xfff8));
                let part = Part { id: number32(rest, 4)?, offset, goes_on };
                packet.part = (goes_on || offset > 0).then_some(part);
                packet.protocol = byte(rest, 0)?;
                packet.payload = rest.get(8..)?;
                // What follows is known of the first part only.
                if offset > 0 {
                    return Some(packet);
                }
            }
            _ => return Some(packet),
        }
    }
    None
}

/// What the header of a packet says besides addresses and protocol.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Manner {
    pub(in crate::net) ttl: u8,
    pub(in crate::net) tos: u8,
    /// For the parts of a packet of IPv4.
    pub(in crate::net) id: u16,
    /// Where the part of a packet of IPv4 is: the bits of the field.
    pub(in crate::net) fragment: u16,
}

impl Manner {
    pub(in crate::net) const DEFAULT: Self = Self { ttl: 64, tos: 0, id: 0, fragment: 0x4000 };
}

/// Returns the header of a packet with `len` bytes behind it; of IPv6 without extensions.
pub(in crate::net) fn header(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    len: usize,
    manner: Manner,
) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = vec![0; 20];
            let total = u16::try_from(len.saturating_add(20)).unwrap_or(u16::MAX);
            put(&mut bytes, 0, &[0x45, manner.tos]);
            put(&mut bytes, 2, &total.to_be_bytes());
            put(&mut bytes, 4, &manner.id.to_be_bytes());
            put(&mut bytes, 6, &manner.fragment.to_be_bytes());
            put(&mut bytes, 8, &[manner.ttl, protocol]);
            put(&mut bytes, 12, &from.octets());
            put(&mut bytes, 16, &to.octets());
            let sum = !fold(add_to_sum(0, &bytes));
            put(&mut bytes, 10, &sum.to_be_bytes());
            bytes
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let mut bytes = vec![0; 40];
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            let head = 0x6000 | u16::from(manner.tos) << 4;
            put(&mut bytes, 0, &head.to_be_bytes());
            put(&mut bytes, 4, &len.to_be_bytes());
            put(&mut bytes, 6, &[protocol, manner.ttl]);
            put(&mut bytes, 8, &octets(from));
            put(&mut bytes, 24, &octets(to));
            bytes
        }
    }
}

/// Returns a frame with a packet in it, and room for what is before it.
pub(in crate::net) fn frame(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEAD + header.len() + payload.len());
    bytes.resize(FRAME_HEAD, 0);
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(payload);
    bytes
}

/// Writes the header of Ethernet.
pub(in crate::net) fn address_frame(frame: &mut [u8], to: Mac, from: Mac, ethertype: u16) {
    put(frame, VNET_HEADER, &to);
    put(frame, VNET_HEADER + 6, &from);
    put(frame, VNET_HEADER + 12, &ethertype.to_be_bytes());
}

/// Lets the host, or the network card, complete the checksum of a frame and, where `size` is given,
/// cut it into segments of that size. The header of the packet has no options.
pub(in crate::net) fn offload(frame: &mut [u8], protocol: u8, size: Option<u16>) {
    put(frame, 0, &[0; VNET_HEADER]);
    let Some(packet) = frame.get_mut(FRAME_HEAD..) else { return };
    let Some(Packet { from, to, payload, .. }) = parse_own(packet) else { return };
    let ip_len = if from.is_ipv4() { 20 } else { 40 };
    let field: usize = if protocol == PROTOCOL_TCP { 16 } else { 6 };
    let len = payload.len();
    let segment_header = match protocol {
        PROTOCOL_TCP => usize::from(byte(payload, 12).unwrap_or(0x50) >> 4) * 4,
        _ => 8,
    };
    let sum = fold(pseudo_sum(from, to, protocol, len));
    put(packet, ip_len + field, &sum.to_be_bytes());
    let number = |n: usize| u16::try_from(n).unwrap_or(0).to_ne_bytes();
    put(frame, 0, &[NEEDS_CHECKSUM]);
    put(frame, 6, &number(14 + ip_len));
    put(frame, 8, &number(field));
    if let Some(size) = size {
        put(frame, 1, &[if ip_len == 20 { GSO_TCPV4 } else { GSO_TCPV6 }]);
        put(frame, 2, &number(14 + ip_len + segment_header));
        put(frame, 4, &size.to_ne_bytes());
    }
}

/// Reads a packet that was put together here.
fn parse_own(bytes: &[u8]) -> Option<Packet<'_>> {
    parse(bytes)
}

/// Returns whether the checksum of a frame that has arrived needs no look: it comes from this host,
/// or the network card has looked.
pub(in crate::net) fn is_verified(frame: &[u8]) -> bool {
    byte(frame, 0).is_some_and(|flags| flags & (NEEDS_CHECKSUM | DATA_VALID) != 0)
}

/// Returns whether the checksum of a frame is still to be completed.
pub(in crate::net) fn is_unsummed(frame: &[u8]) -> bool {
    byte(frame, 0).is_some_and(|flags| flags & NEEDS_CHECKSUM != 0)
}

/// Returns whether the checksum of a segment is right.
pub(in crate::net) fn is_intact(packet: &Packet<'_>) -> bool {
    let is_unsummed = packet.protocol == PROTOCOL_UDP
        && packet.from.is_ipv4()
        && number16(packet.payload, 6) == Some(0);
    let sum = match packet.protocol {
        PROTOCOL_ICMP => 0,
        _ => pseudo_sum(packet.from, packet.to, packet.protocol, packet.payload.len()),
    };
    is_unsummed || fold(add_to_sum(sum, packet.payload)) == 0xffff
}

/// The flags of a segment of TCP.
pub(in crate::net) const FIN: u8 = 1;
pub(in crate::net) const SYN: u8 = 2;
pub(in crate::net) const RST: u8 = 4;
pub(in crate::net) const ACK: u8 = 16;

/// What the stack looks at in a segment of TCP.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Segment {
    pub(in crate::net) from_port: u16,
    pub(in crate::net) to_port: u16,
    pub(in crate::net) seq: u32,
    pub(in crate::net) ack: u32,
    pub(in crate::net) flags: u8,
    pub(in crate::net) len: usize,
}

impl Segment {
    /// Reads the header.
    pub(in crate::net) fn parse(bytes: &[u8]) -> Option<Self> {
        let header_len = usize::from(byte(bytes, 12)? >> 4) * 4;
        if header_len < 20 {
            return None;
        }
        Some(Self {
            from_port: number16(bytes, 0)?,
            to_port: number16(bytes, 2)?,
            seq: number32(bytes, 4)?,
            ack: number32(bytes, 8)?,
            flags: byte(bytes, 13)?,
            len: bytes.len().checked_sub(header_len)?,
        })
    }

    pub(in crate::net) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Returns whether this does nothing but acknowledge, or tell of room.
    pub(in crate::net) fn is_ack(&self) -> bool {
        self.len == 0 && self.has(ACK) && !self.has(SYN | FIN | RST)
    }

    /// Returns the segment that refuses this one.
    pub(in crate::net) fn refusal(&self, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        let n_flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        let len = u32::try_from(self.len).unwrap_or(0).wrapping_add(n_flags);
        let (seq, ack, flags) = if self.has(ACK) {
            (self.ack, 0, RST)
        } else {
            (0, self.seq.wrapping_add(len), RST | ACK)
        };
        put(&mut bytes, 0, &self.to_port.to_be_bytes());
        put(&mut bytes, 2, &self.from_port.to_be_bytes());
        put(&mut bytes, 4, &seq.to_be_bytes());
        put(&mut bytes, 8, &ack.to_be_bytes());
        put(&mut bytes, 12, &[0x50, flags]);
        let sum = checksum(from, to, PROTOCOL_TCP, &bytes);
        put(&mut bytes, 16, &sum.to_be_bytes());
        bytes
    }
}
