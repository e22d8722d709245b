//! Taking over a network namespace: what is in it is read by netlink, each interface gets a packet
//! socket for the sentry, and the host's own stack loses the addresses, so that only one answers.
//! What was taken is written down before ([`taken`]), and put back when the sandbox is over.

mod taken;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use sentry::config::network::{AddrConfig, InterfaceConfig, NetworkConfig, RouteConfig};

use crate::container::Container;
use crate::log;
use crate::sys;
use taken::Taken;

const HEADER: usize = 16;

/// Messages of `rtnetlink(7)`.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// `NLM_F_REQUEST | NLM_F_DUMP`; `NLM_F_REQUEST | NLM_F_ACK`, and with them `NLM_F_CREATE | NLM_F_EXCL`
const DUMP: u16 = 0x301;
const CHANGE: u16 = 5;
const ADD: u16 = 0x605;

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;

const TABLE_MAIN: u8 = 254;
const ROUTE_UNICAST: u8 = 1;

/// The metric of a route of IPv6 that has none.
const METRIC_V6: u32 = 1024;

/// A network that has been taken over: what it is, and the packet sockets.
pub(crate) struct Network {
    pub(crate) config: NetworkConfig,
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Takes over the network namespace of a container that is locked; none where that is this process's
/// own.
pub(crate) fn take_over(container: &Container, pid: i32) -> anyhow::Result<Option<Network>> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))
        .context("opening the container's network namespace")?;
    if is_own(&namespace).context("looking at the container's network namespace")? {
        return Ok(None);
    }
    within(&namespace, || take_over_own(container, id(&namespace)?)).map(Some)
}

/// Puts back what a container's sandbox, which is over or has never got it, has taken. Where the
/// namespace is gone there is nothing to be done.
pub(crate) fn give_back(container: &Container) -> anyhow::Result<()> {
    let Some(taken) = Taken::read(&container.dir)? else { return Ok(()) };
    let monitor = container.state.monitor.filter(|monitor| monitor.is_alive());
    let of_monitor = monitor.map(|monitor| format!("/proc/{}/ns/net", monitor.pid).into());
    let named = container.state.namespaces.path(libc::CLONE_NEWNET).cloned();
    for path in of_monitor.into_iter().chain(named) {
        let Ok(namespace) = File::open(path) else { continue };
        if id(&namespace)? == taken.namespace {
            within(&namespace, || taken.give_back())?;
            break;
        }
    }
    Taken::forget(&container.dir)
}

/// Does something in a network namespace.
fn within<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    // A thread of its own enters the namespace: the way back may be closed.
    let result = std::thread::scope(|scope| {
        let body = || {
            sys::enter_namespace(namespace.as_fd(), libc::CLONE_NEWNET)
                .context("joining the container's network namespace")?;
            work()
        };
        scope.spawn(body).join()
    });
    result.unwrap_or_else(|_| bail!("reading the container's network"))
}

/// Returns whether a namespace is the one that this process is in.
pub(crate) fn is_own(namespace: &File) -> io::Result<bool> {
    Ok(id(namespace)? == id_of(Path::new("/proc/self/ns/net"))?)
}

/// Returns what tells the namespace at a path apart from others that exist.
pub(crate) fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn id(namespace: &File) -> io::Result<(u64, u64)> {
    namespace.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn take_over_own(container: &Container, namespace: (u64, u64)) -> anyhow::Result<Network> {
    let (mut config, mut taken) = read()?;
    if config.interfaces.iter().any(|interface| interface.addrs.is_empty())
        && taken::give_back_leftovers(container, namespace)?
    {
        (config, taken) = read()?;
    }
    let open = |interface: &InterfaceConfig| {
        sentry_host::nic::open(interface.index).map_err(|errno| {
            anyhow::anyhow!("opening a packet socket for {}: {}", interface.name, errno.text())
        })
    };
    let mut sockets = config.interfaces.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    // Without a loopback interface there is no resolver on it.
    if let Ok(resolver) = resolver() {
        config.has_resolver = true;
        sockets.push(resolver);
    }
    taken.namespace = namespace;
    taken.write(&container.dir)?;
    for interface in &config.interfaces {
        for addr in &interface.addrs {
            let removed = remove(interface, *addr)
                .with_context(|| format!("removing {} from {}", addr.ip, interface.name));
            if let Err(error) = removed {
                // The first failure is the one to report.
                let _ = taken.give_back().and_then(|()| Taken::forget(&container.dir));
                return Err(error);
            }
        }
    }
    Ok(Network { config, sockets })
}

/// Opens a socket to where docker's resolver is in the container's network namespace.
fn resolver() -> io::Result<OwnedFd> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::new(127, 0, 0, 11), 53))?;
    Ok(socket.into())
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Returns an address as an attribute has it.
fn addr_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Puts a request together.
fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&1_u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    bytes
}

/// Returns the bodies of the messages of a kind.
fn messages(mut bytes: &[u8], kind: u16) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let (Some(len), Some(own)) = (number32(bytes, 0), number16(bytes, 4)) {
        let len = usize::try_from(len).unwrap_or(0);
        let Some(body) = bytes.get(HEADER..len) else { break };
        if own == kind {
            found.push(body);
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Returns an attribute of a message.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(number16(bytes, 0)?);
        let data = bytes.get(4..len)?;
        // The two highest bits are flags.
        if number16(bytes, 2)? & 0x3fff == kind {
            return Some(data);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

fn dump(kind: u16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    sentry_host::inet::dump_netlink(&request(kind, DUMP, body))
        .map_err(|errno| anyhow::anyhow!("asking for the network by netlink: {}", errno.text()))
}

/// Reads the network of the namespace that this thread is in, and what it takes to restore it.
fn read() -> anyhow::Result<(NetworkConfig, Taken)> {
    let mut taken = Taken::default();
    let links = dump(RTM_GETLINK, &[0; 16])?;
    let mut interfaces: Vec<_> =
        messages(&links, RTM_NEWLINK).into_iter().filter_map(interface).collect();
    let addrs = dump(RTM_GETADDR, &[0; 8])?;
    for message in messages(&addrs, RTM_NEWADDR) {
        let attributes = message.get(8..).unwrap_or_default();
        let own = attribute(attributes, IFA_LOCAL).or(attribute(attributes, IFA_ADDRESS));
        let index = number32(message, 4).and_then(|index| i32::try_from(index).ok());
        let (Some(ip), Some(prefix), Some(index)) =
            (own.and_then(addr_of), message.get(1).copied(), index)
        else {
            continue;
        };
        if let Some(interface) = interfaces.iter_mut().find(|known| known.index == index) {
            interface.addrs.push(AddrConfig { ip, prefix });
            taken.add_addr(message);
        }
    }
    let dumped = dump(RTM_GETROUTE, &[0; 12])?;
    let mut routes = Vec::new();
    for message in messages(&dumped, RTM_NEWROUTE) {
        let Some(route) = route(message) else { continue };
        if interfaces.iter().any(|known| known.index == route.interface) {
            routes.push(route);
            taken.add_route(message);
        }
    }
    taken.interfaces = interfaces.iter().map(|known| (known.index, known.mac)).collect();
    Ok((NetworkConfig { interfaces, routes, has_resolver: false }, taken))
}

/// Reads an interface, where the sentry can do something with it.
fn interface(message: &[u8]) -> Option<InterfaceConfig> {
    let kind = number16(message, 2)?;
    let flags = number32(message, 8)?;
    let attributes = message.get(16..)?;
    let name = attribute(attributes, IFLA_IFNAME)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    if kind == ARPHRD_LOOPBACK || flags & IFF_UP == 0 {
        return None;
    }
    let mac = attribute(attributes, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok());
    let Some(mac) = mac.filter(|_| kind == ARPHRD_ETHER) else {
        log::warning(&format!(
            "the interface {name} is not Ethernet: the container does not see it"
        ));
        return None;
    };
    Some(InterfaceConfig {
        name,
        index: i32::try_from(number32(message, 4)?).ok()?,
        mac,
        mtu: attribute(attributes, IFLA_MTU).and_then(|mtu| number32(mtu, 0))?,
        addrs: Vec::new(),
    })
}

/// Reads a route to one place, of those that count for everybody.
fn route(message: &[u8]) -> Option<RouteConfig> {
    let [family, prefix, _, _, table, _, _, kind] = *message.first_chunk()?;
    if table != TABLE_MAIN || kind != ROUTE_UNICAST {
        return None;
    }
    let attributes = message.get(12..)?;
    let find = |kind| attribute(attributes, kind).and_then(addr_of);
    let any = if i32::from(family) == libc::AF_INET {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let number = |kind| attribute(attributes, kind).and_then(|bytes| number32(bytes, 0));
    // Of several ways at once, the first.
    let hop = attribute(attributes, RTA_MULTIPATH);
    let hop_attributes = hop.and_then(|hop| hop.get(8..usize::from(number16(hop, 0)?)));
    let hop_gateway = hop_attributes.and_then(|hop| attribute(hop, RTA_GATEWAY)).and_then(addr_of);
    let interface = number(RTA_OIF).or_else(|| number32(hop?, 4))?;
    let default_metric = if any.is_ipv4() { 0 } else { METRIC_V6 };
    Some(RouteConfig {
        to: find(RTA_DST).unwrap_or(any),
        prefix,
        gateway: find(RTA_GATEWAY).or(hop_gateway),
        interface: i32::try_from(interface).ok()?,
        metric: number(RTA_PRIORITY).unwrap_or(default_metric),
        source: find(RTA_PREFSRC),
    })
}

/// Takes an address away from the host's own stack.
fn remove(interface: &InterfaceConfig, addr: AddrConfig) -> io::Result<()> {
    let family = if addr.ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = vec![u8::try_from(family).unwrap_or(0), addr.prefix, 0, 0];
    body.extend_from_slice(&interface.index.to_ne_bytes());
    let ip = octets(addr.ip);
    let len = u16::try_from(4 + ip.len()).unwrap_or(0);
    body.extend_from_slice(&len.to_ne_bytes());
    body.extend_from_slice(&IFA_LOCAL.to_ne_bytes());
    body.extend_from_slice(&ip);
    match change(RTM_DELADDR, CHANGE, &body) {
        // Gone with another one.
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

/// Makes a request that is answered with an error or none.
fn change(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let answer = sentry_host::inet::dump_netlink(&request(kind, flags, body))
        .map_err(|errno| io::Error::from_raw_os_error(errno.raw()))?;
    let error = messages(&answer, NLMSG_ERROR).first().and_then(|body| number32(body, 0));
    match error.map_or(0, u32::cast_signed) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::{attribute, interface, messages, read, request, route};

    #[test]
    fn messages_with_hostile_lengths_end_the_parse() {
        for len in [0_u32, 1, 15, 17, 100, u32::MAX] {
            let mut bytes = request(16, 1, &[]);
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            assert!(messages(&bytes, 16).is_empty());
        }
        assert_eq!(attribute(&[255; 64], 1), None);
        assert_eq!(attribute(&[0; 64], 1), None);
        assert!(interface(&[0; 16]).is_none());
        assert!(route(&[0; 7]).is_none());
    }

    #[test]
    fn own_network_can_be_read() {
        let (network, _) = read().unwrap();
        assert!(network.interfaces.iter().all(|interface| interface.name != "lo"));
    }
}
