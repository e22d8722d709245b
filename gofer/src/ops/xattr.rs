//! Extended attributes.
//!
//! `user.*` and access control lists can be read and written: whoever may change owners and permission bits may change
//! the latter. File capabilities can be read, so that the sentry can apply them. All others are the host's business and look
//! absent.

use std::os::fd::OwnedFd;

use gofer_wire::{Attr, Fid, Name, XATTR_MAX, XattrFlags};
use rustix::fs;
use syscalls::abi::fs::{XATTR_POSIX_ACL_ACCESS, XATTR_POSIX_ACL_DEFAULT};
use syscalls::{Errno, SysResult};

use crate::attr::errno;
use crate::fid_table::Node;
use crate::reopen::FdPath;
use crate::session::{Outcome, Session};

fn is_user(name: &[u8]) -> bool {
    name.starts_with(b"user.")
}

fn is_acl(name: &[u8]) -> bool {
    name == XATTR_POSIX_ACL_ACCESS || name == XATTR_POSIX_ACL_DEFAULT
}

fn is_readable(name: &[u8]) -> bool {
    is_user(name) || is_acl(name) || name == b"security.capability"
}

/// Returns the path of a file that can have extended attributes.
///
/// # Errors
/// `EPERM` as Linux has it for `user.*` on anything but regular files and directories.
fn writable_path(node: &Node, name: Name<'_>) -> SysResult<FdPath> {
    if is_acl(name.as_bytes()) && node.file_type != Attr::SYMLINK {
        return Ok(FdPath::new(&node.fd));
    }
    if !is_user(name.as_bytes()) {
        return Err(Errno::EOPNOTSUPP);
    }
    if node.file_type != Attr::REGULAR && node.file_type != Attr::DIRECTORY {
        return Err(Errno::EPERM);
    }
    Ok(FdPath::new(&node.fd))
}

/// Returns whether a file certainly has no access control list.
pub(crate) fn has_no_acl(fd: &OwnedFd) -> bool {
    let none: &mut [u8] = &mut [];
    let found = fs::getxattr(FdPath::new(fd).as_str(), XATTR_POSIX_ACL_ACCESS, none);
    matches!(found, Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP))
}

/// Returns a value.
///
/// # Errors
/// `ENODATA` where it is absent; `EOPNOTSUPP` where the client may not know.
pub(crate) fn get(session: &mut Session, fid: Fid, name: Name<'_>) -> SysResult<Outcome> {
    session.looks_for_acls |= name.as_bytes() == XATTR_POSIX_ACL_ACCESS;
    let node = session.fids.get(fid)?;
    if !is_readable(name.as_bytes()) {
        return Err(Errno::EOPNOTSUPP);
    }
    let path = FdPath::new(&node.fd);
    let mut value = Vec::with_capacity(XATTR_MAX);
    let space = rustix::buffer::spare_capacity(&mut value);
    fs::getxattr(path.as_str(), name.as_bytes(), space).map_err(errno)?;
    Ok(Outcome::Bytes(value))
}

/// Returns the names that the client may know, each with a NUL.
pub(crate) fn list(session: &Session, fid: Fid) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    let path = FdPath::new(&node.fd);
    let mut names = Vec::with_capacity(XATTR_MAX);
    fs::listxattr(path.as_str(), rustix::buffer::spare_capacity(&mut names)).map_err(errno)?;
    let known: Vec<u8> = names
        .split_inclusive(|&byte| byte == 0)
        .filter(|name| name.split_last().is_some_and(|(_, name)| is_readable(name)))
        .flatten()
        .copied()
        .collect();
    Ok(Outcome::Bytes(known))
}

/// Sets a value.
pub(crate) fn set(
    session: &Session,
    fid: Fid,
    name: Name<'_>,
    value: &[u8],
    flags: XattrFlags,
) -> SysResult<Outcome> {
    let path = writable_path(session.fids.get(fid)?, name)?;
    let mut host_flags = fs::XattrFlags::empty();
    host_flags.set(fs::XattrFlags::CREATE, flags.contains(XattrFlags::CREATE));
    host_flags.set(fs::XattrFlags::REPLACE, flags.contains(XattrFlags::REPLACE));
    fs::setxattr(path.as_str(), name.as_bytes(), value, host_flags).map_err(errno)?;
    Ok(Outcome::Done)
}

/// Removes a value.
pub(crate) fn remove(session: &Session, fid: Fid, name: Name<'_>) -> SysResult<Outcome> {
    let path = writable_path(session.fids.get(fid)?, name)?;
    fs::removexattr(path.as_str(), name.as_bytes()).map_err(errno)?;
    Ok(Outcome::Done)
}
