//! Programs with damaged headers, given to `execve(2)`.
//!
//! `fuzz_exec SEED COUNT`: each of so many files is a small program or a script of which some fields and bytes
//! have been changed, mostly to numbers at which arithmetic ends. A child executes it; whatever that does, it is
//! soon killed. In the end the first process must be able to execute an undamaged one.

use guest_tests::fs::put;
use guest_tests::proc::{End, child, decode, sleep, wait};
use guest_tests::rng::Rng;
use guest_tests::runner::exit;
use guest_tests::{fs, sys};
use std::time::Duration;

/// Where the program is loaded, and where its code begins in the file and in memory.
const BASE: u64 = 0x40_0000;
const CODE: u64 = 0x200;

/// `exit_group(7)`.
const EXIT: &[u8] = &[0xb8, 231, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05];

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_PHDR: u32 = 6;
const PT_TLS: u32 = 7;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PT_GNU_PROPERTY: u32 = 0x6474_e553;

/// A field of a header: its offset in the file and its size.
type Field = (usize, usize);

/// A program before it is damaged, and the fields that it has.
struct Program {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

impl Program {
    fn field(&mut self, size: usize, value: u64) {
        self.fields.push((self.bytes.len(), size));
        self.bytes.extend_from_slice(&value.to_le_bytes()[..size]);
    }

    fn segment(&mut self, kind: u32, flags: u32, range: (u64, u64, u64, u64), align: u64) {
        let (offset, addr, file_size, size) = range;
        self.field(4, kind.into());
        self.field(4, flags.into());
        for value in [offset, addr, addr, file_size, size, align] {
            self.field(8, value);
        }
    }

    /// A program that ends with status 7: loaded where it says (`ET_EXEC`) or anywhere (`ET_DYN`).
    fn new(is_fixed: bool, interpreter: Option<&[u8]>) -> Program {
        let base = if is_fixed { BASE } else { 0 };
        let mut program = Program { bytes: b"\x7fELF\x02\x01\x01".to_vec(), fields: Vec::new() };
        program.bytes.resize(16, 0);
        let name = interpreter.unwrap_or_default();
        let n_headers = 5 + u64::from(interpreter.is_some());
        for (size, value) in [
            (2, if is_fixed { 2 } else { 3 }),
            (2, 62),
            (4, 1),
            (8, base + CODE),
            (8, 64),
            (8, 0),
            (4, 0),
            (2, 64),
            (2, 56),
            (2, n_headers),
            (2, 64),
            (2, 0),
            (2, 0),
        ] {
            program.field(size, value);
        }
        let len = CODE + EXIT.len() as u64 + name.len() as u64;
        program.segment(PT_PHDR, 4, (64, base + 64, n_headers * 56, n_headers * 56), 8);
        if interpreter.is_some() {
            let at = CODE + EXIT.len() as u64;
            program.segment(PT_INTERP, 4, (at, base + at, name.len() as u64, name.len() as u64), 1);
        }
        program.segment(PT_LOAD, 5, (0, base, len, len), 0x1000);
        program.segment(PT_LOAD, 6, (0, base + 0x2000, 100, 0x3000), 0x1000);
        program.segment(PT_GNU_STACK, 6, (0, 0, 0, 0x10000), 16);
        program.segment(PT_NOTE, 4, (CODE, base + CODE, 12, 12), 4);
        program.bytes.resize(CODE as usize, 0);
        program.bytes.extend_from_slice(EXIT);
        program.bytes.extend_from_slice(name);
        program
    }

    fn damage(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(4) {
            let (at, size) = rng.pick(&self.fields);
            let old = self.bytes[at..at + size].to_vec();
            let mut word = [0; 8];
            word[..size].copy_from_slice(&old);
            let old = u64::from_le_bytes(word);
            let kinds =
                [PT_LOAD, PT_INTERP, PT_NOTE, PT_PHDR, PT_TLS, PT_GNU_STACK, PT_GNU_PROPERTY];
            let new = match rng.below(8) {
                0..3 => rng.extreme(),
                3 => old.wrapping_add(rng.pick(&[1, 8, 0x1000, u64::MAX, 0x10_0000])),
                4 => old ^ (1 << rng.below(size * 8)),
                5 => u64::from(rng.pick(&kinds)),
                6 => rng.below(100) as u64,
                _ => rng.bits(),
            };
            self.bytes[at..at + size].copy_from_slice(&new.to_le_bytes()[..size]);
        }
        if rng.one_in(8) {
            let at = rng.below(self.bytes.len());
            self.bytes[at] = rng.bits() as u8;
        }
        if rng.one_in(8) {
            let len = rng.below(self.bytes.len() + 1);
            self.bytes.truncate(len);
        }
    }
}

/// A script whose first line is odd.
fn script(rng: &mut Rng) -> Vec<u8> {
    let mut text = b"#!".to_vec();
    text.resize(2 + rng.below(4), rng.pick(b" \t\0#"));
    let name: &[u8] =
        rng.pick(&[b"p".as_slice(), b"s", b"/", b"", b".", b"/proc/self/exe", b"../../tmp/p"]);
    text.extend_from_slice(name);
    let len = rng.pick(&[0, 1, 10, 252, 253, 254, 255, 256, 257, 4096]);
    text.resize(text.len() + len, rng.pick(b" x\0\n\t"));
    if rng.one_in(2) {
        text.push(b'\n');
    }
    text
}

/// Executes a file in a child, and kills that when it does not end in time.
fn execute(name: &core::ffi::CStr, millis: u64) -> Result<End, i32> {
    let pid = child(|| {
        // Garbage that runs is stopped by the timer, which goes on after the exec.
        let _ = sys!(SYS_setitimer, 0, &[0u64, 0, millis / 1000, millis % 1000 * 1000], 0);
        let argv = [name.as_ptr().addr(), c"argument".as_ptr().addr(), 0];
        let _ = sys!(SYS_execve, name, &argv, &[0usize]);
        1
    })?;
    for _ in 0..millis.saturating_add(1000) {
        let mut status = 0i32;
        if sys!(SYS_wait4, pid, &mut status, libc::WNOHANG, 0)? != 0 {
            return Ok(decode(status));
        }
        sleep(Duration::from_millis(1));
    }
    let _ = sys!(SYS_kill, pid, libc::SIGKILL);
    wait(pid)
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [seed, count, ..] = numbers[..] else {
        println!("usage: fuzz_exec SEED COUNT");
        exit(2);
    };
    let _ = sys!(SYS_chdir, c"/tmp");
    let mut rng = Rng::new(seed);
    let mut n_loaded = 0;
    let write = |content: &[u8]| {
        let _ = sys!(SYS_unlink, c"p");
        put(c"p", content).and_then(|()| sys!(SYS_chmod, c"p", 0o755).map(drop))
    };
    for n in 0..count {
        let interpreters: [Option<&[u8]>; 5] =
            [None, None, Some(b"/tmp/p\0"), Some(b"/tmp/i\0"), Some(b"/proc/self/exe")];
        let mut program = Program::new(rng.one_in(2), rng.pick(&interpreters));
        program.damage(&mut rng);
        let content = if rng.one_in(10) { script(&mut rng) } else { program.bytes };
        let made = write(&content);
        if rng.one_in(2) {
            // The interpreter of later ones.
            let _ = sys!(SYS_rename, c"p", c"i");
            continue;
        }
        match made.and_then(|()| execute(c"/tmp/p", 20)) {
            Ok(End::Code(1)) => {}
            Ok(_) => n_loaded += 1,
            Err(errno) => {
                println!("\nfuzz: file {n}: {errno}");
                exit(1);
            }
        }
    }
    for is_fixed in [false, true] {
        let made = write(&Program::new(is_fixed, None).bytes);
        if made.and_then(|()| execute(c"/tmp/p", 60_000)) != Ok(End::Code(7)) {
            println!("\nfuzz: an undamaged program does not run");
            exit(1);
        }
    }
    let _ = fs::write(2, format!("{n_loaded} of {count} executed\n").as_bytes());
    let enough = if n_loaded * 20 > count { "enough" } else { "too few" };
    println!("\nfuzz: survived, {enough} executed");
    exit(0);
}
