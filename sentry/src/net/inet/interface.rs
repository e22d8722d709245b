//! The loopback interface as `netdevice(7)` and `SO_BINDTODEVICE` show it.

use syscalls::abi::capability::{CAP_NET_ADMIN, CAP_NET_RAW};
use syscalls::abi::ioctl::{
    SIOCGIFADDR, SIOCGIFBRDADDR, SIOCGIFCONF, SIOCGIFDSTADDR, SIOCGIFFLAGS, SIOCGIFHWADDR,
    SIOCGIFINDEX, SIOCGIFMAP, SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFNAME, SIOCGIFNETMASK,
    SIOCGIFTXQLEN, SIOCGSTAMP, SIOCSIFFLAGS,
};
use syscalls::abi::socket::{AF_INET, SO_BINDTODEVICE, SO_BINDTOIFINDEX};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use super::LOOPBACK_INDEX;
use crate::net::options::Options;
use crate::task::{CurrentTask, HandlerResult};

/// The size of an interface's name.
const IFNAMSIZ: usize = 16;

/// The size of `struct ifreq`.
const IFREQ_SIZE: usize = 40;

/// `IFF_UP | IFF_LOOPBACK | IFF_RUNNING`
const LOOPBACK_FLAGS: u16 = 0x49;

/// The MTU of the loopback interface.
pub(crate) const LOOPBACK_MTU: u32 = 65_536;

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
    if request == SIOCGIFNAME {
        let index = ifreq.get(IFNAMSIZ..).and_then(<[u8]>::first_chunk::<4>);
        if index.map(|bytes| i32::from_ne_bytes(*bytes)) != Some(LOOPBACK_INDEX) {
            return Err(Errno::ENODEV.into());
        }
        put(&mut ifreq, 0, &[0; IFNAMSIZ]);
        put(&mut ifreq, 0, b"lo");
    } else {
        if name_of(ifreq.get(..IFNAMSIZ).unwrap_or_default()) != b"lo" {
            return Err(Errno::ENODEV.into());
        }
        match request {
            SIOCGIFFLAGS => put(&mut ifreq, IFNAMSIZ, &LOOPBACK_FLAGS.to_ne_bytes()),
            SIOCGIFADDR | SIOCGIFDSTADDR => put_addr(&mut ifreq, [127, 0, 0, 1]),
            SIOCGIFBRDADDR => put_addr(&mut ifreq, [0; 4]),
            SIOCGIFNETMASK => put_addr(&mut ifreq, [255, 0, 0, 0]),
            SIOCGIFMETRIC => put(&mut ifreq, IFNAMSIZ, &0_u32.to_ne_bytes()),
            SIOCGIFMTU => put(&mut ifreq, IFNAMSIZ, &LOOPBACK_MTU.to_ne_bytes()),
            SIOCGIFTXQLEN => put(&mut ifreq, IFNAMSIZ, &1000_u32.to_ne_bytes()),
            SIOCGIFINDEX => put(&mut ifreq, IFNAMSIZ, &LOOPBACK_INDEX.to_ne_bytes()),
            SIOCGIFMAP => put(&mut ifreq, IFNAMSIZ, &[0; 24]),
            SIOCGIFHWADDR => {
                put(&mut ifreq, IFNAMSIZ, &[0; 16]);
                put(&mut ifreq, IFNAMSIZ, &ARPHRD_LOOPBACK.to_ne_bytes());
            }
            _ if !task.creds().has_capability(CAP_NET_ADMIN) => return Err(Errno::EPERM.into()),
            // The interface is up for good.
            SIOCSIFFLAGS => return Ok(0),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
    }
    task.write_bytes(addr, &ifreq)?;
    Ok(0)
}

/// Implements `SIOCGIFCONF`: the interfaces with an address of IPv4.
fn list(task: &CurrentTask, addr: UserAddr) -> HandlerResult {
    let mut ifreq = [0; IFREQ_SIZE];
    put(&mut ifreq, 0, b"lo");
    put_addr(&mut ifreq, [127, 0, 0, 1]);
    // `struct ifconf`: a length, and a buffer behind padding.
    let len = task.read_obj(UserPtr::<i32>::new(addr))?;
    let buffer_at = addr.0.checked_add(8).ok_or(Errno::EFAULT)?;
    let buffer = task.read_obj(UserPtr::<u64>::new(UserAddr(buffer_at)))?;
    let has_room = usize::try_from(len).is_ok_and(|len| len >= IFREQ_SIZE);
    if buffer != 0 && has_room {
        task.write_bytes(UserAddr(buffer), &ifreq)?;
    }
    let n = if buffer == 0 || has_room { IFREQ_SIZE } else { 0 };
    task.write_obj(UserPtr::<i32>::new(addr), &i32::try_from(n).unwrap_or(0))?;
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
    use syscalls::abi::socket::{
        SO_DETACH_FILTER, SO_MAX_PACING_RATE, SO_RESERVE_MEM, SO_ZEROCOPY,
    };
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
        SO_ZEROCOPY | SO_MAX_PACING_RATE => Ok(()),
        SO_RESERVE_MEM => Err(Errno::EOPNOTSUPP),
        SO_DETACH_FILTER => Err(Errno::ENOENT),
        _ => Err(Errno::ENOPROTOOPT),
    }
}
