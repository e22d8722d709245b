//! Sending and receiving on sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscalls::abi::capability::{CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::abi::signal::SIGPIPE;
use syscalls::abi::socket::{
    AF_INET, AF_INET6, AF_PACKET, Cmsghdr, Mmsghdr, MsgFlags, Msghdr, SCM_CREDENTIALS, SCM_MAX_FD,
    SCM_PIDFD, SCM_RIGHTS, SO_TIMESTAMPING, SO_TIMESTAMPING_NEW, SOCKADDR_STORAGE_SIZE, SOL_SOCKET,
    Ucred, cmsg_align,
};
use syscalls::abi::time::Timespec;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::{FromBytes, IntoBytes};

use super::fd::install;
use super::lend;
use super::poll::read_deadline;
use super::read_write::Segments;
use super::socket::{Opened, deadline, lookup, read_addr, write_addr};
use crate::mm::user_io::{MAX_RW_COUNT, UIO_MAXIOV, UserBuf};
use crate::net::control::{Control, Files, Sender};
use crate::net::{Ancillary, Incoming, Outgoing, timestamp};
use crate::sync::Events;
use crate::task::block::Wait;
use crate::task::{Control as Flow, CurrentTask, HandlerResult, signal};

/// The most bytes of control messages: `net.core.optmem_max`.
const MAX_CONTROL: u64 = 131_072;

/// The most files in flight in a sandbox, whoever sends them.
const MAX_IN_FLIGHT: usize = 1 << 18;

/// What a send remembers while it waits.
struct Sending {
    done: usize,
    message: Outgoing,
}

/// What a receive with `MSG_WAITALL` remembers while it waits.
struct Receiving(Incoming);

fn one(buf: UserAddr, size: usize) -> Segments {
    vec![(buf, size.min(MAX_RW_COUNT))]
}

/// Sends, waiting for room if need be.
fn do_send(
    task: &CurrentTask,
    opened: &Opened,
    segments: &Segments,
    flags: MsgFlags,
    prepare: impl FnOnce() -> SysResult<Outgoing>,
) -> HandlerResult<usize> {
    let Opened { open, socket } = opened;
    let total: usize = segments.iter().map(|(_, len)| len).sum();
    let Sending { mut done, mut message } = match task.recall::<Sending>() {
        Some(sending) => sending,
        None => Sending { done: 0, message: prepare()? },
    };
    let may_wait = !open.is_nonblocking() && !flags.contains(MsgFlags::DONTWAIT);
    message.flags = if may_wait { flags } else { flags | MsgFlags::DONTWAIT };
    let attempt = || loop {
        let mut src = UserBuf::from_segments(task, segments.clone());
        src.advance(done);
        match socket.send(task, &mut src, &message) {
            Ok(n) => {
                done += n;
                if !socket.is_stream() || done >= total || n == 0 {
                    return Ok(Some(done));
                }
                // Files go with the first byte.
                message.control.files = Files::default();
            }
            Err(Errno::EAGAIN) if may_wait => return Ok(None),
            Err(_) if done > 0 => return Ok(Some(done)),
            Err(Errno::EPIPE) => {
                if socket.is_stream() && !flags.contains(MsgFlags::NOSIGNAL) {
                    signal::send_to_self(task, SIGPIPE);
                }
                return Err(Errno::EPIPE);
            }
            Err(errno) => return Err(errno),
        }
    };
    let timeout_ns = socket.options().send_timeout_ns.load(Ordering::Relaxed);
    let (deadline_ns, restart) = deadline(task, timeout_ns);
    let register = |waiter: &_| socket.register(waiter, Events::WRITABLE, 0);
    match task.wait_for(deadline_ns, restart, register, attempt) {
        Ok(Wait::Ready(n)) => Ok(n),
        Ok(Wait::TimedOut) if done > 0 => Ok(done),
        Ok(Wait::TimedOut) => Err(Errno::EAGAIN.into()),
        Err(Flow::Block) => {
            task.remember(Sending { done, message });
            Err(Flow::Block)
        }
        Err(Flow::Restart(_)) if done > 0 => Ok(done),
        Err(flow) => Err(flow),
    }
}

/// Receives, waiting for data if need be.
fn do_recv(
    task: &CurrentTask,
    opened: &Opened,
    segments: &Segments,
    flags: MsgFlags,
) -> HandlerResult<Incoming> {
    let Opened { open, socket } = opened;
    let total: usize = segments.iter().map(|(_, len)| len).sum();
    let waits_for_all =
        socket.is_stream() && flags.contains(MsgFlags::WAITALL) && !flags.contains(MsgFlags::PEEK);
    let mut so_far = task.recall::<Receiving>().map(|receiving| receiving.0);
    let never_waits = MsgFlags::DONTWAIT | MsgFlags::ERRQUEUE;
    let may_wait = !open.is_nonblocking() && !flags.intersects(never_waits);
    let flags = if may_wait { flags } else { flags | MsgFlags::DONTWAIT };
    let attempt = || loop {
        let done = so_far.as_ref().map_or(0, |so_far| so_far.n);
        let mut dst = UserBuf::from_segments(task, segments.clone());
        dst.advance(done);
        match socket.recv(task, &mut dst, flags) {
            Ok(incoming) => {
                let is_end = incoming.n == 0 || incoming.is_at_mark;
                let incoming = match so_far.take() {
                    // Whatever came beside the first part counts.
                    Some(first) => Incoming { n: done + incoming.n, ..first },
                    None => incoming,
                };
                let is_enough = incoming.n >= total || !incoming.control.files.is_empty();
                if !waits_for_all || is_end || is_enough {
                    return Ok(Some(incoming));
                }
                so_far = Some(incoming);
            }
            Err(Errno::EAGAIN) if may_wait && socket.has_ended() => {
                let end = Incoming { is_end: true, ..Incoming::default() };
                return Ok(Some(so_far.take().unwrap_or(end)));
            }
            Err(Errno::EAGAIN) if may_wait => return Ok(None),
            Err(errno) => return so_far.take().map(Some).ok_or(errno),
        }
    };
    let timeout_ns = socket.options().receive_timeout_ns.load(Ordering::Relaxed);
    let (deadline_ns, restart) = deadline(task, timeout_ns);
    let register = |waiter: &_| socket.register(waiter, Events::READABLE, 0);
    let result = task.wait_for(deadline_ns, restart, register, attempt);
    match (result, so_far) {
        (Ok(Wait::Ready(incoming)), _) => Ok(incoming),
        (Err(Flow::Block), so_far) => {
            if let Some(so_far) = so_far {
                task.remember(Receiving(so_far));
            }
            Err(Flow::Block)
        }
        (Ok(Wait::TimedOut) | Err(Flow::Restart(_)), Some(so_far)) => Ok(so_far),
        (Ok(Wait::TimedOut), None) => Err(Errno::EAGAIN.into()),
        (Err(flow), _) => Err(flow),
    }
}

/// Returns what a receive returns: under `MSG_TRUNC` the length of the message.
fn returned(incoming: &Incoming, flags: MsgFlags) -> usize {
    if flags.contains(MsgFlags::TRUNC) { incoming.full.max(incoming.n) } else { incoming.n }
}

/// Implements `sendto(2)`.
///
/// <https://man7.org/linux/man-pages/man2/sendto.2.html>
pub(super) fn sys_sendto(
    task: &CurrentTask,
    sockfd: Fd,
    buf: UserAddr,
    size: usize,
    flags: MsgFlags,
    dest_addr: UserAddr,
    addrlen: i32,
) -> HandlerResult<usize> {
    let opened = lookup(task, sockfd)?;
    let n = do_send(task, &opened, &one(buf, size), flags, || {
        let has_addr = !dest_addr.is_null() && addrlen != 0;
        let addr = if has_addr { Some(read_addr(task, dest_addr, addrlen)?) } else { None };
        Ok(Outgoing { addr, ..Outgoing::default() })
    })?;
    lend::offer(task, sockfd, &opened.open);
    Ok(n)
}

/// Implements `recvfrom(2)`.
pub(super) fn sys_recvfrom(
    task: &CurrentTask,
    sockfd: Fd,
    buf: UserAddr,
    size: usize,
    flags: MsgFlags,
    src_addr: UserAddr,
    addrlen: UserPtr<i32>,
) -> HandlerResult<usize> {
    let opened = lookup(task, sockfd)?;
    let incoming = do_recv(task, &opened, &one(buf, size), flags)?;
    if !src_addr.is_null() {
        write_addr(task, &incoming.addr, src_addr, addrlen)?;
    }
    lend::offer(task, sockfd, &opened.open);
    Ok(returned(&incoming, flags))
}

/// Implements `sendmsg(2)`.
pub(super) fn sys_sendmsg(
    task: &CurrentTask,
    sockfd: Fd,
    msg: UserPtr<Msghdr>,
    flags: MsgFlags,
) -> HandlerResult<usize> {
    let opened = lookup(task, sockfd)?;
    let header = task.read_obj(msg)?;
    send_message(task, &opened, &header, flags)
}

fn segments_of(task: &CurrentTask, header: &Msghdr) -> SysResult<Segments> {
    if header.msg_iovlen > UIO_MAXIOV as u64 {
        return Err(Errno::EMSGSIZE);
    }
    task.read_iovec(UserAddr(header.msg_iov), header.msg_iovlen)
}

fn send_message(
    task: &CurrentTask,
    opened: &Opened,
    header: &Msghdr,
    flags: MsgFlags,
) -> HandlerResult<usize> {
    let segments = segments_of(task, header)?;
    do_send(task, opened, &segments, flags, || {
        if header.msg_namelen < 0 {
            return Err(Errno::EINVAL);
        }
        let has_addr = header.msg_name != 0 && header.msg_namelen != 0;
        let max = i32::try_from(SOCKADDR_STORAGE_SIZE).unwrap_or(i32::MAX);
        let len = header.msg_namelen.min(max);
        let addr =
            if has_addr { Some(read_addr(task, UserAddr(header.msg_name), len)?) } else { None };
        let (control, ancillary) = read_control(task, opened, header)?;
        Ok(Outgoing { addr, control, ancillary, flags })
    })
}

/// Reads the control messages of a send.
fn read_control(
    task: &CurrentTask,
    opened: &Opened,
    header: &Msghdr,
) -> SysResult<(Control, Vec<Ancillary>)> {
    const HEADER: usize = size_of::<Cmsghdr>();
    let mut control = Control::default();
    let mut ancillary = Vec::new();
    if header.msg_control == 0 || header.msg_controllen == 0 {
        return Ok((control, ancillary));
    }
    if header.msg_controllen > MAX_CONTROL {
        return Err(Errno::ENOBUFS);
    }
    let len = usize::try_from(header.msg_controllen).map_err(|_| Errno::ENOBUFS)?;
    let mut bytes = vec![0; len];
    task.read_bytes(UserAddr(header.msg_control), &mut bytes)?;
    let mut rest = bytes.as_slice();
    let mut files = Vec::new();
    let takes_stamps = matches!(opened.socket.identity().0, AF_INET | AF_INET6 | AF_PACKET);
    while let Ok((message, _)) = Cmsghdr::read_from_prefix(rest) {
        let len = usize::try_from(message.cmsg_len).map_err(|_| Errno::EINVAL)?;
        let data = rest.get(HEADER..len).ok_or(Errno::EINVAL)?;
        if message.cmsg_level == SOL_SOCKET {
            match message.cmsg_type {
                SCM_RIGHTS => read_rights(task, data, &mut files)?,
                SCM_CREDENTIALS => {
                    let creds = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                    control.sender = Some(check_sender(task, &creds)?);
                }
                kind @ (SO_TIMESTAMPING | SO_TIMESTAMPING_NEW) if takes_stamps => {
                    timestamp::read_record(data)?;
                    let level = message.cmsg_level;
                    ancillary.push(Ancillary { level, kind, data: data.to_vec() });
                }
                _ => return Err(Errno::EINVAL),
            }
        } else {
            let (level, kind) = (message.cmsg_level, message.cmsg_type);
            ancillary.push(Ancillary { level, kind, data: data.to_vec() });
        }
        let next = cmsg_align(len).ok_or(Errno::EINVAL)?;
        rest = rest.get(next..).unwrap_or_default();
    }
    control.files = Files::new(files);
    Ok((control, ancillary))
}

fn read_rights(
    task: &CurrentTask,
    data: &[u8],
    files: &mut Vec<Arc<crate::vfs::OpenFile>>,
) -> SysResult<()> {
    let table = task.files();
    for fd in data.chunks_exact(size_of::<i32>()) {
        if files.len() >= SCM_MAX_FD {
            return Err(Errno::EINVAL);
        }
        let fd = fd.try_into().map_or(-1, i32::from_ne_bytes);
        files.push(table.get_any(fd)?);
    }
    let n_in_flight = Files::n_in_flight();
    let limit = task.group.limits.lock().soft(RLIMIT_NOFILE);
    let creds = task.creds();
    let is_privileged =
        creds.has_capability(CAP_SYS_RESOURCE) || creds.has_capability(CAP_SYS_ADMIN);
    if (n_in_flight as u64 > limit && !is_privileged) || n_in_flight > MAX_IN_FLIGHT {
        return Err(Errno::ETOOMANYREFS);
    }
    Ok(())
}

/// Checks that the caller may say that it is who it says.
fn check_sender(task: &CurrentTask, given: &Ucred) -> SysResult<Sender> {
    let creds = task.creds();
    let own_pid = task.group.pid_in(&task.pid_namespace());
    let pid = u32::try_from(given.pid).map_err(|_| Errno::EPERM)?;
    let uid = creds.user_ns.kuid(given.uid).ok_or(Errno::EINVAL)?;
    let gid = creds.user_ns.kgid(given.gid).ok_or(Errno::EINVAL)?;
    let owner = &task.pid_namespace().owner;
    let may_pid = pid == own_pid || creds.is_capable_in(owner, CAP_SYS_ADMIN);
    let may_uid =
        [creds.uid, creds.euid, creds.suid].contains(&uid) || creds.has_own_capability(CAP_SETUID);
    let may_gid =
        [creds.gid, creds.egid, creds.sgid].contains(&gid) || creds.has_own_capability(CAP_SETGID);
    if !may_pid || !may_uid || !may_gid {
        return Err(Errno::EPERM);
    }
    if pid != own_pid && task.pid_namespace().task(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(Sender::with(task, pid, uid, gid))
}

/// Implements `recvmsg(2)`.
///
/// <https://man7.org/linux/man-pages/man2/recvmsg.2.html>
pub(super) fn sys_recvmsg(
    task: &CurrentTask,
    sockfd: Fd,
    msg: UserPtr<Msghdr>,
    flags: MsgFlags,
) -> HandlerResult<usize> {
    let opened = lookup(task, sockfd)?;
    let mut header = task.read_obj(msg)?;
    let n = recv_message(task, &opened, &mut header, flags)?;
    task.write_obj(msg, &header)?;
    Ok(n)
}

fn recv_message(
    task: &CurrentTask,
    opened: &Opened,
    header: &mut Msghdr,
    flags: MsgFlags,
) -> HandlerResult<usize> {
    let room = usize::try_from(header.msg_namelen).map_err(|_| Errno::EINVAL)?;
    let segments = segments_of(task, header)?;
    let incoming = do_recv(task, opened, &segments, flags)?;
    let mut result = (flags & MsgFlags::CMSG_CLOEXEC) | incoming.flags;
    if incoming.full > incoming.n {
        result |= MsgFlags::TRUNC;
    }
    if header.msg_name != 0 {
        let n = room.min(incoming.addr.len());
        let addr = incoming.addr.get(..n).unwrap_or_default();
        task.write_bytes(UserAddr(header.msg_name), addr)?;
        header.msg_namelen = i32::try_from(incoming.addr.len()).unwrap_or(0);
    }
    let written = write_control(task, opened, header, &incoming, flags, &mut result)?;
    header.msg_controllen = written as u64;
    header.msg_flags = result.bits();
    Ok(returned(&incoming, flags))
}

/// Stores control messages one after the other.
struct ControlWriter<'a> {
    task: &'a CurrentTask,
    addr: u64,
    room: usize,
    done: usize,
}

impl ControlWriter<'_> {
    /// Stores a message, cut where there is too little room for all of it. Returns false where it
    /// was cut or left out.
    fn put(&mut self, level: i32, kind: i32, data: &[u8]) -> SysResult<bool> {
        const HEADER: usize = size_of::<Cmsghdr>();
        let room = self.room - self.done;
        if room < HEADER {
            return Ok(false);
        }
        let n = data.len().min(room - HEADER);
        let head = Cmsghdr { cmsg_len: (HEADER + n) as u64, cmsg_level: level, cmsg_type: kind };
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend_from_slice(data.get(..n).unwrap_or_default());
        let addr = self.addr.checked_add(self.done as u64).ok_or(Errno::EFAULT)?;
        self.task.write_bytes(UserAddr(addr), &bytes)?;
        self.done += cmsg_align(HEADER + n).unwrap_or(room).min(room);
        Ok(n == data.len())
    }

    /// Returns for how many descriptors there is room.
    fn room_for_files(&self) -> usize {
        (self.room - self.done).saturating_sub(size_of::<Cmsghdr>()) / size_of::<i32>()
    }
}

/// Stores the control messages of a receive; returns how many bytes they take.
fn write_control(
    task: &CurrentTask,
    opened: &Opened,
    header: &Msghdr,
    incoming: &Incoming,
    flags: MsgFlags,
    result: &mut MsgFlags,
) -> SysResult<usize> {
    let control = &incoming.control;
    let room = if header.msg_control == 0 {
        0
    } else {
        usize::try_from(header.msg_controllen).unwrap_or(usize::MAX)
    };
    let mut writer = ControlWriter { task, addr: header.msg_control, room, done: 0 };
    let mut is_cut = false;
    // The end of a stream has credentials that say nothing; the end of messages is no message.
    let has_sender = !incoming.is_end || opened.socket.is_stream();
    if opened.socket.options().passes_credentials() && has_sender {
        // What was sent before either side asked for credentials has none.
        const OVERFLOW_ID: u32 = 65_534;
        let id = if incoming.is_end { 0 } else { OVERFLOW_ID };
        let nobody = Ucred { pid: 0, uid: id, gid: id };
        let creds = control.sender.as_ref().map_or(nobody, |sender| sender.seen_by(task));
        is_cut |= !writer.put(SOL_SOCKET, SCM_CREDENTIALS, creds.as_bytes())?;
    }
    let files = control.files.as_slice();
    let n_files = files.len().min(writer.room_for_files());
    let is_cloexec = flags.contains(MsgFlags::CMSG_CLOEXEC);
    let mut fds: Vec<i32> = Vec::with_capacity(n_files);
    for file in files.iter().take(n_files) {
        match install(task, file.clone(), is_cloexec) {
            Ok(fd) => fds.push(fd.0),
            Err(_) => break,
        }
    }
    if fds.len() < files.len() {
        is_cut = true;
    }
    if !fds.is_empty() {
        writer.put(SOL_SOCKET, SCM_RIGHTS, fds.as_bytes())?;
    }
    if opened.socket.options().passes_pidfd()
        && let Some(sender) = control.sender.as_ref().filter(|_| has_sender)
    {
        if writer.room_for_files() == 0 {
            is_cut = true;
        } else {
            let fd = sender.pidfd(task).unwrap_or_else(|errno| -errno.raw());
            writer.put(SOL_SOCKET, SCM_PIDFD, fd.as_bytes())?;
        }
    }
    for Ancillary { level, kind, data } in &incoming.ancillary {
        is_cut |= !writer.put(*level, *kind, data)?;
    }
    if is_cut {
        *result |= MsgFlags::CTRUNC;
    }
    Ok(writer.done)
}

/// What a call of many messages remembers while it waits: how many are done, until when the others may
/// come, and what the one that it waits for remembers.
struct Batch<T> {
    n_done: u64,
    deadline_ns: Option<u64>,
    inner: Option<T>,
}

/// Goes through messages from where an earlier run of the call has come to. `each` may wait; it says
/// whether the next one is to be looked at.
fn each_message<T: Send + 'static>(
    task: &CurrentTask,
    (msgvec, vlen): (UserPtr<Mmsghdr>, u32),
    deadline_ns: Option<u64>,
    mut each: impl FnMut(u64, &mut Mmsghdr, Option<u64>) -> HandlerResult<bool>,
) -> HandlerResult<u64> {
    let vlen = u64::from(vlen).min(UIO_MAXIOV as u64);
    let (first, deadline_ns) = match task.recall::<Batch<T>>() {
        Some(Batch { n_done, deadline_ns, inner }) => {
            if let Some(inner) = inner {
                task.remember(inner);
            }
            (n_done, deadline_ns)
        }
        None => (0, deadline_ns),
    };
    for index in first..vlen {
        let ptr = msgvec.checked_index(index).ok_or(Errno::EFAULT)?;
        let result = task.read_obj(ptr).map_err(Flow::from).and_then(|mut message: Mmsghdr| {
            let goes_on = each(index, &mut message, deadline_ns)?;
            task.write_obj(ptr, &message)?;
            Ok(goes_on)
        });
        match result {
            // The next one waits anew.
            Ok(true) => task.end_block(),
            Ok(false) => return Ok(index + 1),
            Err(Flow::Block) => {
                let inner = task.recall::<T>();
                task.remember(Batch { n_done: index, deadline_ns, inner });
                return Err(Flow::Block);
            }
            Err(_) if index > 0 => return Ok(index),
            Err(flow) => return Err(flow),
        }
    }
    Ok(vlen)
}

/// Implements `sendmmsg(2)`.
///
/// <https://man7.org/linux/man-pages/man2/sendmmsg.2.html>
pub(super) fn sys_sendmmsg(
    task: &CurrentTask,
    sockfd: Fd,
    msgvec: UserPtr<Mmsghdr>,
    vlen: u32,
    flags: MsgFlags,
) -> HandlerResult<u64> {
    let opened = lookup(task, sockfd)?;
    each_message::<Sending>(task, (msgvec, vlen), None, |_, message, _| {
        let n = send_message(task, &opened, &message.msg_hdr, flags)?;
        message.msg_len = u32::try_from(n).unwrap_or(u32::MAX);
        Ok(true)
    })
}

/// Implements `recvmmsg(2)`, whose time is looked at between messages only.
///
/// <https://man7.org/linux/man-pages/man2/recvmmsg.2.html>
pub(super) fn sys_recvmmsg(
    task: &CurrentTask,
    sockfd: Fd,
    msgvec: UserPtr<Mmsghdr>,
    vlen: u32,
    flags: MsgFlags,
    timeout: UserPtr<Timespec>,
) -> HandlerResult<u64> {
    let waits_for_one = flags.contains(MsgFlags::WAITFORONE);
    let flags = flags & !MsgFlags::WAITFORONE;
    let deadline_ns = read_deadline(task, timeout)?;
    let opened = lookup(task, sockfd)?;
    let mut limit_ns = None;
    let n = each_message::<Receiving>(
        task,
        (msgvec, vlen),
        deadline_ns,
        |index, message, deadline_ns| {
            limit_ns = deadline_ns;
            let how = if waits_for_one && index > 0 { flags | MsgFlags::DONTWAIT } else { flags };
            let n = recv_message(task, &opened, &mut message.msg_hdr, how)?;
            message.msg_len = u32::try_from(n).unwrap_or(u32::MAX);
            let is_urgent =
                MsgFlags::from_bits_retain(message.msg_hdr.msg_flags).contains(MsgFlags::OOB);
            let is_late =
                deadline_ns.is_some_and(|limit_ns| task.kernel.clock.monotonic_ns() >= limit_ns);
            Ok(!is_urgent && !is_late)
        },
    )?;
    if let Some(limit_ns) = limit_ns {
        let left_ns = limit_ns.saturating_sub(task.kernel.clock.monotonic_ns());
        let left = Timespec::from_ns(i64::try_from(left_ns).unwrap_or(i64::MAX));
        task.write_obj(timeout, &left)?;
    }
    Ok(n)
}
