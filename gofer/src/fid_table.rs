//! [`FidTable`]: the files that a client holds on one connection.

use std::os::fd::OwnedFd;

use gofer_wire::{Attr, Fid, ROOT_FID};
use syscalls::{Errno, SysResult};

/// A file that a client holds.
#[derive(Debug)]
pub(crate) struct Node {
    /// An `O_PATH` descriptor of the inode. (The root's is what the caller gave.)
    pub(crate) fd: OwnedFd,
    /// The inode's type, which never changes: `Attr::file_type`.
    pub(crate) file_type: u32,
    /// The device that holds the inode: major, minor.
    pub(crate) dev: (u32, u32),
    /// An open directory that is being read, between the first `Readdir` and the one that finds the
    /// end.
    pub(crate) stream: Option<OwnedFd>,
    /// Whether this is the root of a pseudo file system, which shows as an empty directory.
    pub(crate) is_pseudo: bool,
}

impl Node {
    pub(crate) const fn new(fd: OwnedFd, attr: &Attr) -> Self {
        Self {
            fd,
            file_type: attr.file_type(),
            dev: (attr.dev_major, attr.dev_minor),
            stream: None,
            is_pseudo: false,
        }
    }
}

/// The fids of one connection. The root's is there from the start and cannot be removed.
#[derive(Debug)]
pub(crate) struct FidTable {
    root: Node,
    /// Fid n is at index n - 1.
    nodes: Vec<Option<Node>>,
    free: Vec<Fid>,
    max_fids: usize,
}

impl FidTable {
    pub(crate) const fn new(root: Node, max_fids: usize) -> Self {
        Self { root, nodes: Vec::new(), free: Vec::new(), max_fids }
    }

    /// Returns the file of a fid.
    ///
    /// # Errors
    /// `EBADF` for a fid that does not exist.
    pub(crate) fn get(&self, fid: Fid) -> SysResult<&Node> {
        if fid == ROOT_FID {
            return Ok(&self.root);
        }
        index(fid).and_then(|i| self.nodes.get(i)).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }

    /// Like [`Self::get`].
    ///
    /// # Errors
    /// `EBADF` for a fid that does not exist.
    pub(crate) fn get_mut(&mut self, fid: Fid) -> SysResult<&mut Node> {
        if fid == ROOT_FID {
            return Ok(&mut self.root);
        }
        index(fid).and_then(|i| self.nodes.get_mut(i)).and_then(Option::as_mut).ok_or(Errno::EBADF)
    }

    /// Returns the file of a fid that is a directory.
    ///
    /// # Errors
    /// `EBADF`, `ENOTDIR` for anything else, `EACCES` for the root of a pseudo file system.
    pub(crate) fn directory(&self, fid: Fid) -> SysResult<&Node> {
        let node = self.get(fid)?;
        if node.is_pseudo {
            return Err(Errno::EACCES);
        }
        if node.file_type == Attr::DIRECTORY { Ok(node) } else { Err(Errno::ENOTDIR) }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// `EMFILE` where the client holds as many as it may.
    pub(crate) fn insert(&mut self, node: Node) -> SysResult<Fid> {
        if let Some(fid) = self.free.pop()
            && let Some(place) = index(fid).and_then(|i| self.nodes.get_mut(i))
        {
            *place = Some(node);
            return Ok(fid);
        }
        if self.nodes.len() >= self.max_fids {
            return Err(Errno::EMFILE);
        }
        self.nodes.push(Some(node));
        Fid::try_from(self.nodes.len()).map_err(|_| Errno::EMFILE)
    }

    /// Removes a file. A fid that does not exist, and the root's, is ignored.
    pub(crate) fn remove(&mut self, fid: Fid) {
        let removed = index(fid).and_then(|i| self.nodes.get_mut(i)).and_then(Option::take);
        if removed.is_some() {
            self.free.push(fid);
        }
    }
}

fn index(fid: Fid) -> Option<usize> {
    usize::try_from(fid).ok()?.checked_sub(1)
}
