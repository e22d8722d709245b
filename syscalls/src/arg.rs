//! Raw register values as typed arguments.
//!
//! Conversions are total: they take the part of the register that Linux's `SYSCALL_DEFINE` takes
//! for the type, never fail, and never judge what the value means.

use crate::user_addr::{UserAddr, UserPtr};

/// A type that a system call can take as an argument.
pub trait FromArg {
    /// Converts the register's value.
    fn from_arg(raw: u64) -> Self;
}

/// A file descriptor as an argument: any 32-bit number, such as `AT_FDCWD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub i32);

impl FromArg for u8 {
    fn from_arg(raw: u64) -> Self {
        let [low, ..] = raw.to_le_bytes();
        low
    }
}

impl FromArg for u16 {
    fn from_arg(raw: u64) -> Self {
        let [b0, b1, ..] = raw.to_le_bytes();
        Self::from_le_bytes([b0, b1])
    }
}

impl FromArg for u32 {
    fn from_arg(raw: u64) -> Self {
        let [b0, b1, b2, b3, ..] = raw.to_le_bytes();
        Self::from_le_bytes([b0, b1, b2, b3])
    }
}

impl FromArg for usize {
    fn from_arg(raw: u64) -> Self {
        Self::from_le_bytes(raw.to_le_bytes())
    }
}

impl FromArg for i16 {
    fn from_arg(raw: u64) -> Self {
        u16::from_arg(raw).cast_signed()
    }
}

impl FromArg for i32 {
    fn from_arg(raw: u64) -> Self {
        u32::from_arg(raw).cast_signed()
    }
}

impl FromArg for i64 {
    fn from_arg(raw: u64) -> Self {
        raw.cast_signed()
    }
}

impl FromArg for u64 {
    fn from_arg(raw: u64) -> Self {
        raw
    }
}

impl FromArg for bool {
    fn from_arg(raw: u64) -> Self {
        i32::from_arg(raw) != 0
    }
}

impl FromArg for Fd {
    fn from_arg(raw: u64) -> Self {
        Self(i32::from_arg(raw))
    }
}

impl FromArg for UserAddr {
    fn from_arg(raw: u64) -> Self {
        Self(raw)
    }
}

impl<T> FromArg for UserPtr<T> {
    fn from_arg(raw: u64) -> Self {
        Self::new(UserAddr(raw))
    }
}
