//! Descriptors of regular files: `Open`, `Create`, `TmpFile`, `Fsync`.

use std::os::fd::OwnedFd;

use gofer_wire::request::Ownership;
use gofer_wire::{Attr, Fid, Name, OpenFlags, reply};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use syscalls::{Errno, SysResult};

use crate::attr::{self, errno};
use crate::fid_table::Node;
use crate::ops;
use crate::reopen::Reopener;
use crate::session::{Outcome, Session};

/// Donates a descriptor of a regular file.
///
/// # Errors
/// `EROFS` for write access to a read-only mount; `EISDIR`, `ELOOP`, `EACCES` (devices) and `ENXIO`
/// (sockets and FIFOs) for what is not a regular file.
pub(crate) fn open(
    session: &Session,
    reopener: &Reopener,
    fid: Fid,
    flags: OpenFlags,
) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    match node.file_type {
        Attr::REGULAR => {}
        Attr::DIRECTORY => return Err(Errno::EISDIR),
        Attr::SYMLINK => return Err(Errno::ELOOP),
        Attr::CHARACTER | Attr::BLOCK => return Err(Errno::EACCES),
        _ => return Err(Errno::ENXIO),
    }
    if session.options.readonly && flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE) {
        return Err(Errno::EROFS);
    }
    let file = reopener.open(&node.fd, host_flags(flags)?).map_err(errno)?;
    Ok(Outcome::Descriptors(vec![file]))
}

/// Creates a regular file where none is, and donates a descriptor of it.
pub(crate) fn create(
    session: &mut Session,
    reopener: &Reopener,
    dir: Fid,
    name: Name<'_>,
    flags: OpenFlags,
    ownership: &Ownership,
) -> SysResult<Outcome> {
    let parent = session.fids.directory(dir)?;
    let flags = host_flags(flags)? | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY;
    let mode = Mode::from_raw_mode(ownership.mode & 0o7777);
    let file =
        ops::attr::with_umask(ownership, || ops::walk::open_child(&parent.fd, name, flags, mode))?;
    let registered = (|| {
        let fd = reopener.open(&file, OFlags::PATH).map_err(errno)?;
        let attr = attr::get(&fd)?;
        let node = Node::new(fd, &attr);
        let attr = ops::attr::settle(&node, reopener, ownership)?;
        Ok((node, attr))
    })();
    match registered.and_then(|(node, attr)| Ok((session.fids.insert(node)?, attr))) {
        Ok((fid, attr)) => Ok(Outcome::Node(reply::Node::new(fid, attr), Some(file))),
        Err(errno) => {
            let parent = session.fids.directory(dir)?;
            let _ = fs::unlinkat(&parent.fd, name.as_bytes(), AtFlags::empty());
            Err(errno)
        }
    }
}

/// Donates descriptors of a file that has no name and can never have one.
///
/// # Errors
/// `EROFS` where the mount permits it not; `EOPNOTSUPP` where the file system does not.
pub(crate) fn tmpfile(session: &Session, reopener: &Reopener, dir: Fid) -> SysResult<Outcome> {
    if session.options.readonly && !session.options.tmpfiles {
        return Err(Errno::EROFS);
    }
    let parent = session.fids.directory(dir)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = fs::openat(&parent.fd, ".", flags, mode).map_err(errno)?;
    let read_only = reopener.open(&file, OFlags::RDONLY).map_err(errno)?;
    Ok(Outcome::Descriptors(vec![file, read_only]))
}

/// Writes a file or directory to its device.
pub(crate) fn fsync(
    session: &Session,
    reopener: &Reopener,
    fid: Fid,
    data_only: bool,
) -> SysResult<Outcome> {
    let file = open_to_sync(session, reopener, fid)?;
    let synced = if data_only { fs::fdatasync(&file) } else { fs::fsync(&file) };
    synced.map_err(errno)?;
    Ok(Outcome::Done)
}

/// Writes the file system that holds a file or directory to its device.
pub(crate) fn sync_fs(session: &Session, reopener: &Reopener, fid: Fid) -> SysResult<Outcome> {
    fs::syncfs(open_to_sync(session, reopener, fid)?).map_err(errno)?;
    Ok(Outcome::Done)
}

fn open_to_sync(session: &Session, reopener: &Reopener, fid: Fid) -> SysResult<OwnedFd> {
    let node = session.fids.get(fid)?;
    if node.file_type != Attr::REGULAR && node.file_type != Attr::DIRECTORY {
        return Err(Errno::EINVAL);
    }
    reopener.open(&node.fd, OFlags::RDONLY).map_err(errno)
}

/// Translates the flags of the wire.
///
/// # Errors
/// `EINVAL` where neither reading nor writing is asked for, or truncation without writing.
fn host_flags(flags: OpenFlags) -> SysResult<OFlags> {
    let access = flags.intersection(OpenFlags::READ | OpenFlags::WRITE);
    let mut host = if access == OpenFlags::READ {
        OFlags::RDONLY
    } else if access == OpenFlags::WRITE {
        OFlags::WRONLY
    } else if access == OpenFlags::READ | OpenFlags::WRITE {
        OFlags::RDWR
    } else {
        return Err(Errno::EINVAL);
    };
    if flags.contains(OpenFlags::TRUNCATE) && !flags.contains(OpenFlags::WRITE) {
        return Err(Errno::EINVAL);
    }
    host.set(OFlags::TRUNC, flags.contains(OpenFlags::TRUNCATE));
    host.set(OFlags::DIRECT, flags.contains(OpenFlags::DIRECT));
    host.set(OFlags::DSYNC, flags.contains(OpenFlags::DSYNC));
    if flags.contains(OpenFlags::SYNC) {
        host |= OFlags::SYNC;
    }
    Ok(host)
}
