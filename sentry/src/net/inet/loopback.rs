//! The loopback interface of a network namespace: whether it is up, and its addresses.
//!
//! As on Linux, every address of an IPv4 network that it has is this host's, and one of IPv6 goes when it
//! is taken down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use syscalls::{Errno, SysResult};

use super::addr;
use crate::net::stack::{broadcast_of, is_in};
use crate::sync::Mutex;

/// The MTU that the interface begins with.
const MTU: u32 = 65_536;

/// The length of its queue that it begins with.
const QUEUE_LEN: u32 = 1000;

/// The most addresses.
const MAX_ADDRS: usize = 256;

/// `RT_SCOPE_HOST`
const SCOPE_HOST: u8 = 254;

/// An address of the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::net) struct LoopbackAddr {
    pub(in crate::net) ip: IpAddr,
    /// The length of the network's part, in bits.
    pub(in crate::net) prefix: u8,
    pub(in crate::net) scope: u8,
    /// The name that `ifconfig(8)` knows it by; IPv4 only.
    pub(in crate::net) label: Vec<u8>,
    pub(in crate::net) broadcast: Option<Ipv4Addr>,
    /// Whether another address of the same network was there before.
    pub(in crate::net) is_secondary: bool,
}

impl LoopbackAddr {
    /// Returns an address without what else it may have.
    pub(in crate::net) fn new(ip: IpAddr, prefix: u8, scope: u8) -> Self {
        let label = b"lo".to_vec();
        Self { ip, prefix, scope, label, broadcast: None, is_secondary: false }
    }

    fn localhost4() -> Self {
        Self::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8, SCOPE_HOST)
    }

    fn localhost6() -> Self {
        Self::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128, SCOPE_HOST)
    }

    /// Returns whether two addresses are of one network.
    fn is_beside(&self, other: &Self) -> bool {
        self.prefix == other.prefix && is_in(self.ip, other.ip, other.prefix)
    }

    /// Returns whether what is sent to `ip` arrives because of this address.
    fn holds(&self, ip: IpAddr) -> bool {
        match self.ip {
            IpAddr::V4(_) => {
                is_in(ip, self.ip, self.prefix) && broadcast_of(self.ip, self.prefix) != Some(ip)
            }
            IpAddr::V6(_) => self.ip == ip,
        }
    }
}

struct State {
    mtu: u32,
    queue_len: u32,
    addrs: Vec<LoopbackAddr>,
}

/// Returns where among the addresses Linux lists a new one: the wider an IPv4 address is known, the later, and
/// an IPv6 address the earlier.
fn place_of(addrs: &[LoopbackAddr], new: &LoopbackAddr) -> usize {
    let reach = |ip: IpAddr| match ip {
        IpAddr::V6(ip) if ip.is_loopback() => 1,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 2,
        _ => 14,
    };
    if new.ip.is_ipv6() {
        let is_later = |old: &LoopbackAddr| old.ip.is_ipv6() && reach(old.ip) <= reach(new.ip);
        return addrs.iter().position(is_later).unwrap_or(addrs.len());
    }
    let is_earlier = |old: &LoopbackAddr| {
        old.ip.is_ipv4() && (new.is_secondary || (!old.is_secondary && new.scope <= old.scope))
    };
    addrs.iter().rposition(is_earlier).map_or(0, |last| last + 1)
}

/// The interface.
pub(crate) struct Loopback {
    is_up: AtomicBool,
    /// Whether it ever had an address.
    had_addr: AtomicBool,
    /// Whether its addresses are those of every host, and no others: nobody has to look into the list.
    is_plain: AtomicBool,
    state: Mutex<State>,
}

impl Loopback {
    /// Creates an interface: up and with its addresses, or down and without.
    pub(super) fn new(is_up: bool) -> Self {
        let addrs = if is_up {
            vec![LoopbackAddr::localhost4(), LoopbackAddr::localhost6()]
        } else {
            Vec::new()
        };
        Self {
            is_up: AtomicBool::new(is_up),
            had_addr: AtomicBool::new(is_up),
            is_plain: AtomicBool::new(is_up),
            state: Mutex::new(State { mtu: MTU, queue_len: QUEUE_LEN, addrs }),
        }
    }

    /// Returns whether the interface is up.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Returns whether the interface ever had an address: until then, Linux knows none that is wrong.
    pub(super) fn had_addr(&self) -> bool {
        self.had_addr.load(Ordering::Relaxed)
    }

    /// Takes the interface up or down. The first `up` gives it its addresses.
    pub(super) fn set_up(&self, up: bool) {
        let state = &mut *self.state.lock();
        let v6 = LoopbackAddr::localhost6();
        if !up {
            state.addrs.retain(|addr| addr.ip.is_ipv4());
        } else if !state.addrs.contains(&v6) {
            if !state.addrs.iter().any(|addr| addr.ip.is_ipv4()) {
                state.addrs.push(LoopbackAddr::localhost4());
            }
            state.addrs.insert(place_of(&state.addrs, &v6), v6);
        }
        self.note(&state.addrs);
        self.is_up.store(up, Ordering::Relaxed);
    }

    /// Keeps what is looked at without the lock.
    fn note(&self, addrs: &[LoopbackAddr]) {
        let plain = [LoopbackAddr::localhost4(), LoopbackAddr::localhost6()];
        self.is_plain.store(addrs == plain, Ordering::Relaxed);
        self.had_addr.fetch_or(!addrs.is_empty(), Ordering::Relaxed);
    }

    /// Returns the largest packet, and how many may wait, as they are shown.
    pub(in crate::net) fn limits(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.mtu, state.queue_len)
    }

    /// Sets the largest packet. What goes over the interface is not cut by it.
    pub(in crate::net) fn set_mtu(&self, mtu: u32) {
        self.state.lock().mtu = mtu;
    }

    /// Sets how many packets may wait. None ever does.
    pub(in crate::net) fn set_queue_len(&self, len: u32) {
        self.state.lock().queue_len = len;
    }

    /// Returns the addresses.
    pub(in crate::net) fn addrs(&self) -> Vec<LoopbackAddr> {
        self.state.lock().addrs.clone()
    }

    /// Returns each address with the length of its network's part.
    pub(crate) fn networks(&self) -> Vec<(IpAddr, u8)> {
        self.state.lock().addrs.iter().map(|addr| (addr.ip, addr.prefix)).collect()
    }

    /// Returns the first address of IPv4, with the length of its network's part.
    pub(super) fn first_v4(&self) -> Option<(Ipv4Addr, u8)> {
        let v4 = |addr: &LoopbackAddr| match addr.ip {
            IpAddr::V4(ip) => Some((ip, addr.prefix)),
            IpAddr::V6(_) => None,
        };
        self.state.lock().addrs.iter().find_map(v4)
    }

    /// Puts an address in the place of the first of IPv4; with another length of the network's part, or
    /// with what the class of the address says.
    pub(super) fn set_first_v4(&self, ip: Option<Ipv4Addr>, prefix: Option<u8>) -> SysResult<()> {
        let state = &mut *self.state.lock();
        let place = state.addrs.iter().position(|addr| addr.ip.is_ipv4());
        let old = place.and_then(|place| state.addrs.get(place)).cloned();
        let mut new = match (old, ip) {
            (None, None) => return Err(Errno::EADDRNOTAVAIL),
            (Some(old), None) => old,
            (_, Some(ip)) => {
                let class = match ip.octets()[0] {
                    0..128 => 8,
                    128..192 => 16,
                    192..224 => 24,
                    _ => return Err(Errno::EINVAL),
                };
                let scope = if ip.is_loopback() { SCOPE_HOST } else { 0 };
                LoopbackAddr::new(IpAddr::V4(ip), class, scope)
            }
        };
        new.prefix = prefix.unwrap_or(new.prefix);
        match place.and_then(|place| state.addrs.get_mut(place)) {
            Some(first) => *first = new,
            None => state.addrs.insert(0, new),
        }
        self.note(&state.addrs);
        Ok(())
    }

    /// Adds an address.
    ///
    /// # Errors
    /// `EEXIST` where it is there already and does not `replace`, `EINVAL` where one of the same network
    /// has another scope, `EADDRNOTAVAIL` for what is nobody's, `ENOBUFS` where there are too many.
    pub(in crate::net) fn add(&self, mut new: LoopbackAddr, replaces: bool) -> SysResult<()> {
        let state = &mut *self.state.lock();
        if new.ip.is_ipv6() && (new.ip.is_unspecified() || new.ip.is_multicast()) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let is_same =
            |old: &LoopbackAddr| old.ip == new.ip && (new.ip.is_ipv6() || old.prefix == new.prefix);
        if let Some(old) = state.addrs.iter_mut().find(|old| is_same(old)) {
            if !replaces {
                return Err(Errno::EEXIST);
            }
            new.is_secondary = old.is_secondary;
            *old = new;
        } else {
            if state.addrs.len() >= MAX_ADDRS {
                return Err(Errno::ENOBUFS);
            }
            if new.ip.is_ipv4()
                && let Some(first) = state.addrs.iter().find(|old| old.is_beside(&new))
            {
                if first.scope != new.scope {
                    return Err(Errno::EINVAL);
                }
                new.is_secondary = true;
            }
            let place = place_of(&state.addrs, &new);
            state.addrs.insert(place, new);
        }
        self.note(&state.addrs);
        Ok(())
    }

    /// Removes an address, and with the first of an IPv4 network the others of that.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where it is not there.
    pub(in crate::net) fn remove(&self, ip: IpAddr, prefix: Option<u8>) -> SysResult<()> {
        let state = &mut *self.state.lock();
        let is_meant = |addr: &LoopbackAddr| {
            addr.ip == ip && prefix.is_none_or(|prefix| prefix == addr.prefix)
        };
        let place = state.addrs.iter().position(is_meant).ok_or(Errno::EADDRNOTAVAIL)?;
        let gone = state.addrs.remove(place);
        if ip.is_ipv4() && !gone.is_secondary {
            state.addrs.retain(|addr| !(addr.is_secondary && addr.is_beside(&gone)));
        }
        self.note(&state.addrs);
        Ok(())
    }

    /// Returns whether what is sent to an address stays here because of this interface.
    pub(in crate::net) fn is_local(&self, ip: IpAddr) -> bool {
        if self.is_plain.load(Ordering::Relaxed) {
            return addr::is_local(ip);
        }
        self.state.lock().addrs.iter().any(|addr| addr.holds(ip))
    }

    /// Returns whether messages to an address go to everybody on the interface.
    pub(super) fn is_broadcast(&self, ip: IpAddr) -> bool {
        let is_own = |addr: &LoopbackAddr| broadcast_of(addr.ip, addr.prefix) == Some(ip);
        addr::is_broadcast(ip)
            || (!self.is_plain.load(Ordering::Relaxed)
                && self.state.lock().addrs.iter().any(is_own))
    }

    /// Returns the source address of what is sent to an address of the interface: the first of its network.
    pub(in crate::net) fn source_for(&self, to: IpAddr) -> IpAddr {
        if self.is_plain.load(Ordering::Relaxed) {
            return addr::source_for(to);
        }
        let state = self.state.lock();
        let network = state
            .addrs
            .iter()
            .filter(|addr| !addr.is_secondary && is_in(to, addr.ip, addr.prefix))
            .max_by_key(|addr| (addr.ip == to, addr.prefix));
        network.map_or_else(|| addr::source_for(to), |addr| addr.ip)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use syscalls::Errno;

    use super::{Loopback, LoopbackAddr};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addr(text: &str, prefix: u8) -> LoopbackAddr {
        LoopbackAddr::new(ip(text), prefix, 0)
    }

    #[test]
    fn addresses_come_with_up_and_those_of_ipv6_go_with_down() {
        let lo = Loopback::new(false);
        assert!(!lo.is_local(ip("127.0.0.1")) && !lo.had_addr());
        lo.set_up(true);
        assert!(lo.is_local(ip("127.9.9.9")) && lo.is_local(ip("::1")));
        lo.set_up(false);
        assert_eq!(lo.addrs().len(), 1);
        assert!(lo.had_addr());
    }

    #[test]
    fn whole_networks_of_ipv4_are_local() {
        let lo = Loopback::new(true);
        assert_eq!(lo.add(addr("10.9.0.1", 24), false), Ok(()));
        assert_eq!(lo.add(addr("10.9.0.1", 24), false), Err(Errno::EEXIST));
        assert_eq!(lo.add(addr("10.9.0.2", 24), false), Ok(()));
        assert!(lo.is_local(ip("10.9.0.77")) && !lo.is_local(ip("10.9.1.1")));
        assert!(lo.is_broadcast(ip("10.9.0.255")) && !lo.is_local(ip("10.9.0.255")));
        assert_eq!(lo.source_for(ip("10.9.0.77")), ip("10.9.0.1"));
        assert_eq!(lo.source_for(ip("10.9.0.2")), ip("10.9.0.1"));
        assert_eq!(lo.source_for(ip("127.0.0.5")), ip("127.0.0.1"));
        // The second goes with the first.
        assert_eq!(lo.remove(ip("10.9.0.1"), Some(24)), Ok(()));
        assert!(!lo.is_local(ip("10.9.0.2")));
        assert_eq!(lo.remove(ip("10.9.0.2"), None), Err(Errno::EADDRNOTAVAIL));
    }

    #[test]
    fn an_address_of_ipv6_is_alone() {
        let lo = Loopback::new(true);
        assert_eq!(lo.add(addr("fd00::9", 64), false), Ok(()));
        assert!(lo.is_local(ip("fd00::9")) && !lo.is_local(ip("fd00::8")));
        assert_eq!(lo.add(addr("ff02::9", 64), false), Err(Errno::EADDRNOTAVAIL));
    }

    #[test]
    fn addresses_are_bounded() {
        let lo = Loopback::new(true);
        let n =
            (0..=255).take_while(|last| lo.add(addr(&format!("10.0.{last}.1"), 32), false).is_ok());
        assert_eq!(n.count(), 254);
    }
}
