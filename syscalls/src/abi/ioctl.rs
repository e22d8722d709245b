//! `ioctl(2)`: terminals and the requests that every file takes (`asm/ioctls.h`, `asm/termbits.h`,
//! `linux/fs.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

constants! {
    /// Requests.
    IOCTL_NAMES: u32 {
        TCGETS = 0x5401;
        TCSETS = 0x5402;
        TCSETSW = 0x5403;
        TCSETSF = 0x5404;
        TCGETA = 0x5405;
        TCSETA = 0x5406;
        TCSETAW = 0x5407;
        TCSETAF = 0x5408;
        TCSBRK = 0x5409;
        TCXONC = 0x540a;
        TCFLSH = 0x540b;
        TIOCEXCL = 0x540c;
        TIOCNXCL = 0x540d;
        TIOCSCTTY = 0x540e;
        TIOCGPGRP = 0x540f;
        TIOCSPGRP = 0x5410;
        TIOCOUTQ = 0x5411;
        TIOCSTI = 0x5412;
        TIOCGWINSZ = 0x5413;
        TIOCSWINSZ = 0x5414;
        TIOCMGET = 0x5415;
        TIOCMBIS = 0x5416;
        TIOCMBIC = 0x5417;
        TIOCMSET = 0x5418;
        TIOCGSOFTCAR = 0x5419;
        TIOCSSOFTCAR = 0x541a;
        FIONREAD = 0x541b;
        TIOCLINUX = 0x541c;
        TIOCCONS = 0x541d;
        TIOCGSERIAL = 0x541e;
        TIOCSSERIAL = 0x541f;
        TIOCPKT = 0x5420;
        FIONBIO = 0x5421;
        TIOCNOTTY = 0x5422;
        TIOCSETD = 0x5423;
        TIOCGETD = 0x5424;
        TCSBRKP = 0x5425;
        TIOCSBRK = 0x5427;
        TIOCCBRK = 0x5428;
        TIOCGSID = 0x5429;
        TCGETS2 = 0x802c_542a;
        TCSETS2 = 0x402c_542b;
        TCSETSW2 = 0x402c_542c;
        TCSETSF2 = 0x402c_542d;
        TIOCGPTN = 0x8004_5430;
        TIOCSPTLCK = 0x4004_5431;
        TIOCGDEV = 0x8004_5432;
        TIOCSIG = 0x4004_5436;
        TIOCVHANGUP = 0x5437;
        TIOCGPKT = 0x8004_5438;
        TIOCGPTLCK = 0x8004_5439;
        TIOCGEXCL = 0x8004_5440;
        TIOCGPTPEER = 0x5441;
        FIONCLEX = 0x5450;
        FIOCLEX = 0x5451;
        FIOASYNC = 0x5452;
        TIOCGLCKTRMIOS = 0x5456;
        TIOCSLCKTRMIOS = 0x5457;
        FIOQSIZE = 0x5460;
        FIOSETOWN = 0x8901;
        SIOCSPGRP = 0x8902;
        FIOGETOWN = 0x8903;
        SIOCGPGRP = 0x8904;
        SIOCATMARK = 0x8905;
        SIOCGIFNAME = 0x8910;
        SIOCGIFCONF = 0x8912;
        SIOCGIFFLAGS = 0x8913;
        SIOCGIFADDR = 0x8915;
        SIOCGIFINDEX = 0x8933;
        SIOCGIFMTU = 0x8921;
        SIOCSIFMTU = 0x8922;
        SIOCGIFHWADDR = 0x8927;
        SIOCGIFNETMASK = 0x891b;
        SIOCGSTAMP = 0x8906;
        SIOCSIFFLAGS = 0x8914;
        SIOCSIFADDR = 0x8916;
        SIOCSIFNETMASK = 0x891c;
        SIOCGIFDSTADDR = 0x8917;
        SIOCGIFBRDADDR = 0x8919;
        SIOCGIFMETRIC = 0x891d;
        SIOCGIFTXQLEN = 0x8942;
        SIOCGIFMAP = 0x8970;
        FIBMAP = 1;
        FIGETBSZ = 2;
        FIFREEZE = 0xc004_5877;
        FITHAW = 0xc004_5878;
        FICLONE = 0x4004_9409;
        FICLONERANGE = 0x4020_940d;
        FIDEDUPERANGE = 0xc018_9436;
        FS_IOC_GETFLAGS = 0x8008_6601;
        FS_IOC_SETFLAGS = 0x4008_6602;
        FS_IOC_GETVERSION = 0x8008_7601;
        FS_IOC_FSGETXATTR = 0x801c_581f;
        FS_IOC_FIEMAP = 0xc020_660b;
        BLKGETSIZE64 = 0x8008_1272;
        BLKSSZGET = 0x1268;
        RNDGETENTCNT = 0x8004_5200;
        RNDADDTOENTCNT = 0x4004_5201;
        RNDADDENTROPY = 0x4008_5203;
        SECCOMP_IOCTL_NOTIF_RECV = 0xc050_2100;
        SECCOMP_IOCTL_NOTIF_SEND = 0xc018_2101;
        SECCOMP_IOCTL_NOTIF_ID_VALID = 0x4008_2102;
        SECCOMP_IOCTL_NOTIF_ID_VALID_WRONG_DIR = 0x8008_2102;
        SECCOMP_IOCTL_NOTIF_ADDFD = 0x4018_2103;
        SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x4008_2104;
        NS_GET_USERNS = 0xb701;
        NS_GET_PARENT = 0xb702;
        NS_GET_NSTYPE = 0xb703;
        NS_GET_OWNER_UID = 0xb704;
        NS_GET_PID_FROM_PIDNS = 0x8004_b706;
        NS_GET_TGID_FROM_PIDNS = 0x8004_b707;
        NS_GET_PID_IN_PIDNS = 0x8004_b708;
        NS_GET_TGID_IN_PIDNS = 0x8004_b709;
    }
}

/// Corresponds to the kernel's `struct termios`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Termios {
    pub c_iflag: u32,
    pub c_oflag: u32,
    pub c_cflag: u32,
    pub c_lflag: u32,
    pub c_line: u8,
    pub c_cc: [u8; NCCS],
}

/// Corresponds to the kernel's `struct termios2`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Termios2 {
    pub c_iflag: u32,
    pub c_oflag: u32,
    pub c_cflag: u32,
    pub c_lflag: u32,
    pub c_line: u8,
    pub c_cc: [u8; NCCS],
    pub c_ispeed: u32,
    pub c_ospeed: u32,
}

/// Corresponds to `struct termio`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Termio {
    pub c_iflag: u16,
    pub c_oflag: u16,
    pub c_cflag: u16,
    pub c_lflag: u16,
    pub c_line: u8,
    pub c_cc: [u8; 8],
    pub pad0: u8,
}

/// Corresponds to `struct winsize`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Winsize {
    pub ws_row: u16,
    pub ws_col: u16,
    pub ws_xpixel: u16,
    pub ws_ypixel: u16,
}

/// How many control characters the kernel's `struct termios` has.
pub const NCCS: usize = 19;

constants! {
    /// Indices of control characters.
    CC_NAMES: usize {
        VINTR = 0;
        VQUIT = 1;
        VERASE = 2;
        VKILL = 3;
        VEOF = 4;
        VTIME = 5;
        VMIN = 6;
        VSWTC = 7;
        VSTART = 8;
        VSTOP = 9;
        VSUSP = 10;
        VEOL = 11;
        VREPRINT = 12;
        VDISCARD = 13;
        VWERASE = 14;
        VLNEXT = 15;
        VEOL2 = 16;
    }
}

flags! {
    /// Bits of `c_iflag`.
    pub struct InputModes: u32 as "" {
        IGNBRK = 1;
        BRKINT = 2;
        IGNPAR = 4;
        PARMRK = 0o10;
        INPCK = 0o20;
        ISTRIP = 0o40;
        INLCR = 0o100;
        IGNCR = 0o200;
        ICRNL = 0o400;
        IUCLC = 0o1000;
        IXON = 0o2000;
        IXANY = 0o4000;
        IXOFF = 0o10000;
        IMAXBEL = 0o20000;
        IUTF8 = 0o40000;
    }
}

flags! {
    /// Bits of `c_oflag`.
    pub struct OutputModes: u32 as "" {
        OPOST = 1;
        OLCUC = 2;
        ONLCR = 4;
        OCRNL = 0o10;
        ONOCR = 0o20;
        ONLRET = 0o40;
        OFILL = 0o100;
        OFDEL = 0o200;
        TABDLY = 0o14000;
    }
}

flags! {
    /// Bits of `c_cflag`; the speed is in `CBAUD`, the size in `CSIZE`.
    pub struct ControlModes: u32 as "" {
        CBAUD = 0o10017;
        CSIZE = 0o60;
        CSTOPB = 0o100;
        CREAD = 0o200;
        PARENB = 0o400;
        PARODD = 0o1000;
        HUPCL = 0o2000;
        CLOCAL = 0o4000;
    }
}
pub const B9600: u32 = 0o15;
pub const B38400: u32 = 0o17;
pub const B115200: u32 = 0o10002;
pub const CS8: u32 = 0o60;

flags! {
    /// Bits of `c_lflag`.
    pub struct LocalModes: u32 as "" {
        ISIG = 1;
        ICANON = 2;
        XCASE = 4;
        ECHO = 0o10;
        ECHOE = 0o20;
        ECHOK = 0o40;
        ECHONL = 0o100;
        NOFLSH = 0o200;
        TOSTOP = 0o400;
        ECHOCTL = 0o1000;
        ECHOPRT = 0o2000;
        ECHOKE = 0o4000;
        FLUSHO = 0o10000;
        PENDIN = 0o40000;
        IEXTEN = 0o100000;
        EXTPROC = 0o200000;
    }
}

constants! {
    /// Arguments of [`TCFLSH`].
    TCFLSH_NAMES: u64 {
        TCIFLUSH = 0;
        TCOFLUSH = 1;
        TCIOFLUSH = 2;
    }
}
constants! {
    /// Arguments of [`TCXONC`].
    TCXONC_NAMES: u64 {
        TCOOFF = 0;
        TCOON = 1;
        TCIOFF = 2;
        TCION = 3;
    }
}

/// What a new terminal is set to: Linux's `tty_std_termios` with the speed of a pty.
pub const DEFAULT_TERMIOS: Termios = Termios {
    c_iflag: 0o2400,
    c_oflag: 0o5,
    c_cflag: 0o277,
    c_lflag: 0o105_073,
    c_line: 0,
    c_cc: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
};

/// Corresponds to `struct file_clone_range`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FileCloneRange {
    pub src_fd: i64,
    pub src_offset: u64,
    pub src_length: u64,
    pub dest_offset: u64,
}
