//! System calls: `dispatch` and one file of thin handlers per family.

pub mod dispatch;
mod exec;
mod futex;
mod ids;
pub(crate) mod info;
mod mmap;
mod prctl;
mod process;
pub(crate) mod sched;
mod signal;
pub(crate) mod time;
