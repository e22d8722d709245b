//! Addresses in guest memory: plain numbers with types, impossible to dereference.
//!
//! Architecture Invariant: a `UserPtr` is never turned into a Rust reference. It is an allegation
//! by the guest; only the memory manager's copy functions can find out whether it is true.

use core::fmt;
use core::marker::PhantomData;

/// An address in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// The null address.
    pub const NULL: Self = Self(0);

    /// Returns whether this is the null address, which many calls take as "not given".
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// Returns the address `offset` bytes further, or `None` where that wraps around.
    pub const fn checked_add(self, offset: u64) -> Option<Self> {
        match self.0.checked_add(offset) {
            Some(addr) => Some(Self(addr)),
            None => None,
        }
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The address of a `T` in guest memory.
pub struct UserPtr<T> {
    addr: UserAddr,
    target: PhantomData<fn() -> T>,
}

impl<T> UserPtr<T> {
    /// Types an address.
    pub const fn new(addr: UserAddr) -> Self {
        Self { addr, target: PhantomData }
    }

    /// Returns the address.
    pub const fn addr(self) -> UserAddr {
        self.addr
    }

    /// Returns whether the pointer is null.
    pub const fn is_null(self) -> bool {
        self.addr.is_null()
    }

    /// Returns the pointer to the `index`-th element of an array that starts here, or `None`
    /// where that wraps around.
    pub fn checked_index(self, index: u64) -> Option<Self> {
        let size = u64::try_from(size_of::<T>()).ok()?;
        self.addr.checked_add(index.checked_mul(size)?).map(Self::new)
    }

    /// Returns the same address as a pointer to another type.
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}
