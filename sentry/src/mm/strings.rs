//! What a program is given at its start: arguments, environment, auxiliary vector.

use syscalls::UserAddr;

use super::MemoryManager;

/// The most bytes of arguments or environment that are read.
const MAX_STRINGS: u64 = 8 << 20;

impl MemoryManager {
    /// Reads what is readable of a range, from its start on.
    pub(crate) fn read_range(&self, start: u64, end: u64) -> Vec<u8> {
        let len = end.saturating_sub(start).min(MAX_STRINGS);
        let Ok(host) = self.address_space() else { return Vec::new() };
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..)
            && !rest.is_empty()
        {
            match host.read(UserAddr(start.saturating_add(done as u64)), rest) {
                Ok(n) if n > 0 => done += n,
                _ => break,
            }
        }
        data.truncate(done);
        data
    }

    /// Returns the auxiliary vector with its end.
    pub(crate) fn auxv(&self) -> Vec<u8> {
        let mut entries = self.layout().auxv;
        if entries.last() != Some(&(0, 0)) {
            entries.push((0, 0));
        }
        entries
            .iter()
            .flat_map(|(key, value)| [key.to_le_bytes(), value.to_le_bytes()])
            .flatten()
            .collect()
    }
}
