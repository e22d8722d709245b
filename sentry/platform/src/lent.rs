//! What is lent to processes besides streams: files ([`crate::Streams::lend_file`]), and masks for the permissions of
//! new ones.

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
    /// This is no file to be read, but a set of files (`epoll`) none of which is ready.
    Quiet,
}

impl FileSource {
    /// Returns whether both are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(one), Self::Host(other)) => Arc::ptr_eq(one, other),
            (Self::Nothing, Self::Nothing)
            | (Self::Zeros, Self::Zeros)
            | (Self::Quiet, Self::Quiet) => true,
            _ => false,
        }
    }

    /// Returns whether this is a device.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Nothing | Self::Zeros)
    }
}

/// A file that is lent: the process reads it, and moves its offset. Taken back when it is dropped, at the latest.
pub trait LentFile: Send + Sync {
    /// Returns what [`StreamEnd`](crate::StreamEnd) calls it.
    fn id(&self) -> u64;

    /// Takes the file back, any number of times; what threads are doing with it has happened before or
    /// does not happen. Waits for nobody. Returns the offset and how many calls have been answered, as the
    /// application says; these are not counted to the end.
    fn take_back(&self) -> (u64, u32);
}

/// A mask for the permissions of new files that is lent. Taken back when it is dropped, at the latest.
pub trait LentMask: Send + Sync {
    /// Returns what [`Context::set_umask`](crate::Context::set_umask) calls it.
    fn id(&self) -> u64;

    /// Returns the mask, as the application says.
    fn get(&self) -> u32;

    /// Takes the mask back; returns it, and how often it has been changed, as the application says.
    fn take_back(&self) -> (u32, u32);
}
