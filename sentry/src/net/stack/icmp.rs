//! Messages about errors, and echoes.

use std::net::IpAddr;

use syscalls::Errno;

use super::output::Quality;
use super::wire::{self, FRAME_HEAD, Packet};
use super::{Stack, message};
use crate::net::inet::Endpoint;

/// The most errors that are reported at once, and how long it takes until one more may be.
const BURST: u32 = 50;
const INTERVAL_NS: u64 = 1_000_000;

/// How many messages may still be sent.
#[derive(Default)]
pub(super) struct Allowance {
    n_used: u32,
    since_ns: u64,
}

impl Allowance {
    fn take(&mut self, now_ns: u64) -> bool {
        let regained = now_ns.saturating_sub(self.since_ns) / INTERVAL_NS;
        if regained > 0 {
            self.n_used = self.n_used.saturating_sub(u32::try_from(regained).unwrap_or(u32::MAX));
            self.since_ns = now_ns;
        }
        let may = self.n_used < BURST;
        self.n_used += u32::from(may);
        may
    }
}

impl Stack {
    /// Takes in a message of ICMP that is not one of neighbour discovery.
    pub(super) fn input_icmp(&self, packet: &Packet<'_>, is_own: bool) -> Option<()> {
        let message = packet.payload;
        let (kind, code) = (wire::byte(message, 0)?, wire::byte(message, 1)?);
        let is_v4 = packet.from.is_ipv4();
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.inet.deliver_icmp(packet.from, packet.to, packet.ttl, message);
        }
        match (is_v4, kind) {
            (true, 8) | (false, 128) if is_own => self.echo(packet),
            (true, 3 | 11 | 12) | (false, 1..=4) => {
                let inner = message.get(8..)?;
                self.input_error(inner, packet.from, error_of(is_v4, kind, code)?)
            }
            _ => Some(()),
        }
    }

    fn echo(&self, packet: &Packet<'_>) -> Option<()> {
        let reply = message::reply_to(packet.payload, packet.from, packet.to)?;
        let quality = Quality { ttl: 64, tos: packet.tos, is_whole: false };
        self.send_message(packet.to, packet.from, &reply, quality).ok()
    }

    /// Tells whoever has sent a packet what became of it: `inner` is its beginning.
    fn input_error(&self, inner: &[u8], offender: IpAddr, errno: Errno) -> Option<()> {
        let (from, to, protocol, segment) = addresses(inner)?;
        // Of nobody here.
        if !self.has_addr(from) {
            return None;
        }
        let from = Endpoint { ip: from, port: wire::number16(segment, 0)? };
        let to = Endpoint { ip: to, port: wire::number16(segment, 2)? };
        match protocol {
            wire::PROTOCOL_TCP => {
                let link = self.links.lock().get(&(from, to)).cloned()?;
                link.hear(errno, wire::number32(segment, 4)?);
            }
            wire::PROTOCOL_UDP => {
                let kernel = self.kernel.upgrade()?;
                let data = segment.get(8..).unwrap_or_default().to_vec();
                kernel.inet.complain(from, to, data, offender, errno);
            }
            _ => {}
        }
        Some(())
    }

    /// Tells whoever has sent a frame that its destination does not answer.
    pub(super) fn report_unreachable(&self, frame: &[u8]) {
        let packet = frame.get(FRAME_HEAD..).unwrap_or_default();
        if let Some((from, ..)) = addresses(packet) {
            let _ = self.input_error(packet, from, Errno::EHOSTUNREACH);
        }
    }

    /// Says that nobody has the port that a datagram was sent to.
    pub(super) fn refuse(&self, packet: &Packet<'_>) {
        /// What is said of the packet at most, so that the message fits everywhere.
        const MAX_QUOTE: usize = 528;
        if !self.complaints.lock().take(self.now_ns()) {
            return;
        }
        let is_v4 = packet.from.is_ipv4();
        let (kind, protocol) =
            if is_v4 { ([3, 3], wire::PROTOCOL_ICMP) } else { ([1, 4], wire::PROTOCOL_ICMPV6) };
        let whole = packet.whole;
        if whole.is_empty() {
            return;
        }
        let quote = whole.get(..MAX_QUOTE.min(whole.len())).unwrap_or_default();
        let mut message = [&kind[..], &[0; 6], quote].concat();
        let sum = if is_v4 {
            !wire::fold(wire::add_to_sum(0, &message))
        } else {
            wire::checksum(packet.to, packet.from, protocol, &message)
        };
        wire::put(&mut message, 2, &sum.to_be_bytes());
        let quality = Quality { ttl: 64, tos: 0xc0, is_whole: false };
        let _ = self.send_segment((packet.to, packet.from), protocol, &message, quality);
    }
}

/// Returns what a message says to the socket.
fn error_of(is_v4: bool, kind: u8, code: u8) -> Option<Errno> {
    match (is_v4, kind, code) {
        // That a packet was too long for a part of the way is not acted upon.
        (true, 3, 4) | (false, 2, _) => None,
        (true, 3, 2 | 3) | (false, 1, 4) => Some(Errno::ECONNREFUSED),
        (true, 3, 0 | 6 | 11) | (false, 1, 0) => Some(Errno::ENETUNREACH),
        (true, 3, _) | (true, 11, _) | (false, 1, 3) | (false, 3, _) => Some(Errno::EHOSTUNREACH),
        (false, 1, _) => Some(Errno::EACCES),
        _ => Some(Errno::EPROTO),
    }
}

/// Returns addresses, protocol and what there is of the segment, of a packet that may be cut.
fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    match wire::byte(bytes, 0)? >> 4 {
        4 => {
            let header_len = usize::from(wire::byte(bytes, 0)? & 0xf) * 4;
            let addr = |at| Some(IpAddr::V4(wire::number32(bytes, at)?.into()));
            let is_first = wire::number16(bytes, 6)? & 0x1fff == 0;
            let segment = bytes.get(header_len.max(20)..).filter(|_| is_first)?;
            Some((addr(12)?, addr(16)?, wire::byte(bytes, 9)?, segment))
        }
        6 => {
            let addr = |at: usize| {
                let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
                Some(IpAddr::from(octets))
            };
            Some((addr(8)?, addr(24)?, wire::byte(bytes, 6)?, bytes.get(40..)?))
        }
        _ => None,
    }
}
