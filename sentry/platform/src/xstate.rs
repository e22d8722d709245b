//! The extended state (x87, SSE, AVX…) as guest signal frames hold it: `arch/x86/kernel/fpu/signal.c`
//! of Linux in the standard XSAVE format.
//!
//! # Safety
//! `cpuid` and `xgetbv` read facts about the processor; the latter exists where the former says
//! that the operating system has turned XSAVE on.
#![expect(unsafe_code, reason = "reads XCR0 with xgetbv")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

use syscalls::{Errno, SysResult};

use crate::XsaveLayout;

/// Bytes of the legacy (FXSAVE) region.
const LEGACY_SIZE: usize = 512;
/// Bytes of the legacy region and the XSAVE header behind it.
const HEADER_END: usize = 576;
/// Where the software-reserved bytes begin.
const SOFTWARE: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// x87 and SSE, which the legacy region holds.
const LEGACY_FEATURES: u64 = 3;
/// The tile data of AMX, which needs permission.
const EXCLUDED: u64 = 1 << 18;
/// The bits of MXCSR that may be set.
const MXCSR_MASK: u32 = 0xffff;
const MXCSR_INITIAL: u32 = 0x1f80;
const FCW_INITIAL: u16 = 0x37f;

/// Returns XCR0, or x87 and SSE alone where the processor or the host has no XSAVE.
fn xcr0() -> u64 {
    if __cpuid(1).ecx & (1 << 27) == 0 {
        return LEGACY_FEATURES;
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE is set, so the instruction exists in user mode; it reads XCR0 only.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(low) | u64::from(high) << 32
}

/// The features of this machine above x87 and SSE, and where they lie.
struct Components {
    layout: XsaveLayout,
    /// Number, offset and length.
    parts: Vec<(u32, usize, usize)>,
}

/// Returns what the processor says, asked once: `cpuid` is slow in a virtual machine.
fn components() -> &'static Components {
    static COMPONENTS: OnceLock<Components> = OnceLock::new();
    COMPONENTS.get_or_init(|| {
        let features = xcr0() & !EXCLUDED;
        let parts: Vec<_> = (2..63)
            .filter(|feature| features & (1 << feature) != 0)
            .map(|feature| {
                let leaf = __cpuid_count(0xd, feature);
                let number = |register| usize::try_from(register).unwrap_or(0);
                (feature, number(leaf.ebx), number(leaf.eax))
            })
            .collect();
        let end = parts.iter().map(|&(_, offset, len)| offset + len).max();
        let size = u32::try_from(end.unwrap_or(0).max(HEADER_END)).unwrap_or(0);
        Components { layout: XsaveLayout { size, features }, parts }
    })
}

/// Returns the layout of guest signal frames on this machine, which is the host's own for a
/// process that has asked for no permission.
pub(crate) fn layout() -> XsaveLayout {
    components().layout
}

fn get_u32(area: &[u8], offset: usize) -> u32 {
    let bytes = area.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.copied().map_or(0, u32::from_le_bytes)
}

fn get_u64(area: &[u8], offset: usize) -> u64 {
    let bytes = area.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.copied().map_or(0, u64::from_le_bytes)
}

fn put(area: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(dst) = area.get_mut(offset..offset + bytes.len()) {
        dst.copy_from_slice(bytes);
    }
}

/// Turns an XSAVE area in the standard format into what a signal frame holds, magic included.
pub(crate) fn to_frame(area: &[u8], layout: XsaveLayout) -> Vec<u8> {
    let size = usize::try_from(layout.size).unwrap_or(0);
    let mut frame = area.get(..size.min(area.len())).unwrap_or_default().to_vec();
    frame.resize(size + 4, 0);
    let mut software = [0u8; 48];
    put(&mut software, 0, &MAGIC1.to_le_bytes());
    put(&mut software, 4, &(layout.size + 4).to_le_bytes());
    put(&mut software, 8, &layout.features.to_le_bytes());
    put(&mut software, 16, &layout.size.to_le_bytes());
    put(&mut frame, SOFTWARE, &software);
    let present = get_u64(&frame, LEGACY_SIZE) & layout.features | LEGACY_FEATURES;
    put(&mut frame, LEGACY_SIZE, &present.to_le_bytes());
    put(&mut frame, LEGACY_SIZE + 8, &[0; 56]);
    put(&mut frame, size, &MAGIC2.to_le_bytes());
    frame
}

/// Sets the features of `layout` in the XSAVE area `area` to their initial state.
pub(crate) fn reset(area: &mut [u8], layout: XsaveLayout) {
    put(area, 0, &[0; SOFTWARE]);
    put(area, 0, &FCW_INITIAL.to_le_bytes());
    put(area, 24, &MXCSR_INITIAL.to_le_bytes());
    let present = get_u64(area, LEGACY_SIZE) & !layout.features | LEGACY_FEATURES;
    put(area, LEGACY_SIZE, &present.to_le_bytes());
}

/// Loads the extended state of a signal frame into the XSAVE area `area`. `frame` is as much of
/// the frame as is readable, at most `layout.size + 4` bytes.
///
/// # Errors
/// `EFAULT` where the processor's `xrstor` would fault.
pub(crate) fn from_frame(area: &mut [u8], frame: &[u8], layout: XsaveLayout) -> SysResult<()> {
    let legacy = frame.get(..LEGACY_SIZE).ok_or(Errno::EFAULT)?;
    let mxcsr = get_u32(legacy, 24);
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(Errno::EFAULT);
    }
    // Without both magic numbers Linux takes the legacy region alone.
    let size = get_u32(legacy, SOFTWARE + 16);
    let end = usize::try_from(size).unwrap_or(0);
    let extended = get_u32(legacy, SOFTWARE) == MAGIC1
        && end >= HEADER_END
        && size <= layout.size
        && size <= get_u32(legacy, SOFTWARE + 4)
        && get_u32(frame, end) == MAGIC2;
    let (restored, present) = if extended {
        let header = frame.get(LEGACY_SIZE..HEADER_END).ok_or(Errno::EFAULT)?;
        let present = get_u64(header, 0);
        if present & !layout.features != 0 || header.iter().skip(8).any(|&byte| byte != 0) {
            return Err(Errno::EFAULT);
        }
        (get_u64(legacy, SOFTWARE + 8) & layout.features, present)
    } else {
        (LEGACY_FEATURES, LEGACY_FEATURES)
    };
    reset(area, layout);
    if restored & 1 != 0 && present & 1 != 0 {
        put(area, 0, &legacy[..24]);
        put(area, 32, &legacy[32..160]);
    }
    if restored & 6 != 0 {
        put(area, 24, &mxcsr.to_le_bytes());
    }
    if restored & 2 != 0 && present & 2 != 0 {
        put(area, 160, &legacy[160..416]);
    }
    let mut all = get_u64(area, LEGACY_SIZE);
    for &(feature, offset, len) in &components().parts {
        if restored & present & (1 << feature) == 0 {
            continue;
        }
        let part = frame.get(offset..offset + len).filter(|_| offset + len <= end);
        put(area, offset, part.ok_or(Errno::EFAULT)?);
        all |= 1 << feature;
    }
    put(area, LEGACY_SIZE, &all.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area() -> Vec<u8> {
        let mut area = vec![0; usize::try_from(layout().size).unwrap() + 512];
        reset(&mut area, layout());
        put(&mut area, 160, &[7; 16]);
        area
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let frame = to_frame(&area(), layout());
        let mut other = vec![0; area().len()];
        assert_eq!(from_frame(&mut other, &frame, layout()), Ok(()));
        assert_eq!(other[..SOFTWARE], area()[..SOFTWARE]);
        assert_eq!(get_u64(&other, LEGACY_SIZE), LEGACY_FEATURES);
    }

    #[test]
    fn what_the_processor_refuses_is_refused() {
        let mut frame = to_frame(&area(), layout());
        let mut other = area();
        put(&mut frame, 24, &0xffff_0000u32.to_le_bytes());
        assert_eq!(from_frame(&mut other, &frame, layout()), Err(Errno::EFAULT));
        let mut frame = to_frame(&area(), layout());
        put(&mut frame, LEGACY_SIZE + 8, &[1]);
        assert_eq!(from_frame(&mut other, &frame, layout()), Err(Errno::EFAULT));
        assert_eq!(from_frame(&mut other, &frame[..100], layout()), Err(Errno::EFAULT));
    }

    #[test]
    fn without_magic_only_the_legacy_region_counts() {
        let mut frame = to_frame(&area(), layout());
        put(&mut frame, SOFTWARE, &[0; 4]);
        let mut other = vec![0; area().len()];
        assert_eq!(from_frame(&mut other, &frame[..LEGACY_SIZE], layout()), Ok(()));
        assert_eq!(other[160..176], [7; 16]);
    }
}
