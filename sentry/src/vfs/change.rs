//! Changing attributes: the bodies of `chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)` and
//! `setxattr(2)`, with the checks in Linux's order.

use std::sync::atomic::Ordering;

use syscalls::abi::capability::{CAP_CHOWN, CAP_FSETID, CAP_SETFCAP, CAP_SYS_ADMIN};
use syscalls::abi::fs::{S_ISGID, S_ISVTX, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX};
use syscalls::abi::landlock::AccessFs;
use syscalls::{Errno, SysResult};

use super::acl::{Acl, AclKind};
use super::attr::{Attr, FileFlags, FileType, SetAttr, SetTime};
use super::inode::XattrFlags;
use super::path::Path;
use super::permission::{self, MAY_READ, MAY_WRITE};
use super::{notify, permission::is_owner};
use crate::task::Credentials;

/// Changes the permission bits.
///
/// # Errors
/// `EROFS`, `EPERM`, those of the file system.
pub fn chmod(creds: &Credentials, path: &Path, mode: u32) -> SysResult<()> {
    path.mount.check_writable()?;
    let attr = path.inode().access_attr()?;
    permission::may_change(&attr)?;
    if !is_owner(creds, &attr) {
        return Err(Errno::EPERM);
    }
    if attr.file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let mode = allowed_mode(creds, &attr, mode & 0o7777);
    apply(path, &SetAttr { mode: Some(mode), ..SetAttr::default() })
}

/// Returns a new mode for a file without a set-group-id bit for a group that is not the caller's.
fn allowed_mode(creds: &Credentials, attr: &Attr, mode: u32) -> u32 {
    let may_set =
        creds.is_in_group(attr.gid) || creds.is_capable_over(attr.uid, attr.gid, CAP_FSETID);
    if may_set { mode } else { mode & !S_ISGID }
}

/// Changes owner and group; `None` leaves one as it is.
///
/// # Errors
/// `EROFS`, `EPERM`, those of the file system.
pub fn chown(
    creds: &Credentials,
    path: &Path,
    uid: Option<u32>,
    gid: Option<u32>,
) -> SysResult<()> {
    path.mount.check_writable()?;
    let attr = path.inode().access_attr()?;
    permission::may_change(&attr)?;
    let may_chown = creds.is_capable_over(attr.uid, attr.gid, CAP_CHOWN);
    let is_own = creds.fsuid == attr.uid;
    let is_uid_fine = uid.is_none_or(|uid| is_own && uid == attr.uid);
    let is_gid_fine = gid.is_none_or(|gid| is_own && (gid == attr.gid || creds.is_in_group(gid)));
    let is_permitted = may_chown || (is_uid_fine && is_gid_fine);
    if !is_permitted {
        return Err(Errno::EPERM);
    }
    let mode = permission::without_set_id(&attr);
    apply(path, &SetAttr { uid, gid, mode, ..SetAttr::default() })
}

/// Changes the time stamps; `None` leaves one as it is. `is_now` says that both become the current
/// time, for which write permission is enough.
///
/// # Errors
/// `EROFS`, `EPERM`, `EACCES`, those of the file system.
pub fn set_times(
    creds: &Credentials,
    path: &Path,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
    is_now: bool,
) -> SysResult<()> {
    path.mount.check_writable()?;
    let attr = path.inode().access_attr()?;
    let is_append_only = attr.flags.contains(FileFlags::APPEND);
    if attr.flags.contains(FileFlags::IMMUTABLE) || (is_append_only && !is_now) {
        return Err(Errno::EPERM);
    }
    if !is_owner(creds, &attr) {
        if !is_now {
            return Err(Errno::EPERM);
        }
        permission::check(creds, &**path.inode(), &attr, MAY_WRITE)?;
    }
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    apply(path, &SetAttr { atime, mtime, ..SetAttr::default() })
}

/// Changes the size of a file that the caller may write to.
///
/// # Errors
/// Those of the file system.
pub fn truncate(creds: &Credentials, path: &Path, size: u64) -> SysResult<()> {
    let mode = mode_after_write(creds, &path.inode().attr()?);
    let change = SetAttr { size: Some(size), mode, ..SetAttr::default() };
    path.inode().set_attr(&change)?;
    notify::file(&path.dentry, notify::IN_MODIFY);
    Ok(())
}

/// Fails where a program runs from the file.
///
/// # Errors
/// `ETXTBSY`.
pub(super) fn check_not_running(path: &Path) -> SysResult<()> {
    let n_writers = path.inode().extras().n_writers.load(Ordering::Acquire);
    if n_writers < 0 { Err(Errno::ETXTBSY) } else { Ok(()) }
}

/// Implements `truncate(2)` on a path.
///
/// # Errors
/// `ETXTBSY`, `EISDIR`, `EINVAL`, `EROFS`, `EACCES`, those of the file system.
pub fn truncate_path(creds: &Credentials, path: &Path, size: u64) -> SysResult<()> {
    match path.inode().file_type() {
        FileType::Regular => {}
        FileType::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    path.mount.check_writable()?;
    let attr = path.inode().attr()?;
    permission::check(creds, &**path.inode(), &attr, MAY_WRITE)?;
    permission::may_change(&attr)?;
    if let Some(domain) = &creds.landlock {
        domain.check(path, AccessFs::TRUNCATE)?;
    }
    check_not_running(path)?;
    truncate(creds, path, size)
}

/// Returns the mode of a file that has been written to by somebody who may not keep its set-id
/// bits, where that differs.
pub fn mode_after_write(creds: &Credentials, attr: &Attr) -> Option<u32> {
    if creds.is_capable_over(attr.uid, attr.gid, CAP_FSETID) {
        None
    } else {
        permission::without_set_id(attr)
    }
}

fn apply(path: &Path, change: &SetAttr) -> SysResult<()> {
    path.inode().set_attr(change)?;
    notify::file(&path.dentry, notify::IN_ATTRIB);
    Ok(())
}

/// What a name of an extended attribute allows whom.
fn check_xattr(creds: &Credentials, path: &Path, name: &[u8], mask: u32) -> SysResult<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE);
    }
    let attr = path.inode().attr()?;
    let is_write = mask & MAY_WRITE != 0;
    if is_write {
        path.mount.check_writable()?;
        permission::may_change(&attr)?;
    }
    if name.starts_with(b"user.") {
        let is_kind_fine = matches!(attr.file_type(), FileType::Regular | FileType::Directory);
        if !is_kind_fine {
            return Err(if is_write { Errno::EPERM } else { Errno::ENODATA });
        }
        let is_sticky_dir = attr.file_type() == FileType::Directory && attr.mode & S_ISVTX != 0;
        if is_write && is_sticky_dir && !is_owner(creds, &attr) {
            return Err(Errno::EPERM);
        }
        return permission::check(creds, &**path.inode(), &attr, mask);
    }
    if name.starts_with(b"trusted.") {
        if creds.has_capability(CAP_SYS_ADMIN) {
            return Ok(());
        }
        return Err(if is_write { Errno::EPERM } else { Errno::ENODATA });
    }
    if name.starts_with(b"security.") {
        let needed = if name == b"security.capability" { CAP_SETFCAP } else { CAP_SYS_ADMIN };
        let is_fine = !is_write || creds.has_capability(needed);
        return if is_fine { Ok(()) } else { Err(Errno::EPERM) };
    }
    Err(Errno::EOPNOTSUPP)
}

/// Implements `setxattr(2)`.
///
/// # Errors
/// `ERANGE`, `E2BIG`, `EPERM`, `EACCES`, `EROFS`, `EOPNOTSUPP`, `EEXIST`, `ENODATA`, `ENOSPC`.
pub fn set_xattr(
    creds: &Credentials,
    path: &Path,
    name: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> SysResult<()> {
    if value.len() > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    if let Some(kind) = AclKind::of_name(name) {
        return set_acl(creds, path, kind, value);
    }
    check_xattr(creds, path, name, MAY_WRITE)?;
    path.inode().set_xattr(name, value, flags)?;
    notify::file(&path.dentry, notify::IN_ATTRIB);
    Ok(())
}

/// Implements `getxattr(2)`.
///
/// # Errors
/// `ERANGE`, `ENODATA`, `EACCES`, `EOPNOTSUPP`.
pub fn get_xattr(creds: &Credentials, path: &Path, name: &[u8]) -> SysResult<Vec<u8>> {
    if let Some(kind) = AclKind::of_name(name) {
        return get_acl(creds, path, kind);
    }
    check_xattr(creds, path, name, MAY_READ)?;
    path.inode().get_xattr(name)
}

/// Implements `listxattr(2)`: the names, each with a NUL behind it.
///
/// # Errors
/// `E2BIG`, those of the file system.
pub fn list_xattr(creds: &Credentials, path: &Path) -> SysResult<Vec<u8>> {
    let may_see_trusted = creds.has_capability(CAP_SYS_ADMIN);
    let mut list = Vec::new();
    for name in path.inode().list_xattr()? {
        if may_see_trusted || !name.starts_with(b"trusted.") {
            list.extend_from_slice(&name);
            list.push(0);
        }
    }
    if list.len() > XATTR_LIST_MAX { Err(Errno::E2BIG) } else { Ok(list) }
}

/// Implements `removexattr(2)`.
///
/// # Errors
/// `ERANGE`, `ENODATA`, `EPERM`, `EACCES`, `EROFS`, `EOPNOTSUPP`.
pub fn remove_xattr(creds: &Credentials, path: &Path, name: &[u8]) -> SysResult<()> {
    if let Some(kind) = AclKind::of_name(name) {
        return set_acl(creds, path, kind, b"");
    }
    check_xattr(creds, path, name, MAY_WRITE)?;
    path.inode().remove_xattr(name)?;
    notify::file(&path.dentry, notify::IN_ATTRIB);
    Ok(())
}

/// Sets an access control list, given in the caller's ids, or removes it where there are no entries.
fn set_acl(creds: &Credentials, path: &Path, kind: AclKind, value: &[u8]) -> SysResult<()> {
    path.mount.check_writable()?;
    let user_ns = &creds.user_ns;
    let acl = if value.is_empty() {
        None
    } else {
        Acl::parse(value, |uid| user_ns.kuid(uid), |gid| user_ns.kgid(gid))?
    };
    let inode = path.inode();
    let attr = inode.access_attr()?;
    permission::may_change(&attr)?;
    match attr.file_type() {
        FileType::Symlink => return Err(Errno::EOPNOTSUPP),
        FileType::Directory => {}
        _ if kind == AclKind::Default => {
            return if acl.is_some() { Err(Errno::EACCES) } else { Ok(()) };
        }
        _ => {}
    }
    if !is_owner(creds, &attr) {
        return Err(Errno::EPERM);
    }
    match acl {
        Some(acl) => {
            let bytes = acl.to_bytes(|id| id, |id| id);
            inode.set_xattr(kind.name(), &bytes, XattrFlags::empty())?;
        }
        None => match inode.remove_xattr(kind.name()) {
            Err(Errno::ENODATA) => {}
            result => result?,
        },
    }
    if kind == AclKind::Access && attr.mode & S_ISGID != 0 {
        let mode = inode.attr()?.mode & 0o7777;
        let kept = allowed_mode(creds, &attr, mode);
        if kept != mode {
            inode.set_attr(&SetAttr { mode: Some(kept), ..SetAttr::default() })?;
        }
    }
    notify::file(&path.dentry, notify::IN_ATTRIB);
    Ok(())
}

/// Returns an access control list in the caller's ids.
fn get_acl(creds: &Credentials, path: &Path, kind: AclKind) -> SysResult<Vec<u8>> {
    if path.inode().file_type() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let acl = Acl::from_bytes(&path.inode().get_xattr(kind.name())?)?.ok_or(Errno::ENODATA)?;
    let user_ns = &creds.user_ns;
    let uid = |id| user_ns.uid_of(id).unwrap_or(u32::MAX);
    let gid = |id| user_ns.gid_of(id).unwrap_or(u32::MAX);
    Ok(acl.to_bytes(uid, gid))
}
