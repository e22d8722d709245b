//! Access control lists: `acl(5)`, and what Linux's `fs/posix_acl.c` makes of them.
//!
//! An [`Acl`] is always a complete list in the right order. File systems keep lists as they like; they are given and
//! asked for as extended attributes ([`Inode::set_xattr`](super::Inode::set_xattr) with one of the two names of
//! [`AclKind`]), and for permissions by [`Inode::acl`](super::Inode::acl). Ids in them are the container's.
//!
//! A list that says no more than the permission bits is not kept. Where one is kept, the bits of the group are its mask.

use std::sync::Arc;

use syscalls::abi::fs::{XATTR_POSIX_ACL_ACCESS, XATTR_POSIX_ACL_DEFAULT};
use syscalls::{Errno, SysResult};

use super::attr::Attr;
use super::inode::{NewNode, NodeKind};
use crate::task::Credentials;

/// The version of the binary form.
const VERSION: u32 = 2;
const HEADER_LEN: usize = 4;
const ENTRY_LEN: usize = 8;

/// The id of an entry that names nobody.
const NO_ID: u32 = u32::MAX;

/// The most entries of a list that is kept in the sentry's memory: what fits in a page, as with ext4.
const MAX_ENTRIES: usize = 511;

/// Which list of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// Who may do what.
    Access,
    /// What is made in a directory begins with.
    Default,
}

impl AclKind {
    /// Returns the kind that an extended attribute's name stands for, if it does for one.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        match name {
            XATTR_POSIX_ACL_ACCESS => Some(Self::Access),
            XATTR_POSIX_ACL_DEFAULT => Some(Self::Default),
            _ => None,
        }
    }

    /// Returns the name of the extended attribute.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Access => XATTR_POSIX_ACL_ACCESS,
            Self::Default => XATTR_POSIX_ACL_DEFAULT,
        }
    }
}

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Other,
}

/// An entry: whom it is about, and what it permits (`MAY_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    who: Who,
    may: u32,
}

/// A list: the owner, any users, the group, any groups, the mask, the others. The mask is there where any user or group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Box<[Entry]>,
}

/// The lists of one file.
#[derive(Clone, Debug, Default)]
pub struct Acls {
    /// Who may do what, where that is more than the permission bits say.
    pub access: Option<Arc<Acl>>,
    /// What is made in this directory begins with.
    pub default: Option<Arc<Acl>>,
}

impl Acls {
    /// Returns the list of a kind.
    pub fn get(&self, kind: AclKind) -> &Option<Arc<Acl>> {
        match kind {
            AclKind::Access => &self.access,
            AclKind::Default => &self.default,
        }
    }

    /// Returns the place of the list of a kind.
    pub fn get_mut(&mut self, kind: AclKind) -> &mut Option<Arc<Acl>> {
        match kind {
            AclKind::Access => &mut self.access,
            AclKind::Default => &mut self.default,
        }
    }

    /// Returns whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.access.is_none() && self.default.is_none()
    }
}

impl Acl {
    /// Reads the binary form, whose ids are translated with `kuid` and `kgid`. No entries are no list.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for another version; `EINVAL` for what is no list, and for an id without a translation.
    pub fn parse(
        bytes: &[u8],
        kuid: impl Fn(u32) -> Option<u32>,
        kgid: impl Fn(u32) -> Option<u32>,
    ) -> SysResult<Option<Self>> {
        let (version, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (entries, rest) = rest.as_chunks::<ENTRY_LEN>();
        if !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        let entries: Box<[Entry]> = entries
            .iter()
            .map(|&[tag0, tag1, may0, may1, id @ ..]| {
                let id = u32::from_le_bytes(id);
                let valid = |id: Option<u32>| id.filter(|id| *id != NO_ID).ok_or(Errno::EINVAL);
                let who = match u16::from_le_bytes([tag0, tag1]) {
                    0x01 => Who::Owner,
                    0x02 => Who::User(valid(kuid(id))?),
                    0x04 => Who::OwningGroup,
                    0x08 => Who::Group(valid(kgid(id))?),
                    0x10 => Who::Mask,
                    0x20 => Who::Other,
                    _ => return Err(Errno::EINVAL),
                };
                let may = u16::from_le_bytes([may0, may1]).into();
                Ok(Entry { who, may })
            })
            .collect::<SysResult<_>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let list = Self { entries };
        if list.is_in_order() { Ok(Some(list)) } else { Err(Errno::EINVAL) }
    }

    /// Reads the binary form with ids of the container.
    ///
    /// # Errors
    /// As [`Acl::parse`].
    pub fn from_bytes(bytes: &[u8]) -> SysResult<Option<Self>> {
        Self::parse(bytes, Some, Some)
    }

    /// Returns whether the entries are those of a list: `posix_acl_valid`.
    fn is_in_order(&self) -> bool {
        /// What may come next.
        #[derive(PartialEq, Eq)]
        enum Next {
            Owner,
            User,
            Group,
            Other,
            Nothing,
        }
        let mut next = Next::Owner;
        let mut has_named = false;
        for entry in &self.entries {
            next = match (entry.who, next) {
                (Who::Owner, Next::Owner) => Next::User,
                (Who::User(_), Next::User) => {
                    has_named = true;
                    Next::User
                }
                (Who::OwningGroup, Next::User) => Next::Group,
                (Who::Group(_), Next::Group) => {
                    has_named = true;
                    Next::Group
                }
                (Who::Mask, Next::Group) => Next::Other,
                (Who::Other, Next::Other) => Next::Nothing,
                (Who::Other, Next::Group) if !has_named => Next::Nothing,
                _ => return false,
            };
            if entry.may & !7 != 0 {
                return false;
            }
        }
        next == Next::Nothing
    }

    /// Returns the binary form, whose ids are translated with `uid` and `gid`.
    pub fn to_bytes(&self, uid: impl Fn(u32) -> u32, gid: impl Fn(u32) -> u32) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            let (tag, id): (u16, u32) = match entry.who {
                Who::Owner => (0x01, NO_ID),
                Who::User(id) => (0x02, uid(id)),
                Who::OwningGroup => (0x04, NO_ID),
                Who::Group(id) => (0x08, gid(id)),
                Who::Mask => (0x10, NO_ID),
                Who::Other => (0x20, NO_ID),
            };
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(entry.may).unwrap_or(0).to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// Returns whether the list is longer than what is kept in the sentry's memory.
    pub fn is_too_long(&self) -> bool {
        self.entries.len() > MAX_ENTRIES
    }

    /// Returns whether somebody who is not the owner of a file with this list may do what `wanted` says:
    /// `posix_acl_permission`.
    pub fn permits(&self, creds: &Credentials, attr: &Attr, wanted: u32) -> bool {
        let wanted = wanted & 7;
        let mut is_member = false;
        for entry in &self.entries {
            let is_enough = entry.may & wanted == wanted;
            match entry.who {
                Who::User(uid) if uid == creds.fsuid => return is_enough && self.masks(wanted),
                Who::OwningGroup if creds.is_in_group(attr.gid) => {
                    if is_enough {
                        return self.masks(wanted);
                    }
                    is_member = true;
                }
                Who::Group(gid) if creds.is_in_group(gid) => {
                    if is_enough {
                        return self.masks(wanted);
                    }
                    is_member = true;
                }
                Who::Other => return is_enough && !is_member,
                _ => {}
            }
        }
        false
    }

    /// Returns whether the mask leaves what `wanted` says.
    fn masks(&self, wanted: u32) -> bool {
        self.mask().is_none_or(|mask| mask & wanted == wanted)
    }

    fn mask(&self) -> Option<u32> {
        self.entries.iter().find(|entry| entry.who == Who::Mask).map(|entry| entry.may)
    }

    /// Returns the permission bits (0777) of a file with this list: `posix_acl_equiv_mode`.
    pub fn mode(&self) -> u32 {
        let mode = self.entries.iter().fold(0, |mode, entry| match entry.who {
            Who::Owner => mode | entry.may << 6,
            Who::OwningGroup => mode | entry.may << 3,
            Who::Other => mode | entry.may,
            _ => mode,
        });
        self.mask().map_or(mode, |mask| mode & !0o070 | mask << 3)
    }

    /// Returns whether the list says no more than permission bits do.
    pub fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    /// Returns the list after `chmod(2)`: `__posix_acl_chmod_masq`.
    #[must_use]
    pub fn with_mode(&self, mode: u32) -> Self {
        self.changed(|_, bits| bits, mode)
    }

    /// Returns the list of a new file that is made with `mode` where this is the default: `posix_acl_create_masq`.
    fn restricted_to(&self, mode: u32) -> Self {
        self.changed(|may, bits| may & bits, mode)
    }

    /// Changes the three entries that the permission bits stand for.
    fn changed(&self, change: impl Fn(u32, u32) -> u32, mode: u32) -> Self {
        let has_mask = self.mask().is_some();
        let entries = self.entries.iter().map(|&Entry { who, may }| {
            let bits = match who {
                Who::Owner => Some(mode >> 6 & 7),
                Who::Mask => Some(mode >> 3 & 7),
                Who::OwningGroup if !has_mask => Some(mode >> 3 & 7),
                Who::Other => Some(mode & 7),
                _ => None,
            };
            Entry { who, may: bits.map_or(may, |bits| change(may, bits)) }
        });
        Self { entries: entries.collect() }
    }
}

/// Returns the permission bits (07777) and the lists of a new file in a directory with this default list: the umask counts
/// where there is none.
pub fn inherit(node: &NewNode, default: Option<&Arc<Acl>>) -> (u32, Acls) {
    let mode = node.mode & 0o7777;
    let Some(default) = default.filter(|_| !matches!(node.kind, NodeKind::Symlink(_))) else {
        return (mode & !node.umask, Acls::default());
    };
    let access = default.restricted_to(mode);
    let mode = mode & !0o777 | access.mode();
    let is_dir = node.kind == NodeKind::Directory;
    let access = if access.is_minimal() {
        None
    } else if access == **default {
        Some(default.clone())
    } else {
        Some(Arc::new(access))
    };
    (mode, Acls { access, default: is_dir.then(|| default.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list: what the owner, user 7, the group, group 8, the mask and the others may.
    fn list(may: [u32; 6]) -> Acl {
        let who =
            [Who::Owner, Who::User(7), Who::OwningGroup, Who::Group(8), Who::Mask, Who::Other];
        let entries = who.into_iter().zip(may).map(|(who, may)| Entry { who, may });
        Acl { entries: entries.collect() }
    }

    fn user(fsuid: u32, fsgid: u32) -> Credentials {
        Credentials { fsuid, fsgid, ..Credentials::root(0) }
    }

    #[test]
    fn binary_form_survives_a_round_trip() {
        let list = list([7, 5, 4, 6, 7, 0]);
        assert_eq!(Acl::from_bytes(&list.to_bytes(|id| id, |id| id)), Ok(Some(list)));
    }

    #[test]
    fn parse_refuses_what_is_no_list() {
        let bytes = list([7, 5, 4, 6, 7, 0]).to_bytes(|id| id, |id| id);
        assert_eq!(Acl::from_bytes(&bytes[..4]), Ok(None));
        let short = (0..bytes.len()).filter(|n| *n != 4).map(|n| &bytes[..n]);
        for short in short {
            assert_eq!(Acl::from_bytes(short), Err(Errno::EINVAL), "{}", short.len());
        }
        for at in 0..bytes.len() {
            // No input panics.
            for value in [0, 1, 2, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Acl::from_bytes(&changed);
            }
        }
        assert_eq!(Acl::parse(&bytes, |_| None, Some), Err(Errno::EINVAL));
    }

    #[test]
    fn mask_limits_all_but_owner_and_others() {
        let list = list([7, 7, 7, 6, 4, 2]);
        let attr = Attr { mode: 0o100_742, uid: 1, gid: 2, ..Attr::default() };
        assert!(list.permits(&user(7, 9), &attr, 4) && !list.permits(&user(7, 9), &attr, 2));
        assert!(list.permits(&user(3, 2), &attr, 4) && !list.permits(&user(3, 2), &attr, 1));
        assert!(list.permits(&user(3, 8), &attr, 4) && !list.permits(&user(3, 8), &attr, 6));
        assert!(list.permits(&user(3, 9), &attr, 2) && !list.permits(&user(3, 9), &attr, 4));
        assert_eq!(list.mode(), 0o742);
    }

    #[test]
    fn new_file_gets_no_more_than_it_is_made_with() {
        let default = Arc::new(list([7, 7, 5, 6, 7, 5]));
        let node = NewNode { kind: NodeKind::Regular, mode: 0o4640, umask: 0o777, uid: 0, gid: 0 };
        let (mode, lists) = inherit(&node, Some(&default));
        assert_eq!(mode, 0o4640);
        assert_eq!(*lists.access.unwrap(), list([6, 7, 5, 6, 4, 0]));
        assert!(lists.default.is_none());
        assert_eq!(inherit(&node, None).0, 0o4000);
    }
}
