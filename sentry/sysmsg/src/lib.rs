#![doc = include_str!("../README.md")]
#![no_std]
#![warn(missing_docs)]

pub mod file;
pub mod layout;
pub mod process;
pub mod ring;
pub mod slot;

pub use file::Files;
pub use process::Process;
pub use ring::{Mirror, Ring};
pub use slot::{CallEntry, Slot};
