//! The seccomp filter of all stubs: a second lock behind `SYSEMU`.
//!
//! Application threads execute no system call at all, so the filter is never asked about theirs. It
//! bounds what a thread could do that was let run without `SYSEMU` by a mistake of the tracer:
//! the calls that the tracer makes stubs make, from the one instruction that it uses for them.

use super::stub::{self, Piece};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;

/// What the tracer makes stubs call.
const CALLS: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_recvmsg,
    libc::SYS_close,
    libc::SYS_clone,
    libc::SYS_exit,
];

/// What the host's vsyscall page emulates; it passes the filter with the page's address.
const VSYSCALLS: &[i64] = &[libc::SYS_gettimeofday, libc::SYS_time, libc::SYS_getcpu];

/// A program of `struct sock_filter`s as bytes.
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    fn push(&mut self, code: u16, jump: [u8; 2], value: u32) {
        self.0.extend_from_slice(&code.to_le_bytes());
        self.0.extend_from_slice(&jump);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, [0, 0], offset);
    }

    /// Returns `action` unless the loaded word is `value`.
    fn require(&mut self, value: u32, action: u32) {
        self.push(JUMP_EQUAL, [1, 0], value);
        self.push(RETURN, [0, 0], action);
    }

    /// Skips `len` instructions unless the loaded word is `value`.
    fn unless_skip(&mut self, value: u32, len: usize) {
        self.push(JUMP_EQUAL, [0, u8::try_from(len).unwrap_or(u8::MAX)], value);
    }

    /// Allows `numbers` and kills for all others: [`list_len`] instructions.
    fn list(&mut self, numbers: &[i64]) {
        self.load(NUMBER);
        for (i, &number) in numbers.iter().enumerate() {
            let to_allow = u8::try_from(numbers.len() - i).unwrap_or(u8::MAX);
            self.push(JUMP_EQUAL, [to_allow, 0], u32::try_from(number).unwrap_or(u32::MAX));
        }
        self.push(RETURN, [0, 0], KILL_PROCESS);
        self.push(RETURN, [0, 0], ALLOW);
    }
}

fn list_len(numbers: &[i64]) -> usize {
    numbers.len() + 3
}

/// Splits an address into high and low word.
fn split(addr: u64) -> (u32, u32) {
    (u32::try_from(addr >> 32).unwrap_or(0), u32::try_from(addr & 0xffff_ffff).unwrap_or(0))
}

/// Returns the program, an array of `struct sock_filter`.
pub(super) fn program() -> Vec<u8> {
    // The host sees the address behind the `syscall` instruction.
    let (high, call) = split(stub::address(Piece::Syscall) + 2);
    let (_, idle) = split(stub::address(Piece::Idle) + 7);
    let mut program = Program::default();
    program.load(ARCH);
    program.require(AUDIT_ARCH_X86_64, KILL_PROCESS);
    program.load(IP_HIGH);
    program.unless_skip(u32::MAX, list_len(VSYSCALLS));
    program.list(VSYSCALLS);
    program.require(high, KILL_PROCESS);
    program.load(IP_LOW);
    program.unless_skip(idle, list_len(&[libc::SYS_pause]));
    program.list(&[libc::SYS_pause]);
    program.require(call, KILL_PROCESS);
    program.list(CALLS);
    program.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does.
    fn run(number: u32, arch: u32, ip: u64) -> u32 {
        let (high, low) = split(ip);
        let program = program();
        let mut at = 0;
        let mut loaded = 0;
        loop {
            let step = &program[at * 8..at * 8 + 8];
            let value = u32::from_le_bytes(step[4..].try_into().unwrap());
            at += 1;
            match u16::from_le_bytes([step[0], step[1]]) {
                LOAD => {
                    loaded = match value {
                        NUMBER => number,
                        ARCH => arch,
                        IP_LOW => low,
                        IP_HIGH => high,
                        other => panic!("{other}"),
                    };
                }
                JUMP_EQUAL => at += usize::from(if loaded == value { step[2] } else { step[3] }),
                RETURN => return value,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn only_the_tracers_calls_pass() {
        let native = AUDIT_ARCH_X86_64;
        let call = stub::address(Piece::Syscall) + 2;
        let idle = stub::address(Piece::Idle) + 7;
        let vsyscall = 0xffff_ffff_ff60_0000;
        for &number in CALLS {
            let number = u32::try_from(number).unwrap();
            assert_eq!(run(number, native, call), ALLOW);
            assert_eq!(run(number, 0x4000_0003, call), KILL_PROCESS);
            assert_eq!(run(number | 1 << 30, native, call), KILL_PROCESS);
            for elsewhere in [call - 2, call + 1, call & 0xffff_ffff, idle, 0x40_0000, vsyscall] {
                assert_eq!(run(number, native, elsewhere), KILL_PROCESS, "{number} {elsewhere:x}");
            }
        }
        assert_eq!(run(34, native, idle), ALLOW);
        assert_eq!(run(34, native, call), KILL_PROCESS);
        for number in [96, 201, 309] {
            assert_eq!(run(number, native, vsyscall + 0x400), ALLOW);
            assert_eq!(run(number, native, call), KILL_PROCESS);
        }
        for number in [0, 1, 2, 59, 62, 101, 157, 231, 310, 311, 317, 424, 435] {
            assert_eq!(run(number, native, call), KILL_PROCESS);
        }
    }
}
