//! Pipes and FIFOs: `pipe2(2)`, blocking, atomicity, `splice(2)`, `tee(2)`, `vmsplice(2)`, `sendfile(2)`, socket pairs.

use guest_tests::fs::{close, open, pipe, put, read, read_all, write};
use guest_tests::proc::{End, child, until_asleep, wait};
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{
    F_GETPIPE_SZ, F_SETPIPE_SZ, O_CLOEXEC, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY,
};

fn carries_bytes() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    eq!(ok!(write(writer, b"hello")), 5);
    let mut buf = [0u8; 10];
    eq!(ok!(read(reader, &mut buf[..2])), 2);
    eq!(ok!(read(reader, &mut buf[2..])), 3);
    eq!(&buf[..5], b"hello");
    fails!(write(reader, b"x"), EBADF);
    fails!(read(writer, &mut buf), EBADF);
    Ok(())
}

fn end_of_file() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(write(writer, b"last"));
    ok!(close(writer));
    eq!(ok!(read_all(reader)), b"last");
    Ok(())
}

fn flags() -> Outcome {
    let (reader, writer) = ok!(pipe(O_CLOEXEC | O_NONBLOCK));
    for fd in [reader, writer] {
        eq!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0)), 1);
        check!(ok!(sys!(SYS_fcntl, fd, libc::F_GETFL, 0)) as i32 & O_NONBLOCK != 0);
    }
    let mut byte = [0u8];
    fails!(read(reader, &mut byte), EAGAIN);
    fails!(pipe(1), EINVAL);
    fails!(sys!(SYS_pipe, 8), EFAULT);
    let mut fds = [0i32; 2];
    ok!(sys!(SYS_pipe, &mut fds));
    Ok(())
}

fn full_pipe() -> Outcome {
    let (reader, writer) = ok!(pipe(O_NONBLOCK));
    let block = [1u8; 4096];
    let mut total = 0;
    loop {
        match write(writer, &block) {
            Ok(n) => total += n,
            Err(errno) => {
                eq!(errno, libc::EAGAIN);
                break;
            }
        }
    }
    eq!(total, 65536);
    let mut buf = [0u8; 4096];
    ok!(read(reader, &mut buf));
    eq!(ok!(write(writer, &block)), 4096);
    Ok(())
}

fn capacity_can_change() -> Outcome {
    let (_reader, writer) = ok!(pipe(O_NONBLOCK));
    eq!(ok!(sys!(SYS_fcntl, writer, F_GETPIPE_SZ, 0)), 65536);
    eq!(ok!(sys!(SYS_fcntl, writer, F_SETPIPE_SZ, 100_000)), 131_072);
    eq!(ok!(sys!(SYS_fcntl, writer, F_GETPIPE_SZ, 0)), 131_072);
    let big = vec![0u8; 200_000];
    eq!(ok!(write(writer, &big)), 131_072);
    fails!(sys!(SYS_fcntl, writer, F_SETPIPE_SZ, 4096), EBUSY);
    let file = ok!(open(c"f", O_CREAT | O_RDWR));
    fails!(sys!(SYS_fcntl, file, F_GETPIPE_SZ, 0), EBADF);
    Ok(())
}

fn small_writes_are_atomic() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let mut pids = Vec::new();
    for letter in b'a'..b'e' {
        pids.push(ok!(child(|| {
            let line = [letter; 1000];
            for _ in 0..50 {
                if write(writer, &line) != Ok(1000) {
                    return 1;
                }
            }
            0
        })));
    }
    ok!(close(writer));
    let all = ok!(read_all(reader));
    eq!(all.len(), 4 * 50 * 1000);
    check!(all.chunks(1000).all(|line| line.iter().all(|byte| *byte == line[0])), "mixed");
    for pid in pids {
        eq!(ok!(wait(pid)), End::Code(0));
    }
    Ok(())
}

fn large_write_blocks_until_read() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let data: Vec<u8> = (0..500_000u32).map(|i| (i / 7) as u8).collect();
    let expected = data.clone();
    let pid = ok!(child(|| {
        let _ = close(reader);
        i32::from(write(writer, &data) != Ok(500_000))
    }));
    ok!(close(writer));
    check!(until_asleep(pid));
    check!(ok!(read_all(reader)) == expected, "content differs");
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn interrupted_large_write_is_partial() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, 0);
        let data = vec![0u8; 100_000];
        i32::from(write(writer, &data) != Ok(65536))
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    eq!(ok!(wait(pid)), End::Code(0));
    ok!(close(reader));
    Ok(())
}

fn reader_leaving_ends_blocked_writer() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = sig::plain(libc::SIGPIPE, 1);
        let _ = close(reader);
        let data = vec![0u8; 100_000];
        // Some bytes fitted, so the call reports those; the next one the broken pipe.
        let first = write(writer, &data);
        i32::from(!(first == Ok(65536) && write(writer, b"x") == Err(libc::EPIPE)))
    }));
    check!(until_asleep(pid));
    ok!(close(reader));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn fifo_open_waits_for_peer() -> Outcome {
    ok!(sys!(SYS_mknod, c"fifo", libc::S_IFIFO | 0o600, 0));
    let pid = ok!(child(|| {
        let Ok(fd) = open(c"fifo", O_WRONLY) else { return 1 };
        i32::from(write(fd, b"through") != Ok(7))
    }));
    check!(until_asleep(pid));
    let fd = ok!(open(c"fifo", O_RDONLY));
    eq!(ok!(read_all(fd)), b"through");
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn fifo_read_write_and_nonblock() -> Outcome {
    ok!(sys!(SYS_mknod, c"fifo", libc::S_IFIFO | 0o600, 0));
    fails!(open(c"fifo", O_WRONLY | O_NONBLOCK), ENXIO);
    let both = ok!(open(c"fifo", O_RDWR));
    ok!(write(both, b"x"));
    let mut byte = [0u8];
    eq!(ok!(read(both, &mut byte)), 1);
    let reader = ok!(open(c"fifo", O_RDONLY | O_NONBLOCK));
    fails!(read(reader, &mut byte), EAGAIN);
    ok!(close(both));
    eq!(ok!(read(reader, &mut byte)), 0);
    // Hung up, since there was a writer when it was opened; otherwise not before one has come.
    let mut asked = libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut asked, 1, 0)), 1);
    eq!(asked.revents, libc::POLLHUP);
    asked.fd = ok!(open(c"fifo", O_RDONLY | O_NONBLOCK));
    eq!(ok!(sys!(SYS_poll, &mut asked, 1, 0)), 0);
    ok!(close(ok!(open(c"fifo", O_WRONLY))));
    eq!(ok!(sys!(SYS_poll, &mut asked, 1, 0)), 1);
    eq!(asked.revents, libc::POLLHUP);
    Ok(())
}

fn interrupted_fifo_open() -> Outcome {
    ok!(sys!(SYS_mknod, c"fifo", libc::S_IFIFO | 0o600, 0));
    let pid = ok!(child(|| {
        let _ = sig::handle(libc::SIGUSR1, sig::record, 0);
        open(c"fifo", O_RDONLY).map_or_else(|errno| errno, |_| 0)
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    eq!(ok!(wait(pid)), End::Code(libc::EINTR));
    Ok(())
}

fn splice_between_file_and_pipe() -> Outcome {
    ok!(put(c"f", b"0123456789"));
    let file = ok!(open(c"f", O_RDONLY));
    let (reader, writer) = ok!(pipe(0));
    let mut off = 3i64;
    eq!(ok!(sys!(SYS_splice, file, &mut off, writer, 0, 4, 0)), 4);
    eq!(off, 7);
    let out = ok!(open(c"g", O_CREAT | O_RDWR));
    eq!(ok!(sys!(SYS_splice, reader, 0, out, 0, 100, 0)), 4);
    eq!(ok!(guest_tests::fs::get(c"g")), b"3456");
    fails!(sys!(SYS_splice, file, 0, out, 0, 4, 0), EINVAL);
    fails!(sys!(SYS_splice, reader, &mut off, out, 0, 4, 0), ESPIPE);
    fails!(sys!(SYS_splice, reader, 0, out, 0, 4, libc::SPLICE_F_NONBLOCK), EAGAIN);
    Ok(())
}

fn splice_between_pipes_and_tee() -> Outcome {
    let (r1, w1) = ok!(pipe(0));
    let (r2, w2) = ok!(pipe(0));
    ok!(write(w1, b"abcdef"));
    eq!(ok!(sys!(SYS_tee, r1, w2, 4, 0)), 4);
    let mut buf = [0u8; 16];
    eq!(ok!(read(r2, &mut buf)), 4);
    eq!(ok!(sys!(SYS_splice, r1, 0, w2, 0, 3, 0)), 3);
    eq!(ok!(read(r1, &mut buf)), 3);
    eq!(&buf[..3], b"def");
    eq!(ok!(read(r2, &mut buf)), 3);
    eq!(&buf[..3], b"abc");
    fails!(sys!(SYS_tee, r1, w1, 4, 0), EINVAL);
    Ok(())
}

fn vmsplice_waits_for_some_room_only() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    // Whole pages: each takes one of the sixteen places of a pipe.
    let data = vec![7u8; 0x21000];
    let start = data.as_ptr().align_offset(4096);
    let data = &data[start..start + 0x20000];
    let vec = [[data.as_ptr() as usize, data.len()]];
    eq!(ok!(sys!(SYS_vmsplice, writer, &vec, 1, 0)), 0x10000);
    let mut taken = vec![0u8; 0x10000];
    eq!(ok!(read(reader, &mut taken)), 0x10000);
    eq!(taken, &data[..0x10000]);
    Ok(())
}

fn vmsplice_fills_pipe() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let data = *b"memory";
    let vec = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: 6 };
    eq!(ok!(sys!(SYS_vmsplice, writer, &vec, 1, 0)), 6);
    let mut buf = [0u8; 6];
    eq!(ok!(read(reader, &mut buf)), 6);
    eq!(&buf, b"memory");
    Ok(())
}

fn sendfile_copies() -> Outcome {
    let data: Vec<u8> = (0..100_000u32).map(|i| (i % 249) as u8).collect();
    ok!(put(c"f", &data));
    let from = ok!(open(c"f", O_RDONLY));
    let to = ok!(open(c"g", O_CREAT | O_RDWR));
    eq!(ok!(sys!(SYS_sendfile, to, from, 0, 1_000_000)), 100_000);
    check!(ok!(guest_tests::fs::get(c"g")) == data);
    let (reader, writer) = ok!(pipe(0));
    let mut off = 5i64;
    eq!(ok!(sys!(SYS_sendfile, writer, from, &mut off, 10)), 10);
    eq!(off, 15);
    let mut buf = [0u8; 10];
    eq!(ok!(read(reader, &mut buf)), 10);
    eq!(&buf[..], &data[5..15]);
    fails!(sys!(SYS_sendfile, from, to, 0, 1), EBADF);
    Ok(())
}

fn shell_style_pipeline() -> Outcome {
    let (r1, w1) = ok!(pipe(0));
    let (r2, w2) = ok!(pipe(0));
    let upper = ok!(child(|| {
        let _ = (close(w1), close(r2));
        let text = read_all(r1).unwrap_or_default().to_ascii_uppercase();
        i32::from(guest_tests::fs::write_all(w2, &text).is_err())
    }));
    ok!(close(r1));
    ok!(close(w2));
    ok!(write(w1, b"pipeline"));
    ok!(close(w1));
    eq!(ok!(read_all(r2)), b"PIPELINE");
    eq!(ok!(wait(upper)), End::Code(0));
    Ok(())
}

fn byte_ping_pong() -> Outcome {
    let (r1, w1) = ok!(pipe(0));
    let (r2, w2) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let mut byte = [0u8];
        for _ in 0..1000 {
            if read(r1, &mut byte) != Ok(1) || write(w2, &byte) != Ok(1) {
                return 1;
            }
        }
        0
    }));
    for i in 0..1000u32 {
        let mut byte = [i as u8];
        ok!(write(w1, &byte));
        byte[0] = !byte[0];
        ok!(read(r2, &mut byte));
        eq!(byte[0], i as u8);
    }
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn socket_pair_streams() -> Outcome {
    let mut fds = [0i32; 2];
    ok!(sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut fds));
    ok!(write(fds[0], b"one"));
    ok!(write(fds[0], b"two"));
    let mut buf = [0u8; 16];
    eq!(ok!(read(fds[1], &mut buf)), 6);
    ok!(write(fds[1], b"back"));
    eq!(ok!(read(fds[0], &mut buf)), 4);
    ok!(sys!(SYS_shutdown, fds[0], libc::SHUT_WR));
    eq!(ok!(read(fds[1], &mut buf)), 0);
    ok!(close(fds[1]));
    eq!(ok!(read(fds[0], &mut buf)), 0);
    Ok(())
}

fn socket_pair_messages() -> Outcome {
    let mut fds = [0i32; 2];
    ok!(sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, &mut fds));
    ok!(write(fds[0], b"one"));
    ok!(write(fds[0], b"three"));
    let mut buf = [0u8; 16];
    eq!(ok!(read(fds[1], &mut buf)), 3);
    eq!(ok!(read(fds[1], &mut buf[..2])), 2);
    fails!(sys!(SYS_recvfrom, fds[1], &mut buf, 16, libc::MSG_DONTWAIT, 0, 0), EAGAIN);
    Ok(())
}

guest_tests::cases!(
    carries_bytes,
    end_of_file,
    flags,
    full_pipe,
    capacity_can_change,
    small_writes_are_atomic,
    large_write_blocks_until_read,
    interrupted_large_write_is_partial,
    reader_leaving_ends_blocked_writer,
    fifo_open_waits_for_peer,
    fifo_read_write_and_nonblock,
    interrupted_fifo_open,
    splice_between_file_and_pipe,
    splice_between_pipes_and_tee,
    vmsplice_fills_pipe,
    vmsplice_waits_for_some_room_only,
    sendfile_copies,
    shell_style_pipeline,
    byte_ping_pong,
    socket_pair_streams,
    socket_pair_messages,
);
