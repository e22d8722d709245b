//! [`Name`]: one component of a path, proven harmless by its type.

use core::fmt;

use crate::NAME_MAX;
use crate::codec::WireError;

/// One component of a path: not empty, not `.`, not `..`, without `/` and NUL, at most 255 bytes.
///
/// So a single-component lookup of it, below any directory, cannot leave that directory other than
/// through a symbolic link or a mount.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks a component.
    ///
    /// # Errors
    /// `WireError::BadName` for whatever the type excludes.
    pub fn new(bytes: &'a [u8]) -> Result<Self, WireError> {
        let is_harmless = !bytes.is_empty()
            && bytes.len() <= NAME_MAX
            && bytes != b"."
            && bytes != b".."
            && !bytes.iter().any(|&byte| byte == b'/' || byte == 0);
        if is_harmless { Ok(Self(bytes)) } else { Err(WireError::BadName) }
    }

    /// Returns the component's bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
