//! Files: `stat`, `open`, directory entries, `fcntl`, `statfs`, and the flags of the calls on them
//! (`linux/fcntl.h`, `linux/stat.h`, `asm/stat.h`, `linux/openat2.h`, `asm/statfs.h`).
#![expect(missing_docs, reason = "the names are Linux's own")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::time::Timespec;

flags! {
    /// Flags of `open(2)` and `fcntl(F_SETFL)`; the access mode is [`OpenFlags::access_mode`].
    pub struct OpenFlags: u32 as "O_" {
        WRONLY = 1;
        RDWR = 2;
        CREAT = 0o100;
        EXCL = 0o200;
        NOCTTY = 0o400;
        TRUNC = 0o1000;
        APPEND = 0o2000;
        NONBLOCK = 0o4000;
        DSYNC = 0o10000;
        ASYNC = 0o20000;
        DIRECT = 0o40000;
        LARGEFILE = 0o100000;
        DIRECTORY = 0o200000;
        NOFOLLOW = 0o400000;
        NOATIME = 0o1000000;
        CLOEXEC = 0o2000000;
        SYNC = 0o4010000;
        PATH = 0o10000000;
        TMPFILE = 0o20200000;
    }
}

impl OpenFlags {
    /// The two bits of the access mode: `O_ACCMODE`.
    pub const ACCMODE: u32 = 3;
    /// The access mode that opens for reading only: `O_RDONLY`.
    pub const RDONLY: Self = Self::empty();

    /// Returns the access mode alone: 0 (read), 1 (write), 2 (both) or 3 (neither, for ioctls).
    pub const fn access_mode(self) -> u32 {
        self.bits() & Self::ACCMODE
    }

    /// Returns whether the access mode allows reading.
    pub const fn is_readable(self) -> bool {
        matches!(self.access_mode(), 0 | 2) && !self.contains(Self::PATH)
    }

    /// Returns whether the access mode allows writing.
    pub const fn is_writable(self) -> bool {
        matches!(self.access_mode(), 1 | 2) && !self.contains(Self::PATH)
    }
}

/// The directory descriptor that stands for the working directory.
pub const AT_FDCWD: i32 = -100;
/// The size of a path with its final NUL.
pub const PATH_MAX: usize = 4096;
/// The length of one name without its final NUL.
pub const NAME_MAX: usize = 255;
/// How many symbolic links one path walk follows.
pub const MAXSYMLINKS: u32 = 40;
/// The most bytes that one read or write transfers.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;
/// The most elements of an I/O vector.
pub const UIO_MAXIOV: usize = 1024;

flags! {
    /// Flags of the `*at(2)` calls.
    pub struct AtFlags: u32 as "AT_" {
        SYMLINK_NOFOLLOW = 0x100;
        REMOVEDIR = 0x200;
        SYMLINK_FOLLOW = 0x400;
        NO_AUTOMOUNT = 0x800;
        EMPTY_PATH = 0x1000;
        STATX_FORCE_SYNC = 0x2000;
        STATX_DONT_SYNC = 0x4000;
        RECURSIVE = 0x8000;
    }
}

impl AtFlags {
    /// The flag of `faccessat2(2)` that checks with effective ids; its bit is `AT_REMOVEDIR`'s.
    pub const EACCESS: Self = Self::REMOVEDIR;
}

constants! {
    /// What `access(2)` asks for; zero is `F_OK`.
    ACCESS_NAMES: u32 {
        X_OK = 1;
        W_OK = 2;
        R_OK = 4;
    }
}
/// Whether the file exists.
pub const F_OK: u32 = 0;

constants! {
    /// File types in `st_mode`.
    FILE_TYPE_NAMES: u32 {
        S_IFIFO = 0o10000;
        S_IFCHR = 0o20000;
        S_IFDIR = 0o40000;
        S_IFBLK = 0o60000;
        S_IFREG = 0o100000;
        S_IFLNK = 0o120000;
        S_IFSOCK = 0o140000;
    }
}
/// The bits of the file type.
pub const S_IFMT: u32 = 0o170_000;
pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;
pub const S_IRUSR: u32 = 0o400;
pub const S_IWUSR: u32 = 0o200;
pub const S_IXUSR: u32 = 0o100;
pub const S_IRWXU: u32 = 0o700;
pub const S_IRGRP: u32 = 0o40;
pub const S_IWGRP: u32 = 0o20;
pub const S_IXGRP: u32 = 0o10;
pub const S_IRWXG: u32 = 0o70;
pub const S_IROTH: u32 = 0o4;
pub const S_IWOTH: u32 = 0o2;
pub const S_IXOTH: u32 = 0o1;
pub const S_IRWXO: u32 = 0o7;
pub const S_IRWXUGO: u32 = 0o777;
/// All permission bits with set-id and sticky.
pub const S_IALLUGO: u32 = 0o7777;
/// Execute permission for anyone.
pub const S_IXUGO: u32 = 0o111;

constants! {
    /// Values of `whence` of `lseek(2)`.
    SEEK_NAMES: u32 {
        SEEK_SET = 0;
        SEEK_CUR = 1;
        SEEK_END = 2;
        SEEK_DATA = 3;
        SEEK_HOLE = 4;
    }
}

constants! {
    /// Values of `d_type`.
    DT_NAMES: u8 {
        DT_UNKNOWN = 0;
        DT_FIFO = 1;
        DT_CHR = 2;
        DT_DIR = 4;
        DT_BLK = 6;
        DT_REG = 8;
        DT_LNK = 10;
        DT_SOCK = 12;
        DT_WHT = 14;
    }
}

constants! {
    /// Commands of `fcntl(2)`.
    FCNTL_NAMES: u32 {
        F_DUPFD = 0;
        F_GETFD = 1;
        F_SETFD = 2;
        F_GETFL = 3;
        F_SETFL = 4;
        F_GETLK = 5;
        F_SETLK = 6;
        F_SETLKW = 7;
        F_SETOWN = 8;
        F_GETOWN = 9;
        F_SETSIG = 10;
        F_GETSIG = 11;
        F_SETOWN_EX = 15;
        F_GETOWN_EX = 16;
        F_GETOWNER_UIDS = 17;
        F_OFD_GETLK = 36;
        F_OFD_SETLK = 37;
        F_OFD_SETLKW = 38;
        F_SETLEASE = 1024;
        F_GETLEASE = 1025;
        F_NOTIFY = 1026;
        F_DUPFD_QUERY = 1027;
        F_CREATED_QUERY = 1028;
        F_CANCELLK = 1029;
        F_DUPFD_CLOEXEC = 1030;
        F_SETPIPE_SZ = 1031;
        F_GETPIPE_SZ = 1032;
        F_ADD_SEALS = 1033;
        F_GET_SEALS = 1034;
        F_GET_RW_HINT = 1035;
        F_SET_RW_HINT = 1036;
        F_GET_FILE_RW_HINT = 1037;
        F_SET_FILE_RW_HINT = 1038;
    }
}
/// The only descriptor flag: close on exec.
pub const FD_CLOEXEC: u32 = 1;

flags! {
    /// Events of `F_NOTIFY`.
    pub struct DnFlags: u32 as "DN_" {
        ACCESS = 1;
        MODIFY = 2;
        CREATE = 4;
        DELETE = 8;
        RENAME = 0x10;
        ATTRIB = 0x20;
        MULTISHOT = 0x8000_0000;
    }
}

flags! {
    /// Seals of a memfd.
    pub struct SealFlags: u32 as "F_SEAL_" {
        SEAL = 1;
        SHRINK = 2;
        GROW = 4;
        WRITE = 8;
        FUTURE_WRITE = 0x10;
        EXEC = 0x20;
    }
}

constants! {
    /// Values of `l_type` of `struct flock`.
    LOCK_TYPE_NAMES: i16 {
        F_RDLCK = 0;
        F_WRLCK = 1;
        F_UNLCK = 2;
    }
}

constants! {
    /// Values of `type` of `struct f_owner_ex`.
    OWNER_TYPE_NAMES: i32 {
        F_OWNER_TID = 0;
        F_OWNER_PID = 1;
        F_OWNER_PGRP = 2;
    }
}

flags! {
    /// Operations of `flock(2)`.
    pub struct LockFlags: u32 as "LOCK_" {
        SH = 1;
        EX = 2;
        NB = 4;
        UN = 8;
    }
}

flags! {
    /// Flags of `renameat2(2)`.
    pub struct RenameFlags: u32 as "RENAME_" {
        NOREPLACE = 1;
        EXCHANGE = 2;
        WHITEOUT = 4;
    }
}

flags! {
    /// Flags in `resolve` of `struct open_how`.
    pub struct ResolveFlags: u64 as "RESOLVE_" {
        NO_XDEV = 1;
        NO_MAGICLINKS = 2;
        NO_SYMLINKS = 4;
        BENEATH = 8;
        IN_ROOT = 0x10;
        CACHED = 0x20;
    }
}

flags! {
    /// Fields that `statx(2)` is asked for.
    pub struct StatxMask: u32 as "STATX_" {
        TYPE = 1;
        MODE = 2;
        NLINK = 4;
        UID = 8;
        GID = 0x10;
        ATIME = 0x20;
        MTIME = 0x40;
        CTIME = 0x80;
        INO = 0x100;
        SIZE = 0x200;
        BLOCKS = 0x400;
        BTIME = 0x800;
        MNT_ID = 0x1000;
        DIOALIGN = 0x2000;
        MNT_ID_UNIQUE = 0x4000;
        SUBVOL = 0x8000;
    }
}

impl StatxMask {
    /// What `stat(2)` gives.
    pub const BASIC_STATS: Self = Self::from_bits_retain(0x7ff);
}

flags! {
    /// Bits of `stx_attributes`.
    pub struct StatxAttr: u64 as "STATX_ATTR_" {
        COMPRESSED = 4;
        IMMUTABLE = 0x10;
        APPEND = 0x20;
        NODUMP = 0x40;
        ENCRYPTED = 0x800;
        AUTOMOUNT = 0x1000;
        MOUNT_ROOT = 0x2000;
        VERITY = 0x0010_0000;
        DAX = 0x0020_0000;
    }
}

flags! {
    /// Modes of `fallocate(2)`.
    pub struct FallocFlags: u32 as "FALLOC_FL_" {
        KEEP_SIZE = 1;
        PUNCH_HOLE = 2;
        NO_HIDE_STALE = 4;
        COLLAPSE_RANGE = 8;
        ZERO_RANGE = 0x10;
        INSERT_RANGE = 0x20;
        UNSHARE_RANGE = 0x40;
    }
}

flags! {
    /// Flags of `setxattr(2)`.
    pub struct XattrFlags: u32 as "XATTR_" {
        CREATE = 1;
        REPLACE = 2;
    }
}
pub const XATTR_NAME_MAX: usize = 255;
pub const XATTR_SIZE_MAX: usize = 65536;
pub const XATTR_LIST_MAX: usize = 65536;
/// The extended attribute that is a file's access control list.
pub const XATTR_POSIX_ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The extended attribute that is a directory's default access control list.
pub const XATTR_POSIX_ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

constants! {
    /// Advice of `fadvise64(2)`.
    FADVISE_NAMES: i32 {
        POSIX_FADV_NORMAL = 0;
        POSIX_FADV_RANDOM = 1;
        POSIX_FADV_SEQUENTIAL = 2;
        POSIX_FADV_WILLNEED = 3;
        POSIX_FADV_DONTNEED = 4;
        POSIX_FADV_NOREUSE = 5;
    }
}

flags! {
    /// Flags of `sync_file_range(2)`.
    pub struct SyncFileRangeFlags: u32 as "SYNC_FILE_RANGE_" {
        WAIT_BEFORE = 1;
        WRITE = 2;
        WAIT_AFTER = 4;
    }
}

flags! {
    /// Flags of `splice(2)`, `tee(2)` and `vmsplice(2)`.
    pub struct SpliceFlags: u32 as "SPLICE_F_" {
        MOVE = 1;
        NONBLOCK = 2;
        MORE = 4;
        GIFT = 8;
    }
}

flags! {
    /// What `FS_IOC_SETFLAGS` can change of a file of a `tmpfs`.
    pub struct FileFlags: u32 as "FS_" {
        IMMUTABLE = 0x10;
        APPEND = 0x20;
        NODUMP = 0x40;
        NOATIME = 0x80;
    }
}

flags! {
    /// Flags of `memfd_create(2)`; the size of huge pages is in bits 26 to 31.
    pub struct MemfdFlags: u32 as "MFD_" {
        CLOEXEC = 1;
        ALLOW_SEALING = 2;
        HUGETLB = 4;
        NOEXEC_SEAL = 8;
        EXEC = 0x10;
    }
}

flags! {
    /// Flags of `getrandom(2)`.
    pub struct GetrandomFlags: u32 as "GRND_" {
        NONBLOCK = 1;
        RANDOM = 2;
        INSECURE = 4;
    }
}

flags! {
    /// Flags of `preadv2(2)` and `pwritev2(2)`.
    pub struct RwFlags: u32 as "RWF_" {
        HIPRI = 1;
        DSYNC = 2;
        SYNC = 4;
        NOWAIT = 8;
        APPEND = 0x10;
        NOAPPEND = 0x20;
        ATOMIC = 0x40;
    }
}

flags! {
    /// Flags of `close_range(2)`.
    pub struct CloseRangeFlags: u32 as "CLOSE_RANGE_" {
        UNSHARE = 2;
        CLOEXEC = 4;
    }
}

/// Nanoseconds that stand for the current time in `utimensat(2)`.
pub const UTIME_NOW: i64 = 0x3fff_ffff;
/// Nanoseconds that leave a time as it is in `utimensat(2)`.
pub const UTIME_OMIT: i64 = 0x3fff_fffe;

/// Corresponds to `struct stat`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub pad0: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    pub st_blocks: i64,
    pub st_atime: Timespec,
    pub st_mtime: Timespec,
    pub st_ctime: Timespec,
    pub unused: [i64; 3],
}

/// Corresponds to `struct statx_timestamp`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct StatxTimestamp {
    pub tv_sec: i64,
    pub tv_nsec: u32,
    pub reserved: i32,
}

/// Corresponds to `struct statx`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Statx {
    pub stx_mask: u32,
    pub stx_blksize: u32,
    pub stx_attributes: u64,
    pub stx_nlink: u32,
    pub stx_uid: u32,
    pub stx_gid: u32,
    pub stx_mode: u16,
    pub spare0: u16,
    pub stx_ino: u64,
    pub stx_size: u64,
    pub stx_blocks: u64,
    pub stx_attributes_mask: u64,
    pub stx_atime: StatxTimestamp,
    pub stx_btime: StatxTimestamp,
    pub stx_ctime: StatxTimestamp,
    pub stx_mtime: StatxTimestamp,
    pub stx_rdev_major: u32,
    pub stx_rdev_minor: u32,
    pub stx_dev_major: u32,
    pub stx_dev_minor: u32,
    pub stx_mnt_id: u64,
    pub stx_dio_mem_align: u32,
    pub stx_dio_offset_align: u32,
    pub stx_subvol: u64,
    pub spare3: [u64; 11],
}

/// Corresponds to `struct ustat`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Ustat {
    pub f_tfree: i32,
    pub pad: u32,
    pub f_tinode: u64,
    pub f_fname: [u8; 6],
    pub f_fpack: [u8; 6],
    pub end_pad: u32,
}

/// Returns the device number that 32 bits stand for.
pub const fn new_decode_dev(dev: u32) -> u64 {
    makedev((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00))
}

/// Corresponds to `struct statfs`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Statfs {
    pub f_type: i64,
    pub f_bsize: i64,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_fsid: [i32; 2],
    pub f_namelen: i64,
    pub f_frsize: i64,
    pub f_flags: i64,
    pub f_spare: [i64; 4],
}

/// The first bytes of `struct linux_dirent64`: the name with its NUL follows at
/// [`DIRENT64_NAME_OFFSET`], and the whole is padded to a multiple of eight.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Dirent64 {
    pub d_ino: u64,
    pub d_off: i64,
    pub d_reclen: [u8; 2],
    pub d_type: u8,
    /// The first bytes of the name.
    pub d_name: [u8; 5],
}

/// Where the name of a `struct linux_dirent64` starts.
pub const DIRENT64_NAME_OFFSET: usize = 19;
/// Where the name of a `struct linux_dirent` (`getdents(2)`) starts; its type is in its last byte.
pub const DIRENT_NAME_OFFSET: usize = 18;

/// Corresponds to `struct open_how`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

/// The size of the first version of `struct open_how`.
pub const OPEN_HOW_SIZE_VER0: usize = 24;

/// Corresponds to `struct flock`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Flock {
    pub l_type: i16,
    pub l_whence: i16,
    pub pad0: u32,
    pub l_start: i64,
    pub l_len: i64,
    pub l_pid: i32,
    pub pad1: u32,
}

/// Corresponds to `struct f_owner_ex`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FOwnerEx {
    pub kind: i32,
    pub pid: i32,
}

/// Corresponds to `struct utimbuf`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Utimbuf {
    pub actime: i64,
    pub modtime: i64,
}

/// Corresponds to `struct file_handle` without its bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FileHandle {
    pub handle_bytes: u32,
    pub handle_type: i32,
}

flags! {
    /// Flags of `name_to_handle_at(2)`.
    pub struct HandleFlags: u32 as "AT_" {
        MNT_ID_UNIQUE = 1;
        CONNECTABLE = 2;
        FID = 0x200;
        SYMLINK_FOLLOW = 0x400;
        EMPTY_PATH = 0x1000;
    }
}

/// Builds a device number as user space sees it in `st_dev` (64 bits).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    ((major & 0xffff_f000) << 32)
        | ((major & 0xfff) << 8)
        | ((minor & 0xffff_ff00) << 12)
        | (minor & 0xff)
}

/// Returns the major part of a device number.
#[expect(clippy::cast_possible_truncation, reason = "the masks leave 32 bits")]
pub const fn major(dev: u64) -> u32 {
    (((dev >> 32) & 0xffff_f000) | ((dev >> 8) & 0xfff)) as u32
}

/// Returns the minor part of a device number.
#[expect(clippy::cast_possible_truncation, reason = "the masks leave 32 bits")]
pub const fn minor(dev: u64) -> u32 {
    (((dev >> 12) & 0xffff_ff00) | (dev & 0xff)) as u32
}

#[cfg(test)]
mod tests {
    use super::{major, makedev, minor};

    #[test]
    fn device_number_splits_into_what_made_it() {
        for (a, b) in [(0, 0), (1, 3), (8, 1), (136, 0x12345), (0xffff_ffff, 0xffff_ffff)] {
            let dev = makedev(a, b);
            assert_eq!((major(dev), minor(dev)), (a, b));
        }
        assert_eq!(makedev(1, 3), 0x103);
    }
}
