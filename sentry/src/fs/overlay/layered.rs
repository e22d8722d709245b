//! Layered: the overlay that a guest mounts, made of directories that it can see by themselves.
//!
//! The container's own overlay keeps what is changed to itself and may share content with the
//! layer below. Here the upper layer is a directory of some file system: a changed file is copied
//! there, a removed name becomes a *whiteout* there (a character device 0:0), and a directory that
//! hides what is below it is marked *opaque* by an extended attribute, so that whoever takes the
//! directory away with him finds what Linux would have left
//! (Linux's `Documentation/filesystems/overlayfs.rst`).
//!
//! A [`node::LayeredNode`] is a file as it is seen; what it knows is only which dentries of the
//! layers it stands for. What others do to the layers meanwhile is found out when they are asked,
//! and makes calls fail at worst.
//!
//! Not there: redirects of directories, metadata-only copies, indexes, and layers of data only.
//! An inode number is that of the layer's file, and so another one when a copied file is found
//! anew.
//!
//! Locks, outermost first: `LayeredNode::copying`, `LayeredNode::changes` (two by address), those
//! of the layers; `LayeredNode::place` and `Shared::nodes` are leaves.

mod copy;
pub mod file;
pub mod node;
mod ops;
mod options;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use syscalls::abi::capability::CAP_CHOWN;
use syscalls::abi::fs::{RenameFlags, Statfs};
use syscalls::abi::mount::OVERLAYFS_SUPER_MAGIC;
use syscalls::{Errno, SysResult};

use self::node::LayeredNode;
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::Credentials;
use crate::vfs::dentry::Dentry;
use crate::vfs::layer::{Layer, Place};
use crate::vfs::mount::next_anonymous_dev;
use crate::vfs::permission::{self, MAY_EXEC, MAY_WRITE};
use crate::vfs::{Attr, FileSystem, FileType, Inode, NewNode, NodeKind, XattrFlags};

/// Makes `mount(2)` know this file system.
pub fn register(kernel: &Kernel) {
    kernel.file_system_types.register("overlay", options::make);
}

/// Where changes go.
pub(super) struct Upper {
    pub(super) layer: Layer,
    /// The directory `work`, in which files are made before they get their place.
    pub(super) work: Arc<Dentry>,
}

/// What all nodes share.
pub(super) struct Shared {
    dev: u64,
    pub(super) upper: Option<Upper>,
    /// The lower layers, uppermost first.
    pub(super) lowers: Vec<Layer>,
    /// The device number of the upper layer, where there is one, and of each lower one.
    devs: Vec<u64>,
    /// What the names of our own extended attributes begin with.
    pub(super) prefix: &'static [u8],
    /// Whoever has mounted this: on whose behalf files are copied.
    mounter: Arc<Credentials>,
    next_name: AtomicU64,
    /// The nodes in use, by the address of what they were found as.
    pub(super) nodes: Mutex<HashMap<usize, Weak<LayeredNode>>>,
}

/// A file of the work directory, which goes when it does not get a place.
pub(super) struct Made<'a> {
    shared: &'a Shared,
    upper: &'a Upper,
    name: Vec<u8>,
    pub(super) dentry: Arc<Dentry>,
    is_placed: bool,
}

impl Shared {
    /// Returns where changes go.
    ///
    /// # Errors
    /// `EROFS`.
    pub(super) fn upper(&self) -> SysResult<&Upper> {
        self.upper.as_ref().ok_or(Errno::EROFS)
    }

    /// Returns the layer of a number: 0 is the upper one, or what would be it.
    pub(super) fn layer(&self, number: usize) -> SysResult<&Layer> {
        match number.checked_sub(1) {
            None => Ok(&self.upper()?.layer),
            Some(below) => self.lowers.get(below).ok_or(Errno::EIO),
        }
    }

    /// Returns the inode number of a file of a layer: its own, marked where the layers are of
    /// several file systems.
    pub(super) fn ino(&self, layer: usize, ino: u64) -> u64 {
        let at = |number: usize| self.devs.get(number).copied();
        let place = self.devs.iter().position(|dev| Some(*dev) == at(layer)).unwrap_or(0);
        // The first distinct file system keeps its numbers.
        ino ^ (u64::try_from(place).unwrap_or(0) << 54)
    }

    /// Returns whether a dentry is a layer's root or the work directory: what no other layer may
    /// lead to.
    pub(super) fn is_trap(&self, dentry: &Arc<Dentry>) -> bool {
        let is_upper = self.upper.as_ref().is_some_and(|upper| {
            Arc::ptr_eq(&upper.layer.root, dentry) || Arc::ptr_eq(&upper.work, dentry)
        });
        is_upper || self.lowers.iter().any(|layer| Arc::ptr_eq(&layer.root, dentry))
    }

    fn own_name(&self, name: &[u8]) -> Vec<u8> {
        [self.prefix, name].concat()
    }

    /// Returns whether extended attributes of ours mean anything: others than the container's
    /// root have no business with `trusted`.
    fn may_use_own(&self) -> bool {
        self.prefix.starts_with(b"user.") || self.mounter.user_ns.is_initial()
    }

    /// Returns whether a directory of a layer hides what is below it.
    pub(super) fn is_opaque(&self, dir: &Arc<Dentry>) -> bool {
        self.may_use_own()
            && dir.inode().get_xattr(&self.own_name(b"opaque")).is_ok_and(|value| value == b"y")
    }

    /// Makes a directory hide what is below it.
    ///
    /// # Errors
    /// `EIO` where it cannot be marked.
    pub(super) fn set_opaque(&self, dir: &Arc<Dentry>) -> SysResult<()> {
        if !self.may_use_own() {
            return Err(Errno::EIO);
        }
        let name = self.own_name(b"opaque");
        dir.inode().set_xattr(&name, b"y", XattrFlags::empty()).map_err(|_| Errno::EIO)
    }

    /// Returns the name that an extended attribute has in the layers.
    pub(super) fn name_below(&self, name: &[u8]) -> Vec<u8> {
        match name.strip_prefix(self.prefix) {
            Some(rest) => [self.prefix, b"overlay.", rest].concat(),
            None => name.to_vec(),
        }
    }

    /// Returns the name that a layer's extended attribute has here; none for our own.
    pub(super) fn name_above(&self, name: Vec<u8>) -> Option<Vec<u8>> {
        match name.strip_prefix(self.prefix) {
            None => Some(name),
            Some(rest) => rest.strip_prefix(b"overlay.").map(|rest| self.own_name(rest)),
        }
    }

    /// Returns whether device nodes of the layers may be opened here.
    pub(super) fn may_open_devices(&self) -> bool {
        self.mounter.user_ns.is_initial()
    }

    /// Checks that whoever has mounted this may make files of an owner.
    ///
    /// # Errors
    /// `EPERM`, `EOVERFLOW`.
    pub(super) fn check_owner(&self, attr: &Attr) -> SysResult<()> {
        let creds = &self.mounter;
        let is_own = creds.fsuid == attr.uid && creds.is_in_group(attr.gid);
        if is_own
            || creds.has_capability(CAP_CHOWN)
            || creds.is_capable_over(attr.uid, attr.gid, CAP_CHOWN)
        {
            return Ok(());
        }
        let is_foreign = self.upper()?.layer.sb.owner().is_some();
        Err(if is_foreign { Errno::EOVERFLOW } else { Errno::EPERM })
    }

    /// Checks that whoever has mounted this may change the names in a directory of the upper layer:
    /// more than he may do there himself nobody does here.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`.
    pub(super) fn check_dir(&self, dir: &Arc<Dentry>) -> SysResult<()> {
        let inode = dir.inode();
        permission::check(&self.mounter, &**inode, &inode.access_attr()?, MAY_WRITE | MAY_EXEC)
    }

    /// Checks that whoever has mounted this may write to a file of the upper layer.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`.
    pub(super) fn check_write(&self, file: &Arc<Dentry>) -> SysResult<()> {
        let inode = file.inode();
        permission::check(&self.mounter, &**inode, &inode.access_attr()?, MAY_WRITE)
    }

    /// Checks that whoever has mounted this may change the attributes of a file of the upper layer.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_owned(&self, file: &Arc<Dentry>) -> SysResult<()> {
        let is_owner = permission::is_owner(&self.mounter, &file.inode().access_attr()?);
        if is_owner { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Makes a file in the work directory.
    ///
    /// # Errors
    /// `EROFS`, `ENOSPC`, those of the upper layer.
    pub(super) fn make(&self, node: &NewNode) -> SysResult<Made<'_>> {
        let upper = self.upper()?;
        loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let name = format!("#{number:x}").into_bytes();
            match upper.layer.create((&upper.work, &name), node) {
                // Somebody has left something there.
                Err(Errno::EEXIST) => {}
                result => {
                    let dentry = result?;
                    return Ok(Made { shared: self, upper, name, dentry, is_placed: false });
                }
            }
        }
    }

    /// Makes a whiteout in the work directory.
    ///
    /// # Errors
    /// As [`Shared::make`].
    pub(super) fn make_whiteout(&self) -> SysResult<Made<'_>> {
        self.make(&whiteout())
    }

    /// Removes the whiteouts of a directory of the upper layer that holds nothing else.
    ///
    /// # Errors
    /// Those of the upper layer.
    pub(super) fn clear(&self, dir: &Arc<Dentry>) -> SysResult<()> {
        let layer = &self.upper()?.layer;
        for entry in dir.inode().list()? {
            let place = (dir, entry.name.as_slice());
            if layer.lookup(place)?.is_some_and(|found| is_whiteout(&found)) {
                layer.remove(place)?;
            }
        }
        Ok(())
    }
}

impl Made<'_> {
    /// Gives the file its place in a directory of the upper layer, where at most a whiteout is.
    ///
    /// # Errors
    /// `EEXIST` where something else is; those of the upper layer.
    pub(super) fn place(&mut self, to: Place<'_>) -> SysResult<()> {
        let there = self.upper.layer.lookup(to)?;
        if there.as_ref().is_some_and(|found| !is_whiteout(found)) {
            return Err(Errno::EEXIST);
        }
        let must_exchange = there.is_some() && self.dentry.is_dir();
        self.replace(to, must_exchange)
    }

    /// Gives the file the place of another one, which goes: of one that is not a directory at once,
    /// otherwise by way of the work directory.
    ///
    /// # Errors
    /// Those of the upper layer.
    pub(super) fn replace(&mut self, to: Place<'_>, must_exchange: bool) -> SysResult<()> {
        let flags = if must_exchange { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
        self.upper.layer.rename((&self.upper.work, &self.name), to, flags)?;
        // What came back goes with this.
        self.is_placed = !must_exchange;
        Ok(())
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if self.is_placed {
            return;
        }
        let place = (&self.upper.work, self.name.as_slice());
        // A name too many in the work directory hurts nobody.
        if let Ok(Some(left)) = self.upper.layer.lookup(place) {
            if left.is_dir() {
                let _ = self.shared.clear(&left);
            }
            let _ = self.upper.layer.remove(place);
        }
    }
}

/// Returns what a whiteout is made as.
pub(super) fn whiteout() -> NewNode {
    NewNode { kind: NodeKind::CharDevice(0), mode: 0, umask: 0, uid: 0, gid: 0 }
}

/// Returns whether something in a layer says that there is nothing.
pub(super) fn is_whiteout(dentry: &Arc<Dentry>) -> bool {
    let inode = dentry.inode();
    inode.file_type() == FileType::CharDevice && inode.attr().is_ok_and(|attr| attr.rdev == 0)
}

/// Several directories, seen as one.
pub struct LayeredFs {
    shared: Arc<Shared>,
    root: Arc<LayeredNode>,
    /// As `/proc/mounts` shows them.
    options: String,
    stack_depth: u32,
}

impl LayeredFs {
    fn new(
        upper: Option<Upper>,
        lowers: Vec<Layer>,
        prefix: &'static [u8],
        mounter: Arc<Credentials>,
        options: String,
    ) -> SysResult<Arc<Self>> {
        let mut devs = vec![match &upper {
            Some(upper) => upper.layer.root.inode().attr()?.dev,
            None => u64::MAX,
        }];
        for layer in &lowers {
            devs.push(layer.root.inode().attr()?.dev);
        }
        if upper.is_none() {
            // Nothing is found there; the first lower layer's numbers stay as they are.
            devs[0] = devs.get(1).copied().unwrap_or(0);
        }
        let all = lowers.iter().chain(upper.as_ref().map(|upper| &upper.layer));
        let stack_depth = 1 + all.map(|layer| layer.sb.fs.stack_depth()).max().unwrap_or(0);
        let shared = Arc::new(Shared {
            dev: next_anonymous_dev(),
            upper,
            lowers,
            devs,
            prefix,
            mounter,
            next_name: AtomicU64::new(0),
            nodes: Mutex::new(HashMap::new()),
        });
        let root = LayeredNode::root(&shared)?;
        Ok(Arc::new(Self { shared, root, options, stack_depth }))
    }
}

impl FileSystem for LayeredFs {
    fn kind(&self) -> &'static str {
        "overlay"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        let layer = match &self.shared.upper {
            Some(upper) => &upper.layer,
            None => self.shared.layer(1)?,
        };
        Ok(Statfs { f_type: OVERLAYFS_SUPER_MAGIC, ..layer.sb.fs.statfs()? })
    }

    fn show_options(&self) -> String {
        self.options.clone()
    }

    fn is_always_readonly(&self) -> bool {
        self.shared.upper.is_none()
    }

    fn stack_depth(&self) -> u32 {
        self.stack_depth
    }

    fn sync(&self) -> SysResult<()> {
        match &self.shared.upper {
            Some(upper) => upper.layer.sb.fs.sync(),
            None => Ok(()),
        }
    }
}
