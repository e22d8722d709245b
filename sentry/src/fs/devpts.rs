//! `devpts`: the file system of pseudo-terminals, and the device `/dev/ptmx`.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use syscalls::abi::fs::{Statfs, makedev};
use syscalls::abi::mount::DEVPTS_SUPER_MAGIC;
use syscalls::{Errno, SysResult};

use super::pseudo::{self, DirFile, DirSource, FIRST_OFFSET, Listed};
use super::tty::pty::{Home, Master, Pty};
use super::tty::{AUX_MAJOR, may_control};
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::CurrentTask;
use crate::vfs::mount::next_anonymous_dev;
use crate::vfs::special::Opener;
use crate::vfs::{
    Attr, File, FileSystem, FileType, Inode, InodeExtras, ListEntry, LookupPolicy, SetAttr,
};

/// How many pairs one instance has: the default of `kernel.pty.max`.
const MAX_PTYS: usize = 4096;

/// The inode numbers of the directory, of `ptmx`, and of the first slave.
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
const FIRST_SLAVE_INO: u64 = 3;

/// What an instance is mounted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The owner of new slaves where it is not the opener.
    pub uid: Option<u32>,
    /// The group of new slaves where it is not the opener's.
    pub gid: Option<u32>,
    /// The permission bits of new slaves.
    pub mode: u32,
    /// The permission bits of `ptmx`.
    pub ptmx_mode: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { uid: None, gid: None, mode: 0o600, ptmx_mode: 0 }
    }
}

impl Options {
    /// What the runtime specification's example and every engine mount `/dev/pts` with.
    pub const CONTAINER: Self = Self { uid: None, gid: Some(5), mode: 0o620, ptmx_mode: 0o666 };

    fn parse(text: &[u8]) -> SysResult<Self> {
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let mut options = Self::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
            match name {
                "uid" => options.uid = Some(number(10)?),
                "gid" => options.gid = Some(number(10)?),
                "mode" => options.mode = number(8)? & 0o7777,
                "ptmxmode" => options.ptmx_mode = number(8)? & 0o7777,
                "max" => {
                    number(10)?;
                }
                "newinstance" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

/// An instance of the file system.
pub struct DevPts {
    root: Arc<Root>,
}

/// What the nodes of an instance share.
struct Instance {
    this: Weak<Instance>,
    dev: u64,
    options: Options,
    slaves: Mutex<BTreeMap<u32, Arc<SlaveNode>>>,
}

/// Registers the type for `mount(2)`.
pub fn register(kernel: &Kernel) {
    kernel.file_system_types.register("devpts", |_task, options| {
        let fs: Arc<dyn FileSystem> = DevPts::new(Options::parse(options)?);
        Ok(fs)
    });
}

impl DevPts {
    /// Creates an instance without pairs.
    pub fn new(options: Options) -> Arc<Self> {
        let instance = Arc::new_cyclic(|this: &Weak<Instance>| Instance {
            this: this.clone(),
            dev: next_anonymous_dev(),
            options,
            slaves: Mutex::default(),
        });
        let root_attr =
            instance.attr(ROOT_INO, FileType::Directory.mode_bits() | 0o755, makedev(0, 0));
        let ptmx = Arc::new(PtmxNode {
            extras: InodeExtras::default(),
            attr: Mutex::new(instance.attr(
                PTMX_INO,
                FileType::CharDevice.mode_bits() | options.ptmx_mode,
                makedev(AUX_MAJOR, 2),
            )),
            instance: instance.clone(),
        });
        let root = Root { extras: InodeExtras::default(), attr: root_attr, instance, ptmx };
        Arc::new(Self { root: Arc::new(root) })
    }

    /// Makes this the instance that device nodes like `/dev/ptmx` elsewhere open.
    pub fn serve_ptmx(&self, kernel: &Kernel) {
        let driver = PtmxDriver(self.root.instance.clone());
        kernel.special_files.register_device(AUX_MAJOR, Some(2), Arc::new(driver));
    }
}

impl FileSystem for DevPts {
    fn kind(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> SysResult<Statfs> {
        Ok(Statfs {
            f_type: DEVPTS_SUPER_MAGIC,
            f_bsize: 4096,
            f_namelen: 255,
            f_frsize: 4096,
            ..Statfs::default()
        })
    }

    fn show_options(&self) -> String {
        let Options { uid, gid, mode, ptmx_mode } = self.root.instance.options;
        let uid = uid.map_or(String::new(), |uid| format!("uid={uid},"));
        let gid = gid.map_or(String::new(), |gid| format!("gid={gid},"));
        format!("{uid}{gid}mode={mode:03o},ptmxmode={ptmx_mode:03o}")
    }
}

impl Instance {
    fn attr(&self, ino: u64, mode: u32, rdev: u64) -> Attr {
        let now = pseudo::now();
        let nlink = if FileType::from_mode(mode) == FileType::Directory { 2 } else { 1 };
        Attr {
            dev: self.dev,
            ino,
            mode,
            nlink,
            rdev,
            blksize: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            ..Attr::default()
        }
    }

    /// Makes a new pair and opens its master.
    fn open_master(&self, task: &CurrentTask, node: Arc<dyn Inode>) -> SysResult<Arc<dyn File>> {
        let mut slaves = self.slaves.lock();
        if slaves.len() >= MAX_PTYS {
            return Err(Errno::ENOSPC);
        }
        let taken = slaves.keys().zip(0..).take_while(|(index, expected)| **index == *expected);
        let index = u32::try_from(taken.count()).map_err(|_| Errno::ENOSPC)?;
        let home: Weak<dyn Home> = self.this.clone();
        let pty = Pty::new(index, home);
        let creds = task.creds();
        let mode = FileType::CharDevice.mode_bits() | self.options.mode;
        let ino = FIRST_SLAVE_INO + u64::from(index);
        let attr = Attr {
            uid: self.options.uid.unwrap_or(creds.fsuid),
            gid: self.options.gid.unwrap_or(creds.fsgid),
            ..self.attr(ino, mode, pty.slave_device())
        };
        let slave = SlaveNode {
            extras: InodeExtras::default(),
            attr: Mutex::new(attr),
            pty: Arc::downgrade(&pty),
        };
        slaves.insert(index, Arc::new(slave));
        Ok(Arc::new(Master::new(pty, node)))
    }
}

impl Home for Instance {
    fn master_closed(&self, index: u32) {
        let gone = self.slaves.lock().remove(&index);
        drop(gone);
    }

    fn node(&self, index: u32) -> Option<Arc<dyn Inode>> {
        let node: Arc<dyn Inode> = self.slaves.lock().get(&index)?.clone();
        Some(node)
    }
}

/// The directory.
struct Root {
    extras: InodeExtras,
    attr: Attr,
    instance: Arc<Instance>,
    ptmx: Arc<PtmxNode>,
}

impl Root {
    fn find(&self, name: &[u8]) -> Option<Arc<dyn Inode>> {
        if name == b"ptmx" {
            return Some(self.ptmx.clone());
        }
        let text = std::str::from_utf8(name).ok()?;
        let index: u32 = text.parse().ok()?;
        if index.to_string() == text { self.instance.node(index) } else { None }
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
        Ok(self.attr)
    }

    fn lookup(&self, name: &[u8]) -> SysResult<Arc<dyn Inode>> {
        self.find(name).ok_or(Errno::ENOENT)
    }

    fn lookup_policy(&self) -> LookupPolicy {
        LookupPolicy::Revalidate
    }

    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        match (self.find(name), child) {
            (None, None) => true,
            (Some(found), Some(child)) => Arc::ptr_eq(&found, child),
            _ => false,
        }
    }

    fn open(self: Arc<Self>, _task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        Ok(Arc::new(DirFile::new(self)))
    }
}

impl DirSource for Root {
    fn entries(&self, _current: &CurrentTask, _from: u64) -> SysResult<Vec<Listed>> {
        let entry = |name: Vec<u8>, ino| ListEntry { name, ino, file_type: FileType::CharDevice };
        let mut list = vec![(FIRST_OFFSET, entry(b"ptmx".to_vec(), PTMX_INO))];
        list.extend(self.instance.slaves.lock().keys().map(|index| {
            let index = u64::from(*index);
            let name = index.to_string().into_bytes();
            (FIRST_OFFSET + 1 + index, entry(name, FIRST_SLAVE_INO + index))
        }));
        Ok(list)
    }
}

/// `ptmx`.
struct PtmxNode {
    extras: InodeExtras,
    attr: Mutex<Attr>,
    instance: Arc<Instance>,
}

impl Inode for PtmxNode {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(*self.attr.lock())
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::change_attr(&self.attr, change);
        Ok(())
    }

    fn open(self: Arc<Self>, task: &CurrentTask, _flags: u32) -> SysResult<Arc<dyn File>> {
        self.instance.open_master(task, self.clone())
    }
}

/// The driver of device nodes like `/dev/ptmx` outside of the file system.
struct PtmxDriver(Arc<Instance>);

impl Opener for PtmxDriver {
    fn open(
        &self,
        task: &CurrentTask,
        node: &Arc<dyn Inode>,
        _rdev: u64,
        _flags: u32,
    ) -> SysResult<Arc<dyn File>> {
        self.0.open_master(task, node.clone())
    }
}

/// A slave.
struct SlaveNode {
    extras: InodeExtras,
    attr: Mutex<Attr>,
    pty: Weak<Pty>,
}

impl Inode for SlaveNode {
    fn extras(&self) -> &InodeExtras {
        &self.extras
    }

    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }

    fn attr(&self) -> SysResult<Attr> {
        Ok(*self.attr.lock())
    }

    fn set_attr(&self, change: &SetAttr) -> SysResult<()> {
        pseudo::change_attr(&self.attr, change);
        Ok(())
    }

    fn open(self: Arc<Self>, task: &CurrentTask, flags: u32) -> SysResult<Arc<dyn File>> {
        let pty = self.pty.upgrade().ok_or(Errno::EIO)?;
        Ok(pty.open_slave(task, self.clone(), may_control(flags))?)
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn options_are_parsed() {
        let options = Options::parse(b"newinstance,gid=5,mode=0620,ptmxmode=0666").ok();
        assert_eq!(options, Some(Options::CONTAINER));
        assert!(Options::parse(b"nonsense").is_err());
    }
}
