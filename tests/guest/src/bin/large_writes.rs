//! Large writes to files, each in one piece, and everything that can happen to file and memory meanwhile.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use guest_tests::fs::{close, fstat, open, pipe, put, read, seek, write};
use guest_tests::hostile::{call, catch_faults, reap, returning_site};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, in_child, sleep, wait};
use guest_tests::rng::Rng;
use guest_tests::stream::Changer;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{MAP_PRIVATE, MAP_SHARED, O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_SET};

/// What counts as large.
const LEN: usize = 256 << 10;
const MIB: usize = 1 << 20;

fn pwrite(fd: i32, buf: &[u8], offset: usize) -> Result<usize, i32> {
    sys!(SYS_pwrite64, fd, buf.as_ptr(), buf.len(), offset)
}

fn pwrite_at(fd: i32, addr: usize, len: usize, offset: usize) -> Result<usize, i32> {
    sys!(SYS_pwrite64, fd, addr, len, offset)
}

fn pread(fd: i32, buf: &mut [u8], offset: usize) -> Result<usize, i32> {
    sys!(SYS_pread64, fd, buf.as_mut_ptr(), buf.len(), offset)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Rng::new(seed);
    let words = std::iter::repeat_with(|| random.bits().to_le_bytes());
    words.flatten().take(len).collect()
}

/// A new file of `len` bytes, to which large pieces have been written already.
fn written(name: &CStr, len: usize) -> Result<i32, String> {
    ok!(put(name, b""));
    let fd = ok!(open(name, O_RDWR));
    for _ in 0..3 {
        eq!(ok!(pwrite(fd, &vec![0x5a; len], 0)), len);
    }
    Ok(fd)
}

fn whole(fd: i32) -> Result<Vec<u8>, String> {
    let mut all = vec![0u8; ok!(fstat(fd)).st_size as usize];
    eq!(ok!(pread(fd, &mut all, 0)), all.len());
    Ok(all)
}

fn content_size_and_offset_agree() -> Outcome {
    for (name, flags) in [(c"both", O_RDWR), (c"only-writing", O_WRONLY)] {
        ok!(put(name, b""));
        let (fd, other) = (ok!(open(name, flags)), ok!(open(name, O_RDONLY)));
        let mut random = Rng::new(7);
        let data = noise(1, 4 * MIB);
        let (mut model, mut offset) = (Vec::new(), 0);
        for round in 0..60 {
            let from = random.below(MIB);
            let len = [LEN, MIB, 100_000 + random.below(2 * MIB)][round % 3];
            let piece = &data[from..from + len];
            let at = if random.one_in(2) {
                eq!(ok!(write(fd, piece)), len);
                offset += len;
                offset - len
            } else {
                let at = random.below(model.len() + MIB);
                eq!(ok!(pwrite(fd, piece, at)), len);
                at
            };
            if model.len() < at + len {
                model.resize(at + len, 0);
            }
            model[at..at + len].copy_from_slice(piece);
            eq!(ok!(seek(fd, 0, SEEK_CUR)), offset);
            eq!(ok!(fstat(other)).st_size as usize, model.len());
            let mut back = vec![0u8; len];
            eq!(ok!(pread(other, &mut back, at)), len);
            check!(back == piece, "{len} bytes at {at}");
            if offset > 3 * MIB {
                offset = random.below(MIB);
                ok!(seek(fd, offset as i64, SEEK_SET));
            }
        }
        check!(whole(other)? == model);
        ok!(close(fd));
        ok!(close(other));
    }
    Ok(())
}

fn memory_that_is_not_there() -> Outcome {
    let fd = written(c"holes", MIB)?;
    let memory = ok!(Map::anonymous(MIB, MAP_PRIVATE));
    memory.bytes().fill(1);
    let hole = 150 * PAGE;
    ok!(sys!(SYS_munmap, memory.addr + hole, PAGE));
    for _ in 0..20 {
        eq!(ok!(pwrite_at(fd, memory.addr, MIB, 0)), hole);
        eq!(ok!(pwrite_at(fd, memory.addr + 1, MIB - 1, 0)), hole - 1);
        fails!(pwrite_at(fd, memory.addr + hole, LEN, 0), EFAULT);
        ok!(seek(fd, 5, SEEK_SET));
        eq!(ok!(sys!(SYS_write, fd, memory.addr, MIB)), hole);
        eq!(ok!(seek(fd, 0, SEEK_CUR)), 5 + hole);
        fails!(sys!(SYS_write, fd, memory.addr + hole, LEN), EFAULT);
        eq!(ok!(seek(fd, 0, SEEK_CUR)), 5 + hole);
    }
    let all = whole(fd)?;
    eq!(all.len(), MIB);
    check!(all[..hole + 5].iter().all(|byte| *byte == 1));
    check!(all[hole + 5..].iter().all(|byte| *byte == 0x5a));
    fails!(pwrite_at(fd, usize::MAX - MIB, LEN, 0), EFAULT);
    fails!(pwrite_at(fd, 0x7fff_ffff_0000, LEN, 0), EFAULT);
    fails!(pwrite(fd, &[0; LEN], usize::MAX), EINVAL);
    let only = ok!(open(c"holes", O_RDONLY));
    for _ in 0..3 {
        fails!(pwrite(only, &[0; LEN], 0), EBADF);
    }
    ok!(close(only));
    ok!(close(fd));
    fails!(pwrite(fd, &[0; LEN], 0), EBADF);
    Ok(())
}

fn memory_goes_meanwhile() -> Outcome {
    let fd = written(c"goes", MIB)?;
    let memory = ok!(Map::anonymous(MIB, MAP_PRIVATE));
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, start, middle) = (stop.clone(), memory.addr, memory.addr + MIB / 2);
    let mapper = std::thread::spawn(move || {
        while !seen.load(SeqCst) {
            let flags = MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            if sys!(SYS_munmap, middle, PAGE).is_err()
                || sys!(SYS_mprotect, start, PAGE, 0).is_err()
                || sys!(SYS_mmap, middle, PAGE, 3, flags, -1, 0).is_err()
                || sys!(SYS_mprotect, start, PAGE, 3).is_err()
            {
                return false;
            }
        }
        true
    });
    for _ in 0..300 {
        match pwrite_at(fd, memory.addr, MIB, 0) {
            Ok(n) => check!(n == MIB || n == MIB / 2, "{n}"),
            Err(errno) => eq!(errno, libc::EFAULT),
        }
    }
    stop.store(true, SeqCst);
    eq!(mapper.join().ok(), Some(true));
    eq!(ok!(pwrite_at(fd, memory.addr, MIB, 0)), MIB);
    check!(whole(fd)?.iter().all(|byte| *byte == 0));
    ok!(close(fd));
    Ok(())
}

fn limits_hold() -> Outcome {
    let fd = written(c"limited", LEN)?;
    in_child(|| {
        // SAFETY: nothing that needs a lock is run in the child.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let size = (LEN + 1000) as u64;
        ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &[size, u64::MAX], 0));
        for _ in 0..20 {
            eq!(ok!(pwrite(fd, &[1; LEN], 1000)), LEN);
            eq!(ok!(pwrite(fd, &[2; LEN], 2000)), LEN - 1000);
            fails!(pwrite(fd, &[3; LEN], LEN + 1000), EFBIG);
            fails!(pwrite(fd, &[3; LEN], 1 << 40), EFBIG);
            ok!(seek(fd, 0, SEEK_SET));
            eq!(ok!(write(fd, &vec![4; MIB])), LEN + 1000);
            fails!(write(fd, &[5; LEN]), EFBIG);
            eq!(ok!(fstat(fd)).st_size as u64, size);
        }
        Ok(())
    })?;
    let killed = ok!(child(|| {
        let _ = sys!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &[100u64, u64::MAX], 0);
        let _ = pwrite(fd, &[1; LEN], 100);
        0
    }));
    eq!(ok!(wait(killed)), End::Signal(libc::SIGXFSZ));
    check!(whole(fd)?.iter().all(|byte| *byte == 4));
    ok!(close(fd));
    Ok(())
}

/// Checks that a file consists of so many records of one byte each.
fn check_records(fd: i32, n: usize) -> Outcome {
    let all = whole(fd)?;
    eq!(all.len(), n * LEN);
    for (index, record) in all.chunks(LEN).enumerate() {
        check!(record.iter().all(|byte| *byte == record[0]), "record {index} is torn");
    }
    Ok(())
}

fn records_follow_one_another() -> Outcome {
    for (name, flags) in [(c"appended", O_APPEND), (c"one-offset", 0)] {
        ok!(put(name, b""));
        let fd = ok!(open(name, O_RDWR | flags));
        let mut children = Vec::new();
        for seed in 1..=3u8 {
            children.push(ok!(child(|| {
                // Its own with `O_APPEND`, the common one without.
                let own = if flags == 0 { Ok(fd) } else { open(name, O_WRONLY | flags) };
                let Ok(own) = own else { return 1 };
                let is_whole = (0..15).all(|_| write(own, &[seed; LEN]) == Ok(LEN));
                i32::from(!is_whole)
            })));
        }
        for pid in children {
            eq!(ok!(wait(pid)), End::Code(0));
        }
        check_records(fd, 45)?;
        // And between threads.
        let threads: Vec<_> = (1..=3u8)
            .map(|seed| {
                std::thread::spawn(move || (0..15).all(|_| write(fd, &[seed; LEN]) == Ok(LEN)))
            })
            .collect();
        for thread in threads {
            eq!(thread.join().ok(), Some(true));
        }
        check_records(fd, 90)?;
        ok!(close(fd));
    }
    Ok(())
}

fn mappings_and_readers_see_it() -> Outcome {
    let fd = written(c"mapped", MIB)?;
    let map = ok!(Map::new(0, MIB, 3, MAP_SHARED, fd, 0));
    let reader = ok!(open(c"mapped", O_RDONLY));
    let mut byte = [0u8];
    for round in 0..50usize {
        let (at, seed) = (round * 4093 % (MIB - LEN), round as u8);
        eq!(ok!(pwrite(fd, &[seed; LEN], at)), LEN);
        check!(map.bytes()[at..at + LEN].iter().all(|byte| *byte == seed));
        // What the mapping writes is in the file, and can be what is written.
        map.bytes()[at] = !seed;
        eq!(ok!(pread(reader, &mut byte, at)), 1);
        eq!(byte[0], !seed);
        let to = MIB - LEN - at;
        eq!(ok!(pwrite_at(fd, map.addr + at, LEN, MIB + to)), LEN);
        eq!(ok!(pread(reader, &mut byte, MIB + to)), 1);
        eq!(byte[0], !seed);
        ok!(sys!(SYS_ftruncate, fd, MIB));
    }
    ok!(close(fd));
    eq!(ok!(pread(reader, &mut byte, 0)), 1);
    ok!(close(reader));
    Ok(())
}

fn times_and_modes_change() -> Outcome {
    let fd = written(c"times", LEN)?;
    for _ in 0..5 {
        ok!(sys!(SYS_futimesat, fd, 0, &[1_000_000_000i64, 0, 1_000_000_000, 0]));
        eq!(ok!(fstat(fd)).st_mtime, 1_000_000_000);
        eq!(ok!(pwrite(fd, &[1; LEN], 0)), LEN);
        check!(ok!(fstat(fd)).st_mtime > 1_000_000_000);
    }
    ok!(sys!(SYS_fchmod, fd, 0o4777));
    in_child(|| {
        if sys!(SYS_setuid, 12345).is_err() {
            return Ok(());
        }
        eq!(ok!(pwrite(fd, &[1; LEN], 0)), LEN);
        eq!(ok!(fstat(fd)).st_mode & 0o7777, 0o777);
        Ok(())
    })?;
    let mut event = [0u8; 1000];
    for _ in 0..3 {
        let notify = ok!(sys!(SYS_inotify_init1, libc::IN_NONBLOCK)) as i32;
        ok!(sys!(SYS_inotify_add_watch, notify, c"times", libc::IN_MODIFY));
        fails!(read(notify, &mut event), EAGAIN);
        eq!(ok!(pwrite(fd, &[2; LEN], 0)), LEN);
        eq!(ok!(read(notify, &mut event)), 16);
        fails!(read(notify, &mut event), EAGAIN);
        ok!(close(notify));
        eq!(ok!(pwrite(fd, &[2; LEN], 0)), LEN);
    }
    // Without a name it is the same file.
    ok!(sys!(SYS_unlink, c"times"));
    eq!(ok!(pwrite(fd, &[3; LEN], LEN)), LEN);
    eq!(whole(fd)?.len(), 2 * LEN);
    ok!(close(fd));
    Ok(())
}

fn many_threads_and_files() -> Outcome {
    let threads: Vec<_> = (0..6u8)
        .map(|seed| {
            std::thread::spawn(move || -> Outcome {
                let mut files = Vec::new();
                for index in 0..12 {
                    let name = format!("many-{seed}-{index}\0");
                    let name = CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default();
                    ok!(put(name, b""));
                    files.push(ok!(open(name, O_RDWR)));
                }
                for round in 0..6usize {
                    for fd in &files {
                        eq!(ok!(pwrite(*fd, &[seed + *fd as u8; LEN], round * LEN)), LEN);
                    }
                }
                for fd in files {
                    let all = whole(fd)?;
                    eq!(all.len(), 6 * LEN);
                    check!(all.iter().all(|byte| *byte == seed + fd as u8));
                    ok!(close(fd));
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap_or_else(|_| Err("panic".to_owned()))?;
    }
    Ok(())
}

fn descriptors_change_under_writers() -> Outcome {
    let (one, other) = (written(c"one", LEN)?, written(c"other", LEN)?);
    let number = ok!(sys!(SYS_dup, one)) as i32;
    let changer = Changer::start(number, [other, one], Duration::from_micros(300));
    for round in 0..600usize {
        eq!(ok!(pwrite(number, &[round as u8; LEN], 0)), LEN);
    }
    eq!(changer.stop(), Some(true));
    for fd in [one, other, number] {
        let all = whole(fd)?;
        eq!(all.len(), LEN);
        check!(all.iter().all(|byte| *byte == all[0]));
        ok!(close(fd));
    }
    Ok(())
}

static TICKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_tick(_: i32) {
    TICKS.fetch_add(1, SeqCst);
}

fn signals_do_not_cut_it() -> Outcome {
    let fd = written(c"signals", MIB)?;
    let handler: extern "C" fn(i32) = on_tick;
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGALRM, handler as *const () as usize) };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &[0i64, 500, 0, 500], 0));
    let data = noise(3, MIB);
    for round in 0..400usize {
        eq!(ok!(pwrite(fd, &data, round % 3)), MIB);
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &[0i64; 4], 0));
    check!(TICKS.load(SeqCst) > 0);
    check!(whole(fd)?[2..MIB] == data[2..]);
    ok!(close(fd));
    Ok(())
}

fn writers_are_killed() -> Outcome {
    let fd = written(c"killed", LEN)?;
    for round in 0..25u64 {
        let (reader, writer) = ok!(pipe(0));
        let pid = ok!(child(|| {
            let data = [round as u8; LEN];
            let other = std::thread::spawn(move || {
                loop {
                    let _ = pwrite(fd, &[round as u8; LEN], LEN);
                }
            });
            let _ = pwrite(fd, &data, 0);
            let _ = write(writer, b"x");
            loop {
                if pwrite(fd, &data, 0) != Ok(LEN) || other.is_finished() {
                    return 1;
                }
            }
        }));
        ok!(close(writer));
        eq!(ok!(read(reader, &mut [0])), 1);
        ok!(close(reader));
        sleep(Duration::from_micros(round * 150));
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
        eq!(ok!(pwrite(fd, &[0xee; LEN], 0)), LEN);
    }
    check!(whole(fd)?[..LEN].iter().all(|byte| *byte == 0xee));
    ok!(close(fd));
    Ok(())
}

fn files_are_cut_off_under_writers() -> Outcome {
    let fd = written(c"cut", MIB)?;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let cutter = std::thread::spawn(move || {
        while !seen.load(SeqCst) {
            if sys!(SYS_ftruncate, fd, 1000).is_err() {
                return false;
            }
            std::thread::yield_now();
        }
        true
    });
    for _ in 0..300 {
        eq!(ok!(pwrite(fd, &[1; LEN], 2000)), LEN);
    }
    stop.store(true, SeqCst);
    eq!(cutter.join().ok(), Some(true));
    ok!(sys!(SYS_ftruncate, fd, 1000));
    eq!(ok!(pwrite(fd, &[1; LEN], 2000)), LEN);
    let all = whole(fd)?;
    eq!(all.len(), 2000 + LEN);
    check!(all[1000..2000].iter().all(|byte| *byte == 0));
    ok!(close(fd));
    Ok(())
}

fn nothing_else_is_written() -> Outcome {
    ok!(catch_faults());
    // The instruction by which the process writes itself, where it does.
    let Some(site) = returning_site() else { return Ok(()) };
    let fd = written(c"target", LEN)?;
    let other = written(c"other-target", LEN)?;
    for closes in [false, true] {
        let pid = ok!(child(|| {
            // No number below is a descriptor of its own.
            let high = [(fd, 100), (other, 101)];
            for (fd, to) in high {
                if sys!(SYS_dup2, fd, to).is_err() {
                    return 3;
                }
            }
            if sys!(SYS_close_range, 3, 99, 0).is_err() {
                return 3;
            }
            for (_, fd) in high {
                std::thread::spawn(move || {
                    loop {
                        let _ = pwrite(fd, &[0x5a; LEN], 0);
                    }
                });
            }
            let (mut random, forged) = (Rng::new(9), [0xff_u8; PAGE]);
            let addr = forged.as_ptr() as usize;
            for _ in 0..400 {
                for number in 3..24 {
                    let offset = [0, LEN, random.below(4 * MIB)][random.below(3)];
                    for len in [PAGE, LEN] {
                        let args = [number, addr, len, offset, 0, 0];
                        if call(site, libc::SYS_pwrite64, args) >= 0 {
                            return 1;
                        }
                    }
                }
                let number = 3 + random.below(8);
                if closes && random.one_in(4) {
                    let _ = call(site, libc::SYS_close, [number, 0, 0, 0, 0, 0]);
                }
            }
            2
        }));
        let end = ok!(reap(pid));
        check!(!matches!(end, Some(End::Code(1 | 3))), "{end:?}: a process wrote what it liked");
    }
    for fd in [fd, other] {
        let all = whole(fd)?;
        eq!(all.len(), LEN);
        check!(all.iter().all(|byte| *byte == 0x5a));
        ok!(close(fd));
    }
    Ok(())
}

guest_tests::cases!(
    content_size_and_offset_agree,
    memory_that_is_not_there,
    memory_goes_meanwhile,
    limits_hold,
    records_follow_one_another,
    mappings_and_readers_see_it,
    times_and_modes_change,
    many_threads_and_files,
    descriptors_change_under_writers,
    signals_do_not_cut_it,
    writers_are_killed,
    files_are_cut_off_under_writers,
    nothing_else_is_written,
);
