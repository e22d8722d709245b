//! Host calls of the gofer's clients: packets with descriptors over a socket pair.
//!
//! # Safety
//! Pointers and lengths come from live slices of the callers. A descriptor that has arrived with a
//! packet is nobody else's.
#![expect(unsafe_code, reason = "host calls on descriptors and buffers")]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use syscalls::{Errno, SysResult};

use crate::Rule;

pub(crate) const RULES: &[Rule] = &[
    // `receive`; `send` is a `sendto`, which the control server's list has.
    Rule::any(libc::SYS_recvmsg),
];

/// Room for the control message of a few descriptors, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends one packet, waiting for room.
///
/// # Errors
/// Those of `sendto(2)`: `EPIPE` where the peer has gone.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8]) -> SysResult<()> {
    loop {
        // SAFETY: the packet is live and of the given length.
        let n = unsafe {
            let data = packet.as_ptr().cast();
            libc::send(socket.as_raw_fd(), data, packet.len(), libc::MSG_NOSIGNAL)
        };
        match usize::try_from(n) {
            Ok(n) if n == packet.len() => return Ok(()),
            Ok(_) => return Err(Errno::EMSGSIZE),
            Err(_) => match crate::last_errno() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
}

/// Waits for one packet. Returns its length, 0 where the peer has gone, and the descriptors that
/// came with it.
///
/// # Errors
/// Those of `recvmsg(2)`; `EMSGSIZE` for a packet longer than the buffer.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is the empty one.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    loop {
        message.msg_controllen = 64;
        // SAFETY: header, vector, buffer and control buffer are live and of the given lengths.
        let n =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(n) {
            Ok(n) => {
                let descriptors = take_descriptors(&message);
                if message.msg_flags & libc::MSG_TRUNC != 0 {
                    return Err(Errno::EMSGSIZE);
                }
                return Ok((n, descriptors));
            }
            Err(_) => match crate::last_errno() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
}

/// Receives what has arrived on a stream, without waiting. Returns its length, 0 at the end, and the
/// descriptors that came with it.
///
/// # Errors
/// Those of `recvmsg(2)`; `EMSGSIZE` where there were more descriptors than may be sent at once.
pub(crate) fn receive_some(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> SysResult<(usize, Vec<OwnedFd>)> {
    // For SCM_MAX_FD descriptors and the header; of words, for the alignment.
    let mut control = [0_u64; 130];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is the empty one.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = 130 * 8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: header, vector, buffer and control buffer are live and of the given lengths.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let n = usize::try_from(n).map_err(|_| crate::last_errno())?;
    let descriptors = take_descriptors(&message);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Errno::EMSGSIZE);
    }
    Ok((n, descriptors))
}

/// Takes the descriptors that came with a message.
fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the control buffer, which is live, up to `msg_controllen`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so within the control buffer, which is aligned for it.
        let cmsg = unsafe { header.read() };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: a computation on the length of an empty message.
            let overhead = unsafe { libc::CMSG_LEN(0) };
            let n_bytes = usize::try_from(cmsg.cmsg_len)
                .unwrap_or(0)
                .saturating_sub(usize::try_from(overhead).unwrap_or(0));
            // SAFETY: the header is within the control buffer.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<i32>();
            for index in 0..n_bytes / size_of::<i32>() {
                // SAFETY: the kernel has written this many descriptors behind the header.
                let raw = unsafe { data.add(index).read_unaligned() };
                // SAFETY: it is new in this process and owned by nobody.
                let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
                descriptors.push(descriptor);
            }
        }
        // SAFETY: both are of the same live message.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}
