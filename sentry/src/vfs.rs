//! The virtual file system: what a file is, independently of who stores it.
//!
//! [`Inode`] is an object of a [`FileSystem`]; [`File`] is what `open(2)` makes of it; an
//! [`OpenFile`] is Linux's open file description (status flags, offset, the path by which it was
//! reached). Dentries, mounts and the path walk are beside them.
//!
//! Architecture Invariant: `vfs` does not know any concrete file system.
//! Architecture Invariant: nothing here blocks. An operation that would have to wait returns
//! `EAGAIN`; the system-call layer registers with [`File::register`] and tries again.

pub mod acl;
pub mod anon;
pub mod attr;
pub mod change;
pub mod dentry;
pub mod fd_table;
pub mod file;
pub mod fs_context;
pub mod fs_types;
mod handle;
pub mod host_io;
pub mod inode;
pub mod io;
pub mod layer;
pub mod lease;
pub mod lending;
pub mod lent;
pub mod lock;
pub mod mount;
pub mod names;
pub mod notify;
pub mod open;
pub mod path;
pub mod permission;
pub mod ring;
pub mod special;
pub mod walk;

pub use attr::{Attr, FileFlags, FileType, SetAttr, SetTime, Timestamp};
pub use file::{DirEntry, DirSink, File, MapMode, Mappable, Mapping, OpenFile, WriteOffset};
pub use inode::{
    Content, FileSystem, Inode, InodeExtras, ListEntry, LookupPolicy, NewNode, NodeKind, XattrFlags,
};
pub use io::{IoSink, IoSource, LimitedSink, SkippingSink, SliceSink, SliceSource, VecSink};
pub use path::Path;

use ::syscalls::abi::mount::MountFlags;

/// Records that the content of `path` has been read, where its mount keeps access times.
pub fn touch_atime(path: &Path) {
    let flags = path.mount.flags();
    let keeps_none = flags.intersects(MountFlags::NOATIME | MountFlags::RDONLY);
    let keeps_no_dir = flags.contains(MountFlags::NODIRATIME) && path.dentry.is_dir();
    if !keeps_none && !keeps_no_dir {
        path.inode().accessed(flags.contains(MountFlags::RELATIME));
    }
}
