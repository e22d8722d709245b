//! Processes: `fork(2)`, `vfork(2)`, `clone(2)`, `clone3(2)`, `wait4(2)`, `waitid(2)`, pidfds, exit, orphans.

use core::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use guest_tests::fs::{close, pipe, put, read, read_all, write};
use guest_tests::mem::{Map, PAGE, zeroed};
use guest_tests::proc::{End, child, in_child, pid, until, until_asleep, wait, wait_options};
use guest_tests::{Outcome, check, eq, fails, ok, proc, runner, sig, sys};
use libc::{CLONE_FILES, CLONE_FS, CLONE_VM, SIGCHLD, SIGKILL, SIGUSR1, WNOHANG};

fn fork_and_wait() -> Outcome {
    let parent = pid();
    let pid = ok!(child(|| {
        let ppid = sys!(SYS_getppid).unwrap_or_default() as i32;
        if ppid == parent { 17 } else { 1 }
    }));
    check!(pid > 0);
    eq!(ok!(wait(pid)), End::Code(17));
    fails!(wait(pid), ECHILD);
    Ok(())
}

fn exit_codes_are_bytes() -> Outcome {
    for (code, seen) in [(0, 0), (255, 255), (256, 0), (-1, 255)] {
        let pid = ok!(child(|| code));
        eq!(ok!(wait(pid)), End::Code(seen));
    }
    Ok(())
}

fn death_by_signal() -> Outcome {
    for signo in [libc::SIGTERM, SIGKILL, libc::SIGUSR2, libc::SIGALRM, 34] {
        let pid = ok!(child(|| {
            let _ = sig::raise(signo);
            9
        }));
        eq!(ok!(wait(pid)), End::Signal(signo));
    }
    Ok(())
}

fn core_signals_kill_too() -> Outcome {
    let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_CORE, &limit, 0));
    for signo in [libc::SIGABRT, libc::SIGSEGV, libc::SIGQUIT, libc::SIGSYS] {
        let pid = ok!(child(|| {
            let _ = sig::plain(signo, 0);
            let _ = sig::raise(signo);
            9
        }));
        eq!(ok!(wait(pid)), End::Signal(signo));
    }
    Ok(())
}

fn wait_for_any_and_nohang() -> Outcome {
    fails!(wait(-1), ECHILD);
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = close(writer);
        let _ = read_all(reader);
        3
    }));
    let mut status = 0i32;
    eq!(ok!(sys!(SYS_wait4, -1, &mut status, WNOHANG, 0)), 0);
    ok!(close(writer));
    eq!(ok!(sys!(SYS_wait4, -1, &mut status, 0, 0)) as i32, pid);
    eq!(proc::decode(status), End::Code(3));
    fails!(sys!(SYS_wait4, -1, &mut status, 0x100, 0), EINVAL);
    Ok(())
}

fn wait_by_group() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = sys!(SYS_setpgid, 0, 0);
        let _ = close(reader);
        let _ = close(writer);
        4
    }));
    ok!(close(writer));
    ok!(read_all(reader));
    fails!(wait_options(0, 0), ECHILD);
    eq!(ok!(wait_options(-pid, 0)), End::Code(4));
    Ok(())
}

fn wait_reports_usage() -> Outcome {
    let pid = ok!(child(|| {
        // Not by the clock on the wall: a loaded machine may give it next to nothing of 30 ms.
        let mut used = zeroed::<libc::timespec>();
        while used.tv_sec == 0 && used.tv_nsec < 30_000_000 {
            if sys!(SYS_clock_gettime, libc::CLOCK_PROCESS_CPUTIME_ID, &mut used).is_err() {
                return 1;
            }
        }
        0
    }));
    let mut status = 0i32;
    let mut usage = zeroed::<libc::rusage>();
    eq!(ok!(sys!(SYS_wait4, pid, &mut status, 0, &mut usage)) as i32, pid);
    let total = usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    check!(total > 1000, "only {total} us");
    let mut mine = zeroed::<libc::rusage>();
    ok!(sys!(SYS_getrusage, libc::RUSAGE_CHILDREN, &mut mine));
    check!(
        mine.ru_utime.tv_sec * 1_000_000 + mine.ru_utime.tv_usec + mine.ru_stime.tv_usec >= 1000
    );
    Ok(())
}

fn waitid_details() -> Outcome {
    let pid = ok!(child(|| 5));
    let mut info = zeroed::<libc::siginfo_t>();
    ok!(sys!(SYS_waitid, libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT, 0));
    // SAFETY: waitid filled the child's fields.
    let (seen, status) = unsafe { (info.si_pid(), info.si_status()) };
    eq!((info.si_signo, info.si_code, seen, status), (SIGCHLD, libc::CLD_EXITED, pid, 5));
    ok!(sys!(SYS_waitid, libc::P_ALL, 0, &mut info, libc::WEXITED, 0));
    fails!(sys!(SYS_waitid, libc::P_ALL, 0, &mut info, libc::WEXITED, 0), ECHILD);
    fails!(sys!(SYS_waitid, libc::P_ALL, 0, &mut info, 0, 0), EINVAL);
    let pid = ok!(child(|| {
        let _ = sig::raise(SIGUSR1);
        0
    }));
    ok!(sys!(SYS_waitid, libc::P_PID, pid, &mut info, libc::WEXITED, 0));
    // SAFETY: as above.
    eq!((info.si_code, unsafe { info.si_status() }), (libc::CLD_KILLED, SIGUSR1));
    Ok(())
}

fn stop_and_continue() -> Outcome {
    let pid = ok!(child(|| {
        loop {
            proc::sleep(Duration::from_secs(1));
        }
    }));
    ok!(sys!(SYS_kill, pid, libc::SIGSTOP));
    eq!(ok!(wait_options(pid, libc::WUNTRACED)), End::Stopped(libc::SIGSTOP));
    eq!(proc::state(pid), Some('T'));
    ok!(sys!(SYS_kill, pid, libc::SIGCONT));
    eq!(ok!(wait_options(pid, libc::WCONTINUED)), End::Continued);
    ok!(sys!(SYS_kill, pid, libc::SIGSTOP));
    ok!(wait_options(pid, libc::WUNTRACED));
    ok!(sys!(SYS_kill, pid, SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(SIGKILL));
    Ok(())
}

fn child_signal_is_sent() -> Outcome {
    ok!(sig::handle(SIGCHLD, sig::record, 0));
    let pid = ok!(child(|| 0));
    check!(until(|| sig::count() == 1));
    eq!(sig::CODE.load(Ordering::SeqCst), libc::CLD_EXITED);
    ok!(wait(pid));
    Ok(())
}

fn ignored_child_signal_reaps() -> Outcome {
    ok!(sig::plain(SIGCHLD, 1));
    let pid = ok!(child(|| 0));
    fails!(wait(pid), ECHILD);
    Ok(())
}

fn no_zombies_with_nocldwait() -> Outcome {
    ok!(sig::handle(SIGCHLD, sig::record, libc::SA_NOCLDWAIT));
    let pid = ok!(child(|| 0));
    fails!(wait(pid), ECHILD);
    check!(until(|| sig::count() == 1));
    Ok(())
}

fn zombie_until_waited() -> Outcome {
    let pid = ok!(child(|| 0));
    check!(until(|| proc::state(pid) == Some('Z')));
    ok!(sys!(SYS_kill, pid, 0));
    ok!(wait(pid));
    fails!(sys!(SYS_kill, pid, 0), ESRCH);
    Ok(())
}

fn orphans_are_adopted() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let parent = pid();
    ok!(sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let pid = ok!(child(|| {
        let _ = child(|| {
            until(|| sys!(SYS_getppid) == Ok(parent as usize));
            let _ = write(writer, b"adopted");
            6
        });
        0
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    ok!(close(writer));
    eq!(ok!(read_all(reader)), b"adopted");
    eq!(ok!(wait(-1)), End::Code(6));
    Ok(())
}

fn parent_death_signal() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let (hold_reader, hold_writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = close(hold_writer);
        let grandchild = child(|| {
            let _ = sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
            let _ = write(writer, b"r");
            proc::sleep(Duration::from_secs(20));
            0
        });
        let mut byte = [0u8];
        let _ = read(hold_reader, &mut byte);
        i32::from(grandchild.is_err())
    }));
    let mut byte = [0u8];
    ok!(read(reader, &mut byte));
    ok!(close(hold_writer));
    ok!(wait(pid));
    eq!(ok!(wait(-1)), End::Signal(SIGUSR1));
    Ok(())
}

fn parent_death_signal_is_for_the_process() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let (hold_reader, hold_writer) = ok!(pipe(0));
    ok!(sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let parent = ok!(child(|| {
        let grandchild = child(|| {
            let set = 1u64 << (SIGUSR1 - 1);
            let take = || sys!(SYS_rt_sigtimedwait, &set, 0, &zeroed::<libc::timespec>(), 8);
            let _ = sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &set, 0, 8);
            let _ = sys!(SYS_kill, pid(), SIGUSR1);
            let _ = sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
            let _ = write(writer, b"r");
            let _ = read(hold_reader, &mut [0u8]);
            // It has merged with the one that was pending.
            i32::from(take() != Ok(SIGUSR1 as usize)) | i32::from(take() != Err(libc::EAGAIN)) << 1
        });
        let _ = read(hold_reader, &mut [0u8]);
        i32::from(grandchild.is_err())
    }));
    ok!(read(reader, &mut [0u8]));
    ok!(sys!(SYS_kill, parent, SIGKILL));
    eq!(ok!(wait(parent)), End::Signal(SIGKILL));
    ok!(write(hold_writer, b"go"));
    eq!(ok!(wait(-1)), End::Code(0));
    Ok(())
}

fn descriptors_are_copied() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    ok!(in_child(|| {
        ok!(close(reader));
        ok!(write(writer, b"from child"));
        Ok(())
    }));
    let mut buf = [0u8; 10];
    eq!(ok!(read(reader, &mut buf)), 10);
    eq!(&buf, b"from child");
    Ok(())
}

fn offsets_are_shared() -> Outcome {
    ok!(put(c"f", b"abcdef"));
    let fd = ok!(guest_tests::fs::open(c"f", 0));
    ok!(in_child(|| {
        let mut buf = [0u8; 2];
        ok!(read(fd, &mut buf));
        Ok(())
    }));
    let mut buf = [0u8; 2];
    ok!(read(fd, &mut buf));
    eq!(&buf, b"cd");
    Ok(())
}

static SHARED: AtomicU32 = AtomicU32::new(0);

fn vfork_shares_memory_and_waits() -> Outcome {
    // vfork by number, in assembly: the child must not return through a frame that the parent needs.
    extern "C" fn body(_: *mut libc::c_void) -> i32 {
        proc::sleep(Duration::from_millis(20));
        SHARED.store(5, Ordering::SeqCst);
        runner::exit(8)
    }
    let stack = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    // SAFETY: the child runs on a stack of its own and ends with exit_group.
    let pid = unsafe {
        libc::clone(
            body,
            (stack.addr + stack.len) as *mut _,
            CLONE_VM | libc::CLONE_VFORK | SIGCHLD,
            core::ptr::null_mut(),
        )
    };
    check!(pid > 0);
    eq!(SHARED.load(Ordering::SeqCst), 5);
    eq!(ok!(wait(pid)), End::Code(8));
    Ok(())
}

fn posix_spawn_works() -> Outcome {
    for _ in 0..5 {
        let exe = ok!(std::env::current_exe());
        let output = ok!(std::process::Command::new(exe).arg("--list").output());
        check!(output.status.success() && output.stdout.starts_with(b"fork_and_wait\n"));
    }
    let missing = std::process::Command::new("/no/such/program").output();
    check!(missing.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound));
    Ok(())
}

extern "C" fn change_things(_: *mut libc::c_void) -> i32 {
    SHARED.store(77, Ordering::SeqCst);
    let _ = sys!(SYS_chdir, c"/");
    let _ = close(100);
    0
}

fn clone_sharing_flags() -> Outcome {
    ok!(sys!(SYS_dup2, 0, 100));
    let stack = ok!(Map::anonymous(16 * PAGE, libc::MAP_PRIVATE));
    let run = |flags: i32| {
        // SAFETY: the child has a stack of its own and only makes calls.
        let pid = unsafe {
            libc::clone(
                change_things,
                (stack.addr + stack.len) as *mut _,
                flags | SIGCHLD,
                core::ptr::null_mut(),
            )
        };
        wait(pid)
    };
    let cwd = ok!(std::env::current_dir());
    eq!(ok!(run(0)), End::Code(0));
    eq!(SHARED.load(Ordering::SeqCst), 0);
    eq!(ok!(std::env::current_dir()), cwd);
    ok!(sys!(SYS_fcntl, 100, libc::F_GETFD, 0));
    eq!(ok!(run(CLONE_VM)), End::Code(0));
    eq!(SHARED.load(Ordering::SeqCst), 77);
    eq!(ok!(run(CLONE_FS)), End::Code(0));
    eq!(ok!(std::env::current_dir()), std::path::PathBuf::from("/"));
    eq!(ok!(run(CLONE_FILES)), End::Code(0));
    fails!(sys!(SYS_fcntl, 100, libc::F_GETFD, 0), EBADF);
    Ok(())
}

fn clone_flag_errors() -> Outcome {
    fails!(sys!(SYS_clone, libc::CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0), EINVAL);
    fails!(sys!(SYS_clone, libc::CLONE_THREAD | SIGCHLD, 0, 0, 0, 0), EINVAL);
    fails!(sys!(SYS_clone, CLONE_FS | libc::CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0), EINVAL);
    Ok(())
}

fn clone3_arguments() -> Outcome {
    let mut pidfd = -1i32;
    let mut args = zeroed::<libc::clone_args>();
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = core::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = SIGCHLD as u64;
    match ok!(sys!(SYS_clone3, &args, size_of::<libc::clone_args>())) {
        0 => runner::exit(21),
        pid => {
            check!(pidfd >= 0);
            eq!(ok!(sys!(SYS_fcntl, pidfd, libc::F_GETFD, 0)), 1);
            eq!(ok!(wait(pid as i32)), End::Code(21));
        }
    }
    fails!(sys!(SYS_clone3, &args, 8), EINVAL);
    args.flags = 1 << 60;
    fails!(sys!(SYS_clone3, &args, size_of::<libc::clone_args>()), EINVAL);
    Ok(())
}

fn clone_parent_tid_and_clear() -> Outcome {
    let map = ok!(Map::anonymous(PAGE, libc::MAP_SHARED));
    let (parent_tid, child_tid) = (map.addr, map.addr + 4);
    let flags =
        libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | SIGCHLD;
    match ok!(sys!(SYS_clone, flags, 0, parent_tid, child_tid, 0)) {
        0 => {
            let same = map.word(1).load(Ordering::SeqCst) == proc::tid() as u32;
            runner::exit(i32::from(!same));
        }
        pid => {
            eq!(map.word(0).load(Ordering::SeqCst), pid as u32);
            eq!(ok!(wait(pid as i32)), End::Code(0));
            // Cleared at exit only where the memory is shared with another process: a mapping is not enough.
            Ok(())
        }
    }
}

fn pidfd_operations() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = close(writer);
        let _ = read_all(reader);
        0
    }));
    let fd = ok!(sys!(SYS_pidfd_open, pid, 0)) as i32;
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 0);
    ok!(sys!(SYS_pidfd_send_signal, fd, SIGUSR1, 0, 0));
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 5000)), 1);
    let mut info = zeroed::<libc::siginfo_t>();
    ok!(sys!(SYS_waitid, libc::P_PIDFD, fd, &mut info, libc::WEXITED, 0));
    eq!(info.si_code, libc::CLD_KILLED);
    fails!(sys!(SYS_pidfd_send_signal, fd, 0, 0, 0), ESRCH);
    fails!(sys!(SYS_pidfd_open, pid, 0), ESRCH);
    fails!(sys!(SYS_pidfd_open, -1, 0), EINVAL);
    // The directory of a process does for a signal, no other file does.
    let own = ok!(sys!(SYS_open, c"/proc/self", libc::O_DIRECTORY, 0));
    ok!(sys!(SYS_pidfd_send_signal, own, 0, 0, 0));
    let thread = ok!(sys!(SYS_open, c"/proc/thread-self", libc::O_DIRECTORY, 0));
    fails!(sys!(SYS_pidfd_send_signal, thread, 0, 0, 0), EBADF);
    fails!(sys!(SYS_pidfd_send_signal, writer, 0, 0, 0), EBADF);
    ok!(close(writer));
    Ok(())
}

fn many_children_at_once() -> Outcome {
    let mut pids = Vec::new();
    for i in 0..100 {
        pids.push((ok!(child(|| i % 50)), i % 50));
    }
    for (pid, code) in pids {
        eq!(ok!(wait(pid)), End::Code(code));
    }
    Ok(())
}

fn fork_chain() -> Outcome {
    fn next(depth: i32) -> i32 {
        if depth == 0 {
            return 33;
        }
        match child(|| next(depth - 1)).and_then(wait) {
            Ok(End::Code(code)) => code,
            _ => 1,
        }
    }
    eq!(next(20), 33);
    Ok(())
}

fn vfork_into_a_time_namespace() -> Outcome {
    let mut args = zeroed::<libc::clone_args>();
    // A user namespace comes with the right to make others.
    args.flags = (CLONE_VM | libc::CLONE_VFORK | libc::CLONE_NEWUSER | libc::CLONE_NEWTIME) as u64;
    args.exit_signal = SIGCHLD as u64;
    let pid: isize;
    // SAFETY: the child, which shares the stack, does not touch it: it ends by the next call.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov edi, 22",
            "mov eax, 231",
            "syscall",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => pid,
            inlateout("rdi") &raw const args => _,
            in("rsi") size_of::<libc::clone_args>(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    check!(pid > 0, "{pid}");
    eq!(ok!(wait(pid as i32)), End::Code(22));
    Ok(())
}

fn fork_in_a_thread() -> Outcome {
    let thread = std::thread::spawn(|| child(|| i32::from(pid() != proc::tid())).and_then(wait));
    eq!(ok!(thread.join().unwrap_or(Err(0))), End::Code(0));
    Ok(())
}

/// Reads a byte by an instruction of its own for each `SITE`, with the number next to it as in a C library.
#[inline(never)]
fn read_byte<const SITE: u32>(fd: i32) -> isize {
    let mut byte = SITE as u8;
    let ret: isize;
    // SAFETY: the buffer is one byte long.
    unsafe {
        core::arch::asm!(
            "mov eax, 0",
            "syscall",
            out("rax") ret,
            in("rdi") fd as isize,
            in("rsi") &raw mut byte,
            in("rdx") 1,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    ret
}

fn fork_while_threads_sleep_in_calls() -> Outcome {
    let readers = [read_byte::<0>, read_byte::<1>, read_byte::<2>, read_byte::<3>];
    let mut threads = Vec::new();
    for (n_before, read_byte) in readers.into_iter().enumerate() {
        let (reader, writer) = ok!(pipe(0));
        // Each falls asleep at another repetition of its call.
        ok!(write(writer, &[0; 4][..n_before]));
        let tid: &AtomicU32 = Box::leak(Box::default());
        let thread = std::thread::spawn(move || {
            let n_read = (0..n_before).map(|_| read_byte(reader)).sum::<isize>();
            tid.store(proc::tid() as u32, Ordering::SeqCst);
            n_read + read_byte(reader)
        });
        threads.push((writer, thread));
        check!(until(|| tid.load(Ordering::SeqCst) != 0));
        check!(until_asleep(tid.load(Ordering::SeqCst) as i32));
    }
    for code in 0..3 {
        let pid = ok!(child(move || code));
        eq!(ok!(wait(pid)), End::Code(code));
    }
    for (n_before, (writer, thread)) in (0..).zip(threads) {
        ok!(write(writer, &[0]));
        eq!(thread.join().ok(), Some(n_before + 1));
    }
    Ok(())
}

fn exit_group_ends_all_threads() -> Outcome {
    let pid = ok!(child(|| {
        for _ in 0..4 {
            std::thread::spawn(|| proc::sleep(Duration::from_secs(30)));
        }
        std::thread::spawn(|| runner::exit(12));
        proc::sleep(Duration::from_secs(30));
        1
    }));
    eq!(ok!(wait(pid)), End::Code(12));
    Ok(())
}

fn main_thread_exits_first() -> Outcome {
    let pid = ok!(child(|| {
        let main = proc::tid();
        std::thread::spawn(move || {
            let ended = until(|| proc::state(main) == Some('Z'));
            // Memory that is mapped by nobody else is still there, and can be filled.
            let mut fresh = vec![0u8; 1 << 20];
            let read = std::fs::File::open("/dev/urandom")
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut fresh));
            let filled = read.is_ok() && fresh.iter().any(|byte| *byte != 0);
            runner::exit(if ended && filled { 14 } else { 15 })
        });
        let _ = sys!(SYS_exit, 3);
        1
    }));
    eq!(ok!(wait(pid)), End::Code(14));
    Ok(())
}

fn threads_exit_after_the_first() -> Outcome {
    for _ in 0..100 {
        let pid = ok!(child(|| {
            for _ in 0..4 {
                std::thread::spawn(|| {
                    let _ = sys!(SYS_exit, 5);
                });
            }
            let _ = sys!(SYS_exit, 5);
            1
        }));
        eq!(ok!(wait(pid)), End::Code(5));
    }
    Ok(())
}

fn zombies_are_there_for_waits_for_exits() -> Outcome {
    let pid = ok!(child(|| 4));
    check!(until(|| proc::state(pid) == Some('Z')));
    let mut info = [0i32; 32];
    for options in [libc::WSTOPPED, libc::WCONTINUED] {
        fails!(sys!(SYS_waitid, libc::P_PID, pid, &mut info, options | WNOHANG, 0), ECHILD);
    }
    eq!(ok!(wait(pid)), End::Code(4));
    Ok(())
}

fn adopted_children_are_the_first_threads() -> Outcome {
    in_child(|| {
        ok!(sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
        let parent = ok!(child(|| i32::from(child(|| 5).is_err())));
        eq!(ok!(wait(parent)), End::Code(0));
        // As its own child it is there for a wait that leaves out what other threads have made.
        eq!(ok!(wait_options(-1, libc::__WNOTHREAD)), End::Code(5));
        Ok(())
    })
}

fn children_of_a_thread_pass_to_another() -> Outcome {
    in_child(|| {
        let made = std::thread::spawn(|| child(|| 6)).join();
        check!(made.is_ok());
        eq!(ok!(wait_options(-1, libc::__WNOTHREAD)), End::Code(6));
        Ok(())
    })
}

/// A group that had no tie to another before keeps its stopped members.
fn orphaned_groups_are_hung_up_once() -> Outcome {
    in_child(|| {
        // A session of its own: the group is an orphan from the start.
        let leader = ok!(child(|| {
            let _ = sys!(SYS_setsid);
            let stops = child(|| {
                proc::sleep(Duration::from_secs(50));
                0
            });
            let Ok(stops) = stops else { return 1 };
            let passes = child(|| 0);
            let _ = sys!(SYS_kill, stops, libc::SIGSTOP);
            let _ = wait_options(stops, libc::WUNTRACED);
            // Its end is no loss to the group.
            let _ = passes.and_then(wait);
            proc::sleep(Duration::from_millis(20));
            let is_stopped = proc::state(stops) == Some('T');
            let _ = sys!(SYS_kill, stops, SIGKILL);
            i32::from(!is_stopped)
        }));
        eq!(ok!(wait(leader)), End::Code(0));
        Ok(())
    })
}

fn kill_ends_blocked_threads() -> Outcome {
    let (reader, _writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        for _ in 0..3 {
            std::thread::spawn(move || {
                let mut byte = [0u8];
                let _ = read(reader, &mut byte);
            });
        }
        proc::sleep(Duration::from_secs(30));
        0
    }));
    check!(until_asleep(pid));
    ok!(sys!(SYS_kill, pid, SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(SIGKILL));
    Ok(())
}

fn kill_ends_a_spinning_process() -> Outcome {
    let pid = ok!(child(|| {
        loop {
            core::hint::spin_loop();
        }
    }));
    proc::sleep(Duration::from_millis(10));
    ok!(sys!(SYS_kill, pid, libc::SIGTERM));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGTERM));
    Ok(())
}

fn process_limit() -> Outcome {
    in_child(|| {
        ok!(proc::drop_root());
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_NPROC, &limit, 0));
        fails!(child(|| 0), EAGAIN);
        Ok(())
    })
}

fn unshare_files() -> Outcome {
    ok!(sys!(SYS_unshare, CLONE_FILES | CLONE_FS));
    fails!(sys!(SYS_unshare, 1), EINVAL);
    Ok(())
}

fn abandoned_children_do_not_disturb() -> Outcome {
    // Children that outlive this program: ended by the runner's signal to the group.
    ok!(child(|| {
        proc::sleep(Duration::from_secs(60));
        0
    }));
    Ok(())
}

fn pidfd_information() -> Outcome {
    const GET_INFO: u32 = 0xc040_ff0b;
    const EXIT: u64 = 8;
    let pid = ok!(child(|| 7));
    let fd = ok!(sys!(SYS_pidfd_open, pid, 0)) as i32;
    ok!(sys!(SYS_waitid, libc::P_PID, pid, 0, libc::WEXITED | libc::WNOWAIT, 0));
    // Eight words of eight bytes: mask, control group, then ids of four bytes each.
    let mut info = [0u64; 8];
    match sys!(SYS_ioctl, fd, GET_INFO, &mut info) {
        // Linux has it since 6.13.
        Err(libc::ENOTTY | libc::EINVAL) => return Ok(()),
        result => ok!(result),
    };
    eq!(info[0] & 3, 3);
    eq!(info[2] & 0xffff_ffff, pid as u64);
    fails!(sys!(SYS_ioctl, fd, GET_INFO, 0), EINVAL);
    ok!(wait(pid));
    info = [0; 8];
    fails!(sys!(SYS_ioctl, fd, GET_INFO, &mut info), ESRCH);
    info[0] = EXIT;
    match sys!(SYS_ioctl, fd, GET_INFO, &mut info) {
        // And how a process has ended since 6.15.
        Err(libc::ESRCH) => {}
        result => {
            ok!(result);
            eq!((info[0] & EXIT, info[7] >> 32), (EXIT, 7 << 8));
        }
    }
    Ok(())
}

guest_tests::cases!(
    fork_and_wait,
    pidfd_information,
    exit_codes_are_bytes,
    death_by_signal,
    core_signals_kill_too,
    wait_for_any_and_nohang,
    wait_by_group,
    wait_reports_usage,
    waitid_details,
    stop_and_continue,
    child_signal_is_sent,
    ignored_child_signal_reaps,
    no_zombies_with_nocldwait,
    zombie_until_waited,
    orphans_are_adopted,
    parent_death_signal,
    parent_death_signal_is_for_the_process,
    descriptors_are_copied,
    offsets_are_shared,
    vfork_shares_memory_and_waits,
    posix_spawn_works,
    clone_sharing_flags,
    clone_flag_errors,
    clone3_arguments,
    vfork_into_a_time_namespace,
    clone_parent_tid_and_clear,
    pidfd_operations,
    many_children_at_once,
    fork_chain,
    fork_in_a_thread,
    fork_while_threads_sleep_in_calls,
    exit_group_ends_all_threads,
    main_thread_exits_first,
    threads_exit_after_the_first,
    zombies_are_there_for_waits_for_exits,
    adopted_children_are_the_first_threads,
    children_of_a_thread_pass_to_another,
    orphaned_groups_are_hung_up_once,
    kill_ends_blocked_threads,
    kill_ends_a_spinning_process,
    process_limit,
    unshare_files,
    abandoned_children_do_not_disturb,
);
