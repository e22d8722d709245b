//! Packet sockets (`packet(7)`) for `--network=sandbox`: frames of network interfaces, each behind a
//! `struct virtio_net_hdr`.
//!
//! Not in [`crate::rules`]: only a sandbox with interfaces of its own makes these calls. The sockets
//! come from outside, bound; the sentry sends and receives over them and can do nothing else.
//!
//! # Safety
//! Pointers and lengths come from live slices of the callers, or from structures on the stack.
#![expect(unsafe_code, reason = "host calls on descriptors and buffers")]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use syscalls::{Errno, SysResult};

use crate::{Rule, last_errno};

/// The host calls of this module. `send` is a `sendto`, and `wait` a `poll`, which the control
/// server's list has.
pub fn rules() -> Vec<Rule> {
    vec![Rule::any(libc::SYS_recvmmsg)]
}

/// How many frames one receive brings at most.
pub const BATCH: usize = 32;

/// Room for a frame: a header, and the largest packet.
const FRAME: usize = 10 + 14 + 4 + 65_536;

/// Frames as they are received.
pub struct Frames {
    memory: Vec<u8>,
    lens: [usize; BATCH],
    n: usize,
}

impl Default for Frames {
    fn default() -> Self {
        // Zeroed pages that are there when they are used.
        Self { memory: vec![0; FRAME * BATCH], lens: [0; BATCH], n: 0 }
    }
}

impl Frames {
    /// Receives what has arrived, without waiting. Returns how many frames.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`: `EAGAIN` where nothing has, `ENETDOWN`.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> SysResult<usize> {
        self.n = 0;
        // SAFETY: arrays of plain data; all zeroes is the empty value of each.
        let mut iovs: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut heads: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let places = self.memory.chunks_exact_mut(FRAME);
        for ((iov, head), place) in iovs.iter_mut().zip(&mut heads).zip(places) {
            iov.iov_base = place.as_mut_ptr().cast();
            iov.iov_len = place.len();
            head.msg_hdr.msg_iov = std::ptr::from_mut(iov);
            head.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header has one live vector of its own, and no time limit is given.
        let n = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_raw_fd(),
                heads.as_mut_ptr(),
                BATCH,
                libc::MSG_DONTWAIT,
                0_u64,
            )
        };
        let n = usize::try_from(n).map_err(|_| last_errno())?.min(BATCH);
        for (len, head) in self.lens.iter_mut().zip(&heads) {
            *len = usize::try_from(head.msg_len).unwrap_or(0).min(FRAME);
        }
        self.n = n;
        Ok(n)
    }

    /// Returns the frames of the last receive.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let places = self.memory.chunks_exact_mut(FRAME).zip(self.lens).take(self.n);
        places.filter_map(|(place, len)| place.get_mut(..len))
    }
}

/// Sends one frame behind its header, without waiting.
///
/// # Errors
/// Those of `send(2)`: `EAGAIN` and `ENOBUFS` without room, `ENETDOWN`, `EMSGSIZE`.
pub fn send(socket: BorrowedFd<'_>, frame: &[u8]) -> SysResult<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the frame is live and of the given length.
    let n = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), flags) };
    if n < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Waits until a descriptor is readable, at most `timeout_ms` milliseconds where that is not
/// negative; returns for each whether it is.
///
/// # Errors
/// Those of `poll(2)`.
pub fn wait(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> SysResult<Vec<bool>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let count = libc::nfds_t::try_from(polled.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `polled` has `count` entries.
    if unsafe { libc::poll(polled.as_mut_ptr(), count, timeout_ms) } < 0 {
        return Err(last_errno());
    }
    Ok(polled.iter().map(|entry| entry.revents != 0).collect())
}

/// Opens a packet socket for an interface of the caller's network namespace, with the privilege
/// that it takes: what `runsc` gives the sentry.
///
/// # Errors
/// Those of `socket(2)`, `setsockopt(2)` and `bind(2)`: `EPERM`.
pub fn open(interface: i32) -> SysResult<OwnedFd> {
    /// `ETH_P_ALL`, in network order.
    const ALL: u16 = 3_u16.to_be();
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    const BUFFER: i32 = 8 << 20;
    // Without a protocol nothing is received before the socket is bound.
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: integers only.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just returned this descriptor, so nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let set = |level, name, value: i32| {
        // SAFETY: four live bytes.
        let result = unsafe {
            let value = (&raw const value).cast();
            libc::setsockopt(socket.as_raw_fd(), level, name, value, 4)
        };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    };
    set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    for (forced, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Who may not have more than others has what others have.
        set(libc::SOL_SOCKET, forced, BUFFER).or_else(|_| set(libc::SOL_SOCKET, plain, BUFFER))?;
    }
    // SAFETY: `sockaddr_ll` is plain data; all zeroes is an empty one.
    let mut addr: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    addr.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EINVAL)?;
    addr.sll_protocol = ALL;
    addr.sll_ifindex = interface;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: the address is live and of the given length.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) } < 0 {
        return Err(last_errno());
    }
    Ok(socket)
}
