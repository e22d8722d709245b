//! Random operations on a tmpfs and on an overlay, each beside the same on the host's file system.

use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use syscalls::abi::fs::RenameFlags;
use syscalls::abi::mount::MountFlags;
use syscalls::{Errno, SysResult};

use super::OverlayFs;
use super::file::OverlayDir;
use super::node::OverlayNode;
use crate::fs::tmpfs::file::RegularFile;
use crate::fs::tmpfs::node::Node;
use crate::fs::tmpfs::{MemoryStore, Options, TmpFs};
use crate::task::Credentials;
use crate::task::creds::ALL_CAPABILITIES;
use crate::vfs::inode::{NodeKind, downcast};
use crate::vfs::mount::{Mount, SuperBlock};
use crate::vfs::walk::{Walk, WalkFlags};
use crate::vfs::{
    FileSystem, FileType, Inode, Path, SetAttr, SliceSink, SliceSource, WriteOffset, names,
};

/// A sequence of numbers that is the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("an index")]
    }
}

fn descriptor_directory() {
    let dir = std::fs::File::open("/proc/self/fd").expect("/proc is mounted");
    sentry_host::memfd::set_descriptor_directory(dir.into());
}

/// A mounted file system.
struct Rig {
    root: Path,
}

impl Rig {
    fn new(fs: Arc<dyn FileSystem>) -> Self {
        let mount = Mount::new(SuperBlock::new(fs), b"none", MountFlags::empty());
        let dentry = mount.root.clone();
        Self { root: Path { mount, dentry } }
    }

    fn walk(&self, flags: WalkFlags) -> Walk<'static> {
        let creds = Arc::new(Credentials::root(ALL_CAPABILITIES));
        Walk::new(None, creds, self.root.clone(), self.root.clone(), flags)
    }

    fn find(&self, path: &str) -> SysResult<Path> {
        self.walk(WalkFlags::FOLLOW).resolve(path.as_bytes())
    }

    fn create(&self, path: &str, kind: NodeKind) -> SysResult<()> {
        names::create(&mut self.walk(WalkFlags::empty()), path.as_bytes(), kind, 0o755).map(drop)
    }

    fn write(&self, path: &str, offset: u64, data: &[u8]) -> SysResult<()> {
        let inode = self.find(path)?.inode().clone();
        if inode.file_type() == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        let file = open(&inode);
        file.write_at(&mut SliceSource::new(data), WriteOffset::At(offset)).map(drop)
    }

    fn apply(&self, op: &Op) -> SysResult<()> {
        let walk = || self.walk(WalkFlags::empty());
        match op {
            Op::Mkdir(path) => self.create(path, NodeKind::Directory),
            Op::Create(path) => self.create(path, NodeKind::Regular),
            Op::Symlink(path, target) => {
                self.create(path, NodeKind::Symlink(target.as_bytes().to_vec()))
            }
            Op::Write(path, offset, data) => self.write(path, *offset, data),
            Op::Truncate(path, size) => {
                let path = self.find(path)?;
                if path.dentry.is_dir() {
                    return Err(Errno::EISDIR);
                }
                path.inode().set_attr(&SetAttr { size: Some(*size), ..SetAttr::default() })
            }
            Op::Chmod(path, mode) => {
                let change = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                self.find(path)?.inode().set_attr(&change)
            }
            Op::Unlink(path) => names::unlink(&mut walk(), path.as_bytes()),
            Op::Rmdir(path) => names::rmdir(&mut walk(), path.as_bytes()),
            Op::Link(old, new) => {
                let target = walk().resolve(old.as_bytes())?;
                names::link(&mut walk(), &target, new.as_bytes())
            }
            Op::Rename(old, new) => names::rename(
                &mut walk(),
                old.as_bytes(),
                &mut walk(),
                new.as_bytes(),
                RenameFlags::empty(),
            ),
        }
    }

    /// Describes the whole tree.
    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(dir) = pending.pop() {
            for name in list(self.find(&format!("/{dir}")).expect("listed").inode()) {
                let path = format!("{dir}/{name}");
                let found = self.walk(WalkFlags::empty()).resolve(path.as_bytes());
                let inode = found.expect("listed").inode().clone();
                let attr = inode.attr().expect("attributes");
                let detail = match attr.file_type() {
                    FileType::Directory => {
                        pending.push(path.clone());
                        String::new()
                    }
                    FileType::Symlink => {
                        let target = inode.readlink(None).expect("target");
                        String::from_utf8_lossy(&target).into_owned()
                    }
                    _ => {
                        let mut data = vec![0; 100_000];
                        let mut sink = SliceSink::new(&mut data);
                        let n = open(&inode).read_at(&mut sink, 0).expect("content");
                        assert_eq!(n as u64, attr.size);
                        format!(
                            "{} {} {:x}",
                            attr.nlink,
                            attr.size,
                            hash(data.get(..n).unwrap_or(&[]))
                        )
                    }
                };
                let mode =
                    if attr.file_type() == FileType::Symlink { 0 } else { attr.mode & 0o7777 };
                lines.push(format!("{path} {:?} {mode:o} {detail}", attr.file_type()));
            }
        }
        lines.sort();
        lines
    }
}

fn open(inode: &Arc<dyn Inode>) -> RegularFile {
    let node = match downcast::<OverlayNode>(inode) {
        Some(node) => {
            node.pin();
            node.upper().expect("upper").clone()
        }
        None => downcast::<Node>(inode).expect("a node of a tmpfs"),
    };
    RegularFile::new(node).expect("opened")
}

fn visit(inode: &Arc<dyn Inode>, offset: u64, see: impl FnMut(&[u8], u64, FileType, u64) -> bool) {
    match downcast::<OverlayNode>(inode) {
        Some(node) => OverlayDir::new(node).visit(offset, see),
        None => downcast::<Node>(inode).expect("a node of a tmpfs").visit(offset, see),
    }
    .expect("a directory");
}

fn list(inode: &Arc<dyn Inode>) -> Vec<String> {
    let mut names = Vec::new();
    let mut offset = 0;
    // A few entries at a time: offsets must go on at the right place.
    loop {
        let mut n = 0;
        visit(inode, offset, |name, _, _, next| {
            if n < 3 {
                names.push(String::from_utf8_lossy(name).into_owned());
                offset = next;
            }
            n += 1;
            n < 3
        });
        if n == 0 {
            break;
        }
    }
    names.retain(|name| name != "." && name != "..");
    names
}

fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// One operation; paths begin with a slash.
#[derive(Debug)]
enum Op {
    Mkdir(String),
    Create(String),
    Symlink(String, String),
    Write(String, u64, Vec<u8>),
    Truncate(String, u64),
    Chmod(String, u32),
    Unlink(String),
    Rmdir(String),
    Link(String, String),
    Rename(String, String),
}

impl Op {
    fn random(random: &mut Random) -> Self {
        let path = |random: &mut Random| {
            let mut path = String::new();
            for _ in 0..=random.below(3) {
                path.push('/');
                path.push(char::from(b'a' + u8::try_from(random.below(4)).unwrap_or(0)));
            }
            path
        };
        let at = path(random);
        match random.below(16) {
            0..=2 => Self::Mkdir(at),
            3 | 4 => Self::Create(at),
            5 => Self::Symlink(at, String::from(random.pick(&["b", "a/../b", "c/d", "a"]))),
            6..=8 => {
                let len = random.pick(&[10, 5_000, 20_000]);
                let byte = u8::try_from(random.below(256)).unwrap_or(0);
                Self::Write(at, random.below(30_000), vec![byte; len])
            }
            9 => Self::Truncate(at, random.below(40_000)),
            10 => Self::Chmod(at, 0o700 | u32::try_from(random.below(0o100)).unwrap_or(0)),
            11 => Self::Unlink(at),
            12 => Self::Rmdir(at),
            13 => Self::Link(at, path(random)),
            _ => Self::Rename(at, path(random)),
        }
    }
}

/// The same on the host, in a directory of its own.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("overlay-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("a new directory");
        Self(dir)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn apply(&self, op: &Op) -> std::io::Result<()> {
        match op {
            Op::Mkdir(path) => {
                std::fs::create_dir(self.path(path))?;
                set_mode(&self.path(path), 0o755)
            }
            Op::Create(path) => {
                let options =
                    std::fs::File::options().write(true).create_new(true).open(self.path(path))?;
                drop(options);
                set_mode(&self.path(path), 0o755)
            }
            Op::Symlink(path, target) => symlink(target, self.path(path)),
            Op::Write(path, offset, data) => {
                let mut file = std::fs::File::options().write(true).open(self.path(path))?;
                file.seek(std::io::SeekFrom::Start(*offset))?;
                file.write_all(data)
            }
            Op::Truncate(path, size) => {
                std::fs::File::options().write(true).open(self.path(path))?.set_len(*size)
            }
            Op::Chmod(path, mode) => set_mode(&self.path(path), *mode),
            Op::Unlink(path) => std::fs::remove_file(self.path(path)),
            Op::Rmdir(path) => std::fs::remove_dir(self.path(path)),
            Op::Link(old, new) => std::fs::hard_link(self.path(old), self.path(new)),
            Op::Rename(old, new) => std::fs::rename(self.path(old), self.path(new)),
        }
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(self.path(&dir)).expect("listed") {
                let name = entry.expect("entry").file_name();
                let path = format!("{dir}/{}", name.to_string_lossy());
                let attr = std::fs::symlink_metadata(self.path(&path)).expect("attributes");
                assert!(!attr.file_type().is_fifo());
                let mode = attr.mode() & 0o7777;
                lines.push(if attr.is_dir() {
                    pending.push(path.clone());
                    format!("{path} Directory {mode:o} ")
                } else if attr.is_symlink() {
                    let target = std::fs::read_link(self.path(&path)).expect("target");
                    format!("{path} Symlink 0 {}", target.display())
                } else {
                    let data = std::fs::read(self.path(&path)).expect("content");
                    format!(
                        "{path} Regular {mode:o} {} {} {:x}",
                        attr.nlink(),
                        data.len(),
                        hash(&data)
                    )
                });
            }
        }
        lines.sort();
        lines
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &std::path::Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn compare(rig: &Rig, host: &Host, random: &mut Random, n_ops: usize) {
    for step in 0..n_ops {
        let op = Op::random(random);
        let ours = rig.apply(&op).map_err(|errno| errno.raw()).err();
        let theirs = host.apply(&op).err().and_then(|error| error.raw_os_error());
        assert_eq!(ours, theirs, "step {step}: {op:?}");
        if step % 10 == 0 {
            // Nodes that nobody uses go, and are made again.
            rig.root.mount.sb.cache.clear(&rig.root.dentry);
        }
        if step % 64 == 0 {
            assert_eq!(rig.describe(), host.describe(), "after step {step}: {op:?}");
        }
    }
    assert_eq!(rig.describe(), host.describe());
}

#[test]
fn random_operations_on_a_tmpfs_agree_with_the_host() {
    descriptor_directory();
    for seed in 1..=6 {
        let host = Host::new(&format!("tmpfs-{seed}"));
        let rig = Rig::new(TmpFs::new(Options::default()).expect("created"));
        compare(&rig, &host, &mut Random(seed), 700);
    }
}

#[test]
fn random_operations_on_an_overlay_agree_with_the_host() {
    descriptor_directory();
    for seed in 1..=10 {
        let host = Host::new(&format!("overlay-{seed}"));
        let mut random = Random(seed);
        let lower: Arc<dyn FileSystem> = TmpFs::new(Options::default()).expect("created");
        compare(&Rig::new(lower.clone()), &host, &mut random, 300);
        let before = Rig::new(lower.clone()).describe();
        let overlay = OverlayFs::new(&lower, Arc::new(MemoryStore)).expect("created");
        compare(&Rig::new(overlay), &host, &mut random, 700);
        assert_eq!(Rig::new(lower).describe(), before, "the lower layer has changed");
    }
}

#[test]
fn open_file_follows_the_copy_and_keeps_its_number() {
    descriptor_directory();
    let lower: Arc<dyn FileSystem> = TmpFs::new(Options::default()).expect("created");
    let below = Rig::new(lower.clone());
    below.create("/f", NodeKind::Regular).expect("created");
    below.write("/f", 0, b"old").expect("written");
    let rig = Rig::new(OverlayFs::new(&lower, Arc::new(MemoryStore)).expect("created"));
    let inode = rig.find("/f").expect("found").inode().clone();
    let ino = inode.attr().expect("attributes").ino;
    let reader = open(&inode);
    rig.write("/f", 0, b"new").expect("written");
    let mut data = [0; 8];
    assert_eq!(reader.read_at(&mut SliceSink::new(&mut data), 0), Ok(3));
    assert_eq!(data.get(..3), Some(&b"new"[..]));
    assert_eq!(rig.find("/f").expect("found").inode().attr().expect("attributes").ino, ino);
    assert_eq!(below.describe().len(), 1);
}

#[test]
fn walk_follows_links_and_stops_at_loops() {
    let rig = Rig::new(TmpFs::new(Options::default()).expect("created"));
    let link = |path: &str, target: &str| {
        rig.create(path, NodeKind::Symlink(target.as_bytes().to_vec())).expect("created");
    };
    rig.create("/d", NodeKind::Directory).expect("created");
    rig.create("/d/f", NodeKind::Regular).expect("created");
    link("/l", "d/");
    link("/loop", "loop");
    link("/abs", "/l/../d/./f");
    let errno = |path: &str| rig.find(path).err();
    assert_eq!(errno("/l/f"), None);
    assert_eq!(errno("/abs"), None);
    assert_eq!(errno("/../../d"), None);
    assert_eq!(errno("/abs/"), Some(Errno::ENOTDIR));
    assert_eq!(errno("/abs/.."), Some(Errno::ENOTDIR));
    assert_eq!(errno("/loop"), Some(Errno::ELOOP));
    assert_eq!(errno("/none/.."), Some(Errno::ENOENT));
    assert_eq!(errno(""), Some(Errno::ENOENT));
    assert_eq!(errno(&"x".repeat(256)), Some(Errno::ENAMETOOLONG));
    let beneath = |path: &str| rig.walk(WalkFlags::BENEATH).resolve(path.as_bytes()).err();
    assert_eq!(beneath("d/../.."), Some(Errno::EXDEV));
    assert_eq!(beneath("/d"), Some(Errno::EXDEV));
    assert_eq!(beneath("d/.."), None);
    let plain = rig.walk(WalkFlags::NO_SYMLINKS).resolve(b"l/f").err();
    assert_eq!(plain, Some(Errno::ELOOP));
    let name = rig.find("/l/f").expect("found").name_from(&rig.root);
    assert_eq!(name.name, b"/d/f");
}
