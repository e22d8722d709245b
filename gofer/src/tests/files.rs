//! What a session serves.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use gofer_wire::{
    Attr, BindKind, OpenFlags, ROOT_FID, RenameFlags, Request, SetAttr, SetAttrMask, Timespec,
    UnlinkFlags, VERSION, XattrFlags, reply,
};
use syscalls::Errno;

use super::{Rig, name, open, owner, read_all};
use crate::MountOptions;
use crate::session::Session;

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
fn new_files_have_the_owner_and_mode_that_were_asked_for() {
    let mut rig = Rig::writable();
    // A set-group-id directory, which would hand down its group.
    fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o2777)).expect("chmod");
    let check = |node: reply::Node, mode| {
        let owner = owner(0);
        let found = (node.attr.mode, node.attr.uid, node.attr.gid);
        assert_eq!(found, (mode, owner.uid, owner.gid));
    };
    let dir = ROOT_FID;
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    let (node, file) = rig
        .node(&Request::Create { dir, name: name("f"), flags, ownership: owner(0o4777) })
        .expect("create");
    check(node, 0o104_777);
    assert_eq!(rustix::io::write(file.expect("a descriptor"), b"12345"), Ok(5));
    let (node, _) = rig
        .node(&Request::Mkdir { dir, name: name("d"), ownership: owner(0o1707) })
        .expect("mkdir");
    check(node, 0o041_707);
    let (node, _) = rig
        .node(&Request::Symlink { dir, name: name("l"), target: b"/nowhere", ownership: owner(0) })
        .expect("symlink");
    check(node, 0o120_777);
    for (n, mode) in [("fifo", 0o010_622), ("sock", 0o140_600), ("reg", 0o100_000)] {
        let request =
            Request::Mknod { dir, name: name(n), ownership: owner(mode), major: 0, minor: 0 };
        check(rig.node(&request).expect("mknod").0, mode);
    }
    let again = Request::Mkdir { dir, name: name("d"), ownership: owner(0o755) };
    assert_eq!(rig.node(&again).err(), Some(Errno::EEXIST));
}

/// Reads the events of a connection, as watches and masks.
fn events(inotify: &OwnedFd) -> Vec<(i32, u32)> {
    let mut buffer = [0; 4096];
    let Ok(n) = rustix::io::read(inotify, &mut buffer) else { return Vec::new() };
    let mut rest = &buffer[..n];
    let mut found = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("a word"));
        found.push((word(0).cast_signed(), word(4)));
        rest = &after[usize::try_from(word(12)).expect("small")..];
    }
    found
}

#[test]
fn what_happens_to_watched_files_is_told() {
    const IN_CREATE: u32 = 0x100;
    const IN_ATTRIB: u32 = 0x4;
    let mut rig = Rig::writable();
    fs::write(rig.path("file"), "text").expect("write");
    let fid = rig.fid("file");
    let watch = Request::Watch { fid };
    assert_eq!(rig.call(&watch).err(), Some(Errno::EINVAL));
    assert_eq!(rig.call(&Request::Unwatch { watch: 1 }).err(), Some(Errno::EINVAL));
    let inotify = rig.call(&Request::Notify).expect("notify").1.expect("a descriptor");
    let number = |rig: &mut Rig, fid| {
        let (body, _) = rig.call(&Request::Watch { fid }).expect("watch");
        reply::fixed::<u32>(&body).expect("decode")
    };
    let (root, file) = (number(&mut rig, ROOT_FID), number(&mut rig, fid));
    assert_eq!(number(&mut rig, fid), file);
    // What the gofer does for its own ends is not.
    rig.call(&Request::Open { fid, flags: OpenFlags::READ }).expect("open");
    rig.read_dir(ROOT_FID);
    assert_eq!(events(&inotify), []);
    fs::set_permissions(rig.path("file"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::write(rig.path("other"), "").expect("write");
    let told = events(&inotify);
    let has = |watch: u32, mask| told.contains(&(watch.cast_signed(), mask));
    assert!(has(file, IN_ATTRIB) && has(root, IN_ATTRIB) && has(root, IN_CREATE), "{told:?}");
    for watch in [root, file] {
        rig.call(&Request::Unwatch { watch }).expect("unwatch");
        assert_eq!(rig.call(&Request::Unwatch { watch }).err(), Some(Errno::EINVAL));
    }
    events(&inotify);
    fs::remove_file(rig.path("other")).expect("remove");
    assert_eq!(events(&inotify), []);
    // One more descriptor tells the same.
    let (_, again) = rig.call(&Request::Notify).expect("notify");
    number(&mut rig, ROOT_FID);
    fs::write(rig.path("more"), "").expect("write");
    assert!(!events(&again.expect("a descriptor")).is_empty());
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
fn walks_say_which_files_have_no_access_control_list() {
    /// What the owner, user 1000, the group, the mask and the others may.
    const LIST: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\
        \x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let mut rig = Rig::writable();
    for name in ["with", "without"] {
        fs::write(rig.path(name), "").expect("write");
    }
    symlink("with", rig.path("link")).expect("symlink");
    let set = |fid| Request::SetXattr {
        fid,
        name: name("system.posix_acl_access"),
        value: LIST,
        flags: XattrFlags::empty(),
    };
    let link = rig.fid("link");
    assert_eq!(rig.call(&set(link)).err(), Some(Errno::EOPNOTSUPP));
    let fid = rig.fid("with");
    match rig.call(&set(fid)) {
        Err(Errno::EOPNOTSUPP) => return, // A file system without them.
        set => set.expect("setxattr"),
    };
    let known = |rig: &mut Rig, name| {
        rig.walk(ROOT_FID, name).expect("walk").nodes.last().expect("a node").attr.acl
    };
    // Nobody has asked yet.
    assert_eq!(known(&mut rig, "without"), Attr::ACL_UNKNOWN);
    let get = Request::GetXattr { fid, name: name("system.posix_acl_access") };
    assert_eq!(rig.call(&get).expect("get").0, LIST);
    assert_eq!(known(&mut rig, "without"), Attr::ACL_NONE);
    assert_eq!(known(&mut rig, "with"), Attr::ACL_UNKNOWN);
    rig.call(&Request::RemoveXattr { fid, name: name("system.posix_acl_access") }).expect("remove");
    assert_eq!(known(&mut rig, "with"), Attr::ACL_NONE);
}

#[test]
fn sockets_need_permission() {
    let kind = BindKind::Stream;
    let bind = Request::Bind { dir: ROOT_FID, name: name("sock"), ownership: owner(0o640), kind };
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
