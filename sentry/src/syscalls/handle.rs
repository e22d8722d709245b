//! File handles: `name_to_handle_at(2)`, `open_by_handle_at(2)`.

use syscalls::abi::capability::CAP_DAC_READ_SEARCH;
use syscalls::abi::fs::AtFlags;
use syscalls::abi::fs::{AT_FDCWD, FileHandle, HandleFlags, OpenFlags};
use syscalls::abi::mount::MNT_UNIQUE_ID_OFFSET;
use syscalls::arg::Fd;
use syscalls::{Errno, UserAddr, UserPtr};

use super::{at, fd};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{FileType, Path, open};

/// The longest handle: `MAX_HANDLE_SZ`.
const MAX_HANDLE_SIZE: u32 = 128;

/// The length of the handles here: a number and an inode number.
const HANDLE_SIZE: u32 = 16;

/// Their type, which is not one of Linux's own.
const HANDLE_TYPE: i32 = 0x71;

/// What Linux says of a handle that has not been made: `FILEID_INVALID`.
const INVALID_TYPE: i32 = 0xff;

/// File systems whose files cannot be found by a number.
const NOT_EXPORTED: [&str; 6] = ["proc", "sysfs", "devpts", "mqueue", "anon_inodefs", "cgroup2"];

/// Returns the address behind the fixed part of a handle.
fn bytes_of(handle: UserPtr<FileHandle>) -> Result<UserAddr, Errno> {
    handle.addr().checked_add(size_of::<FileHandle>() as u64).ok_or(Errno::EFAULT)
}

/// Implements `name_to_handle_at(2)`.
///
/// <https://man7.org/linux/man-pages/man2/name_to_handle_at.2.html>
pub(super) fn sys_name_to_handle_at(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    handle: UserPtr<FileHandle>,
    mount_id: UserAddr,
    flags: HandleFlags,
) -> HandlerResult<()> {
    let is_for_comparing = flags.contains(HandleFlags::FID);
    if flags.has_unknown_bits() || (is_for_comparing && flags.contains(HandleFlags::CONNECTABLE)) {
        return Err(Errno::EINVAL.into());
    }
    let mut how = AtFlags::empty();
    how.set(AtFlags::EMPTY_PATH, flags.contains(HandleFlags::EMPTY_PATH));
    how.set(AtFlags::SYMLINK_NOFOLLOW, !flags.contains(HandleFlags::SYMLINK_FOLLOW));
    let path = match at::resolve(task, dirfd, pathname, how)? {
        at::Target::Path(path) => path,
        at::Target::File(_) => return Err(Errno::EOPNOTSUPP.into()),
    };
    let sb = &path.mount.sb;
    let is_exported = !NOT_EXPORTED.contains(&sb.fs.kind());
    if !is_exported && !is_for_comparing {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut header = task.read_obj(handle)?;
    if header.handle_bytes > MAX_HANDLE_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let fits = header.handle_bytes >= HANDLE_SIZE;
    header.handle_bytes = HANDLE_SIZE;
    header.handle_type = if fits { HANDLE_TYPE } else { INVALID_TYPE };
    if flags.contains(HandleFlags::MNT_ID_UNIQUE) {
        let id = path.mount.id.saturating_add(MNT_UNIQUE_ID_OFFSET);
        task.write_obj(UserPtr::new(mount_id), &id)?;
    } else {
        let id = i32::try_from(path.mount.id).map_err(|_| Errno::EOVERFLOW)?;
        task.write_obj(UserPtr::new(mount_id), &id)?;
    }
    if fits {
        let ino = path.inode().attr()?.ino;
        let number = if is_exported { sb.handle_of(&path.dentry, ino) } else { 0 };
        task.write_obj(UserPtr::new(bytes_of(handle)?), &[number, ino])?;
    }
    task.write_obj(handle, &header)?;
    if fits { Ok(()) } else { Err(Errno::EOVERFLOW.into()) }
}

/// Implements `open_by_handle_at(2)`.
///
/// <https://man7.org/linux/man-pages/man2/open_by_handle_at.2.html>
pub(super) fn sys_open_by_handle_at(
    task: &CurrentTask,
    mount_fd: Fd,
    handle: UserPtr<FileHandle>,
    flags: u32,
) -> HandlerResult<Fd> {
    let place = if mount_fd.0 == AT_FDCWD {
        task.fs().cwd()
    } else {
        let file = task.files().get_any(mount_fd.0)?;
        file.path.clone().ok_or(Errno::ESTALE)?
    };
    if !task.creds().has_capability(CAP_DAC_READ_SEARCH) {
        return Err(Errno::EPERM.into());
    }
    let header = task.read_obj(handle)?;
    if header.handle_bytes > MAX_HANDLE_SIZE || header.handle_bytes == 0 || header.handle_type < 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; usize::try_from(header.handle_bytes).unwrap_or(0)];
    task.read_bytes(bytes_of(handle)?, &mut bytes)?;
    if header.handle_bytes != HANDLE_SIZE || header.handle_type != HANDLE_TYPE {
        return Err(Errno::ESTALE.into());
    }
    let [number, ino] = task.read_obj::<[u64; 2]>(UserPtr::new(bytes_of(handle)?))?;
    let dentry = place.mount.sb.by_handle(number, ino).ok_or(Errno::ESTALE)?;
    let path = Path { mount: place.mount.clone(), dentry };
    let flags = OpenFlags::from_bits_retain(flags) - (OpenFlags::CREAT | OpenFlags::EXCL);
    let kind = path.inode().file_type();
    if kind == FileType::Symlink && !flags.contains(OpenFlags::PATH) {
        return Err(Errno::ELOOP.into());
    }
    if kind != FileType::Directory && flags.contains(OpenFlags::DIRECTORY) {
        return Err(Errno::ENOTDIR.into());
    }
    let is_cloexec = flags.contains(OpenFlags::CLOEXEC);
    let file = open::open_path(task, path, flags, false)?;
    Ok(fd::install(task, file, is_cloexec)?)
}
