//! Faults as signals, and what handlers must leave alone: vector registers, control words, the red zone.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use guest_tests::mem::{Map, PAGE, peek, zeroed};
use guest_tests::proc::{End, child, pid, wait};
use guest_tests::sig::{self, block, count, handle, raise, record};
use guest_tests::{Outcome, check, eq, fails, ok, proc, sys};
use libc::{SA_ONSTACK, SIGALRM, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, SIGUSR1};

/// Leaves the faulting instruction behind by a jump to where r12 says.
extern "C" fn skip(signo: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    record(signo, info, context);
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's own ucontext; the faulting code has put the address to go on at in r12.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = registers[libc::REG_R12 as usize];
    }
}

fn stack_overflow_is_caught() -> Outcome {
    fn forever(depth: u64) -> u64 {
        let pad = [depth; 512];
        let deeper = if std::hint::black_box(true) { forever(depth + 1) } else { 0 };
        deeper + std::hint::black_box(pad)[3]
    }
    extern "C" fn leave(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        guest_tests::runner::exit(44)
    }
    let pid = ok!(child(|| {
        let Ok(map) = Map::anonymous(16 * PAGE, libc::MAP_PRIVATE) else { return 1 };
        let stack = libc::stack_t { ss_sp: map.addr as *mut _, ss_flags: 0, ss_size: map.len };
        let _ = sys!(SYS_sigaltstack, &stack, 0);
        let _ = handle(SIGSEGV, leave, SA_ONSTACK);
        forever(0) as i32
    }));
    eq!(ok!(wait(pid)), End::Code(44));
    Ok(())
}

macro_rules! fault {
    ($code:literal $(, $($operand:tt)*)?) => {
        // SAFETY: the instruction faults; the handler continues at the label.
        unsafe {
            core::arch::asm!(
                "lea r12, [rip + 2f]",
                $code,
                "2:",
                $($($operand)*,)?
                out("r12") _,
                out("rax") _,
                out("rdx") _,
                out("rcx") _,
            );
        }
    };
}

fn faults_are_signals() -> Outcome {
    for signo in [SIGSEGV, SIGILL, SIGFPE, SIGTRAP, libc::SIGBUS] {
        ok!(handle(signo, skip, 0));
    }
    let last = || (sig::last(), sig::CODE.load(SeqCst));
    fault!("mov byte ptr [r10], 1", in("r10") 0x1000usize);
    eq!(last(), (SIGSEGV, 1));
    eq!(sig::ADDR.load(SeqCst), 0x1000);
    let map =
        ok!(Map::new(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    fault!("mov byte ptr [r10], 1", in("r10") map.addr + 7);
    eq!(last(), (SIGSEGV, 2));
    eq!(sig::ADDR.load(SeqCst), map.addr + 7);
    fault!("ud2");
    eq!(last(), (SIGILL, 2));
    fault!("xor edx, edx; xor ecx, ecx; mov eax, 1; div ecx");
    eq!(last(), (SIGFPE, 1));
    fault!("int3");
    eq!(last(), (SIGTRAP, libc::SI_KERNEL));
    fault!("mov al, [r10]", in("r10") 0x8000_0000_0000_0000usize);
    eq!(last(), (SIGSEGV, libc::SI_KERNEL));
    fault!("hlt");
    eq!(last(), (SIGSEGV, libc::SI_KERNEL));
    eq!(count(), 7);
    Ok(())
}

fn fault_context_is_complete() -> Outcome {
    static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    extern "C" fn look(signo: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let registers = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel's own ucontext.
        unsafe {
            let all = (*registers).uc_mcontext.gregs;
            for (slot, register) in
                SEEN.iter().zip([libc::REG_R8, libc::REG_R13, libc::REG_R14, libc::REG_TRAPNO])
            {
                slot.store(all[register as usize] as u64, SeqCst);
            }
        }
        skip(signo, info, context);
    }
    ok!(handle(SIGILL, look, 0));
    let (mut r13, mut r14) = (0x1313u64, 0x1414u64);
    // SAFETY: as in `fault!`.
    unsafe {
        core::arch::asm!(
            "lea r12, [rip + 2f]",
            "mov r8, 0x808",
            "ud2",
            "2:",
            inout("r13") r13, inout("r14") r14, out("r12") _, out("r8") _,
        );
    }
    eq!((r13, r14), (0x1313, 0x1414));
    let seen: Vec<u64> = SEEN.iter().map(|slot| slot.load(SeqCst)).collect();
    eq!(seen, [0x808, 0x1313, 0x1414, 6]);
    Ok(())
}

fn blocked_fault_kills() -> Outcome {
    let pid = ok!(child(|| {
        let _ = sys!(
            SYS_prlimit64,
            0,
            libc::RLIMIT_CORE,
            &libc::rlimit { rlim_cur: 0, rlim_max: 0 },
            0
        );
        let _ = handle(SIGSEGV, record, 0);
        let _ = block(SIGSEGV);
        i32::from(peek(0x1000))
    }));
    eq!(ok!(wait(pid)), End::Signal(SIGSEGV));
    Ok(())
}

fn fault_in_a_system_call_is_efault() -> Outcome {
    ok!(handle(SIGSEGV, record, 0));
    fails!(sys!(SYS_getcwd, 0x1000, 100), EFAULT);
    eq!(count(), 0);
    Ok(())
}

extern "C" fn clobber_vectors(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: only clobbers registers that it declares.
    unsafe {
        core::arch::asm!(
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
            out("xmm0") _, out("xmm1") _, out("xmm7") _, out("xmm15") _,
        );
    }
    sig::COUNT.fetch_add(1, SeqCst);
}

fn vector_registers_survive_handlers() -> Outcome {
    ok!(handle(SIGUSR1, clobber_vectors, 0));
    let (me, thread) = (pid(), proc::tid());
    for round in 0..200u64 {
        let (mut a, mut b, mut c) = (round * 3 + 1, round * 5 + 2, round * 7 + 3);
        // SAFETY: a system call that sends this thread a signal, with values held in vector registers.
        unsafe {
            core::arch::asm!(
                "movq xmm1, {a}", "movq xmm7, {b}", "movq xmm15, {c}",
                "syscall",
                "movq {a}, xmm1", "movq {b}, xmm7", "movq {c}, xmm15",
                a = inout(reg) a, b = inout(reg) b, c = inout(reg) c,
                inout("rax") libc::SYS_tgkill => _,
                in("rdi") me, in("rsi") thread, in("rdx") SIGUSR1,
                out("rcx") _, out("r11") _, out("xmm1") _, out("xmm7") _, out("xmm15") _,
            );
        }
        eq!((a, b, c), (round * 3 + 1, round * 5 + 2, round * 7 + 3));
    }
    eq!(count(), 200);
    Ok(())
}

fn control_words_survive_handlers() -> Outcome {
    extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        let mut csr = 0x1f80u32;
        // SAFETY: loads the default control words.
        unsafe {
            core::arch::asm!("ldmxcsr [{}]", "fninit", in(reg) core::ptr::from_mut(&mut csr));
        };
        sig::COUNT.fetch_add(1, SeqCst);
    }
    ok!(handle(SIGUSR1, handler, 0));
    let (mut csr, mut cw) = (0x7f80u32, 0x0c7fu16);
    // SAFETY: changes the rounding mode, and puts it back below.
    unsafe {
        core::arch::asm!("ldmxcsr [{0}]", "fldcw [{1}]", in(reg) core::ptr::from_mut(&mut csr), in(reg) core::ptr::from_mut(&mut cw));
    }
    let sent = raise(SIGUSR1);
    let (mut csr_after, mut cw_after, mut csr_default) = (0u32, 0u16, 0x1f80u32);
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("stmxcsr [{0}]", "fnstcw [{1}]", in(reg) core::ptr::from_mut(&mut csr_after), in(reg) core::ptr::from_mut(&mut cw_after));
        core::arch::asm!("ldmxcsr [{0}]", "fninit", in(reg) core::ptr::from_mut(&mut csr_default));
    }
    ok!(sent);
    eq!((count(), csr_after & 0xffc0, cw_after), (1, 0x7f80, 0x0c7f));
    Ok(())
}

fn asynchronous_signals_leave_no_trace() -> Outcome {
    // A timer interrupts a computation at arbitrary instructions, thousands of times.
    ok!(handle(SIGALRM, clobber_vectors, 0));
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 200 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 200 },
    };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &timer, 0));
    let compute = || {
        let (mut float, mut int) = (1.0f64, 1u64);
        for i in 1..200_000u64 {
            float = float.mul_add(1.000_000_1, 1.0 / i as f64);
            int = int.rotate_left(7) ^ (int.wrapping_mul(0x9e37_79b9_7f4a_7c15) + i);
        }
        (float.to_bits(), int)
    };
    let first = compute();
    let mut rounds = 0;
    while count() < 300 && rounds < 2000 {
        check!(compute() == first, "a computation went wrong after {} signals", count());
        rounds += 1;
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), 0));
    check!(count() >= 300, "only {} signals", count());
    Ok(())
}

fn red_zone_survives() -> Outcome {
    ok!(handle(SIGALRM, record, 0));
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 200 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 200 },
    };
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &timer, 0));
    while count() < 100 {
        let bad: u64;
        // SAFETY: uses the 128 bytes below the stack pointer, which are this function's.
        unsafe {
            core::arch::asm!(
                "mov qword ptr [rsp - 8], 0x1234",
                "mov qword ptr [rsp - 128], 0x5678",
                "mov {n}, 20000",
                "3: dec {n}",
                "jnz 3b",
                "mov {bad}, [rsp - 8]",
                "sub {bad}, 0x1234",
                "mov {n}, [rsp - 128]",
                "sub {n}, 0x5678",
                "or {bad}, {n}",
                n = out(reg) _, bad = out(reg) bad,
            );
        }
        check!(bad == 0, "red zone was written");
    }
    ok!(sys!(SYS_setitimer, libc::ITIMER_REAL, &zeroed::<libc::itimerval>(), 0));
    Ok(())
}

fn bad_frame_kills() -> Outcome {
    // No stack to put a frame on: SIGSEGV, which cannot be delivered either.
    let pid = ok!(child(|| {
        let _ = sys!(
            SYS_prlimit64,
            0,
            libc::RLIMIT_CORE,
            &libc::rlimit { rlim_cur: 0, rlim_max: 0 },
            0
        );
        let _ = handle(SIGUSR1, record, 0);
        let _ = sig::plain(SIGSEGV, 0);
        let (me, thread) = (pid(), proc::tid());
        // SAFETY: the process dies in this call.
        unsafe {
            core::arch::asm!(
                "mov rsp, 0x1000", "syscall", "ud2",
                in("rax") libc::SYS_tgkill, in("rdi") me, in("rsi") thread, in("rdx") SIGUSR1,
                options(noreturn)
            );
        }
    }));
    eq!(ok!(wait(pid)), End::Signal(SIGSEGV));
    Ok(())
}

fn forged_sigreturn_is_harmless() -> Outcome {
    let pid = ok!(child(|| {
        let _ = sys!(
            SYS_prlimit64,
            0,
            libc::RLIMIT_CORE,
            &libc::rlimit { rlim_cur: 0, rlim_max: 0 },
            0
        );
        let _ = sig::plain(SIGSEGV, 0);
        // SAFETY: sigreturn without a frame: the process dies.
        unsafe {
            core::arch::asm!("mov rsp, 0x1000", "syscall", "ud2", in("rax") libc::SYS_rt_sigreturn, options(noreturn))
        };
    }));
    eq!(ok!(wait(pid)), End::Signal(SIGSEGV));
    Ok(())
}

guest_tests::cases!(
    stack_overflow_is_caught,
    faults_are_signals,
    fault_context_is_complete,
    blocked_fault_kills,
    fault_in_a_system_call_is_efault,
    vector_registers_survive_handlers,
    control_words_survive_handlers,
    asynchronous_signals_leave_no_trace,
    red_zone_survives,
    bad_frame_kills,
    forged_sigreturn_is_harmless,
);
