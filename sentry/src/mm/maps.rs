//! The areas of an address space as `/proc/PID/maps` and `smaps` show them.

use std::sync::Arc;

use syscalls::abi::mm::ProtFlags;

use super::MemoryManager;
use super::vma::{Backing, Vma, VmaFlags};
use crate::vfs::OpenFile;

/// What the last column of `maps` says.
#[derive(Clone)]
pub enum MapName {
    /// Nothing: anonymous memory.
    None,
    /// A file; its path is for the VFS to render.
    File(Arc<OpenFile>),
    /// A fixed name with its brackets: `[heap]`, `[stack]`, `[vdso]`.
    Special(&'static str),
    /// `[anon:NAME]`, with the name that `PR_SET_VMA_ANON_NAME` gave.
    Anonymous(Arc<[u8]>),
    /// `[anon_shmem:…]` has no name here: shared anonymous memory shows as `/dev/zero (deleted)`.
    SharedAnonymous,
}

/// One line of `maps`.
#[derive(Clone)]
pub struct MapEntry {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Readable, writable, executable.
    pub prot: ProtFlags,
    /// Whether writes are seen by others.
    pub is_shared: bool,
    /// The offset into the file.
    pub offset: u64,
    /// Device and inode number of the file, zero without one.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
    /// The name.
    pub name: MapName,
    /// The two-letter flags of `smaps`' `VmFlags`.
    pub flags: Vec<&'static str>,
    /// Whether the area is locked.
    pub is_locked: bool,
}

impl MemoryManager {
    /// Returns the areas, lowest first.
    pub fn maps(&self) -> Vec<MapEntry> {
        let state = self.state.lock();
        let layout = &state.space.layout;
        state
            .space
            .tree
            .iter()
            .filter(|(_, vma)| !vma.is_hidden())
            .map(|(start, vma)| {
                let name = name(*start, vma, layout);
                entry(*start, vma, name)
            })
            .collect()
    }
}

impl MemoryManager {
    /// Describes the area that holds `addr`, for a log.
    pub(crate) fn describe(&self, addr: u64) -> String {
        let state = self.state.lock();
        let Some((start, vma)) = state.space.tree.find(addr) else { return "unmapped".into() };
        let name = match &vma.backing {
            Backing::File(file) => file.file.path.as_ref().map(|path| path.dentry.name()),
            _ => None,
        };
        let name = String::from_utf8_lossy(name.as_deref().unwrap_or_default()).into_owned();
        format!("{start:#x}-{:#x} {:?} {name}", vma.end, vma.prot)
    }
}

fn name(start: u64, vma: &Vma, layout: &super::layout::Layout) -> MapName {
    match &vma.backing {
        Backing::File(file) => MapName::File(file.file.clone()),
        Backing::Special(name) => MapName::Special(name),
        Backing::SharedAnonymous { .. } => MapName::SharedAnonymous,
        Backing::Anonymous { name: Some(name) } => MapName::Anonymous(name.clone()),
        // As Linux's `vma_is_initial_heap()` and `vma_is_initial_stack()`.
        Backing::Anonymous { .. } if start < layout.brk && vma.end > layout.start_brk => {
            MapName::Special("[heap]")
        }
        Backing::Anonymous { .. }
            if start <= layout.start_stack && vma.end >= layout.start_stack =>
        {
            MapName::Special("[stack]")
        }
        Backing::Anonymous { .. } => MapName::None,
    }
}

fn entry(start: u64, vma: &Vma, name: MapName) -> MapEntry {
    let (offset, (dev, ino)) = match &vma.backing {
        Backing::File(file) => (file.offset, file.mappable.identity()),
        Backing::SharedAnonymous { object, offset } => (*offset, (1, *object)),
        _ => (0, (0, 0)),
    };
    MapEntry {
        start,
        end: vma.end,
        prot: vma.prot,
        is_shared: vma.is_shared(),
        offset,
        dev,
        ino,
        name,
        flags: flags(vma),
        is_locked: vma.flags.contains(VmaFlags::LOCKED),
    }
}

fn flags(vma: &Vma) -> Vec<&'static str> {
    let has = |flag| vma.flags.contains(flag);
    let can = |prot| vma.prot.contains(prot);
    let may = |prot| vma.max_prot.contains(prot);
    let shared = vma.is_shared();
    [
        (can(ProtFlags::READ), "rd"),
        (can(ProtFlags::WRITE), "wr"),
        (can(ProtFlags::EXEC), "ex"),
        (shared, "sh"),
        (may(ProtFlags::READ), "mr"),
        (may(ProtFlags::WRITE), "mw"),
        (may(ProtFlags::EXEC), "me"),
        (shared, "ms"),
        (has(VmaFlags::GROWSDOWN), "gd"),
        (has(VmaFlags::LOCKED), "lo"),
        (has(VmaFlags::SEQUENTIAL), "sr"),
        (has(VmaFlags::RANDOM), "rr"),
        (has(VmaFlags::DONTFORK), "dc"),
        (has(VmaFlags::DONTEXPAND), "de"),
        (!shared && can(ProtFlags::WRITE) && !has(VmaFlags::NORESERVE), "ac"),
        (has(VmaFlags::NORESERVE), "nr"),
        (has(VmaFlags::WIPEONFORK), "wf"),
        (has(VmaFlags::DONTDUMP), "dd"),
        (has(VmaFlags::HUGEPAGE), "hg"),
        (has(VmaFlags::NOHUGEPAGE), "nh"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect()
}
