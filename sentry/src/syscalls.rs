//! System calls: `dispatch` and one file of thin handlers per family.

pub mod dispatch;
mod process;
mod signal;
