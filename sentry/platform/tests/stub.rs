//! The built stub, decoded: what its bytes can and cannot do, whatever its source says.

#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module as a whole"
)]

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, Register, RflagsBits,
};
use sentry_sysmsg::layout;

/// The image that the sentry embeds.
const STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub.elf"));

/// Every call that the stub makes: number, name, and how often where that matters.
///
/// The two of the set-up are made before the filter is installed and are not in it.
const CALLS: [(u64, &str, Option<usize>); 19] = [
    (3, "close", None),
    (9, "mmap", None),
    (11, "munmap", None),
    (13, "rt_sigaction (set-up)", None),
    // The restorer of the kernel's frames, and the way into the application.
    (15, "rt_sigreturn", Some(2)),
    (17, "pread64", Some(1)),
    (24, "sched_yield", Some(1)),
    (28, "madvise", None),
    (33, "dup2", None),
    (44, "sendto", None),
    (47, "recvmsg", None),
    // A process and a thread.
    (56, "clone", Some(2)),
    (60, "exit", Some(1)),
    (98, "getrusage", Some(1)),
    (131, "sigaltstack", None),
    (202, "futex", None),
    (231, "exit_group", None),
    (317, "seccomp (set-up)", Some(1)),
    (layout::DOORBELL_NR as u64, "the doorbell", None),
];

/// The one function that makes calls by a number in memory: the host calls of a reply.
const CALLS_OF_REPLIES: &str = "make_calls";

/// The one function that may touch the extended state, and the one instruction by which it may.
const SAVES_STATE: (&str, Mnemonic) = ("save_state", Mnemonic::Xsave64);

/// Where patched sites enter.
const FAST_ENTRIES: [&str; 8] = [
    "stub_getpid",
    "stub_gettid",
    "stub_getppid",
    "stub_getuid",
    "stub_geteuid",
    "stub_getgid",
    "stub_getegid",
    "stub_getpgrp",
];

struct Section {
    addr: u64,
    bytes: &'static [u8],
}

/// The image, taken apart.
struct Stub {
    /// Everything that is mapped.
    loaded: Section,
    text: Section,
    /// Address and name, in the order of addresses.
    symbols: BTreeMap<u64, Vec<String>>,
    instructions: Vec<Instruction>,
}

fn number(at: usize, len: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(&STUB[at..at + len]);
    u64::from_le_bytes(bytes)
}

fn offset(at: usize) -> usize {
    usize::try_from(number(at, 8)).unwrap()
}

/// A C string in the file.
fn name(at: usize) -> String {
    let bytes = STUB[at..].split(|byte| *byte == 0).next().unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Stub {
    fn read() -> Self {
        let sections = offset(0x28);
        let header = |index: u64| sections + usize::try_from(index).unwrap() * 64;
        let count = number(0x3c, 2);
        let names = offset(header(number(0x3e, 2)) + 24);
        let find = |wanted: &str| {
            (0..count)
                .map(header)
                .find(|at| name(names + usize::try_from(number(*at, 4)).unwrap()) == wanted)
                .unwrap_or_else(|| panic!("the stub has no {wanted}"))
        };
        let content = |at: usize| &STUB[offset(at + 24)..offset(at + 24) + offset(at + 32)];
        let text = find(".text");
        let text = Section { addr: number(text + 16, 8), bytes: content(text) };

        let first = offset(0x20);
        let segments = (0..number(0x38, 2)).map(|i| first + usize::try_from(i).unwrap() * 56);
        let segments: Vec<usize> = segments.filter(|at| number(*at, 4) == 1).collect();
        assert_eq!(segments.len(), 1, "the stub is one segment");
        let (at, len) = (offset(segments[0] + 8), offset(segments[0] + 32));
        let loaded = Section { addr: number(segments[0] + 16, 8), bytes: &STUB[at..at + len] };

        let (table, strings) = (find(".symtab"), offset(find(".strtab") + 24));
        let start = offset(table + 24);
        let mut symbols: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for at in (start..start + offset(table + 32)).step_by(24) {
            let name = name(strings + usize::try_from(number(at, 4)).unwrap());
            if number(at + 6, 2) != 0 && !name.is_empty() {
                symbols.entry(number(at + 8, 8)).or_default().push(name);
            }
        }
        let options = DecoderOptions::NONE;
        let instructions = Decoder::with_ip(64, text.bytes, text.addr, options).iter().collect();
        Self { loaded, text, symbols, instructions }
    }

    fn addr(&self, symbol: &str) -> u64 {
        let found = self.symbols.iter().find(|(_, names)| names.iter().any(|name| name == symbol));
        *found.unwrap_or_else(|| panic!("the stub has no {symbol}")).0
    }

    /// Returns the symbol in which an address lies.
    fn symbol(&self, addr: u64) -> String {
        let names = self.symbols.range(..=addr).next_back().map(|(_, names)| names.join(" = "));
        names.unwrap_or_default()
    }

    fn index_of(&self, addr: u64) -> usize {
        let index = self.instructions.binary_search_by_key(&addr, Instruction::ip);
        index.unwrap_or_else(|_| panic!("no instruction starts at {addr:#x}"))
    }

    /// Returns where two bytes occur in what is mapped, at any alignment.
    fn occurrences(&self, bytes: [u8; 2]) -> BTreeSet<u64> {
        let windows = self.loaded.bytes.windows(2).zip(self.loaded.addr..);
        windows.filter(|(window, _)| **window == bytes).map(|(_, addr)| addr).collect()
    }

    /// Returns every instruction that can run after the one at `start`, up to and including those
    /// for which `is_last` holds.
    fn reachable(&self, start: u64, is_last: impl Fn(&Instruction) -> bool) -> Vec<Instruction> {
        let (mut seen, mut wanted) = (BTreeSet::new(), vec![start]);
        while let Some(addr) = wanted.pop() {
            if !seen.insert(addr) {
                continue;
            }
            let instruction = &self.instructions[self.index_of(addr)];
            if is_last(instruction) {
                continue;
            }
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Call => wanted.push(instruction.next_ip()),
                FlowControl::UnconditionalBranch => wanted.push(instruction.near_branch_target()),
                FlowControl::ConditionalBranch => {
                    wanted.extend([instruction.next_ip(), instruction.near_branch_target()]);
                }
                _ => {}
            }
        }
        seen.into_iter().map(|addr| self.instructions[self.index_of(addr)]).collect()
    }

    /// Says where an instruction is.
    fn describe(&self, instruction: &Instruction) -> String {
        format!(
            "{:?} at {:#x} in {}",
            instruction.code(),
            instruction.ip(),
            self.symbol(instruction.ip())
        )
    }
}

fn written_registers(instruction: &Instruction) -> Vec<Register> {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_registers().to_vec();
    used.iter()
        .filter(|used| writes(used.access()))
        .map(|used| used.register().full_register())
        .collect()
}

/// Returns the base registers of the memory that an instruction writes.
fn written_memory(instruction: &Instruction) -> Vec<Register> {
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(instruction).used_memory().to_vec();
    used.iter().filter(|used| writes(used.access())).map(|used| used.base()).collect()
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

/// Whether a register is one of the general ones, which the paths in and out save.
fn is_general(register: Register) -> bool {
    register.is_gpr() || register.is_segment_register() || register.is_ip()
}

#[test]
fn text_is_code_and_nothing_else() {
    let stub = Stub::read();
    for instruction in &stub.instructions {
        assert_ne!(instruction.code(), Code::INVALID, "{}", stub.describe(instruction));
    }
    for (addr, names) in &stub.symbols {
        if (stub.text.addr..stub.text.addr + stub.text.bytes.len() as u64).contains(addr) {
            // Panics where the sweep went out of step before it.
            let _ = (stub.index_of(*addr), names);
        }
    }
}

#[test]
fn ways_into_the_host_are_those_of_the_list() {
    let stub = Stub::read();
    let mut sites = BTreeSet::new();
    let mut made: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, instruction) in stub.instructions.iter().enumerate() {
        match instruction.mnemonic() {
            Mnemonic::Syscall => {}
            Mnemonic::Int | Mnemonic::Sysenter | Mnemonic::Iretq => {
                panic!("{}", stub.describe(instruction))
            }
            _ => continue,
        }
        sites.insert(instruction.ip());
        let sets_number = |i: &&Instruction| written_registers(i).contains(&Register::RAX);
        let setter = stub.instructions[..index].iter().rev().find(sets_number).unwrap();
        if setter.code() == Code::Mov_r32_imm32 {
            *made.entry(u64::from(setter.immediate32())).or_default() += 1;
        } else {
            let symbol = stub.symbol(instruction.ip());
            assert!(symbol.contains(CALLS_OF_REPLIES), "{}", stub.describe(instruction));
            *made.entry(u64::MAX).or_default() += 1;
        }
    }
    assert_eq!(made.remove(&u64::MAX), Some(1), "calls by a number in memory");
    let known: BTreeSet<u64> = CALLS.iter().map(|(number, ..)| *number).collect();
    assert_eq!(made.keys().copied().collect::<BTreeSet<_>>(), known, "{CALLS:?}");
    for (number, name, times) in CALLS {
        assert!(times.is_none_or(|times| made[&number] == times), "{name}: {}", made[&number]);
    }
    // An application can jump to any byte: nor do other instructions or data hold such bytes.
    assert_eq!(stub.occurrences([0x0f, 0x05]), sites, "syscall");
    assert_eq!(stub.occurrences([0x0f, 0x34]), BTreeSet::new(), "sysenter");
    assert_eq!(stub.occurrences([0xcd, 0x80]), BTreeSet::new(), "int $0x80");
}

#[test]
fn no_extended_register_is_touched_but_to_save_it() {
    let stub = Stub::read();
    let mut factory = InstructionInfoFactory::new();
    let mut saves = 0;
    for instruction in &stub.instructions {
        let extended = instruction.is_save_restore_instruction()
            || instruction.fpu_stack_increment_info().writes_top()
            || factory
                .info(instruction)
                .used_registers()
                .iter()
                .any(|used| !is_general(used.register()));
        if !extended {
            continue;
        }
        let (function, mnemonic) = SAVES_STATE;
        let symbol = stub.symbol(instruction.ip());
        let may = instruction.mnemonic() == mnemonic && symbol.contains(function);
        assert!(may, "{}", stub.describe(instruction));
        saves += 1;
    }
    assert_eq!(saves, 1, "instructions that save the state");
}

#[test]
fn patched_calls_leave_the_red_zone_and_the_flags_alone() {
    let stub = Stub::read();
    let switches = |i: &Instruction| {
        i.code() == Code::Mov_r64_rm64 && i.op0_register() == Register::RSP
            || i.code() == Code::Mov_rm64_r64 && i.op0_register() == Register::RSP
    };
    for entry in FAST_ENTRIES.into_iter().chain(["stub_foreign_gs", "stub_forward"]) {
        let path = stub.reachable(stub.addr(entry), switches);
        assert!(path.len() > 2, "{entry}: {path:?}");
        for instruction in path.iter().filter(|i| !switches(i)) {
            let what = format!("{entry}: {}", stub.describe(instruction));
            assert_eq!(instruction.rflags_modified(), RflagsBits::NONE, "{what}");
            // The private page, which nothing but `find_private` leads to.
            let bases = written_memory(instruction);
            assert!(bases.iter().all(|base| *base == Register::RCX), "{what}: writes {bases:?}");
            let registers = written_registers(instruction);
            let free = [Register::RAX, Register::RCX, Register::RIP];
            assert!(registers.iter().all(|r| free.contains(r)), "{what}: {registers:?}");
            assert!(
                !matches!(instruction.mnemonic(), Mnemonic::Call | Mnemonic::Push | Mnemonic::Pop),
                "{what}"
            );
        }
    }
    // Only forwarding goes on on another stack.
    for entry in FAST_ENTRIES {
        let path = stub.reachable(stub.addr(entry), |i| i.ip() == stub.addr("stub_forward"));
        assert!(!path.iter().any(switches), "{entry}");
    }
}

#[test]
fn the_way_back_writes_no_memory_once_the_stack_is_the_applications() {
    let stub = Stub::read();
    let (start, end) = (stub.addr("stub_leave"), stub.addr("stub_leave_end"));
    let way: Vec<_> =
        stub.instructions.iter().filter(|i| (start..end).contains(&i.ip())).copied().collect();
    let back =
        way.iter().position(|i| i.op0_register() == Register::RSP && i.mnemonic() == Mnemonic::Mov);
    let after = &way[back.expect("the stack pointer is loaded") + 1..];
    assert!(after.len() >= 2);
    for instruction in after {
        let what = stub.describe(instruction);
        assert!(written_memory(instruction).is_empty(), "{what}");
        assert_eq!(instruction.rflags_modified(), RflagsBits::NONE, "{what}");
    }
    assert_eq!(after.last().unwrap().code(), Code::Jmp_rm64);
}
