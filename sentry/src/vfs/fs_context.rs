//! Root, working directory and umask: what `CLONE_FS` shares.

use std::sync::Arc;

/// Root, working directory and umask.
pub struct FsContext {}

impl FsContext {
    /// Returns a copy for a forked child.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Arc::new(Self {})
    }
}
