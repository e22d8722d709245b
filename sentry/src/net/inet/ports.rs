//! Which port belongs to whom: binding, conflicts, ephemeral ports (`inet_csk_get_port`).
//!
//! The lock of a table is a leaf.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use syscalls::abi::socket::{SO_REUSEADDR, SO_REUSEPORT};
use syscalls::{Errno, SysResult};

use super::addr::Endpoint;
use super::pairs::{Pair, Pairs};
use crate::net::options::Options;
use crate::sync::Mutex;

/// The most ports that are remembered as having been closed a moment ago.
const MAX_LINGERING: usize = 4096;

/// What a socket is bound to.
#[derive(Clone)]
pub(super) struct Claim {
    pub(super) ip: IpAddr,
    /// Whether `::` means IPv6 alone.
    pub(super) v6only: bool,
    pub(super) options: Arc<Options>,
    pub(super) uid: u32,
    pub(super) state: ClaimState,
}

/// What a claim on a port stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimState {
    /// A socket that was bound.
    Bound,
    /// A socket that listens.
    Listening,
    /// A socket that got the port when it connected.
    Connected,
    /// None any more: the connection was closed from this side, and the port is kept until then.
    Lingering { until_ns: u64 },
}

/// A claim and whose it is.
struct Entry<S> {
    claim: Claim,
    socket: S,
    /// Set when the port need not be kept any more.
    is_over: Option<Arc<AtomicBool>>,
}

impl<S> Entry<S> {
    /// Returns whether `claim` may not have the port that this one has.
    fn forbids(&self, claim: &Claim, now_ns: u64) -> bool {
        let is_over = self.is_over.as_ref().is_some_and(|over| over.load(Ordering::Relaxed));
        !is_over && claim.conflicts(&self.claim, now_ns)
    }
}

struct Tables<S> {
    ports: HashMap<u16, BTreeMap<u64, Entry<S>>>,
    pairs: Pairs,
    n_lingering: usize,
}

/// The ports of one protocol. `S` is how the table refers to a socket.
pub(super) struct Ports<S> {
    tables: Mutex<Tables<S>>,
    next_id: AtomicU64,
}

/// A place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) port: u16,
    id: u64,
}

impl Claim {
    fn overlaps(&self, other: &Self) -> bool {
        match (self.ip, other.ip) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                one == other || one.is_unspecified() || other.is_unspecified()
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                one == other || one.is_unspecified() || other.is_unspecified()
            }
            (IpAddr::V6(ip), IpAddr::V4(_)) => ip.is_unspecified() && !self.v6only,
            (IpAddr::V4(_), IpAddr::V6(ip)) => ip.is_unspecified() && !other.v6only,
        }
    }

    fn switch(&self, name: i32) -> bool {
        self.options.switch(name) == Some(true)
    }

    /// Returns whether `self` may not have the port that `other` has.
    fn conflicts(&self, other: &Self, now_ns: u64) -> bool {
        if let ClaimState::Lingering { until_ns } = other.state
            && until_ns <= now_ns
        {
            return false;
        }
        if !self.overlaps(other) {
            return false;
        }
        let both = |name| self.switch(name) && other.switch(name);
        if both(SO_REUSEADDR) && other.state != ClaimState::Listening {
            return false;
        }
        let is_lingering = matches!(other.state, ClaimState::Lingering { .. });
        !(both(SO_REUSEPORT) && (is_lingering || self.uid == other.uid))
    }

    /// Returns how well this claim fits a packet to `ip`; `None`: not at all.
    pub(super) fn score(&self, ip: IpAddr) -> Option<u32> {
        match (self.ip, ip) {
            (own, to) if own == to => Some(3),
            (IpAddr::V4(own), IpAddr::V4(_)) if own.is_unspecified() => Some(2),
            (IpAddr::V6(own), IpAddr::V6(_)) if own.is_unspecified() => Some(2),
            (IpAddr::V6(own), IpAddr::V4(_)) if own.is_unspecified() && !self.v6only => Some(1),
            _ => None,
        }
    }
}

/// The range of ports that are handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortRange {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl PortRange {
    /// Returns all ports once, from a random one on.
    pub(super) fn ports(self) -> impl Iterator<Item = u16> {
        let n = u32::from(self.last.saturating_sub(self.first)) + 1;
        let mut bytes = [0; 4];
        // Without random numbers the order is fixed, which is no harm.
        let _ = sentry_host::random::fill(&mut bytes);
        let start = u32::from_ne_bytes(bytes) % n;
        let first = u32::from(self.first);
        (0..n).filter_map(move |step| u16::try_from(first + (start + step) % n).ok())
    }
}

impl<S: Clone> Ports<S> {
    pub(super) fn new() -> Self {
        let tables = Tables { ports: HashMap::new(), pairs: Pairs::default(), n_lingering: 0 };
        Self { tables: Mutex::new(tables), next_id: AtomicU64::new(1) }
    }

    /// Claims a port, or some port where it is zero.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub(super) fn bind(
        &self,
        port: u16,
        claim: Claim,
        socket: S,
        range: PortRange,
        now_ns: u64,
    ) -> SysResult<Place> {
        let mut tables = self.tables.lock();
        let port = if port == 0 {
            let is_empty = |port: &u16| {
                let entries = tables.ports.get(port);
                entries.is_none_or(|entries| {
                    entries.values().all(|entry| !claim.overlaps(&entry.claim))
                })
            };
            let may_have = |port: &u16| {
                tables.ports.get(port).is_none_or(|entries| {
                    entries.values().all(|entry| !entry.forbids(&claim, now_ns))
                })
            };
            let found = range.ports().find(is_empty);
            found.or_else(|| range.ports().find(may_have)).ok_or(Errno::EADDRINUSE)?
        } else {
            let entries = tables.ports.get(&port);
            let is_taken = entries
                .is_some_and(|entries| entries.values().any(|entry| entry.forbids(&claim, now_ns)));
            if is_taken {
                return Err(Errno::EADDRINUSE);
            }
            port
        };
        Ok(self.insert(&mut tables, port, claim, socket))
    }

    fn insert(&self, tables: &mut Tables<S>, port: u16, claim: Claim, socket: S) -> Place {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        tables.ports.entry(port).or_default().insert(id, Entry { claim, socket, is_over: None });
        Place { port, id }
    }

    /// Gives a connection that `listen(2)` has brought its share of the port.
    pub(super) fn share(&self, port: u16, claim: Claim, socket: S) -> Place {
        let mut tables = self.tables.lock();
        self.insert(&mut tables, port, claim, socket)
    }

    /// Claims a port for a connection to `to`: one that nobody has, else one that only other
    /// connections have.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`.
    pub(super) fn connect(
        &self,
        claim: Claim,
        to: Endpoint,
        (socket, now_ns): (S, u64),
        range: PortRange,
    ) -> SysResult<Place> {
        let mut tables = self.tables.lock();
        let is_free = |port: &u16| !tables.ports.contains_key(port);
        let may_share = |port: &u16| {
            let from = Endpoint { ip: claim.ip, port: *port };
            let entries = tables.ports.get(port);
            !tables.pairs.is_held(from, to, now_ns)
                && entries.is_none_or(|entries| {
                    entries.values().all(|entry| {
                        !matches!(entry.claim.state, ClaimState::Bound | ClaimState::Listening)
                    })
                })
        };
        let found = range.ports().find(is_free).or_else(|| range.ports().find(may_share));
        let port = found.ok_or(Errno::EADDRNOTAVAIL)?;
        Ok(self.insert(&mut tables, port, claim, socket))
    }

    /// Enters a connection.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where it exists.
    pub(super) fn enter_pair(&self, from: Endpoint, to: Endpoint, now_ns: u64) -> SysResult<()> {
        self.tables.lock().pairs.enter(from, to, now_ns)
    }

    /// Enters one end of a connection within the sandbox.
    pub(super) fn set_pair(&self, from: Endpoint, to: Endpoint, pair: Arc<Pair>) {
        self.tables.lock().pairs.set(from, to, pair);
    }

    /// Removes a connection.
    pub(super) fn leave_pair(&self, from: Endpoint, to: Endpoint) {
        self.tables.lock().pairs.remove(from, to);
    }

    /// Leaves the end of a connection whose socket is closed to its time.
    pub(super) fn settle_pair(&self, from: Endpoint, to: Endpoint, pair: &Arc<Pair>, now_ns: u64) {
        self.tables.lock().pairs.settle(from, to, pair, now_ns);
    }

    /// Forgets an end that is in `TIME_WAIT`; returns whether there was one.
    pub(super) fn forget_remembered(&self, from: Endpoint, to: Endpoint, now_ns: u64) -> bool {
        self.tables.lock().pairs.forget_remembered(from, to, now_ns)
    }

    /// Changes a claim.
    pub(super) fn update(&self, place: Place, change: impl FnOnce(&mut Claim)) {
        let mut tables = self.tables.lock();
        let entries = tables.ports.get_mut(&place.port);
        if let Some(entry) = entries.and_then(|entries| entries.get_mut(&place.id)) {
            change(&mut entry.claim);
        }
    }

    /// Lets a port go with its connection: once `is_over`, it is anybody's.
    pub(super) fn end_with(&self, place: Place, is_over: Arc<AtomicBool>) {
        let mut tables = self.tables.lock();
        let entries = tables.ports.get_mut(&place.port);
        if let Some(entry) = entries.and_then(|entries| entries.get_mut(&place.id)) {
            entry.is_over = Some(is_over);
        }
    }

    /// Makes a bound socket one that listens.
    ///
    /// # Errors
    /// `EADDRINUSE` where another one that could be bound beside it listens already.
    pub(super) fn listen(&self, place: Place, now_ns: u64) -> SysResult<()> {
        let mut tables = self.tables.lock();
        let Some(entries) = tables.ports.get_mut(&place.port) else { return Ok(()) };
        let Some(own) = entries.get(&place.id) else { return Ok(()) };
        let is_taken =
            entries.iter().any(|(id, entry)| *id != place.id && entry.forbids(&own.claim, now_ns));
        if is_taken {
            return Err(Errno::EADDRINUSE);
        }
        if let Some(own) = entries.get_mut(&place.id) {
            own.claim.state = ClaimState::Listening;
        }
        Ok(())
    }

    /// Gives a port back.
    pub(super) fn release(&self, place: Place) {
        let mut tables = self.tables.lock();
        let Some(entries) = tables.ports.get_mut(&place.port) else { return };
        entries.remove(&place.id);
        if entries.is_empty() {
            tables.ports.remove(&place.port);
        }
    }

    /// Gives a port back that nobody without `SO_REUSEADDR` may have until `until_ns`, or until `is_over`.
    pub(super) fn release_later(
        &self,
        place: Place,
        (until_ns, is_over): (u64, Option<Arc<AtomicBool>>),
        now_ns: u64,
        nobody: S,
    ) {
        let mut tables = self.tables.lock();
        if tables.n_lingering >= MAX_LINGERING {
            forget_lingering(&mut tables, now_ns);
        }
        if tables.n_lingering >= MAX_LINGERING {
            drop(tables);
            return self.release(place);
        }
        let entries = tables.ports.get_mut(&place.port);
        if let Some(entry) = entries.and_then(|entries| entries.get_mut(&place.id)) {
            entry.claim.state = ClaimState::Lingering { until_ns };
            (entry.socket, entry.is_over) = (nobody, is_over);
            tables.n_lingering += 1;
        }
    }

    /// Calls `visit` with every claim on a port, in the order of binding.
    pub(super) fn visit(&self, port: u16, visit: &mut dyn FnMut(&Claim, &S)) {
        let tables = self.tables.lock();
        for entry in tables.ports.get(&port).into_iter().flat_map(BTreeMap::values) {
            visit(&entry.claim, &entry.socket);
        }
    }

    /// Returns every socket with a port.
    pub(super) fn all(&self) -> Vec<S> {
        let tables = self.tables.lock();
        let mut ports: Vec<_> = tables.ports.iter().collect();
        ports.sort_by_key(|(port, _)| **port);
        let entries = ports.into_iter().flat_map(|(_, entries)| entries.values());
        entries.map(|entry| entry.socket.clone()).collect()
    }
}

/// Forgets ports whose time is over.
fn forget_lingering<S>(tables: &mut Tables<S>, now_ns: u64) {
    let mut n_left = 0;
    tables.ports.retain(|_, entries| {
        entries.retain(|_, entry| match entry.claim.state {
            ClaimState::Lingering { until_ns } => {
                let is_kept = until_ns > now_ns;
                n_left += usize::from(is_kept);
                is_kept
            }
            _ => true,
        });
        !entries.is_empty()
    });
    tables.n_lingering = n_left;
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use syscalls::Errno;
    use syscalls::abi::socket::{SO_REUSEADDR, SO_REUSEPORT};

    use super::{Claim, ClaimState, PortRange, Ports};
    use crate::net::options::Options;

    const RANGE: PortRange = PortRange { first: 40_000, last: 40_003 };
    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn claim(ip: IpAddr, switches: &[i32]) -> Claim {
        let options = Arc::new(Options::default());
        for switch in switches {
            options.set_switch(*switch, true);
        }
        Claim { ip, v6only: false, options, uid: 0, state: ClaimState::Bound }
    }

    #[test]
    fn wildcards_conflict_across_families() {
        let ports = Ports::new();
        ports.bind(80, claim(ANY6, &[]), (), RANGE, 0).unwrap();
        assert_eq!(ports.bind(80, claim(LOCAL4, &[]), (), RANGE, 0), Err(Errno::EADDRINUSE));
        assert!(ports.bind(81, claim(LOCAL4, &[]), (), RANGE, 0).is_ok());
        assert_eq!(ports.bind(81, claim(ANY4, &[]), (), RANGE, 0), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn reused_addresses_listen_once() {
        let ports = Ports::new();
        let one = ports.bind(80, claim(ANY4, &[SO_REUSEADDR]), (), RANGE, 0).unwrap();
        let other = ports.bind(80, claim(ANY4, &[SO_REUSEADDR]), (), RANGE, 0).unwrap();
        assert_eq!(ports.listen(one, 0), Ok(()));
        assert_eq!(ports.listen(other, 0), Err(Errno::EADDRINUSE));
        let third = ports.bind(81, claim(ANY4, &[SO_REUSEPORT]), (), RANGE, 0).unwrap();
        let fourth = ports.bind(81, claim(ANY4, &[SO_REUSEPORT]), (), RANGE, 0).unwrap();
        assert_eq!(ports.listen(third, 0), Ok(()));
        assert_eq!(ports.listen(fourth, 0), Ok(()));
    }

    #[test]
    fn ephemeral_ports_run_out() {
        let ports = Ports::new();
        for _ in 0..4 {
            ports.bind(0, claim(ANY4, &[]), (), RANGE, 0).unwrap();
        }
        assert_eq!(ports.bind(0, claim(ANY4, &[]), (), RANGE, 0), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn closed_connection_keeps_its_port_for_a_while() {
        let ports = Ports::new();
        let place = ports.bind(80, claim(ANY4, &[]), (), RANGE, 0).unwrap();
        ports.release_later(place, (100, None), 0, ());
        assert_eq!(ports.bind(80, claim(ANY4, &[]), (), RANGE, 50), Err(Errno::EADDRINUSE));
        assert!(ports.bind(80, claim(ANY4, &[]), (), RANGE, 100).is_ok());
    }
}
