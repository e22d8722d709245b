//! TCP sockets (`tcp(7)`).
//!
//! Locks: `TcpSocket::state` of one socket at a time, and a listening one's before that of a new
//! connection that nobody else knows yet. Below it the ports and the connection ([`conn`]), which
//! are leaves. Wait queues are notified without any.

mod conn;
mod connect;
mod deferred;
mod from_host;
mod listen;
mod options;
mod remote;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::ioctl::SIOCATMARK;
use syscalls::abi::landlock::AccessNet;
use syscalls::abi::socket::{AF_UNSPEC, IPPROTO_TCP, IPV6_V6ONLY, MsgFlags, SOCK_STREAM, SOL_IPV6};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use self::conn::{Conn, Look, Phase};
use self::connect::Again;
use self::deferred::Deferred;
pub(super) use self::from_host::HostConnection;
use self::from_host::HostListener;
use self::listen::Waiting;
use self::options::TcpOptions;
use self::remote::Stream;
use super::addr::{self, Endpoint, Family, FamilyCell};
use super::ip_options::{About, IpOptions};
use super::pairs::KEPT_NS;
use super::ports::{Claim, ClaimState, Place};
use super::{Inet, interface};
use crate::kernel::Kernel;
use crate::landlock;
use crate::net::options::Options;
use crate::net::stack::link::Link;
use crate::net::{Incoming, Outgoing, Shutdown, Socket};
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{IoSink, IoSource};

/// What `SO_SNDBUF` and `SO_RCVBUF` show of a new socket, and of one that is connected.
const SEND_BUFFER: u32 = 16_384;
const RECEIVE_BUFFER: u32 = 131_072;
const CONNECTED_SEND_BUFFER: u32 = 2_626_560;

/// How long a port stays taken after its connection was closed from this side: `TIME_WAIT`.
const TIME_WAIT_NS: u64 = KEPT_NS;

/// What a socket is for.
enum Role {
    /// Not connected.
    Idle,
    /// A connect waits for an answer, or for room in the queue of who listens here.
    Connecting { link: Option<Arc<Link>> },
    /// A connect has failed, and nobody has been told yet.
    Failed,
    /// Takes connections.
    Listening {
        backlog: usize,
        pending: VecDeque<Arc<TcpSocket>>,
        /// What is not to be taken yet.
        deferred: Vec<Deferred>,
        /// Who waits for room.
        waiting: VecDeque<Waiting>,
        /// Where further connections come from.
        doors: Vec<Arc<HostListener>>,
    },
    /// Connected once and for all.
    Connected {
        stream: Stream,
        /// Whether a `connect(2)` has returned success.
        is_announced: bool,
    },
}

struct State {
    role: Role,
    local: Option<Endpoint>,
    place: Option<Place>,
    /// Whether the address or the port was given by `bind(2)`.
    is_ip_bound: bool,
    is_port_bound: bool,
    peer: Option<Endpoint>,
    error: Option<Errno>,
    /// What has been shut down without a connection: receiving, sending.
    shut: (bool, bool),
    /// Whether it was shut down after a connect that had failed.
    is_stuck: bool,
    /// Until when TCP remembers the connection that `AF_UNSPEC` has dissolved, and what is set where it does not.
    remembered: Option<(u64, Option<Arc<AtomicBool>>)>,
}

/// A TCP socket.
pub struct TcpSocket {
    this: Weak<TcpSocket>,
    kernel: Arc<Kernel>,
    inet: Arc<Inet>,
    family: FamilyCell,
    uid: u32,
    ino: AtomicU64,
    options: Arc<Options>,
    ip: IpOptions,
    tcp: TcpOptions,
    state: Mutex<State>,
    queue: WaitQueue,
    /// How many connections over packets are on their way into the queue of who listens.
    n_embryos: AtomicUsize,
    /// When a connect is tried again for which nobody listens any more.
    again: Mutex<Option<Again>>,
}

/// A line of `/proc/net/tcp`.
#[derive(Clone, Copy, Debug)]
pub struct TcpEntry {
    /// The own address and port.
    pub local: (IpAddr, u16),
    /// The peer's.
    pub remote: (IpAddr, u16),
    /// As Linux numbers the states.
    pub state: u8,
    /// Bytes that have not reached the peer, and that wait to be read; connections that wait.
    pub queues: (usize, usize),
    /// How many connections may wait.
    pub backlog: usize,
    /// The owner.
    pub uid: u32,
    /// The inode number of the socket's file.
    pub ino: u64,
}

impl TcpSocket {
    /// Creates a socket.
    pub fn create(task: &CurrentTask, family: Family) -> Arc<Self> {
        let options = Options::with_buffers(SEND_BUFFER, RECEIVE_BUFFER);
        let uid = task.creds().fsuid;
        Self::new(
            &task.kernel,
            &task.inet(),
            family,
            uid,
            options,
            IpOptions::default(),
            TcpOptions::default(),
        )
    }

    fn new(
        kernel: &Arc<Kernel>,
        inet: &Arc<Inet>,
        family: Family,
        uid: u32,
        options: Options,
        ip: IpOptions,
        tcp: TcpOptions,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            kernel: kernel.clone(),
            inet: inet.clone(),
            family: FamilyCell::new(family),
            uid,
            ino: AtomicU64::new(0),
            options: Arc::new(options),
            ip,
            tcp,
            state: Mutex::new(State {
                role: Role::Idle,
                local: None,
                place: None,
                is_ip_bound: false,
                is_port_bound: false,
                peer: None,
                error: None,
                shut: (false, false),
                is_stuck: false,
                remembered: None,
            }),
            queue: WaitQueue::new(),
            n_embryos: AtomicUsize::new(0),
            again: Mutex::new(None),
        })
    }

    fn inet(&self) -> &Inet {
        &self.inet
    }

    fn family(&self) -> Family {
        self.family.get()
    }

    fn is_v6only(&self) -> bool {
        self.family() == Family::V6 && self.ip.flag(SOL_IPV6, IPV6_V6ONLY)
    }

    fn claim(&self, ip: IpAddr, state: ClaimState) -> Claim {
        Claim { ip, v6only: self.is_v6only(), options: self.options.clone(), uid: self.uid, state }
    }

    fn about(&self) -> About {
        let state = self.state.lock();
        About {
            is_v6: self.family() == Family::V6,
            is_stream: true,
            is_raw: false,
            is_bound: state.place.is_some(),
            is_connected: matches!(state.role, Role::Connected { .. }),
        }
    }

    /// Returns the connection, where there is or was one.
    fn stream(&self) -> Option<Stream> {
        match &self.state.lock().role {
            Role::Connected { stream, .. } => Some(stream.clone()),
            _ => None,
        }
    }

    /// Gives the port back, unless `bind(2)` has named it.
    fn unbind(&self, state: &mut State) {
        if state.is_port_bound {
            if !state.is_ip_bound
                && let (Some(place), Some(local)) = (state.place, &mut state.local)
            {
                local.ip = self.family().any();
                let ip = local.ip;
                self.inet().tcp.update(place, |claim| claim.ip = ip);
            }
            return;
        }
        if let Some(place) = state.place.take() {
            self.inet().tcp.release(place);
        }
        // `getsockname(2)` goes on to tell the port.
        if let Some(local) = state.local.as_mut().filter(|_| !state.is_ip_bound) {
            local.ip = self.family().any();
        }
    }

    /// Gives up the addresses of a connection that has not come about.
    fn leave_attempt(&self, role: &Role, state: &State) {
        if let (Role::Connecting { .. }, Some(from), Some(to)) = (role, state.local, state.peer) {
            self.inet().tcp.leave_pair(from, to);
        }
    }

    /// Gives back what a connection holds in the tables.
    fn leave(&self, stream: &Stream) {
        let (own, peer) = stream.ends();
        match stream {
            Stream::Local(conn, side) => {
                let now_ns = self.kernel.clock.monotonic_ns();
                self.inet().tcp.settle_pair(own, peer, conn.pair(*side), now_ns);
            }
            Stream::Remote(_) | Stream::Host(_) => self.inet().tcp.leave_pair(own, peer),
        }
    }

    /// Returns the socket as `/proc/net/tcp` shows it.
    pub fn entry(&self) -> Option<TcpEntry> {
        let state = self.state.lock();
        let local = state.local?;
        let peer = state.peer.unwrap_or(Endpoint { ip: self.family().any(), port: 0 });
        let mut most = 0;
        let (number, queues) = match &state.role {
            Role::Listening { pending, backlog, .. } => {
                most = *backlog;
                (10, (0, pending.len()))
            }
            Role::Connected { stream, .. } => {
                let look = stream.look(false);
                (stream.number(&look), (look.n_unsent, look.n_readable))
            }
            Role::Connecting { .. } => (2, (0, 0)),
            // A socket that is only bound is not shown.
            Role::Idle | Role::Failed => return None,
        };
        Some(TcpEntry {
            local: (local.ip, local.port),
            remote: (peer.ip, peer.port),
            state: number,
            queues,
            backlog: most,
            uid: self.uid,
            ino: self.ino.load(Ordering::Relaxed),
        })
    }

    /// Returns whether the socket is one of IPv6.
    pub fn is_v6(&self) -> bool {
        self.family() == Family::V6
    }
}

/// Returns the number that Linux gives a state.
fn phase_number(phase: Phase) -> u8 {
    match phase {
        Phase::Established => 1,
        Phase::FinWait => 5,
        Phase::Closed => 7,
        Phase::CloseWait => 8,
    }
}

impl Socket for TcpSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        (self.family().number(), SOCK_STREAM, IPPROTO_TCP)
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    fn bind(&self, task: &CurrentTask, given: &[u8]) -> SysResult<()> {
        let endpoint = super::parse_bind(self.family(), given, self.is_v6only())?;
        let is_group = endpoint.ip.is_multicast() && endpoint.ip.is_ipv6();
        if is_group {
            return Err(Errno::EINVAL);
        }
        if !self.inet().can_bind(endpoint.ip) && !self.ip.is_free_to_bind() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        super::check_port(task, endpoint.port)?;
        let mut state = self.state.lock();
        if let Role::Connected { stream, .. } = &state.role {
            if stream.look(false).phase != Phase::Closed {
                return Err(Errno::EINVAL);
            }
            self.unbind(&mut state);
        }
        if state.place.is_some()
            || matches!(state.role, Role::Connecting { .. } | Role::Listening { .. })
        {
            return Err(Errno::EINVAL);
        }
        let place = self.inet().tcp.bind(
            endpoint.port,
            self.claim(endpoint.ip, ClaimState::Bound),
            self.this.clone(),
            super::port_range(&self.kernel),
            self.kernel.clock.monotonic_ns(),
        );
        let place = match place {
            Ok(place) => place,
            Err(error) => {
                // An address of before is gone now.
                if let Some(local) = &mut state.local {
                    local.ip = self.family().any();
                }
                return Err(error);
            }
        };
        state.local = Some(Endpoint { ip: endpoint.ip, port: place.port });
        state.place = Some(place);
        state.is_ip_bound = !endpoint.ip.is_unspecified();
        state.is_port_bound = endpoint.port != 0;
        drop(state);
        self.ip.note_bound(self.family(), endpoint.ip);
        Ok(())
    }

    fn listen(&self, _task: &CurrentTask, backlog: i32) -> SysResult<()> {
        self.do_listen(backlog)
    }

    fn accept(&self, _task: &CurrentTask) -> SysResult<Arc<dyn Socket>> {
        let socket: Arc<dyn Socket> = self.do_accept()?;
        Ok(socket)
    }

    fn connect(&self, _task: &CurrentTask, given: &[u8], may_wait: bool) -> SysResult<()> {
        if addr::family_of(given)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        self.do_connect(given, may_wait)
    }

    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        if let Some(stream) = self.stream() {
            if let Role::Connected { is_announced, .. } = &mut self.state.lock().role {
                // Whoever has not been told of the connection counts as told.
                *is_announced = true;
            }
            return stream.shutdown(how.receive, how.send);
        }
        let (is_listening, is_connecting) = {
            let state = self.state.lock();
            let is_listening = matches!(state.role, Role::Listening { .. });
            (is_listening, matches!(state.role, Role::Connecting { .. }))
        };
        let result = match (is_listening, is_connecting) {
            (true, _) if !how.receive => Ok(()),
            (true, _) | (_, true) => {
                self.disconnect();
                Ok(())
            }
            _ => {
                let mut state = self.state.lock();
                let (receive, send) = state.shut;
                state.shut = (receive | how.receive, send | how.send);
                if matches!(state.role, Role::Failed) {
                    // Only `AF_UNSPEC` makes it connectable again.
                    state.role = Role::Idle;
                    state.shut = (true, true);
                    state.is_stuck = true;
                }
                Err(Errno::ENOTCONN)
            }
        };
        self.queue.notify(Events::all());
        result
    }

    fn local_addr(&self) -> Vec<u8> {
        let local = self.state.lock().local;
        local.unwrap_or(Endpoint { ip: self.family().any(), port: 0 }).encode(self.family())
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        let state = self.state.lock();
        let Role::Connected { stream, .. } = &state.role else { return Err(Errno::ENOTCONN) };
        if stream.look(false).phase == Phase::Closed {
            return Err(Errno::ENOTCONN);
        }
        Ok(state.peer.ok_or(Errno::ENOTCONN)?.encode(self.family()))
    }

    fn accepted_addr(&self) -> Vec<u8> {
        self.state.lock().peer.map(|peer| peer.encode(self.family())).unwrap_or_default()
    }

    fn send(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        message: &Outgoing,
    ) -> SysResult<usize> {
        if let Some(stream) = self.stream() {
            return stream.send(src, message.flags);
        }
        if message.flags.contains(MsgFlags::FASTOPEN)
            && let Some(given) = &message.addr
        {
            landlock::check_port(task, self.identity(), given, AccessNet::CONNECT_TCP)?;
            // There are no cookies, so this is a connect with a send behind it.
            self.connect(task, given, !message.flags.contains(MsgFlags::DONTWAIT))?;
            let stream = self.stream().ok_or(Errno::EPIPE)?;
            return stream.send(src, message.flags);
        }
        let mut state = self.state.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let is_connecting = matches!(state.role, Role::Connecting { .. });
        Err(if is_connecting { Errno::EAGAIN } else { Errno::EPIPE })
    }

    fn recv(
        &self,
        _task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let Some(stream) = self.stream() else {
            let mut state = self.state.lock();
            return match state.role {
                Role::Listening { .. } => Err(Errno::ENOTCONN),
                _ if flags.contains(MsgFlags::OOB) => Err(Errno::EINVAL),
                Role::Connecting { .. } => Err(Errno::EAGAIN),
                Role::Failed => match state.error.take() {
                    Some(error) => Err(error),
                    None => Ok(Incoming::default()),
                },
                Role::Idle | Role::Connected { .. } => match state.error.take() {
                    Some(error) => Err(error),
                    None if state.shut.0 => Ok(Incoming::default()),
                    None => Err(Errno::ENOTCONN),
                },
            };
        };
        let is_peek = flags.contains(MsgFlags::PEEK);
        let is_plain = !flags.contains(MsgFlags::OOB);
        let skip = self.options.peek_at().filter(|skip| is_peek && is_plain && *skip > 0);
        let (n, flags) = match skip {
            Some(skip) => stream.look_ahead(dst, skip)?,
            None => stream.recv(dst, flags)?,
        };
        if is_plain {
            self.options.has_received(n, is_peek);
        }
        Ok(Incoming { n, full: n, flags, ..Incoming::default() })
    }

    fn take_error(&self) -> Option<Errno> {
        match self.stream() {
            Some(stream) => stream.take_error(),
            None => self.state.lock().error.take(),
        }
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        self.get_option(level, name)
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        self.change_option(task, level, name, value)
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        if request == SIOCATMARK {
            let is_at_mark = self.stream().is_some_and(|stream| stream.look(false).is_at_mark);
            task.write_obj(UserPtr::<i32>::new(UserAddr(arg)), &i32::from(is_at_mark))?;
            return Ok(0);
        }
        interface::ioctl(task, request, arg)
    }

    fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn n_pending(&self) -> (usize, usize) {
        match self.stream() {
            Some(stream) => {
                let look = stream.look(false);
                (look.n_readable, look.n_unsent)
            }
            None => (0, 0),
        }
    }

    fn poll(&self) -> Events {
        let state = self.state.lock();
        let error = if state.error.is_some() { Events::ERR } else { Events::empty() };
        let stream = match &state.role {
            Role::Idle => {
                let ended = Events::READABLE | Events::RDHUP;
                let ended = if state.shut.0 { ended } else { Events::empty() };
                return error | ended | Events::HUP | Events::WRITABLE;
            }
            Role::Connecting { .. } => return Events::empty(),
            Role::Failed => {
                let ended = Events::HUP | Events::RDHUP;
                return error | ended | Events::READABLE | Events::WRITABLE;
            }
            Role::Listening { pending, doors, .. } => {
                let has_none = pending.is_empty() && !doors.iter().any(|door| door.has_pending());
                return if has_none { Events::empty() } else { Events::READABLE };
            }
            Role::Connected { stream, .. } => stream.clone(),
        };
        drop(state);
        let low_water = self.options.receive_low_water.load(Ordering::Relaxed);
        readiness(&stream.look(true), usize::try_from(low_water).unwrap_or(1))
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn options_changed(&self) {
        if let Some(Stream::Remote(link)) = self.stream() {
            link.answer();
        }
    }

    fn linger(&self) -> Option<u64> {
        let (is_on, seconds) = *self.options.linger.lock();
        let seconds = u64::try_from(seconds).ok().filter(|seconds| is_on != 0 && *seconds > 0)?;
        let Some(Stream::Remote(link)) = self.stream() else { return None };
        // What has not been read resets the connection.
        if link.look(false).n_readable > 0 {
            return None;
        }
        let _ = link.shutdown(false, true);
        Some(seconds.saturating_mul(1_000_000_000))
    }

    fn has_arrived(&self) -> bool {
        match self.stream() {
            Some(Stream::Remote(link)) => link.has_arrived(),
            _ => true,
        }
    }

    fn close(&self) {
        let (role, place, remembered) = {
            let mut state = self.state.lock();
            let role = std::mem::replace(&mut state.role, Role::Idle);
            self.leave_attempt(&role, &state);
            (role, state.place.take(), state.remembered.take())
        };
        match role {
            Role::Connected { stream, .. } => {
                let (is_on, seconds) = *self.options.linger.lock();
                let lingers = stream.close(is_on != 0 && seconds == 0);
                self.leave(&stream);
                if let Some(place) = place {
                    let now_ns = self.kernel.clock.monotonic_ns();
                    let tcp = &self.inet().tcp;
                    if lingers {
                        let until = (now_ns + TIME_WAIT_NS, stream.reset_flag());
                        tcp.release_later(place, until, now_ns, Weak::new());
                    } else {
                        tcp.release(place);
                    }
                }
            }
            role => {
                if let Some(place) = place {
                    let now_ns = self.kernel.clock.monotonic_ns();
                    match remembered {
                        Some(until) => {
                            self.inet().tcp.release_later(place, until, now_ns, Weak::new());
                        }
                        None => self.inet().tcp.release(place),
                    }
                }
                if let Role::Connecting { link: Some(link) } = &role {
                    link.close(true);
                }
                self.close_listener(role);
            }
        }
        self.queue.notify(Events::all());
    }
}

/// Returns what a connection is ready for.
fn readiness(look: &Look, low_water: usize) -> Events {
    let mut ready = Events::empty();
    if look.phase == Phase::Closed || (look.is_receive_shut && look.is_send_shut) {
        ready |= Events::HUP;
    }
    if look.is_receive_shut {
        ready |= Events::READABLE | Events::RDHUP;
    }
    if look.n_readable >= low_water.max(1) {
        ready |= Events::READABLE;
    }
    if look.is_writable {
        ready |= Events::WRITABLE;
    }
    if look.has_urgent {
        ready |= Events::PRI;
    }
    if look.has_error {
        ready |= Events::ERR;
    }
    ready
}
