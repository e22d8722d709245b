//! Leases, directory notification, and what `F_GETLK` tells of several locks.

use guest_tests::fs::{close, open, put};
use guest_tests::mem::zeroed;
use guest_tests::proc::End;
use guest_tests::{Outcome, check, eq, fails, ok, proc, sig, sys};
use libc::{F_RDLCK, F_UNLCK, F_WRLCK, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

const F_SETLEASE: i32 = 1024;
const F_GETLEASE: i32 = 1025;
const F_NOTIFY: i32 = 1026;
const F_CREATED_QUERY: i32 = 1028;
const DN_MODIFY: u32 = 2;
const DN_CREATE: u32 = 4;
const DN_DELETE: u32 = 8;
const DN_RENAME: u32 = 0x10;
const DN_MULTISHOT: u32 = 0x8000_0000;
const SIGIO: i32 = libc::SIGIO;

fn lease(fd: i32) -> Result<i32, i32> {
    sys!(SYS_fcntl, fd, F_GETLEASE, 0).map(|kind| kind as i32)
}

fn leases_need_a_file_that_nobody_else_writes() -> Outcome {
    ok!(put(c"f", b"x"));
    let fd = ok!(open(c"f", O_RDONLY));
    eq!(ok!(lease(fd)), F_UNLCK);
    fails!(sys!(SYS_fcntl, fd, F_SETLEASE, F_UNLCK), EAGAIN);
    fails!(sys!(SYS_fcntl, fd, F_SETLEASE, 7), EINVAL);
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_RDLCK));
    eq!(ok!(lease(fd)), F_RDLCK);
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_WRLCK));
    eq!(ok!(lease(fd)), F_WRLCK);
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_UNLCK));
    eq!(ok!(lease(fd)), F_UNLCK);
    let other = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_fcntl, fd, F_SETLEASE, F_WRLCK), EAGAIN);
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_RDLCK));
    ok!(sys!(SYS_fcntl, other, F_SETLEASE, F_RDLCK));
    ok!(close(other));
    let writer = ok!(open(c"g", O_RDWR | O_CREAT));
    fails!(sys!(SYS_fcntl, writer, F_SETLEASE, F_RDLCK), EAGAIN);
    ok!(sys!(SYS_fcntl, writer, F_SETLEASE, F_WRLCK));
    let dir = ok!(open(c".", O_RDONLY));
    fails!(sys!(SYS_fcntl, dir, F_SETLEASE, F_RDLCK), EINVAL);
    Ok(())
}

fn opening_breaks_a_lease() -> Outcome {
    ok!(put(c"f", b"x"));
    ok!(sig::handle(SIGIO, sig::record, 0));
    let fd = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_WRLCK));
    fails!(open(c"f", O_RDONLY | O_NONBLOCK), EWOULDBLOCK);
    eq!(sig::count(), 1);
    // What the lease is going to be.
    eq!(ok!(lease(fd)), F_RDLCK);
    fails!(open(c"f", O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
    eq!(sig::count(), 2);
    eq!(ok!(lease(fd)), F_UNLCK);
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_UNLCK));
    ok!(close(ok!(open(c"f", O_WRONLY | O_NONBLOCK))));
    Ok(())
}

fn who_opens_waits_for_the_holder() -> Outcome {
    ok!(put(c"f", b"x"));
    ok!(sig::block(SIGIO));
    let fd = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_RDLCK));
    let pid = ok!(proc::child(|| match open(c"f", O_WRONLY) {
        Ok(_) => 3,
        Err(errno) => errno,
    }));
    let set = sig::bit(SIGIO);
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &set, 0, 0, 8)), SIGIO as usize);
    check!(proc::until_asleep(pid));
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_UNLCK));
    eq!(ok!(proc::wait(pid)), End::Code(3));
    // Truncation waits as well; the end of the descriptor is the end of the lease.
    ok!(sys!(SYS_fcntl, fd, F_SETLEASE, F_RDLCK));
    let pid = ok!(proc::child(|| {
        let _ = close(fd);
        i32::from(sys!(SYS_truncate, c"f", 0).is_ok())
    }));
    eq!(ok!(sys!(SYS_rt_sigtimedwait, &set, 0, 0, 8)), SIGIO as usize);
    ok!(close(fd));
    eq!(ok!(proc::wait(pid)), End::Code(1));
    Ok(())
}

fn directories_tell_of_changes() -> Outcome {
    ok!(sys!(SYS_mkdir, c"d", 0o700));
    ok!(sig::handle(SIGIO, sig::record, 0));
    let dir = ok!(open(c"d", O_RDONLY));
    ok!(sys!(SYS_fcntl, dir, F_NOTIFY, DN_CREATE));
    let fd = ok!(open(c"d/a", O_RDWR | O_CREAT));
    eq!(sig::count(), 1);
    // Told once only.
    ok!(close(ok!(open(c"d/b", O_RDWR | O_CREAT))));
    eq!(sig::count(), 1);
    ok!(sys!(SYS_fcntl, dir, F_NOTIFY, DN_MODIFY | DN_DELETE | DN_MULTISHOT));
    ok!(guest_tests::fs::write(fd, b"x"));
    eq!(sig::count(), 2);
    ok!(sys!(SYS_unlink, c"d/b"));
    eq!(sig::count(), 3);
    ok!(sys!(SYS_fcntl, dir, F_NOTIFY, 0));
    // A new name within the directory, and neither one to it nor from it.
    ok!(sys!(SYS_fcntl, dir, F_NOTIFY, DN_RENAME | DN_MULTISHOT));
    ok!(sys!(SYS_rename, c"d/a", c"d/c"));
    eq!(sig::count(), 4);
    ok!(sys!(SYS_rename, c"d/c", c"c"));
    ok!(sys!(SYS_rename, c"c", c"d/c"));
    eq!(sig::count(), 4);
    ok!(sys!(SYS_fcntl, dir, F_NOTIFY, 0));
    ok!(sys!(SYS_rename, c"d/c", c"d/a"));
    eq!(sig::count(), 4);
    ok!(put(c"f", b"x"));
    let file = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_fcntl, file, F_NOTIFY, DN_CREATE), ENOTDIR);
    Ok(())
}

fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    let mut lock = zeroed::<libc::flock>();
    lock.l_type = kind as i16;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn the_first_of_several_locks_is_told() -> Outcome {
    ok!(put(c"f", &[0; 100]));
    let fd = ok!(open(c"f", O_RDWR));
    let set = |kind, start, len| sys!(SYS_fcntl, fd, libc::F_SETLK, &lock(kind, start, len));
    ok!(set(F_WRLCK, 10, 5));
    ok!(set(F_RDLCK, 1, 5));
    ok!(set(F_WRLCK, 5, 10));
    ok!(set(F_RDLCK, 7, 2));
    proc::in_child(|| {
        let fd = ok!(open(c"f", O_RDWR));
        let mut at = 0;
        for expected in [(F_RDLCK, 1, 4), (F_WRLCK, 5, 2), (F_RDLCK, 7, 2), (F_WRLCK, 9, 6)] {
            let mut probe = lock(F_WRLCK, at, 0);
            ok!(sys!(SYS_fcntl, fd, libc::F_GETLK, &mut probe));
            eq!((i32::from(probe.l_type), probe.l_start, probe.l_len), expected);
            at = probe.l_start + probe.l_len;
        }
        Ok(())
    })
}

fn who_made_the_file_is_told() -> Outcome {
    let query = |fd: i32| sys!(SYS_fcntl, fd, F_CREATED_QUERY, 0);
    eq!(ok!(query(ok!(open(c"f", O_RDWR | O_CREAT)))), 1);
    eq!(ok!(query(ok!(open(c"f", O_RDWR | O_CREAT)))), 0);
    eq!(ok!(query(ok!(open(c"g", O_RDWR | O_CREAT | O_EXCL)))), 1);
    eq!(ok!(query(ok!(open(c".", O_RDONLY)))), 0);
    Ok(())
}

guest_tests::cases!(
    leases_need_a_file_that_nobody_else_writes,
    opening_breaks_a_lease,
    who_opens_waits_for_the_holder,
    directories_tell_of_changes,
    the_first_of_several_locks_is_told,
    who_made_the_file_is_told,
);
