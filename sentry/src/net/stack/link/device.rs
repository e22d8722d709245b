//! The wire of one connection, as smoltcp sees it: at most one packet comes in, and what goes out
//! goes to the stack at once, but for acknowledgements.
//!
//! smoltcp leaves the cutting of long segments to the host for IPv4 only. A connection of IPv6 is one
//! of IPv4 to it, between addresses that never leave this file: the headers change on the way.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use smoltcp::phy::{
    self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken,
};
use smoltcp::time::Instant;

use crate::net::stack::Stack;
use crate::net::stack::wire::{self, ACK, FIN, FRAME_HEAD, Manner, SYN, Segment};

/// The own end and the other of a connection of IPv6, to smoltcp.
const STAND_INS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));

/// Returns the addresses by which smoltcp knows the two ends.
pub(super) fn known_as(own: IpAddr, peer: IpAddr) -> (Ipv4Addr, Ipv4Addr) {
    match (own, peer) {
        (IpAddr::V4(own), IpAddr::V4(peer)) => (own, peer),
        _ => STAND_INS,
    }
}

/// Returns a segment that has arrived as smoltcp is to see it.
pub(super) fn disguise(segment: &[u8], (own, peer): (IpAddr, IpAddr)) -> Vec<u8> {
    let (own, peer) = known_as(own, peer);
    let (own, peer) = (IpAddr::V4(own), IpAddr::V4(peer));
    let mut packet = wire::header(peer, own, wire::PROTOCOL_TCP, segment.len(), Manner::DEFAULT);
    packet.extend_from_slice(segment);
    packet
}

/// Tells the peer of a little less room than there is. smoltcp rounds the window down and takes nothing
/// behind its end, which so moves back by a few bytes at times: what has been sent into them would be
/// lost.
fn understate_window(packet: &mut [u8]) {
    const WINDOW: usize = 20 + 14;
    let window = wire::number16(packet, WINDOW).unwrap_or(0);
    if window > 1 {
        wire::put(packet, WINDOW, &(window - 1).to_be_bytes());
    }
}

/// The largest packet that the host cuts into segments.
const MAX_OFFLOAD: usize = 65_000;

thread_local! {
    /// Where packets are put together, one at a time.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where the two streams are, as the peer has been told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// The number behind all that has been sent.
    next: u32,
    ack: u32,
    window: u16,
}

impl Told {
    /// Returns the one that is further on.
    pub(super) fn later(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if one.next.wrapping_sub(other.next).cast_signed() > 0 => {
                Some(Self { next: one.next, ..other })
            }
            (one, other) => other.or(one),
        }
    }

    /// Returns a segment that the peer has had and answers all the same.
    pub(super) fn probe(
        self,
        (from_port, to_port): (u16, u16),
        (from, to): (IpAddr, IpAddr),
    ) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        wire::put(&mut bytes, 0, &from_port.to_be_bytes());
        wire::put(&mut bytes, 2, &to_port.to_be_bytes());
        wire::put(&mut bytes, 4, &self.next.wrapping_sub(1).to_be_bytes());
        wire::put(&mut bytes, 8, &self.ack.to_be_bytes());
        wire::put(&mut bytes, 12, &[0x50, ACK]);
        wire::put(&mut bytes, 14, &self.window.to_be_bytes());
        let sum = wire::checksum(from, to, wire::PROTOCOL_TCP, &bytes);
        wire::put(&mut bytes, 16, &sum.to_be_bytes());
        bytes
    }
}

/// What has gone out, as far as it matters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) told: Option<Told>,
    /// The last acknowledgement.
    pub(super) ack: Option<u32>,
    /// The first number of a sequence.
    pub(super) seq: Option<u32>,
    /// Whether that with the last acknowledgement was a SYN.
    pub(super) is_syn: bool,
}

pub(super) struct Device<'a> {
    pub(super) incoming: Option<&'a [u8]>,
    pub(super) sent: Sent,
    /// Acknowledgements without data, which are to be sent.
    pub(super) acks: Vec<Vec<u8>>,
    stack: &'a Stack,
    mtu: usize,
    addrs: (IpAddr, IpAddr),
}

impl<'a> Device<'a> {
    pub(super) fn new(stack: &'a Stack, mtu: usize, addrs: (IpAddr, IpAddr)) -> Self {
        Self { incoming: None, sent: Sent::default(), acks: Vec::new(), stack, mtu, addrs }
    }
}

pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

pub(super) struct Outgoing<'a> {
    stack: &'a Stack,
    sent: &'a mut Sent,
    acks: &'a mut Vec<Vec<u8>>,
    addrs: (IpAddr, IpAddr),
    meta: PacketMeta,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            let (from, to) = self.addrs;
            let header_len = if from.is_ipv4() { 20 } else { 40 };
            let whole = FRAME_HEAD + header_len - 20 + len;
            if scratch.len() < whole {
                scratch.resize(whole.next_power_of_two(), 0);
            }
            let (frame, _) = scratch.split_at_mut(whole);
            let (_, packet) = frame.split_at_mut(FRAME_HEAD + header_len - 20);
            let result = write(packet);
            let segment = packet.get(20..).and_then(Segment::parse);
            if segment.is_some_and(|segment| !segment.has(SYN)) {
                understate_window(packet);
            }
            let window = wire::number16(packet, 20 + 14).unwrap_or(0);
            if from.is_ipv6() {
                let ttl = packet.get(8).copied().unwrap_or(64);
                let manner = Manner { ttl, ..Manner::DEFAULT };
                let head =
                    wire::header(from, to, wire::PROTOCOL_TCP, len.saturating_sub(20), manner);
                wire::put(frame, FRAME_HEAD, &head);
            }
            if let Some(segment) = segment {
                let n_flags = u32::from(segment.has(SYN)) + u32::from(segment.has(FIN));
                let len = u32::try_from(segment.len).unwrap_or(0).wrapping_add(n_flags);
                let next = segment.seq.wrapping_add(len);
                let told = Told { next, ack: segment.ack, window };
                self.sent.told = Told::later(self.sent.told, Some(told));
                self.sent.seq = self.sent.seq.or(Some(segment.seq));
                if segment.has(ACK) {
                    self.sent.ack = Some(segment.ack);
                    self.sent.is_syn = segment.has(SYN);
                }
            }
            let size = self.meta.segmentation_offload_size.map(std::num::NonZeroU16::get);
            wire::offload(frame, wire::PROTOCOL_TCP, size);
            if segment.is_some_and(|segment| segment.is_ack()) {
                self.acks.push(frame.to_vec());
            } else {
                // A packet without a way is one that was lost.
                let _ = self.stack.output(frame, from, to);
            }
            result
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), self.transmit(now)?))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing {
            stack: self.stack,
            sent: &mut self.sent,
            acks: &mut self.acks,
            addrs: self.addrs,
            meta: PacketMeta::default(),
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        // The header of IPv6 is longer than the one that smoltcp counts with.
        let longer = if self.addrs.0.is_ipv4() { 0 } else { 20 };
        capabilities.max_transmission_unit = self.mtu.saturating_sub(longer);
        // The stack has looked at what comes in; what goes out the host completes.
        let mut checksum = ChecksumCapabilities::ignored();
        checksum.ipv4 = Checksum::Tx;
        capabilities.checksum = checksum;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(MAX_OFFLOAD);
        capabilities
    }
}
