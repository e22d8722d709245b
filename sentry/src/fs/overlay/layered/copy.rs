//! Copying files to the upper layer before they change.

use std::sync::Arc;

use syscalls::{Errno, SysResult};

use super::Made;
use super::node::LayeredNode;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{NewNode, NodeKind};
use crate::vfs::{Attr, FileType, Inode, SetAttr, SetTime, SliceSink, SliceSource, XattrFlags};

/// How much is copied at a time.
const CHUNK: usize = 128 * 1024;

impl LayeredNode {
    /// Returns what lies in the upper layer, copied there where nothing did; a regular file
    /// `with_content` or empty.
    ///
    /// # Errors
    /// `EROFS`, `ENOSPC`, `EPERM`, `EOVERFLOW`; `ESTALE` for a removed file; those of the layers.
    pub(super) fn copy_up(&self, with_content: bool) -> SysResult<&Arc<Dentry>> {
        if let Some(upper) = self.upper_if_any() {
            return Ok(upper);
        }
        self.shared.upper()?;
        let mut ancestors = Vec::new();
        let mut at = self.place()?.0;
        while at.upper_if_any().is_none() {
            let parent = at.place()?.0;
            ancestors.push(at);
            at = parent;
        }
        for node in ancestors.iter().rev() {
            node.copy(true)?;
        }
        self.copy(with_content)
    }

    /// Copies one file into a directory that is there.
    fn copy(&self, with_content: bool) -> SysResult<&Arc<Dentry>> {
        let _copying = self.copying.lock();
        if let Some(upper) = self.upper_if_any() {
            return Ok(upper);
        }
        let (parent, name) = self.place()?;
        let dir = parent.upper_if_any().ok_or(Errno::ESTALE)?;
        let (_, lower) = self.lowers.first().ok_or(Errno::EIO)?;
        let attr = lower.inode().attr()?;
        self.shared.check_owner(&attr)?;
        self.shared.check_dir(dir)?;
        let kind = kind_of(lower.inode(), &attr)?;
        let mode = attr.mode & 0o7777;
        let mut made =
            self.shared.make(&NewNode { kind, mode, umask: 0, uid: attr.uid, gid: attr.gid })?;
        self.fill(&made, lower.inode(), &attr, with_content)?;
        let _changes = parent.changes.lock();
        // Who has been removed meanwhile has no place to get.
        if self.place()?.1 != name {
            return Err(Errno::ESTALE);
        }
        let before = dir.inode().attr()?;
        made.place((dir, &name))?;
        let upper = self.set_upper(made.dentry.clone());
        // That a file is copied is no change of its directory.
        let (atime, mtime) = (SetTime::At(before.atime), SetTime::At(before.mtime));
        dir.inode().set_attr(&SetAttr {
            atime: Some(atime),
            mtime: Some(mtime),
            ..SetAttr::default()
        })?;
        Ok(upper)
    }

    /// Gives a new file the extended attributes, content and times of another.
    fn fill(
        &self,
        made: &Made<'_>,
        from: &Arc<dyn Inode>,
        attr: &Attr,
        with_content: bool,
    ) -> SysResult<()> {
        let to = made.dentry.inode();
        let names = match from.list_xattr() {
            Err(Errno::EOPNOTSUPP | Errno::EPERM) => Vec::new(),
            result => result?,
        };
        for name in names.into_iter().filter(|name| !name.starts_with(self.shared.prefix)) {
            let value = match from.get_xattr(&name) {
                Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => continue,
                result => result?,
            };
            match to.set_xattr(&name, &value, XattrFlags::empty()) {
                // As on Linux: what the upper layer does not take is left out.
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        if attr.file_type() == FileType::Regular && with_content && attr.size > 0 {
            copy_content(from, to, attr.size)?;
        }
        if attr.file_type() == FileType::Symlink {
            return Ok(());
        }
        to.set_attr(&SetAttr {
            mode: Some(attr.mode & 0o7777),
            atime: Some(SetTime::At(attr.atime)),
            mtime: Some(SetTime::At(attr.mtime)),
            ..SetAttr::default()
        })
    }
}

/// Returns what is like a file of a lower layer.
fn kind_of(lower: &Arc<dyn Inode>, attr: &Attr) -> SysResult<NodeKind> {
    Ok(match attr.file_type() {
        FileType::Regular => NodeKind::Regular,
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink(lower.readlink(None)?),
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharDevice => NodeKind::CharDevice(attr.rdev),
        FileType::BlockDevice => NodeKind::BlockDevice(attr.rdev),
        FileType::Anonymous => return Err(Errno::EPERM),
    })
}

/// Copies `size` bytes, and holes as such.
fn copy_content(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>, size: u64) -> SysResult<()> {
    let source = from.clone().content(false)?;
    let target = to.clone().content(true)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        at = match source.next_data(at) {
            Err(Errno::ENXIO) => break,
            result => result?.max(at),
        };
        let want = usize::try_from(size.saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        let got = source.read_at(&mut SliceSink::new(chunk), at)?;
        let mut data = chunk.get(..got).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        while !data.is_empty() {
            let n = target.write_at(&mut SliceSource::new(data), at)?;
            if n == 0 {
                return Err(Errno::EIO);
            }
            data = data.get(n..).unwrap_or_default();
            at = at.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
        }
    }
    if at < size {
        to.set_attr(&SetAttr { size: Some(size), ..SetAttr::default() })?;
    }
    Ok(())
}
