//! The sandbox's own network stack: the interfaces of the network namespace that it was given, over
//! packet sockets.
//!
//! One thread receives ([`thread`], [`input`]); whoever has something to send does so itself
//! ([`output`]). A connection of TCP is a [`link`], in which smoltcp is the protocol: one interface
//! and one socket each, so that a packet or a timer touches one connection, however many there are.
//! Loopback is not here: what goes to an own address never becomes a packet.
//!
//! Locks, from the outside inwards: a link's core; the table of links, the timers, the neighbours,
//! the fragments, each a leaf. Sockets are called without any of them.

mod fragments;
mod icmp;
mod input;
pub(in crate::net) mod link;
pub(in crate::net) mod message;
mod neighbor;
mod output;
mod resolver;
mod route;
mod thread;
mod timers;
pub(in crate::net) mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use self::fragments::Fragments;
use self::link::Link;
use self::neighbor::Neighbors;
pub use self::output::Quality;
use self::resolver::Resolver;
use self::route::Routes;
pub(super) use self::route::{is_in, is_link_local};
use self::timers::Timers;
use super::inet::Endpoint;
use super::packet::Taps;
use crate::config::network::{InterfaceConfig, NetworkConfig};
use crate::kernel::{Kernel, spawn_thread};
use crate::sync::Mutex;

/// The least MTU with which the protocols work.
const MIN_MTU: u32 = 576;

/// What has gone over an interface.
#[derive(Default)]
pub struct Counters {
    /// Bytes and packets received, and packets that were of no use.
    pub received: [AtomicU64; 3],
    /// Bytes and packets sent, and packets for which there was no room.
    pub sent: [AtomicU64; 3],
}

/// A network interface.
pub struct Nic {
    /// What it was when the sandbox took it over.
    pub config: InterfaceConfig,
    /// What has gone over it.
    pub counters: Counters,
    /// Who is shown what goes over it.
    taps: Arc<Taps>,
    socket: OwnedFd,
}

/// A connection by its two ends: the own one first.
type Pair = (Endpoint, Endpoint);

/// The network of a sandbox.
pub struct Stack {
    this: Weak<Stack>,
    kernel: Weak<Kernel>,
    config: NetworkConfig,
    nics: Vec<Nic>,
    routes: Routes,
    neighbors: Neighbors,
    links: Mutex<HashMap<Pair, Arc<Link>>>,
    timers: Timers,
    fragments: Mutex<Fragments>,
    event: OwnedFd,
    resolver: Option<Resolver>,
    next_id: AtomicU16,
    /// When the last message about an error was sent, and how many may follow at once.
    complaints: Mutex<icmp::Allowance>,
}

impl Stack {
    /// Takes over interfaces: `sockets` are theirs, in order.
    ///
    /// # Errors
    /// `EINVAL` where the two do not fit; `EAGAIN` without a thread.
    pub fn start(
        kernel: &Arc<Kernel>,
        config: &NetworkConfig,
        sockets: Vec<OwnedFd>,
    ) -> SysResult<Arc<Self>> {
        let stack = Self::new(&Arc::downgrade(kernel), config, sockets)?;
        let serving = stack.clone();
        spawn_thread("network", move || serving.serve())?;
        stack.announce();
        Ok(stack)
    }

    fn new(
        kernel: &Weak<Kernel>,
        config: &NetworkConfig,
        mut sockets: Vec<OwnedFd>,
    ) -> SysResult<Arc<Self>> {
        let resolver = if config.has_resolver { sockets.pop() } else { None };
        if config.interfaces.len() != sockets.len() {
            return Err(Errno::EINVAL);
        }
        let taps = kernel.upgrade().map(|kernel| kernel.inet.taps().clone()).unwrap_or_default();
        let nics = config.interfaces.iter().zip(sockets);
        let nics: Vec<Nic> = nics
            .map(|(config, socket)| {
                let mut config = config.clone();
                config.mtu = config.mtu.clamp(MIN_MTU, u16::MAX.into());
                config.addrs.retain(|addr| is_unicast(addr.ip));
                Nic { config, counters: Counters::default(), taps: taps.clone(), socket }
            })
            .collect();
        let event = sentry_host::control::event()?;
        let mut seed = [0; 2];
        sentry_host::random::fill(&mut seed)?;
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            kernel: kernel.clone(),
            config: config.clone(),
            routes: Routes::new(config),
            nics,
            neighbors: Neighbors::default(),
            links: Mutex::new(HashMap::new()),
            timers: Timers::default(),
            fragments: Mutex::new(Fragments::default()),
            event,
            resolver: resolver.map(Resolver::new),
            next_id: AtomicU16::new(u16::from_ne_bytes(seed)),
            complaints: Mutex::new(icmp::Allowance::default()),
        }))
    }

    /// Returns the interfaces.
    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// Returns the network as it was taken over.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// Returns the neighbours that are known: the interface's number, the address, and where it is on
    /// the link.
    pub fn neighbors(&self) -> Vec<(i32, IpAddr, [u8; 6])> {
        let known = self.neighbors.all().into_iter();
        let named =
            known.filter_map(|((nic, ip), mac)| Some((self.nics.get(nic)?.config.index, ip, mac)));
        named.collect()
    }

    /// Returns whether an address is one of the interfaces'.
    pub fn has_addr(&self, ip: IpAddr) -> bool {
        self.nics.iter().any(|nic| nic.config.addrs.iter().any(|addr| addr.ip == ip))
    }

    /// Returns the interface, by its place, that has the address as the one to everybody.
    fn broadcast_nic(&self, ip: IpAddr) -> Option<usize> {
        self.nics.iter().position(|nic| {
            nic.config.addrs.iter().any(|addr| broadcast_of(addr.ip, addr.prefix) == Some(ip))
        })
    }

    /// Returns whether what is sent to an address goes to everybody on a link.
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        self.broadcast_nic(ip).is_some()
    }

    fn nic_by_index(&self, index: i32) -> Option<usize> {
        self.nics.iter().position(|nic| nic.config.index == index)
    }

    /// Returns over which interface packets to an address go, and to which neighbour.
    fn next_hop(&self, to: IpAddr, from: Option<IpAddr>) -> SysResult<(usize, IpAddr)> {
        if let Some(nic) = self.broadcast_nic(to) {
            return Ok((nic, to));
        }
        // An address of the link says nothing about which link: the sender's does.
        let owner = from.filter(|_| is_link_local(to) || is_to_many(to)).and_then(|from| {
            self.nics.iter().position(|nic| nic.config.addrs.iter().any(|addr| addr.ip == from))
        });
        if is_to_many(to) {
            let nic = owner.or_else(|| self.route_nic(to)).or(self.first_nic(to));
            return Ok((nic.ok_or(Errno::ENETUNREACH)?, to));
        }
        let interface = owner.and_then(|nic| self.nics.get(nic)).map(|nic| nic.config.index);
        let route = self.routes.find(to, interface).ok_or(Errno::ENETUNREACH)?;
        let nic = self.nic_by_index(route.interface).ok_or(Errno::ENETUNREACH)?;
        Ok((nic, route.gateway.unwrap_or(to)))
    }

    fn route_nic(&self, to: IpAddr) -> Option<usize> {
        self.nic_by_index(self.routes.find(to, None)?.interface)
    }

    fn first_nic(&self, to: IpAddr) -> Option<usize> {
        let has_family =
            |nic: &Nic| nic.config.addrs.iter().any(|addr| addr.ip.is_ipv4() == to.is_ipv4());
        self.nics.iter().position(has_family)
    }

    /// Returns the source address for packets to an address.
    ///
    /// # Errors
    /// `ENETUNREACH` where there is no way, or no address of the family.
    pub fn source_for(&self, to: IpAddr) -> SysResult<IpAddr> {
        let (nic, hop) = self.next_hop(to, None)?;
        let preferred = self.routes.find(to, None).and_then(|route| route.source);
        if let Some(source) = preferred.filter(|source| self.has_addr(*source)) {
            return Ok(source);
        }
        let nic = self.nics.get(nic).ok_or(Errno::ENETUNREACH)?;
        let addrs = || nic.config.addrs.iter().filter(|addr| addr.ip.is_ipv4() == to.is_ipv4());
        let in_network = addrs().find(|addr| is_in(hop, addr.ip, addr.prefix));
        let in_scope = || addrs().find(|addr| is_link_local(addr.ip) == is_link_local(to));
        let chosen = in_network
            .filter(|addr| is_link_local(addr.ip) == is_link_local(to))
            .or_else(in_scope)
            .or_else(|| addrs().next());
        chosen.map(|addr| addr.ip).ok_or(Errno::ENETUNREACH)
    }

    /// Returns the number of the interface over which packets to an address go.
    pub fn interface_for(&self, to: IpAddr) -> Option<i32> {
        let (nic, _) = self.next_hop(to, None).ok()?;
        self.nics.get(nic).map(|nic| nic.config.index)
    }

    /// Returns the router on the way to an address, where there is one.
    pub fn gateway_for(&self, to: IpAddr) -> Option<IpAddr> {
        self.next_hop(to, None).ok().map(|(_, hop)| hop).filter(|hop| *hop != to)
    }

    /// Returns the largest packet that can be sent to an address.
    pub(in crate::net) fn mtu_to(&self, to: IpAddr) -> usize {
        let nic = self.next_hop(to, None).ok().and_then(|(nic, _)| self.nics.get(nic));
        nic.map_or(1500, |nic| usize::try_from(nic.config.mtu).unwrap_or(1500))
    }

    fn now_ns(&self) -> u64 {
        let now = sentry_host::clock::now_ns(sentry_host::clock::Clock::Monotonic);
        u64::try_from(now).unwrap_or(0)
    }

    fn new_id(&self) -> u16 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes the thread look at the timers.
    fn wake(&self) {
        sentry_host::control::event_notify(self.event.as_fd());
    }
}

/// Returns the address to everybody in a network.
pub(super) fn broadcast_of(ip: IpAddr, prefix: u8) -> Option<IpAddr> {
    let IpAddr::V4(ip) = ip else { return None };
    // Networks of one or two addresses have none.
    let hosts = u32::MAX.checked_shr(prefix.into()).filter(|_| prefix < 31)?;
    Some(IpAddr::V4(Ipv4Addr::from(u32::from(ip) | hosts)))
}

/// Returns the first address of a network.
pub(super) fn network_of(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip) & !hosts))
        }
        IpAddr::V6(ip) => {
            let hosts = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !hosts))
        }
    }
}

/// Returns whether an address is a group's, or everybody's.
fn is_to_many(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// Returns whether an address can be that of one host.
fn is_unicast(ip: IpAddr) -> bool {
    !is_to_many(ip) && !ip.is_unspecified() && !ip.is_loopback()
}
