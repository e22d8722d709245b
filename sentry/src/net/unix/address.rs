//! Addresses of unix sockets, and who is bound to which (`unix(7)`).

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, OnceLock, Weak};

use syscalls::abi::landlock::Scopes;
use syscalls::abi::socket::{AF_UNIX, UNIX_PATH_MAX};
use syscalls::{Errno, SysResult};

use super::{Kind, UnixEntry, UnixSocket};
use crate::sync::Mutex;
use crate::task::CurrentTask;
use crate::vfs::permission::{self, MAY_WRITE};
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{FileType, NodeKind, names};

/// The size of the family in an address.
const FAMILY_SIZE: usize = 2;

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// The path of a socket's inode, without the final NUL.
    Path(Vec<u8>),
    /// A name in the abstract name space, without the leading NUL.
    Abstract(Vec<u8>),
}

/// An address as a call gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A name.
    Address(Address),
    /// The family alone: `bind(2)` is to choose a name.
    Auto,
    /// `AF_UNSPEC`: no peer any more.
    Unspecified,
}

/// Reads an address.
///
/// # Errors
/// `EINVAL`.
pub(super) fn parse(addr: &[u8]) -> SysResult<Given> {
    let (family, name) = addr.split_first_chunk::<FAMILY_SIZE>().ok_or(Errno::EINVAL)?;
    match i32::from(u16::from_ne_bytes(*family)) {
        0 => return Ok(Given::Unspecified),
        AF_UNIX => {}
        _ => return Err(Errno::EINVAL),
    }
    if name.len() > UNIX_PATH_MAX {
        return Err(Errno::EINVAL);
    }
    match name.split_first() {
        None => Ok(Given::Auto),
        Some((0, name)) => Ok(Given::Address(Address::Abstract(name.to_vec()))),
        Some(_) => {
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Ok(Given::Address(Address::Path(path.to_vec())))
        }
    }
}

/// The name of a socket, which it gets once, at any time: what it has sent before shows it as well.
pub(super) type Name = Arc<OnceLock<Address>>;

impl Address {
    /// Returns whether there is a file of this name.
    pub(super) fn exists(&self, task: &CurrentTask) -> bool {
        match self {
            Self::Path(path) => Walk::from_cwd(task, WalkFlags::empty()).resolve(path).is_ok(),
            Self::Abstract(_) => false,
        }
    }

    /// Returns the address as calls show it; `None` is that of a socket without a name.
    pub(super) fn encode(address: Option<&Self>) -> Vec<u8> {
        let family = u16::try_from(AF_UNIX).unwrap_or(1).to_ne_bytes();
        let mut bytes = family.to_vec();
        match address {
            None => {}
            Some(Self::Path(path)) => {
                bytes.extend_from_slice(path);
                bytes.push(0);
            }
            Some(Self::Abstract(name)) => {
                bytes.push(0);
                bytes.extend_from_slice(name);
            }
        }
        bytes
    }
}

/// Sockets by what they are bound to.
type Bound<K> = Mutex<HashMap<K, Weak<UnixSocket>>>;

/// An abstract name: of each network namespace, each type of socket has names of its own.
pub(super) type AbstractName = (u64, Kind, Vec<u8>);

/// All names that sockets are bound to.
#[derive(Default)]
pub struct Registry {
    abstract_names: Bound<AbstractName>,
    /// By device and inode number.
    paths: Bound<(u64, u64)>,
    next_auto: Mutex<u32>,
    /// Those that have a file, by its inode number.
    all: Mutex<BTreeMap<u64, Weak<UnixSocket>>>,
}

/// What a socket is bound to.
#[derive(Clone, Debug)]
pub(super) enum Binding {
    Abstract(AbstractName),
    Inode((u64, u64)),
}

fn find<K: Eq + Hash>(bound: &Bound<K>, key: &K) -> Option<Arc<UnixSocket>> {
    bound.lock().get(key).and_then(Weak::upgrade)
}

fn release<K: Eq + Hash>(bound: &Bound<K>, key: &K, socket: &Weak<UnixSocket>) {
    let mut bound = bound.lock();
    if bound.get(key).is_some_and(|owner| owner.ptr_eq(socket)) {
        bound.remove(key);
    }
}

impl Registry {
    /// Binds a socket to a name.
    ///
    /// # Errors
    /// `EADDRINUSE`; those of creating the inode.
    pub(super) fn bind(
        &self,
        task: &CurrentTask,
        address: &Address,
        (net, kind): (u64, Kind),
        socket: &Weak<UnixSocket>,
    ) -> SysResult<Binding> {
        match address {
            Address::Abstract(name) => {
                let key = (net, kind, name.clone());
                let mut names = self.abstract_names.lock();
                if names.get(&key).is_some_and(|owner| owner.strong_count() > 0) {
                    return Err(Errno::EADDRINUSE);
                }
                names.insert(key.clone(), socket.clone());
                Ok(Binding::Abstract(key))
            }
            Address::Path(path) => {
                // The umask counts even where the directory has a default access control list.
                let mode = 0o777 & !task.fs().umask();
                let mut walk = Walk::from_cwd(task, WalkFlags::empty());
                let node = match names::create(&mut walk, path, NodeKind::Socket, mode) {
                    Err(Errno::EEXIST) => return Err(Errno::EADDRINUSE),
                    node => node?,
                };
                let attr = node.inode().attr()?;
                let key = (attr.dev, attr.ino);
                self.paths.lock().insert(key, socket.clone());
                Ok(Binding::Inode(key))
            }
        }
    }

    /// Binds a socket to a free abstract name of five hexadecimal digits.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(super) fn autobind(
        &self,
        (net, kind): (u64, Kind),
        socket: &Weak<UnixSocket>,
    ) -> SysResult<(Address, Binding)> {
        const N_NAMES: u32 = 1 << 20;
        let mut next = self.next_auto.lock();
        let mut names = self.abstract_names.lock();
        for _ in 0..N_NAMES {
            let name = format!("{:05x}", *next).into_bytes();
            *next = (*next + 1) % N_NAMES;
            let key = (net, kind, name.clone());
            if names.get(&key).is_none_or(|owner| owner.strong_count() == 0) {
                names.insert(key.clone(), socket.clone());
                return Ok((Address::Abstract(name), Binding::Abstract(key)));
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Finds the socket behind a name; that of a path may be of another kind.
    ///
    /// # Errors
    /// `ECONNREFUSED`; those of the path walk, `EACCES`.
    pub(super) fn find(
        &self,
        task: &CurrentTask,
        address: &Address,
        (net, kind): (u64, Kind),
    ) -> SysResult<Arc<UnixSocket>> {
        match address {
            Address::Abstract(name) => {
                let found = find(&self.abstract_names, &(net, kind, name.clone()));
                let found = found.ok_or(Errno::ECONNREFUSED)?;
                if let Some(domain) = &task.creds().landlock
                    && domain.is_scoped_from(found.domain.get(), Scopes::ABSTRACT_UNIX_SOCKET)
                {
                    return Err(Errno::EPERM);
                }
                Ok(found)
            }
            Address::Path(path) => {
                let found = Walk::from_cwd(task, WalkFlags::FOLLOW).resolve(path)?;
                let attr = found.inode().attr()?;
                permission::check(&task.creds(), &**found.inode(), &attr, MAY_WRITE)?;
                if attr.file_type() != FileType::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                find(&self.paths, &(attr.dev, attr.ino)).ok_or(Errno::ECONNREFUSED)
            }
        }
    }

    /// Is told of a socket's file.
    pub(super) fn add(&self, ino: u64, socket: Weak<UnixSocket>) {
        self.all.lock().insert(ino, socket);
    }

    /// Is told that a socket's file is gone.
    pub(super) fn remove(&self, ino: u64) {
        self.all.lock().remove(&ino);
    }

    /// Returns the sockets of a network namespace that have a file.
    pub fn entries(&self, net: u64) -> Vec<UnixEntry> {
        let sockets: Vec<_> = self.all.lock().values().filter_map(Weak::upgrade).collect();
        let sockets = sockets.iter().filter(|socket| socket.net == net);
        sockets.map(|socket| socket.entry()).collect()
    }

    /// Frees what a socket was bound to.
    pub(super) fn release(&self, binding: &Binding, socket: &Weak<UnixSocket>) {
        match binding {
            Binding::Abstract(name) => release(&self.abstract_names, name, socket),
            Binding::Inode(key) => release(&self.paths, key, socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::{Address, Given, parse};

    #[test]
    fn path_ends_at_its_nul() {
        let given = parse(b"\x01\0/a/b\0junk").unwrap();
        assert_eq!(given, Given::Address(Address::Path(b"/a/b".to_vec())));
        let address = Address::Path(b"/a/b".to_vec());
        assert_eq!(Address::encode(Some(&address)), b"\x01\0/a/b\0");
    }

    #[test]
    fn abstract_name_holds_any_byte() {
        let given = parse(b"\x01\0\0a\0b").unwrap();
        let address = Address::Abstract(b"a\0b".to_vec());
        assert_eq!(given, Given::Address(address.clone()));
        assert_eq!(Address::encode(Some(&address)), b"\x01\0\0a\0b");
    }

    #[test]
    fn wrong_addresses_are_refused() {
        assert_eq!(parse(b"\x01"), Err(Errno::EINVAL));
        assert_eq!(parse(b"\x02\0abc"), Err(Errno::EINVAL));
        assert_eq!(parse(&[1; 200]), Err(Errno::EINVAL));
        assert_eq!(parse(b"\x01\0"), Ok(Given::Auto));
        assert_eq!(parse(b"\0\0"), Ok(Given::Unspecified));
    }
}
