//! Sockets: what the system calls see of every family, and the file that a descriptor refers to.

pub mod control;
pub mod filter;
pub mod host;
pub mod inet;
pub mod netlink;
pub mod options;
pub mod packet;
pub mod stack;
pub mod timestamp;
pub mod unix;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::HostCall;
use syscalls::abi::ioctl::{FIONREAD, TIOCOUTQ};
use syscalls::abi::socket::{MsgFlags, SOL_SOCKET};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use self::control::Control;
use self::options::Options;
use crate::sync::{Events, Registration, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::anon::{self, AnonMount};
use crate::vfs::file::{Mappable, StreamUser};
use crate::vfs::{Attr, File, IoSink, IoSource, OpenFile, WriteOffset};

/// Which directions `shutdown(2)` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Nothing more is received.
    pub receive: bool,
    /// Nothing more is sent.
    pub send: bool,
}

/// What goes with the data of a send.
#[derive(Default)]
pub struct Outgoing {
    /// The address given, as in guest memory.
    pub addr: Option<Vec<u8>>,
    /// Files and credentials.
    pub control: Control,
    /// Control messages of other levels than `SOL_SOCKET`.
    pub ancillary: Vec<Ancillary>,
    /// The flags of the call.
    pub flags: MsgFlags,
}

/// A control message that only some families know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancillary {
    /// `SOL_*`
    pub level: i32,
    /// The type within the level.
    pub kind: i32,
    /// The content.
    pub data: Vec<u8>,
}

/// What came of a receive.
#[derive(Default)]
pub struct Incoming {
    /// How many bytes were stored.
    pub n: usize,
    /// How long the message was.
    pub full: usize,
    /// The sender's address, empty where it has none.
    pub addr: Vec<u8>,
    /// Files and credentials.
    pub control: Control,
    /// Control messages of other kinds.
    pub ancillary: Vec<Ancillary>,
    /// Whether there was nothing but the end of the connection.
    pub is_end: bool,
    /// Whether a receive is not to go on with what follows, not even under `MSG_WAITALL`: the urgent mark
    /// is next.
    pub is_at_mark: bool,
    /// What `msg_flags` says beyond what follows from the rest: `MSG_EOR`, `MSG_OOB`, `MSG_ERRQUEUE`.
    pub flags: MsgFlags,
}

/// A socket of some family. Nothing blocks: what would have to wait says `EAGAIN`.
pub trait Socket: Send + Sync {
    /// Returns the generic options.
    fn options(&self) -> &Options;

    /// Returns whether all options but timeouts are somebody else's: `option` and `set_option` then
    /// have those of `SOL_SOCKET` as well.
    fn passes_options(&self) -> bool {
        false
    }

    /// Returns family, type and protocol.
    fn identity(&self) -> (i32, i32, i32);

    /// Returns whether a receive may take part of what one send has sent.
    fn is_stream(&self) -> bool;

    /// Returns whether `listen(2)` has been called.
    fn is_listening(&self) -> bool;

    /// Returns whether a receive that finds nothing is not to wait, but to return nothing.
    fn has_ended(&self) -> bool {
        false
    }

    /// Implements `bind(2)`.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EINVAL`, those of the path walk.
    fn bind(&self, task: &CurrentTask, addr: &[u8]) -> SysResult<()>;

    /// Implements `listen(2)`.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EINVAL`.
    fn listen(&self, task: &CurrentTask, backlog: i32) -> SysResult<()>;

    /// Takes the first connection that waits.
    ///
    /// # Errors
    /// `EAGAIN`, `EINVAL`, `EOPNOTSUPP`.
    fn accept(&self, task: &CurrentTask) -> SysResult<Arc<dyn Socket>>;

    /// Implements `connect(2)`; `EAGAIN` asks a caller that may wait to try again.
    ///
    /// # Errors
    /// `EAGAIN`, `EINPROGRESS`, `ECONNREFUSED`, `EISCONN`, `EPROTOTYPE`, those of the path walk.
    fn connect(&self, task: &CurrentTask, addr: &[u8], may_wait: bool) -> SysResult<()>;

    /// Implements `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn shutdown(&self, how: Shutdown) -> SysResult<()>;

    /// Returns the own address.
    fn local_addr(&self) -> Vec<u8>;

    /// Returns the peer's address.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn peer_addr(&self) -> SysResult<Vec<u8>>;

    /// Returns the address that `accept(2)` shows of a connection that it has just taken, which may
    /// have been reset already.
    fn accepted_addr(&self) -> Vec<u8> {
        self.peer_addr().unwrap_or_default()
    }

    /// Sends what can be sent at once.
    ///
    /// # Errors
    /// `EAGAIN`, `EPIPE` (the caller raises SIGPIPE), `ENOTCONN`, `EMSGSIZE`, `ECONNREFUSED`.
    fn send(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        message: &Outgoing,
    ) -> SysResult<usize>;

    /// Receives what is there.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOTCONN`, `ECONNRESET`.
    fn recv(
        &self,
        task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming>;

    /// Returns and clears the pending error.
    fn take_error(&self) -> Option<Errno>;

    /// Returns the bytes of an option that only this family has.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EOPNOTSUPP`.
    fn option(&self, task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>>;

    /// Sets an option that only this family has.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EOPNOTSUPP`, `EINVAL`.
    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        let _ = (task, name, value);
        Err(if level == SOL_SOCKET { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP })
    }

    /// Returns the object to map, for sockets that can be mapped.
    ///
    /// # Errors
    /// `ENODEV`; `EINVAL` where there is nothing to map.
    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }

    /// Implements requests of `ioctl(2)` that only this family has.
    ///
    /// # Errors
    /// `ENOTTY`.
    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        let _ = (task, request, arg);
        Err(Errno::ENOTTY.into())
    }

    /// Is told the inode number of its file, once.
    fn set_ino(&self, ino: u64) {
        let _ = ino;
    }

    /// Returns how many bytes can be received (the first message's, for messages) and how many have
    /// been sent and not received.
    fn n_pending(&self) -> (usize, usize);

    /// Returns what the socket is ready for.
    fn poll(&self) -> Events;

    /// Registers for changes of readiness.
    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration>;

    /// Gives a message of the kernel's own to whoever reads a netlink socket.
    fn deliver(&self, message: &[u8]) {
        let _ = message;
    }

    /// Is told that an option has changed that says when a connection is given up.
    fn options_changed(&self) {}

    /// Returns whether the socket is in such lively use that it is worth lending.
    fn is_lively(&self) -> bool {
        false
    }

    /// Lends what is received, or sent, to a process that has just done so. Returns what the process must do
    /// for it to be lent later.
    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        let _ = user;
        Vec::new()
    }

    /// Takes back what is lent: something has changed on which depends how it may be.
    fn recall(&self) {}

    /// Ends the stream that is sent where `SO_LINGER` lets the close of the last descriptor wait for its
    /// arrival; returns for how many nanoseconds at most.
    fn linger(&self) -> Option<u64> {
        None
    }

    /// Returns whether all that was sent has arrived, or never will.
    fn has_arrived(&self) -> bool {
        true
    }

    /// Is told that a descriptor was closed somewhere, perhaps not the last one.
    fn descriptor_closed(&self) {}

    /// Is told that the last descriptor is gone.
    fn close(&self);
}

/// What a socket's descriptor refers to.
pub struct SocketFile {
    /// The socket.
    pub socket: Arc<dyn Socket>,
    attr: Attr,
}

impl SocketFile {
    /// Creates a file for a socket.
    pub fn new(task: &CurrentTask, socket: Arc<dyn Socket>) -> Arc<Self> {
        let attr = anon::attr(task, AnonMount::Socket, 0o140_777);
        socket.set_ino(attr.ino);
        Arc::new(Self { socket, attr })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.socket.close();
    }
}

impl File for SocketFile {
    fn attr(&self) -> SysResult<Attr> {
        Ok(self.attr)
    }

    fn anonymous_name(&self) -> String {
        format!("socket:[{}]", self.attr.ino)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, _offset: u64) -> SysResult<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        Ok(self.socket.recv(task, dst, MsgFlags::empty())?.n)
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        _offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        Ok((self.socket.send(task, src, &Outgoing::default())?, 0))
    }

    fn has_ended(&self) -> bool {
        self.socket.has_ended()
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        self.socket.mappable()
    }

    fn poll(&self) -> Events {
        self.socket.poll()
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        self.socket.register(waiter, mask, key)
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        let n = match request {
            FIONREAD if self.socket.is_listening() => return Err(Errno::EINVAL.into()),
            FIONREAD => self.socket.n_pending().0,
            TIOCOUTQ => self.socket.n_pending().1,
            _ => return self.socket.ioctl(task, request, arg),
        };
        let n = i32::try_from(n).unwrap_or(i32::MAX);
        task.write_obj(UserPtr::new(UserAddr(arg)), &n)?;
        Ok(0)
    }

    fn timeout_ns(&self, events: Events) -> u64 {
        let options = self.socket.options();
        let reads = events.intersects(Events::READABLE);
        let timeout = if reads { &options.receive_timeout_ns } else { &options.send_timeout_ns };
        timeout.load(Ordering::Relaxed)
    }

    fn flags_changed(&self, _flags: u32) {
        self.socket.recall();
    }

    fn is_lively(&self) -> bool {
        self.socket.is_lively()
    }

    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        self.socket.lend(user)
    }

    fn descriptor_closed(&self, _table: u64) {
        self.socket.descriptor_closed();
    }
}

/// A socket that is told with each write that more follows (`SPLICE_F_MORE`).
pub struct MoreFollows(pub Arc<SocketFile>);

impl File for MoreFollows {
    fn attr(&self) -> SysResult<Attr> {
        self.0.attr()
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn write(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        _offset: WriteOffset,
    ) -> SysResult<(usize, u64)> {
        let message = Outgoing { flags: MsgFlags::MORE, ..Outgoing::default() };
        Ok((self.0.socket.send(task, src, &message)?, 0))
    }
}

/// Reads all of what is sent.
///
/// # Errors
/// `EFAULT`.
fn read_all(src: &mut dyn IoSource) -> SysResult<Vec<u8>> {
    let mut data = vec![0; src.remaining()];
    let mut done = 0;
    while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match src.get(rest)? {
            0 => return Err(Errno::EFAULT),
            n => done += n,
        }
    }
    Ok(data)
}

/// Returns the family of an address.
///
/// # Errors
/// `EINVAL` where there is none.
fn family_of(addr: &[u8]) -> SysResult<i32> {
    let family = addr.first_chunk::<2>().ok_or(Errno::EINVAL)?;
    Ok(i32::from(u16::from_ne_bytes(*family)))
}
