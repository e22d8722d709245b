//! The interfaces as `netdevice(7)` and `SO_BINDTODEVICE` show it.

use std::net::{IpAddr, Ipv4Addr};

use syscalls::abi::capability::{CAP_NET_ADMIN, CAP_NET_RAW};
use syscalls::abi::ioctl::{
    SIOCGIFADDR, SIOCGIFBRDADDR, SIOCGIFCONF, SIOCGIFDSTADDR, SIOCGIFFLAGS, SIOCGIFHWADDR,
    SIOCGIFINDEX, SIOCGIFMAP, SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFNAME, SIOCGIFNETMASK,
    SIOCGIFTXQLEN, SIOCGSTAMP, SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFMTU, SIOCSIFNETMASK,
};
use syscalls::abi::socket::{AF_INET, SO_BINDTODEVICE, SO_BINDTOIFINDEX};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::LOOPBACK_INDEX;
use crate::config::network::AddrConfig;
use crate::net::netlink::announcing;
use crate::net::options::Options;
use crate::net::stack;
use crate::task::{CurrentTask, HandlerResult};

/// The size of an interface's name.
const IFNAMSIZ: usize = 16;

/// The size of `struct ifreq`.
const IFREQ_SIZE: usize = 40;

/// `IFF_UP | IFF_LOOPBACK | IFF_RUNNING`
const LOOPBACK_FLAGS: u16 = 0x49;

/// `IFF_LOOPBACK` alone: an interface that is down.
const IFF_LOOPBACK: u16 = 0x8;

const IFF_UP: u16 = 0x1;

/// `IFF_UP | IFF_BROADCAST | IFF_RUNNING | IFF_MULTICAST`
pub(crate) const NIC_FLAGS: u16 = 0x1043;

/// The type of an interface of Ethernet.
pub(crate) const ARPHRD_ETHER: u16 = 1;

/// The type of the loopback interface.
pub(crate) const ARPHRD_LOOPBACK: u16 = 772;

type Ifreq = [u8; IFREQ_SIZE];

fn put(ifreq: &mut Ifreq, at: usize, bytes: &[u8]) {
    if let Some(to) = ifreq.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// Stores an address where a `struct ifreq` has one.
fn put_addr(ifreq: &mut Ifreq, addr: [u8; 4]) {
    put(ifreq, IFNAMSIZ, &[0; 16]);
    put(ifreq, IFNAMSIZ, &u16::try_from(AF_INET).unwrap_or(0).to_ne_bytes());
    put(ifreq, IFNAMSIZ + 4, &addr);
}

fn name_of(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Implements the requests about interfaces.
///
/// # Errors
/// `ENOTTY` for others; `ENODEV`, `EPERM`, `EFAULT`.
pub(crate) fn ioctl(task: &CurrentTask, request: u32, arg: u64) -> HandlerResult {
    let addr = UserAddr(arg);
    if request == SIOCGIFCONF {
        return list(task, addr);
    }
    if request == SIOCGSTAMP {
        return Err(Errno::ENOENT.into());
    }
    if !(0x8910..0x8980).contains(&request) {
        return Err(Errno::ENOTTY.into());
    }
    let mut ifreq = [0; IFREQ_SIZE];
    task.read_bytes(addr, &mut ifreq)?;
    let all = faces(task);
    if request == SIOCGIFNAME {
        let index = ifreq.get(IFNAMSIZ..).and_then(<[u8]>::first_chunk::<4>);
        let index = index.map(|bytes| i32::from_ne_bytes(*bytes));
        let face = all.iter().find(|face| Some(face.index) == index).ok_or(Errno::ENODEV)?;
        put(&mut ifreq, 0, &[0; IFNAMSIZ]);
        put(&mut ifreq, 0, face.name.as_bytes());
    } else {
        let name = name_of(ifreq.get(..IFNAMSIZ).unwrap_or_default());
        // An address may have a label of its own, `eth0:1`.
        let name = name.split(|byte| *byte == b':').next().unwrap_or_default();
        let face = all.iter().find(|face| face.name.as_bytes() == name).ok_or(Errno::ENODEV)?;
        let addr = || face.addr.ok_or(Errno::EADDRNOTAVAIL);
        match request {
            SIOCGIFFLAGS => put(&mut ifreq, IFNAMSIZ, &face.flags.to_ne_bytes()),
            SIOCGIFADDR | SIOCGIFDSTADDR => put_addr(&mut ifreq, addr()?.0.octets()),
            SIOCGIFBRDADDR => {
                let (ip, prefix) = addr()?;
                let broadcast = match stack::broadcast_of(IpAddr::V4(ip), prefix) {
                    Some(IpAddr::V4(broadcast)) if !ip.is_loopback() => broadcast.octets(),
                    _ => [0; 4],
                };
                put_addr(&mut ifreq, broadcast);
            }
            SIOCGIFNETMASK => {
                let (_, prefix) = addr()?;
                let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                put_addr(&mut ifreq, (!hosts).to_be_bytes());
            }
            SIOCGIFMETRIC => put(&mut ifreq, IFNAMSIZ, &0_u32.to_ne_bytes()),
            SIOCGIFMTU => put(&mut ifreq, IFNAMSIZ, &face.mtu.to_ne_bytes()),
            SIOCGIFTXQLEN => put(&mut ifreq, IFNAMSIZ, &1000_u32.to_ne_bytes()),
            SIOCGIFINDEX => put(&mut ifreq, IFNAMSIZ, &face.index.to_ne_bytes()),
            SIOCGIFMAP => put(&mut ifreq, IFNAMSIZ, &[0; 24]),
            SIOCGIFHWADDR => {
                put(&mut ifreq, IFNAMSIZ, &[0; 16]);
                put(&mut ifreq, IFNAMSIZ, &face.kind.to_ne_bytes());
                put(&mut ifreq, IFNAMSIZ + 2, &face.mac);
            }
            _ if !task.is_net_capable(CAP_NET_ADMIN) => return Err(Errno::EPERM.into()),
            SIOCSIFFLAGS => {
                let flags = ifreq.get(IFNAMSIZ..).and_then(<[u8]>::first_chunk::<2>);
                let flags = flags.map_or(0, |bytes| u16::from_ne_bytes(*bytes));
                if face.index == LOOPBACK_INDEX {
                    let inet = task.inet();
                    let change = || inet.set_loopback_up(flags & IFF_UP != 0);
                    announcing(&task.kernel, &inet, change);
                }
                return Ok(0);
            }
            SIOCSIFMTU if face.index == LOOPBACK_INDEX => {
                let mtu = ifreq.get(IFNAMSIZ..).and_then(<[u8]>::first_chunk::<4>);
                let mtu = mtu.map_or(-1, |bytes| i32::from_ne_bytes(*bytes));
                let mtu = u32::try_from(mtu).map_err(|_| Errno::EINVAL)?;
                let inet = task.inet();
                announcing(&task.kernel, &inet, || inet.loopback().set_mtu(mtu));
                return Ok(0);
            }
            SIOCSIFADDR | SIOCSIFNETMASK if face.index == LOOPBACK_INDEX => {
                let given = ifreq.get(IFNAMSIZ + 4..).and_then(<[u8]>::first_chunk::<4>);
                let given = Ipv4Addr::from(*given.ok_or(Errno::EINVAL)?);
                let inet = task.inet();
                if request == SIOCSIFADDR {
                    let change = || inet.loopback().set_first_v4(Some(given), None);
                    announcing(&task.kernel, &inet, change)?;
                } else {
                    let mask = u32::from(given);
                    if mask.leading_ones() + mask.trailing_zeros() != u32::BITS {
                        return Err(Errno::EINVAL.into());
                    }
                    let prefix = u8::try_from(mask.leading_ones()).unwrap_or(32);
                    let change = || inet.loopback().set_first_v4(None, Some(prefix));
                    announcing(&task.kernel, &inet, change)?;
                }
                return Ok(0);
            }
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
    }
    task.write_bytes(addr, &ifreq)?;
    Ok(0)
}

/// An interface as the requests show it.
struct Face {
    name: String,
    index: i32,
    flags: u16,
    mtu: u32,
    kind: u16,
    mac: [u8; 6],
    /// The first address of IPv4.
    addr: Option<(Ipv4Addr, u8)>,
}

fn faces(task: &CurrentTask) -> Vec<Face> {
    let inet = task.inet();
    let mut faces = vec![Face {
        name: "lo".to_owned(),
        index: LOOPBACK_INDEX,
        flags: if inet.loopback().is_up() { LOOPBACK_FLAGS } else { IFF_LOOPBACK },
        mtu: inet.loopback().limits().0,
        kind: ARPHRD_LOOPBACK,
        mac: [0; 6],
        addr: inet.loopback().first_v4(),
    }];
    for nic in inet.stack().into_iter().flat_map(|stack| stack.nics()) {
        let v4 = |addr: &AddrConfig| match addr.ip {
            IpAddr::V4(ip) => Some((ip, addr.prefix)),
            IpAddr::V6(_) => None,
        };
        faces.push(Face {
            name: nic.config.name.clone(),
            index: nic.config.index,
            flags: NIC_FLAGS,
            mtu: nic.config.mtu,
            kind: ARPHRD_ETHER,
            mac: nic.config.mac,
            addr: nic.config.addrs.iter().find_map(v4),
        });
    }
    faces
}

/// Implements `SIOCGIFCONF`: the interfaces with an address of IPv4.
fn list(task: &CurrentTask, addr: UserAddr) -> HandlerResult {
    let mut bytes = Vec::new();
    for face in faces(task) {
        let Some((ip, _)) = face.addr else { continue };
        let mut ifreq = [0; IFREQ_SIZE];
        put(&mut ifreq, 0, face.name.as_bytes());
        put_addr(&mut ifreq, ip.octets());
        bytes.extend_from_slice(&ifreq);
    }
    // `struct ifconf`: a length, and a buffer behind padding.
    let len = task.read_obj(UserPtr::<i32>::new(addr))?;
    let buffer_at = addr.0.checked_add(8).ok_or(Errno::EFAULT)?;
    let buffer = task.read_obj(UserPtr::<u64>::new(UserAddr(buffer_at)))?;
    if buffer != 0 {
        let room = usize::try_from(len).unwrap_or(0) / IFREQ_SIZE * IFREQ_SIZE;
        bytes.truncate(room);
        task.write_bytes(UserAddr(buffer), &bytes)?;
    }
    task.write_obj(UserPtr::<i32>::new(addr), &i32::try_from(bytes.len()).unwrap_or(0))?;
    Ok(0)
}

/// Returns the bytes of an option that binds to an interface; `None` for others.
pub(super) fn device_option(options: &Options, name: i32) -> Option<SysResult<Vec<u8>>> {
    let is_bound = options.is_bound_to_device();
    match name {
        SO_BINDTODEVICE if is_bound => Some(Ok(b"lo\0".to_vec())),
        SO_BINDTODEVICE => Some(Ok(Vec::new())),
        SO_BINDTOIFINDEX => {
            let index = if is_bound { LOOPBACK_INDEX } else { 0 };
            Some(Ok(index.to_ne_bytes().to_vec()))
        }
        _ => None,
    }
}

/// Sets an option of `SOL_SOCKET` that only sockets of the Internet have.
pub(super) fn set_device_option(
    task: &CurrentTask,
    options: &Options,
    name: i32,
    value: &[u8],
) -> SysResult<()> {
    use syscalls::abi::socket::{SO_RESERVE_MEM, SO_ZEROCOPY};
    match name {
        SO_BINDTODEVICE | SO_BINDTOIFINDEX => {
            if options.is_bound_to_device() && !task.creds().has_capability(CAP_NET_RAW) {
                return Err(Errno::EPERM);
            }
            let is_loopback = if name == SO_BINDTODEVICE {
                match name_of(value.get(..IFNAMSIZ - 1).unwrap_or(value)) {
                    b"" => false,
                    b"lo" => true,
                    _ => return Err(Errno::ENODEV),
                }
            } else {
                let index = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
                match i32::from_ne_bytes(*index) {
                    0 => false,
                    LOOPBACK_INDEX => true,
                    index if index < 0 => return Err(Errno::EINVAL),
                    _ => return Err(Errno::ENODEV),
                }
            };
            options.bind_to_device(is_loopback);
            Ok(())
        }
        // DEVIATION: nobody would be told that a send is complete.
        SO_ZEROCOPY | SO_RESERVE_MEM => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::ENOPROTOOPT),
    }
}
