//! The operations, by family. Each takes the session and the fields of its request.

pub(crate) mod attr;
pub(crate) mod dir;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod socket;
pub(crate) mod walk;
pub(crate) mod watch;
pub(crate) mod xattr;
