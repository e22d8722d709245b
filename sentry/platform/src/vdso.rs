//! The vDSO that applications see: an ELF shared object like Linux's, built at start-up.
//!
//! Each function either jumps to an address that is valid in every address space of the platform
//! (the host's vDSO, or the stub) or makes the system call. The host's own vDSO cannot be given to
//! applications: what it cannot answer it asks the host for, and the instruction that does so
//! cannot be patched.

mod elf;

pub use elf::Image;

/// Where the functions go. `None` makes the system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VdsoEntries {
    /// `__vdso_clock_gettime`.
    pub clock_gettime: Option<u64>,
    /// `__vdso_gettimeofday`.
    pub gettimeofday: Option<u64>,
    /// `__vdso_time`.
    pub time: Option<u64>,
    /// `__vdso_clock_getres`.
    pub clock_getres: Option<u64>,
    /// `__vdso_getcpu`.
    pub getcpu: Option<u64>,
}

impl VdsoEntries {
    /// Returns the functions of the host's vDSO for address spaces in which it lies at `base`,
    /// which are none where `base` is zero or the host has no vDSO.
    #[must_use]
    pub fn of_host(base: u64) -> Self {
        let Some(image) = Image::host().filter(|_| base != 0) else { return Self::default() };
        let find = |name| image.symbol(name).and_then(|offset| base.checked_add(offset));
        Self {
            clock_gettime: find("__vdso_clock_gettime"),
            gettimeofday: find("__vdso_gettimeofday"),
            time: find("__vdso_time"),
            clock_getres: find("__vdso_clock_getres"),
            getcpu: find("__vdso_getcpu"),
        }
    }
}

/// A function: its names (the first is the one that libraries look for), its system call, and
/// where it goes.
struct Function {
    names: [&'static str; 2],
    number: u32,
    entry: Option<u64>,
}

/// Offsets of the parts that have a fixed place; the code follows the last of them.
const N_PROGRAM_HEADERS: usize = 2;
const DYNSYM: usize = 64 + 56 * N_PROGRAM_HEADERS;
/// The null symbol, two for each function, and the version's.
const N_SYMBOLS: usize = 1 + 2 * 5 + 1;
const VERSION: &str = "LINUX_2.6";
const SONAME: &str = "linux-vdso.so.1";
/// The index of [`VERSION`] among the version definitions.
const VERSION_INDEX: u16 = 2;
/// Bytes kept for one function's code.
const CODE_SIZE: usize = 16;

/// A string table under construction.
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, name: &str) -> u32 {
        let offset = self.0.len();
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        u32::try_from(offset).unwrap_or(0)
    }
}

/// An image under construction.
#[derive(Default)]
struct Builder(Vec<u8>);

impl Builder {
    fn u16(&mut self, values: &[u16]) {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn u32(&mut self, values: &[u32]) {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn u64(&mut self, values: &[u64]) {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Fills up to a multiple of `align`; returns the offset.
    fn align(&mut self, align: usize) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        word(self.0.len())
    }
}

/// A part of the image, for the section headers.
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    range: (u64, u64),
    link: u32,
    info: u32,
    entry_size: u64,
}

fn word(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The hash function of `DT_HASH` and of version names.
fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

/// The hash function of `DT_GNU_HASH`.
fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte.into()))
}

fn functions(entries: &VdsoEntries) -> [Function; 5] {
    let function = |name, plain, number, entry| Function { names: [name, plain], number, entry };
    [
        function("__vdso_clock_gettime", "clock_gettime", 228, entries.clock_gettime),
        function("__vdso_gettimeofday", "gettimeofday", 96, entries.gettimeofday),
        function("__vdso_time", "time", 201, entries.time),
        function("__vdso_clock_getres", "clock_getres", 229, entries.clock_getres),
        function("__vdso_getcpu", "getcpu", 309, entries.getcpu),
    ]
}

/// Builds the image: a multiple of the page size, valid at any address.
#[must_use]
pub fn build(entries: &VdsoEntries) -> Vec<u8> {
    let functions = functions(entries);
    let mut strings = Strings(vec![0]);
    let mut image = Builder::default();
    image.0.resize(DYNSYM, 0);

    // Where the code will be: everything before it has a known size.
    let names: Vec<&str> = functions.iter().flat_map(|f| f.names).chain([VERSION]).collect();
    let strings_len: usize = names.iter().map(|name| name.len() + 1).sum();
    let dynstr = DYNSYM + 24 * N_SYMBOLS;
    let text = (dynstr + 1 + strings_len + SONAME.len() + 1).next_multiple_of(64);

    // .dynsym
    image.0.resize(DYNSYM + 24, 0);
    for (i, function) in functions.iter().enumerate() {
        let (strong, weak) = (0x12u32, 0x22u32); // STB_GLOBAL or STB_WEAK, STT_FUNC
        for (name, binding) in function.names.iter().zip([strong, weak]) {
            // Section 7 is .text.
            image.u32(&[strings.add(name), binding | 7 << 16]);
            image.u64(&[word(text + CODE_SIZE * i), word(CODE_SIZE)]);
        }
    }
    image.u32(&[strings.add(VERSION), 0x11 | 0xfff1 << 16]); // STB_GLOBAL, STT_OBJECT, SHN_ABS
    image.u64(&[0, 0]);
    let soname = strings.add(SONAME);
    image.0.extend_from_slice(&strings.0);
    image.0.resize(text, 0);

    // .text
    for function in &functions {
        let start = image.0.len();
        if let Some(entry) = function.entry {
            image.0.extend_from_slice(&[0x48, 0xb8]); // movabs $entry, %rax
            image.u64(&[entry]);
            image.0.extend_from_slice(&[0xff, 0xe0]); // jmp *%rax
        } else {
            image.0.push(0xb8); // mov $number, %eax
            image.u32(&[function.number]);
            image.0.extend_from_slice(&[0x0f, 0x05, 0xc3]); // syscall; ret
        }
        image.0.resize(start + CODE_SIZE, 0xcc);
    }
    let text_end = image.align(8);

    // .hash: one bucket, and each symbol leads to the next one.
    let hash = image.align(8);
    let last = u32::try_from(N_SYMBOLS - 1).unwrap_or(0);
    image.u32(&[1, last + 1, 1, 0]);
    image.u32(&(2..=last).collect::<Vec<_>>());
    image.u32(&[0]);
    // .gnu.hash: one bucket and a filter that lets everything pass.
    let gnu = image.align(8);
    image.u32(&[1, 1, 1, 0]);
    image.u64(&[u64::MAX]);
    image.u32(&[1]);
    for (i, name) in names.iter().enumerate() {
        image.u32(&[gnu_hash(name) & !1 | u32::from(i + 1 == names.len())]);
    }
    // .gnu.version
    let versym = image.align(8);
    image.u16(&[0]);
    image.u16(&[VERSION_INDEX; N_SYMBOLS - 1]);
    // .gnu.version_d: the file itself, and the one version.
    let verdef = image.align(8);
    let version_name = strings.0.windows(VERSION.len()).position(|w| w == VERSION.as_bytes());
    let version_name = u32::try_from(version_name.unwrap_or(0)).unwrap_or(0);
    for (flags, index, name, hash, next) in [
        (1, 1, soname, sysv_hash(SONAME), 28),
        (0, VERSION_INDEX, version_name, sysv_hash(VERSION), 0),
    ] {
        image.u16(&[1, flags, index, 1]);
        image.u32(&[hash, 20, next, name, 0]);
    }
    // .dynamic
    let dynamic = image.align(8);
    let (dynsym, dynstr) = (word(DYNSYM), word(dynstr));
    let strings_len = word(strings.0.len());
    for entry in [
        [14, soname.into()],
        [4, hash],
        [0x6fff_fef5, gnu],
        [5, dynstr],
        [6, dynsym],
        [10, strings_len],
        [11, 24],
        [0x6fff_fff0, versym],
        [0x6fff_fffc, verdef],
        [0x6fff_fffd, 2],
        [0, 0],
    ] {
        image.u64(&entry);
    }
    let end = image.align(8);

    let section = |name, kind, flags, range, link, info, entry_size| Section {
        name,
        kind,
        flags,
        range,
        link,
        info,
        entry_size,
    };
    let sections = [
        section(".hash", 5, 2, (hash, gnu), 3, 0, 4),
        section(".gnu.hash", 0x6fff_fff6, 2, (gnu, versym), 3, 0, 0),
        section(".dynsym", 11, 2, (dynsym, dynstr), 4, 1, 24),
        section(".dynstr", 3, 2, (dynstr, dynstr + strings_len), 0, 0, 0),
        section(".gnu.version", 0x6fff_ffff, 2, (versym, verdef), 3, 0, 2),
        section(".gnu.version_d", 0x6fff_fffd, 2, (verdef, dynamic), 4, 2, 0),
        section(".text", 1, 6, (word(text), text_end), 0, 0, 0),
        section(".dynamic", 6, 2, (dynamic, end), 4, 0, 16),
    ];
    finish(image, &sections, (dynamic, end))
}

/// Adds the section headers, fills in the ELF and program headers, and rounds up to pages.
fn finish(mut image: Builder, sections: &[Section], dynamic: (u64, u64)) -> Vec<u8> {
    let mut names = Strings(vec![0]);
    let name_offsets: Vec<u32> = sections.iter().map(|section| names.add(section.name)).collect();
    let own_name = names.add(".shstrtab");
    let names_start = image.align(8);
    image.0.extend_from_slice(&names.0);
    let headers = image.align(8);
    let align = |image: &mut Builder| image.u64(&[8]);
    image.0.resize(image.0.len() + 64, 0);
    for (section, name) in sections.iter().zip(name_offsets) {
        let (start, end) = section.range;
        image.u32(&[name, section.kind]);
        image.u64(&[section.flags, start, start, end.saturating_sub(start)]);
        image.u32(&[section.link, section.info]);
        align(&mut image);
        image.u64(&[section.entry_size]);
    }
    image.u32(&[own_name, 3]);
    image.u64(&[0, 0, names_start, word(names.0.len()), 0]);
    image.u64(&[1, 0]);
    let len = image.align(4096);

    let mut start = Builder::default();
    start.0.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    start.u16(&[3, 62]); // ET_DYN, EM_X86_64
    start.u32(&[1]);
    start.u64(&[0, 64, headers]);
    start.u32(&[0]);
    let n_sections = u16::try_from(sections.len() + 2).unwrap_or(0);
    start.u16(&[64, 56, 2, 64, n_sections, n_sections - 1]);
    start.u32(&[1, 5]); // PT_LOAD, r-x
    start.u64(&[0, 0, 0, len, len, 4096]);
    start.u32(&[2, 4]); // PT_DYNAMIC, r--
    let size = dynamic.1.saturating_sub(dynamic.0);
    start.u64(&[dynamic.0, dynamic.0, dynamic.0, size, size, 8]);
    let mut image = image.0;
    if let Some(room) = image.get_mut(..start.0.len()) {
        room.copy_from_slice(&start.0);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "__vdso_clock_gettime",
        "__vdso_gettimeofday",
        "__vdso_time",
        "__vdso_clock_getres",
        "__vdso_getcpu",
    ];

    #[test]
    fn functions_are_found_by_every_hash() {
        let bytes = build(&VdsoEntries { time: Some(0x1234_5678_9abc), ..VdsoEntries::default() });
        assert_eq!(bytes.len() % 4096, 0);
        let image = Image::new(bytes.clone());
        for name in NAMES.iter().chain(&["clock_gettime", "time"]) {
            let offset = image.symbol(name).unwrap();
            assert_eq!(image.symbol_by_hash(name), Some(offset), "{name}");
            assert_eq!(image.symbol_by_gnu_hash(name), Some(offset), "{name}");
        }
        assert_eq!(image.symbol("__vdso_nothing"), None);
        assert_eq!(image.symbol_by_hash("__vdso_nothing"), None);
        assert_eq!(image.symbol_by_gnu_hash("__vdso_nothing"), None);

        let code = |name| {
            let start = usize::try_from(image.symbol(name).unwrap()).unwrap();
            bytes[start..start + 12].to_vec()
        };
        assert_eq!(code("__vdso_getcpu")[..8], [0xb8, 0x35, 1, 0, 0, 0x0f, 5, 0xc3]);
        let jump = [0x48, 0xb8, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0xff, 0xe0];
        assert_eq!(code("time"), jump);
    }

    #[test]
    fn version_names_hash_as_linux_says() {
        // The constants that Go's runtime and Linux's parse_vdso.c look for.
        assert_eq!(sysv_hash("LINUX_2.6"), 0x03ae_75f6);
        assert_eq!(gnu_hash("__vdso_clock_gettime"), 0x6e43_a318);
    }

    #[test]
    fn the_hosts_functions_are_found() {
        let entries = VdsoEntries::of_host(0x7fff_0000_0000);
        assert!(entries.clock_gettime > Some(0x7fff_0000_0000));
        assert!(entries.getcpu.is_some());
        assert_eq!(VdsoEntries::of_host(0), VdsoEntries::default());
    }
}
