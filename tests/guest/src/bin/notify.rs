//! `inotify(7)`: events of files and directories, masks, removal, overflow of small buffers.

use core::ffi::CStr;

use guest_tests::fs::{close, open, put, read, write};
use guest_tests::proc::until;
use guest_tests::{Outcome, check, eq, fails, ok, sys};
use libc::{
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF,
    IN_IGNORED, IN_ISDIR, IN_MODIFY, IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, IN_NONBLOCK,
    IN_ONESHOT, IN_ONLYDIR, IN_OPEN, O_RDONLY, O_RDWR,
};

fn init() -> Result<i32, i32> {
    sys!(SYS_inotify_init1, IN_NONBLOCK).map(|fd| fd as i32)
}

fn add(fd: i32, path: &CStr, mask: u32) -> Result<i32, i32> {
    sys!(SYS_inotify_add_watch, fd, path, mask).map(|watch| watch as i32)
}

/// Reads all events as (watch, mask, name).
fn events(fd: i32) -> Result<Vec<(i32, u32, String)>, i32> {
    let mut all = Vec::new();
    let mut buf = [0u8; 4096];
    loop {
        let n = match read(fd, &mut buf) {
            Ok(n) => n,
            Err(libc::EAGAIN) => return Ok(all),
            Err(errno) => return Err(errno),
        };
        let mut rest = &buf[..n];
        while rest.len() >= 16 {
            let word = |at: usize| {
                u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
            };
            let (watch, mask, len) = (word(0) as i32, word(4), word(12) as usize);
            let name = rest[16..16 + len].split(|byte| *byte == 0).next().unwrap_or_default();
            all.push((watch, mask, String::from_utf8_lossy(name).into_owned()));
            rest = &rest[16 + len..];
        }
    }
}

fn event(watch: i32, mask: u32, name: &str) -> (i32, u32, String) {
    (watch, mask, name.to_owned())
}

fn directory_events() -> Outcome {
    let fd = ok!(init());
    let w =
        ok!(add(fd, c".", IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE));
    ok!(put(c"a", b"x"));
    ok!(sys!(SYS_rename, c"a", c"b"));
    ok!(sys!(SYS_unlink, c"b"));
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    eq!(
        ok!(events(fd)),
        [
            event(w, IN_CREATE, "a"),
            event(w, IN_CLOSE_WRITE, "a"),
            event(w, IN_MOVED_FROM, "a"),
            event(w, IN_MOVED_TO, "b"),
            event(w, IN_DELETE, "b"),
            event(w, IN_CREATE | IN_ISDIR, "d"),
        ]
    );
    Ok(())
}

fn file_events() -> Outcome {
    ok!(put(c"f", b"x"));
    let fd = ok!(init());
    let w = ok!(add(fd, c"f", libc::IN_ALL_EVENTS));
    let file = ok!(open(c"f", O_RDWR));
    let mut byte = [0u8];
    ok!(read(file, &mut byte));
    ok!(write(file, b"y"));
    ok!(sys!(SYS_fchmod, file, 0o600));
    ok!(close(file));
    ok!(close(ok!(open(c"f", O_RDONLY))));
    ok!(sys!(SYS_rename, c"f", c"g"));
    ok!(sys!(SYS_unlink, c"g"));
    let masks: Vec<u32> = ok!(events(fd)).into_iter().map(|(_, mask, _)| mask).collect();
    eq!(
        masks,
        [
            IN_OPEN,
            IN_ACCESS,
            IN_MODIFY,
            IN_ATTRIB,
            IN_CLOSE_WRITE,
            IN_OPEN,
            IN_CLOSE_NOWRITE,
            IN_MOVE_SELF,
            IN_ATTRIB,
            IN_DELETE_SELF,
            IN_IGNORED
        ]
    );
    fails!(sys!(SYS_inotify_rm_watch, fd, w), EINVAL);
    Ok(())
}

fn same_events_merge() -> Outcome {
    ok!(put(c"f", b""));
    let fd = ok!(init());
    let w = ok!(add(fd, c"f", IN_MODIFY));
    let file = ok!(open(c"f", O_RDWR));
    for _ in 0..5 {
        ok!(write(file, b"x"));
    }
    eq!(ok!(events(fd)), [event(w, IN_MODIFY, "")]);
    Ok(())
}

fn one_shot_and_mask_changes() -> Outcome {
    ok!(put(c"f", b""));
    let fd = ok!(init());
    let w = ok!(add(fd, c"f", IN_MODIFY | IN_ONESHOT));
    let file = ok!(open(c"f", O_RDWR));
    ok!(write(file, b"x"));
    eq!(ok!(events(fd)), [event(w, IN_MODIFY, ""), event(w, IN_IGNORED, "")]);
    let w = ok!(add(fd, c"f", IN_MODIFY));
    eq!(ok!(add(fd, c"f", IN_ATTRIB)), w);
    ok!(write(file, b"x"));
    eq!(ok!(events(fd)), []);
    ok!(add(fd, c"f", IN_MODIFY | libc::IN_MASK_ADD));
    ok!(write(file, b"x"));
    eq!(ok!(events(fd)), [event(w, IN_MODIFY, "")]);
    ok!(sys!(SYS_inotify_rm_watch, fd, w));
    eq!(ok!(events(fd)), [event(w, IN_IGNORED, "")]);
    Ok(())
}

fn errors() -> Outcome {
    let fd = ok!(init());
    fails!(add(fd, c"none", IN_MODIFY), ENOENT);
    fails!(add(fd, c".", 0), EINVAL);
    fails!(add(0, c".", IN_MODIFY), EINVAL);
    fails!(add(999, c".", IN_MODIFY), EBADF);
    ok!(put(c"f", b""));
    fails!(add(fd, c"f", IN_MODIFY | IN_ONLYDIR), ENOTDIR);
    fails!(sys!(SYS_inotify_init1, 1), EINVAL);
    ok!(sys!(SYS_inotify_init));
    let w = ok!(add(fd, c".", IN_CREATE));
    ok!(put(c"g", b""));
    let mut small = [0u8; 10];
    fails!(read(fd, &mut small), EINVAL);
    eq!(ok!(events(fd)), [event(w, IN_CREATE, "g")]);
    Ok(())
}

fn readiness() -> Outcome {
    let fd = ok!(init());
    ok!(add(fd, c".", IN_CREATE));
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 0)), 0);
    ok!(put(c"f", b""));
    eq!(ok!(sys!(SYS_poll, &mut poll, 1, 1000)), 1);
    let mut pending = 0i32;
    ok!(sys!(SYS_ioctl, fd, libc::FIONREAD, &mut pending));
    check!(pending >= 32);
    Ok(())
}

fn instances_are_limited() -> Outcome {
    let limit = ok!(std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances"));
    let limit: usize = ok!(limit.trim().parse());
    if limit > 500 {
        return Ok(());
    }
    // Others of this user have some as well, and give them back at any time.
    let mut made = Vec::new();
    let errno = loop {
        check!(made.len() <= limit);
        match init() {
            Ok(fd) => made.push(fd),
            Err(errno) => break errno,
        }
    };
    eq!(errno, libc::EMFILE);
    for fd in made {
        ok!(close(fd));
    }
    check!(until(|| init().is_ok_and(|fd| close(fd).is_ok())));
    Ok(())
}

/// Everything that a directory is told of but opening and reading.
const CHANGES: u32 = IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MODIFY
    | IN_MOVE_SELF
    | IN_MOVED_FROM
    | IN_MOVED_TO;

fn a_watch_outlives_the_replacement_of_a_child() -> Outcome {
    ok!(put(c"f", b"old"));
    ok!(put(c"g", b"new"));
    let fd = ok!(init());
    let w = ok!(add(fd, c".", CHANGES));
    let f = ok!(add(fd, c"f", CHANGES));
    let g = ok!(add(fd, c"g", CHANGES));
    ok!(sys!(SYS_rename, c"g", c"f"));
    ok!(sys!(SYS_unlink, c"f"));
    ok!(sys!(SYS_mkdir, c"d", 0o755));
    let d = ok!(add(fd, c"d", CHANGES));
    ok!(sys!(SYS_rmdir, c"d"));
    eq!(
        ok!(events(fd)),
        [
            event(w, IN_MOVED_FROM, "g"),
            event(w, IN_MOVED_TO, "f"),
            event(f, IN_ATTRIB, ""),
            event(g, IN_MOVE_SELF, ""),
            event(f, IN_DELETE_SELF, ""),
            event(f, IN_IGNORED, ""),
            event(g, IN_ATTRIB, ""),
            event(g, IN_DELETE_SELF, ""),
            event(g, IN_IGNORED, ""),
            event(w, IN_DELETE, "f"),
            event(w, IN_CREATE | IN_ISDIR, "d"),
            event(d, IN_DELETE_SELF, ""),
            event(d, IN_IGNORED, ""),
            event(w, IN_DELETE | IN_ISDIR, "d"),
        ]
    );
    Ok(())
}

fn each_change_is_told_once() -> Outcome {
    let fd = ok!(init());
    let w = ok!(add(fd, c".", CHANGES));
    for _ in 0..20 {
        let file = ok!(open(c"f", libc::O_CREAT | O_RDWR));
        let f = ok!(add(fd, c"f", CHANGES));
        ok!(write(file, b"x"));
        ok!(sys!(SYS_fchmod, file, 0o600));
        ok!(sys!(SYS_ftruncate, file, 10));
        ok!(close(file));
        ok!(sys!(SYS_truncate, c"f", 5));
        ok!(sys!(SYS_chmod, c"f", 0o640));
        ok!(sys!(SYS_link, c"f", c"l"));
        ok!(sys!(SYS_unlink, c"l"));
        ok!(sys!(SYS_symlink, c"f", c"s"));
        ok!(sys!(SYS_rename, c"s", c"t"));
        ok!(sys!(SYS_unlink, c"t"));
        ok!(sys!(SYS_inotify_rm_watch, fd, f));
        ok!(sys!(SYS_unlink, c"f"));
        eq!(
            ok!(events(fd)),
            [
                event(w, IN_CREATE, "f"),
                event(w, IN_MODIFY, "f"),
                event(f, IN_MODIFY, ""),
                event(w, IN_ATTRIB, "f"),
                event(f, IN_ATTRIB, ""),
                event(w, IN_MODIFY, "f"),
                event(f, IN_MODIFY, ""),
                event(w, IN_CLOSE_WRITE, "f"),
                event(f, IN_CLOSE_WRITE, ""),
                event(w, IN_MODIFY, "f"),
                event(f, IN_MODIFY, ""),
                event(w, IN_ATTRIB, "f"),
                event(f, IN_ATTRIB, ""),
                event(w, IN_CREATE, "l"),
                event(f, IN_ATTRIB, ""),
                event(w, IN_DELETE, "l"),
                event(w, IN_CREATE, "s"),
                event(w, IN_MOVED_FROM, "s"),
                event(w, IN_MOVED_TO, "t"),
                event(w, IN_DELETE, "t"),
                event(f, IN_IGNORED, ""),
                event(w, IN_DELETE, "f"),
            ]
        );
    }
    Ok(())
}

/// What several threads change at once, each is told once, in the order in which it has changed it.
fn changes_of_threads_are_told_once() -> Outcome {
    const N_THREADS: usize = 3;
    const N_ROUNDS: usize = 50;
    let fd = ok!(init());
    let w = ok!(add(fd, c".", CHANGES));
    let threads: Vec<_> = (0..N_THREADS)
        .map(|thread| {
            std::thread::spawn(move || -> Result<(), i32> {
                for round in 0..N_ROUNDS {
                    let name =
                        std::ffi::CString::new(format!("{thread}.{round}")).unwrap_or_default();
                    put(&name, b"x")?;
                    sys!(SYS_chmod, name.as_c_str(), 0o600)?;
                    sys!(SYS_unlink, name.as_c_str())?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        eq!(thread.join().ok(), Some(Ok(())));
    }
    let all = ok!(events(fd));
    for thread in 0..N_THREADS {
        let prefix = format!("{thread}.");
        let own: Vec<_> = all.iter().filter(|(_, _, name)| name.starts_with(&prefix)).collect();
        let masks = [IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE, IN_ATTRIB, IN_DELETE];
        let expected: Vec<_> = (0..N_ROUNDS)
            .flat_map(|round| masks.map(|mask| event(w, mask, &format!("{thread}.{round}"))))
            .collect();
        eq!(own, expected.iter().collect::<Vec<_>>());
    }
    Ok(())
}

fn many_watches() -> Outcome {
    const N: usize = 2000;
    let fd = ok!(init());
    let mut watches = Vec::new();
    for number in 0..N {
        let name = std::ffi::CString::new(format!("d{number}")).unwrap_or_default();
        ok!(sys!(SYS_mkdir, name.as_c_str(), 0o755));
        watches.push(ok!(add(fd, &name, CHANGES)));
    }
    ok!(put(c"d0/f", b""));
    ok!(put(c"d1999/f", b""));
    let (first, last) = (watches[0], watches[N - 1]);
    eq!(
        ok!(events(fd)),
        [
            event(first, IN_CREATE, "f"),
            event(first, IN_CLOSE_WRITE, "f"),
            event(last, IN_CREATE, "f"),
            event(last, IN_CLOSE_WRITE, "f"),
        ]
    );
    for watch in &watches[1000..] {
        ok!(sys!(SYS_inotify_rm_watch, fd, *watch));
    }
    Ok(())
}

guest_tests::cases!(
    a_watch_outlives_the_replacement_of_a_child,
    each_change_is_told_once,
    changes_of_threads_are_told_once,
    many_watches,
    directory_events,
    file_events,
    same_events_merge,
    one_shot_and_mask_changes,
    errors,
    readiness,
    instances_are_limited
);
