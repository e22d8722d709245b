//! `#[repr(C)]` structures and flags, one file per family of uapi headers.
//!
//! Words of flags are `bitflags` types whose constants are Linux's names without their prefix
//! (`O_CLOEXEC` is [`fs::OpenFlags::CLOEXEC`]). They keep bits without a name, so that a handler
//! decides what an unknown bit means. Enumerations are plain constants under their full names;
//! each has a table of its names beside it, from which arguments are rendered.

/// The name of a constant and its value, sign-extended to 64 bits.
pub type Name = (&'static str, i64);

/// The flags of a word with their common prefix.
pub trait NamedFlags: bitflags::Flags {
    /// What Linux puts before the name of each: `O_`, `MAP_`.
    const PREFIX: &'static str;
    /// Every flag under its name without the prefix.
    const NAMES: &'static [Name];
}

/// Declares a word of flags, transparent to the ABI.
macro_rules! flags {
    (
        $(#[$doc:meta])*
        pub struct $name:ident: $bits:ident as $prefix:literal {
            $($(#[$flag_doc:meta])* $flag:ident = $value:expr;)*
        }
    ) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable,
            KnownLayout,
        )]
        pub struct $name($bits);

        bitflags::bitflags! {
            impl $name: $bits {
                $($(#[$flag_doc])* const $flag = $value;)*
            }
        }

        impl $name {
            /// Returns whether there are bits that have no name.
            pub const fn has_unknown_bits(self) -> bool {
                self.bits() & !Self::all().bits() != 0
            }
        }

        impl crate::abi::NamedFlags for $name {
            const PREFIX: &'static str = $prefix;
            const NAMES: &'static [crate::abi::Name] = &[$((stringify!($flag), $value)),*];
        }

        impl crate::arg::FromArg for $name {
            fn from_arg(raw: u64) -> Self {
                Self::from_bits_retain(<$bits as crate::arg::FromArg>::from_arg(raw))
            }
        }
    };
}

/// Declares the constants of an enumeration and the table of their names.
macro_rules! constants {
    (
        $(#[$doc:meta])*
        $table:ident: $ty:ty { $($name:ident = $value:literal;)* }
    ) => {
        $(pub const $name: $ty = $value;)*
        $(#[$doc])*
        pub const $table: &[crate::abi::Name] = &[$((stringify!($name), $value)),*];
    };
}

pub mod aio;
pub mod capability;
pub mod clone;
pub mod elf;
pub mod fs;
pub mod futex;
pub mod inotify;
pub mod ioctl;
pub mod ipc;
pub mod keyctl;
pub mod landlock;
pub mod mm;
pub mod mount;
pub mod netlink;
pub mod poll;
pub mod prctl;
pub mod procmap;
pub mod ptrace;
pub mod resource;
pub mod rseq;
pub mod sched;
pub mod signal;
pub mod sock_diag;
pub mod socket;
pub mod time;
pub mod uts;
pub mod wait;
