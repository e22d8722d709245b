//! Writing to stable storage, and advice about what will be read.

use syscalls::abi::fs::{POSIX_FADV_NOREUSE, SyncFileRangeFlags};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult};

use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{FileType, OpenFile};

/// Implements `fsync(2)`.
pub(super) fn sys_fsync(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    Ok(task.files().get(fd.0)?.file.sync(false)?)
}

/// Implements `fdatasync(2)`.
pub(super) fn sys_fdatasync(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    Ok(task.files().get(fd.0)?.file.sync(true)?)
}

/// Implements `sync(2)`.
pub(super) fn sys_sync(task: &CurrentTask) -> HandlerResult<()> {
    for mount in task.fs().namespace().mounts() {
        // Always successful, as the manual page says.
        let _ = mount.sb.fs.sync();
    }
    Ok(())
}

/// Implements `syncfs(2)`.
pub(super) fn sys_syncfs(task: &CurrentTask, fd: Fd) -> HandlerResult<()> {
    let file = task.files().get(fd.0)?;
    match &file.path {
        Some(path) => Ok(path.mount.sb.fs.sync()?),
        None => Ok(()),
    }
}

/// Implements `sync_file_range(2)`.
pub(super) fn sys_sync_file_range(
    task: &CurrentTask,
    fd: Fd,
    offset: i64,
    nbytes: i64,
    flags: u32,
) -> HandlerResult<()> {
    let file = task.files().get(fd.0)?;
    let flags = SyncFileRangeFlags::from_bits_retain(flags);
    let is_range_valid = offset >= 0 && nbytes >= 0 && offset.checked_add(nbytes).is_some();
    if flags.has_unknown_bits() || !is_range_valid {
        return Err(Errno::EINVAL.into());
    }
    if !has_pages(&file)? {
        return Err(Errno::ESPIPE.into());
    }
    if flags.is_empty() { Ok(()) } else { Ok(file.file.sync(true)?) }
}

/// Implements `fadvise64(2)`. Advice is taken and nothing follows from it: pages are the host's.
pub(super) fn sys_fadvise64(
    task: &CurrentTask,
    fd: Fd,
    _offset: i64,
    len: i64,
    advice: i32,
) -> HandlerResult<()> {
    let file = task.files().get(fd.0)?;
    if file.file.attr()?.file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || !(0..=POSIX_FADV_NOREUSE).contains(&advice) {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// Implements `readahead(2)`.
pub(super) fn sys_readahead(
    task: &CurrentTask,
    fd: Fd,
    _offset: i64,
    _count: usize,
) -> HandlerResult<()> {
    let file = task.files().get(fd.0)?;
    if !file.is_readable() {
        return Err(Errno::EBADF.into());
    }
    match file.file.attr()?.file_type() {
        FileType::Regular | FileType::BlockDevice => Ok(()),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn has_pages(file: &OpenFile) -> SysResult<bool> {
    Ok(matches!(
        file.file.attr()?.file_type(),
        FileType::Regular | FileType::BlockDevice | FileType::Directory | FileType::Symlink
    ))
}
