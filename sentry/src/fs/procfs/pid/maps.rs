//! `maps`, `smaps` and `smaps_rollup`.
//!
//! How many pages of an area are resident is asked of the host for the address space as a whole, by
//! kind of memory: `smaps` attributes what is resident of a kind to its areas from the lowest on.

use syscalls::SysResult;
use syscalls::abi::fs::{major, minor};
use syscalls::abi::mm::ProtFlags;

use super::{Look, shown_path};
use crate::mm::maps::{MapEntry, MapName};
use crate::task::CurrentTask;

/// The column in which the name of an area stands.
const NAME_COLUMN: usize = 73;

fn push_line(out: &mut Vec<u8>, current: &CurrentTask, entry: &MapEntry) {
    let start = out.len();
    let flag = |prot, letter| if entry.prot.contains(prot) { letter } else { '-' };
    let text = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        entry.start,
        entry.end,
        flag(ProtFlags::READ, 'r'),
        flag(ProtFlags::WRITE, 'w'),
        flag(ProtFlags::EXEC, 'x'),
        if entry.is_shared { 's' } else { 'p' },
        entry.offset,
        major(entry.dev),
        minor(entry.dev),
        entry.ino,
    );
    out.extend_from_slice(text.as_bytes());
    let name = match &entry.name {
        MapName::None => None,
        MapName::Special(name) => Some(name.as_bytes().to_vec()),
        MapName::Anonymous(name) => Some([b"[anon:", &name[..], b"]"].concat()),
        MapName::SharedAnonymous => Some(b"/dev/zero (deleted)".to_vec()),
        MapName::File(file) => Some(match &file.path {
            Some(path) => shown_path(current, path),
            None => file.file.anonymous_name().into_bytes(),
        }),
    };
    if let Some(name) = name {
        let width = (out.len() - start).max(NAME_COLUMN);
        out.resize(start + width, b' ');
        for byte in name {
            match byte {
                b'\n' => out.extend_from_slice(b"\\012"),
                _ => out.push(byte),
            }
        }
    }
    out.push(b'\n');
}

fn entries(look: &Look<'_>) -> Vec<MapEntry> {
    look.mm().map(|mm| mm.maps()).unwrap_or_default()
}

pub(super) fn maps(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let mut out = Vec::new();
    for entry in entries(look) {
        push_line(&mut out, look.current, &entry);
    }
    Ok(out)
}

/// Sizes in kibibytes.
#[derive(Clone, Copy, Default)]
struct Sizes {
    resident: u64,
    file: u64,
    anonymous: u64,
    shared: u64,
    locked: u64,
}

impl Sizes {
    /// Takes what is resident of an area out of what is left.
    fn of(entry: &MapEntry, left: &mut Resident) -> Self {
        let mut room = entry.end.saturating_sub(entry.start) / 1024;
        if entry.prot.is_empty() {
            room = 0;
        }
        // What is locked is there, whatever the host has counted so far.
        let is_whole = entry.is_locked;
        let mut take = |left: &mut u64, wanted: bool| {
            let most = if is_whole { room } else { room.min(*left) };
            let taken = if wanted { most } else { 0 };
            *left = left.saturating_sub(taken);
            room -= taken;
            taken
        };
        let is_file = matches!(entry.name, MapName::File(_));
        // What a file's area shows may be shared memory: files of a `tmpfs` or an overlay are.
        let file = take(&mut left.file, is_file);
        let shared = take(&mut left.shared, is_file || entry.is_shared);
        let anonymous = take(&mut left.anonymous, !is_file && !entry.is_shared);
        let resident = file + shared + anonymous;
        Self {
            resident,
            file,
            anonymous,
            shared,
            locked: if entry.is_locked { resident } else { 0 },
        }
    }

    fn add(&mut self, other: Self) {
        self.resident += other.resident;
        self.file += other.file;
        self.anonymous += other.anonymous;
        self.shared += other.shared;
        self.locked += other.locked;
    }

    fn lines(&self, is_rollup: bool) -> String {
        let line = |name: &str, value: u64| format!("{:<16}{value:>8} kB\n", format!("{name}:"));
        let mut out = line("Rss", self.resident) + &line("Pss", self.resident);
        out += &line("Pss_Dirty", self.anonymous);
        if is_rollup {
            out += &line("Pss_Anon", self.anonymous);
            out += &line("Pss_File", self.file);
            out += &line("Pss_Shmem", self.shared);
        }
        for (name, value) in [
            ("Shared_Clean", 0),
            ("Shared_Dirty", 0),
            ("Private_Clean", self.file),
            ("Private_Dirty", self.anonymous + self.shared),
            ("Referenced", self.resident),
            ("Anonymous", self.anonymous),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ] {
            out += &line(name, value);
        }
        out
    }
}

/// What is resident and not attributed to an area yet, in kibibytes.
struct Resident {
    anonymous: u64,
    file: u64,
    shared: u64,
}

impl Resident {
    fn of(look: &Look<'_>) -> Self {
        let resident = look.mm().map(|mm| mm.usage().resident).unwrap_or_default();
        Self {
            anonymous: resident.anonymous / 1024,
            file: resident.file / 1024,
            shared: resident.shared / 1024,
        }
    }
}

pub(super) fn smaps(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let mut out = Vec::new();
    let mut left = Resident::of(look);
    for entry in entries(look) {
        push_line(&mut out, look.current, &entry);
        let size = entry.end.saturating_sub(entry.start) / 1024;
        let sizes = Sizes::of(&entry, &mut left);
        let mut flags = String::new();
        for flag in &entry.flags {
            flags.push_str(flag);
            flags.push(' ');
        }
        let text = format!(
            "{:<16}{size:>8} kB\n{:<16}{:>8} kB\n{:<16}{:>8} kB\n{}{:<16}{:>8}\nVmFlags: {flags}\n",
            "Size:",
            "KernelPageSize:",
            4,
            "MMUPageSize:",
            4,
            sizes.lines(false),
            "THPeligible:",
            0,
        );
        out.extend_from_slice(text.as_bytes());
    }
    Ok(out)
}

pub(super) fn smaps_rollup(look: &Look<'_>) -> SysResult<Vec<u8>> {
    let entries = entries(look);
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(Vec::new());
    };
    let mut left = Resident::of(look);
    let mut sum = Sizes::default();
    for entry in &entries {
        sum.add(Sizes::of(entry, &mut left));
    }
    let head = format!("{:08x}-{:08x} ---p 00000000 00:00 0 ", first.start, last.end);
    Ok(format!("{head:<NAME_COLUMN$}[rollup]\n{}", sum.lines(true)).into_bytes())
}
