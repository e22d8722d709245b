//! `sock_diag(7)`: the sockets there are, as `ss` asks for them.
//!
//! DEVIATION: a filter among the attributes of a request is not run (`ss` filters what it is told once
//! more).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use syscalls::abi::netlink::NLMSG_MIN_TYPE;
use syscalls::abi::sock_diag::{
    DCCPDIAG_GETSOCK, INET_DIAG_CONG, INET_DIAG_INFO, INET_DIAG_REQ_PROTOCOL, INET_DIAG_SHUTDOWN,
    INET_DIAG_SKMEMINFO, INET_DIAG_SKV6ONLY, INET_DIAG_TCLASS, INET_DIAG_TOS, InetDiagMsg,
    InetDiagReq, InetDiagReqV2, InetDiagSockid, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK,
    UDIAG_SHOW_NAME, UDIAG_SHOW_PEER, UDIAG_SHOW_RQLEN, UNIX_DIAG_NAME, UNIX_DIAG_PEER,
    UNIX_DIAG_RQLEN, UNIX_DIAG_SHUTDOWN, UnixDiagMsg, UnixDiagReq,
};
use syscalls::abi::socket::{
    AF_INET, AF_INET6, AF_MAX, AF_NETLINK, AF_PACKET, AF_UNIX, IP_TOS, IPPROTO_TCP, IPPROTO_UDP,
    IPPROTO_UDPLITE, IPV6_TCLASS, IPV6_V6ONLY, SOL_IP, SOL_IPV6, SOL_TCP, TCP_CONGESTION, TCP_INFO,
};
use syscalls::{Errno, SysResult};
use zerocopy::FromBytes;

use super::message::{Part, Request, attributes};
use crate::kernel::Kernel;
use crate::net::Socket;
use crate::net::inet::Inet;
use crate::net::inet::tcp::TcpSocket;
use crate::net::inet::udp::{UdpEntry, UdpSocket};

/// States as TCP numbers them.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
const LISTENING: u8 = 10;

/// A socket of the Internet families, of whatever protocol.
struct Found {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    state: u8,
    /// Bytes that wait to be taken and that have not arrived; connections that wait, and that may.
    queues: (usize, usize),
    uid: u32,
    ino: u64,
    /// What else there is to tell.
    socket: Arc<dyn Told>,
}

/// A socket that tells its options.
trait Told: Socket {
    /// Returns the bytes of an option.
    fn told(&self, level: i32, name: i32) -> Option<Vec<u8>>;

    /// Returns what there is to tell of the kind that an attribute is for.
    fn attribute(&self, kind: u16, (unread, unsent): (usize, usize)) -> Option<Vec<u8>> {
        let first = |level, name| Some(vec![*self.told(level, name)?.first()?]);
        match kind {
            INET_DIAG_INFO => self.told(SOL_TCP, TCP_INFO),
            INET_DIAG_CONG => {
                let name = self.told(SOL_TCP, TCP_CONGESTION)?;
                Some(name.split_inclusive(|byte| *byte == 0).next()?.to_vec())
            }
            INET_DIAG_TOS => first(SOL_IP, IP_TOS),
            INET_DIAG_TCLASS => first(SOL_IPV6, IPV6_TCLASS),
            INET_DIAG_SKV6ONLY => first(SOL_IPV6, IPV6_V6ONLY),
            INET_DIAG_SKMEMINFO => {
                let size = |of: &AtomicU32| of.load(Ordering::Relaxed);
                let options = self.options();
                let (receive, send) = (size(&options.receive_buffer), size(&options.send_buffer));
                let unsent = number(unsent);
                // `SK_MEMINFO_*`
                let numbers = [number(unread), receive, 0, send, 0, unsent, 0, 0, 0];
                Some(numbers.iter().flat_map(|number| number.to_ne_bytes()).collect())
            }
            _ => None,
        }
    }
}

impl Told for TcpSocket {
    fn told(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        self.get_option(level, name).ok()
    }
}

impl Told for UdpSocket {
    fn told(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        self.get_option(level, name).ok()
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
    /// The attributes that are asked for, a bit each.
    wanted: u8,
    is_dump: bool,
}

impl Ask {
    /// Returns whether an attribute is asked for.
    fn wants(&self, attribute: u16) -> bool {
        attribute > 0
            && self.wanted.checked_shr(u32::from(attribute) - 1).is_some_and(|bits| bits & 1 != 0)
    }
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
        wanted: head.idiag_ext,
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
        wanted: head.idiag_ext,
        is_dump: request.is_dump,
    };
    let mut parts = found(inet, &ask, false)?;
    parts.extend(found(inet, &ask, true)?);
    one_or_all(parts, request.is_dump)
}

fn found_tcp(socket: Arc<TcpSocket>) -> Option<Found> {
    let entry = socket.entry()?;
    let most = if entry.state == LISTENING { entry.backlog } else { entry.queues.0 };
    Some(Found {
        local: entry.local,
        remote: entry.remote,
        state: entry.state,
        queues: (entry.queues.1, most),
        uid: entry.uid,
        ino: entry.ino,
        socket,
    })
}

fn found_udp(socket: Arc<UdpSocket>) -> Option<Found> {
    let UdpEntry { local, remote, state, n_bytes, uid, ino, .. } = socket.entry()?;
    Some(Found { local, remote, state, queues: (n_bytes, 0), uid, ino, socket })
}

fn found(inet: &Inet, ask: &Ask, is_v6: bool) -> SysResult<Vec<Part>> {
    let found: Vec<Found> = match ask.protocol {
        IPPROTO_TCP => {
            let sockets = inet.tcp_sockets().into_iter();
            let of_family = sockets.filter(|socket| socket.is_v6() == is_v6);
            of_family.filter_map(found_tcp).collect()
        }
        protocol @ (IPPROTO_UDP | IPPROTO_UDPLITE) => {
            let is_lite = protocol == IPPROTO_UDPLITE;
            let sockets = if is_lite { inet.udplite_sockets() } else { inet.udp_sockets() };
            let of_family = sockets.into_iter().filter(|socket| socket.is_v6() == is_v6);
            of_family.filter_map(found_udp).collect()
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
        if !is_wanted {
            return None;
        }
        let mut part = Part::new(ask.kind, &message).attribute(INET_DIAG_SHUTDOWN, &[0]);
        let is_alone = is_v6 && matches!(found.state, LISTENING | CLOSED);
        let kinds = [
            INET_DIAG_TOS,
            INET_DIAG_TCLASS,
            INET_DIAG_SKV6ONLY,
            INET_DIAG_SKMEMINFO,
            INET_DIAG_INFO,
            INET_DIAG_CONG,
        ];
        for kind in kinds {
            let is_shown = match kind {
                INET_DIAG_SKV6ONLY => is_alone,
                INET_DIAG_TCLASS => is_v6 && ask.wants(kind),
                INET_DIAG_INFO | INET_DIAG_CONG => ask.protocol == IPPROTO_TCP && ask.wants(kind),
                _ => ask.wants(kind),
            };
            if is_shown && let Some(data) = found.socket.attribute(kind, found.queues) {
                part = part.attribute(kind, &data);
            }
        }
        Some(part)
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
