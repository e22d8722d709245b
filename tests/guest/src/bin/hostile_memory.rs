//! Attacks on the memory above the guest's addresses: reading, writing, remapping it, by instructions and by calls.

use guest_tests::hostile::{
    LIMIT, TOP, catch_faults, child_of_libc, finish, pages_above, read, reap, sample, write,
};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, pid};
use guest_tests::quick;
use guest_tests::rng::Rng;
use guest_tests::{Outcome, check, eq, fails, ok, runner, sys};

/// Addresses that no guest call may name.
fn targets() -> Vec<usize> {
    let mut targets = vec![
        LIMIT,
        0x7e80_0000_0000,
        0x7e84_0000_0000,
        0x7e90_0000_0000,
        0x7ea0_0000_0000,
        TOP - PAGE,
    ];
    if catch_faults().is_ok() {
        targets.extend(pages_above().into_iter().take(64));
    }
    targets
}

fn calls_cannot_change_mappings() -> Outcome {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for at in targets() {
        check!(
            sys!(SYS_mmap, at, PAGE, 3, flags | libc::MAP_FIXED, -1, 0).is_err(),
            "mmap at {at:x}"
        );
        check!(
            sys!(SYS_mmap, at, PAGE, 3, flags | libc::MAP_FIXED_NOREPLACE, -1, 0).is_err(),
            "mmap at {at:x}"
        );
        if let Ok(elsewhere) = sys!(SYS_mmap, at, PAGE, 3, flags, -1, 0) {
            check!(elsewhere < LIMIT, "a hint was taken: {elsewhere:x}");
            ok!(sys!(SYS_munmap, elsewhere, PAGE));
        }
        let before = read(at).is_some();
        let _ = sys!(SYS_munmap, at, PAGE);
        check!(read(at).is_some() == before, "munmap at {at:x}");
        check!(sys!(SYS_mprotect, at, PAGE, 7).is_err(), "mprotect at {at:x}");
        check!(sys!(SYS_mremap, at, PAGE, 2 * PAGE, 1, 0).is_err(), "mremap at {at:x}");
        check!(sys!(SYS_mremap, at, 0, PAGE, 1, 0).is_err(), "mremap at {at:x}");
        check!(sys!(SYS_madvise, at, PAGE, libc::MADV_DONTNEED).is_err(), "madvise at {at:x}");
        check!(sys!(SYS_mlock, at, PAGE).is_err(), "mlock at {at:x}");
        let mut vec = [0u8; 1];
        check!(sys!(SYS_mincore, at, PAGE, &mut vec).is_err(), "mincore at {at:x}");
        let mine = ok!(Map::anonymous(PAGE, libc::MAP_PRIVATE));
        check!(sys!(SYS_mremap, mine.addr, PAGE, PAGE, 3, at).is_err(), "mremap to {at:x}");
    }
    // Ranges that begin below and end above.
    check!(sys!(SYS_mmap, LIMIT - PAGE, 2 * PAGE, 3, flags | libc::MAP_FIXED, -1, 0).is_err());
    check!(sys!(SYS_mprotect, LIMIT - PAGE, 1usize << 40, 7).is_err());
    let _ = sys!(SYS_munmap, LIMIT - PAGE, 1usize << 40);
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn calls_cannot_read_or_write_there() -> Outcome {
    let (reader, writer) = ok!(guest_tests::fs::pipe(libc::O_NONBLOCK));
    for at in targets() {
        check!(sys!(SYS_write, writer, at, 64) == Err(libc::EFAULT), "write from {at:x}");
        ok!(sys!(SYS_write, writer, b"secret".as_ptr(), 6));
        check!(sys!(SYS_read, reader, at, 6) == Err(libc::EFAULT), "read to {at:x}");
        let mut six = [0u8; 6];
        let _ = sys!(SYS_read, reader, &mut six, 6);
        check!(sys!(SYS_getcwd, at, 100) == Err(libc::EFAULT), "getcwd to {at:x}");
        check!(sys!(SYS_open, at, 0) == Err(libc::EFAULT), "open of {at:x}");
        check!(sys!(SYS_futex, at, 0, 0, 0, 0, 0).is_err(), "futex at {at:x}");
        let mut copy = [0u8; 64];
        let local = libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: 64 };
        let remote = libc::iovec { iov_base: at as *mut _, iov_len: 64 };
        check!(
            sys!(SYS_process_vm_readv, pid(), &local, 1, &remote, 1, 0).is_err(),
            "process_vm_readv of {at:x}"
        );
        check!(
            sys!(SYS_process_vm_writev, pid(), &local, 1, &remote, 1, 0).is_err(),
            "process_vm_writev of {at:x}"
        );
        check!(sys!(SYS_set_robust_list, at, 24).is_ok());
        ok!(sys!(SYS_set_robust_list, 0, 24));
        check!(sys!(SYS_rt_sigprocmask, 0, at, 0, 8) == Err(libc::EFAULT), "mask from {at:x}");
    }
    Ok(())
}

fn process_files_show_nothing() -> Outcome {
    use std::os::unix::fs::FileExt;
    let maps = ok!(std::fs::read_to_string("/proc/self/maps"));
    for line in maps.lines() {
        let start = line.split('-').next().unwrap_or_default();
        let start = usize::from_str_radix(start, 16).unwrap_or_default();
        check!(start < LIMIT || line.ends_with("[vsyscall]"), "{line}");
    }
    let mem = ok!(std::fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem"));
    let mut word = [0u8; 8];
    for at in targets() {
        check!(mem.read_at(&mut word, at as u64).is_err(), "/proc/self/mem at {at:x}");
        check!(mem.write_at(&word, at as u64).is_err(), "/proc/self/mem at {at:x}");
    }
    Ok(())
}

fn exit_time_writes_stay_away() -> Outcome {
    // What the kernel writes when a thread ends, aimed above.
    for at in targets() {
        let pid = ok!(child(|| {
            let _ = sys!(SYS_set_tid_address, at);
            let _ = sys!(SYS_set_robust_list, at, 24);
            0
        }));
        eq!(ok!(finish(pid)), Some(End::Code(0)));
    }
    Ok(())
}

fn stacks_and_segments_above() -> Outcome {
    for at in targets() {
        let pid = ok!(child(|| {
            let stack = libc::stack_t { ss_sp: at as *mut _, ss_flags: 0, ss_size: 1 << 16 };
            let _ = sys!(SYS_sigaltstack, &stack, 0);
            let _ =
                guest_tests::sig::handle(libc::SIGUSR1, guest_tests::sig::record, libc::SA_ONSTACK);
            let _ = sys!(SYS_arch_prctl, 0x1001, at);
            for _ in 0..20 {
                let _ = sys!(SYS_getppid);
            }
            let _ = guest_tests::sig::raise(libc::SIGUSR1);
            0
        }));
        ok!(reap(pid));
    }
    Ok(())
}

fn scribbling_over_every_page() -> Outcome {
    ok!(catch_faults());
    let patterns = [0u64, u64::MAX, 0xcccc_cccc_cccc_cccc];
    for (page, pattern) in sample(&pages_above()).into_iter().zip(patterns.into_iter().cycle()) {
        let pid = ok!(child(|| {
            for word in (page..page + PAGE).step_by(8) {
                if !write(word, pattern) {
                    break;
                }
            }
            for _ in 0..10 {
                let _ = sys!(SYS_getppid);
                let _ = sys!(SYS_getpid);
            }
            0
        }));
        ok!(reap(pid).map_err(|why| format!("page {page:x}: {why}")));
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn forged_content_while_others_call() -> Outcome {
    ok!(catch_faults());
    let pages: Vec<usize> =
        pages_above().into_iter().filter(|page| read(*page).is_some()).collect();
    for seed in 1..=60u64 {
        let pages = pages.clone();
        let pid = ok!(child_of_libc(|| {
            let mut random = Rng::new(seed);
            let caller = std::thread::spawn(|| {
                for _ in 0..300 {
                    let _ = sys!(SYS_getppid);
                    let mut byte = [0u8; 8];
                    let _ = sys!(SYS_getrandom, &mut byte, 8, 0);
                    let _ = sys!(SYS_mmap, 0, PAGE, 3, 0x22, -1, 0);
                }
            });
            for _ in 0..3000 {
                if pages.is_empty() {
                    break;
                }
                let page = pages[random.bits() as usize % pages.len()];
                let word = page + (random.bits() as usize % (PAGE / 8)) * 8;
                let value = match random.bits() % 4 {
                    0 => random.bits(),
                    1 => random.bits() % 64,
                    2 => 0x7e90_0000_0000 + random.bits() % 65536,
                    _ => read(word).unwrap_or_default() ^ (1 << (random.bits() % 64)),
                };
                write(word, value);
            }
            let _ = caller.join();
            0
        }));
        ok!(reap(pid));
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

/// Where a process has what concerns its streams: which descriptors are theirs, then the streams of its own, then
/// those that it has together with others.
const STREAMS: usize = 0x7e90_0000_0000 + 8192 * 0xa000 + PAGE;
const STREAM_LEN: usize = 6 * PAGE;

/// Checks that this process, which has a stream that is lent to it, has it there.
fn streams_are_there() -> Outcome {
    check!(read(STREAMS) != Some(0), "the streams are not where they are to be changed");
    Ok(())
}

/// Changes a word of a page, mostly one of the first.
fn forge(random: &mut Rng, pages: &[usize]) {
    if pages.is_empty() {
        return;
    }
    let page = random.pick(pages);
    let in_page = if random.one_in(4) { random.below(PAGE / 8) } else { random.below(8) };
    let word = page + in_page * 8;
    let value = match random.below(5) {
        0 => random.bits(),
        1 => random.extreme(),
        2 => 1,
        3 => read(word).unwrap_or_default().wrapping_add(random.bits() % 5000),
        _ => read(word).unwrap_or_default() ^ 1 << random.below(64),
    };
    write(word, value);
}

/// Returns the first pages of what a process has for its streams.
fn stream_pages() -> Vec<usize> {
    (0..10).map(|i| STREAMS + i * PAGE).take_while(|page| read(*page).is_some()).collect()
}

fn forged_streams() -> Outcome {
    // A pipe, or a socket, in lively use, whose process changes whatever lies behind the memory of its threads: it may
    // break its own streams, but neither stays the sandbox nor those who share the stream with it.
    ok!(catch_faults());
    let pages = stream_pages();
    for seed in 1..=24u64 {
        let (reader, writer) = if seed % 3 == 0 {
            ok!(guest_tests::net::stream_pair(libc::SOCK_NONBLOCK))
        } else {
            ok!(guest_tests::fs::pipe(libc::O_NONBLOCK))
        };
        guest_tests::stream::enliven(reader, writer)?;
        streams_are_there()?;
        let pages = pages.clone();
        let pid = ok!(child(|| {
            let mut random = Rng::new(seed);
            for _ in 0..2000 {
                let mut buf = [0u8; 100];
                let len = 1 + random.below(100);
                let _ = sys!(SYS_write, writer, &buf, len);
                let _ = sys!(SYS_read, reader, &mut buf, random.below(100));
                if random.one_in(8) {
                    forge(&mut random, &pages);
                }
            }
            0
        }));
        ok!(reap(pid));
        let mut buf = vec![0u8; 1 << 16];
        while guest_tests::fs::read(reader, &mut buf).is_ok() {}
        eq!(ok!(guest_tests::fs::write(writer, b"still")), 5);
        eq!(ok!(guest_tests::fs::read(reader, &mut buf)), 5);
        check!(buf.starts_with(b"still"));
        ok!(guest_tests::fs::close(reader));
        ok!(guest_tests::fs::close(writer));
    }
    Ok(())
}

fn forged_files() -> Outcome {
    // A file that is read again and again, whose process changes what says where: it may misplace the offset, but
    // nothing else.
    ok!(catch_faults());
    let files = STREAMS + 2 * PAGE + 64 * STREAM_LEN;
    let content: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
    ok!(guest_tests::fs::put(c"forged", &content));
    let pages: Vec<usize> =
        [STREAMS, files].into_iter().filter(|page| read(*page).is_some()).collect();
    for seed in 1..=16u64 {
        let fd = ok!(guest_tests::fs::open(c"forged", libc::O_RDWR));
        let pages = pages.clone();
        let pid = ok!(child(|| {
            let mut random = Rng::new(seed);
            for i in 0..3000 {
                let mut buf = [0u8; 100];
                let len = 1 + random.below(100);
                let addr = buf.as_mut_ptr().expose_provenance();
                let _ = quick::read([fd as usize, addr, len, 0]);
                let _ = quick::pread([fd as usize, addr, len, random.below(40_000)]);
                let _ = quick::seek([fd as usize, random.below(40_000), 0, 0]);
                if i > 100 && random.one_in(8) {
                    forge(&mut random, &pages);
                }
                if random.one_in(300) {
                    let _ = sys!(SYS_lseek, fd, 0, libc::SEEK_END);
                }
            }
            0
        }));
        ok!(reap(pid));
        let mut buf = [0u8; 100];
        eq!(ok!(sys!(SYS_lseek, fd, 100, 0)), 100);
        eq!(ok!(guest_tests::fs::read(fd, &mut buf)), 100);
        eq!(buf[..], content[100..200]);
        eq!(ok!(guest_tests::fs::fstat(fd)).st_size, 40_000);
        ok!(guest_tests::fs::close(fd));
    }
    Ok(())
}

fn forged_windows() -> Outcome {
    // The same with a file that is written over again and again, beside which lies another one: it may write anything to the
    // first one, as far as that goes.
    ok!(catch_faults());
    let files = STREAMS + PAGE + 64 * STREAM_LEN;
    let windows = 0x7eb0_0000_0000_usize;
    for name in [c"forged", c"beside"] {
        ok!(guest_tests::fs::put(name, &[7; 40_000]));
    }
    for seed in 1..=16u64 {
        let fd = ok!(guest_tests::fs::open(c"forged", libc::O_RDWR));
        let pid = ok!(child(|| {
            let mut random = Rng::new(seed);
            let beside = guest_tests::fs::open(c"beside", libc::O_RDONLY).unwrap_or(-1);
            for i in 0..3000usize {
                let mut buf = [0u8; 100];
                let len = 1 + random.below(100);
                let at = random.below(39_900);
                let addr = buf.as_mut_ptr().expose_provenance();
                let _ = quick::pwrite([fd as usize, addr, len, at]);
                let _ = quick::pread([fd as usize, addr, len, at]);
                let _ = quick::pread([beside as usize, addr, len, at]);
                if i == 100 && read(files).is_some() {
                    // Where it has one, the window is what it writes to.
                    write(windows + random.below(5000) * 8, random.bits());
                }
                if i > 100 && random.one_in(8) {
                    forge(&mut random, &[STREAMS, files]);
                    write(windows + random.below(1 << 20) * 8, random.bits());
                }
                if random.one_in(300) {
                    let _ = sys!(SYS_ftruncate, fd, 40_000);
                }
            }
            0
        }));
        ok!(reap(pid));
        let stat = ok!(guest_tests::fs::fstat(fd));
        eq!(stat.st_size, 40_000);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        check!(stat.st_mtime as u64 <= now.unwrap_or_default().as_secs(), "written in the future");
        let mut byte = [0u8];
        eq!(ok!(sys!(SYS_pwrite64, fd, b"x", 1, 9)), 1);
        eq!(ok!(sys!(SYS_pread64, fd, &mut byte, 1, 9)), 1);
        eq!(byte, *b"x");
        ok!(guest_tests::fs::close(fd));
        let all = ok!(std::fs::read("beside").map_err(|error| error.raw_os_error().unwrap_or(0)));
        check!(all == [7; 40_000], "another file has changed");
    }
    Ok(())
}

fn forged_streams_of_two() -> Outcome {
    // The same with a process at the other end, which only gets something else, or less.
    for seed in 1..=10u64 {
        forge_what_two_have(ok!(guest_tests::fs::pipe(0)), ok!(guest_tests::fs::pipe(0)), seed)?;
    }
    Ok(())
}

fn forged_sockets_of_two() -> Outcome {
    for seed in 1..=10u64 {
        let (one, other) = ok!(guest_tests::net::stream_pair(0));
        let again = |fd: i32| sys!(SYS_dup, fd).map(|fd| fd as i32);
        forge_what_two_have((other, one), (ok!(again(one)), ok!(again(other))), seed)?;
    }
    Ok(())
}

fn forge_what_two_have(
    (there_reader, there_writer): (i32, i32),
    (back_reader, back_writer): (i32, i32),
    seed: u64,
) -> Outcome {
    ok!(catch_faults());
    ok!(guest_tests::sig::plain(libc::SIGPIPE, libc::SIG_IGN));
    let linked = STREAMS + 2 * PAGE + 16 * STREAM_LEN;
    let pid = ok!(child(|| {
        let _ = guest_tests::fs::close(there_writer);
        let _ = guest_tests::fs::close(back_reader);
        let mut random = Rng::new(seed);
        let pages: Vec<usize> =
            [0, 1, 2, 6, 7, 8].iter().map(|i| linked + i * PAGE).chain([STREAMS]).collect();
        let pages = if read(linked).is_some() { pages } else { Vec::new() };
        for i in 0..4000 {
            let mut message = [0u8; 64];
            let n = match sys!(SYS_read, there_reader, &mut message, 64) {
                Ok(n) if n > 0 => n,
                _ => break,
            };
            if sys!(SYS_write, back_writer, &message, n) != Ok(n) {
                break;
            }
            if i > 700 && random.one_in(50) {
                forge(&mut random, &pages);
            }
        }
        0
    }));
    ok!(guest_tests::fs::close(there_reader));
    ok!(guest_tests::fs::close(back_writer));
    let mut message = [7u8; 8];
    for i in 0..4000 {
        if sys!(SYS_write, there_writer, &message, 8).is_err() {
            break;
        }
        let mut polled = libc::pollfd { fd: back_reader, events: libc::POLLIN, revents: 0 };
        // What has been lost does not come back.
        if i % 64 == 0 && sys!(SYS_poll, &mut polled, 1, 200) != Ok(1) {
            break;
        }
        if i % 64 == 0 || i < 600 {
            let _ = sys!(SYS_read, back_reader, &mut message, 8);
        }
    }
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    ok!(reap(pid));
    let mut buf = [0u8; 4096];
    while guest_tests::fs::read(back_reader, &mut buf).is_ok_and(|n| n > 0) {}
    fails!(guest_tests::fs::write(there_writer, b"x"), EPIPE);
    ok!(guest_tests::fs::close(there_writer));
    ok!(guest_tests::fs::close(back_reader));
    Ok(())
}

fn forged_counters() -> Outcome {
    // An event counter that a process changes at will is only that of those who share it.
    ok!(catch_faults());
    let counter = |flags: i32| sys!(SYS_eventfd2, 0, flags).map(|fd| fd as i32);
    let own = ok!(counter(libc::EFD_NONBLOCK));
    let linked = STREAMS + 2 * PAGE + 16 * STREAM_LEN;
    for seed in 1..=16u64 {
        let flags = if seed % 2 == 0 { libc::EFD_SEMAPHORE } else { 0 };
        let shared = ok!(counter(libc::EFD_NONBLOCK | flags));
        let mut number = 1u64.to_ne_bytes();
        for _ in 0..300 {
            eq!(ok!(sys!(SYS_write, shared, &number, 8)), 8);
            eq!(ok!(sys!(SYS_read, shared, &mut number, 8)), 8);
            eq!(u64::from_ne_bytes(number), 1);
        }
        streams_are_there()?;
        let mut pages = stream_pages();
        if !pages.is_empty() {
            pages.extend([linked, linked + PAGE]);
        }
        let pid = ok!(child(|| {
            let mut random = Rng::new(seed);
            for i in 0..3000u64 {
                let _ = sys!(SYS_write, shared, &(1 + i % 3), 8);
                let mut number = 0u64;
                let _ = sys!(SYS_read, shared, &mut number, 8);
                // Now and then the sentry takes it back.
                if random.one_in(100) {
                    let mut polled = libc::pollfd { fd: shared, events: libc::POLLIN, revents: 0 };
                    let _ = sys!(SYS_poll, &mut polled, 1, 0);
                }
                if random.one_in(8) {
                    forge(&mut random, &pages);
                }
            }
            0
        }));
        for i in 1..=1500u64 {
            let _ = sys!(SYS_write, shared, &1u64, 8);
            let _ = sys!(SYS_read, shared, &mut number, 8);
            eq!(ok!(sys!(SYS_write, own, &i, 8)), 8);
            eq!(ok!(sys!(SYS_read, own, &mut number, 8)), 8);
            eq!(u64::from_ne_bytes(number), i);
        }
        ok!(reap(pid));
        ok!(guest_tests::fs::close(shared));
    }
    Ok(())
}

fn changed_segment_base() -> Outcome {
    // wrgsbase is an ordinary instruction: nothing may trust what it finds there.
    for base in [
        0usize,
        0x1000,
        LIMIT,
        0x7e80_0000_0000,
        0x7e90_0000_0000,
        0x7e90_0000_a000,
        TOP - PAGE,
        0xffff_8000_0000_0000,
    ] {
        let pid = ok!(child(|| {
            // SAFETY: nothing here uses GS.
            unsafe { core::arch::asm!("wrgsbase {}", in(reg) base) };
            for _ in 0..50 {
                if sys!(SYS_getppid).is_err() || sys!(SYS_getpid) != Ok(pid() as usize) {
                    return 1;
                }
            }
            let seen: usize;
            // SAFETY: as above.
            unsafe { core::arch::asm!("rdgsbase {}", out(reg) seen) };
            i32::from(seen != base)
        }));
        // A base that is no address is refused by the processor itself.
        let end = ok!(finish(pid));
        check!(end == Some(End::Code(0)) || base > TOP, "base {base:x}: {end:?}");
    }
    Ok(())
}

fn code_that_changes_under_a_caller() -> Outcome {
    // The site of a call is rewritten again and again while another thread makes the call there.
    let pid = ok!(child(|| {
        let Ok(page) = Map::new(0, PAGE, 7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) else {
            return 1;
        };
        let code = [0xb8u8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3];
        page.bytes()[..8].copy_from_slice(&code);
        let at = page.addr;
        let caller = std::thread::spawn(move || {
            // SAFETY: the page holds a function of this type.
            let call = unsafe { core::mem::transmute::<usize, extern "C" fn() -> i32>(at) };
            for _ in 0..5000 {
                call();
            }
        });
        for i in 0..5000u32 {
            page.bytes()[1] = if i % 2 == 0 { 39 } else { 110 };
        }
        let _ = caller.join();
        0
    }));
    ok!(reap(pid));
    eq!(ok!(sys!(SYS_getpid)) as i32, self::pid());
    Ok(())
}

fn parent_memory_is_not_the_childs() -> Outcome {
    ok!(catch_faults());
    // What a child does to its pages above is not seen by its parent, whose calls go on while it does.
    let before = ok!(sys!(SYS_getppid));
    let pid = ok!(child(|| {
        for page in pages_above() {
            for word in (page..page + PAGE).step_by(64) {
                write(word, 0xdead_beef);
            }
        }
        runner::exit(0)
    }));
    for _ in 0..2000 {
        check!(sys!(SYS_getppid) == Ok(before));
    }
    ok!(reap(pid));
    Ok(())
}

guest_tests::cases!(
    calls_cannot_change_mappings,
    calls_cannot_read_or_write_there,
    process_files_show_nothing,
    exit_time_writes_stay_away,
    stacks_and_segments_above,
    scribbling_over_every_page,
    forged_content_while_others_call,
    forged_streams,
    forged_streams_of_two,
    forged_sockets_of_two,
    forged_counters,
    forged_files,
    forged_windows,
    changed_segment_base,
    code_that_changes_under_a_caller,
    parent_memory_is_not_the_childs,
);
