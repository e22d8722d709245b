//! `execve(2)` and `execveat(2)`: what survives, `#!` scripts, errors, argument and environment passing, auxv.

use std::ffi::CString;

use guest_tests::fs::{open, pipe, put, read_all, write};
use guest_tests::mem::{Map, poke, zeroed};
use guest_tests::proc::{self, End, child, wait};
use guest_tests::quick;
use guest_tests::{Outcome, check, eq, fails, ok, runner, sig, sys};
use libc::{AT_EMPTY_PATH, AT_FDCWD, O_PATH, O_RDONLY};

fn cstr(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// Executes a program in a child with its output in a pipe; returns how it ended and what it wrote.
fn exec(
    path: &str,
    args: &[&str],
    env: &[&str],
    before: impl FnOnce(),
) -> Result<(End, String), i32> {
    let (reader, writer) = pipe(0)?;
    let pid = child(|| {
        let _ = sys!(SYS_dup2, writer, 1);
        let _ = sys!(SYS_close, writer);
        let _ = sys!(SYS_close, reader);
        before();
        let path = cstr(path);
        let args: Vec<CString> = args.iter().map(|arg| cstr(arg)).collect();
        let env: Vec<CString> = env.iter().map(|var| cstr(var)).collect();
        let list = |of: &[CString]| {
            let mut all: Vec<*const i8> = of.iter().map(|item| item.as_ptr()).collect();
            all.push(core::ptr::null());
            all
        };
        let (argv, envp) = (list(&args), list(&env));
        match sys!(SYS_execve, path.as_c_str(), argv.as_slice(), envp.as_slice()) {
            Ok(_) => 98,
            Err(errno) => errno,
        }
    })?;
    sys!(SYS_close, writer)?;
    let output = read_all(reader)?;
    sys!(SYS_close, reader)?;
    Ok((wait(pid)?, String::from_utf8_lossy(&output).into_owned()))
}

/// This program.
fn me() -> String {
    std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default()
}

/// Helper that other cases execute: tells what it was given. Silent otherwise.
fn helper() -> Outcome {
    if !std::env::args().any(|arg| arg == "--inline") {
        return Ok(());
    }
    let mut told = String::new();
    for arg in std::env::args() {
        told += &format!("arg {arg}\n");
    }
    for (name, value) in std::env::vars() {
        told += &format!("env {name}={value}\n");
    }
    for signo in [libc::SIGUSR1, libc::SIGUSR2] {
        told += &format!("handler {}\n", ok!(sig::action(signo)).handler);
    }
    told += &format!("mask {:x}\n", ok!(sig::mask(libc::SIG_BLOCK, 0)));
    told += &format!("pending {:x}\n", ok!(sig::pending()));
    for fd in [200, 201] {
        told += &format!("fd {}\n", sys!(SYS_fcntl, fd, libc::F_GETFD, 0).is_ok());
    }
    told += &format!("umask {:o}\n", ok!(sys!(SYS_umask, 0)));
    told += &format!("threads {}\n", ok!(std::fs::read_dir("/proc/self/task")).count());
    told += &format!("comm {}", ok!(std::fs::read_to_string("/proc/self/comm")));
    let ids = [
        ok!(sys!(SYS_getuid)),
        ok!(sys!(SYS_geteuid)),
        ok!(sys!(SYS_getgid)),
        ok!(sys!(SYS_getegid)),
    ];
    told += &format!("ids {ids:?}\n");
    ok!(write(1, told.as_bytes()));
    Ok(())
}

fn arguments_and_environment() -> Outcome {
    let (end, told) = ok!(exec(
        &me(),
        &["name", "--inline", "helper", "", "x y"],
        &["A=1", "B=two words"],
        || ()
    ));
    eq!(end, End::Code(0));
    check!(
        told.contains(
            "arg name\narg --inline\narg helper\narg \narg x y\nenv A=1\nenv B=two words\n"
        ),
        "{told}"
    );
    Ok(())
}

fn no_arguments_at_all() -> Outcome {
    // Linux gives such a program one empty argument.
    let pid = ok!(child(|| {
        let path = cstr("/proc/self/exe");
        match sys!(SYS_execve, path.as_c_str(), 0, 0) {
            Ok(_) => 98,
            Err(errno) => errno,
        }
    }));
    // It runs all of its cases again, which would not end: the kill says that it was running.
    check!(proc::until(
        || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == [0])
    ));
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    eq!(ok!(wait(pid)), End::Signal(libc::SIGKILL));
    Ok(())
}

fn signals_across_exec() -> Outcome {
    let (end, told) = ok!(exec(&me(), &["h", "--inline", "helper"], &[], || {
        let _ = sig::handle(libc::SIGUSR1, sig::record, 0);
        let _ = sig::plain(libc::SIGUSR2, 1);
        let _ = sig::mask(libc::SIG_SETMASK, sig::bit(libc::SIGUSR1) | sig::bit(libc::SIGHUP));
        let _ = sig::raise(libc::SIGUSR1);
    }));
    eq!(end, End::Code(0));
    check!(told.contains("handler 0\nhandler 1\nmask 201\npending 200\n"), "{told}");
    Ok(())
}

fn descriptors_across_exec() -> Outcome {
    let (_, told) = ok!(exec(&me(), &["h", "--inline", "helper"], &[], || {
        let _ = sys!(SYS_dup3, 0, 200, libc::O_CLOEXEC);
        let _ = sys!(SYS_dup3, 0, 201, 0);
        // Changed so often that it may have been elsewhere.
        for _ in 0..200 {
            let _ = quick::umask([0o31, 0, 0, 0]);
        }
    }));
    check!(told.contains("fd false\nfd true\numask 31\n"), "{told}");
    Ok(())
}

fn exec_from_thread_ends_the_others() -> Outcome {
    let (end, told) = ok!(exec(&me(), &["h", "--inline", "helper"], &[], || {
        for _ in 0..3 {
            std::thread::spawn(|| proc::sleep(std::time::Duration::from_secs(30)));
        }
        let before = proc::pid();
        let path = me();
        let thread = std::thread::spawn(move || {
            let (path, name, inline, helper) =
                (cstr(&path), cstr("h"), cstr("--inline"), cstr("helper"));
            let argv = [name.as_ptr(), inline.as_ptr(), helper.as_ptr(), core::ptr::null()];
            let pid = cstr(&format!("PID={before}"));
            let envp = [pid.as_ptr(), core::ptr::null()];
            let _ = sys!(SYS_execve, path.as_c_str(), &argv, &envp);
        });
        let _ = thread.join();
        runner::exit(77);
    }));
    eq!(end, End::Code(0));
    check!(told.contains("threads 1\n"), "{told}");
    Ok(())
}

fn command_name_is_base_name() -> Outcome {
    ok!(sys!(SYS_symlink, cstr(&me()).as_c_str(), c"a-rather-long-program-name"));
    let (_, told) =
        ok!(exec("./a-rather-long-program-name", &["h", "--inline", "helper"], &[], || ()));
    check!(told.contains("comm a-rather-long-p\n"), "{told}");
    Ok(())
}

fn script_with_interpreter() -> Outcome {
    ok!(put(c"script", format!("#! {} --inline\nrest\n", me()).as_bytes()));
    ok!(sys!(SYS_chmod, c"script", 0o755));
    ok!(sys!(SYS_rename, c"script", c"helper"));
    // Optional argument, then the script's path, then the arguments after the first.
    let (end, told) = ok!(exec("helper", &["ignored", "more"], &[], || ()));
    eq!(end, End::Code(0));
    check!(told.contains(&format!("arg {}\narg --inline\narg helper\narg more\n", me())), "{told}");
    Ok(())
}

fn script_of_script() -> Outcome {
    ok!(put(c"inner", format!("#!{} --inline\n", me()).as_bytes()));
    ok!(put(c"helper", b"#!./inner helper\n"));
    for name in [c"inner", c"helper"] {
        ok!(sys!(SYS_chmod, name, 0o755));
    }
    let (end, told) = ok!(exec("./helper", &["x"], &[], || ()));
    eq!(end, End::Code(0));
    check!(told.contains("arg --inline\narg ./inner\narg helper\narg ./helper\n"), "{told}");
    Ok(())
}

fn script_loop_ends() -> Outcome {
    ok!(put(c"loop", b"#!./loop\n"));
    ok!(sys!(SYS_chmod, c"loop", 0o755));
    eq!(ok!(exec("./loop", &["x"], &[], || ())).0, End::Code(libc::ELOOP));
    Ok(())
}

fn script_without_interpreter() -> Outcome {
    ok!(put(c"s", b"#!/no/such/interpreter\n"));
    ok!(put(c"empty", b"#!\n"));
    for name in [c"s", c"empty"] {
        ok!(sys!(SYS_chmod, name, 0o755));
    }
    eq!(ok!(exec("./s", &["x"], &[], || ())).0, End::Code(libc::ENOENT));
    eq!(ok!(exec("./empty", &["x"], &[], || ())).0, End::Code(libc::ENOEXEC));
    Ok(())
}

fn errors() -> Outcome {
    let code = |path: &str| exec(path, &["x"], &[], || ()).map(|(end, _)| end);
    eq!(ok!(code("/none")), End::Code(libc::ENOENT));
    eq!(ok!(code("/")), End::Code(libc::EACCES));
    eq!(ok!(code("")), End::Code(libc::ENOENT));
    ok!(put(c"plain", b"text"));
    eq!(ok!(code("plain")), End::Code(libc::EACCES));
    ok!(sys!(SYS_chmod, c"plain", 0o755));
    eq!(ok!(code("plain")), End::Code(libc::ENOEXEC));
    eq!(ok!(code("plain/x")), End::Code(libc::ENOTDIR));
    ok!(put(c"zero", b""));
    ok!(sys!(SYS_chmod, c"zero", 0o755));
    eq!(ok!(code("zero")), End::Code(libc::ENOEXEC));
    ok!(put(c"elf", b"\x7fELF"));
    ok!(sys!(SYS_chmod, c"elf", 0o755));
    eq!(ok!(code("elf")), End::Code(libc::ENOEXEC));
    fails!(sys!(SYS_execve, 8, 0, 0), EFAULT);
    Ok(())
}

fn broken_elf_files() -> Outcome {
    let whole = ok!(std::fs::read(me()));
    let header = &whole[..4096.min(whole.len())];
    // Every single byte of the ELF header and the program headers changed, one at a time: an error or a
    // signal, never a hang, and never anything worse.
    for position in (4..64).chain(64..200) {
        let mut broken = header.to_vec();
        broken[position] ^= 0xff;
        ok!(put(c"broken", &broken));
        ok!(sys!(SYS_chmod, c"broken", 0o755));
        let pid = ok!(child(|| {
            let argv = [c"x".as_ptr(), core::ptr::null()];
            let _ = sys!(SYS_close, 1);
            let _ = sys!(SYS_close, 2);
            let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
            let _ = sys!(SYS_prlimit64, 0, libc::RLIMIT_CPU, &limit, 0);
            let _ = sys!(
                SYS_prlimit64,
                0,
                libc::RLIMIT_CORE,
                &libc::rlimit { rlim_cur: 0, rlim_max: 0 },
                0
            );
            let _ = sys!(SYS_execve, c"broken", &argv, 0);
            99
        }));
        ok!(wait(pid));
    }
    Ok(())
}

fn too_long_arguments() -> Outcome {
    let long = "x".repeat(131_072);
    eq!(ok!(exec(&me(), &["x", &long], &[], || ())).0, End::Code(libc::E2BIG));
    let long = "x".repeat(131_071 - 10);
    let (end, told) = ok!(exec(&me(), &["x", "--inline", "helper", &long], &[], || ()));
    eq!(end, End::Code(0));
    check!(told.len() > 131_000);
    Ok(())
}

fn thousands_of_arguments() -> Outcome {
    let words: Vec<String> = (0..3000).map(|i| format!("w{i}")).collect();
    let mut args = vec!["x", "--inline", "helper"];
    args.extend(words.iter().map(String::as_str));
    let (end, told) = ok!(exec(&me(), &args, &[], || ()));
    eq!(end, End::Code(0));
    check!(told.contains("arg w2999\n"));
    Ok(())
}

fn exec_by_descriptor() -> Outcome {
    let argv = [c"h".as_ptr(), c"--inline".as_ptr(), c"helper".as_ptr(), core::ptr::null()];
    let path = cstr(&me());
    let run = |flags: i32, open_flags: i32| -> Result<End, i32> {
        let fd = open(&path, open_flags)?;
        let pid = child(|| {
            let null = open(c"/dev/null", libc::O_WRONLY).unwrap_or(-1);
            let _ = sys!(SYS_dup2, null, 1);
            match sys!(SYS_execveat, fd, c"", &argv, 0, flags) {
                Ok(_) => 98,
                Err(errno) => errno,
            }
        })?;
        wait(pid)
    };
    eq!(ok!(run(AT_EMPTY_PATH, O_RDONLY)), End::Code(0));
    eq!(ok!(run(AT_EMPTY_PATH, O_PATH)), End::Code(0));
    eq!(ok!(run(0, O_RDONLY)), End::Code(libc::ENOENT));
    fails!(sys!(SYS_execveat, AT_FDCWD, path.as_c_str(), &argv, 0, 0x8000), EINVAL);
    ok!(sys!(SYS_symlink, path.as_c_str(), c"l"));
    fails!(sys!(SYS_execveat, AT_FDCWD, c"l", &argv, 0, libc::AT_SYMLINK_NOFOLLOW), ELOOP);
    Ok(())
}

fn exec_of_memfd() -> Outcome {
    let fd = ok!(sys!(SYS_memfd_create, c"program", 1)) as i32;
    ok!(guest_tests::fs::write_all(fd, &ok!(std::fs::read(me()))));
    let again = ok!(open(&cstr(&format!("/proc/self/fd/{fd}")), O_RDONLY | libc::O_CLOEXEC));
    ok!(sys!(SYS_close, fd));
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = sys!(SYS_dup2, writer, 1);
        let _ = sys!(SYS_close, writer);
        let _ = sys!(SYS_close, reader);
        let argv = [c"h".as_ptr(), c"--inline".as_ptr(), c"helper".as_ptr(), core::ptr::null()];
        sys!(SYS_execveat, again, c"", &argv, 0, AT_EMPTY_PATH).map_or_else(|errno| errno, |_| 98)
    }));
    ok!(sys!(SYS_close, writer));
    let told = ok!(read_all(reader));
    eq!(ok!(wait(pid)), End::Code(0));
    check!(told.starts_with(b"arg h\n"));
    Ok(())
}

fn set_user_id_program() -> Outcome {
    ok!(put(c"s", &ok!(std::fs::read(me()))));
    ok!(sys!(SYS_chown, c"s", 33, 44));
    ok!(sys!(SYS_chmod, c"s", 0o6755));
    let (end, told) = ok!(exec("./s", &["h", "--inline", "helper"], &[], || {
        let _ = proc::drop_root();
    }));
    eq!(end, End::Code(0));
    check!(told.contains("ids [1000, 33, 1000, 44]\n"), "{told}");
    let (_, told) = ok!(exec("./s", &["h", "--inline", "helper"], &[], || {
        let _ = sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let _ = proc::drop_root();
    }));
    check!(told.contains("ids [1000, 1000, 1000, 1000]\n"), "{told}");
    Ok(())
}

fn execute_permission() -> Outcome {
    ok!(put(c"p", &ok!(std::fs::read(me()))));
    ok!(sys!(SYS_chmod, c"p", 0o700));
    let (end, _) = ok!(exec("./p", &["h", "--inline", "helper"], &[], || {
        let _ = proc::drop_root();
    }));
    eq!(end, End::Code(libc::EACCES));
    Ok(())
}

fn auxiliary_vector() -> Outcome {
    let auxv = ok!(std::fs::read("/proc/self/auxv"));
    let pairs: Vec<(u64, u64)> = auxv
        .chunks_exact(16)
        .map(|pair| {
            let word =
                |at: usize| u64::from_ne_bytes(pair[at..at + 8].try_into().unwrap_or_default());
            (word(0), word(8))
        })
        .collect();
    let find = |key: u64| pairs.iter().find(|(have, _)| *have == key).map(|(_, value)| *value);
    eq!(find(libc::AT_PAGESZ), Some(4096));
    eq!(find(libc::AT_UID), Some(0));
    eq!(find(libc::AT_SECURE), Some(0));
    eq!(find(libc::AT_CLKTCK), Some(100));
    eq!(find(libc::AT_PHENT), Some(56));
    check!(find(libc::AT_PHDR).is_some_and(|value| value != 0));
    check!(find(libc::AT_ENTRY).is_some_and(|value| value != 0));
    check!(find(libc::AT_SYSINFO_EHDR).is_some_and(|value| value % 4096 == 0));
    let random = find(libc::AT_RANDOM).unwrap_or_default() as usize;
    check!((0..16).any(|i| guest_tests::mem::peek(random + i) != 0), "no random bytes");
    let name = find(libc::AT_EXECFN).unwrap_or_default() as usize;
    // SAFETY: the kernel put a string there.
    let name = unsafe { core::ffi::CStr::from_ptr(name as *const i8) };
    check!(!name.is_empty());
    eq!(pairs.last(), Some(&(0, 0)));
    Ok(())
}

fn initial_stack_is_aligned() -> Outcome {
    for count in 0..4 {
        let mut args = vec!["h", "--inline", "helper"];
        args.extend(std::iter::repeat_n("odd", count));
        eq!(ok!(exec(&me(), &args, &[], || ())).0, End::Code(0));
    }
    Ok(())
}

fn process_files_follow() -> Outcome {
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = sys!(SYS_dup2, reader, 0);
        let _ = sys!(SYS_close, writer);
        let argv = [
            c"renamed".as_ptr(),
            c"--inline".as_ptr(),
            c"wait_for_end".as_ptr(),
            core::ptr::null(),
        ];
        let _ = sys!(SYS_execve, cstr(&me()).as_c_str(), &argv, 0);
        99
    }));
    let line = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    check!(proc::until(|| line() == b"renamed\0--inline\0wait_for_end\0"));
    let exe = ok!(std::fs::read_link(format!("/proc/{pid}/exe")));
    eq!(exe.display().to_string(), me());
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    ok!(wait(pid));
    ok!(sys!(SYS_close, writer));
    Ok(())
}

/// Closing a descriptor ends the record locks of the process, exec's closing as well.
fn record_locks_end_with_their_descriptors() -> Outcome {
    let whole = || {
        let mut lock = zeroed::<libc::flock>();
        lock.l_type = libc::F_WRLCK as i16;
        lock
    };
    let names = [c"ended", c"kept"];
    for name in names {
        ok!(put(name, b"content"));
    }
    let (reader, writer) = ok!(pipe(0));
    let pid = ok!(child(|| {
        let _ = sys!(SYS_dup2, reader, 0);
        let _ = sys!(SYS_close, writer);
        for (name, flag) in names.into_iter().zip([libc::O_CLOEXEC, 0]) {
            let Ok(fd) = open(name, libc::O_RDWR | flag) else { return 97 };
            if sys!(SYS_fcntl, fd, libc::F_SETLK, &whole()).is_err() {
                return 98;
            }
        }
        let argv =
            [c"x".as_ptr(), c"--inline".as_ptr(), c"wait_for_end".as_ptr(), core::ptr::null()];
        let _ = sys!(SYS_execve, cstr(&me()).as_c_str(), &argv, 0);
        99
    }));
    let line = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    check!(proc::until(|| line() == b"x\0--inline\0wait_for_end\0"));
    let mut found = Vec::new();
    for name in names {
        let (fd, mut probe) = (ok!(open(name, libc::O_RDWR)), whole());
        ok!(sys!(SYS_fcntl, fd, libc::F_GETLK, &mut probe));
        found.push(i32::from(probe.l_type));
    }
    eq!(found, [libc::F_UNLCK, libc::F_WRLCK]);
    ok!(sys!(SYS_kill, pid, libc::SIGKILL));
    ok!(wait(pid));
    ok!(sys!(SYS_close, writer));
    Ok(())
}

/// Helper of others: waits for the end of its input. Silent otherwise.
fn wait_for_end() -> Outcome {
    if std::env::args().any(|arg| arg == "--inline") {
        ok!(read_all(0));
    }
    Ok(())
}

/// The path ends on the page on which the arguments lie.
fn path_across_a_page_boundary() -> Outcome {
    let pid = ok!(child(|| {
        let Ok(map) = Map::anonymous(8192, libc::MAP_PRIVATE) else { return 97 };
        let base = map.leak();
        let path = me();
        let start = base + 4096 - path.len() / 2;
        for (at, byte) in (start..).zip(path.bytes().chain([0])) {
            poke(at, byte);
        }
        for (at, byte) in (base + 6000..).zip(*b"x\0helper\0") {
            poke(at, byte);
        }
        let argv = [base + 6000, base + 6002, 0];
        // What the program says is not this case's.
        let Ok(null) = open(c"/dev/null", libc::O_WRONLY) else { return 97 };
        let _ = sys!(SYS_dup2, null, 1);
        match sys!(SYS_execve, start, argv.as_slice(), 0) {
            Ok(_) => 98,
            Err(errno) => errno,
        }
    }));
    eq!(ok!(wait(pid)), End::Code(0));
    Ok(())
}

guest_tests::cases!(
    helper,
    arguments_and_environment,
    path_across_a_page_boundary,
    no_arguments_at_all,
    signals_across_exec,
    descriptors_across_exec,
    exec_from_thread_ends_the_others,
    command_name_is_base_name,
    script_with_interpreter,
    script_of_script,
    script_loop_ends,
    script_without_interpreter,
    errors,
    broken_elf_files,
    too_long_arguments,
    thousands_of_arguments,
    exec_by_descriptor,
    exec_of_memfd,
    set_user_id_program,
    execute_permission,
    auxiliary_vector,
    initial_stack_is_aligned,
    process_files_follow,
    record_locks_end_with_their_descriptors,
    wait_for_end,
);
