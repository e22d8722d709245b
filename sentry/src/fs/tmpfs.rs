//! tmpfs: a file system in the sentry's memory.
//!
//! A [`node::Node`] is an inode: attributes, and a body that is a directory ([`dir`]), the content
//! of a regular file ([`data`]: in the node while it is small, in a memory file of the host when it
//! grows or is mapped), a link's target, or a device number. [`Store`] makes the host files, so that an
//! overlay can keep large content on the host's disk instead.
//!
//! Locks, outermost first: directory entries (two by address), content, attributes.

pub mod data;
pub mod dir;
pub mod file;
pub mod node;
mod options;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::abi::fs::Statfs;
use syscalls::abi::mount::TMPFS_MAGIC;
use syscalls::{Errno, SysResult};

use self::node::Node;
use crate::kernel::Kernel;
use crate::vfs::acl::Acl;
use crate::vfs::inode::{NewNode, NodeKind};
use crate::vfs::mount::next_anonymous_dev;
use crate::vfs::{Attr, FileSystem, Inode, lent};

/// Makes `mount(2)` know this file system.
pub fn register(kernel: &Kernel) {
    kernel.file_system_types.register("tmpfs", options::make);
    kernel.file_system_types.register("ramfs", options::make);
}

/// The unit in which memory is counted.
pub(crate) const PAGE: u64 = 4096;

/// A host file that holds the content of a guest's file.
pub struct StoreFile {
    /// Open for reading and writing.
    pub rw: Arc<OwnedFd>,
    /// The same file, open for reading only, where the store gives that at once.
    pub ro: Option<Arc<OwnedFd>>,
}

/// Where the content of large files lives.
pub trait Store: Send + Sync {
    /// Makes an empty file.
    ///
    /// # Errors
    /// `ENOSPC`, `ENOMEM`, `EMFILE`.
    fn create(&self) -> SysResult<StoreFile>;

    /// Returns whether the files are memory, so that windows on them cost no disk's work.
    fn is_memory(&self) -> bool {
        false
    }

    /// Opens a file of this store for reading only.
    ///
    /// # Errors
    /// Those of opening.
    fn reopen(&self, rw: &OwnedFd) -> SysResult<OwnedFd> {
        sentry_host::memfd::reopen_read_only(rw.as_fd())
    }
}

/// Keeps content in memory files of the host.
pub struct MemoryStore;

impl Store for MemoryStore {
    fn create(&self) -> SysResult<StoreFile> {
        Ok(StoreFile { rw: Arc::new(sentry_host::memfd::create()?), ro: None })
    }

    fn is_memory(&self) -> bool {
        true
    }
}

/// What a tmpfs is made with.
pub struct Options {
    /// The type as `/proc/mounts` names it.
    pub kind: &'static str,
    /// How many bytes it may hold.
    pub max_bytes: Option<u64>,
    /// How many inodes it may hold.
    pub max_inodes: Option<u64>,
    /// The root directory's mode.
    pub mode: u32,
    /// The root directory's owner.
    pub uid: u32,
    /// The root directory's group.
    pub gid: u32,
    /// The first inode number.
    pub first_ino: u64,
    /// Where large content lives.
    pub store: Arc<dyn Store>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: "tmpfs",
            max_bytes: None,
            max_inodes: None,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            first_ino: 1,
            store: Arc::new(MemoryStore),
        }
    }
}

/// What all nodes of one file system share.
pub(crate) struct Shared {
    pub(crate) dev: u64,
    pub(crate) store: Arc<dyn Store>,
    next_ino: AtomicU64,
    max_pages: AtomicU64,
    used_pages: AtomicU64,
    max_inodes: AtomicU64,
    used_inodes: AtomicU64,
}

impl Shared {
    /// Returns whether the file system counts pages exactly, because it may run full.
    pub(crate) fn is_limited(&self) -> bool {
        self.max_pages.load(Ordering::Relaxed) != u64::MAX
    }

    /// Returns how many pages may still be taken.
    pub(crate) fn free_pages(&self) -> u64 {
        let used = self.used_pages.load(Ordering::Relaxed);
        self.max_pages.load(Ordering::Relaxed).saturating_sub(used)
    }

    /// Changes the number of pages that a file is charged for.
    pub(crate) fn recharge(&self, charged: &mut u64, pages: u64) {
        if pages >= *charged {
            self.used_pages.fetch_add(pages - *charged, Ordering::Relaxed);
        } else {
            self.used_pages.fetch_sub(*charged - pages, Ordering::Relaxed);
        }
        *charged = pages;
    }

    pub(crate) fn take_inode(&self) -> SysResult<u64> {
        let max = self.max_inodes.load(Ordering::Relaxed);
        self.used_inodes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1))
            .map_err(|_| Errno::ENOSPC)?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn give_back_inode(&self) {
        self.used_inodes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file system in memory.
pub struct TmpFs {
    kind: &'static str,
    shared: Arc<Shared>,
    root: Arc<Node>,
}

impl TmpFs {
    /// Creates a file system with an empty root directory.
    ///
    /// # Errors
    /// `ENOSPC` for a limit of no inodes.
    pub fn new(options: Options) -> SysResult<Arc<Self>> {
        let shared = Arc::new(Shared {
            dev: next_anonymous_dev(),
            store: options.store,
            next_ino: AtomicU64::new(options.first_ino),
            max_pages: AtomicU64::new(pages_limit(options.max_bytes)),
            used_pages: AtomicU64::new(0),
            max_inodes: AtomicU64::new(inodes_limit(options.max_inodes)),
            used_inodes: AtomicU64::new(0),
        });
        let node = NewNode {
            kind: NodeKind::Directory,
            mode: options.mode,
            umask: 0,
            uid: options.uid,
            gid: options.gid,
        };
        let root = Node::new(&shared, &node, None)?;
        Ok(Arc::new(Self { kind: options.kind, shared, root }))
    }

    /// Creates a node that has no name yet, in a directory with this default access control list.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(crate) fn new_node(
        &self,
        node: &NewNode,
        default: Option<&Arc<Acl>>,
    ) -> SysResult<Arc<Node>> {
        Node::new(&self.shared, node, default)
    }

    /// Creates a node without a name that looks like `source`, an inode of another file system.
    ///
    /// # Errors
    /// `ENOSPC`; those of the other file system.
    pub(crate) fn copy_node(&self, attr: &Attr, source: &Arc<dyn Inode>) -> SysResult<Arc<Node>> {
        Node::copy_of(&self.shared, attr, source)
    }

    /// Returns a new inode number, for what is no node of this file system.
    pub(crate) fn next_ino(&self) -> u64 {
        self.shared.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the device number.
    pub(crate) fn dev(&self) -> u64 {
        self.shared.dev
    }

    /// Changes the limits: `mount -o remount,size=…`. Zero is no limit.
    ///
    /// # Errors
    /// `EINVAL` where more is in use.
    pub fn set_limits(&self, max_bytes: Option<u64>, max_inodes: Option<u64>) -> SysResult<()> {
        let shared = &self.shared;
        if let Some(max) = max_bytes.map(|max| pages_limit(Some(max))) {
            if max < shared.used_pages.load(Ordering::Relaxed) {
                return Err(Errno::EINVAL);
            }
            shared.max_pages.store(max, Ordering::Relaxed);
            // Holes are counted from now on.
            lent::recall_all();
        }
        if let Some(max) = max_inodes.map(|max| inodes_limit(Some(max))) {
            if max < shared.used_inodes.load(Ordering::Relaxed) {
                return Err(Errno::EINVAL);
            }
            shared.max_inodes.store(max, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns what `statfs(2)` says, with another magic number for what builds upon this.
    pub(crate) fn statfs_as(&self, magic: i64) -> Statfs {
        let shared = &self.shared;
        let max_pages = shared.max_pages.load(Ordering::Relaxed);
        let used_pages = shared.used_pages.load(Ordering::Relaxed);
        let max_inodes = shared.max_inodes.load(Ordering::Relaxed);
        let used_inodes = shared.used_inodes.load(Ordering::Relaxed);
        // Without a limit the numbers are those of a large disk: programs ask before they write.
        let blocks = if max_pages == u64::MAX { 1 << 28 } else { max_pages };
        let files = if max_inodes == u64::MAX { 1 << 24 } else { max_inodes };
        let free = blocks.saturating_sub(used_pages);
        Statfs {
            f_type: magic,
            f_bsize: 4096,
            f_blocks: blocks,
            f_bfree: free,
            f_bavail: free,
            f_files: files,
            f_ffree: files.saturating_sub(used_inodes),
            f_fsid: [i32::try_from(shared.dev & 0x7fff_ffff).unwrap_or(0), 0],
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        }
    }
}

fn pages_limit(bytes: Option<u64>) -> u64 {
    match bytes {
        None | Some(0) => u64::MAX,
        Some(bytes) => bytes.div_ceil(PAGE),
    }
}

fn inodes_limit(inodes: Option<u64>) -> u64 {
    match inodes {
        None | Some(0) => u64::MAX,
        Some(inodes) => inodes,
    }
}

impl FileSystem for TmpFs {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(self.statfs_as(TMPFS_MAGIC))
    }

    fn remount(&self, options: &[u8]) -> SysResult<()> {
        // A percentage is of a total that is not known here.
        let parsed = options::parse(options, 0)?;
        self.set_limits(parsed.max_bytes, parsed.max_inodes)
    }

    fn show_options(&self) -> String {
        let mut options = String::new();
        let max_pages = self.shared.max_pages.load(Ordering::Relaxed);
        if max_pages != u64::MAX {
            options.push_str(&format!("size={}k", max_pages.saturating_mul(4)));
        }
        let max_inodes = self.shared.max_inodes.load(Ordering::Relaxed);
        if max_inodes != u64::MAX {
            let comma = if options.is_empty() { "" } else { "," };
            options.push_str(&format!("{comma}nr_inodes={max_inodes}"));
        }
        options
    }
}
