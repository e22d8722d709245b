//! The sealed copy of this program that gofer and sentry run: nothing that is ever done to their
//! `/proc/PID/exe` reaches the host's file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// An immutable anonymous copy of the running executable, or the empty file that becomes it.
#[derive(Debug)]
pub(super) struct SealedCopy {
    copy: OwnedFd,
    /// The running executable, until it has been copied.
    source: Option<File>,
}

impl SealedCopy {
    /// Creates the file. Copying takes milliseconds, for which the children need not wait: they
    /// inherit the descriptor and execute it when it is complete.
    pub(super) fn new() -> io::Result<Self> {
        let own = File::open("/proc/self/exe")?;
        if sys::is_sealed(own.as_fd()) {
            return Ok(Self { copy: own.into(), source: None });
        }
        Ok(Self { copy: sys::memfd(c"runsc", true)?, source: Some(own) })
    }

    /// Copies and seals.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        let Some(source) = self.source.take() else { return Ok(()) };
        sys::copy_file(source.as_fd(), self.copy.as_fd(), source.metadata()?.len())?;
        sys::seal(self.copy.as_fd())
    }
}

impl AsFd for SealedCopy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.copy.as_fd()
    }
}
