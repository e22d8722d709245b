//! Says what `inotify(7)` tells of a directory and everything below it, as it comes.
//!
//! ```text
//! watcher DIRECTORY LOG    one line for each event; the log's first line says that it is watching. Directories that
//!                          appear are watched too, files whose names begin with `watched` for themselves.
//!                          Ends when something called `end` appears
//! ```

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use guest_tests::sys;
use libc::{
    IN_ATTRIB, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_IGNORED, IN_ISDIR,
    IN_MODIFY, IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, IN_Q_OVERFLOW,
};

const WANTED: u32 = IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MODIFY
    | IN_MOVE_SELF
    | IN_MOVED_FROM
    | IN_MOVED_TO;

const NAMES: [(u32, &str); 12] = [
    (IN_ATTRIB, "attrib"),
    (IN_CLOSE_WRITE, "close_write"),
    (IN_CREATE, "create"),
    (IN_DELETE, "delete"),
    (IN_DELETE_SELF, "delete_self"),
    (IN_MODIFY, "modify"),
    (IN_MOVE_SELF, "move_self"),
    (IN_MOVED_FROM, "moved_from"),
    (IN_MOVED_TO, "moved_to"),
    (IN_IGNORED, "ignored"),
    (IN_Q_OVERFLOW, "overflow"),
    (IN_ISDIR, "isdir"),
];

struct Watcher {
    inotify: i32,
    top: PathBuf,
    paths: BTreeMap<i32, PathBuf>,
}

impl Watcher {
    /// Watches a file, and what is to be watched below it.
    fn watch(&mut self, path: &Path) {
        let c_path = CString::new(path.to_str().unwrap()).unwrap();
        let watch = sys!(SYS_inotify_add_watch, self.inotify, c_path.as_c_str(), WANTED)
            .unwrap_or_else(|errno| panic!("{path:?}: {errno}"));
        self.paths.insert(watch as i32, path.to_owned());
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if is_wanted(&entry.path()) {
                self.watch(&entry.path());
            }
        }
    }

    /// Returns the line of an event, and whether it is the last one.
    fn line(&mut self, watch: i32, mask: u32, cookie: u32, name: &str) -> (String, bool) {
        let dir = self.paths.get(&watch).cloned().unwrap_or_default();
        let path = if name.is_empty() { dir } else { dir.join(name) };
        let mut words: Vec<&str> =
            NAMES.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, word)| *word).collect();
        if cookie != 0 {
            words.push("cookie");
        }
        if mask & (IN_CREATE | IN_MOVED_TO) != 0 && is_wanted(&path) {
            self.watch(&path);
        }
        let shown = path.strip_prefix(&self.top).unwrap_or(&path).display();
        (
            format!("{} {shown}{}\n", words.join("+"), if name.is_empty() { "." } else { "" }),
            name == "end",
        )
    }
}

fn is_wanted(path: &Path) -> bool {
    let is_named =
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("watched"));
    is_named || fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, top, log] = &args[..] else { panic!("{args:?}") };
    let inotify = sys!(SYS_inotify_init1, 0).unwrap() as i32;
    let mut watcher = Watcher { inotify, top: top.into(), paths: BTreeMap::new() };
    watcher.watch(Path::new(top));
    let mut log = File::create(log).unwrap();
    log.write_all(b"watching\n").unwrap();
    let mut last_cookie = 0;
    let mut buffer = [0u8; 64 * 1024];
    loop {
        let len = buffer.len();
        let n = sys!(SYS_read, inotify, &mut buffer[..], len).unwrap();
        let mut rest = &buffer[..n];
        while rest.len() >= 16 {
            let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
            let (watch, mask, cookie, len) = (word(0) as i32, word(4), word(8), word(12) as usize);
            let name = rest[16..16 + len].split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            rest = &rest[16 + len..];
            // The second half of a move has the cookie of the first one.
            assert!(mask & IN_MOVED_TO == 0 || cookie == last_cookie || cookie != 0);
            let is_joined = mask & IN_MOVED_TO != 0 && cookie == last_cookie;
            last_cookie = cookie;
            let (line, is_last) = watcher.line(watch, mask, u32::from(is_joined), &name);
            log.write_all(line.as_bytes()).unwrap();
            if is_last {
                return;
            }
        }
    }
}
