//! What a user namespace sees of the kernel: a fresh `proc` or `sysfs` must not show its members more
//! than the one that they have got (Linux's `mount_too_revealing()`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::mount::MountFlags;
use syscalls::{Errno, SysResult};

use super::{ATIME_FLAGS, Mount, MountNamespace};

/// Checks a file system before it is mounted in a namespace that belongs to others than the
/// container's users, and locks the flags that those of the visible one have.
///
/// # Errors
/// `EPERM` where no file system of its type is visible as a whole.
pub fn check(namespace: &MountNamespace, new: &Mount) -> SysResult<()> {
    let mounts = namespace.mounts();
    let shown = mounts.iter().find_map(|mount| kept_flags(mount, new)).ok_or(Errno::EPERM)?;
    new.locked_flags.fetch_or(shown.bits(), Ordering::Relaxed);
    Ok(())
}

/// Returns the flags that `new` must keep to show no more than `mount`, where that shows all and `new`
/// has these flags: `mnt_already_visible`.
fn kept_flags(mount: &Arc<Mount>, new: &Mount) -> Option<MountFlags> {
    if mount.sb.fs.kind() != new.sb.fs.kind() || !Arc::ptr_eq(&mount.root, &mount.sb.root) {
        return None;
    }
    let locked = MountFlags::from_bits_retain(mount.locked_flags.load(Ordering::Relaxed));
    let mut kept = locked & (MountFlags::RDONLY | ATIME_FLAGS);
    if mount.sb.is_readonly() {
        kept |= MountFlags::RDONLY;
    }
    if kept.contains(MountFlags::RDONLY) && !new.flags().contains(MountFlags::RDONLY) {
        return None;
    }
    let atime = |mount: &Mount| mount.flags() & ATIME_FLAGS;
    if kept.intersects(ATIME_FLAGS) && atime(mount) != atime(new) {
        return None;
    }
    // What lies on a directory that is there for this hides nothing.
    let hides = |name: &[u8]| !matches!(name, b"cgroup" | b"binfmt_misc");
    let children = mount.children.read();
    let hides_something =
        children.iter().any(|(point, child)| child.is_locked() && hides(&point.name()));
    (!hides_something).then_some(kept)
}
