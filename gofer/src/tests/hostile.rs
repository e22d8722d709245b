//! What a session must not do, whatever it is asked for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gofer_wire::codec::Opcode;
use gofer_wire::request::{Fids, Names};
use gofer_wire::{
    Attr, BindKind, Name, OpenFlags, ROOT_FID, RenameFlags, Request, SetAttr, SetAttrMask,
    UnlinkFlags, XattrFlags, reply,
};
use syscalls::Errno;

use super::{Rig, name, open, owner, read_all};
use crate::MountOptions;
use crate::session::{Answer, Session};

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
fn watches_are_limited() {
    let mut rig = Rig::writable();
    rig.call(&Request::Notify).expect("notify");
    for number in 0..=gofer_wire::MAX_WATCHES {
        let file = number.to_string();
        fs::write(rig.path(&file), "").expect("write");
        let fid = rig.fid(&file);
        let watched = rig.call(&Request::Watch { fid });
        rig.call(&Request::Close { fids: Fids::new(&[fid]) }).expect("close");
        if number == gofer_wire::MAX_WATCHES {
            assert_eq!(watched.err(), Some(Errno::ENOSPC));
        } else if watched.err() == Some(Errno::ENOSPC) {
            // The host has fewer.
            break;
        }
    }
    rig.call(&Request::Unwatch { watch: 1 }).expect("unwatch");
    let fid = rig.fid("0");
    rig.call(&Request::Watch { fid }).expect("room again");
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
        ownership: owner(0o640),
    };
    assert_eq!(rig.node(&request).err(), Some(Errno::EEXIST));
    assert!(!rig.dir.path("created").exists());
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
    let (proc, stopped) = walk(&[name("proc"), name("version")]);
    assert_eq!(stopped, Some(Errno::ENOENT));
    assert_eq!(proc.expect("an empty directory").attr.file_type(), Attr::DIRECTORY);
    let (null, _) = walk(&[name("dev"), name("null")]);
    let null = null.expect("a node");
    assert_eq!(null.attr.file_type(), Attr::CHARACTER);
    let request = Request::Open { fid: null.fid, flags: OpenFlags::READ };
    request.encode(2, &mut message).expect("encode");
    session.answer(&rig.reopener, &message, &mut reply);
    assert_eq!(reply::body(&reply, Opcode::Open, 2), Ok(Err(Errno::EACCES)));
}

#[test]
fn device_nodes_are_not_created_but_whiteouts() {
    let mut rig = Rig::writable();
    let mknod = |mode, major| Request::Mknod {
        dir: ROOT_FID,
        name: name("dev"),
        ownership: owner(mode),
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
fn every_change_of_a_readonly_mount_is_refused() {
    let mut rig = Rig::new(MountOptions { readonly: true, ..MountOptions::default() });
    fs::write(rig.path("file"), "text").expect("write");
    let fid = rig.fid("file");
    let (dir, n, ownership) = (ROOT_FID, name("new"), owner(0o640));
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
