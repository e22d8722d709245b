//! Options of sockets.

use std::sync::atomic::Ordering;

use syscalls::abi::capability::CAP_NET_ADMIN;
use syscalls::abi::socket::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, Linger, PACKET_HDRLEN, SO_ACCEPTCONN,
    SO_ATTACH_FILTER, SO_BINDTODEVICE, SO_BPF_EXTENSIONS, SO_BSDCOMPAT, SO_BUF_LOCK, SO_BUSY_POLL,
    SO_CNX_ADVICE, SO_COOKIE, SO_DETACH_FILTER, SO_DOMAIN, SO_ERROR, SO_INCOMING_NAPI_ID,
    SO_KEEPALIVE, SO_LINGER, SO_LOCK_FILTER, SO_MARK, SO_MAX_PACING_RATE, SO_MEMINFO,
    SO_NETNS_COOKIE, SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC, SO_PEEK_OFF, SO_PEERNAME, SO_PEERPIDFD,
    SO_PRIORITY, SO_PROTOCOL, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVLOWAT, SO_RCVTIMEO, SO_RCVTIMEO_NEW,
    SO_REUSEPORT, SO_SNDBUF, SO_SNDBUFFORCE, SO_SNDLOWAT, SO_SNDTIMEO, SO_SNDTIMEO_NEW,
    SO_TXREHASH, SO_TYPE, SOCK_RAW, SOL_PACKET, SOL_SOCKET,
};
use syscalls::abi::time::Timeval;
use syscalls::arg::Fd;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::IntoBytes;

use super::socket::lookup;
use crate::net::packet::ring;
use crate::net::{Socket, timestamp};
use crate::task::{CurrentTask, HandlerResult};

/// Implements `getsockopt(2)`.
///
/// <https://man7.org/linux/man-pages/man2/getsockopt.2.html>
pub(super) fn sys_getsockopt(
    task: &CurrentTask,
    sockfd: Fd,
    level: i32,
    optname: i32,
    optval: UserAddr,
    optlen: UserPtr<i32>,
) -> HandlerResult<()> {
    let opened = lookup(task, sockfd)?;
    let room = usize::try_from(task.read_obj(optlen)?).map_err(|_| Errno::EINVAL)?;
    if level == SOL_SOCKET && optname == SO_ATTACH_FILTER && !opened.socket.passes_options() {
        return get_filter(task, opened.socket.as_ref(), optval, optlen, room);
    }
    if level == SOL_PACKET && optname == PACKET_HDRLEN && opened.socket.identity().0 == AF_PACKET {
        // The one option whose value is a question as well.
        if room < size_of::<i32>() {
            return Err(Errno::EINVAL.into());
        }
        let version = task.read_obj(UserPtr::<i32>::new(optval))?;
        let len = ring::header_len(version).ok_or(Errno::EINVAL)?;
        task.write_obj(UserPtr::new(optval), &i32::try_from(len).unwrap_or(0))?;
        return Ok(task.write_obj(optlen, &4)?);
    }
    let mut value = get(task, opened.socket.as_ref(), level, optname)?;
    if level == SOL_SOCKET && !opened.socket.passes_options() {
        match optname {
            SO_COOKIE | SO_NETNS_COOKIE if room < value.len() => return Err(Errno::EINVAL.into()),
            // The one that is not to be asked for more than there is.
            SO_PEERNAME if room > value.len() => return Err(Errno::EINVAL.into()),
            SO_MAX_PACING_RATE if room < value.len() => {
                let rate = opened.socket.options().pacing_rate.load(Ordering::Relaxed);
                value = u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
            }
            _ => {}
        }
    }
    let value = value.get(..room).unwrap_or(&value);
    task.write_bytes(optval, value)?;
    Ok(task.write_obj(optlen, &i32::try_from(value.len()).unwrap_or(0))?)
}

/// Implements `SO_GET_FILTER`, whose length counts instructions.
fn get_filter(
    task: &CurrentTask,
    socket: &dyn Socket,
    optval: UserAddr,
    optlen: UserPtr<i32>,
    room: usize,
) -> HandlerResult<()> {
    let instructions = socket.options().filter.instructions();
    if room > 0 && !instructions.is_empty() {
        if room < instructions.len() {
            return Err(Errno::EINVAL.into());
        }
        task.write_bytes(optval, instructions.as_slice().as_bytes())?;
    }
    Ok(task.write_obj(optlen, &i32::try_from(instructions.len()).unwrap_or(0))?)
}

fn get(task: &CurrentTask, socket: &dyn Socket, level: i32, name: i32) -> SysResult<Vec<u8>> {
    if level != SOL_SOCKET || (socket.passes_options() && !is_ours(name)) {
        return socket.option(task, level, name);
    }
    let options = socket.options();
    let (domain, kind, protocol) = socket.identity();
    let number = |value: i32| Ok(value.to_ne_bytes().to_vec());
    let timeout = |ns: u64| {
        let time = Timeval::from_ns(i64::try_from(ns).unwrap_or(i64::MAX));
        Ok(time.as_bytes().to_vec())
    };
    match name {
        SO_TYPE => number(kind),
        SO_DOMAIN => number(domain),
        SO_PROTOCOL => number(protocol),
        SO_ERROR => number(socket.take_error().map_or(0, Errno::raw)),
        SO_ACCEPTCONN => number(socket.is_listening().into()),
        SO_SNDBUF => number(options.send_buffer.load(Ordering::Relaxed).cast_signed()),
        SO_RCVBUF => number(options.receive_buffer.load(Ordering::Relaxed).cast_signed()),
        SO_LOCK_FILTER => number(options.filter.is_locked().into()),
        SO_PEEK_OFF if !has_peek_offset(socket) => Err(Errno::EOPNOTSUPP),
        SO_PEEK_OFF => number(options.peek_offset.load(Ordering::Relaxed)),
        SO_BPF_EXTENSIONS => number(64),
        SO_PEERPIDFD if domain != AF_UNIX => Err(Errno::ENODATA),
        SO_RCVLOWAT => number(options.receive_low_water.load(Ordering::Relaxed)),
        SO_SNDLOWAT => number(1),
        SO_PRIORITY => number(options.priority.load(Ordering::Relaxed)),
        SO_PASSCRED | SO_PASSPIDFD | SO_PASSSEC if !passes_more(socket, name) => {
            Err(Errno::EOPNOTSUPP)
        }
        SO_PASSCRED => number(options.passes_credentials().into()),
        SO_PASSPIDFD => number(options.passes_pidfd().into()),
        SO_BSDCOMPAT | SO_INCOMING_NAPI_ID => number(0),
        SO_COOKIE => Ok(options.cookie().to_ne_bytes().to_vec()),
        SO_PEERNAME => socket.peer_addr().map_err(|_| Errno::ENOTCONN),
        SO_MAX_PACING_RATE => {
            Ok(options.pacing_rate.load(Ordering::Relaxed).to_ne_bytes().to_vec())
        }
        SO_MEMINFO => Ok(memory_info(socket)),
        SO_LINGER => {
            let (l_onoff, l_linger) = *options.linger.lock();
            Ok(Linger { l_onoff, l_linger }.as_bytes().to_vec())
        }
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => {
            timeout(options.receive_timeout_ns.load(Ordering::Relaxed))
        }
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => timeout(options.send_timeout_ns.load(Ordering::Relaxed)),
        _ if timestamp::is_option(name) => options.stamping.get(name).ok_or(Errno::ENOPROTOOPT),
        _ => match options.switch(name).map(i32::from).or_else(|| options.number(name)) {
            Some(value) => number(value),
            None => socket.option(task, level, name),
        },
    }
}

/// Implements `setsockopt(2)`.
pub(super) fn sys_setsockopt(
    task: &CurrentTask,
    sockfd: Fd,
    level: i32,
    optname: i32,
    optval: UserAddr,
    optlen: i32,
) -> HandlerResult<()> {
    let len = usize::try_from(optlen).map_err(|_| Errno::EINVAL)?;
    let opened = lookup(task, sockfd)?;
    let is_passed = opened.socket.passes_options() && !is_ours(optname);
    if level != SOL_SOCKET || optname == SO_BINDTODEVICE || is_passed {
        return Ok(set_own(task, opened.socket.as_ref(), level, optname, (optval, len))?);
    }
    let result = set(task, opened.socket.as_ref(), optname, optval, len);
    opened.socket.recall();
    Ok(result?)
}

/// Returns whether `MSG_PEEK` may begin elsewhere than at the start.
fn has_peek_offset(socket: &dyn Socket) -> bool {
    let (domain, kind, _) = socket.identity();
    domain == AF_UNIX || (is_inet(socket) && kind != SOCK_RAW)
}

fn is_inet(socket: &dyn Socket) -> bool {
    matches!(socket.identity().0, AF_INET | AF_INET6)
}

/// Returns whether messages come with what an option says about their sender.
fn passes_more(socket: &dyn Socket, name: i32) -> bool {
    match socket.identity().0 {
        AF_UNIX => true,
        AF_NETLINK => name != SO_PASSPIDFD,
        _ => false,
    }
}

/// Returns the numbers of `SO_MEMINFO`: of the memory only the sizes of the buffers are known.
fn memory_info(socket: &dyn Socket) -> Vec<u8> {
    let options = socket.options();
    let mut info = [0_u32; 9];
    let [_, receive, _, send, ..] = &mut info;
    *receive = options.receive_buffer.load(Ordering::Relaxed);
    *send = options.send_buffer.load(Ordering::Relaxed);
    info.as_bytes().to_vec()
}

/// Returns whether an option is about the sentry's own waiting, whatever the socket is.
fn is_ours(name: i32) -> bool {
    matches!(
        name,
        SO_RCVTIMEO
            | SO_RCVTIMEO_NEW
            | SO_SNDTIMEO
            | SO_SNDTIMEO_NEW
            | SO_TYPE
            | SO_DOMAIN
            | SO_PROTOCOL
            | SO_ERROR
    )
}

/// Sets an option that only the socket's family knows.
fn set_own(
    task: &CurrentTask,
    socket: &dyn Socket,
    level: i32,
    name: i32,
    (optval, len): (UserAddr, usize),
) -> SysResult<()> {
    // No option of ours is longer.
    const MAX_OPTION: usize = 512;
    let mut value = vec![0; len.min(MAX_OPTION)];
    task.read_bytes(optval, &mut value)?;
    socket.set_option(task, level, name, &value)
}

fn set(
    task: &CurrentTask,
    socket: &dyn Socket,
    name: i32,
    optval: UserAddr,
    len: usize,
) -> SysResult<()> {
    if len < size_of::<i32>() {
        return Err(Errno::EINVAL);
    }
    let value = task.read_obj(UserPtr::<i32>::new(optval))?;
    let options = socket.options();
    match name {
        SO_SNDBUF | SO_RCVBUF => options.set_buffer(name, value),
        SO_SNDBUFFORCE | SO_RCVBUFFORCE => {
            if !task.is_net_capable(CAP_NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            // The limit holds all the same: the memory is the sentry's.
            let name = if name == SO_SNDBUFFORCE { SO_SNDBUF } else { SO_RCVBUF };
            options.set_buffer(name, value.max(0));
        }
        SO_PASSCRED | SO_PASSPIDFD | SO_PASSSEC if !passes_more(socket, name) => {
            return Err(Errno::EOPNOTSUPP);
        }
        SO_PASSCRED => options.passes_credentials.store(value != 0, Ordering::Relaxed),
        SO_PASSPIDFD => options.passes_pidfd.store(value != 0, Ordering::Relaxed),
        SO_ATTACH_FILTER => options.filter.attach(task, optval, len)?,
        SO_DETACH_FILTER => options.filter.detach()?,
        SO_LOCK_FILTER => options.filter.lock(value != 0)?,
        SO_PEEK_OFF if !has_peek_offset(socket) => return Err(Errno::EOPNOTSUPP),
        SO_PEEK_OFF => options.peek_offset.store(value, Ordering::Relaxed),
        SO_PRIORITY => {
            let is_low = (0..=6).contains(&value);
            if !is_low && !task.is_net_capable(CAP_NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            options.priority.store(value, Ordering::Relaxed);
        }
        SO_RCVLOWAT => {
            let value = if value < 0 { i32::MAX } else { value.max(1) };
            options.receive_low_water.store(value, Ordering::Relaxed);
        }
        SO_LINGER => {
            if len < size_of::<Linger>() {
                return Err(Errno::EINVAL);
            }
            let Linger { l_onoff, l_linger } = task.read_obj(UserPtr::new(optval))?;
            *options.linger.lock() = (i32::from(l_onoff != 0), l_linger);
        }
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => {
            let ns = read_timeout(task, optval, len)?;
            options.receive_timeout_ns.store(ns, Ordering::Relaxed);
        }
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => {
            let ns = read_timeout(task, optval, len)?;
            options.send_timeout_ns.store(ns, Ordering::Relaxed);
        }
        SO_BSDCOMPAT | SO_CNX_ADVICE => {}
        SO_MAX_PACING_RATE => {
            let rate = match value {
                _ if len >= size_of::<u64>() => task.read_obj(UserPtr::<u64>::new(optval))?,
                -1 => u64::MAX,
                value => value.cast_unsigned().into(),
            };
            options.pacing_rate.store(rate, Ordering::Relaxed);
        }
        SO_REUSEPORT if value != 0 && !is_inet(socket) => return Err(Errno::EOPNOTSUPP),
        SO_BUSY_POLL if value < 0 => return Err(Errno::EINVAL),
        SO_BUF_LOCK if !(0..=3).contains(&value) => return Err(Errno::EINVAL),
        SO_TXREHASH if !(-1..=1).contains(&value) => return Err(Errno::EINVAL),
        // -1 asks for what is usual.
        SO_TXREHASH => {
            options.set_number(name, if value == -1 { 1 } else { value });
        }
        SO_MARK if !task.is_net_capable(CAP_NET_ADMIN) => return Err(Errno::EPERM),
        _ if timestamp::is_option(name) => {
            let is_unconnected =
                is_inet(socket) && socket.is_stream() && socket.peer_addr().is_err();
            options.stamping.set(name, value, is_unconnected)?;
        }
        _ if options.set_switch(name, value != 0) => {
            if name == SO_KEEPALIVE {
                socket.options_changed();
            }
        }
        _ if options.set_number(name, value) => {}
        _ => return set_own(task, socket, SOL_SOCKET, name, (optval, len)),
    }
    Ok(())
}

/// Reads a timeout in nanoseconds, zero for none.
fn read_timeout(task: &CurrentTask, optval: UserAddr, len: usize) -> SysResult<u64> {
    if len < size_of::<Timeval>() {
        return Err(Errno::EINVAL);
    }
    let time = task.read_obj(UserPtr::<Timeval>::new(optval))?;
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EDOM);
    }
    // A negative timeout is one that has passed: the shortest there is.
    if time.tv_sec < 0 {
        return Ok(1);
    }
    Ok(u64::try_from(time.to_ns()).unwrap_or(u64::MAX))
}
