//! Making, naming and connecting sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::CAP_NET_RAW;
use syscalls::abi::landlock::AccessNet;
use syscalls::abi::socket::{
    AF_INET, AF_INET6, AF_MAX, AF_NETLINK, AF_PACKET, AF_UNIX, SHUT_RD, SHUT_RDWR, SHUT_WR,
    SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, SOCK_TYPE_MASK, SOCKADDR_STORAGE_SIZE,
    SockFlags,
};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::fd::install;
use crate::landlock;
use crate::net::inet::{self, Family};
use crate::net::unix::{Kind, UnixSocket};
use crate::net::{Shutdown, Socket, SocketFile, host, netlink, packet};
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::{CurrentTask, HandlerResult, Restart};
use crate::vfs::OpenFile;
use crate::vfs::file::downcast;

/// A socket's descriptor: the description and the socket.
pub(super) struct Opened {
    pub(super) open: Arc<OpenFile>,
    pub(super) socket: Arc<dyn Socket>,
}

/// Finds a socket.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`.
pub(super) fn lookup(task: &CurrentTask, sockfd: Fd) -> SysResult<Opened> {
    let open = task.file(sockfd.0)?;
    let file = downcast::<SocketFile>(&open.file).ok_or(Errno::ENOTSOCK)?;
    Ok(Opened { open, socket: file.socket.clone() })
}

/// Reads an address.
///
/// # Errors
/// `EINVAL` for a length that none has; `EFAULT`.
pub(super) fn read_addr(task: &CurrentTask, addr: UserAddr, len: i32) -> SysResult<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > SOCKADDR_STORAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len];
    task.read_bytes(addr, &mut bytes)?;
    Ok(bytes)
}

/// Stores an address as far as there is room, and its full length.
///
/// # Errors
/// `EINVAL` for a negative room; `EFAULT`.
pub(super) fn write_addr(
    task: &CurrentTask,
    bytes: &[u8],
    addr: UserAddr,
    len: UserPtr<i32>,
) -> SysResult<()> {
    let room = usize::try_from(task.read_obj(len)?).map_err(|_| Errno::EINVAL)?;
    let n = room.min(bytes.len());
    task.write_bytes(addr, bytes.get(..n).unwrap_or_default())?;
    task.write_obj(len, &i32::try_from(bytes.len()).unwrap_or(0))
}

/// Returns the deadline of a timeout option, and what a signal does to a call that has one.
pub(super) fn deadline(task: &CurrentTask, timeout_ns: u64) -> (Option<u64>, Restart) {
    if timeout_ns == 0 {
        return (None, Restart::Sys);
    }
    let now_ns = task.kernel.clock.monotonic_ns();
    // With a timeout the call fails with EINTR, handler or not (`signal(7)`); this comes nearest.
    (Some(now_ns.saturating_add(timeout_ns)), Restart::NoHand)
}

fn kind_and_flags(kind: i32) -> SysResult<(i32, SockFlags)> {
    let flags = SockFlags::from_bits_retain((kind & !SOCK_TYPE_MASK).cast_unsigned());
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL);
    }
    Ok((kind & SOCK_TYPE_MASK, flags))
}

fn unix_kind(kind: i32, protocol: i32) -> SysResult<Kind> {
    if protocol != 0 && protocol != AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind {
        SOCK_STREAM => Ok(Kind::Stream),
        // BSD's raw unix sockets.
        SOCK_DGRAM | SOCK_RAW => Ok(Kind::Datagram),
        SOCK_SEQPACKET => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Creates a socket of any family.
fn create(task: &CurrentTask, domain: i32, kind: i32, protocol: i32) -> SysResult<Arc<dyn Socket>> {
    match domain {
        AF_UNIX => {
            let kind = unix_kind(kind, protocol)?;
            let socket = UnixSocket::new(&task.kernel, task.inet().id(), kind);
            if let Some(domain) = &task.creds().landlock {
                let _ = socket.domain.set(domain.clone());
            }
            Ok(socket)
        }
        AF_INET => create_inet(task, Family::V4, kind, protocol),
        AF_INET6 => create_inet(task, Family::V6, kind, protocol),
        AF_NETLINK => netlink::create(task, kind, protocol),
        // The host's packets are not shown.
        AF_PACKET if task.kernel.host_network.is_some() && !task.inet().is_isolated() => {
            let may = task.is_net_capable(CAP_NET_RAW);
            Err(if may { Errno::EAFNOSUPPORT } else { Errno::EPERM })
        }
        AF_PACKET => packet::create(task, kind, protocol),
        // Other families are not built in.
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// Creates a socket of the Internet families: the sentry's own, or the host's.
fn create_inet(
    task: &CurrentTask,
    family: Family,
    kind: i32,
    protocol: i32,
) -> SysResult<Arc<dyn Socket>> {
    match &task.kernel.host_network {
        Some(network) if !task.inet().is_isolated() => {
            host::create(&network.poller, family, kind, protocol)
        }
        _ => inet::create(task, family, kind, protocol),
    }
}

/// Checks family and type.
fn check_kind(domain: i32, kind: i32) -> SysResult<()> {
    const SOCK_MAX: i32 = 11;
    if !(0..AF_MAX).contains(&domain) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if (0..SOCK_MAX).contains(&kind) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn open(task: &CurrentTask, socket: Arc<dyn Socket>, flags: SockFlags) -> SysResult<Fd> {
    let kept = (flags & SockFlags::NONBLOCK).bits() | 2;
    let file = OpenFile::new(SocketFile::new(task, socket), None, kept);
    install(task, file, flags.contains(SockFlags::CLOEXEC))
}

/// Implements `socket(2)`.
///
/// <https://man7.org/linux/man-pages/man2/socket.2.html>
pub(super) fn sys_socket(
    task: &CurrentTask,
    domain: i32,
    kind: i32,
    protocol: i32,
) -> HandlerResult<Fd> {
    let (kind, flags) = kind_and_flags(kind)?;
    check_kind(domain, kind)?;
    Ok(open(task, create(task, domain, kind, protocol)?, flags)?)
}

/// Implements `socketpair(2)`.
///
/// <https://man7.org/linux/man-pages/man2/socketpair.2.html>
pub(super) fn sys_socketpair(
    task: &CurrentTask,
    domain: i32,
    kind: i32,
    protocol: i32,
    sv: UserPtr<[i32; 2]>,
) -> HandlerResult<()> {
    let (kind, flags) = kind_and_flags(kind)?;
    check_kind(domain, kind)?;
    if domain != AF_UNIX {
        // Sockets of other families exist, if at all, one by one.
        create(task, domain, kind, protocol)?.close();
        return Err(Errno::EOPNOTSUPP.into());
    }
    let kind = unix_kind(kind, protocol)?;
    let (one, other) = UnixSocket::pair(task, kind);
    let files = task.files();
    let first = match open(task, one, flags) {
        Ok(fd) => fd,
        Err(errno) => {
            other.close();
            return Err(errno.into());
        }
    };
    let result = open(task, other, flags).and_then(|second| {
        task.write_obj(sv, &[first.0, second.0]).inspect_err(|_| {
            drop(files.remove(second.0));
        })
    });
    if result.is_err() {
        drop(files.remove(first.0));
    }
    Ok(result?)
}

/// Implements `bind(2)`.
///
/// <https://man7.org/linux/man-pages/man2/bind.2.html>
pub(super) fn sys_bind(
    task: &CurrentTask,
    sockfd: Fd,
    addr: UserAddr,
    addrlen: i32,
) -> HandlerResult<()> {
    let opened = lookup(task, sockfd)?;
    let addr = read_addr(task, addr, addrlen)?;
    landlock::check_port(task, opened.socket.identity(), &addr, AccessNet::BIND_TCP)?;
    Ok(opened.socket.bind(task, &addr)?)
}

/// Implements `listen(2)`.
pub(super) fn sys_listen(task: &CurrentTask, sockfd: Fd, backlog: i32) -> HandlerResult<()> {
    Ok(lookup(task, sockfd)?.socket.listen(task, backlog)?)
}

/// Implements `accept(2)`.
pub(super) fn sys_accept(
    task: &CurrentTask,
    sockfd: Fd,
    addr: UserAddr,
    addrlen: UserPtr<i32>,
) -> HandlerResult<Fd> {
    sys_accept4(task, sockfd, addr, addrlen, SockFlags::empty())
}

/// Implements `accept4(2)`.
///
/// <https://man7.org/linux/man-pages/man2/accept.2.html>
pub(super) fn sys_accept4(
    task: &CurrentTask,
    sockfd: Fd,
    addr: UserAddr,
    addrlen: UserPtr<i32>,
    flags: SockFlags,
) -> HandlerResult<Fd> {
    if flags.has_unknown_bits() {
        return Err(Errno::EINVAL.into());
    }
    let Opened { open: file, socket } = lookup(task, sockfd)?;
    let may_wait = !file.is_nonblocking();
    let attempt = || match socket.accept(task) {
        Err(Errno::EAGAIN) if may_wait => Ok(None),
        result => result.map(Some),
    };
    let timeout_ns = socket.options().receive_timeout_ns.load(Ordering::Relaxed);
    let (deadline_ns, restart) = deadline(task, timeout_ns);
    let register = |waiter: &_| socket.register(waiter, Events::READABLE, 0);
    let accepted = match task.wait_for(deadline_ns, restart, register, attempt)? {
        Wait::Ready(accepted) => accepted,
        Wait::TimedOut => return Err(Errno::EAGAIN.into()),
    };
    let peer = accepted.accepted_addr();
    let fd = match open(task, accepted.clone(), flags) {
        Ok(fd) => fd,
        Err(errno) => {
            accepted.close();
            return Err(errno.into());
        }
    };
    if !addr.is_null()
        && let Err(errno) = write_addr(task, &peer, addr, addrlen)
    {
        drop(task.files().remove(fd.0));
        return Err(errno.into());
    }
    Ok(fd)
}

/// Implements `connect(2)`.
///
/// <https://man7.org/linux/man-pages/man2/connect.2.html>
pub(super) fn sys_connect(
    task: &CurrentTask,
    sockfd: Fd,
    addr: UserAddr,
    addrlen: i32,
) -> HandlerResult<()> {
    let Opened { open, socket } = lookup(task, sockfd)?;
    let addr = read_addr(task, addr, addrlen)?;
    landlock::check_port(task, socket.identity(), &addr, AccessNet::CONNECT_TCP)?;
    let may_wait = !open.is_nonblocking();
    let attempt = || match socket.connect(task, &addr, may_wait) {
        Err(Errno::EAGAIN) if may_wait => Ok(None),
        result => result.map(Some),
    };
    let timeout_ns = socket.options().send_timeout_ns.load(Ordering::Relaxed);
    let (deadline_ns, restart) = deadline(task, timeout_ns);
    let register = |waiter: &_| socket.register(waiter, Events::WRITABLE, 0);
    match task.wait_for(deadline_ns, restart, register, attempt)? {
        Wait::Ready(()) => Ok(()),
        Wait::TimedOut if socket.identity().0 == AF_UNIX => Err(Errno::EAGAIN.into()),
        Wait::TimedOut => Err(Errno::EINPROGRESS.into()),
    }
}

/// Implements `shutdown(2)`.
pub(super) fn sys_shutdown(task: &CurrentTask, sockfd: Fd, how: i32) -> HandlerResult<()> {
    let opened = lookup(task, sockfd)?;
    let how = match how {
        SHUT_RD => Shutdown { receive: true, send: false },
        SHUT_WR => Shutdown { receive: false, send: true },
        SHUT_RDWR => Shutdown { receive: true, send: true },
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(opened.socket.shutdown(how)?)
}

/// Implements `getsockname(2)`.
pub(super) fn sys_getsockname(
    task: &CurrentTask,
    sockfd: Fd,
    addr: UserAddr,
    addrlen: UserPtr<i32>,
) -> HandlerResult<()> {
    let name = lookup(task, sockfd)?.socket.local_addr();
    Ok(write_addr(task, &name, addr, addrlen)?)
}

/// Implements `getpeername(2)`.
pub(super) fn sys_getpeername(
    task: &CurrentTask,
    sockfd: Fd,
    addr: UserAddr,
    addrlen: UserPtr<i32>,
) -> HandlerResult<()> {
    let name = lookup(task, sockfd)?.socket.peer_addr()?;
    Ok(write_addr(task, &name, addr, addrlen)?)
}
