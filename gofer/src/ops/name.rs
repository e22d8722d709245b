//! Names in directories: `Mkdir`, `Symlink`, `Link`, `Mknod`, `Unlink`, `Rename`.

use gofer_wire::request::Ownership;
use gofer_wire::{Attr, Fid, Name, RenameFlags, UnlinkFlags, reply};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use syscalls::{Errno, SysResult};

use crate::attr::{self, errno};
use crate::fid_table::Node;
use crate::ops;
use crate::ops::attr::with_umask;
use crate::reopen::{FdPath, Reopener};
use crate::session::{Outcome, Session};

/// Creates a directory.
pub(crate) fn mkdir(
    session: &mut Session,
    reopener: &Reopener,
    dir: Fid,
    name: Name<'_>,
    ownership: &Ownership,
) -> SysResult<Outcome> {
    let parent = session.fids.directory(dir)?;
    let mode = Mode::from_raw_mode(ownership.mode & 0o7777);
    with_umask(ownership, || fs::mkdirat(&parent.fd, name.as_bytes(), mode)).map_err(errno)?;
    register(session, reopener, dir, name, Attr::DIRECTORY, ownership)
}

/// Creates a symbolic link.
pub(crate) fn symlink(
    session: &mut Session,
    reopener: &Reopener,
    dir: Fid,
    name: Name<'_>,
    target: &[u8],
    ownership: &Ownership,
) -> SysResult<Outcome> {
    let parent = session.fids.directory(dir)?;
    fs::symlinkat(target, &parent.fd, name.as_bytes()).map_err(errno)?;
    register(session, reopener, dir, name, Attr::SYMLINK, ownership)
}

/// Creates a hard link.
pub(crate) fn link(
    session: &Session,
    reopener: &Reopener,
    fid: Fid,
    dir: Fid,
    name: Name<'_>,
) -> SysResult<Outcome> {
    let node = session.fids.get(fid)?;
    if node.file_type == Attr::DIRECTORY {
        return Err(Errno::EPERM);
    }
    let parent = session.fids.directory(dir)?;
    // By way of procfs, because AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH in the first user
    // namespace. What is followed is the magic link, not the file itself.
    let path = FdPath::new(&node.fd);
    let flags = AtFlags::SYMLINK_FOLLOW;
    fs::linkat(reopener.dir(), path.as_str(), &parent.fd, name.as_bytes(), flags).map_err(errno)?;
    Ok(Outcome::Attr(attr::get(&node.fd)?))
}

/// Creates a FIFO, a socket, an empty regular file or an overlay whiteout.
///
/// # Errors
/// `EPERM` for any other device: a node on the host would be one for the host's users, too.
pub(crate) fn mknod(
    session: &mut Session,
    reopener: &Reopener,
    dir: Fid,
    name: Name<'_>,
    ownership: &Ownership,
    device: (u32, u32),
) -> SysResult<Outcome> {
    let parent = session.fids.directory(dir)?;
    let wanted_type = match ownership.mode & Attr::TYPE_MASK {
        0 => Attr::REGULAR,
        other => other,
    };
    let file_type = match wanted_type {
        Attr::REGULAR => FileType::RegularFile,
        Attr::FIFO => FileType::Fifo,
        Attr::SOCKET => FileType::Socket,
        Attr::CHARACTER if device == (0, 0) => FileType::CharacterDevice,
        Attr::CHARACTER | Attr::BLOCK => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let mode = Mode::from_raw_mode(ownership.mode & 0o7777);
    with_umask(ownership, || fs::mknodat(&parent.fd, name.as_bytes(), file_type, mode, 0))
        .map_err(errno)?;
    register(session, reopener, dir, name, wanted_type, ownership)
}

/// Removes a name.
pub(crate) fn unlink(
    session: &Session,
    dir: Fid,
    name: Name<'_>,
    flags: UnlinkFlags,
) -> SysResult<Outcome> {
    let parent = session.fids.directory(dir)?;
    let mut host_flags = AtFlags::empty();
    host_flags.set(AtFlags::REMOVEDIR, flags.contains(UnlinkFlags::DIRECTORY));
    fs::unlinkat(&parent.fd, name.as_bytes(), host_flags).map_err(errno)?;
    Ok(Outcome::Done)
}

/// Moves a name.
pub(crate) fn rename(
    session: &Session,
    old_dir: Fid,
    old_name: Name<'_>,
    new_dir: Fid,
    new_name: Name<'_>,
    flags: RenameFlags,
) -> SysResult<Outcome> {
    let old_parent = session.fids.directory(old_dir)?;
    let new_parent = session.fids.directory(new_dir)?;
    let mut host_flags = fs::RenameFlags::empty();
    host_flags.set(fs::RenameFlags::NOREPLACE, flags.contains(RenameFlags::NOREPLACE));
    host_flags.set(fs::RenameFlags::EXCHANGE, flags.contains(RenameFlags::EXCHANGE));
    host_flags.set(fs::RenameFlags::WHITEOUT, flags.contains(RenameFlags::WHITEOUT));
    fs::renameat_with(
        &old_parent.fd,
        old_name.as_bytes(),
        &new_parent.fd,
        new_name.as_bytes(),
        host_flags,
    )
    .map_err(errno)?;
    Ok(Outcome::Done)
}

/// Opens what was just created, settles its owner and mode, and gives it a fid. Where that fails,
/// the name is removed again.
pub(crate) fn register(
    session: &mut Session,
    reopener: &Reopener,
    dir: Fid,
    name: Name<'_>,
    file_type: u32,
    ownership: &Ownership,
) -> SysResult<Outcome> {
    let parent = session.fids.directory(dir)?;
    let settled = (|| {
        let fd = ops::walk::open_child(&parent.fd, name, OFlags::PATH, Mode::empty())?;
        let attr = attr::get(&fd)?;
        let node = Node::new(fd, &attr);
        // Somebody on the host may have put another file in its place.
        if node.file_type != file_type {
            return Err(Errno::EEXIST);
        }
        let attr = ops::attr::settle(&node, reopener, ownership)?;
        Ok((node, attr))
    })();
    match settled.and_then(|(node, attr)| Ok((session.fids.insert(node)?, attr))) {
        Ok((fid, attr)) => Ok(Outcome::Node(reply::Node::new(fid, attr), None)),
        Err(error) => {
            if error != Errno::EEXIST {
                let mut flags = AtFlags::empty();
                flags.set(AtFlags::REMOVEDIR, file_type == Attr::DIRECTORY);
                let parent = session.fids.directory(dir)?;
                let _ = fs::unlinkat(&parent.fd, name.as_bytes(), flags);
            }
            Err(error)
        }
    }
}
