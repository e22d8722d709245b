//! The stub's seccomp filter.
//!
//! The filter routes by where the `syscall` instruction lies: from the stub's window a short list
//! passes, everything else traps. The window is no protection, since an application can jump into
//! it: **every call that passes must be harmless with any arguments**.

use sentry_sysmsg::layout;

use super::doorbell::Kind;

/// One instruction: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

impl Instruction {
    /// Returns the instruction as it lies in memory.
    pub(super) fn to_word(self) -> u64 {
        u64::from(self.code)
            | u64::from(self.jt) << 16
            | u64::from(self.jf) << 24
            | u64::from(self.k) << 32
    }
}

const LOAD: u16 = 0x20;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const MSG_NOSIGNAL: u32 = 0x4000;

const RET_TRAP: u32 = 0x0003_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;

const fn arg_low(index: u32) -> u32 {
    16 + index * 8
}

const fn arg_high(index: u32) -> u32 {
    20 + index * 8
}

/// `MAP_*` without huge pages, which are a resource of the host.
const MMAP_FLAGS: u32 = 0x0013_f973;
/// `FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME`.
const FUTEX_MODIFIERS: u32 = 0x180;
/// `FUTEX_WAIT`, `FUTEX_WAKE`, `FUTEX_WAIT_BITSET`, `FUTEX_WAKE_BITSET`.
const FUTEX_OPS: [u32; 4] = [0, 1, 9, 10];
/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED`, the same with `SYNC_CORE`, and their registrations.
const MEMBARRIER_COMMANDS: [u32; 4] = [1 << 3, 1 << 4, 1 << 5, 1 << 6];

/// Calls that pass with any arguments: each concerns the calling thread or its address space only.
const ANY: [libc::c_long; 17] = [
    // The only descriptors of a stub are files that it may map, hence read, or that are open only to be written.
    libc::SYS_pread64,
    libc::SYS_rt_sigreturn,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_close,
    libc::SYS_sigaltstack,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_getcpu,
    libc::SYS_getrusage,
    // A wait for a futex that the host's freezer or a stop has interrupted.
    libc::SYS_restart_syscall,
];

/// Returns the filter for stubs that ring like this.
pub(super) fn program(doorbell: Kind) -> Vec<Instruction> {
    let mut program = Program(Vec::new());
    program.load(ARCH);
    program.unless_equal_trap(AUDIT_ARCH_X86_64);
    program.load(IP_HIGH);
    program.unless_equal_trap(high(layout::STUB_BASE));
    program.load(IP_LOW);
    // Lower than the window or not lower than its end: trap.
    program.push(JUMP_GE, 0, 1, low(layout::STUB_BASE));
    program.push(JUMP_GE, 0, 1, low(layout::STUB_BASE + layout::STUB_LEN));
    program.push(RETURN, 0, 0, RET_TRAP);
    program.load(NR);
    program.push(JUMP_GE, 0, 1, X32_BIT);
    program.push(RETURN, 0, 0, RET_TRAP);
    match doorbell {
        Kind::Notify => {
            // A write to a file is the sentry's to permit, each by itself.
            for nr in [libc::c_long::from(layout::DOORBELL_NR), libc::SYS_pwrite64] {
                program.for_call(nr, vec![op(RETURN, 0, 0, RET_USER_NOTIF)]);
            }
        }
        Kind::Futex => program.messages(),
    }
    for nr in ANY {
        program.for_call(nr, vec![op(RETURN, 0, 0, RET_ALLOW)]);
    }
    program.for_call(libc::SYS_mmap, {
        let mut body =
            vec![op(LOAD, 0, 0, arg_high(3)), op(JUMP_EQ, 0, 2, 0), op(LOAD, 0, 0, arg_low(3))];
        body.push(op(JUMP_SET, 0, 1, !MMAP_FLAGS));
        body.push(op(RETURN, 0, 0, RET_TRAP));
        body.push(op(RETURN, 0, 0, RET_ALLOW));
        body
    });
    program.for_call(libc::SYS_futex, {
        let mut body = vec![op(LOAD, 0, 0, arg_low(1)), op(AND, 0, 0, !FUTEX_MODIFIERS)];
        body.extend(one_of(&FUTEX_OPS));
        body
    });
    program.for_call(libc::SYS_clone, {
        let mut body =
            vec![op(LOAD, 0, 0, arg_high(0)), op(JUMP_EQ, 1, 0, 0), op(RETURN, 0, 0, RET_TRAP)];
        body.push(op(LOAD, 0, 0, arg_low(0)));
        body.extend(one_of(&[low(layout::FORK_FLAGS), low(layout::THREAD_FLAGS)]));
        body
    });
    program.for_call(libc::SYS_membarrier, {
        let mut body =
            vec![op(LOAD, 0, 0, arg_low(1)), op(JUMP_EQ, 1, 0, 0), op(RETURN, 0, 0, RET_TRAP)];
        body.push(op(LOAD, 0, 0, arg_low(0)));
        body.extend(one_of(&MEMBARRIER_COMMANDS));
        body
    });
    program.push(RETURN, 0, 0, RET_TRAP);
    program.0
}

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Allows where the accumulator is one of `values`, traps otherwise.
fn one_of(values: &[u32]) -> Vec<Instruction> {
    let mut body = Vec::new();
    for (left, value) in (1..=values.len()).rev().zip(values) {
        body.push(op(JUMP_EQ, u8::try_from(left).unwrap_or(u8::MAX), 0, *value));
    }
    body.push(op(RETURN, 0, 0, RET_TRAP));
    body.push(op(RETURN, 0, 0, RET_ALLOW));
    body
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(value: u64) -> u32 {
    value as u32
}

const fn high(value: u64) -> u32 {
    low(value >> 32)
}

struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.0.push(op(code, jt, jf, k));
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, 0, 0, offset);
    }

    /// Allows the calls of a doorbell that is made of sockets. They reach nothing but the two sockets:
    /// the numbers may come to mean other descriptors of the process, but none of these is a socket. A
    /// ring is one small message without descriptors, and what it says is checked.
    fn messages(&mut self) {
        let ring = layout::RING_FD.cast_unsigned();
        let (len, flags) = (low(layout::RING_LEN), MSG_NOSIGNAL);
        self.for_call_with(
            libc::SYS_sendto,
            &[
                (arg_low(0), ring),
                (arg_low(2), len),
                (arg_high(2), 0),
                (arg_low(3), flags),
                (arg_low(4), 0),
                (arg_high(4), 0),
            ],
        );
        let channel = layout::CHANNEL_FD.cast_unsigned();
        self.for_call_with(libc::SYS_recvmsg, &[(arg_low(0), channel), (arg_low(2), 0)]);
        self.for_call(libc::SYS_dup2, vec![op(RETURN, 0, 0, RET_ALLOW)]);
    }

    /// Appends that the call `nr` is allowed where each of these words has its value.
    fn for_call_with(&mut self, nr: libc::c_long, words: &[(u32, u32)]) {
        let mut body = Vec::new();
        for (left, (word, value)) in (0..words.len()).rev().zip(words) {
            body.push(op(LOAD, 0, 0, *word));
            // To the end, behind what is left and its return.
            body.push(op(JUMP_EQ, 0, u8::try_from(2 * left + 1).unwrap_or(u8::MAX), *value));
        }
        body.push(op(RETURN, 0, 0, RET_ALLOW));
        body.push(op(RETURN, 0, 0, RET_TRAP));
        self.for_call(nr, body);
    }

    fn unless_equal_trap(&mut self, value: u32) {
        self.push(JUMP_EQ, 1, 0, value);
        self.push(RETURN, 0, 0, RET_TRAP);
    }

    /// Appends what happens to the call `nr`; the accumulator holds the number before and after.
    fn for_call(&mut self, nr: libc::c_long, body: Vec<Instruction>) {
        let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
        self.push(JUMP_EQ, 0, skip, u32::try_from(nr).unwrap_or(u32::MAX));
        self.0.extend(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter on one call.
    fn run_with(doorbell: Kind, nr: u64, arch: u32, ip: u64, args: [u64; 6]) -> u32 {
        let mut words = vec![low(nr), arch, low(ip), high(ip)];
        for arg in args {
            words.extend([low(arg), high(arg)]);
        }
        let program = program(doorbell);
        let (mut pc, mut a) = (0_usize, 0_u32);
        loop {
            let i = program[pc];
            pc += 1;
            let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => a = words[i.k as usize / 4],
                AND => a &= i.k,
                JUMP_EQ => pc += jump(a == i.k),
                JUMP_GE => pc += jump(a >= i.k),
                JUMP_SET => pc += jump(a & i.k != 0),
                RETURN => return i.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    fn run(nr: u64, arch: u32, ip: u64, args: [u64; 6]) -> u32 {
        let results =
            [Kind::Notify, Kind::Futex].map(|doorbell| run_with(doorbell, nr, arch, ip, args));
        let doorbells = [
            u64::from(layout::DOORBELL_NR),
            libc::SYS_sendto.cast_unsigned(),
            libc::SYS_recvmsg.cast_unsigned(),
            libc::SYS_dup2.cast_unsigned(),
            libc::SYS_pwrite64.cast_unsigned(),
        ];
        // The rest is the same with any doorbell.
        assert!(results[0] == results[1] || doorbells.contains(&nr), "{nr}");
        results[0]
    }

    fn by_message(nr: libc::c_long, args: [u64; 6]) -> u32 {
        let ip = layout::STUB_BASE + 2;
        run_with(Kind::Futex, nr.cast_unsigned(), AUDIT_ARCH_X86_64, ip, args)
    }

    fn from_stub(nr: libc::c_long, args: [u64; 6]) -> u32 {
        run(nr.cast_unsigned(), AUDIT_ARCH_X86_64, layout::STUB_BASE + 2, args)
    }

    #[test]
    fn application_calls_trap() {
        for nr in 0..600 {
            assert_eq!(run(nr, AUDIT_ARCH_X86_64, 0x40_1000, [0; 6]), RET_TRAP);
            assert_eq!(
                run(nr, AUDIT_ARCH_X86_64, layout::STUB_BASE + layout::STUB_LEN, [0; 6]),
                RET_TRAP
            );
            assert_eq!(run(nr, AUDIT_ARCH_X86_64, layout::STUB_BASE - 1, [0; 6]), RET_TRAP);
            assert_eq!(
                run(nr | u64::from(X32_BIT), AUDIT_ARCH_X86_64, layout::STUB_BASE, [0; 6]),
                RET_TRAP
            );
            assert_eq!(run(nr, 0x4000_0003, layout::STUB_BASE, [0; 6]), RET_TRAP);
        }
    }

    #[test]
    fn only_the_list_passes_from_the_stub() {
        let passing: Vec<u64> = (0..600)
            .filter(|nr| run(*nr, AUDIT_ARCH_X86_64, layout::STUB_BASE + 2, [0; 6]) != RET_TRAP)
            .collect();
        let mut expected: Vec<u64> = ANY.iter().map(|nr| nr.cast_unsigned()).collect();
        expected.extend([9, 18, 202, u64::from(layout::DOORBELL_NR)]);
        expected.sort_unstable();
        assert_eq!(passing, expected);
    }

    #[test]
    fn messages_are_rings() {
        let ring = [0, 9, 24, 0x4000, 0, 9];
        assert_eq!(by_message(libc::SYS_sendto, ring), RET_ALLOW);
        assert_eq!(by_message(libc::SYS_recvmsg, [1, 9, 0, 9, 9, 9]), RET_ALLOW);
        assert_eq!(by_message(libc::SYS_dup2, [9; 6]), RET_ALLOW);
        for (argument, value) in
            [(0, 1), (2, 25), (2, 24 | 1 << 32), (3, 0), (3, 0x4040), (4, 1), (4, 1 << 32)]
        {
            let mut other = ring;
            other[argument] = value;
            assert_eq!(by_message(libc::SYS_sendto, other), RET_TRAP, "{argument}");
        }
        assert_eq!(by_message(libc::SYS_recvmsg, [0, 9, 0, 0, 0, 0]), RET_TRAP);
        assert_eq!(by_message(libc::SYS_recvmsg, [1, 9, 2, 0, 0, 0]), RET_TRAP);
        assert_eq!(by_message(libc::c_long::from(layout::DOORBELL_NR), [0; 6]), RET_TRAP);
        assert_eq!(by_message(libc::SYS_pwrite64, [3, 0, 1, 0, 0, 0]), RET_TRAP);
        assert_eq!(from_stub(libc::SYS_pwrite64, [3, 0, 1, 0, 0, 0]), RET_USER_NOTIF);
        for nr in [libc::SYS_sendto, libc::SYS_recvmsg, libc::SYS_dup2] {
            assert_eq!(from_stub(nr, [0, 9, 24, 0x4000, 0, 0]), RET_TRAP);
        }
    }

    #[test]
    fn arguments_are_narrowed() {
        assert_eq!(from_stub(libc::SYS_clone, [layout::FORK_FLAGS, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(from_stub(libc::SYS_clone, [layout::THREAD_FLAGS, 1, 2, 3, 4, 5]), RET_ALLOW);
        assert_eq!(
            from_stub(libc::SYS_clone, [layout::FORK_FLAGS | 1 << 32, 0, 0, 0, 0, 0]),
            RET_TRAP
        );
        assert_eq!(from_stub(libc::SYS_clone, [17, 0, 0, 0, 0, 0]), RET_TRAP);
        assert_eq!(
            from_stub(libc::SYS_clone, [layout::FORK_FLAGS | 0x1000_0000, 0, 0, 0, 0, 0]),
            RET_TRAP
        );
        assert_eq!(from_stub(libc::SYS_mmap, [0, 0, 0, 0x22, 0, 0]), RET_ALLOW);
        assert_eq!(from_stub(libc::SYS_mmap, [0, 0, 0, 0x4_0022, 0, 0]), RET_TRAP);
        assert_eq!(from_stub(libc::SYS_mmap, [0, 0, 0, 1 << 40, 0, 0]), RET_TRAP);
        assert_eq!(from_stub(libc::SYS_futex, [0, 0x189, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(from_stub(libc::SYS_futex, [0, 6, 0, 0, 0, 0]), RET_TRAP);
        assert_eq!(from_stub(libc::SYS_membarrier, [64, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(from_stub(libc::SYS_membarrier, [1, 0, 0, 0, 0, 0]), RET_TRAP);
        assert_eq!(from_stub(libc::c_long::from(layout::DOORBELL_NR), [9; 6]), RET_USER_NOTIF);
    }
}
