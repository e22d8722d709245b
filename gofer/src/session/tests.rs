//! A session against a directory of the host: what it serves, and what it must not.
#![expect(
    clippy::unwrap_in_result,
    reason = "helpers return the guest's error, and panic on any other"
)]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gofer_wire::request::{Fids, Names, Ownership};
use gofer_wire::{
    BindKind, Name, OpenFlags, ROOT_FID, RenameFlags, SetAttr, SetAttrMask, Timespec, UnlinkFlags,
    VERSION, XattrFlags,
};

use super::*;
use crate::server::Server;
use crate::{Config, MountConfig};

/// A directory that is removed at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gofer-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("create the directory");
        Self(path)
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A session below a directory `root`, beside which there is `secret`.
struct Rig {
    dir: TempDir,
    session: Session,
    reopener: Reopener,
    reply: Vec<u8>,
}

const OWNERSHIP: Ownership = Ownership { mode: 0o640, uid: 0, gid: 0 };

impl Rig {
    fn new(options: MountOptions) -> Self {
        let dir = TempDir::new();
        fs::create_dir(dir.path("root")).expect("create the root");
        fs::write(dir.path("secret"), "secret").expect("write the secret");
        let session = Session::new(open(&dir.path("root")), options, 1000).expect("a session");
        let reopener = Reopener::new(None).expect("a procfs");
        Self { dir, session, reopener, reply: Vec::new() }
    }

    fn writable() -> Self {
        Self::new(MountOptions::default())
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path("root").join(relative)
    }

    /// Sends a request; returns the body of the reply and its descriptor, or the error.
    fn call(&mut self, request: &Request<'_>) -> SysResult<(Vec<u8>, Option<OwnedFd>)> {
        let mut message = Vec::new();
        request.encode(7, &mut message).expect("encode");
        match self.session.answer(&self.reopener, &message, &mut self.reply) {
            Answer::Reply(descriptors) => {
                let (body, n_fds) =
                    reply::body(&self.reply, request.opcode(), 7).expect("a reply")?;
                assert_eq!(usize::try_from(n_fds), Ok(descriptors.len()));
                Ok((body.to_vec(), descriptors.into_iter().next()))
            }
            Answer::Nothing => Ok((Vec::new(), None)),
            Answer::Disconnect => panic!("disconnected by {request:?}"),
        }
    }

    fn walk(&mut self, fid: u32, path: &str) -> SysResult<Walked> {
        let names: Vec<_> = path.split('/').map(name).collect();
        let (body, _) = self.call(&Request::Walk { fid, names: Names::new(&names) })?;
        let walk = reply::Walk::decode(&body).expect("decode");
        Ok(Walked {
            nodes: walk.nodes().collect(),
            stopped: walk.stopped,
            target: walk.target.map(<[u8]>::to_vec),
        })
    }

    /// Walks to a file that exists.
    #[track_caller]
    fn fid(&mut self, path: &str) -> u32 {
        let walked = self.walk(ROOT_FID, path).expect("walk");
        assert_eq!(walked.stopped, None, "{path}");
        walked.nodes.last().expect("a node").fid
    }

    fn node(&mut self, request: &Request<'_>) -> SysResult<(reply::Node, Option<OwnedFd>)> {
        let (body, descriptor) = self.call(request)?;
        Ok((reply::fixed(&body).expect("decode"), descriptor))
    }

    fn read_dir(&mut self, fid: u32) -> Vec<String> {
        let mut found = Vec::new();
        let mut cookie = 0;
        loop {
            let (body, _) = self.call(&Request::Readdir { fid, cookie }).expect("readdir");
            let before = found.len();
            for entry in reply::Entries::decode(&body).expect("decode") {
                found.push(String::from_utf8_lossy(entry.name.as_bytes()).into_owned());
                cookie = entry.next;
            }
            if found.len() == before {
                return found;
            }
        }
    }
}

#[derive(Debug)]
struct Walked {
    nodes: Vec<reply::Node>,
    stopped: Option<Errno>,
    target: Option<Vec<u8>>,
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn open(path: &Path) -> OwnedFd {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("open")
}

fn read_all(descriptor: Option<OwnedFd>) -> String {
    io::read_to_string(fs::File::from(descriptor.expect("a descriptor"))).expect("read")
}

#[test]
fn attach_reports_the_root_and_refuses_other_versions() {
    let mut rig = Rig::new(MountOptions { readonly: true, ..MountOptions::default() });
    let (body, _) = rig.call(&Request::Attach { version: VERSION }).expect("attach");
    let attach: reply::Attach = reply::fixed(&body).expect("decode");
    assert_eq!(attach.attr.ino, fs::metadata(rig.path("")).expect("stat").ino());
    assert_eq!(attach.mount_flags(), gofer_wire::flags::MountFlags::READONLY);
    let refused = rig.call(&Request::Attach { version: VERSION + 1 });
    assert_eq!(refused.err(), Some(Errno::EPROTO));
}

#[test]
fn walk_resolves_many_components_and_stops_at_links() {
    let mut rig = Rig::writable();
    fs::create_dir_all(rig.path("a/b")).expect("mkdir");
    fs::write(rig.path("a/b/file"), "text").expect("write");
    symlink("../../../secret", rig.path("a/b/link")).expect("symlink");

    let walked = rig.walk(ROOT_FID, "a/b/file").expect("walk");
    assert_eq!(walked.nodes.len(), 3);
    assert_eq!(walked.nodes[2].attr.size, 4);

    let walked = rig.walk(ROOT_FID, "a/b/none/x").expect("walk");
    assert_eq!((walked.nodes.len(), walked.stopped), (2, Some(Errno::ENOENT)));

    let walked = rig.walk(ROOT_FID, "a/b/link/x").expect("walk");
    assert_eq!((walked.nodes.len(), walked.stopped), (3, None));
    assert_eq!(walked.target.as_deref(), Some(&b"../../../secret"[..]));
    let link = walked.nodes[2].fid;
    assert_eq!(rig.call(&Request::Readlink { fid: link }).expect("readlink").0, b"../../../secret");
    let refused = rig.call(&Request::Open { fid: link, flags: OpenFlags::READ });
    assert_eq!(refused.err(), Some(Errno::ELOOP));
    assert_eq!(rig.walk(link, "x").err(), Some(Errno::ENOTDIR));

    let walked = rig.walk(ROOT_FID, "a/b/file/x").expect("walk");
    assert_eq!((walked.nodes.len(), walked.stopped), (3, None));
}

#[test]
fn names_that_leave_the_directory_are_refused_whoever_encodes_them() {
    let mut rig = Rig::writable();
    let mut message = Vec::new();
    Request::Unlink { dir: ROOT_FID, name: name("xx"), flags: UnlinkFlags::empty() }
        .encode(1, &mut message)
        .expect("encode");
    for evil in [&b".."[..], b"./", b"/x", b"x\0"] {
        let at = message.len() - 2;
        message[at..].copy_from_slice(evil);
        let answer = rig.session.answer(&rig.reopener, &message, &mut rig.reply);
        assert!(matches!(answer, Answer::Reply(fds) if fds.is_empty()));
        assert_eq!(reply::body(&rig.reply, Opcode::Unlink, 1), Ok(Err(Errno::EINVAL)));
    }
}

#[test]
fn a_directory_that_becomes_a_link_at_any_moment_leads_nowhere() {
    let mut rig = Rig::writable();
    fs::create_dir(rig.path("dir")).expect("mkdir");
    fs::write(rig.path("dir/secret"), "inside").expect("write");
    symlink("..", rig.path("link")).expect("symlink");
    let (dir, link) = (rig.path("dir"), rig.path("link"));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &dir, cwd, &link, flags).expect("exchange");
            }
        });
        for _ in 0..2000 {
            let walked = rig.walk(ROOT_FID, "dir/secret").expect("walk");
            if let [_, file] = walked.nodes[..] {
                let request = Request::Open { fid: file.fid, flags: OpenFlags::READ };
                assert_eq!(read_all(rig.call(&request).expect("open").1), "inside");
            } else {
                assert!(walked.target.is_some() || walked.stopped == Some(Errno::ELOOP));
            }
            let fids: Vec<_> = walked.nodes.iter().map(|node| node.fid).collect();
            rig.call(&Request::Close { fids: Fids::new(&fids) }).expect("close");
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn creating_over_a_link_does_not_follow_it() {
    let mut rig = Rig::writable();
    symlink("../created", rig.path("link")).expect("symlink");
    let request = Request::Create {
        dir: ROOT_FID,
        name: name("link"),
        flags: OpenFlags::WRITE,
        ownership: OWNERSHIP,
    };
    assert_eq!(rig.node(&request).err(), Some(Errno::EEXIST));
    assert!(!rig.dir.path("created").exists());
}

#[test]
fn a_donated_descriptor_has_the_access_that_was_asked_for() {
    let mut rig = Rig::writable();
    fs::write(rig.path("file"), "text").expect("write");
    let fid = rig.fid("file");
    let (_, read) = rig.call(&Request::Open { fid, flags: OpenFlags::READ }).expect("open");
    let read = read.expect("a descriptor");
    assert_eq!(rustix::io::write(&read, b"x").err(), Some(rustix::io::Errno::BADF));
    assert_eq!(read_all(Some(read)), "text");
    let flags = OpenFlags::WRITE | OpenFlags::TRUNCATE;
    let (_, write) = rig.call(&Request::Open { fid, flags }).expect("open");
    assert_eq!(fs::metadata(rig.path("file")).expect("stat").len(), 0);
    assert_eq!(rustix::io::write(write.expect("a descriptor"), b"new"), Ok(3));
    for flags in [OpenFlags::empty(), OpenFlags::READ | OpenFlags::TRUNCATE] {
        assert_eq!(rig.call(&Request::Open { fid, flags }).err(), Some(Errno::EINVAL));
    }
}

#[test]
fn only_regular_files_are_opened() {
    let mut rig = Rig::writable();
    rustix::fs::mknodat(
        open(&rig.path("")),
        "fifo",
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("mkfifo");
    let fid = rig.fid("fifo");
    let refused = rig.call(&Request::Open { fid, flags: OpenFlags::READ });
    assert_eq!(refused.err(), Some(Errno::ENXIO));
    let refused = rig.call(&Request::Open { fid: ROOT_FID, flags: OpenFlags::READ });
    assert_eq!(refused.err(), Some(Errno::EISDIR));
}

#[test]
fn a_device_is_seen_but_not_opened_and_a_procfs_is_not_entered() {
    let options = MountOptions::default();
    let mut session = Session::new(open(Path::new("/")), options, 100).expect("a session");
    let rig = Rig::writable();
    let mut reply = Vec::new();
    let mut message = Vec::new();
    let mut walk = |names: &[Name<'_>]| {
        Request::Walk { fid: ROOT_FID, names: Names::new(names) }
            .encode(1, &mut message)
            .expect("encode");
        session.answer(&rig.reopener, &message, &mut reply);
        let (body, _) = reply::body(&reply, Opcode::Walk, 1).expect("reply").expect("walk");
        let walk = reply::Walk::decode(body).expect("decode");
        (walk.nodes().last(), walk.stopped)
    };
    assert_eq!(walk(&[name("proc"), name("version")]), (None, Some(Errno::EACCES)));
    let (null, _) = walk(&[name("dev"), name("null")]);
    let null = null.expect("a node");
    assert_eq!(null.attr.file_type(), Attr::CHARACTER);
    let request = Request::Open { fid: null.fid, flags: OpenFlags::READ };
    request.encode(2, &mut message).expect("encode");
    session.answer(&rig.reopener, &message, &mut reply);
    assert_eq!(reply::body(&reply, Opcode::Open, 2), Ok(Err(Errno::EACCES)));
}

#[test]
fn new_files_have_the_owner_and_mode_that_were_asked_for() {
    let mut rig = Rig::writable();
    // A set-group-id directory, which would hand down its group.
    fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o2777)).expect("chmod");
    let is_root = rustix::process::geteuid().is_root();
    let (uid, gid) = if is_root { (1234, 5678) } else { rustix_ids() };
    let ownership = |mode| Ownership { mode, uid, gid };
    let check = |node: reply::Node, mode| {
        assert_eq!((node.attr.mode, node.attr.uid, node.attr.gid), (mode, uid, gid));
    };
    let dir = ROOT_FID;
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    let (node, file) = rig
        .node(&Request::Create { dir, name: name("f"), flags, ownership: ownership(0o4777) })
        .expect("create");
    check(node, 0o104_777);
    assert_eq!(rustix::io::write(file.expect("a descriptor"), b"12345"), Ok(5));
    let (node, _) = rig
        .node(&Request::Mkdir { dir, name: name("d"), ownership: ownership(0o1707) })
        .expect("mkdir");
    check(node, 0o041_707);
    let (node, _) = rig
        .node(&Request::Symlink {
            dir,
            name: name("l"),
            target: b"/nowhere",
            ownership: ownership(0),
        })
        .expect("symlink");
    check(node, 0o120_777);
    for (n, mode) in [("fifo", 0o010_622), ("sock", 0o140_600), ("reg", 0o100_000)] {
        let request =
            Request::Mknod { dir, name: name(n), ownership: ownership(mode), major: 0, minor: 0 };
        check(rig.node(&request).expect("mknod").0, mode);
    }
    let again = Request::Mkdir { dir, name: name("d"), ownership: ownership(0o755) };
    assert_eq!(rig.node(&again).err(), Some(Errno::EEXIST));
}

fn rustix_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

#[test]
fn device_nodes_are_not_created_but_whiteouts() {
    let mut rig = Rig::writable();
    let mknod = |mode, major| Request::Mknod {
        dir: ROOT_FID,
        name: name("dev"),
        ownership: Ownership { mode, uid: 0, gid: 0 },
        major,
        minor: 0,
    };
    assert_eq!(rig.node(&mknod(0o020_666, 1)).err(), Some(Errno::EPERM));
    assert_eq!(rig.node(&mknod(0o060_666, 0)).err(), Some(Errno::EPERM));
    assert_eq!(rig.node(&mknod(0o040_666, 0)).err(), Some(Errno::EINVAL));
    if rustix::process::geteuid().is_root() {
        rig.node(&mknod(0o020_000, 0)).expect("a whiteout");
    }
}

#[test]
fn names_are_linked_moved_and_removed() {
    let mut rig = Rig::writable();
    fs::write(rig.path("file"), "text").expect("write");
    fs::create_dir(rig.path("dir")).expect("mkdir");
    let (file, dir) = (rig.fid("file"), rig.fid("dir"));
    let (body, _) = rig.call(&Request::Link { fid: file, dir, name: name("two") }).expect("link");
    assert_eq!(reply::fixed::<Attr>(&body).expect("decode").nlink, 2);
    let refused = rig.call(&Request::Link { fid: dir, dir, name: name("three") });
    assert_eq!(refused.err(), Some(Errno::EPERM));

    let rename = |flags| Request::Rename {
        old_dir: dir,
        old_name: name("two"),
        new_dir: ROOT_FID,
        new_name: name("file2"),
        flags,
    };
    rig.call(&rename(RenameFlags::empty())).expect("rename");
    assert!(rig.path("file2").exists());
    fs::write(rig.path("dir/two"), "").expect("write");
    assert_eq!(rig.call(&rename(RenameFlags::NOREPLACE)).err(), Some(Errno::EEXIST));

    let unlink = |n, flags| Request::Unlink { dir: ROOT_FID, name: name(n), flags };
    let refused = rig.call(&unlink("dir", UnlinkFlags::empty()));
    assert_eq!(refused.err(), Some(Errno::EISDIR));
    let refused = rig.call(&unlink("dir", UnlinkFlags::DIRECTORY));
    assert_eq!(refused.err(), Some(Errno::ENOTEMPTY));
    rig.call(&unlink("file", UnlinkFlags::empty())).expect("unlink");
    // The fid names the inode, not the path.
    let (body, _) = rig.call(&Request::Getattr { fid: file }).expect("getattr");
    assert_eq!(reply::fixed::<Attr>(&body).expect("decode").nlink, 1);
    rig.call(&Request::Open { fid: file, flags: OpenFlags::READ }).expect("open");
}

#[test]
fn attributes_are_changed_in_one_request() {
    let mut rig = Rig::writable();
    fs::write(rig.path("file"), "text").expect("write");
    let fid = rig.fid("file");
    let mask = SetAttrMask::MODE | SetAttrMask::SIZE | SetAttrMask::MTIME | SetAttrMask::ATIME_NOW;
    let attr = SetAttr {
        mask: mask.bits(),
        mode: 0o4711,
        size: 100,
        mtime: Timespec { seconds: -5, nanoseconds: 7, reserved: 0 },
        ..SetAttr::default()
    };
    let (body, _) = rig.call(&Request::Setattr { fid, attr }).expect("setattr");
    let changed: Attr = reply::fixed(&body).expect("decode");
    assert_eq!((changed.mode, changed.size), (0o104_711, 100));
    assert_eq!((changed.mtime.seconds, changed.mtime.nanoseconds), (-5, 7));
    assert!(changed.atime.seconds > 1_000_000_000);

    let bad_time = Timespec { seconds: 0, nanoseconds: 1_000_000_000, reserved: 0 };
    let attr = SetAttr { mask: SetAttrMask::MTIME.bits(), mtime: bad_time, ..attr };
    assert_eq!(rig.call(&Request::Setattr { fid, attr }).err(), Some(Errno::EINVAL));
    let attr = SetAttr { mask: SetAttrMask::SIZE.bits(), size: u64::MAX, ..attr };
    assert_eq!(rig.call(&Request::Setattr { fid, attr }).err(), Some(Errno::EINVAL));
    let refused = rig.call(&Request::Setattr { fid: ROOT_FID, attr });
    assert_eq!(refused.err(), Some(Errno::EISDIR));
}

#[test]
fn every_change_of_a_readonly_mount_is_refused() {
    let mut rig = Rig::new(MountOptions { readonly: true, ..MountOptions::default() });
    fs::write(rig.path("file"), "text").expect("write");
    let fid = rig.fid("file");
    let (dir, n, ownership) = (ROOT_FID, name("new"), OWNERSHIP);
    let attr = SetAttr { mask: SetAttrMask::MODE.bits(), ..SetAttr::default() };
    let kind = BindKind::Stream;
    let requests = [
        Request::Setattr { fid, attr },
        Request::Open { fid, flags: OpenFlags::WRITE },
        Request::Open { fid, flags: OpenFlags::READ | OpenFlags::WRITE },
        Request::Open { fid, flags: OpenFlags::READ | OpenFlags::TRUNCATE },
        Request::Create { dir, name: n, flags: OpenFlags::READ, ownership },
        Request::Mkdir { dir, name: n, ownership },
        Request::Symlink { dir, name: n, target: b"x", ownership },
        Request::Link { fid, dir, name: n },
        Request::Mknod { dir, name: n, ownership, major: 0, minor: 0 },
        Request::Unlink { dir, name: name("file"), flags: UnlinkFlags::empty() },
        Request::Rename {
            old_dir: dir,
            old_name: name("file"),
            new_dir: dir,
            new_name: n,
            flags: RenameFlags::empty(),
        },
        Request::SetXattr { fid, name: name("user.x"), value: b"", flags: XattrFlags::empty() },
        Request::RemoveXattr { fid, name: name("user.x") },
        Request::Bind { dir, name: n, ownership, kind },
        Request::TmpFile { dir },
    ];
    for request in requests {
        assert_eq!(rig.call(&request).err(), Some(Errno::EROFS), "{request:?}");
    }
    assert_eq!(rig.read_dir(ROOT_FID), ["file"]);
}

#[test]
fn a_backing_file_has_no_name_and_gets_none() {
    let mut rig =
        Rig::new(MountOptions { readonly: true, tmpfiles: true, ..MountOptions::default() });
    let (_, file) = rig.call(&Request::TmpFile { dir: ROOT_FID }).expect("tmpfile");
    let file = file.expect("a descriptor");
    assert_eq!(rustix::io::write(&file, b"data"), Ok(4));
    assert!(rig.read_dir(ROOT_FID).is_empty());
    let path = crate::reopen::FdPath::new(&file);
    let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    let root = open(&rig.path(""));
    let linked = rustix::fs::linkat(rig.reopener.dir(), path.as_str(), &root, "name", flags);
    assert_eq!(linked.err(), Some(rustix::io::Errno::NOENT));
}

#[test]
fn ten_thousand_entries_are_read_once_each() {
    let mut rig = Rig::writable();
    for number in 0..10_000 {
        fs::write(rig.path(&format!("a-somewhat-long-name-{number:05}")), "").expect("write");
    }
    let mut found = rig.read_dir(ROOT_FID);
    found.sort();
    assert_eq!(found.len(), 10_000);
    assert_eq!(found[9_999], "a-somewhat-long-name-09999");
    found.dedup();
    assert_eq!(found.len(), 10_000);
    // Again, from the start.
    assert_eq!(rig.read_dir(ROOT_FID).len(), 10_000);
    let file = rig.fid("a-somewhat-long-name-00000");
    let refused = rig.call(&Request::Readdir { fid: file, cookie: 0 });
    assert_eq!(refused.err(), Some(Errno::ENOTDIR));
}

#[test]
fn fids_are_bounded_and_used_again() {
    let mut rig = Rig::writable();
    fs::write(rig.path("file"), "").expect("write");
    let mut fids = Vec::new();
    let stopped = loop {
        let walked = rig.walk(ROOT_FID, "file").expect("walk");
        fids.extend(walked.nodes.iter().map(|node| node.fid));
        if walked.stopped.is_some() {
            break walked.stopped;
        }
    };
    assert_eq!((fids.len(), stopped), (1000, Some(Errno::EMFILE)));
    // The root's and unknown ones are ignored, and so is a second time.
    let some = [ROOT_FID, fids[3], fids[3], 5_000_000, u32::MAX];
    rig.call(&Request::Close { fids: Fids::new(&some) }).expect("close");
    assert_eq!(rig.call(&Request::Getattr { fid: fids[3] }).err(), Some(Errno::EBADF));
    rig.call(&Request::Getattr { fid: ROOT_FID }).expect("the root stays");
    assert_eq!(rig.fid("file"), fids[3]);
    assert_eq!(rig.walk(ROOT_FID, "file").expect("walk").stopped, Some(Errno::EMFILE));
}

#[test]
fn user_attributes_are_served_and_others_hidden() {
    let mut rig = Rig::writable();
    fs::write(rig.path("file"), "").expect("write");
    let fid = rig.fid("file");
    let user = name("user.colour");
    let set = |flags| Request::SetXattr { fid, name: user, value: b"blue", flags };
    match rig.call(&set(XattrFlags::CREATE)) {
        Err(Errno::EOPNOTSUPP) => return, // A file system without them.
        set => set.expect("setxattr"),
    };
    assert_eq!(rig.call(&set(XattrFlags::CREATE)).err(), Some(Errno::EEXIST));
    assert_eq!(rig.call(&Request::GetXattr { fid, name: user }).expect("get").0, b"blue");
    assert_eq!(rig.call(&Request::ListXattr { fid }).expect("list").0, b"user.colour\0");
    rig.call(&Request::RemoveXattr { fid, name: user }).expect("remove");
    let absent = rig.call(&Request::GetXattr { fid, name: user });
    assert_eq!(absent.err(), Some(Errno::ENODATA));
    for hidden in ["security.selinux", "trusted.overlay.opaque", "security.capability"] {
        let flags = XattrFlags::empty();
        let request = Request::SetXattr { fid, name: name(hidden), value: b"", flags };
        assert_eq!(rig.call(&request).err(), Some(Errno::EOPNOTSUPP));
    }
    let hidden = rig.call(&Request::GetXattr { fid, name: name("security.selinux") });
    assert_eq!(hidden.err(), Some(Errno::EOPNOTSUPP));
}

#[test]
fn sockets_need_permission() {
    let kind = BindKind::Stream;
    let bind = Request::Bind { dir: ROOT_FID, name: name("sock"), ownership: OWNERSHIP, kind };
    let mut rig = Rig::writable();
    assert_eq!(rig.call(&bind).err(), Some(Errno::EPERM));

    let mut rig = Rig::new(MountOptions {
        connect_unix_sockets: true,
        bind_unix_sockets: true,
        ..MountOptions::default()
    });
    let (node, listener) = rig.node(&bind).expect("bind");
    assert_eq!(node.attr.mode, 0o140_640);
    let listener = listener.expect("a descriptor");
    let connect = Request::Connect { fid: node.fid, kind };
    assert_eq!(rig.call(&connect).err(), Some(Errno::ECONNREFUSED));
    rustix::net::listen(&listener, 1).expect("listen");
    let (_, client) = rig.call(&connect).expect("connect");
    let server = rustix::net::accept(&listener).expect("accept");
    rustix::io::write(client.expect("a descriptor"), b"hello").expect("write");
    let mut received = [0; 5];
    rustix::io::read(&server, &mut received).expect("read");
    assert_eq!(&received, b"hello");

    rig.session.options.connect_unix_sockets = false;
    assert_eq!(rig.call(&connect).err(), Some(Errno::ECONNREFUSED));
    rig.session.options.connect_unix_sockets = true;
    fs::write(rig.path("file"), "").expect("write");
    let fid = rig.fid("file");
    let refused = rig.call(&Request::Connect { fid, kind });
    assert_eq!(refused.err(), Some(Errno::ECONNREFUSED));
}

#[test]
fn a_root_may_be_a_file() {
    let rig = Rig::writable();
    fs::write(rig.path("file"), "text").expect("write");
    let session = Session::new(open(&rig.path("file")), MountOptions::default(), 10);
    let mut rig = Rig { session: session.expect("a session"), ..rig };
    assert_eq!(rig.walk(ROOT_FID, "x").err(), Some(Errno::ENOTDIR));
    let request = Request::Open { fid: ROOT_FID, flags: OpenFlags::READ };
    assert_eq!(read_all(rig.call(&request).expect("open").1), "text");
}

#[test]
fn random_requests_leave_the_outside_alone() {
    let mut rig = Rig::writable();
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut message = Vec::new();
    for _ in 0..20_000 {
        // Opcode, small numbers (so that some are fids), and short names.
        let [opcode, fill, length, ..] = random().to_le_bytes();
        let opcode = opcode % 27;
        message.clear();
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&[opcode, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        for _ in 0..length % 10 {
            message.extend_from_slice(&u32::from(random().to_le_bytes()[0] % 8).to_ne_bytes());
        }
        for _ in 0..fill % 3 {
            let [a, b, ..] = random().to_le_bytes();
            let text = [b'.', b'.', b'a' + a % 4, b'/'];
            let text = &text[usize::from(b % 3)..][..1 + usize::from(b % 2)];
            message.extend_from_slice(&u16::try_from(text.len()).expect("short").to_ne_bytes());
            message.extend_from_slice(text);
        }
        let size = u32::try_from(message.len()).expect("short").to_ne_bytes();
        message[..4].copy_from_slice(&size);
        let _ = rig.session.answer(&rig.reopener, &message, &mut rig.reply);
    }
    let mut outside: Vec<_> =
        fs::read_dir(&rig.dir.0).expect("list").map(|e| e.expect("entry").file_name()).collect();
    outside.sort();
    assert_eq!(outside, ["root", "secret"]);
    assert_eq!(fs::read_to_string(rig.dir.path("secret")).expect("read"), "secret");
}

/// Opens both ends of a connection.
fn connection() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a socket pair")
}

/// Sends a request and receives the reply to it.
fn exchange(socket: &OwnedFd, request: &Request<'_>) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    request.encode(1, &mut message).expect("encode");
    rustix::net::send(socket, &message, rustix::net::SendFlags::NOSIGNAL).ok()?;
    receive(socket)
}

fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut message = vec![0; gofer_wire::MAX_MESSAGE];
    let flags = rustix::net::RecvFlags::empty();
    let (length, _) = rustix::net::recv(socket, message.as_mut_slice(), flags).ok()?;
    message.truncate(length);
    (length > 0).then_some(message)
}

#[test]
fn the_loop_serves_several_connections_and_survives_bad_ones() {
    let dir = TempDir::new();
    let mut ends = Vec::new();
    let mut mounts = Vec::new();
    for _ in 0..3 {
        let (client, socket) = connection();
        ends.push(client);
        mounts.push(MountConfig { socket, root: open(&dir.0), options: MountOptions::default() });
    }
    let reopener = Reopener::new(None).expect("a procfs");
    let mut server = Server::new(mounts, reopener, 10).expect("a server");
    let serving = std::thread::spawn(move || server.serve());
    let attach = Request::Attach { version: VERSION };
    for end in &ends {
        assert!(exchange(end, &attach).is_some());
    }
    // One sends garbage, with a descriptor, and is disconnected; the others are not.
    let garbage = rustix::net::send(&ends[1], b"garbage", rustix::net::SendFlags::NOSIGNAL);
    assert_eq!(garbage, Ok(7));
    assert_eq!(receive(&ends[1]), None);
    assert!(exchange(&ends[2], &attach).is_some());
    // One does not read its replies, until there is no room for another.
    let mut message = Vec::new();
    Request::Readdir { fid: ROOT_FID, cookie: 0 }.encode(1, &mut message).expect("encode");
    loop {
        let flags = rustix::net::SendFlags::NOSIGNAL;
        if rustix::net::send(&ends[0], &message, flags).is_err() {
            break;
        }
    }
    assert!(exchange(&ends[2], &attach).is_some());
    drop(ends);
    serving.join().expect("no panic").expect("no error");
}

/// Runs every kind of request in a process that has locked itself down, where a call outside the
/// filter is death.
#[test]
fn a_jailed_gofer_serves_everything() {
    const ROOT: &str = "GOFER_TEST_ROOT";
    if let Some(root) = std::env::var_os(ROOT) {
        let socket = io::stdin().as_fd().try_clone_to_owned().expect("the connection");
        let options = MountOptions {
            connect_unix_sockets: true,
            bind_unix_sockets: true,
            ..MountOptions::default()
        };
        let mount = MountConfig { socket, root: open(Path::new(&root)), options };
        crate::run(Config { mounts: vec![mount], proc_self_fd: None }).expect("run");
        return;
    }
    let dir = TempDir::new();
    fs::write(dir.path("file"), "text").expect("write");
    symlink("target", dir.path("link")).expect("symlink");
    let (client, socket) = connection();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "session::tests::a_jailed_gofer_serves_everything", "--test-threads=1"])
        .env(ROOT, &dir.0)
        .stdin(socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("spawn");
    let (n, ownership) = (name("x"), Ownership { mode: 0o4755, uid: 1, gid: 1 });
    let names = [name("file")];
    let link = [name("link")];
    let kind = BindKind::Stream;
    let (root, file) = (ROOT_FID, 1);
    let attr = SetAttr { mask: 0x3f, size: 5, ..SetAttr::default() };
    let requests = [
        (Request::Attach { version: VERSION }, true),
        (Request::Walk { fid: root, names: Names::new(&names) }, true),
        (Request::Walk { fid: root, names: Names::new(&link) }, true),
        (Request::Readlink { fid: 2 }, true),
        (Request::Getattr { fid: file }, true),
        (Request::Open { fid: file, flags: OpenFlags::READ }, true),
        (Request::Create { dir: root, name: n, flags: OpenFlags::READ, ownership }, true),
        (Request::Unlink { dir: root, name: n, flags: UnlinkFlags::empty() }, true),
        (Request::Mkdir { dir: root, name: n, ownership }, true),
        (Request::Unlink { dir: root, name: n, flags: UnlinkFlags::DIRECTORY }, true),
        (Request::Symlink { dir: root, name: n, target: b"t", ownership }, true),
        (
            Request::Rename {
                old_dir: root,
                old_name: n,
                new_dir: root,
                new_name: name("y"),
                flags: RenameFlags::empty(),
            },
            true,
        ),
        (Request::Link { fid: file, dir: root, name: n }, true),
        (
            Request::Mknod {
                dir: root,
                name: name("fifo"),
                ownership: Ownership { mode: 0o010_600, uid: 0, gid: 0 },
                major: 0,
                minor: 0,
            },
            true,
        ),
        (Request::Readdir { fid: root, cookie: 0 }, true),
        (Request::Statfs { fid: root }, true),
        (
            Request::SetXattr {
                fid: file,
                name: name("user.a"),
                value: b"v",
                flags: XattrFlags::empty(),
            },
            false,
        ),
        (Request::GetXattr { fid: file, name: name("user.a") }, false),
        (Request::ListXattr { fid: file }, false),
        (Request::RemoveXattr { fid: file, name: name("user.a") }, false),
        (Request::Setattr { fid: file, attr }, true),
        (Request::Fsync { fid: file, data_only: false }, true),
        (Request::Fsync { fid: root, data_only: true }, true),
        (Request::SyncFs { fid: root }, true),
        (Request::TmpFile { dir: root }, false),
        (Request::Bind { dir: root, name: name("s"), ownership, kind }, true),
        (Request::Connect { fid: file, kind }, false),
    ];
    let is_root = rustix::process::geteuid().is_root();
    for (request, must_succeed) in requests {
        let answer =
            exchange(&client, &request).unwrap_or_else(|| panic!("the gofer died of {request:?}"));
        let outcome = reply::body(&answer, request.opcode(), 1).expect("a reply");
        if must_succeed && is_root {
            assert!(outcome.is_ok(), "{request:?}: {outcome:?}");
        }
    }
    drop(client);
    assert!(child.wait().expect("wait").success());
}
