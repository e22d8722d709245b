//! Mounting: `mount(2)`, `umount2(2)`, `pivot_root(2)`.

use std::sync::Arc;

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::mount::{MS_MGC_MSK, MS_MGC_VAL, MountFlags, UmountFlags};
use syscalls::{Errno, SysResult, UserAddr};

use crate::fs::nsfs;
use crate::task::namespaces::AnyNamespace;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::Path;
use crate::vfs::mount::{MOUNT_FLAGS, Mount, MountNamespace, SuperBlock, visible};
use crate::vfs::walk::{Walk, WalkFlags};

/// How much of the options is read: one page, as on Linux.
const MAX_DATA: usize = 4096;

pub(super) fn check_privilege(task: &CurrentTask) -> SysResult<()> {
    let namespace = task.fs().namespace();
    let creds = task.creds();
    // Who is bound by rules about places does not move these.
    let is_bound = creds.landlock.as_ref().is_some_and(|domain| domain.handles_files());
    let may = !is_bound && creds.is_capable_in(&namespace.owner, CAP_SYS_ADMIN);
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

fn resolve(task: &CurrentTask, path: UserAddr, flags: WalkFlags) -> SysResult<Path> {
    let path = task.read_path(path)?;
    Walk::from_cwd(task, flags).resolve(&path)
}

/// Reads a string that may be a null pointer.
fn read_optional(task: &CurrentTask, addr: UserAddr) -> SysResult<Vec<u8>> {
    if addr.is_null() { Ok(Vec::new()) } else { task.read_path(addr) }
}

/// Reads the options: a string that a page ends at the latest.
fn read_data(task: &CurrentTask, addr: UserAddr) -> SysResult<Vec<u8>> {
    if addr.is_null() {
        return Ok(Vec::new());
    }
    match task.read_cstr(addr, MAX_DATA) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        result => result,
    }
}

/// Implements `mount(2)`.
///
/// <https://man7.org/linux/man-pages/man2/mount.2.html>
pub(super) fn sys_mount(
    task: &CurrentTask,
    source: UserAddr,
    target: UserAddr,
    filesystemtype: UserAddr,
    mountflags: u64,
    data: UserAddr,
) -> HandlerResult<()> {
    const PROPAGATION: MountFlags = MountFlags::SHARED
        .union(MountFlags::PRIVATE)
        .union(MountFlags::SLAVE)
        .union(MountFlags::UNBINDABLE);
    let has_magic = mountflags & MS_MGC_MSK == MS_MGC_VAL;
    let flags = if has_magic { mountflags & !MS_MGC_MSK } else { mountflags };
    let flags = MountFlags::from_bits_retain(flags);
    let kind = read_optional(task, filesystemtype)?;
    let source = read_optional(task, source)?;
    let data = read_data(task, data)?;
    let at = resolve(task, target, WalkFlags::FOLLOW)?;
    check_privilege(task)?;
    let namespace = task.fs().namespace();
    let is_recursive = flags.contains(MountFlags::REC);
    if flags.contains(MountFlags::REMOUNT) {
        return Ok(remount(task, &at, flags, &data)?);
    }
    if flags.contains(MountFlags::BIND) {
        let source = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(&source)?;
        if let Some(bound) = nsfs::namespace_at(&source) {
            return Ok(bind_namespace(&namespace, &bound, &source, &at)?);
        }
        return Ok(namespace.bind(&source, &at, is_recursive)?);
    }
    if flags.intersects(PROPAGATION) {
        let kind = flags & PROPAGATION;
        let rest = flags & !(PROPAGATION | MountFlags::REC | MountFlags::SILENT);
        if kind.bits().count_ones() != 1 || !rest.is_empty() {
            return Err(Errno::EINVAL.into());
        }
        return Ok(namespace.set_propagation(&at, kind, is_recursive)?);
    }
    if flags.contains(MountFlags::MOVE) {
        let source = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(&source)?;
        return Ok(namespace.move_mount(&source, &at)?);
    }
    let fs = task.kernel.file_system_types.make(task, &kind, &data)?;
    let sb = SuperBlock::owned(fs, &task.creds().user_ns);
    sb.set_readonly(flags.contains(MountFlags::RDONLY));
    let mount = new_mount(&namespace, sb, &source, with_default_atime(flags))?;
    Ok(namespace.mount(&mount, &at)?)
}

/// Makes a mount of a whole file system, unless a namespace of others would see more than before.
///
/// # Errors
/// `EPERM`.
pub(super) fn new_mount(
    namespace: &MountNamespace,
    sb: Arc<SuperBlock>,
    source: &[u8],
    flags: MountFlags,
) -> SysResult<Arc<Mount>> {
    let kind = sb.fs.kind();
    let mount = Mount::new(sb, source, flags);
    if !namespace.owner.is_initial() && matches!(kind, "proc" | "sysfs") {
        visible::check(namespace, &mount)?;
    }
    Ok(mount)
}

/// Binds a namespace to a name. One of mounts may be bound only in an older one, so that none is kept
/// by itself.
fn bind_namespace(
    namespace: &MountNamespace,
    bound: &AnyNamespace,
    source: &Path,
    at: &Path,
) -> SysResult<()> {
    if let AnyNamespace::Mnt(bound) = bound
        && bound.id <= namespace.id
    {
        return Err(Errno::EINVAL);
    }
    namespace.bind_nameless(source, at)
}

/// `relatime` is what a mount gets that asks for nothing else.
fn with_default_atime(flags: MountFlags) -> MountFlags {
    let other = MountFlags::NOATIME | MountFlags::STRICTATIME;
    if flags.intersects(other) { flags } else { flags | MountFlags::RELATIME }
}

fn remount(task: &CurrentTask, at: &Path, flags: MountFlags, data: &[u8]) -> SysResult<()> {
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let atime = MountFlags::NOATIME
        | MountFlags::NODIRATIME
        | MountFlags::RELATIME
        | MountFlags::STRICTATIME;
    let mut new = flags & MOUNT_FLAGS;
    if flags.intersects(atime) {
        new = with_default_atime(flags) & MOUNT_FLAGS;
    } else {
        // Without a word about access times they are kept as before.
        new |= at.mount.flags() & atime;
    }
    if !at.mount.may_set_flags(new) {
        return Err(Errno::EPERM);
    }
    if !flags.contains(MountFlags::BIND) {
        reconfigure(task, &at.mount.sb, flags.contains(MountFlags::RDONLY), data)?;
    }
    at.mount.set_flags(new);
    Ok(())
}

/// Changes a file system as a whole.
///
/// # Errors
/// `EPERM`, `EROFS`, those of the file system.
pub(super) fn reconfigure(
    task: &CurrentTask,
    sb: &SuperBlock,
    readonly: bool,
    data: &[u8],
) -> SysResult<()> {
    let creds = task.creds();
    let may = match sb.owner() {
        Some(owner) => creds.is_capable_in(owner, CAP_SYS_ADMIN),
        None => creds.has_capability(CAP_SYS_ADMIN),
    };
    if !may {
        return Err(Errno::EPERM);
    }
    if !readonly && sb.fs.is_always_readonly() {
        return Err(Errno::EROFS);
    }
    sb.fs.remount(data)?;
    sb.set_readonly(readonly);
    Ok(())
}

/// Implements `umount2(2)`. `MNT_EXPIRE` is refused.
///
/// <https://man7.org/linux/man-pages/man2/umount.2.html>
pub(super) fn sys_umount2(task: &CurrentTask, target: UserAddr, flags: u32) -> HandlerResult<()> {
    let flags = UmountFlags::from_bits_retain(flags);
    if flags.has_unknown_bits() || flags.contains(UmountFlags::MNT_EXPIRE) {
        return Err(Errno::EINVAL.into());
    }
    check_privilege(task)?;
    let follow = !flags.contains(UmountFlags::UMOUNT_NOFOLLOW);
    let walk = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    // What lies on top counts, also where the walk does not go there, as from `.`.
    let path = resolve(task, target, walk)?.topmost();
    let detach = flags.contains(UmountFlags::MNT_DETACH);
    Ok(task.fs().namespace().umount(path, detach)?)
}

/// Implements `pivot_root(2)`.
///
/// <https://man7.org/linux/man-pages/man2/pivot_root.2.html>
pub(super) fn sys_pivot_root(
    task: &CurrentTask,
    new_root: UserAddr,
    put_old: UserAddr,
) -> HandlerResult<()> {
    check_privilege(task)?;
    let flags = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let new_root = resolve(task, new_root, flags)?;
    let put_old = resolve(task, put_old, flags)?;
    let fs = task.fs();
    let root = fs.root();
    fs.namespace().pivot_root(&root, &new_root, &put_old)?;
    for (_, other) in task.kernel.root_pid_namespace.tasks() {
        other.fs().replace(&root, &new_root);
    }
    Ok(())
}
