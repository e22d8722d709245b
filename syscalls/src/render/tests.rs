//! Tests of the notation.

extern crate std;

use std::string::String;
use std::vec::Vec;

use zerocopy::IntoBytes;

use super::{render_call, render_entry, render_return, render_unknown};
use crate::abi::fs;
use crate::errno::Errno;
use crate::table::{ALL, by_name};
use crate::user_addr::UserAddr;

const BASE: u64 = 0x1000;

/// Guest memory of one range that starts at [`BASE`].
fn reader(memory: &[u8]) -> impl FnMut(UserAddr, &mut [u8]) -> usize + '_ {
    move |addr, dst| {
        let start = addr.0.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
        let source = start.and_then(|at| memory.get(at..)).unwrap_or(&[]);
        let n = source.len().min(dst.len());
        dst[..n].copy_from_slice(&source[..n]);
        n
    }
}

fn entry(name: &str, args: [u64; 6], memory: &[u8]) -> String {
    let mut text = String::new();
    let info = by_name(name).expect("a call");
    render_entry(info, &args, &mut reader(memory), &mut text).expect("a string takes anything");
    text
}

fn returned(name: &str, args: [u64; 6], value: u64, memory: &[u8]) -> String {
    let mut text = String::new();
    let info = by_name(name).expect("a call");
    render_return(info, &args, value, &mut reader(memory), &mut text)
        .expect("a string takes anything");
    text
}

fn call(name: &str, args: [u64; 6], value: u64, memory: &[u8]) -> String {
    let mut text = String::new();
    let info = by_name(name).expect("a call");
    render_call(info, &args, value, &mut reader(memory), &mut text)
        .expect("a string takes anything");
    text
}

#[test]
fn path_and_flags_are_shown_by_name() {
    let at = i64::from(fs::AT_FDCWD).cast_unsigned();
    let args = [at, BASE, 0o2_000_101, 0o644, 0, 0];
    assert_eq!(
        entry("openat", args, b"/etc/\"x\"\0"),
        r#"openat(AT_FDCWD, "/etc/\"x\"", O_WRONLY|O_CREAT|O_CLOEXEC, 0644)"#
    );
    assert_eq!(
        returned("openat", args, Errno::ENOENT.to_return(), &[]),
        " = -1 ENOENT (No such file or directory)"
    );
}

#[test]
fn names_of_several_bits_win_over_their_parts() {
    let text = entry("open", [BASE, 0o4_010_000 | 2, 0, 0, 0, 0], b"f\0");
    assert_eq!(text, r#"open("f", O_RDWR|O_SYNC, 0)"#);
    let text = entry("open", [BASE, 0o10_000, 0, 0, 0, 0], b"f\0");
    assert_eq!(text, r#"open("f", O_RDONLY|O_DSYNC, 0)"#);
}

#[test]
fn buffers_are_cut_and_escaped() {
    let memory = [b'a'; 40];
    assert_eq!(
        entry("write", [1, BASE, 40, 0, 0, 0], &memory),
        r#"write(1, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"..., 40)"#
    );
    assert_eq!(
        entry("write", [1, BASE, 5, 0, 0, 0], b"\n\x01\x017\xff"),
        r#"write(1, "\n\1\0017\377", 5)"#
    );
    assert_eq!(entry("write", [1, 5, 5, 0, 0, 0], &[]), "write(1, 0x5, 5)");
}

#[test]
fn outputs_are_shown_once_they_are_there() {
    let args = [3, BASE, 100, 0, 0, 0];
    assert_eq!(entry("read", args, b"hello"), "read(3, 0x1000, 100)");
    assert_eq!(returned("read", args, 5, b"hello world"), " = 5 {buf=\"hello\"}");
    assert_eq!(call("read", args, 5, b"hello world"), "read(3, \"hello\", 100) = 5");
}

#[test]
fn structures_are_shown_by_member() {
    let stat = fs::Stat { st_mode: 0o100_644, st_size: 7, ..fs::Stat::default() };
    assert_eq!(
        call("fstat", [3, BASE, 0, 0, 0, 0], 0, stat.as_bytes()),
        "fstat(3, {st_mode=S_IFREG|0644, st_size=7, ...}) = 0"
    );
    let memory = [3i32, 5].map(i32::to_le_bytes).concat();
    assert_eq!(call("pipe", [BASE, 0, 0, 0, 0, 0], 0, &memory), "pipe([3, 5]) = 0");
    assert_eq!(
        entry("rt_sigprocmask", [0, BASE, 0, 8, 0, 0], &0x1_0002u64.to_le_bytes()),
        "rt_sigprocmask(SIG_BLOCK, [INT CHLD], NULL, 8)"
    );
    assert_eq!(
        entry("connect", [3, BASE, 8, 0, 0, 0], b"\x01\0/a/b\0\0"),
        "connect(3, {sa_family=AF_UNIX, sun_path=\"/a/b\"}, 8)"
    );
}

#[test]
fn words_with_a_number_and_flags_are_taken_apart() {
    assert_eq!(
        entry("mmap", [0, 4096, 3, 0x22, u64::MAX, 0], &[]),
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x0)"
    );
    assert_eq!(
        entry("fcntl", [1, 4, 0o4002, 0, 0, 0], &[]),
        "fcntl(1, F_SETFL, O_RDWR|O_NONBLOCK)"
    );
    assert_eq!(
        entry("futex", [BASE, 129, 1, 0, 0, 0], &[]),
        "futex(0x1000, FUTEX_WAKE|FUTEX_PRIVATE_FLAG, 1, 0, NULL, 0)"
    );
    assert_eq!(
        entry("clone", [0x0120_0011, 0, 0, 0, 0, 0], &[]),
        "clone(SIGCHLD|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID, NULL, NULL, NULL, NULL)"
    );
}

#[test]
fn arguments_that_depend_on_a_command_are_taken_apart() {
    let size = [24u8, 0, 80, 0, 0, 0, 0, 0];
    assert_eq!(entry("ioctl", [0, 0x5413, BASE, 0, 0, 0], &size), "ioctl(0, TIOCGWINSZ, 0x1000)");
    assert_eq!(
        returned("ioctl", [0, 0x5413, BASE, 0, 0, 0], 0, &size),
        " = 0 {argp={ws_row=24, ws_col=80, ws_xpixel=0, ws_ypixel=0}}"
    );
    assert_eq!(
        entry("prctl", [15, BASE, 0, 0, 0, 0], b"worker\0"),
        r#"prctl(PR_SET_NAME, "worker", 0x0, 0x0, 0x0)"#
    );
    assert_eq!(returned("fcntl", [0, 3, 0, 0, 0, 0], 2, &[]), " = 2 (flags O_RDWR)");
}

#[test]
fn no_input_panics() {
    // A linear congruential generator: the same cases in every run.
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 16
    };
    let memory: Vec<u8> = (0..4096).map(|_| random().to_le_bytes()[0]).collect();
    let edges = [0, 1, 31, 32, 33, BASE, BASE + 4090, u64::MAX, u64::MAX - 7, 1 << 31, 1 << 63];
    for info in ALL {
        for _ in 0..200 {
            let args = [(); 6].map(|()| match random() % 4 {
                0 => edges[usize::try_from(random()).unwrap_or(0) % edges.len()],
                1 => BASE + random() % 4200,
                2 => random() % 64,
                _ => random() << 20,
            });
            let value = if random() % 2 == 0 { random() % 64 } else { u64::MAX - random() % 600 };
            let mut text = String::new();
            let mut mem = reader(&memory);
            render_entry(info, &args, &mut mem, &mut text).expect("a string takes anything");
            render_return(info, &args, value, &mut mem, &mut text).expect("as above");
            render_call(info, &args, value, &mut mem, &mut text).expect("as above");
            assert!(text.is_ascii(), "{text}");
            assert!(text.len() < 100_000);
        }
    }
    let mut text = String::new();
    render_unknown(9999, &[0; 6], &mut text).expect("a string takes anything");
    assert_eq!(text, "syscall_0x270f(0x0, 0x0, 0x0, 0x0, 0x0, 0x0)");
}
