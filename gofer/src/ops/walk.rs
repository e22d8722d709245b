//! Resolving names: `Walk`, `Lookup`, `Readlink`.

use std::os::fd::{AsFd, OwnedFd};

use gofer_wire::request::Names;
use gofer_wire::{Attr, Fid, Name, SYMLINK_MAX, reply};
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use syscalls::{Errno, SysResult};

use crate::attr::{self, errno};
use crate::fid_table::Node;
use crate::ops;
use crate::session::{Outcome, Session};

/// Looks up one component below a directory and opens it, without following it.
pub(crate) fn open_child(
    dir: &impl AsFd,
    name: Name<'_>,
    flags: OFlags,
    mode: Mode,
) -> SysResult<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    fs::openat2(dir, name.as_bytes(), flags, mode, resolve).map_err(errno)
}

/// Resolves as many components as it can.
pub(crate) fn walk(
    session: &mut Session,
    tag: u32,
    fid: Fid,
    names: &Names<'_>,
    buffer: &mut Vec<u8>,
) -> SysResult<Outcome> {
    session.fids.directory(fid)?;
    let mut nodes = Vec::with_capacity(names.len());
    let mut stopped = None;
    let mut target = None;
    let mut dir = fid;
    for name in names.iter() {
        let node = match step(session, dir, name) {
            Ok(node) => node,
            Err(errno) => {
                stopped = Some(errno);
                break;
            }
        };
        nodes.push(node);
        dir = node.fid;
        match node.attr.file_type() {
            Attr::DIRECTORY => {}
            Attr::SYMLINK => {
                target = read_target(&session.fids.get(node.fid)?.fd).ok();
                break;
            }
            _ => break,
        }
    }
    reply::Walk::encode(tag, &nodes, stopped, target.as_deref(), buffer)?;
    Ok(Outcome::Encoded)
}

/// Resolves names below one directory, each by itself.
pub(crate) fn lookup(
    session: &mut Session,
    tag: u32,
    dir: Fid,
    names: &Names<'_>,
    buffer: &mut Vec<u8>,
) -> SysResult<Outcome> {
    session.fids.directory(dir)?;
    let mut results = Vec::with_capacity(names.len());
    for name in names.iter() {
        match step(session, dir, name) {
            Err(Errno::EMFILE | Errno::ENFILE) => break,
            result => results.push(result),
        }
    }
    reply::Lookups::encode(tag, &results, buffer)?;
    Ok(Outcome::Encoded)
}

fn step(session: &mut Session, dir: Fid, name: Name<'_>) -> SysResult<reply::Node> {
    if session.fids.get(dir)?.is_pseudo {
        return Err(Errno::ENOENT);
    }
    let parent = session.fids.directory(dir)?;
    let parent_dev = parent.dev;
    let fd = open_child(&parent.fd, name, OFlags::PATH, Mode::empty())?;
    let mut attr = attr::get(&fd)?;
    // Where the group has no permissions, a list does not count.
    let may_matter = attr.file_type() != Attr::SYMLINK && attr.mode & 0o070 != 0;
    if session.looks_for_acls && may_matter && ops::xattr::has_no_acl(&fd) {
        attr.acl = Attr::ACL_NONE;
    }
    let crosses_mount = parent_dev != (attr.dev_major, attr.dev_minor);
    let mut node = Node::new(fd, &attr);
    if crosses_mount
        && !session.options.pseudo_filesystems
        && attr::is_on_pseudo_filesystem(&node.fd)?
    {
        // A mount point of such a file system is an empty directory, on which the sentry can mount
        // its own.
        if node.file_type != Attr::DIRECTORY {
            return Err(Errno::EACCES);
        }
        node.is_pseudo = true;
    }
    let fid = session.fids.insert(node)?;
    Ok(reply::Node::new(fid, attr))
}

/// Returns the target of a symbolic link.
pub(crate) fn readlink(session: &Session, fid: Fid) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    if node.file_type != Attr::SYMLINK {
        return Err(Errno::EINVAL);
    }
    Ok(Outcome::Bytes(read_target(&node.fd)?))
}

fn read_target(fd: &impl AsFd) -> SysResult<Vec<u8>> {
    let mut target = Vec::with_capacity(SYMLINK_MAX);
    let n_bytes =
        fs::readlinkat_raw(fd, "", rustix::buffer::spare_capacity(&mut target)).map_err(errno)?;
    target.truncate(n_bytes);
    Ok(target)
}
