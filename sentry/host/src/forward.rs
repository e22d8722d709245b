//! Connections that come from outside the sandbox's own network stack: stream sockets of the host,
//! connected, and listening sockets of TCP that somebody else has bound.
//!
//! Not in [`crate::rules`]: only a sandbox with a network of its own has such sockets. They come from
//! outside; the sentry sends and receives over them, takes connections and ends them, and can do
//! nothing else: it neither binds nor connects.
//!
//! # Safety
//! Pointers and lengths come from live slices of the callers, or from structures on the stack.
#![expect(unsafe_code, reason = "host calls on descriptors and buffers")]

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use syscalls::{Errno, SysResult};

use crate::{Rule, last_errno};

const ANY_INT: u64 = 0xffff_ffff;
const SOL_SOCKET: u64 = 1;
const SO_ERROR: u64 = 4;
const SO_LINGER: u64 = 13;

/// The host calls of this module. `accept` and `send` are in the control server's list, `receive` in
/// that of packets.
pub fn rules() -> Vec<Rule> {
    vec![
        // `shutdown`
        Rule::any(libc::SYS_shutdown),
        // `take_error`
        Rule::when(libc::SYS_getsockopt, &[(1, ANY_INT, SOL_SOCKET), (2, ANY_INT, SO_ERROR)]),
        // `reset_on_close`
        Rule::when(libc::SYS_setsockopt, &[(1, ANY_INT, SOL_SOCKET), (2, ANY_INT, SO_LINGER)]),
    ]
}

fn done(result: i32) -> SysResult<()> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Takes a connection, with the peer's address, where it has one of the Internet.
///
/// # Errors
/// Those of `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> SysResult<(OwnedFd, Option<SocketAddr>)> {
    // SAFETY: `sockaddr_storage` is plain data; all zeroes is an empty one.
    let mut addr: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = libc::socklen_t::try_from(size_of_val(&addr)).map_err(|_| Errno::EINVAL)?;
    // Not the C library's, which tries `accept(2)` after an EINVAL.
    // SAFETY: address and length are live, and the length is that of the address.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_accept4,
            listener.as_raw_fd(),
            &raw mut addr,
            &raw mut len,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(last_errno)?;
    // SAFETY: a new descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((socket, internet_addr(&addr)))
}

fn internet_addr(addr: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let from = std::ptr::from_ref(addr);
    match i32::from(addr.ss_family) {
        libc::AF_INET => {
            // SAFETY: a `sockaddr_storage` is as large and as aligned as any address, and the family
            // says which it is.
            let addr = unsafe { &*from.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(addr.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let addr = unsafe { &*from.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(addr.sin6_port)))
        }
        _ => None,
    }
}

/// Sends what there is room for, without waiting; `flags` as `sendto(2)` takes them.
///
/// # Errors
/// Those of `sendto(2)`.
pub fn send(socket: BorrowedFd<'_>, data: &[u8], flags: i32) -> SysResult<usize> {
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the data are live and of the given length.
    let n = unsafe { libc::send(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) };
    usize::try_from(n).map_err(|_| last_errno())
}

/// Receives what is there, without waiting; `flags` as `recvmsg(2)` takes them. Returns how many
/// bytes, and the flags of the message.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> SysResult<(usize, i32)> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is the empty one, without room for descriptors.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    // SAFETY: header, vector and buffer are live and of the given lengths.
    let n =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_DONTWAIT) };
    Ok((usize::try_from(n).map_err(|_| last_errno())?, message.msg_flags))
}

/// Ends directions; `how` as `shutdown(2)` takes it.
///
/// # Errors
/// Those of `shutdown(2)`.
pub fn shutdown(socket: BorrowedFd<'_>, how: i32) -> SysResult<()> {
    // SAFETY: integers only.
    done(unsafe { libc::shutdown(socket.as_raw_fd(), how) })
}

/// Returns and clears the pending error.
pub fn take_error(socket: BorrowedFd<'_>) -> Option<Errno> {
    let mut error = 0_i32;
    let mut len: libc::socklen_t = 4;
    // SAFETY: four live bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        )
    };
    (result == 0 && error != 0).then(|| Errno::from_raw(error))
}

/// Makes the end of a socket one that the peer is told as a reset.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> SysResult<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = libc::socklen_t::try_from(size_of_val(&linger)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the structure is live and of the given length.
    done(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            len,
        )
    })
}
