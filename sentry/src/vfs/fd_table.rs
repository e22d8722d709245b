//! Descriptor tables.

use std::sync::Arc;

/// A process's descriptor table.
pub struct FdTable {}

impl FdTable {
    /// Returns a table without descriptors.
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Returns a copy for a forked child.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Arc::new(Self {})
    }
}
