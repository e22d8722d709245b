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
pub mod ping;
mod ports;
pub mod tcp;
pub mod udp;

use std::net::IpAddr;
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
use self::tcp::TcpSocket;
use self::udp::UdpSocket;
use super::Socket;
use super::stack::Stack;
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::CurrentTask;

pub(in crate::net) use addr::Endpoint;
pub use addr::Family;
pub(in crate::net) use udp::Arrival;

/// The number of the loopback interface.
pub(super) const LOOPBACK_INDEX: i32 = 1;

/// The sockets of a network namespace.
pub struct Inet {
    tcp: Ports<Weak<TcpSocket>>,
    udp: Ports<Weak<UdpSocket>>,
    udplite: Ports<Weak<UdpSocket>>,
    /// Sockets of ICMP.
    pings: Mutex<Vec<Weak<PingSocket>>>,
    /// The way out, where there is one.
    stack: OnceLock<Arc<Stack>>,
    /// What comes past it.
    forwards: Forwards,
}

impl Default for Inet {
    fn default() -> Self {
        let pings = Mutex::new(Vec::new());
        Self {
            tcp: Ports::new(),
            udp: Ports::new(),
            udplite: Ports::new(),
            pings,
            stack: OnceLock::new(),
            forwards: Forwards::default(),
        }
    }
}

impl Inet {
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
        addr::is_local(ip) || self.stack().is_some_and(|stack| stack.has_addr(ip))
    }

    /// Returns whether messages to an address go to everybody.
    fn is_broadcast(&self, ip: IpAddr) -> bool {
        addr::is_broadcast(ip) || self.stack().is_some_and(|stack| stack.is_broadcast(ip))
    }

    /// Returns whether a socket can be bound to an address: one of ours, all of them, or a group.
    fn can_bind(&self, ip: IpAddr) -> bool {
        addr::can_bind(ip) || self.is_local(ip) || self.is_broadcast(ip)
    }

    /// Returns where what is sent to `ip` arrives: this host's own address stands for no address.
    ///
    /// # Errors
    /// `ENETUNREACH` where there is no way.
    fn route(&self, ip: IpAddr) -> SysResult<IpAddr> {
        match (addr::route(ip), self.stack()) {
            (Ok(ip), _) => Ok(ip),
            (Err(error), None) => Err(error),
            (Err(_), Some(stack)) if stack.has_addr(ip) => Ok(ip),
            (Err(_), Some(stack)) => stack.source_for(ip).map(|_| ip),
        }
    }

    /// Returns the source address of what is sent to `to` by a socket without an address.
    fn source_for(&self, to: IpAddr) -> IpAddr {
        match self.stack() {
            Some(stack) if stack.has_addr(to) => to,
            Some(stack) if !to.is_loopback() => {
                stack.source_for(to).unwrap_or_else(|_| addr::source_for(to))
            }
            _ => addr::source_for(to),
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
        (SOCK_DGRAM, _) if is_icmp && ping::may_echo(task) => {
            Ok(PingSocket::create(task, family, false))
        }
        (SOCK_DGRAM, _) if is_icmp => Err(Errno::EACCES),
        (SOCK_RAW, _) => {
            if !task.creds().has_capability(CAP_NET_RAW) {
                return Err(Errno::EPERM);
            }
            if is_icmp {
                return Ok(PingSocket::create(task, family, true));
            }
            // Other protocols have no packets that a raw socket could see.
            Err(if protocol == IPPROTO_IP {
                Errno::EPROTONOSUPPORT
            } else {
                Errno::ESOCKTNOSUPPORT
            })
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
    if is_privileged && !task.creds().has_capability(CAP_NET_BIND_SERVICE) {
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
        SO_BINDTOIFINDEX, SO_BUF_LOCK, SO_COOKIE, SO_INCOMING_NAPI_ID, SO_MAX_PACING_RATE,
        SO_NETNS_COOKIE, SO_PEERCRED, SO_RESERVE_MEM, SO_ZEROCOPY,
    };
    match name {
        SO_PEERCRED => Ok([0_i32, -1, -1].iter().flat_map(|number| number.to_ne_bytes()).collect()),
        SO_INCOMING_NAPI_ID | SO_ZEROCOPY | SO_RESERVE_MEM | SO_BUF_LOCK | SO_BINDTOIFINDEX => {
            Ok(0_i32.to_ne_bytes().to_vec())
        }
        SO_MAX_PACING_RATE => Ok(u32::MAX.to_ne_bytes().to_vec()),
        SO_NETNS_COOKIE | SO_COOKIE => Ok(1_u64.to_ne_bytes().to_vec()),
        _ => Err(Errno::ENOPROTOOPT),
    }
}
