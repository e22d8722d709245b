//! overlayfs as a program mounts it: merged names, copies, whiteouts, opaque directories. Every case
//! begins with a user namespace and a tmpfs for the layers, so that none needs a privilege.

use std::ffi::CStr;

use guest_tests::fs::{close, fstat, names, open, put, read_all, seek, stat, text, write_all};
use guest_tests::mem::zeroed;
use guest_tests::proc::in_child;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AT_FDCWD, AT_REMOVEDIR, CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT,
    O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, RENAME_EXCHANGE, S_IFCHR,
    S_IFMT,
};

const OPTIONS: &CStr = c"lowerdir=l1:l2,upperdir=u,workdir=w,userxattr";
const OPAQUE: &CStr = c"user.overlay.opaque";

fn write_file(path: &CStr, content: &str) -> Outcome {
    let fd = ok!(open(path, O_WRONLY));
    ok!(write_all(fd, content.as_bytes()));
    ok!(close(fd));
    Ok(())
}

fn mkdir(path: &CStr) -> Outcome {
    ok!(sys!(SYS_mkdir, path, 0o755));
    Ok(())
}

fn rename(from: &CStr, to: &CStr, flags: u32) -> Result<usize, i32> {
    sys!(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags)
}

fn unlink(path: &CStr) -> Result<usize, i32> {
    sys!(SYS_unlinkat, AT_FDCWD, path, 0)
}

fn rmdir(path: &CStr) -> Result<usize, i32> {
    sys!(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)
}

fn mount(at: &CStr, options: &CStr, flags: u64) -> Result<usize, i32> {
    sys!(SYS_mount, c"over", at, c"overlay", flags, options)
}

fn xattr(path: &CStr, name: &CStr) -> Result<Vec<u8>, i32> {
    let mut value = [0_u8; 64];
    let n = sys!(SYS_lgetxattr, path, name, &mut value, value.len())?;
    Ok(value[..n].to_vec())
}

fn is_whiteout(path: &CStr) -> bool {
    let mut found = zeroed::<libc::stat>();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    let result = sys!(SYS_newfstatat, AT_FDCWD, path, &mut found, flags);
    result.is_ok() && found.st_mode & S_IFMT == S_IFCHR && found.st_rdev == 0
}

/// Returns the names in a directory, sorted, without `.` and `..`.
fn list(path: &CStr) -> Result<Vec<String>, i32> {
    let mut list = names(path)?;
    list.retain(|name| name != "." && name != "..");
    list.sort();
    Ok(list)
}

/// Enters a user namespace as its root, and a mount namespace.
fn enter() -> Outcome {
    let (uid, gid) = (ok!(sys!(SYS_getuid)), ok!(sys!(SYS_getgid)));
    ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS));
    write_file(c"/proc/self/setgroups", "deny")?;
    write_file(c"/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_file(c"/proc/self/gid_map", &format!("0 {gid} 1"))?;
    ok!(sys!(SYS_mount, 0, c"/", 0, MS_REC | MS_PRIVATE, 0));
    Ok(())
}

/// Runs a case in a tmpfs with two lower layers, and directories for changes, work and the mount.
fn with_layers(case: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        mkdir(c"t")?;
        enter()?;
        ok!(sys!(SYS_mount, c"none", c"t", c"tmpfs", 0, 0));
        ok!(sys!(SYS_chdir, c"t"));
        for dir in [c"l1", c"l2", c"u", c"w", c"m", c"l1/d", c"l2/d", c"l2/d/sub", c"l2/only"] {
            mkdir(dir)?;
        }
        ok!(put(c"l1/a", b"upper a"));
        ok!(put(c"l2/a", b"lower a"));
        ok!(put(c"l2/b", b"lower b"));
        ok!(put(c"l1/d/x", b"x"));
        ok!(put(c"l2/d/y", b"y"));
        ok!(put(c"l2/only/z", b"z"));
        case()
    })
}

/// As [`with_layers`], with the overlay mounted.
fn with_overlay(case: impl FnOnce() -> Outcome) -> Outcome {
    with_layers(|| {
        ok!(mount(c"m", OPTIONS, 0));
        case()
    })
}

fn layers_are_merged() -> Outcome {
    with_overlay(|| {
        eq!(ok!(list(c"m")), ["a", "b", "d", "only"]);
        eq!(ok!(list(c"m/d")), ["sub", "x", "y"]);
        eq!(ok!(text(c"m/a")), "upper a");
        eq!(ok!(text(c"m/b")), "lower b");
        eq!(ok!(text(c"m/d/y")), "y");
        fails!(stat(c"m/nothing"), ENOENT);
        // Whoever looks does not copy.
        eq!(ok!(list(c"u")), Vec::<String>::new());
        eq!(ok!(stat(c"m/d")).st_nlink, 1);
        let (dir, file) = (ok!(stat(c"m")), ok!(stat(c"m/d")));
        eq!(dir.st_dev, file.st_dev);
        let mut told = zeroed::<libc::statfs>();
        ok!(sys!(SYS_statfs, c"m", &mut told));
        eq!(told.f_type, 0x794c_7630);
        Ok(())
    })
}

fn a_layer_may_be_read_only() -> Outcome {
    with_layers(|| {
        ok!(mount(c"m", c"lowerdir=l1:l2,userxattr", 0));
        eq!(ok!(list(c"m/d")), ["sub", "x", "y"]);
        fails!(put(c"m/new", b""), EROFS);
        fails!(unlink(c"m/a"), EROFS);
        fails!(sys!(SYS_chmod, c"m/a", 0o600), EROFS);
        fails!(open(c"m/a", O_RDWR), EROFS);
        fails!(sys!(SYS_mount, 0, c"m", 0, MS_REMOUNT, 0), EROFS);
        eq!(ok!(text(c"m/b")), "lower b");
        Ok(())
    })
}

fn changed_files_are_copied() -> Outcome {
    with_overlay(|| {
        ok!(sys!(SYS_chmod, c"l2/b", 0o640));
        let old = [libc::timespec { tv_sec: 1000, tv_nsec: 5 }; 2];
        ok!(sys!(SYS_utimensat, AT_FDCWD, c"l2/b", &old, 0));
        ok!(sys!(SYS_setxattr, c"l2/b", c"user.color", b"red".as_ptr(), 3, 0));
        let reader = ok!(open(c"m/b", O_RDONLY));
        ok!(sys!(SYS_chmod, c"m/b", 0o600));
        let copy = ok!(stat(c"u/b"));
        eq!((copy.st_mode & 0o7777, copy.st_mtime, copy.st_mtime_nsec), (0o600, 1000, 5));
        eq!(ok!(xattr(c"u/b", c"user.color")), b"red");
        eq!(ok!(stat(c"l2/b")).st_mode & 0o7777, 0o640);
        let fd = ok!(open(c"m/b", O_WRONLY));
        ok!(write_all(fd, b"LOWER"));
        ok!(close(fd));
        eq!(ok!(text(c"u/b")), "LOWER b");
        eq!(ok!(text(c"m/b")), "LOWER b");
        eq!(ok!(text(c"l2/b")), "lower b");
        // Who has opened it before reads what it has become.
        eq!(ok!(read_all(reader)), b"LOWER b");
        eq!(ok!(fstat(reader)).st_ino, ok!(stat(c"m/b")).st_ino);
        ok!(close(reader));
        let fd = ok!(open(c"m/d/y", O_WRONLY | O_TRUNC));
        ok!(close(fd));
        eq!((ok!(text(c"u/d/y")), ok!(text(c"l2/d/y"))), (String::new(), String::from("y")));
        eq!(ok!(list(c"m/d")), ["sub", "x", "y"]);
        Ok(())
    })
}

fn holes_stay_holes() -> Outcome {
    with_overlay(|| {
        let fd = ok!(open(c"l2/holes", O_CREAT | O_WRONLY));
        ok!(sys!(SYS_pwrite64, fd, b"end".as_ptr(), 3, 1_i64 << 32));
        ok!(sys!(SYS_ftruncate, fd, 1_i64 << 40));
        ok!(close(fd));
        ok!(sys!(SYS_chmod, c"m/holes", 0o600));
        let copy = ok!(stat(c"u/holes"));
        eq!(copy.st_size, 1 << 40);
        check!(copy.st_blocks < 4096, "{} blocks", copy.st_blocks);
        let fd = ok!(open(c"m/holes", O_RDONLY));
        ok!(seek(fd, 1 << 32, libc::SEEK_SET));
        let mut end = [0_u8; 3];
        ok!(sys!(SYS_read, fd, &mut end, 3));
        eq!(&end, b"end");
        ok!(close(fd));
        Ok(())
    })
}

fn removed_files_leave_whiteouts() -> Outcome {
    with_overlay(|| {
        let fd = ok!(open(c"m/b", O_RDONLY));
        ok!(unlink(c"m/b"));
        check!(is_whiteout(c"u/b"), "no whiteout");
        fails!(stat(c"m/b"), ENOENT);
        eq!(ok!(read_all(fd)), b"lower b");
        ok!(close(fd));
        eq!(ok!(list(c"m")), ["a", "d", "only"]);
        fails!(unlink(c"m/b"), ENOENT);
        let fd = ok!(open(c"m/b", O_CREAT | O_EXCL | O_WRONLY));
        ok!(close(fd));
        check!(!is_whiteout(c"u/b"), "still a whiteout");
        eq!(ok!(text(c"m/b")), "");
        ok!(unlink(c"m/b"));
        check!(is_whiteout(c"u/b"), "no whiteout");
        // What only the upper layer has leaves nothing behind.
        ok!(put(c"m/new", b"1"));
        eq!(ok!(text(c"u/new")), "1");
        ok!(unlink(c"m/new"));
        fails!(stat(c"u/new"), ENOENT);
        ok!(sys!(SYS_symlinkat, c"target", AT_FDCWD, c"m/b"));
        eq!(ok!(list(c"m")), ["a", "b", "d", "only"]);
        Ok(())
    })
}

fn removed_directories_become_opaque() -> Outcome {
    with_overlay(|| {
        fails!(rmdir(c"m/d"), ENOTEMPTY);
        ok!(unlink(c"m/d/x"));
        ok!(unlink(c"m/d/y"));
        ok!(rmdir(c"m/d/sub"));
        eq!(ok!(list(c"m/d")), Vec::<String>::new());
        eq!(ok!(list(c"u/d")), ["sub", "x", "y"]);
        ok!(rmdir(c"m/d"));
        check!(is_whiteout(c"u/d"), "no whiteout");
        fails!(stat(c"m/d"), ENOENT);
        ok!(sys!(SYS_mkdir, c"m/d", 0o700));
        eq!(ok!(xattr(c"u/d", OPAQUE)), b"y");
        eq!(ok!(list(c"m/d")), Vec::<String>::new());
        eq!(ok!(stat(c"m/d")).st_mode & 0o7777, 0o700);
        fails!(stat(c"m/d/x"), ENOENT);
        // What marks it is nobody's business above, and may be set there all the same.
        fails!(xattr(c"m/d", OPAQUE), ENODATA);
        ok!(sys!(SYS_setxattr, c"m/d", OPAQUE, b"n".as_ptr(), 1, 0));
        eq!(ok!(xattr(c"m/d", OPAQUE)), b"n");
        eq!(ok!(xattr(c"u/d", OPAQUE)), b"y");
        eq!(ok!(xattr(c"u/d", c"user.overlay.overlay.opaque")), b"n");
        Ok(())
    })
}

fn layers_may_be_opaque_from_the_start() -> Outcome {
    with_layers(|| {
        ok!(sys!(SYS_setxattr, c"l1/d", OPAQUE, b"y".as_ptr(), 1, 0));
        ok!(sys!(SYS_mknodat, AT_FDCWD, c"l1/b", S_IFCHR, 0));
        ok!(mount(c"m", OPTIONS, 0));
        eq!(ok!(list(c"m")), ["a", "d", "only"]);
        eq!(ok!(list(c"m/d")), ["x"]);
        fails!(stat(c"m/b"), ENOENT);
        fails!(stat(c"m/d/y"), ENOENT);
        // The whiteout below is enough.
        ok!(put(c"m/b", b"new"));
        ok!(unlink(c"m/b"));
        fails!(stat(c"u/b"), ENOENT);
        Ok(())
    })
}

fn renames_leave_whiteouts() -> Outcome {
    with_overlay(|| {
        ok!(rename(c"m/b", c"m/only/c", 0));
        check!(is_whiteout(c"u/b"), "no whiteout");
        eq!(ok!(text(c"m/only/c")), "lower b");
        eq!(ok!(text(c"u/only/c")), "lower b");
        eq!(ok!(list(c"m/only")), ["c", "z"]);
        ok!(rename(c"m/only/c", c"m/b", 0));
        eq!((ok!(text(c"m/b")), ok!(list(c"u/only"))), (String::from("lower b"), vec![]));
        // Directories of below stay, those made here move.
        fails!(rename(c"m/d", c"m/e", 0), EXDEV);
        fails!(rename(c"m/only", c"m/e", 0), EXDEV);
        mkdir(c"m/made")?;
        ok!(put(c"m/made/f", b"f"));
        ok!(rename(c"m/made", c"m/d/made", 0));
        eq!(ok!(text(c"m/d/made/f")), "f");
        eq!(ok!(list(c"m/d")), ["made", "sub", "x", "y"]);
        fails!(rename(c"m/d/made", c"m/only", 0), ENOTEMPTY);
        ok!(unlink(c"m/only/z"));
        ok!(rename(c"m/d/made", c"m/only", 0));
        eq!(ok!(list(c"m/only")), ["f"]);
        eq!(ok!(xattr(c"u/only", OPAQUE)), b"y");
        // Over a whiteout, from where none is needed.
        ok!(unlink(c"m/a"));
        mkdir(c"m/made")?;
        ok!(rename(c"m/made", c"m/a", 0));
        eq!(ok!(list(c"m")), ["a", "b", "d", "only"]);
        eq!(ok!(list(c"u")), ["a", "b", "d", "only"]);
        eq!(ok!(list(c"m/a")), Vec::<String>::new());
        ok!(rename(c"m/b", c"m/d/x", RENAME_EXCHANGE));
        eq!((ok!(text(c"m/b")), ok!(text(c"m/d/x"))), (String::from("x"), "lower b".into()));
        Ok(())
    })
}

fn links_and_unnamed_files() -> Outcome {
    with_overlay(|| {
        ok!(sys!(SYS_linkat, AT_FDCWD, c"m/b", AT_FDCWD, c"m/only/link", 0));
        eq!(ok!(stat(c"u/b")).st_nlink, 2);
        ok!(put(c"m/only/link", b"changed"));
        eq!(ok!(text(c"m/b")), "changed");
        ok!(unlink(c"m/b"));
        ok!(sys!(SYS_linkat, AT_FDCWD, c"m/only/link", AT_FDCWD, c"m/b", 0));
        eq!(ok!(text(c"m/b")), "changed");
        let fd = ok!(open(c"m/d", O_TMPFILE | O_RDWR));
        ok!(write_all(fd, b"late"));
        let name = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        let follow = libc::AT_SYMLINK_FOLLOW;
        ok!(sys!(SYS_linkat, AT_FDCWD, name.as_c_str(), AT_FDCWD, c"m/d/late", follow));
        eq!(ok!(text(c"u/d/late")), "late");
        ok!(close(fd));
        Ok(())
    })
}

fn special_files_and_maps() -> Outcome {
    with_overlay(|| {
        ok!(sys!(SYS_mknodat, AT_FDCWD, c"l2/fifo", libc::S_IFIFO | 0o600, 0));
        let fd = ok!(open(c"m/fifo", O_RDWR));
        ok!(write_all(fd, b"through"));
        let mut got = [0_u8; 7];
        ok!(sys!(SYS_read, fd, &mut got, 7));
        eq!(&got, b"through");
        ok!(close(fd));
        let fd = ok!(open(c"m/d/y", O_RDWR));
        let (prot, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let at = ok!(sys!(SYS_mmap, 0, 4096, prot, shared, fd, 0));
        ok!(close(fd));
        ok!(sys!(SYS_munmap, at, 4096));
        eq!(ok!(text(c"u/d/y")), "y");
        Ok(())
    })
}

fn flags_of_files_are_copied_ones() -> Outcome {
    const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
    const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
    const NODUMP: u32 = 0x40;
    let flags = |path| -> Result<u32, i32> {
        let fd = open(path, O_RDONLY)?;
        let mut flags = 0_u64;
        sys!(SYS_ioctl, fd, FS_IOC_GETFLAGS, &mut flags)?;
        close(fd)?;
        Ok(flags as u32)
    };
    with_overlay(|| {
        // A tmpfs has them since Linux 6.6, and these need no privilege.
        let fd = ok!(open(c"l1/a", O_RDONLY));
        let mut wanted = u64::from(NODUMP);
        ok!(sys!(SYS_ioctl, fd, FS_IOC_SETFLAGS, &wanted));
        eq!(ok!(flags(c"l1/a")), NODUMP);
        wanted = 0x10;
        fails!(sys!(SYS_ioctl, fd, FS_IOC_SETFLAGS, &wanted), EPERM);
        wanted = 0x100;
        fails!(sys!(SYS_ioctl, fd, FS_IOC_SETFLAGS, &wanted), EOPNOTSUPP);
        ok!(close(fd));
        let fd = ok!(open(c"m/b", O_RDONLY));
        wanted = u64::from(NODUMP);
        ok!(sys!(SYS_ioctl, fd, FS_IOC_SETFLAGS, &wanted));
        ok!(close(fd));
        eq!((ok!(flags(c"u/b")), ok!(flags(c"l2/b"))), (NODUMP, 0));
        Ok(())
    })
}

fn options_are_checked_and_shown() -> Outcome {
    with_layers(|| {
        for options in [
            c"",
            c"lowerdir=l1",
            c"lowerdir=l1,upperdir=u",
            c"upperdir=u,workdir=w",
            c"lowerdir=l1:l2,color=red",
            c"lowerdir=l1:l2/b",
            c"lowerdir=l1,upperdir=u,workdir=w,index=maybe",
            c"lowerdir=l1,upperdir=u,workdir=w,index=off,nfs_export=on",
            c"lowerdir=l1,upperdir=u,workdir=w,userxattr,metacopy=on",
            c"lowerdir=l1,upperdir=u,workdir=w,userxattr,redirect_dir=on",
            c"lowerdir=l1,upperdir=u,workdir=u/x",
            c"lowerdir=l1,upperdir=u,workdir=u",
        ] {
            check!(mount(c"m", options, 0).is_err(), "{options:?} is accepted");
        }
        fails!(mount(c"m", c"lowerdir=l1:nothing", 0), ENOENT);
        fails!(mount(c"m", c"lowerdir=l1:l1", 0), ELOOP);
        fails!(mount(c"m", c"lowerdir=l2:l2/d", 0), ELOOP);
        fails!(mount(c"m", c"lowerdir=u:l1,upperdir=u,workdir=w", 0), ELOOP);
        // The upper layer may lie in a lower one, but is not seen there.
        ok!(mount(c"m", c"lowerdir=.,upperdir=u,workdir=w,userxattr", 0));
        fails!(stat(c"m/u"), ELOOP);
        eq!(ok!(text(c"m/l2/b")), "lower b");
        ok!(sys!(SYS_umount2, c"m", 0));
        // There are no privileges for an index, so there is none.
        ok!(mount(c"m", c"lowerdir=l1:l2,upperdir=u,workdir=w,userxattr,index=on", 0));
        let mounts = ok!(text(c"/proc/self/mounts"));
        let line = mounts.lines().find(|line| line.starts_with("over ")).unwrap_or_default();
        check!(!line.contains("index=on"), "{line}");
        ok!(sys!(SYS_umount2, c"m", 0));
        mkdir(c"a:b")?;
        ok!(put(c"a:b/here", b"1"));
        ok!(mount(c"m", c"lowerdir=a\\:b:l1,userxattr", u64::from(MS_RDONLY as u32)));
        eq!(ok!(text(c"m/here")), "1");
        let mounts = ok!(text(c"/proc/self/mounts"));
        let line = mounts.lines().find(|line| line.starts_with("over ")).unwrap_or_default();
        check!(line.contains("/t/m overlay ro,relatime,"), "{line}");
        check!(line.contains("userxattr"), "{line}");
        ok!(sys!(SYS_umount2, c"m", 0));
        ok!(mount(c"m", OPTIONS, 0));
        let mounts = ok!(text(c"/proc/self/mounts"));
        let line = mounts.lines().find(|line| line.starts_with("over ")).unwrap_or_default();
        check!(line.contains("lowerdir=l1:l2,upperdir=u,workdir=w"), "{line}");
        // The names of the layers mean nothing any more.
        ok!(rename(c"u", c"v", 0));
        ok!(put(c"m/new", b"1"));
        eq!(ok!(text(c"v/new")), "1");
        eq!(ok!(stat(c"w/work")).st_mode & 0o7777, 0);
        Ok(())
    })
}

fn overlays_lie_on_overlays_twice() -> Outcome {
    with_overlay(|| {
        for dir in [c"u2", c"w2", c"m2", c"u3", c"w3", c"m3"] {
            mkdir(dir)?;
        }
        ok!(mount(c"m2", c"lowerdir=m,upperdir=u2,workdir=w2,userxattr", 0));
        eq!(ok!(list(c"m2/d")), ["sub", "x", "y"]);
        ok!(put(c"m2/d/y", b"second"));
        eq!((ok!(text(c"m/d/y")), ok!(text(c"u2/d/y"))), (String::from("y"), "second".into()));
        fails!(mount(c"m3", c"lowerdir=m2,upperdir=u3,workdir=w3,userxattr", 0), EINVAL);
        mkdir(c"m/uu")?;
        mkdir(c"m/ww")?;
        fails!(mount(c"m3", c"lowerdir=l1,upperdir=m/uu,workdir=m/ww,userxattr", 0), EINVAL);
        Ok(())
    })
}

/// What may not be changed by oneself may not be changed by way of an overlay.
fn foreign_directories_stay_as_they_are() -> Outcome {
    in_child(|| {
        for dir in [c"m", c"t", c"t/u", c"t/w", c"t/w/work", c"own", c"own/l", c"own/w"] {
            mkdir(dir)?;
        }
        mkdir(c"own/l/sub")?;
        ok!(put(c"t/w/work/file", b"1"));
        for path in [c"own", c"own/l", c"own/w"] {
            ok!(sys!(SYS_chmod, path, 0o777));
        }
        ok!(sys!(SYS_chown, c"own/l/sub", 1000, 1000));
        ok!(guest_tests::proc::drop_root());
        ok!(sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
        enter()?;
        // Whether the mount is refused or read-only, nothing changes.
        for options in [
            c"lowerdir=own/l,upperdir=t/u,workdir=t/w,userxattr",
            c"lowerdir=own/l,upperdir=t/u,workdir=own/w,userxattr",
        ] {
            if mount(c"m", options, 0).is_ok() {
                check!(put(c"m/new", b"").is_err(), "a file in a directory of others");
                check!(sys!(SYS_mkdir, c"m/sub/new", 0o755).is_err(), "a copy in one of others");
                ok!(sys!(SYS_umount2, c"m", 0));
            }
        }
        check!(stat(c"t/w/work/file").is_ok(), "the work directory of others is cleaned");
        check!(stat(c"t/u/new").is_err() && stat(c"t/u/sub").is_err(), "something is there");
        Ok(())
    })
}

/// A layer may change below; the result is anything but a crash.
fn layers_may_change_below() -> Outcome {
    with_overlay(|| {
        mkdir(c"m/p")?;
        mkdir(c"m/q")?;
        mkdir(c"m/q/r")?;
        // Below, p now lies in r: whoever moves q into p would make a ring.
        ok!(rename(c"u/p", c"u/q/r/p", 0));
        check!(rename(c"m/q", c"m/p/q", 0).is_err(), "a ring of directories");
        ok!(put(c"m/f", b"1"));
        ok!(unlink(c"u/f"));
        let _ = unlink(c"m/f");
        ok!(put(c"m/g", b"1"));
        ok!(rename(c"u/g", c"u/h", 0));
        let _ = rename(c"m/g", c"m/i", 0);
        fails!(stat(c"m/late"), ENOENT);
        ok!(put(c"u/late", b"1"));
        let _ = put(c"m/late", b"2");
        let _ = list(c"m");
        ok!(sys!(SYS_umount2, c"m", 0));
        Ok(())
    })
}

guest_tests::cases!(
    layers_are_merged,
    a_layer_may_be_read_only,
    changed_files_are_copied,
    holes_stay_holes,
    removed_files_leave_whiteouts,
    removed_directories_become_opaque,
    layers_may_be_opaque_from_the_start,
    renames_leave_whiteouts,
    links_and_unnamed_files,
    special_files_and_maps,
    flags_of_files_are_copied_ones,
    options_are_checked_and_shown,
    overlays_lie_on_overlays_twice,
    foreign_directories_stay_as_they_are,
    layers_may_change_below,
);
