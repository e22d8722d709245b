//! `PROCMAP_QUERY`: one area of `maps`, asked for by its address (`linux/fs.h`).

use syscalls::abi::fs::{major, minor};
use syscalls::abi::mm::{PAGE_SIZE, ProtFlags};
use syscalls::abi::procmap::{
    COVERING_OR_NEXT_VMA, FILE_BACKED_VMA, KNOWN_FLAGS, PROCMAP_QUERY_MIN_LEN, ProcmapQuery,
    VMA_EXECUTABLE, VMA_READABLE, VMA_SHARED, VMA_WRITABLE,
};
use syscalls::{Errno, SysResult, UserAddr, UserPtr};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Look, shown_path};
use crate::mm::MemoryManager;
use crate::mm::maps::{MapEntry, MapName};
use crate::task::HandlerResult;

const ALL_PERMISSIONS: u64 = VMA_READABLE | VMA_WRITABLE | VMA_EXECUTABLE | VMA_SHARED;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// The most bytes of a build id.
const MAX_BUILD_ID: usize = 20;

/// Answers a query.
pub(super) fn query(look: &Look<'_>, arg: u64) -> HandlerResult {
    let mut query = read_query(look, UserAddr(arg))?;
    if query.query_flags & !KNOWN_FLAGS != 0
        || (query.vma_name_size != 0) != (query.vma_name_addr != 0)
        || (query.build_id_size != 0) != (query.build_id_addr != 0)
    {
        return Err(Errno::EINVAL.into());
    }
    let mm = look.mm().ok_or(Errno::ESRCH)?;
    let maps = mm.maps();
    let entry = find(&maps, &query).ok_or(Errno::ENOENT)?;
    query.vma_start = entry.start;
    query.vma_end = entry.end;
    query.vma_flags = permissions(entry);
    query.vma_page_size = PAGE_SIZE;
    query.vma_offset = entry.offset;
    query.inode = entry.ino;
    query.dev_major = major(entry.dev);
    query.dev_minor = minor(entry.dev);
    if query.build_id_size != 0 {
        let id = build_id(&mm, &maps, entry).unwrap_or_default();
        query.build_id_size = put(look, query.build_id_addr, query.build_id_size, &id)?;
    }
    if query.vma_name_size != 0 {
        let mut name = name(look, entry);
        if !name.is_empty() {
            name.push(0);
        }
        query.vma_name_size = put(look, query.vma_name_addr, query.vma_name_size, &name)?;
    }
    let len = usize::try_from(query.size).unwrap_or(0).min(size_of::<ProcmapQuery>());
    look.current.write_bytes(UserAddr(arg), query.as_bytes().get(..len).unwrap_or_default())?;
    Ok(0)
}

fn read_query(look: &Look<'_>, from: UserAddr) -> SysResult<ProcmapQuery> {
    let size: u64 = look.current.read_obj(UserPtr::new(from))?;
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < PROCMAP_QUERY_MIN_LEN {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| Errno::E2BIG)?];
    look.current.read_bytes(from, &mut bytes)?;
    let known = size_of::<ProcmapQuery>();
    if bytes.get(known..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
        return Err(Errno::E2BIG);
    }
    bytes.resize(known, 0);
    let query = ProcmapQuery::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    // What has been read is what counts.
    Ok(ProcmapQuery { size, ..query })
}

fn find<'a>(maps: &'a [MapEntry], query: &ProcmapQuery) -> Option<&'a MapEntry> {
    let wanted = query.query_flags & ALL_PERMISSIONS;
    let goes_on = query.query_flags & COVERING_OR_NEXT_VMA != 0;
    let must_be_file = query.query_flags & FILE_BACKED_VMA != 0;
    let fits = |entry: &MapEntry| {
        let is_file = matches!(entry.name, MapName::File(_) | MapName::SharedAnonymous);
        permissions(entry) & wanted == wanted && (is_file || !must_be_file)
    };
    let mut from = maps.iter().skip_while(|entry| entry.end <= query.query_addr);
    if goes_on {
        return from.find(|entry| fits(entry));
    }
    from.next().filter(|entry| entry.start <= query.query_addr && fits(entry))
}

fn permissions(entry: &MapEntry) -> u64 {
    let has = |prot| entry.prot.contains(prot);
    [
        (has(ProtFlags::READ), VMA_READABLE),
        (has(ProtFlags::WRITE), VMA_WRITABLE),
        (has(ProtFlags::EXEC), VMA_EXECUTABLE),
        (entry.is_shared, VMA_SHARED),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// Stores a result of variable length; returns its length.
///
/// # Errors
/// `ENAMETOOLONG` where it does not fit.
fn put(look: &Look<'_>, to: u64, room: u32, bytes: &[u8]) -> SysResult<u32> {
    let len = u32::try_from(bytes.len()).map_err(|_| Errno::ENAMETOOLONG)?;
    if len > room {
        return Err(Errno::ENAMETOOLONG);
    }
    look.current.write_bytes(UserAddr(to), bytes)?;
    Ok(len)
}

fn name(look: &Look<'_>, entry: &MapEntry) -> Vec<u8> {
    match &entry.name {
        MapName::None => Vec::new(),
        MapName::Special(name) => name.as_bytes().to_vec(),
        MapName::Anonymous(name) => [b"[anon:", &name[..], b"]"].concat(),
        MapName::SharedAnonymous => b"/dev/zero (deleted)".to_vec(),
        MapName::File(file) => match &file.path {
            Some(path) => shown_path(look.current, path),
            None => file.file.anonymous_name().into_bytes(),
        },
    }
}

/// Returns the build id of the ELF file that an area is of, from where its beginning is mapped.
fn build_id(mm: &MemoryManager, maps: &[MapEntry], entry: &MapEntry) -> Option<Vec<u8>> {
    if !matches!(entry.name, MapName::File(_)) {
        return None;
    }
    let is_start =
        |other: &&MapEntry| other.offset == 0 && (other.dev, other.ino) == (entry.dev, entry.ino);
    let start = maps.iter().find(is_start)?;
    let page = mm.read_range(start.start, start.end.min(start.start.checked_add(PAGE_SIZE)?));
    if !page.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let n_headers = number(&page, 56, 2)?.min(64);
    let table = number(&page, 32, 8)?;
    (0..n_headers).find_map(|index| {
        let at = table.checked_add(index.checked_mul(56)?)?;
        let field = |offset: usize, len| number(&page, at.checked_add(offset)?, len);
        if u32::try_from(field(0, 4)?).ok()? != PT_NOTE {
            return None;
        }
        let (offset, len) = (field(8, 8)?, field(32, 8)?.min(4096));
        build_id_in(page.get(offset..offset.checked_add(len)?)?)
    })
}

fn build_id_in(mut notes: &[u8]) -> Option<Vec<u8>> {
    loop {
        let [name, len, kind] = [0, 4, 8].map(|at| number(notes, at, 4));
        let start = 12usize.checked_add(name?.checked_next_multiple_of(4)?)?;
        let data = notes.get(start..start.checked_add(len?)?)?;
        let is_id = kind? == usize::try_from(NT_GNU_BUILD_ID).ok()?;
        if is_id && notes.get(12..16)? == b"GNU\0" && (1..=MAX_BUILD_ID).contains(&data.len()) {
            return Some(data.to_vec());
        }
        notes = notes.get(start.checked_add(len?.checked_next_multiple_of(4)?)?..)?;
    }
}

/// Returns a number of a file in memory.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}
