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
pub enum CopyKind {
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
    pub copy: CopyKind,
    /// The index of the argument that holds a count, below six.
    pub count_arg: u8,
    /// The size of the whole or of one element.
    pub size: u16,
}

impl Input {
    const NONE: Self = Self { copy: CopyKind::None, count_arg: 0, size: 0 };

    /// Returns how many bytes to copy for a call with these arguments: zero for nothing, and for a
    /// string, whose length is not known. `None` where the guest's count makes no sense.
    pub fn len(&self, args: &[u64; 6]) -> Option<u64> {
        let size = u64::from(self.size);
        let count = || args.get(usize::from(self.count_arg)).copied();
        match self.copy {
            CopyKind::None | CopyKind::Str => Some(0),
            CopyKind::Fixed => Some(size),
            CopyKind::Counted | CopyKind::Gather => count()?.checked_mul(size),
            CopyKind::Bits => count()?.checked_add(63).map(|bits| bits / 64 * size),
        }
    }

    const fn fixed(structure: Struct) -> Self {
        Self { copy: CopyKind::Fixed, count_arg: 0, size: size_of_struct(structure) }
    }

    const fn counted(structure: Struct, count_arg: u8) -> Self {
        Self { copy: CopyKind::Counted, count_arg, size: size_of_struct(structure) }
    }

    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::InStr => Self { copy: CopyKind::Str, count_arg: 0, size: 0 },
            Kind::InStruct(s) | Kind::InOutStruct(s) => Self::fixed(s),
            Kind::InArray(s, n) | Kind::InOutArray(s, n) => Self::counted(s, n),
            Kind::InBuf(n) | Kind::InSized(_, n) => Self::counted(Struct::Bytes, n),
            Kind::OutIovec(n) => Self::counted(Struct::Iovec, n),
            Kind::InIovec(n) => {
                Self { copy: CopyKind::Gather, count_arg: n, size: size_of_struct(Struct::Iovec) }
            }
            Kind::FdSet(n) => Self { copy: CopyKind::Bits, count_arg: n, size: 8 },
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
    use super::{CopyKind, INPUTS, Input};
    use crate::arch::x86_64::nr;

    fn inputs(number: u64) -> [Input; 6] {
        INPUTS[usize::try_from(number).expect("a number")]
    }

    #[test]
    fn inputs_follow_from_the_table() {
        assert_eq!(inputs(nr::OPENAT)[1].copy, CopyKind::Str);
        assert_eq!(inputs(nr::OPENAT)[0], Input::NONE);
        assert_eq!(inputs(nr::WRITE)[1], Input { copy: CopyKind::Counted, count_arg: 2, size: 1 });
        assert_eq!(inputs(nr::READ)[1], Input::NONE);
        assert_eq!(
            inputs(nr::NANOSLEEP)[0],
            Input { copy: CopyKind::Fixed, count_arg: 0, size: 16 }
        );
        assert_eq!(inputs(nr::POLL)[0], Input { copy: CopyKind::Counted, count_arg: 1, size: 8 });
        assert_eq!(inputs(nr::SELECT)[1], Input { copy: CopyKind::Bits, count_arg: 0, size: 8 });
    }

    #[test]
    fn length_follows_from_the_arguments() {
        let args = [65, 0, 3, 0, 0, 0];
        assert_eq!(inputs(nr::WRITE)[1].len(&args), Some(3));
        assert_eq!(inputs(nr::WRITEV)[1].len(&args), Some(48));
        assert_eq!(inputs(nr::WRITEV)[1].len(&[0, 0, u64::MAX, 0, 0, 0]), None);
        assert_eq!(inputs(nr::SELECT)[1].len(&args), Some(16));
        assert_eq!(inputs(nr::OPENAT)[1].len(&args), Some(0));
        assert_eq!(inputs(nr::NANOSLEEP)[0].len(&args), Some(16));
    }
}
