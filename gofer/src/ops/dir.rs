//! Reading directories: `Readdir`.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use gofer_wire::reply::{EntriesWriter, Entry};
use gofer_wire::{Attr, Fid, Name};
use rustix::fs::{self, FileType, Mode, OFlags, RawDir, SeekFrom};
use syscalls::{Errno, SysResult};

use crate::attr::errno;
use crate::session::{Outcome, Session};

/// What one `getdents64(2)` may return.
const BUFFER_SIZE: usize = 32 * 1024;

/// Returns the entries that follow `cookie`, without `.` and `..`, and whether they are the last.
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
        EntriesWriter::new(tag, buffer).finish(true)?;
        return Ok(Outcome::Encoded);
    }
    let kept = node.stream.take();
    let is_at_start = kept.is_none() && cookie == 0;
    let stream = match kept {
        Some(stream) => stream,
        None => open_stream(&node.fd)?,
    };
    if !is_at_start {
        fs::seek(&stream, SeekFrom::Start(cookie)).map_err(errno)?;
    }
    let is_at_end = fill(&stream, tag, buffer, &mut session.entries)?;
    if !is_at_end {
        node.stream = Some(stream);
    }
    Ok(Outcome::Encoded)
}

fn open_stream(dir: &OwnedFd) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(dir, ".", flags, Mode::empty()).map_err(errno)
}

/// Encodes the next entries, as many as a message holds; returns whether the directory ends with them.
fn fill(stream: &OwnedFd, tag: u32, buffer: &mut Vec<u8>, space: &mut Vec<u8>) -> SysResult<bool> {
    space.reserve(BUFFER_SIZE);
    let space: &mut [MaybeUninit<u8>] = space.spare_capacity_mut();
    let mut entries = RawDir::new(stream, space);
    let mut writer = EntriesWriter::new(tag, buffer);
    let mut is_end = false;
    while writer.has_room() {
        let Some(entry) = entries.next() else {
            is_end = true;
            break;
        };
        let entry = entry.map_err(errno)?;
        // `.` and `..` are no names, nor is what a broken file system might return.
        let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
        let kind = kind(entry.file_type());
        writer.push(&Entry { ino: entry.ino(), next: entry.next_entry_cookie(), kind, name })?;
    }
    writer.finish(is_end)?;
    Ok(is_end)
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
