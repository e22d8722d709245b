//! What applications may try against every platform: nothing of it reaches the host, another
//! process or the sentry.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use sentry_platform::{Event, HostCall, USER_ADDRESS_LIMIT};
use syscalls::UserAddr;

use super::basic::{RW, file};
use super::guest::{self, DATA, Program, STACK};
use super::machine::{Machine, Task, map};

/// Lets a context go on and returns the signal of the fault that it raises.
#[track_caller]
fn fault(task: &Task) -> i32 {
    match task.run() {
        Event::Fault(fault) => fault.signo,
        other => panic!("{other:?} {:x?}", task.context.regs()),
    }
}

/// Points a context at a program with a fresh stack and the first argument.
fn again(task: &Task, program: Program, rdi: u64) {
    task.set(|regs| {
        (regs.rip, regs.rsp, regs.rdi) = (guest::address(program), STACK, rdi);
        (regs.fs_base, regs.gs_base, regs.eflags) = (0, 0, 0x202);
    });
}

/// Checks that a context still works: system calls, host calls, memory.
#[track_caller]
fn still_works(task: &Task) {
    let at = 0x3000_0000;
    assert_eq!(task.host(&[map(at, 0x1000, RW)]).values, [Ok(at)]);
    task.put(at, 3);
    again(task, Program::Getpid, 0);
    task.go(39);
    task.reply(0, 39);
    assert_eq!(task.word(at), 3);
}

pub(crate) fn segment_bases_and_selectors(machine: &Machine) {
    let task = machine.load(Program::FsBase);
    for base in [USER_ADDRESS_LIMIT, 0x7fff_ffff_f000, 0xffff_8000_0000_0000, u64::MAX] {
        again(&task, Program::FsBase, base);
        match task.run() {
            Event::Syscall => assert_eq!(task.context.syscall().number, 1007),
            Event::Fault(fault) => assert_eq!(fault.signo, libc::SIGSEGV),
            other => panic!("{other:?}"),
        }
        // The sentry may go on with such a base; what comes of it is the application's affair.
        task.context.resume(&[]);
        assert!(matches!(task.next(), Event::Fault(_)));
        still_works(&task);
    }
    for selector in [0, 3, 0x23, 0x2b, 0x33, 0x53, 0x7b] {
        again(&task, Program::Selectors, selector);
        match task.run() {
            Event::Syscall => assert_eq!(task.context.syscall().number, 1008),
            Event::Fault(fault) => assert_eq!(fault.signo, libc::SIGSEGV),
            other => panic!("{other:?}"),
        }
        still_works(&task);
    }
    task.end();
}

pub(crate) fn flags(machine: &Machine) {
    let task = machine.load(Program::SingleStep);
    assert_eq!(fault(&task), libc::SIGTRAP);
    still_works(&task);
    again(&task, Program::SingleStep, 0);
    assert_eq!(fault(&task), libc::SIGTRAP);
    // Still set: the next instruction traps as well.
    let rip = task.context.regs().rip;
    assert_eq!(fault(&task), libc::SIGTRAP);
    assert_eq!(task.context.regs().rip, rip + 1);
    again(&task, Program::Flags, 0);
    task.go(1009);
    assert_eq!(task.context.regs().eflags & 0x4_0400, 0x4_0400);
    let at = 0x3000_0000;
    assert_eq!(task.host(&[map(at, 0x1000, RW)]).values, [Ok(at)]);
    // Flags that no application may set are ignored.
    again(&task, Program::Getpid, 0);
    task.set(|regs| regs.eflags |= 0x0002_7000);
    task.go(39);
    assert_eq!(task.context.regs().eflags & 0x2_7000, 0);
    still_works(&task);
    task.end();
}

pub(crate) fn code_of_32_bits(machine: &Machine) {
    let task = machine.load(Program::Compat);
    // int 0x80, syscall, sysenter, hlt.
    for code in [0x80cd, 0x050f, 0x340f, 0xf4f4] {
        again(&task, Program::Compat, code);
        match task.run() {
            Event::Fault(fault) => {
                assert!([libc::SIGSEGV, libc::SIGILL].contains(&fault.signo), "{fault:?}");
            }
            other => panic!("{code:x}: {other:?} {:x?}", task.context.regs()),
        }
        // The segment cannot be changed by the sentry, so this context ends here.
        let at = 0x3000_0000;
        assert_eq!(task.host(&[map(at, 0x1000, RW)]).values, [Ok(at)]);
        let other = task.fork();
        other.context.resume(&[]);
        assert!(task.host(&[]).values.is_empty());
        assert!(matches!(other.next(), Event::Fault(_)));
        other.end();
    }
    task.end();
}

pub(crate) fn signals_from_outside(machine: &Machine) {
    let task = machine.load(Program::Getpid);
    task.go(39);
    let spinning = machine.load(Program::Spin);
    spinning.context.resume(&[]);
    let me = format!("PPid:\t{}\n", std::process::id());
    let is_ours = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.contains(&me))
    };
    let stubs: Vec<i32> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| is_ours(*pid))
        .collect();
    assert!(stubs.len() >= 2);
    let signals = [
        libc::SIGSEGV,
        libc::SIGTRAP,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGCONT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGSYS,
        libc::SIGINT,
        40,
    ];
    for signal in signals {
        for pid in &stubs {
            // Other tests' processes end meanwhile, and their ids may be anybody's soon.
            if !is_ours(*pid) {
                continue;
            }
            send(*pid, signal);
            if [libc::SIGSTOP, libc::SIGTSTP].contains(&signal) {
                // Whoever may send the one may send the other.
                send(*pid, libc::SIGCONT);
            }
        }
        task.reply(0, 39);
    }
    spinning.context.interrupt();
    assert_eq!(spinning.next(), Event::Interrupted);
    // Behind another signal, whose number is lower: the kernel then lets its handler nest in the other.
    // Below ptrace no signal from outside gets as far as a handler.
    for signal in [libc::SIGTRAP, libc::SIGBUS, libc::SIGFPE]
        .into_iter()
        .filter(|_| machine.platform.name() == "systrap")
    {
        spinning.context.resume(&[]);
        let ours = || stubs.iter().copied().filter(|pid| is_ours(*pid));
        ours().for_each(|pid| send(pid, libc::SIGSTOP));
        // Who waits for the answer to a notification (`D`) does not stop.
        let runs = |pid: i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| {
                !["T", "Z", "X", "D"]
                    .iter()
                    .any(|state| status.contains(&format!("State:\t{state}")))
            })
        };
        while ours().any(runs) {
            std::thread::yield_now();
        }
        ours().for_each(|pid| send_to_thread(pid, signal));
        spinning.context.interrupt();
        ours().for_each(|pid| send(pid, libc::SIGCONT));
        assert_eq!(spinning.next(), Event::Interrupted);
    }
    still_works(&spinning);
    still_works(&task);
    spinning.end();
    task.end();
}

pub(crate) fn guests_cannot_confuse_each_others_files(machine: &Machine) {
    let victim = machine.load(Program::Getpid);
    victim.go(39);
    let hostile = machine.load(Program::Getpid);
    hostile.go(39);
    // Threads that write over all that the platform has mapped in their process.
    let page = 0x7e80_0000_1000;
    let scribblers: Vec<Task> = [0, u64::MAX, 0x7e80_0000_1000, DATA]
        .into_iter()
        .map(|value| {
            let task = hostile.thread();
            task.set(|regs| {
                regs.rip = guest::address(Program::Scribble);
                (regs.rdi, regs.rsi, regs.r8) = (page, value, u64::from(value != 0));
            });
            task.context.resume(&[]);
            task
        })
        .collect();
    hostile.reply(0, 39);
    let private = file(&[b'p'; 0x1000]);
    let public = file(&[b'q'; 0x1000]);
    let at = 0x3000_0000;
    let mmap = |file: &Arc<_>| HostCall::Mmap {
        addr: at,
        len: 0x1000,
        prot: libc::PROT_READ,
        flags: libc::MAP_PRIVATE,
        file: Some(Arc::clone(file)),
        offset: 0,
    };
    for _ in 0..300 {
        // May fail, but never with another process's file.
        hostile.context.start_host_calls(&[mmap(&public)]);
        match hostile.next() {
            Event::HostCallsDone => {}
            Event::Exited { .. } => break,
            other => panic!("{other:?}"),
        }
        if hostile.context.host_call_results().values == [Ok(at)] {
            assert_eq!(hostile.word(at), u64::from_le_bytes([b'q'; 8]));
        }
        assert_eq!(victim.host(&[mmap(&private)]).values, [Ok(at)]);
        assert_eq!(victim.word(at), u64::from_le_bytes([b'p'; 8]));
    }
    let space = hostile.context.address_space();
    space.kill();
    for task in &scribblers {
        while !matches!(task.next(), Event::Exited { .. }) {}
    }
    still_works(&victim);
    victim.end();
}

pub(crate) fn processes_that_die_at_any_moment(machine: &Machine) {
    for i in 0..100u32 {
        let task = machine.load(Program::Getpid);
        task.go(39);
        let space = task.context.address_space();
        let (sender, receiver) = mpsc::channel();
        let killer = std::thread::spawn(move || {
            receiver.recv().unwrap();
            std::thread::sleep(Duration::from_micros(u64::from(i) * 5));
            space.kill();
        });
        sender.send(()).unwrap();
        // Fails only where the process has been killed.
        while let Some(child) = task.try_fork() {
            child.context.resume(&[]);
            task.context.resume(&[map(0x3000_0000, 0x1000, RW)]);
            let event = task.next();
            match child.next() {
                Event::Syscall => child.end(),
                // Never born, or killed at birth.
                Event::Exited { .. } => {}
                other => panic!("{other:?}"),
            }
            if event != Event::Syscall {
                assert_eq!(event, Event::Exited { signal: libc::SIGKILL });
                task.put_back(event);
                break;
            }
        }
        // The end may overtake a call that another thread is about to report.
        let mut last = task.next();
        if last == Event::Syscall {
            last = task.next();
        }
        assert_eq!(last, Event::Exited { signal: libc::SIGKILL });
        killer.join().unwrap();
    }
}

pub(crate) fn system_call_instructions_of_the_platform(machine: &Machine) {
    // Every `syscall` that the platform has mapped beyond the application's part is a call of the
    // application when it jumps there: the sentry sees it, or nothing happens.
    let task = machine.load(Program::Call);
    let mut code = vec![0; 0x1000];
    let base = 0x7e80_0000_0000;
    task.set(|regs| {
        (regs.rip, regs.rdi, regs.rsi) = (guest::address(Program::Copy), DATA, base);
    });
    task.go(1010);
    task.context.read(UserAddr(DATA), &mut code).unwrap();
    let sites = code.windows(2).enumerate().filter(|(_, bytes)| bytes == &[0x0f, 0x05]);
    let sites: Vec<u64> = sites.map(|(i, _)| base + u64::try_from(i).unwrap()).collect();
    assert!(!sites.is_empty());
    for site in sites {
        // kill(1, 0), which the host would answer.
        task.set(|regs| (regs.rip, regs.rax, regs.rdi, regs.rsi) = (site, 62, 1, 0));
        task.go(62);
        assert_eq!(task.context.regs().rip, site + 2);
    }
    // And nothing there can be changed.
    task.set(|regs| (regs.rip, regs.rdi) = (guest::address(Program::Store), base));
    assert_eq!(fault(&task), libc::SIGSEGV);
    still_works(&task);
    task.end();
}

/// Sends a signal. Not by a command: systrap reaps every child of this process.
#[expect(unsafe_code, reason = "kill")]
fn send(pid: i32, signal: i32) {
    // SAFETY: passes numbers. Some belong to other tests and have ended.
    unsafe { libc::kill(pid, signal) };
}

/// Sends a signal to a process's first thread.
#[expect(unsafe_code, reason = "tgkill")]
fn send_to_thread(pid: i32, signal: i32) {
    // SAFETY: passes numbers, as above.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) };
}
