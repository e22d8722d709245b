//! pidfds: descriptors that refer to processes.

use std::sync::Arc;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::abi::signal::{IOC_WITHOUT_SIZE, PIDFD_GET_INFO, PidfdInfo, PidfdInfoMask};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use crate::sync::{Events, Registration, Waiter};
use crate::task::{CurrentTask, HandlerResult, ThreadGroup};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::file::downcast;
use crate::vfs::{Attr, File, OpenFile};

/// A reference to a process.
pub struct PidFd {
    attr: Attr,
    /// The process, which stays the same when its pid is given to another one.
    group: Arc<ThreadGroup>,
}

/// Puts a pidfd of `group` into the caller's descriptor table.
///
/// # Errors
/// `EMFILE`.
pub(crate) fn install(
    current: &CurrentTask,
    group: &Arc<ThreadGroup>,
    cloexec: bool,
) -> SysResult<i32> {
    install_with(current, group, OpenFlags::empty(), cloexec)
}

/// As [`install`], with status flags.
///
/// # Errors
/// `EMFILE`.
pub(crate) fn install_with(
    current: &CurrentTask,
    group: &Arc<ThreadGroup>,
    flags: OpenFlags,
    cloexec: bool,
) -> SysResult<i32> {
    let limit = current.group.limits.lock().soft(RLIMIT_NOFILE);
    current.files().install(open(current, group, flags), cloexec, limit)
}

/// Lets the descriptor `fd`, which has been reserved by [`install`], refer to another process.
pub(crate) fn replace(current: &CurrentTask, fd: i32, group: &Arc<ThreadGroup>) {
    let file = open(current, group, OpenFlags::empty());
    let old = current.files().replace(fd, file, true, u64::MAX);
    drop(old);
}

fn open(current: &CurrentTask, group: &Arc<ThreadGroup>, flags: OpenFlags) -> Arc<OpenFile> {
    let attr = anon::attr(current, AnonMount::Pid, 0o100_700);
    let file = Arc::new(PidFd { attr, group: group.clone() });
    OpenFile::new(file, None, (flags | OpenFlags::RDWR).bits())
}

/// Returns the process that a pidfd refers to, and whether the descriptor is non-blocking.
///
/// # Errors
/// `EBADF`.
pub(crate) fn group_of(current: &CurrentTask, fd: i32) -> SysResult<(Arc<ThreadGroup>, bool)> {
    let open = current.files().get(fd)?;
    let file = downcast::<PidFd>(&open.file).ok_or(Errno::EBADF)?;
    Ok((file.group.clone(), open.is_nonblocking()))
}

impl PidFd {
    /// Returns what `PIDFD_GET_INFO` tells (Linux has it since 6.13).
    fn info(&self, task: &CurrentTask, wanted: PidfdInfoMask) -> SysResult<PidfdInfo> {
        let namespace = task.pid_namespace();
        let group = &self.group;
        if !group.pid_namespace.chain().iter().any(|other| Arc::ptr_eq(other, &namespace)) {
            return Err(Errno::ESRCH);
        }
        let mut info = PidfdInfo::default();
        let mut told = PidfdInfoMask::empty();
        let (is_reaped, status) = {
            let tree = group.tree.lock();
            (tree.is_reaped, tree.zombie)
        };
        if is_reaped {
            // Only how it has ended is left.
            let status = status.filter(|_| wanted.contains(PidfdInfoMask::EXIT));
            info.exit_code = status.ok_or(Errno::ESRCH)?;
            info.mask = PidfdInfoMask::EXIT.bits();
            return Ok(info);
        }
        let leader = group.leader().ok_or(Errno::ESRCH)?;
        let creds = leader.creds();
        (info.ruid, info.euid, info.suid, info.fsuid) =
            (creds.uid, creds.euid, creds.suid, creds.fsuid);
        (info.rgid, info.egid, info.sgid, info.fsgid) =
            (creds.gid, creds.egid, creds.sgid, creds.fsgid);
        told |= PidfdInfoMask::CREDS;
        info.pid = group.pid_in(&namespace);
        info.tgid = info.pid;
        info.ppid = group.parent().map_or(0, |parent| parent.pid_in(&namespace));
        told |= PidfdInfoMask::PID;
        info.mask = told.bits();
        Ok(info)
    }
}

impl File for PidFd {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:[pidfd]")
    }

    fn fd_info(&self, task: &CurrentTask) -> String {
        let is_reaped = self.group.tree.lock().is_reaped;
        let pid = if is_reaped {
            String::from("-1")
        } else {
            self.group.pid_in(&task.pid_namespace()).to_string()
        };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        if request & IOC_WITHOUT_SIZE != PIDFD_GET_INFO {
            return Err(Errno::ENOTTY.into());
        }
        let size = usize::try_from((request >> 16) & 0x3fff).map_err(|_| Errno::EINVAL)?;
        if arg == 0 || size < size_of::<PidfdInfo>() {
            return Err(Errno::EINVAL.into());
        }
        let wanted = PidfdInfoMask::from_bits_retain(task.read_obj(UserPtr::new(UserAddr(arg)))?);
        let info = self.info(task, wanted)?;
        // What later versions of the structure have is not known here.
        let mut bytes = info.as_bytes().to_vec();
        bytes.resize(size, 0);
        task.write_bytes(UserAddr(arg), &bytes)?;
        Ok(0)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> Events {
        let tree = self.group.tree.lock();
        if tree.is_reaped {
            Events::READABLE | Events::HUP
        } else if tree.zombie.is_some() {
            Events::READABLE
        } else {
            Events::empty()
        }
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.group.exit_events.register(waiter, mask, key)]
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn can_splice_from(&self) -> bool {
        false
    }

    fn can_splice_to(&self) -> bool {
        false
    }
}
