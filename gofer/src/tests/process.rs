//! The loop over the connections, and the locked-down process.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use gofer_wire::request::Names;
use gofer_wire::{
    BindKind, OpenFlags, ROOT_FID, RenameFlags, Request, SetAttr, UnlinkFlags, VERSION, XattrFlags,
    reply,
};

use super::{TempDir, name, open, owner};
use crate::reopen::Reopener;
use crate::server::Server;
use crate::{Config, MountConfig, MountOptions};

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
        .args(["--exact", "tests::process::a_jailed_gofer_serves_everything", "--test-threads=1"])
        .env(ROOT, &dir.0)
        .stdin(socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("spawn");
    let (n, ownership) = (name("x"), owner(0o4755));
    let names = [name("file")];
    let link = [name("link")];
    let kind = BindKind::Stream;
    let (root, file) = (ROOT_FID, 1);
    let (uid, gid) = (ownership.uid, ownership.gid);
    let attr = SetAttr { mask: 0x3f, mode: 0o600, uid, gid, size: 5, ..SetAttr::default() };
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
                ownership: owner(0o010_600),
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
    for (request, must_succeed) in requests {
        let answer =
            exchange(&client, &request).unwrap_or_else(|| panic!("the gofer died of {request:?}"));
        let outcome = reply::body(&answer, request.opcode(), 1).expect("a reply");
        if must_succeed {
            assert!(outcome.is_ok(), "{request:?}: {outcome:?}");
        }
    }
    drop(client);
    assert!(child.wait().expect("wait").success());
}
