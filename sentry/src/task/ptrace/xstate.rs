//! The extended state as debuggers know it.

/// The size of the legacy area and the header behind it.
const LEAST: usize = 512 + 64;
/// The bytes of the legacy area that a signal frame uses for itself.
pub(crate) const SOFTWARE: std::ops::Range<usize> = 464..512;
/// The magic number behind the extended state of a signal frame.
pub(crate) const MAGIC_LEN: usize = 4;

/// Turns what a signal frame holds into what `NT_X86_XSTATE` shows.
pub(crate) fn shown(mut frame: Vec<u8>, features: u64) -> Option<Vec<u8>> {
    let len = frame.len().checked_sub(MAGIC_LEN).filter(|len| *len >= LEAST)?;
    frame.truncate(len);
    let software = frame.get_mut(SOFTWARE)?;
    software.fill(0);
    software.first_chunk_mut::<8>()?.copy_from_slice(&features.to_ne_bytes());
    Some(frame)
}
