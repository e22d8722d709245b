//! Requests of `rtnetlink(7)` that change something: the loopback interface and its addresses.
//!
//! DEVIATION: interfaces cannot be made, and routes are those that the addresses and the configuration
//! bring: `EOPNOTSUPP`, as of a kernel without the drivers.

use std::net::{IpAddr, Ipv4Addr};

use syscalls::abi::netlink::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_LABEL, IFA_LOCAL, IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN,
    Ifaddrmsg, Ifinfomsg, NlmNewFlags, RTM_DELADDR, RTM_NEWADDR, RTM_NEWLINK, RTM_SETLINK,
};
use syscalls::abi::socket::{AF_INET, AF_INET6};
use syscalls::{Errno, SysResult};
use zerocopy::FromBytes;

use super::message::{Part, Request, attributes};
use super::route::{LOOPBACK_INDEX, is_name};
use crate::net::inet::{Inet, LoopbackAddr};

/// The size of an address's label, with its end.
const IFNAMSIZ: usize = 16;

/// Serves a request of whoever may change the network.
///
/// # Errors
/// `EINVAL`, `ENODEV`, `EEXIST`, `EADDRNOTAVAIL`, `EAFNOSUPPORT`, `EOPNOTSUPP`.
pub(super) fn serve(request: &Request<'_>, inet: &Inet) -> SysResult<Vec<Part>> {
    match request.kind {
        RTM_NEWADDR => new_addr(request, inet)?,
        RTM_DELADDR => delete_addr(request, inet)?,
        RTM_NEWLINK | RTM_SETLINK => change_link(request, inet)?,
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(Vec::new())
}

/// Reads an address of a family.
fn ip_of(family: i32, data: &[u8]) -> SysResult<IpAddr> {
    match family {
        AF_INET => data.first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
        AF_INET6 => data.first_chunk::<16>().map(|ip| IpAddr::from(*ip)),
        _ => return Err(Errno::EOPNOTSUPP),
    }
    .ok_or(Errno::EINVAL)
}

/// Reads what a request says of an address: its head, and the address that is the host's own.
fn target(request: &Request<'_>, inet: &Inet) -> SysResult<(Ifaddrmsg, Option<IpAddr>)> {
    let (head, _) = Ifaddrmsg::read_from_prefix(request.payload).map_err(|_| Errno::EINVAL)?;
    let family = i32::from(head.ifa_family);
    let find = |wanted| {
        attributes(request.payload, size_of::<Ifaddrmsg>())
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, data)| ip_of(family, data))
            .transpose()
    };
    let local = find(IFA_LOCAL)?;
    // With IPv6 the other attribute is enough.
    let ip = if family == AF_INET6 { local.or(find(IFA_ADDRESS)?) } else { local };
    let longest = if family == AF_INET { 32 } else { 128 };
    if head.ifa_prefixlen > longest {
        return Err(Errno::EINVAL);
    }
    if head.ifa_index != LOOPBACK_INDEX {
        // Those of the others come from outside.
        let nics = inet.stack().map(|stack| stack.nics()).unwrap_or_default();
        let is_known = nics.iter().any(|nic| nic.config.index.cast_unsigned() == head.ifa_index);
        return Err(if is_known { Errno::EOPNOTSUPP } else { Errno::ENODEV });
    }
    Ok((head, ip))
}

fn new_addr(request: &Request<'_>, inet: &Inet) -> SysResult<()> {
    let (head, ip) = target(request, inet)?;
    let mut addr = LoopbackAddr::new(ip.ok_or(Errno::EINVAL)?, head.ifa_prefixlen, head.ifa_scope);
    for (kind, data) in attributes(request.payload, size_of::<Ifaddrmsg>()) {
        match kind {
            IFA_BROADCAST => {
                addr.broadcast = data.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip));
            }
            IFA_LABEL => {
                let label = data.split(|byte| *byte == 0).next().unwrap_or_default();
                if label.len() >= IFNAMSIZ {
                    return Err(Errno::EINVAL);
                }
                addr.label = label.to_vec();
            }
            _ => {}
        }
    }
    let flags = NlmNewFlags::from_bits_retain(request.flags.bits());
    let replaces = flags.contains(NlmNewFlags::REPLACE) && !flags.contains(NlmNewFlags::EXCL);
    inet.loopback().add(addr, replaces)
}

fn delete_addr(request: &Request<'_>, inet: &Inet) -> SysResult<()> {
    let (head, ip) = target(request, inet)?;
    let has_prefix =
        attributes(request.payload, size_of::<Ifaddrmsg>()).any(|(kind, _)| kind == IFA_ADDRESS);
    let prefix = Some(head.ifa_prefixlen).filter(|_| has_prefix);
    inet.loopback().remove(ip.ok_or(Errno::EINVAL)?, prefix)
}

/// Takes the loopback interface of a namespace up or down, or changes what is shown of it.
fn change_link(request: &Request<'_>, inet: &Inet) -> SysResult<()> {
    const IFF_UP: u32 = 1;
    let (head, _) = Ifinfomsg::read_from_prefix(request.payload).map_err(|_| Errno::EINVAL)?;
    let all = || attributes(request.payload, size_of::<Ifinfomsg>());
    let is_loopback = head.ifi_index.cast_unsigned() == LOOPBACK_INDEX
        || all().any(|(kind, name)| kind == IFLA_IFNAME && is_name(name));
    if !is_loopback {
        return Err(Errno::EOPNOTSUPP);
    }
    for (kind, data) in all() {
        let number = data.first_chunk::<4>().map(|number| u32::from_ne_bytes(*number));
        match (kind, number) {
            (IFLA_MTU, Some(mtu)) if i32::try_from(mtu).is_ok() => inet.loopback().set_mtu(mtu),
            (IFLA_TXQLEN, Some(len)) => inet.loopback().set_queue_len(len),
            (IFLA_MTU | IFLA_TXQLEN, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    // A change of no flag in particular is one of all that are set.
    let is_up = head.ifi_flags & IFF_UP != 0;
    let is_asked = head.ifi_change & IFF_UP != 0 || (head.ifi_change == 0 && is_up);
    if is_asked && !inet.set_loopback_up(is_up) {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}
