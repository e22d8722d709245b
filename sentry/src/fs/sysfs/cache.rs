//! `/sys/devices/system/cpu/cpuN/cache`: the caches that the processor says it has.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use super::{all, fixed};
use crate::fs::procfs::cpus;
use crate::fs::pseudo::{Named, Numbers};

/// The leaves of `CPUID` that list caches, one in each subleaf: AMD's, and Intel's with the same fields.
const LEAVES: [(u32, u32); 2] = [(0x8000_0000, 0x8000_001d), (0, 4)];

/// No processor has more.
const MAX_CACHES: u32 = 8;

/// What a processor says of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cache {
    kind: &'static str,
    level: u32,
    line: u64,
    partitions: u64,
    ways: u64,
    sets: u64,
}

impl Cache {
    /// Decodes a subleaf; `None` for the one behind the last cache.
    fn decode(words: CpuidResult) -> Option<Self> {
        let kind = match words.eax & 0x1f {
            1 => "Data",
            2 => "Instruction",
            3 => "Unified",
            _ => return None,
        };
        let field = |shift: u32, mask: u32| u64::from(words.ebx >> shift & mask) + 1;
        Some(Self {
            kind,
            level: words.eax >> 5 & 7,
            line: field(0, 0xfff),
            partitions: field(12, 0x3ff),
            ways: field(22, 0x3ff),
            sets: u64::from(words.ecx) + 1,
        })
    }

    fn kib(&self) -> u64 {
        let line = self.line * self.partitions * self.ways;
        line.saturating_mul(self.sets) / 1024
    }
}

fn caches() -> Vec<Cache> {
    let has = |&(base, leaf): &(u32, u32)| __cpuid_count(base, 0).eax >= leaf;
    let mut listed = LEAVES.iter().filter(|leaf| has(leaf)).map(|&(_, leaf)| {
        (0..MAX_CACHES).map_while(|index| Cache::decode(__cpuid_count(leaf, index))).collect()
    });
    listed.find(|caches: &Vec<Cache>| !caches.is_empty()).unwrap_or_default()
}

/// Makes the directory of a processor, which is a core of its own: it shares what is beyond the second level.
pub(super) fn dir(numbers: &Numbers, cpu: usize, n_cpus: usize) -> Named {
    let entries = caches().into_iter().enumerate().map(|(index, cache)| {
        let sharers = if cache.level > 2 { all(n_cpus) } else { vec![cpu] };
        let id = if cache.level > 2 { 0 } else { cpu };
        let line = |value: &dyn std::fmt::Display| format!("{value}\n");
        let files = fixed(
            numbers,
            &[
                ("coherency_line_size", &line(&cache.line)),
                ("id", &line(&id)),
                ("level", &line(&cache.level)),
                ("number_of_sets", &line(&cache.sets)),
                ("physical_line_partition", &line(&cache.partitions)),
                ("shared_cpu_list", &line(&cpus::list(&sharers))),
                ("shared_cpu_map", &line(&cpus::mask(&sharers, n_cpus))),
                ("size", &format!("{}K\n", cache.kib())),
                ("type", &line(&cache.kind)),
                ("ways_of_associativity", &line(&cache.ways)),
            ],
        );
        numbers.named_dir(&format!("index{index}"), files)
    });
    numbers.named_dir("cache", entries.collect())
}

#[cfg(test)]
mod tests {
    use super::{Cache, CpuidResult};

    #[test]
    fn a_cache_is_as_the_processor_says() {
        let words = CpuidResult { eax: 0x0400_0121, ebx: 0x02c0_003f, ecx: 63, edx: 0 };
        let cache = Cache::decode(words).unwrap();
        let known = Cache { kind: "Data", level: 1, line: 64, partitions: 1, ways: 12, sets: 64 };
        assert_eq!(cache, known);
        assert_eq!(cache.kib(), 48);
        assert_eq!(Cache::decode(CpuidResult { eax: 0, ..words }), None);
        let most = CpuidResult { eax: !0x1c, ebx: !0, ecx: !0, edx: !0 };
        // All of its bytes are one more than can be counted.
        assert_eq!(Cache::decode(most).unwrap().kib(), (1 << 54) - 1);
    }
}
