//! `rtnetlink(7)`: the loopback interface, its addresses and its routes; [`nics`] has the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use syscalls::abi::netlink::{
    FRA_PRIORITY, FRA_PROTOCOL, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, IFA_ADDRESS, IFA_BROADCAST,
    IFA_CACHEINFO, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFLA_ADDRESS, IFLA_ALT_IFNAME, IFLA_BROADCAST,
    IFLA_CARRIER, IFLA_CARRIER_CHANGES, IFLA_GROUP, IFLA_IFNAME, IFLA_LINKMODE, IFLA_MAP, IFLA_MTU,
    IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES, IFLA_OPERSTATE, IFLA_PROMISCUITY, IFLA_QDISC,
    IFLA_STATS, IFLA_STATS64, IFLA_TXQLEN, Ifaddrmsg, Ifinfomsg, RTA_CACHEINFO, RTA_DST, RTA_OIF,
    RTA_PREFSRC, RTA_TABLE, RTM_GETADDR, RTM_GETADDRLABEL, RTM_GETANYCAST, RTM_GETLINK,
    RTM_GETMULTICAST, RTM_GETNEIGH, RTM_GETNEIGHTBL, RTM_GETNETCONF, RTM_GETNEXTHOP, RTM_GETQDISC,
    RTM_GETROUTE, RTM_GETRULE, RTM_GETTCLASS, RTM_GETTFILTER, RTM_MAX, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWROUTE, RTM_NEWRULE, Rtmsg,
};
use syscalls::abi::socket::{AF_INET, AF_INET6, AF_PACKET, AF_UNSPEC};
use syscalls::{Errno, SysResult};
use zerocopy::FromBytes;

use super::change;
use super::message::{Part, Request, attributes, dump_request};
use super::nics::{self, Way};
use crate::net::inet::interface::ARPHRD_LOOPBACK;
use crate::net::inet::{Inet, LoopbackAddr};
use crate::net::stack::{Stack, broadcast_of, network_of};

pub(super) const LOOPBACK_INDEX: u32 = 1;

/// `IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP`
const LOOPBACK_FLAGS: u32 = 0x1_0049;

/// `IFF_LOOPBACK` alone: an interface that is down.
const IFF_LOOPBACK: u32 = 0x8;

/// `IF_OPER_UNKNOWN`: what an interface that never says is when it is up.
const OPER_UNKNOWN: u8 = 0;
/// `IF_OPER_DOWN`
const OPER_DOWN: u8 = 2;

/// `IFA_F_SECONDARY`
const SECONDARY: u8 = 0x01;
/// `IFA_F_PERMANENT`
pub(super) const PERMANENT: u8 = 0x80;

pub(super) const SCOPE_UNIVERSE: u8 = 0;
pub(super) const SCOPE_LINK: u8 = 253;
pub(super) const SCOPE_HOST: u8 = 254;

const TABLE_DEFAULT: u8 = 253;
pub(super) const TABLE_MAIN: u8 = 254;
pub(super) const TABLE_LOCAL: u8 = 255;

/// `RTPROT_KERNEL`
pub(super) const PROTOCOL_KERNEL: u8 = 2;

pub(super) const ROUTE_UNICAST: u8 = 1;
pub(super) const ROUTE_LOCAL: u8 = 2;
pub(super) const ROUTE_BROADCAST: u8 = 3;

/// `RTCF_LOCAL`: the way ends here.
const ENDS_HERE: u32 = 0x8000_0000;

/// `RTM_F_CLONED`: an answer and no entry of a table.
pub(super) const CLONED: u32 = 0x200;

/// The interfaces, addresses, routes and rules of a network namespace of the host.
///
/// DEVIATION: they stay as they were when the sandbox booted.
#[derive(Default)]
pub struct Snapshot {
    links: Vec<Part>,
    addrs: Vec<Part>,
    routes: Vec<Part>,
    rules: Vec<Part>,
}

impl Snapshot {
    /// Asks the host; before the sentry's filter is installed.
    ///
    /// # Errors
    /// Those of the host.
    pub fn take() -> SysResult<Self> {
        let dump = |kind| -> SysResult<Vec<Part>> {
            let messages = sentry_host::inet::dump_netlink(&dump_request(kind))?;
            Ok(Part::split(&messages))
        };
        Ok(Self {
            links: dump(RTM_GETLINK)?,
            addrs: dump(RTM_GETADDR)?,
            routes: dump(RTM_GETROUTE)?,
            // A host without policy routing has no rules to tell.
            rules: dump(RTM_GETRULE).unwrap_or_default(),
        })
    }

    fn link(&self, payload: &[u8]) -> SysResult<Part> {
        let (head, _) = Ifinfomsg::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
        let name = attributes(payload, size_of::<Ifinfomsg>())
            .find(|(kind, _)| matches!(*kind, IFLA_IFNAME | IFLA_ALT_IFNAME))
            .map(|(_, name)| until_nul(name));
        if head.ifi_index <= 0 && name.is_none() {
            return Err(Errno::EINVAL);
        }
        let is_wanted = |link: &&Part| {
            let known = Ifinfomsg::read_from_prefix(link.payload());
            let Ok((known, _)) = known else { return false };
            let own = attributes(link.payload(), size_of::<Ifinfomsg>())
                .find(|(kind, _)| *kind == IFLA_IFNAME)
                .map(|(_, name)| until_nul(name));
            if head.ifi_index > 0 { known.ifi_index == head.ifi_index } else { own == name }
        };
        self.links.iter().find(is_wanted).cloned().ok_or(Errno::ENODEV)
    }

    fn serve(&self, request: &Request<'_>, family: i32) -> SysResult<Vec<Part>> {
        let of = |parts: &[Part]| {
            let is_wanted = |part: &&Part| {
                let own = part.payload().first().copied().unwrap_or(0);
                family == AF_UNSPEC || family == i32::from(own)
            };
            Ok(parts.iter().filter(is_wanted).cloned().collect())
        };
        match (request.kind, request.is_dump) {
            (RTM_GETLINK, true) => {
                let is_known = matches!(family, AF_UNSPEC | AF_PACKET | AF_INET | AF_INET6);
                Ok(if is_known { self.links.clone() } else { Vec::new() })
            }
            (RTM_GETLINK, false) => Ok(vec![self.link(request.payload)?]),
            (RTM_GETADDR, true) => of(&self.addrs),
            (RTM_GETROUTE, true) => of(&self.routes),
            (RTM_GETRULE, true) => of(&self.rules),
            (_, true) => Ok(Vec::new()),
            (RTM_GETROUTE, false) => find_route(request.payload, None).map(|route| vec![route]),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

fn until_nul(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Serves a request; `host` is the network that sockets are passed through to, `inet` the caller's own.
pub(super) fn serve(
    request: &Request<'_>,
    is_admin: bool,
    host: Option<&Snapshot>,
    inet: &Inet,
) -> SysResult<Vec<Part>> {
    let stack = inet.stack().map(Arc::as_ref);
    const GET: u16 = 2;
    if request.kind >= RTM_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    if request.kind & 3 != GET {
        // The host's network is not the guest's to change.
        return if is_admin && host.is_none() {
            change::serve(request, inet)
        } else {
            Err(Errno::EPERM)
        };
    }
    let family = i32::from(request.payload.first().copied().ok_or(Errno::EINVAL)?);
    if let Some(host) = host {
        return host.serve(request, family);
    }
    match (request.kind, request.is_dump) {
        (RTM_GETLINK, true) => {
            let is_known = matches!(family, AF_UNSPEC | AF_PACKET | AF_INET | AF_INET6);
            let links = links(inet, stack).into_iter().map(|(_, _, part)| part);
            Ok(if is_known { links.collect() } else { Vec::new() })
        }
        (RTM_GETLINK, false) => find_link(request.payload, inet, stack),
        (RTM_GETADDR, true) => {
            let mut addrs: Vec<_> = inet.loopback().addrs().iter().map(addr).collect();
            addrs.extend(stack.map(nics::addrs).unwrap_or_default());
            Ok(of_family(family, addrs))
        }
        (RTM_GETROUTE, true) => {
            let mut all = stack.map(nics::routes).unwrap_or_default();
            if inet.loopback().is_up() {
                let lo = inet.loopback();
                all.extend(lo.addrs().iter().flat_map(|own| routes(own, lo.source_for(own.ip))));
            }
            Ok(of_family(family, all))
        }
        (RTM_GETROUTE, false) if !inet.loopback().is_up() => Err(Errno::ENETUNREACH),
        (RTM_GETROUTE, false) => find_route(request.payload, Some(inet)).map(|route| vec![route]),
        (RTM_GETNEIGH, true) => {
            Ok(of_family(family, stack.map(nics::neighbors).unwrap_or_default()))
        }
        (RTM_GETRULE, true) => Ok(of_family(family, rules())),
        // There are none.
        (
            RTM_GETNEIGHTBL | RTM_GETQDISC | RTM_GETTCLASS | RTM_GETTFILTER | RTM_GETMULTICAST
            | RTM_GETANYCAST | RTM_GETADDRLABEL | RTM_GETNETCONF | RTM_GETNEXTHOP,
            true,
        ) => Ok(Vec::new()),
        (RTM_GETNEIGH, false) => Err(Errno::ENOENT),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Returns the parts of a family; of all, one family after the other.
fn of_family(family: i32, mut parts: Vec<(i32, Part)>) -> Vec<Part> {
    parts.sort_by_key(|(of, _)| *of);
    let is_wanted = |of: i32| family == AF_UNSPEC || family == of;
    parts.into_iter().filter(|(of, _)| is_wanted(*of)).map(|(_, part)| part).collect()
}

pub(super) fn number(family: i32) -> u8 {
    u8::try_from(family).unwrap_or(0)
}

pub(super) fn is_name(name: &[u8]) -> bool {
    until_nul(name) == b"lo"
}

/// Returns the interfaces with their numbers and names.
fn links(inet: &Inet, stack: Option<&Stack>) -> Vec<(i32, Vec<u8>, Part)> {
    let mut links = vec![(1, b"lo".to_vec(), link(inet))];
    links.extend(stack.map(nics::links).unwrap_or_default());
    links
}

fn find_link(payload: &[u8], inet: &Inet, stack: Option<&Stack>) -> SysResult<Vec<Part>> {
    let (head, _) = Ifinfomsg::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
    let name = attributes(payload, size_of::<Ifinfomsg>())
        .find(|(kind, _)| matches!(*kind, IFLA_IFNAME | IFLA_ALT_IFNAME))
        .map(|(_, name)| until_nul(name));
    if head.ifi_index <= 0 && name.is_none() {
        return Err(Errno::EINVAL);
    }
    let is_wanted = |(index, own, _): &(i32, Vec<u8>, Part)| {
        if head.ifi_index > 0 { *index == head.ifi_index } else { name == Some(own) }
    };
    let link = links(inet, stack).into_iter().find(is_wanted).ok_or(Errno::ENODEV)?;
    Ok(vec![link.2])
}

pub(super) fn link(inet: &Inet) -> Part {
    let is_up = inet.loopback().is_up();
    let head = Ifinfomsg {
        ifi_type: ARPHRD_LOOPBACK,
        ifi_index: 1,
        ifi_flags: if is_up { LOOPBACK_FLAGS } else { IFF_LOOPBACK },
        ..Ifinfomsg::default()
    };
    let (mtu, queue_len) = inet.loopback().limits();
    Part::new(RTM_NEWLINK, &head)
        .attribute(IFLA_IFNAME, b"lo\0")
        .number(IFLA_TXQLEN, queue_len)
        .attribute(IFLA_OPERSTATE, &[if is_up { OPER_UNKNOWN } else { OPER_DOWN }])
        .attribute(IFLA_LINKMODE, &[0])
        .number(IFLA_MTU, mtu)
        .number(IFLA_GROUP, 0)
        .number(IFLA_PROMISCUITY, 0)
        .number(IFLA_NUM_TX_QUEUES, 1)
        .number(IFLA_NUM_RX_QUEUES, 1)
        .attribute(IFLA_CARRIER, &[1])
        .attribute(IFLA_QDISC, b"noqueue\0")
        .number(IFLA_CARRIER_CHANGES, 0)
        .attribute(IFLA_MAP, &[0; 32])
        .attribute(IFLA_ADDRESS, &[0; 6])
        .attribute(IFLA_BROADCAST, &[0; 6])
        .attribute(IFLA_STATS64, &[0; 200])
        .attribute(IFLA_STATS, &[0; 96])
}

/// Returns how long an address is valid: for ever, since the beginning.
pub(super) fn forever() -> Vec<u8> {
    [u32::MAX, u32::MAX, 0, 0].iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// Returns an address of the loopback interface, with its family.
pub(super) fn addr(own: &LoopbackAddr) -> (i32, Part) {
    let flags = PERMANENT | if own.is_secondary { SECONDARY } else { 0 };
    let family = nics::family(own.ip);
    let head = Ifaddrmsg {
        ifa_family: number(family),
        ifa_prefixlen: own.prefix,
        ifa_flags: flags,
        ifa_scope: own.scope,
        ifa_index: LOOPBACK_INDEX,
    };
    let ip = nics::octets(own.ip);
    let part = Part::new(RTM_NEWADDR, &head).attribute(IFA_ADDRESS, &ip);
    if own.ip.is_ipv6() {
        return (family, part.attribute(IFA_CACHEINFO, &forever()).number(IFA_FLAGS, flags.into()));
    }
    let mut part = part.attribute(IFA_LOCAL, &ip);
    if let Some(broadcast) = own.broadcast {
        part = part.attribute(IFA_BROADCAST, &broadcast.octets());
    }
    let part = part
        .attribute(IFA_LABEL, &[&own.label, &b"\0"[..]].concat())
        .number(IFA_FLAGS, flags.into())
        .attribute(IFA_CACHEINFO, &forever());
    (family, part)
}

/// Returns the routes that an address of the loopback interface brings, with the address that what takes
/// them comes from.
fn routes(own: &LoopbackAddr, source: IpAddr) -> Vec<(i32, Part)> {
    let way = |to, prefix, kind, scope| Way {
        to,
        prefix,
        table: TABLE_LOCAL,
        kind,
        scope,
        protocol: PROTOCOL_KERNEL,
        interface: LOOPBACK_INDEX.cast_signed(),
        gateway: None,
        source: own.ip.is_ipv4().then_some(source),
        metric: 0,
    };
    let network = network_of(own.ip, own.prefix);
    let mut ways = Vec::new();
    if own.ip.is_ipv4() {
        if own.prefix < 32 && !own.is_secondary {
            ways.push(way(network, own.prefix, ROUTE_LOCAL, SCOPE_HOST));
        }
        ways.push(way(own.ip, 32, ROUTE_LOCAL, SCOPE_HOST));
        if let Some(broadcast) = broadcast_of(own.ip, own.prefix).filter(|_| !own.is_secondary) {
            ways.push(way(broadcast, 32, ROUTE_BROADCAST, SCOPE_LINK));
        }
    } else {
        ways.push(Way {
            table: TABLE_MAIN,
            metric: 256,
            ..way(network, own.prefix, ROUTE_UNICAST, SCOPE_UNIVERSE)
        });
        ways.push(way(own.ip, 128, ROUTE_LOCAL, SCOPE_UNIVERSE));
    }
    ways.iter().map(Way::part).collect()
}

/// Returns the way to an address; the host's own addresses are its loopback interface's where there is no `inet`.
fn find_route(payload: &[u8], inet: Option<&Inet>) -> SysResult<Part> {
    let (head, _) = Rtmsg::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
    let to = attributes(payload, size_of::<Rtmsg>()).find(|(kind, _)| *kind == RTA_DST);
    let to = to.map(|(_, data)| data).unwrap_or_default();
    let ip = match i32::from(head.rtm_family) {
        AF_INET => to.first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
        AF_INET6 => to.first_chunk::<16>().map(|ip| IpAddr::from(*ip)),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let ip = ip.ok_or(Errno::EINVAL)?;
    if !inet.map_or(ip.is_loopback(), |inet| inet.loopback().is_local(ip)) {
        let stack = inet.and_then(Inet::stack);
        return stack.and_then(|stack| nics::way_to(stack, ip)).ok_or(Errno::ENETUNREACH);
    }
    let localhost = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let source = inet.map_or(localhost, |inet| inet.loopback().source_for(ip));
    let len = if ip.is_ipv4() { 32 } else { 128 };
    // With IPv4, Linux names the main table whatever has been found.
    let table = if ip.is_ipv4() { TABLE_MAIN } else { TABLE_LOCAL };
    let head = Rtmsg {
        rtm_family: head.rtm_family,
        rtm_dst_len: len,
        rtm_table: table,
        rtm_type: ROUTE_LOCAL,
        rtm_flags: CLONED | if ip.is_ipv4() { ENDS_HERE } else { 0 },
        ..Rtmsg::default()
    };
    Ok(Part::new(RTM_NEWROUTE, &head)
        .number(RTA_TABLE, table.into())
        .attribute(RTA_DST, to)
        .number(RTA_OIF, LOOPBACK_INDEX)
        .attribute(RTA_PREFSRC, &nics::octets(source))
        .attribute(RTA_CACHEINFO, &[0; 32]))
}

fn rules() -> Vec<(i32, Part)> {
    const TO_TABLE: u8 = 1;
    let rule = |family: i32, table: u8, priority: u32| {
        let head = Rtmsg {
            rtm_family: number(family),
            rtm_table: table,
            rtm_type: TO_TABLE,
            ..Rtmsg::default()
        };
        let part = Part::new(RTM_NEWRULE, &head)
            .number(FRA_TABLE, table.into())
            .number(FRA_SUPPRESS_PREFIXLEN, u32::MAX)
            .attribute(FRA_PROTOCOL, &[PROTOCOL_KERNEL]);
        let part = if priority == 0 { part } else { part.number(FRA_PRIORITY, priority) };
        (family, part)
    };
    vec![
        rule(AF_INET, TABLE_LOCAL, 0),
        rule(AF_INET, TABLE_MAIN, 32_766),
        rule(AF_INET, TABLE_DEFAULT, 32_767),
        rule(AF_INET6, TABLE_LOCAL, 0),
        rule(AF_INET6, TABLE_MAIN, 32_766),
    ]
}
