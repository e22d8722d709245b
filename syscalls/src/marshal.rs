//! What the stub copies along with a call, from the table: strings, structures and buffers that the
//! kernel reads.
//!
//! The copies spare the kernel a `process_vm_readv` for each; they are never more than a cache of
//! guest memory, taken at one moment. A copy that faults, or that does not fit, is left out, and
//! whoever needs the bytes reads them by other means and reports the fault itself.

use crate::arch::x86_64::nr;
use crate::info::{Kind, Struct, SyscallInfo};
use crate::table::ALL;

/// What to copy for one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Copy {
    /// Nothing.
    None,
    /// A string up to and with its NUL.
    Str,
    /// [`Input::size`] bytes.
    Fixed,
    /// [`Input::size`] bytes, times the argument with the index [`Input::count_arg`].
    Counted,
    /// As `Counted`: an I/O vector, whose buffers the call reads too.
    Gather,
    /// A set of as many bits as the argument says, in words of eight bytes.
    Bits,
}

/// How one argument is copied. Holds no address, so that the table is the same wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Input {
    /// What to copy.
    pub copy: Copy,
    /// The index of the argument that holds a count, below six.
    pub count_arg: u8,
    /// The size of the whole or of one element.
    pub size: u16,
}

impl Input {
    const NONE: Self = Self { copy: Copy::None, count_arg: 0, size: 0 };

    const fn fixed(structure: Struct) -> Self {
        Self { copy: Copy::Fixed, count_arg: 0, size: size_of_struct(structure) }
    }

    const fn counted(structure: Struct, count_arg: u8) -> Self {
        Self { copy: Copy::Counted, count_arg, size: size_of_struct(structure) }
    }

    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::InStr => Self { copy: Copy::Str, count_arg: 0, size: 0 },
            Kind::InStruct(s) | Kind::InOutStruct(s) => Self::fixed(s),
            Kind::InArray(s, n) | Kind::InOutArray(s, n) => Self::counted(s, n),
            Kind::InBuf(n) | Kind::InSized(_, n) => Self::counted(Struct::Bytes, n),
            Kind::OutIovec(n) => Self::counted(Struct::Iovec, n),
            Kind::InIovec(n) => {
                Self { copy: Copy::Gather, count_arg: n, size: size_of_struct(Struct::Iovec) }
            }
            Kind::FdSet(n) => Self { copy: Copy::Bits, count_arg: n, size: 8 },
            _ => Self::NONE,
        }
    }
}

/// The inputs of every call by number and argument; `None` all over for numbers without a call.
pub static INPUTS: [[Input; 6]; nr::COUNT] = inputs(ALL);

#[expect(clippy::cast_possible_truncation, reason = "checked at compile time")]
const fn size_of_struct(structure: Struct) -> u16 {
    assert!(structure.size() <= 4096, "the structure is too large for a message");
    structure.size() as u16
}

#[expect(clippy::cast_possible_truncation, reason = "constant evaluation stops at an overflow")]
const fn inputs(all: &[SyscallInfo]) -> [[Input; 6]; nr::COUNT] {
    let mut table = [[Input::NONE; 6]; nr::COUNT];
    let mut i = 0;
    while i < all.len() {
        let info = &all[i];
        let mut arg = 0;
        while arg < info.args.len() {
            table[info.number as usize][arg] = Input::of(info.args[arg].kind);
            arg += 1;
        }
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{Copy, INPUTS, Input};
    use crate::arch::x86_64::nr;

    fn inputs(number: u64) -> [Input; 6] {
        INPUTS[usize::try_from(number).expect("a number")]
    }

    #[test]
    fn inputs_follow_from_the_table() {
        assert_eq!(inputs(nr::OPENAT)[1].copy, Copy::Str);
        assert_eq!(inputs(nr::OPENAT)[0], Input::NONE);
        assert_eq!(inputs(nr::WRITE)[1], Input { copy: Copy::Counted, count_arg: 2, size: 1 });
        assert_eq!(inputs(nr::READ)[1], Input::NONE);
        assert_eq!(inputs(nr::NANOSLEEP)[0], Input { copy: Copy::Fixed, count_arg: 0, size: 16 });
        assert_eq!(inputs(nr::POLL)[0], Input { copy: Copy::Counted, count_arg: 1, size: 8 });
        assert_eq!(inputs(nr::SELECT)[1], Input { copy: Copy::Bits, count_arg: 0, size: 8 });
    }
}
