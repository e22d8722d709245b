//! Structures that grow with the versions of Linux (`copy_struct_from_user()`).

use syscalls::abi::mm::PAGE_SIZE;
use syscalls::{Errno, SysResult, UserAddr};
use zerocopy::{FromBytes, IntoBytes};

use crate::task::CurrentTask;

/// Reads a structure of which the caller has `size` bytes: what it does not have is zero.
///
/// # Errors
/// `E2BIG` for more than a page, or where what this version does not have is not zero; `EFAULT`.
pub(super) fn read<T: FromBytes + IntoBytes>(
    task: &CurrentTask,
    addr: UserAddr,
    size: usize,
) -> SysResult<T> {
    if size as u64 > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    task.read_bytes(addr, &mut bytes)?;
    let (given, rest) = bytes.split_at(size.min(size_of::<T>()));
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut read = T::new_zeroed();
    if let Some(place) = read.as_mut_bytes().get_mut(..given.len()) {
        place.copy_from_slice(given);
    }
    Ok(read)
}
