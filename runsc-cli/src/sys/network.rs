//! A network namespace for processes that need none.
//!
//! # Safety
//! The one host call here takes an integer.
#![expect(unsafe_code, reason = "unshare has no safe form in std")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use super::{check, enter_namespace};

/// As long as this lives, this process is in a new network namespace, for its children to be in.
#[derive(Debug)]
pub(crate) struct EmptyNetwork {
    home: File,
}

impl EmptyNetwork {
    /// Makes the namespace and enters it; none where this user may not, or could not leave it again.
    pub(crate) fn enter() -> Option<Self> {
        let home = File::open("/proc/self/ns/net").ok()?;
        enter_namespace(home.as_fd(), libc::CLONE_NEWNET).ok()?;
        // SAFETY: an integer.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()).ok()?;
        Some(Self { home })
    }

    /// Goes back.
    pub(crate) fn leave(self) -> io::Result<()> {
        enter_namespace(self.home.as_fd(), libc::CLONE_NEWNET)
    }
}

impl Drop for EmptyNetwork {
    fn drop(&mut self) {
        // Where this fails `leave` has said so, or something else has failed already.
        let _ = enter_namespace(self.home.as_fd(), libc::CLONE_NEWNET);
    }
}
