//! The options of `SOL_UDP` and `SOL_UDPLITE`, and what they make a receive return.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, Ordering};

use syscalls::abi::socket::{
    IP_PKTINFO, IP_RECVERR, IP_RECVTOS, IP_RECVTTL, IP_TOS, IP_TTL, IPV6_ADDRFORM, IPV6_HOPLIMIT,
    IPV6_PKTINFO, IPV6_RECVERR, IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO, IPV6_RECVTCLASS, IPV6_TCLASS,
    MsgFlags, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP, SOL_UDPLITE, UDP_CORK, UDP_GRO,
    UDP_NO_CHECK6_RX, UDP_NO_CHECK6_TX, UDP_SEGMENT, UDPLITE_RECV_CSCOV, UDPLITE_SEND_CSCOV,
};
use syscalls::{Errno, SysResult};

use super::queue::{self, About, Stamp};
use super::send::Corked;
use super::{Endpoint, Family, IpAddr, UdpSocket};
use crate::net::inet::{common_option, interface};
use crate::net::{Ancillary, Incoming};
use crate::task::CurrentTask;
use crate::vfs::IoSink;

/// The options that are switches.
#[derive(Default)]
pub(super) struct Knobs {
    pub(super) cork: AtomicBool,
    /// `UDP_SEGMENT`, zero for none.
    pub(super) segment: AtomicU16,
    /// `UDP_GRO`
    pub(super) takes_many: AtomicBool,
    pub(super) no_check_send: AtomicBool,
    no_check_receive: AtomicBool,
    /// How much of what is sent the checksum covers, and at least has to of what is received; zero for all.
    pub(super) send_coverage: AtomicI32,
    pub(super) receive_coverage: AtomicI32,
    /// Whether the latter was set: without it anything is received.
    pub(super) checks_coverage: AtomicBool,
}

impl Knobs {
    fn find(&self, name: i32) -> Option<&AtomicBool> {
        match name {
            UDP_CORK => Some(&self.cork),
            UDP_GRO => Some(&self.takes_many),
            UDP_NO_CHECK6_TX => Some(&self.no_check_send),
            UDP_NO_CHECK6_RX => Some(&self.no_check_receive),
            _ => None,
        }
    }

    fn find_coverage(&self, name: i32) -> Option<&AtomicI32> {
        match name {
            UDPLITE_SEND_CSCOV => Some(&self.send_coverage),
            UDPLITE_RECV_CSCOV => Some(&self.receive_coverage),
            _ => None,
        }
    }
}

impl UdpSocket {
    /// Returns the bytes of an option.
    pub(in crate::net) fn get_option(&self, level: i32, name: i32) -> SysResult<Vec<u8>> {
        match level {
            SOL_SOCKET => {
                interface::device_option(&self.options, name).unwrap_or_else(|| common_option(name))
            }
            SOL_IP | SOL_IPV6 => self.ip.get(self.about(), level, name),
            SOL_UDPLITE if !self.is_lite => Err(Errno::ENOPROTOOPT),
            SOL_UDP | SOL_UDPLITE => {
                if let Some(coverage) = self.knobs.find_coverage(name) {
                    return Ok(coverage.load(Ordering::Relaxed).to_ne_bytes().to_vec());
                }
                if name == UDP_SEGMENT {
                    let size = i32::from(self.knobs.segment.load(Ordering::Relaxed));
                    return Ok(size.to_ne_bytes().to_vec());
                }
                let knob = self.knobs.find(name).ok_or(Errno::ENOPROTOOPT)?;
                Ok(i32::from(knob.load(Ordering::Relaxed)).to_ne_bytes().to_vec())
            }
            _ if self.family() == Family::V6 => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Sets an option.
    pub(super) fn change_option(
        &self,
        task: &CurrentTask,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> SysResult<()> {
        match level {
            SOL_SOCKET => interface::set_device_option(task, &self.options, name, value),
            SOL_IPV6 if name == IPV6_ADDRFORM && self.family() == Family::V6 => {
                let state = self.state.lock();
                if state.corked.as_ref().is_some_and(Corked::is_v6) {
                    return Err(Errno::EBUSY);
                }
                let peer = state.peer.map(|peer| peer.ip);
                drop(state);
                self.family.change(value, peer, self.is_v6only())
            }
            SOL_IP | SOL_IPV6 => self.ip.set(task, self.about(), level, name, value),
            SOL_UDPLITE if !self.is_lite => Err(Errno::ENOPROTOOPT),
            SOL_UDP | SOL_UDPLITE => {
                let value = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let value = i32::from_ne_bytes(*value);
                if let Some(coverage) = self.knobs.find_coverage(name) {
                    if !self.is_lite {
                        return Err(Errno::ENOPROTOOPT);
                    }
                    // Eight bytes are the header.
                    let value = if value == 0 { 0 } else { value.clamp(8, i32::from(u16::MAX)) };
                    coverage.store(value, Ordering::Relaxed);
                    if name == UDPLITE_RECV_CSCOV {
                        self.knobs.checks_coverage.store(true, Ordering::Relaxed);
                    }
                    return Ok(());
                }
                if name == UDP_SEGMENT {
                    let size = u16::try_from(value).map_err(|_| Errno::EINVAL)?;
                    self.knobs.segment.store(size, Ordering::Relaxed);
                    return Ok(());
                }
                let is_on = value != 0;
                let knob = self.knobs.find(name).ok_or(Errno::ENOPROTOOPT)?;
                knob.store(is_on, Ordering::Relaxed);
                if name == UDP_CORK && !is_on {
                    self.uncork();
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// Returns whether errors are kept with the datagrams that they are about.
    pub(super) fn wants_complaints(&self) -> bool {
        self.ip.flag(SOL_IP, IP_RECVERR) || self.ip.flag(SOL_IPV6, IPV6_RECVERR)
    }

    /// Returns the control messages that go with a datagram.
    pub(super) fn ancillary(&self, about: &About) -> Vec<Ancillary> {
        let mut messages = self.options.stamping.messages(about.time_ns, false);
        let mut add = |level, kind, data: &[u8]| {
            messages.push(Ancillary { level, kind, data: data.to_vec() });
        };
        if let Some(size) = about.segment
            && self.knobs.takes_many.load(Ordering::Relaxed)
        {
            add(SOL_UDP, UDP_GRO, &i32::from(size).to_ne_bytes());
        }
        let index = about.interface.to_ne_bytes();
        if let IpAddr::V4(to) = about.to.ip {
            if self.ip.flag(SOL_IP, IP_PKTINFO) {
                let is_own = self.inet.is_local(about.to.ip);
                let any = std::net::Ipv4Addr::LOCALHOST;
                let own = match self.inet.source_for(about.from.ip) {
                    _ if is_own => to,
                    IpAddr::V4(own) => own,
                    IpAddr::V6(_) => any,
                };
                add(SOL_IP, IP_PKTINFO, &[index, own.octets(), to.octets()].concat());
            }
            if self.ip.flag(SOL_IP, IP_RECVTTL) {
                add(SOL_IP, IP_TTL, &about.ttl.to_ne_bytes());
            }
            if self.ip.flag(SOL_IP, IP_RECVTOS) {
                add(SOL_IP, IP_TOS, &[u8::try_from(about.tos).unwrap_or(0)]);
            }
        }
        if self.family() == Family::V6 {
            let is_v6 = about.to.ip.is_ipv6();
            if self.ip.flag(SOL_IPV6, IPV6_RECVPKTINFO) {
                let to = match about.to.ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                add(SOL_IPV6, IPV6_PKTINFO, &[&to.octets()[..], &index].concat());
            }
            if is_v6 && self.ip.flag(SOL_IPV6, IPV6_RECVHOPLIMIT) {
                add(SOL_IPV6, IPV6_HOPLIMIT, &about.ttl.to_ne_bytes());
            }
            if is_v6 && self.ip.flag(SOL_IPV6, IPV6_RECVTCLASS) {
                add(SOL_IPV6, IPV6_TCLASS, &about.tos.to_ne_bytes());
            }
        }
        messages
    }

    /// Receives a datagram that has come back, or the time at which one was sent (`MSG_ERRQUEUE`).
    pub(super) fn recv_complaint(&self, dst: &mut dyn IoSink) -> SysResult<Incoming> {
        let complaint = self.inbox.lock().take_returned().ok_or(Errno::EAGAIN)?;
        let n = queue::put(dst, &complaint.data)?;
        let is_v6 = self.family() == Family::V6;
        let errno = u32::try_from(complaint.errno.raw()).unwrap_or(0);
        // `struct sock_extended_err`: errno, origin, type, code; then the offender's address.
        let (level, kind, origin) = match complaint.to.ip {
            IpAddr::V4(_) => (SOL_IP, IP_RECVERR, [2, 3, 3, 0]),
            IpAddr::V6(_) => (SOL_IPV6, IPV6_RECVERR, [3, 1, 4, 0]),
        };
        let (level, kind) = if is_v6 { (SOL_IPV6, IPV6_RECVERR) } else { (level, kind) };
        let family = if is_v6 || complaint.to.ip.is_ipv6() { Family::V6 } else { Family::V4 };
        let offender = Endpoint { ip: complaint.offender, port: 0 }.encode(family);
        let mut ancillary = Vec::new();
        let (about, addr) = match complaint.stamp {
            Some(Stamp { time_ns, event, number }) => {
                ancillary = self.options.stamping.messages(time_ns, true);
                const ORIGIN_TIMESTAMPING: u8 = 4;
                let head = [&errno.to_ne_bytes()[..], &[ORIGIN_TIMESTAMPING, 0, 0, 0]].concat();
                let about = [&head[..], &event.to_ne_bytes(), &number.to_ne_bytes()].concat();
                // Only a frame tells a socket of IPv6 who has sent it.
                let is_known = is_v6 && !complaint.data.is_empty();
                let offender = if is_known { offender } else { vec![0; offender.len()] };
                ([about, offender].concat(), Vec::new())
            }
            None => {
                let about = [&errno.to_ne_bytes()[..], &origin, &[0; 8], &offender].concat();
                (about, complaint.to.encode(self.family()))
            }
        };
        ancillary.push(Ancillary { level, kind, data: about });
        Ok(Incoming {
            n,
            full: complaint.data.len(),
            addr,
            ancillary,
            flags: MsgFlags::ERRQUEUE,
            ..Incoming::default()
        })
    }
}
