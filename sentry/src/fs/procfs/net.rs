//! `/proc/PID/net`: the sockets there are, and the rest of the network as far as its files have been
//! asked for by programs. Where the host's network is passed through, they are the host's own files.

use std::ffi::CStr;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sentry_host::{file, startup};
use syscalls::SysResult;

use super::super::pseudo::{Named, Numbers, Text};
use crate::net::inet::udp::UdpSocket;
use crate::net::stack::{Nic, Stack};
use crate::task::CurrentTask;

const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
";

const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n";

const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            \n";

const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

const RAW: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

const RAW6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";

const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n";

const ARP: &str =
    "IP address       HW type     Flags       HW address            Mask     Device\n";

const IPV6_ROUTE: &str = "00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000001 00000000 80200001       lo\n";

const NETLINK: &str =
    "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";

const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";

const PTYPE: &str = "Type Device      Function\n";

const PSCHED: &str = "000003e8 00000040 000f4240 3b9aca00\n";

const SNMP: &str = "\
Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates
Ip: 2 64 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors
Tcp: 1 200 120000 -1 0 0 0 0 0 0 0 0 0 0 0
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 0 0 0 0 0 0 0 0 0
";

/// Returns the entries of the directory.
pub(super) fn entries(numbers: &Numbers) -> Vec<Named> {
    [
        ("ipv6_route", IPV6_ROUTE),
        ("netlink", NETLINK),
        ("psched", PSCHED),
        ("ptype", PTYPE),
        ("snmp", SNMP),
    ]
    .into_iter()
    .map(|(name, text)| table(numbers, name, move |_| text.to_owned()))
    .chain([
        table(numbers, "arp", arp),
        table(numbers, "dev", dev),
        table(numbers, "if_inet6", if_inet6),
        table(numbers, "route", route),
        table(numbers, "sockstat", sockstat),
        table(numbers, "tcp", |task| tcp(task, false)),
        table(numbers, "tcp6", |task| tcp(task, true)),
        table(numbers, "udp", |task| udp(&task.inet().udp_sockets(), false)),
        table(numbers, "udp6", |task| udp(&task.inet().udp_sockets(), true)),
        table(numbers, "udplite", |task| udp(&task.inet().udplite_sockets(), false)),
        table(numbers, "udplite6", |task| udp(&task.inet().udplite_sockets(), true)),
        table(numbers, "packet", packet),
        table(numbers, "raw", |task| raw(task, false)),
        table(numbers, "raw6", |task| raw(task, true)),
        numbers.text("unix", 0o444, Unix),
    ])
    .collect()
}

/// Makes a file that is the host's where the network is, and else has the text that is given.
fn table(
    numbers: &Numbers,
    name: &'static str,
    own: impl Fn(&CurrentTask) -> String + Send + Sync + 'static,
) -> Named {
    numbers.text(name, 0o444, Table { name, own })
}

struct Table<F> {
    name: &'static str,
    own: F,
}

impl<F: Fn(&CurrentTask) -> String + Send + Sync + 'static> Text for Table<F> {
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>> {
        let of_host =
            current.kernel.host_network.as_ref().filter(|_| !current.inet().is_isolated());
        match of_host.and_then(|network| network.tables.read(self.name)) {
            Some(content) => content,
            None => Ok((self.own)(current).into_bytes()),
        }
    }
}

/// The host's files below `/proc/net` that the container sees where it has the host's network. They
/// are opened before the sentry locks itself down, and show the state of the moment when they are read.
pub struct NetworkTables(Vec<(&'static str, OwnedFd)>);

impl NetworkTables {
    /// The names that say nothing of processes, and the files' paths.
    const FILES: [(&str, &CStr); 12] = [
        ("arp", c"self/net/arp"),
        ("dev", c"self/net/dev"),
        ("if_inet6", c"self/net/if_inet6"),
        ("ipv6_route", c"self/net/ipv6_route"),
        ("raw", c"self/net/raw"),
        ("route", c"self/net/route"),
        ("snmp", c"self/net/snmp"),
        ("sockstat", c"self/net/sockstat"),
        ("tcp", c"self/net/tcp"),
        ("tcp6", c"self/net/tcp6"),
        ("udp", c"self/net/udp"),
        ("udp6", c"self/net/udp6"),
    ];

    /// What a table may have at most, so that the host's cannot fill the sentry's memory.
    const MAX_LEN: usize = 64 << 20;

    /// Opens the files of a process file system, as many as there are.
    pub fn open(proc: BorrowedFd<'_>) -> Self {
        let open = |(name, path)| Some((name, startup::open_below(proc, path).ok()?));
        Self(Self::FILES.into_iter().filter_map(open).collect())
    }

    /// Reads a table, if it is one of the host's.
    fn read(&self, name: &str) -> Option<SysResult<Vec<u8>>> {
        let (_, file) = self.0.iter().find(|(found, _)| *found == name)?;
        Some(Self::read_all(file.as_fd()))
    }

    fn read_all(file: BorrowedFd<'_>) -> SysResult<Vec<u8>> {
        let mut content = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        while content.len() < Self::MAX_LEN {
            let n = file::read_at(file, &mut chunk, content.len() as u64)?;
            let Some(read) = chunk.get(..n).filter(|read| !read.is_empty()) else { break };
            content.extend_from_slice(read);
        }
        Ok(content)
    }
}

/// Returns an address and a port as Linux shows them: words of the processor's own order.
fn endpoint((ip, port): (IpAddr, u16), is_v6: bool) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) if !is_v6 => ip.octets().to_vec(),
        // The wildcard address of a socket of IPv6 stands for both.
        IpAddr::V4(ip) if ip.is_unspecified() => vec![0; 16],
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in bytes.chunks_exact(4) {
        let word = word.try_into().map_or(0, u32::from_ne_bytes);
        // Writing to a string does not fail.
        let _ = write!(text, "{word:08X}");
    }
    let _ = write!(text, ":{port:04X}");
    text
}

/// Returns the interfaces that the sandbox has taken over.
fn nics(stack: Option<&Arc<Stack>>) -> &[Nic] {
    stack.map(|stack| stack.nics()).unwrap_or_default()
}

fn dev(task: &CurrentTask) -> String {
    let inet = task.inet();
    let mut text = String::from(DEV);
    for nic in nics(inet.stack()) {
        let [received_bytes, received, useless] =
            [0, 1, 2].map(|at| nic.counters.received.get(at).map_or(0, |n| n.load(Relaxed)));
        let [sent_bytes, sent, lost] =
            [0, 1, 2].map(|at| nic.counters.sent.get(at).map_or(0, |n| n.load(Relaxed)));
        let _ = writeln!(
            text,
            "{:>6}: {received_bytes:7} {received:7}    0 {useless:4}    0     0          0         0 \
             {sent_bytes:8} {sent:7}    0 {lost:4}    0     0       0          0",
            nic.config.name
        );
    }
    text
}

fn if_inet6(task: &CurrentTask) -> String {
    const PERMANENT: u8 = 0x80;
    let inet = task.inet();
    let mut text = String::new();
    let mut add = |ip: IpAddr, prefix: u8, index: i32, name: &str| {
        let IpAddr::V6(ip) = ip else { return };
        let scope = match ip {
            Ipv6Addr::LOCALHOST => 0x10,
            _ if ip.is_unicast_link_local() => 0x20,
            _ => 0,
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:032x} {index:02x} {prefix:02x} {scope:02x} {PERMANENT:02x} {name:>8}",
            u128::from(ip),
        );
    };
    for (ip, prefix) in inet.loopback().networks() {
        add(ip, prefix, 1, "lo");
    }
    for nic in nics(inet.stack()) {
        for addr in &nic.config.addrs {
            add(addr.ip, addr.prefix, nic.config.index, &nic.config.name);
        }
    }
    text
}

fn route(task: &CurrentTask) -> String {
    let inet = task.inet();
    let mut text = String::from(ROUTE);
    let routes = inet.stack().map(|stack| &stack.config().routes);
    for route in routes.into_iter().flatten() {
        let IpAddr::V4(to) = route.to else { continue };
        let nic = nics(inet.stack()).iter().find(|nic| nic.config.index == route.interface);
        let Some(nic) = nic else { continue };
        let gateway = match route.gateway {
            Some(IpAddr::V4(gateway)) => gateway,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        // `RTF_UP`, `RTF_GATEWAY`
        let flags = if gateway.is_unspecified() { 1 } else { 3 };
        let mask = Ipv4Addr::from(!u32::MAX.checked_shr(route.prefix.into()).unwrap_or(0));
        let [to, gateway, mask] = [to, gateway, mask].map(|ip| u32::from_ne_bytes(ip.octets()));
        let line = format!(
            "{}\t{to:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t{}\t{mask:08X}\t0\t0\t0",
            nic.config.name, route.metric
        );
        let _ = writeln!(text, "{line:127}");
    }
    text
}

fn arp(task: &CurrentTask) -> String {
    let inet = task.inet();
    let mut text = String::from(ARP);
    let known = inet.stack().map(|stack| stack.neighbors());
    for (interface, ip, mac) in known.into_iter().flatten().filter(|(_, ip, _)| ip.is_ipv4()) {
        let nic = nics(inet.stack()).iter().find(|nic| nic.config.index == interface);
        let name = nic.map_or("", |nic| &nic.config.name);
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let ip = ip.to_string();
        let _ = writeln!(text, "{ip:<16} 0x1         0x2         {mac}     *        {name}");
    }
    text
}

fn tcp(task: &CurrentTask, is_v6: bool) -> String {
    let mut text = String::from(if is_v6 { TCP6 } else { TCP });
    let sockets = task.inet().tcp_sockets();
    let entries = sockets.iter().filter(|socket| socket.is_v6() == is_v6);
    for (index, entry) in entries.filter_map(|socket| socket.entry()).enumerate() {
        let (local, remote) = (endpoint(entry.local, is_v6), endpoint(entry.remote, is_v6));
        let (unsent, unread) = entry.queues;
        let line = format!(
            "{index:4}: {local} {remote} {:02X} {unsent:08X}:{unread:08X} 00:00000000 00000000 \
             {:5} {:8} {} 1 0000000000000000 100 0 0 10 0",
            entry.state, entry.uid, 0, entry.ino
        );
        let width = if is_v6 { 0 } else { 149 };
        let _ = writeln!(text, "{line:width$}");
    }
    text
}

fn udp(sockets: &[Arc<UdpSocket>], is_v6: bool) -> String {
    let mut text = String::from(if is_v6 { UDP6 } else { UDP });
    let entries = sockets.iter().filter(|socket| socket.is_v6() == is_v6);
    for (index, entry) in entries.filter_map(|socket| socket.entry()).enumerate() {
        let (local, remote) = (endpoint(entry.local, is_v6), endpoint(entry.remote, is_v6));
        let line = format!(
            "{index:5}: {local} {remote} {:02X} 00000000:{:08X} 00:00000000 00000000 \
             {:5} {:8} {} 2 0000000000000000 {}",
            entry.state, entry.n_bytes, entry.uid, 0, entry.ino, entry.n_dropped
        );
        let width = if is_v6 { 0 } else { 127 };
        let _ = writeln!(text, "{line:width$}");
    }
    text
}

fn raw(task: &CurrentTask, is_v6: bool) -> String {
    let mut text = String::from(if is_v6 { RAW6 } else { RAW });
    for entry in task.inet().raw_entries(is_v6) {
        let (local, remote) = (endpoint(entry.local, is_v6), endpoint(entry.remote, is_v6));
        // The number of a line is the protocol.
        let line = format!(
            "{:4}: {local} {remote} {:02X} 00000000:{:08X} 00:00000000 00000000 \
             {:5} {:8} {} 2 0000000000000000 {}",
            entry.local.1, entry.state, entry.n_bytes, entry.uid, 0, entry.ino, entry.n_dropped
        );
        let _ = writeln!(text, "{line}");
    }
    text
}

fn packet(task: &CurrentTask) -> String {
    let mut text = String::from(PACKET);
    for entry in task.inet().packet_entries() {
        let _ = writeln!(
            text,
            "0000000000000000 {:<6} {:<4} {:04x}   {:<5} {:1} {:<6} {:<6} {:<6}",
            3, entry.kind, entry.protocol, entry.interface, 1, entry.n_bytes, entry.uid, entry.ino
        );
    }
    text
}

/// `/proc/PID/net/unix`: names are any bytes.
struct Unix;

impl Text for Unix {
    fn show(&self, current: &CurrentTask) -> SysResult<Vec<u8>> {
        Ok(unix(current))
    }
}

fn unix(task: &CurrentTask) -> Vec<u8> {
    let mut text = UNIX.as_bytes().to_vec();
    for entry in task.kernel.unix_sockets.entries(task.inet().id()) {
        const ACCEPTS: u32 = 0x1_0000;
        let flags = if entry.is_listening { ACCEPTS } else { 0 };
        let state = if entry.is_connected { 3 } else { 1 };
        let line = format!(
            "0000000000000000: 00000002 00000000 {flags:08X} {:04X} {state:02X} {:5}",
            entry.kind, entry.ino
        );
        text.extend_from_slice(line.as_bytes());
        if !entry.name.is_empty() {
            text.push(b' ');
            text.extend(entry.name.iter().map(|byte| if *byte == 0 { b'@' } else { *byte }));
        }
        text.push(b'\n');
    }
    text
}

fn sockstat(task: &CurrentTask) -> String {
    let n_tcp = task.inet().tcp_sockets().len();
    let n_udp = task.inet().udp_sockets().len();
    format!(
        "sockets: used {}\nTCP: inuse {n_tcp} orphan 0 tw 0 alloc {n_tcp} mem 0\n\
         UDP: inuse {n_udp} mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
        n_tcp + n_udp
    )
}
