//! Runs one program natively and in the sandbox, and compares.
#![doc = include_str!("../README.md")]

pub mod bundle;
pub mod cmd;
pub mod expect;
pub mod group;
pub mod locate;
pub mod mode;
pub mod temp_dir;
pub mod wire;

pub use bundle::{Bundle, Container, Rootfs};
pub use cmd::{Cmd, End, Output};
pub use expect::Expectations;
pub use group::{Group, Member};
pub use mode::{Mode, Platform};
pub use temp_dir::TempDir;
