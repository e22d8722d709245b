//! `/proc/PID/net`: the network as far as its files have been asked for by programs.

use super::super::pseudo::{Named, Numbers};

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

const SOCKSTAT: &str = "\
sockets: used 0
TCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0
UDP: inuse 0 mem 0
UDPLITE: inuse 0
RAW: inuse 0
FRAG: inuse 0 memory 0
";

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
        ("sockstat", SOCKSTAT),
        ("tcp", TCP),
        ("tcp6", TCP6),
        ("udp", UDP),
        ("udp6", UDP6),
        ("unix", UNIX),
    ]
    .into_iter()
    .map(|(name, text)| numbers.fixed(name, 0o444, text))
    .collect()
}
