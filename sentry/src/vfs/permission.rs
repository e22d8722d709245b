//! Who may do what to a file: ids, groups, access control lists, capabilities and the rules around them.

use std::sync::Arc;

use syscalls::abi::capability::{CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID};
use syscalls::abi::fs::{S_ISGID, S_ISUID, S_ISVTX, S_IXGRP, S_IXUGO};
use syscalls::{Errno, SysResult};

use super::acl::{Acl, AclKind};
use super::attr::{Attr, FileFlags, FileType};
use super::inode::Inode;
use crate::task::Credentials;

/// Permission to execute, or to search a directory.
pub const MAY_EXEC: u32 = 1;
/// Permission to write.
pub const MAY_WRITE: u32 = 2;
/// Permission to read.
pub const MAY_READ: u32 = 4;

/// Checks `mask` against the access control list, or mode, owner and group, of a file that has these attributes, then
/// against capabilities.
///
/// # Errors
/// `EACCES`; `EPERM` for writing to an immutable file; those of asking for the list.
pub fn check(creds: &Credentials, inode: &dyn Inode, attr: &Attr, mask: u32) -> SysResult<()> {
    check_with(creds, attr, mask, || inode.acl(AclKind::Access))
}

/// Checks `mask` against mode, owner and group alone, then against capabilities: for what has no access control list.
///
/// # Errors
/// `EACCES`; `EPERM` for writing to an immutable file.
pub fn check_mode(creds: &Credentials, attr: &Attr, mask: u32) -> SysResult<()> {
    check_with(creds, attr, mask, || Ok(None))
}

fn check_with(
    creds: &Credentials,
    attr: &Attr,
    mask: u32,
    acl: impl FnOnce() -> SysResult<Option<Arc<Acl>>>,
) -> SysResult<()> {
    if mask & MAY_WRITE != 0 && attr.flags.contains(FileFlags::IMMUTABLE) {
        return Err(Errno::EPERM);
    }
    // A list leaves the owner alone, and one whose mask is empty does not count. Whoever need not ask does not: the list may
    // have to be fetched.
    let may_have_acl = creds.fsuid != attr.uid && attr.mode & 0o070 != 0;
    if may_have_acl && may_override(creds, attr, mask) {
        return Ok(());
    }
    if may_have_acl && let Some(acl) = acl()? {
        return if acl.permits(creds, attr, mask) { Ok(()) } else { Err(Errno::EACCES) };
    }
    let shift = if creds.fsuid == attr.uid {
        6
    } else if attr.mode & 0o070 != (attr.mode & 0o007) << 3 && creds.is_in_group(attr.gid) {
        // The groups need no look where they would change nothing.
        3
    } else {
        0
    };
    let is_permitted =
        mask & !(attr.mode >> shift) & 7 == 0 || (!may_have_acl && may_override(creds, attr, mask));
    if is_permitted { Ok(()) } else { Err(Errno::EACCES) }
}

/// Returns whether capabilities permit what nothing else does.
fn may_override(creds: &Credentials, attr: &Attr, mask: u32) -> bool {
    let is_dir = attr.file_type() == FileType::Directory;
    let is_reading = mask & MAY_WRITE == 0 && (is_dir || mask & MAY_EXEC == 0);
    if is_reading && creds.is_capable_over(attr.uid, attr.gid, CAP_DAC_READ_SEARCH) {
        return true;
    }
    let is_overridable = is_dir || mask & MAY_EXEC == 0 || attr.mode & S_IXUGO != 0;
    is_overridable && creds.is_capable_over(attr.uid, attr.gid, CAP_DAC_OVERRIDE)
}

/// Returns whether the caller counts as the file's owner.
pub fn is_owner(creds: &Credentials, attr: &Attr) -> bool {
    creds.fsuid == attr.uid || creds.is_capable_over(attr.uid, attr.gid, CAP_FOWNER)
}

/// Checks that attributes or content of a file may be changed other than by appending to it.
///
/// # Errors
/// `EPERM` for an immutable file, and one that may only be appended to.
pub fn may_change(attr: &Attr) -> SysResult<()> {
    if attr.flags.intersects(FileFlags::IMMUTABLE | FileFlags::APPEND) {
        Err(Errno::EPERM)
    } else {
        Ok(())
    }
}

/// Checks that an entry may be added to a directory.
///
/// # Errors
/// `EACCES`.
pub fn may_create(creds: &Credentials, dir: &dyn Inode, attr: &Attr) -> SysResult<()> {
    check(creds, dir, attr, MAY_WRITE | MAY_EXEC)
}

/// Checks that `victim` may be removed from a directory, or renamed.
///
/// # Errors
/// `EACCES`; `EPERM` in a sticky directory, and for what may not be changed.
pub fn may_delete(creds: &Credentials, inode: &dyn Inode, victim: &Attr) -> SysResult<()> {
    let dir = inode.access_attr()?;
    check(creds, inode, &dir, MAY_WRITE | MAY_EXEC)?;
    may_delete_from(creds, &dir, victim)
}

fn may_delete_from(creds: &Credentials, dir: &Attr, victim: &Attr) -> SysResult<()> {
    if dir.flags.contains(FileFlags::APPEND) {
        return Err(Errno::EPERM);
    }
    may_change(victim)?;
    let is_protected =
        dir.mode & S_ISVTX != 0 && creds.fsuid != victim.uid && creds.fsuid != dir.uid;
    if is_protected && !creds.is_capable_over(victim.uid, victim.gid, CAP_FOWNER) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Checks that a symbolic link may be followed as the last component of a path
/// (`fs.protected_symlinks`).
///
/// # Errors
/// `EACCES`.
pub fn may_follow_link(creds: &Credentials, dir: &Attr, link: &Attr) -> SysResult<()> {
    let is_sticky = dir.mode & S_ISVTX != 0 && dir.mode & 0o002 != 0;
    if !is_sticky || creds.fsuid == link.uid || dir.uid == link.uid {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Checks that a hard link to a file may be made (`fs.protected_hardlinks`).
///
/// # Errors
/// `EPERM`.
pub fn may_link(creds: &Credentials, inode: &dyn Inode) -> SysResult<()> {
    let target = &inode.access_attr()?;
    may_change(target)?;
    if is_owner(creds, target) {
        return Ok(());
    }
    let is_set_group = target.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    let is_safe = target.file_type() == FileType::Regular
        && target.mode & S_ISUID == 0
        && !is_set_group
        && check(creds, inode, target, MAY_READ | MAY_WRITE).is_ok();
    if is_safe { Ok(()) } else { Err(Errno::EPERM) }
}

/// Checks that an existing file in a sticky directory may be opened with `O_CREAT`
/// (`fs.protected_regular`, `fs.protected_fifos`, both 1).
///
/// # Errors
/// `EACCES`.
pub fn may_create_in_sticky(creds: &Credentials, dir: &Attr, file: &Attr) -> SysResult<()> {
    let is_guarded = matches!(file.file_type(), FileType::Regular | FileType::Fifo)
        && dir.mode & S_ISVTX != 0
        && dir.mode & 0o002 != 0;
    if is_guarded && file.uid != dir.uid && file.uid != creds.fsuid {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Returns mode and group of a new file: the group of a set-group-id directory is inherited, by a
/// new directory together with the bit.
pub fn inherit(creds: &Credentials, dir: &Attr, mode: u32, is_dir: bool) -> (u32, u32) {
    if dir.mode & S_ISGID == 0 {
        return (mode, creds.fsgid);
    }
    if is_dir {
        return (mode | S_ISGID, dir.gid);
    }
    let is_foreign_group = mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
        && !creds.is_in_group(dir.gid)
        && !creds.is_capable_over(dir.uid, dir.gid, CAP_FSETID);
    (if is_foreign_group { mode & !S_ISGID } else { mode }, dir.gid)
}

/// Returns the mode of a regular file after somebody without `CAP_FSETID` has written to it or
/// changed its owner, where that differs.
pub fn without_set_id(attr: &Attr) -> Option<u32> {
    if attr.file_type() != FileType::Regular {
        return None;
    }
    let mut mode = attr.mode & !S_ISUID;
    if mode & S_IXGRP != 0 {
        mode &= !S_ISGID;
    }
    (mode != attr.mode).then_some(mode & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(fsuid: u32, fsgid: u32) -> Credentials {
        Credentials { fsuid, fsgid, ..Credentials::root(0) }
    }

    fn file(mode: u32, uid: u32, gid: u32) -> Attr {
        Attr { mode, uid, gid, ..Attr::default() }
    }

    #[test]
    fn check_uses_the_first_class_that_matches() {
        let file = file(0o100_077, 1, 2);
        assert_eq!(check_mode(&user(1, 2), &file, MAY_READ), Err(Errno::EACCES));
        assert_eq!(check_mode(&user(3, 2), &file, MAY_READ), Ok(()));
        assert_eq!(check_mode(&user(3, 4), &file, MAY_WRITE), Ok(()));
    }

    #[test]
    fn dac_override_executes_only_what_somebody_may_execute() {
        let root = Credentials::root(u64::MAX);
        assert_eq!(check_mode(&root, &file(0o100_600, 1, 1), MAY_EXEC), Err(Errno::EACCES));
        assert_eq!(check_mode(&root, &file(0o100_100, 1, 1), MAY_EXEC), Ok(()));
        assert_eq!(check_mode(&root, &file(0o040_000, 1, 1), MAY_EXEC | MAY_WRITE), Ok(()));
    }

    #[test]
    fn sticky_directory_protects_the_files_of_others() {
        let dir = file(0o041_777, 0, 0);
        assert_eq!(may_delete_from(&user(1, 1), &dir, &file(0o100_666, 2, 2)), Err(Errno::EPERM));
        assert_eq!(may_delete_from(&user(2, 2), &dir, &file(0o100_666, 2, 2)), Ok(()));
        assert_eq!(may_follow_link(&user(1, 1), &dir, &file(0o120_777, 2, 2)), Err(Errno::EACCES));
    }

    #[test]
    fn set_group_id_directory_passes_on_its_group() {
        let dir = file(0o042_755, 0, 7);
        assert_eq!(inherit(&user(1, 1), &dir, 0o755, true), (0o2755, 7));
        assert_eq!(inherit(&user(1, 1), &dir, 0o2755, false), (0o755, 7));
    }
}
