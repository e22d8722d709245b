//! Processes: children that run a closure, and how they ended.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Outcome, runner, sys};

/// Forks a child that runs `body` and exits with the code that it returns.
pub fn child(body: impl FnOnce() -> i32) -> Result<i32, i32> {
    match sys!(SYS_fork)? {
        0 => {
            let code = body();
            runner::exit(code)
        }
        pid => Ok(pid as i32),
    }
}

/// Forks a child that runs checks, waits for it, and passes its failure on.
pub fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    let (reader, writer) = crate::ok!(crate::fs::pipe(0));
    let pid = crate::ok!(child(|| {
        let _ = crate::fs::close(reader);
        match body() {
            Ok(()) => 0,
            Err(why) => {
                let _ = crate::fs::write_all(writer, why.as_bytes());
                1
            }
        }
    }));
    crate::ok!(crate::fs::close(writer));
    let why = crate::ok!(crate::fs::read_all(reader));
    crate::ok!(crate::fs::close(reader));
    let status = crate::ok!(wait(pid));
    if !why.is_empty() {
        return Err(format!("in child: {}", String::from_utf8_lossy(&why)));
    }
    crate::check!(status == End::Code(0), "child: {status:?}");
    Ok(())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It did not: it stopped.
    Stopped(i32),
    /// It did not: it was continued.
    Continued,
}

/// Decodes a wait status.
pub fn decode(status: i32) -> End {
    if libc::WIFEXITED(status) {
        End::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else if libc::WIFSTOPPED(status) {
        End::Stopped(libc::WSTOPSIG(status))
    } else {
        End::Continued
    }
}

/// Waits for a child.
pub fn wait(pid: i32) -> Result<End, i32> {
    wait_options(pid, 0)
}

/// Waits for a child with `wait4(2)` options.
pub fn wait_options(pid: i32, options: i32) -> Result<End, i32> {
    let mut status = 0i32;
    loop {
        match sys!(SYS_wait4, pid, &mut status, options, 0) {
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(decode(status)),
        }
    }
}

/// This process's id.
pub fn pid() -> i32 {
    sys!(SYS_getpid).unwrap_or_default() as i32
}

/// This thread's id.
pub fn tid() -> i32 {
    sys!(SYS_gettid).unwrap_or_default() as i32
}

/// Waits until a condition holds, for a little less than a case may take.
pub fn until(mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > Duration::from_secs(50) {
            return false;
        }
        sleep(Duration::from_micros(500));
    }
    true
}

/// Sleeps at least this long, signals or not.
pub fn sleep(time: Duration) {
    let mut request =
        libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    let at = core::ptr::from_mut(&mut request);
    while sys!(SYS_nanosleep, at, at) == Err(libc::EINTR) {}
}

/// Returns the state letter of a process from `/proc/PID/stat`.
pub fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a process (or thread) sleeps in a system call.
pub fn until_asleep(pid: i32) -> bool {
    until(|| state(pid) == Some('S'))
}

/// Becomes an ordinary user without capabilities.
pub fn drop_root() -> Result<(), i32> {
    sys!(SYS_setgroups, 0, 0)?;
    sys!(SYS_setresgid, 1000, 1000, 1000)?;
    sys!(SYS_setresuid, 1000, 1000, 1000)?;
    Ok(())
}

/// Starts a thread that does `body`; returns when that thread sleeps.
pub fn start_and_sleep<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (told, started) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = told.send(tid());
        body()
    });
    if let Ok(tid) = started.recv() {
        until_asleep(tid);
    }
    thread
}
