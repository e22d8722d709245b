//! System calls: `dispatch` and one file of thin handlers per family.

mod at;
mod attr;
mod dir;
pub mod dispatch;
mod event;
mod exec;
mod fcntl;
pub(crate) mod fd;
mod futex;
mod ids;
pub(crate) mod info;
mod mmap;
mod mount;
mod open;
mod path_ops;
mod pipe;
mod prctl;
mod process;
mod read_write;
pub(crate) mod sched;
mod signal;
mod stat;
mod strace;
mod sync;
pub(crate) mod time;
mod xattr;
