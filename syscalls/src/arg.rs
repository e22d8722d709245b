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

macro_rules! truncating {
    ($($ty:ty),*) => {$(
        impl FromArg for $ty {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                clippy::allow_attributes,
                reason = "the ABI passes the low bits of the register"
            )]
            fn from_arg(raw: u64) -> Self {
                raw as Self
            }
        }
    )*};
}

truncating!(i16, u16, i32, u32, i64, usize, isize);

impl FromArg for u8 {
    #[expect(clippy::cast_possible_truncation, reason = "the ABI passes the low bits")]
    fn from_arg(raw: u64) -> Self {
        raw as Self
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
