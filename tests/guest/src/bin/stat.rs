//! `stat(2)` and its relatives, `statx(2)`, `chmod(2)`, `chown(2)`, `utimensat(2)`, `access(2)`, `statfs(2)`.

use core::ffi::CStr;

use guest_tests::fs::{fstat, open, pipe, put, stat, stat_at, write};
use guest_tests::mem::zeroed;
use guest_tests::{Outcome, check, eq, fails, ok, proc, raw, sys};
use libc::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CREAT, O_PATH, O_RDONLY, O_RDWR};

fn lstat(path: &CStr) -> Result<libc::stat, i32> {
    stat_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)
}

fn size_and_type() -> Outcome {
    ok!(put(c"a", b"12345"));
    let s = ok!(stat(c"a"));
    eq!(s.st_mode & libc::S_IFMT, libc::S_IFREG);
    eq!(s.st_size, 5);
    eq!(s.st_nlink, 1);
    eq!((s.st_uid, s.st_gid), (0, 0));
    check!(s.st_blksize >= 512);
    eq!(ok!(stat(c".")).st_mode & libc::S_IFMT, libc::S_IFDIR);
    eq!(ok!(stat(c"/dev/null")).st_mode & libc::S_IFMT, libc::S_IFCHR);
    eq!(ok!(stat(c"/dev/null")).st_rdev, libc::makedev(1, 3));
    Ok(())
}

fn old_calls_agree() -> Outcome {
    ok!(put(c"a", b"12345"));
    ok!(sys!(SYS_symlink, c"a", c"l"));
    let mut s = zeroed::<libc::stat>();
    ok!(sys!(SYS_stat, c"l", &mut s));
    eq!((s.st_size, s.st_ino), (5, ok!(stat(c"a")).st_ino));
    ok!(sys!(SYS_lstat, c"l", &mut s));
    eq!(s.st_mode & libc::S_IFMT, libc::S_IFLNK);
    eq!(s.st_size, 1);
    Ok(())
}

fn errors() -> Outcome {
    fails!(stat(c"nothing"), ENOENT);
    fails!(stat(c""), ENOENT);
    fails!(sys!(SYS_stat, c".", 8), EFAULT);
    fails!(sys!(SYS_stat, 8, 8), EFAULT);
    fails!(fstat(999), EBADF);
    fails!(stat_at(AT_FDCWD, c".", 0x4_0000), EINVAL);
    fails!(stat_at(999, c"x", 0), EBADF);
    Ok(())
}

fn empty_path_means_descriptor() -> Outcome {
    let fd = ok!(open(c"a", O_CREAT | O_RDWR));
    eq!(ok!(stat_at(fd, c"", AT_EMPTY_PATH)).st_ino, ok!(fstat(fd)).st_ino);
    eq!(ok!(stat_at(AT_FDCWD, c"", AT_EMPTY_PATH)).st_ino, ok!(stat(c".")).st_ino);
    Ok(())
}

fn inode_identity() -> Outcome {
    ok!(put(c"a", b""));
    ok!(put(c"b", b""));
    let (a, b) = (ok!(stat(c"a")), ok!(stat(c"b")));
    check!(a.st_ino != b.st_ino);
    eq!(a.st_dev, b.st_dev);
    let fd = ok!(open(c"a", O_RDONLY));
    eq!(ok!(fstat(fd)).st_ino, a.st_ino);
    ok!(sys!(SYS_rename, c"a", c"c"));
    eq!(ok!(stat(c"c")).st_ino, a.st_ino);
    Ok(())
}

fn link_counts() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_link, c"a", c"b"));
    eq!(ok!(stat(c"a")).st_nlink, 2);
    eq!(ok!(stat(c"a")).st_ino, ok!(stat(c"b")).st_ino);
    ok!(sys!(SYS_unlink, c"a"));
    eq!(ok!(stat(c"b")).st_nlink, 1);
    Ok(())
}

fn of_pipe_and_socket() -> Outcome {
    let (reader, _writer) = ok!(pipe(0));
    let s = ok!(fstat(reader));
    eq!(s.st_mode & libc::S_IFMT, libc::S_IFIFO);
    eq!(s.st_mode & 0o777, 0o600);
    Ok(())
}

fn statx_fields() -> Outcome {
    ok!(put(c"a", b"12345"));
    let mut x = zeroed::<libc::statx>();
    ok!(sys!(SYS_statx, AT_FDCWD, c"a", 0, libc::STATX_BASIC_STATS, &mut x));
    let s = ok!(stat(c"a"));
    eq!(x.stx_mask & libc::STATX_BASIC_STATS, libc::STATX_BASIC_STATS);
    eq!((x.stx_size, x.stx_ino, u32::from(x.stx_mode)), (5, s.st_ino, s.st_mode));
    eq!((x.stx_mtime.tv_sec, i64::from(x.stx_mtime.tv_nsec)), (s.st_mtime, s.st_mtime_nsec));
    eq!(libc::makedev(x.stx_dev_major, x.stx_dev_minor), s.st_dev);
    let fd = ok!(open(c"a", O_RDONLY));
    ok!(sys!(SYS_statx, fd, c"", AT_EMPTY_PATH, libc::STATX_SIZE, &mut x));
    eq!(x.stx_size, 5);
    fails!(sys!(SYS_statx, AT_FDCWD, c"a", 0, 0x8000_0000u32, &mut x), EINVAL);
    fails!(sys!(SYS_statx, AT_FDCWD, c"a", 0x1_0000, 0, &mut x), EINVAL);
    fails!(sys!(SYS_statx, AT_FDCWD, c"none", 0, 0, &mut x), ENOENT);
    Ok(())
}

fn chmod_changes_mode() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_chmod, c"a", 0o4711));
    eq!(ok!(stat(c"a")).st_mode & 0o7777, 0o4711);
    let fd = ok!(open(c"a", O_RDONLY));
    ok!(sys!(SYS_fchmod, fd, 0o600));
    eq!(ok!(fstat(fd)).st_mode & 0o7777, 0o600);
    ok!(sys!(SYS_fchmodat, AT_FDCWD, c"a", 0o640));
    eq!(ok!(stat(c"a")).st_mode & 0o7777, 0o640);
    fails!(sys!(SYS_chmod, c"none", 0o600), ENOENT);
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    ok!(sys!(SYS_chmod, c"d", 0o1777));
    eq!(ok!(stat(c"d")).st_mode & 0o7777, 0o1777);
    Ok(())
}

fn fchmodat2_flags() -> Outcome {
    ok!(put(c"a", b""));
    let fd = ok!(open(c"a", O_PATH));
    ok!(sys!(SYS_fchmodat2, fd, c"", 0o611, AT_EMPTY_PATH));
    eq!(ok!(stat(c"a")).st_mode & 0o7777, 0o611);
    fails!(sys!(SYS_fchmodat2, fd, c"", 0o611, 0x8000), EINVAL);
    Ok(())
}

fn chown_changes_owner() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_chown, c"a", 5, 7));
    eq!((ok!(stat(c"a")).st_uid, ok!(stat(c"a")).st_gid), (5, 7));
    ok!(sys!(SYS_chown, c"a", -1, 9));
    eq!((ok!(stat(c"a")).st_uid, ok!(stat(c"a")).st_gid), (5, 9));
    ok!(sys!(SYS_symlink, c"a", c"l"));
    ok!(sys!(SYS_lchown, c"l", 11, 12));
    eq!(ok!(lstat(c"l")).st_uid, 11);
    eq!(ok!(stat(c"a")).st_uid, 5);
    let fd = ok!(open(c"a", O_RDONLY));
    ok!(sys!(SYS_fchown, fd, 0, 0));
    ok!(sys!(SYS_fchownat, fd, c"", 3, 4, AT_EMPTY_PATH));
    eq!((ok!(stat(c"a")).st_uid, ok!(stat(c"a")).st_gid), (3, 4));
    Ok(())
}

fn chown_clears_setuid() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_chmod, c"a", 0o6755));
    ok!(sys!(SYS_chown, c"a", 5, 5));
    eq!(ok!(stat(c"a")).st_mode & 0o7777, 0o755);
    Ok(())
}

fn write_clears_setuid() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_chmod, c"a", 0o6777));
    proc::in_child(|| {
        ok!(proc::drop_root());
        let fd = ok!(open(c"a", libc::O_WRONLY));
        ok!(write(fd, b"x"));
        eq!(ok!(stat(c"a")).st_mode & 0o7777, 0o777);
        Ok(())
    })
}

fn times_are_set() -> Outcome {
    ok!(put(c"a", b""));
    let times =
        [libc::timespec { tv_sec: 100, tv_nsec: 5 }, libc::timespec { tv_sec: 200, tv_nsec: 6 }];
    ok!(sys!(SYS_utimensat, AT_FDCWD, c"a", &times, 0));
    let s = ok!(stat(c"a"));
    eq!((s.st_atime, s.st_atime_nsec, s.st_mtime, s.st_mtime_nsec), (100, 5, 200, 6));
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
    ];
    ok!(sys!(SYS_utimensat, AT_FDCWD, c"a", &times, 0));
    let s = ok!(stat(c"a"));
    eq!(s.st_atime, 100);
    check!(s.st_mtime > 1_000_000_000);
    let fd = ok!(open(c"a", O_RDONLY));
    let times =
        [libc::timespec { tv_sec: 1, tv_nsec: 0 }, libc::timespec { tv_sec: 2, tv_nsec: 0 }];
    ok!(sys!(SYS_utimensat, fd, 0, &times, 0));
    eq!(ok!(fstat(fd)).st_mtime, 2);
    let bad = [libc::timespec { tv_sec: 1, tv_nsec: 1_000_000_000 }; 2];
    fails!(sys!(SYS_utimensat, AT_FDCWD, c"a", &bad, 0), EINVAL);
    let old = [libc::timeval { tv_sec: 7, tv_usec: 8 }, libc::timeval { tv_sec: 9, tv_usec: 10 }];
    ok!(sys!(SYS_utimes, c"a", &old));
    eq!((ok!(stat(c"a")).st_atime, ok!(stat(c"a")).st_mtime_nsec), (7, 10_000));
    let older = [3i64, 4i64];
    ok!(sys!(SYS_utime, c"a", &older));
    eq!((ok!(stat(c"a")).st_atime, ok!(stat(c"a")).st_mtime), (3, 4));
    Ok(())
}

fn times_of_symlink() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_symlink, c"a", c"l"));
    let times =
        [libc::timespec { tv_sec: 1, tv_nsec: 0 }, libc::timespec { tv_sec: 2, tv_nsec: 0 }];
    ok!(sys!(SYS_utimensat, AT_FDCWD, c"l", &times, AT_SYMLINK_NOFOLLOW));
    eq!(ok!(lstat(c"l")).st_mtime, 2);
    check!(ok!(stat(c"a")).st_mtime != 2);
    Ok(())
}

fn times_change_with_use() -> Outcome {
    ok!(put(c"a", b"x"));
    let times =
        [libc::timespec { tv_sec: 1, tv_nsec: 0 }, libc::timespec { tv_sec: 2, tv_nsec: 0 }];
    ok!(sys!(SYS_utimensat, AT_FDCWD, c"a", &times, 0));
    let changed = ok!(stat(c"a")).st_ctime;
    check!(changed > 1_000_000_000);
    let fd = ok!(open(c"a", O_RDWR));
    ok!(write(fd, b"y"));
    check!(ok!(stat(c"a")).st_mtime > 1_000_000_000);
    ok!(sys!(SYS_utimensat, AT_FDCWD, c".", &times, 0));
    ok!(put(c"b", b""));
    check!(ok!(stat(c".")).st_mtime > 1_000_000_000, "directory's mtime");
    Ok(())
}

fn access_checks() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_access, c"a", libc::F_OK));
    ok!(sys!(SYS_access, c"a", libc::R_OK | libc::W_OK));
    fails!(sys!(SYS_access, c"a", libc::X_OK), EACCES);
    fails!(sys!(SYS_access, c"none", libc::F_OK), ENOENT);
    fails!(sys!(SYS_access, c"a", 8), EINVAL);
    ok!(sys!(SYS_faccessat, AT_FDCWD, c"a", libc::R_OK));
    ok!(sys!(SYS_faccessat2, AT_FDCWD, c"a", libc::R_OK, libc::AT_EACCESS));
    fails!(sys!(SYS_faccessat2, AT_FDCWD, c"a", libc::R_OK, 0x40), EINVAL);
    Ok(())
}

fn access_uses_real_ids() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_chmod, c"a", 0o600));
    proc::in_child(|| {
        ok!(sys!(SYS_setresuid, 1000, 0, 0));
        fails!(sys!(SYS_access, c"a", libc::R_OK), EACCES);
        ok!(sys!(SYS_faccessat2, AT_FDCWD, c"a", libc::R_OK, libc::AT_EACCESS));
        ok!(open(c"a", O_RDONLY));
        Ok(())
    })
}

fn statfs_answers() -> Outcome {
    let mut s = zeroed::<libc::statfs>();
    ok!(sys!(SYS_statfs, c".", &mut s));
    check!(s.f_bsize > 0 && s.f_namelen >= 255 && s.f_type != 0);
    let fd = ok!(open(c".", O_RDONLY));
    let mut t = zeroed::<libc::statfs>();
    ok!(sys!(SYS_fstatfs, fd, &mut t));
    eq!(s.f_type, t.f_type);
    ok!(sys!(SYS_statfs, c"/proc", &mut s));
    eq!(s.f_type, libc::PROC_SUPER_MAGIC as u64);
    let (reader, _writer) = ok!(pipe(0));
    ok!(sys!(SYS_fstatfs, reader, &mut s));
    eq!(s.f_type, 0x5049_5045);
    fails!(sys!(SYS_statfs, c"none", &mut s), ENOENT);
    Ok(())
}

fn owner_may_change_own_file() -> Outcome {
    ok!(put(c"a", b""));
    ok!(sys!(SYS_chown, c"a", 1000, 1000));
    proc::in_child(|| {
        ok!(proc::drop_root());
        ok!(sys!(SYS_chmod, c"a", 0o2755));
        fails!(sys!(SYS_chown, c"a", 0, -1), EPERM);
        ok!(sys!(SYS_chown, c"a", 1000, 1000));
        ok!(sys!(SYS_utimensat, AT_FDCWD, c"a", 0, 0));
        Ok(())
    })
}

fn new_file_owner_and_setgid_directory() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o777));
    ok!(sys!(SYS_chown, c"d", 0, 77));
    ok!(sys!(SYS_chmod, c"d", 0o2777));
    proc::in_child(|| {
        ok!(proc::drop_root());
        ok!(put(c"d/a", b""));
        let s = ok!(stat(c"d/a"));
        eq!((s.st_uid, s.st_gid), (1000, 77));
        ok!(sys!(SYS_mkdir, c"d/sub", 0o755));
        eq!(ok!(stat(c"d/sub")).st_mode & 0o7777, 0o2755);
        Ok(())
    })
}

fn mounts_are_told() -> Outcome {
    const MNT_ID: u32 = 0x1000;
    const MNT_ID_UNIQUE: u32 = 0x4000;
    const ROOT: u64 = u64::MAX;
    const BASIC: u64 = 2;
    const FS_TYPE: u64 = 0x20;
    let id_of = |path: &CStr, mask: u32| -> Result<(u32, u64), i32> {
        let mut told = [0u64; 32];
        sys!(SYS_statx, AT_FDCWD, path, 0, mask, &mut told)?;
        // The mask is the first field, the number of the mount the one at 0x90.
        Ok(((told[0] & 0xffff_ffff) as u32, told[0x90 / 8]))
    };
    // SYS_statmount and SYS_listmount, which the C library does not name.
    let statmount = |id: u64, mask: u64, out: &mut [u64; 128], size: usize, flags: usize| {
        let request = [24, id, mask];
        raw(457, [request.as_ptr() as usize, out.as_mut_ptr() as usize, size, flags, 0, 0])
    };
    let listmount = |id: u64, last: u64, out: usize, n: usize, flags: usize| {
        let request = [24, id, last];
        raw(458, [request.as_ptr() as usize, out, n, flags, 0, 0])
    };
    let (mask, id) = ok!(id_of(c"/proc", MNT_ID_UNIQUE));
    let mut told = [0u64; 128];
    if mask & MNT_ID_UNIQUE == 0 || statmount(id, BASIC, &mut told, 512, 0) == Err(libc::ENOSYS) {
        // Linux has them since 6.8.
        return Ok(());
    }
    let (_, old) = ok!(id_of(c"/proc", MNT_ID));
    ok!(statmount(id, BASIC | FS_TYPE, &mut told, 1024, 0));
    eq!((told[1], told[5]), (BASIC | FS_TYPE, id));
    eq!(told[7] & 0xffff_ffff, old);
    let name = (told[4] >> 32) as usize + 512;
    eq!(told[name / 8].to_ne_bytes()[name % 8], b'p');
    fails!(statmount(1, BASIC, &mut told, 512, 0), EINVAL);
    fails!(statmount(ROOT - 1, BASIC, &mut told, 512, 0), ENOENT);
    fails!(statmount(id, BASIC, &mut told, 512, 1), EINVAL);
    fails!(statmount(id, FS_TYPE, &mut told, 512, 0), EOVERFLOW);
    let mut ids = [0u64; 256];
    let at = ids.as_mut_ptr() as usize;
    let n = ok!(listmount(ROOT, 0, at, ids.len(), 0));
    check!(n == ids.len() || ids[..n].contains(&id));
    fails!(listmount(ROOT, 5, at, ids.len(), 0), EINVAL);
    fails!(listmount(ROOT, 0, at, ids.len(), 8), EINVAL);
    fails!(listmount(ROOT, 0, 8, 4, 0), EFAULT);
    Ok(())
}

guest_tests::cases!(
    mounts_are_told,
    size_and_type,
    old_calls_agree,
    errors,
    empty_path_means_descriptor,
    inode_identity,
    link_counts,
    of_pipe_and_socket,
    statx_fields,
    chmod_changes_mode,
    fchmodat2_flags,
    chown_changes_owner,
    chown_clears_setuid,
    write_clears_setuid,
    times_are_set,
    times_of_symlink,
    times_change_with_use,
    access_checks,
    access_uses_real_ids,
    statfs_answers,
    owner_may_change_own_file,
    new_file_owner_and_setgid_directory,
);
