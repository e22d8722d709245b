//! One of several containers that talk to each other: what the shell has no words for.
//!
//! ```text
//! neighbour serve-unix NAME | call-unix NAME     a unix socket: answers one call in capitals; without a
//!                                                slash an abstract name
//! neighbour serve-tcp PORT | call-tcp PORT       the same over 127.0.0.1
//! neighbour shm-put KEY TEXT | shm-get KEY       System V shared memory: prints what is there, or `none`
//! neighbour futex-wait FILE | futex-wake FILE    a futex in a file: one waits until the other has come
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use guest_tests::sys;

/// How long the other one may take to come.
const DEADLINE: Duration = Duration::from_secs(60);

const SHM_LEN: usize = 4096;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["serve-unix", name] => {
            serve(UnixListener::bind_addr(&address(name)).unwrap().accept().unwrap().0);
        }
        ["call-unix", name] => call(retry(|| UnixStream::connect_addr(&address(name)))),
        ["serve-tcp", port] => serve(TcpListener::bind(local(port)).unwrap().accept().unwrap().0),
        ["call-tcp", port] => call(retry(|| TcpStream::connect(local(port)))),
        ["shm-put", key, text] => put(key.parse().unwrap(), text),
        ["shm-get", key] => get(key.parse().unwrap()),
        ["futex-wait", file] => futex_wait(file),
        ["futex-wake", file] => futex_wake(file),
        _ => panic!("{args:?}"),
    }
}

fn address(name: &str) -> SocketAddr {
    if name.starts_with('/') {
        return SocketAddr::from_pathname(name).unwrap();
    }
    SocketAddr::from_abstract_name(name).unwrap()
}

fn local(port: &str) -> (&'static str, u16) {
    ("127.0.0.1", port.parse().unwrap())
}

/// Calls `f` until it succeeds.
fn retry<T, E: std::fmt::Debug>(f: impl Fn() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match f() {
            Ok(value) => return value,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn serve(mut stream: impl Read + Write) {
    let mut text = [0; 16];
    let n = stream.read(&mut text).unwrap();
    text.make_ascii_uppercase();
    stream.write_all(&text[..n]).unwrap();
}

fn call(mut stream: impl Read + Write) {
    stream.write_all(b"hello").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    println!("{text}");
}

/// Attaches the segment of a key.
fn attach(key: i32, flags: i32) -> Option<*mut u8> {
    let id = sys!(SYS_shmget, key, SHM_LEN, flags).ok()?;
    let addr = sys!(SYS_shmat, id, 0, 0).unwrap();
    Some(std::ptr::with_exposed_provenance_mut(addr))
}

fn put(key: i32, text: &str) {
    let to = attach(key, libc::IPC_CREAT | 0o600).unwrap();
    assert!(text.len() < SHM_LEN);
    // SAFETY: the segment is that long.
    unsafe { to.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
}

fn get(key: i32) {
    let Some(from) = attach(key, 0) else {
        println!("none");
        return;
    };
    // SAFETY: the segment is that long, and nobody writes to it now.
    let bytes = unsafe { std::slice::from_raw_parts(from, SHM_LEN) };
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    println!("{}", String::from_utf8_lossy(text));
}

/// Maps the first word of a file, which is made where it is not there.
fn word(file: &str) -> &'static AtomicU32 {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)
        .unwrap();
    file.set_len(4096).unwrap();
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    let addr = sys!(SYS_mmap, 0, 4096, prot, flags, file.as_raw_fd(), 0).unwrap();
    // SAFETY: a mapping of at least a word, which is never unmapped.
    unsafe { &*std::ptr::with_exposed_provenance::<AtomicU32>(addr) }
}

fn futex(word: &AtomicU32, op: i32, value: u32) -> Result<usize, i32> {
    let timeout = libc::timespec { tv_sec: 60, tv_nsec: 0 };
    sys!(SYS_futex, word.as_ptr().expose_provenance(), op, value, &timeout)
}

/// The word says 1 while one waits, and 2 when the other has come.
fn futex_wait(file: &str) {
    let word = word(file);
    word.store(1, Ordering::SeqCst);
    let started = Instant::now();
    while word.load(Ordering::SeqCst) == 1 {
        let woken = futex(word, libc::FUTEX_WAIT, 1);
        assert!(
            woken.is_ok() || woken == Err(libc::EAGAIN) || woken == Err(libc::EINTR),
            "{woken:?}"
        );
    }
    // Not by the time-out.
    assert!(started.elapsed() < Duration::from_secs(50));
    println!("woken");
}

fn futex_wake(file: &str) {
    let word = word(file);
    retry(|| if word.load(Ordering::SeqCst) == 1 { Ok(()) } else { Err("nobody waits") });
    // Until somebody sleeps: to be woken is the point.
    retry(|| match futex(word, libc::FUTEX_WAKE, 1) {
        Ok(0) => Err("nobody sleeps"),
        Ok(_) => Ok(()),
        Err(_) => Err("no futex"),
    });
    word.store(2, Ordering::SeqCst);
    let _ = futex(word, libc::FUTEX_WAKE, 1);
}
