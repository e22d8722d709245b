//! Who finds which key: permissions, possession, the search through keyrings.
//!
//! A key is possessed by whoever finds it from the keyrings of his thread, process and session on;
//! for him other permissions hold (`keyrings(7)`, "Possession").

use std::collections::BTreeSet;
use std::sync::Arc;

use syscalls::abi::keyctl::{
    KEY_SPEC_GROUP_KEYRING, KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_SESSION_KEYRING,
    KEY_SPEC_THREAD_KEYRING, KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING, KeyPerm,
};
use syscalls::{Errno, SysResult};

use super::{Key, KeyType, Keys, NewKey};
use crate::task::{Credentials, CurrentTask};

/// How deep keyrings are searched: `KEYRING_SEARCH_MAX_DEPTH`.
const MAX_DEPTH: usize = 6;

/// What is to be done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    View,
    Read,
    Write,
    Search,
    Link,
    SetAttr,
    /// Nothing that needs a right.
    Unlink,
    /// What is checked later.
    Deferred,
}

impl Need {
    /// Returns the bit of the permissions of others.
    fn bit(self) -> u32 {
        match self {
            Self::View => 1,
            Self::Read => 2,
            Self::Write => 4,
            Self::Search => 8,
            Self::Link => 0x10,
            Self::SetAttr => 0x20,
            Self::Unlink | Self::Deferred => 0,
        }
    }
}

/// Who looks for a key, and when.
pub(crate) struct Seeker {
    creds: Arc<Credentials>,
    now_ns: u64,
}

impl Seeker {
    /// Returns the caller, now.
    pub(crate) fn of(task: &CurrentTask) -> Self {
        Self { creds: task.creds(), now_ns: task.kernel.clock.boot_ns() }
    }

    fn may(&self, key: &Key, is_possessed: bool, need: Need) -> bool {
        let (uid, gid) = key.owner();
        let perm = key.perm();
        let bits = perm.bits();
        let is_in_group =
            gid != u32::MAX && perm.intersects(KeyPerm::GRP_ALL) && self.creds.is_in_group(gid);
        let mut granted = if uid == self.creds.fsuid {
            bits >> 16
        } else if is_in_group {
            bits >> 8
        } else {
            bits
        };
        if is_possessed {
            granted |= bits >> 24;
        }
        need.bit() & !granted == 0
    }
}

/// A key that has been found.
pub(crate) struct Found {
    pub(crate) key: Arc<Key>,
    pub(crate) is_possessed: bool,
}

impl Found {
    /// Checks a right.
    ///
    /// # Errors
    /// `EACCES`.
    pub(crate) fn check(&self, seeker: &Seeker, need: Need) -> SysResult<()> {
        if seeker.may(&self.key, self.is_possessed, need) { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// What a search is for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// A key that is called like this, and can be used.
    Named(KeyType, &'a [u8]),
    /// This one, in whatever state.
    This(&'a Arc<Key>),
}

impl Wanted<'_> {
    fn matches(&self, key: &Arc<Key>) -> bool {
        match self {
            Self::Named(kind, description) => key.kind == *kind && key.description == *description,
            Self::This(wanted) => Arc::ptr_eq(wanted, key),
        }
    }
}

/// A search through one keyring and those below it.
struct Search<'a> {
    seeker: &'a Seeker,
    wanted: Wanted<'a>,
    is_possessed: bool,
    seen: BTreeSet<i32>,
    /// Why a key that is called as wanted will not do.
    error: Errno,
}

impl Search<'_> {
    /// Looks at one key that is called as wanted.
    fn accepts(&mut self, key: &Key) -> bool {
        let checks_state = matches!(self.wanted, Wanted::Named(..));
        let verdict = match key.validate(self.seeker.now_ns) {
            Err(Errno::ENOKEY) => Err(Errno::EKEYREVOKED),
            result => result,
        };
        let verdict = if checks_state { verdict } else { Ok(()) };
        let verdict = verdict.and_then(|()| {
            let may_search = self.seeker.may(key, self.is_possessed, Need::Search);
            if may_search { Ok(()) } else { Err(Errno::EACCES) }
        });
        let verdict =
            if checks_state { verdict.and_then(|()| key.check_positive()) } else { verdict };
        if let Err(errno) = verdict {
            self.error = errno;
        }
        verdict.is_ok()
    }

    fn visit(&mut self, ring: &Arc<Key>, depth: usize) -> Option<Arc<Key>> {
        if !self.seen.insert(ring.serial) || ring.lock().is_revoked {
            return None;
        }
        let links = ring.links();
        let wanted = self.wanted;
        if let Some(key) = links.iter().find(|key| wanted.matches(key)) {
            return self.accepts(key).then(|| key.clone());
        }
        if depth >= MAX_DEPTH {
            return None;
        }
        let rings = links.iter().filter(|key| key.kind == KeyType::Keyring);
        for ring in rings {
            if self.seeker.may(ring, self.is_possessed, Need::Search)
                && let Some(found) = self.visit(ring, depth + 1)
            {
                return Some(found);
            }
        }
        None
    }
}

/// Searches a keyring and those below it: `keyring_search_rcu()`.
///
/// # Errors
/// `EAGAIN` where nothing is called so, `ENOTDIR`, `EACCES`, what is wrong with the key that is.
pub(crate) fn search(seeker: &Seeker, ring: &Found, wanted: Wanted<'_>) -> SysResult<Arc<Key>> {
    if ring.key.kind != KeyType::Keyring {
        return Err(Errno::ENOTDIR);
    }
    ring.check(seeker, Need::Search)?;
    let mut search = Search {
        seeker,
        wanted,
        is_possessed: ring.is_possessed,
        seen: BTreeSet::new(),
        error: Errno::EAGAIN,
    };
    if wanted.matches(&ring.key) {
        return if search.accepts(&ring.key) { Ok(ring.key.clone()) } else { Err(search.error) };
    }
    search.visit(&ring.key, 1).ok_or(search.error)
}

/// Searches the caller's keyrings: `search_process_keyrings_rcu()`.
///
/// # Errors
/// As [`search`]; that something is called so and will not do counts less than that nothing is.
pub(crate) fn search_own(
    keys: &Keys,
    task: &CurrentTask,
    seeker: &Seeker,
    wanted: Wanted<'_>,
) -> SysResult<Found> {
    let own = task.misc.lock().keyrings.clone();
    let session = match own.session {
        Some(session) => session,
        None => keys.user_keyrings(&task.kernel, task.creds().uid)?.session,
    };
    let mut absent = None;
    let mut error = Errno::EAGAIN;
    for ring in [own.thread, own.process, Some(session)].into_iter().flatten() {
        match search(seeker, &Found { key: ring, is_possessed: true }, wanted) {
            Ok(key) => return Ok(Found { key, is_possessed: true }),
            Err(Errno::ENOKEY) => absent = Some(Errno::ENOKEY),
            Err(Errno::EAGAIN) => absent = absent.or(Some(Errno::EAGAIN)),
            Err(errno) => error = errno,
        }
    }
    Err(absent.unwrap_or(error))
}

/// Which of the caller's own keyrings is meant.
#[derive(Clone, Copy)]
enum Own {
    Thread,
    Process,
}

/// Returns a keyring of the caller's own, made where `create` says so.
fn own_keyring(keys: &Keys, task: &CurrentTask, which: Own, create: bool) -> SysResult<Arc<Key>> {
    let (known, create) = {
        let misc = task.misc.lock();
        match which {
            Own::Thread => (misc.keyrings.thread.clone(), create || misc.keyrings.has_thread),
            Own::Process => (misc.keyrings.process.clone(), create),
        }
    };
    if let Some(known) = known {
        return Ok(known);
    }
    if !create {
        return Err(Errno::ENOKEY);
    }
    let name: &[u8] = match which {
        Own::Thread => b"_tid",
        Own::Process => b"_pid",
    };
    let new = new_keyring(keys, task, name, KeyPerm::POS_ALL | KeyPerm::USR_VIEW)?;
    let mut misc = task.misc.lock();
    match which {
        Own::Thread => misc.keyrings.thread = Some(new.clone()),
        Own::Process => misc.keyrings.process = Some(new.clone()),
    }
    Ok(new)
}

fn new_keyring(
    keys: &Keys,
    task: &CurrentTask,
    description: &[u8],
    perm: KeyPerm,
) -> SysResult<Arc<Key>> {
    let creds = task.creds();
    let new = NewKey {
        kind: KeyType::Keyring,
        description,
        uid: creds.uid,
        gid: creds.gid,
        perm: Some(perm),
        is_limited: false,
    };
    keys.make(&task.kernel, &new)
}

/// Gives the caller another session keyring: a new one, or the one with a name.
///
/// # Errors
/// `EIO` without random numbers.
pub(crate) fn join_session(
    keys: &Keys,
    task: &CurrentTask,
    name: Option<&[u8]>,
) -> SysResult<Arc<Key>> {
    let of_all = KeyPerm::POS_ALL | KeyPerm::USR_VIEW | KeyPerm::USR_READ;
    let ring = match name {
        None => new_keyring(keys, task, b"_ses", of_all)?,
        Some(name) => {
            let seeker = Seeker::of(task);
            let is_wanted = |key: &Arc<Key>| {
                key.kind == KeyType::Keyring
                    && key.description == name
                    && !key.lock().is_revoked
                    && seeker.may(key, false, Need::Search)
            };
            match keys.all().into_iter().find(is_wanted) {
                Some(found) => found,
                None => new_keyring(keys, task, name, of_all | KeyPerm::USR_LINK)?,
            }
        }
    };
    let old = task.misc.lock().keyrings.session.replace(ring.clone());
    drop(old);
    Ok(ring)
}

/// How a key is looked up besides what it is needed for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookup {
    /// The caller's own keyrings are made where they are missing.
    pub(crate) create: bool,
    /// A key will do that cannot be used.
    pub(crate) partial: bool,
}

/// Finds the key that a number stands for: `lookup_user_key()`.
///
/// # Errors
/// `EINVAL`, `ENOKEY`, `EKEYREVOKED`, `EKEYEXPIRED`, `EACCES`.
pub(crate) fn look_up(
    keys: &Keys,
    task: &CurrentTask,
    id: i32,
    how: Lookup,
    need: Need,
) -> SysResult<Found> {
    let seeker = Seeker::of(task);
    let possessed = |key| Found { key, is_possessed: true };
    let users = || keys.user_keyrings(&task.kernel, task.creds().uid);
    let found = match id {
        KEY_SPEC_THREAD_KEYRING => possessed(own_keyring(keys, task, Own::Thread, how.create)?),
        KEY_SPEC_PROCESS_KEYRING => possessed(own_keyring(keys, task, Own::Process, how.create)?),
        KEY_SPEC_SESSION_KEYRING => {
            let own = task.misc.lock().keyrings.session.clone();
            possessed(match own {
                Some(own) => own,
                None if how.create => join_session(keys, task, None)?,
                None => users()?.session,
            })
        }
        KEY_SPEC_USER_KEYRING => possessed(users()?.user),
        KEY_SPEC_USER_SESSION_KEYRING => possessed(users()?.session),
        KEY_SPEC_GROUP_KEYRING => return Err(Errno::EINVAL),
        // Those of whoever is asked to make a key: nobody is.
        _ if (-8..0).contains(&id) => return Err(Errno::ENOKEY),
        _ if id < 1 => return Err(Errno::EINVAL),
        _ => {
            let key = keys.by_serial(id)?;
            let is_possessed = search_own(keys, task, &seeker, Wanted::This(&key)).is_ok();
            Found { key, is_possessed }
        }
    };
    if need == Need::Unlink {
        return Ok(found);
    }
    if need != Need::Deferred {
        if !how.partial {
            found.key.check_positive()?;
        }
        found.key.validate(seeker.now_ns)?;
    }
    found.check(&seeker, need)?;
    Ok(found)
}

/// Checks that a keyring is not below another one that is to be linked to it.
///
/// # Errors
/// `EDEADLK` where it is, `ELOOP` where that cannot be said.
pub(super) fn check_no_loop(ring: &Arc<Key>, below: &Arc<Key>) -> SysResult<()> {
    let mut seen = BTreeSet::new();
    let mut level = vec![below.clone()];
    for _ in 0..=MAX_DEPTH {
        if level.iter().any(|key| Arc::ptr_eq(key, ring)) {
            return Err(Errno::EDEADLK);
        }
        let mut next = Vec::new();
        for key in &level {
            if seen.insert(key.serial) {
                let links = key.links().into_iter();
                next.extend(links.filter(|key| key.kind == KeyType::Keyring));
            }
        }
        if next.is_empty() {
            return Ok(());
        }
        level = next;
    }
    Err(Errno::ELOOP)
}
