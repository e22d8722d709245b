//! Pseudo-terminals of the host for containers, and descriptors over unix sockets.
//!
//! # Safety
//! Every call passes pointers to live values of this process only, of the sizes that the kernel
//! reads and writes.
#![expect(unsafe_code, reason = "terminal ioctls and SCM_RIGHTS have no safe form in std")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use libc::c_int;

use super::{check, new_fd};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// The most descriptors that travel with one message.
pub(crate) const MAX_DESCRIPTORS: usize = 250;

impl Pty {
    /// Opens a new one.
    pub(crate) fn open() -> io::Result<Self> {
        let master = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open("/dev/ptmx")?;
        let unlock: c_int = 0;
        // SAFETY: TIOCSPTLCK reads an integer, which is live.
        let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) };
        check(ret.into())?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: TIOCGPTPEER takes an integer and returns a new descriptor.
        let slave =
            new_fd(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
        Ok(Self { master: master.into(), slave })
    }
}

/// Sets the size of a terminal in characters.
pub(crate) fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a `winsize`, which is live.
    let ret = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(ret.into()).map(drop)
}

/// Makes a terminal the controlling one of this process, a session leader without one.
pub(crate) fn control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Sends bytes, at least one, with descriptors over a unix socket. Returns how many bytes went.
pub(crate) fn send_descriptors(
    socket: BorrowedFd<'_>,
    data: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<c_int> = descriptors.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let n_bytes = u32::try_from(size_of_val(&raw[..])).map_err(io::Error::other)?;
    // SAFETY: a computation.
    let space = unsafe { libc::CMSG_SPACE(n_bytes) };
    let space = usize::try_from(space).map_err(io::Error::other)?;
    // Of words, which are aligned as a control message has to be.
    let mut control = vec![0_u64; space.div_ceil(8)];
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is the empty one.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if !raw.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = u32::try_from(space).map_err(io::Error::other)?;
        // SAFETY: the control buffer is live, aligned, and has room for this one message.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(n_bytes);
            libc::CMSG_DATA(header)
                .cast::<c_int>()
                .copy_from_nonoverlapping(raw.as_ptr(), raw.len());
        }
    }
    // SAFETY: header, vector, data and control buffer are live and of the given lengths.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
