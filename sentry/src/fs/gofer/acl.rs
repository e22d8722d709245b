//! Access control lists and capabilities of the host's files.
//!
//! A list is fetched when somebody's permissions depend on it who is not the owner. It is remembered as long as the file has
//! the same time of last change of its attributes. After the first time the gofer tells by itself which files have none.
//! So is it remembered that a file has no capabilities, which every exec asks about.

use std::sync::Arc;

use gofer_wire::{Name, Request};
use syscalls::{Errno, SysResult};

use super::inode::{GoferInode, xattr_name};
use super::{Caching, SETTLED, attr};
use crate::vfs::acl::{Acl, AclKind};
use crate::vfs::{Attr, FileType, Inode as _, Timestamp};

/// What is known of the lists of a file.
#[derive(Default)]
pub(super) struct KnownAcls {
    /// When the file had this time, it had no list of its own.
    lacks_access: Option<Timestamp>,
    /// What was fetched otherwise.
    fetched: Vec<Fetched>,
    /// When the file had this time, it had no capabilities.
    lacks_capabilities: Option<Timestamp>,
    /// How often this sandbox may have changed them.
    n_changes: u32,
}

/// A list, or none, of when the file had this time.
struct Fetched {
    kind: AclKind,
    ctime: Timestamp,
    acl: Option<Arc<Acl>>,
}

impl KnownAcls {
    /// Is told of attributes that the gofer has just sent.
    pub(super) fn update(&mut self, new: &gofer_wire::Attr, attr: &Attr, caching: Caching) {
        if new.acl == gofer_wire::Attr::ACL_NONE && may_keep(attr, caching) {
            self.lacks_access = Some(attr.ctime);
        }
    }

    /// Is told that this sandbox may have changed them.
    pub(super) fn clear(&mut self) {
        *self = Self { n_changes: self.n_changes.wrapping_add(1), ..Self::default() };
    }

    /// Returns a list, where it is known for a file with this time.
    fn get(&self, kind: AclKind, ctime: Timestamp, caching: Caching) -> Option<Option<Arc<Acl>>> {
        let is_good = |then: Timestamp| caching == Caching::Exclusive || then == ctime;
        if kind == AclKind::Access && self.lacks_access.is_some_and(is_good) {
            return Some(None);
        }
        let fetched = self.fetched.iter().find(|fetched| fetched.kind == kind)?;
        is_good(fetched.ctime).then(|| fetched.acl.clone())
    }

    fn keep(&mut self, fetched: Fetched) {
        if fetched.kind == AclKind::Access && fetched.acl.is_none() {
            self.lacks_access = Some(fetched.ctime);
            return;
        }
        self.fetched.retain(|old| old.kind != fetched.kind);
        self.fetched.push(fetched);
    }
}

/// Returns whether a later change would give the file another time than it has in these attributes.
fn may_keep(attr: &Attr, caching: Caching) -> bool {
    caching == Caching::Exclusive || attr::is_settled(attr, SETTLED)
}

/// The name of a file's capabilities.
const CAPABILITIES: &[u8] = b"security.capability";

/// What no [`Store::epoch`](super::Store) ever is.
const NEVER: u64 = u64::MAX;

impl GoferInode {
    /// Is told that this sandbox has changed an extended attribute.
    pub(super) fn xattr_changed(&self, name: Name<'_>) {
        self.set_stale();
        if AclKind::of_name(name.as_bytes()).is_some() {
            // The mode is another one now, which nothing else that this sandbox does leaves unsaid.
            self.state.lock().epoch = NEVER;
        }
    }

    /// Returns an extended attribute.
    ///
    /// # Errors
    /// Those of the gofer.
    pub(super) fn fetch_xattr(&self, name: &[u8]) -> SysResult<Vec<u8>> {
        let request = Request::GetXattr { fid: self.fid(), name: xattr_name(name)? };
        if name != CAPABILITIES {
            return self.store().connection.call_bytes(&request);
        }
        let caching = self.store().caching;
        let attr = self.attr()?;
        let state = self.state.lock();
        let (lacks, n_changes) = (state.acls.lacks_capabilities, state.acls.n_changes);
        drop(state);
        if lacks.is_some_and(|then| caching == Caching::Exclusive || then == attr.ctime) {
            return Err(Errno::ENODATA);
        }
        let result = self.store().connection.call_bytes(&request);
        if matches!(result, Err(Errno::ENODATA)) && may_keep(&attr, caching) {
            let mut state = self.state.lock();
            // What was changed meanwhile may be what has just been fetched.
            if state.acls.n_changes == n_changes {
                state.acls.lacks_capabilities = Some(attr.ctime);
            }
        }
        result
    }

    /// Returns a list of this file.
    ///
    /// # Errors
    /// Those of the gofer; `EIO` where what it sends is no list.
    pub(super) fn fetch_acl(&self, kind: AclKind) -> SysResult<Option<Arc<Acl>>> {
        let is_possible = kind == AclKind::Access || self.file_type() == FileType::Directory;
        if !is_possible || self.file_type() == FileType::Symlink {
            return Ok(None);
        }
        let caching = self.store().caching;
        let state = self.state.lock();
        let attr = state.attr;
        let known = state.acls.get(kind, attr.ctime, caching);
        drop(state);
        if let Some(known) = known {
            return Ok(known);
        }
        let request = Request::GetXattr { fid: self.fid(), name: Name::new(kind.name())? };
        let acl = match self.store().connection.call_bytes(&request) {
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => None,
            result => Acl::from_bytes(&result?).map_err(|_| Errno::EIO)?.map(Arc::new),
        };
        if may_keep(&attr, caching) {
            let fetched = Fetched { kind, ctime: attr.ctime, acl: acl.clone() };
            self.state.lock().acls.keep(fetched);
        }
        Ok(acl)
    }
}
