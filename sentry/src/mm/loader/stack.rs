//! The first stack of a program: strings, pointers to them, the auxiliary vector
//! (`create_elf_tables()` of Linux's `fs/binfmt_elf.c`).

use sentry_host::auxv::{self, Entry};
use syscalls::abi::elf as at;
use syscalls::abi::mm::PAGE_SIZE;
use syscalls::{Errno, SysResult};

use crate::mm::layout::Layout;

/// `AT_PLATFORM`
const PLATFORM: &[u8] = b"x86_64\0";

/// `AT_CLKTCK`: `USER_HZ`.
const CLOCK_TICKS: u64 = 100;

/// What the auxiliary vector says of this program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// `AT_SYSINFO_EHDR`
    pub(crate) vdso: Option<u64>,
    /// `AT_PHDR`
    pub(crate) phdr: u64,
    /// `AT_PHNUM`
    pub(crate) phnum: u64,
    /// `AT_BASE`
    pub(crate) base: u64,
    /// `AT_ENTRY`
    pub(crate) entry: u64,
    /// `AT_UID`, `AT_EUID`, `AT_GID`, `AT_EGID`
    pub(crate) ids: [u32; 4],
    /// `AT_SECURE`
    pub(crate) is_secure: bool,
}

/// What stands on the stack.
pub(crate) struct StackContent<'a> {
    /// Arguments, without terminators.
    pub(crate) argv: &'a [Vec<u8>],
    /// Environment, without terminators.
    pub(crate) envp: &'a [Vec<u8>],
    /// `AT_EXECFN`
    pub(crate) execfn: &'a [u8],
    /// `AT_RANDOM`
    pub(crate) random: [u8; 16],
    /// The auxiliary vector.
    pub(crate) auxv: Facts,
}

/// The finished stack.
pub(crate) struct StackImage {
    /// The stack pointer: the address of `bytes`.
    pub(crate) sp: u64,
    /// Everything from the stack pointer to the top.
    pub(crate) bytes: Vec<u8>,
    arg_start: u64,
    arg_end: u64,
    env_end: u64,
    auxv: Vec<(u64, u64)>,
}

impl StackImage {
    /// Stores where things are.
    pub(crate) fn describe(&self, layout: &mut Layout) {
        layout.start_stack = self.sp;
        layout.arg_start = self.arg_start;
        layout.arg_end = self.arg_end;
        layout.env_start = self.arg_end;
        layout.env_end = self.env_end;
        layout.auxv.clone_from(&self.auxv);
    }
}

/// Lays out a stack that ends at `top`; `sub_page` moves the pointers by up to two pages.
///
/// # Errors
/// `E2BIG` where the addresses would leave the address space.
pub(crate) fn build(content: &StackContent<'_>, top: u64, sub_page: u64) -> SysResult<StackImage> {
    let strings: usize = content.argv.iter().chain(content.envp).map(|text| text.len() + 1).sum();
    let strings_len = strings as u64 + content.execfn.len() as u64 + 1 + 8;
    let arg_start = top.checked_sub(strings_len).ok_or(Errno::E2BIG)?;

    let mut tail = Vec::with_capacity(strings + content.execfn.len() + 64);
    let mut pointers = Vec::with_capacity(content.argv.len() + content.envp.len());
    let mut arg_end = arg_start;
    for (index, text) in content.argv.iter().chain(content.envp).enumerate() {
        pointers.push(arg_start + tail.len() as u64);
        tail.extend_from_slice(text);
        tail.push(0);
        if index + 1 == content.argv.len() {
            arg_end = arg_start + tail.len() as u64;
        }
    }
    let env_end = arg_start + tail.len() as u64;
    let execfn = env_end;
    tail.extend_from_slice(content.execfn);
    tail.resize(tail.len() + 1 + 8, 0);

    let moved = arg_start.checked_sub(sub_page % (2 * PAGE_SIZE)).ok_or(Errno::E2BIG)? & !15;
    let platform = moved.checked_sub(PLATFORM.len() as u64).ok_or(Errno::E2BIG)?;
    let random = platform.checked_sub(16).ok_or(Errno::E2BIG)?;
    let auxv = auxiliary_vector(&content.auxv, random, execfn, platform);

    let n_words = 1 + pointers.len() as u64 + 2 + 2 * auxv.len() as u64;
    let sp = random.checked_sub(n_words * 8).ok_or(Errno::E2BIG)? & !15;
    let mut bytes = Vec::with_capacity(usize::try_from(top - sp).map_err(|_| Errno::E2BIG)?);
    let mut word = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    word(content.argv.len() as u64);
    let (args, env) = pointers.split_at(content.argv.len());
    args.iter().for_each(|pointer| word(*pointer));
    word(0);
    env.iter().for_each(|pointer| word(*pointer));
    word(0);
    for (kind, value) in &auxv {
        word(*kind);
        word(*value);
    }
    let fill = |bytes: &mut Vec<u8>, addr: u64| {
        bytes.resize(usize::try_from(addr - sp).unwrap_or(bytes.len()), 0);
    };
    fill(&mut bytes, random);
    bytes.extend_from_slice(&content.random);
    bytes.extend_from_slice(PLATFORM);
    fill(&mut bytes, arg_start);
    bytes.extend_from_slice(&tail);
    Ok(StackImage { sp, bytes, arg_start, arg_end, env_end, auxv })
}

/// Returns the auxiliary vector in Linux's order.
fn auxiliary_vector(facts: &Facts, random: u64, execfn: u64, platform: u64) -> Vec<(u64, u64)> {
    let [uid, euid, gid, egid] = facts.ids.map(u64::from);
    let entries = [
        (at::AT_SYSINFO_EHDR, facts.vdso),
        (at::AT_MINSIGSTKSZ, auxv::get(Entry::MinSigStackSize)),
        (at::AT_HWCAP, Some(auxv::get(Entry::Hwcap).unwrap_or(0))),
        (at::AT_PAGESZ, Some(PAGE_SIZE)),
        (at::AT_CLKTCK, Some(CLOCK_TICKS)),
        (at::AT_PHDR, Some(facts.phdr)),
        (at::AT_PHENT, Some(size_of::<at::Phdr>() as u64)),
        (at::AT_PHNUM, Some(facts.phnum)),
        (at::AT_BASE, Some(facts.base)),
        (at::AT_FLAGS, Some(0)),
        (at::AT_ENTRY, Some(facts.entry)),
        (at::AT_UID, Some(uid)),
        (at::AT_EUID, Some(euid)),
        (at::AT_GID, Some(gid)),
        (at::AT_EGID, Some(egid)),
        (at::AT_SECURE, Some(facts.is_secure.into())),
        (at::AT_RANDOM, Some(random)),
        (at::AT_HWCAP2, Some(auxv::get(Entry::Hwcap2).unwrap_or(0))),
        (at::AT_EXECFN, Some(execfn)),
        (at::AT_PLATFORM, Some(platform)),
        (at::AT_RSEQ_FEATURE_SIZE, auxv::get(Entry::RseqFeatureSize)),
        (at::AT_RSEQ_ALIGN, auxv::get(Entry::RseqAlign)),
        (at::AT_NULL, Some(0)),
    ];
    entries.into_iter().filter_map(|(kind, value)| Some((kind, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(image: &StackImage, addr: u64) -> u64 {
        let at = usize::try_from(addr - image.sp).unwrap();
        u64::from_le_bytes(image.bytes[at..at + 8].try_into().unwrap())
    }

    fn text(image: &StackImage, addr: u64) -> &[u8] {
        let at = usize::try_from(addr - image.sp).unwrap();
        image.bytes[at..].split(|byte| *byte == 0).next().unwrap()
    }

    #[test]
    fn stack_holds_arguments_environment_and_vector() {
        const TOP: u64 = 0x7000_0000_0000;
        let argv = [b"prog".to_vec(), Vec::new(), b"two words".to_vec()];
        let envp = [b"A=1".to_vec()];
        for sub_page in [0, 1, 4095, 8191] {
            let content = StackContent {
                argv: &argv,
                envp: &envp,
                execfn: b"/bin/prog",
                random: [7; 16],
                auxv: Facts { phdr: 0x40_0040, is_secure: true, ..Facts::default() },
            };
            let image = build(&content, TOP, sub_page).unwrap();
            assert_eq!(image.sp % 16, 0);
            assert_eq!(image.sp + image.bytes.len() as u64, TOP);
            assert_eq!(word(&image, image.sp), 3);
            for (index, arg) in argv.iter().enumerate() {
                let pointer = word(&image, image.sp + 8 + 8 * index as u64);
                assert_eq!(text(&image, pointer), arg);
            }
            assert_eq!(word(&image, image.sp + 32), 0);
            assert_eq!(text(&image, word(&image, image.sp + 40)), b"A=1");
            assert_eq!(word(&image, image.sp + 48), 0);
            let mut at = image.sp + 56;
            let mut vector = std::collections::BTreeMap::new();
            while word(&image, at) != 0 {
                vector.insert(word(&image, at), word(&image, at + 8));
                at += 16;
            }
            assert_eq!(text(&image, vector[&at::AT_EXECFN]), b"/bin/prog");
            assert_eq!(text(&image, vector[&at::AT_PLATFORM]), b"x86_64");
            assert_eq!(vector[&at::AT_SECURE], 1);
            assert_eq!(word(&image, vector[&at::AT_RANDOM]), 0x0707_0707_0707_0707);
            assert_eq!(word(&image, TOP - 8), 0);
        }
    }
}
