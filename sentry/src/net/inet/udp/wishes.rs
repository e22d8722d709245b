//! What the control messages of a send ask for: `ip_cmsg_send()` and `ip6_datagram_send_ctl()` of Linux.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use syscalls::abi::socket::{
    IP_PKTINFO, IP_RETOPTS, IP_TOS, IP_TTL, IPV6_DONTFRAG, IPV6_HOPLIMIT, IPV6_PKTINFO,
    IPV6_TCLASS, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP, StampFlags, UDP_SEGMENT,
};
use syscalls::{Errno, SysResult};

use crate::net::inet::Inet;
use crate::net::{Ancillary, timestamp};

/// How one datagram is to be sent, where that differs from the socket's options.
#[derive(Clone, Copy, Default)]
pub(super) struct Wishes {
    /// `IP_TTL`, `IPV6_HOPLIMIT`
    pub(super) ttl: Option<i32>,
    /// `IP_TOS`, `IPV6_TCLASS`
    pub(super) tos: Option<i32>,
    /// The source address of `IP_PKTINFO`, `IPV6_PKTINFO`.
    pub(super) source: Option<IpAddr>,
    /// `UDP_SEGMENT`: how long each of the datagrams is that it is cut into.
    pub(super) segment: Option<u16>,
    /// When its sending is stamped.
    pub(super) record: Option<StampFlags>,
}

/// Returns the number that a message consists of.
fn number(data: &[u8]) -> SysResult<i32> {
    data.try_into().map(i32::from_ne_bytes).map_err(|_| Errno::EINVAL)
}

/// Returns a number from `first` to 255; -1 stands for the socket's own.
fn byte(data: &[u8], first: i32) -> SysResult<Option<i32>> {
    let value = number(data)?;
    if !(first..=255).contains(&value) {
        return Err(Errno::EINVAL);
    }
    Ok(Some(value).filter(|value| *value >= 0))
}

impl Wishes {
    /// Reads the control messages of a datagram to `to`.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(super) fn read(inet: &Inet, to: IpAddr, messages: &[Ancillary]) -> SysResult<Self> {
        let mut wishes = Self::default();
        for Ancillary { level, kind, data } in messages {
            match (to, *level) {
                (IpAddr::V4(_), SOL_IP) => wishes.read_v4(inet, *kind, data)?,
                // A socket of IPv6 gives the address as one of its own.
                (IpAddr::V4(_), SOL_IPV6) if *kind == IPV6_PKTINFO => {
                    let ip = data.first_chunk::<16>().filter(|_| data.len() == 20);
                    let ip = Ipv6Addr::from(*ip.ok_or(Errno::EINVAL)?);
                    wishes.set_source(inet, ip.to_ipv4_mapped().ok_or(Errno::EINVAL)?.into())?;
                }
                (IpAddr::V6(_), SOL_IPV6) => wishes.read_v6(inet, *kind, data)?,
                (_, SOL_SOCKET) if timestamp::is_option(*kind) => {
                    wishes.record = Some(timestamp::read_record(data)?);
                }
                (_, SOL_UDP) => {
                    let size = <[u8; 2]>::try_from(data.as_slice());
                    let size = size.ok().filter(|_| *kind == UDP_SEGMENT).ok_or(Errno::EINVAL)?;
                    wishes.segment = Some(u16::from_ne_bytes(size));
                }
                // What is of another level is not looked at.
                _ => {}
            }
        }
        Ok(wishes)
    }

    fn read_v4(&mut self, inet: &Inet, kind: i32, data: &[u8]) -> SysResult<()> {
        match kind {
            IP_PKTINFO => {
                // `struct in_pktinfo`: the source is behind the number of the interface.
                let own = data.get(4..8).and_then(<[u8]>::first_chunk::<4>);
                let own = own.filter(|_| data.len() == 12).ok_or(Errno::EINVAL)?;
                self.set_source(inet, Ipv4Addr::from(*own).into())?;
            }
            IP_TTL => self.ttl = byte(data, 1)?,
            IP_TOS => {
                self.tos = match data {
                    [tos] => Some(i32::from(*tos)),
                    _ => byte(data, 0)?,
                }
            }
            IP_RETOPTS => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn read_v6(&mut self, inet: &Inet, kind: i32, data: &[u8]) -> SysResult<()> {
        match kind {
            IPV6_PKTINFO => {
                let own = data.first_chunk::<16>().filter(|_| data.len() >= 20);
                self.set_source(inet, Ipv6Addr::from(*own.ok_or(Errno::EINVAL)?).into())?;
            }
            IPV6_HOPLIMIT => self.ttl = byte(data, -1)?,
            IPV6_TCLASS => self.tos = byte(data, -1)?,
            IPV6_DONTFRAG if matches!(number(data)?, 0 | 1) => {}
            // DEVIATION: no packet gets headers beyond the first.
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn set_source(&mut self, inet: &Inet, ip: IpAddr) -> SysResult<()> {
        if ip.is_unspecified() {
            return Ok(());
        }
        if !inet.is_local(ip) {
            return Err(Errno::EINVAL);
        }
        self.source = Some(ip);
        Ok(())
    }
}
