//! Readiness of host descriptors: an epoll instance that one thread of the sentry waits on.
#![expect(unsafe_code, reason = "host calls")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use syscalls::SysResult;

use crate::{Rule, last_errno};

pub(crate) const RULES: &[Rule] = &[
    Rule::any(libc::SYS_epoll_ctl),
    Rule::any(libc::SYS_epoll_wait),
    Rule::any(libc::SYS_epoll_pwait),
];

/// An epoll instance.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// Creates an instance; before the filter is installed.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new() -> SysResult<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(last_errno());
        }
        // SAFETY: epoll_create1(2) has just returned this descriptor, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `fd` from now on: each time that it becomes readable or writable, or gets more to
    /// read, `wait` returns `key`.
    ///
    /// # Errors
    /// `EPERM` for a descriptor that is always ready (a regular file).
    pub fn watch(&self, fd: BorrowedFd<'_>, key: u64) -> SysResult<()> {
        let events =
            libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: key };
        let (epoll, operation) = (self.0.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: `event` is valid; both descriptors are open for the length of the call.
        let result = unsafe { libc::epoll_ctl(epoll, operation, fd.as_raw_fd(), &raw mut event) };
        if result == 0 { Ok(()) } else { Err(last_errno()) }
    }

    /// Ends the watch of a descriptor.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) {
        let (epoll, operation) = (self.0.as_raw_fd(), libc::EPOLL_CTL_DEL);
        // SAFETY: the event is ignored; both descriptors are open for the length of the call. A
        // descriptor that is not watched is left alone.
        unsafe { libc::epoll_ctl(epoll, operation, fd.as_raw_fd(), std::ptr::null_mut()) };
    }

    /// Waits until a watched descriptor is ready; returns keys and events.
    pub fn wait(&self) -> Vec<(u64, u32)> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
        // SAFETY: the buffer is writable for the number of entries given.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), 16, -1) };
        let n = usize::try_from(n).unwrap_or(0);
        events.iter().take(n).map(|event| (event.u64, event.events)).collect()
    }
}

/// Returns what `fd` is ready for among `events` (`POLL*` bits), without waiting.
pub fn ready_now(fd: BorrowedFd<'_>, events: i16) -> i16 {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    entry.revents
}
