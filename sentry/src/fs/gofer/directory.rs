//! [`GoferDirectory`]: an open directory.
//!
//! A listing is read as a whole when the directory is read from its beginning, and offsets are
//! positions in it. So they mean the same as long as the directory is open, whatever the host's
//! file system does, and entries that are removed while they are read are not missed.

use std::sync::Arc;

use gofer_wire::{Fid, Request, reply};
use syscalls::SysResult;

use super::connection::Connection;
use super::inode::GoferInode;
use crate::sync::Mutex;
use crate::task::CurrentTask;
use crate::vfs::{DirEntry, DirSink, File, FileType, Inode, ListEntry};

/// The entries of a directory at one time, without `.` and `..`.
pub(super) type Listing = Arc<[ListEntry]>;

/// Reads a whole directory.
///
/// # Errors
/// Those of the gofer.
pub(super) fn fetch(connection: &Connection, fid: Fid) -> SysResult<Listing> {
    let mut listing = Vec::new();
    let mut cookie = 0;
    loop {
        let batch = connection.call(&Request::Readdir { fid, cookie }, |body, _| {
            let entries = reply::Entries::decode(body)?;
            let (is_end, mut next) = (entries.is_end(), None);
            let batch: Vec<_> = entries
                .map(|entry| {
                    next = Some(entry.next);
                    let file_type = FileType::from_mode(u32::from(entry.kind) << 12);
                    let name = entry.name.as_bytes().to_vec();
                    ListEntry { name, ino: entry.ino, file_type }
                })
                .collect();
            Ok((batch, next.filter(|_| !is_end)))
        })?;
        let (batch, next) = batch;
        listing.extend(batch);
        let Some(next) = next else { return Ok(listing.into()) };
        cookie = next;
    }
}

/// An open directory.
pub(super) struct GoferDirectory {
    inode: Arc<GoferInode>,
    listing: Mutex<Option<Listing>>,
}

impl GoferDirectory {
    pub(super) const fn new(inode: Arc<GoferInode>) -> Self {
        Self { inode, listing: Mutex::new(None) }
    }

    pub(super) fn list(&self, offset: u64, sink: &mut dyn DirSink) -> SysResult<()> {
        let listing = self.listing(offset)?;
        let ino = self.inode.attr()?.ino;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let dots = [&b"."[..], b".."].map(|name| (name, ino, FileType::Directory));
        let dots = dots.into_iter().skip(start);
        // Not by skipping: a large directory is read in many pieces.
        let rest = listing.get(start.saturating_sub(2)..).unwrap_or_default();
        let listed = rest.iter().map(|entry| (&*entry.name, entry.ino, entry.file_type));
        let mut next_offset = offset;
        for (name, ino, file_type) in dots.chain(listed) {
            next_offset = next_offset.saturating_add(1);
            if !sink.entry(&DirEntry { name, ino, file_type, next_offset }) {
                break;
            }
        }
        Ok(())
    }

    fn listing(&self, offset: u64) -> SysResult<Listing> {
        let known = self.listing.lock().clone();
        match known {
            Some(known) if offset != 0 => Ok(known),
            _ => {
                let listing = self.inode.listing()?;
                *self.listing.lock() = Some(listing.clone());
                Ok(listing)
            }
        }
    }
}

impl File for GoferDirectory {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.inode.clone())
    }

    fn read(
        &self,
        _task: &CurrentTask,
        _dst: &mut dyn crate::vfs::IoSink,
        _offset: u64,
    ) -> SysResult<usize> {
        Err(syscalls::Errno::EISDIR)
    }

    fn readdir(&self, _task: &CurrentTask, offset: u64, sink: &mut dyn DirSink) -> SysResult<()> {
        self.list(offset, sink)
    }

    fn sync(&self, data_only: bool) -> SysResult<()> {
        let request = Request::Fsync { fid: self.inode.fid(), data_only };
        self.inode.store().connection.call_status(&request)
    }
}
