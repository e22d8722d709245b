//! Concrete file systems and special files: each imports `vfs`, never a sibling.

pub mod backing;
pub mod gofer;
pub mod host_fd;
pub mod mem_devices;
pub mod memfd;
pub mod pidfd;
pub mod tmpfs;
