//! Filters of system calls: `seccomp(2)`, `prctl(PR_SET_SECCOMP)`.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use guest_tests::fs::{close, open, pipe, put, read_all};
use guest_tests::proc::{End, child, drop_root, in_child, pid, tid, until, wait};
use guest_tests::quick;
use guest_tests::{Outcome, check, eq, fails, ok, sig, sys};
use libc::{PR_GET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP};

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRACE: u32 = 0x7ff0_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const TSYNC: u32 = 1;
const TSYNC_ESRCH: u32 = 16;

const ARCH: u32 = 0xc000_003e;

/// The kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn(u16, u8, u8, u32);

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    insns: *const Insn,
}

fn load(offset: u32) -> Insn {
    Insn(0x20, 0, 0, offset)
}

fn unless(value: u32, skip: u8) -> Insn {
    Insn(0x15, 0, skip, value)
}

fn ret(action: u32) -> Insn {
    Insn(6, 0, 0, action)
}

fn install(insns: &[Insn], flags: u32) -> Result<usize, i32> {
    let program = Program { len: insns.len() as u16, insns: insns.as_ptr() };
    sys!(SYS_seccomp, SET_MODE_FILTER, flags, &program)
}

/// Gives this process a filter for one call.
fn filter(number: i64, action: u32) -> Result<usize, i32> {
    filter_with(number, action, 0)
}

fn filter_with(number: i64, action: u32, flags: u32) -> Result<usize, i32> {
    install(&[load(0), unless(number as u32, 1), ret(action), ret(ALLOW)], flags)
}

/// Returns the two lines of `/proc/PID/status`.
fn status() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let lines = status.lines().filter(|line| line.starts_with("Seccomp"));
    lines.collect::<Vec<_>>().join(" ")
}

fn strict() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let ends_well = ok!(child(|| {
        if sys!(SYS_prctl, PR_GET_SECCOMP) != Ok(0) || sys!(SYS_prctl, PR_SET_SECCOMP, 1) != Ok(0) {
            return 1;
        }
        let _ = sys!(SYS_write, writer, b"x", 1);
        let _ = sys!(SYS_exit, 7);
        2
    }));
    eq!(ok!(wait(ends_well)), End::Code(7));
    for number in [libc::SYS_getpid, libc::SYS_exit_group, libc::SYS_openat] {
        let killed = ok!(child(|| {
            let _ = sys!(SYS_seccomp, SET_MODE_STRICT, 0, 0);
            let _ = guest_tests::raw(number, [0; 6]);
            let _ = sys!(SYS_exit, 7);
            2
        }));
        eq!(ok!(wait(killed)), End::Signal(libc::SIGKILL));
    }
    fails!(sys!(SYS_seccomp, SET_MODE_STRICT, 1, 0), EINVAL);
    fails!(sys!(SYS_seccomp, SET_MODE_STRICT, 0, 8), EINVAL);
    fails!(sys!(SYS_prctl, PR_SET_SECCOMP, 0), EINVAL);
    fails!(sys!(SYS_prctl, PR_SET_SECCOMP, 3), EINVAL);
    ok!(close(writer));
    eq!(ok!(read_all(reader)), b"x");
    Ok(())
}

fn errors() -> Outcome {
    // Often enough for a call that something quicker than the kernel answers.
    for _ in 0..200 {
        check!(ppid().is_ok());
    }
    ok!(filter(libc::SYS_getppid, ERRNO | 77));
    for _ in 0..200 {
        eq!(ppid(), Err(77));
    }
    check!(sys!(SYS_getpid).is_ok());
    eq!(ok!(sys!(SYS_prctl, PR_GET_SECCOMP)), 2);
    ok!(filter(libc::SYS_getuid, ERRNO));
    ok!(filter(libc::SYS_getgid, ERRNO | 0xffff));
    eq!(sys!(SYS_getuid), Ok(0));
    eq!(sys!(SYS_getgid), Err(4095));
    // A filter that is older counts as well; of two that say the same kind of thing, the newer.
    ok!(filter(libc::SYS_getppid, ERRNO | 78));
    eq!(ppid(), Err(78));
    ok!(filter(libc::SYS_getppid, LOG));
    eq!(ppid(), Err(78));
    ok!(filter(libc::SYS_getppid, TRACE));
    eq!(ppid(), Err(78));
    ok!(filter(libc::SYS_getegid, TRACE));
    fails!(sys!(SYS_getegid), ENOSYS);
    ok!(filter(libc::SYS_geteuid, LOG));
    check!(sys!(SYS_geteuid).is_ok());
    eq!(status(), "Seccomp:\t2 Seccomp_filters:\t8");
    fails!(sys!(SYS_prctl, PR_SET_SECCOMP, 1), EINVAL);
    Ok(())
}

#[inline(never)]
fn ppid() -> Result<usize, i32> {
    sys!(SYS_getppid)
}

fn arguments() -> Outcome {
    // Both halves of each argument; the architecture; the length.
    let insns = [
        load(4),
        unless(ARCH, 7),
        load(0),
        unless(libc::SYS_lseek as u32, 5),
        load(16 + 8),
        unless(5, 3),
        load(16 + 12),
        unless(1, 1),
        ret(ERRNO | 91),
        ret(ALLOW),
    ];
    ok!(install(&insns, 0));
    eq!(sys!(SYS_lseek, -1, 0x1_0000_0005usize, 0), Err(91));
    fails!(sys!(SYS_lseek, -1, 5, 0), EBADF);
    fails!(sys!(SYS_lseek, -1, 0x1_0000_0004usize, 0), EBADF);
    // Every operation in one program: ((nr + 3) * 2 ^ 5) & 0xff | 1, less 1, through memory and X.
    let number = libc::SYS_getppid as u32;
    let expected = ((((number + 3) * 2) ^ 5) & 0xff | 1) - 1;
    let calculating = [
        load(0),
        Insn(0x04, 0, 0, 3),
        Insn(0x24, 0, 0, 2),
        Insn(0xa4, 0, 0, 5),
        Insn(0x54, 0, 0, 0xff),
        Insn(0x44, 0, 0, 1),
        Insn(0x02, 0, 0, 7),
        Insn(0x00, 0, 0, 0),
        Insn(0x61, 0, 0, 7),
        Insn(0x87, 0, 0, 0),
        Insn(0x14, 0, 0, 1),
        unless(expected, 1),
        ret(ERRNO | 92),
        ret(ALLOW),
    ];
    ok!(install(&calculating, 0));
    eq!(ppid(), Err(92));
    let length = [
        Insn(0x80, 0, 0, 0),
        unless(64, 3),
        load(0),
        unless(libc::SYS_getuid as u32, 1),
        ret(ERRNO | 93),
        ret(ALLOW),
    ];
    ok!(install(&length, 0));
    eq!(sys!(SYS_getuid), Err(93));
    // The address of the call.
    let address = [
        load(12),
        unless(0, 1),
        Insn(0x05, 0, 0, 1),
        ret(ALLOW),
        load(8),
        unless(0, 1),
        ret(ERRNO | 94),
        ret(ALLOW),
    ];
    ok!(install(&address, 0));
    check!(sys!(SYS_getgid).is_ok());
    Ok(())
}

static CALL: AtomicI32 = AtomicI32::new(0);
static DATUM: AtomicI32 = AtomicI32::new(0);
static TRAP_ARCH: AtomicU32 = AtomicU32::new(0);

/// Notes what has been trapped, and gives the call a result.
extern "C" fn trapped(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo of 128 bytes, and a ucontext.
    unsafe {
        let words = info.cast::<u32>();
        DATUM.store((*info).si_errno, Ordering::SeqCst);
        sig::CODE.store((*info).si_code, Ordering::SeqCst);
        CALL.store(words.add(6).read() as i32, Ordering::SeqCst);
        TRAP_ARCH.store(words.add(7).read(), Ordering::SeqCst);
        let at = words.cast::<usize>().add(2).read();
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        sig::ADDR.store(at.wrapping_sub(registers[16] as usize), Ordering::SeqCst);
        // The number of the call is in rax, as if it had not been made.
        registers[13] += 1000;
    }
}

fn traps() -> Outcome {
    ok!(sig::handle(libc::SIGSYS, trapped, 0));
    ok!(filter(libc::SYS_getppid, TRAP | 123));
    for _ in 0..50 {
        eq!(ppid(), Ok(1000 + libc::SYS_getppid as usize));
    }
    eq!(
        (DATUM.load(Ordering::SeqCst), CALL.load(Ordering::SeqCst)),
        (123, libc::SYS_getppid as i32)
    );
    eq!((TRAP_ARCH.load(Ordering::SeqCst), sig::CODE.load(Ordering::SeqCst)), (ARCH, 1));
    eq!(sig::ADDR.load(Ordering::SeqCst), 0);
    // It cannot be blocked or ignored.
    let blocked = ok!(child(|| {
        let _ = sig::block(libc::SIGSYS);
        let _ = ppid();
        0
    }));
    eq!(ok!(wait(blocked)), End::Signal(libc::SIGSYS));
    let ignored = ok!(child(|| {
        let _ = sig::plain(libc::SIGSYS, 1);
        let _ = ppid();
        0
    }));
    eq!(ok!(wait(ignored)), End::Signal(libc::SIGSYS));
    Ok(())
}

fn kills() -> Outcome {
    for action in [KILL_THREAD, KILL_PROCESS, 0x1234_0000] {
        let killed = ok!(child(|| {
            let _ = filter(libc::SYS_getppid, action);
            let _ = ppid();
            0
        }));
        eq!(ok!(wait(killed)), End::Signal(libc::SIGSYS));
    }
    // All threads, or the one.
    let killed = ok!(child(|| {
        let _ = filter(libc::SYS_getppid, KILL_PROCESS);
        let _ = std::thread::spawn(ppid).join();
        0
    }));
    eq!(ok!(wait(killed)), End::Signal(libc::SIGSYS));
    let survived = ok!(child(|| {
        let _ = filter(libc::SYS_getppid, KILL_THREAD);
        let thread = AtomicI32::new(0);
        let has_gone = || {
            let thread = thread.load(Ordering::SeqCst);
            thread != 0 && sys!(SYS_tgkill, pid(), thread, 0) == Err(libc::ESRCH)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                thread.store(tid(), Ordering::SeqCst);
                let _ = ppid();
                let _ = sys!(SYS_exit_group, 2);
            });
            // Nobody can join it: it has not said that it is gone.
            if until(has_gone) {
                let _ = sys!(SYS_exit_group, 5);
            }
            let _ = sys!(SYS_exit_group, 3);
        });
        0
    }));
    eq!(ok!(wait(survived)), End::Code(5));
    Ok(())
}

fn privileges() -> Outcome {
    ok!(in_child(|| {
        ok!(drop_root());
        fails!(filter(libc::SYS_getppid, ERRNO | 5), EACCES);
        ok!(sys!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        ok!(filter(libc::SYS_getppid, ERRNO | 5));
        eq!(ppid(), Err(5));
        Ok(())
    }));
    Ok(())
}

fn inheritance() -> Outcome {
    ok!(filter(libc::SYS_getppid, ERRNO | 33));
    ok!(in_child(|| {
        eq!(ppid(), Err(33));
        eq!(status(), "Seccomp:\t2 Seccomp_filters:\t1");
        ok!(filter(libc::SYS_getuid, ERRNO | 34));
        eq!(status(), "Seccomp:\t2 Seccomp_filters:\t2");
        Ok(())
    }));
    check!(sys!(SYS_getuid).is_ok());
    let in_thread = std::thread::spawn(|| {
        let first = ppid();
        let _ = filter(libc::SYS_getuid, ERRNO | 34);
        (first, sys!(SYS_getuid))
    });
    eq!(in_thread.join().ok(), Some((Err(33), Err(34))));
    // A thread's filter is its own.
    check!(sys!(SYS_getuid).is_ok());
    let (reader, writer) = ok!(pipe(0));
    let executed = ok!(child(|| {
        let _ = sys!(SYS_dup2, writer, 1);
        let _ = filter(libc::SYS_write, ERRNO | 5);
        let args = [c"/proc/self/exe".as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let env = [core::ptr::null::<u8>()];
        let _ = sys!(SYS_execve, c"/proc/self/exe", &args, &env);
        99
    }));
    ok!(close(writer));
    check!(matches!(ok!(wait(executed)), End::Code(0 | 101) | End::Signal(libc::SIGABRT)));
    eq!(ok!(read_all(reader)), b"");
    Ok(())
}

fn synchronisation() -> Outcome {
    let stage = AtomicI32::new(0);
    let reach = |wanted: i32| until(|| stage.load(Ordering::SeqCst) >= wanted);
    let result = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            // Often enough for a call that something quicker than the kernel answers.
            for _ in 0..200 {
                let _ = ppid();
            }
            stage.store(1, Ordering::SeqCst);
            if !reach(2) {
                return (Ok(0), Ok(0), 0);
            }
            let first = ppid();
            let _ = filter(libc::SYS_getuid, ERRNO | 12);
            stage.store(3, Ordering::SeqCst);
            let reached = reach(4);
            (first, sys!(SYS_getgid), if reached { tid() } else { 0 })
        });
        let at_work = reach(1);
        let first = filter_with(libc::SYS_getppid, ERRNO | 11, TSYNC);
        stage.store(2, Ordering::SeqCst);
        let diverged = reach(3);
        // It has a filter that this thread has not.
        let second = filter_with(libc::SYS_getgid, ERRNO | 13, TSYNC);
        let third = filter_with(libc::SYS_getgid, ERRNO | 13, TSYNC | TSYNC_ESRCH);
        stage.store(4, Ordering::SeqCst);
        (at_work && diverged, first, second, third, other.join())
    });
    let (reached, first, second, third, other) = result;
    check!(reached);
    let Ok((of_other, group, thread)) = other else { return Err("the thread has died".into()) };
    eq!((first, of_other), (Ok(0), Err(11)));
    eq!((second, third), (Ok(thread as usize), Err(libc::ESRCH)));
    check!(group.is_ok());
    check!(sys!(SYS_getgid).is_ok());
    Ok(())
}

/// A length that filters are asked about.
const REFUSED: usize = 77;

/// Refuses a call whose third argument is [`REFUSED`].
fn filter_of_length(number: i64) -> Result<usize, i32> {
    let third = load(16 + 2 * 8);
    let refusal = [unless(REFUSED as u32, 1), ret(ERRNO | 91), ret(ALLOW)];
    let [other, refused, allowed] = refusal;
    install(&[load(0), unless(number as u32, 3), third, other, refused, allowed], 0)
}

fn lively_descriptors() -> Outcome {
    // Where a filter looks at the arguments it is asked each time, however often the answer was the same.
    ok!(put(c"lively", &[1; 4096]));
    let file = ok!(open(c"lively", libc::O_RDONLY)) as usize;
    let (reader, writer) = ok!(pipe(0));
    let [reader, writer] = [reader as usize, writer as usize];
    let mut buf = [0u8; REFUSED];
    let addr = buf.as_mut_ptr().expose_provenance();
    let enliven = || -> Outcome {
        for _ in 0..300 {
            eq!(ok!(quick::write([writer, addr, 1, 0])), 1);
            eq!(ok!(quick::read([reader, addr, 1, 0])), 1);
            eq!(ok!(quick::pread([file, addr, 1, 0])), 1);
            eq!(ok!(quick::seek([file, 3, 0, 0])), 3);
            eq!(ok!(quick::read([file, addr, 1, 0])), 1);
            eq!(ok!(quick::umask([0o22, 0, 0, 0])), 0o22);
        }
        Ok(())
    };
    ok!(quick::umask([0o22, 0, 0, 0]));
    enliven()?;
    eq!(ok!(quick::write([writer, addr, REFUSED, 0])), REFUSED);
    eq!(ok!(quick::read([reader, addr, REFUSED, 0])), REFUSED);
    eq!(ok!(quick::pread([file, addr, REFUSED, 0])), REFUSED);
    for number in [libc::SYS_write, libc::SYS_pread64, libc::SYS_read] {
        ok!(filter_of_length(number));
        for _ in 0..2 {
            eq!(quick::pread([file, addr, REFUSED, 0]).is_ok(), number == libc::SYS_write);
            if number == libc::SYS_read {
                eq!(quick::read([file, addr, REFUSED, 0]), Err(91));
            }
            eq!(quick::write([writer, addr, REFUSED, 0]), Err(91));
            enliven()?;
        }
    }
    for number in [libc::SYS_lseek, libc::SYS_umask] {
        ok!(filter(number, ERRNO | 92));
    }
    eq!(quick::seek([file, 3, 0, 0]), Err(92));
    eq!(quick::umask([0, 0, 0, 0]), Err(92));
    Ok(())
}

fn bad_programs() -> Outcome {
    let end = ret(ALLOW);
    fails!(install(&[], 0), EINVAL);
    fails!(install(&[load(0)], 0), EINVAL);
    fails!(install(&[load(64), end], 0), EINVAL);
    fails!(install(&[load(1), end], 0), EINVAL);
    fails!(install(&[Insn(0x28, 0, 0, 0), end], 0), EINVAL);
    fails!(install(&[Insn(0x40, 0, 0, 0), end], 0), EINVAL);
    fails!(install(&[Insn(0x60, 0, 0, 0), end], 0), EINVAL);
    fails!(install(&[Insn(0x05, 0, 0, 1), end], 0), EINVAL);
    fails!(install(&[Insn(0x34, 0, 0, 0), end], 0), EINVAL);
    fails!(install(&[Insn(0x94, 0, 0, 3), end], 0), EINVAL);
    fails!(install(&[Insn(0x64, 0, 0, 32), end], 0), EINVAL);
    fails!(install(&[unless(1, 1), end], 0), EINVAL);
    fails!(install(&[end], 0x8000), EINVAL);
    fails!(sys!(SYS_seccomp, SET_MODE_FILTER, 0, 8), EFAULT);
    let program = Program { len: 4, insns: 8 as *const Insn };
    fails!(sys!(SYS_seccomp, SET_MODE_FILTER, 0, &program), EFAULT);
    fails!(sys!(SYS_prctl, PR_SET_SECCOMP, 2, 8), EFAULT);
    fails!(sys!(SYS_seccomp, 77, 0, 0), EINVAL);
    for action in [ALLOW, LOG, TRACE, ERRNO, TRAP, KILL_THREAD, KILL_PROCESS] {
        ok!(sys!(SYS_seccomp, GET_ACTION_AVAIL, 0, &action));
    }
    fails!(sys!(SYS_seccomp, GET_ACTION_AVAIL, 0, &0x1234_0000u32), EOPNOTSUPP);
    fails!(sys!(SYS_seccomp, GET_ACTION_AVAIL, 1, &ALLOW), EINVAL);
    fails!(sys!(SYS_seccomp, GET_ACTION_AVAIL, 0, 8), EFAULT);
    eq!(status(), "Seccomp:\t0 Seccomp_filters:\t0");
    // There is an end to how long the way through all of them may be.
    let longest = vec![end; 4096];
    let mut n = 0;
    while install(&longest, 0).is_ok() {
        n += 1;
    }
    check!((1..10).contains(&n));
    fails!(install(&longest, 0), ENOMEM);
    check!(sys!(SYS_getppid).is_ok());
    Ok(())
}

guest_tests::cases!(
    strict,
    errors,
    arguments,
    traps,
    kills,
    privileges,
    inheritance,
    synchronisation,
    lively_descriptors,
    bad_programs,
);
