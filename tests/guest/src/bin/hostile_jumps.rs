//! Attacks by the system-call instructions of the code above the guest's addresses: every call from there, with
//! hostile arguments, again and again, because one of them comes back.
//!
//! As in `hostile_calls`, the runner looks from outside for what a call that reached the host would leave.

use core::arch::asm;
use std::ffi::CString;

use guest_tests::hostile::{call, catch_faults, finish, pages_above, read, reap, returning_site};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, pid};
use guest_tests::rng::Rng;
use guest_tests::{Outcome, check, eq, fs, ok, sys};

/// The call by which that code asks the sandbox's kernel: `nfsservctl`, which no Linux serves.
const DOORBELL: i64 = 180;
/// What it does where the doorbell is made of messages: rings by this descriptor, and receives from the next.
const SENDTO: i64 = 44;
const RECVMSG: i64 = 47;
const DUP2: i64 = 33;
const MSG_NOSIGNAL: usize = 0x4000;
/// The flags of the two clones that it makes.
const FORK_FLAGS: usize = 0x8000 | 17;
const THREAD_FLAGS: usize = 0x125_0f00;

/// A path for a file that must not appear outside.
fn marker(name: &str) -> CString {
    let outside = std::env::var("OUTSIDE").unwrap_or_else(|_| "/tmp".to_owned());
    CString::new(format!("{outside}/pwned-{name}")).unwrap_or_default()
}

fn canary() -> usize {
    std::env::var("CANARY").ok().and_then(|id| id.parse().ok()).unwrap_or(0x3fff_ffff)
}

fn every_number_from_above() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    let scratch = ok!(Map::anonymous(4 * PAGE, libc::MAP_PRIVATE)).addr;
    let path = marker("number");
    let canary = canary();
    for nr in 0..=470_i64 {
        let pid = ok!(child(|| {
            // A call that waits ends with this process.
            let _ = sys!(SYS_alarm, 1);
            let argument_sets: [[usize; 6]; 6] = [
                [0; 6],
                [usize::MAX; 6],
                [scratch; 6],
                [path.as_ptr() as usize, 0o101, 0o666, 0, 0, 0],
                [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0o101, 0o666, 0, 0],
                [canary, 9, 9, scratch, 9, 9],
            ];
            for args in argument_sets {
                let _ = call(site, nr, args);
                let _ = call(site, nr | 0x4000_0000, args);
                let _ = call(site, nr | 1 << 32, args);
            }
            0
        }));
        ok!(reap(pid));
    }
    Ok(())
}

fn forged_rings_disturb_nobody_else() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    for seed in 0..12 {
        let attacker = ok!(child(|| {
            let mut random = Rng::new(seed);
            for _ in 0..300 {
                let what = random.bits() as usize % 4;
                let token = match random.below(3) {
                    0 => random.below(64),
                    1 => random.bits() as usize,
                    _ => 0x7e90_0000_0000 + random.below(1 << 20),
                };
                let index = if random.one_in(2) { random.below(8) } else { random.bits() as usize };
                let _ = call(site, DOORBELL, [what, token, index, 0, 0, 0]);
                let message = [what, token, index];
                let _ = call(site, SENDTO, [0, message.as_ptr() as usize, 24, MSG_NOSIGNAL, 0, 0]);
            }
            0
        }));
        // Meanwhile: threads, processes and calls of others.
        for _ in 0..5 {
            let helper = std::thread::spawn(|| sys!(SYS_getppid));
            let pid = ok!(child(|| 5));
            eq!(ok!(finish(pid)), Some(End::Code(5)));
            check!(helper.join().is_ok_and(|result| result.is_ok()));
        }
        ok!(reap(attacker));
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn floods_of_rings_starve_nobody() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    for (nr, args) in [(DOORBELL, [0; 6]), (SENDTO, [0, 0, 24, MSG_NOSIGNAL, 0, 0])] {
        let mut attackers = Vec::new();
        for _ in 0..3 {
            attackers.push(ok!(child(|| {
                let message = [0_usize, 0x1234_5678, 0];
                let mut args = args;
                args[1] = message.as_ptr() as usize;
                // Ends with its first ring where a ring needs an answer.
                loop {
                    let _ = call(site, nr, args);
                }
            })));
        }
        for _ in 0..30 {
            let helper = std::thread::spawn(|| sys!(SYS_getppid));
            let pid = ok!(child(|| 5));
            eq!(ok!(finish(pid)), Some(End::Code(5)));
            check!(helper.join().is_ok_and(|result| result.is_ok()));
        }
        for attacker in attackers {
            let _ = sys!(SYS_kill, attacker, libc::SIGKILL);
            ok!(reap(attacker));
        }
    }
    Ok(())
}

fn sockets_of_the_stub_lead_nowhere() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    for seed in 0..8_u64 {
        let attacker = ok!(child(|| {
            let mut random = Rng::new(seed);
            // What waits for a message that never comes ends with this process.
            let _ = sys!(SYS_alarm, 1);
            let Ok(memory) = Map::anonymous(PAGE, libc::MAP_PRIVATE) else { return 1 };
            let message = memory.addr;
            for _ in 0..200 {
                match random.below(4) {
                    // Each under the other's number, in either order, and under those of files.
                    0 => {
                        let (old, new) = (random.below(5), random.below(5));
                        let _ = call(site, DUP2, [old, new, 0, 0, 0, 0]);
                    }
                    1 => {
                        let _ = call(site, SENDTO, [0, message, 24, MSG_NOSIGNAL, 0, 0]);
                    }
                    2 => {
                        let fd = random.below(3);
                        let _ = call(site, libc::SYS_pread64, [fd, message, 24, 0, 0, 0]);
                    }
                    _ => {
                        let _ = call(site, SENDTO, [1, message, 24, MSG_NOSIGNAL, 0, 0]);
                    }
                }
                if random.one_in(20) {
                    let _ = sys!(SYS_getppid);
                    let _ = sys!(SYS_mmap, 0, PAGE, 3, 0x22, -1, 0);
                }
            }
            if random.one_in(2) {
                let _ = call(site, RECVMSG, [1, message, 0, 0, 0, 0]);
            }
            0
        }));
        // Meanwhile: processes and files of others.
        for _ in 0..5 {
            let pid = ok!(child(|| {
                let path = c"of-a-bystander";
                let done = fs::put(path, b"content").is_ok();
                i32::from(!(done && fs::get(path).is_ok_and(|content| content == b"content")))
            }));
            eq!(ok!(finish(pid)), Some(End::Code(0)));
        }
        ok!(reap(attacker));
    }
    Ok(())
}

fn processes_that_the_kernel_did_not_make() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    for rounds in 1..=4 {
        let pid = ok!(child(|| {
            for _ in 0..rounds {
                if call(site, libc::SYS_clone, [FORK_FLAGS, 0, 0, 0, 0, 0]) == 0 {
                    // Nobody knows this process: its first call is its last.
                    for _ in 0..10 {
                        let _ = sys!(SYS_getppid);
                    }
                    let _ = fs::put(c"from-a-stranger", b"x");
                    let _ = sys!(SYS_exit_group, 99);
                }
            }
            // The one that made it goes on.
            for _ in 0..100 {
                if sys!(SYS_getpid) != Ok(pid() as usize) {
                    return 1;
                }
            }
            7
        }));
        let end = ok!(reap(pid));
        // Either both go, as one that misbehaves, or the known one lives on as if nothing were.
        check!(matches!(end, Some(End::Code(7) | End::Signal(libc::SIGKILL)) | None), "{end:?}");
        check!(fs::get(c"from-a-stranger").is_err(), "a stranger was served");
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn threads_that_the_kernel_did_not_make() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    for _ in 0..4 {
        let pid = ok!(child(|| {
            let Ok(stack) = Map::anonymous(16 * PAGE, libc::MAP_PRIVATE) else { return 1 };
            let code: [u8; 9] = [0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
            let Ok(page) = Map::new(0, PAGE, 7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
            else {
                return 1;
            };
            page.bytes()[..code.len()].copy_from_slice(&code);
            // The stranger returns into a loop of `getppid`.
            let top = stack.addr + 15 * PAGE;
            // SAFETY: the mapping is this function's.
            unsafe { core::ptr::with_exposed_provenance_mut::<usize>(top).write(page.addr) };
            let _ = call(site, libc::SYS_clone, [THREAD_FLAGS, top, 0, 0, 0, 0]);
            for _ in 0..100 {
                let _ = sys!(SYS_getpid);
            }
            7
        }));
        ok!(reap(pid));
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn descriptors_up_there_cannot_be_written() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    // A file that is mapped privately, so that a descriptor of it is where the mapping is made.
    let exe = ok!(std::fs::File::open("/proc/self/exe"));
    use std::os::fd::AsRawFd;
    let mapped = ok!(Map::new(0, PAGE, 1, libc::MAP_PRIVATE, exe.as_raw_fd(), 0));
    let before = mapped.bytes()[..64].to_vec();
    let pid = ok!(child(|| {
        for fd in 0..64_usize {
            for prot in [3_usize, 7] {
                for offset in [0_usize, PAGE] {
                    let at = call(site, libc::SYS_mmap, [0, PAGE, prot, 1, fd, offset]);
                    if at > 0 {
                        guest_tests::hostile::write(at as usize, 0x6464_6464_6464_6464);
                    }
                }
            }
        }
        0
    }));
    ok!(reap(pid));
    eq!(&mapped.bytes()[..64], &before[..]);
    let mut file = vec![0_u8; 64];
    use std::os::unix::fs::FileExt;
    ok!(exe.read_exact_at(&mut file, 0));
    eq!(file, before);
    Ok(())
}

fn shared_mappings_up_there_reach_no_other_process() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    // Every way to duplicate, keep or move the pages above, in a child, while the parent makes calls.
    for flags in [1_usize, 3, 5, 7] {
        let pid = ok!(child(|| {
            for page in pages_above() {
                for (old, new) in [(0, PAGE), (PAGE, PAGE), (PAGE, 2 * PAGE)] {
                    let to = 0x2000_0000;
                    let at = call(site, libc::SYS_mremap, [page, old, new, flags, to, 0]);
                    if at > 0 {
                        for word in 0..PAGE / 8 {
                            let at = at as usize + word * 8;
                            guest_tests::hostile::write(at, 0xdead_beef);
                        }
                    }
                }
            }
            0
        }));
        for _ in 0..200 {
            check!(sys!(SYS_getpid) == Ok(self::pid() as usize));
            check!(sys!(SYS_getppid).is_ok());
        }
        ok!(reap(pid));
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn no_process_changes_what_another_sees_up_there() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    for page in pages_above() {
        let last = page + PAGE - 8;
        let Some(before) = read(last) else { continue };
        let pid = ok!(child(|| {
            let _ = call(site, libc::SYS_mprotect, [page, PAGE, 3, 0, 0, 0]);
            guest_tests::hostile::write(last, before ^ 0x5a5a_5a5a);
            0
        }));
        ok!(reap(pid));
        eq!((page, read(last)), (page, Some(before)));
    }
    Ok(())
}

fn foreign_numbers_at_a_hot_site() -> Outcome {
    // Often enough that a site is changed into something faster. (Not those of probes: a host serves these whatever
    // the filter says, with SIGILL.)
    let page = ok!(Map::new(0, PAGE, 7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    for (slot, nr) in [
        0x4000_0027_u32,
        0x4000_0002,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0xffff_fe00,
        1000,
        400,
        500,
    ]
    .into_iter()
    .enumerate()
    {
        let at = slot * 64;
        let mut code = vec![0xb8];
        code.extend(nr.to_le_bytes());
        code.extend([0x0f, 0x05, 0xc3]);
        page.bytes()[at..at + code.len()].copy_from_slice(&code);
        for round in 0..300 {
            let entry = page.addr + at;
            // SAFETY: the page holds a function of this type.
            let function =
                unsafe { core::mem::transmute::<usize, extern "C" fn(usize) -> isize>(entry) };
            let result = function(0);
            check!(result == -(libc::ENOSYS as isize), "{nr:#x}, call {round}: {result}");
        }
    }
    Ok(())
}

fn foreign_entries_beside_a_hot_site() -> Outcome {
    let path = marker("hot");
    let low = ok!(Map::new(0x2000_0000, PAGE, 7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    low.bytes()[512..512 + path.as_bytes_with_nul().len()]
        .copy_from_slice(path.as_bytes_with_nul());
    // mov $110, %eax; syscall; ret, and int $0x80 behind it.
    let code = [0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3, 0xcd, 0x80, 0xc3];
    low.bytes()[..code.len()].copy_from_slice(&code);
    // SAFETY: the page holds a function of this type.
    let hot = unsafe { core::mem::transmute::<usize, extern "C" fn() -> isize>(low.addr) };
    let parent = ok!(sys!(SYS_getppid)) as isize;
    for _ in 0..300 {
        check!(hot() == parent);
    }
    let (entry, path) = (low.addr + 8, low.addr + 512);
    let pid = ok!(child(|| {
        // SAFETY: rbx is saved by hand; the call is the subject.
        unsafe {
            asm!(
                "push rbx", "mov ebx, {path:e}", "call {entry}", "pop rbx",
                path = in(reg) path, entry = in(reg) entry, inlateout("eax") 8 => _,
                in("ecx") 0o666, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            );
        }
        0
    }));
    let end = ok!(finish(pid));
    check!(end == Some(End::Signal(libc::SIGSEGV)) || end == Some(End::Code(0)), "{end:?}");
    check!(hot() == parent);
    Ok(())
}

fn the_sandbox_still_works() -> Outcome {
    ok!(fs::put(c"file", b"content"));
    eq!(ok!(fs::get(c"file")), b"content");
    let pid = ok!(child(|| 5));
    eq!(ok!(finish(pid)), Some(End::Code(5)));
    Ok(())
}

fn a_stranger_that_never_calls_ends_with_the_sandbox() -> Outcome {
    ok!(catch_faults());
    let Some(site) = returning_site() else { return Ok(()) };
    let pid = ok!(child(|| {
        if call(site, libc::SYS_clone, [FORK_FLAGS, 0, 0, 0, 0, 0]) == 0 {
            loop {
                core::hint::spin_loop();
            }
        }
        0
    }));
    ok!(reap(pid));
    Ok(())
}

guest_tests::cases!(
    every_number_from_above,
    forged_rings_disturb_nobody_else,
    floods_of_rings_starve_nobody,
    sockets_of_the_stub_lead_nowhere,
    processes_that_the_kernel_did_not_make,
    threads_that_the_kernel_did_not_make,
    descriptors_up_there_cannot_be_written,
    shared_mappings_up_there_reach_no_other_process,
    no_process_changes_what_another_sees_up_there,
    foreign_numbers_at_a_hot_site,
    foreign_entries_beside_a_hot_site,
    the_sandbox_still_works,
    // The last, because it costs a processor.
    a_stranger_that_never_calls_ends_with_the_sandbox,
);
