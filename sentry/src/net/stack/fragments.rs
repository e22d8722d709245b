//! Packets that arrive in parts, until they are whole.
//!
//! Parts that overlap are thrown away with all that belongs to them: nobody honest sends them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::wire::{Packet, Part};

/// How long parts wait for the others.
const MAX_AGE_NS: u64 = 30_000_000_000;

/// The most packets that are being put together, and their bytes in all.
const MAX_PACKETS: usize = 256;
const MAX_BYTES: usize = 4 << 20;

/// The most parts of a packet.
const MAX_PARTS: usize = 1024;

/// The largest packet.
const MAX_LEN: usize = 65_535;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    id: u32,
}

struct Pile {
    since_ns: u64,
    /// Parts by where they begin, in order.
    parts: Vec<(usize, Vec<u8>)>,
    len: Option<usize>,
    is_broken: bool,
}

/// The packets of which parts have arrived.
#[derive(Default)]
pub(super) struct Fragments {
    piles: HashMap<Key, Pile>,
    n_bytes: usize,
}

impl Fragments {
    /// Adds a part; returns what the packet carries where it is whole now.
    pub(super) fn add(&mut self, packet: &Packet<'_>, part: Part, now_ns: u64) -> Option<Vec<u8>> {
        self.make_room(now_ns);
        let end = part.offset.checked_add(packet.payload.len()).filter(|end| *end <= MAX_LEN)?;
        if packet.payload.is_empty() || (part.goes_on && !packet.payload.len().is_multiple_of(8)) {
            return None;
        }
        let key = Key { from: packet.from, to: packet.to, protocol: packet.protocol, id: part.id };
        let pile = self.piles.entry(key.clone()).or_insert_with(|| Pile {
            since_ns: now_ns,
            parts: Vec::new(),
            len: None,
            is_broken: false,
        });
        if now_ns.saturating_sub(pile.since_ns) > MAX_AGE_NS {
            // Another packet, with a number that comes again.
            let n: usize = pile.parts.iter().map(|(_, data)| data.len()).sum();
            self.n_bytes = self.n_bytes.saturating_sub(n);
            *pile = Pile { since_ns: now_ns, parts: Vec::new(), len: None, is_broken: false };
        }
        if pile.is_broken {
            return None;
        }
        let at = pile.parts.partition_point(|(offset, _)| *offset < part.offset);
        if pile.parts.get(at).is_some_and(|(offset, data)| {
            *offset == part.offset && data.len() == packet.payload.len()
        }) {
            // Sent twice.
            return None;
        }
        let before = at.checked_sub(1).and_then(|before| pile.parts.get(before));
        let overlaps = before.is_some_and(|(offset, data)| offset + data.len() > part.offset)
            || pile.parts.get(at).is_some_and(|(offset, _)| *offset < end)
            || pile.len.is_some_and(|len| end > len || (!part.goes_on && end != len))
            || (!part.goes_on
                && pile.parts.last().is_some_and(|(offset, data)| offset + data.len() > end));
        if overlaps || pile.parts.len() >= MAX_PARTS {
            let n: usize = pile.parts.iter().map(|(_, data)| data.len()).sum();
            self.n_bytes = self.n_bytes.saturating_sub(n);
            pile.parts = Vec::new();
            pile.is_broken = true;
            return None;
        }
        if !part.goes_on {
            pile.len = Some(end);
        }
        self.n_bytes += packet.payload.len();
        pile.parts.insert(at, (part.offset, packet.payload.to_vec()));
        let n_here: usize = pile.parts.iter().map(|(_, data)| data.len()).sum();
        if pile.len != Some(n_here) {
            return None;
        }
        // No part overlaps another, so as many bytes as there are in all are all of them.
        let pile = self.piles.remove(&key)?;
        self.n_bytes = self.n_bytes.saturating_sub(n_here);
        Some(pile.parts.into_iter().flat_map(|(_, data)| data).collect())
    }

    /// Forgets what has waited too long, and where there is too much, what has waited longest.
    fn make_room(&mut self, now_ns: u64) {
        if self.piles.len() < MAX_PACKETS && self.n_bytes < MAX_BYTES {
            return;
        }
        self.piles.retain(|_, pile| now_ns.saturating_sub(pile.since_ns) < MAX_AGE_NS);
        let mut ages: Vec<_> =
            self.piles.iter().map(|(key, pile)| (pile.since_ns, key.clone())).collect();
        ages.sort_by_key(|(since_ns, _)| *since_ns);
        for (_, key) in ages.into_iter().take(self.piles.len() / 2) {
            self.piles.remove(&key);
        }
        let piles = self.piles.values().flat_map(|pile| &pile.parts);
        self.n_bytes = piles.map(|(_, data)| data.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Fragments, MAX_PACKETS};
    use crate::net::stack::wire::{Packet, Part};

    fn packet(payload: &[u8]) -> Packet<'_> {
        Packet {
            from: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            to: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
            protocol: 17,
            ttl: 64,
            tos: 0,
            part: None,
            payload,
            whole: payload,
        }
    }

    fn part(id: u32, offset: usize, goes_on: bool) -> Part {
        Part { id, offset, goes_on }
    }

    #[test]
    fn parts_in_any_order_make_a_packet() {
        let mut table = Fragments::default();
        assert_eq!(table.add(&packet(b"ghi"), part(1, 16, false), 0), None);
        assert_eq!(table.add(&packet(b"12345678"), part(1, 0, true), 0), None);
        assert_eq!(table.add(&packet(b"12345678"), part(1, 0, true), 0), None);
        let whole = table.add(&packet(b"abcdefgh"), part(1, 8, true), 0);
        assert_eq!(whole.as_deref(), Some(&b"12345678abcdefghghi"[..]));
        assert_eq!(table.n_bytes, 0);
    }

    #[test]
    fn overlapping_parts_spoil_the_packet() {
        let mut table = Fragments::default();
        assert_eq!(table.add(&packet(&[1; 16]), part(1, 0, true), 0), None);
        assert_eq!(table.add(&packet(&[2; 16]), part(1, 8, true), 0), None);
        assert_eq!(table.add(&packet(&[3; 8]), part(1, 16, false), 0), None);
        assert_eq!(table.n_bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut table = Fragments::default();
        for id in 0..10_000 {
            let _ = table.add(&packet(&[1; 1000]), part(id, 0, true), 0);
        }
        assert!(table.piles.len() <= MAX_PACKETS);
    }
}
