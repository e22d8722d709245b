//! `mount_setattr(2)`.

use syscalls::abi::fs::AtFlags;
use syscalls::abi::mm::PAGE_SIZE;
use syscalls::abi::mount::{MountAttr, MountAttrFlags, MountFlags};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::{at, mount, versioned};
use crate::task::{CurrentTask, HandlerResult};

const RECURSIVE: u32 = AtFlags::RECURSIVE.bits();

/// The bits that together say how access times are kept.
const ATIME: u64 = 0x70;

/// The kinds of propagation, of which one can be asked for.
const PROPAGATION: MountFlags = MountFlags::UNBINDABLE
    .union(MountFlags::PRIVATE)
    .union(MountFlags::SLAVE)
    .union(MountFlags::SHARED);

/// The flags of mounts about access times.
const ATIME_FLAGS: MountFlags = MountFlags::NOATIME.union(MountFlags::RELATIME);

/// Flags to take away, then flags to add.
#[derive(Clone, Copy)]
struct Change {
    cleared: MountFlags,
    set: MountFlags,
}

/// Implements `mount_setattr(2)`. Mounts with other owners (`MOUNT_ATTR_IDMAP`) are refused, as by a file
/// system that does not know of them.
///
/// <https://man7.org/linux/man-pages/man2/mount_setattr.2.html>
pub(super) fn sys_mount_setattr(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: u32,
    attr: UserAddr,
    size: usize,
) -> HandlerResult<()> {
    let is_recursive = flags & RECURSIVE != 0;
    let walk = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let flags = at::check_flags(flags & !RECURSIVE, walk)?;
    let size_of_attr = size_of::<MountAttr>();
    if size as u64 > PAGE_SIZE {
        return Err(Errno::E2BIG.into());
    }
    if size < size_of_attr {
        return Err(Errno::EINVAL.into());
    }
    mount::check_privilege(task)?;
    let attr = versioned::read::<MountAttr>(task, attr, size)?;
    if attr.attr_set == 0 && attr.attr_clr == 0 && attr.propagation == 0 {
        return Ok(());
    }
    let propagation = MountFlags::from_bits_retain(attr.propagation);
    if !PROPAGATION.contains(propagation) || propagation.bits().count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    let change = parse(&attr)?;
    let path = at::resolve(task, dirfd, pathname, flags)?.path()?.topmost();
    let namespace = task.fs().namespace();
    namespace.change_flags(&path, is_recursive, |old| (old & !change.cleared) | change.set)?;
    if !propagation.is_empty() {
        namespace.set_propagation(&path, propagation, is_recursive)?;
    }
    Ok(())
}

/// Checks the attributes as `build_mount_kattr()` of Linux.
fn parse(attr: &MountAttr) -> SysResult<Change> {
    let set = MountAttrFlags::from_bits_retain(attr.attr_set);
    let cleared = MountAttrFlags::from_bits_retain(attr.attr_clr);
    let both = MountAttrFlags::from_bits_retain((attr.attr_set | attr.attr_clr) & !ATIME);
    if both.has_unknown_bits() || both.contains(MountAttrFlags::IDMAP) {
        return Err(Errno::EINVAL);
    }
    let mut change = Change { cleared: flags_of(cleared), set: flags_of(set) };
    let (set_atime, cleared_atime) = (attr.attr_set & ATIME, attr.attr_clr & ATIME);
    if cleared_atime == 0 && set_atime == 0 {
        return Ok(change);
    }
    // They are one value, which is replaced as a whole.
    if cleared_atime != ATIME {
        return Err(Errno::EINVAL);
    }
    change.cleared |= ATIME_FLAGS;
    match MountAttrFlags::from_bits_retain(set_atime) {
        MountAttrFlags::NOATIME => change.set |= MountFlags::NOATIME,
        MountAttrFlags::STRICTATIME => {}
        other if other.is_empty() => change.set |= MountFlags::RELATIME,
        _ => return Err(Errno::EINVAL),
    }
    Ok(change)
}

/// Returns the flags of mounts that attributes stand for, without those about access times.
pub(super) fn flags_of(attributes: MountAttrFlags) -> MountFlags {
    [
        (MountAttrFlags::RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::NODEV, MountFlags::NODEV),
        (MountAttrFlags::NOEXEC, MountFlags::NOEXEC),
        (MountAttrFlags::NODIRATIME, MountFlags::NODIRATIME),
        (MountAttrFlags::NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ]
    .into_iter()
    .filter(|(attribute, _)| attributes.contains(*attribute))
    .fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}
