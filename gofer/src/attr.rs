//! The host's forms of attributes and errors, translated to those of the wire.

use std::os::fd::AsFd;

use gofer_wire::{Attr, Statfs, Timespec};
use rustix::fs::{self, AtFlags, StatxFlags, StatxTimestamp};
use syscalls::{Errno, SysResult};

/// Translates a host error.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Returns the attributes of the inode that a descriptor names.
pub(crate) fn get(fd: &impl AsFd) -> SysResult<Attr> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = fs::statx(fd, "", flags, mask).map_err(errno)?;
    Ok(Attr {
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        rdev_major: stat.stx_rdev_major,
        rdev_minor: stat.stx_rdev_minor,
        dev_major: stat.stx_dev_major,
        dev_minor: stat.stx_dev_minor,
        acl: Attr::ACL_UNKNOWN,
        attributes: stat.stx_attributes.bits(),
        atime: timespec(stat.stx_atime),
        mtime: timespec(stat.stx_mtime),
        ctime: timespec(stat.stx_ctime),
        btime: timespec(stat.stx_btime),
    })
}

fn timespec(time: StatxTimestamp) -> Timespec {
    Timespec { seconds: time.tv_sec, nanoseconds: time.tv_nsec, reserved: 0 }
}

/// Returns the state of the file system that holds the inode.
pub(crate) fn statfs(fd: &impl AsFd) -> SysResult<Statfs> {
    let stat = fs::fstatfs(fd).map_err(errno)?;
    Ok(Statfs {
        kind: unsigned(stat.f_type),
        block_size: unsigned(stat.f_bsize),
        blocks: stat.f_blocks,
        blocks_free: stat.f_bfree,
        blocks_available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
        name_length: unsigned(stat.f_namelen),
        fragment_size: unsigned(stat.f_frsize),
    })
}

/// Reads a number that the kernel declares signed and fills with an unsigned one.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Returns whether the file system that holds the inode is an interface to the kernel, whose
/// regular files may be controls of the host.
pub(crate) fn is_on_pseudo_filesystem(fd: &impl AsFd) -> SysResult<bool> {
    /// Magic numbers of `linux/magic.h`: proc, sysfs, cgroup, cgroup2, debugfs, tracefs,
    /// securityfs, selinuxfs, smackfs, bpf, pstore, efivarfs, configfs, fusectl, nsfs, binfmt_misc,
    /// resctrl.
    const PSEUDO: [u64; 17] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xf97c_ff8c,
        0x4341_5d53,
        0xcafe_4a11,
        0x6165_676c,
        0xde5e_81e4,
        0x6265_6570,
        0x6573_5543,
        0x6e73_6673,
        0x4249_4e4d,
        0x0765_5821,
    ];
    Ok(PSEUDO.contains(&statfs(fd)?.kind))
}
