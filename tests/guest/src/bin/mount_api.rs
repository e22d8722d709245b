//! The calls that mount step by step: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, `fspick(2)`,
//! `open_tree(2)`, `move_mount(2)`. Cases begin with a user namespace, so that none needs a privilege.

use std::ffi::CStr;

use guest_tests::fs::{close, open, pipe, put, read, stat, text, write_all};
use guest_tests::mem::zeroed;
use guest_tests::proc::{self, End, child, in_child, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, CLONE_NEWNS, CLONE_NEWUSER, MNT_DETACH, MS_PRIVATE, MS_REC, O_CREAT,
    O_DIRECTORY, O_RDONLY, O_WRONLY,
};

const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const SET_FD: u32 = 5;
const CREATE: u32 = 6;
const RECONFIGURE: u32 = 7;
const F_EMPTY_PATH: u32 = 4;
const CLONE: u32 = 1;
const RECURSIVE: u32 = 0x8000;
const NODEV: u32 = 4;
const NOEXEC: u32 = 8;

fn write_file(path: &CStr, content: &str) -> Outcome {
    let fd = ok!(open(path, O_WRONLY));
    ok!(write_all(fd, content.as_bytes()));
    ok!(close(fd));
    Ok(())
}

fn fsopen(kind: &CStr) -> Result<i32, i32> {
    sys!(SYS_fsopen, kind, 1).map(|fd| fd as i32)
}

fn set(fd: i32, key: &CStr, value: &CStr) -> Result<usize, i32> {
    sys!(SYS_fsconfig, fd, SET_STRING, key, value, 0)
}

fn command(fd: i32, command: u32) -> Result<usize, i32> {
    sys!(SYS_fsconfig, fd, command, 0, 0, 0)
}

fn fsmount(fd: i32, attributes: u32) -> Result<i32, i32> {
    sys!(SYS_fsmount, fd, 1, attributes).map(|fd| fd as i32)
}

fn open_tree(path: &CStr, flags: u32) -> Result<i32, i32> {
    sys!(SYS_open_tree, AT_FDCWD, path, flags).map(|fd| fd as i32)
}

fn place(fd: i32, at: &CStr) -> Result<usize, i32> {
    sys!(SYS_move_mount, fd, c"", AT_FDCWD, at, F_EMPTY_PATH)
}

/// Returns a detached tmpfs.
fn tmpfs() -> Result<i32, i32> {
    let context = fsopen(c"tmpfs")?;
    set(context, c"source", c"ours")?;
    command(context, CREATE)?;
    let mount = fsmount(context, 0)?;
    close(context)?;
    Ok(mount)
}

/// Runs a case in namespaces of its own, with two directories.
fn in_namespace(case: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        for dir in [c"a", c"b"] {
            ok!(sys!(SYS_mkdir, dir, 0o755));
        }
        let (uid, gid) = (ok!(sys!(SYS_getuid)), ok!(sys!(SYS_getgid)));
        ok!(sys!(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS));
        write_file(c"/proc/self/setgroups", "deny")?;
        write_file(c"/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write_file(c"/proc/self/gid_map", &format!("0 {gid} 1"))?;
        ok!(sys!(SYS_mount, 0, c"/", 0, MS_REC | MS_PRIVATE, 0));
        case()
    })
}

/// Returns the line of `/proc/mounts` of what is mounted last on a directory.
fn line_of(dir: &str) -> Result<String, i32> {
    let mounts = text(c"/proc/self/mounts")?;
    let end = format!("/{dir}");
    let of_dir = |line: &&str| line.split(' ').nth(1).is_some_and(|point| point.ends_with(&end));
    Ok(mounts.lines().rfind(of_dir).unwrap_or_default().to_owned())
}

fn a_file_system_is_made_in_steps() -> Outcome {
    in_namespace(|| {
        let context = ok!(fsopen(c"tmpfs"));
        fails!(read(context, &mut [0; 64]), ENODATA);
        ok!(set(context, c"source", c"ours"));
        ok!(set(context, c"size", c"1m"));
        ok!(set(context, c"mode", c"0700"));
        ok!(command(context, CREATE));
        fails!(command(context, CREATE), EBUSY);
        fails!(set(context, c"size", c"2m"), EBUSY);
        let mount = ok!(fsmount(context, NODEV | NOEXEC));
        fails!(fsmount(context, 0), EBUSY);
        // It is in use before it is anywhere.
        let file = ok!(sys!(SYS_openat, mount, c"file", O_CREAT | O_WRONLY, 0o644)) as i32;
        ok!(write_all(file, b"early"));
        ok!(close(file));
        ok!(place(mount, c"a"));
        eq!(ok!(text(c"a/file")), "early");
        eq!(ok!(stat(c"a")).st_mode & 0o7777, 0o700);
        let line = ok!(line_of("a"));
        check!(line.starts_with("ours "), "{line}");
        check!(line.contains(" tmpfs rw,nodev,noexec,relatime,size=1024k"), "{line}");
        ok!(close(mount));
        ok!(close(context));
        eq!(ok!(text(c"a/file")), "early");
        ok!(sys!(SYS_umount2, c"a", 0));
        Ok(())
    })
}

fn wrong_steps_fail() -> Outcome {
    in_namespace(|| {
        fails!(fsopen(c"nothing"), ENODEV);
        fails!(sys!(SYS_fsopen, c"tmpfs", 2), EINVAL);
        let context = ok!(fsopen(c"tmpfs"));
        fails!(fsmount(context, 0), EINVAL);
        fails!(sys!(SYS_fsconfig, context, 99, 0, 0, 0), EOPNOTSUPP);
        fails!(sys!(SYS_fsconfig, context, CREATE, c"key", 0, 0), EINVAL);
        fails!(sys!(SYS_fsconfig, context, SET_STRING, c"size", 0, 0), EINVAL);
        fails!(sys!(SYS_fsconfig, context, SET_FLAG, c"ro", c"1", 0), EINVAL);
        fails!(sys!(SYS_fsconfig, context, SET_FD, c"size", 0, -1), EINVAL);
        fails!(sys!(SYS_fsconfig, -1, CREATE, 0, 0, 0), EINVAL);
        fails!(sys!(SYS_fsconfig, 999, CREATE, 0, 0, 0), EBADF);
        ok!(set(context, c"source", c"one"));
        fails!(set(context, c"source", c"two"), EINVAL);
        let is_refused = set(context, c"size", c"much").is_err();
        check!(is_refused || command(context, CREATE) == Err(libc::EINVAL), "a size of much");
        ok!(close(context));
        let other = ok!(open(c"a", O_RDONLY | O_DIRECTORY));
        fails!(sys!(SYS_fsconfig, other, CREATE, 0, 0, 0), EINVAL);
        fails!(fsmount(other, 0), EINVAL);
        // What is no mount's root does not move.
        fails!(place(other, c"b"), EINVAL);
        ok!(close(other));
        let mount = ok!(tmpfs());
        fails!(sys!(SYS_move_mount, mount, c"", AT_FDCWD, c"a", 0x1000), EINVAL);
        fails!(sys!(SYS_move_mount, mount, c"", AT_FDCWD, c"a", 0), ENOENT);
        ok!(put(c"file", b""));
        fails!(place(mount, c"file"), EINVAL);
        fails!(place(mount, c"nothing"), ENOENT);
        ok!(place(mount, c"a"));
        let context = ok!(fsopen(c"tmpfs"));
        ok!(command(context, CREATE));
        fails!(sys!(SYS_fsmount, context, 2, 0), EINVAL);
        fails!(fsmount(context, 0x4000_0000), EINVAL);
        fails!(fsmount(context, 0x30), EINVAL);
        Ok(())
    })
}

fn trees_are_cloned() -> Outcome {
    in_namespace(|| {
        ok!(place(ok!(tmpfs()), c"a"));
        ok!(put(c"a/file", b"1"));
        ok!(sys!(SYS_mkdir, c"a/in", 0o755));
        ok!(place(ok!(tmpfs()), c"a/in"));
        ok!(put(c"a/in/deep", b"2"));
        fails!(open_tree(c"a", RECURSIVE), EINVAL);
        fails!(open_tree(c"a", 2), EINVAL);
        let plain = ok!(open_tree(c"a", 0));
        eq!(ok!(sys!(SYS_faccessat, plain, c"file", 0)), 0);
        let one = ok!(open_tree(c"a", CLONE));
        eq!(ok!(sys!(SYS_faccessat, one, c"file", 0)), 0);
        fails!(sys!(SYS_faccessat, one, c"in/deep", 0), ENOENT);
        ok!(close(one));
        let all = ok!(open_tree(c"a", CLONE | RECURSIVE));
        ok!(sys!(SYS_umount2, c"a", MNT_DETACH));
        eq!(ok!(sys!(SYS_faccessat, all, c"in/deep", 0)), 0);
        // What has been unmounted does not come back, but its copy has not been anywhere.
        fails!(place(plain, c"b"), EINVAL);
        ok!(place(all, c"b"));
        eq!((ok!(text(c"b/file")), ok!(text(c"b/in/deep"))), (String::from("1"), "2".into()));
        fails!(stat(c"a/file"), ENOENT);
        // It is a mount like others now.
        ok!(place(all, c"a"));
        fails!(stat(c"b/file"), ENOENT);
        ok!(sys!(SYS_move_mount, AT_FDCWD, c"a", AT_FDCWD, c"b", 0));
        eq!(ok!(text(c"b/in/deep")), "2");
        fails!(sys!(SYS_move_mount, AT_FDCWD, c"b", AT_FDCWD, c"b/in", 0), ELOOP);
        // A directory of a mount can be the root of another.
        let part = ok!(open_tree(c"b/in", CLONE));
        ok!(place(part, c"a"));
        eq!(ok!(text(c"a/deep")), "2");
        Ok(())
    })
}

fn attributes_change_before_the_place() -> Outcome {
    in_namespace(|| {
        let mount = ok!(tmpfs());
        let attr = [1_u64, 0, 0, 0];
        ok!(sys!(SYS_mount_setattr, mount, c"", AT_EMPTY_PATH, &attr, size_of_val(&attr)));
        ok!(place(mount, c"a"));
        fails!(put(c"a/file", b""), EROFS);
        let line = ok!(line_of("a"));
        check!(line.contains(" tmpfs ro,"), "{line}");
        Ok(())
    })
}

fn picked_file_systems_change() -> Outcome {
    in_namespace(|| {
        ok!(place(ok!(tmpfs()), c"a"));
        ok!(sys!(SYS_mkdir, c"a/dir", 0o755));
        fails!(sys!(SYS_fspick, AT_FDCWD, c"a/dir", 0), EINVAL);
        fails!(sys!(SYS_fspick, AT_FDCWD, c"a", 0x100), EINVAL);
        let context = ok!(sys!(SYS_fspick, AT_FDCWD, c"a", 1)) as i32;
        fails!(command(context, CREATE), EBUSY);
        fails!(fsmount(context, 0), EBUSY);
        ok!(sys!(SYS_fsconfig, context, SET_FLAG, c"ro", 0, 0));
        ok!(command(context, RECONFIGURE));
        fails!(put(c"a/file", b""), EROFS);
        ok!(sys!(SYS_fsconfig, context, SET_FLAG, c"rw", 0, 0));
        ok!(set(context, c"size", c"2m"));
        ok!(command(context, RECONFIGURE));
        ok!(put(c"a/file", b"1"));
        let mut told = zeroed::<libc::statfs>();
        ok!(sys!(SYS_statfs, c"a", &mut told));
        eq!(told.f_blocks * told.f_bsize as u64, 2 << 20);
        Ok(())
    })
}

fn overlays_are_made_in_steps() -> Outcome {
    in_namespace(|| {
        ok!(place(ok!(tmpfs()), c"a"));
        for dir in [c"a/l1", c"a/l2", c"a/u", c"a/w"] {
            ok!(sys!(SYS_mkdir, dir, 0o755));
        }
        ok!(put(c"a/l2/file", b"below"));
        let context = ok!(fsopen(c"overlay"));
        ok!(set(context, c"lowerdir", c"a/l1:a/l2"));
        ok!(set(context, c"upperdir", c"a/u"));
        ok!(set(context, c"workdir", c"a/w"));
        ok!(sys!(SYS_fsconfig, context, SET_FLAG, c"userxattr", 0, 0));
        ok!(command(context, CREATE));
        ok!(place(ok!(fsmount(context, 0)), c"b"));
        eq!(ok!(text(c"b/file")), "below");
        ok!(put(c"b/new", b"above"));
        eq!(ok!(text(c"a/u/new")), "above");
        Ok(())
    })
}

fn privileges_are_needed() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_mkdir, c"a", 0o755));
        ok!(proc::drop_root());
        fails!(fsopen(c"tmpfs"), EPERM);
        fails!(sys!(SYS_fspick, AT_FDCWD, c"a", 0), EPERM);
        fails!(fsmount(0, 0), EPERM);
        fails!(open_tree(c"a", CLONE), EPERM);
        fails!(sys!(SYS_move_mount, AT_FDCWD, c"a", AT_FDCWD, c"a", 0), EPERM);
        ok!(open_tree(c"a", 0));
        Ok(())
    })
}

/// Returns how often the mounts of this namespace are named like this.
fn n_mounts(name: &str) -> Result<usize, String> {
    let mounts = ok!(text(c"/proc/self/mountinfo"));
    Ok(mounts.lines().filter(|line| line.contains(name)).count())
}

fn removed_points_lose_their_mounts() -> Outcome {
    in_namespace(|| {
        let (seen, tell) = ok!(pipe(0));
        let (wait_for, go_on) = ok!(pipe(0));
        let other = ok!(child(|| {
            let case = || -> Outcome {
                ok!(close(go_on));
                ok!(sys!(SYS_unshare, CLONE_NEWNS));
                ok!(place(ok!(tmpfs()), c"a"));
                ok!(put(c"a/file", b"x"));
                ok!(place(ok!(tmpfs()), c"b"));
                let inside = ok!(open(c"a", O_RDONLY | O_DIRECTORY));
                eq!(n_mounts(" ours ")?, 2);
                ok!(write_all(tell, b"r"));
                eq!(ok!(read(wait_for, &mut [0])), 0);
                eq!(n_mounts(" ours ")?, 0);
                fails!(stat(c"a"), ENOENT);
                // Who has it open still has it.
                ok!(sys!(SYS_faccessat, inside, c"file", 0));
                Ok(())
            };
            i32::from(case().inspect_err(|error| eprintln!("{error}")).is_err())
        }));
        ok!(close(wait_for));
        eq!(ok!(read(seen, &mut [0])), 1);
        eq!(n_mounts(" ours ")?, 0);
        // What is mounted here is busy.
        ok!(sys!(SYS_mkdir, c"own", 0o755));
        ok!(place(ok!(tmpfs()), c"own"));
        fails!(sys!(SYS_rmdir, c"own"), EBUSY);
        fails!(sys!(SYS_rename, c"own", c"b"), EBUSY);
        fails!(sys!(SYS_rename, c"b", c"own"), EBUSY);
        // What is mounted elsewhere is not, and goes.
        ok!(sys!(SYS_rmdir, c"a"));
        ok!(sys!(SYS_mkdir, c"new", 0o755));
        ok!(sys!(SYS_rename, c"new", c"b"));
        ok!(close(go_on));
        eq!(ok!(wait(other)), End::Code(0));
        Ok(())
    })
}

guest_tests::cases!(
    a_file_system_is_made_in_steps,
    wrong_steps_fail,
    trees_are_cloned,
    attributes_change_before_the_place,
    picked_file_systems_change,
    overlays_are_made_in_steps,
    privileges_are_needed,
    removed_points_lose_their_mounts,
);
