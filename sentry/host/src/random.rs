//! The host's random numbers.
#![expect(unsafe_code, reason = "host calls")]

use syscalls::{Errno, SysResult};

use crate::Rule;

/// The call is in the runtime's list.
pub(crate) const RULES: &[Rule] = &[];

/// Fills `buffer` with random bytes.
///
/// # Errors
/// `EIO` where the host gives none, which it does not once it has booted.
pub fn fill(buffer: &mut [u8]) -> SysResult<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..)
        && !rest.is_empty()
    {
        // SAFETY: `rest` is writable for its whole length.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => done += n,
            Err(_) if crate::last_errno() == Errno::EINTR => {}
            Err(_) => return Err(Errno::EIO),
        }
    }
    Ok(())
}
