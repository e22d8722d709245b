//! The file systems that `mount(2)` can make, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use syscalls::abi::capability::CAP_SYS_ADMIN;
use syscalls::{Errno, SysResult};

use super::inode::FileSystem;
use crate::sync::RwLock;
use crate::task::CurrentTask;

/// What makes a file system: gets the caller and the options.
pub type MakeFn = fn(&CurrentTask, &[u8]) -> SysResult<Arc<dyn FileSystem>>;

/// The types that are registered when the sandbox boots.
#[derive(Default)]
pub struct FileSystemTypes {
    types: RwLock<BTreeMap<&'static str, MakeFn>>,
}

impl FileSystemTypes {
    /// Registers a type that needs no device.
    pub fn register(&self, name: &'static str, make: MakeFn) {
        self.types.write().insert(name, make);
    }

    /// Makes a file system.
    ///
    /// # Errors
    /// `ENODEV` for an unknown type, `EINVAL` for unknown options, `EPERM` for a caller that is not
    /// privileged over what the file system shows.
    pub fn make(
        &self,
        task: &CurrentTask,
        name: &[u8],
        options: &[u8],
    ) -> SysResult<Arc<dyn FileSystem>> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
        let make = self.types.read().get(name).copied().ok_or(Errno::ENODEV)?;
        let (creds, namespaces) = (task.creds(), task.namespaces());
        let owner = match name {
            "proc" => task.pid_namespace().owner.clone(),
            "sysfs" => namespaces.net.owner.clone(),
            "mqueue" => namespaces.ipc.owner.clone(),
            // `FS_USERNS_MOUNT`
            "devpts" | "overlay" | "ramfs" | "tmpfs" => creds.user_ns.clone(),
            _ => creds.user_ns.outermost(),
        };
        if !creds.is_capable_in(&owner, CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        make(task, options)
    }

    /// Returns whether there is a type of this name.
    pub fn has(&self, name: &[u8]) -> bool {
        str::from_utf8(name).is_ok_and(|name| self.types.read().contains_key(name))
    }

    /// Returns the names, for `/proc/filesystems`.
    pub fn names(&self) -> Vec<&'static str> {
        self.types.read().keys().copied().collect()
    }
}
