//! The stub program: what every traced process has mapped beside the application.
//!
//! A page of code (a `syscall` instruction with a trap behind it, two atomic operations, and the
//! idle loop of the zygote) and two pages of data. The application can read and write the data
//! and execute the code, which gains it nothing: below [`super::sys::sysemu`] the host executes
//! no system call, and no thread that is made to execute one takes anything but its own registers
//! from here.
//!
//! # Safety
//! The code is data to this process: it is copied into an ELF file and never executed here.
#![expect(unsafe_code, reason = "the stub's code is assembled here and read as bytes")]

use std::arch::global_asm;

/// Where the stub lies.
pub(super) const BASE: u64 = 0x7e80_0000_0000;
/// A page for the arguments of injected calls that take pointers.
pub(super) const DATA: u64 = BASE + PAGE;
/// A page for the results of injected calls that return data.
pub(super) const BUFFER: u64 = BASE + 2 * PAGE;
/// The descriptor of the socket over which stubs receive the files that they map.
pub(super) const SOCKET_FD: i32 = 0;
/// The descriptor that a received file gets: the lowest one that is free.
pub(super) const FILE_FD: u64 = 1;

const PAGE: u64 = 4096;
/// The offset of the code in its page; the ELF headers come before.
const CODE_OFFSET: usize = 0x200;

global_asm!(
    ".pushsection .rodata.runsc_ptrace_stub, \"a\", @progbits",
    ".balign 16",
    ".globl runsc_ptrace_stub_start",
    "runsc_ptrace_stub_start:",
    // One system call, as the registers say.
    "syscall",
    "int3",
    // The zygote starts here: it sends its stack pointer, which tells where the host's auxiliary
    // vector lies, and waits for the tracer.
    ".globl runsc_ptrace_stub_entry",
    "runsc_ptrace_stub_entry:",
    "mov rax, rsp",
    "push rax",
    "xor edi, edi",
    "mov rsi, rsp",
    "mov edx, 8",
    "mov eax, 1",
    "syscall",
    ".globl runsc_ptrace_stub_idle",
    "runsc_ptrace_stub_idle:",
    "mov eax, 34",
    "syscall",
    "jmp runsc_ptrace_stub_idle",
    // rdi: address, esi: and-mask, edx: xor-mask or addend, ecx: whether to add.
    ".globl runsc_ptrace_stub_update",
    "runsc_ptrace_stub_update:",
    "mov eax, dword ptr [rdi]",
    "2:",
    "mov r8d, eax",
    "test ecx, ecx",
    "jnz 3f",
    "and r8d, esi",
    "xor r8d, edx",
    "jmp 4f",
    "3:",
    "add r8d, edx",
    "4:",
    "lock cmpxchg dword ptr [rdi], r8d",
    "jnz 2b",
    "int3",
    // rdi: address, esi: expected, edx: new.
    ".globl runsc_ptrace_stub_exchange",
    "runsc_ptrace_stub_exchange:",
    "mov eax, esi",
    "lock cmpxchg dword ptr [rdi], edx",
    "int3",
    ".globl runsc_ptrace_stub_end",
    "runsc_ptrace_stub_end:",
    ".popsection",
);

unsafe extern "C" {
    static runsc_ptrace_stub_start: u8;
    static runsc_ptrace_stub_entry: u8;
    static runsc_ptrace_stub_idle: u8;
    static runsc_ptrace_stub_update: u8;
    static runsc_ptrace_stub_exchange: u8;
    static runsc_ptrace_stub_end: u8;
}

/// Pieces of the stub's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// One system call.
    Syscall,
    /// The zygote's start.
    Entry,
    /// The zygote's idle loop.
    Idle,
    /// Atomic update of a word.
    Update,
    /// Atomic compare-and-exchange of a word.
    Exchange,
}

/// Returns the address of a piece in the traced processes.
pub(super) fn address(piece: Piece) -> u64 {
    let symbol = match piece {
        Piece::Syscall => &raw const runsc_ptrace_stub_start,
        Piece::Entry => &raw const runsc_ptrace_stub_entry,
        Piece::Idle => &raw const runsc_ptrace_stub_idle,
        Piece::Update => &raw const runsc_ptrace_stub_update,
        Piece::Exchange => &raw const runsc_ptrace_stub_exchange,
    };
    let offset = symbol.addr() - (&raw const runsc_ptrace_stub_start).addr() + CODE_OFFSET;
    BASE + u64::try_from(offset).unwrap_or(0)
}

/// Returns whether an address lies in the stub's code.
pub(super) fn contains(addr: u64) -> bool {
    (BASE..DATA).contains(&addr)
}

fn code() -> &'static [u8] {
    let start = &raw const runsc_ptrace_stub_start;
    let len = (&raw const runsc_ptrace_stub_end).addr() - start.addr();
    // SAFETY: the assembler laid the bytes between both symbols into one read-only section.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Builds the ELF file of the stub.
pub(super) fn image() -> Vec<u8> {
    let mut image = Vec::with_capacity(0x3000);
    image.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2u16, 62] {
        image.extend_from_slice(&half.to_le_bytes()); // ET_EXEC, EM_X86_64
    }
    image.extend_from_slice(&1u32.to_le_bytes());
    for word in [address(Piece::Entry), 64, 0] {
        image.extend_from_slice(&word.to_le_bytes());
    }
    image.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 3, 0, 0, 0] {
        image.extend_from_slice(&half.to_le_bytes());
    }
    // PT_LOAD r-x, PT_LOAD rw-, PT_GNU_STACK rw-.
    let headers: [(u32, u32, u64, u64, u64); 3] =
        [(1, 5, 0, BASE, PAGE), (1, 6, PAGE, DATA, 2 * PAGE), (0x6474_e551, 6, 0, 0, 0)];
    for (kind, flags, offset, addr, size) in headers {
        image.extend_from_slice(&kind.to_le_bytes());
        image.extend_from_slice(&flags.to_le_bytes());
        for word in [offset, addr, addr, size, size, PAGE] {
            image.extend_from_slice(&word.to_le_bytes());
        }
    }
    image.resize(CODE_OFFSET, 0xcc);
    image.extend_from_slice(code());
    image.resize(0x1000, 0xcc);
    image.resize(0x3000, 0);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits_into_its_page() {
        assert_eq!(code()[..3], [0x0f, 0x05, 0xcc]);
        assert!(CODE_OFFSET + code().len() <= 0x1000);
        assert_eq!(image().len(), 0x3000);
        assert!(contains(address(Piece::Exchange)) && !contains(BASE - 1) && !contains(DATA));
    }
}
