//! Unix sockets of the host, by their names.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use gofer_wire::{BindKind, Name, Request};
use syscalls::SysResult;

use super::{GoferInode, ownership};
use crate::vfs::NewNode;

impl GoferInode {
    /// Connects to the unix socket that this inode is the name of.
    ///
    /// # Errors
    /// `ECONNREFUSED` where the mount does not permit it, or nobody listens; `EAGAIN`.
    pub fn connect(&self, kind: BindKind) -> SysResult<OwnedFd> {
        self.store.connection.call_descriptor(&Request::Connect { fid: self.fid, kind })
    }

    /// Creates a unix socket below this directory, bound to `name`.
    ///
    /// # Errors
    /// `EPERM` where the mount does not permit it; `EADDRINUSE`.
    pub fn bind(
        &self,
        name: &[u8],
        node: &NewNode,
        kind: BindKind,
    ) -> SysResult<(Arc<Self>, OwnedFd)> {
        let request = Request::Bind {
            dir: self.fid,
            name: Name::new(name)?,
            ownership: ownership(node),
            kind,
        };
        let _own = self.own_name(name);
        let (node, socket) = self.store.connection.call_with_descriptor(&request)?;
        self.changed(name);
        Ok((self.store.adopt(node, None), socket))
    }
}
