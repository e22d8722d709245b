//! For programs that attack the sandbox: memory that may fault, and what lies above the guest's addresses.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::mem::PAGE;
use crate::proc::{self, End};
use crate::{errno, runner, sig, sys};

/// End of a guest's addresses in the sandbox.
pub const LIMIT: usize = 0x7e00_0000_0000;
/// End of a process's addresses on Linux.
pub const TOP: usize = 0x7fff_ffff_f000;

/// Whether the last access faulted.
static FAULTED: AtomicBool = AtomicBool::new(false);

extern "C" fn skip(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    FAULTED.store(true, SeqCst);
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's own ucontext; the code that faults has put the address to go on at in r12.
    unsafe {
        let registers = &mut (*context).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = registers[libc::REG_R12 as usize];
    }
}

/// Catches the faults of [`read()`] and [`write()`].
pub fn catch_faults() -> Result<(), i32> {
    for signo in [libc::SIGSEGV, libc::SIGBUS] {
        sig::handle(signo, skip, libc::SA_NODEFER)?;
    }
    Ok(())
}

/// Reads a word anywhere; `None` if that faults.
pub fn read(addr: usize) -> Option<u64> {
    FAULTED.store(false, SeqCst);
    let value: u64;
    // SAFETY: a fault continues at the label.
    unsafe {
        core::arch::asm!(
            "lea r12, [rip + 2f]", "xor {value}, {value}", "mov {value}, [{addr}]", "2:",
            value = out(reg) value, addr = in(reg) addr, out("r12") _,
        );
    }
    (!FAULTED.load(SeqCst)).then_some(value)
}

/// Writes a word anywhere; tells whether that went without a fault.
pub fn write(addr: usize, value: u64) -> bool {
    FAULTED.store(false, SeqCst);
    // SAFETY: a fault continues at the label; what the write breaks is the subject.
    unsafe {
        core::arch::asm!(
            "lea r12, [rip + 2f]", "mov [{addr}], {value}", "2:",
            value = in(reg) value, addr = in(reg) addr, out("r12") _,
        );
    }
    !FAULTED.load(SeqCst)
}

/// Returns the readable pages above the guest's addresses: those at every 4 GiB and after them, and whatever
/// those point to.
pub fn pages_above() -> Vec<usize> {
    let mut found = BTreeSet::new();
    let mut tried = BTreeSet::new();
    let mut wanted: Vec<usize> = (LIMIT..TOP).step_by(1 << 32).collect();
    while let Some(start) = wanted.pop() {
        let mut page = start & !(PAGE - 1);
        let mut gaps = 0;
        // Some of what is there may be large.
        let end = TOP.min(page + 128 * PAGE);
        while gaps < 8 && page < end && found.len() < 4096 {
            if !tried.insert(page) {
                break;
            }
            if read(page).is_some() {
                found.insert(page);
                gaps = 0;
                for word in (page..page + PAGE).step_by(8) {
                    let value = read(word).unwrap_or_default() as usize;
                    if (LIMIT..TOP).contains(&value) {
                        wanted.push(value);
                    }
                }
            } else {
                gaps += 1;
            }
            page += PAGE;
        }
    }
    found.into_iter().collect()
}

/// Returns the addresses of all `syscall` instructions in the given pages.
pub fn syscalls_in(pages: &[usize]) -> Vec<usize> {
    let mut found = Vec::new();
    for page in pages {
        let bytes: Vec<u8> = (*page..page + PAGE)
            .step_by(8)
            .flat_map(|word| read(word).unwrap_or_default().to_le_bytes())
            .collect();
        found.extend(
            (0..PAGE - 1).filter(|at| bytes[*at..*at + 2] == [0x0f, 0x05]).map(|at| page + at),
        );
    }
    found
}

/// Returns a `syscall` instruction above that is followed by `ret`; there is none on a platform without such code.
pub fn returning_site() -> Option<usize> {
    let is_followed_by_ret = |site: &usize| {
        let word = site + 2;
        let aligned = word & !7;
        read(aligned).is_some_and(|value| value.to_le_bytes()[word & 7] == 0xc3)
    };
    syscalls_in(&pages_above()).into_iter().find(is_followed_by_ret)
}

/// Makes a call from there.
pub fn call(site: usize, nr: i64, args: [usize; 6]) -> isize {
    let ret: isize;
    // SAFETY: the instruction comes back as a function does; what the call does is the subject.
    unsafe {
        asm!(
            // No red zone, since this pushes.
            "sub rsp, 256",
            "call {site}",
            "add rsp, 256",
            site = in(reg) site,
            inlateout("rax") nr as isize => ret,
            inlateout("rdi") args[0] => _, inlateout("rsi") args[1] => _, inlateout("rdx") args[2] => _,
            inlateout("r10") args[3] => _, inlateout("r8") args[4] => _, inlateout("r9") args[5] => _,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    ret
}

/// Returns a few dozen of many pages: the first ones of each range, and some of the rest.
pub fn sample(pages: &[usize]) -> Vec<usize> {
    let stride = (pages.len() / 40).max(1);
    let is_early = |at: usize| at < 3 || pages[at] - pages[at - 3] > 3 * PAGE;
    (0..pages.len()).filter(|at| is_early(*at) || at % stride == 0).map(|at| pages[at]).collect()
}

/// Waits for a child that may do anything; ends it if it takes long, so what comes of it says nothing. A child that cannot be ended is an error.
pub fn reap(pid: i32) -> Result<Option<End>, String> {
    if let Some(end) = wait_for(pid, 20)? {
        return Ok(Some(end));
    }
    sys!(SYS_kill, pid, libc::SIGKILL).map_err(errno::name)?;
    // A loaded machine is no reason: what does not come to its end is ended after two seconds of the sentry's.
    match wait_for(pid, 12_000)? {
        Some(_) => Ok(None),
        None => Err("a child survived SIGKILL".to_owned()),
    }
}

/// Forks a child as the C library does it, which learns the child's number: after a plain fork(2) it takes that of the
/// program's first process for it, and sends what abort(3) sends there.
pub fn child_of_libc(body: impl FnOnce() -> i32) -> Result<i32, i32> {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or_default()),
        0 => {
            let code = body();
            runner::exit(code)
        }
        pid => Ok(pid),
    }
}

/// Waits for a child that must end by itself, however loaded the machine is.
pub fn finish(pid: i32) -> Result<Option<End>, String> {
    wait_for(pid, 12_000)
}

/// Waits for a child for so many times five milliseconds.
fn wait_for(pid: i32, tries: u32) -> Result<Option<End>, String> {
    let mut status = 0i32;
    for _ in 0..tries {
        match sys!(SYS_wait4, pid, &mut status, libc::WNOHANG, 0).map_err(errno::name)? {
            0 => proc::sleep(Duration::from_millis(5)),
            _ => return Ok(Some(proc::decode(status))),
        }
    }
    Ok(None)
}
