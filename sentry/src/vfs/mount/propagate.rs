//! Propagation: what is mounted below a shared mount appears below its peers and their slaves, in
//! whatever namespace those are (Linux's `Documentation/filesystems/sharedsubtree.rst`).
//!
//! A [`Family`] is the namespaces that come from copies of one another: groups of peers do not
//! reach beyond it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use syscalls::{Errno, SysResult};

use super::{MOUNT_MAX, Mount, MountNamespace, Propagation, next_group};
use crate::sync::{Events, Mutex};
use crate::task::user_namespace::UserNamespace;
use crate::vfs::dentry::Dentry;

/// The namespaces between which mounts propagate.
#[derive(Default)]
pub(super) struct Family {
    /// Held for every change of a tree in one of them.
    pub(super) lock: Mutex<()>,
    members: Mutex<Vec<Weak<MountNamespace>>>,
}

/// A mount, and the namespace that it is in.
type Seen = (Arc<MountNamespace>, Arc<Mount>);

/// What copies of one source mount are in one group of the destination.
#[derive(Clone, Copy, Default)]
struct Role {
    shared: Option<u64>,
    master: Option<u64>,
}

impl Family {
    pub(super) fn add(&self, namespace: &Arc<MountNamespace>) {
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(namespace));
    }

    /// Returns the namespaces that still exist.
    fn members(&self) -> Vec<Arc<MountNamespace>> {
        self.members.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn all(&self) -> Vec<Seen> {
        let of = |member: Arc<MountNamespace>| {
            let mounts = member.mounts();
            mounts.into_iter().map(move |mount| (member.clone(), mount))
        };
        self.members().into_iter().flat_map(of).collect()
    }

    /// Checks that there is room for `n` further mounts.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(super) fn check_room(&self, n: usize) -> SysResult<()> {
        let n_now: usize = self.members().iter().map(|member| member.mounts().len()).sum();
        if n_now.saturating_add(n) > MOUNT_MAX { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Returns whether a group has a member beside `mount`.
    pub(super) fn has_peer(&self, group: u64, mount: &Arc<Mount>) -> bool {
        self.all().iter().any(|(_, other)| {
            other.propagation().shared == Some(group) && !Arc::ptr_eq(other, mount)
        })
    }

    /// Returns the mounts to which a change below `mount` propagates, with the groups through which
    /// it comes, outermost first.
    fn targets(&self, mount: &Arc<Mount>) -> Vec<(Seen, Group)> {
        let Some(first) = mount.propagation().shared else { return Vec::new() };
        let all = self.all();
        let mut found = Vec::new();
        let mut groups = vec![(first, None)];
        let mut next = 0;
        while let Some(&(group, above)) = groups.get(next) {
            next += 1;
            for seen in &all {
                let Propagation { shared, master, .. } = seen.1.propagation();
                if shared == Some(group) && !Arc::ptr_eq(&seen.1, mount) {
                    found.push((seen.clone(), Group { id: Some(group), above }));
                }
                if master != Some(group) || Arc::ptr_eq(&seen.1, mount) {
                    continue;
                }
                match shared {
                    Some(own) if groups.iter().all(|(known, _)| *known != own) => {
                        groups.push((own, Some(group)));
                    }
                    Some(_) => {}
                    None => found.push((seen.clone(), Group { id: None, above: Some(group) })),
                }
            }
        }
        found
    }

    /// Attaches copies of a tree that has just been attached at `point` of `to` wherever that
    /// propagates. `owner` is the user namespace of the namespace that `to` is in.
    ///
    /// # Errors
    /// `ENOSPC` where there would be too many; nothing has been attached then.
    pub(super) fn mounted(
        &self,
        to: &Arc<Mount>,
        point: &Arc<Dentry>,
        tree: &Arc<Mount>,
        owner: &UserNamespace,
    ) -> SysResult<()> {
        let Some(first) = to.propagation().shared else { return Ok(()) };
        let is_shown =
            |target: &Mount| Arc::ptr_eq(&target.sb, &to.sb) && point.is_below(&target.root);
        let targets: Vec<_> =
            self.targets(to).into_iter().filter(|((_, target), _)| is_shown(target)).collect();
        let sources = MountNamespace::tree(tree);
        self.check_room(targets.len().saturating_mul(sources.len()))?;
        // In the first group the copies are peers of the sources.
        let own: Vec<Role> = sources
            .iter()
            .map(|source| {
                let mut propagation = source.propagation.lock();
                let shared = *propagation.shared.get_or_insert_with(next_group);
                Role { shared: Some(shared), master: propagation.master }
            })
            .collect();
        let mut roles = HashMap::from([(first, own)]);
        for ((namespace, target), group) in targets {
            let Some(role) = role_in(&mut roles, group) else { continue };
            let (copy, copies) = MountNamespace::copy_tree(tree, &tree.root, true);
            for (copied, role) in copies.iter().zip(&role) {
                copied.1.propagation.lock().shared = role.shared;
                copied.1.propagation.lock().master = role.master;
            }
            if !namespace.owner.is(owner) {
                copies.iter().for_each(|(_, copy)| copy.lock_for_others());
            }
            copy.set_locked(false);
            let (at, point) = top_at(&target, point);
            at.attach(&point, &copy);
            namespace.announce();
        }
        Ok(())
    }

    /// Detaches what lies where a mount lies, wherever the place propagates to, unless it is in use
    /// as a place itself.
    pub(super) fn unmounted(&self, from: &Arc<Mount>, point: &Arc<Dentry>) {
        for ((namespace, target), _) in self.targets(from) {
            let Some(child) = target.child_at(point) else { continue };
            if child.is_locked() || !child.children.read().is_empty() {
                continue;
            }
            child.detach();
            namespace.announce();
        }
    }

    /// Detaches what lies on a dentry in any of the namespaces, and what is mounted below.
    pub(super) fn detach_from(&self, dentry: &Arc<Dentry>) {
        let lies_there =
            |mount: &Mount| mount.point().is_some_and(|point| Arc::ptr_eq(&point.dentry, dentry));
        for (namespace, mount) in self.all().into_iter().filter(|(_, mount)| lies_there(mount)) {
            for mount in MountNamespace::tree(&mount).iter().rev() {
                mount.detach();
            }
            namespace.announce();
        }
    }
}

/// A group through which a change comes: its number, none for a slave that is not shared, and that
/// of which it is a slave.
#[derive(Clone, Copy)]
struct Group {
    id: Option<u64>,
    above: Option<u64>,
}

/// Returns what the copies in a group are: peers of one another, and slaves of those in the group
/// above.
fn role_in(roles: &mut HashMap<u64, Vec<Role>>, group: Group) -> Option<Vec<Role>> {
    if let Some(known) = group.id.and_then(|id| roles.get(&id)) {
        return Some(known.clone());
    }
    let above = match group.above {
        Some(above) => match roles.get(&above) {
            Some(known) => known.clone(),
            None => return None,
        },
        None => return None,
    };
    let slave = |role: &Role| Role {
        shared: group.id.map(|_| next_group()),
        master: role.shared.or(role.master),
    };
    let new: Vec<Role> = above.iter().map(slave).collect();
    if let Some(id) = group.id {
        roles.insert(id, new.clone());
    }
    Some(new)
}

/// Returns where something that is mounted on `point` of a mount comes to lie: on what is there.
fn top_at(mount: &Arc<Mount>, point: &Arc<Dentry>) -> (Arc<Mount>, Arc<Dentry>) {
    let (mut mount, mut point) = (mount.clone(), point.clone());
    while let Some(above) = mount.child_at(&point) {
        point = above.root.clone();
        mount = above;
    }
    (mount, point)
}

impl MountNamespace {
    /// Tells whoever watches the tree that it has changed.
    pub(super) fn announce(&self) {
        self.changes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.events.notify(Events::ERR | Events::PRI);
    }
}
