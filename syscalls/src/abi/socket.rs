//! Sockets (`linux/socket.h`, `asm/socket.h`, `linux/un.h`, `linux/in.h`, `linux/in6.h`, `linux/uio.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Address families.
    AF_NAMES: i32 {
        AF_UNSPEC = 0;
        AF_UNIX = 1;
        AF_INET = 2;
        AF_INET6 = 10;
        AF_NETLINK = 16;
        AF_PACKET = 17;
        AF_ALG = 38;
        AF_VSOCK = 40;
    }
}
/// One more than the highest family of Linux 6.12.
pub const AF_MAX: i32 = 46;

constants! {
    /// Types of sockets.
    SOCK_TYPE_NAMES: i32 {
        SOCK_STREAM = 1;
        SOCK_DGRAM = 2;
        SOCK_RAW = 3;
        SOCK_RDM = 4;
        SOCK_SEQPACKET = 5;
        SOCK_DCCP = 6;
        SOCK_PACKET = 10;
    }
}
/// The bits of the type in the second argument of `socket(2)`.
pub const SOCK_TYPE_MASK: i32 = 0xf;

flags! {
    /// Flags in the second argument of `socket(2)` and of `accept4(2)`.
    pub struct SockFlags: u32 as "SOCK_" {
        NONBLOCK = 0o4000;
        CLOEXEC = 0o2000000;
    }
}

constants! {
    /// Levels of socket options.
    SOL_NAMES: i32 {
        SOL_IP = 0;
        SOL_SOCKET = 1;
        SOL_TCP = 6;
        SOL_UDP = 17;
        SOL_IPV6 = 41;
        SOL_ICMPV6 = 58;
        SOL_UDPLITE = 136;
        SOL_RAW = 255;
        SOL_PACKET = 263;
        SOL_NETLINK = 270;
    }
}

constants! {
    /// Options of [`SOL_SOCKET`].
    SO_NAMES: i32 {
        SO_DEBUG = 1;
        SO_REUSEADDR = 2;
        SO_TYPE = 3;
        SO_ERROR = 4;
        SO_DONTROUTE = 5;
        SO_BROADCAST = 6;
        SO_SNDBUF = 7;
        SO_RCVBUF = 8;
        SO_SNDBUFFORCE = 32;
        SO_RCVBUFFORCE = 33;
        SO_KEEPALIVE = 9;
        SO_OOBINLINE = 10;
        SO_NO_CHECK = 11;
        SO_PRIORITY = 12;
        SO_LINGER = 13;
        SO_BSDCOMPAT = 14;
        SO_REUSEPORT = 15;
        SO_PASSCRED = 16;
        SO_PEERCRED = 17;
        SO_RCVLOWAT = 18;
        SO_SNDLOWAT = 19;
        SO_RCVTIMEO = 20;
        SO_SNDTIMEO = 21;
        SO_BINDTODEVICE = 25;
        SO_ATTACH_FILTER = 26;
        SO_DETACH_FILTER = 27;
        SO_PEERNAME = 28;
        SO_TIMESTAMP = 29;
        SO_ACCEPTCONN = 30;
        SO_PEERSEC = 31;
        SO_PASSSEC = 34;
        SO_TIMESTAMPNS = 35;
        SO_MARK = 36;
        SO_TIMESTAMPING = 37;
        SO_PROTOCOL = 38;
        SO_DOMAIN = 39;
        SO_RXQ_OVFL = 40;
        SO_WIFI_STATUS = 41;
        SO_PEEK_OFF = 42;
        SO_NOFCS = 43;
        SO_LOCK_FILTER = 44;
        SO_SELECT_ERR_QUEUE = 45;
        SO_BUSY_POLL = 46;
        SO_MAX_PACING_RATE = 47;
        SO_BPF_EXTENSIONS = 48;
        SO_INCOMING_CPU = 49;
        SO_ATTACH_BPF = 50;
        SO_CNX_ADVICE = 53;
        SO_MEMINFO = 55;
        SO_INCOMING_NAPI_ID = 56;
        SO_COOKIE = 57;
        SO_PEERGROUPS = 59;
        SO_ZEROCOPY = 60;
        SO_TXTIME = 61;
        SO_BINDTOIFINDEX = 62;
        SO_TIMESTAMP_NEW = 63;
        SO_TIMESTAMPNS_NEW = 64;
        SO_TIMESTAMPING_NEW = 65;
        SO_RCVTIMEO_NEW = 66;
        SO_SNDTIMEO_NEW = 67;
        SO_PREFER_BUSY_POLL = 69;
        SO_NETNS_COOKIE = 71;
        SO_BUF_LOCK = 72;
        SO_RESERVE_MEM = 73;
        SO_TXREHASH = 74;
        SO_RCVMARK = 75;
        SO_PASSPIDFD = 76;
        SO_PEERPIDFD = 77;
        SO_RCVPRIORITY = 82;
    }
}

constants! {
    /// Options of [`SOL_TCP`].
    TCP_NAMES: i32 {
        TCP_NODELAY = 1;
        TCP_MAXSEG = 2;
        TCP_CORK = 3;
        TCP_KEEPIDLE = 4;
        TCP_KEEPINTVL = 5;
        TCP_KEEPCNT = 6;
        TCP_SYNCNT = 7;
        TCP_LINGER2 = 8;
        TCP_DEFER_ACCEPT = 9;
        TCP_WINDOW_CLAMP = 10;
        TCP_INFO = 11;
        TCP_QUICKACK = 12;
        TCP_CONGESTION = 13;
        TCP_THIN_LINEAR_TIMEOUTS = 16;
        TCP_THIN_DUPACK = 17;
        TCP_USER_TIMEOUT = 18;
        TCP_FASTOPEN = 23;
        TCP_TIMESTAMP = 24;
        TCP_NOTSENT_LOWAT = 25;
        TCP_SAVE_SYN = 27;
        TCP_SAVED_SYN = 28;
        TCP_FASTOPEN_CONNECT = 30;
        TCP_ULP = 31;
        TCP_FASTOPEN_NO_COOKIE = 34;
        TCP_INQ = 36;
        TCP_TX_DELAY = 37;
        TCP_IS_MPTCP = 43;
        TCP_RTO_MAX_MS = 44;
        TCP_RTO_MIN_US = 45;
        TCP_DELACK_MAX_US = 46;
    }
}

constants! {
    /// Options of [`SOL_UDP`].
    UDP_NAMES: i32 {
        UDP_CORK = 1;
        UDPLITE_SEND_CSCOV = 10;
        UDPLITE_RECV_CSCOV = 11;
        UDP_NO_CHECK6_TX = 101;
        UDP_NO_CHECK6_RX = 102;
        UDP_SEGMENT = 103;
        UDP_GRO = 104;
    }
}

constants! {
    /// Options of [`SOL_IP`].
    IP_NAMES: i32 {
        IP_TOS = 1;
        IP_TTL = 2;
        IP_HDRINCL = 3;
        IP_OPTIONS = 4;
        IP_ROUTER_ALERT = 5;
        IP_RECVOPTS = 6;
        IP_RETOPTS = 7;
        IP_PKTINFO = 8;
        IP_PKTOPTIONS = 9;
        IP_MTU_DISCOVER = 10;
        IP_RECVERR = 11;
        IP_RECVTTL = 12;
        IP_RECVTOS = 13;
        IP_MTU = 14;
        IP_FREEBIND = 15;
        IP_PASSSEC = 18;
        IP_TRANSPARENT = 19;
        IP_RECVORIGDSTADDR = 20;
        IP_MINTTL = 21;
        IP_NODEFRAG = 22;
        IP_CHECKSUM = 23;
        IP_BIND_ADDRESS_NO_PORT = 24;
        IP_RECVFRAGSIZE = 25;
        IP_RECVERR_RFC4884 = 26;
        IP_MULTICAST_IF = 32;
        IP_MULTICAST_TTL = 33;
        IP_MULTICAST_LOOP = 34;
        IP_ADD_MEMBERSHIP = 35;
        IP_DROP_MEMBERSHIP = 36;
        IP_MULTICAST_ALL = 49;
        IP_UNICAST_IF = 50;
        IP_PROTOCOL = 52;
    }
}

constants! {
    /// Options of [`SOL_IPV6`].
    IPV6_NAMES: i32 {
        IPV6_ADDRFORM = 1;
        IPV6_2292PKTINFO = 2;
        IPV6_2292HOPOPTS = 3;
        IPV6_2292DSTOPTS = 4;
        IPV6_2292RTHDR = 5;
        IPV6_2292HOPLIMIT = 8;
        IPV6_FLOWINFO = 11;
        IPV6_CHECKSUM = 7;
        IPV6_UNICAST_HOPS = 16;
        IPV6_MULTICAST_IF = 17;
        IPV6_MULTICAST_HOPS = 18;
        IPV6_MULTICAST_LOOP = 19;
        IPV6_JOIN_GROUP = 20;
        IPV6_LEAVE_GROUP = 21;
        IPV6_MTU_DISCOVER = 23;
        IPV6_MTU = 24;
        IPV6_RECVERR = 25;
        IPV6_V6ONLY = 26;
        IPV6_MULTICAST_ALL = 29;
        IPV6_ROUTER_ALERT_ISOLATE = 30;
        IPV6_RECVERR_RFC4884 = 31;
        IPV6_FLOWINFO_SEND = 33;
        IPV6_HDRINCL = 36;
        IPV6_RECVPKTINFO = 49;
        IPV6_PKTINFO = 50;
        IPV6_RECVHOPLIMIT = 51;
        IPV6_HOPLIMIT = 52;
        IPV6_RECVHOPOPTS = 53;
        IPV6_HOPOPTS = 54;
        IPV6_RTHDRDSTOPTS = 55;
        IPV6_RECVRTHDR = 56;
        IPV6_RTHDR = 57;
        IPV6_RECVDSTOPTS = 58;
        IPV6_DSTOPTS = 59;
        IPV6_RECVPATHMTU = 60;
        IPV6_DONTFRAG = 62;
        IPV6_RECVTCLASS = 66;
        IPV6_TCLASS = 67;
        IPV6_AUTOFLOWLABEL = 70;
        IPV6_ADDR_PREFERENCES = 72;
        IPV6_MINHOPCOUNT = 73;
        IPV6_ORIGDSTADDR = 74;
        IPV6_TRANSPARENT = 75;
        IPV6_UNICAST_IF = 76;
        IPV6_RECVFRAGSIZE = 77;
        IPV6_FREEBIND = 78;
    }
}

constants! {
    /// Options of [`SOL_PACKET`].
    PACKET_NAMES: i32 {
        PACKET_ADD_MEMBERSHIP = 1;
        PACKET_DROP_MEMBERSHIP = 2;
        PACKET_RX_RING = 5;
        PACKET_STATISTICS = 6;
        PACKET_COPY_THRESH = 7;
        PACKET_AUXDATA = 8;
        PACKET_ORIGDEV = 9;
        PACKET_VERSION = 10;
        PACKET_HDRLEN = 11;
        PACKET_RESERVE = 12;
        PACKET_TX_RING = 13;
        PACKET_LOSS = 14;
        PACKET_VNET_HDR = 15;
        PACKET_TX_TIMESTAMP = 16;
        PACKET_TIMESTAMP = 17;
        PACKET_FANOUT = 18;
        PACKET_TX_HAS_OFF = 19;
        PACKET_QDISC_BYPASS = 20;
        PACKET_IGNORE_OUTGOING = 23;
    }
}

constants! {
    /// Protocols of IP.
    IPPROTO_NAMES: i32 {
        IPPROTO_IP = 0;
        IPPROTO_ICMP = 1;
        IPPROTO_TCP = 6;
        IPPROTO_UDP = 17;
        IPPROTO_IPV6 = 41;
        IPPROTO_ICMPV6 = 58;
        IPPROTO_UDPLITE = 136;
        IPPROTO_RAW = 255;
    }
}

flags! {
    /// Flags of `sendmsg(2)` and `recvmsg(2)`.
    pub struct MsgFlags: u32 as "MSG_" {
        OOB = 1;
        PEEK = 2;
        DONTROUTE = 4;
        CTRUNC = 8;
        PROBE = 0x10;
        TRUNC = 0x20;
        DONTWAIT = 0x40;
        EOR = 0x80;
        WAITALL = 0x100;
        FIN = 0x200;
        SYN = 0x400;
        CONFIRM = 0x800;
        RST = 0x1000;
        ERRQUEUE = 0x2000;
        NOSIGNAL = 0x4000;
        MORE = 0x8000;
        WAITFORONE = 0x0001_0000;
        BATCH = 0x0004_0000;
        ZEROCOPY = 0x0400_0000;
        FASTOPEN = 0x2000_0000;
        CMSG_CLOEXEC = 0x4000_0000;
    }
}

flags! {
    /// Flags of `SO_TIMESTAMPING`.
    pub struct StampFlags: u32 as "SOF_TIMESTAMPING_" {
        TX_HARDWARE = 1;
        TX_SOFTWARE = 2;
        RX_HARDWARE = 4;
        RX_SOFTWARE = 8;
        SOFTWARE = 0x10;
        SYS_HARDWARE = 0x20;
        RAW_HARDWARE = 0x40;
        OPT_ID = 0x80;
        TX_SCHED = 0x100;
        TX_ACK = 0x200;
        OPT_CMSG = 0x400;
        OPT_TSONLY = 0x800;
        OPT_STATS = 0x1000;
        OPT_PKTINFO = 0x2000;
        OPT_TX_SWHW = 0x4000;
        BIND_PHC = 0x8000;
        OPT_ID_TCP = 0x0001_0000;
        OPT_RX_FILTER = 0x0002_0000;
        TX_COMPLETION = 0x0004_0000;
    }
}

constants! {
    /// Types of control messages of [`SOL_SOCKET`].
    SCM_NAMES: i32 {
        SCM_RIGHTS = 1;
        SCM_CREDENTIALS = 2;
        SCM_SECURITY = 3;
        SCM_PIDFD = 4;
    }
}
/// The most descriptors of one `SCM_RIGHTS` message.
pub const SCM_MAX_FD: usize = 253;

constants! {
    /// How `shutdown(2)` shuts.
    SHUT_NAMES: i32 {
        SHUT_RD = 0;
        SHUT_WR = 1;
        SHUT_RDWR = 2;
    }
}
/// The longest queue of `listen(2)` unless configured otherwise.
pub const SOMAXCONN: i32 = 4096;

/// Corresponds to `struct sockaddr_ll`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SockaddrLl {
    pub sll_family: u16,
    pub sll_protocol: [u8; 2],
    pub sll_ifindex: i32,
    pub sll_hatype: u16,
    pub sll_pkttype: u8,
    pub sll_halen: u8,
    pub sll_addr: [u8; 8],
}

/// Corresponds to `struct tpacket_auxdata`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct TpacketAuxdata {
    pub tp_status: u32,
    pub tp_len: u32,
    pub tp_snaplen: u32,
    pub tp_mac: u16,
    pub tp_net: u16,
    pub tp_vlan_tci: u16,
    pub tp_vlan_tpid: u16,
}

/// Corresponds to `struct iovec`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Iovec {
    pub iov_base: u64,
    pub iov_len: u64,
}

/// Corresponds to `struct msghdr` as the kernel sees it (`struct user_msghdr`).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Msghdr {
    pub msg_name: u64,
    pub msg_namelen: i32,
    pub pad0: u32,
    pub msg_iov: u64,
    pub msg_iovlen: u64,
    pub msg_control: u64,
    pub msg_controllen: u64,
    pub msg_flags: u32,
    pub pad1: u32,
}

/// Corresponds to `struct mmsghdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Mmsghdr {
    pub msg_hdr: Msghdr,
    pub msg_len: u32,
    pub pad0: u32,
}

/// Corresponds to `struct cmsghdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Cmsghdr {
    pub cmsg_len: u64,
    pub cmsg_level: i32,
    pub cmsg_type: i32,
}

/// Rounds a length up to the alignment of control messages: `CMSG_ALIGN`.
pub const fn cmsg_align(len: usize) -> Option<usize> {
    match len.checked_add(7) {
        Some(len) => Some(len & !7),
        None => None,
    }
}

/// Corresponds to `struct ucred`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// Corresponds to `struct linger`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Linger {
    pub l_onoff: i32,
    pub l_linger: i32,
}

/// The size of `struct sockaddr_storage`.
pub const SOCKADDR_STORAGE_SIZE: usize = 128;
/// The size of `sun_path`.
pub const UNIX_PATH_MAX: usize = 108;

/// Corresponds to `struct sockaddr_un`; the path need not end with a NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SockaddrUn {
    pub sun_family: u16,
    pub sun_path: [u8; UNIX_PATH_MAX],
}

/// Corresponds to `struct sockaddr_in`; port and address in network order.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SockaddrIn {
    pub sin_family: u16,
    pub sin_port: [u8; 2],
    pub sin_addr: [u8; 4],
    pub sin_zero: [u8; 8],
}

/// Corresponds to `struct sockaddr_in6`; port and address in network order.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SockaddrIn6 {
    pub sin6_family: u16,
    pub sin6_port: [u8; 2],
    pub sin6_flowinfo: u32,
    pub sin6_addr: [u8; 16],
    pub sin6_scope_id: u32,
}

/// Corresponds to `struct sockaddr_nl`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct SockaddrNl {
    pub nl_family: u16,
    pub nl_pad: u16,
    pub nl_pid: u32,
    pub nl_groups: u32,
}

/// Corresponds to `struct nlmsghdr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Nlmsghdr {
    pub nlmsg_len: u32,
    pub nlmsg_type: u16,
    pub nlmsg_flags: u16,
    pub nlmsg_seq: u32,
    pub nlmsg_pid: u32,
}
