//! Landlock (`landlock(7)`): a thread takes rights away from itself and from what it makes.
//!
//! A [`Ruleset`] is written by its makers and then copied into a [`Domain`] as one of its layers. A domain
//! belongs to the credentials of a thread and never changes. A domain has its maker's layers and one
//! more: what one of them handles and allows nowhere is refused. Threads without a domain pay nothing
//! but the look whether they have one.
//!
//! A rule is tied to a file, not to a name: it counts for the file and, where that is a directory, for
//! all that lies below it, by whichever mount. It keeps the file's dentry, so that the file goes on
//! being the same one.
//!
//! DEVIATION: a rule for a directory of a process below `/proc` counts for what was open when the rule
//! was made only: each look finds another inode there.

mod files;
mod ruleset;

use std::collections::BTreeMap;
use std::sync::Arc;

use syscalls::abi::landlock::{AccessFs, AccessNet, Scopes};
use syscalls::abi::socket::{AF_INET, AF_INET6, AF_UNSPEC, IPPROTO_TCP, SOCK_STREAM};
use syscalls::{Errno, SysResult};

use crate::task::CurrentTask;
use crate::vfs::Path;
use crate::vfs::dentry::Dentry;

pub(crate) use files::{LATER, Moved, to_make};
pub(crate) use ruleset::RulesetFile;

/// The most layers of a domain.
const MAX_LAYERS: usize = 16;

/// What rules of ports can be about, as many as there are.
type PortRules = BTreeMap<u16, AccessNet>;

/// What a ruleset says, and a layer of a domain.
#[derive(Clone, Default)]
pub(crate) struct Ruleset {
    handled_fs: AccessFs,
    handled_net: AccessNet,
    scoped: Scopes,
    /// By the address of the inode.
    files: BTreeMap<usize, FileRule>,
    ports: PortRules,
}

#[derive(Clone)]
struct FileRule {
    /// Keeps the inode where it is.
    _dentry: Arc<Dentry>,
    allowed: AccessFs,
}

/// What binds a thread.
pub(crate) struct Domain {
    /// The domain of whoever made this one.
    parent: Option<Arc<Domain>>,
    /// How many layers there are, this one included.
    n_layers: usize,
    layer: Ruleset,
}

impl std::fmt::Debug for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Domain of {} layers", self.n_layers)
    }
}

impl Drop for Domain {
    /// Lets go of the parents one by one; there are few of them.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut domain) = next.and_then(Arc::into_inner) {
            next = domain.parent.take();
        }
    }
}

fn key(dentry: &Dentry) -> usize {
    Arc::as_ptr(dentry.inode()).cast::<()>().addr()
}

impl Domain {
    /// Returns all layers, the innermost first.
    fn layers(&self) -> impl Iterator<Item = &Ruleset> {
        self.chain().map(|domain| &domain.layer)
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |domain| domain.parent.as_deref())
    }

    /// Returns whether any layer is about files.
    pub(crate) fn handles_files(&self) -> bool {
        self.layers().any(|layer| !layer.handled_fs.is_empty())
    }

    /// Returns whether a port may be used so.
    pub(crate) fn allows_port(&self, port: u16, access: AccessNet) -> bool {
        self.layers().all(|layer| {
            let allowed = layer.ports.get(&port).copied().unwrap_or_default();
            allowed.contains(access & layer.handled_net)
        })
    }

    /// Returns whether a thread in this domain keeps from reaching one in `other` in this way
    /// (`domain_is_scoped`): where a layer is scoped that the other one does not have.
    pub(crate) fn is_scoped_from(&self, other: Option<&Arc<Self>>, scope: Scopes) -> bool {
        self.chain()
            .filter(|domain| domain.layer.scoped.contains(scope))
            .any(|domain| !domain.is_or_is_above(other))
    }

    /// Returns whether `other` is this domain or was made in it.
    pub(crate) fn is_or_is_above(&self, other: Option<&Arc<Self>>) -> bool {
        other.is_some_and(|other| other.chain().any(|domain| std::ptr::eq(domain, self)))
    }
}

/// Returns whether whoever has domain `own` may look into a process with domain `other`: a process
/// that is bound by no less.
pub(crate) fn may_trace(own: Option<&Arc<Domain>>, other: Option<&Arc<Domain>>) -> bool {
    own.is_none_or(|own| own.is_or_is_above(other))
}

/// Returns the places from one up to the root of everything, crossing mounts; with them, whether the
/// last one is within what the kernel keeps to itself and no ruleset is about.
fn places_above(path: &Path) -> (Vec<Arc<Dentry>>, bool) {
    let mut places = vec![path.dentry.clone()];
    let mut at = path.clone();
    loop {
        if at.is_mount_root() {
            let Some(point) = at.mount.point() else { return (places, at.mount.is_internal()) };
            at = point;
        } else if let Some(parent) = at.dentry.parent() {
            at.dentry = parent;
        } else {
            return (places, at.mount.is_internal());
        }
        places.push(at.dentry.clone());
    }
}

/// Fails where the caller may not use the port of an address so, given family, type and protocol of the
/// socket.
///
/// # Errors
/// `EACCES`.
pub(crate) fn check_port(
    task: &CurrentTask,
    (family, kind, protocol): (i32, i32, i32),
    addr: &[u8],
    access: AccessNet,
) -> SysResult<()> {
    let creds = task.creds();
    let Some(domain) = &creds.landlock else { return Ok(()) };
    let is_tcp = matches!(family, AF_INET | AF_INET6)
        && kind == SOCK_STREAM
        && matches!(protocol, 0 | IPPROTO_TCP);
    let Some([low, high, first, second]) = addr.first_chunk().copied() else { return Ok(()) };
    let given = i32::from(u16::from_ne_bytes([low, high]));
    // Without a family a connection is given up; a name is that of the socket's own family.
    let names_port = matches!(given, AF_INET | AF_INET6)
        || (given == AF_UNSPEC && access.contains(AccessNet::BIND_TCP));
    let port = u16::from_be_bytes([first, second]);
    if is_tcp && names_port && !domain.allows_port(port, access) {
        return Err(Errno::EACCES);
    }
    Ok(())
}
