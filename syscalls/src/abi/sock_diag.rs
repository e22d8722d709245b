//! Questions about sockets over netlink (`linux/sock_diag.h`, `linux/inet_diag.h`, `linux/unix_diag.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Types of messages.
    SOCK_DIAG_NAMES: u16 {
        TCPDIAG_GETSOCK = 18;
        DCCPDIAG_GETSOCK = 19;
        SOCK_DIAG_BY_FAMILY = 20;
        SOCK_DESTROY = 21;
    }
}

constants! {
    /// Attributes of requests for Internet sockets.
    INET_DIAG_REQ_NAMES: u16 {
        INET_DIAG_REQ_PROTOCOL = 3;
    }
}

constants! {
    /// Attributes of Internet sockets.
    INET_DIAG_NAMES: u16 {
        INET_DIAG_INFO = 2;
        INET_DIAG_CONG = 4;
        INET_DIAG_TOS = 5;
        INET_DIAG_TCLASS = 6;
        INET_DIAG_SKMEMINFO = 7;
        INET_DIAG_SHUTDOWN = 8;
        INET_DIAG_SKV6ONLY = 11;
    }
}

constants! {
    /// Attributes of unix sockets.
    UNIX_DIAG_NAMES: u16 {
        UNIX_DIAG_NAME = 0;
        UNIX_DIAG_PEER = 2;
        UNIX_DIAG_RQLEN = 4;
        UNIX_DIAG_SHUTDOWN = 6;
    }
}

constants! {
    /// Which attributes of unix sockets are asked for.
    UDIAG_NAMES: u32 {
        UDIAG_SHOW_NAME = 1;
        UDIAG_SHOW_PEER = 4;
        UDIAG_SHOW_RQLEN = 0x10;
    }
}

/// Corresponds to `struct inet_diag_sockid`; ports and addresses are big-endian.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct InetDiagSockid {
    pub idiag_sport: [u8; 2],
    pub idiag_dport: [u8; 2],
    pub idiag_src: [u8; 16],
    pub idiag_dst: [u8; 16],
    pub idiag_if: u32,
    pub idiag_cookie: [u32; 2],
}

/// Corresponds to `struct inet_diag_req`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct InetDiagReq {
    pub idiag_family: u8,
    pub idiag_src_len: u8,
    pub idiag_dst_len: u8,
    pub idiag_ext: u8,
    pub id: InetDiagSockid,
    pub idiag_states: u32,
    pub idiag_dbs: u32,
}

/// Corresponds to `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct InetDiagReqV2 {
    pub sdiag_family: u8,
    pub sdiag_protocol: u8,
    pub idiag_ext: u8,
    pub pad: u8,
    pub idiag_states: u32,
    pub id: InetDiagSockid,
}

/// Corresponds to `struct inet_diag_msg`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct InetDiagMsg {
    pub idiag_family: u8,
    pub idiag_state: u8,
    pub idiag_timer: u8,
    pub idiag_retrans: u8,
    pub id: InetDiagSockid,
    pub idiag_expires: u32,
    pub idiag_rqueue: u32,
    pub idiag_wqueue: u32,
    pub idiag_uid: u32,
    pub idiag_inode: u32,
}

/// Corresponds to `struct unix_diag_req`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct UnixDiagReq {
    pub sdiag_family: u8,
    pub sdiag_protocol: u8,
    pub pad: u16,
    pub udiag_states: u32,
    pub udiag_ino: u32,
    pub udiag_show: u32,
    pub udiag_cookie: [u32; 2],
}

/// Corresponds to `struct unix_diag_msg`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct UnixDiagMsg {
    pub udiag_family: u8,
    pub udiag_type: u8,
    pub udiag_state: u8,
    pub pad: u8,
    pub udiag_ino: u32,
    pub udiag_cookie: [u32; 2],
}

#[cfg(test)]
mod tests {
    use super::{
        InetDiagMsg, InetDiagReq, InetDiagReqV2, InetDiagSockid, UnixDiagMsg, UnixDiagReq,
    };

    #[test]
    fn sizes_are_those_of_linux() {
        assert_eq!(size_of::<InetDiagSockid>(), 48);
        assert_eq!(size_of::<InetDiagReq>(), 60);
        assert_eq!(size_of::<InetDiagReqV2>(), 56);
        assert_eq!(size_of::<InetDiagMsg>(), 72);
        assert_eq!(size_of::<UnixDiagReq>(), 24);
        assert_eq!(size_of::<UnixDiagMsg>(), 16);
    }
}
