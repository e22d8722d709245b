//! Memory: zeroed C structs, mappings, and words that another thread or process changes.

use core::sync::atomic::AtomicU32;

use crate::sys;

/// Returns a C struct of zero bytes.
pub fn zeroed<T>() -> T {
    // SAFETY: used with C structs of integers and pointers only, for which zero is a value.
    unsafe { core::mem::zeroed() }
}

/// Page size.
pub const PAGE: usize = 4096;

/// A mapping that is unmapped with its owner.
#[derive(Debug)]
pub struct Map {
    /// First address.
    pub addr: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Map {
    /// Maps anonymous memory, readable and writable.
    pub fn anonymous(len: usize, sharing: i32) -> Result<Map, i32> {
        Map::new(0, len, libc::PROT_READ | libc::PROT_WRITE, sharing | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// `mmap(2)`.
    pub fn new(
        addr: usize,
        len: usize,
        prot: i32,
        flags: i32,
        fd: i32,
        off: i64,
    ) -> Result<Map, i32> {
        let addr = sys!(SYS_mmap, addr, len, prot, flags, fd, off)?;
        Ok(Map { addr, len })
    }

    /// Returns the memory as bytes.
    pub fn bytes(&self) -> &'static mut [u8] {
        // SAFETY: the mapping is this long; a case that unmaps or protects parts of it does not touch them
        // through this slice, or means to fault.
        unsafe { core::slice::from_raw_parts_mut(self.addr as *mut u8, self.len) }
    }

    /// Returns the `index`th 32-bit word.
    pub fn word(&self, index: usize) -> &'static AtomicU32 {
        assert!((index + 1) * 4 <= self.len, "word outside the mapping");
        // SAFETY: inside the mapping (checked), aligned, and only used atomically.
        unsafe { &*((self.addr + index * 4) as *const AtomicU32) }
    }

    /// Gives up the memory without unmapping it.
    pub fn leak(self) -> usize {
        let addr = self.addr;
        core::mem::forget(self);
        addr
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = sys!(SYS_munmap, self.addr, self.len);
    }
}

/// Reads a byte at an address that may fault.
pub fn peek(addr: usize) -> u8 {
    // SAFETY: a wrong address is a fault that the case expects, or its failure.
    unsafe { core::ptr::read_volatile(addr as *const u8) }
}

/// Writes a byte at an address that may fault.
pub fn poke(addr: usize, value: u8) {
    // SAFETY: as in `peek`; cases write to memory that they mapped for this.
    unsafe { core::ptr::write_volatile(addr as *mut u8, value) }
}
