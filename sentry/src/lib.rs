#![doc = include_str!("../README.md")]

pub mod aio;
mod boot;
mod bpf;
pub mod config;
pub mod control;
pub mod fs;
pub mod ipc;
pub mod kernel;
mod keys;
mod landlock;
pub mod log;
pub mod mm;
pub mod net;
pub mod sync;
pub mod syscalls;
pub mod task;
pub mod time;
pub mod unsupported;
pub mod vfs;

pub use boot::boot;
