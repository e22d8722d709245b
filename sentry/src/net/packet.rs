//! Packet sockets (`packet(7)`): the frames of the interfaces, as they come and go.
//!
//! Frames of the loopback interface are made for who looks at them: see [`inet::local`].
//!
//! DEVIATION: an interface receives what is for it, whatever `PACKET_MR_PROMISC` asks for.
//!
//! Locks: the table of the sockets ([`Taps`]) and the state of a socket are leaves.
//!
//! [`inet::local`]: crate::net::inet

mod options;
pub(crate) mod ring;
mod taps;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::abi::capability::CAP_NET_RAW;
use syscalls::abi::socket::{
    AF_PACKET, MsgFlags, PACKET_AUXDATA, SOCK_DGRAM, SOCK_RAW, SOL_PACKET, SockaddrLl,
    TpacketAuxdata,
};
use syscalls::{Errno, SysResult};
use zerocopy::{FromBytes, IntoBytes};

use self::options::Settings;
use self::ring::{Captured, Ring};
pub(in crate::net) use self::taps::{Direction, Taps, Wire};
use super::filter::Seen;
use super::inet::{Inet, interface};
use super::options::{DEFAULT_BUFFER, Options};
use super::stack::wire::ETHERTYPE_IPV6;
use super::{Ancillary, Incoming, Outgoing, Shutdown, Socket, read_all};
use crate::kernel::Kernel;
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::file::Mappable;
use crate::vfs::{IoSink, IoSource};

/// The size of the header of Ethernet.
const ETH_HLEN: usize = 14;

/// Every protocol (`ETH_P_ALL`).
const ETH_P_ALL: u16 = 3;

/// What a frame counts for besides its bytes.
const OVERHEAD: usize = 512;

/// `TP_STATUS_*`
const STATUS_USER: u32 = 1;
const STATUS_LOSING: u32 = 4;
const STATUS_CHECKSUM_NOT_READY: u32 = 8;

/// A frame that waits.
struct Frame {
    data: Vec<u8>,
    /// How long it was before the filter.
    len: usize,
    /// Where in `data` the packet begins.
    network_at: usize,
    addr: SockaddrLl,
    is_summed: bool,
    time_ns: i64,
}

#[derive(Default)]
struct State {
    /// The number of what is in the frames that are wanted; zero for none.
    protocol: u16,
    /// The number of the interface, zero for any.
    interface: i32,
    settings: Settings,
    inbox: VecDeque<Frame>,
    /// Where frames go instead of the inbox.
    ring: Option<Ring>,
    n_bytes: usize,
    /// Frames that were taken, and frames for which there was no room, since they were asked for.
    n_taken: u32,
    n_dropped: u32,
    is_losing: bool,
    error: Option<Errno>,
}

/// A packet socket.
pub(in crate::net) struct PacketSocket {
    kernel: Arc<Kernel>,
    inet: Arc<Inet>,
    /// Whether frames have no header.
    is_cooked: bool,
    options: Options,
    uid: u32,
    ino: AtomicU64,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// A line of `/proc/net/packet`.
#[derive(Clone, Copy, Debug)]
pub struct PacketEntry {
    /// The type of the socket.
    pub kind: i32,
    /// The number of what it receives, and over which interface.
    pub protocol: u16,
    pub interface: i32,
    /// Bytes that wait to be read.
    pub n_bytes: usize,
    /// The owner.
    pub uid: u32,
    /// The inode number of the socket's file.
    pub ino: u64,
}

/// Creates a packet socket.
///
/// # Errors
/// `EPERM`, `ESOCKTNOSUPPORT`.
pub fn create(task: &CurrentTask, kind: i32, protocol: i32) -> SysResult<Arc<dyn Socket>> {
    if !task.is_net_capable(CAP_NET_RAW) {
        return Err(Errno::EPERM);
    }
    if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    let [a, b, ..] = protocol.to_ne_bytes();
    let state = State { protocol: u16::from_be_bytes([a, b]), ..State::default() };
    let socket = Arc::new(PacketSocket {
        kernel: task.kernel.clone(),
        inet: task.inet(),
        is_cooked: kind == SOCK_DGRAM,
        options: Options::with_buffers(DEFAULT_BUFFER, DEFAULT_BUFFER),
        uid: task.creds().fsuid,
        ino: AtomicU64::new(0),
        state: Mutex::new(state),
        queue: WaitQueue::new(),
    });
    socket.inet.taps().add(&socket);
    Ok(socket)
}

impl Captured<'_> {
    fn to_frame(&self) -> Frame {
        Frame {
            data: self.data.to_vec(),
            len: self.len,
            network_at: self.network_at,
            addr: self.addr,
            is_summed: self.is_summed,
            time_ns: self.time_ns,
        }
    }
}

/// Returns a frame of Ethernet.
pub(in crate::net) fn frame_of(to: [u8; 6], from: [u8; 6], ethertype: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), body].concat()
}

/// Returns the number of what is in a frame.
fn ethertype_of(frame: &[u8]) -> u16 {
    let bytes = frame.get(12..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

impl PacketSocket {
    fn entry(&self) -> PacketEntry {
        let state = self.state.lock();
        PacketEntry {
            kind: if self.is_cooked { SOCK_DGRAM } else { SOCK_RAW },
            protocol: state.protocol,
            interface: state.interface,
            n_bytes: state.n_bytes,
            uid: self.uid,
            ino: self.ino.load(Ordering::Relaxed),
        }
    }

    /// Takes a frame in, where it is one for this socket.
    fn take(&self, wire: Wire, frame: &[u8], direction: Direction) {
        let ethertype = ethertype_of(frame);
        let limit = usize::try_from(self.options.receive_buffer.load(Ordering::Relaxed));
        let is_outgoing = direction == Direction::Outgoing;
        {
            let state = self.state.lock();
            let is_wanted = match state.protocol {
                0 => false,
                ETH_P_ALL => !(is_outgoing && state.settings.ignores_outgoing()),
                protocol => protocol == ethertype && !is_outgoing,
            };
            let is_there = state.interface == 0 || state.interface == wire.interface;
            if !is_wanted || !is_there || frame.len() < ETH_HLEN {
                return;
            }
        }
        let start = if self.is_cooked { ETH_HLEN } else { 0 };
        let data = frame.get(start..).unwrap_or_default();
        let seen = Seen {
            data,
            link: frame,
            network_at: ETH_HLEN,
            ethertype,
            kind: direction.number(),
            interface: wire.interface,
            hardware: wire.hardware,
        };
        let Some(n) = self.options.filter.admits(&seen, 1) else { return };
        let mut addr = SockaddrLl {
            sll_family: u16::try_from(AF_PACKET).unwrap_or(0),
            sll_protocol: ethertype.to_be_bytes(),
            sll_ifindex: wire.interface,
            sll_hatype: wire.hardware,
            sll_pkttype: direction.number(),
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        if let (Some(to), Some(from)) = (addr.sll_addr.get_mut(..6), frame.get(6..12)) {
            to.copy_from_slice(from);
        }
        let captured = Captured {
            data: data.get(..n).unwrap_or(data),
            len: data.len(),
            network_at: ETH_HLEN - start,
            addr,
            is_summed: wire.is_summed,
            time_ns: self.kernel.clock.realtime_ns(),
        };
        {
            let mut state = self.state.lock();
            if let Some(ring) = &mut state.ring {
                let is_stored = ring.add(&captured);
                let count = if is_stored { &mut state.n_taken } else { &mut state.n_dropped };
                *count = count.saturating_add(1);
                drop(state);
                self.queue.notify(Events::READABLE);
                return;
            }
            let frame = captured.to_frame();
            if state.n_bytes >= limit.unwrap_or(0) {
                state.n_dropped = state.n_dropped.saturating_add(1);
                state.is_losing = true;
                return;
            }
            state.n_taken = state.n_taken.saturating_add(1);
            state.n_bytes += frame.data.len() + OVERHEAD;
            state.inbox.push_back(frame);
        }
        self.queue.notify(Events::READABLE);
    }

    /// Sends a frame over an interface.
    fn transmit(&self, index: i32, frame: &[u8]) -> SysResult<()> {
        let inet = &self.inet;
        let ethertype = ethertype_of(frame);
        if index == super::inet::LOOPBACK_INDEX {
            let hardware = interface::ARPHRD_LOOPBACK;
            let wire = Wire { interface: index, hardware, is_summed: true };
            inet.taps().show(wire, frame, Direction::Outgoing, Some(self));
            inet.taps().show(wire, frame, Direction::Host, None);
            // Of IPv4 an own address is believed to be that of a packet with a known way only.
            let is_ipv6 = ethertype == ETHERTYPE_IPV6;
            if let Some(packet) = frame.get(ETH_HLEN..).filter(|_| is_ipv6) {
                inet.input_bytes(&self.kernel, packet);
            }
            return Ok(());
        }
        let stack = inet.stack().ok_or(Errno::ENXIO)?;
        let nic = stack.nics().iter().find(|nic| nic.config.index == index).ok_or(Errno::ENXIO)?;
        nic.send_frame(frame, self);
        Ok(())
    }

    /// Returns address and largest packet of an interface, and whether it is up.
    fn face(&self, index: i32) -> Option<([u8; 6], usize, bool)> {
        if index == super::inet::LOOPBACK_INDEX {
            let mtu = usize::try_from(self.inet.loopback().limits().0).unwrap_or(0);
            return Some(([0; 6], mtu, self.inet.loopback().is_up()));
        }
        let nics = self.inet.stack()?.nics();
        let nic = nics.iter().find(|nic| nic.config.index == index)?;
        Some((nic.config.mac, usize::try_from(nic.config.mtu).unwrap_or(0), true))
    }

    fn ancillary(&self, frame: &Frame, state: &State) -> Vec<Ancillary> {
        let mut messages = self.options.stamping.messages(frame.time_ns, false);
        let mut add = |level, kind, data: &[u8]| {
            messages.push(Ancillary { level, kind, data: data.to_vec() });
        };
        if state.settings.wants_auxdata() {
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let mut tp_status = STATUS_USER;
            if !frame.is_summed {
                tp_status |= STATUS_CHECKSUM_NOT_READY;
            }
            if state.is_losing {
                tp_status |= STATUS_LOSING;
            }
            let auxdata = TpacketAuxdata {
                tp_status,
                tp_len: number(frame.len),
                tp_snaplen: number(frame.data.len()),
                tp_mac: 0,
                tp_net: u16::try_from(frame.network_at).unwrap_or(0),
                tp_vlan_tci: 0,
                tp_vlan_tpid: 0,
            };
            add(SOL_PACKET, PACKET_AUXDATA, auxdata.as_bytes());
        }
        messages
    }
}

impl Socket for PacketSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        let kind = if self.is_cooked { SOCK_DGRAM } else { SOCK_RAW };
        (AF_PACKET, kind, 0)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn bind(&self, _task: &CurrentTask, given: &[u8]) -> SysResult<()> {
        let (addr, _) = SockaddrLl::read_from_prefix(given).map_err(|_| Errno::EINVAL)?;
        if i32::from(addr.sll_family) != AF_PACKET {
            return Err(Errno::EINVAL);
        }
        let mut error = None;
        if addr.sll_ifindex != 0 {
            let (.., is_up) = self.face(addr.sll_ifindex).ok_or(Errno::ENODEV)?;
            error = (!is_up).then_some(Errno::ENETDOWN);
        }
        {
            let mut state = self.state.lock();
            let protocol = u16::from_be_bytes(addr.sll_protocol);
            if protocol != 0 {
                state.protocol = protocol;
            }
            state.interface = addr.sll_ifindex;
            state.error = error;
        }
        if error.is_some() {
            self.queue.notify(Events::all());
        }
        Ok(())
    }

    fn listen(&self, _task: &CurrentTask, _backlog: i32) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self, _task: &CurrentTask) -> SysResult<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn connect(&self, _task: &CurrentTask, _given: &[u8], _may_wait: bool) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn shutdown(&self, _how: Shutdown) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_addr(&self) -> Vec<u8> {
        let (protocol, interface) = {
            let state = self.state.lock();
            (state.protocol, state.interface)
        };
        let face = self.face(interface);
        let hardware = if interface == super::inet::LOOPBACK_INDEX {
            interface::ARPHRD_LOOPBACK
        } else {
            interface::ARPHRD_ETHER
        };
        let mut addr = SockaddrLl {
            sll_family: u16::try_from(AF_PACKET).unwrap_or(0),
            sll_protocol: protocol.to_be_bytes(),
            sll_ifindex: interface,
            ..SockaddrLl::default()
        };
        let mut len = size_of::<SockaddrLl>() - addr.sll_addr.len();
        if let Some((mac, ..)) = face {
            addr.sll_hatype = hardware;
            addr.sll_halen = 6;
            if let Some(to) = addr.sll_addr.get_mut(..6) {
                to.copy_from_slice(&mac);
            }
            len += 6;
        }
        let mut bytes = addr.as_bytes().to_vec();
        bytes.truncate(len);
        bytes
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn send(
        &self,
        _task: &CurrentTask,
        src: &mut dyn IoSource,
        outgoing: &Outgoing,
    ) -> SysResult<usize> {
        let (mut protocol, mut interface) = {
            let state = self.state.lock();
            (state.protocol, state.interface)
        };
        let mut to = [0; 6];
        if let Some(given) = &outgoing.addr {
            let (addr, _) = SockaddrLl::read_from_prefix(given).map_err(|_| Errno::EINVAL)?;
            let addr_len = usize::from(addr.sll_halen);
            if given.len() < size_of::<SockaddrLl>() - addr.sll_addr.len() + addr_len {
                return Err(Errno::EINVAL);
            }
            protocol = u16::from_be_bytes(addr.sll_protocol);
            interface = addr.sll_ifindex;
            to = addr.sll_addr.first_chunk().copied().unwrap_or_default();
        }
        let (mac, mtu, is_up) = self.face(interface).ok_or(Errno::ENXIO)?;
        if !is_up {
            return Err(Errno::ENETDOWN);
        }
        let total = src.remaining();
        let head = if self.is_cooked { 0 } else { ETH_HLEN };
        // Room for the tag of a virtual network.
        const VLAN_HLEN: usize = 4;
        if total > mtu.saturating_add(head).saturating_add(if head > 0 { VLAN_HLEN } else { 0 }) {
            return Err(Errno::EMSGSIZE);
        }
        if total < head {
            return Err(Errno::EINVAL);
        }
        let mut frame = read_all(src)?;
        if self.is_cooked {
            frame = frame_of(to, mac, protocol, &frame);
        }
        self.transmit(interface, &frame)?;
        Ok(total)
    }

    fn recv(
        &self,
        _task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        let known = MsgFlags::PEEK
            | MsgFlags::DONTWAIT
            | MsgFlags::TRUNC
            | MsgFlags::ERRQUEUE
            | MsgFlags::CMSG_CLOEXEC;
        if !known.contains(flags) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let mut state = self.state.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let frame = state.inbox.front().ok_or(Errno::EAGAIN)?;
        let full = frame.data.len();
        let n = full.min(dst.remaining());
        let stored = match frame.data.get(..n) {
            Some(data) if n > 0 => dst.put(data),
            _ => Ok(0),
        };
        let addr = frame.addr.as_bytes().to_vec();
        let ancillary = self.ancillary(frame, &state);
        let incoming = Incoming { n, full, addr, ancillary, ..Incoming::default() };
        if !flags.contains(MsgFlags::PEEK) {
            state.inbox.pop_front();
            state.n_bytes = state.n_bytes.saturating_sub(full + OVERHEAD);
            state.is_losing = false;
        }
        if stored? < n { Err(Errno::EFAULT) } else { Ok(incoming) }
    }

    fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        if level == SOL_PACKET { self.get_option(name) } else { Err(Errno::ENOPROTOOPT) }
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        let _ = task;
        if level == SOL_PACKET { self.change_option(name, value) } else { Err(Errno::ENOPROTOOPT) }
    }

    fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        self.state.lock().ring.as_ref().map(Ring::mappable).ok_or(Errno::EINVAL)
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        interface::ioctl(task, request, arg)
    }

    fn set_ino(&self, ino: u64) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn n_pending(&self) -> (usize, usize) {
        (self.state.lock().inbox.front().map_or(0, |first| first.data.len()), 0)
    }

    fn poll(&self) -> Events {
        let mut state = self.state.lock();
        let mut ready = Events::WRITABLE | Events::WRBAND;
        let is_filled = state.ring.as_mut().is_some_and(Ring::is_readable);
        if is_filled || !state.inbox.is_empty() {
            ready |= Events::READABLE;
        }
        if state.error.is_some() {
            ready |= Events::ERR;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn close(&self) {
        self.inet.taps().remove(self);
        let unread = std::mem::take(&mut *self.state.lock());
        drop(unread);
        self.queue.notify(Events::all());
    }
}
