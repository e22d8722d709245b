//! What can be an argument of a raw system call.

use core::ffi::CStr;

/// A value that becomes one register of a system call.
pub trait Arg {
    /// Returns the register's content.
    fn arg(self) -> usize;
}

/// Fills up to six arguments with zeros.
pub fn pack(given: &[usize]) -> [usize; 6] {
    let mut args = [0; 6];
    args[..given.len()].copy_from_slice(given);
    args
}

macro_rules! number {
    ($($int:ty),*) => {$(
        impl Arg for $int {
            fn arg(self) -> usize {
                self as isize as usize
            }
        }
    )*};
}
number!(i32, i64, isize, u8, u16, i16);

impl Arg for u32 {
    fn arg(self) -> usize {
        self as usize
    }
}
impl Arg for u64 {
    fn arg(self) -> usize {
        self as usize
    }
}
impl Arg for usize {
    fn arg(self) -> usize {
        self
    }
}
impl<T> Arg for *const T {
    fn arg(self) -> usize {
        self as usize
    }
}
impl<T> Arg for *mut T {
    fn arg(self) -> usize {
        self as usize
    }
}
impl<T> Arg for &T {
    fn arg(self) -> usize {
        core::ptr::from_ref(self) as usize
    }
}
impl<T> Arg for &mut T {
    fn arg(self) -> usize {
        core::ptr::from_mut(self) as usize
    }
}
impl<T> Arg for &[T] {
    fn arg(self) -> usize {
        self.as_ptr() as usize
    }
}
impl<T> Arg for &mut [T] {
    fn arg(self) -> usize {
        self.as_mut_ptr() as usize
    }
}
impl Arg for &CStr {
    fn arg(self) -> usize {
        self.as_ptr() as usize
    }
}
impl Arg for Option<core::convert::Infallible> {
    fn arg(self) -> usize {
        0
    }
}
