//! Many of everything at once: threads, processes, signals, waiters, descriptors, mappings.

use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::HashSet;

use guest_tests::fs::{close, open, pipe, put, read, write};
use guest_tests::mem::{Map, PAGE};
use guest_tests::proc::{End, child, wait};
use guest_tests::{Outcome, check, eq, ok, sig, sys};

/// A gate that many wait for: a futex in memory that all share.
struct Gate(&'static AtomicU32);

impl Gate {
    fn new() -> Result<Gate, i32> {
        let map = Map::anonymous(PAGE, libc::MAP_SHARED)?;
        let gate = Gate(map.word(0));
        map.leak();
        Ok(gate)
    }

    fn wait(&self) {
        while self.0.load(Ordering::SeqCst) == 0 {
            let _ = sys!(SYS_futex, self.0.as_ptr(), libc::FUTEX_WAIT, 0, 0, 0, 0);
        }
    }

    fn open(&self) {
        self.0.store(1, Ordering::SeqCst);
        let _ = sys!(SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0);
    }
}

fn thread(body: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, String> {
    std::thread::Builder::new()
        .stack_size(32 << 10)
        .spawn(body)
        .map_err(|error| format!("thread: {error}"))
}

fn two_thousand_threads() -> Outcome {
    const N: u32 = 2000;
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let gate: &'static Gate = Box::leak(Box::new(ok!(Gate::new())));
    let mut threads = Vec::new();
    for _ in 0..N {
        threads.push(thread(|| {
            STARTED.fetch_add(1, Ordering::SeqCst);
            gate.wait();
        })?);
    }
    check!(guest_tests::proc::until(|| STARTED.load(Ordering::SeqCst) == N));
    gate.open();
    for thread in threads {
        check!(thread.join().is_ok());
    }
    Ok(())
}

fn thousand_processes() -> Outcome {
    let gate = ok!(Gate::new());
    let started = ok!(Gate::new());
    let mut pids = Vec::new();
    for _ in 0..1000 {
        pids.push(ok!(child(|| {
            started.0.fetch_add(1, Ordering::SeqCst);
            gate.wait();
            7
        })));
    }
    check!(guest_tests::proc::until(|| started.0.load(Ordering::SeqCst) == 1000));
    gate.open();
    for pid in pids {
        eq!(ok!(wait(pid)), End::Code(7));
    }
    Ok(())
}

fn killed_together() -> Outcome {
    let leader = ok!(child(|| {
        let _ = sys!(SYS_setpgid, 0, 0);
        for _ in 0..200 {
            let _ = child(|| {
                loop {
                    let _ = sys!(SYS_pause);
                }
            });
        }
        let _ = write(1, b"");
        let _ = sys!(SYS_kill, 0, libc::SIGKILL);
        0
    }));
    eq!(ok!(wait(leader)), End::Signal(libc::SIGKILL));
    Ok(())
}

fn deep_chain() -> Outcome {
    fn deeper(left: u32) -> i32 {
        if left == 0 {
            return 42;
        }
        match child(|| deeper(left - 1)).and_then(wait) {
            Ok(End::Code(code)) => code,
            _ => 1,
        }
    }
    let pid = ok!(child(|| deeper(150)));
    eq!(ok!(wait(pid)), End::Code(42));
    Ok(())
}

fn quick_forks() -> Outcome {
    for n in 0..1500 {
        let pid = ok!(child(|| n & 63));
        eq!(ok!(wait(pid)), End::Code(n & 63));
    }
    Ok(())
}

fn quick_threads() -> Outcome {
    for _ in 0..3000 {
        check!(thread(|| {})?.join().is_ok());
    }
    Ok(())
}

fn exec_loop() -> Outcome {
    let program = ok!(std::env::current_exe().map_err(|_| 0));
    let path = ok!(std::ffi::CString::new(program.as_os_str().as_encoded_bytes()).map_err(|_| 0));
    for _ in 0..100 {
        let argv = [path.as_ptr(), c"--list".as_ptr(), core::ptr::null()];
        let envp = [core::ptr::null::<u8>()];
        let pid = ok!(child(|| {
            let _ = close(1);
            let _ = open(c"/dev/null", libc::O_WRONLY);
            let _ = sys!(SYS_execve, path.as_c_str(), &argv, &envp);
            1
        }));
        eq!(ok!(wait(pid)), End::Code(0));
    }
    Ok(())
}

fn signals_between_processes() -> Outcome {
    const N: u32 = 2000;
    ok!(sig::block(libc::SIGUSR1));
    let parent = guest_tests::proc::pid();
    let pid = ok!(child(|| {
        let mut info = [0u8; 128];
        for _ in 0..N {
            if sys!(SYS_kill, parent, libc::SIGUSR1).is_err() {
                return 1;
            }
            if sys!(SYS_rt_sigtimedwait, &sig::bit(libc::SIGUSR1), &mut info, 0, 8).is_err() {
                return 2;
            }
        }
        0
    }));
    let mut info = [0u8; 128];
    for _ in 0..N {
        ok!(sys!(SYS_rt_sigtimedwait, &sig::bit(libc::SIGUSR1), &mut info, 0, 8));
        ok!(sys!(SYS_kill, pid, libc::SIGUSR1));
    }
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn queued_signals() -> Outcome {
    let signo = 40;
    ok!(sig::block(signo));
    let mut info = [0u32; 32];
    info[2] = -1i32 as u32;
    for n in 0..2000 {
        info[0] = signo as u32;
        info[6] = n;
        ok!(sys!(SYS_rt_sigqueueinfo, guest_tests::proc::pid(), signo, &info));
    }
    for n in 0..2000 {
        ok!(sys!(SYS_rt_sigtimedwait, &sig::bit(signo), &mut info, 0, 8));
        eq!(info[6], n);
    }
    Ok(())
}

fn many_descriptors() -> Outcome {
    let limit = libc::rlimit { rlim_cur: 8192, rlim_max: 8192 };
    ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0));
    ok!(put(c"f", b"content"));
    let mut fds = Vec::new();
    for _ in 0..4000 {
        fds.push(ok!(open(c"f", libc::O_RDONLY)));
    }
    let mut byte = [0u8; 8];
    for fd in &fds {
        eq!(ok!(read(*fd, &mut byte)), 7);
    }
    let pid = ok!(child(|| match read(fds[3999], &mut byte) {
        Ok(0) => 0,
        _ => 1,
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    for fd in fds {
        ok!(close(fd));
    }
    Ok(())
}

fn many_pipes_in_poll() -> Outcome {
    let limit = libc::rlimit { rlim_cur: 8192, rlim_max: 8192 };
    ok!(sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0));
    let mut polls = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..1000 {
        let (reader, writer) = ok!(pipe(0));
        polls.push(libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 });
        writers.push(writer);
    }
    let last = writers[999];
    let pid = ok!(child(|| {
        guest_tests::proc::sleep(core::time::Duration::from_millis(5));
        i32::from(write(last, b"x").is_err())
    }));
    eq!(ok!(sys!(SYS_poll, &mut polls[..], 1000, -1)), 1);
    check!(polls[999].revents == libc::POLLIN);
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

fn many_mappings() -> Outcome {
    let area = ok!(Map::anonymous(20_000 * PAGE, libc::MAP_PRIVATE));
    for page in (0..20_000).step_by(2) {
        ok!(sys!(SYS_mprotect, area.addr + page * PAGE, PAGE, libc::PROT_READ));
    }
    let pid = ok!(child(|| {
        area.bytes()[PAGE] = 1;
        i32::from(area.bytes()[0])
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    for page in (0..20_000).step_by(2) {
        ok!(sys!(SYS_munmap, area.addr + page * PAGE, PAGE));
    }
    area.bytes()[PAGE] = 3;
    Ok(())
}

fn big_mapping() -> Outcome {
    let len = 1 << 40;
    let map = ok!(Map::new(
        0,
        len,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        -1,
        0
    ));
    for n in 0..64 {
        guest_tests::mem::poke(map.addr + n * (len / 64), 1);
    }
    Ok(())
}

fn many_files_in_a_directory() -> Outcome {
    const N: usize = 100_000;
    ok!(sys!(SYS_mkdir, c"many", 0o777));
    for n in 0..N {
        let name = ok!(std::ffi::CString::new(format!("many/{n}")).map_err(|_| 0));
        ok!(sys!(SYS_mknod, name.as_c_str(), libc::S_IFREG | 0o600, 0));
    }
    let names: HashSet<_> = ok!(guest_tests::fs::names(c"many")).into_iter().collect();
    eq!(names.len(), N + 2);
    for n in [0, N / 2, N - 1] {
        check!(names.contains(&n.to_string()));
        let name = ok!(std::ffi::CString::new(format!("many/{n}")).map_err(|_| 0));
        eq!(ok!(guest_tests::fs::stat(&name)).st_size, 0);
    }
    for n in 0..N {
        let name = ok!(std::ffi::CString::new(format!("many/{n}")).map_err(|_| 0));
        ok!(sys!(SYS_unlink, name.as_c_str()));
    }
    eq!(ok!(guest_tests::fs::names(c"many")).len(), 2);
    ok!(sys!(SYS_rmdir, c"many"));
    Ok(())
}

fn deep_directories() -> Outcome {
    let top = ok!(open(c".", libc::O_RDONLY));
    for _ in 0..1000 {
        ok!(sys!(SYS_mkdir, c"d", 0o777));
        ok!(sys!(SYS_chdir, c"d"));
    }
    for _ in 0..1000 {
        ok!(sys!(SYS_chdir, c".."));
        ok!(sys!(SYS_rmdir, c"d"));
    }
    ok!(sys!(SYS_fchdir, top));
    Ok(())
}

guest_tests::cases!(
    two_thousand_threads,
    thousand_processes,
    killed_together,
    deep_chain,
    quick_forks,
    quick_threads,
    exec_loop,
    signals_between_processes,
    queued_signals,
    many_descriptors,
    many_pipes_in_poll,
    many_mappings,
    big_mapping,
    many_files_in_a_directory,
    deep_directories,
);
