//! Reading directories: `Readdir`.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use gofer_wire::reply::{EntriesWriter, Entry};
use gofer_wire::{Attr, Fid, Name};
use rustix::fs::{self, FileType, Mode, OFlags, RawDir, SeekFrom};
use syscalls::{Errno, SysResult};

use crate::attr::errno;
use crate::session::{Outcome, Session};

/// What one `getdents64(2)` may return. An entry is shorter on the wire, so a reply always holds
/// all of it.
const BUFFER_SIZE: usize = 32 * 1024;

/// Returns the entries that follow `cookie`, without `.` and `..`; none at the end.
pub(crate) fn readdir(
    session: &mut Session,
    tag: u32,
    fid: Fid,
    cookie: u64,
    buffer: &mut Vec<u8>,
) -> SysResult<Outcome> {
    let node = session.fids.get_mut(fid)?;
    if node.file_type != Attr::DIRECTORY {
        return Err(Errno::ENOTDIR);
    }
    if node.is_pseudo {
        EntriesWriter::new(tag, buffer).finish()?;
        return Ok(Outcome::Encoded);
    }
    let stream = match node.stream.take() {
        Some(stream) => stream,
        None => open_stream(&node.fd)?,
    };
    fs::seek(&stream, SeekFrom::Start(cookie)).map_err(errno)?;
    let is_at_end = fill(&stream, tag, buffer)?;
    if !is_at_end {
        node.stream = Some(stream);
    }
    Ok(Outcome::Encoded)
}

fn open_stream(dir: &OwnedFd) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(dir, ".", flags, Mode::empty()).map_err(errno)
}

/// Encodes the next entries; returns whether there are none.
fn fill(stream: &OwnedFd, tag: u32, buffer: &mut Vec<u8>) -> SysResult<bool> {
    let mut space = Vec::with_capacity(BUFFER_SIZE);
    let space: &mut [MaybeUninit<u8>] = space.spare_capacity_mut();
    let mut entries = RawDir::new(stream, space);
    let mut writer = EntriesWriter::new(tag, buffer);
    let mut is_empty = true;
    while (is_empty || !entries.is_buffer_empty()) && writer.has_room() {
        let Some(entry) = entries.next() else { break };
        let entry = entry.map_err(errno)?;
        // `.` and `..` are no names, nor is what a broken file system might return.
        let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
        let kind = kind(entry.file_type());
        writer.push(&Entry { ino: entry.ino(), next: entry.next_entry_cookie(), kind, name })?;
        is_empty = false;
    }
    writer.finish()?;
    Ok(is_empty)
}

/// Returns the `DT_*` number of a file type.
const fn kind(file_type: FileType) -> u8 {
    match file_type {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}
