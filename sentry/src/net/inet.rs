//! Sockets of the Internet families (`ip(7)`, `tcp(7)`, `udp(7)`).
//!
//! Within the sandbox there are no packets: a connection is two buffers ([`tcp`]), a datagram goes
//! straight into the receiver's queue ([`udp`]). What goes elsewhere goes to the [`stack`], where the
//! sandbox has one. [`ports`] knows who has which port.
//!
//! [`stack`]: crate::net::stack

mod addr;
pub mod forward;
pub mod interface;
mod ip_options;
mod local;
mod loopback;
mod pairs;
pub mod ping;
mod ports;
mod raw;
pub mod tcp;
pub mod udp;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use syscalls::abi::capability::{CAP_NET_BIND_SERVICE, CAP_NET_RAW};
use syscalls::abi::socket::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
    SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM,
};
use syscalls::{Errno, SysResult};

use self::forward::Forwards;
use self::ping::PingSocket;
use self::ports::{PortRange, Ports};
use self::raw::RawSocket;
use self::tcp::TcpSocket;
use self::udp::UdpSocket;
use super::Socket;
use super::packet::Taps;
use super::stack::Stack;
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::CurrentTask;

pub(in crate::net) use addr::Endpoint;
pub use addr::Family;
pub(in crate::net) use local::Parcel;
pub(crate) use loopback::Loopback;
pub(in crate::net) use loopback::LoopbackAddr;
pub(in crate::net) use udp::Arrival;

/// The number of the loopback interface.
pub(in crate::net) const LOOPBACK_INDEX: i32 = 1;

/// The sockets of a network namespace.
pub struct Inet {
    tcp: Ports<Weak<TcpSocket>>,
    udp: Ports<Weak<UdpSocket>>,
    udplite: Ports<Weak<UdpSocket>>,
    /// Sockets of ICMP.
    pings: Mutex<Vec<Weak<PingSocket>>>,
    /// Raw sockets.
    raws: Mutex<Vec<Weak<RawSocket>>>,
    /// Packet sockets.
    taps: Arc<Taps>,
    /// The way out, where there is one.
    stack: OnceLock<Arc<Stack>>,
    /// What comes past it.
    forwards: Forwards,
    /// Tells the namespaces apart; zero for that of the containers.
    id: u64,
    /// What has been written to `tag` below `/proc/sys/net/ipv4/conf`, by path.
    pub(crate) tags: Mutex<BTreeMap<&'static str, i32>>,
    loopback: Loopback,
}

impl Default for Inet {
    fn default() -> Self {
        let pings = Mutex::new(Vec::new());
        Self {
            tcp: Ports::new(),
            udp: Ports::new(),
            udplite: Ports::new(),
            pings,
            raws: Mutex::new(Vec::new()),
            tags: Mutex::default(),
            taps: Arc::default(),
            stack: OnceLock::new(),
            forwards: Forwards::default(),
            id: 0,
            loopback: Loopback::new(true),
        }
    }
}

impl Inet {
    /// Creates a namespace that has nothing but a loopback interface, which is down.
    pub(crate) fn isolated() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, loopback: Loopback::new(false), ..Self::default() }
    }

    /// Returns whether this is a namespace that a task has made.
    pub(crate) fn is_isolated(&self) -> bool {
        self.id != 0
    }

    /// Returns the loopback interface.
    pub(crate) fn loopback(&self) -> &Loopback {
        &self.loopback
    }

    /// Returns the packet sockets.
    pub(in crate::net) fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// Returns the number that tells the namespace from others.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes the loopback interface of a namespace that a task has made up or down; that of the
    /// containers stays up. Returns whether it is now as asked for.
    pub(crate) fn set_loopback_up(&self, up: bool) -> bool {
        if self.is_isolated() {
            self.loopback.set_up(up);
        }
        self.loopback.is_up() == up
    }

    /// Gives the namespace a way out, once. Returns whether it had none.
    pub fn attach(&self, stack: Arc<Stack>) -> bool {
        self.stack.set(stack).is_ok()
    }

    /// Returns the way out.
    pub fn stack(&self) -> Option<&Arc<Stack>> {
        self.stack.get()
    }

    /// Returns whether what is sent to an address stays here.
    fn is_local(&self, ip: IpAddr) -> bool {
        self.loopback.is_local(ip) || self.stack().is_some_and(|stack| stack.has_addr(ip))
    }

    /// Returns whether messages to an address go to everybody.
    fn is_broadcast(&self, ip: IpAddr) -> bool {
        self.loopback.is_broadcast(ip) || self.stack().is_some_and(|stack| stack.is_broadcast(ip))
    }

    /// Returns whether a socket can be bound to an address: one of ours, all of them, or a group.
    fn can_bind(&self, ip: IpAddr) -> bool {
        // Before the first address is there, Linux knows none that would be wrong.
        addr::can_bind(ip)
            || self.is_local(ip)
            || self.is_broadcast(ip)
            || !self.loopback.had_addr()
    }

    /// Returns where what is sent to `ip` arrives: this host's own address stands for no address.
    ///
    /// # Errors
    /// `ENETUNREACH` where there is no way.
    fn route(&self, ip: IpAddr) -> SysResult<IpAddr> {
        if !self.loopback.is_up() {
            return Err(Errno::ENETUNREACH);
        }
        match (addr::route(ip), self.stack()) {
            (Ok(ip), _) => Ok(ip),
            (Err(_), _) if self.loopback.is_local(ip) || self.loopback.is_broadcast(ip) => Ok(ip),
            (Err(error), None) => Err(error),
            (Err(_), Some(stack)) if stack.has_addr(ip) => Ok(ip),
            (Err(_), Some(stack)) => stack.source_for(ip).map(|_| ip),
        }
    }

    /// Returns the source address of what is sent to `to` by a socket without an address.
    fn source_for(&self, to: IpAddr) -> IpAddr {
        match self.stack() {
            Some(stack) if stack.has_addr(to) => to,
            Some(stack) if !to.is_loopback() && !self.loopback.is_local(to) => {
                stack.source_for(to).unwrap_or_else(|_| addr::source_for(to))
            }
            _ => self.loopback.source_for(to),
        }
    }

    /// Returns the TCP sockets that have a port.
    pub fn tcp_sockets(&self) -> Vec<Arc<TcpSocket>> {
        self.tcp.all().iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the UDP sockets that have a port.
    pub fn udp_sockets(&self) -> Vec<Arc<UdpSocket>> {
        self.udp.all().iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the UDP-Lite sockets that have a port.
    pub fn udplite_sockets(&self) -> Vec<Arc<UdpSocket>> {
        self.udplite.all().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Creates a socket of one of the Internet families.
///
/// # Errors
/// `EINVAL`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EPERM`, `EACCES`.
pub fn create(
    task: &CurrentTask,
    family: Family,
    kind: i32,
    protocol: i32,
) -> SysResult<Arc<dyn Socket>> {
    const IPPROTO_MAX: i32 = 263;
    if !(0..IPPROTO_MAX).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    let is_icmp = match family {
        Family::V4 => protocol == IPPROTO_ICMP,
        Family::V6 => protocol == IPPROTO_ICMPV6,
    };
    match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_IP | IPPROTO_TCP) => Ok(TcpSocket::create(task, family)),
        (SOCK_DGRAM, IPPROTO_IP | IPPROTO_UDP) => Ok(UdpSocket::create(task, family, false)),
        (SOCK_DGRAM, IPPROTO_UDPLITE) => Ok(UdpSocket::create(task, family, true)),
        (SOCK_DGRAM, _) if is_icmp && ping::may_echo(task) => Ok(PingSocket::create(task, family)),
        (SOCK_DGRAM, _) if is_icmp => Err(Errno::EACCES),
        (SOCK_RAW, _) => {
            if !task.is_net_capable(CAP_NET_RAW) {
                return Err(Errno::EPERM);
            }
            match u16::try_from(protocol) {
                Ok(protocol) if protocol != 0 => Ok(RawSocket::create(task, family, protocol)),
                _ => Err(Errno::EPROTONOSUPPORT),
            }
        }
        (SOCK_STREAM | SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_SEQPACKET, _) => Err(Errno::ESOCKTNOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Returns the ports that are handed out.
fn port_range(kernel: &Kernel) -> PortRange {
    let number = |index| kernel.sysctls.number("net/ipv4/ip_local_port_range", index);
    let (first, last) = (number(0).unwrap_or(32_768), number(1).unwrap_or(60_999));
    match (u16::try_from(first), u16::try_from(last)) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => PortRange { first, last },
        _ => PortRange { first: 32_768, last: 60_999 },
    }
}

/// Checks that the caller may bind to a port.
fn check_port(task: &CurrentTask, port: u16) -> SysResult<()> {
    let first_free = task.kernel.sysctls.number("net/ipv4/ip_unprivileged_port_start", 0);
    let is_privileged = port != 0 && i64::from(port) < first_free.unwrap_or(1024);
    if is_privileged && !task.is_net_capable(CAP_NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Reads the address of a `bind(2)`.
fn parse_bind(family: Family, given: &[u8], v6only: bool) -> SysResult<Endpoint> {
    let is_unspecified = family == Family::V4 && addr::family_of(given) == Ok(0);
    if is_unspecified {
        // The family may be missing with the wildcard address.
        let mut with_family = given.to_vec();
        if let Some(first) = with_family.first_mut() {
            *first = 2;
        }
        let endpoint = addr::parse(family, &with_family)?;
        return if endpoint.ip.is_unspecified() { Ok(endpoint) } else { Err(Errno::EAFNOSUPPORT) };
    }
    let endpoint = addr::parse(family, given)?;
    if family == Family::V6 && v6only && endpoint.ip.is_ipv4() {
        return Err(Errno::EINVAL);
    }
    Ok(endpoint)
}

/// Returns an option of a socket of the Internet that has no effect of its own.
fn common_option(name: i32) -> SysResult<Vec<u8>> {
    use syscalls::abi::socket::{
        SO_BINDTOIFINDEX, SO_NETNS_COOKIE, SO_PEERCRED, SO_RESERVE_MEM, SO_ZEROCOPY,
    };
    match name {
        SO_PEERCRED => Ok([0_i32, -1, -1].iter().flat_map(|number| number.to_ne_bytes()).collect()),
        SO_ZEROCOPY | SO_RESERVE_MEM | SO_BINDTOIFINDEX => Ok(0_i32.to_ne_bytes().to_vec()),
        SO_NETNS_COOKIE => Ok(1_u64.to_ne_bytes().to_vec()),
        _ => Err(Errno::ENOPROTOOPT),
    }
}
