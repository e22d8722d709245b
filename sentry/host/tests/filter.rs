//! What the generated filter does to a process that tries more than the sentry needs.
//!
//! # Safety
//! Each probe is a fork of this process that makes raw calls only and never returns to the test
//! harness, whose other threads it lacks.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module as a whole"
)]
#![expect(unsafe_code, reason = "probes fork and make calls that have no safe form")]

use sentry_host::Rule;
use sentry_host::filter::{self, Violation};

/// Runs `probe` in a child under the sentry's filter; returns the child's wait status.
fn status_under_filter(probe: impl FnOnce() -> libc::c_long) -> i32 {
    status_under(&sentry_host::rules(), probe)
}

/// Runs `probe` in a child under a filter of `rules`; returns the child's wait status.
fn status_under(rules: &[Rule], probe: impl FnOnce() -> libc::c_long) -> i32 {
    // SAFETY: the child only installs the filter, makes the probe's raw call and exits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = match filter::install(rules, Violation::Kill) {
            Ok(()) if probe() >= 0 => 0,
            Ok(()) => 1,
            Err(_) => 2,
        };
        // SAFETY: `_exit` takes any value.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is live.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

#[track_caller]
fn assert_killed(probe: impl FnOnce() -> libc::c_long) {
    let status = status_under_filter(probe);
    assert!(
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS,
        "wait status {status:#x}"
    );
}

#[test]
fn calls_of_the_lists_pass() {
    // SAFETY: no arguments.
    assert_eq!(status_under_filter(|| unsafe { libc::syscall(libc::SYS_sched_yield) }), 0);
}

#[test]
fn opening_a_file_kills() {
    // SAFETY: C strings.
    assert_killed(|| unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), libc::O_RDONLY)
    });
    // SAFETY: C strings.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_open, c"/".as_ptr(), libc::O_RDONLY) });
}

#[test]
fn opening_for_writing_kills() {
    // SAFETY: C strings.
    assert_killed(|| unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR)
    });
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_CREAT;
    // SAFETY: C strings.
    assert_killed(|| unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), flags, 0)
    });
}

#[test]
fn executable_memory_kills() {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh mapping, or none.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, prot, flags, -1, 0) });
    // SAFETY: no mapping is at address zero.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_mprotect, 0, 4096, prot) });
}

#[test]
fn sockets_kill() {
    // SAFETY: integers.
    assert_killed(|| unsafe {
        libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)
    });
    // SAFETY: null is allowed to fail; the filter comes first.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_connect, 0, std::ptr::null::<u8>(), 0) });
}

#[test]
fn new_processes_and_programs_kill() {
    // SAFETY: a child of the probe, if there is one, exits as the probe does.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_fork) });
    // SAFETY: as above.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) });
    // SAFETY: null is allowed to fail; the filter comes first.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0) });
    let null = std::ptr::null::<u8>();
    // SAFETY: C strings and null arrays.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), null, null) });
    // SAFETY: as above.
    assert_killed(|| unsafe {
        libc::syscall(libc::SYS_execveat, 0, c"".as_ptr(), null, null, libc::AT_EMPTY_PATH)
    });
}

#[test]
fn new_namespaces_mounts_and_privileges_kill() {
    // SAFETY: integers.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) });
    let null = std::ptr::null::<u8>();
    // SAFETY: null is allowed to fail; the filter comes first.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_mount, null, null, null, 0, null) });
    // SAFETY: integers.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_setuid, 0) });
    // SAFETY: integers.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0) });
    // SAFETY: integers; `bpf` with a null attribute fails.
    assert_killed(|| unsafe { libc::syscall(libc::SYS_bpf, 0, null, 0) });
}

#[test]
fn x32_numbers_kill() {
    const X32_BIT: libc::c_long = 0x4000_0000;
    // SAFETY: no arguments.
    assert_killed(|| unsafe { libc::syscall(X32_BIT | libc::SYS_sched_yield) });
}

#[test]
fn foreign_architecture_kills() {
    assert_killed(|| {
        let result: i64;
        // SAFETY: getpid (20) of the 32-bit table, if it got that far, clobbers nothing else.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        };
        result
    });
}

#[test]
fn sockets_of_the_host_network_are_tcp_and_udp_with_harmless_options() {
    let rules = [sentry_host::rules(), sentry_host::inet::rules()].concat();
    let under_network_filter = |probe: &dyn Fn() -> libc::c_long| status_under(&rules, probe);
    let socket = |family: i32, kind: i32, protocol: i32| {
        let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: integers.
        unsafe { libc::syscall(libc::SYS_socket, family, kind, protocol) }
    };
    let option = |level: i32, name: i32| {
        let (fd, one) = (socket(libc::AF_INET, libc::SOCK_STREAM, 0), 1_i32);
        // SAFETY: four live bytes.
        unsafe { libc::syscall(libc::SYS_setsockopt, fd, level, name, &raw const one, 4) }
    };
    let is_killed =
        |status: i32| libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS;
    assert_eq!(under_network_filter(&|| socket(libc::AF_INET, libc::SOCK_STREAM, 0)), 0);
    assert_eq!(under_network_filter(&|| option(libc::SOL_TCP, libc::TCP_NODELAY)), 0);
    for (family, kind, protocol) in [
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0),
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    ] {
        assert!(is_killed(under_network_filter(&|| socket(family, kind, protocol))));
    }
    // Filters, TLS and MD5 of TCP, tables of iptables.
    for (level, name) in [
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
        (libc::SOL_TCP, 31),
        (libc::SOL_TCP, 14),
        (libc::IPPROTO_IP, 64),
    ] {
        assert!(is_killed(under_network_filter(&|| option(level, name))));
    }
}
