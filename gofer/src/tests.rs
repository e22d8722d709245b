//! The gofer against a directory of the host, in three parts: what it serves, what a hostile client
//! may try, and the process with its loop and its jail.
#![expect(
    clippy::unwrap_in_result,
    reason = "helpers return the guest's error, and panic on any other"
)]

mod files;
mod hostile;
mod process;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use gofer_wire::request::{Names, Ownership};
use gofer_wire::{Name, ROOT_FID, Request, reply};
use syscalls::{Errno, SysResult};

use crate::MountOptions;
use crate::reopen::Reopener;
use crate::session::{Answer, Session};

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

/// Returns an owner whom this process may give files to: another where it may choose.
fn owner(mode: u32) -> Ownership {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // In the first user namespace all ids are mapped.
    let may_choose = uid.is_root()
        && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    let (uid, gid) = if may_choose { (1234, 5678) } else { (uid.as_raw(), gid.as_raw()) };
    // What the tests of one process make at the same time has this umask, as in the gofer itself.
    rustix::process::umask(rustix::fs::Mode::empty());
    Ownership { mode, umask: 0, uid, gid }
}

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
            let entries = reply::Entries::decode(&body).expect("decode");
            let is_end = entries.is_end();
            for entry in entries {
                found.push(String::from_utf8_lossy(entry.name.as_bytes()).into_owned());
                cookie = entry.next;
            }
            if is_end {
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
