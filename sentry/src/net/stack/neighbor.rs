//! Who has which address on a link: ARP for IPv4, neighbour discovery for IPv6.
//!
//! A packet to somebody unknown waits here while the question is asked; three questions without an
//! answer make the destination unreachable. The lock of the table is a leaf.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;

use super::wire::Mac;
use crate::sync::Mutex;

/// The time between two questions, and how many there are.
const RETRY_NS: u64 = 1_000_000_000;
const MAX_QUESTIONS: u32 = 3;

/// After how long an answer is asked for again, when the address is next used.
const STALE_NS: u64 = 30_000_000_000;

/// The most packets that wait for one answer.
const MAX_WAITING: usize = 64;

/// The most neighbours that are remembered, and that are asked for at a time.
const MAX_ENTRIES: usize = 4096;
const MAX_PENDING: usize = 1024;

/// A neighbour: the number of the interface, and the address.
pub(super) type Key = (usize, IpAddr);

struct Known {
    mac: Mac,
    confirmed_ns: u64,
    asked_ns: u64,
    n_asked: u32,
}

struct Pending {
    frames: VecDeque<Vec<u8>>,
    asked_ns: u64,
    n_asked: u32,
}

#[derive(Default)]
struct Inner {
    known: HashMap<Key, Known>,
    pending: HashMap<Key, Pending>,
}

/// What is known of the neighbours.
#[derive(Default)]
pub(super) struct Neighbors(Mutex<Inner>);

/// What to do with a packet.
pub(super) enum Answer {
    /// Send it there; where `asks` is set, ask whether the neighbour is still there as well.
    Known { mac: Mac, asks: bool },
    /// It waits; where `asks` is set, the question is to be asked.
    Waits { asks: bool },
}

/// What is to be done after a while: questions, and packets that are given up.
#[derive(Default)]
pub(super) struct Due {
    pub(super) questions: Vec<Key>,
    pub(super) lost: Vec<Vec<u8>>,
}

impl Neighbors {
    /// Looks a neighbour up for a frame, which is kept where the neighbour is not known.
    pub(super) fn find(&self, key: Key, frame: &[u8], now_ns: u64) -> Answer {
        let mut inner = self.0.lock();
        if let Some(known) = inner.known.get_mut(&key) {
            let is_stale = now_ns.saturating_sub(known.confirmed_ns) > STALE_NS;
            let asks = is_stale && now_ns.saturating_sub(known.asked_ns) > RETRY_NS;
            if !asks || known.n_asked < MAX_QUESTIONS {
                if asks {
                    known.asked_ns = now_ns;
                    known.n_asked += 1;
                }
                return Answer::Known { mac: known.mac, asks };
            }
            inner.known.remove(&key);
        }
        if let Some(pending) = inner.pending.get_mut(&key) {
            if pending.frames.len() >= MAX_WAITING {
                pending.frames.pop_front();
            }
            pending.frames.push_back(frame.to_vec());
            return Answer::Waits { asks: false };
        }
        if inner.pending.len() >= MAX_PENDING {
            return Answer::Waits { asks: false };
        }
        let frames = VecDeque::from([frame.to_vec()]);
        inner.pending.insert(key, Pending { frames, asked_ns: now_ns, n_asked: 1 });
        Answer::Waits { asks: true }
    }

    /// Learns where a neighbour is; one that nobody has asked for only where `is_wanted`, or where it
    /// is known. Returns the frames that have waited for it.
    pub(super) fn learn(&self, key: Key, mac: Mac, is_wanted: bool, now_ns: u64) -> Vec<Vec<u8>> {
        let mut inner = self.0.lock();
        let pending = inner.pending.remove(&key);
        if pending.is_none() && !is_wanted && !inner.known.contains_key(&key) {
            return Vec::new();
        }
        if inner.known.len() >= MAX_ENTRIES && !inner.known.contains_key(&key) {
            let oldest = inner.known.iter().min_by_key(|(_, known)| known.confirmed_ns);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                inner.known.remove(&oldest);
            }
        }
        inner.known.insert(key, Known { mac, confirmed_ns: now_ns, asked_ns: 0, n_asked: 0 });
        pending.map(|pending| pending.frames.into()).unwrap_or_default()
    }

    /// Returns what there is to do by now.
    pub(super) fn due(&self, now_ns: u64) -> Due {
        let mut due = Due::default();
        let mut inner = self.0.lock();
        inner.pending.retain(|key, pending| {
            if pending.asked_ns.saturating_add(RETRY_NS) > now_ns {
                return true;
            }
            if pending.n_asked >= MAX_QUESTIONS {
                due.lost.extend(std::mem::take(&mut pending.frames));
                return false;
            }
            pending.n_asked += 1;
            pending.asked_ns = now_ns;
            due.questions.push(*key);
            true
        });
        due
    }

    /// Returns when there is something to do.
    pub(super) fn due_at_ns(&self) -> Option<u64> {
        let inner = self.0.lock();
        inner.pending.values().map(|pending| pending.asked_ns.saturating_add(RETRY_NS)).min()
    }

    /// Returns what is known, for those who ask.
    pub(super) fn all(&self) -> Vec<(Key, Mac)> {
        self.0.lock().known.iter().map(|(key, known)| (*key, known.mac)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Answer, Key, Neighbors, RETRY_NS};

    const KEY: Key = (0, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));

    #[test]
    fn packets_wait_for_an_answer() {
        let table = Neighbors::default();
        assert!(matches!(table.find(KEY, b"one", 0), Answer::Waits { asks: true }));
        assert!(matches!(table.find(KEY, b"two", 1), Answer::Waits { asks: false }));
        let waiting = table.learn(KEY, [1; 6], false, 2);
        assert_eq!(waiting, [b"one".to_vec(), b"two".to_vec()]);
        assert!(
            matches!(table.find(KEY, b"", 3), Answer::Known { mac, asks: false } if mac == [1; 6])
        );
    }

    #[test]
    fn questions_without_an_answer_end() {
        let table = Neighbors::default();
        let _ = table.find(KEY, b"lost", 0);
        assert_eq!(table.due(RETRY_NS).questions, [KEY]);
        assert_eq!(table.due(2 * RETRY_NS).questions, [KEY]);
        assert_eq!(table.due(3 * RETRY_NS).lost, [b"lost".to_vec()]);
        assert_eq!(table.due_at_ns(), None);
    }

    #[test]
    fn nobody_is_believed_who_was_not_asked() {
        let table = Neighbors::default();
        assert!(table.learn(KEY, [1; 6], false, 0).is_empty());
        assert!(table.all().is_empty());
    }
}
