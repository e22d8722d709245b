//! Content of large tmpfs files, and so of an overlay's upper layer, in unlinked files of the host
//! instead of memory. The one place where two file systems meet.

use std::sync::Arc;

use syscalls::SysResult;

use super::gofer::GoferFs;
use super::tmpfs::{Store, StoreFile};

/// Keeps content in files that a gofer makes.
pub struct BackingStore(GoferFs);

impl BackingStore {
    /// Uses a connection of its own, whose root is the directory in which the files lie.
    pub const fn new(fs: GoferFs) -> Self {
        Self(fs)
    }
}

impl Store for BackingStore {
    fn create(&self) -> SysResult<StoreFile> {
        let [rw, ro] = self.0.backing_file()?;
        Ok(StoreFile { rw: Arc::new(rw), ro: Some(Arc::new(ro)) })
    }
}
