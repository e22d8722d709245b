//! Namespaces as files (`namespaces(7)`, `ioctl_ns(2)`): what the links in `/proc/PID/ns` lead to.

use std::sync::{Arc, OnceLock};

use syscalls::abi::fs::Statfs;
use syscalls::abi::ioctl::{
    NS_GET_NSTYPE, NS_GET_OWNER_UID, NS_GET_PARENT, NS_GET_PID_FROM_PIDNS, NS_GET_PID_IN_PIDNS,
    NS_GET_TGID_FROM_PIDNS, NS_GET_TGID_IN_PIDNS, NS_GET_USERNS,
};
use syscalls::abi::mount::MountFlags;
use syscalls::abi::resource::RLIMIT_NOFILE;
use syscalls::arg::FromArg;
use syscalls::{Errno, SysResult, UserAddr, UserPtr};

use crate::task::namespaces::AnyNamespace;
use crate::task::pid_namespace::PidNamespace;
use crate::task::{CurrentTask, HandlerResult};
use crate::vfs::dentry::Dentry;
use crate::vfs::file::downcast;
use crate::vfs::mount::{Mount, SuperBlock};
use crate::vfs::path::Path;
use crate::vfs::{Attr, File, FileSystem, FileType, Inode, InodeExtras, OpenFile};

/// The device number of Linux's `nsfs` on a freshly booted machine.
const NSFS_DEV: u64 = 4;

/// `NSFS_MAGIC`.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The file system that such files are on.
struct NsFs;

impl FileSystem for NsFs {
    fn kind(&self) -> &'static str {
        "nsfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(Root(InodeExtras::default()))
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(Statfs {
            f_type: NSFS_MAGIC,
            f_bsize: 4096,
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        })
    }
}

struct Root(InodeExtras);

impl Inode for Root {
    fn extras(&self) -> &InodeExtras {
        &self.0
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(Attr { dev: NSFS_DEV, mode: 0o040_000, ino: 1, nlink: 1, ..Attr::default() })
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}

fn mount() -> &'static Arc<Mount> {
    static MOUNT: OnceLock<Arc<Mount>> = OnceLock::new();
    MOUNT.get_or_init(|| {
        Mount::internal(SuperBlock::new(Arc::new(NsFs)), b"nsfs", MountFlags::empty())
    })
}

/// Returns a path that leads to a namespace.
pub(crate) fn path(namespace: AnyNamespace) -> Path {
    let mount = mount().clone();
    let name = name_of(&namespace);
    let inode = Arc::new(NsInode { extras: InodeExtras::default(), namespace });
    let dentry = Dentry::new_unnamed(inode, &mount.root, name.as_bytes());
    Path { mount, dentry }
}

/// Returns the namespace that a path leads to which is mounted nowhere, so that it can be bound to
/// a name.
pub(crate) fn namespace_at(path: &Path) -> Option<AnyNamespace> {
    let inode = crate::vfs::inode::downcast::<NsInode>(path.inode())?;
    Arc::ptr_eq(&path.mount, mount()).then(|| inode.namespace.clone())
}

/// Returns the namespace that an open file is.
pub(crate) fn of_file(open: &OpenFile) -> Option<AnyNamespace> {
    Some(downcast::<NsFile>(&open.file)?.0.namespace.clone())
}

fn name_of(namespace: &AnyNamespace) -> String {
    format!("{}:[{}]", namespace.word(), namespace.ino())
}

/// A namespace as a file.
struct NsInode {
    extras: InodeExtras,
    namespace: AnyNamespace,
}

impl Inode for NsInode {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(Attr {
            dev: NSFS_DEV,
            ino: self.namespace.ino(),
            mode: FileType::Regular.mode_bits() | 0o444,
            nlink: 1,
            blksize: 4096,
            ..Attr::default()
        })
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(NsFile(self)))
    }
}

/// An open namespace.
struct NsFile(Arc<NsInode>);

impl File for NsFile {
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.0.clone())
    }

    fn anonymous_name(&self) -> String {
        name_of(&self.0.namespace)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn ioctl(&self, task: &CurrentTask, _open: &OpenFile, request: u32, arg: u64) -> HandlerResult {
        let namespace = &self.0.namespace;
        match request {
            NS_GET_NSTYPE => Ok(namespace.flag().bits()),
            NS_GET_USERNS => {
                let owner = namespace.owner().ok_or(Errno::EPERM)?;
                // Nobody gets at what lies above its own.
                if !owner.is_in(&task.creds().user_ns) {
                    return Err(Errno::EPERM.into());
                }
                install(task, AnyNamespace::User(owner))
            }
            NS_GET_PARENT => install(task, parent(task, namespace)?),
            NS_GET_OWNER_UID => {
                let AnyNamespace::User(user) = namespace else { return Err(Errno::EINVAL.into()) };
                let uid = task.creds().user_ns.shown_uid(user.owner);
                task.write_obj(UserPtr::<u32>::new(UserAddr(arg)), &uid)?;
                Ok(0)
            }
            NS_GET_PID_FROM_PIDNS
            | NS_GET_TGID_FROM_PIDNS
            | NS_GET_PID_IN_PIDNS
            | NS_GET_TGID_IN_PIDNS => {
                let AnyNamespace::Pid(namespace) = namespace else {
                    return Err(Errno::EINVAL.into());
                };
                let own = task.pid_namespace();
                let is_in = matches!(request, NS_GET_PID_IN_PIDNS | NS_GET_TGID_IN_PIDNS);
                let is_process = matches!(request, NS_GET_TGID_FROM_PIDNS | NS_GET_TGID_IN_PIDNS);
                let (from, to) = if is_in { (&own, namespace) } else { (namespace, &own) };
                let pid = translate(i32::from_arg(arg), from, to, is_process)?;
                Ok(u64::from(pid))
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }
}

/// Returns what `to` calls the task that `from` calls `pid`.
fn translate(
    pid: i32,
    from: &Arc<PidNamespace>,
    to: &Arc<PidNamespace>,
    is_process: bool,
) -> SysResult<u32> {
    let pid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let task = from.task(pid).ok_or(Errno::ESRCH)?;
    let found = if is_process { task.group.pid_in(to) } else { task.tid_in(to) };
    if found == 0 { Err(Errno::ESRCH) } else { Ok(found) }
}

fn install(task: &CurrentTask, namespace: AnyNamespace) -> HandlerResult {
    let path = path(namespace);
    let file = path.inode().clone().open(task, 0)?;
    let limit = task.group.limits.lock().soft(RLIMIT_NOFILE);
    let fd = task.files().install(OpenFile::new(file, Some(path), 0), true, limit)?;
    Ok(u64::try_from(fd).unwrap_or(0))
}

/// Returns the namespace above one that has such.
fn parent(task: &CurrentTask, namespace: &AnyNamespace) -> SysResult<AnyNamespace> {
    match namespace {
        AnyNamespace::User(user) => {
            let parent = user.parent.clone().filter(|parent| parent.is_in(&task.creds().user_ns));
            Ok(AnyNamespace::User(parent.ok_or(Errno::EPERM)?))
        }
        AnyNamespace::Pid(pid) => {
            let parent = pid.parent.clone().filter(|parent| parent.is_in(&task.pid_namespace()));
            Ok(AnyNamespace::Pid(parent.ok_or(Errno::EPERM)?))
        }
        _ => Err(Errno::EINVAL),
    }
}
