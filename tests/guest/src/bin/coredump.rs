//! Core files: who leaves one, where, and what is in it. Where the host's pattern is another one than `core`, nothing of
//! that can be seen natively.

use std::sync::atomic::{AtomicU32, Ordering};

use guest_tests::fs::{get, put, stat, text};
use guest_tests::mem::Map;
use guest_tests::proc::{child, until};
use guest_tests::{Outcome, check, eq, ok, sig, sys, trace};
use libc::{RLIMIT_CORE, SIGABRT, SIGKILL, SIGSEGV, SIGTERM};

const DUMPED: i32 = 0x80;
const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_XSTATE: u32 = 0x202;
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;

fn is_plain() -> bool {
    let words = [c"/proc/sys/kernel/core_pattern", c"/proc/sys/kernel/core_uses_pid"].map(text);
    words == [Ok("core\n".to_owned()), Ok("0\n".to_owned())]
}

fn limit(bytes: u64) -> bool {
    let limit = [bytes, u64::MAX];
    sys!(SYS_prlimit64, 0, RLIMIT_CORE, limit.as_ptr(), 0).is_ok()
}

/// Runs `body` in a child without a limit; returns its raw status.
fn status_of(body: impl FnOnce() -> i32) -> Result<i32, String> {
    let pid = child(|| if limit(u64::MAX) { body() } else { 99 });
    let pid = pid.map_err(guest_tests::errno::name)?;
    trace::wait(pid).map_err(guest_tests::errno::name)
}

fn die(signo: i32) -> i32 {
    let _ = sig::plain(signo, libc::SIG_DFL);
    let _ = sig::raise(signo);
    1
}

/// A core file: its notes and its memory.
struct Core {
    file: Vec<u8>,
    notes: Vec<(u32, Vec<u8>)>,
    /// Address, length, how much of it is in the file, where.
    segments: Vec<[u64; 4]>,
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Core {
    fn read() -> Result<Core, String> {
        let file = get(c"core").map_err(guest_tests::errno::name)?;
        let mut core = Core { notes: Vec::new(), segments: Vec::new(), file };
        let file = &core.file;
        let head = (&file[..4.min(file.len())], number(file, 16, 2), number(file, 18, 2));
        if head != (&b"\x7fELF"[..], 4, 62) {
            return Err(format!("no core file: {head:?}"));
        }
        let (table, n) = (number(file, 32, 8) as usize, number(file, 56, 2) as usize);
        for at in (0..n).map(|i| table + 56 * i) {
            let [offset, addr, len, memory] = [8, 16, 32, 40].map(|o| number(file, at + o, 8));
            if number(file, at, 4) == 1 {
                core.segments.push([addr, memory, len, offset]);
                continue;
            }
            let (mut at, end) = (offset as usize, (offset + len) as usize);
            while at < end {
                let [name, data, kind] = [0, 4, 8].map(|o| number(file, at + o, 4) as usize);
                let start = at + 12 + name.next_multiple_of(4);
                let contents = file.get(start..start + data).unwrap_or_default().to_vec();
                core.notes.push((kind as u32, contents));
                at = start + data.next_multiple_of(4);
            }
        }
        Ok(core)
    }

    fn all(&self, kind: u32) -> Vec<&[u8]> {
        let of_kind = self.notes.iter().filter(|(other, _)| *other == kind);
        of_kind.map(|(_, contents)| &contents[..]).collect()
    }

    /// Returns what was at an address, where the file has it.
    fn memory(&self, addr: usize, n: usize) -> Option<&[u8]> {
        let addr = addr as u64;
        let holds = |[start, _, len, _]: &&[u64; 4]| *start <= addr && addr < start + len;
        let [start, _, _, offset] = self.segments.iter().find(holds)?;
        let at = (addr - start + offset) as usize;
        self.file.get(at..at + n)
    }
}

fn signals() -> Outcome {
    if !is_plain() {
        return Ok(());
    }
    for (signo, leaves) in [(SIGABRT, true), (SIGSEGV, true), (SIGTERM, false), (SIGKILL, false)] {
        let _ = sys!(SYS_unlink, c"core".as_ptr());
        eq!(status_of(|| die(signo))?, signo | if leaves { DUMPED } else { 0 });
        eq!(stat(c"core").is_ok(), leaves);
    }
    Ok(())
}

fn limits() -> Outcome {
    if !is_plain() {
        return Ok(());
    }
    for (bytes, leaves) in [(0, false), (4095, false), (4096, true), (100_000, true)] {
        let _ = sys!(SYS_unlink, c"core".as_ptr());
        let status = status_of(|| if limit(bytes) { die(SIGABRT) } else { 98 })?;
        eq!(status, SIGABRT | if leaves { DUMPED } else { 0 });
        eq!(stat(c"core").is_ok(), leaves);
    }
    Ok(())
}

fn not_dumpable() -> Outcome {
    if !is_plain() {
        return Ok(());
    }
    let status = status_of(|| {
        let _ = sys!(SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        die(SIGABRT)
    })?;
    eq!(status, SIGABRT);
    check!(stat(c"core").is_err());
    Ok(())
}

fn old_files() -> Outcome {
    if !is_plain() {
        return Ok(());
    }
    // Another file is replaced, and who has it open keeps it.
    ok!(put(c"core", b"old"));
    ok!(sys!(SYS_link, c"core".as_ptr(), c"kept".as_ptr()));
    eq!(status_of(|| die(SIGABRT))?, SIGABRT | DUMPED);
    eq!(ok!(get(c"kept")), b"old");
    eq!(ok!(stat(c"core")).st_mode, libc::S_IFREG | 0o600);
    ok!(sys!(SYS_unlink, c"core".as_ptr()));
    ok!(sys!(SYS_mkdir, c"core".as_ptr(), 0o700));
    eq!(status_of(|| die(SIGABRT))?, SIGABRT);
    Ok(())
}

fn contents() -> Outcome {
    if !is_plain() {
        return Ok(());
    }
    let map = ok!(Map::anonymous(3 * 4096, libc::MAP_PRIVATE));
    map.bytes()[..8].copy_from_slice(b"in it so");
    map.bytes()[8192..8200].copy_from_slice(b"at 8192!");
    let hidden = ok!(Map::anonymous(4096, libc::MAP_PRIVATE));
    hidden.bytes()[..8].copy_from_slice(b"not here");
    let shared = ok!(Map::anonymous(4096, libc::MAP_SHARED));
    shared.bytes()[..8].copy_from_slice(b"shared s");
    let at = |map: &Map| map.bytes().as_ptr().addr();
    ok!(sys!(SYS_madvise, at(&hidden), 4096, libc::MADV_DONTDUMP));
    let pid = ok!(child(|| if limit(u64::MAX) { die(SIGABRT) } else { 99 }));
    eq!(ok!(trace::wait(pid)), SIGABRT | DUMPED);
    let core = Core::read()?;
    eq!(core.memory(at(&map), 8), Some(&b"in it so"[..]));
    eq!(core.memory(at(&map) + 4096, 8), Some(&[0; 8][..]));
    eq!(core.memory(at(&map) + 8192, 8), Some(&b"at 8192!"[..]));
    eq!(core.memory(at(&shared), 8), Some(&b"shared s"[..]));
    eq!(core.memory(at(&hidden), 8), None);
    for kind in [NT_PRSTATUS, NT_FPREGSET, NT_PRPSINFO, NT_AUXV, NT_XSTATE, NT_SIGINFO, NT_FILE] {
        check!(core.all(kind).len() == 1, "{kind:#x}: {}", core.all(kind).len());
    }
    let status = core.all(NT_PRSTATUS)[0];
    eq!(status.len(), 336);
    eq!(number(status, 12, 2), SIGABRT as u64);
    eq!(number(status, 32, 4), pid as u64);
    eq!(number(status, 36, 4), guest_tests::proc::pid() as u64);
    // The stack pointer is in the memory that is there.
    check!(core.memory(number(status, 112 + 19 * 8, 8) as usize, 8).is_some());
    let process = core.all(NT_PRPSINFO)[0];
    eq!(process.len(), 136);
    eq!(number(process, 24, 4), pid as u64);
    eq!(&process[40..49], b"coredump\0");
    eq!(core.all(NT_FPREGSET)[0].len(), 512);
    check!(core.all(NT_XSTATE)[0].len() >= 576);
    let info = core.all(NT_SIGINFO)[0];
    eq!((info.len(), number(info, 0, 4)), (128, SIGABRT as u64));
    Ok(())
}

fn threads() -> Outcome {
    if !is_plain() {
        return Ok(());
    }
    let status = status_of(|| {
        let n_ready = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    n_ready.fetch_add(1, Ordering::SeqCst);
                    loop {
                        let _ = sys!(SYS_pause);
                    }
                });
            }
            // One that never stops.
            scope.spawn(|| {
                n_ready.fetch_add(1, Ordering::SeqCst);
                loop {
                    core::hint::spin_loop();
                }
            });
            until(|| n_ready.load(Ordering::SeqCst) == 4);
            // A thread that is not the first one ends it.
            scope.spawn(|| die(SIGSEGV));
        });
        1
    })?;
    eq!(status, SIGSEGV | DUMPED);
    let core = Core::read()?;
    let all = core.all(NT_PRSTATUS);
    eq!(all.len(), 6);
    eq!(core.all(NT_FPREGSET).len(), 6);
    eq!(core.all(NT_XSTATE).len(), 6);
    let mut ids: Vec<_> = all.iter().map(|status| number(status, 32, 4)).collect();
    ids.sort_unstable();
    ids.dedup();
    eq!(ids.len(), 6);
    // The first record is of the thread with the signal.
    check!(number(all[0], 32, 4) != number(core.all(NT_PRPSINFO)[0], 24, 4));
    Ok(())
}

fn filter() -> Outcome {
    const FILE: &core::ffi::CStr = c"/proc/self/coredump_filter";
    eq!(ok!(text(FILE)), "00000033\n");
    let map = ok!(Map::anonymous(4096, libc::MAP_PRIVATE));
    map.bytes()[0] = 1;
    for (value, shown) in
        [(&b"0x12"[..], "00000012\n"), (b"18", "00000012\n"), (b"0xfffff", "000001ff\n")]
    {
        ok!(put_over(FILE, value));
        eq!(ok!(text(FILE)), shown);
    }
    ok!(put_over(FILE, b"0x10"));
    // Children have it as well.
    let status = status_of(|| match text(FILE) {
        Ok(text) if text == "00000010\n" => die(SIGABRT),
        _ => 97,
    })?;
    eq!(status & 0x7f, SIGABRT);
    if is_plain() {
        eq!(status, SIGABRT | DUMPED);
        let core = Core::read()?;
        eq!(core.memory(map.bytes().as_ptr().addr(), 1), None);
        check!(core.segments.len() > 3);
    }
    Ok(())
}

/// Writes to a file that exists.
fn put_over(path: &core::ffi::CStr, content: &[u8]) -> Result<(), i32> {
    let fd = guest_tests::fs::open(path, libc::O_WRONLY)?;
    guest_tests::fs::write_all(fd, content)?;
    guest_tests::fs::close(fd)
}

guest_tests::cases!(signals, limits, not_dumpable, old_files, contents, threads, filter);
