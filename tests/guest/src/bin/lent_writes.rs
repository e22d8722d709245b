//! Files that are written over again and again, and everything that can happen to them then: many short writes, and
//! between them what else there is.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guest_tests::fs::{close, fstat, open, pipe, put};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{child, in_child, sleep, wait};
use guest_tests::quick;
use guest_tests::rng::Rng;
use guest_tests::stream::Changer;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_END, SEEK_SET};

/// How often a file is written to until it is written to again and again.
const LIVELY: usize = 100;
const LEN: usize = 40_000;

fn read(fd: i32, buf: &mut [u8]) -> Result<usize, i32> {
    quick::read([fd as usize, buf.as_mut_ptr().expose_provenance(), buf.len(), 0])
}

fn write(fd: i32, buf: &[u8]) -> Result<usize, i32> {
    quick::write([fd as usize, buf.as_ptr().expose_provenance(), buf.len(), 0])
}

fn pread(fd: i32, buf: &mut [u8], offset: usize) -> Result<usize, i32> {
    quick::pread([fd as usize, buf.as_mut_ptr().expose_provenance(), buf.len(), offset])
}

fn pwrite(fd: i32, buf: &[u8], offset: usize) -> Result<usize, i32> {
    quick::pwrite([fd as usize, buf.as_ptr().expose_provenance(), buf.len(), offset])
}

fn seek(fd: i32, offset: i64, whence: i32) -> Result<usize, i32> {
    quick::seek([fd as usize, offset as usize, whence as usize, 0])
}

fn content(seed: u8) -> Vec<u8> {
    (0..LEN).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed).collect()
}

/// Writes to the file many times what is there already; its offset is the same afterwards.
fn enliven(fd: i32) -> Outcome {
    let mut byte = [0u8];
    eq!(ok!(pread(fd, &mut byte, 5)), 1);
    for _ in 0..LIVELY {
        eq!(ok!(pwrite(fd, &byte, 5)), 1);
    }
    Ok(())
}

/// A file that is written to again and again.
fn lively(name: &CStr, seed: u8) -> Result<i32, String> {
    ok!(put(name, &content(seed)));
    let fd = ok!(open(name, O_RDWR));
    enliven(fd)?;
    Ok(fd)
}

fn whole(name: &CStr) -> Result<Vec<u8>, String> {
    let fd = ok!(open(name, O_RDONLY));
    let mut all = vec![0u8; 1 << 20];
    let n = ok!(pread(fd, &mut all, 0));
    ok!(close(fd));
    all.truncate(n);
    Ok(all)
}

/// A file, what must be in it, and where its descriptor is.
struct Model {
    fd: i32,
    other: i32,
    content: Vec<u8>,
    offset: usize,
}

impl Model {
    fn put(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.content.len() {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(data);
    }

    fn check(&self, fd: i32, offset: usize, len: usize) -> Outcome {
        let mut buf = vec![0u8; len];
        let n = ok!(pread(fd, &mut buf, offset));
        let end = (offset + len).min(self.content.len());
        let expected = self.content.get(offset..end).unwrap_or_default();
        check!(buf[..n] == *expected, "{n} of {len} at {offset}");
        Ok(())
    }

    fn often(&mut self, random: &mut Rng) -> Outcome {
        let data: Vec<u8> = (0..1 + random.below(300)).map(|_| random.bits() as u8).collect();
        let at = random.below(self.content.len().saturating_sub(data.len()).max(1));
        match random.below(6) {
            0 => {
                eq!(ok!(seek(self.fd, at as i64, SEEK_SET)), at);
                self.offset = at;
            }
            1 => self.check(self.fd, at, 1 + random.below(5000))?,
            2 => {
                let mut buf = [0u8; 50];
                let n = ok!(read(self.fd, &mut buf));
                let expected = self.content.get(self.offset..).unwrap_or_default();
                check!(buf[..n] == expected[..expected.len().min(50)]);
                self.offset += n;
            }
            3 => {
                if self.offset + data.len() < self.content.len() {
                    eq!(ok!(write(self.fd, &data)), data.len());
                    self.put(self.offset, &data);
                    self.offset += data.len();
                }
            }
            _ => {
                if at + data.len() <= self.content.len() {
                    eq!(ok!(pwrite(self.fd, &data, at)), data.len());
                    self.put(at, &data);
                }
            }
        }
        Ok(())
    }

    fn rarely(&mut self, random: &mut Rng) -> Outcome {
        let data: Vec<u8> = (0..1 + random.below(9000)).map(|_| random.bits() as u8).collect();
        let len = self.content.len();
        let at = random.below(len + 2000);
        match random.below(9) {
            0 => {
                eq!(ok!(write(self.fd, &data)), data.len());
                self.put(self.offset, &data);
                self.offset += data.len();
            }
            1 | 2 => {
                let fd = if random.one_in(2) { self.fd } else { self.other };
                eq!(ok!(pwrite(fd, &data, at)), data.len());
                self.put(at, &data);
            }
            3 => {
                let len = 5000 + random.below(LEN);
                ok!(sys!(SYS_ftruncate, self.other, len));
                self.content.resize(len, 0);
            }
            4 => {
                ok!(sys!(SYS_fallocate, self.other, 3, 100, 5000));
                self.content[100..5000].fill(0);
                let end = len.min(5100);
                self.content[..end][5000.min(end)..].fill(0);
            }
            5 => {
                let copy = ok!(sys!(SYS_dup, self.fd)) as i32;
                ok!(close(std::mem::replace(&mut self.fd, copy)));
            }
            6 => {
                let map = ok!(sys!(SYS_mmap, 0, PAGE, 3, libc::MAP_SHARED, self.other, 0));
                let bytes = std::ptr::with_exposed_provenance_mut::<u8>(map);
                // SAFETY: the page has been mapped, and the file has so many bytes.
                let before = unsafe { bytes.add(7).read_volatile() };
                eq!(before, self.content[7]);
                // SAFETY: as above.
                unsafe { bytes.add(7).write_volatile(before ^ 0xff) };
                ok!(sys!(SYS_munmap, map, PAGE));
                self.content[7] = before ^ 0xff;
            }
            7 => self.check(self.other, 0, 200_000)?,
            _ => eq!(ok!(fstat(self.fd)).st_size, len as i64),
        }
        Ok(())
    }
}

fn content_and_offset_agree() -> Outcome {
    for seed in 1..=4 {
        let mut random = Rng::new(seed);
        let fd = lively(c"model", seed as u8)?;
        let other = ok!(open(c"model", O_RDWR));
        let mut model = Model { fd, other, content: content(seed as u8), offset: 0 };
        for _ in 0..6000 {
            model.often(&mut random)?;
            if random.one_in(150) {
                model.rarely(&mut random)?;
            }
        }
        eq!(ok!(seek(model.fd, 0, SEEK_CUR)), model.offset);
        check!(whole(c"model")? == model.content);
        ok!(close(model.fd));
        ok!(close(other));
    }
    Ok(())
}

fn file_grows_at_its_end() -> Outcome {
    for len in [1, 100, 4095, 4096, 5000, LEN] {
        let mut all = content(1);
        all.truncate(len.max(6));
        ok!(put(c"grows", &all));
        let fd = ok!(open(c"grows", O_RDWR));
        for _ in 0..3 {
            enliven(fd)?;
            let end = all.len();
            eq!(ok!(pwrite(fd, b"beyond", end - 3)), 6);
            all.truncate(end - 3);
            all.extend_from_slice(b"beyond");
            eq!(ok!(fstat(fd)).st_size, all.len() as i64);
            enliven(fd)?;
            eq!(ok!(seek(fd, -2, SEEK_END)), all.len() - 2);
            eq!(ok!(write(fd, b"more")), 4);
            all.truncate(all.len() - 2);
            all.extend_from_slice(b"more");
            let mut buf = [0u8; 20];
            eq!(ok!(read(fd, &mut buf)), 0);
            eq!(ok!(pread(fd, &mut buf, all.len() - 4)), 4);
            eq!(buf[..4], *b"more");
        }
        check!(whole(c"grows")? == all, "{len}");
        ok!(close(fd));
    }
    Ok(())
}

fn what_is_cut_off_is_zero_later() -> Outcome {
    let fd = lively(c"cut", 1)?;
    for _ in 0..20 {
        eq!(ok!(pwrite(fd, &[1; 3000], 1000)), 3000);
        enliven(fd)?;
        ok!(sys!(SYS_ftruncate, fd, 2000));
        ok!(sys!(SYS_ftruncate, fd, 4000));
        let mut buf = [9u8; 4000];
        eq!(ok!(pread(fd, &mut buf, 0)), 4000);
        check!(buf[1000..2000] == [1; 1000] && buf[2000..] == [0; 2000]);
    }
    ok!(close(fd));
    Ok(())
}

fn times_are_those_of_writes() -> Outcome {
    let fd = lively(c"times", 1)?;
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as i64
    };
    let times = |fd| {
        let stat = fstat(fd)?;
        let ns = |s: i64, ns: i64| s * 1_000_000_000 + ns;
        Ok::<_, i32>((ns(stat.st_mtime, stat.st_mtime_nsec), ns(stat.st_ctime, stat.st_ctime_nsec)))
    };
    // Clocks that files are stamped by may go in steps.
    let step = 10_000_000;
    for i in 0..12 {
        let before = now();
        eq!(ok!(pwrite(fd, b"x", 9)), 1);
        let after = now();
        sleep(Duration::from_millis(30));
        if i % 3 == 1 {
            // Told also where somebody else has taken the file back meanwhile.
            ok!(sys!(SYS_fchmod, fd, 0o600));
        }
        if i % 3 == 2 {
            let copy = ok!(open(c"times", O_RDWR));
            enliven(copy)?;
            ok!(close(copy));
            eq!(ok!(pwrite(fd, b"x", 9)), 1);
            enliven(fd)?;
            continue;
        }
        let (modified, changed) = ok!(times(fd));
        check!(
            modified >= before - step && modified <= after + step,
            "{before} {modified} {after}"
        );
        check!(changed >= modified && (i % 3 == 1 || changed == modified));
        enliven(fd)?;
    }
    // A time that is set stays until the next write.
    let given = [libc::timespec { tv_sec: 1000, tv_nsec: 0 }; 2];
    for _ in 0..3 {
        enliven(fd)?;
        ok!(sys!(SYS_utimensat, fd, 0, &given, 0));
        eq!(ok!(times(fd)).0, 1_000_000_000_000);
        eq!(ok!(times(fd)).0, 1_000_000_000_000);
        enliven(fd)?;
        check!(ok!(times(fd)).0 > 1_000_000_000_000);
    }
    // And one of a file that has been closed.
    let before = now();
    eq!(ok!(pwrite(fd, b"x", 9)), 1);
    let after = now();
    ok!(close(fd));
    sleep(Duration::from_millis(30));
    let fd = ok!(open(c"times", O_RDONLY));
    let (modified, _) = ok!(times(fd));
    check!(modified >= before - step && modified <= after + step, "{before} {modified} {after}");
    ok!(close(fd));
    Ok(())
}

fn others_see_it_at_once() -> Outcome {
    let fd = lively(c"seen", 1)?;
    let (there_reader, there_writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = close(there_writer);
        let Ok(own) = open(c"seen", O_RDWR) else { return 1 };
        let mut byte = [0u8];
        while read(there_reader, &mut byte) == Ok(1) {
            let mut seen = [0u8; 4];
            if pread(own, &mut seen, 20_000) != Ok(4) || seen != [byte[0]; 4] {
                return 2;
            }
            if enliven(own).is_err() || pwrite(own, &[!byte[0]; 4], 20_000) != Ok(4) {
                return 3;
            }
            if write(back_writer, &byte) != Ok(1) {
                return 4;
            }
        }
        0
    }));
    for i in 0..60u8 {
        enliven(fd)?;
        eq!(ok!(pwrite(fd, &[i; 4], 20_000)), 4);
        eq!(ok!(write(there_writer, &[i])), 1);
        let mut byte = [0u8];
        eq!(ok!(read(back_reader, &mut byte)), 1);
        let mut seen = [0u8; 4];
        eq!(ok!(pread(fd, &mut seen, 20_000)), 4);
        eq!(seen, [!i; 4]);
    }
    ok!(close(there_writer));
    eq!(ok!(wait(pid)), guest_tests::proc::End::Code(0));
    for fd in [fd, there_reader, back_reader, back_writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn offset_is_shared() -> Outcome {
    let fd = lively(c"shared", 0)?;
    ok!(seek(fd, 0, SEEK_SET));
    for round in 0..5usize {
        for _ in 0..LIVELY {
            eq!(ok!(write(fd, b"p")), 1);
        }
        in_child(|| {
            for _ in 0..LIVELY {
                eq!(ok!(write(fd, b"c")), 1);
            }
            Ok(())
        })?;
        eq!(ok!(seek(fd, 0, SEEK_CUR)), (round + 1) * 2 * LIVELY);
    }
    let mut all = vec![0u8; 10 * LIVELY];
    eq!(ok!(pread(fd, &mut all, 0)), all.len());
    for (at, byte) in all.iter().enumerate() {
        eq!(*byte, if (at / LIVELY).is_multiple_of(2) { b'p' } else { b'c' });
    }
    ok!(close(fd));
    Ok(())
}

fn numbers_change_hands() -> Outcome {
    let (one, other) = (lively(c"one", 1)?, lively(c"other", 2)?);
    for i in 0..5u8 {
        let kept = ok!(sys!(SYS_dup, one)) as i32;
        ok!(sys!(SYS_dup2, other, one));
        eq!(ok!(pwrite(one, &[i], 50)), 1);
        enliven(one)?;
        ok!(sys!(SYS_dup2, kept, one));
        ok!(close(kept));
        let mut byte = [0u8];
        eq!(ok!(pread(one, &mut byte, 50)), 1);
        eq!(byte[0], content(1)[50]);
        eq!(ok!(pread(other, &mut byte, 50)), 1);
        eq!(byte[0], i);
        enliven(one)?;
        enliven(other)?;
    }
    ok!(close(one));
    fails!(write(one, b"x"), EBADF);
    fails!(pwrite(one, b"x", 0), EBADF);
    let (reader, writer) = ok!(pipe(0));
    eq!(reader, one);
    fails!(pwrite(reader, b"x", 0), ESPIPE);
    fails!(write(reader, b"x"), EBADF);
    ok!(close(reader));
    ok!(close(writer));
    ok!(close(other));
    // The same number for file after file.
    for seed in 0..20 {
        let fd = lively(c"again", seed)?;
        eq!(ok!(pwrite(fd, b"here", 50)), 4);
        ok!(close(fd));
        let mut all = content(seed);
        all[50..54].copy_from_slice(b"here");
        check!(whole(c"again")? == all);
    }
    check!(whole(c"one")? == content(1));
    // Not for writing, or not for reading.
    let fd = ok!(open(c"one", O_RDONLY));
    for _ in 0..LIVELY {
        fails!(write(fd, b"x"), EBADF);
        fails!(pwrite(fd, b"x", 0), EBADF);
    }
    ok!(close(fd));
    let fd = ok!(open(c"one", O_WRONLY));
    for _ in 0..LIVELY {
        eq!(ok!(pwrite(fd, b"x", 7)), 1);
        fails!(pread(fd, &mut [0], 7), EBADF);
    }
    ok!(close(fd));
    Ok(())
}

fn bad_addresses() -> Outcome {
    let fd = lively(c"addresses", 1)?;
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, 0));
    for bad in [8, map.addr + PAGE, 0x7e90_0000_0000, 0x7eb0_0000_0000, 1 << 63] {
        enliven(fd)?;
        ok!(seek(fd, 10, SEEK_SET));
        fails!(quick::write([fd as usize, bad, 4, 0]), EFAULT);
        fails!(quick::pwrite([fd as usize, bad, 4, 10]), EFAULT);
        eq!(ok!(seek(fd, 0, SEEK_CUR)), 10);
    }
    check!(whole(c"addresses")? == content(1));
    // As much as there is.
    enliven(fd)?;
    let n = ok!(quick::pwrite([fd as usize, map.addr + PAGE - 20, 50, 100]));
    eq!(n, 20);
    let mut all = content(1);
    all[100..120].fill(0);
    check!(whole(c"addresses")? == all);
    // From the file itself.
    let own = ok!(sys!(SYS_mmap, 0, 4 * PAGE, 3, libc::MAP_SHARED, fd, 0));
    enliven(fd)?;
    eq!(ok!(quick::pwrite([fd as usize, own, PAGE, 2 * PAGE])), PAGE);
    all.copy_within(..PAGE, 2 * PAGE);
    check!(whole(c"addresses")? == all);
    ok!(sys!(SYS_munmap, own, 4 * PAGE));
    ok!(close(fd));
    Ok(())
}

fn flags_and_limits_change() -> Outcome {
    let fd = lively(c"flags", 1)?;
    ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, O_APPEND));
    ok!(seek(fd, 0, SEEK_SET));
    eq!(ok!(write(fd, b"appended")), 8);
    eq!(ok!(fstat(fd)).st_size, LEN as i64 + 8);
    for i in 0..LIVELY {
        eq!(ok!(pwrite(fd, b"x", 0)), 1);
        eq!(ok!(fstat(fd)).st_size, (LEN + 9 + i) as i64);
    }
    ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, 0));
    enliven(fd)?;
    in_child(|| {
        // SAFETY: nothing that needs a lock is run in the child.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        enliven(fd)?;
        let limit = [100u64, u64::MAX];
        ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &limit, 0));
        fails!(pwrite(fd, b"x", 100), EFBIG);
        eq!(ok!(pwrite(fd, b"xyz", 98)), 2);
        for _ in 0..LIVELY {
            eq!(ok!(pwrite(fd, b"x", 99)), 1);
            fails!(pwrite(fd, b"x", 200), EFBIG);
        }
        Ok(())
    })?;
    // Without a name it is the same file.
    ok!(sys!(SYS_unlink, c"flags"));
    enliven(fd)?;
    eq!(ok!(pwrite(fd, b"gone", 30)), 4);
    let mut buf = [0u8; 4];
    eq!(ok!(pread(fd, &mut buf, 30)), 4);
    eq!(buf, *b"gone");
    ok!(close(fd));
    Ok(())
}

fn set_id_bits_go() -> Outcome {
    let fd = lively(c"set-id", 1)?;
    ok!(sys!(SYS_fchmod, fd, 0o4777));
    in_child(|| {
        enliven(fd)?;
        if sys!(SYS_setuid, 12345).is_err() {
            return Ok(());
        }
        eq!(ok!(pwrite(fd, b"x", 0)), 1);
        eq!(ok!(fstat(fd)).st_mode & 0o7777, 0o777);
        Ok(())
    })?;
    ok!(close(fd));
    Ok(())
}

fn seals_hold() -> Outcome {
    let fd = ok!(sys!(SYS_memfd_create, c"sealed", libc::MFD_ALLOW_SEALING)) as i32;
    eq!(ok!(pwrite(fd, &content(1), 0)), LEN);
    enliven(fd)?;
    ok!(sys!(SYS_fcntl, fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
    for _ in 0..LIVELY {
        fails!(pwrite(fd, b"x", 0), EPERM);
    }
    ok!(close(fd));
    let fd = ok!(sys!(SYS_memfd_create, c"plain", 0)) as i32;
    eq!(ok!(pwrite(fd, &content(1), 0)), LEN);
    enliven(fd)?;
    eq!(ok!(pwrite(fd, b"x", 0)), 1);
    fails!(sys!(SYS_fcntl, fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE), EPERM);
    ok!(close(fd));
    Ok(())
}

fn watchers_are_told() -> Outcome {
    let fd = lively(c"watched", 1)?;
    let mut event = [0u8; 1000];
    for _ in 0..3 {
        enliven(fd)?;
        let notify = ok!(sys!(SYS_inotify_init1, libc::IN_NONBLOCK)) as i32;
        ok!(sys!(SYS_inotify_add_watch, notify, c"watched", libc::IN_MODIFY));
        fails!(read(notify, &mut event), EAGAIN);
        eq!(ok!(pwrite(fd, b"x", 0)), 1);
        check!(ok!(read(notify, &mut event)) > 0);
        enliven(fd)?;
        check!(ok!(read(notify, &mut event)) > 0);
        ok!(close(notify));
    }
    ok!(close(fd));
    Ok(())
}

fn more_files_than_places() -> Outcome {
    let mut files = Vec::new();
    for seed in 0..24u8 {
        let name = format!("many-{seed}\0");
        let name = CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default();
        files.push((lively(name, seed)?, content(seed)));
    }
    let mut random = Rng::new(5);
    for _ in 0..200 {
        let index = random.below(24);
        let (fd, all) = &mut files[index];
        for _ in 0..50 {
            let at = random.below(LEN - 300);
            let data = [random.bits() as u8; 300];
            eq!(ok!(pwrite(*fd, &data, at)), 300);
            all[at..at + 300].copy_from_slice(&data);
        }
    }
    for (fd, all) in files {
        let mut buf = vec![0u8; LEN];
        eq!(ok!(pread(fd, &mut buf, 0)), LEN);
        check!(buf == all);
        ok!(close(fd));
    }
    Ok(())
}

fn records_are_written_whole() -> Outcome {
    // Threads and processes write over the same bytes: what is there is one's or the other's.
    const RECORD: usize = 3000;
    let fd = lively(c"whole", 1)?;
    for at in [0, 8192] {
        eq!(ok!(pwrite(fd, &[0; RECORD], at)), RECORD);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [1u8, 2].map(|who| {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(SeqCst) {
                if pwrite(fd, &[who; RECORD], 8192) != Ok(RECORD) {
                    return false;
                }
            }
            true
        })
    });
    let pid = ok!(child(|| {
        let Ok(own) = open(c"whole", O_RDWR) else { return 1 };
        for _ in 0..3000 {
            if pwrite(own, &[3; RECORD], 8192) != Ok(RECORD) {
                return 2;
            }
        }
        0
    }));
    eq!(ok!(wait(pid)), guest_tests::proc::End::Code(0));
    stop.store(true, SeqCst);
    for writer in writers {
        eq!(writer.join().ok(), Some(true));
    }
    let mut buf = vec![0u8; RECORD];
    eq!(ok!(pread(fd, &mut buf, 8192)), RECORD);
    check!((1..=3).contains(&buf[0]) && buf.iter().all(|byte| *byte == buf[0]), "mixed");
    ok!(close(fd));
    Ok(())
}

fn threads_share_an_offset() -> Outcome {
    const N: usize = 3000;
    let fd = lively(c"records", 1)?;
    ok!(seek(fd, 0, SEEK_SET));
    let started = Arc::new(AtomicU32::new(0));
    let writers = [1u8, 2, 3, 4].map(|who| {
        let started = started.clone();
        std::thread::spawn(move || {
            started.fetch_add(1, SeqCst);
            (0..N).all(|_| write(fd, &[who]) == Ok(1))
        })
    });
    for writer in writers {
        eq!(writer.join().ok(), Some(true));
    }
    eq!(ok!(seek(fd, 0, SEEK_CUR)), 4 * N);
    let mut all = vec![0u8; 4 * N];
    eq!(ok!(pread(fd, &mut all, 0)), 4 * N);
    for who in 1..=4u8 {
        eq!(all.iter().filter(|byte| **byte == who).count(), N);
    }
    ok!(close(fd));
    Ok(())
}

fn descriptors_change_under_other_threads() -> Outcome {
    // A thread writes by a number while another makes it that of one file or the other: each byte goes to one of
    // them, at its place.
    let (one, other) = (lively(c"one", 0)?, lively(c"other", 0)?);
    let number = ok!(sys!(SYS_dup, one)) as i32;
    for fd in [one, other] {
        eq!(ok!(pwrite(fd, &[0xee; LEN], 0)), LEN);
    }
    let changer = Changer::start(number, [other, one], Duration::from_micros(200));
    for i in 0..20_000 {
        let at = i % LEN;
        eq!(ok!(pwrite(number, &[at as u8 & 0x7f], at)), 1);
    }
    eq!(changer.stop(), Some(true));
    for name in [c"one", c"other"] {
        let all = whole(name)?;
        eq!(all.len(), LEN);
        let is_right = |(at, byte): (usize, &u8)| *byte == 0xee || *byte == at as u8 & 0x7f;
        check!(all.iter().enumerate().all(is_right));
    }
    for fd in [one, other, number] {
        ok!(close(fd));
    }
    Ok(())
}

fn files_shrink_under_writers() -> Outcome {
    // What is written when the file is cut off is all there afterwards, or nothing of it.
    let fd = lively(c"shrinks", 0)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let cutter = std::thread::spawn(move || {
        let Ok(own) = open(c"shrinks", O_RDWR) else { return false };
        while !stopped.load(SeqCst) {
            if sys!(SYS_ftruncate, own, 1000).is_err() || sys!(SYS_ftruncate, own, LEN).is_err() {
                return false;
            }
            for _ in 0..200 {
                std::thread::yield_now();
            }
        }
        true
    });
    for i in 0..4000usize {
        let at = i * 37 % (LEN - 3000);
        eq!(ok!(pwrite(fd, &[i as u8 | 1; 3000], at)), 3000);
    }
    stop.store(true, SeqCst);
    eq!(cutter.join().ok(), Some(true));
    check!(ok!(fstat(fd)).st_size >= LEN as i64 - 3000);
    ok!(sys!(SYS_ftruncate, fd, 500));
    ok!(sys!(SYS_ftruncate, fd, LEN));
    check!(whole(c"shrinks")?[500..].iter().all(|byte| *byte == 0), "what is cut off comes back");
    ok!(close(fd));
    Ok(())
}

fn large_pieces() -> Outcome {
    const MIB: usize = 1 << 20;
    ok!(put(c"large", &vec![0; 4 * MIB]));
    let fd = ok!(open(c"large", O_RDWR));
    let mut random = Rng::new(1);
    let data: Vec<u8> = (0..4 * MIB).map(|_| random.bits() as u8).collect();
    let mut buf = vec![0u8; 4 * MIB];
    for round in 0..60 {
        let at = random.below(MIB) & if round % 2 == 0 { !4095 } else { !0 };
        let len = MIB + random.below(2 * MIB);
        eq!(ok!(pwrite(fd, &data[at..at + len], at)), len);
        eq!(ok!(pread(fd, &mut buf[..len], at)), len);
        check!(buf[..len] == data[at..at + len], "{len} at {at}");
    }
    ok!(close(fd));
    ok!(sys!(SYS_unlink, c"large"));
    Ok(())
}

guest_tests::cases!(
    content_and_offset_agree,
    file_grows_at_its_end,
    what_is_cut_off_is_zero_later,
    times_are_those_of_writes,
    others_see_it_at_once,
    offset_is_shared,
    numbers_change_hands,
    bad_addresses,
    flags_and_limits_change,
    set_id_bits_go,
    seals_hold,
    watchers_are_told,
    more_files_than_places,
    records_are_written_whole,
    threads_share_an_offset,
    descriptors_change_under_other_threads,
    files_shrink_under_writers,
    large_pieces,
);
