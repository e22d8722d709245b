//! Files, directories and their names.

use core::ffi::CStr;
use std::fmt::Write as _;

use crate::call::{call, close, measure};

pub(crate) fn open(path: &CStr, flags: i32) -> i32 {
    call!(257, libc::AT_FDCWD, path.as_ptr(), flags, 0o644) as i32
}

pub(crate) fn read_file(path: &CStr, len: usize) -> f64 {
    let fd = open(path, libc::O_RDONLY);
    let mut buf = vec![0u8; len];
    let time = measure(|| {
        call!(17, fd, buf.as_mut_ptr(), buf.len(), 0);
    });
    close(fd);
    time
}

pub(crate) fn read_zero() -> f64 {
    let fd = open(c"/dev/zero", libc::O_RDONLY);
    let mut byte = [0u8];
    measure(|| {
        call!(0, fd, byte.as_mut_ptr(), 1);
    })
}

/// Writes to the start of one file in `/tmp`.
pub(crate) fn write_file(len: usize) -> f64 {
    let path = c"/tmp/bench-write";
    let fd = open(path, libc::O_RDWR | libc::O_CREAT);
    let buf = vec![1u8; len];
    let time = measure(|| {
        call!(18, fd, buf.as_ptr(), buf.len(), 0);
    });
    close(fd);
    call!(87, path.as_ptr());
    time
}

pub(crate) fn stat(path: &CStr) -> f64 {
    let mut stat = [0u64; 32];
    measure(|| {
        call!(262, libc::AT_FDCWD, path.as_ptr(), stat.as_mut_ptr(), 0);
    })
}

/// The status of a file below eight directories.
pub(crate) fn stat_deep() -> f64 {
    let mut path = String::from("/tmp/bench-deep");
    let mut all = Vec::new();
    for level in 0..8 {
        let _ = write!(path, "/{level}");
        all.push(path.clone());
    }
    let _ = std::fs::create_dir_all(&path);
    let file = format!("{path}/file\0");
    let _ = std::fs::write(file.trim_end_matches('\0'), "");
    let time = CStr::from_bytes_with_nul(file.as_bytes()).map_or(0.0, stat);
    let _ = std::fs::remove_dir_all("/tmp/bench-deep");
    time
}

pub(crate) fn fstat() -> f64 {
    let fd = open(c"/proc/self/exe", libc::O_RDONLY);
    let mut stat = [0u64; 32];
    let time = measure(|| {
        call!(5, fd, stat.as_mut_ptr());
    });
    close(fd);
    time
}

pub(crate) fn open_and_close(path: &CStr, flags: i32) -> f64 {
    measure(|| {
        let fd = open(path, flags);
        call!(3, fd);
    })
}

pub(crate) fn create_and_unlink() -> f64 {
    let path = c"/tmp/bench-created";
    measure(|| {
        let fd = open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL);
        call!(3, fd);
        call!(87, path.as_ptr());
    })
}

/// Lists a directory of a thousand names.
pub(crate) fn readdir() -> f64 {
    let dir = "/tmp/bench-dir";
    let _ = std::fs::create_dir(dir);
    for index in 0..1000 {
        let _ = std::fs::write(format!("{dir}/{index}"), "");
    }
    let fd = open(c"/tmp/bench-dir", libc::O_RDONLY | libc::O_DIRECTORY);
    let mut entries = vec![0u8; 32768];
    let time = measure(|| {
        call!(8, fd, 0, 0);
        while call!(217, fd, entries.as_mut_ptr(), entries.len()) > 0 {}
    });
    close(fd);
    let _ = std::fs::remove_dir_all(dir);
    time
}

/// What a folder's file system does with a file of 32 MiB: returns the time of a MiB written and read in one piece, and of 4 KiB
/// written and read anywhere.
pub(crate) fn file_in(dir: &str) -> [(&'static str, f64); 4] {
    const SIZE: u64 = 32 << 20;
    let path = format!("{dir}/bench-file\0");
    let Ok(name) = CStr::from_bytes_with_nul(path.as_bytes()) else { return [("", 0.0); 4] };
    let fd = open(name, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);
    let mut mib = vec![7u8; 1 << 20];
    let mut offset = 0;
    let mut next = |step: u64| {
        let at = offset;
        offset = (offset + step) % SIZE;
        at
    };
    // The first time the blocks are made, which is not measured.
    for _ in 0..SIZE >> 20 {
        call!(18, fd, mib.as_ptr(), mib.len(), next(1 << 20));
    }
    let write = measure(|| {
        call!(18, fd, mib.as_ptr(), mib.len(), next(1 << 20));
    });
    let read = measure(|| {
        call!(17, fd, mib.as_mut_ptr(), mib.len(), next(1 << 20));
    });
    // A step that has no factor in common with the number of pages visits all of them.
    let write_4k = measure(|| {
        call!(18, fd, mib.as_ptr(), 4096, next(4096 * 3001));
    });
    let read_4k = measure(|| {
        call!(17, fd, mib.as_mut_ptr(), 4096, next(4096 * 3001));
    });
    close(fd);
    call!(87, name.as_ptr());
    [("write_mib", write), ("read_mib", read), ("write_4k", write_4k), ("read_4k", read_4k)]
}
