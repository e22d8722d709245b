//! How much memory the host has.
#![expect(unsafe_code, reason = "host calls")]

use crate::Rule;

pub(crate) const RULES: &[Rule] = &[Rule::any(libc::SYS_sysinfo)];

/// The host's memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// All of it.
    pub total: u64,
    /// What nobody uses.
    pub free: u64,
}

/// Returns the host's memory.
pub fn memory_info() -> MemoryInfo {
    // SAFETY: `sysinfo` is plain data, for which zeros are valid.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid structure; sysinfo(2) writes nothing else.
    unsafe { libc::sysinfo(&raw mut info) };
    let unit = u64::from(info.mem_unit).max(1);
    MemoryInfo {
        total: info.totalram.saturating_mul(unit),
        free: info.freeram.saturating_mul(unit),
    }
}
