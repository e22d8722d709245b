//! Unix sockets (`unix(7)`).
//!
//! Data goes straight into the receiver's [`inbox`]. A socket knows its peer weakly; a closed peer is
//! one whose inbox says so. A stream in lively use is lent to the processes that use it ([`lending`]).
//!
//! Locks: `UnixSocket::state` and `UnixSocket::inbox` are never held together, nor together with
//! those of another socket, except one that nobody else knows yet. Wait queues are notified without
//! either.

mod address;
mod collect;
mod datagram;
mod entry;
mod inbox;
mod lending;
mod options;
mod stream;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use sentry_platform::HostCall;
use syscalls::abi::ioctl::SIOCATMARK;
use syscalls::abi::socket::{
    AF_UNIX, MsgFlags, SO_OOBINLINE, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use self::address::{Address, Binding, Given, Name};
use self::inbox::Inbox;
use self::lending::{Lively, SharedInbox};
use self::stream::How;
use super::control::{Control, Sender};
use super::filter::Seen;
use super::inet::interface;
use super::options::Options;
use super::{Incoming, Outgoing, Shutdown, Socket};
use crate::kernel::Kernel;
use crate::landlock::Domain;
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::StreamUser;
use crate::vfs::{IoSink, IoSource, SliceSource};

pub use address::Registry;
pub use entry::UnixEntry;

/// The longest queue of connections: `net.core.somaxconn`.
const MAX_BACKLOG: usize = 4096;

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `SOCK_STREAM`
    Stream,
    /// `SOCK_DGRAM`
    Datagram,
    /// `SOCK_SEQPACKET`
    SeqPacket,
}

/// What a socket is for.
enum Role {
    /// Not connected.
    Idle,
    /// A connect is under way.
    Connecting,
    /// Connected once and for all.
    Connected,
    /// Takes connections.
    Listening { backlog: usize, pending: VecDeque<Arc<UnixSocket>> },
}

struct State {
    role: Role,
    local: Name,
    binding: Option<Binding>,
    peer: Option<Weak<UnixSocket>>,
    peer_addr: Option<Name>,
    /// Who the peer is; for a listening socket, who listens.
    peer_sender: Option<Sender>,
    /// Whether sending has been shut down, here or by the peer.
    is_send_shut: bool,
    error: Option<Errno>,
    /// Those who wait for a place in the queue of connections.
    connecting: Vec<Weak<UnixSocket>>,
}

/// A unix socket.
pub struct UnixSocket {
    this: Weak<UnixSocket>,
    kernel: Arc<Kernel>,
    /// The network namespace, by its number.
    pub(super) net: u64,
    kind: Kind,
    /// What binds whoever made the socket.
    pub(crate) domain: OnceLock<Arc<Domain>>,
    ino: AtomicU64,
    options: Options,
    state: Mutex<State>,
    inbox: SharedInbox,
    queue: WaitQueue,
    lively: Lively,
}

impl UnixSocket {
    /// Creates a socket.
    pub fn new(kernel: &Arc<Kernel>, net: u64, kind: Kind) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            kernel: kernel.clone(),
            net,
            kind,
            domain: OnceLock::new(),
            ino: AtomicU64::new(0),
            options: Options::default(),
            state: Mutex::new(State {
                role: Role::Idle,
                local: Name::default(),
                binding: None,
                peer: None,
                peer_addr: None,
                peer_sender: None,
                is_send_shut: false,
                error: None,
                connecting: Vec::new(),
            }),
            inbox: SharedInbox::new(Inbox::new(kind == Kind::Stream)),
            queue: WaitQueue::new(),
            lively: Lively::default(),
        })
    }

    /// Creates two sockets that are connected with each other.
    pub fn pair(task: &CurrentTask, kind: Kind) -> (Arc<Self>, Arc<Self>) {
        let net = task.inet().id();
        let (one, other) = (Self::new(&task.kernel, net, kind), Self::new(&task.kernel, net, kind));
        let sender = Sender::peer(task);
        for (socket, peer) in [(&one, &other), (&other, &one)] {
            let name = peer.state.lock().local.clone();
            let mut state = socket.state.lock();
            state.role = Role::Connected;
            state.peer = Some(Arc::downgrade(peer));
            state.peer_addr = Some(name);
            state.peer_sender = Some(sender.clone());
        }
        (one, other)
    }

    fn is_connection_based(&self) -> bool {
        self.kind != Kind::Datagram
    }

    fn send_limit(&self) -> usize {
        usize::try_from(self.options.send_buffer.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Connects a socket that has not been connected to one that listens.
    fn connect_to(&self, task: &CurrentTask, listener: &Arc<Self>) -> SysResult<()> {
        let (local, sender) = (self.state.lock().local.clone(), Sender::peer(task));
        let server = Self::new(&self.kernel, self.net, self.kind);
        let (listener_addr, listener_sender) = {
            let mut state = listener.state.lock();
            let State { role, connecting, .. } = &mut *state;
            let Role::Listening { backlog, pending } = role else {
                return Err(Errno::ECONNREFUSED);
            };
            if pending.len() > *backlog {
                if !connecting.iter().any(|known| known.ptr_eq(&self.this)) {
                    connecting.retain(|known| known.strong_count() > 0);
                    connecting.push(self.this.clone());
                }
                return Err(Errno::EAGAIN);
            }
            let passes = listener.options.passes_credentials();
            server.options.passes_credentials.store(passes, Ordering::Relaxed);
            let passes = listener.options.passes_pidfd();
            server.options.passes_pidfd.store(passes, Ordering::Relaxed);
            {
                // Nobody else knows the new socket yet.
                let mut server_state = server.state.lock();
                server_state.role = Role::Connected;
                server_state.peer = Some(self.this.clone());
                server_state.peer_addr = Some(local);
                server_state.peer_sender = Some(sender);
                server_state.local = state.local.clone();
            }
            let known = (state.local.clone(), state.peer_sender.clone());
            if let Role::Listening { pending, .. } = &mut state.role {
                pending.push_back(server.clone());
            }
            known
        };
        {
            let mut state = self.state.lock();
            state.role = Role::Connected;
            state.peer = Some(Arc::downgrade(&server));
            state.peer_addr = Some(listener_addr);
            state.peer_sender = listener_sender;
        }
        listener.queue.notify(Events::READABLE);
        self.queue.notify(Events::WRITABLE);
        Ok(())
    }

    /// Returns the peer.
    ///
    /// # Errors
    /// `ENOTCONN`; `EPIPE` where sending is shut down.
    fn peer(&self) -> SysResult<Weak<Self>> {
        let mut state = self.state.lock();
        // A datagram socket finds out last that it has no peer.
        if self.is_connection_based() && state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        if let Some(error) = state.error.take_if(|_| self.kind != Kind::Stream) {
            return Err(error);
        }
        if state.is_send_shut {
            return Err(Errno::EPIPE);
        }
        let peer = state.peer.clone().ok_or(Errno::ENOTCONN)?;
        if self.kind == Kind::Datagram && peer.strong_count() == 0 {
            state.peer = None;
            drop(state);
            self.leave_peer(&peer);
            return Err(Errno::ECONNREFUSED);
        }
        Ok(peer)
    }

    /// Finds where a message goes.
    fn destination(&self, task: &CurrentTask, message: &Outgoing) -> SysResult<Arc<Self>> {
        let gone = if self.is_connection_based() { Errno::EPIPE } else { Errno::ECONNREFUSED };
        match &message.addr {
            Some(_) if self.kind == Kind::Stream => {
                let is_connected = matches!(self.state.lock().role, Role::Connected);
                Err(if is_connected { Errno::EISCONN } else { Errno::EOPNOTSUPP })
            }
            Some(addr) if self.kind == Kind::Datagram => {
                let Given::Address(address) = address::parse(addr)? else {
                    return Err(Errno::EINVAL);
                };
                {
                    let mut state = self.state.lock();
                    if let Some(error) = state.error.take() {
                        return Err(error);
                    }
                    if state.is_send_shut {
                        return Err(Errno::EPIPE);
                    }
                }
                let found = task.kernel.unix_sockets.find(task, &address, (self.net, self.kind))?;
                if found.kind != self.kind {
                    return Err(Errno::EPROTOTYPE);
                }
                if !found.accepts_from(self) {
                    return Err(Errno::EPERM);
                }
                Ok(found)
            }
            _ => {
                let peer = self.peer()?.upgrade().ok_or(gone)?;
                let is_taken = self.is_connection_based() || peer.accepts_from(self);
                if is_taken { Ok(peer) } else { Err(Errno::EPERM) }
            }
        }
    }

    /// Adds the caller's credentials where one of the two wants them.
    fn complete(&self, task: &CurrentTask, to: &Self, control: &Control) -> Control {
        let mut control = control.clone();
        let asks =
            |socket: &Self| socket.options.passes_credentials() || socket.options.passes_pidfd();
        let wants = asks(self) || asks(to);
        if control.sender.is_none() && wants {
            control.sender = Some(Sender::current(task));
        }
        control
    }

    /// Lets the senders go on for whom there is room again.
    fn wake_senders(blocked: &[Weak<Self>]) {
        for sender in blocked.iter().filter_map(Weak::upgrade) {
            sender.queue.notify(Events::WRITABLE);
        }
    }

    /// Is told by the peer of a connection that it has gone; `is_reset`: without having received
    /// everything.
    fn peer_closed(&self, is_reset: bool) {
        {
            let mut state = self.state.lock();
            state.is_send_shut = true;
            if is_reset {
                state.error = Some(Errno::ECONNRESET);
            }
        }
        self.inbox.lock().is_ended = true;
        self.queue.notify(Events::all());
    }
}

impl Socket for UnixSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        let kind = match self.kind {
            Kind::Stream => SOCK_STREAM,
            Kind::Datagram => SOCK_DGRAM,
            Kind::SeqPacket => SOCK_SEQPACKET,
        };
        (AF_UNIX, kind, 0)
    }

    fn is_stream(&self) -> bool {
        self.kind == Kind::Stream
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    fn bind(&self, task: &CurrentTask, addr: &[u8]) -> SysResult<()> {
        let registry = &task.kernel.unix_sockets;
        let given = address::parse(addr)?;
        let is_bound = self.state.lock().local.get().is_some();
        let (address, binding) = match given {
            Given::Unspecified => return Err(Errno::EINVAL),
            Given::Auto if is_bound => return Ok(()),
            // The name of a file that is there already is the first thing that is wrong.
            Given::Address(address) if is_bound && address.exists(task) => {
                return Err(Errno::EADDRINUSE);
            }
            _ if is_bound => return Err(Errno::EINVAL),
            Given::Auto => registry.autobind((self.net, self.kind), &self.this)?,
            Given::Address(address) => {
                let binding = registry.bind(task, &address, (self.net, self.kind), &self.this)?;
                (address, binding)
            }
        };
        let mut state = self.state.lock();
        if state.local.get().is_some() {
            // Another thread has been quicker.
            drop(state);
            registry.release(&binding, &self.this);
            return Err(Errno::EINVAL);
        }
        // Under the lock nobody else gives it one.
        let _ = state.local.set(address);
        state.binding = Some(binding);
        Ok(())
    }

    fn listen(&self, task: &CurrentTask, backlog: i32) -> SysResult<()> {
        if !self.is_connection_based() {
            return Err(Errno::EOPNOTSUPP);
        }
        // A negative backlog is the largest.
        let new = usize::try_from(backlog).unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG);
        let mut state = self.state.lock();
        if state.local.get().is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut state.role {
            Role::Listening { backlog, .. } => *backlog = new,
            Role::Idle => state.role = Role::Listening { backlog: new, pending: VecDeque::new() },
            Role::Connecting | Role::Connected => return Err(Errno::EINVAL),
        }
        state.peer_sender = Some(Sender::peer(task));
        let connecting = std::mem::take(&mut state.connecting);
        drop(state);
        Self::wake_senders(&connecting);
        Ok(())
    }

    fn accept(&self, _task: &CurrentTask) -> SysResult<Arc<dyn Socket>> {
        if !self.is_connection_based() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        let Role::Listening { pending, .. } = &mut state.role else { return Err(Errno::EINVAL) };
        let socket = pending.pop_front().ok_or(Errno::EAGAIN)?;
        let connecting = std::mem::take(&mut state.connecting);
        drop(state);
        Self::wake_senders(&connecting);
        Ok(socket)
    }

    fn connect(&self, task: &CurrentTask, addr: &[u8], _may_wait: bool) -> SysResult<()> {
        let given = address::parse(addr)?;
        if !self.is_connection_based() {
            return self.connect_datagram(task, given);
        }
        let Given::Address(address) = given else { return Err(Errno::EINVAL) };
        let listener = task.kernel.unix_sockets.find(task, &address, (self.net, self.kind))?;
        if listener.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if !listener.is_listening() || listener.inbox.lock().is_ended {
            return Err(Errno::ECONNREFUSED);
        }
        {
            let mut state = self.state.lock();
            match state.role {
                Role::Idle => state.role = Role::Connecting,
                Role::Connecting => return Err(Errno::EALREADY),
                Role::Connected => return Err(Errno::EISCONN),
                Role::Listening { .. } => return Err(Errno::EINVAL),
            }
        }
        let result = self.connect_to(task, &listener);
        if result.is_err() {
            self.state.lock().role = Role::Idle;
        }
        result
    }

    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let peer = {
            let mut state = self.state.lock();
            state.is_send_shut |= how.send;
            state.peer.clone().filter(|_| self.is_connection_based())
        };
        if how.receive {
            self.inbox.lock().is_ended = true;
        }
        if let Some(peer) = peer.and_then(|peer| peer.upgrade()) {
            if how.receive {
                peer.state.lock().is_send_shut = true;
            }
            if how.send {
                peer.inbox.lock().is_ended = true;
            }
            peer.queue.notify(Events::all());
        }
        self.queue.notify(Events::all());
        Ok(())
    }

    fn local_addr(&self) -> Vec<u8> {
        Address::encode(self.state.lock().local.get())
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        let state = self.state.lock();
        state.peer.as_ref().ok_or(Errno::ENOTCONN)?;
        Ok(Address::encode(state.peer_addr.as_ref().and_then(|name| name.get())))
    }

    fn send(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        message: &Outgoing,
    ) -> SysResult<usize> {
        let is_urgent = message.flags.contains(MsgFlags::OOB);
        let is_refused = is_urgent && (self.kind != Kind::Stream || src.remaining() == 0);
        let is_idle = || self.kind == Kind::SeqPacket && self.state.lock().peer.is_none();
        if is_refused && !is_idle() {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = self.destination(task, message)?;
        let control = self.complete(task, &to, &message.control);
        let from = (self.kind != Kind::Stream).then(|| self.state.lock().local.clone());
        let gone = if self.is_connection_based() { Errno::EPIPE } else { Errno::ECONNREFUSED };
        let mut filtered = None;
        if self.kind != Kind::Stream && to.options.filter.is_set() {
            if src.remaining() > self.send_limit() {
                return Err(Errno::EMSGSIZE);
            }
            let data = super::read_all(src)?;
            match to.options.filter.admits(&Seen::plain(&data), 1) {
                // The sender is not told.
                None => return Ok(data.len()),
                Some(n) => filtered = Some((data, n)),
            }
        }
        let mut rest;
        let src: &mut dyn IoSource = match &filtered {
            Some((data, n)) => {
                rest = SliceSource::new(data.get(..*n).unwrap_or(data));
                &mut rest
            }
            None => src,
        };
        let result = {
            let mut inbox = to.inbox.lock_to_transfer();
            if inbox.is_closed {
                Err(gone)
            } else if inbox.is_ended {
                Err(Errno::EPIPE)
            } else {
                let result = inbox.send(src, self.send_limit(), &control, from, is_urgent);
                if result == Err(Errno::EAGAIN) {
                    inbox.block(&self.this);
                }
                if let Ok(n) = result {
                    let is_plain = control.is_empty();
                    inbox.note_transfer(n, is_plain, message.flags, &self.lively.sends);
                }
                result
            }
        };
        if result.is_ok() {
            if !control.files.is_empty() {
                collect::sent(&to, &control.files);
            }
            let urgent =
                if is_urgent && src.remaining() == 0 { Events::PRI } else { Events::empty() };
            to.queue.notify(Events::READABLE | urgent);
        }
        if let (Ok(_), Some((data, _))) = (result, &filtered) {
            return Ok(data.len());
        }
        result
    }

    fn recv(
        &self,
        task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        let _ = task;
        if self.is_connection_based() && self.state.lock().peer.is_none() {
            let is_stream = self.kind == Kind::Stream;
            return Err(if is_stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        let is_peek = flags.contains(MsgFlags::PEEK);
        let how = How {
            peek: is_peek,
            skip: if is_peek { self.options.peek_at().unwrap_or(0) } else { 0 },
            tells_senders: self.options.passes_credentials() || self.options.passes_pidfd(),
            is_inline: self.options.switch(SO_OOBINLINE) == Some(true),
        };
        if flags.contains(MsgFlags::OOB) {
            if self.kind != Kind::Stream {
                return Err(Errno::EOPNOTSUPP);
            }
            let (n, lost) = {
                let mut inbox = self.inbox.lock();
                (inbox.recv_urgent(dst, how), inbox.take_lost())
            };
            drop(lost);
            return n.map(|n| Incoming { n, full: n, flags: MsgFlags::OOB, ..Incoming::default() });
        }
        if self.kind != Kind::Stream
            && let Some(error) = self.take_error()
        {
            return Err(error);
        }
        let (result, is_ended, is_at_mark, blocked, lost) = {
            let mut inbox = self.inbox.lock_to_transfer();
            let result = inbox.recv(dst, how);
            if let Ok(received) = &result {
                let is_plain = received.control.is_empty();
                inbox.note_transfer(received.n, is_plain, flags, &self.lively.receives);
            }
            let may_go_on = inbox.is_blocking() && inbox.has_room(self.send_limit());
            let blocked = if may_go_on { inbox.unblock() } else { Vec::new() };
            (result, inbox.is_ended, inbox.urgency().1, blocked, inbox.take_lost())
        };
        drop(lost);
        Self::wake_senders(&blocked);
        let received = match result {
            Ok(received) => received,
            Err(Errno::EAGAIN) => {
                if let Some(error) = self.take_error() {
                    return Err(error);
                }
                // Of a datagram socket, what waits ends; what does not is told that there is nothing.
                let is_over = is_ended && self.is_connection_based();
                let end = Incoming { is_end: true, ..Incoming::default() };
                return if is_over { Ok(end) } else { Err(Errno::EAGAIN) };
            }
            Err(errno) => return Err(errno),
        };
        let n = if is_peek || self.kind == Kind::Stream { received.n } else { received.full };
        self.options.has_received(n, is_peek);
        let from = match self.kind {
            Kind::Stream => self.state.lock().peer_addr.clone(),
            _ => received.from,
        };
        let from = from.as_ref().and_then(|from| from.get());
        Ok(Incoming {
            n: received.n,
            full: received.full,
            addr: from.map(|from| Address::encode(Some(from))).unwrap_or_default(),
            control: received.control,
            is_at_mark,
            ..Incoming::default()
        })
    }

    fn has_ended(&self) -> bool {
        self.inbox.lock_to_transfer().is_ended
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn option(&self, task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        self.get_option(task, level, name)
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        if request == SIOCATMARK {
            if self.kind != Kind::Stream {
                return Err(Errno::EOPNOTSUPP.into());
            }
            let (_, is_at_mark) = self.inbox.lock().urgency();
            task.write_obj(UserPtr::<i32>::new(UserAddr(arg)), &i32::from(is_at_mark))?;
            return Ok(0);
        }
        // The C library asks about interfaces on whatever socket it gets.
        interface::ioctl(task, request, arg)
    }

    fn n_pending(&self) -> (usize, usize) {
        let peer = self.state.lock().peer.clone();
        let sent = match peer.filter(|_| self.is_connection_based()).and_then(|peer| peer.upgrade())
        {
            Some(peer) => peer.inbox.lock().n_bytes().0,
            None => 0,
        };
        let (all, next) = self.inbox.lock().n_bytes();
        (if self.kind == Kind::SeqPacket { all } else { next }, sent)
    }

    fn poll(&self) -> Events {
        let mut ready = Events::empty();
        let mut is_listening = false;
        let (peer, is_send_shut, is_idle) = {
            let state = self.state.lock();
            if state.error.is_some() {
                ready |= Events::ERR;
            }
            if let Role::Listening { pending, .. } = &state.role {
                is_listening = true;
                if !pending.is_empty() {
                    ready |= Events::READABLE;
                }
            }
            (state.peer.clone(), state.is_send_shut, state.peer.is_none())
        };
        {
            let inbox = self.inbox.lock();
            if inbox.is_ended {
                ready |= Events::READABLE | Events::RDHUP;
                if is_send_shut {
                    ready |= Events::HUP;
                }
            }
            if !inbox.is_empty() {
                ready |= Events::READABLE;
            }
            if inbox.urgency().0 {
                ready |= Events::PRI;
            }
        }
        if is_listening {
            return ready;
        }
        if is_idle && self.is_connection_based() {
            ready |= Events::HUP;
        }
        let is_writable = match peer.and_then(|peer| peer.upgrade()) {
            Some(peer) => {
                let mut inbox = peer.inbox.lock();
                let has_room = inbox.is_ended || inbox.has_room(self.send_limit());
                if !has_room {
                    inbox.block(&self.this);
                }
                has_room
            }
            None => true,
        };
        if is_writable {
            ready |= Events::WRITABLE;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        let registrations = vec![self.queue.register(waiter, mask, key)];
        self.take_back_for(mask);
        registrations
    }

    fn is_lively(&self) -> bool {
        self.lively.is_any()
    }

    fn lend(&self, user: &StreamUser) -> Vec<HostCall> {
        self.lend_to(user)
    }

    fn recall(&self) {
        self.take_back_all();
    }

    fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
        self.kernel.unix_sockets.add(ino, self.this.clone());
    }

    fn descriptor_closed(&self) {
        collect::collect_if_needed();
    }

    fn close(&self) {
        self.kernel.unix_sockets.remove(self.ino.load(Ordering::Relaxed));
        let (binding, peer, role, connecting) = {
            let mut state = self.state.lock();
            state.is_send_shut = true;
            let role = std::mem::replace(&mut state.role, Role::Idle);
            let connecting = std::mem::take(&mut state.connecting);
            (state.binding.take(), state.peer.take(), role, connecting)
        };
        if let Some(binding) = binding {
            self.kernel.unix_sockets.release(&binding, &self.this);
        }
        let mut unread = {
            let mut inbox = self.inbox.lock();
            inbox.is_closed = true;
            inbox.is_ended = true;
            inbox.take_all()
        };
        if self.is_connection_based()
            && let Some(peer) = peer.and_then(|peer| peer.upgrade())
        {
            peer.peer_closed(unread.has_unread());
        }
        if let Role::Listening { pending, .. } = role {
            for server in pending {
                let client = server.state.lock().peer.clone();
                if let Some(client) = client.and_then(|client| client.upgrade()) {
                    client.peer_closed(true);
                }
                server.close();
            }
        }
        Self::wake_senders(&unread.unblock());
        Self::wake_senders(&connecting);
        self.queue.notify(Events::all());
    }
}
