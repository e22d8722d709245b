//! Keys and keyrings (`keyrings(7)`): what a container's processes leave with the kernel.
//!
//! A [`Key`] lives for as long as a keyring, a thread or a user holds it; [`Keys`] finds it by its
//! serial number and counts what each user has. [`search`] says who finds which key and may do what
//! with it, [`show`] is what `/proc` tells.
//!
//! Locks, outermost first: `Keys::linking`, `State` of a key, and the leaves: those of [`Registry`]
//! and of a user's [`Usage`]. A key's drop takes the leaves: nobody holds one when he lets a key go.

pub(crate) mod search;
pub(crate) mod show;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::keyctl::KeyPerm;
use syscalls::{Errno, SysResult};

use self::search::Seeker;
use crate::kernel::Kernel;
use crate::sync::{Mutex, MutexGuard};
use crate::task::CurrentTask;

/// The longest payload of any type.
pub(crate) const MAX_PAYLOAD: usize = (1 << 20) - 1;

/// The longest payload of `user` and `logon` keys.
const MAX_USER_PAYLOAD: usize = 32_767;

/// What a link to a key counts against its owner's quota: `KEYQUOTA_LINK_BYTES`.
const LINK_BYTES: usize = 4;

/// What the payload of a `big_key` counts, which lies elsewhere: `big_key_preparse()`.
const BIG_KEY_BYTES: usize = 16;

/// The most bytes that all payloads may have together: they are the sentry's memory.
const MAX_ALL_PAYLOADS: usize = 64 << 20;

/// The most keys of a container, whatever its users' limits: they are the sentry's memory as well.
const MAX_KEYS: usize = 1 << 16;

/// The most users that are remembered without a key.
const MAX_IDLE_USERS: usize = 4096;

/// How long a key says that it has been asked for in vain: `key_negative_timeout`, in nanoseconds.
const NEGATIVE_NS: u64 = 60_000_000_000;

/// The types of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Keyring,
    User,
    /// As `User`, but cannot be read.
    Logon,
    /// As `User`, for long payloads.
    BigKey,
}

impl KeyType {
    /// Returns the type with this name.
    pub(crate) fn by_name(name: &[u8]) -> Option<Self> {
        [Self::Keyring, Self::User, Self::Logon, Self::BigKey]
            .into_iter()
            .find(|kind| kind.name().as_bytes() == name)
    }

    /// Returns the name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::User => "user",
            Self::Logon => "logon",
            Self::BigKey => "big_key",
        }
    }

    /// Returns whether keys can be read.
    pub(crate) fn can_read(self) -> bool {
        self != Self::Logon
    }

    /// Returns whether keys can get another payload.
    pub(crate) fn can_update(self) -> bool {
        self != Self::Keyring
    }

    /// Checks a payload and returns what it counts.
    fn check_payload(self, payload: &[u8]) -> SysResult<usize> {
        let n = payload.len();
        match self {
            Self::Keyring if n == 0 => Ok(0),
            Self::User | Self::Logon if (1..=MAX_USER_PAYLOAD).contains(&n) => Ok(n),
            Self::BigKey if (1..=MAX_PAYLOAD).contains(&n) => Ok(BIG_KEY_BYTES),
            _ => Err(Errno::EINVAL),
        }
    }

    fn check_description(self, description: &[u8]) -> SysResult<()> {
        let colon = description.iter().position(|byte| *byte == b':');
        let is_valid = match self {
            // The service comes first.
            Self::Logon => colon.is_some_and(|at| at > 0),
            _ => !description.is_empty(),
        };
        if is_valid { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Returns the permissions of a new key.
    fn default_perm(self) -> KeyPerm {
        let mut perm = KeyPerm::POS_VIEW
            | KeyPerm::POS_SEARCH
            | KeyPerm::POS_LINK
            | KeyPerm::POS_SETATTR
            | KeyPerm::USR_VIEW;
        perm.set(KeyPerm::POS_READ, self.can_read());
        perm.set(KeyPerm::POS_WRITE, true);
        perm
    }
}

/// What a user has.
#[derive(Debug, Default)]
struct Usage {
    n_keys: usize,
    n_bytes: usize,
}

/// A user who has keys.
#[derive(Debug)]
pub(crate) struct KeyUser {
    uid: u32,
    usage: Mutex<Usage>,
}

/// The most that a user may have.
#[derive(Clone, Copy, Debug)]
struct Limits {
    n_keys: usize,
    n_bytes: usize,
}

impl Limits {
    fn of(kernel: &Kernel, uid: u32) -> Self {
        let number = |path: &str| {
            let number = kernel.sysctls.number(path, 0).unwrap_or(0);
            usize::try_from(number).unwrap_or(0)
        };
        if uid == 0 {
            let n_keys = number("kernel/keys/root_maxkeys");
            Self { n_keys, n_bytes: number("kernel/keys/root_maxbytes") }
        } else {
            let n_keys = number("kernel/keys/maxkeys");
            Self { n_keys, n_bytes: number("kernel/keys/maxbytes") }
        }
    }
}

impl KeyUser {
    /// Counts a key, whatever the limits where there are none.
    fn add_key(&self, bytes: usize, limits: Option<Limits>) -> SysResult<()> {
        let mut usage = self.usage.lock();
        let n_bytes = usage.n_bytes.saturating_add(bytes);
        if let Some(limits) = limits
            && (usage.n_keys >= limits.n_keys || n_bytes > limits.n_bytes)
        {
            return Err(Errno::EDQUOT);
        }
        usage.n_keys = usage.n_keys.saturating_add(1);
        usage.n_bytes = n_bytes;
        Ok(())
    }

    /// Counts `new` bytes instead of `old`.
    fn recount(&self, old: usize, new: usize, limits: Limits) -> SysResult<()> {
        let mut usage = self.usage.lock();
        let n_bytes = usage.n_bytes.saturating_sub(old).saturating_add(new);
        if new > old && n_bytes > limits.n_bytes {
            return Err(Errno::EDQUOT);
        }
        usage.n_bytes = n_bytes;
        Ok(())
    }

    fn remove_key(&self, bytes: usize) {
        let mut usage = self.usage.lock();
        usage.n_keys = usage.n_keys.saturating_sub(1);
        usage.n_bytes = usage.n_bytes.saturating_sub(bytes);
    }
}

/// What finds keys and users.
#[derive(Default)]
struct Registry {
    by_serial: Mutex<BTreeMap<i32, Weak<Key>>>,
    users: Mutex<BTreeMap<u32, Arc<KeyUser>>>,
    /// Bytes of all payloads.
    n_payload: AtomicUsize,
}

/// The keyrings of a user.
#[derive(Clone)]
pub(crate) struct UserKeyrings {
    pub(crate) user: Arc<Key>,
    pub(crate) session: Arc<Key>,
}

/// The keys of a container.
#[derive(Default)]
pub(crate) struct Keys {
    registry: Arc<Registry>,
    /// Held while a keyring is linked to another, so that no two links make a loop.
    linking: Mutex<()>,
    user_keyrings: Mutex<BTreeMap<u32, UserKeyrings>>,
}

/// The keyrings of a thread, and where `request_key(2)` puts what it makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyrings {
    pub(crate) thread: Option<Arc<Key>>,
    pub(crate) process: Option<Arc<Key>>,
    pub(crate) session: Option<Arc<Key>>,
    /// Whether the thread gets a keyring of its own as soon as one looks: whoever made it had one.
    pub(crate) has_thread: bool,
    /// `KEYCTL_SET_REQKEY_KEYRING`.
    pub(crate) request_default: i32,
}

impl Keyrings {
    /// Drops what a new thread or process does not get.
    pub(crate) fn on_clone(&mut self, is_thread: bool) {
        self.has_thread = is_thread && (self.has_thread || self.thread.is_some());
        self.thread = None;
        if !is_thread {
            self.process = None;
        }
    }

    /// Drops what a new program does not get.
    pub(crate) fn on_exec(&mut self) {
        self.has_thread = false;
        self.thread = None;
        self.process = None;
    }
}

/// What changes of a key.
struct State {
    user: Arc<KeyUser>,
    uid: u32,
    gid: u32,
    perm: KeyPerm,
    /// When it expires, in nanoseconds since boot.
    expiry_ns: Option<u64>,
    is_revoked: bool,
    is_invalidated: bool,
    /// The error of a key that has been asked for in vain.
    rejection: Option<Errno>,
    /// Whether nothing can be linked any more: `KEYCTL_RESTRICT_KEYRING`.
    is_restricted: bool,
    payload: Vec<u8>,
    /// What a keyring holds.
    links: Vec<Arc<Key>>,
    /// What is counted against the owner's quota.
    n_bytes: usize,
}

/// A key.
pub(crate) struct Key {
    pub(crate) serial: i32,
    pub(crate) kind: KeyType,
    pub(crate) description: Vec<u8>,
    registry: Arc<Registry>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:#x})", self.serial)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let mut links = {
            let mut state = self.state.lock();
            state.user.remove_key(state.n_bytes);
            self.registry.n_payload.fetch_sub(state.payload.len(), Ordering::Relaxed);
            std::mem::take(&mut state.links)
        };
        self.registry.by_serial.lock().remove(&self.serial);
        // One after the other: keyrings can be nested as deep as their owner likes.
        while let Some(key) = links.pop() {
            if let Some(last) = Arc::into_inner(key) {
                links.append(&mut last.state.lock().links);
            }
        }
    }
}

/// What a new key is made of.
pub(crate) struct NewKey<'a> {
    pub(crate) kind: KeyType,
    pub(crate) description: &'a [u8],
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) perm: Option<KeyPerm>,
    /// Whether the owner's limits count.
    pub(crate) is_limited: bool,
}

impl Keys {
    /// Finds a key by its number.
    ///
    /// # Errors
    /// `ENOKEY`.
    pub(crate) fn by_serial(&self, serial: i32) -> SysResult<Arc<Key>> {
        let found = self.registry.by_serial.lock().get(&serial).and_then(Weak::upgrade);
        found.ok_or(Errno::ENOKEY)
    }

    /// Returns all keys.
    fn all(&self) -> Vec<Arc<Key>> {
        self.registry.by_serial.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn user(&self, uid: u32) -> Arc<KeyUser> {
        let mut users = self.registry.users.lock();
        if users.len() > MAX_IDLE_USERS {
            users.retain(|_, user| Arc::strong_count(user) > 1);
        }
        let new = || Arc::new(KeyUser { uid, usage: Mutex::default() });
        users.entry(uid).or_insert_with(new).clone()
    }

    /// Makes a key without payload.
    ///
    /// # Errors
    /// `EINVAL` for a wrong description, `EDQUOT`.
    pub(crate) fn make(&self, kernel: &Kernel, new: &NewKey<'_>) -> SysResult<Arc<Key>> {
        new.kind.check_description(new.description)?;
        let user = self.user(new.uid);
        let n_bytes = new.description.len().saturating_add(1);
        if self.registry.by_serial.lock().len() >= MAX_KEYS {
            return Err(Errno::EDQUOT);
        }
        user.add_key(n_bytes, new.is_limited.then(|| Limits::of(kernel, new.uid)))?;
        let state = State {
            user,
            uid: new.uid,
            gid: new.gid,
            perm: new.perm.unwrap_or_else(|| new.kind.default_perm()),
            expiry_ns: None,
            is_revoked: false,
            is_invalidated: false,
            rejection: None,
            is_restricted: false,
            payload: Vec::new(),
            links: Vec::new(),
            n_bytes,
        };
        let mut by_serial = self.registry.by_serial.lock();
        let serial = loop {
            let mut bytes = [0; 4];
            sentry_host::random::fill(&mut bytes)?;
            let serial = i32::from_ne_bytes(bytes) & i32::MAX;
            // The smallest are no keys' on Linux either.
            if serial >= 3 && !by_serial.contains_key(&serial) {
                break serial;
            }
        };
        let key = Arc::new(Key {
            serial,
            kind: new.kind,
            description: new.description.to_vec(),
            registry: self.registry.clone(),
            state: Mutex::new(state),
        });
        by_serial.insert(serial, Arc::downgrade(&key));
        Ok(key)
    }

    /// Adds a key to a keyring, or changes the one that is there: `key_create_or_update()`.
    ///
    /// # Errors
    /// `ENOTDIR`, `EINVAL`, `EACCES`, `EDQUOT`, `ENOMEM`, `EPERM`.
    pub(crate) fn add(
        &self,
        task: &CurrentTask,
        ring: &search::Found,
        kind: KeyType,
        description: &[u8],
        payload: Vec<u8>,
    ) -> SysResult<i32> {
        if ring.key.kind != KeyType::Keyring {
            return Err(Errno::ENOTDIR);
        }
        kind.check_payload(&payload)?;
        kind.check_description(description)?;
        let _linking = self.linking.lock();
        if kind.can_update()
            && let Some(old) = ring.key.linked(kind, description)
            && !old.lock().is_revoked
        {
            let old = search::Found { key: old, is_possessed: ring.is_possessed };
            old.check(&Seeker::of(task), search::Need::Write)?;
            old.key.set_payload(&task.kernel, payload)?;
            return Ok(old.key.serial);
        }
        let creds = task.creds();
        let (uid, gid) = (creds.fsuid, creds.fsgid);
        let new = NewKey { kind, description, uid, gid, perm: None, is_limited: true };
        let key = self.make(&task.kernel, &new)?;
        if kind.can_update() {
            key.set_payload(&task.kernel, payload)?;
        }
        ring.key.link(&task.kernel, &key)?;
        Ok(key.serial)
    }

    /// Makes a key that says for a while that nobody has it: `request_key(2)` in vain.
    ///
    /// # Errors
    /// `ENOKEY` where it could be made, `EDQUOT`, `EINVAL`.
    pub(crate) fn add_negative(
        &self,
        task: &CurrentTask,
        ring: &Arc<Key>,
        kind: KeyType,
        description: &[u8],
    ) -> SysResult<i32> {
        let _linking = self.linking.lock();
        let creds = task.creds();
        let (uid, gid) = (creds.fsuid, creds.fsgid);
        let new = NewKey { kind, description, uid, gid, perm: None, is_limited: true };
        let key = self.make(&task.kernel, &new)?;
        {
            let mut state = key.state.lock();
            state.rejection = Some(Errno::ENOKEY);
            state.expiry_ns = Some(task.kernel.clock.boot_ns().saturating_add(NEGATIVE_NS));
        }
        ring.link(&task.kernel, &key)?;
        Err(Errno::ENOKEY)
    }

    /// Links a key to a keyring.
    ///
    /// # Errors
    /// `ENOTDIR`, `EDEADLK` and `ELOOP` for a loop or what could be one, `EDQUOT`, `EKEYREVOKED`, `EPERM`.
    pub(crate) fn link(&self, kernel: &Kernel, ring: &Arc<Key>, key: &Arc<Key>) -> SysResult<()> {
        if ring.kind != KeyType::Keyring {
            return Err(Errno::ENOTDIR);
        }
        let _linking = self.linking.lock();
        if key.kind == KeyType::Keyring {
            search::check_no_loop(ring, key)?;
        }
        ring.link(kernel, key)
    }

    /// Returns the keyrings of a user, which are made when somebody asks.
    ///
    /// # Errors
    /// `EIO` without random numbers.
    pub(crate) fn user_keyrings(&self, kernel: &Kernel, uid: u32) -> SysResult<UserKeyrings> {
        if let Some(known) = self.user_keyrings.lock().get(&uid) {
            return Ok(known.clone());
        }
        let perm = (KeyPerm::POS_ALL - KeyPerm::POS_SETATTR) | KeyPerm::USR_ALL;
        let make = |name: String| {
            let new = NewKey {
                kind: KeyType::Keyring,
                description: name.as_bytes(),
                uid,
                gid: u32::MAX,
                perm: Some(perm),
                is_limited: false,
            };
            self.make(kernel, &new)
        };
        let new = UserKeyrings {
            user: make(format!("_uid.{uid}"))?,
            session: make(format!("_uid_ses.{uid}"))?,
        };
        // Nobody else knows them: no loop.
        new.session.link(kernel, &new.user)?;
        let mut known = self.user_keyrings.lock();
        let mut idle = BTreeMap::new();
        if known.len() > MAX_IDLE_USERS {
            idle = std::mem::take(&mut *known);
        }
        let result = known.entry(uid).or_insert(new).clone();
        drop(known);
        drop(idle);
        Ok(result)
    }
}

impl Key {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Returns what a keyring holds.
    pub(crate) fn links(&self) -> Vec<Arc<Key>> {
        let mut state = self.lock();
        let links = state.links.clone();
        let (gone, left) = links.into_iter().partition(|key| key.lock().is_invalidated);
        if !Vec::is_empty(&gone) {
            state.links = Vec::clone(&left);
            state.forget_links(gone.len());
        }
        drop(state);
        left
    }

    fn linked(&self, kind: KeyType, description: &[u8]) -> Option<Arc<Key>> {
        let links = self.links();
        links.into_iter().find(|key| key.kind == kind && key.description == description)
    }

    /// Puts a key into a keyring, in the place of one that is called the same. `Keys::linking` is
    /// held, or nobody knows the keyring.
    fn link(&self, kernel: &Kernel, key: &Arc<Key>) -> SysResult<()> {
        let old = self.linked(key.kind, &key.description);
        let mut state = self.lock();
        if state.is_revoked {
            return Err(Errno::EKEYREVOKED);
        }
        if state.is_restricted {
            return Err(Errno::EPERM);
        }
        let place = old
            .as_ref()
            .and_then(|old| state.links.iter_mut().find(|linked| Arc::ptr_eq(linked, old)));
        if let Some(place) = place {
            *place = key.clone();
        } else {
            let n_bytes = state.n_bytes.saturating_add(LINK_BYTES);
            let limits = Limits::of(kernel, state.uid);
            state.user.recount(state.n_bytes, n_bytes, limits)?;
            state.n_bytes = n_bytes;
            state.links.push(key.clone());
        }
        drop(state);
        Ok(())
    }

    /// Takes a key out of a keyring.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOENT` where it is not there.
    pub(crate) fn unlink(&self, key: &Arc<Key>) -> SysResult<()> {
        if self.kind != KeyType::Keyring {
            return Err(Errno::ENOTDIR);
        }
        let mut state = self.lock();
        let found = state.links.iter().position(|linked| Arc::ptr_eq(linked, key));
        let gone = state.links.remove(found.ok_or(Errno::ENOENT)?);
        state.forget_links(1);
        drop(state);
        drop(gone);
        Ok(())
    }

    /// Empties a keyring.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub(crate) fn clear(&self) -> SysResult<()> {
        if self.kind != KeyType::Keyring {
            return Err(Errno::ENOTDIR);
        }
        let gone = {
            let mut state = self.lock();
            let gone = std::mem::take(&mut state.links);
            state.forget_links(gone.len());
            gone
        };
        drop(gone);
        Ok(())
    }

    /// Gives the key a payload; it is not one that has been asked for in vain any more.
    ///
    /// # Errors
    /// `EINVAL`, `EDQUOT`, `ENOMEM`.
    pub(crate) fn set_payload(&self, kernel: &Kernel, payload: Vec<u8>) -> SysResult<()> {
        let n_counted = self.kind.check_payload(&payload)?;
        let n_bytes = self.description.len().saturating_add(1).saturating_add(n_counted);
        let mut state = self.lock();
        let all = &self.registry.n_payload;
        if all.load(Ordering::Relaxed).saturating_add(payload.len()) > MAX_ALL_PAYLOADS {
            return Err(Errno::ENOMEM);
        }
        state.user.recount(state.n_bytes, n_bytes, Limits::of(kernel, state.uid))?;
        all.fetch_add(payload.len(), Ordering::Relaxed);
        all.fetch_sub(state.payload.len(), Ordering::Relaxed);
        state.n_bytes = n_bytes;
        state.payload = payload;
        state.rejection = None;
        state.expiry_ns = None;
        Ok(())
    }

    /// Returns the content: the payload, or the numbers of what a keyring holds.
    pub(crate) fn content(&self) -> Vec<u8> {
        if self.kind == KeyType::Keyring {
            return self.links().iter().flat_map(|key| key.serial.to_ne_bytes()).collect();
        }
        self.lock().payload.clone()
    }

    /// Returns why a key cannot be used, if so: `key_validate()`.
    ///
    /// # Errors
    /// `ENOKEY`, `EKEYREVOKED`, `EKEYEXPIRED`.
    pub(crate) fn validate(&self, now_ns: u64) -> SysResult<()> {
        let state = self.lock();
        if state.is_invalidated {
            return Err(Errno::ENOKEY);
        }
        if state.is_revoked {
            return Err(Errno::EKEYREVOKED);
        }
        if state.expiry_ns.is_some_and(|expiry| expiry <= now_ns) {
            return Err(Errno::EKEYEXPIRED);
        }
        Ok(())
    }

    /// Returns the error of a key that has been asked for in vain.
    ///
    /// # Errors
    /// That one.
    pub(crate) fn check_positive(&self) -> SysResult<()> {
        self.lock().rejection.map_or(Ok(()), Err)
    }

    /// Makes the key useless for good; what it holds is let go.
    pub(crate) fn revoke(&self) {
        let links = {
            let mut state = self.lock();
            state.is_revoked = true;
            self.empty(&mut state)
        };
        drop(links);
    }

    /// Lets the key disappear from all keyrings.
    pub(crate) fn invalidate(&self) {
        let links = {
            let mut state = self.lock();
            state.is_invalidated = true;
            self.empty(&mut state)
        };
        drop(links);
    }

    fn empty(&self, state: &mut State) -> Vec<Arc<Key>> {
        let payload = std::mem::take(&mut state.payload);
        self.registry.n_payload.fetch_sub(payload.len(), Ordering::Relaxed);
        let left = self.description.len().saturating_add(1);
        let gone = state.n_bytes.saturating_sub(left);
        state.n_bytes = state.n_bytes.saturating_sub(gone);
        let mut usage = state.user.usage.lock();
        usage.n_bytes = usage.n_bytes.saturating_sub(gone);
        drop(usage);
        std::mem::take(&mut state.links)
    }

    /// Lets the key expire after `seconds`, or never for zero.
    pub(crate) fn set_timeout(&self, now_ns: u64, seconds: u32) {
        let after = u64::from(seconds).saturating_mul(1_000_000_000);
        self.lock().expiry_ns = (seconds > 0).then(|| now_ns.saturating_add(after));
    }

    /// Forbids all further links to a keyring.
    pub(crate) fn restrict(&self) {
        self.lock().is_restricted = true;
    }

    /// Returns owner and group.
    pub(crate) fn owner(&self) -> (u32, u32) {
        let state = self.lock();
        (state.uid, state.gid)
    }

    /// Returns the permissions.
    pub(crate) fn perm(&self) -> KeyPerm {
        self.lock().perm
    }

    /// Changes the permissions.
    pub(crate) fn set_perm(&self, perm: KeyPerm) {
        self.lock().perm = perm;
    }

    /// Changes owner and group, where there is a new one.
    ///
    /// # Errors
    /// `EDQUOT` where the new owner has too much.
    pub(crate) fn set_owner(
        &self,
        keys: &Keys,
        kernel: &Kernel,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> SysResult<()> {
        let mut state = self.lock();
        if let Some(uid) = uid.filter(|uid| *uid != state.uid) {
            let user = keys.user(uid);
            user.add_key(state.n_bytes, Some(Limits::of(kernel, uid)))?;
            state.user.remove_key(state.n_bytes);
            state.user = user;
            state.uid = uid;
        }
        state.gid = gid.unwrap_or(state.gid);
        Ok(())
    }
}

impl State {
    fn forget_links(&mut self, n: usize) {
        let bytes = n.saturating_mul(LINK_BYTES).min(self.n_bytes);
        self.n_bytes = self.n_bytes.saturating_sub(bytes);
        let mut usage = self.user.usage.lock();
        usage.n_bytes = usage.n_bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyType, KeyUser, Limits, Usage};
    use crate::sync::Mutex;
    use syscalls::Errno;

    #[test]
    fn payloads_are_checked_by_type() {
        assert_eq!(KeyType::User.check_payload(&[0; 32_767]), Ok(32_767));
        assert_eq!(KeyType::User.check_payload(&[0; 32_768]), Err(Errno::EINVAL));
        assert_eq!(KeyType::Logon.check_payload(&[]), Err(Errno::EINVAL));
        assert_eq!(KeyType::Keyring.check_payload(&[0]), Err(Errno::EINVAL));
        assert_eq!(KeyType::BigKey.check_payload(&[0; 70_000]), Ok(16));
    }

    #[test]
    fn logon_descriptions_begin_with_a_service() {
        assert_eq!(KeyType::Logon.check_description(b"a:b"), Ok(()));
        assert_eq!(KeyType::Logon.check_description(b":b"), Err(Errno::EINVAL));
        assert_eq!(KeyType::User.check_description(b""), Err(Errno::EINVAL));
    }

    #[test]
    fn quota_can_be_used_up_exactly() {
        let user = KeyUser { uid: 1, usage: Mutex::new(Usage::default()) };
        let limits = Limits { n_keys: 2, n_bytes: 10 };
        assert_eq!(user.add_key(4, Some(limits)), Ok(()));
        assert_eq!(user.recount(4, 10, limits), Ok(()));
        assert_eq!(user.recount(10, 11, limits), Err(Errno::EDQUOT));
        assert_eq!(user.add_key(1, Some(limits)), Err(Errno::EDQUOT));
        user.remove_key(10);
        assert_eq!(user.add_key(1, Some(limits)), Ok(()));
    }
}
