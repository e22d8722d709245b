//! Netlink and its routing family (`linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`,
//! `linux/if_addr.h`, `linux/fib_rules.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Protocols of `AF_NETLINK`.
    NETLINK_NAMES: i32 {
        NETLINK_ROUTE = 0;
        NETLINK_USERSOCK = 2;
        NETLINK_SOCK_DIAG = 4;
        NETLINK_AUDIT = 9;
        NETLINK_KOBJECT_UEVENT = 15;
        NETLINK_GENERIC = 16;
    }
}

constants! {
    /// Types of messages.
    RTM_NAMES: u16 {
        NLMSG_NOOP = 1;
        NLMSG_ERROR = 2;
        NLMSG_DONE = 3;
        RTM_NEWLINK = 16;
        RTM_GETLINK = 18;
        RTM_SETLINK = 19;
        RTM_NEWADDR = 20;
        RTM_DELADDR = 21;
        RTM_GETADDR = 22;
        RTM_NEWROUTE = 24;
        RTM_GETROUTE = 26;
        RTM_NEWNEIGH = 28;
        RTM_GETNEIGH = 30;
        RTM_NEWRULE = 32;
        RTM_GETRULE = 34;
        RTM_GETQDISC = 38;
        RTM_GETTCLASS = 42;
        RTM_GETTFILTER = 46;
        RTM_GETMULTICAST = 58;
        RTM_GETANYCAST = 62;
        RTM_GETNEIGHTBL = 66;
        RTM_GETADDRLABEL = 74;
        RTM_GETNETCONF = 82;
        RTM_GETNEXTHOP = 106;
    }
}
/// The first type of a family of its own.
pub const NLMSG_MIN_TYPE: u16 = 0x10;
/// One more than the last type of the routing family.
pub const RTM_MAX: u16 = 124;

flags! {
    /// Flags of messages.
    pub struct NlmFlags: u32 as "NLM_F_" {
        REQUEST = 1;
        MULTI = 2;
        ACK = 4;
        ROOT = 0x100;
        MATCH = 0x200;
    }
}

flags! {
    /// Flags of requests that make something: other names for bits of [`NlmFlags`].
    pub struct NlmNewFlags: u32 as "NLM_F_" {
        REPLACE = 0x100;
        EXCL = 0x200;
        CREATE = 0x400;
    }
}
/// In an answer: the request is left out.
pub const NLM_F_CAPPED: u16 = 0x100;

constants! {
    /// Options of `SOL_NETLINK`.
    NETLINK_OPTION_NAMES: i32 {
        NETLINK_ADD_MEMBERSHIP = 1;
        NETLINK_DROP_MEMBERSHIP = 2;
        NETLINK_PKTINFO = 3;
        NETLINK_BROADCAST_ERROR = 4;
        NETLINK_NO_ENOBUFS = 5;
        NETLINK_LISTEN_ALL_NSID = 8;
        NETLINK_LIST_MEMBERSHIPS = 9;
        NETLINK_CAP_ACK = 10;
        NETLINK_EXT_ACK = 11;
        NETLINK_GET_STRICT_CHK = 12;
    }
}

constants! {
    /// Attributes of links.
    IFLA_NAMES: u16 {
        IFLA_ADDRESS = 1;
        IFLA_BROADCAST = 2;
        IFLA_IFNAME = 3;
        IFLA_MTU = 4;
        IFLA_QDISC = 6;
        IFLA_STATS = 7;
        IFLA_TXQLEN = 13;
        IFLA_MAP = 14;
        IFLA_OPERSTATE = 16;
        IFLA_LINKMODE = 17;
        IFLA_STATS64 = 23;
        IFLA_GROUP = 27;
        IFLA_PROMISCUITY = 30;
        IFLA_NUM_TX_QUEUES = 31;
        IFLA_NUM_RX_QUEUES = 32;
        IFLA_CARRIER = 33;
        IFLA_CARRIER_CHANGES = 35;
        IFLA_ALT_IFNAME = 53;
    }
}

constants! {
    /// Attributes of addresses.
    IFA_NAMES: u16 {
        IFA_ADDRESS = 1;
        IFA_LOCAL = 2;
        IFA_LABEL = 3;
        IFA_BROADCAST = 4;
        IFA_CACHEINFO = 6;
        IFA_FLAGS = 8;
    }
}

constants! {
    /// Attributes of routes.
    RTA_NAMES: u16 {
        RTA_DST = 1;
        RTA_OIF = 4;
        RTA_GATEWAY = 5;
        RTA_PRIORITY = 6;
        RTA_PREFSRC = 7;
        RTA_CACHEINFO = 12;
        RTA_TABLE = 15;
        RTA_PREF = 20;
    }
}

constants! {
    /// Attributes of neighbours.
    NDA_NAMES: u16 {
        NDA_DST = 1;
        NDA_LLADDR = 2;
    }
}

constants! {
    /// Attributes of rules.
    FRA_NAMES: u16 {
        FRA_PRIORITY = 6;
        FRA_SUPPRESS_PREFIXLEN = 14;
        FRA_TABLE = 15;
        FRA_PROTOCOL = 21;
    }
}

/// Corresponds to `struct ifinfomsg`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ifinfomsg {
    pub ifi_family: u8,
    pub pad: u8,
    pub ifi_type: u16,
    pub ifi_index: i32,
    pub ifi_flags: u32,
    pub ifi_change: u32,
}

/// Corresponds to `struct ifaddrmsg`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ifaddrmsg {
    pub ifa_family: u8,
    pub ifa_prefixlen: u8,
    pub ifa_flags: u8,
    pub ifa_scope: u8,
    pub ifa_index: u32,
}

/// Corresponds to `struct rtmsg`, and to `struct fib_rule_hdr`, whose `action` is where `type` is.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Rtmsg {
    pub rtm_family: u8,
    pub rtm_dst_len: u8,
    pub rtm_src_len: u8,
    pub rtm_tos: u8,
    pub rtm_table: u8,
    pub rtm_protocol: u8,
    pub rtm_scope: u8,
    pub rtm_type: u8,
    pub rtm_flags: u32,
}

/// Corresponds to `struct ndmsg`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ndmsg {
    pub ndm_family: u8,
    pub ndm_pad1: u8,
    pub ndm_pad2: u16,
    pub ndm_ifindex: i32,
    pub ndm_state: u16,
    pub ndm_flags: u8,
    pub ndm_type: u8,
}

/// Corresponds to `struct nlattr` and `struct rtattr`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Nlattr {
    pub nla_len: u16,
    pub nla_type: u16,
}
