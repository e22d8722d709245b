//! Netlink sockets (`netlink(7)`): requests to the kernel and its answers.
//!
//! [`route`] answers questions about interfaces, addresses and routes, [`diag`] about sockets. Sockets of
//! `NETLINK_KOBJECT_UEVENT` hear only each other ([`uevent`]). Other protocols are not built in.
//!
//! The lock of a socket is a leaf.

mod change;
mod diag;
mod message;
mod nics;
mod notify;
mod route;
mod uevent;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::capability::CAP_NET_ADMIN;
use syscalls::abi::netlink::{
    NETLINK_ADD_MEMBERSHIP, NETLINK_BROADCAST_ERROR, NETLINK_CAP_ACK, NETLINK_DROP_MEMBERSHIP,
    NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK, NETLINK_KOBJECT_UEVENT, NETLINK_LIST_MEMBERSHIPS,
    NETLINK_LISTEN_ALL_NSID, NETLINK_NO_ENOBUFS, NETLINK_PKTINFO, NETLINK_ROUTE, NETLINK_SOCK_DIAG,
};
use syscalls::abi::socket::{
    AF_NETLINK, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOL_NETLINK, SOL_SOCKET, SockaddrNl,
};
use syscalls::{Errno, SysResult};
use zerocopy::{FromBytes, IntoBytes};

use super::control::{Control, Sender};
use super::inet::{Inet, interface};
use super::options::{DEFAULT_BUFFER, Options};
use super::{Ancillary, Incoming, Outgoing, Shutdown, Socket};
use crate::kernel::Kernel;
use crate::sync::{Events, Mutex, Registration, WaitQueue, Waiter};
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::{IoSink, IoSource};

pub(crate) use notify::announcing;
pub use route::Snapshot;

/// What a message counts for besides its bytes.
const OVERHEAD: usize = 64;

/// The most groups of a protocol.
const MAX_GROUPS: u32 = 1024;

/// The sockets of a sandbox.
#[derive(Default)]
pub struct Registry {
    /// The numbers by which those of each protocol are known.
    ports: Mutex<BTreeSet<(i32, u32)>>,
    /// Those that hear each other.
    hearers: Mutex<Vec<Weak<NetlinkSocket>>>,
}

/// A message that waits to be received.
struct Received {
    data: Vec<u8>,
    /// The number of who has sent it, and the groups that it was sent to.
    from: (u32, u32),
    /// None is the kernel.
    sender: Option<Sender>,
}

impl From<Vec<u8>> for Received {
    fn from(data: Vec<u8>) -> Self {
        Self { data, from: (0, 0), sender: None }
    }
}

#[derive(Default)]
struct State {
    /// The number by which the kernel knows the socket; zero for one that is not bound.
    port: u32,
    groups: BTreeSet<u32>,
    /// Answers that have not been received.
    queue: VecDeque<Received>,
    n_bytes: usize,
    /// Whether an answer was lost.
    has_overflowed: bool,
    /// Options that are on.
    switches: BTreeSet<i32>,
    is_connected: bool,
}

/// A netlink socket.
pub struct NetlinkSocket {
    kernel: Arc<Kernel>,
    inet: Arc<Inet>,
    kind: i32,
    protocol: i32,
    options: Options,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// Creates a netlink socket.
///
/// # Errors
/// `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`.
pub fn create(task: &CurrentTask, kind: i32, protocol: i32) -> SysResult<Arc<dyn Socket>> {
    if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if !matches!(protocol, NETLINK_ROUTE | NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let socket = Arc::new(NetlinkSocket {
        kernel: task.kernel.clone(),
        inet: task.inet(),
        kind,
        protocol,
        options: Options::with_buffers(DEFAULT_BUFFER, DEFAULT_BUFFER),
        state: Mutex::new(State::default()),
        queue: WaitQueue::new(),
    });
    socket.hear();
    Ok(socket)
}

/// Reads an address.
fn parse(addr: &[u8]) -> SysResult<SockaddrNl> {
    let (addr, _) = SockaddrNl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
    if i32::from(addr.nl_family) != AF_NETLINK { Err(Errno::EINVAL) } else { Ok(addr) }
}

fn encode(port: u32, groups: u32) -> Vec<u8> {
    let nl_family = u16::try_from(AF_NETLINK).unwrap_or(0);
    SockaddrNl { nl_family, nl_pad: 0, nl_pid: port, nl_groups: groups }.as_bytes().to_vec()
}

impl NetlinkSocket {
    fn registry(&self) -> &Registry {
        &self.kernel.netlink
    }

    /// Gives the socket a number: that of its process, or one that no process has.
    fn autobind(&self, task: &CurrentTask) {
        static NEXT: AtomicU32 = AtomicU32::new(0xffff_f000);
        let mut state = self.state.lock();
        if state.port != 0 {
            return;
        }
        let mut ports = self.registry().ports.lock();
        let mut port = task.group.pid_in(&task.pid_namespace());
        while port == 0 || !ports.insert((self.protocol, port)) {
            port = NEXT.fetch_sub(1, Ordering::Relaxed);
        }
        state.port = port;
    }

    /// Adds an answer; loses it where there is no room.
    fn answer(&self, state: &mut State, answer: Received) {
        let limit = usize::try_from(self.options.receive_buffer.load(Ordering::Relaxed));
        if state.n_bytes > limit.unwrap_or(0) {
            state.has_overflowed = true;
            return;
        }
        state.n_bytes += answer.data.len() + OVERHEAD;
        state.queue.push_back(answer);
    }

    fn change_group(&self, group: u32, joins: bool) -> SysResult<()> {
        if group == 0 || group > MAX_GROUPS {
            return Err(Errno::EINVAL);
        }
        let groups = &mut self.state.lock().groups;
        if joins {
            groups.insert(group);
        } else {
            groups.remove(&group);
        }
        Ok(())
    }
}

/// Returns the groups up to the 32nd as a mask.
fn mask(groups: &BTreeSet<u32>) -> u32 {
    groups.iter().filter(|group| **group <= 32).fold(0, |mask, group| mask | 1 << (group - 1))
}

impl Socket for NetlinkSocket {
    fn options(&self) -> &Options {
        &self.options
    }

    fn identity(&self) -> (i32, i32, i32) {
        (AF_NETLINK, self.kind, self.protocol)
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn bind(&self, task: &CurrentTask, addr: &[u8]) -> SysResult<()> {
        let addr = parse(addr)?;
        {
            let mut state = self.state.lock();
            if state.port != 0 && addr.nl_pid != state.port {
                return Err(Errno::EINVAL);
            }
            if state.port == 0 && addr.nl_pid != 0 {
                if !self.registry().ports.lock().insert((self.protocol, addr.nl_pid)) {
                    return Err(Errno::EADDRINUSE);
                }
                state.port = addr.nl_pid;
            }
            state.groups.retain(|group| *group > 32);
            state
                .groups
                .extend((0..32).filter(|bit| addr.nl_groups >> bit & 1 != 0).map(|bit| bit + 1));
        }
        self.autobind(task);
        Ok(())
    }

    fn listen(&self, _task: &CurrentTask, _backlog: i32) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self, _task: &CurrentTask) -> SysResult<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn connect(&self, task: &CurrentTask, addr: &[u8], _may_wait: bool) -> SysResult<()> {
        if super::family_of(addr)? == 0 {
            self.state.lock().is_connected = false;
            return Ok(());
        }
        let addr = parse(addr)?;
        if (addr.nl_pid != 0 || addr.nl_groups != 0) && !task.is_net_capable(CAP_NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        if addr.nl_pid != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        self.autobind(task);
        self.state.lock().is_connected = true;
        Ok(())
    }

    fn shutdown(&self, _how: Shutdown) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_addr(&self) -> Vec<u8> {
        let state = self.state.lock();
        encode(state.port, mask(&state.groups))
    }

    fn peer_addr(&self) -> SysResult<Vec<u8>> {
        // The kernel is everybody's peer.
        Ok(encode(0, 0))
    }

    fn send(
        &self,
        task: &CurrentTask,
        src: &mut dyn IoSource,
        message: &Outgoing,
    ) -> SysResult<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut hearers = None;
        if let Some(addr) = &message.addr {
            let addr = parse(addr)?;
            if addr.nl_groups != 0 || addr.nl_pid != 0 {
                if !task.is_net_capable(CAP_NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                if self.protocol != NETLINK_KOBJECT_UEVENT {
                    return Err(Errno::ECONNREFUSED);
                }
                hearers = Some(addr);
            }
        }
        self.autobind(task);
        let total = src.remaining();
        let limit = usize::try_from(self.options.send_buffer.load(Ordering::Relaxed)).unwrap_or(0);
        if total > limit.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let mut data = vec![0; total];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match src.get(rest)? {
                0 => return Err(Errno::EFAULT),
                n => done += n,
            }
        }
        if let Some(hearers) = hearers {
            self.tell(task, &data, &hearers)?;
        }
        if self.protocol != NETLINK_KOBJECT_UEVENT {
            let host = self.kernel.host_network.as_ref().filter(|_| !self.inet.is_isolated());
            let host = host.map(|network| &network.routes);
            let is_admin = task.is_net_capable(CAP_NET_ADMIN);
            let (port, is_capped) = {
                let state = self.state.lock();
                (state.port, state.switches.contains(&NETLINK_CAP_ACK))
            };
            let serve = || {
                message::serve(&data, port, is_capped, |request| {
                    if self.protocol == NETLINK_SOCK_DIAG {
                        return diag::serve(&self.kernel, &self.inet, request);
                    }
                    route::serve(request, is_admin, host, &self.inet)
                })
            };
            // What changes is told before the answer.
            let answers = announcing(&self.kernel, &self.inet, serve);
            {
                let mut state = self.state.lock();
                for answer in answers {
                    self.answer(&mut state, answer.into());
                }
            }
            self.queue.notify(Events::READABLE);
        }
        Ok(total)
    }

    fn recv(
        &self,
        task: &CurrentTask,
        dst: &mut dyn IoSink,
        flags: MsgFlags,
    ) -> SysResult<Incoming> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if std::mem::take(&mut state.has_overflowed)
            && !state.switches.contains(&NETLINK_NO_ENOBUFS)
        {
            return Err(Errno::ENOBUFS);
        }
        let answer = state.queue.front().ok_or(Errno::EAGAIN)?;
        let full = answer.data.len();
        let n = full.min(dst.remaining());
        if n > 0 && dst.put(answer.data.get(..n).unwrap_or_default())? < n {
            return Err(Errno::EFAULT);
        }
        let (port, groups) = answer.from;
        let sender = answer.sender.clone().unwrap_or_else(|| Sender::with(task, 0, 0, 0));
        if !flags.contains(MsgFlags::PEEK) {
            state.queue.pop_front();
            state.n_bytes -= full + OVERHEAD;
        }
        let ancillary = if state.switches.contains(&NETLINK_PKTINFO) {
            let group = if groups == 0 { 0 } else { groups.trailing_zeros() + 1 };
            let data = group.to_ne_bytes().to_vec();
            vec![Ancillary { level: SOL_NETLINK, kind: NETLINK_PKTINFO, data }]
        } else {
            Vec::new()
        };
        let control = Control { sender: Some(sender), ..Control::default() };
        Ok(Incoming {
            n,
            full,
            addr: encode(port, groups),
            control,
            ancillary,
            ..Incoming::default()
        })
    }

    fn take_error(&self) -> Option<Errno> {
        std::mem::take(&mut self.state.lock().has_overflowed).then_some(Errno::ENOBUFS)
    }

    fn option(&self, _task: &CurrentTask, level: i32, name: i32) -> SysResult<Vec<u8>> {
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let state = self.state.lock();
        match name {
            NETLINK_LIST_MEMBERSHIPS => Ok(mask(&state.groups).to_ne_bytes().to_vec()),
            NETLINK_PKTINFO
            | NETLINK_BROADCAST_ERROR
            | NETLINK_NO_ENOBUFS
            | NETLINK_CAP_ACK
            | NETLINK_EXT_ACK
            | NETLINK_GET_STRICT_CHK => {
                Ok(i32::from(state.switches.contains(&name)).to_ne_bytes().to_vec())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
        if level == SOL_SOCKET {
            return Err(Errno::ENOPROTOOPT);
        }
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        let value = value.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        match name {
            NETLINK_ADD_MEMBERSHIP => {
                self.change_group(value, true)?;
                self.autobind(task);
                Ok(())
            }
            NETLINK_DROP_MEMBERSHIP => self.change_group(value, false),
            NETLINK_LISTEN_ALL_NSID => Ok(()),
            NETLINK_PKTINFO
            | NETLINK_BROADCAST_ERROR
            | NETLINK_NO_ENOBUFS
            | NETLINK_CAP_ACK
            | NETLINK_EXT_ACK
            | NETLINK_GET_STRICT_CHK => {
                let switches = &mut self.state.lock().switches;
                if value == 0 {
                    switches.remove(&name);
                } else {
                    switches.insert(name);
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn ioctl(&self, task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
        interface::ioctl(task, request, arg)
    }

    fn n_pending(&self) -> (usize, usize) {
        (self.state.lock().queue.front().map_or(0, |answer| answer.data.len()), 0)
    }

    fn poll(&self) -> Events {
        let state = self.state.lock();
        let mut ready = Events::WRITABLE | Events::WRBAND;
        if !state.queue.is_empty() {
            ready |= Events::READABLE;
        }
        if state.has_overflowed {
            ready |= Events::ERR;
        }
        ready
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.queue.register(waiter, mask, key)]
    }

    fn deliver(&self, message: &[u8]) {
        self.answer(&mut self.state.lock(), message.to_vec().into());
        self.queue.notify(Events::READABLE);
    }

    fn close(&self) {
        let port = std::mem::take(&mut self.state.lock().port);
        self.registry().ports.lock().remove(&(self.protocol, port));
    }
}
