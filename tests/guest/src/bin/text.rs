//! Calls from code in a file that several threads execute at once, at every place that the code can have
//! in a page, while signals and copies of the process come between.

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, in_child, pid, wait};
use guest_tests::{Outcome, check, eq, fails, ok, quick, sig, sys};

/// `mov $number, %eax; syscall; ret`.
const SITE_LEN: usize = 8;
/// From one site to the next: every place in a cache line comes.
const STRIDE: usize = 13;
const LEN: usize = 2 * PAGE;
const N_SITES: usize = (LEN - SITE_LEN) / STRIDE;
/// A descriptor that is none.
const NO_FD: usize = 0x7fff_fff0;
/// Calls whose results are known, all with that argument.
const NUMBERS: [libc::c_long; 3] = [libc::SYS_getppid, libc::SYS_dup, libc::SYS_lseek];
const N_THREADS: usize = 3;
/// How often a thread makes the call of a site in turn.
const N_CALLS: usize = 12;

/// Returns the code: a site at every multiple of the stride.
fn code() -> Vec<u8> {
    let mut code = vec![0x90; LEN];
    for i in 0..N_SITES {
        let [n0, n1, n2, n3] = (NUMBERS[i % NUMBERS.len()] as u32).to_le_bytes();
        let site = [0xb8, n0, n1, n2, n3, 0x0f, 0x05, 0xc3];
        code[i * STRIDE..][..SITE_LEN].copy_from_slice(&site);
    }
    code
}

/// Maps the code as a program's text is mapped.
fn map() -> Result<Map, i32> {
    let fd = sys!(SYS_memfd_create, c"text".as_ptr(), 0)?;
    let code = code();
    let written = sys!(SYS_write, fd, code.as_ptr(), code.len())?;
    assert_eq!(written, LEN);
    let map = Map::new(0, LEN, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, fd as i32, 0)?;
    sys!(SYS_close, fd)?;
    Ok(map)
}

/// Makes the call of a site.
fn call(text: usize, site: usize) -> isize {
    // SAFETY: the code at the site is a function that clobbers what a call does, all of which a C function may.
    let code = unsafe {
        core::mem::transmute::<usize, extern "C" fn(usize) -> isize>(text + site * STRIDE)
    };
    code(NO_FD)
}

fn is_right(site: usize, result: isize, parent: isize) -> bool {
    result == if site.is_multiple_of(NUMBERS.len()) { parent } else { -libc::EBADF as isize }
}

/// Threads that make the calls of all sites, every site at the same time.
fn run_threads(text: usize, meanwhile: impl Fn() -> Outcome) -> Outcome {
    static ARRIVED: AtomicUsize = AtomicUsize::new(0);
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    ARRIVED.store(0, SeqCst);
    ENDED.store(0, SeqCst);
    let parent = ok!(sys!(SYS_getppid)) as isize;
    let threads: Vec<_> = (0..N_THREADS)
        .map(|_| {
            std::thread::spawn(move || {
                let mut wrong = Vec::new();
                for site in 0..N_SITES {
                    ARRIVED.fetch_add(1, SeqCst);
                    while ARRIVED.load(SeqCst) < (site + 1) * N_THREADS {
                        std::thread::yield_now();
                    }
                    for _ in 0..N_CALLS {
                        let result = call(text, site);
                        if !is_right(site, result, parent) {
                            wrong.push((site, result));
                        }
                    }
                }
                ENDED.fetch_add(1, SeqCst);
                wrong
            })
        })
        .collect();
    let mut outcome = Ok(());
    while ENDED.load(SeqCst) < N_THREADS {
        // The others wait for nobody but each other.
        if outcome.is_ok() {
            outcome = meanwhile();
        }
    }
    for thread in threads {
        eq!(thread.join().unwrap_or_default(), []);
    }
    outcome
}

fn threads_share_sites() -> Outcome {
    let map = ok!(map());
    run_threads(map.addr, || {
        std::thread::yield_now();
        Ok(())
    })
}

fn signals_come_between() -> Outcome {
    let map = ok!(map());
    let _action = ok!(sig::handle(libc::SIGUSR1, sig::record, libc::SA_RESTART));
    let before = sig::COUNT.load(SeqCst);
    run_threads(map.addr, || {
        ok!(sys!(SYS_kill, pid(), libc::SIGUSR1));
        std::thread::yield_now();
        Ok(())
    })?;
    check!(sig::COUNT.load(SeqCst) > before);
    Ok(())
}

/// A copy has the sites as they are at that moment, and makes the calls of all of them.
fn copies_are_made_between() -> Outcome {
    let map = ok!(map());
    run_threads(map.addr, || {
        let child = ok!(child(|| {
            let parent = sys!(SYS_getppid).unwrap_or(0) as isize;
            let right = (0..N_SITES).all(|site| is_right(site, call(map.addr, site), parent));
            i32::from(!right)
        }));
        eq!(ok!(wait(child)), End::Code(0));
        Ok(())
    })
}

/// Puts the byte [`BYTE`] back, and has it executed again.
extern "C" fn mend(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel has passed the context of the trap; the byte is writable.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] -= 1;
        let at = registers[libc::REG_RIP as usize] as *mut u8;
        at.write_volatile(BYTE.load(SeqCst) as u8);
    }
    TRAPS.fetch_add(1, SeqCst);
}

static BYTE: AtomicUsize = AtomicUsize::new(0);
static TRAPS: AtomicUsize = AtomicUsize::new(0);

/// A program's own breakpoints are its own, also where its threads have made calls.
fn breakpoints_are_the_programs() -> Outcome {
    let map = ok!(map());
    run_threads(map.addr, || Ok(()))?;
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    ok!(sys!(SYS_mprotect, map.addr, LEN, prot));
    let _action = ok!(sig::handle(libc::SIGTRAP, mend, 0));
    let parent = ok!(sys!(SYS_getppid)) as isize;
    let before = TRAPS.load(SeqCst);
    for site in 0..N_SITES {
        let place = &mut map.bytes()[site * STRIDE];
        BYTE.store(usize::from(*place), SeqCst);
        *place = 0xcc;
        check!(is_right(site, call(map.addr, site), parent));
    }
    eq!(TRAPS.load(SeqCst) - before, N_SITES);
    Ok(())
}

/// `membarrier(2)`: each of the private commands wants a registration of its own, which children inherit. Sites that
/// are patched under running threads are nobody's registration.
fn barriers_want_registrations() -> Outcome {
    let commands = ok!(sys!(SYS_membarrier, 0, 0, 0));
    check!(commands & 1 != 0);
    let (sender, receiver) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || receiver.recv());
    for _ in 0..100 {
        fails!(quick::read([usize::MAX, 0, 0, 0]), EBADF);
    }
    drop(sender);
    let _ = other.join();
    for (register, barrier) in [
        (libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED),
        (
            libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
            libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE,
        ),
    ] {
        fails!(sys!(SYS_membarrier, barrier, 0, 0), EPERM);
        ok!(sys!(SYS_membarrier, register, 0, 0));
        ok!(sys!(SYS_membarrier, barrier, 0, 0));
        ok!(in_child(|| {
            ok!(sys!(SYS_membarrier, barrier, 0, 0));
            Ok(())
        }));
    }
    fails!(sys!(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
    Ok(())
}

guest_tests::cases!(
    barriers_want_registrations,
    threads_share_sites,
    signals_come_between,
    copies_are_made_between,
    breakpoints_are_the_programs,
);
