//! Random sequences of ordinary calls whose results must be the host's: files, memory, signals, pipes.
//!
//! `fuzz_model SUBJECT SEED STEPS` prints one line per hundred steps with a digest of all results so far, and the
//! last results in words, so that two runs that differ show where. Nothing that it prints depends on ids, addresses or time.

use std::ffi::CString;
use std::fmt::Write;

use guest_tests::fs::{self, close, read, write};
use guest_tests::mem::{Map, PAGE};
use guest_tests::rng::{Digest, Log, Rng};
use guest_tests::runner::exit;
use guest_tests::{SysResult, sig, sys};

const NAMES: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "d/a",
    "d/b",
    "d/e",
    "d/e/a",
    "f",
    "f/a",
    "l",
    "d/..",
    ".",
    "d/e/../b",
    "nothing/a",
    "l/a",
    "d/",
    "a/",
    "d/e/",
    "",
];

fn name(rng: &mut Rng) -> CString {
    CString::new(rng.pick(NAMES)).unwrap_or_default()
}

fn stat(log: &mut Log, what: &str, result: Result<libc::stat, i32>) {
    match result {
        Ok(stat) => {
            let size = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { 0 } else { stat.st_size };
            let links =
                if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { 0 } else { stat.st_nlink };
            log.result(&format!("{what} {:o} {links} {size}", stat.st_mode), Ok(0));
        }
        Err(errno) => log.result(what, Err(errno)),
    }
}

fn files(rng: &mut Rng, log: &mut Log, steps: usize) {
    let mut fds: Vec<i32> = Vec::new();
    let _ = sys!(SYS_umask, 0o22);
    for _ in 0..steps {
        let path = name(rng);
        let fd = if fds.is_empty() { -1 } else { rng.pick(&fds) };
        let mut buf = vec![0u8; rng.below(9000)];
        let offset = if rng.one_in(30) { 1 << 20 } else { rng.below(20_000) };
        match rng.below(26) {
            0..4 => {
                let access =
                    rng.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]);
                let mut flags = access;
                for flag in
                    [libc::O_CREAT, libc::O_EXCL, libc::O_TRUNC, libc::O_APPEND, libc::O_DIRECTORY]
                {
                    let often = if flag == libc::O_CREAT { 2 } else { 6 };
                    if rng.one_in(often) {
                        flags |= flag;
                    }
                }
                if rng.one_in(8) {
                    flags |= libc::O_NOFOLLOW;
                }
                if flags & libc::O_CREAT != 0 {
                    // Linux changed its mind about the two together (6.4).
                    flags &= !libc::O_DIRECTORY;
                }
                match fs::open(&path, flags) {
                    Ok(fd) => {
                        fds.push(fd);
                        log.result("open", Ok(0));
                    }
                    Err(errno) => log.result("open", Err(errno)),
                }
                if fds.len() > 8 {
                    let old = fds.remove(rng.below(8));
                    log.result("close", close(old).map(|()| 0));
                }
            }
            4..7 => {
                let value = rng.bits() as u8;
                buf.fill(value);
                log.result("write", write(fd, &buf));
            }
            7 | 8 => {
                buf.fill(rng.bits() as u8);
                log.result("pwrite", sys!(SYS_pwrite64, fd, &buf[..], buf.len(), offset));
            }
            9 | 10 => {
                let len = buf.len();
                let result = sys!(SYS_pread64, fd, &mut buf[..], len, offset);
                log.result("pread", result);
                log.bytes(&buf[..result.unwrap_or(0)]);
            }
            11 => {
                let result = read(fd, &mut buf);
                log.result("read", result);
                log.bytes(&buf[..result.unwrap_or(0)]);
            }
            12 => {
                let whence = rng.below(5) as i32;
                if whence < 3 {
                    let is_directory = fs::fstat(fd)
                        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
                    if !is_directory {
                        log.result(
                            "lseek",
                            sys!(SYS_lseek, fd, rng.below(9000) as i64 - 500, whence),
                        );
                    }
                }
            }
            13 => log.result("ftruncate", sys!(SYS_ftruncate, fd, offset)),
            14 => log.result("truncate", sys!(SYS_truncate, path.as_c_str(), offset)),
            15 => {
                let to = name(rng);
                log.result("rename", sys!(SYS_rename, path.as_c_str(), to.as_c_str()));
            }
            16 => {
                let to = name(rng);
                let flags = rng.pick(&[1, 2, 0, 3, 4]);
                log.result(
                    "renameat2",
                    sys!(
                        SYS_renameat2,
                        libc::AT_FDCWD,
                        path.as_c_str(),
                        libc::AT_FDCWD,
                        to.as_c_str(),
                        if flags == 4 { 0 } else { flags }
                    ),
                );
            }
            17 => {
                let to = name(rng);
                log.result("link", sys!(SYS_link, path.as_c_str(), to.as_c_str()));
            }
            18 => log.result("unlink", sys!(SYS_unlink, path.as_c_str())),
            19 => log.result("mkdir", sys!(SYS_mkdir, path.as_c_str(), 0o777)),
            20 => log.result("rmdir", sys!(SYS_rmdir, path.as_c_str())),
            21 => {
                let to = name(rng);
                log.result("symlink", sys!(SYS_symlink, path.as_c_str(), to.as_c_str()));
                let result = sys!(SYS_readlink, to.as_c_str(), &mut buf[..], buf.len().min(100));
                log.result("readlink", result);
            }
            22 => stat(log, "stat", fs::stat(&path)),
            23 => stat(log, "lstat", fs::stat_at(libc::AT_FDCWD, &path, libc::AT_SYMLINK_NOFOLLOW)),
            24 => stat(log, "fstat", fs::fstat(fd)),
            _ => match fs::names(&path) {
                Ok(names) => {
                    log.result("names", Ok(names.len()));
                    log.bytes(names.join(" ").as_bytes());
                }
                Err(errno) => log.result("names", Err(errno)),
            },
        }
        log.step();
    }
}

/// What a page holds, or why it cannot be read: asked by a call, so that nothing faults.
fn peek(pipe: (i32, i32), addr: usize) -> SysResult {
    sys!(SYS_write, pipe.1, addr, 8)?;
    let mut bytes = [0u8; 8];
    read(pipe.0, &mut bytes)?;
    Ok(usize::from_ne_bytes(bytes))
}

fn memory(rng: &mut Rng, log: &mut Log, steps: usize) {
    const PAGES: usize = 64;
    // Far from where the allocator's memory comes to lie, so that holes stay holes.
    let base = 0x10_0000_0000usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let Ok(area) = Map::new(base, PAGES * PAGE, 0, flags, -1, 0) else { return };
    area.leak();
    let Ok(pipe) = fs::pipe(libc::O_NONBLOCK) else { return };
    let Ok(file) = fs::open(c"mapped", libc::O_CREAT | libc::O_RDWR) else { return };
    for page in 0..16u8 {
        let _ = fs::write_all(file, &[page.wrapping_mul(17); PAGE]);
    }
    for _ in 0..steps {
        let page = rng.below(PAGES);
        let n = (1 + rng.below(12)).min(PAGES - page);
        let (addr, len) = (base + page * PAGE, n * PAGE);
        let prot = rng.pick(&[0, 1, 3, 3, 3]);
        match rng.below(12) {
            0..3 => {
                let shared = if rng.one_in(3) { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                let result = sys!(
                    SYS_mmap,
                    addr,
                    len,
                    prot,
                    shared | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0
                );
                log.result("mmap", result.map(|at| at - base));
            }
            3 => {
                let shared = if rng.one_in(2) { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                let from = rng.below(8);
                let len = len.min((16 - from) * PAGE);
                let result =
                    sys!(SYS_mmap, addr, len, prot, shared | libc::MAP_FIXED, file, from * PAGE);
                log.result("mmap file", result.map(|at| at - base));
            }
            4 => log.result("munmap", sys!(SYS_munmap, addr, len)),
            5 => log.result("mprotect", sys!(SYS_mprotect, addr, len, prot)),
            6 => {
                let to = rng.below(PAGES);
                let new = n + 1 + rng.below(4);
                // Only growth: what else is done to several mappings at once changed with Linux 6.17.
                if to + new > PAGES {
                    continue;
                }
                let result = sys!(SYS_mremap, addr, len, new * PAGE, 3, base + to * PAGE);
                log.result(&format!("mremap to {to}+{new}"), result.map(|at| at - base));
            }
            7 => {
                let result = sys!(SYS_mremap, addr, len, (1 + rng.below(n)) * PAGE, 0);
                log.result("mremap shrink", result.map(|at| at - base));
            }
            8 => log.result("madvise", sys!(SYS_madvise, addr, len, rng.pick(&[0, 4, 4, 1, 3]))),
            9 => {
                // Into memory by a call: EFAULT where it is not writable.
                let value = rng.bits().to_ne_bytes();
                let _ = write(pipe.1, &value);
                log.result("poke", sys!(SYS_read, pipe.0, addr + rng.below(500) * 8, 8));
                let mut rest = [0u8; 8];
                let _ = read(pipe.0, &mut rest);
            }
            10 => {
                let status = guest_tests::proc::child(|| {
                    let mut sum = Digest::default();
                    for page in 0..PAGES {
                        sum.number(peek(pipe, base + page * PAGE).unwrap_or(1) as u64);
                        let _ = sys!(SYS_read, pipe.0, base + page * PAGE, 0);
                    }
                    (sum.value() & 0x7f) as i32
                })
                .and_then(guest_tests::proc::wait);
                log.bytes(format!("{status:?}").as_bytes());
            }
            _ => log.result("msync", sys!(SYS_msync, addr, len, libc::MS_SYNC)),
        }
        if log.is_verbose() {
            let _ = write!(log.recent, " page {page}+{n}:");
        }
        for page in 0..PAGES {
            let seen = peek(pipe, base + page * PAGE);
            if log.is_verbose() {
                let _ = write!(log.recent, " {:x}", seen.map_or(0xfff, |value| value & 0xff));
            }
            match seen {
                Ok(value) => log.digest.number(value as u64),
                Err(errno) => log.digest.number(errno as u64 + 1),
            }
        }
        log.step();
    }
}

/// Handlers note here what arrived.
static ARRIVED: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

extern "C" fn note(signo: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let mut mask = 0u64;
    let _ = sys!(SYS_rt_sigprocmask, 0, 0, &mut mask, 8);
    // SAFETY: SA_SIGINFO: the kernel passed it.
    let code = unsafe { (*info).si_code };
    // One thread, and no handler interrupts this line: all signals wait meanwhile.
    let old = sig::mask(libc::SIG_SETMASK, u64::MAX).unwrap_or(0);
    if let Ok(mut arrived) = ARRIVED.try_lock() {
        let _ = write!(arrived, "({signo} {code} {mask:x})");
    }
    let _ = sig::mask(libc::SIG_SETMASK, old);
}

fn signals(rng: &mut Rng, log: &mut Log, steps: usize) {
    let numbers = [1, 2, 10, 12, 15, 17, 18, 28, 34, 40, 41, 64];
    let pid = guest_tests::proc::pid();
    for signo in numbers {
        let _ = sig::handle(signo, note, 0);
    }
    for _ in 0..steps {
        let signo = rng.pick(&numbers);
        let random_mask = rng.bits() & rng.bits();
        let arrivals =
            || ARRIVED.lock().map(|mut arrived| core::mem::take(&mut *arrived)).unwrap_or_default();
        match rng.below(9) {
            0 | 1 => log.result("kill", sys!(SYS_kill, pid, signo)),
            2 => log.result("tgkill", sys!(SYS_tgkill, pid, guest_tests::proc::tid(), signo)),
            3 => {
                let mut info = [0u32; 32];
                info[2] = -1i32 as u32;
                info[6] = rng.bits() as u32;
                log.result("queue", sys!(SYS_rt_sigqueueinfo, pid, signo, &info));
            }
            4 | 5 => {
                let how = rng.below(4) as i32;
                let result = sys!(SYS_rt_sigprocmask, how, &random_mask, 0, 8);
                log.result("mask", result);
            }
            6 => {
                let flags = rng.pick(&[
                    0,
                    libc::SA_NODEFER,
                    libc::SA_RESTART,
                    libc::SA_NODEFER | libc::SA_RESTART,
                ]);
                let result = if rng.one_in(5) {
                    sig::plain(signo, 1)
                } else {
                    sig::handle_masked(signo, note, flags, random_mask)
                };
                log.result("action", result.map(|old| (old.mask & 0xffff) as usize));
            }
            7 => log.result("pending", sig::pending().map(|set| set as usize)),
            _ => {
                let time = [0u64, 0];
                let mut info = [0u32; 32];
                let result = sys!(SYS_rt_sigtimedwait, &random_mask, &mut info, &time, 8);
                log.result("timedwait", result);
                if result.is_ok() {
                    log.result("code", Ok(info[2] as usize));
                }
            }
        }
        let text = arrivals();
        if !text.is_empty() {
            log.result(&text, Ok(0));
        }
        log.step();
    }
}

fn pipes(rng: &mut Rng, log: &mut Log, steps: usize) {
    let _ = sig::plain(libc::SIGPIPE, 1);
    let mut ends: Vec<i32> = Vec::new();
    let mut events: Vec<i32> = Vec::new();
    for _ in 0..steps {
        if ends.len() < 4 || rng.one_in(40) {
            if let Ok((reader, writer)) = fs::pipe(libc::O_NONBLOCK) {
                ends.extend([reader, writer]);
            }
            if rng.one_in(3)
                && let Ok(fd) = sys!(SYS_eventfd2, 1, libc::O_NONBLOCK)
            {
                ends.push(fd as i32);
                events.push(fd as i32);
            }
        }
        let fd = rng.pick(&ends);
        let mut buf = vec![
            rng.bits() as u8;
            rng.pick(&[1, 100, 2000, 4095, 4096, 4097, 8192, 10_000, 40_960])
        ];
        if events.contains(&fd) {
            buf.truncate(8);
        }
        match rng.below(10) {
            0..3 => log.result("write", write(fd, &buf)),
            3..5 => {
                let result = read(fd, &mut buf);
                log.result("read", result);
                log.bytes(&buf[..result.unwrap_or(0)]);
            }
            5 => {
                let mut polls: Vec<libc::pollfd> = ends
                    .iter()
                    .map(|fd| libc::pollfd {
                        fd: *fd,
                        events: libc::POLLIN | libc::POLLOUT,
                        revents: 0,
                    })
                    .collect();
                log.result("poll", sys!(SYS_poll, &mut polls[..], polls.len(), 0));
                let ready: Vec<u8> = polls.iter().map(|poll| poll.revents as u8).collect();
                log.bytes(&ready);
            }
            6 => {
                let mut pending = 0i32;
                let result = sys!(SYS_ioctl, fd, libc::FIONREAD, &mut pending);
                log.result("pending", result.map(|_| pending as usize));
            }
            7 => log.result(
                "size",
                sys!(SYS_fcntl, fd, libc::F_SETPIPE_SZ, rng.pick(&[4096, 8192, 65536, 20_000])),
            ),
            8 => {
                let to = rng.pick(&ends);
                let len = rng.pick(&[1, 1000, 4096, 8192, 100_000]);
                if rng.one_in(3) {
                    log.result("tee", sys!(SYS_tee, fd, to, len, 2));
                } else {
                    log.result("splice", sys!(SYS_splice, fd, 0, to, 0, len, 2));
                }
            }
            _ if ends.len() > 8 || rng.one_in(12) => {
                let at = rng.below(ends.len());
                let fd = ends.remove(at);
                events.retain(|event| *event != fd);
                log.result("close", close(fd).map(|()| 0));
            }
            _ => {}
        }
        if ends.len() > 20 {
            events.clear();
            for fd in ends.drain(..) {
                let _ = close(fd);
            }
        }
        log.step();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let subject = arguments.get(1).map_or("", String::as_str);
    let (seed, steps) = (number(2), number(3) as usize);
    let dir = format!("/tmp/model-{subject}-{seed}-{}", std::process::id());
    // Symbolic links to `..` lead upwards, and what others have in /tmp must not be seen.
    let deep = format!("{dir}{}", "/in".repeat(8));
    let _ = std::fs::create_dir_all(&deep);
    let _ = std::env::set_current_dir(&deep);
    let mut rng = Rng::new(seed);
    let mut log = Log::new(number(4) > 0);
    match subject {
        "files" => files(&mut rng, &mut log, steps),
        "memory" => memory(&mut rng, &mut log, steps),
        "signals" => signals(&mut rng, &mut log, steps),
        "pipes" => pipes(&mut rng, &mut log, steps),
        _ => {
            let _ =
                fs::write_all(2, b"usage: fuzz_model files|memory|signals|pipes SEED STEPS [1]\n");
            exit(2);
        }
    }
    let _ = std::env::set_current_dir("/");
    let _ = std::fs::remove_dir_all(&dir);
    log.end();
    exit(0);
}
