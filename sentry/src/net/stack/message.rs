//! Messages of ICMP as sockets send and receive them.

use std::net::IpAddr;

use syscalls::SysResult;

use super::wire::{self, Manner, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use super::{Quality, Stack};

/// Gives a message its checksum.
pub(in crate::net) fn complete(message: &mut [u8], from: IpAddr, to: IpAddr) {
    wire::put(message, 2, &[0; 2]);
    let sum = if from.is_ipv4() {
        !wire::fold(wire::add_to_sum(0, message))
    } else {
        wire::checksum(from, to, PROTOCOL_ICMPV6, message)
    };
    wire::put(message, 2, &sum.to_be_bytes());
}

/// Returns the answer to an echo that `from` has sent to `to`; none for other messages.
pub(in crate::net) fn reply_to(message: &[u8], from: IpAddr, to: IpAddr) -> Option<Vec<u8>> {
    let (request, reply) = if from.is_ipv4() { (8, 0) } else { (128, 129) };
    if wire::byte(message, 0) != Some(request) || wire::byte(message, 1) != Some(0) {
        return None;
    }
    let mut bytes = message.to_vec();
    wire::put(&mut bytes, 0, &[reply]);
    complete(&mut bytes, to, from);
    Some(bytes)
}

/// Returns a message behind the header with which it came.
pub(in crate::net) fn with_header(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    (ttl, tos): (u8, u8),
    message: &[u8],
) -> Vec<u8> {
    let manner = Manner { ttl, tos, fragment: 0, ..Manner::DEFAULT };
    let mut packet = wire::header(from, to, protocol, message.len(), manner);
    packet.extend_from_slice(message);
    packet
}

impl Stack {
    /// Sends a message.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EMSGSIZE`.
    pub(in crate::net) fn send_message(
        &self,
        from: IpAddr,
        to: IpAddr,
        message: &[u8],
        quality: Quality,
    ) -> SysResult<()> {
        let protocol = if from.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        self.send_segment((from, to), protocol, message, quality)
    }
}
