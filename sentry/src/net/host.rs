//! Sockets of the host, passed through (`--network=host`).
//!
//! Each is a socket of the host that never blocks; the sentry's own waiting stands above it, told of
//! changes by the thread that watches host descriptors. The host checks addresses and options; which
//! options reach it at all is `sentry_host::inet`'s list.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sentry_host::inet::{self, Question};
use sentry_host::poll::ready_now;
use syscalls::abi::ioctl::SIOCATMARK;
use syscalls::abi::socket::{
    AF_INET, AF_INET6, Cmsghdr, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP,
    Linger, MsgFlags, SHUT_RD, SHUT_RDWR, SHUT_WR, SO_ERROR, SO_LINGER, SOCK_DGRAM, SOCK_RAW,
    SOCK_STREAM, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP, cmsg_align,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::{FromBytes, IntoBytes};

use super::inet::Family;
use super::options::Options;
use super::{Ancillary, Incoming, Outgoing, Shutdown, Socket};
use crate::fs::host_fd::HostPoller;
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{IoSink, IoSource};

/// The most bytes that one host call moves.
const CHUNK: usize = 64 << 10;

/// A socket of the host.
pub struct HostSocket {
    fd: OwnedFd,
    poller: Arc<HostPoller>,
    key: u64,
    family: Family,
    is_stream: bool,
    options: Options,
    queue: WaitQueue,
    is_listening: AtomicBool,
    /// Whether a `connect(2)` that waits is under way.
    is_connecting: AtomicBool,
    is_receive_shut: AtomicBool,
    linger: Mutex<Linger>,
}

/// Creates a socket.
///
/// # Errors
/// `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`, `EPERM`, `EINVAL`, and those of the host.
pub fn create(
    poller: &Arc<HostPoller>,
    family: Family,
    kind: i32,
    protocol: i32,
) -> SysResult<Arc<dyn Socket>> {
    const IPPROTO_MAX: i32 = 263;
    if !(0..IPPROTO_MAX).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    let is_stream = match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_IP | IPPROTO_TCP) => true,
        (SOCK_DGRAM, IPPROTO_IP | IPPROTO_UDP) => false,
        (SOCK_DGRAM, IPPROTO_ICMP | IPPROTO_ICMPV6) => return Err(Errno::EACCES),
        (SOCK_RAW, _) => return Err(Errno::EPERM),
        (SOCK_STREAM | SOCK_DGRAM, _) => return Err(Errno::EPROTONOSUPPORT),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let fd = inet::socket(family == Family::V6, is_stream)?;
    let socket: Arc<dyn Socket> = HostSocket::new(poller, fd, family, is_stream)?;
    Ok(socket)
}

impl HostSocket {
    fn new(
        poller: &Arc<HostPoller>,
        fd: OwnedFd,
        family: Family,
        is_stream: bool,
    ) -> SysResult<Arc<Self>> {
        let queue = WaitQueue::new();
        let key = poller.follow(fd.as_fd(), &queue)?;
        Ok(Arc::new(Self {
            fd,
            poller: poller.clone(),
            key,
            family,
            is_stream,
            options: Options::default(),
            queue,
            is_listening: AtomicBool::new(false),
            is_connecting: AtomicBool::new(false),
            is_receive_shut: AtomicBool::new(false),
            linger: Mutex::new(Linger::default()),
        }))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn receive(&self, dst: &mut dyn IoSink, flags: MsgFlags) -> SysResult<Incoming> {
        let passed =
            flags & (MsgFlags::OOB | MsgFlags::PEEK | MsgFlags::TRUNC | MsgFlags::ERRQUEUE);
        // The length of a datagram is always wanted; of a stream it would throw bytes away.
        let passed = if self.is_stream { passed } else { passed | MsgFlags::TRUNC };
        let mut buffer = vec![0; dst.remaining().min(CHUNK)];
        let received = inet::receive(self.fd(), &mut buffer, passed.bits().cast_signed())?;
        let n = received.n.min(buffer.len());
        let is_thrown_away = self.is_stream && flags.contains(MsgFlags::TRUNC);
        let data = buffer.get(..n).unwrap_or_default();
        if !is_thrown_away && n > 0 && dst.put(data)? < n {
            return Err(Errno::EFAULT);
        }
        let kept = MsgFlags::OOB | MsgFlags::ERRQUEUE | MsgFlags::EOR | MsgFlags::CTRUNC;
        Ok(Incoming {
            n,
            full: received.n,
            addr: if self.is_stream { Vec::new() } else { received.addr },
            ancillary: parse_control(&received.control),
            flags: MsgFlags::from_bits_retain(received.flags.cast_unsigned()) & kept,
            ..Incoming::default()
        })
    }
}

/// Takes control messages apart. Descriptors never come with sockets of the Internet.
fn parse_control(mut rest: &[u8]) -> Vec<Ancillary> {
    let mut messages = Vec::new();
    while let Ok((head, _)) = Cmsghdr::read_from_prefix(rest) {
        let Ok(len) = usize::try_from(head.cmsg_len) else { break };
        let Some(data) = rest.get(size_of::<Cmsghdr>()..len) else { break };
        messages.push(Ancillary {
            level: head.cmsg_level,
            kind: head.cmsg_type,
            data: data.to_vec(),
        });
        let Some(next) = cmsg_align(len) else { break };
        rest = rest.get(next..).unwrap_or_default();
    }
    messages
}

/// Puts control messages together: those that say how a packet is sent, and no others.
fn encode_control(messages: &[Ancillary]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Ancillary { level, kind, data } in messages {
        if !matches!(*level, SOL_IP | SOL_IPV6 | SOL_UDP) {
            continue;
        }
        let len = size_of::<Cmsghdr>() + data.len();
        let head = Cmsghdr { cmsg_len: len as u64, cmsg_level: *level, cmsg_type: *kind };
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

impl Socket for HostSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn passes_options(&self) -> bool {
        true
    }

    fn identity(&self) -> (i32, i32, i32) {
        let family = if self.family == Family::V6 { AF_INET6 } else { AF_INET };
        if self.is_stream {
            (family, SOCK_STREAM, IPPROTO_TCP)
        } else {
            (family, SOCK_DGRAM, IPPROTO_UDP)
        }
    }

    fn is_stream(&self) -> bool {
        self.is_stream
    }

    fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    fn bind(&self, _task: &CurrentTask, addr: &[u8]) -> SysResult<()> {
        inet::bind(self.fd(), addr)
    }

    fn listen(&self, _task: &CurrentTask, backlog: i32) -> SysResult<()> {
        inet::listen(self.fd(), backlog)?;
        self.is_listening.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn accept(&self, _task: &CurrentTask) -> SysResult<Arc<dyn Socket>> {
        let fd = inet::accept(self.fd())?;
        let socket: Arc<dyn Socket> = Self::new(&self.poller, fd, self.family, self.is_stream)?;
        Ok(socket)
    }

    fn connect(&self, _task: &CurrentTask, addr: &[u8], may_wait: bool) -> SysResult<()> {
        let was_connecting = self.is_connecting.load(Ordering::Relaxed);
        let result = inet::connect(self.fd(), addr);
        let goes_on = matches!(result, Err(Errno::EINPROGRESS | Errno::EALREADY));
        self.is_connecting.store(goes_on && may_wait, Ordering::Relaxed);
        match result {
            Err(_) if goes_on && may_wait => Err(Errno::EAGAIN),
            // The call that waited sees the end of what it began.
            Err(Errno::EISCONN) if was_connecting => Ok(()),
            result => result,
        }
    }

    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let number = match (how.receive, how.send) {
            (true, true) => SHUT_RDWR,
            (true, false) => SHUT_RD,
            _ => SHUT_WR,
        };
        let result = inet::shutdown(self.fd(), number);
        if how.receive {
            self.is_receive_shut.store(true, Ordering::Relaxed);
            self.is_listening.store(false, Ordering::Relaxed);
        }
        self.queue.notify(Events::all());
        result
    }

    fn local_addr(&self) -> Vec<u8> {
        inet::name(self.fd(), false).unwrap_or_default()
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        inet::name(self.fd(), true)
    }

    fn send(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        message: &Outgoing,
    ) -> SysResult<usize> {
        let total = src.remaining();
        if !self.is_stream && total > CHUNK {
            return Err(Errno::EMSGSIZE);
        }
        let wanted = total.min(CHUNK);
        let mut data = vec![0; wanted];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match src.get(rest) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 || !self.is_stream => return Err(errno),
                Err(_) => break,
            }
        }
        let mut flags = message.flags
            & (MsgFlags::OOB
                | MsgFlags::DONTROUTE
                | MsgFlags::MORE
                | MsgFlags::CONFIRM
                | MsgFlags::FASTOPEN);
        if wanted < total {
            // The urgent byte is the last one of all.
            flags = flags & !MsgFlags::OOB | MsgFlags::MORE;
        }
        let control = encode_control(&message.ancillary);
        let data = data.get(..done).unwrap_or_default();
        inet::send(self.fd(), data, message.addr.as_deref(), &control, flags.bits().cast_signed())
    }

    fn recv(
        &self,
        _task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        match self.receive(dst, flags) {
            // A host call that waited would see the end of a datagram socket.
            Err(Errno::EAGAIN)
                if !self.is_stream
                    && !flags.contains(MsgFlags::DONTWAIT)
                    && self.is_receive_shut.load(Ordering::Relaxed) =>
            {
                Ok(Incoming::default())
            }
            result => result,
        }
    }

    fn take_error(&self) -> Option<Errno> {
        let value = inet::option(self.fd(), SOL_SOCKET, SO_ERROR).ok()?;
        let number = value.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        (number != 0).then(|| Errno::from_raw(number))
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        if (level, name) == (SOL_SOCKET, SO_LINGER) {
            return Ok(self.linger.lock().as_bytes().to_vec());
        }
        inet::option(self.fd(), level, name)
    }

    fn set_option(
        &self,
        _task: &CurrentTask,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> SysResult<()> {
        if (level, name) == (SOL_SOCKET, SO_LINGER) {
            let (linger, _) = Linger::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
            let is_on = i32::from(linger.l_onoff != 0);
            *self.linger.lock() = Linger { l_onoff: is_on, l_linger: linger.l_linger };
            // A close that waits would hold up a thread of ours; one that resets does not wait.
            let resets = is_on != 0 && linger.l_linger == 0;
            let passed = Linger { l_onoff: i32::from(resets), l_linger: 0 };
            return inet::set_option(self.fd(), level, name, passed.as_bytes());
        }
        inet::set_option(self.fd(), level, name, value)
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        if request == SIOCATMARK {
            let is_at_mark = inet::ask(self.fd(), Question::IsAtMark)?;
            task.write_obj(UserPtr::<i32>::new(UserAddr(arg)), &is_at_mark)?;
            return Ok(0);
        }
        super::inet::interface::ioctl(task, request, arg)
    }

    fn n_pending(&self) -> (usize, usize) {
        let ask = |question| usize::try_from(inet::ask(self.fd(), question).unwrap_or(0));
        (ask(Question::Pending).unwrap_or(0), ask(Question::Unsent).unwrap_or(0))
    }

    fn poll(&self) -> Events {
        // Everything that can be asked for.
        let asked = Events::READABLE
            | Events::WRITABLE
            | Events::PRI
            | Events::RDHUP
            | Events::RDBAND
            | Events::WRBAND;
        let asked = i16::try_from(asked.bits()).unwrap_or(0x2007);
        let ready = ready_now(self.fd(), asked);
        Events::from_bits_truncate(u32::from(ready.cast_unsigned()))
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn close(&self) {
        self.poller.forget(self.key);
        // The host's socket is closed with the last reference; connections of others end now.
        if self.is_listening() {
            let _ = inet::shutdown(self.fd(), SHUT_RDWR);
        }
        self.queue.notify(Events::all());
    }
}
