//! Attributes of the wire and of the host, translated to those of the VFS.

use std::time::{Duration, SystemTime};

use gofer_wire as wire;
use syscalls::abi::fs::{Stat, Statfs};

use crate::vfs::{Attr, FileFlags, SetAttr, SetTime, Timestamp};

/// Composes a device number as the kernel does for user space (`makedev(3)`).
pub(super) fn device(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}

/// Splits a device number into major and minor.
pub(super) fn split_device(device: u64) -> (u32, u32) {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & 0xffff_f000);
    let minor = (device & 0xff) | ((device >> 12) & 0xffff_ff00);
    (u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0))
}

/// Translates what the gofer sends.
pub(super) fn from_wire(attr: &wire::Attr) -> Attr {
    Attr {
        dev: device(attr.dev_major, attr.dev_minor),
        ino: attr.ino,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.rdev_major, attr.rdev_minor),
        size: attr.size,
        blksize: attr.blksize,
        blocks: attr.blocks,
        atime: timestamp(attr.atime),
        mtime: timestamp(attr.mtime),
        ctime: timestamp(attr.ctime),
        btime: (attr.btime != wire::Timespec::default()).then(|| timestamp(attr.btime)),
        flags: FileFlags::empty(),
    }
}

fn timestamp(time: wire::Timespec) -> Timestamp {
    Timestamp { sec: time.seconds, nsec: time.nanoseconds }
}

/// Puts what `fstat(2)` returned in the place of what it knows; the rest stays. So do the owners:
/// the sentry's user namespace has no names for the host's. Returns whether they may be others by
/// now: whoever changes them, or the mode, changes no content.
pub(super) fn refresh(attr: &mut Attr, stat: &Stat) -> bool {
    let time = |time: syscalls::abi::time::Timespec| Timestamp {
        sec: time.tv_sec,
        nsec: u32::try_from(time.tv_nsec).unwrap_or(0),
    };
    let owners_may_differ = attr.ctime != time(stat.st_ctime) && attr.mtime == time(stat.st_mtime);
    attr.mode = stat.st_mode;
    attr.nlink = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX);
    attr.size = u64::try_from(stat.st_size).unwrap_or(0);
    attr.blksize = u32::try_from(stat.st_blksize).unwrap_or(4096);
    attr.blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
    attr.atime = time(stat.st_atime);
    attr.mtime = time(stat.st_mtime);
    attr.ctime = time(stat.st_ctime);
    owners_may_differ
}

/// Returns whether the last change of a directory is at least so long ago, by the host's clock.
pub(super) fn is_settled(attr: &Attr, at_least: Duration) -> bool {
    let last = attr.mtime.max(attr.ctime);
    let since_epoch = Duration::new(u64::try_from(last.sec).unwrap_or(0), last.nsec);
    let Some(then) = SystemTime::UNIX_EPOCH.checked_add(since_epoch) else { return false };
    SystemTime::now().duration_since(then).is_ok_and(|ago| ago >= at_least)
}

/// Translates a change.
pub(super) fn change(change: &SetAttr) -> wire::SetAttr {
    use gofer_wire::SetAttrMask as Mask;
    let mut mask = Mask::empty();
    mask.set(Mask::MODE, change.mode.is_some());
    mask.set(Mask::UID, change.uid.is_some());
    mask.set(Mask::GID, change.gid.is_some());
    mask.set(Mask::SIZE, change.size.is_some());
    let mut time = |time: Option<SetTime>, at, now| match time {
        None => wire::Timespec::default(),
        Some(SetTime::Now) => {
            mask |= now;
            wire::Timespec::default()
        }
        Some(SetTime::At(time)) => {
            mask |= at;
            wire::Timespec { seconds: time.sec, nanoseconds: time.nsec, reserved: 0 }
        }
    };
    let atime = time(change.atime, Mask::ATIME, Mask::ATIME_NOW);
    let mtime = time(change.mtime, Mask::MTIME, Mask::MTIME_NOW);
    wire::SetAttr {
        mask: mask.bits(),
        mode: change.mode.unwrap_or(0),
        uid: change.uid.unwrap_or(0),
        gid: change.gid.unwrap_or(0),
        size: change.size.unwrap_or(0),
        atime,
        mtime,
    }
}

/// Translates the state of a file system.
pub(super) fn from_statfs(statfs: &wire::Statfs) -> Statfs {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Statfs {
        f_type: signed(statfs.kind),
        f_bsize: signed(statfs.block_size),
        f_blocks: statfs.blocks,
        f_bfree: statfs.blocks_free,
        f_bavail: statfs.blocks_available,
        f_files: statfs.files,
        f_ffree: statfs.files_free,
        f_namelen: signed(statfs.name_length),
        f_frsize: signed(statfs.fragment_size),
        ..Statfs::default()
    }
}

/// Returns the name of the file system's type as `/proc/mounts` would show it on the host, by the
/// magic number that `statfs(2)` shows to everybody.
pub(super) fn file_system_name(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        0x6969 => "nfs",
        0xff53_4d42 => "cifs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        _ => "gofer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_a_round_trip() {
        for (major, minor) in [(0, 0), (8, 1), (259, 0xf_ffff), (0xffff_ffff, 0xffff_ffff)] {
            assert_eq!(split_device(device(major, minor)), (major, minor));
        }
        assert_eq!(device(8, 1), 0x801);
    }
}
