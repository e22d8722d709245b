//! What files consist of that are lent to processes ([`crate::Streams::lend_file`]).

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What is read of a file that is lent.
#[derive(Clone, Debug)]
pub enum FileSource {
    /// What the host's file has.
    Host(Arc<OwnedFd>),
    /// Nothing; what is written is gone.
    Nothing,
    /// Zeros without end; what is written is gone.
    Zeros,
}

impl FileSource {
    /// Returns whether both are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(one), Self::Host(other)) => Arc::ptr_eq(one, other),
            (Self::Nothing, Self::Nothing) | (Self::Zeros, Self::Zeros) => true,
            _ => false,
        }
    }

    /// Returns whether this is a device: no file of the host's.
    pub fn is_device(&self) -> bool {
        !matches!(self, Self::Host(_))
    }
}
