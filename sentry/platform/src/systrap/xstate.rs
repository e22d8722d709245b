//! The layout of the extended state in signal frames, from the processor's own description.
//!
//! # Safety
//! Every machine on which systrap runs has XSAVE (it is checked before).
#![expect(unsafe_code, reason = "xgetbv")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use crate::XsaveLayout;

/// Tile data: only with permission, which stubs never have. (The tile configuration needs none.)
const TILE_DATA: u64 = 1 << 18;
/// The legacy area and the header.
const MINIMUM: u32 = 576;

/// Returns the layout that the kernel uses in signal frames of a process without permissions.
pub(super) fn layout() -> XsaveLayout {
    let features = xcr0() & !TILE_DATA;
    let mut size = MINIMUM;
    for bit in 2..63 {
        if features & 1 << bit != 0 {
            let leaf = __cpuid_count(0xd, bit);
            size = size.max(leaf.ebx.saturating_add(leaf.eax));
        }
    }
    XsaveLayout { size, features }
}

/// Returns the features that the kernel has enabled.
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: see the module; the instruction has no effect but its result.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    };
    u64::from(high) << 32 | u64::from(low)
}
