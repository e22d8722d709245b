//! Which connections there are, by both of their ends: nobody makes a second one between the same two.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use super::addr::Endpoint;
use crate::kernel::Kernel;
use crate::sync::Mutex;

/// The most ends that are kept after their sockets.
const MAX_SETTLED: usize = 4096;

/// How long an end in `FIN_WAIT2` whose socket is closed waits (`tcp_fin_timeout`), and one in `TIME_WAIT` is kept.
pub(super) const KEPT_NS: u64 = 60_000_000_000;

/// How far an end has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Held,
    /// Its socket is closed, and the peer has not sent its FIN.
    HeldUntil(u64),
    /// `TIME_WAIT`.
    Remembered(u64),
    Over,
}

/// One end of a connection, as far as those see it that would connect or bind. Its lock is a leaf.
#[derive(Debug)]
pub(super) struct Pair {
    kernel: Weak<Kernel>,
    stage: Mutex<Stage>,
    /// Set when nobody need keep the port any more.
    frees_port: Arc<AtomicBool>,
}

impl Pair {
    pub(super) fn new(kernel: Weak<Kernel>, frees_port: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self { kernel, stage: Mutex::new(Stage::Held), frees_port })
    }

    fn until_ns(&self) -> u64 {
        let now_ns = self.kernel.upgrade().map_or(0, |kernel| kernel.clock.monotonic_ns());
        now_ns.saturating_add(KEPT_NS)
    }

    /// The socket is closed, the connection is not.
    pub(super) fn outlive_socket(&self) {
        *self.stage.lock() = Stage::HeldUntil(self.until_ns());
    }

    /// The end is in `TIME_WAIT`.
    pub(super) fn remember(&self) {
        *self.stage.lock() = Stage::Remembered(self.until_ns());
    }

    pub(super) fn end(&self) {
        *self.stage.lock() = Stage::Over;
    }

    fn is_held(&self, now_ns: u64) -> bool {
        match *self.stage.lock() {
            Stage::Held => true,
            Stage::HeldUntil(until_ns) => now_ns < until_ns,
            Stage::Remembered(_) | Stage::Over => false,
        }
    }

    fn is_remembered(&self, now_ns: u64) -> bool {
        matches!(*self.stage.lock(), Stage::Remembered(until_ns) if now_ns < until_ns)
    }

    fn forget(&self) {
        self.end();
        self.frees_port.store(true, Ordering::Relaxed);
    }
}

struct Entry {
    /// None for one that lasts until it is removed.
    pair: Option<Arc<Pair>>,
    /// Its socket is closed.
    is_settled: bool,
}

impl Entry {
    fn is_held(&self, now_ns: u64) -> bool {
        self.pair.as_ref().is_none_or(|pair| pair.is_held(now_ns))
    }

    fn is_kept(&self, now_ns: u64) -> bool {
        self.pair.as_ref().is_none_or(|pair| pair.is_held(now_ns) || pair.is_remembered(now_ns))
    }
}

/// The ends there are: each by its own address and its peer's.
#[derive(Default)]
pub(super) struct Pairs {
    entries: HashMap<(Endpoint, Endpoint), Entry>,
    n_settled: usize,
    /// When it may be of use to look for ends whose time is over.
    next_look_ns: u64,
}

impl Pairs {
    pub(super) fn is_held(&self, from: Endpoint, to: Endpoint, now_ns: u64) -> bool {
        self.entries.get(&(from, to)).is_some_and(|entry| entry.is_held(now_ns))
    }

    /// Enters an end that lasts until it is removed, or replaced by that of a connection. One in `TIME_WAIT` gives
    /// way, as on Linux where both ends are on one machine (`tcp_tw_reuse`).
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where there is one.
    pub(super) fn enter(&mut self, from: Endpoint, to: Endpoint, now_ns: u64) -> SysResult<()> {
        if self.is_held(from, to, now_ns) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.insert(from, to, None);
        Ok(())
    }

    /// Enters the end of a connection.
    pub(super) fn set(&mut self, from: Endpoint, to: Endpoint, pair: Arc<Pair>) {
        self.insert(from, to, Some(pair));
    }

    fn insert(&mut self, from: Endpoint, to: Endpoint, pair: Option<Arc<Pair>>) {
        let old = self.entries.insert((from, to), Entry { pair, is_settled: false });
        let Some(old) = old else { return };
        self.n_settled -= usize::from(old.is_settled);
        if let Some(pair) = old.pair {
            pair.forget();
        }
    }

    pub(super) fn remove(&mut self, from: Endpoint, to: Endpoint) {
        if let Some(old) = self.entries.remove(&(from, to)) {
            self.n_settled -= usize::from(old.is_settled);
        }
    }

    /// Keeps an end whose socket is closed for as long as TCP does.
    pub(super) fn settle(&mut self, from: Endpoint, to: Endpoint, pair: &Arc<Pair>, now_ns: u64) {
        if self.n_settled >= MAX_SETTLED && now_ns >= self.next_look_ns {
            self.forget_old(now_ns);
        }
        let is_full = self.n_settled >= MAX_SETTLED;
        let Some(entry) = self.entries.get_mut(&(from, to)) else { return };
        if !entry.pair.as_ref().is_some_and(|own| Arc::ptr_eq(own, pair)) {
            // Another connection has come in its place.
            return;
        }
        if is_full || !entry.is_kept(now_ns) {
            return self.remove(from, to);
        }
        self.n_settled += usize::from(!std::mem::replace(&mut entry.is_settled, true));
    }

    fn forget_old(&mut self, now_ns: u64) {
        self.entries.retain(|_, entry| !entry.is_settled || entry.is_kept(now_ns));
        self.n_settled = self.entries.values().filter(|entry| entry.is_settled).count();
        self.next_look_ns = now_ns.saturating_add(KEPT_NS / 60);
    }

    /// Forgets an end that is in `TIME_WAIT`; returns whether there was one.
    pub(super) fn forget_remembered(&mut self, from: Endpoint, to: Endpoint, now_ns: u64) -> bool {
        let pair = self.entries.get(&(from, to)).and_then(|entry| entry.pair.as_ref());
        let Some(pair) = pair.filter(|pair| pair.is_remembered(now_ns)) else { return false };
        pair.forget();
        self.remove(from, to);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Weak};

    use syscalls::Errno;

    use super::{KEPT_NS, MAX_SETTLED, Pair, Pairs};
    use crate::net::inet::addr::Endpoint;

    fn at(port: u16) -> Endpoint {
        Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port }
    }

    fn entered(pairs: &mut Pairs, from: u16, to: u16) -> (Arc<Pair>, Arc<AtomicBool>) {
        let frees_port = Arc::new(AtomicBool::new(false));
        let pair = Pair::new(Weak::new(), frees_port.clone());
        pairs.enter(at(from), at(to), 0).unwrap();
        pairs.set(at(from), at(to), pair.clone());
        (pair, frees_port)
    }

    #[test]
    fn ends_are_held_until_time_wait() {
        let mut pairs = Pairs::default();
        let (pair, frees_port) = entered(&mut pairs, 1, 2);
        assert_eq!(pairs.enter(at(1), at(2), 0), Err(Errno::EADDRNOTAVAIL));
        pair.outlive_socket();
        pairs.settle(at(1), at(2), &pair, 0);
        assert_eq!(pairs.enter(at(1), at(2), KEPT_NS - 1), Err(Errno::EADDRNOTAVAIL));
        assert!(!pairs.forget_remembered(at(1), at(2), 0));
        pair.remember();
        assert!(!frees_port.load(Ordering::Relaxed));
        assert_eq!(pairs.enter(at(1), at(2), 0), Ok(()));
        assert!(frees_port.load(Ordering::Relaxed));
        // What it was says nothing about what is there now.
        pairs.settle(at(1), at(2), &pair, 0);
        assert!(pairs.is_held(at(1), at(2), u64::MAX));
    }

    #[test]
    fn remembered_ends_are_forgotten_once() {
        let mut pairs = Pairs::default();
        let (pair, frees_port) = entered(&mut pairs, 1, 2);
        pair.remember();
        assert!(!pairs.forget_remembered(at(1), at(2), KEPT_NS));
        assert!(pairs.forget_remembered(at(1), at(2), KEPT_NS - 1));
        assert!(frees_port.load(Ordering::Relaxed));
        assert!(!pairs.forget_remembered(at(1), at(2), 0));
    }

    #[test]
    fn ends_without_sockets_are_few() {
        let mut pairs = Pairs::default();
        for port in 0..5000 {
            let (pair, _) = entered(&mut pairs, port, 1);
            pair.remember();
            pairs.settle(at(port), at(1), &pair, 0);
        }
        assert_eq!((pairs.entries.len(), pairs.n_settled), (MAX_SETTLED, MAX_SETTLED));
        let (pair, _) = entered(&mut pairs, 6000, 1);
        pair.outlive_socket();
        pairs.settle(at(6000), at(1), &pair, KEPT_NS - 1);
        assert_eq!(pairs.entries.len(), MAX_SETTLED);
        let (pair, _) = entered(&mut pairs, 6001, 1);
        pair.outlive_socket();
        pairs.settle(at(6001), at(1), &pair, KEPT_NS * 2);
        assert_eq!((pairs.entries.len(), pairs.n_settled), (0, 0));
    }
}
