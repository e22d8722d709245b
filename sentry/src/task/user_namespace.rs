//! User namespaces: which users there are, and who is privileged over what
//! (`user_namespaces(7)`).
//!
//! Credentials and files have the ids of the container ("kernel ids", Linux's `kuid_t`). A
//! namespace below the container's maps its own ids to them; what its members see and give is
//! translated where it enters or leaves the kernel.
//!
//! Lock order: the lock of a namespace's maps is a leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use syscalls::abi::capability::{CAP_SETFCAP, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN};
use syscalls::{Errno, SysResult};

use super::Credentials;
use crate::config::IdMaps;
use crate::sync::RwLock;

/// What an id is shown as that a namespace does not map: `overflowuid`, `overflowgid`.
pub(crate) const OVERFLOW_ID: u32 = 65_534;

/// How deep namespaces can be nested below the container's.
const MAX_LEVEL: usize = 33;

/// The most rows of a map: `UID_GID_MAP_MAX_EXTENTS`.
const MAX_EXTENTS: usize = 340;

/// The inode number of the first user namespace on Linux.
const INITIAL_INO: u64 = 4_026_531_837;

/// The most namespaces of a kind that belong to one user namespace and those below it.
pub(crate) const DEFAULT_MAX: usize = 8192;

/// The kinds of namespaces, in the order of their names below `/proc/sys/user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Control groups.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mounts.
    Mnt,
    /// The network.
    Net,
    /// Process ids.
    Pid,
    /// Clocks.
    Time,
    /// Users and capabilities.
    User,
    /// Host and domain name.
    Uts,
}

/// How many kinds there are.
const N_KINDS: usize = 8;

/// Consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first one in the namespace.
    pub(crate) inside: u32,
    /// The kernel id that it is.
    pub(crate) kernel: u32,
    /// How many there are.
    pub(crate) count: u32,
}

/// Whether the ids of users or those of groups are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdKind {
    User,
    Group,
}

#[derive(Default)]
struct Maps {
    uids: Vec<Extent>,
    gids: Vec<Extent>,
    /// `/proc/PID/setgroups` says `deny`.
    denies_setgroups: bool,
}

/// A user namespace.
pub struct UserNamespace {
    /// The namespace in which it was made; none for the container's.
    pub(crate) parent: Option<Arc<UserNamespace>>,
    /// How many are above.
    pub(crate) level: usize,
    /// The inode number that `/proc/PID/ns/user` shows.
    pub(crate) ino: u64,
    /// The effective user (a kernel id) of who made it.
    pub(crate) owner: u32,
    /// Whether who made it had `CAP_SETFCAP`, without which nobody maps the user 0 of the parent.
    creator_had_setfcap: bool,
    /// The users of the container, where this is its namespace.
    container: IdMaps,
    maps: RwLock<Maps>,
    counts: [AtomicUsize; N_KINDS],
    limits: [AtomicUsize; N_KINDS],
    /// Set once a map has been written, so that nobody translates before.
    has_maps: AtomicBool,
    _counted: Option<Counted>,
}

impl std::fmt::Debug for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user:[{}]", self.ino)
    }
}

/// One namespace, counted as belonging to a user namespace and all above it.
pub(crate) struct Counted {
    by: Arc<UserNamespace>,
    kind: Kind,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.by.uncount(self.kind, None);
    }
}

impl UserNamespace {
    /// Creates the namespace of a container.
    pub(crate) fn of_container(maps: IdMaps) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            level: 0,
            ino: INITIAL_INO,
            owner: 0,
            creator_had_setfcap: true,
            container: maps,
            maps: RwLock::new(Maps::default()),
            counts: Default::default(),
            limits: std::array::from_fn(|_| AtomicUsize::new(DEFAULT_MAX)),
            has_maps: AtomicBool::new(true),
            _counted: None,
        })
    }

    /// Creates a namespace below that of `creator`: `create_user_ns`.
    ///
    /// # Errors
    /// `ENOSPC` where they are nested too deep or there are too many, `EPERM` for somebody whom
    /// the parent does not map.
    pub(crate) fn new_below(creator: &Credentials, ino: u64) -> SysResult<Arc<Self>> {
        let parent = &creator.user_ns;
        if parent.level >= MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        let counted = parent.count(Kind::User)?;
        if parent.uid_of(creator.euid).is_none() || parent.gid_of(creator.egid).is_none() {
            return Err(Errno::EPERM);
        }
        let denies_setgroups = parent.maps.read().denies_setgroups;
        Ok(Arc::new(Self {
            parent: Some(parent.clone()),
            level: parent.level + 1,
            ino,
            owner: creator.euid,
            creator_had_setfcap: creator.has_own_capability(CAP_SETFCAP),
            container: IdMaps::default(),
            maps: RwLock::new(Maps { denies_setgroups, ..Maps::default() }),
            counts: Default::default(),
            limits: std::array::from_fn(|_| AtomicUsize::new(usize::MAX)),
            has_maps: AtomicBool::new(false),
            _counted: Some(counted),
        }))
    }

    /// Returns whether this is a container's own namespace.
    pub(crate) fn is_initial(&self) -> bool {
        self.level == 0
    }

    /// Returns whether both are the same; those of the containers of a sandbox count as one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.is_initial() && other.is_initial())
    }

    /// Returns the container's namespace, below which this one is.
    pub(crate) fn outermost(self: &Arc<Self>) -> Arc<Self> {
        let mut at = self;
        while let Some(parent) = &at.parent {
            at = parent;
        }
        at.clone()
    }

    /// Returns whether this is `above` or below it.
    pub(crate) fn is_in(&self, above: &Self) -> bool {
        let mut at = self;
        loop {
            if at.is(above) {
                return true;
            }
            match &at.parent {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    fn translate(
        &self,
        kind: IdKind,
        id: u32,
        convert: fn(&Extent, u32) -> Option<u32>,
    ) -> Option<u32> {
        if !self.has_maps.load(Ordering::Acquire) {
            return None;
        }
        let maps = self.maps.read();
        let rows = match kind {
            IdKind::User => &maps.uids,
            IdKind::Group => &maps.gids,
        };
        rows.iter().find_map(|row| convert(row, id))
    }

    /// Returns the id that the namespace has for a kernel id: `from_kuid`.
    pub(crate) fn id_of(&self, kind: IdKind, kernel: u32) -> Option<u32> {
        if self.is_initial() {
            return Some(kernel);
        }
        self.translate(kind, kernel, Extent::inside_of)
    }

    /// Returns the kernel id that the namespace's id stands for: `make_kuid`.
    pub(crate) fn kernel_id(&self, kind: IdKind, id: u32) -> Option<u32> {
        if self.is_initial() {
            let exists = match kind {
                IdKind::User => self.container.has_uid(id),
                IdKind::Group => self.container.has_gid(id),
            };
            return exists.then_some(id);
        }
        self.translate(kind, id, Extent::kernel_of)
    }

    /// Returns the namespace's id of a user, where it has one.
    pub(crate) fn uid_of(&self, kernel: u32) -> Option<u32> {
        self.id_of(IdKind::User, kernel)
    }

    /// Returns the namespace's id of a group, where it has one.
    pub(crate) fn gid_of(&self, kernel: u32) -> Option<u32> {
        self.id_of(IdKind::Group, kernel)
    }

    /// Returns what members see for a user: `from_kuid_munged`.
    pub(crate) fn shown_uid(&self, kernel: u32) -> u32 {
        self.uid_of(kernel).unwrap_or(OVERFLOW_ID)
    }

    /// Returns what members see for a group.
    pub(crate) fn shown_gid(&self, kernel: u32) -> u32 {
        self.gid_of(kernel).unwrap_or(OVERFLOW_ID)
    }

    /// Returns the user that a member's id names.
    pub(crate) fn kuid(&self, uid: u32) -> Option<u32> {
        self.kernel_id(IdKind::User, uid)
    }

    /// Returns the group that a member's id names.
    pub(crate) fn kgid(&self, gid: u32) -> Option<u32> {
        self.kernel_id(IdKind::Group, gid)
    }

    /// Returns whether a user is the namespace's root.
    pub(crate) fn is_root_user(&self, kernel: u32) -> bool {
        if self.is_initial() { kernel == 0 } else { self.uid_of(kernel) == Some(0) }
    }

    /// Returns whether members may call `setgroups(2)`.
    pub(crate) fn may_setgroups(&self) -> bool {
        self.is_initial() || {
            let maps = self.maps.read();
            !maps.gids.is_empty() && !maps.denies_setgroups
        }
    }

    /// Returns what `/proc/PID/setgroups` says: whether it is `deny`.
    pub(crate) fn denies_setgroups(&self) -> bool {
        self.maps.read().denies_setgroups
    }

    /// Changes what `/proc/PID/setgroups` says.
    ///
    /// # Errors
    /// `EPERM` where it cannot be changed any more.
    pub(crate) fn set_setgroups(&self, allow: bool) -> SysResult<()> {
        let mut maps = self.maps.write();
        if allow {
            return if maps.denies_setgroups { Err(Errno::EPERM) } else { Ok(()) };
        }
        if self.is_initial() || !maps.gids.is_empty() {
            return Err(Errno::EPERM);
        }
        maps.denies_setgroups = true;
        Ok(())
    }

    /// Returns the rows of a map: first id inside, first id as `reader` sees it, count.
    pub(crate) fn rows(&self, kind: IdKind, reader: &Self) -> Vec<[u32; 3]> {
        if self.is_initial() {
            let ranges = match kind {
                IdKind::User => &self.container.uids,
                IdKind::Group => &self.container.gids,
            };
            if ranges.is_empty() {
                return vec![[0, 0, u32::MAX]];
            }
            return ranges.iter().map(|range| [range.inside, range.outside, range.size]).collect();
        }
        let seen_from = match &self.parent {
            Some(parent) if std::ptr::eq(self, reader) => parent,
            _ => reader,
        };
        let maps = self.maps.read();
        let rows = match kind {
            IdKind::User => &maps.uids,
            IdKind::Group => &maps.gids,
        };
        let shown = |row: &Extent| {
            [row.inside, seen_from.id_of(kind, row.kernel).unwrap_or(u32::MAX), row.count]
        };
        rows.iter().map(shown).collect()
    }

    /// Sets a map, once: `map_write`. `writer` is who writes, `opener` who opened the file.
    ///
    /// # Errors
    /// `EPERM` where there is a map or the writer may not, `EINVAL` for rows that make none.
    pub(crate) fn set_map(
        self: &Arc<Self>,
        kind: IdKind,
        rows: &[[u32; 3]],
        writer: &Credentials,
        opener: &Credentials,
    ) -> SysResult<()> {
        let parent = self.parent.as_ref().ok_or(Errno::EPERM)?;
        if !writer.user_ns.is(self) && !writer.user_ns.is(parent) {
            return Err(Errno::EPERM);
        }
        let mut maps = self.maps.write();
        let present = match kind {
            IdKind::User => &maps.uids,
            IdKind::Group => &maps.gids,
        };
        if !present.is_empty() || !opener.is_capable_in(self, CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        check_rows(rows)?;
        self.check_may_map(kind, rows, writer, opener, maps.denies_setgroups)?;
        let mut extents = Vec::with_capacity(rows.len());
        for &[inside, below, count] in rows {
            extents.push(Extent {
                inside,
                kernel: parent.kernel_range(kind, below, count)?,
                count,
            });
        }
        match kind {
            IdKind::User => maps.uids = extents,
            IdKind::Group => maps.gids = extents,
        }
        self.has_maps.store(true, Ordering::Release);
        Ok(())
    }

    /// `new_idmap_permitted` and `verify_root_map`.
    fn check_may_map(
        &self,
        kind: IdKind,
        rows: &[[u32; 3]],
        writer: &Credentials,
        opener: &Credentials,
        denies_setgroups: bool,
    ) -> SysResult<()> {
        let parent = self.parent.as_ref().ok_or(Errno::EPERM)?;
        let maps_root = kind == IdKind::User && rows.iter().any(|row| row[1] == 0);
        if maps_root {
            let may = if opener.user_ns.is(self) {
                self.creator_had_setfcap
            } else {
                opener.is_capable_in(parent, CAP_SETFCAP)
            };
            if !may {
                return Err(Errno::EPERM);
            }
        }
        if let [[_, below, 1]] = rows
            && writer.euid == self.owner
        {
            let target = parent.kernel_id(kind, *below);
            match kind {
                IdKind::User if target == Some(writer.euid) => return Ok(()),
                IdKind::Group if denies_setgroups && target == Some(writer.egid) => return Ok(()),
                _ => {}
            }
        }
        let capability = match kind {
            IdKind::User => CAP_SETUID,
            IdKind::Group => CAP_SETGID,
        };
        if writer.is_capable_in(parent, capability) && opener.is_capable_in(parent, capability) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Returns the kernel id of the first of `count` consecutive ids that the namespace maps in one
    /// piece.
    fn kernel_range(&self, kind: IdKind, first: u32, count: u32) -> SysResult<u32> {
        let last = first.checked_add(count.saturating_sub(1)).ok_or(Errno::EINVAL)?;
        if self.is_initial() {
            let has_all = match kind {
                IdKind::User => self.container.has_uids(first, last),
                IdKind::Group => self.container.has_gids(first, last),
            };
            return if has_all { Ok(first) } else { Err(Errno::EPERM) };
        }
        let (from, to) = (self.kernel_id(kind, first), self.kernel_id(kind, last));
        match (from, to) {
            (Some(from), Some(to)) if to.checked_sub(from) == last.checked_sub(first) => Ok(from),
            _ => Err(Errno::EPERM),
        }
    }

    /// Counts a new namespace that belongs to this one.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(crate) fn count(self: &Arc<Self>, kind: Kind) -> SysResult<Counted> {
        let mut at = Some(self);
        while let Some(namespace) = at {
            let (Some(count), Some(limit)) =
                (namespace.counts.get(kind as usize), namespace.limits.get(kind as usize))
            else {
                return Err(Errno::ENOSPC);
            };
            let limit = limit.load(Ordering::Relaxed);
            if count.fetch_add(1, Ordering::SeqCst) >= limit {
                self.uncount(kind, namespace.parent.as_ref());
                return Err(Errno::ENOSPC);
            }
            at = namespace.parent.as_ref();
        }
        Ok(Counted { by: self.clone(), kind })
    }

    /// Counts one less here and above, up to but without `end`.
    fn uncount(self: &Arc<Self>, kind: Kind, end: Option<&Arc<Self>>) {
        let mut at = Some(self);
        while let Some(namespace) = at {
            if end.is_some_and(|end| Arc::ptr_eq(end, namespace)) {
                return;
            }
            if let Some(count) = namespace.counts.get(kind as usize) {
                count.fetch_sub(1, Ordering::SeqCst);
            }
            at = namespace.parent.as_ref();
        }
    }

    /// Returns how many namespaces of a kind there may be.
    pub(crate) fn limit(&self, kind: Kind) -> usize {
        let limit = self.limits.get(kind as usize);
        // A fresh namespace has no limit of its own: Linux shows the largest number.
        let largest = usize::try_from(i32::MAX).unwrap_or(usize::MAX);
        limit.map_or(0, |limit| limit.load(Ordering::Relaxed)).min(largest)
    }

    /// Changes how many namespaces of a kind there may be.
    pub(crate) fn set_limit(&self, kind: Kind, limit: usize) {
        if let Some(slot) = self.limits.get(kind as usize) {
            // More than this the sandbox does not hold.
            let most = if self.is_initial() { DEFAULT_MAX } else { usize::MAX };
            slot.store(limit.min(most), Ordering::Relaxed);
        }
    }
}

impl Extent {
    fn inside_of(&self, kernel: u32) -> Option<u32> {
        let at = kernel.checked_sub(self.kernel).filter(|at| *at < self.count)?;
        self.inside.checked_add(at)
    }

    fn kernel_of(&self, inside: u32) -> Option<u32> {
        let at = inside.checked_sub(self.inside).filter(|at| *at < self.count)?;
        self.kernel.checked_add(at)
    }
}

/// Checks that rows are a map: not empty, without an overlap on either side, within 32 bits.
fn check_rows(rows: &[[u32; 3]]) -> SysResult<()> {
    if rows.is_empty() || rows.len() > MAX_EXTENTS {
        return Err(Errno::EINVAL);
    }
    for side in [0, 1] {
        let mut ranges = Vec::with_capacity(rows.len());
        for row in rows {
            let first = row.get(side).copied().unwrap_or(u32::MAX);
            let end = first.checked_add(row[2]).ok_or(Errno::EINVAL)?;
            if first == u32::MAX || row[2] == 0 {
                return Err(Errno::EINVAL);
            }
            ranges.push((first, end));
        }
        ranges.sort_unstable();
        let overlaps = ranges.iter().zip(ranges.iter().skip(1)).any(|(one, next)| one.1 > next.0);
        if overlaps {
            return Err(Errno::EINVAL);
        }
    }
    Ok(())
}

impl Credentials {
    /// Returns whether `capability` is effective in the caller's own user namespace, and so for
    /// what belongs to that (`ns_capable(current_user_ns())`).
    pub(crate) fn has_own_capability(&self, capability: u32) -> bool {
        self.effective.checked_shr(capability).unwrap_or(0) & 1 != 0
    }

    /// Returns whether `capability` is effective for what belongs to a user namespace:
    /// `ns_capable`.
    pub(crate) fn is_capable_in(&self, namespace: &UserNamespace, capability: u32) -> bool {
        let mut at = namespace;
        loop {
            if at.is(&self.user_ns) {
                return self.has_own_capability(capability);
            }
            let Some(parent) = at.parent.as_ref().filter(|_| at.level > self.user_ns.level) else {
                return false;
            };
            if parent.is(&self.user_ns) && at.owner == self.euid {
                return true;
            }
            at = parent;
        }
    }

    /// Returns whether `capability` is effective for a file of this user and group:
    /// `capable_wrt_inode_uidgid`.
    pub(crate) fn is_capable_over(&self, uid: u32, gid: u32, capability: u32) -> bool {
        self.has_own_capability(capability)
            && self.user_ns.uid_of(uid).is_some()
            && self.user_ns.gid_of(gid).is_some()
    }

    /// Puts the credentials into a user namespace, with every capability there:
    /// `set_cred_user_ns`.
    pub(crate) fn enter_user_ns(&mut self, namespace: Arc<UserNamespace>) {
        self.securebits = 0;
        self.inheritable = 0;
        self.permitted = super::creds::ALL_CAPABILITIES;
        self.effective = super::creds::ALL_CAPABILITIES;
        self.bounding = super::creds::ALL_CAPABILITIES;
        self.ambient = 0;
        self.user_ns = namespace;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> Credentials {
        let root = Credentials::root(if uid == 0 { u64::MAX } else { 0 });
        Credentials { uid, euid: uid, suid: uid, fsuid: uid, gid: uid, egid: uid, ..root }
    }

    fn mapped(creator: &Credentials, inside: u32) -> (Arc<UserNamespace>, Credentials) {
        let namespace = UserNamespace::new_below(creator, 7).unwrap();
        let mut member = creator.clone();
        member.enter_user_ns(namespace.clone());
        let below = creator.user_ns.uid_of(creator.euid).unwrap();
        namespace.set_map(IdKind::User, &[[inside, below, 1]], &member, &member).unwrap();
        (namespace, member)
    }

    /// Maps the one group as well, without which no further namespace can be made below.
    fn map_group(namespace: &Arc<UserNamespace>, member: &Credentials, row: [u32; 3]) {
        namespace.set_setgroups(false).unwrap();
        namespace.set_map(IdKind::Group, &[row], member, member).unwrap();
    }

    #[test]
    fn own_user_is_mapped_without_privilege_and_only_once() {
        let (namespace, member) = mapped(&user(1000), 0);
        assert_eq!(namespace.uid_of(1000), Some(0));
        assert_eq!((namespace.shown_uid(7), namespace.kuid(1)), (OVERFLOW_ID, None));
        let again = namespace.set_map(IdKind::User, &[[0, 1000, 1]], &member, &member);
        assert_eq!(again, Err(Errno::EPERM));
        let others = UserNamespace::new_below(&user(1000), 7).unwrap();
        let mut member = user(1000);
        member.enter_user_ns(others.clone());
        let foreign = others.set_map(IdKind::User, &[[0, 1001, 1]], &member, &member);
        assert_eq!(foreign, Err(Errno::EPERM));
    }

    #[test]
    fn own_group_is_mapped_only_where_setgroups_is_denied() {
        let (namespace, member) = mapped(&user(1000), 0);
        let map = |member: &Credentials| {
            namespace.set_map(IdKind::Group, &[[0, 1000, 1]], member, member)
        };
        assert_eq!(map(&member), Err(Errno::EPERM));
        assert_eq!(namespace.set_setgroups(false), Ok(()));
        assert_eq!(map(&member), Ok(()));
        assert_eq!(namespace.set_setgroups(true), Err(Errno::EPERM));
        assert!(!namespace.may_setgroups());
    }

    #[test]
    fn capabilities_reach_down_and_not_up() {
        let creator = user(1000);
        let (namespace, member) = mapped(&creator, 0);
        assert!(member.has_own_capability(CAP_SYS_ADMIN));
        assert!(!member.has_capability(CAP_SYS_ADMIN));
        assert!(!member.is_capable_in(&creator.user_ns, CAP_SYS_ADMIN));
        assert!(creator.is_capable_in(&namespace, CAP_SYS_ADMIN));
        assert!(!user(1001).is_capable_in(&namespace, CAP_SYS_ADMIN));
        assert!(!member.is_capable_over(1000, 1000, CAP_SYS_ADMIN), "the group is not mapped");
        assert!(matches!(UserNamespace::new_below(&member, 7), Err(Errno::EPERM)));
        map_group(&namespace, &member, [0, 1000, 1]);
        assert!(member.is_capable_over(1000, 1000, CAP_SYS_ADMIN));
        let (below, _) = mapped(&member, 5);
        assert_eq!(below.uid_of(1000), Some(5));
        assert_eq!(below.rows(IdKind::User, &below), vec![[5, 0, 1]]);
        assert_eq!(below.rows(IdKind::User, &creator.user_ns), vec![[5, 1000, 1]]);
    }

    #[test]
    fn rows_that_overlap_make_no_map() {
        assert_eq!(check_rows(&[[0, 10, 5], [4, 100, 1]]), Err(Errno::EINVAL));
        assert_eq!(check_rows(&[[0, 10, 5], [5, 12, 1]]), Err(Errno::EINVAL));
        assert_eq!(check_rows(&[[0, 10, 5], [5, 9, 1]]), Ok(()));
        assert_eq!(check_rows(&[[0, u32::MAX, 1]]), Err(Errno::EINVAL));
        assert_eq!(check_rows(&[[0, 0, 0]]), Err(Errno::EINVAL));
        assert_eq!(check_rows(&[]), Err(Errno::EINVAL));
    }

    #[test]
    fn nesting_ends_and_counts_are_given_back() {
        let mut creds = user(0);
        for _ in 0..MAX_LEVEL {
            let (namespace, member) = mapped(&creds, 0);
            map_group(&namespace, &member, [0, 0, 1]);
            creds = member;
        }
        assert!(matches!(UserNamespace::new_below(&creds, 7), Err(Errno::ENOSPC)));
        let root = Credentials::root(0).user_ns;
        root.set_limit(Kind::Net, 1);
        let one = root.count(Kind::Net);
        assert!(matches!(root.count(Kind::Net), Err(Errno::ENOSPC)));
        drop(one);
        assert!(root.count(Kind::Net).is_ok());
    }
}
