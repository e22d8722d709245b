//! The doorbell where no listener can be had: stubs ring by messages, and sleep on futexes.
//!
//! Rings go through one socket pair, whose far end all stubs inherit. The kernel adds to each message
//! which process it comes from, so that a hostile one can name none but its own threads, and it
//! keeps them in order. A futex word instead, which all stubs could write and wait on, would let any of them
//! swallow the wake-ups of all others; one in each process's slots would be more than a thread
//! can wait on. Nothing is ever sent towards the stubs on that pair.
//!
//! Descriptors go through a pair per process, the *channel*, whose far end only that process has: the
//! sentry makes it before the birth and hands it to the parent, with whose memory the child starts
//! anyway; the parent keeps it no longer than its fork takes. The way from the stubs is shut.
//!
//! # Safety
//! Every call gets pointers to live structures, and their sizes.
#![expect(unsafe_code, reason = "sockets")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use sentry_host::Rule;
use sentry_sysmsg::layout::RING_LEN;
use syscalls::SysResult;

use crate::systrap::last_errno;

/// The host calls of this module.
pub(super) const RULES: &[Rule] = &[
    Rule::when(libc::SYS_socketpair, &[(0, 0xffff_ffff, libc::AF_UNIX as u64)]),
    Rule::any(libc::SYS_recvmsg),
    Rule::any(libc::SYS_sendmsg),
    Rule::any(libc::SYS_shutdown),
    Rule::any(libc::SYS_poll),
];

/// What a fence says instead of `layout::RING_*`.
const FENCE: u64 = u64::MAX;

/// The words of a ring.
type Words = [u64; 3];

const _: () = assert!(size_of::<Words>() as u64 == RING_LEN);

/// What a socket has received.
pub(super) enum Received {
    /// A ring of a process.
    Ring { pid: u32, words: Words },
    /// All that was sent before [`RingSocket::fence`] has been received.
    Fence,
    /// Something else.
    Nothing,
}

/// The socket pair by which all stubs of a zygote ring.
#[derive(Debug)]
pub(in crate::systrap) struct RingSocket {
    near: OwnedFd,
    far: OwnedFd,
    /// This process, which alone sends fences. Later it may not ask for its number.
    own_pid: u32,
}

impl RingSocket {
    /// Creates the pair.
    pub(super) fn new() -> SysResult<Self> {
        let (near, far) = pair()?;
        let on: libc::c_int = 1;
        // SAFETY: see the module.
        let done = unsafe {
            libc::setsockopt(
                near.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                (&raw const on).cast(),
                4,
            )
        };
        if done < 0 {
            Err(last_errno())
        } else {
            Ok(Self { near, far, own_pid: std::process::id() })
        }
    }

    /// Returns the end for the stubs.
    pub(super) fn far_end(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.far)
    }

    /// Returns whether somebody rings.
    pub(super) fn has_ring(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.near.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: see the module.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }

    /// Waits for a message; `None` after [`Self::close`].
    pub(super) fn receive(&self) -> SysResult<Option<Received>> {
        let mut words: Words = [0; 3];
        // For `struct cmsghdr` with `struct ucred` and not more: descriptors are dropped.
        let mut control = [0_u64; 4];
        let mut part =
            libc::iovec { iov_base: (&raw mut words).cast(), iov_len: size_of::<Words>() };
        let mut message = header(&mut part, &mut control);
        // SAFETY: see the module.
        let n = unsafe { libc::recvmsg(self.near.as_raw_fd(), &raw mut message, 0) };
        if n < 0 {
            return Err(last_errno());
        }
        if n == 0 {
            return Ok(None);
        }
        let [_, kind, pid_uid, _] = control;
        let is_ring = u64::try_from(n) == Ok(RING_LEN)
            && kind == control_kind(libc::SCM_CREDENTIALS)
            && message.msg_flags & libc::MSG_TRUNC == 0;
        let pid = u32::try_from(pid_uid & u64::from(u32::MAX)).unwrap_or(0);
        Ok(Some(match words {
            _ if !is_ring => Received::Nothing,
            [FENCE, ..] if pid == self.own_pid => Received::Fence,
            words => Received::Ring { pid, words },
        }))
    }

    /// Lets [`Received::Fence`] come after all that was sent before.
    pub(super) fn fence(&self) {
        let words: Words = [FENCE, 0, 0];
        let mut part = libc::iovec {
            iov_base: (&raw const words).cast_mut().cast(),
            iov_len: size_of::<Words>(),
        };
        let message = header(&mut part, &mut []);
        // SAFETY: see the module; the message is only read.
        unsafe { libc::sendmsg(self.far.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    }

    /// Ends the waiting for messages.
    pub(super) fn close(&self) {
        // SAFETY: passes numbers.
        unsafe { libc::shutdown(self.near.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// The sentry's end of a process's channel.
#[derive(Debug)]
pub(in crate::systrap) struct Channel(OwnedFd);

impl Channel {
    /// Creates a channel; returns also the end of the process.
    pub(super) fn new() -> SysResult<(Self, OwnedFd)> {
        let (near, far) = pair()?;
        // SAFETY: passes numbers.
        unsafe { libc::shutdown(near.as_raw_fd(), libc::SHUT_RD) };
        Ok((Self(near), far))
    }

    /// Sends a descriptor that the process shall have under `number`.
    ///
    /// # Errors
    /// `EAGAIN` where the process does not take what it has been sent, `EPIPE` where it is gone.
    pub(in crate::systrap) fn send(&self, fd: BorrowedFd<'_>, number: i32) -> SysResult<()> {
        let number = number.cast_unsigned();
        let mut part = libc::iovec {
            iov_base: (&raw const number).cast_mut().cast(),
            iov_len: size_of_val(&number),
        };
        const LEN: u64 = 20;
        let mut control =
            [LEN, control_kind(libc::SCM_RIGHTS), u64::from(fd.as_raw_fd().cast_unsigned())];
        let message = header(&mut part, &mut control);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: see the module; the message is only read.
        let n = unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const message, flags) };
        if n < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

/// Returns the level and the type of a control message, as one word.
const fn control_kind(kind: libc::c_int) -> u64 {
    libc::SOL_SOCKET.cast_unsigned() as u64 | (kind.cast_unsigned() as u64) << 32
}

/// Describes a message of one part.
fn header(part: &mut libc::iovec, control: &mut [u64]) -> libc::msghdr {
    // SAFETY: all zeroes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    if !control.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = u32::try_from(size_of_val(control)).unwrap_or(0);
    }
    message
}

/// Creates a pair of connected sockets that keep messages apart and in order.
fn pair() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: see the module.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptors are fresh.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}
