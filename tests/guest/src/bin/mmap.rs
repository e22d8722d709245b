//! Memory: `mmap(2)`, `munmap(2)`, `mprotect(2)`, `mremap(2)`, `madvise(2)`, `brk(2)`, `msync(2)`, `mincore(2)`, `mlock(2)`.

use core::sync::atomic::Ordering;

use guest_tests::fs::{get, open, put, read, text, write};
use guest_tests::mem::{Map, PAGE, peek, poke};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{
    MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED,
    MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY, PROT_EXEC,
    PROT_NONE, PROT_READ, PROT_WRITE,
};

const RW: i32 = PROT_READ | PROT_WRITE;

/// Runs something that must die of a signal.
fn dies_of(signal: i32, body: impl FnOnce()) -> Outcome {
    let pid = ok!(proc::child(|| {
        body();
        0
    }));
    eq!(ok!(proc::wait(pid)), proc::End::Signal(signal));
    Ok(())
}

fn anonymous_is_zero_and_keeps() -> Outcome {
    let map = ok!(Map::anonymous(10 * PAGE, MAP_PRIVATE));
    check!(map.bytes().iter().all(|byte| *byte == 0));
    map.bytes()[5 * PAGE] = 7;
    eq!(peek(map.addr + 5 * PAGE), 7);
    Ok(())
}

fn unmapped_memory_faults() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, MAP_PRIVATE));
    ok!(sys!(SYS_munmap, map.addr + PAGE, PAGE));
    poke(map.addr, 1);
    poke(map.addr + 2 * PAGE, 1);
    dies_of(libc::SIGSEGV, || poke(map.addr + PAGE, 1))
}

fn argument_errors() -> Outcome {
    fails!(sys!(SYS_mmap, 0, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    fails!(sys!(SYS_mmap, 0, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    fails!(sys!(SYS_mmap, 1, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
    fails!(sys!(SYS_mmap, 0, PAGE, RW, MAP_PRIVATE, 999, 0), EBADF);
    fails!(sys!(SYS_mmap, 0, usize::MAX - PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    fails!(sys!(SYS_munmap, 1, PAGE), EINVAL);
    fails!(sys!(SYS_munmap, PAGE, 0), EINVAL);
    ok!(put(c"f", b"x"));
    let fd = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 1), EINVAL);
    fails!(sys!(SYS_mmap, 0, PAGE, RW, MAP_SHARED, fd, 0), EACCES);
    let fd = ok!(open(c"f", O_WRONLY));
    fails!(sys!(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0), EACCES);
    let fd = ok!(open(c".", O_RDONLY));
    fails!(sys!(SYS_mmap, 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0), ENODEV);
    Ok(())
}

fn fixed_replaces() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, MAP_PRIVATE));
    map.bytes().fill(5);
    let again = ok!(sys!(
        SYS_mmap,
        map.addr + PAGE,
        PAGE,
        RW,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
        -1,
        0
    ));
    eq!(again, map.addr + PAGE);
    eq!((peek(map.addr), peek(map.addr + PAGE), peek(map.addr + 2 * PAGE)), (5, 0, 5));
    Ok(())
}

fn fixed_noreplace() -> Outcome {
    let map = ok!(Map::anonymous(2 * PAGE, MAP_PRIVATE));
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    fails!(sys!(SYS_mmap, map.addr, PAGE, RW, flags, -1, 0), EEXIST);
    ok!(sys!(SYS_munmap, map.addr, PAGE));
    eq!(ok!(sys!(SYS_mmap, map.addr, PAGE, RW, flags, -1, 0)), map.addr);
    Ok(())
}

fn hint_is_taken_when_free() -> Outcome {
    let map = ok!(Map::anonymous(16 * PAGE, MAP_PRIVATE));
    let hint = map.addr;
    ok!(sys!(SYS_munmap, map.addr, map.len));
    let again = ok!(Map::new(hint, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    eq!(again.addr, hint);
    let other = ok!(Map::new(hint, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    check!(other.addr != hint);
    Ok(())
}

fn low_and_high_addresses() -> Outcome {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let low = ok!(Map::new(0x10_0000, PAGE, RW, flags, -1, 0));
    low.bytes()[0] = 1;
    let high = ok!(Map::new(0x7000_0000_0000, PAGE, RW, flags, -1, 0));
    high.bytes()[0] = 1;
    fails!(sys!(SYS_mmap, 0x7fff_ffff_f000usize, PAGE, RW, flags, -1, 0), ENOMEM);
    fails!(sys!(SYS_mmap, 0xffff_8000_0000_0000usize, PAGE, RW, flags, -1, 0), ENOMEM);
    fails!(sys!(SYS_munmap, 0xffff_8000_0000_0000usize, PAGE), EINVAL);
    Ok(())
}

fn below_4g_on_request() -> Outcome {
    let map = ok!(Map::new(0, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_32BIT, -1, 0));
    check!(map.addr < 0x8000_0000);
    Ok(())
}

fn private_file_mapping() -> Outcome {
    ok!(put(c"f", b"file content"));
    let fd = ok!(open(c"f", O_RDONLY));
    let map = ok!(Map::new(0, PAGE, RW, MAP_PRIVATE, fd, 0));
    eq!(&map.bytes()[..12], b"file content");
    check!(map.bytes()[12..].iter().all(|byte| *byte == 0), "tail of the page");
    map.bytes()[0] = b'X';
    eq!(ok!(get(c"f")), b"file content");
    Ok(())
}

fn shared_file_mapping_writes_file() -> Outcome {
    ok!(put(c"f", &[b'.'; 8192]));
    let fd = ok!(open(c"f", O_RDWR));
    let map = ok!(Map::new(0, 8192, RW, MAP_SHARED, fd, 0));
    map.bytes()[5000] = b'M';
    ok!(sys!(SYS_msync, map.addr, 8192, libc::MS_SYNC));
    eq!(ok!(get(c"f"))[5000], b'M');
    ok!(sys!(SYS_pwrite64, fd, b"W".as_ptr(), 1, 6000));
    eq!(map.bytes()[6000], b'W');
    drop(map);
    eq!(ok!(get(c"f"))[5000], b'M');
    Ok(())
}

fn shared_file_mapping_between_processes() -> Outcome {
    ok!(put(c"f", &[0; 4096]));
    let fd = ok!(open(c"f", O_RDWR));
    let map = ok!(Map::new(0, PAGE, RW, MAP_SHARED, fd, 0));
    ok!(proc::in_child(|| {
        let fd = ok!(open(c"f", O_RDWR));
        let again = ok!(Map::new(0, PAGE, RW, MAP_SHARED, fd, 0));
        again.bytes()[9] = 9;
        map.bytes()[10] = 10;
        Ok(())
    }));
    eq!((map.bytes()[9], map.bytes()[10]), (9, 10));
    Ok(())
}

fn file_mapping_at_offset() -> Outcome {
    let mut data = vec![1u8; 4096];
    data.extend([2u8; 4096]);
    ok!(put(c"f", &data));
    let fd = ok!(open(c"f", O_RDONLY));
    let map = ok!(Map::new(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 4096));
    eq!(map.bytes()[0], 2);
    ok!(guest_tests::fs::close(fd));
    eq!(map.bytes()[4095], 2);
    Ok(())
}

fn beyond_end_of_file_is_sigbus() -> Outcome {
    ok!(put(c"f", b"short"));
    let fd = ok!(open(c"f", O_RDWR));
    let map = ok!(Map::new(0, 3 * PAGE, RW, MAP_SHARED, fd, 0));
    eq!(peek(map.addr + 100), 0);
    dies_of(libc::SIGBUS, || {
        peek(map.addr + PAGE);
    })
}

fn growing_file_becomes_visible() -> Outcome {
    ok!(put(c"f", b"x"));
    let fd = ok!(open(c"f", O_RDWR));
    let map = ok!(Map::new(0, 2 * PAGE, RW, MAP_SHARED, fd, 0));
    ok!(sys!(SYS_ftruncate, fd, 8192));
    map.bytes()[5000] = 3;
    let mut byte = [0u8];
    ok!(sys!(SYS_pread64, fd, &mut byte, 1, 5000));
    eq!(byte[0], 3);
    ok!(sys!(SYS_ftruncate, fd, 1));
    dies_of(libc::SIGBUS, || {
        peek(map.addr + 5000);
    })
}

fn shared_anonymous_between_processes() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, MAP_SHARED));
    ok!(proc::in_child(|| {
        map.word(0).store(42, Ordering::SeqCst);
        Ok(())
    }));
    eq!(map.word(0).load(Ordering::SeqCst), 42);
    Ok(())
}

fn fork_copies_private_memory() -> Outcome {
    let map = ok!(Map::anonymous(100 * PAGE, MAP_PRIVATE));
    map.bytes().fill(1);
    ok!(proc::in_child(|| {
        check!(map.bytes().iter().all(|byte| *byte == 1));
        map.bytes().fill(2);
        Ok(())
    }));
    check!(map.bytes().iter().all(|byte| *byte == 1));
    Ok(())
}

fn mprotect_enforces() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, MAP_PRIVATE));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, PROT_READ));
    eq!(peek(map.addr + PAGE), 0);
    ok!(dies_of(libc::SIGSEGV, || poke(map.addr + PAGE, 1)));
    ok!(sys!(SYS_mprotect, map.addr + PAGE, PAGE, PROT_NONE));
    ok!(dies_of(libc::SIGSEGV, || {
        peek(map.addr + PAGE);
    }));
    let mut byte = [0u8];
    ok!(put(c"f", b"x"));
    let fd = ok!(open(c"f", O_RDONLY));
    fails!(sys!(SYS_read, fd, map.addr + PAGE, 1), EFAULT);
    ok!(sys!(SYS_mprotect, map.addr, 3 * PAGE, RW));
    poke(map.addr + PAGE, 1);
    eq!(ok!(read(fd, &mut byte)), 1);
    Ok(())
}

fn mprotect_errors() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, MAP_PRIVATE));
    fails!(sys!(SYS_mprotect, map.addr + 1, PAGE, PROT_READ), EINVAL);
    fails!(sys!(SYS_mprotect, map.addr, PAGE, 0x100), EINVAL);
    ok!(sys!(SYS_mprotect, map.addr, 0, PROT_READ));
    ok!(sys!(SYS_munmap, map.addr + PAGE, PAGE));
    fails!(sys!(SYS_mprotect, map.addr, 3 * PAGE, PROT_READ), ENOMEM);
    ok!(dies_of(libc::SIGSEGV, || poke(map.addr, 1)));
    ok!(put(c"f", b"x"));
    let fd = ok!(open(c"f", O_RDONLY));
    let shared = ok!(Map::new(0, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    fails!(sys!(SYS_mprotect, shared.addr, PAGE, RW), EACCES);
    Ok(())
}

fn generated_code_runs() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, MAP_PRIVATE));
    // mov eax, 42; ret
    map.bytes()[..6].copy_from_slice(&[0xb8, 42, 0, 0, 0, 0xc3]);
    ok!(dies_of(libc::SIGSEGV, || {
        // SAFETY: the page is not executable: the call faults, in a child.
        unsafe { core::mem::transmute::<usize, extern "C" fn() -> i32>(map.addr)() };
    }));
    ok!(sys!(SYS_mprotect, map.addr, PAGE, PROT_READ | PROT_EXEC));
    // SAFETY: the page holds a function of this type.
    let call = unsafe { core::mem::transmute::<usize, extern "C" fn() -> i32>(map.addr) };
    eq!(call(), 42);
    ok!(sys!(SYS_mprotect, map.addr, PAGE, RW | PROT_EXEC));
    map.bytes()[1] = 43;
    eq!(call(), 43);
    Ok(())
}

fn system_call_in_generated_code() -> Outcome {
    let map = ok!(Map::new(0, PAGE, RW | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    // mov eax, 39; syscall; ret
    map.bytes()[..8].copy_from_slice(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    // SAFETY: the page holds a function of this type.
    let call = unsafe { core::mem::transmute::<usize, extern "C" fn() -> i32>(map.addr) };
    for _ in 0..50 {
        eq!(call(), proc::pid());
    }
    // The same place with another call: whatever was remembered of the site must be forgotten.
    map.bytes()[1] = 186;
    for _ in 0..50 {
        eq!(call(), proc::tid());
    }
    Ok(())
}

fn mremap_grows_and_shrinks() -> Outcome {
    let map = ok!(Map::anonymous(4 * PAGE, MAP_PRIVATE));
    map.bytes().fill(3);
    let addr = ok!(sys!(SYS_mremap, map.addr, 4 * PAGE, 100 * PAGE, MREMAP_MAYMOVE));
    eq!((peek(addr), peek(addr + 4 * PAGE - 1), peek(addr + 4 * PAGE)), (3, 3, 0));
    eq!(ok!(sys!(SYS_mremap, addr, 100 * PAGE, 2 * PAGE, 0)), addr);
    ok!(dies_of(libc::SIGSEGV, || {
        peek(addr + 2 * PAGE);
    }));
    ok!(sys!(SYS_munmap, addr, 2 * PAGE));
    map.leak();
    Ok(())
}

fn mremap_in_place_needs_room() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, MAP_PRIVATE));
    fails!(sys!(SYS_mremap, map.addr, PAGE, 2 * PAGE, 0), ENOMEM);
    ok!(sys!(SYS_munmap, map.addr + PAGE, 2 * PAGE));
    eq!(ok!(sys!(SYS_mremap, map.addr, PAGE, 3 * PAGE, 0)), map.addr);
    poke(map.addr + 2 * PAGE, 1);
    Ok(())
}

fn mremap_fixed() -> Outcome {
    let map = ok!(Map::anonymous(2 * PAGE, MAP_PRIVATE));
    map.bytes()[0] = 8;
    let target = ok!(Map::anonymous(4 * PAGE, MAP_PRIVATE));
    target.bytes().fill(1);
    let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    eq!(ok!(sys!(SYS_mremap, map.addr, 2 * PAGE, 2 * PAGE, flags, target.addr)), target.addr);
    eq!((peek(target.addr), peek(target.addr + 2 * PAGE)), (8, 1));
    ok!(dies_of(libc::SIGSEGV, || {
        peek(map.addr);
    }));
    fails!(sys!(SYS_mremap, target.addr, PAGE, PAGE, MREMAP_FIXED, map.addr), EINVAL);
    fails!(sys!(SYS_mremap, target.addr, 2 * PAGE, 2 * PAGE, flags, target.addr + PAGE), EINVAL);
    map.leak();
    Ok(())
}

fn mremap_dontunmap() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, MAP_PRIVATE));
    map.bytes()[0] = 8;
    let moved = ok!(sys!(SYS_mremap, map.addr, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
    check!(moved != map.addr);
    eq!((peek(moved), peek(map.addr)), (8, 0));
    Ok(())
}

fn mremap_errors() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, MAP_PRIVATE));
    fails!(sys!(SYS_mremap, map.addr + 1, PAGE, PAGE, 0), EINVAL);
    fails!(sys!(SYS_mremap, map.addr, PAGE, 0, 0), EINVAL);
    fails!(sys!(SYS_mremap, map.addr, PAGE, PAGE, 0x80), EINVAL);
    ok!(sys!(SYS_munmap, map.addr, PAGE));
    fails!(sys!(SYS_mremap, map.addr, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    Ok(())
}

fn mremap_duplicates_shared() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, MAP_SHARED));
    let twin = ok!(sys!(SYS_mremap, map.addr, 0, PAGE, MREMAP_MAYMOVE));
    map.bytes()[3] = 33;
    eq!(peek(twin + 3), 33);
    Ok(())
}

fn madvise_dontneed_zeroes() -> Outcome {
    let map = ok!(Map::anonymous(4 * PAGE, MAP_PRIVATE));
    map.bytes().fill(6);
    ok!(sys!(SYS_madvise, map.addr + PAGE, PAGE, libc::MADV_DONTNEED));
    eq!((peek(map.addr), peek(map.addr + PAGE), peek(map.addr + 2 * PAGE)), (6, 0, 6));
    for advice in [
        libc::MADV_NORMAL,
        libc::MADV_WILLNEED,
        libc::MADV_SEQUENTIAL,
        libc::MADV_FREE,
        libc::MADV_NOHUGEPAGE,
    ] {
        ok!(sys!(SYS_madvise, map.addr, 4 * PAGE, advice));
    }
    fails!(sys!(SYS_madvise, map.addr, PAGE, 999), EINVAL);
    fails!(sys!(SYS_madvise, map.addr + 1, PAGE, libc::MADV_DONTNEED), EINVAL);
    ok!(sys!(SYS_munmap, map.addr + PAGE, PAGE));
    fails!(sys!(SYS_madvise, map.addr, 3 * PAGE, libc::MADV_DONTNEED), ENOMEM);
    Ok(())
}

fn madvise_dontneed_of_file() -> Outcome {
    ok!(put(c"f", b"disk"));
    let fd = ok!(open(c"f", O_RDWR));
    let map = ok!(Map::new(0, PAGE, RW, MAP_PRIVATE, fd, 0));
    map.bytes()[0] = b'X';
    ok!(sys!(SYS_madvise, map.addr, PAGE, libc::MADV_DONTNEED));
    eq!(&map.bytes()[..4], b"disk");
    Ok(())
}

fn madvise_dontfork_and_wipeonfork() -> Outcome {
    let map = ok!(Map::anonymous(2 * PAGE, MAP_PRIVATE));
    map.bytes().fill(4);
    ok!(sys!(SYS_madvise, map.addr, PAGE, libc::MADV_WIPEONFORK));
    ok!(sys!(SYS_madvise, map.addr + PAGE, PAGE, libc::MADV_DONTFORK));
    ok!(proc::in_child(|| {
        eq!(peek(map.addr), 0);
        Ok(())
    }));
    eq!(peek(map.addr), 4);
    dies_of(libc::SIGSEGV, || {
        peek(map.addr + PAGE);
    })
}

fn brk_moves() -> Outcome {
    let start = ok!(sys!(SYS_brk, 0));
    let end = ok!(sys!(SYS_brk, start + 10 * PAGE));
    eq!(end, start + 10 * PAGE);
    poke(start + 9 * PAGE, 5);
    eq!(ok!(sys!(SYS_brk, start)), start);
    eq!(ok!(sys!(SYS_brk, start + 10 * PAGE)), end);
    eq!(peek(start + 9 * PAGE), 0);
    eq!(ok!(sys!(SYS_brk, 1)), end);
    eq!(ok!(sys!(SYS_brk, usize::MAX)), end);
    Ok(())
}

fn msync_and_mincore() -> Outcome {
    let map = ok!(Map::anonymous(3 * PAGE, MAP_PRIVATE));
    map.bytes()[0] = 1;
    let mut vec = [0xffu8; 3];
    ok!(sys!(SYS_mincore, map.addr, 3 * PAGE, &mut vec));
    eq!(vec[0] & 1, 1);
    fails!(sys!(SYS_mincore, map.addr + 1, PAGE, &mut vec), EINVAL);
    fails!(sys!(SYS_msync, map.addr, PAGE, libc::MS_SYNC | libc::MS_ASYNC), EINVAL);
    fails!(sys!(SYS_msync, map.addr + 1, PAGE, libc::MS_SYNC), EINVAL);
    ok!(sys!(SYS_msync, map.addr, PAGE, libc::MS_ASYNC));
    ok!(sys!(SYS_munmap, map.addr + PAGE, PAGE));
    fails!(sys!(SYS_msync, map.addr, 3 * PAGE, libc::MS_ASYNC), ENOMEM);
    fails!(sys!(SYS_mincore, map.addr, 3 * PAGE, &mut vec), ENOMEM);
    Ok(())
}

fn mlock_family() -> Outcome {
    let map = ok!(Map::anonymous(2 * PAGE, MAP_PRIVATE));
    ok!(sys!(SYS_mlock, map.addr, PAGE));
    ok!(sys!(SYS_mlock2, map.addr, PAGE, 1));
    fails!(sys!(SYS_mlock2, map.addr, PAGE, 8), EINVAL);
    ok!(sys!(SYS_munlock, map.addr, PAGE));
    ok!(sys!(SYS_munlockall));
    fails!(sys!(SYS_mlockall, 0), EINVAL);
    ok!(sys!(SYS_munmap, map.addr + PAGE, PAGE));
    fails!(sys!(SYS_mlock, map.addr, 2 * PAGE), ENOMEM);
    Ok(())
}

fn address_space_limit() -> Outcome {
    let limit = libc::rlimit { rlim_cur: 200 << 20, rlim_max: 200 << 20 };
    ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_AS, &limit, 0));
    fails!(sys!(SYS_mmap, 0, 300 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ok!(Map::anonymous(1 << 20, MAP_PRIVATE));
    Ok(())
}

fn huge_reservation() -> Outcome {
    let map =
        ok!(Map::new(0, 1 << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    ok!(sys!(SYS_mprotect, map.addr + (1 << 39), PAGE, RW));
    poke(map.addr + (1 << 39), 1);
    Ok(())
}

fn thousands_of_mappings() -> Outcome {
    let map = ok!(Map::anonymous(4000 * PAGE, MAP_PRIVATE));
    for i in (0..4000).step_by(2) {
        ok!(sys!(SYS_mprotect, map.addr + i * PAGE, PAGE, PROT_READ));
    }
    for i in (0..4000).step_by(4) {
        ok!(sys!(SYS_munmap, map.addr + i * PAGE, PAGE));
    }
    poke(map.addr + PAGE, 1);
    ok!(sys!(SYS_munmap, map.addr, map.len));
    map.leak();
    Ok(())
}

fn stack_grows() -> Outcome {
    #[inline(never)]
    fn deep(depth: u32) -> u32 {
        let big = [depth as u8; 4096];
        if depth == 0 {
            u32::from(std::hint::black_box(big)[17])
        } else {
            deep(depth - 1) + u32::from(std::hint::black_box(big)[5]) / 256
        }
    }
    // The case runs on the main thread's stack, of eight MiB.
    eq!(deep(1200), 0);
    Ok(())
}

fn grows_down_mapping() -> Outcome {
    let map = ok!(Map::anonymous(1 << 21, MAP_PRIVATE));
    ok!(sys!(SYS_munmap, map.addr, map.len));
    let at = map.addr + (1 << 20);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | libc::MAP_GROWSDOWN;
    let low = ok!(Map::new(at, PAGE, RW, flags, -1, 0));
    poke(low.addr, 1);
    poke(low.addr - PAGE, 2);
    eq!(peek(low.addr - PAGE), 2);
    Ok(())
}

fn maps_file_tells() -> Outcome {
    ok!(put(c"mapped-file", &[0; 8192]));
    let fd = ok!(open(c"mapped-file", O_RDONLY));
    let map = ok!(Map::new(0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 4096));
    let maps = ok!(text(c"/proc/self/maps"));
    let start = format!("{:08x}-{:08x} r-xp 00001000 ", map.addr, map.addr + PAGE);
    let Some(line) = maps.lines().find(|line| line.starts_with(&start)) else {
        return Err(format!("no line {start} in maps"));
    };
    check!(line.ends_with("/mapped-file"));
    check!(maps.lines().any(|line| line.ends_with("[stack]")));
    check!(maps.lines().any(|line| line.ends_with("[vdso]")));
    let starts: Vec<&str> = maps.lines().filter_map(|line| line.split('-').next()).collect();
    let mut sorted: Vec<usize> =
        starts.iter().map(|start| usize::from_str_radix(start, 16).unwrap_or_default()).collect();
    let before = sorted.clone();
    sorted.sort_unstable();
    // [vsyscall] is the highest line on Linux, and above all others here too if there is one.
    check!(sorted == before, "not sorted");
    Ok(())
}

fn addresses_are_random() -> Outcome {
    let exe = ok!(std::fs::read_link("/proc/self/exe"));
    let run = || {
        let output =
            std::process::Command::new(&exe).args(["--inline", "print_addresses"]).output();
        output.map(|output| output.stderr).unwrap_or_default()
    };
    let (a, b) = (run(), run());
    check!(!a.is_empty() && a != b);
    Ok(())
}

/// Helper of `addresses_are_random`: prints where this program's memory is. Silent otherwise.
fn print_addresses() -> Outcome {
    if std::env::args().any(|arg| arg == "--inline") {
        let map = ok!(Map::anonymous(PAGE, MAP_PRIVATE));
        let line = format!("{:x} {:x}\n", map.addr, core::ptr::from_ref(&map) as usize);
        ok!(write(2, line.as_bytes()));
    }
    Ok(())
}

fn memfd_mapping() -> Outcome {
    let fd = ok!(sys!(SYS_memfd_create, c"m", 0)) as i32;
    ok!(sys!(SYS_ftruncate, fd, 4096));
    let a = ok!(Map::new(0, PAGE, RW, MAP_SHARED, fd, 0));
    let b = ok!(Map::new(0, PAGE, RW, MAP_SHARED, fd, 0));
    a.bytes()[1] = 11;
    eq!(b.bytes()[1], 11);
    let mut byte = [0u8];
    ok!(sys!(SYS_pread64, fd, &mut byte, 1, 1));
    eq!(byte[0], 11);
    Ok(())
}

fn device_zero_mapping() -> Outcome {
    let fd = ok!(open(c"/dev/zero", O_RDWR));
    let map = ok!(Map::new(0, PAGE, RW, MAP_PRIVATE, fd, 0));
    map.bytes()[0] = 1;
    let fd = ok!(open(c"/dev/null", O_RDWR));
    fails!(sys!(SYS_mmap, 0, PAGE, RW, MAP_PRIVATE, fd, 0), ENODEV);
    Ok(())
}

fn partial_unmap_of_file() -> Outcome {
    let fd = ok!(open(c"f", O_CREAT | O_RDWR));
    ok!(write(fd, &(0..5u8).flat_map(|i| [i; 4096]).collect::<Vec<u8>>()));
    let map = ok!(Map::new(0, 5 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    ok!(sys!(SYS_munmap, map.addr + PAGE, 2 * PAGE));
    eq!((peek(map.addr), peek(map.addr + 3 * PAGE), peek(map.addr + 4 * PAGE)), (0, 3, 4));
    Ok(())
}

/// Each refused mapping makes the others of the process wait for it, and hurries those that keep
/// them waiting: many threads at once that hurry the same one must do it no harm.
fn making_much_present_can_be_ended() -> Outcome {
    let pid = ok!(proc::child(|| {
        let len = 1_usize << 40;
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | libc::MAP_POPULATE;
        let _ = sys!(SYS_mmap, 0, len, PROT_READ, flags, -1, 0);
        loop {
            proc::sleep(core::time::Duration::from_secs(1));
        }
    }));
    proc::sleep(core::time::Duration::from_millis(50));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    eq!(ok!(proc::wait(pid)), proc::End::Signal(libc::SIGKILL));
    Ok(())
}

fn many_threads_are_refused_at_once() -> Outcome {
    const N_THREADS: usize = 40;
    const N_ROUNDS: usize = 60;
    let work = || {
        for round in 0..N_ROUNDS {
            // More than any machine has; where it is granted all the same, it is given back.
            for len in [1usize << 40, (round % 7 + 1) * PAGE] {
                if let Ok(map) = Map::anonymous(len, MAP_PRIVATE) {
                    drop(map);
                }
            }
        }
    };
    let threads: Vec<_> = (0..N_THREADS).map(|_| std::thread::spawn(work)).collect();
    for thread in threads {
        check!(thread.join().is_ok());
    }
    Ok(())
}

guest_tests::cases!(
    making_much_present_can_be_ended,
    many_threads_are_refused_at_once,
    anonymous_is_zero_and_keeps,
    unmapped_memory_faults,
    argument_errors,
    fixed_replaces,
    fixed_noreplace,
    hint_is_taken_when_free,
    low_and_high_addresses,
    below_4g_on_request,
    private_file_mapping,
    shared_file_mapping_writes_file,
    shared_file_mapping_between_processes,
    file_mapping_at_offset,
    beyond_end_of_file_is_sigbus,
    growing_file_becomes_visible,
    shared_anonymous_between_processes,
    fork_copies_private_memory,
    mprotect_enforces,
    mprotect_errors,
    generated_code_runs,
    system_call_in_generated_code,
    mremap_grows_and_shrinks,
    mremap_in_place_needs_room,
    mremap_fixed,
    mremap_dontunmap,
    mremap_errors,
    mremap_duplicates_shared,
    madvise_dontneed_zeroes,
    madvise_dontneed_of_file,
    madvise_dontfork_and_wipeonfork,
    brk_moves,
    msync_and_mincore,
    mlock_family,
    address_space_limit,
    huge_reservation,
    thousands_of_mappings,
    stack_grows,
    grows_down_mapping,
    maps_file_tells,
    addresses_are_random,
    print_addresses,
    memfd_mapping,
    device_zero_mapping,
    partial_unmap_of_file,
);
