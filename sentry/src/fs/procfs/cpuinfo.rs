//! `/proc/cpuinfo`, from what the processor says of itself.

use core::arch::x86_64::{__cpuid_count, CpuidResult};
use std::fmt::Write;

/// A register of a `CPUID` leaf.
#[derive(Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// The names of the bits of a register, from bit 0 on; `-` for a bit without a name.
struct Names {
    leaf: u32,
    subleaf: u32,
    register: Register,
    names: &'static str,
}

/// The features in the order of Linux's words (`cpufeatures.h`). Those that need a permission that
/// is not given here (AMX) have no names.
const FEATURES: &[Names] = &[
    Names {
        leaf: 1,
        subleaf: 0,
        register: Register::Edx,
        names: "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush \
                - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
    },
    Names {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: Register::Edx,
        names: "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb \
                rdtscp - lm 3dnowext 3dnow",
    },
    Names {
        leaf: 0x8000_0007,
        subleaf: 0,
        register: Register::Edx,
        names: "- - - - - - - - constant_tsc",
    },
    Names {
        leaf: 1,
        subleaf: 0,
        register: Register::Ecx,
        names: "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm \
                - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c \
                rdrand hypervisor",
    },
    Names {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: Register::Ecx,
        names: "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw \
                ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb \
                - bpext ptsc perfctr_llc mwaitx",
    },
    Names {
        leaf: 7,
        subleaf: 0,
        register: Register::Ebx,
        names: "fsgsbase tsc_adjust - bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a \
                avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf \
                avx512er avx512cd sha_ni avx512bw avx512vl",
    },
    Names {
        leaf: 0xd,
        subleaf: 1,
        register: Register::Eax,
        names: "xsaveopt xsavec xgetbv1 xsaves",
    },
    Names { leaf: 7, subleaf: 1, register: Register::Eax, names: "- - - - avx_vnni avx512_bf16" },
    Names { leaf: 6, subleaf: 0, register: Register::Eax, names: "- - arat" },
    Names {
        leaf: 0x8000_0008,
        subleaf: 0,
        register: Register::Ebx,
        names: "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd",
    },
    Names {
        leaf: 7,
        subleaf: 0,
        register: Register::Ecx,
        names: "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni \
                avx512_bitalg tme avx512_vpopcntdq - - - - - - - rdpid - bus_lock_detect cldemote \
                - movdiri movdir64b enqcmd",
    },
    Names {
        leaf: 7,
        subleaf: 0,
        register: Register::Edx,
        names: "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - \
                serialize - tsxldtrk - pconfig arch_lbr ibt - - avx512_fp16 - - - - flush_l1d \
                arch_capabilities",
    },
];

fn leaf(number: u32, subleaf: u32) -> CpuidResult {
    let highest = __cpuid_count(number & 0x8000_0000, 0).eax;
    if number > highest {
        return CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    }
    __cpuid_count(number, subleaf)
}

fn flags() -> String {
    let mut out = String::new();
    for Names { leaf: number, subleaf, register, names } in FEATURES {
        let result = leaf(*number, *subleaf);
        let bits = match register {
            Register::Eax => result.eax,
            Register::Ebx => result.ebx,
            Register::Ecx => result.ecx,
            Register::Edx => result.edx,
        };
        for (bit, name) in names.split_whitespace().enumerate() {
            if name != "-"
                && bits.checked_shr(u32::try_from(bit).unwrap_or(32)).unwrap_or(0) & 1 != 0
            {
                let _ = write!(out, "{name} ");
            }
        }
        if *number == 0x8000_0007 {
            out.push_str("rep_good nopl ");
            if leaf(0xb, 0).ebx != 0 {
                out.push_str("xtopology ");
            }
            if result.edx & (1 << 8) != 0 {
                out.push_str("nonstop_tsc ");
            }
            out.push_str("cpuid ");
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Returns the bytes of registers as text, without what follows a NUL.
fn text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers
        .iter()
        .flat_map(|register| register.to_le_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn brand() -> String {
    let parts: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .map(|number| leaf(number, 0))
        .flat_map(|part| [part.eax, part.ebx, part.ecx, part.edx])
        .collect();
    let name = text(&parts);
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Returns the frequency in kilohertz, from the leaves that say it.
fn frequency_khz() -> u64 {
    let tsc = leaf(0x15, 0);
    if tsc.eax != 0 && tsc.ebx != 0 && tsc.ecx != 0 {
        return u64::from(tsc.ecx) * u64::from(tsc.ebx) / u64::from(tsc.eax) / 1000;
    }
    let base_mhz = leaf(0x16, 0).eax & 0xffff;
    if base_mhz != 0 {
        return u64::from(base_mhz) * 1000;
    }
    // Where a hypervisor says it: the leaf that several of them share.
    let hypervisor = __cpuid_count(0x4000_0000, 0).eax;
    let has_hypervisor = leaf(1, 0).ecx >> 31 != 0;
    if has_hypervisor && (0x4000_0010..0x4000_0100).contains(&hypervisor) {
        return u64::from(__cpuid_count(0x4000_0010, 0).eax);
    }
    0
}

/// Returns the size of the last cache in kibibytes.
fn cache_kib() -> u64 {
    let is_amd = text(&[leaf(0, 0).ebx, leaf(0, 0).edx, leaf(0, 0).ecx]) == "AuthenticAMD";
    let number = if is_amd { 0x8000_001d } else { 4 };
    let mut last = 0;
    for index in 0..16 {
        let cache = leaf(number, index);
        if cache.eax & 0x1f == 0 {
            break;
        }
        let ways = u64::from(cache.ebx >> 22) + 1;
        let partitions = u64::from((cache.ebx >> 12) & 0x3ff) + 1;
        let line = u64::from(cache.ebx & 0xfff) + 1;
        let sets = u64::from(cache.ecx) + 1;
        last = ways * partitions * line * sets / 1024;
    }
    last
}

/// Returns the file for `n_cpus` processors of one package, whose frequency has been `measured`
/// where they do not say it.
pub(super) fn render(n_cpus: usize, measured_khz: u64) -> String {
    let first = leaf(0, 0);
    let signature = leaf(1, 0);
    let base_family = (signature.eax >> 8) & 0xf;
    let family = base_family + if base_family == 0xf { (signature.eax >> 20) & 0xff } else { 0 };
    let extended = if matches!(base_family, 6 | 0xf) { (signature.eax >> 12) & 0xf0 } else { 0 };
    let model = ((signature.eax >> 4) & 0xf) | extended;
    let khz = match frequency_khz() {
        0 => measured_khz,
        khz => khz,
    };
    let sizes = leaf(0x8000_0008, 0).eax;
    let clflush = ((signature.ebx >> 8) & 0xff) * 8;
    let (vendor, brand, flags) = (text(&[first.ebx, first.edx, first.ecx]), brand(), flags());
    let cache = cache_kib();
    let mut out = String::new();
    for cpu in 0..n_cpus {
        let _ = writeln!(out, "processor\t: {cpu}");
        let _ = writeln!(out, "vendor_id\t: {vendor}");
        let _ = writeln!(out, "cpu family\t: {family}");
        let _ = writeln!(out, "model\t\t: {model}");
        let _ = writeln!(out, "model name\t: {brand}");
        let _ = writeln!(out, "stepping\t: {}", signature.eax & 0xf);
        let _ = writeln!(out, "microcode\t: 0x1");
        let _ = writeln!(out, "cpu MHz\t\t: {}.{:03}", khz / 1000, khz % 1000);
        let _ = writeln!(out, "cache size\t: {cache} KB");
        let _ = writeln!(out, "physical id\t: 0\nsiblings\t: {n_cpus}\ncore id\t\t: {cpu}");
        let _ = writeln!(out, "cpu cores\t: {n_cpus}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}");
        let _ = writeln!(out, "fpu\t\t: yes\nfpu_exception\t: yes");
        let _ = writeln!(out, "cpuid level\t: {}\nwp\t\t: yes", first.eax);
        let _ = writeln!(out, "flags\t\t: {flags}\nbugs\t\t:");
        let _ = writeln!(out, "bogomips\t: {}.{:02}", khz * 2 / 1000, khz * 2 / 10 % 100);
        let _ = writeln!(out, "clflush size\t: {clflush}\ncache_alignment\t: {clflush}");
        let (physical, linear) = (sizes & 0xff, (sizes >> 8) & 0xff);
        let _ = writeln!(out, "address sizes\t: {physical} bits physical, {linear} bits virtual");
        out.push_str("power management:\n\n");
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_processor_has_a_paragraph() {
        let text = super::render(3, 2_000_000);
        assert_eq!(text.matches("processor\t: ").count(), 3);
        assert!(text.contains(" sse2 ") && text.contains("\nflags\t\t: fpu "));
        assert!(!text.contains(": 0.000"));
        assert!(text.ends_with("power management:\n\n"));
    }
}
