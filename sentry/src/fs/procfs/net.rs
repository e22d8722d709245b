//! `/proc/PID/net`: the sockets there are, and the rest of the network as far as its files have been
//! asked for by programs.

use std::fmt::Write;
use std::net::IpAddr;

use super::super::pseudo::{Named, Numbers};
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

const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";

const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n";

const ARP: &str =
    "IP address       HW type     Flags       HW address            Mask     Device\n";

const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n";

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
        ("dev", DEV),
        ("if_inet6", IF_INET6),
        ("ipv6_route", IPV6_ROUTE),
        ("netlink", NETLINK),
        ("packet", PACKET),
        ("psched", PSCHED),
        ("ptype", PTYPE),
        ("raw", RAW),
        ("arp", ARP),
        ("route", ROUTE),
        ("snmp", SNMP),
    ]
    .into_iter()
    .map(|(name, text)| numbers.fixed(name, 0o444, text))
    .chain([
        numbers.text("sockstat", 0o444, sockstat),
        numbers.text("tcp", 0o444, |task: &CurrentTask| tcp(task, false)),
        numbers.text("tcp6", 0o444, |task: &CurrentTask| tcp(task, true)),
        numbers.text("udp", 0o444, |task: &CurrentTask| udp(task, false)),
        numbers.text("udp6", 0o444, |task: &CurrentTask| udp(task, true)),
        numbers.text("unix", 0o444, unix),
    ])
    .collect()
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

fn tcp(task: &CurrentTask, is_v6: bool) -> String {
    let mut text = String::from(if is_v6 { TCP6 } else { TCP });
    let sockets = task.kernel.inet.tcp_sockets();
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

fn udp(task: &CurrentTask, is_v6: bool) -> String {
    let mut text = String::from(if is_v6 { UDP6 } else { UDP });
    let sockets = task.kernel.inet.udp_sockets();
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

/// DEVIATION: sockets without a name are not shown.
fn unix(task: &CurrentTask) -> String {
    let mut text = String::from(UNIX);
    for entry in task.kernel.unix_sockets.entries() {
        const ACCEPTS: u32 = 0x1_0000;
        let flags = if entry.is_listening { ACCEPTS } else { 0 };
        let state = if entry.is_connected { 3 } else { 1 };
        let name = String::from_utf8_lossy(&entry.name).replace('\0', "@");
        let _ = writeln!(
            text,
            "0000000000000000: 00000002 00000000 {flags:08X} {:04X} {state:02X} {:5} {name}",
            entry.kind, entry.ino
        );
    }
    text
}

fn sockstat(task: &CurrentTask) -> String {
    let n_tcp = task.kernel.inet.tcp_sockets().len();
    let n_udp = task.kernel.inet.udp_sockets().len();
    format!(
        "sockets: used {}\nTCP: inuse {n_tcp} orphan 0 tw 0 alloc {n_tcp} mem 0\n\
         UDP: inuse {n_udp} mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
        n_tcp + n_udp
    )
}
