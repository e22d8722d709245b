//! Guest programs: position-independent code that the tests load at [`CODE`].
//!
//! # Safety
//! The code is data to this process: it is read as bytes and never executed here.
#![expect(unsafe_code, reason = "the guest's code is assembled here and read as bytes")]

use std::arch::global_asm;

/// Where the code is loaded.
pub(crate) const CODE: u64 = 0x40_0000;
/// Where 128 KiB of zeroed memory lie.
pub(crate) const DATA: u64 = 0x1000_0000;
/// Where the platform may put its trampolines.
pub(crate) const ROOM: u64 = 0x100_0000;
/// The initial stack pointer.
pub(crate) const STACK: u64 = DATA + 0x1_0000;

macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident = $symbol:ident: [$($line:literal),* $(,)?];)*) => {
        global_asm!(
            ".pushsection .rodata.guest_programs, \"a\", @progbits",
            ".balign 64",
            ".globl guest_programs_start",
            "guest_programs_start:",
            $(
                concat!(".globl ", stringify!($symbol)),
                concat!(stringify!($symbol), ":"),
                $($line,)*
            )*
            ".globl guest_programs_end",
            "guest_programs_end:",
            ".popsection",
        );

        unsafe extern "C" {
            static guest_programs_start: u8;
            static guest_programs_end: u8;
            $(static $symbol: u8;)*
        }

        /// The guest programs.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Program {
            $($(#[$doc])* $name,)*
        }

        /// Returns the address of a program in the guest.
        pub(crate) fn address(program: Program) -> u64 {
            let symbol = match program {
                $(Program::$name => &raw const $symbol,)*
            };
            CODE + u64::try_from(symbol.addr() - (&raw const guest_programs_start).addr()).unwrap()
        }
    };
}

/// Returns the bytes of all programs.
pub(crate) fn code() -> &'static [u8] {
    let start = &raw const guest_programs_start;
    let len = (&raw const guest_programs_end).addr() - start.addr();
    // SAFETY: the assembler laid the bytes between both symbols into one read-only section.
    unsafe { std::slice::from_raw_parts(start, len) }
}

programs! {
    /// Calls getpid for ever, by the site that systrap patches; `rbx` counts.
    Getpid = guest_getpid: [
        "2:",
        "mov eax, 39",
        "syscall",
        "inc rbx",
        "jmp 2b",
    ];
    /// Calls whatever `rax` says.
    Call = guest_call: [
        "syscall",
        "jmp guest_call",
    ];
    /// Calls read for ever, by the site of the C library that has room for no jump; counts results
    /// that are errors in `rbx`.
    Read = guest_read: [
        "2:",
        "xor eax, eax",
        "syscall",
        ".byte 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff",
        "jbe 2b",
        "inc rbx",
        "jmp 2b",
    ];
    /// Calls by way of a site with another constant before the instruction.
    Constant = guest_constant: [
        "mov eax, 1011",
        "mov edx, 0x4321",
        "syscall",
        "jmp guest_constant",
    ];
    /// Sets every register to a value of its own and makes system call 1000.
    AllRegisters = guest_all_registers: [
        "mov rbx, 0x1001",
        "mov rdx, 0x1003",
        "mov rsi, 0x1004",
        "mov rdi, 0x1005",
        "mov rbp, 0x1006",
        "mov r8, 0x1008",
        "mov r9, 0x1009",
        "mov r10, 0x100a",
        "mov r12, 0x100c",
        "mov r13, 0x100d",
        "mov r14, 0x100e",
        "mov r15, 0x100f",
        "mov rax, 1000",
        "syscall",
        "hlt",
    ];
    /// Spins without system calls; `rbx` counts.
    Spin = guest_spin: [
        "inc rbx",
        "jmp guest_spin",
    ];
    /// Loads from the address in `rdi`.
    Load = guest_load: [
        "mov rax, [rdi]",
        "mov eax, 1001",
        "syscall",
    ];
    /// Stores `rsi` to the address in `rdi`, then makes system call 1001.
    Store = guest_store: [
        "mov [rdi], rsi",
        "mov eax, 1001",
        "syscall",
        "hlt",
    ];
    /// Executes an undefined instruction.
    Undefined = guest_undefined: [
        "ud2",
    ];
    /// Divides by zero.
    Divide = guest_divide: [
        "xor ecx, ecx",
        "mov eax, 1",
        "xor edx, edx",
        "div ecx",
    ];
    /// Hits a breakpoint.
    Breakpoint = guest_breakpoint: [
        "int3",
        "hlt",
    ];
    /// Executes a privileged instruction.
    Privileged = guest_privileged: [
        "hlt",
    ];
    /// The 32-bit entry: exit(7) of i386.
    Int80 = guest_int80: [
        "mov eax, 1",
        "mov ebx, 7",
        "mov ecx, 0x55",
        "int 0x80",
        "hlt",
    ];
    /// getpid with the bit of the x32 table.
    X32 = guest_x32: [
        "mov eax, 0x40000027",
        "syscall",
        "hlt",
    ];
    /// Loads the vector registers from 64 bytes at `rdi`, makes system call 1002, and stores them
    /// to `rdi` again.
    Vectors = guest_vectors: [
        "movdqu xmm0, [rdi]",
        "movdqu xmm15, [rdi + 16]",
        "fldz",
        "fld1",
        "mov eax, 1002",
        "syscall",
        "movdqu [rdi], xmm0",
        "movdqu [rdi + 16], xmm15",
        "fstp qword ptr [rdi + 32]",
        "fstp qword ptr [rdi + 40]",
        "mov eax, 1003",
        "syscall",
        "hlt",
    ];
    /// Calls the function at `rbx`, then makes system call 1004 with its result as argument.
    Function = guest_function: [
        "call rbx",
        "mov rdi, rax",
        "mov eax, 1004",
        "syscall",
        "hlt",
    ];
    /// Increments the word at `rdi` a million times, atomically, then makes system call 1005.
    Increment = guest_increment: [
        "mov ecx, 1000000",
        "2:",
        "lock inc dword ptr [rdi]",
        "dec ecx",
        "jnz 2b",
        "mov eax, 1005",
        "syscall",
        "hlt",
    ];
    /// Scribbles over the page at `rdi` for ever.
    Scribble = guest_scribble: [
        "xor eax, eax",
        "2:",
        "mov [rdi + rax * 8], rsi",
        "inc eax",
        "and eax, 511",
        "add rsi, r8",
        "jmp 2b",
    ];
    /// Sets the base of FS to the value in `rdi`, then makes system call 1007.
    FsBase = guest_fs_base: [
        "wrfsbase rdi",
        "mov eax, 1007",
        "syscall",
        "hlt",
    ];
    /// Loads data segment registers with the selector in `edi`, then makes system call 1008.
    Selectors = guest_selectors: [
        "mov ds, edi",
        "mov es, edi",
        "mov gs, edi",
        "mov eax, 1008",
        "syscall",
        "hlt",
    ];
    /// Sets the trap flag.
    SingleStep = guest_single_step: [
        "pushfq",
        "or qword ptr [rsp], 0x100",
        "popfq",
        "nop",
        "nop",
        "hlt",
    ];
    /// Sets direction and alignment check flags, then makes system call 1009.
    Flags = guest_flags: [
        "pushfq",
        "or qword ptr [rsp], 0x40400",
        "popfq",
        "mov eax, 1009",
        "syscall",
        "hlt",
    ];
    /// Enters 32-bit code, which executes the two bytes in `di`.
    Compat = guest_compat: [
        "lea rax, [rip + 4f]",
        "mov [rax], di",
        "push 0x23",
        "lea rax, [rip + 3f]",
        "push rax",
        "retfq",
        ".code32",
        "3:",
        "mov eax, 20",
        "4:",
        "nop",
        "nop",
        "hlt",
        ".code64",
    ];
    /// Copies a page from `rsi` to `rdi`, then makes system call 1010.
    Copy = guest_copy: [
        "mov ecx, 512",
        "rep movsq",
        "mov eax, 1010",
        "syscall",
        "hlt",
    ];
}
