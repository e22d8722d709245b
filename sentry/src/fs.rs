//! Concrete file systems and special files: each imports `vfs`, never a sibling.

pub mod pidfd;
