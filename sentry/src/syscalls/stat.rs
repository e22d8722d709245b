//! Attributes: `stat(2)`, `statx(2)`, `statfs(2)`, `access(2)`.

use syscalls::abi::fs::{
    AT_FDCWD, AtFlags, R_OK, Stat, Statfs, Statx, StatxAttr, StatxMask, StatxTimestamp, W_OK, X_OK,
    major, minor,
};
use syscalls::abi::mount::{MNT_UNIQUE_ID_OFFSET, MountFlags, StFlags};
use syscalls::abi::time::Timespec;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::at::{self, Target};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::permission::{self, MAY_EXEC, MAY_READ, MAY_WRITE};
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{Attr, FileFlags, FileType, Path, Timestamp};

/// Implements `stat(2)`.
///
/// <https://man7.org/linux/man-pages/man2/stat.2.html>
pub(super) fn sys_stat(
    task: &CurrentTask,
    pathname: UserAddr,
    statbuf: UserPtr<Stat>,
) -> HandlerResult<()> {
    let path = task.read_path(pathname)?;
    let path = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(&path)?;
    Ok(task.write_obj(statbuf, &stat_of(task, &path.inode().attr()?)?)?)
}

/// Implements `lstat(2)`.
pub(super) fn sys_lstat(
    task: &CurrentTask,
    pathname: UserAddr,
    statbuf: UserPtr<Stat>,
) -> HandlerResult<()> {
    let path = task.read_path(pathname)?;
    let path = Walk::from_cwd(task, WalkFlags::empty()).resolve(&path)?;
    Ok(task.write_obj(statbuf, &stat_of(task, &path.inode().attr()?)?)?)
}

/// Implements `fstat(2)`.
pub(super) fn sys_fstat(task: &CurrentTask, fd: Fd, statbuf: UserPtr<Stat>) -> HandlerResult<()> {
    let file = task.files().get_any(fd.0)?;
    Ok(task.write_obj(statbuf, &stat_of(task, &file.file.attr()?)?)?)
}

/// Implements `fstatat(2)`.
pub(super) fn sys_newfstatat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    statbuf: UserPtr<Stat>,
    flags: u32,
) -> HandlerResult<()> {
    let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let flags = at::check_flags(flags, known)?;
    let target = at::resolve(task, dirfd, pathname, flags)?;
    Ok(task.write_obj(statbuf, &stat_of(task, &target.attr()?)?)?)
}

/// Implements `statx(2)`.
///
/// <https://man7.org/linux/man-pages/man2/statx.2.html>
pub(super) fn sys_statx(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: u32,
    mask: u32,
    statxbuf: UserPtr<Statx>,
) -> HandlerResult<()> {
    const RESERVED: u32 = 0x8000_0000;
    let sync = AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC;
    let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | sync;
    let flags = at::check_flags(flags, known)?;
    if mask & RESERVED != 0 || flags.contains(sync) {
        return Err(Errno::EINVAL.into());
    }
    let target = at::resolve(task, dirfd, pathname, flags)?;
    let attr = target.attr()?;
    let place = match &target {
        Target::Path(path) => Some((path.mount.id, path.is_mount_root())),
        Target::File(_) => None,
    };
    let mut statx = statx_of(task, &attr, place);
    if place.is_some() && mask & StatxMask::MNT_ID_UNIQUE.bits() != 0 {
        statx.stx_mask ^= (StatxMask::MNT_ID | StatxMask::MNT_ID_UNIQUE).bits();
        statx.stx_mnt_id = statx.stx_mnt_id.saturating_add(MNT_UNIQUE_ID_OFFSET);
    }
    Ok(task.write_obj(statxbuf, &statx)?)
}

/// Implements `statfs(2)`.
///
/// <https://man7.org/linux/man-pages/man2/statfs.2.html>
pub(super) fn sys_statfs(
    task: &CurrentTask,
    pathname: UserAddr,
    buf: UserPtr<Statfs>,
) -> HandlerResult<()> {
    let path = task.read_path(pathname)?;
    let path = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(&path)?;
    Ok(task.write_obj(buf, &statfs_of(&path)?)?)
}

/// Implements `fstatfs(2)`.
pub(super) fn sys_fstatfs(task: &CurrentTask, fd: Fd, buf: UserPtr<Statfs>) -> HandlerResult<()> {
    let statfs = match Target::of_fd(task, fd)? {
        Target::Path(path) => statfs_of(&path)?,
        Target::File(file) => anonymous_statfs(file.file.attr()?.file_type()),
    };
    Ok(task.write_obj(buf, &statfs)?)
}

/// Implements `access(2)`.
///
/// <https://man7.org/linux/man-pages/man2/access.2.html>
pub(super) fn sys_access(task: &CurrentTask, pathname: UserAddr, mode: u32) -> HandlerResult<()> {
    do_access(task, Fd(AT_FDCWD), pathname, mode, AtFlags::empty())
}

/// Implements `faccessat(2)` as the system call has it: without flags.
pub(super) fn sys_faccessat(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
) -> HandlerResult<()> {
    do_access(task, dirfd, pathname, mode, AtFlags::empty())
}

/// Implements `faccessat2(2)`.
pub(super) fn sys_faccessat2(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
    flags: u32,
) -> HandlerResult<()> {
    let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::EACCESS;
    do_access(task, dirfd, pathname, mode, at::check_flags(flags, known)?)
}

fn do_access(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    mode: u32,
    flags: AtFlags,
) -> HandlerResult<()> {
    if mode & !(R_OK | W_OK | X_OK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let effective = task.creds();
    if flags.contains(AtFlags::EACCESS)
        || (effective.fsuid == effective.uid && effective.fsgid == effective.gid)
    {
        let target = at::resolve(task, dirfd, pathname, flags)?;
        return Ok(check_access(task, &target, mode)?);
    }
    // The check is made, and the path walked, with the real ids.
    let mut real = (*effective).clone();
    real.fsuid = real.uid;
    real.fsgid = real.gid;
    real.effective = if real.user_ns.is_root_user(real.uid) { real.permitted } else { 0 };
    let saved = std::mem::replace(&mut *task.creds.lock(), real.into());
    let result = at::resolve(task, dirfd, pathname, flags)
        .and_then(|target| check_access(task, &target, mode));
    *task.creds.lock() = saved;
    Ok(result?)
}

fn check_access(task: &CurrentTask, target: &Target, mode: u32) -> SysResult<()> {
    if mode == 0 {
        return Ok(());
    }
    let attr = target.attr()?;
    let wanted = [(R_OK, MAY_READ), (W_OK, MAY_WRITE), (X_OK, MAY_EXEC)];
    let mask =
        wanted.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |mask, (_, may)| mask | may);
    if let Target::Path(path) = target {
        let is_plain =
            matches!(attr.file_type(), FileType::Regular | FileType::Directory | FileType::Symlink);
        let is_noexec = path.mount.flags().contains(MountFlags::NOEXEC);
        if mask & MAY_EXEC != 0 && attr.file_type() == FileType::Regular && is_noexec {
            return Err(Errno::EACCES);
        }
        if mask & MAY_WRITE != 0 && is_plain {
            path.mount.check_writable()?;
        }
    }
    match target {
        Target::Path(path) => permission::check(&task.creds(), &**path.inode(), &attr, mask)?,
        Target::File(_) => permission::check_mode(&task.creds(), &attr, mask)?,
    }
    match target {
        Target::Path(path) if mask & MAY_WRITE != 0 => path.inode().check_write_access(task),
        _ => Ok(()),
    }
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) }
}

fn stat_of(task: &CurrentTask, attr: &Attr) -> SysResult<Stat> {
    let creds = task.creds();
    Ok(Stat {
        st_dev: attr.dev,
        st_ino: attr.ino,
        st_nlink: attr.nlink.into(),
        st_mode: attr.mode,
        st_uid: creds.user_ns.shown_uid(attr.uid),
        st_gid: creds.user_ns.shown_gid(attr.gid),
        st_rdev: attr.rdev,
        st_size: i64::try_from(attr.size).map_err(|_| Errno::EOVERFLOW)?,
        st_blksize: attr.blksize.into(),
        st_blocks: i64::try_from(attr.blocks).map_err(|_| Errno::EOVERFLOW)?,
        st_atime: timespec(attr.atime),
        st_mtime: timespec(attr.mtime),
        st_ctime: timespec(attr.ctime),
        ..Stat::default()
    })
}

fn statx_of(task: &CurrentTask, attr: &Attr, place: Option<(u64, bool)>) -> Statx {
    let creds = task.creds();
    let timestamp = |time: Timestamp| StatxTimestamp {
        tv_sec: time.sec,
        tv_nsec: time.nsec,
        ..StatxTimestamp::default()
    };
    let mut mask = StatxMask::BASIC_STATS;
    if attr.btime.is_some() {
        mask |= StatxMask::BTIME;
    }
    if place.is_some() {
        mask |= StatxMask::MNT_ID;
    }
    let is_mount_root = place.is_some_and(|(_, is_root)| is_root);
    let shown = FileFlags::IMMUTABLE | FileFlags::APPEND | FileFlags::NODUMP;
    let own = StatxAttr::from_bits_retain(u64::from((attr.flags & shown).bits()));
    let of_place = if is_mount_root { StatxAttr::MOUNT_ROOT } else { StatxAttr::empty() };
    let attributes = of_place | own;
    Statx {
        stx_mask: mask.bits(),
        stx_blksize: attr.blksize,
        stx_attributes: attributes.bits(),
        stx_attributes_mask: (StatxAttr::MOUNT_ROOT | own).bits(),
        stx_nlink: attr.nlink,
        stx_uid: creds.user_ns.shown_uid(attr.uid),
        stx_gid: creds.user_ns.shown_gid(attr.gid),
        stx_mode: u16::try_from(attr.mode & 0xffff).unwrap_or(0),
        stx_ino: attr.ino,
        stx_size: attr.size,
        stx_blocks: attr.blocks,
        stx_atime: timestamp(attr.atime),
        stx_btime: timestamp(attr.btime.unwrap_or_default()),
        stx_ctime: timestamp(attr.ctime),
        stx_mtime: timestamp(attr.mtime),
        stx_rdev_major: major(attr.rdev),
        stx_rdev_minor: minor(attr.rdev),
        stx_dev_major: major(attr.dev),
        stx_dev_minor: minor(attr.dev),
        stx_mnt_id: place.map_or(0, |(id, _)| id),
        ..Statx::default()
    }
}

fn statfs_of(path: &Path) -> SysResult<Statfs> {
    let mut statfs = path.mount.sb.fs.statfs()?;
    let flags = path.mount.flags();
    let mut st = StFlags::VALID;
    for (flag, bit) in [
        (MountFlags::NOSUID, StFlags::NOSUID),
        (MountFlags::NODEV, StFlags::NODEV),
        (MountFlags::NOEXEC, StFlags::NOEXEC),
        (MountFlags::NOATIME, StFlags::NOATIME),
        (MountFlags::NODIRATIME, StFlags::NODIRATIME),
        (MountFlags::RELATIME, StFlags::RELATIME),
        (MountFlags::NOSYMFOLLOW, StFlags::NOSYMFOLLOW),
    ] {
        if flags.contains(flag) {
            st |= bit;
        }
    }
    if path.mount.is_readonly() {
        st |= StFlags::RDONLY;
    }
    statfs.f_flags = i64::try_from(st.bits()).unwrap_or(0);
    Ok(statfs)
}

fn anonymous_statfs(kind: FileType) -> Statfs {
    use syscalls::abi::mount::{ANON_INODE_FS_MAGIC, PIPEFS_MAGIC, SOCKFS_MAGIC};
    let f_type = match kind {
        FileType::Fifo => PIPEFS_MAGIC,
        FileType::Socket => SOCKFS_MAGIC,
        _ => ANON_INODE_FS_MAGIC,
    };
    Statfs { f_type, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() }
}
