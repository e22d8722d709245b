//! Unix sockets of the host: `Connect`, `Bind`. Both need the mount's permission.

use gofer_wire::request::Ownership;
use gofer_wire::{Attr, BindKind, Fid, Name};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use syscalls::{Errno, SysResult};

use crate::attr::errno;
use crate::ops;
use crate::reopen::{FdPath, Reopener};
use crate::session::{Outcome, Session};

fn new_socket(kind: BindKind) -> SysResult<std::os::fd::OwnedFd> {
    let kind = match kind {
        BindKind::Stream => SocketType::STREAM,
        BindKind::Datagram => SocketType::DGRAM,
        BindKind::SeqPacket => SocketType::SEQPACKET,
    };
    // Not blocking: a full queue of a listener must not stop the gofer.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(errno)
}

/// Donates a socket that is connected to the one that the fid names.
///
/// # Errors
/// `ECONNREFUSED` where the mount does not permit it, or nobody listens; `EAGAIN` where the
/// listener's queue is full.
pub(crate) fn connect(session: &Session, fid: Fid, kind: BindKind) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    if node.file_type != Attr::SOCKET || !session.options.connect_unix_sockets {
        return Err(Errno::ECONNREFUSED);
    }
    let address = SocketAddrUnix::new(FdPath::new(&node.fd).as_str()).map_err(errno)?;
    let socket = new_socket(kind)?;
    net::connect(&socket, &address).map_err(errno)?;
    Ok(Outcome::Descriptors(vec![socket]))
}

/// Creates a socket with a name, and donates it bound.
///
/// # Errors
/// `EPERM` where the mount does not permit it; `EINVAL` for a name that does not fit the address.
pub(crate) fn bind(
    session: &mut Session,
    reopener: &Reopener,
    dir: Fid,
    name: Name<'_>,
    ownership: &Ownership,
    kind: BindKind,
) -> SysResult<Outcome> {
    if !session.options.bind_unix_sockets {
        return Err(Errno::EPERM);
    }
    let parent = session.fids.directory(dir)?;
    let address =
        SocketAddrUnix::new(FdPath::child(&parent.fd, name)).map_err(|_| Errno::EINVAL)?;
    let socket = new_socket(kind)?;
    ops::attr::with_umask(ownership, || net::bind(&socket, &address)).map_err(errno)?;
    match ops::name::register(session, reopener, dir, name, Attr::SOCKET, ownership)? {
        Outcome::Node(node, _) => Ok(Outcome::Node(node, Some(socket))),
        other => Ok(other),
    }
}
