//! The sealed copy of this program that gofer and sentry run: nothing that is ever done to their
//! `/proc/PID/exe` reaches the host's file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use crate::sys;

/// Returns an immutable anonymous copy of the running executable.
pub(super) fn sealed_copy() -> io::Result<OwnedFd> {
    let own = File::open("/proc/self/exe")?;
    if sys::is_sealed(own.as_fd()) {
        return Ok(own.into());
    }
    let copy = sys::memfd(c"runsc", true)?;
    sys::copy_file(own.as_fd(), copy.as_fd(), own.metadata()?.len())?;
    sys::seal(copy.as_fd())?;
    Ok(copy)
}
