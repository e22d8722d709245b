//! Addresses of the Internet families, and which of them there is a way to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use syscalls::abi::socket::{AF_INET, AF_INET6, AF_UNSPEC, SockaddrIn, SockaddrIn6};
use syscalls::{Errno, SysResult};
use zerocopy::{FromBytes, IntoBytes};

/// The least length of a `struct sockaddr_in6`: without the scope (`SIN6_LEN_RFC2133`).
const MIN_SOCKADDR_IN6: usize = 24;

/// The family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

impl Family {
    /// Returns the number of the family.
    pub(super) fn number(self) -> i32 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    /// Returns the wildcard address.
    pub(super) fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// The family of a socket, which changes once at most (`IPV6_ADDRFORM`).
pub(super) struct FamilyCell(AtomicBool);

impl FamilyCell {
    /// Creates the cell of a socket of this family.
    pub(super) fn new(family: Family) -> Self {
        Self(AtomicBool::new(family == Family::V6))
    }

    /// Returns the family.
    pub(super) fn get(&self) -> Family {
        if self.0.load(Ordering::Relaxed) { Family::V6 } else { Family::V4 }
    }

    /// Makes a socket of IPv6 one of IPv4, where it is connected over that.
    ///
    /// # Errors
    /// `EINVAL` for another family than IPv4, `ENOTCONN`, `EADDRNOTAVAIL` where the peer is one of IPv6.
    pub(super) fn change(
        &self,
        value: &[u8],
        peer: Option<IpAddr>,
        is_v6only: bool,
    ) -> SysResult<()> {
        let value = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
        if i32::from_ne_bytes(*value) != AF_INET {
            return Err(Errno::EINVAL);
        }
        if peer.ok_or(Errno::ENOTCONN)?.is_ipv6() || is_v6only {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.0.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// An address and a port. A mapped IPv4 address is kept as what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::net) struct Endpoint {
    pub(in crate::net) ip: IpAddr,
    pub(in crate::net) port: u16,
}

/// An address as a call gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// `AF_UNSPEC`.
    Unspecified,
    /// An address.
    Endpoint(Endpoint),
}

/// Returns the family of an address.
///
/// # Errors
/// `EINVAL` where there is none.
pub(super) fn family_of(addr: &[u8]) -> SysResult<i32> {
    let family = addr.first_chunk::<2>().ok_or(Errno::EINVAL)?;
    Ok(i32::from(u16::from_ne_bytes(*family)))
}

/// Reads an address of a socket's own family.
///
/// # Errors
/// `EINVAL` for one that is too short, `EAFNOSUPPORT` for one of another family.
pub(super) fn parse(family: Family, addr: &[u8]) -> SysResult<Endpoint> {
    match family {
        Family::V4 => {
            let (addr, _) = SockaddrIn::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
            if i32::from(addr.sin_family) != AF_INET {
                return Err(Errno::EAFNOSUPPORT);
            }
            let ip = IpAddr::V4(Ipv4Addr::from(addr.sin_addr));
            Ok(Endpoint { ip, port: u16::from_be_bytes(addr.sin_port) })
        }
        Family::V6 => {
            if addr.len() < MIN_SOCKADDR_IN6 {
                return Err(Errno::EINVAL);
            }
            let mut whole = [0; size_of::<SockaddrIn6>()];
            let n = addr.len().min(whole.len());
            if let (Some(to), Some(from)) = (whole.get_mut(..n), addr.get(..n)) {
                to.copy_from_slice(from);
            }
            let addr = SockaddrIn6::read_from_bytes(&whole).map_err(|_| Errno::EINVAL)?;
            if i32::from(addr.sin6_family) != AF_INET6 {
                return Err(Errno::EAFNOSUPPORT);
            }
            let ip = Ipv6Addr::from(addr.sin6_addr);
            let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
            Ok(Endpoint { ip, port: u16::from_be_bytes(addr.sin6_port) })
        }
    }
}

/// Reads the address that a message is sent to. A socket of IPv6 takes addresses of IPv4 as well.
///
/// # Errors
/// `EINVAL`, `EAFNOSUPPORT`; `ENETUNREACH` for IPv4 where `v6only` is set.
pub(super) fn parse_destination(family: Family, addr: &[u8], v6only: bool) -> SysResult<Given> {
    let given_family = family_of(addr)?;
    match (family, given_family) {
        (Family::V4, AF_UNSPEC) if addr.len() >= size_of::<SockaddrIn>() => {
            let (addr, _) = SockaddrIn::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
            let ip = IpAddr::V4(Ipv4Addr::from(addr.sin_addr));
            Ok(Given::Endpoint(Endpoint { ip, port: u16::from_be_bytes(addr.sin_port) }))
        }
        (Family::V6, AF_UNSPEC) => Ok(Given::Unspecified),
        (Family::V6, AF_INET) if v6only => Err(Errno::ENETUNREACH),
        (Family::V6, AF_INET) => parse(Family::V4, addr).map(Given::Endpoint),
        (Family::V6, AF_INET6) | (Family::V4, _) => parse(family, addr).map(Given::Endpoint),
        (Family::V6, _) => Err(Errno::EINVAL),
    }
}

impl Endpoint {
    /// Returns the address as calls show it to a socket of `family`.
    pub(super) fn encode(&self, family: Family) -> Vec<u8> {
        let port = self.port.to_be_bytes();
        match (family, self.ip) {
            (Family::V4, IpAddr::V4(ip)) => SockaddrIn {
                sin_family: family_number(AF_INET),
                sin_port: port,
                sin_addr: ip.octets(),
                ..SockaddrIn::default()
            }
            .as_bytes()
            .to_vec(),
            (_, ip) => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                SockaddrIn6 {
                    sin6_family: family_number(AF_INET6),
                    sin6_port: port,
                    sin6_addr: ip.octets(),
                    ..SockaddrIn6::default()
                }
                .as_bytes()
                .to_vec()
            }
        }
    }
}

fn family_number(family: i32) -> u16 {
    u16::try_from(family).unwrap_or(0)
}

/// Returns whether the address is one of the loopback interface.
pub(super) fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() && !is_loopback_broadcast(ip),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// Returns whether the address is the broadcast address of the loopback network.
pub(super) fn is_loopback_broadcast(ip: Ipv4Addr) -> bool {
    ip == Ipv4Addr::new(127, 255, 255, 255)
}

/// Returns whether messages to the address go to everybody.
pub(super) fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if is_loopback_broadcast(ip) || ip.is_broadcast())
}

/// Returns whether a socket can be bound to the address: one of ours, all of them, or a group.
pub(super) fn can_bind(ip: IpAddr) -> bool {
    is_local(ip) || ip.is_unspecified() || ip.is_multicast() || is_broadcast(ip)
}

/// Returns where what is sent to `ip` arrives: this host's own address stands for no address.
///
/// # Errors
/// `ENETUNREACH` for whatever is not on this host.
pub(super) fn route(ip: IpAddr) -> SysResult<IpAddr> {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ip if ip.is_loopback() => Ok(ip),
        _ => Err(Errno::ENETUNREACH),
    }
}

/// Returns the source address of what is sent to `to` by a socket without an address.
pub(super) fn source_for(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use syscalls::Errno;

    use super::{Endpoint, Family, Given, parse, parse_destination, route};

    #[test]
    fn addresses_come_back_as_they_were_given() {
        let four = b"\x02\0\x1f\x90\x7f\0\0\x01\0\0\0\0\0\0\0\0";
        let endpoint = parse(Family::V4, four).unwrap();
        assert_eq!(endpoint, Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8080 });
        assert_eq!(endpoint.encode(Family::V4), four);
        let mapped = endpoint.encode(Family::V6);
        assert_eq!(mapped.len(), 28);
        assert_eq!(parse(Family::V6, &mapped), Ok(endpoint));
    }

    #[test]
    fn wrong_addresses_are_refused() {
        assert_eq!(parse(Family::V4, b"\x02\0"), Err(Errno::EINVAL));
        assert_eq!(parse(Family::V4, &[10; 28]), Err(Errno::EAFNOSUPPORT));
        assert_eq!(parse(Family::V6, &[2; 16]), Err(Errno::EINVAL));
        assert_eq!(parse_destination(Family::V6, b"\0\0", false), Ok(Given::Unspecified));
        let four = Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 }.encode(Family::V4);
        assert_eq!(parse_destination(Family::V6, &four, true), Err(Errno::ENETUNREACH));
    }

    #[test]
    fn only_this_host_is_reachable() {
        assert_eq!(route(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(route(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))), Err(Errno::ENETUNREACH));
        let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        assert_eq!(route(IpAddr::V6(far)), Err(Errno::ENETUNREACH));
    }
}
