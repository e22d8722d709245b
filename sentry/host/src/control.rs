//! Host calls of the control server: its listening socket, its connections, its event descriptor.
//!
//! # Safety
//! Pointers and lengths come from live slices of the callers.
#![expect(unsafe_code, reason = "host calls on descriptors and buffers")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use syscalls::{Errno, SysResult};

use crate::Rule;

pub(crate) const RULES: &[Rule] = &[
    // `accept`
    Rule::any(libc::SYS_accept4),
    // `receive` is a `recvmsg`, which the packets' list has.
    // `send`: not to connect a socket of TCP (`MSG_FASTOPEN`), such as `forward` may have been given.
    Rule::when(libc::SYS_sendto, &[(3, FASTOPEN, 0)]),
    // `wait_readable`
    Rule::any(libc::SYS_poll),
    // `event`; `event_clear` and `event_notify` are a `read` and a `write`, which are in other lists.
    Rule::any(libc::SYS_eventfd2),
];

/// `MSG_FASTOPEN`
const FASTOPEN: u64 = 0x2000_0000;

/// Takes the next connection of a listening socket.
///
/// # Errors
/// Those of `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    accept_with(listener, libc::SOCK_CLOEXEC)
}

/// Takes a connection; `flags` as `accept4(2)` takes them.
pub(crate) fn accept_with(listener: BorrowedFd<'_>, flags: i32) -> SysResult<OwnedFd> {
    // Not the C library's, which tries `accept(2)` after an EINVAL.
    // SAFETY: null for the address and its length is allowed.
    let fd = unsafe { libc::syscall(libc::SYS_accept4, listener.as_raw_fd(), 0, 0, flags) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(crate::last_errno)?;
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives what has arrived, without waiting, with the descriptors that came with it; empty at the
/// end of the stream.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
) -> SysResult<(&'a [u8], Vec<OwnedFd>)> {
    let (n, descriptors) = crate::packet::receive_some(socket, buffer)?;
    Ok((buffer.get(..n).ok_or(Errno::EIO)?, descriptors))
}

/// Sends all of `message` or fails: a client that does not read is not waited for.
///
/// # Errors
/// Those of `sendto(2)`; `EAGAIN` where the socket has no room.
pub fn send(socket: BorrowedFd<'_>, message: &[u8]) -> SysResult<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the message is live and of the given length.
    let n =
        unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), flags) };
    match usize::try_from(n) {
        Ok(n) if n == message.len() => Ok(()),
        Ok(_) => Err(Errno::EAGAIN),
        Err(_) => Err(crate::last_errno()),
    }
}

/// Waits until a descriptor is readable or at its end; returns for each whether it is.
///
/// # Errors
/// Those of `poll(2)`.
pub fn wait_readable(fds: &[BorrowedFd<'_>]) -> SysResult<Vec<bool>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let count = libc::nfds_t::try_from(polled.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `polled` has `count` entries.
    if unsafe { libc::poll(polled.as_mut_ptr(), count, -1) } < 0 {
        return Err(crate::last_errno());
    }
    Ok(polled.iter().map(|p| p.revents != 0).collect())
}

/// Creates an event descriptor.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn event() -> SysResult<OwnedFd> {
    // SAFETY: two integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(crate::last_errno());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an event descriptor readable.
pub fn event_notify(event: BorrowedFd<'_>) {
    let one = 1_u64;
    // SAFETY: eight live bytes. The only failure is a counter at its limit, and then it is readable.
    unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Makes an event descriptor unreadable again.
pub fn event_clear(event: BorrowedFd<'_>) {
    let mut count = 0_u64;
    // SAFETY: eight live bytes. The only failure is a counter of zero, which is what is wanted.
    unsafe { libc::read(event.as_raw_fd(), (&raw mut count).cast(), 8) };
}
