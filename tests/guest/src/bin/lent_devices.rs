//! `/dev/null` and `/dev/zero` where they are used again and again, and everything that can happen to them then.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use guest_tests::fs::{close, open, pipe, put};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::in_child;
use guest_tests::quick;
use guest_tests::rng::Rng;
use guest_tests::stream::Changer;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{EBADF, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_SET};

/// How often a device is used until it is used again and again.
const LIVELY: usize = 150;
const NULL: &CStr = c"/dev/null";
const ZERO: &CStr = c"/dev/zero";

fn read_at(fd: i32, addr: usize, len: usize) -> Result<usize, i32> {
    quick::read([fd as usize, addr, len, 0])
}

fn read(fd: i32, buf: &mut [u8]) -> Result<usize, i32> {
    read_at(fd, buf.as_mut_ptr().expose_provenance(), buf.len())
}

fn write_at(fd: i32, addr: usize, len: usize) -> Result<usize, i32> {
    quick::write([fd as usize, addr, len, 0])
}

fn write(fd: i32, buf: &[u8]) -> Result<usize, i32> {
    write_at(fd, buf.as_ptr().expose_provenance(), buf.len())
}

fn seek(fd: i32, offset: i64, whence: i32) -> Result<usize, i32> {
    quick::seek([fd as usize, offset as usize, whence as usize, 0])
}

/// Writes to the device many times, where that is possible, and reads from it.
fn enliven(fd: i32) -> Outcome {
    let mut byte = [1u8];
    for _ in 0..LIVELY {
        let results = (write(fd, &byte), read(fd, &mut byte));
        check!(matches!(results, (Ok(1) | Err(EBADF), Ok(0 | 1) | Err(EBADF))), "{results:?}");
    }
    Ok(())
}

fn lively(name: &CStr, flags: i32) -> Result<i32, String> {
    let fd = ok!(open(name, flags));
    enliven(fd)?;
    Ok(fd)
}

fn zeros_are_read() -> Outcome {
    let mut random = Rng::new(7);
    let fd = lively(ZERO, O_RDWR)?;
    for len in [0, 1, 7, 8, 9, 4095, 4096, 4097, 70_000, 3 << 20] {
        let mut buf = vec![0xa5_u8; len + 32];
        for _ in 0..3 {
            let at = random.below(17);
            buf.fill(0xa5);
            eq!(ok!(read(fd, &mut buf[at..at + len])), len);
            check!(buf[at..at + len].iter().all(|byte| *byte == 0), "not all are zeros of {len}");
            check!(buf[..at].iter().chain(&buf[at + len..]).all(|byte| *byte == 0xa5), "{len}");
            eq!(ok!(write(fd, &buf[at..at + len])), len);
        }
        enliven(fd)?;
    }
    ok!(close(fd));
    fails!(read(fd, &mut [0u8]), EBADF);
    fails!(write(fd, &[0u8]), EBADF);
    Ok(())
}

fn nothing_is_read() -> Outcome {
    let fd = lively(NULL, O_RDWR)?;
    let mut buf = vec![0xa5_u8; 5 << 20];
    for len in [0, 1, 100, 4097, 5 << 20] {
        for _ in 0..3 {
            eq!(ok!(read(fd, &mut buf[..len])), 0);
            eq!(ok!(write(fd, &buf[..len])), len);
        }
        enliven(fd)?;
    }
    check!(buf.iter().all(|byte| *byte == 0xa5));
    ok!(close(fd));
    fails!(write(fd, &[0u8]), EBADF);
    Ok(())
}

fn ends_are_kept_apart() -> Outcome {
    for name in [NULL, ZERO] {
        let (reader, writer) = (lively(name, O_RDONLY)?, lively(name, O_WRONLY)?);
        for _ in 0..3 {
            fails!(write(reader, &[1]), EBADF);
            fails!(read(writer, &mut [1]), EBADF);
            eq!(ok!(write(writer, &[1])), 1);
            ok!(read(reader, &mut [1]));
        }
        ok!(close(reader));
        ok!(close(writer));
    }
    Ok(())
}

fn bad_addresses() -> Outcome {
    let (zero, null) = (lively(ZERO, O_RDWR)?, lively(NULL, O_RDWR)?);
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    let addr = map.leak();
    ok!(sys!(SYS_mprotect, addr + PAGE, PAGE, libc::PROT_READ));
    for _ in 0..3 {
        for bad in [0, addr + PAGE, usize::MAX - 100, 1 << 47] {
            fails!(read_at(zero, bad, 8), EFAULT);
        }
        eq!(ok!(read_at(zero, addr + PAGE - 10, 100)), 10);
        // Nobody looks at what is thrown away.
        for fd in [zero, null] {
            eq!(ok!(write_at(fd, 1, 8)), 8);
            fails!(write_at(fd, usize::MAX - 100, 8), EFAULT);
        }
        eq!(ok!(read_at(null, 1, 8)), 0);
        fails!(read_at(null, usize::MAX - 100, 8), EFAULT);
        enliven(zero)?;
        enliven(null)?;
    }
    ok!(sys!(SYS_munmap, addr, 2 * PAGE));
    ok!(close(zero));
    ok!(close(null));
    Ok(())
}

fn place_stays() -> Outcome {
    for name in [NULL, ZERO] {
        let fd = lively(name, O_RDWR)?;
        for offset in [0, 100] {
            eq!(ok!(seek(fd, offset, SEEK_SET)), 0);
            eq!(ok!(seek(fd, 0, SEEK_CUR)), 0);
            ok!(read(fd, &mut [0u8; 10]));
            eq!(ok!(seek(fd, 0, SEEK_CUR)), 0);
            enliven(fd)?;
        }
        let mut buf = [1u8; 4];
        let addr = buf.as_mut_ptr().expose_provenance();
        for _ in 0..3 {
            let n = ok!(quick::pread([fd as usize, addr, 4, 1 << 33]));
            eq!(buf, if n == 4 { [0; 4] } else { [1; 4] });
            fails!(quick::pread([fd as usize, addr, 4, usize::MAX]), EINVAL);
        }
        ok!(close(fd));
    }
    Ok(())
}

fn watchers_are_told() -> Outcome {
    for name in [NULL, ZERO] {
        let fd = lively(name, O_RDWR)?;
        let notify = ok!(sys!(SYS_inotify_init1, libc::IN_NONBLOCK)) as i32;
        ok!(sys!(SYS_inotify_add_watch, notify, name, libc::IN_MODIFY));
        let mut events = [0u8; 4000];
        for _ in 0..2 {
            eq!(ok!(write(fd, &[1])), 1);
            check!(ok!(read(notify, &mut events)) > 0);
            enliven(fd)?;
            check!(ok!(read(notify, &mut events)) > 0);
        }
        ok!(close(notify));
        ok!(close(fd));
    }
    Ok(())
}

fn numbers_change_hands() -> Outcome {
    ok!(put(c"content", b"content"));
    let content = ok!(open(c"content", O_RDONLY));
    let fd = lively(ZERO, O_RDWR)?;
    let mut buf = [1u8; 7];
    for _ in 0..3 {
        let number = ok!(sys!(SYS_dup, fd)) as i32;
        enliven(number)?;
        ok!(seek(content, 0, SEEK_SET));
        ok!(sys!(SYS_dup2, content, number));
        eq!(ok!(read(number, &mut buf)), 7);
        eq!(&buf, b"content");
        fails!(write(number, &buf), EBADF);
        eq!(ok!(read(fd, &mut buf)), 7);
        eq!(buf, [0; 7]);
        ok!(sys!(SYS_dup2, fd, number));
        enliven(number)?;
        ok!(close(number));
        fails!(read(number, &mut buf), EBADF);
        let (reader, writer) = ok!(pipe(libc::O_NONBLOCK));
        fails!(read(reader, &mut buf), EAGAIN);
        eq!(ok!(write(writer, &buf)), 7);
        eq!(ok!(read(reader, &mut buf)), 7);
        ok!(close(reader));
        ok!(close(writer));
    }
    ok!(close(fd));
    ok!(close(content));
    Ok(())
}

fn both_go_on_after_a_fork() -> Outcome {
    let (zero, null) = (lively(ZERO, O_RDWR)?, lively(NULL, O_RDWR)?);
    for _ in 0..3 {
        in_child(|| {
            enliven(zero)?;
            ok!(sys!(SYS_dup2, null, zero));
            eq!(ok!(read(zero, &mut [1u8])), 0);
            enliven(zero)?;
            eq!(ok!(read(zero, &mut [1u8])), 0);
            Ok(())
        })?;
        eq!(ok!(read(zero, &mut [1u8])), 1);
        enliven(zero)?;
    }
    ok!(close(zero));
    ok!(close(null));
    Ok(())
}

fn more_than_places() -> Outcome {
    let mut random = Rng::new(3);
    let mut fds = Vec::new();
    for i in 0..24 {
        let name = if i % 2 == 0 { NULL } else { ZERO };
        fds.push((lively(name, O_RDWR)?, i % 2));
    }
    for _ in 0..4000 {
        let (fd, n) = fds[random.below(fds.len())];
        eq!(ok!(read(fd, &mut [1u8])), n);
        eq!(ok!(write(fd, &[1u8])), 1);
    }
    for (fd, _) in fds {
        ok!(close(fd));
    }
    Ok(())
}

fn descriptors_change_under_other_threads() -> Outcome {
    let (zero, null) = (lively(ZERO, O_RDWR)?, lively(NULL, O_RDWR)?);
    let number = ok!(sys!(SYS_dup, zero)) as i32;
    let changer = Changer::start(number, [null, zero], Duration::from_micros(200));
    let mut n = [0u32; 2];
    let started = Instant::now();
    let mut i = 0;
    // At least until both have had their turn.
    while i < 20_000 || (n.contains(&0) && started.elapsed() < Duration::from_secs(20)) {
        let mut buf = [1u8; 8];
        let got = ok!(read(number, &mut buf));
        match (got, buf) {
            (0, [1, 1, 1, 1, 1, 1, 1, 1]) => n[0] += 1,
            (8, [0, 0, 0, 0, 0, 0, 0, 0]) => n[1] += 1,
            _ => return Err(format!("{got} bytes of {buf:?}")),
        }
        i += 1;
    }
    eq!(changer.stop(), Some(true));
    check!(n[0] > 0 && n[1] > 0);
    for fd in [zero, null, number] {
        ok!(close(fd));
    }
    Ok(())
}

guest_tests::cases!(
    zeros_are_read,
    nothing_is_read,
    ends_are_kept_apart,
    bad_addresses,
    place_stays,
    watchers_are_told,
    numbers_change_hands,
    both_go_on_after_a_fork,
    more_than_places,
    descriptors_change_under_other_threads,
);
