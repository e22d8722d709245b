//! Sockets of the Internet families on the host, for `--network=host`.
//!
//! Not in [`crate::rules`]: a sandbox with a network of its own makes none of these calls. What can
//! be asked of the host is TCP and UDP with a list of options that need no privilege and load no code.
//!
//! # Safety
//! Pointers and lengths come from live slices of the callers, or from structures on the stack.
#![expect(unsafe_code, reason = "host calls on descriptors and buffers")]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use syscalls::{Errno, SysResult};

use crate::stream::FIONREAD;
use crate::{Rule, control, last_errno};

const INET: u64 = 2;
const INET6: u64 = 10;
const ANY_INT: u64 = 0xffff_ffff;

/// `SOCK_STREAM` and `SOCK_DGRAM`, each with `SOCK_NONBLOCK | SOCK_CLOEXEC`.
const STREAM: u64 = 0o2_004_001;
const DGRAM: u64 = 0o2_004_002;

/// The requests of [`ask`] besides `FIONREAD`, which is in the list of streams.
const TIOCOUTQ: u64 = 0x5411;
const SIOCATMARK: u64 = 0x8905;

const SOL_IP: u64 = 0;
const SOL_SOCKET: u64 = 1;
const SOL_TCP: u64 = 6;
const SOL_UDP: u64 = 17;
const SOL_IPV6: u64 = 41;

/// The options that can be set, as one rule each, and as a list for a check before the call.
macro_rules! settable {
    ($($level:ident: $($name:literal)*;)*) => {
        const SETTABLE: &[(u64, u64)] = &[$($(($level, $name),)*)*];
        const SET_RULES: &[Rule] = &[$($(
            Rule::when(libc::SYS_setsockopt, &[(1, ANY_INT, $level), (2, ANY_INT, $name)]),
        )*)*];
    };
}

settable! {
    // Addresses, buffers, keepalive, linger, time stamps, interface, pacing, marks of the CPU.
    SOL_SOCKET: 2 5 6 7 8 9 10 11 12 13 15 18 25 29 35 45 47 49 62;
    // TOS, TTL, control messages, path MTU, errors, freebind, late port, groups.
    SOL_IP: 1 2 6 7 8 10 11 12 13 15 20 21 24 32 33 34 35 36 49;
    // No delay, segment, cork, keepalive, SYNs, linger, deferral, window, acknowledgements,
    // congestion, user timeout, fast open, unsent, input size.
    SOL_TCP: 1 2 3 4 5 6 7 8 9 10 12 13 18 23 25 30 36;
    // Cork, checksums, segments.
    SOL_UDP: 1 101 102 103;
    // Hops, groups, path MTU, errors, family, control messages, fragments, class, preferences.
    SOL_IPV6: 16 17 18 19 20 21 23 24 25 26 49 51 60 62 66 67 70 72 78;
}

const OTHER_RULES: &[Rule] = &[
    // `socket`
    Rule::when(libc::SYS_socket, &[(0, ANY_INT, INET), (1, ANY_INT, STREAM), (2, ANY_INT, 0)]),
    Rule::when(libc::SYS_socket, &[(0, ANY_INT, INET), (1, ANY_INT, DGRAM), (2, ANY_INT, 0)]),
    Rule::when(libc::SYS_socket, &[(0, ANY_INT, INET6), (1, ANY_INT, STREAM), (2, ANY_INT, 0)]),
    Rule::when(libc::SYS_socket, &[(0, ANY_INT, INET6), (1, ANY_INT, DGRAM), (2, ANY_INT, 0)]),
    // `bind`, `listen`, `connect`, `shutdown`, `name`; `accept` is in the control server's list.
    Rule::any(libc::SYS_bind),
    Rule::any(libc::SYS_listen),
    Rule::any(libc::SYS_connect),
    Rule::any(libc::SYS_shutdown),
    Rule::any(libc::SYS_getsockname),
    Rule::any(libc::SYS_getpeername),
    // `send`; `receive` is in the list of packets.
    Rule::any(libc::SYS_sendmsg),
    // `option`
    Rule::when(libc::SYS_getsockopt, &[(1, ANY_INT, SOL_SOCKET)]),
    Rule::when(libc::SYS_getsockopt, &[(1, ANY_INT, SOL_IP)]),
    Rule::when(libc::SYS_getsockopt, &[(1, ANY_INT, SOL_TCP)]),
    Rule::when(libc::SYS_getsockopt, &[(1, ANY_INT, SOL_UDP)]),
    Rule::when(libc::SYS_getsockopt, &[(1, ANY_INT, SOL_IPV6)]),
    // `ask`
    Rule::when(libc::SYS_ioctl, &[(1, !0, TIOCOUTQ)]),
    Rule::when(libc::SYS_ioctl, &[(1, !0, SIOCATMARK)]),
];

/// Returns the host calls of this module.
pub fn rules() -> Vec<Rule> {
    [OTHER_RULES, SET_RULES].concat()
}

/// The most bytes of an address.
pub const MAX_ADDR: usize = 128;

/// Room for control messages, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

const CONTROL_SIZE: usize = 1024;

fn owned(fd: i32) -> SysResult<OwnedFd> {
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just returned this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn done(result: i32) -> SysResult<()> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn addr_len(addr: &[u8]) -> SysResult<libc::socklen_t> {
    if addr.len() > MAX_ADDR {
        return Err(Errno::EINVAL);
    }
    libc::socklen_t::try_from(addr.len()).map_err(|_| Errno::EINVAL)
}

/// Creates a socket that never blocks.
///
/// # Errors
/// Those of `socket(2)`.
pub fn socket(is_v6: bool, is_stream: bool) -> SysResult<OwnedFd> {
    let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = if is_stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
    // SAFETY: integers only.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })
}

/// Binds.
///
/// # Errors
/// Those of `bind(2)`.
pub fn bind(socket: BorrowedFd<'_>, addr: &[u8]) -> SysResult<()> {
    let len = addr_len(addr)?;
    // SAFETY: the address is live and of the given length.
    done(unsafe { libc::bind(socket.as_raw_fd(), addr.as_ptr().cast(), len) })
}

/// Connects, or starts to.
///
/// # Errors
/// Those of `connect(2)`.
pub fn connect(socket: BorrowedFd<'_>, addr: &[u8]) -> SysResult<()> {
    let len = addr_len(addr)?;
    // SAFETY: the address is live and of the given length.
    done(unsafe { libc::connect(socket.as_raw_fd(), addr.as_ptr().cast(), len) })
}

/// Listens.
///
/// # Errors
/// Those of `listen(2)`.
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> SysResult<()> {
    // SAFETY: integers only.
    done(unsafe { libc::listen(socket.as_raw_fd(), backlog) })
}

/// Takes a connection.
///
/// # Errors
/// Those of `accept4(2)`.
pub fn accept(socket: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    control::accept_with(socket, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
}

/// Ends directions; `how` as `shutdown(2)` takes it.
///
/// # Errors
/// Those of `shutdown(2)`.
pub fn shutdown(socket: BorrowedFd<'_>, how: i32) -> SysResult<()> {
    // SAFETY: integers only.
    done(unsafe { libc::shutdown(socket.as_raw_fd(), how) })
}

/// Returns the own address or the peer's.
///
/// # Errors
/// Those of `getsockname(2)` and `getpeername(2)`.
pub fn name(socket: BorrowedFd<'_>, is_peer: bool) -> SysResult<Vec<u8>> {
    let mut addr = [0_u8; MAX_ADDR];
    let mut len = addr_len(&addr)?;
    let (to, len_to) = (addr.as_mut_ptr().cast(), &raw mut len);
    // SAFETY: the buffer is live and of the given length.
    done(unsafe {
        if is_peer {
            libc::getpeername(socket.as_raw_fd(), to, len_to)
        } else {
            libc::getsockname(socket.as_raw_fd(), to, len_to)
        }
    })?;
    let n = usize::try_from(len).unwrap_or(0).min(MAX_ADDR);
    Ok(addr.get(..n).unwrap_or_default().to_vec())
}

/// Sets an option.
///
/// # Errors
/// Those of `setsockopt(2)`; `ENOPROTOOPT` for an option that is not in the list.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
    let key = (u64::from(level.cast_unsigned()), u64::from(name.cast_unsigned()));
    if !SETTABLE.contains(&key) {
        return Err(Errno::ENOPROTOOPT);
    }
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the value is live and of the given length.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) })
}

/// Returns the value of an option.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> SysResult<Vec<u8>> {
    let is_known = [SOL_IP, SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_IPV6]
        .contains(&u64::from(level.cast_unsigned()));
    if !is_known {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut value = [0_u8; 512];
    let mut len: libc::socklen_t = 512;
    // SAFETY: the buffer is live and of the given length.
    done(unsafe {
        let to = value.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut len)
    })?;
    let n = usize::try_from(len).unwrap_or(0).min(value.len());
    Ok(value.get(..n).unwrap_or_default().to_vec())
}

/// A question that `ioctl(2)` answers with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `FIONREAD`
    Pending,
    /// `TIOCOUTQ`
    Unsent,
    /// `SIOCATMARK`
    IsAtMark,
}

/// Asks a question.
///
/// # Errors
/// Those of `ioctl(2)`.
pub fn ask(socket: BorrowedFd<'_>, question: Question) -> SysResult<i32> {
    let request = match question {
        Question::Pending => FIONREAD,
        Question::Unsent => TIOCOUTQ,
        Question::IsAtMark => SIOCATMARK,
    };
    let request = libc::c_int::try_from(request).map_err(|_| Errno::EINVAL)?;
    let mut answer = 0_i32;
    // SAFETY: each request stores one integer.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut answer) })?;
    Ok(answer)
}

/// Sends without waiting; `control` is what goes beside the data, as the kernel takes it.
///
/// # Errors
/// Those of `sendmsg(2)`.
pub fn send(
    socket: BorrowedFd<'_>,
    data: &[u8],
    addr: Option<&[u8]>,
    control: &[u8],
    flags: i32,
) -> SysResult<usize> {
    let mut room = Control([0; CONTROL_SIZE]);
    room.0.get_mut(..control.len()).ok_or(Errno::ENOBUFS)?.copy_from_slice(control);
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is the empty one.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if let Some(addr) = addr {
        message.msg_namelen = addr_len(addr)?;
        message.msg_name = addr.as_ptr().cast_mut().cast();
    }
    if !control.is_empty() {
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = control.len().try_into().map_err(|_| Errno::ENOBUFS)?;
    }
    let flags = flags | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: header, vector, data, address and control buffer are live and of the given lengths;
    // the call writes to none of them.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(n).map_err(|_| last_errno())
}

/// What came of a receive.
pub struct Received {
    /// What `recvmsg(2)` returned.
    pub n: usize,
    /// The sender's address.
    pub addr: Vec<u8>,
    /// Control messages as the kernel stores them.
    pub control: Vec<u8>,
    /// `msg_flags`
    pub flags: i32,
}

/// Receives without waiting.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> SysResult<Received> {
    let mut addr = [0_u8; MAX_ADDR];
    let mut room = Control([0; CONTROL_SIZE]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is the empty one.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_name = addr.as_mut_ptr().cast();
    message.msg_namelen = addr_len(&addr)?;
    message.msg_control = room.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_SIZE.try_into().map_err(|_| Errno::ENOBUFS)?;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: header, vector, buffer, address and control buffer are live and of the given lengths.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let n = usize::try_from(n).map_err(|_| last_errno())?;
    let n_addr = usize::try_from(message.msg_namelen).unwrap_or(0);
    let n_control = usize::try_from(message.msg_controllen).unwrap_or(0);
    Ok(Received {
        n,
        addr: addr.get(..n_addr.min(MAX_ADDR)).unwrap_or_default().to_vec(),
        control: room.0.get(..n_control.min(CONTROL_SIZE)).unwrap_or_default().to_vec(),
        flags: message.msg_flags,
    })
}

/// Makes a dump of the routing family of netlink; before the filter is installed. Returns the
/// messages, one behind the other.
///
/// # Errors
/// Those of the host.
pub fn dump_netlink(request: &[u8]) -> SysResult<Vec<u8>> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: integers only.
    let socket = owned(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
    // SAFETY: the request is live and of the given length.
    let n = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if n < 0 {
        return Err(last_errno());
    }
    let mut messages = Vec::new();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        // SAFETY: the buffer is live and of the given length.
        let n =
            unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let n = usize::try_from(n).map_err(|_| last_errno())?;
        let datagram = buffer.get(..n).unwrap_or_default();
        messages.extend_from_slice(datagram);
        // `NLMSG_DONE` and `NLMSG_ERROR` end it; the last message of a datagram may be either.
        let mut rest = datagram;
        while let Some(header) = rest.first_chunk::<8>() {
            let [a, b, c, d, e, f, ..] = *header;
            let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(0);
            if matches!(u16::from_ne_bytes([e, f]), 2 | 3) {
                return Ok(messages);
            }
            rest = rest.get(len.max(16).next_multiple_of(4)..).unwrap_or_default();
        }
        if n == 0 {
            return Ok(messages);
        }
    }
}
