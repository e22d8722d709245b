//! File systems step by step: `fsopen(2)`, `fspick(2)`, `fsconfig(2)`, `fsmount(2)`.

use std::sync::Arc;

use syscalls::abi::fs::{AtFlags, OpenFlags};
use syscalls::abi::mount::{
    FSCONFIG_CMD_CREATE, FSCONFIG_CMD_CREATE_EXCL, FSCONFIG_CMD_RECONFIGURE, FSCONFIG_SET_BINARY,
    FSCONFIG_SET_FD, FSCONFIG_SET_FLAG, FSCONFIG_SET_PATH, FSCONFIG_SET_PATH_EMPTY,
    FSCONFIG_SET_STRING, FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC, FSPICK_CLOEXEC, MountAttrFlags,
    MountFlags,
};
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr};

use super::mount_setattr::flags_of;
use super::{at, fd, mount, mount_tree};
use crate::sync::Mutex;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::file::downcast;
use crate::vfs::mount::SuperBlock;
use crate::vfs::{Attr, File, IoSink, OpenFile, Path};

/// The most bytes of options that are kept.
const MAX_OPTIONS: usize = 16 * 1024;

/// The longest name of an option, with its NUL.
const MAX_KEY: usize = 256;

/// The longest value, with its NUL.
const MAX_VALUE: usize = 256;

/// How far a file system has come.
enum Phase {
    /// Options are collected; nothing is made yet.
    New,
    /// Made, and not mounted.
    Made(Arc<SuperBlock>),
    /// In use: options are collected for a change.
    InUse(Arc<SuperBlock>),
    /// Could not be made.
    Failed,
}

struct State {
    phase: Phase,
    source: Option<Vec<u8>>,
    options: Vec<u8>,
    /// Whether it is to be read-only, as far as something has been said.
    readonly: Option<bool>,
}

/// A file system that is being made or changed.
pub(super) struct FsContextFile {
    attr: Attr,
    kind: Vec<u8>,
    state: Mutex<State>,
}

impl File for FsContextFile {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[fscontext]")
    }

    fn is_seekable(&self) -> bool {
        false
    }

    /// Reads a message about an error, of which there are none.
    fn read(&self, _task: &CurrentTask, _dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        Err(Errno::ENODATA)
    }
}

fn install(task: &CurrentTask, kind: &[u8], phase: Phase, is_cloexec: bool) -> SysResult<Fd> {
    let file = FsContextFile {
        attr: anon::attr(task, AnonMount::Inode, 0o600),
        kind: kind.to_vec(),
        state: Mutex::new(State { phase, source: None, options: Vec::new(), readonly: None }),
    };
    let open = OpenFile::new(Arc::new(file), None, OpenFlags::RDWR.bits());
    fd::install(task, open, is_cloexec)
}

fn context(task: &CurrentTask, fd: Fd) -> SysResult<Arc<FsContextFile>> {
    downcast::<FsContextFile>(&task.file(fd.0)?.file).ok_or(Errno::EINVAL)
}

/// Implements `fsopen(2)`.
///
/// <https://man7.org/linux/man-pages/man2/fsopen.2.html>
pub(super) fn sys_fsopen(task: &CurrentTask, fsname: UserAddr, flags: u32) -> HandlerResult<Fd> {
    mount::check_privilege(task)?;
    if flags & !FSOPEN_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    let kind = match task.read_cstr(fsname, 4096) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL.into()),
        result => result?,
    };
    if !task.kernel.file_system_types.has(&kind) {
        return Err(Errno::ENODEV.into());
    }
    Ok(install(task, &kind, Phase::New, flags != 0)?)
}

/// Implements `fspick(2)`.
///
/// <https://man7.org/linux/man-pages/man2/fspick.2.html>
pub(super) fn sys_fspick(
    task: &CurrentTask,
    dirfd: Fd,
    pathname: UserAddr,
    flags: u32,
) -> HandlerResult<Fd> {
    const NOFOLLOW: u32 = 2;
    const NO_AUTOMOUNT: u32 = 4;
    const EMPTY_PATH: u32 = 8;
    mount::check_privilege(task)?;
    if flags & !(FSPICK_CLOEXEC | NOFOLLOW | NO_AUTOMOUNT | EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut walk = AtFlags::empty();
    walk.set(AtFlags::SYMLINK_NOFOLLOW, flags & NOFOLLOW != 0);
    walk.set(AtFlags::EMPTY_PATH, flags & EMPTY_PATH != 0);
    let path = at::resolve(task, dirfd, pathname, walk)?.path()?;
    if !path.is_mount_root() {
        return Err(Errno::EINVAL.into());
    }
    let sb = path.mount.sb.clone();
    let kind = sb.fs.kind().as_bytes();
    Ok(install(task, kind, Phase::InUse(sb), flags & FSPICK_CLOEXEC != 0)?)
}

/// Implements `fsconfig(2)`.
///
/// <https://man7.org/linux/man-pages/man2/fsconfig.2.html>
pub(super) fn sys_fsconfig(
    task: &CurrentTask,
    fd: Fd,
    cmd: u32,
    key: UserAddr,
    value: UserAddr,
    aux: i32,
) -> HandlerResult<()> {
    if fd.0 < 0 {
        return Err(Errno::EINVAL.into());
    }
    let (has_key, has_value) = (!key.is_null(), !value.is_null());
    let is_sound = match cmd {
        FSCONFIG_SET_FLAG => has_key && !has_value && aux == 0,
        FSCONFIG_SET_STRING => has_key && has_value && aux == 0,
        FSCONFIG_SET_BINARY => has_key && has_value && (1..=1024 * 1024).contains(&aux),
        FSCONFIG_SET_PATH | FSCONFIG_SET_PATH_EMPTY => {
            has_key && has_value && (aux >= 0 || aux == syscalls::abi::fs::AT_FDCWD)
        }
        FSCONFIG_SET_FD => has_key && !has_value && aux >= 0,
        FSCONFIG_CMD_CREATE | FSCONFIG_CMD_CREATE_EXCL | FSCONFIG_CMD_RECONFIGURE => {
            !has_key && !has_value && aux == 0
        }
        _ => return Err(Errno::EOPNOTSUPP.into()),
    };
    if !is_sound {
        return Err(Errno::EINVAL.into());
    }
    let context = context(task, fd)?;
    let text = |addr, max| match task.read_cstr(addr, max) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        result => result,
    };
    match cmd {
        FSCONFIG_CMD_CREATE | FSCONFIG_CMD_CREATE_EXCL => Ok(create(task, &context)?),
        FSCONFIG_CMD_RECONFIGURE => Ok(reconfigure(task, &context)?),
        FSCONFIG_SET_FLAG => Ok(set(&context, &text(key, MAX_KEY)?, None)?),
        FSCONFIG_SET_STRING => {
            let (key, value) = (text(key, MAX_KEY)?, text(value, MAX_VALUE)?);
            Ok(set(&context, &key, Some(&value))?)
        }
        // No file system here has an option of such a kind.
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Notes an option.
fn set(context: &FsContextFile, key: &[u8], value: Option<&[u8]>) -> SysResult<()> {
    let mut state = context.state.lock();
    if !matches!(state.phase, Phase::New | Phase::InUse(_)) {
        return Err(Errno::EBUSY);
    }
    match (key, value) {
        (b"ro", _) => state.readonly = Some(true),
        (b"rw", _) => state.readonly = Some(false),
        // What is written is on stable storage, or there is none.
        (
            b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"mand" | b"nomand",
            _,
        ) => {}
        (b"source", Some(source)) if state.source.is_none() => {
            state.source = Some(source.to_vec());
        }
        (b"source" | b"", _) => return Err(Errno::EINVAL),
        (key, value) => {
            let room = MAX_OPTIONS.saturating_sub(state.options.len());
            if key.contains(&b',') || key.contains(&b'=') {
                return Err(Errno::EINVAL);
            }
            if room < key.len() + value.map_or(0, <[u8]>::len) * 2 + 2 {
                return Err(Errno::ENOMEM);
            }
            state.options.extend_from_slice(key);
            if let Some(value) = value {
                state.options.push(b'=');
                for byte in value {
                    if *byte == b',' {
                        state.options.push(b'\\');
                    }
                    state.options.push(*byte);
                }
            }
            state.options.push(b',');
        }
    }
    Ok(())
}

fn create(task: &CurrentTask, context: &FsContextFile) -> SysResult<()> {
    let mut state = context.state.lock();
    if !matches!(state.phase, Phase::New) {
        return Err(Errno::EBUSY);
    }
    state.phase = Phase::Failed;
    let options = std::mem::take(&mut state.options);
    let fs = task.kernel.file_system_types.make(task, &context.kind, &options)?;
    let sb = SuperBlock::owned(fs, &task.creds().user_ns);
    sb.set_readonly(state.readonly == Some(true));
    state.phase = Phase::Made(sb);
    Ok(())
}

fn reconfigure(task: &CurrentTask, context: &FsContextFile) -> SysResult<()> {
    let mut state = context.state.lock();
    let Phase::InUse(sb) = &state.phase else { return Err(Errno::EBUSY) };
    let sb = sb.clone();
    let options = std::mem::take(&mut state.options);
    let readonly = state.readonly.take().unwrap_or_else(|| sb.is_readonly());
    mount::reconfigure(task, &sb, readonly, &options)
}

/// Implements `fsmount(2)`.
///
/// <https://man7.org/linux/man-pages/man2/fsmount.2.html>
pub(super) fn sys_fsmount(
    task: &CurrentTask,
    fsfd: Fd,
    flags: u32,
    attr_flags: MountAttrFlags,
) -> HandlerResult<Fd> {
    mount::check_privilege(task)?;
    if flags & !FSMOUNT_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    if attr_flags.has_unknown_bits() || attr_flags.contains(MountAttrFlags::IDMAP) {
        return Err(Errno::EINVAL.into());
    }
    let atime = MountAttrFlags::NOATIME | MountAttrFlags::STRICTATIME;
    let atime = match attr_flags & atime {
        MountAttrFlags::NOATIME => MountFlags::NOATIME,
        MountAttrFlags::STRICTATIME => MountFlags::empty(),
        other if other.is_empty() => MountFlags::RELATIME,
        _ => return Err(Errno::EINVAL.into()),
    };
    let context = context(task, fsfd)?;
    let mut state = context.state.lock();
    let sb = match &state.phase {
        Phase::New | Phase::Failed => return Err(Errno::EINVAL.into()),
        Phase::InUse(_) => return Err(Errno::EBUSY.into()),
        Phase::Made(sb) => sb.clone(),
    };
    let source = state.source.clone().unwrap_or_else(|| b"none".to_vec());
    let namespace = task.fs().namespace();
    let mount_flags = flags_of(attr_flags) | atime;
    let mount = mount::new_mount(&namespace, sb.clone(), &source, mount_flags)?.detached()?;
    state.phase = Phase::InUse(sb);
    drop(state);
    let dentry = mount.root.clone();
    Ok(mount_tree::install_place(task, Path { mount, dentry }, flags != 0)?)
}
