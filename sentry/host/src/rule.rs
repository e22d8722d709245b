//! The form in which a module says which host system calls it makes.

/// One permitted host system call, possibly only with certain argument values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The number of the call.
    pub number: libc::c_long,
    /// Conditions that must all hold: argument index, mask, value (`args[index] & mask == value`).
    pub conditions: &'static [(u8, u64, u64)],
}

impl Rule {
    /// Permits a call with any arguments.
    pub const fn any(number: libc::c_long) -> Self {
        Self { number, conditions: &[] }
    }

    /// Permits a call where every condition holds.
    pub const fn when(number: libc::c_long, conditions: &'static [(u8, u64, u64)]) -> Self {
        Self { number, conditions }
    }
}
