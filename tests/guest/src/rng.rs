//! Random numbers that a seed repeats: what the fuzzers choose by.

use std::fmt::Write;

use crate::{SysResult, fs};

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Returns the generator of a seed.
    pub fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        rng.bits();
        rng
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound.max(1) as u64) as usize
    }

    /// Returns a number at which arithmetic ends: of a type, of pages, of the address space, or next to it.
    pub fn extreme(&mut self) -> u64 {
        let edge = self.pick(&[
            0,
            1 << 12,
            1 << 16,
            i32::MAX as u64,
            u32::MAX as u64,
            (i32::MIN as i64) as u64,
            i64::MAX as u64,
            i64::MAX as u64 - 4095,
            u64::MAX - 4095,
            0x7e00_0000_0000,
            0x7fff_ffff_f000,
            0x8000_0000_0000,
            1 << 44,
            1 << 52,
            999_999_999,
            1_000_000_000,
        ]);
        let near = self.pick(&[0, 0, 1, 1, 2, 7, 8, 4095, 4096]);
        if self.one_in(2) { edge.wrapping_add(near) } else { edge.wrapping_sub(near) }
    }

    /// Returns true once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns one of the given values.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A running hash of results (FNV-1a): two runs that agree print the same.
#[derive(Debug, Clone)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Returns the hash so far.
    pub fn value(&self) -> u64 {
        self.0
    }
}

/// The results of a random run so far, of which two runs that differ show where.
#[derive(Debug)]
pub struct Log {
    /// Of all results.
    pub digest: Digest,
    /// What the next line will say in words.
    pub recent: String,
    steps: usize,
    /// How many steps make a line.
    line: usize,
}

impl Log {
    /// Returns whether each step makes a line.
    pub fn is_verbose(&self) -> bool {
        self.line == 1
    }

    /// Returns an empty log; `verbose` for a line at each step.
    pub fn new(verbose: bool) -> Log {
        let line = if verbose { 1 } else { 25 };
        Log { digest: Digest::default(), recent: String::new(), steps: 0, line }
    }

    /// Notes what a call has returned.
    pub fn result(&mut self, what: &str, result: SysResult) {
        let text = match result {
            Ok(value) => format!("{what}={value}"),
            Err(errno) => format!("{what}={}", crate::errno::name(errno)),
        };
        self.digest.bytes(text.as_bytes());
        let _ = write!(self.recent, " {text}");
    }

    /// Notes bytes that a call has brought.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut own = Digest::default();
        own.bytes(bytes);
        self.digest.bytes(bytes);
        let _ = write!(self.recent, " [{}:{:x}]", bytes.len(), own.value() & 0xffff);
    }

    /// Ends a step, and prints a line where one is full.
    pub fn step(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(self.line) {
            let line = format!("{} {:016x}{}\n", self.steps, self.digest.value(), self.recent);
            let _ = fs::write_all(1, line.as_bytes());
            self.recent.clear();
        }
    }

    /// Prints the digest of everything.
    pub fn end(&self) {
        let line = format!("end {:016x}\n", self.digest.value());
        let _ = fs::write_all(1, line.as_bytes());
    }
}
