//! `mqueue`: the file system of POSIX message queues (`mq_overview(7)`).
//!
//! There is one for each IPC namespace; each mount shows it. `mq_open(2)` opens what is in it whether or
//! not it is mounted anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscalls::abi::capability::CAP_SYS_RESOURCE;
use syscalls::abi::fs::Statfs;
use syscalls::abi::ipc::MqAttr;
use syscalls::abi::mount::MountFlags;
use syscalls::abi::resource::RLIMIT_MSGQUEUE;
use syscalls::{Errno, SysResult};

use super::pseudo::{self, DirFile, DirSource, FIRST_OFFSET, Listed};
use crate::ipc::Ipc;
use crate::ipc::mqueue::Queue;
use crate::kernel::Kernel;
use crate::sync::{Events, Mutex, Registration, Waiter};
use crate::task::CurrentTask;
use crate::vfs::mount::{Mount, SuperBlock, next_anonymous_dev};
use crate::vfs::{
    Attr, File, FileSystem, FileType, Inode, InodeExtras, IoSink, ListEntry, LookupPolicy, NewNode,
    NodeKind, Path, SetAttr,
};

/// `MQUEUE_MAGIC`.
const MAGIC: i64 = 0x1980_0202;
/// The size that the files show.
const FILE_SIZE: u64 = 80;
/// The largest attributes that anybody may ask for.
const HARD_MAX_MESSAGES: i64 = 65_536;
const HARD_MAX_LEN: i64 = 16 << 20;
/// What a message, and a priority, counts in `RLIMIT_MSGQUEUE`.
const NODE_COST: u64 = 48;
/// What `RLIMIT_MSGQUEUE` is where nobody has changed it.
const DEFAULT_RLIMIT: u64 = 819_200;

/// The file system of a namespace, and a mount of it that is nowhere.
pub struct Mqueues {
    fs: Arc<MqueueFs>,
    mount: Arc<Mount>,
}

/// The file system.
pub struct MqueueFs {
    root: Arc<Root>,
}

/// What the nodes share.
#[derive(Default)]
struct Shared {
    dev: u64,
    next_ino: AtomicU64,
    /// Bytes that the queues of each user may take, as `RLIMIT_MSGQUEUE` counts them.
    usage: Mutex<BTreeMap<u32, u64>>,
}

/// The limits below `/proc/sys/fs/mqueue`.
struct Limits {
    max_messages: i64,
    max_len: i64,
    queues: usize,
    default: MqAttr,
}

/// Registers the type for `mount(2)`.
pub fn register(kernel: &Kernel) {
    kernel.file_system_types.register("mqueue", |task, _options| Ok(file_system(&task.ipc())));
}

/// Returns the file system of a namespace.
pub fn file_system(ipc: &Ipc) -> Arc<dyn FileSystem> {
    mqueues(ipc).fs.clone()
}

/// Returns the root of the file system.
pub fn root(ipc: &Ipc) -> Path {
    let mount = &mqueues(ipc).mount;
    Path { mount: mount.clone(), dentry: mount.root.clone() }
}

/// Creates the queue `name`, of which there is none.
///
/// # Errors
/// `EINVAL`, `EOVERFLOW` for its attributes; `ENOSPC`, `EMFILE`; `EEXIST`.
pub fn create(task: &CurrentTask, name: &[u8], attr: Option<&MqAttr>, mode: u32) -> SysResult<()> {
    let creds = task.creds();
    let node = NewNode {
        kind: NodeKind::Regular,
        mode: mode & 0o7777,
        umask: 0,
        uid: creds.fsuid,
        gid: creds.fsgid,
    };
    let namespaces = task.namespaces();
    let root = &mqueues(&namespaces.ipc).fs.root;
    let is_privileged = creds.has_capability(CAP_SYS_RESOURCE);
    let limit = task.group.limits.lock().soft(RLIMIT_MSGQUEUE);
    root.add(&Limits::of(&task.kernel), name, &node, attr, is_privileged, limit)?;
    Ok(())
}

fn mqueues(ipc: &Ipc) -> &Mqueues {
    ipc.mqueues.get_or_init(|| {
        let shared = Arc::new(Shared { dev: next_anonymous_dev(), ..Shared::default() });
        let attr = shared.attr(FileType::Directory.mode_bits() | 0o1777, 0, 0);
        let root = Arc::new(Root {
            extras: InodeExtras::default(),
            attr: Mutex::new(attr),
            shared,
            nodes: Mutex::default(),
        });
        let fs = Arc::new(MqueueFs { root });
        let mount = Mount::internal(SuperBlock::new(fs.clone()), b"mqueue", MountFlags::empty());
        Mqueues { fs, mount }
    })
}

impl FileSystem for MqueueFs {
    fn kind(&self) -> &'static str {
        "mqueue"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(Statfs {
            f_type: MAGIC,
            f_bsize: 4096,
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_messages: 10,
            max_len: 8192,
            queues: 256,
            default: MqAttr { mq_maxmsg: 10, mq_msgsize: 8192, ..MqAttr::default() },
        }
    }
}

impl Limits {
    fn of(kernel: &Kernel) -> Self {
        let limit = |path, default: i64| {
            let changed = kernel.sysctls.changed_number(path, 0);
            changed.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(default)
        };
        let (max_messages, max_len) =
            (limit("fs/mqueue/msg_max", 10), limit("fs/mqueue/msgsize_max", 8192));
        Self {
            max_messages,
            max_len,
            queues: usize::try_from(limit("fs/mqueue/queues_max", 256)).unwrap_or(0),
            default: MqAttr {
                mq_maxmsg: limit("fs/mqueue/msg_default", 10).min(max_messages),
                mq_msgsize: limit("fs/mqueue/msgsize_default", 8192).min(max_len),
                ..MqAttr::default()
            },
        }
    }
}

impl Shared {
    fn attr(&self, mode: u32, uid: u32, gid: u32) -> Attr {
        let now = pseudo::now();
        let is_dir = FileType::from_mode(mode) == FileType::Directory;
        Attr {
            dev: self.dev,
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            mode,
            nlink: if is_dir { 2 } else { 1 },
            uid,
            gid,
            size: if is_dir { 0 } else { FILE_SIZE },
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            ..Attr::default()
        }
    }
}

/// The directory.
struct Root {
    extras: InodeExtras,
    attr: Mutex<Attr>,
    shared: Arc<Shared>,
    nodes: Mutex<BTreeMap<Vec<u8>, Arc<Node>>>,
}

impl Root {
    fn add(
        &self,
        limits: &Limits,
        name: &[u8],
        node: &NewNode,
        attr: Option<&MqAttr>,
        is_privileged: bool,
        rlimit: u64,
    ) -> SysResult<Arc<Node>> {
        let mut nodes = self.nodes.lock();
        if nodes.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if nodes.len() >= limits.queues && !is_privileged {
            return Err(Errno::ENOSPC);
        }
        let attr = attr.unwrap_or(&limits.default);
        let (most, longest) = if is_privileged {
            (HARD_MAX_MESSAGES, HARD_MAX_LEN)
        } else {
            (limits.max_messages, limits.max_len)
        };
        let is_fine =
            (1..=most).contains(&attr.mq_maxmsg) && (1..=longest).contains(&attr.mq_msgsize);
        let (Ok(max_messages), Ok(max_len), true) =
            (u64::try_from(attr.mq_maxmsg), u64::try_from(attr.mq_msgsize), is_fine)
        else {
            return Err(Errno::EINVAL);
        };
        let priorities = max_messages.min(u64::from(crate::ipc::mqueue::MAX_PRIORITY));
        let nodes_cost = priorities.saturating_add(max_messages).saturating_mul(NODE_COST);
        let cost = max_messages.checked_mul(max_len).and_then(|n| n.checked_add(nodes_cost));
        let cost = cost.ok_or(Errno::EOVERFLOW)?;
        let mut usage = self.shared.usage.lock();
        let used = usage.entry(node.uid).or_default();
        let total = used.checked_add(cost).filter(|total| *total <= rlimit);
        *used = total.ok_or(Errno::EMFILE)?;
        drop(usage);
        let as_size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mode = FileType::Regular.mode_bits() | (node.mode & !node.umask);
        let new = Arc::new(Node {
            extras: InodeExtras::default(),
            attr: Mutex::new(self.shared.attr(mode, node.uid, node.gid)),
            queue: Queue::new(as_size(max_messages), as_size(max_len)),
            shared: self.shared.clone(),
            owner: node.uid,
            cost,
        });
        nodes.insert(name.to_vec(), new.clone());
        Ok(new)
    }
}

impl Inode for Root {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        let size = 20_u64.saturating_mul(self.nodes.lock().len() as u64);
        Ok(Attr { size, ..*self.attr.lock() })
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::change_attr(&self.attr, change);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        let node: Arc<dyn Inode> = self.nodes.lock().get(name).ok_or(Errno::ENOENT)?.clone();
        Ok(node)
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Revalidate
    }

    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        match (self.lookup(name), child) {
            (Err(_), None) => true,
            (Ok(found), Some(child)) => Arc::ptr_eq(&found, child),
            _ => false,
        }
    }

    /// DEVIATION: `open(2)` goes by the default limits.
    fn create(&self, name: &[u8], node: &NewNode) -> SysResult<Arc<dyn Inode>> {
        if node.kind != NodeKind::Regular {
            return Err(Errno::EPERM);
        }
        Ok(self.add(&Limits::default(), name, node, None, false, DEFAULT_RLIMIT)?)
    }

    fn unlink(&self, name: &[u8]) -> SysResult<()> {
        let node = self.nodes.lock().remove(name).ok_or(Errno::ENOENT)?;
        node.attr.lock().nlink = 0;
        Ok(())
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }

    fn list(&self) -> SysResult<Vec<ListEntry>> {
        let entry = |(name, node): (&Vec<u8>, &Arc<Node>)| ListEntry {
            name: name.clone(),
            ino: node.attr.lock().ino,
            file_type: FileType::Regular,
        };
        Ok(self.nodes.lock().iter().map(entry).collect())
    }
}

impl DirSource for Root {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        let mut list: Vec<Listed> = self
            .list()?
            .into_iter()
            .map(|entry| (FIRST_OFFSET.saturating_add(entry.ino), entry))
            .collect();
        list.sort_by_key(|(offset, _)| *offset);
        Ok(list)
    }
}

/// A queue's inode.
struct Node {
    extras: InodeExtras,
    attr: Mutex<Attr>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    /// Whose limit it counts in, and how much.
    owner: u32,
    cost: u64,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(used) = self.shared.usage.lock().get_mut(&self.owner) {
            *used = used.saturating_sub(self.cost);
        }
    }
}

impl Inode for Node {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(*self.attr.lock())
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::change_attr(&self.attr, change);
        Ok(())
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(QueueFile { node: self }))
    }
}

/// An open queue.
pub struct QueueFile {
    node: Arc<Node>,
}

impl QueueFile {
    /// Returns the queue.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.node.queue
    }
}

impl File for QueueFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.node.clone())
    }

    fn read(&self, task: &CurrentTask, dst: &mut dyn IoSink, offset: u64) -> SysResult<usize> {
        let text = self.node.queue.describe(task);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match text.as_bytes().get(offset..) {
            Some(rest) if !rest.is_empty() => dst.put(rest),
            _ => Ok(0),
        }
    }

    fn poll(&self) -> Events {
        self.node.queue.poll()
    }

    fn register(&self, waiter: &Arc<dyn Waiter>, mask: Events, key: u64) -> Vec<Registration> {
        vec![self.node.queue.events.register(waiter, mask, key)]
    }

    fn is_pollable(&self) -> bool {
        true
    }

    fn descriptor_closed(&self, table: u64) {
        self.node.queue.descriptor_closed(table);
    }
}
