//! What is lent to processes besides streams: files ([`crate::Streams::lend_file`]), and masks for the permissions of
//! new ones.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sentry_sysmsg::file::N_EVENTS;
use syscalls::abi::poll::EpollEvent;

use crate::HostCall;

/// What is read of a file that is lent.
#[derive(Clone, Debug)]
pub enum FileSource {
    /// What the host's file has.
    Host(Arc<OwnedFd>),
    /// Nothing; what is written is gone.
    Nothing,
    /// Zeros without end; what is written is gone.
    Zeros,
    /// This is no file to be read, but a set of files (`epoll`) of which this is to be told, and nothing else: at most
    /// [`FileSource::MAX_EVENTS`].
    Set(Vec<EpollEvent>),
}

impl FileSource {
    /// Of how many files a set can tell.
    pub const MAX_EVENTS: usize = N_EVENTS;

    /// Returns whether both are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(one), Self::Host(other)) => Arc::ptr_eq(one, other),
            (Self::Nothing, Self::Nothing) | (Self::Zeros, Self::Zeros) => true,
            _ => false,
        }
    }

    /// Returns whether this is a device.
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Nothing | Self::Zeros)
    }
}

/// A file that is to be lent.
pub struct FileToLend<'a> {
    /// Its content; a file of the host's ends where this one does.
    pub source: &'a FileSource,
    /// The offset.
    pub offset: u64,
    /// For a file that is to be written, too: the host's is open for that. None of its bytes may move
    /// as long as it is lent.
    pub to_write: Option<ToWrite>,
}

/// What there is to know for who lends a file that is written.
pub struct ToWrite {
    /// How long the file is.
    pub size: u64,
    /// Where it is said when it has been written to.
    pub written: Arc<Written>,
    /// Which thread of the process asks, and makes the calls that are necessary ([`Lending::calls`]): any number that
    /// is another thread's only when this one has ended.
    pub thread: u64,
}

/// When a file has been written to by those to whom it was lent.
#[derive(Debug, Default)]
pub struct Written(AtomicI64);

impl Written {
    /// Notes the time of a write, in nanoseconds since the epoch.
    pub fn note(&self, at_ns: i64) {
        self.0.fetch_max(at_ns, Ordering::SeqCst);
    }

    /// Returns the time of the last write that has been noted since this was last asked.
    pub fn take(&self) -> Option<i64> {
        Some(self.0.swap(0, Ordering::SeqCst)).filter(|at_ns| *at_ns != 0)
    }
}

/// What came of lending a file.
#[derive(Default)]
pub struct Lending {
    /// The file, where it is lent.
    pub lent: Option<Arc<dyn LentFile>>,
    /// What the process must do first where it is not; none where it cannot be lent.
    pub calls: Vec<HostCall>,
}

/// A file that is lent: the process reads it, or writes it as well, and moves its offset. Taken back when it is
/// dropped, at the latest.
pub trait LentFile: Send + Sync {
    /// Returns what [`StreamEnd`](crate::StreamEnd) calls it.
    fn id(&self) -> u64;

    /// Takes the file back, any number of times; what threads are doing with it has happened before or
    /// does not happen, save that a write may be seen which will be made again. Waits for nobody. Returns the
    /// offset and how many calls have been answered, as the application says; these are not counted to the end.
    fn take_back(&self) -> (u64, u32);

    /// Notes in [`ToWrite::written`] when the file has last been written to.
    fn note_written(&self);
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
