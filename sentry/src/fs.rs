//! Concrete file systems and special files: each imports `vfs`, never a sibling.

pub mod backing;
pub mod gofer;
pub mod host_fd;
pub mod memfd;
pub mod mem_devices;
pub mod pidfd;
pub mod tmpfs;
