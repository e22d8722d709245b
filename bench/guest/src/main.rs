//! Measures system calls from inside. See the package's README.
#![doc = include_str!("../README.md")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long one measurement runs, after as much again to warm up.
const TARGET: Duration = Duration::from_millis(60);

/// Makes a system call at a site of its own, in the shape of the C library's wrappers.
macro_rules! call {
    ($nr:expr $(, $arg:expr)*) => {{
        let given: &[usize] = &[$($arg as usize),*];
        let mut args = [0usize; 6];
        args[..given.len()].copy_from_slice(given);
        let ret: isize;
        // SAFETY: each use names a call and arguments that it keeps alive.
        unsafe {
            core::arch::asm!(
                "mov eax, {nr}",
                "syscall",
                nr = const $nr,
                lateout("rax") ret,
                in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
                in("r10") args[3], in("r8") args[4], in("r9") args[5],
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        ret
    }};
}

/// Makes a system call at the one site that all share.
#[inline(never)]
fn shared_site(nr: usize) -> isize {
    let ret: isize;
    // SAFETY: only used for calls without arguments.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr => ret, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// Runs `op` until the target time has passed; returns nanoseconds per run.
fn measure(mut op: impl FnMut()) -> f64 {
    let mut batch = 1u64;
    loop {
        let started = Instant::now();
        for _ in 0..batch {
            op();
        }
        let took = started.elapsed();
        if took >= TARGET {
            return took.as_nanos() as f64 / batch as f64;
        }
        let each = took.as_nanos().max(1) as f64 / batch as f64;
        let wanted = TARGET.as_nanos() as f64 * 1.1 / each;
        batch = (wanted as u64 + 1).min(batch.saturating_mul(50));
    }
}

fn open(path: &core::ffi::CStr, flags: i32) -> i32 {
    call!(257, libc::AT_FDCWD, path.as_ptr(), flags, 0o644) as i32
}

fn pipe() -> (i32, i32) {
    let mut fds = [0i32; 2];
    call!(293, fds.as_mut_ptr(), 0);
    let fds = black_box(fds);
    (fds[0], fds[1])
}

fn read_file(path: &core::ffi::CStr, len: usize) -> f64 {
    let fd = open(path, libc::O_RDONLY);
    let mut buf = vec![0u8; len];
    let time = measure(|| {
        call!(17, fd, buf.as_mut_ptr(), buf.len(), 0);
    });
    call!(3, fd);
    time
}

fn read_zero() -> f64 {
    let fd = open(c"/dev/zero", libc::O_RDONLY);
    let mut byte = [0u8];
    measure(|| {
        call!(0, fd, byte.as_mut_ptr(), 1);
    })
}

fn stat() -> f64 {
    let mut stat = [0u64; 32];
    measure(|| {
        call!(262, libc::AT_FDCWD, c"/tmp".as_ptr(), stat.as_mut_ptr(), 0);
    })
}

fn open_and_close(path: &core::ffi::CStr, flags: i32) -> f64 {
    measure(|| {
        let fd = open(path, flags);
        call!(3, fd);
    })
}

fn write_and_read_pipe() -> f64 {
    let (reader, writer) = pipe();
    let mut byte = [0u8];
    measure(|| {
        call!(1, writer, byte.as_ptr(), 1);
        call!(0, reader, byte.as_mut_ptr(), 1);
    })
}

/// A byte to another process and back.
fn ping_pong() -> f64 {
    let (r1, w1) = pipe();
    let (r2, w2) = pipe();
    let mut byte = [0u8];
    let pid = call!(57);
    if pid == 0 {
        call!(3, w1);
        while call!(0, r1, byte.as_mut_ptr(), 1) == 1 {
            call!(1, w2, byte.as_ptr(), 1);
        }
        exit();
    }
    let time = measure(|| {
        call!(1, w1, byte.as_ptr(), 1);
        call!(0, r2, byte.as_mut_ptr(), 1);
    });
    call!(3, w1);
    call!(61, pid, 0, 0, 0);
    time
}

/// Maps four pages, writes to each, unmaps.
fn map_touch_unmap() -> f64 {
    measure(|| {
        let addr =
            call!(9, 0, 4 * 4096, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1i32, 0) as usize;
        for page in 0..4 {
            // SAFETY: mapped above.
            unsafe { core::ptr::write_volatile((addr + page * 4096) as *mut u8, 1) };
        }
        call!(11, addr, 4 * 4096);
    })
}

/// One fault: the first write to a page of a large mapping.
fn page_fault() -> f64 {
    const PAGES: usize = 4096;
    let addr =
        call!(9, 0, PAGES * 4096, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1i32, 0) as usize;
    call!(28, addr, PAGES * 4096, libc::MADV_NOHUGEPAGE);
    let time = measure(|| {
        for page in 0..PAGES {
            // SAFETY: mapped above.
            unsafe { core::ptr::write_volatile((addr + page * 4096) as *mut u8, 1) };
        }
        call!(28, addr, PAGES * 4096, libc::MADV_DONTNEED);
    });
    call!(11, addr, PAGES * 4096);
    time / PAGES as f64
}

fn fork_and_wait() -> f64 {
    measure(|| {
        let pid = call!(57);
        if pid == 0 {
            exit();
        }
        call!(61, pid, 0, 0, 0);
    })
}

fn fork_exec_and_wait() -> f64 {
    let path = c"/proc/self/exe";
    let argv = [path.as_ptr(), c"true".as_ptr(), core::ptr::null()];
    measure(|| {
        let pid = call!(57);
        if pid == 0 {
            call!(59, path.as_ptr(), argv.as_ptr(), 0);
            exit();
        }
        call!(61, pid, 0, 0, 0);
    })
}

fn thread_and_join() -> f64 {
    measure(|| {
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(|| ());
        let _ = thread.map(std::thread::JoinHandle::join);
    })
}

fn futex_wake() -> f64 {
    let word = AtomicU32::new(0);
    measure(|| {
        call!(202, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    })
}

/// Two threads that wake each other.
fn futex_hand_over() -> f64 {
    static WORD: AtomicU32 = AtomicU32::new(0);
    const STOP: u32 = 9;
    fn wait_while(value: u32) -> u32 {
        loop {
            let now = WORD.load(SeqCst);
            if now != value {
                return now;
            }
            call!(202, WORD.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, value, 0);
        }
    }
    fn set(value: u32) {
        WORD.store(value, SeqCst);
        call!(202, WORD.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
    }
    WORD.store(0, SeqCst);
    let thread = std::thread::spawn(|| {
        while wait_while(0) != STOP {
            set(0);
        }
    });
    let time = measure(|| {
        set(1);
        wait_while(1);
    });
    set(STOP);
    let _ = thread.join();
    time
}

fn exit() -> ! {
    loop {
        call!(231, 0);
    }
}

/// Runs a call without arguments at a site of its own.
macro_rules! plain {
    ($nr:expr) => {
        || {
            measure(|| {
                black_box(call!($nr));
            })
        }
    };
}

/// Every measurement.
const ALL: [(&str, fn() -> f64); 20] = [
    ("getpid", plain!(39)),
    ("getpid_shared_site", || {
        measure(|| {
            black_box(shared_site(39));
        })
    }),
    ("clock_gettime", || {
        measure(|| {
            black_box(Instant::now());
        })
    }),
    ("getppid", plain!(110)),
    ("umask", plain!(95)),
    ("read_zero", read_zero),
    ("read_file_4k", || read_file(c"/proc/self/exe", 4096)),
    ("read_file_64k", || read_file(c"/proc/self/exe", 65536)),
    ("open_close", || open_and_close(c"/proc/self/exe", libc::O_RDONLY)),
    ("open_close_dir", || open_and_close(c"/tmp", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("stat", stat),
    ("pipe", write_and_read_pipe),
    ("ping_pong", ping_pong),
    ("mmap_touch_munmap", map_touch_unmap),
    ("page_fault", page_fault),
    ("fork_wait", fork_and_wait),
    ("fork_exec_wait", fork_exec_and_wait),
    ("thread_join", thread_and_join),
    ("futex_wake", futex_wake),
    ("futex_hand_over", futex_hand_over),
];

/// Gives back every byte that comes over a connection, one connection after the other.
fn answer(port: &str) {
    let listener = std::net::TcpListener::bind(format!("0.0.0.0:{port}")).expect("cannot listen");
    for stream in listener.incoming() {
        let mut stream = stream.expect("cannot accept");
        stream.set_nodelay(true).expect("cannot set TCP_NODELAY");
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|n| n == 1) && stream.write(&byte).is_ok() {}
    }
}

/// Prints how long it takes until a byte has gone to who answers and come back.
fn ask(to: &str) {
    let mut stream = std::net::TcpStream::connect(to).expect("cannot connect");
    stream.set_nodelay(true).expect("cannot set TCP_NODELAY");
    let time = measure(|| {
        let mut byte = [1];
        stream.write_all(&byte).expect("cannot send");
        stream.read_exact(&mut byte).expect("cannot receive");
    });
    let _ = writeln!(std::io::stdout(), "{time:.1}");
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match wanted.first().map(String::as_str) {
        Some("true") => return,
        Some("idle") => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        Some("list") => {
            for (name, _) in ALL {
                let _ = writeln!(std::io::stdout(), "{name}");
            }
            return;
        }
        Some("answer") => return answer(wanted.get(1).map_or("7010", String::as_str)),
        Some("ask") => return ask(wanted.get(1).map_or("127.0.0.1:7010", String::as_str)),
        _ => {}
    }
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            let time = run();
            let _ = writeln!(std::io::stdout(), "{name} {time:.1}");
        }
    }
}
