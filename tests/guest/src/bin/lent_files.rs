//! Files that are read again and again, and everything that can happen to them then: many short reads, and between them
//! what else there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use guest_tests::fs::{close, fstat, open, pipe, put, write};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{in_child, sleep};
use guest_tests::quick;
use guest_tests::rng::Rng;
use guest_tests::stream::Changer;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, SEEK_CUR, SEEK_END, SEEK_SET};

/// How often a file is read until it is read again and again.
const LIVELY: usize = 150;
/// How long the files are at first: more than what is kept in a small place.
const LEN: usize = 40_000;

fn read(fd: i32, buf: &mut [u8]) -> Result<usize, i32> {
    quick::read([fd as usize, buf.as_mut_ptr().expose_provenance(), buf.len(), 0])
}

fn pread(fd: i32, buf: &mut [u8], offset: i64) -> Result<usize, i32> {
    let addr = buf.as_mut_ptr().expose_provenance();
    quick::pread([fd as usize, addr, buf.len(), offset as usize])
}

fn seek(fd: i32, offset: i64, whence: i32) -> Result<usize, i32> {
    quick::seek([fd as usize, offset as usize, whence as usize, 0])
}

fn pwrite(fd: i32, buf: &[u8], offset: i64) -> Result<usize, i32> {
    sys!(SYS_pwrite64, fd, buf, buf.len(), offset)
}

fn content(seed: u8) -> Vec<u8> {
    (0..LEN).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed).collect()
}

/// Reads the file many times; its offset is the same afterwards.
fn enliven(fd: i32) -> Outcome {
    let offset = ok!(seek(fd, 0, SEEK_CUR)) as i64;
    ok!(seek(fd, 0, SEEK_SET));
    let mut byte = [0u8];
    for i in 0..LIVELY {
        eq!(ok!(read(fd, &mut byte)), 1);
        eq!(ok!(pread(fd, &mut byte, 5)), 1);
        eq!(ok!(seek(fd, 0, SEEK_CUR)), i + 1);
    }
    eq!(ok!(seek(fd, offset, SEEK_SET)), offset as usize);
    Ok(())
}

/// A file that is read again and again.
fn lively(name: &std::ffi::CStr, seed: u8) -> Result<i32, String> {
    ok!(put(name, &content(seed)));
    let fd = ok!(open(name, O_RDWR));
    enliven(fd)?;
    Ok(fd)
}

/// A file, what must be in it, and where its descriptor is.
struct Model {
    fd: i32,
    other: i32,
    content: Vec<u8>,
    offset: usize,
}

impl Model {
    fn expected(&self, offset: usize, len: usize) -> &[u8] {
        let end = offset.saturating_add(len).min(self.content.len());
        self.content.get(offset..end).unwrap_or_default()
    }

    fn read(&mut self, len: usize) -> Outcome {
        let mut buf = vec![0u8; len];
        let n = ok!(read(self.fd, &mut buf));
        check!(buf[..n] == *self.expected(self.offset, len), "{n} of {len} at {}", self.offset);
        self.offset += n;
        Ok(())
    }

    fn pread(&mut self, offset: usize, len: usize) -> Outcome {
        let mut buf = vec![0u8; len];
        let n = ok!(pread(self.fd, &mut buf, offset as i64));
        check!(buf[..n] == *self.expected(offset, len), "{n} of {len} at {offset}");
        Ok(())
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.content.len() {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(data);
    }

    fn something_else(&mut self, random: &mut Rng) -> Outcome {
        let data: Vec<u8> = (0..1 + random.below(3000)).map(|_| random.bits() as u8).collect();
        let len = self.content.len();
        let at = random.below(len + 2000);
        match random.below(11) {
            0 => {
                eq!(ok!(write(self.fd, &data)), data.len());
                self.put(self.offset, &data);
                self.offset += data.len();
            }
            1 => {
                eq!(ok!(pwrite(self.fd, &data, at as i64)), data.len());
                self.put(at, &data);
            }
            2 => {
                eq!(ok!(pwrite(self.other, &data, at as i64)), data.len());
                self.put(at, &data);
            }
            3 => {
                let len = random.below(LEN);
                ok!(sys!(SYS_ftruncate, self.other, len));
                self.content.resize(len, 0);
            }
            4 => {
                let by = random.below(300) as i64;
                eq!(ok!(seek(self.fd, -by, SEEK_END)), len.saturating_sub(by as usize));
                self.offset = len - by as usize;
            }
            5 => {
                let copy = ok!(sys!(SYS_dup, self.fd)) as i32;
                eq!(ok!(seek(copy, 3, SEEK_CUR)), self.offset + 3);
                self.offset += 3;
                let before = std::mem::replace(&mut self.fd, copy);
                self.read(10)?;
                ok!(close(before));
            }
            6 => {
                let (reader, writer) = ok!(pipe(0));
                let n = ok!(sys!(SYS_sendfile, writer, self.fd, 0, 100));
                let mut moved = [0u8; 100];
                if n > 0 {
                    eq!(ok!(read(reader, &mut moved)), n);
                }
                check!(moved[..n] == *self.expected(self.offset, 100));
                self.offset += n;
                ok!(close(reader));
                ok!(close(writer));
            }
            7 => {
                let mut pieces = [[0u8; 7], [0u8; 7]];
                let vectors = pieces.each_mut().map(|piece| libc::iovec {
                    iov_base: piece.as_mut_ptr().cast(),
                    iov_len: piece.len(),
                });
                let n = ok!(sys!(SYS_readv, self.fd, &vectors, 2));
                check!(pieces.as_flattened()[..n] == *self.expected(self.offset, 14));
                self.offset += n;
            }
            8 => {
                // Through memory: what is in the file moves nowhere.
                let len = self.content.len().min(PAGE);
                if len > 10 {
                    let map = ok!(sys!(SYS_mmap, 0, PAGE, 3, libc::MAP_SHARED, self.other, 0));
                    let bytes = std::ptr::with_exposed_provenance_mut::<u8>(map);
                    // SAFETY: the page has been mapped, and the file has so many bytes.
                    unsafe { bytes.add(7).write_volatile(0xa5) };
                    ok!(sys!(SYS_munmap, map, PAGE));
                    self.content[7] = 0xa5;
                }
            }
            9 => {
                let erased = ok!(sys!(SYS_fallocate, self.other, 3, 100, 5000));
                eq!(erased, 0);
                let end = self.content.len().min(5100);
                if let Some(range) = self.content.get_mut(100..end) {
                    range.fill(0);
                }
            }
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
            let end = model.content.len() + 100;
            match random.below(6) {
                0 => {
                    model.offset = random.below(end);
                    eq!(ok!(seek(model.fd, model.offset as i64, SEEK_SET)), model.offset);
                }
                1 => {
                    let by = random.below(60);
                    if by <= model.offset {
                        model.offset -= by;
                        eq!(ok!(seek(model.fd, -(by as i64), SEEK_CUR)), model.offset);
                    }
                }
                2 => model.pread(random.below(end), 1 + random.below(5000))?,
                3 => model.read(1 + random.below(5000))?,
                _ => model.read(1 + random.below(40))?,
            }
            if random.one_in(150) {
                model.something_else(&mut random)?;
            }
        }
        eq!(ok!(seek(model.fd, 0, SEEK_CUR)), model.offset);
        ok!(close(model.fd));
        ok!(close(other));
    }
    Ok(())
}

fn file_ends() -> Outcome {
    let fd = lively(c"ends", 1)?;
    let other = ok!(open(c"ends", O_RDWR));
    let mut buf = [9u8; 100];
    eq!(ok!(seek(fd, LEN as i64 - 60, SEEK_SET)), LEN - 60);
    eq!(ok!(read(fd, &mut buf)), 60);
    eq!(ok!(read(fd, &mut buf)), 0);
    eq!(ok!(pread(fd, &mut buf, LEN as i64)), 0);
    eq!(ok!(pread(fd, &mut buf, i64::MAX - 4096)), 0);
    eq!(buf[60..], [9; 40]);
    // It grows while nobody reads.
    ok!(sys!(SYS_ftruncate, other, LEN + 10));
    eq!(ok!(read(fd, &mut buf)), 10);
    eq!(buf[..10], [0; 10]);
    enliven(fd)?;
    ok!(sys!(SYS_ftruncate, other, 20));
    eq!(ok!(pread(fd, &mut buf, 10)), 10);
    eq!(ok!(pread(fd, &mut buf, 20)), 0);
    eq!(ok!(read(fd, &mut buf)), 0);
    // And by another name's content.
    let before = ok!(fstat(fd));
    ok!(put(c"new", &content(7)));
    ok!(sys!(SYS_rename, c"new", c"ends"));
    eq!(ok!(pread(fd, &mut buf, 10)), 10);
    eq!(ok!(fstat(fd)).st_ino, before.st_ino);
    ok!(close(fd));
    ok!(close(other));
    Ok(())
}

fn offsets() -> Outcome {
    let fd = lively(c"offsets", 1)?;
    let mut buf = [0u8; 10];
    for far in [0xffff_fffb_i64, 0xffff_ffff, 1 << 32, 5 << 32, (1 << 43) + 1] {
        enliven(fd)?;
        eq!(ok!(seek(fd, far, SEEK_SET)), far as usize);
        eq!(ok!(read(fd, &mut buf)), 0);
        eq!(ok!(seek(fd, 7, SEEK_CUR)), far as usize + 7);
        eq!(ok!(seek(fd, -far, SEEK_CUR)), 7);
        fails!(seek(fd, -8, SEEK_CUR), EINVAL);
        eq!(ok!(seek(fd, 0, SEEK_CUR)), 7);
    }
    for at in [-1, -10, i64::MIN, i64::MAX, i64::MAX - 9] {
        enliven(fd)?;
        fails!(pread(fd, &mut buf, at), EINVAL);
    }
    enliven(fd)?;
    eq!(ok!(pread(fd, &mut buf, i64::MAX - 10)), 0);
    fails!(seek(fd, -1, SEEK_SET), EINVAL);
    fails!(seek(fd, 0, 77), EINVAL);
    fails!(pread(fd, &mut buf, -1), EINVAL);
    eq!(ok!(seek(fd, -1, SEEK_END)), LEN - 1);
    eq!(ok!(seek(fd, 0, libc::SEEK_DATA)), 0);
    eq!(ok!(seek(fd, 0, libc::SEEK_HOLE)), LEN);
    enliven(fd)?;
    eq!(ok!(seek(fd, 321, SEEK_SET)), 321);
    let path = format!("/proc/self/fdinfo/{fd}");
    let info =
        ok!(std::fs::read_to_string(path).map_err(|error| error.raw_os_error().unwrap_or(0)));
    check!(info.starts_with("pos:\t321\n"), "{info}");
    eq!(ok!(read(fd, &mut [])), 0);
    ok!(close(fd));
    Ok(())
}

fn times_are_kept() -> Outcome {
    let fd = lively(c"times", 1)?;
    let mut byte = [0u8];
    let accessed = |fd| fstat(fd).map(|stat| (stat.st_atime, stat.st_atime_nsec));
    for _ in 0..3 {
        // The time of access is older than the others: the next read sets it.
        let times = [libc::timespec { tv_sec: 1000, tv_nsec: 0 }; 2];
        ok!(sys!(SYS_utimensat, fd, 0, &times, 0));
        eq!(ok!(accessed(fd)), (1000, 0));
        eq!(ok!(read(fd, &mut byte)), 1);
        check!(ok!(accessed(fd)).0 > 1000);
        enliven(fd)?;
        ok!(sys!(SYS_utimensat, fd, 0, &times, 0));
        eq!(ok!(pread(fd, &mut byte, 0)), 1);
        check!(ok!(accessed(fd)).0 > 1000);
        enliven(fd)?;
        // So it is after a write.
        sleep(Duration::from_millis(20));
        eq!(ok!(pwrite(fd, b"x", 0)), 1);
        sleep(Duration::from_millis(20));
        eq!(ok!(pread(fd, &mut byte, 0)), 1);
        eq!(byte, *b"x");
        let stat = ok!(fstat(fd));
        check!(
            (stat.st_atime, stat.st_atime_nsec) > (stat.st_mtime, stat.st_mtime_nsec),
            "accessed before it was written"
        );
        enliven(fd)?;
        // And of other attributes.
        sleep(Duration::from_millis(20));
        ok!(sys!(SYS_fchmod, fd, 0o600));
        sleep(Duration::from_millis(20));
        eq!(ok!(read(fd, &mut byte)), 1);
        let stat = ok!(fstat(fd));
        check!(
            (stat.st_atime, stat.st_atime_nsec) > (stat.st_ctime, stat.st_ctime_nsec),
            "accessed before its mode was changed"
        );
        enliven(fd)?;
    }
    ok!(close(fd));
    Ok(())
}

fn watchers_are_told() -> Outcome {
    let fd = lively(c"watched", 1)?;
    let mut event = [0u8; 1000];
    for watched in [c"watched", c"."] {
        enliven(fd)?;
        let notify = ok!(sys!(SYS_inotify_init1, libc::IN_NONBLOCK)) as i32;
        ok!(sys!(SYS_inotify_add_watch, notify, watched, libc::IN_ACCESS));
        fails!(read(notify, &mut event), EAGAIN);
        eq!(ok!(read(fd, &mut [0u8])), 1);
        check!(ok!(read(notify, &mut event)) > 0);
        eq!(ok!(pread(fd, &mut [0u8], 0)), 1);
        check!(ok!(read(notify, &mut event)) > 0);
        enliven(fd)?;
        check!(ok!(read(notify, &mut event)) > 0);
        ok!(close(notify));
    }
    ok!(close(fd));
    Ok(())
}

fn offset_is_shared() -> Outcome {
    let fd = lively(c"shared", 3)?;
    let all = content(3);
    let mut buf = [0u8; 10];
    for _ in 0..3 {
        ok!(seek(fd, 100, SEEK_SET));
        in_child(|| {
            let mut buf = [0u8; 10];
            eq!(ok!(read(fd, &mut buf)), 10);
            eq!(buf[..], content(3)[100..110]);
            enliven(fd)?;
            ok!(seek(fd, 5, SEEK_CUR));
            Ok(())
        })?;
        eq!(ok!(read(fd, &mut buf)), 10);
        eq!(buf[..], all[115..125]);
        enliven(fd)?;
        let copy = ok!(sys!(SYS_dup, fd)) as i32;
        enliven(copy)?;
        ok!(seek(fd, 200, SEEK_SET));
        eq!(ok!(read(copy, &mut buf)), 10);
        eq!(buf[..], all[200..210]);
        eq!(ok!(read(fd, &mut buf)), 10);
        eq!(buf[..], all[210..220]);
        ok!(close(copy));
        enliven(fd)?;
    }
    // An own one is not.
    let own = ok!(open(c"shared", O_RDONLY));
    enliven(own)?;
    ok!(seek(own, 7, SEEK_SET));
    eq!(ok!(seek(fd, 0, SEEK_CUR)), 220);
    ok!(close(own));
    ok!(close(fd));
    Ok(())
}

fn both_go_on_after_a_fork() -> Outcome {
    // Two processes take turns with one offset: each byte is read once.
    let fd = lively(c"turns", 0)?;
    ok!(seek(fd, 0, SEEK_SET));
    let (there_reader, there_writer) = ok!(pipe(0));
    let (back_reader, back_writer) = ok!(pipe(0));
    let all = content(0);
    let pid = ok!(guest_tests::proc::child(|| {
        let mut byte = [0u8];
        let _ = close(there_writer);
        while read(there_reader, &mut byte) == Ok(1) {
            for _ in 0..60 {
                if read(fd, &mut byte) != Ok(1) {
                    return 1;
                }
            }
            if write(back_writer, &byte) != Ok(1) {
                return 2;
            }
        }
        0
    }));
    let mut byte = [0u8];
    let mut at = 0;
    for _ in 0..100 {
        for _ in 0..40 {
            eq!(ok!(read(fd, &mut byte)), 1);
            eq!(byte[0], all[at]);
            at += 1;
        }
        ok!(write(there_writer, b"x"));
        ok!(read(back_reader, &mut byte));
        at += 60;
        eq!(byte[0], all[at - 1]);
    }
    ok!(close(there_writer));
    eq!(ok!(guest_tests::proc::wait(pid)), guest_tests::proc::End::Code(0));
    eq!(ok!(seek(fd, 0, SEEK_CUR)), at);
    for fd in [fd, there_reader, back_reader, back_writer] {
        ok!(close(fd));
    }
    Ok(())
}

fn numbers_change_hands() -> Outcome {
    let fd = lively(c"first", 1)?;
    let other = lively(c"second", 2)?;
    let (first, second) = (content(1), content(2));
    let mut buf = [0u8; 16];
    for _ in 0..3 {
        let kept = ok!(sys!(SYS_dup, fd)) as i32;
        ok!(sys!(SYS_dup2, other, fd));
        eq!(ok!(pread(fd, &mut buf, 50)), 16);
        eq!(buf[..], second[50..66]);
        enliven(fd)?;
        ok!(sys!(SYS_dup2, kept, fd));
        eq!(ok!(pread(fd, &mut buf, 50)), 16);
        eq!(buf[..], first[50..66]);
        ok!(close(kept));
        enliven(fd)?;
        enliven(other)?;
    }
    ok!(close(fd));
    fails!(read(fd, &mut buf), EBADF);
    fails!(pread(fd, &mut buf, 0), EBADF);
    fails!(seek(fd, 0, SEEK_CUR), EBADF);
    let (reader, writer) = ok!(pipe(0));
    eq!(reader, fd);
    fails!(pread(reader, &mut buf, 0), ESPIPE);
    fails!(seek(reader, 0, SEEK_CUR), ESPIPE);
    ok!(write(writer, b"piped"));
    eq!(ok!(read(reader, &mut buf)), 5);
    ok!(close(reader));
    ok!(close(writer));
    // The same number for file after file.
    for seed in 0..20 {
        let fd = lively(c"again", seed)?;
        eq!(ok!(pread(fd, &mut buf, 50)), 16);
        eq!(buf[..], content(seed)[50..66]);
        ok!(close(fd));
    }
    ok!(close(other));
    // Not for reading.
    let fd = ok!(open(c"first", libc::O_WRONLY));
    for _ in 0..LIVELY {
        fails!(read(fd, &mut buf), EBADF);
    }
    ok!(close(fd));
    Ok(())
}

fn bad_addresses() -> Outcome {
    let fd = lively(c"addresses", 1)?;
    let all = content(1);
    let map = ok!(Map::anonymous(2 * PAGE, libc::MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, 0));
    for bad in [0, 8, map.addr + PAGE, 0x7e90_0000_0000, 1 << 63] {
        enliven(fd)?;
        ok!(seek(fd, 10, SEEK_SET));
        fails!(quick::read([fd as usize, bad, 4, 0]), EFAULT);
        fails!(quick::pread([fd as usize, bad, 4, 0]), EFAULT);
        eq!(ok!(seek(fd, 0, SEEK_CUR)), 10);
    }
    // Up to where there is memory.
    enliven(fd)?;
    ok!(seek(fd, 10, SEEK_SET));
    eq!(ok!(quick::read([fd as usize, map.addr + PAGE - 20, 50, 0])), 20);
    eq!(ok!(seek(fd, 0, SEEK_CUR)), 30);
    enliven(fd)?;
    eq!(ok!(quick::pread([fd as usize, map.addr + PAGE - 20, 50, 10])), 20);
    // To read-only memory.
    ok!(sys!(SYS_mprotect, map.addr, PAGE, 1));
    enliven(fd)?;
    fails!(quick::read([fd as usize, map.addr, 4, 0]), EFAULT);
    eq!(ok!(seek(fd, 0, SEEK_CUR)), 30);
    // To fresh memory, into which nobody has written, and to the pages of a private mapping.
    let fresh = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    enliven(fd)?;
    eq!(ok!(quick::pread([fd as usize, fresh.addr, 8 * PAGE, 1])), 8 * PAGE);
    let private = ok!(sys!(SYS_mmap, 0, 8 * PAGE, 3, libc::MAP_PRIVATE, fd, 0));
    eq!(ok!(quick::pread([fd as usize, private + 5, PAGE, 3])), PAGE);
    for (addr, from) in [(fresh.addr, 1), (private + 5, 3)] {
        let bytes = std::ptr::with_exposed_provenance::<u8>(addr);
        // SAFETY: mapped, and so long.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, PAGE) };
        check!(*bytes == all[from..from + PAGE]);
    }
    // Beyond the end of a mapped file.
    ok!(sys!(SYS_ftruncate, fd, 3 * PAGE));
    enliven(fd)?;
    let shared = ok!(sys!(SYS_mmap, 0, 8 * PAGE, 3, libc::MAP_SHARED, fd, 0));
    fails!(quick::pread([fd as usize, shared + 4 * PAGE, 10, 0]), EFAULT);
    ok!(sys!(SYS_munmap, private, 8 * PAGE));
    ok!(sys!(SYS_munmap, shared, 8 * PAGE));
    ok!(close(fd));
    Ok(())
}

fn flags_change() -> Outcome {
    let fd = lively(c"flags", 1)?;
    let other = ok!(open(c"flags", O_RDWR));
    let mut buf = [0u8; 8];
    ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, libc::O_APPEND));
    enliven(fd)?;
    ok!(seek(fd, 8, SEEK_SET));
    eq!(ok!(write(fd, b"appended")), 8);
    eq!(ok!(seek(fd, 0, SEEK_CUR)), LEN + 8);
    eq!(ok!(pread(fd, &mut buf, LEN as i64)), 8);
    eq!(buf, *b"appended");
    ok!(sys!(SYS_fcntl, fd, libc::F_SETFL, libc::O_NONBLOCK));
    enliven(fd)?;
    eq!(ok!(pread(fd, &mut buf, LEN as i64)), 8);
    // Emptied by another open.
    enliven(fd)?;
    ok!(close(ok!(open(c"flags", O_RDWR | O_CREAT | O_TRUNC))));
    eq!(ok!(pread(fd, &mut buf, 0)), 0);
    eq!(ok!(write(other, b"a")), 1);
    eq!(ok!(pread(fd, &mut buf, 0)), 1);
    ok!(sys!(SYS_unlink, c"flags"));
    eq!(ok!(pread(fd, &mut buf, 0)), 1);
    ok!(close(fd));
    ok!(close(other));
    Ok(())
}

fn more_files_than_places() -> Outcome {
    let mut files = Vec::new();
    for seed in 0..24u8 {
        let name = format!("many-{seed}\0");
        let name = std::ffi::CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default();
        files.push((lively(name, seed)?, content(seed)));
    }
    let mut random = Rng::new(5);
    let mut buf = [0u8; 300];
    for _ in 0..10_000 {
        let (fd, all) = &files[random.below(24)];
        let at = random.below(LEN - 300);
        eq!(ok!(pread(*fd, &mut buf, at as i64)), 300);
        check!(buf[..] == all[at..at + 300]);
        if random.one_in(40) {
            // What takes a descriptor of its own.
            let map = ok!(sys!(SYS_mmap, 0, PAGE, 1, libc::MAP_PRIVATE, *fd, 0));
            ok!(sys!(SYS_munmap, map, PAGE));
        }
    }
    for (fd, _) in files {
        ok!(close(fd));
    }
    Ok(())
}

fn threads_share_an_offset() -> Outcome {
    const N_RECORDS: u32 = 12_000;
    let records: Vec<u8> = (0..N_RECORDS).flat_map(u32::to_ne_bytes).collect();
    ok!(put(c"records", &records));
    let fd = ok!(open(c"records", O_RDONLY));
    enliven(fd)?;
    let seen = Arc::new((0..N_RECORDS).map(|_| AtomicU32::new(0)).collect::<Vec<_>>());
    let readers = [0; 4].map(|_| {
        let seen = seen.clone();
        std::thread::spawn(move || {
            let mut record = [0u8; 4];
            while read(fd, &mut record) == Ok(4) {
                let Some(n) = seen.get(u32::from_ne_bytes(record) as usize) else { return false };
                n.fetch_add(1, SeqCst);
            }
            true
        })
    });
    for reader in readers {
        eq!(reader.join().ok(), Some(true));
    }
    check!(seen.iter().all(|n| n.load(SeqCst) == 1), "not each record once");
    ok!(close(fd));
    Ok(())
}

fn descriptors_change_under_other_threads() -> Outcome {
    // A thread reads by a number while another makes it that of one file or the other.
    let (one, other) = (lively(c"one", 1)?, lively(c"other", 2)?);
    let number = ok!(sys!(SYS_dup, one)) as i32;
    let changer = Changer::start(number, [other, one], Duration::from_micros(200));
    let contents = [content(1), content(2)];
    let mut n = [0u32; 2];
    let mut buf = [0u8; 64];
    // At least until both have had their turn.
    let started = Instant::now();
    let mut i = 0;
    while i < 20_000 || (n.contains(&0) && started.elapsed() < Duration::from_secs(20)) {
        let at = i % (LEN - 64);
        eq!(ok!(pread(number, &mut buf, at as i64)), 64);
        let of = contents.iter().position(|all| all[at..at + 64] == buf);
        let Some(of) = of else { return Err("neither file's content".to_owned()) };
        n[of] += 1;
        i += 1;
    }
    eq!(changer.stop(), Some(true));
    check!(n[0] > 0 && n[1] > 0);
    for fd in [one, other, number] {
        ok!(close(fd));
    }
    Ok(())
}

fn thread_with_own_descriptors() -> Outcome {
    let fd = lively(c"mine", 1)?;
    let new = lively(c"new", 2)?;
    let turn = Arc::new(AtomicU32::new(0));
    let theirs = turn.clone();
    let await_turn = |turn: &AtomicU32, wanted| {
        while turn.load(SeqCst) != wanted {
            std::thread::yield_now();
        }
    };
    let other = std::thread::spawn(move || {
        ok!(sys!(SYS_unshare, libc::CLONE_FILES));
        theirs.store(1, SeqCst);
        await_turn(&theirs, 2);
        let mut buf = [0u8; 16];
        for _ in 0..LIVELY {
            eq!(ok!(pread(fd, &mut buf, 9)), 16);
            eq!(buf[..], content(1)[9..25]);
        }
        ok!(close(fd));
        theirs.store(3, SeqCst);
        Ok(())
    });
    await_turn(&turn, 1);
    enliven(fd)?;
    ok!(sys!(SYS_dup2, new, fd));
    enliven(fd)?;
    turn.store(2, SeqCst);
    let mut buf = [0u8; 16];
    while turn.load(SeqCst) != 3 && !other.is_finished() {
        eq!(ok!(pread(fd, &mut buf, 9)), 16);
        eq!(buf[..], content(2)[9..25]);
    }
    eq!(ok!(pread(fd, &mut buf, 9)), 16);
    ok!(close(fd));
    ok!(close(new));
    match other.join() {
        Ok(result) => result,
        Err(_) => Err("the other thread panicked".to_owned()),
    }
}

fn program_reads_on() -> Outcome {
    // A program goes on where the one before it has stopped, with the descriptors that stay open.
    let fd = lively(c"goes-on", 1)?;
    ok!(seek(fd, 50, SEEK_SET));
    in_child(|| {
        enliven(fd)?;
        ok!(sys!(SYS_dup2, fd, 0));
        let (reader, writer) = ok!(pipe(0));
        let pid = ok!(guest_tests::proc::child(|| {
            let _ = sys!(SYS_dup2, writer, 1);
            let arguments = [c"head".as_ptr(), c"-c10".as_ptr(), core::ptr::null()];
            let none = [core::ptr::null::<u8>()];
            let _ = sys!(SYS_execve, c"/usr/bin/head", &arguments, &none);
            99
        }));
        let mut buf = [0u8; 20];
        ok!(close(writer));
        let n = ok!(read(reader, &mut buf));
        match ok!(guest_tests::proc::wait(pid)) {
            // There is no such program in the sandbox.
            guest_tests::proc::End::Code(99) => return Ok(()),
            end => eq!(end, guest_tests::proc::End::Code(0)),
        }
        eq!(n, 10);
        eq!(buf[..10], content(1)[50..60]);
        Ok(())
    })?;
    ok!(close(fd));
    Ok(())
}

/// Returns the path of a file that was there before and may be changed, where somebody says so.
fn changeable(variable: &str) -> Option<std::ffi::CString> {
    std::ffi::CString::new(std::env::var_os(variable)?.into_encoded_bytes()).ok()
}

fn below_is_copied() -> Outcome {
    // A file that was there before: who writes to it has it copied, and who reads it sees that. Only where somebody
    // says which file may be changed.
    let Some(name) = changeable("LENT_FILE") else { return Ok(()) };
    let fd = ok!(open(&name, O_RDONLY));
    let mut buf = [0u8; 8];
    enliven(fd)?;
    let len = ok!(fstat(fd)).st_size;
    let writer = ok!(open(&name, O_RDWR));
    eq!(ok!(pwrite(writer, b"changed!", 16)), 8);
    eq!(ok!(pread(fd, &mut buf, 16)), 8);
    eq!(buf, *b"changed!");
    enliven(fd)?;
    ok!(sys!(SYS_ftruncate, writer, len + 8));
    eq!(ok!(pread(fd, &mut buf, len)), 8);
    eq!(buf, [0; 8]);
    ok!(close(writer));
    ok!(close(fd));
    Ok(())
}

fn below_is_mapped() -> Outcome {
    // The same with memory, without a call that writes.
    let Some(name) = changeable("LENT_FILE_TO_MAP") else { return Ok(()) };
    let fd = ok!(open(&name, O_RDWR));
    enliven(fd)?;
    let map = ok!(sys!(SYS_mmap, 0, PAGE, 3, libc::MAP_SHARED, fd, 0));
    let bytes = std::ptr::with_exposed_provenance_mut::<u8>(map);
    for value in [1, 2, 3] {
        // SAFETY: the page has been mapped, and the file is longer.
        unsafe { bytes.add(7).write_volatile(value) };
        let mut byte = [0u8];
        eq!(ok!(pread(fd, &mut byte, 7)), 1);
        eq!(byte[0], value);
        enliven(fd)?;
    }
    ok!(sys!(SYS_munmap, map, PAGE));
    ok!(close(fd));
    Ok(())
}

fn below_is_cut() -> Outcome {
    // The same with a file that has become shorter, which is not copied for that.
    let Some(name) = changeable("LENT_FILE_TO_CUT") else { return Ok(()) };
    let fd = ok!(open(&name, O_RDONLY));
    enliven(fd)?;
    ok!(sys!(SYS_truncate, &*name, 1000));
    let mut buf = [0u8; 8];
    for _ in 0..3 {
        eq!(ok!(pread(fd, &mut buf, 996)), 4);
        eq!(ok!(pread(fd, &mut buf, 1000)), 0);
        enliven(fd)?;
    }
    ok!(close(fd));
    Ok(())
}

guest_tests::cases!(
    content_and_offset_agree,
    file_ends,
    offsets,
    times_are_kept,
    watchers_are_told,
    offset_is_shared,
    both_go_on_after_a_fork,
    numbers_change_hands,
    bad_addresses,
    flags_change,
    more_files_than_places,
    threads_share_an_offset,
    descriptors_change_under_other_threads,
    thread_with_own_descriptors,
    program_reads_on,
    below_is_copied,
    below_is_mapped,
    below_is_cut,
);
