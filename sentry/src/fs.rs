//! Concrete file systems and special files: each imports `vfs`, never a sibling.

pub mod backing;
pub mod epoll;
pub mod eventfd;
pub mod gofer;
pub mod host_fd;
pub mod mem_devices;
pub mod memfd;
pub mod overlay;
pub mod pidfd;
pub mod pipe;
pub mod signalfd;
pub mod timerfd;
pub mod tmpfs;
