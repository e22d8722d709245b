#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod attr;
pub mod codec;
pub mod flags;
pub mod name;
pub mod reply;
pub mod request;

pub use attr::{Attr, SetAttr, Statfs, Timespec};
pub use codec::{Header, Opcode, WireError};
pub use flags::{BindKind, OpenFlags, RenameFlags, SetAttrMask, UnlinkFlags, XattrFlags};
pub use name::Name;
pub use request::Request;

/// The name of a file on a connection. The gofer chooses it.
pub type Fid = u32;

/// The root of the mount, valid for as long as the connection is.
pub const ROOT_FID: Fid = 0;

/// The version that `Attach` asks for and returns.
pub const VERSION: u32 = 4;

/// The length of the longest message, header included.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The number of descriptors that may come with a reply.
pub const MAX_DESCRIPTORS: usize = 2;

/// The number of components that one `Walk` may name.
pub const MAX_WALK: usize = 64;

/// The number of fids that one `Close` may name.
pub const MAX_CLOSE: usize = 1024;

/// The number of files that may be watched on one connection.
pub const MAX_WATCHES: usize = 16 * 1024;

/// The length of the longest name.
pub const NAME_MAX: usize = 255;

/// The length of the longest symbolic link, without its NUL.
pub const SYMLINK_MAX: usize = 4095;

/// The length of the longest extended attribute, which leaves room for the name and the header.
/// Linux permits 64 KiB, which no file system but tmpfs stores.
pub const XATTR_MAX: usize = MAX_MESSAGE - 512;
