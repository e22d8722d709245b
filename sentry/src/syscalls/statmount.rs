//! Questions about mounts: `statmount(2)`, `listmount(2)`.

use std::sync::Arc;

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::abi::fs::{major, minor};
use syscalls::abi::mm::PAGE_SIZE;
use syscalls::abi::mount::{
    LISTMOUNT_REVERSE, LSMT_ROOT, MNT_ID_REQ_SIZE_VER0, MNT_UNIQUE_ID_OFFSET, MntIdReq,
    MountAttrFlags, MountFlags, Statmount, StatmountMask,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::Path;
use crate::vfs::mount::Mount;

/// The most numbers that one call lists.
const MAX_LISTED: usize = 1_000_000;

/// Reads a request as `copy_mnt_id_req()` of Linux.
fn read_request(task: &CurrentTask, req: UserPtr<MntIdReq>) -> SysResult<MntIdReq> {
    let size = task.read_obj::<u32>(req.cast())?;
    let size = usize::try_from(size).map_err(|_| Errno::E2BIG)?;
    if size as u64 > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < MNT_ID_REQ_SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; size];
    task.read_bytes(req.addr(), &mut bytes)?;
    let known = size.min(size_of::<MntIdReq>());
    let (given, rest) = bytes.split_at(known);
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut request = MntIdReq::default();
    if let Some(place) = request.as_mut_bytes().get_mut(..known) {
        place.copy_from_slice(given);
    }
    if request.spare != 0 || request.mnt_id <= MNT_UNIQUE_ID_OFFSET {
        return Err(Errno::EINVAL);
    }
    // DEVIATION: only the caller's namespace can be asked.
    if request.mnt_ns_id != 0 {
        return Err(Errno::ENOENT);
    }
    Ok(request)
}

fn unique_id(mount: &Mount) -> u64 {
    mount.id.saturating_add(MNT_UNIQUE_ID_OFFSET)
}

fn root_of(mount: &Arc<Mount>) -> Path {
    Path { mount: mount.clone(), dentry: mount.root.clone() }
}

fn find(task: &CurrentTask, id: u64) -> SysResult<Arc<Mount>> {
    let mounts = task.fs().namespace().mounts();
    mounts.into_iter().find(|mount| unique_id(mount) == id).ok_or(Errno::ENOENT)
}

/// Checks that the caller can get to a mount, or may look at all of them.
fn check_reachable(task: &CurrentTask, mount: &Arc<Mount>) -> SysResult<()> {
    let is_reachable = root_of(mount).is_below(&task.fs().root());
    if is_reachable || task.creds().has_capability(CAP_SYS_ADMIN) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Implements `listmount(2)`.
///
/// <https://man7.org/linux/man-pages/man2/listmount.2.html>
pub(super) fn sys_listmount(
    task: &CurrentTask,
    req: UserPtr<MntIdReq>,
    mnt_ids: UserAddr,
    nr_mnt_ids: usize,
    flags: u32,
) -> HandlerResult<usize> {
    if flags & !LISTMOUNT_REVERSE != 0 {
        return Err(Errno::EINVAL.into());
    }
    if nr_mnt_ids > MAX_LISTED {
        return Err(Errno::EOVERFLOW.into());
    }
    let request = read_request(task, req)?;
    let last = request.param;
    if last != 0 && last <= MNT_UNIQUE_ID_OFFSET {
        return Err(Errno::EINVAL.into());
    }
    let from = if request.mnt_id == LSMT_ROOT {
        task.fs().root()
    } else {
        let mount = find(task, request.mnt_id)?;
        check_reachable(task, &mount)?;
        root_of(&mount)
    };
    let is_reverse = flags & LISTMOUNT_REVERSE != 0;
    let mut ids: Vec<u64> = task
        .fs()
        .namespace()
        .mounts()
        .iter()
        .filter(|mount| unique_id(mount) != request.mnt_id && root_of(mount).is_below(&from))
        .map(|mount| unique_id(mount))
        .filter(|id| last == 0 || if is_reverse { *id < last } else { *id > last })
        .collect();
    ids.sort_unstable();
    if is_reverse {
        ids.reverse();
    }
    ids.truncate(nr_mnt_ids);
    task.write_bytes(mnt_ids, ids.as_bytes())?;
    Ok(ids.len())
}

/// Implements `statmount(2)`.
///
/// <https://man7.org/linux/man-pages/man2/statmount.2.html>
pub(super) fn sys_statmount(
    task: &CurrentTask,
    req: UserPtr<MntIdReq>,
    buf: UserAddr,
    bufsize: usize,
    flags: u32,
) -> HandlerResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let request = read_request(task, req)?;
    let mount = find(task, request.mnt_id)?;
    check_reachable(task, &mount)?;
    let wanted = StatmountMask::from_bits_retain(request.param);
    let (mut told, texts) = tell(task, &mount, wanted)?;
    let fixed = size_of::<Statmount>();
    if !texts.is_empty() && bufsize < fixed.saturating_add(texts.len()) {
        return Err(Errno::EOVERFLOW.into());
    }
    told.size = u32::try_from(fixed + texts.len()).map_err(|_| Errno::EOVERFLOW)?;
    let mut bytes = told.as_bytes().to_vec();
    bytes.extend_from_slice(&texts);
    bytes.truncate(bufsize);
    Ok(task.write_bytes(buf, &bytes)?)
}

/// Returns what is asked for, and the texts that follow it.
fn tell(
    task: &CurrentTask,
    mount: &Arc<Mount>,
    wanted: StatmountMask,
) -> SysResult<(Statmount, Vec<u8>)> {
    let mut told = Statmount::default();
    let mut texts = Vec::new();
    let mut mask = StatmountMask::empty();
    if wanted.contains(StatmountMask::SB_BASIC) {
        let dev = mount.root.inode().attr()?.dev;
        (told.sb_dev_major, told.sb_dev_minor) = (major(dev), minor(dev));
        told.sb_magic = mount.sb.fs.statfs()?.f_type.cast_unsigned();
        let is_readonly = mount.sb.is_readonly();
        told.sb_flags = if is_readonly { 1 } else { 0 };
        mask |= StatmountMask::SB_BASIC;
    }
    if wanted.contains(StatmountMask::MNT_BASIC) {
        let parent = mount.point().map_or_else(|| mount.clone(), |point| point.mount);
        let old = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
        (told.mnt_id, told.mnt_id_old) = (unique_id(mount), old(mount.id));
        (told.mnt_parent_id, told.mnt_parent_id_old) = (unique_id(&parent), old(parent.id));
        told.mnt_attr = attributes(mount.flags()).bits();
        let propagation = mount.propagation();
        let mut kind = MountFlags::empty();
        kind.set(MountFlags::SHARED, propagation.shared.is_some());
        kind.set(MountFlags::SLAVE, propagation.master.is_some());
        kind.set(MountFlags::UNBINDABLE, propagation.is_unbindable);
        told.mnt_propagation =
            if kind.is_empty() { MountFlags::PRIVATE.bits() } else { kind.bits() };
        told.mnt_peer_group = propagation.shared.unwrap_or(0);
        told.mnt_master = propagation.master.unwrap_or(0);
        mask |= StatmountMask::MNT_BASIC;
    }
    let mut put = |text: &[u8]| {
        let at = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        texts.extend_from_slice(text);
        texts.push(0);
        at
    };
    if wanted.contains(StatmountMask::MNT_ROOT) {
        let top = Path { mount: mount.clone(), dentry: mount.sb.root.clone() };
        told.mnt_root = put(&root_of(mount).name_from(&top).name);
        mask |= StatmountMask::MNT_ROOT;
    }
    if wanted.contains(StatmountMask::MNT_POINT) {
        told.mnt_point = put(&root_of(mount).name_from(&task.fs().root()).name);
        mask |= StatmountMask::MNT_POINT;
    }
    if wanted.contains(StatmountMask::FS_TYPE) {
        told.fs_type = put(mount.sb.fs.kind().as_bytes());
        mask |= StatmountMask::FS_TYPE;
    }
    let options = mount.sb.fs.show_options();
    if wanted.contains(StatmountMask::MNT_OPTS) && !options.is_empty() {
        told.mnt_opts = put(options.as_bytes());
        mask |= StatmountMask::MNT_OPTS;
    }
    told.mask = mask.bits();
    Ok((told, texts))
}

/// Returns the flags of a mount as `mount_setattr(2)` has them.
fn attributes(flags: MountFlags) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in [
        (MountFlags::RDONLY, MountAttrFlags::RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::NOSUID),
        (MountFlags::NODEV, MountAttrFlags::NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::NOEXEC),
        (MountFlags::NODIRATIME, MountAttrFlags::NODIRATIME),
        (MountFlags::NOSYMFOLLOW, MountAttrFlags::NOSYMFOLLOW),
    ] {
        attributes.set(attribute, flags.contains(flag));
    }
    if flags.contains(MountFlags::NOATIME) {
        attributes |= MountAttrFlags::NOATIME;
    } else if !flags.contains(MountFlags::RELATIME) {
        attributes |= MountAttrFlags::STRICTATIME;
    }
    attributes
}
