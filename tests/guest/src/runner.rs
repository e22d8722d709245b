//! Runs the cases of a program, each in a forked child with a directory of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Outcome, sys};

/// How long one case may take. Far above what any case needs on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the program: the cases that its arguments name, or all.
pub fn main(cases: &[(&str, fn() -> Outcome)]) {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--list") {
        for (name, _) in cases {
            line(&format!("{name}\n"));
        }
        return;
    }
    let inline = arguments.first().is_some_and(|first| first == "--inline");
    if inline {
        arguments.remove(0);
    }
    let scratch = scratch();
    let mut failures = 0;
    for (name, case) in cases {
        if !arguments.is_empty() && !arguments.iter().any(|wanted| wanted == name) {
            continue;
        }
        let dir = scratch.join(name);
        if let Err(error) = make_dir(&dir) {
            line(&format!("FAIL {name}: scratch directory: {error}\n"));
            failures += 1;
            continue;
        }
        let passed = if inline { run_here(name, *case) } else { run_forked(name, *case) };
        failures += i32::from(!passed);
    }
    let _ = std::env::set_current_dir("/");
    let _ = std::fs::remove_dir_all(&scratch);
    exit(i32::from(failures > 0));
}

/// Runs one case in this process and prints its line.
fn run_here(name: &str, case: fn() -> Outcome) -> bool {
    match case() {
        Ok(()) => line(&format!("ok {name}\n")),
        Err(why) => {
            line(&format!("FAIL {name}: {}\n", why.replace('\n', " ")));
            return false;
        }
    }
    true
}

/// Runs one case in a child; reports a child that died or hung in its stead.
fn run_forked(name: &str, case: fn() -> Outcome) -> bool {
    let pid = match sys!(SYS_fork) {
        Ok(0) => {
            // A group of its own, so that whatever the case leaves running can be ended.
            let _ = sys!(SYS_setpgid, 0, 0);
            exit(if run_here(name, case) { 0 } else { 1 });
        }
        Ok(pid) => pid as i32,
        Err(errno) => {
            line(&format!("FAIL {name}: fork: {}\n", crate::errno::name(errno)));
            return false;
        }
    };
    let started = Instant::now();
    let mut pause = Duration::from_micros(100);
    let mut status = 0i32;
    loop {
        match sys!(SYS_wait4, pid, &mut status, libc::WNOHANG, 0) {
            Ok(0) => {}
            Ok(_) => break,
            Err(libc::EINTR) => continue,
            Err(errno) => {
                line(&format!("FAIL {name}: wait4: {}\n", crate::errno::name(errno)));
                return false;
            }
        }
        if started.elapsed() > DEADLINE {
            let _ = sys!(SYS_kill, pid, libc::SIGKILL);
            let _ = sys!(SYS_kill, -pid, libc::SIGKILL);
            let _ = sys!(SYS_wait4, pid, &mut status, 0, 0);
            line(&format!("FAIL {name}: hung\n"));
            return false;
        }
        let request = libc::timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as i64 };
        let _ = sys!(SYS_nanosleep, &request, 0);
        pause = (pause * 2).min(Duration::from_millis(4));
    }
    let _ = sys!(SYS_kill, -pid, libc::SIGKILL);
    if libc::WIFSIGNALED(status) {
        line(&format!("FAIL {name}: killed by signal {}\n", libc::WTERMSIG(status)));
        return false;
    }
    let code = libc::WEXITSTATUS(status);
    if code > 1 {
        line(&format!("FAIL {name}: exit status {code}\n"));
    }
    code == 0
}

/// Creates the directory below which the cases work: `$TEST_DIR`, or `/tmp`.
fn scratch() -> PathBuf {
    let base = std::env::var("TEST_DIR").unwrap_or_else(|_| "/tmp".to_owned());
    let program = std::env::args().next().unwrap_or_default();
    let program =
        Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    PathBuf::from(base).join(format!("guest-{program}-{}", std::process::id()))
}

/// Creates a case's directory, open to all users, and enters it.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir)?;
    for made in [dir.parent().unwrap_or(dir), dir] {
        std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o777))?;
    }
    std::env::set_current_dir(dir)
}

/// Writes one line in one piece.
fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Ends this process at once: a forked child must not run what its parent set up for exit.
pub fn exit(code: i32) -> ! {
    loop {
        let _ = sys!(SYS_exit_group, code);
    }
}
