//! The signal frame: where a stopped thread's context lies.
//!
//! # Safety
//! Frames lie on the thread's stub stack. The kernel made them, or this module did in the same
//! form; the application may have scribbled over them, which `rt_sigreturn` copes with.
#![expect(unsafe_code, reason = "reads and writes signal frames through raw pointers")]

use core::arch::asm;

use sentry_sysmsg::layout;
use sentry_sysmsg::slot::{N_REGS, Renew as _, Slot, reg};

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SigStack {
    pub(crate) sp: u64,
    pub(crate) flags: u64,
    pub(crate) size: u64,
}

/// `struct ucontext`, with the registers in the order of `struct sigcontext`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ucontext {
    pub(crate) flags: u64,
    pub(crate) link: u64,
    pub(crate) stack: SigStack,
    /// r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags.
    pub(crate) gregs: [u64; 18],
    /// cs, gs, fs, ss.
    pub(crate) selectors: [u16; 4],
    pub(crate) err: u64,
    pub(crate) trapno: u64,
    pub(crate) oldmask: u64,
    pub(crate) cr2: u64,
    pub(crate) fpstate: u64,
    pub(crate) reserved: [u64; 8],
    pub(crate) sigmask: u64,
}

/// Indices into [`Ucontext::gregs`].
pub(crate) const G_RAX: usize = 13;
pub(crate) const G_RCX: usize = 14;
pub(crate) const G_RIP: usize = 16;
pub(crate) const G_EFLAGS: usize = 17;

/// For each entry of `gregs`, its place in the slot's registers.
const ORDER: [usize; 18] = [
    reg::R8,
    reg::R9,
    reg::R10,
    reg::R11,
    reg::R12,
    reg::R13,
    reg::R14,
    reg::R15,
    reg::RDI,
    reg::RSI,
    reg::RBP,
    reg::RBX,
    reg::RDX,
    reg::RAX,
    reg::RCX,
    reg::RSP,
    reg::RIP,
    reg::EFLAGS,
];
const _: () = assert!(N_REGS == 27);

const EFLAGS_ALIGNMENT_CHECK: u64 = 0x4_0000;
/// `__USER32_CS`.
const CS_32: u64 = 0x23;
/// What marks the software-reserved bytes of the extended state, and its end.
pub(crate) const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
pub(crate) const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// The bits of `eflags` that user mode may set (`FIX_EFLAGS`), without the resume flag.
const EFLAGS_USER: u64 = 0x4_0dd5;

impl Ucontext {
    /// Returns a frame with no register set for the thread `index`.
    pub(crate) fn empty(index: u32) -> Self {
        Self {
            flags: 7,
            link: 0,
            stack: alternate_stack(index),
            gregs: [0; 18],
            selectors: [0x33, 0, 0, 0x2b],
            err: 0,
            trapno: 0,
            oldmask: 0,
            cr2: 0,
            fpstate: 0,
            reserved: [0; 8],
            sigmask: 0,
        }
    }

    /// Copies the registers to the slot.
    pub(crate) fn store(&self, slot: &Slot, orig_rax: u64) {
        store(&self.gregs, slot, orig_rax);
        slot.regs[reg::CS].renew(u64::from(self.selectors[0]));
    }

    /// Copies the registers from the slot.
    pub(crate) fn load(&mut self, slot: &Slot) {
        use core::sync::atomic::Ordering::Relaxed;
        for (value, place) in self.gregs.iter_mut().zip(ORDER) {
            *value = slot.regs[place].load(Relaxed);
        }
        let eflags = &mut self.gregs[G_EFLAGS];
        *eflags = (*eflags & EFLAGS_USER) | 0x202;
        // The 32-bit code segment, which any program can enter, or the ordinary one.
        let cs = if slot.regs[reg::CS].load(Relaxed) == CS_32 { CS_32 as u16 } else { 0x33 };
        self.selectors = [cs, 0, 0, 0x2b];
        write_fs_base(slot.regs[reg::FS_BASE].load(Relaxed));
        let gs = slot.regs[reg::GS_BASE].load(Relaxed);
        let own = layout::private_addr(slot.index.load(Relaxed));
        write_gs_base(if gs == 0 { own } else { gs });
        let private = core::ptr::with_exposed_provenance_mut::<layout::Private>(own as usize);
        // SAFETY: the page is this thread's.
        unsafe { (*private).slot = core::ptr::from_ref(slot).addr() as u64 };
    }
}

/// Returns the arguments of the system call that the registers describe.
pub(crate) fn arguments(gregs: &[u64; 18]) -> [u64; 6] {
    // rdi, rsi, rdx, r10, r8, r9.
    [gregs[8], gregs[9], gregs[12], gregs[2], gregs[0], gregs[1]]
}

/// Copies registers to the slot.
pub(crate) fn store(gregs: &[u64; 18], slot: &Slot, orig_rax: u64) {
    use core::sync::atomic::Ordering::Relaxed;
    for (value, place) in gregs.iter().zip(ORDER) {
        slot.regs[place].renew(*value);
    }
    slot.regs[reg::CS].renew(0x33);
    slot.regs[reg::ORIG_RAX].renew(orig_rax);
    slot.regs[reg::FS_BASE].renew(read_fs_base());
    let gs = read_gs_base();
    let own = layout::private_addr(slot.index.load(Relaxed));
    slot.regs[reg::GS_BASE].renew(if gs == own { 0 } else { gs });
}

/// Switches the alignment check off where the application has switched it on: the compiler makes
/// unaligned accesses of the stub's.
pub(crate) fn clear_alignment_check(eflags: u64) {
    if eflags & EFLAGS_ALIGNMENT_CHECK != 0 {
        // SAFETY: changes only the flag; the stub's target has no red zone.
        unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x40000", "popfq") };
    }
}

/// Returns the alternate stack of the thread `index`.
pub(crate) fn alternate_stack(index: u32) -> SigStack {
    let base = layout::stack_addr(index);
    SigStack {
        sp: base + layout::STACK_GUARD,
        flags: 0,
        size: layout::STACK_TOP - layout::STACK_GUARD,
    }
}

/// Returns whether `addr` can be loaded into a segment base.
fn is_canonical(addr: u64) -> bool {
    addr < 1 << 47
}

fn read_fs_base() -> u64 {
    let base: u64;
    // SAFETY: the platform has checked that the host enables FSGSBASE.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

fn read_gs_base() -> u64 {
    let base: u64;
    // SAFETY: as above.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

fn write_fs_base(base: u64) {
    if is_canonical(base) {
        // SAFETY: as above; the stub itself does not use %fs.
        unsafe { asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
    }
}

fn write_gs_base(base: u64) {
    if is_canonical(base) {
        // SAFETY: as above; the entry of patched calls checks what it finds there.
        unsafe { asm!("wrgsbase {}", in(reg) base, options(nomem, nostack, preserves_flags)) };
    }
}
