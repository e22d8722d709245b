//! The seccomp listener: receiving and answering notifications.
//!
//! # Safety
//! Every `ioctl` gets a pointer to a live structure of the size that its number encodes.
#![expect(unsafe_code, reason = "ioctl")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use sentry_host::Rule;
use syscalls::SysResult;

use crate::systrap::last_errno;

/// The host calls of this module.
pub(super) const RULES: &[Rule] = &[
    Rule::when(libc::SYS_ioctl, &[(1, 0xffff_ffff, NOTIF_RECV)]),
    Rule::when(libc::SYS_ioctl, &[(1, 0xffff_ffff, NOTIF_SEND)]),
    Rule::when(libc::SYS_ioctl, &[(1, 0xffff_ffff, NOTIF_ADDFD)]),
    Rule::when(libc::SYS_ioctl, &[(1, 0xffff_ffff, NOTIF_SET_FLAGS)]),
    Rule::any(libc::SYS_poll),
];

const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const NOTIF_ADDFD: u64 = 0x4018_2103;
const NOTIF_SET_FLAGS: u64 = 0x4008_2104;
const FD_SYNC_WAKE_UP: u64 = 1;
const ADDFD_FLAG_SETFD: u32 = 1;
const FLAG_CONTINUE: u32 = 1;

/// A ring of the doorbell: `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notification {
    /// The cookie for the answer.
    pub(super) id: u64,
    /// The host id of the thread.
    pub(super) tid: u32,
    flags: u32,
    /// The number of the call.
    pub(super) nr: i32,
    arch: u32,
    ip: u64,
    /// The arguments of the call.
    pub(super) args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const _: () = assert!(
    size_of::<Notification>() == 80 && size_of::<Response>() == 24 && size_of::<AddFd>() == 24
);

/// The listener that all stubs of a zygote share.
#[derive(Debug)]
pub(in crate::systrap) struct Listener {
    fd: OwnedFd,
    /// Whether a thread that is woken takes over the CPU of who wakes it.
    is_sync: AtomicBool,
}

impl Listener {
    /// Wraps a listener and asks for synchronous wake-ups, which older kernels (before 6.6) refuse.
    pub(super) fn new(fd: OwnedFd) -> Self {
        let listener = Self { fd, is_sync: AtomicBool::new(false) };
        listener.set_sync(true);
        listener
    }

    /// Chooses whether threads that are woken from now on take over the CPU of who wakes them. Both
    /// sides of a ring are concerned, and a mistake costs time only.
    pub(super) fn set_sync(&self, sync: bool) {
        if self.is_sync.swap(sync, Relaxed) != sync {
            let flags = if sync { FD_SYNC_WAKE_UP } else { 0 };
            // SAFETY: the argument of this ioctl is a number.
            unsafe { libc::ioctl(self.fd.as_raw_fd(), ioctl_nr(NOTIF_SET_FLAGS), flags) };
        }
    }

    /// Returns whether somebody rings.
    pub(super) fn has_ring(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which lives.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }

    /// Waits for a ring.
    pub(super) fn receive(&self) -> SysResult<Notification> {
        let mut notification = Notification::default();
        // SAFETY: see the module.
        let done = unsafe {
            libc::ioctl(self.fd.as_raw_fd(), ioctl_nr(NOTIF_RECV), &raw mut notification)
        };
        if done < 0 { Err(last_errno()) } else { Ok(notification) }
    }

    /// Lets the ringing thread's call return `value`. It does not matter if the thread is gone.
    pub(super) fn answer(&self, id: u64, value: i64) {
        self.send(&Response { id, val: value, error: 0, flags: 0 });
    }

    /// Lets the host make the ringing thread's call, with the arguments that the notification has told.
    pub(super) fn permit(&self, id: u64) {
        self.send(&Response { id, val: 0, error: 0, flags: FLAG_CONTINUE });
    }

    fn send(&self, response: &Response) {
        // SAFETY: see the module.
        unsafe {
            libc::ioctl(self.fd.as_raw_fd(), ioctl_nr(NOTIF_SEND), std::ptr::from_ref(response))
        };
    }

    /// Installs `source` as descriptor `number` of the process whose thread rang.
    pub(super) fn add_fd(&self, id: u64, source: BorrowedFd<'_>, number: i32) -> SysResult<()> {
        let add = AddFd {
            id,
            flags: ADDFD_FLAG_SETFD,
            srcfd: source.as_raw_fd().cast_unsigned(),
            newfd: number.cast_unsigned(),
            newfd_flags: 0,
        };
        // SAFETY: see the module.
        let done =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), ioctl_nr(NOTIF_ADDFD), &raw const add) };
        if done < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

/// Converts to the type that the C library wants, which differs between musl and glibc.
const fn ioctl_nr(nr: u64) -> libc::c_int {
    #[expect(clippy::cast_possible_truncation, reason = "ioctl numbers are 32 bits")]
    {
        nr as libc::c_int
    }
}
