//! Calls that came to Linux late, or that few programs make: `kcmp(2)`, `mseal(2)`, `cachestat(2)`,
//! `process_madvise(2)`, `process_mrelease(2)`, `remap_file_pages(2)`; and small corners.

use guest_tests::fs::{get, open, pipe, put, write_all};
use guest_tests::mem::{Map, peek};
use guest_tests::{Outcome, check, eq, fails, ok, proc, raw, sys};
use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, O_CREAT, O_RDONLY, O_RDWR};
use libc::{PROT_NONE, PROT_READ, PROT_WRITE};

const PAGE: usize = 4096;

fn kcmp_tells_what_is_shared() -> Outcome {
    const FILE: i32 = 0;
    const VM: i32 = 1;
    const FILES: i32 = 2;
    const FS: i32 = 3;
    const EPOLL_TFD: i32 = 7;
    let (reader, writer) = ok!(pipe(0));
    let copy = ok!(sys!(SYS_dup, reader));
    let me = proc::pid();
    eq!(ok!(sys!(SYS_kcmp, me, me, FILE, reader, copy)), 0);
    let order = ok!(sys!(SYS_kcmp, me, me, FILE, reader, writer));
    check!(order == 1 || order == 2);
    eq!(ok!(sys!(SYS_kcmp, me, me, FILE, writer, reader)), 3 - order);
    let epoll = ok!(sys!(SYS_epoll_create1, 0));
    let event = [1u32, 0, 0];
    ok!(sys!(SYS_epoll_ctl, epoll, 1, reader, &event));
    let slot = [epoll as u32, reader as u32, 0];
    eq!(ok!(sys!(SYS_kcmp, me, me, EPOLL_TFD, copy, &slot)), 0);
    ok!(proc::in_child(|| {
        let child = proc::pid();
        eq!(ok!(sys!(SYS_kcmp, me, child, FILE, reader, copy)), 0);
        for kind in [VM, FILES, FS] {
            check!(ok!(sys!(SYS_kcmp, me, child, kind, 0, 0)) != 0);
            eq!(ok!(sys!(SYS_kcmp, child, child, kind, 0, 0)), 0);
        }
        Ok(())
    }));
    fails!(sys!(SYS_kcmp, me, me, FILE, reader, 999), EBADF);
    fails!(sys!(SYS_kcmp, me, me, 99, 0, 0), EINVAL);
    fails!(sys!(SYS_kcmp, me, 0, VM, 0, 0), ESRCH);
    Ok(())
}

fn sealed_memory_stays() -> Outcome {
    let map = ok!(Map::anonymous(4 * PAGE, MAP_PRIVATE));
    let at = map.addr + PAGE;
    ok!(sys!(SYS_mprotect, at, PAGE, PROT_READ));
    ok!(sys!(SYS_mseal, at, PAGE, 0));
    fails!(sys!(SYS_mseal, at, PAGE, 1), EINVAL);
    fails!(sys!(SYS_mseal, at + 1, PAGE, 0), EINVAL);
    fails!(sys!(SYS_munmap, at, PAGE), EPERM);
    fails!(sys!(SYS_munmap, map.addr, 4 * PAGE), EPERM);
    fails!(sys!(SYS_mprotect, at, PAGE, PROT_READ | PROT_WRITE), EPERM);
    fails!(sys!(SYS_mremap, at, PAGE, 2 * PAGE, 1, 0), EPERM);
    fails!(sys!(SYS_madvise, at, PAGE, libc::MADV_DONTNEED), EPERM);
    let fixed = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    fails!(sys!(SYS_mmap, at, PAGE, PROT_READ, fixed, -1, 0), EPERM);
    eq!(peek(at), 0);
    let hole = map.addr + 3 * PAGE;
    ok!(sys!(SYS_munmap, hole, PAGE));
    fails!(sys!(SYS_mseal, at, 3 * PAGE, 0), ENOMEM);
    map.leak();
    Ok(())
}

fn cachestat_counts_pages() -> Outcome {
    // SYS_cachestat, which the C library does not name.
    let cachestat = |fd: i32, range: &[u64; 2], out: &mut [u64; 5], flags: usize| {
        let (range, out) = (range.as_ptr() as usize, out.as_mut_ptr() as usize);
        raw(451, [fd as usize, range, out, flags, 0, 0])
    };
    let mut out = [u64::MAX; 5];
    let fd = ok!(open(c"f", O_RDWR | O_CREAT));
    ok!(write_all(fd, &[1; 3 * PAGE]));
    ok!(cachestat(fd, &[0, 0], &mut out, 0));
    eq!(out[0] + out[3], 3);
    ok!(cachestat(fd, &[PAGE as u64, 10], &mut out, 0));
    eq!(out[0] + out[3], 1);
    fails!(cachestat(fd, &[0, 0], &mut out, 1), EINVAL);
    fails!(cachestat(999, &[0, 0], &mut out, 0), EBADF);
    Ok(())
}

fn process_madvise_takes_hints() -> Outcome {
    const MADV_COLD: i32 = 20;
    let map = ok!(Map::anonymous(4 * PAGE, MAP_PRIVATE));
    let me = ok!(sys!(SYS_pidfd_open, proc::pid(), 0));
    let iov = [[map.addr, PAGE], [map.addr + 2 * PAGE, PAGE]];
    eq!(ok!(sys!(SYS_process_madvise, me, &iov, 2, MADV_COLD, 0)), 2 * PAGE);
    fails!(sys!(SYS_process_madvise, me, &iov, 2, MADV_COLD, 1), EINVAL);
    fails!(sys!(SYS_process_madvise, 999, &iov, 2, MADV_COLD, 0), EBADF);
    fails!(sys!(SYS_process_madvise, me, &iov, 2, 99, 0), EINVAL);
    fails!(sys!(SYS_process_madvise, me, 8, 1, MADV_COLD, 0), EFAULT);
    Ok(())
}

fn process_mrelease_is_for_those_who_end() -> Outcome {
    let me = ok!(sys!(SYS_pidfd_open, proc::pid(), 0));
    fails!(sys!(SYS_process_mrelease, me, 0), EINVAL);
    fails!(sys!(SYS_process_mrelease, me, 1), EINVAL);
    fails!(sys!(SYS_process_mrelease, 999, 0), EBADF);
    let pid = ok!(proc::child(|| 0));
    let pidfd = ok!(sys!(SYS_pidfd_open, pid, 0));
    ok!(proc::wait(pid));
    fails!(sys!(SYS_process_mrelease, pidfd, 0), ESRCH);
    Ok(())
}

fn file_pages_are_rearranged() -> Outcome {
    let mut content = vec![b'a'; PAGE];
    content.resize(2 * PAGE, b'b');
    ok!(put(c"f", &content));
    let fd = ok!(open(c"f", O_RDWR));
    let map = ok!(Map::new(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    ok!(sys!(SYS_remap_file_pages, map.addr, PAGE, 0, 1, 0));
    eq!((peek(map.addr), peek(map.addr + PAGE)), (b'b', b'b'));
    map.bytes()[0] = b'c';
    eq!(ok!(get(c"f"))[PAGE], b'c');
    fails!(sys!(SYS_remap_file_pages, map.addr, PAGE, PROT_READ, 1, 0), EINVAL);
    let private = ok!(Map::anonymous(PAGE, MAP_PRIVATE));
    fails!(sys!(SYS_remap_file_pages, private.addr, PAGE, 0, 0, 0), EINVAL);
    Ok(())
}

fn shared_zeros_cannot_gain_permission() -> Outcome {
    let fd = ok!(open(c"/dev/zero", O_RDONLY));
    let map = ok!(Map::new(0, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    fails!(sys!(SYS_mprotect, map.addr, PAGE, PROT_READ | PROT_WRITE), EACCES);
    let map = ok!(Map::new(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    ok!(sys!(SYS_mprotect, map.addr, PAGE, PROT_READ | PROT_WRITE));
    ok!(sys!(SYS_mprotect, map.addr, PAGE, PROT_NONE));
    Ok(())
}

fn the_directory_of_a_process_takes_signals() -> Outcome {
    let dir = ok!(open(c"/proc/self", O_RDONLY | libc::O_DIRECTORY));
    ok!(sys!(SYS_pidfd_send_signal, dir, 0, 0, 0));
    let other = ok!(open(c"/proc", O_RDONLY | libc::O_DIRECTORY));
    fails!(sys!(SYS_pidfd_send_signal, other, 0, 0, 0), EBADF);
    fails!(sys!(SYS_pidfd_open, proc::pid(), 1), EINVAL);
    Ok(())
}

fn sticky_timeouts_are_only_read() -> Outcome {
    const STICKY_TIMEOUTS: i32 = 0x400_0000;
    let mut time = [0i64, 1000];
    ok!(sys!(SYS_select, 0, 0, 0, 0, &mut time));
    eq!(time, [0, 0]);
    ok!(sys!(SYS_personality, STICKY_TIMEOUTS));
    time = [0, 1000];
    ok!(sys!(SYS_select, 0, 0, 0, 0, &mut time));
    eq!(time, [0, 1000]);
    Ok(())
}

fn a_hole_is_seen_in_a_small_file() -> Outcome {
    let fd = ok!(open(c"f", O_RDWR | O_CREAT));
    ok!(sys!(SYS_pwrite64, fd, b"x".as_slice(), 1, 2 * PAGE));
    eq!(ok!(sys!(SYS_lseek, fd, 0, libc::SEEK_DATA)), 2 * PAGE);
    eq!(ok!(sys!(SYS_lseek, fd, 0, libc::SEEK_HOLE)), 0);
    Ok(())
}

fn the_offset_of_sendfile_must_be_writable() -> Outcome {
    ok!(put(c"f", b""));
    let from = ok!(open(c"f", O_RDONLY));
    let (_reader, writer) = ok!(pipe(0));
    let map = ok!(Map::anonymous(PAGE, MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr, PAGE, PROT_READ));
    fails!(sys!(SYS_sendfile, writer, from, map.addr, 1), EFAULT);
    Ok(())
}

fn scheduling_is_reset_on_fork() -> Outcome {
    const SCHED_BATCH: i32 = 3;
    const RESET: i32 = 0x4000_0000;
    let zero = 0i32;
    ok!(sys!(SYS_sched_setscheduler, 0, SCHED_BATCH | RESET, &zero));
    proc::in_child(|| {
        eq!(ok!(sys!(SYS_sched_getscheduler, 0)) as i32, SCHED_BATCH);
        Ok(())
    })
}

fn a_pidfd_must_be_stored() -> Outcome {
    let args = [0x1000u64, 8, 0, 0, 17, 0, 0, 0];
    fails!(sys!(SYS_clone3, &args, 64), EFAULT);
    Ok(())
}

guest_tests::cases!(
    kcmp_tells_what_is_shared,
    sealed_memory_stays,
    cachestat_counts_pages,
    process_madvise_takes_hints,
    process_mrelease_is_for_those_who_end,
    file_pages_are_rearranged,
    shared_zeros_cannot_gain_permission,
    the_directory_of_a_process_takes_signals,
    sticky_timeouts_are_only_read,
    a_hole_is_seen_in_a_small_file,
    the_offset_of_sendfile_must_be_writable,
    scheduling_is_reset_on_fork,
    a_pidfd_must_be_stored,
);
