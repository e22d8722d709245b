//! `sock_diag(7)`: the sockets there are, as `ss` asks for them.
//!
//! DEVIATION: attributes are those that say what a socket is; none says how TCP fares, and a filter among
//! the attributes of a request is not run (`ss` filters what it is told once more).

use std::net::IpAddr;

use syscalls::abi::netlink::NLMSG_MIN_TYPE;
use syscalls::abi::sock_diag::{
    DCCPDIAG_GETSOCK, INET_DIAG_REQ_PROTOCOL, INET_DIAG_SHUTDOWN, InetDiagMsg, InetDiagReq,
    InetDiagReqV2, InetDiagSockid, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK,
    UDIAG_SHOW_NAME, UDIAG_SHOW_PEER, UDIAG_SHOW_RQLEN, UNIX_DIAG_NAME, UNIX_DIAG_PEER,
    UNIX_DIAG_RQLEN, UNIX_DIAG_SHUTDOWN, UnixDiagMsg, UnixDiagReq,
};
use syscalls::abi::socket::{
    AF_INET, AF_INET6, AF_MAX, AF_NETLINK, AF_PACKET, AF_UNIX, IPPROTO_TCP, IPPROTO_UDP,
    IPPROTO_UDPLITE,
};
use syscalls::{Errno, SysResult};
use zerocopy::FromBytes;

use super::message::{Part, Request, attributes};
use crate::kernel::Kernel;
use crate::net::inet::Inet;
use crate::net::inet::udp::UdpEntry;

/// States as TCP numbers them.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
const LISTENING: u8 = 10;

/// A socket of the Internet families, of whatever protocol.
struct Found {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    state: u8,
    /// Bytes or connections that wait to be taken, and bytes that have not arrived.
    queues: (usize, usize),
    uid: u32,
    ino: u64,
}

impl From<UdpEntry> for Found {
    fn from(entry: UdpEntry) -> Self {
        let UdpEntry { local, remote, state, n_bytes, uid, ino, .. } = entry;
        Self { local, remote, state, queues: (n_bytes, 0), uid, ino }
    }
}

/// Serves a request.
///
/// # Errors
/// `EINVAL`, `ENOENT`, `EOPNOTSUPP`.
pub(super) fn serve(kernel: &Kernel, inet: &Inet, request: &Request<'_>) -> SysResult<Vec<Part>> {
    let is_of_host = kernel.host_network.is_some() && !inet.is_isolated();
    match request.kind {
        SOCK_DIAG_BY_FAMILY => {}
        TCPDIAG_GETSOCK if !is_of_host => return tcp_of_both(inet, request),
        // There is no DCCP.
        TCPDIAG_GETSOCK | DCCPDIAG_GETSOCK => return Err(Errno::ENOENT),
        SOCK_DESTROY => return Err(Errno::EOPNOTSUPP),
        kind if kind >= NLMSG_MIN_TYPE => return Err(Errno::EINVAL),
        _ => return Ok(Vec::new()),
    }
    match i32::from(request.payload.first().copied().ok_or(Errno::EINVAL)?) {
        // Those of the host are listed by its own files in /proc/net, which `ss` reads then.
        AF_INET | AF_INET6 if is_of_host => Err(Errno::ENOENT),
        AF_INET => inet_by_family(inet, request, false),
        AF_INET6 => inet_by_family(inet, request, true),
        AF_UNIX => unix(kernel, inet.id(), request),
        // DEVIATION: their sockets are not listed.
        AF_NETLINK | AF_PACKET if request.is_dump => Ok(Vec::new()),
        family if family >= AF_MAX => Err(Errno::EINVAL),
        _ => Err(Errno::ENOENT),
    }
}

fn wants(states: u32, state: u8) -> bool {
    1_u32.checked_shl(state.into()).is_some_and(|bit| states & bit != 0)
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// Returns an address as a message has it.
fn encode(ip: IpAddr, is_v6: bool) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        // The wildcard address of a socket of IPv6 stands for both.
        IpAddr::V4(ip) if is_v6 && ip.is_unspecified() => [0; 16],
        IpAddr::V4(ip) if is_v6 => ip.to_ipv6_mapped().octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            if let Some(first) = bytes.first_chunk_mut::<4>() {
                *first = ip.octets();
            }
            bytes
        }
    }
}

/// Which sockets of the Internet families are asked for.
struct Ask {
    kind: u16,
    protocol: i32,
    states: u32,
    id: InetDiagSockid,
    is_dump: bool,
}

fn inet_by_family(inet: &Inet, request: &Request<'_>, is_v6: bool) -> SysResult<Vec<Part>> {
    let (head, _) = InetDiagReqV2::read_from_prefix(request.payload).map_err(|_| Errno::EINVAL)?;
    // A protocol with a number above 255 stands in an attribute.
    let protocol = attributes(request.payload, size_of::<InetDiagReqV2>())
        .find(|(kind, _)| *kind == INET_DIAG_REQ_PROTOCOL)
        .and_then(|(_, number)| number.first_chunk::<4>())
        .map_or_else(|| head.sdiag_protocol.into(), |number| i32::from_ne_bytes(*number));
    let ask = Ask {
        kind: request.kind,
        protocol,
        states: head.idiag_states,
        id: head.id,
        is_dump: request.is_dump,
    };
    one_or_all(found(inet, &ask, is_v6)?, request.is_dump)
}

/// Serves the older request, which is for TCP and for both families.
fn tcp_of_both(inet: &Inet, request: &Request<'_>) -> SysResult<Vec<Part>> {
    let (head, _) = InetDiagReq::read_from_prefix(request.payload).map_err(|_| Errno::EINVAL)?;
    let ask = Ask {
        kind: request.kind,
        protocol: IPPROTO_TCP,
        states: head.idiag_states,
        id: head.id,
        is_dump: request.is_dump,
    };
    let mut parts = found(inet, &ask, false)?;
    parts.extend(found(inet, &ask, true)?);
    one_or_all(parts, request.is_dump)
}

fn found(inet: &Inet, ask: &Ask, is_v6: bool) -> SysResult<Vec<Part>> {
    let found: Vec<Found> = match ask.protocol {
        IPPROTO_TCP => {
            let sockets = inet.tcp_sockets();
            let sockets = sockets.iter().filter(|socket| socket.is_v6() == is_v6);
            let entries = sockets.filter_map(|socket| socket.entry());
            entries
                .map(|entry| Found {
                    local: entry.local,
                    remote: entry.remote,
                    state: entry.state,
                    queues: (entry.queues.1, entry.queues.0),
                    uid: entry.uid,
                    ino: entry.ino,
                })
                .collect()
        }
        protocol @ (IPPROTO_UDP | IPPROTO_UDPLITE) => {
            let is_lite = protocol == IPPROTO_UDPLITE;
            let sockets = if is_lite { inet.udplite_sockets() } else { inet.udp_sockets() };
            let sockets = sockets.iter().filter(|socket| socket.is_v6() == is_v6);
            sockets.filter_map(|socket| socket.entry()).map(Found::from).collect()
        }
        _ => return Err(Errno::ENOENT),
    };
    let parts = found.into_iter().filter_map(|found| {
        let id = InetDiagSockid {
            idiag_sport: found.local.1.to_be_bytes(),
            idiag_dport: found.remote.1.to_be_bytes(),
            idiag_src: encode(found.local.0, is_v6),
            idiag_dst: encode(found.remote.0, is_v6),
            idiag_if: 0,
            idiag_cookie: cookie(found.ino),
        };
        let is_wanted = if ask.is_dump {
            let port = |given: [u8; 2], own: [u8; 2]| given == [0; 2] || given == own;
            wants(ask.states, found.state)
                && port(ask.id.idiag_sport, id.idiag_sport)
                && port(ask.id.idiag_dport, id.idiag_dport)
        } else {
            is_same(&ask.id, &id)
        };
        let message = InetDiagMsg {
            idiag_family: u8::try_from(if is_v6 { AF_INET6 } else { AF_INET }).unwrap_or(0),
            idiag_state: found.state,
            id,
            idiag_rqueue: number(found.queues.0),
            idiag_wqueue: number(found.queues.1),
            idiag_uid: found.uid,
            idiag_inode: u32::try_from(found.ino).unwrap_or(0),
            ..InetDiagMsg::default()
        };
        let part = Part::new(ask.kind, &message).attribute(INET_DIAG_SHUTDOWN, &[0]);
        is_wanted.then_some(part)
    });
    Ok(parts.collect())
}

/// Returns whether a request for one socket means this one.
fn is_same(asked: &InetDiagSockid, own: &InetDiagSockid) -> bool {
    const NO_COOKIE: [u32; 2] = [u32::MAX; 2];
    let names = (asked.idiag_sport, asked.idiag_src) == (own.idiag_sport, own.idiag_src)
        && (asked.idiag_dport, asked.idiag_dst) == (own.idiag_dport, own.idiag_dst);
    names && (asked.idiag_cookie == NO_COOKIE || asked.idiag_cookie == own.idiag_cookie)
}

fn one_or_all(mut parts: Vec<Part>, is_dump: bool) -> SysResult<Vec<Part>> {
    if !is_dump {
        if parts.is_empty() {
            return Err(Errno::ENOENT);
        }
        parts.truncate(1);
    }
    Ok(parts)
}

/// Returns what tells a socket from others for ever: here the number of its inode.
fn cookie(ino: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = ino.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn unix(kernel: &Kernel, net: u64, request: &Request<'_>) -> SysResult<Vec<Part>> {
    let (head, _) = UnixDiagReq::read_from_prefix(request.payload).map_err(|_| Errno::EINVAL)?;
    if !request.is_dump && head.udiag_ino == 0 {
        return Err(Errno::EINVAL);
    }
    let parts = kernel.unix_sockets.entries(net).into_iter().filter_map(|entry| {
        let ino = u32::try_from(entry.ino).unwrap_or(0);
        let state = match (entry.is_listening, entry.is_connected) {
            (true, _) => LISTENING,
            (_, true) => ESTABLISHED,
            _ => CLOSED,
        };
        let is_wanted =
            if request.is_dump { wants(head.udiag_states, state) } else { ino == head.udiag_ino };
        if !is_wanted {
            return None;
        }
        let message = UnixDiagMsg {
            udiag_family: head.sdiag_family,
            udiag_type: u8::try_from(entry.kind).unwrap_or(0),
            udiag_state: state,
            pad: 0,
            udiag_ino: ino,
            udiag_cookie: cookie(entry.ino),
        };
        let mut part = Part::new(SOCK_DIAG_BY_FAMILY, &message);
        let shows = |what| head.udiag_show & what != 0;
        if shows(UDIAG_SHOW_NAME) && !entry.name.is_empty() {
            part = part.attribute(UNIX_DIAG_NAME, &entry.name);
        }
        if shows(UDIAG_SHOW_PEER)
            && let Some(peer) = entry.peer
        {
            part = part.number(UNIX_DIAG_PEER, u32::try_from(peer).unwrap_or(0));
        }
        if shows(UDIAG_SHOW_RQLEN) {
            let lengths = [entry.queues.0, entry.queues.1].map(|n| number(n).to_ne_bytes());
            part = part.attribute(UNIX_DIAG_RQLEN, lengths.as_flattened());
        }
        Some(part.attribute(UNIX_DIAG_SHUTDOWN, &[entry.shutdown]))
    });
    one_or_all(parts.collect(), request.is_dump)
}
