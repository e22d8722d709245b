//! The form of this program that gofer, sentry and monitor run: nothing that is ever done to their
//! `/proc/PID/exe` reaches the host's file.
//!
//! It is the file itself seen through a detached read-only mount, whose pages all sandboxes share;
//! where the caller may not mount, or others may not execute the file, a sealed copy.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::sys;

/// The running executable, found from any mount namespace.
const OWN: &str = "/proc/self/exe";

/// What anybody needs in order to execute a file.
const EXECUTABLE_BY_ANYBODY: u32 = 0o005;

/// This program, in a form that cannot be written.
#[derive(Debug)]
pub(super) struct Executable {
    /// To be executed when complete.
    descriptor: OwnedFd,
    /// What has yet to be copied.
    source: Option<File>,
}

impl Executable {
    /// Creates it. Copying takes milliseconds, for which the children need not wait: they inherit
    /// the descriptor and execute it when it is complete.
    pub(super) fn new() -> io::Result<Self> {
        let own = File::open(OWN)?;
        if sys::is_sealed(own.as_fd()) {
            return Ok(Self { descriptor: own.into(), source: None });
        }
        let options = sys::TreeOptions { readonly: true, ..sys::TreeOptions::default() };
        if is_for_anybody(&own.metadata()?)
            && let Ok(descriptor) = sys::clone_mount_tree(Path::new(OWN), options)
        {
            return Ok(Self { descriptor, source: None });
        }
        Ok(Self { descriptor: sys::memfd(c"runsc", true)?, source: Some(own) })
    }

    /// Copies and seals what is a copy.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        let Some(source) = self.source.take() else { return Ok(()) };
        sys::copy_file(source.as_fd(), self.descriptor.as_fd(), source.metadata()?.len())?;
        sys::seal(self.descriptor.as_fd())
    }
}

impl AsFd for Executable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Returns whether the sentry, which has an id of its own, may execute the file.
fn is_for_anybody(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & EXECUTABLE_BY_ANYBODY == EXECUTABLE_BY_ANYBODY
}
