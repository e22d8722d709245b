//! The client against a gofer that serves, locked down, from a thread of the test.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;

use gofer::{Config, MountConfig, MountOptions};
use syscalls::Errno;
use syscalls::abi::fs::OpenFlags;

use super::*;
use crate::fs::gofer::directory::GoferDirectory;
use crate::fs::gofer::file::GoferFile;
use crate::vfs::dentry::{Dentry, DentryCache};
use crate::vfs::io::{SliceSource, VecSink};
use crate::vfs::{
    File as _, FileType, LookupPolicy, MapMode, Mappable as _, NewNode, NodeKind, SetAttr,
    WriteOffset, XattrFlags,
};

/// A mount of a directory that is removed at the end.
struct Rig {
    dir: PathBuf,
    fs: Option<GoferFs>,
    serving: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Rig {
    fn new(caching: Caching, options: MountOptions) -> Self {
        Self::with_freshness(caching, options, FRESH)
    }

    fn with_freshness(caching: Caching, options: MountOptions, fresh: Duration) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("client-{}-{number}", std::process::id()));
        fs::create_dir(&dir).expect("create the directory");
        fs::create_dir(dir.join("dir")).expect("create a directory");
        fs::write(dir.join("dir/file"), "text").expect("write a file");
        symlink("dir/file", dir.join("link")).expect("link");
        let (socket, server) = packet_pair();
        let root = OwnedFd::from(fs::File::open(&dir).expect("open the root"));
        let mounts = vec![MountConfig { socket: server, root, options }];
        let config = Config { mounts, proc_self_fd: None };
        let serving = std::thread::spawn(move || gofer::run(config));
        let fs = GoferFs::attach_with(socket, caching, fresh).expect("attach");
        Self { dir, fs: Some(fs), serving: Some(serving) }
    }

    fn writable(caching: Caching) -> Self {
        Self::new(caching, MountOptions::default())
    }

    fn fs(&self) -> &GoferFs {
        self.fs.as_ref().expect("until the end")
    }

    #[track_caller]
    fn inode(&self, path: &str) -> Arc<GoferInode> {
        path.split('/').fold(self.fs().root.clone(), |inode, name| {
            let child = inode.lookup(name.as_bytes()).expect("lookup");
            crate::vfs::inode::downcast(&child).expect("ours")
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.fs = None;
        let serving = self.serving.take().expect("until the end");
        if !std::thread::panicking() {
            serving.join().expect("no panic").expect("no error");
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn packet_pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    socketpair(family, kind, SocketFlags::CLOEXEC, None).expect("a socket pair")
}

fn node(kind: NodeKind, mode: u32) -> NewNode {
    NewNode { kind, mode, umask: 0, uid: 0, gid: 0 }
}

fn read(file: &GoferFile, offset: u64) -> Vec<u8> {
    let mut sink = VecSink::new(1 << 20);
    file.read_to(&mut sink, offset).expect("read");
    sink.data
}

/// A sink of names.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    room: usize,
    last: u64,
}

impl crate::vfs::DirSink for Names {
    fn entry(&mut self, entry: &crate::vfs::DirEntry<'_>) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.names.push(String::from_utf8_lossy(entry.name).into_owned());
        self.last = entry.next_offset;
        true
    }
}

fn list(directory: &GoferDirectory, offset: u64, room: usize) -> (Vec<String>, u64) {
    let mut names = Names { room, ..Names::default() };
    directory.list(offset, &mut names).expect("readdir");
    (names.names, names.last)
}

#[test]
fn files_are_found_read_and_written() {
    let rig = Rig::writable(Caching::Shared);
    let inode = rig.inode("dir/file");
    assert_eq!(inode.file_type(), FileType::Regular);
    let host = fs::metadata(rig.dir.join("dir/file")).expect("stat");
    let attr = inode.attr().expect("attr");
    assert_eq!((attr.dev, attr.ino, attr.size), (host.dev(), host.ino(), 4));

    let flags = OpenFlags::RDWR.bits();
    let file = GoferFile::open(inode.clone(), flags).expect("open");
    assert_eq!(read(&file, 0), b"text");
    assert_eq!(read(&file, 2), b"xt");
    assert_eq!(read(&file, 4), b"");
    let written = file.write_from(&mut SliceSource::new(b"123456"), WriteOffset::At(2));
    assert_eq!(written, Ok((6, 8)));
    let appended = file.write_from(&mut SliceSource::new(b"end"), WriteOffset::Append);
    assert_eq!(appended, Ok((3, 11)));
    assert_eq!(fs::read(rig.dir.join("dir/file")).expect("read"), b"te123456end");
    assert_eq!(inode.attr().expect("attr").size, 11);

    // A large one, in several pieces.
    let data = vec![7; 1_000_000];
    let written = file.write_from(&mut SliceSource::new(&data), WriteOffset::At(0));
    assert_eq!(written, Ok((1_000_000, 1_000_000)));
    assert_eq!(read(&file, 0), data);
    let change = SetAttr { size: Some(3), ..SetAttr::default() };
    inode.set_attr(&change).expect("truncate");
    assert_eq!(inode.attr().expect("attr").size, 3);
    assert_eq!(file.seek(0, 4), Ok(3));
    assert_eq!(file.seek(-1, 2), Ok(2));
}

#[test]
fn nodes_are_created_linked_moved_and_removed() {
    for caching in [Caching::Exclusive, Caching::Shared] {
        let rig = Rig::writable(caching);
        let root = rig.fs().root();
        let dir = root.lookup(b"dir").expect("lookup");
        let new = root.create(b"new", &node(NodeKind::Regular, 0o640)).expect("create");
        assert_eq!(new.attr().expect("attr").mode, 0o100_640);
        let again = root.create(b"new", &node(NodeKind::Regular, 0o640));
        assert_eq!(again.err(), Some(Errno::EEXIST));
        dir.link(b"second", &new).expect("link");
        assert_eq!(new.attr().expect("attr").nlink, 2);
        // Both names are one inode.
        assert!(Arc::ptr_eq(&dir.lookup(b"second").expect("lookup"), &new));
        root.unlink(b"new").expect("unlink");
        new.name_removed();
        assert_eq!(new.attr().expect("attr").nlink, 1);
        assert_eq!(root.lookup(b"new").err(), Some(Errno::ENOENT));
        dir.rename(b"second", &root, b"third", 0).expect("rename");
        assert!(rig.dir.join("third").exists());
        let n_links = dir.attr().expect("attr").nlink;
        dir.create(b"sub", &node(NodeKind::Directory, 0o755)).expect("mkdir");
        assert_eq!(dir.attr().expect("attr").nlink, n_links + u32::from(n_links > 1));
        assert_eq!(root.rmdir(b"dir").err(), Some(Errno::ENOTEMPTY));
        dir.rmdir(b"sub").expect("rmdir");
        let link = root.create(b"l", &node(NodeKind::Symlink(b"to".to_vec()), 0)).expect("symlink");
        assert_eq!(link.file_type(), FileType::Symlink);
        root.create(b"fifo", &node(NodeKind::Fifo, 0o600)).expect("mkfifo");
        let device = root.create(b"null", &node(NodeKind::CharDevice(0x103), 0o666));
        assert_eq!(device.err(), Some(Errno::EPERM));
    }
}

#[test]
fn a_link_knows_its_target_from_the_walk() {
    let rig = Rig::writable(Caching::Shared);
    assert_eq!(rig.inode("link").link_target().expect("readlink"), b"dir/file");
    assert_eq!(rig.inode("dir/file").link_target().err(), Some(Errno::EINVAL));
}

#[test]
fn directories_are_listed_from_any_entry() {
    for caching in [Caching::Exclusive, Caching::Shared] {
        let rig = Rig::writable(caching);
        let dir = rig.inode("dir");
        for number in 0..1000 {
            dir.create(format!("{number}").as_bytes(), &node(NodeKind::Regular, 0o600))
                .expect("create");
        }
        let open = GoferDirectory::new(dir.clone());
        let (first, next) = list(&open, 0, 3);
        assert_eq!(first.get(..2), Some(&[".".to_owned(), "..".to_owned()][..]));
        // What is removed meanwhile moves nothing.
        dir.unlink(b"500").expect("unlink");
        let (rest, end) = list(&open, next, 5000);
        assert_eq!(rest.len(), 1000);
        assert!(list(&open, end, 10).0.is_empty());
        assert!(list(&open, u64::MAX, 10).0.is_empty());
        // From the beginning, it is gone.
        let (all, _) = list(&open, 0, 5000);
        assert_eq!(all.len(), 1002);
        assert!(!all.contains(&"500".to_owned()));
    }
}

#[test]
fn a_shared_mount_sees_what_others_change_and_an_exclusive_one_does_not_ask() {
    let rig = Rig::writable(Caching::Shared);
    let root = rig.fs().root();
    assert_eq!(root.lookup_policy(), LookupPolicy::Revalidate);
    let dir = root.lookup(b"dir").expect("lookup");
    let file = dir.lookup(b"file").expect("lookup");
    assert!(dir.revalidate(b"file", Some(&file)));
    assert!(dir.revalidate(b"none", None));
    fs::write(rig.dir.join("dir/none"), "").expect("write");
    assert!(!dir.revalidate(b"none", None));
    fs::write(rig.dir.join("dir/file"), "longer text").expect("write");
    assert!(dir.revalidate(b"file", Some(&file)));
    assert_eq!(file.attr().expect("attr").size, 11);
    fs::rename(rig.dir.join("dir/none"), rig.dir.join("dir/file")).expect("rename");
    assert!(!dir.revalidate(b"file", Some(&file)));

    let rig = Rig::new(Caching::Exclusive, MountOptions { readonly: true, ..Default::default() });
    let root = rig.fs().root();
    assert!(rig.fs().is_readonly());
    assert_eq!(root.lookup_policy(), LookupPolicy::Cache);
    let dir = root.lookup(b"dir").expect("lookup");
    let before = dir.attr().expect("attr");
    fs::write(rig.dir.join("dir/other"), "").expect("write");
    assert_eq!(dir.attr(), Ok(before));
    let refused = root.create(b"new", &node(NodeKind::Regular, 0o600));
    assert_eq!(refused.err(), Some(Errno::EROFS));
}

#[test]
fn an_own_root_is_looked_at_again_after_a_message_from_outside() {
    let rig = Rig::writable(Caching::Own);
    let root = rig.fs().root();
    let dir = root.lookup(b"dir").expect("lookup");
    let file = dir.lookup(b"file").expect("lookup");
    assert_eq!(dir.lookup(b"new").err(), Some(Errno::ENOENT));
    fs::write(rig.dir.join("dir/new"), "").expect("write");
    fs::write(rig.dir.join("dir/file"), "longer text").expect("write");
    rig.fs().distrust();
    assert_eq!(dir.lookup_policy(), LookupPolicy::Revalidate);
    assert!(!dir.revalidate(b"new", None));
    assert!(dir.lookup(b"new").is_ok() && dir.is_sure_of(b"new"));
    assert!(!dir.is_sure_of(b"file"));
    assert!(dir.revalidate(b"file", Some(&file)) && dir.is_sure_of(b"file"));
    assert_eq!(file.attr().expect("attr").size, 11);
    // Where nothing has changed, one look at the directory is enough.
    rig.fs().distrust();
    assert!(!root.is_sure_of(b"dir"));
    assert!(root.revalidate(b"dir", Some(&dir)));
    assert!(root.is_sure_of(b"dir") && root.is_sure_of(b"anything"));
}

#[test]
fn what_others_make_in_an_own_root_takes_the_place_of_what_was_remembered() {
    let rig = Rig::writable(Caching::Own);
    let cache = DentryCache::default();
    let root = Dentry::new_root(rig.fs().root());
    let dir = root.lookup(b"dir", &cache).expect("lookup");
    let look = || {
        rig.fs().distrust();
        dir.lookup(b"new", &cache)
    };
    assert_eq!(look().err(), Some(Errno::ENOENT));
    fs::write(rig.dir.join("dir/new"), "").expect("write");
    let first = look().expect("lookup");
    fs::rename(rig.dir.join("dir/file"), rig.dir.join("dir/new")).expect("rename");
    let second = look().expect("lookup");
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(look().is_ok_and(|third| Arc::ptr_eq(&second, &third)));
    fs::remove_file(rig.dir.join("dir/new")).expect("remove");
    assert_eq!(look().err(), Some(Errno::ENOENT));
    cache.clear(&root);
}

#[test]
fn mappings_share_one_descriptor_for_each_access() {
    let rig = Rig::writable(Caching::Shared);
    let inode = rig.inode("dir/file");
    let map = |mode| inode.map(mode, 0, 4096).expect("map").fd;
    let private = map(MapMode::Private);
    assert!(Arc::ptr_eq(&private, &map(MapMode::SharedRead)));
    let shared = map(MapMode::SharedWrite);
    assert!(!Arc::ptr_eq(&private, &shared));
    assert_eq!(sentry_host::file::write_at(private.as_fd(), b"x", 0), Err(Errno::EBADF));
    assert_eq!(sentry_host::file::write_at(shared.as_fd(), b"x", 0), Ok(1));
    assert!(private.as_raw_fd() >= 0);
    let again = rig.inode("dir/file");
    assert!(Arc::ptr_eq(&again, &inode));
}

#[test]
fn attributes_and_extended_attributes_are_set() {
    let rig = Rig::writable(Caching::Exclusive);
    let inode = rig.inode("dir/file");
    let change = SetAttr {
        mode: Some(0o600),
        mtime: Some(crate::vfs::SetTime::At(crate::vfs::Timestamp { sec: 5, nsec: 6 })),
        atime: Some(crate::vfs::SetTime::Now),
        ..SetAttr::default()
    };
    inode.set_attr(&change).expect("set_attr");
    let attr = inode.attr().expect("attr");
    assert_eq!((attr.mode, attr.mtime.sec, attr.mtime.nsec), (0o100_600, 5, 6));
    assert!(attr.atime.sec > 1_000_000_000);
    assert_eq!(inode.get_xattr(b"user.x").err().map(|e| e == Errno::ENODATA), Some(true));
    inode.set_xattr(b"user.x", b"value", XattrFlags::CREATE).expect("set");
    assert_eq!(inode.get_xattr(b"user.x").expect("get"), b"value");
    assert_eq!(inode.list_xattr().expect("list"), [b"user.x".to_vec()]);
    inode.remove_xattr(b"user.x").expect("remove");
    assert!(inode.list_xattr().expect("list").is_empty());
}

#[test]
fn many_inodes_come_and_go() {
    let rig = Rig::writable(Caching::Shared);
    for _ in 0..3000 {
        rig.inode("dir/file");
    }
    assert_eq!(rig.fs().store.inodes.lock().len(), 1);
    rig.fs().sync().expect("sync");
    rig.fs().statfs().expect("statfs");
    let [backing, read_only] = rig.fs().backing_file().expect("a file without a name");
    assert_eq!(sentry_host::file::write_at(backing.as_fd(), b"data", 1 << 20), Ok(4));
    let mut data = [0; 8];
    assert_eq!(sentry_host::file::read_at(read_only.as_fd(), &mut data, 1 << 20), Ok(4));
    assert_eq!(sentry_host::file::write_at(read_only.as_fd(), b"x", 0), Err(Errno::EBADF));
}

#[test]
fn a_gofer_that_has_gone_is_an_input_output_error() {
    let (socket, server) = packet_pair();
    drop(server);
    assert_eq!(GoferFs::attach(socket, Caching::Shared).err(), Some(Errno::EIO));
}

#[test]
fn a_walk_ahead_serves_the_lookups_that_follow_and_no_later_ones() {
    let options = MountOptions::default();
    let rig = Rig::with_freshness(Caching::Shared, options, Duration::MAX);
    fs::create_dir_all(rig.dir.join("a/b/c")).expect("mkdir");
    let root = rig.fs().root();
    root.prefetch(b"/a//b/c/none/x");
    // Gone on the host; found as it was a moment ago, once.
    fs::remove_dir_all(rig.dir.join("a")).expect("remove");
    let mut at = root.clone();
    let results: Vec<_> = [&b"a"[..], b"b", b"c", b"none"]
        .into_iter()
        .map(|name| {
            let found = at.lookup(name);
            if let Ok(found) = &found {
                at = found.clone();
            }
            found.err()
        })
        .collect();
    assert_eq!(results, [None, None, None, Some(Errno::ENOENT)]);
    assert_eq!(root.lookup(b"a").err(), Some(Errno::ENOENT));

    let rig = Rig::with_freshness(Caching::Shared, options, Duration::ZERO);
    let root = rig.fs().root();
    root.prefetch(b"dir/file");
    fs::remove_dir_all(rig.dir.join("dir")).expect("remove");
    assert_eq!(root.lookup(b"dir").err(), Some(Errno::ENOENT));
    for path in [&b""[..], b"/", b"..", b"x/../y", b"x", b"a\0/b"] {
        root.prefetch(path);
    }
}

#[test]
fn names_are_looked_up_together_in_the_order_of_the_listing() {
    let rig = Rig::writable(Caching::Exclusive);
    let dir = rig.dir.join("many");
    fs::create_dir(&dir).expect("mkdir");
    for index in 0..100 {
        fs::write(dir.join(format!("{index}")), "").expect("write");
    }
    let many = rig.inode("many");
    let names: Vec<Vec<u8>> =
        many.listing().expect("list").iter().map(|entry| entry.name.clone()).collect();
    let path = |index: usize| dir.join(String::from_utf8_lossy(&names[index]).as_ref());
    for name in &names[..3] {
        many.lookup(name).expect("lookup");
    }
    // The fourth was looked up with the third, the hundredth was not.
    fs::remove_file(path(3)).expect("remove");
    fs::remove_file(path(99)).expect("remove");
    many.lookup(&names[3]).expect("found before it went");
    assert_eq!(many.lookup(&names[99]).err(), Some(Errno::ENOENT));
    // What this sandbox changes is never served from before.
    many.unlink(&names[4]).expect("unlink");
    assert_eq!(many.lookup(&names[4]).err(), Some(Errno::ENOENT));
}

#[test]
fn what_nobody_asks_for_is_kept_of_few_directories() {
    let rig = Rig::writable(Caching::Exclusive);
    let dirs: Vec<_> = (0..20)
        .map(|index| {
            let dir = rig.dir.join(format!("d{index}"));
            fs::create_dir(&dir).expect("mkdir");
            for index in 0..20 {
                fs::write(dir.join(format!("{index}")), "").expect("write");
            }
            let dir = rig.inode(&format!("d{index}"));
            let listing = dir.listing().expect("list");
            for entry in &listing[..2] {
                dir.lookup(&entry.name).expect("lookup");
            }
            dir
        })
        .collect();
    let n_kept = |rig: &Rig| {
        let inodes = rig.fs().store.inodes.lock();
        inodes.values().filter(|inode| inode.strong_count() > 0).count()
    };
    // The root, the directories, and 18 names in each of eight.
    assert_eq!(n_kept(&rig), 1 + 20 + 8 * 18);
    dirs[19].set_stale();
    assert_eq!(n_kept(&rig), 1 + 20 + 7 * 18);
    // The gofer ends although something is kept.
    drop(dirs);
}

#[test]
fn an_own_root_lists_a_directory_once_until_it_changes() {
    let rig = Rig::writable(Caching::Own);
    let names = |dir: &GoferInode| dir.listing().expect("list").len();
    // A directory that has just changed may change again without having other times.
    fs::create_dir(rig.dir.join("new")).expect("mkdir");
    let new = rig.inode("new");
    assert_eq!(names(&new), 0);
    fs::write(rig.dir.join("new/file"), "").expect("write");
    assert_eq!(names(&new), 1);

    let path = rig.dir.join("old");
    fs::create_dir(&path).expect("mkdir");
    fs::write(path.join("one"), "").expect("write");
    std::thread::sleep(SETTLED * 2);
    let old = rig.inode("old");
    assert_eq!(names(&old), 1);
    assert!(Arc::ptr_eq(&old.listing().expect("list"), &old.listing().expect("list")));
    // What others change is seen after a message from outside, what this sandbox changes at once.
    fs::write(path.join("two"), "").expect("write");
    rig.fs().distrust();
    assert_eq!(names(&old), 2);
    old.create(b"three", &node(NodeKind::Regular, 0o600)).expect("create");
    assert_eq!(names(&old), 3);
    old.unlink(b"three").expect("unlink");
    assert_eq!(names(&old), 2);
}

#[test]
fn a_shared_mount_looks_up_nothing_ahead_of_a_listing() {
    let rig = Rig::writable(Caching::Shared);
    for name in ["a", "b", "c", "d", "e"] {
        fs::write(rig.dir.join(name), "").expect("write");
    }
    let root = rig.fs().root.clone();
    let listing = root.listing().expect("list");
    for entry in &listing[..3] {
        root.lookup(&entry.name).expect("lookup");
    }
    fs::remove_file(rig.dir.join(String::from_utf8_lossy(&listing[3].name).as_ref()))
        .expect("remove");
    assert_eq!(root.lookup(&listing[3].name).err(), Some(Errno::ENOENT));
}
