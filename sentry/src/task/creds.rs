//! Credentials: user and group ids, capabilities, securebits.

use std::sync::Arc;

use super::user_namespace::UserNamespace;
use crate::config::IdMaps;
use crate::landlock::Domain;

/// The bit set of all capabilities that Linux 6.12 has: 0 to `CAP_CHECKPOINT_RESTORE`.
pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// The credentials of a task. Shared, and replaced as a whole when they change.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// User id for file access.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// Group id for file access.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Effective capabilities.
    pub effective: u64,
    /// Inheritable capabilities.
    pub inheritable: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Ambient capabilities.
    pub ambient: u64,
    /// `SECBIT_*`.
    pub securebits: u32,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// The user namespace in which the capabilities count.
    pub user_ns: Arc<UserNamespace>,
    /// The rights that have been taken away (`landlock(7)`).
    pub(crate) landlock: Option<Arc<Domain>>,
}

impl Credentials {
    /// Returns root's credentials with these capabilities in every set but ambient.
    pub fn root(capabilities: u64) -> Self {
        Self {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Arc::from([]),
            permitted: capabilities,
            effective: capabilities,
            inheritable: 0,
            bounding: capabilities,
            ambient: 0,
            securebits: 0,
            no_new_privs: false,
            user_ns: UserNamespace::of_container(IdMaps::default()),
            landlock: None,
        }
    }

    /// Returns whether capability number `capability` is effective for the container as a whole:
    /// `capable`. In a further user namespace none is.
    pub fn has_capability(&self, capability: u32) -> bool {
        self.user_ns.is_initial() && self.has_own_capability(capability)
    }

    /// Returns whether these are in every respect what the others are: ids, groups, capabilities.
    pub(crate) fn is_as_strong_as(&self, other: &Self) -> bool {
        let ids =
            |of: &Self| [of.uid, of.euid, of.suid, of.fsuid, of.gid, of.egid, of.sgid, of.fsgid];
        let capabilities =
            |of: &Self| [of.permitted, of.effective, of.inheritable, of.bounding, of.ambient];
        ids(self) == ids(other)
            && capabilities(self) == capabilities(other)
            && self.groups == other.groups
            && self.user_ns.is(&other.user_ns)
    }

    /// Returns whether the file group or one of the supplementary groups is `gid`.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
