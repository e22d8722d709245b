//! Attributes: `Attach`, `Getattr`, `Setattr`, `Statfs`.

use gofer_wire::flags::MountFlags;
use gofer_wire::request::Ownership;
use gofer_wire::{Attr, Fid, ROOT_FID, SetAttr, SetAttrMask, Timespec, VERSION, reply};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use syscalls::{Errno, SysResult};

use crate::attr::{self, errno};
use crate::fid_table::Node;
use crate::reopen::{FdPath, Reopener};
use crate::session::{Outcome, Session};

/// Agrees on the version.
pub(crate) fn attach(session: &Session, version: u32) -> SysResult<Outcome> {
    if version != VERSION {
        return Err(Errno::EPROTO);
    }
    let options = session.options;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::READONLY, options.readonly);
    flags.set(MountFlags::CONNECT, options.connect_unix_sockets);
    flags.set(MountFlags::BIND, options.bind_unix_sockets);
    flags.set(MountFlags::TMPFILE, options.tmpfiles || !options.readonly);
    let attr = attr::get(&session.fids.get(ROOT_FID)?.fd)?;
    Ok(Outcome::Attach(reply::Attach { version: VERSION, flags: flags.bits(), attr }))
}

/// Returns attributes.
pub(crate) fn getattr(session: &Session, fid: Fid) -> SysResult<Outcome> {
    Ok(Outcome::Attr(attr::get(&session.fids.get(fid)?.fd)?))
}

/// Returns the state of the file system.
pub(crate) fn statfs(session: &Session, fid: Fid) -> SysResult<Outcome> {
    Ok(Outcome::Statfs(attr::statfs(&session.fids.get(fid)?.fd)?))
}

/// Changes attributes: the length, then the owner, then the mode (which a change of owner clears in
/// part), then the times (which a change of length sets).
pub(crate) fn setattr(
    session: &Session,
    reopener: &Reopener,
    fid: Fid,
    new: &SetAttr,
) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    let mask = SetAttrMask::from_bits(new.mask).ok_or(Errno::EINVAL)?;
    if mask.contains(SetAttrMask::SIZE) {
        truncate(node, reopener, new.size)?;
    }
    if mask.intersects(SetAttrMask::UID | SetAttrMask::GID) {
        let uid = mask.contains(SetAttrMask::UID).then_some(new.uid);
        let gid = mask.contains(SetAttrMask::GID).then_some(new.gid);
        chown(node, uid, gid)?;
    }
    if mask.contains(SetAttrMask::MODE) {
        chmod(node, reopener, new.mode)?;
    }
    let times = Timestamps {
        last_access: time(new.atime, mask, SetAttrMask::ATIME, SetAttrMask::ATIME_NOW)?,
        last_modification: time(new.mtime, mask, SetAttrMask::MTIME, SetAttrMask::MTIME_NOW)?,
    };
    let any_time =
        SetAttrMask::ATIME | SetAttrMask::ATIME_NOW | SetAttrMask::MTIME | SetAttrMask::MTIME_NOW;
    if mask.intersects(any_time) {
        let path = FdPath::new(&node.fd);
        fs::utimensat(reopener.dir(), path.as_str(), &times, AtFlags::empty()).map_err(errno)?;
    }
    Ok(Outcome::Attr(attr::get(&node.fd)?))
}

fn truncate(node: &Node, reopener: &Reopener, size: u64) -> SysResult<()> {
    match node.file_type {
        Attr::REGULAR => {}
        Attr::DIRECTORY => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    if i64::try_from(size).is_err() {
        return Err(Errno::EINVAL);
    }
    let file = reopener.open(&node.fd, OFlags::WRONLY).map_err(errno)?;
    fs::ftruncate(&file, size).map_err(errno)
}

fn chown(node: &Node, uid: Option<u32>, gid: Option<u32>) -> SysResult<()> {
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let uid = uid.map(Uid::from_raw);
    let gid = gid.map(Gid::from_raw);
    fs::chownat(&node.fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)
}

fn chmod(node: &Node, reopener: &Reopener, mode: u32) -> SysResult<()> {
    let path = FdPath::new(&node.fd);
    let mode = Mode::from_raw_mode(mode & 0o7777);
    fs::chmodat(reopener.dir(), path.as_str(), mode, AtFlags::empty()).map_err(errno)
}

fn time(
    value: Timespec,
    mask: SetAttrMask,
    set: SetAttrMask,
    now: SetAttrMask,
) -> SysResult<fs::Timespec> {
    let (tv_sec, tv_nsec) = if mask.contains(now) {
        (0, UTIME_NOW)
    } else if !mask.contains(set) {
        (0, UTIME_OMIT)
    } else if value.nanoseconds < 1_000_000_000 {
        (value.seconds, value.nanoseconds.into())
    } else {
        return Err(Errno::EINVAL);
    };
    Ok(fs::Timespec { tv_sec, tv_nsec })
}

/// Makes a file with the umask that was asked for, so that the host decides between that and a default access control list.
pub(crate) fn with_umask<T>(wanted: &Ownership, make: impl FnOnce() -> T) -> T {
    let old = rustix::process::umask(Mode::from_raw_mode(wanted.umask));
    let made = make();
    rustix::process::umask(old);
    made
}

/// Gives a new file the owner and the set-id bits that were asked for, whatever the directory's set-group-id bit has made of
/// them, and no permission that was not asked for, and returns its attributes.
pub(crate) fn settle(node: &Node, reopener: &Reopener, wanted: &Ownership) -> SysResult<Attr> {
    let attr = attr::get(&node.fd)?;
    let mode = wanted.mode & 0o7000 | wanted.mode & attr.mode & 0o777;
    let mut is_changed = false;
    if (attr.uid, attr.gid) != (wanted.uid, wanted.gid) {
        chown(node, Some(wanted.uid), Some(wanted.gid))?;
        is_changed = true;
    }
    // A change of owner clears set-id bits, so a mode with any of them is set after it in any case.
    let is_mode_right = attr.mode & 0o7777 == mode && (!is_changed || mode & 0o6000 == 0);
    if node.file_type != Attr::SYMLINK && !is_mode_right {
        chmod(node, reopener, mode)?;
        is_changed = true;
    }
    if is_changed { attr::get(&node.fd) } else { Ok(attr) }
}
