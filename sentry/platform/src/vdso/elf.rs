//! Symbols of a vDSO image, the host's or ours.
//!
//! # Safety
//! The host's vDSO is mapped into this process for good; the auxiliary vector says where.
#![expect(unsafe_code, reason = "reads the host's vDSO out of this process")]

/// The image of a shared object without relocations.
#[derive(Clone, Debug)]
pub struct Image(Vec<u8>);

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;

impl Image {
    /// Takes the bytes of an image.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Copies the host's vDSO, or returns `None` where the host has none.
    #[must_use]
    pub fn host() -> Option<Self> {
        // SAFETY: a plain number in, a plain number out.
        let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        let base = usize::try_from(base).ok().filter(|&base| base != 0)?;
        let copy = |len: usize| {
            let start = std::ptr::with_exposed_provenance::<u8>(base);
            // SAFETY: the host maps at least one page there, and as much as the program headers
            // say; nothing writes to it.
            Self(unsafe { std::slice::from_raw_parts(start, len) }.to_vec())
        };
        let (_, len) = copy(4096).segment(PT_LOAD)?;
        Some(copy(usize::try_from(len).ok()?))
    }

    fn bytes<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        self.0.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }

    fn u16(&self, offset: u64) -> Option<u16> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: u64) -> Option<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }

    /// Returns address and size in memory of the first segment of a kind.
    fn segment(&self, kind: u32) -> Option<(u64, u64)> {
        let table = self.u64(32)?;
        let n_segments = u64::from(self.u16(56)?);
        let header = (0..n_segments).map(|i| table.saturating_add(i * 56));
        let header = header.into_iter().find(|&header| self.u32(header) == Some(kind))?;
        Some((self.u64(header + 16)?, self.u64(header + 40)?))
    }

    /// Returns the value of an entry of the dynamic section.
    fn dynamic(&self, tag: u64) -> Option<u64> {
        let (start, len) = self.segment(PT_DYNAMIC)?;
        let mut entries = (0..len / 16).map(|i| start + i * 16);
        entries.find(|&entry| self.u64(entry) == Some(tag)).and_then(|entry| self.u64(entry + 8))
    }

    fn name_is(&self, symbol: u64, name: &str) -> Option<bool> {
        let strings = self.dynamic(DT_STRTAB)?;
        let start = usize::try_from(strings.checked_add(self.u32(symbol)?.into())?).ok()?;
        let rest = self.0.get(start..)?;
        Some(rest.get(..name.len())? == name.as_bytes() && rest.get(name.len()) == Some(&0))
    }

    /// Returns the value of a defined symbol.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        let table = self.dynamic(DT_SYMTAB)?;
        // Nothing says how many there are; in a vDSO the strings follow the symbols.
        let end = self.dynamic(DT_STRTAB).filter(|&strings| strings > table).unwrap_or(u64::MAX);
        let n_symbols = (end.saturating_sub(table) / 24).min(4096);
        let symbols = (1..n_symbols).map(|i| table.saturating_add(i * 24));
        let mut found = symbols.filter(|&symbol| {
            self.name_is(symbol, name) == Some(true) && self.u16(symbol + 6) != Some(0)
        });
        self.u64(found.next()? + 8)
    }
}

#[cfg(test)]
impl Image {
    /// Finds a symbol as the loader of musl does.
    pub(super) fn symbol_by_hash(&self, name: &str) -> Option<u64> {
        let hash = self.dynamic(4)?;
        let table = self.dynamic(DT_SYMTAB)?;
        let n_buckets = self.u32(hash)?;
        let at = |i: u32| self.u32(hash + 8 + 4 * u64::from(i));
        let mut index = at(super::sysv_hash(name) % n_buckets)?;
        while index != 0 {
            let symbol = table + u64::from(index) * 24;
            if self.name_is(symbol, name)? {
                return self.u64(symbol + 8);
            }
            index = at(n_buckets + index)?;
        }
        None
    }

    /// Finds a symbol as the loader of glibc does.
    pub(super) fn symbol_by_gnu_hash(&self, name: &str) -> Option<u64> {
        let hash = super::gnu_hash(name);
        let table = self.dynamic(0x6fff_fef5)?;
        let symbols = self.dynamic(DT_SYMTAB)?;
        let (n_buckets, first, n_words) =
            (self.u32(table)?, self.u32(table + 4)?, self.u32(table + 8)?);
        let buckets = table + 16 + 8 * u64::from(n_words);
        let chains = buckets + 4 * u64::from(n_buckets);
        let mut index = self.u32(buckets + 4 * u64::from(hash % n_buckets))?;
        loop {
            let chain = self.u32(chains + 4 * u64::from(index - first))?;
            let symbol = symbols + u64::from(index) * 24;
            if chain | 1 == hash | 1 && self.name_is(symbol, name)? {
                return self.u64(symbol + 8);
            }
            if chain & 1 != 0 {
                return None;
            }
            index += 1;
        }
    }
}
