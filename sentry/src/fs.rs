//! Concrete file systems and special files: each imports `vfs`, never a sibling.

pub mod backing;
pub mod devpts;
pub mod epoll;
pub mod eventfd;
pub mod gofer;
pub mod host_fd;
pub mod inotify;
pub(crate) mod kept;
pub mod mem_devices;
pub mod memfd;
pub mod mqueue;
pub(crate) mod nameless;
pub(crate) mod nsfs;
pub mod overlay;
pub mod pidfd;
pub mod pipe;
pub mod procfs;
pub(crate) mod pseudo;
pub(crate) mod seccomp_listener;
pub mod signalfd;
pub mod sysfs;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;
