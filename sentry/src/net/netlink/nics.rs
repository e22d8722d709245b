//! `rtnetlink(7)`: the interfaces that a sandbox has taken over, their addresses, routes and
//! neighbours.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use syscalls::abi::netlink::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFLA_ADDRESS,
    IFLA_BROADCAST, IFLA_CARRIER, IFLA_CARRIER_CHANGES, IFLA_GROUP, IFLA_IFNAME, IFLA_LINKMODE,
    IFLA_MAP, IFLA_MTU, IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES, IFLA_OPERSTATE, IFLA_PROMISCUITY,
    IFLA_QDISC, IFLA_STATS, IFLA_STATS64, IFLA_TXQLEN, Ifaddrmsg, Ifinfomsg, NDA_DST, NDA_LLADDR,
    Ndmsg, RTA_CACHEINFO, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREF, RTA_PREFSRC, RTA_PRIORITY,
    RTA_TABLE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, Rtmsg,
};
use syscalls::abi::socket::{AF_INET, AF_INET6};

use super::message::Part;
use super::route::{
    CLONED, PERMANENT, PROTOCOL_KERNEL, ROUTE_BROADCAST, ROUTE_LOCAL, ROUTE_UNICAST, SCOPE_HOST,
    SCOPE_LINK, SCOPE_UNIVERSE, TABLE_LOCAL, TABLE_MAIN, forever, number,
};
use crate::net::inet::interface::{ARPHRD_ETHER, NIC_FLAGS};
use crate::net::stack::{Nic, Stack, broadcast_of, is_link_local};

/// `IFF_LOWER_UP`
const LOWER_UP: u32 = 0x1_0000;

/// `IF_OPER_UP`
const OPERSTATE_UP: u8 = 6;

/// `NUD_REACHABLE`, `RTN_UNICAST`
const REACHABLE: u16 = 2;

/// `RTPROT_BOOT`
const PROTOCOL_BOOT: u8 = 3;

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn family(ip: IpAddr) -> i32 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn index(nic: &Nic) -> u32 {
    nic.config.index.unsigned_abs()
}

/// Returns the interfaces with their numbers and names.
pub(super) fn links(stack: &Stack) -> Vec<(i32, Vec<u8>, Part)> {
    let nics = stack.nics().iter();
    nics.map(|nic| (nic.config.index, nic.config.name.clone().into_bytes(), link(nic))).collect()
}

fn link(nic: &Nic) -> Part {
    let head = Ifinfomsg {
        ifi_type: ARPHRD_ETHER,
        ifi_index: nic.config.index,
        ifi_flags: u32::from(NIC_FLAGS) | LOWER_UP,
        ..Ifinfomsg::default()
    };
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let [received_bytes, received, useless] = &nic.counters.received;
    let [sent_bytes, sent, lost] = &nic.counters.sent;
    // `struct rtnl_link_stats64`: packets, bytes, errors and drops, each received and sent.
    let counts = [
        count(received),
        count(sent),
        count(received_bytes),
        count(sent_bytes),
        0,
        0,
        count(useless),
        count(lost),
    ];
    let mut stats64: Vec<u8> = counts.iter().flat_map(|count| count.to_ne_bytes()).collect();
    stats64.resize(200, 0);
    let low = |count: &u64| u32::try_from(count & 0xffff_ffff).unwrap_or(0);
    let mut stats: Vec<u8> = counts.iter().map(low).flat_map(u32::to_ne_bytes).collect();
    stats.resize(96, 0);
    Part::new(RTM_NEWLINK, &head)
        .attribute(IFLA_IFNAME, &[nic.config.name.as_bytes(), &[0]].concat())
        .number(IFLA_TXQLEN, 1000)
        .attribute(IFLA_OPERSTATE, &[OPERSTATE_UP])
        .attribute(IFLA_LINKMODE, &[0])
        .number(IFLA_MTU, nic.config.mtu)
        .number(IFLA_GROUP, 0)
        .number(IFLA_PROMISCUITY, 0)
        .number(IFLA_NUM_TX_QUEUES, 1)
        .number(IFLA_NUM_RX_QUEUES, 1)
        .attribute(IFLA_CARRIER, &[1])
        .attribute(IFLA_QDISC, b"noqueue\0")
        .number(IFLA_CARRIER_CHANGES, 1)
        .attribute(IFLA_MAP, &[0; 32])
        .attribute(IFLA_ADDRESS, &nic.config.mac)
        .attribute(IFLA_BROADCAST, &[0xff; 6])
        .attribute(IFLA_STATS64, &stats64)
        .attribute(IFLA_STATS, &stats)
}

fn scope(ip: IpAddr) -> u8 {
    if is_link_local(ip) { SCOPE_LINK } else { SCOPE_UNIVERSE }
}

/// Returns the addresses.
pub(super) fn addrs(stack: &Stack) -> Vec<(i32, Part)> {
    let of_nic = |nic: &Nic| {
        let label = [nic.config.name.as_bytes(), &[0]].concat();
        let part = |addr: &crate::config::network::AddrConfig| {
            let head = Ifaddrmsg {
                ifa_family: number(family(addr.ip)),
                ifa_prefixlen: addr.prefix,
                ifa_flags: PERMANENT,
                ifa_scope: scope(addr.ip),
                ifa_index: index(nic),
            };
            let mut part = Part::new(RTM_NEWADDR, &head).attribute(IFA_ADDRESS, &octets(addr.ip));
            if addr.ip.is_ipv4() {
                part = part.attribute(IFA_LOCAL, &octets(addr.ip)).attribute(IFA_LABEL, &label);
                if let Some(broadcast) = broadcast_of(addr.ip, addr.prefix) {
                    part = part.attribute(IFA_BROADCAST, &octets(broadcast));
                }
            }
            let part =
                part.number(IFA_FLAGS, PERMANENT.into()).attribute(IFA_CACHEINFO, &forever());
            (family(addr.ip), part)
        };
        nic.config.addrs.iter().map(part).collect::<Vec<_>>()
    };
    stack.nics().iter().flat_map(of_nic).collect()
}

/// A route as it is told.
pub(super) struct Way {
    pub(super) to: IpAddr,
    pub(super) prefix: u8,
    pub(super) table: u8,
    pub(super) kind: u8,
    pub(super) scope: u8,
    pub(super) protocol: u8,
    pub(super) interface: i32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: u32,
}

impl Way {
    pub(super) fn part(&self) -> (i32, Part) {
        let head = Rtmsg {
            rtm_family: number(family(self.to)),
            rtm_dst_len: self.prefix,
            rtm_table: self.table,
            rtm_protocol: self.protocol,
            rtm_scope: self.scope,
            rtm_type: self.kind,
            ..Rtmsg::default()
        };
        let mut part = Part::new(RTM_NEWROUTE, &head).number(RTA_TABLE, self.table.into());
        if self.prefix > 0 {
            part = part.attribute(RTA_DST, &octets(self.to));
        }
        if self.metric > 0 {
            part = part.number(RTA_PRIORITY, self.metric);
        }
        if let Some(source) = self.source {
            part = part.attribute(RTA_PREFSRC, &octets(source));
        }
        if let Some(gateway) = self.gateway {
            part = part.attribute(RTA_GATEWAY, &octets(gateway));
        }
        part = part.number(RTA_OIF, self.interface.unsigned_abs());
        if self.to.is_ipv6() {
            part = part.attribute(RTA_CACHEINFO, &[0; 32]).attribute(RTA_PREF, &[0]);
        }
        (family(self.to), part)
    }
}

/// Returns the routes of the main table, and those that the addresses bring.
pub(super) fn routes(stack: &Stack) -> Vec<(i32, Part)> {
    let mut ways = Vec::new();
    for route in &stack.config().routes {
        let is_direct = route.gateway.is_none();
        let is_v4_link = is_direct && route.to.is_ipv4();
        ways.push(Way {
            to: route.to,
            prefix: route.prefix,
            table: TABLE_MAIN,
            kind: ROUTE_UNICAST,
            scope: if is_v4_link { SCOPE_LINK } else { SCOPE_UNIVERSE },
            protocol: if is_direct { PROTOCOL_KERNEL } else { PROTOCOL_BOOT },
            interface: route.interface,
            gateway: route.gateway,
            source: route.source,
            metric: route.metric,
        });
    }
    for nic in stack.nics() {
        for addr in &nic.config.addrs {
            let local = |to, kind, scope| Way {
                to,
                prefix: if addr.ip.is_ipv4() { 32 } else { 128 },
                table: TABLE_LOCAL,
                kind,
                scope,
                protocol: PROTOCOL_KERNEL,
                interface: nic.config.index,
                gateway: None,
                source: addr.ip.is_ipv4().then_some(addr.ip),
                metric: 0,
            };
            let own_scope = if addr.ip.is_ipv4() { SCOPE_HOST } else { SCOPE_UNIVERSE };
            ways.push(local(addr.ip, ROUTE_LOCAL, own_scope));
            if let Some(broadcast) = broadcast_of(addr.ip, addr.prefix) {
                ways.push(local(broadcast, ROUTE_BROADCAST, SCOPE_LINK));
            }
        }
    }
    ways.iter().map(Way::part).collect()
}

/// Returns the route that packets to an address take.
pub(super) fn way_to(stack: &Stack, ip: IpAddr) -> Option<Part> {
    let is_own = stack.has_addr(ip);
    let interface = if is_own { 1 } else { stack.interface_for(ip)? };
    let source = if is_own { ip } else { stack.source_for(ip).ok()? };
    let gateway = if is_own { None } else { stack.gateway_for(ip) };
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    let head = Rtmsg {
        rtm_family: number(family(ip)),
        rtm_dst_len: prefix,
        rtm_table: if is_own { TABLE_LOCAL } else { TABLE_MAIN },
        rtm_type: if is_own { ROUTE_LOCAL } else { ROUTE_UNICAST },
        rtm_flags: CLONED,
        ..Rtmsg::default()
    };
    let mut part = Part::new(RTM_NEWROUTE, &head)
        .number(RTA_TABLE, head.rtm_table.into())
        .attribute(RTA_DST, &octets(ip));
    if let Some(gateway) = gateway {
        part = part.attribute(RTA_GATEWAY, &octets(gateway));
    }
    let part = part
        .number(RTA_OIF, interface.unsigned_abs())
        .attribute(RTA_PREFSRC, &octets(source))
        .attribute(RTA_CACHEINFO, &[0; 32]);
    Some(part)
}

/// Returns the neighbours that are known.
pub(super) fn neighbors(stack: &Stack) -> Vec<(i32, Part)> {
    let part = |(interface, ip, mac): (i32, IpAddr, [u8; 6])| {
        let head = Ndmsg {
            ndm_family: number(family(ip)),
            ndm_ifindex: interface,
            ndm_state: REACHABLE,
            ndm_type: ROUTE_UNICAST,
            ..Ndmsg::default()
        };
        let part = Part::new(RTM_NEWNEIGH, &head)
            .attribute(NDA_DST, &octets(ip))
            .attribute(NDA_LLADDR, &mac);
        (family(ip), part)
    };
    stack.neighbors().into_iter().map(part).collect()
}
