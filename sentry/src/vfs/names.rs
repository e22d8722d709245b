//! Making, removing and moving names: the bodies of `mkdir(2)`, `unlink(2)`, `rename(2)` and their
//! relatives, with the checks in Linux's order.

use std::sync::Arc;

use syscalls::abi::capability::CAP_MKNOD;
use syscalls::abi::fs::{RenameFlags, S_IFMT};
use syscalls::abi::landlock::AccessFs;
use syscalls::{Errno, SysResult};

use super::attr::{Attr, FileType};
use super::dentry::Dentry;
use super::inode::{LookupPolicy, NewNode, NodeKind};
use super::notify;
use super::path::Path;
use super::permission;
use super::walk::{Last, Step, Walk};
use crate::landlock::{self, Moved};

/// What stands for nothing in a layer of an overlay.
const WHITEOUT: NodeKind = NodeKind::CharDevice(0);

/// Creates a directory, a special file, a symbolic link or a regular file at `path`. `mode` has
/// not been put through the umask yet.
///
/// # Errors
/// Those of the walk; `EEXIST`, `ENOENT`, `EROFS`, `EACCES`, `EPERM`, those of the file system.
pub fn create(walk: &mut Walk<'_>, path: &[u8], kind: NodeKind, mode: u32) -> SysResult<Path> {
    let step = walk.begin(path)?;
    let Last::Name { name, has_slash } = &step.last else { return Err(Errno::EEXIST) };
    let is_dir = kind == NodeKind::Directory;
    if let Some(result) = create_unseen(walk, &step, &kind, mode) {
        return result;
    }
    match walk.child(&step.dir, name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) if *has_slash && !is_dir => return Err(Errno::ENOENT),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    step.dir.mount.check_writable()?;
    // Nobody drives the character device 0:0, which stands for nothing (an overlay's whiteout).
    let is_device =
        matches!(kind, NodeKind::CharDevice(_) | NodeKind::BlockDevice(_)) && kind != WHITEOUT;
    if is_device && !walk.creds().has_capability(CAP_MKNOD) {
        may_create(walk, &step.dir)?;
        return Err(Errno::EPERM);
    }
    create_in(walk, &step.dir, name, kind, mode)
}

/// Creates a node without looking at first what is there, where nothing is known of the name and that saves something. Returns
/// nothing where that is not so, or where the usual order of checks decides which error it is.
pub(super) fn create_unseen(
    walk: &Walk<'_>,
    step: &Step,
    kind: &NodeKind,
    mode: u32,
) -> Option<SysResult<Path>> {
    let Last::Name { name, has_slash } = &step.last else { return None };
    let is_device = matches!(kind, NodeKind::CharDevice(_) | NodeKind::BlockDevice(_));
    let is_usual = !is_device && (!*has_slash || *kind == NodeKind::Directory);
    if !is_usual || !walk.may_create_unseen(&step.dir, name) {
        return None;
    }
    step.dir.mount.check_writable().ok()?;
    match create_in(walk, &step.dir, name, kind.clone(), mode) {
        Ok(path) => Some(Ok(path)),
        Err(Errno::EEXIST) => Some(Err(Errno::EEXIST)),
        Err(_) => None,
    }
}

/// Creates a node in a directory, which has been checked for read-only mounts.
///
/// # Errors
/// `EACCES`, `EEXIST`, those of the file system.
pub fn create_in(
    walk: &Walk<'_>,
    dir: &Path,
    name: &[u8],
    kind: NodeKind,
    mode: u32,
) -> SysResult<Path> {
    // What lists processes knows no names but its own: Linux does not even ask for permission.
    if dir.inode().lookup_policy() == LookupPolicy::Never {
        return Err(Errno::ENOENT);
    }
    check_right(walk, dir, landlock::to_make(&kind))?;
    let dir_attr = may_create(walk, dir)?;
    let node = new_node(walk, &dir_attr, kind, mode);
    let dentry =
        dir.dentry.create_child(name, &dir.mount.sb.cache, |inode| inode.create(name, &node))?;
    notify::created(&dir.dentry, name, dentry.is_dir());
    Ok(Path { mount: dir.mount.clone(), dentry })
}

/// Returns what a new node in a directory with these attributes is like.
pub fn new_node(walk: &Walk<'_>, dir: &Attr, kind: NodeKind, mode: u32) -> NewNode {
    let is_dir = kind == NodeKind::Directory;
    let umask = if matches!(kind, NodeKind::Symlink(_)) { 0 } else { walk.umask() };
    let (mode, gid) = permission::inherit(walk.creds(), dir, mode, is_dir);
    NewNode { kind, mode, umask, uid: walk.creds().fsuid, gid }
}

/// Checks that an entry may be added to a directory; returns the directory's attributes.
fn may_create(walk: &Walk<'_>, dir: &Path) -> SysResult<Attr> {
    let attr = dir.inode().access_attr()?;
    permission::may_create(walk.creds(), &**dir.inode(), &attr)?;
    Ok(attr)
}

/// Makes a hard link to `target` at `path`.
///
/// # Errors
/// Those of the walk; `EEXIST`, `ENOENT`, `EXDEV`, `EPERM`, `EROFS`, `EACCES`, `EMLINK`.
pub fn link(walk: &mut Walk<'_>, target: &Path, path: &[u8]) -> SysResult<()> {
    let step = walk.begin(path)?;
    let Last::Name { name, has_slash } = &step.last else { return Err(Errno::EEXIST) };
    match walk.child(&step.dir, name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) if *has_slash => return Err(Errno::ENOENT),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    step.dir.mount.check_writable()?;
    if !Arc::ptr_eq(&target.mount, &step.dir.mount) {
        return Err(Errno::EXDEV);
    }
    if let Some(domain) = &walk.creds().landlock {
        let dentry = target.dentry.parent().unwrap_or_else(|| target.dentry.clone());
        let from = Path { mount: target.mount.clone(), dentry };
        let moved =
            Moved { file: &target.dentry, target: None, is_rename: false, is_exchange: false };
        domain.check_move(&from, &step.dir, &moved)?;
    }
    permission::may_link(walk.creds(), &**target.inode())?;
    may_create(walk, &step.dir)?;
    if target.dentry.is_dir() {
        return Err(Errno::EPERM);
    }
    let inode = target.inode();
    step.dir.dentry.create_child(name, &step.dir.mount.sb.cache, |dir| {
        dir.link(name, inode)?;
        Ok(inode.clone())
    })?;
    notify::linked(&target.dentry);
    notify::created(&step.dir.dentry, name, false);
    Ok(())
}

/// Removes a name that is not a directory's.
///
/// # Errors
/// Those of the walk; `EISDIR`, `EROFS`, `EACCES`, `EPERM`, `EBUSY`, `ENOTDIR`.
pub fn unlink(walk: &mut Walk<'_>, path: &[u8]) -> SysResult<()> {
    let step = walk.begin(path)?;
    let Last::Name { name, has_slash } = &step.last else { return Err(Errno::EISDIR) };
    step.dir.mount.check_writable()?;
    check_name(name)?;
    let child = step.dir.dentry.remove_child(name, &step.dir.mount.sb.cache, |child| {
        if *has_slash {
            return Err(if child.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        check_right(walk, &step.dir, AccessFs::REMOVE_FILE)?;
        check_delete(walk, &step.dir, child)?;
        if child.is_dir() {
            return Err(Errno::EISDIR);
        }
        check_not_mounted(walk, child)?;
        step.dir.inode().unlink(name)
    })?;
    name_removed(walk, &child);
    notify::removed(&step.dir.dentry, name, &child);
    Ok(())
}

/// Removes an empty directory.
///
/// # Errors
/// Those of the walk; `ENOTEMPTY`, `EINVAL`, `EBUSY`, `ENOTDIR`, `EROFS`, `EACCES`, `EPERM`.
pub fn rmdir(walk: &mut Walk<'_>, path: &[u8]) -> SysResult<()> {
    let step = walk.begin(path)?;
    let name = match &step.last {
        Last::Name { name, .. } => name,
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::None => return Err(Errno::EBUSY),
    };
    step.dir.mount.check_writable()?;
    check_name(name)?;
    let child = step.dir.dentry.remove_child(name, &step.dir.mount.sb.cache, |child| {
        check_right(walk, &step.dir, AccessFs::REMOVE_DIR)?;
        check_delete(walk, &step.dir, child)?;
        if !child.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        check_not_mounted(walk, child)?;
        step.dir.inode().rmdir(name)
    })?;
    name_removed(walk, &child);
    notify::removed(&step.dir.dentry, name, &child);
    Ok(())
}

/// Renames what `old_walk` finds at `old` to what `new_walk` finds at `new`.
///
/// # Errors
/// Those of the walks; `EXDEV`, `EBUSY`, `EINVAL`, `EEXIST`, `ENOTEMPTY`, `EISDIR`, `ENOTDIR`,
/// `EROFS`, `EACCES`, `EPERM`.
pub fn rename(
    old_walk: &mut Walk<'_>,
    old: &[u8],
    new_walk: &mut Walk<'_>,
    new: &[u8],
    flags: RenameFlags,
) -> SysResult<()> {
    let from = old_walk.begin(old)?;
    let to = new_walk.begin(new)?;
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name { name: old_name, has_slash: old_slash } = &from.last else {
        return Err(Errno::EBUSY);
    };
    let Last::Name { name: new_name, has_slash: new_slash } = &to.last else {
        let must_be_new = flags.contains(RenameFlags::NOREPLACE);
        return Err(if must_be_new { Errno::EEXIST } else { Errno::EBUSY });
    };
    from.dir.mount.check_writable()?;
    check_name(old_name)?;
    check_name(new_name)?;
    let sb = from.dir.mount.sb.clone();
    let is_same_dir = Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
    let _moves = if is_same_dir { None } else { Some(sb.rename.lock()) };
    let mut moved = None;
    let is_exchange = flags.contains(RenameFlags::EXCHANGE);
    from.dir.dentry.rename_child(
        old_name,
        &to.dir.dentry,
        new_name,
        is_exchange,
        &sb.cache,
        |child, target| {
            let slashes = (*old_slash, *new_slash);
            check_rename(old_walk, &from, child, &to, target, slashes, flags)?;
            if target.is_some_and(|target| Arc::ptr_eq(target.inode(), child.inode())) {
                return Ok(false);
            }
            from.dir.inode().rename(old_name, to.dir.inode(), new_name, flags.bits())?;
            moved = Some((child.clone(), target.cloned()));
            Ok(true)
        },
    )?;
    if let Some((child, target)) = moved {
        child.inode().renamed();
        let old = (&from.dir.dentry, &old_name[..]);
        let new = (&to.dir.dentry, &new_name[..]);
        let replaced = target.as_ref().filter(|_| !is_exchange);
        if let Some(replaced) = replaced {
            name_removed(old_walk, replaced);
        }
        notify::moved(old, new, &child, replaced);
        if let Some(target) = target.filter(|_| is_exchange) {
            target.inode().renamed();
            notify::moved(new, old, &target, None);
        }
    }
    Ok(())
}

fn check_rename(
    walk: &Walk<'_>,
    from: &Step,
    child: &Arc<Dentry>,
    to: &Step,
    target: Option<&Arc<Dentry>>,
    (old_slash, new_slash): (bool, bool),
    flags: RenameFlags,
) -> SysResult<()> {
    let is_exchange = flags.contains(RenameFlags::EXCHANGE);
    if flags.contains(RenameFlags::NOREPLACE) && target.is_some() {
        return Err(Errno::EEXIST);
    }
    if is_exchange {
        let target = target.ok_or(Errno::ENOENT)?;
        if new_slash && !target.is_dir() {
            return Err(Errno::ENOTDIR);
        }
    }
    if !child.is_dir() && (old_slash || (new_slash && !is_exchange)) {
        return Err(Errno::ENOTDIR);
    }
    if child.is_dir() && to.dir.dentry.is_below(child) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = target
        && target.is_dir()
        && from.dir.dentry.is_below(target)
    {
        return Err(if is_exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    if let Some(domain) = &walk.creds().landlock {
        let moved = Moved { file: child, target, is_rename: true, is_exchange };
        domain.check_move(&from.dir, &to.dir, &moved)?;
    }
    if target.is_some_and(|target| Arc::ptr_eq(target.inode(), child.inode())) {
        return Ok(());
    }
    check_delete(walk, &from.dir, child)?;
    match target {
        None => drop(may_create(walk, &to.dir)?),
        Some(target) => {
            check_delete(walk, &to.dir, target)?;
            if !is_exchange && child.is_dir() && !target.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            if !is_exchange && !child.is_dir() && target.is_dir() {
                return Err(Errno::EISDIR);
            }
        }
    }
    if !Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry) {
        // A directory that gets another parent has its `..` written.
        let moving = [Some(child), target.filter(|_| is_exchange)];
        for dentry in moving.into_iter().flatten().filter(|dentry| dentry.is_dir()) {
            let (inode, mask) = (dentry.inode(), permission::MAY_WRITE);
            permission::check(walk.creds(), &**inode, &inode.access_attr()?, mask)?;
        }
    }
    check_not_mounted(walk, child)?;
    target.map_or(Ok(()), |target| check_not_mounted(walk, target))
}

fn check_right(walk: &Walk<'_>, dir: &Path, access: AccessFs) -> SysResult<()> {
    walk.creds().landlock.as_ref().map_or(Ok(()), |domain| domain.check(dir, access))
}

fn check_delete(walk: &Walk<'_>, dir: &Path, child: &Arc<Dentry>) -> SysResult<()> {
    permission::may_delete(walk.creds(), &**dir.inode(), &child.inode().access_attr()?)
}

/// What is mounted there in another namespace does not matter: see [`removed`](super::mount::MountNamespace::removed).
fn check_not_mounted(walk: &Walk<'_>, dentry: &Arc<Dentry>) -> SysResult<()> {
    let is_mounted = dentry.is_mount_point()
        && walk.namespace().is_none_or(|namespace| namespace.mounts_on(dentry));
    if is_mounted { Err(Errno::EBUSY) } else { Ok(()) }
}

fn name_removed(walk: &Walk<'_>, dentry: &Arc<Dentry>) {
    dentry.inode().name_removed();
    if let Some(namespace) = walk.namespace() {
        namespace.removed(dentry);
    }
}

fn check_name(name: &[u8]) -> SysResult<()> {
    if name.len() > syscalls::abi::fs::NAME_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(()) }
}

/// Returns what `mknod(2)` with this mode creates.
///
/// # Errors
/// `EPERM` for a directory, `EINVAL` for an unknown type.
pub fn node_kind(mode: u32, dev: u64) -> SysResult<NodeKind> {
    if mode & S_IFMT == 0 {
        return Ok(NodeKind::Regular);
    }
    match FileType::from_mode(mode) {
        FileType::Regular => Ok(NodeKind::Regular),
        FileType::Fifo => Ok(NodeKind::Fifo),
        FileType::Socket => Ok(NodeKind::Socket),
        FileType::CharDevice => Ok(NodeKind::CharDevice(dev)),
        FileType::BlockDevice => Ok(NodeKind::BlockDevice(dev)),
        FileType::Directory => Err(Errno::EPERM),
        FileType::Symlink | FileType::Anonymous => Err(Errno::EINVAL),
    }
}
