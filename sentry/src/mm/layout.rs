//! Where things lie in a new address space, and by how much chance moves them.

use sentry_platform::USER_ADDRESS_LIMIT;
use syscalls::abi::mm::PAGE_SIZE;

use super::vma::page_down;
use super::vma_tree::STACK_GUARD_GAP;

/// The distance by which chance moves the stack's top: `stack_maxrandom_size`.
const STACK_RANDOM_PAGES: u64 = 0x3f_ffff;

/// `vm.mmap_rnd_bits` of x86-64.
const MMAP_RANDOM_BITS: u32 = 28;

/// The most bytes reserved for a stack, whatever `RLIMIT_STACK` says.
pub(crate) const MAX_STACK: u64 = 1 << 30;

/// The least bytes reserved for a stack: what `execve(2)` itself needs.
pub(crate) const MIN_STACK: u64 = 128 << 10;

/// The places in an address space that the kernel remembers: `struct mm_struct`'s fields of the
/// same names. `prctl(PR_SET_MM)` changes them, `/proc/PID/stat` shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Mappings are placed below this address.
    pub(crate) mmap_base: u64,
    /// The first byte of the program's text.
    pub(crate) start_code: u64,
    /// The end of the program's text.
    pub(crate) end_code: u64,
    /// The first byte of the program's initialised data.
    pub(crate) start_data: u64,
    /// The end of the program's initialised data.
    pub(crate) end_data: u64,
    /// The start of the heap.
    pub(crate) start_brk: u64,
    /// The end of the heap.
    pub(crate) brk: u64,
    /// The stack pointer at the start of the program.
    pub(crate) start_stack: u64,
    /// The first byte of the argument strings.
    pub(crate) arg_start: u64,
    /// The end of the argument strings.
    pub(crate) arg_end: u64,
    /// The first byte of the environment strings.
    pub(crate) env_start: u64,
    /// The end of the environment strings.
    pub(crate) env_end: u64,
    /// The auxiliary vector, as pairs.
    pub(crate) auxv: Vec<(u64, u64)>,
    /// Where the vDSO is mapped.
    pub(crate) vdso: u64,
}

/// Random numbers for the layout of one address space. All zero: no randomisation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chance {
    /// Moves the stack.
    pub(crate) stack: u64,
    /// Moves the mapping area.
    pub(crate) mmap: u64,
    /// Moves a position-independent program.
    pub(crate) program: u64,
    /// Moves the heap.
    pub(crate) brk: u64,
    /// Moves the stack pointer within its page.
    pub(crate) sub_page: u64,
}

impl Chance {
    /// Returns the top of the stack.
    pub(crate) fn stack_top(&self) -> u64 {
        USER_ADDRESS_LIMIT - PAGE_SIZE - (self.stack & STACK_RANDOM_PAGES) * PAGE_SIZE
    }

    /// Returns the address below which mappings are placed, for a stack of at most `stack_limit`
    /// bytes: as `mmap_base()` in Linux's `arch/x86/mm/mmap.c`.
    pub(crate) fn mmap_base(&self, stack_limit: u64) -> u64 {
        let pad = STACK_RANDOM_PAGES * PAGE_SIZE + STACK_GUARD_GAP;
        let gap = stack_limit.saturating_add(pad).clamp(128 << 20, USER_ADDRESS_LIMIT / 6 * 5);
        page_down(USER_ADDRESS_LIMIT - gap - self.mmap_offset(self.mmap))
    }

    /// Returns the base of a position-independent program: `ELF_ET_DYN_BASE` and a random offset.
    pub(crate) fn program_base(&self) -> u64 {
        page_down(USER_ADDRESS_LIMIT / 3 * 2 + self.mmap_offset(self.program))
    }

    /// Returns where the heap starts that follows `end`, the end of the program: up to 32 MiB
    /// further.
    pub(crate) fn brk_start(&self, end: u64) -> u64 {
        end.saturating_add(page_down(self.brk % (32 << 20)))
    }

    fn mmap_offset(&self, random: u64) -> u64 {
        (random & ((1 << MMAP_RANDOM_BITS) - 1)) * PAGE_SIZE
    }
}

/// Returns how many bytes are reserved for a stack under this `RLIMIT_STACK`.
pub(crate) fn stack_size(limit: u64) -> u64 {
    page_down(limit.clamp(MIN_STACK, MAX_STACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_stays_ordered_for_any_chance() {
        for value in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let chance =
                Chance { stack: value, mmap: value, program: value, brk: value, sub_page: value };
            for limit in [0, 8 << 20, 1 << 40, u64::MAX] {
                let base = chance.mmap_base(limit);
                let bottom = chance.stack_top() - stack_size(limit);
                assert!(base + STACK_GUARD_GAP <= bottom, "{value:x} {limit:x}");
                assert!(base.is_multiple_of(PAGE_SIZE));
                assert!(chance.program_base() < USER_ADDRESS_LIMIT);
            }
        }
    }
}
