//! `proc(5)`: processes as seen from one pid namespace, and the system as the sandbox sees it.
//!
//! [`pid`] is the part with a directory per process, [`system`] the files about the system,
//! [`sysctl`] what is below `/proc/sys`, [`net`] what is below `/proc/PID/net`.

mod config;
mod cpuinfo;
pub(crate) mod cpus;
mod mounts;
mod net;
mod pid;
pub(crate) mod sysctl;
mod system;

use std::sync::Arc;

use syscalls::abi::fs::Statfs;
use syscalls::abi::mount::PROC_SUPER_MAGIC;
use syscalls::{Errno, SysResult};

use super::pseudo::{Dir, DirFile, DirSource, Listed, Meta, Named, Numbers};
use crate::kernel::Kernel;
use crate::task::CurrentTask;
use crate::task::pid_namespace::PidNamespace;
use crate::vfs::mount::next_anonymous_dev;
use crate::vfs::{
    Attr, File, FileSystem, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, SetAttr,
};

pub use net::NetworkTables;
pub(crate) use pid::process_of;
pub use sysctl::Sysctls;
pub(crate) use system::file_system_names;

use pid::Seen;

/// The offset of the first process in the root directory: Linux's `FIRST_PROCESS_ENTRY`.
const FIRST_PROCESS_OFFSET: u64 = 256;

/// What all inodes of one proc file system know.
pub(crate) struct Shared {
    /// Processes are shown as this namespace numbers them.
    pub(crate) namespace: Arc<PidNamespace>,
    pub(crate) dev: u64,
    net: Arc<Dir>,
}

/// A proc file system.
pub struct ProcFs {
    root: Arc<Root>,
}

/// Registers the type for `mount(2)`.
pub fn register(kernel: &Kernel) {
    kernel
        .file_system_types
        .register("proc", |task, _options| Ok(ProcFs::new(task.pid_namespace())));
}

impl ProcFs {
    /// Creates a proc file system that shows the processes of `namespace`.
    pub fn new(namespace: Arc<PidNamespace>) -> Arc<Self> {
        let numbers = Numbers::new(next_anonymous_dev(), 0, 0o555);
        let net = numbers.dir(net::entries(&numbers));
        let shared = Arc::new(Shared { namespace, dev: numbers.dev, net });
        let mut entries = system::entries(&numbers);
        entries.push(numbers.named_dir("sys", sysctl::entries(&numbers)));
        entries.push(self_link(&numbers, &shared, false));
        entries.push(self_link(&numbers, &shared, true));
        let root = Arc::new(Root { shared, fixed: numbers.dir(entries) });
        Arc::new(Self { root })
    }
}

impl FileSystem for ProcFs {
    fn kind(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(Statfs {
            f_type: PROC_SUPER_MAGIC,
            f_bsize: 4096,
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        })
    }
}

/// The root directory.
struct Root {
    shared: Arc<Shared>,
    fixed: Arc<Dir>,
}

/// Returns the number that a directory name stands for.
pub(crate) fn parse_number(name: &[u8]) -> Option<u32> {
    let is_plain = name.len() <= 10
        && name.iter().all(u8::is_ascii_digit)
        && (name.len() == 1 || name.first() != Some(&b'0'));
    if !is_plain {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

impl Inode for Root {
    fn extras(&self) -> &InodeExtras {
        self.fixed.extras()
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> SysResult<Attr> {
        let n_processes = self.shared.namespace.tasks().len();
        let mut attr = self.fixed.own_attr();
        attr.nlink = attr.nlink.saturating_add(u32::try_from(n_processes).unwrap_or(0));
        Ok(attr)
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        super::pseudo::set_attr(change)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        if let Some(inode) = self.fixed.get(name) {
            return Ok(inode.clone());
        }
        // A thread that is no leader is found, too, though not listed.
        let number = parse_number(name).ok_or(Errno::ENOENT)?;
        let task = self.shared.namespace.task(number).ok_or(Errno::ENOENT)?;
        Ok(pid::directory(Seen::new(&self.shared, &task, number, false)))
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Never
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }
}

impl DirSource for Root {
    fn entries(&self, _current: &CurrentTask, from: u64) -> SysResult<Vec<Listed>> {
        let mut list = if from < FIRST_PROCESS_OFFSET { self.fixed.listing() } else { Vec::new() };
        let leaders =
            self.shared.namespace.tasks().into_iter().filter(|(_, task)| task.is_leader());
        list.extend(leaders.map(|(number, task)| {
            let entry = ListEntry {
                name: number.to_string().into_bytes(),
                ino: pid::directory_ino(&task.group, number, false),
                file_type: FileType::Directory,
            };
            (FIRST_PROCESS_OFFSET + u64::from(number), entry)
        }));
        Ok(list)
    }
}

/// `/proc/self` and `/proc/thread-self`.
struct SelfLink {
    meta: Meta,
    shared: Arc<Shared>,
    is_thread: bool,
}

fn self_link(numbers: &Numbers, shared: &Arc<Shared>, is_thread: bool) -> Named {
    let name = if is_thread { "thread-self" } else { "self" };
    let meta = numbers.meta(FileType::Symlink.mode_bits() | 0o777);
    (name.into(), Arc::new(SelfLink { meta, shared: shared.clone(), is_thread }))
}

impl Inode for SelfLink {
    fn extras(&self) -> &InodeExtras {
        &self.meta.extras
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(self.meta.attr)
    }

    fn readlink(&self, task: Option<&CurrentTask>) -> SysResult<Vec<u8>> {
        let task = task.ok_or(Errno::ENOENT)?;
        let pid = task.group.pid_in(&self.shared.namespace);
        let tid = task.tid_in(&self.shared.namespace);
        if pid == 0 || tid == 0 {
            return Err(Errno::ENOENT);
        }
        let text = if self.is_thread { format!("{pid}/task/{tid}") } else { pid.to_string() };
        Ok(text.into_bytes())
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Err(Errno::ELOOP)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn numbers_are_plain_decimals() {
        assert_eq!(parse_number(b"17"), Some(17));
        assert_eq!(parse_number(b"0"), Some(0));
        for name in [&b""[..], b"017", b"+1", b"1x", b"99999999999"] {
            assert_eq!(parse_number(name), None);
        }
    }
}
