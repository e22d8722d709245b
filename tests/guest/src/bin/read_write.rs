//! `read(2)`, `write(2)` and their positioned and vectored forms, `lseek(2)`, `dup(2)`, truncation.

use guest_tests::fs::{close, get, open, pipe, put, read, read_all, seek, write};
use guest_tests::mem::Map;
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{O_APPEND, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, iovec};

fn read_whole_file() -> Outcome {
    ok!(put(c"f", b"hello"));
    let fd = ok!(open(c"f", O_RDONLY));
    let mut buf = [0u8; 10];
    eq!(ok!(read(fd, &mut buf)), 5);
    eq!(&buf[..5], b"hello");
    eq!(ok!(read(fd, &mut buf)), 0);
    Ok(())
}

fn read_advances_offset() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    let fd = ok!(open(c"f", O_RDONLY));
    let mut buf = [0u8; 2];
    for expected in [b"ab", b"cd", b"ef"] {
        eq!(ok!(read(fd, &mut buf)), 2);
        eq!(&buf, expected);
    }
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 6);
    Ok(())
}

fn read_errors() -> Outcome {
    let mut buf = [0u8; 4];
    fails!(read(-1, &mut buf), EBADF);
    fails!(read(999, &mut buf), EBADF);
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_WRONLY));
    fails!(read(fd, &mut buf), EBADF);
    let fd = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_read, fd, 0, 3), EFAULT);
    fails!(write(fd, b"x"), EBADF);
    let fd = ok!(open(c".", O_RDONLY | O_DIRECTORY));
    fails!(read(fd, &mut buf), EISDIR);
    Ok(())
}

fn read_of_nothing_checks_descriptor() -> Outcome {
    fails!(sys!(SYS_read, 999, 0, 0), EBADF);
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_RDONLY));
    eq!(ok!(sys!(SYS_read, fd, 0, 0)), 0);
    Ok(())
}

fn read_huge_count_is_clamped() -> Outcome {
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_RDONLY));
    // Low enough that the end of the named range is still an address of the program's half.
    let map = ok!(Map::new(0x1000_0000, 4096, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    eq!(ok!(sys!(SYS_read, fd, map.addr, 0x7fff_ffff)), 3);
    fails!(sys!(SYS_read, fd, map.addr, usize::MAX), EFAULT);
    Ok(())
}

fn read_into_partly_bad_buffer() -> Outcome {
    ok!(put(c"f", &[7u8; 8192]));
    let fd = ok!(open(c"f", O_RDONLY));
    let map = ok!(Map::anonymous(8192, libc::MAP_PRIVATE));
    ok!(sys!(SYS_munmap, map.addr + 4096, 4096));
    eq!(ok!(sys!(SYS_read, fd, map.addr, 8192)), 4096);
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 4096);
    fails!(sys!(SYS_read, fd, map.addr + 4096, 10), EFAULT);
    Ok(())
}

fn write_from_partly_bad_buffer() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    let map = ok!(Map::anonymous(8192, libc::MAP_PRIVATE));
    map.bytes()[..4096].fill(9);
    ok!(sys!(SYS_munmap, map.addr + 4096, 4096));
    fails!(sys!(SYS_write, fd, map.addr + 4096, 10), EFAULT);
    fails!(sys!(SYS_write, fd, 1, 10), EFAULT);
    eq!(ok!(guest_tests::fs::fstat(fd)).st_size, 0);
    Ok(())
}

fn write_extends_and_overwrites() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    eq!(ok!(write(fd, b"hello world")), 11);
    eq!(ok!(seek(fd, 6, libc::SEEK_SET)), 6);
    eq!(ok!(write(fd, b"W")), 1);
    eq!(ok!(get(c"f")), b"hello World");
    Ok(())
}

fn write_past_end_leaves_hole() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(seek(fd, 5000, libc::SEEK_SET));
    ok!(write(fd, b"x"));
    let content = ok!(get(c"f"));
    eq!(content.len(), 5001);
    check!(content[..5000].iter().all(|byte| *byte == 0));
    Ok(())
}

fn append_always_at_end() -> Outcome {
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_RDWR | O_APPEND));
    ok!(seek(fd, 0, libc::SEEK_SET));
    ok!(write(fd, b"d"));
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 4);
    ok!(sys!(SYS_pwrite64, fd, b"e".as_ptr(), 1, 0));
    eq!(ok!(get(c"f")), b"abcde");
    Ok(())
}

fn truncate_on_open() -> Outcome {
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_RDWR | O_TRUNC));
    eq!(ok!(guest_tests::fs::fstat(fd)).st_size, 0);
    Ok(())
}

fn pread_keeps_offset() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    let fd = ok!(open(c"f", O_RDONLY));
    let mut buf = [0u8; 3];
    eq!(ok!(sys!(SYS_pread64, fd, &mut buf, 3, 2)), 3);
    eq!(&buf, b"cde");
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 0);
    eq!(ok!(sys!(SYS_pread64, fd, &mut buf, 3, 6)), 0);
    fails!(sys!(SYS_pread64, fd, &mut buf, 3, -1), EINVAL);
    Ok(())
}

fn offsets_end_at_the_largest() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    let fd = ok!(open(c"f", O_RDWR));
    let mut buf = [0u8; 8];
    let largest = i64::MAX;
    for at in [largest, largest - 1, largest - 2] {
        fails!(sys!(SYS_pread64, fd, &mut buf, 3, at), EINVAL);
        fails!(sys!(SYS_pwrite64, fd, &buf, 3, at), EINVAL);
    }
    eq!(ok!(sys!(SYS_pread64, fd, &mut buf, 3, largest - 3)), 0);
    eq!(ok!(sys!(SYS_pread64, fd, &mut buf, 0, largest)), 0);
    eq!(ok!(sys!(SYS_pwrite64, fd, &buf, 0, largest)), 0);
    let zeros = ok!(open(c"/dev/zero", O_RDWR));
    fails!(sys!(SYS_pread64, zeros, &mut buf, 3, largest), EINVAL);
    fails!(sys!(SYS_pwrite64, zeros, &buf, 3, largest), EINVAL);
    eq!(ok!(sys!(SYS_pread64, zeros, &mut buf, 3, largest - 3)), 3);
    eq!(ok!(get(c"f")), b"abcdef");
    Ok(())
}

fn positioned_calls_on_pipe() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let mut buf = [0u8; 3];
    fails!(sys!(SYS_pread64, reader, &mut buf, 3, 0), ESPIPE);
    fails!(sys!(SYS_pwrite64, writer, &buf, 3, 0), ESPIPE);
    fails!(seek(reader, 0, libc::SEEK_CUR), ESPIPE);
    Ok(())
}

fn pwrite_extends() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    eq!(ok!(sys!(SYS_pwrite64, fd, b"xyz".as_ptr(), 3, 4)), 3);
    eq!(ok!(get(c"f")), b"\0\0\0\0xyz");
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 0);
    Ok(())
}

fn vec_of(parts: &mut [&mut [u8]]) -> Vec<iovec> {
    parts
        .iter_mut()
        .map(|part| iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
        .collect()
}

fn readv_scatters() -> Outcome {
    ok!(put(c"f", b"abcdefgh"));
    let fd = ok!(open(c"f", O_RDONLY));
    let (mut a, mut b, mut c) = ([0u8; 3], [0u8; 0], [0u8; 10]);
    let vec = vec_of(&mut [&mut a, &mut b, &mut c]);
    eq!(ok!(sys!(SYS_readv, fd, &vec[..], 3)), 8);
    eq!(&a, b"abc");
    eq!(&c[..5], b"defgh");
    Ok(())
}

fn writev_gathers() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    let (mut a, mut b) = (*b"hello ", *b"world");
    let vec = vec_of(&mut [&mut a, &mut b]);
    eq!(ok!(sys!(SYS_writev, fd, &vec[..], 2)), 11);
    eq!(ok!(get(c"f")), b"hello world");
    Ok(())
}

fn vectors_are_checked() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    let mut a = [1u8; 4];
    let mut vec = vec_of(&mut [&mut a]);
    fails!(sys!(SYS_writev, fd, &vec[..], 1025), EINVAL);
    fails!(sys!(SYS_writev, fd, &vec[..], -1), EINVAL);
    fails!(sys!(SYS_writev, fd, 8, 1), EFAULT);
    eq!(ok!(sys!(SYS_writev, fd, &vec[..], 0)), 0);
    vec[0].iov_len = usize::MAX;
    fails!(sys!(SYS_writev, fd, &vec[..], 1), EINVAL);
    fails!(sys!(SYS_readv, 999, &vec[..], 1), EBADF);
    Ok(())
}

fn preadv_and_pwritev() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    let (mut a, mut b) = (*b"ab", *b"cd");
    let vec = vec_of(&mut [&mut a, &mut b]);
    eq!(ok!(sys!(SYS_pwritev, fd, &vec[..], 2, 3, 0)), 4);
    eq!(ok!(get(c"f")), b"\0\0\0abcd");
    let (mut c, mut d) = ([0u8; 1], [0u8; 8]);
    let vec = vec_of(&mut [&mut c, &mut d]);
    eq!(ok!(sys!(SYS_preadv, fd, &vec[..], 2, 4, 0)), 3);
    eq!(&c, b"b");
    eq!(&d[..2], b"cd");
    fails!(sys!(SYS_preadv, fd, &vec[..], 2, -1, -1), EINVAL);
    Ok(())
}

fn preadv2_flags() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    let fd = ok!(open(c"f", O_RDWR));
    let mut a = [0u8; 4];
    let vec = vec_of(&mut [&mut a]);
    eq!(ok!(sys!(SYS_preadv2, fd, &vec[..], 1, 1, 0, 0)), 4);
    eq!(&a, b"bcde");
    eq!(ok!(sys!(SYS_preadv2, fd, &vec[..], 1, -1, -1, 0)), 4);
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 4);
    eq!(ok!(sys!(SYS_pwritev2, fd, &vec[..], 1, 0, 0, libc::RWF_APPEND)), 4);
    eq!(ok!(get(c"f")).len(), 10);
    fails!(sys!(SYS_preadv2, fd, &vec[..], 1, 0, 0, 0x4000_0000), EOPNOTSUPP);
    Ok(())
}

fn seek_whence() -> Outcome {
    ok!(put(c"f", b"0123456789"));
    let fd = ok!(open(c"f", O_RDONLY));
    eq!(ok!(seek(fd, 4, libc::SEEK_SET)), 4);
    eq!(ok!(seek(fd, 3, libc::SEEK_CUR)), 7);
    eq!(ok!(seek(fd, -1, libc::SEEK_END)), 9);
    eq!(ok!(seek(fd, 100, libc::SEEK_END)), 110);
    fails!(seek(fd, -1, libc::SEEK_SET), EINVAL);
    fails!(seek(fd, 0, 9), EINVAL);
    fails!(seek(fd, -200, libc::SEEK_CUR), EINVAL);
    Ok(())
}

fn seek_data_and_hole() -> Outcome {
    ok!(put(c"f", b"0123456789"));
    let fd = ok!(open(c"f", O_RDONLY));
    eq!(ok!(seek(fd, 0, libc::SEEK_DATA)), 0);
    eq!(ok!(seek(fd, 0, libc::SEEK_HOLE)), 10);
    fails!(seek(fd, 10, libc::SEEK_DATA), ENXIO);
    fails!(seek(fd, 11, libc::SEEK_HOLE), ENXIO);
    Ok(())
}

fn dup_shares_offset() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    let fd = ok!(open(c"f", O_RDONLY));
    let copy = ok!(sys!(SYS_dup, fd)) as i32;
    let mut buf = [0u8; 2];
    ok!(read(fd, &mut buf));
    ok!(read(copy, &mut buf));
    eq!(&buf, b"cd");
    Ok(())
}

fn dup2_replaces() -> Outcome {
    ok!(put(c"f", b"abc"));
    ok!(put(c"g", b"xyz"));
    let f = ok!(open(c"f", O_RDONLY));
    let g = ok!(open(c"g", O_RDONLY));
    eq!(ok!(sys!(SYS_dup2, f, g)) as i32, g);
    eq!(ok!(read_all(g)), b"abc");
    eq!(ok!(sys!(SYS_dup2, f, f)) as i32, f);
    fails!(sys!(SYS_dup2, 999, 999), EBADF);
    fails!(sys!(SYS_dup2, f, -1), EBADF);
    fails!(sys!(SYS_dup2, f, 1 << 30), EBADF);
    Ok(())
}

fn dup3_flags() -> Outcome {
    let f = ok!(open(c".", O_RDONLY));
    fails!(sys!(SYS_dup3, f, f, 0), EINVAL);
    fails!(sys!(SYS_dup3, f, 50, 1), EINVAL);
    eq!(ok!(sys!(SYS_dup3, f, 50, libc::O_CLOEXEC)), 50);
    eq!(ok!(sys!(SYS_fcntl, 50, libc::F_GETFD, 0)), 1);
    eq!(ok!(sys!(SYS_fcntl, f, libc::F_GETFD, 0)), 0);
    Ok(())
}

fn lowest_free_descriptor() -> Outcome {
    let a = ok!(open(c".", O_RDONLY));
    let b = ok!(open(c".", O_RDONLY));
    eq!(b, a + 1);
    ok!(close(a));
    eq!(ok!(open(c".", O_RDONLY)), a);
    Ok(())
}

fn close_twice() -> Outcome {
    let a = ok!(open(c".", O_RDONLY));
    ok!(close(a));
    fails!(close(a), EBADF);
    Ok(())
}

fn close_range_works() -> Outcome {
    for fd in 60..70 {
        ok!(sys!(SYS_dup2, 0, fd));
    }
    ok!(sys!(SYS_close_range, 62, 65, 0));
    for (fd, there) in [(61, true), (62, false), (65, false), (66, true)] {
        eq!(sys!(SYS_fcntl, fd, libc::F_GETFD, 0).is_ok(), there);
    }
    ok!(sys!(SYS_close_range, 66, u32::MAX, 4));
    eq!(ok!(sys!(SYS_fcntl, 69, libc::F_GETFD, 0)), 1);
    fails!(sys!(SYS_close_range, 10, 9, 0), EINVAL);
    fails!(sys!(SYS_close_range, 10, 11, 0x100), EINVAL);
    Ok(())
}

fn ftruncate_both_ways() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(write(fd, b"abcdef"));
    ok!(sys!(SYS_ftruncate, fd, 3));
    eq!(ok!(get(c"f")), b"abc");
    ok!(sys!(SYS_ftruncate, fd, 5));
    eq!(ok!(get(c"f")), b"abc\0\0");
    fails!(sys!(SYS_ftruncate, fd, -1), EINVAL);
    let fd = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_ftruncate, fd, 1), EINVAL);
    fails!(sys!(SYS_ftruncate, 999, 1), EBADF);
    Ok(())
}

fn truncate_by_path() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    ok!(sys!(SYS_truncate, c"f", 2));
    eq!(ok!(get(c"f")), b"ab");
    fails!(sys!(SYS_truncate, c"nothing", 2), ENOENT);
    fails!(sys!(SYS_truncate, c".", 2), EISDIR);
    fails!(sys!(SYS_truncate, c"f", -2), EINVAL);
    Ok(())
}

fn fallocate_extends_and_keeps_size() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(sys!(SYS_fallocate, fd, 0, 0, 5000));
    eq!(ok!(guest_tests::fs::fstat(fd)).st_size, 5000);
    ok!(sys!(SYS_fallocate, fd, libc::FALLOC_FL_KEEP_SIZE, 0, 50_000));
    eq!(ok!(guest_tests::fs::fstat(fd)).st_size, 5000);
    fails!(sys!(SYS_fallocate, fd, 0, -1, 10), EINVAL);
    fails!(sys!(SYS_fallocate, fd, 0, 0, 0), EINVAL);
    Ok(())
}

fn fallocate_punches_hole() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(write(fd, &[5u8; 12288]));
    ok!(sys!(
        SYS_fallocate,
        fd,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        4096,
        4096
    ));
    let content = ok!(get(c"f"));
    check!(content[4096..8192].iter().all(|byte| *byte == 0));
    check!(content[8192..].iter().all(|byte| *byte == 5));
    fails!(sys!(SYS_fallocate, fd, libc::FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
    Ok(())
}

fn large_write_and_read_back() -> Outcome {
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    ok!(put(c"f", &data));
    check!(ok!(get(c"f")) == data, "content differs");
    Ok(())
}

/// What the files of the tests of large reads hold at an offset.
fn pattern(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

fn patterned(len: usize) -> Vec<u8> {
    (0..len).map(pattern).collect()
}

fn large_read_into_partly_bad_buffer() -> Outcome {
    ok!(put(c"f", &patterned(1 << 18)));
    let fd = ok!(open(c"f", O_RDONLY));
    let map = ok!(Map::anonymous(1 << 18, libc::MAP_PRIVATE));
    let addr = map.bytes().as_ptr().addr();
    ok!(sys!(SYS_munmap, addr + (1 << 17), 1 << 17));
    eq!(ok!(sys!(SYS_read, fd, addr, 1 << 18)), 1 << 17);
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 1 << 17);
    check!(map.bytes()[..1 << 17] == patterned(1 << 18)[..1 << 17]);
    fails!(sys!(SYS_read, fd, addr + (1 << 17), 1 << 17), EFAULT);
    fails!(sys!(SYS_pread64, fd, addr + (1 << 17), 1 << 17, 0), EFAULT);
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 1 << 17);
    map.leak();
    Ok(())
}

fn large_reads_at_the_end() -> Outcome {
    let len = (1 << 17) + 5;
    ok!(put(c"f", &patterned(len)));
    let fd = ok!(open(c"f", O_RDONLY));
    let mut buf = vec![1_u8; 1 << 18];
    eq!(ok!(read(fd, &mut buf)), len);
    check!(buf[..len] == patterned(len)[..] && buf[len..].iter().all(|byte| *byte == 1));
    eq!(ok!(read(fd, &mut buf)), 0);
    eq!(ok!(sys!(SYS_pread64, fd, buf.as_mut_ptr(), buf.len(), 1 << 16)), (1 << 16) + 5);
    eq!(ok!(sys!(SYS_pread64, fd, buf.as_mut_ptr(), buf.len(), 1 << 20)), 0);
    eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), len);
    Ok(())
}

/// Signals that arrive at any moment neither lose nor repeat a byte.
fn large_reads_under_signals() -> Outcome {
    ok!(put(c"f", &patterned(1 << 20)));
    let fd = ok!(open(c"f", O_RDONLY));
    ok!(sig::handle(libc::SIGALRM, sig::record, libc::SA_RESTART));
    let every = libc::timeval { tv_sec: 0, tv_usec: 300 };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &[every, every], 0));
    let expected = patterned(1 << 20);
    let mut buf = vec![0_u8; 1 << 16];
    for _ in 0..2000 {
        ok!(seek(fd, 0, libc::SEEK_SET));
        for piece in expected.chunks(1 << 16) {
            eq!(ok!(read(fd, &mut buf)), 1 << 16);
            check!(buf == piece);
        }
        if sig::count() > 20 {
            break;
        }
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &[0_u64; 4], 0));
    check!(sig::count() > 20);
    Ok(())
}

/// While another thread makes the file shorter and longer, what a read says and by how much the
/// offset moves is the same, and what it brings is there.
fn large_reads_of_a_changing_file() -> Outcome {
    let data = patterned(1 << 18);
    ok!(put(c"f", &data));
    let fd = ok!(open(c"f", O_RDWR));
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = done.clone();
    let content = data.clone();
    let writer = std::thread::spawn(move || -> Outcome {
        let fd = ok!(open(c"f", O_RDWR));
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            ok!(sys!(SYS_ftruncate, fd, 100_000));
            ok!(sys!(SYS_pwrite64, fd, content.as_ptr(), content.len(), 0));
        }
        Ok(())
    });
    let mut buf = vec![0_u8; 1 << 17];
    for _ in 0..300 {
        ok!(seek(fd, 50_000, libc::SEEK_SET));
        let n = ok!(read(fd, &mut buf));
        check!((50_000..=1 << 17).contains(&n), "{n}");
        eq!(ok!(seek(fd, 0, libc::SEEK_CUR)), 50_000 + n);
        // What was cut off in between reads as zeroes.
        let is_right = |(i, byte): (usize, &u8)| *byte == data[50_000 + i] || *byte == 0;
        check!(buf[..n].iter().enumerate().all(is_right));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().map_err(|_| "the writer panicked")?
}

/// Threads that share an offset read every byte once.
fn large_reads_share_an_offset() -> Outcome {
    let len = 8 << 20;
    ok!(put(c"f", &patterned(len)));
    let fd = ok!(open(c"f", O_RDONLY));
    let reader = move || -> Result<(u64, u64), String> {
        let mut buf = vec![0_u8; 40_000];
        let (mut n, mut sum) = (0, 0);
        loop {
            let got = read(fd, &mut buf).map_err(|errno| format!("read: {errno}"))?;
            if got == 0 {
                return Ok((n, sum));
            }
            n += got as u64;
            sum += buf[..got].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
    };
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(reader)).collect();
    let (mut n, mut sum) = (0, 0);
    for thread in threads {
        let (read, read_sum) = thread.join().map_err(|_| "a reader panicked")??;
        n += read;
        sum += read_sum;
    }
    eq!(n, len as u64);
    eq!(sum, patterned(len).iter().map(|byte| u64::from(*byte)).sum::<u64>());
    Ok(())
}

/// Where the kernel's ways of copying begin and end, and one byte on either side.
const SIZES: [usize; 22] = [
    1, 7, 8, 9, 100, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 12_288,
    16_384, 16_385, 32_767, 32_768, 32_769,
];

/// What is written is what is read, to the byte, again and again, by `pread64(2)` and `pwrite64(2)` on a
/// file, by `read(2)` and `write(2)` on the same, and through a pipe.
fn sizes_of_transfers() -> Outcome {
    let fd = ok!(open(c"f", O_RDWR | O_CREAT));
    let (reader, writer) = ok!(pipe(0));
    let mut source = vec![0_u8; 40_000];
    let mut target = vec![0_u8; 40_000];
    for round in 0..40_usize {
        for (i, len) in SIZES.into_iter().enumerate() {
            let (at, to) = ((round + i) % 9, (round * 3 + i) % 11);
            for (n, byte) in source.iter_mut().enumerate() {
                *byte = pattern(n + round * 31 + i * 7);
            }
            let from = &source[at..at + len];
            // Small files and large ones, the same bytes and new ones.
            let offset = if round % 2 == 0 { 0 } else { round * 1000 };
            target.fill(0xa5);
            let place = &mut target[to..to + len];
            eq!(ok!(sys!(SYS_pwrite64, fd, from.as_ptr(), len, offset)), len);
            eq!(ok!(sys!(SYS_pread64, fd, place.as_mut_ptr(), len, offset)), len);
            check!(place == from, "pread64, {len} bytes");
            place.fill(0xa5);
            ok!(seek(fd, offset as i64, libc::SEEK_SET));
            eq!(ok!(write(fd, from)), len);
            ok!(seek(fd, offset as i64, libc::SEEK_SET));
            eq!(ok!(read(fd, place)), len);
            check!(place == from, "read, {len} bytes");
            place.fill(0xa5);
            eq!(ok!(write(writer, from)), len);
            eq!(ok!(read(reader, place)), len);
            check!(place == from, "pipe, {len} bytes");
            check!(target[..to].iter().all(|byte| *byte == 0xa5), "before {len} bytes");
            check!(target[to + len..].iter().all(|byte| *byte == 0xa5), "after {len} bytes");
        }
    }
    Ok(())
}

/// Transfers of some pages that reach into nothing stop there; a file shorter than the buffer leaves the
/// rest of it alone.
fn short_transfers() -> Outcome {
    let fd = ok!(open(c"f", O_RDWR | O_CREAT));
    let data = patterned(6000);
    let map = ok!(Map::anonymous(8192, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + 4096, 4096, libc::PROT_NONE));
    let start = map.addr + 96;
    for round in 0..100 {
        ok!(sys!(SYS_ftruncate, fd, 0));
        eq!(ok!(sys!(SYS_pwrite64, fd, data.as_ptr(), data.len(), 0)), data.len());
        map.bytes()[..4096].fill(round);
        eq!(ok!(sys!(SYS_pread64, fd, start, 6000, 0)), 4000);
        check!(map.bytes()[96..4096] == data[..4000] && map.bytes()[95] == round);
        let n = 200 + usize::from(round);
        map.bytes()[..4096].fill(round);
        eq!(ok!(sys!(SYS_pread64, fd, start, 4000, 6000 - n)), n);
        check!(map.bytes()[96..96 + n] == data[6000 - n..]);
        check!(map.bytes()[96 + n..4096].iter().all(|byte| *byte == round));
        fails!(sys!(SYS_pread64, fd, map.addr + 4096, 4000, 0), EFAULT);
        fails!(sys!(SYS_pwrite64, fd, map.addr + 4096, 4000, 0), EFAULT);
        eq!(ok!(sys!(SYS_pread64, fd, start, 4000, 6000)), 0);
    }
    Ok(())
}

/// What one thread has read is there when it is told to others, and no read of one shows in the memory
/// of another.
fn reads_by_threads() -> Outcome {
    const ROUNDS: u32 = 300;
    ok!(put(c"f", &patterned(1 << 17)));
    let fd = ok!(open(c"f", O_RDONLY));
    let readers = (0..3_usize).map(|own| {
        std::thread::spawn(move || -> Outcome {
            let map = ok!(Map::anonymous(8192, libc::MAP_PRIVATE));
            let other = map.addr;
            let turn = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
            let told = turn.clone();
            let seen = move || -> Outcome {
                for round in 1..=ROUNDS {
                    let order = std::sync::atomic::Ordering::SeqCst;
                    while told.load(order) < round * 2 - 1 {
                        std::thread::yield_now();
                    }
                    let map = std::mem::ManuallyDrop::new(Map { addr: other, len: 8192 });
                    let (offset, len) = place(own, round);
                    check!(
                        map.bytes()[..len]
                            .iter()
                            .enumerate()
                            .all(|(n, byte)| *byte == pattern(offset + n))
                    );
                    told.store(round * 2, order);
                }
                Ok(())
            };
            let looker = std::thread::spawn(seen);
            for round in 1..=ROUNDS {
                let order = std::sync::atomic::Ordering::SeqCst;
                while turn.load(order) < round * 2 - 2 && !looker.is_finished() {
                    std::thread::yield_now();
                }
                let (offset, len) = place(own, round);
                eq!(ok!(sys!(SYS_pread64, fd, map.addr, len, offset)), len);
                turn.store(round * 2 - 1, order);
            }
            looker.join().map_err(|_| "the looker panicked")?
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.join().map_err(|_| "a reader panicked")??;
    }
    Ok(())
}

/// Where the reader `own` reads in a round, and how much.
fn place(own: usize, round: u32) -> (usize, usize) {
    let round = round as usize;
    ((own * 40_000 + round * 13) % (1 << 16), 1 + (round * 97 + own) % 8192)
}

/// Signals that arrive at any moment neither lose nor repeat a byte of small reads and writes.
fn small_transfers_under_signals() -> Outcome {
    let data = patterned(1 << 16);
    ok!(put(c"f", &data));
    let (from, to) = (ok!(open(c"f", O_RDONLY)), ok!(open(c"g", O_RDWR | O_CREAT)));
    ok!(sig::handle(libc::SIGALRM, sig::record, libc::SA_RESTART));
    let every = libc::timeval { tv_sec: 0, tv_usec: 300 };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &[every, every], 0));
    let mut buf = [0_u8; 5000];
    for _ in 0..2000 {
        ok!(seek(from, 0, libc::SEEK_SET));
        ok!(sys!(SYS_ftruncate, to, 0));
        ok!(seek(to, 0, libc::SEEK_SET));
        for piece in data.chunks(5000) {
            eq!(ok!(read(from, &mut buf)), piece.len());
            check!(buf[..piece.len()] == *piece);
            eq!(ok!(write(to, piece)), piece.len());
        }
        check!(ok!(get(c"g")) == data, "content differs");
        if sig::count() > 20 {
            break;
        }
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &[0_u64; 4], 0));
    check!(sig::count() > 20);
    Ok(())
}

fn write_to_closed_pipe() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(close(reader));
    ok!(sig::handle(libc::SIGPIPE, sig::record, 0));
    fails!(write(writer, b"x"), EPIPE);
    eq!(sig::count(), 1);
    ok!(sig::plain(libc::SIGPIPE, 1));
    fails!(write(writer, b"x"), EPIPE);
    Ok(())
}

fn file_size_limit() -> Outcome {
    // In a child that reports through a pipe: the limit would cut this program's own output.
    guest_tests::proc::in_child(|| {
        let limit = libc::rlimit { rlim_cur: 10, rlim_max: 10 };
        ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &limit, 0));
        ok!(sig::handle(libc::SIGXFSZ, sig::record, 0));
        let fd = ok!(open(c"f", O_CREAT | O_RDWR));
        eq!(ok!(write(fd, b"0123456789abc")), 10);
        fails!(write(fd, b"x"), EFBIG);
        eq!(sig::count(), 1);
        fails!(sys!(SYS_ftruncate, fd, 11), EFBIG);
        eq!(sig::count(), 2);
        Ok(())
    })
}

fn sync_calls() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(sys!(SYS_fsync, fd));
    ok!(sys!(SYS_fdatasync, fd));
    ok!(sys!(SYS_sync_file_range, fd, 0, 0, 0));
    ok!(sys!(SYS_syncfs, fd));
    ok!(sys!(SYS_sync));
    fails!(sys!(SYS_fsync, 999), EBADF);
    let (reader, _writer) = ok!(pipe(0));
    fails!(sys!(SYS_fsync, reader), EINVAL);
    Ok(())
}

fn fadvise_and_readahead() -> Outcome {
    ok!(put(c"f", b"abc"));
    let fd = ok!(open(c"f", O_RDONLY));
    ok!(sys!(SYS_fadvise64, fd, 0, 0, libc::POSIX_FADV_SEQUENTIAL));
    fails!(sys!(SYS_fadvise64, fd, 0, 0, 99), EINVAL);
    ok!(sys!(SYS_readahead, fd, 0, 4096));
    let (reader, _writer) = ok!(pipe(0));
    fails!(sys!(SYS_fadvise64, reader, 0, 0, 0), ESPIPE);
    Ok(())
}

fn copy_file_range_copies() -> Outcome {
    ok!(put(c"f", b"abcdefgh"));
    let from = ok!(open(c"f", O_RDONLY));
    let to = ok!(open(c"g", O_CREAT | O_RDWR));
    let mut off = 2i64;
    eq!(ok!(sys!(SYS_copy_file_range, from, &mut off, to, 0, 3, 0)), 3);
    eq!(off, 5);
    eq!(ok!(get(c"g")), b"cde");
    eq!(ok!(seek(from, 0, libc::SEEK_CUR)), 0);
    eq!(ok!(sys!(SYS_copy_file_range, from, 0, to, 0, 100, 0)), 8);
    eq!(ok!(sys!(SYS_copy_file_range, from, 0, to, 0, 100, 0)), 0);
    fails!(sys!(SYS_copy_file_range, from, 0, to, 0, 1, 1), EINVAL);
    Ok(())
}

guest_tests::cases!(
    read_whole_file,
    read_advances_offset,
    read_errors,
    read_of_nothing_checks_descriptor,
    read_huge_count_is_clamped,
    read_into_partly_bad_buffer,
    write_from_partly_bad_buffer,
    write_extends_and_overwrites,
    write_past_end_leaves_hole,
    append_always_at_end,
    truncate_on_open,
    pread_keeps_offset,
    offsets_end_at_the_largest,
    positioned_calls_on_pipe,
    pwrite_extends,
    readv_scatters,
    writev_gathers,
    vectors_are_checked,
    preadv_and_pwritev,
    preadv2_flags,
    seek_whence,
    seek_data_and_hole,
    dup_shares_offset,
    dup2_replaces,
    dup3_flags,
    lowest_free_descriptor,
    close_twice,
    close_range_works,
    ftruncate_both_ways,
    truncate_by_path,
    fallocate_extends_and_keeps_size,
    fallocate_punches_hole,
    large_write_and_read_back,
    large_read_into_partly_bad_buffer,
    large_reads_at_the_end,
    large_reads_under_signals,
    large_reads_of_a_changing_file,
    large_reads_share_an_offset,
    sizes_of_transfers,
    short_transfers,
    reads_by_threads,
    small_transfers_under_signals,
    write_to_closed_pipe,
    file_size_limit,
    sync_calls,
    fadvise_and_readahead,
    copy_file_range_copies,
);
