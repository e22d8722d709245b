//! Measures system calls from inside. See the package's README.
#![doc = include_str!("../README.md")]

mod call;
mod exchange;
mod files;
mod tasks;

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use call::{call, measure, shared_site};

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
const ALL: [(&str, fn() -> f64); 44] = [
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
    ("sched_yield", plain!(24)),
    ("sigprocmask", tasks::sigprocmask),
    ("umask", plain!(95)),
    ("read_zero", files::read_zero),
    ("read_file_1", || files::read_file(c"/proc/self/exe", 1)),
    ("read_file_4k", || files::read_file(c"/proc/self/exe", 4096)),
    ("read_file_64k", || files::read_file(c"/proc/self/exe", 65536)),
    ("read_file_1m", || files::read_file(c"/proc/self/exe", 1 << 20)),
    ("write_file_4k", || files::write_file(4096)),
    ("open_close", || files::open_and_close(c"/proc/self/exe", libc::O_RDONLY)),
    ("open_close_dir", || files::open_and_close(c"/tmp", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("create_unlink", files::create_and_unlink),
    ("readdir_1000", files::readdir),
    ("stat", || files::stat(c"/tmp")),
    ("stat_missing", || files::stat(c"/tmp/bench-is-not-there")),
    ("stat_deep", files::stat_deep),
    ("fstat", files::fstat),
    ("pipe", exchange::pipe_to_self),
    ("eventfd", exchange::eventfd_to_self),
    ("unix_socket", exchange::unix_to_self),
    ("epoll_wait", exchange::epoll_wait),
    ("ping_pong", exchange::pipe_ping_pong),
    ("ping_pong_eventfd", exchange::eventfd_ping_pong),
    ("ping_pong_unix", exchange::unix_ping_pong),
    ("ping_pong_tcp", exchange::tcp_ping_pong),
    ("mmap_touch_munmap", tasks::map_touch_unmap),
    ("mprotect", tasks::mprotect),
    ("page_fault", tasks::page_fault),
    ("fork_wait", tasks::fork_and_wait),
    ("fork_exec_wait", tasks::fork_exec_and_wait),
    ("posix_spawn", tasks::spawn_and_wait),
    ("thread_join", tasks::thread_and_join),
    ("signal_self", tasks::signal_to_self),
    ("futex_wake", exchange::futex_wake),
    ("futex_hand_over", exchange::futex_hand_over),
    ("mutex_contended", exchange::contended_mutex),
    ("busy_threads_1", || tasks::busy_threads(1)),
    ("busy_threads_2", || tasks::busy_threads(2)),
    ("busy_threads_8", || tasks::busy_threads(8)),
    ("busy_threads_64", || tasks::busy_threads(64)),
];

fn print(name: &str, time: f64) {
    let _ = writeln!(std::io::stdout(), "{name} {time:.1}");
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
        Some("answer") => {
            return exchange::answer(wanted.get(1).map_or("7010", String::as_str));
        }
        Some("ask") => {
            let time = exchange::ask(wanted.get(1).map_or("127.0.0.1:7010", String::as_str));
            let _ = writeln!(std::io::stdout(), "{time:.1}");
            return;
        }
        Some("file") => {
            for (name, time) in files::file_in(wanted.get(1).map_or("/tmp", String::as_str)) {
                print(name, time);
            }
            return;
        }
        _ => {}
    }
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            print(name, run());
        }
    }
}
