//! Attacks by system calls that go around the sandbox: other architectures' entries, and jumps to the system-call
//! instructions of the code above the guest's addresses.
//!
//! A call that reached the host would leave a file `pwned-…` in the working directory, which the runner looks for
//! from outside, or end the process whose id is in `CANARY`.

use core::arch::asm;
use std::ffi::CString;

use guest_tests::hostile::{catch_faults, finish, pages_above, reap, syscalls_in};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, pid, wait};
use guest_tests::rng::Rng;
use guest_tests::{Outcome, check, eq, ok, sys};

/// The directory that the runner looks at from outside.
fn outside() -> String {
    std::env::var("OUTSIDE").unwrap_or_else(|_| "/tmp".to_owned())
}

/// A path for a file that must not appear there.
fn marker(name: &str) -> CString {
    CString::new(format!("{}/pwned-{name}", outside())).unwrap_or_default()
}

/// Makes a 32-bit call.
fn int80(nr: u32, a: u32, b: u32, c: u32) -> i32 {
    let ret: i32;
    // SAFETY: as in `raw`; rbx is saved by hand.
    unsafe {
        asm!(
            "push rbx", "mov ebx, {a:e}", "int 0x80", "pop rbx",
            a = in(reg) a, inlateout("eax") nr => ret, in("ecx") b, in("edx") c,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    ret
}

fn int80_creates_nothing() -> Outcome {
    let low = ok!(Map::new(0x2000_0000, PAGE, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    let path = marker("int80");
    low.bytes()[..path.as_bytes_with_nul().len()].copy_from_slice(path.as_bytes_with_nul());
    let pid = ok!(child(|| {
        // creat, then getpid.
        let _ = int80(8, low.addr as u32, 0o666, 0);
        let _ = int80(20, 0, 0, 0);
        0
    }));
    // Linux without 32-bit support raises SIGSEGV.
    let end = ok!(finish(pid));
    check!(end == Some(End::Signal(libc::SIGSEGV)) || end == Some(End::Code(0)), "{end:?}");
    Ok(())
}

fn int80_of_every_number() -> Outcome {
    for first in (0..450).step_by(50) {
        let pid = ok!(child(|| {
            let _ = guest_tests::sig::plain(libc::SIGALRM, 1);
            for nr in first..first + 50 {
                // fork, exit and their like are left out: they would end this loop, or multiply it.
                if ![1, 2, 7, 26, 29, 72, 114, 119, 120, 158, 173, 177, 179, 190, 252, 284, 435]
                    .contains(&nr)
                {
                    let _ = int80(nr, 0xffff_fff0, 0xffff_fff0, 0xffff_fff0);
                }
            }
            0
        }));
        ok!(reap(pid));
    }
    Ok(())
}

fn sysenter_is_no_way_out() -> Outcome {
    let pid = ok!(child(|| {
        // SAFETY: the process dies or goes on; both are fine.
        unsafe { asm!("mov rbp, rsp", "mov eax, 20", "sysenter", "ud2", options(noreturn)) };
    }));
    ok!(reap(pid));
    Ok(())
}

fn x32_creates_nothing() -> Outcome {
    let path = marker("x32");
    for nr in [libc::SYS_creat, libc::SYS_open] {
        let result =
            guest_tests::raw(nr | 0x4000_0000, [path.as_ptr() as usize, 0o101, 0o666, 0, 0, 0]);
        eq!(result, Err(libc::ENOSYS));
    }
    for nr in 512..550 {
        eq!(guest_tests::raw(nr | 0x4000_0000, [0; 6]), Err(libc::ENOSYS));
    }
    Ok(())
}

fn far_call_to_32_bit_code() -> Outcome {
    let page = ok!(Map::new(0x2000_0000, PAGE, 7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    let path = marker("compat");
    // mov eax, 8; mov ebx, path; mov ecx, 0666; int 0x80; ud2, in 32-bit code.
    let mut code = vec![0xb8, 8, 0, 0, 0, 0xbb];
    code.extend((page.addr as u32 + 256).to_le_bytes());
    code.extend([0xb9, 0xb6, 1, 0, 0, 0xcd, 0x80, 0x0f, 0x0b]);
    page.bytes()[..code.len()].copy_from_slice(&code);
    page.bytes()[256..256 + path.as_bytes_with_nul().len()]
        .copy_from_slice(path.as_bytes_with_nul());
    let pid = ok!(child(|| {
        let _ = sys!(
            SYS_prlimit64,
            0,
            libc::RLIMIT_CORE,
            &libc::rlimit { rlim_cur: 0, rlim_max: 0 },
            0
        );
        // SAFETY: does not come back.
        unsafe { asm!("push 0x23", "push {}", "retfq", in(reg) page.addr, options(noreturn)) };
    }));
    ok!(reap(pid));
    Ok(())
}

/// Runs one system-call instruction somewhere with the given registers. What follows it is not ours.
fn jump(site: usize, nr: i64, args: [usize; 6]) -> ! {
    // SAFETY: this process is a child that is thrown away.
    unsafe {
        asm!(
            "jmp {site}",
            site = in(reg) site,
            in("rax") nr, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            options(noreturn)
        );
    }
}

/// Calls that would be seen from outside if the host served them.
fn hostile_calls() -> Vec<(i64, [usize; 6])> {
    let path = |name: &str| marker(name).into_raw() as usize;
    let canary: usize =
        std::env::var("CANARY").ok().and_then(|id| id.parse().ok()).unwrap_or(0x3fff_ffff);
    let scratch = Box::leak(Box::new([0u64; 64])).as_mut_ptr() as usize;
    let shell = CString::new(format!("touch {}/pwned-shell", outside())).unwrap_or_default();
    let argv = Box::leak(Box::new([
        c"sh".as_ptr(),
        c"-c".as_ptr(),
        shell.into_raw().cast_const(),
        core::ptr::null(),
    ]));
    vec![
        (libc::SYS_creat, [path("creat"), 0o666, 0, 0, 0, 0]),
        (libc::SYS_open, [path("open"), 0o101, 0o666, 0, 0, 0]),
        (libc::SYS_openat, [libc::AT_FDCWD as usize, path("openat"), 0o101, 0o666, 0, 0]),
        (libc::SYS_mkdir, [path("mkdir"), 0o777, 0, 0, 0, 0]),
        (libc::SYS_mknod, [path("mknod"), 0o10666, 0, 0, 0, 0]),
        (libc::SYS_symlink, [path("target"), path("symlink"), 0, 0, 0, 0]),
        (libc::SYS_kill, [canary, 9, 0, 0, 0, 0]),
        (libc::SYS_tkill, [canary, 9, 0, 0, 0, 0]),
        (libc::SYS_tgkill, [canary, canary, 9, 0, 0, 0]),
        (libc::SYS_ptrace, [16, canary, 0, 0, 0, 0]),
        (libc::SYS_process_vm_writev, [canary, scratch, 1, scratch, 1, 0]),
        (libc::SYS_execve, [c"/bin/sh".as_ptr() as usize, argv.as_ptr() as usize, 0, 0, 0, 0]),
        (libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
        (libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
        (libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
        (libc::SYS_mount, [0, path("mount"), 0, 0, 0, 0]),
        (libc::SYS_prctl, [38, 1, 0, 0, 0, 0]),
        (libc::SYS_seccomp, [1, 0, scratch, 0, 0, 0]),
        (libc::SYS_bpf, [0, scratch, 64, 0, 0, 0]),
        (libc::SYS_perf_event_open, [scratch, 0, usize::MAX, usize::MAX, 0, 0]),
        (libc::SYS_io_uring_setup, [8, scratch, 0, 0, 0, 0]),
        (libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
        (libc::SYS_memfd_create, [path("memfd"), 0, 0, 0, 0, 0]),
        (libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        (libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0, 0]),
        (libc::SYS_vfork, [0, 0, 0, 0, 0, 0]),
        (libc::SYS_clone3, [scratch, 88, 0, 0, 0, 0]),
        // Calls that the code above makes itself, with arguments that it would not use.
        (libc::SYS_mmap, [0, 1 << 20, 7, 0x21, usize::MAX, 0]),
        (libc::SYS_mmap, [0x7e80_0000_0000, 1 << 20, 7, 0x32, usize::MAX, 0]),
        (libc::SYS_munmap, [0x7e90_0000_0000, 1 << 20, 0, 0, 0, 0]),
        (libc::SYS_munmap, [0, 0x7fff_ffff_f000, 0, 0, 0, 0]),
        (libc::SYS_mprotect, [0x7e80_0000_0000, 4096, 7, 0, 0, 0]),
        (libc::SYS_mremap, [0x7e90_0000_0000, 0, 4096, 1, 0, 0]),
        (libc::SYS_madvise, [0x7e90_0000_0000, 1 << 20, 10, 0, 0, 0]),
        (libc::SYS_close, [0, 0, 0, 0, 0, 0]),
        (libc::SYS_close, [3, 0, 0, 0, 0, 0]),
        (libc::SYS_futex, [0x7e90_0000_0000, 1, 1 << 30, 0, 0, 0]),
        (libc::SYS_rt_sigreturn, [0; 6]),
        (libc::SYS_exit, [0; 6]),
        (libc::SYS_exit_group, [77, 0, 0, 0, 0, 0]),
        (libc::SYS_sigaltstack, [scratch, 0, 0, 0, 0, 0]),
        (libc::SYS_membarrier, [1, 0, 0, 0, 0, 0]),
        (libc::SYS_rseq, [scratch, 32, 0, 0, 0, 0]),
        (libc::SYS_sched_yield, [0; 6]),
        (-1, [0; 6]),
        (0x4000_0002, [path("x32"), 0o101, 0o666, 0, 0, 0]),
    ]
}

fn jumps_to_every_call_instruction() -> Outcome {
    ok!(catch_faults());
    let sites = syscalls_in(&pages_above());
    let calls = hostile_calls();
    // Each instruction with some of the calls, and each call at some of them: many wait until they are killed.
    for (i, site) in sites.into_iter().enumerate() {
        for (nr, args) in calls.iter().skip(i % 24).step_by(24) {
            let pid = ok!(child(|| jump(site, *nr, *args)));
            // However it ends, it ends alone.
            ok!(reap(pid));
        }
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn jumps_into_the_middle_of_everything() -> Outcome {
    ok!(catch_faults());
    let pages = pages_above();
    let mut random = Rng::new(1);
    for _ in 0..300 {
        if pages.is_empty() {
            break;
        }
        let page = pages[random.bits() as usize % pages.len()];
        let target = page + random.bits() as usize % PAGE;
        let (nr, rdi, rsi) =
            (random.bits() as i64 % 400, random.bits() as usize, random.bits() as usize);
        let pid = ok!(child(|| jump(target, nr, [rdi, rsi, 0, 0, 0, 0])));
        ok!(reap(pid));
    }
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    Ok(())
}

fn jumps_from_a_thread_while_others_work() -> Outcome {
    ok!(catch_faults());
    let sites = syscalls_in(&pages_above());
    for site in sites.into_iter().step_by(3) {
        let pid = ok!(child(|| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    std::thread::spawn(|| {
                        for _ in 0..200 {
                            let _ = sys!(SYS_getppid);
                        }
                    })
                })
                .collect();
            std::thread::spawn(move || {
                jump(site, libc::SYS_munmap, [0x7e90_0000_0000, 1 << 30, 0, 0, 0, 0])
            });
            workers.into_iter().for_each(|worker| drop(worker.join()));
            0
        }));
        ok!(reap(pid));
    }
    Ok(())
}

fn the_sandbox_still_works() -> Outcome {
    ok!(guest_tests::fs::put(c"file", b"content"));
    eq!(ok!(guest_tests::fs::get(c"file")), b"content");
    let pid = ok!(child(|| 5));
    eq!(ok!(wait(pid)), End::Code(5));
    Ok(())
}

guest_tests::cases!(
    int80_creates_nothing,
    int80_of_every_number,
    sysenter_is_no_way_out,
    x32_creates_nothing,
    far_call_to_32_bit_code,
    jumps_to_every_call_instruction,
    jumps_into_the_middle_of_everything,
    jumps_from_a_thread_while_others_work,
    the_sandbox_still_works,
);
