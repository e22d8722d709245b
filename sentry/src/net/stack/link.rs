//! A connection of TCP over packets.
//!
//! Each has an interface and a set of sockets of smoltcp's of its own, so a segment or a timer costs
//! the same however many connections there are, and a task that sends does all of the work itself.
//! smoltcp takes the window of a SYN for a scaled one: [`Link::take_in`] sees to it that data are never
//! more than there is room for.

mod device;
mod patience;
mod send;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use syscalls::abi::socket::MsgFlags;
use syscalls::{Errno, SysResult};

use self::device::{Device, Told};
use self::send::Held;
use super::Stack;
use super::timers::NEVER;
use super::wire::{Packet, RST, Segment};
use crate::net::inet::Endpoint;
use crate::net::inet::tcp::TcpSocket;
use crate::net::options::Options;
use crate::sync::{Events, Mutex, WaitQueue};
use crate::vfs::IoSink;

/// The sizes of a buffer where nobody has set one: what a connection gets depends on how much the
/// others have.
const MAX_BUFFER: usize = 1 << 20;
const MIN_BUFFER: usize = 32 << 10;

/// How much all buffers take together before each is the smallest. Memory that has not been used
/// takes none of the host's.
const BUDGET: usize = 512 << 20;

/// How long a connection may take to come about: six retransmissions on Linux.
const CONNECT_NS: u64 = 127_000_000_000;

/// The same for one that somebody else has begun.
const ACCEPT_NS: u64 = 30_000_000_000;

/// How long a connection that nobody has any more waits for the end of the peer's stream.
const ORPHAN_NS: u64 = 60_000_000_000;

/// What all buffers take together.
static RESERVED: AtomicUsize = AtomicUsize::new(0);

/// A connection that has not come about, for whoever listens.
struct Embryo {
    listener: Weak<TcpSocket>,
    server: Arc<TcpSocket>,
}

struct Core {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    mtu: usize,
    /// What `MSG_MORE` and `TCP_CORK` hold back.
    held: Held,
    /// Where the room ends, after a SYN: its window is not one that smoltcp keeps in mind.
    edge: Option<u32>,
    /// The number of the first segment that was sent.
    first: Option<u32>,
    error: Option<Errno>,
    /// Whether the peer's stream has come to its end.
    has_fin: bool,
    is_up: bool,
    is_receive_shut: bool,
    is_send_shut: bool,
    is_orphan: bool,
    is_over: bool,
    /// Somebody waits for room.
    is_blocked: bool,
    n_reserved: usize,
    /// When the connection is given up.
    limit_ns: u64,
    /// When the peer was last heard of, or had nothing to say.
    heard_ns: u64,
    /// What the last segment has told the peer.
    told: Option<Told>,
    /// Frames that leave when the lock is given back.
    acks: Vec<Vec<u8>>,
    /// How often the peer has been asked since whether it is there, and when for the last time.
    n_probes: u32,
    probed_ns: u64,
}

/// A connection.
pub(in crate::net) struct Link {
    stack: Arc<Stack>,
    pub(in crate::net) local: Endpoint,
    pub(in crate::net) remote: Endpoint,
    owner: Weak<TcpSocket>,
    embryo: Mutex<Option<Embryo>>,
    queue: WaitQueue,
    options: Arc<Options>,
    core: Mutex<Core>,
    /// The first moment for which the timers have an entry that counts.
    scheduled_ns: AtomicU64,
    is_touched: AtomicBool,
}

/// What has changed, and who is to be told without any lock.
#[derive(Clone, Copy, Default)]
struct News {
    events: Events,
    /// The connection has come about.
    is_up: bool,
    /// It has not.
    failed: Option<Errno>,
    is_over: bool,
}

/// What a connection looks like to `poll(2)`, `TCP_INFO` and `/proc/net/tcp`.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct View {
    pub(in crate::net) state: State,
    pub(in crate::net) n_readable: usize,
    pub(in crate::net) n_unsent: usize,
    pub(in crate::net) is_receive_shut: bool,
    pub(in crate::net) is_send_shut: bool,
    pub(in crate::net) has_error: bool,
    pub(in crate::net) is_writable: bool,
    pub(in crate::net) mss: usize,
}

/// Who a connection belongs to.
pub(in crate::net) struct Owner<'a> {
    pub(in crate::net) socket: Weak<TcpSocket>,
    pub(in crate::net) queue: WaitQueue,
    pub(in crate::net) options: &'a Arc<Options>,
}

fn buffer_size(set: Option<u32>) -> usize {
    let set = set.map(|size| usize::try_from(size).unwrap_or(MAX_BUFFER));
    let left = BUDGET.saturating_sub(RESERVED.load(Ordering::Relaxed));
    let size = set.unwrap_or(left / 64).clamp(MIN_BUFFER, MAX_BUFFER * 4);
    let size = if set.is_some() { size } else { size.min(MAX_BUFFER) };
    // So that the window that is told, which is cut to a power of two, is all of the buffer.
    if size.is_power_of_two() { size } else { size.next_power_of_two() / 2 }
}

impl Core {
    fn new(stack: &Stack, local: Endpoint, remote: Endpoint, options: &Options) -> SysResult<Self> {
        let mtu = stack.mtu_to(remote.ip);
        let now_ns = stack.now_ns();
        let mut seed = [0; 8];
        sentry_host::random::fill(&mut seed)?;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from_ne_bytes(seed);
        let mut device = Device::new(stack, mtu, (local.ip, remote.ip));
        let mut interface = Interface::new(config, &mut device, instant(now_ns));
        let (own, _) = device::known_as(local.ip, remote.ip);
        interface.update_ip_addrs(|addrs| {
            // There is room for one.
            let _ = addrs.push(IpCidr::new(IpAddress::Ipv4(own), 32));
        });
        // The way is found by the stack; here it is enough that there is one.
        let _ = interface.routes_mut().add_default_ipv4_route(own);
        let sizes =
            [buffer_size(options.set_receive_buffer()), buffer_size(options.set_send_buffer())];
        let [receive, send] = sizes.map(|size| SocketBuffer::new(vec![0; size]));
        let n_reserved = sizes.iter().sum();
        RESERVED.fetch_add(n_reserved, Ordering::Relaxed);
        let mut socket = Socket::new(receive, send);
        socket.set_congestion_control(CongestionControl::Cubic);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Self {
            interface,
            sockets,
            handle,
            mtu,
            held: Held::default(),
            edge: None,
            first: None,
            error: None,
            has_fin: false,
            is_up: false,
            is_receive_shut: false,
            is_send_shut: false,
            is_orphan: false,
            is_over: false,
            is_blocked: false,
            n_reserved,
            limit_ns: NEVER,
            heard_ns: now_ns,
            told: None,
            acks: Vec::new(),
            n_probes: 0,
            probed_ns: now_ns,
        })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn state(&self) -> State {
        self.sockets.get::<Socket<'static>>(self.handle).state()
    }

    fn n_readable(&self) -> usize {
        self.sockets.get::<Socket<'static>>(self.handle).recv_queue()
    }

    fn n_unsent(&self) -> usize {
        self.sockets.get::<Socket<'static>>(self.handle).send_queue()
    }

    /// Returns whether an acknowledgement is expected: of data, or of the end of the stream.
    fn is_awaiting(&self) -> bool {
        let has_ended = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        self.n_unsent() > 0 || has_ended
    }

    /// Ends the stream that is sent.
    fn end(&mut self, now_ns: u64) {
        self.release(now_ns);
        if !self.is_awaiting() {
            self.heard_ns = now_ns;
        }
        self.socket().close();
    }

    fn room(&self) -> usize {
        let socket = self.sockets.get::<Socket<'static>>(self.handle);
        socket.send_capacity().saturating_sub(socket.send_queue() + self.held.len())
    }

    fn has_room(&self) -> bool {
        let socket = self.sockets.get::<Socket<'static>>(self.handle);
        self.room() >= socket.send_capacity() / 3
    }

    /// Returns what is left of the stream while it is not all gone.
    fn is_closed(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait)
    }

    /// Ends the connection, telling the peer.
    fn abort(&mut self, error: Option<Errno>) {
        self.socket().abort();
        self.error = error;
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.n_reserved, Ordering::Relaxed);
    }
}

fn instant(now_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(now_ns / 1000).unwrap_or(i64::MAX))
}

/// Returns whether one number of a sequence is behind another.
fn is_after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

impl Link {
    fn create(
        stack: &Arc<Stack>,
        local: Endpoint,
        remote: Endpoint,
        owner: Owner<'_>,
        embryo: Option<Embryo>,
    ) -> SysResult<Arc<Self>> {
        Ok(Arc::new(Self {
            core: Mutex::new(Core::new(stack, local, remote, owner.options)?),
            stack: stack.clone(),
            local,
            remote,
            owner: owner.socket,
            embryo: Mutex::new(embryo),
            queue: owner.queue,
            options: owner.options.clone(),
            scheduled_ns: AtomicU64::new(NEVER),
            is_touched: AtomicBool::new(false),
        }))
    }

    /// Begins a connection. The owner is told when it has come about, or has not.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` where there is one between the two already.
    pub(in crate::net) fn connect(
        stack: &Arc<Stack>,
        local: Endpoint,
        remote: Endpoint,
        owner: Owner<'_>,
    ) -> SysResult<Arc<Self>> {
        let link = Self::create(stack, local, remote, owner, None)?;
        {
            let core = &mut *link.core.lock();
            core.limit_ns = core.heard_ns.saturating_add(CONNECT_NS);
            let (own, peer) = device::known_as(local.ip, remote.ip);
            let own = IpEndpoint::new(IpAddress::Ipv4(own), local.port);
            let peer = IpEndpoint::new(IpAddress::Ipv4(peer), remote.port);
            let socket = core.sockets.get_mut::<Socket<'static>>(core.handle);
            socket
                .connect(core.interface.context(), peer, own)
                .map_err(|_| Errno::EADDRNOTAVAIL)?;
        }
        if !stack.enter(&link) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        link.answer();
        Ok(link)
    }

    /// Waits for the rest of a connection that somebody else begins.
    pub(in crate::net) fn welcome(
        stack: &Arc<Stack>,
        local: Endpoint,
        remote: Endpoint,
        owner: Owner<'_>,
        listener: &Arc<TcpSocket>,
        server: &Arc<TcpSocket>,
    ) -> Option<Arc<Self>> {
        let embryo = Embryo { listener: Arc::downgrade(listener), server: server.clone() };
        let link = Self::create(stack, local, remote, owner, Some(embryo)).ok()?;
        {
            let mut core = link.core.lock();
            core.limit_ns = core.heard_ns.saturating_add(ACCEPT_NS);
            let (own, _) = device::known_as(local.ip, remote.ip);
            let own = IpEndpoint::new(IpAddress::Ipv4(own), local.port);
            core.socket().listen(own).ok()?;
        }
        stack.enter(&link).then_some(link)
    }

    /// Returns whether the moment is one at which something is to be done.
    pub(super) fn waits_for(&self, at_ns: u64) -> bool {
        self.scheduled_ns.load(Ordering::SeqCst) == at_ns
    }

    /// Takes a packet in. Returns whether [`Link::answer`] is to be called, once for all segments.
    pub(super) fn take_in(&self, packet: &Packet<'_>, segment: &Segment) -> bool {
        let now_ns = self.stack.now_ns();
        let disguised;
        let bytes = if self.local.ip.is_ipv4() && !packet.whole.is_empty() {
            packet.whole
        } else {
            disguised = device::disguise(packet.payload, (self.local.ip, self.remote.ip));
            &disguised
        };
        let is_wanted = self.with_core(|core| {
            if core.is_over {
                return false;
            }
            let n_data = u32::try_from(segment.len).unwrap_or(u32::MAX);
            let end = segment.seq.wrapping_add(n_data);
            // Whoever keeps to the window never sends what does not fit.
            if segment.len > 0 && core.edge.is_some_and(|edge| is_after(end, edge)) {
                return false;
            }
            core.heard_ns = now_ns;
            core.n_probes = 0;
            core.acknowledge(now_ns);
            let before = core.state();
            let had = core.n_readable();
            self.poll(core, Some(bytes), now_ns);
            if before == State::SynSent {
                // The window is told before anything that it allows comes.
                self.poll(core, None, now_ns);
            }
            let after = core.state();
            let is_dead =
                after == State::Closed || (after == State::Listen && before != State::Listen);
            if segment.has(RST) && is_dead && before != after {
                core.error = match before {
                    State::SynSent | State::SynReceived => Some(Errno::ECONNREFUSED),
                    State::CloseWait => Some(Errno::EPIPE),
                    State::TimeWait | State::LastAck | State::Closing => None,
                    _ => Some(Errno::ECONNRESET),
                };
                if after == State::Listen {
                    core.socket().close();
                }
            }
            core.has_fin |= matches!(
                after,
                State::CloseWait | State::LastAck | State::Closing | State::TimeWait
            );
            if core.is_orphan && core.n_readable() > had {
                // Nobody will ever read this.
                core.abort(None);
            }
            true
        });
        is_wanted && !self.is_touched.swap(true, Ordering::SeqCst)
    }

    /// Locks the connection, and then sends what it has to acknowledge: the host may do all that the peer
    /// does upon that before it comes back, down to sending what comes next.
    fn with_core<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        let (result, acks) = {
            let mut core = self.core.lock();
            (work(&mut core), std::mem::take(&mut core.acks))
        };
        for mut frame in acks {
            // One that has no way is one that was lost.
            let _ = self.stack.output(&mut frame, self.local.ip, self.remote.ip);
        }
        result
    }

    /// Lets smoltcp work: on a packet, and on what there is to be sent.
    fn poll(&self, core: &mut Core, packet: Option<&[u8]>, now_ns: u64) {
        let now = instant(now_ns);
        let pair = (self.local.ip, self.remote.ip);
        let mut device = Device::new(&self.stack, core.mtu, pair);
        device.incoming = packet;
        if packet.is_some() {
            core.interface.poll_ingress_single(now, &mut device, &mut core.sockets);
        } else {
            core.interface.poll_egress(now, &mut device, &mut core.sockets);
        }
        let sent = device.sent;
        core.acks.append(&mut device.acks);
        let socket = core.sockets.get::<Socket<'static>>(core.handle);
        if let Some(ack) = sent.ack {
            let room = socket.recv_capacity().saturating_sub(socket.recv_queue());
            let edge = ack.wrapping_add(u32::try_from(room).unwrap_or(0));
            core.edge = sent.is_syn.then_some(edge);
        }
        core.first = core.first.or(sent.seq);
        core.told = Told::later(core.told, sent.told);
    }

    /// Sends what there is to be sent, tells whoever waits, and sees to the next moment.
    pub(in crate::net) fn answer(self: &Arc<Self>) {
        self.is_touched.store(false, Ordering::SeqCst);
        let now_ns = self.stack.now_ns();
        let news = self.with_core(|core| {
            self.send_pending(core, now_ns);
            let mut news = self.news(core);
            news.events |= Events::READABLE;
            self.schedule(core, now_ns);
            news
        });
        self.tell(news);
    }

    /// Does what is due now.
    pub(super) fn tick(self: &Arc<Self>) {
        self.scheduled_ns.store(NEVER, Ordering::SeqCst);
        let now_ns = self.stack.now_ns();
        let news = self.with_core(|core| {
            if !core.is_over && !core.is_awaiting() && core.is_up && !self.is_kept_alive() {
                // Nothing is expected of the peer.
                core.heard_ns = now_ns;
            }
            let is_stalled = core.is_awaiting() && now_ns >= self.stalls_at_ns(core);
            if now_ns >= core.limit_ns || is_stalled {
                let error = (!core.is_orphan).then_some(Errno::ETIMEDOUT);
                core.abort(error);
            }
            self.keep_alive(core, now_ns);
            core.be_patient(now_ns);
            self.send_pending(core, now_ns);
            let news = self.news(core);
            self.schedule(core, now_ns);
            news
        });
        self.tell(news);
    }

    /// Returns whether all that was sent has been acknowledged, its end included, or never will be.
    pub(in crate::net) fn has_arrived(&self) -> bool {
        let core = self.core.lock();
        core.is_over || matches!(core.state(), State::FinWait2 | State::TimeWait | State::Closed)
    }

    fn send_pending(&self, core: &mut Core, now_ns: u64) {
        if core.is_over {
            return;
        }
        // At the end of its time smoltcp would throw away what has not been read.
        if core.state() == State::TimeWait && core.n_readable() > 0 {
            return;
        }
        self.poll(core, None, now_ns);
    }

    /// Finds out what has changed.
    fn news(&self, core: &mut Core) -> News {
        let mut news = News::default();
        if core.is_over {
            return news;
        }
        let state = core.state();
        let is_open =
            !matches!(state, State::Listen | State::SynSent | State::SynReceived | State::Closed);
        if is_open && !core.is_up {
            core.is_up = true;
            core.limit_ns = NEVER;
            news.is_up = true;
            news.events = Events::all();
        }
        if core.has_fin || state == State::Closed {
            news.events = Events::all();
        }
        if core.is_blocked && core.has_room() {
            core.is_blocked = false;
            news.events |= Events::WRITABLE;
        }
        if core.is_orphan && state == State::FinWait2 && core.limit_ns == NEVER {
            core.limit_ns = self.stack.now_ns().saturating_add(ORPHAN_NS);
        }
        if state == State::Closed {
            core.is_over = true;
            core.is_send_shut = true;
            core.is_receive_shut = true;
            news.is_over = true;
            if !core.is_up {
                news.failed = Some(core.error.unwrap_or(Errno::ETIMEDOUT));
            }
        }
        news
    }

    fn schedule(self: &Arc<Self>, core: &mut Core, now_ns: u64) {
        /// The least time between two looks, whatever smoltcp says.
        const LEAST_NS: u64 = 1_000_000;
        if core.is_over {
            return;
        }
        let now = instant(now_ns);
        let keeps_unread = core.state() == State::TimeWait && core.n_readable() > 0;
        let next = core.interface.poll_at(now, &core.sockets).filter(|_| !keeps_unread);
        let next_ns = next.map_or(NEVER, |next| {
            u64::try_from(next.total_micros()).unwrap_or(0).saturating_mul(1000)
        });
        let stalls_ns = if core.is_awaiting() { self.stalls_at_ns(core) } else { NEVER };
        let next_ns = next_ns.min(stalls_ns).min(self.probes_at_ns(core)).min(core.held.until_ns());
        let next_ns = next_ns.max(now_ns.saturating_add(LEAST_NS)).min(core.limit_ns);
        if next_ns == NEVER || next_ns >= self.scheduled_ns.load(Ordering::SeqCst) {
            return;
        }
        self.scheduled_ns.store(next_ns, Ordering::SeqCst);
        if self.stack.timers.add(next_ns, self) {
            self.stack.wake();
        }
    }

    /// Tells whoever waits for what has changed.
    fn tell(self: &Arc<Self>, news: News) {
        if news.is_over {
            self.stack.leave(self);
        }
        if news.is_up {
            let embryo = self.embryo.lock().take();
            match embryo {
                Some(Embryo { listener, server }) => match listener.upgrade() {
                    Some(listener) => listener.admit_link(server, self),
                    None => {
                        self.close(true);
                    }
                },
                None => {
                    if let Some(owner) = self.owner.upgrade() {
                        owner.link_is_up(self);
                    }
                }
            }
        }
        if let Some(errno) = news.failed {
            let embryo = self.embryo.lock().take();
            if let Some(listener) = embryo.and_then(|embryo| embryo.listener.upgrade()) {
                listener.lose_embryo();
            } else if let Some(owner) = self.owner.upgrade() {
                owner.link_has_failed(self, errno);
            }
        }
        if !news.events.is_empty() {
            self.queue.notify(news.events);
        }
    }

    /// Tells the owner again how the attempt has gone, where it has.
    pub(in crate::net) fn report(self: &Arc<Self>) {
        let (is_up, failed) = {
            let core = self.core.lock();
            let failed =
                (core.is_over && !core.is_up).then_some(core.error.unwrap_or(Errno::ETIMEDOUT));
            (core.is_up, failed)
        };
        if let Some(owner) = self.owner.upgrade() {
            match failed {
                Some(errno) => owner.link_has_failed(self, errno),
                None if is_up => owner.link_is_up(self),
                None => {}
            }
        }
    }

    /// Is told that a packet of this connection has not arrived.
    pub(super) fn hear(self: &Arc<Self>, errno: Errno, seq: u32) {
        let news = {
            let mut core = self.core.lock();
            // Only an attempt ends by this; a connection may find another way.
            if core.is_up || core.is_over || core.first != Some(seq) {
                return;
            }
            core.error = Some(errno);
            core.socket().close();
            self.news(&mut core)
        };
        self.tell(news);
    }

    /// Returns whether the connection is over but for its memory.
    pub(super) fn is_over(&self) -> bool {
        let core = self.core.lock();
        core.is_over || core.is_closed()
    }

    /// Makes room for a new connection between the two ends.
    pub(super) fn forget(self: &Arc<Self>) {
        self.stack.leave(self);
    }

    /// Receives what is there.
    ///
    /// # Errors
    /// `EAGAIN`, `EINVAL` for urgent data, the error of the connection.
    pub(in crate::net) fn recv(
        self: &Arc<Self>,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<usize> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EINVAL);
        }
        let now_ns = self.stack.now_ns();
        self.with_core(|core| self.recv_locked(core, dst, flags, now_ns))
    }

    fn recv_locked(
        self: &Arc<Self>,
        core: &mut Core,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
        now_ns: u64,
    ) -> SysResult<usize> {
        let n_readable = core.n_readable();
        if n_readable == 0 {
            if core.has_fin {
                return Ok(0);
            }
            if let Some(error) = core.error.take() {
                return Err(error);
            }
            return if core.is_receive_shut { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let wanted = dst.remaining().min(n_readable);
        if flags.contains(MsgFlags::PEEK) {
            let mut data = vec![0; wanted];
            let n = core.socket().peek_slice(&mut data).unwrap_or(0);
            return dst.put(data.get(..n).unwrap_or_default());
        }
        let mut n = 0;
        while n < wanted {
            let got = core.socket().recv(|data| {
                let data = data.get(..data.len().min(wanted - n)).unwrap_or_default();
                if flags.contains(MsgFlags::TRUNC) {
                    return (data.len(), Ok(data.len()));
                }
                let put = dst.put(data);
                (put.unwrap_or(0), put)
            });
            match got.unwrap_or(Ok(0)) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(error) if n == 0 => return Err(error),
                Err(_) => break,
            }
        }
        // The peer may be waiting for room.
        self.send_pending(core, now_ns);
        self.schedule(core, now_ns);
        Ok(n)
    }

    /// Implements `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN` where the connection is over.
    pub(in crate::net) fn shutdown(self: &Arc<Self>, receive: bool, send: bool) -> SysResult<()> {
        let result = {
            let mut core = self.core.lock();
            if core.is_closed() {
                Err(Errno::ENOTCONN)
            } else {
                core.is_receive_shut |= receive;
                if send && !core.is_send_shut {
                    core.is_send_shut = true;
                    core.end(self.stack.now_ns());
                }
                Ok(())
            }
        };
        self.answer();
        self.queue.notify(Events::all());
        result
    }

    /// Gives the connection up: the stream ends, or is cut where `resets` is set or something has not
    /// been read. Returns whether TCP remembers the connection for a while.
    pub(in crate::net) fn close(self: &Arc<Self>, resets: bool) -> bool {
        let lingers = {
            let mut core = self.core.lock();
            let is_first = !core.has_fin;
            core.is_orphan = true;
            if core.is_over {
                false
            } else if resets || core.n_readable() > 0 || !core.is_up {
                core.abort(None);
                false
            } else {
                core.end(self.stack.now_ns());
                is_first
            }
        };
        self.answer();
        lingers
    }

    /// Returns and clears the pending error.
    pub(in crate::net) fn take_error(&self) -> Option<Errno> {
        self.core.lock().error.take()
    }

    /// Returns what the connection looks like. `waits`: the caller wants to be told of room.
    pub(in crate::net) fn look(&self, waits: bool) -> View {
        let mut core = self.core.lock();
        let is_send_shut = core.is_send_shut || core.is_over;
        let is_writable = is_send_shut || core.has_room();
        if !is_writable && waits {
            core.is_blocked = true;
        }
        View {
            state: core.state(),
            n_readable: core.n_readable(),
            n_unsent: core.n_unsent() + core.held.len(),
            is_receive_shut: core.is_receive_shut || core.has_fin,
            is_send_shut,
            has_error: core.error.is_some(),
            is_writable,
            mss: self.mss(&core),
        }
    }
}
