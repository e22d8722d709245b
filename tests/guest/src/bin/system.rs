//! Scheduling, limits, `prctl(2)`, `uname(2)`, `sysinfo(2)`, random numbers, device nodes, unknown calls.

use std::sync::atomic::Ordering::SeqCst;

use guest_tests::fs::{close, open, read, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{End, child, in_child, pid, tid, wait};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{
    O_RDONLY, O_RDWR, O_WRONLY, SCHED_BATCH, SCHED_FIFO, SCHED_IDLE, SCHED_OTHER, SCHED_RR, rlimit,
};

fn limit_get_and_set() -> Outcome {
    let mut old = rlimit { rlim_cur: 0, rlim_max: 0 };
    ok!(sys!(SYS_getrlimit, libc::RLIMIT_NOFILE, &mut old));
    check!(old.rlim_cur > 10 && old.rlim_cur <= old.rlim_max);
    let new = rlimit { rlim_cur: 50, rlim_max: 100 };
    ok!(sys!(SYS_setrlimit, libc::RLIMIT_NOFILE, &new));
    let mut now = rlimit { rlim_cur: 0, rlim_max: 0 };
    ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &mut now));
    eq!((now.rlim_cur, now.rlim_max), (50, 100));
    let inverted = rlimit { rlim_cur: 5, rlim_max: 4 };
    fails!(sys!(SYS_setrlimit, libc::RLIMIT_NOFILE, &inverted), EINVAL);
    fails!(sys!(SYS_getrlimit, 99, &mut now), EINVAL);
    fails!(sys!(SYS_getrlimit, libc::RLIMIT_NOFILE, 8), EFAULT);
    in_child(|| {
        ok!(proc::drop_root());
        let higher = rlimit { rlim_cur: 50, rlim_max: 101 };
        fails!(sys!(SYS_setrlimit, libc::RLIMIT_NOFILE, &higher), EPERM);
        ok!(sys!(SYS_setrlimit, libc::RLIMIT_NOFILE, &rlimit { rlim_cur: 100, rlim_max: 100 }));
        Ok(())
    })
}

fn limit_of_another_process() -> Outcome {
    let pid = ok!(child(|| {
        proc::sleep(std::time::Duration::from_secs(20));
        0
    }));
    let new = rlimit { rlim_cur: 33, rlim_max: 44 };
    ok!(sys!(SYS_prlimit64, pid, libc::RLIMIT_NOFILE, &new, 0));
    let limits = ok!(std::fs::read_to_string(format!("/proc/{pid}/limits")));
    check!(
        limits
            .contains("Max open files            33                   44                   files")
    );
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    ok!(wait(pid));
    let mut now = rlimit { rlim_cur: 0, rlim_max: 0 };
    fails!(sys!(SYS_prlimit64, pid, libc::RLIMIT_NOFILE, 0, &mut now), ESRCH);
    Ok(())
}

fn scheduler_policies() -> Outcome {
    eq!(ok!(sys!(SYS_sched_getscheduler, 0)) as i32, SCHED_OTHER);
    let zero = 0i32;
    ok!(sys!(SYS_sched_setscheduler, 0, SCHED_BATCH, &zero));
    eq!(ok!(sys!(SYS_sched_getscheduler, 0)) as i32, SCHED_BATCH);
    ok!(sys!(SYS_sched_setscheduler, 0, SCHED_IDLE, &zero));
    let mut param = 9i32;
    ok!(sys!(SYS_sched_getparam, 0, &mut param));
    eq!(param, 0);
    let one = 1i32;
    fails!(sys!(SYS_sched_setscheduler, 0, SCHED_OTHER, &one), EINVAL);
    fails!(sys!(SYS_sched_setscheduler, 0, 99, &zero), EINVAL);
    eq!(ok!(sys!(SYS_sched_get_priority_max, SCHED_FIFO)), 99);
    eq!(ok!(sys!(SYS_sched_get_priority_min, SCHED_RR)), 1);
    eq!(ok!(sys!(SYS_sched_get_priority_max, SCHED_OTHER)), 0);
    fails!(sys!(SYS_sched_get_priority_max, 99), EINVAL);
    fails!(sys!(SYS_sched_getscheduler, 0x3fff_ffff), ESRCH);
    ok!(sys!(SYS_sched_yield));
    Ok(())
}

fn affinity_mask() -> Outcome {
    let mut mask = [0u64; 16];
    let n = ok!(sys!(SYS_sched_getaffinity, 0, 128, &mut mask));
    check!(n >= 8 && n % 8 == 0);
    let count: u32 = mask.iter().map(|word| word.count_ones()).sum();
    check!(count >= 1);
    let first = mask.iter().position(|word| *word != 0).unwrap_or_default();
    let mut one = [0u64; 16];
    one[first] = 1 << mask[first].trailing_zeros();
    ok!(sys!(SYS_sched_setaffinity, 0, 128, &one));
    let mut now = [0u64; 16];
    ok!(sys!(SYS_sched_getaffinity, 0, 128, &mut now));
    eq!(now, one);
    ok!(sys!(SYS_sched_setaffinity, 0, 128, &mask));
    fails!(sys!(SYS_sched_setaffinity, 0, 128, &[0u64; 16]), EINVAL);
    fails!(sys!(SYS_sched_getaffinity, 0, 1, &mut now), EINVAL);
    Ok(())
}

/// Returns the numbers of the processors in this thread's mask, and the masks of one each.
fn own_cpus() -> Result<Vec<[u64; 16]>, String> {
    let mut mask = [0u64; 16];
    ok!(sys!(SYS_sched_getaffinity, 0, 128, &mut mask));
    let one = |cpu: usize| {
        let mut one = [0; 16];
        one[cpu / 64] = 1 << (cpu % 64);
        one
    };
    Ok((0..1024).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 != 0).map(one).collect())
}

/// Returns the processor that this thread is on, which it is to be on for a while.
fn steady_cpu() -> Result<u32, String> {
    let current = || -> Result<u32, i32> {
        let mut cpu = 0u32;
        sys!(SYS_getcpu, &mut cpu, 0, 0).map(|_| cpu)
    };
    let first = ok!(current());
    for _ in 0..200 {
        ok!(sys!(SYS_sched_yield));
        eq!(ok!(current()), first);
    }
    Ok(first)
}

fn affinity_places_threads() -> Outcome {
    let cpus = own_cpus()?;
    let mut seen = Vec::new();
    for one in &cpus {
        ok!(sys!(SYS_sched_setaffinity, 0, 128, one));
        let cpu = steady_cpu()?;
        check!(!seen.contains(&cpu), "{cpu} twice");
        seen.push(cpu);
        // A child is where its parent is, and may be moved by it.
        in_child(|| {
            eq!(steady_cpu()?, cpu);
            Ok(())
        })?;
    }
    let go = ok!(Map::anonymous(PAGE, libc::MAP_SHARED));
    let pid = ok!(child(|| {
        if !proc::until(|| go.word(0).load(SeqCst) != 0) {
            return 1;
        }
        if steady_cpu().ok().as_ref() == seen.first() { 0 } else { 2 }
    }));
    ok!(sys!(SYS_sched_setaffinity, pid, 128, &cpus[0]));
    go.word(0).store(1, SeqCst);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn nice_threads_let_others_go_first() -> Outcome {
    let cpus = own_cpus()?;
    let counts = ok!(Map::anonymous(PAGE, libc::MAP_SHARED));
    let spinner = |index: usize, nice: i32| {
        child(|| {
            // Both on one processor.
            let is_ready = sys!(SYS_sched_setaffinity, 0, 128, &cpus[0]).is_ok()
                && sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, nice).is_ok();
            if !is_ready {
                return 1;
            }
            loop {
                counts.word(index).fetch_add(1, SeqCst);
            }
        })
    };
    let eager = ok!(spinner(0, 0));
    let patient = ok!(spinner(16, 19));
    let count = |index: usize| counts.word(index).load(SeqCst);
    check!(proc::until(|| count(0) > 0 && count(16) > 0));
    let (eager_before, patient_before) = (count(0), count(16));
    let is_ahead = proc::until(|| {
        let eager = count(0).wrapping_sub(eager_before) / 4;
        eager > 100_000 && eager > count(16).wrapping_sub(patient_before)
    });
    for pid in [eager, patient] {
        ok!(sys!(SYS_kill, pid, libc::SIGKILL));
        eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
    }
    check!(is_ahead);
    Ok(())
}

fn nice_values() -> Outcome {
    eq!(ok!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)), 20);
    ok!(sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, 7));
    eq!(ok!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)), 13);
    fails!(sys!(SYS_getpriority, 9, 0), EINVAL);
    fails!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0x3fff_ffff), ESRCH);
    in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, 0), EACCES);
        ok!(sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, 10));
        Ok(())
    })
}

fn process_names() -> Outcome {
    ok!(sys!(SYS_prctl, libc::PR_SET_NAME, c"a-name-that-is-too-long", 0, 0, 0));
    let mut name = [0u8; 16];
    ok!(sys!(SYS_prctl, libc::PR_GET_NAME, &mut name, 0, 0, 0));
    eq!(&name, b"a-name-that-is-\0");
    Ok(())
}

fn prctl_switches() -> Outcome {
    eq!(ok!(sys!(SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0)), 1);
    ok!(sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0));
    eq!(ok!(sys!(SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0)), 0);
    fails!(sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 2, 0, 0, 0), EINVAL);
    ok!(sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGHUP, 0, 0, 0));
    let mut signo = 0i32;
    ok!(sys!(SYS_prctl, libc::PR_GET_PDEATHSIG, &mut signo, 0, 0, 0));
    eq!(signo, libc::SIGHUP);
    fails!(sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, 99, 0, 0, 0), EINVAL);
    let mut tsc = 0i32;
    ok!(sys!(SYS_prctl, libc::PR_SET_TSC, libc::PR_TSC_ENABLE, 0, 0, 0));
    ok!(sys!(SYS_prctl, libc::PR_GET_TSC, &mut tsc, 0, 0, 0));
    eq!(tsc, libc::PR_TSC_ENABLE);
    fails!(sys!(SYS_prctl, libc::PR_SET_TSC, 3, 0, 0, 0), EINVAL);
    ok!(sys!(SYS_prctl, libc::PR_SET_TIMERSLACK, 1000, 0, 0, 0));
    eq!(ok!(sys!(SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0)), 1000);
    let mut reaper = 9i32;
    ok!(sys!(SYS_prctl, libc::PR_GET_CHILD_SUBREAPER, &mut reaper, 0, 0, 0));
    eq!(reaper, 0);
    fails!(sys!(SYS_prctl, 9999, 0, 0, 0, 0), EINVAL);
    Ok(())
}

fn uname_tells() -> Outcome {
    let mut name = zeroed::<libc::utsname>();
    ok!(sys!(SYS_uname, &mut name));
    let text = |field: &[i8]| -> String {
        field.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect()
    };
    eq!(text(&name.sysname), "Linux");
    eq!(text(&name.machine), "x86_64");
    let major: u32 = ok!(text(&name.release).split('.').next().unwrap_or_default().parse());
    check!(major >= 4);
    fails!(sys!(SYS_uname, 8), EFAULT);
    Ok(())
}

fn host_names_can_change() -> Outcome {
    // In a namespace of its own: natively this must not rename the machine.
    in_child(|| {
        if sys!(SYS_unshare, libc::CLONE_NEWUTS).is_err() {
            return Ok(());
        }
        ok!(sys!(SYS_sethostname, b"changed".as_ptr(), 7));
        let mut name = zeroed::<libc::utsname>();
        ok!(sys!(SYS_uname, &mut name));
        check!(name.nodename[..8] == *b"changed\0".map(|c| c as i8).as_slice());
        fails!(sys!(SYS_sethostname, b"x".as_ptr(), 65), EINVAL);
        Ok(())
    })
}

fn sysinfo_tells() -> Outcome {
    let mut info = zeroed::<libc::sysinfo>();
    ok!(sys!(SYS_sysinfo, &mut info));
    check!(info.totalram > 0 && info.mem_unit > 0 && info.uptime > 0 && info.procs > 0);
    Ok(())
}

fn random_bytes() -> Outcome {
    let (mut a, mut b) = ([0u8; 64], [0u8; 64]);
    eq!(ok!(sys!(SYS_getrandom, &mut a, 64, 0)), 64);
    eq!(ok!(sys!(SYS_getrandom, &mut b, 64, libc::GRND_NONBLOCK)), 64);
    check!(a != b && a != [0; 64]);
    eq!(ok!(sys!(SYS_getrandom, &mut a, 64, libc::GRND_RANDOM)), 64);
    fails!(sys!(SYS_getrandom, &mut a, 64, 0x100), EINVAL);
    fails!(sys!(SYS_getrandom, 8, 64, 0), EFAULT);
    let mut big = vec![0u8; 1 << 20];
    eq!(ok!(sys!(SYS_getrandom, big.as_mut_slice(), 1 << 20, 0)), 1 << 20);
    check!(big[1 << 19..].iter().any(|byte| *byte != 0));
    Ok(())
}

fn device_nodes() -> Outcome {
    let mut buf = [7u8; 16];
    let null = ok!(open(c"/dev/null", O_RDWR));
    eq!(ok!(read(null, &mut buf)), 0);
    eq!(ok!(write(null, &buf)), 16);
    let zero = ok!(open(c"/dev/zero", O_RDWR));
    eq!(ok!(read(zero, &mut buf)), 16);
    eq!(buf, [0; 16]);
    eq!(ok!(write(zero, &buf)), 16);
    let full = ok!(open(c"/dev/full", O_RDWR));
    fails!(write(full, b"x"), ENOSPC);
    eq!(ok!(read(full, &mut buf)), 16);
    for name in [c"/dev/random", c"/dev/urandom"] {
        let fd = ok!(open(name, O_RDONLY));
        buf = [0; 16];
        eq!(ok!(read(fd, &mut buf)), 16);
        check!(buf != [0; 16]);
    }
    for (name, major, minor) in [
        (c"/dev/null", 1, 3),
        (c"/dev/zero", 1, 5),
        (c"/dev/full", 1, 7),
        (c"/dev/random", 1, 8),
        (c"/dev/urandom", 1, 9),
        (c"/dev/tty", 5, 0),
    ] {
        let stat = ok!(guest_tests::fs::stat(name));
        eq!((stat.st_mode, stat.st_rdev), (libc::S_IFCHR | 0o666, libc::makedev(major, minor)));
    }
    eq!(ok!(std::fs::read_link("/dev/fd")).display().to_string(), "/proc/self/fd");
    eq!(ok!(std::fs::read_link("/dev/stdin")).display().to_string(), "/proc/self/fd/0");
    Ok(())
}

fn device_truncation_and_seek() -> Outcome {
    ok!(close(ok!(open(c"/dev/null", O_WRONLY | libc::O_TRUNC | libc::O_CREAT))));
    let zero = ok!(open(c"/dev/zero", O_RDONLY));
    ok!(guest_tests::fs::seek(zero, 100, libc::SEEK_SET));
    let null = ok!(open(c"/dev/null", O_RDWR));
    fails!(sys!(SYS_ftruncate, null, 0), EINVAL);
    Ok(())
}

fn shared_memory_directory() -> Outcome {
    let name = std::ffi::CString::new(format!("/dev/shm/guest-{}", pid())).unwrap_or_default();
    let fd = ok!(open(&name, libc::O_CREAT | libc::O_EXCL | O_RDWR));
    ok!(sys!(SYS_ftruncate, fd, 4096));
    ok!(sys!(SYS_unlink, name.as_c_str()));
    Ok(())
}

fn unknown_calls() -> Outcome {
    fails!(guest_tests::raw(467 + 500, [0; 6]), ENOSYS);
    fails!(guest_tests::raw(-1, [0; 6]), ENOSYS);
    fails!(guest_tests::raw(0x7fff_ffff, [0; 6]), ENOSYS);
    // Removed from Linux long ago.
    for number in [134, 156, 174, 177, 178, 180, 181, 182, 183, 184, 185, 214, 215, 236] {
        fails!(guest_tests::raw(number, [0; 6]), ENOSYS);
    }
    Ok(())
}

fn upper_halves_of_numbers_are_ignored() -> Outcome {
    // Linux looks at the lower 32 bits of the number only.
    eq!(ok!(guest_tests::raw(libc::SYS_getpid | (0xdead << 32), [0; 6])) as i32, pid());
    eq!(ok!(guest_tests::raw(libc::SYS_gettid | i64::MIN, [0; 6])) as i32, tid());
    Ok(())
}

fn registers_survive_calls() -> Outcome {
    let (mut a, mut b, mut c) = (1u64, 2u64, 3u64);
    let (mut rbx, mut r12, mut r15) = (0x11u64, 0x12u64, 0x15u64);
    let rcx: u64;
    // SAFETY: getppid touches no memory.
    unsafe {
        core::arch::asm!(
            "xchg rbx, {rbx}",
            "syscall",
            "xchg rbx, {rbx}",
            rbx = inout(reg) rbx,
            inout("rax") libc::SYS_getppid => _,
            inout("rdi") a, inout("rsi") b, inout("rdx") c, inout("r12") r12, inout("r15") r15,
            out("rcx") rcx, out("r11") _,
        );
    }
    eq!((a, b, c, rbx, r12, r15), (1, 2, 3, 0x11, 0x12, 0x15));
    check!(rcx != 0, "rcx is the return address");
    Ok(())
}

/// Of `linux/personality.h`.
const UNAME26: u32 = 0x0002_0000;
const PER_LINUX32: u32 = 8;

fn names() -> Result<(String, String), String> {
    let mut names: libc::utsname = zeroed();
    ok!(sys!(SYS_uname, &mut names));
    let text = |field: &[libc::c_char]| {
        field.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).map(char::from).collect()
    };
    Ok((text(&names.release), text(&names.machine)))
}

fn personalities_change_the_names() -> Outcome {
    eq!(ok!(sys!(SYS_personality, 0xffff_ffffu32)), 0);
    let (release, machine) = names()?;
    let minor: u32 = ok!(release.split('.').nth(1).unwrap_or_default().parse());
    in_child(|| {
        eq!(ok!(sys!(SYS_personality, UNAME26)), 0);
        let old = names()?;
        check!(old.0.starts_with(&format!("2.6.{}", minor + 60)), "{old:?}");
        eq!(old.1, machine);
        eq!(ok!(sys!(SYS_personality, PER_LINUX32)), UNAME26 as usize);
        eq!(names()?, (release.clone(), "i686".to_owned()));
        in_child(|| {
            eq!(names()?.1, "i686");
            Ok(())
        })
    })
}

fn process_memory_calls() -> Outcome {
    let source = *b"copied";
    let mut target = [0u8; 6];
    let local = libc::iovec { iov_base: target.as_mut_ptr().cast(), iov_len: 6 };
    let remote = libc::iovec { iov_base: source.as_ptr().cast_mut().cast(), iov_len: 6 };
    eq!(ok!(sys!(SYS_process_vm_readv, pid(), &local, 1, &remote, 1, 0)), 6);
    eq!(std::hint::black_box(&target), b"copied");
    fails!(sys!(SYS_process_vm_readv, 0x3fff_ffff, &local, 1, &remote, 1, 0), ESRCH);
    fails!(sys!(SYS_process_vm_readv, pid(), &local, 1, &remote, 1, 1), EINVAL);
    Ok(())
}

fn kcmp_and_identity() -> Outcome {
    eq!(ok!(sys!(SYS_getpid)) as i32, pid());
    eq!(tid(), pid());
    eq!(ok!(sys!(SYS_set_tid_address, 0)) as i32, tid());
    let pid = ok!(child(|| i32::from(pid() != tid())));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn refused_administration() -> Outcome {
    in_child(|| {
        ok!(proc::drop_root());
        fails!(sys!(SYS_reboot, 0xfee1_deadu32, 672_274_793, 0, 0), EPERM);
        fails!(sys!(SYS_swapon, c"x", 0), EPERM);
        fails!(sys!(SYS_mount, c"x", c"/tmp", c"tmpfs", 0, 0), EPERM);
        fails!(sys!(SYS_umount2, c"/tmp", 0), EPERM);
        fails!(sys!(SYS_sethostname, b"x".as_ptr(), 1), EPERM);
        fails!(sys!(SYS_pivot_root, c"/", c"/"), EPERM);
        fails!(sys!(SYS_acct, c"x"), EPERM);
        fails!(sys!(SYS_vhangup), EPERM);
        Ok(())
    })
}

fn memory_policies_of_one_node() -> Outcome {
    const BIND: i32 = 2;
    const LOCAL: i32 = 4;
    const ADDR: i32 = 2;
    let mut mode = 9i32;
    let mut mask = [u64::MAX; 16];
    if sys!(SYS_get_mempolicy, &mut mode, &mut mask, 1024, 0, 0) == Err(libc::ENOSYS) {
        return Ok(());
    }
    eq!((mode, mask), (0, [0; 16]));
    let node = [1u64; 1];
    ok!(sys!(SYS_set_mempolicy, BIND, &node, 64));
    ok!(sys!(SYS_get_mempolicy, &mut mode, &mut mask, 1024, 0, 0));
    eq!((mode, mask[0]), (BIND, 1));
    fails!(sys!(SYS_set_mempolicy, BIND, 0, 0), EINVAL);
    fails!(sys!(SYS_set_mempolicy, 0, &node, 64), EINVAL);
    fails!(sys!(SYS_set_mempolicy, 99, 0, 0), EINVAL);
    fails!(sys!(SYS_set_mempolicy, BIND, 8, 64), EFAULT);
    // "Preferred" without a node is "local".
    ok!(sys!(SYS_set_mempolicy, 1, 0, 0));
    ok!(sys!(SYS_get_mempolicy, &mut mode, 0, 0, 0, 0));
    eq!(mode, LOCAL);
    ok!(sys!(SYS_set_mempolicy, 0, 0, 0));

    let map = ok!(Map::anonymous(3 * PAGE, libc::MAP_PRIVATE));
    let middle = map.addr + PAGE;
    ok!(sys!(SYS_mbind, middle, PAGE, BIND | 1 << 15, &node, 64, 0));
    for (at, wanted) in [(map.addr, 0), (middle, BIND | 1 << 15), (middle + PAGE, 0)] {
        ok!(sys!(SYS_get_mempolicy, &mut mode, 0, 0, at, ADDR));
        eq!(mode, wanted);
    }
    fails!(sys!(SYS_get_mempolicy, &mut mode, 0, 0, 0, ADDR), EFAULT);
    fails!(sys!(SYS_get_mempolicy, &mut mode, 0, 0, middle, 0), EINVAL);
    fails!(sys!(SYS_get_mempolicy, &mut mode, 0, 0, 0, 64), EINVAL);
    fails!(sys!(SYS_mbind, middle + 1, PAGE, BIND, &node, 64, 0), EINVAL);
    fails!(sys!(SYS_mbind, middle, PAGE, BIND, &node, 64, 64), EINVAL);
    ok!(sys!(SYS_set_mempolicy_home_node, middle, PAGE, 0, 0));
    fails!(sys!(SYS_set_mempolicy_home_node, middle, PAGE, 0, 1), EINVAL);
    fails!(sys!(SYS_set_mempolicy_home_node, map.addr, PAGE, 0, 0), ENOENT);
    ok!(sys!(SYS_mbind, middle, PAGE, 0, 0, 0, 0));
    ok!(sys!(SYS_munmap, middle, PAGE));
    fails!(sys!(SYS_mbind, map.addr, 3 * PAGE, BIND, &node, 64, 0), EFAULT);
    fails!(sys!(SYS_migrate_pages, 0x3fff_ffff, 64, &node, &node), ESRCH);
    Ok(())
}

fn file_system_types() -> Outcome {
    let n = match sys!(SYS_sysfs, 3) {
        Err(libc::ENOSYS) => return Ok(()),
        n => ok!(n),
    };
    let index = ok!(sys!(SYS_sysfs, 1, c"proc"));
    check!(index < n);
    let mut name = [0u8; 64];
    ok!(sys!(SYS_sysfs, 2, index, &mut name));
    eq!(&name[..5], b"proc\0");
    fails!(sys!(SYS_sysfs, 2, n, &mut name), EINVAL);
    fails!(sys!(SYS_sysfs, 1, c"no-such-type"), EINVAL);
    fails!(sys!(SYS_sysfs, 1, 8), EFAULT);
    fails!(sys!(SYS_sysfs, 4), EINVAL);
    let mut stat = zeroed::<libc::stat>();
    ok!(sys!(SYS_stat, c"/proc", &mut stat));
    let mut ustat = [1u64; 4];
    ok!(sys!(SYS_ustat, stat.st_dev, &mut ustat));
    eq!(ustat[0], 0);
    fails!(sys!(SYS_ustat, u32::MAX, &mut ustat), EINVAL);
    fails!(sys!(SYS_ustat, stat.st_dev, 8), EFAULT);
    Ok(())
}

fn promised_run_time() -> Outcome {
    const RESET_ON_FORK: u64 = 1;
    let of = |flags: u64, runtime: u64, deadline: u64, period: u64| {
        [48 | 6 << 32, flags, 0, runtime, deadline, period]
    };
    in_child(|| {
        match sys!(SYS_sched_setattr, 0, &of(RESET_ON_FORK, 1_000_000, 10_000_000, 20_000_000), 0) {
            // The machine may have no such scheduling, or none in this control group.
            Err(libc::EPERM | libc::EBUSY | libc::EINVAL) => return Ok(()),
            result => ok!(result),
        };
        let mut now = [0u64; 6];
        ok!(sys!(SYS_sched_getattr, 0, &mut now, 48, 0));
        eq!(now[0] >> 32, 6);
        eq!(now[3..], [1_000_000, 10_000_000, 20_000_000]);
        for bad in [of(0, 100, 10_000_000, 0), of(0, 2_000_000, 1_000_000, 0), of(0, 1 << 20, 0, 0)]
        {
            fails!(sys!(SYS_sched_setattr, 0, &bad, 0), EINVAL);
        }
        ok!(sys!(SYS_sched_setattr, 0, &of(0, 1_000_000, 10_000_000, 0), 0));
        fails!(sys!(SYS_fork), EAGAIN);
        Ok(())
    })
}

guest_tests::cases!(
    memory_policies_of_one_node,
    file_system_types,
    promised_run_time,
    limit_get_and_set,
    limit_of_another_process,
    scheduler_policies,
    affinity_mask,
    affinity_places_threads,
    nice_values,
    nice_threads_let_others_go_first,
    process_names,
    prctl_switches,
    uname_tells,
    host_names_can_change,
    sysinfo_tells,
    random_bytes,
    device_nodes,
    device_truncation_and_seek,
    shared_memory_directory,
    unknown_calls,
    upper_halves_of_numbers_are_ignored,
    registers_survive_calls,
    personalities_change_the_names,
    process_memory_calls,
    kcmp_and_identity,
    refused_administration,
);
