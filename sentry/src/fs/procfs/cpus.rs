//! Sets of processors as Linux writes them.

use std::fmt::Write;

/// Renders a set as `%*pb`: hexadecimal words of 32 bits, the highest first.
pub(crate) fn mask(cpus: &[usize], n_cpus: usize) -> String {
    let mut words = vec![0u32; n_cpus.div_ceil(32).max(1)];
    for cpu in cpus {
        if let Some(word) = words.get_mut(cpu / 32) {
            *word |= 1 << (cpu % 32);
        }
    }
    let mut out = String::new();
    for (index, word) in words.iter().rev().enumerate() {
        let digits = match (index, n_cpus % 32) {
            (0, bits) if bits != 0 => bits.div_ceil(4),
            _ => 8,
        };
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{word:0digits$x}");
    }
    out
}

/// Renders an ascending set as `%*pbl`: `0-3,5`.
pub(crate) fn list(cpus: &[usize]) -> String {
    let mut out = String::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(cpu, expected)| *cpu == expected).count();
        let comma = if out.is_empty() { "" } else { "," };
        let _ = match run {
            1 => write!(out, "{comma}{first}"),
            _ => write!(out, "{comma}{first}-{}", first + run - 1),
        };
        rest = rest.get(run..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{list, mask};

    #[test]
    fn sets_are_masks_and_ranges() {
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(list(&[]), "");
        assert_eq!(mask(&[0, 1], 2), "3");
        assert_eq!(mask(&[0, 33], 36), "2,00000001");
    }
}
