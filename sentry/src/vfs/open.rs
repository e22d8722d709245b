//! Opening files: the body of `open(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::landlock::AccessFs;
use syscalls::abi::mount::MountFlags;
use syscalls::{Errno, SysResult};

use super::attr::{FileFlags, FileType};
use super::dentry::Dentry;
use super::file::OpenFile;
use super::inode::NodeKind;
use super::names;
use super::notify;
use super::path::Path;
use super::permission::{self, MAY_EXEC, MAY_READ, MAY_WRITE};
use super::walk::{Last, Walk};
use crate::landlock;
use crate::task::CurrentTask;

/// The flags that act when a file is opened and are not kept.
const CREATION_FLAGS: OpenFlags = OpenFlags::CREAT
    .union(OpenFlags::EXCL)
    .union(OpenFlags::NOCTTY)
    .union(OpenFlags::TRUNC)
    .union(OpenFlags::CLOEXEC);

/// How often a file is looked for that somebody else makes and removes meanwhile.
const MAX_TRIES: u32 = 1000;

/// Opens `path`. `mode` has not been put through the umask yet, and `flags` have been checked against each
/// other.
///
/// # Errors
/// Those of the walk; `EEXIST`, `EISDIR`, `ENOTDIR`, `ELOOP`, `EACCES`, `EPERM`, `EROFS`, `ENXIO`; `ESTALE`
/// where a file system keeps saying both that the file is there and that it is not.
pub fn open(
    task: &CurrentTask,
    walk: &mut Walk<'_>,
    path: &[u8],
    flags: OpenFlags,
    mode: u32,
) -> SysResult<Arc<OpenFile>> {
    if flags.contains(OpenFlags::TMPFILE) && !flags.contains(OpenFlags::PATH) {
        return open_unnamed(task, walk, path, flags, mode);
    }
    let is_creating = flags.contains(OpenFlags::CREAT) && !flags.contains(OpenFlags::PATH);
    let mut step = walk.begin(path)?;
    let mut is_created = false;
    let mut n_tries = 0;
    let found = loop {
        let Last::Name { name, has_slash } = &step.last else {
            let found = walk.finish(step)?;
            // What a magic link has led to exists, and need not be a directory.
            if is_creating && flags.contains(OpenFlags::EXCL) {
                return Err(Errno::EEXIST);
            }
            if is_creating && found.dentry.is_dir() {
                return Err(Errno::EISDIR);
            }
            break found;
        };
        if is_creating && *has_slash {
            return Err(Errno::EISDIR);
        }
        if is_creating && flags.contains(OpenFlags::EXCL) {
            match names::create_unseen(walk, &step, &NodeKind::Regular, mode) {
                Some(Ok(child)) => {
                    is_created = true;
                    break child;
                }
                Some(Err(errno)) => return Err(errno),
                None => {}
            }
        }
        let child = match walk.child(&step.dir, name) {
            Ok(child) => child,
            Err(Errno::ENOENT) if is_creating => {
                step.dir.mount.check_writable()?;
                match names::create_in(walk, &step.dir, name, NodeKind::Regular, mode) {
                    Ok(child) => {
                        is_created = true;
                        break child;
                    }
                    // Somebody else has just made it.
                    Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => {
                        n_tries += 1;
                        if n_tries == MAX_TRIES {
                            return Err(Errno::ESTALE);
                        }
                        continue;
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        };
        if is_creating && flags.contains(OpenFlags::EXCL) {
            return Err(Errno::EEXIST);
        }
        let is_link = child.inode().file_type() == FileType::Symlink;
        if is_link && (*has_slash || !flags.contains(OpenFlags::NOFOLLOW)) {
            step = walk.follow(&step.dir, &child, *has_slash)?;
            continue;
        }
        if *has_slash && !child.dentry.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if is_creating {
            if child.dentry.is_dir() {
                return Err(Errno::EISDIR);
            }
            let dir = step.dir.inode().access_attr()?;
            permission::may_create_in_sticky(walk.creds(), &dir, &child.inode().access_attr()?)?;
        }
        break child;
    };
    if flags.contains(OpenFlags::DIRECTORY) && !found.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    open_path(task, found, flags, is_created)
}

/// Opens what the walk has found.
///
/// # Errors
/// `ELOOP`, `EISDIR`, `EACCES`, `EPERM`, `EROFS`, `ENXIO`.
pub fn open_path(
    task: &CurrentTask,
    path: Path,
    flags: OpenFlags,
    is_created: bool,
) -> SysResult<Arc<OpenFile>> {
    if flags.contains(OpenFlags::PATH) {
        let kept = flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW);
        let file = Arc::new(PathFile { path: path.clone() });
        return Ok(OpenFile::new(file, Some(path), kept.bits()));
    }
    let kind = path.inode().file_type();
    let must_truncate =
        flags.contains(OpenFlags::TRUNC) && kind == FileType::Regular && !is_created;
    if !is_created {
        check_open(task, &path, flags)?;
    }
    let domain = task.creds().landlock.clone();
    let refused = match &domain {
        Some(domain) => landlock::LATER - domain.check_open(&path, flags, false)?,
        None => AccessFs::empty(),
    };
    if must_truncate {
        if let Some(domain) = &domain {
            domain.check(&path, AccessFs::TRUNCATE)?;
        }
        super::change::check_not_running(&path)?;
        super::change::truncate(&task.creds(), &path, 0)?;
    }
    let file = path.inode().clone().open(task, flags.bits())?;
    let kept = (flags & !CREATION_FLAGS) | OpenFlags::LARGEFILE;
    notify::file(&path.dentry, notify::IN_OPEN);
    let open = OpenFile::new(file, Some(path), kept.bits());
    open.is_created.store(is_created, Ordering::Relaxed);
    open.refused.store(refused.bits(), Ordering::Relaxed);
    if kind == FileType::Regular {
        if open.is_writable() {
            open.claim_write()?;
        } else {
            open.claim_read();
        }
    }
    Ok(open)
}

fn check_open(task: &CurrentTask, path: &Path, flags: OpenFlags) -> SysResult<()> {
    let kind = path.inode().file_type();
    let mut wanted = match flags.access_mode() {
        0 => MAY_READ,
        1 => MAY_WRITE,
        _ => MAY_READ | MAY_WRITE,
    };
    if flags.contains(OpenFlags::TRUNC) {
        wanted |= MAY_WRITE;
    }
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Directory if wanted & MAY_WRITE != 0 => return Err(Errno::EISDIR),
        FileType::CharDevice | FileType::BlockDevice
            if path.mount.flags().contains(MountFlags::NODEV) =>
        {
            return Err(Errno::EACCES);
        }
        FileType::Regular if wanted & MAY_WRITE != 0 => path.mount.check_writable()?,
        _ => {}
    }
    let attr = path.inode().access_attr()?;
    let creds = task.creds();
    permission::check(&creds, &**path.inode(), &attr, wanted)?;
    let appends = flags.contains(OpenFlags::APPEND) && !flags.contains(OpenFlags::TRUNC);
    if attr.flags.contains(FileFlags::APPEND) && wanted & MAY_WRITE != 0 && !appends {
        return Err(Errno::EPERM);
    }
    if flags.contains(OpenFlags::NOATIME) && !permission::is_owner(&creds, &attr) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// `O_TMPFILE`: a regular file without a name in the directory at `path`.
fn open_unnamed(
    task: &CurrentTask,
    walk: &mut Walk<'_>,
    path: &[u8],
    flags: OpenFlags,
    mode: u32,
) -> SysResult<Arc<OpenFile>> {
    let step = walk.begin(path)?;
    let dir = walk.finish(step)?;
    if !dir.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    dir.mount.check_writable()?;
    let attr = dir.inode().attr()?;
    permission::may_create(walk.creds(), &**dir.inode(), &attr)?;
    let node = names::new_node(walk, &attr, NodeKind::Regular, mode);
    let inode = dir.inode().create_tmpfile(&node, !flags.contains(OpenFlags::EXCL))?;
    let name = format!("#{}", inode.attr()?.ino);
    let dentry = Dentry::new_unnamed(inode, &dir.dentry, name.as_bytes());
    open_path(task, Path { mount: dir.mount, dentry }, flags, true)
}

/// Opens a regular file to be executed; nobody can open it for writing as long as the result
/// exists, unless [`OpenFile::allow_write`] is called.
///
/// # Errors
/// `ETXTBSY` where it is open for writing; `EACCES` for anything but a regular file that the caller may execute; those of opening.
pub fn open_exec(task: &CurrentTask, path: Path) -> SysResult<Arc<OpenFile>> {
    match path.inode().file_type() {
        FileType::Regular => {}
        FileType::Symlink => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if path.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    let creds = task.creds();
    permission::check(&creds, &**path.inode(), &path.inode().access_attr()?, MAY_EXEC)?;
    if let Some(domain) = &creds.landlock {
        domain.check_open(&path, OpenFlags::RDONLY, true)?;
    }
    let file = path.inode().clone().open(task, OpenFlags::RDONLY.bits())?;
    let open = OpenFile::new(file, Some(path), OpenFlags::LARGEFILE.bits());
    open.deny_write()?;
    Ok(open)
}

/// What an `O_PATH` descriptor refers to: a place, on which no file operation works.
struct PathFile {
    path: Path,
}

impl super::file::File for PathFile {
    fn inode(&self) -> Option<Arc<dyn super::Inode>> {
        Some(self.path.inode().clone())
    }

    fn is_seekable(&self) -> bool {
        false
    }
}
