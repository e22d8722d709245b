//! The options of `SOL_IP` and `SOL_IPV6` (`ip(7)`, `ipv6(7)`).
//!
//! Most are numbers that only packets would show: they are checked, kept and given back. Those that
//! the sockets themselves look at are [`IpOptions::flag`]s.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use syscalls::abi::capability::{CAP_NET_ADMIN, CAP_NET_RAW};
use syscalls::abi::socket::{
    AF_INET, AF_INET6, IP_ADD_MEMBERSHIP, IP_BIND_ADDRESS_NO_PORT, IP_CHECKSUM, IP_DROP_MEMBERSHIP,
    IP_FREEBIND, IP_HDRINCL, IP_MINTTL, IP_MTU, IP_MTU_DISCOVER, IP_MULTICAST_ALL, IP_MULTICAST_IF,
    IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_NODEFRAG, IP_OPTIONS, IP_PASSSEC, IP_PKTINFO,
    IP_PROTOCOL, IP_RECVERR, IP_RECVERR_RFC4884, IP_RECVFRAGSIZE, IP_RECVOPTS, IP_RECVORIGDSTADDR,
    IP_RECVTOS, IP_RECVTTL, IP_RETOPTS, IP_ROUTER_ALERT, IP_TOS, IP_TRANSPARENT, IP_TTL,
    IP_UNICAST_IF, IPV6_2292DSTOPTS, IPV6_2292HOPLIMIT, IPV6_2292HOPOPTS, IPV6_2292PKTINFO,
    IPV6_2292RTHDR, IPV6_ADDR_PREFERENCES, IPV6_ADDRFORM, IPV6_AUTOFLOWLABEL, IPV6_DONTFRAG,
    IPV6_FLOWINFO, IPV6_FLOWINFO_SEND, IPV6_FREEBIND, IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP,
    IPV6_MINHOPCOUNT, IPV6_MTU, IPV6_MTU_DISCOVER, IPV6_MULTICAST_ALL, IPV6_MULTICAST_HOPS,
    IPV6_MULTICAST_IF, IPV6_MULTICAST_LOOP, IPV6_ORIGDSTADDR, IPV6_RECVDSTOPTS, IPV6_RECVERR,
    IPV6_RECVERR_RFC4884, IPV6_RECVFRAGSIZE, IPV6_RECVHOPLIMIT, IPV6_RECVHOPOPTS, IPV6_RECVPATHMTU,
    IPV6_RECVPKTINFO, IPV6_RECVRTHDR, IPV6_RECVTCLASS, IPV6_ROUTER_ALERT_ISOLATE, IPV6_TCLASS,
    IPV6_TRANSPARENT, IPV6_UNICAST_HOPS, IPV6_UNICAST_IF, IPV6_V6ONLY, SOL_IP, SOL_IPV6,
};
use syscalls::{Errno, SysResult};

use super::LOOPBACK_INDEX;
use crate::sync::Mutex;
use crate::task::CurrentTask;

/// The most groups that a socket joins: `igmp_max_memberships`.
const MAX_GROUPS: usize = 20;

/// The largest packet of the loopback interface, as `IP_MTU` shows it.
const LOOPBACK_MTU: i32 = 65_535;

/// Which values an option takes.
#[derive(Clone, Copy)]
enum Values {
    /// Zero, or anything else for one.
    Flag,
    /// From the first to the last.
    Range(i32, i32),
    /// As `Range`; -1 stands for the default.
    RangeOrDefault(i32, i32),
    /// It can only be asked for.
    Nothing,
}

use Values::{Flag, Nothing, Range, RangeOrDefault};

/// Level, name, default and values of the options that are numbers.
const KNOBS: &[(i32, i32, i32, Values)] = &[
    (SOL_IP, IP_TOS, 0, Range(0, 255)),
    (SOL_IP, IP_TTL, 64, RangeOrDefault(1, 255)),
    (SOL_IP, IP_RECVOPTS, 0, Flag),
    (SOL_IP, IP_RETOPTS, 0, Flag),
    (SOL_IP, IP_PKTINFO, 0, Flag),
    (SOL_IP, IP_MTU_DISCOVER, 1, Range(0, 5)),
    (SOL_IP, IP_RECVERR, 0, Flag),
    (SOL_IP, IP_RECVTTL, 0, Flag),
    (SOL_IP, IP_HDRINCL, 0, Nothing),
    (SOL_IP, IP_ROUTER_ALERT, 0, Flag),
    (SOL_IP, IP_PASSSEC, 0, Flag),
    (SOL_IP, IP_NODEFRAG, 0, Flag),
    (SOL_IP, IP_CHECKSUM, 0, Flag),
    (SOL_IP, IP_RECVFRAGSIZE, 0, Flag),
    (SOL_IP, IP_RECVERR_RFC4884, 0, Range(0, 1)),
    (SOL_IP, IP_UNICAST_IF, 0, Range(0, 0)),
    (SOL_IP, IP_PROTOCOL, 0, Nothing),
    (SOL_IP, IP_RECVTOS, 0, Flag),
    (SOL_IP, IP_FREEBIND, 0, Flag),
    (SOL_IP, IP_TRANSPARENT, 0, Flag),
    (SOL_IP, IP_RECVORIGDSTADDR, 0, Flag),
    (SOL_IP, IP_MINTTL, 0, Range(0, 255)),
    (SOL_IP, IP_BIND_ADDRESS_NO_PORT, 0, Flag),
    (SOL_IP, IP_MULTICAST_TTL, 1, RangeOrDefault(0, 255)),
    (SOL_IP, IP_MULTICAST_LOOP, 1, Flag),
    (SOL_IP, IP_MULTICAST_ALL, 1, Range(0, 1)),
    (SOL_IPV6, IPV6_V6ONLY, 0, Flag),
    (SOL_IPV6, IPV6_UNICAST_HOPS, 64, RangeOrDefault(0, 255)),
    (SOL_IPV6, IPV6_MULTICAST_HOPS, 1, RangeOrDefault(0, 255)),
    (SOL_IPV6, IPV6_MULTICAST_LOOP, 1, Range(0, 1)),
    (SOL_IPV6, IPV6_MTU_DISCOVER, 1, Range(0, 5)),
    (SOL_IPV6, IPV6_RECVERR, 0, Flag),
    (SOL_IPV6, IPV6_RECVPKTINFO, 0, Flag),
    (SOL_IPV6, IPV6_RECVHOPLIMIT, 0, Flag),
    (SOL_IPV6, IPV6_RECVPATHMTU, 0, Flag),
    // No packet has headers beyond the first.
    (SOL_IPV6, IPV6_RECVHOPOPTS, 0, Flag),
    (SOL_IPV6, IPV6_RECVDSTOPTS, 0, Flag),
    (SOL_IPV6, IPV6_RECVRTHDR, 0, Flag),
    (SOL_IPV6, IPV6_DONTFRAG, 0, Flag),
    (SOL_IPV6, IPV6_RECVTCLASS, 0, Flag),
    (SOL_IPV6, IPV6_TCLASS, 0, RangeOrDefault(0, 255)),
    (SOL_IPV6, IPV6_AUTOFLOWLABEL, 1, Flag),
    (SOL_IPV6, IPV6_ADDR_PREFERENCES, 2, Range(0, 0xfff)),
    (SOL_IPV6, IPV6_TRANSPARENT, 0, Flag),
    (SOL_IPV6, IPV6_FREEBIND, 0, Flag),
    // DEVIATION: the messages of RFC 2292 never come.
    (SOL_IPV6, IPV6_2292PKTINFO, 0, Flag),
    (SOL_IPV6, IPV6_2292HOPOPTS, 0, Flag),
    (SOL_IPV6, IPV6_2292DSTOPTS, 0, Flag),
    (SOL_IPV6, IPV6_2292RTHDR, 0, Flag),
    (SOL_IPV6, IPV6_2292HOPLIMIT, 0, Flag),
    (SOL_IPV6, IPV6_FLOWINFO, 0, Flag),
    (SOL_IPV6, IPV6_MULTICAST_ALL, 1, Flag),
    (SOL_IPV6, IPV6_ROUTER_ALERT_ISOLATE, 0, Flag),
    (SOL_IPV6, IPV6_RECVERR_RFC4884, 0, Range(0, 1)),
    (SOL_IPV6, IPV6_FLOWINFO_SEND, 0, Flag),
    (SOL_IPV6, IPV6_MINHOPCOUNT, 0, Range(0, 255)),
    (SOL_IPV6, IPV6_ORIGDSTADDR, 0, Flag),
    (SOL_IPV6, IPV6_UNICAST_IF, 0, Range(0, 0)),
    (SOL_IPV6, IPV6_RECVFRAGSIZE, 0, Flag),
];

/// What the socket of the options is like at the moment.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) is_v6: bool,
    pub(super) is_stream: bool,
    pub(super) is_raw: bool,
    pub(super) is_bound: bool,
    pub(super) is_connected: bool,
}

#[derive(Default)]
struct Inner {
    values: BTreeMap<(i32, i32), i32>,
    groups: Vec<IpAddr>,
    /// The interface and the address of `IP_MULTICAST_IF`, `IPV6_MULTICAST_IF`.
    multicast_v4: Option<Ipv4Addr>,
    multicast_v6: u32,
}

/// The options of a socket.
#[derive(Default)]
pub(super) struct IpOptions(Mutex<Inner>);

/// Returns the number at the start of an option: of IPv4 a byte does where there is no more, or nothing.
fn number(level: i32, value: &[u8]) -> SysResult<i32> {
    match (value.first_chunk::<4>(), value.first()) {
        (Some(bytes), _) => Ok(i32::from_ne_bytes(*bytes)),
        (None, byte) if level == SOL_IP => Ok(byte.copied().unwrap_or(0).into()),
        _ => Err(Errno::EINVAL),
    }
}

fn ipv4_at(value: &[u8], at: usize) -> Option<Ipv4Addr> {
    value.get(at..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes))
}

fn int_at(value: &[u8], at: usize) -> Option<i32> {
    value.get(at..)?.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes))
}

/// Checks an interface given by its number; zero is any.
fn check_interface(index: i32) -> SysResult<()> {
    if index == 0 || index == LOOPBACK_INDEX { Ok(()) } else { Err(Errno::ENODEV) }
}

impl IpOptions {
    /// Returns a copy: what a connection inherits from the socket that listened.
    pub(super) fn inherit(&self) -> Self {
        let values = self.0.lock().values.clone();
        Self(Mutex::new(Inner { values, ..Inner::default() }))
    }

    /// Returns an option that is a number.
    pub(super) fn value(&self, level: i32, name: i32) -> i32 {
        let default = KNOBS
            .iter()
            .find(|(knob_level, knob, ..)| (*knob_level, *knob) == (level, name))
            .map_or(0, |(_, _, default, _)| *default);
        self.0.lock().values.get(&(level, name)).copied().unwrap_or(default)
    }

    /// Returns whether an option is on.
    pub(super) fn flag(&self, level: i32, name: i32) -> bool {
        self.value(level, name) != 0
    }

    /// Notes an address that the socket has been bound to: with one of IPv6 it is for IPv6 alone.
    pub(super) fn note_bound(&self, family: super::Family, ip: IpAddr) {
        if family == super::Family::V6 && ip.is_ipv6() && !ip.is_unspecified() {
            self.0.lock().values.insert((SOL_IPV6, IPV6_V6ONLY), 1);
        }
    }

    /// Returns whether the socket may be bound to an address that is not this host's.
    pub(super) fn is_free_to_bind(&self) -> bool {
        let names = [
            (SOL_IP, IP_FREEBIND),
            (SOL_IP, IP_TRANSPARENT),
            (SOL_IPV6, IPV6_FREEBIND),
            (SOL_IPV6, IPV6_TRANSPARENT),
        ];
        names.iter().any(|(level, name)| self.flag(*level, *name))
    }

    /// Returns whether the socket has joined a group.
    pub(super) fn has_joined(&self, group: IpAddr) -> bool {
        self.0.lock().groups.contains(&group)
    }

    /// Returns whether multicast messages have somewhere to go: the loopback interface was named.
    pub(super) fn has_multicast_interface(&self, is_v6: bool) -> bool {
        let inner = self.0.lock();
        if is_v6 { inner.multicast_v6 != 0 } else { inner.multicast_v4.is_some() }
    }

    /// Returns the bytes of an option.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `ENOTCONN`.
    pub(super) fn get(&self, about: About, level: i32, name: i32) -> SysResult<Vec<u8>> {
        if level == SOL_IPV6 && !about.is_v6 {
            return Err(Errno::ENOPROTOOPT);
        }
        match (level, name) {
            (SOL_IP, IP_OPTIONS) => return Ok(Vec::new()),
            (SOL_IP, IP_MTU) | (SOL_IPV6, IPV6_MTU) => {
                let mtu = if level == SOL_IP { LOOPBACK_MTU } else { LOOPBACK_MTU + 1 };
                let connected = about.is_connected.then(|| mtu.to_ne_bytes().to_vec());
                return connected.ok_or(Errno::ENOTCONN);
            }
            (SOL_IP, IP_MULTICAST_IF) => {
                let addr = self.0.lock().multicast_v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
                return Ok(addr.octets().to_vec());
            }
            (SOL_IPV6, IPV6_ADDRFORM) => return Ok(AF_INET6.to_ne_bytes().to_vec()),
            (SOL_IPV6, IPV6_MULTICAST_IF) => {
                return Ok(self.0.lock().multicast_v6.to_ne_bytes().to_vec());
            }
            _ => {}
        }
        let is_known =
            KNOBS.iter().any(|(knob_level, knob, ..)| (*knob_level, *knob) == (level, name));
        if !is_known {
            return Err(Errno::ENOPROTOOPT);
        }
        Ok(self.value(level, name).to_ne_bytes().to_vec())
    }

    /// Sets an option.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, `EPERM`, `ENODEV`, `EADDRINUSE`, `EADDRNOTAVAIL`.
    pub(super) fn set(
        &self,
        task: &CurrentTask,
        about: About,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> SysResult<()> {
        if level == SOL_IPV6 && !about.is_v6 {
            return Err(Errno::ENOPROTOOPT);
        }
        match (level, name) {
            (SOL_IP, IP_OPTIONS) => return Ok(()),
            (SOL_IPV6, IPV6_ADDRFORM) if number(level, value)? != AF_INET => {
                return Err(Errno::EINVAL);
            }
            (SOL_IP, IP_MULTICAST_IF) => return self.set_multicast_v4(about, value),
            (SOL_IPV6, IPV6_MULTICAST_IF) => return self.set_multicast_v6(about, value),
            (SOL_IP, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP) => {
                return self.change_group_v4(about, value, name == IP_ADD_MEMBERSHIP);
            }
            (SOL_IPV6, IPV6_JOIN_GROUP | IPV6_LEAVE_GROUP) => {
                return self.change_group_v6(about, value, name == IPV6_JOIN_GROUP);
            }
            (SOL_IP, IP_ROUTER_ALERT) if !about.is_raw => return Err(Errno::EINVAL),
            (SOL_IP, IP_RECVFRAGSIZE) if about.is_stream => return Err(Errno::EINVAL),
            (SOL_IP, IP_NODEFRAG) if !about.is_raw => return Err(Errno::ENOPROTOOPT),
            (SOL_IP, IP_UNICAST_IF) | (SOL_IPV6, IPV6_UNICAST_IF) => {
                // It is for one that there is, and there is no choice.
                let value = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let is_none = i32::from_be_bytes(*value) == 0;
                return if is_none { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) };
            }
            (SOL_IP, IP_MULTICAST_TTL) if about.is_stream => return Err(Errno::EINVAL),
            (SOL_IPV6, IPV6_MULTICAST_HOPS) if about.is_stream => return Err(Errno::ENOPROTOOPT),
            (SOL_IPV6, IPV6_V6ONLY) if value.len() >= 4 && about.is_bound => {
                return Err(Errno::EINVAL);
            }
            (SOL_IP, IP_TRANSPARENT) | (SOL_IPV6, IPV6_TRANSPARENT) => {
                let is_on = number(level, value)? != 0;
                let may = task.is_net_capable(CAP_NET_RAW) || task.is_net_capable(CAP_NET_ADMIN);
                if is_on && !may {
                    return Err(Errno::EPERM);
                }
            }
            _ => {}
        }
        let (_, _, default, values) = KNOBS
            .iter()
            .find(|(knob_level, knob, ..)| (*knob_level, *knob) == (level, name))
            .ok_or(Errno::ENOPROTOOPT)?;
        let value = number(level, value)?;
        let value = match *values {
            Nothing => return Err(Errno::ENOPROTOOPT),
            Flag => i32::from(value != 0),
            RangeOrDefault(..) if value == -1 => *default,
            Range(first, last) | RangeOrDefault(first, last) => {
                // Linux keeps the low byte of a type of service.
                let value = match (level, name) {
                    // Two bits of it are TCP's own.
                    (SOL_IP, IP_TOS) if about.is_stream => value & 0xfc,
                    (SOL_IPV6, IPV6_TCLASS) if about.is_stream && value <= 255 => value & !3,
                    (SOL_IP, IP_TOS) => value & 0xff,
                    _ => value,
                };
                if !(first..=last).contains(&value) {
                    return Err(Errno::EINVAL);
                }
                value
            }
        };
        self.0.lock().values.insert((level, name), value);
        Ok(())
    }

    fn set_multicast_v4(&self, about: About, value: &[u8]) -> SysResult<()> {
        if about.is_stream {
            return Err(Errno::EINVAL);
        }
        let (addr, index) = match value.len() {
            0..=3 => return Err(Errno::EINVAL),
            4..=7 => (ipv4_at(value, 0), None),
            8..=11 => (ipv4_at(value, 4), None),
            _ => (ipv4_at(value, 4), int_at(value, 8)),
        };
        let addr = addr.ok_or(Errno::EINVAL)?;
        let index = index.unwrap_or(0);
        if index == 0 && addr.is_unspecified() {
            self.0.lock().multicast_v4 = None;
            return Ok(());
        }
        let is_ours = if index == 0 { addr.is_loopback() } else { index == LOOPBACK_INDEX };
        if !is_ours {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.0.lock().multicast_v4 = Some(addr);
        Ok(())
    }

    fn set_multicast_v6(&self, about: About, value: &[u8]) -> SysResult<()> {
        if about.is_stream {
            return Err(Errno::ENOPROTOOPT);
        }
        let index = int_at(value, 0).ok_or(Errno::EINVAL)?;
        check_interface(index)?;
        self.0.lock().multicast_v6 = index.cast_unsigned();
        Ok(())
    }

    fn change_group_v4(&self, about: About, value: &[u8], joins: bool) -> SysResult<()> {
        if about.is_stream {
            return Err(Errno::EPROTO);
        }
        let group = ipv4_at(value, 0).filter(|_| value.len() >= 8).ok_or(Errno::EINVAL)?;
        let addr = ipv4_at(value, 4).unwrap_or(Ipv4Addr::UNSPECIFIED);
        if !group.is_multicast() {
            return Err(if joins { Errno::EINVAL } else { Errno::EADDRNOTAVAIL });
        }
        let index = int_at(value, 8).unwrap_or(0);
        // Without an interface the way to the group decides, and there is none.
        if joins && (check_interface(index).is_err() || (index == 0 && !addr.is_loopback())) {
            return Err(Errno::ENODEV);
        }
        self.change_group(IpAddr::V4(group), joins)
    }

    fn change_group_v6(&self, about: About, value: &[u8], joins: bool) -> SysResult<()> {
        if about.is_stream {
            return Err(Errno::EPROTO);
        }
        let group = value.first_chunk::<16>().ok_or(Errno::EINVAL)?;
        let index = int_at(value, 16).ok_or(Errno::EINVAL)?;
        let group = Ipv6Addr::from(*group);
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        if joins && (index == 0 || check_interface(index).is_err()) {
            return Err(Errno::ENODEV);
        }
        self.change_group(IpAddr::V6(group), joins)
    }

    fn change_group(&self, group: IpAddr, joins: bool) -> SysResult<()> {
        let groups = &mut self.0.lock().groups;
        let place = groups.iter().position(|known| *known == group);
        match (place, joins) {
            (Some(_), true) => Err(Errno::EADDRINUSE),
            (None, true) if groups.len() >= MAX_GROUPS => Err(Errno::ENOBUFS),
            (None, true) => {
                groups.push(group);
                Ok(())
            }
            (Some(place), false) => {
                groups.remove(place);
                Ok(())
            }
            (None, false) => Err(Errno::EADDRNOTAVAIL),
        }
    }
}
