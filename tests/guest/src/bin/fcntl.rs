//! `fcntl(2)` commands, record locks, open-file-description locks, `flock(2)`, leases, owners.

use guest_tests::fs::{close, open, pipe, put};
use guest_tests::mem::zeroed;
use guest_tests::{Outcome, check, eq, fails, ok, proc, sig, sys};
use libc::{
    F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_GETLK, F_SETFD, F_SETFL, F_SETLK, F_SETLKW,
    O_RDONLY, O_RDWR,
};

const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const F_OWNER_PGRP: i32 = 2;
const F_OFD_GETLK: i32 = 36;
const F_OFD_SETLK: i32 = 37;
const F_OFD_SETLKW: i32 = 38;

fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    let mut lock = zeroed::<libc::flock>();
    lock.l_type = kind as i16;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn duplicate_from_minimum() -> Outcome {
    let fd = ok!(open(c".", O_RDONLY));
    eq!(ok!(sys!(SYS_fcntl, fd, F_DUPFD, 100)), 100);
    eq!(ok!(sys!(SYS_fcntl, fd, F_DUPFD, 100)), 101);
    eq!(ok!(sys!(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 100)), 102);
    eq!(ok!(sys!(SYS_fcntl, 102, F_GETFD, 0)), 1);
    eq!(ok!(sys!(SYS_fcntl, 101, F_GETFD, 0)), 0);
    fails!(sys!(SYS_fcntl, fd, F_DUPFD, -1), EINVAL);
    fails!(sys!(SYS_fcntl, 999, F_DUPFD, 0), EBADF);
    fails!(sys!(SYS_fcntl, fd, 9999, 0), EINVAL);
    Ok(())
}

fn flags_of_descriptor_and_description() -> Outcome {
    let fd = ok!(open(c".", O_RDONLY));
    let copy = ok!(sys!(SYS_dup, fd)) as i32;
    ok!(sys!(SYS_fcntl, fd, F_SETFD, 1));
    eq!(ok!(sys!(SYS_fcntl, copy, F_GETFD, 0)), 0);
    let (reader, _writer) = ok!(pipe(0));
    let copy = ok!(sys!(SYS_dup, reader)) as i32;
    ok!(sys!(SYS_fcntl, reader, F_SETFL, libc::O_NONBLOCK));
    check!(ok!(sys!(SYS_fcntl, copy, F_GETFL, 0)) as i32 & libc::O_NONBLOCK != 0);
    let mut byte = [0u8; 1];
    fails!(guest_tests::fs::read(copy, &mut byte), EAGAIN);
    Ok(())
}

fn record_lock_conflicts() -> Outcome {
    ok!(put(c"f", &[0; 100]));
    let fd = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 10, 10)));
    let parent = proc::pid();
    ok!(proc::in_child(|| {
        let fd = ok!(open(c"f", O_RDWR));
        fails!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_RDLCK, 15, 1)), EAGAIN);
        ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 20, 5)));
        let mut probe = lock(libc::F_RDLCK, 0, 100);
        ok!(sys!(SYS_fcntl, fd, F_GETLK, &mut probe));
        eq!(
            (i32::from(probe.l_type), probe.l_start, probe.l_len, probe.l_pid),
            (libc::F_WRLCK, 10, 10, parent)
        );
        let mut probe = lock(libc::F_RDLCK, 0, 5);
        ok!(sys!(SYS_fcntl, fd, F_GETLK, &mut probe));
        eq!(i32::from(probe.l_type), libc::F_UNLCK);
        Ok(())
    }));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    Ok(())
}

fn record_locks_split_and_merge() -> Outcome {
    ok!(put(c"f", &[0; 100]));
    let fd = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 30)));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_UNLCK, 10, 10)));
    proc::in_child(|| {
        let fd = ok!(open(c"f", O_RDWR));
        ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 10, 10)));
        fails!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 9, 1)), EAGAIN);
        fails!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 20, 1)), EAGAIN);
        ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 30, 0)));
        Ok(())
    })
}

fn record_locks_end_with_any_close() -> Outcome {
    ok!(put(c"f", &[0; 10]));
    let fd = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    ok!(close(ok!(open(c"f", O_RDONLY))));
    proc::in_child(|| {
        let fd = ok!(open(c"f", O_RDWR));
        ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
        Ok(())
    })
}

fn record_lock_waits() -> Outcome {
    ok!(put(c"f", &[0; 10]));
    let fd = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    let pid = ok!(proc::child(|| {
        match sys!(SYS_fcntl, fd, F_SETLKW, &lock(libc::F_WRLCK, 0, 0)) {
            Ok(_) => 3,
            Err(errno) => errno,
        }
    }));
    check!(proc::until_asleep(pid), "child did not wait");
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_UNLCK, 0, 0)));
    eq!(ok!(proc::wait(pid)), proc::End::Code(3));
    Ok(())
}

fn record_lock_wait_is_interrupted() -> Outcome {
    ok!(put(c"f", &[0; 10]));
    let fd = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    let pid = ok!(proc::child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, 0);
        match sys!(SYS_fcntl, fd, F_SETLKW, &lock(libc::F_WRLCK, 0, 0)) {
            Ok(_) => 99,
            Err(errno) => errno,
        }
    }));
    check!(proc::until_asleep(pid));
    ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    eq!(ok!(proc::wait(pid)), proc::End::Code(libc::EINTR));
    Ok(())
}

fn record_lock_deadlock() -> Outcome {
    ok!(put(c"f", &[0; 10]));
    let fd = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 1)));
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(proc::child(|| {
        let _ = sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 1, 1));
        let _ = guest_tests::fs::write(writer, b"x");
        i32::from(sys!(SYS_fcntl, fd, F_SETLKW, &lock(libc::F_WRLCK, 0, 1)).is_err())
    }));
    let mut byte = [0u8; 1];
    ok!(guest_tests::fs::read(reader, &mut byte));
    check!(proc::until_asleep(pid));
    fails!(sys!(SYS_fcntl, fd, F_SETLKW, &lock(libc::F_WRLCK, 1, 1)), EDEADLK);
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_UNLCK, 0, 1)));
    eq!(ok!(proc::wait(pid)), proc::End::Code(0));
    Ok(())
}

fn record_lock_arguments() -> Outcome {
    ok!(put(c"f", b""));
    let fd = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_WRLCK, 0, 0)), EBADF);
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_RDLCK, 0, 0)));
    fails!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_RDLCK, -1, 0)), EINVAL);
    fails!(sys!(SYS_fcntl, fd, F_SETLK, &lock(9, 0, 0)), EINVAL);
    fails!(sys!(SYS_fcntl, fd, F_SETLK, 8), EFAULT);
    ok!(sys!(SYS_fcntl, fd, F_SETLK, &lock(libc::F_RDLCK, 10, -5)));
    Ok(())
}

fn ofd_locks_belong_to_description() -> Outcome {
    ok!(put(c"f", &[0; 10]));
    let a = ok!(open(c"f", O_RDWR));
    let b = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, a, F_OFD_SETLK, &lock(libc::F_WRLCK, 0, 5)));
    fails!(sys!(SYS_fcntl, b, F_OFD_SETLK, &lock(libc::F_WRLCK, 0, 5)), EAGAIN);
    fails!(sys!(SYS_fcntl, b, F_SETLK, &lock(libc::F_RDLCK, 0, 5)), EAGAIN);
    let mut probe = lock(libc::F_RDLCK, 0, 0);
    ok!(sys!(SYS_fcntl, b, F_OFD_GETLK, &mut probe));
    eq!((i32::from(probe.l_type), probe.l_pid), (libc::F_WRLCK, -1));
    let copy = ok!(sys!(SYS_dup, a)) as i32;
    ok!(close(a));
    fails!(sys!(SYS_fcntl, b, F_OFD_SETLK, &lock(libc::F_WRLCK, 0, 5)), EAGAIN);
    ok!(close(copy));
    ok!(sys!(SYS_fcntl, b, F_OFD_SETLKW, &lock(libc::F_WRLCK, 0, 5)));
    Ok(())
}

fn ofd_locks_tell_of_themselves() -> Outcome {
    ok!(put(c"f", &[0; 10]));
    let a = ok!(open(c"f", O_RDWR));
    let b = ok!(open(c"f", O_RDWR));
    ok!(sys!(SYS_fcntl, a, F_OFD_SETLK, &lock(libc::F_RDLCK, 4, 2)));
    let mut probe = lock(libc::F_UNLCK, 0, 0);
    ok!(sys!(SYS_fcntl, a, F_OFD_GETLK, &mut probe));
    eq!((i32::from(probe.l_type), probe.l_start, probe.l_len), (libc::F_RDLCK, 4, 2));
    let mut probe = lock(libc::F_UNLCK, 0, 0);
    ok!(sys!(SYS_fcntl, b, F_OFD_GETLK, &mut probe));
    eq!(i32::from(probe.l_type), libc::F_UNLCK);
    fails!(sys!(SYS_fcntl, a, F_GETLK, &lock(libc::F_UNLCK, 0, 0)), EINVAL);
    Ok(())
}

fn flock_excludes() -> Outcome {
    ok!(put(c"f", b""));
    let a = ok!(open(c"f", O_RDONLY));
    let b = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_flock, a, libc::LOCK_SH));
    ok!(sys!(SYS_flock, b, libc::LOCK_SH | libc::LOCK_NB));
    fails!(sys!(SYS_flock, b, libc::LOCK_EX | libc::LOCK_NB), EAGAIN);
    ok!(sys!(SYS_flock, a, libc::LOCK_UN));
    ok!(sys!(SYS_flock, b, libc::LOCK_EX | libc::LOCK_NB));
    fails!(sys!(SYS_flock, a, libc::LOCK_SH | libc::LOCK_NB), EAGAIN);
    ok!(close(b));
    ok!(sys!(SYS_flock, a, libc::LOCK_EX | libc::LOCK_NB));
    fails!(sys!(SYS_flock, a, 16), EINVAL);
    fails!(sys!(SYS_flock, 999, libc::LOCK_SH), EBADF);
    Ok(())
}

fn flock_is_inherited_and_waits() -> Outcome {
    ok!(put(c"f", b""));
    let a = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_flock, a, libc::LOCK_EX));
    ok!(proc::in_child(|| {
        ok!(sys!(SYS_flock, a, libc::LOCK_EX | libc::LOCK_NB));
        Ok(())
    }));
    let pid = ok!(proc::child(|| {
        let b = open(c"f", O_RDONLY).unwrap_or(-1);
        i32::from(sys!(SYS_flock, b, libc::LOCK_EX).is_err())
    }));
    check!(proc::until_asleep(pid));
    ok!(sys!(SYS_flock, a, libc::LOCK_UN));
    eq!(ok!(proc::wait(pid)), proc::End::Code(0));
    Ok(())
}

fn owner_and_signal() -> Outcome {
    let (reader, _writer) = ok!(pipe(0));
    eq!(ok!(sys!(SYS_fcntl, reader, libc::F_GETOWN, 0)), 0);
    ok!(sys!(SYS_fcntl, reader, libc::F_SETOWN, proc::pid()));
    eq!(ok!(sys!(SYS_fcntl, reader, libc::F_GETOWN, 0)) as i32, proc::pid());
    ok!(sys!(SYS_fcntl, reader, 10, libc::SIGUSR1));
    eq!(ok!(sys!(SYS_fcntl, reader, 11, 0)) as i32, libc::SIGUSR1);
    let group = ok!(sys!(SYS_getpgid, 0)) as i32;
    ok!(sys!(SYS_fcntl, reader, F_SETOWN_EX, &[F_OWNER_PGRP, group]));
    let mut owner = [0i32; 2];
    ok!(sys!(SYS_fcntl, reader, F_GETOWN_EX, &mut owner));
    eq!(owner, [F_OWNER_PGRP, group]);
    for pid in [i32::MIN, -1] {
        fails!(sys!(SYS_fcntl, reader, F_SETOWN_EX, &[F_OWNER_PGRP, pid]), ESRCH);
    }
    fails!(sys!(SYS_fcntl, reader, F_SETOWN_EX, &[F_OWNER_PGRP + 1, group]), EINVAL);
    fails!(sys!(SYS_fcntl, reader, libc::F_SETOWN, i32::MIN), EINVAL);
    // Whom there is not nobody can tell.
    let nobody = 0x7ff_ffff;
    for pid in [nobody, -nobody] {
        fails!(sys!(SYS_fcntl, reader, libc::F_SETOWN, pid), ESRCH);
    }
    for kind in [F_OWNER_PGRP, F_OWNER_PGRP - 1, F_OWNER_PGRP - 2] {
        fails!(sys!(SYS_fcntl, reader, F_SETOWN_EX, &[kind, nobody]), ESRCH);
    }
    // The negative number of a group looks like an error, or like a large number.
    let negated = match sys!(SYS_fcntl, reader, libc::F_GETOWN, 0) {
        Ok(number) => number as i32,
        Err(errno) => -errno,
    };
    eq!(negated, -group);
    Ok(())
}

fn async_notification() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(sig::handle(libc::SIGIO, sig::record, 0));
    ok!(sys!(SYS_fcntl, reader, libc::F_SETOWN, proc::pid()));
    ok!(sys!(SYS_fcntl, reader, F_SETFL, libc::O_ASYNC));
    ok!(guest_tests::fs::write(writer, b"x"));
    check!(proc::until(|| sig::count() > 0));
    Ok(())
}

fn ioctls_on_descriptors() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(guest_tests::fs::write(writer, b"12345"));
    let mut n = 0i32;
    ok!(sys!(SYS_ioctl, reader, libc::FIONREAD, &mut n));
    eq!(n, 5);
    let on = 1i32;
    ok!(sys!(SYS_ioctl, reader, libc::FIONBIO, &on));
    check!(ok!(sys!(SYS_fcntl, reader, F_GETFL, 0)) as i32 & libc::O_NONBLOCK != 0);
    ok!(sys!(SYS_ioctl, reader, libc::FIOCLEX, 0));
    eq!(ok!(sys!(SYS_fcntl, reader, F_GETFD, 0)), 1);
    ok!(sys!(SYS_ioctl, reader, libc::FIONCLEX, 0));
    eq!(ok!(sys!(SYS_fcntl, reader, F_GETFD, 0)), 0);
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_ioctl, fd, libc::FIONREAD, &mut n));
    eq!(n, 3);
    fails!(sys!(SYS_ioctl, fd, libc::TCGETS, 0), ENOTTY);
    fails!(sys!(SYS_ioctl, 999, libc::FIONREAD, &mut n), EBADF);
    Ok(())
}

guest_tests::cases!(
    duplicate_from_minimum,
    flags_of_descriptor_and_description,
    record_lock_conflicts,
    record_locks_split_and_merge,
    record_locks_end_with_any_close,
    record_lock_waits,
    record_lock_wait_is_interrupted,
    record_lock_deadlock,
    record_lock_arguments,
    ofd_locks_belong_to_description,
    ofd_locks_tell_of_themselves,
    flock_excludes,
    flock_is_inherited_and_waits,
    owner_and_signal,
    async_notification,
    ioctls_on_descriptors,
);
