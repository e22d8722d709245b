//! Device nodes and FIFOs: who opens what a file system only names.
//!
//! A file system that stores device nodes and FIFOs knows nothing about drivers and pipes. Whoever
//! implements those registers here when the sandbox boots.

use std::collections::HashMap;
use std::sync::Arc;

use syscalls::abi::fs::{major, minor};
use syscalls::{Errno, SysResult};

use super::attr::FileType;
use super::file::File;
use super::inode::Inode;
use crate::sync::RwLock;
use crate::task::CurrentTask;

/// What opens a device or a FIFO: gets the node and the flags of `open(2)`.
pub trait Opener: Send + Sync {
    /// Opens the node.
    ///
    /// # Errors
    /// `ENXIO`, `ENODEV`, `EBUSY`, `EIO`.
    fn open(
        &self,
        task: &CurrentTask,
        node: &Arc<dyn Inode>,
        rdev: u64,
        flags: u32,
    ) -> SysResult<Arc<dyn File>>;
}

/// The registered openers of a kernel.
#[derive(Default)]
pub struct SpecialFiles {
    devices: RwLock<HashMap<(u32, Option<u32>), Arc<dyn Opener>>>,
    fifo: RwLock<Option<Arc<dyn Opener>>>,
}

impl SpecialFiles {
    /// Registers a character device; without a minor number all of a major one that are not
    /// registered by themselves.
    pub fn register_device(&self, major: u32, minor: Option<u32>, opener: Arc<dyn Opener>) {
        self.devices.write().insert((major, minor), opener);
    }

    /// Registers what FIFOs are opened with.
    pub fn register_fifo(&self, opener: Arc<dyn Opener>) {
        *self.fifo.write() = Some(opener);
    }

    /// Opens a node that is a device, a FIFO or a socket's name.
    ///
    /// # Errors
    /// `ENXIO` for a device without a driver and for a socket; what the opener fails with.
    pub fn open(
        &self,
        task: &CurrentTask,
        node: &Arc<dyn Inode>,
        rdev: u64,
        flags: u32,
    ) -> SysResult<Arc<dyn File>> {
        let opener = match node.file_type() {
            FileType::Fifo => self.fifo.read().clone(),
            FileType::CharDevice => {
                let devices = self.devices.read();
                let (major, minor) = (major(rdev), minor(rdev));
                devices.get(&(major, Some(minor))).or_else(|| devices.get(&(major, None))).cloned()
            }
            _ => None,
        };
        opener.ok_or(Errno::ENXIO)?.open(task, node, rdev, flags)
    }
}
