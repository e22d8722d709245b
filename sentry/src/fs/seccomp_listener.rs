//! The descriptor of a listener of `seccomp(2)`: `seccomp_unotify(2)`.

use std::sync::Arc;

use syscalls::abi::fs::OpenFlags;
use syscalls::abi::ioctl::{
    SECCOMP_IOCTL_NOTIF_ADDFD, SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR, SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_IOCTL_NOTIF_SET_FLAGS,
};
use syscalls::abi::prctl::{
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, SeccompAddfdFlags, SeccompNotif, SeccompNotifAddfd,
    SeccompNotifResp,
};
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use crate::sync::{Events, Registration, Waiter};
use crate::task::block::Wait;
use crate::task::seccomp::listener::Listener;
use crate::task::{CurrentTask, HandlerResult, Restart};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::{Attr, File, OpenFile};

/// The bits of a request that are not the size of its argument.
const BUT_SIZE: u32 = 0xc000_ffff;

/// No argument is as large.
const PAGE: u64 = 4096;

/// A listener's descriptor.
pub(crate) struct SeccompListener {
    attr: Attr,
    listener: Arc<Listener>,
}

impl SeccompListener {
    /// Opens a listener.
    pub(crate) fn open(task: &CurrentTask, listener: &Arc<Listener>) -> Arc<OpenFile> {
        let attr = anon::attr(task, AnonMount::Inode, 0o600);
        let file = Arc::new(Self { attr, listener: listener.clone() });
        OpenFile::new(file, None, OpenFlags::RDWR.bits())
    }

    fn receive(&self, task: &CurrentTask, arg: UserAddr) -> HandlerResult {
        let ptr = UserPtr::<SeccompNotif>::new(arg);
        if task.read_obj(ptr)? != SeccompNotif::default() {
            return Err(Errno::EINVAL.into());
        }
        let register = |waiter: &Arc<dyn Waiter>| {
            vec![self.listener.register(waiter, Events::READABLE | Events::HUP, 0)]
        };
        let received = task.wait_for(None, Restart::Sys, register, || self.listener.receive())?;
        let Wait::Ready(notice) = received else { return Err(Errno::EINTR.into()) };
        let asking = notice.task();
        let pid = asking.map_or(0, |asking| asking.tid_in(&task.pid_namespace()));
        let told = SeccompNotif { id: notice.id, pid, flags: 0, data: notice.data };
        if let Err(error) = task.write_obj(ptr, &told) {
            self.listener.put_back(&notice);
            return Err(error.into());
        }
        Ok(0)
    }

    /// Gives whoever waits a descriptor; where that is wanted, as the result of its call.
    fn add_descriptor(&self, task: &CurrentTask, arg: UserAddr, size: u64) -> HandlerResult {
        let least = u64::try_from(size_of::<SeccompNotifAddfd>()).unwrap_or(u64::MAX);
        if size < least || size >= PAGE {
            return Err(Errno::EINVAL.into());
        }
        let given: SeccompNotifAddfd = task.read_obj(UserPtr::new(arg))?;
        let n_more = usize::try_from(size.saturating_sub(least)).unwrap_or(0);
        let more = arg.0.checked_add(least).ok_or(Errno::EFAULT)?;
        let more = task.read_array::<u8>(UserPtr::new(UserAddr(more)), n_more)?;
        if more.iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG.into());
        }
        let flags = SeccompAddfdFlags::from_bits_retain(given.flags);
        let cloexec = OpenFlags::CLOEXEC.bits();
        let sets = flags.contains(SeccompAddfdFlags::SETFD);
        if given.newfd_flags & !cloexec != 0
            || flags.has_unknown_bits()
            || (given.newfd != 0 && !sets)
        {
            return Err(Errno::EINVAL.into());
        }
        let source = i32::try_from(given.srcfd).map_err(|_| Errno::EBADF)?;
        let file = task.files().get(source)?;
        let target = self.listener.received(given.id)?.task().ok_or(Errno::ENOENT)?;
        let limit = target.group.limits.lock().soft(RLIMIT_NOFILE);
        let is_cloexec = given.newfd_flags & cloexec != 0;
        let fd = if sets {
            let fd = i32::try_from(given.newfd).map_err(|_| Errno::EBADF)?;
            let old = target.files().replace(fd, file, is_cloexec, limit)?;
            drop(old);
            fd
        } else {
            target.files().install(file, is_cloexec, limit)?
        };
        if flags.contains(SeccompAddfdFlags::SEND) {
            let response = SeccompNotifResp { id: given.id, val: fd.into(), error: 0, flags: 0 };
            self.listener.send(&response)?;
        }
        Ok(u64::try_from(fd).unwrap_or(0))
    }
}

impl Drop for SeccompListener {
    fn drop(&mut self) {
        self.listener.close();
    }
}

impl File for SeccompListener {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        String::from("anon_inode:seccomp notify")
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> Events {
        self.listener.poll()
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.listener.register(waiter, mask, key)]
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

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        let addr = UserAddr(arg);
        match request {
            SECCOMP_IOCTL_NOTIF_RECV => self.receive(task, addr),
            SECCOMP_IOCTL_NOTIF_SEND => {
                self.listener.send(&task.read_obj(UserPtr::new(addr))?)?;
                Ok(0)
            }
            SECCOMP_IOCTL_NOTIF_ID_VALID | SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR => {
                let id: u64 = task.read_obj(UserPtr::new(addr))?;
                self.listener.received(id).map_err(|_| Errno::ENOENT)?;
                Ok(0)
            }
            // On which CPU a waiter wakes is not for us to say.
            SECCOMP_IOCTL_NOTIF_SET_FLAGS if arg & !SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP == 0 => {
                Ok(0)
            }
            SECCOMP_IOCTL_NOTIF_SET_FLAGS => Err(Errno::EINVAL.into()),
            _ if request & BUT_SIZE == SECCOMP_IOCTL_NOTIF_ADDFD & BUT_SIZE => {
                self.add_descriptor(task, addr, u64::from(request >> 16 & 0x3fff))
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
