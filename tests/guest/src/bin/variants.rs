//! Calls that are variants of better-known ones, by age or by one argument: `accept(2)`, `getdents(2)`,
//! `signalfd(2)`, `renameat(2)`, `sched_setattr(2)`, `ioprio_set(2)`, `pkey_mprotect(2)` and others.

use guest_tests::fs::{fstat, get, names, open, pipe, put, read, stat, stat_at, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{child, drop_root, in_child, pid, tid, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    AF_UNIX, AT_FDCWD, AT_SYMLINK_NOFOLLOW, CLOCK_MONOTONIC, CLOCK_REALTIME, O_CREAT, O_DIRECTORY,
    O_RDONLY, O_RDWR, PROT_READ, PROT_WRITE, SCHED_BATCH, SOCK_STREAM, timespec, timeval,
};

fn accept_without_flags() -> Outcome {
    let mut addr = [0u8; 110];
    addr[..2].copy_from_slice(&(AF_UNIX as u16).to_ne_bytes());
    addr[2..6].copy_from_slice(b"name");
    let server = ok!(sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
    ok!(sys!(SYS_bind, server, &addr, addr.len()));
    fails!(sys!(SYS_accept, server, 0, 0), EINVAL);
    ok!(sys!(SYS_listen, server, 1));
    let client = ok!(sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
    ok!(sys!(SYS_connect, client, &addr, addr.len()));
    let mut peer = [0xffu8; 110];
    let mut len = peer.len() as i32;
    let accepted = ok!(sys!(SYS_accept, server, &mut peer, &mut len)) as i32;
    eq!((len, &peer[..2]), (2, &addr[..2]));
    eq!(ok!(sys!(SYS_fcntl, accepted, libc::F_GETFD, 0)), 0);
    ok!(write(client as i32, b"hello"));
    let mut buf = [0; 8];
    eq!(ok!(read(accepted, &mut buf)), 5);
    fails!(sys!(SYS_accept, 9999, 0, 0), EBADF);
    fails!(sys!(SYS_accept, 0, 0, 0), ENOTSOCK);
    Ok(())
}

/// Returns names and types of `struct linux_dirent` records: the type is the last byte.
fn old_entries(mut buf: &[u8]) -> Vec<(String, u8)> {
    let mut found = Vec::new();
    while buf.len() > 18 {
        let len = usize::from(u16::from_ne_bytes([buf[16], buf[17]]));
        let name: Vec<u8> =
            buf[18..len - 1].iter().copied().take_while(|byte| *byte != 0).collect();
        found.push((String::from_utf8_lossy(&name).into_owned(), buf[len - 1]));
        buf = &buf[len..];
    }
    found.sort();
    found
}

fn directory_entries_of_old() -> Outcome {
    ok!(put(c"file", b""));
    ok!(sys!(SYS_mkdir, c"sub", 0o755));
    ok!(sys!(SYS_symlinkat, c"nowhere", AT_FDCWD, c"link"));
    let dir = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    let mut buf = [0u8; 1024];
    let n = ok!(sys!(SYS_getdents, dir, &mut buf, buf.len()));
    let found = old_entries(&buf[..n]);
    let expected = [
        (".", libc::DT_DIR),
        ("..", libc::DT_DIR),
        ("file", libc::DT_REG),
        ("link", libc::DT_LNK),
        ("sub", libc::DT_DIR),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    eq!(found, expected);
    eq!(ok!(sys!(SYS_getdents, dir, &mut buf, buf.len())), 0);
    ok!(sys!(SYS_lseek, dir, 0, 0));
    fails!(sys!(SYS_getdents, dir, &mut buf, 4), EINVAL);
    fails!(sys!(SYS_getdents, dir, 8, 1000), EFAULT);
    let file = ok!(open(c"file", O_RDONLY));
    fails!(sys!(SYS_getdents, file, &mut buf, buf.len()), ENOTDIR);
    fails!(sys!(SYS_getdents, 9999, &mut buf, buf.len()), EBADF);
    Ok(())
}

fn names_relative_to_a_directory() -> Outcome {
    ok!(sys!(SYS_mkdir, c"a", 0o755));
    ok!(sys!(SYS_mkdir, c"b", 0o755));
    ok!(put(c"a/f", b"content"));
    let (a, b) = (ok!(open(c"a", O_RDONLY)), ok!(open(c"b", O_RDONLY)));
    ok!(sys!(SYS_renameat, a, c"f", b, c"g"));
    eq!(ok!(get(c"b/g")), b"content");
    fails!(sys!(SYS_renameat, a, c"f", b, c"g"), ENOENT);
    fails!(sys!(SYS_renameat, 9999, c"f", b, c"g"), EBADF);
    ok!(sys!(SYS_symlinkat, c"g", b, c"l"));
    fails!(sys!(SYS_symlinkat, c"g", b, c"l"), EEXIST);
    fails!(sys!(SYS_symlinkat, c"", b, c"m"), ENOENT);
    eq!(ok!(get(c"b/l")), b"content");
    eq!(ok!(names(c"b")), [".", "..", "g", "l"]);
    Ok(())
}

fn times_in_microseconds() -> Outcome {
    ok!(put(c"f", b""));
    let dir = ok!(open(c".", O_RDONLY));
    let times = [timeval { tv_sec: 100, tv_usec: 7 }, timeval { tv_sec: 200, tv_usec: 999_999 }];
    ok!(sys!(SYS_futimesat, dir, c"f", &times));
    let now = ok!(stat(c"f"));
    eq!((now.st_atime, now.st_atime_nsec), (100, 7_000));
    eq!((now.st_mtime, now.st_mtime_nsec), (200, 999_999_000));
    ok!(sys!(SYS_futimesat, dir, c"f", 0));
    check!(ok!(stat(c"f")).st_mtime > 1_000_000_000);
    // Without a name the descriptor itself.
    let file = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_futimesat, file, 0, &times));
    eq!(ok!(fstat(file)).st_mtime, 200);
    let bad = [timeval { tv_sec: 1, tv_usec: 1_000_000 }, timeval { tv_sec: 1, tv_usec: 0 }];
    fails!(sys!(SYS_futimesat, dir, c"f", &bad), EINVAL);
    fails!(sys!(SYS_futimesat, dir, c"none", &times), ENOENT);
    fails!(sys!(SYS_futimesat, dir, c"f", 8), EFAULT);
    Ok(())
}

fn attributes_of_links() -> Outcome {
    ok!(put(c"f", b""));
    ok!(sys!(SYS_symlinkat, c"f", AT_FDCWD, c"l"));
    ok!(sys!(SYS_setxattr, c"f", c"user.a", b"1".as_ptr(), 1, 0));
    let mut buf = [0u8; 64];
    eq!(ok!(sys!(SYS_lgetxattr, c"f", c"user.a", &mut buf, 64)), 1);
    fails!(sys!(SYS_lgetxattr, c"l", c"user.a", &mut buf, 64), ENODATA);
    check!(ok!(sys!(SYS_llistxattr, c"f", &mut buf, 64)) >= 7);
    let n = ok!(sys!(SYS_llistxattr, c"l", &mut buf, 64));
    check!(!buf[..n].starts_with(b"user."));
    fails!(sys!(SYS_lremovexattr, c"l", c"user.a"), EPERM);
    ok!(sys!(SYS_lremovexattr, c"f", c"user.a"));
    fails!(sys!(SYS_lremovexattr, c"f", c"user.a"), ENODATA);
    eq!(ok!(stat_at(AT_FDCWD, c"l", AT_SYMLINK_NOFOLLOW)).st_mode & libc::S_IFMT, libc::S_IFLNK);
    Ok(())
}

fn signals_by_descriptor_of_old() -> Outcome {
    ok!(sig::block(libc::SIGUSR1));
    ok!(sig::block(libc::SIGUSR2));
    let set = sig::bit(libc::SIGUSR1);
    let fd = ok!(sys!(SYS_signalfd, -1, &set, 8)) as i32;
    eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0)), 0);
    ok!(sig::raise(libc::SIGUSR2));
    ok!(sig::raise(libc::SIGUSR1));
    let mut info = [0u8; 128];
    eq!(ok!(read(fd, &mut info)), 128);
    eq!(info[0], libc::SIGUSR1 as u8);
    // The same descriptor for another set.
    let set = sig::bit(libc::SIGUSR2);
    eq!(ok!(sys!(SYS_signalfd, fd, &set, 8)) as i32, fd);
    eq!(ok!(read(fd, &mut info)), 128);
    eq!(info[0], libc::SIGUSR2 as u8);
    fails!(sys!(SYS_signalfd, -1, &set, 4), EINVAL);
    fails!(sys!(SYS_signalfd, 0, &set, 8), EINVAL);
    fails!(sys!(SYS_signalfd, 9999, &set, 8), EBADF);
    Ok(())
}

fn queue_to_a_thread() -> Outcome {
    ok!(sig::block(40));
    let mut info = [0u32; 32];
    info[2] = -1i32 as u32;
    info[6] = 4711;
    ok!(sys!(SYS_rt_tgsigqueueinfo, pid(), tid(), 40, &info));
    let set = sig::bit(40);
    let mut seen = [0u32; 32];
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &set, &mut seen, &zeroed::<timespec>(), 8)), 40);
    eq!((seen[2] as i32, seen[6]), (-1, 4711));
    fails!(sys!(SYS_rt_tgsigqueueinfo, pid(), tid(), 99, &info), EINVAL);
    fails!(sys!(SYS_rt_tgsigqueueinfo, 0, tid(), 40, &info), EINVAL);
    fails!(sys!(SYS_rt_tgsigqueueinfo, pid(), 0x3fff_fff0, 40, &info), ESRCH);
    fails!(sys!(SYS_rt_tgsigqueueinfo, pid(), tid(), 40, 8), EFAULT);
    // Only to itself may a process pretend that the kernel has sent something.
    info[2] = 0;
    let parent = pid();
    in_child(|| {
        fails!(sys!(SYS_rt_tgsigqueueinfo, parent, parent, 40, &info), EPERM);
        Ok(())
    })
}

fn nothing_to_restart() -> Outcome {
    fails!(sys!(SYS_restart_syscall), EINTR);
    Ok(())
}

fn group_ids() -> Outcome {
    ok!(sys!(SYS_setregid, -1, -1));
    in_child(|| {
        ok!(sys!(SYS_setregid, 5, 6));
        eq!((ok!(sys!(SYS_getgid)), ok!(sys!(SYS_getegid))), (5, 6));
        ok!(drop_root());
        ok!(sys!(SYS_setregid, -1, ok!(sys!(SYS_getgid))));
        fails!(sys!(SYS_setregid, 0, -1), EPERM);
        fails!(sys!(SYS_setregid, -1, 0), EPERM);
        Ok(())
    })
}

fn administration_needs_capabilities() -> Outcome {
    in_child(|| {
        ok!(drop_root());
        fails!(sys!(SYS_setdomainname, c"name", 4), EPERM);
        fails!(sys!(SYS_swapoff, c"/none"), EPERM);
        // SYSLOG_ACTION_CLEAR, and no action at all.
        fails!(sys!(SYS_syslog, 5, 0, 0), EPERM);
        fails!(sys!(SYS_syslog, 99, 0, 0), EPERM);
        let mut timex = [0u64; 26];
        timex[0] = 1;
        fails!(sys!(SYS_clock_adjtime, CLOCK_REALTIME, &mut timex), EPERM);
        Ok(())
    })
}

fn clock_adjustments_are_shown() -> Outcome {
    let mut timex = [0u64; 26];
    check!(ok!(sys!(SYS_clock_adjtime, CLOCK_REALTIME, &mut timex)) <= 5);
    fails!(sys!(SYS_clock_adjtime, CLOCK_MONOTONIC, &mut timex), EOPNOTSUPP);
    fails!(sys!(SYS_clock_adjtime, 99, &mut timex), EINVAL);
    fails!(sys!(SYS_clock_adjtime, CLOCK_REALTIME, 8), EFAULT);
    Ok(())
}

fn scheduling_parameters() -> Outcome {
    let mut param = 0i32;
    ok!(sys!(SYS_sched_setparam, 0, &param));
    param = 5;
    fails!(sys!(SYS_sched_setparam, 0, &param), EINVAL);
    fails!(sys!(SYS_sched_setparam, 0, 0), EINVAL);
    fails!(sys!(SYS_sched_setparam, -1, &param), EINVAL);
    fails!(sys!(SYS_sched_setparam, 0x3fff_fff0, &param), ESRCH);
    let mut interval = timespec { tv_sec: -1, tv_nsec: -1 };
    ok!(sys!(SYS_sched_rr_get_interval, 0, &mut interval));
    check!(interval.tv_sec == 0 && (0..1_000_000_000).contains(&interval.tv_nsec));
    fails!(sys!(SYS_sched_rr_get_interval, -1, &mut interval), EINVAL);
    fails!(sys!(SYS_sched_rr_get_interval, 0x3fff_fff0, &mut interval), ESRCH);
    fails!(sys!(SYS_sched_rr_get_interval, 0, 8), EFAULT);
    Ok(())
}

/// The first version of `struct sched_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    times: [u64; 3],
}

fn scheduling_attributes() -> Outcome {
    let mut attr = SchedAttr { size: 48, nice: 5, ..SchedAttr::default() };
    ok!(sys!(SYS_sched_setattr, 0, &attr, 0));
    // getpriority(2) counts from 20 downwards.
    eq!(ok!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)), 15);
    attr.policy = SCHED_BATCH as u32;
    attr.nice = 6;
    ok!(sys!(SYS_sched_setattr, 0, &attr, 0));
    let mut seen = SchedAttr::default();
    ok!(sys!(SYS_sched_getattr, 0, &mut seen, 48, 0));
    eq!((seen.size, seen.policy, seen.nice, seen.priority), (48, SCHED_BATCH as u32, 6, 0));
    fails!(sys!(SYS_sched_getattr, 0, &mut seen, 47, 0), EINVAL);
    fails!(sys!(SYS_sched_getattr, 0, &mut seen, 48, 1), EINVAL);
    fails!(sys!(SYS_sched_getattr, 0x3fff_fff0, &mut seen, 48, 0), ESRCH);
    fails!(sys!(SYS_sched_getattr, 0, 0, 48, 0), EINVAL);
    fails!(sys!(SYS_sched_setattr, 0, &attr, 1), EINVAL);
    fails!(sys!(SYS_sched_setattr, 0, 0, 0), EINVAL);
    attr.policy = 77;
    fails!(sys!(SYS_sched_setattr, 0, &attr, 0), EINVAL);
    attr.size = 5000;
    fails!(sys!(SYS_sched_setattr, 0, &attr, 0), E2BIG);
    Ok(())
}

fn io_priorities() -> Outcome {
    const PROCESS: i32 = 1;
    let best_effort = 2 << 13 | 6;
    ok!(sys!(SYS_ioprio_set, PROCESS, 0, best_effort));
    eq!(ok!(sys!(SYS_ioprio_get, PROCESS, 0)), best_effort as usize);
    let parent = pid();
    in_child(|| {
        eq!(ok!(sys!(SYS_ioprio_get, PROCESS, 0)), best_effort as usize);
        eq!(ok!(sys!(SYS_ioprio_get, PROCESS, parent)), best_effort as usize);
        Ok(())
    })?;
    fails!(sys!(SYS_ioprio_get, 9, 0), EINVAL);
    fails!(sys!(SYS_ioprio_set, 9, 0, best_effort), EINVAL);
    fails!(sys!(SYS_ioprio_set, PROCESS, 0, 7 << 13), EINVAL);
    fails!(sys!(SYS_ioprio_get, PROCESS, 0x3fff_fff0), ESRCH);
    Ok(())
}

fn protection_keys() -> Outcome {
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    let addr = map.bytes().as_ptr() as usize;
    // Without a key as mprotect(2).
    ok!(sys!(SYS_pkey_mprotect, addr, PAGE, PROT_READ, -1));
    let (reader, writer) = ok!(pipe(0));
    ok!(write(writer, b"12345678"));
    fails!(sys!(SYS_read, reader, addr, 8), EFAULT);
    ok!(sys!(SYS_pkey_mprotect, addr, PAGE, PROT_READ | PROT_WRITE, -1));
    eq!(ok!(sys!(SYS_read, reader, addr, 8)), 8);
    fails!(sys!(SYS_pkey_mprotect, addr + 1, PAGE, PROT_READ, -1), EINVAL);
    fails!(sys!(SYS_pkey_mprotect, addr, PAGE, PROT_READ, 15), EINVAL);
    fails!(sys!(SYS_pkey_alloc, 1, 0), EINVAL);
    fails!(sys!(SYS_pkey_alloc, 0, 0x10), EINVAL);
    fails!(sys!(SYS_pkey_free, 15), EINVAL);
    fails!(sys!(SYS_pkey_free, -1), EINVAL);
    Ok(())
}

fn descriptors_of_others() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let file = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(write(file, b"content"));
    let other = ok!(child(|| {
        let mut byte = [0; 1];
        let _ = read(reader, &mut byte);
        0
    }));
    let pidfd = ok!(sys!(SYS_pidfd_open, other, 0)) as i32;
    ok!(sys!(SYS_close, reader));
    let taken = ok!(sys!(SYS_pidfd_getfd, pidfd, file, 0)) as i32;
    check!(taken != file);
    eq!(ok!(sys!(SYS_fcntl, taken, libc::F_GETFD, 0)), 1);
    // The same open file description: the offset is shared.
    eq!(ok!(sys!(SYS_lseek, taken, 0, libc::SEEK_CUR)), 7);
    ok!(sys!(SYS_lseek, taken, 3, libc::SEEK_SET));
    eq!(ok!(sys!(SYS_lseek, file, 0, libc::SEEK_CUR)), 3);
    fails!(sys!(SYS_pidfd_getfd, pidfd, 9999, 0), EBADF);
    fails!(sys!(SYS_pidfd_getfd, pidfd, file, 1), EINVAL);
    fails!(sys!(SYS_pidfd_getfd, file, file, 0), EBADF);
    ok!(write(writer, b"x"));
    ok!(wait(other));
    fails!(sys!(SYS_pidfd_getfd, pidfd, file, 0), ESRCH);
    Ok(())
}

guest_tests::cases!(
    accept_without_flags,
    directory_entries_of_old,
    names_relative_to_a_directory,
    times_in_microseconds,
    attributes_of_links,
    signals_by_descriptor_of_old,
    queue_to_a_thread,
    nothing_to_restart,
    group_ids,
    administration_needs_capabilities,
    clock_adjustments_are_shown,
    scheduling_parameters,
    scheduling_attributes,
    io_priorities,
    protection_keys,
    descriptors_of_others,
);
