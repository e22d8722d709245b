#![doc = include_str!("../README.md")]
#![no_std]
#![warn(missing_docs)]

pub mod abi;
pub mod arch;
pub mod arg;
pub mod errno;
pub mod info;
pub mod marshal;
pub mod render;
pub mod table;
pub mod user_addr;

pub use arg::{Fd, FromArg};
pub use errno::{Errno, SysResult};
pub use user_addr::{UserAddr, UserPtr};
